"""13.sft_loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.criteria import gradients, law, matches, rejects, tidy
from kdlib.checks.exercise import Arguments, Evidence, Exercise, Mistake, Probe
from kdlib.checks.probes import draw
from kdlib.losses import traces

VOCABULARY = 7
END = VOCABULARY - 1  # the token that ends a row and fills short ones


def _batch(
    prompts: tuple[int, ...] = (3, 5, 2),
    lengths: tuple[int, ...] = (9, 7, 6),
    width: int = 9,
    broken: bool = False,
    twice: bool = False,
):
    """Build rows that end with END and are filled with END, which also stands in one prompt."""

    def make(g: torch.Generator) -> Arguments:
        rows = len(lengths)
        logits = draw(g, rows, 12, VOCABULARY, scale=2.0)
        ids = torch.randint(END, (rows, 12), generator=g)
        ids[0, 1] = END  # a turn of the prompt ends here
        for row, length in enumerate(lengths):
            ids[row, length - 1 :] = END
        logits, ids = logits[:, :width].contiguous(), ids[:, :width].contiguous()
        if broken:
            for row, length in enumerate(lengths):
                logits[row, length:] = float("nan")
        made = {
            "logits": logits,
            "ids": ids,
            "prompt_lengths": torch.tensor(prompts),
            "lengths": torch.tensor(lengths),
        }
        return {k: torch.cat([v, v]) for k, v in made.items()} if twice else made

    return make


def _awkward(g: torch.Generator) -> Arguments:
    """Build rows of drawn lengths: a full one, one without a completion, one that ends at once."""
    width = int(torch.randint(6, 10, (), generator=g))
    prompts = torch.randint(1, width - 2, (4,), generator=g)
    more = torch.tensor([width, 0, 1, 2])
    lengths = (prompts + more).clamp(max=width)
    order = torch.randperm(4, generator=g)
    prompts, lengths = prompts[order], lengths[order]
    ids = torch.randint(VOCABULARY, (4, width), generator=g)
    ids[torch.arange(width) >= lengths[:, None] - 1] = END
    logits = draw(g, width, 4, VOCABULARY, scale=2.0).transpose(0, 1)
    return {"logits": logits, "ids": ids, "prompt_lengths": prompts, "lengths": lengths}


def _sure(g: torch.Generator) -> Arguments:
    """Build float32 logits a hundred times as large."""
    made = _awkward(g)
    return {**made, "logits": (100 * made["logits"]).float().contiguous()}


def _terms(logits: Tensor, ids: Tensor) -> Tensor:
    """Negative log-likelihood of token t + 1 at position t, `(B, T - 1)`."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")


def _mask(ids: Tensor, prompt_lengths: Tensor, lengths: Tensor) -> Tensor:
    position = torch.arange(1, ids.shape[1])
    return (position >= prompt_lengths[:, None]) & (position < lengths[:, None])


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return values[mask].mean()


def _sft(mask=_mask, terms=_terms, reduce=_mean, checked=True):
    """Assemble a wrong loss with one thing changed."""

    def wrong(logits, ids, prompt_lengths, lengths):
        if checked and bool((lengths <= prompt_lengths).all()):
            raise ValueError("no completion")
        return reduce(terms(logits, ids), mask(ids, prompt_lengths, lengths))

    return wrong


def _prompt_too(ids, prompt_lengths, lengths):
    return _mask(ids, torch.ones_like(prompt_lengths), lengths)


def _padding_too(ids, prompt_lengths, lengths):
    return _mask(ids, prompt_lengths, torch.full_like(lengths, ids.shape[1]))


def _everything(ids, prompt_lengths, lengths):
    return torch.ones_like(ids[:, 1:], dtype=torch.bool)


def _by_token(ids, prompt_lengths, lengths):
    return _mask(ids, prompt_lengths, lengths) & (ids[:, 1:] != END)


def _late(ids, prompt_lengths, lengths):
    return _mask(ids, prompt_lengths + 1, lengths)


def _early(ids, prompt_lengths, lengths):
    return _mask(ids, (prompt_lengths - 1).clamp(min=1), lengths)


def _late_and_long(ids, prompt_lengths, lengths):
    """Use a mask of the tokens for the targets: both ends are one off."""
    return _mask(ids, prompt_lengths + 1, (lengths + 1).clamp(max=ids.shape[1]))


def _no_shift(logits: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, 1:].transpose(1, 2), ids[:, 1:], reduction="none")


def _double_shift(logits: Tensor, ids: Tensor) -> Tensor:
    shifted = torch.cat([ids[:, 2:], ids[:, -1:]], dim=1)
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), shifted, reduction="none")


