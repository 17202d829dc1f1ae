"""Lazy and LazyDB: each is made once, whoever asks, however they are tangled; and what the engine under them promises.

The rows of the fault table's section on lazy layers are tests here, marked "Row:". What the seed itself says is in
`tests/seeds/test_000.py`.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import itertools
import os
import pickle
import random
import re
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from woflo import StoppedFailure, UsageError, WaitTimeout, _drive, task
from woflo.errors import CyclicWorkflowError
from woflo.lazy import (
    DependencyFailure,
    Lazy,
    LazyDB,
    MissingDependency,
    MissingFailure,
    Ok,
    Phony,
    TaskFailure,
    _engine_here,
    _LazyEngine,
    compute,
)
from woflo.runners import MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun
from woflo.testing import PATIENCE


@dataclass
class Job(Lazy[str, object]):
    """Counts its runs, and does what `does` says: a value, an exception, a Lazy, or a coroutine function to await."""

    does: object = None
    runs: int = 0
    seen: list = field(default_factory=list)

    async def run(self, **kwargs):
        self.runs += 1
        self.seen.append(kwargs)
        does = self.does
        if callable(does):
            does = await does(**kwargs)
        if isinstance(does, BaseException):
            raise does
        return does


def database(**requires):
    """`a="bc"`: a job that creates a, requires b and c, and whose value is its name."""
    db = LazyDB()
    for name, needs in requires.items():
        db.add(Job([name], list(needs), name))
    return db


def runs(db):
    return {one.creates[0]: one.runs for one in db.tasks}


def run(coroutine, seconds=PATIENCE):
    """Run a coroutine on a loop of its own; a hang fails."""

    async def main():
        return await asyncio.wait_for(coroutine, seconds)

    return asyncio.run(main())


async def together(db, /, *targets, **kwargs):
    return await asyncio.gather(*(db.run(target, **kwargs) for target in targets), return_exceptions=True)


def is_cycle(path, needs):
    """Whether each of a path's targets needs the next, and the last one the first."""
    return len(set(path)) == len(path) and all(b in needs[a] for a, b in zip(path, path[1:] + path[:1], strict=True))


# ---------------------------------------------------------------------- cycles


@pytest.mark.parametrize(
    ("requires", "roots", "length"),
    [
        ({"a": "b", "b": "a"}, "ab", 2),
        ({"r": "ab", "a": "b", "b": "a"}, "r", 2),
        ({"r": "ac", "a": "b", "b": "c", "c": "a"}, "r", 3),
        ({"r": "ac", "a": "b", "b": "c", "c": "a", "s": "r", "d": ""}, "srabc", 3),
        ({"a": "a"}, "a", 1),
        ({"a": "bc", "b": "c", "c": "da", "d": "e", "e": "f", "f": "c"}, "fa", 2),
    ],
)
def test_cycles_are_reported_before_anything_runs(requires, roots, length):
    """Row: a↔b from both, r→(a,b), r→(a,c) with a→b→c→a: each who asks is told of the shortest cycle, nothing runs."""
    db = database(**requires)
    for answer in run(together(db, *roots)):
        assert isinstance(answer, CyclicWorkflowError)
        assert len(answer.cycle) <= length or answer.cycle[0] in "cdef"
        assert is_cycle(answer.cycle, requires)
    assert not any(runs(db).values())


def test_a_cycle_by_a_second_name():
    """Row: one task with the targets x and y, y is needed by q, q by the task: a cycle, not a wait for itself."""
    db = LazyDB()
    db.add(Job(["x", "y"], ["q"]))
    db.add(Job(["q"], ["y"]))
    for answer in run(together(db, "x", "y", "q")):
        assert isinstance(answer, CyclicWorkflowError)
    assert not any(runs(db).values())


def digraphs(sample):
    """All digraphs of up to three nodes, loops included, and so many of those of four."""
    for size in (1, 2, 3):
        pairs = list(itertools.product(range(size), repeat=2))
        for bits in range(2 ** len(pairs)):
            yield size, [pair for at, pair in enumerate(pairs) if bits >> at & 1]
    pairs = list(itertools.product(range(4), repeat=2))
    draw = random.Random(20)
    for bits in draw.sample(range(2**16), sample):
        yield 4, [pair for at, pair in enumerate(pairs) if bits >> at & 1]


def oracle(size, edges):
    """Who reaches a cycle, by closure."""
    needs = {one: {b for a, b in edges if a == one} for one in range(size)}
    reach = {one: set(needs[one]) for one in range(size)}
    for _ in range(size):
        for one in range(size):
            reach[one] |= set().union(*(reach[other] for other in reach[one]))
    return {one for one in range(size) if one in reach[one] or any(other in reach[other] for other in reach[one])}


@pytest.mark.parametrize(
    "sample", [1200, pytest.param(2**16, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])], ids=["sample", "all"]
)
def test_digraphs_against_an_oracle(sample):
    """A cycle of any shape, with any number of entry points at once, is an error for those who reach it; others run, once."""

    async def main():
        for size, edges in digraphs(sample):
            names = "abcd"[:size]
            requires = {names[one]: [names[b] for a, b in edges if a == one] for one in range(size)}
            db = database(**requires)
            answers = await asyncio.wait_for(together(db, *names), PATIENCE)
            bad = {names[one] for one in oracle(size, edges)}
            for name, answer in zip(names, answers, strict=True):
                if name in bad:
                    assert isinstance(answer, CyclicWorkflowError), (requires, name, answer)
                    assert is_cycle(answer.cycle, requires), (requires, answer.cycle)
                else:
                    assert answer == Ok(name), (requires, name, answer)
            assert runs(db) == {name: int(name not in bad) for name in names}, requires

    asyncio.run(main())


def test_a_cycle_does_not_disturb_what_runs():
    """Who asks for a cycle while others wait is told; the others get their values."""

    async def main():
        begun, go = asyncio.Event(), asyncio.Event()

        async def wait(**_):
            begun.set()
            await go.wait()
            return 1

        db = database(a="b", b="a")
        db.add(Job(["slow"], [], wait))
        db.add(Job(["c"], ["slow", "a"]))
        slow = asyncio.create_task(db.run("slow"))
        await begun.wait()
        with pytest.raises(CyclicWorkflowError):
            await db.run("c")
        go.set()
        assert await slow == Ok(1)
        db.index["b"].requires.clear()
        assert await db.run("a") == Ok("a")
        assert runs(db) == {"a": 1, "b": 1, "slow": 1, "c": 0}

    run(main())


