"""Env: definitions of tasks and types, kept together so that they can be asked for, replaced and carried out.

    definition    env.type, env.task      what there is to do, and what it can be told
    invocation    env.invoke(...)         values for the options: everything is checked, nothing runs
    execution     invocation.run(...)     where it runs, and what is kept (`_invocation`)

A face: a task that is carried out is a node of `engine` like any other.

Rule 1: a task's dependencies are tasks that are defined already; it can set none of their options.
Rule 2: an Env only gains definitions (in a notebook, later versions of them). What takes the place of one is seen by whoever
    asked for that (`override`), or by another Env (`replace`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from woflo._definition import Definition, Site, base_of, make, match, match_stand_in, name_of, parameters_of, place_of
from woflo._invocation import Invocation, PlannedTask
from woflo._meanings import check, inside_of
from woflo.errors import UsageError
from woflo.graph import Graph, Node
from woflo.options import Option, Type, close, complaint, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Never, Protocol, Self

    from woflo.runners.base import BaseTaskRun
    from woflo.task import Task

    P = ParamSpec("P")
    R = TypeVar("R")

    class _TaskDecorator(Protocol):
        """Makes a definition of a function or a Task."""

        @overload
        def __call__(self, fn: Task[P, R, Any], /) -> Definition[P, R, BaseTaskRun[R]]: ...
        @overload
        def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Definition[P, R, Coroutine[Any, Any, R]]: ...
        @overload
        def __call__(self, fn: Callable[P, R], /) -> Definition[P, R, R]: ...

    AnyDefinition = Definition[..., Any, Any]

__all__ = ["Definition", "Env", "Invocation", "Option", "PlannedTask", "Type"]

# What takes the place of definitions for now: each with its Env, the latest last. One variable for all Envs, because a context
# keeps every variable that was ever set in it.
_overrides: ContextVar[tuple[_Override, ...]] = ContextVar("woflo.overrides", default=())


class Env:
    """Tasks and types by name: what there is to do, apart from any values.

    >>> env = Env()
    >>> count = env.type("count", lambda value: isinstance(value, int) and value >= 0)
    >>> @env.task(options={"n": Option(count, default=3)}, product=count)
    ... def load(n):
    ...     return 2 * n
    >>> @env.task(requires=["load"], product=count)
    ... def total(load):
    ...     return load + 1
    >>> from woflo.runners import SequentialTaskRun
    >>> env.invoke("total", n=20).run(runner=SequentialTaskRun)
    41
    """

    def __init__(self) -> None:
        """Make an Env without tasks and types."""
        self._tasks: dict[str, AnyDefinition] = {}
        self._types: dict[str, Type] = {}
        self._sites: dict[str, Site] = {}  # of the types

    # ------------------------------------------------------------------ defining

    @overload
    def type(self, name: Type, /) -> Type: ...
    @overload
    def type(self, name: str, predicate: Callable[[Any], object], parent: Type | None = None) -> Type: ...
    @overload
    def type(self, name: str, *, parent: Type | None = None) -> Callable[[Callable[[Any], object]], Type]: ...
    def type(self, name: Any, predicate: Any = None, parent: Any = None) -> Any:
        """Declare a type: `env.type("count", is_count)`, or `@env.type("count")` on the predicate.

        A Type that was made elsewhere, for instance by another Env, is declared by `env.type(it)`: then they share it.

        Args:
            name: its name, unique among the types of this Env.
            predicate: called with a value; true if the value is of this type.
            parent: a type of this Env, whose predicate is asked before.

        Raises:
            UsageError: the name is taken, the predicate is none, or the parent is no type of this Env.
        """
        site = Site(2)
        if isinstance(name, Type):
            return self._declare(name, site)
        if predicate is None:
            return lambda predicate: self._declare(Type(name, predicate, parent), site)
        return self._declare(Type(name, predicate, parent), site)

    def _declare(self, new: Type, site: Site) -> Type:
        if new.parent is not None:
            wrong = self._not_mine(new.parent)
            if wrong:
                raise UsageError(f"the parent of the type {new.name!r} ({site.text}) {wrong}")
        old = self._types.setdefault(new.name, new)
        if old is not new:
            before = self._sites.get(new.name)
            if before is None or not site.is_again(before):
                raise _second("the type", new.name, "?" if before is None else before.text, site.text)
            self._types[new.name] = new
        self._sites[new.name] = site
        return new

    def task(
        self,
        fn: None = None,
        /,
        *,
        product: Type,
        requires: Iterable[str | AnyDefinition] = (),
        options: Mapping[str, Option | Type] | None = None,
        name: str | None = None,
        **decided_later: Never,
    ) -> _TaskDecorator:
        """Define a task: `@env.task(requires=[…], options={…}, product=…)` on a function or a woflo Task.

        The function's parameters are matched by name: each is the product of a task that it requires, or an option.

        Args:
            fn: nothing; the function is what is decorated.
            product: the type of what the function returns.
            requires: tasks of this Env that are defined already, by name or as what `env.task` returned; the function is given
                their products, and can't set their options.
            options: what it can be told: an Option by name, or a Type where there is no default.
            name: the task's name, unique in this Env; the function's by default.
            decided_later: `runner=` and `store=` are refused: where a task runs, and what is kept of it, is decided when it is
                carried out.

        Raises:
            UsageError: names everything that is wrong with the definition, and its place.
        """
        site = Site(2)
        if fn is not None:
            raise UsageError("env.task(…) makes a decorator: @env.task(product=…) above the function")
        for keyword in decided_later:
            if keyword in {"runner", "store"}:
                raise UsageError(
                    f"{keyword}= is decided when a task is carried out, not when it is defined:"
                    f" env.invoke(…).run({keyword}=…)"
                )
            raise UsageError(f"env.task has no {keyword}={close(keyword, ['name', 'options', 'product', 'requires'])}")

        def define(fn: Any) -> Any:
            return self._define(fn, name, requires, options, product, site)

        return define

    def _define(
        self, fn: Any, name: str | None, requires: Any, options: Any, product: Any, site: Site
    ) -> AnyDefinition:
        base = base_of(fn)
        name = name_of(base) if name is None else name
        place = place_of(base, site)
        problems = (
            [] if _is_name(name) else [f"its name has to be a name of Python's, not {shown(name)}: give it name=…"]
        )
        needed = self._requires(requires, problems)
        known, all_named = self._options(options, needed, problems)
        wrong = self._not_mine(product)
        if wrong:
            problems.append(f"its product {wrong}")
        old = self._tasks.get(name) if isinstance(name, str) else None
        if old is not None and not site.is_again(old._site):
            problems.append(f"there is one of this name already, defined at {old.place}")
        parameters = parameters_of(base)
        problems += match(parameters, needed, known, all_named)
        if problems:
            raise complaint(f"task {name!r} ({place})" if isinstance(name, str) else f"a task ({place})", problems)
        new = make(base, parameters, name=name, requires=needed, options=known, product=product, site=site)
        if old is None:
            old = self._tasks.setdefault(name, new)
            if old is not new:  # another thread has just defined one
                raise _second("task", name, old.place, place)
        else:
            _check_order({**self._tasks, name: new})
            self._tasks[name] = new
        return new

    def _requires(self, given: Any, problems: list[str]) -> tuple[str, ...]:
        """The names of required tasks, also of those that there are not."""
        if isinstance(given, (str, Definition)):
            problems.append(f"requires is a list of tasks, not the single {shown(given)}: write [{shown(given)}]")
            return ()
        if isinstance(given, Mapping) or not hasattr(given, "__iter__"):
            problems.append(
                f"requires is a list of tasks, not {shown(given)}; a task can't set the options of those that it requires"
            )
            return ()
        names: list[str] = []
        for one in given:
            name = one.name if isinstance(one, Definition) else one
            if not isinstance(name, str):
                problems.append(
                    f"it requires {shown(one)}, which is no task; a task can't set the options of those that it requires"
                )
                continue
            if name in names:
                problems.append(f"it requires {name!r} twice")
                continue
            if name not in self._tasks:
                problems.append(f"it requires {name!r}, which is not defined yet{close(name, self._tasks)}")
            elif isinstance(one, Definition) and not _is_of(one, self._tasks):
                problems.append(f"it requires the {name!r} of another Env ({one.place})")
            names.append(name)
        return tuple(names)

    def _options(
        self, given: Any, requires: Iterable[str], problems: list[str]
    ) -> tuple[dict[str, Option], Iterable[object]]:
        """The options by name, and the names of all that were given."""
        if given is None:
            return {}, ()
        if not isinstance(given, Mapping):
            problems.append(f"options are given as a dict, Option by name, not as {shown(given)}")
            return {}, ()
        found: dict[str, Option] = {}
        for name, one in given.items():
            owner = name.partition(".")[0] if isinstance(name, str) else ""
            if owner != name and owner in requires:
                problems.append(
                    f"{name!r} is an option of {owner!r}: a task can't set the options of those that it requires"
                )
            elif not _is_name(name):
                problems.append(f"an option's name has to be a name of Python's, not {shown(name)}")
            elif name in requires:
                problems.append(f"{name!r} is required and an option: its parameter would be both")
            elif isinstance(one, Mapping):
                problems.append(f"options are flat: {name!r} is one Option, not several")
            else:
                option = Option(one) if isinstance(one, Type) else one
                wrong = self._not_mine(option.type if isinstance(option, Option) else one)
                if wrong:
                    problems.append(f"the type of its option {name!r} {wrong}")
                elif not option.is_required and (inside := inside_of(option.default)):
                    problems.append(f"the default of its option {name!r} {inside}")
                else:
                    found[name] = option
        return found, [*given]

    def _not_mine(self, given: Any) -> str:
        """What to say of something that is no type of this Env; empty if it is one."""
        if isinstance(given, Type):
            if self._types.get(given.name) is given:
                return ""
            return f"is {given!r}, which isn't declared in this Env: env.type(it) declares it here"
        if isinstance(given, Option):
            return f"is a Type, not {given!r}: types have no defaults"
        if isinstance(given, str):
            if given in self._types:
                return f"is a Type, not its name: env.types[{given!r}]"
            return f"is a Type, not {given!r}{close(given, self._types)}"
        return f"is {shown(given)}: types are declared in the Env, env.type(name, predicate), not in place"

    # ------------------------------------------------------------------ asking

    @property
    def tasks(self) -> Mapping[str, AnyDefinition]:
        """The definitions by name, in their order; as they are in effect here."""
        return MappingProxyType(self._in_effect())

    @property
    def types(self) -> Mapping[str, Type]:
        """The types by name."""
        return MappingProxyType(self._types)

    @property
    def graph(self) -> Graph:
        """What requires what, to be asked: a Graph of task names, each node's `call` being its definition.

        It is as things are in effect here and now; what is defined later is not in it.
        """
        return _graph(self._in_effect())

    def _in_effect(self) -> dict[str, AnyDefinition]:
        tasks = self._tasks
        for one in _overrides.get():
            if one.env is self:
                tasks = {**tasks, **one.tasks}
        return tasks

    def __woflo_digest__(self) -> tuple[Any, ...]:
        """What it is to code that names it."""
        return self._tasks, self._types

    def __repr__(self) -> str:
        tasks, types = len(self._tasks), len(self._types)
        return f"<Env of {tasks} task{'s' * (tasks != 1)} and {types} type{'s' * (types != 1)}>"

    # ------------------------------------------------------------------ replacing

    def copy(self) -> Env:
        """Another Env with the same definitions, as they are in effect here. Neither sees what is defined in the other."""
        other = Env()
        other._tasks.update(self._in_effect())
        other._types.update(self._types)
        other._sites.update(self._sites)
        return other

    @overload
    def replace(self, name: str | AnyDefinition, by: Callable[..., Any], /) -> Env: ...
    @overload
    def replace(self, name: Mapping[Any, Callable[..., Any]], /) -> Env: ...
    def replace(self, name: Any, by: Any = None, /) -> Env:
        """Another Env, in which something else stands in the place of a task, or of several: `replace({name: by, …})`.

        By a function or a Task: it has the options and the product's type of what it replaces. Its parameters say which of
        these options it is given, and the products of which tasks; with fewer of them it requires less, and what nobody
        requires any more doesn't run. By a definition, of this Env or another: it brings its own options.

        Raises:
            UsageError: there is no such task, the product's type is another, or a parameter is neither an option nor a task.
            CyclicWorkflowError: it would require itself.
        """
        other = self.copy()
        other._tasks.update(self._replacements(name, by, Site(2)))
        return other

    @overload
    def override(self, name: str | AnyDefinition, by: Callable[..., Any], /) -> _Override: ...
    @overload
    def override(self, name: Mapping[Any, Callable[..., Any]], /) -> _Override: ...
    def override(self, name: Any, by: Any = None, /) -> _Override:
        """`replace` for the time of a `with` block: `with env.override("download", lambda: rows): …`.

        It is seen by what the block calls: a context variable, so other threads don't see it, and asyncio tasks that are
        started in the block do. Blocks may be nested; the inner one wins. An Invocation keeps what it was made of.

        Raises:
            UsageError: as `replace`.
            CyclicWorkflowError: it would require itself.
        """
        return _Override(self, self._replacements(name, by, Site(2)))

    def _replacements(self, name: Any, by: Any, site: Site) -> dict[str, AnyDefinition]:
        tasks = self._in_effect()
        wanted = {name: by} if by is not None else name
        if not isinstance(wanted, Mapping):
            raise UsageError(f"what is to stand in the place of {shown(name)}? A function, a Task or a definition")
        found = {}
        for key, one in wanted.items():
            old = tasks[_name_in(key, tasks)]
            found[old.name] = self._stand_in(old, one, tasks, site)
        _check_order({**tasks, **found})
        return found

    def _stand_in(self, old: AnyDefinition, by: Any, tasks: Mapping[str, AnyDefinition], site: Site) -> AnyDefinition:
        if isinstance(by, Definition):
            problems = [
                f"it requires {name!r}, which is not defined here{close(name, tasks)}"
                for name in by.requires
                if name not in tasks
            ]
            problems += [
                f"the type of its option {name!r} {wrong}"
                for name, option in by.options.items()
                if (wrong := self._not_mine(option.type))
            ]
            if by.product is not old.product and by.product is not self._types.get(old.product.name):
                problems.append(f"its product is a {by.product.name!r}, and not the {old.product.name!r} of this Env")
            place = by.place
            new = by._renamed(old, site)
        else:
            base = base_of(by)
            place = place_of(base, site)
            requires, given, problems = match_stand_in(parameters_of(base), old, tasks)
            new = make(
                base,
                given,
                name=old.name,
                requires=requires,
                options=old.options,
                product=old.product,
                site=site,
                replaces=old,
            )
        if problems:
            raise complaint(f"what is to stand in the place of {old.name!r} ({place})", problems)
        return new

    # ------------------------------------------------------------------ invoking

    @overload
    def invoke(
        self, target: Definition[..., R, Any], values: Mapping[str, Any] | None = None, /, **more: Any
    ) -> Invocation[R]: ...
    @overload
    def invoke(self, target: str, values: Mapping[str, Any] | None = None, /, **more: Any) -> Invocation[Any]: ...
    def invoke(self, target: Any, values: Any = None, /, **more: Any) -> Invocation[Any]:
        """Give values to the options of a task and of all that it needs; nothing runs, everything is checked.

        Args:
            target: the task that is wanted.
            values: a value by `"task.option"`; by `"option"` alone where only one task of the invocation has it.
            more: the same, as keywords.

        Raises:
            UsageError: names everything that is wrong: options that are missing, unknown or meant for several tasks, values
                that their type's predicate refuses.
        """
        tasks = self._in_effect()
        return check(_name_in(target, tasks), tasks, values, more)


class _Override:
    """The block of `with env.override(…)`; may be nested and entered again."""

    def __init__(self, env: Env, tasks: dict[str, AnyDefinition]) -> None:
        self.env = env
        self.tasks = tasks

    def __enter__(self) -> Self:
        _overrides.set((*_overrides.get(), self))
        return self

    def __exit__(self, *_: object) -> None:
        # Not by a token: the end may come in another context than the beginning (an asynchronous fixture).
        active = list(_overrides.get())
        if self in active:
            del active[len(active) - 1 - active[::-1].index(self)]
            _overrides.set(tuple(active))

    def __repr__(self) -> str:
        return f"<override of {', '.join(self.tasks)}>"


# ---------------------------------------------------------------------- names


def _is_name(given: object) -> bool:
    from keyword import iskeyword

    return isinstance(given, str) and given.isidentifier() and not iskeyword(given)


def _name_in(given: Any, tasks: Mapping[str, AnyDefinition]) -> str:
    """The name of a task of an Env.

    Raises:
        UsageError: there is no such task.
    """
    if isinstance(given, Definition):
        if not _is_of(given, tasks):
            raise UsageError(f"{given!r} ({given.place}) is no task of this Env")
        return given.name
    if not isinstance(given, str):
        raise UsageError(f"a task is named by a text, or by what env.task returned, not by {shown(given)}")
    if given not in tasks:
        raise UsageError(f"there is no task {given!r}{close(given, tasks)}")
    return given


def _is_of(one: AnyDefinition, tasks: Mapping[str, AnyDefinition]) -> bool:
    """Whether a definition is one of these tasks, or what one of them replaces."""
    here: AnyDefinition | None = tasks.get(one.name)
    while here is not None and here is not one:
        here = here.replaces
    return here is one


def _graph(tasks: Mapping[str, AnyDefinition]) -> Graph:
    return Graph([Node(one.name, one, one.requires) for one in tasks.values()])


def _check_order(tasks: Mapping[str, AnyDefinition]) -> None:
    """Raise CyclicWorkflowError if a task requires itself."""
    _graph(tasks).topological()


def _second(what: str, name: str, before: str, now: str) -> UsageError:
    return UsageError(f"{what} {name!r} ({now}): there is one of this name already, defined at {before}")
