"""`kdgrade autograde`: the same grades as nbgrader's, resumable, one bad file no harm."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbgrader.api import Gradebook

from grading import __main__ as command
from grading import forkserver, pool, sandbox
from grading.autograde import Settings, autograde
from grading.course import Course
from grading.forkserver import ForkServer
from grading.gradebook import EnterOutcome
from grading.notebooks import REPOSITORY
from grading.outcome import Job, Outcome
from grading.store import Store
from tests import tiny_unit as tiny
from tests.test_grading_cheats import sandbox_works

SETTINGS = Settings(jobs=2, sandboxed=sandbox_works())
FULL = tiny.POINTS
NOISY = """
import sys, warnings
from tqdm.auto import tqdm
_answer = accuracy
def accuracy(logits, targets):
    warnings.warn("a warning")
    print("a line on stderr", file=sys.stderr)
    return [_answer(logits, targets) for _ in tqdm(range(1))][0]
"""


class Here:
    """Grades in this process, on a fork server that is kept: no worker has to start."""

    def run(self, jobs: list[Job]) -> Iterator[Outcome]:
        yield from map(pool.work, jobs)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    yield
    pool.close()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grading.autograde.LocalPool", lambda count: Here())


@pytest.fixture(scope="module")
def template() -> NotebookNode:
    return nbformat.reads(tiny.released().decode(), as_version=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return tiny.make_course(tmp_path_factory.mktemp("base"))


@pytest.fixture
def course(base: Course, tmp_path: Path) -> Course:
    """A copy of the course folder, with nothing handed in yet."""
    subprocess.run(["cp", "-a", f"{base.root}/.", tmp_path / "course"], check=True)
    return Course(tmp_path / "course")


def submit_class(course: Course, template: NotebookNode) -> dict[str, dict[str, str]]:
    """Honest submissions of every kind."""
    right = tiny.RIGHT
    students = {
        "right": right,
        "untouched": {},
        "partly": right | {tiny.NLL: right[tiny.NLL].replace(".item()", "")},
        "wrong": right | {tiny.ACCURACY: tiny.wrong(tiny.ACCURACY)},
        "error": right | {tiny.SOFTMAX: right[tiny.SOFTMAX] + "\n1 / 0"},
        "noisy": right | {tiny.ACCURACY: right[tiny.ACCURACY] + NOISY},
    }
    for student, filled in students.items():
        course.submit(student, tiny.UNIT, tiny.fill(template, filled))
    return students


def grade_states(course: Course) -> dict[str, list[tuple]]:
    """All that the gradebook says of each student's cells."""
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        return {
            submission.student.id: sorted(
                (g.name, g.auto_score, g.manual_score, g.max_score, g.needs_manual_grade)
                for notebook in submission.notebooks
                for g in notebook.grades
            )
            for submission in gradebook.assignment_submissions(tiny.UNIT)
        }


@pytest.mark.usefixtures("here")
def test_the_same_as_stock_autograde_and_feedback_that_tells_no_secret(
    course: Course, template: NotebookNode
) -> None:
    submit_class(course, template)
    course.nbgrader("autograde", tiny.UNIT)
    stock = grade_states(course)
    for name in ("gradebook.db", "autograded"):
        subprocess.run(["rm", "-r", course.root / name], check=True)
    course.nbgrader("generate_assignment", tiny.UNIT, "--force")
    tally = autograde(course.root, [tiny.UNIT], SETTINGS)
    assert (tally.graded, tally.failed) == (6, 0)
    ours = grade_states(course)
    assert ours == stock
    assert course.scores(tiny.UNIT)["right"] == FULL
    assert 0 < course.scores(tiny.UNIT)["partly"]["00-nll"] < 3
    assert {row[0]: row[4] for row in ours["right"]}["00-why"] is True

    course.nbgrader("generate_feedback", tiny.UNIT)
    page = course.feedback("wrong", tiny.UNIT).read_text("utf-8")
    text = " ".join(html.unescape(re.sub("<[^>]+>", "", page.partition("<body")[2])).split())
    assert "00.accuracy · Accuracy" in text
    assert "you return 0.25" in text
    assert "2 points: the temperature" not in text
    assert "kdlib/checks" not in text
    assert str(course.root) not in page


