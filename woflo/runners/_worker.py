"""The worker's side: a fresh process that carries out one attempt, sends one frame and is gone.

It never waits for its parent (and nobody may send on the channel without blocking: where its buffer is full, the wake-up
for room would be taken for the hang-up). Its last act is SIGKILL to its own process group: what the task left behind
(grandchildren, threads) ends with it. If the parent dies first, in any way, the kernel does the same: the worker's end of
its channel is armed so that its hang-up sends SIGKILL to the group, without a thread and even while C code holds the GIL.

Between fork and the task nothing may raise, print, or touch what belongs to the parent.
"""

from __future__ import annotations

import _signal
import _socket
import os
import stat
import sys
from _thread import RLock

from woflo import _exceptions, _loading, _notify, _unseen
from woflo.errors import TaskStopped
from woflo.result import StoppedFailure, WorkerFailure
from woflo.runners import _attempt, _death, _process, _progress, _shipping, _tree

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from types import FrameType
    from typing import Any, NoReturn

    from woflo.result import Result
    from woflo.runners._slots import Slots
    from woflo.runners.base import BaseTaskRun

_LINUX = sys.platform == "linux"
_F_SETOWN, _F_SETSIG, _F_GETSIG, _O_ASYNC = 8, 10, 11, 0o20000  # Linux: fcntl.h
_BROKEN = 70  # exit code: woflo's own part of the worker failed; a frame says how, or stderr
_LEAVE_SECONDS = 2  # for multiprocessing's own clean-up after the result was sent: then SIGALRM ends the worker

_UTILS = ("multiprocess.util", "multiprocessing.util")
_places: tuple[_exceptions.Place, ...] = ()  # where the task was when it was asked to stop
_FLUSH_SECONDS = 1.0
_armed = False  # whether SIGTERM raises TaskStopped: only while the task runs
_run: BaseTaskRun[Any] | None = None
_pid = 0  # of the worker: a process that its task forks is not the worker


def warm_up() -> None:
    """In the parent, once: what a child will call of the C library, to no effect."""
    if os.name != "posix":
        return
    null = _process.null()
    os.dup2(null, null)
    fcntl.fcntl(null, fcntl.F_GETFD)
    os.killpg(os.getpgrp(), 0)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    one, other = _socket.socketpair()
    one.send(b"")
    one.close()
    other.close()
    try:
        os.setpgid(0, os.getpgrp())
    except OSError:  # a session's leader may not
        return


def carry_out(
    run: BaseTaskRun[Any],
    channel: socket,
    parent: int,
    streams: bool,
    mask: set[Any],
    signals: list[int],
    libraries: list[str],
    slots: Slots,
    held: bool,
) -> NoReturn:
    """In a forked child: everything from its first instruction to its last.

    Args:
        run: the child's copy of the run.
        channel: this worker's end; the parent's end is closed here already (by the fork hook).
        parent: the parent's process number.
        streams: whether stdout and stderr must be made anew (the parent had threads: a lock of theirs may be held).
        mask: the parent's signal mask; Ctrl-C, or every signal, is blocked around the fork.
        signals: those with a Python handler in the parent.
        libraries: those loaded that want to be told of a fork.
        slots: the tree's slots.
        held: whether the worker has a slot's token (its process's one free child has none).
    """
    try:
        os.setpgid(0, 0)
        hang_on(channel, parent)
        reset_signals(signals)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        os.dup2(_process.null(), 0)
        if sys.stdin is not None:
            sys.stdin = _empty_stdin
        if streams:
            renew_streams()
        if libraries:
            _settle_libraries(libraries)
        _tree.become_worker(channel, slots, held=held)
        if run._context is None:  # forked by the caller itself: this is its context
            _main(run, channel)
        else:
            run._context.run(_main, run, channel)
    except BaseException as error:  # not the task's: Ctrl-C before the signals were reset, or a defect of ours
        kind = _exceptions.type_name(type(error))
        _give_up(channel, f"the worker could not go on: {kind}: {_exceptions.safe_str(error)}", f"woflo: {run.name}: ")
    leave()


