"""Tasks that remember their results: what is found again, what is not, and that nobody computes twice at once."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path
from types import ModuleType

import pytest
from loguru import logger

import woflo
from woflo import Directory, StoreError, UsageError, task
from woflo.events import RunReused, RunStarted
from woflo.runners import AsyncTaskRun, MultiprocessTaskRun, SequentialTaskRun, SpawnProcess, ThreadTaskRun
from woflo.testing import PATIENCE, Flag, Ledger, capture_events

RUNNERS = {
    "fork": MultiprocessTaskRun,
    "spawn": MultiprocessTaskRun.using(process_type=SpawnProcess),
    "thread": ThreadTaskRun,
    "async": AsyncTaskRun,
    "sequential": SequentialTaskRun,
}
each_runner = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS.keys())


def noted(ledger, value):
    """Note the call, give the value back."""
    ledger.add(str(value))
    return value


def fails(ledger):
    ledger.add("call")
    raise ValueError("no")


@pytest.fixture
def place(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def logged():
    """What has been logged so far, as one text."""
    lines = []
    sink = logger.add(lines.append, format="{message}")
    yield lambda: "".join(map(str, lines))
    logger.remove(sink)


@each_runner
def test_a_second_call_finds_the_first_ones_value(runner, place, ledger):
    """On every runner a call whose value is remembered returns a finished run at once."""
    one = task(noted, cache=place, runner=runner, ignore=["ledger"])
    first = one(ledger, 3)
    assert first.get_result(timeout=PATIENCE) == 3
    again = one(ledger, 3)
    assert again._result is not None, "it has ended when the call returns"
    assert not again.is_running()
    assert again.wait(0)
    assert again.state == "succeeded"
    assert again.get_result() == 3
    assert again.name != first.name
    assert one(ledger, 4).get_result(timeout=PATIENCE) == 4
    assert ledger.lines() == ["3", "4"]


@each_runner
def test_what_is_remembered_is_there_when_the_run_has_ended(runner, place, ledger):
    """Whoever has a run's value can rely on its being remembered."""
    one = task(noted, cache=place, runner=runner, ignore=["ledger"])
    for n in range(5):
        one(ledger, n).get_result(timeout=PATIENCE)
        assert one.cached(ledger, n)


def test_a_finished_run_can_be_asked_everything(place, ledger):
    """A run that was answered from the store behaves as one that has ended."""
    one = task(noted, cache=place, ignore=["ledger"])
    one(ledger, 1).wait()
    run = one(ledger, 1)
    called = []
    run.add_done_callback(called.append)
    run.stop()
    assert called == [run]
    assert run.exception() is None
    assert run.outcome() == woflo.Ok(1)
    assert "succeeded" in repr(run)
    assert woflo.gather(run, one(ledger, 1)) == [1, 1]

    async def main():
        return await one(ledger, 1)

    assert asyncio.run(main()) == 1
    assert ledger.lines() == ["1"]


def test_values_of_every_size(place):
    """Small values, large ones and ones of any type come back equal."""
    values = [None, True, 0, 1.5, "é", "x" * 10_000, b"\0" * 100_000, [1, (2, {3})], {"a": {"b": [1]}}, float("inf")]
    for number, value in enumerate(values):
        one = task(lambda _number, value=value: value, name="give", cache=place, runner=SequentialTaskRun)
        assert one(number).get_result() == value
        again = one(number)
        assert one.cached(number)
        assert again.get_result() == value
        assert type(again.get_result()) is type(value)


def test_defaults_and_keywords_are_one_call(place, ledger):
    """However its arguments are written, a call is the same call."""

    def area(width, height=2, *, unit="m"):
        ledger.add("ran")
        return f"{width * height} {unit}"

    one = task(area, cache=place, runner=SequentialTaskRun)
    written = [one(3), one(3, 2), one(width=3), one(height=2, width=3), one(3, unit="m")]
    assert {run.get_result() for run in written} == {"6 m"}
    assert ledger.lines() == ["ran"]
    one(3, unit="cm")
    one(3.0)
    assert len(ledger.lines()) == 3, "3 and 3.0 are different arguments"


def test_a_wrong_call_fails_as_without_a_cache(place):
    """A call that the function can't take fails its run with Python's own error."""
    one = task(noted, cache=place, runner=SequentialTaskRun)
    with pytest.raises(TypeError, match="missing"):
        one(1).get_result()


