"""woflo.progress: what tasks say of how far they are reaches their runs and whoever observes, on every runner."""

from __future__ import annotations

import contextvars
import math
import multiprocessing.resource_tracker
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import woflo
from woflo import task
from woflo.engine import Engine
from woflo.events import NodeEnded, NodeStarted, ObserverFailed, RunEnded, RunProgress, RunStarted
from woflo.runners import (
    AsyncTaskRun,
    ExecutorTaskRun,
    MultiprocessTaskRun,
    PoolTaskRun,
    SequentialTaskRun,
    ThreadTaskRun,
    _process,
    _progress,
)
from woflo.runners import executor as executor_module
from woflo.runners.multiprocess import ForkProcess, ForkServerProcess, SpawnProcess
from woflo.testing import PATIENCE, FakeClock, Flag

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
posix = pytest.mark.skipif(sys.platform == "win32", reason="fork needs POSIX")


class PortableTaskRun(MultiprocessTaskRun):
    """What MultiprocessTaskRun is on Windows."""

    _portable = True
    _pumped = False
    process_type = SpawnProcess


FORK = MultiprocessTaskRun.using(process_type=ForkProcess if hasattr(os, "fork") else SpawnProcess)
SERVER = MultiprocessTaskRun.using(process_type=ForkServerProcess)
HERE = {"sequential": SequentialTaskRun, "thread": ThreadTaskRun, "async": AsyncTaskRun}
ELSEWHERE = {
    "fork": pytest.param(FORK, marks=posix, id="fork"),
    "server": pytest.param(SERVER, marks=linux, id="server"),
    "spawn": pytest.param(MultiprocessTaskRun.using(process_type=SpawnProcess), id="spawn"),
    "portable": pytest.param(PortableTaskRun, id="portable"),
    "pool": pytest.param(PoolTaskRun, marks=linux, id="pool"),
}
on_every = pytest.mark.parametrize("runner", [*HERE.values(), *ELSEWHERE.values()])
on_all_apart = pytest.mark.parametrize("runner", [ThreadTaskRun, AsyncTaskRun, *ELSEWHERE.values()])
where_killed = pytest.mark.parametrize("runner", [ELSEWHERE[name] for name in ("fork", "server", "spawn", "pool")])


@pytest.fixture(scope="module", autouse=True)
def standing():
    """What is started once per program is there before anything is counted, and stays till the last test."""
    multiprocessing.resource_tracker.ensure_running()
    if sys.platform != "linux":
        yield
        return
    from woflo.runners import _zygote

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_zygote, "_IDLE_SECONDS", 600)  # on a busy machine it would leave between two tests
        if _zygote._zygote is not None:
            _zygote._zygote.close()
        task(int, runner=SERVER)().wait()
        yield
        _zygote._zygote.close()


@pytest.fixture(scope="module")
def executor():
    """A runner over somebody else's processes."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(int).result(PATIENCE)
        yield ExecutorTaskRun.using(pool)


@pytest.fixture
def seen():
    """The events of this test, in their order."""
    found = []
    with woflo.observe(found.append):
        yield found


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def told(events):
    return [(event.done, event.total, event.message) for event in events if isinstance(event, RunProgress)]


def sheets():
    """The files on which calls of other people's executors report."""
    folder, begin = os.path.split(executor_module._begin_of_words)
    return [name for name in os.listdir(folder) if name.startswith(begin) and name.endswith("progress")]


def ended(events):
    return any(isinstance(event, RunEnded) for event in events)


# Bodies; functions of this module, which workers find by name.


def count(number):
    for n in range(number):
        woflo.progress(n + 1, number)
    return number


def report_and_hold(started, release, done=1):
    woflo.progress(done)
    started.set()
    release.wait()


def own_progress():
    return woflo.current_run().progress


def fail_once(started, release):
    attempt = woflo.current_run().attempt
    before = own_progress()
    if attempt == 1:
        woflo.progress(5, 9, "first")
        raise ConnectionError("again")
    started.set()
    release.wait()
    if woflo.current_run().attempt == attempt:
        woflo.progress(6, 9, "second")
    return before


