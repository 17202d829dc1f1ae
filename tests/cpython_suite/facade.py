"""What CPython's tests see in place of ThreadPoolExecutor and ProcessPoolExecutor: TaskExecutor, under their names.

The tests ask their executors for private parts. Those that have an equivalent can be read here; the product doesn't have them.
Loaded by every interpreter of the suite's environment as long as WOFLO_CPYTHON_SUITE is set.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from types import MappingProxyType, SimpleNamespace
from typing import Any

from woflo.futures import TaskExecutor
from woflo.runners import MultiprocessTaskRun, PoolTaskRun, ThreadTaskRun, _supervisor, thread

WARM = os.environ.get("WOFLO_CPYTHON_SUITE_RUNNER") == "pool"
PATIENCE = 30.0  # seconds until what the tests look at without waiting must have come about


class _Facade(TaskExecutor):
    """With `strict_compat` for the cases that are marked so."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings, strict_compat=bool(os.environ.get("WOFLO_CPYTHON_SUITE_STRICT")))


class ThreadPoolExecutor(_Facade):
    """TaskExecutor over threads."""

    def __init__(self, max_workers=None, thread_name_prefix="", initializer=None, initargs=()):
        super().__init__(
            max_workers,
            runner=ThreadTaskRun,
            thread_name_prefix=thread_name_prefix,
            initializer=initializer,
            initargs=initargs,
        )

    @property
    def _threads(self) -> frozenset[Any]:
        """The threads that are there, once those that are being called have come."""
        pool = thread._pools.get(self.runner)
        if pool is None:
            return frozenset()
        deadline = time.monotonic() + PATIENCE
        while pool.searching and time.monotonic() < deadline:
            time.sleep(0.001)
        return frozenset(one for one in list(pool.members.values()) if one is not None)


class ProcessPoolExecutor(_Facade):
    """TaskExecutor over processes: a fresh one for each call, or warm ones."""

    def __init__(self, max_workers=None, mp_context=None, initializer=None, initargs=(), *, max_tasks_per_child=None):
        self._given_context = mp_context
        super().__init__(
            max_workers,
            None if WARM else mp_context,
            initializer,
            initargs,
            max_tasks_per_child=max_tasks_per_child,
            runner=PoolTaskRun if WARM else MultiprocessTaskRun,
        )

    @property
    def _processes(self) -> Any:
        """The workers that are there, by their numbers."""
        supervisor = _supervisor.get()
        with supervisor.lock:
            if WARM:
                workers = list(self.runner._pool._hands.values()) if self.runner._pool is not None else []
            else:
                workers = [one for one in supervisor.workers.values() if type(one.run) is self.runner]
        return MappingProxyType({one.pid: _process(supervisor, one) for one in workers})

    @property
    def _executor_manager_thread(self) -> Any:
        """There is no such thread; what it would be joined for is that all calls have ended."""
        return SimpleNamespace(join=self._drain)

    @property
    def _call_queue(self) -> Any:
        """There is no such queue, and nothing to join."""
        return SimpleNamespace(join_thread=lambda: None)

    @property
    def _mp_context(self) -> Any:
        import multiprocessing

        return self._given_context if WARM else multiprocessing.get_context(self.runner.process_type._start_method)


def _process(supervisor: Any, worker: Any) -> Any:
    return SimpleNamespace(
        pid=worker.pid,
        terminate=lambda: os.kill(worker.pid, signal.SIGTERM),
        join=lambda: supervisor.settle(None, worker),
    )


def install() -> None:
    """Put the two into `concurrent.futures`."""
    concurrent.futures.ThreadPoolExecutor = ThreadPoolExecutor
    concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor
