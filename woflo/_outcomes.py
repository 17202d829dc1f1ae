"""What became of a group's items: stored by segments, handed out in order or as they came.

A segment is the outcomes of consecutive items that became known together. Where the items' number is not known, each is handed
out once and then forgotten; else everything is kept, and everybody gets everything. One lock guards it all; it knows no runner
and calls nobody.
"""

from __future__ import annotations

from _thread import RLock
from collections import deque

from woflo.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from woflo.runners.base import BaseTaskRun

__all__ = ["Cursor", "Outcomes", "Segment"]


class Segment:
    """Outcomes of items from `start` on, one after the other."""

    __slots__ = ("chunk", "failed", "run", "start", "stopped", "values")

    def __init__(self, start: int, values: list[Any]) -> None:
        self.start: int = start
        self.values: list[Any] = values
        self.failed: dict[int, BaseTaskRun[Any]] = {}  # by their places in the segment
        self.stopped: bool = False  # none of them was ever drawn: runs for them are made when they are asked for
        self.run: BaseTaskRun[Any] | None = None  # a single item's own
        self.chunk: BaseTaskRun[Any] | None = None  # the run that they were parts of


class Cursor:
    """How far somebody has got."""

    __slots__ = ("at", "offset", "ordered", "segment")

    def __init__(self, *, ordered: bool) -> None:
        self.ordered: bool = ordered
        self.at: int = 0  # an item's number, or a place in the history
        self.segment: Segment | None = None
        self.offset: int = 0


class Outcomes:
    """Of one group.

    Attributes:
        forgets: whether what was handed out is forgotten.
        done: items that have an outcome.
        failures: how many of them have no value.
        handed: out, where that is forgotten.
        first_failed: the foremost that failed so far: its segment and its place there.
    """

    def __init__(self, name: str, *, forgets: bool) -> None:
        self.name = name
        self.forgets = forgets
        self.lock = RLock()
        self.done = self.failures = self.handed = 0
        self.first_failed: tuple[Segment, int] | None = None
        self._segments: dict[int, Segment] = {}
        self._history: deque[Segment] | list[Segment] = deque() if forgets else []
        self._cursor: Cursor | None = None  # the one, where what was handed out is forgotten

    def add(self, segments: list[Segment]) -> None:
        """Outcomes are known."""
        with self.lock:
            for segment in segments:
                self._segments[segment.start] = segment
                if not (self._cursor is not None and self._cursor.ordered):
                    self._history.append(segment)
                self.done += len(segment.values)
                self.failures += len(segment.values) if segment.stopped else len(segment.failed)
                if segment.stopped or segment.failed:
                    place = 0 if segment.stopped else min(segment.failed)
                    known = self.first_failed
                    if known is None or segment.start + place < known[0].start + known[1]:
                        self.first_failed = segment, place

    def cursor(self, *, ordered: bool) -> Cursor:
        """A place to begin at.

        Raises:
            UsageError: the items are handed out once, and go elsewhere.
        """
        with self.lock:
            if not self.forgets:
                return Cursor(ordered=ordered)
            if self._cursor is None:
                self._cursor = Cursor(ordered=ordered)
                if ordered:
                    self._history.clear()
            elif self._cursor.ordered is not ordered:
                raise UsageError(
                    f"{self.name}: its iterable has no len(), so its items are handed out once: either in order or as completed"
                )
            return self._cursor

    def check_whole(self) -> None:
        """Raise UsageError if some were handed out and are forgotten."""
        if self.handed:
            raise UsageError(
                f"{self.name}: {self.handed} of its items were handed out and are forgotten, because its iterable has no len(); "
                "go on with them, or map a list"
            )

    def has_next(self, cursor: Cursor) -> bool:
        """Whether there is something to be handed out now."""
        with self.lock:
            if cursor.segment is not None:
                return True
            return cursor.at in self._segments if cursor.ordered else cursor.at < len(self._history)

    def next(self, cursor: Cursor) -> tuple[Segment, int] | None:
        """The next outcome: its segment and its place there; None if there is none now."""
        with self.lock:
            if not self.has_next(cursor):
                return None
            segment = cursor.segment
            if segment is None:
                segment = self._segments[cursor.at] if cursor.ordered else self._history[cursor.at]
                cursor.segment, cursor.offset = segment, 0
            place = cursor.offset
            cursor.offset += 1
            if cursor.offset == len(segment.values):
                self._leave(cursor, segment)
            if self.forgets:
                self.handed += 1
            return segment, place

    def _leave(self, cursor: Cursor, segment: Segment) -> None:
        cursor.segment = None
        if cursor.ordered:
            cursor.at += len(segment.values)
        elif not self.forgets:
            cursor.at += 1
        if self.forgets:
            del self._segments[segment.start]
            if isinstance(self._history, deque) and not cursor.ordered:
                self._history.popleft()

    def in_order(self) -> Iterator[Segment]:
        """All segments, as long as there is no gap."""
        at = 0
        while (segment := self._segments.get(at)) is not None:
            yield segment
            at += len(segment.values)
