"""Shutdown: `coshutdown` of an engine's actions, one after another, so that what they share is never closed twice at once.

The hooks are a graph of their own, which the core engine drives with a window of one: it bounds each, goes on after a
failure, and says what went wrong. Rule: a hook runs on the loop where its action ran, as long as that one is there.
"""

from __future__ import annotations

from functools import partial
from weakref import finalize

from woflo import engine as _engine
from woflo.errors import UsageError
from woflo.graph import Graph, Node
from woflo.task import task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterable
    from typing import Any

    from woflo._abstract_action import AbstractAction

SHUTDOWN_SECONDS = 5.0  # for each `coshutdown`, unless the caller says otherwise: closing a connection is a round trip


class Shutdown:
    """What there is to be shut down of an engine's actions, in which order, and where."""

    def __init__(self, actions: Iterable[AbstractAction]) -> None:
        self.complaint = ""  # what went wrong in the last one
        self.core = _engine.Engine((), window=1)
        self._open = dict.fromkeys(actions)  # those that were started last are at the end
        self._home: AbstractEventLoop | None = None  # the loop where the actions ran
        self._let_go: Any = None  # lets the loop end that is held for them

    def began(self, action: AbstractAction) -> None:
        """An action has been started, on this loop: it has to be there still when it is shut down."""
        from woflo.runners import asynchronous

        self._open.pop(action, None)
        self._open[action] = None
        home = asynchronous._running_loop()
        if action._has_hook() and (self._let_go is None or self._home is not home):
            self._release()
            self._home = home
            self._let_go = finalize(self, asynchronous.hold())

    def all(self, seconds: float) -> bool:
        """Call all hooks, blocking; each may take so many seconds."""
        from woflo.runners import asynchronous

        hooks = self._prepare(seconds)
        here = asynchronous._running_loop()
        if asynchronous.on_own_loop() or (here is not None and any(owner._home is here for owner in hooks.values())):
            raise UsageError("shutdown() would block the loop on which the actions are shut down: await co_shutdown()")
        return self._note(hooks, good=self.core.orchestrate())

    async def co_all(self, seconds: float) -> bool:
        """Call all hooks; each may take so many seconds."""
        hooks = self._prepare(seconds)
        return self._note(hooks, good=await self.core.co_orchestrate())

    def _prepare(self, seconds: float) -> dict[AbstractAction, Shutdown]:
        from woflo.runners.asynchronous import AsyncTaskRun

        hooks = self._hooks()
        nodes = []
        for action, owner in hooks.items():
            hook = task(partial(owner._call, action), name=action._name, timeout=seconds, runner=AsyncTaskRun)
            nodes.append(Node(action, hook, label=action._name))
        self.core.reset()
        self.core.graph = Graph(nodes)
        return hooks

    def _hooks(self) -> dict[AbstractAction, Shutdown]:
        """The actions that are to be shut down, those of nested engines among them, last started first."""
        found: dict[AbstractAction, Shutdown] = {}
        todo = [(self, one) for one in self._open]
        while todo:
            owner, action = todo.pop()
            if action._has_hook():
                found[action] = owner
            if action._shutdown is not None:
                todo += [(action._shutdown, one) for one in action._shutdown._open]
        return found

    def _note(self, hooks: dict[AbstractAction, Shutdown], *, good: bool) -> bool:
        """All have been called."""
        for owner in set(hooks.values()):
            owner._release()
        self.complaint = "" if good else f"shutdown: {self.core.why()}"
        return good

    async def _call(self, action: AbstractAction) -> None:
        """Call a hook, on its loop."""
        import asyncio

        self._open.pop(action, None)
        home = self._home
        if home is None or not home.is_running() or home is asyncio.get_running_loop():
            await _awaited(action)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_awaited(action), home))

    def _release(self) -> None:
        let_go, self._let_go, self._home = self._let_go, None, None
        if let_go is not None:
            let_go()


async def _awaited(action: AbstractAction) -> None:
    waiting: Any = action.coshutdown()
    if hasattr(waiting, "__await__"):
        await waiting
