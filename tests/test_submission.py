"""The last cell of a notebook: what it says of answers that are there, wrong, lost or unsaved."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from grading import template
from grading.notebooks import answers, fill, released, solution, units
from kdlib.losses import kd_loss
from kdlib.notebook import Submission, check_submission
from kdlib.notebook.submission import ANCHOR

UNIT = "02_soft_targets"
WRITTEN = ("02.why_t_squared", "02.prediction")


def cell_of(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(c for c in notebook.cells if f"answer {name} (keep" in c.source)


def look(tmp_path: Path, notebook: NotebookNode, **names: object) -> Submission:
    file = tmp_path / f"{UNIT}.ipynb"
    nbformat.write(notebook, file)
    return check_submission(UNIT, WRITTEN, file, names)


@pytest.fixture
def whole() -> NotebookNode:
    return fill(UNIT, answers(solution(UNIT)))


def test_all_is_there(tmp_path: Path, whole: NotebookNode) -> None:
    said = look(tmp_path, whole, kd_loss=kd_loss)
    rows = {row[0]: row[1:] for row in said.rows}
    assert {state for _, state in rows.values()} == {"there"}
    assert rows["02.prediction"][0] == "by a person"
    assert rows["02.kd_gradient"][0] == "- of 3"
    assert "02.kd_gradient: its cell has not been run in this session." in said.todo


def test_nothing_is_left_to_do_when_a_whole_notebook_was_run(tmp_path: Path) -> None:
    """In a real kernel, with the name of the file where JupyterLab puts it."""
    unit = "00_start_here"
    notebook = fill(unit, answers(solution(unit)))
    file = tmp_path / f"{unit}.ipynb"
    nbformat.write(notebook, file)
    notebook.cells = [c for c in notebook.cells if c.cell_type == "code"]
    slow = ("evidence", "plots", "Dashboard", "knobs")
    notebook.cells = [c for c in notebook.cells if not any(word in c.source for word in slow)]
    imports = nbformat.v4.new_code_cell(
        "import os\nos.environ['JPY_SESSION_NAME'] = " + repr(str(file)) + "\n"
        "import torch\nimport torch.nn.functional as F\nfrom torch import Tensor\n"
        "from kdlib import check"
    )
    notebook.cells.insert(0, imports)
    NotebookClient(notebook, timeout=600, allow_errors=True).execute()
    (output,) = notebook.cells[-1].outputs
    assert "Nothing is missing. You can hand it in." in output.data["text/plain"]
    assert f"{unit}.ipynb was read as saved" in output.data["text/html"]


def unsaved(notebook: NotebookNode) -> dict:
    return {"kd_loss": kd_loss, "In": [cell_of(notebook, "02.kd_loss").source + "\n# newer"]}


def remove(notebook: NotebookNode) -> None:
    notebook.cells.remove(cell_of(notebook, "02.kd_loss"))


def double(notebook: NotebookNode) -> None:
    notebook.cells.append(cell_of(notebook, "02.kd_loss"))


def retype(notebook: NotebookNode) -> None:
    cell_of(notebook, "02.kd_loss").cell_type = "raw"


def empty(notebook: NotebookNode) -> None:
    untouched = cell_of(released(UNIT), "02.prediction").source
    cell_of(notebook, "02.prediction").source = untouched


@pytest.mark.parametrize(
    ("damage", "state", "says"),
    [
        (remove, "missing", "no cell starts with the line 'answer 02.kd_loss"),
        (double, "2 times", "more than one cell has its line"),
        (retype, "a raw cell", "make its cell a code cell again"),
        (empty, "empty", "02.prediction: still empty."),
    ],
)
def test_damage_is_named(
    damage: Callable, state: str, says: str, tmp_path: Path, whole: NotebookNode
) -> None:
    damage(whole)
    said = look(tmp_path, whole, kd_loss=kd_loss)
    assert state in [row[2] for row in said.rows]
    assert any(says in line for line in said.todo)


def test_an_answer_that_was_run_and_not_saved(tmp_path: Path, whole: NotebookNode) -> None:
    said = look(tmp_path, whole, **unsaved(whole))
    assert "02.kd_loss: save, and run this cell again." in said.todo


def test_a_wrong_answer_and_an_empty_one(tmp_path: Path) -> None:
    def kd_gradient(*args):
        raise NotImplementedError

    said = look(tmp_path, released(UNIT), kd_loss=lambda *a, **k: 1.0, kd_gradient=kd_gradient)
    assert "02.kd_loss: not all points yet; see its check." in said.todo
    assert "02.kd_gradient: not started." in said.todo


def test_the_notebook_of_another_unit(tmp_path: Path) -> None:
    said = look(tmp_path, released("01_divergences"))
    assert said.todo[0].startswith("this is not the notebook of unit 02")


def test_on_colab_the_notebook_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, whole: NotebookNode
) -> None:
    remove(whole)
    colab, message = types.ModuleType("google.colab"), types.ModuleType("google.colab._message")
    message.blocking_request = lambda what, timeout_sec: {"ipynb": whole} if what else None
    colab._message = message
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google.colab._message", message)
    said = check_submission(UNIT, WRITTEN, namespace={})
    assert "as it stands in Colab" in str(said)
    assert ("02.kd_loss", "- of 5", "missing") in said.rows


def test_without_a_file_the_checks_are_run_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    said = check_submission(UNIT, WRITTEN, namespace={"kd_loss": kd_loss})
    assert "this session does not know it" in str(said)
    assert all(row[2] == "not looked at" for row in said.rows)
    assert "Nothing is missing" not in str(said)


def test_an_unseen_file_is_never_called_complete() -> None:
    said = Submission([], [], "4 of 4 points in this session.", seen=False)
    assert "Nothing is missing" not in str(said) + said._repr_html_()
    assert "was not seen" in str(said)


@pytest.mark.parametrize(
    "line",
    ["# answer 02.kd_loss", "#answer 02.kd_loss (keep)", "  # answer  02.kd_loss (keep this line)"],
)
def test_an_edited_line_is_known_here_and_to_the_grader(
    line: str, tmp_path: Path, whole: NotebookNode
) -> None:
    cell = cell_of(whole, "02.kd_loss")
    cell.source = "\n" + cell.source.replace("# answer 02.kd_loss (keep this line)", line)
    said = look(tmp_path, whole, kd_loss=kd_loss)
    assert {row[0]: row[2] for row in said.rows}["02.kd_loss"] == "there"
    assert template.ANCHOR is ANCHOR


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no unit '99_nothing'"):
        check_submission("99_nothing")
    with pytest.raises(ValueError, match="cannot be read as a notebook"):
        check_submission(UNIT, file=tmp_path / "nowhere.ipynb")


def test_nothing_happens_while_nbgrader_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert check_submission(UNIT) is None


@pytest.mark.parametrize("unit", units())
def test_each_notebook_ends_with_it(unit: str) -> None:
    last = released(unit).cells[-1].source
    assert f"check_submission({unit!r}" in last
    written = [
        c.source.split("answer ")[1].split(" ")[0]
        for c in released(unit).cells
        if c.source.startswith("<!-- answer")
    ]
    assert all(repr(name) in last for name in written)
