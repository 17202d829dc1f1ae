"""What crosses between a process and its workers, as bytes: calls, results, frames.

A call goes to a spawned worker by name where the worker can import it, by value (cloudpickle) where it can't, with the
globals that its function names as they are now. A result comes back as one frame on the worker's channel: a kind,
a length and that many bytes; a large one lies in a memfd (elsewhere an unlinked temporary file) whose descriptor comes with
the frame, so that a worker never waits for its parent to read.
"""

from __future__ import annotations

import os
import sys
from array import array
from marshal import dumps as dumps_plain
from marshal import loads as loads_plain

from woflo import _exceptions, _loading
from woflo.errors import UsageError
from woflo.result import Failure, Ok, StoppedFailure, TaskFailure
from woflo.runners import _attempt, base

try:  # pickle.py itself imports re, enum and struct: 4 ms
    from _pickle import Pickler, load, loads
except ImportError:
    from pickle import Pickler, load, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any, BinaryIO

    from woflo.result import Result
    from woflo.runners._attempt import Call
    from woflo.runners.base import BaseTaskRun

INLINE_BYTES = 65536  # frames up to this size fit into an empty socket buffer (208 KiB by default) without blocking
HEADER_BYTES = 9
OK, FAILURE, STOPPED, LARGE, LENT, HELD, BEGUN, SHEET = b"O", b"F", b"S", b"M", b"L", b"H", b"B", b"P"
KINDS = frozenset((OK, FAILURE, STOPPED, LARGE, LENT, HELD, BEGUN, SHEET))
_SOL_SOCKET, _SCM_RIGHTS = 1 if sys.platform == "linux" else 0xFFFF, 1

VIEWS = b"V"  # what lies in a large frame's file is a pickle and its buffers apart

NONE_FRAME = OK + (0).to_bytes(8, "little")  # the value None, the commonest of all, has no bytes


# ------------------------------------------------------------------ calls


class Parcel:
    """A call, packed for a spawned worker: its bytes and the descriptors that they name."""

    __slots__ = ("data", "fds")

    def __init__(self, data: bytes, fds: list[int]) -> None:
        self.data: bytes = data
        self.fds: list[int] = fds

    def close(self) -> None:
        """Close the descriptors; a second call does nothing."""
        fds, self.fds = self.fds, []
        for fd in fds:
            os.close(fd)


class _Popen:
    """Stands where multiprocess keeps the process that is being spawned.

    Its Locks, Values, Queues and Connections hand over their descriptors through it.
    """

    method = "spawn"

    class DupFd:
        def __init__(self, fd: int) -> None:
            self.fd = fd

        def detach(self) -> int:
            return self.fd

    def __init__(self) -> None:
        self.fds: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        """A copy that stays open until the worker has started, whatever the caller does with the original."""
        self.fds.append(os.dup(fd))
        return self.fds[-1]


def pack(run: BaseTaskRun[Any]) -> Parcel:
    """Pickle a run's call for a spawned worker, now.

    Raises:
        UsageError: an argument can't be pickled; names the way to it.
    """
    popen = _Popen()
    contexts = [
        context
        for name in ("multiprocess.context", "multiprocessing.context")
        if (context := _loading.loaded(name)) is not None
    ]
    for context in contexts:
        context.set_spawning_popen(popen)
    try:
        return Parcel(dump_call(run), popen.fds)
    except BaseException:
        for fd in popen.fds:
            os.close(fd)
        raise
    finally:
        for context in contexts:
            context.set_spawning_popen(None)


def dump_call(run: BaseTaskRun[Any]) -> bytes:
    """A run's call as bytes, for `load_call` in another process.

    Raises:
        UsageError: an argument can't be pickled; names the way to it.
    """
    task = run.task
    if task.runner is not None and task.__module__ == "__main__":
        task = task.options(runner=None)  # by value, and where it runs is decided; the class may hold pools and locks
    try:
        call = (task, run.args, run.kwargs, run._number, run.attempt)
        module = _dynamic(getattr(task.fn, "__module__", None))
        if module is None:
            return _by_value(call)
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
        try:
            return _by_value(call)
        finally:
            cloudpickle.unregister_pickle_by_value(module)
    except Exception as error:
        raise _cannot_travel(run, error) from error


def shell() -> BaseTaskRun[Any]:
    """A run that belongs to no process: it has names, but can't be waited for."""
    return base.BaseTaskRun(None, (), {}, 0, None)  # type: ignore[arg-type]


def load_call(data: bytes) -> Call:
    """The call that `dump_call` packed, in another process: its run has the names, but can't be waited for."""
    run = shell()
    run.task, run.args, run.kwargs, run._number, run.attempt = loads(data)
    return _attempt.Call(run)


