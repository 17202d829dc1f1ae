"""What numpy arrays and pandas tables consist of, for a digest.

An array counts by its dtype, its shape and its items; not by how they lie in memory (in which order, with which byte first), nor
whether they lie there or in a mapped file. A table counts by its columns, each as an array, and by its index.

Bytes are hashed where they lie, if they lie in order. What no value owns isn't hashed: the gaps between the fields of a
structured array, the unused bytes of a long double, what is under the mask of a column with missing values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from woflo._merkle import ATTRIBUTES, Leaf, Node, buffer, hasher, pack, plain
from woflo._origin import module_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Expansion = bytes | Node
    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["way"]

_CHUNK = 1 << 23  # bytes that are put in order at once
_DOUBLE_IN_LONG = 10  # bytes of the 16 that an x86 long double uses


def way(kind: type) -> Callable[[Any], Expansion] | None:
    """How to expand values of a class that descends from numpy's or pandas'; None: as any other object."""
    for base in kind.__mro__:
        package = module_of(base).partition(".")[0]
        if package == "numpy":
            found = _NUMPY.get(base.__qualname__)
        elif package == "pandas":
            found = _PANDAS.get(base.__qualname__)
        else:
            continue
        if found is not None:
            return found
    return None


# ---- numpy


def _array(value: Array) -> Expansion:
    if type(value) in {np.ndarray, np.memmap}:
        return _plain_array(value)
    own = {**getattr(value, "__dict__", {}), **_in_slots(value)}
    state = [*own, *own.values()]
    base = _plain_array(value.view(np.ndarray))
    return Node(
        b"a numpy.ndarray",
        (type(value), base if isinstance(base, Node) else Leaf(base), Node(b"state", state, ATTRIBUTES)),
        names=("", "", ""),
    )


def _in_slots(value: Any) -> dict[str, Any]:
    given = [vars(base).get("__slots__", ()) for base in type(value).__mro__]
    names = [name for slots in given for name in ([slots] if isinstance(slots, str) else slots)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _plain_array(value: Array) -> Expansion:
    dtype = value.dtype
    if dtype.names is None and not dtype.hasobject and dtype.kind != "T":
        return pack(b"numpy.ndarray", [plain(_little(dtype).str), _shape(value), _items(value)])
    names: tuple[str, ...] = ("", "", "")
    if dtype.names is None:
        items: Any = value.reshape(-1).tolist()
    elif _has_gaps(dtype) or dtype.hasobject:
        items = Node(b"fields", [value[name] for name in dtype.names], names=[f"[{name!r}]" for name in dtype.names])
    else:
        items = Leaf(_items(value))
    return Node(b"numpy.ndarray", (dtype, Leaf(_shape(value)), items), names=names)


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype with the lowest byte first; pickle doesn't keep the order either."""
    return dtype if dtype.kind == "T" else dtype.newbyteorder("<")  # texts of any length are objects


def _shape(value: Array) -> bytes:
    return pack(b"shape", [plain(length) for length in value.shape])


def _has_gaps(dtype: np.dtype[Any]) -> bool:
    """Whether not every byte belongs to exactly one field (and is all of it)."""
    if dtype.subdtype is not None:
        return _has_gaps(dtype.subdtype[0])
    if dtype.names is None:
        return _is_padded(dtype)
    parts = [dtype.fields[name][:2] for name in dtype.names]  # type: ignore[index]
    ends = 0
    for part, offset in sorted(parts, key=lambda one: one[1]):
        if offset != ends or _has_gaps(part):
            return True
        ends += part.itemsize
    return ends != dtype.itemsize


def _is_padded(dtype: np.dtype[Any]) -> bool:
    """Whether this is x87's extended format."""
    return dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63


