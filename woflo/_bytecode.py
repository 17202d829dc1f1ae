"""What a code object does, and which names it looks up elsewhere: read from its byte code.

Two code objects that differ in line numbers, file, docstrings, formatting or names of local variables read the same. So
instructions are read in the order in which control reaches them, with what they refer to instead of where it lies: the compiler
lays code out differently when lines are broken differently.
"""

from __future__ import annotations

import dis
from itertools import pairwise
from marshal import dumps as _marshal
from types import CodeType
from typing import NamedTuple
from weakref import ref

from woflo._fingerprint import encoding
from woflo._merkle import buffer, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["Import", "Name", "Reading", "read"]


class Name(NamedTuple):
    """A global name, and the attributes that are asked of it at once: `helpers.clean` is ("helpers", "clean")."""

    chain: tuple[str, ...]


class Import(NamedTuple):
    """An import inside a function: the module, and what of it is used; nothing: all of it."""

    module: str
    level: int
    chain: tuple[str, ...]


class Reading(NamedTuple):
    """What a code object does (as an encoding), and what it refers to, in this order, each once."""

    encoding: bytes
    references: tuple[Name | Import, ...]


class _Step:
    """An instruction: `value` is what it refers to; `target` and `handler` are where control may go instead of on."""

    __slots__ = ("effect", "handler", "local", "name", "offset", "reference", "target", "value")

    def __init__(self, name: str, value: Any, offset: int, effect: int = 0, target: int = -1, local: int = -1) -> None:
        self.name = name
        self.value = value
        self.offset = offset
        self.effect = effect  # by how much the stack grows
        self.target = target
        self.local = local  # the local variable that it touches
        self.handler: tuple[int, int, bool] | None = None
        self.reference: list[Name | Import] = []


_FLAGS = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x80 | 0x100 | 0x200  # of inspect.CO_…: how it is called and what that makes
_OPTIMIZED, _VARARGS, _VARKEYWORDS = 0x1, 0x4, 0x8
_WITH_NAMES = {"dir", "eval", "exec", "locals", "vars"}  # who can see how local variables are called
_IGNORED = {"CACHE", "EXTENDED_ARG", "NOP", "NOT_TAKEN"}
_GOTO = {"JUMP", "JUMP_ABSOLUTE", "JUMP_NO_INTERRUPT"}
_OR_POP = {"JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP"}
_BRANCHES = {
    "POP_JUMP_IF_FALSE": ("if", False),
    "POP_JUMP_IF_TRUE": ("if", True),
    "POP_JUMP_IF_NOT_NONE": ("if none", False),
    "POP_JUMP_IF_NONE": ("if none", True),
}  # what control goes on with first, and whether that is the jump's target
_LAST = {"RAISE_VARARGS", "RERAISE", "RETURN_VALUE"}
_ABOUT_TEXT = {"__doc__", "__firstlineno__", "__static_attributes__"}  # what a class body stores about its text
_ANNOTATIONS, _CLOSURE, _ANNOTATE = 0x4, 0x8, 0x10  # of MAKE_FUNCTION and SET_FUNCTION_ATTRIBUTE
_GLOBAL = {"LOAD_FROM_DICT_OR_GLOBALS", "LOAD_GLOBAL", "LOAD_NAME"}
_ATTRIBUTE = {"DELETE_ATTR", "LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"}
_FLAGGED = {"LOAD_ATTR", "LOAD_GLOBAL", "LOAD_SUPER_ATTR"}  # the last bits of the argument say how it is called
_JUMPS = {*dis.hasjrel, *dis.hasjabs}

_readings: dict[int, tuple[ref[CodeType], Reading]] = {}


def read(code: CodeType) -> Reading:
    """What a code object does and refers to; remembered as long as it lives."""
    key = id(code)
    known = _readings.get(key)
    if known is not None and known[0]() is code:
        return known[1]
    found = _read(code)
    _readings[key] = (ref(code, lambda _: _readings.pop(key, None)), found)
    return found


def _read(code: CodeType) -> Reading:
    flags = code.co_flags
    count = code.co_argcount + code.co_kwonlyargcount + bool(flags & _VARARGS) + bool(flags & _VARKEYWORDS)
    seen = len(code.co_varnames) if _WITH_NAMES.intersection(code.co_names) else count
    told = [code.co_name, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, flags & _FLAGS]
    told += [len(code.co_cellvars), len(code.co_freevars), seen, *code.co_varnames[:seen]]
    references: dict[Name | Import, None] = {}
    told += _flow(_steps(code), references)
    return Reading(pack(b"code", [buffer(_marshal(told, 2))]), tuple(references))


