"""The release, proved through nbgrader: what is right gets its points, and nothing else does."""

from __future__ import annotations

import csv
import html
import inspect
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from traitlets.config.loader import PyFileConfigLoader

from grading.autograde import Settings, autograde
from grading.course import Course
from grading.notebooks import (
    REPOSITORY,
    answers,
    exercises,
    fill,
    mistake,
    released,
    solution,
    units,
)
from kdlib.checks import catalogue
from tests.test_grading_cheats import sandbox_works

SHORT = units()[0] if units() else ""
NOISE = """

def noisy(function):
    import functools, sys, warnings
    from tqdm.auto import tqdm

    calls = []

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        calls.append(1)
        if len(calls) > 100:  # an experiment may call it thousands of times
            return function(*args, **kwargs)
        warnings.warn("a warning from the student's code")
        print("a line on stderr", file=sys.stderr)
        return [function(*args, **kwargs) for _ in tqdm(range(1))][0]

    return wrapper

{name} = noisy({name})
"""


@dataclass(frozen=True)
class Graded:
    """A unit whose invented students have been through autograde and generate_feedback."""

    unit: str
    course: Course
    scores: dict[str, dict[str, float]]
    points: dict[str, float]  # of the released test cells

    def feedback(self, student: str) -> str:
        """A student's feedback page, as text."""
        page = self.course.feedback(student, self.unit).read_text("utf-8")
        body = page.partition("<body")[2]
        return html.unescape(re.sub(r"<[^>]+>", "", body))


def spoken(exercise_id: str) -> str:
    """How the diagnosis of an exercise's first known mistake begins, as plain text."""
    return " ".join(catalogue()[exercise_id].mistakes[0].says.replace("`", "").split())[:60]


def grade_id(exercise_id: str) -> str:
    """The test cell of an exercise."""
    return exercise_id.replace(".", "-", 1)


def slips(unit: str) -> dict[str, dict[str, str]]:
    """Three students: each exercise is missing from one, mistaken by one, right with one."""
    states = ("missing", "mistaken", "right")
    return {
        f"slips-{number}": {
            name: states[(place + number) % 3] for place, name in enumerate(exercises(unit))
        }
        for number in range(3)
    }


def slipped(right: dict[str, str], ids: dict[str, str], states: dict[str, str]) -> dict[str, str]:
    """What such a student hands in: answer cell -> source."""
    filled = dict(right)
    for name, cell in ids.items():
        if states[name] == "missing":
            del filled[cell]
        elif states[name] == "mistaken":
            filled[cell] = mistake(name, catalogue()[name].mistakes[0].name)
    return filled


def released_points(unit: str) -> dict[str, float]:
    """The points of the autograded cells, as released."""
    marked = [cell.metadata.get("nbgrader", {}) for cell in released(unit).cells]
    return {m.grade_id: m.points for m in marked if m.get("grade") and not m.get("solution")}


@pytest.fixture(scope="module", params=units())
def graded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graded:
    """Through `nbgrader autograde` the first unit, and all with --stock; else through kdgrade."""
    unit = request.param
    right, ids = answers(solution(unit)), exercises(unit)
    students = {"perfect": right, "untouched": {}}
    students |= {student: slipped(right, ids, states) for student, states in slips(unit).items()}
    stock = unit == SHORT or request.config.option.stock
    if stock:
        students["noisy"] = right | {
            cell: right[cell] + NOISE.format(name=catalogue()[name].name)
            for name, cell in ids.items()
            if inspect.isfunction(catalogue()[name].reference)
        }
    course = Course.create(tmp_path_factory.mktemp("course"), [unit])
    for student, filled in students.items():
        course.submit(student, unit, fill(unit, filled))
    if stock:
        course.nbgrader("autograde", unit)
    else:
        autograde(course.root, [unit], Settings(jobs=1, sandboxed=sandbox_works()))
    course.nbgrader("generate_feedback", unit)
    return Graded(unit, course, course.scores(unit), released_points(unit))


def test_points_in_the_release_are_the_catalogues(graded: Graded) -> None:
    assert graded.points == {
        grade_id(name): catalogue()[name].points for name in exercises(graded.unit)
    }


def test_the_solution_earns_everything(graded: Graded) -> None:
    assert graded.scores["perfect"] == graded.points


def test_the_untouched_release_earns_nothing(graded: Graded) -> None:
    assert graded.scores["untouched"] == dict.fromkeys(graded.points, 0.0)


def test_each_slip_loses_its_own_points_and_no_others(graded: Graded) -> None:
    for student, states in slips(graded.unit).items():
        for name, state in states.items():
            earned, most = graded.scores[student][grade_id(name)], graded.points[grade_id(name)]
            if state == "missing":
                assert earned == 0, name
            elif state == "mistaken":
                assert earned < most, name
            else:
                assert earned == most, name


