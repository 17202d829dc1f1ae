"""The names that the code of every case finds (`from tests.faults.inside import *`).

Runs in the case's interpreter and in its workers, never in pytest's. Imports little:
what it loads is loaded in every worker that is spawned. The ledger (`write`) is one
append per line by one system call, so it tells the truth about what ran, whoever died.
"""

# The names are for the cases; os functions, because workers load this and a case counts what is open:
# ruff: noqa: F401

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import gc
import inspect
import os
import signal
import sys
import threading
import time
from pathlib import Path

import woflo
from woflo import (
    BaseTaskRun,
    DependencyFailure,
    ExceptionStandIn,
    Failure,
    Ok,
    StoppedFailure,
    TaskFailure,
    TaskStopped,
    TimeoutFailure,
    UsageError,
    WaitTimeout,
    WorkerFailure,
    as_completed,
    current_run,
    gather,
    observe,
    stop_requested,
    task,
    use,
)

DIRECTORY = os.environ["FAULTS_DIRECTORY"]
RUNNER_NAME = os.environ["FAULTS_RUNNER"]
IS_PROCESS = RUNNER_NAME in ("fork", "spawn", "pool")
LIMIT = 20.0
"""Seconds: the end of every wait inside a case; the harness ends it later still."""


@functools.cache
def runner_class(name):
    """The runner of that name, configured."""
    from woflo import runners

    if name == "sequential":
        return runners.SequentialTaskRun
    if name == "thread":
        return runners.ThreadTaskRun
    if name == "async":
        return runners.AsyncTaskRun
    if name == "pool":
        return runners.PoolTaskRun.using(workers=8)
    from woflo.runners.multiprocess import ForkProcess, MultiprocessTaskRun, SpawnProcess

    kinds = {"fork": ForkProcess, "spawn": SpawnProcess}
    return MultiprocessTaskRun.using(process_type=kinds[name])


RUNNER = runner_class(RUNNER_NAME)


def job(function=None, /, **options):
    """`task` on the case's runner; on asyncio a plain function becomes a coroutine one."""
    if function is None:
        return lambda function: job(function, **options)
    runner = options.setdefault("runner", RUNNER)
    if runner is runner_class("async") and not inspect.iscoroutinefunction(function):
        plain = function

        @functools.wraps(plain)
        async def function(*args, **kwargs):
            return plain(*args, **kwargs)

    return task(function, **options)


def write(*words):
    """One line into the ledger, by one system call on a descriptor of its own."""
    line = " ".join(map(str, words)) + "\n"
    handle = os.open(DIRECTORY + "/ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def lines(start=""):
    """The ledger's lines that begin with `start`."""
    try:
        with open(DIRECTORY + "/ledger") as file:
            return [line for line in file.read().splitlines() if line.startswith(start)]
    except FileNotFoundError:
        return []


def until(predicate, what="it", limit=LIMIT):
    """Poll until `predicate()` is true and answer it."""
    deadline = time.monotonic() + limit
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit} s for {what}")
        time.sleep(0.002)


def await_ledger(start, count=1, limit=LIMIT):
    """Wait for `count` lines that begin with `start`; these lines."""

    def found():
        entries = lines(start)
        return entries if len(entries) >= count else None

    return until(found, f"{count} x {start!r} in the ledger: {lines()}", limit)


def hold(name, limit=LIMIT):
    """Wait (in Python, in small sleeps) until `release(name)`."""
    until(lambda: os.path.exists(f"{DIRECTORY}/gate-{name}"), f"gate {name}", limit)


async def hold_async(name, limit=LIMIT):
    """`hold` for coroutines."""
    deadline = time.monotonic() + limit
    while not os.path.exists(f"{DIRECTORY}/gate-{name}"):  # noqa: ASYNC240 - a stat
        assert time.monotonic() < deadline, f"gate {name}"
        await asyncio.sleep(0.002)


def release(name):
    """Open the gate of that name for good."""
    Path(f"{DIRECTORY}/gate-{name}").touch()


def same(actual, expected):
    """An assertion that says what it saw."""
    assert actual == expected, f"{actual!r} is not {expected!r}"


def error_of(run, kind=Exception):
    """What `get_result` raises, which must be a `kind`; asked twice it's the same."""
    error = run.get_result(timeout=LIMIT, raise_exceptions=False)
    assert isinstance(error, BaseException), f"no failure but {error!r}"
    assert isinstance(error, kind), f"{type(error)}: {error!r}"
    assert run.get_result(raise_exceptions=False) is error
    try:
        run.get_result(timeout=LIMIT)
    except BaseException as raised:
        assert raised is error, f"{raised!r} raised, {error!r} returned"  # noqa: PT017 - no pytest here
    else:
        raise AssertionError("get_result returned")
    outcome = run.outcome()
    assert isinstance(outcome, Failure), repr(outcome)
    assert not run.is_running()
    return error


