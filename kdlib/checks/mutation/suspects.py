"""Mutants that teach: what an answer does, said by the operator whose mutant does the same."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from kdlib.checks.exercise import Exercise
from kdlib.checks.mutation.mutants import Mutant, Target
from kdlib.checks.mutation.trees import Operator
from kdlib.checks.observe import observe
from kdlib.checks.record import Observation, Record, as_tensor, same

FAMILIES = {
    "reduction": "A sum or a mean is not the one that is asked for, or runs over other entries.",
    "temperature": "The temperature does not stand where it should, or not in the right power.",
    "exchange": "Two things are exchanged that are not alike.",
    "sign": "A sign is wrong, or a difference is taken the wrong way round.",
    "gradient": "The gradient flows where it should not, or does not where it should.",
    "mask": "The mask is not used as it should be.",
    "broadcast": "Shapes are matched in another way than they should be.",
    "condition": "A condition is not the right one.",
    "off by one": "Something is off by one: a position, a length or a count.",
}


def suspects(
    exercise: Exercise, student: Record, expected: Record, seed: int = 0, seconds: float = 0.3
) -> list[Operator]:
    """Find the operators whose mutants of the reference do exactly what the student's answer does.

    A mutant is dropped at the first probe where it does anything else. One that differs from the
    reference only in whether something is raised, or in zeros and NaN, tells nothing about the
    cause and is no suspect.

    Args:
        exercise: that was observed.
        student: the record of the student's answer.
        expected: the reference's.
        seed: of the probe inputs.
        seconds: CPU time that may be spent; those that students need most are tried first.

    Returns:
        Operators, each once, in the order of the registry; empty when nothing agrees.
    """
    until, found = time.thread_time() + seconds, {}
    probes = sorted(
        exercise.probes, key=lambda p: _agree(student[p.name], expected[p.name], p.atol)
    )
    telling = [p for p in probes if _tells(student[p.name], expected[p.name], p.atol)]
    if not telling:
        return []
    for mutant, record in _observed(exercise, seed):
        if all(_agree(student[p.name], record(p.name), p.atol) for p in probes):
            found[mutant.operator.name] = mutant.operator
        if time.thread_time() > until:
            break
    return list(found.values())


def words(operators: list[Operator]) -> str:
    """Say what all of the suspects have in common; nothing when that is nothing."""
    if len(operators) == 1:
        return operators[0].says
    families = {operator.family for operator in operators}
    return FAMILIES.get(families.pop(), "") if len(families) == 1 else ""


def free(exercise: Exercise) -> Exercise:
    """Give the exercise without seals: what a mutant of the reference is observed on."""
    return replace(exercise, id=f"{exercise.id} (mutant)", seals=(), forbids=())


def one_by_one(exercise: Exercise) -> dict[str, Exercise]:
    """Split an exercise into its probes, to run only those that are asked for.

    As in the whole, only the first probe is run twice.
    """
    return {
        probe.name: replace(exercise, probes=(probe,), random=exercise.random or place > 0)
        for place, probe in enumerate(exercise.probes)
    }


@functools.lru_cache(maxsize=64)
def _mutants(exercise: Exercise) -> tuple[Iterator[Mutant], list[Mutant]]:
    """Hold an exercise's mutants: those that are still to be made, and those that are."""
    return Target(exercise.reference).mutants(), []


@functools.lru_cache(maxsize=64)
def _observations(exercise: Exercise, seed: int) -> dict:
    """Hold what mutants did on the probes; the least recently used are dropped."""
    return {}


def _observed(exercise: Exercise, seed: int) -> Iterator:
    """Yield each mutant with a function that gives its observation on a probe."""
    parts, seen = one_by_one(free(exercise)), _observations(exercise, seed)
    to_make, made = _mutants(exercise)

    def record(place: int, name: str) -> Observation:
        if (place, name) not in seen:
            try:
                seen[place, name] = observe(parts[name], made[place].answer(), seed)[name]
            except Exception as error:
                seen[place, name] = Observation("raised", error_type=type(error).__name__)
        return seen[place, name]

    place = 0
    while place < len(made) or (new := next(to_make, None)) is not None:
        if place == len(made):
            made.append(new)
        yield made[place], functools.partial(record, place)
        place += 1


def _agree(one: Observation, two: Observation, atol: float) -> bool:
    """Say whether two observations are the same in every field."""
    a, b = one.fields(), two.fields()
    return a.keys() == b.keys() and all(same(a[key], b[key], atol=atol) for key in a)


def _tells(student: Observation, expected: Observation, atol: float) -> bool:
    """Say whether a probe shows a wrong number that hardly comes about by chance."""
    want = expected.fields()
    for key, value in student.fields().items():
        found = as_tensor(value)
        if not isinstance(found, Tensor) or not found.is_floating_point() or not found.numel():
            continue
        if key in want and not same(value, want[key], atol=atol):
            if bool((found.isfinite() & (found != 0) & (found != 1)).any()):
                return True
    return False
