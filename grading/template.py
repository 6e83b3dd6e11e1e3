"""The released notebook of a unit, as that against which a submission is put right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from kdlib.notebook.submission import ANCHOR

__all__ = ["ANCHOR", "CHECK", "Slot", "Template"]

CHECK = re.compile(r"""^\s*check\(\s*["'](\d\d\.\w+)["']\s*,\s*(\w+)\s*,?\s*\)\s*;?\s*$""")


@dataclass(frozen=True)
class Slot:
    """One cell of the release, and what it is for.

    Attributes:
        cell: as it was released.
        role: "answer" (code), "written", "check", "locked" (a rubric) or "free".
        question: the exercise or written answer that it belongs to, or "".
        name: of the student's function, for an answer and its check.
    """

    cell: NotebookNode
    role: str
    question: str = ""
    name: str = ""

    @property
    def grade_id(self) -> str:
        """nbgrader's name for the cell, or ""."""
        return self.cell.metadata.get("nbgrader", {}).get("grade_id", "")


class Template:
    """A released notebook.

    Raises:
        ValueError: an autograded cell is not `check("NN.name", name)`, so that it cannot be judged
            outside the sandbox.
    """

    def __init__(self, notebook: NotebookNode, unit: str) -> None:
        self.notebook, self.unit = notebook, unit
        self.slots = [self._slot(cell) for cell in notebook.cells]

    @classmethod
    def read(cls, path: Path) -> Template:
        """Read the release of a unit; the file's name is the unit's."""
        return cls(nbformat.read(path, as_version=4), path.stem)

    @cached_property
    def numbers(self) -> frozenset[str]:
        """The two digits that the unit's questions begin with: one number, as a rule."""
        return frozenset(slot.question[:2] for slot in self.slots if slot.question)

    @cached_property
    def by_anchor(self) -> dict[str, int]:
        """Where the cell of each anchor line is."""
        places = enumerate(self.slots)
        return {s.question: n for n, s in places if s.role in ("answer", "written")}

    @cached_property
    def by_grade_id(self) -> dict[str, int]:
        """Where each of nbgrader's cells is."""
        return {slot.grade_id: n for n, slot in enumerate(self.slots) if slot.grade_id}

    @cached_property
    def by_check(self) -> dict[str, int]:
        """Where the check of each exercise is."""
        return {slot.question: n for n, slot in enumerate(self.slots) if slot.role == "check"}

    @cached_property
    def by_id(self) -> dict[str, int]:
        """Where each cell is, by its id."""
        return {slot.cell.get("id", f"#{n}"): n for n, slot in enumerate(self.slots)}

    @cached_property
    def by_source(self) -> dict[tuple[str, str], int]:
        """Where each cell is, by its kind and text."""
        return {(s.cell.cell_type, s.cell.source.strip()): n for n, s in enumerate(self.slots)}

    def _slot(self, cell: NotebookNode) -> Slot:
        known = cell.metadata.get("nbgrader", {})
        anchor = ANCHOR.search(cell.source)
        if known.get("solution"):
            question = anchor[1] if anchor else known["grade_id"]
            role = "answer" if cell.cell_type == "code" else "written"
            return Slot(cell, role, question, question.partition(".")[2])
        if known.get("grade") and cell.cell_type == "code":
            call = CHECK.match(cell.source)
            if not call:
                raise ValueError(
                    f"{self.unit}: the autograded cell {known['grade_id']} has to be "
                    f'check("NN.name", name); it is {cell.source[:80]!r}'
                )
            return Slot(cell, "check", call[1], call[2])
        return Slot(cell, "locked" if known.get("locked") else "free")
