"""ThreadTaskRun: a thread of this process.

The threads are daemons, kept while there is work and for a moment after. A run waits in a queue only when
as many threads as are allowed are at work; one that itself waits for a run doesn't count. Python can't
end a thread: `stop` throws TaskStopped into it, and says so when that had no effect.
"""

from __future__ import annotations

import sys
from _thread import RLock, allocate_lock, get_ident
from collections import deque
from contextvars import copy_context
from itertools import count
from time import monotonic
from weakref import WeakKeyDictionary

from woflo import _collector, _exceptions, _loading
from woflo.errors import TaskStopped, UsageError
from woflo.result import Ok, StoppedFailure, WorkerFailure
from woflo.runners import _calm, _process, _waiters
from woflo.runners._attempt import attempt
from woflo.runners._slots import default_size
from woflo.runners.base import BaseTaskRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from threading import Thread
    from typing import Any, ClassVar, TypeVar

    R = TypeVar("R", covariant=True)  # noqa: PLC0105
else:
    from woflo._generic import R

__all__ = ["ThreadTaskRun"]

_IDLE_SECONDS = 1.0  # a thread without work ends after this; starting one costs 50 µs


class _Pool:
    """The threads of one runner class. `lock` is held for a few instructions around each hand-over."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = RLock()  # re-entrant: a signal handler may call tasks
        self.queue: deque[ThreadTaskRun[Any]] = deque()
        self.idle: list[Any] = []  # one lock per sleeping thread: released when there is work
        self.threads = 0  # alive, sleeping ones too
        self.members: dict[
            int, Thread | None
        ] = {}  # those alive (None: about to be), by the lowest number that was free
        self.prefix: str | None = None  # of their names; None: numbered through all pools
        self.retired = False  # nothing more will come: a thread without work ends at once
        self.setting: int | None = None  # the max_running that it was made for
        self.lost: set[int] = set()  # threads whose run was abandoned: counted as waiting until they end
        self.searching = False  # a thread has been woken or started for the queue and has not taken a run yet
        self.waiting = 0  # those whose run waits for another run

    def submit(self, run: ThreadTaskRun[Any]) -> None:
        """Hand a run to a sleeping thread, a new one, or the next that is free.

        One thread at a time is called: it calls the next when it takes a run and there are more. So a burst of short
        runs wakes few threads (each costs a switch of the GIL), and a burst of long ones gets all of them within
        milliseconds. As long as the queue holds a run, a thread is searching or no more are allowed.
        """
        self.queue.append(run)
        if not self.searching:  # else it looks at the queue after it has cleared the flag
            self._call()

    def _call(self) -> None:
        """Have a thread look at the queue, a sleeping one or a new one, unless one does or no more are allowed."""
        with _calm.Held():
            error = self._call_undisturbed()
            with self.lock:
                stranded = [] if error is None or self.threads else list(self.queue)
                if stranded:
                    self.queue.clear()
        for run in stranded:  # no thread is left that could ever take them
            if _process.exiting:
                run._carry_out()
            else:
                run.finish(run._named(WorkerFailure(f"could not be started: {error}", errno="EAGAIN")))

    def _call_undisturbed(self) -> RuntimeError | None:
        with self.lock:
            if self.searching:
                return None
            if self.idle:
                self.searching = True
                self.idle.pop().release()
                return None
            if self.threads - self.waiting >= self.size:
                return None
            number = next(number for number in count() if number not in self.members)
            self.members[number] = None
            self.threads += 1
            self.searching = True
        name = f"woflo-{next(_numbers)}" if self.prefix is None else f"{self.prefix}_{number}"
        try:
            _process.start_thread(self._work, number, name=name)
        except RuntimeError as error:
            with self.lock:
                del self.members[number]
                self.threads -= 1
                self.searching = False
            return error
        return None

    def block(self, blocks: bool) -> None:
        """A run of this pool begins (or ceases) to wait for another run: its thread doesn't count meanwhile."""
        with self.lock:
            self.waiting += 1 if blocks else -1
        if blocks and self.queue:
            self._call()

    def lose(self, thread: int) -> None:
        """A thread's run was abandoned: its place is another's."""
        with self.lock:
            if _own.pool.get(thread) is not self or thread in self.lost:
                return
            self.lost.add(thread)
        self.block(True)

    def retire(self) -> None:
        """Nothing more will come and all runs have ended: end the threads, except those whose run was abandoned."""
        with self.lock:
            self.retired = True
            idle, self.idle = self.idle, []
            ending = [thread for thread in self.members.values() if thread is not None]
        for sleep in idle:
            sleep.release()
        for thread in ending:
            if thread.ident not in self.lost and thread.ident != get_ident():
                thread.join(_IDLE_SECONDS)  # it has nothing to do any more

    def _work(self, number: int) -> None:
        """A thread's life: take a run, carry it out, until there is none for a while."""
        self.members[number] = sys.modules["threading"].current_thread()
        _own.pool[get_ident()] = self
        sleep = allocate_lock()
        sleep.acquire()
        searching = True  # it was started because of the queue
        try:
            while (run := self._next(sleep, searching)) is not None:
                searching = False
                if not run._carry_out():
                    break  # TaskStopped was thrown into this thread: it takes no further run
                del run  # an idle thread must not keep the last run alive
        finally:
            del _own.pool[get_ident()]
            with self.lock:
                self.threads -= 1
                del self.members[number]
                if get_ident() in self.lost:
                    self.lost.discard(get_ident())
                    self.waiting -= 1
            if self.queue:
                self._call()

    def _next(self, sleep: Any, searching: bool) -> ThreadTaskRun[Any] | None:
        """The next run for this thread; None when it shall end.

        First the flag is cleared, then the queue is looked at; `submit` does it the other way round. So one of the two
        sees the other, and no run lies in the queue unseen.
        """
        queue = self.queue
        while True:
            if searching:
                self.searching = False
            if self.threads - self.waiting <= self.size:
                try:
                    run = queue.popleft()
                except IndexError:
                    pass
                else:
                    if queue and not self.searching:
                        self._call()
                    return run
            elif queue:
                return None  # a run that waited has gone on: one thread too many
            with self.lock:
                if queue:  # it came while this thread was about to sleep
                    continue
                if self.retired:
                    return None
                self.idle.append(sleep)
            searching = sleep.acquire(timeout=_IDLE_SECONDS)
            if not searching:
                with self.lock:
                    if sleep in self.idle:
                        self.idle.remove(sleep)
                        return None
                searching = sleep.acquire()  # it was released in the last moment


