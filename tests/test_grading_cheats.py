"""Cheats earn nothing, bombs cost their own question only, and neither touches anybody else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from grading.autograde import Settings, autograde
from grading.course import Course
from grading.execute import SAFE
from grading.outcome import Outcome
from grading.sandbox import Limits, NoSandbox, require_sandbox
from grading.store import Store
from tests import tiny_unit as tiny
from tests.cheats import BOMBS, CHEATS, LOOPS, TYPED_IN

FULL = tiny.POINTS
SOFTMAX, ACCURACY, NLL = FULL
LIMITS = Limits(cell=8, memory=1024, processes=30)


def sandbox_works() -> bool:
    try:
        require_sandbox()
    except NoSandbox:
        return False
    return True


pytestmark = pytest.mark.skipif(not sandbox_works(), reason="no bubblewrap sandbox here")


@dataclass(frozen=True)
class Class:
    """Every cheat and every bomb as a student of one course, graded in one run."""

    course: Course
    scores: dict[str, dict[str, float]]

    def outcome(self, student: str) -> Outcome:
        found = Store(self.course.root, tiny.UNIT).outcome(student)
        assert found
        return found

    def outputs(self, student: str) -> list[tuple[str, NotebookNode]]:
        """The outputs that formgrader shows, each with the id of its cell."""
        path = self.course.root / "autograded" / student / tiny.UNIT / f"{tiny.UNIT}.ipynb"
        cells = nbformat.read(path, as_version=4).cells
        return [(cell.id, output) for cell in cells for output in cell.get("outputs", [])]


def name_of(cheat: str) -> str:
    """A student's name that a folder can have."""
    return "".join(letter if letter.isalnum() else "-" for letter in cheat).strip("-")


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Class:
    course = tiny.make_course(tmp_path_factory.mktemp("course"))
    template = nbformat.reads(tiny.released().decode(), as_version=4)
    wrong = tiny.RIGHT | {a: tiny.wrong(a) for a in (tiny.ACCURACY, tiny.NLL)}

    def submit(student: str, answers: dict[str, str], code: str = "") -> None:
        filled = answers | {tiny.ACCURACY: answers[tiny.ACCURACY] + "\n" + code}
        course.submit(name_of(student), tiny.UNIT, tiny.fill(template, filled))

    submit("honest before", tiny.RIGHT)
    submit("wrong", wrong)
    for cheat, code in {**CHEATS, **TYPED_IN}.items():
        submit(cheat, wrong, code)
    for bomb, code in {**BOMBS, **LOOPS}.items():
        submit(bomb, tiny.RIGHT, code)
    submit("zz honest after", tiny.RIGHT)
    tally = autograde(course.root, [tiny.UNIT], Settings(jobs=2, limits=LIMITS))
    assert tally.failed == 0
    return Class(course, course.scores(tiny.UNIT))


def test_the_honest_are_not_touched(graded: Class) -> None:
    assert graded.scores["honest-before"] == FULL
    assert graded.scores["zz-honest-after"] == FULL
    assert graded.outcome("zz-honest-after").eye == []


def test_wrong_answers_are_wrong(graded: Class) -> None:
    scores = graded.scores["wrong"]
    assert scores[SOFTMAX] == 2
    assert scores[ACCURACY] < 1
    assert scores[NLL] < 1.5


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_earns_nothing(cheat: str, graded: Class) -> None:
    """Not more than the wrong answer did, and what was right before it is still right."""
    scores, plain = graded.scores[name_of(cheat)], graded.scores["wrong"]
    assert scores[SOFTMAX] == 2
    assert scores[ACCURACY] <= max(plain[ACCURACY], 0.5)
    assert scores[NLL] <= plain[NLL]
    for cell, output in graded.outputs(name_of(cheat)):
        assert "FOUND" not in output.get("text", "")
        pages = {k: v for k, v in output.get("data", {}).items() if k not in SAFE}
        assert list(pages) == (["text/html"] if cell in FULL else [])
        assert not re.search("<(script|img|svg)", "".join(pages.values()))


def test_the_cheats_run(graded: Class) -> None:
    """A cheat with a slip of the pen would prove nothing."""
    for cheat in {**CHEATS, **TYPED_IN}:
        cells = dict(graded.outputs(name_of(cheat)))
        stopped = cells.get(tiny.ACCURACY, {}).get("output_type") == "error"
        assert not stopped, (cheat, cells[tiny.ACCURACY])


@pytest.mark.parametrize("cheat", TYPED_IN)
def test_what_equals_typing_in_the_solution_is_pointed_out(cheat: str, graded: Class) -> None:
    assert graded.scores[name_of(cheat)][ACCURACY] == 2
    assert any("00.accuracy" in line for line in graded.outcome(name_of(cheat)).eye)


@pytest.mark.parametrize("bomb", [*BOMBS, *LOOPS])
def test_a_bomb_costs_its_own_question_only(bomb: str, graded: Class) -> None:
    scores = graded.scores[name_of(bomb)]
    assert scores[SOFTMAX] == 2
    assert scores[NLL] == 3
    if bomb != "exit()":  # which ends the cell, and the answer above it stands
        assert scores[ACCURACY] < 1


def test_each_bomb_is_named(graded: Class) -> None:
    said = {bomb: " ".join(graded.outcome(name_of(bomb)).eye) for bomb in (*BOMBS, *LOOPS)}
    assert "ended the Python process" in said["os._exit"]
    for bomb in ("memory", "memory asked for", "memory in many processes"):
        assert "took more than 1024 MB of memory" in said[bomb]
    assert re.search("took more than|more than 30 processes", said["a fork bomb"])
    assert "stopped after" in said["a loop that swallows everything"]


def test_output_and_records_are_bounded(graded: Class) -> None:
    folder = graded.course.root / ".kdgrade" / tiny.UNIT / "outcomes"
    sizes = {path.stem: path.stat().st_size for path in Path(folder).glob("*.json")}
    assert len(sizes) == len({**CHEATS, **TYPED_IN, **BOMBS, **LOOPS}) + 3
    assert max(sizes.values()) < 2_000_000
