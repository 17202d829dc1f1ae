"""The registry: which fault, on which runners, kept by which test; and why not elsewhere.

A row has one answer per runner: a test, or the reason why the fault can't happen
there. `covers` ties a test to rows; `python -m tests.faults --list` prints the table
and fails when a cell is blank.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

F = TypeVar("F", bound="Callable[..., Any]")

RUNNERS = ("sequential", "thread", "async", "fork", "spawn", "pool")
HERE = ("sequential", "thread", "async")
PROCESSES = ("fork", "spawn", "pool")
CONCURRENT = ("thread", "async", "fork", "spawn", "pool")

ONE_PROCESS = "the task lives in the caller's process, which this ends or changes as a whole"
NO_BOUNDARY = "nothing is pickled: arguments and results stay in the process"
NO_CHILD = "starts no process"
IN_THE_CALL = "the call returns when the run has ended: nothing is running, pending or in a pause"
OWN_CHILDREN = "the task's own children are children of the program itself, which looks after them"
CALLERS_STDIO = "the task shares the program's own stdio, on purpose"
ONCE = "says nothing about runners: tested once, under fork"


CAMPAIGN = "a warm worker sends no frames; what it publishes and where it dies is tests/test_pool_faults.py's campaign"
OWN_STATE = "what a task keeps in its module stays with a warm worker, and ends when another task overwrites it"
NOT_POOL = {
    "kill-before-body": CAMPAIGN,
    "kill-mid-send": CAMPAIGN,
    "kill-after-send": CAMPAIGN,
    "closed-descriptors": "a result needs no descriptor; the worker is replaced: tests/test_pool.py",
    "exit-codes": "tests/test_pool.py; there is no channel that a task could close",
    "evil-del": OWN_STATE,
}
"""Rows that concern processes and that a warm worker answers in its own way."""


@dataclass(frozen=True)
class Row:
    """One fault and what a user wants to see."""

    key: str
    fault: str
    wants: str
    runners: tuple[str, ...] = RUNNERS
    elsewhere: Mapping[str, str] = field(default_factory=dict)


def _row(
    key: str,
    fault: str,
    wants: str,
    runners: Sequence[str] = RUNNERS,
    why_not: str | Mapping[str, str] = "",
) -> Row:
    others = [runner for runner in RUNNERS if runner not in runners]
    reasons = dict.fromkeys(others, why_not) if isinstance(why_not, str) else dict(why_not)
    if key in NOT_POOL:
        runners = [runner for runner in runners if runner != "pool"]
        reasons["pool"] = NOT_POOL[key]
    elif "pool" in others:
        reasons.setdefault("pool", reasons.get("spawn", ""))
    return Row(key, fault, wants, tuple(runners), reasons)


_ROWS = [
    # Death
    _row(
        "kill-before-body",
        "kill -9 before the task body starts",
        "lost or restarted, never twice",
        PROCESSES,
        ONE_PROCESS,
    ),
    _row(
        "kill-mid-run",
        "kill -9 mid-run",
        "lost at once; the neighbour and the next run don't notice",
        PROCESSES,
        ONE_PROCESS,
    ),
    _row("kill-retry", "kill -9 mid-run with attempts left", "a new attempt, by the ledger", PROCESSES, ONE_PROCESS),
    _row("kill-while-pickling", "kill -9 while the result is being pickled", "lost", PROCESSES, ONE_PROCESS),
    _row(
        "kill-mid-send",
        "kill -9 after k bytes of the frame",
        "lost; a torn frame is never unpickled",
        PROCESSES,
        ONE_PROCESS,
    ),
    _row("kill-after-send", "kill -9 after the last byte, before exit", "the result is intact", PROCESSES, ONE_PROCESS),
    _row(
        "crash",
        "segfault, abort, SIGBUS, SIGFPE, stack overflow",
        "lost, with the signal's name",
        PROCESSES,
        ONE_PROCESS,
    ),
    _row("memory-limit", "RLIMIT_AS", "MemoryError, or lost", PROCESSES, ONE_PROCESS),
    _row(
        "memory-hint",
        "killed by SIGKILL, as the kernel does when memory is short",
        "a hint at memory",
        PROCESSES,
        ONE_PROCESS,
    ),
    _row(
        "sigchld-ignored",
        "the application ignores SIGCHLD",
        "results count, a death is 'exit status unknown'",
        PROCESSES,
        NO_CHILD,
    ),
    _row(
        "waitpid-thief",
        "the application reaps with waitpid(-1)",
        "results count, a death is 'exit status unknown'",
        PROCESSES,
        NO_CHILD,
    ),
    _row(
        "outlived",
        "the task forks, its child outlives it holding the channel",
        "the run ends when the task ends",
        PROCESSES,
        OWN_CHILDREN,
    ),
    _row("exit-codes", "os._exit, os.abort, exec of another program", "lost with the code", PROCESSES, ONE_PROCESS),
    _row("closed-descriptors", "the task closes all descriptors", "lost or success, no hang", PROCESSES, ONE_PROCESS),
    _row(
        "stdio-replaced",
        "dup2 over 0-2; a full stdout pipe",
        "lost or success, no hang, the parent's output intact",
        PROCESSES,
        CALLERS_STDIO,
    ),
    _row(
        "leftover-threads",
        "the task leaves a thread running",
        "the result arrives, the process ends",
        PROCESSES,
        "a thread of the program itself: it looks after it",
    ),
    _row(
        "changed-state",
        "signal handlers, cwd, umask, environment, stdout, recursion limit, random state",
        "the next run and the parent see the defaults",
        PROCESSES,
        "the task shares the program's state, on purpose",
    ),
    # Stop and time-outs
    _row(
        "sigterm-defied",
        "the task ignores, blocks or traps SIGTERM",
        "stop() ends it by SIGKILL after the grace",
        PROCESSES,
        "no signal is sent to a thread",
    ),
    _row(
        "stop-plain",
        "stop() of a task in Python code",
        "TaskStopped, finally runs, StoppedFailure",
        CONCURRENT,
        IN_THE_CALL,
    ),
    _row(
        "stop-swallowed",
        "the task returns or goes on after the stop was asked",
        "what it returned counts",
        CONCURRENT,
        IN_THE_CALL,
    ),
    _row(
        "c-loop",
        "the task is in an uninterruptible C loop",
        "killed after the grace; a thread is abandoned and said so",
        ("thread", "fork", "spawn"),
        {
            "sequential": IN_THE_CALL,
            "async": "a C call on the loop blocks the loop's thread, stop() included, as any asyncio program knows",
        },
    ),
    _row(
        "grandchildren",
        "subprocess, double fork, setsid",
        "ended with the run; what left the group is ended or reported",
        PROCESSES,
        OWN_CHILDREN,
    ),
    _row("stop-back-off", "stop() in the pause between attempts", "ended in 100 ms", CONCURRENT, IN_THE_CALL),
    _row(
        "stop-pending",
        "stop() of a run that hasn't started",
        "StoppedFailure, the body never runs",
        CONCURRENT,
        IN_THE_CALL,
    ),
    _row("stop-ended", "stop() of an ended run, and twice", "no effect", RUNNERS),
    _row("timeout", "a task that takes too long", "TimeoutFailure with limit, elapsed and place", RUNNERS),
    _row("timeout-retry", "a time-out with attempts left", "a new attempt", RUNNERS),
    _row("sigstop", "SIGSTOP and SIGCONT to a worker", "just slower; time-outs still act", PROCESSES, ONE_PROCESS),
    _row(
        "stop-foreign-handler",
        "stop() in an asyncio program with its own SIGTERM handler",
        "only the run ends, the handler isn't called",
        PROCESSES,
        "no signal is sent to a thread",
    ),
    # Results
    _row(
        "base-exceptions",
        "SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError, own BaseException",
        "TaskFailure with it as the cause, not retried",
        RUNNERS,
    ),
    _row(
        "exceptions-stdlib",
        "every exception class of the standard library",
        "the user's type where it can travel",
        ("fork",),
        "as under fork, one class at a time: `exceptions-evil` covers the channel",
    ),
    _row(
        "exceptions-evil",
        "exceptions that fail in __init__, __reduce__, __str__, __repr__, __setstate__; frozen; cause, notes, group",
        "the user's type or a faithful stand-in",
        RUNNERS,
    ),
    _row("cause-chain", "a __cause__ chain of 10^4", "arrives, or a clear error", RUNNERS),
    _row(
        "unpicklable-argument",
        "an argument that can't be pickled",
        "an error at the call; nothing is started",
        ("spawn",),
        {
            "fork": "the child has the arguments already; it must simply work: tested there too",
            "pool": "tests/test_pool.py",
            **dict.fromkeys(HERE, NO_BOUNDARY),
        },
    ),
    _row("unpicklable-result", "a result that can't be pickled", "a failure naming it", PROCESSES, NO_BOUNDARY),
    _row("lock-result", "a threading.Lock as the result", "a failure, never another lock", PROCESSES, NO_BOUNDARY),
    _row(
        "generator", "a generator function; a generator as the result", "UsageError at decoration; a failure", RUNNERS
    ),
    _row("sizes", "results of 0, 65,000, 66,000 and 10^6 bytes", "arrive intact, the worker doesn't wait", RUNNERS),
    _row("huge", "a result of 256 MB", "arrives intact; peak <= result + 64 MB", PROCESSES, NO_BOUNDARY),
    _row("nested-list", "a list nested 10^5 deep as the result", "arrives, or a clear error; never a crash", RUNNERS),
    _row(
        "evil-unpickling",
        "unpickling the result raises, exits or forks in the parent",
        "only this run fails",
        PROCESSES,
        NO_BOUNDARY,
    ),
    _row(
        "evil-del",
        "__del__ raises or hangs in the worker",
        "the result that was sent counts",
        PROCESSES,
        "the object dies in the caller's process whenever the caller lets it",
    ),
    _row("exception-returned", "a task returns an exception object", "it's a value", RUNNERS),
    _row("none-is-a-value", "a task returns None; a task fails", "None only when the task returned it", RUNNERS),
    # Exit
    _row(
        "exit-normal",
        "end of the script with running, queued, stopped, failed runs",
        "all are carried out, failures are reported in a line",
        RUNNERS,
    ),
    _row("exit-sys-exit", "sys.exit with runs", "all are carried out; the code stays", RUNNERS),
    _row(
        "exit-exception",
        "an unhandled exception with runs",
        "all are stopped within the grace",
        CONCURRENT,
        IN_THE_CALL,
    ),
    _row(
        "exit-exec",
        "the program becomes another one by os.execv",
        "0 descendants in 2 s",
        PROCESSES,
        "its code is gone",
    ),
    _row("exit-os-exit", "os._exit with runs", "0 descendants in 2 s", RUNNERS),
    _row(
        "exit-atexit",
        "runs started from atexit, and from a thread after the main thread's end",
        "carried out, or a clear error; never a hang",
        RUNNERS,
    ),
    _row(
        "exit-nested",
        "a worker's own runs at its end",
        "carried out with it",
        PROCESSES,
        "its runs are runs of the program: exit-normal",
    ),
    _row(
        "exit-3.12.1",
        "end of the script where Python refuses fork and threads during exit",
        "carried out or StoppedFailure, reported",
        RUNNERS,
    ),
    _row(
        "interrupt-wait",
        "Ctrl-C while waiting, computing, or starting runs",
        "one KeyboardInterrupt, no worker traces, exit 130",
        RUNNERS,
    ),
    _row(
        "interrupt-exit",
        "Ctrl-C in the final wait",
        "dies by SIGINT after one press, no worker traces",
        CONCURRENT,
        IN_THE_CALL,
    ),
    _row(
        "interrupt-twice",
        "a second SIGINT during clean-up",
        "ends, 0 orphans",
        ("thread", "fork", "spawn", "pool"),
        {
            "sequential": IN_THE_CALL,
            "async": "a coroutine that refuses to end is a thread that refuses to end: `thread`",
        },
    ),
    _row(
        "parent-killed",
        "SIGKILL to the parent",
        "0 descendants in 2 s, with the grandchildren of the group",
        PROCESSES,
        NO_CHILD,
    ),
    _row(
        "parent-thread-ended",
        "the run was started by a thread that has ended",
        "lives with the parent, dies with it",
        PROCESSES,
        NO_CHILD,
    ),
    _row(
        "parent-terminated",
        "SIGTERM to the parent",
        "143, 0 descendants; the application's own handler is untouched",
        PROCESSES,
        NO_CHILD,
    ),
    # Environment
    _row("stdin", "stdin at EOF, closed, not a terminal", "works", RUNNERS),
    _row(
        "no-script",
        "python -c, stdin script, REPL, zipapp, -I -S",
        "works or a clear error",
        PROCESSES,
        "needs no import of the program: covered by every case",
    ),
    _row(
        "terminal",
        "the task reads the terminal",
        "EOF or an error at once, never a stopped process",
        PROCESSES,
        "the task shares the program's own terminal, on purpose",
    ),
    _row(
        "fork-held-locks",
        "fork while another thread holds a user lock, stdout's buffer, logging's lock, loguru's",
        "our own path never blocks; the task's own wait ends by its time-out",
        ("fork",),
        "doesn't fork while threads run",
    ),
    _row(
        "user-fork",
        "the user's own fork after woflo was used",
        "the child's woflo works and leaves the parent's runs alone",
        RUNNERS,
    ),
    _row("fork-refused", "fork fails with EAGAIN", "a clear failure; other runs don't notice", PROCESSES, NO_CHILD),
    _row("no-descriptors", "RLIMIT_NOFILE 64 with 500 runs", "all run; none half open", RUNNERS),
    _row(
        "step-errors",
        "each system call of a start fails in turn",
        "that run fails with the errno's name, no hang, the next run works",
        ("fork",),
        {
            "spawn": "the same calls, made by the same supervisor; the rest is the standard library's launcher",
            **dict.fromkeys(HERE, NO_CHILD),
        },
    ),
    _row("no-threads", "threads can't be started", "a clear failure or it works without; no hang", RUNNERS),
    _row("clock", "the clock jumps by a day", "no time-out and no order changes", RUNNERS),
    _row("import-only", "import woflo, nothing else", "no thread, process, descriptor, handler, file", RUNNERS),
    # Unattended
    _row("unattended-timeout", "nobody waits: a time-out", "acts in time", CONCURRENT, IN_THE_CALL),
    _row("unattended-retry", "nobody waits: a retry after kill -9 or an exception", "happens", CONCURRENT, IN_THE_CALL),
    _row("unattended-megabyte", "nobody waits: a result of 1 MB", "the worker ends", CONCURRENT, IN_THE_CALL),
    _row("unattended-33rd", "nobody waits: more runs than slots", "all start", CONCURRENT, IN_THE_CALL),
    _row("unattended-callback", "nobody waits: a callback", "is called", CONCURRENT, IN_THE_CALL),
    _row("unattended-input", "nobody waits: a run whose input ends", "starts", CONCURRENT, IN_THE_CALL),
    # Volume
    _row("volume-dropped", "100,000 runs dropped (2,000 on processes)", "memory, descriptors, threads flat", RUNNERS),
    _row("volume-kept", "100,000 runs kept (2,000 on processes)", "<= 1 KB each and no descriptor", RUNNERS),
    _row("nested", "runs nested three deep, one slot", "works, nothing starves", RUNNERS),
    _row("two-readers", "two threads get one run's result", "both have it", RUNNERS),
    _row("asked-twice", "get_result twice", "the same answer", RUNNERS),
    _row("waiter-cancelled", "a waiter of `await run` is cancelled", "the run goes on, others get it", RUNNERS),
    _row(
        "deep-chain",
        "a chain of runs, each the next one's input",
        "works; iterative",
        ("sequential", "thread", "async", "fork"),
        "as fork: the chain is the parent's; a spawned process per link only costs time",
    ),
    # The older project of the same name, beyond the rows above
    _row(
        "upstream-stop-visible",
        "stop(), then get_result()",
        "raises StoppedFailure, never None",
        CONCURRENT,
        IN_THE_CALL,
    ),
    _row("upstream-log-level", "importing and using woflo", "the application's logging is left alone", RUNNERS),
    _row(
        "upstream-process-type", "process_type set for one class", "doesn't change a `using` class", PROCESSES, NO_CHILD
    ),
    _row("upstream-dependencies", "import with the run-time dependencies only", "works", RUNNERS),
    _row(
        "upstream-async-retries",
        "retries and exceptions on asyncio",
        "retried; raise_exceptions=False returns",
        ("async",),
        "the same through the contract suite",
    ),
    _row("upstream-no-wait", "a wait that runs out", "WaitTimeout, the run is left alone", CONCURRENT, IN_THE_CALL),
]

ROWS: dict[str, Row] = {row.key: row for row in _ROWS}
TESTS: dict[tuple[str, str], list[str]] = {}
"""(row, runner) -> names of the tests that keep it."""


def covers(
    *keys: str,
    runners: Sequence[str] | None = None,
    vary: tuple[str, Mapping[Any, Sequence[str]]] | None = None,
    slow: bool = False,
) -> Callable[[F], F]:
    """Tie a test to rows.

    The test is parametrised over the runners if it takes a `runner`. By default these
    are the runners of its first row.

    Args:
        keys: Rows of this registry.
        runners: Which of the runners this test is for.
        vary: Another parameter: its name, and for each of its values the runners.
        slow: Marks it `slow` as well.
    """
    chosen = tuple(ROWS[keys[0]].runners if runners is None else runners)

    def tie(test: F) -> F:
        module = test.__module__.rpartition(".")[2]
        code = test.__code__
        marked: Any = test
        used = chosen
        if vary is not None:
            name, values = vary
            pairs = [(runner, value) for value, wanted in values.items() for runner in wanted]
            used = tuple(runner for runner in RUNNERS if runner in {runner for runner, _ in pairs})
            marked = pytest.mark.parametrize(("runner", name), pairs)(marked)
        elif "runner" in code.co_varnames[: code.co_argcount]:
            marked = pytest.mark.parametrize("runner", chosen)(marked)
        for key in keys:
            for runner in used:
                TESTS.setdefault((key, runner), []).append(f"{module}.{test.__name__}")
        if slow:
            marked = pytest.mark.slow(marked)
        linux = pytest.mark.skipif(sys.platform != "linux", reason="the harness counts by /proc and a child subreaper")
        result: F = linux(pytest.mark.faults(marked))
        return result

    return tie


def load_tests() -> None:
    """Import every test module, so that `TESTS` is complete."""
    import importlib
    import pkgutil

    package = importlib.import_module(__package__ or "tests.faults")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("test_"):
            importlib.import_module(f"{package.__name__}.{module.name}")


def cells() -> list[tuple[Row, str, str]]:
    """Row by runner: names of the tests, "no: reason", or "" where there is neither."""
    found = []
    for row in ROWS.values():
        for runner in RUNNERS:
            tests = TESTS.get((row.key, runner), [])
            reason = row.elsewhere.get(runner, "")
            found.append((row, runner, ", ".join(tests) or (f"no: {reason}" if reason else "")))
    return found
