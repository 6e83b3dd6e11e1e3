"""Answers that do no work; each has to earn nothing in every exercise."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def raises(*args, **kwargs):
    """Refuse everything."""
    raise ValueError("no")


def nothing(*args, **kwargs):
    """Forget the return line."""


def zero(*args, **kwargs):
    """Give the number 0 as a tensor."""
    return torch.zeros(())


def one(*args, **kwargs):
    """Give the number 1 as a float."""
    return 1.0


def true(*args, **kwargs):
    """Agree with everything."""
    return True


def false(*args, **kwargs):
    """Agree with nothing."""
    return False


def empty(*args, **kwargs):
    """Give an empty list."""
    return []


def zeros_like(*args, **kwargs):
    """Give zeros of the first tensor's shape."""
    return torch.zeros_like(_first(args))


def zeros_of_rows(*args, **kwargs):
    """Give a zero for each row of the first tensor."""
    return torch.zeros_like(_first(args)[..., 0] if _first(args).dim() else _first(args))


def zero_with_graph(*args, **kwargs):
    """Give 0, differentiable with respect to everything."""
    return sum((x * 0).sum() for x in _tensors(args) if x.is_floating_point())


def nan_like(*args, **kwargs):
    """Give NaN of the first tensor's shape."""
    return _first(args) * float("nan")


def nan_of_rows(*args, **kwargs):
    """Give NaN for each row."""
    return _first(args).double().sum(-1) * float("nan")


def nan_with_graph(*args, **kwargs):
    """Give one NaN, differentiable with respect to everything."""
    return sum((x * float("nan")).sum() for x in _tensors(args) if x.is_floating_point())


def nan_float(*args, **kwargs):
    """Give NaN as a float."""
    return float("nan")


def first_number(*args, **kwargs):
    """Give the first number of the first tensor."""
    return _first(args).flatten()[0]


def first_number_as_float(*args, **kwargs):
    """Give the same as a Python number."""
    return _first(args).flatten()[0].item()


def total(*args, **kwargs):
    """Give the sum of the first tensor."""
    return _first(args).sum()


def echo(number: int) -> Callable:
    """Make an answer that gives back one of its arguments."""

    def answer(*args, **kwargs):
        return args[number]

    answer.__name__ = f"echo_{number}"
    return answer


class Silent:
    """A class whose instances do nothing with anything."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __call__(self, *args, **kwargs):
        """Forget the return line."""

    def __getattr__(self, name: str):
        """Have every method, and none that works."""
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


IDLE = (
    *(raises, nothing, zero, one, true, false, empty, zeros_like, zeros_of_rows, zero_with_graph),
    *(nan_like, nan_of_rows, nan_with_graph, nan_float, first_number, first_number_as_float, total),
    *(echo(number) for number in range(6)),
    Silent,
)


def _tensors(args: tuple) -> Iterator[Tensor]:
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, list | tuple):
            yield from _tensors(tuple(arg))
        elif isinstance(arg, torch.nn.Module):
            yield from itertools.islice(arg.parameters(), 1)


def _first(args: tuple) -> Tensor:
    return next(_tensors(args), torch.zeros(1))
