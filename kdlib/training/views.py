"""Views of a batch: what teacher and student are shown, and that it is the same thing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kdlib.errors import require_temperature
from kdlib.losses import kl_divergence
from kdlib.seal import reference

__all__ = ["draw_mixup", "mixup", "mixup_step"]


def draw_mixup(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw partners and weights for `mixup`.

    Args:
        rows: of the batch.
        generator: where the chance comes from.

    Returns:
        `order`, a permutation of the rows, and `weight`, uniform on [0, 1]; both `(rows,)`.
    """
    return torch.randperm(rows, generator=generator), torch.rand(rows, generator=generator)


def mixup(inputs: Tensor, order: Tensor, weight: Tensor) -> Tensor:
    """Blend each example with a partner (Zhang et al. 2018, arXiv 1710.09412).

    x~_i = w_i x_i + (1 - w_i) x_{order_i}

    Args:
        inputs: `(B, ...)`; left as they are.
        order: the partner of each row, `(B,)`.
        weight: of the row itself, between 0 and 1, `(B,)`.

    Returns:
        A new tensor of the shape of `inputs`.

    Raises:
        ValueError: `order` or `weight` does not have one entry for each row, or a weight lies
            outside of [0, 1].
    """
    for name, given in (("order", order), ("weight", weight)):
        if given.shape != inputs.shape[:1]:
            want = tuple(inputs.shape[:1])
            raise ValueError(f"{name} must have shape {want}, got {tuple(given.shape)}")
    if ((weight < 0) | (weight > 1)).any():
        raise ValueError(f"weight must lie between 0 and 1, got {weight.tolist()[:4]}")
    weight = weight.to(inputs.dtype).reshape(-1, *[1] * (inputs.dim() - 1))
    return weight * inputs + (1 - weight) * inputs[order]


@reference("04.mixup_step")
def mixup_step(
    student: nn.Module,
    teacher: nn.Module,
    inputs: Tensor,
    order: Tensor,
    weight: Tensor,
    optimizer: Optimizer,
    temperature: float = 1.0,
) -> float:
    """Update the student once on one blended view that the teacher sees too.

    x~ = mixup(x),   L = T^2 KL(p^T(x~) || q^T(x~)),   mean over rows

    Consistent views with mixup and no labels: the "function matching" of Beyer et al. 2022, arXiv
    2106.05237.

    Args:
        student: the module that learns, in train mode afterwards.
        teacher: the module that is imitated, in eval mode afterwards; a constant.
        inputs: one batch, `(B, ...)`; left as it is.
        order: the partner of each row, `(B,)`.
        weight: of the row itself, `(B,)`.
        optimizer: holds the student's parameters.
        temperature: T > 0.

    Returns:
        The loss before the update, a Python float in nats.

    Raises:
        ValueError: as `mixup` and `kl_divergence`.
    """
    require_temperature(temperature)
    view = mixup(inputs, order, weight)
    student.train()
    teacher.eval()
    with torch.no_grad():
        teacher_logits = teacher(view)
    loss = temperature**2 * kl_divergence(teacher_logits, student(view), temperature).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
