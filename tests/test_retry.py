"""The decider of retries, alone; and that it isn't asked, nor tenacity imported, without need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import tenacity

import woflo
from woflo import DependencyFailure, MissingFailure, StoppedFailure, TaskFailure, TimeoutFailure, WorkerFailure, task
from woflo._retry import Policy, pause
from woflo.runners import SequentialTaskRun, ThreadTaskRun
from woflo.testing import PATIENCE


def failed(error=None):
    """A TaskFailure with a cause."""
    failure = TaskFailure("it broke")
    failure.__cause__ = error or ValueError("broken")
    return failure


def test_as_often_as_allowed():
    """retries=2 answers yes after the first and the second attempt, and no after the third."""
    policy = Policy(2, Exception, 0)
    assert [pause(policy, attempt, failed()) for attempt in (1, 2, 3, 4)] == [0.0, 0.0, None, None]


def test_never_by_default():
    """Without retries the answer is no."""
    assert pause(Policy(0, Exception, 0), 1, failed()) is None


@pytest.mark.parametrize(
    ("retry_on", "error", "again"),
    [
        (Exception, ValueError(), True),
        (Exception, SystemExit(), False),
        (Exception, KeyboardInterrupt(), False),
        (BaseException, SystemExit(), True),
        (OSError, ConnectionError(), True),
        (ConnectionError, OSError(), False),
        ((KeyError, OSError), ConnectionError(), True),
        ((KeyError, OSError), ValueError(), False),
        ((), ValueError(), False),
    ],
)
def test_retry_on(retry_on, error, again):
    """The task's exception decides, by its type."""
    assert (pause(Policy(1, retry_on, 0), 1, failed(error)) is not None) is again


@pytest.mark.parametrize("failure", [TimeoutFailure(limit=1.0), WorkerFailure("killed", signal="SIGKILL")], ids=type)
def test_time_outs_and_deaths_are_tried_again(failure):
    """A time-out and a dead worker deserve another attempt, whatever retry_on says."""
    assert pause(Policy(1, KeyError, 0.5), 1, failure) == 0.5
    assert pause(Policy(1, KeyError, 0.5), 2, failure) is None


@pytest.mark.parametrize("failure", [StoppedFailure(), DependencyFailure({}), MissingFailure("x")], ids=type)
def test_final_failures(failure):
    """What was stopped or couldn't run isn't tried again."""
    assert pause(Policy(9, BaseException, 0), 1, failure) is None


def test_a_task_failure_on_purpose_is_an_exception_too():
    """A TaskFailure that the task raised is retried like any exception."""
    assert pause(Policy(1, Exception, 0), 1, TaskFailure("no data")) == 0.0
    assert pause(Policy(1, OSError, 0), 1, TaskFailure("no data")) is None


def test_seconds():
    """A number of seconds is the pause, each time."""
    policy = Policy(3, Exception, 2.5)
    assert [pause(policy, n, failed()) for n in (1, 2, 3)] == [2.5, 2.5, 2.5]


def test_tenacity_strategies():
    """A tenacity strategy is asked with the attempt's number, and its arithmetic is tenacity's."""

    def pauses(wait):
        policy = Policy(4, Exception, wait)
        return [pause(policy, n, failed()) for n in (1, 2, 3, 4)]

    assert pauses(tenacity.wait_fixed(3)) == [3, 3, 3, 3]
    assert pauses(tenacity.wait_exponential(multiplier=1, max=5)) == [1, 2, 4, 5]
    assert pauses(tenacity.wait_incrementing(start=1, increment=2)) == [1, 3, 5, 7]
    assert pauses(tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(9))) == [1, 9, 9, 9]
    assert pauses(tenacity.wait_fixed(1) + tenacity.wait_fixed(2)) == [3, 3, 3, 3]
    assert all(0 <= seconds <= 2 for seconds in pauses(tenacity.wait_random(0, 2)))


def test_strategies_see_the_exception():
    """A strategy may look at the exception: a server may say when to come back."""

    def as_told(state):
        return state.outcome.exception().retry_after

    error = ConnectionError("busy")
    error.retry_after = 7
    assert pause(Policy(1, Exception, as_told), 1, failed(error)) == 7


def test_a_negative_pause_is_none():
    """A strategy that answers less than nothing means no pause."""
    assert pause(Policy(1, Exception, lambda _state: -3.0), 1, failed()) == 0.0


def test_a_strategy_that_raises_fails_the_run():
    """A broken strategy ends the run as failed; it neither hangs nor escapes."""

    def broken_strategy(_state):
        raise ZeroDivisionError("in the strategy")

    def broken():
        raise OSError("in the task")

    for runner in (SequentialTaskRun, ThreadTaskRun, None):
        run = task(broken, retries=1, retry_sleep_time=broken_strategy, runner=runner)()
        assert run.wait(timeout=PATIENCE)
        assert not run.outcome()


def test_a_strategy_in_use():
    """retry_sleep_time takes a strategy, and the events tell its pauses."""
    seen = []

    def broken():
        raise OSError("down")

    with woflo.observe(seen.append):
        wait = tenacity.wait_incrementing(start=0.001, increment=0.001)
        run = task(broken, retries=3, retry_sleep_time=wait, runner=ThreadTaskRun)()
        assert isinstance(run.exception(), OSError)
    delays = [event.delay for event in seen if isinstance(event, woflo.events.RunRetrying)]
    assert delays == pytest.approx([0.001, 0.002, 0.003])


IMPORTED = """
import sys
from woflo import task
from woflo.runners import SequentialTaskRun

@task({options})
def double(x):
    return 2 * x

assert double(2).get_result() == 4
assert double.options(runner=SequentialTaskRun)(2).get_result() == 4
print(sorted(name for name in ("tenacity", "loguru") if name in sys.modules))
"""


@pytest.mark.parametrize("options", ["", "retries=3", "retries=3, retry_sleep_time=0.5"])
def test_tenacity_is_imported_for_its_strategies_only(options):
    """Where nothing is retried tenacity isn't imported, nor loguru where nothing is said."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED.format(options=options)],
        env={k: v for k, v in os.environ.items() if not k.startswith("WOFLO")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
