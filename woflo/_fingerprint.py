"""What a value is, as 32 bytes: equal values have one digest in every process, different ones never share one.

    digest(value) ── expand: what it consists of (here; arrays and frames: `_arrays`; code: `_code`) ── fold (`_merkle`)

What counts:

- the exact type: `1`, `1.0`, `True`, `"1"` and `b"1"` differ, and so do `0.0` and `-0.0`; every NaN is the same one;
- the contents, not the identity: what is shared counts as often as it is found;
- the order in lists and tuples and in an OrderedDict, not in dicts, sets and the attributes of an object;
- of an object: its class and the state that pickle would keep; of a class of the project also its code (`_code`);
- of a path: the path as it is given (a folder's name may matter), and the file's content, the folder's tree, or nothing;
- of a function, a class, a module, a Task: its code.

A class that knows better says so in a method `__woflo_digest__()`: what it returns is digested in the object's place.
What only lives in this process (locks, sockets, open files, generators) is Undigestible.
"""

from __future__ import annotations

import copyreg
import os
from collections import OrderedDict
from functools import partial
from marshal import dumps as _marshal
from types import BuiltinFunctionType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from weakref import WeakKeyDictionary

from blake3 import blake3

from woflo._foreign import FOREIGN
from woflo._merkle import (
    ATTRIBUTES,
    MEMBERS,
    PAIRS,
    PLAIN,
    Leaf,
    Node,
    Undigestible,
    buffer,
    fold,
    hasher,
    mapping,
    members,
    pack,
    plain,
    sequence,
)
from woflo._origin import PROJECT, module_of, origin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Expansion = bytes | Node
    Expand = Callable[[Any], Expansion]

__all__ = ["Undigestible", "cache_key", "digest"]

_VALUE = b"woflo value 1\0"
_KEY = b"woflo key 1\0"
_HEAP = 1 << 9  # of a type's flags: a class statement made it
_NEW = (vars(copyreg)["__newobj__"], vars(copyreg)["__newobj_ex__"])  # what says "an object of this class"
_CHUNK = 1 << 20  # bytes of a file that are read at once


def digest(value: object, name: str = "") -> bytes:
    """The digest of a value: 32 bytes, the same in every process.

    Args:
        value: any value.
        name: what it is called in the path of an Undigestible.

    Raises:
        Undigestible: part of it only lives in this process.

    >>> digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1})
    True
    >>> digest(1) == digest(1.0)
    False
    """
    kind, found = type(value), None
    if kind is tuple or kind is list:
        found = sequence(value)  # type: ignore[arg-type]
    elif kind in PLAIN:
        found = plain(value)
    return blake3(_VALUE + (found or encoding(value, name))).digest()


def encoding(value: object, name: str = "", code: Expand | None = None) -> bytes:
    """What `digest` digests; of a class, function, module or Task what `code` says, else its whole code."""
    way = expand if code is None else lambda child: expand(child, code)
    try:
        return fold(value, way, name)
    except RecursionError:
        raise Undigestible(name, "its own methods call each other without end") from None


def cache_key(*parts: bytes | str) -> str:
    """A key that depends on each part, on their order and on where each one ends: 64 hexadecimal digits.

    >>> cache_key("ab", "c") == cache_key("a", "bc")
    False
    """
    framed = [_KEY]
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        framed.append(b"%s%d\0" % (b"s" if isinstance(part, str) else b"b", len(data)))
        framed.append(data)
    return blake3(b"".join(framed)).hexdigest()


# ---- what a value consists of


def expand(value: Any, code: Expand | None = None) -> Expansion:
    kind = type(value)
    try:
        known = _KNOWN.get(kind) or _way(kind)
        return (code or _code)(value) if known is _is_code else known(value)
    except (MemoryError, Undigestible):
        raise
    except Exception as error:  # of the value's own code
        raise Undigestible("", f"what {_article(kind)} holds can't be read ({_told(error)})") from error


def _way(kind: type) -> Expand:
    """How to expand values of a class that is not in the table."""
    found = _LATER.get(kind)
    if found is None:
        found = _LATER[kind] = _choose(kind)
    return found


