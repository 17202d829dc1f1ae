"""`task.map` and `task.starmap`: RunGroup, on every runner."""

from __future__ import annotations

import asyncio
import csv
import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import woflo
from woflo import DependencyFailure, Ok, RunGroup, StoppedFailure, TaskFailure, UsageError, WaitTimeout, WorkerFailure
from woflo._outcomes import Outcomes, Segment, Taker
from woflo._sizing import TARGET_NS, Sizing
from woflo.runners import (
    AsyncTaskRun,
    ForkProcess,
    MultiprocessTaskRun,
    SequentialTaskRun,
    SpawnProcess,
    ThreadTaskRun,
)
from woflo.testing import PATIENCE, Flag, Ledger

if sys.platform == "linux":
    from woflo.runners.pool import PoolTaskRun

FORK = MultiprocessTaskRun.using(process_type=ForkProcess)
SPAWN = MultiprocessTaskRun.using(process_type=SpawnProcess, max_running=2)
IN_PLACE = [SequentialTaskRun, ThreadTaskRun, AsyncTaskRun]
SHARED = [FORK] + ([PoolTaskRun] if sys.platform == "linux" else [])
EVERY = [*IN_PLACE, *SHARED]


def runners(*which):
    def name(one):
        return "SpawnTaskRun" if one is SPAWN else one.__name__.removesuffix("TaskRun")

    return pytest.mark.parametrize("runner", which, ids=name)


# Bodies; functions of this module, which workers find by name.


def square(x):
    return x * x


def odd_fails(x):
    if x % 2:
        raise ValueError(f"odd: {x}")
    return x


def boxed(x):
    return [x, {"x": x}]


def both(x, y=0, *, depth=1):
    return (x + y) * depth


def note(x, ledger):
    ledger.add(str(x))
    return x


def die_at(x, victim, ledger):
    ledger.add(str(x))
    if x == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def pid(_x):
    return os.getpid()


def unpicklable_at(x, which):
    return threading.Lock() if x == which else x


def hold(x, started, release):
    started.set()
    release.wait()
    return x


def inner(x):
    return sum(woflo.task(square, runner=FORK).map(range(x)).get_results())


async def later(x):
    await asyncio.sleep(0)
    return x + 1


def make(fn, runner=None, **options):
    return woflo.task(fn, runner=runner, **options)


class Counted:
    """An iterator that counts how many items were drawn from it."""

    def __init__(self, most):
        self.most = most
        self.drawn = 0

    def __iter__(self):
        while self.drawn < self.most:
            self.drawn += 1
            yield self.drawn - 1