def report_and_die(number):
    woflo.progress(number, message="dying")
    os.kill(os.getpid(), signal.SIGKILL)


def report_for_ever(started):
    n = 0
    while True:
        n += 1
        woflo.progress(n)
        if n == 3:
            started.set()


def report_from_a_fork():
    woflo.progress(1)
    pid = os.fork()
    if pid == 0:
        woflo.progress(99)
        os._exit(0)
    os.waitpid(pid, 0)
    return own_progress()


def first_report_from_a_fork():
    pid = os.fork()
    if pid == 0:
        woflo.progress(99)
        os._exit(0)
    os.waitpid(pid, 0)


def report_some(n):
    if n % 7 == 0:
        woflo.progress(n, 400, f"call {n}")
    return n


def report_long(text):
    woflo.progress(2**63 - 1, 0.5, text)
    return own_progress()


def leave_a_thread(go, done, reports=True):
    def later():
        go.wait()
        for _ in range(3):
            woflo.progress(77)
        done.set()

    threading.Thread(target=contextvars.copy_context().run, args=(later,), daemon=True).start()
    if reports:
        woflo.progress(1)


def descriptors():
    return [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
    ]


# What arrives.


@on_every
def test_nothing_is_known_before_the_first_report(runner):
    """run.progress is None as long as the task has said nothing, and stays so if it never does."""
    run = task(abs, runner=runner)(-3)
    assert run.get_result(timeout=PATIENCE) == 3
    assert run.progress is None


@on_every
def test_the_last_of_many_reports_comes_before_the_end(seen, runner):
    """Thousands of reports become a few events; the last is among them, before the run's end."""
    run = task(count, runner=runner)(5_000)
    assert run.get_result(timeout=PATIENCE) == 5_000
    until(lambda: ended(seen))
    assert run.progress == (5_000, 5_000, "")
    reports = told(seen)
    assert reports[-1] == (5_000, 5_000, "")
    assert len(reports) == len(set(reports)) < 1_000
    assert reports == sorted(reports)
    kinds = [type(event) for event in seen if event.run == run.name]
    assert kinds[-1] is RunEnded
    assert kinds[-2] is RunProgress
    assert set(kinds[kinds.index(RunStarted) + 1 : -1]) == {RunProgress}


@on_every
def test_unobserved_the_last_report_stays(runner):
    """The last report can be read when the run has ended, though nobody observed or asked meanwhile."""
    runs = [task(count, runner=runner)(number) for number in (3, 2_000)]
    for run, number in zip(runs, (3, 2_000), strict=True):
        assert run.get_result(timeout=PATIENCE) == number
        assert run.progress == woflo.Progress(number, number, "")
        assert (run.progress.done, run.progress.total, run.progress.message) == (number, number, "")


@on_all_apart
def test_an_attempt_does_not_inherit(tmp_path, runner):
    """What a failed attempt has reported is not known of the next one, neither here nor in the task."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    run = task(fail_once, runner=runner, retries=1, retry_sleep_time=0)(started, release)
    started.wait()
    assert run.progress is None
    release.set()
    assert run.get_result(timeout=PATIENCE) is None
    assert run.progress == (6, 9, "second")


@on_every
def test_events_name_the_attempt(seen, runner):
    """Each attempt's last report is told before its end is, under its number."""
    flag = Flag(Path(tempfile.gettempdir()))
    run = task(fail_once, runner=runner, retries=1, retry_sleep_time=0)(flag, flag)
    assert run.get_result(timeout=PATIENCE) is None
    until(lambda: ended(seen))
    assert [(event.attempt, event.message) for event in seen if isinstance(event, RunProgress)] == [
        (1, "first"),
        (2, "second"),
    ]
    names = [type(event).__name__ for event in seen]
    assert names.index("RunProgress") < names.index("RunRetrying")


