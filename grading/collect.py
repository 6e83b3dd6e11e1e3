"""`kdgrade collect`: what was handed in becomes attempts, and the last of them `submitted/`.

.kdgrade/originals/HASH.ipynb              every file that ever came, untouched
.kdgrade/UNIT/attempts/STUDENT/NNN.json    which file was whose attempt, when, and how it was
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from nbgrader.coursedir import CourseDirectory

from grading.gradebook import CourseError, read_config
from grading.inbox import Found, find, student_id
from grading.normalise import normalise
from grading.reading import Refused, read_cells
from grading.store import digest, write
from grading.template import ANCHOR, Template


@dataclass(frozen=True)
class Received:
    """One line of the list that `kdgrade collect` prints.

    Attributes:
        status: "accepted", "repaired", "refused" or "again" (the very file was there already).
    """

    label: str
    student: str
    unit: str
    status: str
    words: str = ""
    attempt: int = 0

    def __str__(self) -> str:
        """Write the line."""
        who = " ".join(part for part in (self.student, self.unit) if part) or "?"
        number = f" (attempt {self.attempt})" if self.attempt else ""
        return f"{self.status:<9} {who}{number}: {self.words or self.label}"


class Attempts:
    """What one student handed in for one unit, in the order in which it came."""

    def __init__(self, root: Path, unit: str, student: str) -> None:
        self.originals = root / ".kdgrade" / "originals"
        self.folder = root / ".kdgrade" / unit / "attempts" / student

    def all(self) -> list[dict]:
        """Give the notes of the attempts."""
        return [json.loads(path.read_text("utf-8")) for path in sorted(self.folder.glob("*.json"))]

    def files(self) -> list[Path]:
        """Say where the files themselves lie."""
        return [self._original(note["hash"]) for note in self.all()]

    def contents(self) -> list[bytes]:
        """Give the files themselves."""
        return [path.read_bytes() for path in self.files()]

    def add(self, content: bytes, label: str, words: str, when: str) -> tuple[int, bool]:
        """Add an attempt; give its number and whether it is a new one."""
        known = {note["hash"]: number for number, note in enumerate(self.all(), 1)}
        name = digest(content)
        if name in known:
            return known[name], False
        if not self._original(name).exists():
            write(self._original(name), content)
            self._original(name).chmod(0o444)
        number = len(known) + 1
        note = {"hash": name, "from": label, "when": when, "repaired": words}
        write(self.folder / f"{number:03}.json", json.dumps(note, indent=1).encode())
        return number, True

    def _original(self, name: str) -> Path:
        return self.originals / f"{name}.ipynb"


def collect(root: Path, paths: list[Path], unit: str = "", student: str = "") -> Iterator[Received]:
    """Take in what was handed in, and yield a line for each notebook.

    Args:
        root: the course folder.
        paths: files, folders, archives.
        unit: of all of them; otherwise read off their contents and names.
        student: whose they all are; otherwise read off their names.

    Raises:
        CourseError: the course folder is not ready, or there is no such unit.
    """
    coursedir = CourseDirectory(config=read_config(root))
    templates = {path.stem: Template.read(path) for path in _released(coursedir)}
    if unit and unit not in templates:
        raise CourseError(f"There is no released unit {unit}; there are {', '.join(templates)}.")
    numbers: dict[str, str] = {}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
    for path in paths:
        for found in find(path):
            if found.number and numbers.setdefault(found.who, found.number) != found.number:
                found = replace(found, refused=f"Another person is called {found.who}, too.")
            yield _receive(root, coursedir, templates, found, unit, student_id(student), now)


def _receive(
    root: Path,
    coursedir: CourseDirectory,
    templates: dict[str, Template],
    found: Found,
    unit: str,
    student: str,
    now: str,
) -> Received:
    who = student or found.who
    try:
        if found.refused:
            raise Refused(found.refused)
        unit = unit or _unit_of(found, templates)
        if not who:
            raise Refused(
                "Whose is it? The name does not tell. Call it NAME_NN_unit.ipynb, put it into a "
                "folder with the student's name, or give --student."
            )
        repairs = normalise(found.content, templates[unit]).repairs
    except Refused as reason:
        return Received(found.label, who, unit or found.unit, "refused", str(reason))
    words = "; ".join(repairs)
    attempts = Attempts(root, unit, who)
    folder = Path(coursedir.format_path(coursedir.submitted_directory, who, unit))
    current = folder / f"{unit}.ipynb"
    if current.is_file() and not current.is_symlink():  # collected by other means before
        attempts.add(current.read_bytes(), str(current.relative_to(root)), "", now)
    number, new = attempts.add(found.content, found.label, words, now)
    last = attempts.contents()[-1]
    if not current.is_file() or current.is_symlink() or current.read_bytes() != last:
        write(current, last)
        write(folder / "timestamp.txt", now.encode())
    if not new:
        words = f"the same file as attempt {number}"
        return Received(found.label, who, unit, "again", words, number)
    return Received(found.label, who, unit, "repaired" if words else "accepted", words, number)


def _unit_of(found: Found, templates: dict[str, Template]) -> str:
    """Tell the unit from the anchor lines, else from the name."""
    if found.unit in templates:
        return found.unit
    counts: dict[str, int] = {}
    for piece in read_cells(found.content):
        for match in ANCHOR.finditer(piece.source):
            for name, template in templates.items():
                if match[1] in template.by_anchor:
                    counts[name] = counts.get(name, 0) + 1
    if not counts:
        raise Refused(
            "It is none of the course's notebooks: no line says 'answer ... (keep this line)'."
        )
    return max(counts, key=counts.__getitem__)


def _released(coursedir: CourseDirectory) -> list[Path]:
    folder = Path(coursedir.format_path(coursedir.release_directory, ".", "."))
    return sorted(path for path in folder.glob("*/*.ipynb") if path.stem == path.parent.name)
