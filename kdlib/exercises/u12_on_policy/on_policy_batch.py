"""12.on_policy_batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.checks.criteria import facts, matches
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import Diary
from kdlib.decoding import generate
from kdlib.losses import mask_until_eos
from kdlib.training import on_policy

EOS = 5


class Writer(nn.Module):
    """A language model that looks at the last token only, and remembers how it was called.

    Attributes:
        modes: "train" or "eval", for each call.
        graphs: whether autograd recorded it, for each call.
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(logits)  # (V, V)
        self.modes: list[str] = Diary()
        self.graphs: list[bool] = Diary()

    def forward(self, ids: Tensor, cache: list | None = None, **_: object) -> Tensor:
        """`(B, T) -> (B, T, V)`."""
        self.modes.append("train" if self.training else "eval")
        logits = self.table[ids]
        self.graphs.append(logits.requires_grad)
        return logits

    def new_cache(self) -> list[dict]:
        """Give a cache that holds nothing."""
        return [{}]


def _counting() -> Writer:
    """Say 0, 1, 2, 3, 4, EOS, 0, 1, ... without a doubt."""
    return Writer(200.0 * torch.eye(6).roll(1, dims=1)).train()


def _tossing() -> Writer:
    """Say 0, 1 or 2, whatever came before."""
    return Writer(torch.tensor([0.6, 0.3, 0.1, 1e-30, 1e-30, 1e-30]).log().expand(6, 6).clone())


def _classroom(g: torch.Generator) -> Arguments:
    """Two tokens of prompt, of which the last decides when the student will stop."""
    last = torch.tensor([2, 4, 0, 3, 1])
    first = torch.randint(5, (5,), generator=g)
    answers = torch.tensor([[2, 0, EOS, EOS], [EOS] * 4, [0, 2, 2, 0], [2, 2, 2, EOS], [0] * 4])
    rows = torch.cat([first[:, None], last[:, None], answers], dim=1)
    return {"rows": rows, "prompt_length": 2, "seed": int(torch.randint(10_000, (1,), generator=g))}


def _call(answer, student, rows, prompt_length, fraction, generator):
    found = answer(student, rows, prompt_length, fraction, EOS, generator)
    new_rows, mask = found
    return new_rows, mask


def _one(fraction: float):
    def run(answer, a: Arguments) -> dict:
        student, other = _counting(), _counting().eval()
        generator = torch.Generator().manual_seed(a["seed"])
        rows, mask = _call(answer, student, a["rows"].clone(), 2, fraction, generator)
        _call(answer, other, a["rows"].clone(), 2, fraction, generator)
        return {
            "rows": rows,
            "mask": mask,
            "the student's modes": ", ".join(dict.fromkeys(student.modes)) or "never called",
            "recorded": any(student.graphs),
            "training afterwards": student.training,
            "training after it came in eval mode": other.training,
        }

    return run


def _many(answer, a: Arguments) -> dict:
    """Draw 240 batches of two rows at lambda = 0.25 and count whose they are."""
    student, own, mixed = _counting(), 0, 0
    generator = torch.Generator().manual_seed(a["seed"])
    rows = torch.tensor([[0, 1, 0], [2, 3, 0]])
    for _ in range(240):
        found, _mask = _call(answer, student, rows.clone(), 2, 0.25, generator)
        changed = (found != rows).any(dim=1)
        own += int(changed.sum())
        mixed += bool(changed.any() and not changed.all())
    share = own / 480
    names = ((0.02, "never"), (0.1, "too rarely"), (0.4, "a quarter"), (0.9, "too often"))
    return {
        "the student's share": next((name for top, name in names if share < top), "always"),
        "a batch of both kinds": mixed > 0,
    }


