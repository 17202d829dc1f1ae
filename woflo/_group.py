"""RunGroup: the runs of a `map`, over few items or more than memory holds.

Here is what a user asks of them, and how threads and coroutines wait; how items become runs and these outcomes is in `_delivery`,
what is kept of them in `_outcomes`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from woflo._delivery import Delivery
from woflo._outcomes import Taker
from woflo.errors import UsageError, WaitTimeout
from woflo.result import Ok
from woflo.runners import _calm, _process, _waiters
from woflo.runners._attempt import GRACE
from woflo.runners._waiters import AsyncWaiter, Waiter
from woflo.runners.base import BaseTaskRun

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from typing import Any, Generic, Literal, Self, TypeVar, overload

    from woflo._outcomes import Cursor
    from woflo.result import Failure, Result
    from woflo.task import Task

    R = TypeVar("R", covariant=True)  # noqa: PLC0105 - as in collections.abc
else:
    from woflo._generic import Generic, R, overload

__all__ = ["RunGroup", "RunStream"]


class RunGroup(Generic[R]):
    """The runs of `task.map(items)`, in the order of the items.

    Iterating yields each item's run when it has ended, in order; `as_completed()` in the order of their ending. Both also
    with `async for`; `await group` is `get_results()`. Runs are those of a call: `outcome()`, `get_result()`, … A with block
    stops at its end what is left.

    An iterable with a length is carried out by itself, like any call. One without (a generator) is drawn from as its results
    are asked for, in the threads that ask, and never more than 10,000 items ahead of what was handed out; that is handed
    out once and then forgotten. `get_results`, `outcomes` and `wait` ask for everything.

    Short items of process runners go together, several in one run, as many as make up 20 ms of work; only of tasks without
    time-out, retries or cache.

    Attributes:
        task: the Task that was mapped.
        name: the task's name and the group's number; its runs are `name[0]`, `name[1]`, …
    """

    def __init__(
        self,
        task: Task[..., R, Any],
        runner: type[BaseTaskRun[Any]],
        items: Iterable[Any],
        size: int | None,
        *,
        many: bool,
        kwargs: dict[str, Any],
        chunksize: int | None,
    ) -> None:
        """Made by `map` and `starmap`.

        Args:
            task: what is called.
            runner: where.
            items: a value for each call, or its arguments.
            size: how many there are; None: nobody knows.
            many: whether each item is a tuple of arguments.
            kwargs: for all calls.
            chunksize: how many items go together; None: as was measured.
        """
        self.task = task
        self._owner = _process.mark
        delivery = self._delivery = Delivery(task, runner, items, size, many=many, kwargs=kwargs, chunksize=chunksize)
        self.name: str = delivery.name
        self._outcomes = delivery.outcomes
        if size is not None:
            delivery.standing = _Standing(self)
            if not _process.prepared:
                _process.prepare()
        try:
            if size is not None:
                _process.live.add(delivery.standing)
            delivery.fill()
        except BaseException:  # Ctrl-C: nobody has the group to stop it
            self.stop(wait=False)
            raise

    # ------------------------------------------------------------------ asking

    def __len__(self) -> int:
        """How many items there are.

        Raises:
            TypeError: the iterable has no length, and has not come to its end.
        """
        if self._delivery.source.size is None:
            raise TypeError(
                f"{self.name}: how many items there are is not known before its iterable, which has no len(), has come to its end"
            )
        return self._delivery.source.size

    def __iter__(self) -> RunStream[R]:
        return RunStream(self, self._cursor_for(ordered=True), None)

    def __aiter__(self) -> RunStream[R]:
        return RunStream(self, self._cursor_for(ordered=True), None)

    def as_completed(self, timeout: float | None = None) -> RunStream[R]:
        """The items' runs as they end: for `for` and `async for`.

        Args:
            timeout: seconds from now on, for all of them.

        Raises:
            WaitTimeout: time is up; the runs go on.
            Exception: what the iterable raised, after all that was drawn from it.
            UsageError: `timeout` is no number of seconds, or the items, which are handed out once, go elsewhere.
        """
        return RunStream(self, self._cursor_for(ordered=False), timeout)

    @overload
    def get_results(self, on_error: Literal["raise", "skip"] = "raise", timeout: float | None = None) -> list[R]: ...
    @overload
    def get_results(self, on_error: Literal["return"], timeout: float | None = None) -> list[R | BaseException]: ...
    def get_results(
        self, on_error: Literal["raise", "return", "skip"] = "raise", timeout: float | None = None
    ) -> list[Any]:
        """Wait for all items and return their values, in order.

        Args:
            on_error: `raise` what the first failed run's `get_result` would, as soon as one has failed (the others go on);
                `return` the exceptions in the places of the values; `skip` them.
            timeout: seconds, for all of them.

        Raises:
            WaitTimeout: time is up; the runs go on.
            Exception: what the iterable raised.
            UsageError: `on_error` is something else, or items were handed out and are forgotten.
        """
        if on_error not in {"raise", "return", "skip"}:
            raise UsageError(f"on_error must be 'raise', 'return' or 'skip', not {on_error!r}")
        self._outcomes.check_whole()
        self._finish(timeout, hasty=on_error == "raise")
        return self._collected(on_error)

    def outcomes(self, timeout: float | None = None) -> list[Result[R]]:
        """Wait for all items; each one's `Ok(value)` or `Failure`, in order.

        Raises:
            WaitTimeout: time is up; the runs go on.
            Exception: what the iterable raised.
            UsageError: items were handed out and are forgotten.
        """
        self._outcomes.check_whole()
        self._finish(timeout, hasty=False)
        found: list[Result[R]] = []
        for segment in self._outcomes.in_order():
            for place, value in enumerate(segment.values):
                run = self._delivery.failed_at(segment, place)
                found.append(Ok(value) if run is None else run.outcome())
        return found

    def wait(self, timeout: float | None = None) -> bool:
        """Block until all items have their outcomes, at most `timeout` seconds; True if they have.

        Raises:
            UsageError: the group belongs to another process, a run of it to the event loop of this very thread, or `timeout`
                is no number of seconds.
            Exception: what the iterable raised.
        """
        try:
            self._finish(timeout, hasty=False)
        except WaitTimeout:
            return False
        return True

    def stop(self, grace: float = GRACE, wait: bool = True) -> None:
        """Draw nothing more and end all runs; items without a result end as StoppedFailure. A second call does no harm.

        Args:
            grace: seconds between asking a run to end and ending it by force, where the runner can.
            wait: block until they have ended.
        """
        self._check_owner()
        grace = _waiters.seconds("grace", grace)
        self._delivery.stopped = True
        self._delivery.fill()
        live = list(self._delivery.live)
        for run in live:
            run.stop(grace, wait=False)
        if wait:
            deadline = monotonic() + grace + _waiters.RECHECK
            for run in live:
                if not run._needs_this_thread():
                    run._wait(max(0.0, deadline - monotonic()))
                    run._wait_until_gone(max(0.0, deadline - monotonic()))
        self._delivery.collect()
        self._delivery.fill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._delivery.finished():
            self.stop()

    def __await__(self) -> Generator[Any, None, list[R]]:
        """`get_results()` without blocking the event loop."""
        return self._get_results_soon().__await__()

    def __repr__(self) -> str:
        of = (
            f"{self._outcomes.done} of {self._delivery.source.size}"
            if self._delivery.source.size is not None
            else f"{self._outcomes.done} of {self._delivery.source.drawn} drawn"
        )
        failed = f", {self._outcomes.failures} failed" if self._outcomes.failures else ""
        return f"<RunGroup {self.name} {of} ended{failed}{', stopped' if self._delivery.stopped else ''}>"

    def __reduce__(self) -> Any:
        raise UsageError(f"{self.name} is a RunGroup and can't be sent to another process; pass its results")

    # ------------------------------------------------------------------ waiting

    def _check_owner(self) -> None:
        if self._owner is not _process.mark:
            raise UsageError(f"{self.name} belongs to another process and can't be asked here; pass its results")

    def _finish(self, timeout: float | None, *, hasty: bool) -> None:
        """Wait for everything; if `hasty`, for the first failure."""
        deadline = _waiters.deadline(timeout)
        self._check_owner()

        def enough() -> bool:
            return self._delivery.finished() or (hasty and self._outcomes.first_failed is not None)

        self._delivery.greedy += 1
        try:
            self._wait_until(enough, deadline, timeout)
        finally:
            self._delivery.greedy -= 1
        if self._delivery.source.error is not None and not (hasty and self._outcomes.first_failed is not None):
            raise self._delivery.source.error

    async def _get_results_soon(self) -> list[R]:
        self._check_owner()
        self._outcomes.check_whole()
        self._delivery.greedy += 1
        try:
            while not self._delivery.finished() and self._outcomes.first_failed is None:
                await self._step_soon(
                    lambda: self._delivery.finished() or self._outcomes.first_failed is not None, None, None
                )
        finally:
            self._delivery.greedy -= 1
        if self._delivery.source.error is not None and self._outcomes.first_failed is None:
            raise self._delivery.source.error
        return self._collected("raise")

    def _wait_until(self, enough: Callable[[], bool], deadline: float | None, timeout: float | None) -> None:
        """Draw, send and sleep until it is enough.

        Raises:
            WaitTimeout: the deadline has passed.
        """
        try:
            while True:
                self._delivery.collect()
                self._delivery.fill()
                if enough():
                    return
                if deadline is not None and monotonic() >= deadline:
                    left = (
                        "items"
                        if self._delivery.source.size is None
                        else f"{self._delivery.source.size - self._outcomes.done} of {self._delivery.source.size} items"
                    )
                    raise WaitTimeout(f"{self.name} ({left})", timeout or 0.0)
                self._sleep(enough, deadline)
        except KeyboardInterrupt:
            if _waiters.interactive():
                self.stop(wait=False)
            raise

    def _sleep(self, enough: Callable[[], bool], deadline: float | None) -> None:
        waiter = Waiter()
        try:
            self._delivery.asleep.append(waiter)
            if self._delivery.arrived or enough():
                return
            live = list(self._delivery.live)
            seen: set[int] = set()
            for run in live:
                if run._wanted or type(run)._needs_this_thread is not BaseTaskRun._needs_this_thread:
                    run._check_wait(seen)
            _waiters.start_queued()

            def look() -> None:
                for run in list(self._delivery.live):
                    run._look_around()
                    if run._result is not None:  # it ended, and the one who did it was cut short
                        self._delivery.ended(run)

            _waiters.block(waiter, deadline, any(run._pumped for run in live), look)
        finally:
            self._delivery.leave(waiter)

    async def _step_soon(self, enough: Callable[[], bool], deadline: float | None, timeout: float | None) -> None:
        """Draw and send; then sleep until something has happened, with the event loop going on."""
        from asyncio import get_running_loop, wait_for

        self._delivery.collect()
        self._delivery.fill()
        if enough():
            return
        loop = get_running_loop()
        waiter = AsyncWaiter(loop)
        detach = None
        try:
            self._delivery.asleep.append(waiter)
            if self._delivery.arrived or enough():
                return
            first = next((run for run in list(self._delivery.live) if run._pumped), None)
            detach = None if first is None else first._attach(loop)
            if deadline is None:
                await waiter.future
                return
            try:
                await wait_for(waiter.future, max(0.0, deadline - monotonic()))
            except TimeoutError:
                raise WaitTimeout(self.name, timeout or 0.0) from None
        finally:
            self._delivery.leave(waiter)
            if detach is not None:
                detach()

    # ------------------------------------------------------------------ handing out

    def _cursor_for(self, *, ordered: bool) -> Cursor:
        self._check_owner()
        return self._outcomes.cursor(ordered=ordered)

    def _collected(self, on_error: str) -> list[Any]:
        if on_error == "raise" and self._outcomes.first_failed is not None:
            self._delivery.run_of(*self._outcomes.first_failed).get_result()
        found: list[Any] = []
        for segment in self._outcomes.in_order():
            if not segment.failed and not segment.stopped:
                found += segment.values
                continue
            if segment.stopped and on_error == "skip":
                continue
            for place, value in enumerate(segment.values):
                run = self._delivery.failed_at(segment, place)
                if run is None:
                    found.append(value)
                elif on_error == "return":
                    found.append(run.get_result(raise_exceptions=False))
                else:
                    run.outcome()
        return found


class RunStream(Taker, Generic[R]):
    """The runs of a group, one after the other: for `for` and for `async for`."""

    def __init__(self, group: RunGroup[R], cursor: Cursor, timeout: float | None) -> None:
        self._group = group
        self._cursor = cursor
        self._timeout = timeout
        self._deadline = _waiters.deadline(timeout)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BaseTaskRun[R]:
        group = self._group
        group._check_owner()
        while (run := self._ready()) is None:
            if self._over():
                raise StopIteration
            group._wait_until(self._something, self._deadline, self._timeout)
        return run

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BaseTaskRun[R]:
        group = self._group
        group._check_owner()
        while (run := self._ready()) is None:
            if self._over():
                raise StopAsyncIteration
            await group._step_soon(self._something, self._deadline, self._timeout)
        return run

    def _ready(self) -> BaseTaskRun[R] | None:
        """A run that can be handed out, with the workers busy meanwhile."""
        delivery = self._group._delivery
        if delivery.arrived:
            delivery.collect()
        if 2 * len(delivery.live) < delivery.flight()[0]:
            delivery.fill()
        run = None
        try:
            delivery.outcomes.next(self._cursor, self)
            if self._taken is not None:
                run = delivery.run_of(*self._taken)
        except BaseException:  # Ctrl-C: it is handed out next time
            with _calm.Held():
                if self._taken is not None:
                    self._cursor.back.append(self._taken)
                    self._taken = None
            raise
        self._taken = None
        return run

    def _something(self) -> bool:
        delivery = self._group._delivery
        return delivery.outcomes.has_next(self._cursor) or delivery.finished()

    def _over(self) -> bool:
        """Whether all were handed out; raises what the iterable did."""
        delivery = self._group._delivery
        if not delivery.finished() or delivery.outcomes.has_next(self._cursor):
            return False
        if delivery.source.error is not None:
            raise delivery.source.error
        return True


class _Standing:
    """A group that goes on by itself, among the live runs: the program's end waits for it, or stops it."""

    _result: Any = None
    _loop = _worker = _function = None
    _wanted: tuple[()] = ()
    _phase = "running"

    def __init__(self, group: RunGroup[Any]) -> None:
        self._group = group
        self.task = group._delivery.item_task
        self._number = group._delivery.number

    @property
    def name(self) -> str:
        return self._group.name

    def _look(self) -> None:
        """The group looks when it waits."""

    def _stranded(self) -> str:
        delivery = self._group._delivery
        if delivery.stranded():
            return "items were lost"
        why = [run._stranded() for run in list(delivery.live)]
        return why[0] if why and all(why) else ""

    def _is_nowhere(self) -> bool:
        return False

    def _named(self, failure: Failure) -> Failure:
        return failure

    def _settle(self, _result: Any) -> None:
        _process.live.discard(self)
        self._group.stop(wait=False)

    def _wait(self, timeout: float | None) -> bool:
        try:
            return self._group.wait(timeout)
        except Exception:  # of the iterable: nobody is there to be told
            return True

    def stop(self, grace: float, wait: bool = False) -> None:
        self._group.stop(grace, wait)
