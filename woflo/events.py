"""The facts that woflo tells, and the log that is made of them.

Every event is frozen and tells of something past. Observers (`woflo.observe`) get them in the
process that owns the run, as soon as the fact is known there. The log is written through loguru,
which is imported when there is something to write and never reconfigured. It holds no argument values.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from woflo import _exceptions, _loading, _notify, _unseen
from woflo._exceptions import safe_str, type_name
from woflo.result import DependencyFailure, Failure, StoppedFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any

    from woflo.runners.base import BaseTaskRun

__all__ = [
    "Event",
    "NodeEnded",
    "NodeReused",
    "NodeStarted",
    "ObserverFailed",
    "RunEnded",
    "RunPending",
    "RunProgress",
    "RunRetrying",
    "RunReused",
    "RunStarted",
    "observe",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True, slots=True)
class _RunEvent(Event):
    """Something that happened to a run.

    Attributes:
        run: the run's name.
        task: the task's name.
        attempt: the attempt it concerns, from 1.
        attempts: how many there can be.
        runner: the name of the runner's class.
        pid: the worker's process, if it has one of its own and it is known.
    """

    run: str
    task: str
    attempt: int
    attempts: int
    runner: str
    pid: int | None


@dataclass(frozen=True, slots=True)
class RunPending(_RunEvent):
    """A run was made that can't start yet: its inputs are unfinished, or no slot is free."""

    at: float = field(default_factory=time.monotonic, kw_only=True)


@dataclass(frozen=True, slots=True)
class RunStarted(_RunEvent):
    """An attempt was started."""

    at: float = field(default_factory=time.monotonic, kw_only=True)


@dataclass(frozen=True, slots=True)
class RunProgress(_RunEvent):
    """A task has said how far it is (`woflo.progress`): told at most every 0.1 s, and the last one before the end.

    Attributes:
        done: how much is done, in the task's own unit.
        total: how much there is to do; None if the task didn't say. May be less than `done`.
        message: what it is at.
    """

    done: float
    total: float | None
    message: str
    at: float = field(default_factory=time.monotonic, kw_only=True)


@dataclass(frozen=True, slots=True)
class RunRetrying(_RunEvent):
    """An attempt failed; the next one follows after `delay` seconds."""

    failure: Failure
    delay: float
    at: float = field(default_factory=time.monotonic, kw_only=True)


@dataclass(frozen=True, slots=True)
class RunEnded(_RunEvent):
    """A run has its outcome: `failure` is None if it succeeded; `seconds` is what its last attempt took."""

    failure: Failure | None
    seconds: float
    at: float = field(default_factory=time.monotonic, kw_only=True)


@dataclass(frozen=True, slots=True)
class RunReused(_RunEvent):
    """A call was answered with a value that was remembered (`@task(cache=…)`): nothing was started."""

    why: str
    at: float = field(default_factory=time.monotonic, kw_only=True)


@dataclass(frozen=True, slots=True)
class NodeStarted(Event):
    """A node of an engine's graph was started.

    Attributes:
        target: the (first) target that it produces.
        name: its label, or the target as text.
    """

    target: Hashable
    name: str
    at: float = field(default_factory=time.monotonic, kw_only=True)


@dataclass(frozen=True, slots=True)
class NodeReused(Event):
    """A step was not run: what it made before is used again.

    Attributes:
        target: the (first) target that it produces.
        name: its label, or the target as text.
        why: why that is right.
    """

    target: Hashable
    name: str
    why: str
    at: float = field(default_factory=time.monotonic, kw_only=True)


@dataclass(frozen=True, slots=True)
class NodeEnded(Event):
    """A node has its result, or will never run: `failure` is None if it succeeded.

    Attributes:
        target: the (first) target that it produces.
        name: its label, or the target as text.
        failure: why it failed, was stopped, or was not run (DependencyFailure).
        seconds: from its start to its end; 0 if it never started.
    """

    target: Hashable
    name: str
    failure: Failure | None
    seconds: float
    at: float = field(default_factory=time.monotonic, kw_only=True)


@dataclass(frozen=True, slots=True)
class ObserverFailed(Event):
    """An observer or a done-callback raised; an observer that did is dropped."""

    name: str
    error: BaseException
    at: float = field(default_factory=time.monotonic, kw_only=True)


def observe(callback: Callable[[Event], object]) -> _notify.Observation:
    """Have `callback(event)` called for every event of this process's runs.

    It is called in whichever thread learnt the fact, with no lock held, and may call anything. If it
    raises, it is named in the log and dropped.

    Returns:
        The registration: `close()` ends it, and so does the end of its `with` block.
    """
    return _notify.Observation(callback)


def names(run: BaseTaskRun[object]) -> tuple[str, str, int, int, str, int | None]:
    """What every event of a run begins with."""
    return run.name, run.task.name, run.attempt, run.attempts, type(run).__name__, run.pid


