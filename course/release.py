"""The student's notebook: nbgrader's own generate_assignment, and care for a student's work."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from datetime import datetime
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course.markers import SourceError, content_id


def release(unit: str, notebook: NotebookNode, config_file: Path) -> bytes:
    """Give the bytes that `nbgrader generate_assignment` makes of a solution notebook.

    It runs in a temporary course folder, without the gradebook, with the course's own settings.
    """
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import PyFileConfigLoader

    config = PyFileConfigLoader(config_file.name, path=str(config_file.parent)).load_config()
    log = logging.getLogger("course.nbgrader")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        config.CourseDirectory.root = str(root)
        config.SaveCells.enabled = False
        coursedir = CourseDirectory(config=config)
        coursedir.assignment_id = unit
        source = root / coursedir.source_directory / unit / f"{unit}.ipynb"
        source.parent.mkdir(parents=True)
        nbformat.write(notebook, source)
        converter = GenerateAssignment(
            coursedir=coursedir, config=config, no_database=True, log=log
        )
        converter.start()
        return (root / coursedir.release_directory / unit / f"{unit}.ipynb").read_bytes()


def holds_work(path: Path) -> bool:
    """Say whether somebody wrote into a released notebook.

    A cell is untouched when nbgrader's checksum of it, or the hash that is its id, still fits.
    Outputs do not count: they come back when the cell runs. A notebook that cannot be read may
    hold anything, so it counts as work.
    """
    from nbgrader.utils import compute_checksum

    def untouched(cell: NotebookNode) -> bool:
        known = cell.metadata.get("nbgrader") or {}
        if known:
            return known.get("checksum") == compute_checksum(cell)
        return cell.get("id", "").split("-")[0] == content_id(cell.cell_type, cell.source)

    if not path.exists():
        return False
    try:
        return not all(untouched(cell) for cell in nbformat.read(path, as_version=4).cells)
    except (OSError, ValueError, KeyError, AttributeError, nbformat.ValidationError):
        return True


def guard_work(path: Path, force: bool) -> None:
    """Refuse to replace a notebook with somebody's work in it; with `force`, keep a copy first."""
    if not holds_work(path):
        return
    if not force:
        raise SourceError(
            f"{path} holds somebody's work, which the build would replace."
            " Move it away, or build with --force, which keeps a copy beside it."
        )
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    backup = path.with_name(f"{path.stem}.{stamp}.bak.ipynb")
    write(backup, path.read_bytes())
    print(f"{path.stem}: the notebook with work in it is kept as {backup}")


def write(path: Path, content: bytes) -> None:
    """Write a file so that there is always either the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_bytes() == content:
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as new:
        new.write(content)
    try:
        os.chmod(new.name, 0o644)
        os.replace(new.name, path)
    except OSError:
        os.unlink(new.name)
        raise


def differences(what: str, committed: str, built: str) -> list[str]:
    """Say in a few lines where a committed notebook differs from what its source builds."""
    if committed == built:
        return []
    try:
        old, new = ({c["id"]: c for c in json.loads(text)["cells"]} for text in (committed, built))
    except (ValueError, KeyError, TypeError):
        return [f"{what}: not a notebook that the builder wrote"]
    lines = [f"{what}: differs from what the source builds"]
    lines += [f"  + {_show(new[i])}" for i in new if i not in old]
    lines += [f"  - {_show(old[i])}" for i in old if i not in new]
    lines += [f"  ~ {_show(new[i])}" for i in new if i in old and old[i] != new[i]]
    if len(lines) == 1:
        lines.append("  the cells are the same; their order, the notebook's metadata or the bytes")
    return lines


def _show(cell: dict) -> str:
    first = ("".join(cell["source"]).splitlines() or [""])[0]
    return f"{cell['id']}: {first[:70]}"
