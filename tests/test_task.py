"""The decorator: what it accepts, what it refuses, what it keeps, and which runner wins."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import woflo
from woflo import Task, UsageError, task
from woflo.runners import AsyncTaskRun, MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun, _process
from woflo.testing import PATIENCE, Flag


class FirstTaskRun(SequentialTaskRun):
    """A runner of one's own."""


class SecondTaskRun(SequentialTaskRun):
    """And another."""


@task(runner=SequentialTaskRun)
def scale(rows: list[float], factor: float = 2.0, *, offset: float = 0.0) -> list[float]:
    """Scale rows.

    And shift them.
    """
    return [row * factor + offset for row in rows]


class Shop:
    """Tasks as methods of all kinds, some with options."""

    rate = 3

    def __init__(self, stock=0):
        self.stock = stock

    @task(runner=SequentialTaskRun)
    def left(self, sold):
        """What is left."""
        return self.stock - sold

    @task
    def bare(self, sold):
        return self.stock - sold

    @classmethod
    @task(runner=SequentialTaskRun)
    def price(cls, amount):
        return cls.rate * amount

    @task(runner=SequentialTaskRun)
    @classmethod
    def price_outside(cls, amount):
        return cls.rate * amount

    @staticmethod
    @task(runner=SequentialTaskRun)
    def twice(amount):
        return 2 * amount

    @task(runner=SequentialTaskRun)
    @staticmethod
    def twice_outside(amount):
        return 2 * amount


class Adder:
    def __init__(self, n):
        self.n = n

    def __call__(self, m):
        return self.n + m


def give(value=None):
    return value


def get(run):
    return run.get_result(timeout=PATIENCE)


# Forms.


def test_bare():
    """@task without parentheses makes a task with the default policy."""

    @task
    def double(x):
        return 2 * x

    assert isinstance(double, Task)
    run = double(4)
    assert isinstance(run, woflo.BaseTaskRun)
    assert get(run) == 8


def test_empty_parentheses():
    """@task() is the same as @task."""

    @task()
    def double(x):
        return 2 * x

    assert isinstance(double, Task)
    assert get(double(4)) == 8


def test_as_a_function():
    """task(fn, **options) decorates what exists already and leaves it alone."""
    decorated = task(give, runner=SequentialTaskRun)
    assert isinstance(decorated, Task)
    assert get(decorated(3)) == 3
    assert give(3) == 3


def test_options_are_keywords():
    """Options can't be given by position, where they would be mistaken for each other."""
    with pytest.raises(TypeError):
        task(give, "name")


def test_unknown_options_are_named():
    """A misspelt option is refused, with its name."""
    with pytest.raises((TypeError, UsageError), match="retry_sleep"):
        task(retry_sleep=1)
    with pytest.raises((TypeError, UsageError), match="retrys"):
        task(give).options(retrys=1)


def test_the_plain_function_is_kept():
    """Fn is the function, local calls it here and now, and neither makes a run."""
    seen = []
    with woflo.observe(seen.append):
        assert scale.fn([1.0], 3.0) == [3.0]
        assert scale.local([1.0], offset=1.0) == [3.0]
    assert seen == []
    here = task(os.getpid)
    assert here.local() == here.fn() == os.getpid()


def test_local_raises_what_the_function_raises():
    """Local is a plain call: the user's exception comes as it is, and nothing is retried."""
    calls = []

    @task(retries=3)
    def broken():
        calls.append(1)
        raise KeyError("price")

    with pytest.raises(KeyError) as caught:
        broken.local()
    assert not hasattr(caught.value, "__notes__")
    assert len(calls) == 1


def test_name_signature_and_docstring_survive():
    """A task looks like its function to help(), inspect and editors."""
    assert scale.__name__ == "scale"
    assert scale.__qualname__ == "scale"
    assert scale.__module__ == __name__
    assert scale.__doc__.startswith("Scale rows.")
    assert inspect.signature(scale) == inspect.signature(scale.fn)
    assert list(inspect.signature(scale).parameters) == ["rows", "factor", "offset"]
    assert inspect.unwrap(scale) is scale.fn
    assert scale.__annotations__ == scale.fn.__annotations__


def test_a_task_names_itself():
    """The name is the function's, or the one given; repr tells it."""
    assert scale.name == "scale"
    assert "scale" in repr(scale)
    assert task(give, name="gift").name == "gift"
    assert task(lambda: 1).name == "<lambda>"


def test_wrong_arguments_raise_at_the_call_or_end_the_run():
    """Arguments that don't fit the signature never pass silently."""
    with pytest.raises(TypeError, match="missing"):
        get(scale())


