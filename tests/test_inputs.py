"""Runs as inputs: where they are found, what is left alone, and when the dependent run starts."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

import woflo
from woflo import DependencyFailure, StoppedFailure, UsageError, task
from woflo.runners import AsyncTaskRun, MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun
from woflo.runners.multiprocess import SpawnProcess
from woflo.testing import PATIENCE, Flag, Ledger

SPAWN = MultiprocessTaskRun.using(process_type=SpawnProcess)


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Plain:
    item: Any
    more: list = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    item: Any


@dataclass(slots=True)
class Slotted:
    item: Any


@dataclass(frozen=True, slots=True)
class FrozenSlotted:
    item: Any
    label: str = "label"


@dataclass
class Derived(Plain):
    """A dataclass whose `__init__` can't simply be called again."""

    total: int = field(init=False, default=0)
    checked: bool = field(default=False, init=False)

    def __post_init__(self):
        self.total = 7
        self.checked = True


class Box:
    """An object that woflo doesn't look into."""

    def __init__(self, item):
        self.item = item


def give(value=None):
    return value


def hold(flag, value=None):
    flag.wait()
    return value


def broken(message="broken"):
    raise ValueError(message)


def note(ledger, line, *_inputs):
    ledger.add(line)
    return line


def get(run):
    return run.get_result(timeout=PATIENCE)


@pytest.fixture
def held(tmp_path):
    """Gives runs that end when `release()` is called: `held(value)`."""
    flag = Flag(tmp_path / "release")
    made = []

    def start(value=None, runner=ThreadTaskRun):
        made.append(task(hold, runner=runner)(flag, value))
        return made[-1]

    start.release = flag.set
    yield start
    flag.set()
    woflo.wait(made, timeout=PATIENCE)


def here(*args, **kwargs):
    """Run `give` in place with one argument; what arrives is the very object."""
    return get(task(give, runner=SequentialTaskRun)(*args, **kwargs))


# Where runs are found.


@pytest.mark.parametrize("state", ["pending", "ended"])
@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda r: r, lambda v: v),
        (lambda r: [r], lambda v: v[0]),
        (lambda r: (r,), lambda v: v[0]),
        (lambda r: {"k": r}, lambda v: v["k"]),
        (lambda r: {r}, lambda v: next(iter(v))),
        (lambda r: [{"k": ({"j": [r]},)}], lambda v: v[0]["k"][0]["j"][0]),
        (Plain, lambda v: v.item),
        (lambda r: Plain(1, [r]), lambda v: v.more[0]),
        (lambda r: Frozen([r]), lambda v: v.item[0]),
        (lambda r: Slotted((r,)), lambda v: v.item[0]),
        (lambda r: FrozenSlotted({"k": r}), lambda v: v.item["k"]),
        (lambda r: [Frozen(Plain(Slotted(r)))], lambda v: v[0].item.item.item),
    ],
    ids=[
        "bare",
        "list",
        "tuple",
        "dict",
        "set",
        "nested",
        "dataclass",
        "list in a dataclass",
        "frozen",
        "slots",
        "frozen slots",
        "three deep",
    ],
)
def test_found_in(held, wrap, unwrap, state):
    """A run is found in lists, tuples, dicts, sets and dataclasses, at any depth, ended or not."""
    run = held("value")
    if state == "ended":
        held.release()
        assert run.wait(timeout=PATIENCE)
    dependent = task(give, runner=ThreadTaskRun)(wrap(run))
    held.release()
    assert unwrap(get(dependent)) == "value"


def test_found_among_keywords(held):
    """Keyword arguments are searched too."""
    run = task(give, runner=ThreadTaskRun)(value=[held(3)])
    held.release()
    assert get(run) == [3]


def test_types_are_kept(held):
    """A container with a run in it arrives with its own type and order."""
    inner = held("v")
    given = ([inner, 1], (inner, 2), {"b": inner, "a": 3})
    run = task(give, runner=ThreadTaskRun)(given)
    held.release()
    assert get(run) == (["v", 1], ("v", 2), {"b": "v", "a": 3})
    assert list(get(run)[2]) == ["b", "a"]


def test_a_dataclass_keeps_its_other_fields(held):
    """A dataclass is copied as it is: __init__ and __post_init__ don't run again."""
    given = Derived(held("v"))
    given.total = 99
    run = task(give, runner=ThreadTaskRun)(given)
    held.release()
    arrived = get(run)
    assert (arrived.item, arrived.total, arrived.checked) == ("v", 99, True)
    assert isinstance(given.item, woflo.BaseTaskRun)


