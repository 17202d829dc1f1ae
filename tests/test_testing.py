"""What is shipped for tests does what its own pages say."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

import woflo
from woflo import StoppedFailure, TaskFailure, TimeoutFailure, UsageError, WaitTimeout, WorkerFailure, events, task
from woflo.engine import Engine
from woflo.graph import Node
from woflo.runners import MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun
from woflo.testing import PATIENCE, FakeClock, InlineTaskRun, RunnerContract, ScriptedTaskRun, capture_events


@pytest.fixture
def clock():
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def runner():
    return ScriptedTaskRun.using()


def never(*_args):
    raise AssertionError("a scripted task is not called")


class TestInline(RunnerContract):
    runner = InlineTaskRun
    runs_apart = False

    def test_the_pause_is_kept(self, tmp_path):
        """It is the one promise that this runner is there to break."""


class TestScriptedByTheTask(RunnerContract):
    """A script that has each attempt do what its task says."""

    runner = ScriptedTaskRun.using(on_start=ScriptedTaskRun.carry_out)
    runs_apart = False


# ---------------------------------------------------------------------- scripted


def test_a_run_ends_when_the_test_says(runner):
    """With the value, the exception or the failure that it says, and not before."""
    fetch = task(runner=runner)(never)
    runs = [fetch(number) for number in range(4)]
    assert runner.started == runs == runner.running()
    assert [run.given for run in runs] == [(0,), (1,), (2,), (3,)]
    runs[2].succeed(7)
    runs[0].fail(ValueError("no"))
    runs[1].fail(WorkerFailure("was killed"))
    assert runner.running() == [runs[3]]
    assert runs[2].get_result() == 7
    with pytest.raises(ValueError, match="no"):
        runs[0].get_result()
    assert isinstance(runs[0].outcome(), TaskFailure)
    assert isinstance(runs[1].outcome(), WorkerFailure)
    runs[3].stop()
    assert isinstance(runs[3].outcome(), StoppedFailure)
    runs[3].succeed(1)
    assert isinstance(runs[3].outcome(), StoppedFailure)


def test_each_runner_has_its_own_list(runner):
    """Tests don't see each other's runs, and a runner finds them by their tasks' names."""
    other = ScriptedTaskRun.using()
    first = task(name="first", runner=runner)(never)()
    second = task(name="second", runner=other)(never)()
    assert (runner.started, other.started) == ([first], [second])
    assert runner.of("first") is first
    with pytest.raises(UsageError, match="no run of 'second' was started; there were first"):
        runner.of("second")
    for run in (first, second):
        run.succeed()


def test_inputs_and_retries_are_as_on_every_runner(clock, runner):
    """A run waits for its inputs, and what fails is tried again after its pause."""
    first = task(runner=runner)(never)()
    second = task(runner=runner, retries=1, retry_sleep_time=3)(never)(first)
    with pytest.raises(UsageError, match="pending"):
        second.succeed()
    first.succeed("a")
    assert second.given == ("a",)
    second.fail(ConnectionError())
    assert (second.state, runner.running()) == ("retrying", [second])
    clock.advance(3)
    assert (second.state, second.attempt) == ("running", 2)
    second.succeed("b")
    assert second.get_result() == "b"
    assert runner.started == [first, second, second]


def test_one_that_does_not_obey(clock):
    """It knows that it was asked, and is abandoned when the grace is over."""
    run = task(runner=ScriptedTaskRun.using(obeys=False))(never)()
    run.stop(grace=4, wait=False)
    clock.advance(3.5)
    assert (run.asked, run.is_running()) == (1, True)
    clock.advance(0.5)
    assert "abandoned" in str(run.outcome())


def test_carry_out_calls_the_function(runner):
    """For the one run in a script that shall be real."""
    run = task(runner=runner)(max)(3, 5)
    run.carry_out()
    assert run.get_result() == 5


# ---------------------------------------------------------------------- clock


def test_time_passes_when_the_test_says(clock, runner):
    """A time-out falls due at its second, and the run's own seconds are the clock's."""
    run = task(runner=runner, timeout=60)(never)()
    clock.advance(59)
    assert (run.is_running(), run.seconds) == (True, 59)
    clock.advance(1)
    assert isinstance(run.outcome(), TimeoutFailure)
    assert clock.time == 60


def test_whoever_waits_lets_time_pass(clock, runner):
    """To the next appointment, or to the end of its wait, whichever is first."""
    run = task(runner=runner)(never)()
    with pytest.raises(WaitTimeout):
        run.get_result(timeout=5)
    assert clock.time == 5
    clock.call_later(10, lambda: run.succeed(7))
    clock.call_later(11, run.stop)
    assert run.get_result(timeout=60) == 7
    assert clock.time == 15


def test_many_waits_under_the_clock(clock, runner):
    """as_completed and wait follow it too."""
    runs = [task(runner=runner)(never)() for _ in range(3)]
    for seconds, run in zip((3, 1, 2), runs, strict=True):
        clock.call_later(seconds, run.succeed)
    assert not woflo.wait(runs, timeout=1.5)
    assert [run.is_running() for run in runs] == [True, False, True]
    assert list(woflo.as_completed([runs[0], runs[2]])) == [runs[2], runs[0]]
    assert clock.time == 3


