"""Invocation: a task and all that it needs, with values for their options. Carried out, planned, fingerprinted.

Everything about it has been checked before (`_meanings`). Where it runs and what is kept is said now, to a `_build`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from woflo._bound_task import BoundTask, Shelves, flat
from woflo._build import Build
from woflo._rebuild import Decision
from woflo.errors import UsageError
from woflo.graph import Graph, Node
from woflo.options import close, shown
from woflo.result import DependencyFailure, Failure, Ok
from woflo.task import _is_runner

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping, Sequence
    from os import PathLike

    from woflo._build import Step
    from woflo.result import Result
    from woflo.runners.base import BaseTaskRun
    from woflo.store import Store

    Storage = Store | MutableMapping[str, bytes] | str | PathLike[str] | bool
    Runner = type[BaseTaskRun[Any]]

__all__ = ["Invocation", "PlannedTask"]

R = TypeVar("R")


class Invocation(Generic[R]):
    """A task and all that it needs, with a value for each of their options.

    Made by `env.invoke`. What is defined, replaced or overridden in the Env later doesn't change it. It may be run any number
    of times.

    Attributes:
        target: the name of the task that is wanted.
        graph: what will be carried out, to be asked; an `Engine` can drive it as it is.
    """

    __module__ = "woflo.env"  # where its users find it
    _is_product = True  # for whoever takes it for a value

    target: str
    graph: Graph

    def __init__(self, target: str, calls: Sequence[BoundTask]) -> None:
        self.target = target
        self._calls = {one.definition.name: one for one in calls}
        self.graph = Graph([Node(one.definition.name, one, one.definition.requires) for one in calls])

    @property
    def values(self) -> Mapping[str, Any]:
        """The value of each option, defaults included, by `"task.option"`."""
        return MappingProxyType(
            {f"{task}.{name}": value for task, one in self._calls.items() for name, value in one.options.items()}
        )

    def run(
        self,
        *,
        runner: Runner | Mapping[str, Runner] | None = None,
        store: Storage | Mapping[str, Storage] | None = None,
        force: Iterable[str] | bool = (),
    ) -> R:
        """Carry it out, block until it has ended, and return the target's product.

        Tasks that don't need each other run at the same time, each where its runner says. A product is
        dropped when the last task that needs it has it. The first failure stops the others.

        Args:
            runner: where tasks run: a class of TaskRun for all of them, or some by name; the others where a woflo Task would
                (`use`, WOFLO_RUNNER, a forked process; coroutine functions on an event loop).
            store: where products are kept, and found again instead of being made: True (the default place), a path, a mapping
                of names to bytes, a Store, or some of these by task; what the others make isn't kept. None: nowhere, and nothing
                is written or digested.
            force: tasks that run whatever is kept; True: all.

        Raises:
            UsageError: `runner` or `store` is none, or names a task that is not part of this.
            StoreError: the store can't be used.
            Exception: what the `get_result` of the task that failed would raise: its own exception, or a Failure. A task
                whose product is not of its type ends in a TaskFailure.
        """
        build = self._build(runner, self._shelves(store), force)
        return cast("R", build.make([self.target])[self.target].value)

    def outcomes(
        self,
        *names: str,
        runner: Runner | Mapping[str, Runner] | None = None,
        store: Storage | Mapping[str, Storage] | None = None,
        force: Iterable[str] | bool = (),
    ) -> dict[str, Result[Any]]:
        """Carry it out, and tell what tasks ended in, by name: `Ok(product)` or a Failure.

        What doesn't need a task that failed runs all the same; what does ends in a DependencyFailure.

        Args:
            names: which tasks; they, and what they need, are run. Nothing: all of them. Their products stay in memory.
            runner: as in `run`.
            store: as in `run`.
            force: as in `run`.

        Raises:
            UsageError: as `run`, or a name is not part of this.
            StoreError: the store can't be used.
        """
        for name in names:
            self._check_name(name, "")
        wanted = names or tuple(self._calls)
        failures: dict[str, Failure] = {}
        there: set[str] = set()

        def note(what: str, step: Step, detail: Any) -> None:
            if what == "failed":
                failures[step.name] = detail
            elif what != "started":
                there.add(step.name)

        build = self._build(runner, self._shelves(store), force, keep_going=True, tell=note)
        try:
            products = build.make(wanted)
        except Exception:
            if not failures:
                raise
            for name, one in self._calls.items():
                causes = {need: failures[need] for need in one.definition.requires if need in failures}
                if causes and name not in there and name not in failures:
                    failures[name] = DependencyFailure(causes, task=name, run=name)
            products = build.make([name for name in wanted if name not in failures])  # all made: nothing runs again
        return {name: failures[name] if name in failures else Ok(products[name].value) for name in wanted}

    def plan(
        self, store: Storage | Mapping[str, Storage] | None = None, *, force: Iterable[str] | bool = ()
    ) -> list[PlannedTask]:
        """What `run` would run, each task after what it needs, and why; nothing runs, no product is loaded.

        Raises:
            UsageError: as `run`.
            StoreError: the store can't be used.
        """
        shelves = self._shelves(store)
        planned = self._build(None, shelves, force).plan([self.target])
        undecided = Decision(False, "first run") if shelves is None else None
        found = []
        for one in planned:
            if one.runs:
                seconds = one.seconds
                if seconds is None and shelves is not None:
                    seconds = shelves.last_seconds(one.step)
                found.append(PlannedTask(one.step.name, one.decision or undecided, seconds))
        return found

    def fingerprint(self) -> str:
        """What the target's product follows from: the code of all tasks and the values of their options; hex digits.

        The same in every process, until some of it changes. Where and when it runs don't count.

        Raises:
            UsageError: the value of an option can't be digested; which, and which part of it.
        """
        from woflo._fingerprint import Undigestible, cache_key

        parts = ["invocation", self.target]
        for name, one in self._calls.items():
            try:
                code, _, options = one.identity()
            except Undigestible as error:
                raise UsageError(f"{self!r} has no fingerprint: {error}") from error
            parts += [name, code, str(len(options)), *flat(options), str(len(one.definition.requires))]
            parts += one.definition.requires
        return cache_key(*parts)

    def _build(
        self,
        runner: Runner | Mapping[str, Runner] | None,
        shelves: Shelves | None,
        force: Iterable[str] | bool,
        **how: Any,
    ) -> Build:
        by_name = runner if isinstance(runner, Mapping) else dict.fromkeys(self._calls, runner)
        for name, where in by_name.items():
            self._check_name(name, "runner: ")
            if where is not None and not _is_runner(where):
                raise UsageError(f"runner is a class of TaskRun, or a dict of them by task, not {shown(where)}")
        forced = (self._calls if force else ()) if isinstance(force, bool) else _names("force", force)
        for name in forced:
            self._check_name(name, "force: ")
        steps = [one.step(by_name.get(name), shelves) for name, one in self._calls.items()]
        return Build(steps, shelves, force=frozenset(forced), **how)

    def _shelves(self, store: Storage | Mapping[str, Storage] | None) -> Shelves | None:
        if store is None:
            return None
        from woflo._shelf import StoreShelf
        from woflo.store import Store

        if type(store) is dict and store and not any("/" in str(name) for name in store):  # no store has such names
            places = {name: None if one is None else Store.of(one) for name, one in store.items()}
            for name in places:
                self._check_name(name, "store: ")
        else:
            places = dict.fromkeys(self._calls, Store.of(cast("Storage", store)))
        return Shelves(
            {
                name: StoreShelf(place, str(one.__module__), one._told)
                for name, place in places.items()
                if place is not None
                for one in [self._calls[name].definition]
            }
        )

    def _check_name(self, name: str, what: str) -> None:
        if name not in self._calls:
            raise UsageError(f"{what}{name!r} is not part of this invocation{close(name, self._calls)}")

    def __repr__(self) -> str:
        count = len(self._calls)
        return f"<Invocation of {self.target}: {count} task{'s' * (count != 1)}>"


class PlannedTask:
    """A task that would run.

    Attributes:
        task: its name.
        why: why it would run.
        seconds: how long it took last time; None: unknown.
    """

    __module__ = "woflo.env"  # where its users find it
    __slots__ = ("seconds", "task", "why")
    task: str
    why: str
    seconds: float | None

    def __init__(self, task: str, decision: Decision | None, seconds: float | None) -> None:
        self.task = task
        self.why = "that depends on what its inputs turn out to be" if decision is None else str(decision)
        self.seconds = seconds

    def __repr__(self) -> str:
        took = "" if self.seconds is None else f" (took {self.seconds:.3g} s)"
        return f"{self.task}: {self.why}{took}"


def _names(what: str, given: Any) -> list[str]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise UsageError(f"{what} is a list of tasks, or True, not {shown(given)}")
    return list(given)
