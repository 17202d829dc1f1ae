"""What a run ends in: `Ok(value)` or one kind of `Failure`; a value that crosses every boundary.

Failures are values until somebody asks for the result, and exceptions then: there is no second family.
They are falsy and `Ok` is truthy, so `if result:` and `match` both work. This file knows
neither runs nor processes; whoever makes a failure fills in the names.
"""

from __future__ import annotations

from woflo import _exceptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Generic, Literal, TypeVar

    R = TypeVar("R", covariant=True)  # noqa: PLC0105 - as in collections.abc
else:
    from woflo._generic import Generic, R


__all__ = [
    "DependencyFailure",
    "Failure",
    "MissingFailure",
    "Ok",
    "Result",
    "StoppedFailure",
    "TaskFailure",
    "TimeoutFailure",
    "WorkerFailure",
]


class Ok(Generic[R]):
    """The value of a run that succeeded.

    >>> bool(Ok(0)), Ok(0).value
    (True, 0)
    """

    __slots__ = ("_attempt", "value")
    __match_args__ = ("value",)
    value: R
    _attempt: int  # of which this is the value, where a runner of somebody's own hands it over

    def __init__(self, value: R) -> None:
        self.value = value

    def __bool__(self) -> Literal[True]:
        return True

    def __repr__(self) -> str:
        return f"Ok({self.value!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is Ok and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash((Ok, self.value))


