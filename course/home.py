"""The course's home page: the syllabus and how far its reader is, written anew at each start.

What a unit asks and shows stands in README's syllabus; its title, minutes and points in the
released notebook, which is built from the unit's source and the catalogue; what is done in the
progress record. Nothing here imports torch: this runs before JupyterLab starts.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
FILE = "home.md"
FIRST = "00_start_here"
TITLE = re.compile(r"# (\d\d) · (.+)")
MINUTES = re.compile(r"You need about (\d+) minutes")
SYLLABUS = re.compile(r"^\| (\*planned:\* [^|]+|\d\d [^|]+) \| ([^|]+) \| ([^|]*)\|$", re.MULTILINE)
PAGE = """\
# Knowledge distillation, hands on

{start}

| unit | you write | you see | minutes | your points |
|---|---|---|--:|--:|
{rows}

{total} Written answers are marked by a person and are not counted here. This page is written anew
each time the course starts; in a notebook, `Dashboard()` shows your progress at any time. It is
kept in a file on this computer and sent nowhere.
"""


@dataclass
class Unit:
    """What the home page says of one unit; `points` holds each exercise's."""

    folder: str
    title: str
    minutes: str = ""
    points: dict[str, float] = field(default_factory=dict)

    @property
    def link(self) -> str:
        """The unit's name, leading to its notebook."""
        return f"[{self.folder[:2]} · {self.title}]({self.folder}/{self.folder}.ipynb)"


def read_unit(path: Path) -> Unit:
    """Read a released notebook, also one that a student works in; a damaged one keeps its line."""
    unit = Unit(path.stem, path.stem[3:].replace("_", " "))
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                if title := TITLE.match(source):
                    unit.title = title[2].strip()
                if not unit.minutes and (minutes := MINUTES.search(source)):
                    unit.minutes = minutes[1]
            grader = cell["metadata"].get("nbgrader", {})
            if grader.get("grade") and not grader.get("solution"):
                unit.points[grader["grade_id"].replace("-", ".", 1)] = float(grader["points"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return unit


def syllabus(readme: str) -> dict[str, tuple[str, str, str]]:
    """Read README's table: the number of a unit, or of the first that is planned -> its cells."""
    rows = {}
    for cells in SYLLABUS.findall(readme):
        unit, write, see = (cell.strip() for cell in cells)
        rows[re.search(r"\d\d", unit)[0]] = unit, write, see
    return rows


def page(units: list[Unit], table: dict[str, tuple[str, str, str]], record: dict) -> str:
    """Write the page in Markdown."""
    best = {name: _number(entry.get("best")) for name, entry in record.items()}
    rows: dict[str, str] = {}
    for number, (name, write, see) in table.items():
        if name.startswith("*"):
            rows[number] = f"| {name} | {write} | {see} | | |"
    for unit in units:
        number = unit.folder[:2]
        _, write, see = table.get(number, ("", "", ""))
        mark = _of(best, unit.points)
        rows[number] = f"| {unit.link} | {write} | {see} | {unit.minutes} | {mark} |"
    everything = {name: points for unit in units for name, points in unit.points.items()}
    return PAGE.format(
        start=_start(units, best),
        rows="\n".join(rows[number] for number in sorted(rows)),
        total=f"You have {_of(best, everything)} points.",
    )


def _start(units: list[Unit], best: dict[str, float]) -> str:
    """Say where to begin, or to go on."""
    begun = any(best.get(name) for unit in units for name in unit.points)
    for unit in units:
        for name, points in unit.points.items():
            if best.get(name, 0.0) < points:
                if begun:
                    return f"**Go on with {unit.link}**, exercise `{name}`."
                return (
                    f"**Begin with {unit.link}**. It takes {unit.minutes} minutes and shows you how"
                    " a unit works: you write a few lines, run the cell, and a check answers."
                )
    return "**Every exercise of the course is done.**" if units else "There is no unit here yet."


def _of(best: dict[str, float], points: dict[str, float]) -> str:
    earned = sum(min(best.get(name, 0.0), of) for name, of in points.items())
    return f"{earned:g} of {sum(points.values()):g}" if points else ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _progress() -> ModuleType:
    """Load kdlib's progress record by its file: importing kdlib would take seconds, for torch."""
    file = ROOT / "kdlib" / "notebook" / "progress.py"
    spec = importlib.util.spec_from_file_location("progress_record", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(course: Path) -> Path:
    """Write the page into a course's notebooks/; where that is not allowed, the old one stays."""
    notebooks = course / "notebooks"
    units = [read_unit(p / f"{p.name}.ipynb") for p in sorted(notebooks.glob("[0-9][0-9]_*/"))]
    table = syllabus((ROOT / "README.md").read_text(encoding="utf-8"))
    file = notebooks / FILE
    try:
        notebooks.mkdir(exist_ok=True)
        file.write_text(page(units, table, _progress().load()), encoding="utf-8")
    except OSError as error:
        print(f"The home page could not be written: {error}")
    return file