def test_a_cycle_through_what_a_task_returns():
    """A task that returns itself, or what needs it, fails by a cycle that names the way round; nothing hangs."""
    db = LazyDB()
    me = Job(["me"], [])
    me.does = me
    db.add(me)
    first = Job(["first"], [])
    second = Job(["second"], ["third"])
    third = Job(["third"], ["first"])
    first.does = second
    for one in (first, second, third):
        db.add(one)

    async def main():
        return await together(db, "me", "second", "first")

    me_failure, second_failure, first_failure = run(main())
    assert isinstance(me_failure.__cause__, CyclicWorkflowError)
    assert me_failure.__cause__.cycle == ["me"]
    assert isinstance(first_failure.__cause__, CyclicWorkflowError)
    assert first_failure.__cause__.cycle == ["first", "second", "third"]
    assert isinstance(second_failure, DependencyFailure)
    assert runs(db) == {"me": 1, "first": 1, "second": 0, "third": 0}
    for one in db.tasks:
        assert not one
        with pytest.raises(ValueError, match="failed"):
            _ = one.result


def test_two_that_return_each_other():
    """Two tasks that stand for each other fail, both of them, and can be asked."""
    a, b = Job(["a"], []), Job(["b"], [])
    a.does, b.does = b, a
    db = LazyDB()
    db.add(a)
    db.add(b)
    for answer in run(together(db, "a", "b")):
        assert isinstance(answer, TaskFailure)
        assert isinstance(answer.__cause__, CyclicWorkflowError)
    assert not a
    assert not b
    assert runs(db) == {"a": 1, "b": 1}


def test_a_cycle_that_comes_by_a_reset():
    """Two that come to stand for each other by a reset fail, and can be asked: nobody follows them for ever."""
    a, b = Job(["a"], []), Job(["b"], [], 1)
    a.does = b
    db = LazyDB()
    db.add(a)
    db.add(b)
    assert run(db.run("a")) == Ok(1)
    a.reset()
    b.reset()
    a.does, b.does = 5, a
    assert run(db.run("b")) == Ok(5)
    a.reset()
    a.does = b
    for target in "ab":
        assert isinstance(run(db.run(target)).__cause__, CyclicWorkflowError)
    assert not a
    assert not b


def test_a_task_that_asks_for_what_needs_it():
    """A `run` that awaits `db.run` of what needs it is told of the cycle instead of waiting for ever."""
    db = LazyDB()

    async def ask(*, db):
        return await db.run("b", db=db)

    db.add(Job(["a"], [], ask))
    db.add(Job(["b"], ["c"], 2))
    db.add(Job(["c"], ["a"], 2))
    for targets in ("a", "ab", "ba", "cab"):
        db.reset()
        for answer in run(together(db, *targets, db=db)):
            roots = answer.root_causes() if isinstance(answer, DependencyFailure) else [answer]
            assert [root.__cause__.cycle for root in roots] == [["a", "b", "c"]]
    assert db.index["b"].runs == db.index["c"].runs == 0


def test_two_tasks_that_ask_for_each_other():
    """Two tasks whose code waits for each other: the one that comes second is told, the first then has an answer."""
    db = LazyDB()
    begun = {"a": asyncio.Event(), "b": asyncio.Event()}

    def asking(me, other):
        async def ask(*, db):
            begun[me].set()
            await begun[other].wait()
            return [await db.run(other, db=db)]

        return ask

    db.add(Job(["a"], [], asking("a", "b")))
    db.add(Job(["b"], [], asking("b", "a")))
    a, b = run(together(db, "a", "b", db=db))
    told, got = (a, b) if isinstance(a, TaskFailure) else (b, a)
    assert isinstance(told.__cause__, CyclicWorkflowError)
    assert got == Ok([told])
    assert runs(db) == {"a": 1, "b": 1}


def test_a_task_may_ask_for_others():
    """A `run` may await `db.run` of what doesn't need it: what is shared is made once."""
    db = LazyDB()

    async def ask(*, db):
        return [result.value for result in await asyncio.gather(db.run("b", db=db), db.run("c", db=db))]

    db.add(Job(["a"], ["c"], ask))
    db.add(Job(["b"], ["c", "d"], 2))
    db.add(Job(["c"], [], 3))
    db.add(Job(["d"], [], 4))
    assert run(together(db, "a", "b", db=db)) == [Ok([2, 3]), Ok(2)]
    assert runs(db) == dict.fromkeys("abcd", 1)


# ---------------------------------------------------------------------- failures


def test_a_leaf_that_fails_ran_once():
    """Row: a leaf raises ValueError under two dependants: it ran once, and both fail by it; so does who asks later."""
    error = ValueError("no")
    db = database(a="bc", b="d", c="d", e="d", other="")
    db.add(Job(["d"], [], error))
    a, e, d, other = run(together(db, "a", "e", "d", "other"))
    assert isinstance(d, TaskFailure)
    assert d.__cause__ is error
    assert a.root_causes() == e.root_causes() == [d]
    assert set(a.dependencies) == {"b", "c"}
    assert other == Ok("other")
    assert run(db.run("d")) is d
    assert run(db.run("a")) is a
    assert runs(db) == {"a": 0, "b": 0, "c": 0, "e": 0, "other": 1, "d": 1}


@pytest.mark.parametrize(
    "error", [ValueError("x"), StopIteration(), KeyError("k"), SystemExit(3), TaskFailure("on purpose")]
)
def test_whatever_a_task_raises_is_a_task_failure(error):
    """Difference from the seed: any exception becomes a TaskFailure with its cause, and is remembered."""
    db = LazyDB()
    db.add(Job(["a"], [], error))
    failure = run(db.run("a"))
    assert type(failure) is TaskFailure
    if isinstance(error, TaskFailure):
        assert failure.message == "on purpose"
    elif not isinstance(error, StopIteration):  # which a coroutine can't raise: Python makes it a RuntimeError
        assert failure.__cause__ is error
    assert run(db.run("a")) is failure
    assert db.tasks[0].runs == 1


def test_a_second_producer():
    """Row, and difference from the seed: a second producer of a target is a UsageError, and nothing is added."""
    db = database(a="")
    with pytest.raises(UsageError, match="'a' is made by another task already"):
        db.add(Job(["b", "a"], []))
    assert list(db.index) == ["a"]
    assert len(db.tasks) == 1
    db.add(db.tasks[0])
    assert len(db.tasks) == 1


def test_a_failure_points_at_the_users_code():
    """The traceback of a failure begins in the task's `run`."""
    db = LazyDB()

    async def fail(**_):
        raise ValueError("here")

    db.add(Job(["a"], [], fail))
    failure = run(db.run("a"))
    frame = failure.__cause__.__traceback__.tb_frame
    assert frame.f_code is Job.run.__code__


