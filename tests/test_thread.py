"""ThreadTaskRun: what its threads do beyond the contract of all runners."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import woflo
from woflo import StoppedFailure, task
from woflo.runners import ThreadTaskRun
from woflo.runners._slots import default_size
from woflo.testing import PATIENCE, Flag


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def thread_name():
    return threading.current_thread().name


def hold(started, release):
    started.set()
    while not release.is_set():
        time.sleep(0.002)
    return thread_name()


def count_in(arrived, release):
    arrived.append(threading.get_ident())
    release.wait(PATIENCE)
    return threading.current_thread().daemon


def get(run):
    return run.get_result(timeout=PATIENCE)


def test_at_most_so_many_at_work():
    """No more than `max_running` runs are at work at once; the others wait and are carried out."""
    arrived, release = [], threading.Event()
    runs = [task(count_in, runner=ThreadTaskRun.using(max_running=3))(arrived, release) for _ in range(1)]
    runner = type(runs[0])
    runs += [task(count_in, runner=runner)(arrived, release) for _ in range(9)]
    until(lambda: len(arrived) == 3)
    assert [run.state for run in runs].count("running") == 3
    assert [run.state for run in runs].count("pending") == 7
    release.set()
    assert woflo.gather(*runs, timeout=PATIENCE) == [True] * 10
    assert len(set(arrived)) <= 3


def test_the_default_limit():
    """As many threads as the default says can be at work at once, and each is a daemon."""
    arrived, release = [], threading.Event()
    runs = [task(count_in, runner=ThreadTaskRun)(arrived, release) for _ in range(default_size())]
    until(lambda: len(arrived) == default_size())
    release.set()
    assert woflo.gather(*runs, timeout=PATIENCE) == [True] * default_size()


@pytest.mark.parametrize("limit", [1, 2])
def test_a_waiting_run_does_not_count(limit):
    """Runs that wait for runs of their own don't starve them, however few threads there may be."""
    runner = ThreadTaskRun.using(max_running=limit)

    def tree(depth):
        if depth == 0:
            return 1
        return sum(run.get_result() for run in [task(tree, runner=runner)(depth - 1) for _ in range(2)])

    assert get(task(tree, runner=runner)(4)) == 16


def test_a_stopped_thread_takes_no_further_run(tmp_path):
    """A thread into which TaskStopped was thrown is given up: the next run is on another one."""
    runner = ThreadTaskRun.using(max_running=1)
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    names = []

    def noting():
        names.append(thread_name())
        hold(started, release)

    run = task(noting, runner=runner)()
    started.wait()
    run.stop(grace=PATIENCE)
    assert isinstance(run.outcome(), StoppedFailure)
    assert get(task(thread_name, runner=runner)()) not in names


def test_threads_are_used_again():
    """A run that ends in peace leaves its thread to the next one."""
    runner = ThreadTaskRun.using(max_running=1)
    assert get(task(thread_name, runner=runner)()) == get(task(thread_name, runner=runner)())


def test_threads_end_when_idle():
    """Without work the threads go, and come back with it."""
    before = set(threading.enumerate())
    for _ in range(2):
        assert get(task(os.getpid, runner=ThreadTaskRun)()) == os.getpid()
        until(lambda: set(threading.enumerate()) <= before)


def test_an_abandoned_run_does_not_block_the_others():
    """A thread that can't be ended keeps no place: the next run is carried out."""
    runner = ThreadTaskRun.using(max_running=1)
    started, release = threading.Event(), threading.Event()

    def stuck():
        started.set()
        release.wait(2 * PATIENCE)

    run = task(stuck, runner=runner)()
    assert started.wait(PATIENCE)
    run.stop(grace=0.05)
    assert "abandon" in str(run.outcome())
    try:
        assert get(task(os.getpid, runner=runner)()) == os.getpid()
    finally:
        release.set()


def test_many_stops_hit_only_their_runs():
    """Runs that end while they are being stopped let nothing strike the runs after them."""
    runner = ThreadTaskRun.using(max_running=2)

    def quick():
        return sum(range(200))

    for _ in range(200):
        run = task(quick, runner=runner)()
        run.stop()
        outcome = run.outcome()
        assert outcome or isinstance(outcome, StoppedFailure)
        assert get(task(quick, runner=runner)()) == 19900


def test_the_failure_says_where_it_was():
    """A thread that took too long tells the line of the task that it was in."""

    def slow():
        time.sleep(0.3)

    failure = task(slow, timeout=0.05, runner=ThreadTaskRun)().outcome()
    assert isinstance(failure, woflo.TimeoutFailure)
    assert "test_thread.py" in failure.where
    assert "slow" in failure.where


def test_a_profiler_after_many_stops():
    """However close to the end of its task a stop comes, Python is left as it was: a profiler or debugger may be used."""
    source = """
        import faulthandler, random, sys, time, woflo
        from woflo.runners import ThreadTaskRun

        faulthandler.dump_traceback_later(30, exit=True)
        call = woflo.task(lambda seconds: time.sleep(seconds), runner=ThreadTaskRun)
        for _ in range(300):
            run = call(0.0005)
            time.sleep(random.random() * 0.001)
            run.stop(wait=False)
            run.wait()

        def called():
            return 1

        time.sleep(0.1)
        sys.setprofile(lambda *_: None)
        print(sum(called() for _ in range(1000)))
        sys.setprofile(None)
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(woflo.__file__))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE * 2, check=False)
    assert done.stdout == "1000\n", done.stderr