@pytest.mark.usefixtures("here")
def test_a_second_run_grades_only_what_changed(course: Course, template: NotebookNode) -> None:
    for student in ("ada", "bob"):
        course.submit(student, tiny.UNIT, tiny.fill(template, tiny.RIGHT))
    assert autograde(course.root, [tiny.UNIT], SETTINGS).graded == 2
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        grade = gradebook.find_grade("00-why", tiny.UNIT, tiny.UNIT, "bob")
        grade.manual_score, grade.needs_manual_grade = 1.5, False
        gradebook.db.commit()

    course.submit("ada", tiny.UNIT, tiny.fill(template, {}))
    tally = autograde(course.root, [tiny.UNIT], SETTINGS)
    assert (tally.graded, tally.unchanged) == (1, 1)
    assert course.scores(tiny.UNIT)["ada"] == dict.fromkeys(FULL, 0.0)
    assert ("00-why", None, 1.5, 2.0, False) in grade_states(course)["bob"]

    # A mark that a person gave survives being graded again.
    (course.root / "autograded" / "bob" / tiny.UNIT / f"{tiny.UNIT}.ipynb").unlink()
    assert autograde(course.root, [tiny.UNIT], SETTINGS).graded == 1
    assert ("00-why", None, 1.5, 2.0, True) in grade_states(course)["bob"]


def test_one_bad_notebook_stops_nobody(
    course: Course, template: NotebookNode, capsys: pytest.CaptureFixture
) -> None:
    course.submit("ada", tiny.UNIT, tiny.fill(template, tiny.RIGHT))
    duplicated = tiny.fill(template, tiny.RIGHT)
    duplicated.cells += [c.copy() for c in duplicated.cells if "nbgrader" in c.metadata]
    for student, content in {
        "bad": b'{"cells": [',
        "dup": json.dumps(duplicated).encode(),
        "copy": json.dumps(tiny.fill(template, tiny.RIGHT)).encode(),
    }.items():
        folder = course.root / "submitted" / student / tiny.UNIT
        folder.mkdir(parents=True)
        name = "Copy of x (1)" if student == "copy" else tiny.UNIT
        (folder / f"{name}.ipynb").write_bytes(content)
    folder = course.root / "submitted" / "link" / tiny.UNIT
    folder.mkdir(parents=True)
    (folder / f"{tiny.UNIT}.ipynb").symlink_to(course.root / "gradebook.db")

    tally = autograde(course.root, [tiny.UNIT], SETTINGS)
    assert (tally.graded, tally.refused, tally.failed) == (3, 2, 0)
    assert course.scores(tiny.UNIT) == dict.fromkeys(("ada", "copy", "dup"), FULL)
    said = capsys.readouterr()
    assert "bad: refused. The file stops in the middle" in said.out + said.err
    assert "link: refused." in said.out + said.err