def test_noise_on_stderr_costs_nothing(graded: Graded) -> None:
    if "noisy" not in graded.scores:
        pytest.skip("with --stock")
    assert graded.scores["noisy"] == graded.points


def test_feedback_says_which_mistake_it_is(graded: Graded) -> None:
    for student, states in slips(graded.unit).items():
        page = " ".join(graded.feedback(student).split())
        for name in (n for n, state in states.items() if state == "mistaken"):
            assert spoken(name) in page, name


def test_feedback_gives_no_solution_away(graded: Graded) -> None:
    """No line of a reference or of the solution, unless the student's own notebook has it."""
    shown = "\n".join(cell.source for cell in released(graded.unit).cells)
    right = answers(solution(graded.unit))
    for name, cell in exercises(graded.unit).items():
        sources = (right[cell], inspect.getsource(catalogue()[name].reference))
        others = "\n".join(source for other, source in right.items() if other != cell)
        secret = {line.strip() for source in sources for line in source.splitlines()}
        secret = {x for x in secret if len(x) > 20 and x not in shown and x not in others}
        assert secret, name
        students = [s for s, states in slips(graded.unit).items() if states[name] != "right"]
        pages = "".join(map(graded.feedback, ["untouched", *students]))
        assert [line for line in sorted(secret) if line in pages] == [], name
    assert "HIDDEN TESTS" not in pages


# ---------------------------------------------------------------- the ways in and out


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return Course.create(tmp_path / "course", [SHORT])


def course_id() -> str:
    config = PyFileConfigLoader("nbgrader_config.py", path=str(REPOSITORY)).load_config()
    return config.CourseDirectory.course_id


def test_local_exchange_from_release_to_collect(course: Course, tmp_path: Path) -> None:
    (tmp_path / "exchange").mkdir(mode=0o777)
    (tmp_path / "exchange").chmod(0o777)
    home = tmp_path / "home"
    home.mkdir()
    exchange = [
        f"--Exchange.root={tmp_path / 'exchange'}",
        f"--Exchange.cache={tmp_path / 'cache'}",
        f"--CourseDirectory.course_id={course_id()}",
    ]
    course.nbgrader("release_assignment", SHORT, *exchange)
    course.nbgrader("fetch_assignment", SHORT, *exchange, cwd=home)
    fetched = home / SHORT / f"{SHORT}.ipynb"
    assert answers(nbformat.read(fetched, as_version=4)) == answers(released(SHORT))
    nbformat.write(fill(SHORT, answers(solution(SHORT))), fetched)
    course.nbgrader("submit", SHORT, *exchange, cwd=home)
    course.nbgrader("collect", SHORT, *exchange)
    (collected,) = (course.root / "submitted").glob(f"*/{SHORT}/{SHORT}.ipynb")
    assert answers(nbformat.read(collected, as_version=4)) == answers(solution(SHORT))


def test_zip_collect_and_export(course: Course) -> None:
    archive = course.root / "downloaded" / SHORT / "archive"
    archive.mkdir(parents=True)
    students = {"ada": answers(solution(SHORT)), "bob": {}}
    with zipfile.ZipFile(archive / "submissions.zip", "w") as file:
        for student, filled in students.items():
            text = nbformat.writes(fill(SHORT, filled))
            file.writestr(f"{student}_{SHORT}.ipynb", text)
    course.nbgrader("zip_collect", SHORT)
    course.nbgrader("autograde", SHORT)
    course.nbgrader("export", "--to", "grades.csv")
    with (course.root / "grades.csv").open(newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    total = sum(released_points(SHORT).values())
    assert {name: float(row["score"]) for name, row in rows.items()} == {"ada": total, "bob": 0}


def test_validate_says_success_or_what_is_wrong(tmp_path: Path) -> None:
    course = Course(tmp_path)
    name, cell = next(iter(exercises(SHORT).items()))
    right = answers(solution(SHORT))
    wrong = right | {cell: mistake(name, catalogue()[name].mistakes[0].name)}
    noisy = right | {cell: right[cell] + NOISE.format(name=catalogue()[name].name)}
    nbformat.write(fill(SHORT, right), tmp_path / "right.ipynb")
    nbformat.write(fill(SHORT, noisy), tmp_path / "noisy.ipynb")
    nbformat.write(fill(SHORT, wrong), tmp_path / "wrong.ipynb")
    for notebook in ("right.ipynb", "noisy.ipynb"):
        said = course.nbgrader("validate", notebook)
        assert "Success! Your notebook passes all the tests." in said
        assert "WARNING | Cell output" not in said
    said = course.nbgrader("validate", "wrong.ipynb", fails=True)
    assert "The following cell failed" in said
    assert spoken(name) in " ".join(said.split())
    assert "kdlib/checks/" not in said
