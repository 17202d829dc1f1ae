"""Task and `@task`: a function and its policy. Calling one starts a run.

A Task is immutable and never holds arguments. This file binds function, policy and arguments into a run and
hands it to its runner; what happens then is the runner's (`runners/base`).
"""

from __future__ import annotations

import os
import sys
from itertools import count

from woflo._retry import Policy
from woflo.errors import UsageError
from woflo.runners import _inputs
from woflo.runners._process import chosen
from woflo.runners.base import BaseTaskRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, MutableMapping
    from os import PathLike
    from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, overload

    from typing_extensions import TypeVar  # for its default; checkers bring it, nothing imports it

    from woflo._group import RunGroup
    from woflo._rebuild import Decision
    from woflo._retry import RetryOn, Wait
    from woflo.store import Store

    P = ParamSpec("P")
    R = TypeVar("R")
    S = TypeVar("S")
    T = TypeVar("T")
    V = TypeVar("V", default=R)  # what the function itself returns: R, or a coroutine of R
    Q = ParamSpec("Q")
    Runner = type[BaseTaskRun[Any]]
    Cache = bool | str | PathLike[str] | MutableMapping[str, bytes] | Store | None
else:
    from woflo._generic import Generic, P, R, V, overload

__all__ = ["Task", "ref", "task", "use"]

_PLAIN = _inputs.PLAIN
_COROUTINE, _GENERATOR, _ASYNC_GENERATOR = 0x80, 0x20, 0x200  # inspect.CO_COROUTINE…; inspect costs 8 ms
_RUNNERS = {
    "fork": "MultiprocessTaskRun",
    "spawn": "MultiprocessTaskRun",
    "pool": "PoolTaskRun",
    "thread": "ThreadTaskRun",
    "async": "AsyncTaskRun",
    "sequential": "SequentialTaskRun",
}
_FORGETTING: dict[str, Any] = {"version": None, "ignore": (), "force": False}  # of a task that remembers nothing
_NESTED = 100  # wrappers within wrappers that are looked through
_numbers: dict[str, Iterator[int]] = {}  # of the runs, by the task's name: so a run's name is its own in this process
_made: dict[Any, Runner] = {}  # by their names as the environment holds them