def _main(run: BaseTaskRun[Any], channel: socket) -> None:
    global _armed, _pid, _reporting, _run
    _run, _pid = run, os.getpid()
    _reporting = RLock()
    run._progress = _Opener(channel)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold_term, after_in_parent=_let_term, after_in_child=_leave_to_the_task)
    if _notify.observers:
        _notify.forget_observers()
    if _process.chosen.get() is not None:
        _process.chosen.set(None)  # `use` reaches threads and coroutines, not workers
    result: Result[Any] | None = None
    try:
        _armed = True
        if not run._stop_asked:
            result = _attempt.attempt(run)
        _armed = False
    except TaskStopped:  # it came between the task's last instruction and this one's
        _armed = False
    if os.getpid() != _pid:
        _end_as_a_fork(result)
    if result is None:
        result = StoppedFailure("stopped")
    with _reporting:  # a thread of the task may be sending the sheet: nothing else is sent meanwhile, nor after this
        run._progress = _progress.SILENT
    run.args, run.kwargs = (), {}
    flush()
    if not _is_ours(channel):
        _tell_by_dying()
    _shipping.send_result(channel, result, _places)
    _tree.token_is_back()
    if _process.live:
        finish_own_runs(result)


class _Opener(_progress.Silent):
    """Takes a task's first report: makes the sheet and sends it to the parent."""

    __slots__ = ("_channel",)

    def __init__(self, channel: socket) -> None:
        self._channel = channel

    def report(self, run: Any, report: _progress.Report) -> None:
        """Make the sheet, if it can be made; this report is on it when the parent learns of it."""
        with _reporting:
            if run._progress is not self:  # another thread of the task was quicker, or the task has ended
                run._progress.report(run, report)
                return
            run._progress = _progress.SILENT
            if not _is_ours(self._channel):
                return
            try:
                fd = _shipping._memory_file()
            except OSError:
                return
            try:
                writer = _progress.Writer(_progress.map_file(fd))
                writer.report(run, report)
                _shipping.send_sheet(self._channel, fd)
            except (OSError, ValueError):
                return
            finally:
                os.close(fd)
            run._progress = writer


_reporting: Any = RLock()  # held while a sheet is sent, so that no two threads send; a signal handler may report, too
_mask: set[Any] = set()  # the signal mask before the task forked


def _hold_term() -> None:
    """Before the task forks: a SIGTERM must not come between the fork and the child's own answer to it, and be lost."""
    global _mask
    _mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM,))


def _let_term() -> None:
    _signal.pthread_sigmask(_signal.SIG_SETMASK, _mask)


def _leave_to_the_task() -> None:
    """In a process that the task forks (a multiprocessing.Pool's…): SIGTERM ends it, as it would anywhere."""
    if _run is not None:
        _run._progress = _progress.SILENT
    if _signal.getsignal(_signal.SIGTERM) is _on_term:
        try:
            _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        except ValueError:  # forked by a thread of the task: the handler itself sees to it
            pass
    _let_term()


def _end_as_a_fork(result: Result[Any] | None) -> NoReturn:
    """A process that the task forked has come to the task's end: only the worker has a result to send."""
    error = None if result is None or result else result.__cause__
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        _say(_exceptions.format_traceback(error))
    flush()
    os._exit(code & 0xFF)


def _give_up(channel: socket, text: str, who: str) -> NoReturn:
    """Woflo's own part failed: tell the parent by a frame, or else whoever reads stderr."""
    try:
        _shipping.send_result(channel, WorkerFailure(text), ())
    except BaseException:
        _say(who + text)
    os._exit(_BROKEN)


def _tell_by_dying() -> NoReturn:
    """The channel is lost: an exit code tells the parent.

    The task itself may exit with any; so the worker goes over to its parent's group first, which the parent sees.
    """
    try:
        os.setpgid(0, os.getpgid(os.getppid()))
    except OSError:  # another session: the parent will tell of the code only
        pass
    os._exit(_death.CHANNEL_LOST)


