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

from grading import register
from grading.gradebook import UnknownUnit, read_config
from grading.inbox import Found, find, people, student_id
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

    def add(
        self, content: bytes, label: str, words: str, when: str, answered: int = 0
    ) -> tuple[int, bool]:
        """Add an attempt; give its number and whether it is a new one.

        Args:
            content: the file.
            label: where it was.
            words: what had to be put right.
            when: it came.
            answered: how many questions it answers.
        """
        known = {note["hash"]: number for number, note in enumerate(self.all(), 1)}
        name = digest(content)
        if name in known:
            return known[name], False
        if not self._original(name).exists():
            write(self._original(name), content)
            self._original(name).chmod(0o444)
        number = len(known) + 1
        note = {"hash": name, "from": label, "when": when, "repaired": words}
        note["answered"] = answered
        write(self.folder / f"{number:03}.json", json.dumps(note, indent=1).encode())
        return number, True

    def worse(self) -> str:
        """Say that the last attempt answers fewer questions than one before it, or ""."""
        counts = [note.get("answered", 0) for note in self.all()]
        most = max(counts, default=0)
        if not counts or counts[-1] == most:
            return ""
        better = f"attempt {counts.index(most) + 1} answered {most}"
        return f"attempt {len(counts)} answers {counts[-1]} questions, {better}"

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
        CourseError: the course folder is not ready.
        UnknownUnit: there is no such unit.
    """
    coursedir = CourseDirectory(config=read_config(root))
    templates = {path.stem: Template.read(path) for path in released(coursedir)}
    if not templates:
        raise UnknownUnit(
            f"No unit was generated in {coursedir.release_directory}/ yet: run `nbgrader "
            "generate_assignment UNIT` first."
        )
    if unit and unit not in templates:
        raise UnknownUnit(f"There is no released unit {unit}; there are {', '.join(templates)}.")
    known = _known(root, coursedir, templates).union(*map(people, paths))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
    for path in paths:
        for found in find(path):
            who = student_id(student) or found.who
            if not student and found.guess.other in known - {who}:
                words = f"The folder and the file's name say {who} and {found.guess.other}, and "
                words += "both are students. Take it in by itself, with --student."
                found = replace(found, refused=found.refused or words)
            received = _receive(root, coursedir, templates, found, unit, who, now)
            if received.status == "refused":
                about = (received.label, received.student, received.unit, received.words)
                register.note_refusal(root, register.Refusal(*about, now))
            yield received


def _known(root: Path, coursedir: CourseDirectory, templates: dict[str, Template]) -> set[str]:
    """Who handed something in before."""
    pattern = coursedir.format_path(coursedir.submitted_directory, "*", "*")
    folders = [Path(pattern.partition("*")[0])]
    folders += [root / ".kdgrade" / unit / "attempts" for unit in templates]
    return {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}


def _receive(
    root: Path,
    coursedir: CourseDirectory,
    templates: dict[str, Template],
    found: Found,
    unit: str,
    who: str,
    now: str,
) -> Received:
    told = found.guess
    try:
        if found.refused:
            raise Refused(found.refused)
        unit = unit or _unit_of(found, templates)
        if not who:
            raise Refused(
                "Whose is it? The name does not tell. Call it NAME_NN_unit.ipynb, put it into a "
                "folder with the student's name, or give --student."
            )
        made = normalise(found.content, templates[unit])
        person = register.Person(told.platform, told.number, told.name)
        if told.platform and not register.remember(root, unit, who, person):
            raise Refused(f"Another person is called {who}, too; give --student.")
    except Refused as reason:
        return Received(found.label, who, unit or found.unit, "refused", str(reason))
    words = "; ".join(made.repairs)
    answered = sum(
        slot.role in ("answer", "written") and name not in made.released
        for name, slot in made.slots.items()
    )
    attempts = Attempts(root, unit, who)
    folder = Path(coursedir.format_path(coursedir.submitted_directory, who, unit))
    current = folder / f"{unit}.ipynb"
    if current.is_file() and not current.is_symlink():  # collected by other means before
        attempts.add(current.read_bytes(), str(current.relative_to(root)), "", now)
    number, new = attempts.add(found.content, found.label, words, now, answered)
    last = attempts.contents()[-1]
    if not current.is_file() or current.is_symlink() or current.read_bytes() != last:
        write(current, last)
        write(folder / "timestamp.txt", now.encode())
    if not new:
        words = f"the same file as attempt {number}"
        return Received(found.label, who, unit, "again", words, number)
    status = "repaired" if words else "accepted"
    words = "; ".join(filter(None, (words, attempts.worse())))
    return Received(found.label, who, unit, status, words, number)


def _unit_of(found: Found, templates: dict[str, Template]) -> str:
    """Tell the unit from the anchor lines, else from the name."""
    if found.unit in templates:
        return found.unit
    counts: dict[str, int] = {}
    others: dict[str, int] = {}
    for piece in read_cells(found.content):
        for match in ANCHOR.finditer(piece.source):
            name = next((n for n, t in templates.items() if match[1] in t.by_anchor), "")
            tally, key = (counts, name) if name else (others, match[1][:2])
            tally[key] = tally.get(key, 0) + 1
    if not counts and (others or found.unit):
        other = found.unit or f"unit {max(others, key=others.__getitem__)}"
        raise Refused(
            f"It is the notebook of {other}, which was not generated here yet: run `nbgrader "
            f"generate_assignment` for it first. There are {', '.join(templates)}."
        )
    if not counts:
        raise Refused(
            "It is none of the course's notebooks: no line says 'answer ... (keep this line)'."
        )
    return max(counts, key=counts.__getitem__)


def released(coursedir: CourseDirectory) -> list[Path]:
    """Find the released notebook of each unit."""
    folder = Path(coursedir.format_path(coursedir.release_directory, ".", "."))
    return sorted(path for path in folder.glob("*/*.ipynb") if path.stem == path.parent.name)
