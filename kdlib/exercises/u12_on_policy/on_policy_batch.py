"""12.on_policy_batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.checks.criteria import facts, matches, side, tidy
from kdlib.checks.exercise import Arguments, Exercise, Mistake, Probe
from kdlib.checks.probes import Diary, between, number
from kdlib.decoding import generate
from kdlib.losses import mask_until_eos
from kdlib.training import on_policy


class Writer(nn.Module):
    """A language model that looks at the last token only, and remembers how it was called.

    Attributes:
        modes: "train" or "eval", for each call.
        graphs: whether autograd recorded it, for each call.
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(logits)  # (V, V)
        self.dropout = nn.Dropout(0.0)  # a part with a mode of its own
        self.modes: list[str] = Diary()
        self.graphs: list[bool] = Diary()

    def forward(self, ids: Tensor, cache: list | None = None, **_: object) -> Tensor:
        """`(B, T) -> (B, T, V)`."""
        self.modes.append("train" if self.dropout.training else "eval")
        logits = self.dropout(self.table[ids])
        self.graphs.append(logits.requires_grad)
        return logits

    def new_cache(self) -> list[dict]:
        """Give a cache that holds nothing."""
        return [{}]


def _counting(order: list[int]) -> Writer:
    """Say the tokens in this order, round and round, without a doubt."""
    table = torch.zeros(len(order), len(order))
    table[order, order[1:] + order[:1]] = 200.0
    return Writer(table).train()


def _order(g: torch.Generator, V: int) -> list[int]:
    """Draw an order of V tokens; the last one, never token 0, ends a row."""
    order = torch.randperm(V, generator=g).tolist()
    return order if order[-1] else order[1:] + order[:1]


def _classroom(g: torch.Generator) -> Arguments:
    """Prompts whose last token decides when the student will stop: at once, late, or not at all."""
    P, new = between(g, 2, 4), between(g, 6, 8)  # more columns than rows
    V = new + between(g, 2, 3)
    order, ends = _order(g, V), (1, 2, new, new + 1, V)  # after so many tokens EOS comes
    prompts = torch.randint(V, (len(ends), P), generator=g)
    prompts[:, -1] = torch.tensor([order[V - 1 - n] for n in ends])
    prompts[1, 0] = order[-1]
    lengths = torch.tensor([new, *(between(g, 1, new - 1) for _ in ends[2:]), 0])
    words = torch.tensor(order[:-1])[torch.randint(V - 1, (len(ends), new), generator=g)]
    words = words.masked_fill(torch.arange(new) >= lengths[:, None], order[-1])
    shuffled = torch.randperm(len(ends), generator=g)
    return _asked(g, order, torch.cat([prompts, words], dim=1)[shuffled], P)


def _one_prompt(g: torch.Generator) -> Arguments:
    """One prompt of one token, after which the student stops soon."""
    V, new = between(g, 4, 7), between(g, 4, 6)
    order = _order(g, V)
    rows = [order[V - between(g, 3, 4)], *(order[0] for _ in range(new))]
    return _asked(g, order, torch.tensor([rows]), 1)


def _asked(g: torch.Generator, order: list[int], rows: Tensor, P: int) -> Arguments:
    """Add two students, one in each mode, and a seed."""
    return {
        "student": _counting(order),
        "rows": rows,
        "prompt_length": P,
        "eos": order[-1],
        "another student": _counting(order).eval(),
        "seed": int(torch.randint(10_000, (1,), generator=g)),
    }


def _call(answer, a: Arguments, fraction: float, generator: torch.Generator, **other: object):
    """Call with what the arguments hold, some of it replaced."""
    student, rows, P, eos = (
        other.get(name, a[name]) for name in ("student", "rows", "prompt_length", "eos")
    )
    new_rows, mask = answer(student, rows, P, fraction, eos, generator)
    return new_rows, mask


def _one(fraction: float):
    def run(answer, a: Arguments) -> dict:
        student, other = a["student"], a["another student"]
        generator = torch.Generator().manual_seed(a["seed"])
        rows, mask = _call(answer, a, fraction, generator)
        _call(answer, a, fraction, generator, student=other)
        return {
            "rows": rows,
            "mask": mask,
            "dtypes": f"{rows.dtype} and {mask.dtype}",
            "for inference only": rows.is_inference() or mask.is_inference(),
            "the student's modes": ", ".join(dict.fromkeys(student.modes)) or "never called",
            "recorded": any(student.graphs),
            "training afterwards": all(part.training for part in student.modules()),
            "training after it came in eval mode": any(p.training for p in other.modules()),
        }

    return run


def _short(g: torch.Generator) -> Arguments:
    """Two rows of three tokens, which the student would end otherwise; and a lambda."""
    order = _order(g, 6)
    fraction = number(g, 0.15, 0.3)
    rows = torch.tensor([[order[0], order[1], order[0]], [order[2], order[3], order[0]]])
    made = _asked(g, order, rows, 2)
    return {**made, "fraction": fraction if between(g, 0, 1) else round(1 - fraction, 2)}


