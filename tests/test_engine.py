"""Engine: each node that is wanted runs once, in order, wherever its runner puts it; and it always comes to an end."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from fractions import Fraction
from functools import partial
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import woflo
from woflo import (
    CyclicWorkflowError,
    DependencyFailure,
    Graph,
    Node,
    Ok,
    StoppedFailure,
    TaskFailure,
    TimeoutFailure,
    UsageError,
    WorkerFailure,
    _drive,
    events,
    task,
)
from woflo.engine import Engine
from woflo.runners import AsyncTaskRun, MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun, _waiters
from woflo.testing import PATIENCE, Ledger

RUNNERS = [SequentialTaskRun, ThreadTaskRun, AsyncTaskRun, MultiprocessTaskRun]


def one(*values):
    return 1 + sum(values)


async def co_one(*values):
    await asyncio.sleep(0)
    return 1 + sum(values)


def fail(*_):
    raise ValueError("no")


async def until(condition):
    """Let the loop go on until something has happened."""
    while not condition():  # noqa: ASYNC110 - what is waited for is noted by the nodes under test
        await asyncio.sleep(0.001)


class Box:
    """A value that can be referred to weakly."""


# ---------------------------------------------------------------------- the whole, against plain recomputation


@st.composite
def graphs(draw):
    """Nodes 0..n-1, each needing earlier ones; told in any order, some of them failing."""
    size = draw(st.integers(1, 12))
    rows = [draw(st.lists(st.integers(0, i - 1), max_size=3)) if i else [] for i in range(size)]
    failing = draw(st.sets(st.integers(0, size - 1), max_size=2))
    order = draw(st.permutations(range(size)))
    wanted = draw(st.one_of(st.just([]), st.lists(st.integers(0, size - 1), min_size=1, max_size=3, unique=True)))
    return rows, failing, order, wanted


def expected(rows, failing, wanted):
    """What each wanted target and all that it needs ends in: a number, "failed" or "skipped"."""
    known = {}
    for i, row in enumerate(rows):
        if any(known[need] in {"failed", "skipped"} for need in row):
            known[i] = "skipped"
        else:
            known[i] = "failed" if i in failing else 1 + sum(known[need] for need in row)
    needed, todo = set(), list(wanted or range(len(rows)))
    while todo:
        i = todo.pop()
        if i not in needed:
            needed.add(i)
            todo.extend(rows[i])
    return {i: known[i] for i in needed}


def check(rows, failing, order, wanted, wrap, drive):
    """Invariants 2, 3 and 12: each needed node starts once, ends in one result, and sees the values it requires."""
    ran = []

    def body(i):
        def call(*values):
            ran.append(i)
            if i in failing:
                raise ValueError(i)
            return 1 + sum(values)

        return call

    ended = []

    def note(event):
        if isinstance(event, events.NodeEnded):
            ended.append(event.target)

    engine = Engine([Node(i, wrap(body(i)), rows[i]) for i in order], observers=[note])
    oracle = expected(rows, failing, wanted)
    assert drive(engine, wanted) is all(isinstance(value, int) for value in oracle.values())
    assert sorted(ran) == sorted(i for i, value in oracle.items() if value != "skipped")
    assert sorted(ended) == sorted(oracle)
    for i, value in oracle.items():
        assert engine.status(i) == (value if isinstance(value, str) else "succeeded")
    for i in wanted:
        result = engine.outcome(i)
        assert result == Ok(oracle[i]) if isinstance(oracle[i], int) else not result
    assert {i for i in oracle if oracle[i] in {"failed", "skipped"}} == set(engine.failures)


def blocking(engine, wanted):
    return engine.orchestrate(*wanted, timeout=PATIENCE)


def on_a_loop(engine, wanted):
    return asyncio.run(engine.co_orchestrate(*wanted, timeout=PATIENCE))


@settings(max_examples=400, deadline=None)
@given(graphs())
def test_in_process_is_plain_recomputation(graph):
    """Invariants 2, 3, 12: whatever the graph, calls in place give what plain recomputation gives, each once."""
    check(*graph, wrap=lambda fn: fn, drive=blocking)


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_threads_are_plain_recomputation(graph):
    """Invariants 2, 3, 12 hold on threads."""
    check(*graph, wrap=task(runner=ThreadTaskRun), drive=blocking)


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_a_loop_is_plain_recomputation(graph):
    """Invariants 2, 3, 12 hold for coroutines, driven by a loop."""

    def wrap(fn):
        async def call(*values):
            await asyncio.sleep(0)
            return fn(*values)

        return call

    check(*graph, wrap=wrap, drive=on_a_loop)


@settings(max_examples=30, deadline=None)
@given(graphs())
def test_coroutines_without_a_loop(graph):
    """Invariants 2, 3, 12 hold for coroutines under a blocking drive, which lends them a loop."""

    def wrap(fn):
        async def call(*values):
            await asyncio.sleep(0)
            return fn(*values)

        return call

    check(*graph, wrap=wrap, drive=blocking)


@pytest.mark.parametrize("drive", [blocking, on_a_loop])
@pytest.mark.parametrize("runner", RUNNERS)
def test_a_diamond_on_every_runner(runner, drive):
    """Values travel along the edges, whatever the runner, under both drivers."""
    add = task(runner=runner)(one)
    engine = Engine([Node("d", add, ["b", "c"]), Node("b", add, ["a"]), Node("c", add, ["a"]), Node("a", add)])
    assert drive(engine, [])
    assert engine.value("d") == 5


def test_kinds_mix():
    """One graph holds tasks of all runners, plain functions, coroutine functions and nodes without a call."""
    nodes = [Node(runner.__name__, task(runner=runner)(one)) for runner in RUNNERS]
    nodes += [Node("plain", one), Node("co", co_one), Node("nothing", None)]
    nodes.append(Node("all", lambda *values: values, [node.target for node in nodes]))
    engine = Engine(nodes)
    assert engine.orchestrate(timeout=PATIENCE)
    assert engine.value("all") == (1, 1, 1, 1, 1, 1, None)
    engine.reset()
    assert asyncio.run(engine.co_orchestrate(timeout=PATIENCE))
    assert engine.value("all") == (1, 1, 1, 1, 1, 1, None)


@pytest.mark.parametrize("threads", [0, 150])
def test_processes_behind_threads_are_waited_for(threads, monkeypatch):
    """A process that a thread's end has begun is collected as soon as it ends, however many threads run beside it."""
    monkeypatch.setattr(_waiters, "RECHECK", 10 * PATIENCE)  # nothing is found by looking again now and then
    begun = threading.Event()

    @task(runner=ThreadTaskRun.using(max_running=200))
    def ever():
        begun.set()
        while not woflo.stop_requested():
            time.sleep(0.01)

    @task(runner=ThreadTaskRun)
    def first():
        time.sleep(0.05)  # until the driver is asleep
        assert not threads or begun.wait(PATIENCE)

    add = task(one)
    nodes = [Node(("thread", i), ever, forever=True) for i in range(threads)]
    nodes += [Node("a", first), Node("b", add, after=["a"]), Node("c", add, ["b"])]
    engine = Engine(nodes)
    guard = threading.Timer(PATIENCE, engine.stop)
    guard.start()
    assert engine.orchestrate()
    assert guard.is_alive()
    guard.cancel()
    guard.join()


