"""Actions and their engine: what they are, how they look, what becomes of each fault, and how all is shut down."""

# ruff: noqa: ASYNC110, PLW1509 - a flag that another thread sets has to be looked at; no threads where a program is run

from __future__ import annotations

import asyncio
import contextlib
import doctest
import functools
import gc
import itertools
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from dataclasses import dataclass

import pytest

import woflo.action
from woflo import (
    CyclicWorkflowError,
    DependencyFailure,
    StoppedFailure,
    TaskFailure,
    TaskStopped,
    UsageError,
    WorkerFailure,
    task,
)
from woflo.action import AbstractAction, Action, Engine, Sequence
from woflo.events import NodeEnded, NodeStarted
from woflo.runners import AsyncTaskRun, MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun, _attempt
from woflo.testing import PATIENCE

MODES = ("blocking", "async", "notebook")


def drive(mode, engine, timeout=None):
    """Orchestrate an engine: from a script, on the caller's loop, or blocking where a loop is running."""

    async def co():
        return await engine.co_orchestrate(timeout)

    async def notebook():
        return engine.orchestrate(timeout)

    if mode == "blocking":
        return engine.orchestrate(timeout)
    return asyncio.run(co() if mode == "async" else notebook())


@pytest.fixture(params=MODES)
def go(request):
    """Drives an engine in each of the three ways."""
    return functools.partial(drive, request.param)


async def give(value=None):
    return value


async def fail(error=None):
    raise error or ValueError("broken")


async def for_ever():
    await asyncio.Event().wait()


def chain_of(*actions):
    for first, second in itertools.pairwise(actions):
        second.requires(first)


@task(runner=MultiprocessTaskRun)
def fetch(number=7):
    """A Task with a process of its own."""
    return number, os.getpid()


class Recorded(AbstractAction):
    """Tells a list what happens to it."""

    def __init__(self, told, label, work=give, **options):
        super().__init__(label=label, **options)
        self.told = told
        self.work = work

    async def corun(self):
        self.told.append(("run", self.label))
        try:
            return await self.work()
        except asyncio.CancelledError:
            self.told.append(("cancelled", self.label))
            raise


class Closing(Recorded):
    """One with something to shut down: its loop stays until then."""

    async def coshutdown(self):
        self.told.append(("shut", self.label))


# ---------------------------------------------------------------- what can be an action


def test_kinds_of_work(go):
    """Coroutines, coroutine functions, Tasks, plain functions, partials, and what gives runs or coroutines of them."""

    async def number():
        await asyncio.sleep(0)
        return 1

    actions = {
        "coroutine": Action(number()),
        "function": Action(number),
        "task": Action(fetch),
        "partial of a task": Action(functools.partial(fetch, 3)),
        "plain": Action(lambda: 4),
        "gives a run": Action(lambda: fetch(5)),
        "gives a coroutine": Action(lambda: give(6)),
        "partial": Action(functools.partial(give, 7)),
        "builtin": Action(list),
        "on a runner": Action(os.getpid, runner=MultiprocessTaskRun),
        "task on a runner": Action(fetch, runner=SequentialTaskRun),
        "partial of a task on a runner": Action(functools.partial(fetch, 8), runner=ThreadTaskRun),
    }
    engine = Engine(*actions.values())
    assert go(engine), engine.why()
    here = os.getpid()
    results = {name: action.result() for name, action in actions.items()}
    other = results.pop("on a runner")
    assert other != here
    assert results["task"][0] == 7
    assert results.pop("task")[1] != here
    assert results.pop("partial of a task")[1] != here
    assert results.pop("gives a run")[1] != here
    assert results == {
        "coroutine": 1,
        "function": 1,
        "plain": 4,
        "gives a coroutine": 6,
        "partial": 7,
        "builtin": [],
        "task on a runner": (7, here),
        "partial of a task on a runner": (8, here),
    }


def test_where_they_run():
    """Coroutines run on the driving loop, a Task's coroutine too; plain functions in a thread beside it."""

    async def loop():
        return asyncio.get_running_loop()

    def one_set():
        asked = task(loop)
        return [Action(loop()), Action(loop), Action(asked), Action(functools.partial(asked))]

    mine = one_set()
    plain = Action(threading.get_ident)

    async def main():
        assert await Engine(*mine, plain).co_orchestrate()
        return asyncio.get_running_loop(), threading.get_ident()

    here, thread = asyncio.run(main())
    assert {action.result() for action in mine} == {here}
    assert plain.result() != thread
    ours = one_set()
    assert Engine(*ours).orchestrate()
    assert len({action.result() for action in ours}) == 1


def test_an_action_class_of_ones_own(go):
    """Whoever writes `corun` has an action; `super().__init__` need not be called."""

    class Ping(AbstractAction):
        def __init__(self, host):
            self.host = host

        async def corun(self):
            return f"pong {self.host}"

    class Twice(Action):
        async def corun(self):
            return 2 * await super().corun()

    ping, twice = Ping("a"), Twice(lambda: 21, label="twice")
    ping.requires(twice)
    assert go(Engine(ping, twice))
    assert (ping.result(), twice.result()) == ("pong a", 42)
    assert str(ping) == "<Ping `NO_LABEL' finished -> pong a - [requires [twice]]>"


def test_corun_has_to_be_a_coroutine(go):
    """One that isn't written, or is no coroutine, fails its action."""

    class Nothing(AbstractAction):
        pass

    class Plain(AbstractAction):
        def corun(self):
            return 3

    nothing, plain = Nothing(), Plain(label="plain")
    assert not go(Engine(nothing, plain))
    assert "async def corun(self)" in str(nothing.exception())
    assert isinstance(plain.exception(), TypeError)


@pytest.mark.parametrize("work", [3, "fetch", None, asyncio.Event(), fetch])
def test_what_is_no_work_is_refused(work):
    """Something that can't be carried out is refused at once, a run that goes on already too."""
    work = Engine() if work is fetch else work
    with pytest.raises(UsageError, match="a coroutine, a Task or a callable, not of"):
        Action(work)


def test_generators_are_refused():
    """A generator function is no work."""

    def generate():
        yield 1

    with pytest.raises(UsageError, match="generator"):
        Action(generate)


