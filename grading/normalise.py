"""Putting a submission right: the released notebook with this student's work in its places.

What the release locks comes from the release. Answers are found by their anchor lines, which
survive everything, else by nbgrader's names, by the cells' ids, by their text, or by what they
define. The student's own cells stay where they were, after the released cell that they followed.
"""

from __future__ import annotations

import copy
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from grading.disarm import disarmed
from grading.reading import Piece, Refused, read_cells
from grading.template import ANCHOR, CHECK, Slot, Template

MAGIC_BELOW = re.compile(r"\A(?P<above>(?:[ \t]*(?:#.*)?\n)+)(?P<magic>%%\w.*)(?:\n|\Z)")
MAKE = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}


@dataclass
class Normalised:
    """A notebook that can be graded.

    Attributes:
        notebook: valid, with nbgrader's metadata, each released cell once and in order.
        repairs: what had to be put right, in words; empty for a clean notebook.
        released: ids of the cells that are as they were released.
        slots: what each released cell is for, by its id.
    """

    notebook: NotebookNode
    repairs: list[str]
    released: set[str]
    slots: dict[str, Slot]


@dataclass
class _Sorted:
    """The student's cells by the released cell that they stand for, and those that follow it."""

    taken: dict[int, Piece] = field(default_factory=dict)
    others: dict[int, list[Piece]] = field(default_factory=lambda: defaultdict(list))
    after: dict[int, list[Piece]] = field(default_factory=lambda: defaultdict(list))
    checked: set[int] = field(default_factory=set)  # answers chosen before their check came
    repairs: list[str] = field(default_factory=list)


def normalise(content: bytes, template: Template) -> Normalised:
    """Put a submission right.

    Args:
        content: the submitted file.
        template: the released notebook.

    Raises:
        Refused: it cannot be graded; the message says why, in words for the student.
    """
    pieces = [part for piece in read_cells(content) for part in _split(piece, template)]
    places = _places(pieces, template)
    sorted_ = _sort(pieces, places, template)
    for piece, place in zip(pieces, places, strict=True):
        if lifted := _magic_on_top(piece):
            piece.source = lifted
            where = _what(template.slots[place]) if place is not None else "a cell of the student's"
            sorted_.repairs.append(f"a cell magic was moved to the top of {where}")
    _require_this_unit(pieces, sorted_, template)
    return _assemble(sorted_, template)


def _magic_on_top(piece: Piece) -> str:
    """Move a cell magic above the comments that stand over it; "" when there is nothing to do.

    IPython takes it for one in the first line only, and the first line of an answer is its anchor.
    """
    found = MAGIC_BELOW.match(piece.source) if piece.kind == "code" else None
    if not found or "#" not in found["above"]:
        return ""
    return f"{found['magic']}\n{found['above']}{piece.source[found.end() :]}"


def _split(piece: Piece, template: Template) -> list[Piece]:
    """Take apart a cell that two or more answers were merged into."""
    known = [m.start() for m in ANCHOR.finditer(piece.source) if m[1] in template.by_anchor]
    if len(known) < 2:
        return [piece]
    edges = [0, *known[1:], len(piece.source)]
    parts = [piece.source[a:b].strip("\n") for a, b in pairwise(edges)]
    first = Piece(piece.kind, parts[0], piece.id, piece.grade_id)
    return [first, *(Piece(piece.kind, part) for part in parts[1:])]


def _places(pieces: list[Piece], template: Template) -> list[int | None]:
    """Which released cell each of the student's cells stands for: the surest signs first."""
    places: list[int | None] = [None] * len(pieces)
    claimed: set[int] = set()

    def claim(sign, once: bool) -> None:
        for number, piece in enumerate(pieces):
            if places[number] is None:
                place = sign(piece)
                if place is not None and not (once and place in claimed):
                    places[number] = place
                    claimed.add(place)

    def anchor(piece: Piece) -> int | None:
        known = (template.by_anchor.get(m[1]) for m in ANCHOR.finditer(piece.source))
        return next((place for place in known if place is not None), None)

    def check(piece: Piece) -> int | None:
        call = CHECK.match(piece.source) if piece.kind == "code" else None
        return template.by_check.get(call[1]) if call else None

    def named(piece: Piece) -> int | None:
        return template.by_grade_id.get(piece.grade_id)

    def same_text(piece: Piece) -> int | None:
        return template.by_source.get((piece.kind, piece.source.strip()))

    def defines(piece: Piece) -> int | None:
        for place in template.by_anchor.values():
            slot = template.slots[place]
            pattern = rf"^(?:(?:async )?def|class)\s+{slot.name}\b|^{slot.name}\s*=[^=]"
            sought = slot.role == "answer" and place not in claimed and piece.kind == "code"
            if sought and re.search(pattern, piece.source, re.MULTILINE):
                return place
        return None

    claim(anchor, once=False)
    claim(check, once=False)
    claim(named, once=True)
    claim(lambda piece: template.by_id.get(piece.id), once=True)
    claim(same_text, once=True)
    claim(defines, once=True)
    return places


