"""What is to be done at a time: a heap of actions. It decides when; whoever takes steps carries out.

An action is not lost by Ctrl-C: what has been taken off the heap stays known until its action is done, and `restore` puts
it back.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SWEEP_AT = 128  # entries at which those that were cancelled are thrown out; then at twice what is left


class Timer:
    """Something to be done at a time; `cancel` keeps it from being done."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Don't do it; a second call does nothing."""
        self.action = None


class Timers:
    """Actions by their times. Guarded by the supervisor's lock, except for looks at `heap`."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Timer]] = []  # cancelled ones too
        self._order = count()
        self._begun: list[Timer] = []  # taken off the heap, their actions perhaps not done
        self._sweep_at = _SWEEP_AT

    def add(self, when: float, action: Callable[[], None]) -> tuple[Timer, bool]:
        """Have `action()` called at a time (monotonic); the timer, and whether it is now the first of all."""
        timer = Timer(action)
        first = not self.heap or when < self.heap[0][0]
        heappush(self.heap, (when, next(self._order), timer))
        if len(self.heap) >= self._sweep_at:
            self.heap = [entry for entry in self.heap if entry[2].action is not None]
            heapify(self.heap)
            self._sweep_at = max(_SWEEP_AT, 2 * len(self.heap))
        return timer, first

    def pop(self) -> Timer | None:
        """The next timer whose time has come; it stays known to `restore` until its action is done."""
        if not self.heap or self.heap[0][0] > monotonic():
            return None
        timer = self.heap[0][2]
        self._begun = [one for one in self._begun if one.action is not None]
        self._begun.append(timer)
        heappop(self.heap)
        return timer

    def restore(self) -> None:
        """Ctrl-C has cut something short: what had begun and is not done is due again."""
        begun, self._begun = self._begun, []
        for timer in begun:
            if timer.action is not None:
                heappush(self.heap, (monotonic(), next(self._order), timer))
