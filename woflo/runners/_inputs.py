"""Runs (or Lazies) among a call's arguments: find them, and put their values in their places.

Only exact lists, tuples, dicts, sets and dataclasses are looked into, at any depth, iteratively. What holds
no run is handed on as it is, the same object; what holds one is made anew, shared parts stay shared and cycles
stay cycles. A run anywhere else is found by whoever pickles, or is used in a process that
doesn't own it: both are UsageErrors.
"""

from __future__ import annotations

from itertools import chain

from woflo import _exceptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

PLAIN: frozenset[type] = frozenset({int, str, float, bool, bytes, type(None), complex, bytearray, range})
_NOTHING, RUN, LAZY, _ROW, _DICT, _DATA = range(6)
_kinds: dict[type, int] = {**dict.fromkeys(PLAIN, _NOTHING), list: _ROW, tuple: _ROW, set: _ROW, dict: _DICT}
_KINDS_KEPT = 1000  # types remembered; a program that makes classes by the thousand starts anew
_SUSPECT_DEPTH = 64  # levels after which containers are remembered, so that a cycle ends


def _kind(cls: type) -> int:
    kind = _kinds.get(cls)
    if kind is None:
        if hasattr(cls, "_is_task_run"):
            kind = RUN
        elif hasattr(cls, "_is_lazy"):
            kind = LAZY
        elif "__dataclass_fields__" in cls.__dict__:
            kind = _DATA
        else:
            kind = _NOTHING
        if len(_kinds) > _KINDS_KEPT:
            for old in [old for old in _kinds if old.__module__ != "builtins"]:
                del _kinds[old]
        _kinds[cls] = kind
    return kind


def is_run(cls: type) -> bool:
    """Whether instances of a class are TaskRuns."""
    return _kind(cls) == RUN


def _values(data: Any) -> list[Any]:
    """The fields of a dataclass instance that are set."""
    return [getattr(data, name) for name in _names(data) if hasattr(data, name)]


def _names(data: Any) -> list[str]:
    from dataclasses import fields

    return [field.name for field in fields(data)]


def find(args: tuple[Any, ...], kwargs: dict[str, Any], wanted: int = RUN) -> list[Any]:
    """The runs (`wanted` = LAZY: the Lazies) among the arguments, each once, level by level.

    A level is looked at with two C loops (its elements' types, as a set), about 12 ns per element; an element is
    touched only if its level holds a run or a container beside other things.
    """
    runs: dict[int, Any] = {}
    rows: list[Iterable[Any]] = [args, kwargs.values()] if kwargs else [args]
    dicts: list[dict[Any, Any]] = []
    datas: list[Any] = []
    seen: set[int] = set()
    depth = 0
    while rows or dicts or datas:
        depth += 1
        if depth > _SUSPECT_DEPTH:
            rows, dicts, datas = _unseen(rows, seen), _unseen(dicts, seen), _unseen(datas, seen)

        def elements(rows: Any = rows, dicts: Any = dicts, datas: Any = datas) -> Iterator[Any]:
            if not dicts and not datas:
                return iter(rows[0]) if len(rows) == 1 else chain.from_iterable(rows)
            return chain(
                chain.from_iterable(rows),
                chain.from_iterable(dicts),
                chain.from_iterable(map(dict.values, dicts)),
                chain.from_iterable(map(_values, datas)),
            )

        types = set(map(type, elements()))
        kinds = {cls: kind for cls in types if (kind := _kind(cls)) == wanted or kind >= _ROW}
        if not kinds:
            break
        if len(types) == 1 and _ROW in kinds.values():  # a list of pairs: nothing to pick out
            rows, dicts, datas = list(elements()), [], []
            continue
        level = [one for one in elements() if type(one) in kinds]
        runs.update((id(one), one) for one in level if kinds[type(one)] == wanted)
        rows = [one for one in level if kinds[type(one)] == _ROW]
        dicts = [one for one in level if kinds[type(one)] == _DICT]
        datas = [one for one in level if kinds[type(one)] == _DATA]
    return list(runs.values())


def _unseen(containers: list[Any], seen: set[int]) -> list[Any]:
    return [one for one in containers if id(one) not in seen and not seen.add(id(one))]  # type: ignore[func-returns-value]


def _parts(container: Any) -> Iterable[Any]:
    kind = _kind(type(container))
    if kind == _DICT:
        return chain(container, container.values())
    return _values(container) if kind == _DATA else container


