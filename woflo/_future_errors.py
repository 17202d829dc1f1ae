"""What a future raises: the failures of runs, as exceptions that others can handle; loaded when the first one is needed.

A Failure is false, and `concurrent.futures` and its users ask `if future.exception()`: here each is a true one of the same
class. A worker that was lost is `WorkerLost`, which those catch who know `BrokenProcessPool`, `BrokenThreadPool` or
`BrokenExecutor` (importing them costs 10 ms and the whole of multiprocessing).
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool

from woflo.result import Failure, WorkerFailure, _restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["WorkerLost", "as_exception", "worker_lost"]

_KINDS_KEPT = 100  # classes remembered; a program that makes failure classes by the hundred starts anew
_kinds: dict[type[Failure], type[Failure]] = {}


class WorkerLost(WorkerFailure, BrokenProcessPool, BrokenThreadPool):
    """The worker of a call died, could not be started, or could not be made ready."""

    def __bool__(self) -> bool:  # type: ignore[override]
        return True


def worker_lost(failure: Failure) -> WorkerLost:
    """The loss that a failure stands for."""
    lost = WorkerLost(failure.message)
    _copy(failure, lost)
    return lost


def as_exception(failure: Failure) -> Failure:
    """The same failure, but true: of a class that is derived from its own."""
    kind = type(failure)
    true = _kinds.get(kind)
    if true is None:
        if len(_kinds) >= _KINDS_KEPT:
            _kinds.clear()
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        methods = {"__bool__": lambda _: True, "__reduce__": lambda self: _reduce(kind, self)}
        true = _kinds[kind] = type(kind.__name__, (kind,), {**names, **methods})
    twin = true.__new__(true)
    _copy(failure, twin)
    return twin


def _copy(failure: Failure, twin: Failure) -> None:
    own = {"_raised_from", "_unseen"}  # the original's
    vars(twin).update({name: value for name, value in vars(failure).items() if name not in own})
    if hasattr(failure, "_roots"):
        twin._roots = failure._roots  # type: ignore[attr-defined]
    twin.args = failure.args
    twin.__cause__ = failure.__cause__
    twin.__traceback__ = failure.__traceback__


def _reduce(kind: type[Failure], twin: Failure) -> tuple[Callable[..., Failure], tuple[Any, ...]]:
    _, (_, state, cause) = kind.__reduce__(twin)
    return _restore_true, (kind, state, cause)


def _restore_true(kind: type[Failure], state: Any, cause: Any) -> Failure:
    return as_exception(_restore(kind, state, cause))
