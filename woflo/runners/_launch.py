"""Starting a worker, and the parent's handle on it.

Two ways: `fork` (our own: socketpair, fork, close, pidfd, in that order under the supervisor's lock) and `spawn` (a fresh
interpreter, through multiprocess' machinery; also what `fork` falls back to while CPython 3.12.0 and 3.12.1 refuse to
fork at exit). Descriptors per live worker: its channel and its pidfd; a failed start leaves none.
"""

from __future__ import annotations

import _signal
import _socket
import os
import sys
from _thread import _count as thread_count
from _thread import get_ident
from time import monotonic

from woflo import _collector, _loading
from woflo.runners import _attempt, _poller, _process, _progress, _shipping, _tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, ClassVar

    from woflo.runners._calm import Calm
    from woflo.runners._slots import Slots

_KNOWN = sys.stdlib_module_names | {"IPython", "ipykernel", "loguru", "tornado", "tqdm", "woflo", "zmq"}
_threads_named = False
_price_named = False
_SLOW_FORK_SECONDS = 0.02  # of the parent; an ordinary one takes half a millisecond
_LARGE_BYTES = 512 << 20  # resident: from here on the parent's memory is what a slow fork is about
_modules = 0  # how many were loaded when they were last looked at
_libraries: list[str] = []  # those that want to be told of a fork


class Worker:
    """The parent's handle on one worker process; guarded by the supervisor's lock."""

    __slots__ = (
        "body_fds",
        "channel",
        "data",
        "fd",
        "gone",
        "killer",
        "left_group",
        "lent",
        "open",
        "pid",
        "process_key",
        "run",
        "sheet",
        "slots",
        "strays",
        "timed_out",
        "token",
        "told",
    )

    def __init__(self, run: Any, pid: int, channel: Any, slots: Slots | None, token: bytes | None) -> None:
        self.run: Any = run
        self.pid: int = pid
        self.channel: Any = channel
        self.fd: int = channel.fileno() if channel is not None else -1
        self.process_key: int = -1
        self.slots: Slots | None = slots
        self.token: bytes | None = token
        self.data: bytes = b""
        self.body_fds: list[int] = []  # memfds that came with frames
        self.open: bool = True  # whether the poller watches the channel
        self.lent: bool = False  # whether the worker has lent its token
        self.told: bool = False  # whether its result or its death has been noted
        self.timed_out: bool = False
        self.left_group: bool = False  # whether it was in a group other than its own when it ended
        self.killer: Any = None  # the timer of its SIGKILL
        self.strays: set[int] = set()  # descendants seen outside its group, where no signal of ours reaches them
        self.sheet: Sheet | None = None  # of its task's reports
        self.gone: bool = False  # reaped: its number may be somebody else's

    def wanted(self, usual: int) -> int:
        """How many bytes to ask the channel for: the rest of a frame that has begun, or the usual."""
        if len(self.data) >= _shipping.HEADER_BYTES:
            size = int.from_bytes(self.data[1:9], "little")
            return max(usual, min(size, _shipping.INLINE_BYTES))
        return usual

    def adopt(self, raw: bytes) -> None:
        """Keep the descriptors that came with a message."""
        for at in range(0, len(raw) - len(raw) % 4, 4):
            self.body_fds.append(int.from_bytes(raw[at : at + 4], sys.byteorder))

    def next_frame(self) -> tuple[bytes, Any] | None:
        """The next complete frame: its kind, and its body or the descriptor it is in; None if there is none yet."""
        data = self.data
        if len(data) < _shipping.HEADER_BYTES:
            return None
        kind, size = data[:1], int.from_bytes(data[1:9], "little")
        if kind not in _shipping.KINDS or (kind != _shipping.LARGE and size > 2 * _shipping.INLINE_BYTES):
            self.data = b""  # not ours: the task has written into the channel; what follows can't be trusted
            return None
        if kind in {_shipping.LARGE, _shipping.SHEET}:
            end = _shipping.HEADER_BYTES + (kind == _shipping.LARGE)  # which says in one more byte what the file holds
            if len(data) < end or not self.body_fds:
                return None
            self.data = data[end:]
            return data[9:end] or kind, self.body_fds.pop(0)
        end = _shipping.HEADER_BYTES + size
        if len(data) < end:
            return None
        self.data = data[end:]
        return kind, data[9:end]

    def signal(self, number: int) -> None:
        """Signal the worker's group, as long as it is not reaped. Needs the supervisor's lock."""
        if self.gone:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:  # it has no group of its own yet: it was started a moment ago
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:  # ended, and reaped by somebody else (waitpid(-1), SIGCHLD ignored)
                return
        except PermissionError:  # only strangers are left in the group (a task changed its user)
            return

    def look_at_group(self) -> None:
        """Before it is reaped: see whether it has left its group, which says that its exit code is ours and not the task's."""
        try:
            self.left_group = os.getpgid(self.pid) != self.pid
        except (
            ProcessLookupError,
            PermissionError,
        ):  # reaped by somebody else, or this system tells nothing of the dead
            return

    def reap(self) -> int | None:
        """End what is left of the group, then collect the leader; its exit code, negative for a signal, None if stolen."""
        try:
            if self.process_key >= 0:
                _signal.pidfd_send_signal(self.process_key, 0)
            elif hasattr(os, "waitid"):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except (
            ProcessLookupError,
            ChildProcessError,
        ):  # the application reaped it: the number may be anybody's, no signal is safe
            self.gone = True
            return None
        self.signal(_signal.SIGKILL)
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            self.gone = True
            return None
        self.gone = True
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Close what the parent holds of it."""
        if self.killer is not None:
            self.killer.cancel()
        self.channel.close()
        if self.sheet is not None:
            self.sheet.close()
        if self.process_key >= 0:
            os.close(self.process_key)
        for fd in self.body_fds:
            os.close(fd)

    def end(self, grace: float) -> None:
        """SIGTERM to the group now, SIGKILL after `grace` seconds."""
        supervisor = _process.timers()
        with supervisor.lock:
            if self.gone:
                return
            found = strays(self.pid)  # first: whose parent has ended is nobody's descendant any more
            if grace > 0:
                self.signal(_signal.SIGTERM)
                self.signal(_signal.SIGCONT)  # a stopped process takes no SIGTERM
            else:
                self.signal(_signal.SIGKILL)
            if found:
                self.strays.update(found)
        if grace > 0:
            self.killer = supervisor.call_later(grace, self._kill)

    def _kill(self) -> None:
        """The grace is over."""
        with _process.timers().lock:
            if not self.gone:
                self.strays.update(strays(self.pid))
                self.signal(_signal.SIGKILL)

    def overdue(self) -> None:
        """The attempt's time is up."""
        if not self.told:
            self.timed_out = True
            self.end(_attempt.GRACE)


