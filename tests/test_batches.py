"""Graphs on warm workers: what is sent together ends as if each node had been sent by itself."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from fractions import Fraction

import pytest

import woflo
from woflo import DependencyFailure, Graph, Node, Ok, TaskFailure, WorkerFailure, _drive, events, task
from woflo._scheduler import Scheduler
from woflo.engine import Engine
from woflo.runners import ThreadTaskRun
from woflo.testing import PATIENCE, Flag, Ledger

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a pool needs Linux")

if sys.platform == "linux":
    from woflo.runners import _pool
    from woflo.runners.pool import PoolTaskRun

SEED = int(os.environ.get("WOFLO_SEED", "0")) or random.randrange(1 << 30)


# Bodies; functions of this module, which workers find by name.


def mix(*values):
    """A number that tells all that it was made of, in their order; some of them fail."""
    total = 17
    for value in values:
        total = (total * 31 + (value if isinstance(value, int) else len(value))) % 1_000_003
    if total % 29 == 3:
        raise ValueError(total)
    return total


def as_list(*values):
    return [mix(*values)] * 3


def one_more(value=0):
    return value + 1


def own_list(value=0):
    """A new list, and where it is."""
    return [value]


def append(given, more=None):
    """Change what was given, in place."""
    given.append(more)
    return list(given)


def pid(*_values):
    return os.getpid()


def step(given, *_more):
    """Note that a step of a chain was made, and do what its number says."""
    path, number, deeds = given
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.write(file, b"begin %d\n" % number)
    deed = deeds.get(number)
    if deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "raise":
        raise ValueError(number)
    elif deed is not None:
        deed[0].set()
        deed[1].wait()
    os.write(file, b"end %d\n" % number)
    os.close(file)
    return path, number + 1, deeds


class Unpicklable:
    def __reduce__(self):
        raise TypeError("stays where it is")


class Unreadable:
    """Can be sent, and not be read."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ValueError("can't be read")


def give_unpicklable(*_values):
    return Unpicklable()


def give_unreadable(*_values):
    return Unreadable()


def give_large(size, *_values):
    return b"x" * size


def size_of(*values):
    return sum(map(len, values))


def name_of(*_values):
    return woflo.current_run().name


# ---------------------------------------------------------------------- helpers


@pytest.fixture(autouse=True)
def warm(monkeypatch):
    """Workers end soon, so that each test can wait for its own."""
    monkeypatch.setattr(_pool, "_IDLE_SECONDS", 0.3)


@pytest.fixture(autouse=True)
def valid(monkeypatch):
    """The scheduler's invariants hold after each step."""
    inner = _drive.Drive._step

    def checked(self):
        inner(self)
        if len(self.nodes) < 2_000 and not self.stopping:
            self.scheduler.validate()

    monkeypatch.setattr(_drive.Drive, "_step", checked)


def pool_of(workers=2):
    return PoolTaskRun.using(workers=workers)


def short(fn, runner, *args, **options):
    """A task of which the pool knows that it is short."""
    made = task(fn, runner=runner, **options)
    deadline = time.monotonic() + PATIENCE
    while (function := known(made)) is None or not function.short():
        assert time.monotonic() < deadline, "it is never short"
        made(*args).outcome(timeout=PATIENCE)
    return made


def known(made):
    pool = made.runner._pool
    return None if pool is None else pool.functions.get(id(made))


def messages(made):
    """How many messages its pool has sent so far."""
    return made.runner._pool._serial


def chain(call, count, first, *, start=0):
    """A chain of nodes 0 … count - 1 on a value made in place."""
    return [
        Node("first", lambda: first),
        *(Node(i, call, [i - 1 if i > start else "first"]) for i in range(start, count)),
    ]


def outcome(engine, target):
    """What a target ended in, as something that can be compared."""
    result = engine.outcome(target)
    if isinstance(result, Ok):
        return result.value
    cause = result.__cause__
    return (
        type(result).__name__,
        (type(cause).__name__, str(cause)) if cause is not None else None,
        sorted(map(str, result.dependencies)) if isinstance(result, DependencyFailure) else None,
    )


# ---------------------------------------------------------------------- the whole, against an engine that sends nothing


