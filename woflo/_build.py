"""Build: make the products of steps, running only what has to run.

    targets → [ look: recipe by recipe, from the inputs on; then back, what is needed ] → steps that have to run
                 ↑                                                                          │ Engine: begin, run, finish
                 └── a value that was never kept is wanted after all ───────────────────────┘

`_rebuild` decides, a shelf finds and keeps, the Engine drives. What a step made is known by its digest: a value is loaded when
a step that runs, or the caller, wants it, and let go when the last of them has it. Whether a step whose inputs are being made
has to run is decided when they are there: if they came out as before, it doesn't (early cutoff).

Everything here happens in the caller's thread, but for steps that run elsewhere by themselves (they return a TaskRun).
"""

from __future__ import annotations

import sys
from functools import partial
from time import monotonic
from types import CoroutineType

from woflo import _exceptions, _notify
from woflo._cycles import find_cycle
from woflo._rebuild import Decision
from woflo.engine import Engine, refuse_own_loop
from woflo.errors import CyclicWorkflowError, InternalError, UsageError
from woflo.graph import Node, unknown_target
from woflo.result import DependencyFailure, Failure
from woflo.runners._inputs import is_run
from woflo.runners.base import BaseTaskRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from woflo._rebuild import Recipe
    from woflo.events import Event

    class Shelf(Protocol):
        """Where products are kept between sessions."""

        def find(self, step: Step, recipe: Recipe) -> Found:
            """What is known of this making of a step; whatever it returns, nothing was loaded."""

        def keep(self, step: Step, recipe: Recipe, values: Sequence[Any], seconds: float) -> list[Product]:
            """Take what a step made, one value for each name; what can't be kept stays in memory."""

        def restore(self, step: Step, name: str) -> bool:
            """A product in memory was changed while a step had it: whether it can be loaded as it was made; say so."""


__all__ = ["Build", "Found", "Planned", "Product", "Step"]

_GONE: Any = object()  # in the place of a value that is not loaded
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})  # can't be changed
_CHEAP_SECONDS, _CHEAP_SHARE, _NEVER = (
    0.02,
    0.1,
    float("inf"),
)  # what a look at an input may take, of the step's own time
_ENDED: Any = object()  # what a begun step returns that has nothing left to do


class Product:
    """What a step made under one name.

    Attributes:
        digest: of its content; where it can't be kept, of the recipe that it follows from. Hex.
        kept: whether the value can be had (again) from where it is kept.
    """

    __slots__ = ("_load", "_value", "digest")
    digest: str

    def __init__(self, digest: str, value: Any = _GONE, load: Callable[[str], Any] | None = None) -> None:
        """Describe a product.

        Args:
            digest: of its content or recipe, hex.
            value: the value, if it is here.
            load: called with the digest to have the value; raises KeyError if it is gone. None: it was not kept.
        """
        self.digest = digest
        self._value = value
        self._load = load

    @property
    def value(self) -> Any:
        """The value, loaded when it is first asked for.

        Raises:
            KeyError: it was not kept, or is gone.
        """
        if self._value is _GONE:
            if self._load is None:
                raise KeyError(self.digest)
            self._value = self._load(self.digest)
        return self._value

    @property
    def loaded(self) -> bool:
        """Whether the value is in memory."""
        return self._value is not _GONE

    @property
    def kept(self) -> bool:
        return self._load is not None

    def drop(self) -> None:
        """Let the value go."""
        self._value = _GONE

    def __repr__(self) -> str:
        return f"<Product {self.digest[:12]}{'' if self.loaded else ', not loaded'}>"


class Step:
    """What a build knows of a step.

    Attributes:
        name: its own in the build, for people.
        produces: the names of its products.
        requires: the names of the products it is given.
        run: called in the driving thread with {required name: value}; returns the step's raw value, or a TaskRun or a
            coroutine that is carried out in its place.
        split: one value for each name that it produces, of the raw value; raises if that can't be.
        recipe: what the products follow from, given {required name: digest}.
        volatile: it runs each time it is needed.
        keep: whether its products may be kept.
    """

    __slots__ = ("keep", "name", "produces", "recipe", "requires", "run", "split", "volatile")

    def __init__(
        self,
        name: str,
        produces: Sequence[str],
        requires: Sequence[str],
        run: Callable[[dict[str, Any]], Any],
        split: Callable[[Any], Sequence[Any]],
        recipe: Callable[[dict[str, str]], Recipe],
        *,
        volatile: bool = False,
        keep: bool = True,
    ) -> None:
        self.name = name
        self.produces: tuple[str, ...] = tuple(produces)
        self.requires: tuple[str, ...] = tuple(dict.fromkeys(requires))
        self.run = run
        self.split = split
        self.recipe = recipe
        self.volatile = volatile
        self.keep = keep

    def __repr__(self) -> str:
        return f"<Step {self.name}>"


