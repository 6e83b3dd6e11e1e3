"""What happens to notebooks on their way to a grader: put right, or refused with the cause."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from grading import notebooks as course
from grading.normalise import Normalised, normalise
from grading.notebooks import units
from grading.reading import Refused, read_file
from grading.template import Template
from tests import tiny_unit as tiny

Damage = Callable[[NotebookNode], object]


@pytest.fixture(scope="module")
def template() -> Template:
    return Template(nbformat.reads(tiny.released().decode(), as_version=4), tiny.UNIT)


@pytest.fixture
def clean(template: Template) -> NotebookNode:
    return tiny.fill(template.notebook, tiny.RIGHT)


def put_right(notebook: NotebookNode, template: Template) -> Normalised:
    return normalise(json.dumps(notebook).encode(), template)


def program(done: Normalised) -> list[str]:
    """What would be executed, in order, and the written answers; anchor lines say nothing."""
    sources = [c.source for c in done.notebook.cells if c.cell_type == "code" or c.id == tiny.WHY]
    anchored = [source.split("\n") for source in sources if source.strip()]
    return ["\n".join(x for x in lines if "(keep this line)" not in x) for lines in anchored]


def index(notebook: NotebookNode, name: str) -> int:
    return next(n for n, c in enumerate(notebook.cells) if c.get("id") == name)


def cell(notebook: NotebookNode, name: str) -> NotebookNode:
    return notebook.cells[index(notebook, name)]


def delete(*names: str) -> Damage:
    def damage(nb: NotebookNode) -> None:
        nb.cells = [c for c in nb.cells if c.get("id") not in names]

    return damage


def strip_metadata(nb: NotebookNode) -> None:
    for c in nb.cells:
        c.metadata = {}


def strip_ids(nb: NotebookNode) -> None:
    nb.nbformat_minor = 4
    for c in nb.cells:
        c.pop("id", None)


def strip_everything(nb: NotebookNode) -> None:
    strip_metadata(nb)
    strip_ids(nb)


def colab(nb: NotebookNode) -> None:
    """Colab's form: minor 0, ids in the metadata, widget state, `outputId`, no `language`."""
    strip_ids(nb)
    nb.nbformat_minor = 0
    nb.metadata = {
        "colab": {"provenance": [], "toc_visible": True},
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "accelerator": "GPU",
        "widgets": {"application/vnd.jupyter.widget-state+json": {"a" * 32: {"model_name": "X"}}},
    }
    for n, c in enumerate(nb.cells):
        c.metadata |= {"id": f"c0Lab{n:07}", "outputId": f"{n:08x}-1111-2222"}
        if c.cell_type == "code":
            c.outputs = [{"output_type": "stream", "name": "stdout", "text": ["x\n"]}]
            c.metadata["colab"] = {"base_uri": "https://localhost:8080/", "height": 34}


def without_anchors(nb: NotebookNode) -> None:
    for c in nb.cells:
        c.source = "\n".join(x for x in c.source.split("\n") if "(keep this line)" not in x)


def without_anchors_or_metadata(nb: NotebookNode) -> None:
    without_anchors(nb)
    strip_everything(nb)


def duplicate(name: str) -> Damage:
    def damage(nb: NotebookNode) -> None:
        nb.cells.insert(index(nb, name) + 1, copy.deepcopy(cell(nb, name)))

    return damage


def split_answer(nb: NotebookNode) -> None:
    """As JupyterLab splits: the second half is a cell with the same metadata."""
    whole = cell(nb, tiny.SOFTMAX)
    head, _, tail = whole.source.partition("    return")
    second = copy.deepcopy(whole)
    whole.source = "# answer 00.softmax_with_temperature (keep this line)\nhelp_me = 1"
    second.source, second.id = head.partition("\n")[2] + "    return" + tail, "half-2"
    nb.cells.insert(index(nb, tiny.SOFTMAX) + 1, second)


def merge(first: str, second: str) -> Damage:
    def damage(nb: NotebookNode) -> None:
        cell(nb, first).source += "\n\n" + cell(nb, second).source
        delete(second)(nb)

    return damage


