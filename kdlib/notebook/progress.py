"""A record of how far a student is: local, plain JSON, never sent anywhere.

The file lies in the user's data directory; `KDLIB_PROGRESS` names another path, or `off`.
"""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdlib.checks.verdict import Verdict

_HEAD = ("exercise", "what", "best", "tries", "last check")


def path() -> Path | None:
    """Where the record lies, or None when it is switched off."""
    chosen = os.environ.get("KDLIB_PROGRESS", "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_data_dir("kdlib", appauthor=False)) / "progress.json"


def load() -> dict[str, dict]:
    """Read the record: exercise id -> best, last, of, tries, diagnosis, when.

    A file that cannot be read is set aside as `progress.damaged.json`, never overwritten.
    """
    file = path()
    if file is None or not file.exists():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("not an object")
        return {k: v for k, v in record.items() if isinstance(v, dict)}
    except (ValueError, OSError):
        aside = file.with_name("progress.damaged.json")
        if not aside.exists():
            file.replace(aside)
        return {}


def save(verdict: Verdict) -> None:
    """Note the verdict. A disk that cannot be written to costs the record, never the check."""
    file = path()
    if file is None:
        return
    try:
        record = load()
        before = record.get(verdict.exercise_id, {})
        record[verdict.exercise_id] = {
            "best": max(verdict.points, float(before.get("best", 0.0))),
            "last": verdict.points,
            "of": verdict.max_points,
            "tries": int(before.get("tries", 0)) + (1 if verdict.started else 0),
            "diagnosis": verdict.diagnoses[0].name if verdict.diagnoses else "",
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, suffix=".json", delete=False, encoding="utf-8"
        ) as new:
            json.dump(record, new, indent=1, sort_keys=True)
        os.replace(new.name, file)
    except OSError:
        return


class Dashboard:
    """Exercise by exercise: points, tries, last result. Shows itself as a table."""

    def __init__(self) -> None:
        from kdlib.checks import catalogue

        self.record = load()
        self.exercises = catalogue()

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Give `(id, title, points, tries, last result)` for each exercise of the course."""
        rows = []
        for exercise in self.exercises.values():
            entry = self.record.get(exercise.id)
            if entry is None:
                rows.append((exercise.id, exercise.title, f"- / {exercise.points:g}", "", ""))
                continue
            last = float(entry.get("last", 0.0))
            result = (
                "full marks"
                if last >= exercise.points
                else entry.get("diagnosis") or ("partly right" if last else "not yet")
            )
            points = f"{float(entry.get('best', 0.0)):g} / {exercise.points:g}"
            rows.append(
                (exercise.id, exercise.title, points, str(entry.get("tries", "")), str(result))
            )
        return rows

    def total(self) -> str:
        """Give the best points of all exercises together."""
        best = sum(
            float(self.record.get(e.id, {}).get("best", 0.0)) for e in self.exercises.values()
        )
        return f"{best:g} of {sum(e.points for e in self.exercises.values()):g} points"

    def __str__(self) -> str:
        """Write the table as text."""
        from kdlib.notebook.tables import text_table

        return "\n".join([*text_table(_HEAD, self.rows()), "", self.total()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from kdlib.notebook.tables import html_table

        return f"{html_table(_HEAD, self.rows())}<p><b>{self.total()}</b></p>"
