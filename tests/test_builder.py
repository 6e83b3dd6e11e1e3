"""The builder, on one small unit and a made-up catalogue in a temporary course folder."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest

from course.__main__ import main
from course.build import MAX_BYTES, lean, without_outputs
from course.lint import MAX_FLOATS, clause_table, fragile, lint
from course.markers import Project, SourceError, expand, read
from course.publish import URLS, readme
from grading.course import Course
from kdlib.checks.judge import judge
from kdlib.checks.observe import observe

REPOSITORY = Path(__file__).resolve().parents[1]
UNIT = "07_doubling"
SOURCE = REPOSITORY / "tests" / "fixtures" / f"{UNIT}.py"
DOUBLE = SimpleNamespace(
    id="07.double",
    points=2.0,
    minutes=5,
    difficulty=1,
    mistakes=("thrice",),
    criteria=tuple(SimpleNamespace(name=n) for n in ("the value", "no side effects")),
)
CATALOGUE = {DOUBLE.id: DOUBLE}
ADDRESS = "https://github.com/a/b"


def run(root: Path, *arguments: str) -> None:
    main(list(arguments), root, CATALOGUE)


def files(root: Path) -> dict[str, bytes]:
    found = (p for side in ("solutions", "notebooks") for p in (root / side).rglob("*"))
    return {str(p.relative_to(root)): p.read_bytes() for p in found if p.is_file()}


def released(root: Path) -> Path:
    return root / "notebooks" / UNIT / f"{UNIT}.ipynb"


def solved(root: Path) -> Path:
    return root / "solutions" / UNIT / f"{UNIT}.ipynb"


def cells(path: Path) -> dict[str, nbformat.NotebookNode]:
    return {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def answer(path: Path, name: str, source: str) -> None:
    """Write into one cell of a released notebook, as a student does."""
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.id == name).source = source
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    (root / "solutions").mkdir()
    shutil.copy(SOURCE, root / "solutions")
    shutil.copy(REPOSITORY / "nbgrader_config.py", root)
    for name in ("pyproject.toml", "README.md"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        text = readme(URLS.sub("[project.urls]\n", text), Project("", "", ""))
        (root / name).write_text(text, encoding="utf-8")
    run(root, "build")
    return root


@pytest.fixture
def built(once: Path, tmp_path: Path) -> Path:
    """A course folder of the test's own in which the unit is built."""
    return Path(shutil.copytree(once, tmp_path / "course"))


# ---------------------------------------------------------------- what is built