def random_nodes(chance, calls):
    """A graph of nodes that need earlier ones, for each way to call one."""
    size = chance.choice([5, 30, 200])
    width = chance.choice([1, 3, 20])
    kinds = chance.choices(range(len(calls)), weights=[40, 5, 1, 1][: len(calls)], k=size)
    rows = [
        [chance.randrange(max(0, i - 2 * width), i) for _ in range(chance.choice([0, 1, 1, 2, 3]))] if i else []
        for i in range(size)
    ]
    cut = [chance.choice([0, 0, 0, 1]) for _ in rows]
    for i, (row, kind, after) in enumerate(zip(rows, kinds, cut, strict=True)):
        needs = list(dict.fromkeys(row))
        yield Node(i, calls[kind], needs[after:], after=needs[:after])


@pytest.mark.parametrize("turn", range(12))
def test_random_graphs(turn):
    """Values, failures and what was skipped are those of an engine that makes every call by itself."""
    chance = random.Random(SEED + turn)
    print(f"seed {SEED + turn}")
    runner = pool_of(chance.choice([1, 2, 3]))
    calls = [short(mix, runner, 1), short(as_list, runner, 1), mix, task(mix, runner=ThreadTaskRun)]
    for _ in range(4):
        seed = chance.random()
        nodes = list(random_nodes(random.Random(seed), calls))
        plain = list(random_nodes(random.Random(seed), [mix, as_list, mix, mix]))
        wanted = chance.sample(range(len(nodes)), 3) if chance.random() < 0.5 else []
        window = chance.choice([None, None, 1, 2, 7])
        engine, other = Engine(Graph(nodes), window=window), Engine(Graph(plain))
        assert engine.orchestrate(*wanted, timeout=PATIENCE) == other.orchestrate(*wanted), engine.why()
        for node in plain:
            assert engine.status(node.target) == other.status(node.target)
            if node.target in wanted or other.status(node.target) in {"failed", "skipped"}:
                assert outcome(engine, node.target) == outcome(other, node.target)
        for node in engine.graph.leaves() if not wanted else ():
            assert outcome(engine, node.target) == outcome(other, node.target)


@pytest.mark.parametrize("turn", range(4))
def test_random_graphs_on_a_loop(turn):
    """The same on an event loop."""
    chance = random.Random(SEED + turn)
    print(f"seed {SEED + turn}")
    runner = pool_of(2)
    calls = [short(mix, runner, 1), short(as_list, runner, 1), mix]
    nodes = list(random_nodes(random.Random(SEED + turn), calls))
    plain = list(random_nodes(random.Random(SEED + turn), [mix, as_list, mix]))
    engine, other = Engine(Graph(nodes)), Engine(Graph(plain))
    assert asyncio.run(engine.co_orchestrate(timeout=PATIENCE)) == other.orchestrate()
    for node in plain:
        assert engine.status(node.target) == other.status(node.target)
    wanted = chance.sample(range(len(nodes)), 2)
    fresh = Engine(Graph(nodes))

    async def want():
        first = asyncio.create_task(fresh.co_outcomes(wanted[0]))
        return (await fresh.co_outcomes(*wanted))[1], (await first)[0]

    for result, target in zip(asyncio.run(want()), reversed(wanted), strict=True):
        assert isinstance(result, Ok) == (other.status(target) == "succeeded")


# ---------------------------------------------------------------------- what goes together


def test_a_chain_is_a_few_messages():
    """A thousand short calls that follow each other travel in a handful of messages, and their value is right."""
    call = short(one_more, pool_of())
    before = messages(call)
    engine = Engine(chain(call, 1000, 0))
    assert engine.orchestrate(timeout=PATIENCE)
    assert engine.value(999) == 1000
    assert messages(call) - before < 100


def test_values_that_nobody_wants_are_dropped():
    """As in any drive: what all have used is gone, what is wanted by name stays."""
    call = short(one_more, pool_of())
    engine = Engine(chain(call, 50, 0))
    assert engine.orchestrate(10, 49, timeout=PATIENCE)
    assert engine.value(10) == 11
    assert engine.value(49) == 50
    with pytest.raises(woflo.UsageError, match="was dropped"):
        engine.value(20)


