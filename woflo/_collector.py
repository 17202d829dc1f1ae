"""Building without the collector: half of the time that a million objects take goes into looking at them for cycles."""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


class paused:  # noqa: N801 - read as a state: `with paused():`
    """A `with` block in which the cyclic garbage collector rests, in the whole process; afterwards it is as it was.

    For blocks that make many objects that stay. Two threads may be inside: the first to leave wakes the collector.
    """

    __slots__ = ("_was",)

    def __enter__(self) -> None:
        self._was = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was:
            gc.enable()


def frames() -> dict[int, FrameType]:
    """What each thread is at, by its number.

    Up to Python 3.11.8 and 3.12.2 a collection in the midst of it waits for a lock that this very thread holds, if it finds the
    state of threads (a `threading.local`) to be destroyed: github.com/python/cpython/issues/106883.
    """
    with paused():
        return sys._current_frames()
