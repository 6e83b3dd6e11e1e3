"""Who is who on the learning platform, and what could not be taken in: small files that stay.

.kdgrade/UNIT/people.json    student -> the platform, the number and the name that it gave
.kdgrade/refused.json        what `collect` refused, and why
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grading.store import write


@dataclass(frozen=True)
class Person:
    """A student as the learning platform knows them.

    Attributes:
        platform: "moodle" or "canvas".
        number: Canvas's user id; for Moodle the participant's, which is another in each assignment.
        name: as it stands in the archive.
    """

    platform: str
    number: str
    name: str


@dataclass(frozen=True)
class Refusal:
    """A file that was not taken in."""

    label: str
    student: str
    unit: str
    words: str
    when: str


def people(root: Path, unit: str) -> dict[str, Person]:
    """Give what the learning platform said of the students of a unit."""
    found = _read(root / ".kdgrade" / unit / "people.json", {})
    return {student: Person(**entry) for student, entry in found.items()}


def remember(root: Path, unit: str, student: str, person: Person) -> bool:
    """Note who somebody is; False when the name belongs to another person already."""
    known = people(root, unit)
    there = known.get(student)
    if there and (there.platform, there.number) != (person.platform, person.number):
        return False
    if there != person:
        known[student] = person
        entries = {name: asdict(entry) for name, entry in sorted(known.items())}
        write(root / ".kdgrade" / unit / "people.json", json.dumps(entries, indent=1).encode())
    return True


def refusals(root: Path, unit: str = "") -> list[Refusal]:
    """Give what was refused, of a unit or of all, and of no unit that is known."""
    found = [Refusal(**entry) for entry in _read(root / ".kdgrade" / "refused.json", [])]
    return [refusal for refusal in found if not unit or refusal.unit in (unit, "")]


def note_refusal(root: Path, refusal: Refusal) -> None:
    """Note what was refused, once for each file and reason."""
    known = refusals(root)
    same = [r for r in known if (r.label, r.words) == (refusal.label, refusal.words)]
    if not same:
        entries = [asdict(entry) for entry in (*known, refusal)]
        write(root / ".kdgrade" / "refused.json", json.dumps(entries, indent=1).encode())


def _read(path: Path, otherwise: Any) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return otherwise
