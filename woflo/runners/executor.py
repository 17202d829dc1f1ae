"""ExecutorTaskRun: any `concurrent.futures.Executor` as a runner: threads, processes, loky, MPI, a batch system.

What the executor is given is a callable of ours that never raises. In this process that is `_Work`; where it is pickled it
becomes a `_Parcel` of bytes, and what comes back are bytes too: nothing of the user's is pickled or unpickled by the executor's
own threads, where an exception would cost all of its calls.

Rule 1: what a future of an earlier attempt brings is dropped (`_returned`).
Rule 2: an executor's call can't be ended. A pending one is cancelled, a running one is told (`stop_requested`) and abandoned
after the grace; a worker elsewhere on this machine learns it from a file (`_word`) that exists from then until it has returned.
"""

from __future__ import annotations

import os
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from woflo import _exceptions
from woflo.errors import UsageError
from woflo.result import Failure, Ok, StoppedFailure, TaskFailure, WorkerFailure
from woflo.runners import _process, _progress, _shipping
from woflo.runners._attempt import Call
from woflo.runners.base import BaseTaskRun

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future
    from typing import ClassVar, Self

    from woflo.result import Result
    from woflo.task import Task

__all__ = ["ExecutorTaskRun"]

R = TypeVar("R", covariant=True)  # noqa: PLC0105 - as in collections.abc

_LOOKS = (
    20  # looks within a time-out's length at whether a queued call has begun: its clock is late by a twentieth at most
)
_SHORTEST_LOOK, _LONGEST_LOOK = 0.005, 0.25  # seconds between two of them
_ELSEWHERE = (
    "concurrent.futures.process",
    "concurrent.futures.interpreter",
    "loky.",
    "joblib.externals.loky",
    "mpi4py.",
)