def test_a_runner_for_a_coroutine_object_is_refused():
    """A coroutine that exists can't be taken anywhere; the message says what can."""
    coroutine = give()
    with pytest.raises(UsageError, match="Action\\(fn, runner=…\\)"):
        Action(coroutine, runner=ThreadTaskRun)
    coroutine.close()


def test_results_before_the_end():
    """Asking for what isn't there is a UsageError that says how far it is."""
    action = Action(give)
    assert not action.is_done()
    assert not action.is_running()
    for ask in (action.result, action.exception):
        with pytest.raises(UsageError, match="give has not ended: it is idle"):
            ask()
    with pytest.raises(UsageError, match="idle"):
        Engine(action, label="all").result()


# ---------------------------------------------------------------- order


def test_requirements(go):
    """An action starts when all that it requires has succeeded; those that require nothing of each other start at once."""
    order = []
    both = []

    async def work(name):
        order.append(f"{name}+")
        if name in {"a", "b"}:
            both.append(name)
            while len(both) < 2:
                await asyncio.sleep(0)
        order.append(f"{name}-")

    a, b, c = (Action(functools.partial(work, name), label=name) for name in "abc")
    c.requires(a, b)
    assert go(Engine(c, b, a))
    assert order[:2] in (["a+", "b+"], ["b+", "a+"])
    assert order[4:] == ["c+", "c-"]


def test_they_start_in_the_order_given():
    """Those that could all start do so in the order in which the engine got them."""
    told = []
    actions = [Recorded(told, n) for n in range(20)]
    assert Engine(*actions).orchestrate()
    assert told == [("run", n) for n in range(20)]


def test_requires_returns_nothing_and_may_come_late(go):
    """As in the notebook; and an engine sees what was required after it was made."""
    told = []
    a, b = Recorded(told, "a"), Recorded(told, "b")
    engine = Engine(a, b)
    assert a.requires(b) is None
    a.requires(b)
    assert go(engine)
    assert told == [("run", "b"), ("run", "a")]


def test_a_chain_of_10000_added_in_reverse():
    """A long chain is carried out whichever way round it is told, shown, and named when it fails at its beginning."""
    ran = []

    async def step(n):
        ran.append(n)
        if n < 0:
            raise ValueError("at the beginning")

    actions = [Action(functools.partial(step, n)) for n in range(10_000)]
    chain_of(*actions)
    engine = Engine(*reversed(actions))
    assert engine.orchestrate()
    assert ran == list(range(10_000))
    assert engine.actions == tuple(reversed(actions))
    first = Action(functools.partial(step, -1), label="first")
    more = [first, *(Action(functools.partial(step, n)) for n in range(10_000))]
    chain_of(*more)
    engine = Engine(*reversed(more))
    assert not engine.orchestrate()
    assert ran[10_000:] == [-1]
    assert [str(root.__cause__) for root in more[-1].exception().root_causes()] == ["at the beginning"]


def test_sequences(go):
    """A Sequence is a chain; it requires with its first action, is required with its last, and goes whole into an engine."""
    told = []
    a, b, c, d, e = (Recorded(told, name) for name in "abcde")
    sequence = Sequence(b, c)
    sequence.append(d)
    sequence.requires(a)
    e.requires(sequence)
    assert repr(sequence) == "<Sequence [b, c, d]>"
    engine = Engine(e, sequence, a)
    assert go(engine), engine.why()
    assert [name for _, name in told] == list("abcde")
    nested = Sequence(Sequence(Action(give), Action(give)), Sequence(Action(give)))
    assert len(nested.actions) == 3
    assert go(Engine(nested))


def test_bad_sequences():
    """An empty one, and one of something else, is refused."""
    with pytest.raises(UsageError, match="at least one"):
        Sequence()
    with pytest.raises(UsageError, match=r"an action is expected, or a Sequence of them, not function: write Action\("):
        Sequence(give)


def test_actions_stand_before_what_they_require():
    """`actions` has the order given, but a goal stands before its requirements; a cycle doesn't hurt it."""
    a, b, c, d = (Action(give, label=name) for name in "abcd")
    assert Engine(a, b, c, d).actions == (a, b, c, d)
    c.requires(a)
    d.requires(a, b)
    assert Engine(a, b, c, d).actions == (c, d, a, b)
    a.requires(c)
    assert set(Engine(a, b, c, d).actions) == {a, b, c, d}


def test_list(capsys):
    """`list()` prints a line per action, requirements first, nested ones indented."""
    a, b, c = (Action(give, label=name) for name in "abc")
    inner = Engine(c, label="inner")
    a.requires(b)
    Engine(a, b, inner).list()
    assert capsys.readouterr().out == (
        "<Action `b' idle - [allows [a]]>\n"
        "<Action `a' idle - [requires [b]]>\n"
        "<Engine `inner' idle>\n"
        "    <Action `c' idle>\n"
    )


def test_window(go):
    """No more than `window` actions run at once, those that run forever not counted."""
    now, most = [], []

    async def work():
        now.append(1)
        most.append(len(now))
        while max(most) < 2:  # the others are on their way
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        now.pop()

    for place in (0, 4, 9):  # wherever it stands among them
        most.clear()
        actions = [Action(work) for _ in range(9)]
        actions.insert(place, Action(for_ever, forever=True))
        engine = Engine(*actions, window=2)
        assert go(engine, timeout=PATIENCE), engine.why()
        assert max(most) == 2
    with pytest.raises(UsageError, match="window"):
        Engine(window=0)


# ---------------------------------------------------------------- how they end


