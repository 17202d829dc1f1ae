"""PoolTaskRun: a warm worker, leased for one run at a time.

How calls reach workers and come back is in `_pool`, what a worker does in `_pool_worker`. Here is what results and
deaths mean for a run, and the straight way of a simple call.
"""

from __future__ import annotations

import os
from marshal import loads as loads_plain
from time import monotonic
from typing import TYPE_CHECKING

from woflo import _exceptions, _notify
from woflo.errors import UsageError
from woflo.result import Ok, StoppedFailure, WorkerFailure
from woflo.runners import (
    _arena,
    _attempt,
    _crew,
    _death,
    _inputs,
    _message,
    _pool,
    _process,
    _ring,
    _shipping,
    _supervisor,
)
from woflo.runners.base import BaseTaskRun

try:
    from _pickle import dumps, load, loads
except ImportError:
    from pickle import dumps, load, loads

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, TypeVar

    from woflo.runners._message import Function, Hand
    from woflo.runners._pool import Pool
    from woflo.task import Task

    R = TypeVar("R", covariant=True)  # noqa: PLC0105
else:
    from woflo._generic import R

__all__ = ["PoolTaskRun"]

_PLAIN = _inputs.PLAIN
_new = object.__new__
_NONE: dict[str, Any] = {}
_LEAVING_SECONDS = 3.0  # a worker without work leaves at once, with multiprocessing's clean-up within 2 s
_MOST_BYTES = _crew.MESSAGE_BYTES
_made: list[type[PoolTaskRun[Any]]] = []  # the classes that have a pool


