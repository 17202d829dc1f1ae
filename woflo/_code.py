"""What code a function depends on in the project, and a digest of it.

From a function the names that its byte code looks up lead to other functions, classes, modules and values, and so on. What
is met:

- of the project: its code, defaults, closure, and the names that it looks up in turn;
- of an installed package: the package's version; of Python's library: Python's version;
- a value: its digest at this time (`_fingerprint`); one that can't be digested (a lock, an open client) counts by its type
  and its name only, and is listed in `Code.loose`.

What doesn't count: names that are only known at run time (`getattr(module, name)`, `eval`), the names and places of files,
docstrings, annotations.

    code_of(fn) ──→ still as before? (identities) ──→ the Code of the last time
                └─→ _Survey: from name to name, breadth first ──→ Code
"""

from __future__ import annotations

import sys
from functools import partial
from marshal import dumps as _marshal
from operator import is_
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from weakref import ref

from woflo import _bytecode
from woflo._fingerprint import Undigestible, cache_key, digest, expand, named
from woflo._merkle import PLAIN, Leaf, Node, fold, pack, plain
from woflo._origin import PACKAGE, PROJECT, file_of, origin, python_version, version_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from woflo._bytecode import Import, Name

__all__ = ["Code", "as_value", "changed", "code_of"]

