"""The engine with scripted runs and a fake clock: no process, no thread, no sleep; when what happens, to the second."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from woflo import DependencyFailure, StoppedFailure, TaskFailure, TimeoutFailure, task
from woflo.engine import Engine
from woflo.events import NodeEnded, NodeStarted
from woflo.graph import Node
from woflo.testing import FakeClock, InlineTaskRun, ScriptedTaskRun, capture_events

FOREVER = 1_000_000.0  # seconds that no test lets pass


@pytest.fixture
def clock():
    with FakeClock() as clock:
        yield clock


class Play:
    """A graph whose runs take so many seconds, by name; what starts and ends is noted with its time."""

    def __init__(self, clock, seconds=None, **options):
        self.clock = clock
        self.seconds = seconds or {}
        self.runner = ScriptedTaskRun.using(on_start=self.begin, **options)
        self.told = []
        self.end = {}  # by name: what is called with the run instead of succeeding with the name

    def begin(self, run):
        name = run.task.name
        self.told.append((self.clock.time, "start", name))
        self.clock.call_later(self.seconds.get(name, FOREVER), lambda: self.over(run))

    def over(self, run):
        if run.is_running():
            self.told.append((self.clock.time, "end", run.task.name))
            self.end.get(run.task.name, lambda run: run.succeed(run.task.name))(run)

    def node(self, name, requires=(), *, options=None, **kwargs):
        return Node(name, task(name=name, runner=self.runner, **(options or {}))(lambda *_: None), requires, **kwargs)

    @property
    def starts(self):
        return [(when, name) for when, what, name in self.told if what == "start"]


# ---------------------------------------------------------------------- order


def test_a_node_starts_when_its_last_parent_has_ended(clock):
    """Not a moment earlier or later, with the parents' values in their order."""
    play = Play(clock, {"a": 3, "b": 5, "c": 1, "d": 1})
    engine = Engine([play.node("a"), play.node("b"), play.node("c", ["b", "a"]), play.node("d", ["a"])])
    assert engine.orchestrate()
    assert play.starts == [(0, "a"), (0, "b"), (3, "d"), (5, "c")]
    assert play.runner.of("c").given == ("b", "a")
    assert clock.time == 6


def test_what_is_ready_starts_in_the_order_of_the_graph(clock):
    """Without durations: first the roots as they were added, then each as it became ready."""
    names = [str(number) for number in range(20)]
    play = Play(clock, dict.fromkeys(names, 1.0))
    assert Engine(play.node(name) for name in names).orchestrate()
    assert [name for _, name in play.starts] == names


def test_the_order_of_the_ends_decides(clock):
    """Of two parents the one that ends later starts the child, whichever it is."""
    for first, second in [("a", "b"), ("b", "a")]:
        play = Play(clock, {first: 1, second: 2, "c": 1})
        begun = clock.time
        assert Engine([play.node("a"), play.node("b"), play.node("c", ["a", "b"])]).orchestrate()
        assert play.starts[-1] == (begun + 2, "c")


def test_a_window_is_never_passed_and_always_full(clock):
    """Five of one second through a window of two: two at a time, the next at the moment when one ends."""
    play = Play(clock, dict.fromkeys("abcde", 1))
    assert Engine([play.node(name) for name in "abcde"], window=2).orchestrate()
    assert play.starts == [(0, "a"), (0, "b"), (1, "c"), (1, "d"), (2, "e")]


def test_the_longest_path_goes_first(clock):
    """With one place and known durations: what heads the longest remaining path, not the longest node."""
    seconds = {"long": 5, "head": 1, "tail": 9, "short": 2}
    play = Play(clock, seconds)
    nodes = [play.node(name, seconds=seconds[name]) for name in ("short", "long", "head")]
    engine = Engine([*nodes, play.node("tail", ["head"], seconds=9)], window=1)
    assert engine.orchestrate()
    assert [name for _, name in play.starts] == ["head", "tail", "long", "short"]


