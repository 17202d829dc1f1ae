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


_CONTAINERS = frozenset({list, tuple, dict, set, frozenset, str, bytes, range})


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
        error: what the iterable raised, told when everything before has been; or that it was torn.
        ended: whether nothing more can be drawn.
    """

    def __init__(self, items: Iterable[Any], size: int | None, *, many: bool) -> None:
        self.size = size
        self.drawn = 0
        self.error: BaseException | None = None
        self.ended = False
        self._items: Iterator[Any] = map(tuple, items) if many else iter(items)
        self._ours = type(items) in _CONTAINERS and not many  # no code of the user's runs when it is drawn from
        self._range: Any = items if type(items) is range else None  # travels as what it is
        self._open: Batch | None = None

    def draw(self, number: int) -> Batch:
        """So many items, or as many as there are. They are not gone before `take`."""
        if self._range is not None:
            return Batch(self.drawn, self._range[self.drawn : self.drawn + number])
        batch = self._open
        if batch is None:
            batch = self._open = Batch(self.drawn, [])
        items: Any = batch.items
        try:
            if self.error is None:
                items.extend(islice(self._items, max(0, number - len(items))))
        except Exception as raised:
            self.error = raised
        except BaseException as raised:
            tb = raised.__traceback__
            if tb is not None and tb.tb_next is not None and not self._ours:  # it came out of the iterable
                what = "Ctrl-C" if isinstance(raised, KeyboardInterrupt) else type(raised).__name__
                self.error = StoppedFailure(
                    f"{what} came while items were drawn: those that would have followed are missing"
                )
            raise
        return batch

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
        error = None if isinstance(self.error, StoppedFailure) else self.error  # that items are missing is meant so
        # from here to the caller's assignment nothing is called
        self.ended = True
        self.error = error
        self._open = None
        self.drawn = self.size = size
        return rest
