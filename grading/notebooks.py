"""Student notebooks made from the released ones: answers filled in, left out or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from kdlib.checks import catalogue

REPOSITORY = Path(__file__).resolve().parent.parent


def units() -> list[str]:
    """Every unit that is released, in the order of the course."""
    return sorted(path.stem for path in (REPOSITORY / "notebooks").glob("*/*.ipynb"))


def released(unit: str) -> NotebookNode:
    """The student's copy of a unit, as it is released."""
    return nbformat.read(REPOSITORY / "notebooks" / unit / f"{unit}.ipynb", as_version=4)


def solution(unit: str) -> NotebookNode:
    """The executed solution of a unit."""
    return nbformat.read(REPOSITORY / "solutions" / unit / f"{unit}.ipynb", as_version=4)


def answer_cells(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """The cells that a student writes in, by grade_id."""
    marked = (cell for cell in notebook.cells if "nbgrader" in cell.metadata)
    return {
        cell.metadata.nbgrader.grade_id: cell for cell in marked if cell.metadata.nbgrader.solution
    }


def answers(notebook: NotebookNode) -> dict[str, str]:
    """What stands in the answer cells, by grade_id."""
    return {name: cell.source for name, cell in answer_cells(notebook).items()}


def exercises(unit: str) -> dict[str, str]:
    """The unit's autograded exercises: id in the catalogue -> grade_id of the answer cell."""
    cells = answer_cells(released(unit))
    found = {name: f"{name.replace('.', '-', 1)}-answer" for name in catalogue()}
    return {name: grade_id for name, grade_id in found.items() if grade_id in cells}


def fill(unit: str, filled: Mapping[str, str]) -> NotebookNode:
    """A student's notebook: the released one with these answers in it, by grade_id."""
    notebook = released(unit)
    cells = answer_cells(notebook)
    for grade_id, source in filled.items():
        cells[grade_id].source = source
    return notebook


def mistake(exercise_id: str, name: str) -> str:
    """The source of an answer cell that gives a known mistake as the answer."""
    exercise = catalogue()[exercise_id]
    if name not in [known.name for known in exercise.mistakes]:
        raise ValueError(f"{exercise_id} has no mistake {name!r}")
    return (
        f"# answer {exercise_id} (keep this line)\n"
        "from kdlib.checks import catalogue\n\n"
        f'known = {{m.name: m.answer for m in catalogue()["{exercise_id}"].mistakes}}\n'
        f"{exercise.name} = known[{name!r}]"
    )
