"""SequentialTaskRun: in the caller, now. When the call returns, the run has its outcome."""

from __future__ import annotations

from time import monotonic, sleep

from woflo import _exceptions, _notify
from woflo.result import Ok, StoppedFailure
from woflo.runners import _process
from woflo.runners._attempt import attempt, current, failure_from
from woflo.runners.base import BaseTaskRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, TypeVar

    from woflo.task import Task

    R = TypeVar("R", covariant=True)  # noqa: PLC0105
else:
    from woflo._generic import R

__all__ = ["SequentialTaskRun"]


class SequentialTaskRun(BaseTaskRun[R]):
    """A run in the caller's thread, finished when the call returns.

    Nothing can interrupt it: a run that took longer than its task's time-out ends as TimeoutFailure when its call
    returns. Ctrl-C ends the run and goes on to the caller.
    """

    __slots__ = ()
    _in_place = True
    _settings: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def submit(
        cls, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[BaseTaskRun[Any]]
    ) -> Self:
        if inputs:
            return super().submit(task, args, kwargs, inputs)
        # what the straight way doesn't set reads as in `_blank`: setting everything would cost it a third of its time
        run = cls.__new__(cls)
        run.task = task
        run.args = args
        run.kwargs = kwargs
        run._number = next(task.numbers)
        run._stop_asked = False
        run._result = run._waiters = run._callbacks = run._dependents = None
        # the straight way: no retries, no time-out, no coroutine, nobody listening
        if task.simple and not task.is_async and not _notify.listening:
            run._phase = "running"
            token = current.set(run)
            try:
                ok = Ok(task.fn(*args, **kwargs))
                if run._waiters or run._callbacks or run._dependents or run._stop_asked or run._result is not None:
                    run._settle(ok)  # somebody got hold of it by current_run()
                else:
                    run._result = ok
                run.args = run.kwargs = None  # type: ignore[assignment]
                return run  # noqa: TRY300 - an else block costs 5 % here
            except BaseException as error:
                run._started = monotonic()
                result = failure_from(run, error)
            finally:
                current.reset(token)
            run._conclude_here(result)
            return run
        run._admit()
        return run

    @classmethod
    def _at_once(cls) -> int:
        return 1

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(_blank, name)

    def _start_attempt(self) -> None:
        _process.step_aside()  # where a run that waited for its inputs is started by whoever learnt of the last one
        while True:
            self._mark_started()
            pause = self._conclude_here(attempt(self))
            if pause is None:
                return
            sleep(pause)
            self._next_attempt()

    def _conclude_here(self, result: Any) -> float | None:
        error = None if result else result.__cause__
        if error is not None and _exceptions.is_interrupt(error):
            failure = self._named(StoppedFailure("interrupted by Ctrl-C"))
            failure.__cause__ = error
            self._settle(failure)
            raise error
        return self._conclude(result)

    def _check_owner(self) -> None:
        if self._owner is not None:  # one that waits for its inputs
            super()._check_owner()


_blank: Any = BaseTaskRun(None, (), {}, 0, None)  # type: ignore[arg-type]
