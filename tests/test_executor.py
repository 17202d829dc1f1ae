"""ExecutorTaskRun keeps the promises of RunnerContract over other people's executors; and what only it can do wrong."""

from __future__ import annotations

import multiprocessing.resource_tracker
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest

import woflo
from woflo.futures import TaskExecutor
from woflo.runners import ExecutorTaskRun, MultiprocessTaskRun, ThreadTaskRun, executor
from woflo.testing import PATIENCE, FakeClock, Flag, Ledger, RunnerContract

THREADS, PROCESSES = 32, 6


@pytest.fixture(scope="module", autouse=True)
def tracker():
    """What multiprocessing starts once per program is there before anything is counted."""
    multiprocessing.resource_tracker.ensure_running()


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(THREADS) as pool:
        together = threading.Barrier(THREADS)  # all are there before the threads of a test are counted
        for started in [pool.submit(together.wait, PATIENCE) for _ in range(THREADS)]:
            started.result()
        TestThreads.runner = ExecutorTaskRun.using(pool)
        yield pool


def come_together(path, number):
    """Wait until so many workers are inside."""
    with open(f"{path}/{os.getpid()}", "w"):
        everybody = Flag(f"{path}/all")
    if len(os.listdir(path)) >= number:
        everybody.set()
    everybody.wait()


def warmed(pool, folder):
    for started in [pool.submit(come_together, str(folder), PROCESSES) for _ in range(PROCESSES)]:
        started.result(PATIENCE)
    return ExecutorTaskRun.using(pool)