def test_the_solution_is_executed_and_lean(once: Path) -> None:
    notebook = nbformat.read(solved(once), as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {key for cell in notebook.cells for key in cell.metadata} == {"nbgrader", "tags"}
    outputs = [output for cell in code for output in cell.outputs]
    assert [(o.output_type, o.get("name")) for o in outputs] == [
        ("execute_result", None),
        ("stream", "stdout"),
        ("execute_result", None),  # the cell that looks at the submission
    ]
    assert outputs[1].text == "6\n8\n"  # two prints with a line on stderr between them


def test_points_come_from_the_catalogue(once: Path) -> None:
    check, why = cells(released(once))["07-double"], cells(released(once))["07-why"]
    assert (check.metadata.nbgrader.points, why.metadata.nbgrader.points) == (DOUBLE.points, 2)
    text = released(once).read_text(encoding="utf-8")
    assert "Difficulty ●○○ · 5 minutes · 2 points" in text
    assert "In your own words · 5 minutes · 2 points" in text


def test_the_release_holds_no_answer(once: Path) -> None:
    text = released(once).read_text(encoding="utf-8")
    for secret in ("return 2 * x", "Because x + x", "the sum; 1: an example", "BEGIN "):
        assert secret in solved(once).read_text(encoding="utf-8")
        assert secret not in text
    stub = cells(released(once))["07-double-answer"].source
    assert stub.startswith("# answer 07.double (keep this line)\ndef double(")
    assert stub.endswith('raise NotImplementedError("your answer goes here")')
    assert cells(released(once))["07-why"].source.startswith("<!-- answer 07.why (keep this line)")
    rubric = cells(released(once))["07-why-rubric"]
    assert rubric.source.strip() == "*Graded by a person · 2 points*"
    assert rubric.metadata.nbgrader.locked
    assert not rubric.metadata.editable


def test_the_repository_is_named_as_in_pyproject(built: Path) -> None:
    edit(built / "pyproject.toml", "[project.urls]", f'[project.urls]\nRepository = "{ADDRESS}"')
    edit(built / "pyproject.toml", f'version = "{Project.read(built).version}"', 'version = "9.1"')
    project = Project.read(built)
    notebook = expand(UNIT, read(SOURCE), CATALOGUE, project)
    first, second = notebook.cells[:2]
    assert f"/github/a/b/blob/v9.1/notebooks/{UNIT}/{UNIT}.ipynb" in first.source
    assert f"{project.name} @ git+https://github.com/a/b@v9.1" in second.source


def test_hints_are_folded_one_by_one(once: Path) -> None:
    (hints,) = [c.source for c in cells(released(once)).values() if "<details>" in c.source]
    assert re.findall("<summary>(.*)</summary>", hints) == ["Hint 1 of 2", "Hint 2 of 2"]
    assert "```python\nx + ...\n```" in hints  # a fence under a bullet is no longer indented


def test_twice_gives_the_same_bytes(built: Path) -> None:
    before = files(built)
    released(built).unlink()
    run(built, "build", "07")
    assert files(built) == before


def test_equal_cells_get_ids_of_their_own() -> None:
    twin = [cell for cell in read(SOURCE) if cell.source.startswith("print(double(3))")]
    notebook = expand(UNIT, read(SOURCE) + twin, CATALOGUE, Project.read(REPOSITORY))
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert ids[-3].endswith("-2")  # the last two cells come from the builder


def test_graders_see_the_rubric_and_students_do_not(built: Path) -> None:
    """The stock commands release the builder's bytes, and autograde puts the rubric back."""
    ours, course = released(built).read_bytes(), Course(built)
    course.nbgrader("generate_assignment", UNIT, "--force")
    assert released(built).read_bytes() == ours
    student = nbformat.read(released(built), as_version=4)
    student.cells[
        [c.id for c in student.cells].index("07-double-answer")
    ].source = "double = lambda x: x + x"
    course.submit("ada", UNIT, student)
    course.nbgrader("autograde", UNIT)
    assert course.scores(UNIT) == {"ada": {"07-double": 2.0}}
    graded = cells(built / "autograded" / "ada" / UNIT / f"{UNIT}.ipynb")
    assert "2: the sum; 1: an example." in graded["07-why-rubric"].source
    course.nbgrader("generate_feedback", UNIT)
    page = course.feedback("ada", UNIT).read_text(encoding="utf-8")
    assert "Graded by a person" in page
    assert "the sum; 1: an example" not in page


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("return 2 * x", "return 3 * x", "cell 07-double does not show 2 of 2 points"),
        ("return 2 * x", "return x / 0", "cell 07-double .* raised ZeroDivisionError"),
        ("print(double(4))", "print('/' + 'home/ada/x')", "shows a machine path"),
        ("print(double(4))", "object()", "shows a memory address"),
        ('# %% tags=["nbval-ignore-output"]', "# %%\nprint(1 / 3)\n", "more than 5 digits"),
        ("print(double(4))", f"print('x' * {MAX_BYTES})", "MB with outputs"),
    ],
)
def test_a_failed_run_writes_nothing(
    built: Path, capsys: pytest.CaptureFixture, old: str, new: str, said: str
) -> None:
    edit(built / "solutions" / f"{UNIT}.py", old, new)
    before = files(built)
    with pytest.raises(SystemExit, match="1"):
        run(built, "build")
    errors = capsys.readouterr().err
    assert re.search(f"^{UNIT}: .*{said}", errors), errors
    assert "Traceback" not in errors
    assert files(built) == before


