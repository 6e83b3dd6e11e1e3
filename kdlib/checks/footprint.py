"""What a call leaves behind on the caller's things: numbers, gradients, modes, hooks, lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdlib.checks.record import same

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)


class Footprint:
    """The state of a probe's arguments before a call.

    Looks into lists, tuples, dicts and modules. An optimiser is left out, since working is what it
    is for; so is a generator.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = dict(arguments)
        self.before = {name: _state(value) for name, value in self.arguments.items()}

    def traces(self) -> tuple[list[str], list[str]]:
        """Compare with the state now.

        Returns:
            The arguments that are tensors and hold other numbers than before; and the other traces:
            "gradient: student_logits", "hooks: model".
        """
        changed, left = [], []
        for name, value in self.arguments.items():
            before, after = self.before[name], _state(value)
            for kind in dict.fromkeys(kind for kind, _ in (*before, *after)):
                if _alike(before, after, kind):
                    continue
                if kind == "numbers" and isinstance(value, Tensor):
                    changed.append(name)
                else:
                    left.append(f"{kind}: {name}")
        return changed, left


_State = dict[tuple[str, str], Any]


def _alike(before: _State, after: _State, kind: str) -> bool:
    return all(
        key in before and key in after and same(before[key], after[key], rtol=0.0, atol=0.0)
        for key in before.keys() | after.keys()
        if key[0] == kind
    )


def _state(value: Any) -> _State:
    """Copy what may change of a value, by kind and place."""
    return dict(_walk(value, "", set()))


def _walk(value: Any, path: str, seen: set[int]) -> Iterator[tuple[tuple[str, str], Any]]:
    if id(value) in seen:
        return
    if isinstance(value, Tensor):
        yield from _of_tensor(value, path)
    elif isinstance(value, nn.Module):
        seen.add(id(value))
        for name, module in value.named_modules():
            yield ("mode", f"{path}.{name}"), module.training
            hooks = [key for table in _HOOKS for key in getattr(module, table, None) or ()]
            yield ("hooks", f"{path}.{name}"), str(hooks)
        for name, tensor in (*value.named_parameters(), *value.named_buffers()):
            yield from _of_tensor(tensor, f"{path}.{name}")
    elif isinstance(value, list | tuple | Mapping):
        seen.add(id(value))
        items = list(value.items() if isinstance(value, Mapping) else enumerate(value))
        yield ("items", path), str([key for key, _ in items])
        for key, item in items:
            yield from _walk(item, f"{path}[{key}]", seen)
    elif value is None or isinstance(value, bool | int | float | str):
        yield ("items", path), value


def _of_tensor(tensor: Tensor, path: str) -> Iterator[tuple[tuple[str, str], Any]]:
    yield ("numbers", path), tensor.detach().clone()
    yield ("requires_grad", path), tensor.requires_grad
    if tensor.is_leaf:
        gradient = tensor.grad
        yield ("gradient", path), None if gradient is None else gradient.detach().clone()
    yield ("hooks", path), str(list(tensor._backward_hooks or ()))


def seeded_again(seed: int) -> bool:
    """Say whether torch's global generator was given another seed than `seed`."""
    return torch.default_generator.initial_seed() != seed
