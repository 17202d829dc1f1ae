"""How many items go together in one run: a decider. Numbers in, numbers out; no clock, no locks, no runs.

An item goes alone until items were measured to be short; then as many go together as make up `TARGET_NS` of work, at most
sixteen times as many as were measured together before, and never so many that workers would stand idle at the end.
"""

from __future__ import annotations

TYPE_CHECKING = False

__all__ = ["LEAST_NS", "TARGET_NS", "Sizing"]

TARGET_NS = 20_000_000
"""Work of a chunk: twenty times what a fresh process costs, a hundred times what a message to a warm worker does."""

LEAST_NS = TARGET_NS // 10
"""Work of a chunk at the end, where workers share what is left."""

_PROBED = 8  # one of so many items that are taken for long is measured: they may have been on a crowded machine only
_GROWTH = 16  # what a measurement of so many fewer items is trusted for
_COMPUTING = 0.5  # of its time: with less a chunk waits for something else, and more chunks than cores are worth it


class Sizing:
    """What is known of the items of one group.

    Attributes:
        together: whether items may go together at all.
        apart: whether one of them was seen to leave its worker's state changed: each goes alone, and is looked after.
        exact: whether items were measured where they ran; else with what their runs cost.
        busy: whether they compute, rather than wait for something.
        mean_ns: what an item takes, as far as it is known; 0: it isn't.
    """

    def __init__(self, fixed: int | None, *, together: bool) -> None:
        self.fixed = fixed
        self.together = together
        self.apart = False
        self.exact = False
        self.busy = False
        self.mean_ns = 0
        self._most = 1  # items that were measured together

    def size(self, left: int | None, workers: int) -> int:
        """How many items the next run gets.

        Args:
            left: items that are still to come; None: nobody knows.
            workers: how many runs make progress at once.
        """
        if self.apart or not self.together:
            return 1
        if self.fixed is not None:
            return self.fixed
        if not 0 < self.mean_ns <= TARGET_NS // 2:
            return 1
        number = min(TARGET_NS // self.mean_ns, _GROWTH * self._most)
        if left is not None:
            number = min(number, max(-(-left // (2 * workers)), LEAST_NS // self.mean_ns))
        return max(1, number)

    def probes(self, index: int) -> bool:
        """Whether an item that goes alone is to be measured where it runs: the first ones, and some where most are not short."""
        return self.apart or not self.exact or (self.mean_ns < 10 * TARGET_NS and index % _PROBED == 0)

    def measured(self, number: int, took_ns: int, computed_ns: int | None = None) -> None:
        """Some items took so long together, of which they computed so long (None: it isn't known).

        The time of an item with a run of its own holds what that costs; it counts until there is better, or if it is long.
        """
        if computed_ns is None:
            if self.exact and self.mean_ns < TARGET_NS // 2:
                return
        elif 4 * number < self._most and computed_ns < TARGET_NS:  # mostly what a chunk costs
            return
        else:
            self.exact = True
            self.busy = computed_ns > _COMPUTING * took_ns
            if self.busy:  # on a crowded machine it takes longer than it works
                took_ns = min(took_ns, computed_ns)
        mean = max(1, took_ns // max(1, number))
        if self.mean_ns == 0 or number > self._most:
            self.mean_ns = mean
        elif mean < self.mean_ns:
            self.mean_ns = (self.mean_ns + mean) // 2
        else:
            self.mean_ns += (mean - self.mean_ns) // 4
        if computed_ns is not None:
            self._most = max(self._most, number)
