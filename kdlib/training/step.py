"""One step of distillation, the cache that makes many of them cheap, and what a teacher knows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kdlib.losses import kd_loss
from kdlib.seal import reference

__all__ = ["TeacherCache", "distill_step"]


@reference("02.distill_step")
def distill_step(
    student: nn.Module,
    teacher: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    optimizer: Optimizer,
    temperature: float = 4.0,
    alpha: float = 0.9,
) -> float:
    """Update the student once on one batch.

    The student trains in train mode; the teacher answers in eval mode and without gradient, and
    none of its parameters or BatchNorm statistics change.

    Args:
        student: the module that learns.
        teacher: the module that is imitated, `(B, ...) -> (B, C)`.
        inputs: one batch, `(B, ...)`; both networks see the same tensor.
        targets: class indices, `(B,)`.
        optimizer: holds the student's parameters.
        temperature: T > 0.
        alpha: weight of the soft term.

    Returns:
        The loss before the update, a Python float in nats.

    Raises:
        ValueError: as `kd_loss`.
    """
    student.train()
    teacher.eval()
    with torch.no_grad():
        teacher_logits = teacher(inputs)
    loss = kd_loss(student(inputs), teacher_logits, targets, temperature, alpha)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


class TeacherCache:
    """Run the teacher once over a data set and look its logits up by index ever after.

    The key is the example's index in the data set, not its position in a batch, so that shuffling
    cannot attach one image's soft targets to another.

    Args:
        teacher: `(B, ...) -> (B, C)`; used in eval mode, without gradient.
        inputs: the whole data set, `(N, ...)`.
        batch_size: rows for each forward pass of the teacher.

    Raises:
        ValueError: `inputs` is empty.
    """

    @reference("02.TeacherCache")
    def __init__(
        self, teacher: Callable[[Tensor], Tensor], inputs: Tensor, batch_size: int = 256
    ) -> None:
        if len(inputs) == 0:
            raise ValueError("inputs must hold at least one example, got 0")
        if isinstance(teacher, nn.Module):
            teacher.eval()
        with torch.no_grad():
            self._logits = torch.cat([teacher(chunk) for chunk in inputs.split(batch_size)])

    def __len__(self) -> int:
        """Give the number of examples."""
        return len(self._logits)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Give the teacher's logits of the examples `indices`, `(B,) -> (B, C)`.

        Raises:
            IndexError: an index is negative or not below the number of examples.
        """
        if indices.numel() and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(
                f"indices must lie in 0..{len(self) - 1}, "
                f"got {indices.min().item()}..{indices.max().item()}"
            )
        return self._logits[indices]