def test_a_run_as_a_dict_key(held):
    """A run that is the key of a dict is replaced by its value."""
    inner = held("key")
    run = task(give, runner=ThreadTaskRun)({inner: 1})
    held.release()
    assert get(run) == {"key": 1}


def test_a_set_of_runs_with_equal_values(held):
    """In a set equal values fall together, as sets do."""
    run = task(give, runner=ThreadTaskRun)({held(1), held(1), held(2)})
    held.release()
    assert get(run) == {1, 2}


def test_an_unhashable_value_in_a_set_fails_the_run(held):
    """A run in a set whose value can't be in a set fails the dependent run, without a hang."""
    run = task(give, runner=ThreadTaskRun)({held([1])})
    held.release()
    assert run.wait(timeout=PATIENCE)
    assert not run.outcome()
    assert "unhashable" in str(run.outcome())


def test_values_are_not_searched():
    """A run is replaced by its value as it is; what the value contains isn't searched."""
    inner_list = [1, 2]
    first = task(give, runner=SequentialTaskRun)(inner_list)
    assert here([first])[0] is inner_list


def test_partial_and_methods_take_runs(held):
    """Tasks of any kind take runs as inputs."""
    run = task(functools.partial(give), runner=ThreadTaskRun)([held(4)])
    held.release()
    assert get(run) == [4]


# What is left alone.


@pytest.mark.parametrize(
    "given",
    [
        [1, [2, 3]],
        (1, (2, [])),
        {"a": {"b": [1]}},
        {1, 2},
        Plain([1]),
        Frozen({"a": 1}),
        [],
        Point(1, 2),
        OrderedDict(a=1),
        defaultdict(list, a=[1]),
        frozenset([1]),
        Box(1),
    ],
    ids=lambda given: type(given).__name__ + repr(given)[:20],
)
def test_without_a_run_the_object_itself_arrives(given):
    """Arguments without a run in them aren't copied, whatever they are."""
    assert here(given) is given


def test_untouched_parts_keep_their_identity(held):
    """Beside a run, what contains none arrives as the same object."""
    untouched, box = [1, 2], Box(3)
    run = task(give, runner=ThreadTaskRun)([held("v"), untouched, {"k": box}])
    held.release()
    arrived = get(run)
    assert arrived[0] == "v"
    assert arrived[1] is untouched
    assert arrived[2]["k"] is box


def test_the_callers_containers_are_not_changed(held):
    """Replacing happens in copies; the caller's objects keep the runs."""
    inner = held("v")
    given = [inner, {"k": inner}]
    run = task(give, runner=ThreadTaskRun)(given)
    held.release()
    assert get(run) == ["v", {"k": "v"}]
    assert given[0] is inner
    assert given[1]["k"] is inner


def test_a_container_that_appears_twice_stays_one(held):
    """Two references to one container are two references to one copy."""
    shared = [held("v")]
    run = task(give, runner=ThreadTaskRun)([shared, shared])
    held.release()
    one, two = get(run)
    assert one == ["v"]
    assert one is two


def test_cyclic_lists(held):
    """A list that contains itself is no trap, with and without a run in it."""
    loop: list = [1]
    loop.append(loop)
    assert here(loop) is loop

    with_run: list = [held("v")]
    with_run.append(with_run)
    run = task(give, runner=ThreadTaskRun)(with_run)
    held.release()
    arrived = get(run)
    assert arrived[0] == "v"
    assert arrived[1] is arrived


def test_deep_nesting(held):
    """A run a hundred thousand lists deep is found without recursion."""
    deep: Any = [held("v")]
    for _ in range(100_000):
        deep = [deep]
    run = task(give, runner=ThreadTaskRun)(deep)
    held.release()
    arrived = get(run)
    depth = 0
    while isinstance(arrived, list):
        (arrived,) = arrived
        depth += 1
    assert (arrived, depth) == ("v", 100_001)


def test_deep_nesting_without_a_run(held):
    """Depth alone is no trouble while another run is unfinished."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert held("other").is_running()
    assert here(deep) is deep


def test_huge_lists(held):
    """A run at the end of a million elements is found."""
    run = task(lambda rows: (len(rows), rows[-1]), runner=ThreadTaskRun)([*range(1_000_000), held("v")])
    held.release()
    assert get(run) == (1_000_001, "v")


def test_objects_are_not_searched_in_process(held):
    """A run inside some object is the object's business where nothing is pickled."""
    box = Box(held("v"))
    run = task(give, runner=ThreadTaskRun)(box)
    assert get(run) is box
    assert isinstance(get(run).item, woflo.BaseTaskRun)


