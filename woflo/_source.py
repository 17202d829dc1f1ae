"""A group's items as they are drawn: numbered from 0, one batch at a time.

Ctrl-C may come after any call (CPython looks for it when a call of C code returns, when a function begins, and when a loop
turns). What was drawn by then stays in the open batch, and the next draw goes on with that; a batch is the caller's as soon as
`take` has said so, in assignments that nothing can come between.
"""

from __future__ import annotations

from itertools import islice

from woflo.result import StoppedFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from woflo._chunk import Ledger
    from woflo.runners.base import BaseTaskRun

__all__ = ["Batch", "Source"]


class Batch:
    """Consecutive items on their way to runs."""

    __slots__ = ("alone", "begun", "items", "ledger", "place", "run", "start")

    def __init__(self, start: int, items: Sequence[Any], *, alone: bool = False) -> None:
        self.start = start
        self.items = items
        self.alone = alone  # whether each gets a run of its own
        self.place = 0  # of the first that has no run
        self.begun = False  # a run is being started, of that item or of them all
        self.run: BaseTaskRun[Any] | None = None  # that one
        self.ledger: Ledger | None = None  # its ledger, if it is of them all


class Source:
    """What items are drawn from.

    Attributes:
        size: how many there are; None: that is not known yet.
        drawn: how many were drawn.
        error: what the iterable raised.
        ended: whether nothing more can be drawn.
    """

    def __init__(self, items: Iterable[Any], size: int | None, *, many: bool) -> None:
        self.size = size
        self.drawn = 0
        self.error: BaseException | None = None
        self.ended = False
        self._many = many
        self._items: Iterator[Any] = iter(items)
        self._range: Any = items if type(items) is range else None  # travels as what it is
        self._open: Batch | None = None
        self._torn = False  # Ctrl-C came inside of the iterable

    def draw(self, number: int) -> Batch:
        """So many items, or as many as there are. They are not gone before `take`."""
        if self._range is not None:
            return Batch(self.drawn, self._range[self.drawn : self.drawn + number])
        batch = self._open
        if batch is None:
            batch = self._open = Batch(self.drawn, [])
        items: Any = batch.items
        before = len(items)
        error: Exception | None = None
        try:
            items.extend(islice(self._items, max(0, number - before)))
        except Exception as raised:  # the iterable's own: told when everything before has been
            error = raised
        except BaseException as raised:
            self._torn = raised.__traceback__ is not None and raised.__traceback__.tb_next is not None
            raise
        if error is None and len(items) < number and self._torn and (self.size is None or self.size > self._end(batch)):
            # a generator that Ctrl-C came into gives nothing more
            error = StoppedFailure("Ctrl-C came while items were drawn: those that would have followed are missing")
        self._torn = False
        if self._many and set(map(type, items)) != {tuple}:
            wrong = _make_tuples(items)
            error = wrong or error
        self.error = error
        return batch

    def _end(self, batch: Batch) -> int:
        return batch.start + len(batch.items)

    def take(self, batch: Batch, number: int) -> Batch | None:
        """What `draw(number)` has drawn is the caller's; None if it is empty."""
        end = batch.start + len(batch.items)
        ended = self.error is not None or len(batch.items) < number
        size = end if ended or (self.size is not None and end > self.size) else self.size
        # from here to the caller's assignment nothing is called
        self.drawn = end
        self.size = size
        self.ended = ended
        self._open = None
        return batch if batch.items else None

    def close(self) -> dict[int, tuple[range, None]]:
        """Draw nothing more; returns what is never drawn, as far as its number is known: by its start."""
        size = self.drawn if self.size is None else self.size
        rest = {} if self.drawn == size else {self.drawn: (range(size - self.drawn), None)}
        # from here to the caller's assignment nothing is called
        self.ended = True
        self._open = None
        self.drawn = self.size = size
        return rest


def _make_tuples(items: list[Any]) -> Exception | None:
    """Make each item a tuple of arguments; what was wrong with the first that can't be one, which ends the list."""
    for place, item in enumerate(items):
        try:
            items[place] = tuple(item)
        except Exception as error:
            del items[place:]
            return error
    return None