def test_a_task_is_immutable():
    """A task can't be changed; options() makes another one."""
    with pytest.raises((AttributeError, TypeError)):
        scale.name = "other"
    with pytest.raises((AttributeError, TypeError)):
        scale.retries = 7


def test_options_make_a_changed_copy():
    """options() changes what it is told and keeps the rest; the original stays."""
    seen = []

    @task(name="original", retries=1, runner=SequentialTaskRun)
    def broken():
        seen.append(1)
        raise OSError

    changed = broken.options(name="changed", retries=2)
    assert isinstance(changed, Task)
    assert (broken.name, changed.name) == ("original", "changed")
    assert isinstance(changed().exception(), OSError)
    assert len(seen) == 3
    seen.clear()
    assert isinstance(broken().exception(), OSError)
    assert len(seen) == 2
    seen.clear()
    assert isinstance(changed.options(retries=0)().exception(), OSError)
    assert len(seen) == 1
    assert changed.fn is broken.fn


def test_copies_number_their_runs_together():
    """Runs of a task and of its changed copies have different names."""
    original = task(give, name="numbered apart", runner=SequentialTaskRun)
    copies = [original, original.options(retries=1), original.options(timeout=5)]
    names = [one(1).name for one in copies * 2]
    assert len(set(names)) == 6


def test_options_can_take_back():
    """An option can be set back to its default by its default value."""
    limited = task(give, timeout=5, runner=FirstTaskRun)
    free = limited.options(timeout=None, runner=None)
    with woflo.use(SecondTaskRun):
        assert type(free(1)) is SecondTaskRun
        assert type(limited(1)) is FirstTaskRun


# Things that can be tasks.


def test_methods():
    """A decorated method is bound to its object, and to its class when asked of the class."""
    shop = Shop(stock=10)
    assert get(shop.left(3)) == 7
    assert get(Shop.left(shop, 4)) == 6
    assert shop.left.local(1) == 9
    assert shop.left.fn(shop, 1) == 9 if not inspect.ismethod(shop.left.fn) else shop.left.fn(1) == 9
    assert get(shop.left.options(name="other")(2)) == 8
    assert shop.left.__doc__ == "What is left."


def test_methods_on_a_process():
    """A method's object travels with the call."""
    assert get(Shop(stock=5).bare(1)) == 4


def test_classmethods_and_staticmethods():
    """Class and static methods can be tasks, whichever decorator is outside."""
    for shop in (Shop, Shop()):
        assert get(shop.price(2)) == 6
        assert get(shop.price_outside(2)) == 6
        assert get(shop.twice(2)) == 4
        assert get(shop.twice_outside(2)) == 4


def test_partial():
    """A functools.partial can be a task; it is named after its function."""
    triple = task(functools.partial(scale.fn, factor=3.0), runner=SequentialTaskRun)
    assert get(triple([1.0])) == [3.0]
    assert triple.name == "scale"


def test_callable_objects():
    """An object with __call__ can be a task; it is named after its class."""
    add = task(Adder(4), runner=SequentialTaskRun)
    assert get(add(1)) == 5
    assert add.name == "Adder"


def test_builtins_and_classes():
    """A function written in C and a class can be tasks."""
    assert get(task(len, runner=SequentialTaskRun)("four")) == 4
    assert get(task(dict, runner=SequentialTaskRun)(a=1)) == {"a": 1}


# What is refused.


def generator():
    yield 1


async def async_generator():
    yield 1


class Generates:
    def __call__(self):
        yield 1


@pytest.mark.parametrize(
    "fn",
    [generator, async_generator, functools.partial(generator), Generates()],
    ids=["generator", "async generator", "partial of a generator", "object whose __call__ is one"],
)
def test_generators_are_refused(fn):
    """A generator function can't be a task until streams exist; it is said at decoration."""
    with pytest.raises(UsageError, match="generator"):
        task(fn)


@pytest.mark.parametrize("thing", [3, "name", None, [], object()], ids=repr)
def test_what_cannot_be_called_is_refused(thing):
    """What isn't callable can't be a task."""
    if thing is None:
        assert callable(task(None)), "task(None) is task(): a decorator"
        return
    with pytest.raises(UsageError) as caught:
        task(thing)
    assert type(thing).__name__ in str(caught.value) or repr(thing) in str(caught.value)


