"""Values as bytes and back: which codec takes which value.

A codec is chosen by a value's exact type, and gives back what it was given: `bytes` and `text` as they are; `json` for
None, numbers, and the lists and dicts that JSON holds exactly; `npy` (`npy-scalar`) for numpy's arrays (numbers) without
objects; `path` for pathlib's paths; `pickle` (`pickle-5` with buffers of their own) for the rest, by value where it can't
be named; and what `register` adds. Large buffers are neither copied to be encoded nor, from writable memory, to be decoded.

A pickle only names the classes and functions that its value consists of. Where they are the project's, a digest of their code
is part of the codec's name (`pickle~0123456789abcdef`): whoever uses such a value depends on that code too.

A path stands for what lies there: the digest of the file's content (of a folder's tree; or that there is nothing) is part of
what is encoded, and only while it is the same is the path given back. Inside a pickle that holds for paths of files; others
are places to write to, and may change. The content itself isn't kept.

Nothing here knows stores. What is decoded must have been verified before: a pickle runs code.
"""

from __future__ import annotations

import os
import sys
from functools import cache, lru_cache
from json import JSONDecoder, JSONEncoder
from pickle import Pickler, loads
from struct import pack, unpack_from
from typing import TYPE_CHECKING, Any

from woflo import _exceptions
from woflo._fingerprint import Undigestible, cache_key, digest
from woflo._origin import PROJECT, module_of, origin
from woflo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pickle import PickleBuffer

    Part = bytes | memoryview
    Encoded = tuple[str, list[Part]]

__all__ = ["Undecodable", "Unencodable", "decode", "encode", "register"]

