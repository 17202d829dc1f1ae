"""AsyncTaskRun: an event loop.

On the running loop if the call is made on one, else on a loop of our own in a daemon thread, which ends when it is idle.
A run belongs to its loop: when that closes, the run ends as StoppedFailure. A plain function runs in
a daemon thread beside the loop, so that it never blocks it.
"""

from __future__ import annotations

import asyncio
import sys
from _thread import RLock
from contextvars import copy_context
from time import monotonic
from weakref import WeakKeyDictionary

from woflo import _exceptions, _notify
from woflo.result import Ok, StoppedFailure
from woflo.runners import _attempt, _calm, _process, _waiters
from woflo.runners._attempt import current, failure_from, late
from woflo.runners._slots import default_size
from woflo.runners.base import BaseTaskRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context
    from typing import Any, ClassVar, Self, TypeVar

    from woflo.task import Task

    R = TypeVar("R", covariant=True)  # noqa: PLC0105
else:
    from woflo._generic import R

__all__ = ["AsyncTaskRun"]

_IDLE_SECONDS = 1.0  # our own loop ends after so long without a run; starting one costs a millisecond
_running_loop = asyncio._get_running_loop
_NONE: dict[str, Any] = {}  # for all calls without keywords: an empty dict of its own would be 64 bytes
_OK: Any = Ok(None)  # for all runs without a value
_new = object.__new__
_Task: Any = asyncio.Task