def emit(event: Event) -> None:
    """Tell the log, then every observer."""
    try:
        _log(event)
    except (
        Exception
    ) as error:  # the log can't be written (no descriptor is left to import loguru…): the runs must not notice
        _last_resort(f"woflo: {_one_line(error)} while logging {type(event).__name__} {getattr(event, 'run', '')}")
    for observer in tuple(_notify.observers):
        call(observer.callback, event, observer.close)


def call(observer: Callable[[Event], object], event: Event, drop: Callable[[], object]) -> None:
    """Give an observer an event; one that raises is named once and dropped."""
    try:
        observer(event)
    except BaseException as error:  # an observer must not change a result
        if _exceptions.is_interrupt(error):
            raise
        drop()
        name = getattr(observer, "__qualname__", None)
        emit(ObserverFailed(f"the observer {name or repr(observer)}", error))


def _log(event: Event) -> None:
    if isinstance(event, RunRetrying):
        cause = event.failure if event.failure.__cause__ is None else event.failure.__cause__
        _write(
            "WARNING",
            f"{event.run}: attempt {event.attempt} of {event.attempts} failed, again in {event.delay:g} s: {_one_line(cause)}",
            event,
        )
    elif isinstance(event, ObserverFailed):
        _write("ERROR", f"{event.name} raised {_one_line(event.error)}; the run does not notice", event)
    elif isinstance(event, RunEnded) and event.failure is not None and not _known(event.failure):
        trace = "" if isinstance(event.failure, DependencyFailure) else event.failure.traceback
        _write("ERROR", f"{_whole(event.failure)}\n{trace}".rstrip(), event)
    elif _notify.verbose:
        _write("DEBUG", _told(event), event)


def _known(failure: Failure) -> bool:
    """Whether an error line would tell nothing new: a stop was asked for, and the root causes have been logged themselves."""
    if isinstance(failure, DependencyFailure):
        roots = failure.root_causes()
        return bool(roots) and not any(isinstance(root, StoppedFailure) for root in roots)
    return isinstance(failure, StoppedFailure)


def _whole(failure: Failure) -> str:
    return safe_str(failure)


def _told(event: Event) -> str:
    if isinstance(event, RunEnded):
        if isinstance(event.failure, DependencyFailure):
            return _whole(event.failure)
        how = "ended" if event.failure is None else "was stopped"
        return f"{event.run} {how} after {event.seconds:.3f} s"
    if isinstance(event, RunStarted):
        return f"{event.run} started, attempt {event.attempt} of {event.attempts}" + (
            f", pid {event.pid}" if event.pid else ""
        )
    if isinstance(event, RunPending):
        return f"{event.run} is pending"
    if isinstance(event, RunProgress):
        of = "" if event.total is None else f" of {event.total:g}"
        return f"{event.run}: {event.done:g}{of} done" + (f", {event.message}" if event.message else "")
    return repr(event)


def _one_line(error: BaseException) -> str:
    text = safe_str(error)
    name = type_name(type(error))
    return f"{name}: {text}" if text else name


_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127) if chr(code) not in "\n\t"}


def _write(level: str, text: str, event: Event) -> None:
    """One record through loguru, with control characters escaped: a message can't forge a line's colours."""
    logger = _logger()
    for hook in _notify.at_first_log:  # loguru's own exit function, registered just now, must not run before ours
        hook()
    names_only = {name: getattr(event, name) for name in ("run", "task", "attempt") if hasattr(event, name)}
    where = getattr(event, "failure", None)
    places = () if where is None or where.__cause__ is None else _exceptions.places(where.__cause__.__traceback__)
    line = places[-1][1] if places else 0

    def locate(record: Any) -> None:  # where the task failed, not where we write
        record.update(name="woflo", function=names_only.get("task", ""), line=line)

    logger.patch(locate).bind(**names_only).log(level, "{}", text.translate(_ESCAPES))


def _logger() -> Any:
    """loguru's; loaded now if need be, while no thread of ours forks.

    Its hook at a fork releases all of its locks, also one that it has made since the fork began: to whoever is loading it
    then, that is an error.
    """
    if "loguru" not in sys.modules:
        with _notify.forking or _loading.hurry(), _loading.hurry():
            import loguru  # noqa: F401
    from loguru import logger

    return logger


def _last_resort(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text + "\n")


def report_unseen() -> None:
    """One line that counts the failures that nobody looked at; called when the process ends."""
    text = _unseen.report()
    _unseen.forget()
    if text:
        _say("ERROR", f"woflo: {text}")


def warn(text: str) -> None:
    """A warning of woflo's own, in the log."""
    _say("WARNING", text)


def _say(level: str, text: str) -> None:
    """One line that belongs to no run.

    The log may raise (see `_logger`: the program may fork too). Whoever waits for a run must not get that for an answer.
    """
    try:
        _logger().log(level, "{}", text)
    except Exception as error:
        _last_resort(f"{text} ({_one_line(error)} while logging it)")
