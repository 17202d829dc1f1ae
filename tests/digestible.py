"""Values whose digests are compared: `different`, no two of which are the same, and pairs that are `equal`."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import json
import logging
import math
import operator
import re
import sys
import threading
import types
import uuid
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

# ---- classes of the project


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Shade(enum.Enum):
    RED = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Config:
    depth: int = 3
    names: list[str] = dataclasses.field(default_factory=list)
    extra: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    depth: int = 3


class Pair(NamedTuple):
    left: object
    right: object


class Plain:
    def __init__(self, **state: object) -> None:
        vars(self).update(state)


class Twin(Plain):
    """The same state, another class."""


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: object) -> None:
        self.a = a


class SlottedToo(Slotted):
    """Slots and a `__dict__`."""


class Chosen:
    """Says itself what pickle keeps."""

    def __init__(self, kept: object, cache: object = None) -> None:
        self.kept, self.cache = kept, cache

    def __getstate__(self) -> object:
        return {"kept": self.kept}


class Rebuilt:
    """Is rebuilt by a function."""

    def __init__(self, parts: list[int]) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return Rebuilt, (self.parts,)


class Items(list):  # type: ignore[type-arg]
    """A list with a name."""

    name = ""


class Bag(set):  # type: ignore[type-arg]
    """A set with attributes."""


class Ordered(collections.OrderedDict):  # type: ignore[type-arg]
    """An ordered dict of the project's."""


class Text(str):
    __slots__ = ()


class Hooked:
    """Knows better what it is."""

    def __init__(self, value: object) -> None:
        self.value, self.lock = value, threading.Lock()

    def __woflo_digest__(self) -> object:
        return self.value


class Unit(np.ndarray):
    """An array with a unit, in a slot."""

    __slots__ = ("unit",)


def metres(unit: str) -> Unit:
    made = np.ones(2).view(Unit)
    made.unit = unit
    return made


class Alike(Plain):
    """Objects that a set keeps in the order in which they came."""

    def __hash__(self) -> int:
        return 1


def plus(x: int) -> int:
    return x + 1


def adder(n: Any) -> Any:
    return lambda x: x + n


def items(*names: str, **state: object) -> Items:
    made = Items(names)
    vars(made).update(state)
    return made


def bag(*names: str, **state: object) -> Bag:
    made = Bag(names)
    vars(made).update(state)
    return made


def cycle(*inside: object) -> list[object]:
    made: list[object] = [*inside]
    made.append(made)
    return made


def ring(size: int, kind: type = Plain) -> Any:
    """Objects in a circle, each with the next."""
    made = [kind(number=number) for number in range(size)]
    for one, following in zip(made, [*made[1:], made[0]], strict=True):
        one.next = following
    return made[0]


UTC = dt.UTC
NOON = dt.datetime(2024, 5, 17, 12)  # noqa: DTZ001