class Task(Generic[P, R, V]):
    """A function plus its policy, made by `@task`; calling it starts a run.

    The call returns the TaskRun at once.

    Attributes:
        fn: the function itself: `f.fn(x)` calls it plainly (and so does `f.local(x)`).
        name: the task's name; its runs are `name-1`, `name-2`, …
        policy: how often, on what and how long apart it is tried.
        timeout: seconds an attempt may take, or None.
        runner: where its runs execute, or None if the task doesn't say.
        is_async: whether the function is a coroutine function.
    """

    fn: Callable[P, V]
    name: str
    policy: Policy
    timeout: float | None
    runner: Runner | None
    is_async: bool
    cache: Any  # where its results are remembered: True (the default place), a path, a mapping, a Store; None: nowhere
    keeper: Any = None  # of one call, whose value it will remember
    _usual: str  # the runner that it gets if nobody says one
    simple: bool  # no retries and no time-out: a runner may take its straight way
    numbers: Iterator[int]  # of the runs of this name
    _apart: bool = (
        False  # its runs are several calls each: these are told of, and after each the worker is looked after
    )

    def __init__(
        self, fn: Callable[P, V], name: str, policy: Policy, timeout: float | None, runner: Runner | None
    ) -> None:
        is_async = _flags(fn) & _COROUTINE != 0
        inside = {
            name: getattr(fn, name)
            for name in ("__module__", "__qualname__", "__doc__", "__annotations__")
            if hasattr(fn, name)
        }
        vars(self).update(
            inside,
            __name__=getattr(fn, "__name__", name),
            __wrapped__=fn,
            fn=fn,
            name=name,
            policy=policy,
            timeout=timeout,
            runner=runner,
            cache=None,
            is_async=is_async,
            _usual="async" if is_async else "process",
            simple=policy.retries == 0 and timeout is None,
            numbers=_numbers.setdefault(name, count(1)),
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Task can't be changed; {self.name}.options({name}=…) makes another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Task can't be changed: {self.name} keeps its {name}")

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> BaseTaskRun[R]:
        """Start a run of the task and return it at once.

        A TaskRun among the arguments (also in lists, tuples, dicts, sets and dataclasses) makes a dependency: the run is
        pending until its inputs have ended, then gets their values.

        Raises:
            UsageError: the call can't be carried out as it is; nothing was started.
        """
        inputs: Any = ()
        for one in args:
            if one.__class__ not in _PLAIN:
                inputs = _inputs.find(args, kwargs)
                break
        else:
            if kwargs:
                inputs = _inputs.find((), kwargs)
        runner = self.runner or chosen.get() or _made.get(_environ.get(_NAME) or self._usual) or _named(self)
        return runner.submit(self, args, kwargs, inputs)

    def map(
        self, iterable: Iterable[Any], /, *iterables: Iterable[Any], chunksize: int | None = None, **kwargs: Any
    ) -> RunGroup[R]:
        """Start a run for each item, and return them as a group at once.

        >>> import woflo
        >>> from woflo.runners import SequentialTaskRun
        >>> woflo.task(pow, runner=SequentialTaskRun).map([2, 3, 4], [5, 2, 1]).get_results()
        [32, 9, 4]

        Args:
            iterable: the first argument of each call. Without a length (a generator) it is drawn from as results are
                asked for.
            iterables: the further arguments; the shortest iterable ends it, as in the builtin map.
            chunksize: how many items share one run where they can (on process runners, of a task without time-out,
                retries or cache); None: as many as make up 20 ms of work by what was measured. 1: each has its own.
            kwargs: the same for all calls.

        Raises:
            UsageError: something is not iterable, or `chunksize` is no whole number from 1 up.
        """
        return _group(self, "map", (iterable, *iterables), chunksize, kwargs)

    def starmap(
        self, iterable: Iterable[Iterable[Any]], /, *, chunksize: int | None = None, **kwargs: Any
    ) -> RunGroup[R]:
        """`map` for items that are each a call's arguments.

        >>> import woflo
        >>> from woflo.runners import SequentialTaskRun
        >>> woflo.task(pow, runner=SequentialTaskRun).starmap([(2, 5), (3, 2)]).get_results()
        [32, 9]

        Args:
            iterable: a tuple of arguments for each call.
            chunksize: how many items share one run, as for `map`.
            kwargs: the same for all calls.

        Raises:
            UsageError: it is not iterable, or `chunksize` is no whole number from 1 up.
        """
        return _group(self, "starmap", (iterable,), chunksize, kwargs)

    def _where(self, default: Runner | None) -> Runner:
        """The runner of a call that is made for a graph: the task's own, the graph's, or what a plain call would get."""
        return self.runner or default or chosen.get() or _named(self)

    def _submit(
        self,
        args: tuple[Any, ...],
        runner: Runner,
        kwargs: dict[str, Any] | None = None,
        inputs: list[BaseTaskRun[Any]] | tuple[()] = (),
    ) -> BaseTaskRun[R]:
        """Start a run with these values on this runner; they are not searched for runs, `inputs` says which there are."""
        return runner.submit(self, args, kwargs or {}, inputs)  # type: ignore[arg-type]

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> V:
        """Call the function here, plainly: no run, no retries, no time-out."""
        return self.fn(*args, **kwargs)

    if TYPE_CHECKING:

        def options(
            self,
            *,
            name: str | None = ...,
            retries: int = ...,
            retry_sleep_time: Wait = ...,
            retry_on: RetryOn = ...,
            timeout: float | None = ...,
            runner: Runner | None = ...,
            cache: Cache = ...,
            version: str | int | None = ...,
            ignore: Iterable[str] = ...,
            force: bool = ...,
        ) -> Self: ...

        @overload
        def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
        @overload
        def __get__(
            self: Task[Concatenate[S, Q], R, V], instance: S, owner: type | None = None, /
        ) -> Task[Q, R, V]: ...
        def __get__(self, instance: Any, owner: type | None = None, /) -> Any: ...

    else:

        def options(self, **overrides: Any) -> Self:
            """A copy of the task with some of the decorator's options changed.

            >>> import woflo
            >>> woflo.task(len).options(retries=2, name="size")
            <Task size>
            """
            known = {
                "name": self.name,
                "retries": self.policy.retries,
                "retry_sleep_time": self.policy.wait,
                "retry_on": self.policy.retry_on,
                "timeout": self.timeout,
                "runner": self.runner,
                **_remembering(self),
            }
            for name in overrides:
                if name not in known:
                    raise UsageError(
                        f"{self.name}: there is no option {name!r}{_close(name, known)}; there are {', '.join(known)}"
                    )
            if overrides.get("cache", True) in (None, False):
                known.update(_FORGETTING)
            other: Self = _make(
                self.fn, Task if type(self) is _RememberingTask else type(self), **{**known, **overrides}
            )
            return other

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            bind = getattr(type(self.fn), "__get__", None)
            bound = self.fn if bind is None else bind(self.fn, instance, owner)
            if bound is self.fn:
                return self
            other = type(self).__new__(type(self))
            vars(other).update(vars(self))
            vars(other).update(fn=bound, __wrapped__=bound)
            return other

    def why(self, /, *args: P.args, **kwargs: P.kwargs) -> Decision:
        """Whether this call would be answered with what is remembered, and why not: nothing is started.

        Raises:
            UsageError: the task doesn't remember its results.
            StoreError: the store can't be read.
        """
        decision: Decision = self._memory("why").why(self, args, kwargs)
        return decision

    def cached(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Whether this call would be answered with what is remembered.

        Raises:
            UsageError: the task doesn't remember its results.
            StoreError: the store can't be read.
        """
        return bool(self._memory("cached").why(self, args, kwargs).reuse)

    def forget(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget what is remembered of this call; whether there was anything.

        Raises:
            UsageError: the task doesn't remember its results.
            StoreError: the store can't be written.
        """
        return bool(self._memory("forget").forget(self, args, kwargs))

    def _memory(self, what: str) -> Any:
        raise UsageError(
            f"{self.name} does not remember its results, so there is no {what}(): decorate it with cache=True"
        )

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __reduce__(self) -> Any:
        found = _found_by_name(self)
        place = (self.__module__, vars(self).get("__qualname__"))
        if found is self:
            return _by_name, place
        state: tuple[Any, ...] = (
            self.name,
            self.policy.retries,
            self.policy.wait,
            self.policy.retry_on,
            self.timeout,
            self.runner,
            _remembering(self) if self.cache is not None else None,
        )
        if isinstance(found, Task) and found.fn is self.fn:
            return _variant, (*place, state)
        return _by_value, (self.fn, state)


class _RememberingTask(Task[P, R, V]):
    """A Task whose results are remembered between sessions (`_cache`)."""

    _how: dict[str, Any]  # the options that say so
    _kept: list[Any]  # its Memory, made by the first call; one for all the methods that are made of it

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> BaseTaskRun[R]:
        inputs: Any = ()
        if kwargs or any(one.__class__ not in _PLAIN for one in args):
            inputs = _inputs.find(args, kwargs)
        runner = self.runner or chosen.get() or _named(self)
        run: BaseTaskRun[R] = self._memory("").call(self, runner, args, kwargs, inputs)
        return run

    def _submit(
        self,
        args: tuple[Any, ...],
        runner: Runner,
        kwargs: dict[str, Any] | None = None,
        inputs: list[BaseTaskRun[Any]] | tuple[()] = (),
    ) -> BaseTaskRun[R]:
        run: BaseTaskRun[R] = self._memory("").call(self, runner, args, kwargs or {}, inputs)
        return run

    def _memory(self, what: str) -> Any:  # noqa: ARG002 - as Task's
        if not self._kept:
            from woflo._cache import Memory

            self._kept.append(Memory(self.cache, fn=self.fn, **self._how))
        return self._kept[0]


def _group(
    one: Task[..., R, Any], way: str, iterables: tuple[Any, ...], chunksize: Any, kwargs: dict[str, Any]
) -> RunGroup[R]:
    from woflo._group import RunGroup

    if chunksize is not None and (type(chunksize) is not int or chunksize < 1):
        raise UsageError(f"{one.name}.{way}: chunksize must be a whole number from 1 up, or None, not {chunksize!r}")
    sizes: list[int] | None = []
    for place, iterable in enumerate(iterables, 1):
        if not hasattr(iterable, "__iter__") and not hasattr(iterable, "__getitem__"):
            which = f"its iterable {place}" if len(iterables) > 1 else "its iterable"
            raise UsageError(f"{one.name}.{way}: {which} is {type(iterable).__name__}, which can't be iterated over")
        try:
            if sizes is not None:
                sizes.append(len(iterable))
        except (TypeError, OverflowError):  # it has none, or none that fits into a machine's word
            sizes = None
    many = way == "starmap" or len(iterables) > 1
    items = zip(*iterables, strict=False) if len(iterables) > 1 else iterables[0]
    size = min(sizes) if sizes else None
    runner = one.runner or chosen.get() or _named(one)
    return RunGroup(one, runner, items, size, many=many, kwargs=kwargs, chunksize=chunksize)


def _remembering(one: Task[..., Any, Any]) -> dict[str, Any]:
    """The options that concern what a task remembers."""
    how = one._how if isinstance(one, _RememberingTask) else _FORGETTING
    return {**how, "cache": one.cache}


def _found_by_name(one: Task[..., Any]) -> Any:
    """What another interpreter finds by importing the task's module and following its qualified name; None if nothing."""
    module = sys.modules.get(one.__module__ or "")
    if module is None or one.__module__ == "__main__" or getattr(module, "__spec__", None) is None:
        return None
    found: Any = module
    for name in (getattr(one, "__qualname__", None) or "<none>").split("."):
        found = getattr(found, name, None)
    return found


def _by_name(module: str, qualname: str) -> Task[..., Any]:
    from importlib import import_module

    found: Any = import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found  # type: ignore[no-any-return]


def _variant(module: str, qualname: str, state: tuple[Any, ...]) -> Task[..., Any]:
    return _by_value(_by_name(module, qualname).fn, state)


def _by_value(fn: Callable[..., Any], state: tuple[Any, ...]) -> Task[..., Any]:
    name, retries, wait, retry_on, timeout, runner, how = state
    if isinstance(fn, Task):  # the function's own name leads to the task that was made of it
        fn = fn.fn
    kind = Task if how is None else _RememberingTask
    made: Task[..., Any] = _remember(kind(fn, name, Policy(retries, retry_on, wait), timeout, runner), how or {})
    return made


if TYPE_CHECKING:

    class _Decorator(Protocol):
        @overload
        def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R, Coroutine[Any, Any, R]]: ...
        @overload
        def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    fn: Callable[P, Coroutine[Any, Any, R]],
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_sleep_time: Wait = 0.0,
    retry_on: RetryOn = Exception,
    timeout: float | None = None,
    runner: Runner | None = None,
    cache: Cache = None,
    version: str | int | None = None,
    ignore: Iterable[str] = (),
    force: bool = False,
) -> Task[P, R, Coroutine[Any, Any, R]]: ...
@overload
def task(
    fn: Callable[P, R],
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_sleep_time: Wait = 0.0,
    retry_on: RetryOn = Exception,
    timeout: float | None = None,
    runner: Runner | None = None,
    cache: Cache = None,
    version: str | int | None = None,
    ignore: Iterable[str] = (),
    force: bool = False,
) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    retries: int = 0,
    retry_sleep_time: Wait = 0.0,
    retry_on: RetryOn = Exception,
    timeout: float | None = None,
    runner: Runner | None = None,
    cache: Cache = None,
    version: str | int | None = None,
    ignore: Iterable[str] = (),
    force: bool = False,
) -> _Decorator: ...
def task(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_sleep_time: Wait = 0.0,
    retry_on: RetryOn = Exception,
    timeout: float | None = None,
    runner: Runner | None = None,
    cache: Cache = None,
    version: str | int | None = None,
    ignore: Iterable[str] = (),
    force: bool = False,
) -> Any:
    """Make a task of a function: `@task`, or `@task(retries=2, …)`.

    Also for methods, classmethods, `functools.partial` objects and coroutine functions.

    Args:
        fn: the function, where the decorator is bare.
        name: the task's name; the function's by default.
        retries: attempts after the first one at most, whatever ended it: an exception in `retry_on`, a time-out, a dead worker.
        retry_sleep_time: the pause before each further attempt: seconds, or a tenacity wait strategy.
        retry_on: the exception class (or a tuple of them) that deserves another attempt.
        timeout: seconds each attempt may take, from its start; pauses and waiting for a slot or for inputs don't count.
        runner: the class of TaskRun that carries it out. Nearest wins: `options(runner=…)`, this, `use(runner)`, the
            environment variable WOFLO_RUNNER, then a forked process (a coroutine function: an event loop).
        cache: remember results between sessions, by the arguments and by the code that they follow from: True (in
            `.woflo/` beside the project), a path, a mapping of str to bytes, or a Store. A call whose value is remembered
            returns a finished run.
        version: stands for the code: while it is the same, results are remembered whatever the code says.
        ignore: parameters that don't matter to the result.
        force: run although the result is remembered, and remember the new one; for `options(force=True)`.

    Raises:
        UsageError: an option has a bad value, or the function can't be a task.
    """
    options: dict[str, Any] = {
        "name": name,
        "retries": retries,
        "retry_sleep_time": retry_sleep_time,
        "retry_on": retry_on,
        "timeout": timeout,
        "runner": runner,
        "cache": cache,
        "version": version,
        "ignore": ignore,
        "force": force,
    }
    if fn is None:
        _check(options)
        return lambda fn: _make(fn, Task, **options)
    return _make(fn, Task, **options)