def _dynamic(name: str | None) -> Any:
    """A module that was made at run time can't be imported elsewhere, though cloudpickle believes so; None if it can."""
    module = sys.modules.get(name or "")
    return None if name == "__main__" or getattr(module, "__spec__", None) is not None else module


def _by_value(value: object, protocol: int = 5, buffer_callback: Any = None) -> bytes:
    import io
    from functools import lru_cache

    import cloudpickle

    table: Any = cloudpickle.Pickler.dispatch_table.new_child({type(lru_cache(len)): _reduce_cached})
    for name in ("multiprocessing.reduction", "multiprocess.reduction"):  # Connections, shared memory, sockets
        if (module := _loading.loaded(name)) is not None:
            table = table.new_child(dict(module.ForkingPickler._extra_reducers))
    pickler = type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": table})  # read when it is made, from its class
    file = io.BytesIO()
    pickler(file, protocol, buffer_callback=buffer_callback).dump(value)
    return file.getvalue()


def _reduce_cached(cached: Any) -> Any:
    """A function under `functools.lru_cache`: cloudpickle knows such objects by name only, and __main__ has none there."""
    if cached.__module__ == "__main__":
        return _rebuild_cached, (cached.__wrapped__, cached.cache_parameters())
    return str(cached.__qualname__)


def _rebuild_cached(function: Any, parameters: dict[str, Any]) -> Any:
    from functools import lru_cache

    return lru_cache(**parameters)(function)


def _cannot_travel(run: BaseTaskRun[Any], error: Exception) -> UsageError:
    from woflo.runners import _inputs

    def refused(part: object) -> bool:
        try:
            _by_value(part)
        except Exception:
            return True
        return False

    named = {"args": run.args, "kwargs": run.kwargs}
    for kind, parts in named.items():
        if refused(parts):
            step, culprit = _inputs.path_to(parts, refused)
            way = f"{kind}{step} (a {_exceptions.type_name(type(culprit))})"
            break
    else:
        way = "what the function refers to"
    return UsageError(f"{run.name}: {way} can't be sent to another process: {_exceptions.safe_str(error)}")


# ------------------------------------------------------------------ results


def send_result(channel: socket, result: Result[Any], places: tuple[_exceptions.Place, ...]) -> None:
    """In the worker: send the one frame that carries the result; never waits for the parent."""
    if result.__class__ is Ok:
        value = result.value
        if value is None:
            channel.send(NONE_FRAME)
            return
        try:
            _send_pickled(channel, OK, value)
        except BaseException as error:
            _send_pickled(channel, FAILURE, _unpicklable(value, error))
    elif type(result) is StoppedFailure:  # the quickest way: somebody waits for this process to end
        body = dumps_plain(places)
        if len(body) > INLINE_BYTES:
            body = dumps_plain(places[-1:])
        channel.sendall(STOPPED + len(body).to_bytes(8, "little") + body)
    else:
        try:
            _send_pickled(channel, FAILURE, result)
        except BaseException:
            plain = TaskFailure(_exceptions.safe_str(result))
            plain.__cause__ = result.__cause__  # type: ignore[union-attr]
            _send_pickled(channel, FAILURE, plain)


def _unpicklable(value: object, error: BaseException) -> TaskFailure:
    from woflo.runners import _inputs

    def refused(part: object) -> bool:
        try:
            _exceptions.dumps(part)
        except BaseException:
            return True
        return False

    way, culprit = _inputs.path_to(value, refused)
    kind = _exceptions.type_name(type(culprit))
    if hasattr(culprit, "_is_task_run"):
        error = UsageError(f"the result{way} is a TaskRun, which stays in its process: return run.get_result()")
    text = f"the result{way} (a {kind}) can't be sent back: {_exceptions.type_name(type(error))}: {_exceptions.safe_str(error)}"
    failure = TaskFailure(text)
    error.__traceback__ = None
    _exceptions.add_note(error, f"woflo: {text}")
    failure.__cause__ = error
    return failure