# ---------------------------------------------------------------------- who waits


class Gate:
    """A task's body that says when it has begun, waits, and says how it was ended."""

    def __init__(self, value="made"):
        self.value = value
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.ended = asyncio.Event()
        self.cancelled = False

    async def __call__(self, **_):
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()
        return self.value


def test_a_cancelled_waiter_does_not_cancel_what_others_wait_for():
    """Row: the first waiter is cancelled while the task runs: it isn't run again, the second waiter gets it."""

    async def main():
        gate = Gate()
        db = LazyDB()
        db.add(Job(["a"], [], gate))
        db.add(Job(["b"], ["a"], "b"))
        first = asyncio.create_task(db.run("a"))
        second = asyncio.create_task(db.run("b"))
        await gate.begun.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        third = asyncio.create_task(db.run("a"))
        await asyncio.sleep(0)
        gate.go.set()
        assert await asyncio.gather(second, third) == [Ok("b"), Ok("made")]
        assert runs(db) == {"a": 1, "b": 1}
        assert not gate.cancelled

    run(main())


def test_what_nobody_waits_for_ends():
    """The last who waits for a task is cancelled: it is stopped, what others want goes on; asked again, it runs again."""

    async def main():
        mine, others = Gate(), Gate("others")
        db = LazyDB()
        db.add(Job(["a"], [], mine))
        db.add(Job(["c"], ["a"], "c"))
        db.add(Job(["b"], [], others))
        first, second, third = (asyncio.create_task(db.run(target)) for target in "acb")
        await mine.begun.wait()
        await others.begun.wait()
        first.cancel()
        second.cancel()
        await mine.ended.wait()
        assert mine.cancelled
        assert not others.ended.is_set()
        mine.go.set()
        assert await db.run("c") == Ok("c")
        others.go.set()
        assert await third == Ok("others")
        assert runs(db) == {"a": 2, "c": 1, "b": 1}

    run(main())


def test_the_last_waiter_ends_everything():
    """When nobody waits any more the cancelled call returns after what ran has ended; the database is idle then."""

    async def main():
        gate = Gate()
        db = LazyDB()
        db.add(Job(["a"], [], gate))
        only = asyncio.create_task(db.run("a"))
        await gate.begun.wait()
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        assert gate.cancelled
        return db, gate

    db, _gate = run(main())
    assert db.tasks[0]._result is None

    async def again():
        db.tasks[0].does = 5
        return await db.run("a")

    assert run(again()) == Ok(5)


def test_an_end_that_comes_after_the_last_waiter_left():
    """The race of a run's end with its being dropped: news of it may stand in the queue by then, and is no result."""

    async def main():
        mine, others = Gate(), Gate("others")
        db = LazyDB()
        db.add(Job(["a"], [], mine))
        db.add(Job(["b"], [], others))
        first, second = (asyncio.create_task(db.run(target)) for target in "ab")
        await mine.begun.wait()
        drive = db._engine._driver.drive
        number = drive.number("a")
        first.cancel()
        await mine.ended.wait()
        drive._news.append(number)
        drive.advance()
        assert db.tasks[0]._result is None
        others.go.set()
        assert await second == Ok("others")

    run(main())


def test_waiters_that_are_cancelled_together_cost_little():
    """A thousand waiters for a thousand tasks, cancelled at once: everything ends, one is left and gets its own."""

    async def main():
        db = LazyDB()
        gates = [Gate(number) for number in range(1000)]
        for number, gate in enumerate(gates):
            db.add(Job([str(number)], [], gate))
        waiting = [asyncio.create_task(db.run(str(number))) for number in range(1000)]
        for gate in gates:
            await gate.begun.wait()
        for one in waiting[1:]:
            one.cancel()
        for gate in gates[1:]:
            await gate.ended.wait()
        gates[0].go.set()
        assert await waiting[0] == Ok(0)

    run(main())


def test_a_task_that_is_followed_is_not_run_again_when_the_other_was_stopped():
    """A task's own work is kept when what it returned is stopped: asked again, only that is run again."""

    async def main():
        gate = Gate()
        inner = Job(["inner"], [], gate)
        db = LazyDB()
        db.add(Job(["a"], [], inner))
        only = asyncio.create_task(db.run("a"))
        await gate.begun.wait()
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        assert not db.tasks[0]
        gate.go.set()
        assert await db.run("a") == Ok("made")
        assert (db.tasks[0].runs, inner.runs) == (1, 2)

    run(main())


def test_on_a_second_loop_while_at_work():
    """A database at work on one loop refuses another loop; when it is idle any loop may use it."""
    db = LazyDB()
    begun, go = threading.Event(), threading.Event()

    async def wait(**_):
        begun.set()
        await asyncio.to_thread(go.wait, PATIENCE)
        return 1

    db.add(Job(["a"], [], wait))
    db.add(Job(["b"], [], 2))
    answers = []
    thread = threading.Thread(target=lambda: answers.append(run(db.run("a"))))
    thread.start()
    assert begun.wait(PATIENCE)
    with pytest.raises(UsageError, match="at work on another event loop"):
        run(db.run("b"))
    go.set()
    thread.join()
    assert answers == [Ok(1)]
    assert run(db.run("b")) == Ok(2)


def test_a_loop_that_was_closed_does_not_keep_it():
    """A loop that was closed in the middle of a run doesn't leave the database at work for ever."""
    db = LazyDB()

    async def never(**_):
        await asyncio.Event().wait()

    db.add(Job(["a"], [], never))
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(db.run("a"))
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    for one in asyncio.all_tasks(loop):
        one._log_destroy_pending = False
    loop.close()
    db.tasks[0].does = 1
    assert run(db.run("a")) == Ok(1)
    del waiting
    gc.collect()


def test_the_keywords_of_who_comes_first():
    """Calls at once: a task is run once, with the keywords of whoever wanted it first."""
    db = database(a="b", b="", c="b", d="")

    async def main():
        await asyncio.gather(db.run("a", who=1), db.run("c", who=2), db.run("d", who=3))

    run(main())
    assert {one.creates[0]: one.seen for one in db.tasks} == {
        "a": [{"who": 1}],
        "b": [{"who": 1}],
        "c": [{"who": 2}],
        "d": [{"who": 3}],
    }