BAD = [
    ("retries", -1),
    ("retries", 1.5),
    ("retries", "2"),
    ("retries", None),
    ("retries", True),
    ("retry_sleep_time", -0.1),
    ("retry_sleep_time", float("nan")),
    ("retry_sleep_time", float("inf")),
    ("retry_sleep_time", "1"),
    ("retry_sleep_time", None),
    ("retry_on", ValueError("an instance")),
    ("retry_on", "ValueError"),
    ("retry_on", (ValueError, 3)),
    ("retry_on", int),
    ("retry_on", None),
    ("timeout", 0),
    ("timeout", -1),
    ("timeout", float("nan")),
    ("timeout", "10"),
    ("timeout", True),
    ("name", 3),
    ("name", ""),
    ("runner", int),
    ("runner", "thread"),
    ("runner", object()),
    ("runner", woflo.BaseTaskRun),
]


@pytest.mark.parametrize(("option", "value"), BAD, ids=[f"{option}={value!r}" for option, value in BAD])
def test_bad_values_are_refused(option, value):
    """A bad option raises UsageError, a ValueError, at decoration, naming option and value."""
    with pytest.raises(UsageError) as caught:
        task(give, **{option: value})
    assert isinstance(caught.value, ValueError)
    assert option in str(caught.value)
    with pytest.raises(UsageError):
        task(**{option: value})(give)
    with pytest.raises(UsageError):
        task(give).options(**{option: value})


GOOD = [
    ("retries", 0),
    ("retries", 10**9),
    ("retry_sleep_time", 0),
    ("retry_sleep_time", 0.25),
    ("retry_on", OSError),
    ("retry_on", (OSError, KeyError)),
    ("retry_on", BaseException),
    ("timeout", 0.001),
    ("timeout", 5),
    ("timeout", None),
    ("name", "täglich report/3"),
    ("runner", SequentialTaskRun),
    ("runner", None),
]


@pytest.mark.parametrize(("option", "value"), GOOD, ids=[f"{option}={value!r}" for option, value in GOOD])
def test_good_values_are_accepted(option, value):
    """The edges of what makes sense are accepted."""
    assert isinstance(task(give, **{option: value}), Task)
    assert isinstance(task(give).options(**{option: value}), Task)


def test_a_task_of_a_task_is_refused_or_unwrapped():
    """Decorating twice never runs a run inside a run by accident."""
    try:
        twice = task(scale)
    except UsageError:
        return
    assert twice.fn is scale.fn


# Which runner wins: options, decorator, use(), WOFLO_RUNNER, the default.


def test_nearest_wins(monkeypatch):
    """options() beats the decorator, it beats use(), it beats WOFLO_RUNNER, it beats the default."""
    plain, decorated = task(give), task(give, runner=FirstTaskRun)
    assert type(plain(1)) is MultiprocessTaskRun
    monkeypatch.setenv("WOFLO_RUNNER", "thread")
    assert isinstance(plain(1), ThreadTaskRun)
    with woflo.use(SequentialTaskRun):
        assert type(plain(1)) is SequentialTaskRun
        assert type(decorated(1)) is FirstTaskRun
        assert type(decorated.options(runner=SecondTaskRun)(1)) is SecondTaskRun
    assert type(decorated(1)) is FirstTaskRun


def test_use_nests_and_ends():
    """use() holds inside its block only, the innermost wins, and an exception ends it too."""
    plain = task(give)
    with woflo.use(FirstTaskRun):
        with woflo.use(SecondTaskRun):
            assert type(plain(1)) is SecondTaskRun
        assert type(plain(1)) is FirstTaskRun
    with pytest.raises(KeyError), woflo.use(FirstTaskRun):
        raise KeyError
    assert type(plain(1)) is MultiprocessTaskRun


def test_use_reaches_threads_and_coroutines_of_runs():
    """A task on a thread or a loop sees the use() that held at its call."""

    def which():
        return type(task(give)(1)).__name__

    async def awhich():
        return which()

    with woflo.use(FirstTaskRun):
        assert get(task(which, runner=ThreadTaskRun)()) == "FirstTaskRun"
        assert get(task(awhich, runner=AsyncTaskRun)()) == "FirstTaskRun"


def test_use_does_not_reach_other_threads_or_workers():
    """use() is no global: threads of others and worker processes don't see it."""
    plain = task(give)
    seen = []

    def which():
        return type(task(give)(1)).__name__

    with woflo.use(FirstTaskRun):
        other = threading.Thread(target=lambda: seen.append(type(plain(1)) is FirstTaskRun))
        other.start()
        other.join(PATIENCE)
        inside = get(task(which, runner=MultiprocessTaskRun)())
    assert seen == [False]
    assert inside == "MultiprocessTaskRun"


def test_use_wants_a_runner():
    """use() of something else is refused at once."""
    with pytest.raises(UsageError):
        woflo.use("thread").__enter__()


