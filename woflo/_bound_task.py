"""BoundTask: a definition with the values of its options. What it is to a drive and to a build.

A build is told how to run it, what its product follows from (code, options, inputs), and where that is kept. Nothing is
digested unless something is to be kept or a fingerprint is asked for.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from woflo._build import Found, Product, Step
from woflo._rebuild import Decision, Recipe
from woflo.runners.multiprocess import MultiprocessTaskRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from woflo._definition import Definition
    from woflo._shelf import StoreShelf
    from woflo.runners.base import BaseTaskRun

    Runner = type[BaseTaskRun[Any]]

__all__ = ["BoundTask", "Shelves", "flat"]


class BoundTask:
    """A definition with the values of its options. As a node's call it is to a drive what a Task is."""

    __slots__ = ("definition", "given", "options")

    definition: Definition[..., Any, Any]
    options: dict[str, Any]  # the values that the function is given
    given: frozenset[str]  # which of them are no defaults

    def __init__(self, definition: Definition[..., Any, Any], options: dict[str, Any], given: frozenset[str]) -> None:
        self.definition = definition
        self.options = options
        self.given = given

    def __call__(self, *products: Any) -> BaseTaskRun[Any]:
        """Start a run of the task; `products` come in the order of `requires`."""
        return self._submit(products, self._where(None))

    def _where(self, default: Runner | None) -> Runner:
        return self.definition._task._where(default)

    def _submit(self, products: tuple[Any, ...], runner: Runner) -> BaseTaskRun[Any]:
        return self._start(dict(zip(self.definition.requires, products, strict=True)), runner)

    def _start(self, values: dict[str, Any], runner: Runner) -> BaseTaskRun[Any]:
        """Start a run with the values of what it requires."""
        here = not _is_process(runner)
        for name, value in self.options.items():
            if name not in self.given:
                values[name] = deepcopy(value)
            else:
                values[name] = _own(value) if here else value
        args, kwargs = self.definition._arguments(values)
        return runner.submit(self.definition._task, args, kwargs, [])

    def step(self, runner: Runner | None, shelves: Shelves | None) -> Step:
        """What it is to a build."""
        one = self.definition
        recipe: Any = None
        if shelves is not None:
            from woflo._fingerprint import Undigestible

            try:
                recipe = _Recipes(one.name, *self.identity())
            except Undigestible as error:
                shelves.pass_over(one.name, error, one._told)
                recipe = _Recipes(one.name, token_hex(), {}, {})  # like no other: nothing that follows from it is found

        def run(values: dict[str, Any]) -> BaseTaskRun[Any]:
            return self._start(values, self._where(runner))

        return Step(one.name, (one.name,), one.requires, run, _alone, recipe)

    def identity(self) -> tuple[str, dict[str, str], dict[str, str]]:
        """Its code's digest, the parts of the code, and the digests of its options: hex digits, all of them.

        The predicates of the product's type are part of the code: what was kept was found to be of that type by them.

        Raises:
            Undigestible: it says which part of which option.
        """
        from woflo._code import code_of
        from woflo._fingerprint import cache_key, digest

        one = self.definition
        code = code_of(one.fn)
        if code.loose:
            from woflo._shelf import warn_of_loose

            warn_of_loose(one.name, code)
        types = {f"type {kind.name!r}": code_of(kind.predicate).digest for kind in one.product._lineage()}
        options = {name: digest(value, f"{one.name}.{name}").hex() for name, value in self.options.items()}
        return cache_key(code.digest, *flat(types)), {**code.parts, **types}, options

    def __repr__(self) -> str:
        return f"<{self.definition.name} with its options>"


def _is_process(runner: Runner) -> bool:
    """Whether what a run changes is its own copy anyway."""
    pool = sys.modules.get("woflo.runners.pool")
    return issubclass(runner, MultiprocessTaskRun) or (pool is not None and issubclass(runner, pool.PoolTaskRun))


def _own(value: Any) -> Any:
    """A copy that a task may change: the value may be another task's too, and is what its recipe was digested from."""
    try:
        return deepcopy(value)
    except Exception:  # a live thing: whoever gives it wants the task to have this one
        return value


def _alone(product: Any) -> tuple[Any]:
    return (product,)


class _Recipes:
    """What a task's product follows from, for each set of inputs."""

    def __init__(self, name: str, code: str, parts: dict[str, str], options: dict[str, str]) -> None:
        self._name = name
        self._code = code
        self._parts = parts
        self._options = options

    def __call__(self, inputs: dict[str, str]) -> Recipe:
        from woflo._fingerprint import cache_key

        options = self._options
        key = cache_key("task", self._name, self._code, str(len(options)), *flat(options), *flat(inputs))
        return Recipe(key, self._code, self._parts, options, inputs)


class Shelves:
    """Where the products of each task are kept (a shelf, see `_build`); nowhere, for those that have none."""

    def __init__(self, shelves: dict[str, StoreShelf]) -> None:
        self._shelves = shelves

    def pass_over(self, name: str, why: Exception, told: set[str]) -> None:
        """Keep nothing of a task, and say so once."""
        if self._shelves.pop(name, None) is not None and name not in told:
            told.add(name)
            from woflo import events

            events.warn(f"{name} runs each time, and what it makes is not kept: {why}")

    def last_seconds(self, step: Step) -> float | None:
        """How long a task took last time, whatever it was made of; None: unknown."""
        shelf = self._shelves.get(step.name)
        return None if shelf is None else shelf.seconds(step)

    def find(self, step: Step, recipe: Recipe) -> Found:
        shelf = self._shelves.get(step.name)
        if shelf is not None:
            return shelf.find(step, recipe)
        return Found(Decision(False, "product missing", "it is not kept"), _unkept(step, recipe))

    def restore(self, step: Step, name: str) -> bool:
        from woflo._shelf import warn_of_change

        warn_of_change(step.name, name)
        return self._shelves.get(name) is not None

    def keep(self, step: Step, recipe: Recipe, values: Sequence[Any], seconds: float) -> list[Product]:
        shelf = self._shelves.get(step.name)
        if shelf is not None:
            return shelf.keep(step, recipe, values, seconds)
        return _unkept(step, recipe, *values)


def _unkept(step: Step, recipe: Recipe, *values: Any) -> list[Product]:
    """The product of a task that isn't kept: known by what it follows from."""
    from woflo._fingerprint import cache_key

    return [Product(cache_key(recipe.key, step.name), *values)]


def flat(pairs: Mapping[str, str]) -> Iterator[str]:
    """Names and what belongs to them, by name: parts of a key."""
    for name in sorted(pairs):
        yield name
        yield pairs[name]