_SHORT = 16  # hexadecimal digits of a part's digest: enough to see that it changed
_ABSENT = object()
_NO_CONTENT = frozenset(
    {"__builtins__", "__doc__", "__file__", "__loader__", "__name__", "__package__", "__path__", "__spec__"}
)  # names that a module has because of where it lies
_OF_THE_TEXT = frozenset(
    {
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
        "__qualname__",
        "__slotnames__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)  # fmt: skip - attributes that Python keeps of a class's text, or for itself
_DESCRIPTORS = (GetSetDescriptorType, MemberDescriptorType)
_FIXED = PLAIN | {complex, range, type(...)}  # types whose values never change


class Code:
    """What a function's result depends on besides its arguments.

    Attributes:
        digest: 64 hexadecimal digits.
        parts: what people call each part, and its short digest or version; the function itself comes first.
        loose: parts that hold something that can't be digested and counts by its type only.
    """

    __slots__ = ("digest", "loose", "parts")

    def __init__(self, digest: str, parts: dict[str, str], loose: tuple[str, ...] = ()) -> None:
        self.digest = digest
        self.parts = parts
        self.loose = loose

    def __repr__(self) -> str:
        return f"<Code {self.digest[:_SHORT]}: {', '.join(self.parts)}>"


def code_of(fn: Any, version: str | None = None) -> Code:
    """What code a function, method, partial, class, callable object or Task depends on.

    Args:
        fn: what is called.
        version: counts instead of all code.

    Raises:
        Undigestible: the object that a method is bound to, an argument of a partial, or a callable object holds what
            can't be digested.
    """
    known = _known.get(id(fn))
    if known is not None and known.fn() is fn and version is None and _holds(known):
        return known.code
    if _is_task(fn):
        return code_of(fn.fn, version or getattr(fn, "version", None))
    if version is not None:
        name = _name(fn)
        return Code(cache_key("version", name, version), {"version": version})
    if type(fn) is not FunctionType and not isinstance(fn, type):
        return _bound(fn)
    survey = _Survey(fn)
    code = survey.run()
    key = id(fn)
    _known[key] = _Known(ref(fn, lambda _: _known.pop(key, None)), code, survey)
    return code


def changed(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """What of a function's code is not as it was: its parts then and now, in one line.

    >>> changed({"train() itself": "a", "helper clean() in x.py": "b"}, {"train() itself": "a", "helper clean() in x.py": "c"})
    'helper clean() in x.py'
    """
    both = [label for label in new if label in old and old[label] != new[label]]
    found = both or [label for label in new if label not in old] or [label for label in old if label not in new]
    if not found:
        return "which of its parts is called by which name"
    first = min(found, key=_rank)
    if first in _VERSIONED or first.startswith("package "):
        text = f"{first} ({old.get(first, 'none')} → {new.get(first, 'none')})"
    else:
        text = first
    return text if len(found) == 1 else f"{text}, and {len(found) - 1} more"


_VERSIONED = ("version", "Python")


def _rank(label: str) -> int:
    """A new Python changes all byte code; else what the user wrote comes before what he installed."""
    if label in _VERSIONED:
        return 0
    return 2 if label.startswith("package ") else 1


# ---- remembered


class _Known:
    """A Code, and what has to be the same for it to hold."""

    __slots__ = ("builtins", "cells", "classes", "code", "fn", "functions", "names", "values")

    def __init__(self, fn: ref[Any], code: Code, survey: _Survey) -> None:
        self.fn = fn
        self.code = code
        self.names = survey.names
        self.builtins = [(space.keys(), tuple(names)) for space, names in survey.builtins.values()]
        self.functions = survey.functions
        self.cells = survey.cells
        self.classes = survey.classes
        self.values = survey.values


_known: dict[int, _Known] = {}  # by the function's id


def _holds(known: _Known) -> bool:
    for fn, code, defaults, by_name in known.functions:
        if fn.__code__ is not code or fn.__defaults__ is not defaults or fn.__kwdefaults__ is not by_name:
            return False
    for space, name, value in known.names:
        if space.get(name, _ABSENT) is not value:
            return False
    for keys, names in known.builtins:
        if not keys.isdisjoint(names):
            return False
    for cell, value in known.cells:
        if _content(cell) is not value:
            return False
    for cls, values in known.classes:
        now = vars(cls)
        if len(now) != len(values) or not all(map(is_, now.values(), values)):
            return False
    return all(_loosely(value) == before for value, before in known.values)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _ABSENT


# ---- values in which code may be


class _Holdings:
    """Folds a value, by name where it holds code or what can't be digested, and keeps what it met of these."""

    def __init__(self) -> None:
        self.met: list[Any] = []
        self.loose: list[str] = []

    def expand(self, value: Any) -> bytes | Node:
        try:
            return expand(value, self._code)
        except Undigestible:
            kind = type(value)
            self.loose.append(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))
            inside = getattr(value, "__wrapped__", None)
            return Node(b"loose", (kind, inside if isinstance(inside, FunctionType) else None))

    def _code(self, value: Any) -> bytes | Node:
        if isinstance(value, CodeType):
            return _bytecode.read(value).encoding
        if _is_task(value):
            version = getattr(value, "version", None)
            return Node(b"task", (value.fn,) if version is None else (value.name, version))
        self.met.append(value)
        if isinstance(value, FunctionType):
            return _function(value)
        if isinstance(value, ModuleType):
            return named(value.__name__, "")
        return named(value.__module__, value.__qualname__)


def _function(fn: FunctionType) -> Node:
    """A function as a value: what it does and what it brings with it; what it looks up is not part of it."""
    module = _module_of(fn)
    does = _bytecode.read(fn.__code__).encoding if origin(module) == PROJECT else b""
    cells = tuple(_content(cell) for cell in fn.__closure__ or ())
    bound = Node(b"cells", [Leaf(b"") if one is _ABSENT else one for one in cells])
    return Node(
        b"function", (Leaf(named(module, fn.__qualname__)), Leaf(does), fn.__defaults__, fn.__kwdefaults__, bound)
    )


def _loosely(value: Any) -> bytes:
    return fold(value, _Holdings().expand)


def as_value(value: Any) -> bytes | Node:
    """What code as a value consists of: for `digest`, by its Code and by what it brings with it.

    What is bound to a function when it is made (closure, defaults) has to be digestible.
    """
    if isinstance(value, CodeType):
        return _bytecode.read(value).encoding
    if isinstance(value, ModuleType):
        return pack(b"module", [plain(value.__name__), plain(_Survey(value).run().digest)])
    name = named(str(getattr(value, "__module__", "")), str(getattr(value, "__qualname__", _name(value))))
    leaf = Leaf(pack(b"code of", [name, plain(code_of(value).digest)]))
    if not isinstance(value, FunctionType) or not (value.__closure__ or value.__defaults__ or value.__kwdefaults__):
        return leaf.encoding
    cells = [_content(cell) for cell in value.__closure__ or ()]
    bound = Node(
        b"cells",
        [Leaf(b"") if one is _ABSENT else one for one in cells],
        names=[f".{name}" for name in value.__code__.co_freevars],
    )
    names = ("", ".__defaults__", ".__kwdefaults__", "")
    return Node(b"function with values", (leaf, value.__defaults__, value.__kwdefaults__, bound), names=names)


# ---- the survey


class _Survey:
    """One way through all that a function leads to; everything met is numbered in the order in which it is found."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._found: list[Any] = []  # functions, classes and modules; it grows
        self._numbers: dict[int, int] = {}  # by id
        self._told: list[Any] = []  # plain values: what is digested
        self._parts: dict[str, list[bytes]] = {}
        self._versions: dict[str, str] = {"Python": python_version()}
        self._loose: dict[str, None] = {}
        self.names: list[tuple[Any, str, Any]] = []
        self.builtins: dict[int, tuple[Any, list[str]]] = {}
        self.functions: list[tuple[FunctionType, CodeType, Any, Any]] = []
        self.cells: list[tuple[CellType, Any]] = []
        self.classes: list[tuple[type, tuple[Any, ...]]] = []
        self.values: list[tuple[Any, bytes]] = []

    def run(self) -> Code:
        self._meet(self._root)
        return self.finish()

    def finish(self) -> Code:
        for one in self._found:
            if isinstance(one, FunctionType):
                self._function(one)
            elif isinstance(one, type):
                self._class(one)
            else:
                self._module(one)
        versions = [part for pair in sorted(self._versions.items()) for part in pair]
        digest = cache_key("code", _marshal(self._told, 2), *versions)
        parts = {label: cache_key(*sorted(found))[:_SHORT] for label, found in self._parts.items()}
        return Code(digest, {**parts, **self._versions}, tuple(self._loose))

    # -- what is met

    def _meet(self, value: Any) -> int:
        """The number of a function, class or module."""
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._found)
            self._found.append(value)
        return number

    def _part(self, label: str, content: bytes) -> None:
        self._parts.setdefault(label, []).append(content)

    def _outside(self, module: str) -> bool:
        """Whether a module is not the project's; then its version counts."""
        whose = origin(module)
        if whose == PACKAGE:
            root = module.partition(".")[0]
            self._versions[f"package {root}"] = version_of(root)
        return whose != PROJECT

    def tell(self, value: Any, label: str, name: str = "") -> None:
        """What stands behind a name: something that is met, or a value."""
        if _is_task(value):
            version = getattr(value, "version", None)
            if version is not None:
                self._told += ["task", value.name, version]
                self._part(label, plain(version))
                return
            self.names.append((vars(value), "fn", value.fn))
            value = value.fn
        if isinstance(value, (FunctionType, ModuleType)) or (
            isinstance(value, type) and not self._outside(value.__module__)
        ):
            self._told += ["met", self._meet(value)]
            if name and not isinstance(value, ModuleType) and value.__name__ != name:
                self._part(label, named(_module_of(value), value.__qualname__))
        else:
            self._value(value, label)

    def _value(self, value: Any, label: str) -> None:
        holdings = _Holdings()
        found = fold(value, holdings.expand)
        self._told.append(found)
        for one in sorted(holdings.met, key=_order):
            if not isinstance(one, type) or not self._outside(one.__module__):
                self._told += ["met", self._meet(one)]
        for kind in holdings.loose:
            self._loose[f"{label} ({kind})"] = None
        if not isinstance(value, type) and not _is_builtin(value):
            self._part(label, found)
        if _is_builtin(value):
            self._outside(value.__module__ or "builtins")
            self._part(label, found)
        elif type(value) not in _FIXED:
            self.values.append((value, found))

    # -- what it consists of

    def _function(self, fn: FunctionType) -> None:
        code, module = fn.__code__, _module_of(fn)
        label = self._label(fn)
        self.functions.append((fn, code, fn.__defaults__, fn.__kwdefaults__))
        self._told += ["function", fn.__name__]
        of = "" if fn is self._root else f" of {fn.__name__}()"
        if self._outside(module):
            self._told += [module, fn.__qualname__]
        else:
            reading = _bytecode.read(code)
            self._told.append(reading.encoding)
            self._part(label, reading.encoding)
            for reference in reading.references:
                self._look_up(reference, fn.__globals__)
            defaults = fn.__defaults__ or ()
            names = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
            by_name = fn.__kwdefaults__ or {}
            for name, value in [*zip(names, defaults, strict=False), *sorted(by_name.items())]:
                self._told += ["default", name]
                self.tell(value, f"default of {name!r}{of}")
        for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=False):
            value = _content(cell)
            self.cells.append((cell, value))
            self._told += ["cell", name]
            if value is not _ABSENT:
                self.tell(value, f"closure variable {name}{of}")

    def _class(self, cls: type) -> None:
        label, file = self._label(cls), file_of(cls.__module__)
        before = len(self._told)
        self.classes.append((cls, tuple(vars(cls).values())))
        self._told += ["class", cls.__module__, cls.__qualname__, type(cls).__qualname__]
        for base in (type(cls), *cls.__bases__):
            self._told.append(named(base.__module__, base.__qualname__))
        self._part(label, _marshal(self._told[before:], 2))
        for base in (type(cls), *cls.__bases__):
            self.tell(base, label)
        for name, value in sorted(vars(cls).items()):
            if name in _OF_THE_TEXT or isinstance(value, _DESCRIPTORS):
                continue
            self._told += ["attribute", name]
            for one in _unwrapped(value):
                self._told.append(type(value).__name__)
                self.tell(one, f"attribute {name} of class {cls.__qualname__} in {file}")
        for field in vars(cls).get("__dataclass_fields__", {}).values():
            flags = (field.name, field.init, field.repr, field.hash, field.compare, field.kw_only)
            self.tell((flags, dict(field.metadata)), f"field {field.name} of class {cls.__qualname__} in {file}")

    def _module(self, module: ModuleType) -> None:
        """A module as a whole: it is handed to something, and any of its names may be used."""
        self._told += ["module", module.__name__]
        if self._outside(module.__name__):
            return
        for name, value in sorted(vars(module).items()):
            if name not in _NO_CONTENT and not isinstance(value, ModuleType):
                self._told.append(name)
                self.names.append((vars(module), name, value))
                self.tell(value, f"global {name} in {file_of(module.__name__)}", name)

    def _label(self, value: Any) -> str:
        """What people call a function or class of the project."""
        itself = value is self._root
        if isinstance(value, type):
            what = f"class {value.__qualname__}"
            return f"{what} itself" if itself else f"{what} in {file_of(value.__module__)}"
        owner, _, name = value.__qualname__.rpartition(".")
        if itself:
            return f"{name}() itself"
        place = f" in {file}" if (file := file_of(_module_of(value))) else ""
        if owner and not owner.endswith("<locals>"):
            return f"method {name}() of class {owner}{place}"
        return f"helper {name}(){place}"

    # -- names

    def _look_up(self, reference: Name | Import, space: dict[str, Any]) -> None:
        """Tell what stands behind a name that a function looks up."""
        if isinstance(reference, _bytecode.Import):
            self._import(reference, space)
            return
        name, *chain = reference.chain
        if name in _NO_CONTENT:
            return
        self._told += ["name", *reference.chain]
        value = space.get(name, _ABSENT)
        if value is _ABSENT:
            builtins = space.get("__builtins__", {})
            known = builtins if isinstance(builtins, dict) else vars(builtins)
            self._told.append("builtin" if name in known else "undefined")
            if name in known:
                self.builtins.setdefault(id(space), (space, []))[1].append(name)
            else:
                self.names.append((space, name, _ABSENT))
            return
        self.names.append((space, name, value))
        self._follow(value, chain, str(space.get("__name__", "")), name)

    def _follow(self, value: Any, chain: list[str], module: str, name: str) -> None:
        """Tell what a chain of attributes leads to: through the project's modules, and one step into functions."""
        label = f"global {name} in {file_of(module)}"
        for attribute in chain:
            if isinstance(value, FunctionType):
                if attribute in vars(value):
                    self._told.append(attribute)
                    self.names.append((vars(value), attribute, vars(value)[attribute]))
                    self.tell(vars(value)[attribute], f"attribute {attribute} of {value.__name__}()")
                break
            if not isinstance(value, ModuleType):
                break
            module, name = value.__name__, attribute
            if self._outside(module):
                self._told += ["module", module]
                return
            label = f"global {name} in {file_of(module)}"
            self.names.append((vars(value), name, vars(value).get(name, _ABSENT)))
            value = _attribute(value, name)
            if value is _ABSENT:
                self._told.append("undefined")
                return
        self.tell(value, label, name)

    def _import(self, reference: Import, space: dict[str, Any]) -> None:
        name = _absolute(reference, space)
        chain = [*reference.chain]
        self._told += ["import", name, *chain]
        if self._outside(name):
            return
        module = _imported(name)
        if module is None:
            self._told.append("undefined")
        elif chain != [""]:
            self._follow(module, chain, name, name)


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except Exception:  # of a module's own __getattr__, too
        return _imported(f"{module.__name__}.{name}") or _ABSENT


def _imported(name: str) -> ModuleType | None:
    """A module of the project, imported as the function would."""
    found = sys.modules.get(name)
    if found is None:
        from importlib import import_module

        try:
            found = import_module(name)
        except Exception:  # whatever it raises, it will raise it in the function
            return None
    return found


def _absolute(reference: Import, space: dict[str, Any]) -> str:
    if not reference.level:
        return reference.module
    package = space.get("__package__") or str(space.get("__name__", "")).rpartition(".")[0]
    base = package.rsplit(".", reference.level - 1)[0]
    return f"{base}.{reference.module}" if reference.module else base


def _unwrapped(value: Any) -> tuple[Any, ...]:
    """The functions in what a class makes of functions."""
    if isinstance(value, (staticmethod, classmethod)):
        return (value.__func__,)
    if isinstance(value, property):
        return (value.fget, value.fset, value.fdel)
    return (value,)


def _order(value: Any) -> tuple[str, str, bytes]:
    """An order of code that doesn't depend on where it was found."""
    if isinstance(value, ModuleType):
        return value.__name__, "", b""
    does = _bytecode.read(value.__code__).encoding if isinstance(value, FunctionType) else b""
    return str(value.__module__), value.__qualname__, does


def _module_of(value: Any) -> str:
    """Where code was written; a decorator may have given a function the module of another one."""
    if isinstance(value, FunctionType):
        return str(value.__globals__.get("__name__", ""))
    return str(value.__module__)


def _is_builtin(value: Any) -> bool:
    return isinstance(value, BuiltinFunctionType) and (value.__self__ is None or isinstance(value.__self__, ModuleType))


def _is_task(value: Any) -> bool:
    module = sys.modules.get("woflo.task")
    return module is not None and isinstance(value, module.Task)


def _name(value: Any) -> str:
    return str(getattr(value, "__name__", None) or type(value).__name__)


def _bound(fn: Any) -> Code:
    """The Code of what is called with more than its arguments: of a method, a partial, a callable object; of C code."""
    label = f"{_name(fn)} itself"
    digests: list[bytes | str] = []
    if isinstance(fn, MethodType):
        inner, label = code_of(fn.__func__), "the object it is bound to"
        values = {label: fn.__self__}
    elif isinstance(fn, partial):
        inner = code_of(fn.func)
        values = {f"argument {place} of the partial": value for place, value in enumerate(fn.args, 1)}
        values |= {f"argument {name!r} of the partial": value for name, value in sorted(fn.keywords.items())}
    else:
        survey = _Survey(None)
        survey.tell(fn, label)
        inner, values = survey.finish(), {} if _is_builtin(fn) else {label: fn}
    parts = dict(inner.parts)
    for name, value in values.items():
        found = digest(value, name)
        digests += [name, found]
        parts[name] = found.hex()[:_SHORT]
    return Code(cache_key("bound", inner.digest, *digests), parts, inner.loose)
