"""What is known of an exercise at a seed: records of it and of wrong answers.

Records are made probe by probe when somebody asks, and kept, so that the first failing check of an
exercise costs little more than the tenth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from kdlib.checks.exercise import Exercise, Probe
from kdlib.checks.observe import observe_probe
from kdlib.checks.record import Observation, Record, same

Place = tuple[str, str]  # a probe's name, and the name of what was seen there


class ReferenceFailed(RuntimeError):
    """The reference itself cannot run in this process any more."""


class Known:
    """Observations of the reference and of wrong answers on one exercise's probes.

    Args:
        exercise: whose probes and reference these are.
        seed: of the probe inputs.
    """

    def __init__(self, exercise: Exercise, seed: int) -> None:
        self.exercise, self.seed = exercise, seed
        self._seen: dict[tuple[Callable, str, bool], Observation] = {}

    def reference(self, probe: Probe, again: bool = False) -> Observation:
        """Give the reference's observation on a probe.

        Raises:
            ReferenceFailed: it does not return there and does not refuse with a ValueError either.
        """
        answer = self.exercise.reference
        key = (answer, probe.name, again)
        if key not in self._seen:
            seen = observe_probe(self.exercise, probe, answer, self.seed, True, again)
            if seen.status != "returned" and seen.error_type != "ValueError":
                raise ReferenceFailed(f"{seen.status} {seen.error_type} {seen.error}".strip())
            self._seen[key] = seen
        return self._seen[key]

    def record(self, beside: Record) -> Record:
        """Give the reference's record on all probes, to be compared with another one."""
        return {p.name: self.reference(p, beside[p.name].echoes) for p in self.exercise.probes}

    def departures(
        self, answer: Callable, probe: Probe, again: bool = False, free: bool = False
    ) -> dict[Place, Any]:
        """Say where a wrong answer departs from the reference, and what is seen there.

        Args:
            answer: the wrong answer.
            probe: where to look.
            again: whether it is called a second time.
            free: whether it may call what is sealed or forbidden, as the reference may.
        """
        key = (answer, probe.name, again)
        if key not in self._seen:
            self._seen[key] = observe_probe(self.exercise, probe, answer, self.seed, free, again)
        seen = self._seen[key]
        return departures(probe, seen, self.reference(probe, seen.echoes))


@functools.lru_cache(maxsize=256)
def known(exercise: Exercise, seed: int) -> Known:
    """Give what is known of an exercise at a seed; the least recently used are dropped."""
    return Known(exercise, seed)


def departures(probe: Probe, seen: Observation, expected: Observation) -> dict[Place, Any]:
    """Say where one observation differs from another, and what is seen there.

    That other inputs give the same result is remarkable only where the result is right.
    """
    want = expected.everything()
    found = {
        (probe.name, key): value
        for key, value in seen.everything().items()
        if key not in want or not same(value, want[key], atol=probe.atol)
    }
    if len(found) > 1:
        found.pop((probe.name, "echoes"), None)
    return found
