"""The second half of a check: compare two records and say what they mean.

Nothing here calls the student's code.
"""

from __future__ import annotations

from kdlib.checks.diagnosis import Student, known_mistakes, variants
from kdlib.checks.exercise import Criterion, Evidence, Exercise
from kdlib.checks.known import Known, ReferenceFailed, known
from kdlib.checks.modes import known_modes
from kdlib.checks.observe import words_of
from kdlib.checks.record import Record, as_tensor
from kdlib.checks.verdict import Diagnosis, Result, Verdict
from kdlib.checks.words import factor, once

CONSTANT = "It gives the same answer whatever it is given, so this earns nothing yet."


def judge(exercise: Exercise, student: Record, seed: int = 0) -> Verdict:
    """Judge a student's record.

    Args:
        exercise: the exercise that was observed.
        student: what `observe` wrote down about the student's answer.
        seed: of the probe inputs that the student's answer was run on.

    Returns:
        The verdict: points for each criterion, messages, and the known mistakes that reproduce the
        student's record. Side criteria count where a main one holds. Never raises.
    """
    if all(seen.status == "not implemented" for seen in student.values()):
        return unjudged(exercise, seed, started=False)
    try:
        with known_modes():
            return _judge(known(exercise, seed), student)
    except ReferenceFailed as error:
        return unjudged(
            exercise,
            seed,
            f"The course's own solution no longer runs here ({error}): something that this session "
            "did changed what it needs. Restart the kernel and run the cells again.",
        )
    except Exception as error:
        return unjudged(
            exercise,
            seed,
            f"What came back cannot be judged ({type(error).__name__}: {words_of(error)}). Return "
            "plain tensors and numbers; if you do, restart the kernel and run the cells again.",
        )


def unjudged(exercise: Exercise, seed: int, note: str = "", started: bool = True) -> Verdict:
    """Give the verdict on an answer that could not be looked at: no points, and why."""
    failed = tuple(Result(c.name, c.points, False, "") for c in exercise.criteria)
    return Verdict(exercise.id, exercise.title, failed, (), started, seed, note)


def _judge(about: Known, student: Record) -> Verdict:
    exercise = about.exercise
    expected = about.record(beside=student)
    evidence = Evidence(student, expected, {probe.name: probe for probe in exercise.probes})
    problems = [_problem(criterion, evidence) for criterion in exercise.criteria]
    if _is_constant(student) and not _is_constant(expected):
        problems = [problem or CONSTANT for problem in problems]
    results = _results(exercise, problems)
    diagnoses: tuple[Diagnosis, ...] = ()
    if not all(result.passed for result in results):
        diagnoses = _diagnoses(Student.of(about, student))
    return Verdict(exercise.id, exercise.title, results, diagnoses, seed=about.seed)


def _problem(criterion: Criterion, evidence: Evidence) -> str:
    """Say what a criterion finds wrong; a result that it stumbles over is wrong, too."""
    try:
        return criterion.test(evidence) or ""
    except Exception as error:
        return f"What you return is of another form than this looks at ({type(error).__name__})."


def _results(exercise: Exercise, problems: list[str]) -> tuple[Result, ...]:
    held = any(
        c.main and not problem for c, problem in zip(exercise.criteria, problems, strict=True)
    )
    return tuple(
        Result(
            criterion.name,
            criterion.points,
            not problem,
            words,
            counts=held,
        )
        for criterion, problem, words in zip(
            exercise.criteria, problems, once(problems), strict=True
        )
    )


def _diagnoses(student: Student) -> tuple[Diagnosis, ...]:
    """Name what explains the student: known mistakes, a constant factor, then variants."""
    departed = {place for place in student.departs if place[1] != "status"}
    mistakes, explained = known_mistakes(student)
    found = [(m.name, m.says, m.seen_in) for m in mistakes]
    if departed - explained:
        words, places = factor(student)
        if places - explained:
            found.insert(0, ("a constant factor", words, ""))
            explained |= places
    if departed - explained or not found:
        clue, places = variants(student, explained)
        if clue:
            found.append((clue.name, clue.says, ""))
            explained |= places
    whole = departed <= explained
    return tuple(Diagnosis(*parts, whole) for parts in found)


def _is_constant(record: Record) -> bool:
    values = [o.fields().get("value") for o in record.values() if o.status == "returned"]
    tensors = [as_tensor(value) for value in values]
    if len(tensors) < 2 or any(tensor is None or tensor.is_complex() for tensor in tensors):
        return False
    first = tensors[0].double().flatten()[0] if tensors[0].numel() else None
    return first is not None and all(bool((t.double() == first).all()) for t in tensors)