def test_repr_in_each_state():
    """A line tells the label, the state, the result, and what requires what; a long or odd one stays a line."""
    lines = []

    async def look():
        lines.append([str(action) for action in (first, second)])
        return "x" * 100 + "\n"

    class Odd:
        def __repr__(self):
            raise RuntimeError

    first, second, third = Action(look(), label="first"), Action(give(1)), Action(give(Odd()), label="odd")
    second.requires(first)
    third.requires(second)
    bad, skipped = Action(fail, label="bad"), Action(give(), label="skipped")
    skipped.requires(bad)
    watch = Action(for_ever(), label="watch", forever=True)
    engine = Engine(first, second, third, bad, skipped, watch)
    assert str(first) == "<Action `first' idle - [allows [NO_LABEL]]>"
    assert not engine.orchestrate()
    assert lines == [
        [
            "<Action `first' running - [allows [NO_LABEL]]>",
            "<Action `NO_LABEL' waiting - [requires [first]] [allows [odd]]>",
        ]
    ]
    assert str(first) == f"<Action `first' finished -> {'x' * 59}… - [allows [NO_LABEL]]>"
    assert str(second) == "<Action `NO_LABEL' finished -> 1 - [requires [first]] [allows [odd]]>"
    assert str(third) == "<Action `odd' finished -> <Odd whose repr() raised RuntimeError> - [requires [NO_LABEL]]>"
    assert str(bad) == "<Action `bad' failed -> ValueError: broken - [allows [skipped]]>"
    assert str(skipped) == "<Action `skipped' skipped - [requires [bad]]>"
    assert str(watch) == "<Action `watch' stopped>"
    assert re.fullmatch(
        r"<Engine `NO_LABEL' failed -> 2 of 6 failed \(bad\): bad-\d+: ValueError: broken>", str(engine)
    )
    many = [Action(give) for _ in range(100)]
    first.requires(*many)
    assert "NO_LABEL, … 92 more]" in str(first)


def test_states_while_running():
    """`is_running` and `is_done` tell the truth from any thread while the engine is at work."""
    begun, release = threading.Event(), threading.Event()

    def hold():
        begun.set()
        release.wait(PATIENCE)

    one, two = Action(hold), Action(give)
    two.requires(one)
    engine = Engine(one, two)
    thread = threading.Thread(target=engine.orchestrate)
    thread.start()
    begun.wait(PATIENCE)
    assert [(each.is_running(), each.is_done()) for each in (one, two, engine)] == [
        (True, False),
        (False, False),
        (True, False),
    ]
    release.set()
    thread.join()
    assert [(each.is_running(), each.is_done()) for each in (one, two, engine)] == [(False, True)] * 3
    assert engine.result() is True


def test_a_failure_hits_those_that_require_it(go):
    """The others go on; those that require it end as DependencyFailure without running; `why` names it."""
    told = []
    bad, after, later, other = (
        Recorded(told, "bad", fail),
        Recorded(told, "after"),
        Recorded(told, "later"),
        Recorded(told, "other"),
    )
    chain_of(bad, after, later)
    engine = Engine(bad, after, later, other)
    assert go(engine) is False
    assert sorted(told) == [("run", "bad"), ("run", "other")]
    assert isinstance(bad.exception(), ValueError)
    with pytest.raises(ValueError, match="broken"):
        bad.result()
    with pytest.raises(DependencyFailure, match="later: not run, because its input failed: after") as caught:
        later.result()
    assert later.exception() is caught.value
    assert [root.__cause__ for root in caught.value.root_causes()] == [bad.exception()]
    assert list(pickle.loads(pickle.dumps(caught.value)).dependencies) == ["after"]
    assert re.fullmatch(r"3 of 4 failed \(bad\): bad-\d+: ValueError: broken", engine.why())
    assert isinstance(engine.exception(), TaskFailure)
    assert Engine(Action(give)).why() == "all is well"


def test_required_failures_of_one_name_are_all_told(go):
    """Two actions of the same label that fail are two root causes."""
    one, two, after = Action(fail, label="x"), Action(fail, label="x"), Action(give)
    after.requires(one, two)
    assert not go(Engine(one, two, after))
    assert len(after.exception().root_causes()) == 2
    assert list(after.exception().dependencies) == ["x", "x (2)"]


@pytest.mark.parametrize("how", ["critical", "stop_on_failure"])
def test_a_critical_failure_stops_the_others(go, how):
    """A critical action's failure, or any if `stop_on_failure`, ends everything that has not ended."""
    told = []
    running = asyncio.Event()

    async def wait():
        running.set()
        await for_ever()

    async def fail_then():
        await running.wait()
        raise ValueError("too bad")

    endless = Recorded(told, "endless", wait)
    bad = Action(fail_then, label="bad", critical=how == "critical")
    after = Recorded(told, "after")
    after.requires(endless)
    engine = Engine(endless, bad, after, stop_on_failure=how == "stop_on_failure")
    assert go(engine) is False
    assert told == [("run", "endless"), ("cancelled", "endless")]
    assert isinstance(endless.exception(), StoppedFailure)
    assert isinstance(after.exception(), StoppedFailure)
    assert "too bad" in engine.why()


def test_a_dead_worker_fails_its_action(go):
    """A Task whose worker dies is a failed action; its neighbours don't notice."""
    dead = Action(lambda: os._exit(3), label="dead", runner=MultiprocessTaskRun)
    fine = Action(fetch)
    assert go(Engine(dead, fine)) is False
    assert isinstance(dead.exception(), WorkerFailure)
    assert fine.result()[0] == 7


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1)], ids=type)
def test_odd_exceptions_fail_their_action(go, error):
    """Whatever a coroutine raises is its action's failure; the program and the loop go on."""

    async def odd():
        raise error

    bad, fine = Action(odd), Action(give(1))
    assert go(Engine(bad, fine)) is False
    assert bad.exception() is not None
    assert fine.result() == 1


def test_the_traceback_shows_the_users_frames():
    """What is raised by `result()` points into the coroutine, and not into woflo's machinery below it."""
    bad = Action(fail)
    Engine(bad).orchestrate()
    with pytest.raises(ValueError, match="broken") as caught:
        bad.result()
    assert caught.traceback[-1].name == "fail"
    text = "".join(map(str, caught.traceback))
    assert "asynchronous.py" not in text


def test_forever_is_cancelled_when_the_others_are_done(go):
    """It is no failure then; and what it requires and does before counts."""
    told = []
    seen = asyncio.Event()

    async def watch():
        seen.set()
        await for_ever()

    async def other():
        await seen.wait()
        return "done"

    before, work = Recorded(told, "before"), Action(other)
    watching = Recorded(told, "watch", watch, forever=True)
    watching.requires(before)
    engine = Engine(watching, work, before)
    assert go(engine) is True
    assert told[-1] == ("cancelled", "watch")
    assert isinstance(watching.exception(), StoppedFailure)
    assert work.result() == "done"


