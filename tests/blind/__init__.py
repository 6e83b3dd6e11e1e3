"""Wrong answers written from the notebooks' text alone, to measure the checks with.

Each was written before its author had read the check that judges it, as a student might have
given it, and names the clause of the contract that it breaks.

**The set only measures.** It is never used to write a probe, a criterion or a known mistake: who
mends a check looks at mutants (`python -m course mutate`) and at the contract, not in here. New
answers are added by people who have not read the check in question, from the notebook's text. An
answer is taken out for one reason: read again, the contract allows it.

`python -m tests.blind` runs every answer through its check and prints how many wrong answers got
full marks (there should be none) and how many were named; `--list` names those with full marks,
`--store` writes the figures that `tests/test_blind.py` holds the checks to.
"""

import importlib
import json
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdlib.checks import catalogue, verdict_of

COUNTS = Path(__file__).with_name("counts.json")


@dataclass(frozen=True)
class Wrong:
    """A wrong answer, what went wrong in its author's head, and the clause that it breaks."""

    answer: Any
    cause: str
    clause: str


def collector(into: dict[str, list[Wrong]]) -> Callable[[str, str, str], Callable[[Any], Any]]:
    """A decorator `wrong(exercise, cause, clause)` that files an answer under its exercise."""

    def wrong(exercise: str, cause: str, clause: str) -> Callable[[Any], Any]:
        def file(answer: Any) -> Any:
            into.setdefault(exercise, []).append(Wrong(answer, cause, clause))
            return answer

        return file

    return wrong


def wrong_answers() -> dict[str, list[Wrong]]:
    """Give every unit's wrong answers by exercise, in the catalogue's order."""
    found: dict[str, list[Wrong]] = {}
    for unit in sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name.startswith("u")):
        found |= importlib.import_module(f"{__name__}.{unit}").WRONG
    return {exercise: found[exercise] for exercise in catalogue() if exercise in found}


def measure(exercise: str, answers: list[Wrong], seed: int = 0) -> tuple[list[Wrong], list[Wrong]]:
    """Run wrong answers through their check; give those with full marks, and those it named."""
    full, named = [], []
    for wrong in answers:
        torch.manual_seed(seed)
        verdict = verdict_of(catalogue()[exercise], wrong.answer, seed)
        if verdict.passed:
            full.append(wrong)
        if verdict.diagnoses:
            named.append(wrong)
    return full, named


def stored_counts() -> dict[str, dict[str, int]]:
    """Give the figures that `python -m tests.blind --store` wrote last, by exercise."""
    return json.loads(COUNTS.read_text())
