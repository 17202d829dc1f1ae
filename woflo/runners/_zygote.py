"""ForkServerProcess: fresh workers whose price doesn't grow with this process's memory.

    supervisor ─→ start(run) ─── request: the call, descriptors ──→ zygote (a fresh interpreter, idle) ─→ clone ─→ worker
                                ◀── the worker's number ───────────┘                                 (our own child)

The zygote is executed at the first use, so it carries none of this process's pages, locks or threads; it has imported what
a worker needs, and nothing of the program. A worker is cloned with CLONE_PARENT: it is this process's child and not the
zygote's, so that pidfd, group, exit status and lifeline are those of any worker. Working directory, environment, `sys.path`,
stdout and stderr are those of this process at the start; the call travels as under spawn.

It ends with its parent in any case, and when it has been idle for a while. If it can't be had, the worker is spawned.
Linux on x86-64 and arm64; elsewhere a ForkServerProcess is a SpawnProcess.
"""

from __future__ import annotations

import _socket
import os
import sys
from _thread import _count as thread_count
from array import array
from marshal import dumps as dumps_plain
from marshal import loads as loads_plain

from woflo.runners import _launch, _process, _tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from woflo.runners._launch import Worker
    from woflo.runners._slots import Slots

_IDLE_SECONDS = 30.0  # without a request; starting one costs 50 ms
_ANSWER_SECONDS = 10  # for a clone, on a busy machine; then it counts as lost
_MOST_BYTES = 131_072  # of a request
_CLONE: int | None = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine) if sys.platform == "linux" else None
_CLONE_PARENT, _SIGCHLD = 0x8000, 17
_RIGHTS = (1, 1)  # SOL_SOCKET, SCM_RIGHTS
_CLOEXEC = 0x40000000  # MSG_CMSG_CLOEXEC

supported: bool = _CLONE is not None


class _Zygote:
    """This process's hold on its zygote. Guarded by the supervisor's lock; a guest of its poller."""

    def __init__(self) -> None:
        from multiprocess import spawn, util

        self.environment = dict(os.environ)
        self.path = [part for part in sys.path if type(part) is str]
        self.channel, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
        self.line, line = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)  # its lifeline: nothing is sent
        self.key = -1
        try:
            for name in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
                self.channel.setsockopt(_socket.SOL_SOCKET, name, _timeval(_ANSWER_SECONDS))
            theirs.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _timeval(_IDLE_SECONDS))
            code = (
                f"import sys; sys.path[:] = {self.path!r}; from woflo.runners._zygote import main; "
                f"main({theirs.fileno()}, {line.fileno()}, {os.getpid()})"
            )
            command = [spawn.get_executable(), *util._args_from_interpreter_flags(), "-c", code]
            self.pid: int = util.spawnv_passfds(spawn.get_executable(), command, [theirs.fileno(), line.fileno()])
            self.key = os.pidfd_open(self.pid)
        except BaseException:
            self.channel.close()
            self.line.close()
            raise
        finally:
            theirs.close()
            line.close()
        supervisor = _process.timers()
        supervisor.guests[self.key] = self
        supervisor._poller.add_process(self.key)

    def clone(self, request: tuple[Any, ...], fds: list[int]) -> int:
        """Have it make a worker; the worker's number.

        Raises:
            OSError: it is not there any more.
        """
        self.channel.sendmsg([dumps_plain(request)], [(*_RIGHTS, array("i", fds))])
        answer = self.channel.recv(64)
        if not answer:
            raise ConnectionResetError
        pid: int = loads_plain(answer)  # noqa: S302 - our own
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    # what the supervisor calls

    def ready(self, _key: int) -> None:
        """It has ended."""
        global _zygote
        if _zygote is self:
            _zygote = None
        supervisor = _process.timers()
        supervisor.guests.pop(self.key, None)
        supervisor._poller.remove_process(self.key)
        os.close(self.key)
        self.channel.close()
        self.line.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:  # the application has collected it
            return

    def close(self) -> None:
        """The program ends: so does the zygote, at the end of its channel."""
        self.channel.close()

    def kill_all(self) -> None:
        """It holds nothing."""
        os.kill(self.pid, 9)

    def mend(self) -> None:
        """Ctrl-C can't have cut anything short: it is blocked while a worker is started."""

    def abandon(self, *, to_worker: bool) -> None:
        """In a forked child: it is the parent's."""
        os.close(self.key)
        for end in (self.channel, self.line):
            if not to_worker:
                end.close()
            elif end.fileno() >= 0:
                os.close(end.fileno())


_zygote: _Zygote | None = None
_kept: list[Any] = []


def _forget() -> None:
    global _zygote
    _kept.append(_zygote)
    _zygote = None


