"""TaskFuture: what `TaskExecutor.submit` hands out; what its run's end means, and what waiting and cancelling do to the run.

Rule 1: it is settled once: when its run has ended (`_ended`, by whoever comes first), or before by `cancel`.
Rule 2: who waits by `result` or `exception` waits for the run, and brings it on. The run is asked to tell of its end, which takes
a background thread over processes, only when somebody wants to be told (a callback, `concurrent.futures.wait`: `_attach`), or
when nobody will ask any more (the future is dropped).
Rule 3: what it refers to (function, arguments, run) goes when it is settled by its run's end.
"""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from woflo import _unseen
from woflo.result import Failure, Ok, StoppedFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from woflo.futures import TaskExecutor
    from woflo.runners.base import BaseTaskRun

__all__ = ["TaskFuture"]

T = TypeVar("T")


class _Waiters:
    """Those whom `concurrent.futures` wants told, as it sees them: the first of them has the run tell of its end."""

    def __init__(self, future: TaskFuture[Any], known: list[Any]) -> None:
        self._future = future
        self._known = known

    def append(self, waiter: Any) -> None:
        self._known.append(waiter)  # first: if the run has ended, the waiter is told by what comes next
        self._future._attach()

    def remove(self, waiter: Any) -> None:
        self._known.remove(waiter)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._known)


class TaskFuture(Future[T], Generic[T]):
    """The future of a call: a `concurrent.futures.Future` whose `cancel()` ends a running call.

    Made by `TaskExecutor.submit`, never directly. Its exception is the call's own, whatever it is; WorkerLost if the worker
    died; TimeoutFailure if an attempt of a task took too long. What the call brings after `cancel()` is dropped.
    """

    def __init__(self, executor: TaskExecutor) -> None:
        self._run: BaseTaskRun[T] | None = None  # until its end is known here
        self._attached = False  # whether the run tells of its end
        self._executor: TaskExecutor = executor
        super().__init__()
        self._failure: Failure | None = None  # as long as nobody has looked

    def result(self, timeout: float | None = None) -> T:
        """Wait for the call and return its value, or raise its exception.

        Args:
            timeout: how long to wait, seconds; None: as long as it takes.

        Raises:
            CancelledError: it was cancelled, or its run was stopped.
            TimeoutError: `timeout` seconds have passed; the call goes on.
        """
        run = self._run
        if run is not None and self._state == PENDING and run.wait(None if timeout is None else max(0.0, timeout)):
            self._ended(run)
        if self._state == FINISHED and self._exception is None:
            return self._result  # type: ignore[return-value]
        error = self.exception(None if run is None or timeout is None else 0.0)
        if error is None:
            return self._result  # type: ignore[return-value]
        try:
            raise error
        finally:
            del error, self  # else the traceback would hold this frame, and the frame the exception

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the call and return its exception; None if it has a value. Raises as `result` does."""
        run = self._run
        if run is not None and self._state == PENDING:
            if run.wait(None if timeout is None else max(0.0, timeout)):
                self._ended(run)
            elif timeout is not None:
                timeout = 0.0
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
        self._look()
        run = self._run
        if run is not None and self._executor._strict:
            if run._withdraw():
                self._ended(run)
        elif run is not None and self._mark_cancelled():
            try:
                run.stop(wait=False)
            finally:
                self._invoke_callbacks()  # type: ignore[attr-defined]
        return super().cancelled()

    def cancelled(self) -> bool:
        """Whether it was cancelled, or its run was stopped."""
        self._look()
        return super().cancelled()

    def done(self) -> bool:
        """Whether the call has an outcome, or was cancelled."""
        self._look()
        return super().done()

    def running(self) -> bool:
        """Whether the call has begun and has no outcome yet."""
        run = self._run
        return run is not None and self._state == PENDING and run.state in {"running", "retrying"}

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn(future)` when it has an outcome or was cancelled, in the thread that learns it; at once if it has."""
        super().add_done_callback(fn)
        self._attach()

    def __del__(self) -> None:
        run = getattr(self, "_run", None)
        if run is not None and not self._attached:
            self._executor._drop(run)

    def __repr__(self) -> str:
        self._look()
        return super().__repr__()

    # ------------------------------------------------------------------ inside

    @property
    def _waiters(self) -> Any:
        known = self._known
        return known if self._run is None or self._attached else _Waiters(self, known)

    @_waiters.setter
    def _waiters(self, known: list[Any]) -> None:
        self._known = known

    def _look(self) -> None:
        """Find out whether the run has ended."""
        run = self._run
        if run is not None and self._state == PENDING and not run.is_running():
            self._ended(run)

    def _attach(self) -> None:
        """Have the run tell of its end, with nobody waiting too; if it has ended that is now."""
        with self._condition:
            run = self._run
            if run is None or self._attached:
                return
            self._attached = True
        run.add_done_callback(self._ended)

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

    def _ended(self, run: BaseTaskRun[T]) -> None:
        """Its run has ended: settle, if nobody else does."""
        result = run._result
        with self._condition:
            if self._run is not run:
                return
            self._run = None
            done = result.__class__ is Ok and self._state == PENDING
            if done:  # as `set_result`, without its second turn at the lock
                self._result = result.value  # type: ignore[union-attr]
                self._state = FINISHED
                for waiter in self._known:
                    waiter.add_result(self)
                self._condition.notify_all()
        executor = self._executor
        try:
            if done:
                self._invoke_callbacks()  # type: ignore[attr-defined]
            elif isinstance(result, StoppedFailure):
                if self._mark_cancelled():
                    self._invoke_callbacks()  # type: ignore[attr-defined]
            elif isinstance(result, Failure):
                self._failure = result
                self.set_exception(executor._judge(result))
        except InvalidStateError:  # it was cancelled, and what came after that counts for nobody
            _unseen.seen(self._failure)
            self._failure = None
        finally:
            executor._forget(run)