class Found:
    """What a shelf knows of a making.

    Attributes:
        decision: whether it can be used again, and why not.
        products: one for each name, as far as their digests are known; their values may be out of reach.
        seconds: how long it took, or the last making of the step did; None: unknown.
    """

    __slots__ = ("decision", "products", "seconds")

    def __init__(self, decision: Decision, products: list[Product] | None = None, seconds: float | None = None) -> None:
        self.decision = decision
        self.products = products
        self.seconds = seconds


class Planned:
    """A line of a plan.

    Attributes:
        step: which step.
        decision: reuse or run, and why; None: that depends on what the steps before it make.
        needed: whether it is looked at at all by a build: not if nothing that has to run wants its products.
        seconds: how long it took last time; None: unknown.
    """

    __slots__ = ("decision", "needed", "seconds", "step")

    def __init__(self, step: Step, decision: Decision | None, needed: bool, seconds: float | None) -> None:
        self.step = step
        self.decision = decision
        self.needed = needed
        self.seconds = seconds

    @property
    def runs(self) -> bool:
        """Whether it will run, as far as that is known: one whose inputs are made anew counts as running."""
        return self.needed and (self.decision is None or not self.decision.reuse)

    def __repr__(self) -> str:
        why = "it depends on its inputs" if self.decision is None else str(self.decision)
        return f"<Planned {self.step.name}: {'run' if self.runs else 'reuse'}, {why}>"


class _Look:
    """A step, as a look over all of them found it."""

    __slots__ = ("began", "decision", "needed", "products", "recipe", "seconds", "step")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.recipe: Recipe | None = None
        self.decision: Decision | None = None
        self.products: list[Product] | None = None
        self.seconds: float | None = None
        self.needed = False
        self.began = 0.0


