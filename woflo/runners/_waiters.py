"""Threads and coroutines that wait for runs, and how they sleep.

Whoever waits is told by `signal(run)`, from any thread, perhaps more than once. A thread that waits for a process run drives
the supervisor meanwhile; so it may be asleep on its own lock or in the poller, and `wake` reaches it in both places.
"""

from __future__ import annotations

from _thread import _local, allocate_lock, get_ident
from collections import deque
from time import monotonic

from woflo.errors import UsageError
from woflo.runners import _process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable
    from typing import Any

    from woflo.runners.base import BaseTaskRun

RECHECK = 1.0  # seconds after which a sleeping waiter looks again by itself: no wait hangs on a lost wake-up


class Waiter:
    """One thread asleep until a run ends. `signal` may come from any thread, more than once."""

    __slots__ = ("done", "lock")

    def __init__(self) -> None:
        self.done = False
        self.lock = allocate_lock()
        self.lock.acquire()

    def signal(self, run: BaseTaskRun[Any] | None) -> None:  # noqa: ARG002 - as_completed wants to know which
        """What was waited for has happened."""
        self.done = True
        self.wake()

    def wake(self) -> None:
        """Have the thread look again."""
        try:
            self.lock.release()
        except RuntimeError:  # it is awake already
            pass
        supervisor = _process.supervisor
        if supervisor is not None and supervisor.driving is self:  # it sleeps in the poller, not on its lock
            supervisor.wake()

    def sleep(self, seconds: float | None) -> None:
        """Sleep until woken, at most `seconds`, at most `RECHECK`."""
        self.lock.acquire(timeout=RECHECK if seconds is None else max(0.0, min(seconds, RECHECK)))


class AsyncWaiter:
    """One coroutine asleep until a run ends."""

    __slots__ = ("future", "loop", "thread")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.future: Future[None] = loop.create_future()
        self.thread = get_ident()

    def signal(self, run: BaseTaskRun[Any] | None) -> None:  # noqa: ARG002
        """What was waited for has happened."""
        try:
            if get_ident() == self.thread:
                self._set()
            else:
                self.loop.call_soon_threadsafe(self._set)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            return

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def deadline(timeout: float | None) -> float | None:
    """When a wait of so many seconds ends (monotonic); None: never.

    Raises:
        UsageError: it is no number of seconds.
    """
    if timeout is None:
        return None
    return monotonic() + seconds("timeout", timeout, ", or None")


def seconds(name: str, value: Any, otherwise: str = "") -> float:
    """An argument that is a time: any real number from 0 up, numpy's too.

    Raises:
        UsageError: it is something else.
    """
    number = hasattr(value, "__float__") and not isinstance(value, bool)
    if not number or not float(value) >= 0:
        raise UsageError(f"{name} must be seconds from 0 up{otherwise}, not {value!r}")
    return float(value)


def block(waiter: Waiter, deadline: float | None, pump: bool, look: Callable[[], object]) -> None:
    """Block this thread until the waiter is signalled or the deadline (monotonic) has passed.

    `look()` is called at least every `RECHECK` seconds: it may find that what is waited for has happened unnoticed.
    """
    hooks = tuple(_process.waiting_hooks)
    for hook in hooks:
        hook(True)
    try:
        if pump:
            _process.timers().block(waiter, deadline, look)
            return
        while not waiter.done:
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return
            waiter.sleep(left)
            look()
            supervisor = _process.supervisor
            if supervisor is not None and supervisor.needs_hands():
                supervisor.nudge()
    finally:
        for hook in hooks:
            hook(False)


def interactive() -> bool:
    """Whether this is a REPL or a notebook, where Ctrl-C ends the statement and not the program."""
    import builtins
    import sys

    return hasattr(sys, "ps1") or hasattr(builtins, "__IPYTHON__")


class _Local(_local):
    """Per thread: the starts of dependent runs that are still to be made."""

    starts: deque[Callable[[], None]] | None = None


_here = _Local()


def _forget() -> None:
    """In a forked child: whoever was making starts when the fork came goes on in the parent, not here."""
    _here.starts = None


_process.on_fork(_forget)


def one_after_the_other(starts: list[Callable[[], None]]) -> None:
    """Start dependent runs without recursion: a run that ends within its start lengthens the queue, not the stack."""
    queue = _here.starts
    if queue is not None:
        queue.extend(starts)
        return
    queue = deque(starts)
    try:
        _here.starts = queue
        _drain(queue)
    finally:
        _here.starts = None
        if queue:  # Ctrl-C must not lose the others
            one_after_the_other(list(queue))


def start_queued() -> None:
    """Make the starts that this thread has put off: before it blocks, since one of them may be what it waits for."""
    if _here.starts:
        _drain(_here.starts)


def _drain(queue: deque[Callable[[], None]]) -> None:
    while queue:
        start = queue[0]
        del queue[0]
        try:
            start()
        except KeyboardInterrupt:  # it may not have begun; one that has does nothing
            queue.appendleft(start)
            raise
