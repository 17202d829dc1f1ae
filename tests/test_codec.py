"""Values as bytes and back: which codec takes which value, what exactly comes back, and what is refused."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import fractions
import importlib
import math
import os
import pathlib
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from woflo import UsageError, _codec
from woflo._codec import Undecodable, Unencodable, decode, encode, register
from woflo._fingerprint import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def joined(value: object, **options: bool) -> tuple[str, bytes]:
    codec, parts = encode(value, **options)
    return codec, b"".join(parts)


def through(value: object, *, safe: bool = False, writable: bool = False) -> Any:
    codec, data = joined(value, safe=safe)
    return decode(codec, memoryview(bytearray(data)) if writable else data, safe=safe)


class Colour(enum.IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


class Point:
    def __init__(self, x: float) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x

    __hash__ = None


class Locked(Point):
    lock = threading.Lock()


SHARED: list[object] = []
CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.fixture
def codecs() -> Iterator[None]:
    """What a test registers is gone afterwards."""
    before = dict(_codec._encoders), dict(_codec._decoders)
    yield
    for table, kept in zip((_codec._encoders, _codec._decoders), before, strict=True):
        table.clear()
        table.update(kept)


# ------------------------------------------------------------------ which codec


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        ("bytes", b"\0\xff"),
        ("text", "Grüße \0 \ud800\udc00 \U00010000"),
        ("json", None),
        ("json", True),
        ("json", -(10**40)),
        ("json", -0.0),
        ("json", 5e-324),
        ("json", []),
        ("json", {"b": [1, 2.5, None], "a": {"c": "\ud800\udc00\n"}}),
        ("pickle", math.inf),
        ("pickle", math.nan),
        ("pickle", (1, 2)),
        ("pickle", [1, (2,)]),
        ("pickle", {1: 2}),
        ("pickle", {"a": {None: 2}}),
        ("pickle", {1}),
        ("pickle", Colour.RED),
        ("pickle", [Colour.RED]),
        ("pickle", Name("x")),
        ("pickle", {Name("x"): 1}),
        ("pickle", collections.OrderedDict(a=1)),
        ("pickle", [SHARED, SHARED]),
        ("pickle", bytearray(b"x")),
        ("pickle", dt.date(2026, 1, 2)),
        ("pickle", fractions.Fraction(1, 3)),
        ("pickle", Point(2.5)),
        ("pickle", os.path.join),
        ("npy", np.arange(3)),
        ("npy-scalar", np.float64(2.5)),
        ("npy-scalar", np.datetime64("2026-01-02")),
        ("pickle", np.str_("a")),
        ("pickle", np.array([None, 1])),
        ("pickle", np.rec.array([(1, 2)])),
        ("pickle", np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True))),
        ("pickle", np.zeros(2, np.dtype("f8", metadata={"unit": "m"}))),
        ("pickle-5", {"rows": np.zeros(1000)}),
    ],
    ids=repr,
)
def test_the_codec_of_a_type(codec: str, value: object) -> None:
    """Each value goes to the plainest codec that gives back the same: type, order, bits."""
    name, data = joined(value)
    assert name.partition("~")[0] == codec
    again = decode(name, data)
    assert type(again) is type(value)
    assert pickle.dumps(again) == pickle.dumps(value)


def test_sharing_and_cycles_stay() -> None:
    """A part that is there twice is one object afterwards too."""
    one, two = through([SHARED, SHARED])
    assert one is two
    again = through(CYCLE)
    assert again[0] is again


def test_a_nan_in_json_would_lose_its_bits() -> None:
    """So lists with one are pickled, and a safe store, which can't, keeps an equal one."""
    assert joined([math.nan])[0] == "pickle"
    assert math.isnan(through([math.nan], safe=True)[0])
    assert through([math.inf, -math.inf], safe=True) == [math.inf, -math.inf]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=())), inner),
    max_leaves=20,
)
all_values = st.recursive(
    json_values | st.binary() | st.complex_numbers() | st.dates(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(all_values)
@settings(max_examples=100, deadline=None)
def test_what_comes_back_is_the_same(value: object) -> None:
    """Equal in type and bits, at any depth; whatever is said by pickle, which tells them apart, is said again."""
    assert repr(through(value)) == repr(value)


@given(json_values)
@settings(max_examples=60, deadline=None)
def test_what_json_holds_needs_no_pickle(value: object) -> None:
    """A safe store keeps every structure of scalars, lists and dicts."""
    assert repr(through(value, safe=True)) == repr(value)


def test_equal_values_have_equal_bytes_in_json() -> None:
    """Whoever has made them: no object's identity shows."""
    one, two = (Name("ab").lower() for _ in range(2))
    assert one is not two
    assert joined([one, one]) == joined([one, two])


def test_a_huge_integer() -> None:
    """Longer than Python writes as digits."""
    value = 7 ** (1 << 14)
    assert joined(value)[0] == "pickle"
    assert through(value) == value
    with pytest.raises(Unencodable):
        encode(value, safe=True)


def test_deep_structures_end_in_a_value_or_an_error() -> None:
    """Never in a crash, and not after minutes."""
    deep: list[object] = []
    for _ in range(400):
        deep = [deep]
    assert joined(deep)[0] == "pickle"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Unencodable, match="deep"):
        encode(deep)
    with pytest.raises(Unencodable):
        encode(deep, safe=True)
    while deep:
        deep = deep[0]


def test_a_ladder_of_shared_lists_is_not_written_out() -> None:
    """2 ** 100 lists as JSON would never end."""
    ladder: list[object] = []
    for _ in range(100):
        ladder = [ladder, ladder]
    assert joined(ladder)[0] == "pickle"
    with pytest.raises(Unencodable):
        encode(ladder, safe=True)


# ------------------------------------------------------------------ arrays


ARRAYS = [
    np.array(5.0),
    np.zeros((0, 3)),
    np.arange(24).reshape(2, 3, 4),
    np.asfortranarray(np.arange(24).reshape(4, 6)),
    np.arange(24)[::2],
    np.arange(24).reshape(4, 6)[:, 1:3],
    np.array([True, False]),
    np.array([1, 2], ">i4"),
    np.array(["a", "bcd", "x\0"]),
    np.array([b"a", b"bcd"]),
    np.array(["2026-01-02", "NaT"], "M8[s]"),
    np.array([5], "m8[25ns]"),
    np.array([1 + 2j], "c8"),
    np.array([1.5], "f2"),
    np.array([1.5], np.longdouble),
    np.array([(1, 2.5)], [("a", "i2"), ("ü", ">f8", (2,))]),
    np.array([b"\1\2\3"], "V3"),
    np.array([math.nan, -0.0, math.inf]),
]


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays(array: np.ndarray[Any, Any], writable: bool) -> None:
    """An array comes back with its type, shape, order and bits, needs no pickle, and may be written to."""
    again = through(array, safe=True, writable=writable)
    assert type(again) is np.ndarray
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes("A") == array.tobytes("A") or not array.flags.forc
    assert again.tobytes() == array.tobytes()
    assert again.flags.writeable
    if array.flags.forc:
        assert (again.flags.c_contiguous, again.flags.f_contiguous) == (
            array.flags.c_contiguous,
            array.flags.f_contiguous,
        )


@pytest.mark.parametrize(
    "value", [np.int8(-3), np.float32(0.1), np.bool_(True), np.complex128(1j), np.float64(math.nan)]
)
def test_numbers_of_numpy(value: np.generic) -> None:
    """They stay what they are, in a safe store too."""
    again = through(value, safe=True)
    assert type(again) is type(value)
    assert again.tobytes() == value.tobytes()


def test_an_array_is_not_copied_to_be_encoded() -> None:
    """What is written is its own memory."""
    for array in (np.arange(1000), np.asfortranarray(np.arange(1000).reshape(10, 100))):
        _, parts = encode(array)
        assert np.shares_memory(array, np.frombuffer(parts[-1], np.uint8))
    frame = {"a": np.arange(1000), "b": [np.arange(2000)]}
    _, parts = encode(frame)
    assert sum(np.shares_memory(frame["a"], np.frombuffer(part, np.uint8)) for part in parts if len(part)) == 1


def test_an_array_is_not_copied_from_writable_memory() -> None:
    """A mapped file is used in its place."""
    for value in (np.arange(1000), {"a": np.arange(1000)}):
        codec, data = joined(value)
        memory = bytearray(data)
        again = decode(codec, memoryview(memory))
        array = again if codec == "npy" else again["a"]
        assert np.shares_memory(array, np.frombuffer(memory, np.uint8))
        assert array.flags.writeable
        assert array.ctypes.data % 8 == np.frombuffer(memory, np.uint8).ctypes.data % 8


def test_pickled_arrays_may_be_written_to() -> None:
    """Unless they couldn't before."""
    fixed = np.arange(1000)
    fixed.flags.writeable = False
    for writable in (False, True):
        again = through([np.arange(1000), np.arange(3), fixed], writable=writable)
        assert [one.flags.writeable for one in again] == [True, True, False]
        assert again[0].tolist() == list(range(1000))


def test_an_array_is_numpys_own_format() -> None:
    """What is written is what `numpy.save` writes."""
    import io

    array = np.arange(12.0).reshape(3, 4)
    assert np.load(io.BytesIO(joined(array)[1])).tolist() == array.tolist()


# ------------------------------------------------------------------ whose code a value is

MODEL = """
LIMIT = 3

class Model:
    def __init__(self):
        self.depth = 4

    def predict(self, x):
        return helper(x) * self.depth

def helper(x):
    return x + LIMIT

def other(x):
    return x
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Load a module of this text, as a new process would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(text: str) -> Any:
        (tmp_path / "its_models.py").write_text(text)
        monkeypatch.delitem(sys.modules, "its_models", raising=False)
        importlib.invalidate_caches()
        module = importlib.import_module("its_models")
        monkeypatch.setitem(sys.modules, "its_models", module)
        return module

    return load


@pytest.mark.parametrize(
    "value",
    [
        lambda m: m.Model(),
        lambda m: [{"a": (m.Model(),)}],
        lambda m: m.Model().predict,
        lambda m: m.helper,
        lambda m: m.Model,
    ],
    ids=["object", "inside", "method", "function", "class"],
)
def test_whose_code_changes_is_another_value(load: Callable[[str], Any], value: Callable[[Any], object]) -> None:
    """Its bytes may be the same, but whoever uses it gets other results."""
    before = joined(value(load(MODEL)))
    assert joined(value(load(MODEL))) == before
    assert joined(value(load(MODEL.replace("x + LIMIT", "x + LIMIT  # more")))) == before
    assert joined(value(load(MODEL.replace("return x\n", "return -x\n")))) == before
    for edit in (("x + LIMIT", "x - LIMIT"), ("LIMIT = 3", "LIMIT = 4")):
        codec, data = joined(value(load(MODEL.replace(*edit))))
        assert data == before[1]
        assert codec != before[0]


FRAMES = """
import pandas as pd
from datetime import timedelta, timezone
hours = pd.date_range("2026-03-29", periods=5, freq="h", tz="Europe/Berlin")
FRAMES = {
    "frame": pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.5, float("nan")]}),
    "large frame": pd.DataFrame({"a": range(5000)}),
    "mixed index": pd.DataFrame({"v": [1]}, index=pd.MultiIndex.from_tuples([("a", 1)])),
    "series": pd.Series([1, 2], name="s", index=["x", "y"]),
    "objects": pd.Series([{"a": 1}, None]),
    "missing": pd.Series([1, None], dtype="Int64"),
    "timestamp": pd.Timestamp("2026-01-02 03:04"),
    "timestamp there": pd.Timestamp("2026-01-02 03:04", tz="Europe/Berlin"),
    "offset": pd.Timestamp("2026-01-02", tz=timezone(timedelta(hours=2))),
    "span": pd.Timedelta(3, "h"),
    "period": pd.Period("2026-01", "M"),
    "interval": pd.Interval(0, 1),
    "categories": pd.Categorical(["a", "b", "a"], ordered=True),
    "index": pd.Index(["a", "b"], name="i"),
    "range": pd.RangeIndex(3),
    "hours": hours,
    "hourly": pd.DataFrame({"at": hours, "v": range(5)}).set_index("at"),
    "a list of them": [pd.Timestamp("2026-01-02"), pd.Series([1])],
}
"""


@pytest.fixture(scope="module")
def frames() -> dict[str, Any]:
    pytest.importorskip("pandas", reason="pandas has no wheel here")
    names: dict[str, Any] = {}
    exec(FRAMES, names)
    return names["FRAMES"]  # type: ignore[no-any-return]


def test_tables_and_times_of_pandas(frames: dict[str, Any]) -> None:
    """They come back as they are; C code that they consist of is nobody's project."""
    for name, value in frames.items():
        codec, data = joined(value)
        back = decode(codec, data)
        assert type(back) is type(value), name
        assert digest(back) == digest(value), name
        assert codec in {"pickle", "pickle-5"}, name