def move(name: str, to: int) -> Damage:
    def damage(nb: NotebookNode) -> None:
        nb.cells.insert(to, nb.cells.pop(index(nb, name)))

    return damage


def retype(name: str, kind: str) -> Damage:
    def damage(nb: NotebookNode) -> None:
        old = cell(nb, name)
        changed = {"cell_type": kind, "source": old.source, "metadata": old.metadata, "id": name}
        changed |= {"outputs": [], "execution_count": None} if kind == "code" else {}
        nb.cells[index(nb, name)] = nbformat.from_dict(changed)

    return damage


def edit(name: str, source: str) -> Damage:
    return lambda nb: cell(nb, name).update(source=source)


def old_schema(nb: NotebookNode) -> None:
    for c in nb.cells:
        c.metadata.get("nbgrader", {}).pop("schema_version", None)


def wrong_points(nb: NotebookNode) -> None:
    cell(nb, "00-accuracy").metadata.nbgrader.points = 100.0


def torn_metadata(nb: NotebookNode) -> None:
    for c in nb.cells:
        if "nbgrader" in c.metadata:
            c.metadata["nbgrader"] = ["what", 1, None]


def noise(nb: NotebookNode) -> None:
    """Outputs as large as can be, and a NaN where JSON has none."""
    for c in nb.cells:
        if c.cell_type == "code":
            c.outputs = [{"output_type": "stream", "name": "stderr", "text": "x" * 1_000_000}]
            c.metadata["loss"] = float("nan")


