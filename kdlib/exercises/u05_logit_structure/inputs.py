"""Batches of logits and targets, and the parts that wrong answers share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.exercise import Arguments
from kdlib.checks.probes import draw


def batch(
    rows: int = 7,
    classes: int = 10,
    scale: float = 3.0,
    equal: bool = False,
    certain: float = 0.0,
    dtype: torch.dtype = torch.float64,
    **further: float,
):
    """Build student's and teacher's logits, targets, and further arguments in the given order.

    With `certain`, that much is added to both networks' logits of the true class.
    """

    def make(g: torch.Generator) -> Arguments:
        student, teacher = (draw(g, rows, classes, scale=scale) for _ in range(2))
        targets = torch.randint(classes, (rows,), generator=g)
        # the true class is rarely the teacher's first choice, and never in all rows
        targets[0] = teacher[0].argmin()
        teacher = student.clone() if equal else teacher
        ramp = certain * F.one_hot(targets, classes)
        return {
            "student_logits": (student + ramp).to(dtype),
            "teacher_logits": (teacher + 2 * ramp).to(dtype),
            "targets": targets,
            **further,
        }

    return make


def without_targets(rows: int, classes: int, scale: float = 2.0, dtype=torch.float64, **further):
    """Build student's and teacher's logits and further arguments."""

    def make(g: torch.Generator) -> Arguments:
        made = batch(rows, classes, scale, dtype=dtype, **further)(g)
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