class AsyncTaskRun(BaseTaskRun[R]):
    """A run on an event loop: the running one, else one of woflo's own in a thread.

    Blocking on such a run (`wait`, `get_result`) from its loop's own thread is a UsageError: await it. Cancelling
    whoever awaits it leaves it alone; `stop()` cancels it. A time-out cancels it too; a run that
    swallows the cancellation and goes on is abandoned, and says so.
    """

    _keeps_time = True
    _settings: ClassVar[tuple[str, ...]] = ()

    __slots__ = ()
    if TYPE_CHECKING:
        args: tuple[Any, ...]
        kwargs: dict[str, Any]
    # `_loop` is the event loop that it belongs to, `_place` the asyncio task of the current attempt

    @classmethod
    def submit(
        cls, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[BaseTaskRun[Any]]
    ) -> Self:
        loop = _running_loop()
        if (
            loop is None
            or inputs
            or not (task.simple and task.is_async)
            or _notify.listening
            or not _process.prepared
            or _process.closed
        ):
            return super().submit(task, args, kwargs, inputs)
        # the straight way: a coroutine function on its own loop, no retries, no time-out; what it doesn't set reads as
        # in `_blank`
        run = _new(cls)
        run.task = task
        run.args = args
        run.kwargs = kwargs or _NONE
        run._number = next(task.numbers)
        run._owner = _process.mark
        run._phase = "running"
        run._attended = False
        run._result = run._waiters = run._dependents = run._callbacks = None
        run._loop = loop
        _process.live.add(run)
        ready = getattr(loop, "_ready", None)
        if not ready:
            run._context = None
            run._place = loop.create_task(run._straight())
            return run
        run._place = None
        run._context = copy_context()
        batch = getattr(ready[-1], "_callback", None)
        if batch.__class__ is _Batch:
            batch.append(run)
        else:
            _line_up(run, loop)
        return run

    @classmethod
    def _at_once(cls) -> int:
        return 1_000  # a coroutine asleep costs next to nothing

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(_blank, name)

    async def _straight(self) -> None:
        """The one attempt of a run that went the straight way."""
        current.set(self)  # in the context of this asyncio task, which is its own
        try:
            kwargs = self.kwargs
            value = await (self.task.fn(*self.args, **kwargs) if kwargs else self.task.fn(*self.args))
        except BaseException as error:
            self._conclude(self._failed(error))
            if self._closed(error):
                raise
            return
        if _notify.listening:
            self._place = None
            self._settle(Ok(value))
            return
        self._result = _OK if value is None else Ok(value)  # without the lock: nobody else gives such a run a value
        self._place = self.args = self.kwargs = self._context = None  # type: ignore[assignment]
        _process.live.discard(self)
        if self._waiters or self._dependents or self._callbacks:  # first the result, then the look: see `_enlist`
            if self._attended:
                self._forget()
            if self._waiters is not None:
                self._tell_waiters()
            if self._dependents is not None:
                self._tell_dependents()
            if self._callbacks is not None:
                self._tell_callbacks()

    def __await__(self) -> Generator[Any, None, R]:
        result = self._result
        if result.__class__ is Ok:
            return result.value
        loop = self._loop
        if result is not None or loop is None or loop is not _running_loop():
            return (yield from super().__await__())
        waiter = _Waiter(loop=loop)
        if self._enlist(waiter):
            try:
                yield from waiter
            finally:
                result = self._result
                if result is None:
                    self._delist(waiter)
        return result.value if result.__class__ is Ok else self.get_result()

    def _prepare_pending(self) -> None:
        self._loop = _running_loop()
        self._context: Context | None = copy_context()

    def _start_attempt(self) -> None:
        loop = _running_loop()
        if loop is not None and self._loop is None:
            self._loop = loop
            self._phase = "running"
            self._place = loop.create_task(self._drive())
            return
        if self._loop is None:
            if self._context is None:
                self._context = copy_context()
            try:
                _own_loop(self)
            except RuntimeError:
                if not _process.exiting:
                    raise
                self._mark_started()  # the interpreter is ending and starts no more threads: here, then
                self.finish(_attempt.attempt(self))
            return
        if loop is self._loop:
            self._place = loop.create_task(self._drive(), context=self._context)
            self._phase = "running"
            return
        try:
            self._loop.call_soon_threadsafe(self._enter, self._loop)
        except RuntimeError:
            self._settle(self._named(StoppedFailure("its event loop was closed before it started")))

    def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the loop's thread: begin."""
        self._loop = loop
        if self._result is None:
            self._place = loop.create_task(self._drive(), context=self._context)
            self._phase = "running"

    async def _drive(self) -> None:
        """All attempts, on the loop; a context of its own holds `current_run`."""
        current.set(self)
        while self._result is None:
            mine = self.attempt
            result = await self._attempt()
            if self.attempt != mine:  # abandoned long ago: another job has the next attempt
                return
            pause = self._conclude(result)
            if pause is None:
                return
            if not await self._sleep(pause):
                return
            self._next_attempt()

    async def _sleep(self, seconds: float) -> bool:
        """Pause between two attempts; False if the run has ended meanwhile."""
        loop = asyncio.get_running_loop()
        self._pause = waiter = _waiters.AsyncWaiter(loop)
        clock = loop.call_later(seconds, waiter.signal, None)
        try:
            if self._result is None:  # else it was stopped before there was a pause to end
                await waiter.future
        except asyncio.CancelledError:
            self._settle(self._named(StoppedFailure("its event loop was closed between two attempts")))
        finally:
            clock.cancel()
            self._pause = None
        return self._result is None

    async def _attempt(self) -> Any:
        task = self.task
        limit = task.timeout
        self._mark_started()
        _attempt.attempt_here.set(self.attempt)
        clock = None if limit is None else asyncio.get_running_loop().call_later(limit, self._overdue, self.attempt)
        try:
            raised = None
            if task.is_async:
                value = await task.fn(*self.args, **self.kwargs)
            else:
                value, raised = await _in_thread(self)
            result: Any = Ok(value) if raised is None else failure_from(self, raised)
        except BaseException as error:
            result = self._failed(error)
            if self._closed(error):
                self._settle(result)
                raise
        if clock is not None:
            clock.cancel()
        elapsed = monotonic() - self._started
        if limit is not None and elapsed > limit:
            return late(self, elapsed, self._where)
        return result

    def _closed(self, error: BaseException) -> bool:
        """Whether this is the coroutine being thrown away with its loop, and not the task's own GeneratorExit."""
        return (
            isinstance(error, GeneratorExit)
            and self._place is not None  # else it is taking its first step
            and (_running_loop() is None or asyncio.current_task() is not self._place)
        )

    def _failed(self, error: BaseException) -> Any:
        if isinstance(error, asyncio.CancelledError) or self._closed(error):
            job = self._place
            if self._timed_out == self.attempt and not self._stop_asked:
                if job is not None:
                    job.uncancel()
                return late(self, monotonic() - self._started, self._where)
            if self._stop_asked:
                return self._named(StoppedFailure("stopped"))
            if isinstance(error, GeneratorExit) or (job is not None and job.cancelling()):
                return self._named(StoppedFailure("its event loop was closed"))
        return failure_from(self, error)

    def _overdue(self, attempt: int) -> None:
        """On the loop's thread: the attempt's time is up."""
        if self._result is None and self._phase == "running" and self.attempt == attempt:
            self._where = self._whereabouts()
            self._timed_out = self.attempt
            self._cancel(_attempt.GRACE)

    def _cancel(self, grace: float) -> None:
        """On the loop's thread: cancel the task; abandon it after the grace."""
        if self._result is not None:
            return
        job = self._place
        if job is None and current.get() is self:  # it stops itself, in its first step
            job = asyncio.current_task()
        if job is None:
            self._settle(self._named(StoppedFailure("stopped before it was started")))
        else:
            job.add_done_callback(self._never_begun)
            job.cancel()
            attempt = self.attempt
            asyncio.get_running_loop().call_later(grace, self._abandon, attempt)

    def _never_begun(self, job: asyncio.Task[None]) -> None:
        """A coroutine that is cancelled before its first step never runs, so it can't say how it ended."""
        if self._result is None and self._place is job:
            self._settle(self._judge(self._named(StoppedFailure("stopped"))))

    def _end_attempt(self, grace: float) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            self._settle(self._named(StoppedFailure("stopped")))
        elif loop is _running_loop():
            self._cancel(grace)
        else:
            try:
                loop.call_soon_threadsafe(self._cancel, grace)
            except RuntimeError:
                self._settle(self._named(StoppedFailure("its event loop was closed")))

    def _asked(self) -> bool:
        """Whether the current attempt was asked to end."""
        return self._stop_asked or self._timed_out == self.attempt

    def _is_over(self) -> bool:
        """Whether the run has its outcome."""
        return self._result is not None

    def _stranded(self) -> str:
        loop = self._loop
        begins = _own is not None and _own._loop is loop and not _own.ended  # its thread may not have got so far
        return "" if loop is None or begins or loop.is_running() else "its event loop no longer runs"

    def _whereabouts(self) -> tuple[_exceptions.Place, ...]:
        found: list[_exceptions.Place] = []
        one: Any = self._place.get_coro() if self._place is not None else None
        while one is not None:  # the chain of awaits; get_stack() shows its outermost frame only
            frame = getattr(one, "cr_frame", None)
            if frame is not None:
                found.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
            one = getattr(one, "cr_await", None)
        return tuple(place for place in found if not _exceptions.ours(place[0]))

    def _needs_this_thread(self) -> bool:
        loop = self._loop
        return loop is not None and loop is _running_loop()

    def _look(self) -> None:
        loop = self._loop
        if self._result is None and loop is not None and loop.is_closed():
            self._settle(self._named(StoppedFailure("its event loop was closed")))


