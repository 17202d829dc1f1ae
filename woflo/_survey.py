"""From a function by the names that its byte code looks up to all that it depends on, breadth first.

What is met counts

- of the project: by its code, its defaults, its closure, and what it looks up in turn;
- of an installed package: by the package's version; of Python's library: by Python's version;
- a value: by its digest at this time; a part of it that can't be digested (a lock, an open client) by its type only; a path
  by its text, but by what is there if it is a default.

What doesn't count: names that are only known at run time (`getattr(module, name)`, `eval`), names and places of files,
docstrings and annotations. What the survey has found is told in the order in which it was found, so that one digest means one
such graph of code, whatever the names in it.
"""

from __future__ import annotations

import sys
from marshal import dumps as _marshal
from types import BuiltinFunctionType, CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType

from woflo import _bytecode
from woflo._fingerprint import Undigestible, cache_key, digest, expand, named
from woflo._merkle import PLAIN, Leaf, Node, fold, pack, plain
from woflo._origin import PACKAGE, PROJECT, compiled_file, file_of, module_of, origin, python_version, version_of
from woflo._watch import ABSENT, ATTRIBUTE, CELL, DEFAULT, GLOBAL, LOADED, PART, Place, Watch, content_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from woflo._bytecode import Import, Name

__all__ = ["SHORT", "Survey", "is_a", "is_builtin", "is_task", "wrapped_in", "written_in"]

SHORT = 16  # hexadecimal digits of a part's digest: enough to see that it changed

