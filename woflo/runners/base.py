"""BaseTaskRun: the contract of every runner, and the state machine of a run.

Rule 1: a run's state changes in this file only: pending → running (→ retrying → running …) → its outcome, once.
Rule 2: `finish` may be called by any thread, at any time, more than once; the first outcome counts.
Rule 3: callbacks, observers and waiters are called with no lock held, and may call anything.
Rule 4: nothing here knows how a runner puts a call somewhere.

A runner writes `start` (put `self.call` somewhere, return at once) and `stop` (ask what was started to end), and calls
`finish` with the Result that `self.call()` returned. Everything else comes from here.
"""

from __future__ import annotations

from _thread import get_ident
from contextvars import copy_context
from time import monotonic

from woflo import _exceptions, _notify, _retry, _unseen
from woflo.errors import UsageError, WaitTimeout
from woflo.result import Failure, Ok, StoppedFailure, TaskFailure, TimeoutFailure, WorkerFailure
from woflo.runners import _calm, _process, _waiters
from woflo.runners._attempt import GRACE, Call, failure_from, late
from woflo.runners._waiters import RECHECK, AsyncWaiter, Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Generator
    from contextvars import Context
    from typing import Any, ClassVar, Generic, Self, TypeVar

    from woflo.result import Result
    from woflo.runners._progress import Progress
    from woflo.task import Task

    R = TypeVar("R", covariant=True)  # noqa: PLC0105 - as in collections.abc
else:
    from woflo._generic import Generic, R

__all__ = ["BaseTaskRun"]


