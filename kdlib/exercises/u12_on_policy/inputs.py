"""Padded batches of logits, and what wrong losses over tokens share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from kdlib.checks.exercise import Arguments, Mistake
from kdlib.checks.probes import between, draw, number

Rule = Callable[[Tensor, Tensor, float], Tensor]  # log p, log q, number -> a number for each entry


def which_count(g: torch.Generator, rows: int, T: int, prompts: bool = True) -> Tensor:
    """Draw a mask `(rows, T)`: the first row counts whole, all others in part.

    Args:
        g: the generator.
        rows: at least 1.
        T: tokens of a row; at least 2 where there are several rows.
        prompts: whether every other row begins with tokens that do not count.
    """
    lengths = [T, *(between(g, 1, T - 1) for _ in range(rows - 1))]
    starts = [between(g, 1, T - n) if prompts and i % 2 else 0 for i, n in enumerate(lengths)]
    after = torch.arange(T) - torch.tensor(starts)[:, None]
    return (after >= 0) & (after < torch.tensor(lengths)[:, None])


def tokens(
    rows: tuple[int, int] = (3, 5),
    T: tuple[int, int] = (3, 6),
    V: tuple[int, int] = (3, 8),
    scale: float = 2.0,
    padding: float | None = None,
    equal: bool = False,
    gaps: bool = False,
    dtype: torch.dtype = torch.float64,
    **last: float | tuple[float, float],
):
    """Build student's and teacher's logits, a mask, and a number.

    Args:
        rows: the fewest and the most rows.
        T: the fewest and the most tokens of a row.
        V: the smallest and the largest vocabulary.
        scale: of the logits.
        padding: what the teacher's logits hold where the mask is off; ordinary numbers when None.
        equal: True gives both the same logits.
        gaps: True gives logits that do not lie in memory one after the other.
        dtype: of the logits.
        **last: the last argument: a number, or between which two it is drawn; its default is left
            out when there is none.
    """

    def make(g: torch.Generator) -> Arguments:
        shape = [between(g, *sizes) for sizes in (rows, T, V)]
        student, teacher = (draw(g, *shape, scale=scale) for _ in range(2))
        mask = which_count(g, *shape[:2])
        teacher = student.clone() if equal else teacher
        if padding is not None:
            teacher = teacher.masked_fill(~mask[..., None], padding)
        made = {"student_logits": student, "teacher_logits": teacher}
        if gaps:
            made = {
                name: x.transpose(0, 2).contiguous().transpose(0, 2) for name, x in made.items()
            }
        made = {k: x.to(dtype) for k, x in made.items()}
        drawn = {k: number(g, *x) if isinstance(x, tuple) else x for k, x in last.items()}
        return {**made, "mask": mask, **drawn}

    return make


one_token = partial(tokens, rows=(1, 1), T=(1, 1), V=(2, 3), dtype=torch.float32)


def inside(
    name: str, low: float, high: float, open_end: bool = False, only: str = "both"
) -> Callable[[float], None]:
    """Make the test of the last argument; `only` "low" or "high" looks at one end."""

    def test(value: float) -> None:
        below = value < low and only != "high"
        above = (value > high or (open_end and value == high)) and only != "low"
        if below or above:
            raise ValueError(f"{name} must lie between {low} and {high}, got {value}")

    return test


def mean_over_tokens(rows: Tensor, mask: Tensor) -> Tensor:
    """Sum over the vocabulary, average over tokens: as it should be."""
    return rows.sum(-1).mean()


def over_tokens(
    rule: Rule,
    allowed: Callable[[float], None] = lambda value: None,
    reduce: Callable[[Tensor, Tensor], Tensor] = mean_over_tokens,
    detach: bool = True,
    cut: bool = False,
    select: str = "first",
    logits: bool = False,
    turned: bool = False,
    default: float = 0.5,
):
    """Assemble a loss over tokens from its parts, one of them wrong.

    Args:
        rule: a number for each token and vocabulary entry, from log-probabilities (logits if
            `logits`) of teacher and student.
        allowed: raises for a bad last argument.
        reduce: from the valid rows `(N, V)` and the mask to a scalar.
        detach: whether the teacher is a constant.
        cut: whether the student is one.
        select: "first" takes the valid tokens before computing anything, "last" after, "never"
            takes all, "front" as many from the front of a row as its mask counts, "shifted" those
            before the ones that count.
        logits: whether `rule` gets logits.
        turned: whether tokens and vocabulary change places for softmax and `rule`.
        default: of the last argument.
    """

    def wrong(
        student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, number: float = default
    ):
        allowed(number)
        v = teacher_logits.detach() if detach else teacher_logits
        z = student_logits.detach() if cut else student_logits
        if select in ("first", "front", "shifted"):
            chosen = _chosen(mask, select)
            v, z = v[chosen], z[chosen]
        if turned:
            v, z = v.mT, z.mT
        if not logits:
            v, z = v.log_softmax(-1), z.log_softmax(-1)
        values = rule(v, z, number)
        values = values.mT if turned else values
        values = values[mask] if select == "last" else values
        return reduce(values, mask)

    return wrong


def _chosen(mask: Tensor, select: str) -> Tensor:
    if select == "front":
        return torch.arange(mask.shape[1]) < mask.sum(1, keepdim=True)
    if select == "shifted":
        return torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return mask


def _mean_of_row_means(rows: Tensor, mask: Tensor) -> Tensor:
    each = rows.sum(-1).split(mask.sum(1).tolist())
    return torch.stack([row.mean() for row in each]).mean()


def kl_terms(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Give the terms of KL(a || b)."""
    return log_a.exp() * (log_a - log_b)