def test_what_is_followed_gets_the_same_keywords():
    """A task that another one returned is run with the keywords of that one."""

    async def main():
        gate = Gate()
        inner = Job(["inner"], ["deep"], "value")
        gate.value = inner
        db = database(deep="", late="")
        db.add(Job(["a"], [], gate))
        first = asyncio.create_task(db.run("a", who=1))
        await gate.begun.wait()
        assert await db.run("late", who=2) == Ok("late")
        gate.go.set()
        assert await first == Ok("value")
        assert inner.seen == db.index["deep"].seen == [{"who": 1}]

    run(main())


# ---------------------------------------------------------------------- what is asked, and when


def test_requires_edited_after_add():
    """`requires` is read when a target is wanted, not when its task is added; also between two calls at once."""

    async def main():
        gate = Gate()
        db = database(a="", b="", c="")
        db.add(Job(["slow"], [], gate))
        slow = asyncio.create_task(db.run("slow"))
        await gate.begun.wait()
        db.index["a"].requires.append("b")
        assert await db.run("a") == Ok("a")
        db.index["a"].reset()
        db.index["a"].requires.append("c")
        assert await db.run("a") == Ok("a")
        gate.go.set()
        await slow
        return runs(db)

    assert run(main()) == {"a": 2, "b": 1, "c": 1, "slow": 1}


def test_reset_while_others_run():
    """What is reset runs again when it is wanted again, even in the middle of other work."""

    async def main():
        gate = Gate()
        db = database(a="b", b="")
        db.add(Job(["slow"], ["b"], gate))
        slow = asyncio.create_task(db.run("slow"))
        assert await db.run("a") == Ok("a")
        db.index["b"].reset()
        db.index["a"].reset()
        assert await db.run("a") == Ok("a")
        gate.go.set()
        assert await slow == Ok("made")
        return runs(db)

    assert run(main()) == {"a": 2, "b": 2, "slow": 1}


def test_a_dependant_of_what_was_reset_fails_by_what_it_waited_for():
    """A task that waits keeps to what it was given: a reset of what had failed under it doesn't lose the cause."""

    async def main():
        gate = Gate()
        db = LazyDB()
        db.add(Job(["bad"], [], ValueError("first")))
        db.add(Job(["gone"], ["bad"], "gone"))
        db.add(Job(["slow"], [], gate))
        db.add(Job(["a"], ["bad", "slow"], "a"))
        waiting = asyncio.create_task(db.run("a"))
        await gate.begun.wait()
        assert isinstance(await db.run("gone"), DependencyFailure)
        db.index["bad"].reset()
        db.index["bad"].does = "good"
        assert await db.run("bad") == Ok("good")
        gate.go.set()
        failure = await waiting
        assert isinstance(failure, DependencyFailure)
        assert [str(root.__cause__) for root in failure.root_causes()] == ["first"]

    run(main())


def test_a_target_that_comes_later():
    """A missing target can be added later, also in the middle of other work."""

    async def main():
        gate = Gate()
        db = LazyDB()
        db.add(Job(["slow"], [], gate))
        slow = asyncio.create_task(db.run("slow"))
        assert isinstance(await db.run("a"), MissingFailure)
        db.add(Job(["a"], [], 1))
        assert await db.run("a") == Ok(1)
        gate.go.set()
        await slow

    run(main())


def test_on_missing_makes_each_once():
    """`on_missing` is asked once per target while the database is at work, and what it makes runs once."""

    class Making(LazyDB):
        asked = 0
        made = None

        def on_missing(self, t):
            self.asked += 1
            if t == "none":
                raise MissingDependency
            self.made = Job([t], [], t)
            return self.made

    db = Making()
    for name in "abc":
        db.add(Job([name], ["leaf"], name))
    follow = Job(["follow"], ["leaf"], Job(["x"], ["leaf"], 9))
    db.add(follow)
    assert run(together(db, "a", "b", "c", "follow")) == [Ok("a"), Ok("b"), Ok("c"), Ok(9)]
    assert (db.asked, db.made.runs) == (1, 1)
    assert isinstance(run(db.run("none")), MissingFailure)


def test_on_missing_that_answers_with_one_task_for_several_targets():
    """One task for several missing targets is one task: it runs once."""
    one = Job([], [], 1)

    class Making(LazyDB):
        def on_missing(self, t):
            assert t in {"x", "y"}
            return one

    db = Making()
    db.add(Job(["a"], ["x", "y"], "a"))
    assert run(together(db, "x", "a", "y")) == [Ok(1), Ok("a"), Ok(1)]
    assert one.runs == 1


def test_on_missing_that_raises():
    """What `on_missing` raises reaches whoever asked; behind a task that returned a Lazy it fails that task."""

    class Broken(LazyDB):
        def on_missing(self, t):
            raise KeyError(t)

    db = Broken()
    db.add(Job(["a"], ["b"], "a"))
    with pytest.raises(KeyError):
        run(db.run("a"))
    db.add(Job(["c"], [], Job([], ["b"])))
    failure = run(db.run("c"))
    assert isinstance(failure.__cause__, KeyError)
    db.index["a"].requires.clear()
    assert run(db.run("a")) == Ok("a")


def test_following_a_chain():
    """Lazies that return Lazies are followed to the end, by a loop."""
    last = Job(["last"], [], "end")
    one = last
    for _ in range(3000):
        one = Job([], [], one)
    db = LazyDB()
    db.add(Job(["a"], [], one))
    db.add(Job(["b"], ["a"], "b"))
    assert run(together(db, "b", "a")) == [Ok("b"), Ok("end")]
    assert db.index["a"].result == "end"
    assert last.runs == 1


def test_a_follower_fails_with_what_it_followed():
    """A task that returned a Lazy that failed ends in that failure; it is false, and its dependants fail by it."""
    db = database(b="a")
    db.add(Job(["a"], [], Job([], [], ValueError("inner"))))
    b, a = run(together(db, "b", "a"))
    assert isinstance(a.__cause__, ValueError)
    assert b.dependencies["a"] is a
    assert not db.index["a"]
    assert run(db.run("a")) is a


def test_equal_tasks_are_two():
    """Two tasks whose fields are equal are two tasks all the same."""

    @dataclass
    class Plain(Lazy):
        async def run(self, **_):
            made.append(1)
            return len(made)

    made = []
    db = LazyDB()
    first, second = Plain([], []), Plain([], [])
    assert first == second
    db.add(Job(["a"], [], first))
    db.add(Job(["b"], [], second))
    assert sorted(result.value for result in run(together(db, "a", "b"))) == [1, 2]


