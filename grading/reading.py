"""Reading whatever was handed in: to a list of cells, or to words that say why not."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST_FILE = 256 << 20
MOST_CELLS = 5_000
LARGEST_SOURCE = 2_000_000
KINDS = ("code", "markdown", "raw")


class Refused(Exception):
    """A submission that cannot be graded; the message is for the student."""


@dataclass
class Piece:
    """One cell of a submission, as far as it matters: no output and no metadata but its name.

    Attributes:
        kind: "code", "markdown" or "raw".
        source: its text.
        id: of the cell, or "".
        grade_id: nbgrader's name for it, or "".
    """

    kind: str
    source: str
    id: str = ""
    grade_id: str = ""


def read_file(path: Path) -> bytes:
    """Read a submitted file, which has to be a file: no link, no pipe, no device.

    Raises:
        Refused: it is none, or larger than 256 MB.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"{path.name} is a link or cannot be opened. Hand in the file.") from error
    with os.fdopen(number, "rb") as file:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{path.name} is not a file.")
        if status.st_size > LARGEST_FILE:
            raise Refused(
                f"{path.name} has {status.st_size >> 20} MB, and at most {LARGEST_FILE >> 20} are "
                "taken. Clear all outputs (Edit > Clear Outputs of All Cells), save, hand in again."
            )
        return file.read(LARGEST_FILE + 1)


def read_cells(content: bytes) -> list[Piece]:
    """Read the cells of a notebook of any format from 3 on, however it was written.

    Raises:
        Refused: it is not a notebook.
    """
    data = _json(_text(content))
    if not isinstance(data, dict):
        raise Refused("The file is JSON, but no notebook. Download it again as .ipynb.")
    cells = data.get("cells")
    if cells is None and isinstance(data.get("worksheets"), list):  # nbformat 3
        sheets = [sheet for sheet in data["worksheets"] if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets for cell in sheet.get("cells") or []]
    if not isinstance(cells, list):
        raise Refused("The file is JSON, but has no cells. Download it again as .ipynb.")
    if len(cells) > MOST_CELLS:
        raise Refused(f"The notebook has {len(cells)} cells; at most {MOST_CELLS} are taken.")
    return [_piece(cell) for cell in cells if isinstance(cell, dict)]


def _text(content: bytes) -> str:
    if not content.strip(b"\x00 \t\r\n"):
        raise Refused("The file is empty. Save the notebook and hand it in again.")
    if content[:4] == b"PK\x03\x04":
        raise Refused("The file is a zip archive with the name of a notebook.")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise Refused("The file is not text. Download it again as .ipynb.")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise Refused("The file is nested too deeply to be a notebook.") from None
    except ValueError as error:
        start = text.lstrip()[:200].lower()
        if start.startswith(("<!doctype", "<html")):
            raise Refused(
                "The file is a web page. In Jupyter or Colab choose File > Download > Download "
                ".ipynb instead of saving the page."
            ) from None
        if not start.startswith("{"):
            raise Refused("The file is no notebook. Hand in the .ipynb file.") from None
        if not text.rstrip().endswith("}"):
            raise Refused(
                f"The file stops in the middle, after {len(text)} characters: the upload or the "
                "download was interrupted. Save the notebook and hand it in again."
            ) from None
        raise Refused(f"The notebook is damaged: {error}. Save it and hand it in again.") from None


def _piece(cell: dict) -> Piece:
    kind = cell.get("cell_type")
    kind = kind if kind in KINDS else "markdown"
    source = cell.get("source", cell.get("input", ""))
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    source = source if isinstance(source, str) else ""
    if len(source) > LARGEST_SOURCE:
        raise Refused(f"One cell has {len(source)} characters; at most {LARGEST_SOURCE} are taken.")
    source = source.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    source = source.encode("utf-8", "replace").decode("utf-8")
    return Piece(kind, source, _word(cell.get("id")), _grade_id(cell.get("metadata")))


def _grade_id(metadata: Any) -> str:
    known = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return _word(known.get("grade_id")) if isinstance(known, dict) else ""


def _word(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= 200 else ""