def _rows_first(values: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([v[m].mean() for v, m in zip(values, mask, strict=True)]).mean()


def _sum(values: Tensor, mask: Tensor) -> Tensor:
    return values[mask].sum()


def _by_rows(values: Tensor, mask: Tensor) -> Tensor:
    return values[mask].sum() / len(values)


def _by_positions(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).mean()


def _multiplied(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()


def _unmoved(evidence: Evidence) -> str | None:
    plain = float(evidence.value("plain"))
    for probe, what in (
        ("padded", "with more padding on the right"),
        ("twice", "with every row twice"),
    ):
        other = float(evidence.value(probe))
        if abs(plain - other) > 1e-6 * max(1.0, abs(plain)):
            return (
                f"Your loss goes from {plain:.4g} to {other:.4g} {what}. The same tokens are "
                "learned, so a mean over them stays what it was."
            )
    return None


SIZES = {"the number of rows": 3, "the number of learned tokens": 12}

SFT_LOSS = Exercise(
    id="13.sft_loss",
    title="Learn the completion, not the prompt",
    reference=traces.sft_loss,
    probes=(
        Probe(
            "plain",
            "3 rows of 9 tokens, prompts of 3, 5 and 2",
            _batch(),
            gradients=("logits",),
            sizes=SIZES,
        ),
        Probe(
            "other",
            "2 rows of 8 tokens, prompts of 1 and 4",
            _batch((1, 4), (4, 8), 8),
            sizes={"the number of rows": 2, "the number of learned tokens": 7},
        ),
        Probe(
            "awkward",
            "4 rows of which one has no completion and one an EOS alone",
            _awkward,
            gradients=("logits",),
        ),
        Probe("sure", "float32 logits of a few hundred", _sure, gradients=("logits",), atol=1e-4),
        Probe("padded", "the same 3 rows with 3 more tokens of padding", _batch(width=12)),
        Probe("twice", "the same 3 rows, each twice", _batch(twice=True)),
        Probe("broken", "rows with NaN in the logits of the padding", _batch(broken=True)),
        Probe(
            "no completion",
            "rows that hold a prompt and nothing else",
            _batch((9, 7, 6), (9, 7, 6)),
        ),
        Probe("one prompt", "a single row, which is a prompt", _batch((4,), (4,))),
    ),
    criteria=(
        matches("the value", 1.25, "plain", "other", "awkward", "sure"),
        gradients("the gradient", 0.5, "plain", "awkward", "sure"),
        law("padding and repetition change nothing", 0.5, ("plain", "padded", "twice"), _unmoved),
        matches("NaN in the padding does no harm", 0.25, "broken"),
        rejects("a batch without a completion is refused", 0.25, "no completion", "one prompt"),
        tidy(0.25),
    ),
    mistakes=(
        Mistake(
            "the prompt is learned too",
            _sft(_prompt_too),
            "Your mean runs over the prompt's tokens as well. The student learns to ask the "
            "questions, and the longer they are, the less the answers count.",
            "karpathy/nanochat #582, where the mask had been dropped",
        ),
        Mistake(
            "padding is learned too",
            _sft(_padding_too),
            "Tokens after the end of a row count in your loss. They are easy, so the loss looks "
            "good, and rows with much padding count more.",
            "huggingface/trl #2058",
        ),
        Mistake(
            "nothing is masked",
            _sft(_everything),
            "Every position counts in your loss: prompt, completion and padding.",
        ),
        Mistake(
            "the end of text is masked",
            _sft(_by_token),
            "You mask by comparing tokens with the padding token. Here the same token ends a "
            "text, and the student never learns to stop. Positions tell the two apart; ids do not.",
            "huggingface/trl #976 and #6357",
        ),
        Mistake(
            "the first token of the completion is missing",
            _sft(_late),
            "The completion's first token does not count. It is predicted at the position of "
            "the prompt's last token: a mask over tokens and one over predictions are one apart.",
            "verl-project/verl #3287",
        ),
        Mistake(
            "the last token of the prompt counts",
            _sft(_early),
            "Your mask begins one token early: the student is taught the prompt's last token.",
        ),
        Mistake(
            "a mask that is not shifted",
            _sft(_late_and_long),
            "Your mask fits the tokens, and you use it on the targets, which are one further. It "
            "misses the completion's first token and counts one token of padding.",
        ),
        Mistake(
            "no shift",
            _sft(terms=_no_shift),
            "You compare the logits at a position with the token at that position, which the "
            "model has just read. The logits at t are for token t + 1.",
            "modelscope/ms-swift #8436",
        ),
        Mistake(
            "shifted twice",
            _sft(terms=_double_shift),
            "Your targets are two tokens ahead. The student learns to skip a token.",
            "huggingface/transformers #44642, about labels shifted by hand for models that shift",
        ),
        Mistake(
            "mean of the rows' means",
            _sft(reduce=_rows_first),
            "You average each row first and then the rows, so a token of a short completion counts "
            "more than a token of a long one. (x1/n1 + x2/n2)/2 is not (x1 + x2)/(n1 + n2).",
            "meta-pytorch/torchtune #1875, between the micro-batches of a step",
        ),
        Mistake(
            "summed",
            _sft(reduce=_sum),
            "You sum over tokens, so the loss grows with the batch and the length of the traces.",
        ),
        Mistake(
            "divided by rows",
            _sft(reduce=_by_rows),
            "You divide by the number of rows, not of tokens: long traces make long steps.",
        ),
        Mistake(
            "divided by all positions",
            _sft(reduce=_by_positions),
            "You divide by all positions, those that do not count among them. Padding then makes "
            "the loss smaller.",
        ),
        Mistake(
            "masked by multiplication",
            _sft(reduce=_multiplied),
            "You multiply by the mask, and zero times NaN is NaN. Select what counts instead.",
        ),
        Mistake(
            "no completion passes",
            _sft(checked=False),
            "For a batch without a completion you return the mean of nothing, NaN, and the next "
            "step makes every weight NaN.",
        ),
    ),
    minutes=15,
    difficulty=2,
    seals=("11.shift_and_mask",),
)