class TestEveryRunner:
    @runners(*EVERY, SPAWN)
    def test_results_are_in_the_order_of_the_items(self, runner):
        """`get_results` returns each item's value in its place, whichever run ended first."""
        assert make(square, runner).map(range(100)).get_results() == [x * x for x in range(100)]

    @runners(*EVERY, SPAWN)
    def test_values_of_any_kind(self, runner):
        """Large ints, None, texts, floats and containers come back as they are, whichever way they travel."""
        items = [
            0,
            -1,
            None,
            2**62,
            2**63,
            2**200,
            -(2**63),
            -(2**63) + 1,
            -(2**63) + 2,
            True,
            "x",
            b"y",
            1.5,
            [1],
            {2: (3,)},
        ]
        got = make(boxed, runner).map(items * 3).get_results()
        assert got == [[x, {"x": x}] for x in items * 3]
        plain = make(_same, runner).map(items * 20).get_results()
        assert plain == items * 20
        assert [type(x) for x in plain] == [type(x) for x in items * 20]

    @runners(*EVERY)
    def test_each_item_has_its_own_outcome(self, runner):
        """A failing item fails alone, and its failure names it by number and type, not by value."""
        outcomes = make(odd_fails, runner).map(range(60)).outcomes()
        assert [bool(one) for one in outcomes] == [x % 2 == 0 for x in range(60)]
        assert outcomes[16] == Ok(16)
        failure = outcomes[17]
        assert isinstance(failure, TaskFailure)
        assert "item 17 (int)" in str(failure)
        assert failure.run.endswith("[17]")
        assert isinstance(failure.__cause__, ValueError)

    @runners(*EVERY)
    def test_on_error(self, runner):
        """`raise` raises the task's own exception, with a note naming the item; `return` and `skip` go on."""
        task = make(odd_fails, runner)
        with pytest.raises(ValueError, match="odd") as caught:
            task.map([0, 2, 3, 4]).get_results()
        assert any("item 2 (int)" in line for line in caught.value.__notes__)
        returned = task.map([0, 1, 2]).get_results(on_error="return")
        assert returned[0] == 0
        assert isinstance(returned[1], ValueError)
        assert task.map(range(7)).get_results(on_error="skip") == [0, 2, 4, 6]

    @runners(*EVERY)
    def test_as_completed_gives_runs(self, runner):
        """Each item comes once, as a run that has ended, with a name that says which."""
        seen = {}
        for run in make(odd_fails, runner).map(range(50)).as_completed():
            assert not run.is_running()
            match run.outcome():
                case Ok(value):
                    seen[run.name.partition("[")[2]] = value
                case failure:
                    assert isinstance(failure, TaskFailure)
                    seen[run.name.partition("[")[2]] = None
        assert seen == {f"{x}]": None if x % 2 else x for x in range(50)}

    @runners(*EVERY)
    def test_iteration_is_in_order_and_can_be_repeated(self, runner):
        """A group of a sized iterable hands out all of its runs, in order, as often as it is asked."""
        group = make(square, runner).map(list(range(40)))
        for _ in range(2):
            assert [run.get_result() for run in group] == [x * x for x in range(40)]
        assert sorted(run.get_result() for run in group.as_completed()) == [x * x for x in range(40)]
        assert len(group) == 40

    @runners(*EVERY)
    def test_several_iterables_and_fixed_arguments(self, runner):
        """`map` takes several iterables, the shortest ends it, and keyword arguments are the same for all."""
        task = make(both, runner)
        assert task.map([1, 2, 3], [10, 20], depth=2).get_results() == [22, 44]
        assert task.starmap([(1, 2), [3], (4, 5)], depth=3).get_results() == [9, 9, 27]

    @runners(*EVERY)
    def test_nothing_to_do(self, runner):
        """An empty iterable gives an empty group, with a length or without."""
        for empty in ([], iter([])):
            group = make(square, runner).map(empty)
            assert group.get_results() == []
            assert list(group.as_completed()) == []
            assert len(group) == 0
            assert group.wait()

    @runners(*EVERY)
    def test_in_an_event_loop(self, runner):
        """`await group`, `async for` in order and as completed don't block the loop."""

        async def main():
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    await asyncio.sleep(0)
                    ticks += 1

            ticking = asyncio.ensure_future(tick())
            task = make(square, runner)
            assert await task.map(range(30)) == [x * x for x in range(30)]
            assert sorted([run.get_result() async for run in task.map(range(30)).as_completed()]) == [
                x * x for x in range(30)
            ]
            assert [await run async for run in task.map(iter(range(30)))] == [x * x for x in range(30)]
            if runner is not SequentialTaskRun:
                assert ticks
            ticking.cancel()
            failing = make(odd_fails, runner).map(range(5))
            with pytest.raises(ValueError, match="odd"):
                await failing
            async for run in failing:
                run.exception()

        asyncio.run(main())

    @runners(*EVERY)
    def test_the_iterable_itself_fails(self, runner):
        """What the iterable raises comes after the results of what was drawn from it."""

        def broken():
            yield from range(5)
            raise LookupError("no more")

        group = make(square, runner).map(broken())
        stream = iter(group)
        found = [next(stream).get_result() for _ in range(5)]
        with pytest.raises(LookupError, match="no more"):
            next(stream)
        assert found == [x * x for x in range(5)]
        with pytest.raises(LookupError, match="no more"):
            make(square, runner).map(broken()).get_results()
        with pytest.raises(LookupError, match="no more"):
            make(square, runner).map(broken()).wait()

    @runners(*EVERY)
    def test_without_end(self, runner):
        """From an infinite generator one takes what one wants; `stop` ends the rest, and so does the with block."""
        with make(square, runner).map(itertools.count()) as group:
            first = [run.get_result() for run in itertools.islice(group.as_completed(), 20)]
        assert len(first) == 20
        assert group.wait(PATIENCE)
        group.stop()

    @runners(*EVERY)
    def test_coroutine_functions(self, runner):
        """A coroutine function is mapped on any runner."""
        assert make(later, runner).map(range(20)).get_results() == list(range(1, 21))

    @runners(*EVERY)
    def test_runs_among_the_items(self, runner):
        """A run among the items, or among the fixed arguments, is waited for and replaced by its value."""
        task = make(both, runner)
        first = make(square, ThreadTaskRun)(5)
        assert task.map([first, 2, [3]][:2], depth=make(square, ThreadTaskRun)(2)).get_results() == [100, 8]
        assert task.map([*range(40), first]).get_results() == [*range(40), 25]

    @runners(*EVERY)
    def test_runs_of_another_group_are_items(self, runner):
        """A group is an iterable of runs: each is replaced by its value, and a failed one fails what was to be made of it."""
        group = make(odd_fails, runner).map(range(40))
        outcomes = make(square, runner).map(group).outcomes()
        assert outcomes[::2] == [Ok(x * x) for x in range(0, 40, 2)]
        assert {type(one) for one in outcomes[1::2]} == {DependencyFailure}

    @runners(*EVERY)
    def test_one_item(self, runner):
        """One item is one run, from a list or a generator."""
        task = make(square, runner)
        assert task.map([7]).get_results() == task.map(iter([7])).get_results() == [49]

    @runners(*EVERY)
    def test_retries_are_kept(self, runner, tmp_path):
        """A task with retries tries each item as often as it says."""
        ledger = Ledger(tmp_path / "ledger")
        task = make(_note_and_fail, runner, retries=2)
        group = task.map([1, 2], ledger=ledger)
        assert [type(one) for one in group.outcomes()] == [TaskFailure, TaskFailure]
        assert sorted(ledger.lines()) == ["1", "1", "1", "2", "2", "2"]


def _same(x):
    return x


def _note_and_fail(x, ledger):
    ledger.add(str(x))
    raise OSError("again")


