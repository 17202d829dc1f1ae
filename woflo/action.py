"""Actions: coroutines, tasks and functions that require each other, and the Engine that carries them out together.

A thin face: an Engine here turns its actions into a graph (the action itself is the target, what it requires comes before
it) and has `woflo.engine.Engine` drive that. All that happens while it runs is decided there; here is decided what an action
is, what it looks like, to which engine it belongs, and how it is shut down.

Rule 1: a coroutine runs on the loop that drives: the caller's under `co_orchestrate`, woflo's own under `orchestrate`.
Rule 2: an action belongs to the engine that ran it first; what it ended in is asked of that engine, and kept nowhere else.
Rule 3: everything that can be refused is refused before anything starts, in nested engines too.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from collections.abc import Coroutine, Iterable
from functools import partial
from itertools import count
from weakref import finalize

from woflo import _exceptions, _notify
from woflo import engine as _engine
from woflo.errors import CyclicWorkflowError, UsageError
from woflo.graph import Graph, Node
from woflo.result import DependencyFailure, Ok, TaskFailure
from woflo.runners._attempt import GRACE
from woflo.runners._inputs import is_run
from woflo.runners.base import BaseTaskRun
from woflo.task import Task, _name_of, task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Awaitable, Callable
    from typing import Any, Self

    from woflo.events import Event
    from woflo.result import Failure, Result

__all__ = ["AbstractAction", "Action", "Engine", "Sequence"]

SHUTDOWN_SECONDS = 5.0  # for each `coshutdown`, unless the caller says otherwise: closing a connection is a round trip
_SHOWN = 60  # characters of a result, and names of other actions' that a repr shows: it is one line on a screen
_NAMED = 8
_NO_LABEL = "NO_LABEL"
_WORDS = {"succeeded": "finished"}  # what a repr calls a state, where the engine's word is another
_UNENDED = frozenset({"idle", "waiting", "running"})
_claims = allocate_lock()  # held while an engine makes sure that no other is at work on its actions


class AbstractAction:
    """What an Engine carries out: `corun()`, a coroutine.

    It starts once all that it requires has succeeded. Write `corun` in a class of your own;
    calling `super().__init__` is not needed.

    >>> class Hello(AbstractAction):
    ...     async def corun(self):
    ...         return "hello"
    >>> hello = Hello(label="greeting")
    >>> Engine(hello).orchestrate(), hello.result()
    (True, 'hello')

    Attributes:
        label: what it is called in texts; may be None.
        forever: it does not end by itself, and is cancelled when all others have ended.
        critical: when it fails, everything else in its engine is stopped.
    """

    label: str | None = None
    forever: bool = False
    critical: bool = False
    _required: dict[AbstractAction, None]  # in the order in which they were told
    _allowed: dict[AbstractAction, None]  # those that require it
    _engine: Engine | None  # the one that runs it, or ran it first
    _told: tuple[Failure, Failure] | None  # a DependencyFailure of the engine's, and what is told instead of it

    def __new__(cls, *_: Any, **__: Any) -> Self:
        self = super().__new__(cls)
        self._required, self._allowed, self._engine, self._told = {}, {}, None, None
        return self

    def __init__(self, *, label: str | None = None, forever: bool = False, critical: bool = False) -> None:
        """Describe the action; nothing starts.

        Args:
            label: what it is called in texts.
            forever: it does not end by itself; it is cancelled when all others have ended.
            critical: when it fails, everything else in its engine is stopped.
        """
        self.label = label
        self.forever = forever
        self.critical = critical

    async def corun(self) -> Any:
        """What the action does: yours to write. Its value is the action's result."""
        raise NotImplementedError(f"{type(self).__name__} has to say what it does: async def corun(self)")

    async def coshutdown(self) -> None:
        """Called by `Engine.shutdown()`, on the loop where the action ran: yours to write, if there is something to close."""

    def requires(self, *actions: AbstractAction | Sequence) -> None:
        """Have this one start only when all of `actions` have succeeded.

        Args:
            actions: of the same engine; of a Sequence the last one counts, and with it all.

        Raises:
            UsageError: one of them is no action, or this one itself.
        """
        for one in actions:
            if one is self:
                raise UsageError(f"{self._name} can't require itself")
            other = one.actions[-1] if isinstance(one, Sequence) else _checked(one, "requires()")
            _checked(self, "requires()")
            self._required[other] = None
            other._allowed[self] = None

    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._status() == "running"

    def is_done(self) -> bool:
        """Whether it has ended, in whichever way."""
        return self._status() not in _UNENDED

    def result(self) -> Any:
        """The value that it returned.

        Raises:
            Exception: what it raised; the Failure if that is no Exception, or if it was stopped or never ran.
            UsageError: it has not ended.
        """
        result = self._outcome()
        if not result:
            raise BaseTaskRun._error(result)
        return result.value

    def exception(self) -> BaseException | None:
        """What `result()` would raise; None if it succeeded.

        Raises:
            UsageError: it has not ended.
        """
        result = self._outcome()
        return None if result else BaseTaskRun._error(result)

    @property
    def _name(self) -> str:
        """What failures and events call it."""
        return self._shown

    @property
    def _shown(self) -> str:
        """What lists call it."""
        return _NO_LABEL if self.label is None or self.label == "" else str(self.label)

    def _status(self) -> str:
        return "idle" if self._engine is None else self._engine._core.status(self)

    def _outcome(self) -> Result[Any]:
        status = self._status()
        if self._engine is None or status in _UNENDED:
            raise UsageError(f"{self._name} has not ended: it is {status}")
        result = self._engine._core.outcome(self)
        if not isinstance(result, DependencyFailure):
            return result
        told = self._told
        if told is None or told[0] is not result:  # by names: a failure can be pickled, and an engine can't
            self._told = told = result, _by_names(result)
        return told[1]

    def _work(self) -> Task[..., Any]:
        """What the core engine starts: a Task."""
        from woflo.runners.asynchronous import AsyncTaskRun

        return task(self._carry_out, name=self._name, runner=AsyncTaskRun)

    async def _carry_out(self) -> Any:
        if self._engine is not None and self._has_hook():
            self._engine._arrived()
        work: Any = self.corun()
        if not hasattr(work, "__await__"):
            raise UsageError(f"corun() of {self._name} has to be a coroutine: async def corun(self)")
        return await work

    def _has_hook(self) -> bool:
        """Whether there is something to shut down."""
        return getattr(self.coshutdown, "__func__", None) is not AbstractAction.coshutdown

    async def _shut_down(self, seconds: float) -> None:
        """Call the hook; after `seconds` it is cancelled, after the grace left alone.

        Raises:
            TimeoutError: it took longer.
            Exception: whatever the hook raised.
        """
        import asyncio

        hook = asyncio.ensure_future(_raised_by(self.coshutdown))
        late = False
        try:
            await asyncio.wait([hook], timeout=seconds)
            late = not hook.done()
        finally:
            if not hook.done():
                hook.cancel()
                await asyncio.wait([hook], timeout=GRACE)
        if late:
            raise TimeoutError(f"it took longer than {seconds:g} s")
        error = TaskFailure("it cancelled itself") if hook.cancelled() else hook.result()
        if error is not None:
            raise error

    def __repr__(self) -> str:
        status = self._status()
        text = f"<{type(self).__name__} `{self._shown}' {_WORDS.get(status, status)}"
        if status in {"succeeded", "failed"}:
            result = self._outcome()
            text += f" -> {_short(result.value) if result else _short(result.message)}"
        bonds = [
            f"[{word} [{_labels(others)}]]"
            for word, others in (("requires", self._required), ("allows", self._allowed))
            if others
        ]
        return f"{text}{' - ' if bonds else ''}{' '.join(bonds)}>"


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
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._guard: Any = None
        self._task: Task[..., Any] | None = None  # that is all there is to it
        self._call: Any = None  # else: gives a value, a coroutine or a run
        self._named = _NO_LABEL
        if isinstance(work, Coroutine):
            if runner is not None:
                raise UsageError(
                    "a coroutine runs on the loop that drives: runner= is for Tasks and functions, Action(fn, runner=…)"
                )
            self._coroutine = work
            # Dropped without having run it is closed, so that Python doesn't warn. Not by __del__: the coroutine may be
            # finalised first where the two are part of a cycle.
            self._guard = finalize(self, work.close)
        elif not callable(work) or isinstance(work, (AbstractAction, BaseTaskRun)):
            raise UsageError(f"an Action is made of a coroutine, a Task or a callable, not of {type(work).__name__}")
        elif isinstance(work, Task):
            self._task = work.options(runner=runner) if runner is not None else work
        elif isinstance(work, partial) and isinstance(work.func, Task):
            self._call = work
            if runner is not None:
                self._call = partial(work.func.options(runner=runner), *work.args, **work.keywords)
        elif runner is not None:
            self._task = task(work, runner=runner)
        else:
            plain: Task[..., Any] = task(work)
            self._call = work if plain.is_async else plain  # a Task, to be called in a thread
        self._named = work.name if isinstance(work, Task) else _name_of(work)

    async def corun(self) -> Any:
        """Carry out what it was made of."""
        value: Any = self._coroutine
        if value is not None:
            self._coroutine = None
            self._guard.detach()
        elif self._guard is not None:
            raise UsageError(_used_up(self))
        elif isinstance(self._call, Task):
            from woflo.runners.thread import ThreadTaskRun

            value = self._call.options(runner=ThreadTaskRun)()
        else:
            value = (self._task or self._call)()
        while True:
            if is_run(type(value)):
                value = await _until_ended(value)
            elif isinstance(value, Coroutine):
                value = await value
            else:
                return value

    @property
    def _name(self) -> str:
        return self._named if self._shown is _NO_LABEL else self._shown

    def _work(self) -> Task[..., Any]:
        if self._task is not None and type(self).corun is Action.corun:
            return self._task
        return super()._work()

    def _is_used_up(self) -> bool:
        """Whether its coroutine has begun and can't begin again."""
        return self._guard is not None and self._coroutine is None and type(self).corun is Action.corun


