"""The check engine: `check("02.kd_loss", kd_loss)` says what is right, what is wrong, and why.

A check has two halves that need not trust each other. `observe` runs an answer on seeded probes
and writes down plain data; `judge` compares that record with the reference's, tests laws, and
looks for the known mistake that reproduces it. See docs/AUTHORING.md for how to add an exercise.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import io
import os
import pkgutil
import re
import secrets
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kdlib.checks.pristine import Builtins

if TYPE_CHECKING:
    from kdlib.checks.exercise import Exercise
    from kdlib.checks.verdict import Verdict

__all__ = ["catalogue", "check", "listeners"]

_ROOM = "kdlib.exercises"

# Told the verdict of every check outside of nbgrader; `kdlib` enters the progress record.
listeners: list[Callable[[Verdict], None]] = []


def units() -> list[str]:
    """Name the packages that hold a unit's exercises, such as "u02_soft_targets"."""
    room = importlib.import_module(_ROOM)
    found = (module.name for module in pkgutil.iter_modules(room.__path__))
    return sorted(name for name in found if re.match(r"u\d\d_", name))


@functools.cache
def catalogue() -> dict[str, Exercise]:
    """Every exercise of the course by its id, in the order of the course."""
    found: dict[str, Exercise] = {}
    for unit in units():
        for exercise in importlib.import_module(f"{_ROOM}.{unit}").EXERCISES:
            if exercise.id in found:
                raise ValueError(f"two exercises have the id {exercise.id}")
            found[exercise.id] = exercise
    return found


@Builtins()
def check(exercise_id: str, answer: Any, seed: int | None = None) -> Verdict:
    """Check an answer and say what is right, what is wrong, and which known mistake it is.

    In a notebook the verdict shows itself and nothing is raised, so that 'Run All' goes on. Under
    `nbgrader validate` anything short of full marks raises; under `nbgrader autograde` the probe
    inputs are drawn anew and the points earned become the cell's grade.

    Args:
        exercise_id: unit and name, such as "02.kd_loss".
        answer: the function or class itself, without parentheses.
        seed: of the probe inputs; 0 in a notebook, drawn at random when grading.

    Returns:
        A `Verdict` with `.points`, `.max_points`, `.passed`, `.results` and `.diagnoses`.

    Raises:
        ValueError: there is no such exercise.
        CheckFailed: under `nbgrader validate`, when the answer earns less than full marks.
    """
    from kdlib.checks.verdict import CheckFailed, execution

    exercises = catalogue()
    if exercise_id not in exercises:
        near = difflib.get_close_matches(str(exercise_id), exercises, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"there is no exercise {exercise_id!r}{hint}")
    exercise = exercises[exercise_id]
    if seed is None:
        seed = secrets.randbits(31) if execution() == "autograde" else _default_seed()
    verdict = verdict_of(exercise, answer, seed)
    if not execution():
        for tell in listeners:
            with contextlib.suppress(Exception):  # a record that cannot be kept costs no verdict
                tell(verdict)
    if execution() == "validate" and not verdict.passed:
        raise CheckFailed(str(verdict))
    return verdict


@Builtins()
def verdict_of(exercise: Exercise, answer: Any, seed: int) -> Verdict:
    """Observe an answer and judge it; nothing is shown, raised or written down.

    Whatever the answer did to the process becomes a verdict. Only the student's own interrupt gets
    through.
    """
    from kdlib.checks.guard import TookTooLong
    from kdlib.checks.judge import judge, unjudged
    from kdlib.checks.observe import observe, words_of
    from kdlib.checks.shadow import explained, shadowed
    from kdlib.checks.verdict import execution

    if not callable(answer):
        note = (
            f"The second argument is a {type(answer).__name__}. Pass the function itself, "
            f"without parentheses: check({exercise.id!r}, {exercise.name})."
        )
        return unjudged(exercise, seed, note)
    # nbgrader validate fails a cell for a warning or a progress bar on stderr
    aside = io.StringIO() if execution() == "validate" else sys.stderr
    try:
        with contextlib.redirect_stderr(aside):
            record = observe(exercise, answer, seed)
    except (Exception, TookTooLong) as error:
        note = (
            f"This answer cannot be run here ({type(error).__name__}: {words_of(error)}). "
            "If nothing in it explains that, restart the kernel and run the cells again."
        )
        return unjudged(exercise, seed, note)
    return explained(judge(exercise, record, seed), shadowed(answer))


def _default_seed() -> int:
    return int(os.environ.get("KDLIB_CHECK_SEED", "0"))