def test_calls_of_several_tasks_go_together():
    """What goes together need not be the same function."""
    runner = pool_of()
    make, add = short(own_list, runner), short(append, runner, [1])
    before = messages(make)
    nodes = [Node("a", make), Node("b", add, ["a"]), Node("c", add, ["b", "a"]), Node("d", add, ["c"])]
    engine = Engine(nodes)
    assert engine.orchestrate(timeout=PATIENCE)
    assert engine.value("d") == [0, None, [0], None]
    assert messages(make) - before == 1


def test_each_has_a_copy_of_its_own():
    """What one call changes in place, no other sees: neither in the worker nor here."""
    runner = pool_of(1)
    make, add = short(own_list, runner), short(append, runner, [1])
    nodes = [
        Node("a", make),
        Node("five", lambda: 5),
        Node("b", add, ["a"]),
        Node("c", add, ["a", "five"]),
        Node("d", add, ["a", "b"]),
    ]
    engine = Engine(nodes)
    assert engine.orchestrate("five", timeout=PATIENCE)
    before = messages(make)
    assert engine.orchestrate("a", "b", "c", "d", timeout=PATIENCE)
    assert [engine.value(name) for name in "abcd"] == [[0], [0, None], [0, 5], [0, [0, None]]]
    assert messages(make) - before <= 2


def test_what_is_known_is_not_made_again(tmp_path):
    """A second drive makes only what is missing, also where that goes together."""
    path = str(tmp_path / "ledger")
    call = short(step, pool_of(1), (str(tmp_path / "other"), -9, {}))
    engine = Engine(chain(call, 20, (path, 0, {})))
    assert engine.orchestrate(7, timeout=PATIENCE)
    assert engine.orchestrate(7, 19, timeout=PATIENCE)
    assert engine.value(19)[1] == 20
    noted = Counter(Ledger(path).lines())
    assert [noted[f"begin {i}"] for i in range(8, 20)] == [1] * 12
    assert noted["begin 7"] == 1


def test_each_call_has_a_run_with_a_name():
    """A call that goes along knows its run, as any other."""
    call = short(name_of, pool_of())
    engine = Engine([Node(0, call), Node(1, call, [0]), Node(2, call, after=[1])])
    assert engine.orchestrate(0, 1, 2, timeout=PATIENCE)
    names = [engine.value(i) for i in range(3)]
    assert len(set(names)) == 3
    assert all(name.startswith("name_of-") for name in names)


def test_what_has_a_policy_goes_by_itself():
    """A time-out, a further attempt, a cache or somebody who observes: then each call is a message."""
    runner = pool_of()
    for options in ({"timeout": 60}, {"retries": 1}):
        call = short(one_more, runner, **options)
        before = messages(call)
        assert Engine(chain(call, 10, 0)).orchestrate(timeout=PATIENCE)
        assert messages(call) - before == 10
    call = short(one_more, runner)
    before = messages(call)
    seen = []
    assert Engine(chain(call, 10, 0), observers=[seen.append]).orchestrate(timeout=PATIENCE)
    assert messages(call) - before == 10
    assert [type(event) for event in seen] == [events.NodeStarted, events.NodeEnded] * 11
    listener = events.observe(seen.append)
    try:
        assert Engine(chain(call, 10, 0)).orchestrate(timeout=PATIENCE)
    finally:
        listener.close()
    assert messages(call) - before == 20


def test_cached_calls_go_by_themselves():
    """What is remembered is looked up call by call."""
    store = {}
    call = task(one_more, runner=pool_of(), cache=store)
    for number in range(-8, 0):
        call(number).outcome(timeout=PATIENCE)
    engine = Engine(chain(call, 10, 5))
    assert engine.orchestrate(timeout=PATIENCE)
    assert engine.value(9) == 15
    assert all(call.cached(number) for number in (*range(-8, 0), *range(5, 15)))


@pytest.mark.parametrize("window", [1, 2, 5])
def test_the_window_counts_those_that_go_along(window, monkeypatch):
    """No more nodes are handed out at once than the window allows, and none waits for ever."""
    call = short(one_more, pool_of())
    most = []
    inner = _drive.Drive._step

    def checked(self):
        inner(self)
        most.append(self.scheduler.running)

    monkeypatch.setattr(_drive.Drive, "_step", checked)
    nodes = [node for row in range(4) for node in (
        Node((row, 0), call), *(Node((row, i), call, [(row, i - 1)]) for i in range(1, 20))
    )]  # fmt: skip
    engine = Engine(nodes, window=window)
    assert engine.orchestrate(timeout=PATIENCE)
    assert [engine.value((row, 19)) for row in range(4)] == [20] * 4
    assert max(most) <= window