class Sheet:
    """The parent's hold on what a worker's task reports: a descriptor, and what was read last when that is closed."""

    __slots__ = ("_data", "fd")
    held: ClassVar[set[Sheet]] = set()  # those that are open; guarded by the supervisor's lock, as all of this

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._data = b""
        self.held.add(self)

    def read(self) -> tuple[int, Any] | None:
        """How many reports there were, and the newest."""
        with _process.timers().lock:
            if self.fd >= 0:
                self._data = os.pread(self.fd, _progress.SHEET_BYTES, 0)
        return _progress.read(self._data)

    def close(self) -> None:
        """Its worker has ended."""
        if self.fd >= 0:
            self._data = os.pread(self.fd, _progress.SHEET_BYTES, 0)
            os.close(self.fd)
            self.fd = -1
            self.held.discard(self)

    @classmethod
    def abandon(cls) -> None:
        """In a forked child: they are the parent's."""
        while cls.held:
            sheet = cls.held.pop()
            os.close(sheet.fd)
            sheet.fd = -1


def strays(pid: int) -> list[int]:
    """The descendants of a process that have left its group (Linux; elsewhere none are found).

    Those whose parent has ended meanwhile are nobody's descendants any more and stay unknown.
    """
    found: list[int] = []
    todo = [pid]
    while todo:
        parent = todo.pop()
        try:
            fd = os.open(f"/proc/{parent}/task/{parent}/children", os.O_RDONLY)  # half the price of open()
            try:
                numbers = os.read(fd, 65536)
            finally:
                os.close(fd)
            if not numbers:
                continue
            children = [int(number) for number in numbers.split()]
            found.extend(child for child in children if os.getpgid(child) != pid)
        except (OSError, ValueError):  # ended while we looked
            continue
        todo.extend(children)
    return found