def _many(answer, a: Arguments) -> dict:
    """Draw 240 batches of two rows and count whose they are."""
    own, mixed = 0, 0
    generator = torch.Generator().manual_seed(a["seed"])
    for _ in range(240):
        found, _mask = _call(answer, a, a["fraction"], generator)
        changed = (found != a["rows"]).any(dim=1)
        own += int(changed.sum())
        mixed += bool(changed.any() and not changed.all())
    share = own / 480
    if own in (0, 480):
        seen = "always" if own else "never"
    elif abs(share - a["fraction"]) < 0.15:  # five standard deviations
        seen = "as lambda says"
    else:
        seen = "too often" if share > a["fraction"] else "too rarely"
    return {"the student's share": seen, "a batch of both kinds": mixed > 0}


def _tossing(g: torch.Generator) -> Arguments:
    """A student that says three words with known probabilities, whatever came before."""
    made = _short(g)
    top, second = number(g, 0.5, 0.6), number(g, 0.24, 0.3)
    chances = torch.full((6,), 1e-30)
    words = [i for i in torch.randperm(6, generator=g).tolist() if i != made["eos"]][:3]
    chances[words] = torch.tensor([second, top, 1 - top - second])
    return {**made, "chances": chances}


def _sampling(answer, a: Arguments) -> dict:
    """Sample 1500 rows of 4 from a known distribution; twice with the same generator.

    The coins of 40 batches at lambda = 0.5 are thrown twice as well.
    """
    found, coins = [], []
    prompts = torch.full((1500, 5), a["eos"])
    for noise in (1, 2):
        torch.manual_seed(a["seed"] + noise)
        generator = torch.Generator().manual_seed(a["seed"])
        student = Writer(a["chances"].log().expand(6, 6).clone())
        new, _ = _call(
            answer, a, 1.0, generator, student=student, rows=prompts.clone(), prompt_length=1
        )
        found.append(new[:, 1:])
        generator = torch.Generator().manual_seed(a["seed"])
        batches = [_call(answer, a, 0.5, generator)[0] for _ in range(40)]
        coins.append([not torch.equal(batch, a["rows"]) for batch in batches])
    chances, words = a["chances"], found[0]
    shares = torch.stack([(words == word).double().mean() for word in range(6)])
    apart = 0.5 * (shares - chances).abs().sum().item()  # 0.008 by chance
    if words.shape != prompts[:, 1:].shape:
        seen = f"rows of shape {tuple(words.shape)} where {tuple(prompts[:, 1:].shape)} are due"
    elif words.dtype == torch.bool or bool((shares[chances < 0.01] > 0).any()):
        seen = "words that it never says"
    elif shares[chances.argmax()] > 0.98:
        seen = "always its first choice"
    else:
        seen = "as it says" if apart < 0.03 else "with other probabilities"
    return {
        "the student's choice": seen,
        "the same with the same generator": torch.equal(*found),
        "the same coins with the same generator": coins[0] == coins[1],
    }


def _counted(rows: Tensor, P: int, eos: int, mask: str) -> Tensor:
    """Give the mask of the targets, with one thing wrong."""
    found = torch.zeros(len(rows), rows.shape[1] - 1, dtype=torch.bool)
    right = mask_until_eos(rows[:, P:], eos)
    found[:, P - 1 :] = True if mask == "all" else right
    if mask == "no eos":
        found[:, P - 1 :] &= rows[:, P:] != eos
    elif mask == "prompt":
        found[:, : P - 1] = True
    elif mask == "ids":
        found = rows[:, 1:] != eos
    elif mask == "late":
        found[:, P - 1] = False
    elif mask == "shifted":
        found = F.pad(right[:, :-1], (P, 0), value=False)
    elif mask == "rows":
        found = F.pad(right, (P, 0), value=False)
    elif mask == "from the front":
        found &= mask_until_eos(rows[:, 1:], eos)
    elif mask == "one more":
        found |= F.pad(found[:, :-1], (1, 0), value=False)
    elif mask == "numbers":
        found = found.float()
    return found


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
    fill="eos",
    stale=False,
    short=0,
    inference=False,
    write=False,
):
    """Assemble a batch maker with one thing wrong."""

    def make(student, rows, prompt_length, fraction, eos, generator):
        data, T, P = rows, rows.shape[1], prompt_length
        generator = generator if ours else None
        thrower = generator if coin == "ours" else None
        own = chance(torch.rand((), generator=thrower).item(), fraction)
        if draw == "row":
            own = chance(torch.rand(len(rows), 1, generator=generator), fraction)
        if draw in ("row", "always") or own:
            before = student.training
            student.train(mode == "train")
            with torch.inference_mode() if inference else torch.set_grad_enabled(graph):
                if graph:
                    student(rows[:, :P])
                end = eos if stop else None
                new = generate(student, rows[:, :P], T - P - short, temperature, end, generator)
                if fill != "nothing":
                    new = F.pad(new, (0, T - new.shape[1]), value=eos if fill == "eos" else 0)
            if restore:
                student.train(before or restore == "train")
            if draw == "row":
                rows = torch.where(own, new, rows)
            elif own and write:
                rows[:, P:] = new[:, P:]
            elif own:
                rows = new
        return rows, _counted(data if stale else rows, P, eos, mask)

    return make