class TestAsking:
    def test_length(self):
        """A sized iterable's length is known at once, a generator's when it has come to its end."""
        task = make(square, SequentialTaskRun)
        assert len(task.map(range(7))) == 7
        group = task.map(x for x in range(7))
        with pytest.raises(TypeError, match=r"no len\(\)"):
            len(group)
        group.wait()
        assert len(group) == 7

    def test_handed_out_once(self):
        """What came from a generator and was handed out is forgotten: nobody gets a part for the whole."""
        task = make(square, SequentialTaskRun)
        group = task.map(iter(range(5)))
        next(iter(group))
        with pytest.raises(UsageError, match="1 of its items were handed out"):
            group.get_results()
        with pytest.raises(UsageError, match="either in order or as completed"):
            group.as_completed()
        assert [run.get_result() for run in group] == [1, 4, 9, 16]

    @pytest.mark.parametrize("chunksize", [0, -1, 1.5, True, "2"])
    def test_bad_chunksize(self, chunksize):
        """A chunksize that is no whole number from 1 up is refused at once."""
        with pytest.raises(UsageError, match="chunksize"):
            make(square).map([1], chunksize=chunksize)

    def test_bad_arguments(self):
        """What can't be iterated over, a wrong `on_error` and a wrong time-out are refused."""
        task = make(square, SequentialTaskRun)
        with pytest.raises(UsageError, match="iterable 2 is int"):
            task.map([1], 2)
        with pytest.raises(UsageError, match="its iterable is int"):
            task.starmap(3)
        with pytest.raises(UsageError, match="on_error"):
            task.map([1]).get_results(on_error="ignore")
        with pytest.raises(UsageError, match="timeout"):
            task.map([1]).wait(timeout="soon")
        group = make(both, SequentialTaskRun).starmap([(1, 2), 3, (4, 5)])
        stream = iter(group)
        assert next(stream).get_result() == 3
        with pytest.raises(TypeError):
            next(stream)

    def test_time_outs(self, tmp_path):
        """`get_results`, `as_completed` and `wait` come back when the time is up, and the runs go on."""
        started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
        group = make(hold, ThreadTaskRun).map([1, 2], started=started, release=release)
        started.wait()
        with pytest.raises(WaitTimeout, match="2 of 2 items"):
            group.get_results(timeout=0.01)
        with pytest.raises(WaitTimeout):
            next(group.as_completed(timeout=0.01))
        assert not group.wait(0.01)

        async def soon():
            with pytest.raises(WaitTimeout):
                await anext(group.as_completed(timeout=0.01))

        asyncio.run(soon())
        release.set()
        assert group.get_results(timeout=PATIENCE) == [1, 2]

    def test_says_how_far_it_is(self):
        """The repr counts items and failures."""
        group = make(odd_fails, SequentialTaskRun).map(range(4))
        assert repr(group) == f"<RunGroup {group.name} 4 of 4 ended, 2 failed>"
        assert isinstance(group, RunGroup)
        group.outcomes()

    def test_stays_in_its_process(self):
        """A group can't be sent to another process, or asked there."""
        group = make(square, SequentialTaskRun).map([1])
        with pytest.raises(UsageError, match="can't be sent"):
            group.__reduce__()
        assert "belongs to another process" in make(_ask, FORK)([_Box(group)]).outcome().message

    def test_names(self):
        """Runs are named by group and item; what a task asks for is the same name."""
        group = make(_name, SequentialTaskRun).map(range(3))
        assert group.get_results() == [f"{group.name}[{x}]" for x in range(3)]
        assert [run.name for run in group] == group.get_results()

    def test_a_method_after_its_function(self):
        """The function of a class and the methods bound from it are mapped each as what it is."""

        class Scale:
            factor = 3

            @woflo.task(runner=SequentialTaskRun)
            def times(self, x):
                return self.factor * x

        assert Scale.times.map([Scale()], [5]).get_results() == [15]
        assert Scale().times.map([1, 2]).get_results() == [3, 6]
        assert Scale.times.map([Scale()], [5]).get_results() == [15]

    @runners(SequentialTaskRun, ThreadTaskRun)
    def test_an_item_that_calls_its_own_task(self, runner):
        """An item's calls of its own task are runs with numbers of their own, alone or in groups."""
        group = make(_down, runner).map([3, 2])
        names = [name for found in group.get_results() for name in found]
        assert names[0] == f"{group.name}[0]"
        assert len(set(names)) == len(names) == 7

    def test_longer_than_a_machine_counts(self):
        """A range whose length is no machine word is mapped like a generator."""
        with make(square, SequentialTaskRun).map(range(10**30)) as group:
            assert [run.get_result() for run in itertools.islice(group, 3)] == [0, 1, 4]

    def test_a_method(self):
        """A task that is a method is mapped for its object."""

        class Scale:
            factor = 3

            @woflo.task(runner=SequentialTaskRun)
            def times(self, x):
                return self.factor * x

        assert Scale().times.map([1, 2]).get_results() == [3, 6]


def _down(x):
    run = woflo.current_run()
    names = [run.name]
    if x:
        names += run.task.map([x - 1]).get_results()[0] if x % 2 else run.task(x - 1).get_result()
    return names


class _Box:
    def __init__(self, content):
        self.content = content


def _ask(boxes):
    return boxes[0].content.get_results()


def _name(_x):
    return woflo.current_run().name