def test_the_address_is_written_everywhere_and_nothing_runs(built: Path, monkeypatch) -> None:
    monkeypatch.setattr("course.__main__.execute", lambda *_: pytest.fail("it ran"))
    outputs = {name: cell.get("outputs") for name, cell in cells(solved(built)).items()}
    assert "colab-badge" not in solved(built).read_text("utf-8")
    assert "git clone" not in (built / "README.md").read_text("utf-8")
    run(built, "publish", f"{ADDRESS}.git")
    assert Project.read(built).repository == ADDRESS
    assert f"git clone {ADDRESS} && cd b" in (built / "README.md").read_text("utf-8")
    for path in (solved(built), released(built)):
        first, second, *_ = cells(path).values()
        assert "/github/a/b/blob/v" in first.source
        assert f"git+{ADDRESS}@v" in second.source
    kept = {name: cell.get("outputs") for name, cell in cells(solved(built)).items()}
    assert [o for o in kept.values() if o] == [o for o in outputs.values() if o]
    run(built, "build", "--check")

    before = {**files(built), "pyproject": (built / "pyproject.toml").read_bytes()}
    run(built, "publish", ADDRESS)
    assert {**files(built), "pyproject": (built / "pyproject.toml").read_bytes()} == before


@pytest.mark.parametrize("url", ["", "github.com/a/b", "https://example.org/a/b"])
def test_an_address_that_is_none_changes_nothing(
    built: Path, capsys: pytest.CaptureFixture, url: str
) -> None:
    before = files(built)
    with pytest.raises(SystemExit, match="1"):
        run(built, "publish", url)
    assert "URL must be https://github.com/OWNER/NAME" in capsys.readouterr().err
    assert files(built) == before


@pytest.mark.parametrize("alt", ["A line from 0 to 1.", ""])
def test_a_picture_keeps_its_text_and_must_have_one(alt: str) -> None:
    metadata = {"image/png": {"alt": alt, "width": 3}, "needs_background": "light"}
    output = nbformat.v4.new_output("display_data", {"image/png": "AA=="}, metadata=metadata)
    cell = nbformat.v4.new_code_cell("draw()", outputs=[output])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    if not alt:
        with pytest.raises(
            SourceError, match=r"`draw\(\)`\) has a figure without alternative text"
        ):
            lean(UNIT, notebook)
        return
    lean(UNIT, notebook)
    assert notebook.cells[0].outputs[0].metadata == {"image/png": {"alt": alt}}


def test_widgets_leave_their_text() -> None:
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "slider"}
    output = nbformat.v4.new_output("display_data", view)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    lean(UNIT, notebook)
    assert notebook.cells[0].outputs[0].data == {"text/plain": "slider"}


# ---------------------------------------------------------------- a student's work


@pytest.mark.parametrize(
    ("name", "source"),
    [("07-double-answer", "double = lambda x: x + x"), ("07-why", "Two of them.")],
)
def test_work_is_never_lost(
    built: Path, capsys: pytest.CaptureFixture, name: str, source: str
) -> None:
    before = released(built).read_bytes()
    answer(released(built), name, source)
    work = released(built).read_bytes()
    with pytest.raises(SystemExit, match="1"):
        run(built, "build")
    assert "somebody's work" in capsys.readouterr().err
    assert released(built).read_bytes() == work

    run(built, "build", "--force")
    (copy,) = released(built).parent.glob("*.bak.ipynb")
    assert copy.read_bytes() == work
    assert released(built).read_bytes() == before


def test_a_cell_that_a_student_added_is_work(built: Path) -> None:
    notebook = nbformat.read(released(built), as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("my notes"))
    nbformat.write(notebook, released(built))
    with pytest.raises(SystemExit, match="1"):
        run(built, "build")


def test_an_untouched_release_gives_way_to_a_new_source(built: Path) -> None:
    edit(built / "solutions" / f"{UNIT}.py", "# Six.", "# Six, and eight.")
    run(built, "build")
    assert "Six, and eight." in released(built).read_text(encoding="utf-8")


# ---------------------------------------------------------------- --check