@pytest.mark.parametrize(
    ("name", "runner"),
    [
        pytest.param("fork", MultiprocessTaskRun, marks=pytest.mark.skipif(sys.platform == "win32", reason="no fork")),
        ("spawn", MultiprocessTaskRun),
        ("thread", ThreadTaskRun),
        ("async", AsyncTaskRun),
        ("sequential", SequentialTaskRun),
    ],
)
def test_woflo_runner(monkeypatch, name, runner):
    """WOFLO_RUNNER names the runner of tasks that say nothing."""
    monkeypatch.setenv("WOFLO_RUNNER", name)
    run = task(give)(name)
    assert isinstance(run, runner)
    assert get(run) == name


def test_woflo_runner_is_checked(monkeypatch):
    """Any other WOFLO_RUNNER is refused, and the message lists the choices."""
    monkeypatch.setenv("WOFLO_RUNNER", "threads")
    with pytest.raises(UsageError) as caught:
        task(give)(1)
    message = str(caught.value)
    assert "threads" in message
    assert all(name in message for name in ("fork", "spawn", "thread", "async", "sequential"))


def test_woflo_runner_from_the_shell():
    """The variable can be set outside."""
    code = "from woflo import task\nrun = task(len)('abc')\nprint(type(run).__name__, run.get_result())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "WOFLO_RUNNER": "thread"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("ThreadTaskRun 3\n", "")


def test_a_coroutine_function_runs_on_a_loop():
    """Without a choice a coroutine function runs on an event loop; with one it runs there."""

    async def arrive():
        return os.getpid()

    assert isinstance(task(arrive)(), AsyncTaskRun)
    assert get(task(arrive)()) == os.getpid()
    assert get(task(arrive, runner=MultiprocessTaskRun)()) != os.getpid()
    assert get(task(arrive, runner=SequentialTaskRun)()) == os.getpid()
    assert get(task(functools.partial(arrive), runner=ThreadTaskRun)()) == os.getpid()
    assert isinstance(task(functools.partial(arrive))(), AsyncTaskRun)


# Configured runners.


def test_using_makes_a_class():
    """using() makes a subclass with the options set, and leaves the original alone."""
    few = MultiprocessTaskRun.using(max_running=3)
    assert issubclass(few, MultiprocessTaskRun)
    assert few.max_running == 3
    assert MultiprocessTaskRun.max_running != 3
    assert few.using(max_running=4).max_running == 4
    assert get(task(give, runner=few)(1)) == 1


def test_using_refuses_unknown_and_bad_options():
    """using() names an option that doesn't exist, and a value that makes no sense."""
    with pytest.raises((UsageError, TypeError), match="max_runing"):
        MultiprocessTaskRun.using(max_runing=3)
    with pytest.raises(UsageError):
        MultiprocessTaskRun.using(max_running=0)
    with pytest.raises(UsageError):
        MultiprocessTaskRun.using(process_type=int)


def test_ref_is_the_identity():
    """ref(run) is the run."""
    run = scale([1.0])
    assert woflo.ref(run) is run


def test_a_run_in_a_foreign_process_is_refused(tmp_path):
    """A run that got into another process can't be waited for there: it should be an argument."""
    flag = Flag(tmp_path / "release")
    run = task(flag.wait, name="held")()

    def steal():
        return run.get_result()

    outcome = task(steal, runner=MultiprocessTaskRun)().outcome()
    assert isinstance(outcome.__cause__, UsageError)
    assert "argument" in str(outcome.__cause__)
    flag.set()
    assert get(run) is None


@pytest.mark.parametrize("runner", [ThreadTaskRun, MultiprocessTaskRun])
def test_a_call_that_ctrl_c_cuts_short_leaves_no_run(runner, monkeypatch, tmp_path):
    """Ctrl-C between the start of a run and the return of the call ends the run: nobody has it to stop it."""
    start = runner._start_attempt
    runs = []

    def interrupted(run):
        runs.append(run)
        start(run)
        signal.default_int_handler(signal.SIGINT, None)

    monkeypatch.setattr(runner, "_start_attempt", interrupted)

    @task(runner=runner)
    def wait():
        while not woflo.stop_requested():
            time.sleep(0.005)
        (tmp_path / "asked").touch()

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert runs[0].wait(PATIENCE)
    assert runs[0] not in _process.live


def test_a_mock_is_a_callable():
    """A Mock, which has every attribute, can be made a task."""
    from unittest.mock import Mock

    assert task(Mock(return_value=3), runner=SequentialTaskRun)(1).get_result() == 3