def test_learnt_durations_change_the_order(clock):
    """What took long the first time is begun first the second time, without anybody saying so."""
    play = Play(clock, {"quick": 1, "slow": 60})
    nodes = [play.node("quick"), play.node("slow")]
    engine = Engine(nodes, window=1, volatile=["quick", "slow"])
    assert engine.orchestrate()
    assert engine.orchestrate()
    assert [name for _, name in play.starts] == ["quick", "slow", "slow", "quick"]


# ---------------------------------------------------------------------- time


def test_a_time_out_stops_what_runs_and_what_waits(clock):
    """At the very second; what needs a stopped one never starts; the reason is told."""
    play = Play(clock, {"a": 4})
    engine = Engine([play.node("a"), play.node("b"), play.node("c", ["b"])])
    assert not engine.orchestrate(timeout=10)
    assert clock.time == 10
    assert [engine.status(name) for name in "abc"] == ["succeeded", "stopped", "skipped"]
    assert play.runner.of("b").asked == 1
    assert play.starts == [(0, "a"), (0, "b")]
    assert engine.why() == "it took longer than 10 s"


def test_a_time_out_that_is_just_kept(clock):
    """What ends before the last second is over has ended."""
    play = Play(clock, {"a": 9.999})
    assert Engine([play.node("a")]).orchestrate(timeout=10)


def test_one_that_does_not_obey_is_abandoned_after_the_grace(clock):
    """A time-out of the whole waits for nobody longer than a stop's grace of one second."""
    play = Play(clock, obeys=False)
    engine = Engine([play.node("a")])
    assert not engine.orchestrate(timeout=10)
    assert clock.time == 11
    assert "abandoned" in str(engine.outcome("a"))


def test_attempts_and_their_pauses_take_their_time(clock):
    """A task's time-out counts from each attempt's start, pauses are kept, and its users start after the last attempt."""
    play = Play(clock, {"b": 1})
    options = {"retries": 2, "retry_sleep_time": 7, "timeout": 10}
    engine = Engine([play.node("a", options=options), play.node("b", ["a"])])
    clock.call_later(10 + 7 + 3, lambda: play.runner.of("a").fail(ConnectionError("reset")))
    clock.call_later(10 + 7 + 3 + 7 + 5, lambda: play.runner.of("a").succeed(1))
    assert engine.orchestrate()
    assert play.starts == [(0, "a"), (17, "a"), (27, "a"), (32, "b")]
    assert play.runner.of("a").attempt == 3


def test_a_task_that_takes_too_long_fails_its_node_only(clock):
    """Its time-out is its own failure; what doesn't need it goes on."""
    play = Play(clock, {"b": 20, "d": 1})
    nodes = [play.node("a", options={"timeout": 5}), play.node("b"), play.node("c", ["a"]), play.node("d", ["b"])]
    engine = Engine(nodes)
    assert not engine.orchestrate()
    assert isinstance(engine.outcome("a"), TimeoutFailure)
    assert [engine.status(name) for name in "abcd"] == ["failed", "succeeded", "skipped", "succeeded"]
    assert clock.time == 21


# ---------------------------------------------------------------------- failures


def test_a_failure_skips_what_needs_it_and_nothing_else(clock):
    """Dependents end as DependencyFailure at once, without having run."""
    play = Play(clock, {"a": 2, "b": 5, "e": 1})
    play.end["a"] = lambda run: run.fail(ValueError("no"))
    nodes = [play.node("a"), play.node("b"), play.node("c", ["a"]), play.node("d", ["c", "b"]), play.node("e", ["b"])]
    engine = Engine(nodes)
    with capture_events(NodeEnded) as events:
        assert not engine.orchestrate()
    assert [event.target for event in events] == ["a", "c", "b", "d", "e"]
    assert isinstance(engine.outcome("d"), DependencyFailure)
    assert isinstance(engine.outcome("a"), TaskFailure)
    assert [name for _, name in play.starts] == ["a", "b", "e"]