@on_all_apart
def test_who_begins_to_observe_late_is_told(tmp_path, runner):
    """An observer that comes when the task has already said how far it is learns it, though nothing more is said."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    run = task(report_and_hold, runner=runner)(started, release)
    started.wait()
    until(lambda: run.progress is not None)
    events = []
    with woflo.observe(events.append):
        until(lambda: told(events) == [(1, None, "")])
        release.set()
        assert run.wait(timeout=PATIENCE)


def test_several_runs_of_one_kind_are_told_apart(tmp_path):
    """What one worker reports is not taken for another's."""
    if sys.platform != "linux":
        pytest.skip("a pool needs Linux")
    for runner in (FORK, PoolTaskRun.using(workers=4)):
        folder = tmp_path / runner.__name__
        folder.mkdir()
        release = Flag(folder / "release")
        flags = [Flag(folder / str(n)) for n in range(4)]
        runs = [task(report_and_hold, runner=runner)(flag, release, n) for n, flag in enumerate(flags)]
        for flag in flags:
            flag.wait()
        until(lambda: all(run.progress is not None for run in runs))  # noqa: B023 - it is called here
        assert [run.progress.done for run in runs] == [0, 1, 2, 3]
        release.set()
        assert woflo.wait(runs, timeout=PATIENCE)


def test_an_executor_of_processes(tmp_path, seen, executor):
    """Reports of a call in somebody else's pool of processes can be read and are told; no file is left."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    run = task(report_and_hold, runner=executor)(started, release)
    started.wait()
    assert run.progress == (1, None, "")
    until(lambda: told(seen) == [(1, None, "")])
    release.set()
    assert run.wait(timeout=PATIENCE)
    other = task(count, runner=executor)(5_000)
    assert other.get_result(timeout=PATIENCE) == 5_000
    assert other.progress == (5_000, 5_000, "")
    until(lambda: ended(seen[-1:]))
    assert told(seen)[-1] == (5_000, 5_000, "")
    assert not sheets()


def test_an_executor_whose_worker_is_killed():
    """What a call in somebody else's process said before that was killed stays known, and its file is taken away."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        run = task(report_and_die, runner=ExecutorTaskRun.using(pool))(8)
        assert isinstance(run.outcome(), woflo.WorkerFailure)
    assert run.progress == (8, None, "dying")
    assert not sheets()


def test_an_executor_of_threads(seen):
    """In an executor of this process reports need no file."""
    with ThreadPoolExecutor(1) as pool:
        run = task(count, runner=ExecutorTaskRun.using(pool))(5_000)
        assert run.get_result(timeout=PATIENCE) == 5_000
    until(lambda: ended(seen))
    assert run.progress == (5_000, 5_000, "")
    assert told(seen)[-1] == (5_000, 5_000, "")


# What ends before its time.


@where_killed
def test_what_a_killed_worker_said_stays(seen, runner):
    """The very last report before a SIGKILL is known, and told before the end."""
    run = task(report_and_die, runner=runner)(4)
    assert isinstance(run.outcome(), woflo.WorkerFailure)
    until(lambda: ended(seen))
    assert run.progress == (4, None, "dying")
    assert told(seen)[-1] == (4, None, "dying")
    assert isinstance(seen[-1], RunEnded)


@on_all_apart
@pytest.mark.parametrize("observed", [False, True])
def test_a_task_that_reports_without_end_can_be_stopped(tmp_path, runner, observed):
    """stop() strikes a task that does nothing but report; what it said stays, and no observer is blamed."""
    if runner is AsyncTaskRun:
        pytest.skip("a plain function beside the loop can't be interrupted")
    started, events = Flag(tmp_path / "started"), []
    observer = woflo.observe(events.append)
    if not observed:
        observer.close()
    with observer:
        run = task(report_for_ever, runner=runner)(started)
        started.wait()
        run.stop(grace=PATIENCE if runner is not PortableTaskRun else 1)
        assert isinstance(run.outcome(), woflo.StoppedFailure)
        assert "abandoned" not in str(run.outcome())
        assert run.progress.done >= 3
        if observed:
            until(lambda: ended(events))
            assert told(events)[-1] == run.progress
    assert not [event for event in events if isinstance(event, ObserverFailed)]


