"""Which of CPython's cases don't apply to TaskExecutor, and which are run with `strict_compat=True`; each with the reason."""

from __future__ import annotations

_REUSE = "wants a worker process to be used again; MultiprocessTaskRun has a fresh one for each call"

_UNPICKLABLE = (
    "counts the workers that the standard pool starts for calls which can't be pickled; here none is started for them"
)

NOT_APPLICABLE: dict[str, str] = {
    "ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full": (
        "replaces the standard pool's private wake-up pipe and manager thread by slow ones; TaskExecutor has neither"
    ),
    "ProcessPoolExecutorTest.test_python_finalization_error": (
        "has the start of the standard pool's private second thread fail; TaskExecutor's calls don't depend on one"
    ),
    "ProcessPoolExecutorTest.test_traceback": (
        "wants the private class _RemoteTraceback as the cause; here the exception itself has the worker's traceback"
    ),
    "ProcessPoolForkProcessPoolShutdownTest.test_processes_terminate": (
        "counts the idle workers that the standard pool forks ahead; TaskExecutor has as many workers as calls"
    ),
    "ProcessPoolSpawnProcessPoolExecutorTest.test_idle_process_reuse_one": _REUSE,
    "ProcessPoolForkserverProcessPoolExecutorTest.test_idle_process_reuse_one": _REUSE,
    "ProcessPoolSpawnProcessPoolExecutorTest.test_max_tasks_per_child": _REUSE,
    "ProcessPoolForkserverProcessPoolExecutorTest.test_max_tasks_per_child": _REUSE,
    "ProcessPoolSpawnProcessPoolExecutorTest.test_saturation": _UNPICKLABLE,
    "ProcessPoolForkserverProcessPoolExecutorTest.test_saturation": _UNPICKLABLE,
}
"""By the end of a case's name."""

_BREAKS = "a lost worker costs its own call only, and the executor goes on"
_INHERITS = "a forked worker inherits the arguments; nothing is pickled on the way in"
_FORKED = (
    "wants max_tasks_per_child to be refused with fork; a pool that is always forked replaces its workers all the same"
)
_FRESH = "with a fresh process per call fork can keep max_tasks_per_child too"

STRICT: dict[str, str] = {
    "FailingInitializerTest.test_initializer": "a failed initializer costs its own call only, and the executor goes on",
    "ProcessPoolExecutorTest.test_killed_child": _BREAKS,
    "ProcessPoolForkProcessPoolExecutorTest.test_max_tasks_per_child": _FRESH,
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": _FRESH,
    "ProcessPoolForkProcessPoolExecutorTest.test_ressources_gced_in_workers": _INHERITS,
    "ProcessPoolForkExecutorDeadlockTest.test_crash_at_task_unpickle": _INHERITS,
    "ProcessPoolForkExecutorDeadlockTest.test_error_at_task_pickle": _INHERITS,
    "ProcessPoolForkExecutorDeadlockTest.test_error_at_task_unpickle": _INHERITS,
    "ProcessPoolForkExecutorDeadlockTest.test_exit_at_task_unpickle": _INHERITS,
    "ProcessPoolForkExecutorDeadlockTest.test_shutdown_deadlock_pickle": _INHERITS,
}
"""By the end of a case's name: TaskExecutor is different there on purpose, and the same with `strict_compat=True`."""


WARM: dict[str, str] = {
    "ProcessPoolForkProcessPoolExecutorTest.test_saturation": _UNPICKLABLE,
    "ProcessPoolForkProcessPoolExecutorTest.test_max_tasks_per_child": _FORKED,
    "ProcessPoolForkProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": _FORKED,
}
"""Not applicable to warm workers, by the end of a case's name."""


def reason(table: dict[str, str], kind: str, name: str) -> str:
    """Why a case of this kind is in a table; empty if it is not."""
    return next((text for end, text in table.items() if f"{kind} {name}".endswith(end)), "")
