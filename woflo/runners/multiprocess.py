"""MultiprocessTaskRun: a fresh process per run, forked (the default on POSIX) or spawned.

Everything hard is elsewhere: how a worker is started in `_launch`, what it does in `_worker`, how its result or
its death arrives in `_supervisor`. Here is what these mean for a run.
"""

from __future__ import annotations

import os
import sys
from contextvars import copy_context
from time import monotonic

from woflo import _exceptions, _notify
from woflo.errors import UsageError
from woflo.result import Failure, Ok, StoppedFailure, WorkerFailure
from woflo.runners import _attempt, _death, _portable, _process, _shipping, _supervisor
from woflo.runners.base import BaseTaskRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from typing import Any, ClassVar, TypeVar

    R = TypeVar("R", covariant=True)  # noqa: PLC0105

    from woflo.runners._launch import Worker
    from woflo.runners._shipping import Parcel
    from woflo.runners._slots import Slots
else:
    from woflo._generic import R

__all__ = ["ForkProcess", "ForkServerProcess", "MultiprocessTaskRun", "SpawnProcess"]

_LEAVING_SECONDS = (
    3.0  # a worker whose result is sent leaves within a millisecond, with multiprocessing's clean-up within 2 s
)


class ForkProcess:
    """A process type: the worker is a fork of this process and inherits all of its state (POSIX)."""

    _start_method = "fork"


class SpawnProcess:
    """A process type: the worker is a fresh interpreter; the call travels by pickle, `__main__` is not imported again."""

    _start_method = "spawn"


class ForkServerProcess:
    """A process type: the worker is the fork of a small helper; its price doesn't grow with this process's memory.

    The call travels as with SpawnProcess. The helper, an idle interpreter, is started at the first run; elsewhere than on
    Linux each worker is a fresh interpreter.
    """

    _start_method = "forkserver"


