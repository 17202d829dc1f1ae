"""Definition: what an Env knows of a task. A function, what it requires, its options and the type of its product.

A function's parameters are matched by name: each is the product of a required task or an option, and each of those is a
parameter. What is wrong about a definition is found here, when it is made; whether the tasks and types that it names exist is
the Env's business (`env`). Where it runs and what is kept of it is decided when it is carried out (`_invocation`).
"""

from __future__ import annotations

import sys
from functools import partial
from inspect import Parameter, signature
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from woflo.errors import UsageError
from woflo.options import REQUIRED, Option, Type, close, shown
from woflo.result import TaskFailure
from woflo.task import Task, _by_name, _found_by_name, task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import CodeType

__all__ = ["Definition"]

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")


class Site:
    """Where a definition is made: the line, and the code that is being executed there."""

    __slots__ = ("_code", "_interactive", "text")
    text: str

    def __init__(self, depth: int) -> None:
        """Look `depth` calls up."""
        frame = sys._getframe(depth)
        self._code: CodeType | None = frame.f_code
        self._interactive = frame.f_globals.get("__name__") == "__main__" and "__file__" not in frame.f_globals
        self.text = f"{frame.f_code.co_filename}:{frame.f_lineno}"

    def is_again(self, other: Site) -> bool:
        """Whether this is another execution of the same lines: of a module that is loaded again, or in a notebook of any cell.

        A cell that was edited has another place, so there every place counts as the same. Code that is compiled once and
        runs twice (a loop, a function) is not that: it makes two definitions.
        """
        if self._code is other._code:
            return False
        return self.text == other.text or (self._interactive and other._interactive)

    def __reduce__(self) -> tuple[Any, ...]:
        return _elsewhere, (self.text,)


def _elsewhere(text: str) -> Site:
    """The site of a definition that came from another process: no code here is its code."""
    site = Site.__new__(Site)
    site._code, site._interactive, site.text = None, False, text
    return site