def _choose(kind: type) -> Expand:
    if any("__woflo_digest__" in vars(base) for base in kind.__mro__):
        return _hooked
    if issubclass(kind, type):
        return _is_code
    for base in kind.__mro__:
        place = (module_of(base), base.__qualname__)
        found = partial(_foreign, FOREIGN[place]) if place in FOREIGN else _BY_NAME.get(place)
        if found is None and place[0].partition(".")[0] in {"numpy", "pandas"}:
            from woflo import _arrays

            found = _arrays.way(kind)
        if found is not None:
            return found
    if issubclass(kind, (set, frozenset)):
        return _set_of_a_kind
    if _is_ordinary(kind):
        return _object
    gives_once = module_of(kind) in {"builtins", "itertools"} and hasattr(kind, "__next__")
    return _spent if gives_once else _reduced


def _code(value: Any) -> Expansion:
    if isinstance(value, type) and origin(module_of(value)) != PROJECT:
        return named(module_of(value), value.__qualname__)
    from woflo import _code

    return _code.as_value(value)


def _is_code(value: Any) -> Expansion:
    """Marks the classes that `code` is asked about."""
    raise NotImplementedError(value)


def _list(value: list[Any]) -> Expansion:
    return sequence(value) or Node(b"list", value)


def _tuple(value: tuple[Any, ...]) -> Expansion:
    return sequence(value) or Node(b"tuple", value)


def _dict(value: dict[Any, Any]) -> Expansion:
    return mapping(value) or Node(b"dict", [*value, *value.values()], PAIRS)


def _set(value: set[Any]) -> Expansion:
    return members(value) or Node(b"set", tuple(value), MEMBERS)


def _frozenset(value: frozenset[Any]) -> Expansion:
    return members(value) or Node(b"frozenset", tuple(value), MEMBERS)


def _ordered_dict(value: Any) -> Expansion:
    kind = type(value)
    if _says_itself(kind, OrderedDict):
        return _reduced(value)
    pairs = [part for pair in value.items() for part in pair]
    return Node(b"OrderedDict", [kind, Node(b"", pairs), _state(value.__reduce__()[2])], names=("", "", ""))


def _says_itself(kind: type, base: type) -> bool:
    """Whether a class says in its own way what pickle keeps of it."""
    above = kind.__mro__[: kind.__mro__.index(base)]
    return any(name in vars(one) for one in above for name in ("__reduce__", "__reduce_ex__"))


def _set_of_a_kind(value: Any) -> Expansion:
    kind, base = type(value), set if isinstance(value, set) else frozenset
    if _says_itself(kind, base):
        return _reduced(value)
    return Node(b"a set", [kind, base(value), _state(value.__reduce__()[2])], names=("", "", ""))


def _marshalled(value: Any) -> bytes:
    return _marshal(value, 2)


def _bytearray(value: bytearray) -> bytes:
    return pack(b"bytearray", [buffer(value)])


def _memoryview(value: memoryview) -> bytes:
    try:
        data = value.cast("B") if value.c_contiguous and value.nbytes else value.tobytes()
    except ValueError as error:
        raise Undigestible("", str(error)) from error
    return pack(b"memoryview", [plain(value.format), _marshal(value.shape, 2), buffer(data)])


def _range(value: range) -> Expansion:
    return Node(b"range", (value.start, value.stop, value.step))


def _slice(value: slice) -> Expansion:
    return Node(b"slice", (value.start, value.stop, value.step), names=(".start", ".stop", ".step"))


def _mapping_proxy(value: MappingProxyType[Any, Any]) -> Expansion:
    return Node(b"mappingproxy", (dict(value),), names=("",))


def _method(value: MethodType) -> Expansion:
    return Node(b"method", (value.__func__, value.__self__), names=(".__func__", ".__self__"))


def _builtin(value: Any) -> Expansion:
    if value.__self__ is None or type(value.__self__) is ModuleType:
        return named(value.__module__ or "builtins", value.__qualname__)
    return Node(b"method", (Leaf(plain(value.__name__)), value.__self__), names=("", ".__self__"))