# by the parent's own name for it, without a look at a module
_watch_process: Callable[[int], int] = os.pidfd_open if _poller.by_pidfd else _poller.watch_process
_worker: Any = None  # the worker's side, loaded by `prepare`: nothing is imported between fork and task


def prepare() -> None:
    """Before the first fork: load what the child needs, and have the C library's functions that it calls bound.

    A function's first call looks its name up and writes where it was found: about ten page faults, in each child anew.
    """
    global _worker
    if _worker is not None:
        return
    from woflo.runners import _worker as module

    _worker = module
    module.warm_up()


def nobody(run: Any) -> Worker:
    """The handle of a worker that could not be started."""
    worker = Worker(run, 0, None, None, None)
    worker.gone = worker.told = True
    return worker


def launch(  # noqa: PLR0915 - all in one piece: every function called between two forks costs page faults
    run: Any, slots: Slots, token: bytes, calm: Calm
) -> Worker:
    """Start a worker for a run's attempt. Needs the supervisor's lock, and quiet.

    Raises:
        OSError: no process or descriptor is to be had now.
    """
    mask, signals, _ = calm
    assert mask is not None  # noqa: S101 - whoever calls has made it so
    if run._spawns:
        return (run._starter or _spawn)(run, slots, token, mask)
    threads = thread_count()
    if threads:
        _name_the_risk()
    else:  # with threads, the child gets fresh streams instead: flushing might wait for another thread's write
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # closed, its reader gone, or None: the program's own business
            pass
    if len(sys.modules) != _modules:
        _look_at_modules()
    parent = os.getpid()
    pid = -1
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    try:
        ours.setblocking(False)
        _process.forking = True
        begin = monotonic()
        try:
            try:
                pid = os.fork()
            except RuntimeError:
                if not sys.is_finalizing() and not _process.exiting:
                    raise
            if pid == 0:
                ours.close()  # else the lifeline would never hang up
                _worker.carry_out(run, theirs, parent, threads > 0, mask, signals, _libraries, slots, bool(token))
        finally:
            _process.forking = False
        if pid < 0:
            ours.close()
            run._pack()  # CPython 3.12.0 and 3.12.1: no fork from the first moment of exit, but a fresh interpreter
            return _spawn(run, slots, token, mask)
    except BaseException:
        _undo(pid, ours)
        raise
    finally:
        theirs.close()
    if monotonic() - begin > _SLOW_FORK_SECONDS:
        _name_the_price()
    worker = Worker(run, pid, ours, slots, token)
    try:
        worker.process_key = _watch_process(pid)
    except ProcessLookupError:  # it has ended, and the application has reaped it: what it sent still counts
        worker.gone = True
    except OSError:
        _give_up(worker)
        raise
    return worker


def _undo(pid: int, channel: Any) -> None:
    """A signal's handler has raised, or no process is to be had: a worker must not live unknown."""
    if pid > 0:
        os.kill(pid, _signal.SIGKILL)
        os.waitpid(pid, 0)
    channel.close()


def _name_the_price() -> None:
    """Say once that forking has become expensive because this process is large, and what the cure is."""
    global _price_named
    if _price_named:
        return
    try:
        with open("/proc/self/statm", "rb") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # another system
        return
    if resident < _LARGE_BYTES:  # a busy machine
        return
    _price_named = True
    text = (
        f"each run forks this process, which holds {resident / 2**30:.1f} GiB: that takes about "
        f"{31 * resident / 2**30:.0f} ms a run. runner=MultiprocessTaskRun.using(process_type=ForkServerProcess) doesn't pay "
        "for it, nor does PoolTaskRun"
    )

    def warn() -> None:
        from woflo import events

        events.warn(text)

    _process.news.append(warn)


