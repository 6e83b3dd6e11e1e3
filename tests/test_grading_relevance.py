"""Cells that no answer depends on are left out, and in doubt none is."""

from __future__ import annotations

import nbformat
import pytest

from grading.job import plan
from grading.normalise import normalise
from grading.notebooks import answers, fill, released, solution, units
from grading.outcome import Job
from grading.relevance import relevant
from grading.template import Template

IMPORTS = "import torch\nimport matplotlib.pyplot as plt\nfrom kdlib import check"
DATA = "data = torch.randn(3)\nscale = 2"
PLOT = "fig, ax = plt.subplots()\nax.set_title('x')\nax.plot(answer(data))"
ANSWER = "def answer(x):\n    return x.softmax(-1)"
CHECK = "check('00.answer', answer)"


def kept(*cells: str, own: tuple[str, ...] = ()) -> list[str]:
    """The cells that are run; answers, checks and `own` always are."""
    must = {ANSWER, CHECK, *own}
    pairs = [(cell, cell in must) for cell in cells]
    return [cell for cell, keep in zip(cells, relevant(pairs), strict=True) if keep]


def test_what_shows_and_explains_is_left_out() -> None:
    assert kept(IMPORTS, DATA, ANSWER, CHECK, PLOT, CHECK) == [IMPORTS, ANSWER, CHECK, CHECK]


@pytest.mark.parametrize(
    "answer",
    [
        "def answer(x):\n    return x * scale",
        "answer = lambda x: x * scale",
        "class answer:\n    factor = scale",
        "def helper(x):\n    return data\ndef answer(x):\n    return helper(x)",
        "%%time\ndef answer(x):\n    return [y * scale for y in x]",
        "def answer(x, factor=scale):\n    return x",
    ],
)
def test_what_an_answer_reads_is_run(answer: str) -> None:
    assert kept(IMPORTS, DATA, answer, CHECK, own=(answer,)) == [IMPORTS, DATA, answer, CHECK]


def test_a_students_own_cells_and_what_they_use_are_run() -> None:
    own = "torch.set_default_dtype(torch.float64)\nprint(data)"
    assert kept(IMPORTS, DATA, own, ANSWER, CHECK, own=(own,)) == [
        IMPORTS, DATA, own, ANSWER, CHECK
    ]  # fmt: skip


@pytest.mark.parametrize(
    "cell",
    [
        "torch.set_grad_enabled(False)",
        "torch.manual_seed(0)",
        "torch.backends.cudnn.benchmark = True",
        "plt.rcParams['x'] = 1",
        "exec('x = 1')",
        "not Python at all",
        "%run other.py",
    ],
)
def test_what_changes_the_process_or_cannot_be_read_is_run(cell: str) -> None:
    assert cell in kept(IMPORTS, cell, ANSWER, CHECK)


@pytest.mark.parametrize(
    "own",
    [
        "from torch import *",
        "globals()['x'] = 1",
        "exec('y = data')",
        "import threading",
        "get_ipython().user_ns['data']",
        "%run x.py",
        "if:",
    ],
)
def test_in_doubt_everything_is_run(own: str) -> None:
    cells = [IMPORTS, DATA, own, ANSWER, CHECK, PLOT, CHECK]
    assert kept(*cells, own=(own,)) == cells


@pytest.mark.parametrize(
    "answer",
    [
        "def answer(x, seen=[]):\n    return x",
        "calls = []\ndef answer(x):\n    calls.append(x)\n    return x",
        "import functools\n@functools.cache\ndef answer(x):\n    return x",
        "def answer(x):\n    return x\nanswer.calls = 0",
    ],
)
def test_a_call_of_an_answer_that_may_remember_it_is_run(answer: str) -> None:
    call = "answer(torch.ones(2))"
    cells = (IMPORTS, answer, call, CHECK)
    assert call in kept(*cells, own=(answer,))
    assert call not in kept(IMPORTS, ANSWER, call, CHECK)


@pytest.mark.parametrize("unit", units())
def test_of_each_unit_only_the_imports_and_the_answers_are_run(unit: str) -> None:
    template = Template(released(unit), unit)
    made = normalise(nbformat.writes(fill(unit, answers(solution(unit)))).encode(), template)
    steps = plan(made, Job(unit, "s", "k", b"", "", dict.fromkeys(template.by_check, 1)))
    others = [step for step in steps if not (step.check or step.question)]
    assert len(others) <= 3
    assert {s.check.exercise_id for s in steps if s.check} == set(template.by_check)
