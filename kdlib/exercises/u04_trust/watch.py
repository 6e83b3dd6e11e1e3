"""What the exhibits' checks look at: how a script used its networks, call by call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlib.checks.exercise import Criterion


@dataclass
class Call:
    """One call of a network: what it was shown, what it said, and the gradient that came back."""

    inputs: Tensor
    outputs: Tensor
    training: bool
    gradient: Tensor | None = None


class Watch:
    """Remember every call of a module, from now on.

    Attributes:
        calls: in their order.
    """

    def __init__(self, module: nn.Module) -> None:
        self.calls: list[Call] = []
        module.register_forward_hook(self._remember)

    def __deepcopy__(self, memo: dict) -> Watch:
        """Give itself: a copy of the module is watched, too."""
        return self

    def _remember(self, module: nn.Module, inputs: tuple, outputs: Tensor) -> None:
        call = Call(inputs[0].detach().clone(), outputs.detach().clone(), module.training)
        self.calls.append(call)
        if outputs.requires_grad:

            def arrived(gradient: Tensor) -> None:
                call.gradient = gradient.detach().clone()

            outputs.register_hook(arrived)

    @property
    def taught(self) -> list[Call]:
        """The calls that a gradient came back to."""
        return [call for call in self.calls if call.gradient is not None]


def both(told: Criterion, compared: Criterion) -> Criterion:
    """Join what can be told in words, the same for all seeds, to a comparison of values."""
    return replace(told, test=lambda e: told.test(e) or compared.test(e), main=True)


def by_image(calls: Iterable[Call], images: Tensor) -> Tensor:
    """Give a network's last answer about each image, zeros where it was never asked."""
    found = None
    for call in calls:
        rows = rows_of(call.inputs, images)
        if found is None:
            found = torch.zeros(len(images), call.outputs.shape[-1], dtype=call.outputs.dtype)
        found[rows[rows >= 0]] = call.outputs[rows >= 0]
    return torch.zeros(len(images)) if found is None else found


def weights(module: nn.Module) -> Tensor:
    """Give all parameters and buffers as one vector."""
    return torch.cat([v.detach().flatten().double() for v in module.state_dict().values()])


def soft_term(z: Tensor, v: Tensor) -> Tensor:
    """Give KL(p || q), a mean over rows, from logits that are divided by T already."""
    return F.kl_div(z.log_softmax(-1), v.log_softmax(-1), reduction="batchmean", log_target=True)


def rows_of(inputs: Tensor, data: Tensor) -> Tensor:
    """Find which rows of `data` a batch is made of; -1 where a row is none of them."""
    distance = (inputs.double()[:, None] - data.double()).flatten(2).abs().amax(2)
    nearest = distance.min(dim=1)
    return torch.where(nearest.values < 1e-9, nearest.indices, -1)


def two_terms(
    call: Call, teacher_logits: Tensor, targets: Tensor, temperature: float
) -> tuple[float, float, float]:
    """Split the gradient at a student's outputs into a soft and a hard term.

    G B = s T (q^T - p^T) + h (q - y)

    Returns:
        The weights s and h of the two terms (s counts the factor T^2 as given), and the share of
        the gradient that is neither.
    """
    z, rows = call.outputs, len(call.outputs)
    soft = temperature * (
        (z / temperature).softmax(-1) - (teacher_logits / temperature).softmax(-1)
    )
    hard = z.softmax(-1) - F.one_hot(targets, z.shape[-1]).to(z.dtype)
    parts = torch.stack([soft.flatten(), hard.flatten()], dim=1)
    seen = rows * call.gradient.flatten()
    found = torch.linalg.lstsq(parts, seen[:, None]).solution.flatten()
    rest = (parts @ found - seen).norm() / seen.norm().clamp_min(1e-30)
    return found[0].item(), found[1].item(), rest.item()
