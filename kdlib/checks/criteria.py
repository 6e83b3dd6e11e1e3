"""Ready-made criteria: values, gradients, errors, tidiness, laws."""

from __future__ import annotations

from collections.abc import Callable

from kdlib.checks.exercise import Criterion, Evidence
from kdlib.checks.words import explain, show, trouble

SECONDS = 2.0


def matches(name: str, points: float, *probes: str, keys: tuple[str, ...] = ()) -> Criterion:
    """The answer returns what the reference returns on these probes.

    Args:
        name: of the criterion.
        points: for it.
        probes: names of probes.
        keys: only these fields of the result; all but gradients when empty.
    """

    def test(evidence: Evidence) -> str | None:
        for probe in probes:
            about, seen = evidence.probes[probe], evidence.student[probe]
            if problem := trouble(seen, about, SECONDS):
                return problem
            have, want = seen.fields(), evidence.expected[probe].fields()
            for key in keys or [k for k in want if not k.startswith("gradient")]:
                shape_of_result = key not in have and "value" in have
                found = have["value"] if shape_of_result else have.get(key)
                if problem := explain(found, want[key], key, about):
                    return problem
        return None

    return Criterion(name, points, test)


def gradients(name: str, points: float, *probes: str, arguments: tuple[str, ...] = ()) -> Criterion:
    """The gradient that arrives at the inputs is the reference's, on these probes.

    Args:
        name: of the criterion.
        points: for it.
        probes: names of probes.
        arguments: only the gradients of these; all that were recorded when empty.
    """

    def test(evidence: Evidence) -> str | None:
        for probe in probes:
            about, seen = evidence.probes[probe], evidence.student[probe]
            if problem := trouble(seen, about, SECONDS):
                return problem
            want = evidence.expected[probe].gradients
            for argument in arguments or want:
                gradient = want[argument]
                have = seen.gradients.get(argument)
                if gradient is None:
                    if have is not None and bool((have != 0).any()):
                        return (
                            f"On {about.about}, a gradient arrives at {argument}. "
                            "It has to be a constant."
                        )
                elif problem := explain(have, gradient, f"gradient of {argument}", about):
                    return problem
        return None

    return Criterion(name, points, test)


def rejects(name: str, points: float, *probes: str) -> Criterion:
    """The answer raises ValueError on these probes."""

    def test(evidence: Evidence) -> str | None:
        for probe in probes:
            about, seen = evidence.probes[probe], evidence.student[probe]
            if seen.status == "returned":
                return (
                    f"On {about.about}, it returns {show(seen.value)}. "
                    "Raise a ValueError that names the argument and what was given."
                )
            if seen.status != "raised":
                return trouble(seen, about, SECONDS)
            if seen.error_type != "ValueError":
                return (
                    f"On {about.about}, it stops with {seen.error_type}. "
                    "Raise a ValueError that names the argument and what was given."
                )
        return None

    return Criterion(name, points, test)


def tidy(points: float, name: str = "no side effects") -> Criterion:
    """The answer leaves its inputs as they were and gives the same result twice."""

    def test(evidence: Evidence) -> str | None:
        ran = False
        for probe, seen in evidence.student.items():
            if seen.changed:
                return (
                    f"On {evidence.probes[probe].about}, it changes {', '.join(seen.changed)} in "
                    "place; the caller still needs the old values. Operations that end in `_`, "
                    "`+=` and writing into a slice change a tensor."
                )
            if not seen.steady:
                return (
                    "Called twice with the same inputs, it gives two different results. "
                    "Is something drawn at random, or remembered from the first call?"
                )
            ran |= seen.status == "returned" and seen.value is not None
        return None if ran else "Nothing ran to the end, so there is nothing to say."

    return Criterion(name, points, test)


def law(
    name: str, points: float, probes: tuple[str, ...], test: Callable[[Evidence], str | None]
) -> Criterion:
    """A law that a right answer obeys, stated on the student's own numbers.

    Args:
        name: of the criterion.
        points: for it.
        probes: those that `test` looks at; each must have returned something of the right form.
        test: returns None when the law holds, else how the student's numbers break it.
    """

    def guarded(evidence: Evidence) -> str | None:
        for probe in probes:
            about, seen = evidence.probes[probe], evidence.student[probe]
            if problem := trouble(seen, about, SECONDS):
                return problem
            have, want = seen.fields(), evidence.expected[probe].fields()
            for key, value in want.items():
                if getattr(have.get(key), "shape", ()) != getattr(value, "shape", ()):
                    return explain(have.get(key), value, key, about)
        return test(evidence)

    return Criterion(name, points, guarded)
