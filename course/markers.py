"""The source of a unit: percent cells with short markers, and what each marker becomes."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

MARKERS = ("exercise", "check", "hints", "expect", "written", "rubric")
KEPT = ("tags",)  # cell metadata that passes through
ANNOUNCE = re.compile(r"\{\{\s*([\w.]+)\s*\}\}")
BULLET = re.compile(r"^[-*] +", re.MULTILINE)
CONTRACT = re.compile(r"^ *[-*] +.*(?:\n(?! *[-*] |\n).+)*", re.MULTILINE)
CLAUSE = re.compile(r"\s*\{=\s*([^{}]*?)\s*\}")
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
BOOTSTRAP = """\
# On Colab this installs the course's library; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    %pip install --quiet "{requirement}"
"""
NO_ADDRESS = """\
# Colab cannot install the course's library yet; anywhere else this does nothing.
import sys

if "google.colab" in sys.modules:
    raise RuntimeError("the course has no public address yet: work on a machine of your own")
"""
LAST_WORDS = """\
## Before you hand in

Save the notebook, then run this cell. It runs each check again and looks at the file: is every
answer there, once, and as you ran it?"""
LAST = """\
from kdlib.notebook import check_submission

check_submission({unit!r}{written})"""
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({url})"


class SourceError(Exception):
    """A source, or what it builds, is not as it should be; the message says where and why."""


@dataclass(frozen=True)
class Project:
    """What pyproject.toml says about the course's home; `repository` is '' until it is public."""

    name: str
    version: str
    repository: str

    @classmethod
    def read(cls, root: Path) -> Project:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        repository = project.get("urls", {}).get("Repository", "")
        return cls(project["name"], project["version"], repository)

    def bootstrap(self, extras: str = "") -> str:
        if not self.repository:
            return NO_ADDRESS.rstrip()
        name = f"{self.name}[{extras}]" if extras else self.name
        requirement = f"{name} @ git+{self.repository}@v{self.version}"
        return BOOTSTRAP.format(requirement=requirement).rstrip()

    def badge(self, unit: str) -> str:
        if not self.repository:
            return ""
        owner_and_name = self.repository.removeprefix("https://github.com/")
        notebook = f"{owner_and_name}/blob/v{self.version}/notebooks/{unit}/{unit}.ipynb"
        return BADGE.format(url=f"https://colab.research.google.com/github/{notebook}")


@dataclass(frozen=True)
class Cell:
    """One cell of a source, and the line of the file on which it starts."""

    kind: str
    source: str
    metadata: dict[str, Any]
    line: int

    @property
    def marker(self) -> str:
        """The first marker on the cell, or ''."""
        return next((name for name in MARKERS if name in self.metadata), "")

    @property
    def id(self) -> str:
        """The exercise or written answer that the marker names, or ''."""
        return str(self.metadata.get(self.marker, ""))


def read(path: Path) -> list[Cell]:
    """Read a source into its cells."""
    text = path.read_text(encoding="utf-8")
    lines = [n for n, line in enumerate(text.splitlines(), 1) if re.match(r"# %%(\s|$)", line)]
    cells = jupytext.reads(text, fmt="py:percent").cells
    if len(cells) != len(lines):
        raise SourceError(f"{path}:1: there is text outside of the `# %%` cells")
    return [
        Cell(c.cell_type, c.source, dict(c.metadata), line)
        for c, line in zip(cells, lines, strict=True)
    ]


