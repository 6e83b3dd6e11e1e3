"""The last cell of each notebook: is this ready to be handed in?

It runs the checks once more on what is defined in this session, and reads the notebook as it will
be handed in: the file on disk, or on Colab the notebook in the browser. It changes nothing.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdlib.notebook.tables import html_table, text_table

__all__ = ["Submission", "check_submission"]

# The line that an answer's cell is known by, here and when it is graded; it may have been edited.
ANCHOR = re.compile(r"^[ \t]*(?:#|<!--)[ \t]*answer[ \t]+(\d\d\.\w+)", re.MULTILINE)
_STUB = 'raise NotImplementedError("your answer goes here")'
_EMPTY = "Your answer goes here"
UNSEEN = (
    "Whether the file holds all answers was not seen. Save it and run this cell where you opened "
    "it, or name it: check_submission(..., file='...')."
)
_HEAD = ("question", "points", "in the notebook")


class Submission:
    """A table with a line for each question, and what is left to do. Shows itself.

    Attributes:
        rows: `(question, points, what stands in the notebook)`.
        todo: what should be done before handing in; empty when all is well.
        seen: whether the notebook itself was looked at.
    """

    def __init__(
        self, rows: list[tuple[str, str, str]], todo: list[str], source: str, seen: bool = True
    ) -> None:
        self.rows, self.todo, self.source, self.seen = rows, todo, source, seen

    def _closing(self) -> list[str]:
        ready = "Nothing is missing. You can hand it in." if self.seen else UNSEEN
        return [self.source, *([f"To do: {t}" for t in self.todo] or [ready])]

    def __str__(self) -> str:
        """Write the table as text."""
        return "\n".join([*text_table(_HEAD, self.rows), "", *self._closing()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        closing = "".join(f"<div>{html.escape(c)}</div>" for c in self._closing())
        return html_table(_HEAD, self.rows) + closing


def check_submission(
    unit: str,
    written: Sequence[str] = (),
    file: str | Path | None = None,
    namespace: Mapping[str, Any] | None = None,
) -> Submission | None:
    """Say, question by question, what would be handed in now and how many points it gets.

    Args:
        unit: such as "02_soft_targets".
        written: the ids of the unit's written answers, which a person grades.
        file: the notebook; by default the one that this cell stands in.
        namespace: where the answers are defined; by default the session.

    Returns:
        A `Submission`; None while nbgrader runs the notebook, since it grades it anyway.

    Raises:
        ValueError: there is no such unit, or the file is no notebook.
    """
    from kdlib.checks import catalogue
    from kdlib.checks.verdict import execution

    asked = [e for e in catalogue().values() if e.id.startswith(f"{unit[:2]}.")]
    if not asked and not written:
        raise ValueError(f"there is no unit {unit!r}")
    if execution():
        return None
    notebook, source = _notebook(file)
    names = _session() if namespace is None else namespace
    rows, todo, points = [], [], 0.0
    found = None if notebook is None else _answers(notebook)
    if found and not any(key.startswith(f"{unit[:2]}.") for key in found):
        todo.append(f"this is not the notebook of unit {unit}; open that one.")
    for exercise in asked:
        earned, problem = _points(exercise, names)
        points += earned or 0.0
        state, wrong = _state(exercise.id, found, "code")
        if state == "there" and _ran(exercise.id, names) not in ("", found[exercise.id][0][1]):
            state, wrong = "older than what you ran", "save, and run this cell again."
        todo += [f"{exercise.id}: {text}" for text in (wrong, problem) if text]
        shown = "-" if earned is None else f"{earned:g}"
        rows.append((exercise.id, f"{shown} of {exercise.points:g}", state))
    for name in written:
        state, wrong = _state(name, found, "markdown")
        todo += [f"{name}: {wrong}"] if wrong else []
        rows.append((name, "by a person", state))
    total = sum(e.points for e in asked)
    told = f"{points:g} of {total:g} points in this session. {source}"
    return Submission(rows, todo, told, seen=notebook is not None)


def _points(exercise: Any, names: Mapping[str, Any]) -> tuple[float | None, str]:
    """Run a check on what the session has under the exercise's name."""
    from kdlib.checks import verdict_of

    if exercise.name not in names:
        return None, "its cell has not been run in this session."
    verdict = verdict_of(exercise, names[exercise.name], 0)
    if not verdict.started:
        return 0.0, "not started."
    return verdict.points, "" if verdict.passed else "not all points yet; see its check."


def _state(name: str, found: dict | None, kind: str) -> tuple[str, str]:
    """Say what the notebook has of an answer, and what is wrong with that."""
    if found is None:
        return "not looked at", ""
    cells = found.get(name, [])
    if not cells:
        return "missing", f"no cell starts with the line 'answer {name} (keep this line)'."
    if len(cells) > 1:
        return f"{len(cells)} times", "more than one cell has its line; keep one of them."
    if cells[0][0] != kind:
        return f"a {cells[0][0]} cell", f"make its cell a {kind} cell again."
    if _STUB in cells[0][1]:
        return "empty", ""
    return ("empty", "still empty.") if _EMPTY in cells[0][1] else ("there", "")


def _ran(name: str, names: Mapping[str, Any]) -> str:
    """Give what was last run of an answer's cell in this session, or ''."""
    cells = [text for text in names.get("In", []) if name in ANCHOR.findall(text)]
    return cells[-1].rstrip("\n") if cells else ""


def _answers(notebook: dict) -> dict[str, list[tuple[str, str]]]:
    """Find the cells that carry an answer's line: id -> (kind, source)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for cell in notebook.get("cells", []):
        text = "".join(cell.get("source", ""))
        for name in dict.fromkeys(ANCHOR.findall(text)):
            kind = cell.get("cell_type", "")
            found.setdefault(name, []).append((kind, text.rstrip("\n")))
    return found


def _notebook(file: str | Path | None) -> tuple[dict | None, str]:
    """Give the notebook that this cell stands in, and say where it was read."""
    if file is None and "google.colab" in sys.modules:
        from google.colab import _message

        answer = _message.blocking_request("get_ipynb", timeout_sec=30)
        if answer and "ipynb" in answer:
            return answer["ipynb"], "The notebook was read as it stands in Colab."
    if file is None:
        file = os.environ.get("JPY_SESSION_NAME") or _session().get("__vsc_ipynb_file__")
        if not file or not os.path.exists(file):
            return None, "The file was not looked at: this session does not know it."
    path = Path(file)
    try:
        return json.loads(path.read_text(encoding="utf-8")), f"{path.name} was read as saved."
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read as a notebook: {error}") from error


def _session() -> Mapping[str, Any]:
    """Give the names of the notebook's session."""
    with contextlib.suppress(ImportError):
        from IPython import get_ipython

        shell = get_ipython()
        if shell is not None:
            return shell.user_ns
    return {}
