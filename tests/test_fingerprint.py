"""A value has one digest wherever it is computed; different values never share one."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import os
import pickle
import queue
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.digestible import (
    Alike,
    Config,
    Hooked,
    Pair,
    Plain,
    Slotted,
    adder,
    cycle,
    different,
    equal,
    items,
    plus,
    ring,
)
from woflo._fingerprint import Undigestible, cache_key, digest

if TYPE_CHECKING:
    from pathlib import Path
from random import Random


def test_different_values_have_different_digests() -> None:
    """No two of some three hundred values share a digest: type, content, order, dtype, shape, class and code count."""
    found: dict[bytes, str] = {}
    for name, value in different().items():
        twin = found.setdefault(digest(value), name)
        assert twin == name, f"{name} has the digest of {twin}"
    assert len(found) > 250


def test_values_made_twice_have_one_digest() -> None:
    """The same values, made anew, have the same digests."""
    assert {name: digest(value) for name, value in different().items()} == {
        name: digest(value) for name, value in different().items()
    }


def shown() -> None:
    """Print all digests: the program of another process."""
    print(json.dumps({name: digest(value).hex() for name, value in different().items()}))


def test_digests_are_the_same_in_every_process() -> None:
    """Another process, whatever its hash seed, comes to the same digests."""
    mine = {name: digest(value).hex() for name, value in different().items()}
    for seed in ("0", "77"):
        done = subprocess.run(
            [sys.executable, "-c", "from tests.test_fingerprint import shown; shown()"],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        its = json.loads(done.stdout)
        assert {name for name in mine if mine[name] != its[name]} == set()


def test_what_was_pickled_keeps_its_digest() -> None:
    """A value that comes back from a worker or a file is the same value."""
    alone = {"two lambdas", "two lambdas back", "method", "method of 2", "memoryview", "proxy", "Hooked", "Hooked [1]"}
    alone |= {
        "[].append",
        "module math",
        "module re",
        "module json",
        "metres",
        "feet",
    }  # can't be pickled, or not whole
    for name, value in different().items():
        if name in alone or name.startswith(("lambda", "adder")):
            continue
        assert digest(pickle.loads(pickle.dumps(value))) == digest(value), name


@pytest.mark.parametrize("name", equal())
def test_equal_values_have_one_digest(name: str) -> None:
    """What doesn't belong to a value doesn't count: order without meaning, identity, layout, gaps, what a mask hides."""
    first, second = equal()[name]
    assert digest(first) == digest(second)


# ---- any values


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(allow_nan=False),
    st.text(max_size=3), st.binary(max_size=3),
    st.sampled_from([0.0, -0.0, 1.0, 1, True, "1", b"1"]),
)  # fmt: skip
HASHABLE = st.recursive(
    LEAVES, lambda inside: st.one_of(st.tuples(inside, inside), st.frozensets(inside, max_size=3)), max_leaves=4
)
VALUES = st.recursive(
    st.one_of(LEAVES, HASHABLE),
    lambda inside: st.one_of(
        st.lists(inside, max_size=3), st.tuples(inside), st.tuples(inside, inside), st.dictionaries(HASHABLE, inside, max_size=3),
        st.sets(HASHABLE, max_size=3),
    ),
    max_leaves=8,
)  # fmt: skip


def meaning(value: Any) -> Any:
    """A value that equals another one's exactly if both mean the same, types included: the test's own idea of it."""
    kind = type(value).__name__
    if isinstance(value, (list, tuple)):
        return kind, tuple(meaning(one) for one in value)
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(meaning(one) for one in value)
    if isinstance(value, dict):
        return kind, frozenset((meaning(key), meaning(one)) for key, one in value.items())
    return kind, repr(value)


@settings(max_examples=400, deadline=None)
@given(VALUES, VALUES)
def test_digests_are_equal_exactly_if_values_are(first: Any, second: Any) -> None:
    """For any two values of builtin types: one digest if and only if they are equal with their types."""
    assert (digest(first) == digest(second)) == (meaning(first) == meaning(second))
    assert digest([first, second]) != digest([[first], second])
    assert digest(first) == digest(pickle.loads(pickle.dumps(first)))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=4), st.binary(max_size=4)), max_size=5),
    st.lists(st.text(max_size=4), max_size=5),
)
def test_keys_tell_their_parts_apart(first: list[str | bytes], second: list[str | bytes]) -> None:
    """Two keys are one exactly if all parts are the same: how many, where each ends, and whether it is text."""
    assert (cache_key(*first) == cache_key(*second)) == (first == second)
    assert re.fullmatch("[0-9a-f]{64}", cache_key(*first))


# ---- structure without end


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("wrap", "depth"),
    [
        (lambda inside: [inside], 100_000),
        (lambda inside: {"a": inside}, 20_000),
        (lambda inside: Plain(inside=inside), 20_000),
        (lambda inside: Pair(inside, 1), 20_000),
        (lambda inside: frozenset([inside]), 5_000),
        (lambda inside: functools.partial(plus, inside), 5_000),
    ],
    ids=["list", "dict", "object", "namedtuple", "frozenset", "partial"],
)
def test_any_depth(wrap: Any, depth: int) -> None:
    """A value may be nested as deep as memory allows, in whatever."""
    value: Any = ()
    for _ in range(depth):
        value = wrap(value)
    assert digest(value) != digest(wrap(value))


@pytest.mark.timeout(20)
def test_what_is_shared_is_folded_once() -> None:
    """Two hundred levels, each holding the one below twice, are 2²⁰⁰ lists when taken apart."""
    value: Any = []
    for _ in range(200):
        value = [value, value]
    assert len(digest(value)) == 32


@pytest.mark.timeout(30)
def test_long_cycles() -> None:
    """A circle of 20,000 objects, and a tree whose nodes know their parents, take linear time."""
    assert digest(ring(20_000)) != digest(ring(20_001))
    root: Any = {"children": [], "parent": None}
    everyone = [root]
    for number in range(10_000):
        parent = everyone[number // 3]
        child = {"children": [], "parent": parent, "number": number}
        parent["children"].append(child)
        everyone.append(child)
    assert digest(everyone) == digest(pickle.loads(pickle.dumps(everyone)))


def test_cycles_are_told_apart() -> None:
    """Where a cycle leads back to, and what it passes on its way, counts."""
    inner: list[Any] = [1]
    outer = [inner, inner]
    inner.append(outer)  # back to the outer one
    own: list[Any] = [1]
    own.append(own)  # back to itself
    assert digest(outer) != digest([own, own])
    assert digest(ring(3)) != digest(ring(3).next)  # entered elsewhere, the numbers are others
    two, one = cycle(), cycle()
    assert digest([two, two]) == digest([one, one])


def test_members_of_a_cycle_do_not_depend_on_who_was_met_first() -> None:
    """A dict in another order, whose values belong to one cycle, is the same dict."""
    first, second = ring(4), ring(4)
    assert digest({"a": first, "b": first.next}) == digest({"b": second.next, "a": second})


def test_members_and_keys_of_a_cycle_have_no_order() -> None:
    """A set of objects that know each other is the same set in whatever order it gives them; so are the keys of a dict."""
    for kind in (lambda *parts: set(parts), lambda *parts: dict.fromkeys(parts, 1)):
        (first, second), (third, fourth) = [(one := ring(4, Alike), one.next) for _ in range(2)]
        assert digest(kind(first, second)) == digest(kind(fourth, third))
        assert digest([first, kind(first, second)]) == digest([third, kind(fourth, third)])
        assert digest(kind(first, second)) != digest(kind(first, second.next))


def test_a_set_that_leads_back_to_itself_is_refused() -> None:
    """There is no order in which every process would find its members."""
    node = Plain()
    node.near = {node}
    with pytest.raises(Undigestible) as caught:
        digest(node, "node")
    assert caught.value.path == "node.near"
    assert "no order" in caught.value.reason


# ---- what can't be digested


class Refusing:
    def __reduce__(self) -> Any:
        raise ValueError("not me\nnor mine")


class Broken:
    def __woflo_digest__(self) -> object:
        raise KeyError("gone")


def endless() -> Any:
    class Endless:
        def __reduce__(self) -> Any:
            return self.__reduce__()

    return Endless()


def released() -> memoryview:
    view = memoryview(b"a")
    view.release()
    return view


LIVE: dict[str, Any] = {
    "lock": threading.Lock, "rlock": threading.RLock, "event": threading.Event, "thread": threading.Thread, "queue": queue.Queue,
    "generator": lambda: (x for x in "a"), "iterator": lambda: iter([1]), "dict keys": {}.keys, "map": lambda: map(len, []),
    "zip": lambda: zip("a", "b", strict=True), "count": itertools.count, "enumerate": lambda: enumerate("a"),
    "frame": sys._getframe, "weak reference": lambda: weakref.ref(plus), "weak dict": weakref.WeakValueDictionary,
    "object()": object, "refusing": Refusing, "broken": Broken, "endless": endless, "local": threading.local,
    "context variable": lambda: __import__("contextvars").ContextVar("a"), "released view": released,
}  # fmt: skip


@pytest.mark.parametrize("name", LIVE)
@pytest.mark.filterwarnings("ignore:Pickle, copy, and deepcopy support will be removed:DeprecationWarning")
def test_what_lives_only_here_is_undigestible(name: str) -> None:
    """Locks, iterators, references and whatever refuses to be pickled have no content; the path leads to them."""
    with pytest.raises(Undigestible) as caught:
        digest({"rows": [1, Config(extra=LIVE[name]())]}, "args")
    assert caught.value.path.startswith("args['rows'][1].extra")
    assert caught.value.reason
    assert "\n" not in str(caught.value)


def test_open_files_and_connections_are_undigestible(tmp_path: Path) -> None:
    """An open file, a socket, a database connection."""
    with open(tmp_path / "a", "w") as file, socket.socket() as connection:
        database = sqlite3.connect(":memory:")
        for live in (file, connection, database):
            with pytest.raises(Undigestible):
                digest(live)
        database.close()


def slotted(value: object) -> Slotted:
    made = Slotted(1)
    made.b = value
    return made


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (lambda lock: [0, (1, lock)], "x[1][1]"),
        (lambda lock: {"a": {2: lock}}, "x['a'][2]"),
        (lambda lock: {("a", 1): [lock]}, "x[('a', 1)][0]"),
        (lambda lock: {(1, lock): 2}, "x[key (1, "),
        (lambda lock: {1, (2, lock)}, "x{…}[1]"),
        (lambda lock: Plain(a=Plain(b=[lock])), "x.a.b[0]"),
        (slotted, "x.b"),
        (lambda lock: Pair(1, lock), "x[1]"),
        (lambda lock: items("a", own=lock), "x.own"),
        (lambda lock: np.array([[1, 2], [3, lock]], dtype=object), "x[3]"),
        (lambda lock: pd.DataFrame({"a": [1], "b": [lock]}), "x['b'][0]"),
        (lambda lock: pd.Series([1], index=pd.Index([lock], dtype=object)), "x.index[0]"),
        (adder, "x.n"),
        (lambda lock: lambda y=lock: y, "x.__defaults__[0]"),
        (lambda lock: functools.partial(plus, lock), "x[0]"),
        (slice, "x.stop"),
        (Hooked, "x.__woflo_digest__()"),
    ],
)
def test_the_path_leads_to_the_part(value: Any, path: str) -> None:
    """An Undigestible names the part that is at fault, as Python would reach it."""
    with pytest.raises(Undigestible) as caught:
        digest(value(threading.Lock()), "x")
    assert caught.value.path.startswith(path)
    assert str(caught.value).startswith(caught.value.path + ": ")
    assert pickle.loads(pickle.dumps(caught.value)).path == caught.value.path


def test_a_run_is_not_its_value() -> None:
    """A TaskRun among the values is refused by name: what counts is what it ends in."""
    import woflo
    from woflo.runners import SequentialTaskRun

    run = woflo.task(plus, runner=SequentialTaskRun)(1)
    with pytest.raises(Undigestible, match=r"plus-\d+ is a TaskRun"):
        digest([run])


# ---- objects


def test_the_code_of_a_class_of_the_project_counts() -> None:
    """An object is what its class makes of its state: an edit of a method changes its objects."""
    source = "class Model:\n    def __init__(self): self.a = 1\n    def predict(self): return self.a + {}\n"
    found = set()
    for number in (1, 2):
        space: dict[str, Any] = {"__name__": "models"}
        exec(source.format(number), space)
        found.add(digest(space["Model"]()))
    assert len(found) == 2


def test_a_class_that_was_not_edited_is_the_same_class() -> None:
    """Executed again, as in a notebook, a class makes the same objects."""
    found = set()
    for _ in range(2):
        space: dict[str, Any] = {"__name__": "models"}
        exec("class Model:\n    def __init__(self): self.a = {1}", space)
        found.add(digest(space["Model"]()))
    assert len(found) == 1


def test_own_digests() -> None:
    """`__woflo_digest__` stands for the object, with its class."""
    assert digest(Hooked(1)) == digest(Hooked(1))
    assert digest(Hooked(1)) != digest(1)


def test_an_own_digest_is_of_something_else() -> None:
    """An object that returns itself would be the same as any other."""

    class Itself:
        def __woflo_digest__(self) -> object:
            return self

    with pytest.raises(Undigestible, match="returns the object itself"):
        digest(Itself())


def stand_in(module: str, called: str, /, **attributes: object) -> Any:
    """An object of a class that goes by the name of another package's."""
    kind = type(called, (), {"__module__": module})
    made = kind()
    vars(made).update(attributes)
    return made