def different() -> dict[str, Any]:
    """Values no two of which are the same."""
    halves = np.arange(6, dtype="<f8") / 2
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    moments = pd.date_range("2024-01-01", periods=3)
    return {
        "1": 1,
        "1.0": 1.0,
        "True": True,
        "'1'": "1",
        "b'1'": b"1",
        "1+0j": 1 + 0j,
        "Decimal 1": decimal.Decimal(1),
        "Decimal 1.0": decimal.Decimal("1.0"),
        "Fraction 1": fractions.Fraction(1),
        "0": 0,
        "False": False,
        "None": None,
        "...": ...,
        "NotImplemented": NotImplemented,
        "0.0": 0.0,
        "-0.0": -0.0,
        "nan": math.nan,
        "inf": math.inf,
        "-inf": -math.inf,
        "2**31": 2**31,
        "2**64": 2**64,
        "-2**64": -(2**64),
        "float 2**64": float(2**64),
        "-0.0j": -0.0j,
        "0j": 0j,
        "''": "",
        "b''": b"",
        "'None'": "None",
        "text with zero": "a\0b",
        "surrogate": "\ud800",
        "e acute": "\u00e9",
        "e and acute": "e\u0301",
        "bytearray": bytearray(b"1"),
        "memoryview": memoryview(b"1"),
        "array": array.array("b", b"1"),
        "array H": array.array("H", b"11"),
        "()": (),
        "[]": [],
        "{}": {},
        "set()": set(),
        "frozenset()": frozenset(),
        "(1,)": (1,),
        "[1]": [1],
        "{1}": {1},
        "frozenset 1": frozenset({1}),
        "{1: 1}": {1: 1},
        "{1: None}": {1: None},
        "{True: 1}": {True: 1},
        "{1.0: 1}": {1.0: 1},
        "[[]]": [[]],
        "[()]": [()],
        "([],)": ([],),
        "[1, [2]]": [1, [2]],
        "[[1], 2]": [[1], 2],
        "[1, 2]": [1, 2],
        "[2, 1]": [2, 1],
        "[[1, 2]]": [[1, 2]],
        "[(1, 2)]": [(1, 2)],
        "['ab']": ["ab"],
        "['a', 'b']": ["a", "b"],
        "['a', b'b']": ["a", b"b"],
        "{'a': {'b': 1}}": {"a": {"b": 1}},
        "{'a': 1, 'b': 2}": {"a": 1, "b": 2},
        "{'a': 2, 'b': 1}": {"a": 2, "b": 1},
        "[('a', 1), ('b', 2)]": [("a", 1), ("b", 2)],
        "{(1,): 2}": {(1,): 2},
        "{frozenset: 2}": {frozenset({1}): 2},
        "set of sets": {frozenset({1}), frozenset({2})},
        "set of both": frozenset({frozenset({1, 2})}),
        "OrderedDict ab": collections.OrderedDict(a=1, b=2),
        "OrderedDict ba": collections.OrderedDict(b=2, a=1),
        "Ordered ab": Ordered(a=1, b=2),
        "defaultdict": collections.defaultdict(list, a=1, b=2),
        "defaultdict int": collections.defaultdict(int, a=1, b=2),
        "Counter": collections.Counter(a=1, b=2),
        "deque": collections.deque([1, 2]),
        "deque 2": collections.deque([1, 2], 2),
        "ChainMap": collections.ChainMap({"a": 1}),
        "proxy": types.MappingProxyType({"a": 1, "b": 2}),
        "namespace": types.SimpleNamespace(a=1, b=2),
        "range": range(3),
        "range 1": range(0, 3, 2),
        "slice": slice(3),
        "slice 1": slice(0, 3),
        "slice lists": slice([1], [2]),
        "large bytes": bytes(100_000),
        "large text": "\0" * 100_000,
        "larger bytes": bytes(100_001),
        "[large]": [bytes(100_000)],
        "RED": Colour.RED,
        "GREEN": Colour.GREEN,
        "red of another kind": Shade.RED,
        "texts": ["a", "b\0c", *["d"] * 64],
        "other texts": ["a\0b", "c", *["d"] * 64],
        "more texts": ["a", "b", "c", *["d"] * 64],
        "a tuple of texts": ("a", "b", "c", *["d"] * 64),
        "LOW": Level.LOW,
        "READ": Access.READ,
        "READ|WRITE": Access.READ | Access.WRITE,
        "date": dt.date(2024, 5, 17),
        "noon": NOON,
        "noon UTC": NOON.replace(tzinfo=UTC),
        "fold": NOON.replace(fold=1),
        "noon Berlin": NOON.replace(tzinfo=ZoneInfo("Europe/Berlin")),
        "14:00 Berlin": dt.datetime(2024, 5, 17, 14, tzinfo=ZoneInfo("Europe/Berlin")),
        "time": dt.time(12),
        "delta": dt.timedelta(1),
        "zone": dt.timezone(dt.timedelta(hours=1)),
        "uuid": uuid.UUID(int=1),
        "pattern": re.compile("a"),
        "pattern i": re.compile("a", re.IGNORECASE),
        "pattern b": re.compile(b"a"),
        "pure path": PurePosixPath("a"),
        "no file": Path("no such file"),
        "no other file": Path("no such file too"),
        "Config": Config(),
        "Config 4": Config(4),
        "Config names": Config(names=["a"]),
        "Frozen": Frozen(),
        "Frozen 4": Frozen(4),
        "Pair": Pair(1, 2),
        "Pair 21": Pair(2, 1),
        "Pair of lists": Pair([1], [2]),
        "Plain": Plain(),
        "Plain a": Plain(a=1),
        "Plain b": Plain(b=1),
        "Plain [a]": Plain(a=[1]),
        "Twin a": Twin(a=1),
        "Slotted": Slotted(1),
        "Slotted [1]": Slotted([1]),
        "SlottedToo": SlottedToo(1),
        "Chosen": Chosen(1),
        "Chosen 2": Chosen(2),
        "Rebuilt": Rebuilt([1]),
        "Rebuilt 2": Rebuilt([2]),
        "Items": items("a"),
        "Items named": items("a", name="b"),
        "Bag": bag("a", "b"),
        "Bag named": bag("a", "b", name="c"),
        "Text": Text("a"),
        "Hooked": Hooked(1),
        "Hooked [1]": Hooked([1]),
        "ValueError": ValueError("a"),
        "TypeError": TypeError("a"),
        "ValueError b": ValueError("b"),
        "BytesIO": io.BytesIO(b"a"),
        "BytesIO b": io.BytesIO(b"b"),
        "StringIO": io.StringIO("a"),
        "cycle": cycle(),
        "cycle 1": cycle(1),
        "cycle of two": [cycle()],
        "tuple of a cycle": (cycle(),),
        "ring of 2": ring(2),
        "ring of 3": ring(3),
        "ring of twins": ring(3, Twin),
        "cycle in a dict": {"a": cycle()},
        "len": len,
        "sum": sum,
        "math.sin": math.sin,
        "[].append": [].append,
        "[1].append": [1].append,
        "str.upper": str.upper,
        "'a'.upper": "a".upper,
        "plus": plus,
        "lambda +1": lambda x: x + 1,
        "lambda +2": lambda x: x + 2,
        "adder 1": adder(1),
        "adder 2": adder(2),
        "adder [1]": adder([1]),
        "partial": functools.partial(plus, 1),
        "partial 2": functools.partial(plus, 2),
        "two lambdas": [lambda x: x + 1, lambda x: x + 2],
        "two lambdas back": [lambda x: x + 2, lambda x: x + 1],
        "int": int,
        "str": str,
        "class Plain": Plain,
        "class Twin": Twin,
        "class Colour": Colour,
        "list[int]": list[int],
        "method": Plain(a=1).__init__,
        "method of 2": Plain(a=2).__init__,
        "attrgetter": operator.attrgetter("a"),
        "module math": math,
        "module re": re,
        "module json": json,
        "logger": logging.getLogger("a"),
        "i8": np.arange(6),
        "i4": np.arange(6, dtype="i4"),
        "u8": np.arange(6, dtype="u8"),
        "f8": np.arange(6.0),
        "halves": halves,
        "2x3": halves.reshape(2, 3),
        "3x2": halves.reshape(3, 2),
        "transposed": halves.reshape(3, 2).T,
        "backwards": halves[::-1],
        "same bytes, big endian": halves.view(">f8"),
        "as integers": halves.view("<i8"),
        "-0.0 array": np.array([-0.0]),
        "0.0 array": np.array([0.0]),
        "nan array": np.array([np.nan]),
        "0-d": np.array(1.0),
        "1-d": np.array([1.0]),
        "np.float64": np.float64(1),
        "np.float32": np.float32(1),
        "np.int64": np.int64(1),
        "np.bool": np.bool_(1),
        "np.str_": np.str_("a"),
        "np.bytes_": np.bytes_(b"a"),
        "datetime64": np.datetime64("2024-01-01"),
        "datetime64 ns": np.datetime64("2024-01-01", "ns"),
        "NaT": np.datetime64("NaT", "s"),
        "empty 0x2": np.empty((0, 2)),
        "empty 2x0": np.empty((2, 0)),
        "empty i8": np.empty((0, 2), "i8"),
        "U1": np.array(["a"]),
        "U2": np.array(["a"], dtype="U2"),
        "S1": np.array([b"a"]),
        "objects": np.array(["a", 1], dtype=object),
        "objects 2": np.array(["a", 1.0], dtype=object),
        "object 0-d": np.array(None, dtype=object),
        "complex array": np.array([1j]),
        "bool array": np.array([True]),
        "days": np.array(["2024-01-01"], "M8[D]"),
        "struct": np.array([(1, 2.0)], "i4,f8"),
        "struct named": np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
        "struct aligned": np.array([(1, 2.0)], np.dtype("i4,f8", align=True)),
        "struct of objects": np.array([(1, "a")], [("a", "i4"), ("b", "O")]),
        "dtype": np.dtype("f8"),
        "dtype i4,f8": np.dtype("i4,f8"),
        "long double": np.array([1], np.longdouble),
        "masked": np.ma.array([1, 2], mask=[0, 1]),
        "masked not": np.ma.array([1, 2]),
        "matrix": np.ones((1, 1)).view(np.matrix),
        "recarray": np.rec.array([(1, 2.0)], dtype="i4,f8"),
        "ufunc": np.sin,
        "ufunc cos": np.cos,
        "generator": np.random.Generator(np.random.PCG64(1)),
        "generator 2": np.random.Generator(np.random.PCG64(2)),
        "metres": metres("m"),
        "feet": metres("ft"),
        "frame": table,
        "frame of floats": table.astype({"a": float}),
        "frame, columns swapped": table[["b", "a"]],
        "frame renamed": table.rename(columns={"a": "c"}),
        "frame indexed": table.set_index("a"),
        "frame, index 1": table.set_axis([1, 2]),
        "frame value": table.assign(a=[1, 3]),
        "frame missing": table.assign(b=["x", None]),
        "rows": table.to_dict("records"),
        "frame attrs": attributed(table),
        "frame of lists": pd.DataFrame({"a": [[1], [2]]}),
        "series a": table["a"],
        "series b": table["b"],
        "series unnamed": table["a"].rename(None),
        "series object": pd.Series([1, "y"], dtype=object, name="b"),
        "series string": table["b"].astype("string"),
        "category": table["b"].astype("category"),
        "category ordered": pd.Series(pd.Categorical(["x", "y"], ordered=True), name="b"),
        "category more": pd.Series(pd.Categorical(["x", "y"], categories=["x", "y", "z"]), name="b"),
        "Int64": pd.array([1, 2], dtype="Int64"),
        "Int64 missing": pd.array([1, None], dtype="Int64"),
        "boolean": pd.array([True, None]),
        "Int64 zero": pd.array([1, 0], dtype="Int64"),
        "moments": moments,
        "moments Berlin": moments.tz_localize("Europe/Berlin"),
        "moments UTC": moments.tz_localize("UTC"),
        "moments without freq": pd.DatetimeIndex(list(moments)),
        "moments s": moments.as_unit("s"),
        "timedeltas": pd.to_timedelta([1, 2], unit="D"),
        "periods": pd.period_range("2024", periods=2, freq="M"),
        "periods Q": pd.period_range("2024", periods=2, freq="Q"),
        "intervals": pd.interval_range(0, 2),
        "intervals left": pd.interval_range(0, 2, closed="left"),
        "multi": pd.MultiIndex.from_product([["a", "b"], [1, 2]]),
        "multi named": pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", "y"]),
        "index": pd.Index([0, 1, 2]),
        "range index": pd.RangeIndex(3),
        "range index 1": pd.RangeIndex(3, name="x"),
        "sparse": pd.arrays.SparseArray([0, 0, 1]),
        "sparse 2": pd.arrays.SparseArray([0, 1, 0]),
        "Timestamp": pd.Timestamp("2024-01-01"),
        "NA": pd.NA,
        "pd.NaT": pd.NaT,
    }


