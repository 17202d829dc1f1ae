"""The steps of a workflow: which functions are steps, what each makes and needs, and whether that can work at all.

What a function says of itself is read from three attributes, `_is_workflow_step`, `workflow_produces` and
`workflow_requires`, whoever has set them. Nothing here runs a step, and everything that can be wrong before one runs is
found here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from woflo._exceptions import safe_str
from woflo.errors import UsageError
from woflo.graph import Graph, Node
from woflo.runners.base import BaseTaskRun
from woflo.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StepError", "UnknownProductError", "Workflow", "WorkflowStep", "mark"]

CONFIG = "config"  # the parameter that gets the configuration
_SHOWN = 8  # names that an error lists at most


class StepError(UsageError, TypeError):
    """A step can't be called as it is written, or returned something of the wrong type."""

    __module__ = "woflo.workflow"  # where its users find it


class UnknownProductError(UsageError, KeyError):
    """A product that is wanted, required or declared is nowhere to be had."""

    __module__ = "woflo.workflow"

    def __str__(self) -> str:
        return ValueError.__str__(self)  # a KeyError's is the repr of its argument


class WorkflowStep:
    """A function that is a step, and what it makes and needs.

    Attributes:
        fn: the function, or the Task.
        name: the function's name; steps of the same name get the name of their first product with it.
        produces: the products that it makes; none: the runner never needs it.
        requires: the products that must be there before it runs: those it declares, then those its parameters name.
        runner: where it runs; None: in the thread that asks for the product.
    """

    __slots__ = (
        "_by_name",
        "_by_place",
        "_names_config",
        "_passes_all",
        "fn",
        "name",
        "produces",
        "requires",
        "runner",
    )

    def __init__(self, fn: Callable[..., Any]) -> None:
        marked = _marked(fn)
        self.fn = fn
        self.name = _name_of(fn)
        self.produces = _names(marked, "workflow_produces", self.name)
        self.requires = _names(marked, "workflow_requires", self.name)
        self.runner: type[BaseTaskRun[Any]] | None = getattr(marked, "workflow_runner", None)
        self._by_place: tuple[tuple[str, Any], ...] = ()  # name and default of what can only be passed by its place
        self._by_name: tuple[str, ...] = ()
        self._names_config = False
        self._passes_all = False

    def resolve(self, is_product: Callable[[str, bool], bool]) -> None:
        """Match the parameters with config and products.

        Args:
            is_product: whether a name is a product, and, if the second argument is true, also whether it is one that
                no step makes.

        Raises:
            StepError: there is a parameter that nothing can be passed to.
        """
        try:
            parameters = inspect.signature(self.fn).parameters.values()
        except (TypeError, ValueError) as error:
            raise StepError(
                f"step {self.name}: its parameters can't be read ({error}); wrap it in a function"
            ) from None
        implied, by_name, by_place = [], [], []
        for one in parameters:
            name, has_default = one.name, one.default is not one.empty
            if one.kind is one.VAR_POSITIONAL:
                continue
            if one.kind is one.VAR_KEYWORD:
                self._passes_all = True
                continue
            if name != CONFIG and name not in self.requires:
                # A step's own earlier product is no input: there is none when it is made for the first time.
                if has_default and (name in self.produces or not is_product(name, False)):
                    if one.kind is one.POSITIONAL_ONLY:
                        by_place.append((name, one.default))
                    continue
                if not is_product(name, not has_default):
                    raise StepError(
                        f"step {self.name}: its parameter {name!r} is neither {CONFIG!r} nor a product, and has no default"
                    )
                implied.append(name)
            if one.kind is one.POSITIONAL_ONLY:
                by_place.append((name, None))
            elif name == CONFIG:
                self._names_config = True
            else:
                by_name.append(name)
        self.requires = (*self.requires, *implied)
        self._by_place = tuple(by_place)
        self._by_name = tuple(by_name)

    @property
    def takes_config(self) -> bool:
        """Whether its function is given the configuration."""
        return self._names_config or any(name == CONFIG for name, _ in self._by_place)

    def arguments(self, values: Mapping[str, Any], config: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the function is called with, given the values of what it requires."""
        passed = {name: values[name] for name in (self.requires if self._passes_all else self._by_name)}
        if self._names_config:
            passed[CONFIG] = config
        if not self._by_place:
            return (), passed
        known = {**values, CONFIG: config}
        for name, _ in self._by_place:
            passed.pop(name, None)
        return tuple(known.get(name, default) for name, default in self._by_place), passed

    def split(self, result: Any) -> Sequence[Any]:
        """What it returned, as one value per product.

        Raises:
            StepError, UnknownProductError, UsageError: it doesn't fit what the step says that it makes.
        """
        produces = self.produces
        if len(produces) < 2:
            return (result,) * len(produces)
        if isinstance(result, Mapping):
            missing = [name for name in produces if name not in result]
            if missing:
                raise UnknownProductError(f"step {self.name} returned a dict without {_listed(missing)}")
            extra = [name for name in result if name not in produces]
            if extra:
                raise UsageError(
                    f"step {self.name} returned a dict with {_listed(extra)}, and makes {_listed(produces)}"
                )
            return [result[name] for name in produces]
        if isinstance(result, (list, tuple)):
            if len(result) != len(produces):
                raise UsageError(
                    f"step {self.name} makes {len(produces)} products ({_listed(produces)}) and returned {len(result)} values"
                )
            return result
        raise StepError(
            f"step {self.name} makes {_listed(produces)} and returned a {type(result).__name__}:"
            " return a dict with a key for each, or a tuple in their order"
        )


class Workflow:
    """The steps of a workflow, checked.

    Attributes:
        steps: all of them, by name.
        producers: product → the step that makes it.
        external: products that are required and that no step makes: they are there already.
        graph: a node for each product, for drawings and queries.
    """

    def __init__(self, source: Any, exists: Callable[[str], bool]) -> None:
        """Find the steps and check that they fit together.

        Args:
            source: a module, class or object with steps among its attributes, a list of steps, or a dict of names.
            exists: whether a product that no step makes is there.

        Raises:
            UsageError: they don't; the step is named.
            CyclicWorkflowError: a product needs itself.
        """
        self.steps = sorted((WorkflowStep(fn) for fn in _found(source)), key=lambda step: step.name)
        self.producers = _producers(self.steps)
        self.external: dict[str, None] = {}
        _name_apart(self.steps)

        def is_product(name: str, or_external: bool) -> bool:
            return name in self.producers or name in self.external or (or_external and exists(name))

        for step in self.steps:
            step.resolve(is_product)
            for name in step.requires:
                if name in self.producers or name in self.external:
                    continue
                if not exists(name):
                    raise UnknownProductError(
                        f"step {step.name} requires {name!r}, which no step makes{self.hint(name)}"
                        " and which is not among the products that are there"
                    )
                self.external[name] = None
        self.graph = Graph(
            Node(product, None, step.requires, label=product) for step in self.steps for product in step.produces
        )
        self.graph.topological()

    def leaves(self) -> list[str]:
        """The products that no other is made from, sorted; steps without products are never run, and count for nothing."""
        required = {name for step in self.steps if step.produces for name in step.requires}
        return sorted(self.producers.keys() - required)

    def dependents(self, name: str) -> set[str]:
        """The products that need this one, directly or not."""
        users: dict[str, list[str]] = {}
        for step in self.steps:
            for required in step.requires:
                users.setdefault(required, []).extend(step.produces)
        found: set[str] = set()
        todo = users.get(name, [])[:]
        while todo:
            product = todo.pop()
            if product not in found:
                found.add(product)
                todo.extend(users.get(product, ()))
        return found - {name}

    def hint(self, name: str) -> str:
        """Which products are like a name that is none; empty if there are no products at all."""
        close = get_close_matches(name, list(self.producers), n=3)
        if close:
            return f" (did you mean {' or '.join(map(repr, close))}?)"
        return f" (steps make {_listed(sorted(self.producers))})" if self.producers else ""


def mark(fn: Any, produces: Iterable[str], requires: Iterable[str], runner: type[BaseTaskRun[Any]] | None) -> None:
    """Make a function a step: say on it what it makes and needs.

    Raises:
        UsageError: a name that is none, or a function that nothing can be said on.
    """
    name = _name_of(fn)
    if not callable(getattr(fn, "__func__", fn)) or isinstance(fn, BaseTaskRun):
        raise UsageError(f"@workflow_step needs a function, not {type(fn).__name__}: {safe_str(fn)[:80]}")
    if runner is not None and not (isinstance(runner, type) and issubclass(runner, BaseTaskRun)):
        raise UsageError(f"step {name}: runner must be a class of TaskRun, or None, not {runner!r}")
    inner = _marked(fn)
    try:
        inner._is_workflow_step = True
        inner.workflow_produces = list(_checked(produces, "produces", name))
        inner.workflow_requires = list(_checked(requires, "requires", name))
        inner.workflow_runner = runner
    except (AttributeError, TypeError):
        raise UsageError(f"{name} can't be made a step (it takes no attributes): wrap it in a function") from None


def _marked(fn: Any) -> Any:
    """Where the attributes of a step are: a Task can't be changed, and a method is made anew each time."""
    fn = fn.fn if isinstance(fn, Task) else fn
    return getattr(fn, "__func__", fn)


def _is_step(value: Any) -> bool:
    if not callable(value):
        return False
    try:
        # A mock, or a module's lazy stand-in, has every attribute; one that says yes is a truth value.
        flag = getattr(_marked(value), "_is_workflow_step", False)
    except Exception:
        return False
    return isinstance(flag, (bool, int)) and bool(flag)


def _found(source: Any) -> list[Any]:
    if isinstance(source, Mapping):
        found = [value for value in source.values() if _is_step(value)]
    elif isinstance(source, (list, tuple, set, frozenset)):
        found = list(source)
        for value in found:
            if not _is_step(value):
                raise UsageError(f"{safe_str(value)[:80]} is no workflow step: decorate it with @workflow_step(…)")
    elif isinstance(source, (str, bytes)) or source is None:
        raise UsageError(f"a workflow is a module, or a list of steps, not {source!r}: import the module and pass it")
    else:
        found = [value for value in _attributes(source) if _is_step(value)]
    return list({(id(getattr(one, "__self__", None)), id(_marked(one))): one for one in found}.values())


def _attributes(source: Any) -> Iterable[Any]:
    for name in dir(source):
        try:
            yield getattr(source, name)
        except Exception:  # noqa: S112 - a property that can't be had now is no step
            continue


def _name_of(fn: Any) -> str:
    if isinstance(fn, Task):
        return fn.name
    while not hasattr(fn, "__name__") and hasattr(fn, "func"):  # partial
        fn = fn.func
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) else type(fn).__name__