# A run found while pickling.


def test_a_run_hidden_in_an_object(held):
    """A run that turns up while the call is pickled is a UsageError with the way to it."""
    with pytest.raises(UsageError) as caught:
        task(give, runner=SPAWN)({"boxes": [Box(held("v"))]})
    message = str(caught.value)
    assert "item" in message
    assert "boxes" in message


def test_a_run_hidden_in_a_closure(held):
    """The same holds for a run that a function carries with it."""
    inner = held("v")

    def use():
        return inner.get_result()

    with pytest.raises(UsageError) as caught:
        task(use, runner=SPAWN)()
    assert inner.name in str(caught.value) or "inner" in str(caught.value)


def test_an_argument_that_cannot_be_pickled():
    """An argument that can't be pickled is a UsageError at the call, with the way to it."""
    import threading

    with pytest.raises(UsageError) as caught:
        task(give, runner=SPAWN)({"boxes": [Box(threading.Lock())]})
    message = str(caught.value)
    assert "lock" in message
    assert "item" in message


# When the dependent starts.


@pytest.mark.parametrize("runner", [SequentialTaskRun, ThreadTaskRun, AsyncTaskRun, MultiprocessTaskRun, SPAWN])
def test_starts_unattended(held, tmp_path, runner):
    """The dependent run starts when its input ends, with nobody waiting, on every runner."""
    ledger = Ledger(tmp_path / "ledger")
    task(note, runner=runner)(ledger, "ran", held())
    assert ledger.lines() == []
    held.release()
    deadline = time.monotonic() + PATIENCE
    while ledger.lines() != ["ran"]:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_call_returns_at_once(held):
    """A call with an unfinished input returns a pending run."""
    run = task(give, runner=SequentialTaskRun)(held("v"))
    assert run.state == "pending"
    assert "pending" in repr(run)
    assert run.is_running()
    assert run.wait(timeout=0.01) is False
    held.release()
    assert get(run) == "v"


def test_ended_inputs_do_not_delay():
    """With ended inputs only, a run in place is carried out within the call."""
    first = task(give, runner=SequentialTaskRun)(1)
    second = task(give, runner=SequentialTaskRun)([first])
    assert second.state == "succeeded"
    assert get(second) == [1]


def test_runners_mix(held):
    """Inputs may live on other runners than the run that needs them."""
    one = task(give, runner=MultiprocessTaskRun)(held(1))
    two = task(give, runner=SPAWN)([one])
    three = task(give, runner=AsyncTaskRun)((two, one))
    held.release()
    assert get(three) == ([1], 1)


def test_a_long_chain(held):
    """A chain of a thousand runs ends, without recursion."""
    add = task(lambda n: n + 1, runner=ThreadTaskRun)
    run = held(0)
    for _ in range(1_000):
        run = add(run)
    held.release()
    assert get(run) == 1_000


def test_a_long_chain_in_place(held):
    """The same where each run is carried out by whoever ended the one before."""
    add = task(lambda n: n + 1, runner=SequentialTaskRun)
    run = held(0)
    for _ in range(5_000):
        run = add(run)
    held.release()
    assert get(run) == 5_000


def test_the_call_sees_its_arguments(held):
    """Containers are read at the call: what the caller does to them later isn't seen as a new input."""
    given = [held("v")]
    run = task(give, runner=ThreadTaskRun)(given)
    given.append(task(give, runner=ThreadTaskRun)("later"))
    held.release()
    assert get(run)[0] == "v"


# Failed inputs.


def test_failed_inputs(tmp_path):
    """All failed inputs are named; the ones that succeeded aren't."""
    ledger = Ledger(tmp_path / "ledger")
    fail, fine = task(broken, runner=ThreadTaskRun), task(give, runner=ThreadTaskRun)(1)
    one, two = fail("one"), fail("two")
    woflo.wait([one, two], timeout=PATIENCE)
    run = task(note, runner=ThreadTaskRun)(ledger, "ran", [one, fine, two])
    failure = run.outcome()
    assert isinstance(failure, DependencyFailure)
    assert set(failure.dependencies) == {one.name, two.name}
    assert [str(root.__cause__) for root in failure.root_causes()] == ["one", "two"]
    assert one.name in str(failure)
    assert ledger.lines() == []
    with pytest.raises(DependencyFailure):
        get(run)