def _say(text: str) -> None:
    """Past Python's streams, whose locks and buffers may be anybody's here."""
    try:
        os.write(2, (text + "\n").encode(errors="replace"))
    except OSError:  # the task closed it
        return


def _is_ours(channel: socket) -> bool:
    """Whether the channel's number is still the channel's: a task may have closed it, and opened something else."""
    try:
        fd = channel.fileno()
        if _LINUX:
            return bool(fcntl.fcntl(fd, _F_GETSIG) == _signal.SIGKILL)  # nobody else sets that
    except OSError:
        return False
    else:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)


def hang_on(channel: socket, parent: int) -> None:
    """Tie this process's group to its parent's life."""
    fd = channel.fileno()
    if _LINUX:
        fcntl.fcntl(fd, _F_SETOWN, -os.getpid())
        fcntl.fcntl(fd, _F_SETSIG, 9)
        fcntl.fcntl(fd, fcntl.F_SETFL, _O_ASYNC)
        try:
            channel.send(
                b""
            )  # nothing is sent; it fails if the parent's end closed before the lifeline was armed (execv)
        except OSError:
            os.killpg(0, 9)
    else:
        _watch_in_thread(channel)
    if os.getppid() != parent:  # it died before the lifeline was armed
        os.killpg(0, 9)


def _watch_in_thread(channel: socket) -> None:
    """Where the kernel can't be the lifeline's reader: a thread reads it."""
    import _thread
    import select

    fd = os.dup(channel.fileno())

    def watch() -> None:
        while True:
            select.select([fd], [], [])
            if not os.read(fd, 1):
                os.killpg(0, 9)

    _thread.start_new_thread(watch, ())


def reset_signals(signals: list[int]) -> None:
    """The parent's handlers are not the worker's; the terminal's signals are for the parent; SIGTERM stops the task."""
    if signals:
        _signal.set_wakeup_fd(-1)
        for number in signals:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    _signal.signal(_signal.SIGTTIN, _signal.SIG_IGN)
    _signal.signal(_signal.SIGTTOU, _signal.SIG_IGN)
    _signal.signal(_signal.SIGTERM, _on_term)


def _on_term(_number: int, frame: FrameType | None) -> None:
    """SIGTERM: the task is asked to stop; the first one raises TaskStopped in it."""
    global _armed, _places
    if os.getpid() != _pid:  # a process that the task forked has inherited this handler: for it SIGTERM is SIGTERM
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        os.kill(os.getpid(), _signal.SIGTERM)
        return
    if _run is not None:
        _run._stop_asked = True
    if _armed:
        _armed = False
        if _run is not None and _run.task.timeout is not None:  # else nobody asks where it was
            _places = _exceptions.stack(frame)
        raise TaskStopped


