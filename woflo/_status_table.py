"""A workflow's steps as a table: HTML in a notebook, text elsewhere.

Rule 1: whatever stands in a cell is text; it is escaped.
Rule 2: IPython is asked where it runs already, and never imported.
"""

from __future__ import annotations

import sys
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Row", "show", "to_html", "to_text"]

NOTHING = "—"
_COLOURS = {"cached": "#060", "on_disk": "#063"}
_GREY = "#888"
_HEADERS = ("Step", "Produces", "Requires", "Status")


class Row(NamedTuple):
    """One product of one step."""

    step: str
    produces: str
    requires: str
    status: str


def show(title: str, rows: Iterable[Row]) -> None:
    """Print the table, or display it if this is a notebook."""
    rows = list(rows)
    display = _display()
    if display is None:
        print(to_text(title, rows))  # noqa: T201 - that is what it is for
    else:
        display.display(display.HTML(to_html(title, rows)))


def to_html(title: str, rows: Iterable[Row]) -> str:
    """The table as HTML."""
    heads = "".join(f'<th style="text-align:left; padding:4px 12px 4px 0;">{name}</th>' for name in _HEADERS)
    lines = []
    for row in rows:
        cells = [f'<td style="padding:2px 12px 2px 0; font-family:monospace;">{escape(text)}</td>' for text in row[:3]]
        colour = _COLOURS.get(row.status, _GREY)
        cells.append(f'<td style="padding:2px 0; color:{colour}; font-weight:bold;">{escape(row.status)}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<h4>{escape(title)}</h4><table><tr>{heads}</tr>{''.join(lines)}</table>"


def to_text(title: str, rows: Iterable[Row]) -> str:
    """The table as lines of text."""
    rows = list(rows)
    widths = [max(len(name), *(len(row[at]) for row in rows), 0) for at, name in enumerate(_HEADERS[:3])]

    def line(cells: Iterable[str]) -> str:
        *first, last = cells
        return "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(first, widths, strict=True)), last])

    rule = line([*("-" * width for width in widths), "-" * len(_HEADERS[3])])
    return "\n".join([title, line(_HEADERS), rule, *map(line, rows)])


def _display() -> Any:
    """The module that displays things, if this is a notebook; a terminal shows text better."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or type(shell).__name__ == "TerminalInteractiveShell":
        return None
    import importlib

    return importlib.import_module("IPython.display")
