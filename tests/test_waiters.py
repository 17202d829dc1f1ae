"""How long to wait: what is no number of seconds is refused, by name, where it is given."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest

import woflo
from woflo import UsageError, task
from woflo.runners import ThreadTaskRun
from woflo.testing import PATIENCE, Flag

ASKED = {
    "wait": lambda run, value: run.wait(value),
    "outcome": lambda run, value: run.outcome(value),
    "get_result": lambda run, value: run.get_result(timeout=value),
    "exception": lambda run, value: run.exception(timeout=value),
    "woflo.wait": lambda run, value: woflo.wait([run], timeout=value),
    "as_completed": lambda run, value: woflo.as_completed([run], timeout=value),
    "gather": lambda run, value: woflo.gather(run, timeout=value),
    "stop": lambda run, value: run.stop(value),
}


@pytest.fixture
def unfinished(tmp_path):
    """A run that hasn't ended yet."""
    release = Flag(tmp_path / "release")
    run = task(release.wait, runner=ThreadTaskRun)()
    yield run
    release.set()
    assert run.wait(PATIENCE)


@pytest.mark.parametrize("how", ASKED)
@pytest.mark.parametrize("value", ["1", -1, float("nan"), [1], True, 1j], ids=repr)
def test_what_is_no_time_is_refused(unfinished, how, value):
    """A UsageError names the argument, what it may be and what it is; the run goes on."""
    with pytest.raises(UsageError, match=r"^(timeout|grace) must be seconds from 0 up.*, not ") as caught:
        ASKED[how](unfinished, value)
    assert repr(value) in str(caught.value)
    assert unfinished.is_running()


def test_a_stop_wants_a_grace(unfinished):
    """None is no grace."""
    with pytest.raises(UsageError, match="grace must be seconds from 0 up, not None"):
        unfinished.stop(None)


@pytest.mark.parametrize("value", [0, 0.01, np.float32(0.01), np.int64(0), Fraction(1, 100)], ids=repr)
def test_any_real_number_is_a_time(unfinished, value):
    """Whole numbers, fractions and numpy's numbers are seconds."""
    assert unfinished.wait(value) is False


def test_for_ever_is_a_time():
    """Infinity waits as long as it takes."""
    assert task(time.sleep, runner=ThreadTaskRun)(0.01).get_result(timeout=float("inf")) is None