def test_status_while_it_goes_along(tmp_path):
    """What is behind the one that runs is waiting, as it would be if it had not been sent yet."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    path = str(tmp_path / "ledger")
    call = short(step, pool_of(1), (path, -9, {}))
    engine = Engine(chain(call, 5, (path, 0, {2: (started, release)})))
    seen = []

    def look():
        started.wait()
        until(lambda: engine.status(1) == "succeeded")
        seen.extend(engine.status(i) for i in range(5))
        release.set()

    thread = threading.Thread(target=look)
    thread.start()
    assert engine.orchestrate(timeout=PATIENCE)
    thread.join()
    assert seen == ["succeeded", "succeeded", "running", "waiting", "waiting"]


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it didn't come true"
        time.sleep(0.001)


# ---------------------------------------------------------------------- failures


def test_what_needs_a_failed_one_is_skipped(tmp_path):
    """In the same message too: DependencyFailure with the failed one as its cause; others go on."""
    path = str(tmp_path / "ledger")
    call = short(step, pool_of(1), (path, -9, {}))
    nodes = chain(call, 6, (path, 0, {2: "raise"}))
    nodes += [Node("other", call, [1]), Node("late", call, ["other"], after=[4])]
    engine = Engine(nodes)
    assert not engine.orchestrate(timeout=PATIENCE)
    statuses = [engine.status(i) for i in (*range(6), "other", "late")]
    assert statuses == ["succeeded"] * 2 + ["failed"] + ["skipped"] * 3 + ["failed", "skipped"]
    assert isinstance(engine.outcome(2), TaskFailure)
    assert isinstance(engine.outcome(2).__cause__, ValueError)
    assert [engine.outcome(5).dependencies.keys(), engine.outcome(3).dependencies.keys()] == [{4}, {2}]
    assert engine.outcome(5).root_causes() == [engine.outcome(2)]


def test_stop_on_failure(tmp_path):
    """When one fails all that has not begun is stopped."""
    path = str(tmp_path / "ledger")
    call = short(step, pool_of(1), (path, -9, {}))
    engine = Engine(chain(call, 2000, (path, 0, {3: "raise"})), stop_on_failure=True)
    assert not engine.orchestrate(timeout=PATIENCE)
    assert engine.status(3) == "failed"
    assert engine.status(1999) in {"stopped", "skipped"}


@pytest.mark.parametrize(
    ("give", "words"), [(give_unpicklable, "can't be sent back"), (give_unreadable, "rebuilt here")]
)
def test_a_value_that_cannot_travel(give, words):
    """Fails the node that made it, also where only calls of the same message need it: as it does without any batch."""
    runner = pool_of(1)
    bad, call = task(give, runner=runner), short(size_of, runner, b"")
    for _ in range(8):
        bad().outcome(timeout=PATIENCE)
    engine = Engine([Node("bad", bad), Node("user", call, ["bad"]), Node("fine", call), Node("more", call, ["user"])])
    assert not engine.orchestrate(timeout=PATIENCE)
    assert words in str(engine.outcome("bad"))
    assert [engine.status(name) for name in ("bad", "user", "fine", "more")] == [
        "failed",
        "skipped",
        "succeeded",
        "skipped",
    ]


@pytest.mark.parametrize("size", [10_000, 20_000, 70_000, 1_000_000])
def test_large_values(size):
    """Values of any size reach who needs them, in the worker or by way of here."""
    runner = pool_of(1)
    large, call = task(give_large, runner=runner), short(size_of, runner, b"")
    for _ in range(8):
        large(9).outcome(timeout=PATIENCE)  # it is short, as far as anybody knows
    nodes = [Node("size", lambda: size), Node("a", large, ["size"]), Node("b", large, ["size", "a"])]
    nodes += [Node(("use", i), call, ["a", "b"]) for i in range(5)]
    nodes += [Node("all", lambda *values: sum(values), [("use", i) for i in range(5)])]
    engine = Engine(nodes)
    assert engine.orchestrate(timeout=PATIENCE)
    assert engine.value("all") == 10 * size


def test_many_results_that_fill_the_region():
    """More results than a message has room for: the rest is sent again, each is right."""
    runner = pool_of(1)
    large, call = short(give_large, runner, 5_000), short(size_of, runner, b"")
    nodes = [Node("size", lambda: 5_000)]
    for i in range(40):
        nodes += [Node(i, large, ["size", i - 1] if i else ["size"]), Node(("use", i), call, [i])]
    engine = Engine(nodes)
    assert engine.orchestrate(timeout=PATIENCE)
    assert {engine.value(("use", i)) for i in range(40)} == {5_000}


def test_arrays_go_by_way_of_here():
    """Large buffers travel apart; what needs them is sent when they are there."""
    numpy = pytest.importorskip("numpy")
    runner = pool_of(1)
    ones, add = short(numpy.ones, runner, 3), short(numpy.sum, runner, [1])
    engine = Engine(
        [Node("size", lambda: 100_000), Node("a", ones, ["size"]), Node("b", add, ["a"]), Node("c", add, ["b"])]
    )
    assert engine.orchestrate(timeout=PATIENCE)
    assert engine.value("c") == 100_000
    assert Engine([Node("size", lambda: 9), Node("a", ones, ["size"]), Node("b", add, ["a"])]).orchestrate()


def test_other_values():
    """Values of any class that pickle knows reach who needs them."""
    runner = pool_of(1)
    half, add = short(Fraction, runner, 1), short(one_more, runner)
    engine = Engine(
        [Node("two", lambda: "1/2"), Node("a", half, ["two"]), Node("b", add, ["a"]), Node("c", add, ["b"])]
    )
    assert engine.orchestrate(timeout=PATIENCE)
    assert engine.value("c") == Fraction(5, 2)


# ---------------------------------------------------------------------- slow ones, deaths, stops


def test_a_slow_one_does_not_hold_up_the_others(tmp_path):
    """What was sent behind one that turns out long, and doesn't need it, is done by others meanwhile."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    path = str(tmp_path / "ledger")
    call = short(step, pool_of(2), (path, -9, {}))
    nodes = chain(call, 10, (path, 0, {}))
    slow = (path, 100, {100: (started, release)})
    nodes += [Node("slow first", lambda: slow), Node("slow", call, ["slow first"]), Node("after slow", call, ["slow"])]
    nodes += [Node("go", call, ["first"])] + [Node(("go", i), call, ["go"]) for i in range(20)]
    done = [(*range(10), "go"), *[(("go", i),) for i in range(20)]]
    engine = Engine(nodes)

    def look():
        started.wait()
        for targets in done:
            for target in targets:
                until(lambda target=target: engine.status(target) == "succeeded")
        release.set()

    thread = threading.Thread(target=look)
    thread.start()
    assert engine.orchestrate(timeout=PATIENCE)
    thread.join()
    assert engine.value("after slow")[1] == 102