def test_failures_are_not_remembered(place, ledger):
    """A run that fails, or is stopped, is run again."""
    one = task(fails, cache=place, runner=ThreadTaskRun, ignore=["ledger"])
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            one(ledger).get_result(timeout=PATIENCE)
    assert ledger.lines() == ["call", "call"]
    assert not one.cached(ledger)


def test_why(place):
    """`why` says what would happen, and names what has changed."""
    factor = 2

    def scaled(x, y=1):
        return x * factor * y

    one = task(scaled, cache=place, runner=SequentialTaskRun)
    assert one.why(3).reason == "first run"
    one(3)
    assert one.why(3).reuse
    assert str(one.why(3)) == "up to date"
    decision = one.why(4)
    assert decision.reason == "input changed"
    assert decision.detail.startswith("x (")
    factor = 5
    assert one.why(3).reason == "code changed"
    assert "factor" in one.why(3).detail
    assert one.options(force=True).why(3).reason in {"forced", "code changed"}
    factor = 2
    assert one.options(force=True).why(3).reason == "forced"


def test_forget_and_force(place, ledger):
    """`forget` forgets one call; `options(force=True)` runs it and remembers the new value."""
    one = task(noted, cache=place, runner=SequentialTaskRun, ignore=["ledger"])
    one(ledger, 1)
    one(ledger, 2)
    assert one.forget(ledger, 1)
    assert not one.forget(ledger, 1)
    assert not one.cached(ledger, 1)
    assert one.cached(ledger, 2)
    one.options(force=True)(ledger, 2)
    one(ledger, 2)
    assert ledger.lines() == ["1", "2", "2"]


def test_version_stands_for_the_code(place, ledger):
    """With a version the code doesn't count; another version is another result."""
    task(lambda: ledger.add("one"), name="same", cache=place, runner=SequentialTaskRun, version="1")()
    two = task(lambda: ledger.add("two"), name="same", cache=place, runner=SequentialTaskRun, version="1")
    two()
    assert ledger.lines() == ["one"]
    two.options(version=2)()
    assert ledger.lines() == ["one", "two"]


def test_what_cannot_be_digested_runs(place, ledger, logged):
    """An argument that can't be digested is named once, and the task runs each time."""
    lock = threading.Lock()

    def hold(_lock, number):
        ledger.add(str(number))
        return number

    one = task(hold, cache=place, runner=SequentialTaskRun)
    assert [one(lock, 1).get_result() for _ in range(3)] == [1, 1, 1]
    assert ledger.lines() == ["1", "1", "1"]
    assert logged().count("hold is not remembered") == 1
    assert "lock" in logged()
    assert not one.why(lock, 1).reuse


def test_what_cannot_be_kept_is_returned(place, ledger, logged):
    """A value that can't be written is the run's value all the same, and that is said once."""

    def live():
        ledger.add("ran")
        return threading.Lock()

    one = task(live, cache=place, runner=ThreadTaskRun)
    for _ in range(2):
        assert isinstance(one().get_result(timeout=PATIENCE), type(threading.Lock()))
    assert len(ledger.lines()) == 2
    assert logged().count("live is not remembered") == 1


def test_a_store_that_fails_fails_no_run(ledger, logged):
    """Whatever the store does when a value is kept, the run has its value; that it isn't kept is said once."""

    class Full(dict):
        def __setitem__(self, key, value):
            raise OSError(28, "No space left on device")

    one = task(noted, cache=Full(), runner=ThreadTaskRun, ignore=["ledger"])
    assert [one(ledger, n % 2).get_result(timeout=PATIENCE) for n in range(4)] == [0, 1, 0, 1]
    assert len(ledger.lines()) == 4
    assert logged().count("noted is not remembered") == 1


def test_a_folder_that_cannot_be_used_fails_no_run(place, ledger, logged, monkeypatch):
    """Nor does a folder that can't be made; that is said once."""

    def refuse(_folder):
        raise StoreError("it can't be made", "Read-only file system")

    monkeypatch.setattr(Directory, "lock_path", refuse)
    one = task(noted, cache=place, runner=ThreadTaskRun, ignore=["ledger"])
    assert [one(ledger, n).get_result(timeout=PATIENCE) for n in (1, 2)] == [1, 2]
    assert logged().count("noted is not remembered") == 1


