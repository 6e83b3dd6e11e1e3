"""Logits for one and for two networks."""

from __future__ import annotations

import torch

from kdlib.checks.exercise import Arguments
from kdlib.checks.probes import draw


def one_network(temperature: float = 2.5, scale: float = 3.0, shift: float = 0.0, rows: int = 6):
    """Build one tensor of logits and a temperature."""

    def make(g: torch.Generator) -> Arguments:
        return {"logits": draw(g, rows, 7, scale=scale) + shift, "temperature": temperature}

    return make


def two_networks(
    scale: float = 3.0, shift: float = 0.0, equal: bool = False, classes: int = 7, **rest
):
    """Build teacher's and student's logits, and what else the function takes."""

    def make(g: torch.Generator) -> Arguments:
        teacher, student = (draw(g, 6, classes, scale=scale) for _ in range(2))
        teacher = student.clone() if equal else teacher
        return {"teacher_logits": teacher + shift, "student_logits": student - shift, **rest}

    return make
