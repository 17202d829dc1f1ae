"""Timers: in the order of their times, once, never after a cancel, and not lost by Ctrl-C."""

from __future__ import annotations

from itertools import pairwise
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woflo.runners._timers import Timers


def nothing():
    pass


def due(timers):
    """What a driver does: take what is due, act, forget."""
    done = []
    while (timer := timers.pop()) is not None:
        if timer.action is not None:
            timer.action()
            done.append(timer)
            timer.action = None
    return done


@given(st.lists(st.tuples(st.floats(-100, 100), st.booleans())))
def test_due_in_order_and_never_when_cancelled(entries):
    """What is past is done in the order of its times, equal ones in that of their calls; the rest stays."""
    now, called = monotonic(), []
    timers = Timers()
    for number, (offset, cancelled) in enumerate(entries):
        timer, _ = timers.add(now + offset - 50, lambda number=number: called.append(number))
        if cancelled:
            timer.cancel()
    due(timers)
    past = [n for n, (offset, cancelled) in enumerate(entries) if now + offset - 50 <= now and not cancelled]
    assert called == sorted(past, key=lambda n: (now + entries[n][0] - 50, n))
    assert all(when > now for when, _, _ in timers.heap)


def test_the_first_is_told():
    """Whoever sleeps until the first timer has to be woken by an earlier one, and only by that."""
    timers, now = Timers(), monotonic()
    assert [timers.add(now + seconds, nothing)[1] for seconds in (5, 9, 5, 1, 2)] == [True, False, False, True, False]


def test_cancelled_timers_are_swept():
    """A program that starts and ends runs with time-outs for days keeps no timer of the past."""
    timers, later = Timers(), monotonic() + 1000
    for _ in range(10_000):
        timers.add(later, nothing)[0].cancel()
        assert len(timers.heap) <= 128
    kept = [timers.add(later + number, nothing)[0] for number in range(1000)]
    assert [entry[2] for entry in sorted(timers.heap)] == kept
    assert all(one <= other for one, other in pairwise(sorted(timers.heap)))


@pytest.mark.parametrize("moment", ["taken", "acting"])
def test_an_interrupted_timer_is_due_again(moment):
    """Ctrl-C after a timer was taken, or inside of its action, loses nothing; one that is done isn't done twice."""
    timers, called = Timers(), []

    def act():
        called.append("act")
        if len(called) == 1:
            raise KeyboardInterrupt

    timers.add(monotonic() - 2, lambda: called.append("done before"))
    assert len(due(timers)) == 1
    called.clear()
    timers.add(monotonic() - 1, act)
    if moment == "taken":
        timers.pop()
        called.append("cut")
    else:
        with pytest.raises(KeyboardInterrupt):
            due(timers)
    assert due(timers) == []
    timers.restore()
    due(timers)
    assert called == (["cut", "act"] if moment == "taken" else ["act", "act"])
    timers.restore()
    assert due(timers) == []
