"""What the arguments of an executor, as the standard library has them, are in the words of a runner."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from woflo.errors import UsageError
from woflo.runners.base import BaseTaskRun

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check", "in_words_of", "spawning"]


def check(max_workers: Any, max_tasks_per_child: Any, initializer: Any, runner: Any) -> None:
    """Raise an error for the first argument that has a bad value."""
    if not (isinstance(runner, type) and issubclass(runner, BaseTaskRun)):
        raise UsageError(f"runner must be a class of TaskRun, not {runner!r}")
    for name, value in (("max_workers", max_workers), ("max_tasks_per_child", max_tasks_per_child)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UsageError(f"{name} must be greater than 0, a whole number or None, not {value!r}")
    if initializer is not None and not callable(initializer):
        raise TypeError(f"initializer must be callable, not {initializer!r}")


def in_words_of(
    runner: type[BaseTaskRun[Any]],
    max_workers: int | None,
    mp_context: Any,
    max_tasks_per_child: int | None,
    thread_name_prefix: str,
    initializer: Callable[[], object] | None,
) -> dict[str, Any]:
    """What an executor's arguments are in the runner's words; those that it was not given are left as the runner has them.

    Raises:
        UsageError: the runner has nothing of the kind.
    """
    known = runner._settings
    has_processes = "process_type" in known
    found: dict[str, Any] = {}
    if "workers" in known:
        found["workers"] = max_workers
    elif "max_running" in known:
        if max_workers is None and runner.max_running is None:
            max_workers = _cores() if has_processes else min(32, _cores() + 4)
        found["max_running"] = max_workers
    elif max_workers is not None:
        raise UsageError(f"{runner.__name__} has no limit: leave max_workers out")
    if mp_context is not None:
        found["process_type"] = _process_type(mp_context)
    if "max_runs_per_worker" in known:
        found["max_runs_per_worker"] = max_tasks_per_child
    elif max_tasks_per_child is not None and not has_processes:
        raise UsageError(f"{runner.__name__} has no processes: leave max_tasks_per_child out")
    if "thread_name_prefix" in known:
        found["thread_name_prefix"] = thread_name_prefix or getattr(runner, "thread_name_prefix", None)
    elif thread_name_prefix:
        raise UsageError(f"{runner.__name__} names no threads: leave thread_name_prefix out")
    if "initializer" in known and initializer is not None:
        found.update(initializer=initializer, initargs=())
    return {name: value for name, value in found.items() if value is not None}


def _cores() -> int:
    """How many cores this process may use."""
    usable: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)
    return usable() or 1


def _process_type(mp_context: Any) -> Any:
    """The class of process that a context of multiprocessing (or multiprocess) starts."""
    try:
        return mp_context.get_context(mp_context.get_start_method()).Process
    except AttributeError:
        raise TypeError(f"mp_context must be a context of multiprocessing, not {mp_context!r}") from None


def spawning(mp_context: Any) -> Any:
    """The context for `max_tasks_per_child` as the standard library has it: none that forks."""
    from multiprocessing import get_context

    if mp_context is None:
        return get_context("spawn")
    if mp_context.get_start_method() == "fork":
        raise UsageError("max_tasks_per_child needs a start method other than fork under strict_compat")
    return mp_context