def test_requires_may_name_a_target_twice():
    """A target required twice, or created twice, is one target."""
    db = LazyDB()
    db.add(Job(["a"], ["b", "b", Phony("p"), "b"], "a"))
    db.add(Job(["b", "b"], [], "b"))
    db.add(Job([Phony("p")], ["b"], "p"))
    assert run(together(db, "a", "b", Phony("p"))) == [Ok("a"), Ok("b"), Ok("p")]
    assert [one.runs for one in db.tasks] == [1, 1, 1]


def test_copies_and_pickles():
    """A Lazy, and a database, can be copied and pickled with what they ended in, and the copy is one of its own."""
    db = LazyDB()
    db.add(Whole(["a"], []))
    assert run(db.run("a")) == Ok(1)
    for other in (copy.copy(db), copy.deepcopy(db), pickle.loads(pickle.dumps(db))):
        assert other.index["a"].result == 1
        assert run(other.run("a")) == Ok(1)
    one = copy.copy(db.tasks[0])
    one.reset()
    assert db.tasks[0]
    assert not one


@dataclass
class Whole(Lazy[str, int]):
    async def run(self, **_):
        return 1


# ---------------------------------------------------------------------- any graph


@st.composite
def dags(draw):
    """Requirements by number, each of earlier ones only; which fail; and what is asked for."""
    size = draw(st.integers(1, 12))
    requires = [
        sorted(draw(st.sets(st.integers(0, max(one - 1, 0)), max_size=4))) if one else [] for one in range(size)
    ]
    bad = draw(st.sets(st.integers(0, size - 1), max_size=2))
    asked = draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5))
    return requires, bad, asked


@settings(max_examples=200, deadline=None)
@given(dags())
def test_any_graph(graph):
    """Invariants 2 and 3: each wanted task starts at most once and ends in one Result; behind a failure it doesn't run."""
    requires, bad, asked = graph
    order = []
    db = LazyDB()

    def body(number):
        async def work(**_):
            await asyncio.sleep(0)
            order.append(number)
            if number in bad:
                raise ValueError(number)
            return number

        return work

    for number, needs in enumerate(requires):
        db.add(Job([number], list(needs), body(number)))
    answers = run(together(db, *asked))
    wanted, todo = set(), list(asked)
    while todo:
        one = todo.pop()
        if one not in wanted:
            wanted.add(one)
            todo.extend(requires[one])
    fails = set()
    for one in sorted(wanted):
        if one in bad or any(need in fails for need in requires[one]):
            fails.add(one)
    ran = {one for one in wanted if not any(need in fails for need in requires[one])}
    assert Counter(order) == Counter(ran)
    assert all(order.index(need) < order.index(one) for one in ran for need in requires[one])
    for one, answer in zip(asked, answers, strict=True):
        if one not in fails:
            assert answer == Ok(one)
        elif one in ran:
            assert isinstance(answer.__cause__, ValueError)
        else:
            assert isinstance(answer, DependencyFailure)
            assert set(answer.dependencies) == {need for need in requires[one] if need in fails}
    assert [db.index[one]._result for one in asked] == answers
    order.clear()
    assert run(together(db, *asked)) == answers
    assert not order


