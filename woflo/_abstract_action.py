"""AbstractAction: what an action is, what it requires, what it ended in, and what it looks like in a line.

What it ended in is asked of the engine that ran it, and kept nowhere else.
"""

from __future__ import annotations

from woflo.errors import UsageError
from woflo.runners.base import BaseTaskRun
from woflo.task import Task, task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

    from woflo._shutdown import Shutdown
    from woflo.action import Engine, Sequence
    from woflo.result import Result

NO_LABEL = "NO_LABEL"
_SHOWN = 60  # characters of a result, and names of other actions, that a repr shows: it is one line on a screen
_NAMED = 8
_UNENDED = frozenset({"idle", "waiting", "running"})


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
    """

    __module__ = "woflo.action"  # where its users find it

    label: str | None = None
    forever: bool = False
    critical: bool = False
    _required: dict[AbstractAction, None]  # in the order in which they were told
    _allowed: dict[AbstractAction, None]  # those that require it
    _engine: Engine | None  # the one that runs it, or ran it first
    _shutdown: Shutdown | None  # of its own actions, if it is an Engine

    def __new__(cls, *_: Any, **__: Any) -> Self:
        if cls.__hash__ is None:
            raise UsageError(
                f"actions are told apart by identity: {cls.__name__} needs @dataclass(eq=False), or __hash__"
            )
        self = super().__new__(cls)
        self._required, self._allowed, self._engine, self._shutdown = {}, {}, None, None
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
            other = all_of(one)[-1]
            self._required[other] = other._allowed[self] = None

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
        return NO_LABEL if self.label is None or self.label == "" else str(self.label)

    def _status(self) -> str:
        return "idle" if self._engine is None else self._engine._core.status(self)

    def _outcome(self) -> Result[Any]:
        status = self._status()
        if self._engine is None or status in _UNENDED:
            raise UsageError(f"{self._name} has not ended: it is {status}")
        return self._engine._core.outcome(self)

    def _is_used_up(self) -> bool:
        """Whether it has begun and can't begin again."""
        return False

    def _work(self) -> Task[..., Any]:
        """What the core engine starts."""
        from woflo.runners.asynchronous import AsyncTaskRun

        return task(self._carry_out, name=self._name, runner=AsyncTaskRun)

    async def _carry_out(self) -> Any:
        if self._engine is not None:
            self._engine._shutdown.began(self)
        return await self.corun()

    def _has_hook(self) -> bool:
        """Whether it says itself how it is shut down."""
        return getattr(self.coshutdown, "__func__", None) is not AbstractAction.coshutdown

    def __repr__(self) -> str:
        status = self._status()
        text = f"<{type(self).__name__} `{self._shown}' {'finished' if status == 'succeeded' else status}"
        if status in {"succeeded", "failed"}:
            result = self._outcome()
            text += f" -> {_short(result.value if result else result.message)}"
        bonds = [
            f"[{word} [{labels(others)}]]"
            for word, others in (("requires", self._required), ("allows", self._allowed))
            if others
        ]
        return f"{text}{' - ' if bonds else ''}{' '.join(bonds)}>"


def all_of(one: Any) -> tuple[AbstractAction, ...]:
    """An action, or those of a Sequence.

    Raises:
        UsageError: it is something else.
    """
    if isinstance(one, AbstractAction):
        return (one,)
    actions = getattr(one, "actions", None)
    if not isinstance(actions, tuple):
        hint = f": write Action({one!r:.40})" if hasattr(one, "__await__") or callable(one) else ""
        raise UsageError(f"an action is expected, or a Sequence of them, not {type(one).__name__}{hint}")
    return actions


def labels(actions: Iterable[AbstractAction]) -> str:
    """Their labels, not too many."""
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
