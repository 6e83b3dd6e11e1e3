"""Logits for one and for two networks."""

from __future__ import annotations

import torch

from kdlib.checks.exercise import Arguments
from kdlib.checks.probes import between, draw

ROUNDED = 1e-3  # what a float32 logit in the thousands may be off


def one_network(
    temperature: float = 2.5,
    scale: float = 3.0,
    shift: float = 0.0,
    rows: int = 6,
    classes: int = 7,
    dtype: torch.dtype = torch.float64,
):
    """Build one tensor of logits and a temperature."""

    def make(g: torch.Generator) -> Arguments:
        logits = draw(g, rows, classes, scale=scale) + shift
        return {"logits": logits.to(dtype), "temperature": temperature}

    return make


def two_networks(
    scale: float = 3.0,
    shift: float = 0.0,
    equal: bool = False,
    rows: int = 6,
    classes: int = 7,
    dtype: torch.dtype = torch.float64,
    **rest,
):
    """Build teacher's and student's logits, and what else the function takes."""

    def make(g: torch.Generator) -> Arguments:
        teacher, student = (draw(g, rows, classes, scale=scale) for _ in range(2))
        teacher = student.clone() if equal else teacher
        pair = {"teacher_logits": teacher + shift, "student_logits": student - shift}
        return {name: logits.to(dtype) for name, logits in pair.items()} | rest

    return make


def turned(g: torch.Generator, *names: str) -> Arguments:
    """Draw logits of sizes that the generator chooses, as views with their strides turned round."""
    rows, classes = between(g, 7, 12), between(g, 2, 6)
    return {name: draw(g, classes, rows).T for name in names}


def tenths(g: torch.Generator, low: int, high: int) -> float:
    """Draw a number with one decimal, from `low` to `high` tenths."""
    return between(g, low, high) / 10
