"""The solution notebook: executed, every check at full marks, outputs lean."""

from __future__ import annotations

import copy
import json
import os
import re
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from course.lint import MACHINE_PATH
from course.markers import NOTEBOOK_METADATA, SourceError

CELL_SECONDS = 300
MAX_BYTES = 1_500_000
WIDGET = "application/vnd.jupyter.widget-view+json"
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b")


def execute(unit: str, notebook: NotebookNode) -> float:
    """Run a solution notebook in place, in an empty folder; give the seconds it took.

    Raises:
        SourceError: a cell fails, a check earns less than full marks, or an output is not lean.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "work")
        folder.mkdir()
        progress = Path(scratch, "progress.json")
        environment = {k: v for k, v in os.environ.items() if k != "NBGRADER_EXECUTION"} | {
            "IPYTHONDIR": str(Path(scratch, "ipython")),
            "KDLIB_PROFILE": os.environ.get("KDLIB_PROFILE", "cpu"),
            "KDLIB_PROGRESS": str(progress),
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
            store_widget_state=False,
        )
        start = time.perf_counter()
        try:
            client.execute(env=environment)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise SourceError(_failure(unit, notebook, error)) from None
        seconds = time.perf_counter() - start
        full_marks(unit, notebook, progress)
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


def full_marks(unit: str, notebook: NotebookNode, progress: Path) -> None:
    """Refuse a solution that does not earn all points of each of its checks."""
    record = json.loads(progress.read_text(encoding="utf-8")) if progress.exists() else {}
    short = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            name = cell.metadata.nbgrader.grade_id.replace("-", ".", 1)
            entry = record.get(name, {})
            if not entry or entry["last"] < entry["of"]:
                got = f"{entry.get('last', 0):g} of {cell.metadata.nbgrader.points:g} points"
                short.append(f"{unit}: the solution of {name} earns {got}{_says(cell)}")
    if short:
        raise SourceError("\n".join(short))


def _says(cell: NotebookNode) -> str:
    texts = [o.data.get("text/plain", "") for o in cell.outputs if "data" in o]
    return "".join(f"\n    {line}" for text in texts for line in text.splitlines())


def lean(unit: str, notebook: NotebookNode, scratch: tuple[str, ...] = ()) -> None:
    """Keep what a reader sees and what is the same on each run; refuse the rest.

    stderr, widget views (their text stays), the kernel's metadata and tracebacks go. Machine paths
    and memory addresses in what is left are an error, as is a notebook above MAX_BYTES.
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
                output.metadata = {}
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
    size = len(nbformat.writes(notebook).encode())
    if size > MAX_BYTES:
        problems.append(f"{unit}: {size / 1e6:.1f} MB with outputs; at most {MAX_BYTES / 1e6} MB")
    if problems:
        raise SourceError("\n".join(problems))


def _text(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return output.evalue
    return "\n".join(v for k, v in output.data.items() if k.startswith("text/"))


def reuse_outputs(notebook: NotebookNode, stored: Path) -> None:
    """Take over the stored outputs of every code cell whose id and source are the same."""
    if not stored.exists():
        return
    before = {(c.id, c.source): c for c in nbformat.read(stored, as_version=4).cells}
    for cell in notebook.cells:
        if cell.cell_type == "code" and (cell.id, cell.source) in before:
            old = before[cell.id, cell.source]
            cell.outputs, cell.execution_count = old.outputs, old.execution_count


def without_outputs(notebook: NotebookNode) -> str:
    """Give the notebook's text with outputs and execution counts taken out."""
    bare = copy.deepcopy(notebook)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.writes(bare)
