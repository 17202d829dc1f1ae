"""How an exception crosses a process boundary, and comes back with its traceback.

`record()` turns an exception, its causes, its notes and the places of its traceback into plain
tuples, strings and bytes; `rebuild()` makes the exception again, the tracebacks
included (frames are made anew, so that Python prints the worker's file and line with its source).
An exception that pickle can't carry keeps its type if that can be had in any other way;
else an `ExceptionStandIn` takes its place. Whatever the user's class does (raise, exit,
lie) while it is pickled hits this exception only.

Nothing here knows runs, tasks or processes.
"""

from __future__ import annotations

import os
import sys

from woflo.errors import ExceptionStandIn

try:  # pickle.py itself imports re, enum and struct: 4 ms
    from _pickle import dumps as _dumps
    from _pickle import loads as _loads
except ImportError:
    from pickle import dumps as _dumps
    from pickle import loads as _loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

    Place = tuple[str, int, str]  # file, line, function
    # payload, type name, message, notes, places, index of the cause, of the context, suppress, of a group's members
    Record = tuple[bytes | None, str, str, tuple[str, ...], tuple[Place, ...], int, int, bool, tuple[int, ...]]

_HOME = os.path.dirname(os.path.abspath(__file__)) + os.sep
_WITH_TASKS = (
    _HOME + "__main__.py",
    _HOME + os.path.join("testing", "contract.py"),
)  # files of ours whose functions are tasks like a user's
_STDLIB = os.path.dirname(os.__file__) + os.sep
_LONG_CHAIN = 500  # the traceback module formats chains recursively: beyond this, only the outermost is shown
_HEAD, _TAIL = 100, 400  # places kept of a very deep traceback: its first and its last ones


def safe_str(value: object) -> str:
    """What `str(value)` says, or why it can't be said; never raises."""
    try:
        return str(value)
    except BaseException as error:
        return f"<{type(value).__name__} whose str() raised {type(error).__name__}>"


def type_name(cls: type) -> str:
    """`module.Name` of a class, without the module for builtins."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def is_interrupt(error: BaseException) -> bool:
    """Whether this is Ctrl-C, and not a `raise KeyboardInterrupt` of somebody's: no raise statement has raised it.

    The innermost frame of a signal's exception stands at whatever instruction was next.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    tb = error.__traceback__
    if tb is None:
        return True
    while tb.tb_next is not None:
        tb = tb.tb_next
    import opcode

    code, at = tb.tb_frame.f_code.co_code, tb.tb_lasti
    return not (0 <= at < len(code) and opcode.opname[code[at]] == "RAISE_VARARGS")


def ours(file: str) -> bool:
    """Whether a file is part of woflo's machinery."""
    return file.startswith(_HOME) and file not in _WITH_TASKS


