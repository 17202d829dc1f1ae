"""TaskFuture: what `TaskExecutor.submit` hands out; what its run's end means, and what waiting and cancelling do to the run.

Rule 1: it is settled once: when its run has ended (`_ended`), or before by `cancel`.
Rule 2: whoever waits for it brings its run on; the end comes with nobody waiting as well (a done-callback of the run).
Rule 3: what it refers to (function, arguments, run) goes with the end of its run.
"""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, PENDING
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from woflo import _unseen
from woflo.result import Failure, Ok, StoppedFailure
from woflo.runners import _waiters

if TYPE_CHECKING:
    from woflo.futures import TaskExecutor
    from woflo.runners.base import BaseTaskRun

__all__ = ["TaskFuture"]

T = TypeVar("T")


class TaskFuture(Future[T], Generic[T]):
    """The future of a call: a `concurrent.futures.Future` whose `cancel()` ends a running call.

    Made by `TaskExecutor.submit`, never directly. Its exception is the call's own, whatever it is; WorkerLost if the worker
    died; TimeoutFailure if an attempt of a task took too long. What the call brings after `cancel()` is dropped.
    """

    def __init__(self, executor: TaskExecutor) -> None:
        super().__init__()
        self._executor: TaskExecutor | None = executor  # as long as its run has not ended
        self._run: BaseTaskRun[T] | None = None  # the same
        self._failure: Failure | None = None  # as long as nobody has looked

    def result(self, timeout: float | None = None) -> T:
        """Wait for the call and return its value, or raise its exception.

        Args:
            timeout: how long to wait, seconds; None: as long as it takes.

        Raises:
            CancelledError: it was cancelled, or its run was stopped.
            TimeoutError: `timeout` seconds have passed; the call goes on.
        """
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                del error, self  # else the traceback would hold this frame, and the frame the exception
        return self._result  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the call and return its exception; None if it has a value. Raises as `result` does."""
        if self._run is not None and self._state == PENDING:
            self._bring_on(timeout)
            timeout = None if timeout is None else 0.0
        error = super().exception(timeout)
        failure, self._failure = self._failure, None
        if failure is not None:
            _unseen.seen(failure)
        return error

    def cancel(self) -> bool:
        """End the call; True if it has no outcome and now never gets one.

        A call that has not begun never begins. A running one is asked to end and then ended, as `TaskRun.stop()` does it, where
        its runner can; the future is cancelled at once.
        """
        run = self._run
        executor = self._executor
        if run is None or executor is None:
            return self.cancelled()
        if executor._strict:
            return run._withdraw() or self.cancelled()
        if not self._mark_cancelled():
            return self.cancelled()
        try:
            run.stop(wait=False)
        finally:
            self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def running(self) -> bool:
        """Whether the call has begun and has no outcome yet."""
        run = self._run
        return run is not None and not self.done() and run.state in {"running", "retrying"}

    def _mark_cancelled(self) -> bool:
        """Settle as cancelled, callbacks apart; False if it is settled."""
        with self._condition:
            if self._state != PENDING:
                return False
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        return True

    def _bring_on(self, timeout: float | None) -> None:
        """Wait until it is settled, or `timeout` seconds have passed; meanwhile do what its run waits for."""
        run = self._run
        if run is None:
            return
        deadline = None if timeout is None else monotonic() + max(0.0, timeout)
        run._check_owner()
        run._check_wait()
        _waiters.start_queued()
        waiter = _waiters.Waiter()
        signal: Any = waiter.signal
        self.add_done_callback(signal)
        try:
            _waiters.block(waiter, deadline, run._pumped, run._look_around)
        finally:
            with self._condition:
                callbacks: list[Any] = self._done_callbacks  # type: ignore[attr-defined]
                if signal in callbacks:
                    callbacks.remove(signal)

    def _ended(self, run: BaseTaskRun[T]) -> None:
        """Its run has ended, with this outcome."""
        executor, result = self._executor, run._result
        assert executor is not None  # noqa: S101 - a run ends once
        self._run = None
        try:
            if isinstance(result, Ok):
                self.set_result(result.value)
            elif isinstance(result, StoppedFailure):
                if self._mark_cancelled():
                    self._invoke_callbacks()  # type: ignore[attr-defined]
            elif result is not None:
                self._failure = result
                self.set_exception(executor._judge(result))
        except InvalidStateError:  # it was cancelled, and what came after that counts for nobody
            _unseen.seen(self._failure)
            self._failure = None
        finally:
            self._executor = None
            executor._forget(self)