def test_check_writes_nothing_and_runs_nothing(built: Path, monkeypatch) -> None:
    monkeypatch.setattr("course.__main__.execute", lambda *_: pytest.fail("it ran"))
    before = {**files(built), "mtime": os.stat(released(built)).st_mtime_ns}
    run(built, "build", "--check")
    assert {**files(built), "mtime": os.stat(released(built)).st_mtime_ns} == before


def test_check_does_not_mind_outputs(built: Path) -> None:
    notebook = nbformat.read(solved(built), as_version=4)
    bare = without_outputs(notebook)
    assert bare != nbformat.writes(notebook)
    solved(built).write_text(bare, encoding="utf-8")
    run(built, "build", "--check")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("solutions/{0}.py", "# Six.", "# Seven.", r"\+ \w+: \*\*What you should see"),
        ("notebooks/{0}/{0}.ipynb", "Twice", "Thrice", "~ .*Thrice|~ .*Twice"),
        ("notebooks/{0}/{0}.ipynb", '"cells"', ' "cells"', "the cells are the same"),
        ("solutions/{0}/{0}.ipynb", "return 2 * x", "return x + x", "~ 07-double-answer"),
    ],
)
def test_check_says_what_differs(
    built: Path, capsys: pytest.CaptureFixture, file: str, old: str, new: str, said: str
) -> None:
    edit(built / file.format(UNIT), old, new)
    with pytest.raises(SystemExit, match="1"):
        run(built, "build", "--check")
    assert re.search(said, errors := capsys.readouterr().err), errors


def test_check_misses_a_notebook(built: Path, capsys: pytest.CaptureFixture) -> None:
    released(built).unlink()
    with pytest.raises(SystemExit, match="1"):
        run(built, "build", "--check")
    assert f"notebooks/{UNIT}/{UNIT}.ipynb: missing" in capsys.readouterr().err


def test_check_finds_a_unit_without_a_source(built: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(built / "notebooks" / UNIT, built / "notebooks" / "08_gone")
    with pytest.raises(SystemExit, match="1"):
        run(built, "build", "--check")
    assert "notebooks/08_gone/: there is no solutions/08_gone.py" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["build"], ["build", "--check"], ["lint"]])
def test_no_unit_yet(tmp_path: Path, capsys: pytest.CaptureFixture, command: list[str]) -> None:
    run(tmp_path, *command)
    assert "no unit" in capsys.readouterr().out


def test_an_unknown_unit_is_named(built: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="1"):
        run(built, "build", "03")
    assert f"no unit '03'; there are {UNIT}" in capsys.readouterr().err


# ---------------------------------------------------------------- lint

WRITTEN = '# %% [markdown] written="07.why" points=2 minutes=5\n# Because x + x = 2x.\n'
RUBRIC = '# %% [markdown] rubric="07.why"\n# 2: the sum; 1: an example.\n'
EXPECT = '# %% [markdown] expect="07.double"\n# Six.\n'


def linted(tmp_path: Path, *edits: tuple[str, str], catalogue: dict = CATALOGUE) -> list[str]:
    path = Path(shutil.copy(SOURCE, tmp_path / f"{UNIT}.py"))
    for old, new in edits:
        edit(path, old, new)
    return [problem.removeprefix(f"{path}:") for problem in lint(path, catalogue)]


def test_marks_of_clauses_stay_in_the_source(once: Path) -> None:
    text = "\n".join(cell.source for cell in cells(released(once)).values())
    assert "its sign.\n- `+` is enough.\n" in text + "\n"
    assert "{=" not in text


def test_the_table_of_clauses() -> None:
    assert clause_table(SOURCE)[2:] == [
        "  A number comes in, and twice that number goes out, whatever its sign.",
        "      -> the value",
        "  `+` is enough.",
        "      -> -",
    ]