def test_forever_that_ends_or_fails(go):
    """One that ends by itself has succeeded; one that fails makes `orchestrate` return False."""
    ends, work = Action(give(1), forever=True), Action(give(2))
    assert go(Engine(ends, Sequence(work, Action(give)))) is True
    fails, release = Action(fail, forever=True, label="watch"), Action(lambda: None)
    engine = Engine(fails, Action(functools.partial(until_done, fails)), release)
    assert go(engine) is False
    assert "watch" in engine.why()


async def until_done(action):
    while not action.is_done():
        await asyncio.sleep(0.001)


def test_nothing_can_require_forever():
    """It would never start: refused, by name."""
    watch, after = Action(for_ever, forever=True, label="watch"), Action(give, label="after")
    after.requires(watch)
    with pytest.raises(UsageError, match="after needs watch, which runs forever"):
        Engine(watch, after).orchestrate()


# ---------------------------------------------------------------- faults.md §7


def test_window_of_1_and_a_failure(go):
    """§7: a job that fails gives its place back; the queue goes on."""
    told = []
    jobs = [Recorded(told, n, fail if n == 0 else give) for n in range(5)]
    assert go(Engine(*jobs, window=1)) is False
    assert told == [("run", n) for n in range(5)]


def test_only_forever(go):
    """§7: without a time-out they are refused before anything starts; with one they end with it, and nothing has failed."""
    told = []
    watch = Recorded(told, "watch", for_ever, forever=True)
    engine = Engine(watch)
    with pytest.raises(UsageError, match="forever"):
        go(engine)
    assert told == []
    assert go(engine, timeout=0.01) is True
    assert not watch.is_running()


def test_a_time_out_ends_nested_engines(go):
    """§7: when the outer engine's time is up, the inner one's jobs end with it, and none of them completes later."""
    told = []
    inner = Engine(Recorded(told, "job", for_ever), label="inner")
    outer = Engine(inner, Recorded(told, "other", for_ever))
    middle = Engine(outer, label="middle")
    assert go(middle, timeout=0.3) is False
    assert "0.3 s" in middle.why() or "time is up" in middle.why()
    assert sorted(told) in ([], sorted((how, who) for how in ("run", "cancelled") for who in ("job", "other")))
    assert not any(one.is_running() for one in (inner, outer, *inner.actions, *outer.actions))


@pytest.mark.parametrize("mode", ["stop", "task"])
def test_co_orchestrate_cancelled_from_outside(mode):
    """§7: its jobs end before the cancelled call does, also those of nested engines, and those in processes."""
    told = []
    running = asyncio.Event()

    async def work():
        running.set()
        await for_ever()

    nap = Action(functools.partial(time.sleep, 600), runner=MultiprocessTaskRun, label="nap")
    engine = Engine(Engine(Recorded(told, "job", work), nap), Recorded(told, "late"))
    engine.actions[1].requires(engine.actions[0])

    async def main():
        driving = asyncio.create_task(engine.co_orchestrate())
        await running.wait()
        if mode == "stop":
            engine.stop()
            return await driving
        driving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await driving
        return None

    assert asyncio.run(main()) in (None, False)
    assert told == [("run", "job"), ("cancelled", "job")]
    assert isinstance(nap.exception(), StoppedFailure)


@pytest.mark.parametrize("mode", MODES)
def test_a_job_that_swallows_its_cancellation(mode):
    """§7: a time-out ends the engine all the same, after the grace; the job is abandoned, and that is said."""
    release = threading.Event()

    async def stubborn():
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.005)

    job = Action(stubborn, label="stubborn")
    engine = Engine(job)

    async def co():
        good = await engine.co_orchestrate(timeout=0.3) if mode == "async" else engine.orchestrate(timeout=0.3)
        release.set()  # asyncio.run itself would wait for it
        return good

    assert (engine.orchestrate(timeout=0.3) if mode == "blocking" else asyncio.run(co())) is False
    release.set()
    assert "may still be running" in str(job.exception())


def test_a_job_that_raises_cancelled_error(go):
    """§7: it has failed, nothing else has; what requires it is skipped."""

    async def cancel():
        raise asyncio.CancelledError

    bad, after, fine = Action(cancel, label="bad"), Action(give), Action(give(1))
    after.requires(bad)
    assert go(Engine(bad, after, fine)) is False
    assert isinstance(bad.exception(), TaskFailure)
    assert isinstance(bad.exception().__cause__, asyncio.CancelledError)
    assert isinstance(after.exception(), DependencyFailure)
    assert fine.result() == 1


def test_run_twice(go):
    """§7: what has ended is kept, the second call gives the same answer; nothing runs twice."""
    told = []
    engine = Engine(Recorded(told, "a"), Action(give(5)), label="twice")
    assert go(engine) is True
    assert go(engine) is True
    assert told == [("run", "a")]
    bad = Engine(Action(fail), Recorded(told, "b"))
    assert (go(bad), go(bad)) == (False, False)
    assert told == [("run", "a"), ("run", "b")]
    assert "broken" in bad.why()


def test_a_requirement_outside(go):
    """§7: it is named, before anything starts, and no cycle is blamed; in nested engines too."""
    told = []
    here, there = Recorded(told, "here"), Recorded(told, "there")
    here.requires(there)
    for engine in (Engine(here), Engine(there, Engine(here, label="inner"))):
        with pytest.raises(
            UsageError, match="here requires there, which is not in the same engine: put it in"
        ) as caught:
            go(engine)
        assert not isinstance(caught.value, CyclicWorkflowError)
    assert told == []


def test_the_clock_jumps(go, monkeypatch):
    """§7: a wall clock that jumps by a day during the run, and back, neither ends it nor keeps a time-out from ending it."""
    days = iter([0] + [86_400, -86_400] * 10_000)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(days))

    async def work():
        time.time()
        for _ in range(5):
            await asyncio.sleep(0.001)
            time.time()
        return 1

    work_action = Action(work)
    assert go(Engine(work_action), timeout=PATIENCE) is True
    assert go(Engine(Action(for_ever)), timeout=0.01) is False