def test_a_worker_that_dies_costs_one(tmp_path):
    """The call that was running is lost; what needs it is skipped, all else runs exactly once."""
    ledger = Ledger(tmp_path / "ledger")
    call = short(step, pool_of(2), (str(tmp_path / "other"), -9, {}))
    nodes = [Node("first", lambda: (str(ledger.path), 0, {50: "die"}))]
    nodes += [Node(i, call, [i - 1 if i else "first"]) for i in range(100)]
    nodes += [Node(("side", i), call, [("side", i - 1) if i else "begin"]) for i in range(100)]
    nodes += [Node("begin", lambda: (str(ledger.path), 1000, {}))]
    engine = Engine(nodes)
    assert not engine.orchestrate(timeout=PATIENCE)
    assert isinstance(engine.outcome(50), WorkerFailure)
    assert [engine.status(i) for i in range(100)] == ["succeeded"] * 50 + ["failed"] + ["skipped"] * 49
    assert {engine.status(("side", i)) for i in range(100)} == {"succeeded"}
    lines = Counter(ledger.lines())
    assert set(lines.values()) == {1}
    assert len(lines) == 2 * 150 + 1


def test_random_deaths(tmp_path):
    """Workers killed at any moment: no node runs twice, none is lost, and each says what happened."""
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    runner = pool_of(2)
    call = short(step, runner, (str(tmp_path / "other"), -9, {}))
    killed = 0
    for turn in range(12):
        ledger = Ledger(tmp_path / f"ledger-{turn}")
        rows = [(row, i) for row in range(6) for i in range(60)]
        nodes = [
            Node(("first", row), lambda row=row, path=ledger.path: (str(path), 1000 * row, {})) for row in range(6)
        ]
        nodes += [Node((row, i), call, [(row, i - 1) if i else ("first", row)]) for row, i in rows]
        engine = Engine(nodes)
        over = threading.Event()

        def strike(over=over, most=3 * (turn + 1)):
            nonlocal killed
            while not over.wait(chance.random() * 0.004):
                for hand in list(runner._pool._hands.values())[:1]:
                    killed += hand.signal(signal.SIGKILL) is not False
                if killed > most:
                    return

        thread = threading.Thread(target=strike)
        thread.start()
        engine.orchestrate(timeout=PATIENCE)
        over.set()
        thread.join()
        noted = Counter(ledger.lines())
        assert not [line for line, count in noted.items() if count > 1], "a node ran twice"
        for row, i in rows:
            status, number = engine.status((row, i)), 1000 * row + i
            assert status in {"succeeded", "failed", "skipped"}, status
            if status == "succeeded":
                assert noted[f"end {number}"] == 1
            elif status == "skipped":
                assert not noted[f"begin {number}"]
            else:
                assert isinstance(engine.outcome((row, i)), WorkerFailure)
    assert killed


