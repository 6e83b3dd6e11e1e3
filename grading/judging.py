"""From a record that is not to be trusted to a verdict, and to the output that nbgrader reads."""

from __future__ import annotations

from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output

from kdlib.checks import wire
from kdlib.checks.exercise import Exercise
from kdlib.checks.judge import judge
from kdlib.checks.shadow import explained
from kdlib.checks.verdict import Result, Verdict


def judged(exercise: Exercise, text: Any, seed: int) -> tuple[Verdict, str]:
    """Judge what came back from the sandbox.

    Returns:
        The verdict, and what a person should look at, or "".
    """
    try:
        record = wire.decode(exercise, text)
    except wire.BadRecord as error:
        return lost(exercise, "what came back is no result of it"), f"a bad record: {error}"
    if record == "missing":
        return nothing(exercise, f"There is no `{exercise.name}`: it is not defined."), ""
    if isinstance(record, str):
        problem, _, kind = record.partition(": ")
        if problem == "not observed":
            return nothing(exercise, f"What it returns cannot be looked at ({kind})."), ""
        return nothing(exercise, f"`{exercise.name}` is a {kind}, not a function."), ""
    try:
        return explained(judge(exercise, record, seed), wire.shadowed_in(text)), ""
    except Exception as error:  # a record that no honest answer leaves
        words = f"the record could not be judged ({type(error).__name__})"
        return nothing(exercise, "What it returned could not be judged."), words


def lost(exercise: Exercise, why: str) -> Verdict:
    """Give no points, because the answer took the process with it."""
    return nothing(exercise, f"This answer could not be checked: {why}.")


def nothing(exercise: Exercise, note: str) -> Verdict:
    """Give no points and say why."""
    results = tuple(Result(c.name, c.points, False, "") for c in exercise.criteria)
    return Verdict(exercise.id, exercise.title, results, (), note=note)


def outputs(verdict: Verdict) -> list[NotebookNode]:
    """Give what stands under a check cell: the points, which nbgrader reads, and the verdict."""
    data = {"text/plain": f"{verdict.points:g}", "text/html": verdict.to_html()}
    return [new_output("execute_result", data=data, execution_count=None)]