def test_one_shutdown_hook_raises(go):
    """§7: the others are called all the same, and `why` names it."""
    told = []

    class Bad(Closing):
        async def coshutdown(self):
            await super().coshutdown()
            raise OSError("connection lost")

    one, two, three = Closing(told, "one"), Bad(told, "two"), Closing(told, "three")
    chain_of(one, two, three)
    engine = Engine(three, two, one)
    assert go(engine)
    assert engine.shutdown() is False
    assert told[3:] == [("shut", "three"), ("shut", "two"), ("shut", "one")]
    assert re.fullmatch(r"shutdown: 1 of 3 failed \(two\): two-\d+: OSError: connection lost", engine.why())
    assert engine.shutdown() is True
    assert len(told) == 6
    assert engine.why() == "all is well"


# ---------------------------------------------------------------- time-outs, stopping


def test_time_out_of_each_kind_of_work(go):
    """When the time is up coroutines are cancelled, threads and processes stopped, and the rest never starts."""

    def wait_in_thread():
        try:
            while True:
                time.sleep(0.002)
        except TaskStopped:
            ended.append("thread")
            raise

    ended = []
    actions = [
        Action(for_ever, label="coroutine"),
        Action(wait_in_thread, label="plain"),
        Action(wait_in_thread, label="thread", runner=ThreadTaskRun),
        Action(functools.partial(time.sleep, 600), label="process", runner=MultiprocessTaskRun),
        Action(functools.partial(task(time.sleep, runner=MultiprocessTaskRun), 600), label="partial"),
    ]
    after = Action(give())
    after.requires(actions[0])
    engine = Engine(*actions, after)
    assert go(engine, timeout=0.3) is False
    assert [str(action.exception()) for action in actions if not isinstance(action.exception(), StoppedFailure)] == []
    assert not after.is_running()
    assert isinstance(after.exception(), (StoppedFailure, DependencyFailure))


def test_after_a_time_out_what_can_goes_on(go):
    """A second call runs what was stopped, if it can run again, and what never began; what had ended is kept."""
    told = []
    patience = [asyncio.Event()]

    async def wait():
        await patience[0].wait()
        return "at last"

    first, slow, after = Recorded(told, "first"), Recorded(told, "slow", wait), Action(give(3))
    chain_of(first, slow, after)
    engine = Engine(first, slow, after)
    for _ in range(100):  # a busy machine may need more than one go to come as far as `slow`
        assert go(engine, timeout=0.05) is False
        if ("cancelled", "slow") in told:
            break
    patience[0] = asyncio.Event()
    patience[0].set()
    assert go(engine) is True, engine.why()
    assert (slow.result(), after.result()) == ("at last", 3)
    assert told.count(("run", "first")) == 1 + told.count(("cancelled", "first"))


def test_a_coroutine_that_began_can_not_begin_again(go):
    """A second call is refused before anything starts, and says that the function is what can run again."""
    begun = threading.Event()

    async def wait():
        begun.set()
        await for_ever()

    told = []
    other = Recorded(told, "other", for_ever)
    job = Action(wait(), label="job")
    outer = Engine(Engine(job), other)
    thread = threading.Thread(target=lambda: begun.wait(PATIENCE) and outer.stop())
    thread.start()
    assert go(outer) is False
    thread.join()
    told.clear()
    with pytest.raises(
        UsageError, match=r"job can't run again: its coroutine has begun.*Action\(f\) for Action\(f\(\)\)"
    ):
        go(outer)
    assert told == []


def test_stop_from_another_thread(go):
    """`stop()` ends everything; `orchestrate` returns False and says that it was that."""
    begun = threading.Event()

    async def work():
        begun.set()
        await for_ever()

    engine = Engine(Action(work))
    thread = threading.Thread(target=lambda: begun.wait(PATIENCE) and engine.stop())
    thread.start()
    assert go(engine) is False
    thread.join()
    assert "stop() was called" in engine.why()
    engine.stop()  # when nothing is at work it does nothing


@pytest.mark.parametrize("when", ["never", "stopped", "requirement failed", "cycle"])
def test_a_coroutine_that_never_ran_is_closed(when):
    """Python doesn't warn of it, whatever becomes of its action."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = Action(for_ever if when == "stopped" else fail)
        action = Action(give())
        action.requires(before)
        engine = Engine(action, before)
        if when == "cycle":
            before.requires(action)
        elif when == "stopped":
            assert not engine.orchestrate(timeout=0.01)
        elif when == "requirement failed":
            assert not engine.orchestrate()
        del action, before, engine
        gc.collect()
    assert [str(one.message) for one in caught] == []


def test_stopped_at_any_moment():
    """However soon an engine is stopped, no coroutine is left that was never awaited, and none goes on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(30):
            told = []
            engine = Engine(*(Recorded(told, k, for_ever) for k in range(5)), *(Action(for_ever()) for _ in range(5)))
            assert not engine.orchestrate(timeout=n / 10_000)
            assert told.count(("run", 0)) == told.count(("cancelled", 0))
            del engine
        gc.collect()
    assert [str(one.message) for one in caught] == []


# ---------------------------------------------------------------- nesting


def test_nesting(go):
    """An engine is an action: it requires and is required, and its actions have run when it has."""
    told = []
    a, b, c = Recorded(told, "a"), Recorded(told, "b"), Recorded(told, "c")
    inner = Engine(b, label="inner")
    inner.requires(a)
    c.requires(inner)
    outer = Engine(c, inner, a)
    assert go(outer), outer.why()
    assert [name for _, name in told] == ["a", "b", "c"]
    assert inner.result() is True
    assert str(inner) == "<Engine `inner' finished -> True - [requires [a]] [allows [c]]>"
    assert go(outer)
    assert len(told) == 3


def test_a_nested_failure(go):
    """A nested engine fails as an action does, with its own reason; what requires it is skipped."""
    told = []
    inner = Engine(Action(fail, label="link"), Recorded(told, "beside"), label="inner")
    after = Recorded(told, "after")
    after.requires(inner)
    outer = Engine(inner, after)
    assert go(outer) is False
    assert told == [("run", "beside")]
    assert "link" in str(inner.exception())
    assert "ValueError: broken" in outer.why()
    assert "inner" in outer.why()


def test_a_critical_nested_engine(go):
    """When it fails, everything in the outer one is stopped."""
    told = []
    outer = Engine(Engine(Action(fail), critical=True), Recorded(told, "other", for_ever))
    assert go(outer) is False
    assert told in ([], [("run", "other"), ("cancelled", "other")])