def _sampling(answer, a: Arguments) -> dict:
    """Sample 600 rows of 4 from a known distribution; twice with the same generator.

    The coins of 40 batches at lambda = 0.5 are thrown twice as well.
    """
    found, coins = [], []
    short = torch.tensor([[0, 1, 0], [2, 3, 0]])
    for noise in (1, 2):
        torch.manual_seed(a["seed"] + noise)
        generator = torch.Generator().manual_seed(a["seed"])
        rows = torch.full((600, 5), 3)
        found.append(_call(answer, _tossing(), rows, 1, 1.0, generator)[0][:, 1:])
        generator, student = torch.Generator().manual_seed(a["seed"]), _counting()
        batches = [_call(answer, student, short.clone(), 2, 0.5, generator)[0] for _ in range(40)]
        coins.append([not torch.equal(batch, short) for batch in batches])
    top = (found[0] == 0).double().mean().item()
    return {
        "the student's choice": "as it says"
        if 0.55 < top < 0.65
        else "always its first"
        if top > 0.98
        else "another temperature",
        "the same with the same generator": torch.equal(*found),
        "the same coins with the same generator": coins[0] == coins[1],
    }


def _batch(
    draw="one",
    temperature=1.0,
    mask="right",
    mode="eval",
    restore=True,
    graph=False,
    stop=True,
    ours=True,
    coin="ours",
    chance=lambda u, fraction: u < fraction,
):
    """Assemble a batch maker with one thing wrong."""

    def make(student, rows, prompt_length, fraction, eos, generator):
        T, P = rows.shape[1], prompt_length
        generator = generator if ours else None
        thrower = generator if coin == "ours" else None
        own = chance(torch.rand((), generator=thrower).item(), fraction)
        if draw == "row":
            own = chance(torch.rand(len(rows), 1, generator=generator), fraction)
        if draw == "row" or own:
            before = student.training
            student.train(mode == "train")
            with torch.set_grad_enabled(graph):
                if graph:
                    student(rows[:, :P])
                end = eos if stop else None
                new = generate(student, rows[:, :P], T - P, temperature, end, generator)
            if restore:
                student.train(before or restore == "train")
            new = F.pad(new, (0, T - new.shape[1]), value=eos)
            rows = torch.where(own, new, rows) if draw == "row" else new
        found = torch.zeros(len(rows), T - 1, dtype=torch.bool)
        found[:, P - 1 :] = mask_until_eos(rows[:, P:], eos)
        if mask == "all":
            found[:, P - 1 :] = True
        elif mask == "no eos":
            found[:, P - 1 :] &= rows[:, P:] != eos
        elif mask == "prompt":
            found[:, : P - 1] = True
        elif mask == "ids":
            found = rows[:, 1:] != eos
        elif mask == "late":
            found[:, P - 1] = False
        return rows, found

    return make


NEVER = ("the student's modes", "never called", "The student was never asked to write.")