def test_stop(tmp_path):
    """`stop()` ends the one that runs; what was sent with it never runs."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    ledger = Ledger(tmp_path / "ledger")
    call = short(step, pool_of(1), (str(tmp_path / "other"), -9, {}))
    engine = Engine(chain(call, 100, (str(ledger.path), 0, {5: (started, release)})))

    def stop():
        started.wait()
        engine.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    assert not engine.orchestrate(timeout=PATIENCE)
    thread.join()
    assert [engine.status(i) for i in range(6)] == ["succeeded"] * 5 + ["stopped"]
    assert {engine.status(i) for i in range(6, 100)} <= {"stopped", "skipped"}  # whichever is noticed first
    assert "begin 6" not in ledger.lines()
    release.set()
    assert engine.reset() is None


def test_time_out(tmp_path):
    """The engine's time-out ends all, and a later drive makes what is missing."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    ledger = Ledger(tmp_path / "ledger")
    call = short(step, pool_of(1), (str(tmp_path / "other"), -9, {}))
    engine = Engine(chain(call, 30, (str(ledger.path), 0, {5: (started, release)})))
    assert not engine.orchestrate(timeout=0.5)
    assert "took longer" in engine.why()
    assert engine.status(5) == "stopped"
    assert {engine.status(i) for i in range(6, 30)} <= {"stopped", "skipped"}
    release.set()
    assert engine.orchestrate(timeout=PATIENCE)
    assert Counter(ledger.lines())["begin 29"] == 1
    assert engine.value(29)[1] == 30


def test_nobody_waits_any_more(tmp_path):
    """When the last who wants a target is cancelled, what was sent for it alone is stopped; others get theirs."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    path = str(tmp_path / "ledger")
    call = short(step, pool_of(1), (path, -9, {}))
    nodes = chain(call, 20, (path, 0, {5: (started, release)}))
    nodes += [Node("begin", lambda: (path, 100, {})), Node("a", call, ["begin"]), Node("b", call, ["a"])]
    engine = Engine(nodes)

    async def main():
        long = asyncio.create_task(engine.co_outcomes(19))
        await asyncio.to_thread(started.wait)
        other = asyncio.create_task(engine.co_outcomes("b"))
        await asyncio.sleep(0)
        long.cancel()
        results = await asyncio.wait_for(other, PATIENCE)
        release.set()
        return results

    (result,) = asyncio.run(main())
    assert result.value[1] == 102


def test_ctrl_c():
    """Ends everything at once: exactly the steps that began before are noted, and the program goes on."""
    script = textwrap.dedent("""
        import os, signal, sys, time
        import woflo
        from woflo import Node
        from woflo.engine import Engine
        from woflo.runners import PoolTaskRun

        def step(value):
            if value == 600:
                os.kill(os.getppid(), signal.SIGINT)
                time.sleep(60)
            return value + 1

        call = woflo.task(step, runner=PoolTaskRun.using(workers=2))
        for _ in range(20):
            call(0).get_result()
        engine = Engine([Node(-1, lambda: 0), *(Node(i, call, [i - 1]) for i in range(2000))])
        begin = time.monotonic()
        try:
            engine.orchestrate()
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - begin < 30)
        print(engine.status(599), engine.status(600), {engine.status(601), engine.status(1999)} <= {"stopped", "skipped"})
        print(call(1).get_result(timeout=60))
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout == "interrupted True\nsucceeded stopped True\n2\n", done.stderr


