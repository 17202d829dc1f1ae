"""Products of steps in a store: found again in another session, damaged ones made anew, live ones said once."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from loguru import logger

from woflo._build import Build, Step
from woflo._code import code_of
from woflo._fingerprint import cache_key
from woflo._rebuild import Decision, Recipe
from woflo._shelf import StoreShelf
from woflo.directory import Directory
from woflo.store import Store


@pytest.fixture(params=["dict", "directory"])
def mapping(request, tmp_path):
    return {} if request.param == "dict" else Directory(tmp_path / "store")


@pytest.fixture
def logged():
    lines = []
    sink = logger.add(lines.append, format="{message}")
    yield lambda: "".join(map(str, lines))
    logger.remove(sink)


class Session:
    """A session over a mapping: steps made of functions, whose parameters are what they require."""

    def __init__(self, mapping, *functions, keep=True, produces=None):
        self.ran = []
        self.store = Store(mapping)
        shelf = StoreShelf(self.store, "test")
        steps = [self.step(function, keep, produces or {}) for function in functions]
        self.build = Build(steps, shelf)

    def step(self, function, keep, produces):
        name = function.__name__
        names = produces.get(name, [name])
        code = code_of(function)
        requires = function.__code__.co_varnames[: function.__code__.co_argcount]

        def run(values):
            self.ran.append(name)
            return function(**values)

        def recipe(inputs):
            return Recipe(cache_key(name, code.digest, *inputs.values()), code.digest, code.parts, {}, inputs)

        return Step(name, names, requires, run, (lambda v: [v]) if len(names) == 1 else list, recipe, keep=keep)

    def make(self, *names):
        self.ran.clear()
        return [product.value for product in self.build.make(names).values()]


def raw():
    return np.arange(100_000)


def total(raw):
    return int(raw.sum())


def text(total):
    return f"{total} in all"


def test_another_session_finds_everything(mapping):
    """What one session made the next one finds: small values, large ones, arrays."""
    assert Session(mapping, raw, total, text).make("text") == ["4999950000 in all"]
    later = Session(mapping, raw, total, text)
    assert later.make("text", "total") == ["4999950000 in all", 4999950000]
    (array,) = later.make("raw")
    assert later.ran == []
    assert np.array_equal(array, raw())


def test_seconds_are_remembered(mapping):
    """The plan says how long a step took last time, also when its code has changed since."""
    Session(mapping, raw, total).make("total")

    def total_(raw):
        return int(raw.sum()) + 1

    total_.__name__ = "total"
    plan = Session(mapping, raw, total_).build.plan(["total"])
    assert [one.seconds is not None for one in plan] == [True, True]
    assert plan[0].decision.reuse
    assert plan[1].decision.reason == "code changed"


def test_damage_is_repaired(mapping, logged):
    """A damaged or removed product or trace is made again, and nothing else; damage is said once."""
    Session(mapping, raw, total, text).make("text")
    (blob,) = [name for name in mapping if name.startswith("blob/")]
    mapping[blob] = mapping[blob][:-1] + b"x"
    session = Session(mapping, raw, total, text)
    assert session.make("text") == ["4999950000 in all"]
    assert session.ran == [], "nobody wants the array"
    assert np.array_equal(session.make("raw")[0], raw())
    assert session.ran == ["raw"]
    assert logged().count("counts as missing") == 1
    assert Session(mapping, raw, total, text).make("raw")[0][-1] == 99_999

    for name in [name for name in mapping if name.startswith("trace/")]:
        mapping[name] = mapping[name][:-1]
    session = Session(mapping, raw, total, text)
    assert session.build.plan(["raw"])[0].decision.reason == "entry corrupt"
    assert session.make("text") == ["4999950000 in all"]
    assert session.ran == ["raw", "total", "text"]


def test_live_objects_are_said_once(mapping, logged):
    """A product that can't be written stays in memory, that is said once, and its users are remembered all the same."""

    def lock():
        return threading.Lock()

    def state(lock):
        return lock.locked()

    session = Session(mapping, lock, state)
    assert session.make("state") == [False]
    later = Session(mapping, lock, state)
    assert later.make("state") == [False]
    assert later.ran == []
    assert not later.make("lock")[0].locked()
    assert later.ran == ["lock"]
    assert logged().count("is not kept") == 2, "once a session"
    assert "lock: 'lock' is not kept" in logged()


def test_what_is_not_to_be_kept(mapping):
    """A step that says keep=False leaves its digest and nothing else."""
    Session(mapping, raw, total, keep=False).make("total")
    assert not [name for name in mapping if name.startswith("blob/")]
    later = Session(mapping, raw, total, keep=False)
    later.make("total")
    assert later.ran == ["raw", "total"]


def test_several_products(mapping):
    """Of a step with several products each is kept by itself: one that can't be doesn't spoil the others."""

    def both():
        return [threading.Lock(), np.arange(5000)]

    for expected in (["both"], []):
        session = Session(mapping, both, produces={"both": ["lock", "array"]})
        assert session.make("array")[0][-1] == 4999
        assert session.ran == expected


def test_a_full_disk(logged):
    """A store that can't be written costs the memory of products, not the products; it is said once for each step."""

    class Full(dict):
        def __setitem__(self, key, value):
            raise OSError(28, "No space left on device")

    session = Session(Full(), raw, total, text)
    assert session.make("text") == ["4999950000 in all"]
    assert session.ran == ["raw", "total", "text"]
    assert logged().count("is not kept") == 3
    assert "No space left" in logged()


def test_no_step_is_found_under_another_scope(mapping):
    """Last makings are remembered by scope: another one's are no explanation."""
    Session(mapping, raw).make("raw")
    step = Session(mapping, raw).build._producer["raw"]
    recipe = Recipe("ab" * 16, "other code", {}, {}, {})
    store = Store(mapping)
    assert StoreShelf(store, "test").find(step, recipe).decision.reason == "code changed"
    assert StoreShelf(store, "elsewhere").find(step, recipe).decision == Decision(False, "first run")


def test_a_step_that_changes_its_input(mapping, logged):
    """What a step changes in place is loaded as it was made for whoever comes next, and that is said."""

    def numbers():
        return [1, 2, 3]

    def first(numbers):
        numbers[2] = 300
        return sum(numbers)

    def second(numbers, first):  # noqa: ARG001 - it comes after it
        return sum(numbers)

    session = Session(mapping, numbers, first, second)
    assert session.make("second", "first", "numbers") == [6, 303, [1, 2, 3]]
    assert "first: 'numbers', which it was given, was changed in place" in logged()
    assert Session(mapping, numbers, first, second).make("second", "numbers") == [6, [1, 2, 3]]


def test_what_is_only_read_is_not_loaded_again(mapping, logged):
    """Steps that leave their inputs alone share one object."""
    seen = []

    def one(raw):
        seen.append(id(raw))
        return 1

    def two(raw, one):  # noqa: ARG001 - it comes after it
        seen.append(id(raw))
        return 2

    Session(mapping, raw, one, two).make("two")
    assert seen[0] == seen[1]
    assert logged() == ""