_NO_CONTENT = frozenset(
    {
        "__annotations__",
        "__builtins__",
        "__cached__",
        "__doc__",
        "__file__",
        "__loader__",
        "__name__",
        "__package__",
        "__path__",
        "__spec__",
    }
)  # names that a module has because of where it lies
_OF_THE_TEXT = frozenset(
    {
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__conditional_annotations__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
        "__qualname__",
        "__signature__",
        "__slotnames__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)  # fmt: skip - attributes that Python keeps of a class's text, or for itself
_MOST_DECORATORS = 100  # of one function, one round the other; more are a circle
_DESCRIPTORS = (GetSetDescriptorType, MemberDescriptorType)
_FIXED = PLAIN | {BuiltinFunctionType, complex, range, type(...)}  # types whose values never change
_MADE_OF = {staticmethod: ("__func__",), classmethod: ("__func__",), property: ("fget", "fset", "fdel")}
_CONTAINERS = {"collections", "functools", "types"}  # modules of Python whose objects are no more than what is in them


class Survey:
    """One survey.

    Attributes:
        digest: of all that was found, when it is done; 64 hexadecimal digits.
        parts: what people call each part, and its short digest or version; what was asked about comes first.
        loose: the parts that hold something that can't be digested.
        watch: what has to be as it was for this to hold.
    """

    def __init__(self) -> None:
        self.digest = ""
        self.parts: dict[str, str] = {}
        self.loose: tuple[str, ...] = ()
        self.watch = Watch(holdings)
        self._root: Any = None  # what is called itself
        self._found: list[Any] = []  # functions, classes and modules; it grows
        self._numbers: dict[int, int] = {}  # by id
        self._told: list[Any] = []  # plain values: what is digested
        self._pieces: dict[str, list[bytes]] = {}  # of the parts, by their label
        self._versions: dict[str, str] = {"Python": python_version()}
        self._elsewhere: dict[str, bool] = {}  # by the module's name: whether it isn't the project's
        self._loose: dict[str, None] = {}

    def of(self, function: Any) -> Survey:
        """Survey a function, a class or a module."""
        self._root = function
        for _ in range(_MOST_DECORATORS):
            inside = wrapped_in(self._root)
            if inside is None:
                break
            self._root = inside  # what people call by its name is what a decorator was put on
        self._meet(function)
        return self._finish()

    def behind(self, value: Any, label: str) -> Survey:
        """Survey the code in any other value."""
        self._tell(value, label, None)
        return self._finish()

    def _finish(self) -> Survey:
        for one in self._found:
            if is_a(one, FunctionType):
                self._function(one)
            elif is_a(one, type):
                self._class(one)
            else:
                self._module(one)
        self.watch.done()
        versions = [part for pair in sorted(self._versions.items()) for part in pair]
        self.digest = cache_key("code", _marshal(self._told, 2), *versions)
        self.parts = {label: cache_key(*sorted(pieces))[:SHORT] for label, pieces in self._pieces.items()}
        self.parts |= self._versions
        self.loose = tuple(self._loose)
        return self

    # ---- what is met

    def _meet(self, value: Any) -> int:
        """The number of a function, class or module."""
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._found)
            self._found.append(value)
        return number

    def _part(self, label: str, piece: bytes) -> None:
        self._pieces.setdefault(label, []).append(piece)

    def _outside(self, module: str) -> bool:
        """Whether a module is not the project's; then its version counts, and of a compiled one of the project its file."""
        if not module:  # made by exec, without a name: the program's own
            return False
        known = self._elsewhere.get(module)
        if known is None:
            whose = origin(module)
            known = self._elsewhere[module] = whose != PROJECT
            if whose == PACKAGE:
                root = module.partition(".")[0]
                self._versions[f"package {root}"] = version_of(root)
            elif not known and (path := compiled_file(module)) is not None:
                self._versions[f"compiled module {file_of(module)}"] = digest(path).hex()[:SHORT]
        return known

    def _tell(self, value: Any, label: str, place: Place | None, name: str = "") -> None:
        """What stands behind a name: code, which is met, or a value."""
        code = value
        if is_task(value):
            version = getattr(value, "version", None)
            if version is not None:
                self._told += ["task", value.name, version]
                self._part(label, plain(version))
                if place is not None:
                    self.watch.weakly(place, value)
                return
            self._told.append("task")
            code = value.fn
        is_code = is_a(code, (FunctionType, ModuleType, type))
        if is_a(code, type) and self._outside(module_of(code)):
            self._told.append(named(module_of(code), code.__qualname__))
        elif is_code:
            self._told += ["met", self._meet(code)]
            if name and not is_a(code, ModuleType) and code.__name__ != name:
                self._part(label, named(written_in(code), code.__qualname__))
        else:
            self._value(code, label, place if code is value else None)
        if place is not None and (is_code or code is not value):
            self.watch.weakly(place, value)

    def _value(self, value: Any, label: str, place: Place | None) -> None:
        files = place is not None and place.kind == DEFAULT
        encoding, met, loose = _held(value, files)
        self._told.append(encoding)
        for one in sorted(met, key=_order):
            if not is_a(one, type) or not self._outside(module_of(one)):
                self._told += ["met", self._meet(one)]
        self._loose.update(dict.fromkeys(f"{label} ({kind})" for kind in loose))
        self._part(label, encoding)
        self._outside(module_of(type(value)))
        self._outside(module_of(value))
        if place is not None:
            if type(value) in _FIXED:
                self.watch.same(place, value)
            else:
                self.watch.content(place, encoding, met, files)

    # ---- what it consists of

    def _function(self, fn: FunctionType) -> None:
        module = written_in(fn)
        self.watch.function(fn)
        self._told += ["function", fn.__name__]
        if self._outside(module):
            self._told += [module, fn.__qualname__]
        else:
            reading = _bytecode.read(fn.__code__)
            self._told.append(reading.encoding)
            self._part(self._label(fn), reading.encoding)
            self._defaults(fn)
            for reference in reading.references:
                if isinstance(reference, _bytecode.Import):
                    self._import(reference, fn)
                else:
                    self._look_up(reference, fn)
        for index, name in enumerate(fn.__code__.co_freevars):
            value = content_of((fn.__closure__ or ())[index])
            self._told += ["cell", name]
            if value is not ABSENT:
                self._tell(value, f"closure variable {name}{self._of(fn)}", Place(CELL, fn, index))

    def _defaults(self, fn: FunctionType) -> None:
        code, values = fn.__code__, fn.__defaults__ or ()
        names = code.co_varnames[: code.co_argcount][-len(values) :] if values else ()
        keyed: list[tuple[str, Any, Any]] = [
            *((name, place, value) for place, (name, value) in enumerate(zip(names, values, strict=False))),
            *((name, name, value) for name, value in sorted((fn.__kwdefaults__ or {}).items())),
        ]
        for name, key, value in keyed:
            self._told += ["default", name]
            self._tell(value, f"default of {name!r}{self._of(fn)}", Place(DEFAULT, fn, key))

    def _class(self, cls: type) -> None:
        file, bases = file_of(module_of(cls)), (type(cls), *cls.__bases__)
        told = ["class", module_of(cls).replace("__mp_main__", "__main__"), cls.__qualname__]
        told += [part for base in bases for part in (module_of(base), base.__qualname__)]
        self._part(self._label(cls), _marshal(told, 2))
        self._told += told
        self.watch.attributes(cls)
        for base in bases:
            self._tell(base, "", None)
        for name, value in sorted(vars(cls).items(), key=_by_name):
            if name in _OF_THE_TEXT or is_a(value, _DESCRIPTORS) or _is_derived(name):
                continue
            label, place = f"attribute {name} of class {cls.__qualname__} in {file}", Place(ATTRIBUTE, cls, name)
            self._told += ["attribute", name, type(value).__name__]
            for part in _MADE_OF.get(type(value), ()):
                inside = getattr(value, part)
                if inside is not None:
                    self._tell(inside, label, Place(PART, cls, (name, part)))
            if type(value) not in _MADE_OF:
                self._tell(value, label, place)
        for field in vars(cls).get("__dataclass_fields__", {}).values():
            flags = (field.name, field.init, field.repr, field.hash, field.compare, field.kw_only)
            self._value(
                (flags, dict(field.metadata)), f"field {field.name} of class {cls.__qualname__} in {file}", None
            )

    def _module(self, module: ModuleType) -> None:
        """A module as a whole: it is handed to something, and any of its names may be used."""
        self._told += ["module", module.__name__]
        if self._outside(module.__name__):
            return
        self.watch.attributes(module)
        for name, value in sorted(vars(module).items(), key=_by_name):
            if not is_a(value, ModuleType) and (
                name == "__getattr__" or not (name.startswith("__") and name.endswith("__"))
            ):
                self._told.append(name)
                place = Place(ATTRIBUTE, module, name)
                self._tell(value, f"global {name} in {file_of(module.__name__)}", place, name)

    def _label(self, value: Any) -> str:
        """What people call a function or class of the project."""
        if is_a(value, type):
            what = f"class {value.__qualname__}"
            return f"{what} itself" if value is self._root else f"{what} in {file_of(module_of(value))}"
        # What functools.wraps made has the name of what is inside it.
        qualname = value.__code__.co_qualname if hasattr(value, "__wrapped__") else value.__qualname__
        owner, _, name = qualname.rpartition(".")
        if value is self._root:
            return f"{name}() itself"
        file = file_of(written_in(value))
        where = f" in {file}" if file else ""
        if owner and not owner.endswith("<locals>"):
            return f"method {name}() of class {owner}{where}"
        return f"helper {name}(){where}"

    def _of(self, fn: FunctionType) -> str:
        return "" if fn is self._root else f" of {fn.__name__}()"

    # ---- names

    def _look_up(self, reference: Name, fn: FunctionType) -> None:
        """Tell what stands behind a global name of a function."""
        space = fn.__globals__
        name, *chain = reference.chain
        if name in _NO_CONTENT:
            return
        self._told += ["name", *reference.chain]
        value = space.get(name, ABSENT)
        place = Place(GLOBAL, fn, name)
        if value is not ABSENT:
            self._follow(value, chain, str(space.get("__name__", "")), name, place)
            return
        builtins = space.get("__builtins__", {})
        if name in (builtins if type(builtins) is dict else vars(builtins)):
            self._told.append("builtin")
            self.watch.builtin(fn, name)
        else:
            self._told.append("undefined")
            self.watch.same(place, ABSENT)

    def _follow(self, value: Any, chain: Sequence[str], module: str, name: str, place: Place | None) -> None:
        """Tell what attributes lead to: from one module of the project to the next, and one step into a function."""
        for attribute in chain:
            if is_a(value, FunctionType) and attribute in vars(value):
                self._told.append(attribute)
                label = f"attribute {attribute} of {value.__name__}()"
                self._tell(vars(value)[attribute], label, Place(ATTRIBUTE, value, attribute))
            if not is_a(value, ModuleType):
                break
            module, name = value.__name__, attribute
            if place is not None:
                self.watch.weakly(place, value)
            if self._outside(module):
                self._told += ["module", module]
                return
            place = Place(ATTRIBUTE, value, name)
            value = _attribute(value, name)
            if value is ABSENT:
                self._told.append("undefined")
                self.watch.same(place, ABSENT)
                return
        self._tell(value, f"global {name} in {file_of(module)}", place, name)

    def _import(self, reference: Import, fn: FunctionType) -> None:
        name = _absolute(reference, fn.__globals__)
        self._told += ["import", name, *reference.chain]
        if self._outside(name):
            return
        module = _imported(name)
        place = Place(LOADED, fn, name)
        if module is None:
            self._told.append("undefined")
            self.watch.same(place, ABSENT)
        elif reference.chain != ("",):
            self._follow(module, reference.chain, name, name, place)


# ---- values in which code may be


def holdings(value: Any, files: bool) -> tuple[bytes, list[Any]]:
    """The encoding of a value, in which code counts by name, and that code; `files`: a path counts by what is there."""
    encoding, met, _ = _held(value, files)
    return encoding, met


def _held(value: Any, files: bool) -> tuple[bytes, list[Any], list[str]]:
    """The encoding of a value, the code in it, and the types of what can't be digested: they count by name."""
    holdings = _Holdings(files)
    try:
        return fold(value, holdings.expand), holdings.met, holdings.loose
    except Undigestible:  # a set that leads back to itself
        kind = type(value)
        return named(module_of(kind), kind.__qualname__), holdings.met, [*holdings.loose, _called(kind)]


class _Holdings:
    """What a value consists of, without what can't be digested, and with code by its name only."""

    def __init__(self, files: bool) -> None:
        self.met: list[Any] = []
        self.loose: list[str] = []
        self._files = files

    def expand(self, part: Any) -> bytes | Node:
        try:
            found = self._strictly(part)
            if type(found) is Node and found.label == b"object" and _is_live(type(part)):
                return fold(part, self._strictly)  # all of it or nothing: the rest of a client says nothing about it
        except (Undigestible, RecursionError):
            kind = type(part)
            self.loose.append(_called(kind))
            return Node(b"loose", (kind, wrapped_in(part)))
        return found

    def _strictly(self, part: Any) -> bytes | Node:
        if not self._files and _is_path(part):
            return pack(b"path", [plain(str(part))])
        return expand(part, self._by_name)

    def _by_name(self, code: Any) -> bytes | Node:
        if is_a(code, CodeType):
            return _bytecode.read(code).encoding
        if is_task(code):
            version = getattr(code, "version", None)
            return Node(b"task", (code.fn,) if version is None else (code.name, version))
        self.met.append(code)
        if is_a(code, FunctionType):
            return _bare(code)
        return named(code.__name__, "") if is_a(code, ModuleType) else named(module_of(code), code.__qualname__)


def _called(kind: type) -> str:
    return f"{module_of(kind)}.{kind.__qualname__}".removeprefix("builtins.")


def _is_live(kind: type) -> bool:
    """Whether an object may be a connection to something: those of others' classes, but for containers."""
    return module_of(kind) not in _CONTAINERS and origin(module_of(kind)) != PROJECT


def _is_path(value: Any) -> bool:
    pathlib = sys.modules.get("pathlib")
    return pathlib is not None and is_a(value, pathlib.PurePath)


def _bare(fn: FunctionType) -> Node:
    """A function among values: what it does and what it brings with it; what it looks up isn't part of it."""
    module = written_in(fn)
    does = _bytecode.read(fn.__code__).encoding if origin(module) == PROJECT else b""
    cells = [content_of(cell) for cell in fn.__closure__ or ()]
    bound = Node(b"cells", [Leaf(b"") if one is ABSENT else one for one in cells])
    name = Leaf(named(module, fn.__qualname__))
    return Node(b"function", (name, Leaf(does), fn.__defaults__, fn.__kwdefaults__, bound))


def _is_derived(name: str) -> bool:
    """Whether an attribute of a class is what pydantic has made of its fields and validators: with addresses in it."""
    return name.startswith("__pydantic_") and name not in {"__pydantic_decorators__", "__pydantic_fields__"}


def _order(value: Any) -> tuple[str, str, bytes]:
    """An order of code that doesn't depend on where it was found."""
    if is_a(value, ModuleType):
        return value.__name__, "", b""
    does = _bytecode.read(value.__code__).encoding if is_a(value, FunctionType) else b""
    return module_of(value), value.__qualname__, does


# ---- modules


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name)
    except Exception:  # of a module's own __getattr__, too
        return _imported(f"{module.__name__}.{name}") or ABSENT