def test_a_forever_nested_engine(go):
    """One made of what runs forever ends when the others in the outer one have ended."""
    told = []
    both = asyncio.Event()

    async def watch():
        if len(told) == 2:
            both.set()
        await for_ever()

    inner = Engine(*(Recorded(told, n, watch, forever=True) for n in range(2)), forever=True)
    assert go(Engine(inner, Action(both.wait))) is True
    assert sorted(told) == [(how, n) for how in ("cancelled", "run") for n in range(2)]
    assert not inner.is_running()


def test_deep_nesting(go):
    """Thirty engines in each other."""
    told = []
    engine = Engine(Closing(told, "core"))
    for _ in range(30):
        engine = Engine(engine)
    assert go(engine)
    assert told == [("run", "core")]
    assert engine.shutdown()
    assert told == [("run", "core"), ("shut", "core")]


def test_an_engine_within_a_coroutine_of_another():
    """A coroutine may await an engine's `co_orchestrate`; blocking there, where its own coroutines would run, is refused."""
    inner = Engine(Action(give(3)))

    async def awaits():
        return await inner.co_orchestrate()

    async def blocks():
        return Engine(Action(give)).orchestrate()

    async def shuts():
        return Engine(Action(give)).shutdown()

    good, *bad = Action(awaits), Action(blocks), Action(shuts)
    assert not Engine(good, *bad).orchestrate()
    assert good.result() is True
    assert "await co_orchestrate()" in str(bad[0].exception())
    assert "await co_shutdown()" in str(bad[1].exception())


# ---------------------------------------------------------------- misuse


def test_empty():
    """An engine without actions has nothing to do and succeeds."""
    for mode in MODES:
        engine = Engine()
        assert drive(mode, engine, 1) is True
        assert engine.actions == ()
        assert engine.shutdown() is True


@pytest.mark.parametrize("one", [give, 3, None, [Action(give)]])
def test_engines_and_requirements_take_actions(one):
    """Anything else is refused, and where it could be made an action the message says how."""
    hint = r"write Action\(" if one is give else "an action is expected, or a Sequence of them, not"
    with pytest.raises(UsageError, match=hint):
        Engine(one)
    with pytest.raises(UsageError, match=hint):
        Action(give).requires(one)


def test_an_action_given_twice_is_one(go):
    """A Sequence and one of its actions may both be given."""
    told = []
    sequence = Sequence(Recorded(told, 1), Recorded(told, 2))
    assert go(Engine(sequence, *sequence.actions))
    assert told == [("run", 1), ("run", 2)]


def test_cycles(go):
    """They are named by their labels before anything starts, in nested engines too."""
    told = []
    a, b = Recorded(told, "a"), Recorded(told, "b")
    chain_of(a, b, a)
    for engine in (Engine(a, b), Engine(Recorded(told, "c"), Engine(a, b))):
        with pytest.raises(CyclicWorkflowError, match=r"a cycle: (a -> b -> a|b -> a -> b)"):
            go(engine)
    with pytest.raises(UsageError, match="a can't require itself"):
        a.requires(a)
    assert told == []


def test_an_action_in_two_engines(go):
    """The first that runs it has it; the other is refused before anything starts, until it has actions of its own."""
    told = []
    shared = Recorded(told, "shared")
    never, first, second = Engine(shared), Engine(shared), Engine(shared, Recorded(told, "other"))
    assert go(first)
    with pytest.raises(UsageError, match=r"shared is in two engines.*: .* make another Action"):
        go(second)
    with pytest.raises(UsageError, match="shared"):
        go(Engine(second))
    assert told == [("run", "shared")]
    assert shared.result() is None
    assert not never.is_done()


def test_an_action_in_two_engines_at_once():
    """While one is at work on it, another is refused."""
    begun, release = threading.Event(), threading.Event()
    shared = Action(lambda: (begun.set(), release.wait(PATIENCE)), label="shared")
    one, two = Engine(shared), Engine(shared)
    thread = threading.Thread(target=one.orchestrate)
    thread.start()
    begun.wait(PATIENCE)
    with pytest.raises(UsageError, match="shared is in two engines"):
        two.orchestrate()
    with pytest.raises(UsageError, match="is at work, or being shut down: wait until"):
        one.orchestrate()
    with pytest.raises(UsageError, match="is at work"):
        one.shutdown()
    release.set()
    thread.join()
    assert one.result() is True


def test_an_action_in_an_engine_and_in_a_nested_one(go):
    """An action that would be run by both is refused."""
    shared = Action(give, label="shared")
    with pytest.raises(UsageError, match="shared is in two engines"):
        go(Engine(shared, Engine(shared)))
    with pytest.raises(UsageError, match="shared is in two engines"):
        go(Engine(Engine(shared), Engine(shared)))


def test_an_engine_that_could_not_begin_has_no_claim(go):
    """After a refusal the actions are free: the mended engine runs them."""
    watch = Action(for_ever, forever=True)
    with pytest.raises(UsageError):
        go(Engine(watch))
    assert go(Engine(watch, Action(give)))


def test_a_coroutine_in_two_actions(go):
    """Only one of them can have it; the other one fails, and nothing hangs."""
    coroutine = give(1)
    actions = [Action(coroutine), Action(coroutine)]
    assert go(Engine(*actions)) is False
    assert sorted(isinstance(action.exception(), RuntimeError) for action in actions) == [False, True]


def test_actions_that_can_not_be_told_apart():
    """A class with __eq__ and no __hash__ is refused with the cure."""

    @dataclass
    class Equal(AbstractAction):
        host: str

    with pytest.raises(UsageError, match="eq=False"):
        Engine(Equal("a"))
    with pytest.raises(UsageError, match="eq=False"):
        Equal("a").requires(Action(give))


def test_a_bad_time_out():
    """It is refused before anything starts."""
    with pytest.raises(UsageError, match="timeout"):
        Engine(Action(give)).orchestrate(timeout=-1)


# ---------------------------------------------------------------- shutdown