def test_memory_of_a_chain_is_linear():
    """Row: a chain of N takes memory in proportion to N, not to its square."""

    def peak(length):
        db = LazyDB()
        for number in range(length):
            db.add(Whole([number], [number - 1] if number else []))
        tracemalloc.start()
        try:
            assert run(db.run(length - 1)) == Ok(1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    assert peak(4000) < 8 * peak(1000)


DEEP = """
import asyncio
from woflo import task
from woflo.lazy import Lazy, LazyDB, Ok
from woflo.runners import SequentialTaskRun, ThreadTaskRun
from dataclasses import dataclass

N = 100_000

@dataclass
class One(Lazy):
    async def run(self, **_):
        return 1

def chain():
    db = LazyDB()
    for number in range(N):
        db.add(One([number], [number - 1] if number else []))
    assert asyncio.run(db.run(N - 1)) == Ok(1)

def fan():
    db = LazyDB()
    db.add(One(["leaf"], []))
    for number in range(N):
        db.add(One([number], ["leaf"]))
    db.add(One(["root"], list(range(N))))
    assert asyncio.run(db.run("root")) == Ok(1)

def failing_chain():
    db = LazyDB()
    for number in range(N):
        db.add(One([number], [number - 1]))
    assert [str(root) for root in asyncio.run(db.run(N - 1)).root_causes()] == ["Missing dependency: -1"]

def calls():
    add = task(lambda one, two: one + two, runner=SequentialTaskRun)
    one = Lazy.of(add, 0, 0)
    for _ in range(N):
        one = Lazy.of(add, one, 1)
    assert one.compute() == N
    assert len(str(one)) < 100 and len(repr(one)) < 100

def fan_of_calls():
    add = task(lambda one, two: one + two, runner=SequentialTaskRun)
    total = task(sum, runner=SequentialTaskRun)
    leaf = Lazy.of(add, 0, 1)
    assert Lazy.of(total, [Lazy.of(add, leaf, 1) for _ in range(N)]).compute() == 2 * N

{which}()
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="ulimit needs POSIX")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("which", ["chain", "fan", "failing_chain", "calls", "fan_of_calls"])
def test_deep_and_wide_under_a_small_stack(which):
    """Chains and fans of 100,000 work under `ulimit -s 512`."""
    done = subprocess.run(
        ["sh", "-c", 'ulimit -s 512; exec "$0" -c "$1"', sys.executable, DEEP.replace("{which}", which)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.stdout, done.stderr[-2000:]) == ("done\n", "")


# ---------------------------------------------------------------------- Lazy.of


RUNNERS = [SequentialTaskRun, ThreadTaskRun, MultiprocessTaskRun]


@pytest.fixture
def ledger(tmp_path):
    """A task that notes each of its runs in a file, by whatever process, and the reader of that file."""
    path = tmp_path / "ledger"

    def add(*numbers, more=()):
        with path.open("a") as file:
            file.write("x")
        return sum(numbers) + sum(more)

    return add, lambda: len(path.read_text()) if path.exists() else 0


@pytest.mark.parametrize("runner", RUNNERS)
def test_nothing_runs_until_asked_and_then_once(runner, ledger):
    """A Lazy shared by ten others runs once, on the task's runner; nothing runs before somebody asks."""
    add, count = ledger
    adding = task(add, runner=runner)
    shared = Lazy.of(adding, 1, 2)
    ten = [Lazy.of(adding, shared, number) for number in range(10)]
    total = Lazy.of(adding, more=ten)
    assert count() == 0
    assert not total
    assert total.compute(timeout=PATIENCE) == 75
    assert count() == 12
    assert shared.result == 3
    assert compute(*ten) == [3 + number for number in range(10)]
    assert total.compute() == 75
    assert count() == 12


@pytest.mark.parametrize("runner", RUNNERS)
def test_awaited(runner, ledger):
    """`await` makes it without blocking the loop; what several await at once is made once."""
    add, count = ledger
    adding = task(add, runner=runner)

    async def main():
        shared = Lazy.of(adding, 1, 2)
        return await asyncio.gather(shared, shared, Lazy.of(adding, shared, shared), Lazy.of(adding, more=[shared, 4]))

    assert run(main()) == [3, 3, 6, 7]
    assert count() == 3


@dataclass
class Pair:
    left: object
    right: object


def test_where_lazies_are_found():
    """Among the arguments and keywords, in lists, tuples, dicts and dataclasses, at any depth; what holds none is untouched."""
    same = task(lambda *args, **kwargs: (args, kwargs), runner=SequentialTaskRun)
    one = Lazy.of(task(lambda: 1, runner=SequentialTaskRun))
    plain = [1, 2]
    args, kwargs = Lazy.of(same, [one, (one, {"k": one})], plain, Pair(one, [one]), key={"x": [one]}).compute()
    assert args == ([1, (1, {"k": 1})], plain, Pair(1, [1]))
    assert args[1] is plain
    assert kwargs == {"key": {"x": [1]}}


def test_a_lazy_of_class_and_of_call_mix():
    """A Lazy with a `run` of its own can be an argument, and a task may return a Lazy: it is followed."""
    double = task(lambda x: 2 * x, runner=SequentialTaskRun)
    assert Lazy.of(double, Whole([], [])).compute() == 2
    returns = task(lambda: Lazy.of(double, 21), runner=SequentialTaskRun)
    outer = Lazy.of(double, Lazy.of(returns))
    assert outer.compute() == 84
    db = LazyDB()
    db.add(Job(["a"], [], Lazy.of(double, 4)))
    assert run(db.run("a")) == Ok(8)


def test_runs_among_the_arguments():
    """A TaskRun among the arguments is an input as in a plain call."""
    double = task(lambda x: 2 * x, runner=ThreadTaskRun)
    assert Lazy.of(double, double(2)).compute() == 8
    assert Lazy.of(task(lambda a, b: a + b, runner=ThreadTaskRun), double(2), Lazy.of(double, 3)).compute() == 10


def test_compute_under_a_running_loop():
    """`compute` blocks where a loop runs too, as in a notebook: its coroutines are run by another thread's loop."""

    async def body():
        await asyncio.sleep(0)
        return threading.get_ident()

    async def main():
        return Lazy.of(task(body)).compute(timeout=PATIENCE)

    assert run(main()) != threading.get_ident()


def test_a_coroutine_may_await_a_lazy():
    """What a task awaits in its own code is made once for all; one that needs the task itself is a cycle."""

    async def body(x):
        ran.append(x)
        return x

    async def asks(x):
        return [x, await keep[0]]

    async def ask_first(_):
        return await keep[1]

    ran, keep = [], []

    async def start():
        keep.append(Lazy.of(task(body), 1))
        assert await asyncio.gather(keep[0], Lazy.of(task(asks), 3)) == [1, [3, 1]]
        assert ran == [1]
        me = Lazy.of(task(ask_first), 0)
        keep.append(Lazy.of(task(body), me))
        with pytest.raises(CyclicWorkflowError):
            await me
        assert ran == [1]

    run(start())


def test_a_value_that_is_asked_for_again_meanwhile():
    """A value that others asked for and used up meanwhile still reaches who has waited all the time."""

    async def main():
        gate = Gate(10)

        async def wait():
            return await gate()

        add = task(lambda a, b: a + b, runner=SequentialTaskRun)
        shared = Lazy.of(add, 1, 2)
        waiting = asyncio.create_task(outer_of(Lazy.of(add, shared, Lazy.of(task(wait)))))
        await gate.begun.wait()
        assert await Lazy.of(add, shared, 4) == 7
        gate.go.set()
        assert await waiting == 13

    run(main())


def test_retries_count():
    """The task's own policy holds: it is tried again."""
    left = [OSError(), OSError()]

    def unstable():
        if left:
            raise left.pop()
        return "fetched"

    assert Lazy.of(task(unstable, retries=2, runner=ThreadTaskRun)).compute() == "fetched"


@pytest.mark.parametrize("runner", RUNNERS)
def test_failures_raise_as_get_result_does(runner):
    """The task's own exception, or the DependencyFailure of what needed it; the same each time, and nothing runs twice."""

    def fail():
        raise LookupError("nothing")

    bad = Lazy.of(task(fail, runner=runner))
    outer = Lazy.of(task(lambda x: x, runner=runner), bad)
    for _ in range(2):
        with pytest.raises(LookupError, match="nothing"):
            bad.compute()
        with pytest.raises(DependencyFailure, match="nothing"):
            outer.compute()
    with pytest.raises(LookupError):
        run(outer_of(bad))
    with pytest.raises(ValueError, match="failed"):
        _ = bad.result


async def outer_of(lazy):
    return await lazy


def test_reset_of_one():
    """A Lazy that is reset is made again, from what it needs as that is."""
    count = itertools.count()
    draw = Lazy.of(task(lambda: next(count), runner=SequentialTaskRun))
    pair = Lazy.of(task(lambda x: (x, next(count)), runner=SequentialTaskRun), draw)
    assert pair.compute() == (0, 1)
    pair.reset()
    assert pair.compute() == (0, 2)
    draw.reset()
    assert pair.compute() == (0, 2)
    pair.reset()
    assert pair.compute() == (3, 4)


def test_a_time_out_of_the_wait():
    """`compute(timeout=…)` raises WaitTimeout and stops what had not ended; what had is kept."""
    ledger = []

    def first():
        ledger.append("first")
        return 1

    async def slow(_):
        ledger.append("slow")
        if ledger.count("slow") == 1:
            await asyncio.Event().wait()
        return 2

    one = Lazy.of(task(first, runner=SequentialTaskRun))
    two = Lazy.of(task(slow), one)
    with pytest.raises(WaitTimeout, match=r"slow has not ended within .* it was stopped"):
        two.compute(timeout=0.2)
    assert one.result == 1
    assert not two
    assert two.compute(timeout=PATIENCE) == 2
    assert ledger == ["first", "slow", "slow"]


def test_no_two_make_it_at_once():
    """A Lazy that another thread is making is refused, not made twice; afterwards it can be asked."""
    begun, go = threading.Event(), threading.Event()

    def wait():
        begun.set()
        return go.wait(PATIENCE)

    inner = Lazy.of(task(wait, runner=ThreadTaskRun))
    outer = Lazy.of(task(lambda x: x, runner=ThreadTaskRun), inner)
    thread = threading.Thread(target=outer.compute)
    thread.start()
    assert begun.wait(PATIENCE)
    with pytest.raises(UsageError, match="being made already"):
        inner.compute()
    with pytest.raises(UsageError, match="being made already"):
        run(outer_of(inner))
    go.set()
    thread.join()
    assert compute(inner, outer) == [True, True]


def test_who_awaits_is_cancelled():
    """What nobody awaits any more is stopped, and is made when somebody asks again."""

    async def main():
        gate = Gate()

        async def body():
            return await gate()

        lazy = Lazy.of(task(body))
        waiting = asyncio.create_task(outer_of(lazy))
        await gate.begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert gate.cancelled
        assert not lazy
        gate.go.set()
        assert await lazy == "made"

    run(main())


def test_a_stopped_run_is_no_answer():
    """What was stopped, and what failed by that, isn't remembered."""
    from woflo import current_run

    stops = [True]

    async def body():
        if stops.pop() if stops else False:
            current_run().stop(wait=False)
            await asyncio.Event().wait()
        return 1

    inner = Lazy.of(task(body))
    outer = Lazy.of(task(lambda x: x, runner=ThreadTaskRun), inner)
    with pytest.raises((StoppedFailure, DependencyFailure)):
        outer.compute()
    assert outer._result is None
    assert outer.compute() == 1


def test_nothing_but_the_results_is_kept():
    """After the answer nothing holds the engine's memory of the drive: a Lazy that is dropped is freed."""

    class Value:
        pass

    make = task(Value, runner=SequentialTaskRun)

    async def main():
        lazy = Lazy.of(task(lambda x: x, runner=SequentialTaskRun), Lazy.of(make))
        value = weakref.ref(await lazy)
        assert value() is lazy.result
        del lazy
        gc.collect()
        assert value() is None

    run(main())
    lazy = Lazy.of(make)
    value = weakref.ref(lazy.compute())
    lazy.reset()
    gc.collect()
    assert value() is None


def test_bad_wishes():
    """`Lazy.of` takes a Task, `compute` takes Lazies, and a time-out is a time."""
    with pytest.raises(UsageError, match="timeout must be seconds"):
        compute(Lazy.of(task(len), "x"), timeout="1")
    with pytest.raises(UsageError, match="@task"):
        Lazy.of(len)
    with pytest.raises(UsageError, match="takes Lazies"):
        compute(1)
    assert compute() == []


def test_compute_on_woflos_own_loop():
    """What it waits for would have to run there: it would never end."""

    @task
    async def three():
        return 3

    @task
    async def outer():
        lazy = Lazy.of(three)
        with pytest.raises(UsageError, match="await the Lazy"):
            lazy.compute()
        return await lazy

    assert outer().get_result(timeout=PATIENCE) == 3


def test_awaited_on_a_loop_that_was_closed():
    go = threading.Event()
    lazy = Lazy.of(task(lambda: go.wait(PATIENCE), runner=ThreadTaskRun))
    loop = asyncio.new_event_loop()

    async def begin():
        waiting = asyncio.ensure_future(lazy._made_here())
        waiting._log_destroy_pending = False
        await asyncio.sleep(0)
        return waiting

    waiting = loop.run_until_complete(begin())
    loop.close()
    go.set()

    async def again():
        return await lazy

    assert run(again()) is True
    del waiting


# ---------------------------------------------------------------------- what a server forgets


def tables(drive):
    """How long each of a drive's tables is, and each of its scheduler's."""
    scheduler = drive.scheduler
    every = {**vars(drive), **{name: getattr(scheduler, name) for name in type(scheduler).__slots__}}
    return {name: len(one) for name, one in every.items() if isinstance(one, (dict, list, set, deque, bytearray))}


@contextmanager
def forgetful(beyond, times):
    """When most is history; yields the drives that forgot something, each checked after each time."""
    forgot = []
    forget = _drive.Drive._forget

    def note(drive):
        before = len(drive.nodes)
        forget(drive)
        drive.scheduler.validate()
        count = len(drive.scheduler)
        assert len(drive.nodes) == len(drive.values) == len(drive._users) == count <= before
        unfinished = set(drive.scheduler.unfinished())
        assert unfinished == set(drive._rows)
        used = [*drive._wants, *drive._inner, *drive._aliases, *drive._known]
        assert unfinished.issuperset(used)
        named = [*drive._rows.values(), *(want.numbers for many in drive._wants.values() for want in many)]
        for number in itertools.chain(drive._aliases.values(), drive.numbers.values(), drive._runs.values(), *named):
            assert 0 <= number < count
        if count < before:
            forgot.append(drive)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_drive, "_HISTORY", beyond)
        patch.setattr(_drive, "_TIMES", times)
        patch.setattr(_drive.Drive, "_forget", note)
        yield forgot