def _property(value: property) -> Expansion:
    return Node(b"property", (value.fget, value.fset, value.fdel), names=(".fget", ".fset", ".fdel"))


def _wrapped(value: Any) -> Expansion:
    return Node(type(value).__name__.encode(), (value.__func__,), names=(".__func__",))


def _cached_property(value: Any) -> Expansion:
    return Node(b"cached_property", (value.func, value.attrname), names=(".func", ".attrname"))


def _partial(value: Any) -> Expansion:
    parts = (type(value), value.func, Node(b"", value.args), value.keywords, _attributes(vars(value)))
    return Node(b"partial", parts, names=("", ".func", "", "", ""))


def _enum(value: Any) -> Expansion:
    return Node(b"enum", (type(value), value._name_, value._value_), names=("", "", ".value"))


def _hooked(value: Any) -> Expansion:
    try:
        own = value.__woflo_digest__()
    except Exception as error:
        raise Undigestible("", f"its __woflo_digest__() raised {_told(error)}") from error
    if own is value:
        raise Undigestible("", "its __woflo_digest__() returns the object itself")
    return Node(b"own", (type(value), own), names=("", ".__woflo_digest__()"))


def _spent(value: object) -> Expansion:
    raise Undigestible("", f"a {type(value).__name__} gives its items only once; pass a list of them")


def _weak(value: object) -> Expansion:
    raise Undigestible("", f"a {type(value).__name__} holds what others may let go at any time")


def _run(value: Any) -> Expansion:
    raise Undigestible("", f"{value.name} is a TaskRun: its value counts, not the run")


def _foreign(expand: Callable[[Any], Expansion | None], value: Any) -> Expansion:
    return expand(value) or _reduced(value)


def _identity(value: object) -> Expansion:
    raise Undigestible("", f"{value!r} has no content: it is only ever equal to itself")


def named(module: str, qualname: str) -> bytes:
    """The encoding of what is known by its name."""
    return pack(b"name", [plain("__main__" if module == "__mp_main__" else module), plain(qualname)])


# ---- objects: the state that pickle would keep


def _is_ordinary(kind: type) -> bool:
    """Whether an object of this class is what its `__dict__` says, and pickle would ask nobody else."""
    return (
        all(base.__flags__ & _HEAP for base in kind.__mro__[:-1])
        and all(
            getattr(kind, name) is getattr(object, name) for name in ("__reduce_ex__", "__reduce__", "__getstate__")
        )
        and not hasattr(kind, "__getnewargs__")
        and not hasattr(kind, "__getnewargs_ex__")
        and not any("__slots__" in vars(base) for base in kind.__mro__)
        and kind.__dictoffset__ != 0
    )


def _object(value: Any) -> Expansion:
    kind = type(value)
    if kind in copyreg.dispatch_table:
        return _reduced(value)
    return Node(b"object", (kind, _attributes(object.__getattribute__(value, "__dict__"))), names=("", ""))


def _reduced(value: Any) -> Expansion:
    kind = type(value)
    special = copyreg.dispatch_table.get(kind)
    reduced = value.__reduce_ex__(4) if special is None else special(value)
    if isinstance(reduced, str):
        if hasattr(value, "__wrapped__"):  # lru_cache says no more than its name
            own = {name: part for name, part in getattr(value, "__dict__", {}).items() if not name.startswith("__")}
            return Node(b"wrapper", (kind, value.__wrapped__, _attributes(own)), names=("", ".__wrapped__", ""))
        return named(module_of(value if hasattr(value, "__module__") else kind), reduced)
    make, args, state, items, pairs = (*reduced, None, None, None)[:5]
    if make in _NEW:
        make, args = args[0], args[1:]
    if not isinstance(make, type) and origin(module := module_of(make)) != PROJECT:
        make = Leaf(named(module, getattr(make, "__qualname__", "")))  # how it is made again is no part of what it is
    children = [make, Node(b"", args), _state(state)]
    if items is not None or pairs is not None:
        children.append(list(items or ()))
        given = list(pairs or ())
        children.append(Node(b"dict", [*(key for key, _ in given), *(one for _, one in given)], PAIRS))
    return Node(b"object", children, names=("", "", "", "", ""))