def test_shutdown_order(go):
    """One after another, last started first; those that never started come at the end."""
    told = []
    inside = []

    class Slow(Closing):
        async def coshutdown(self):
            inside.append(len(inside))
            assert len(inside) == 1
            await asyncio.sleep(0)
            inside.pop()
            await super().coshutdown()

    a, b, c, d, e = (Slow(told, name, fail if name == "c" else give) for name in "abcde")
    chain_of(a, b, c, d, e)
    engine = Engine(e, d, c, b, a)
    assert not go(engine)
    assert engine.shutdown()
    assert [who for what, who in told if what == "shut"] == ["c", "b", "a", "d", "e"]


def test_shutdown_of_tasks_and_of_what_has_nothing_to_shut_down(go):
    """A Task's start counts for the order as a coroutine's does; actions without a hook are passed over."""
    told = []

    class Closed(Action):
        async def coshutdown(self):
            told.append(self.label)

    one, two = Closed(fetch, label="one"), Closed(fetch, label="two", runner=SequentialTaskRun)
    one.requires(two)
    engine = Engine(one, two, Action(give))
    assert go(engine)
    assert engine.shutdown()
    assert told == ["one", "two"]


def test_shutdown_before_anything_ran():
    """Each hook is called once, also if nothing ran."""
    told = []
    engine = Engine(Closing(told, "a"), Closing(told, "b"))
    assert engine.shutdown()
    assert engine.shutdown()
    assert told == [("shut", "b"), ("shut", "a")]


def test_shutdown_happens_on_the_loop_where_the_actions_ran():
    """A connection is closed on the loop on which it was opened: that one stays, without work, until shutdown."""

    class Connected(AbstractAction):
        async def corun(self):
            self.opened = asyncio.get_running_loop()

        async def coshutdown(self):
            self.closed = asyncio.get_running_loop()

    one, two = Connected(), Connected()
    engine = Engine(one, Engine(two))
    assert engine.orchestrate()
    wait_until_idle_loops_have_ended()
    assert one.opened.is_running()
    assert engine.shutdown()
    assert one.opened is one.closed is two.opened is two.closed
    other = Connected()
    dropped = Engine(other)
    assert dropped.orchestrate()
    loop = other.opened
    del other, dropped
    deadline = time.monotonic() + PATIENCE
    while loop.is_running():  # held for nobody, it ends
        gc.collect()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def wait_until_idle_loops_have_ended():
    """Give woflo's own loop several times the time after which it ends without work."""
    from woflo.runners import asynchronous

    time.sleep(4 * asynchronous._IDLE_SECONDS)


def test_shutdown_in_a_notebook():
    """Blocking, or awaited, under a running loop: the hooks run where the actions ran."""
    loops = []

    class Connected(AbstractAction):
        async def corun(self):
            loops.append(asyncio.get_running_loop())

        async def coshutdown(self):
            loops.append(asyncio.get_running_loop())

    async def kernel():
        for awaited in (False, True):
            engine = Engine(Connected())
            assert engine.orchestrate()
            assert await engine.co_shutdown() if awaited else engine.shutdown()
        assert asyncio.get_running_loop() not in loops

    asyncio.run(kernel())
    assert len(set(loops)) == 1


def test_shutdown_in_an_async_program():
    """`await co_shutdown()` runs the hooks on the program's loop; blocking there is refused, elsewhere it works."""
    loops = []

    class Connected(AbstractAction):
        async def corun(self):
            pass

        async def coshutdown(self):
            loops.append(asyncio.get_running_loop())

    async def main():
        engine = Engine(Connected())
        await engine.co_orchestrate()
        with pytest.raises(UsageError, match="await co_shutdown"):
            engine.shutdown()
        assert await engine.co_shutdown()
        engine = Engine(Connected())
        await engine.co_orchestrate()
        assert await asyncio.to_thread(engine.shutdown)
        assert set(loops) == {asyncio.get_running_loop()}
        engine = Engine(Connected())
        await engine.co_orchestrate()
        return engine

    engine = asyncio.run(main())
    assert engine.shutdown()  # the loop is gone: on another one
    assert len(loops) == 3
    assert loops[2] is not loops[0]


@pytest.mark.parametrize("how", ["hangs", "swallows", "raises SystemExit", "cancels itself", "is plain"])
def test_shutdown_is_bounded(how, monkeypatch):
    """A hook that hangs, swallows its cancellation, or raises something odd doesn't keep the others from being called."""
    monkeypatch.setattr(_attempt, "GRACE", 0.05)
    told = []
    release = threading.Event()

    class Odd(Closing):
        async def coshutdown(self):
            if how == "raises SystemExit":
                raise SystemExit(3)
            if how == "cancels itself":
                raise asyncio.CancelledError
            while not release.is_set():
                try:
                    await asyncio.sleep(0.005)
                except asyncio.CancelledError:
                    if how == "hangs":
                        raise

    class Plain(Closing):
        def coshutdown(self):
            told.append(("shut", "plain"))

    kind = Plain if how == "is plain" else Odd
    engine = Engine(Closing(told, "a"), Engine(kind(told, "odd"), label="inner"), Closing(told, "b"))
    assert engine.orchestrate()
    assert engine.shutdown(timeout=0.05 if how in {"hangs", "swallows"} else PATIENCE) is (how == "is plain")
    assert {"a", "b"} <= {who for what, who in told if what == "shut"}
    if how != "is plain":
        assert "shutdown: 1 of 3 failed (odd): " in engine.why()
    release.set()


def test_shutdown_adds_to_why():
    """After a failed run and a failed shutdown `why` tells both."""

    class Bad(Closing):
        async def coshutdown(self):
            raise OSError("gone")

    engine = Engine(Bad([], "bad", fail), Bad([], "worse"))
    assert not engine.orchestrate()
    assert not engine.shutdown()
    assert "ValueError: broken" in engine.why()
    assert re.search(r"; shutdown: 2 of 2 failed \(worse, bad\): worse-\d+: OSError: gone$", engine.why())