@posix
def test_a_stopped_task_with_a_time_out(seen, tmp_path):
    """A time-out ends an attempt that reports all the time; what it said last is told before that."""
    run = task(report_for_ever, runner=FORK, timeout=0.3)(Flag(tmp_path / "started"))
    assert isinstance(run.outcome(), woflo.TimeoutFailure)
    until(lambda: ended(seen))
    assert run.progress == told(seen)[-1]


@posix
def test_reports_do_not_wait_for_the_parent(tmp_path):
    """A worker reports as often as it likes while its parent does nothing at all."""
    done = Flag(tmp_path / "done")

    def many():
        count(100_000)
        done.set()

    run = task(many, runner=FORK)()
    done.wait()  # nobody drives the supervisor meanwhile
    assert run.get_result(timeout=PATIENCE) is None
    assert run.progress == (100_000, 100_000, "")


@linux
def test_a_worker_that_is_gone_before_anybody_looks():
    """A report and a result that both wait in the channel when the worker has ended are both read."""
    run = task(count, runner=FORK)(3)
    os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
    supervisor = _process.timers()
    with supervisor.lock:
        supervisor._bury(run._worker)  # as if the poller had told of the death first
    assert run.get_result(timeout=PATIENCE) == 3
    assert run.progress == (3, 3, "")


@posix
def test_a_task_that_has_closed_everything(tmp_path):
    """A task that closes descriptors which aren't its own can still report: nobody hears it, nor who has the numbers now."""
    quiet = Flag(tmp_path / "quiet")

    def close_all():
        os.closerange(3, 256)
        ours, theirs = socket.socketpair()
        others = [theirs.dup() for _ in range(64)]
        woflo.progress(1)
        ours.setblocking(False)
        try:
            ours.recv(100)
        except BlockingIOError:
            quiet.set()
        for one in (ours, theirs, *others):
            one.close()

    run = task(close_all, runner=FORK)()
    outcome = run.outcome()
    assert quiet.is_set()
    assert isinstance(outcome, woflo.WorkerFailure)  # its result can't come back
    assert run.progress is None


@posix
def test_a_worker_without_a_descriptor_left():
    """A task that can open nothing more can still call progress."""

    def exhaust():
        import resource

        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        woflo.progress(1)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        woflo.progress(2)
        return "fine"

    run = task(exhaust, runner=FORK)()
    assert run.get_result(timeout=PATIENCE) == "fine"
    assert run.progress is None


@linux
def test_the_sheet_stays_between_parent_and_worker(tmp_path):
    """A worker inherits nothing of what another one reports."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    run = task(report_and_hold, runner=FORK)(started, release)
    started.wait()
    until(lambda: run.progress is not None)
    assert any("woflo-result" in one for one in descriptors())
    assert not any("woflo-result" in one for one in task(descriptors, runner=FORK)().get_result(timeout=PATIENCE))
    release.set()
    assert run.wait(timeout=PATIENCE)


# Pools.


@linux
def test_each_call_of_a_pool_has_its_own(tmp_path):
    """Of many short calls that go together some report: each run has its own report, the others none; all values are right."""
    one = PoolTaskRun.using(workers=1)
    short = task(report_some, runner=one)
    assert [short(n).get_result(timeout=PATIENCE) for n in range(1, 7)] == list(range(1, 7))
    function = one._pool.functions[id(short)]
    function.mean_ns, function.alone = 10_000, False  # also on a busy machine
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    held = task(report_and_hold, runner=one)(started, release)
    started.wait()
    runs = [short(n) for n in range(400)]  # meanwhile they are packed together
    release.set()
    assert woflo.gather(*runs) == list(range(400))
    for n, run in enumerate(runs):
        assert run.progress == ((n, 400, f"call {n}") if n % 7 == 0 else None)
    assert held.progress == (1, None, "")


@linux
@pytest.mark.parametrize("reports", [True, False])
def test_a_thread_that_a_call_of_a_pool_leaves_behind(tmp_path, reports):
    """When a call has ended its threads report nothing more, not to it and not to the next call of the worker."""
    one = PoolTaskRun.using(workers=1)
    go, done, started, release = (Flag(tmp_path / name) for name in ("go", "done", "started", "release"))
    first = task(leave_a_thread, runner=one)(go, done, reports)
    assert first.get_result(timeout=PATIENCE) is None
    second = task(report_and_hold, runner=one)(started, release)
    started.wait()
    go.set()
    done.wait()
    until(lambda: second.progress is not None)
    assert second.progress == (1, None, "")
    assert first.progress == ((1, None, "") if reports else None)
    release.set()
    assert second.wait(timeout=PATIENCE)


# Which code belongs to the run.


def test_outside_of_a_task_nothing_happens():
    """A function that reports can be called as it is."""
    assert count(10) == 10
    assert woflo.progress(3, 4, "unheard") is None


@pytest.mark.parametrize("runner", [ThreadTaskRun, *([FORK] if hasattr(os, "fork") else [])])
def test_threads_of_a_task(runner):
    """A thread reports for the task if it was given its context, as current_run() tells; else it doesn't."""

    def both():
        def one(n):
            woflo.progress(n)

        context = contextvars.copy_context()
        for call, args in ((context.run, (one, 1)), (one, (2,))):
            thread = threading.Thread(target=call, args=args)
            thread.start()
            thread.join()

    if getattr(sys.flags, "thread_inherit_context", 0):
        pytest.skip("threads inherit the context here")
    run = task(both, runner=runner)()
    assert run.get_result(timeout=PATIENCE) is None
    assert run.progress == (1, None, "")