NEVER = ("the student's modes", "never called", "The student was never asked to write.")

ON_POLICY_BATCH = Exercise(
    id="12.on_policy_batch",
    title="Let the student write",
    reference=on_policy.on_policy_batch,
    probes=(
        Probe(
            "the student's",
            "lambda = 1, five prompts, and a student that says all tokens in turn",
            _classroom,
            run=_one(1.0),
        ),
        Probe("the data's", "lambda = 0 and the same prompts", _classroom, run=_one(0.0)),
        Probe(
            "one row",
            "lambda = 1 and one prompt of a single token, whose answer ends early",
            _one_prompt,
            run=_one(1.0),
        ),
        Probe("many", "240 batches", _short, run=_many),
        Probe("sampling", "1500 rows from a known distribution", _tossing, run=_sampling),
    ),
    criteria=(
        matches("rows that the student wrote", 0.75, "the student's", keys=("rows",)),
        matches("filled up with eos", 0.25, "one row", keys=("rows",)),
        matches("rows of the data", 0.25, "the data's", keys=("rows",)),
        matches("what counts", 0.75, "the student's", "one row", keys=("mask",)),
        matches("what counts in the data", 0.25, "the data's", keys=("mask",)),
        side(
            facts(
                "whole numbers and a boolean mask",
                0.25,
                "the student's",
                (
                    "dtypes",
                    "torch.int64 and torch.bool",
                    "Your rows and your mask are {seen}. Rows are whole numbers; what selects has "
                    "to be boolean, since numbers in its place are taken for indices.",
                ),
            )
        ),
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
            (
                "for inference only",
                False,
                "You return a tensor that was made in inference mode. It can take no part in a "
                "training step afterwards: autograd refuses to keep it.",
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
            0.5,
            "many",
            (
                "the student's share",
                "as lambda says",
                "Over 240 batches the student's own rows are used {seen}.",
            ),
            (
                "a batch of both kinds",
                False,
                "Some batches hold rows of both kinds. GKD's algorithm throws one coin for the "
                "whole batch.",
            ),
        ),
        side(
            facts(
                "a batch of the data costs no writing",
                0.25,
                "the data's",
                (
                    "the student's modes",
                    "never called",
                    "With lambda = 0 the student is asked to write all the same. Writing is what "
                    "costs time.",
                ),
            )
        ),
        facts(
            "sampled as the student says, from the generator",
            0.5,
            "sampling",
            (
                "the student's choice",
                "as it says",
                "A student with known probabilities for its next token writes: {seen}.",
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
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "padding after the end counts",
            _batch(mask="all"),
            "Everything after the prompt counts in your mask, also what stands after the first "
            "EOS. Nobody wrote that; the teacher would be asked about text that does not exist.",
        ),
        Mistake(
            "one token after the end counts",
            _batch(mask="one more"),
            "The first token after the closing EOS still counts in your mask. How many EOS have "
            "been seen by then?",
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
            "a column late",
            _batch(mask="shifted"),
            "Your whole mask stands one column too far to the right. Targets are `rows[:, 1:]`: at "
            "which column stands the first token after the prompt?",
        ),
        Mistake(
            "a mask of the rows",
            _batch(mask="rows"),
            "Your mask has a column for each token of the rows. It belongs to the targets, of "
            "which there is one less.",
        ),
        Mistake(
            "an EOS in the prompt ends the row",
            _batch(mask="from the front"),
            "You look for the first EOS in the whole row. A prompt may hold one, between question "
            "and answer, and then nothing of the answer counts.",
        ),
        Mistake(
            "the mask of the data",
            _batch(stale=True),
            "Your mask is that of the data's rows, also where the student has written others.",
        ),
        Mistake(
            "a mask of numbers",
            _batch(mask="numbers"),
            "Your mask holds zeros and ones. To select with it, it has to be boolean.",
        ),
        Mistake(
            "one token too few",
            _batch(short=1),
            "The student writes one token less than there is room for, and your last column is "
            "filled up. How many tokens stand between the prompt and column T?",
        ),
        Mistake(
            "filled up with zeros",
            _batch(fill="zeros"),
            "When all rows have ended early you fill up with zeros. Zero is a word like any other; "
            "what stands after the end of a row?",
        ),
        Mistake(
            "not filled up",
            _batch(fill="nothing"),
            "When all rows have ended early, yours are shorter than the data's.",
        ),
        Mistake(
            "made for inference",
            _batch(inference=True),
            "Your rows were made in inference mode, so no training step can use them: autograd "
            "refuses to keep such a tensor. Which milder mode records nothing, either?",
        ),
        Mistake(
            "written into the data",
            _batch(write=True),
            "You write the student's tokens into the rows that you were given. The next epoch "
            "finds them in place of the data.",
        ),
        Mistake(
            "it writes for every batch",
            _batch(draw="always"),
            "The student writes first and the coin decides afterwards whether its rows are used. "
            "Batches of the data then cost as much as the student's.",
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
