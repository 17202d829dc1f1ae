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
    from types import CellType, FunctionType, ModuleType
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
    """A function during a survey, and the global names whose meaning matters."""

    __slots__ = ("builtins", "fixed", "fn", "weak")

    def __init__(self, fn: FunctionType) -> None:
        self.fn = fn
        self.fixed: dict[str, Any] = {}
        self.weak: dict[str, ref[Any]] = {}
        self.builtins: dict[str, None] = {}  # found nowhere else


class Watch:
    """What was found during a survey, and where; `content` encodes a value and says what code is in it."""

    __slots__ = ("_content", "_contents", "_fixed", "_functions", "_more", "_owners", "_surveyed", "_weak")

    def __init__(self, content: Content) -> None:
        self._content = content
        self._surveyed: dict[int, _Function] = {}  # by the function's id, during the survey
        self._functions: list[tuple[Any, ...]] = []
        self._fixed: list[tuple[Place, Any]] = []
        self._weak: list[tuple[Place, ref[Any]]] = []
        self._owners: list[tuple[ref[Any], int, list[ref[type]]]] = []
        self._contents: list[tuple[Place, bytes, list[ref[Any]], bool]] = []
        self._more = False  # whether there is anything but functions

    def function(self, fn: FunctionType) -> None:
        """Its code and defaults matter."""
        self._surveyed[id(fn)] = _Function(fn)

    def attributes(self, owner: type | ModuleType) -> None:
        """How many attributes a class or module has matters, and a class's bases."""
        self._owners.append((ref(owner), len(vars(owner)), [ref(base) for base in getattr(owner, "__bases__", ())]))

    def builtin(self, fn: FunctionType, name: str) -> None:
        """The name means a builtin as long as the module doesn't define it."""
        self._surveyed[id(fn)].builtins[name] = None

    def same(self, place: Place, value: Any) -> None:
        """It has to be this object, which can't change and holds nothing of the program's."""
        if place.kind == GLOBAL:
            self._surveyed[id(place.owner())].fixed[place.key] = value
        elif place.kind != DEFAULT or type(place.key) is str:  # the tuple of the others is watched as a whole
            self._fixed.append((place, value))

    def weakly(self, place: Place, value: Any) -> None:
        """It has to be this object."""
        if place.kind == GLOBAL:
            self._surveyed[id(place.owner())].weak[place.key] = ref(value)
        else:
            self._weak.append((place, ref(value)))

    def content(self, place: Place, encoding: bytes, met: list[Any], files: bool) -> None:
        """What is found there has to be encoded like this, and the code in it has to be the same."""
        self._contents.append((place, encoding, [ref(one) for one in met], files))

    def done(self) -> None:
        """The survey is over."""
        for one in self._surveyed.values():
            fn = one.fn
            names = (list(one.fixed.items()), list(one.weak.items()), tuple(one.builtins))
            by_name = fn.__kwdefaults__ if fn.__code__.co_kwonlyargcount else ABSENT  # no parameter has such a default
            self._functions.append((ref(fn), fn.__code__, fn.__defaults__, by_name, *names))
        self._surveyed.clear()
        self._more = bool(self._fixed or self._weak or self._owners or self._contents)

    def holds(self) -> bool:
        """Whether all is as it was."""
        for kept, code, defaults, by_name, fixed, weak, builtins in self._functions:
            fn = kept()
            if (
                fn is None
                or fn.__code__ is not code
                or fn.__defaults__ is not defaults
                or (by_name is not ABSENT and fn.__kwdefaults__ is not by_name)
            ):
                return False
            space = fn.__globals__
            for name, value in fixed:
                if space.get(name, ABSENT) is not value:
                    return False
            for name, held in weak:
                if space.get(name, ABSENT) is not held():
                    return False
            if builtins and not space.keys().isdisjoint(builtins):
                return False
        return not self._more or self._rest_holds()

    def _rest_holds(self) -> bool:
        for place, value in self._fixed:
            if place.now() is not value:
                return False
        for place, held in self._weak:
            if place.now() is not held():
                return False
        for kept, count, bases in self._owners:
            owner = kept()
            now = getattr(owner, "__bases__", ())
            if owner is None or len(vars(owner)) != count or len(now) != len(bases):
                return False
            if not all(base is held() for base, held in zip(now, bases, strict=True)):
                return False
        for place, encoding, met, files in self._contents:
            value = place.now()
            if value is ABSENT or not _is_still(self._content(value, files), encoding, met):
                return False
        return True


def _is_still(now: tuple[bytes, list[Any]], encoding: bytes, met: list[ref[Any]]) -> bool:
    found, code = now
    if found != encoding or len(code) != len(met):
        return False
    return all(one is held() for one, held in zip(code, met, strict=True))