def count(number: float, noun: str) -> str:
    """Write `1 point`, `2.5 points`."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def announcements(cells: list[Cell], catalogue: dict) -> dict[str, str]:
    """Write the line that stands under the heading of each exercise and written answer."""
    said = {
        e.id: f"Difficulty {'●' * e.difficulty}{'○' * (3 - e.difficulty)}"
        f" · {count(e.minutes, 'minute')} · {count(e.points, 'point')}"
        for e in catalogue.values()
    }
    for cell in cells:
        if cell.marker == "written":
            minutes = count(float(cell.metadata.get("minutes", 0)), "minute")
            points = count(float(cell.metadata.get("points", 0)), "point")
            said[cell.id] = f"In your own words · {minutes} · {points}"
    return said


@dataclass(frozen=True)
class Clause:
    """One bullet of a contract, the criteria that it names, and its line in the file."""

    text: str
    criteria: tuple[str, ...] | None
    line: int


def contracts(cells: list[Cell]) -> dict[str, list[Clause]]:
    """Give the bullets under the announcement of each exercise, up to the answer's cell.

    A bullet ends with the criteria that test it, `{= the value; T = 0 is refused}`, or with `{= -}`
    when it asks for nothing (a hint at what to use). The builder takes these marks out.
    """
    found: dict[str, list[Clause]] = {}
    answers = {cell.id for cell in cells if cell.marker == "exercise"}
    for cell in cells:
        if cell.kind != "markdown" or cell.marker:
            continue
        *_, (name, start) = [("", 0), *((m[1], m.end()) for m in ANNOUNCE.finditer(cell.source))]
        if name not in answers:
            continue
        clauses = found.setdefault(name, [])
        for match in CONTRACT.finditer(cell.source, start):
            line = cell.line + 1 + cell.source.count("\n", 0, match.start())
            marks = CLAUSE.findall(match[0])
            named = [c.strip() for mark in marks for c in mark.split(";")]
            text = " ".join(CLAUSE.sub("", match[0]).split()).lstrip("-* ")
            clauses.append(Clause(text, tuple(named) if marks else None, line))
    return found


def hints(source: str) -> list[str]:
    """Split a hints cell into the text of its bullets."""
    _, *bullets = BULLET.split(source)
    return [re.sub(r"^ {2}", "", text.strip(), flags=re.MULTILINE) for text in bullets]


def grade_id(exercise_id: str, suffix: str = "") -> str:
    return exercise_id.replace(".", "-") + suffix


def content_id(kind: str, source: str) -> str:
    """The id of a cell that nbgrader does not know: it changes when the cell does."""
    return hashlib.sha1((kind + source).encode()).hexdigest()[:8]


def expand(unit: str, cells: list[Cell], catalogue: dict, project: Project) -> NotebookNode:
    """Make the solution notebook of a unit, not executed yet, with nbgrader's metadata."""
    said = announcements(cells, catalogue)
    points = {c.id: c.metadata.get("points", 0) for c in cells if c.marker == "written"}
    made = []
    for number, cell in enumerate(cells):
        source, nbgrader = _expand_cell(cell, catalogue, points)
        if cell.kind == "markdown":
            source = CLAUSE.sub("", ANNOUNCE.sub(lambda match: said[match[1]], source))
        if number == 0:
            title, _, rest = source.partition("\n")
            badge = project.badge(unit)
            source = f"{title}\n\n{badge}\n{rest}".rstrip() if badge else f"{title}\n{rest}"
        made.append(_cell(cell.kind, source, cell.metadata, nbgrader))
        if number == 0:
            extras = cell.metadata.get("extras", "")
            made.append(_cell("code", project.bootstrap(extras), {}, None))
    made.append(_cell("markdown", LAST_WORDS, {}, None))
    written = f", written={list(points)}" if points else ""
    made.append(_cell("code", LAST.format(unit=unit, written=written), {}, None))
    seen: dict[str, int] = {}
    for cell in made:
        seen[cell.id] = seen.get(cell.id, 0) + 1
        if seen[cell.id] > 1:
            cell.id += f"-{seen[cell.id]}"
    notebook = nbformat.v4.new_notebook(cells=made, metadata=nbformat.from_dict(NOTEBOOK_METADATA))
    notebook.nbformat_minor = 5
    nbformat.validate(notebook)
    return notebook


def _expand_cell(cell: Cell, catalogue: dict, written: dict) -> tuple[str, dict | None]:
    """Give the source of a cell in the notebook and what nbgrader has to know about it."""
    source, name = cell.source, cell.id
    if cell.marker == "exercise":
        source = f"# answer {name} (keep this line)\n{source}"
        return source, _nbgrader(grade_id(name, "-answer"), solution=True)
    if cell.marker == "check":
        return source, _nbgrader(grade_id(name), grade=True, points=catalogue[name].points)
    if cell.marker == "written":
        source = (
            f"<!-- answer {name} (keep this line) -->\n<!-- BEGIN SOLUTION -->\n"
            f"{source}\n<!-- END SOLUTION -->"
        )
        return source, _nbgrader(grade_id(name), grade=True, solution=True, points=written[name])
    if cell.marker == "rubric":
        source = (
            f"*Graded by a person · {count(written[name], 'point')}*\n\n"
            f"<!-- BEGIN MARK SCHEME -->\n{source}\n<!-- END MARK SCHEME -->"
        )
        return source, _nbgrader(grade_id(name, "-rubric"))
    if cell.marker == "hints":
        folds = hints(source)
        source = "\n\n".join(
            f"<details><summary>Hint {n} of {len(folds)}</summary>\n\n{text}\n\n</details>"
            for n, text in enumerate(folds, 1)
        )
    elif cell.marker == "expect":
        source = f"**What you should see**\n\n{source}"
    return source, None


def _nbgrader(name: str, grade: bool = False, solution: bool = False, points: float | None = None):
    """Give nbgrader's metadata (schema 3) of an answer, a check, a written answer or a rubric."""
    known = {"grade": grade, "solution": solution, "locked": not solution, "task": False}
    known |= {"grade_id": name, "schema_version": 3}
    return known if points is None else known | {"points": points}


def _cell(kind: str, source: str, metadata: dict, nbgrader: dict | None) -> NotebookNode:
    new = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    kept = {key: metadata[key] for key in KEPT if key in metadata}
    if nbgrader:
        kept["nbgrader"] = nbgrader
    name = nbgrader["grade_id"] if nbgrader else content_id(kind, source)
    return new(source=source, metadata=kept, id=name)