# ---- instructions


def _steps(code: CodeType) -> list[_Step]:
    """The instructions, without those that only the interpreter or a debugger needs."""
    steps: list[_Step] = []
    places: dict[int, int] = {}  # by offset: which step is next
    for one in dis.get_instructions(code):
        places[one.offset] = len(steps)
        if one.opname not in _IGNORED:
            steps += _split(one, code.co_consts)
    for step in steps:
        if step.target >= 0:
            step.target = places[step.target]
    bytecode: Any = dis.Bytecode(code)
    for entry in bytecode.exception_entries:
        for number in range(places[entry.start], places.get(entry.end, len(steps))):
            steps[number].handler = (places[entry.target], entry.depth, entry.lasti)
    if not code.co_flags & _OPTIMIZED:
        for before, step in pairwise(steps):
            if step.name == "STORE_NAME" and step.value[2:] in _ABOUT_TEXT:
                _erase((before, step))
    _forget_annotations(steps)
    for step in steps:
        if step.name in _OR_POP:
            _thread(steps, step)
    _refer(steps)
    return steps


def _erase(steps: Iterable[_Step]) -> None:
    for step in steps:
        step.name, step.value = "NOP", None


def _forget_annotations(steps: list[_Step]) -> None:
    """Erase what makes the annotations of functions inside this one."""
    for number, step in enumerate(steps):
        if step.name != "MAKE_FUNCTION":
            continue
        after = number + 1
        given = step.value or 0  # up to Python 3.12: what is on the stack, below the code
        while after < len(steps) and steps[after].name == "SET_FUNCTION_ATTRIBUTE":
            given |= steps[after].value
            after += 1
        if not given & (_ANNOTATIONS | _ANNOTATE):
            continue
        last = number - 2  # before the code
        if given & _CLOSURE:
            last = _start(steps, last) - 1
        first = _start(steps, last)
        if first < 0:
            continue
        _erase(steps[first : last + 1])
        _erase(one for one in steps[number + 1 : after] if one.value in {_ANNOTATIONS, _ANNOTATE})
        if step.value is not None:
            step.value &= ~_ANNOTATIONS


def _start(steps: list[_Step], last: int) -> int:
    """Where the expression begins whose value the step `last` leaves on the stack; -1 if it isn't one straight line."""
    height, number = 0, last
    while number >= 0 and steps[number].target < 0:
        height += steps[number].effect
        if height == 1:
            return number
        number -= 1
    return -1


def _thread(steps: list[_Step], step: _Step) -> None:
    """Follow a jump that keeps its condition to a test of the same condition (Python 3.11 does if both stand on one line)."""
    for _ in steps:
        number = _onward(steps, step.target)
        there, same = steps[number], "TRUE" if "TRUE" in step.name else "FALSE"
        if there.name not in {*_OR_POP, "POP_JUMP_IF_FALSE", "POP_JUMP_IF_TRUE"}:
            return
        again = same in there.name
        step.target = there.target if again else number + 1
        if not again or there.name not in _OR_POP:
            step.name = f"POP_JUMP_IF_{same}"
            return


def _split(one: dis.Instruction, constants: tuple[Any, ...]) -> list[_Step]:
    """The steps of an instruction; the compiler may put two into one if they stand on one line."""
    name, arg, at = one.opname, one.arg, one.offset
    effect = dis.stack_effect(one.opcode, arg, jump=False)
    if one.opcode in _JUMPS:
        return [_Step(name.replace("_FORWARD", "").replace("_BACKWARD", ""), None, at, effect, one.argval)]
    if one.opcode in dis.hasname:
        bits = (arg or 0) & 3 if name == "LOAD_SUPER_ATTR" else (arg or 0) & 1
        return [_Step(name, f"{bits if name in _FLAGGED else 0} {one.argval}", at, effect)]
    if one.opcode in dis.haslocal and arg is not None:
        return _locals(name.replace("_BORROW", "").replace("_CHECK", ""), arg, at, effect)
    if name == "LOAD_SMALL_INT":
        return [_Step("LOAD_CONST", _Constant(arg), at, 1)]
    if name == "RETURN_CONST":
        return [_Step("LOAD_CONST", _Constant(constants[arg or 0]), at, 1), _Step("RETURN_VALUE", None, at, -1)]
    return [_Step(name, _Constant(constants[arg or 0]) if one.opcode in dis.hasconst else arg, at, effect)]