def _name_apart(steps: list[WorkflowStep]) -> None:
    """Give steps of the same name the name of their first product with it."""
    count: dict[str, int] = {}
    for step in steps:
        count[step.name] = count.get(step.name, 0) + 1
    for step in steps:
        if count[step.name] > 1 and step.produces:
            step.name = f"{step.name} ({step.produces[0]})"


def _names(fn: Any, attribute: str, step: str) -> tuple[str, ...]:
    given = getattr(fn, attribute, None)
    return () if given is None else _checked(given, attribute.removeprefix("workflow_"), step)


def _checked(given: Any, what: str, step: str) -> tuple[str, ...]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise UsageError(f"step {step}: {what} is a list of names, not {given!r}: write [{given!r}]")
    names = tuple(given)
    for at, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise UsageError(f"step {step}: {what} is a list of names, and {name!r} is none")
        if name == CONFIG:
            raise UsageError(f"step {step}: {CONFIG!r} is the configuration, and no product")
        if name in names[:at]:
            raise UsageError(f"step {step}: {what} names {name!r} twice")
    return names


def _producers(steps: list[WorkflowStep]) -> dict[str, WorkflowStep]:
    producers: dict[str, WorkflowStep] = {}
    for step in steps:
        for product in step.produces:
            other = producers.setdefault(product, step)
            if other is not step:
                raise UsageError(f"two steps make {product!r}: {_where(other)} and {_where(step)}")
    return producers


def _where(step: WorkflowStep) -> str:
    fn = step.fn
    try:
        fn = inspect.unwrap(_marked(fn))
        return f"{step.name} ({inspect.getfile(fn).rpartition('/')[2]}:{fn.__code__.co_firstlineno})"
    except (AttributeError, TypeError, ValueError):
        return step.name


def _listed(names: Sequence[Any]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