def log_mixture(log_a: Tensor, log_b: Tensor, weight: float) -> Tensor:
    """Give log(weight a + (1 - weight) b), in log space."""
    w = torch.tensor([weight, 1.0 - weight], dtype=log_a.dtype).log()
    return torch.logaddexp(log_a + w[0], log_b + w[1])


def common_mistakes(loss: Callable[..., Callable], right: Rule) -> tuple[Mistake, ...]:
    """Name what goes wrong in any loss over tokens: mask, mean, dimension, constants.

    Args:
        loss: `over_tokens` with what the exercise fixes.
        right: its right rule.
    """
    return (
        Mistake(
            "padding counted",
            loss(right, reduce=lambda rows, mask: rows.sum(-1).mean(), select="never"),
            "The mask has no effect: what it leaves out counts as much as text, and the more you "
            "pad the less a real token weighs.",
            "peremartra/optipfair #34",
        ),
        Mistake(
            "masked after the divergence",
            loss(right, select="last"),
            "The value is right, and the gradient is NaN: the padding took part in the "
            "divergence and was thrown away afterwards. Backward, its zero gradient is "
            "multiplied by what is not a number. Throw it away before you compute.",
            "huggingface/trl #5594",
        ),
        Mistake(
            "masked by multiplication",
            loss(
                right,
                reduce=lambda rows, mask: (rows.sum(-1) * mask).sum() / mask.sum(),
                select="never",
            ),
            "You multiply by the mask, and in the padding the divergence is no number: zero times "
            "NaN is NaN. Throw the padding away before you compute.",
            "huggingface/trl #5594",
        ),
        Mistake(
            "the mask taken for lengths",
            loss(right, select="front"),
            "You count what is True in a row of the mask and take so many tokens from its front. A "
            "mask may begin with False: that is how a prompt is left out.",
        ),
        Mistake(
            "shifted once more",
            loss(right, select="shifted"),
            "You shift logits against the mask. Here they belong together already: the mask says "
            "of each position whether it counts.",
        ),
        Mistake(
            "summed over tokens",
            loss(right, reduce=lambda rows, mask: rows.sum()),
            "Your loss is a sum over tokens, so it grows with the batch and with its lengths. How "
            "many terms does the sum have?",
        ),
        Mistake(
            "divided by the rows",
            loss(right, reduce=lambda rows, mask: rows.sum() / len(mask)),
            "You divided by the number of rows. A batch of long answers then has a larger loss "
            "than one of short answers. How many terms does the sum have?",
            "neuralmagic/sparseml #592",
        ),
        Mistake(
            "divided by the padding too",
            loss(right, reduce=lambda rows, mask: rows.sum() / mask.numel()),
            "You divided by all entries of the mask, those that do not count among them. The more "
            "padding, the smaller your loss.",
        ),
        Mistake(
            "a mean for each row first",
            loss(right, reduce=_mean_of_row_means),
            "You averaged over each row's tokens, and then over rows. A token of a short row then "
            "weighs more than one of a long row; in a mean over tokens all weigh the same.",
        ),
        Mistake(
            "averaged over the vocabulary",
            loss(right, reduce=lambda rows, mask: rows.mean()),
            "Your loss is averaged over the vocabulary as well. A divergence is a sum over it.",
        ),
        Mistake(
            "in bits",
            loss(right, reduce=lambda rows, mask: rows.sum(-1).mean() / math.log(2)),
            "Your result is in bits. Which logarithm makes nats?",
        ),
        Mistake(
            "softmax over the tokens",
            loss(right, turned=True),
            "Your softmax runs over the tokens, not over the vocabulary. Which dimension holds "
            "the words among which the model chooses?",
        ),
        Mistake(
            "teacher not detached",
            loss(right, detach=False),
            "A gradient arrives at the teacher's logits. It is a constant here.",
        ),
        Mistake(
            "student detached",
            loss(right, cut=True),
            "The value is right and nobody learns: no gradient arrives at the student's logits.",
        ),
    )