def skip_ours(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that isn't woflo's own; None when all are."""
    while tb is not None and ours(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return tb


def places(tb: TracebackType | None) -> tuple[Place, ...]:
    """File, line and function of each frame of a traceback, outermost first, woflo's own skipped."""
    found = []
    tb = skip_ours(tb)
    while tb is not None:
        code = tb.tb_frame.f_code
        found.append((code.co_filename, tb.tb_lineno, code.co_name))
        tb = tb.tb_next
    if len(found) > _HEAD + _TAIL:
        del found[_HEAD:-_TAIL]
    return tuple(found)


def stack(frame: FrameType | None) -> tuple[Place, ...]:
    """Like `places`, for a running frame: where the code is now, outermost first."""
    found: list[Place] = []
    while frame is not None and not ours(frame.f_code.co_filename):
        found.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    found.reverse()
    return tuple(found[-_TAIL:])


def describe(where: tuple[Place, ...]) -> str:
    """The innermost place outside the standard library as `file:line in function`, or an empty text."""
    if not where:
        return ""
    users = [place for place in where if not _is_stdlib(place[0])]
    file, line, function = (users or where)[-1]
    return f"{file}:{line} in {function}"


def _is_stdlib(file: str) -> bool:
    return file.startswith(("<frozen", _STDLIB)) and "site-packages" not in file


def dumps(value: object) -> bytes:
    """Pickle, by value (cloudpickle) where plain pickle can't."""
    try:
        return _dumps(value, 5)
    except BaseException as first:  # a user's __reduce__ may raise, or exit
        try:
            import cloudpickle

            return bytes(cloudpickle.dumps(value, 5))
        except BaseException as second:
            raise first from (None if type(first) is type(second) else second)


def record(error: BaseException) -> list[Record]:
    """The exception and everything that its cause and context chains reach, itself first."""
    chain: list[BaseException] = [error]
    index = {id(error): 0}

    def place(other: BaseException | None) -> int:
        if other is None:
            return -1
        if id(other) not in index:
            index[id(other)] = len(chain)
            chain.append(other)
        return index[id(other)]

    records: list[Record] = []
    for one in chain:  # grows while it is walked: no recursion, chains may be long
        cause = place(one.__cause__)
        context = -1 if one.__suppress_context__ else place(one.__context__)
        members: tuple[int, ...] = ()
        if isinstance(one, BaseExceptionGroup):
            members = tuple(place(member) for member in one.exceptions)
            payload, lost = _group_payload(one), tuple[str, ...]()
        else:
            payload, lost = _payload(one)
        records.append(
            (
                payload,
                type_name(type(one)),
                safe_str(one),
                (*_notes(one), *lost),
                places(one.__traceback__),
                cause,
                context,
                bool(one.__suppress_context__),
                members,
            )
        )
    return records


def rebuild(records: list[Record]) -> BaseException:
    """The exception that `record` was given, with its chain, notes and tracebacks."""
    made = [_stand_in(one) for one in records]
    # members come after their group, so from the end on (a group that is in itself, by way of causes, gets a stand-in)
    for at in range(len(records) - 1, -1, -1):
        payload, members = records[at][0], records[at][-1]
        if payload is not None:
            error = _revive(payload, [made[member] for member in members])
            made[at] = made[at] if error is None else error  # not `or`: an exception may be falsy, our failures are
    for error, (_, _, _, notes, where, cause, context, suppress, _) in zip(made, records, strict=True):
        if notes:
            vars(error)["__notes__"] = list(notes)
        _set(error, "__traceback__", _traceback(where))
        _set(error, "__cause__", made[cause] if cause >= 0 else None)
        _set(error, "__context__", made[context] if context >= 0 else None)
        _set(error, "__suppress_context__", suppress)
    return made[0]


def _stand_in(record: Record) -> BaseException:
    return ExceptionStandIn(record[1], record[2])


def add_note(error: BaseException, note: str) -> None:
    """`error.add_note(note)`, also for classes that forbid it (frozen dataclasses), and each note once."""
    notes = vars(error).setdefault("__notes__", [])
    if isinstance(notes, list) and note not in notes:
        notes.append(note)


def _set(error: BaseException, name: str, value: object) -> None:
    BaseException.__setattr__(error, name, value)


def _notes(error: BaseException) -> tuple[str, ...]:
    try:
        notes = getattr(error, "__notes__", ())
    except BaseException:
        return ()
    return tuple(safe_str(note) for note in notes) if isinstance(notes, (list, tuple)) else ()


def _payload(error: BaseException) -> tuple[bytes | None, tuple[str, ...]]:
    """Bytes that rebuild the exception, tried out; and notes on what they leave out.

    Three ways, the most faithful first: the class's own pickling, if what comes back is the same
    type with the same arguments; the class, its arguments and its attributes without a call of `__init__`
    (which may want other arguments: python/cpython#79492); the same without the attributes
    that can't be pickled.
    """
    for way in (_by_itself, _by_parts, _by_picklable_parts):
        try:
            data, lost = way(error)
            twin = _loads(data)
            twin = twin if isinstance(twin, BaseException) else _assemble(*twin)
            if type_name(type(twin)) == type_name(type(error)) and _same_arguments(twin, error):
                return data, lost
        except BaseException:  # noqa: S112 - the user's class may do anything; the next way is tried
            continue
    return None, ()


def _by_itself(error: BaseException) -> tuple[bytes, tuple[str, ...]]:
    return dumps(error), ()


def _by_parts(error: BaseException) -> tuple[bytes, tuple[str, ...]]:
    return dumps((type(error), error.args, dict(vars(error)))), ()


def _by_picklable_parts(error: BaseException) -> tuple[bytes, tuple[str, ...]]:
    kept, lost = {}, []
    for name, value in vars(error).items():
        try:
            _loads(dumps(value))
            kept[name] = value
        except BaseException:
            lost.append(f"woflo: the attribute {name!r} can't be pickled and stayed behind")
    return dumps((type(error), error.args, kept)), tuple(lost)


def _assemble(cls: type[BaseException], args: tuple[object, ...], state: dict[str, object]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    vars(error).update(state)
    return error


def _same_arguments(one: BaseException, other: BaseException) -> bool:
    """Whether two exceptions of one type say the same."""
    return safe_str(one) == safe_str(other) and len(one.args) == len(other.args)


def _revive(payload: bytes, members: list[BaseException]) -> BaseException | None:
    try:
        twin = _loads(payload)
        if isinstance(twin, BaseException):
            return twin
        cls, *rest = twin
        if not members:
            return _assemble(cls, *rest)
        message, state = rest
        group: BaseException = cls(message, members)
        vars(group).update(state)
    except BaseException:  # its __setstate__ may do anything; a stand-in takes its place
        return None
    return group


def _group_payload(group: BaseExceptionGroup[BaseException]) -> bytes | None:
    """A group without its members, which have records of their own; None if its class can't be had there."""
    for state in (vars(group), {}):
        try:
            data = dumps((type(group), group.message, dict(state)))
            cls, message, _ = _loads(data)
            member = ValueError() if issubclass(cls, Exception) else KeyboardInterrupt()
            if type_name(type(cls(message, [member]))) == type_name(type(group)):
                return data
        except BaseException:  # noqa: S112 - the user's class may do anything; the next way is tried
            continue
    return None


def _frame_here() -> FrameType:
    return sys._getframe()


def _traceback(where: tuple[Place, ...]) -> TracebackType | None:
    """A traceback whose frames carry other files' names and lines (no code of theirs runs)."""
    from types import FunctionType, TracebackType

    units = len(_frame_here.__code__.co_code) // 2
    tb: TracebackType | None = None
    for file, line, function in reversed(where):
        code = _frame_here.__code__.replace(
            co_filename=file,
            co_name=function,
            co_qualname=function,
            co_firstlineno=max(line, 1),
            co_linetable=b"".join(_no_columns(min(8, units - at)) for at in range(0, units, 8)),
        )
        frame = FunctionType(code, {"sys": sys})()
        tb = TracebackType(tb, frame, 0, line)
    return tb


def _no_columns(units: int) -> bytes:
    """An entry of a line table: these code units are on the first line, and no columns are known, so none are marked.

    CPython, Objects/locations.md: code 13, a signed varint of lines (0).
    """
    return bytes([0x80 | 13 << 3 | units - 1, 0])


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, its cause (or context), that one's, …: iterative, each once."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def format_traceback(error: BaseException) -> str:
    """The exception's traceback as Python prints it, from the task's own first frame on; never raises."""
    import traceback

    tb = skip_ours(error.__traceback__)
    long = sum(1 for _ in chain(error)) > _LONG_CHAIN
    try:
        return "".join(traceback.format_exception(type(error), error, tb, chain=not long))
    except BaseException:
        lines = [f'  File "{file}", line {line}, in {function}' for file, line, function in places(tb)]
        return "\n".join(
            ["Traceback (most recent call last):", *lines, f"{type_name(type(error))}: {safe_str(error)}", ""]
        )