def start(run: Any, slots: Slots, token: bytes, mask: set[Any]) -> Worker:
    """Start a worker for a run's attempt by way of the zygote. Needs the supervisor's lock, and quiet.

    Raises:
        OSError: no process or descriptor is to be had now.
    """
    global _zygote
    _process.on_fork(_forget)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    parcel = pid = -1
    try:
        ours.setblocking(False)
        if not thread_count():
            _launch._flush()
        parcel, settings = _launch._parcel(run, mask)
        tree = _tree.tree_slots()
        numbered = [*settings["trackers"].values(), *run._parcel.fds]
        fds = [theirs.fileno(), parcel, tree.reader, tree.writer, *_streams(), *numbered]
        for last in (False, True):
            if _zygote is None:
                _zygote = _Zygote()
            changes = _changes(_zygote)
            request = (os.getpid(), tree.size, bool(token) and tree is slots, numbered, changes)
            try:
                pid = _zygote.clone(request, fds)
                break
            except OSError:  # it has been killed, or has left just now
                _zygote.channel.close()  # at its end, if it lives
                _zygote = None
                if last:
                    raise
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        if parcel >= 0:
            os.close(parcel)
    return _launch._watched(_launch.Worker(run, pid, ours, slots, token))


def _changes(zygote: _Zygote) -> dict[str, Any]:
    """What a worker has to make the same as here."""
    changes: dict[str, Any] = {}
    try:
        changes["folder"] = os.getcwd()
    except OSError:  # it is gone
        pass
    environment = dict(os.environ)
    if environment != zygote.environment:
        changes["environment"] = environment
    path = [part for part in sys.path if type(part) is str]
    if path != zygote.path:
        changes["path"] = path
    return changes


def _streams() -> list[int]:
    """Stdout and stderr as they are now; /dev/null for one that is closed."""
    found = []
    for fd in (1, 2):
        try:
            os.fstat(fd)
        except OSError:
            found.append(_process.null())
        else:
            found.append(fd)
    return found


def _timeval(seconds: float) -> bytes:
    parts = int(seconds), int(seconds % 1 * 1e6)
    return b"".join(part.to_bytes(8, sys.byteorder) for part in parts)


# ---------------------------------------------------------------------- the zygote's side


def main(channel_fd: int, line_fd: int, parent: int) -> NoReturn:
    """In the fresh interpreter: make workers until the channel ends, or nobody has asked for long."""
    import ctypes

    import cloudpickle  # noqa: F401 - what every call needs
    from multiprocess import util  # noqa: F401

    from woflo.runners import _worker, multiprocess, thread  # noqa: F401

    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, channel_fd)
    line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, line_fd)
    os.set_inheritable(channel_fd, False)
    os.set_inheritable(line_fd, False)
    os.setpgid(0, 0)
    _worker.hang_on(line, parent)
    _worker.warm_up()
    null = _process.null()
    os.dup2(null, 0)
    import signal

    for number in (signal.SIGINT, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL, as a fork does
    import gc

    gc.freeze()
    while True:
        try:
            data, ancillary, _, _ = channel.recvmsg(_MOST_BYTES, 4096, _CLOEXEC)
        except OSError:
            break
        if not data:
            break
        fds = array("i")
        for _, _, raw in ancillary:
            fds.frombytes(raw[: len(raw) - len(raw) % 4])
        pid = _fork_for_parent(libc)
        if pid == 0:
            os.close(channel_fd)
            os.close(line_fd)
            _become(list(fds), *loads_plain(data))  # noqa: S302 - from our own parent
        for fd in fds:
            os.close(fd)
        channel.send(dumps_plain(pid))
    os._exit(0)


def _fork_for_parent(libc: Any) -> int:
    """A fork whose child is our parent's child; its number, 0 in the child, negative: the error's."""
    import ctypes

    api = ctypes.pythonapi
    api.PyOS_BeforeFork()
    pid = int(libc.syscall(_CLONE, _CLONE_PARENT | _SIGCHLD, 0, 0, 0, 0))
    if pid == 0:
        api.PyOS_AfterFork_Child()
        return 0
    error = ctypes.get_errno()
    api.PyOS_AfterFork_Parent()
    return pid if pid > 0 else -error


def _become(
    fds: list[int], parent: int, size: int, held: bool, numbered: list[int], changes: dict[str, Any]
) -> NoReturn:
    """In the new process: all that it shall have where it shall be, then a spawned worker's life."""
    import fcntl

    from woflo.runners import _worker

    # above all numbers that are wanted, so that none is overwritten before it is where it belongs
    above = max([*numbered, *fds, 64]) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]
    for fd in fds:
        os.close(fd)
    worker, parcel, reader, writer, out, err, *rest = moved
    for fd, number in ((out, 1), (err, 2), *zip(rest, numbered, strict=True)):
        os.dup2(fd, number)
        os.close(fd)
    if "folder" in changes:
        try:
            os.chdir(changes["folder"])
        except OSError:  # as a process that was started there and whose folder is gone
            pass
    if "environment" in changes:
        os.environ.clear()
        os.environ.update(changes["environment"])
    if "path" in changes:
        sys.path[:] = changes["path"]
    _worker.spawned(worker, parcel, parent, (size, reader, writer), held)