class TestLookAhead:
    @runners(*EVERY)
    def test_a_generator_is_drawn_as_it_is_consumed(self, runner):
        """However many items a generator has, only so many are drawn ahead of what was handed out."""
        source = Counted(1_000_000)
        with make(square, runner).map(iter(source)) as group:
            assert source.drawn <= 2_000
            handed = 0
            for run in itertools.islice(group.as_completed(), 3_000):
                run.get_result()
                handed += 1
                assert source.drawn - handed <= 10_000
            assert handed == 3_000

    def test_what_was_handed_out_is_not_kept(self):
        """Over ten thousand items of a generator only those on their way are in memory."""
        alive = _Live()
        group = make(alive.make, ThreadTaskRun).map(iter(range(10_000)))
        most = 0
        for run in group.as_completed():
            run.get_result()
            most = max(most, alive.count)
        assert most < 500

    @runners(*SHARED)
    def test_chunks_of_a_generator_stay_small(self, runner):
        """Also where short items go together no more than ten thousand are ahead."""
        source = Counted(60_000)
        handed = 0
        for run in make(square, runner).map(iter(source)):
            assert run.get_result() == handed * handed
            handed += 1
            assert source.drawn - handed <= 10_000
        assert handed == 60_000

    def test_a_generator_runs_in_the_callers_thread(self):
        """A generator is only ever resumed by a thread that asks the group for something."""
        threads = set()

        def items():
            for x in range(300):
                threads.add(threading.get_ident())
                yield x

        assert len(make(square, ThreadTaskRun).map(items()).get_results()) == 300
        assert threads == {threading.get_ident()}

    @pytest.mark.parametrize("name", ["fork", "thread", "pool"])
    def test_sized_items_go_on_by_themselves(self, name, tmp_path):
        """Of a sized iterable every item is carried out although nobody asks: at the program's end at the latest."""
        ledger = Ledger(tmp_path / "ledger")
        script = f"""
            import woflo
            from woflo.testing import Ledger
            ledger = Ledger({str(tmp_path / "ledger")!r})
            def note(x):
                ledger.add(str(x))
            woflo.task(note).map(range(300))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
            env={**os.environ, "WOFLO_RUNNER": name},
        )
        assert not done.stderr
        assert sorted(map(int, ledger.lines())) == list(range(300))

    @runners(SequentialTaskRun, ThreadTaskRun, *SHARED[1:])
    def test_memory_does_not_grow(self, runner):
        """Over a generator of a hundred thousand items memory stays what it was after the first ten thousand."""
        early = 0
        for place, run in enumerate(make(square, runner).map(iter(range(100_000)))):
            assert run.get_result() == place * place
            if place == 10_000:
                early = _resident()
        assert _resident() - early < 8 << 20

    @runners(ThreadTaskRun, *SHARED)
    def test_two_who_ask(self, runner):
        """Of a generator's items each goes to one of those who ask, whoever is first, and none is missing."""
        group, found = make(square, runner).map(iter(range(3_000))), []

        def ask():
            found.extend(run.get_result() for run in group.as_completed())

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(found) == [x * x for x in range(3_000)]

    def test_many_at_once(self):
        """A hundred thousand ints over warm workers and threads."""
        for runner in (SHARED[-1], ThreadTaskRun):
            number = 100_000 if runner is not ThreadTaskRun else 20_000
            assert make(square, runner).map(range(number)).get_results() == [x * x for x in range(number)]


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Live:
    """Makes values and counts those that are alive."""

    def __init__(self):
        self.count = 0
        self.lock = threading.Lock()

    def make(self, _x):
        return _Value(self)


class _Value:
    def __init__(self, live):
        self.live = live
        with live.lock:
            live.count += 1

    def __del__(self):
        with self.live.lock:
            self.live.count -= 1


