"""A unit with three exercises and one written answer, for the tests of grading."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

from nbformat import NotebookNode

from course.markers import Cell, Project, expand
from course.release import release
from grading.course import Course
from grading.notebooks import REPOSITORY, answer_cells
from kdlib.checks import catalogue

UNIT = "90_tiny"
POINTS = {"00-softmax_with_temperature": 2.0, "00-accuracy": 2.0, "00-nll": 3.0}
SOFTMAX, ACCURACY, NLL = (f"{name}-answer" for name in POINTS)
WHY = "00-why"
RIGHT = {
    SOFTMAX: """# answer 00.softmax_with_temperature (keep this line)
def softmax_with_temperature(logits, temperature=1.0):
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return (logits / temperature).softmax(-1)""",
    ACCURACY: """# answer 00.accuracy (keep this line)
def accuracy(logits, targets):
    return (logits.argmax(-1) == targets).float().mean().item()""",
    NLL: """# answer 00.nll (keep this line)
def nll(logits, targets):
    return F.cross_entropy(logits, targets).item()""",
    WHY: "<!-- answer 00.why (keep this line) -->\nBecause of the temperature.",
}
SOURCE = [
    ("markdown", "# 90 · Tiny", {}),
    ("code", "import torch\nimport torch.nn.functional as F\n\nfrom kdlib import check", {}),
    ("markdown", "## 90.1 Softmax\n\n<details><summary>more</summary>text</details>", {}),
    *(
        cell
        for answer in (SOFTMAX, ACCURACY, NLL)
        for name in ["00." + answer.removeprefix("00-").removesuffix("-answer")]
        for cell in (
            ("code", RIGHT[answer].partition("\n")[2], {"exercise": name}),
            ("code", f'check("{name}", {name[3:]})', {"check": name}),
        )
    ),
    ("code", "print(accuracy(torch.eye(3), torch.arange(3)))", {}),
    ("markdown", "## 90.2 Why\n\nWhy?", {}),
    ("markdown", "A model answer.", {"written": "00.why", "points": 2, "minutes": 2}),
    ("markdown", "- 2 points: the temperature", {"rubric": "00.why"}),
]


def _stubbed(kind: str, source: str, metadata: dict) -> str:
    if "exercise" not in metadata:
        return source
    head, _, body = source.partition("\n")
    return f"{head}\n    ### BEGIN SOLUTION\n{body}\n    ### END SOLUTION"


def solution() -> NotebookNode:
    """The solution notebook, not executed."""
    cells = [Cell(k, _stubbed(k, s, m), dict(m), n) for n, (k, s, m) in enumerate(SOURCE)]
    return expand(UNIT, cells, catalogue(), Project.read(REPOSITORY))


def released() -> bytes:
    """The released notebook, made by nbgrader."""
    return release(UNIT, solution(), REPOSITORY / "nbgrader_config.py")


def fill(template: NotebookNode, filled: dict[str, str]) -> NotebookNode:
    """A student's notebook: a copy of the release with these answers in it."""
    notebook = copy.deepcopy(template)
    for name, cell in answer_cells(notebook).items():
        cell.source = filled.get(name, cell.source)
    return notebook


def wrong(answer: str) -> str:
    """An answer that runs and is not right."""
    head, signature, *_ = RIGHT[answer].splitlines()
    return f"{head}\n{signature}\n    return torch.zeros(()) + 0.25"


def make_course(root: Path) -> Course:
    """A course folder with this one unit, in its gradebook."""
    course = Course(root)
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "nbgrader_config.py", root)
    path = root / "solutions" / UNIT / f"{UNIT}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(solution()))
    course.nbgrader("generate_assignment", UNIT)
    return course