def test_while_another_thread_imports_asyncio(place, ledger, monkeypatch):
    """A module that is half imported by another thread is no event loop."""
    one = task(noted, cache=place, runner=ThreadTaskRun, ignore=["ledger"])
    monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))
    assert one(ledger, 1).get_result(timeout=PATIENCE) == 1


def test_a_global_that_changes_meanwhile(place, tmp_path, logged):
    """What was computed with another global than at the call isn't found by calls with the first one."""
    space = {"factor": 2, "there": Flag(tmp_path / "there"), "on": Flag(tmp_path / "on")}
    exec("def scaled(x):\n    there.set()\n    on.wait()\n    return factor * x", space)
    one = task(space["scaled"], cache=place, runner=ThreadTaskRun)
    run = one(1)
    space["there"].wait()
    space["factor"] = 1000
    space["on"].set()
    assert run.get_result(timeout=PATIENCE) == 1000
    space["factor"] = 2
    assert not one.cached(1)
    assert one(1).get_result(timeout=PATIENCE) == 2
    assert one.cached(1)
    assert logged().count("changed meanwhile") == 1


def test_which_parameters_count_is_part_of_the_call(place):
    """Another `ignore` doesn't find what was remembered for other arguments."""

    def pair(a, b):
        return a, b

    first, second = (task(pair, cache=place, runner=SequentialTaskRun, ignore=[name]) for name in "ba")
    assert first(1, 2).get_result() == (1, 2)
    assert second(7, 1).get_result() == (7, 1)


def test_a_finished_run_lets_its_arguments_go(place):
    """A run that is kept doesn't keep what it was called with."""

    class Table(list):
        pass

    table = Table([1, 2])
    seen = weakref.ref(table)
    run = task(len, cache=place, runner=SequentialTaskRun)(table)
    assert run.get_result() == 2
    del table
    gc.collect()
    assert seen() is None


def test_any_mapping_serves(ledger):
    """A dict is a store: what was put into it is found by other tasks of the same code."""
    memory = {}
    for _ in range(2):
        assert task(noted, cache=memory, ignore=["ledger"])(ledger, 7).get_result(timeout=PATIENCE) == 7
    assert ledger.lines() == ["7"]
    assert all(isinstance(value, bytes) for value in memory.values())


def test_inputs_that_are_runs(place, ledger):
    """Where an argument is a run, the call is looked up when its value is known."""
    number = task(lambda n: n, name="number", runner=ThreadTaskRun)
    one = task(noted, cache=place, runner=ThreadTaskRun, ignore=["ledger"])
    for _ in range(3):
        assert one(ledger, number(5)).get_result(timeout=PATIENCE) == 5
    assert ledger.lines() == ["5"]
    assert one.cached(ledger, 5)


@pytest.mark.parametrize("name", ["fork", "thread", "async"])
def test_calls_at_once_compute_once(name, place, ledger, tmp_path):
    """Calls that come while the value is being computed wait for it, and get it."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")

    def slow(x):
        ledger.add("ran")
        started.set()
        release.wait()
        return [x]

    one = task(slow, cache=place, runner=RUNNERS[name])
    first = one(1)
    started.wait()
    others = [one(1) for _ in range(5)]
    assert {run.state for run in others} == {"pending"}
    release.set()
    assert woflo.gather(first, *others, timeout=PATIENCE) == [[1]] * 6
    assert ledger.lines() == ["ran"]


def test_the_next_one_takes_over(place, ledger, tmp_path):
    """When the run that computes is stopped or fails, one of those that wait for its value computes it."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")

    def slow():
        ledger.add("ran")
        started.set()
        release.wait()
        return "value"

    one = task(slow, cache=place, runner=MultiprocessTaskRun)
    first = one()
    started.wait()
    others = [one() for _ in range(3)]
    stopped = others.pop()
    stopped.stop()
    assert isinstance(stopped.outcome(), woflo.StoppedFailure)
    first.stop()
    release.set()
    assert woflo.gather(*others, timeout=PATIENCE) == ["value", "value"]
    assert ledger.lines() == ["ran", "ran"]


