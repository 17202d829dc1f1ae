"""What has to be as it was for a survey of code to hold: a look at names, functions and values that takes no survey.

Nothing here keeps alive what was surveyed. Functions, classes and modules are held weakly; what can change in place isn't
held at all but looked at again where it was found.
"""

from __future__ import annotations

import sys
from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CellType, CodeType, FunctionType, ModuleType
    from typing import Any

    Content = Callable[[Any, bool], tuple[bytes, list[Any]]]

__all__ = ["ABSENT", "ATTRIBUTE", "CELL", "DEFAULT", "GLOBAL", "LOADED", "PART", "Place", "Watch", "content_of"]

ABSENT = object()  # stands for what isn't there
GLOBAL, ATTRIBUTE, PART, CELL, DEFAULT, LOADED = range(6)


class Place:
    """Where something was found.

    Attributes:
        kind: GLOBAL: a global name of a function; ATTRIBUTE: of a class or module; PART: an attribute of such an attribute; CELL:
            a variable of a closure; DEFAULT: of a parameter; LOADED: a module among all that are loaded.
        owner: the function, class or module, held weakly.
        key: the name; for PART two of them; for CELL and a default by position the number.
    """

    __slots__ = ("key", "kind", "owner")

    def __init__(self, kind: int, owner: Any, key: Any) -> None:
        self.kind = kind
        self.owner = ref(owner)
        self.key = key

    def now(self) -> Any:
        """What is found there now."""
        owner, key = self.owner(), self.key
        return ABSENT if owner is None else _WAYS[self.kind](owner, key)


def content_of(cell: CellType) -> Any:
    """What is in a cell; ABSENT before its variable is bound."""
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


def _default(fn: FunctionType, key: int | str) -> Any:
    values: Any = fn.__defaults__ if isinstance(key, int) else fn.__kwdefaults__
    return values[key]


_WAYS: tuple[Callable[[Any, Any], Any], ...] = (
    lambda fn, name: fn.__globals__.get(name, ABSENT),
    lambda owner, name: vars(owner).get(name, ABSENT),
    lambda owner, names: getattr(vars(owner).get(names[0]), names[1], ABSENT),
    lambda fn, number: content_of(fn.__closure__[number]),
    _default,
    lambda _, name: sys.modules.get(name, ABSENT),
)


class _Function:
    """A function as it was, and the global names whose meaning matters."""

    __slots__ = ("builtins", "by_name", "code", "defaults", "fixed", "fn", "weak")

    def __init__(self, fn: FunctionType) -> None:
        self.fn = ref(fn)
        self.code: CodeType = fn.__code__
        self.defaults = fn.__defaults__
        self.by_name = fn.__kwdefaults__
        self.fixed: list[tuple[str, Any]] = []
        self.weak: list[tuple[str, ref[Any]]] = []
        self.builtins: list[str] = []  # found nowhere else


class Watch:
    """What was found during a survey, and where."""

    __slots__ = ("_contents", "_counts", "_fixed", "_functions", "_latest", "_weak")

    def __init__(self) -> None:
        self._functions: list[_Function] = []
        self._latest: dict[int, _Function] = {}  # by the function's id, during the survey
        self._fixed: list[tuple[Place, Any]] = []
        self._weak: list[tuple[Place, ref[Any]]] = []
        self._counts: list[tuple[ref[Any], int, Any]] = []
        self._contents: list[tuple[Place, bytes, list[ref[Any]], bool]] = []

    def function(self, fn: FunctionType) -> None:
        """Its code and defaults matter."""
        found = self._latest[id(fn)] = _Function(fn)
        self._functions.append(found)

    def attributes(self, owner: type | ModuleType) -> None:
        """How many attributes a class or module has matters, and a class's bases."""
        self._counts.append((ref(owner), len(vars(owner)), getattr(owner, "__bases__", None)))

    def builtin(self, fn: FunctionType, name: str) -> None:
        """The name means a builtin as long as the module doesn't define it."""
        self._latest[id(fn)].builtins.append(name)

    def same(self, place: Place, value: Any) -> None:
        """It has to be this object, which can't change or holds nothing of the program's."""
        function = self._latest.get(id(place.owner())) if place.kind == GLOBAL else None
        if function is not None:
            function.fixed.append((place.key, value))
        else:
            self._fixed.append((place, value))

    def weakly(self, place: Place, value: Any) -> None:
        """It has to be this object."""
        function = self._latest.get(id(place.owner())) if place.kind == GLOBAL else None
        if function is not None:
            function.weak.append((place.key, ref(value)))
        else:
            self._weak.append((place, ref(value)))

    def content(self, place: Place, encoding: bytes, met: list[Any], files: bool) -> None:
        """What is found there has to be encoded like this, and the code in it has to be the same."""
        self._contents.append((place, encoding, [ref(one) for one in met], files))

    def done(self) -> None:
        """The survey is over."""
        self._latest.clear()

    def holds(self, content: Content) -> bool:
        """Whether all is as it was; `content` encodes a value and says what code is in it."""
        for one in self._functions:
            fn = one.fn()
            if (
                fn is None
                or fn.__code__ is not one.code
                or fn.__defaults__ is not one.defaults
                or fn.__kwdefaults__ is not one.by_name
            ):
                return False
            space = fn.__globals__
            for name, value in one.fixed:
                if space.get(name, ABSENT) is not value:
                    return False
            for name, held in one.weak:
                if space.get(name, ABSENT) is not held():
                    return False
            if one.builtins and not space.keys().isdisjoint(one.builtins):
                return False
        return not (self._fixed or self._weak or self._counts or self._contents) or self._rest_holds(content)

    def _rest_holds(self, content: Content) -> bool:
        for place, value in self._fixed:
            if place.now() is not value:
                return False
        for place, held in self._weak:
            if place.now() is not held():
                return False
        for kept, count, bases in self._counts:
            owner = kept()
            if owner is None or len(vars(owner)) != count or getattr(owner, "__bases__", None) != bases:
                return False
        for place, encoding, met, files in self._contents:
            value = place.now()
            if value is ABSENT or not _is_still(content(value, files), encoding, met):
                return False
        return True


def _is_still(now: tuple[bytes, list[Any]], encoding: bytes, met: list[ref[Any]]) -> bool:
    found, code = now
    if found != encoding or len(code) != len(met):
        return False
    return all(one is held() for one, held in zip(code, met, strict=True))