def spawned_pool(size):
    return ProcessPoolExecutor(size, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    with spawned_pool(PROCESSES) as pool:
        TestProcesses.runner = warmed(pool, tmp_path_factory.mktemp("processes"))
        yield pool


@pytest.fixture(scope="module")
def loky_processes(tmp_path_factory):
    loky = pytest.importorskip("loky", reason="loky is not installed")
    pool = loky.ProcessPoolExecutor(PROCESSES, timeout=None)
    try:
        TestLoky.runner = warmed(pool, tmp_path_factory.mktemp("loky"))
        yield pool
    finally:
        pool.shutdown(wait=True)


@pytest.mark.usefixtures("threads")
class TestThreads(RunnerContract):
    interrupts = False  # only the executor knows which of its threads has a call


@pytest.mark.usefixtures("processes")
class TestProcesses(RunnerContract):
    in_process = False
    interrupts = False  # only the executor knows which of its workers has a call
    many = 40


@pytest.mark.usefixtures("loky_processes")
class TestLoky(RunnerContract):
    in_process = False
    interrupts = False  # as for the standard pool
    many = 40


class TestOurs(RunnerContract):
    """Our own executor as an executor: round the circle."""

    interrupts = False  # with strict_compat, cancel() leaves a running call alone, as every executor's does

    @pytest.fixture(autouse=True)
    def executor(self):
        with TaskExecutor(8, runner=ThreadTaskRun, strict_compat=True) as pool:
            TestOurs.runner = ExecutorTaskRun.using(pool)
            yield


# The bodies of tasks that travel by name.


def give(value=None):
    return value


def die():
    os._exit(3)


class Bomb:
    """Can be pickled, and goes off when it is unpickled."""

    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return go_off, (self.kind,)


def go_off(kind):
    raise kind("went off")


def bomb(kind):
    return Bomb(kind)


def hold(started, release):
    started.set()
    release.wait()
    return "released"


def ask(started, told):
    started.set()
    deadline = time.monotonic() + PATIENCE
    while not woflo.stop_requested() and time.monotonic() < deadline:
        time.sleep(0.002)
    if woflo.stop_requested():
        told.set()


def note(ledger, line):
    ledger.add(line)
    return line


class ByHand(Executor):
    """An executor whose calls the test carries out."""

    def __init__(self):
        self.calls = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.calls.append((future, fn))
        assert not args
        assert not kwargs
        return future

    def carry_out(self, at, through=lambda work: work):
        future, fn = self.calls[at]
        future.set_running_or_notify_cancel()
        future.set_result(through(fn)())


def through_pickle(work):
    return pickle.loads(pickle.dumps(work))


def test_it_is_there_when_asked_for():
    """`woflo.ExecutorTaskRun` is a public name, and loading woflo doesn't load it."""
    assert woflo.ExecutorTaskRun is ExecutorTaskRun
    code = (
        "import sys, woflo; assert 'woflo.runners.executor' not in sys.modules; print(woflo.ExecutorTaskRun.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ExecutorTaskRun\n"


def test_what_is_no_executor_is_refused():
    """An executor has submit(), and a runner without one says what to do."""
    for wrong in (3, ThreadPoolExecutor, "pool"):
        with pytest.raises(woflo.UsageError, match="executor must be"):
            ExecutorTaskRun.using(wrong)
    with pytest.raises(woflo.UsageError, match="remote must be"):
        ExecutorTaskRun.using(ByHand(), remote="yes")
    with pytest.raises(woflo.UsageError, match="no setting 'size'"):
        ExecutorTaskRun.using(ByHand(), size=3)
    with pytest.raises(woflo.UsageError, match=r"ExecutorTaskRun\.using\(executor\)"):
        woflo.task(give, runner=ExecutorTaskRun)()


def test_a_lost_worker_fails_the_run_and_the_broken_executor_the_next_ones():
    """A dead worker is a WorkerFailure with the executor's word for it; so is what the broken executor refuses."""
    with spawned_pool(1) as pool:
        runner = ExecutorTaskRun.using(pool)
        victim = woflo.task(die, runner=runner)().outcome(timeout=PATIENCE)
        assert isinstance(victim, woflo.WorkerFailure)
        assert "BrokenProcessPool" in str(victim)
        refused = woflo.task(give, runner=runner)().outcome(timeout=PATIENCE)
        assert isinstance(refused, woflo.WorkerFailure)
        assert "could not be started: concurrent.futures.process.BrokenProcessPool" in str(refused)


def test_an_executor_that_was_shut_down_fails_the_run():
    """A run that its executor refuses is a WorkerFailure, and the caller goes on."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    outcome = woflo.task(give, runner=ExecutorTaskRun.using(pool))().outcome(timeout=PATIENCE)
    assert isinstance(outcome, woflo.WorkerFailure)
    assert "could not be started" in str(outcome)


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_what_goes_off_on_the_way_costs_one_run(kind):
    """An argument or a result whose unpickling raises or exits fails its own run; the pool of others stays whole."""
    with spawned_pool(1) as pool:
        runner = ExecutorTaskRun.using(pool)
        there = woflo.task(give, runner=runner)(Bomb(kind)).outcome(timeout=PATIENCE)
        assert isinstance(there, woflo.TaskFailure)
        assert "can't be rebuilt in the worker" in str(there)
        back = woflo.task(bomb, runner=runner)(kind).outcome(timeout=PATIENCE)
        assert isinstance(back, woflo.TaskFailure)
        assert "can't be rebuilt here" in str(back)
        assert pool.submit(give, 5).result(PATIENCE) == 5


def test_an_argument_that_cannot_travel_is_refused_at_the_call():
    """Where the workers are known to be processes, nothing is submitted that can't be pickled."""
    pool = ByHand()
    with pytest.raises(woflo.UsageError, match=r"args\[0\] \(a _thread.lock\)"):
        woflo.task(give, runner=ExecutorTaskRun.using(pool, remote=True))(threading.Lock())
    assert pool.calls == []


def test_a_run_travels_when_its_executor_pickles_it():
    """An executor that nothing is known of may carry a run out here or pickle it: lambdas, values and errors arrive."""
    pool = ByHand()
    runner = ExecutorTaskRun.using(pool)
    three = 3
    runs = [woflo.task(lambda x: x * three, runner=runner)(n) for n in range(3)]
    pool.carry_out(0)
    pool.carry_out(1, through_pickle)
    pool.carry_out(2, lambda work: lambda: through_pickle(through_pickle(work)()))
    assert woflo.gather(*runs, timeout=PATIENCE) == [0, 3, 6]
    broken = woflo.task(go_off, runner=runner)(KeyError)
    pool.carry_out(3, through_pickle)
    assert isinstance(broken.exception(), KeyError)
    assert broken.outcome().run == broken.name


def test_a_pickled_run_does_not_take_its_executor_along():
    """The task's runner stays here: an executor holds locks and can't be pickled."""
    with ThreadPoolExecutor(1) as threads:
        pool = ByHand()
        runner = ExecutorTaskRun.using(pool).using(remote=True)
        runner.companion = threads
        run = woflo.task(lambda: 4, runner=runner)()
        pool.carry_out(0, through_pickle)
        assert run.get_result(timeout=PATIENCE) == 4


def test_stopping_a_queued_run_cancels_it(tmp_path):
    """A run that the executor has not begun never begins."""
    started, release, ledger = Flag(tmp_path / "started"), Flag(tmp_path / "release"), Ledger(tmp_path / "ledger")
    with ThreadPoolExecutor(1) as pool:
        runner = ExecutorTaskRun.using(pool)
        first = woflo.task(hold, runner=runner)(started, release)
        started.wait()
        second = woflo.task(note, runner=runner)(ledger, "second")
        second.stop()
        assert isinstance(second.outcome(), woflo.StoppedFailure)
        release.set()
        assert first.get_result(timeout=PATIENCE) == "released"
    assert ledger.lines() == []


@pytest.mark.parametrize("through", [lambda work: work, through_pickle], ids=["here", "elsewhere"])
def test_a_call_that_comes_after_the_stop_does_nothing(tmp_path, through):
    """A run that was stopped before its executor came to it isn't carried out, though the executor couldn't cancel it."""
    pool, ledger = ByHand(), Ledger(tmp_path / "ledger")
    run = woflo.task(note, runner=ExecutorTaskRun.using(pool))(ledger, "ran")
    work = through(pool.calls[0][1])
    pool.calls[0][0].set_running_or_notify_cancel()
    run.stop(grace=PATIENCE, wait=False)
    pool.calls[0][0].set_result(work())
    assert ledger.lines() == []
    assert run.state == "stopped"


def test_a_call_that_is_pickled_after_its_run_has_ended_does_nothing(tmp_path):
    """An executor may pickle a call when its run was given up long ago: it isn't carried out, and nothing breaks."""
    pool, ledger = ByHand(), Ledger(tmp_path / "ledger")
    run = woflo.task(note, runner=ExecutorTaskRun.using(pool))(ledger, "ran")
    pool.calls[0][0].set_running_or_notify_cancel()
    run.stop(grace=0.0)
    pool.calls[0][0].set_result(through_pickle(pool.calls[0][1])())
    assert ledger.lines() == []
    assert "abandoned" in str(run.outcome())


def test_cancelled_by_its_executor():
    """What an executor cancels when it is shut down ends as stopped."""
    pool = ByHand()
    run = woflo.task(give, runner=ExecutorTaskRun.using(pool))()
    pool.calls[0][0].cancel()
    pool.calls[0][0].set_running_or_notify_cancel()
    outcome = run.outcome(timeout=PATIENCE)
    assert isinstance(outcome, woflo.StoppedFailure)
    assert "cancelled" in str(outcome)


@pytest.mark.parametrize("remote", [False, True], ids=["here", "elsewhere"])
def test_waiting_in_the_queue_takes_no_time(remote):
    """A time-out counts from when the executor comes to the call, however long that was queued."""
    with FakeClock() as clock:
        pool = ByHand()
        run = woflo.task(give, runner=ExecutorTaskRun.using(pool, remote=remote), timeout=10)("in time")
        clock.advance(1000)
        assert run.is_running()
        pool.carry_out(0)
        assert run.get_result(timeout=PATIENCE) == "in time"


def test_a_time_out_is_kept_elsewhere():
    """A call whose future says that it runs is abandoned when its time and the grace are over."""
    with FakeClock() as clock:
        pool = ByHand()
        run = woflo.task(give, runner=ExecutorTaskRun.using(pool, remote=True), timeout=10)()
        pool.calls[0][0].set_running_or_notify_cancel()
        clock.advance(1)
        clock.advance(11)
        clock.advance(2)
        assert isinstance(run.outcome(timeout=PATIENCE), woflo.TimeoutFailure)
        pool.calls[0][0].set_result(woflo.Ok("late"))
        assert run.state == "failed"


def test_what_an_abandoned_attempt_brings_is_dropped():
    """A late value, or a late failure of the executor, is not the next attempt's."""
    with FakeClock() as clock:
        pool = ByHand()
        run = woflo.task(give, runner=ExecutorTaskRun.using(pool, remote=True), timeout=10, retries=1)("mine")
        pool.calls[0][0].set_running_or_notify_cancel()
        clock.advance(1)
        clock.advance(11)
        clock.advance(2)
        assert len(pool.calls) == 2
        pool.calls[0][0].set_exception(RuntimeError("the machine is gone"))
        assert run.is_running()
        pool.carry_out(1)
        assert run.get_result(timeout=PATIENCE) == "mine"
        assert run.attempt == 2


def test_a_worker_elsewhere_learns_that_it_is_to_stop(tmp_path):
    """`stop_requested()` turns true in another process; the file that says it is gone when the call has returned."""
    with spawned_pool(1) as pool:
        started, told = Flag(tmp_path / "started"), Flag(tmp_path / "told")
        run = woflo.task(ask, runner=ExecutorTaskRun.using(pool))(started, told)
        started.wait()
        assert not os.path.exists(run._word)
        run.stop(grace=PATIENCE)
        assert told.is_set()
        assert not os.path.exists(run._word)


def test_a_word_that_comes_too_late_is_taken_back():
    """A call that returns while it is being told to stop leaves no file behind."""
    pool = ByHand()
    run = woflo.task(give, runner=ExecutorTaskRun.using(pool, remote=True))()
    future, work = pool.calls[0]
    future.set_running_or_notify_cancel()

    def cancel():
        future.set_result(work())  # it returns at this very moment
        return False

    future.cancel = cancel
    run.stop(grace=PATIENCE, wait=False)
    assert not os.path.exists(run._word)
    assert run.outcome(timeout=PATIENCE)


def test_in_another_process_the_executor_is_refused():
    """The threads of an executor stay behind at a fork: a run there is refused, with what to do, instead of hanging."""
    with ThreadPoolExecutor(1) as pool:
        inner = woflo.task(give, runner=ExecutorTaskRun.using(pool))
        assert inner(1).get_result(timeout=PATIENCE) == 1

        @woflo.task(runner=MultiprocessTaskRun)
        def outer():
            return inner(2).get_result(timeout=PATIENCE)

        if sys.platform != "win32":
            with pytest.raises(woflo.UsageError, match="belongs to another process"):
                outer().get_result(timeout=PATIENCE)


def test_forked_workers_of_an_executor():
    """An executor that forks at the call inherits the run; its value comes back as bytes."""
    with TaskExecutor(2) as pool:
        runner = ExecutorTaskRun.using(pool)
        lock = threading.Lock()
        assert woflo.task(lambda one: one is lock, runner=runner)(lock).get_result(timeout=PATIENCE) is True
        assert woflo.task(os.getpid, runner=runner)().get_result(timeout=PATIENCE) != os.getpid()
        outcome = woflo.task(bomb, runner=runner)(ValueError).outcome(timeout=PATIENCE)
        assert isinstance(outcome, woflo.TaskFailure)
        assert "can't be rebuilt here" in str(outcome)
        lost = woflo.task(die, runner=runner)().outcome(timeout=PATIENCE)
        assert isinstance(lost, woflo.WorkerFailure)


def test_kinds_of_executors():
    """Of the executors that are known, it is known whether their workers are other processes."""
    with ThreadPoolExecutor(1) as threads:
        assert executor._is_remote(threads) is False
    with spawned_pool(1) as pool:
        assert executor._is_remote(pool) is True
    assert executor._is_remote(ByHand()) is None