@pytest.mark.usefixtures("here")
def test_what_is_half_entered_is_entered_again(
    course: Course, template: NotebookNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    course.submit("ada", tiny.UNIT, tiny.fill(template, tiny.RIGHT))

    def crash(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EnterOutcome, "write_single_notebook", crash)
        with pytest.raises(KeyboardInterrupt):
            autograde(course.root, [tiny.UNIT], SETTINGS)
    assert Store(course.root, tiny.UNIT).outcome("ada")
    tally = autograde(course.root, [tiny.UNIT], SETTINGS)
    assert (tally.graded, tally.unchanged) == (1, 0)
    assert course.scores(tiny.UNIT) == {"ada": FULL}


def test_killed_at_any_moment_it_goes_on(course: Course, template: NotebookNode) -> None:
    """With -9, after the first and the fourth outcome; nothing is lost or done twice."""
    students = submit_class(course, template)
    store = Store(course.root, tiny.UNIT)
    line = [sys.executable, "-m", "grading", "autograde", tiny.UNIT, "--jobs", "2"]
    line += [] if SETTINGS.sandboxed else ["--no-sandbox"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    seen: dict[str, int] = {}
    for enough in (1, 4):
        process = subprocess.Popen(line, cwd=course.root, env=environment, stderr=subprocess.PIPE)
        while process.poll() is None and len(list(store.outcomes())) < enough:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path in (store.folder / "outcomes").glob("*.json"):
            if path.name in seen:
                assert path.stat().st_mtime_ns == seen[path.name], "graded twice"
            seen[path.name] = path.stat().st_mtime_ns
    autograde(course.root, [tiny.UNIT], SETTINGS)
    assert set(course.scores(tiny.UNIT)) == set(students)
    assert course.scores(tiny.UNIT)["right"] == FULL
    assert all(len(rows) == 4 for rows in grade_states(course).values())
    assert autograde(course.root, [tiny.UNIT], SETTINGS).unchanged == len(students)


def test_without_a_sandbox_it_refuses_and_says_what_to_do(
    course: Course, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    sandbox.require_sandbox.cache_clear()
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    assert command.main(["--course", str(course.root), "autograde", tiny.UNIT]) == 2
    said = capsys.readouterr().err
    assert "no `bwrap`" in said
    assert "apt install bubblewrap" in said
    assert "--no-sandbox" in said
    sandbox.require_sandbox.cache_clear()


@pytest.mark.usefixtures("here")
def test_no_sandbox_grades_and_its_help_says_what_it_means(
    course: Course, template: NotebookNode, capsys: pytest.CaptureFixture
) -> None:
    course.submit("ada", tiny.UNIT, tiny.fill(template, tiny.RIGHT))
    line = ["--course", str(course.root), "autograde", tiny.UNIT, "--no-sandbox", "--jobs", "1"]
    assert command.main(line) == 0
    assert course.scores(tiny.UNIT) == {"ada": FULL}
    with pytest.raises(SystemExit):
        command.main(["autograde", "--help"])
    assert "it can read and change whatever you can" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_unit_is_named(course: Course, capsys: pytest.CaptureFixture) -> None:
    line = ["--course", str(course.root), "autograde", "77_nothing", "--no-sandbox"]
    assert command.main(line) == 1
    assert "generate_assignment 77_nothing" in capsys.readouterr().err


def test_every_student_of_a_run_gets_the_same_probes_also_when_it_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path, tiny.UNIT)
    first = store.begin_run("context", ["00.nll", "00.accuracy"])
    assert store.begin_run("context", ["00.accuracy", "00.nll"]) == first
    assert store.begin_run("another release", list(first)) != first
    store.end_run()
    assert not (store.folder / "run.json").exists()
    assert store.begin_run("context", list(first)) != first


@pytest.mark.usefixtures("here")
def test_half_a_character_in_an_error_is_entered_all_the_same(
    course: Course, template: NotebookNode
) -> None:
    lone = "# answer 00.accuracy (keep this line)\ndef accuracy(logits, targets):\n"
    lone += "    raise RuntimeError('\\udc80 half')"
    course.submit("ada", tiny.UNIT, tiny.fill(template, tiny.RIGHT | {tiny.ACCURACY: lone}))
    tally = autograde(course.root, [tiny.UNIT], SETTINGS)
    assert (tally.graded, tally.failed) == (1, 0)
    scores = course.scores(tiny.UNIT)["ada"]
    assert scores["00-nll"] == FULL["00-nll"]
    assert not (course.root / ".kdgrade" / tiny.UNIT / "run.json").exists()


@pytest.mark.usefixtures("here")
def test_a_star_import_names_what_it_took(course: Course, template: NotebookNode) -> None:
    """`sum` and `range` are torch's then; the words are for the student who wonders."""
    counted = """# answer 00.accuracy (keep this line)
def accuracy(logits, targets):
    return sum(int(logits[i].argmax()) == int(targets[i]) for i in range(len(targets))) / len(
        targets
    )"""
    notebook = tiny.fill(template, tiny.RIGHT | {tiny.ACCURACY: counted})
    notebook.cells.insert(2, nbformat.v4.new_code_cell("from torch import *"))
    course.submit("ada", tiny.UNIT, notebook)
    autograde(course.root, [tiny.UNIT], SETTINGS)
    outcome = Store(course.root, tiny.UNIT).outcome("ada")
    assert outcome
    found = outcome.verdicts["00.accuracy"]["diagnoses"]
    assert found[0] == "a name of Python's own is taken (int, range, sum)"
    assert outcome.verdicts["00.nll"]["points"] == FULL["00-nll"]


@pytest.mark.usefixtures("here")
def test_a_file_that_earns_less_than_the_one_before_is_pointed_out(
    course: Course, template: NotebookNode
) -> None:
    for filled in (tiny.RIGHT, {}):
        course.submit("ada", tiny.UNIT, tiny.fill(template, filled))
        autograde(course.root, [tiny.UNIT], SETTINGS)
    outcome = Store(course.root, tiny.UNIT).outcome("ada")
    assert outcome
    assert "the file graded before this one earned 7 points, this one 0" in outcome.eye


@pytest.mark.usefixtures("here")
def test_a_fork_server_that_is_killed_is_replaced(
    course: Course, template: NotebookNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half way through a submission, twice over different ones; nothing is lost."""
    killed = []
    ask = ForkServer.ask

    def unlucky(self: ForkServer, do: str, **arguments: str) -> dict:
        if do == "check" and len(killed) < 2 and self not in killed:
            killed.append(self)
            self.process.kill()
        return ask(self, do, **arguments)

    monkeypatch.setattr(ForkServer, "ask", unlucky)
    for student in ("ada", "bob"):
        course.submit(student, tiny.UNIT, tiny.fill(template, tiny.RIGHT))
    pool.close()
    tally = autograde(course.root, [tiny.UNIT], SETTINGS)
    assert killed
    assert tally.graded + tally.failed == 2
    autograde(course.root, [tiny.UNIT], SETTINGS)
    assert course.scores(tiny.UNIT) == {"ada": FULL, "bob": FULL}


def test_what_a_killed_process_left_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forkserver.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in ("kdg-left", "kdg-used", "kdg-new", "other"):
        (tmp_path / name / "k1").mkdir(parents=True)
    held = forkserver._locked(tmp_path / "kdg-used")
    for name in ("kdg-left", "kdg-used", "other"):
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "kdg-link").symlink_to(tmp_path / "other")
    forkserver._sweep()
    assert {p.name for p in tmp_path.iterdir()} == {"kdg-used", "kdg-new", "kdg-link", "other"}
    os.close(held)


def test_a_trial_of_the_sandbox_that_is_killed_is_no_missing_bubblewrap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def killed(program: str) -> subprocess.CompletedProcess[str]:
        tried.append(program)
        return subprocess.CompletedProcess([], -9, "", "")

    sandbox.require_sandbox.cache_clear()
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: "/usr/bin/bwrap")
    monkeypatch.setattr(sandbox, "_try_out", killed)
    with pytest.raises(sandbox.NoSandbox, match="was killed twice") as refused:
        sandbox.require_sandbox()
    assert "nstall bubblewrap" not in str(refused.value)
    assert len(tried) == 2
    sandbox.require_sandbox.cache_clear()


HONEST = {
    "another default dtype": "torch.set_default_dtype(torch.float64)",
    "no gradients": "torch.set_grad_enabled(False)",
    "the collector": "import gc\ngc.collect()  # a training signal. Not os.kill",
    "a timer": "%%time\nx = 1",
}


@pytest.mark.usefixtures("here")
def test_honest_habits_cost_nothing_and_are_not_remarked_on(
    course: Course, template: NotebookNode
) -> None:
    for number, scratch in enumerate(HONEST.values()):
        notebook = tiny.fill(template, tiny.RIGHT)
        notebook.cells.insert(2, nbformat.v4.new_code_cell(scratch))
        course.submit(f"s{number}", tiny.UNIT, notebook)
    autograde(course.root, [tiny.UNIT], SETTINGS)
    assert course.scores(tiny.UNIT) == {f"s{n}": FULL for n in range(len(HONEST))}
    assert [outcome.eye for outcome in Store(course.root, tiny.UNIT).outcomes()] == [[]] * 4