def test_the_fixture_has_no_problem(tmp_path: Path) -> None:
    assert linted(tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("print(double(4))", "plots.figure()", "1 figures, of which 0 are shown by plots.show"),
        ("print(double(4))", "plt.show()", "show a figure by plots.show(alt)"),
        ("print(double(4))", "plots.show('A line.')", "alternative text without a number"),
        ("# Six.", "# ![](six.png)", "a picture without alternative text"),
        ("# # 07 · Doubling", "# # Doubling", "the first cell must be"),
        (EXPECT, "", "07.double has no cell with expect="),
        ("# - The idea goes", "# The idea goes", "2 or 3 hints as bullets expected, got 1"),
        ('check("07.double", double)', 'check("07.double", double, 1)', "must be exactly"),
        ('# %% check="07.double"', "# %%", "07.double has no cell with check="),
        ('# %% exercise="07.double"', "# %%", "07.double has no cell with exercise="),
        ('# %% exercise="07.double"', '# %% exercise="07.dbl"', "no exercise '07.dbl' of unit 07"),
        ("    ### BEGIN SOLUTION\n", "", "an answer cell needs one `### BEGIN SOLUTION`"),
        ("    return 2 * x", "    return x\n" * 16, "a solution of 16 lines; 1 to 15"),
        ("print(double(4))", "print(double(4))\n" * 19, "a code cell of 21 lines; at most 20"),
        ("print(double(4))", "open('/home/ada/x')", "a path of somebody's machine"),
        (RUBRIC, "", '07.why needs a cell with rubric="07.why" right after it'),
        (WRITTEN, "", "the rubric 07.why does not follow its written answer"),
        (" points=2 minutes=5", " minutes=5", "07.why needs points="),
        ("{{07.double}}", "Exercise.", "no markdown cell announces 07.double"),
        (" {= -}", "", "07.double: no criterion is named for '`+` is enough.'"),
        ("{= the value}", "{= the sign}", "07.double has no criterion 'the sign'"),
        ("{= the value}", "{= -}", "the criterion 'the value' tests what no bullet asks for"),
        ("{{07.why}}", "{{07.whom}}", "{{07.whom}} names no exercise"),
        ("expect=", "expects=", "expects= does not belong on this cell"),
        ("# %%\n", '# %% tags=["nbval-ignore-output"]\n', "are tagged nbval-ignore-output"),
    ],
)
def test_lint_names_the_problem_and_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    # One of the four code cells is tagged already; more than half is three of them.
    more = [('# %% check="07.double"', '# %% check="07.double" tags=["nbval-ignore-output"]')]
    problems = linted(tmp_path, (old, new), *(more if "tagged" in said else []))
    assert any(re.match(r"\d+: ", p) and said in p for p in problems), problems


def test_lint_reports_everything_at_once(tmp_path: Path) -> None:
    problems = linted(tmp_path, (EXPECT, ""), (RUBRIC, ""), ("{{07.double}}", ""))
    assert len(problems) == 3
    lines = [int(problem.split(":")[0]) for problem in problems]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("change", "said"), [({"mistakes": ()}, "no known mistakes"), ({"points": 0}, "no points")]
)
def test_lint_looks_into_the_catalogue(tmp_path: Path, change: dict, said: str) -> None:
    poor = {DOUBLE.id: SimpleNamespace(**{**vars(DOUBLE), **change})}
    assert any(said in problem for problem in linted(tmp_path, catalogue=poor))


def test_lint_wants_every_exercise_of_the_unit(tmp_path: Path) -> None:
    more = CATALOGUE | {"07.halve": SimpleNamespace(**{**vars(DOUBLE), "id": "07.halve"})}
    assert linted(tmp_path, catalogue=more) == [
        "1: the catalogue has 07.halve, but this unit does not"
    ]


def test_lint_wants_the_check_after_the_exercise(tmp_path: Path) -> None:
    path = Path(shutil.copy(SOURCE, tmp_path / f"{UNIT}.py"))
    check = '# %% check="07.double"\ncheck("07.double", double)\n'
    edit(path, check, "")
    edit(path, '# %% exercise="07.double"', f'{check}\n# %% exercise="07.double"')
    assert any("stands before the exercise" in problem for problem in lint(path, CATALOGUE))


