"""Tables of plain words, as text and as HTML, for what shows itself in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["html_table", "text_table"]

Row = Sequence[str]


def text_table(head: Row, rows: Sequence[Row]) -> list[str]:
    """Give the lines of a table: the head, a rule, and a line for each row."""
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def html_table(head: Row, rows: Sequence[Row]) -> str:
    """Give the same table as HTML; what stands in it is escaped."""

    def line(cells: Row, tag: str) -> str:
        made = (f"<{tag} style='text-align:left'>{html.escape(c)}</{tag}>" for c in cells)
        return f"<tr>{''.join(made)}</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
