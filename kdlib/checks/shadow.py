"""Python's own names that an answer uses and that something in the notebook took."""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from kdlib.checks.verdict import Diagnosis, Verdict


def shadowed(answer: Callable) -> list[str]:
    """Name the built-ins that the answer's code reads and that its module has replaced.

    `from torch import *` does that to `sum`, `range`, `abs`, `all`, `any`, `max` and `min`.
    """
    found = set()
    for function in _functions(answer):
        for name in _globals(function.__code__):
            taken = name in function.__globals__ and hasattr(builtins, name)
            if taken and function.__globals__[name] is not getattr(builtins, name):
                found.add(name)
    return sorted(found)


def explained(verdict: Verdict, names: Sequence[str]) -> Verdict:
    """Put before the diagnoses of a verdict that is not all right which names were taken."""
    if verdict.passed or not verdict.started or not names:
        return verdict
    listed = ", ".join(f"`{name}`" for name in names)
    says = (
        f"Your answer calls {listed}, which in this notebook is no longer Python's own: a cell "
        "such as `from torch import *`, or an assignment, has replaced it. Import the names that "
        "you need one by one, restart the kernel and run the notebook again."
    )
    name = f"a name of Python's own is taken ({', '.join(names)})"
    taken = Diagnosis(name, says, "", whole=False)
    return replace(verdict, diagnoses=(taken, *verdict.diagnoses))


def _functions(answer: Any) -> Iterator[types.FunctionType]:
    if isinstance(answer, types.FunctionType):
        yield answer
    elif isinstance(answer, type):
        yield from (f for f in vars(answer).values() if isinstance(f, types.FunctionType))


def _globals(code: types.CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _globals(inner)