class MultiprocessTaskRun(BaseTaskRun[R]):
    """A run in a process of its own.

    Under fork nothing is pickled on the way in: a run sees arguments and globals as they are when it *starts*, which is
    at the call unless it has to wait for a slot or its inputs. Under spawn the call is pickled at the call.
    The result comes back by pickle. Arguments may be Locks, Values, Queues and Connections of multiprocess or
    multiprocessing (under spawn, made in a spawn context).

    Attributes:
        process_type: ForkProcess, SpawnProcess or ForkServerProcess (or the classes of these names in multiprocess and
            multiprocessing); read at each call. Setting it here changes every task that uses this class, but no `.using()` class.
        max_running: at most so many worker processes at once in the whole tree of processes; None: max(32, 4 × cores).
            A run beyond that is pending until one ends.
    """

    _portable: ClassVar[bool] = os.name == "nt"  # no descriptors to watch: a thread waits for each worker
    _pumped: ClassVar[bool] = not _portable
    _keeps_time = True
    process_type: ClassVar[Any] = ForkProcess if hasattr(os, "fork") else SpawnProcess
    _settings: ClassVar[tuple[str, ...]] = ("process_type", "max_running")

    __slots__ = ("_parcel", "_slots", "_spawns", "_starter", "_worker")
    _spawns: bool
    _starter: Any  # what starts a spawned worker, if it isn't executed anew
    _slots: Slots  # that its attempt takes its slot from
    _parcel: Parcel | None
    _worker: Worker | None  # of the current attempt, or the last

    def _prepare_pending(self) -> None:
        super()._prepare_pending()
        self._parcel = self._worker = self._starter = None
        self._spawns = False

    def _begin(self) -> None:
        """Start the first attempt; under spawn, pack the call now."""
        kind = self.process_type
        self._parcel = self._worker = self._starter = None
        self._spawns = kind is not ForkProcess and self._spawns_by(start_method(kind))
        if self._spawns:
            self._pack()
        elif self.task.policy.retries:  # a later attempt is started by another thread
            self._context = copy_context()
        self._start_attempt()

    def _spawns_by(self, method: str) -> bool:
        if method == "forkserver" and not self._portable:
            from woflo.runners import _zygote

            if _zygote.supported:
                self._starter = _zygote.start
        return method != "fork"

    @classmethod
    def _check_setting(cls, name: str, value: Any) -> None:
        """Raise UsageError if the setting can't have this value."""
        if name == "process_type":
            start_method(value)
        super()._check_setting(name, value)

    @classmethod
    def _release(cls) -> None:
        supervisor = None if cls._portable else _supervisor.existing()
        if supervisor is None:
            return
        with supervisor.lock:
            leaving = {worker for worker in supervisor.workers.values() if worker.told}
        deadline = monotonic() + _LEAVING_SECONDS
        for worker in leaving:
            supervisor.settle(deadline, worker)

    @classmethod
    def _at_once(cls) -> int:
        from woflo.runners._slots import default_size

        return cls._limit_owner().max_running or default_size()

    @classmethod
    def _chunks(cls) -> bool:
        return cls._inherits() or sys.platform == "linux"

    @classmethod
    def _inherits(cls) -> bool:
        return not cls._portable and start_method(cls.process_type) == "fork"

    def _pack(self) -> None:
        """Pickle the call for a spawned worker.

        Raises:
            UsageError: an argument can't be pickled.
        """
        if self._parcel is None:
            self._parcel = _shipping.pack(self)
            self._spawns = True

    def _start_attempt(self) -> None:
        if self._portable:
            _portable.start(self)
            return
        try:
            (_process.supervisor or _supervisor.get()).start(self)
        except OSError as error:  # the supervisor itself, or its slots, could not be made
            self.finish(self._named(_supervisor.could_not_start(error)))

    def _mark_pending(self) -> None:
        if self._context is None and not self._spawns:
            self._context = copy_context()  # the caller's: another thread may start it
        super()._mark_pending()

    def _tell_soon(self, tell: Callable[[BaseTaskRun[Any]], None]) -> None:
        if self._portable:
            tell(self)
        else:
            _process.news.append(lambda: tell(self))  # the supervisor's lock is held

    def _is_nowhere(self) -> bool:
        elsewhere = self._wanted or self.task.keeper is not None or self._portable  # what it waits for knows it
        if self._phase != "pending" or elsewhere or _process.supervisor is None:
            return False
        with _process.supervisor.lock:
            queues = list(_process.supervisor.pending.values())
            return self._clock is None and not any(self in queue for queue in queues)

    def _unattended_until_started(self) -> bool:
        """Whether something can fall due for this run with nobody waiting for it."""
        if self.task.simple and self._phase != "pending" and not self._callbacks and not _notify.listening:
            return False
        return self._result is None

    def _take(self, worker: Worker, kind: bytes | None, body: Any) -> None:
        """The attempt's frame (a kind and its body, or the descriptor it is in), or without one what its process ended with."""
        result: Any = None
        if worker.timed_out:
            self._timed_out = self.attempt
        elif kind == _shipping.OK and not body:  # None
            self._worker = None
            self._settle(Ok(None))  # type: ignore[arg-type]
            return
        if kind is None:
            result = body if isinstance(body, Failure) else self._death(worker, body)
        else:
            file = body if isinstance(body, int) else None
            try:
                kind, value = _shipping.load_result(kind, b"" if file is not None else body, file)
            except BaseException as error:
                if _exceptions.is_interrupt(error):  # this will be called again
                    raise
                result = self._named(_shipping.broken_result(error))
                if isinstance(error, KeyboardInterrupt):  # raised by somebody's code
                    self.finish(result)
                    raise
            else:
                result = self._meaning(worker, kind, value)
        if worker.strays:
            _death.name_strays(self, worker.strays, result)
        if not self._stop_asked:
            self._worker = None
        elif isinstance(result, StoppedFailure):  # `stop` wants to see it gone, and there is no further attempt
            self._settle(result)
            return
        self.finish(result)

    def _meaning(self, worker: Worker, kind: bytes, value: Any) -> Any:
        if kind == _shipping.OK:
            return Ok(value)
        if kind == _shipping.FAILURE:
            return self._named(value)
        if worker.timed_out:  # kind STOPPED: it obeyed SIGTERM, whoever sent it; value: where the task was
            return _attempt.late(self, monotonic() - self._started, value)
        if self._stop_asked:
            return self._named(StoppedFailure("stopped"))
        return self._named(WorkerFailure("the worker was ended by a SIGTERM from outside", signal="SIGTERM"))

    def _death(self, worker: Worker, status: int | None) -> Failure:
        """The failure of an attempt whose process ended without a result."""
        timed_out = worker.timed_out or self._timed_out == self.attempt
        return _death.failure(self, status, timed_out=timed_out, left_group=worker.left_group)

    def _end_attempt(self, grace: float) -> None:
        if self._portable:
            _portable.kill(self)
            return
        with _supervisor.get().lock:  # another thread may be about to start it
            worker = self._worker
        if worker is not None and not worker.told:
            worker.end(grace)

    def _wait_until_gone(self, seconds: float) -> None:
        worker = self._worker
        if worker is not None and not worker.gone:
            _supervisor.get().settle(monotonic() + seconds, worker)

    def _look(self) -> None:
        supervisor = _supervisor.existing()
        if supervisor is not None and self._owner is _process.mark:
            supervisor.nudge()

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
        if getattr(self, "_spawns", False):  # else Ctrl-C came before it was begun
            parcel, self._parcel = self._parcel, None
            if parcel is not None:
                parcel.close()


def start_method(process_type: Any) -> str:
    """Fork, spawn or forkserver: what a process type stands for.

    Raises:
        UsageError: it is none that woflo knows.
    """
    method = getattr(process_type, "_start_method", None)
    if method not in {"fork", "spawn", "forkserver"}:
        known = "ForkProcess, SpawnProcess or ForkServerProcess"
        raise UsageError(f"process_type must be {known}, not {process_type!r}")
    if method == "fork" and not hasattr(os, "fork"):
        raise UsageError("ForkProcess needs a system that can fork; use SpawnProcess")
    return str(method)