def test_a_task_that_calls_itself(place):
    """A call whose own code asks for the same call is refused instead of waiting for ever."""

    def endless():
        return woflo_task[0]().get_result(timeout=PATIENCE)

    woflo_task = [task(endless, cache=place, runner=SequentialTaskRun, version="1")]
    with pytest.raises(UsageError, match="calls itself"):
        woflo_task[0]().get_result()


@pytest.mark.parametrize("runner", [MultiprocessTaskRun, ThreadTaskRun])
def test_tasks_that_call_each_other_in_a_circle(runner, place):
    """So is one that comes back by way of another task, in other threads or processes."""

    def there():
        return back_again[0]().get_result(timeout=PATIENCE)

    def back():
        return there_again[0]().get_result(timeout=PATIENCE)

    there_again = [task(there, cache=place, runner=runner, version="1")]
    back_again = [task(back, cache=place, runner=runner, version="1")]
    with pytest.raises(UsageError, match="calls itself"):
        there_again[0]().get_result(timeout=PATIENCE)


def test_recursion_with_other_arguments(place, ledger):
    """A remembering task may call itself with other arguments."""

    def fib(n):
        ledger.add(str(n))
        return n if n < 2 else self[0](n - 1).get_result() + self[0](n - 2).get_result()

    self = [task(fib, cache=place, runner=SequentialTaskRun, version="1")]
    assert self[0](12).get_result() == 144
    assert len(ledger.lines()) == 13


TWO = """
import sys
from woflo import task
from woflo.testing import Ledger, Flag
@task(cache=sys.argv[1], runner=None, ignore=["ledger", "release"], version="1")
def slow(ledger, release, x):
    ledger.add("ran")
    release.wait()
    return x * 2
if __name__ == "__main__":
    run = slow(Ledger(sys.argv[2]), Flag(sys.argv[3]), 21)
    Ledger(sys.argv[2] + ".called").add("called")
    print(run.get_result(timeout=60))
"""


def test_two_processes_at_once(place, ledger, tmp_path):
    """Two programs that ask for one value at once both get it, and one of them computes it."""
    script = tmp_path / "two.py"
    script.write_text(TWO)
    release = Flag(tmp_path / "release")
    command = [sys.executable, str(script), str(place), str(ledger.path), release.path]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    called = Ledger(str(ledger.path) + ".called")
    while len(called.lines()) < 3:
        assert all(program.poll() is None for program in programs)
    release.set()
    assert [program.communicate(timeout=PATIENCE)[0] for program in programs] == ["42\n"] * 3
    assert ledger.lines() == ["ran"]


def test_a_killed_program_gives_its_lease_back(place, ledger, tmp_path):
    """When the program that computes a value is killed, another one that waits for it computes it."""
    script = tmp_path / "two.py"
    script.write_text(TWO)
    release = Flag(tmp_path / "release")
    command = [sys.executable, str(script), str(place), str(ledger.path), release.path]
    first = subprocess.Popen(command)
    while not ledger.lines():
        assert first.poll() is None
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while len(Ledger(str(ledger.path) + ".called").lines()) < 2:
        assert second.poll() is None
    first.kill()
    first.wait()
    release.set()
    assert second.communicate(timeout=PATIENCE)[0] == "42\n"
    assert ledger.lines() == ["ran", "ran"]


def test_tables_are_remembered(ledger):
    """Tables and times of pandas, as arguments and as values."""
    pd = pytest.importorskip("pandas", reason="pandas has no wheel here")

    @task(cache={}, ignore=["ledger"])
    def summed(ledger, table, at):
        ledger.add("ran")
        return pd.DataFrame({"sum": [table["a"].sum()], "at": [at]})

    for _ in range(2):
        made = summed(ledger, pd.DataFrame({"a": [1, 2]}), pd.Timestamp("2026-01-02", tz="Europe/Berlin")).get_result()
        assert list(made["sum"]) == [3]
        assert made["at"][0] == pd.Timestamp("2026-01-01T23:00Z")
    assert ledger.lines() == ["ran"]


