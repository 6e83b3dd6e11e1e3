"""What `kdgrade` keeps in the course folder, so that it can be stopped at any moment.

    .kdgrade/UNIT/outcomes/STUDENT.json    the last outcome: written whole or not at all
    .kdgrade/UNIT/entered/STUDENT.json     which outcome stands in which gradebook
    .kdgrade/UNIT/tries/STUDENT/KEY.json   the outcomes of several attempts, when the best counts
    .kdgrade/UNIT/run.json                 the hidden seeds, while a run is going on

A grade is entered after its outcome is kept, and noted as entered after that: whatever is
interrupted is done again, and doing it twice changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from grading.outcome import Outcome


class Store:
    """The outcomes of one unit in one course folder."""

    def __init__(self, root: Path, unit: str) -> None:
        self.folder = root / ".kdgrade" / unit

    def outcome(self, student: str) -> Outcome | None:
        """Give a student's last outcome; None when there is none that can be read."""
        return self._read(self._path("outcomes", student))

    def outcomes(self) -> Iterator[Outcome]:
        """Give every student's last outcome, in the order of their names."""
        for path in sorted((self.folder / "outcomes").glob("*.json")):
            if outcome := self._read(path):
                yield outcome

    def keep(self, outcome: Outcome) -> None:
        """Keep an outcome in place of the student's last one."""
        write(self._path("outcomes", outcome.student), outcome.to_json().encode())

    def keep_try(self, outcome: Outcome, attempts: int) -> None:
        """Keep an outcome in its place: the only one, or one of several attempts."""
        if attempts == 1:
            self.keep(outcome)
        else:
            write(self._path(f"tries/{outcome.student}", outcome.key), outcome.to_json().encode())

    def last(self, job: Any, attempts: int) -> Outcome | None:
        """Give the outcome of this very job, if it was done before and did not fail.

        Args:
            job: anything with the `student` and the `key` of a job.
            attempts: how many the student made that count.
        """
        if attempts > 1:
            outcome = self._read(self._path(f"tries/{job.student}", job.key))
        else:
            outcome = self.outcome(job.student)
        known = outcome is not None and outcome.key == job.key and outcome.status != "failed"
        return outcome if known else None

    def begin_run(self, context: str, exercises: Iterable[str]) -> dict[str, int]:
        """Give the seeds of the probe inputs: those of the run that was interrupted, or new ones.

        They are the same for every student of a run, and a record from anywhere else is worth
        nothing.

        Args:
            context: a hash of all that a result depends on besides the submission.
            exercises: ids.
        """
        path = self.folder / "run.json"
        names = list(exercises)
        try:
            run = json.loads(path.read_text("utf-8"))
            if run["context"] == context and sorted(run["seeds"]) == sorted(names):
                return run["seeds"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        seeds = {name: secrets.randbits(31) for name in names}
        write(path, json.dumps({"context": context, "seeds": seeds}).encode())
        return seeds

    def end_run(self) -> None:
        """Forget the seeds: the next run draws others."""
        (self.folder / "run.json").unlink(missing_ok=True)

    def note_entered(self, outcome: Outcome, gradebook: str) -> None:
        """Note that an outcome stands in a gradebook."""
        note = {"key": outcome.key, "gradebook": gradebook}
        write(self._path("entered", outcome.student), json.dumps(note).encode())

    def is_entered(self, outcome: Outcome, gradebook: str) -> bool:
        """Say whether this very outcome was noted as standing in this gradebook."""
        try:
            note = json.loads(self._path("entered", outcome.student).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return note == {"key": outcome.key, "gradebook": gradebook}

    @staticmethod
    def _read(path: Path) -> Outcome | None:
        try:
            return Outcome.from_json(path.read_text("utf-8"))
        except (OSError, ValueError, TypeError):
            return None

    def _path(self, what: str, student: str) -> Path:
        return self.folder / what / f"{student}.json"


def write(path: Path, content: bytes) -> None:
    """Write a file so that there is always either the old one or the new one, also in a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as new:
        new.write(content)
        new.flush()
        os.fsync(new.fileno())
    os.replace(new.name, path)


def digest(*parts: bytes) -> str:
    """Hash some bytes, such that no two different lists of parts have the same hash."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def code_digest() -> str:
    """Hash the code that grades: after an update of the course, everything is graded anew."""
    from grading.sandbox import INSIDE, LIBRARY

    folders = [INSIDE.parent, LIBRARY]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return digest(*(part for f in files for part in (f.name.encode(), f.read_bytes())))