@pytest.mark.parametrize("how", ["stop_on_failure", "critical"])
def test_a_failure_that_stops_everything(clock, how):
    """At the moment of the failure what runs is asked to end, and what is ready doesn't start."""
    play = Play(clock, {"a": 2, "c": 1})
    play.end["a"] = lambda run: run.fail(ValueError("no"))
    nodes = [play.node("a", critical=how == "critical"), play.node("b"), play.node("c"), play.node("d", ["c"])]
    engine = Engine(nodes, stop_on_failure=how == "stop_on_failure", window=2)
    assert not engine.orchestrate()
    assert clock.time == 2
    assert [engine.status(name) for name in "abcd"] == ["failed", "stopped", "stopped", "stopped"]
    assert [name for _, name in play.starts] == ["a", "b"]
    assert "ValueError: no" in engine.why()


def test_one_that_is_not_critical_stops_nobody(clock):
    """Without stop_on_failure, a failure of another node leaves the critical one alone."""
    play = Play(clock, {"a": 1, "b": 2})
    play.end["a"] = lambda run: run.fail(ValueError("no"))
    engine = Engine([play.node("a"), play.node("b", critical=True)])
    assert not engine.orchestrate()
    assert engine.value("b") == "b"


def test_stop_by_somebody_else(clock):
    """`stop()` at any moment ends the drive at that moment."""
    play = Play(clock, {"a": 1})
    engine = Engine([play.node("a"), play.node("b", ["a"]), play.node("c", ["b"])])
    clock.call_later(5, engine.stop)
    assert not engine.orchestrate()
    assert clock.time == 5
    assert [engine.status(name) for name in "abc"] == ["succeeded", "stopped", "skipped"]


def test_an_error_of_the_clock_ends_the_drive(clock):
    """What is raised while the driver sleeps goes on to the caller, and nothing is left running."""
    play = Play(clock)

    def interrupt():
        raise KeyboardInterrupt

    clock.call_later(3, interrupt)
    engine = Engine([play.node("a"), play.node("b", ["a"])])
    with pytest.raises(KeyboardInterrupt):
        engine.orchestrate()
    assert not play.runner.running()
    assert isinstance(engine.outcome("a"), StoppedFailure)
    assert engine.status("b") == "stopped"


# ---------------------------------------------------------------------- for ever


def test_those_that_run_for_ever_end_with_the_others(clock):
    """They are asked when the last of the others has ended; that is no failure, and they take no place in the window."""
    play = Play(clock, {"a": 3, "b": 4})
    nodes = [play.node("monitor", forever=True), play.node("a"), play.node("b", ["a"])]
    engine = Engine(nodes, window=1)
    assert engine.orchestrate()
    assert clock.time == 7
    assert engine.status("monitor") == "stopped"
    assert play.runner.of("monitor").asked == 1
    assert engine.why() == "all is well"


def test_one_that_was_to_run_for_ever_and_fails(clock):
    """Then it has failed; the others go on."""
    play = Play(clock, {"monitor": 1, "a": 3})
    play.end["monitor"] = lambda run: run.fail(OSError("gone"))
    engine = Engine([play.node("monitor", forever=True), play.node("a")])
    assert not engine.orchestrate()
    assert engine.value("a") == "a"
    assert engine.status("monitor") == "failed"


def test_nothing_but_for_ever(clock):
    """They run until the time-out, which is no failure then."""
    play = Play(clock)
    engine = Engine([play.node("monitor", forever=True)])
    assert engine.orchestrate(timeout=60)
    assert clock.time == 60
    assert engine.status("monitor") == "stopped"


# ---------------------------------------------------------------------- values


class Value:
    """Something that can be watched."""


def test_a_value_is_dropped_with_its_last_user(clock):
    """It lives until the last node that needs it has ended, and no longer."""
    play = Play(clock, {"a": 1, "b": 1, "c": 5, "d": 9})
    seen = []

    def give(run):
        value = Value()
        seen.append(weakref.ref(value))
        run.succeed(value)

    def alive():
        play.runner.started.clear()  # the runs of the script know what they gave and were given
        gc.collect()
        return seen[0]() is not None

    play.end["a"] = give
    lives = {}
    for when in (2.5, 5.5, 6.5):
        clock.call_later(when, lambda when=when: lives.update({when: alive()}))
    nodes = [play.node("a"), play.node("b", ["a"]), play.node("c", ["a"]), play.node("d", ["c"])]
    assert Engine(nodes).orchestrate()
    assert lives == {2.5: True, 5.5: True, 6.5: False}


