"""From raw rows to numbers."""

from __future__ import annotations

import math
import re

import settings
from settings import LIMITS, MISSING
from wrappers import bounded, counted

NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_spare_seen = []


class BadRow(ValueError):
    """A row that can't be read."""

    def __init__(self, row, reason="unreadable"):
        super().__init__(f"{row}: {reason}")
        self.reason = reason


def parse(row: str) -> dict | None:
    """The fields of a row by their name; None for a comment."""
    text = row.strip()
    if text.startswith("#"):
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != len(settings.NAMES):
        raise BadRow(row)
    return dict(zip(settings.NAMES, parts))


def number(text: str, *, fallback: float = math.nan) -> float:
    if text.lower() in MISSING:
        return fallback
    found = NUMBER.match(text)
    if found is None or found.end() < len(text):
        raise BadRow(text, "no number")
    return float(found.group()) + settings.OFFSET


@bounded(LIMITS["low"], LIMITS["high"])
def clipped(text):
    value = number(text, fallback=0.0)
    return value if not math.isnan(value) else None


@counted
def clean(rows: list[str], strict: bool = False):
    """The values of all rows that are flagged as good."""
    values, bad = [], 0
    for row in rows:
        try:
            fields = parse(row)
        except BadRow as error:
            if strict:
                return error.reason
            bad += 1
            continue
        if fields and fields["flag"] in ("good", "fair") and not fields["station"].endswith("?"):
            values.append(clipped(fields["value"]))
    return values, bad


def _spare_report(rows):
    """Lines for people."""
    lines = []
    for place, row in enumerate(rows, start=1):
        if len(row) > 20:
            lines.append(f"{place}: {row[:20]}…")
        else:
            lines.append(f"{place}: {row}")
    return "\n".join(lines)