def _sort(pieces: list[Piece], places: list[int | None], template: Template) -> _Sorted:
    found = _Sorted()
    last = -1  # the released cell that the student's own cells follow
    seen: list[int] = []
    for piece, place in zip(pieces, places, strict=True):
        if place is None:
            found.after[last].append(piece)
            continue
        slot = template.slots[place]
        if slot.role == "check" and slot.question in template.by_anchor:
            found.checked.add(template.by_anchor[slot.question])
        if place not in found.taken:
            found.taken[place] = piece
            seen.append(place)
            last = place
        elif slot.role in ("answer", "written"):
            _choose(found, place, piece, slot)
        elif slot.role == "free":
            found.after[last].append(piece)
        else:
            found.repairs.append(f"{_what(slot)} stood there twice")
    if seen != sorted(seen):
        found.repairs.append("cells were moved")
    for place, slot in enumerate(template.slots):
        if slot.role == "written":
            _adopt(found, place)
    return found


def _choose(found: _Sorted, place: int, piece: Piece, slot: Slot) -> None:
    """Of two cells for one answer, take the last that the student wrote before its check."""
    stub, before = slot.cell.source.strip(), found.taken[place].source.strip()
    found.repairs.append(f"{_what(slot)} stood there twice")
    if piece.source.strip() in (stub, before):
        return
    if slot.role == "written":
        found.taken[place].source += "\n\n" + piece.source
    elif before == stub:
        found.taken[place] = piece
    elif place in found.checked:
        found.repairs[-1] += "; the one before its check counts"
    else:
        found.others[place].append(found.taken[place])
        found.taken[place] = piece


def _adopt(found: _Sorted, place: int) -> None:
    """Take the student's text after a written answer into it; or, if it is gone, in its place."""
    source = place if place in found.taken else place - 1
    own = [piece for piece in found.after[source] if piece.kind != "code"]
    if own:
        texts = [piece.source for piece in own]
        if place in found.taken:
            texts.insert(0, found.taken[place].source)
        grade_id = found.taken[place].grade_id if place in found.taken else ""
        found.taken[place] = Piece("markdown", "\n\n".join(texts), grade_id=grade_id)
        found.after[source] = [p for p in found.after[source] if p.kind == "code"]


def _require_this_unit(pieces: list[Piece], found: _Sorted, template: Template) -> None:
    roles = Counter(template.slots[place].role for place in found.taken)
    names = [m[1][:2] for piece in pieces for m in ANCHOR.finditer(piece.source)]
    names += [piece.grade_id[:2] for piece in pieces if re.match(r"\d\d-", piece.grade_id)]
    foreign = Counter(name for name in names if name not in template.numbers)
    if foreign and sum(foreign.values()) > sum(name in template.numbers for name in names):
        other = foreign.most_common(1)[0][0]
        raise Refused(f"This is the notebook of unit {other}; {template.unit} was to be handed in.")
    if not roles["answer"] + roles["written"]:
        raise Refused(
            f"No answer of {template.unit} is in this notebook: neither the lines that say "
            "'(keep this line)' nor the functions that were asked for. Is it the right file?"
        )


def _assemble(found: _Sorted, template: Template) -> Normalised:
    made = Normalised(new_notebook(), found.repairs, set(), {})
    notebook = made.notebook
    notebook.metadata = copy.deepcopy(template.notebook.metadata)
    own = 0

    def add_own(pieces: list[Piece]) -> None:
        nonlocal own
        for piece in pieces:
            own += 1
            notebook.cells.append(MAKE[piece.kind](_safe(piece), id=f"own-{own}"))

    add_own(found.after[-1])
    stripped = False
    for place, slot in enumerate(template.slots):
        add_own(found.others[place])
        piece = found.taken.get(place)
        cell = copy.deepcopy(slot.cell)
        cell.id = slot.cell.get("id", f"cell-{place}")
        if slot.role in ("check", "locked"):
            if piece is None:
                made.repairs.append(f"{_what(slot)} was missing")
            elif piece.source.strip() != cell.source.strip():
                made.repairs.append(f"{_what(slot)} had been edited")
        elif piece is None:
            if slot.role != "free" or cell.cell_type == "code":
                made.repairs.append(f"{_what(slot)} was missing")
        else:
            if piece.kind != cell.cell_type:
                made.repairs.append(f"{_what(slot)} had become a {piece.kind} cell")
            if piece.source.strip() != cell.source.strip():
                cell.source = _safe(Piece(cell.cell_type, piece.source))
        stripped |= piece is not None and bool(slot.grade_id) and piece.grade_id != slot.grade_id
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if cell.source == slot.cell.source:
            made.released.add(cell.id)
        made.slots[cell.id] = slot
        notebook.cells.append(cell)
        add_own(found.after[place])
    if stripped:
        made.repairs.append("nbgrader's metadata was lost")
    notebook.nbformat_minor = 5
    return made


def _safe(piece: Piece) -> str:
    return piece.source if piece.kind == "code" else disarmed(piece.source)


def _what(slot: Slot) -> str:
    """Name a released cell in words."""
    if slot.role in ("answer", "written"):
        return f"the answer {slot.question}"
    if slot.role == "check":
        return f"the check of {slot.question}"
    if slot.role == "locked":
        return f"the cell {slot.grade_id}"
    first = next((line for line in slot.cell.source.splitlines() if line.strip()), "")
    return f"the cell that begins with {first[:40]!r}"