def test_failed_inputs_of_one_name():
    """Two failed inputs are two, also when their tasks have one name."""
    fail = task(broken, runner=SequentialTaskRun)
    again = task(broken, runner=SequentialTaskRun)
    inputs = [fail("one"), fail.options(retries=1)("two"), again("three")]
    failure = task(give, runner=SequentialTaskRun)(inputs).outcome()
    assert isinstance(failure, DependencyFailure)
    assert [str(root.__cause__) for root in failure.root_causes()] == ["one", "two", "three"]


def test_a_diamond_has_one_root(held):
    """One failure that arrives by two ways is one root cause."""
    root = task(lambda _: broken("root"), name="root", runner=ThreadTaskRun)(held())
    left, right = task(give, runner=ThreadTaskRun)(root), task(give, runner=ThreadTaskRun)(root)
    bottom = task(give, runner=ThreadTaskRun)([left, right])
    held.release()
    failure = bottom.outcome()
    assert isinstance(failure, DependencyFailure)
    (cause,) = failure.root_causes()
    assert cause.task == "root"


def test_a_stopped_input(held):
    """A stopped input is a failed input."""
    first = held()
    second = task(give, runner=ThreadTaskRun)(first)
    first.stop(wait=False)
    held.release()
    failure = second.outcome()
    assert isinstance(failure, (DependencyFailure, woflo.Ok))
    if isinstance(failure, DependencyFailure):
        assert isinstance(failure.root_causes()[0], StoppedFailure)


def test_a_failed_input_is_not_retried(tmp_path):
    """Retries don't apply to a run that couldn't start."""
    ledger = Ledger(tmp_path / "ledger")
    bad = task(broken, runner=SequentialTaskRun)()
    run = task(note, retries=3, runner=SequentialTaskRun)(ledger, "ran", bad)
    assert isinstance(run.outcome(), DependencyFailure)
    assert ledger.lines() == []


def test_a_chain_of_failures():
    """A long chain below a failure ends, each link without running, with the root cause at hand."""
    run = task(broken, name="root", runner=SequentialTaskRun)()
    give_on = task(give, runner=SequentialTaskRun)
    for _ in range(2_000):
        run = give_on([run])
    failure = run.outcome()
    (root,) = failure.root_causes()
    assert root.task == "root"
    assert "broken" in str(failure)


def test_a_retried_input_is_waited_for():
    """A dependent run waits for the last attempt of its input."""

    def flaky():
        if woflo.current_run().attempt < 3:
            raise OSError
        return "up"

    first = task(flaky, retries=2, retry_sleep_time=0.01, runner=ThreadTaskRun)()
    assert get(task(give, runner=ThreadTaskRun)([first])) == ["up"]


def test_a_failure_as_a_value_is_no_failed_input():
    """A task that returns an exception or a Failure succeeded: its value is passed on."""
    first = task(give, runner=SequentialTaskRun)(woflo.TaskFailure("a value"))
    (arrived,) = here([first])
    assert isinstance(arrived, woflo.TaskFailure)


def test_a_program_that_never_rests_does_not_grow():
    """The table of waiting runs is made anew when most of it is history, though one run waits all the time."""
    from woflo.runners import _pending

    go = threading.Event()

    @task(runner=ThreadTaskRun)
    def wait():
        go.wait(PATIENCE)
        return 1

    @task(runner=ThreadTaskRun)
    def add(*values):
        return sum(values)

    first = wait()
    always = add(first, first)
    others = []
    for _ in range(40):
        step = first
        for _ in range(100):
            step = add(step)
            others.append(step)
        step.stop()
    assert len(_pending._table.runs) < 10_000
    go.set()
    assert always.get_result(PATIENCE) == 2
    woflo.wait(others, PATIENCE)
    lone = add(wait())
    assert lone.get_result(PATIENCE) == 1
    deadline = time.monotonic() + PATIENCE  # the thread that ended a run may still be telling the table so
    while _pending._table.numbers and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not _pending._table.numbers
    assert not _pending._table.watched
    for _ in range(3000):
        add(add()).get_result(PATIENCE)
    assert len(_pending._table.runs) <= 4 * _pending._HISTORY


def test_a_waiting_run_that_is_stopped_ends_those_that_wait_for_it():
    """Stopping the middle of a chain ends its dependents at once, though its own input is still at work."""
    go = threading.Event()

    @task(runner=ThreadTaskRun)
    def wait():
        go.wait(PATIENCE)

    @task(runner=ThreadTaskRun)
    def after(_):
        return 1

    first = wait()
    middle = after(first)
    last = after(middle)
    middle.stop()
    assert isinstance(last.outcome(PATIENCE), DependencyFailure)
    assert first.is_running()
    go.set()
    assert first.wait(PATIENCE)
