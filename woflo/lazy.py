"""Lazy, LazyDB, Phony: what is made when somebody asks for it, once.

    db.run(target) ─→ LazyDB.index ─→ Lazy ─┐
    Lazy.of(task, …).compute(), await ──────┴→ a Node of `engine`, which decides order, runs, and tells what it ended in

A face: this file says which node a Lazy is, and keeps on the Lazy what it ended in. Neither locks nor recursion are here;
`engine` knows nothing of Lazies.

Rule 1: what a Lazy ended in is written in `_ended` and `reset` only; what was stopped has not ended.
Rule 2: Lazies are compared by their fields, so the engine knows each by a target that is its own (`_own`).
Rule 3: a Lazy is made by one engine at a time (`_claim`): by two it would run twice.
"""

from __future__ import annotations

from _thread import allocate_lock
from dataclasses import dataclass, field, fields
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import ReferenceType, WeakKeyDictionary, ref

from woflo.engine import Engine, refuse_own_loop, was_stopped
from woflo.errors import CyclicWorkflowError, UsageError, WaitTimeout
from woflo.graph import Node
from woflo.result import DependencyFailure, Failure, MissingFailure, Ok, Result, TaskFailure
from woflo.runners import _inputs, _process, _waiters
from woflo.runners.base import BaseTaskRun
from woflo.task import Task

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Generator, Hashable

__all__ = [
    "CyclicWorkflowError",
    "DependencyFailure",
    "Failure",
    "Lazy",
    "LazyDB",
    "MissingDependency",
    "MissingFailure",
    "Ok",
    "Phony",
    "Result",
    "TaskFailure",
    "compute",
]

T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V")

_claiming = allocate_lock()  # held while a Lazy or a loop gets its engine


class MissingDependency(Exception):  # noqa: N818 - the seed's name
    """Raised by `on_missing`: nothing produces the target."""


@dataclass
class Phony:
    """A target that is a name only, no product: written `#name`."""

    name: str

    @classmethod
    def from_str(cls, s: str) -> Phony:
        """Read `#name`.

        Raises:
            ValueError: it doesn't begin with `#`.
        """
        if s.startswith("#"):
            return cls(s[1:])
        raise ValueError(f"A phony target should start with a `#` character, and {s!r} doesn't.")

    def __str__(self) -> str:
        return f"#{self.name}"

    def __hash__(self) -> int:
        return hash(str(self))


class _Own:
    """The target that is a Lazy's own, whatever others lead to it."""

    __slots__ = ("lazy",)

    def __init__(self, lazy: Lazy[Any, Any]) -> None:
        self.lazy = lazy

    def __str__(self) -> str:
        return ", ".join(map(str, self.lazy.creates)) or type(self.lazy).__name__


