"""Seals: while a check runs, the reference that it asks for cannot be called as an answer."""

from __future__ import annotations

import functools
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

# Of the whole process: a thread or another context that an answer starts finds the same seals.
_sealed: Counter[str] = Counter()
_lock = threading.Lock()
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
            if _sealed[exercise_id] > 0:
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
    """Seal the references of these exercises for the length of a `with` block, in all threads."""
    names = Counter(set(exercise_ids))
    with _lock:
        _sealed.update(names)
    try:
        yield
    finally:
        with _lock:
            _sealed.subtract(names)
