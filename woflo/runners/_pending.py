"""Runs that wait for other runs: which may begin is decided by the scheduler that also decides for graphs.

One table per process, of unfinished runs only: those that wait, and those that they wait for. A run is told here when it is
made with unfinished inputs; the thread that learns the end of an input comes here, and begins what
became ready. The table is made anew when most of it is history, so a program that never comes to rest doesn't grow.

Rule 1: `_lock` is held while the table changes, never while a run begins or is told.
Rule 2: where Ctrl-C comes between a change of the table and what follows from it, the table is made anew of what the unfinished
runs know; a run begins once, however often it is found.
Rule 3: a run is begun by `_waiters.one_after_the_other`: one that ends within its beginning lengthens a queue, not the stack.
"""

from __future__ import annotations

from _thread import RLock

from woflo import _notify
from woflo._scheduler import Scheduler
from woflo.result import DependencyFailure
from woflo.runners import _calm, _inputs, _process, _waiters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from woflo.runners.base import BaseTaskRun

_HISTORY = 1000  # ended runs in the table from which on it may be made anew


class _Table:
    """The scheduler's numbers, and the runs behind them."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.runs: list[BaseTaskRun[Any] | None] = []  # by number; None: ended
        self.numbers: dict[BaseTaskRun[Any], int] = {}
        self.watched: set[BaseTaskRun[Any]] = set()  # they tell us when they end

    def add(self, run: BaseTaskRun[Any], inputs: list[BaseTaskRun[Any]]) -> list[BaseTaskRun[Any]]:
        """Take a run that waits for these; returns those of them that are to be watched from now on."""
        scheduler, numbers = self.scheduler, self.numbers
        if run in numbers:  # by `_mend`
            return []
        for one in inputs:
            if one not in numbers:  # it waits for nothing that we know of: it is at work somewhere
                scheduler.extend([()], ordered=True)
                self._number(one, scheduler.ready()[0])
        scheduler.extend([[numbers[one] for one in inputs]], ordered=True)
        self._number(run, len(scheduler) - 1)
        new = [one for one in inputs if one not in self.watched]
        self.watched.update(new)
        return new

    def _number(self, run: BaseTaskRun[Any], number: int) -> None:
        self.numbers[run] = number
        self.runs.append(run)

    def ended(self, run: BaseTaskRun[Any]) -> list[BaseTaskRun[Any]]:
        """A watched run has ended; returns those that wait for nothing any more."""
        if run not in self.watched:  # told twice
            return []
        self.watched.discard(run)
        self._done(run, failed=not run._result)
        free = []
        for number in self.scheduler.ready() + self.scheduler.blocked():
            one = self.runs[number]
            assert one is not None  # noqa: S101 - a number is handed out once
            free.append(one)
            if one not in self.watched:  # nobody waits for it: what becomes of it is not ours to know
                self._done(one, failed=True)
        if len(self.runs) > _HISTORY + 4 * self.scheduler.left:
            self._make_anew()
        return free

    def _done(self, run: BaseTaskRun[Any], *, failed: bool) -> None:
        number = self.numbers.pop(run)
        self.runs[number] = None
        self.scheduler.done(number, failed=failed)

    def _make_anew(self) -> None:
        self.runs = [self.runs[number] for number in self.scheduler.compact()]
        self.numbers = {run: number for number, run in enumerate(self.runs) if run is not None}


_table = _Table()
_lock = RLock()  # re-entrant: a signal handler may call tasks


def _forget() -> None:
    """In a forked child: those runs are the parent's."""
    global _table, _lock
    _table, _lock = _Table(), RLock()


_process.on_fork(_forget)


def wait_for_inputs(run: BaseTaskRun[Any], inputs: list[BaseTaskRun[Any]]) -> None:
    """Have a run begin with the values of its inputs as soon as they have ended; at once if they have."""
    unfinished = [one for one in inputs if one._result is None]
    for one in unfinished:
        one._check_owner()
    run._phase = "pending"
    run._prepare_pending()
    run._wanted = inputs  # from here on anybody may begin it
    if not unfinished:
        _begin(run)
        return
    if _notify.listening:
        _notify.pending(run)
    try:
        with _calm.Held(), _lock:
            new = _table.add(run, unfinished)
        for one in new:
            _watch(one)
    except BaseException:  # Ctrl-C
        _mend()
        raise


def _watch(run: BaseTaskRun[Any]) -> None:
    run._before(lambda: _ended(run))


def _ended(run: BaseTaskRun[Any]) -> None:
    try:
        with _calm.Held(), _lock:
            free = _table.ended(run)
        _begin_all(free)
    except BaseException:  # Ctrl-C
        _mend()
        raise


def _begin_all(free: list[BaseTaskRun[Any]]) -> None:
    if free:
        _waiters.one_after_the_other([lambda one=one: _begin(one) for one in free])  # type: ignore[misc]


def _mend() -> None:
    """Make the table anew, and begin what may."""
    global _table
    from graphlib import TopologicalSorter

    new, free = [], []
    with _calm.Held(), _lock:
        _table = _Table()
        waiting = {run: run._wanted for run in list(_process.live) if run._result is None and run._wanted}
        for run in TopologicalSorter(waiting).static_order():
            unfinished = [one for one in waiting.get(run, ()) if one._result is None]
            if unfinished:
                new += _table.add(run, unfinished)
            elif run in waiting:
                free.append(run)
    for run in new:
        _watch(run)
    _begin_all(free)


def _begin(run: BaseTaskRun[Any]) -> None:
    """All inputs have ended: begin, or end because of those that failed."""
    inputs = run._wanted
    run._wanted = ()
    if run._result is not None or not inputs:  # stopped meanwhile, or begun already
        return
    try:
        failures: dict[str, Any] = {one.name: one._result for one in inputs if not one._result}
        if failures:
            run._settle(run._named(DependencyFailure(failures)))
            return
        go_on(run, lambda: _inputs.substitute(run.args, run.kwargs, lambda one: one._result.value))
    except BaseException as error:  # Ctrl-C
        run._lay_down(error)


class Start:
    """Lets a run go on that had to wait for something else than its inputs; once, however often it is called."""

    __slots__ = ("_begun", "_run")

    def __init__(self, run: BaseTaskRun[Any]) -> None:
        self._run = run
        self._begun = False

    def __call__(self) -> None:
        if self._begun:
            return
        try:
            self._begun = True
            go_on(self._run)
        except BaseException as error:  # Ctrl-C
            self._run._lay_down(error)


def go_on(run: BaseTaskRun[Any], arguments: Callable[[], tuple[Any, Any]] | None = None) -> None:
    """A run that had to wait may begin, with these arguments; what goes wrong is its outcome: nobody is there to raise to."""
    if run._result is not None:  # stopped meanwhile
        return
    try:
        if arguments is not None:
            run.args, run.kwargs = arguments()
        run._admit()
        if run._stop_asked:
            run._end_what_began()
    except BaseException as error:
        run._lay_down(error)