def test_asyncio_to_thread_and_a_coroutine():
    """On an event loop a coroutine reports for its own run, and so does what it sends to a thread."""
    import asyncio

    async def walk(n):
        woflo.progress(n)
        await asyncio.sleep(0)
        await asyncio.to_thread(woflo.progress, n + 0.5, message="beside")

    async def main():
        runs = [task(walk)(n) for n in (1, 2)]
        for run in runs:
            await run
        return [run.progress for run in runs]

    assert asyncio.run(main()) == [(1.5, None, "beside"), (2.5, None, "beside")]


@posix
@pytest.mark.parametrize("runner", [FORK, pytest.param(PoolTaskRun, marks=linux)])
def test_processes_that_a_task_starts(runner):
    """What a process says that the task has forked doesn't count, whether or not the task has reported itself."""
    run = task(report_from_a_fork, runner=runner)()
    assert run.get_result(timeout=PATIENCE) == (1, None, "")
    assert run.progress == (1, None, "")
    run = task(first_report_from_a_fork, runner=runner)()
    assert run.get_result(timeout=PATIENCE) is None
    assert run.progress is None


def test_a_nested_run_reports_for_itself():
    """A run inside of a task has its own progress, also where the outer one has several attempts."""

    def inner():
        woflo.progress(1, message="inner")

    def outer():
        woflo.progress(5, message="outer")
        return [task(inner, runner=runner)() for runner in (SequentialTaskRun, ThreadTaskRun)]

    run = task(outer, runner=ThreadTaskRun, retries=1)()
    for each in run.get_result(timeout=PATIENCE):
        assert each.wait(timeout=PATIENCE)
        assert each.progress == (1, None, "inner")
    assert run.progress == (5, None, "outer")


def test_what_an_earlier_attempt_left_behind_is_not_heard():
    """A thread of an attempt that failed reports nothing for the next one."""
    go, done, second = threading.Event(), threading.Event(), threading.Event()

    def later():
        go.wait(PATIENCE)
        woflo.progress(77)
        done.set()

    def body():
        if woflo.current_run().attempt == 1:
            threading.Thread(target=contextvars.copy_context().run, args=(later,)).start()
            raise ConnectionError("again")
        second.set()
        done.wait(PATIENCE)
        return own_progress()

    run = task(body, runner=ThreadTaskRun, retries=1, retry_sleep_time=0)()
    assert second.wait(PATIENCE)
    go.set()
    assert run.get_result(timeout=PATIENCE) is None
    assert run.progress is None


def test_an_ended_run_hears_nothing_more():
    """A thread that a task leaves behind changes nothing when the run has ended."""
    go, done = threading.Event(), threading.Event()
    run = task(leave_a_thread, runner=ThreadTaskRun)(go, done)
    assert run.get_result(timeout=PATIENCE) is None
    go.set()
    assert done.wait(PATIENCE)
    assert run.progress == (1, None, "")


