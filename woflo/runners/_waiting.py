"""Waiting for several runs: `wait`, `as_completed`, `gather`."""

from __future__ import annotations

from collections import deque
from time import monotonic

from woflo.errors import UsageError, WaitTimeout
from woflo.runners import _waiters
from woflo.runners._waiters import Waiter
from woflo.runners.base import BaseTaskRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Literal, TypeVar, overload

    R = TypeVar("R")
else:
    from woflo._generic import overload

__all__ = ["as_completed", "gather", "wait"]


class _Collector(Waiter):
    """A waiter on several runs: those that have ended, in their order of ending."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        super().__init__()
        self.ended: deque[BaseTaskRun[Any]] = deque()

    def signal(self, run: BaseTaskRun[Any] | None) -> None:
        if run is not None:
            self.ended.append(run)
        super().signal(run)


def _checked(runs: Iterable[Any]) -> list[BaseTaskRun[Any]]:
    if isinstance(runs, BaseTaskRun):
        return [runs]
    found = list(runs)
    for one in found:
        if not isinstance(one, BaseTaskRun):
            raise UsageError(f"expected TaskRuns, got {type(one).__name__}; call the task to start a run")
    return found


def wait(runs: Iterable[BaseTaskRun[Any]], timeout: float | None = None) -> bool:
    """Block until all runs have their outcomes, or `timeout` seconds have passed.

    Returns whether all have.

    Raises:
        UsageError: something among them is no TaskRun, or `timeout` is no number of seconds.
    """
    try:
        for _ in as_completed(runs, timeout):
            pass
    except WaitTimeout:
        return False
    return True


def as_completed(runs: Iterable[BaseTaskRun[R]], timeout: float | None = None) -> Iterator[BaseTaskRun[R]]:
    """Yield the runs as they end.

    Those that have ended come first; a run that is given twice comes once.

    Args:
        runs: the runs; an empty iterable yields nothing.
        timeout: seconds from the first `next` on, for all of them.

    Raises:
        WaitTimeout: time is up; the runs go on.
        UsageError: something among them is no TaskRun, or `timeout` is no number of seconds.
    """
    if timeout is not None:
        _waiters.seconds("timeout", timeout, ", or None")
    return _completed(list(dict.fromkeys(_checked(runs))), timeout)


def _completed(runs: list[BaseTaskRun[R]], timeout: float | None) -> Iterator[BaseTaskRun[R]]:
    deadline = _waiters.deadline(timeout)
    collector = _Collector()
    missing: set[BaseTaskRun[R]] = set()
    seen: set[int] = set()
    try:
        for run in runs:
            run._look()
            if run._enlist(collector):
                missing.add(run)
                run._check_owner()
                run._check_wait(seen)
        yield from [run for run in runs if run not in missing]
        pump = any(run._pumped for run in missing)
        while missing:
            if not collector.ended:
                collector.done = False
                if not collector.ended:  # a signal may have come between the two lines before
                    _waiters.block(collector, deadline, pump, lambda: _look(missing, collector))
            if not collector.ended:
                if deadline is not None and monotonic() >= deadline:
                    names = ", ".join(run.name for run in list(missing)[:3])
                    raise WaitTimeout(
                        f"{len(missing)} of {len(runs)} runs ({names}{', …' if len(missing) > 3 else ''})",
                        timeout or 0.0,
                    )
                continue
            run = collector.ended.popleft()
            if run in missing:
                missing.discard(run)
                yield run
    except KeyboardInterrupt:
        if _waiters.interactive():
            for run in missing:
                run.stop(wait=False)
        raise
    finally:
        for run in missing:
            run._delist(collector)


def _look(runs: set[BaseTaskRun[Any]], collector: _Collector) -> None:
    for run in list(runs):
        run._look_around()
        if run._result is not None and run not in collector.ended:  # it ended, and the one who did it was cut short
            collector.signal(run)


@overload
def gather(
    *runs: BaseTaskRun[R] | Iterable[BaseTaskRun[R]],
    timeout: float | None = None,
    raise_exceptions: Literal[True] = True,
) -> list[R]: ...


@overload
def gather(
    *runs: BaseTaskRun[R] | Iterable[BaseTaskRun[R]], timeout: float | None = None, raise_exceptions: bool
) -> list[R | BaseException]: ...
def gather(*runs: Any, timeout: float | None = None, raise_exceptions: bool = True) -> Any:
    """Wait for all runs and return their values, in the order given.

    Args:
        runs: runs, or iterables of runs.
        timeout: seconds, for all of them.
        raise_exceptions: raise what `get_result` would, as soon as one run has failed (the others go on); False returns the
            exceptions in the places of the values.

    Raises:
        WaitTimeout: time is up; the runs go on.
        UsageError: something among them is no TaskRun, or `timeout` is no number of seconds.
    """
    flat = [run for part in runs for run in _checked(part)]
    for run in as_completed(flat, timeout):
        if raise_exceptions and not run._result:
            run.get_result()
    return [run.get_result(raise_exceptions=raise_exceptions) for run in flat]