_PICKLES = frozenset({"pickle", "pickle-5"})
_OWN = frozenset({"bytes", "text", "json", "npy", "npy-scalar", "path", "trace"}) | _PICKLES
_NAME_LENGTH = 16  # characters: a record's header has room for so many
_STAMP = 16  # hexadecimal digits of the code's digest: enough to tell two states of a project apart
_APART = 4096  # bytes from which a pickled buffer is kept apart: less isn't worth a place of its own
_ALIGNED = 64  # bytes: every buffer begins at a multiple, as numpy's own do
_DEEPEST = 200  # levels that JSON is used for; its recursion ends at some 900
_TWICE = 10_000  # containers that sharing may add when a value is written as JSON
_LOOKED_AT = 10_000  # parts among which one that can't be encoded is looked for
_SCALARS = frozenset({type(None), bool, int, float, str})
_PLAIN = _SCALARS | {list, dict}
_PATHS = frozenset(
    {(module, name) for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")}
)
_EXACT = frozenset("?biufcmM")  # kinds of numpy's scalars that an array holds exactly: a text would lose its last NULs


class Unencodable(Exception):
    """A value that no codec can take.

    Args:
        reason: why, for people.
        path: the way to the part that it is about, for instance `[2].lock`; empty for the value itself.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason, path)

    @property
    def reason(self) -> str:
        """Why it can't be encoded."""
        return str(self.args[0])

    @property
    def path(self) -> str:
        """The way to the part that can't."""
        return str(self.args[1])

    def __str__(self) -> str:
        return f"the value{self.path} can't be kept: {self.reason}"


class Undecodable(Exception):
    """Bytes that are whole, but that this process can't or won't make a value of."""


_encoders: dict[type, tuple[str, Callable[[Any], Any]]] = {}
_decoders: dict[str, tuple[type, Callable[[Any], Any]]] = {}


def register(
    type: type,  # noqa: A002 - what it is
    name: str,
    encode: Callable[[Any], bytes | memoryview | list[bytes | memoryview]],
    decode: Callable[[memoryview], Any],
) -> None:
    """Have values of a type (not of its subclasses) encoded by functions of your own, in every store, safe ones too.

    A second call for the same type and name takes the place of the first. Who reads must have registered the same.

    Args:
        type: the exact type of the values.
        name: of the codec, in every record: at most 16 characters of a–z, 0–9, `.`, `_`, `+` and `-`.
        encode: gives a value's bytes, or a list of parts that follow each other; mustn't change what it has given.
        decode: makes a value of them; gets a memoryview, which may be a mapped file.

    Raises:
        UsageError: the name is one of woflo's own, belongs to another type, or has other characters.
    """
    if not name or len(name) > _NAME_LENGTH or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789._+-"):
        raise UsageError(f"{name!r} can't name a codec: at most {_NAME_LENGTH} of a-z, 0-9, '.', '_', '+', '-'")
    if name in _OWN:
        raise UsageError(f"the codec {name!r} is woflo's own: choose another name")
    if name in _decoders and not _same(_decoders[name][0], type):
        raise UsageError(
            f"the codec {name!r} belongs to {_exceptions.type_name(_decoders[name][0])}: choose another name"
        )
    _decoders[name] = type, decode
    _encoders[type] = name, encode


def _same(one: type, other: type) -> bool:
    """Whether two classes are one, or one of them is the other's module loaded again."""
    return one is other or _exceptions.type_name(one) == _exceptions.type_name(other)


# ------------------------------------------------------------------ encoding


def encode(value: Any, *, safe: bool = False) -> Encoded:
    """The name of a value's codec, and its bytes in parts.

    The parts may be the value's own memory: it mustn't change until they are written.

    Raises:
        Unencodable: no codec can take it; with `safe`, only pickle could.
    """
    cls = type(value)
    if cls in _encoders:
        return _registered(value, *_encoders[cls])
    if cls is bytes:
        return "bytes", [value]
    if cls is str:
        return "text", [value.encode("utf-8", "surrogatepass")]
    if cls in _PLAIN:
        text = _json(value, safe)
        if text is not None:
            return "json", [text]
    elif cls.__module__ == "numpy":
        encoded = _npy(value)
        if encoded is not None:
            return encoded
    elif (cls.__module__, cls.__qualname__) in _PATHS:
        where, mark = _located(value)
        return "path", [f"{mark} {where}".encode("utf-8", "surrogatepass")]
    if safe:
        raise _refused(value)
    return _pickle(value)


def _located(path: Any) -> tuple[str, str]:
    """A path as text, and the digest of what lies there."""
    try:
        return str(path), digest(path).hex()
    except Undigestible as error:
        raise Unencodable(str(error)) from error


def _registered(value: Any, name: str, encode: Callable[[Any], Any]) -> Encoded:
    try:
        given = encode(value)
        parts = [_bytes_of(part) for part in (given if isinstance(given, (list, tuple)) else [given])]
    except (Exception, SystemExit, GeneratorExit) as error:
        raise Unencodable(f"the codec {name!r} raised {_told(error)}") from error
    return name + _stamp([type(value)]), parts


def _bytes_of(part: Any) -> Part:
    return part if type(part) is bytes else memoryview(part).cast("B")


def _told(error: BaseException) -> str:
    return f"{_exceptions.type_name(type(error))}: {_exceptions.safe_str(error)}"


_strict, _lenient = (
    JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=allow, separators=(",", ":")).encode
    for allow in (False, True)
)
_scan: Callable[[str, int], tuple[Any, int]] = JSONDecoder().scan_once  # type: ignore[attr-defined] # it is there


def _json(value: Any, safe: bool) -> bytes | None:
    """The value as JSON; None if that wouldn't give back the same (safe: an equal one)."""
    if type(value) not in _SCALARS and not _is_plain(value, sharing=safe):
        return None
    try:  # a nan may have bits of its own, which only pickle keeps; an int may be too long
        return (_lenient if safe else _strict)(value).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None


def _is_plain(value: Any, *, sharing: bool) -> bool:
    """Whether lists, dicts with text as keys and scalars are all that it consists of; no part twice, without `sharing`."""
    seen: set[int] = set()
    level = [value]
    depth = count = 0
    while level:
        depth += 1
        count += len(level)
        seen.update(map(id, level))
        if depth > _DEEPEST or count > len(seen) + (_TWICE if sharing else 0):
            return False
        inner: list[Any] = []
        for one in level:
            if type(one) is dict:
                if not set(map(type, one)) <= {str}:
                    return False
                one = one.values()  # noqa: PLW2901 - what is left to look at
            types = set(map(type, one))
            if not types <= _SCALARS:
                if not types <= _PLAIN:
                    return False
                inner += [part for part in one if type(part) is list or type(part) is dict]
        level = inner
    return True


