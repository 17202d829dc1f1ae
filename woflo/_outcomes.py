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

__all__ = ["Cursor", "Outcomes", "Segment", "Taker"]


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


class Taker:
    """Whoever takes outcomes, one at a time."""

    _taken: tuple[Segment, int] | None = None


class Cursor:
    """How far somebody has got."""

    __slots__ = ("at", "back", "offset", "ordered", "segment")

    def __init__(self, *, ordered: bool) -> None:
        self.ordered: bool = ordered
        self.at: int = 0  # an item's number, or a place in the history
        self.segment: Segment | None = None
        self.offset: int = 0
        self.back: list[tuple[Segment, int]] = []  # taken, and not handed out: Ctrl-C came


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
        self._history: Any = deque() if forgets else []  # segments
        self._cursor: Cursor | None = None  # the one, where what was handed out is forgotten

    def add(self, segments: list[Segment], leaving: dict[Any, Any], key: Any) -> None:
        """Outcomes are known, and what they are of leaves the place where it was: `leaving[key]`.

        Ctrl-C finds both or neither: what changes does so in statements between which nothing is called.
        """
        with self.lock:
            known = {segment.start: segment for segment in segments}
            first = self.first_failed
            failures = 0
            for segment in segments:
                failures += len(segment.values) if segment.stopped else len(segment.failed)
                if segment.stopped or segment.failed:
                    place = 0 if segment.stopped else min(segment.failed)
                    if first is None or segment.start + place < first[0].start + first[1]:
                        first = segment, place
            done = sum(len(segment.values) for segment in segments)
            history = [] if self._cursor is not None and self._cursor.ordered else segments
            self._segments |= known
            self._history += history
            self.done += done
            self.failures += failures
            self.first_failed = first
            leaving.pop(key, None)

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
            if cursor.segment is not None or cursor.back:
                return True
            return cursor.at in self._segments if cursor.ordered else cursor.at < len(self._history)

    def next(self, cursor: Cursor, taker: Taker) -> None:
        """Give the next outcome to `taker._taken`, its segment and its place there; None if there is none now."""
        with self.lock:
            if not self.has_next(cursor):
                taker._taken = None
                return
            if cursor.back:
                taker._taken = cursor.back[-1]
                del cursor.back[-1]
                return
            segment = cursor.segment
            if segment is None:
                segment = self._segments[cursor.at] if cursor.ordered else self._history[cursor.at]
            place, number = cursor.offset, len(segment.values)
            # from here on nothing is called: Ctrl-C finds the item taken or not
            taker._taken = segment, place
            cursor.segment, cursor.offset = segment, place + 1
            if place + 1 == number:
                cursor.segment, cursor.offset = None, 0
                if cursor.ordered:
                    cursor.at += number
                elif not self.forgets:
                    cursor.at += 1
                if self.forgets:
                    del self._segments[segment.start]
                    if not cursor.ordered:
                        del self._history[0]
            if self.forgets:
                self.handed += 1

    def in_order(self) -> Iterator[Segment]:
        """All segments, as long as there is no gap."""
        at = 0
        while (segment := self._segments.get(at)) is not None:
            yield segment
            at += len(segment.values)
