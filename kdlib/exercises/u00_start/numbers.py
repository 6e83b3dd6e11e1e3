"""A criterion and words for exercises that return a plain number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from kdlib.checks.criteria import law
from kdlib.checks.exercise import Arguments, Criterion, Evidence


def number(answer: Callable, arguments: Arguments) -> dict[str, Any]:
    """Give the result as a plain number where it is one, and the kind of object it was."""
    result = answer(*arguments.values())
    kind = "float" if isinstance(result, float) else type(result).__name__
    single = isinstance(result, Tensor) and result.dim() == 0
    return {"value": result.item() if single else result, "kind": kind}


def python_float(points: float, probe: str) -> Criterion:
    """Ask for a plain Python float."""

    def test(evidence: Evidence) -> str | None:
        kind = evidence.value(probe, "kind")
        if kind == "float":
            return None
        return f"You return an object of type {kind}; a Python float is asked for."

    return law("a Python float", points, (probe,), test)


A_TENSOR = (
    "The number is right and still wrapped in a tensor. A table, a plot or JSON wants a plain "
    "number; which method of a tensor takes it out?"
)
