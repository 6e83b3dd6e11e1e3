"""Batches of logits and targets, and the parts that wrong answers share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.exercise import Arguments
from kdlib.checks.probes import draw

Number = float | tuple[float, float]  # a number, or between which two it is drawn


def pick(g: torch.Generator, between: Number) -> float:
    """Draw a number between two others, both included when they are integers."""
    if not isinstance(between, tuple):
        return between
    low, high = between
    if isinstance(low, int):
        return int(torch.randint(low, high + 1, (1,), generator=g))
    return low + (high - low) * float(torch.rand(1, generator=g))


def batch(
    rows: Number = 7,
    classes: Number = 10,
    scale: float = 3.0,
    certain: float = 0.0,
    wrong: bool = False,
    offset: float = 0.0,
    strided: bool = False,
    dtype: torch.dtype = torch.float64,
    **further: Number,
):
    """Build student's and teacher's logits, targets, and further arguments in the given order.

    With `certain`, that much is added to both networks' logits of the true class, twice to the
    teacher's; with `wrong`, the teacher is as certain of the class after it. `strided` logits lie
    in memory by columns.
    """

    def make(g: torch.Generator) -> Arguments:
        n, c = pick(g, rows), pick(g, classes)
        student, teacher = (draw(g, n, c, scale=scale) for _ in range(2))
        targets = torch.randint(c, (n,), generator=g)
        # the true class is rarely the teacher's first choice, and never in all rows
        targets[0] = teacher[0].argmin()
        ramp = certain * F.one_hot(targets, c)
        student = (student + ramp + offset).to(dtype)
        teacher = (teacher + 2 * (ramp.roll(1, dims=1) if wrong else ramp) + offset).to(dtype)
        if strided:
            student, teacher = (x.T.contiguous().T for x in (student, teacher))
        return {
            "student_logits": student,
            "teacher_logits": teacher,
            "targets": targets,
            **{name: pick(g, value) for name, value in further.items()},
        }

    return make


def without_targets(rows: Number, classes: Number, scale: float = 2.0, **further):
    """Build student's and teacher's logits and further arguments."""

    def make(g: torch.Generator) -> Arguments:
        made = batch(rows, classes, scale, **further)(g)
        del made["targets"]
        return made

    return make


def one_hot(logits: Tensor, targets: Tensor) -> Tensor:
    """Mark the true class of each row, in the logits' dtype."""
    return F.one_hot(targets, logits.shape[-1]).to(logits.dtype)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Give KL(p || q) of each row from log-probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def split(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Give log b, `(B, 2)`, and the log of p-hat, `(B, C - 1)`, of logits that are divided by T."""
    rest = z[one_hot(z, y) == 0].view(len(z), -1)
    target = z.gather(1, y[:, None])
    binary = torch.cat([target, rest.logsumexp(1, keepdim=True)], 1)
    return binary.log_softmax(1), rest.log_softmax(1)


def parts(s: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Give TCKD and NCKD of each row, of logits that are divided by T."""
    (log_bq, log_q), (log_bp, log_p) = split(s, y), split(t, y)
    return kl(log_bp, log_bq), kl(log_p, log_q)