def substitute(
    args: tuple[Any, ...], kwargs: dict[str, Any], value: Callable[[Any], Any], wanted: int = RUN
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with each run (`wanted` = LAZY: each Lazy) replaced by `value(run)`.

    Raises:
        TypeError: a value that can't be hashed takes the place of a run in a set or as a dict's key.
    """
    root = (args, kwargs)
    holders: dict[int, list[int]] = {}  # id of a part -> ids of the containers it is in
    containers: dict[int, Any] = {id(root): root}
    touched: list[int] = []  # containers that hold a run themselves
    todo: list[Any] = [root]
    while todo:
        container = todo.pop()
        for part in _parts(container):
            kind = _kind(type(part))
            if kind == wanted:
                touched.append(id(container))
            elif kind >= _ROW:
                holders.setdefault(id(part), []).append(id(container))
                if id(part) not in containers:
                    containers[id(part)] = part
                    todo.append(part)
    changed: set[int] = set()
    while touched:
        one = touched.pop()
        if one not in changed:
            changed.add(one)
            touched.extend(holders.get(one, ()))

    made: dict[int, Any] = {}
    for key in changed:
        if not isinstance(containers[key], tuple):
            made[key] = _empty_like(containers[key])

    def new(part: Any) -> Any:
        return value(part) if _kind(type(part)) == wanted else made.get(id(part), part)

    # tuples can't be filled later: inner ones first, one stack instead of recursion
    stack = [key for key in changed if isinstance(containers[key], tuple)]
    while stack:
        key = stack[-1]
        inner = [id(p) for p in containers[key] if id(p) in changed and id(p) not in made] if key not in made else []
        if inner:
            stack.extend(inner)
            continue
        stack.pop()
        if key not in made:
            made[key] = tuple(new(part) for part in containers[key])
    # dataclasses before sets and dicts: their hash wants their fields
    for key in sorted(changed, key=lambda key: _kind(type(containers[key])) != _DATA):
        if not isinstance(containers[key], tuple):
            _fill(made[key], containers[key], new)
    result = made.get(id(root), root)
    return result[0], result[1]


def _empty_like(container: Any) -> Any:
    return type(container)() if _kind(type(container)) != _DATA else object.__new__(type(container))


def _fill(shell: Any, container: Any, new: Callable[[Any], Any]) -> None:
    if isinstance(container, dict):
        shell.update((new(key), new(part)) for key, part in container.items())
    elif isinstance(container, list):
        shell.extend(map(new, container))
    elif isinstance(container, set):
        shell.update(map(new, container))
    else:
        state = dict(getattr(container, "__dict__", {}))
        for name in _names(container):
            if hasattr(container, name):
                state[name] = new(getattr(container, name))
        for name, part in state.items():
            object.__setattr__(shell, name, part)  # past __init__ and frozen: it is a copy


def path_to(root: object, wanted: Callable[[object], bool]) -> tuple[str, object]:
    """The way to the innermost offending part, for instance `[2].callback.sock` (empty if it is the root), and that part.

    Follows containers, attributes, closures and the bound object of methods, breadth first, at most 10,000 parts.
    """
    todo: list[tuple[str, object]] = [("", root)]
    seen: set[int] = set()
    best: tuple[str, object] = "", root
    at = 0
    while at < len(todo) and at < 10_000:
        way, part = todo[at]
        at += 1
        if id(part) in seen:
            continue
        seen.add(id(part))
        if not wanted(part):
            continue
        best = way, part
        todo[at:] = [(way + step, inner) for step, inner in _steps(part)]
    return best


def _steps(part: object) -> Iterator[tuple[str, object]]:
    if hasattr(part, "_is_task_run"):
        return  # what is inside of a run is ours
    if isinstance(part, dict):
        for key, inner in part.items():
            yield f"[{_exceptions.safe_str(key)[:40]!r}]", inner
    elif isinstance(part, (list, tuple, set, frozenset)):
        for place, inner in enumerate(part):
            yield f"[{place}]", inner
    else:
        for cell, name in zip(getattr(part, "__closure__", None) or (), _free(part), strict=False):
            try:
                yield f".<closure {name}>", cell.cell_contents
            except ValueError:  # the cell is still empty
                continue
        if hasattr(part, "__self__") and not isinstance(part, type):
            yield ".__self__", part.__self__
        state = getattr(part, "__dict__", None)
        if isinstance(state, dict) and not isinstance(part, type):
            for name, inner in state.items():
                yield f".{name}", inner
        for cls in type(part).__mro__:
            for name in (slots,) if isinstance(slots := cls.__dict__.get("__slots__", ()), str) else slots:
                if hasattr(part, name):
                    yield f".{name}", getattr(part, name)


def _free(part: object) -> tuple[str, ...]:
    code = getattr(part, "__code__", None)
    return getattr(code, "co_freevars", ())