HARMLESS: dict[str, Damage] = {
    "nothing": lambda nb: None,
    "metadata stripped": strip_metadata,
    "ids stripped": strip_ids,
    "metadata and ids stripped": strip_everything,
    "Colab's form": colab,
    "anchor lines deleted": without_anchors,
    "an answer twice": duplicate(tiny.ACCURACY),
    "a check twice": duplicate("00-accuracy"),
    "a check deleted": delete("00-accuracy"),
    "every check deleted": delete(*tiny.POINTS),
    "the imports deleted": delete("167a61ef"),
    "a check edited": edit("00-accuracy", "check('00.accuracy', lambda *a: 1)"),
    "a check commented out": edit("00-accuracy", "# check"),
    "a check emptied": edit("00-accuracy", ""),
    "a check moved up": move("00-accuracy", 0),
    "a check moved to the end": move("00-accuracy", 99),
    "an answer moved to the end": move(tiny.ACCURACY, 99),
    "an answer moved to the top": move(tiny.ACCURACY, 0),
    "the imports moved to the end": move("167a61ef", 99),
    "an answer became text": retype(tiny.ACCURACY, "markdown"),
    "an answer became raw": retype(tiny.ACCURACY, "raw"),
    "a check became text": retype("00-accuracy", "markdown"),
    "a written answer became code": retype(tiny.WHY, "code"),
    "the rubric deleted": delete("00-why-rubric"),
    "two answers merged": merge(tiny.ACCURACY, tiny.NLL),
    "the unused badge deleted": delete("b7d85254"),
    "no schema_version": old_schema,
    "points edited": wrong_points,
    "nbgrader's metadata torn": torn_metadata,
    "large outputs and NaN": noise,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_the_same_program_as_the_clean_notebook(name, clean, template) -> None:
    expected = program(put_right(clean, template))
    HARMLESS[name](clean)
    done = put_right(clean, template)
    nbformat.validate(done.notebook)
    assert program(done) == expected
    assert {c.metadata.nbgrader.grade_id for c in done.notebook.cells if c.metadata} == {
        c.metadata.nbgrader.grade_id for c in template.notebook.cells if c.metadata
    }


def test_without_anchors_metadata_and_ids_the_functions_are_found(clean, template) -> None:
    without_anchors_or_metadata(clean)
    done = put_right(clean, template)
    answers = {c.id: c.source for c in done.notebook.cells}
    for name in (tiny.SOFTMAX, tiny.ACCURACY, tiny.NLL):
        assert answers[name] == tiny.RIGHT[name].partition("\n")[2]
    assert "Because of the temperature." in answers[tiny.WHY]


def test_a_split_answer_runs_in_one_piece(clean, template) -> None:
    split_answer(clean)
    cells = put_right(clean, template).notebook.cells
    at = next(n for n, c in enumerate(cells) if c.id == tiny.SOFTMAX)
    assert "return" in cells[at + 1].source
    assert cells[at + 2].id == "00-softmax_with_temperature"


def test_answer_and_check_merged(clean, template) -> None:
    merge(tiny.ACCURACY, "00-accuracy")(clean)
    done = put_right(clean, template)
    assert "the check of 00.accuracy was missing" in done.repairs
    assert [c.id for c in done.notebook.cells] == [c.id for c in template.notebook.cells]


def test_an_answer_and_its_check_deleted(clean, template) -> None:
    """The case that nbgrader's own add_missing_cells stops at, with a KeyError."""
    delete(tiny.ACCURACY, "00-accuracy")(clean)
    done = put_right(clean, template)
    stub = next(c for c in template.notebook.cells if c.id == tiny.ACCURACY)
    assert next(c for c in done.notebook.cells if c.id == tiny.ACCURACY).source == stub.source
    assert "the answer 00.accuracy was missing" in done.repairs


def test_of_two_attempts_the_later_one_counts(clean, template) -> None:
    duplicate(tiny.ACCURACY)(clean)
    clean.cells[index(clean, tiny.ACCURACY) + 1].source += "\n# second attempt"
    done = put_right(clean, template)
    sources = [c.source for c in done.notebook.cells if "def accuracy" in c.source]
    assert [s.endswith("# second attempt") for s in sources] == [False, True]
    assert done.notebook.cells[index(done.notebook, tiny.ACCURACY)].source == sources[1]


def test_an_untouched_copy_does_not_replace_the_answer(clean, template) -> None:
    stub = cell(template.notebook, tiny.ACCURACY)
    clean.cells.insert(index(clean, tiny.ACCURACY) + 1, copy.deepcopy(stub))
    done = put_right(clean, template)
    assert cell(done.notebook, tiny.ACCURACY).source == tiny.RIGHT[tiny.ACCURACY]


def test_own_cells_stay_where_they_were(clean, template) -> None:
    clean.cells.insert(index(clean, tiny.ACCURACY), new_code_cell("helper = 1"))
    done = put_right(clean, template)
    at = index(done.notebook, tiny.ACCURACY)
    assert done.notebook.cells[at - 1].source == "helper = 1"
    assert done.repairs == []


def test_a_written_answer_in_two_cells_is_one(clean, template) -> None:
    clean.cells.insert(index(clean, tiny.WHY) + 1, new_markdown_cell("And also this."))
    done = put_right(clean, template)
    assert cell(done.notebook, tiny.WHY).source.endswith("And also this.")


def test_scripts_in_text_are_disarmed_and_mathematics_is_kept(clean, template) -> None:
    cell(clean, tiny.WHY).source += "\n<script>alert(1)</script> <IMG onerror=x src=y> $a < b$"
    source = cell(put_right(clean, template).notebook, tiny.WHY).source
    assert "<script" not in source
    assert "<IMG" not in source
    assert "$a < b$" in source


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        ("[a](https://x.org/a:b)", True),
        ("[a](figure.png)", True),
        ("[a](#part-2:x)", True),
        ("[a](javascript:alert(1))", False),
        ("[a](  JavaScript:alert(1))", False),
        ("[a](&#106;avascript:alert(1))", False),
        ("[a](javascript\\:alert(1))", False),
        ("[a](data:text/html,x)", False),
        ("[a]: javascript:alert(1)", False),
        ("[a][b]\n\n[b]: vbscript:x", False),
    ],
)
def test_links_that_run_something_are_none(link: str, kept: bool, clean, template) -> None:
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    cell(clean, tiny.WHY).source += f"\n\n{link}"
    source = cell(put_right(clean, template).notebook, tiny.WHY).source
    assert ("href" in markdown2html_mistune(source)) == kept


def test_an_unanswered_question_is_still_untouched(template) -> None:
    done = put_right(tiny.fill(template.notebook, {}), template)
    assert {c.id for c in done.notebook.cells} == done.released
    assert done.repairs == []