@pytest.mark.parametrize("wrap", [lambda path: path, lambda path: (path, 1)])
def test_a_path_is_remembered_while_its_file_is_the_same(wrap, tmp_path, ledger, logged):
    """A file that the call made and somebody has changed or removed is made again, which is said."""
    made = tmp_path / "made.txt"

    @task(cache={}, ignore=["ledger"])
    def write(ledger, where, wrap):
        ledger.add("ran")
        Path(where).write_text("made")
        return wrap(Path(where))

    def call():
        assert write(ledger, str(made), wrap).get_result() == wrap(made)
        assert made.read_text() == "made"
        return len(ledger.lines())

    assert [call(), call()] == [1, 1]
    assert write.cached(ledger, str(made), wrap)
    made.write_text("changed")
    assert not write.cached(ledger, str(made), wrap)
    assert [call(), call()] == [2, 2]
    assert "something else lies there now" in logged()
    made.unlink()
    assert [call(), call()] == [3, 3]


class Odd:
    """Can be written, but not read."""

    def __init__(self, size):
        self.text = "x" * size

    def __getstate__(self):
        return {"text": self.text}

    def __setstate__(self, state):
        raise ValueError("gone")


@pytest.mark.parametrize("size", [1, 5000])
def test_a_value_that_cannot_be_rebuilt(size, ledger, logged):
    """It runs each time, which is said once; nobody says that it is remembered."""

    @task(cache={}, runner=SequentialTaskRun, ignore=["ledger"])
    def make(ledger, size):
        ledger.add("ran")
        return Odd(size)

    for number in range(3):
        make(ledger, size).get_result()
        assert len(ledger.lines()) == number + 1
    assert not make.cached(ledger, size)
    assert logged().count("gone") == 1


def test_another_session(place, ledger, tmp_path):
    """Another session of the same script finds what the first one left, also with another hash seed."""
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        from woflo import task
        from woflo.testing import Ledger
        SCALE = {"a": 1, "b": 2}
        def helper(x):
            return x * SCALE["b"]
        @task(cache=sys.argv[1], ignore=["ledger"])
        def job(ledger, x, names=frozenset("abcdef")):
            ledger.add("ran")
            return {"value": helper(x), "names": sorted(names)}
        print(job(Ledger(sys.argv[2]), 4).get_result()["value"])
    """)
    )
    for seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, str(script), str(place), str(ledger.path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout == "8\n"
    assert ledger.lines() == ["ran"]
    script.write_text(script.read_text().replace('"b": 2', '"b": 3'))
    out = subprocess.run(
        [sys.executable, str(script), str(place), str(ledger.path)], capture_output=True, text=True, check=True
    )
    assert out.stdout == "12\n"
    assert ledger.lines() == ["ran", "ran"]


def test_methods(place, ledger):
    """A method's object is one of its arguments."""

    class Scale:
        def __init__(self, by):
            self.by = by

        @task(cache=place, runner=SequentialTaskRun, ignore=["ledger"])
        def times(self, ledger, x):
            ledger.add("ran")
            return self.by * x

    assert [Scale(by).times(ledger, 2).get_result() for by in (1, 2, 1)] == [2, 4, 2]
    assert ledger.lines() == ["ran", "ran"]


def test_methods_that_change_their_object(place, ledger):
    """What a method does to its object afterwards is no other code; another object is another input."""

    class Model:
        def __init__(self, degree):
            self.degree = degree

        @task(cache=place, runner=SequentialTaskRun, ignore=["ledger"])
        def fit(self, ledger):
            ledger.add("ran")
            self.fitted = True
            return self

    for _ in range(2):
        assert Model(1).fit(ledger).get_result().fitted
    assert ledger.lines() == ["ran"]
    assert Model(2).fit.why(ledger).reason == "input changed"


def test_methods_say_it_once(place, logged):
    """What keeps a method's results from being remembered is said once, not for each object that it is called on."""

    class Client:
        def __init__(self):
            self.lock = threading.Lock()

        @task(cache=place, runner=SequentialTaskRun)
        def ask(self, x):
            return x

    assert [Client().ask(x).get_result() for x in (1, 2)] == [1, 2]
    assert logged().count("ask is not remembered") == 1


def test_coroutine_functions(place, ledger):
    """A coroutine function's results are remembered as any other's; the loop isn't blocked by the writing."""

    async def page(n):
        ledger.add(str(n))
        return {"n": n}

    one = task(page, cache=place)

    async def main():
        first = await one(1)
        again = one(1)
        assert not again.is_running()
        return first, await again, await one(2)

    assert asyncio.run(main()) == ({"n": 1}, {"n": 1}, {"n": 2})
    assert ledger.lines() == ["1", "2"]


