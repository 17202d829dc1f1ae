"""Workflows: functions that say which products they make and need, and a runner that makes what is asked for.

    @workflow_step(produces=["model"], requires=["table"])
    def fit(table, config): …

    WorkflowRunner(module, config, WorkflowProducts("products")).get("model")

A face: `_steps` reads and checks the steps, `_build` decides and drives, `_product_shelf` knows what is there. This file brings
them together and answers questions. A product is sought in the session's cache, then among the products that last, then made
of its step; each step runs in the thread that asks unless it says otherwise, because what it makes may live there.

The configuration and the products are asked by their methods, so any objects that have them serve: `cache_key(requires=)` and
`_identity_fields`; `save(name, obj, cache_key=, inputs=)`, `load`, `exists`, `fresh(name, cache_key)`, `remove`.
"""

from __future__ import annotations

from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar, overload

from woflo import _exceptions, _notify, _status_table, diagram
from woflo._build import Build, Step
from woflo._collector import paused
from woflo._identity import WorkflowConfig
from woflo._product_shelf import ProductShelf
from woflo._products import WorkflowProducts
from woflo._steps import StepError, UnknownProductError, Workflow, mark
from woflo.errors import UsageError
from woflo.runners import ThreadTaskRun
from woflo.task import Task, task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from woflo._build import Planned, Product
    from woflo._steps import WorkflowStep
    from woflo.runners.base import BaseTaskRun

__all__ = [
    "PlannedStep",
    "StepError",
    "UnknownProductError",
    "WorkflowConfig",
    "WorkflowProducts",
    "WorkflowRunner",
    "workflow_step",
]

FIRST_RUN = "first run"

F = TypeVar("F", bound="Callable[..., Any]")


@overload
def workflow_step(fn: F, /) -> F: ...
@overload
def workflow_step(
    *,
    produces: Iterable[str] = ...,
    requires: Iterable[str] = ...,
    runner: type[BaseTaskRun[Any]] | None = ...,
) -> Callable[[F], F]: ...
def workflow_step(
    fn: Any = None,
    /,
    *,
    produces: Iterable[str] = (),
    requires: Iterable[str] = (),
    runner: type[BaseTaskRun[Any]] | None = None,
) -> Any:
    """Make a function a step of a workflow; it stays the function that it was.

    A parameter called `config` gets the configuration, others the products of their names. A step that produces one product
    returns it, one that produces several returns a dict of them, or a tuple in their order.

    Args:
        fn: the function, where the decorator is bare; also a Task, whose retries and time-out then count.
        produces: the products that it makes; none: it is listed, and the runner never needs it.
        requires: the products that must be there before it runs. A parameter that is called like a product counts too.
        runner: the class of TaskRun that carries it out; None: it is called by the thread that asks for the product.

    Raises:
        UsageError: a name that is none, or a function that can't be made a step.
    """

    def marked(fn: Any) -> Any:
        mark(fn, produces, requires, runner)
        return fn

    return marked if fn is None else marked(fn)


class PlannedStep:
    """A step that would run.

    Attributes:
        step: its name.
        produces: the products that it makes.
        why: why it would run.
        seconds: how long it took last time; None: unknown.
    """

    __slots__ = ("produces", "seconds", "step", "why")

    def __init__(self, step: str, produces: tuple[str, ...], why: str, seconds: float | None) -> None:
        self.step: str = step
        self.produces: tuple[str, ...] = produces
        self.why: str = why
        self.seconds: float | None = seconds

    def __repr__(self) -> str:
        took = "" if self.seconds is None else f" (took {self.seconds:.3g} s)"
        return f"{self.step}: {self.why}{took}"


