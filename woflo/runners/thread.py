"""ThreadTaskRun: a thread of this process.

The threads are daemons, kept while there is work and for a moment after. A run waits in a queue only when
as many threads as are allowed are at work; one that itself waits for a run doesn't count. Python can't
end a thread: `stop` throws TaskStopped into it, and says so when that had no effect.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock, get_ident
from collections import deque
from contextvars import copy_context
from itertools import count
from time import monotonic

from woflo import _exceptions
from woflo.errors import TaskStopped, UsageError
from woflo.result import StoppedFailure, WorkerFailure
from woflo.runners import base
from woflo.runners._slots import default_size
from woflo.runners.base import BaseTaskRun, attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import Context
    from typing import Any, TypeVar

    R = TypeVar("R", covariant=True)  # noqa: PLC0105

__all__ = ["ThreadTaskRun"]

_IDLE_SECONDS = 1.0  # a thread without work ends after this; starting one costs 50 µs


class _Pool:
    """The threads of one runner class. `lock` is held for a few instructions around each hand-over."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = allocate_lock()
        self.queue: deque[ThreadTaskRun[Any]] = deque()
        self.idle: list[Any] = []  # one lock per sleeping thread: released when there is work
        self.threads = 0  # alive, sleeping ones too
        self.waiting = 0  # those whose run waits for another run

    def submit(self, run: ThreadTaskRun[Any]) -> None:
        """Hand a run to a sleeping thread, a new one, or the next that is free."""
        with self.lock:
            self.queue.append(run)
            if self.idle:
                self.idle.pop().release()
                return
            if self.threads - self.waiting >= self.size:
                return
            self.threads += 1
        self._start_thread()

    def _start_thread(self) -> None:
        import threading  # noqa: PLC0415 - not before somebody wants threads

        try:
            threading.Thread(target=self._work, name=f"woflo-{next(_numbers)}", daemon=True).start()
        except RuntimeError as error:
            with self.lock:
                self.threads -= 1
                stranded = [] if self.threads else list(self.queue)
                if stranded:
                    self.queue.clear()
            for run in stranded:  # no thread is left that could ever take them
                if base.exiting:
                    run.carry_out()
                else:
                    run.finish(run.named(WorkerFailure(f"could not be started: {error}", errno="EAGAIN")))

    def block(self, blocks: bool) -> None:  # noqa: FBT001 - the hook's signature
        """A run of this pool begins (or ceases) to wait for another run: its thread doesn't count meanwhile."""
        with self.lock:
            self.waiting += 1 if blocks else -1
            if not blocks or not self.queue or self.idle or self.threads - self.waiting >= self.size:
                return
            self.threads += 1
        self._start_thread()

    def _work(self) -> None:
        """A thread's life: take a run, carry it out, until there is none for a while."""
        _own.pool[get_ident()] = self
        sleep = allocate_lock()
        sleep.acquire()
        try:
            while (run := self._next(sleep)) is not None:
                if not run.carry_out():
                    break  # TaskStopped was thrown into this thread: it takes no further run
                del run  # an idle thread must not keep the last run alive
        finally:
            del _own.pool[get_ident()]
            with self.lock:
                self.threads -= 1
                missing = bool(self.queue) and not self.idle and self.threads - self.waiting < self.size
                self.threads += missing
            if missing:
                self._start_thread()

    def _next(self, sleep: Any) -> ThreadTaskRun[Any] | None:
        while True:
            with self.lock:
                if self.queue:
                    if self.threads - self.waiting > self.size:
                        return None  # a run that waited goes on: one thread too many
                    return self.queue.popleft()
                self.idle.append(sleep)
            if not sleep.acquire(timeout=_IDLE_SECONDS):
                with self.lock:
                    if sleep in self.idle:
                        self.idle.remove(sleep)
                        return None
                sleep.acquire()  # it was released in the last moment


class _Own:
    """Which pool a thread belongs to."""

    def __init__(self) -> None:
        self.pool: dict[int, _Pool] = {}


_own = _Own()
_numbers = count(1)
_pools: dict[type, _Pool] = {}
_throwing = allocate_lock()  # held while TaskStopped is thrown, and when a task's code is left: it hits nothing else


def _waiting(blocks: bool) -> None:  # noqa: FBT001 - the hook's signature
    pool = _own.pool.get(get_ident())
    if pool is not None:
        pool.block(blocks)