def _items(value: Array) -> bytes:
    """The encoding of the items in C order."""
    if value.size == 0 or value.dtype.itemsize == 0:
        return buffer(b"")
    if _is_padded(value.dtype):
        bare = np.ascontiguousarray(value).reshape(-1).view(np.uint8).reshape(-1, np.longdouble(0).itemsize)
        return buffer(bare[:, :_DOUBLE_IN_LONG].tobytes())
    little = _little(value.dtype)
    if value.flags.c_contiguous and value.dtype == little:
        return buffer(memoryview(value.reshape(-1).view(np.uint8)))  # type: ignore[arg-type]
    rows = value if value.ndim > 1 else value.reshape(-1)
    step = max(1, _CHUNK // max(1, value.nbytes // len(rows)))
    work = hasher(step * value.nbytes // len(rows))
    for start in range(0, len(rows), step):
        chunk = np.ascontiguousarray(rows[start : start + step], dtype=little)
        work.update(memoryview(chunk.reshape(-1).view(np.uint8)))  # type: ignore[arg-type]
    return b"B" + work.digest()


def _masked(value: Any) -> Expansion:
    data, mask = np.ma.getdata(value), np.ma.getmaskarray(value)
    if data.dtype.names is None and data.dtype.kind not in "OT":
        data = np.where(mask, np.zeros((), data.dtype), data)
    names = ("", ".data", ".mask", ".fill_value", "")
    return Node(b"numpy.ma", (type(value), data, mask, value.fill_value, value.hardmask), names=names)


def _scalar(value: Any) -> Expansion:
    dtype = value.dtype
    if type(value) is dtype.type and dtype.names is None and not _is_padded(dtype) and dtype == _little(dtype):
        return pack(b"numpy scalar", [plain(dtype.str), buffer(value.tobytes())])
    base = _plain_array(np.asarray(value))
    return Node(b"numpy scalar", (type(value), base if isinstance(base, Node) else Leaf(base)), names=("", ""))


def _dtype(value: np.dtype[Any]) -> Expansion:
    if value.subdtype is not None:
        return Node(b"numpy.dtype array", (value.subdtype[0], value.subdtype[1]))
    if value.names is None:
        return pack(b"numpy.dtype", [plain(_little(value).str), plain(repr(value) if value.kind == "T" else "")])
    fields = [part for name in value.names for part in (name, *value.fields[name][:2])]  # type: ignore[index]
    return Node(b"numpy.dtype struct", [*fields, value.itemsize])


# ---- pandas


def _series(value: Any) -> Expansion:
    names = ("", "", ".index", ".name", ".attrs", "", "")
    parts = (type(value), value.array, value.index, value.name, value.attrs, *_more(value))
    return Node(b"pandas.Series", parts, names=names)


def _frame(value: Any) -> Expansion:
    labels = list(value.columns)
    columns = Node(
        b"columns", [column.array for _, column in value.items()], names=[f"[{label!r}]" for label in labels]
    )
    names = ("", "", ".columns", ".index", ".attrs", "", "")
    parts = (type(value), columns, value.columns, value.index, value.attrs, *_more(value))
    return Node(b"pandas.DataFrame", parts, names=names)


def _more(value: Any) -> tuple[bool, dict[str, Any]]:
    own = {name: getattr(value, name, None) for name in value._metadata if name != "name"}
    return value.flags.allows_duplicate_labels, own


def _index(value: Any) -> Expansion:
    names, kind = list(value.names), type(value).__name__
    if kind == "RangeIndex":
        return Node(b"pandas.RangeIndex", (value.start, value.stop, value.step, names))
    if kind == "MultiIndex":
        return Node(b"pandas.MultiIndex", [names, *(value.get_level_values(level) for level in range(len(names)))])
    return Node(b"pandas.Index", (type(value), value.array, names, getattr(value, "freqstr", None)), names=("",) * 4)


def _numpy_backed(value: Any) -> Expansion:
    return Node(b"numpy backed", (value.to_numpy(),), names=("",))


def _categorical(value: Any) -> Expansion:
    parts = (value.codes, value.categories, value.ordered)
    return Node(b"pandas.Categorical", parts, names=(".codes", ".categories", ""))


def _moments(value: Any) -> Expansion:
    return Node(b"pandas moments", (str(value.dtype), value.asi8), names=("", ""))


def _nullable(value: Any) -> Expansion:
    data = value.to_numpy(dtype=value.dtype.numpy_dtype, na_value=value.dtype.type(0))
    return Node(b"pandas nullable", (str(value.dtype), data, value.isna()), names=("", "", ""))


def _texts(value: Any) -> Expansion:
    return Node(b"pandas texts", (str(value.dtype), np.asarray(value, dtype=object)), names=("", ""))


def _arrow(value: Any) -> Expansion:
    if value.dtype.kind in "biuf":
        data = value.to_numpy(dtype=value.dtype.numpy_dtype, na_value=value.dtype.type(0))
        return Node(b"pandas arrow", (str(value.dtype), data, value.isna()), names=("", "", ""))
    return Node(b"pandas arrow", (str(value.dtype), value.tolist()), names=("", ""))


def _interval(value: Any) -> Expansion:
    return Node(b"pandas intervals", (value.left, value.right, value.closed), names=(".left", ".right", ""))


def _sparse(value: Any) -> Expansion:
    places = value.sp_index.to_int_index().indices
    return Node(b"pandas sparse", (len(value), places, value.sp_values, value.fill_value), names=("",) * 4)


_NUMPY: dict[str, Callable[[Any], Expansion]] = {
    "MaskedArray": _masked,
    "dtype": _dtype,
    "generic": _scalar,
    "ndarray": _array,
}

_PANDAS: dict[str, Callable[[Any], Expansion]] = {
    "ArrowExtensionArray": _arrow,
    "ArrowStringArray": _texts,
    "BaseMaskedArray": _nullable,
    "Categorical": _categorical,
    "DataFrame": _frame,
    "DatetimeLikeArrayMixin": _moments,
    "Index": _index,
    "IntervalArray": _interval,
    "NumpyExtensionArray": _numpy_backed,
    "PandasArray": _numpy_backed,
    "Series": _series,
    "SparseArray": _sparse,
    "StringArray": _texts,
}
