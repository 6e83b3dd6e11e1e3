"""Ready-made criteria: values, gradients, errors, tidiness, laws.

What looks at results (`matches`, `gradients`, `facts`) is a main criterion; `rejects`, `tidy` and
`law` are side criteria, which count once a main one holds. `main` and `side` say otherwise: a value
that is zero where an idle answer gives zero, too, is a side criterion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from kdlib.checks.exercise import Criterion, Evidence, Probe
from kdlib.checks.known import departures
from kdlib.checks.record import Observation
from kdlib.checks.words import explain, show, trouble

Compare = Callable[[Probe, Observation, Observation], str | None]


def main(criterion: Criterion) -> Criterion:
    """Make a criterion a main one: no idle answer passes it."""
    return dataclasses.replace(criterion, main=True)


def side(criterion: Criterion) -> Criterion:
    """Make a criterion a side one, which counts once a main one holds."""
    return dataclasses.replace(criterion, main=False)


def _first_problem(evidence: Evidence, probes: tuple[str, ...], compare: Compare) -> str | None:
    """Say what is wrong on the first probe where something is: no result, or `compare`'s words."""
    for name in probes:
        probe, seen = evidence.probes[name], evidence.student[name]
        if problem := trouble(seen, probe) or compare(probe, seen, evidence.expected[name]):
            return problem
    return None


def matches(name: str, points: float, *probes: str, keys: tuple[str, ...] = ()) -> Criterion:
    """The answer returns what the reference returns on these probes.

    Args:
        name: of the criterion.
        points: for it.
        probes: names of probes.
        keys: only these fields of the result; all but gradients when empty.
    """

    def compare(probe: Probe, seen: Observation, expected: Observation) -> str | None:
        have, want = seen.fields(), expected.fields()
        for key in keys or [k for k in want if not k.startswith("gradient")]:
            shape_of_result = key not in have and "value" in have
            found = have["value"] if shape_of_result else have.get(key)
            if problem := explain(found, want[key], key, probe):
                return problem
        return None

    return Criterion(name, points, lambda evidence: _first_problem(evidence, probes, compare))


def gradients(name: str, points: float, *probes: str, arguments: tuple[str, ...] = ()) -> Criterion:
    """The gradient that arrives at the inputs is the reference's, on these probes.

    Args:
        name: of the criterion.
        points: for it.
        probes: names of probes.
        arguments: only the gradients of these; all that were recorded when empty.
    """

    def compare(probe: Probe, seen: Observation, expected: Observation) -> str | None:
        for argument in arguments or expected.gradients:
            want, have = expected.gradients[argument], seen.gradients.get(argument)
            if want is None:
                if have is not None and bool((have != 0).any()):
                    return (
                        f"On {probe.about}, a gradient arrives at {argument}. "
                        "It has to be a constant."
                    )
            elif problem := explain(have, want, f"gradient of {argument}", probe):
                return problem
        return None

    return Criterion(name, points, lambda evidence: _first_problem(evidence, probes, compare))


def rejects(
    name: str, points: float, *probes: str, given: Mapping[str, str] | None = None
) -> Criterion:
    """The answer raises ValueError on these probes.

    Args:
        name: of the criterion.
        points: for it.
        probes: names of probes.
        given: for some of these probes, what the message has to hold: the value that was given.
    """

    def test(evidence: Evidence) -> str | None:
        for probe in probes:
            about, seen = evidence.probes[probe], evidence.student[probe]
            if seen.status == "returned":
                return (
                    f"On {about.about}, it returns {show(seen.value)}. "
                    "Raise a ValueError that names the argument and what was given."
                )
            if seen.status != "raised":
                return trouble(seen, about)
            if seen.error_type != "ValueError":
                return (
                    f"On {about.about}, it stops with {seen.error_type}. "
                    "Raise a ValueError that names the argument and what was given."
                )
            if (text := (given or {}).get(probe, "")) not in seen.error:
                return (
                    f"On {about.about}, the message of your ValueError is {seen.error!r}. It does "
                    f"not say what was given, {text}."
                )
        return None

    return Criterion(name, points, test, main=False)