def test_functions_and_types_of_c_code_have_digests(frames: dict[str, Any]) -> None:
    """Also where a type's `__module__` is no text, as Cython's are."""
    made = frames["timestamp"].__reduce__()[0]
    for code in (made, type(made), type(type(made))):
        assert digest(code) == digest(code)
    assert joined(made)[0] == "pickle"  # no code of the project's


def test_pandas_has_one_digest_in_every_process(frames: dict[str, Any]) -> None:
    """What a store keeps is found by another session, also with another hash seed."""
    script = f"{FRAMES}\nfrom woflo.store import Store\nfor v in FRAMES.values(): print(Store({{}}).put(v))"
    told = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert len(set(told[0])) == len(frames)


def test_code_of_others_does_not_count() -> None:
    """Python's and installed packages' classes are what they are."""
    for value in (dt.date(2026, 1, 2), fractions.Fraction(1, 2), collections.OrderedDict(a=np.zeros(2)), os.path.join):
        assert joined(value)[0] == "pickle"


def test_code_that_cannot_be_digested_counts_by_name() -> None:
    """Objects of a class that holds a lock are still kept."""
    again = through(Locked(1.0))
    assert type(again) is Locked
    assert again == Locked(1.0)


# ------------------------------------------------------------------ paths


def part_of(path: Path) -> list[object]:
    return [path, (path, 1), [{"where": path}], {1: Point(path)}]  # type: ignore[arg-type]