class _Own:
    """Which pool a thread belongs to."""

    def __init__(self) -> None:
        self.pool: dict[int, _Pool] = {}


_own = _Own()
_numbers = count(1)
_pools: WeakKeyDictionary[type, _Pool] = WeakKeyDictionary()  # by runner class; several may share one
_throwing = allocate_lock()  # held while TaskStopped is thrown, and when a task's code is left: it hits nothing else


def _waiting(blocks: bool) -> None:
    pool = _own.pool.get(get_ident())
    if pool is not None:
        pool.block(blocks)


class ThreadTaskRun(BaseTaskRun[R]):
    """A run in a thread of this process; the context variables are those of the call.

    It sees arguments and globals as they are when it starts. A thread can't be killed: `stop()` and a time-out throw
    TaskStopped into its Python code, and a run that does not end then is abandoned, and says so.

    Attributes:
        max_running: at most so many at work at once; None: max(32, 4 × cores). One that waits for a run doesn't count.
        thread_name_prefix: its threads are named `prefix_0`, `prefix_1`, …, where the class has a max_running of its own;
            None: `woflo-1`, …
    """

    __slots__ = ()
    thread_name_prefix: ClassVar[str | None] = None
    _settings: ClassVar[tuple[str, ...]] = ("max_running", "thread_name_prefix")
    # `_place` is the number of the thread that runs the task's code now, 0 if none does

    @classmethod
    def _check_setting(cls, name: str, value: Any) -> None:
        if name == "thread_name_prefix" and not (value is None or isinstance(value, str)):
            raise UsageError(f"thread_name_prefix must be a text, or None, not {value!r}")
        super()._check_setting(name, value)

    @classmethod
    def _release(cls) -> None:
        pool = _pools.get(cls)
        if pool is not None and cls._limit_owner() is cls:
            pool.retire()

    def _begin(self) -> None:
        if self._context is None:
            self._context: Context | None = copy_context()
        self._start_attempt()

    def _start_attempt(self) -> None:
        if self.task.timeout is not None:
            self._attend()
        pool = _pools.get(type(self))
        if pool is None or pool.setting is not self.max_running:
            pool = _pool_of(type(self))
        pool.submit(self)

    def _carry_out(self) -> bool:
        """In a pool's thread: all attempts; False if TaskStopped was thrown into this thread."""
        while self._result is None:
            mine = self.attempt
            self._mark_started()
            limit = self.task.timeout
            if limit is not None:
                self._clock = _process.timers().call_later(limit, lambda mine=mine: self._overdue(mine))  # type: ignore[misc]
            context = self._context
            try:
                if self._stop_asked or context is None:
                    result: Any = self._named(StoppedFailure("stopped"))
                else:
                    self._place = get_ident()
                    if mine > 1:  # an abandoned attempt may still be inside it
                        context = context.copy()
                    result = context.run(attempt, self)
            except TaskStopped:  # between the task's last instruction and here
                result = self._named(StoppedFailure("stopped"))
            if self._place == get_ident():  # else another thread has the next attempt
                self._place = 0
            # `stop` and the clock set these before they look at `_place`: if neither is seen here, nothing will be thrown
            if (self._stop_asked or self._timed_out or self.attempt != mine) and not self._leave(mine):
                if self.attempt == mine:  # else abandoned long ago: another thread has the next attempt
                    self.finish(result)
                return False
            if result.__class__ is Ok and not self._timed_out:
                self._succeed(result.value)
                return True
            pause = self._conclude(result)
            if pause is None or not self._sleep(pause):
                return True
            self._next_attempt()
        return True

    def _leave(self, mine: int) -> bool:
        """The task's code is left: nothing may be thrown any more; False if something was."""
        try:
            with _throwing:
                thrown = self._thrown or self.attempt != mine
                if thrown:  # if it has not struck yet, it does so here: Python looks for it at each turn of a loop
                    for _ in range(100):
                        pass
                if self.attempt == mine:
                    self._thrown = False
        except TaskStopped:  # above, or while this thread waited for the lock that the thrower held
            if self.attempt == mine:
                self._thrown = False
            return False
        return not thrown

    def _sleep(self, seconds: float) -> bool:
        """Pause between two attempts; False if the run was stopped meanwhile."""
        deadline = monotonic() + seconds
        self._pause = waiter = _waiters.Waiter()
        _waiting(True)
        try:
            while self._result is None and (left := deadline - monotonic()) > 0:
                waiter.sleep(left)
        finally:
            self._pause = None
            _waiting(False)
        return self._result is None

    def _undisturbed(self, action: Callable[[], None]) -> None:
        with _throwing:
            if not self._thrown:  # else TaskStopped is on its way
                action()

    def _interrupt(self, grace: float) -> None:  # noqa: ARG002
        if self.task.is_async:  # its loop would be torn by an exception out of nowhere; a cancellation is its own way
            if self._inner is not None:
                loop, job = self._inner
                try:
                    loop.call_soon_threadsafe(job.cancel)
                except RuntimeError:  # it has ended by itself
                    return
            return
        if "ctypes" not in sys.modules:  # loaded before the lock is taken
            with _loading.hurry():
                import ctypes  # noqa: F401

        with _throwing:
            if self._place and not self._thrown:
                self._thrown = True
                _throw(self._place, TaskStopped)

    def _abandon(self, attempt: int) -> None:
        thread = self._place
        super()._abandon(attempt)
        if thread and (self._result is not None or self._concluded == attempt):
            pool = _own.pool.get(thread)
            if pool is not None:
                pool.lose(thread)

    def _whereabouts(self) -> tuple[_exceptions.Place, ...]:
        frame = _collector.frames().get(self._place)
        return _exceptions.stack(frame) if self._place else ()


def _pool_of(runner: type[ThreadTaskRun[Any]]) -> _Pool:
    owner = runner._limit_owner()
    size = owner.max_running or default_size()
    pool = _pools.get(owner)
    if pool is None:
        if _waiting not in _process.waiting_hooks:
            _process.waiting_hooks.append(_waiting)
        pool = _pools[owner] = _Pool(size)
        _process.on_fork(_forget)
    pool.size = size
    pool.prefix = getattr(owner, "thread_name_prefix", None)
    pool.retired = False
    pool.setting = runner.max_running
    _pools[runner] = pool
    return pool


def _forget() -> None:
    """In a forked child: the threads stayed behind."""
    global _throwing
    _kept.append(dict(_pools))
    _pools.clear()
    _own.pool.clear()
    _throwing = allocate_lock()


_kept: list[Any] = []


def _throw(thread: int, kind: type[BaseException]) -> None:
    """Have Python raise an exception in a thread at its next instruction.

    It can't be taken back: on Python 3.11 that leaves the interpreter looking for it for ever, and any profiler or
    debugger then hangs the next function that is called.
    """
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