class TestChunks:
    @runners(*SHARED, SPAWN)
    def test_short_items_share_a_worker(self, runner):
        """Many short items take few processes; `chunksize=1` gives each a run of its own."""
        task = make(pid, runner)
        if runner is not SPAWN:
            assert len(set(task.map(range(500)).get_results())) < 150
        assert len(set(task.map(range(6), chunksize=3).get_results())) <= 2
        if runner is FORK:
            assert len(set(task.map(range(6), chunksize=1).get_results())) == 6

    @runners(*SHARED, SPAWN)
    def test_a_death_costs_the_item_that_ran(self, runner, tmp_path):
        """When a worker dies in the middle of a chunk one item is lost, its mates have their values, none ran twice."""
        ledger = Ledger(tmp_path / "ledger")
        outcomes = make(die_at, runner).map(range(50), victim=17, ledger=ledger, chunksize=20).outcomes()
        assert [x for x, one in enumerate(outcomes) if not one] == [17]
        assert outcomes[:17] + outcomes[18:] == [Ok(x) for x in range(50) if x != 17]
        assert isinstance(outcomes[17], WorkerFailure)
        assert outcomes[17].signal == "SIGKILL"
        assert "item 17 (int)" in str(outcomes[17])
        assert sorted(map(int, ledger.lines())) == list(range(50))

    @runners(*SHARED)
    def test_many_deaths(self, runner, tmp_path):
        """However many workers die, and whatever goes together, each item runs once and only the victims are lost."""
        ledger = Ledger(tmp_path / "ledger")
        outcomes = make(_die_at_some, runner).map(range(600), ledger=ledger).outcomes()
        assert [x for x, one in enumerate(outcomes) if not one] == list(range(7, 600, 100))
        assert sorted(map(int, ledger.lines())) == list(range(600))

    @runners(*SHARED)
    def test_a_death_is_told_once(self, runner, tmp_path):
        """The death of a worker with many items is the failure of one of them, and of nothing else."""
        ledger, told = Ledger(tmp_path / "ledger"), []
        with woflo.observe(told.append):
            group = make(die_at, runner).map(range(50), victim=17, ledger=ledger, chunksize=20)
            group.wait()
        failed = [event for event in told if getattr(event, "failure", None) is not None]
        assert [(event.run, type(event).__name__) for event in failed] == [(f"{group.name}[17]", "RunEnded")]
        assert failed[0].failure.message.startswith("item 17 (int): the worker was killed")
        assert repr(group).endswith("1 failed>")
        group.outcomes()

    @runners(*SHARED)
    @pytest.mark.parametrize("make_value", ["int", "none", "text", "list", "large", "mixed"])
    def test_results_survive_a_death(self, runner, make_value):
        """Whatever kinds of results were there before a death are there after it."""
        outcomes = make(_value_or_die, runner).map(range(300), kind=make_value, chunksize=150).outcomes()
        expected = [Ok(_value(x, make_value)) for x in range(300)]
        assert [x for x, one in enumerate(outcomes) if not one] == [140]
        assert outcomes[:140] == expected[:140]
        assert outcomes[141:] == expected[141:]

    @runners(*SHARED)
    def test_an_argument_that_cannot_travel(self, runner):
        """An item that can't be pickled fails alone where it has to be; its mates go on."""
        lock = threading.Lock()
        outcomes = make(_kind, runner).map([1, lock, "x"] * 2, chunksize=3).outcomes()
        if runner is FORK:
            assert all(outcomes)
            return
        assert [bool(one) for one in outcomes] == [True, False, True] * 2
        assert "item 1 (" in str(outcomes[1])
        assert "can't be sent" in str(outcomes[1])

    @runners(*SHARED)
    def test_an_argument_that_cannot_be_rebuilt(self, runner):
        """An item that can't be made again in the worker fails alone."""
        outcomes = make(_kind, runner).map([1, _Bomb(), "x"], chunksize=3).outcomes()
        assert [bool(one) for one in outcomes] == [True, runner is FORK, True]
        assert outcomes[1] or "item 1 (tests.test_map._Bomb): its call can't be rebuilt" in str(outcomes[1])

    @pytest.mark.skipif(sys.platform != "linux", reason="pools are for Linux")
    def test_fixed_arguments_that_cannot_travel(self):
        """A keyword argument that can't be pickled fails every item, by name."""
        outcomes = make(both, SHARED[-1]).map(range(3), y=threading.Lock()).outcomes()
        assert ["kwargs['y']" in str(one) for one in outcomes] == [True] * 3

    @runners(*SHARED)
    def test_a_result_that_cannot_travel(self, runner):
        """A value that can't be pickled fails its own item."""
        outcomes = make(unpicklable_at, runner).map(range(10), which=4, chunksize=5).outcomes()
        assert [x for x, one in enumerate(outcomes) if not one] == [4]
        assert "item 4 (int): the result" in str(outcomes[4])

    @runners(*SHARED)
    def test_a_value_is_kept_as_it_was(self, runner):
        """A list that later items go on changing is as it was when its own item ended."""
        assert make(_growing, runner).map(range(4), chunksize=4).get_results() == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]

    @runners(*SHARED)
    def test_changed_state_is_put_back(self, runner, tmp_path):
        """An item that changes the working directory changes it for itself alone, and the items go apart from then on."""
        (tmp_path / "sub").mkdir()
        before = os.getcwd()
        os.chdir(tmp_path)
        try:
            group = make(_enter, runner).map(["sub"] * 40)
            assert group.get_results() == [str(tmp_path / "sub")] * 40
        finally:
            os.chdir(before)

    def test_a_profiler_changes_nothing(self):
        """A profiler of the program's, which a forked worker inherits, is no state that an item has changed."""
        counted = []
        sys.setprofile(lambda *_: counted.append(1))
        try:
            pids = make(pid, FORK).map(range(500)).get_results()
        finally:
            sys.setprofile(None)
        assert counted
        assert len(set(pids)) < 150

    @runners(*SHARED)
    def test_a_fork_of_an_item_goes_no_further(self, runner, tmp_path):
        """A process that an item forks and lets return doesn't carry out the items after it."""
        ledger = Ledger(tmp_path / "ledger")
        group = make(_fork_and_return, runner).map(range(10), ledger=ledger, chunksize=10)
        assert group.get_results() == list(range(10))
        lines = ledger.lines()
        assert sorted(lines) == sorted([*map(str, range(10)), "3 forked"])

    @runners(*SHARED)
    def test_leaving_by_exit(self, runner):
        """SystemExit is that item's failure; `os._exit` loses the item, and nothing else."""
        outcomes = make(_exit_at, runner).map(range(12), chunksize=6).outcomes()
        assert [x for x, one in enumerate(outcomes) if not one] == [2, 4, 9]
        assert isinstance(outcomes[2], TaskFailure)
        assert isinstance(outcomes[4], WorkerFailure)
        assert outcomes[9].exit_code == 3

    @runners(*SHARED)
    def test_a_name_for_each_item(self, runner):
        """In a chunk the current run is named by the item that runs."""
        group = make(_name, runner).map(range(30), chunksize=10)
        assert group.get_results() == [f"{group.name}[{x}]" for x in range(30)]

    @runners(*SHARED)
    def test_time_outs_are_kept(self, runner):
        """A task with a time-out has it for each item, even if a chunksize is given."""
        outcomes = make(_sleep_at, runner, timeout=0.5).map(range(6), which=2, chunksize=6).outcomes()
        assert [type(one).__name__ for one in outcomes] == ["Ok", "Ok", "TimeoutFailure", "Ok", "Ok", "Ok"]

    @runners(*SHARED)
    def test_observers_hear_of_each_item(self, runner):
        """The begin and the end of every item reach an observer, and of nothing else: what went together is not to be seen."""
        told = []
        with woflo.observe(told.append):
            group = make(odd_fails, runner).map(range(20), chunksize=7)
            group.outcomes()
        assert {event.run for event in told} == {f"{group.name}[{x}]" for x in range(20)}
        for x in range(20):
            mine = [event for event in told if event.run == f"{group.name}[{x}]"]
            assert [type(event).__name__ for event in mine] == ["RunStarted", "RunEnded"]
            assert (mine[1].failure is None) is (x % 2 == 0)

    @runners(*SHARED)
    def test_what_an_item_took(self, runner):
        """Of items that went together each took its share, not the time of all."""
        begin = time.monotonic()
        group = make(square, runner).map(range(100), chunksize=100)
        group.wait()
        assert sum(run.seconds for run in group) <= time.monotonic() - begin

    @runners(*SHARED)
    def test_nested(self, runner):
        """A task may map inside a worker."""
        assert make(inner, runner).map(range(8)).get_results() == [sum(y * y for y in range(x)) for x in range(8)]

    @runners(ThreadTaskRun, FORK)
    def test_nested_where_one_may_run(self, runner):
        """A task that maps gives its place to those it waits for."""
        one = runner.using(max_running=1)
        assert make(_inner_on, one).map([3, 0, 4], runner=one).get_results() == [5, 0, 14]

    @runners(*SHARED)
    def test_remembered_items_go_nowhere(self, runner, tmp_path):
        """A task that remembers runs only for the items whose value it doesn't know."""
        ledger = Ledger(tmp_path / "ledger")
        task = make(note, runner, cache=tmp_path / "kept", ignore=["ledger"])
        assert task.map([1, 2, 3], ledger=ledger).get_results() == [1, 2, 3]
        assert task.map([2, 3, 4], ledger=ledger).get_results() == [2, 3, 4]
        assert sorted(ledger.lines()) == ["1", "2", "3", "4"]