def test_a_path_stands_for_what_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path comes back, as it was given, while the same lies there; another content is another value, also inside others."""
    monkeypatch.chdir(tmp_path)
    path = pathlib.Path("raw.txt")
    for number in range(4):
        path.write_text("one")
        before = joined(part_of(path)[number])
        assert before[0].partition("~")[0] == ("pickle" if number else "path")
        if number < 3:
            assert decode(*before) == part_of(path)[number]
        else:
            assert decode(*before)[1] == Point(path)  # type: ignore[arg-type]
        path.write_text("two")
        assert joined(part_of(path)[number]) != before
        with pytest.raises(Undecodable, match=r"raw.txt.*something else"):
            decode(*before)
        path.unlink()
        assert joined(part_of(path)[number]) != before
        with pytest.raises(Undecodable, match=r"raw.txt.*nothing lies there"):
            decode(*before)
        path.write_text("one")
        assert joined(part_of(path)[number]) == before
        decode(*before)


def test_a_folder_and_nothing_at_all(tmp_path: Path) -> None:
    """A folder counts by its tree; where nothing lies, nothing must lie later."""
    folder = tmp_path / "made Ü"
    nothing = joined(folder, safe=True)
    assert decode(*nothing, safe=True) == folder
    (folder / "sub").mkdir(parents=True)
    with pytest.raises(Undecodable, match="something else"):
        decode(*nothing)
    (folder / "sub" / "a").write_text("1")
    tree = joined(folder, safe=True)
    assert decode(*tree, safe=True) == folder
    (folder / "sub" / "a").write_text("2")
    with pytest.raises(Undecodable, match="something else"):
        decode(*tree)


def test_a_place_to_write_to_inside_a_value(tmp_path: Path) -> None:
    """A folder, or what isn't there yet, is a name there: it may change."""
    place = tmp_path / "results"
    before = joined([place])
    place.mkdir()
    assert joined([place]) == before
    (place / "a").write_text("1")
    assert decode(*joined([place])) == decode(*before) == [place]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files in folders")