async def _in_thread(run: AsyncTaskRun[Any]) -> tuple[Any, BaseException | None]:
    """Call a plain function beside the loop; its value, or what it raised (asyncio doesn't let every exception through).

    In a daemon thread, so that a function that never returns can't hold up the exit.
    """
    loop = asyncio.get_running_loop()
    room = _room.get(loop)
    if room is None:
        room = _room[loop] = asyncio.Semaphore(default_size())
    async with room:
        future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context, fn, args, kwargs = copy_context(), run.task.fn, run.args, run.kwargs

        def answer(value: Any, error: BaseException | None) -> None:
            if not future.done():
                future.set_result((value, error))

        def call() -> None:
            value: Any = None
            raised: BaseException | None = None
            try:
                value = context.run(fn, *args, **kwargs)
            except BaseException as error:
                raised = error.with_traceback(_exceptions.skip_ours(error.__traceback__))
            try:
                loop.call_soon_threadsafe(answer, value, raised)
            except RuntimeError:  # the loop was closed: the run has ended with it
                return

        try:
            _process.start_thread(call, name=f"woflo-{run.name}")
        except RuntimeError:
            if not _process.exiting:
                raise
            call()  # the interpreter is ending and starts no more threads: here, and the loop waits
        while True:
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                if not run._asked() or run._is_over():  # the loop is closing, or the run was abandoned
                    raise
                # stopped or out of time: a thread can't be ended; `stop_requested()` tells it, the grace runs


_room: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    WeakKeyDictionary()
)  # threads at once, per loop


class _Thread:
    """woflo's own loop, in a daemon thread, as long as there are runs (or tasks that they left)."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.ended = False  # under `_own_lock`
        self.holds: list[None] = []  # one for each who will come back, see `hold`
        self.coming = 0  # runs handed over that have not begun; under `_own_lock`
        try:
            _process.start_thread(self._work, name="woflo-loop")
        except BaseException:
            self._loop.close()
            raise

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_later(_IDLE_SECONDS, self._end_if_idle)
        try:
            self._loop.run_forever()
        finally:
            with _own_lock:
                self.ended = True  # also if a task has stopped the loop: the next run gets a fresh one
            try:
                self._end_all()
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
                self._loop.run_until_complete(self._loop.shutdown_default_executor())
            finally:
                asyncio.set_event_loop(None)
                self._loop.close()

    def _end_all(self) -> None:
        """What is left on a loop that ends before its time is cancelled, as asyncio.run does."""
        self._loop.run_until_complete(asyncio.sleep(0))  # what was handed over meanwhile begins
        left = asyncio.all_tasks(self._loop)
        for one in left:
            one.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=_attempt.GRACE))

    def _end_if_idle(self) -> None:
        with _own_lock:
            lined_up = any(run._loop is self._loop for run in list(_process.live))  # it may have no asyncio task yet
            if not asyncio.all_tasks(self._loop) and not self.coming and not lined_up and not self.holds:
                self.ended = True
                self._loop.stop()
                return
        self._loop.call_later(_IDLE_SECONDS, self._end_if_idle)

    def submit(self, run: AsyncTaskRun[Any]) -> None:
        """Have a run begin on this loop. Needs `_own_lock`."""
        self.coming += 1
        self._loop.call_soon_threadsafe(self._take, run)

    def _take(self, run: AsyncTaskRun[Any]) -> None:
        with _own_lock:
            self.coming -= 1
        run._enter(self._loop)


_own: _Thread | None = None
_own_lock = RLock()
_kept: list[Any] = []


def _own_loop(run: AsyncTaskRun[Any]) -> None:
    """Hand a run to woflo's own loop."""
    global _own
    with _calm.Held(), _own_lock:
        if _own is None or _own.ended or _own._loop.is_closed():
            _process.on_fork(_forget)
            _own = _Thread()
        run._loop = _own._loop
        _own.submit(run)


