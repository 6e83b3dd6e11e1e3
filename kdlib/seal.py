"""Seals: while a check runs, the reference that it asks for cannot be called as an answer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

_sealed: ContextVar[frozenset[str]] = ContextVar("kdlib_sealed", default=frozenset())
Function = TypeVar("Function", bound=Callable)


class SealedError(RuntimeError):
    """The answer called the reference that it is checked against."""


def reference(exercise_id: str) -> Callable[[Function], Function]:
    """Mark a function as the reference of an exercise, so that a check can seal it.

    Args:
        exercise_id: such as "02.kd_loss".

    Returns:
        A decorator. The function behaves as before outside a check of that exercise; inside one
        it raises `SealedError`.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def guarded(*args, **kwargs):
            if exercise_id in _sealed.get():
                raise SealedError(
                    f"{function.__qualname__} is what exercise {exercise_id} asks you to write, "
                    "so it is sealed while your answer is checked"
                )
            return function(*args, **kwargs)

        guarded.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        del guarded.__wrapped__
        return guarded  # type: ignore[return-value]

    return decorate


@contextmanager
def sealed(*exercise_ids: str) -> Iterator[None]:
    """Seal the references of these exercises for the length of a `with` block."""
    token = _sealed.set(_sealed.get() | frozenset(exercise_ids))
    try:
        yield
    finally:
        _sealed.reset(token)