def test_a_wanted_value_is_kept(clock):
    """What was asked for by name, and what nobody needs, can be had afterwards; the rest says why not."""
    play = Play(clock, dict.fromkeys("abc", 1))
    engine = Engine([play.node("a"), play.node("b", ["a"]), play.node("c", ["b"])])
    assert engine.orchestrate("a", "c")
    assert (engine.value("a"), engine.value("c")) == ("a", "c")
    with pytest.raises(ValueError, match="was dropped"):
        engine.value("b")


def test_a_second_orchestrate_runs_what_has_not_ended(clock):
    """What succeeded and is still there is kept; what was stopped runs again, what is volatile too."""
    play = Play(clock, {"a": 1, "b": 1})
    engine = Engine([play.node("a"), play.node("b", volatile=True), play.node("c", ["a", "b"])])
    assert not engine.orchestrate("a", "b", "c", timeout=5)
    play.seconds["c"] = 1
    assert engine.orchestrate("a", "b", "c")
    assert [name for _, name in play.starts] == ["a", "b", "c", "b", "c"]


def test_a_stopped_node_keeps_what_it_needs(clock):
    """After a time-out only what was stopped runs again."""
    play = Play(clock, {"a": 1})
    engine = Engine([play.node("a"), play.node("b", ["a"])])
    assert not engine.orchestrate(timeout=5)
    play.seconds["b"] = 1
    assert engine.orchestrate()
    assert [name for _, name in play.starts] == ["a", "b", "b"]


def test_reset_runs_again(clock):
    """What is forgotten is made anew, and only that."""
    play = Play(clock, dict.fromkeys("ab", 1))
    engine = Engine([play.node("a"), play.node("b")])
    assert engine.orchestrate()
    engine.reset("a")
    assert engine.orchestrate()
    assert [name for _, name in play.starts] == ["a", "b", "a"]


# ---------------------------------------------------------------------- who drives


def test_events_come_in_their_order(clock):
    """Started, ended, and how long it took by the clock."""
    play = Play(clock, {"a": 3, "b": 2})
    engine = Engine([play.node("a"), play.node("b", ["a"])])
    with capture_events(NodeStarted, NodeEnded) as events:
        assert engine.orchestrate()
    assert [(type(event), event.target) for event in events] == [
        (NodeStarted, "a"),
        (NodeEnded, "a"),
        (NodeStarted, "b"),
        (NodeEnded, "b"),
    ]
    assert [event.seconds for event in events[1::2]] == [3, 2]


def test_on_a_loop_the_same_steps(clock):
    """`co_orchestrate` starts what became ready in the loop's next turn; nobody waits."""
    play = Play(clock)

    async def main():
        engine = Engine([play.node("a"), play.node("b", ["a"])])
        drive = asyncio.ensure_future(engine.co_orchestrate())
        for name in "ab":
            while not any(run.task.name == name for run in play.runner.running()):  # noqa: ASYNC110 - turns, no time
                await asyncio.sleep(0)
            play.runner.of(name).succeed(name)
        return await drive, engine.value("b")

    assert asyncio.run(main()) == (True, "b")


def test_in_place_and_scripted_together(clock):
    """A long call in place doesn't keep others from ending: they are recorded when it is over."""
    play = Play(clock, {"a": 2, "c": 1})
    here = task(name="here", runner=InlineTaskRun)(lambda: clock.advance(10))
    engine = Engine([play.node("a"), Node("here", here), play.node("c", ["a", "here"]), Node("d", len, ["a"])])
    assert engine.orchestrate()
    assert play.told == [(0, "start", "a"), (2, "end", "a"), (10, "start", "c"), (11, "end", "c")]
    assert engine.value("d") == 1
