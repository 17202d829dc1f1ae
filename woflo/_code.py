"""The Code of a function: what code of the project it depends on, with a digest, found once and then only looked at again.

code_of(fn) ──→ is all as it was (`_watch`)? ──→ the Code of the last time
            └─→ from name to name through the project (`_survey`) ──→ a new one
"""

from __future__ import annotations

from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from weakref import ref

from woflo import _bytecode
from woflo._fingerprint import cache_key, digest, named
from woflo._merkle import Leaf, Node, pack, plain
from woflo._origin import PACKAGE, PROJECT, origin, version_of
from woflo._survey import SHORT, Survey, is_a, is_builtin, is_task, wrapped_in, written_in
from woflo._watch import ABSENT, content_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["Code", "as_value", "changed", "code_of"]


class Code:
    """What a function's result depends on besides its arguments.

    Attributes:
        digest: 64 hexadecimal digits.
        parts: what people call each part, and its short digest or version; the function itself comes first.
        loose: parts that hold something that can't be digested (a lock, an open client) and counts by its type only.
    """

    __slots__ = ("digest", "loose", "parts")

    def __init__(self, digest: str, parts: dict[str, str], loose: tuple[str, ...] = ()) -> None:
        self.digest = digest
        self.parts = parts
        self.loose = loose

    def __repr__(self) -> str:
        return f"<Code {self.digest[:SHORT]}: {', '.join(self.parts)}>"


_known: dict[int, tuple[ref[Any], Callable[[], bool], Code]] = {}  # by the id of a function or class


def code_of(fn: Any, version: str | None = None) -> Code:
    """What code a function, method, partial, class, callable object or Task depends on.

    Args:
        fn: what is called.
        version: counts instead of all code.

    Raises:
        Undigestible: what fn brings with it (the object of a method, the arguments of a partial, the state of a callable
            object) can't be digested.
    """
    key = id(fn)
    known = _known.get(key)
    if known is not None and version is None:
        held, holds, code = known
        if held() is fn and holds():
            return code
    if is_task(fn):
        return code_of(fn.fn, getattr(fn, "version", None) if version is None else version)
    if version is not None:
        return Code(cache_key("version", _name(fn), version), {"version": version})
    if not is_a(fn, (FunctionType, type)):
        return _bound(fn)
    survey = Survey().of(fn)
    code = Code(survey.digest, survey.parts, survey.loose)
    _known[key] = ref(fn, lambda _: _known.pop(key, None)), survey.watch.holds, code
    return code


def _bound(fn: Any) -> Code:
    """The Code of what brings more than code: of a method, a partial, a callable object; and of C code."""
    values: dict[str, Any] = {}
    if is_a(fn, MethodType):
        inner = code_of(fn.__func__)
        values["the object it is bound to"] = fn.__self__
    elif is_a(fn, partial):
        inner = code_of(fn.func)
        values |= {f"argument {place} of the partial": value for place, value in enumerate(fn.args, 1)}
        values |= {f"argument {name!r} of the partial": value for name, value in sorted(fn.keywords.items())}
    else:
        label = f"{_name(fn)}() itself"
        survey = Survey().behind(fn, label)
        inner = Code(survey.digest, survey.parts, survey.loose)
        if not is_builtin(fn) and wrapped_in(fn) is None:
            values[label] = fn
    digests = {label: digest(value, label) for label, value in values.items()}
    parts = inner.parts | {label: found.hex()[:SHORT] for label, found in digests.items()}
    keys = [part for pair in digests.items() for part in pair]
    return Code(cache_key("bound", type(fn).__qualname__, inner.digest, *keys), parts, inner.loose)


def _name(value: Any) -> str:
    return str(getattr(value, "__name__", None) or type(value).__name__)


def as_value(value: Any) -> bytes | Node:
    """What code among other values consists of: its Code and what it brings with it, which has to be digestible."""
    if is_a(value, CodeType):
        return _bytecode.read(value).encoding
    if is_a(value, ModuleType):
        return pack(b"module", [plain(value.__name__), plain(Survey().of(value).digest)])
    if is_task(value):
        version = getattr(value, "version", None)
        return Node(b"task", (value.fn,) if version is None else (value.name, version), names=("", ""))
    module = written_in(value)
    whose, name = origin(module), named(module, value.__qualname__)
    if whose == PROJECT:
        leaf = Leaf(pack(b"code", [name, plain(code_of(value).digest)]))
    else:
        leaf = Leaf(pack(b"code of others", [name, plain(version_of(module) if whose == PACKAGE else "")]))
    if not is_a(value, FunctionType) or not (value.__closure__ or value.__defaults__ or value.__kwdefaults__):
        return leaf.encoding
    given = (value.__defaults__, value.__kwdefaults__) if whose == PROJECT else (None, None)
    cells = [content_of(cell) for cell in value.__closure__ or ()]
    found = [Leaf(b"") if one is ABSENT else one for one in cells]
    bound = Node(b"cells", found, names=[f".{name}" for name in value.__code__.co_freevars])
    names = ("", ".__defaults__", ".__kwdefaults__", "")
    return Node(b"function", (leaf, *given, bound), names=names)


# ---- the difference between two, in words


def changed(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """What of a function's code is not as it was: the parts of its Code then and now, in one line.

    >>> changed({"train() itself": "a1", "global N in x.py": "b2"}, {"train() itself": "a1", "global N in x.py": "c3"})
    'global N in x.py'
    """
    both = [label for label in new if label in old and old[label] != new[label]]
    found = both or [label for label in new if label not in old] or [label for label in old if label not in new]
    if not found:
        return "which of its parts goes by which name"
    first = min(found, key=_rank)
    text = f"{first} ({old.get(first, 'none')} → {new.get(first, 'none')})" if first.startswith(_VERSIONED) else first
    return text if len(found) == 1 else f"{text}, and {len(found) - 1} more"


_VERSIONED = ("version", "Python", "package ")


def _rank(label: str) -> int:
    """What is named first: a new Python changes all byte code; an edited function also changes the values that hold it."""
    if label in {"version", "Python"}:
        return 0
    if label.endswith(" itself"):
        return 1
    return 4 if label.startswith("package ") else 2 + label.startswith(("global ", "default ", "closure "))