class PoolTaskRun(BaseTaskRun[R]):
    """A run on a warm worker: a process kept for one call after the other (Linux).

    Call and result travel by pickle: arguments as they are at the call, the function once per pool, by name or by
    value with the globals that it names as they are then. Worker processes are forked at the first calls, end after ten seconds
    without work, and end with this process in any case. One that dies, is stopped or takes too long costs the run that it was at,
    and is replaced. What a task leaves changed (working directory, umask, signal handlers, environment, streams,
    recursion limit, seeded random numbers) is put back before the worker takes its next message of calls.

    Attributes:
        workers: how many processes at most; None: as many as this process has cores, at least two. A run beyond that is
            pending until one is free. Read at each call; the others when the class's workers are first needed.
        max_runs_per_worker: a worker is replaced after so many runs; None: never.
        initializer: called in each new worker with `initargs`, before its first run.
        initargs: its arguments; they and the initializer are inherited, not pickled.
    """

    _pumped: ClassVar[bool] = True
    _keeps_time = True
    _settings: ClassVar[tuple[str, ...]] = ("workers", "max_runs_per_worker", "initializer", "initargs")
    _pool: ClassVar[Pool | None] = None
    workers: ClassVar[int | None] = None
    max_runs_per_worker: ClassVar[int | None] = None
    initializer: ClassVar[Callable[..., object] | None] = None
    initargs: ClassVar[tuple[Any, ...]] = ()

    __slots__ = ("_arena", "_blob", "_crew", "_flags", "_function")
    if TYPE_CHECKING:
        args: tuple[Any, ...]
        kwargs: dict[str, Any]
    _arena: Any  # that holds its large arguments, or waits for its result
    _blob: bytes | None  # the call, pickled
    _crew: Any
    _flags: int
    _function: Function | None  # None: not packed yet

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._pool = None  # workers are not shared between classes

    @classmethod
    def submit(
        cls, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[BaseTaskRun[Any]]
    ) -> Self:
        pool = cls._pool
        if (
            inputs
            or pool is None
            or pool.setting[0] is not cls.workers
            or not task.simple
            or _notify.listening
            or _process.closed
            or (function := pool.functions.get(id(task))) is None
            or not function.straight
        ):
            return super().submit(task, args, kwargs, inputs)
        for one in args:
            if one.__class__ not in _PLAIN:
                return super().submit(task, args, kwargs, inputs)
        if kwargs:
            return super().submit(task, args, kwargs, inputs)
        # the straight way: plain arguments, no retries, no time-out, nobody listening; what it doesn't set reads as in `_blank`
        run = _new(cls)
        run._number = number = next(task.numbers)
        run._blob = blob = dumps((function.number, number, args, _NONE), 5)
        run.task = task
        run.args = args
        run._owner = _process.mark
        run._function = function
        run._attended = run._stop_asked = False
        run._timed_out = run._flags = 0
        run._result = run._waiters = run._dependents = run._callbacks = None
        if len(blob) > _MOST_BYTES:
            run._flags = _message.ALONE
        staged = pool.staged
        try:
            _process.live.add(run)
            staged.append(run)
            if len(staged) >= pool.want:
                pool.advance()
        except BaseException:  # Ctrl-C: it may have begun, and nobody has it to stop it
            if run._result is None:
                run.stop(wait=False)
            raise
        return run

    @classmethod
    def _batches(cls, task: Task[..., Any]) -> bool:
        """Only where nobody has put anything of his own in the straight way's place."""
        plain = cls.submit.__func__ is PoolTaskRun.submit.__func__  # type: ignore[attr-defined]
        return plain and task.simple and task.cache is None and task.keeper is None and not task._apart

    @classmethod
    def _together(cls, task: Task[..., Any]) -> Function | None:
        """What the pool keeps of a task, if its calls go together now."""
        pool = cls._pool
        if pool is None or pool.setting[0] is not cls.workers or _notify.listening or _process.closed:
            return None
        function = pool.functions.get(id(task))
        ready = function is not None and function.straight and not function.large and function.short()
        return function if ready else None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return _OWN[name] if name in _OWN else getattr(_blank, name)

    # ------------------------------------------------------------------ starting

    def _prepare_pending(self) -> None:
        """Nothing of the caller's is needed later: it is another process that runs the call."""

    def _begin(self) -> None:
        self._start_attempt()

    def _start_attempt(self) -> None:
        pool = _pool_of(type(self))
        self._pack(pool)
        self._started = self._ended = 0.0
        self._phase = "running"
        late = self.task.timeout is not None or _notify.listening
        room = _message.ARENA if self._arena is not None else 0
        # what is kept is so before its end can be seen: not by the straight way back; after several items state is looked at
        apart = self.task.keeper is not None or self.task._apart
        alone = late or room or apart or self.attempt > 1 or len(self._blob or b"") > _crew.MESSAGE_BYTES
        self._flags = (_message.NOTICE if late else 0) | (_message.ALONE if alone else 0) | room
        if _notify.listening:
            _notify.pending(self)
        if not self.task.simple or _notify.listening or self._callbacks:
            self._attend()
        pool.staged.append(self)
        pool.advance()

    def _pack(self, pool: Pool) -> None:
        """Pickle the call, unless an earlier attempt has.

        Raises:
            UsageError: an argument can't be pickled.
        """
        if self._function is not None and self._arena is None:
            return
        large = any(map(_arena.is_large, (*self.args, *self.kwargs.values())))
        function = self._function = pool.function(self.task, self, keep=large)
        if function.number < 0:  # its first call carries the function with it
            self._blob = dumps(
                (-1, self._number, _message.dump(self.task, self._number, self.args, self.kwargs), _NONE), 5
            )
            return
        call = (function.number, self._number, self.args, self.kwargs)
        try:
            blob, buffers = _arena.split(call)
        except Exception:
            blob = b"__main__"
        if b"__main__" in blob:  # the worker's own __main__ may be older than what is named
            try:
                blob, buffers = _arena.split(call, _shipping._by_value)
            except Exception as error:
                raise _shipping._cannot_travel(self, error) from error
        if buffers:
            self._arena = pool.arena(_arena.room_for(blob, buffers))
            self._arena.fill(blob, buffers)
            blob = b""
        elif function.bulky:
            self._arena = pool.spare(function.bulky)
        self._blob = blob

    def _begun(self, pid: int, since: float) -> None:
        """The worker has begun with it. The pool's lock is held."""
        self.pid = pid
        self._started = since
        if _notify.listening:
            _process.news.append(lambda: _notify.started(self))
        limit = self.task.timeout
        if limit is not None and self._result is None:
            attempt = self.attempt
            left = max(0.0, since + limit - monotonic())
            self._clock = _process.timers().call_later(left, lambda: self._overdue(attempt))

    # ------------------------------------------------------------------ ending

    def _take(self, bundle: Any, index: int, kind: int, data: bytes) -> None:
        """What became of the attempt: a result's kind and bytes, or how its worker ended."""
        try:
            self._take_in(bundle, index, kind, data)
        finally:
            if self._arena is not None:
                self._part_from_arena(bundle.hand, kind)
            if self._result is not None and not self._flags & _message.GONE:  # else it may be staged still
                self._blob = None
        what, fd = bundle.large.get(index, (_ring.ARENA, -1))
        if what != _ring.ARENA:
            del bundle.large[index]
            os.close(fd)

    def _part_from_arena(self, hand: Hand | None, kind: int) -> None:
        """The attempt has ended: its arena is free as soon as nobody looks at it, here or in the worker."""
        arena, pool = self._arena, self._function.pool  # type: ignore[union-attr]
        if kind in {_message.DIED, _message.CUT_SHORT} or (hand is not None and hand.gone):
            pool.drop(arena)
        elif kind in {_ring.BACK, _message.DROPPED, _message.FAILED}:
            arena.release()
        else:
            arena.holder = hand  # which says when it is free
        if self._result is not None:
            self._arena = None

    def _take_in(self, bundle: Any, index: int, kind: int, data: bytes | int) -> None:
        hand = bundle.hand
        if hand is not None:
            self.pid = hand.pid
        self._started = self._started or bundle.since
        result: Any
        room: Any = self._arena
        if kind == _ring.LARGE:
            kind, fd = bundle.large.get(index, (_message.FAILED, -1))  # once more, if Ctrl-C comes
            if kind == _ring.ARENA:
                room = self._function.pool.adopt(fd)  # type: ignore[union-attr]
            elif fd >= 0:
                data = fd
        if kind == _message.DROPPED:
            self._settle(self._named(StoppedFailure("stopped before it was started")))
            return
        if kind == _message.CUT_SHORT:
            self._settle(self._named(StoppedFailure("Ctrl-C came while it was on its way")))
            return
        if kind == _message.DIED:
            hand, status = bundle.death
            timed_out = self._timed_out == self.attempt
            result = _death.failure(self, status, timed_out=timed_out, left_group=hand.left_group)
        elif kind == _message.FAILED:
            failure = WorkerFailure("its result was lost") if bundle.death is None else bundle.death
            result = self._named(WorkerFailure(failure.message, errno=failure.errno))
        elif kind == _ring.NONE:
            result = Ok(None)
        else:
            try:
                result = self._loaded(room) if kind in {_ring.BACK, _ring.ARENA} else self._meaning(kind, data)
            except BaseException as error:
                if kind not in {_ring.BACK, _ring.ARENA} and _exceptions.is_interrupt(error):
                    raise  # this will be called again
                self._broken(error)
                return
        if hand is not None and hand.strays and hand.stopping is self:
            _death.name_strays(self, hand.strays, result)
        if self._stop_asked and isinstance(result, StoppedFailure):
            self._settle(result)
            return
        self.finish(result)

    def _loaded(self, arena: Any) -> Any:
        """A large result: its arrays are views of the arena."""
        function: Any = self._function
        function.bulky = arena.size - 4096
        function.straight = False
        try:
            return Ok(arena.load(private=True))
        finally:
            arena.release()

    def _broken(self, error: BaseException) -> None:
        """The result arrived whole, but can't be rebuilt here."""
        self.finish(self._named(_shipping.broken_result(error)))
        if _exceptions.is_interrupt(error):
            raise error

    def _meaning(self, kind: int, data: Any) -> Any:
        if kind in {_ring.OK, _ring.FAILURE}:
            value = loads(data) if isinstance(data, bytes) else _load_from(data)
            return Ok(value) if kind == _ring.OK else self._named(value)
        if self._timed_out == self.attempt:
            places = loads_plain(data)  # noqa: S302 - from our own worker, as the pickles are
            return _attempt.late(self, monotonic() - self._started, places)
        if self._stop_asked:
            return self._named(StoppedFailure("stopped"))
        return self._named(WorkerFailure("the worker was ended by a SIGTERM from outside", signal="SIGTERM"))

    def _end_attempt(self, grace: float) -> None:
        if self._function is not None:
            self._function.pool.end(self, grace)

    def _withdraw(self) -> bool:
        return self._result is None and self._function is not None and self._function.pool.withdraw(self)

    @classmethod
    def _release(cls) -> None:
        pool = cls._pool
        if pool is None:
            return
        with pool.supervisor.lock:
            hands = list(pool._hands.values())
            pool.close()
        deadline = monotonic() + _LEAVING_SECONDS
        for hand in hands:
            pool.supervisor.settle(deadline, hand)

    def _wait_until_gone(self, seconds: float) -> None:
        hand = self._function.pool.hand_of(self) if self._function is not None else None
        if hand is not None and not hand.gone:
            _supervisor.get().settle(monotonic() + seconds, hand)

    # ------------------------------------------------------------------ waiting

    @property
    def state(self) -> str:
        """pending, running, retrying (between two attempts), succeeded, failed or stopped."""
        state = super().state
        return "pending" if state == "running" and not self._started else state

    def _glance(self) -> bool:
        function = self._function
        return (
            function is not None
            and function.mean_ns < _pool.GLANCE_NS
            and not self._flags
            and function.pool.glance(self)
            and self._result is not None
        )

    def _look(self) -> None:
        if self._owner is not _process.mark:
            return
        supervisor = _supervisor.existing()
        if supervisor is not None:
            supervisor.nudge()
        if self._result is None and self._function is not None:
            pool = self._function.pool
            if pool._bundles:
                pool.tell()
            if self._result is None and not self._started:
                pool.look_at(self)

    def _attend(self) -> None:
        if self._result is None and self._owner is _process.mark:
            _supervisor.get().attend(self)

    def _attach(self, loop: AbstractEventLoop) -> Callable[[], None] | None:
        try:
            return _supervisor.get().attach(loop)
        except NotImplementedError:  # a loop that can't watch descriptors: the background thread drives
            _supervisor.get().attend(self)
            return None

    def _forget(self) -> None:
        if self._attended:
            super()._forget()

    @classmethod
    def _at_once(cls) -> int:
        return 2 * (cls.workers or max(2, len(os.sched_getaffinity(0))))

    @classmethod
    def _chunks(cls) -> bool:
        return True

    @classmethod
    def _check_setting(cls, name: str, value: Any) -> None:
        if name in {"workers", "max_runs_per_worker"} and value is not None and (type(value) is not int or value < 1):
            raise UsageError(f"{name} must be a whole number from 1 up, or None, not {value!r}")
        if name == "initializer" and value is not None and not callable(value):
            raise UsageError(f"initializer must be a function or None, not {value!r}")
        if name == "initargs" and not isinstance(value, tuple):
            raise UsageError(f"initargs must be a tuple, not {value!r}")


