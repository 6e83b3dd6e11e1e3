"""The second half of a check: compare two records and say what they mean.

Nothing here calls the student's code.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from torch import Tensor

from kdlib.checks.exercise import Evidence, Exercise, Mistake
from kdlib.checks.observe import observe
from kdlib.checks.record import Record, as_tensor, flatten, same
from kdlib.checks.verdict import Diagnosis, Result, Verdict
from kdlib.checks.words import factor, once


def judge(exercise: Exercise, student: Record, seed: int = 0) -> Verdict:
    """Judge a student's record.

    Args:
        exercise: the exercise that was observed.
        student: what `observe` wrote down about the student's answer.
        seed: of the probe inputs that the student's answer was run on.

    Returns:
        The verdict: points for each criterion, messages, and the known mistakes that reproduce the
        student's record.
    """
    expected = _reference_record(exercise, seed)
    evidence = Evidence(student, expected, {probe.name: probe for probe in exercise.probes})
    if all(seen.status == "not implemented" for seen in student.values()):
        failed = tuple(Result(c.name, c.points, False, "") for c in exercise.criteria)
        return Verdict(exercise.id, exercise.title, failed, (), started=False, seed=seed)
    nothing = _is_constant(student) and not _is_constant(expected)
    nothing |= _is_empty(student) and not _is_empty(expected)
    problems = [criterion.test(evidence) or "" for criterion in exercise.criteria]
    if nothing:
        same_answer = "It gives the same answer whatever it is given, so this earns nothing yet."
        problems = [problem or same_answer for problem in problems]
    results = [
        Result(criterion.name, criterion.points, not problem, message)
        for criterion, problem, message in zip(
            exercise.criteria, problems, once(problems), strict=True
        )
    ]
    diagnoses: tuple[Diagnosis, ...] = ()
    if not all(result.passed for result in results):
        found, explained = diagnose(exercise, student, expected, seed)
        departures = dict(_departures(exercise, student, expected))
        departed = {key for key in departures if key[1] != "status"}
        whole = departed <= explained
        diagnoses = tuple(Diagnosis(m.name, m.says, m.seen_in, whole) for m in found)
        sized = {(probe.name, "value") for probe in exercise.probes if probe.sizes}
        if (sized & departed) - explained and (words := factor(exercise, student, expected)):
            whole = departed <= explained | sized
            diagnoses = (Diagnosis("a constant factor", words, "", whole), *diagnoses)
    return Verdict(exercise.id, exercise.title, tuple(results), diagnoses, started=True, seed=seed)


def diagnose(
    exercise: Exercise, student: Record, expected: Record, seed: int
) -> tuple[list[Mistake], set[tuple[str, str]]]:
    """Find the known mistakes that reproduce the student's record, and the fields they explain.

    A mistake explains the student when, wherever the mistake departs from the reference, the
    student departs in the very same way. Mistakes that explain most come first; one that explains
    nothing new is left out.
    """
    candidates = []
    atol = {probe.name: probe.atol for probe in exercise.probes}
    for mistake, record in _mistake_records(exercise, seed):
        departures = dict(_departures(exercise, record, expected))
        if departures and all(
            key in (fields := student[probe].fields())
            and same(fields[key], value, atol=atol[probe])
            for (probe, key), value in departures.items()
        ):
            candidates.append((mistake, set(departures)))
    candidates.sort(key=lambda pair: -len(pair[1]))
    found: list[Mistake] = []
    explained: set[tuple[str, str]] = set()
    for mistake, departures in candidates:
        if departures - explained:
            found.append(mistake)
            explained |= departures
    return found, explained


def _departures(
    exercise: Exercise, record: Record, expected: Record
) -> Iterator[tuple[tuple[str, str], object]]:
    """Yield `((probe, field), value)` wherever `record` differs from `expected`."""
    for probe in exercise.probes:
        want = expected[probe.name].fields()
        for key, value in record[probe.name].fields().items():
            if key not in want or not same(value, want[key], atol=probe.atol):
                yield (probe.name, key), value


def _is_constant(record: Record) -> bool:
    values = [o.fields().get("value") for o in record.values() if o.status == "returned"]
    tensors = [as_tensor(value) for value in values]
    if len(tensors) < 2 or any(tensor is None for tensor in tensors):
        return False
    first = tensors[0].double().flatten()[0] if tensors[0].numel() else None
    return first is not None and all(bool((t.double() == first).all()) for t in tensors)


def _is_empty(record: Record) -> bool:
    """Say whether no call returned a single number."""
    return not any(
        isinstance(leaf, Tensor | float) and not isinstance(leaf, bool)
        for seen in record.values()
        if seen.status == "returned"
        for _, leaf in flatten(seen.value, "")
    )


@functools.lru_cache(maxsize=256)
def _cached_records(exercise: Exercise, seed: int) -> dict:
    """Hold one dict for each exercise and seed; the least recently used are dropped."""
    return {}


def _reference_record(exercise: Exercise, seed: int) -> Record:
    cache = _cached_records(exercise, seed)
    if "reference" not in cache:
        cache["reference"] = observe(exercise, exercise.reference, seed, is_reference=True)
    return cache["reference"]


def _mistake_records(exercise: Exercise, seed: int) -> list[tuple[Mistake, Record]]:
    cache = _cached_records(exercise, seed)
    if "mistakes" not in cache:
        cache["mistakes"] = [
            (mistake, observe(exercise, mistake.answer, seed)) for mistake in exercise.mistakes
        ]
    return cache["mistakes"]