def test_nbformat_3_is_read(clean, template) -> None:
    cells = [
        {"cell_type": c.cell_type, "metadata": {}}
        | ({"input": c.source, "outputs": []} if c.cell_type == "code" else {"source": c.source})
        for c in clean.cells
    ]
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": cells}]}
    done = normalise(json.dumps(old).encode(), template)
    assert program(done) == program(put_right(clean, template))


@pytest.mark.parametrize("unit", units())
def test_each_units_colab_form_is_the_same_program(unit: str) -> None:
    """Filled in, with ids, metadata and outputs as Colab leaves them."""
    template = Template(course.released(unit), unit)
    filled = course.fill(unit, course.answers(course.solution(unit)))
    clean = put_right(filled, template)
    assert clean.repairs == []
    colab(filled)
    done = put_right(filled, template)
    assert [c.source for c in done.notebook.cells] == [c.source for c in clean.notebook.cells]
    assert done.repairs == []


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp1252")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(encoding, clean, template) -> None:
    cell(clean, tiny.WHY).source += " für α".replace("α", "a" if encoding == "cp1252" else "α")
    text = json.dumps(clean, ensure_ascii=False)
    done = normalise(text.encode(encoding, "replace"), template)
    assert "für" in cell(done.notebook, tiny.WHY).source


def whole(clean: NotebookNode) -> bytes:
    return json.dumps(clean).encode()


def other_unit(clean: NotebookNode) -> bytes:
    return whole(clean).replace(b"answer 00.", b"answer 03.").replace(b'"00-', b'"03-')


REFUSED = {
    "empty": (lambda nb: b"", "is empty"),
    "blank": (lambda nb: b" \n", "is empty"),
    "zeros": (lambda nb: b"\0" * 4096, "is empty"),
    "truncated": (lambda nb: whole(nb)[:3000], "stops in the middle"),
    "not JSON": (lambda nb: b"import torch", "no notebook"),
    "a web page": (lambda nb: b"<!DOCTYPE html><html>", "a web page"),
    "a zip": (lambda nb: b"PK\x03\x04....", "zip archive"),
    "an image": (lambda nb: b"\x89PNG\r\n\x1a\n", "no notebook"),
    "a list": (lambda nb: b"[1, 2]", "no notebook"),
    "no cells": (lambda nb: b"{}", "has no cells"),
    "no answers": (lambda nb: b'{"cells": []}', "No answer of 90_tiny"),
    "another unit": (other_unit, "unit 03"),
    "deeply nested": (lambda nb: b'{"cells":' + b"[" * 100_000, "nested too deeply"),
    "damaged inside": (lambda nb: whole(nb).replace(b'"cells"', b'"cells', 1), "is damaged"),
    "too many cells": (lambda nb: json.dumps({"cells": [{}] * 5001}).encode(), "5001 cells"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_cause(name, clean, template) -> None:
    make, words = REFUSED[name]
    with pytest.raises(Refused, match=words):
        normalise(make(clean), template)


def test_links_and_pipes_are_not_read(tmp_path) -> None:
    import os

    (tmp_path / "secret").write_text("x")
    (tmp_path / "link.ipynb").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe.ipynb")
    for name in ("link.ipynb", "pipe.ipynb", "missing.ipynb"):
        with pytest.raises(Refused):
            read_file(tmp_path / name)


def test_a_cell_magic_under_the_anchor_is_moved_to_the_top(clean, template) -> None:
    answer = cell(clean, tiny.ACCURACY)
    first, _, rest = answer.source.partition("\n")
    answer.source = f"{first}\n\n%%time\n{rest}"
    done = put_right(clean, template)
    source = cell(done.notebook, tiny.ACCURACY).source
    assert source.startswith("%%time\n# answer 00.accuracy")
    assert source.endswith(rest)
    assert "a cell magic was moved to the top of the answer 00.accuracy" in done.repairs


def test_a_magic_on_top_stays_where_it_is(clean, template) -> None:
    answer = cell(clean, tiny.ACCURACY)
    answer.source = f"%%time\n{answer.source}"
    done = put_right(clean, template)
    assert cell(done.notebook, tiny.ACCURACY).source == answer.source
    assert done.repairs == []