def _npy(value: Any) -> Encoded | None:
    """An array as numpy's own file format, a number as an array of it; None for what that can't hold exactly."""
    numpy: Any = sys.modules["numpy"]
    array = value
    if type(value) is not numpy.ndarray:
        if (
            not isinstance(value, numpy.generic)
            or value.dtype.kind not in _EXACT
            or type(value) is not value.dtype.type
        ):
            return None
        array = numpy.asarray(value)
    dtype = array.dtype
    if dtype.hasobject or dtype.metadata or dtype.isbuiltin == 2 or not dtype.itemsize:  # 2: of another package
        return None
    from numpy.lib import format as form

    try:
        again = form.descr_to_dtype(form.dtype_to_descr(dtype))
        if again != dtype or again.isalignedstruct != dtype.isalignedstruct:
            return None
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            array = numpy.ascontiguousarray(array)
        head = _Parts()
        form.write_array_header_1_0(head, form.header_data_from_array_1_0(array))
        plain = array if array.flags.c_contiguous else array.T
        body = memoryview(plain.reshape(-1).view(numpy.uint8))
    except (ValueError, TypeError):  # names of fields that the format has no room or no letters for
        return None
    return ("npy" if type(value) is numpy.ndarray else "npy-scalar"), [*head.parts, body]


class _Parts:
    """A file that keeps what is written to it as it is, without joining it."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def write(self, data: Any) -> int:
        part = _bytes_of(data)
        self.parts.append(part)
        return len(part)


class _NotingPickler(Pickler):
    """Notes the classes and functions that the pickle names; has paths of files stand for what lies there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.met: dict[int, Any] = {}

    def reducer_override(self, value: Any) -> Any:  # nobody asks it about plain values
        return _note(value, self.met) or NotImplemented


def _note(value: Any, met: dict[int, Any]) -> Any:
    """Note the code of a part of a value; how to pickle it, if that is another way than its own."""
    kind = type(value)
    if (kind.__module__, kind.__qualname__) in _PATHS and os.path.isfile(value):
        return _path_again, _located(value)
    is_named = "__qualname__" in kind.__dict__  # its values have names of their own: a kind of function, of C code too
    code = value if is_named or issubclass(kind, type) else kind
    met[id(code)] = code
    return None


def _pickle(value: Any) -> Encoded:
    try:
        return _pickled(value, _NotingPickler)
    except (Exception, SystemExit, GeneratorExit) as first:  # a user's __reduce__ may raise anything
        if isinstance(first, Unencodable):
            raise
        if isinstance(first, RecursionError):  # looking for a culprit would meet the same at every level
            raise Unencodable("it is nested too deeply for pickle") from first
        try:
            return _pickled(value, _by_value())
        except (Exception, SystemExit, GeneratorExit):
            from woflo.runners import _inputs

            way, part = _inputs.path_to(value, _unpicklable)
            raise Unencodable(f"a {_exceptions.type_name(type(part))} can't be pickled: {_told(first)}", way) from first


@cache
def _by_value() -> type[Any]:
    import cloudpickle

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.met: dict[int, Any] = {}

        def reducer_override(self, value: Any) -> Any:
            return _note(value, self.met) or super().reducer_override(value)

    return ByValue


def _pickled(value: Any, kind: type[Any]) -> Encoded:
    file = _Parts()
    buffers: list[memoryview] = []

    def inside(buffer: PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _APART:
            return True
        buffers.append(raw)
        return False

    pickler = kind(file, 5, buffer_callback=inside)
    pickler.dump(value)
    stamp = _stamp(pickler.met.values())
    if not buffers:
        return "pickle" + stamp, file.parts
    sizes = [buffer.nbytes for buffer in buffers]
    parts: list[Part] = [_padded(pack(f"<{len(sizes) + 1}Q", len(sizes), *sizes))]
    for buffer in buffers:
        parts += [buffer, bytes(-buffer.nbytes % _ALIGNED)]
    return "pickle-5" + stamp, [*parts, *file.parts]


def _stamp(met: Iterable[Any]) -> str:
    """What a codec's name says of the code that a value consists of: nothing, if none is the project's."""
    digests = {_code_digest(code) for code in met if _is_projects(code)}
    return f"~{cache_key('code', *sorted(digests))[:_STAMP]}" if digests else ""


def _is_projects(code: Any) -> bool:
    return origin(module_of(code)) == PROJECT


def _code_digest(code: Any) -> bytes:
    try:
        return digest(code)
    except Undigestible:  # by its name, as what it depends on
        return digest((code.__module__, code.__qualname__))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNED)


def _unpicklable(part: object) -> bool:
    try:
        _exceptions.dumps(part)
    except (Exception, SystemExit, GeneratorExit):
        return True
    return False