@pytest.mark.parametrize("how", ["in place", "coroutine", "class"])
def test_a_server_that_never_rests_does_not_grow(how):
    """While somebody waits thousands come and go: what they made isn't held, and no table grows with them."""
    gate = Gate()
    refs = []

    def make():
        value = Gate.__new__(Gate)
        refs.append(weakref.ref(value))
        return value

    async def co_make(**_):
        return make()

    def once():
        if how == "class":
            return Job([], [], co_make)
        return Lazy.of(task(make, runner=SequentialTaskRun) if how == "in place" else task(co_make))

    async def main():
        waiting = asyncio.create_task(Job(["gate"], [], gate)._made_here())
        await gate.begun.wait()
        drive = _engine_here()._drive
        for _ in range(3000):
            await once()
        longest = max(tables(drive).values())
        gc.collect()
        alive = sum(one() is not None for one in refs)
        gate.go.set()
        assert await waiting == "made"
        return longest, alive

    longest, alive = run(main())
    assert len(refs) == 3000
    assert longest < 1100
    assert alive < 1100


def test_what_the_unfinished_need_is_not_forgotten():
    """Values that have been made stay for those that need them, and are not walked over each time somebody comes."""
    gate = Gate(0)

    async def main():
        parts = [Lazy.of(task(lambda one=one: one, runner=SequentialTaskRun)) for one in range(2000)]
        late = Job(["late"], [], gate)
        whole = Lazy.of(task(lambda *all: sum(all), runner=SequentialTaskRun), *parts, late)
        waiting = asyncio.create_task(whole._made_here())
        await gate.begun.wait()
        with forgetful(0, 4) as forgot:
            for one in range(3000):
                assert await Lazy.of(task(lambda one=one: one, runner=SequentialTaskRun)) == one
        assert await Lazy.of(task(lambda x: x, runner=SequentialTaskRun), parts[5]) == 5
        gate.go.set()
        return await waiting, len(forgot)

    whole, times = run(main())
    assert whole == sum(range(2000))
    assert times <= 2