# How often observers are told.


def test_reports_that_come_too_often_wait_their_turn(seen):
    """The first is told at once, then the newest every tenth of a second, also when nothing more is reported, and the last."""
    with FakeClock() as clock:
        heard = []

        def body():
            for done, pause in ((1, 0.04), (2, 0.04), (3, 0.04), (4, 0.0), (5, 10.0), (6, 0.01), (7, 0.0)):
                woflo.progress(done)
                clock.advance(pause)
                heard.append((done, told(seen)[-1][0]))

        task(body, runner=SequentialTaskRun)()
    assert heard == [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 6), (7, 6)]
    assert [done for done, _, _ in told(seen)] == [1, 3, 5, 6, 7]
    assert ended(seen)


def test_an_observer_that_raises_costs_nothing_else():
    """An observer that fails at a report is dropped and named; the task doesn't notice."""
    events = []

    def spoil(event):
        if isinstance(event, RunProgress):
            raise OSError("no screen")

    with woflo.observe(events.append), woflo.observe(spoil):
        run = task(count, runner=SequentialTaskRun)(3)
    assert run.get_result() == 3
    assert [event.name for event in events if isinstance(event, ObserverFailed)] == [
        "the observer " + spoil.__qualname__
    ]


@on_all_apart
def test_engines_tell_their_observers(runner):
    """An engine's own observers learn how far its nodes' runs are, between their beginnings and their ends."""
    events = []
    engine = Engine(
        [woflo.Node("sum", task(count, runner=runner, name="summing"), requires=["n"]), woflo.Node("n", lambda: 5_000)],
        observers=[events.append],
    )
    assert engine.orchestrate("sum")
    reports = [event for event in events if isinstance(event, RunProgress)]
    assert (reports[-1].done, reports[-1].total) == (5_000, 5_000)
    assert {report.task for report in reports} == {"summing"}
    kinds = [type(event) for event in events if getattr(event, "name", "") != "n"]
    assert kinds[0] is NodeStarted
    assert kinds[-1] is NodeEnded
    assert set(kinds[1:-1]) == {RunProgress}


@linux
def test_a_chain_on_warm_workers():
    """Nodes that travel together to a warm worker and report on the way lose no value."""

    def step(number=0):
        if number % 3 == 0:
            woflo.progress(number, 200)
        return number + 1

    def nodes(call):
        return [woflo.Node(n, call, requires=[n - 1] if n else []) for n in range(200)]

    call = task(step, runner=PoolTaskRun.using(workers=2))
    for _ in range(2):
        engine = Engine(nodes(call))
        assert engine.orchestrate(199)
        assert engine.value(199) == 200


def test_engines_tell_of_tasks_in_place():
    """Also of a task that runs in the driver's thread every report is told as it comes, once, to each kind of observer."""
    mine, all_of_them = [], []

    def body():
        woflo.progress(1, 2)
        assert told(mine) == told(all_of_them) == [(1, 2, "")]
        woflo.progress(2, 2)

    node = woflo.Node("x", task(body, runner=SequentialTaskRun))
    with woflo.observe(all_of_them.append):
        assert Engine([node], observers=[mine.append]).orchestrate()
    assert told(mine) == told(all_of_them) == [(1, 2, ""), (2, 2, "")]


def test_coroutines_of_an_engine_report():
    """A coroutine function that is no Task reports as well, in an engine that runs it on the loop."""

    async def body():
        woflo.progress(1, message="on the loop")

    events = []
    assert Engine([woflo.Node("x", body)], observers=[events.append]).orchestrate()
    assert told(events) == [(1, None, "on the loop")]


# Values.