def test_appointments_come_in_their_order_and_can_be_called_off(clock):
    """At the same time: the first that was made first. One may make another."""
    told = []
    clock.call_later(2, lambda: told.append("second"))
    clock.call_later(1, lambda: clock.call_later(1, lambda: told.append("third")))
    clock.call_later(1, lambda: told.append("first"))
    clock.call_later(1, lambda: told.append("never")).cancel()
    clock.advance(2)
    assert told == ["first", "second", "third"]
    with pytest.raises(UsageError, match="seconds"):
        clock.advance(-1)


def test_a_pause_in_place_is_not_slept(clock):
    """A sequential run's pause makes the time pass."""
    calls = []

    def flaky():
        calls.append(clock.time)
        if len(calls) < 3:
            raise ConnectionError

    assert task(runner=SequentialTaskRun, retries=2, retry_sleep_time=3600)(flaky)().outcome()
    assert calls == [0, 3600, 7200]


def test_a_wait_that_nothing_can_end_says_so(clock, runner):
    """A test that would hang fails."""
    del clock
    run = task(runner=runner)(never)()
    with pytest.raises(UsageError, match="nothing is due"):
        run.get_result()
    run.succeed()


def test_threads_and_time_by_hand(runner):
    """Without jumps real threads may work: their waits and pauses end when the time moves."""
    failed = threading.Event()

    def flaky():
        run = woflo.current_run()
        if run.attempt == 1:
            failed.set()
            raise ConnectionError
        return run.attempt

    with FakeClock(jumps=False) as clock:
        run = task(runner=ThreadTaskRun, retries=1, retry_sleep_time=3600)(flaky)()
        failed.wait(PATIENCE)
        while run.is_running():  # its pause may begin a moment later
            clock.advance(3600)
            time.sleep(0.001)
        assert run.get_result() == 2
        waited = []
        scripted = task(runner=runner)(never)()
        thread = threading.Thread(target=lambda: waited.append(scripted.wait(timeout=10)))
        thread.start()
        clock.advance(10)
        while thread.is_alive():  # it may have begun to wait after that
            clock.advance(10)
            thread.join(0.001)
        assert waited == [False]
        scripted.succeed()


def test_no_worker_processes_under_the_clock(clock):
    """They take real time: it is said, and nothing is started."""
    del clock
    with pytest.raises(UsageError, match="real time"):
        task(runner=MultiprocessTaskRun)(max)(1, 2)


def test_one_clock_at_a_time_and_everything_given_back():
    """After the block time is the system's again, also when the block was left by an exception."""
    before = woflo.runners.base.monotonic
    with FakeClock(), pytest.raises(UsageError, match="one master"), FakeClock():
        pass
    with pytest.raises(ZeroDivisionError), FakeClock() as clock:
        clock.advance(1 / 0)
    assert woflo.runners.base.monotonic is before is time.monotonic
    assert task(runner=ThreadTaskRun)(max)(1, 2).get_result(timeout=PATIENCE) == 2


# ---------------------------------------------------------------------- inline and capture


def test_inline_runs_need_nobody():
    """Tasks that don't name a runner run in the caller, in the order of the calls, and are tried again at once."""
    told = []

    @task(retries=1, retry_sleep_time=3600)
    def step(name, *_inputs):
        told.append((name, threading.current_thread() is threading.main_thread()))
        if len(told) == 1:
            raise ConnectionError
        return name

    with woflo.use(InlineTaskRun):
        first = step("a")
        assert step("b", first).get_result() == "b"
    assert told == [("a", True), ("a", True), ("b", True)]
    assert Engine([Node("x", step.options(name="x"), ())], runner=InlineTaskRun).graph is not None


def test_events_are_captured(runner):
    """All kinds or those asked for, in order, and nothing after the block."""
    call = task(name="call", runner=runner)(never)
    with capture_events() as everything, capture_events(events.RunEnded) as ends:
        whole = call()
        whole.succeed()
        broken = call()
        broken.fail(ValueError("no"))
    call().succeed()
    assert not broken.outcome()
    assert [(type(event).__name__, event.run) for event in everything] == [
        ("RunStarted", whole.name),
        ("RunEnded", whole.name),
        ("RunStarted", broken.name),
        ("RunEnded", broken.name),
    ]
    assert [event.failure is None for event in ends] == [True, False]


def test_the_end_of_the_program_does_not_wait_for_a_script(tmp_path):
    """Runs that only a test could end, and what waits for them, don't keep the interpreter."""
    program = tmp_path / "program.py"
    program.write_text(
        "from woflo import task\n"
        "from woflo.testing import ScriptedTaskRun\n"
        "run = task(runner=ScriptedTaskRun)(print)()\n"
        "task(print)(run)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert not done.stdout
