"""woflo: `@task` on a plain function; calling it starts a run somewhere else and returns a TaskRun at once.

>>> from woflo import task
>>> from woflo.runners import SequentialTaskRun
>>> @task(runner=SequentialTaskRun)
... def double(x):
...     return 2 * x
>>> double(21).get_result()
42
"""

from __future__ import annotations

from woflo.errors import (
    CyclicWorkflowError,
    ExceptionStandIn,
    InternalError,
    StoreError,
    TaskStopped,
    UsageError,
    WaitTimeout,
)
from woflo.result import (
    DependencyFailure,
    Failure,
    MissingFailure,
    Ok,
    Result,
    StoppedFailure,
    TaskFailure,
    TimeoutFailure,
    WorkerFailure,
)
from woflo.runners._attempt import current_run, stop_requested
from woflo.runners.base import BaseTaskRun
from woflo.task import Task, ref, task, use  # not lazily: a lazy name `task` would be the module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from woflo._group import RunGroup
    from woflo.directory import Directory
    from woflo.events import observe
    from woflo.graph import Graph, Node
    from woflo.runners._progress import Progress, progress
    from woflo.runners._waiting import as_completed, gather, wait
    from woflo.runners.executor import ExecutorTaskRun
    from woflo.runners.pool import PoolTaskRun

TaskRun = BaseTaskRun

__all__ = [
    "BaseTaskRun",
    "CyclicWorkflowError",
    "DependencyFailure",
    "Directory",
    "ExceptionStandIn",
    "ExecutorTaskRun",
    "Failure",
    "Graph",
    "InternalError",
    "MissingFailure",
    "Node",
    "Ok",
    "PoolTaskRun",
    "Progress",
    "Result",
    "RunGroup",
    "StoppedFailure",
    "StoreError",
    "Task",
    "TaskFailure",
    "TaskRun",
    "TaskStopped",
    "TimeoutFailure",
    "UsageError",
    "WaitTimeout",
    "WorkerFailure",
    "as_completed",
    "current_run",
    "gather",
    "observe",
    "progress",
    "ref",
    "stop_requested",
    "task",
    "use",
    "wait",
]

_LAZY = {
    "Directory": "woflo.directory",
    "ExecutorTaskRun": "woflo.runners.executor",
    "Graph": "woflo.graph",
    "Node": "woflo.graph",
    "RunGroup": "woflo._group",
    "PoolTaskRun": "woflo.runners.pool",
    "Progress": "woflo.runners._progress",
    "as_completed": "woflo.runners._waiting",
    "gather": "woflo.runners._waiting",
    "observe": "woflo.events",
    "progress": "woflo.runners._progress",
    "wait": "woflo.runners._waiting",
}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