def test_what_other_packages_keep_for_themselves_does_not_count() -> None:
    """Of loggers, compiled functions, shared random states, validators and datasets the content counts, and nothing else."""
    from loguru import logger

    before = digest(logger)
    sink = logger.add(lambda _: None)
    assert digest(logger) == before
    logger.remove(sink)
    shared = np.random.mtrand._rand
    before = digest(shared)
    shared.random()
    assert digest(shared) == before != digest(np.random.RandomState(1)) != digest(np.random.RandomState(2))

    def compiled(fn: Any, **how: object) -> Any:
        return stand_in(
            "numba.core.serialize", "ReduceMixin", __wrapped__=fn, targetoptions=how, overloads=[threading.Lock()]
        )

    assert digest(compiled(plus)) == digest(compiled(plus)) != digest(compiled(adder(1)))
    assert digest(compiled(plus, fastmath=True)) != digest(compiled(plus))

    def validator(mode: str) -> Any:
        parts = {"cls_ref": str(id(object())), "cls_var_name": "x", "func": plus, "info": mode}
        return stand_in("pydantic._internal._decorators", "Decorator", **parts)

    assert digest(validator("after")) == digest(validator("after")) != digest(validator("before"))

    def dataset(values: Any, cache: object, name: str = "a") -> Any:
        variable = stand_in("xarray.core.variable", "Variable", dims=("t",), data=values, attrs={}, _cache=cache)
        parts = {"variables": {name: variable}, "coords": [], "attrs": {}, "_cache": cache}
        return stand_in("xarray.core.dataset", "Dataset", **parts)

    assert digest(dataset(np.ones(2), 1)) == digest(dataset(np.ones(2), 2)) != digest(dataset(np.zeros(2), 1))
    coords = stand_in("c", "Coordinates", variables={})
    arrays = [stand_in("xarray.core.dataarray", "DataArray", variable=1, coords=coords, name=name) for name in "ab"]
    assert digest(arrays[0]) != digest(arrays[1])