@pytest.mark.parametrize(
    ("done", "total", "expected"),
    [
        (0, 0, (0, 0)),
        (3, None, (3, None)),
        (0.25, 1.0, (0.25, 1.0)),
        (12, 10, (12, 10)),  # an estimate was too low
        (np.int64(3), np.float32(4), (3, 4.0)),
        (Fraction(1, 2), 1, (0.5, 1)),
        (2**63 - 1, 2**63 - 1, (2**63 - 1, 2**63 - 1)),
    ],
)
@pytest.mark.parametrize("runner", [SequentialTaskRun, *([FORK] if hasattr(os, "fork") else [])])
def test_numbers_that_are_taken(runner, done, total, expected):
    """Any real number from 0 up is taken and arrives as a number of Python's own; more may be done than there was to do."""
    run = task(woflo.progress, runner=runner, name="say")(done, total)
    assert run.get_result(timeout=PATIENCE) is None
    assert run.progress == (*expected, "")
    assert {type(run.progress.done), type(run.progress.total)} <= {int, float, type(None)}


@pytest.mark.parametrize(
    "bad", [-1, -0.5, math.nan, math.inf, "3", None, True, 2**63, 1j, [1], np.array([1, 2]), np.nan, object()]
)
def test_numbers_that_are_refused(bad):
    """What is no number from 0 up is a UsageError that says so, inside of tasks and outside."""
    with pytest.raises(woflo.UsageError, match=r"done must be a number from 0 up, not"):
        woflo.progress(bad)
    if bad is not None:
        with pytest.raises(woflo.UsageError, match=r"total must be a number from 0 up, or None, not"):
            woflo.progress(1, bad)
    run = task(woflo.progress, runner=SequentialTaskRun, name="say")(bad)
    assert isinstance(run.outcome().__cause__, woflo.UsageError)
    assert run.progress is None


def test_messages_that_are_refused():
    """A message is a text."""
    for bad in (None, 3, b"half"):
        with pytest.raises(woflo.UsageError, match="message must be a text, not"):
            woflo.progress(1, 2, bad)


@on_every
def test_a_long_message_is_cut(runner):
    """A message of any characters arrives; beyond a thousand of them it is cut."""
    for text in ("\U0001f40c" * 5_000, "\ud800" * 1_000, "two\nlines \0"):
        run = task(report_long, runner=runner)(text)
        assert run.get_result(timeout=PATIENCE) == (2**63 - 1, 0.5, text[:1000])
        assert run.progress == (2**63 - 1, 0.5, text[:1000])


def test_a_message_of_a_class_of_its_own():
    """A text of a subclass arrives as plain text."""
    run = task(woflo.progress, runner=SequentialTaskRun, name="say")(1, None, np.str_("half"))
    assert type(run.progress.message) is str


# Below.


def test_a_sheet_that_is_being_written():
    """Whatever of a sheet is torn, the report before is read; another call's report is not."""
    memory = bytearray(_progress.SHEET_BYTES)
    assert _progress.read(memory) is None
    writer = _progress.Writer(memory, 5)
    writer.report(None, (1, None, "one"))
    writer.report(None, (2, None, "two"))
    assert _progress.read(memory, 5) == (2, (2, None, "two"))
    assert _progress.read(memory, 6) is None
    half = _progress.SHEET_BYTES // 2
    before = bytes(memory)
    writer.report(None, (3, None, "three"))
    changed = [at for at, (old, new) in enumerate(zip(before, memory, strict=True)) if old != new]
    assert min(changed) >= half
    for cut in changed:
        torn = bytes(memory[:cut]) + before[cut:]
        assert torn != bytes(memory)
        assert _progress.read(torn, 5) == (2, (2, None, "two"))
    assert _progress.read(memory, 5) == (3, (3, None, "three"))


def test_importing_woflo_does_not_load_it():
    """Who reports nothing doesn't pay for it."""
    code = "import sys, woflo; assert 'woflo.runners._progress' not in sys.modules; woflo.progress(1); print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout == "fine\n", done.stderr


def test_the_log_tells_on_demand():
    """With WOFLO_LOG=debug each report that observers would get is a line."""
    code = (
        "import woflo\n"
        "def body():\n    woflo.progress(1, 4, 'a quarter')\n"
        "woflo.task(body, runner=woflo.runners.SequentialTaskRun)()\n"
    )
    environment = {**os.environ, "WOFLO_LOG": "debug"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment
    )
    assert "body-1: 1 of 4 done, a quarter" in done.stderr