def test_a_path_of_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Nobody could tell whether it is still the same."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unencodable, match="pipe is no regular file"):
        encode(tmp_path / "pipe")
    (tmp_path / "secret").write_text("1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("woflo._fingerprint._content", Mock(side_effect=PermissionError("no")))
        for value in part_of(tmp_path / "secret"):
            with pytest.raises(Unencodable, match="secret can't be read"):
                encode(value)


def test_a_pure_path_is_a_name() -> None:
    """It leads to no file."""
    assert joined(pathlib.PurePosixPath("a"))[0] == "pickle"


# ------------------------------------------------------------------ what can't be pickled


def test_functions_travel_by_value() -> None:
    """Where pickle can't name one."""
    offset = 3
    assert through(lambda x: x + offset)(4) == 7


class Exits:
    def __reduce__(self) -> Any:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (threading.Lock(), ""),
        ([1, {"a": threading.Lock()}], "[1]['a']"),
        (Point(threading.Lock()), ".x"),  # type: ignore[arg-type]
        ([Exits()], "[0]"),
    ],
    ids=["lock", "inside", "attribute", "exits"],
)
def test_what_cannot_be_encoded_is_named(value: object, path: str) -> None:
    """The error has the way to the part, its type and the reason; it survives pickling."""
    with pytest.raises(Unencodable) as caught:
        encode(value)
    assert caught.value.path == path
    assert caught.value.reason in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_interrupt_is_not_taken_for_a_failed_encoding() -> None:
    """Ctrl-C in the middle of pickling ends the program, not the keeping."""

    class Interrupted:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(Interrupted())


# ------------------------------------------------------------------ safe