ON_POLICY_BATCH = Exercise(
    id="12.on_policy_batch",
    title="Let the student write",
    reference=on_policy.on_policy_batch,
    probes=(
        Probe(
            "the student's",
            "lambda = 1, a student that counts 0, 1, 2, 3, 4, EOS, and 5 prompts",
            _classroom,
            run=_one(1.0),
        ),
        Probe("the data's", "lambda = 0 and the same prompts", _classroom, run=_one(0.0)),
        Probe("many", "240 batches at lambda = 0.25", _classroom, run=_many),
        Probe("sampling", "600 rows from a known distribution", _classroom, run=_sampling),
    ),
    criteria=(
        matches("rows that the student wrote", 1.0, "the student's", keys=("rows",)),
        matches("rows of the data", 0.5, "the data's", keys=("rows",)),
        matches("what counts", 1.0, "the student's", keys=("mask",)),
        matches("what counts in the data", 0.25, "the data's", keys=("mask",)),
        facts(
            "no gradient through sampling",
            0.5,
            "the student's",
            (
                "recorded",
                False,
                "Autograd records the student while it writes. A gradient through sampling is "
                "wanted by nobody, and its graph grows with every token.",
            ),
            unless=NEVER,
        ),
        facts(
            "it writes in eval mode and is given back as it came",
            0.5,
            "the student's",
            ("the student's modes", "eval", "The student wrote in this mode: {seen}."),
            (
                "training afterwards",
                True,
                "The student came in train mode and goes back in eval mode: the rest of its "
                "training would run without dropout.",
            ),
            (
                "training after it came in eval mode",
                False,
                "Another student came in eval mode and goes back in train mode. Give it back in "
                "the mode that it came in.",
            ),
            unless=NEVER,
        ),
        facts(
            "lambda is the chance of a batch",
            0.75,
            "many",
            (
                "the student's share",
                "a quarter",
                "At lambda = 0.25 the student's own rows are used {seen}.",
            ),
            (
                "a batch of both kinds",
                False,
                "Some batches hold rows of both kinds. GKD's algorithm throws one coin for the "
                "whole batch.",
            ),
        ),
        facts(
            "sampled as the student says, from the generator",
            0.5,
            "sampling",
            (
                "the student's choice",
                "as it says",
                "A student that gives its first choice 60 % writes: {seen}.",
            ),
            (
                "the same with the same generator",
                True,
                "Two calls with equal generators give different rows: something is drawn from "
                "PyTorch's global generator.",
            ),
            (
                "the same coins with the same generator",
                True,
                "At lambda = 0.5, equal generators give equal rows but different coins: whose "
                "batch it is gets drawn from somewhere else.",
            ),
        ),
    ),
    mistakes=(
        Mistake(
            "padding after the end counts",
            _batch(mask="all"),
            "Everything after the prompt counts in your mask, also what stands after the first "
            "EOS. Nobody wrote that; the teacher would be asked about text that does not exist.",
        ),
        Mistake(
            "the end is not learned",
            _batch(mask="no eos"),
            "Your mask leaves out every EOS, the one that ends the answer too. A student that is "
            "never marked for stopping never learns to stop (what lengths then do is in "
            "modelscope/ms-swift #9526).",
            "huggingface/trl #6357",
        ),
        Mistake(
            "the mask from the ids",
            _batch(mask="ids"),
            "You compare with EOS, and where padding and end are the same token that cannot "
            "work: every true end is dropped with the padding. The prompt, on the other hand, "
            "counts, which the student did not write.",
            "huggingface/trl #6357",
        ),
        Mistake(
            "the prompt counts",
            _batch(mask="prompt"),
            "Your mask counts targets inside the prompt, which the student did not write.",
        ),
        Mistake(
            "the first token missed",
            _batch(mask="late"),
            "The first token after the prompt does not count in your mask. Mind the shift: "
            "targets are `rows[:, 1:]`, so at which column of the mask does it stand?",
        ),
        Mistake(
            "greedy",
            _batch(temperature=0.0),
            "Your student always writes its most probable token. The expectation is over what it "
            "would sample; greedy rows visit few of the prefixes it will meet.",
        ),
        Mistake(
            "another temperature",
            _batch(temperature=2.0),
            "You sample at another temperature than 1. The rows then come from a distribution "
            "that is not the student's.",
        ),
        Mistake(
            "lambda the wrong way round",
            _batch(chance=lambda u, fraction: u >= fraction),
            "Your lambda is the share of the data. In GKD it is that of the student's own rows.",
        ),
        Mistake(
            "a coin for each row",
            _batch(draw="row"),
            "You throw a coin for each row. On average that is the same mixture, but then the "
            "student has to write for every batch, and lambda saves no time.",
        ),
        Mistake(
            "always on-policy",
            _batch(chance=lambda u, fraction: u < 2.0),
            "Lambda has no effect: the student writes every batch.",
        ),
        Mistake(
            "written in train mode",
            _batch(mode="train"),
            "The student writes with dropout on, so the rows come from a noisier network than "
            "the one you will use.",
        ),
        Mistake(
            "left in eval mode",
            _batch(restore=False),
            "You switched the student to eval mode to write, and left it there.",
        ),
        Mistake(
            "always left in train mode",
            _batch(restore="train"),
            "You end with `train()`, in whatever mode the student came. Somebody who calls this "
            "in the middle of an evaluation gets dropout. What do you have to remember before "
            "you switch?",
        ),
        Mistake(
            "graph kept while sampling",
            _batch(graph=True),
            "Autograd records a call of the student while it writes.",
        ),
        Mistake(
            "writing on after the end",
            _batch(stop=False),
            "After its EOS the student goes on writing, and your rows keep it. Fill with EOS.",
        ),
        Mistake(
            "global random numbers",
            _batch(ours=False),
            "You do not use the generator that you are given, so no run can be repeated.",
        ),
        Mistake(
            "the coin from elsewhere",
            _batch(coin="global"),
            "The student's tokens are drawn from the generator that you are given, your coin is "
            "not, so which batches are the student's changes from run to run.",
        ),
    ),
    minutes=15,
    difficulty=3,
)
