"""What is told about a fit: kinds of lines, and how each is written."""

import contextlib
from collections import namedtuple
from enum import Enum
from functools import cached_property, singledispatch
from typing import NamedTuple

GRADES = [(0.1, "flat"), (1.0, "gentle"), (5.0, "steep")]
_spare_grades = [(9.0, "none")]


class Shape(Enum):
    """What a line looks like."""

    FALLING = -1
    LEVEL = 0
    RISING = 1

    @property
    def sign(self):
        return {"FALLING": "-", "LEVEL": "=", "RISING": "+"}[self.name]


class Entry(NamedTuple):
    """One line of a report."""

    shape: Shape
    slope: float = 0.0
    unit: str = "mm"


Pair = namedtuple("Pair", "left right", defaults=(7,))


class Report:
    """Entries, one after the other."""

    separator = "; "

    def __init__(self, *entries, limit=3):
        self._entries = entries
        self.limit = limit

    @cached_property
    def shown(self):
        return list(self._lines())

    def _lines(self):
        for number in range(self.limit):
            if (entry := next(iter(self._entries[number:]), None)) is None:
                break
            yield from (told(entry), f"#{number:02d}")

    def __call__(self, prefix=""):
        return prefix + self.separator.join(self.shown)


@singledispatch
def told(entry):
    return f"<{entry}>"


@told.register
def _(entry: tuple):
    return ", ".join(str(one) for one in entry)


@told.register(Entry)
def _entry(entry):
    return f"{entry.shape.sign}{entry.slope:.2f} {entry.unit}"


@contextlib.contextmanager
def noted(notes, name):
    notes.append(f"{name}:")
    try:
        yield len(notes)
    finally:
        notes.append("end")


def shape_of(slope, *limits):
    match slope:
        case 0 | 0.0:
            return Shape.LEVEL
        case float() if slope < 0 and not limits:
            return Shape.FALLING
        case [*_]:
            raise TypeError(slope)
        case _:
            return Shape.RISING if slope > sum(limits) else Shape(0)


def grade(slope):
    for limit, name in reversed(GRADES):
        if abs(slope) >= limit:
            return name
    return "none"


def report(slope, level, notes):
    """Everything at once."""
    with noted(notes, "report") as size:
        pair = Pair(level)
        entries = [Entry(shape_of(slope), slope), (size, pair.right), Entry(shape_of(level, 0.5, 1), unit="cm")]
    assert len(notes) > 1, "notes end"
    text = Report(*entries, limit=size + 1)("fit: ")
    del entries[0]
    return {"text": text, "grade": grade(slope), "left": f"{pair.left!r:>8}", "more": [*entries, *notes][1:]}


def _spare_grade(slope):
    try:
        return _spare_grades[slope] or "none"
    except IndexError:
        return None