def _make(fn: Any, cls: Any, **options: Any) -> Any:
    inner = getattr(fn, "__func__", fn)  # of a classmethod or staticmethod
    if isinstance(fn, Task):
        raise UsageError(f"{fn.name} is a task already; change it with {fn.name}.options(…)")
    if not callable(inner) or isinstance(inner, BaseTaskRun):
        raise UsageError(f"@task needs a function, not {type(fn).__name__}: {fn!r:.80}")
    flags = _flags(fn)
    if flags & (_GENERATOR | _ASYNC_GENERATOR):
        raise UsageError(
            f"{_name_of(fn)} is a generator function; a task returns one value: return a list, or make a task of the parts"
        )
    _check(options)
    policy = Policy(options["retries"], options["retry_on"], options["retry_sleep_time"])
    timeout = options["timeout"]
    cache = options["cache"]
    remembers = cache is not None and cache is not False
    if remembers:
        _check_ignored(fn, options["ignore"])
        cls = _RememberingTask
    made = cls(
        fn, options["name"] or _name_of(fn), policy, None if timeout is None else float(timeout), options["runner"]
    )
    return _remember(made, options) if remembers else made


def _remember(one: Any, options: dict[str, Any]) -> Any:
    """Give a task that remembers its options."""
    if isinstance(one, _RememberingTask):
        how = {name: options[name] for name in ("version", "ignore", "force")}
        vars(one).update(cache=options["cache"], _how=how, _kept=[])
    return one