# ---------------------------------------------------------------------- the scheduler's part


def test_board_takes_only_what_is_closed():
    """A node goes along if all that it needs and has not ended does."""
    scheduler = Scheduler()
    scheduler.extend([[], [], [0], [0, 1], [2], [2, 3], [0, 2, 4]])
    assert scheduler.ready(1) == [0]
    assert scheduler.board([0], 9, lambda _: True) == [2, 4, 6]
    scheduler.validate()
    assert [scheduler.status(i) for i in (0, 2, 3)] == ["running", "waiting", "waiting"]
    scheduler.done(0)
    scheduler.hand_back(6)
    scheduler.validate()
    scheduler.done(2)
    scheduler.hand_back(4)
    scheduler.validate()
    assert scheduler.ready() == [1, 4]


def test_board_asks_and_counts():
    """Only those that are admitted, no more than are wanted; what is handed back too late does nothing."""
    scheduler = Scheduler()
    scheduler.extend([[], [0], [0], [1], [2]])
    assert scheduler.ready() == [0]
    assert scheduler.board([0], 2, lambda number: number != 1) == [2, 4]
    scheduler.validate()
    scheduler.done(0, failed=True)
    scheduler.hand_back(2)
    assert scheduler.blocked() == [1, 2]
    for number in (1, 2):
        scheduler.done(number, failed=True)
    scheduler.hand_back(2)
    scheduler.hand_back(4)
    assert scheduler.blocked() == [3, 4]


def test_ctrl_c_at_any_moment():
    """However often it comes: each drive ends at once with every node's end known, and the next makes what is missing."""
    source = """
        import os, random, signal, sys, time, woflo
        from woflo import Node
        from woflo.engine import Engine
        from woflo.runners import PoolTaskRun, _process

        def interrupt(number, frame):
            # Once for each time that the loop has armed it: a second one would strike outside its `try`.
            global armed
            if armed:
                armed = False
                signal.default_int_handler(number, frame)

        def follow(*values):
            return 1 + max(values, default=0)

        chance, armed = random.Random(int(sys.argv[1])), False
        call = woflo.task(follow, runner=PoolTaskRun.using(workers=2))
        [call(1).get_result() for _ in range(9)]
        rows = [(row, i) for row in range(3) for i in range(400)]
        nodes = [Node((row, i), call, [(row, i - 1), ((row + 1) % 3, i - 1)] if i else []) for row, i in rows]
        parent = os.getpid()
        signal.signal(signal.SIGINT, interrupt)
        if os.fork() == 0:
            end = time.monotonic() + 5
            while time.monotonic() < end:
                time.sleep(chance.random() * 0.008)
                os.kill(parent, signal.SIGINT)
            os._exit(0)
        struck, longest, end = 0, 0, time.monotonic() + 5.3
        while time.monotonic() < end:
            engine, begin = Engine(nodes), time.monotonic()
            try:
                armed = True
                engine.orchestrate()
                armed = False
            except KeyboardInterrupt:
                struck += 1
                longest = max(longest, time.monotonic() - begin)
                ends = {engine.status(node.target) for node in nodes}
                assert ends <= {"succeeded", "stopped", "skipped", "idle"}, ends
                assert engine.orchestrate() or "stopped" in engine.why() or "interrupted" in engine.why(), engine.why()
            if not engine.failures:
                assert [engine.value((row, 399)) for row in range(3)] == [400] * 3
        assert struck > 5, struck
        assert longest < 5, longest
        deadline = time.monotonic() + 10
        while _process.live:
            assert time.monotonic() < deadline, _process.live
            time.sleep(0.05)
        print("all ended")
    """
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(woflo.__file__))}
    command = [sys.executable, "-c", textwrap.dedent(source), str(SEED)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout == "all ended\n", done.stderr[-3000:]