@pytest.mark.parametrize(
    ("value", "path"),
    [((1, 2), ""), ([1, (2,)], "[1]"), ({"a": [Point(1.0)]}, "['a'][0]"), (Point(1.0), ""), ([{1: 2}], "[0]")],
)
def test_safe_refuses_what_needs_pickle(value: object, path: str) -> None:
    """And says where, and what to do."""
    with pytest.raises(Unencodable, match="register") as caught:
        encode(value, safe=True)
    assert caught.value.path == path


class Trap:
    """What somebody hides in a pickle."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("codec", ["pickle", "pickle-5"])
def test_safe_loads_no_pickle(tmp_path: Path, codec: str) -> None:
    """Whatever the record says."""
    trap = tmp_path / "sprung"
    with pytest.raises(Undecodable, match="safe"):
        decode(codec, pickle.dumps(Trap(str(trap))), safe=True)
    assert not trap.exists()


# ------------------------------------------------------------------ decoding


@given(st.sampled_from(["text", "json", "npy", "npy-scalar", "pickle-5"]), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_strange_bytes_are_one_kind_of_error(codec: str, data: bytes) -> None:
    """Verified bytes that don't fit their codec raise `Undecodable`, or make some value."""
    try:
        decode(codec, data)
    except Undecodable:
        return


@pytest.mark.parametrize("codec", ["npy", "pickle-5"])
def test_lengths_are_not_believed(codec: str) -> None:
    """Bytes that announce 2 ** 63 more don't get the memory."""
    _, data = joined(np.zeros(4) if codec == "npy" else [np.zeros(1000)])
    for at in range(0, 64, 8):
        huge = data[:at] + b"\xff" * 7 + b"\x7f" + data[at + 8 :]
        with pytest.raises(Undecodable):
            decode(codec, huge[:64] if codec == "pickle-5" else huge[:-8])


def test_a_class_that_is_gone() -> None:
    """Is said, as any other reason why a value can't be rebuilt."""
    codec, data = joined(Point(1.0))
    with pytest.raises(Undecodable, match="Pxint"):
        decode(codec, data.replace(b"Point", b"Pxint"))


# ------------------------------------------------------------------ codecs of one's own


@pytest.mark.usefixtures("codecs")
class TestRegister:
    def test_a_type_of_ones_own(self) -> None:
        """Is written and read by one's own functions, in a safe store too; its subclasses are not."""

        class Near(Point):
            pass

        register(
            Point, "point", lambda point: [str(point.x).encode(), b" m"], lambda data: Point(float(bytes(data)[:-2]))
        )
        codec, data = joined(Point(2.5))
        assert codec.partition("~")[0] == "point"
        assert data == b"2.5 m"
        assert through(Point(2.5), safe=True) == Point(2.5)
        with pytest.raises(Unencodable):
            encode(Near(1.0), safe=True)

    def test_a_type_that_has_a_codec(self) -> None:
        """May get another one."""
        register(tuple, "tuple", lambda value: repr(value).encode(), lambda data: tuple(eval(bytes(data))))
        assert through((1, 2), safe=True) == (1, 2)

    @pytest.mark.parametrize("name", ["", "json", "pickle", "npy", "two words", "a\n", "ä", "A", "a~b", "x" * 17])
    def test_names(self, name: str) -> None:
        """A name is a word of the record's line, and nobody else's."""
        with pytest.raises(UsageError):
            register(Point, name, bytes, bytes)

    def test_a_name_belongs_to_one_type(self) -> None:
        """Or to the same class, made again when its module was loaded again."""
        register(Point, "point", bytes, bytes)
        register(Point, "point", bytes, bytes)
        register(type("Point", (), {"__module__": __name__, "__qualname__": "Point"}), "point", bytes, bytes)
        with pytest.raises(UsageError, match="belongs"):
            register(Name, "point", bytes, bytes)

    @pytest.mark.parametrize("given", ["text", 3, None, [b"x", "y"]])
    def test_an_encoder_that_gives_no_bytes(self, given: object) -> None:
        """Makes its values unencodable; that they aren't pickled instead is on purpose."""
        register(Point, "point", lambda _: given, bytes)  # type: ignore[arg-type,return-value]
        with pytest.raises(Unencodable, match="point"):
            encode(Point(1.0))

    def test_an_encoder_that_raises(self) -> None:
        """The same."""
        register(Point, "point", lambda point: point.y, bytes)
        with pytest.raises(Unencodable, match="AttributeError"):
            encode(Point(1.0))

    def test_a_codec_that_is_not_registered_here(self) -> None:
        """Is named."""
        with pytest.raises(Undecodable, match="'parquet'"):
            decode("parquet", b"")
