"""Actions: coroutines, tasks and functions that require each other, and the Engine that carries them out together.

A thin face: an Engine here makes a graph of its actions (the action itself is the target, what it requires comes before
it) and has `woflo.engine.Engine` drive that. All that happens meanwhile is decided there; here is decided what can be an
action, and to which engine it belongs.

Rule 1: a coroutine runs on the loop that drives: the caller's under `co_orchestrate`, woflo's own under `orchestrate`.
Rule 2: an action belongs to the engine that ran it first.
Rule 3: everything that can be refused is refused before anything starts, in nested engines too.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from collections import Counter
from collections.abc import Coroutine
from functools import partial
from weakref import finalize

from woflo import engine as _engine
from woflo._abstract_action import NO_LABEL, AbstractAction, all_of, labels
from woflo._shutdown import SHUTDOWN_SECONDS, Shutdown
from woflo.errors import CyclicWorkflowError, UsageError
from woflo.graph import Graph, Node
from woflo.result import Ok, TaskFailure
from woflo.runners._inputs import is_run
from woflo.runners.base import BaseTaskRun
from woflo.task import Task, _name_of, task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from woflo.events import Event
    from woflo.result import Result

__all__ = ["AbstractAction", "Action", "Engine", "Sequence"]

_USED_UP = (
    "{} can't run again: its coroutine has begun, and a coroutine runs once; make the Action of the coroutine function instead,"
    " Action(f) for Action(f())"
)
_claims = allocate_lock()  # held while an engine makes sure that no other is at work on its actions


class Action(AbstractAction):
    """An action made of a coroutine, a Task, or any callable without arguments.

    A coroutine object runs once; a coroutine function, a Task and a function run again where the engine needs that. A plain
    function is called in a thread; if it returns a coroutine or a TaskRun, the action's result is what that ends in.
    """

    def __init__(
        self,
        work: Coroutine[Any, Any, Any] | Callable[[], Any],
        label: str | None = None,
        *,
        forever: bool = False,
        critical: bool = False,
        runner: type[BaseTaskRun[Any]] | None = None,
    ) -> None:
        """Describe the action; nothing starts.

        Args:
            work: a coroutine, a Task, a coroutine function, or any callable; called without arguments: for some of
                them there is `functools.partial`.
            label: what it is called in texts.
            forever: it does not end by itself; it is cancelled when all others have ended.
            critical: when it fails, everything else in its engine is stopped.
            runner: where a Task or a function runs, if not where it says itself.

        Raises:
            UsageError: `work` is nothing of that kind, or a coroutine object with a runner.
        """
        super().__init__(label=label, forever=forever, critical=critical)
        self._call: Any = work  # gives a value, a coroutine or a run
        self._task: Task[..., Any] | None = None  # that is all there is to it
        self._guard: Any = None  # of a coroutine that has not begun
        self._named = work.name if isinstance(work, Task) else _name_of(work)
        if isinstance(work, Coroutine):
            if runner is not None:
                raise UsageError(
                    "a coroutine runs on the loop that drives: runner= is for Tasks and functions, Action(fn, runner=…)"
                )
            # Dropped without having run it is closed, so that Python doesn't warn. Not by __del__: the coroutine may be
            # finalised first where the two are part of a cycle.
            self._guard = finalize(self, work.close)
        elif not callable(work) or isinstance(work, (AbstractAction, BaseTaskRun)):
            raise UsageError(f"an Action is made of a coroutine, a Task or a callable, not of {type(work).__name__}")
        elif isinstance(work, Task):
            self._call = self._task = work.options(runner=runner) if runner is not None else work
        elif isinstance(work, partial) and isinstance(work.func, Task):
            if runner is not None:
                self._call = partial(work.func.options(runner=runner), *work.args, **work.keywords)
        elif runner is not None:
            self._call = self._task = task(work, runner=runner)
        else:
            from woflo.runners.thread import ThreadTaskRun

            plain: Task[..., Any] = task(work, runner=ThreadTaskRun)
            self._call = work if plain.is_async else plain

    async def corun(self) -> Any:
        """Carry out what it was made of."""
        if self._guard is None:
            value = self._call()
        elif self._guard.detach():
            value = self._call
        else:
            raise UsageError(_USED_UP.format(self._name))
        while True:
            if is_run(type(value)):
                value = await _until_ended(value)
            elif isinstance(value, Coroutine):
                value = await value
            else:
                return value

    @property
    def _name(self) -> str:
        return self._named if self._shown is NO_LABEL else self._shown

    def _is_used_up(self) -> bool:
        return self._guard is not None and not self._guard.alive

    def _work(self) -> Task[..., Any]:
        if self._task is None or self._has_hook() or type(self).corun is not Action.corun:
            return super()._work()
        return self._task


class Sequence:
    """Actions that follow each other: each requires the one before it.

    >>> said = []
    >>> steps = Sequence(*(Action(lambda n=n: said.append(n)) for n in range(3)))
    >>> Engine(steps).orchestrate(), said
    (True, [0, 1, 2])

    Attributes:
        actions: all of them, in their order.
    """

    def __init__(self, *actions: AbstractAction | Sequence) -> None:
        """Put actions, or sequences of them, one behind the other.

        Raises:
            UsageError: there are none, or one of them is no action.
        """
        self.actions: tuple[AbstractAction, ...] = ()
        self.append(*actions)
        if not self.actions:
            raise UsageError("a Sequence has at least one action")

    def append(self, *actions: AbstractAction | Sequence) -> None:
        """Put further actions, or sequences of them, at the end."""
        for one in actions:
            further = all_of(one)
            if self.actions:
                further[0].requires(self.actions[-1])
            self.actions += further

    def requires(self, *actions: AbstractAction | Sequence) -> None:
        """Have the first one start only when all of `actions` have succeeded."""
        self.actions[0].requires(*actions)

    def __repr__(self) -> str:
        return f"<Sequence [{labels(self.actions)}]>"


class Engine(AbstractAction):
    """Carries out actions together; it is itself an action.

    Each starts as soon as all that it requires has succeeded.

    >>> first, last = Action(lambda: 1, label="first"), Action(lambda: 2, label="last")
    >>> last.requires(first)
    >>> Engine(first, last).orchestrate()
    True
    >>> last
    <Action `last' finished -> 2 - [requires [first]]>

    What has ended is kept: a second `orchestrate()` runs only what has not. Nested in another engine it fails if one of its
    own actions does, and is cancelled, with all that it runs, when that one is.
    """

    _shutdown: Shutdown

    def __init__(
        self,
        *actions: AbstractAction | Sequence,
        label: str | None = None,
        forever: bool = False,
        critical: bool = False,
        window: int | None = None,
        stop_on_failure: bool = False,
        observers: Iterable[Callable[[Event], object]] = (),
    ) -> None:
        """Put actions together; nothing starts.

        Args:
            actions: in any order; of a Sequence, all that it has now.
            label: what it is called in texts, as an action of another engine.
            forever: as an action of another engine: it is stopped when all others there have ended.
            critical: as an action of another engine: when it fails, everything else there is stopped.
            window: how many of its actions may run at once (those that run forever don't count); None: all.
            stop_on_failure: when an action fails, stop all others; else those that don't require it go on.
            observers: called with every NodeStarted and NodeEnded of its actions; `event.target` is the action. And with the
                RunProgress of their runs.

        Raises:
            UsageError: one of them is no action, or `window` is no positive whole number.
        """
        super().__init__(label=label, forever=forever, critical=critical)
        self._members = dict.fromkeys(action for one in actions for action in all_of(one))
        self._core = _engine.Engine((), window=window, stop_on_failure=stop_on_failure, observers=observers)
        self._nodes: dict[AbstractAction, Node] = {}
        self._shutdown = Shutdown(self._members)

    @property
    def actions(self) -> tuple[AbstractAction, ...]:
        """Its actions, in the order given, but as in a Makefile each stands before those that it requires."""
        return tuple(reversed(_ordered(reversed(self._members))))

    def orchestrate(self, timeout: float | None = None) -> bool:
        """Carry out all actions; block until they have ended. True if all have succeeded; `why()` says why not.

        Coroutines run on a loop in a thread; so this can be called where a loop is running already (in a notebook), which
        is blocked meanwhile. Those that run forever are cancelled when the others have ended, and are no failures then.

        Args:
            timeout: seconds; then everything is stopped.

        Raises:
            UsageError: it can't be carried out as it is; nothing was started.
            CyclicWorkflowError: actions require each other; nothing was started.
        """
        try:
            return self._core.orchestrate(*self._take(), timeout=timeout)
        finally:
            self._give_back()

    async def co_orchestrate(self, timeout: float | None = None) -> bool:
        """`orchestrate` for an event loop, on which coroutines then run. Cancelling it stops everything, nested engines too."""
        try:
            return await self._core.co_orchestrate(*self._take(), timeout=timeout)
        finally:
            self._give_back()

    def stop(self) -> None:
        """Stop everything that has not ended; from any thread. `orchestrate` then returns False."""
        self._core.stop()

    def why(self) -> str:
        """Why the last `orchestrate` or `shutdown` returned False; "all is well" if they returned True."""
        return "; ".join(filter(None, (self._core._complaint, self._shutdown.complaint))) or "all is well"

    def list(self) -> None:
        """Print one line per action, each below what it requires; those of nested engines are indented."""
        todo = [(one, 0) for one in reversed(_ordered(self._members))]
        while todo:
            action, depth = todo.pop()
            sys.stdout.write(f"{'    ' * depth}{action}\n")
            if isinstance(action, Engine):
                todo.extend((one, depth + 1) for one in reversed(_ordered(action._members)))

    def shutdown(self, timeout: float = SHUTDOWN_SECONDS) -> bool:
        """Call each action's `coshutdown`, one after another, last started first; block. True if none has failed.

        One that fails or takes too long doesn't keep the others from being called; `why()` says which. They are called on
        the loop where the actions ran, which is kept for it; what has been shut down is so again only if it has run again.

        Args:
            timeout: seconds for each of them; then it is cancelled.

        Raises:
            UsageError: the engine is at work, or this is the thread of the loop where they are to be called.
        """
        self._check_idle()
        return self._shutdown.all(timeout)

    async def co_shutdown(self, timeout: float = SHUTDOWN_SECONDS) -> bool:
        """`shutdown` for an event loop. Cancelled, it cancels the `coshutdown` that is under way and calls no more."""
        self._check_idle()
        return await self._shutdown.co_all(timeout)

    async def corun(self) -> bool:
        """Carry out all actions, as an action of another engine; it fails if one of them does."""
        if not await self.co_orchestrate(timeout=float("inf") if self.forever else None):
            raise TaskFailure(self.why())
        return True

    # ------------------------------------------------------------------ beginning and end

    def _check_idle(self) -> None:
        for engine in self._nested():
            if engine._core._working or engine._shutdown.core._working:
                raise UsageError(f"{engine._name} is at work, or being shut down: wait until that has returned")

    def _take(self) -> Iterable[AbstractAction]:
        """Refuse what can't be carried out; else the graph is made, and the actions are this engine's."""
        self._check_idle()
        graphs = {engine: engine._graph() for engine in self._nested()}
        owners: dict[AbstractAction, Engine] = {}
        with _claims:
            for engine in graphs:
                for action in engine._members:
                    if action._engine not in {None, engine} or owners.setdefault(action, engine) is not engine:
                        raise UsageError(
                            f"{action._name} is in two engines, and the other one runs it: an action belongs to one; make"
                            " another Action of the same function for this one"
                        )
                    if action._is_used_up() and action._status() in {"stopped", "idle"}:
                        raise UsageError(_USED_UP.format(action._name))
            # before they are ours: their state is asked of it, also when Ctrl-C comes here
            self._core.graph = graphs[self]
            for action in self._members:
                action._engine = self
        self._shutdown.complaint = ""
        return self._members

    def _give_back(self) -> None:
        """What was not begun because it was refused is free for another engine."""
        for action in self._members:
            if action._engine is self and self._core.status(action) == "idle":
                action._engine = None

    def _nested(self) -> tuple[Engine, ...]:
        """This engine and all below it, each once."""
        found = {self: None}
        todo = [self]
        while todo:
            for action in todo.pop()._members:
                if isinstance(action, Engine) and action not in found:
                    found[action] = None
                    todo.append(action)
        return tuple(found)

    def _graph(self) -> Graph:
        """The actions as a graph; a node that is as it was stays the same, so that the core engine knows it again."""
        names: Counter[str] = Counter()
        for action in self._members:
            for required in action._required:
                if required not in self._members:
                    raise UsageError(
                        f"{action._name} requires {required._name}, which is not in the same engine: put it in there too"
                    )
            name = action._name
            names[name] += 1
            node = self._nodes.get(action)
            how = tuple(action._required), bool(action.forever), bool(action.critical)
            if node is None or (node.after, node.forever, node.critical) != how:
                self._nodes[action] = Node(
                    action,
                    action._work(),
                    after=how[0],
                    forever=action.forever,
                    critical=action.critical,
                    label=name if names[name] == 1 else f"{name} ({names[name]})",
                )
        graph = Graph(self._nodes[action] for action in self._members)
        try:
            graph.topological()
        except CyclicWorkflowError as error:
            raise CyclicWorkflowError([one._name for one in error.cycle]) from None  # type: ignore[attr-defined]
        return graph

    def _status(self) -> str:
        status, core = super()._status(), self._core
        if core._working or status != "idle" or core._drive is None:
            return "running" if core._working else status
        return "failed" if core._complaint else "succeeded"

    def _outcome(self) -> Result[Any]:
        if self._core._working or super()._status() != "idle" or self._core._drive is None:
            return super()._outcome()
        why = self._core._complaint
        return TaskFailure(why, task=self._name, run=self._name) if why else Ok(True)


def _ordered(actions: Iterable[AbstractAction]) -> list[AbstractAction]:
    """In their order, but each behind what it requires; as they are if they require each other."""
    graph = Graph(Node(action, after=action._required) for action in actions)
    try:
        return [node.target for node in graph.topological()]  # type: ignore[misc]
    except CyclicWorkflowError:
        return [node.target for node in graph]  # type: ignore[misc]


async def _until_ended(run: BaseTaskRun[Any]) -> Any:
    """The value of a run, which is stopped if we are cancelled."""
    import asyncio

    try:
        return await run
    except asyncio.CancelledError:  # of ours: a task's own is a TaskFailure
        run.stop(wait=False)
        await asyncio.wait([asyncio.gather(run, return_exceptions=True)])  # it ends, or is abandoned after the grace
        raise