class ExecutorTaskRun(BaseTaskRun[R]):
    """A run in an executor of yours: `@task(runner=ExecutorTaskRun.using(executor))`.

    The executor stays yours: its size is the limit, you shut it down. A task that waits for runs of its own executor needs
    a free worker for them. `stop()` and a time-out cancel a call that has not begun; a running one learns it by
    `stop_requested()` (on other machines it doesn't), and is abandoned if it goes on. A time-out counts from when the
    executor's future says that it is running.

    Attributes:
        executor: any `concurrent.futures.Executor`, or an object with its `submit`.
        remote: whether its workers are other processes. The call is pickled at the call then, by value where need be;
            None: as is known of the executor's class, else when and if the executor pickles it.
    """

    executor: ClassVar[Executor | None] = None
    remote: ClassVar[bool | None] = None
    _home: ClassVar[object] = None  # the mark of the process that the executor belongs to
    _settings: ClassVar[tuple[str, ...]] = ("executor", "remote")
    _keeps_time = True

    __slots__ = ("_future", "_told", "_word")
    _future: Future[Any] | None  # of the current attempt
    _word: str  # the path of the file that tells a worker elsewhere to stop; empty if there is none elsewhere
    _told: bool  # whether the current attempt's beginning is known

    def __init__(
        self, task: Task[..., R], args: tuple[Any, ...], kwargs: dict[str, Any], number: int, owner: object
    ) -> None:
        super().__init__(task, args, kwargs, number, owner)
        self._future = None
        self._word = ""
        self._told = False

    @classmethod
    def using(cls, executor: Executor | None = None, **settings: Any) -> type[Self]:
        """A runner over this executor: `ExecutorTaskRun.using(ProcessPoolExecutor(4))`.

        Raises:
            UsageError: it is no executor, or the runner has no such setting.
        """
        if executor is not None:
            settings["executor"] = executor
        made = super().using(**settings)
        if made.executor is not cls.executor:
            made._home = _process.mark
        return made

    @classmethod
    def _check_setting(cls, name: str, value: Any) -> None:
        if name == "executor" and (isinstance(value, type) or not callable(getattr(value, "submit", None))):
            raise UsageError(f"executor must be an executor, an object with submit(), not {value!r}")
        if name == "remote" and value not in {True, False, None}:
            raise UsageError(f"remote must be True, False or None, not {value!r}")
        super()._check_setting(name, value)

    def start(self) -> None:
        """Hand the current attempt to the executor."""
        executor, attempt = self.executor, self.attempt
        if executor is None:
            raise UsageError(
                f"{self.name} has no executor: say @task(runner=ExecutorTaskRun.using(executor)) or use(…) with one"
            )
        if self._home is not None and self._home is not _process.mark:
            raise UsageError(
                f"{self.name}: its executor belongs to another process, and its threads have stayed there; "
                "make an executor inside the task, or give the task another runner"
            )
        remote = _is_remote(executor) if self.remote is None else self.remote
        self._told = False
        word = self._word = "" if remote is False else _new_word()
        work: Callable[[], Any] = _Parcel(*_pack(self, word)) if remote else _Work(self.call, word)
        future = self._future = executor.submit(work)
        if word:
            self._watch_sheet(future, _sheet(word))
        if self.task.timeout is not None and remote is not False:
            self._look_whether_begun(attempt)
        future.add_done_callback(lambda future: self._returned(future, attempt, word))

    def _begun(self, attempt: int) -> None:
        """The executor has come to this attempt: its time counts from now."""
        if self.attempt != attempt or self._result is not None or self._told:
            return
        self._told = True
        self._started = monotonic()
        limit = self.task.timeout
        if limit is not None:
            self._disarm()
            self._clock = _process.timers().call_later(limit, lambda: self._overdue(attempt))
            self._attend()

    def _look_whether_begun(self, attempt: int) -> None:
        """Find out when a call that may be elsewhere begins: only its future knows."""
        future, limit = self._future, self.task.timeout
        if self.attempt != attempt or self._result is not None or self._told or future is None or limit is None:
            return
        if future.running():
            self._begun(attempt)
            return
        pause = min(max(limit / _LOOKS, _SHORTEST_LOOK), _LONGEST_LOOK)
        self._clock = _process.timers().call_later(pause, lambda: self._look_whether_begun(attempt))
        self._attend()

    def _returned(self, future: Future[Any], attempt: int, word: str) -> None:
        """The executor is done with an attempt, perhaps long after that was abandoned."""
        if word:
            _take_back(word)
            self._read_sheet(future, attempt, _sheet(word))
        if self._result is not None or self.attempt != attempt:
            return
        result: Result[Any]
        if future.cancelled():
            result = self._named(StoppedFailure("its future was cancelled"))
        elif (error := future.exception()) is not None:
            result = self._named(_failure_of_executor(error))
        else:
            found = future.result()
            result = _unpack(found) if isinstance(found, _Packed) else found
            if isinstance(result, Failure) and not result.run:
                self._named(result)
        self.finish(result)

    def _watch_sheet(self, future: Future[Any], sheet: str) -> None:
        """A call that may be elsewhere reports on a sheet of its own, if it does."""
        running = getattr(future, "running", None)
        reports = _progress.of(self)
        reports.source = lambda: _progress.read_file(sheet) if running is None or running() else None
        reports.arrange(self)

    def _read_sheet(self, future: Future[Any], attempt: int, sheet: str) -> None:
        """What an attempt reported last; a worker that was killed has left it on its sheet."""
        found = None if future.cancelled() or future.exception() is not None else future.result()
        last = found.report if isinstance(found, _Packed) else None
        if found is None and (read := _progress.read_file(sheet)) is not None:
            last = read[1]
            try:
                os.unlink(sheet)
            except OSError:  # the worker lives, and was quicker
                pass
        if last is not None and self.attempt == attempt and self._result is None:
            _progress.of(self).keep(last)

    def _interrupt(self, grace: float) -> None:  # noqa: ARG002 - an executor can't be told how long to be patient
        future = self._future
        if future is not None and not future.cancel() and self._word:
            _leave_word(self._word)
            if future.done():  # it has returned meanwhile, and found no word to take back
                _take_back(self._word)

    def _end_attempt(self, grace: float) -> None:
        if self._result is None:
            attempt = self.attempt
            _process.timers().call_later(grace, lambda: self._abandon(attempt))
            self._attend()


class _Work:
    """An attempt for an executor: called in this process, or pickled for another one."""

    __slots__ = ("call", "word")

    def __init__(self, call: Call, word: str) -> None:
        self.call = call
        self.word = word

    def __call__(self) -> Any:
        run: Any = self.call.run
        if run._owner is not _process.mark:  # a forked worker of the executor has inherited it
            return _reporting(self.call, self.word)
        if run._result is not None or run._stop_asked or run.attempt != self.call.attempt:  # while it was queued
            return StoppedFailure("stopped before it was started")
        run._begun(self.call.attempt)
        return self.call()

    def __reduce__(self) -> Any:
        return _Parcel, _pack(self.call.run, self.word)


class _Parcel:
    """An attempt as bytes: called in a worker elsewhere, it returns bytes."""

    __slots__ = ("data", "word")

    def __init__(self, data: bytes, word: str) -> None:
        self.data = data
        self.word = word

    def __call__(self) -> _Packed:
        try:
            run = _Away(_shipping.load_call(self.data).run, self.word)
        except BaseException as error:
            return _packed(_shipping.broken_call(error))
        # it was pickled when it had ended already, or stopped while it was queued
        if run.args is None or run._stop_asked:
            return _packed(StoppedFailure("stopped before it was started"))
        return _reporting(Call(run), self.word)