class _EmptyInput:
    """What `sys.stdin` is in a worker: always at its end."""

    encoding, errors, newlines, closed, name, mode = "utf-8", "strict", None, False, "<no stdin in a worker>", "r"

    def read(self, _size: int = -1) -> str:
        return ""

    readline = read

    def readlines(self, _hint: int = -1) -> list[str]:
        return []

    def fileno(self) -> int:
        return 0

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing to close."""

    def __iter__(self) -> _EmptyInput:
        return self

    def __next__(self) -> str:
        raise StopIteration


_empty_stdin: Any = _EmptyInput()


def renew_streams() -> None:
    """Fresh stdout and stderr over the same descriptors: the old ones' locks may be held by threads that stayed behind.

    What the old ones still hold is the parent's to write. A stream that the program replaced by one of its own is left alone.
    """
    global _risky
    for name, fd in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        _risky = _risky or (old is not None and old is not getattr(sys, f"__{name}__"))
        if old is not None and old is getattr(sys, f"__{name}__"):
            try:
                new = open(
                    fd,
                    "w",
                    encoding=old.encoding,
                    errors=old.errors,
                    closefd=False,
                    buffering=1 if old.line_buffering else -1,
                )
            except (OSError, AttributeError):
                continue
            setattr(sys, name, new)
            setattr(sys, f"__{name}__", new)
            _kept.append(old)  # its destructor would write the parent's text once more


_kept: list[Any] = []
_risky = False  # a stream of the program's own was there at the fork, and threads


def _settle_libraries(libraries: list[str]) -> None:
    """What multiprocessing (either of the two) and numpy want to be told in a child that they did not fork."""
    loaded = _loading.loaded
    for name in libraries:
        process = loaded(name + ".process")
        if process is not None:
            process._children = set()
        util = loaded(name + ".util")
        if util is not None:
            util._finalizer_registry.clear()
            util._run_after_forkers()
    random = loaded("numpy.random")
    if random is not None:
        random.seed()  # the global generator: else all workers draw the same numbers


def flush() -> None:
    """Write out what the task printed, before its result is known.

    A stream of the program's own may have a lock that a thread of the parent held at the fork: that flush gets a thread
    and a second, and is given up then. The result counts more than what stays in such a stream.
    """
    if not _risky:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # closed, broken or None, the task's own doing: its result still counts
            _flush_streams()
        return
    import threading

    helper = threading.Thread(target=_flush_streams, daemon=True)
    helper.start()
    helper.join(_FLUSH_SECONDS)


def _flush_streams() -> None:
    for stream in (getattr(sys, "stdout", None), getattr(sys, "stderr", None)):
        if stream is not None:
            try:
                stream.flush()
            except Exception:  # noqa: S112 - a closed or broken stream of the task's own: its result still counts
                continue


def finish_own_runs(result: Result[Any]) -> None:
    """Carry out what the task started and did not wait for; a task that was stopped takes it along."""
    from woflo.runners import _exit

    _exit.finish(stop=not result and isinstance(result, StoppedFailure))


def leave() -> NoReturn:
    """After the result is sent: multiprocessing's clean-up (queues are flushed), then the end of the whole group."""
    utils = [util._exit_function for name in _UTILS if (util := _loading.loaded(name)) is not None]
    if utils:
        _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
        _signal.alarm(_LEAVE_SECONDS)
        for clean_up in utils:
            try:
                clean_up()
            except BaseException:  # noqa: S112 - the result is sent; somebody else's clean-up can't change it
                continue
        flush()
    if _unseen.count:
        from woflo import events

        events.report_unseen()
        flush()
    if os.getpgrp() == os.getpid():
        os.killpg(0, 9)
    os._exit(0)


def spawned(channel_fd: int, parcel_fd: int, parent: int, slots: tuple[int, int, int], held: bool) -> NoReturn:
    """In a spawned interpreter: `carry_out`, with everything read from descriptors."""
    import pickle

    channel: Any = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, channel_fd)
    try:
        os.setpgid(0, 0)
        hang_on(channel, parent)
        reset_signals([])
        os.dup2(_process.null(), 0)
        sys.stdin = _empty_stdin
        _tree.become_worker(channel, _tree.inherit_slots(*slots), held=held)
        with open(parcel_fd, "rb") as file:
            settings, data = pickle.load(file)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, settings["mask"])  # signals were blocked over the exec
        _adopt(settings)
        try:
            run = _shipping.load_call(data).run
            run.attempt = settings["attempt"]
            if run.task.timeout is not None:
                channel.send(_shipping.frame(_shipping.BEGUN))
        except BaseException as error:
            run = _shipping.shell()
            failure = _shipping.broken_call(error)
            flush()
            _shipping.send_result(channel, failure, ())
        else:
            _main(run, channel)
    except BaseException as error:
        kind = _exceptions.type_name(type(error))
        _give_up(channel, f"the worker could not begin: {kind}: {_exceptions.safe_str(error)}", "woflo: ")
    leave()


def _adopt(settings: dict[str, Any]) -> None:
    """The parent's command line and multiprocessing keys."""
    sys.argv[:] = settings["argv"]
    for name, key in settings["keys"].items():
        import importlib

        process: Any = importlib.import_module(name + ".process")
        process.current_process().authkey = key
    for name, fd in settings["trackers"].items():
        import importlib

        tracker: Any = importlib.import_module(name + ".resource_tracker")
        tracker._resource_tracker._fd = fd