def test_a_function_that_pickle_would_name_is_known_by_name() -> None:
    """A C function and a ufunc count by their names."""
    assert digest(len) == digest(len)
    assert digest(np.add) == digest(getattr(np, "add"))  # noqa: B009


# ---- files


def test_a_path_is_the_file(tmp_path: Path) -> None:
    """Content and path count, for a result may follow from a folder's name; when the file was written doesn't."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, second = tmp_path / "one" / "data.csv", tmp_path / "two" / "data.csv"
    missing = digest(first)
    first.write_bytes(b"1,2")
    second.write_bytes(b"1,2")
    before = digest(first)
    os.utime(first, (0, 0))
    assert digest(first) == before != missing
    assert digest(second) != before
    first.write_bytes(b"1,3")
    assert digest(first) != before
    first.rename(tmp_path / "one" / "data.txt")
    assert digest(tmp_path / "one" / "data.txt") != digest(first)
    assert digest(first) == missing
    assert digest(str(first)) != digest(first)


def test_a_folder_is_its_tree(tmp_path: Path) -> None:
    """Names, contents and empty folders below count, links by what they lead to; a link that leads back ends there."""
    tree = tmp_path / "tree"
    (tree / "inside").mkdir(parents=True)
    (tree / "inside" / "a").write_text("1")
    seen = [digest(tree)]

    def changed() -> None:
        seen.append(digest(tree))

    (tree / "b").write_text("")
    changed()
    (tree / "empty").mkdir()
    changed()
    (tree / "inside" / "a").write_text("2")
    changed()
    (tree / "inside" / "a").rename(tree / "inside" / "c")
    changed()
    (tree / "link").symlink_to(tree / "b")
    changed()
    (tree / "back").symlink_to(tree)
    changed()
    (tree / "nowhere").symlink_to(tmp_path / "gone")
    changed()
    assert len(set(seen)) == len(seen)
    assert digest(tree) == seen[-1]


def test_large_files_are_read_in_chunks(tmp_path: Path) -> None:
    """The digest of a file is that of all of its bytes."""
    path = tmp_path / "large"
    data = os.urandom(3 << 20)
    path.write_bytes(data)
    whole = digest(path)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert digest(path) != whole


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """Reading what isn't a regular file could change it, or never end."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Undigestible, match="no regular file"):
        digest(tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_can_not_be_read_is_undigestible(tmp_path: Path) -> None:
    """It says which file."""
    (tmp_path / "secret").write_text("a")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(Undigestible, match="secret"):
        digest(tmp_path)


# ---- buffers


@pytest.mark.parametrize("shape", [(4_000_000,), (2000, 2000), (100, 200, 200)])
def test_arrays_are_hashed_where_they_lie(shape: tuple[int, ...]) -> None:
    """32 MB in order are not copied; out of order, no more than a chunk at a time."""
    values = np.ones(shape)
    digest(values)  # imports what it needs
    for value, limit in ((values, 1 << 20), (values.T, 24 << 20), ([values, {"a": values}], 1 << 20)):
        gc.collect()
        tracemalloc.start()
        digest(value)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit


def an_array(random: Random) -> np.ndarray:
    """Some array: any dtype, shape and layout, with few different items, so that equal ones come up."""
    kinds = [
        "f2",
        "f4",
        "f8",
        ">f8",
        "i1",
        ">i4",
        "u8",
        "?",
        "c8",
        "S3",
        "U2",
        ">U2",
        "M8[s]",
        "m8[D]",
        "i4,f8",
        ">i8,U3",
    ]
    dtype, shape = np.dtype(random.choice(kinds)), tuple(random.randint(0, 3) for _ in range(random.randint(0, 3)))
    values = np.random.default_rng(random.randint(0, 3)).integers(0, 2, shape)
    made = np.zeros(shape, dtype)
    for part in dtype.names or ():
        made[part] = values
    made = made if dtype.names else values.astype(dtype)
    layouts = [np.transpose, np.asfortranarray, lambda one: one[::-1], lambda one: one[..., ::2]]
    for _ in range(random.randint(0, 2) if shape else 0):
        made = random.choice(layouts)(made)
    return made


def test_arrays_are_one_exactly_if_dtype_shape_and_items_are() -> None:
    """Of a thousand arrays in all layouts and byte orders."""
    random, known, digests = Random(1), {}, set()
    for _ in range(1000):
        value = an_array(random)
        plainly = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"))
        meant = (str(plainly.dtype), value.shape, plainly.tobytes())
        assert known.setdefault(meant, digest(value)) == digest(value)
        digests.add(digest(value))
    assert len(digests) == len(known) > 300


def test_large_bytes_are_hashed_where_they_lie() -> None:
    """The same for bytes, bytearrays and memoryviews."""
    data = bytes(20_000_000)
    for value in (data, [data], bytearray(data), memoryview(data)):
        gc.collect()
        tracemalloc.start()
        digest(value)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


def test_the_number_of_threads_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread or several: the digest is the same."""
    from woflo import _merkle

    values = np.arange(3_000_000)
    several = digest(values), digest(values[::2]), digest(bytes(9_000_000))
    monkeypatch.setattr(_merkle, "_THREADED", 1 << 60)
    assert (digest(values), digest(values[::2]), digest(bytes(9_000_000))) == several


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_hashes_with_threads_of_its_own() -> None:
    """After the parent has hashed with several threads, a child doesn't wait for threads that it hasn't got."""
    values = np.arange(2_000_000)
    mine = digest(values)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, digest(values))
        finally:
            os._exit(0)
    os.close(writing)
    its = b"".join(iter(lambda: os.read(reading, 64), b""))
    os.close(reading)
    os.waitpid(child, 0)
    assert its == mine


def test_a_mapped_array_is_the_array(tmp_path: Path) -> None:
    """Read from a file as it is needed, it is the same value."""
    values = np.arange(1000.0)
    np.save(tmp_path / "a.npy", values)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert digest(mapped) == digest(values)
    assert digest(mapped[3:]) == digest(values[3:])


# ---- the module


def test_woflo_does_not_load_it() -> None:
    """`import woflo` pays for no digest."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, woflo; print({'blake3', 'woflo._fingerprint', 'woflo._code'} & set(sys.modules))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "set()"


def test_numpy_is_loaded_by_whoever_has_arrays() -> None:
    """Digests of other values import neither numpy nor pandas."""
    program = (
        "import sys; from woflo._fingerprint import digest; digest([{1: {2.5}}]);"
        "print({'numpy', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