def test_lint_exits_with_one(built: Path, capsys: pytest.CaptureFixture) -> None:
    run(built, "lint")
    edit(built / "solutions" / f"{UNIT}.py", EXPECT, "")
    with pytest.raises(SystemExit, match="1"):
        run(built, "lint")
    assert f"solutions/{UNIT}.py:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("print((p == 1).sum())", True),
        ("print(int((p[mask] != 0).float().mean()))", True),
        ("print(torch.count_nonzero(0 == p))", True),
        ("print(p.max() == 1.0)", True),
        ("print((targets == 1).sum(), (logits.argmax(-1) == 3).float().mean())", False),
        ("print((p < 6e-8).sum())", False),
        ("assert n == 1", False),
    ],
)
def test_lint_wants_no_count_of_exact_equalities(tmp_path: Path, line: str, refused: bool) -> None:
    cell = '# %% tags=["nbval-ignore-output"]\n'
    problems = linted(tmp_path, (cell, f"# %%\n{line}\n\n{cell}"))
    assert ["exactly equal" in problem for problem in problems] == [True] * refused
    assert linted(tmp_path, (cell, f"{cell}{line}\n")) == []


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("loss 5.48524139", "5.48524139: more than 5 digits"),
        ("[1.0000001e-12]", "more than 5 digits"),
        ("tensor([0.1234, 0.5])", "the repr of an object"),
        ("History(losses=[3.1, 2.9])", "the repr of an object"),
        (str([k / 2 for k in range(MAX_FLOATS + 1)]), "a list of more than 8 floats"),
    ],
)
def test_lint_refuses_outputs_that_another_processor_rounds(output: str, said: str) -> None:
    assert said in fragile(output)


@pytest.mark.parametrize(
    "output",
    [
        "teacher: 292,010 parameters, 1.17 MB, 92.3%",
        "NLL +1.9359 nats [+1.9322, +1.9397]",
        "0.000012345 and 1.042e-20",
        "tensor([[ 83, 101, 110]])",
        str([k / 2 for k in range(MAX_FLOATS)]),
        "<Figure size 630x252 with 2 Axes>",
        "4000 traces, arXiv 1503.02531",
    ],
)
def test_lint_lets_what_is_robust_pass(output: str) -> None:
    assert fragile(output) is None


def test_text_outside_of_cells_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / f"{UNIT}.py"
    path.write_text("x = 1\n" + SOURCE.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(SourceError, match="outside"):
        read(path)


# ---------------------------------------------------------------- docs/AUTHORING.md


def blocks() -> list[str]:
    page = (REPOSITORY / "docs" / "AUTHORING.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def test_the_markers_it_shows_make_a_unit(tmp_path: Path) -> None:
    path = tmp_path / f"{UNIT}.py"
    title = "# %% [markdown]\n# # 07 · Doubling"
    path.write_text("\n\n".join([title, *blocks()[:2]]), encoding="utf-8")
    assert lint(path, CATALOGUE) == []
    notebook = expand(UNIT, read(path), CATALOGUE, Project.read(REPOSITORY))
    made = {cell.id for cell in notebook.cells}
    assert {"07-double-answer", "07-double", "07-why", "07-why-rubric"} <= made


def test_its_worked_example_is_one_that_this_suite_would_accept(monkeypatch) -> None:
    modules = {}
    names = ("kdlib.losses.hints", "exercise", "answers")
    for name, block in zip(names, blocks()[2:], strict=True):
        modules[name] = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, modules[name])
        exec(compile(block, f"{name}.py", "exec"), vars(modules[name]))
    (hint_loss,) = modules["exercise"].EXERCISES
    right = modules["answers"].ANSWERS[hint_loss.id]
    assert min(len(hint_loss.mistakes), len(right)) >= 4
    for seed in (0, 1, 2):

        def verdict(answer, seed: int = seed):
            return judge(hint_loss, observe(hint_loss, answer, seed), seed)

        assert verdict(hint_loss.reference).points == 0
        for answer in right:
            assert verdict(answer).passed, str(verdict(answer))
        for mistake in hint_loss.mistakes:
            found = verdict(mistake.answer)
            assert not found.passed
            assert [d.name for d in found.diagnoses][:1] == [mistake.name], str(found)