def _check_ignored(fn: Any, ignore: Any) -> None:
    """Raise UsageError if a parameter is to be ignored that the function doesn't have."""
    if ignore:
        import inspect

        known = inspect.signature(getattr(fn, "__func__", fn)).parameters
        unknown = [name for name in ignore if name not in known]
        if unknown:
            raise UsageError(
                f"ignore names no parameter of {_name_of(fn)}: {', '.join(map(repr, unknown))}; there are {', '.join(known)}"
            )


def _check(options: dict[str, Any]) -> None:
    """Raise one UsageError that names every bad option."""
    wrong = []
    name, retries, wait, retry_on, timeout, runner = (
        options[key] for key in ("name", "retries", "retry_sleep_time", "retry_on", "timeout", "runner")
    )
    if name is not None and (not isinstance(name, str) or not name):
        wrong.append(f"name must be a text that is not empty, not {name!r}")
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        wrong.append(f"retries must be a whole number from 0 up, not {retries!r}")
    if not callable(wait) and not _is_seconds(wait, smallest=0.0):
        wrong.append(f"retry_sleep_time must be seconds from 0 up, or a tenacity wait strategy, not {wait!r}")
    if isinstance(wait, type):
        wrong.append(f"retry_sleep_time must be an object, not the class {wait.__name__}: call it")
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        wrong.append(f"retry_on must be an exception class or a tuple of them, not {retry_on!r}")
    if timeout is not None and not (_is_seconds(timeout, smallest=0.0) and timeout > 0):
        wrong.append(f"timeout must be seconds above 0, or None, not {timeout!r}")
    if runner is not None and not _is_runner(runner):
        wrong.append(f"runner must be a class of TaskRun, not {runner!r}")
    wrong += _wrong_memory(options)
    if wrong:
        raise UsageError("; ".join(wrong))


