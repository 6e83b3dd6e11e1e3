"""Padded batches of tokens and logits, and a small language model, for the checks of this unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdlib.checks.exercise import Arguments
from kdlib.checks.probes import between, draw, number


def right_padded(lengths: tuple[int, ...] | list[int], width: int) -> Tensor:
    """Give the mask `(B, T)` of rows with these lengths."""
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def uneven(g: torch.Generator, rows: int, width: int, least: int = 1) -> list[int]:
    """Draw lengths of rows: a full one, one of `least` to `width - 2` tokens, and any others."""
    drawn = [width, between(g, least, width - 2)]
    drawn += [between(g, least, width) for _ in range(rows - 2)]
    return [drawn[i] for i in torch.randperm(rows, generator=g)]


def scattered(g: torch.Generator, rows: int, width: int) -> Tensor:
    """Draw a mask `(B, T)` with gaps: rows of which one counts at one place, one at all of them."""
    mask = torch.rand(rows, width, generator=g) < 0.6
    mask[0], mask[1] = True, False
    mask[1, between(g, 0, width - 1)] = True
    if rows > 2:
        mask[2] = False
    return mask[torch.randperm(rows, generator=g)]


def pair(
    lengths: tuple[int, ...] = (6, 2, 4),
    width: int = 6,
    classes: int = 9,
    temperature: float = 1.0,
    fill: tuple[float, float] | None = None,
):
    """Build the arguments of a loss over tokens.

    `fill` stands in the student's and in the teacher's logits where the mask is False.
    """

    def make(g: torch.Generator) -> Arguments:
        student, teacher = (draw(g, len(lengths), width, classes) for _ in range(2))
        mask = right_padded(lengths, width)
        if fill is not None:
            student[~mask], teacher[~mask] = fill
        return {
            "student_logits": student,
            "teacher_logits": teacher,
            "mask": mask,
            "temperature": temperature,
        }

    return make


def awkward_pair(g: torch.Generator) -> Arguments:
    """Draw all sizes; the logits are views with strides turned round, the mask has gaps."""
    rows, width, classes = between(g, 2, 4), between(g, 3, 6), between(g, 2, 5)
    student, teacher = (draw(g, width, rows, classes).transpose(0, 1) for _ in range(2))
    return {
        "student_logits": student,
        "teacher_logits": teacher,
        "mask": scattered(g, rows, width),
        "temperature": number(g, 0.4, 0.9) if between(g, 0, 1) else number(g, 1.2, 5.0),
    }


class Reader(nn.Module):
    """A small language model: what comes next depends on all tokens so far and on their order."""

    def __init__(self, g: torch.Generator, vocabulary: int, scale: float = 0.7) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, 5)
        self.logits = nn.Linear(5, vocabulary)
        self.double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(draw(g, *parameter.shape, scale=scale))

    def forward(self, ids: Tensor) -> Tensor:
        """Give the logits `(B, T, V)` of the token after each of `ids` `(B, T)`."""
        place = torch.arange(ids.shape[1])
        ago = place[:, None] - place
        fading = torch.where(ago >= 0, 0.7 ** ago.clamp(min=0), 0.0).to(self.tokens.weight.dtype)
        return self.logits(torch.tanh(fading @ self.tokens(ids)))


def flat(values) -> Tensor:
    """Join tensors into one vector."""
    return torch.cat([v.detach().flatten() for v in values])
