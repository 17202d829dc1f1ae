"""Every runner of ours, and one that a user would write, keeps the promises of RunnerContract."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ClassVar

import pytest

import woflo
from woflo.runners import AsyncTaskRun, MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun
from woflo.runners.multiprocess import ForkProcess, SpawnProcess
from woflo.testing import PATIENCE, Flag, RunnerContract

posix = pytest.mark.skipif(sys.platform == "win32", reason="fork needs POSIX")


class PoolTaskRun(woflo.BaseTaskRun):
    """The two-method runner of the architecture's page, as it stands there."""

    pool: ClassVar[Executor]

    def start(self):
        self._f = self.pool.submit(self.call)
        self._f.add_done_callback(lambda f: self.finish(f.result()))

    def stop(self, grace=1.0):  # noqa: ARG002 - a pool can't be told how long to be patient
        self._f.cancel()


class InPlaceTaskRun(woflo.BaseTaskRun):
    """The smallest runner there can be."""

    def start(self):
        self.finish(self.call())

    def stop(self, grace=1.0):
        pass


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(max_workers=32) as pool:
        together = threading.Barrier(32)  # all threads are there before the threads of a test are counted
        for started in [pool.submit(together.wait, PATIENCE) for _ in range(32)]:
            started.result()
        PoolTaskRun.pool = pool
        yield pool


class TestSequential(RunnerContract):
    runner = SequentialTaskRun
    runs_apart = False


class TestThread(RunnerContract):
    runner = ThreadTaskRun


class TestAsync(RunnerContract):
    runner = AsyncTaskRun
    coroutines = True


class TestAsyncWithPlainFunctions(RunnerContract):
    """What blocks is kept off the loop, and can't be interrupted there."""

    runner = AsyncTaskRun
    interrupts = False


@posix
class TestFork(RunnerContract):
    runner = MultiprocessTaskRun.using(process_type=ForkProcess)
    in_process = False
    can_kill = True


class TestSpawn(RunnerContract):
    runner = MultiprocessTaskRun.using(process_type=SpawnProcess)
    in_process = False
    can_kill = True
    many = 20  # a fresh interpreter takes a tenth of a second
    start_seconds = 3.0


class TestDefault(RunnerContract):
    runner = MultiprocessTaskRun
    in_process = False
    can_kill = True


class TestFewProcesses(RunnerContract):
    """Two at once, as some promises need two running tasks."""

    runner = MultiprocessTaskRun.using(max_running=2)
    in_process = False
    can_kill = True


@pytest.mark.usefixtures("pool")
class TestCustom(RunnerContract):
    runner = PoolTaskRun
    interrupts = False


class TestCustomInPlace(RunnerContract):
    runner = InPlaceTaskRun
    runs_apart = False


# What only a runner of one's own can do wrong.


def give(value):
    return value


def test_a_start_that_raises_fails_the_run():
    """A runner that can't start a run fails that run, with the reason, and not the caller."""

    class Broken(woflo.BaseTaskRun):
        def start(self):
            raise OSError(11, "no room")

        def stop(self, grace=1.0):
            pass

    run = woflo.task(give, runner=Broken)(1)
    outcome = run.outcome()
    assert isinstance(outcome, woflo.WorkerFailure)
    assert "no room" in str(outcome)
    assert run.state == "failed"


def test_finish_counts_once():
    """The first result is the run's; a late second one changes nothing."""

    class Twice(woflo.BaseTaskRun):
        def start(self):
            self.finish(woflo.Ok("first"))
            self.finish(woflo.Ok("second"))

        def stop(self, grace=1.0):
            pass

    run = woflo.task(give, runner=Twice)(1)
    assert run.get_result(timeout=PATIENCE) == "first"


def test_finish_with_a_death_is_retried():
    """A runner that reports a dead worker gets start() again while attempts are left."""

    class Mortal(woflo.BaseTaskRun):
        def start(self):
            if self.attempt < 3:
                self.finish(woflo.WorkerFailure("gone", signal="SIGKILL"))
            else:
                self.finish(self.call())

        def stop(self, grace=1.0):
            pass

    assert woflo.task(give, runner=Mortal, retries=2)(8).get_result(timeout=PATIENCE) == 8
    outcome = woflo.task(give, runner=Mortal, retries=1)(8).outcome()
    assert isinstance(outcome, woflo.WorkerFailure)
    assert outcome.attempt == 2


def test_leaving_because_of_the_time_out_is_no_success():
    """A task that leaves when its time is up has timed out, though it was begun late and took less than its time."""

    class LateTaskRun(woflo.BaseTaskRun):
        def start(self):
            threading.Timer(0.1, lambda: self.finish(self.call())).start()

        def stop(self, grace=1.0):
            pass

    def half_done():
        while not woflo.stop_requested():
            time.sleep(0.002)
        return "half of it"

    outcome = woflo.task(half_done, runner=LateTaskRun, timeout=0.3)().outcome()
    assert isinstance(outcome, woflo.TimeoutFailure)


def test_the_call_of_a_run_never_raises():
    """A runner may rely on call(): it returns a Result whatever the task does."""
    results = []

    class Watching(woflo.BaseTaskRun):
        def start(self):
            results.append(self.call())
            self.finish(results[-1])

        def stop(self, grace=1.0):
            pass

    def leave():
        raise SystemExit(3)

    outcome = woflo.task(leave, runner=Watching)().outcome()
    (result,) = results
    assert isinstance(result, woflo.TaskFailure)
    assert isinstance(outcome, woflo.TaskFailure)
    assert isinstance(outcome.__cause__, SystemExit)


def test_a_call_can_be_pickled():
    """A runner may send its call elsewhere: it survives pickling."""
    import cloudpickle

    class Sending(woflo.BaseTaskRun):
        def start(self):
            self.finish(cloudpickle.loads(cloudpickle.dumps(self.call))())

        def stop(self, grace=1.0):
            pass

    assert woflo.task(give, runner=Sending)([1, 2]).get_result(timeout=PATIENCE) == [1, 2]


def test_a_stop_that_raises_leaves_a_stopped_run(tmp_path):
    """A runner whose stop() fails can't keep the run from ending."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")

    with ThreadPoolExecutor(max_workers=1) as pool:

        class Unstoppable(PoolTaskRun):
            def stop(self, grace=1.0):  # noqa: ARG002
                raise OSError("lost contact")

        Unstoppable.pool = pool

        def hold():
            started.set()
            release.wait()

        run = woflo.task(hold, runner=Unstoppable)()
        started.wait()
        with pytest.raises(OSError, match="lost contact"):
            run.stop(grace=0.05)
        release.set()
        assert run.wait(timeout=PATIENCE)


def test_the_contract_needs_no_pytest():
    """woflo.testing can be imported where pytest isn't installed."""
    import subprocess

    code = "import sys; sys.modules['pytest'] = None; import woflo.testing; print('fine')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, env=os.environ, check=False
    )
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_the_contract_notices_a_bad_runner():
    """The contract can fail: a runner that loses values, one that never ends a run, one that raises."""

    class Lossy(woflo.BaseTaskRun):
        def start(self):
            self.call()
            self.finish(woflo.Ok(None))

        def stop(self, grace=1.0):
            pass

    class Contract(RunnerContract):
        runner = Lossy
        runs_apart = False

    with pytest.raises(AssertionError):
        Contract().test_a_value_arrives()
    with pytest.raises(AssertionError):
        Contract().test_an_exception_arrives()
    with pytest.raises(AssertionError):
        Contract().test_exits_do_not_leave_the_task()