class Failure(Exception):
    """A run that did not succeed, and why; the base of all kinds.

    Attributes:
        message: what happened, in one line.
        task: the task's name; empty as long as no run is known.
        run: the run's name, for instance `fetch-3`.
        attempt: the attempt that failed, from 1.
        attempts: how many there could have been (`retries + 1`).
        pid: the worker's process, or None where there was none of its own.
    """

    __match_args__: tuple[str, ...] = ("message",)
    _in_transit = False  # whether it is the way between two processes that failed, and not the task

    def __init__(
        self,
        message: str = "",
        *,
        task: str = "",
        run: str = "",
        attempt: int = 1,
        attempts: int = 1,
        pid: int | None = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.task = task
        self.run = run
        self.attempt = attempt
        self.attempts = attempts
        self.pid = pid
        self._traceback = traceback

    def __bool__(self) -> Literal[False]:
        return False

    @property
    def traceback(self) -> str:
        """The task's own traceback as text, causes included; empty where no Python code failed."""
        if self._traceback is not None:
            return self._traceback
        error = self.__cause__
        if error is None:
            return ""
        return _exceptions.format_traceback(error)

    @property
    def label(self) -> str:
        """Which run, which attempt: `fetch-3 (attempt 2 of 3, pid 812)`; empty if no run is known."""
        if not self.run:
            return ""
        parts = [f"attempt {self.attempt} of {self.attempts}"] if self.attempts > 1 else []
        if self.pid is not None:
            parts.append(f"pid {self.pid}")
        return f"{self.run} ({', '.join(parts)})" if parts else self.run

    def __str__(self) -> str:
        return f"{self.label}: {self.message}" if self.run else self.message

    def __reduce__(self) -> tuple[Callable[..., Failure], tuple[object, ...]]:
        cause = self.__cause__
        own = {"_raised_from", "_unseen"}  # this process's
        state = {name: value for name, value in vars(self).items() if name not in own}
        return _restore, (type(self), state, None if cause is None else _exceptions.record(cause))


def _restore(cls: type[Failure], state: Mapping[str, Any], cause: list[Any] | None) -> Failure:
    failure = cls.__new__(cls)
    vars(failure).update(state)
    failure.args = (state["message"],)
    failure.__cause__ = None if cause is None else _exceptions.rebuild(cause)
    if isinstance(failure, DependencyFailure):
        failure._roots = failure._find_roots()
    return failure


class TaskFailure(Failure):
    """The task raised; `__cause__` is its exception.

    A task may also raise this to fail on purpose.
    """


class TimeoutFailure(Failure, TimeoutError):
    """An attempt took longer than the task's `timeout`.

    Attributes:
        limit: the task's time-out, seconds.
        elapsed: how long the attempt had been running, seconds.
        where: the task's innermost place then, `file:line in function`; empty if it could not be had.
    """

    def __init__(
        self, message: str = "", *, limit: float = 0.0, elapsed: float = 0.0, where: str = "", **names: Any
    ) -> None:
        super().__init__(
            message or f"took longer than its time-out of {limit:g} s" + (f"; it was at {where}" if where else ""),
            **names,
        )
        self.limit = limit
        self.elapsed = elapsed
        self.where = where


class WorkerFailure(Failure):
    """The worker died, or could not be started, without a result.

    Attributes:
        exit_code: the process's exit code, if it left with one.
        signal: the name of the signal that killed it, for instance `SIGKILL`.
        errno: the name of the operating system's error, if it could not be started.
    """

    def __init__(
        self,
        message: str = "",
        *,
        exit_code: int | None = None,
        signal: str | None = None,
        errno: str | None = None,
        **names: Any,
    ) -> None:
        super().__init__(message, **names)
        self.exit_code = exit_code
        self.signal = signal
        self.errno = errno


class StoppedFailure(Failure):
    """`stop()` was called, or the program ended, before the run had a result."""


class MissingFailure(Failure):
    """Nothing produces this target.

    Attributes:
        target: what was asked for.
    """

    __match_args__: tuple[str, ...] = ("target",)

    def __init__(self, target: object = None, **names: Any) -> None:
        super().__init__(f"Missing dependency: {target}", **names)
        self.target = target


class DependencyFailure(Failure):
    """What this run needed has failed, so it never ran.

    Attributes:
        dependencies: each failed input (a run's name, a node's label, or its target) and its failure.
    """

    __slots__ = ("_roots",)
    __match_args__: tuple[str, ...] = ("dependencies",)
    _roots: list[Failure]

    def __init__(self, dependencies: Mapping[Any, Failure] | None = None, **names: Any) -> None:
        super().__init__("", **names)
        self.dependencies: dict[Any, Failure] = dict(dependencies or {})
        self._roots = self._find_roots()  # now: a chain of these would be walked by each of its links

    def root_causes(self) -> list[Failure]:
        """The failures that started it, each once, in the order of the inputs."""
        return list(self._roots)

    def __reduce__(self) -> tuple[Callable[..., Failure], tuple[object, ...]]:
        restore, (cls, state, cause) = super().__reduce__()
        flat = {name: _flat(failure) for name, failure in self.dependencies.items()}
        return restore, (cls, {**state, "dependencies": flat}, cause)  # type: ignore[dict-item]

    def _find_roots(self) -> list[Failure]:
        roots: dict[int, Failure] = {}
        for failure in self.dependencies.values():
            own = failure._roots if isinstance(failure, DependencyFailure) and failure._roots else [failure]
            roots.update((id(root), root) for root in own)
        return list(roots.values())

    def __str__(self) -> str:
        inputs = ", ".join(map(_exceptions.safe_str, self.dependencies))
        roots = "; ".join(_root_text(root) for root in self._roots[:5])
        text = f"not run, because its input failed: {inputs}" + (f" (root cause: {roots})" if roots else "")
        return f"{self.run}: {text}" if self.run else text


def _flat(failure: Failure) -> Failure:
    """The failure with its root causes as its direct ones: a chain of thousands would be pickled by recursion."""
    if not isinstance(failure, DependencyFailure):
        return failure
    names = {name: vars(failure)[name] for name in ("task", "run", "attempt", "attempts", "pid")}
    return DependencyFailure({root.run or str(place): root for place, root in enumerate(failure._roots)}, **names)


def _root_text(failure: Failure) -> str:
    if isinstance(failure, DependencyFailure):
        return "unknown"
    return _exceptions.safe_str(failure)


if TYPE_CHECKING:
    Result = Ok[R] | Failure
else:
    Result = Ok | Failure