class Build:
    """Makes products of steps. One thread at a time."""

    def __init__(
        self,
        steps: Iterable[Step],
        shelf: Shelf | None = None,
        *,
        given: Mapping[str, Product] | None = None,
        force: Container[str] = (),
        window: int | None = None,
        keep_going: bool = False,
        tell: Callable[[str, Step, Any], object] | None = None,
    ) -> None:
        """Prepare to build; nothing is looked at yet.

        Args:
            steps: every step that may be needed.
            shelf: where products are kept; None: nowhere, and no recipe is computed.
            given: products that are there already, whatever their steps would say.
            force: names of steps that run whatever is kept.
            window: how many steps may run at once; None: as many as their runners take.
            keep_going: whether what doesn't depend on a step that failed is made all the same.
            tell: called in the driving thread with "reused" (and the Decision), "started" (None), "made" (seconds) or
                "failed" (the Failure), and the step.

        Raises:
            UsageError: two steps have the same name, or produce the same.
        """
        self._producer: dict[str, Step] = {}
        names: set[str] = set()
        for step in steps:
            if step.name in names:
                raise UsageError(f"two steps are called {step.name!r}: a step's name is its own")
            names.add(step.name)
            for name in step.produces:
                if self._producer.setdefault(name, step) is not step:
                    raise UsageError(f"{name!r} is produced by {self._producer[name].name} and by {step.name}")
        self._shelf = shelf
        self._given = given or {}
        self._force = force
        self._window = window
        self._keep_going = keep_going
        self._tell = tell
        self._known: dict[str, Product] = {}  # what the names stand for, as far as their digests are known
        self._made: dict[Step, list[Product]] = {}  # by this build
        self._gone: set[str] = set()  # names whose values turned out to be out of reach
        self._suspended = False
        self._cost: dict[str, float] = {}  # seconds that it takes to digest values
        self._costly: dict[str, float] = {}  # those that are not digested again
        self._users: dict[str, int] = {}  # steps that have still to run, or to be decided, by what they want
        self._values: set[str] = set()  # names whose values somebody wants, as far as that is known
        self._targets: frozenset[str] = frozenset()

    # ------------------------------------------------------------------ looking

    def plan(self, targets: Iterable[str]) -> list[Planned]:
        """What `make` would do, each step after those that it needs; nothing runs, no value is loaded.

        Raises:
            CyclicWorkflowError: what is wanted needs itself.
            UsageError: nothing produces a target, or what it needs.
        """
        looks = self._look(list(targets))
        return [Planned(one.step, one.decision, one.needed, one.seconds) for one in looks]

    def _look(self, targets: Sequence[str]) -> list[_Look]:
        """Every step that the targets need, in order, with what is decided so far, and whether it is needed."""
        self._known = dict(self._given)
        looks = [_Look(step) for step in self._order(targets)]
        for look in looks:
            self._decide(look)
        self._mark_needed(looks, targets)
        return looks

    def _order(self, targets: Sequence[str]) -> list[Step]:
        """The steps behind the targets, each after those whose products it needs and that are not given."""
        producer, given = self._producer, self._given
        order: list[Step] = []
        closed: dict[Step, bool] = {}  # False: it is on the way from a target to the step that is looked at
        todo = [self._step_of(name, None) for name in reversed(targets) if name not in given]
        while todo:
            step = todo[-1]
            mark = closed.get(step)
            if mark is None:
                closed[step] = False
                for name in reversed(step.requires):
                    if name in given:
                        continue
                    other = producer.get(name)
                    if other is None:
                        other = self._step_of(name, step)
                    known = closed.get(other)
                    if known is None:
                        todo.append(other)
                    elif not known:
                        raise self._cycle()
            else:
                todo.pop()
                if not mark:
                    closed[step] = True
                    order.append(step)
        return order

    def _step_of(self, name: str, user: Step | None) -> Step:
        step = self._producer.get(name)
        if step is None:
            error = unknown_target(name, [*self._producer, *self._given])
            raise UsageError(str(error) if user is None else f"{user.name} needs {name!r}, but {error}")
        return step

    def _cycle(self) -> CyclicWorkflowError:
        steps = list(dict.fromkeys(self._producer.values()))
        numbers = {step: number for number, step in enumerate(steps)}
        needs = {
            numbers[step]: [numbers[self._producer[name]] for name in step.requires if name in self._producer]
            for step in steps
        }
        return CyclicWorkflowError([steps[number].name for number in find_cycle(needs)])

    def _decide(self, look: _Look) -> Decision | None:
        """Decide about a step, if the digests of its inputs are known."""
        step, known = look.step, self._known
        products = self._made.get(step)
        if products is not None:
            look.decision = Decision(True, "up to date", "made just now")
        else:
            digests: dict[str, str] = {}
            for name in step.requires:
                product = known.get(name)
                if product is None:
                    return None
                digests[name] = product.digest
            if self._shelf is None:
                look.decision = Decision(False, "first run")
                return look.decision
            look.recipe = step.recipe(digests)
            if step.volatile or step.name in self._force:
                look.decision = Decision(False, "forced" if step.name in self._force else "volatile")
                return look.decision
            found = self._shelf.find(step, look.recipe)
            look.decision, products, look.seconds = found.decision, found.products, found.seconds
        if products is None:
            return look.decision
        if self._gone and not self._gone.isdisjoint(step.produces):
            if look.decision.reuse:
                look.decision = Decision(False, "entry corrupt", "a product that was kept can't be read")
            pairs = zip(step.produces, products, strict=True)
            products = [Product(one.digest) if name in self._gone else one for name, one in pairs]
        look.products = products
        known.update(zip(step.produces, products, strict=True))
        return look.decision

    def _mark_needed(self, looks: Sequence[_Look], targets: Iterable[str]) -> None:
        """Find what is needed: from the targets back, no further than to what can be reused."""
        self._values = values = set(targets)  # names whose values are needed
        digests: set[str] = set()  # names of which it is enough to know what they are, as far as that is known
        users: dict[str, int] = {}
        self._users = users
        for look in reversed(looks):
            step = look.step
            look.needed = not (values.isdisjoint(step.produces) and digests.isdisjoint(step.produces))
            decision = look.decision
            if not look.needed or (decision is not None and (decision.reuse or self._suffices(look))):
                if not self._may_be_wanted(look, digests):
                    continue
                digests.update(step.requires)
            elif decision is None:
                digests.update(step.requires)
            else:
                values.update(step.requires)
            for name in step.requires:
                users[name] = users.get(name, 0) + 1

    @staticmethod
    def _may_be_wanted(look: _Look, digests: Container[str]) -> bool:
        """Whether a product that nobody is known to want, and that was not kept, may be wanted after all.

        Then the step has to run, and what it is given must still be there.
        """
        pairs = zip(look.step.produces, look.products or (), strict=False)
        return any(name in digests and not product.kept for name, product in pairs)

    def _suffices(self, look: _Look) -> bool:
        """Whether what is known of a step's products is all that anybody asks for: then it is as good as up to date."""
        if look.products is None:
            return False
        for name, product in zip(look.step.produces, look.products, strict=True):
            if name in self._values and not (product.kept or product.loaded):
                return False
        if look.decision is not None and not look.decision.reuse:
            look.decision = Decision(True, "up to date", "what was not kept isn't needed")
        return True

    # ------------------------------------------------------------------ making

    def make(self, targets: Iterable[str]) -> dict[str, Product]:
        """Make the targets: reuse what can be reused, run what has to run; their values are loaded.

        Raises:
            CyclicWorkflowError: what is wanted needs itself; nothing was started.
            UsageError: nothing produces a target, or what it needs; nothing was started.
            Exception: what a step raised; or the Failure it ended in.
        """
        wanted = list(dict.fromkeys(targets))
        self._targets = frozenset(wanted)
        told: set[Step] = set()
        while True:
            looks = self._look(wanted)
            for look in looks:
                if look.needed and look.decision is not None and look.decision.reuse and look.step not in told:
                    told.add(look.step)
                    if look.step not in self._made:
                        self._say("reused", look.step, look.decision)
            runs = [look for look in looks if look.needed and not (look.decision is not None and look.decision.reuse)]
            self._suspended = False
            before = len(self._made), len(self._gone)
            if runs:
                self._run(runs)
            if self._suspended and before == (len(self._made), len(self._gone)):
                raise InternalError(f"a build of {', '.join(wanted)} does not come on: {runs[0].step.name} waits")
            if runs:
                told.update(look.step for look in runs if look.decision is not None and look.decision.reuse)
            if not self._suspended and self._load(wanted):
                return {name: self._known[name] for name in wanted}

    def _load(self, names: Sequence[str]) -> bool:
        """Load values; False if one can't be had after all, which is noted."""
        for name in names:
            try:
                self._known[name].value  # noqa: B018 - it is loaded by being asked for
            except KeyError:
                if name in self._given:
                    raise UsageError(f"{name!r} was given, but its value can't be had") from None
                if name in self._gone:
                    raise InternalError(f"{name!r} was made again, and is gone again") from None
                self._gone.add(name)
                return False
        return True

    def _run(self, looks: Sequence[_Look]) -> None:
        """Run steps, or find that they needn't, each when its inputs are there."""
        place = {look.step: number for number, look in enumerate(looks)}
        nodes = []
        for number, look in enumerate(looks):
            step = look.step
            after = dict.fromkeys(place[one] for one in map(self._producer.get, step.requires) if one in place)
            nodes.append(Node((number,), partial(self._begin, look), after=tuple(after), label=step.name))
            nodes.append(Node(number, partial(self._finish, look), ((number,),), label=step.name, seconds=look.seconds))
        observers: list[Callable[[Event], object]] = []
        if self._tell is not None or _notify.listening:
            observers.append(partial(self._note_failure, looks))
        engine = Engine(nodes, window=self._window, stop_on_failure=not self._keep_going, observers=observers)
        engine._settings.silent = True  # its nodes are halves of steps
        with _off_the_loop():
            well = engine.orchestrate()
        if not well:
            raise self._error(looks, engine.failures)

    @staticmethod
    def _error(looks: Sequence[_Look], failures: Mapping[Any, Failure]) -> BaseException:
        """What `make` raises: the first failure that is a step's own."""
        target, failure = next(
            ((target, one) for target, one in failures.items() if not isinstance(one, DependencyFailure)),
            next(iter(failures.items())),
        )
        error = BaseTaskRun._error(failure)
        step = looks[target[0] if isinstance(target, tuple) else target].step
        if failure.run == step.name:  # it ran here: no run has added a note
            _exceptions.add_note(error, f"woflo: step {step.name!r}")
        return error

    def _begin(self, look: _Look) -> Any:
        """Start a step whose inputs are there, if it has to run: what it returns is its raw value, or will be."""
        step = look.step
        if look.decision is None:
            decision = self._decide(look)
            if decision is None:  # an input was suspended
                self._suspended = True
                return _ENDED
            if decision.reuse or self._suffices(look):
                self._say("reused", step, look.decision)
                if decision.reuse:  # else it may have to run after all
                    self._let_go(step)
                return _ENDED
        values = {}
        for name in step.requires:
            try:
                values[name] = self._known[name].value
            except KeyError:
                if name in self._given:
                    raise UsageError(f"{name!r} was given, but its value can't be had") from None
                self._gone.add(name)
        if len(values) < len(step.requires):  # something that nobody seemed to want has to be made first
            for name in step.produces:
                self._known.pop(name, None)
            self._suspended = True
            return _ENDED
        self._say("started", step, None)
        marks = {} if self._shelf is None else self._marks(values)
        look.began = monotonic()
        value = step.run(values)
        if value.__class__ is CoroutineType or is_run(value.__class__):
            return value
        if marks:
            self._restore(look, values, marks)
        self._take(look, value)
        return _ENDED

    def _marks(self, values: Mapping[str, Any]) -> dict[str, bytes]:
        """The digests of what a step is given that others will be given too: it may change it in place."""
        marks = {}
        for name, value in values.items():
            shared = self._users.get(name, 0) > 1 or name in self._targets or name in self._given
            if shared and type(value) not in _PLAIN and name not in self._costly:
                begin = monotonic()
                try:
                    marks[name] = _fingerprint().digest(value)
                except _fingerprint().Undigestible:
                    self._costly[name] = _NEVER
                    continue
                self._cost[name] = monotonic() - begin
        return marks

    def _restore(self, look: _Look, values: Mapping[str, Any], marks: Mapping[str, bytes]) -> None:
        """Whoever comes next gets what a step was given as it was made, also if the step has changed it in place.

        What takes long to digest, beside the step itself, is looked at once.
        """
        step, seconds = look.step, monotonic() - look.began
        for name, mark in marks.items():
            if self._cost[name] > max(_CHEAP_SECONDS, _CHEAP_SHARE * seconds):
                self._costly[name] = self._cost[name]
            try:
                same = _fingerprint().digest(values[name]) == mark
            except _fingerprint().Undigestible:
                same = False
            if not same and self._shelf is not None and self._shelf.restore(step, name) and self._known[name].kept:
                self._known[name].drop()

    def _finish(self, look: _Look, value: Any) -> None:
        """In the driver again: take what a step that ran elsewhere made."""
        if value is not _ENDED:
            self._take(look, value)

    def _take(self, look: _Look, value: Any) -> None:
        step, recipe = look.step, look.recipe
        seconds = monotonic() - look.began
        values = step.split(value)
        if len(values) != len(step.produces):
            raise InternalError(f"{step.name} produces {len(step.produces)} products, and was split into {len(values)}")
        if self._shelf is None or recipe is None:
            products = [Product("", one) for one in values]
        else:
            products = self._shelf.keep(step, recipe, values, seconds)
        self._made[step] = products
        self._gone.difference_update(step.produces)
        self._known.update(zip(step.produces, products, strict=True))
        for name, product in zip(step.produces, products, strict=True):
            if not self._users.get(name) and name not in self._targets:
                product.drop()
        self._let_go(step)
        self._say("made", step, seconds)

    def _let_go(self, step: Step) -> None:
        """The step wants its inputs no more: those that nobody else wants are dropped."""
        users = self._users
        for name in step.requires:
            left = users[name] = users[name] - 1
            if not left and name not in self._targets and name not in self._given:
                self._known[name].drop()

    # ------------------------------------------------------------------ telling

    def _say(self, what: str, step: Step, detail: Any) -> None:
        if self._tell is not None:
            self._tell(what, step, detail)
        if _notify.listening:
            from woflo import events

            if what == "started":
                events.emit(events.NodeStarted(step.name, step.name))
            elif what == "reused":
                events.emit(events.NodeReused(step.name, step.name, str(detail)))
            else:
                failed = what == "failed"
                events.emit(
                    events.NodeEnded(step.name, step.name, detail if failed else None, 0.0 if failed else detail)
                )

    def _note_failure(self, looks: Sequence[_Look], event: Event) -> None:
        failure: Failure | None = getattr(event, "failure", None)
        if failure is not None and not isinstance(failure, DependencyFailure):
            target: Any = event.target  # type: ignore[attr-defined]
            self._say("failed", looks[target[0] if isinstance(target, tuple) else target].step, failure)


def _fingerprint() -> Any:
    """The module, loaded when the first value is to be digested."""
    from woflo import _fingerprint as module

    return module


class _off_the_loop:  # noqa: N801 - used like a function
    """A block that may wait although an event loop runs in this thread, as in a notebook: coroutines run on another one."""

    def __enter__(self) -> None:
        asyncio = sys.modules.get("asyncio")
        running = getattr(asyncio, "_get_running_loop", None)  # none yet while another thread imports it
        self._loop = None if running is None else running()
        if self._loop is not None:
            refuse_own_loop("a build", "it from a thread (asyncio.to_thread)")
            asyncio._set_running_loop(None)  # type: ignore[union-attr]

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            sys.modules["asyncio"]._set_running_loop(self._loop)