def lost(run, signal=None, exit_code=None):
    """The run has failed as lost: the WorkerFailure, naming signal or exit code."""
    failure = error_of(run, WorkerFailure)
    same(failure.signal, signal)
    if exit_code is not None:
        same(failure.exit_code, exit_code)
        assert str(exit_code) in str(failure), str(failure)
    if signal is not None:
        assert signal in str(failure), str(failure)
    assert failure.attempt >= 1
    assert failure.task in str(failure) or failure.run in str(failure), str(failure)
    return failure


def original(error):
    """The user's exception: the error itself, or the cause of a TaskFailure."""
    return error.__cause__ if type(error) is TaskFailure and error.__cause__ is not None else error


def value_of(run):
    """The value; asked twice it's the same."""
    value = run.get_result(timeout=LIMIT)
    assert run.get_result() is value
    assert isinstance(run.outcome(), Ok)
    return value


@job
def double(x):
    """The innocent neighbour."""
    return 2 * x


def works():
    """The next run is none the worse."""
    same(double(21).get_result(timeout=LIMIT), 42)


def is_alive(pid):
    """Whether the process runs (a zombie doesn't)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def gone(pid, limit=LIMIT):
    """Wait until the process has ended."""
    until(lambda: not is_alive(int(pid)), f"the end of process {pid}", limit)


def collect():
    """Let woflo take the step in which it collects what has ended; starts nothing."""
    module = sys.modules.get("woflo.runners._supervisor")
    supervisor = module.existing() if module is not None else None
    if supervisor is not None:
        supervisor.nudge()


def children():
    """Pids of this process' children, zombies too, whichever thread made them."""
    mine = str(os.getpid())
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            if stat.rpartition(")")[2].split()[1] == mine:
                found.add(entry)
    return found


def descriptors():
    """What is open: number -> what."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of this listing itself
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


def shared():
    """Named shared memory and semaphores that are woflo's or mapped here; others' come and go."""
    with open("/proc/self/maps") as maps:
        mapped = maps.read()
    return {name for name in os.listdir("/dev/shm") if "woflo" in name or f"/dev/shm/{name}" in mapped}


def inventory():
    """What a run might leave behind, by kind."""
    gc.collect()
    return {
        "descriptors": descriptors(),
        "threads": len(os.listdir("/proc/self/task")),
        "children": children(),
        "shared memory": shared(),
        "temporary files": set(os.listdir(os.environ["TMPDIR"])),
    }


def surplus(before, now):
    """What `now` has more than `before`; empty when nothing was left."""
    found = {}
    if len(now["descriptors"]) > len(before["descriptors"]):
        old = list(before["descriptors"].items())
        found["descriptors"] = [item for item in now["descriptors"].items() if item not in old][:20]
    if now["threads"] > before["threads"]:
        found["threads"] = [thread.name for thread in threading.enumerate()]
    for kind in ("children", "shared memory", "temporary files"):
        if now[kind] - before[kind]:
            found[kind] = now[kind] - before[kind]
    return found


def nothing_left(before, limit=2.0):
    """Within `limit` seconds nothing is left that wasn't there `before`."""
    deadline = time.monotonic() + limit
    while True:
        collect()
        left = surplus(before, inventory())
        if not left:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"left behind: {left}")
        time.sleep(0.01)


def maximum_memory():
    """This process' peak resident size so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def memory():
    """This process' resident size now, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def finish_case():
    """The last line of a case: nothing is left behind."""
    nothing_left(BEFORE)


def limited(count):
    """The case's runner with `max_running`; its pipe is counted as there from the start."""
    from woflo.runners import _tree

    if RUNNER_NAME == "pool":
        return RUNNER.using(workers=count)
    narrow = RUNNER.using(max_running=count)
    if IS_PROCESS:
        _tree.slots_of(narrow)
        BEFORE["descriptors"] = descriptors()
    return narrow


BEFORE = None


def _begin():
    global BEFORE
    if sys.stderr is not None:
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR2, all_threads=True, chain=False)
    if os.environ["FAULTS_WARM"] == "1":
        from woflo.runners import _tree
        from woflo.runners.multiprocess import MultiprocessTaskRun

        # A fork is quick; what woflo keeps for good (selector, slots) is now open.
        task(lambda: None, runner=MultiprocessTaskRun)().get_result(timeout=LIMIT)
        if IS_PROCESS:
            _tree.slots_of(RUNNER)
        collect()
    if RUNNER_NAME in ("thread", "async"):
        # idle threads end by themselves after a second: a hundred cases need not wait for it
        from woflo.runners import asynchronous, thread

        thread._IDLE_SECONDS = asynchronous._IDLE_SECONDS = 0.05
    if RUNNER_NAME == "pool":
        from woflo.runners import _pool

        _pool._IDLE_SECONDS = 0.05
    BEFORE = inventory()


if os.environ.get("FAULTS_BEGUN") is None:  # not again in a spawned worker
    os.environ["FAULTS_BEGUN"] = str(os.getpid())
    _begin()

__all__ = [name for name in globals() if not name.startswith("_")]
