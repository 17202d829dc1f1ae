"""Every exception that a user can catch, except the failures of runs (`result`).

Split by who can mend it: `UsageError` is the program's, a task's own exception is the
task's, `StoreError` is the world's, `InternalError` is ours. Fields go to `super().__init__`, the text is built in
`__str__`: so every exception here survives pickling.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CyclicWorkflowError",
    "ExceptionStandIn",
    "InternalError",
    "StoreError",
    "TaskStopped",
    "UsageError",
    "WaitTimeout",
]


_MOST_DRAWN = 12  # targets of a cycle that its message names


class UsageError(ValueError):
    """The program uses woflo wrongly; raised before anything starts."""


class CyclicWorkflowError(UsageError):
    """What is wanted needs itself; raised before anything starts.

    Args:
        cycle: the targets on the shortest way round, each needing the next, the last one needing the first.
    """

    def __init__(self, cycle: Sequence[object]) -> None:
        super().__init__(cycle)
        self.cycle: list[object] = list(cycle)

    def __str__(self) -> str:
        names = [_name(one) for one in self.cycle]
        if len(names) > _MOST_DRAWN:
            names = [*names[: _MOST_DRAWN - 2], f"… {len(names) - _MOST_DRAWN + 1} more …", names[-1]]
        return "there is a cycle: " + " -> ".join([*names, names[0]]) if names else "there is a cycle"


def _name(target: object) -> str:
    try:
        return str(target)
    except Exception as error:
        return f"<{type(target).__name__} whose str() raised {type(error).__name__}>"


class StoreError(Exception):
    """A store refused, or isn't to be trusted.

    The disk is full, a permission is missing, others can write to its folder. What was to be kept isn't; nothing
    half-written is left.

    Args:
        what: what could not be done, and where.
        why: the reason, for people.
    """

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)

    def __str__(self) -> str:
        return "{}: {}".format(*self.args)


class InternalError(RuntimeError):
    """A defect in woflo itself: please report it."""


class WaitTimeout(TimeoutError):
    """A wait ran out: of `get_result`, the run goes on; of `compute`, it was stopped.

    Args:
        what: what was waited for, for instance the name of a run.
        seconds: how long the caller was ready to wait.
        then: what becomes of it.
    """

    def __init__(self, what: str, seconds: float, then: str = "it goes on") -> None:
        super().__init__(what, seconds)  # an OSError takes two arguments for itself, and would keep a third elsewhere
        self.then = then

    def __str__(self) -> str:
        what, seconds = self.args
        return f"{what} has not ended within {seconds:g} s; {self.then}"


class TaskStopped(BaseException):
    """Raised inside a task when its run is stopped or timed out.

    Not an `Exception`, so that a task's own `except Exception` lets it pass; `finally`
    blocks run. It is thrown by the worker's SIGTERM handler, into the thread of a
    `ThreadTaskRun`, never into the caller.
    """


class ExceptionStandIn(Exception):
    """Stands for a task's exception that can't be pickled or can't be rebuilt.

    Notes, causes and the traceback of the original are attached as usual.

    Args:
        type_name: module and qualified name of the original's class.
        message: the original's `str()`.
    """

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(type_name, message)

    @property
    def type_name(self) -> str:
        """The name of the original's class, with its module."""
        return str(self.args[0])

    @property
    def message(self) -> str:
        """What `str()` of the original said."""
        return str(self.args[1])

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}"
