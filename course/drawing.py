"""Draw the rooms of the house and who knows whom, from the code's own imports.

`python -m course draw` writes docs/architecture.svg; `make lint` fails when it is stale.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

FILE = Path("docs", "architecture.svg")
OUTSIDE = ("course", "evidence", "grading")
ROW, LEFT, WIDTH = 40, 220, 600
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07800", "#3C8DBC")


class Room(NamedTuple):
    """A package or a lone module: its name, how many modules, and the rooms that it imports."""

    name: str
    modules: int
    knows: set[str]


def order(root: Path) -> list[str]:
    """Give the rooms from top to bottom, as pyproject.toml's contract states them."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    inside = [name.strip() for layer in layers for name in layer.split("|")]
    return [*OUTSIDE, *(f"kdlib.{name}" for name in inside)]


def rooms(root: Path) -> list[Room]:
    """Read every import of the repository and add them up, room by room."""
    import grimp

    graph = grimp.build_graph("kdlib", *OUTSIDE, exclude_type_checking_imports=True, cache_dir=None)
    names = order(root)

    def room_of(module: str) -> str | None:
        return next((n for n in names if module == n or module.startswith(f"{n}.")), None)

    modules = dict.fromkeys(names, 0)
    knows: dict[str, set[str]] = {name: set() for name in names}
    for module in sorted(graph.modules):
        room = room_of(module)
        if room is None:
            continue
        modules[room] += 1
        for target in graph.find_modules_directly_imported_by(module):
            other = room_of(target)
            if other not in (None, room):
                knows[room].add(other)
    return [Room(name, modules[name], knows[name]) for name in names]


def draw(root: Path) -> str:
    """Give the picture as SVG: a row for each room, an arc for each that it imports."""
    found = rooms(root)
    place = {room.name: 40 + ROW * row for row, room in enumerate(found)}
    height = 60 + ROW * len(found)
    arrows = sum(len(room.knows) for room in found)
    upward = [(r.name, o) for r in found for o in r.knows if place[o] < place[r.name]]
    title = f"{len(found)} rooms, {arrows} arrows, {len(upward)} of them upwards"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{title}" font-family="system-ui, sans-serif" font-size="14">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fcfcfb"/>',
    ]
    for row, room in enumerate(found):
        for other in sorted(room.knows):
            parts.append(_arc(place[room.name], place[other], COLOURS[row % len(COLOURS)]))
    for row, room in enumerate(found):
        y, colour = place[room.name], COLOURS[row % len(COLOURS)]
        size = f"{room.modules} module{'s' * (room.modules > 1)}"
        parts += [
            f'<rect x="14" y="{y - 16}" width="{LEFT - 14}" height="32" rx="6" fill="#fff" '
            f'stroke="{colour}" stroke-width="1.5"/>',
            f'<text x="26" y="{y - 2}" font-weight="600" fill="#222">{room.name}</text>',
            f'<text x="26" y="{y + 12}" font-size="11" fill="#666">{size}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def stale(root: Path) -> bool:
    """Say whether the committed picture is not what the code's imports draw."""
    file = root / FILE
    return file.exists() and file.read_text(encoding="utf-8") != draw(root)


def _arc(start: int, end: int, colour: str) -> str:
    """Draw one arrow on the right: the further it goes, the further out it swings."""
    reach = LEFT + 20 + 0.62 * abs(end - start)
    return (
        f'<path d="M {LEFT} {start + 4} C {reach:.0f} {start + 4}, {reach:.0f} {end - 4}, '
        f'{LEFT + 8} {end - 4}" fill="none" stroke="{colour}" stroke-opacity="0.55" '
        f'stroke-width="1.5"/><path d="M {LEFT + 1} {end - 4} l 9 -4 l 0 8 z" '
        f'fill="{colour}"/>'
    )