class _Spill:
    """A file for the pickler: small pickles stay in memory, large ones go into a memfd while they are made."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.file: BinaryIO | None = None

    def write(self, data: Any) -> int:
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        self.size += size
        if self.file is None:
            if self.size <= INLINE_BYTES:
                self.parts.append(bytes(data))
                return size
            self.file = open(_memory_file(), "w+b", buffering=0)
            for part in self.parts:
                _write_all(self.file, part)
        _write_all(self.file, data)
        return size


def _write_all(file: BinaryIO, data: Any) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[file.write(view) :]


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("woflo-result", os.MFD_CLOEXEC)
    import tempfile

    if os.name == "nt":
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_TEMPORARY | os.O_BINARY  # type: ignore[attr-defined,unused-ignore]
        return os.open(tempfile.mktemp(prefix="woflo-"), flags)  # noqa: S306 - O_EXCL
    fd, path = tempfile.mkstemp(prefix="woflo-")
    os.unlink(path)
    return fd


def _send_pickled(channel: socket, kind: bytes, value: object) -> None:
    spill = _Spill()
    buffers: list[Any] = []
    try:
        Pickler(spill, 5, buffer_callback=_apart(buffers)).dump(value)
    except BaseException as first:
        spill = _Spill()
        try:
            import cloudpickle

            cloudpickle.Pickler(spill, 5).dump(value)
        except BaseException as second:
            raise first from (None if type(first) is type(second) else second)
    if buffers and kind == OK:
        _send_views(channel, spill, buffers)
    elif spill.file is None:
        channel.sendall(kind + spill.size.to_bytes(8, "little") + b"".join(spill.parts))
    else:
        fds = array("i", [spill.file.fileno()])
        header = LARGE + spill.size.to_bytes(8, "little")
        channel.sendmsg([header + kind], [(_SOL_SOCKET, _SCM_RIGHTS, fds)])


def send_sheet(channel: socket, fd: int) -> None:
    """In the worker: send the descriptor of what its task reports on."""
    channel.sendmsg([frame(SHEET)], [(_SOL_SOCKET, _SCM_RIGHTS, array("i", [fd]))])


def _apart(buffers: list[Any]) -> Any:
    """Where large arrays go while a result is pickled; without memfds or numpy and its like they stay where they are."""
    if not hasattr(os, "memfd_create"):
        return None

    def take(buffer: Any) -> bool:
        from woflo.runners import _arena

        return _arena.apart(buffers)(buffer)

    return take


def _send_views(channel: socket, spill: _Spill, buffers: list[Any]) -> None:
    """A result with large arrays: the receiver maps them, and copies nothing."""
    from woflo.runners import _arena

    if spill.file is None:
        data = b"".join(spill.parts)
    else:
        spill.file.seek(0)
        data = spill.file.read()
    fd = _arena.write_file(data, buffers)
    channel.sendmsg([LARGE + spill.size.to_bytes(8, "little") + VIEWS], [(_SOL_SOCKET, _SCM_RIGHTS, array("i", [fd]))])
    os.close(fd)


def unread(channel: socket) -> int:
    """In the worker: how much of what it has sent takes up room in the channel's buffer, bytes."""
    if sys.platform != "linux":
        return 0
    import fcntl

    return int.from_bytes(fcntl.ioctl(channel.fileno(), 0x5411, bytes(4)), sys.byteorder)  # SIOCOUTQ


def frame(kind: bytes) -> bytes:
    """A frame without a body."""
    return kind + (0).to_bytes(8, "little")


def load_result(kind: bytes, body: bytes, file: int | None) -> tuple[bytes, Any]:
    """In the parent: what a frame carries: its kind and the value, the Failure or the places.

    Raises:
        BaseException: whatever the value's own classes raise while they are rebuilt.
    """
    if kind == STOPPED:
        return kind, loads_plain(body)  # noqa: S302 - from our own worker, as the pickles are
    if kind == VIEWS and file is not None:
        from woflo.runners import _arena

        return OK, _arena.load_file(file)
    if file is None:
        return kind, loads(body) if body else None
    os.lseek(file, 0, os.SEEK_SET)  # the position is shared with the worker that wrote it
    with open(file, "rb", closefd=False) as stream:
        return kind, load(stream)


def broken_result(error: BaseException) -> Failure:
    """The failure of a run whose result arrived whole but can't be rebuilt in this process."""
    failure = TaskFailure(
        f"its result can't be rebuilt here: {_exceptions.type_name(type(error))}: {_exceptions.safe_str(error)}"
    )
    failure._in_transit = True
    failure.__cause__ = error.with_traceback(_exceptions.skip_ours(error.__traceback__))
    return failure


def broken_call(error: BaseException) -> Failure:
    """The failure of a run whose call can't be rebuilt in the spawned worker (its module raises at import…)."""
    failure = TaskFailure(
        f"its call can't be rebuilt in the worker: {_exceptions.type_name(type(error))}: {_exceptions.safe_str(error)}"
    )
    failure._in_transit = True
    failure.__cause__ = error.with_traceback(_exceptions.skip_ours(error.__traceback__))
    return failure