class _Packed(tuple):  # type: ignore[type-arg]
    """A result as bytes: whether it is a value, the pickle, and what the task reported last if it has."""

    __slots__ = ()

    @property
    def report(self) -> _progress.Report | None:
        """The last report."""
        return self[2] if len(self) > 2 else None


def _reporting(call: Call, word: str) -> _Packed:
    """Carry out an attempt away from its run; what it reports goes to a file as long as it runs, then with the result."""
    if not word:
        return _packed(call())
    sheet = call.run._progress = _progress.SheetFile(_sheet(word))
    packed = _packed(call())
    last = sheet.close()
    return packed if last is None else _Packed((*packed, last))


def _sheet(word: str) -> str:
    """The path of the sheet that an attempt elsewhere reports on."""
    return f"{word}-progress"


class _Away(BaseTaskRun[Any]):
    """A run as its worker elsewhere sees it: it has the names, and knows whether it was asked to stop."""

    __slots__ = ("_path",)

    def __init__(self, run: BaseTaskRun[Any], word: str) -> None:
        self._path = word
        super().__init__(run.task, run.args, run.kwargs, run._number, None)
        self.attempt = run.attempt

    if not TYPE_CHECKING:

        @property
        def _stop_asked(self) -> bool:
            return os.path.exists(self._path)

        @_stop_asked.setter
        def _stop_asked(self, _: bool) -> None:
            """It is the parent who asks."""


def _pack(run: BaseTaskRun[Any], word: str) -> tuple[bytes, str]:
    """What a parcel is made of.

    Raises:
        UsageError: the function or an argument can't be pickled.
    """
    twin = _shipping.shell()
    twin.task = run.task if run.task.runner is None else run.task.options(runner=None)  # the executor stays here
    twin.args, twin.kwargs, twin._number, twin.attempt = run.args, run.kwargs, run._number, run.attempt
    return _shipping.dump_call(twin), word


def _packed(result: Result[Any]) -> _Packed:
    """A result as bytes; what can't be pickled is a failure that says so."""
    if isinstance(result, Ok):
        try:
            return _Packed((True, _exceptions.dumps(result.value)))
        except BaseException as error:
            result = _shipping._unpicklable(result.value, error)
    try:
        return _Packed((False, _exceptions.dumps(result)))
    except BaseException:
        plain = TaskFailure(_exceptions.safe_str(result))
        plain.__cause__ = result.__cause__
        return _Packed((False, _exceptions.dumps(plain)))


def _unpack(found: _Packed) -> Any:
    from pickle import loads

    is_value, data, *_ = found
    try:
        value = loads(data)
    except BaseException as error:
        return _shipping.broken_result(error)
    return Ok(value) if is_value else value


def _failure_of_executor(error: BaseException) -> WorkerFailure:
    """The executor has an exception of its own for a call: it broke, or its transport failed."""
    failure = WorkerFailure(f"its executor failed: {_exceptions.type_name(type(error))}: {_exceptions.safe_str(error)}")
    failure.__cause__ = error
    return failure


def _is_remote(executor: object) -> bool | None:
    """Whether an executor's workers are other processes; None if nothing is known of its class."""
    places = [cls.__module__ + "." for cls in type(executor).__mro__]
    if any(place.startswith(_ELSEWHERE) for place in places):
        return True
    return False if "concurrent.futures.thread." in places else None


_words: set[str] = set()  # files that exist
_begin_of_words = ""  # the beginning of their paths; nobody else can guess it
_words_of: object = None  # the process whose they are
_numbers = count(1)


def _new_word() -> str:
    """The path of a file that doesn't exist, and that only this process makes."""
    global _begin_of_words, _words_of
    if _words_of is not _process.mark:
        import atexit
        from tempfile import gettempdir

        if _words_of is None:
            atexit.register(_take_all_back)
        _words_of = _process.mark
        _words.clear()
        _begin_of_words = os.path.join(gettempdir(), f"woflo-stop-{os.urandom(8).hex()}-")
    return f"{_begin_of_words}{next(_numbers)}"


def _leave_word(path: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:  # it is there, or can't be: the attempt is abandoned all the same
        return
    _words.add(path)


def _take_back(path: str) -> None:
    if path in _words:
        _words.discard(path)
        try:
            os.unlink(path)
        except OSError:
            return


def _take_all_back() -> None:
    """At the end of the program: of calls that were abandoned and have not returned."""
    if _words_of is _process.mark:
        for path in list(_words):
            _take_back(path)
