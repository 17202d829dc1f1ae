"""At most `max_running` processes live at once in the process tree, and nothing starves for it."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

import woflo
from woflo import task
from woflo.runners import _launch
from woflo.runners._slots import default_size
from woflo.runners.multiprocess import ForkProcess, MultiprocessTaskRun, SpawnProcess
from woflo.testing import PATIENCE, Flag, Ledger

TYPES = {"spawn": SpawnProcess} if sys.platform == "win32" else {"fork": ForkProcess, "spawn": SpawnProcess}
each_type = pytest.mark.parametrize("process_type", TYPES.values(), ids=TYPES.keys())


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def busy(ledger):
    """Note when this process comes and goes, and stay long enough to be seen beside others."""
    ledger.add(f"+ {os.getpid()}")
    time.sleep(0.02)  # not awaited by anything: it makes overlaps likely
    ledger.add(f"- {os.getpid()}")


def leave_late(inside, ended):
    """Stay until stopped, and note that the way out was taken."""
    try:
        inside.set()
        time.sleep(PATIENCE)
    finally:
        ended.set()


def meet(ledger, count, release):
    """Come and stay until all have come."""
    ledger.add(str(os.getpid()))
    release.wait()
    return len(set(ledger.lines())) == count


def hold(started, release, value=None):
    started.set()
    release.wait()
    return value


def give(value=None):
    return value


def most_at_once(lines):
    now = most = 0
    for line in lines:
        now += 1 if line.startswith("+") else -1
        most = max(most, now)
    return most


@each_type
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_max_running_bounds_live_processes(tmp_path, process_type, limit):
    """With many more calls than slots, never more than max_running processes live at once; all are carried out."""
    ledger = Ledger(tmp_path / "ledger")
    runner = MultiprocessTaskRun.using(process_type=process_type, max_running=limit)
    run_busy = task(busy, runner=runner)
    count = 12 if process_type is SpawnProcess else 30
    runs = [run_busy(ledger) for _ in range(count)]
    assert woflo.wait(runs, timeout=PATIENCE)
    assert [run.state for run in runs] == ["succeeded"] * count
    lines = ledger.lines()
    assert len(lines) == 2 * count
    assert most_at_once(lines) <= limit


def test_ten_sleepers_sleep_at_once(tmp_path):
    """By default ten tasks that sleep all sleep at the same time, whatever the number of cores."""
    ledger, release = Ledger(tmp_path / "ledger"), Flag(tmp_path / "release")
    runs = [task(meet)(ledger, 10, release) for _ in range(10)]
    until(lambda: len(ledger.lines()) == 10)
    release.set()
    assert woflo.gather(*runs, timeout=PATIENCE) == [True] * 10


def test_the_default_is_generous_but_finite():
    """The default is at least 32 and grows with the cores."""
    assert MultiprocessTaskRun.max_running is None, "a number would be a choice"
    assert default_size() == max(32, 4 * (os.cpu_count() or 1))


def test_calls_beyond_the_limit_return_at_once(tmp_path):
    """A call without a free slot returns a pending run."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    runner = MultiprocessTaskRun.using(max_running=1)
    first = task(hold, runner=runner)(started, release)
    started.wait()
    later = [task(give, runner=runner)(n) for n in range(20)]
    assert {run.state for run in later} == {"pending"}
    assert all(run.is_running() for run in later)
    release.set()
    assert woflo.gather(*later, timeout=PATIENCE) == list(range(20))
    assert first.get_result(timeout=PATIENCE) is None


def test_pending_runs_start_in_order(tmp_path):
    """Runs that wait for a slot get it in the order of their calls."""
    ledger, started, release = Ledger(tmp_path / "ledger"), Flag(tmp_path / "started"), Flag(tmp_path / "release")
    runner = MultiprocessTaskRun.using(max_running=1)
    task(hold, runner=runner)(started, release)
    started.wait()
    runs = [task(ledger.add, name="note", runner=runner)(str(n)) for n in range(8)]
    release.set()
    assert woflo.wait(runs, timeout=PATIENCE)
    assert ledger.lines() == [str(n) for n in range(8)]


def test_pending_runs_start_unattended(tmp_path):
    """A run that waits for a slot starts with nobody waiting for it."""
    started, release, done = (Flag(tmp_path / name) for name in ("started", "release", "done"))
    runner = MultiprocessTaskRun.using(max_running=1)
    task(hold, runner=runner)(started, release)
    started.wait()
    task(done.set, name="mark", runner=runner)()
    assert not done.is_set()
    release.set()
    done.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="workers are watched by descriptors")
def test_stopping_a_run_that_another_thread_starts(tmp_path, monkeypatch):
    """A stop that comes while the slot's next run is being started ends that run's worker, gently."""
    started, release, inside, ended = (Flag(tmp_path / name) for name in ("started", "release", "inside", "ended"))
    runner = MultiprocessTaskRun.using(max_running=1)
    first = task(hold, runner=runner)(started, release)
    started.wait()
    second = task(leave_late, runner=runner)(inside, ended)
    stop = threading.Thread(target=second.stop, args=(PATIENCE,))
    launch = _launch.launch

    def slowly(run, *rest):
        worker = launch(run, *rest)
        inside.wait()
        stop.start()
        stop.join(0.2)  # long enough for a stop that takes the run for one that was never started
        return worker

    monkeypatch.setattr(_launch, "launch", slowly)
    release.set()
    first.wait()
    until(lambda: stop.ident is not None)
    stop.join(PATIENCE)
    assert ended.is_set()
    assert isinstance(second.outcome(), woflo.StoppedFailure)


