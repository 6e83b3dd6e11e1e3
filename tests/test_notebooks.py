"""What nbval compares in the executed solutions; `make test` lets nbval itself run over them."""

from __future__ import annotations
import __future__

import os
import re
import subprocess
import sys

import pytest
from nbformat import NotebookNode

from conftest import ARITHMETICS
from grading.notebooks import answer_cells, exercises, released, solution, units

IGNORED = {"nbval-ignore-output", "nbval-skip"}
TEXT = ("text/plain", "text/html", "text/markdown", "text/latex", "application/json")


def code_cells(unit: str) -> list[NotebookNode]:
    return [cell for cell in solution(unit).cells if cell.cell_type == "code"]


def is_compared(cell: NotebookNode) -> bool:
    return cell.execution_count is not None and not IGNORED & set(cell.metadata.get("tags", []))


def shows_text(cell: NotebookNode) -> bool:
    return any(
        o.output_type == "stream" or set(TEXT) & set(o.get("data", {})) for o in cell.outputs
    )


def test_more_than_half_of_all_cells_are_compared(capsys: pytest.CaptureFixture) -> None:
    cells = [cell for unit in units() for cell in code_cells(unit)]
    compared = [cell for cell in cells if is_compared(cell)]
    speaking = [cell for cell in cells if shows_text(cell)]
    both = [cell for cell in speaking if is_compared(cell)]
    with capsys.disabled():
        print(
            f"\nnbval compares {len(compared)} of {len(cells)} code cells,"
            f" and {len(both)} of the {len(speaking)} that show text"
        )
    assert len(compared) > len(cells) / 2
    assert len(both) > len(speaking) / 2


@pytest.mark.parametrize(("arithmetic", "said"), [("generic", "DEFAULT 1"), ("threads", ".* 2")])
def test_the_further_arithmetics_are_in_effect(arithmetic: str, said: str) -> None:
    asks = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())"
    environment = os.environ | ARITHMETICS[arithmetic]
    told = subprocess.check_output([sys.executable, "-c", asks], env=environment, text=True)
    assert re.fullmatch(said, told.strip())


@pytest.mark.parametrize("unit", units())
def test_every_cell_of_the_solution_was_run(unit: str) -> None:
    """nbval does not compare what was never run."""
    assert [cell.source for cell in code_cells(unit) if cell.execution_count is None] == []


@pytest.mark.parametrize("unit", units())
def test_every_check_is_compared(unit: str) -> None:
    checks = [c for c in code_cells(unit) if c.metadata.get("nbgrader", {}).get("grade")]
    assert checks
    assert all(map(is_compared, checks))


@pytest.mark.parametrize("unit", units())
def test_a_stub_can_be_run_and_defines_its_name(unit: str) -> None:
    """Else Run All stops there, and the check says NameError in place of 'not started'."""
    cells = answer_cells(released(unit))
    first_imports = next(
        c.source for c in released(unit).cells if re.search(r"(?m)^import torch$", c.source)
    )
    namespace: dict = {}
    exec(first_imports, namespace)
    for name, grade_id in exercises(unit).items():
        stub = compile(
            cells[grade_id].source, grade_id, "exec", __future__.annotations.compiler_flag
        )
        exec(stub, namespace)
        assert name.split(".", 1)[1] in namespace