@dataclass
class Lazy(Generic[T, R]):
    """What makes targets of type `T` (names, paths) from others, and has one value of type `R`.

    Subclasses write `async def run(self, **kwargs)`, which returns the value or raises. A value that is a Lazy itself is
    followed: its value counts. True once it has succeeded.

    Attributes:
        creates: the targets that it makes.
        requires: the targets that must have been made before; read each time it is wanted.
    """

    creates: list[T]
    requires: list[T]

    _result: Result[R] | None = field(default=None, init=False, repr=False, compare=False)
    _own: _Own | None = field(default=None, init=False, repr=False, compare=False)
    _claim: ReferenceType[_LazyEngine] | None = field(default=None, init=False, repr=False, compare=False)

    _is_lazy = True

    @staticmethod
    def of(task: Task[..., V, Any], /, *args: Any, **kwargs: Any) -> Lazy[Any, V]:
        """A Lazy whose value a task makes; nothing runs until it is asked for.

        Lazies among the arguments, also in lists, tuples, dicts, sets and dataclasses, are made first, and their values are
        passed. It runs where the task runs, with the task's retries and time-out.

        >>> from woflo.runners import SequentialTaskRun
        >>> from woflo import task
        >>> add = task(lambda a, b: a + b, runner=SequentialTaskRun)
        >>> two = Lazy.of(add, 1, 1)
        >>> Lazy.of(add, two, b=two).compute()
        4

        Raises:
            UsageError: `task` is no Task.
        """
        return _Call(task, args, kwargs)

    @property
    def real_requirements(self) -> list[T]:
        """What it requires, without the phony targets."""
        return [one for one in self.requires if not isinstance(one, Phony)]

    def __bool__(self) -> bool:
        return bool(_known(self))

    @property
    def result(self) -> R:
        """The value.

        Raises:
            ValueError: it has not run, or has failed.
        """
        known = _known(self)
        if known is None:
            raise ValueError("Task has not run yet.")
        if isinstance(known, Ok):
            return cast("R", known.value)
        raise ValueError("Task has failed.") from known

    async def run(self, *args: Any, **kwargs: Any) -> R:
        """Make the value; what `LazyDB.run` was given comes as keywords.

        A subclass names those that it wants: `async def run(self, *, db)`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run()")

    def reset(self) -> None:
        """Forget what it ended in: it runs again when it is wanted."""
        self._result = None

    def fields(self) -> dict[str, Any]:
        """The dataclass's fields by name, but for those that begin with an underscore."""
        return {one.name: getattr(self, one.name) for one in fields(self) if not one.name.startswith("_")}

    def compute(self, timeout: float | None = None) -> R:
        """Make the value and all that it needs, unless that was done before; block until it is there.

        Raises:
            WaitTimeout: `timeout` seconds have passed; what had not ended was stopped.
            Exception: what a TaskRun's `get_result` would raise.
        """
        return cast("R", compute(self, timeout=timeout)[0])

    def __await__(self) -> Generator[Any, None, R]:
        """`compute` on an event loop. What several await at once is made once; it is stopped when nobody awaits it."""
        return self._made_here().__await__()

    async def _made_here(self) -> R:
        result = _known(self)
        if result is None:
            engine = _engine_here()
            try:
                (result,) = await engine.co_outcomes(_target(self))
            finally:
                engine.rest()
        return cast("R", _value(result))

    def _node(self, target: Hashable, engine: _LazyEngine) -> Node:
        """What it is to the engine that found it by a target."""
        index = engine.index
        names = [target, *(one for one in self.creates if index.get(one) is self), _target(self)]
        return Node(list(dict.fromkeys(names)), _Run(self, engine.kwargs).carry_out, after=tuple(self.requires))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_own": None, "_claim": None}


class _Call(Lazy[Any, R]):
    """A Lazy made by `Lazy.of`: a node whose call it is itself, in the place of its task."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, task: Task[..., R, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not isinstance(task, Task):
            raise UsageError(f"Lazy.of needs a task, not {type(task).__name__}: make one with @task")
        self.creates = []
        self._task = task
        self._args = args
        self._kwargs = kwargs
        others = [one for one in args if one.__class__ not in _inputs.PLAIN]
        self._flat = not kwargs and all(map(_is_call, others))  # Lazies stand among the arguments themselves only
        self._runs: list[BaseTaskRun[Any]] = [] if self._flat else _inputs.find(args, kwargs)
        found = dict.fromkeys(others) if self._flat else _inputs.find(args, kwargs, _inputs.LAZY)
        self._inner: tuple[Lazy[Any, Any], ...] = tuple(found)
        self.requires = list(map(_target, self._inner))

    def __repr__(self) -> str:
        return f"<Lazy {self._task.name}>"

    def __str__(self) -> str:
        return self._task.name

    async def run(self, **_: Any) -> R:
        return await self

    def _node(self, target: Hashable, engine: _LazyEngine) -> Node:  # noqa: ARG002 - as Lazy's
        return Node([self], self, tuple(map(_target, self._inner)))

    # what a Task is to a drive

    def _where(self, default: type[BaseTaskRun[Any]] | None) -> type[BaseTaskRun[Any]]:
        return self._task._where(default)

    def _submit(self, values: tuple[Any, ...], runner: type[BaseTaskRun[Any]]) -> BaseTaskRun[R]:
        args, kwargs = self._args, self._kwargs
        if values:
            by_id: dict[int, Any] = dict(zip(map(id, self._inner), values, strict=True))
            if self._flat:
                args = tuple([by_id.get(id(one), one) for one in args])
            else:
                args, kwargs = _inputs.substitute(args, kwargs, lambda one: by_id[id(one)], _inputs.LAZY)
        return runner.submit(self._task, args, kwargs, self._runs)

    def __call__(self, *values: Any) -> BaseTaskRun[R]:
        return self._submit(values, self._where(None))


def _is_call(one: object) -> bool:
    return one.__class__ is _Call


class _Run:
    """A Lazy's `run` with the keywords of whoever wanted it first."""

    __slots__ = ("kwargs", "lazy")

    def __init__(self, lazy: Lazy[Any, Any], kwargs: dict[str, Any]) -> None:
        self.lazy = lazy
        self.kwargs = kwargs

    async def carry_out(self) -> Any:
        return await self.lazy.run(**self.kwargs)