def _locals(name: str, arg: int, at: int, effect: int) -> list[_Step]:
    first, _, second = name.partition("_FAST_")
    if not second.endswith("_FAST"):
        return [_Step(name, arg, at, effect, local=arg)]
    two = ((f"{first}_FAST", arg >> 4), (second, arg & 15))
    return [_Step(name, local, at, 1 if "LOAD" in name else -1, local=local) for name, local in two]


class _Constant:
    """A constant among the values of steps."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


# ---- control


def _flow(steps: list[_Step], references: dict[Name | Import, None]) -> list[Any]:
    """The steps as plain values, in the order in which control reaches them; what they refer to goes to `references`."""
    told: list[Any] = []
    placed: dict[int, int] = {}  # by the step's number
    labels: dict[int, int] = {}
    starts = [_onward(steps, 0)]

    def label(number: int) -> int:
        number = _onward(steps, number)
        if number not in labels:
            labels[number] = len(labels)
            starts.append(number)
        return labels[number]

    for start in starts:  # it grows
        number = start
        while number not in placed:
            placed[number] = len(told)
            step = steps[number]
            references.update(dict.fromkeys(step.reference))
            here, there = number + 1, step.target
            if step.name in _BRANCHES:  # which way is laid out first depends on where lines are broken
                name, swapped = _BRANCHES[step.name]
                told.append(name)
                here, there = (there, here) if swapped else (here, there)
            else:
                told += [step.name, _encoded(step.value, references)]
            if there >= 0:
                told.append(label(there))
            if step.handler is not None:
                told += ["except", label(step.handler[0]), *step.handler[1:]]
            if step.name in _LAST:
                break
            number = _onward(steps, here)
        else:
            if number != start:
                told += ["goto", label(number)]
    return [*told, "labels", *(placed[number] for number in labels)]


def _onward(steps: list[_Step], number: int) -> int:
    """The step that control reaches next, from before this one: jumps and what does nothing are followed."""
    passed: set[int] = set()
    while number not in passed and steps[number].name in {*_GOTO, "NOP"}:
        passed.add(number)
        number = steps[number].target if steps[number].name != "NOP" else number + 1
    return number


def _encoded(value: Any, references: dict[Name | Import, None]) -> Any:
    if type(value) is not _Constant:
        return value
    constant = value.value
    if type(constant) is not CodeType:
        return encoding(constant)
    inner = read(constant)
    references.update(dict.fromkeys(inner.references))
    return inner.encoding


# ---- names


def _refer(steps: list[_Step]) -> None:
    """Note at each step what it refers to outside of the function."""
    for number, step in enumerate(steps):
        if step.name in _GLOBAL:
            step.reference.append(Name((step.value[2:], *_attributes(steps, number + 1))))
        elif step.name == "IMPORT_NAME":
            _import(steps, number)


def _attributes(steps: list[_Step], number: int) -> list[str]:
    """The attributes that are asked at once of what the step before has put on the stack."""
    names = []
    while number < len(steps) and steps[number].name in _ATTRIBUTE:
        names.append(steps[number].value[2:])
        number += 1
    return names


def _import(steps: list[_Step], number: int) -> None:
    """Note what an import statement refers to: all of a module, or what is asked of the variable that it is bound to."""
    module, level, names = steps[number].value[2:], steps[number - 2].value.value, steps[number - 1].value.value
    after = number + 1
    if names:
        for name in names:
            whole = Import(module, level, () if name == "*" else (name,))
            _bind(steps, number, after + 1, whole)
            after += 2
        return
    if steps[after].name != "IMPORT_FROM":
        _bind(steps, number, after, Import(module.partition(".")[0], level, ()))
        if "." in module:
            steps[number].reference.append(Import(module, level, ("",)))  # it is loaded, no more
        return
    while not steps[after].name.startswith("STORE_"):
        after += 1
    _bind(steps, number, after, Import(module, level, ()))


def _bind(steps: list[_Step], number: int, store: int, whole: Import) -> None:
    """Note what is used of an import, at each use; at the import itself, if its variable may mean anything else."""
    local = steps[store].local if store < len(steps) else -1
    uses: list[tuple[_Step, Import]] = []
    for place, step in enumerate(steps):
        if local < 0 or step.local != local or place == store:
            continue
        chain = _attributes(steps, place + 1)
        if not step.name.startswith("LOAD_FAST") or not chain:
            local = -1
            break
        uses.append((step, Import(whole.module, whole.level, (*whole.chain, *chain))))
    if local < 0:
        steps[number].reference.append(whole)
    for step, used in uses if local >= 0 else ():
        step.reference.append(used)