_blank: Any = BaseTaskRun(None, (), {}, 0, None)  # type: ignore[arg-type]
_blank._phase = "running"
_OWN: dict[str, Any] = {"_arena": None, "_blob": None, "_crew": None, "_flags": 0, "_function": None}


def _pool_of(runner: type[PoolTaskRun[Any]]) -> Pool:
    """The class's pool, made at its first call.

    Raises:
        UsageError: this system has not what a pool is made of.
    """
    pool = runner._pool
    settings = runner.workers, runner.max_runs_per_worker, runner.initializer, runner.initargs
    if pool is not None and pool.setting == settings:
        return pool
    if not _ring.supported:
        raise UsageError("PoolTaskRun needs Linux; use MultiprocessTaskRun")
    for name, value in zip(PoolTaskRun._settings, settings, strict=True):
        PoolTaskRun._check_setting(name, value)
    size = runner.workers or max(2, len(os.sched_getaffinity(0)))
    if _pool_worker_here():
        size = 1  # a pool in a pool's worker: nesting must not multiply
    _process.on_fork(_forget)
    fresh = _pool.Pool(size, *settings[1:])
    fresh.setting = settings
    fresh.runner = runner
    runner._pool = fresh  # an earlier one, of other settings, does what it has; its workers leave when they are idle
    _made.append(runner)
    return fresh


def _pool_worker_here() -> bool:
    from woflo.runners import _pool_worker

    return bool(_pool_worker._pid)


def _forget() -> None:
    """In a forked child: the workers are the parent's."""
    for runner in _made:
        _kept.append(runner._pool)
        runner._pool = None
    _made.clear()


_kept: list[Any] = []


def _load_from(fd: int) -> Any:
    """A large result out of its memfd."""
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return load(file)