def _target(lazy: Lazy[Any, Any]) -> Hashable:
    """The target that is the Lazy's own."""
    if isinstance(lazy, _Call):
        return lazy
    own = lazy._own
    if own is None:
        with _claiming:
            own = lazy._own = lazy._own or _Own(lazy)
    return own


def _known(lazy: Lazy[Any, Any]) -> Result[Any] | None:
    """What a Lazy ended in, or the Lazy that it returned; None if it has not."""
    known = lazy._result
    while isinstance(known, Ok) and isinstance(known.value, Lazy):
        known = known.value._result
    return known


TaskT = TypeVar("TaskT", bound=Lazy[Any, Any])


@dataclass
class LazyDB(Generic[T, TaskT]):
    """Lazies, and the targets that they make.

    Attributes:
        tasks: all that were added.
        index: who makes a target.
    """

    tasks: list[TaskT] = field(default_factory=list)
    index: dict[T, TaskT] = field(default_factory=dict)

    async def run(self, t: T, **kwargs: Any) -> Result[Any]:
        """Make a target and all that it needs, unless that was done before; returns what it ended in.

        May be called many times at once on one event loop: each Lazy runs once, with the keywords of whoever wanted it
        first. It is stopped when the last who waits for it is cancelled.

        Args:
            t: the target.
            kwargs: handed to each Lazy's `run`.

        Raises:
            CyclicWorkflowError: what it needs needs itself; nothing was started.
            UsageError: this LazyDB is at work on another event loop.
        """
        lazy = self.index.get(t)
        known = None if lazy is None else _known(lazy)
        if known is not None:
            return known
        engine = self._engine
        if engine is None or engine.mark is not _process.mark:
            engine = self._engine = _LazyEngine(self)
        engine.open(kwargs)
        try:
            (result,) = await engine.co_outcomes(t)
        finally:
            engine.rest()
        return result

    def on_missing(self, t: T) -> TaskT:  # noqa: ARG002 - for subclasses
        """Who makes a target that nobody makes; asked each time it is wanted.

        Raises:
            MissingDependency: nobody; the target ends in a MissingFailure.
        """
        raise MissingDependency

    def add(self, task: TaskT) -> None:
        """Add a Lazy.

        Raises:
            UsageError: another one makes one of its targets.
        """
        index = self.index
        for target in task.creates:
            other = index.get(target)
            if other is not None and other is not task:
                raise UsageError(f"{str(target)!r} is made by another task already: a target has one producer")
        if not any(target in index for target in task.creates):
            self.tasks.append(task)
        for target in task.creates:
            index[target] = task

    def clean(self) -> None:
        """Forget all Lazies."""
        self.tasks = []
        self.index = {}

    def reset(self) -> None:
        """Forget what the Lazies ended in."""
        for one in self.tasks:
            one.reset()

    _engine = cast("_LazyEngine | None", None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_engine"}


class _LazyEngine(Engine):
    """An engine of Lazies: of a LazyDB's, or of some that were made by `Lazy.of`."""

    def __init__(self, db: LazyDB[Any, Any] | None) -> None:
        super().__init__(())
        self.graph = _Targets(self)
        self._memo = _Results()
        self._settings.follow = self._follow
        self._settings.ended = _ended
        self._db = db
        self.mark = _process.mark
        self.me = ref(self)
        self.kwargs: dict[str, Any] = {}  # of whoever wants something now
        self.made: dict[Hashable, Lazy[Any, Any] | None] = {}  # by `on_missing`, while this engine is at work

    @property
    def index(self) -> dict[Any, Any]:
        return {} if self._db is None else self._db.index

    def open(self, kwargs: dict[str, Any]) -> None:
        """Somebody on the running loop is about to want something."""
        from asyncio import get_running_loop

        driver = self._driver
        if driver is None or driver.drive.loop is not get_running_loop():
            try:
                self._check_idle()
            except UsageError:
                raise UsageError("this LazyDB is at work on another event loop; wait until that has ended") from None
            self.made.clear()
        self.kwargs = kwargs

    def rest(self) -> None:
        """Somebody has what they waited for; if they were the last, keep nothing: the Lazies have their results."""
        if not self._working:
            self._drive = None
            self.made.clear()

    def find(self, target: Hashable) -> Lazy[Any, Any] | None:
        """The Lazy behind a target; None if there is none."""
        if isinstance(target, _Own):
            return target.lazy
        if isinstance(target, _Call):
            return target
        if self._db is None:
            return None
        found: Lazy[Any, Any] | None = self._db.index.get(target)
        if found is None and (found := self.made.get(target)) is None:
            try:
                found = self.made[target] = self._db.on_missing(target)
            except MissingDependency:
                return None
        return found

    def claim(self, lazy: Lazy[Any, Any]) -> None:
        """Take a Lazy that has not ended for this engine.

        Raises:
            UsageError: another one is at work on it.
        """
        with _claiming:
            other = None if lazy._claim is None else lazy._claim()
            if other is not None and other is not self and other._is_at_work():
                raise UsageError(
                    f"{_target(lazy)} is being made already, in another thread, event loop or LazyDB; wait until that has ended"
                )
            lazy._claim = self.me

    def _follow(self, node: Node, value: object) -> Hashable:
        if not isinstance(value, Lazy):
            return None
        call: Any = node.call
        self.kwargs = {} if isinstance(call, _Call) else call.__self__.kwargs
        return _target(value)


class _Targets:
    """What an engine asks for the nodes of targets."""

    def __init__(self, engine: _LazyEngine) -> None:
        self._engine = ref(engine)

    def get(self, target: Hashable, /) -> Node:
        engine = cast("_LazyEngine", self._engine())
        lazy = engine.find(target)
        if lazy is None:
            return Node([target])
        if lazy._result is None:
            engine.claim(lazy)
        return lazy._node(target, engine)


class _Results:
    """What an engine asks for what nodes ended in before."""

    def get(self, node: Node, /) -> Result[Any] | None:
        lazy = _lazy(node)
        return MissingFailure(node.target) if lazy is None else lazy._result


def _lazy(node: Node) -> Lazy[Any, Any] | None:
    """The Lazy that a node is of; None: its target is missing."""
    call: Any = node.call
    if call is None or isinstance(call, _Call):
        return call
    return cast("Lazy[Any, Any]", call.__self__.lazy)


def _ended(node: Node, result: Result[Any]) -> None:
    """A node has ended: keep that on its Lazy."""
    lazy = _lazy(node)
    if lazy is None or (isinstance(result, Failure) and was_stopped(result)):
        return
    if lazy._result is None or isinstance(result.__cause__ if not result else None, CyclicWorkflowError):
        lazy._result = result


_engines: WeakKeyDictionary[AbstractEventLoop, _LazyEngine] = WeakKeyDictionary()  # of what is awaited


def _engine_here() -> _LazyEngine:
    from asyncio import get_running_loop

    loop = get_running_loop()
    with _claiming:
        engine = _engines.get(loop)
        if engine is None:
            engine = _engines[loop] = _LazyEngine(None)
        return engine


def compute(*lazies: Lazy[Any, Any], timeout: float | None = None) -> list[Any]:
    """Make several Lazies and all that they need, each once; block until their values are there.

    Args:
        lazies: whose values are wanted; those that are there already are not made again.
        timeout: seconds; then what has not ended is stopped.

    Raises:
        WaitTimeout: `timeout` seconds have passed.
        UsageError: another thread or event loop is at work on one of them, or this is woflo's own event loop.
        Exception: for the first of them that failed, what a TaskRun's `get_result` would raise.
    """
    for one in lazies:
        if not isinstance(one, Lazy):
            raise UsageError(f"compute() takes Lazies, not {type(one).__name__}")
    deadline = _waiters.deadline(timeout)
    known = [_known(one) for one in lazies]
    wanted = {_target(one) for one, result in zip(lazies, known, strict=True) if result is None}
    if wanted:
        refuse_own_loop("compute()", "the Lazy")
        engine = _LazyEngine(None)
        engine.orchestrate(*wanted, timeout=timeout)
        for place, one in enumerate(lazies):
            result = _known(one)
            if result is None:
                if deadline is not None and monotonic() >= deadline:
                    raise WaitTimeout(str(_target(one)), cast("float", timeout), "it was stopped")
                result = engine.outcome(_target(one))
            known[place] = result
    return [_value(cast("Result[Any]", result)) for result in known]


def _value(result: Result[Any]) -> Any:
    if isinstance(result, Failure):
        raise BaseTaskRun._error(result)
    return result.value
