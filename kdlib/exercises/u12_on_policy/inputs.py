"""Padded batches of logits, and what wrong losses over tokens share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdlib.checks.exercise import Arguments
from kdlib.checks.probes import draw

Rule = Callable[[Tensor, Tensor, float], Tensor]  # log p, log q, number -> a number for each entry


def tokens(
    lengths: tuple[int, ...] = (5, 2, 4),
    T: int = 5,
    V: int = 7,
    scale: float = 2.0,
    padding: float | None = None,
    equal: bool = False,
    **number: float,
):
    """Build student's and teacher's logits, a mask with as many tokens a row, and a number.

    Args:
        lengths: valid tokens of each row.
        T: tokens of a row.
        V: vocabulary.
        scale: of the logits.
        padding: what the teacher's logits hold where the mask is off; ordinary numbers when None.
        equal: True gives both the same logits.
        **number: the last argument, such as `beta=0.1`.
    """

    def make(g: torch.Generator) -> Arguments:
        student, teacher = (draw(g, len(lengths), T, V, scale=scale) for _ in range(2))
        mask = torch.arange(T) < torch.tensor(lengths)[:, None]
        teacher = student.clone() if equal else teacher
        if padding is not None:
            teacher = teacher.masked_fill(~mask[..., None], padding)
        made: Arguments = {"student_logits": student, "teacher_logits": teacher, "mask": mask}
        return {**made, **number}

    return make


def sizes(lengths: tuple[int, ...] = (5, 2, 4), T: int = 5, V: int = 7) -> dict[str, float]:
    """Name the sizes that a wrong factor may be made of."""
    return {
        "the number of rows": len(lengths),
        "the number of valid tokens": sum(lengths),
        "the size of the vocabulary": V,
    }


def inside(name: str, low: float, high: float, open_end: bool = False) -> Callable[[float], None]:
    """Make the test of the last argument, as every wrong answer but one has it."""

    def test(value: float) -> None:
        if not low <= value <= high or (open_end and value == high):
            raise ValueError(f"{name} must lie between {low} and {high}, got {value}")

    return test


def over_tokens(
    rule: Rule,
    allowed: Callable[[float], None] = lambda value: None,
    reduce: Callable[[Tensor, Tensor], Tensor] = lambda rows, mask: rows.sum(-1).mean(),
    detach: bool = True,
    select: str = "first",
    logits: bool = False,
):
    """Assemble a loss over tokens from its parts, one of them wrong.

    Args:
        rule: a number for each token and vocabulary entry, from log-probabilities (logits if
            `logits`) of teacher and student.
        allowed: raises for a bad last argument.
        reduce: from the valid rows `(N, V)` and the mask to a scalar.
        detach: whether the teacher is a constant.
        select: "first" takes the valid tokens before computing anything, "last" after, "never"
            takes all.
        logits: whether `rule` gets logits.
    """

    def wrong(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, number: float):
        allowed(number)
        v, z = (teacher_logits.detach() if detach else teacher_logits), student_logits
        if select == "first":
            v, z = v[mask], z[mask]
        if not logits:
            v, z = v.log_softmax(-1), z.log_softmax(-1)
        values = rule(v, z, number)
        values = values[mask] if select == "last" else values
        return reduce(values, mask)

    return wrong


def by_rows(rows: Tensor, mask: Tensor) -> Tensor:
    """Divide the sum by the number of rows instead of tokens."""
    return rows.sum() / len(mask)


def by_entries(rows: Tensor, mask: Tensor) -> Tensor:
    """Average over the vocabulary too."""
    return rows.mean()


def over_everything(rows: Tensor, mask: Tensor) -> Tensor:
    """Average over all tokens, padding among them: for `select="never"`."""
    return rows.sum(-1).mean()


def kl_terms(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Give the terms of KL(a || b)."""
    return log_a.exp() * (log_a - log_b)


def log_mixture(log_a: Tensor, log_b: Tensor, weight: float) -> Tensor:
    """Give log(weight a + (1 - weight) b), in log space."""
    w = torch.tensor([weight, 1.0 - weight], dtype=log_a.dtype).log()
    return torch.logaddexp(log_a + w[0], log_b + w[1])