_grown: list[int] = []


def _growing(x):
    _grown.append(x)
    return _grown


def _die_at_some(x, ledger):
    ledger.add(str(x))
    if x % 100 == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


class _Bomb:
    def __reduce__(self):
        return _explode, ()


def _explode():
    raise RuntimeError("boom")


def _inner_on(x, runner):
    return sum(woflo.task(square, runner=runner).map(range(x)).get_results())


def _enter(folder):
    os.chdir(folder)
    return os.getcwd()


def _fork_and_return(x, ledger):
    ledger.add(str(x))
    if x == 3:
        child = os.fork()
        if child == 0:
            ledger.add("3 forked")
            return -1
        os.waitpid(child, 0)
    return x


def _exit_at(x):
    if x == 2:
        sys.exit(5)
    if x in (4, 9):
        os._exit(3)
    return x


def _sleep_at(x, which):
    if x == which:
        threading.Event().wait(PATIENCE)
    return x


def _kind(x):
    return type(x).__name__


def _value(x, kind):
    if kind == "mixed":
        kind = ["int", "none", "text", "list"][x % 4]
    return {"int": x, "none": None, "text": f"{x}", "list": [x], "large": "x" * 5_000}[kind]


def _value_or_die(x, kind):
    if x == 140:
        os.kill(os.getpid(), signal.SIGKILL)
    return _value(x, kind)