def test_stopping_a_pending_run(tmp_path):
    """A run that waits for a slot can be stopped, and the others move up."""
    ledger, started, release = Ledger(tmp_path / "ledger"), Flag(tmp_path / "started"), Flag(tmp_path / "release")
    runner = MultiprocessTaskRun.using(max_running=1)
    task(hold, runner=runner)(started, release)
    started.wait()
    one, two, three = (task(ledger.add, name="note", runner=runner)(str(n)) for n in range(3))
    two.stop()
    assert isinstance(two.outcome(), woflo.StoppedFailure)
    release.set()
    assert woflo.wait([one, three], timeout=PATIENCE)
    assert ledger.lines() == ["0", "2"]


def test_a_killed_run_gives_its_slot_back(tmp_path):
    """Slots of runs that died, were stopped or timed out are free again."""
    runner = MultiprocessTaskRun.using(max_running=1)
    for _ in range(3):
        assert isinstance(task(os._exit, name="die", runner=runner)(3).outcome(), woflo.WorkerFailure)
    late = task(time.sleep, name="sleep", timeout=0.05, runner=runner)(PATIENCE)
    assert isinstance(late.outcome(), woflo.TimeoutFailure)
    started = Flag(tmp_path / "started")
    run = task(hold, runner=runner)(started, Flag(tmp_path / "never"))
    started.wait()
    run.stop(grace=0.1)
    assert task(give, runner=runner)(5).get_result(timeout=PATIENCE) == 5


def test_a_pausing_run_keeps_no_slot():
    """Between two attempts a run holds neither a process nor a slot."""
    runner = MultiprocessTaskRun.using(max_running=1)

    def flaky():
        raise OSError

    pausing = task(flaky, retries=1, retry_sleep_time=10 * PATIENCE, runner=runner)()
    until(lambda: pausing.state == "retrying")
    assert task(give, runner=runner)(6).get_result(timeout=PATIENCE) == 6
    pausing.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="fork needs POSIX")
def test_fork_sees_what_is_true_at_its_start(tmp_path):
    """A fork run that had to wait sees arguments and globals as they are when it starts."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    runner = MultiprocessTaskRun.using(process_type=ForkProcess, max_running=1)
    first = task(hold, runner=runner)(started, release)
    started.wait()
    rows = [1]
    run = task(give, runner=runner)(rows)
    rows.append(2)
    release.set()
    assert first.wait(timeout=PATIENCE)
    assert run.get_result(timeout=PATIENCE) == [1, 2]


# Nested runs.


def tree(runner, depth, width):
    """Start `width` runs that do the same one level down, and wait for them."""
    if depth == 0:
        return 1
    below = task(tree, runner=runner)
    return sum(run.get_result() for run in [below(runner, depth - 1, width) for _ in range(width)])


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize(("depth", "width"), [(3, 2), (1, 6), (6, 1)])
def test_nested_runs_do_not_deadlock(limit, depth, width):
    """Tasks that wait for their own runs end with one slot, and with two."""
    runner = MultiprocessTaskRun.using(max_running=limit)
    assert task(tree, runner=runner)(runner, depth, width).get_result(timeout=PATIENCE) == width**depth


def test_nested_spawns_do_not_deadlock():
    """The same for spawned workers."""
    runner = MultiprocessTaskRun.using(process_type=SpawnProcess, max_running=1)
    assert task(tree, runner=runner)(runner, 2, 2).get_result(timeout=PATIENCE) == 4


def test_slots_survive_nesting(tmp_path):
    """After runs that waited for runs, with other pools about, a pool of three still runs three at once."""
    assert task(give)(1).get_result(timeout=PATIENCE) == 1
    runner = MultiprocessTaskRun.using(max_running=3)
    for _ in range(3):
        runs = [task(tree, runner=runner)(inner, 1, 2) for inner in (runner, MultiprocessTaskRun, runner)]
        assert woflo.gather(*runs, timeout=PATIENCE) == [2, 2, 2]
    ledger, release = Ledger(tmp_path / "ledger"), Flag(tmp_path / "release")
    runs = [task(meet, runner=runner)(ledger, 3, release) for _ in range(4)]
    until(lambda: len(ledger.lines()) == 3)
    assert sorted(run.state for run in runs) == ["pending", "running", "running", "running"]
    release.set()
    assert woflo.wait(runs, timeout=PATIENCE)


def noting_tree(runner, ledger, depth, width):
    ledger.add(f"+ {os.getpid()}")
    try:
        if depth == 0:
            time.sleep(0.01)  # not awaited by anything: it makes overlaps likely
            return 1
        below = task(noting_tree, runner=runner)
        runs = [below(runner, ledger, depth - 1, width) for _ in range(width)]
        ledger.add(f"- {os.getpid()}")  # waits from here on
        value = sum(run.get_result() for run in runs)
        ledger.add(f"+ {os.getpid()}")
        return value
    finally:
        ledger.add(f"- {os.getpid()}")


def test_nesting_does_not_multiply(tmp_path):
    """Nested runs share the slots of the tree: not each worker has max_running of its own.

    Every process may always run one child, so with two slots a tree of depth 2 can have
    a few more at work for a moment; without a common limit it would have all 16 leaves.
    """
    ledger = Ledger(tmp_path / "ledger")
    runner = MultiprocessTaskRun.using(max_running=2)
    run = task(noting_tree, runner=runner)(runner, ledger, 2, 4)
    assert run.get_result(timeout=PATIENCE) == 16
    assert most_at_once(ledger.lines()) <= 2 + 4 + 1