class BaseTaskRun(Generic[R]):
    """One execution of a task: wait for it, stop it, ask for its result, or await it.

    Made by calling a task, never directly. All methods may be called from any thread of the process
    that made the run; in another process only a finished run answers.

    Attributes:
        task: the Task that was called.
        attempt: the number of the current (or last) attempt, from 1.
        pid: the process that runs the current attempt, where it has one of its own.
    """

    _is_task_run = True
    _pumped: ClassVar[bool] = False  # whether waiting for such a run drives the supervisor
    _in_place: ClassVar[bool] = False  # whether a run has ended when its call returns
    _crew: Any = None  # those that it is sent and told of with
    _keeps_time: ClassVar[bool] = False  # whether the runner itself acts on the task's time-out
    _stops: ClassVar[tuple[Any, ...]] = ()  # the classes' own `stop`, the most derived first
    max_running: ClassVar[int | None] = None  # at most so many at once; None: max(32, 4 × cores)

    # Slots, all of them set at once, and no `__getattr__`: six times as fast to make as with a dict, and a fork
    # that touches fewer pages.
    __slots__ = (
        "__weakref__",
        "_attended",
        "_callbacks",
        "_clock",
        "_concluded",
        "_context",
        "_dependents",
        "_ended",
        "_hooks",
        "_inner",
        "_loop",
        "_number",
        "_owner",
        "_pause",
        "_phase",
        "_place",
        "_progress",
        "_result",
        "_started",
        "_stop_asked",
        "_stopping_in",
        "_thrown",
        "_timed_out",
        "_waiters",
        "_wanted",
        "_where",
        "args",
        "attempt",
        "kwargs",
        "pid",
        "task",
    )
    task: Task[..., R, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    _context: Context | None  # the caller's, for runs that are started in another thread
    attempt: int
    pid: int | None
    _inner: Any  # the loop and the asyncio task of a coroutine function under a runner that blocks
    _loop: AbstractEventLoop | None  # that it belongs to (asyncio)
    _place: Any  # what carries the current attempt, as the runner knows it: a thread's number, an asyncio task
    _thrown: bool  # whether TaskStopped was thrown into the current attempt (threads)
    _number: int | str  # a text if it is an item of a `map`: `3[17]`
    _progress: Any  # what takes its reports and knows the newest, see `_progress`; None: there was none
    _owner: object  # the mark of the process that made it; None: of nobody, it can't be waited for
    _result: Result[R] | None
    _phase: str
    _started: float  # monotonic, seconds; 0: not started
    _ended: float
    _stop_asked: bool
    _timed_out: int  # the attempt whose time is up
    _concluded: int  # the attempt whose failure has been dealt with
    _where: tuple[_exceptions.Place, ...]  # where its code was when its time was up
    _waiters: list[Any] | None
    _dependents: list[Callable[[], None]] | None  # runs that wait for this one as an input
    _callbacks: list[Callable[[BaseTaskRun[Any]], object]] | None
    _wanted: list[BaseTaskRun[Any]] | tuple[()]  # its inputs, until they have ended
    _clock: Any  # the timer of the current attempt's deadline, or of the pause
    _pause: Any  # the waiter asleep between two attempts
    _attended: bool  # whether the background thread looks after it
    _hooks: list[Callable[[BaseTaskRun[Any], float], None]]  # the classes' own `stop` that are still to be called
    _stopping_in: int  # the thread that is inside a runner's own stop()

    def __init__(
        self, task: Task[..., R], args: tuple[Any, ...], kwargs: dict[str, Any], number: int | str, owner: object
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self._number = number
        self._owner = owner
        self.attempt = 1
        self._phase = "pending"
        self._stop_asked = self._attended = self._thrown = False
        self._started = self._ended = 0.0
        self._timed_out = self._concluded = self._stopping_in = 0
        self._wanted = self._where = self._hooks = ()  # type: ignore[assignment]
        self._result = self._waiters = self._dependents = self._callbacks = None
        self._context = self.pid = self._inner = self._clock = self._pause = None
        self._loop = self._place = self._progress = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hook = cls.__dict__.get("stop")
        if hook is not None:  # the runner's own stop() becomes the part of ours that it can do
            cls._interrupt = hook  # type: ignore[attr-defined]
            del cls.stop
        cls._stops = tuple(vars(one)["_interrupt"] for one in cls.__mro__[:-1] if "_interrupt" in vars(one))

    # ------------------------------------------------------------------ what a runner writes and calls

    def start(self) -> None:
        """Put `self.call` somewhere and return at once. Called once per attempt, in any thread."""
        raise NotImplementedError(f"{type(self).__name__} has no start()")

    @property
    def call(self) -> Call:
        """The current attempt: a picklable callable that returns a Result and never raises."""
        return Call(self)

    def finish(self, result: Result[R]) -> None:
        """An attempt ended in `result`: try again if the task's policy says so, else this is the outcome.

        Any thread may call it. The first outcome counts; what comes later is dropped.
        """
        if self._result is None and self._is_current(result):
            pause = self._conclude(result)
            if pause is not None:
                self._retry_after(pause)

    def finish_from(self, future: Any) -> None:
        """`finish` with what a `concurrent.futures` future of `self.call` ended in; for `future.add_done_callback`.

        A cancelled future ends the run as stopped; one that holds an exception (its pool broke) as WorkerFailure.
        """
        if future.cancelled():
            self.finish(self._named(StoppedFailure("its future was cancelled")))
        elif (error := future.exception()) is None:
            self.finish(future.result())
        else:
            text = _exceptions.safe_str(error)
            failure = WorkerFailure(f"its executor failed: {_exceptions.type_name(type(error))}: {text}")
            failure.__cause__ = error
            self.finish(self._named(failure))

    def _is_current(self, result: Any) -> bool:
        """Whether a result belongs to the current attempt: an abandoned one may come back long after."""
        if result.__class__ is Ok:
            return bool(getattr(result, "_attempt", self.attempt) == self.attempt)
        return not (isinstance(result, Failure) and result.run == self.name and result.attempt != self.attempt)

    def _named(self, failure: _F) -> _F:
        """The failure with this run's names filled in."""
        failure.task = self.task.name
        failure.run = self.name
        failure.attempt = self.attempt
        failure.attempts = self.attempts
        failure.pid = self.pid
        return failure

    # ------------------------------------------------------------------ what a user asks

    @property
    def name(self) -> str:
        """The task's name and the call's number, for instance `thumbnail-7`."""
        return f"{self.task.name}-{self._number}"

    @property
    def attempts(self) -> int:
        """How many attempts there can be (`retries + 1`)."""
        return int(self.task.policy.retries) + 1

    @property
    def seconds(self) -> float:
        """How long the current attempt has been running, or the last one ran; 0 if none has started."""
        return (self._ended or monotonic()) - self._started if self._started else 0.0

    @property
    def progress(self) -> Progress | None:
        """The newest report of the current (or last) attempt (`woflo.progress`); None before the first."""
        if self._result is None:
            self._look()
        known = self._progress
        report = None if known is None else known.look()
        if report is None:
            return None
        from woflo.runners._progress import Progress

        return Progress(*report)

    @property
    def state(self) -> str:
        """pending, running, retrying (between two attempts), succeeded, failed or stopped."""
        self._look()
        result = self._result
        if result is None:
            return self._phase
        if result:
            return "succeeded"
        return "stopped" if isinstance(result, StoppedFailure) else "failed"

    def is_running(self) -> bool:
        """Whether the run has no outcome yet; pending and between two attempts count as running."""
        if self._result is None:
            self._look()
        return self._result is None

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the run has its outcome, at most `timeout` seconds; True if it has one.

        Raises:
            UsageError: the run belongs to another process, or to the event loop of this very thread, or `timeout` is
                no number of seconds.
        """
        return self._result is not None or self._wait(timeout)

    def outcome(self, timeout: float | None = None) -> Result[R]:
        """Wait and return `Ok(value)` or the `Failure`.

        Raises:
            WaitTimeout: `timeout` seconds have passed; the run goes on.
        """
        if self._result is None and not self._wait(timeout):
            raise WaitTimeout(self.name, timeout or 0.0)
        result = self._result
        if _unseen.count and not result:
            _unseen.seen(result)
        return result  # type: ignore[return-value]

    def get_result(self, timeout: float | None = None, raise_exceptions: bool = True) -> R:
        """Wait and return the value, or raise what the task raised.

        Args:
            timeout: how long to wait, seconds; None: as long as it takes.
            raise_exceptions: False returns the exception instead of raising it.

        Raises:
            WaitTimeout: `timeout` seconds have passed; the run goes on.
            Exception: the task's own, with the worker's traceback; or the Failure: TaskFailure if the task raised
                something that is no Exception, TimeoutFailure, WorkerFailure, StoppedFailure, DependencyFailure.
        """
        result = self._result
        if result is None:
            result = self.outcome(timeout)
        if result.__class__ is Ok:
            return result.value
        error = self._error(self.outcome())
        if raise_exceptions:
            try:
                raise error
            finally:
                del error, result  # else the traceback would hold this frame, and the frame the exception
        return error  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait and return what `get_result` would raise; None if the run succeeded.

        Raises:
            WaitTimeout: `timeout` seconds have passed; the run goes on.
        """
        result = self.outcome(timeout)
        return None if result else self._error(result)

    def stop(self, grace: float = GRACE, wait: bool = True) -> None:
        """End the run: ask, and after `grace` seconds end it by force, where the runner can.

        It ends as StoppedFailure, unless it ended before or the task returned a value when it was asked. A second
        call, or one on a finished run, does no harm.

        Args:
            grace: seconds between SIGTERM (TaskStopped in the task) and SIGKILL; 0: SIGKILL at once.
            wait: block until the run has ended.
        """
        if self._result is not None:
            return
        grace = _waiters.seconds("grace", grace)
        if self._stopping_in == get_ident():  # super().stop() of a runner's own
            self._ask(grace)
            return
        self._check_owner()
        with _process.state:
            self._stop_asked = True
            begun = self._phase == "running"
        if not begun:
            self._settle(
                self._named(
                    StoppedFailure(
                        "stopped before it was started" if self._phase == "pending" else "stopped between two attempts"
                    )
                )
            )
            return
        self._end(grace)
        if not wait:
            self._attend()  # the grace may end with nobody waiting
        elif not self._needs_this_thread():
            self._wait(grace + RECHECK)
            self._wait_until_gone(grace + RECHECK)

    def add_done_callback(self, callback: Callable[[BaseTaskRun[R]], object]) -> None:
        """Call `callback(run)` when the run has its outcome; at once if it has.

        It is called in the thread that learnt the outcome, with no lock held. If it raises, that is logged by name
        and nothing else happens.
        """
        with _process.state:
            if self._callbacks is None:
                self._callbacks = []
            self._callbacks.append(callback)
        if self._result is not None:
            self._tell_callbacks()
        elif self._pumped:  # elsewhere the thread that learns the end comes by itself
            self._attend()

    def __await__(self) -> Generator[Any, None, R]:
        """Wait without blocking the event loop. Cancelling the waiter leaves the run alone."""
        result = self._result
        if result.__class__ is Ok:
            return result.value
        if result is None:
            self._check_owner()
            from asyncio import get_running_loop

            loop = get_running_loop()
            waiter = AsyncWaiter(loop)
            if self._enlist(waiter):
                detach = self._attach(loop)
                try:
                    yield from waiter.future
                finally:
                    self._delist(waiter)
                    if detach is not None:
                        detach()
        return self.get_result()

    def __repr__(self) -> str:
        parts = [f"<TaskRun {self.name} {self.state}"]
        if self._started:
            parts.append(f"{self.seconds:.1f} s")
        if self.attempts > 1 and (self._started or self._result is None):
            parts.append(f"attempt {self.attempt} of {self.attempts}")
        if self.pid is not None and self._result is None:
            parts.append(f"pid {self.pid}")
        return " ".join(parts) + ">"

    def __reduce__(self) -> Any:
        raise UsageError(
            f"{self.name} is a TaskRun and can't be sent to another process inside of something else; "
            "pass it as an argument, or in a list, tuple, dict, set or dataclass: then its value is passed"
        )

    @classmethod
    def using(cls, **settings: Any) -> type[Self]:
        """A runner like this one with settings of its own, for instance `using(max_running=4)`.

        Raises:
            UsageError: the runner has no such setting.
        """
        for name, value in settings.items():
            if name.startswith("_") or name not in cls._settings:
                raise UsageError(f"{cls.__name__} has no setting {name!r}; it has {', '.join(cls._settings) or 'none'}")
            cls._check_setting(name, value)
        pinned = {
            name: getattr(cls, name) for name in cls._settings
        }  # a later change of the base class must not reach in
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        return type(cls.__name__, (cls,), {**names, **pinned, **settings})

    _settings: ClassVar[tuple[str, ...]] = ("max_running",)

    @classmethod
    def _check_setting(cls, name: str, value: Any) -> None:
        """Raise UsageError if the setting can't have this value."""
        if name == "max_running" and value is not None and (type(value) is not int or value < 1):
            raise UsageError(f"max_running must be a whole number from 1 up, or None, not {value!r}")

    @classmethod
    def _limit_owner(cls) -> type[BaseTaskRun[Any]]:
        """The class whose `max_running` counts for this one: the nearest that says a number, else BaseTaskRun."""
        for owner in cls.__mro__:
            if vars(owner).get("max_running") is not None:
                cls._check_setting("max_running", vars(owner)["max_running"])
                return owner
        return BaseTaskRun

    # ------------------------------------------------------------------ many items

    @classmethod
    def _at_once(cls) -> int:
        """How many runs of a `map` are under way at once: enough that nothing of the runner stands idle."""
        from woflo.runners._slots import default_size

        return 2 * (cls._limit_owner().max_running or default_size())

    @classmethod
    def _chunks(cls) -> bool:
        """Whether several short items of a `map` may share one run."""
        return False

    @classmethod
    def _inherits(cls) -> bool:
        """Whether a run's arguments are inherited by its worker, rather than sent."""
        return False

    def _tell_item(self, failure: Failure) -> None:
        """An item of a `map` has failed: the failure says which, and of which type it was, not its value."""
        number = str(self._number)
        kinds = ", ".join(_exceptions.type_name(type(arg)) for arg in (self.args or ())[:3])
        item = f"item {number[number.find('[') + 1 : -1]}" + (f" ({kinds})" if kinds else "")
        failure.message = f"{item}: {failure.message}" if failure.message else item
        if failure.__cause__ is not None:
            _exceptions.add_note(failure.__cause__, f"woflo: {item} of {self.task.name}")

    # ------------------------------------------------------------------ the state machine

    @classmethod
    def submit(
        cls, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[BaseTaskRun[Any]]
    ) -> Self:
        """Make a run of a call and start it, now or when its inputs have ended.

        Raises:
            UsageError: the call can't be started as it is (an argument that can't be pickled…).
        """
        if not _process.prepared:
            _process.prepare()
        if _process.closed:
            raise UsageError(
                f"{task.name} can't be started: the interpreter is ending, and all runs have been waited for"
            )
        run = cls(task, args, kwargs, next(task.numbers), _process.mark)
        try:
            _process.live.add(run)
            if inputs:
                from woflo.runners import _pending

                _pending.wait_for_inputs(run, inputs)
            elif task.keeper is None:
                run._begin()
            else:
                run._admit()
        except Exception:
            _process.live.discard(run)
            raise
        except BaseException:  # Ctrl-C: it may have begun, and nobody has it to stop it
            run._cut_short()
            raise
        return run

    def _admit(self) -> None:
        """Begin, unless the call's value is remembered, or another run is about to know it."""
        keeper = self.task.keeper
        if keeper is None:
            self._begin()
            return
        try:
            if keeper.admit(self):
                self._begin()
        except BaseException:
            keeper.give()
            raise

    def _begin(self) -> None:
        """Start the first attempt."""
        if self._context is None:
            self._context = copy_context()
        self._start_attempt()

    def _start_attempt(self) -> None:
        self._mark_started()
        try:
            self.start()
        except UsageError:
            raise
        except Exception as error:
            text = _exceptions.safe_str(error)
            failure = WorkerFailure(f"could not be started: {_exceptions.type_name(type(error))}: {text}")
            failure.__cause__ = error
            self.finish(self._named(failure))
            return
        if self.task.timeout is not None and not self._keeps_time and self._result is None:
            attempt = self.attempt
            self._clock = _process.timers().call_later(self.task.timeout, lambda: self._overdue(attempt))
            self._attend()

    def _mark_started(self) -> None:
        """The current attempt begins now."""
        self._phase = "running"
        self._started = monotonic()
        if _notify.listening:
            self._tell_soon(_notify.started)

    def _tell_soon(self, tell: Callable[[BaseTaskRun[Any]], None]) -> None:
        """Tell of a fact; a runner whose facts come up under a lock does it later."""
        tell(self)

    def _mark_pending(self) -> None:
        """The current attempt can't begin yet: no slot is free."""
        self._phase = "pending"
        self._started = 0.0
        if _notify.listening:
            self._tell_soon(_notify.pending)

    def _conclude(self, result: Result[R]) -> float | None:
        """Take an attempt's result: None if the run has its outcome now, else the pause before the next attempt."""
        if result.__class__ is Ok and self._timed_out == self.attempt:  # what it returned may be what it had by then
            result = late(self, monotonic() - self._started, self._where)
        if result.__class__ is not Ok:
            with _process.state:
                if self._result is not None or self._concluded == self.attempt:
                    return None  # late: this attempt has been abandoned
                self._concluded = self.attempt
            self._disarm()
            failure = self._judge(result)
            try:
                pause = None if self._stop_asked else _retry.pause(self.task.policy, self.attempt, failure)
            except BaseException as error:
                _notify.broken(f"retry_sleep_time of {self.task.name}", error)
                pause = None
                if _exceptions.is_interrupt(error):
                    self._settle(failure)
                    raise
            if pause is not None:
                self._phase = "retrying"
                self._ended = monotonic()
                if self._progress is not None:
                    self._progress.end(self)
                _notify.retrying(self, failure, pause)
                return pause
            result = failure
        self._settle(result)
        return None

    def _judge(self, result: Any) -> Failure:
        """The failure that this result is: with its names, and read in the light of what was asked of the run."""
        if not isinstance(result, Failure):
            wrong = f"{type(self).__name__} called finish() with {type(result).__name__}, not with Ok or a Failure"
            return self._named(TaskFailure(wrong))
        failure = result
        if self._timed_out == self.attempt and not isinstance(failure, TimeoutFailure):
            cause, failure = failure, late(self, monotonic() - self._started, self._where)
            failure.__cause__ = cause.__cause__
        elif self._stop_asked and isinstance(failure, TaskFailure):
            cause, failure = failure, self._named(StoppedFailure("stopped"))
            failure.__cause__ = cause.__cause__
        if not failure.run:
            self._named(failure)
        if type(failure) is TaskFailure and (error := failure.__cause__) is not None:
            attempts = f", attempt {failure.attempt} of {failure.attempts}" if failure.attempts > 1 else ""
            pid = f", pid {failure.pid}" if failure.pid is not None else ""
            _exceptions.add_note(error, f"woflo: task {failure.task!r}, run {failure.run}{attempts}{pid}")
        return failure

    def _settle(self, result: Result[R]) -> None:
        """Give the run its outcome, once, and tell everybody who waits."""
        keeper = self.task.keeper
        if keeper is not None and keeper.holds(self, result):
            return
        try:
            self._settle_and_tell(result)
        except BaseException:  # Ctrl-C
            if self._result is result:
                self._tell_again()
            raise

    def _settle_and_tell(self, result: Result[R]) -> None:
        with _process.state:
            if self._result is not None:
                return
            if self._started and not self._ended:
                self._ended = monotonic()
            told = not self.task._apart  # else its calls are told of, each by a run of its own
            if not result and told:
                if self._number.__class__ is str:
                    self._tell_item(result)
                if not isinstance(result, StoppedFailure):
                    _unseen.add(result, self.name)
            if not told or _notify.listening or not result:
                _notify.untold[self] = get_ident()  # before the outcome can be seen: the program may end with it
            self._result = result
        if self._clock is not None:
            self._disarm()
        self.args = self.kwargs = self._context = None  # type: ignore[assignment] # a kept run must not keep what it was called with
        _process.live.discard(self)
        if self._attended or self._pumped:
            self._forget()
        try:
            if self._progress is not None:
                self._progress.end(self)
            if result or isinstance(result, StoppedFailure):  # a stop is no failure to be logged
                if _notify.listening:
                    _notify.ended(self, None if result else result)
            else:
                _notify.ended(self, result)
        finally:
            if told:
                _notify.untold.pop(self, None)
            self._tell_all()
            if not told:
                _notify.untold.pop(self, None)

    def _tell_all(self) -> None:
        supervisor = _process.supervisor
        if supervisor is not None and supervisor.driving is self:  # who drives for this run has not ended it itself
            supervisor.wake()
        if self._waiters is not None:
            self._tell_waiters()
        if self._pause is not None:
            self._pause.signal(self)
        if self._dependents is not None:
            self._tell_dependents()
        if self._callbacks is not None:
            self._tell_callbacks()

    def _succeed(self, value: Any) -> None:
        """`_settle(Ok(value))` without the lock, for the one thread that carries out the run.

        Only a stop or a time-out lets somebody else end it; then the lock is taken.
        """
        if self._stop_asked or self._timed_out or _notify.listening or self.task.keeper is not None:
            self._settle(Ok(value))
            return
        if self._started:
            self._ended = monotonic()
        self._result = Ok(value)
        self.args = self.kwargs = self._context = self._inner = None  # type: ignore[assignment]
        _process.live.discard(self)
        if self._clock is not None:
            self._disarm()
        if self._attended:
            self._forget()
        if self._waiters is not None:
            self._tell_waiters()
        if self._dependents is not None:
            self._tell_dependents()
        if self._callbacks is not None:
            self._tell_callbacks()

    def _tell_waiters(self) -> None:
        waiters = None
        try:
            with _process.state:
                waiters, self._waiters = self._waiters, None
            for waiter in waiters or ():
                waiter.signal(self)
        except KeyboardInterrupt:
            if waiters:  # being told twice does no harm
                with _process.state:
                    self._waiters = [*waiters, *(self._waiters or ())]
            raise

    def _tell_dependents(self) -> None:
        dependents = None
        try:
            with _process.state:
                dependents, self._dependents = self._dependents, None
            if dependents:
                _waiters.one_after_the_other(dependents)
        except KeyboardInterrupt:
            if dependents:  # they may not have been taken over; those that were do nothing when told twice
                with _process.state:
                    self._dependents = [*dependents, *(self._dependents or ())]
            raise

    def _tell_callbacks(self) -> None:
        callbacks: list[Any] | None = None
        try:
            with _process.state:
                callbacks, self._callbacks = self._callbacks, None
            while callbacks:
                _process.step_aside()
                callback = callbacks[0]
                del callbacks[0]  # from here on it has been called
                try:
                    callback(self)
                except BaseException as error:
                    self._callback_raised(callback, error)
        except KeyboardInterrupt:
            if callbacks:
                with _process.state:
                    self._callbacks = [*callbacks, *(self._callbacks or ())]
            raise

    def _retry_after(self, pause: float) -> None:
        """Start the next attempt in `pause` seconds, from the supervisor's timers."""
        attempt = self.attempt
        self._clock = _process.timers().call_later(pause, lambda: self._again(attempt))
        self._attend()

    def _again(self, attempt: int) -> None:
        with _process.state:
            if self._result is not None or self._stop_asked or self.attempt != attempt:
                return
            self._phase = "running"  # from here on a stop is for the attempt, which may not have begun
        try:
            self._next_attempt()
            self._launch()
        except KeyboardInterrupt:  # else the timer is due again, and finds that this has begun
            if self.attempt == attempt:
                self._phase = "retrying"
            else:
                self.finish(self._named(WorkerFailure("Ctrl-C came while its next attempt was being started")))
            raise

    def _mend(self, attempt: int, again: Callable[[], None]) -> None:
        """Ctrl-C came while the attempt's result was being dealt with: do what it cut short, if need be from the beginning."""
        if self._result is not None:
            self._tell_again()
        elif self.attempt == attempt and self._phase == "retrying":
            if self._clock is None or self._clock.action is None:
                self._retry_after(0.0)
            self._attend()
        elif self.attempt == attempt:
            self._concluded = 0
            again()

    def _tell_again(self) -> None:
        """It has its outcome: do what is left to be done after that, if anything."""
        _process.live.discard(self)
        _notify.untold.pop(self, None)
        if self._attended or self._pumped:
            self._forget()
        self._tell_all()

    def _next_attempt(self) -> None:
        """Count the attempt that begins."""
        self.attempt += 1
        self.pid = None
        self._ended = 0.0
        if self._progress is not None:
            self._progress = self._progress.next(self)

    def _launch(self) -> None:
        """Start an attempt with nobody there to raise to: what goes wrong is the run's outcome."""
        try:
            self._start_attempt()
        except BaseException as error:
            self._lay_down(error)
        if self._stop_asked:  # it was stopped while it was being started: the stop may have found nothing to end
            self._end_what_began()

    def _lay_down(self, error: BaseException) -> None:
        """What went wrong while it was being started, with nobody there to raise to, is its outcome; Ctrl-C goes on."""
        if not _exceptions.is_interrupt(error):
            self._settle(self._judge(failure_from(self, error)))
            return
        self._cut_short()
        raise error

    def _cut_short(self) -> None:
        """Ctrl-C came while it was being started: it may have begun, and nobody has it to stop it."""
        if self._result is None and self._in_place:
            self._settle(self._named(StoppedFailure("interrupted by Ctrl-C")))
        elif self._result is None and self._stops:  # somebody's own code
            self.stop(wait=False)
        elif self._result is None:
            with _calm.Held():
                self.stop(wait=False)

    def _end_what_began(self) -> None:
        if self._result is None and self._phase != "running":
            self._settle(self._named(StoppedFailure("stopped before it was started")))
        elif self._phase == "running":
            self._end(GRACE)

    # ------------------------------------------------------------------ ending by force

    def _end(self, grace: float) -> None:
        """Ask the running attempt to end; after the grace it is abandoned, whatever it does."""
        if self._stops:
            self._hooks = list(self._stops)
            before, self._stopping_in = self._stopping_in, get_ident()
            try:
                self._ask(grace)
            finally:
                self._stopping_in = before
        self._end_attempt(grace)

    def _end_attempt(self, grace: float) -> None:
        """What the runner itself does to end an attempt; by default it is abandoned after the grace."""
        if self._result is None and not self._keeps_time:
            attempt = self.attempt
            _process.timers().call_later(grace, lambda: self._abandon(attempt))
            self._attend()

    def _ask(self, grace: float) -> None:
        """Call the next of the classes' own `stop`, the most derived first."""
        if self._hooks:
            self._hooks.pop(0)(self, grace)

    def _withdraw(self) -> bool:
        """End the run if its first attempt has not begun; True if so, else it is left alone."""
        with _process.state:
            if self._result is not None or self._stop_asked or self._phase != "pending" or self.attempt > 1:
                return False
            # first the wish, then one more look: a thread that begins it does it the other way round, so one sees the other
            self._stop_asked = True
            if self._phase != "pending":
                self._stop_asked = False
                return False
        self._settle(self._named(StoppedFailure("stopped before it was started")))
        return True

    @classmethod
    def _batches(cls, task: Task[..., Any]) -> bool:  # noqa: ARG003
        """Whether calls of a task may ever be sent together, where a later one needs an earlier one's result."""
        return False

    @classmethod
    def _release(cls) -> None:
        """No more runs of this class will come and all have ended: end what it keeps, and wait until that is gone."""

    def _overdue(self, attempt: int) -> None:
        """The attempt's time is up (a runner that doesn't keep time itself)."""
        if self._result is None and self._phase == "running" and self.attempt == attempt:
            self._where = self._whereabouts()
            self._timed_out = self.attempt
            self._end(GRACE)

    def _abandon(self, attempt: int) -> None:
        """It was asked to end and has not: it may go on, but the run ends here, and says so."""
        if self._result is not None or self.attempt != attempt or self._phase != "running":
            return
        where = self._whereabouts()
        place = f" (at {_exceptions.describe(where)})" if where else ""
        if self._timed_out == attempt:
            failure: Failure = late(self, monotonic() - self._started, where)
            failure.message += "; it did not end when asked, and was abandoned: it may still be running"
        else:
            failure = self._named(
                StoppedFailure(f"did not end when asked{place}, and was abandoned: it may still be running")
            )
        self.finish(failure)

    def _wait_until_gone(self, seconds: float) -> None:
        """After the outcome: wait until nothing is left of the attempt, where the runner can know."""

    def _whereabouts(self) -> tuple[_exceptions.Place, ...]:
        """Where the task's code is now, as far as this runner can know."""
        return ()

    def _undisturbed(self, action: Callable[[], None]) -> None:
        """In the task's own thread: do something of woflo's that nothing thrown into the task may cut short."""
        action()

    def _disarm(self) -> None:
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.cancel()

    # ------------------------------------------------------------------ waiting

    def _enlist(self, waiter: Any) -> bool:
        """Have `waiter.signal(run)` called at the end; False if it has come already.

        First the entry, then the look: whoever ends the run does it the other way round, so one of the two sees the other.
        """
        with _process.state:
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
        if self._result is None:
            return True
        self._delist(waiter)
        return False

    def _delist(self, waiter: Any) -> None:
        """Forget a waiter."""
        with _process.state:
            if self._waiters is not None and waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wait(self, timeout: float | None) -> bool:
        deadline = _waiters.deadline(timeout)
        self._check_owner()
        self._check_wait()
        _waiters.start_queued()  # a start of this thread's waits for another: those in the queue come first
        try:
            if deadline is None and self._glance():
                return True
            if self._pumped and not _process.waiting_hooks and _process.timers().wait_for(self, deadline):
                return self._result is not None
            return self._block(deadline)
        except KeyboardInterrupt:
            if _waiters.interactive():
                self.stop(wait=False)
            raise

    def _glance(self) -> bool:
        """Whether the run has ended in the little time that it is worth to look for that without sleeping."""
        return False

    def _block(self, deadline: float | None) -> bool:
        waiter = Waiter()
        if not self._enlist(waiter):
            return True

        def look() -> None:
            self._look_around()
            if self._result is not None:
                waiter.done = True

        try:
            _waiters.block(waiter, deadline, self._pumped, look)
        finally:
            if self._result is None:
                self._delist(waiter)
        return self._result is not None

    def _check_owner(self) -> None:
        if self._owner is not _process.mark:
            raise UsageError(
                f"{self.name} belongs to another process and can't be asked here; pass it to a task as an argument"
            )

    def _check_wait(self, seen: set[int] | None = None) -> None:
        """Raise UsageError if blocking here could never end: the run, or an input of it, needs this very thread."""
        todo: list[BaseTaskRun[Any]] = [self]
        seen = set() if seen is None else seen
        while todo:
            run = todo.pop()
            if run._result is None and id(run) not in seen:
                seen.add(id(run))
                if run._needs_this_thread():
                    raise UsageError(
                        f"{run.name} runs on this thread's event loop, which can't go on while it is blocked: await it"
                    )
                todo.extend(run._wanted)

    def _stranded(self) -> str:
        """At the program's end: why nothing can bring this run on any more; empty if something can."""
        return ""

    def _is_nowhere(self) -> bool:
        """Whether nobody knows this run who could bring it on: it is being started in another thread, or was cut short."""
        return False

    def _needs_this_thread(self) -> bool:
        """Whether the run can only go on if the calling thread does."""
        return False

    def _look_around(self) -> None:
        """`_look` at this run and at all that it waits for."""
        todo: list[BaseTaskRun[Any]] = [self]
        seen: set[int] = set()
        while todo:
            run = todo.pop()
            if run._result is None and id(run) not in seen:
                seen.add(id(run))
                run._look()
                todo.extend(run._wanted)

    def _look(self) -> None:
        """Find out, without blocking, whether something has happened."""

    def _attend(self) -> None:
        """Something can fall due with nobody waiting for this run."""
        if self._result is None:
            self._attended = True
            _process.timers().attend(self)

    def _forget(self) -> None:
        """The run has ended: nothing more falls due."""
        if self._attended:
            _process.timers().dismiss(self)

    def _attach(self, loop: AbstractEventLoop) -> Callable[[], None] | None:  # noqa: ARG002
        """Have an event loop drive what this run depends on; returns what ends that."""
        return None

    # ------------------------------------------------------------------ inputs

    def _before(self, dependent: Callable[[], None]) -> None:
        """Call `dependent()` when this run has ended; now if it has."""
        with _process.state:
            if self._dependents is None:
                self._dependents = []
            self._dependents.append(dependent)
        if self._result is None:
            self._attend()
        else:
            self._tell_dependents()

    def _prepare_pending(self) -> None:
        """The run will be started by another thread: keep what belongs to the caller's."""
        self._context = copy_context()

    # ------------------------------------------------------------------ small parts

    @staticmethod
    def _error(result: Result[Any]) -> BaseException:
        """What `get_result` raises for a failure; its traceback is the same however often it is raised."""
        error: BaseException = result  # type: ignore[assignment]
        if (
            type(result) is TaskFailure
            and isinstance(cause := result.__cause__, Exception)
            and not _flow_control(cause)
        ):
            error = cause
        state = vars(result)
        if "_raised_from" not in state:
            state["_raised_from"] = error.__traceback__
        return error.with_traceback(state["_raised_from"])

    def _call_back(self, callback: Callable[[BaseTaskRun[R]], object]) -> None:
        _process.step_aside()
        try:
            callback(self)
        except BaseException as error:
            self._callback_raised(callback, error)

    def _callback_raised(self, callback: Callable[[BaseTaskRun[R]], object], error: BaseException) -> None:
        if _exceptions.is_interrupt(error):
            raise error
        _notify.broken(f"a done-callback of {self.name}, {getattr(callback, '__qualname__', callback)!s},", error)


if TYPE_CHECKING:
    _F = TypeVar("_F", bound=Failure)


def _flow_control(error: Exception) -> bool:
    """Exceptions that mean something to Python itself: raised from get_result they would end a loop or a generator."""
    return isinstance(error, (StopIteration, StopAsyncIteration)) or type(error).__name__ == "CancelledError"
