"""Batches of features for the probes: awkward ones, too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdlib.checks.exercise import Arguments
from kdlib.checks.probes import draw

Make = Callable[[torch.Generator], Arguments]


def integer(g: torch.Generator, low: int, high: int) -> int:
    """Draw a whole number, both ends included."""
    return int(torch.randint(low, high + 1, (1,), generator=g))


def batch(g: torch.Generator, rows: int, width: int) -> Tensor:
    """Draw features (rows, width) away from the origin; one row lies far from the others."""
    size = torch.full((rows, 1), 1.0, dtype=torch.float64)
    size[integer(g, 0, rows - 1)] = 6.0
    return draw(g, rows, width, scale=1.0) * size + 0.4


def strided(x: Tensor) -> Tensor:
    """Give the same numbers in another order in memory: the first dimension after the rows last."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if x.dim() > 2 else x.T.contiguous().T


def pair(
    rows: tuple[int, int] = (4, 7),
    width: int = 0,
    scale: float = 1.0,
    single: bool = False,
    twins: bool = False,
    dead: bool = False,
    collapsed: bool = False,
    maps: bool = False,
    teacher_rows: int = 0,
) -> Make:
    """Make student's and teacher's features, of different width.

    Args:
        rows: the least and the largest number of them.
        width: of the student; drawn when 0.
        scale: multiplies the student's features and divides the teacher's.
        single: float32.
        twins: two rows of the student are equal.
        dead: one row of the student is zero, and another one of the teacher.
        collapsed: all rows of the student are equal.
        maps: the student's are feature maps (B, C, H, W), with gaps in memory.
        teacher_rows: another number of them than the student's.
    """

    def make(g: torch.Generator) -> Arguments:
        count, wide = integer(g, *rows), width or integer(g, 3, 5)
        student = batch(g, count, 4 * wide if maps else wide)
        teacher = batch(g, teacher_rows or count, integer(g, 6, 9))
        if twins:
            student[1] = student[0]
        if dead:
            student[1], teacher[2] = 0.0, 0.0
        if collapsed:
            student[:] = student[0]
        if maps:
            student, teacher = strided(student.reshape(count, wide, 2, 2)), strided(teacher)
        student, teacher = scale * student, teacher / scale
        if single:
            student, teacher = student.float(), teacher.float()
        return {"student_features": student, "teacher_features": teacher}

    return make


def nested(*rows: int) -> Callable:
    """Make a `run` that calls an answer on the first rows of a batch, for several sizes."""

    def run(answer, a: Arguments) -> Tensor | None:
        student, teacher = a["student_features"], a["teacher_features"]
        return together([answer(student[:n], teacher[:n]) for n in (*rows, len(student))])

    return run


def together(losses: list) -> Tensor | None:
    """Give several losses in one tensor; None where one of them is missing."""
    if any(loss is None for loss in losses):
        return None
    return torch.stack([torch.as_tensor(loss) for loss in losses])


def flat(features: Tensor) -> Tensor:
    """Give (B, D), as most known mistakes do."""
    return features.flatten(1)


def same_rows(student: Tensor, teacher: Tensor) -> None:
    """Refuse batches that differ, as every known mistake but one does."""
    if len(student) != len(teacher):
        raise ValueError("the batches differ")


def scale_law(evidence) -> str | None:
    """Say how the loss changes when only the scale of the features does."""
    plain, scaled = (float(evidence.value(probe)) for probe in ("plain", "scaled"))
    if abs(plain - scaled) <= 1e-6 * max(1e-3, abs(plain)):
        return None
    return (
        "With the student's features made ten thousand times larger and the teacher's as many "
        f"times smaller, your loss goes from {plain:.4g} to {scaled:.4g}. A relation between "
        "images does not depend on the scale of a network's features."
    )


def finite_law(probe: str, what: str):
    """Make a law: on `probe` the loss and its gradient are finite."""

    def test(evidence) -> str | None:
        value = float(evidence.value(probe))
        gradient = evidence.student[probe].gradients.get("student_features")
        if value != value or abs(value) == float("inf"):
            return f"On {what} your loss is {value}."
        if gradient is None:
            return f"On {what} no gradient arrives at the student's features."
        if not bool(gradient.isfinite().all()):
            return (
                f"On {what} the loss is {value:.4g}, but its gradient is not finite: one such "
                "batch turns the whole network into NaN."
            )
        return None

    return test