def on_own_loop() -> bool:
    """Whether the calling thread is that of woflo's own loop, which others need: it must not be blocked."""
    return _own is not None and _own._loop is _running_loop()


def hold() -> Callable[[], object]:
    """Keep the loop that we are on, if it is woflo's own, from ending when idle; returns what lets go of it, once."""
    if not on_own_loop():
        return _nothing
    holds = _own.holds  # type: ignore[union-attr]
    holds.append(None)
    return holds.pop  # atomic: it may be called by the garbage collector, in any thread


def _nothing() -> None:
    """Nothing was held."""


def _forget() -> None:
    """In a forked child: the loop's thread stayed behind."""
    global _own, _own_lock
    _kept.append(_own)
    _own = None
    _own_lock = RLock()


_blank: Any = BaseTaskRun(None, (), {}, 0, None)  # type: ignore[arg-type]


class _Waiter(asyncio.Future):  # type: ignore[type-arg]
    """Whoever awaits a run on the run's own loop."""

    def signal(self, run: BaseTaskRun[Any] | None) -> None:
        """What was waited for has happened; any thread may say so."""
        loop = self.get_loop()
        if loop is _running_loop():
            if not self.done():
                self.set_result(None)
            return
        try:
            loop.call_soon_threadsafe(self.signal, run)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            return


class _Batch(list):  # type: ignore[type-arg]
    """Runs that were called one right after the other: they begin where the first one's turn is, in the order of their calls.

    The asyncio task of each is made when its turn has come and takes its first step at once, so most are gone again before
    the next one is made. Ten thousand of them side by side take a kilobyte and half a microsecond more each.
    """

    __slots__ = ()

    def __call__(self) -> None:
        """On the loop, in the place of their first steps."""
        loop: Any = _running_loop()
        begin = _begin if loop.get_task_factory() is None and not loop.get_debug() else _begin_plainly
        self.reverse()
        try:
            while self:
                run = self.pop()
                if run._result is None:
                    begin(run, loop)
        finally:
            if self:  # Ctrl-C: the others begin all the same
                self.reverse()
                loop.call_soon(self)


def _line_up(run: AsyncTaskRun[Any], loop: Any) -> None:
    """Have a run begin when its turn comes; those that are called right after it come along."""
    if getattr(type(loop), "call_soon", None) is asyncio.BaseEventLoop.call_soon:
        batch = _Batch()
        batch.append(run)
        loop.call_soon(batch)
    else:  # another implementation (uvloop…), whose queue can't be looked into
        _begin_plainly(run, loop)


def _begin_plainly(run: AsyncTaskRun[Any], loop: Any) -> None:
    """Make the run's asyncio task; its first step comes when the loop likes."""
    run._place = loop.create_task(run._straight(), context=run._context)


if sys.version_info >= (3, 12):

    def _begin(run: AsyncTaskRun[Any], loop: Any) -> None:
        """Make the run's asyncio task, and have it take its first step now."""
        job = _Task(run._straight(), loop=loop, name=run.task.name, context=run._context, eager_start=True)
        if run._result is None:
            run._place = job

else:

    def _begin(run: AsyncTaskRun[Any], loop: Any) -> None:
        """Make the run's asyncio task, and have it take its first step now: the newest entry of the loop's queue."""
        context: Any = run._context
        job = _Task(run._straight(), loop=loop, name=run.task.name, context=context)
        entry = loop._ready.pop()
        if entry._context is context:
            context.run(entry._callback)
        else:  # another thread was quicker
            loop._ready.append(entry)
        if run._result is None:
            run._place = job