class TestStop:
    @runners(ThreadTaskRun, *SHARED)
    def test_ends_all(self, runner, tmp_path):
        """`stop` ends what runs and what waits; those items are StoppedFailure, and every wait comes back."""
        started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
        group = make(hold, runner).map(range(500), started=started, release=release)
        started.wait()
        group.stop(grace=0.2 if runner is not ThreadTaskRun else 0.0)
        release.set()
        outcomes = group.outcomes(timeout=PATIENCE)
        assert len(outcomes) == len(group) == 500
        assert {type(one) for one in outcomes} == {StoppedFailure}
        assert "item 499" in str(outcomes[499])
        assert group.get_results(on_error="skip") == []
        with pytest.raises(StoppedFailure):
            group.get_results()
        group.stop()

    @runners(*SHARED)
    def test_in_a_chunk(self, runner, tmp_path):
        """What a stopped chunk had done is kept."""
        started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
        group = make(_hold_at, runner).map(range(10), which=4, started=started, release=release, chunksize=10)
        started.wait()
        group.stop()
        outcomes = group.outcomes(timeout=PATIENCE)
        assert outcomes[:4] == [Ok(x) for x in range(4)]
        assert {type(one) for one in outcomes[4:]} == {StoppedFailure}

    @runners(*SHARED)
    def test_the_block_stops_what_is_left(self, runner, tmp_path):
        """Leaving the with block, by an exception too, ends what still runs."""
        started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
        group = make(hold, runner).map([1], started=started, release=release)
        with pytest.raises(KeyError), group:
            _raise_when(started)
        assert not group.outcomes()[0]

    @runners(ThreadTaskRun, *SHARED)
    def test_from_another_thread(self, runner):
        """Whoever is asking a group without end gets to its end when another thread stops it."""
        group = make(square, runner).map(itertools.count())
        stopper = threading.Thread(target=group.stop)
        outcomes = []
        for place, run in enumerate(group):
            if place == 100:
                stopper.start()
            outcomes.append(run.outcome())
        stopper.join(PATIENCE)
        assert all(outcomes[:100])
        assert all(isinstance(one, (Ok, StoppedFailure)) for one in outcomes)
        assert len(group) == len(outcomes)

    def test_its_loop_is_closed(self):
        """A group that is left on an event loop ends with it: no coroutine is started that nobody would run."""
        script = """
            import asyncio, woflo
            async def hold(x):
                await asyncio.sleep(3600)
            async def main():
                global group
                group = woflo.task(hold).map(range(5_000))
                await asyncio.sleep(0)
            asyncio.run(main())
            print({type(one).__name__ for one in group.outcomes()}, len(group))
        """
        done = _run(script)
        assert not done.stderr
        assert done.stdout.split() == ["{'StoppedFailure'}", "5000"]

    @pytest.mark.parametrize("name", ["fork", "thread", "pool"])
    def test_failures_of_a_dropped_group_are_told(self, name):
        """Failures of a group that nobody asks are in the log, each once, however it was drawn."""
        script = """
            import woflo
            def fail(x):
                raise ValueError(x)
            woflo.task(fail).map(range(3))
            woflo.task(fail).map(iter(range(3)), chunksize=3)
        """
        done = _run(script, WOFLO_RUNNER=name)
        for number in (1, 2):
            for item in range(3):
                assert len(re.findall(rf"- fail-{number}\[{item}\].*item {item} \(int\): ValueError", done.stderr)) == 1
        assert done.stderr.count(" failed runs that nobody looked at") == 1

    @pytest.mark.parametrize("name", ["fork", "thread", "pool"])
    def test_ctrl_c_while_items_are_drawn(self, name):
        """Ctrl-C inside of the user's generator ends that group; the next one works."""
        script = """
            import os, signal, woflo
            def items():
                for x in range(1_000_000):
                    if x == 500:
                        os.kill(os.getpid(), signal.SIGINT)
                    yield x
            def same(x):
                return x
            group = woflo.task(same).map(items())
            try:
                group.get_results()
            except KeyboardInterrupt:
                group.stop()
                print(len(group) < 10_000, any(group.outcomes()))
            print(sum(woflo.task(same).map(range(100)).get_results()))
        """
        done = _run(script, WOFLO_RUNNER=name)
        assert done.stdout.splitlines() == ["True True", "4950"]

    @pytest.mark.parametrize("name", ["fork", "thread", "pool"])
    def test_ctrl_c_and_go_on(self, name):
        """Whoever catches Ctrl-C can go on asking a group with a length; at most items that were being started are stopped."""
        script = """
            import faulthandler, os, signal, threading, woflo
            faulthandler.dump_traceback_later(20, exit=True)
            def same(x):
                return x
            group = woflo.task(same).map(range(20_000))
            struck = 0
            for _ in range(20):
                try:
                    threading.Timer(0.002, os.kill, (os.getpid(), signal.SIGINT)).start()
                    for run in group.as_completed():
                        run.outcome()
                    threading.Event().wait(1)
                except KeyboardInterrupt:
                    struck += 1
            outcomes = group.outcomes()
            lost = [one for x, one in enumerate(outcomes) if one != woflo.Ok(x)]
            print(struck > 0, len(outcomes), all("Ctrl-C came" in str(one) for one in lost))
        """
        done = _run(script, WOFLO_RUNNER=name)
        assert done.stdout.split() == ["True", "20000", "True"]

    def test_ctrl_c(self, tmp_path):
        """Ctrl-C while a script waits for a group ends script and workers."""
        script = f"""
            import os, signal, threading, woflo
            from woflo.testing import Flag
            started, never = Flag({str(tmp_path / "started")!r}), Flag({str(tmp_path / "never")!r})
            def hold(x):
                started.set()
                never.wait()
            def interrupt():
                started.wait()
                os.kill(os.getpid(), signal.SIGINT)
            group = woflo.task(hold).map(range(100))
            threading.Thread(target=interrupt, daemon=True).start()
            group.get_results()
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == -signal.SIGINT
        assert done.stderr.count("KeyboardInterrupt") == 1

    def test_on_the_loops_own_thread(self):
        """Blocking for runs of this thread's own event loop is refused."""

        async def main():
            group = make(later).map(range(3))
            with pytest.raises(UsageError, match="await it"):
                group.get_results()
            assert await group == [1, 2, 3]

        asyncio.run(main())