def test_co_shutdown_cancelled():
    """The hook under way is cancelled, the others stay to be called."""
    told = []
    begun = asyncio.Event()

    class Slow(Closing):
        async def coshutdown(self):
            told.append(("shut", self.label))
            begun.set()
            try:
                await for_ever()
            finally:
                told.append(("cancelled", self.label))

    engine = Engine(Closing(told, "a"), Slow(told, "b"))

    async def main():
        shutting = asyncio.create_task(engine.co_shutdown())
        await begun.wait()
        with pytest.raises(UsageError, match="being shut down: wait until"):
            await engine.co_orchestrate()
        shutting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shutting
        assert await engine.co_shutdown()

    asyncio.run(main())
    assert told == [("shut", "b"), ("cancelled", "b"), ("shut", "a")]


# ---------------------------------------------------------------- observers, threads, programs


def test_observers(go):
    """They hear of each action's start and end, in order; those of a nested engine are told by that one's own."""
    outer_seen, inner_seen = [], []
    one, two = Action(give(1), label="one"), Action(fail, label="two")
    inner = Engine(two, label="inner", observers=[inner_seen.append])
    inner.requires(one)
    skipped = Action(give())
    skipped.requires(inner)
    assert not go(Engine(one, inner, skipped, observers=[outer_seen.append]))
    assert [(type(event), event.target) for event in outer_seen] == [
        (NodeStarted, one),
        (NodeEnded, one),
        (NodeStarted, inner),
        (NodeEnded, inner),
        (NodeEnded, skipped),
    ]
    assert [(type(event), event.name) for event in inner_seen] == [(NodeStarted, "two"), (NodeEnded, "two")]
    assert isinstance(inner_seen[1].failure, TaskFailure)


def test_an_observer_that_raises_changes_nothing(go):
    """It is dropped, the actions don't notice."""
    calls = []

    def broken(event):
        calls.append(event)
        raise RuntimeError("bad monitor")

    assert go(Engine(Action(give), Action(give), observers=[broken]))
    assert len(calls) == 1


def test_engines_in_threads():
    """Many engines at work at once, each in a thread of its own, don't disturb each other."""
    answers = []

    def work(n):
        steps = Sequence(*(Action(give(k)) for k in range(10)), Action(fail) if n % 2 else Action(lambda: n))
        answers.append((n, Engine(steps).orchestrate(), [one.result() for one in steps.actions[:10]]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [(n, n % 2 == 0, list(range(10))) for n in range(8)]


def test_one_coroutine_waits_for_another(go):
    """Actions of one engine share a loop: asyncio's own means work between them."""

    async def main():
        queue = asyncio.Queue()

        async def produce():
            for n in range(5):
                await queue.put(n)

        async def consume():
            return [await queue.get() for _ in range(5)]

        return Action(consume()), Action(produce())

    consumer, producer = asyncio.run(main())
    assert go(Engine(consumer, producer))
    assert consumer.result() == [0, 1, 2, 3, 4]


def test_an_async_program_goes_on_meanwhile():
    """`co_orchestrate` doesn't block the loop, whatever the actions are made of."""
    release = threading.Event()

    async def main():
        driving = asyncio.create_task(Engine(Action(lambda: release.wait(PATIENCE)), Action(fetch)).co_orchestrate())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not driving.done()
        release.set()
        return await driving

    assert asyncio.run(main()) is True


def script(code, *, interrupt=False):
    """Run a program; with `interrupt`, it gets Ctrl-C when it has written its first line."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("WOFLO")},
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler) if interrupt else None,
    ) as process:
        try:
            first = process.stdout.readline() if interrupt else ""
            if interrupt:
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return process.returncode, first + out, err


INTERRUPTED = """
import asyncio, time, functools
from woflo.action import Action, Engine
from woflo.runners import MultiprocessTaskRun

async def work():
    print("begun", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled", flush=True)

run = asyncio.new_event_loop().run_until_complete  # as a notebook's: without asyncio.run's handler of Ctrl-C

async def beside():
    async with asyncio.TaskGroup() as group:
        group.create_task(kernel())
engine = Engine(Engine(Action(work())), Action(functools.partial(time.sleep, 600), runner=MultiprocessTaskRun))
async def kernel():
    return engine.orchestrate()
async def program():
    return await engine.co_orchestrate()
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", [action.is_running() for action in engine.actions], flush=True)
    raise
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals need POSIX")
@pytest.mark.parametrize(
    "call",
    [
        "engine.orchestrate()",
        "run(kernel())",
        "asyncio.run(kernel())",
        "asyncio.run(beside())",
        "asyncio.run(program())",
    ],
)
def test_ctrl_c(call):
    """Ctrl-C ends all actions, nested ones and processes too, then reaches the caller; the shell sees it."""
    code, out, err = script(INTERRUPTED.replace("{call}", call), interrupt=True)
    assert out.splitlines() == ["begun", "cancelled", "interrupted [False, False]"], err
    assert code == -signal.SIGINT
    assert err.count("Traceback") >= 1
    assert "never awaited" not in err


def test_a_program_that_ends_without_shutdown():
    """A loop that is kept for a shutdown that never comes doesn't keep the program, nor says anything."""
    code, out, err = script(
        """
        from woflo.action import AbstractAction, Action, Engine

        async def never():
            pass

        class Connected(AbstractAction):
            async def corun(self):
                return 1
            async def coshutdown(self):
                print("not called")

        engine = Engine(Connected())
        print(engine.orchestrate())
        left = Action(never())
        """
    )
    assert (code, out, err) == (0, "True\n", "")


def test_import_is_light():
    """Importing the module brings neither asyncio nor what few need."""
    code, out, _ = script(
        "import sys, woflo.action; print({'asyncio', 'inspect', 'loguru', 'logging', 'multiprocess'} & set(sys.modules))"
    )
    assert (code, out) == (0, "set()\n")


def test_examples():
    """What the docstrings show is so."""
    assert doctest.testmod(woflo.action).failed == 0


def test_public_classes_are_documented():
    """Each says in one line of at most 80 characters what it is."""
    for name in woflo.action.__all__:
        first = getattr(woflo.action, name).__doc__.split("\n", 1)[0]
        assert 0 < len(first) <= 80, first


def test_runs_of_actions_are_async_runs():
    """A coroutine is carried out as a run: `current_run` names it, by the label."""

    async def who():
        run = woflo.current_run()
        return run.task.name, isinstance(run, AsyncTaskRun)

    action = Action(who, label="mine")
    assert Engine(action).orchestrate()
    assert action.result() == ("mine", True)