@pytest.mark.parametrize("first", [ThreadTaskRun, MultiprocessTaskRun])
def test_processes_go_on_beside_a_call_in_place(first):
    """While the driver makes a call, what processes end in is noticed, and what became ready begins."""
    ended = threading.Event()

    def note(event):
        if isinstance(event, events.NodeEnded) and event.target == "d":
            ended.set()

    add = task(one)
    nodes = [Node("a", add.options(runner=first)), Node("b", add, ["a"]), Node("c", add, ["b"]), Node("d", add, ["c"])]
    for place in ("before", "after"):
        ended.clear()
        long = Node("long", lambda *_: ended.wait(PATIENCE), ["a"] if place == "after" else [])
        engine = Engine([*nodes, long, Node("ask", lambda value: value, ["long"])], observers=[note])
        assert engine.orchestrate()
        assert engine.value("ask") is True


class _Called:
    """A callable object that is a coroutine function, as far as anybody can tell by calling it only."""

    async def __call__(self):
        return await co_one(2)


@pytest.mark.parametrize("drive", [blocking, on_a_loop])
def test_a_call_that_returns_a_run_or_a_coroutine_is_followed(drive):
    """A function that starts a run itself, or makes a coroutine, stands for that; so do partials and callable objects."""
    add = task(runner=ThreadTaskRun)(one)
    calls = [lambda: add(4), functools.partial(add, 5), lambda: co_one(6), functools.partial(co_one, 7), _Called()]
    engine = Engine([*(Node(at, call) for at, call in enumerate(calls)), Node("b", lambda *values: values, range(5))])
    assert drive(engine, [])
    assert engine.value("b") == (5, 6, 7, 8, 3)


@pytest.mark.parametrize("drive", [blocking, on_a_loop])
def test_what_a_call_returned_fails_or_is_stopped_in_its_place(drive):
    """The node's failure is that of the run or coroutine; a time-out ends it."""

    async def co_fail():
        raise ValueError("no")

    @task(runner=ThreadTaskRun)
    def ever():
        while not woflo.stop_requested():
            time.sleep(0.005)

    engine = Engine([Node("a", functools.partial(co_fail)), Node("b", functools.partial(ever))])
    if drive is blocking:
        assert not engine.orchestrate(timeout=0.2)
    else:
        assert not asyncio.run(engine.co_orchestrate(timeout=0.2))
    assert type(engine.outcome("a").__cause__) is ValueError
    assert isinstance(engine.outcome("b"), StoppedFailure)