def _imported(name: str) -> ModuleType | None:
    """A module of the project, imported as the function would."""
    found = sys.modules.get(name)
    if found is None:
        from importlib import import_module

        try:
            found = import_module(name)
        except Exception:  # whatever it raises, the function will meet it
            return None
    return found


def _absolute(reference: Import, space: dict[str, Any]) -> str:
    """The full name of an imported module."""
    if not reference.level:
        return reference.module
    package = space.get("__package__") or str(space.get("__name__", "")).rpartition(".")[0]
    base = package.rsplit(".", reference.level - 1)[0]
    return f"{base}.{reference.module}" if reference.module else base


def written_in(code: Any) -> str:
    """Where code was written; a decorator may have given a function the module of another one."""
    return str(code.__globals__.get("__name__", "")) if is_a(code, FunctionType) else module_of(code)


def wrapped_in(value: Any) -> FunctionType | None:
    """The function that a decorator says it has wrapped."""
    try:
        inside = value.__wrapped__
    except Exception:  # of a proxy whose object isn't there, too
        return None
    return inside if type(inside) is FunctionType else None


def is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of one of these types, whatever it says of its class (mocks, proxies)."""
    return issubclass(type(value), kind)


def _by_name(attribute: tuple[Any, Any]) -> str:
    return str(attribute[0])


def is_builtin(value: Any) -> bool:
    """Whether this is a function of C code."""
    return is_a(value, BuiltinFunctionType) and (value.__self__ is None or is_a(value.__self__, ModuleType))


def is_task(value: Any) -> bool:
    """Whether this is a Task; there is none before its module is loaded."""
    module = sys.modules.get("woflo.task")
    return module is not None and is_a(value, module.Task)
