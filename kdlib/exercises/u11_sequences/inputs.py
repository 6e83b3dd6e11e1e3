"""Padded batches of logits, and a small model, for the checks of this unit."""

from __future__ import annotations

import torch
from torch import Tensor

from kdlib.checks.exercise import Arguments
from kdlib.checks.probes import draw
from kdlib.models import GPT, GPTConfig


def right_padded(lengths: tuple[int, ...], width: int) -> Tensor:
    """Give the mask `(B, T)` of rows with these lengths."""
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def pair(
    lengths: tuple[int, ...] = (6, 2, 4),
    width: int = 6,
    classes: int = 9,
    temperature: float = 1.0,
    fill: float | None = None,
    dtype: torch.dtype = torch.float64,
):
    """Build the arguments of a loss over tokens; `fill` stands where the mask is False."""

    def make(g: torch.Generator) -> Arguments:
        student, teacher = (draw(g, len(lengths), width, classes) for _ in range(2))
        mask = right_padded(lengths, width)
        if fill is not None:
            teacher[~mask] = fill
        return {
            "student_logits": student.to(dtype),
            "teacher_logits": teacher.to(dtype),
            "mask": mask,
            "temperature": temperature,
        }

    return make


def tiny(g: torch.Generator, vocabulary: int = 9) -> GPT:
    """Build a GPT of one layer in float64 whose weights depend on the generator."""
    seed = int(torch.randint(10_000, (1,), generator=g))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(GPTConfig(vocabulary, width=8, layers=1, heads=2, context=16)).double()


def flat(values) -> Tensor:
    """Join tensors into one vector."""
    return torch.cat([v.detach().flatten() for v in values])