def _wrong_memory(options: dict[str, Any]) -> list[str]:
    """What is wrong with the options that concern what is remembered."""
    wrong = []
    cache, version, ignore, force = (options[key] for key in ("cache", "version", "ignore", "force"))
    if isinstance(cache, (int, float, bytes)) and not isinstance(cache, bool):
        wrong.append(f"cache must be True, a path, a mapping of str to bytes, or a Store, not {cache!r}")
    if version is not None and (not isinstance(version, (str, int)) or isinstance(version, bool)):
        wrong.append(f"version must be a text or a whole number, not {version!r}")
    if isinstance(ignore, str) or not all(isinstance(name, str) for name in ignore):
        wrong.append(f"ignore must be a list of parameters' names, not {ignore!r}")
    if not isinstance(force, bool):
        wrong.append(f"force must be True or False, not {force!r}")
    if cache in (None, False) and (version is not None or ignore or force):
        wrong.append("version, ignore and force concern what is remembered: give cache=True as well")
    return wrong


def _is_runner(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseTaskRun) and value is not BaseTaskRun


def _is_seconds(value: object, smallest: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and smallest <= value < float("inf")


def _name_of(fn: Any) -> str:
    for _ in range(_NESTED):  # partials; a Mock has a `func` for ever
        inner = getattr(fn, "func", None)
        if inner is None or hasattr(fn, "__name__"):
            break
        fn = inner
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) else type(fn).__name__