class ThreadTaskRun(BaseTaskRun["R"] if TYPE_CHECKING else BaseTaskRun):
    """A run in a thread of this process; the context variables are those of the call.

    It sees arguments and globals as they are when it starts. A thread can't be killed: `stop()` and a time-out throw
    TaskStopped into its Python code, and a run that does not end then is abandoned, and says so.

    Attributes:
        max_running: at most so many at work at once; None: max(32, 4 × cores). One that waits for a run doesn't count.
    """

    context: Context | None = None
    _thread: int = 0  # the thread that runs the task's code now
    _thrown: bool = False
    _pause: Any = None  # released to end a pause between two attempts

    def _start_attempt(self) -> None:
        self.context = copy_context()
        if self.task.timeout is not None:
            self._attend()
        _pool_of(type(self)).submit(self)

    def carry_out(self) -> bool:
        """In a pool's thread: all attempts; False if TaskStopped was thrown into this thread."""
        while self._result is None:
            mine = self.attempt
            self.mark_started()
            limit = self.task.timeout
            if limit is not None:
                self._clock = base.timers().call_later(limit, self._overdue)
            context = self.context
            try:
                if self._stop_asked or context is None:
                    result: Any = self.named(StoppedFailure("stopped"))
                else:
                    self._thread = get_ident()
                    result = context.run(attempt, self)
            except TaskStopped:  # between the task's last instruction and here
                result = self.named(StoppedFailure("stopped"))
            clean = self._leave(mine)
            if self.attempt != mine:  # abandoned long ago, another thread has the next attempt
                return False
            if not clean:
                self.finish(result)
                return False
            pause = self.conclude(result)
            if pause is None or not self._sleep(pause):
                return True
            self.next_attempt()
        return True

    def _leave(self, mine: int) -> bool:
        """The task's code is left: nothing may be thrown any more; False if something was."""
        with _throwing:
            thrown = self._thrown or self.attempt != mine
            if thrown:
                _throw(get_ident(), None)  # if it has not struck yet, it never will
            if self.attempt == mine:
                self._thread, self._thrown = 0, False
        return not thrown

    def _sleep(self, seconds: float) -> bool:
        """Pause between two attempts; False if the run was stopped meanwhile."""
        self._pause = lock = allocate_lock()
        lock.acquire()
        _waiting(True)  # noqa: FBT003
        try:
            deadline = monotonic() + seconds
            while self._result is None and (left := deadline - monotonic()) > 0:
                if lock.acquire(timeout=min(left, 3600.0)):
                    break
        finally:
            self._pause = None
            _waiting(False)  # noqa: FBT003
        return self._result is None

    def _interrupt(self, grace: float) -> None:  # noqa: ARG002
        with _throwing:
            if self._thread and not self._thrown:
                self._thrown = True
                _throw(self._thread, TaskStopped)

    def _settle(self, result: Any) -> None:
        super()._settle(result)
        self.context = None
        pause = self._pause
        if pause is not None:
            try:  # noqa: SIM105
                pause.release()
            except RuntimeError:
                pass

    def whereabouts(self) -> tuple[_exceptions.Place, ...]:
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - the only way to another thread's frames
        return _exceptions.stack(frame) if self._thread else ()


def _pool_of(runner: type[ThreadTaskRun[Any]]) -> _Pool:
    owner = next(cls for cls in runner.__mro__ if "max_running" in vars(cls))
    size = runner.max_running or default_size()
    pool = _pools.get(owner)
    if pool is None or pool.size != size:
        if type(size) is not int or size < 1:
            raise UsageError(f"max_running must be a whole number from 1 up, not {size!r}")
        if pool is None:
            if _waiting not in base.waiting_hooks:
                base.waiting_hooks.append(_waiting)
            pool = _pools[owner] = _Pool(size)
            base.on_fork(_forget)
        pool.size = size
    return pool


def _forget() -> None:
    """In a forked child: the threads stayed behind."""
    global _throwing  # noqa: PLW0603
    _kept.append(dict(_pools))
    _pools.clear()
    _own.pool.clear()
    _throwing = allocate_lock()


_kept: list[Any] = []


def _throw(thread: int, kind: type[BaseException] | None) -> None:
    """Have Python raise an exception in a thread at its next instruction; None takes it back."""
    import ctypes  # noqa: PLC0415 - 10 ms, for stopped threads only

    what = ctypes.py_object() if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)

