"""Batches of student's and teacher's logits, and the soft term that wrong answers share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlib.checks.exercise import Arguments
from kdlib.checks.probes import between, draw


def batch(
    rows: int = 8,
    classes: int = 10,
    temperature: float = 4.0,
    alpha: float = 0.9,
    scale: float = 3.0,
    equal: bool = False,
    shift: float = 0.0,
    dtype: torch.dtype = torch.float64,
):
    """Build the arguments of the distillation loss."""

    def make(g: torch.Generator) -> Arguments:
        student, teacher = (draw(g, rows, classes, scale=scale) for _ in range(2))
        targets = torch.randint(classes, (rows,), generator=g)
        teacher = student.clone() if equal else teacher
        ramp = shift * torch.arange(1, rows + 1, dtype=torch.float64)[:, None]
        return {
            "student_logits": (student + ramp).to(dtype),
            "teacher_logits": (teacher - ramp).to(dtype),
            "targets": targets,
            "temperature": temperature,
            "alpha": alpha,
        }

    return make


def another_batch(g: torch.Generator) -> Arguments:
    """Draw the sizes, the temperature and alpha; the logits are views with strides turned round."""
    rows, classes = between(g, 7, 12), between(g, 2, 6)
    made = {name: draw(g, classes, rows).T for name in ("student_logits", "teacher_logits")}
    made["targets"] = torch.randint(classes, (rows,), generator=g)
    return made | {"temperature": between(g, 12, 90) / 10, "alpha": between(g, 2, 8) / 10}


def without(make: Callable[[torch.Generator], Arguments], *names: str):
    """Leave arguments out: those that have a default, or that an exercise does not have."""
    return lambda g: {k: v for k, v in make(g).items() if k not in names}


def pair(
    rows: int = 6,
    classes: int = 10,
    temperature: float = 3.0,
    scale: float = 3.0,
    equal: bool = False,
    shift: float = 0.0,
    dtype: torch.dtype = torch.float64,
):
    """Build logits and a temperature: the loss's arguments without targets and alpha."""
    made = batch(rows, classes, temperature, 1.0, scale, equal, shift, dtype)
    return without(made, "targets", "alpha")


another_pair = without(another_batch, "targets", "alpha")


def sizes(rows: int, classes: int, temperature: float) -> dict[str, float]:
    """Name the sizes that a wrong factor may be made of."""
    return {
        "the number of rows": rows,
        "the number of classes": classes,
        "the temperature": temperature,
    }


def soft_term(s: Tensor, t: Tensor) -> Tensor:
    """Give KL(p || q), a mean over rows, from logits that are divided by T already."""
    return F.kl_div(s.log_softmax(-1), t.log_softmax(-1), reduction="batchmean", log_target=True)
