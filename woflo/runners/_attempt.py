"""One attempt of a run, wherever it is carried out: the call, its time, and the Result that it becomes.

Nothing here decides about a next attempt, and nothing changes the run's state.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic

from woflo import _exceptions
from woflo.errors import TaskStopped
from woflo.result import Failure, Ok, StoppedFailure, TaskFailure, TimeoutFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from woflo.result import Result
    from woflo.runners.base import BaseTaskRun

__all__ = ["Call", "current_run", "stop_requested"]

GRACE = 1.0  # seconds between asking an attempt to end and ending it, unless the caller says otherwise

current: ContextVar[BaseTaskRun[Any] | None] = ContextVar("woflo.current_run", default=None)
attempt_here: ContextVar[int] = ContextVar("woflo.attempt", default=0)  # set where one attempt can follow another


def current_run() -> BaseTaskRun[Any] | None:
    """The run that the calling code belongs to; None outside of tasks.

    In a worker process it is a copy: it has the name, the task and the attempt, but can't be waited for.
    """
    return current.get()


def stop_requested() -> bool:
    """Whether the run that the calling code belongs to was asked to stop.

    Passing its time-out counts as being asked.
    """
    run = current.get()
    return run is not None and (run._stop_asked or run._timed_out >= (attempt_here.get() or run.attempt))


class Call:
    """One attempt of a run, to be called wherever it shall run: returns a Result and never raises.

    It can be pickled: the task's function travels by name or by value, as under spawn.
    """

    __slots__ = ("attempt", "run")

    def __init__(self, run: BaseTaskRun[Any]) -> None:
        self.run: BaseTaskRun[Any] = run
        self.attempt: int = run.attempt  # from 1; the run itself may have gone on to the next when this one ends

    def __call__(self) -> Result[Any]:
        context = self.run._context
        result = attempt(self.run) if context is None else context.copy().run(attempt, self.run)
        if isinstance(result, Ok):
            result._attempt = self.attempt
        else:
            result.attempt = self.attempt
        return result

    def __reduce__(self) -> tuple[Callable[[bytes], Call], tuple[bytes]]:
        from woflo.runners import _shipping

        return _shipping.load_call, (_shipping.dump_call(self.run),)


def attempt(run: BaseTaskRun[Any]) -> Result[Any]:
    """Carry out one attempt here: the task's function, whatever it raises, and its time.

    A coroutine function runs on an event loop of its own.
    """
    task = run.task
    limit = task.timeout
    token = current.set(run)
    begun = 0.0 if limit is None else monotonic()
    simple = task.simple
    if not simple:
        here = attempt_here.set(run.attempt)
    try:
        value = task.fn(*run.args, **run.kwargs)
        if task.is_async:
            value = _run_coroutine(run, value)
        result: Result[Any] = Ok(value)
    except BaseException as error:
        result = failure_from(run, error)
    finally:
        current.reset(token)
        if not simple:
            attempt_here.reset(here)
    if limit is not None and (elapsed := monotonic() - begun) > limit and not isinstance(result, StoppedFailure):
        return late(run, elapsed, run._where)
    return result


def late(run: BaseTaskRun[Any], elapsed: float, where: tuple[_exceptions.Place, ...] = ()) -> TimeoutFailure:
    """The failure of an attempt that took longer than its task allows."""
    return run._named(TimeoutFailure(limit=run.task.timeout or 0.0, elapsed=elapsed, where=_exceptions.describe(where)))


def failure_from(run: BaseTaskRun[Any], error: BaseException) -> Failure:
    """The failure that an exception out of the task is; woflo's frames are cut off its traceback."""
    asked = run._stop_asked or run._timed_out >= run.attempt
    if asked and (isinstance(error, TaskStopped) or type(error).__name__ == "CancelledError"):
        return run._named(StoppedFailure("stopped"))
    tb = _exceptions.skip_ours(error.__traceback__)
    if isinstance(error, TaskFailure) and not error.run:
        return run._named(error.with_traceback(tb))
    text = _exceptions.safe_str(error)
    name = _exceptions.type_name(type(error))
    failure = TaskFailure(f"{name}: {text}" if text else name)
    failure.__cause__ = error.with_traceback(tb)
    return run._named(failure)


def _run_coroutine(run: BaseTaskRun[Any], coroutine: Any) -> Any:
    """Run a coroutine to its end on an event loop of its own, in this thread."""
    import asyncio

    async def main() -> Any:
        run._inner = asyncio.get_running_loop(), asyncio.current_task()  # what `stop` cancels, where it can't signal
        return await coroutine

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    # a coroutine function under a runner that blocks, called on a loop: a loop of its own in a thread
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(copy_context().run, asyncio.run, main()).result()
