"""Who listens, and how they are told.

The runs call this file on their way; it costs one look at `listening` while nobody listens.
Observers are called in the process that owns the run, in whichever thread learnt the fact, with no
lock held; one that raises is named once and dropped. The events themselves and the log are in
`events`, imported when the first one is wanted.
"""

from __future__ import annotations

import os
import sys

from woflo import _loading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from woflo.events import Event
    from woflo.result import Failure
    from woflo.runners.base import BaseTaskRun

verbose = os.environ.get("WOFLO_LOG", "").lower() == "debug"
observers: list[Observation] = []
listening = verbose  # whether successes and starts interest anybody; failures always do

untold: dict[BaseTaskRun[object], int] = {}  # runs whose end is being told, and the thread that does: the exit waits
at_first_log: list[Callable[[], None]] = []  # called when loguru (and with it threading) has been imported
forking: Any = None  # the lock under which this process forks its workers
at_observe: list[Callable[[], None]] = []  # called when somebody has begun to observe


class Observation:
    """An observer's registration: ends with `close()`, or with the `with` block."""

    def __init__(self, callback: Callable[[Event], object]) -> None:
        self.callback = callback
        observers.append(self)
        _update()
        for hook in at_observe:
            hook()

    def close(self) -> None:
        """Stop observing; a second call does nothing."""
        observers[:] = [one for one in observers if one is not self]
        _update()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def forget_observers() -> None:
    """In a worker: they belong to the parent, and are told there."""
    observers.clear()
    _update()


def _update() -> None:
    global listening
    listening = verbose or bool(observers)


def _tell(kind: str, run: BaseTaskRun[object] | None, *facts: object) -> None:
    """Make an event of the facts and give it to the log and the observers; the runs never notice what becomes of it.

    Of a run that is several calls nothing is told: each of them has a run that is.
    """
    if run is not None and run.task._apart:
        return
    try:
        if "woflo.events" not in sys.modules:
            with _loading.hurry():
                import woflo.events  # noqa: F401 - dataclasses cost 8 ms at import
        from woflo import events
    except OSError as error:  # no descriptor is left to load it with
        if sys.stderr is not None:
            sys.stderr.write(f"woflo: {error} while telling of {kind} {'' if run is None else run.name}\n")
        return
    event = getattr(events, kind)
    events.emit(event(*facts) if run is None else event(*events.names(run), *facts))


def pending(run: BaseTaskRun[object]) -> None:
    """A run was made that can't start yet. Call it only while `listening`."""
    _tell("RunPending", run)


def started(run: BaseTaskRun[object]) -> None:
    """An attempt was started. Call it only while `listening`."""
    _tell("RunStarted", run)


def retrying(run: BaseTaskRun[object], failure: Failure, delay: float) -> None:
    """An attempt failed and another one follows."""
    _tell("RunRetrying", run, failure, delay)


def reported(run: BaseTaskRun[object], done: float, total: float | None, message: str) -> None:
    """A task has said how far it is. Call it only while `listening`."""
    _tell("RunProgress", run, done, total, message)


def reused(run: BaseTaskRun[object], why: str) -> None:
    """A call was answered with what was remembered. Call it only while `listening`."""
    _tell("RunReused", run, why)


def ended(run: BaseTaskRun[object], failure: Failure | None) -> None:
    """A run ended. Without a failure, call it only while `listening`."""
    _tell("RunEnded", run, failure, run.seconds)


def broken(what: str, error: BaseException) -> None:
    """An observer or a callback of the user's raised; it is named, and the run doesn't notice."""
    _tell("ObserverFailed", None, what, error)
