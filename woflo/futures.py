"""TaskExecutor: a `concurrent.futures.Executor` over any runner, and the futures that it hands out.

    submit(fn, x) ──→ a Task of fn ──→ runner.submit ──→ TaskRun ─── its end ───→ TaskFuture ──→ whoever asks
                                                            ↑                         │
                                                            └──── stop ← cancel() ────┘

A face: which call becomes which run; what its future does is `_task_future`'s. Where calls run, how many at once and how they
end is the runner's: an executor has no thread, no queue and no worker of its own.

Rule: the executor knows a run from `submit` until its end is known here (`_active`), also one whose future was cancelled
before; the future belongs to whoever has it.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock, start_new_thread
from collections import deque
from concurrent.futures import Executor, InvalidStateError
from itertools import count, islice
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload
from weakref import ref

from woflo import _exceptions, _executor_settings
from woflo._retry import Policy
from woflo._task_future import TaskFuture
from woflo._worker_calls import (
    Chunk,
    CoroutineChunk,
    Initializer,
    Pickled,
    PickledCoroutine,
    Prepared,
    PreparedCoroutine,
    UnpicklableCallError,
    WorkerBrokenError,
)
from woflo.errors import UsageError
from woflo.result import Failure, TaskFailure, WorkerFailure
from woflo.runners import _attempt, _inputs, _process, _waiters
from woflo.task import Task, _name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from types import TracebackType
    from typing import ParamSpec

    from woflo._future_errors import WorkerLost
    from woflo.runners.base import BaseTaskRun

    P = ParamSpec("P")

__all__ = ["TaskExecutor", "TaskFuture", "WorkerLost"]

T = TypeVar("T")
V = TypeVar("V")  # what a task's function itself returns: T, or a coroutine of T

_ONCE = Policy(0, Exception, 0.0)
_tokens = count(1)


def __getattr__(name: str) -> object:
    if name == "WorkerLost":
        from woflo._future_errors import WorkerLost

        return WorkerLost
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class TaskExecutor(Executor):
    """An executor whose calls are runs of a runner: `with TaskExecutor(4) as executor: executor.submit(fn, x)`.

    It takes the place of `ProcessPoolExecutor` and, with `runner=ThreadTaskRun`, of `ThreadPoolExecutor`. A Task may be submitted
    in place of a function: its retries and time-out count, its runner doesn't. A coroutine function is carried out;
    a TaskRun among the arguments is replaced by its value.

    What is different from the standard library, on purpose:

    * A fault hits one call: a worker that dies, or whose initializer fails, fails its own call with WorkerLost (a
      BrokenProcessPool). The others and the executor go on.
    * `cancel()` ends a running call; so do what `map` gives up, and Ctrl-C in the `with` block.
    * Each call has a worker of its own where the runner works so (processes): `max_tasks_per_child` is satisfied by that, with
      fork too, and `initializer` is carried out in each. A forked worker inherits the arguments; they are not pickled.
    * A call that waits for a future of the same executor gives its place to another: nesting can't lock up.
    * Failed calls are logged as all failed runs are. After an unhandled exception the end of the program stops what runs.

    Attributes:
        runner: the class of TaskRun that carries the calls out.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        runner: type[BaseTaskRun[Any]] | None = None,
        max_tasks_per_child: int | None = None,
        thread_name_prefix: str = "",
        strict_compat: bool = False,
    ) -> None:
        """Nothing is started before the first call.

        Args:
            max_workers: how many calls run at once; None: as many as cores for processes, else min(32, cores + 4), unless
                the runner has a limit of its own.
            mp_context: a context of multiprocessing: its start method is the process runner's.
            initializer: called once in each worker before its first call.
            initargs: its arguments.
            runner: the class of TaskRun; None: MultiprocessTaskRun.
            max_tasks_per_child: after how many calls a worker process is replaced at the latest.
            thread_name_prefix: the threads of a ThreadTaskRun are named `prefix_0`, `prefix_1`, …
            strict_compat: be as strict as the standard library: the first lost worker or failed initializer breaks the
                executor, a running call can't be cancelled, calls for processes are pickled when they are submitted,
                `max_tasks_per_child` means spawned workers.

        Raises:
            UsageError: a setting has a bad value, or the runner doesn't have it.
            TypeError: `initializer` can't be called, or `mp_context` is no context.
        """
        if runner is None:
            from woflo.runners import MultiprocessTaskRun

            runner = MultiprocessTaskRun
        _executor_settings.check(max_workers, max_tasks_per_child, initializer, runner)
        has_processes = "process_type" in runner._settings
        if strict_compat and has_processes and max_tasks_per_child is not None:
            mp_context = _executor_settings.spawning(mp_context)
        first: Initializer | None = None
        if initializer is not None:
            token = f"{os.getpid()}-{next(_tokens)}"
            first = Initializer(token, initializer, tuple(initargs), strict=strict_compat)
        settings = _executor_settings.in_words_of(
            runner, max_workers, mp_context, max_tasks_per_child, thread_name_prefix, first
        )
        if "thread_name_prefix" in runner._settings:
            settings.setdefault("thread_name_prefix", f"{type(self).__name__}-{next(self._numbers)}")
        self.runner: type[BaseTaskRun[Any]] = runner.using(**settings) if settings else runner
        self._is_ours = bool(settings)  # else somebody else may use the class too
        self._max_workers = settings.get("workers") or self.runner.max_running  # by this name others (dask) ask for it
        self._strict = strict_compat
        self._pickles = strict_compat and has_processes
        self._initializer = None if "initializer" in settings else first
        if not _process.prepared:
            _process.prepare()
        self._closed = False
        self._broken: str = ""
        self._start_anew()

    _numbers: ClassVar[Iterator[int]] = count()  # of the executors whose threads have no name

    def _start_anew(self) -> None:
        """A new executor; also one that a forked process has inherited: what its parent submitted is the parent's."""
        self._mark = _process.mark
        self._late = _process.exiting  # made by a call while the program ends: such calls are carried out
        self._breaking = allocate_lock()
        self._active: dict[BaseTaskRun[Any], ref[TaskFuture[Any]]] = {}  # runs whose end is not known here
        self._starting: set[TaskFuture[Any]] = set()  # of calls that are about to be among them
        self._dropped: deque[BaseTaskRun[Any]] = deque()  # of these, whose futures nobody has any more
        self._adopting = False  # a thread is there for them
        self._draining: list[_waiters.Waiter] = []  # threads that wait for these
        self._last: tuple[Any, Any] = (_nothing, None)  # the function submitted last, weakly; how to get at its task

    @overload
    def submit(self, fn: Task[P, T, V], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]: ...
    @overload
    def submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> TaskFuture[T]: ...
    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Start `fn(*args, **kwargs)` as soon as there is a worker for it; returns its future at once.

        What can't be pickled for a worker that needs it so is an exception of the future.

        Raises:
            RuntimeError: the executor was shut down, or the interpreter is ending.
            WorkerLost: it is broken (`strict_compat`).
        """
        return self._start(self._task_of(fn), args, kwargs)

    def _start(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskFuture[Any]:
        if self._mark is not _process.mark:
            self._start_anew()
        future: TaskFuture[Any] = TaskFuture(self)
        self._starting.add(future)  # first the entry, then the look: `shutdown` does it the other way round
        if self._closed or self._broken or _process.exiting or _process.closed:
            self._check_open(future)
        try:
            if self._pickles:
                call = (PickledCoroutine if task.is_async else Pickled)(task.fn, args, kwargs)
                task, args, kwargs = _copy(task, self._prepared(call, is_async=task.is_async)), (), {}
            inputs = _inputs.find(args, kwargs) if kwargs or not _inputs.PLAIN.issuperset(map(type, args)) else []
            run = task._submit(args, self.runner, kwargs, inputs)
        except UsageError as error:
            why = error.__cause__
            self._give_up(future, why)
            if why is None:
                raise
            _exceptions.add_note(why, f"woflo: {error}")
            return future
        except UnpicklableCallError as error:
            self._give_up(future, error.__cause__)
            return future
        except BaseException:
            self._give_up(future, None)
            raise
        future._run = run
        self._active[run] = ref(future)
        self._starting.discard(future)
        if run._result is not None:
            future._ended(run)
        elif self._strict:
            future._attach()  # a worker that is lost breaks the executor with nobody looking
            if self._broken:
                self._fail(future)
        if self._draining:
            self._tell_draining()
        return future

    @overload
    def map(
        self,
        fn: Task[..., T, V],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: Callable[..., Coroutine[Any, Any, T]],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Like the built-in `map`, with the calls under way at once; the values come in the order of the items.

        Args:
            fn: a function or a Task; with chunks, a Task's retries and time-out count for a chunk.
            iterables: where the arguments come from; as many calls as the shortest has items.
            timeout: seconds from now after which the iteration raises TimeoutError.
            chunksize: how many items one call takes, where the calls are short.
            buffersize: how many calls are under way or waiting to be taken at most; None: all, submitted before this returns.

        Raises:
            UsageError: `chunksize` or `buffersize` is not a whole number from 1 up.
        """
        for name, value in (("chunksize", chunksize), ("buffersize", buffersize)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} must be a whole number from 1 up, not {value!r}")
        deadline = None if timeout is None else monotonic() + timeout
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        if isinstance(fn, Task) and fn.cache is not None:
            chunksize = 1  # what it remembers it remembers of each item
        task = self._task_of(fn, in_chunks=chunksize > 1)
        if chunksize > 1:
            items = calls
            calls = iter(lambda: (list(islice(items, chunksize)),), ([],))
        under_way = deque(self._start(task, args, {}) for args in islice(calls, buffersize))
        found = self._results(task, calls, under_way, deadline)
        return (value for values in found for value in _emptied(values)) if chunksize > 1 else found

    def _results(
        self,
        task: Task[..., Any],
        calls: Iterator[tuple[Any, ...]],
        under_way: deque[TaskFuture[Any]],
        deadline: float | None,
    ) -> Iterator[Any]:
        """The values of the calls under way, and of the further ones; whoever gives up cancels what is left."""
        try:
            while under_way:
                yield self._taken(task, calls, under_way, None if deadline is None else deadline - monotonic())
        finally:
            _cancel(list(under_way))
            under_way.clear()

    def _taken(
        self,
        task: Task[..., Any],
        calls: Iterator[tuple[Any, ...]],
        under_way: deque[TaskFuture[Any]],
        timeout: float | None,
    ) -> Any:
        """The value of the first future, in whose place the next call is started; nobody but the caller has it then."""
        value = under_way[0].result(timeout)
        under_way.popleft()
        for args in islice(calls, 1):
            under_way.append(self._start(task, args, {}))
        return value

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; what was submitted is carried out.

        Args:
            wait: return when all calls have ended and their workers are gone; else at once.
            cancel_futures: calls that have not begun are cancelled.

        Raises:
            RuntimeError: it waits for the very call that it is made in.
        """
        if self._mark is not _process.mark:
            self._start_anew()
        self._closed = True
        if cancel_futures:
            for run in list(self._active):
                run._withdraw()
        if wait:
            self._drain()
            if self._is_ours:
                self.runner._release()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        if exc_type is not None and issubclass(exc_type, KeyboardInterrupt) and not self._strict:
            self._closed = True
            _cancel(self._futures())
        self.shutdown(wait=True)

    # ------------------------------------------------------------------ inside

    def _check_open(self, future: TaskFuture[Any]) -> None:
        """Let a call be started, or raise the reason why it can't be."""
        error: Exception | None = None
        if self._broken:
            from woflo._future_errors import WorkerLost

            error = WorkerLost(f"cannot schedule new futures: the executor is broken: {self._broken}")
        elif self._closed:
            error = RuntimeError("cannot schedule new futures: the executor was shut down")
        elif _process.closed or not self._late:
            error = RuntimeError("cannot schedule new futures: the interpreter is ending")
        if error is not None:
            self._give_up(future, None)
            raise error

    def _task_of(self, fn: Callable[..., Any], *, in_chunks: bool = False) -> Task[..., Any]:
        """The task of a function for this executor: the same one as long as calls of it are under way.

        For a function that its module keeps anyway it is kept; what else was called must not outlive its calls.

        Raises:
            UsageError: it is a Task that remembers its results, which is not to be had with these settings.
        """
        known, task = self._last
        if not in_chunks and known() is fn:
            found: Task[..., Any] | None = task()
            if found is not None:
                return found
        plain = fn if isinstance(fn, Task) else Task(fn, _name_of(fn), _ONCE, None, None)
        if plain.cache is not None and (self._pickles or self._initializer is not None):
            raise UsageError(
                f"{plain.name} remembers its results, which an executor with an initializer or strict_compat can't: "
                f"submit {plain.name}.options(cache=None)"
            )
        call = plain.fn
        if in_chunks:
            call = (CoroutineChunk if plain.is_async else Chunk)(call)
        if not self._pickles:
            call = self._prepared(call, is_async=plain.is_async)
        if call is not plain.fn:
            plain = _copy(plain, call)
        if not in_chunks:
            try:
                self._last = ref(fn), (lambda: plain) if _is_kept(fn) else ref(plain)
            except TypeError:  # a callable that can't be referred to weakly
                self._last = _nothing, None
        return plain

    def _prepared(self, call: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
        """What is called in the worker: the initializer first, if there is one."""
        if self._initializer is None:
            return call
        return (PreparedCoroutine if is_async else Prepared)(call, self._initializer)

    def _judge(self, failure: Failure) -> BaseException:
        """What a future raises for a failure of its run; under `strict_compat` a lost worker breaks the executor."""
        cause = failure.__cause__
        if type(failure) is TaskFailure and cause is not None and not failure._in_transit:
            if not isinstance(cause, WorkerBrokenError):
                return cause
            failure = _named_after(failure, cause)
        elif not (isinstance(failure, WorkerFailure) or failure._in_transit):
            from woflo._future_errors import as_exception

            return as_exception(failure)
        from woflo._future_errors import worker_lost

        lost = worker_lost(failure)
        if self._strict:
            self._break(lost)
        return lost

    def _break(self, lost: WorkerLost) -> None:
        """Fail all calls that have no outcome, and take no more."""
        with self._breaking:
            if self._broken:
                return
            self._broken = str(lost)
        for future in self._futures():
            self._fail(future)

    def _fail(self, future: TaskFuture[Any]) -> None:
        """The executor is broken, and so is this call, unless it has an outcome."""
        from woflo._future_errors import WorkerLost

        run = future._run
        if run is None:
            return
        try:
            future.set_exception(
                WorkerLost(f"the executor is broken: {self._broken}", task=run.task.name, run=run.name)
            )
        except InvalidStateError:  # it has ended meanwhile
            return
        run.stop(0.0, wait=False)

    def _futures(self) -> list[TaskFuture[Any]]:
        """Those whose runs have not ended, as far as anybody has them."""
        return [future for known in list(self._active.values()) if (future := known()) is not None]

    def _give_up(self, future: TaskFuture[Any], error: BaseException | None) -> None:
        """A future for which there is no run."""
        self._starting.discard(future)
        if error is not None:
            future.set_exception(error)
        if self._draining:
            self._tell_draining()

    def _forget(self, run: BaseTaskRun[Any]) -> None:
        """A run has ended, and its future, if anybody has it, is settled."""
        self._active.pop(run, None)
        if self._draining:
            self._tell_draining()

    def _drop(self, run: BaseTaskRun[Any]) -> None:
        """Nobody has a run's future any more: have the run tell of its end.

        This may be inside of anybody's code, the collector's included: where that takes more than a leaf's lock (over
        processes, a background thread) another thread does it.
        """
        if run._owner is not _process.mark:  # the parent's, in a forked child
            return
        if not run._pumped:
            run.add_done_callback(self._forget)
            return
        self._dropped.append(run)
        if not self._adopting:
            self._adopting = True
            try:
                start_new_thread(self._adopt, ())
            except RuntimeError:  # none is to be had: the next one tries again
                self._adopting = False

    def _adopt(self) -> None:
        """In a thread of its own: have the runs that were dropped tell of their ends."""
        while self._adopting:
            while self._dropped:
                self._dropped.popleft().add_done_callback(self._forget)
            self._adopting = False  # first this, then the look: `_drop` does it the other way round
            if self._dropped:
                self._adopting = True

    def _tell_draining(self) -> None:
        for waiter in list(self._draining):
            waiter.signal(None)

    def _drain(self) -> None:
        """Block until all runs have ended and all callbacks have been called."""
        here = _attempt.current.get()
        waiter = _waiters.Waiter()
        self._draining.append(waiter)
        try:
            while self._active or self._starting:
                waiter.done = False
                active = list(self._active.items())
                for run, known in active:
                    if run is here:
                        raise RuntimeError(
                            f"{run.name} can't wait for the shutdown of the executor that carries it out"
                        )
                    run.wait()
                    future = known()
                    if future is None:
                        self._forget(run)
                    else:
                        future._ended(run)
                if not waiter.done and (self._active or self._starting):  # another thread is starting, or telling
                    waiter.sleep(None)
        finally:
            self._draining.remove(waiter)


def _copy(task: Task[..., Any], fn: Callable[..., Any]) -> Task[..., Any]:
    """A task of the same name and policy that calls something else."""
    return Task(fn, task.name, task.policy, task.timeout, None)


def _is_kept(fn: Any) -> bool:
    """Whether a function is one that its module refers to."""
    module = sys.modules.get(getattr(fn, "__module__", None) or "")
    return getattr(module, getattr(fn, "__name__", ""), None) is fn


def _named_after(failure: Failure, cause: WorkerBrokenError) -> WorkerFailure:
    """The WorkerFailure that stands for a worker which could not be made ready."""
    names = {name: getattr(failure, name) for name in ("task", "run", "attempt", "attempts", "pid")}
    found = WorkerFailure(str(cause), **names)
    found.__cause__ = cause.__cause__
    return found


def _nothing() -> None:
    """A reference to nothing."""


def _cancel(futures: list[TaskFuture[Any]]) -> None:
    """Cancel all, the last first: a place that becomes free is for none of them."""
    while futures:
        futures.pop().cancel()


def _emptied(values: list[T]) -> Iterator[T]:
    """A list's values in order; the list keeps none that was given."""
    values.reverse()
    while values:
        yield values.pop()
