"""From a student's record to the mistake behind it, by elimination.

A wrong answer explains the student when, wherever it departs from the reference, the student
departs in the very same way. So it is dropped at the first probe where it does anything else, and
it is tried first where the student departs: if it agrees with the reference there, it explains
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kdlib.checks import mutation
from kdlib.checks.exercise import Clue, Exercise, Mistake, Probe, Variant
from kdlib.checks.known import Known, Place, departures
from kdlib.checks.record import Record, as_tensor, same

SECONDS = 0.25  # of CPU that variants may take: a student waits for the verdict


@dataclass(frozen=True)
class Student:
    """A record to be explained.

    Attributes:
        known: what is known of the exercise at this record's seed.
        record: what was seen.
        departs: where it departs from the reference, and what is seen there.
    """

    known: Known
    record: Record
    departs: dict[Place, Any]

    @classmethod
    def of(cls, known: Known, record: Record) -> Student:
        """Compare a record with the reference's."""
        departs: dict[Place, Any] = {}
        expected = known.record(beside=record)
        for probe in known.exercise.probes:
            if record[probe.name].status != "skipped":
                departs |= departures(probe, record[probe.name], expected[probe.name])
        return cls(known, record, departs)

    def probes(self) -> tuple[list[Probe], list[Probe]]:
        """Give the probes where the student departs, and the others; the quickest first.

        Leaves out those that were not tried because an earlier one took too long.
        """
        tried = [p for p in self.known.exercise.probes if self.record[p.name].status != "skipped"]
        tried.sort(key=lambda probe: self.known.reference(probe).seconds)
        wrong = {probe for probe, _ in self.departs}
        return [p for p in tried if p.name in wrong], [p for p in tried if p.name not in wrong]

    def explained_by(self, answer: Callable, free: bool = False) -> set[Place]:
        """Give the departures that a wrong answer explains; none when it departs otherwise.

        Args:
            answer: the wrong answer.
            free: whether it may call what is sealed or forbidden, as the reference may.
        """
        found: dict[Place, Any] = {}
        wrong, right = self.probes()
        first = self.known.exercise.probes[0]
        for probe in wrong:
            again = probe is first and any(
                (first.name, trace) in self.departs for trace in ("steady", "echoes")
            )
            if not self._add(found, answer, probe, again, free):
                return set()
        if not found:
            return set()
        rest = all(self._add(found, answer, probe, free=free) for probe in right)
        return set(found) if rest else set()

    def _add(
        self,
        found: dict[Place, Any],
        answer: Callable,
        probe: Probe,
        again: bool = False,
        free: bool = False,
    ) -> bool:
        """Add the answer's departures on a probe; say whether the student departs as it does."""
        departs = self.known.departures(answer, probe, again, free)
        found |= departs
        return all(
            place in self.departs and same(self.departs[place], value, atol=probe.atol)
            for place, value in departs.items()
        )


def known_mistakes(student: Student) -> tuple[list[Mistake], set[Place]]:
    """Find the known mistakes that explain a student, and the departures that they explain.

    Those that explain most come first; one that explains nothing new is left out.
    """
    candidates = [(m, student.explained_by(m.answer)) for m in student.known.exercise.mistakes]
    candidates.sort(key=lambda pair: -len(pair[1]))
    found: list[Mistake] = []
    explained: set[Place] = set()
    for mistake, places in candidates:
        if places - explained:
            found.append(mistake)
            explained |= places
    return found, explained


def variants(
    student: Student, explained: set[Place], seconds: float = SECONDS
) -> tuple[Clue | None, set[Place]]:
    """Find what the variants that explain most of the rest have in common.

    Args:
        student: whose record it is.
        explained: departures that need no further explanation.
        seconds: of CPU after which no further variant is tried.

    Returns:
        The last clue that all those variants begin with, None when they share none; and the
        departures that they explain.
    """
    end = time.thread_time() + seconds
    telling = {place for place, value in student.departs.items() if _tells(place, value)}
    best: list[tuple[Clue, ...]] = []
    most: set[Place] = set()
    for variant in _variants(student.known.exercise):
        if time.thread_time() > end:
            break
        places = student.explained_by(variant.answer, free=True)
        if telling and not places & telling:
            continue
        gain = len(places - explained)
        if gain > len(most - explained):
            best, most = [variant.clues], places
        elif gain and places == most:
            best.append(variant.clues)
    shared = None
    for clues in zip(*best, strict=False):
        if len(set(clues)) > 1:
            break
        shared = clues[0]
    return shared, most if shared else set()


def _variants(exercise: Exercise) -> Iterator[Variant]:
    """Yield the exercise's own variants, then mutants of its reference."""
    yield from exercise.variants()
    for answer, clues in mutation.variants(exercise):
        yield Variant(answer, tuple(Clue(*clue) for clue in clues))


def _tells(place: Place, value: Any) -> bool:
    """Say whether many unlike mistakes would hardly agree there: they do in zeros and in NaN."""
    if place[1] == "status":
        return False
    numbers = as_tensor(value)
    return numbers is None or bool((numbers.isfinite() & (numbers != 0)).any())