def test_retries_and_timeouts(place, ledger):
    """The policy of a task that remembers is its own: a later attempt's value is remembered."""

    def flaky():
        ledger.add("try")
        if len(ledger.lines()) < 3:
            raise OSError("not yet")
        return "there"

    one = task(flaky, cache=place, runner=ThreadTaskRun, retries=3, timeout=PATIENCE)
    assert one().get_result(timeout=PATIENCE) == "there"
    assert one().get_result(timeout=PATIENCE) == "there"
    assert len(ledger.lines()) == 3


def test_events(place, ledger):
    """A call that is answered from the store is told as such, and nothing is said to have started."""
    one = task(noted, cache=place, runner=SequentialTaskRun, ignore=["ledger"])
    with capture_events(RunReused, RunStarted) as events:
        one(ledger, 1)
        one(ledger, 1)
    assert [(type(event).__name__, event.task) for event in events] == [("RunStarted", "noted"), ("RunReused", "noted")]


def test_in_a_graph(place, ledger):
    """A node whose task remembers is answered from the store too."""
    from woflo.engine import Engine
    from woflo.graph import Node

    one = task(noted, cache=place, runner=ThreadTaskRun, ignore=["ledger"])
    for _ in range(2):
        engine = Engine([Node("led", lambda: ledger), Node("n", lambda: 5), Node("x", one, ["led", "n"])])
        assert engine.orchestrate()
        assert engine.value("x") == 5
    assert ledger.lines() == ["5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": 3}, "cache must be"),
        ({"cache": True, "version": 1.5}, "version must be"),
        ({"cache": True, "ignore": "ledger"}, "ignore must be"),
        ({"cache": True, "ignore": ["leger"]}, "no parameter of noted: 'leger'; there are ledger, value"),
        ({"cache": True, "force": 1}, "force must be"),
        ({"version": "1"}, "give cache=True"),
        ({"ignore": ["ledger"]}, "give cache=True"),
    ],
)
def test_bad_options(options, message):
    """Options that mean nothing are refused when the task is made."""
    with pytest.raises(UsageError, match=message):
        task(noted, **options)


def test_a_task_that_does_not_remember(place):
    """Asking a task that remembers nothing is a mistake that says what to do."""
    plain = task(noted)
    for ask in (plain.why, plain.cached, plain.forget):
        with pytest.raises(UsageError, match="cache=True"):
            ask(None, 1)
    remembering = plain.options(cache=place, ignore=["ledger"])
    assert remembering.why(None, 1).reason == "first run"
    assert type(remembering.options(cache=None)) is type(plain)


@task(cache="unused", version="1")
def module_task(x):
    return x


def test_pickling():
    """A task that remembers can be pickled, by name and by value, and still remembers."""
    assert pickle.loads(pickle.dumps(module_task)) is module_task
    other = pickle.loads(pickle.dumps(module_task.options(version="9", ignore=["x"])))
    assert (other.cache, other._how["version"], other.fn) == ("unused", "9", module_task.fn)
    import cloudpickle

    lone = pickle.loads(cloudpickle.dumps(task(lambda: 1, cache="unused", name="lone")))
    assert lone.cache == "unused"


def test_decorating_opens_nothing(tmp_path, monkeypatch):
    """A store appears when something is first kept, not before."""
    monkeypatch.chdir(tmp_path)
    one = task(noted, cache=tmp_path / "store", runner=SequentialTaskRun)
    assert not one.cached(1, 1)
    assert not (tmp_path / "store").exists()


class Live:
    def __init__(self, url):
        self.url = url

    def __reduce__(self):
        raise TypeError("a live connection")


live, lock = Live("a"), threading.Lock()


def test_a_global_without_a_digest_is_said(logged):
    """That a change of a global that can't be digested isn't noticed is said once; of a lock it need not be."""

    def ask():
        with lock:
            return live.url

    one = task(ask, cache={}, runner=SequentialTaskRun)
    one()
    one()
    assert logged().count("counts by its type only") == 1
    assert "global live in tests/test_cache.py" in logged()