def _flush() -> None:
    """Write out what the program has printed before what its worker prints; what is in the buffers would appear twice."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # closed, its reader gone, or None: the program's own business
        pass


def _give_up(worker: Worker) -> None:
    """No descriptor is left to watch it with, so it must not live."""
    worker.signal(_signal.SIGKILL)
    os.waitpid(worker.pid, 0)
    worker.channel.close()


def _look_at_modules() -> None:
    """Which of the libraries that want to be told of a fork are loaded; asked anew when modules have been loaded."""
    global _modules, _libraries
    _modules = len(sys.modules)
    _libraries = [name for name in ("multiprocess", "multiprocessing", "numpy.random") if name in sys.modules]


def _is_busy(frame: FrameType | None) -> bool:
    """Whether a thread is inside code that may hold a lock which its library doesn't look after at a fork.

    An idle thread of a pool, asyncio's watchers and a notebook's helpers are inside of well-known libraries only.
    """
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _KNOWN:
            return True
        frame = frame.f_back
    return False


def _name_the_risk() -> None:
    """Say once that a fork of a process with threads carries a risk, and what the cure is."""
    global _threads_named
    if _threads_named:
        return
    threading = _loading.loaded("threading")
    if threading is None:
        return
    frames, spared = _collector.frames(), (get_ident(), threading.main_thread().ident)
    others = [
        thread
        for thread in threading.enumerate()
        if thread.ident not in spared and type(thread).__name__ != "_DummyThread" and _is_busy(frames.get(thread.ident))
    ]
    del frames
    if not others:
        return
    _threads_named = True
    names = ", ".join(t.name for t in others[:3]) + (", …" if len(others) > 3 else "")
    text = (
        f"a process is forked while other threads are at work ({names}): "
        "a lock that one of them holds stays locked in the worker. If a task hangs, give it "
        "runner=MultiprocessTaskRun.using(process_type=SpawnProcess)"
    )

    def warn() -> None:
        from woflo import events

        events.warn(text)

    _process.news.append(warn)


def _parcel(run: Any, mask: set[Any]) -> tuple[int, dict[str, Any]]:
    """A memfd with what a spawned worker needs to know, and the part of it that is about this process."""
    import pickle

    trackers = {}
    for name in ("multiprocess", "multiprocessing"):
        module = sys.modules.get(name + ".resource_tracker")
        fd = getattr(getattr(module, "_resource_tracker", None), "_fd", None)
        if fd is not None:
            trackers[name] = fd
    keys = {
        name: bytes(process.current_process().authkey)
        for name in ("multiprocess", "multiprocessing")
        if (process := _loading.loaded(name + ".process")) is not None
    }
    settings = {
        "argv": sys.argv,
        "keys": keys,
        "trackers": trackers,
        "attempt": run.attempt,
        "mask": {int(number) for number in mask},
    }
    parcel = _shipping._memory_file()
    try:
        with open(parcel, "wb", closefd=False) as file:
            pickle.dump((settings, run._parcel.data), file, 5)
        os.lseek(parcel, 0, os.SEEK_SET)
    except BaseException:
        os.close(parcel)
        raise
    return parcel, settings


def _spawn(run: Any, slots: Slots, token: bytes, mask: set[Any]) -> Worker:
    from multiprocess import spawn, util

    if not thread_count():
        _flush()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    parcel = -1
    try:
        ours.setblocking(False)
        parcel, settings = _parcel(run, mask)
        tree = _tree.tree_slots()
        tokens = (tree.size, tree.reader, tree.writer)
        code = (
            f"import sys; sys.path[:] = {[p for p in sys.path if type(p) is str]!r}; from woflo.runners._worker import spawned; "
            f"spawned({theirs.fileno()}, {parcel}, {os.getpid()}, {tokens!r}, {bool(token) and tree is slots!r})"
        )
        command = [spawn.get_executable(), *util._args_from_interpreter_flags(), "-c", code]
        passed = [
            theirs.fileno(), parcel, tree.reader, tree.writer, *settings["trackers"].values(), *run._parcel.fds
        ]  # fmt: skip
        pid = util.spawnv_passfds(spawn.get_executable(), command, passed)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        if parcel >= 0:
            os.close(parcel)
    return _watched(Worker(run, pid, ours, slots, token))


def _watched(worker: Worker) -> Worker:
    """A worker that can be watched; one that can't must not live."""
    try:
        worker.process_key = _poller.watch_process(worker.pid)
    except ProcessLookupError:  # it has ended, and the application has reaped it: what it sent still counts
        worker.gone = True
    except OSError:
        _give_up(worker)
        raise
    return worker