def tidy(points: float, name: str = "no side effects") -> Criterion:
    """The answer leaves everything as it was and gives the same result twice.

    What the reference leaves behind on a probe, and what the probe's `leaves` names, is allowed.
    """

    def test(evidence: Evidence) -> str | None:
        ran = False
        for name, seen in evidence.student.items():
            probe, expected = evidence.probes[name], evidence.expected[name]
            found = {key for _, key in departures(probe, seen, expected)}
            for trace in seen.traces():
                if trace in found:
                    return _untidy(trace, probe, seen)
            ran |= seen.status == "returned" and seen.value is not None
        return None if ran else "Nothing ran to the end, so there is nothing to say."

    return Criterion(name, points, test, main=False)


_TRACES = {
    "numbers": "it changes the parameters or buffers of {name}, which are the caller's.",
    "items": "it changes {name} in place; the caller still needs it as it was. Work on a copy.",
    "gradient": (
        "it leaves a gradient on {name}, in its `.grad`, to which the caller's next `backward` "
        "adds. `torch.autograd.grad` leaves none."
    ),
    "requires_grad": "it switches `requires_grad` of {name} and does not switch it back.",
    "mode": "it leaves {name} in another mode (train or eval) than it found it in.",
    "hooks": "the hooks on {name} are others afterwards than before.",
    "setting": "it changes {name} for the whole session and does not put it back.",
    "seed": (
        "it sets the seed of torch's global generator, so everything that is drawn later repeats. "
        "Draw from a `torch.Generator` of your own."
    ),
}


def _untidy(trace: str, probe: Probe, seen: Observation) -> str:
    """Say in words what a trace is."""
    if trace == "steady":
        return (
            "Called twice with the same inputs, it gives two different results. "
            "Is something drawn at random, or remembered from the first call?"
        )
    if trace == "echoes":
        return (
            "Called again with other inputs of the same sizes, it gives the first result again. "
            "Is something kept from one call to the next?"
        )
    if trace.startswith("changed "):
        return (
            f"On {probe.about}, it changes {', '.join(seen.changed)} in "
            "place; the caller still needs the old values. Operations that end in `_`, "
            "`+=` and writing into a slice change a tensor."
        )
    kind, _, name = trace.removeprefix("left ").partition(": ")
    return f"On {probe.about}, {_TRACES[kind].format(name=name)}"


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

    def shapes(probe: Probe, seen: Observation, expected: Observation) -> str | None:
        have = seen.fields()
        for key, value in expected.fields().items():
            if key.startswith("gradient") and value is None:
                continue  # that no gradient arrives there is another criterion's business
            if getattr(have.get(key), "shape", ()) != getattr(value, "shape", ()):
                return explain(have.get(key), value, key, probe)
        return None

    def guarded(evidence: Evidence) -> str | None:
        return _first_problem(evidence, probes, shapes) or test(evidence)

    return Criterion(name, points, guarded, main=False)


def facts(
    name: str,
    points: float,
    probe: str,
    *entries: tuple[str, object, str],
    unless: tuple[str, object, str] | None = None,
) -> Criterion:
    """What the probe's `run` wrote down is as it should be.

    Args:
        name: of the criterion.
        points: for it.
        probe: its name.
        *entries: a field of the result, the right value, and what to say of another one;
            `{seen}` stands for what was found.
        unless: a field, a value, and what to say when it has that value, before anything else:
            an answer that never asked the teacher cannot have asked it in the right mode.
    """

    def test(evidence: Evidence) -> str | None:
        if unless and evidence.value(probe, unless[0]) == unless[1]:
            return unless[2]
        for key, right, words in entries:
            seen = evidence.value(probe, key)
            if type(seen) is not type(right) or seen != right:
                return words.format(seen=show(seen) if not isinstance(seen, str) else seen)
        return None

    return main(law(name, points, (probe,), test))