def test_what_is_forgotten_before_the_waiter_is_resumed(monkeypatch):
    """It has its result all the same."""
    gate = Gate()
    fulfil = _drive.Drive._fulfil

    def forget_first(drive, want):
        drive.wake()  # it looks after this step, and before the waiter's turn
        fulfil(drive, want)

    async def main():
        db = LazyDB()
        db.add(Job(["gate"], [], gate))
        db.add(Job(["a"], [], "value"))
        waiting = asyncio.create_task(db.run("gate"))
        await gate.begun.wait()
        assert await db.run("a") == Ok("value")
        assert [len(drive.nodes) for drive in forgot] == [1]
        gate.go.set()
        assert await waiting == Ok("made")

    monkeypatch.setattr(_drive.Drive, "_fulfil", forget_first)
    with forgetful(0, 0) as forgot:
        run(main())


@st.composite
def traffic(draw):
    """Jobs by number: what each requires, how long it takes, what it does then; and who asks, cancels, resets when."""
    size = draw(st.integers(1, 8))
    some = st.integers(0, size - 1)
    jobs = [
        (
            draw(st.lists(st.integers(0, one - 1), max_size=3)) if one else [],
            draw(st.integers(0, 6)),
            draw(st.sampled_from(["value", "value", "fail", "follow", "ask", "spawn", "call"])),
            draw(some),
        )
        for one in range(size)
    ]
    what = st.sampled_from(["ask", "ask", "ask", "pair", "cancel", "reset", "call"])
    events = draw(st.lists(st.tuples(st.integers(0, 3), what, some), min_size=1, max_size=25))
    return jobs, events


def answer_of(result):
    if isinstance(result, Ok):
        return result.value
    if not isinstance(result, BaseException):
        return result
    if isinstance(result, DependencyFailure):
        return type(result), [answer_of(one) for one in result.dependencies.values()]
    return type(result), re.sub(r"-\d+", "", str(result))  # without the numbers of runs


def called(value):
    return Lazy.of(task(lambda: value, runner=SequentialTaskRun))


async def pair(db, *targets):
    """Two by one wish: one of them may end long before the other."""
    engine = db._engine = db._engine or _LazyEngine(db)
    engine.open({})
    try:
        return [answer_of(one) for one in await engine.co_outcomes(*targets)]
    finally:
        engine.rest()


async def wake_all(db):
    while True:
        for engine in (db._engine, _engine_here()):
            if engine is not None and engine._driver is not None:
                engine._driver.wake()
        await asyncio.sleep(0)


async def carried(jobs, events):
    """What becomes of that: the answers in order, and the jobs in the order of their starts."""
    db, log, spawned, asked = LazyDB(), [], [], []

    def body(number, ticks, does, other):
        async def work(**_):
            log.append(number)
            for _ in range(ticks):
                await asyncio.sleep(0)
            if does == "ask":
                return number, answer_of(await db.run(other))
            return did[does](number, other)

        return work

    def fail(number, _):
        raise ValueError(number)

    did = {
        "value": lambda number, _: number,
        "fail": fail,
        "follow": lambda _, other: db.index[other],
        "spawn": lambda _, other: spawned.append(asyncio.create_task(db.run(other))),
        "call": lambda number, _: called((number, "called")),
    }
    for number, (requires, *rest) in enumerate(jobs):
        db.add(Job([number], list(requires), body(number, *rest)))
    poking = asyncio.create_task(wake_all(db))
    for pause, what, which in events:
        for _ in range(pause):
            await asyncio.sleep(0)
        if what == "ask":
            asked.append(asyncio.create_task(db.run(which)))
        elif what == "pair":
            asked.append(asyncio.create_task(pair(db, which, (which + 1) % len(jobs))))
        elif what == "call":
            asked.append(asyncio.create_task(called(which)._made_here()))
        elif what == "reset":
            db.tasks[which].reset()
        elif asked:
            asked[which % len(asked)].cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    answers += await asyncio.gather(*spawned, return_exceptions=True)
    poking.cancel()
    return [answer_of(one) for one in answers], log


@settings(max_examples=300, deadline=None)
@given(traffic())
def test_forgetting_changes_no_answer(given_traffic):
    """Whatever comes, fails, is followed, cancelled and reset: with everything forgotten at once all is as without."""
    with forgetful(0, 0):
        answers = run(carried(*given_traffic))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_drive.Drive, "_forget", lambda _: None)  # the steps come at the same moments
            assert run(carried(*given_traffic)) == answers


@pytest.mark.parametrize("seed", range(4))
def test_forgetting_while_threads_end(seed):
    """Runs end in threads at any point of it: each answer is its own, and each task runs once."""
    rnd = random.Random(seed)
    ran = []

    def work(number, *needs):
        ran.append(number)
        if number % 7 == 3:
            raise ValueError(number)
        return number + sum(needs)

    do = task(work, runner=ThreadTaskRun)

    async def main():
        gate = Gate()
        waiting = asyncio.create_task(Job(["gate"], [], gate)._made_here())
        lazies, needs = [], []
        for number in range(150):
            needs.append(rnd.sample(range(number), min(number, rnd.randrange(3))))
            lazies.append(Lazy.of(do, number, *(lazies[need] for need in needs[-1])))
        asked = []
        for _ in range(300):
            number = rnd.randrange(150)
            asked.append((number, asyncio.create_task(lazies[number]._made_here())))
            await asyncio.sleep(rnd.choice([0, 0, 0.0005]))
        answers = await asyncio.gather(*(one for _, one in asked), return_exceptions=True)
        gate.go.set()
        await waiting
        values = []
        for number, row in enumerate(needs):
            bad = number % 7 == 3 or any(values[need] is None for need in row)
            values.append(None if bad else number + sum(values[need] for need in row))
        for (number, _), answer in zip(asked, answers, strict=True):
            assert isinstance(answer, Exception) if values[number] is None else answer == values[number]

    with forgetful(0, 0) as forgot:
        run(main())
    assert forgot
    assert max(Counter(ran).values()) == 1