def attributed(table: pd.DataFrame) -> pd.DataFrame:
    other = table.copy()
    other.attrs["unit"] = "mm"
    return other


def equal() -> dict[str, tuple[Any, Any]]:
    """Pairs of values that mean the same, made in different ways."""
    rows = np.arange(24.0).reshape(4, 6)
    table = pd.DataFrame({"a": [1, 2, 3], "b": [1.5, 2.5, 3.5]})
    one: list[int] = [1]
    padded = np.zeros(2, np.dtype("i1,f8", align=True))
    dirty = padded.copy()
    dirty.view(np.uint8)[1:7] = 255  # the gap
    return {
        "nan": (math.nan, -float("nan")),
        "nan computed": (math.nan, math.inf - math.inf),
        "nan in a list": ([math.nan], [-math.nan]),
        "nan in a dict": ({"a": math.nan}, {"a": -math.nan}),
        "nan in a set": ({math.nan}, {-math.nan}),
        "dict order": ({"a": 1, "b": 2, "c": 3}, {"c": 3, "a": 1, "b": 2}),
        "dict order, nested": ({"a": [1], "b": {}}, {"b": {}, "a": [1]}),
        "dict order, keys": ({1: "a", "b": 2}, {"b": 2, 1: "a"}),
        "set order": (set("abcdefgh"), set("hgfedcba")),
        "set order, mixed": ({1, "a", None, (2,)}, {(2,), None, "a", 1}),
        "attributes": (Plain(a=1, b=2), Plain(b=2, a=1)),
        "Counter": (collections.Counter("abc"), collections.Counter("cba")),
        "Bag": (bag("a", "b"), bag("b", "a")),
        "shared or not": ([one, one], [[1], [1]]),
        "shared deep": ({"a": (one, [one])}, {"a": ([1], [[1]])}),
        "interned or not": (["ab", "ab"], ["ab", "ab"]),
        "what __getstate__ leaves out": (Chosen(1, 2), Chosen(1, 3)),
        "cycle": (cycle(1), cycle(1)),
        "cycle entered elsewhere": (cycle()[0], cycle()),
        "ring": (ring(5), ring(5)),
        "memoryview of parts": (memoryview(b"abc"), memoryview(b"xabc")[1:]),
        "memoryview strided": (memoryview(b"ac"), memoryview(b"abcd")[::2]),
        "byte order": (rows, rows.astype(">f8")),
        "byte order, scalar": (np.float64(1), np.array([1], ">f8")[0]),
        "byte order, struct": (np.ones(2, "<i4,<f8"), np.ones(2, ">i4,>f8")),
        "byte order, texts": (np.array(["ab"], "<U2"), np.array(["ab"], ">U2")),
        "F order": (rows, np.asfortranarray(rows)),
        "view": (rows[:, ::2], rows[:, ::2].copy()),
        "backwards": (rows[::-1], rows[::-1].copy()),
        "read-only": (rows, read_only(rows)),
        "native": (np.arange(3, dtype="=i4"), np.arange(3, dtype="<i4" if sys.byteorder == "little" else ">i4")),
        "broadcast": (np.broadcast_to(np.array([1.0]), (3,)), np.ones(3)),
        "large F order": (np.ones((3000, 700)), np.ones((700, 3000)).T),
        "padding": (padded, dirty),
        "long double": (np.ones(3, np.longdouble), np.array([1, 1, 1], np.longdouble)),
        "masked": (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 3], mask=[0, 1])),
        "frame copied": (table, table.copy()),
        "frame by columns": (table, pd.DataFrame({"a": table["a"], "b": table["b"]})),
        "frame sliced": (table, pd.concat([table, table], ignore_index=True)[:3]),
        "frame of one block": (
            pd.DataFrame(np.arange(6.0).reshape(3, 2), columns=["a", "b"]),
            pd.DataFrame({"a": [0.0, 2, 4], "b": [1.0, 3, 5]}),
        ),
        "unused levels": (pd.MultiIndex.from_product([["a", "b"], [1]])[:1], pd.MultiIndex.from_tuples([("a", 1)])),
        "under a mask": (pd.array([1, None], dtype="Int64"), masked_integers()),
        "partials": (functools.partial(plus, x=1), functools.partial(plus, x=1)),
        "code": (adder(1), adder(1)),
        "datetimes": (NOON, dt.datetime.fromisoformat("2024-05-17T12:00")),
    }


def read_only(values: np.ndarray) -> np.ndarray:
    other = values.copy()
    other.flags.writeable = False
    return other


def masked_integers() -> Any:
    other = pd.array([1, 7], dtype="Int64")
    other[1] = None
    return other