def _flags(fn: Any) -> int:
    """The code flags of the function under partials, methods and callable objects; 0 if there is no Python code."""
    for _ in range(_NESTED):
        code = getattr(fn, "__code__", None)
        if code is not None:
            return int(code.co_flags)
        inner = getattr(fn, "__func__", None) or (getattr(fn, "func", None) if not hasattr(fn, "__name__") else None)
        if inner is None and not isinstance(fn, type):
            inner = vars(type(fn)).get("__call__")
            inner = inner if hasattr(inner, "__code__") else None
        if inner is None:
            return 0
        fn = inner
    return 0


def _close(name: str, known: Any) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _named(one: Task[..., Any]) -> Runner:
    """Where a task runs that doesn't say it itself and no `use` does: WOFLO_RUNNER, else the usual place.

    Raises:
        UsageError: WOFLO_RUNNER names no runner.
    """
    from woflo import runners

    key = _environ.get(_NAME) or one._usual
    found: Runner | None = _made.get(key)
    if found is not None:
        return found
    name = os.fsdecode(key)
    if name == "process":
        found = runners.MultiprocessTaskRun
    elif name not in _RUNNERS:
        raise UsageError(
            f"WOFLO_RUNNER={name!r} names no runner{_close(name, _RUNNERS)}; there are {', '.join(_RUNNERS)}"
        )
    elif name in {"fork", "spawn"}:
        kind = runners.ForkProcess if name == "fork" else runners.SpawnProcess
        found = runners.MultiprocessTaskRun.using(process_type=kind)
    else:
        found = getattr(runners, _RUNNERS[name])
    _made[key] = found
    return found


# The dict behind `os.environ`, bytes to bytes: asking itself costs 0.6 µs, more than everything else about a call.
_environ: Any = getattr(os.environ, "_data", os.environ) if os.name == "posix" else os.environ
_NAME: Any = "WOFLO_RUNNER" if _environ is os.environ else b"WOFLO_RUNNER"


def use(runner: Runner) -> _Use:
    """Have tasks called in a `with` block run on `runner`, unless they say otherwise.

    It is a context variable: runs in threads and coroutines inherit it, worker processes don't.

    Raises:
        UsageError: `runner` is no class of TaskRun.
    """
    if not _is_runner(runner):
        raise UsageError(f"use() needs a class of TaskRun, not {runner!r}")
    return _Use(runner)


class _Use:
    """The block of `with use(runner)`; may be nested and entered again."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._tokens: list[Any] = []

    def __enter__(self) -> Runner:
        self._tokens.append(chosen.set(self._runner))
        return self._runner

    def __exit__(self, *_: object) -> None:
        chosen.reset(self._tokens.pop())


def ref(run: BaseTaskRun[T]) -> T:
    """The run itself, typed as its value: type checkers accept `total(ref(load(3)))`."""
    return run  # type: ignore[return-value]


if TYPE_CHECKING:
    _Methods = Concatenate[S, P]
