"""The runners: where runs execute. Each is a class of TaskRun, imported when it is first used."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from woflo.runners.asynchronous import AsyncTaskRun
    from woflo.runners.base import BaseTaskRun
    from woflo.runners.executor import ExecutorTaskRun
    from woflo.runners.multiprocess import ForkProcess, ForkServerProcess, MultiprocessTaskRun, SpawnProcess
    from woflo.runners.pool import PoolTaskRun
    from woflo.runners.sequential import SequentialTaskRun
    from woflo.runners.thread import ThreadTaskRun

__all__ = [
    "AsyncTaskRun",
    "BaseTaskRun",
    "ExecutorTaskRun",
    "ForkProcess",
    "ForkServerProcess",
    "MultiprocessTaskRun",
    "PoolTaskRun",
    "SequentialTaskRun",
    "SpawnProcess",
    "ThreadTaskRun",
]

_MODULES = {
    "AsyncTaskRun": "asynchronous",
    "BaseTaskRun": "base",
    "ExecutorTaskRun": "executor",
    "ForkProcess": "multiprocess",
    "ForkServerProcess": "multiprocess",
    "MultiprocessTaskRun": "multiprocess",
    "PoolTaskRun": "pool",
    "SequentialTaskRun": "sequential",
    "SpawnProcess": "multiprocess",
    "ThreadTaskRun": "thread",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
