"""FakeClock: woflo's time in a test's hands. Nothing sleeps; what falls due does so in its order, in one thread.

What it replaces, from `__enter__` to `__exit__`:

    the time that woflo's modules read, but for those that look after worker processes
    the timers: time-outs of tasks, pauses between attempts, the grace of a stop (no background thread is started)
    the sleep of whoever waits: `wait`, `get_result`, `as_completed`, `Engine.orchestrate`, a pause on a thread or in place

What it does not: worker processes (refused), event loops (they keep their own time, so `co_orchestrate(timeout=)` and the
time-outs of coroutines do), the task's own `time.sleep`, the `at` of events, waiting for a thread of somebody else's.
"""

from __future__ import annotations

import sys
import time
from _thread import RLock, get_ident
from heapq import heappop, heappush
from importlib import import_module
from itertools import count
from math import inf, nextafter
from typing import TYPE_CHECKING, Any

from woflo.errors import UsageError
from woflo.runners import _process, _waiters

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["FakeClock"]

_BEGIN = 1_000.0  # what `monotonic()` says at first, in seconds: not 0, which stands for "not started"
_LOOK = 0.02  # real seconds: a thread that was about to sleep when the time moved looks again after this
_STUCK = 1.0  # real seconds in which another thread may end a wait that no appointment can end
_READERS = (
    "engine",
    "futures",
    "runners._progress",
    "runners._supervisor",
    "runners._waiting",
    "runners.asynchronous",
    "runners.executor",
    "runners.sequential",
    "runners.thread",
)
_REAL = (
    "_exit",
    "_launch",
    "_portable",
    "_poller",
    "_supervisor",
    "_worker",
    "multiprocess",
)  # real processes, real time

_current: FakeClock | None = None


class FakeClock:
    """Time that passes when the test says, for all of woflo in this process.

    ::

        with FakeClock() as clock:
            run = task(runner=ScriptedTaskRun, timeout=60)(fetch)()
            clock.advance(59)
            assert run.is_running()
            clock.advance(1)
            assert isinstance(run.outcome(), TimeoutFailure)

    And where the test's own thread would sleep inside woflo, time jumps to what comes next (an appointment, a timer, the
    end of the wait): a test can make its appointments, and then call what blocks::

            clock.call_later(5, lambda: runner.of("fetch").succeed(7))
            assert engine.orchestrate(timeout=10)
            assert clock.time == 5

    Other threads sleep until they are woken or the time moves.
    """

    def __init__(self, *, jumps: bool = True) -> None:
        """Make a clock that shows 0; it is woflo's inside of its `with` block.

        Args:
            jumps: whether time passes when the thread that entered the block waits. False where runs take real time (in
                threads): then it passes by `advance` only, called by a thread that doesn't wait.
        """
        self._jumps = jumps
        self._now = _BEGIN
        self._order = count()
        self._due: list[tuple[float, int, _Appointment]] = []
        self._lock = RLock()  # held around each change of the list of what is due
        self._asleep: list[_waiters.Waiter] = []  # other threads
        self._thread = 0
        self._replaced: list[tuple[Any, str, Any]] = []

    @property
    def time(self) -> float:
        """Seconds since the clock was made."""
        return self._now - _BEGIN

    def advance(self, seconds: float) -> None:
        """Let time pass; what falls due meanwhile is done here, at its time and in its order."""
        end = self._now + _waiters.seconds("advance() by", seconds)
        while (when := self._next()) is not None and when <= end:
            self._do_next()
        self._move(max(end, self._now))

    def call_later(self, seconds: float, action: Callable[[], object]) -> _Appointment:
        """Have `action()` called in so many seconds, by whoever lets the time pass.

        Returns:
            The appointment: `cancel()` calls it off.
        """
        appointment = _Appointment(action)
        with self._lock:
            heappush(self._due, (self._now + seconds, next(self._order), appointment))
        return appointment

    def __enter__(self) -> Self:
        """Be woflo's clock.

        Raises:
            UsageError: another one is.
        """
        global _current
        if _current is not None:
            raise UsageError("there is a FakeClock already: time has one master")
        _current = self
        self._thread = get_ident()
        for name in _READERS:
            import_module(f"woflo.{name}")
        for name, module in list(sys.modules.items()):
            ours = name.startswith("woflo.") and name.rpartition(".")[2] not in _REAL
            if ours and vars(module).get("monotonic") is time.monotonic:
                self._replace(module, "monotonic", lambda: self._now)
            if ours and vars(module).get("sleep") is time.sleep:
                self._replace(module, "sleep", self.advance)
        self._replace(_waiters.Waiter, "sleep", lambda waiter, seconds: self._sleep(waiter, seconds))  # noqa: PLW0108 - bound
        self._replace(_process, "supervisor", _Timekeeper(self))
        self._replace(sys.modules["woflo.runners._supervisor"], "get", _refuse)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the real time back; what has not fallen due never will."""
        global _current
        while self._replaced:
            owner, name, before = self._replaced.pop()
            setattr(owner, name, before)
        _current = None
        self._due.clear()
        self._wake()

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        self._replaced.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    def _next(self) -> float | None:
        """When something is due; None if nothing ever is."""
        with self._lock:
            while self._due and self._due[0][2].action is None:
                heappop(self._due)
            return self._due[0][0] if self._due else None

    def _do_next(self) -> None:
        with self._lock:
            if self._next() is None:
                return
            when, _, appointment = heappop(self._due)
            action, appointment.action = appointment.action, None
        self._move(max(when, self._now))
        if action is not None:
            action()

    def _move(self, moment: float) -> None:
        self._now = moment
        self._wake()

    def _wake(self) -> None:
        for waiter in list(self._asleep):
            waiter.wake()

    def _sleep(self, waiter: _waiters.Waiter, seconds: float | None) -> None:
        """In the place of `Waiter.sleep`."""
        if not self._jumps or get_ident() != self._thread:
            self._asleep.append(waiter)
            try:
                waiter.lock.acquire(timeout=_LOOK)
            finally:
                self._asleep.remove(waiter)
            return
        if waiter.lock.acquire(blocking=False):  # it has been signalled
            return
        when, end = self._next(), inf if seconds is None else self._now + seconds
        if when is not None and when <= end:
            self._do_next()
        elif seconds is not None:
            self._move(max(end, nextafter(self._now, inf)))  # a rest too small to be added must pass, too
        elif not waiter.lock.acquire(timeout=_STUCK):
            raise UsageError("nothing is due that could end this wait: make an appointment, or give it a timeout")


class _Appointment:
    """Something to be done at a time; `cancel` keeps it from being done."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], object]) -> None:
        self.action: Callable[[], object] | None = action

    def cancel(self) -> None:
        """Don't do it; a second call does nothing."""
        self.action = None


class _Timekeeper:
    """In the place of the supervisor: it keeps the time, and nothing falls due but by the clock."""

    driving = None

    def __init__(self, clock: FakeClock) -> None:
        self.call_later = clock.call_later

    def attend(self, run: object) -> None:
        """The clock looks after all runs."""

    def nothing(self) -> None:
        """There is no poller, no background thread and no worker."""

    dismiss = attend
    wake = nudge = step_aside = nothing

    def needs_hands(self) -> bool:
        return False

    def block(self, waiter: _waiters.Waiter, deadline: float | None, look: Callable[[], object]) -> None:
        _waiters.block(waiter, deadline, False, look)

    def __getattr__(self, name: str) -> Any:
        return _refuse()


def _refuse() -> Any:
    raise UsageError("worker processes take real time: under a FakeClock runs are scripted, inline or in threads")
