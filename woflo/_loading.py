"""Importing in a thread that must not be late.

A thread that gives up the GIL gets it back from one that computes only after the switch interval (5 ms), and an import gives
it up for every file that it looks for: loading the log takes 80 ms alone and 2 s beside a busy main thread, in which nothing
that falls due is done. So whoever loads something in a thread that others rely on does it in a `hurry`.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SWIFT = 0.0002  # seconds; the log takes 0.2 s then. Shorter gains nothing

_one = allocate_lock()  # held by the thread that has shortened the interval; others load at the usual pace


def loaded(name: str) -> Any:
    """A module that is imported; None if it isn't, or another thread is just importing it and half of it isn't there."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


class hurry:  # noqa: N801 - read as a verb: `with hurry():`
    """A `with` block in which this thread gets the GIL soon; afterwards the interval is what it was.

    A fork in between by another thread leaves the short interval to the child, where it does no harm.
    """

    __slots__ = ("_before", "_ours")

    def __enter__(self) -> None:
        self._before = self._ours = 0.0
        if _one.acquire(False):
            self._before = sys.getswitchinterval()
            sys.setswitchinterval(min(_SWIFT, self._before))
            self._ours = sys.getswitchinterval()

    def __exit__(self, *_: object) -> None:
        if self._ours:
            if sys.getswitchinterval() == self._ours:  # else the program has set one of its own meanwhile
                sys.setswitchinterval(self._before)
            _one.release()
