"""The solution notebook: executed, every check at full marks, outputs lean."""

from __future__ import annotations

import copy
import os
import re
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from course.lint import MACHINE_PATH, fragile_outputs
from course.markers import NOTEBOOK_METADATA, SourceError

CELL_SECONDS = 1_200  # a busy machine must not fail by the clock
MAX_BYTES = 1_500_000
WIDGET = "application/vnd.jupyter.widget-view+json"
SCORE = re.compile(r"(\d+(?:\.\d+)?) of (\d+(?:\.\d+)?) points")
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b")


def execute(unit: str, notebook: NotebookNode) -> float:
    """Run a solution notebook in place, in an empty folder; give the seconds it took.

    Raises:
        SourceError: a cell fails, a check earns less than full marks, or an output is not lean.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "work")
        folder.mkdir()
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("KDLIB_", "NBGRADER_", "JPY_"))
        }
        environment = inherited | {
            "IPYTHONDIR": str(Path(scratch, "ipython")),
            "KDLIB_PROFILE": "cpu",
            "KDLIB_PROGRESS": str(Path(scratch, "progress.json")),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
        }
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            extra_arguments=["--IPKernelApp.log_level=40"],  # no remarks about the transport
            record_timing=False,
            shutdown_kernel="immediate",
            store_widget_state=True,  # without it nbclient fails on output widgets
        )
        start = time.perf_counter()
        try:
            client.execute(env=environment)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise SourceError(_failure(unit, notebook, error)) from None
        seconds = time.perf_counter() - start
        full_marks(unit, notebook)
        lean(unit, notebook, (scratch, os.path.realpath(scratch)))
    return seconds


def _failure(unit: str, notebook: NotebookNode, error: Exception) -> str:
    """Name the cell that failed: the last one that was started."""
    started = [c for c in notebook.cells if c.cell_type == "code" and c.execution_count]
    failed = [c for c in started if any(o.output_type == "error" for o in c.outputs)]
    cell = (failed or started or [None])[-1]
    where = f"{unit}: cell {cell.id} (`{_first_line(cell)}`)" if cell else unit
    if isinstance(error, CellExecutionError):
        return f"{where} raised {error.ename}: {error.evalue}"
    return f"{where}: {str(error).splitlines()[0]}"


def _first_line(cell: NotebookNode) -> str:
    lines = [s for s in cell.source.splitlines() if s.strip() and not s.startswith("#")]
    return (lines or cell.source.splitlines() or [""])[0]


def full_marks(unit: str, notebook: NotebookNode) -> None:
    """Refuse a solution whose checks do not all say that they earn full marks."""
    short = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            shown = "\n".join(o.data.get("text/plain", "") for o in cell.outputs if "data" in o)
            score, points = SCORE.search(shown), cell.metadata.nbgrader.points
            if not score or not float(score[1]) == float(score[2]) == points:
                short.append(
                    f"{unit}: cell {cell.id} does not show {points:g} of {points:g} points"
                    + "".join(f"\n    {line}" for line in shown.splitlines())
                )
    if short:
        raise SourceError("\n".join(short))


def lean(unit: str, notebook: NotebookNode, scratch: tuple[str, ...] = ()) -> None:
    """Keep what a reader sees and what is the same on each run; refuse the rest.

    stderr, widget views (their text and picture stay), tracebacks and metadata go, but for a
    picture's alternative text. Machine paths and memory addresses in what is left are an error, as
    is a notebook above MAX_BYTES.
    """
    places = {*scratch, str(Path.home()) + "/", str(Path(__file__).parents[1])}
    problems = []
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        kept: list[NotebookNode] = []
        for output in cell.outputs:
            if output.output_type == "stream":
                if output.name == "stderr":
                    continue
                if kept and kept[-1].output_type == "stream":
                    kept[-1].text += output.text
                    continue
            elif output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
            else:
                output.data.pop(WIDGET, None)
                alt = output.metadata.get("image/png", {}).get("alt")
                output.metadata = {"image/png": {"alt": alt}} if alt else {}
            kept.append(output)
        cell.outputs = kept
        text = "\n".join(map(_text, kept))
        if MACHINE_PATH.search(text) or any(place in text for place in places):
            problems.append(f"{unit}: cell {cell.id} (`{_first_line(cell)}`) shows a machine path")
        if ADDRESS.search(text):
            problems.append(
                f"{unit}: cell {cell.id} (`{_first_line(cell)}`) shows a memory address,"
                " which differs on each run; end its last line with `;`"
            )
    problems += without_alt(unit, notebook)
    problems += fragile_outputs(unit, notebook)
    size = len(nbformat.writes(notebook).encode())
    if size > MAX_BYTES:
        problems.append(f"{unit}: {size / 1e6:.1f} MB with outputs; at most {MAX_BYTES / 1e6} MB")
    if problems:
        raise SourceError("\n".join(problems))


def without_alt(unit: str, notebook: NotebookNode) -> list[str]:
    """Name the cells with a picture that says nothing to whoever does not see it."""
    return [
        f"{unit}: cell {cell.id} (`{_first_line(cell)}`) has a figure without alternative text;"
        " show it with plots.show"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
        and not output.metadata.get("image/png", {}).get("alt")
    ]


def _text(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return output.evalue
    return "\n".join(v for k, v in output.data.items() if k.startswith("text/"))


def without_outputs(notebook: NotebookNode) -> str:
    """Give the notebook's text with outputs and execution counts taken out."""
    bare = copy.deepcopy(notebook)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(bare)