def _refused(value: Any) -> Unencodable:
    way, kind = _beyond_json(value)
    return Unencodable(
        f"only pickle can hold {kind}, and a safe store refuses pickle: woflo.store.register(…) gives a type a codec",
        way,
    )


def _beyond_json(value: Any) -> tuple[str, str]:
    """The way to the first part that JSON can't hold, and what it is."""
    todo = [("", value, 0)]
    seen = set()
    for way, part, depth in todo:
        kind = type(part)
        if kind not in _PLAIN:
            return way, f"this {_exceptions.type_name(kind)}"
        if kind in _SCALARS or id(part) in seen:
            continue
        seen.add(id(part))
        if kind is dict and not set(map(type, part)) <= {str}:
            return way, "this dict, whose keys aren't all text"
        if depth < _DEEPEST and len(todo) < _LOOKED_AT:
            todo += [(f"{way}[{step!r}]", inner, depth + 1) for step, inner in _steps(part)]
    return "", "what is so deep, has a number so long, or the same part so often"


def _steps(part: Any) -> Iterable[tuple[object, Any]]:
    return part.items() if type(part) is dict else enumerate(part)


# ------------------------------------------------------------------ decoding


def decode(codec: str, data: memoryview | bytes, *, safe: bool = False) -> Any:
    """The value that `encode` made these bytes of; verify them first.

    From writable memory (a private mapping), arrays are made without a copy, and are its only users; from other memory they
    are copies. So whoever gets an array may write to it.

    Raises:
        Undecodable: this process doesn't have the codec, or refuses it (`safe`), or a class of the value is gone, or what
            lies under a path has changed.
    """
    codec = codec.partition("~")[0]
    if codec in _PICKLES and safe:
        raise Undecodable("it is a pickle, and a safe store refuses pickle")
    view = memoryview(data)
    read = _decoders[codec][1] if codec in _decoders else _READERS.get(codec)
    if read is None:
        raise Undecodable(f"no codec {codec!r} is registered here: woflo.store.register(…)")
    try:
        return read(view)
    except (MemoryError, Undecodable):  # elsewhere there may be enough memory
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        raise Undecodable(f"it can't be rebuilt here: {_told(error)}") from error


def _text(view: memoryview) -> str:
    return str(view, "utf-8", "surrogatepass")


def _path(view: memoryview) -> Any:
    mark, _, text = _text(view).partition(" ")
    return _path_again(text, mark)


def _path_again(text: str, mark: str) -> Any:
    """The path, if what lies there is what lay there."""
    from pathlib import Path

    path = Path(text)
    if digest(path).hex() != mark:
        what = "something else lies there now" if path.exists() else "nothing lies there any more"
        raise Undecodable(f"the path {text} is part of it, and {what}")
    return path


def _parse(view: memoryview) -> Any:
    text = _text(view)
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("it isn't JSON") from None
    if end != len(text):
        raise ValueError("something follows the JSON")
    return value


def _array(view: memoryview) -> Any:
    import numpy as np

    start = 10 + int.from_bytes(view[8:10], "little")  # numpy's format 1.0: magic, version, length, header
    dtype, shape, order = _npy_header(bytes(view[:start]))
    array: Any = np.ndarray(shape, dtype, view, start, order=order)
    return array.copy("K") if view.readonly else array


@lru_cache(256)
def _npy_header(head: bytes) -> tuple[Any, tuple[int, ...], Any]:
    import io

    from numpy.lib import format as form

    file = io.BytesIO(head)
    form.read_magic(file)
    shape, fortran, dtype = form.read_array_header_1_0(file)
    return dtype, shape, "F" if fortran else "C"


def _unpickle_apart(view: memoryview) -> Any:
    (count,) = unpack_from("<Q", view)
    sizes: tuple[int, ...] = unpack_from(f"<{count}Q", view, 8)
    at = 8 + 8 * count
    buffers = []
    for size in sizes:
        at += -at % _ALIGNED
        part = view[at : at + size]
        buffers.append(bytearray(part) if view.readonly else part)
        at += size
    return loads(view[at + -at % _ALIGNED :], buffers=buffers)


_READERS: dict[str, Callable[[memoryview], Any]] = {
    "bytes": bytes,
    "text": _text,
    "json": _parse,
    "npy": _array,
    "npy-scalar": lambda view: _array(view)[()],
    "path": _path,
    "pickle": loads,
    "pickle-5": _unpickle_apart,
}