def _state(state: Any) -> Any:
    if state is None:
        return _attributes({})
    if type(state) is dict:
        return _attributes(state)
    if type(state) is tuple and len(state) == 2 and type(state[1]) is dict and type(state[0]) in {dict, type(None)}:
        return Node(b"slots", [_attributes(state[0] or {}), _attributes(state[1])], names=("", ""))
    return state


def _attributes(state: dict[Any, Any]) -> Node | Leaf:
    found = mapping(state)
    if found is not None:
        return Leaf(found)
    return Node(b"state", [*state, *state.values()], ATTRIBUTES)


def _article(kind: type) -> str:
    what = f"{module_of(kind)}.{kind.__qualname__}".removeprefix("builtins.")
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ---- files


class _Entry:
    """What lies under a name in a folder; `above`: the folders around it, against links that lead back."""

    __slots__ = ("above", "path")

    def __init__(self, path: str, above: frozenset[tuple[int, int]]) -> None:
        self.path = path
        self.above = above


def _path(value: os.PathLike[str]) -> Expansion:
    path = os.fspath(value)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a zero byte: there is no such file
        return pack(b"no file", [plain(path)])
    except OSError as error:
        raise Undigestible("", f"{path} can't be read ({_told(error)})") from error
    return Node(b"path", (path, _Entry(path, frozenset())), names=("", ""))


def _entry(value: _Entry) -> Expansion:
    from stat import S_ISDIR, S_ISREG

    try:
        found = os.stat(value.path)
        if S_ISDIR(found.st_mode):
            place = (found.st_dev, found.st_ino)
            if place in value.above:
                return pack(b"loop", [])
            above = value.above | {place}
            names = sorted(os.listdir(value.path))
            inside = [_Entry(os.path.join(value.path, name), above) for name in names]
            return Node(b"folder", [*names, *inside], PAIRS)
        if S_ISREG(found.st_mode):
            return pack(b"file", [_content(value.path, found.st_size)])
    except FileNotFoundError:  # a link that leads nowhere
        return pack(b"no file", [])
    except OSError as error:
        raise Undigestible("", f"{value.path} can't be read ({_told(error)})") from error
    raise Undigestible("", f"{value.path} is no regular file: reading it may change it")


def _content(path: str, size: int) -> bytes:
    """The encoding of a file's content.

    It is read, not mapped: if somebody cuts a mapped file short, the process dies.
    """
    work = hasher(0)
    room = memoryview(bytearray(min(_CHUNK, size + 1)))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(room):
            work.update(room[:count])
    return b"B" + work.digest()


_LATER: WeakKeyDictionary[type, Expand] = WeakKeyDictionary()  # the program may make classes without end
_KNOWN: dict[type, Expand] = {
    list: _list,
    tuple: _tuple,
    dict: _dict,
    set: _set,
    frozenset: _frozenset,
    bytearray: _bytearray,
    memoryview: _memoryview,
    complex: _marshalled,
    type(...): _marshalled,
    range: _range,
    slice: _slice,
    MappingProxyType: _mapping_proxy,
    MethodType: _method,
    BuiltinFunctionType: _builtin,
    FunctionType: _is_code,
    CodeType: _is_code,
    ModuleType: _is_code,
    type: _is_code,
    object: _identity,
    property: _property,
    staticmethod: _wrapped,
    classmethod: _wrapped,
    _Entry: _entry,
}

_BY_NAME: dict[tuple[str, str], Expand] = {  # of classes that need not be loaded
    ("collections", "OrderedDict"): _ordered_dict,
    ("enum", "Enum"): _enum,
    ("functools", "cached_property"): _cached_property,
    ("functools", "partial"): _partial,
    ("pathlib", "Path"): _path,
    ("pathlib._local", "Path"): _path,  # Python 3.13
    ("woflo.runners.base", "BaseTaskRun"): _run,
    ("weakref", "WeakKeyDictionary"): _weak,
    ("weakref", "WeakValueDictionary"): _weak,
    ("_weakrefset", "WeakSet"): _weak,
    ("woflo.task", "Task"): _is_code,
}