class Definition(Generic[P, R, V]):
    """A task as an Env knows it; calling it does what the decorated function does.

    Immutable: `env.replace` makes another Env with another one.

    Attributes:
        fn: the function itself.
        name: the task's name in its Env.
        requires: the names of the tasks whose products it is given.
        product: the Type of its product.
        place: where it was defined, `file:line`.
        replaces: the definition in whose place it was put, or None.
    """

    __module__ = "woflo.env"  # where its users find it
    _is_product = True  # for whoever takes it for a value

    fn: Callable[P, V]
    name: str
    requires: tuple[str, ...]
    product: Type
    place: str
    replaces: Definition[..., Any, Any] | None
    _base: Callable[P, V]  # what was decorated: the function, or a Task of it
    _options: dict[str, Option]
    _positional: tuple[str, ...]  # what it is called with, in the order of its parameters
    _keywords: tuple[str, ...]
    _site: Site
    _task: Task[..., R, Any]  # what is carried out
    _told: set[str]  # what was said once, of what can't be kept

    def __init__(self, **fields: Any) -> None:
        inside = vars(self)
        inside.update(fields)
        inside["fn"] = fn = function_of(self._base)
        for name in ("__module__", "__qualname__", "__name__", "__doc__", "__annotations__"):
            if hasattr(fn, name):
                inside[name] = getattr(fn, name)
        inside.update(__wrapped__=fn, _told=set())
        policy = self._base if isinstance(self._base, Task) else task(self._base, name=self.name)
        work = (_CheckedCoroutine if policy.is_async else _Checked)(self, fn, self.name, self.product)
        inside["_task"] = Task(work, self.name, policy.policy, policy.timeout, None)

    @property
    def options(self) -> Mapping[str, Option]:
        """Its options, by name."""
        return MappingProxyType(self._options)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> V:
        """Call what was decorated: a function plainly, a Task so that it starts a run. The Env has no part in it."""
        return self._base(*args, **kwargs)

    def _takes(self, name: str) -> bool:
        """Whether the function has a parameter for this option; a stand-in need not have one."""
        return name in self._keywords or name in self._positional

    def _arguments(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the function is called with, picked from products and options by name."""
        return tuple([values[name] for name in self._positional]), {name: values[name] for name in self._keywords}

    def _renamed(self, old: Definition[..., Any, Any], site: Site) -> Definition[P, R, V]:
        """The same in the place of another definition, under its name."""
        fields = {**self.__getstate__(), "name": old.name, "replaces": old, "_site": site}
        return Definition(**fields)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"a Definition can't be changed; env.replace({self.name!r}, …) makes another Env with another one"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Definition can't be changed: {self.name} keeps its {name}")

    def __repr__(self) -> str:
        return f"<Definition {self.name}({', '.join([*self.requires, *self._options])}) -> {self.product.name}>"

    def __woflo_digest__(self) -> tuple[Any, ...]:
        """What it is to code that names it."""
        return self.name, self.requires, self.fn, self.product

    def __reduce_ex__(self, protocol: Any) -> Any:
        if _is_by_name(self):
            return _by_name, (self.__module__, vars(self)["__qualname__"])
        return super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name in _FIELDS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Definition.__init__(self, **state)


_FIELDS = frozenset(
    ("name", "requires", "product", "place", "replaces", "_base", "_options", "_positional", "_keywords", "_site")
)


class _Checked:
    """A definition's function, as a run calls it: what it returns has to be of the product's type.

    It travels to a spawned worker by its definition's name, if that can be imported; else as little of it as is needed.
    """

    def __init__(self, definition: Definition[..., Any, Any] | None, fn: Any, name: str, product: Type) -> None:
        self._definition = definition
        self.fn = fn
        self.__name__ = name
        self.product = product

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        product = self.fn(*args, **kwargs)
        self._check(product)
        return product

    def _check(self, product: object) -> None:
        wrong = self.product.problem(product, f"its product ({type(product).__name__})")  # shows no value: it is logged
        if wrong:
            raise TaskFailure(wrong)

    def __reduce__(self) -> tuple[Any, ...]:
        definition = self._definition
        if definition is not None and _is_by_name(definition):
            return _work_of, (definition,)
        return type(self), (None, self.fn, self.__name__, self.product)


class _CheckedCoroutine(_Checked):
    """The same for a coroutine function."""

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        product = await self.fn(*args, **kwargs)
        self._check(product)
        return product


def _work_of(definition: Definition[..., Any, Any]) -> Any:
    return definition._task.fn


def _is_by_name(definition: Definition[..., Any, Any]) -> bool:
    """Whether another interpreter finds it by importing its module."""
    return _found_by_name(definition) is definition  # type: ignore[arg-type]


# ---------------------------------------------------------------------- making one


def base_of(given: Any) -> Any:
    """The function or Task that a definition is to be made of.

    Raises:
        UsageError: it can't be a task, or says where it runs or what is kept.
    """
    if isinstance(given, Definition):  # the same function under another name
        return given._base
    if not isinstance(given, Task):
        task(given, name="task")  # refuses what can't be one
        return given
    for what, decided in (("runner", given.runner), ("cache", getattr(given, "cache", None))):
        if decided is not None and decided is not False:
            keyword = "runner" if what == "runner" else "store"
            raise UsageError(
                f"where a task runs and what is kept is decided when it is carried out: take {what}= out of @task of"
                f" {given.name!r}, and give {keyword}= to the invocation's run()"
            )
    return given


def function_of(base: Any) -> Any:
    """The function under a Task; of a function, itself."""
    return base.fn if isinstance(base, Task) else base


def name_of(base: Any) -> str:
    """What a definition is called that isn't told its name."""
    inner = base if hasattr(base, "__name__") else getattr(base, "func", base)  # of a partial
    return str(base.name if isinstance(base, Task) else getattr(inner, "__name__", type(inner).__name__))


def place_of(base: Any, site: Site) -> str:
    """Where a function stands, `file:line`; where the definition is made, if it isn't written in Python."""
    fn: Any = function_of(base)
    fn = getattr(fn, "func", fn)  # of a partial
    code = getattr(getattr(fn, "__func__", fn), "__code__", None)
    return site.text if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def parameters_of(base: Any) -> list[Parameter]:
    """The parameters of the function, without those that a partial has filled.

    Raises:
        UsageError: they can't be known.
    """
    fn: Any = function_of(base)
    filled = fn.keywords if isinstance(fn, partial) else ()
    try:
        return [one for one in signature(fn).parameters.values() if one.name not in filled]
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the parameters of {shown(fn)} can't be known ({error}): call it in a function of your own"
        ) from None