@pytest.mark.parametrize("shape", ["chain", "fan in", "fan out"])
@pytest.mark.parametrize("kind", ["plain", "thread", "unordered"])
def test_deep_and_wide_under_a_small_stack(shape, kind):
    """100,000 nodes in a chain or a fan work with 512 KiB of stack: every walk is a loop."""
    code = f"""
        from woflo import Graph, Node, task
        from woflo.engine import Engine
        from woflo.runners import ThreadTaskRun
        def f(*values): return 1
        call = task(runner=ThreadTaskRun)(f) if {kind!r} == "thread" else f
        n = 100_000
        if {shape!r} == "chain":
            nodes = [Node(i, call, [i - 1] if i else []) for i in range(n)]
        elif {shape!r} == "fan in":
            nodes = [*(Node(i, call) for i in range(n - 1)), Node(n - 1, call, range(n - 1))]
        else:
            nodes = [Node(0, call), *(Node(i, call, [0]) for i in range(1, n))]
        if {kind!r} == "unordered":
            nodes.reverse()
        engine = Engine(nodes)
        assert engine.orchestrate(), engine.why()
        assert engine.value(n - 1) == 1
        print("fine")
    """
    command = ["bash", "-c", 'ulimit -s 512; exec "$0" -c "$1"', sys.executable, textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
    assert done.stdout == "fine\n", done.stderr


def test_a_failure_at_the_root_of_a_long_chain():
    """A failure travels down 20,000 nodes without recursion, and its root cause is known at the end."""
    nodes = [Node(0, fail), *(Node(i, one, [i - 1]) for i in range(1, 20_000))]
    engine = Engine(nodes)
    assert not engine.orchestrate()
    last = engine.outcome(19_999)
    assert isinstance(last, DependencyFailure)
    assert [type(root.__cause__) for root in last.root_causes()] == [ValueError]


# ---------------------------------------------------------------------- failures


def test_a_failing_leaf_under_a_diamond_ran_once(tmp_path):
    """Its dependants end as DependencyFailure with the cause; what doesn't need it is finished."""
    ledger = Ledger(tmp_path / "ledger")

    @task
    def leaf():
        ledger.add("leaf")
        raise ValueError("no")

    engine = Engine(
        [
            Node("leaf", leaf),
            Node("a", one, ["leaf"]),
            Node("b", one, ["leaf"]),
            Node("top", one, ["a", "b"]),
            Node("other", one),
        ]
    )
    assert not engine.orchestrate(timeout=PATIENCE)
    assert ledger.lines() == ["leaf"]
    assert engine.value("other") == 1
    assert set(engine.outcome("top").dependencies) == {"a", "b"}
    (root,) = engine.outcome("top").root_causes()
    assert isinstance(root, TaskFailure)
    assert "4 of 5 failed (leaf): " in engine.why()


def test_every_failure_of_a_node_is_told():
    """A node that needs two that failed names both."""
    engine = Engine([Node("a", fail), Node("b", fail), Node("c", one, ["a"], after=["b"])])
    assert not engine.orchestrate()
    assert set(engine.outcome("c").dependencies) == {"a", "b"}


def test_stop_on_failure_stops_the_others():
    """With stop_on_failure one failure ends what runs and what waits, and `why` names it."""

    async def for_ever():
        await asyncio.Event().wait()

    async def fail_soon():
        await asyncio.sleep(0)
        raise ValueError("no")

    engine = Engine([Node("ever", for_ever), Node("bad", fail_soon), Node("next", one, ["ever"])], stop_on_failure=True)
    assert not engine.orchestrate(timeout=PATIENCE)
    assert engine.status("ever") == "stopped"
    assert engine.why().startswith("bad failed: ")
    assert not engine.outcome("next")


def test_a_critical_node_stops_the_others_and_another_does_not():
    """Only the failure of a critical node ends the rest."""
    calm = Engine([Node("bad", fail), Node("good", one)])
    assert not calm.orchestrate()
    assert calm.status("good") == "succeeded"
    strict = Engine([Node("bad", fail, critical=True), Node("wait", one), Node("next", one, ["wait"])])
    assert not strict.orchestrate()
    assert strict.status("next") == "stopped"


@pytest.mark.parametrize("strict", ["engine", "node"])
def test_what_could_start_does_not_after_the_failure_that_stops_all(strict):
    """Of several that are ready, those behind the one that fails never begin."""
    ran = []
    nodes = [Node("a", lambda: ran.append("a")), Node("bad", fail, critical=strict == "node")]
    nodes += [Node(place, lambda: ran.append("later")) for place in range(3)]
    engine = Engine(nodes, stop_on_failure=strict == "engine")
    assert not engine.orchestrate()
    assert ran == ["a"]
    assert {engine.status(place) for place in range(3)} == {"stopped"}


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
@pytest.mark.parametrize("kind", ["plain", "thread", "coroutine", "fork"])
def test_base_exceptions_of_a_node_are_its_failure(error, kind):
    """Whatever a node raises, it fails and nobody else: the engine goes on and the caller isn't ended."""

    def raise_it():
        raise error

    async def co_raise_it():
        raise error

    call = {
        "plain": raise_it,
        "thread": task(runner=ThreadTaskRun)(raise_it),
        "coroutine": co_raise_it,
        "fork": task(raise_it),
    }[kind]
    engine = Engine([Node("bad", call), Node("good", one), Node("next", one, ["bad"])])
    assert not engine.orchestrate(timeout=PATIENCE)
    assert [engine.status(target) for target in ("bad", "good", "next")] == ["failed", "succeeded", "skipped"]


def test_a_worker_that_is_killed_fails_its_node_only():
    """A kill -9 is that node's WorkerFailure; a retry makes it good."""

    @task
    def killed():
        os.kill(os.getpid(), signal.SIGKILL)

    @task(retries=1)
    def once(*_):
        if woflo.current_run().attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1

    engine = Engine([Node("a", killed), Node("b", once), Node("c", one, ["b"])])
    assert not engine.orchestrate(timeout=PATIENCE)
    assert isinstance(engine.outcome("a"), WorkerFailure)
    assert engine.value("c") == 2


def test_a_task_keeps_its_own_policy():
    """Retries and time-outs of the tasks count inside of a graph."""

    @task(runner=ThreadTaskRun, retries=2)
    def flaky():
        if woflo.current_run().attempt < 3:
            raise ValueError("again")
        return woflo.current_run().attempt

    @task(timeout=0.2)
    def hangs():
        time.sleep(PATIENCE)

    engine = Engine([Node("flaky", flaky), Node("hangs", hangs)])
    assert not engine.orchestrate(timeout=PATIENCE)
    assert engine.value("flaky") == 3 if engine.status("flaky") == "succeeded" else engine.outcome("flaky")
    assert isinstance(engine.outcome("hangs"), TimeoutFailure)


# ---------------------------------------------------------------------- rejected before anything runs


def test_a_cycle_is_reported_before_anything_runs():
    """The error holds the shortest cycle; nothing has started, and the engine can be used for what is sound."""
    ran = []
    engine = Engine(
        [
            Node("x", lambda: ran.append(1)),
            Node("a", one, ["b", "x"]),
            Node("b", one, ["c"]),
            Node("c", one, ["a", "b"]),
        ]
    )
    with pytest.raises(CyclicWorkflowError) as caught:
        engine.orchestrate()
    assert caught.value.cycle in (["b", "c"], ["c", "b"])
    assert ran == []
    assert engine.orchestrate("x")
    assert ran == [1]


def test_a_cycle_is_reported_however_much_has_ended():
    """Asked for everything, an engine that has results already refuses a cycle that nothing else needs."""
    engine = Engine([Node("x", one), Node("a", one, ["b"]), Node("b", one, ["a"])])
    assert engine.orchestrate("x")
    with pytest.raises(CyclicWorkflowError):
        engine.orchestrate()


def test_bad_wishes_are_usage_errors():
    """Unknown targets (with close matches), odd windows and time-outs are refused with what to do."""
    engine = Engine([Node("temperature", one), Node("b", one, ["tempreture"])])
    with pytest.raises(UsageError, match=r"no node produces 'temprature'. Did you mean 'temperature'"):
        engine.orchestrate("temprature")
    with pytest.raises(UsageError, match="b needs 'tempreture'"):
        engine.orchestrate("b")
    with pytest.raises(UsageError, match="no node produces"):
        engine.outcome("nowhere")
    for ask in (engine.orchestrate, engine.outcome, engine.status, engine.reset):
        with pytest.raises(UsageError, match="several are several arguments"):
            ask(["temperature"])
    with pytest.raises(UsageError, match="was not run"):
        engine.outcome("temperature")
    for ask in (engine.status, engine.reset):
        with pytest.raises(UsageError, match=r"no node produces 'temprature'. Did you mean 'temperature'"):
            ask("temprature")
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(UsageError, match="window"):
            Engine([], window=bad)
    for bad in ("thread", ThreadTaskRun(task(one), (), {}, 1, None), int):
        with pytest.raises(UsageError, match="runner must be a class of TaskRun"):
            Engine([], runner=bad)
    with pytest.raises(UsageError, match=r"no node produces 'c'. What is produced: 'b'"):
        Engine([Node("b", one)], volatile=["c"])
    with pytest.raises(UsageError, match=r"volatile is a list, not 'b': write \['b'\]"):
        Engine([Node("b", one)], volatile="b")
    with pytest.raises(UsageError, match="observers is a list, not <built-in function print>"):
        Engine([], observers=print)
    with pytest.raises(UsageError, match="a graph is made of Nodes, not of str"):
        Engine({"a": Node("a", one)})
    with pytest.raises(UsageError, match="is told which targets are wanted"):
        asyncio.run(engine.co_outcomes())
    for bad in (-1, "1", True, float("nan")):
        with pytest.raises(UsageError, match="timeout"):
            engine.orchestrate(timeout=bad)


def test_an_empty_graph_is_all_well():
    """Nothing to do is done at once."""
    assert Engine([]).orchestrate()
    assert asyncio.run(Engine(Graph()).co_orchestrate())


def test_an_engine_at_work_says_so():
    """A second orchestrate while the first is under way is a UsageError, from any thread and from its own nodes."""
    begun, go = threading.Event(), threading.Event()
    inside = []

    def wait():
        begun.set()
        go.wait(PATIENCE)
        try:
            engine.orchestrate()
        except UsageError as error:
            inside.append(error)

    engine = Engine([Node("a", wait)])
    thread = threading.Thread(target=engine.orchestrate)
    thread.start()
    begun.wait(PATIENCE)
    with pytest.raises(UsageError, match="at work"):
        engine.orchestrate()
    with pytest.raises(UsageError, match="at work"):
        engine.reset()
    go.set()
    thread.join(PATIENCE)
    assert len(inside) == 1
    assert engine.status("a") == "succeeded"


def test_an_engine_is_free_in_a_forked_process():
    """The work of the parent's is the parent's: a fork in the middle of it can use the engine."""
    begun, go = threading.Event(), threading.Event()

    def wait():
        begun.set()
        return go.wait(PATIENCE)

    engine = Engine([Node("a", wait), Node("b", one)])
    thread = threading.Thread(target=engine.orchestrate, args=("a",))
    thread.start()
    begun.wait(PATIENCE)

    @task
    def use():
        return engine.orchestrate("b"), engine.value("b")

    try:
        assert use().get_result() == (True, 1)
    finally:
        go.set()
        thread.join(PATIENCE)
    assert engine.value("a") is True


def test_an_engine_is_free_when_its_loop_is_closed():
    """A loop that is closed in the middle of a drive doesn't leave the engine at work for ever."""
    open_ended = [True]

    async def wait():
        if open_ended:
            await asyncio.Event().wait()

    engine = Engine([Node("a", wait)])
    loop = asyncio.new_event_loop()
    job = loop.create_task(engine.co_orchestrate())
    loop.run_until_complete(asyncio.sleep(0.01))
    waiting = asyncio.all_tasks(loop)
    loop.close()
    open_ended.clear()
    assert engine.orchestrate(timeout=PATIENCE)
    for one_of_them in (job, *waiting):
        one_of_them._log_destroy_pending = False


def test_an_engine_that_was_left_at_the_last_moment_is_claimed():
    """Whoever finds an engine taken, and then free, takes it: two at once would spoil each other's results."""

    class Claims(dict):
        def setdefault(self, key, claim):
            found = super().setdefault(key, claim)
            if first:  # another thread's, which leaves just now
                self.pop(key)
                return first.pop()
            return found

    first = [object()]
    inside = []
    engine = Engine([Node("a", lambda: inside.append(engine._working))])
    engine._claims = Claims()
    assert engine.orchestrate()
    assert inside == [True]


# ---------------------------------------------------------------------- time, stop, for ever


@pytest.mark.parametrize("drive", ["blocking", "loop"])
@pytest.mark.parametrize("kind", ["fork", "thread", "coroutine", "stubborn"])
def test_a_time_out_stops_everything(kind, drive):
    """After `timeout` what runs is stopped, what waits never starts, and orchestrate returns False, saying why."""

    def sleep():
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            time.sleep(0.01)

    async def co_sleep():
        await asyncio.sleep(PATIENCE)

    released = threading.Event()

    async def stubborn():
        while not released.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    call = {"fork": task(sleep), "thread": task(runner=ThreadTaskRun)(sleep), "coroutine": co_sleep}.get(kind, stubborn)
    engine = Engine([Node("a", call), Node("b", one, ["a"])])
    if drive == "blocking":
        assert not engine.orchestrate(timeout=0.1)
        released.set()
    else:

        async def main():
            result = await engine.co_orchestrate(timeout=0.1)
            released.set()
            await until(lambda: len(asyncio.all_tasks()) == 1)
            return result

        assert not asyncio.run(main())
    assert isinstance(engine.outcome("a"), StoppedFailure)
    assert not engine.outcome("b")
    assert engine.why() == "it took longer than 0.1 s"


def test_a_time_out_is_kept_between_calls_in_place():
    """A call in place can't be interrupted, but none begins after the time-out."""
    ran = []

    def slow(*_):
        ran.append(1)
        time.sleep(0.2)

    engine = Engine([Node("a", slow), Node("b", slow), Node("c", slow, ["a", "b"])])
    assert not engine.orchestrate(timeout=0.1)
    assert ran == [1]
    assert engine.status("c") in {"stopped", "skipped"}


def test_no_time_at_all_starts_nothing():
    """With a time-out of 0 nothing runs."""
    ran = []
    engine = Engine([Node("a", lambda: ran.append(1)), Node("b", task(runner=ThreadTaskRun)(lambda: ran.append(2)))])
    assert not engine.orchestrate(timeout=0)
    assert ran == []
    assert engine.status("b") == "stopped"


def test_a_slow_observer_in_another_thread_does_not_hold_up_the_driver():
    """What the driver is to call in place is called while an observer still looks at what led there."""
    called = threading.Event()

    def look(event):
        if isinstance(event, events.NodeEnded) and event.target == "a":
            assert called.wait(PATIENCE)

    @task(runner=ThreadTaskRun)
    def work():
        time.sleep(0.2)  # so that the driver sleeps by then, and it is the other thread that tells

    begun = time.monotonic()
    engine = Engine([Node("a", work), Node("b", lambda _: called.set(), ["a"])], observers=[look])
    assert engine.orchestrate(timeout=2 * PATIENCE)
    assert engine.status("b") == "succeeded"
    assert time.monotonic() - begun < PATIENCE  # else the observer gave up first


def test_the_wall_clock_does_not_matter(monkeypatch):
    """A clock that jumps by a day changes no time-out."""
    monkeypatch.setattr(time, "time", lambda: 86_400.0)
    engine = Engine([Node("a", co_one), Node("b", one, ["a"])])
    assert engine.orchestrate(timeout=PATIENCE)


def test_nodes_that_run_for_ever_end_with_the_others():
    """They are stopped when the others have ended, that is no failure, and they don't count for the window."""

    async def for_ever():
        await asyncio.Event().wait()

    engine = Engine([Node("monitor", for_ever, forever=True), Node("a", co_one), Node("b", co_one, ["a"])], window=1)
    assert engine.orchestrate(timeout=PATIENCE), engine.why()
    assert engine.status("monitor") == "stopped"
    assert engine.value("b") == 2
    assert engine.why() == "all is well"


def test_nodes_that_run_for_ever_alone():
    """Alone they need a time-out, which is then no failure; and nothing may need one of them."""

    async def for_ever():
        await asyncio.Event().wait()

    engine = Engine([Node("monitor", for_ever, forever=True)])
    with pytest.raises(UsageError, match="give a timeout"):
        engine.orchestrate()
    assert engine.orchestrate(timeout=0.05)
    with pytest.raises(UsageError, match="runs forever"):
        Engine([Node("m", for_ever, forever=True), Node("a", one, ["m"])]).orchestrate()


@pytest.mark.parametrize("drive", [blocking, on_a_loop])
def test_a_function_that_runs_for_ever_keeps_nobody(drive):
    """It isn't called in place, where nothing else could go on; with a runner in place it is refused."""

    def ever():
        while not woflo.stop_requested():
            time.sleep(0.005)

    engine = Engine([Node("monitor", ever, forever=True), Node("a", one)])
    assert drive(engine, [])
    assert engine.value("a") == 1
    engine = Engine([Node("monitor", task(runner=SequentialTaskRun)(ever), forever=True), Node("a", one)])
    with pytest.raises(UsageError, match=r"monitor runs forever.*give it another runner"):
        drive(engine, [])


def test_one_that_should_run_for_ever_and_fails_is_a_failure():
    """A monitor that breaks is told; the others go on."""
    broken = threading.Event()

    def note(event):
        if isinstance(event, events.NodeEnded) and event.target == "monitor":
            broken.set()

    nodes = [Node("monitor", fail, forever=True), Node("a", lambda: broken.wait(PATIENCE))]
    engine = Engine(nodes, observers=[note])
    assert not engine.orchestrate()
    assert engine.value("a") is True
    assert "monitor" in engine.why()


def test_stop_from_another_thread():
    """`stop()` ends a drive that is under way."""
    begun = threading.Event()

    def wait():
        begun.set()
        while not woflo.stop_requested():
            time.sleep(0.005)

    engine = Engine([Node("a", task(runner=ThreadTaskRun)(wait)), Node("b", one, ["a"])])

    def stop():
        begun.wait(PATIENCE)
        engine.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    assert not engine.orchestrate(timeout=PATIENCE)
    thread.join()
    assert engine.why() == "stop() was called"
    engine.stop()  # idle: nothing


@pytest.mark.parametrize("kind", ["coroutine", "fork", "thread"])
def test_cancelling_a_drive_ends_what_runs(kind):
    """Cancelling co_orchestrate stops its nodes, and the cancellation goes on to the caller."""
    begun = threading.Event()

    async def co_wait():
        begun.set()
        await asyncio.Event().wait()

    def wait():
        begun.set()
        while True:
            time.sleep(0.005)

    call = {"coroutine": co_wait, "fork": task(wait), "thread": task(runner=ThreadTaskRun)(wait)}[kind]
    engine = Engine([Node("a", call), Node("b", one, ["a"])])

    async def main():
        job = asyncio.create_task(engine.co_orchestrate())
        await until(lambda: engine.status("a") == "running" and (kind == "fork" or begun.is_set()))
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert isinstance(engine.outcome("a"), StoppedFailure)
    assert not engine.outcome("b")


@pytest.mark.parametrize("kind", ["fork", "thread", "coroutine", "plain"])
def test_ctrl_c_ends_everything(kind):
    """Ctrl-C in orchestrate stops all nodes, goes on to the caller, and leaves nothing running."""
    code = f"""
        import asyncio, os, threading, time
        from woflo import Node, task
        from woflo.engine import Engine
        from woflo.runners import ThreadTaskRun
        def wait():
            print("in", os.getpid(), flush=True)
            for _ in range(3000): time.sleep(0.01)
        async def co_wait():
            print("in", os.getpid(), flush=True)
            await asyncio.sleep(30)
        call = dict(fork=task(wait), thread=task(runner=ThreadTaskRun)(wait), coroutine=co_wait, plain=wait)[{kind!r}]
        engine = Engine([Node("a", call), Node("b", print, ["a"])])
        try:
            engine.orchestrate()
        except KeyboardInterrupt:
            print("caught", engine.status("a"), engine.status("b") in ("stopped", "skipped"), flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        pid = int(child.stdout.readline().split()[1])
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE)
    assert out == "caught stopped True\n", err
    assert child.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# ---------------------------------------------------------------------- under a running loop, in several loops


def test_orchestrate_under_a_running_loop():
    """In a notebook, where a loop is running, orchestrate blocks and drives the nodes all the same."""

    async def main():
        engine = Engine([Node("a", co_one), Node("b", task(co_one), ["a"]), Node("c", one, ["b"])])
        return engine.orchestrate(timeout=PATIENCE), engine.value("c")

    assert asyncio.run(main()) == (True, 3)


def test_errors_under_a_running_loop_reach_the_caller():
    """What orchestrate raises, it raises there too."""

    async def main():
        with pytest.raises(CyclicWorkflowError):
            Engine([Node("a", one, ["a"])]).orchestrate()

    asyncio.run(main())


def test_the_loop_that_coroutines_need_is_not_blocked():
    """A coroutine on woflo's own loop that calls orchestrate is refused: its coroutines would wait for that very loop."""

    async def nested():
        return Engine([Node("b", co_one)]).orchestrate(timeout=PATIENCE)

    engine = Engine([Node("a", nested)])
    assert not engine.orchestrate(timeout=PATIENCE)
    with pytest.raises(UsageError, match="await co_orchestrate"):
        raise engine.outcome("a").__cause__


def test_a_failed_dependency_goes_by_its_label():
    """What people call a node stands in the failure, which so can be pickled whatever the targets are."""

    class Target:
        __reduce__ = None

    target = Target()
    engine = Engine([Node(target, fail, label="link"), Node("b", one, [target])])
    assert not engine.orchestrate()
    failure = pickle.loads(pickle.dumps(engine.outcome("b")))
    assert list(failure.dependencies) == ["link"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals need POSIX")
@pytest.mark.parametrize("main", ["main()", "in_a_group()"])
def test_ctrl_c_under_asyncio_run(main):
    """The first Ctrl-C ends an orchestrate that blocks the loop, though asyncio.run only cancels its main task."""
    code = f"""
import asyncio, signal
from woflo.engine import Engine
from woflo.graph import Node

signal.signal(signal.SIGINT, signal.default_int_handler)

async def wait():
    print("begun", flush=True)
    await asyncio.Event().wait()

async def main():
    try:
        engine.orchestrate()
    finally:
        print(engine.status("a"), engine.why(), flush=True)

async def in_a_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(main())

engine = Engine([Node("a", wait)])
try:
    asyncio.run({main})
except KeyboardInterrupt:
    print("caught")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout.readline() == "begun\n"
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=PATIENCE)
        finally:
            child.kill()
    assert (out, child.returncode) == ("stopped stop() was called\ncaught\n", 0), err


def test_coroutines_run_on_the_driving_loop():
    """Under co_orchestrate coroutines share the caller's loop; plain functions don't block it."""
    loops, threads = [], []

    async def note(*_):
        loops.append(asyncio.get_running_loop())

    def block():
        threads.append(threading.get_ident())

    async def main():
        engine = Engine([Node("a", note), Node("b", block), Node("c", note, ["b"])])
        assert await engine.co_orchestrate(timeout=PATIENCE)
        assert loops == [asyncio.get_running_loop()] * 2
        assert threads != [threading.get_ident()]

    asyncio.run(main())


def test_context_variables_reach_every_node():
    """A node sees the context variables of the caller of orchestrate, not those of the node before it."""
    name = contextvars.ContextVar("name", default="none")
    seen = []

    def look(*_):
        seen.append(name.get())
        name.set("spoilt")

    looks = task(runner=ThreadTaskRun)(look)
    name.set("mine")
    engine = Engine([Node("a", looks), Node("b", looks, ["a"]), Node("c", looks, ["b"])])
    assert engine.orchestrate(timeout=PATIENCE)
    assert seen == ["mine"] * 3


def test_a_runner_for_those_that_do_not_say():
    """`runner=` and `use(runner)` count for Tasks without a runner of their own."""

    @task
    def where():
        return os.getpid(), threading.get_ident()

    pinned = where.options(runner=SequentialTaskRun)
    here = os.getpid(), threading.get_ident()
    engine = Engine([Node("a", where), Node("b", pinned)], runner=ThreadTaskRun)
    assert engine.orchestrate(timeout=PATIENCE)
    assert engine.value("a")[0] == here[0]
    assert engine.value("a")[1] != here[1]
    assert engine.value("b") == here
    engine = Engine([Node("a", where)])
    with woflo.use(SequentialTaskRun):
        assert engine.orchestrate()
    assert engine.value("a") == here


# ---------------------------------------------------------------------- several who want something


def test_outcomes_wanted_at_once_are_made_once():
    """Several who want overlapping targets share one drive; each gets its own results."""
    ran = []
    gate = asyncio.Event

    async def main():
        go = gate()

        async def leaf():
            ran.append("leaf")
            await go.wait()
            return 1

        engine = Engine([Node("leaf", leaf), Node("a", co_one, ["leaf"]), Node("b", co_one, ["leaf"])])
        jobs = [asyncio.create_task(engine.co_outcomes(*wanted)) for wanted in (["a"], ["b"], ["a", "b"], ["leaf"])]
        await until(lambda: ran)
        late = asyncio.create_task(engine.co_outcomes("b"))
        await asyncio.sleep(0)
        go.set()
        return [await job for job in (*jobs, late)]

    assert asyncio.run(main()) == [[Ok(2)], [Ok(2)], [Ok(2), Ok(2)], [Ok(1)], [Ok(2)]]
    assert ran == ["leaf"]


def test_a_refused_wish_leaves_nothing_behind():
    """What is refused while others wait is as if it had never been wished for: nothing of it runs, now or later."""
    ran = []

    async def main():
        go = asyncio.Event()

        async def ever():
            await asyncio.Event().wait()

        async def note():
            ran.append("note")

        nodes = [Node("go", go.wait), Node("monitor", ever, forever=True), Node("note", note), Node("late", co_one)]
        engine = Engine([*nodes, Node("a", co_one, ["monitor", "note"])])
        job = asyncio.create_task(engine.co_outcomes("go"))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="a needs monitor, which runs forever"):
            await engine.co_outcomes("a")
        assert [engine.status(target) for target in ("a", "monitor", "note")] == ["idle"] * 3
        assert await engine.co_outcomes("late") == [Ok(1)]
        go.set()
        await job

    asyncio.run(main())
    assert ran == []


def test_a_cancelled_waiter_leaves_what_others_want():
    """What somebody else waits for goes on; what nobody waits for is stopped; later it can be wanted again."""
    log = []

    async def main():
        go = asyncio.Event()

        async def shared():
            log.append("shared")
            await go.wait()
            return 1

        async def mine():
            log.append("mine")
            try:
                await asyncio.Event().wait()
            finally:
                log.append("mine ended")

        engine = Engine([Node("s", shared), Node("m", mine), Node("a", co_one, ["s", "m"]), Node("b", co_one, ["s"])])
        first = asyncio.create_task(engine.co_outcomes("a"))
        second = asyncio.create_task(engine.co_outcomes("b"))
        await until(lambda: len(log) == 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await until(lambda: "mine ended" in log)
        go.set()
        assert await second == [Ok(2)]
        third = asyncio.create_task(engine.co_outcomes("a"))
        await until(lambda: log.count("mine") == 2)
        third.cancel()
        with pytest.raises(asyncio.CancelledError):
            await third

    asyncio.run(main())
    assert log.count("shared") == 1 or log.count("shared") == 2
    assert log.count("mine ended") == 2


@pytest.mark.parametrize("late", ["leaf", "b"])
def test_a_value_that_was_dropped_is_made_again(late):
    """Wanted while others are at work, a value that was dropped is made anew, not passed on as a hole."""
    made = []

    async def main():
        go = asyncio.Event()

        async def leaf():
            made.append("leaf")
            return 1

        async def slow():
            await go.wait()
            return 5

        engine = Engine([Node("leaf", leaf), Node("a", co_one, ["leaf"]), Node("b", co_one, ["leaf"]), Node("s", slow)])
        first = asyncio.create_task(engine.co_outcomes("s"))
        assert await engine.co_outcomes("a") == [Ok(2)]
        assert await engine.co_outcomes("a") == [Ok(2)]
        answer = await engine.co_outcomes(late)
        go.set()
        assert await first == [Ok(5)]
        return answer

    assert asyncio.run(main()) == [Ok(1 if late == "leaf" else 2)]
    assert made == ["leaf", "leaf"]


def test_a_cycle_that_is_wanted_late_takes_nothing():
    """Who wants a cycle while others are at work is told of it; what they want goes on, and can be wanted again."""

    async def main():
        go = asyncio.Event()

        async def slow():
            await go.wait()
            return 1

        engine = Engine(
            [Node("s", slow), Node("a", co_one, ["b"]), Node("b", co_one, ["a", "c"]), Node("c", co_one, ["s"])]
        )
        first = asyncio.create_task(engine.co_outcomes("s"))
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(CyclicWorkflowError, match=r"a -> b -> a|b -> a -> b"):
                await engine.co_outcomes("a")
        late = asyncio.create_task(engine.co_outcomes("c"))
        await asyncio.sleep(0)
        go.set()
        assert await asyncio.gather(first, late) == [[Ok(1)], [Ok(2)]]

    asyncio.run(main())


# ---------------------------------------------------------------------- what is kept


def test_values_are_dropped_when_nobody_needs_them():
    """A value lives until its last consumer has it, unless it was asked for by name."""
    kept = []

    def make():
        box = Box()
        kept.append(weakref.ref(box))
        return box

    def check_gone(*_):
        gc.collect()
        return kept[0]() is None

    engine = Engine([Node("a", make), Node("b", lambda _: 1, ["a"]), Node("c", check_gone, ["b"])])
    assert engine.orchestrate()
    assert engine.value("c") is True
    with pytest.raises(UsageError, match=r"was dropped.*orchestrate\('a'\) keeps it"):
        engine.outcome("a")
    assert engine.orchestrate("a")
    assert isinstance(engine.value("a"), Box)
    assert len(kept) == 2


def test_a_second_orchestrate_runs_only_what_is_missing():
    """What has ended is kept, failures too; reset forgets; volatile targets and all above them are made anew."""
    ran = []

    def note(name):
        return lambda *_: ran.append(name) or name

    bad = [True]

    def flaky(*_):
        ran.append("flaky")
        if bad[0]:
            raise ValueError("no")

    engine = Engine(
        [Node("a", note("a")), Node("b", note("b"), ["a"]), Node("v", note("v")), Node("w", note("w"), ["v", "b"])],
        volatile=["v"],
    )
    assert engine.orchestrate()
    assert ran == ["a", "v", "b", "w"]
    ran.clear()
    assert engine.orchestrate("w", "b")
    assert ran == ["a", "v", "b", "w"]  # b's value had been dropped, and a's
    ran.clear()
    assert engine.orchestrate("w")
    assert ran == ["v", "w"]
    engine = Engine([Node("f", flaky), Node("g", note("g"), ["f"])])
    ran.clear()
    assert not engine.orchestrate()
    assert not engine.orchestrate()
    assert ran == ["flaky"]
    assert engine.why() == "1 of 1 failed (g): g: not run, because its input failed: f (root cause: f: ValueError: no)"
    bad[0] = False
    engine.reset(*engine.failures)
    assert engine.orchestrate()
    assert ran == ["flaky", "flaky", "g"]


def test_what_was_stopped_runs_again():
    """A drive that was stopped is no result: the next orchestrate makes it good."""
    slow = [True]

    async def wait():
        await asyncio.sleep(PATIENCE if slow[0] else 0)
        return 1

    engine = Engine([Node("a", wait), Node("b", one, ["a"])])
    assert not engine.orchestrate(timeout=0.05)
    slow[0] = False
    assert engine.orchestrate(timeout=PATIENCE)
    assert engine.value("b") == 2


# ---------------------------------------------------------------------- order and window


def test_a_window_bounds_how_many_run():
    """Never more than `window` nodes run at once, and a failing one gives its place back."""
    lock, live, most = threading.Lock(), [0], [0]

    @task(runner=ThreadTaskRun)
    def busy(i):
        with lock:
            live[0] += 1
            most[0] = max(most[0], live[0])
        time.sleep(0.002)
        with lock:
            live[0] -= 1
        if i % 3 == 0:
            raise ValueError(i)

    nodes = [Node(f"n{i}", lambda i=i: i) for i in range(30)]
    nodes += [Node(i, busy, [f"n{i}"]) for i in range(30)]
    engine = Engine(nodes, window=3)
    assert not engine.orchestrate(timeout=PATIENCE)
    assert len(engine.failures) == 10
    assert 1 <= most[0] <= 3


def test_the_longest_path_goes_first():
    """Where durations are told, what heads the longest remaining path starts first."""
    order = []

    def note(name):
        @task(runner=ThreadTaskRun)
        def call(*_):
            order.append(name)

        return call

    nodes = [Node("short", note("short"), seconds=1), Node("long", note("long"), seconds=1)]
    nodes += [Node("tail", note("tail"), ["long"], seconds=9), Node("lone", note("lone"), seconds=5)]
    assert Engine(nodes, window=1).orchestrate(timeout=PATIENCE)
    assert order == ["long", "tail", "lone", "short"]


def test_durations_are_learnt():
    """A task that took long before goes first the next time, without being told."""
    order = []

    @task(runner=ThreadTaskRun)
    def quick():
        order.append("quick")

    @task(runner=ThreadTaskRun)
    def slow():
        order.append("slow")
        time.sleep(0.03)

    nodes = [Node("q", quick), Node("s", slow)]
    assert Engine(nodes, window=1).orchestrate(timeout=PATIENCE)
    assert Engine(nodes, window=1).orchestrate(timeout=PATIENCE)
    assert order == ["quick", "slow", "slow", "quick"]


def test_what_is_learnt_changes_the_order_inside_of_a_step_only(monkeypatch):
    """A thread that learns how long its run took leaves the queue alone: another one may be handing out nodes from it."""
    inside = []
    rank = _drive.Drive.rank

    def note(drive):
        inside.append(drive._lock.locked())
        rank(drive)

    monkeypatch.setattr(_drive.Drive, "rank", note)
    tasks = [task(runner=ThreadTaskRun)(lambda: None) for _ in range(5)]
    assert Engine([Node(place, call) for place, call in enumerate(tasks)], window=1).orchestrate(timeout=PATIENCE)
    assert inside[0] is False  # before the drive
    assert len(inside) > 1
    assert all(inside[1:])


# ---------------------------------------------------------------------- observers


def test_every_fact_is_told_in_order():
    """Observers get each node's start and end, of this engine only; one that raises is dropped and changes nothing."""
    told, everything = [], []

    def bad(event):
        raise ValueError(event)

    add = task(runner=ThreadTaskRun)(one)
    engine = Engine(
        [Node("a", add, label="first"), Node("b", fail, ["a"]), Node("c", one, ["b"])], observers=[told.append, bad]
    )
    with woflo.observe(everything.append):
        assert not engine.orchestrate(timeout=PATIENCE)
    kinds = [(type(event).__name__, event.name) for event in told]
    assert kinds == [
        ("NodeStarted", "first"),
        ("NodeEnded", "first"),
        ("NodeStarted", "b"),
        ("NodeEnded", "b"),
        ("NodeEnded", "c"),
    ]
    assert [event.failure is None for event in told if isinstance(event, events.NodeEnded)] == [True, False, False]
    assert {type(event).__name__ for event in everything} >= {"RunStarted", "RunEnded", "NodeEnded", "ObserverFailed"}


def test_calls_in_place_are_told_when_they_happen():
    """An observer hears of a call in place before it is made, and of its end before the next one."""
    told = []

    def look(*_):
        return [(type(event).__name__[4:], event.target) for event in told]

    def look_and_fail():
        raise ValueError(look())

    engine = Engine([Node("a", look_and_fail), Node("b", look)], observers=[told.append])
    assert not engine.orchestrate()
    assert engine.outcome("a").__cause__.args[0] == [("Started", "a")]
    assert engine.value("b") == [("Started", "a"), ("Ended", "a"), ("Started", "b")]


def test_everything_is_told_when_orchestrate_returns():
    """An observer that is slow in one thread has heard of everything when another thread's orchestrate returns."""
    told, inside = [], threading.Event()

    @task(runner=ThreadTaskRun)
    def quick():
        time.sleep(0.02)  # until the driver makes its call

    def slow(event):
        if isinstance(event, events.NodeEnded) and event.target == "a":
            inside.set()
            time.sleep(0.1)
        told.append((type(event).__name__, event.target))

    engine = Engine([Node("a", quick), Node("b", lambda: inside.wait(PATIENCE))], observers=[slow])
    assert engine.orchestrate()
    assert told.count(("NodeEnded", "a")) == told.count(("NodeEnded", "b")) == 1


def test_an_observer_may_stop_the_engine():
    """Observers are called outside of a step, so they may call anything."""
    engine = Engine(
        [Node(i, one, [i - 1] if i else []) for i in range(10)],
        observers=[lambda event: engine.stop() if event.target == 3 else None],
    )
    assert not engine.orchestrate()
    assert engine.status(9) in {"stopped", "skipped"}


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="under a profile function CPython 3.11 spins where threads compete"
)
def test_ctrl_c_at_every_point_of_a_drive():
    """Ctrl-C anywhere in a drive ends it within the grace: every node has its result, and no run is left."""
    code = """
        import signal, sys, threading, time
        import woflo
        from woflo import Node, task
        from woflo.engine import Engine
        from woflo.runners import ThreadTaskRun, _process
        @task(runner=ThreadTaskRun)
        def busy(*_):
            while not woflo.stop_requested(): time.sleep(0.001)
        @task(runner=ThreadTaskRun)
        def quick(*_): return 1
        nodes = [Node("a", quick), Node("h", lambda *_: 1, ["a"]), Node("b", busy, ["h"]), Node("c", quick, ["b"])]
        OURS = ("woflo/_drive.py", "woflo/engine.py", "woflo/_scheduler.py")
        SPARED = ("repair", "halt", "_leave", "_break_off", "__init__")
        def profile(frame, event, arg):  # at the entry of our functions, and at the return from C
            global seen, armed
            if event not in ("call", "c_return") or not frame.f_code.co_filename.endswith(OURS):
                return
            if frame.f_code.co_name in SPARED:
                armed = armed and frame.f_code.co_name == "__init__"
            elif armed:
                seen += 1
                if seen == at:
                    armed = False
                    signal.default_int_handler(signal.SIGINT, frame)  # as the signal would
        at = 0
        while True:
            at, seen, armed, caught = at + 1, 0, True, False
            engine = Engine(nodes)
            timer = threading.Timer(0.02, engine.stop)
            timer.start()
            sys.setprofile(profile)
            try:
                engine.orchestrate()
            except KeyboardInterrupt:
                caught = True
            finally:
                sys.setprofile(None)
            timer.cancel()
            for run in list(_process.live):
                assert run.wait(5), (at, run)
            if engine._drive is not None:
                words = [engine.status(node.target) for node in nodes]
                assert not {"running", "waiting"} & set(words), (at, words)
            assert not engine._working, at
            if not caught and seen < at:
                break
            assert caught, at
        assert at > 50, at
        print("fine", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=55, check=False
    )
    assert done.stdout == "fine\n", done.stderr[-3000:]


# ---------------------------------------------------------------------- misuse


class Nameless:
    """A target of which nobody can say what it is called."""

    def __str__(self):
        raise RuntimeError("no name")

    __repr__ = __str__


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_target_without_a_name(runner):
    target = Nameless()
    failing = task(fail, runner=runner)
    engine = Engine([Node("a", failing), Node(target, one, ["a"]), Node("b", one, [target])])
    assert not engine.orchestrate(timeout=PATIENCE)
    assert [engine.status(one) for one in ("a", target, "b")] == ["failed", "skipped", "skipped"]
    assert "Nameless whose str() raised" in str(engine.outcome("b"))
    with pytest.raises(CyclicWorkflowError, match="Nameless whose str"):
        Engine([Node(target, one, [target])]).orchestrate()


def test_a_coroutine_that_never_begins_is_closed(recwarn):
    made = []

    def work():
        made.append(co_one())
        return made[-1]

    async def main():
        engine = Engine([Node("a", work), Node("b", fail)], stop_on_failure=True)
        return engine.orchestrate()

    for _ in range(20):
        assert not asyncio.run(main())
        assert not Engine([Node("a", work), Node("b", fail)], stop_on_failure=True).orchestrate()
    made.clear()
    gc.collect()
    texts = [str(one.message) for one in recwarn]
    assert not [text for text in texts if "multi-threaded" not in text]  # CPython says so of each fork from 3.12 on


def test_a_timeout_of_any_real_number():
    engine = Engine([Node("a", one)])
    assert engine.orchestrate(timeout=Fraction(7, 2))
    engine.reset()
    assert asyncio.run(engine.co_orchestrate(timeout=Fraction(7, 2)))


@task
def same(value):
    return value


class Asynchronous:
    async def __call__(self):
        return 5


@pytest.mark.parametrize(
    "call",
    [
        lambda: same.options(runner=ThreadTaskRun)(5),
        lambda: same(5),
        partial(same, 5),
        lambda: co_one(1, 3),
        partial(Asynchronous().__call__),
        Asynchronous(),
        Mock(return_value=5),
        MagicMock(return_value=5),
        AsyncMock(return_value=5),
    ],
)
@pytest.mark.parametrize("window", [None, 1])
def test_what_a_callable_returns_is_carried_out_on_a_loop_too(call, window, recwarn):
    def engine():
        return Engine([Node("a", call), Node("b", one, ["a"])], window=window)

    async def main():
        driven = engine()
        assert await driven.co_orchestrate("a", "b", timeout=PATIENCE), driven.why()
        (result,) = await engine().co_outcomes("b")
        return driven.value("a"), driven.value("b"), result.value

    assert asyncio.run(main()) == (5, 6, 6)
    blocking = engine()
    assert blocking.orchestrate("a", "b", timeout=PATIENCE), blocking.why()
    assert (blocking.value("a"), blocking.value("b")) == (5, 6)
    texts = [str(one.message) for one in recwarn]
    assert not [text for text in texts if "multi-threaded" not in text]  # CPython says so of each fork from 3.12 on


def test_what_a_callable_returned_is_stopped_with_the_engine():
    flag = threading.Event()

    @task
    def sleep():
        flag.set()
        while True:
            time.sleep(0.01)

    engine = Engine([Node("a", partial(sleep.options(runner=ThreadTaskRun)))])

    async def main():
        driving = asyncio.ensure_future(engine.co_orchestrate())
        await until(flag.is_set)
        engine.stop()
        return await driving

    assert asyncio.run(main()) is False
    assert engine.status("a") == "stopped"


def test_a_mock_that_runs_forever():
    async def endless():
        await asyncio.sleep(PATIENCE)

    call = Mock(side_effect=endless)
    engine = Engine([Node("a", call, forever=True), Node("b", one)])
    assert engine.orchestrate(timeout=PATIENCE), engine.why()
    assert engine.status("a") == "stopped"