def _run(script, **environment):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done


def _raise_when(started):
    started.wait()
    raise KeyError


def _hold_at(x, which, started, release):
    if x == which:
        started.set()
        release.wait()
    return x


class TestSizing:
    def test_alone_until_measured(self):
        """Nothing goes together before it is known to be short."""
        sizing = Sizing(None, together=True)
        assert sizing.size(1000, 2) == 1
        sizing.measured(1, TARGET_NS, TARGET_NS)
        assert sizing.size(1000, 2) == 1

    def test_as_many_as_make_up_the_target(self):
        """Short items go together, in steps of sixteen, up to twenty milliseconds of work."""
        sizing = Sizing(None, together=True)
        sizing.measured(1, 10_000, 10_000)
        assert sizing.size(None, 2) == 16
        sizing.measured(16, 160_000, 160_000)
        assert sizing.size(None, 2) == 256
        sizing.measured(256, 2_560_000, 2_560_000)
        assert sizing.size(None, 2) == TARGET_NS // 10_000

    def test_the_rest_is_shared(self):
        """Towards the end chunks become smaller, so that no worker stands idle for long; but not smaller than is worth it."""
        sizing = Sizing(None, together=True)
        for number in (1, 16, 256, 4096):
            sizing.measured(number, number * 1_000, number * 1_000)
        assert sizing.size(40_000, 2) == 10_000
        assert sizing.size(100, 2) == 2_000

    def test_items_that_wait_are_told_from_items_that_work(self):
        """Items that don't compute are no reason for fewer runs at once."""
        sizing = Sizing(None, together=True)
        sizing.measured(1, 1_000_000, 10_000)
        assert not sizing.busy
        sizing.measured(1, 1_000_000, 900_000)
        assert sizing.busy

    def test_what_a_chunk_costs_is_not_taken_for_work(self):
        """Measurements of a few items, after many, change nothing unless they took long."""
        sizing = Sizing(None, together=True)
        sizing.measured(1_000, 1_000_000, 1_000_000)
        sizing.measured(1, 100_000, 100_000)
        assert sizing.mean_ns == 1_000
        sizing.measured(1, 5_000_000_000, 5_000_000_000)
        assert sizing.size(1_000, 2) == 1

    def test_a_mistake_is_found_out(self):
        """Items that were taken for long are measured again from time to time."""
        sizing = Sizing(None, together=True)
        assert sizing.probes(3)
        sizing.measured(1, TARGET_NS, TARGET_NS)
        assert [index for index in range(20) if sizing.probes(index)] == [0, 8, 16]
        for _ in range(3):
            sizing.measured(1, 1_000, 1_000)
        assert sizing.size(None, 2) > 1

    def test_what_changes_state_goes_alone(self):
        """Once an item has left its worker's state changed each goes alone, and is looked after where it runs."""
        sizing = Sizing(7, together=True)
        sizing.measured(1_000, 1_000_000, 1_000_000)
        sizing.apart = True
        assert sizing.size(100, 2) == 1
        assert all(sizing.probes(index) for index in range(20))

    def test_fixed(self):
        """A size that was given is the size; where items can't go together it is one."""
        assert Sizing(7, together=True).size(100, 2) == 7
        assert Sizing(7, together=False).size(100, 2) == 1


class TestOutcomes:
    def test_in_order_waits_for_the_gap(self):
        """A later segment is handed out in order only after the one before."""
        outcomes = Outcomes("x-1", forgets=False)
        ordered, any_order = outcomes.cursor(ordered=True), outcomes.cursor(ordered=False)
        taker = Taker()

        def take(cursor):
            outcomes.next(cursor, taker)
            return taker._taken

        late = Segment(2, ["c"])
        outcomes.add([late], {}, None)
        assert take(ordered) is None
        assert take(any_order) == (late, 0)
        first = Segment(0, ["a", "b"])
        outcomes.add([first], {}, None)
        assert [take(ordered) for _ in range(4)] == [(first, 0), (first, 1), (late, 0), None]
        assert list(outcomes.in_order()) == [first, late]


@runners(*SHARED)
def test_two_thousand_files(runner, tmp_path):
    """A real job: two thousand CSV files, parsed in processes and added up; two are broken, and are named."""
    for number in range(2_000):
        text = "".join(f"{station},{(number * 7 + station) % 40}\n" for station in range(5))
        (tmp_path / f"{number:04}.csv").write_text("broken" if number in (3, 1_500) else f"station,celsius\n{text}")
    paths = sorted(tmp_path.iterdir())
    group = make(_totals, runner).map(paths)
    totals, broken = dict.fromkeys(range(5), 0), []
    for place, outcome in enumerate(group.outcomes()):
        match outcome:
            case Ok(by_station):
                for station, celsius in by_station.items():
                    totals[station] += celsius
            case failure:
                assert f"item {place} (" in str(failure)
                broken.append(place)
    assert broken == [3, 1_500]
    expected = {
        station: sum((number * 7 + station) % 40 for number in range(2_000) if number not in (3, 1_500))
        for station in range(5)
    }
    assert totals == expected


def _totals(path):
    with open(path, newline="") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != ["station", "celsius"]:
            raise ValueError(f"not a table of temperatures: {path.name}")
        return {int(row["station"]): int(row["celsius"]) for row in rows}