def match(
    parameters: Iterable[Parameter], requires: Iterable[str], options: Mapping[str, Option], named: Iterable[object]
) -> list[str]:
    """What doesn't match between a function's parameters and what its definition says.

    `named` are the options' names, also of those that are wrong themselves: that is said once.
    """
    problems = []
    known = [*requires, *(one for one in named if isinstance(one, str))]
    names = []
    for one in parameters:
        if one.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            problems.append(f"parameters are matched by name: write them out instead of {one}")
            continue
        names.append(one.name)
        if one.name not in known:
            hint = (
                ": define a task of a bound method instead" if one.name in {"self", "cls"} else close(one.name, known)
            )
            problems.append(f"its parameter {one.name!r} is neither a task that it requires nor an option of it{hint}")
        elif one.name in options and one.default is not Parameter.empty:
            default = options[one.name].default
            if default is REQUIRED:
                problems.append(
                    f"its parameter {one.name!r} has a default and the option {one.name!r} has none: an option's default is"
                    f" its own, Option(…, default={shown(one.default)})"
                )
            elif not _equal(default, one.default):
                problems.append(
                    f"the option {one.name!r} has two defaults: {shown(default)}, and {shown(one.default)} of the parameter"
                )
    problems += [f"it requires {name!r} and has no parameter of that name" for name in requires if name not in names]
    problems += [f"it has an option {name!r} and no parameter of that name" for name in options if name not in names]
    return problems


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # a user's code, which can't tell
        return True


def match_stand_in(
    parameters: Iterable[Parameter], old: Definition[..., Any, Any], known: Mapping[str, object]
) -> tuple[tuple[str, ...], list[Parameter], list[str]]:
    """What a function requires that stands in for a definition, which parameters it is given, and what is wrong.

    It has the old one's options, and need not have parameters for all of them; `**kwargs` takes all that the old one took.
    """
    requires: list[str] = []
    given: list[Parameter] = []
    problems = []
    everything = False
    for one in parameters:
        if one.kind is Parameter.VAR_KEYWORD:
            everything = True
        elif one.kind is Parameter.VAR_POSITIONAL:
            continue
        elif one.name in old.options:
            given.append(one)
        elif one.name in old.requires or (one.name in known and one.default is Parameter.empty):
            requires.append(one.name)
            given.append(one)
        elif one.default is Parameter.empty:
            hint = close(one.name, [*old.options, *known])
            problems.append(f"its parameter {one.name!r} is neither an option of {old.name!r} nor a task{hint}")
    if everything:
        names = {one.name for one in given}
        rest = [name for name in (*old.requires, *old.options) if name not in names]
        given += [Parameter(name, Parameter.KEYWORD_ONLY) for name in rest]
        requires += [name for name in old.requires if name not in names]
    return tuple(requires), given, problems


def make(
    base: Any,
    given: Iterable[Parameter],
    *,
    name: str,
    requires: tuple[str, ...],
    options: Mapping[str, Option],
    product: Type,
    site: Site,
    replaces: Definition[..., Any, Any] | None = None,
) -> Definition[..., Any, Any]:
    """A definition of which everything has been checked."""
    given = list(given)
    by_place = (Parameter.POSITIONAL_ONLY,)
    return Definition(
        name=name,
        requires=requires,
        product=product,
        place=place_of(base, site),
        replaces=replaces,
        _base=base,
        _options=dict(options),
        _positional=tuple(one.name for one in given if one.kind in by_place),
        _keywords=tuple(one.name for one in given if one.kind not in by_place),
        _site=site,
    )