class Sequence:
    """Actions that follow each other: each requires the one before it.

    >>> from woflo.action import Action, Engine, Sequence
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
        """Put further actions, or sequences of them, at the end.

        Raises:
            UsageError: one of them is no action.
        """
        for one in actions:
            further = one.actions if isinstance(one, Sequence) else (_checked(one, "a Sequence"),)
            if self.actions:
                further[0].requires(self.actions[-1])
            self.actions += further

    def requires(self, *actions: AbstractAction | Sequence) -> None:
        """Have the first one start only when all of `actions` have succeeded."""
        self.actions[0].requires(*actions)

    def __repr__(self) -> str:
        return f"<Sequence [{_labels(self.actions)}]>"


class Engine(AbstractAction):
    """Carries out actions together; it is itself an action.

    Each starts as soon as all that it requires has succeeded.

    >>> from woflo.action import Action, Engine
    >>> first, last = Action(lambda: 1, label="first"), Action(lambda: 2, label="last")
    >>> last.requires(first)
    >>> Engine(first, last).orchestrate()
    True
    >>> last
    <Action `last' finished -> 2 - [requires [first]]>

    What has ended is kept: a second `orchestrate()` runs only what has not. Nested in another engine it fails if one of its
    own actions does, and is cancelled, with all that it runs, when that one is.
    """

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
            observers: called with every NodeStarted and NodeEnded of its actions; `event.target` is the action.

        Raises:
            UsageError: one of them is no action, or `window` is no positive whole number.
        """
        super().__init__(label=label, forever=forever, critical=critical)
        members: dict[AbstractAction, None] = {}
        for one in actions:
            if isinstance(one, Sequence):
                members.update(dict.fromkeys(one.actions))
            else:
                members[_checked(one, "an Engine")] = None
        self._members = members
        self._core = _engine.Engine((), window=window, stop_on_failure=stop_on_failure, observers=observers)
        self._nodes: dict[AbstractAction, Node] = {}
        self._busy = ""  # what it is doing, as people say it
        self._ended: Result[bool] | None = None  # what it ended in when it was orchestrated last
        self._hook_seconds = SHUTDOWN_SECONDS  # for each `coshutdown`, as the outer engine says
        self._not_shut = ""  # what went wrong in the last shutdown
        self._open = dict.fromkeys(members)  # to be shut down; those that were started last are at the end
        self._home: AbstractEventLoop | None = None  # the loop where its actions ran
        self._let_go: Any = None  # lets the loop end that it has held for the sake of shutdown

    @property
    def actions(self) -> tuple[AbstractAction, ...]:
        """Its actions, in the order given, but as in a Makefile each stands before those that it requires."""
        return tuple(_behind(self._members, lambda one: one._allowed))

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
        _refuse_own_loop("orchestrate()", "co_orchestrate()")
        self._take("at work")
        try:
            return self._note(self._core.orchestrate(*self._members, timeout=timeout))
        finally:
            self._busy = ""

    async def co_orchestrate(self, timeout: float | None = None) -> bool:
        """`orchestrate` for an event loop, on which coroutines then run. Cancelling it stops everything, nested engines too.

        Raises:
            UsageError: it can't be carried out as it is; nothing was started.
            CyclicWorkflowError: actions require each other; nothing was started.
        """
        self._take("at work")
        try:
            return self._note(await self._core.co_orchestrate(*self._members, timeout=timeout))
        finally:
            self._busy = ""

    def stop(self) -> None:
        """Stop everything that has not ended; from any thread. `orchestrate` then returns False."""
        self._core.stop()

    def why(self) -> str:
        """Why the last `orchestrate` or `shutdown` returned False; "all is well" if they returned True."""
        why = self._core.why()
        if self._not_shut:
            return self._not_shut if self._ended else f"{why}; {self._not_shut}"
        return why

    def list(self) -> None:
        """Print one line per action, each below what it requires; those of nested engines are indented."""
        todo = [(one, 0) for one in reversed(_behind(self._members, lambda one: one._required))]
        while todo:
            action, depth = todo.pop()
            sys.stdout.write(f"{'    ' * depth}{action}\n")
            if isinstance(action, Engine):
                inner = _behind(action._members, lambda one: one._required)
                todo.extend((one, depth + 1) for one in reversed(inner))

    def shutdown(self, timeout: float = SHUTDOWN_SECONDS) -> bool:
        """Call each action's `coshutdown`, one after another, last started first; block. True if none has failed.

        One that fails or takes too long doesn't keep the others from being called; `why()` says which. They are called on
        the loop where the actions ran, which is kept for it; what has been shut down is so again only if it has run again.

        Args:
            timeout: seconds for each of them; then it is cancelled.

        Raises:
            UsageError: the engine is at work, or this is the thread of the loop where they are to be called.
        """
        home = self._living_home()
        if home is not None and home is _running_loop():
            raise UsageError("shutdown() would block the loop on which the actions are shut down: await co_shutdown()")
        _refuse_own_loop("shutdown()", "co_shutdown()")
        self._occupy("being shut down")
        try:
            patience = self._patience(timeout)
            over = None if home is None else _handed_over(self._shut_all, timeout, home)
            try:
                if over is not None:
                    return bool(over.result(patience))
                from woflo.runners.thread import ThreadTaskRun

                over = task(self._shut_all, name=f"{self._name}-shutdown", runner=ThreadTaskRun)(timeout)
                return over.get_result(patience)
            except TimeoutError:
                _given_up(over)
                self._not_shut = "shutdown: the loop on which the actions are shut down doesn't answer"
                return False
            except BaseException:
                _given_up(over)
                raise
        finally:
            self._busy = ""

    async def co_shutdown(self, timeout: float = SHUTDOWN_SECONDS) -> bool:
        """`shutdown` for an event loop. Cancelled, it cancels the `coshutdown` that is under way and calls no more.

        Raises:
            UsageError: the engine is at work.
        """
        import asyncio

        home = self._living_home()
        self._occupy("being shut down")
        try:
            if home is not None and home is not asyncio.get_running_loop():
                over = _handed_over(self._shut_all, timeout, home)
                if over is not None:
                    return await asyncio.wrap_future(over)
            return await self._shut_all(timeout)
        finally:
            self._busy = ""

    async def corun(self) -> bool:
        """Carry out all actions, as an action of another engine.

        Raises:
            TaskFailure: one has failed; it says why.
        """
        if not await self.co_orchestrate(timeout=float("inf") if self.forever else None):
            raise TaskFailure(self.why())
        return True

    async def coshutdown(self) -> None:
        """Shut all actions down, as an action of another engine.

        Raises:
            TaskFailure: one could not be shut down; it says why.
        """
        if not await self.co_shutdown(self._hook_seconds):
            raise TaskFailure(self._not_shut)

    # ------------------------------------------------------------------ beginning and end

    def _occupy(self, how: str) -> None:
        with _claims:
            if self._busy:
                raise UsageError(f"{self._name} is {self._busy}: wait until that has returned")
            self._busy = how

    def _take(self, how: str) -> None:
        """Refuse what can't be carried out, make the graph, and claim the actions."""
        home: dict[AbstractAction, Engine | None] = {self: None}
        graphs = {engine: engine._graph() for engine in self._nested()}
        for engine in graphs:
            for action in engine._members:
                if home.setdefault(action, engine) is not engine:
                    raise UsageError(
                        f"{action._name} is in two engines, one within the other: an action belongs to one"
                    )
        del home[self]  # whoever may run this one itself
        with _claims:
            if self._busy:
                raise UsageError(f"{self._name} is {self._busy}: wait until that has returned, or make another engine")
            for action, owner in home.items():
                other = action._engine
                if other is not None and other is not owner and (other._busy or other._core.status(action) != "idle"):
                    raise UsageError(
                        f"{action._name} is run by another engine: an action belongs to one; make another Action of the"
                        " same function for this one"
                    )
                if isinstance(action, Action) and action._is_used_up() and action._status() in {"stopped", "idle"}:
                    raise UsageError(_used_up(action))
            for action in self._members:
                action._engine = self
            self._busy = how
        self._core.graph = graphs[self]
        self._ended = None

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
        nodes = self._nodes
        for action in self._members:
            after = tuple(action._required)
            for required in after:
                if required not in self._members:
                    raise UsageError(
                        f"{action._name} requires {required._name}, which is not in the same engine: put it in there too"
                    )
            node = nodes.get(action)
            how = after, bool(action.forever), bool(action.critical)
            if node is None or (node.after, node.forever, node.critical) != how:
                call: Any = action._work()
                nodes[action] = Node(
                    action,
                    _Noted(call, action, self) if action._has_hook() else call,
                    after=after,
                    forever=action.forever,
                    critical=action.critical,
                    label=action._name,
                )
        graph = Graph(nodes[action] for action in self._members)
        try:
            graph.topological()
        except CyclicWorkflowError as error:
            raise CyclicWorkflowError([one._name for one in error.cycle]) from None  # type: ignore[attr-defined]
        return graph

    def _note(self, good: bool) -> bool:
        self._ended = Ok(True) if good else TaskFailure(self._core.why(), task=self._name, run=self._name)
        return good

    def _status(self) -> str:
        if self._busy == "at work":
            return "running"
        if self._ended is not None:
            return "succeeded" if self._ended else "failed"
        return super()._status()

    def _outcome(self) -> Result[Any]:
        if self._ended is not None and not self._busy:
            return self._ended
        return super()._outcome()

    # ------------------------------------------------------------------ shutting down

    def _started(self, action: AbstractAction) -> None:
        """An action that wants to be shut down is being started."""
        self._open.pop(action, None)
        self._open[action] = None

    def _arrived(self) -> None:
        """Such an action is on its loop now: the loop has to be there still when it is shut down."""
        from woflo.runners import asynchronous

        home = asynchronous._running_loop()
        if self._home is not home or self._let_go is None:
            self._release()
            self._home = home
            self._let_go = finalize(self, asynchronous.hold())

    def _release(self) -> None:
        let_go, self._let_go, self._home = self._let_go, None, None
        if let_go is not None:
            let_go()

    def _living_home(self) -> AbstractEventLoop | None:
        home = self._home
        return home if home is not None and home.is_running() else None

    def _has_hook(self) -> bool:
        return getattr(self.coshutdown, "__func__", None) is not Engine.coshutdown or any(
            action._has_hook()
            for engine in self._nested()
            for action in engine._members
            if not isinstance(action, Engine)
        )

    def _patience(self, seconds: float) -> float:
        """How long a shutdown can take at most: its actions', those of nested engines included, one after another."""
        return GRACE + sum((seconds + GRACE) * len(engine._members) for engine in self._nested())

    async def _shut_all(self, seconds: float) -> bool:
        wrong: dict[str, BaseException] = {}
        while self._open:
            action, _ = self._open.popitem()
            if not action._has_hook():
                continue
            try:
                await action._shut_down(seconds)
            except Exception as error:
                wrong[_unique(action._name, wrong)] = error
                if not isinstance(action, Engine):  # it has told of its own
                    _notify.broken(f"coshutdown() of {action._name}", error)
        self._release()
        self._not_shut = ""
        if wrong:
            name, first = next(iter(wrong.items()))
            text = f"{_exceptions.type_name(type(first))}: {_exceptions.safe_str(first)}"
            others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            self._not_shut = f"shutdown of {name}{others} failed: {text}"
        return not wrong

    async def _shut_down(self, seconds: float) -> None:
        self._hook_seconds = seconds
        await super()._shut_down(self._patience(seconds))


class _Noted:
    """The Task of an action that wants to be shut down: its engine has to know when it is started, and where."""

    def __init__(self, work: Task[..., Any], action: AbstractAction, engine: Engine) -> None:
        self.work = work
        self.action = action
        self.engine = engine

    def __call__(self) -> BaseTaskRun[Any]:
        """As a Task is called; the core engine uses the two methods below."""
        return self._submit((), self._where(None))

    def _where(self, default: type[BaseTaskRun[Any]] | None) -> type[BaseTaskRun[Any]]:
        return self.work._where(default)

    def _submit(self, args: tuple[Any, ...], runner: type[BaseTaskRun[Any]]) -> BaseTaskRun[Any]:
        self.engine._started(self.action)
        return self.work._submit(args, runner)


def _checked(one: Any, where: str) -> AbstractAction:
    if not isinstance(one, AbstractAction):
        hint = f": write Action({one!r:.40})" if isinstance(one, Coroutine) or callable(one) else ""
        raise UsageError(f"{where} takes actions, not {type(one).__name__}{hint}")
    try:
        hash(one)
    except TypeError:
        raise UsageError(
            f"{type(one).__name__} defines __eq__ without __hash__, and actions are told apart by identity: a dataclass"
            " needs @dataclass(eq=False)"
        ) from None
    return one


def _used_up(action: AbstractAction) -> str:
    return (
        f"{action._name} can't run again: its coroutine has begun, and a coroutine runs once; make the Action of the"
        " coroutine function instead, Action(f) for Action(f())"
    )


def _behind(
    members: Iterable[AbstractAction], others: Callable[[AbstractAction], Iterable[AbstractAction]]
) -> tuple[AbstractAction, ...]:
    """The members in their order, but each behind its `others`, as far as there are no cycles."""
    members = dict.fromkeys(members)
    placed: dict[AbstractAction, None] = {}
    seen: set[AbstractAction] = set()
    for first in members:
        path = [] if first in seen else [(first, iter(others(first)))]
        seen.add(first)
        while path:
            action, following = path[-1]
            for other in following:
                if other in members and other not in seen:
                    seen.add(other)
                    path.append((other, iter(others(other))))
                    break
            else:
                placed[action] = None
                path.pop()
    return tuple(placed)


def _labels(actions: Iterable[AbstractAction]) -> str:
    names = [action._shown for action in actions]
    return ", ".join(names[:_NAMED]) + (f", … {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _short(value: object) -> str:
    """A value in one line, not too long; whatever its repr does."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr() raised {type(error).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _by_names(failure: DependencyFailure) -> DependencyFailure:
    """The failure with names in the place of actions."""
    named: dict[str, Failure] = {}
    for action, cause in failure.dependencies.items():
        named[_unique(action._name, named)] = cause
    told = DependencyFailure(named, task=failure.task, run=failure.run)
    told.__cause__ = failure.__cause__
    return told


def _unique(name: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it if it is taken."""
    known = set(taken)
    return name if name not in known else next(new for n in count(2) if (new := f"{name} ({n})") not in known)


async def _until_ended(run: BaseTaskRun[Any]) -> Any:
    """The value of a run, which is stopped if we are cancelled."""
    import asyncio

    try:
        return await run
    except asyncio.CancelledError:  # of ours: a task's own is a TaskFailure
        run.stop(wait=False)
        gone = asyncio.ensure_future(run)
        await asyncio.wait([gone], timeout=GRACE)
        if not gone.cancel():
            gone.exception()  # it was looked at
        raise


async def _raised_by(hook: Callable[[], Awaitable[None]]) -> BaseException | None:
    """What a hook raises; as a value, because some exceptions would end the loop."""
    from asyncio import CancelledError

    try:
        waiting: Any = hook()
        if hasattr(waiting, "__await__"):
            await waiting
    except CancelledError:
        raise
    except Exception as error:
        return error
    except BaseException as error:
        failure = TaskFailure(f"{_exceptions.type_name(type(error))}: {_exceptions.safe_str(error)}")
        failure.__cause__ = error
        return failure
    return None


def _running_loop() -> AbstractEventLoop | None:
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()


def _refuse_own_loop(blocking: str, instead: str) -> None:
    asynchronous = sys.modules.get("woflo.runners.asynchronous")
    if asynchronous is not None and asynchronous.on_own_loop():
        raise UsageError(f"{blocking} would block the loop on which the coroutines are to run: await {instead}")


def _handed_over(shut: Callable[[float], Coroutine[Any, Any, bool]], seconds: float, loop: AbstractEventLoop) -> Any:
    """The coroutine under way on another thread's loop, as a concurrent.futures.Future; None if that loop is closed."""
    import asyncio

    work = shut(seconds)
    try:
        return asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError:
        work.close()
        return None


def _given_up(over: Any) -> None:
    """Whoever waited for it is gone."""
    if isinstance(over, BaseTaskRun):
        over.stop(wait=False)
    elif over is not None:
        over.cancel()