class WorkflowRunner:
    """Makes the products of a workflow, each when it is asked for and not there already.

    One thread at a time may ask.

    Attributes:
        module: what it was made of.
        config: what the steps' parameter `config` gets.
        products: where products last; None: they are as old as the session.
        cache: product → value, of this session.
        parallel: whether independent steps run at the same time, in threads.
    """

    def __init__(self, module: Any, config: Any = None, products: Any = None, *, parallel: bool = False) -> None:
        """Find the steps and check that they fit together; nothing runs yet.

        Args:
            module: a module (or a class, an object) with steps among its names, a list of steps, or a dict of names.
            config: passed to every step that has a parameter `config`. What its `cache_key(requires=…)` says decides, with the
                steps' code, whether a product is up to date; without `_identity_fields` whatever exists is used.
            products: a `WorkflowProducts`, or an object with its methods.
            parallel: run independent steps at the same time, in threads, unless they say where they run.

        Raises:
            UsageError: two steps make the same product, a name is none, or `products` lacks a method.
            StepError: a step has a parameter that is neither `config` nor a product, and has no default; a TypeError.
            UnknownProductError: a step requires what no step makes and is not among the products; a KeyError.
            CyclicWorkflowError: a product needs itself.
        """
        lacking = [name for name in ("save", "load", "exists") if products is not None and not hasattr(products, name)]
        if lacking:
            raise UsageError(
                f"products is a WorkflowProducts, or has its methods: {products!r:.80} has no {', '.join(lacking)}"
            )
        self.module = module
        self.config = config
        self.products = products
        self.parallel = parallel
        self._shelf = ProductShelf(self._emit)
        self.cache: dict[str, Any] = self._shelf.cache
        self._observers: list[Callable[[str, str], object]] = []
        self._broken: list[Any] = []  # observers that have raised
        self._making = 0  # builds that are under way: more than one if a step asks for more
        self._unused: set[str] = set()  # what has just been made or loaded, until somebody has it
        self._workflow = Workflow(module, lambda name: products is not None and products.exists(name))
        self._steps = {
            product: made
            for step in self._workflow.steps
            if step.produces
            for made in [self._buildable(step)]
            for product in step.produces
        }

    def _buildable(self, step: WorkflowStep) -> Step:
        run, recipe = partial(self._run, step), partial(self._shelf.recipe, step)
        return Step(step.name, step.produces, step.requires, run, step.split, recipe)

    # ------------------------------------------------------------------ making

    def get(self, name: str) -> Any:
        """The value of a product: from the cache, else from the products if it is up to date, else made.

        Raises:
            UnknownProductError: no step makes it, and it is not among the products; a KeyError.
            UsageError: a step returned something else than it says that it makes.
            Exception: what a step raised, with a note that names the step; or the Failure that it ended in.
        """
        self._look()
        if name in self.cache:
            self._emit("cached", name)
            return self.cache[name]
        self._check(name)
        return self._make([name])[name]

    build = get

    def build_all(self) -> list[str]:
        """Make every product that no other needs; their names, sorted.

        Raises:
            Exception: as `get`.
        """
        self._look()
        leaves = self._workflow.leaves()
        self._make(leaves)
        return leaves

    def rebuild(self, name: str) -> Any:
        """Make a product again, whatever is there; what depends on it stays as it is in the cache.

        Raises:
            UnknownProductError: no step makes it.
            Exception: as `get`.
        """
        if name not in self._steps:
            raise UnknownProductError(f"no step makes {name!r}{self._workflow.hint(name)}")
        self.invalidate(name)
        return self.get(name)

    def invalidate(self, name: str) -> None:
        """Drop a product from the cache, and from the products if it is there; what depends on it stays.

        Raises:
            UnknownProductError: there is no such product.
        """
        self._check(name)
        self.cache.pop(name, None)
        if self.products is not None and self.products.exists(name):
            self.products.remove(name)

    def _make(self, names: list[str]) -> dict[str, Any]:
        self._unused.clear()
        external = [name for name in names if name not in self._steps and name not in self.cache]
        values = {name: self._shelf.load_external(name) for name in external}
        wanted = [name for name in names if name not in values]
        self._making += 1
        try:
            with self._shelf.together():
                made = self._build(wanted).make(wanted)
        finally:
            self._making -= 1
        values |= {name: product.value for name, product in made.items()}
        self._use(names)
        return {name: values[name] for name in names}

    def _build(self, names: Iterable[str]) -> Build:
        """A build of what these products need and the cache doesn't have."""
        steps: dict[Step, None] = {}
        given: dict[str, Product] = {}
        todo = list(names)
        while todo:
            name = todo.pop()
            if name in given:
                continue
            if name in self.cache:
                given[name] = self._shelf.cached(name)
            elif (step := self._steps.get(name)) is None:
                given[name] = self._shelf.external(name)
            elif step not in steps:
                steps[step] = None
                self._shelf.read(self._workflow.producers[name])
                todo.extend(step.requires)
        return Build(steps, self._shelf, given=given)

    def _run(self, step: WorkflowStep, values: dict[str, Any]) -> Any:
        """Call a step, or start it where it runs."""
        args, kwargs = step.arguments(values, self.config)
        self._use(step.requires)
        for product in step.produces:
            self._emit("building", product)
        runner, fn = step.runner, step.fn
        if runner is None and self.parallel and not isinstance(fn, Task) and not iscoroutinefunction(fn):
            runner = ThreadTaskRun
        if runner is None and not isinstance(fn, Task):
            return fn(*args, **kwargs)
        one: Task[..., Any] = fn if isinstance(fn, Task) else task(fn, name=step.name)
        return (runner or one._where(None)).submit(one, args, kwargs, [])  # no look for runs among the arguments

    # ------------------------------------------------------------------ asking

    def status(self, name: str) -> str:
        """Where a product is: "cached", "on_disk" (up to date or not), or "missing"."""
        if name in self.cache:
            return "cached"
        return "on_disk" if self.products is not None and self.products.exists(name) else "missing"

    def plan(self, *names: str) -> list[PlannedStep]:
        """Which steps would run to make these products (none: every one that no other needs), in order, and why.

        Nothing runs. (An object of somebody else's that serves as `products` tells no digests: what no step makes is loaded
        from it to know what it is.)

        Raises:
            UnknownProductError: there is no such product; a KeyError.
        """
        self._look()
        for name in names:
            self._check(name)
        with paused():
            return [self._line(one) for one in self._planned(names or self._workflow.leaves()) if one.runs]

    def why(self, name: str) -> str:
        """Why a product would be made, or not, if it were asked for: in one line, down to what changed.

        Raises:
            UnknownProductError: there is no such product; a KeyError.
        """
        self._look()
        if name in self.cache:
            return "it is in this session's cache"
        self._check(name)
        own = self._steps.get(name)
        if own is None:
            return "no step makes it; it is among the products"
        planned = self._planned([name])
        last = next(one for one in planned if one.step is own)
        if last.decision is not None:
            return str(last.decision)
        if not self._shelf.last(own)[0]:
            return FIRST_RUN
        before = [f"{one.step.name} ({one.decision})" for one in planned if one.runs and one.decision is not None]
        more = f", and {len(before) - 3} more" if len(before) > 3 else ""
        return f"it depends on what comes of {', '.join(before[:3])}{more}"

    def what_invalidates(self, name: str) -> set[str]:
        """The products that need this one, directly or not: they may have to be made again if it changes.

        Raises:
            UnknownProductError: there is no such product; a KeyError.
        """
        self._check(name)
        return self._workflow.dependents(name)

    def diagram(self, *, rankdir: str = "LR") -> str:
        """The products and what they need, in Graphviz' language, coloured by status; dashed: no step makes it.

        Args:
            rankdir: which way it grows: LR, RL, TB or BT.

        Raises:
            UsageError: another rankdir.
        """
        return diagram.to_dot(self._workflow.graph, lambda name: self.status(str(name)), rankdir=rankdir)

    def dag(self) -> None:
        """Show all steps, what they make and need, and where that is: as a table in a notebook, else as text."""
        nothing = _status_table.NOTHING
        rows = []
        for step in self._workflow.steps:
            requires = ", ".join(step.requires) or nothing
            found = [(product, self.status(product)) for product in step.produces] or [(nothing, "(no product)")]
            rows += [_status_table.Row(step.name, product, requires, status) for product, status in found]
        external = self._workflow.external
        rows += [_status_table.Row("(external)", name, nothing, self.status(name)) for name in external]
        _status_table.show(f"{getattr(self.module, '__name__', 'workflow')} — runner status", rows)

    def _look(self) -> None:
        if not self._making:  # a step or an observer may ask while others run
            self._shelf.use(self.config, self.products)

    def _planned(self, names: Iterable[str]) -> list[Planned]:
        wanted = [name for name in names if name in self._steps and name not in self.cache]
        return self._build(wanted).plan(wanted)

    def _line(self, planned: Planned) -> PlannedStep:
        step, decision, seconds = planned.step, planned.decision, planned.seconds
        if decision is not None:
            return PlannedStep(step.name, step.produces, str(decision), seconds)
        before, seconds = self._shelf.last(step)
        return PlannedStep(step.name, step.produces, "depends on its inputs" if before else FIRST_RUN, seconds)

    def _check(self, name: str) -> None:
        if name in self._steps or name in self._workflow.external or name in self.cache:
            return
        if self.products is None or not self.products.exists(name):
            raise UnknownProductError(f"no step makes {name!r}{self._workflow.hint(name)}")

    # ------------------------------------------------------------------ telling

    def observe(self, callback: Callable[[str, str], object]) -> None:
        """Have `callback(event, name)` called for products, in the thread that asks.

        The events are "cached" (it was in the cache), "loaded" (it was among the products), "building" (its step is about to
        run, its inputs are there) and "built" (it is in the cache, and saved if that can be). A callback that raises is named
        in the log, once.

        Raises:
            UsageError: it can't be called.
        """
        if not callable(callback):
            raise UsageError(f"observe() needs something to call, not {callback!r}")
        self._observers.append(callback)

    def _use(self, names: Iterable[str]) -> None:
        """Tell of products that are handed out, and were there before."""
        for name in names if self._observers else ():
            if name in self._unused:
                self._unused.discard(name)
            else:
                self._emit("cached", name)

    def _emit(self, event: str, name: str) -> None:
        if not self._observers:
            return
        if event in {"built", "loaded"}:
            self._unused.add(name)
        for callback in tuple(self._observers):
            try:
                callback(event, name)
            except BaseException as error:  # it must not change a result
                if _exceptions.is_interrupt(error):
                    raise
                if not any(one is callback for one in self._broken):
                    self._broken.append(callback)
                    what = getattr(callback, "__qualname__", None) or repr(callback)
                    _notify.broken(f"the workflow's observer {what}", error)
