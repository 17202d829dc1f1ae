"""How far a task says it is, and how its run comes to know.

    in this process   progress() ──→ Reports of the run ─────────────────────────┐
    in a worker       progress() ──→ Writer ──→ sheet: memory or a file ─ source ┴→ newest ──→ told, at most every 0.1 s

A sheet holds the newest report and nothing else: whoever writes overwrites, whoever reads comes when it likes, so no worker
waits for its parent, nothing piles up, and what a worker wrote stays readable when it was killed. The first report makes
the sheet, where there is none yet, and lets the parent know.

`run._progress` is None as long as nothing is known. In the process that owns the run it is then its `Reports`, of one
attempt; in a worker it is what takes its reports: an opener at first, then a `Writer`, `SILENT` when the attempt has ended.

Rule 1: an attempt that has ended reports nothing more. Rule 2: the last report is told before the end is. Rule 3: observers
are called with no lock held, by the background thread; in the task's own only where a run is carried out in place.
"""

from __future__ import annotations

import os
from collections import namedtuple
from contextvars import ContextVar
from marshal import dumps, loads
from time import monotonic

from woflo import _notify
from woflo.errors import UsageError
from woflo.runners import _process
from woflo.runners._attempt import attempt_here, current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NamedTuple

    Report = tuple[float, float | None, str]

    class _Fields(NamedTuple):
        done: float
        total: float | None
        message: str

else:
    _Fields = namedtuple("_Fields", "done total message")  # noqa: PYI024 - typing costs 5 ms at import

__all__ = ["Progress", "progress"]

_PAUSE = 0.1  # seconds between two reports of a run that observers are told of: as often as anybody can read
_FIRST = 0.5  # seconds between two looks for a first report, where nothing announces it
_MOST = 2**63  # done and total are below it
_CHARACTERS = 1_000  # of a message
_HALF = 4_096  # bytes of a report: a message takes 4 a character at most, and there is room for the rest
SHEET_BYTES = 2 * _HALF  # two places in turn: one is whole, whenever the writer is killed


class Progress(_Fields):
    """How far a task has said it is.

    Attributes:
        done: how much is done, in the task's own unit.
        total: how much there is to do; None if the task didn't say. May be less than `done`: an estimate was too low.
        message: what it is at.
    """

    __slots__ = ()


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Say how far the calling task is.

    `run.progress` is the newest report; observers get it as `RunProgress`, at most every 0.1 s and the last one in any
    case. It never waits, on no runner, and costs about a microsecond. Outside of a task nothing happens. In a thread that
    the task has started it counts where `current_run()` knows the run, as under `asyncio.to_thread`; in a process that
    the task has started it does not.

    Args:
        done: how much is done, in any unit; a number from 0 up. It may pass `total`, and may go down.
        total: how much there is to do; None if that isn't known.
        message: a short line about what is being done; cut after 1,000 characters.

    Raises:
        UsageError: `done` or `total` is no such number, or `message` no text.
    """
    if (done.__class__ is not int and done.__class__ is not float) or not 0 <= done < _MOST:
        done = _number("done", done)
    if total is not None and ((total.__class__ is not int and total.__class__ is not float) or not 0 <= total < _MOST):
        total = _number("total", total)
    if message.__class__ is not str or len(message) > _CHARACTERS:
        message = _line(message)
    run = current.get()
    if run is not None:
        (run._progress or of(run)).report(run, (done, total, message))


def _number(name: str, value: Any) -> float:
    """A number of any kind (numpy's, a Fraction) as one of Python's own."""
    kind, number = type(value), -1.0
    if kind is not bool:
        try:
            number = (
                value.__index__() if hasattr(kind, "__index__") else float(value) if hasattr(kind, "__float__") else -1
            )
        except (TypeError, ValueError, OverflowError):
            pass
    if not 0 <= number < _MOST:
        known = ", or None" if name == "total" else ""
        raise UsageError(f"progress(): {name} must be a number from 0 up{known}, not {value!r}")
    return number


def _line(message: Any) -> str:
    if not isinstance(message, str):
        raise UsageError(f"progress(): message must be a text, not {message!r}")
    return str(message)[:_CHARACTERS]


# ---------------------------------------------------------------------- in the process that owns the run


class Reports:
    """What is known of one attempt's reports, and what of it was told."""

    __slots__ = ("_due", "_newest", "_pending", "_timer", "_told", "_turn", "attempt", "bound", "followers", "source")

    def __init__(self, run: Any) -> None:
        self.attempt: int = run.attempt
        self.bound = not run.task.simple  # whether an earlier attempt's code may still be there
        self.source: Callable[[], tuple[int, Report] | None] | None = (
            None  # reads the sheet, where the task is elsewhere
        )
        self.followers: tuple[Callable[[Any, Report], object], ...] = ()  # told beside the observers
        self._newest: Report | None = None
        self._turn = 0  # of the newest, on its sheet
        self._told: Report | None = None
        self._due = 0.0  # before this moment nothing is told
        self._pending = False  # somebody will look
        self._timer: Any = None

    def report(self, run: Any, report: Report) -> None:
        """The task, in this process, says how far it is."""
        if run._result is not None or (self.bound and attempt_here.get() != self.attempt):
            return
        self._newest = report
        if (_notify.listening or self.followers) and not self._pending:
            if run._in_place and monotonic() >= self._due:
                self._tell(run)
            else:
                self.arrange(run)

    def look(self) -> Report | None:
        """The newest report."""
        source = self.source
        if source is not None and (found := source()) is not None:
            with _process.state:  # another thread may be looking, too
                if found[0] > self._turn:
                    self._turn, self._newest = found
        return self._newest

    def keep(self, report: Report) -> None:
        """The newest report has come by another way, and is the last."""
        self.source, self._newest = None, report

    def arrange(self, run: Any) -> None:
        """Have the newest report told as soon as it may be, if anybody wants to know."""
        if self._pending or run._result is not None or not (_notify.listening or self.followers):
            return
        self._pending = True

        def appoint() -> None:
            if not run._attended:
                run._attend()
            left = max(0.0, self._due - monotonic())
            self._timer = _process.timers().call_later(left, lambda: self._tell(run))

        try:
            run._undisturbed(appoint)
        except OSError:  # no descriptor is left for a poller: the last report is told with the end
            return

    def _tell(self, run: Any) -> None:
        self._pending = False  # first this, then the look: whoever reports does it the other way round
        report = self.look()
        if run._progress is not self or run._result is not None:
            return
        if report is not None and report is not self._told:
            self._due = monotonic() + _PAUSE
            self._emit(run, report)
        if self.source is not None:  # the task is elsewhere: nobody calls when it reports again
            self._due = monotonic() + (_PAUSE if report is not None else _FIRST)
            self.arrange(run)

    def _emit(self, run: Any, report: Report) -> None:
        if _notify.listening:
            _notify.reported(run, *report)
        for follower in self.followers:
            follower(run, report)
        self._told = report  # not before: the end tells of it once more rather than come first

    def end(self, run: Any) -> None:
        """The attempt has ended, and its end is about to be told."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        report = self.look()
        self.source = None
        if report is not None and report is not self._told and (_notify.listening or self.followers):
            self._emit(run, report)

    def next(self, run: Any) -> Reports | None:
        """What the next attempt begins with."""
        if not self.followers:
            return None
        fresh = Reports(run)
        fresh.followers = self.followers
        return fresh


here: ContextVar[tuple[Any, Callable[[Any, Report], object]] | None] = ContextVar("woflo.follower", default=None)
"""A task that is about to be called in place, and who follows its run."""


def of(run: Any) -> Any:
    """What takes a run's reports; made if there is nothing yet."""
    with _process.state:
        if run._progress is None:
            run._progress = Reports(run)
            if run._in_place and (wanted := here.get()) is not None and wanted[0] is run.task:
                run._progress.followers = (wanted[1],)
        return run._progress


def follow(run: Any, follower: Callable[[Any, Report], object]) -> None:
    """Have `follower(run, report)` called with what observers are told of this run, whoever observes."""
    reports = of(run)
    if follower in reports.followers:
        return
    reports.followers = (*reports.followers, follower)
    if run._result is not None:
        if (report := reports.look()) is not None:
            follower(run, report)
    elif reports.source is not None or reports.look() is not None:
        reports.arrange(run)


def _look_again() -> None:
    """Somebody has begun to observe: what was reported already is news to them."""
    for run in list(_process.live):
        if run._progress is not None:
            run._progress.arrange(run)


_notify.at_observe.append(_look_again)


# ---------------------------------------------------------------------- in a worker


class Silent:
    """Takes reports and drops them: the attempt has ended, or there is no way to tell anybody."""

    __slots__ = ()

    def report(self, run: Any, report: Report) -> None:
        """Nobody is told."""

    def end(self, run: Any) -> None:
        """Nothing is left to be told."""

    def look(self) -> Report | None:
        """Nothing is known."""
        return None


SILENT = Silent()


class Writer(Silent):
    """Writes the reports of one call on a sheet."""

    __slots__ = ("_check", "_key", "_memory", "_turn")

    def __init__(self, memory: Any, key: int = 0) -> None:
        from binascii import crc32

        self._memory = memory
        self._key = key  # of the call, where calls share a sheet
        self._turn = 0
        self._check = crc32

    def report(self, run: Any, report: Report) -> None:  # noqa: ARG002
        """Write it where the one before the last was."""
        self._turn = turn = self._turn + 1
        data = dumps((self._key, turn, report))
        at = turn % 2 * _HALF
        head = self._check(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
        self._memory[at : at + 8 + len(data)] = head + data

    def look(self) -> Report | None:
        """The newest report."""
        found = read(self._memory, self._key)
        return None if found is None else found[1]


def read(memory: Any, key: int = 0) -> tuple[int, Report] | None:
    """What a sheet says of a call: how many reports there were, and the newest; None if nothing.

    It may be written at this moment: what doesn't agree with its check is passed over.
    """
    from binascii import crc32

    best: tuple[int, Report] | None = None
    for at in (0, _HALF):
        size = int.from_bytes(memory[at + 4 : at + 8], "little")
        if not 0 < size <= _HALF - 8:
            continue
        data = bytes(memory[at + 8 : at + 8 + size])
        if crc32(data) == int.from_bytes(memory[at : at + 4], "little"):
            whose, turn, report = loads(data)  # noqa: S302 - from our own worker, as the results are
            if whose == key and (best is None or turn > best[0]):
                best = turn, report
    return best


def map_file(fd: int) -> Any:
    """The memory of a new sheet behind a descriptor, which may be closed.

    Raises:
        OSError: there is no room, or no more memory to be mapped.
    """
    from mmap import mmap

    os.ftruncate(fd, SHEET_BYTES)
    return mmap(fd, SHEET_BYTES)


class SheetFile(Silent):
    """A sheet with a path, where a worker shares no descriptor with its parent; the first report makes it."""

    __slots__ = ("_path", "_writer")

    def __init__(self, path: str) -> None:
        self._path = path
        self._writer: Any = None

    def report(self, run: Any, report: Report) -> None:
        """Make the sheet, if it can be made, and write."""
        if self._writer is None:
            self._writer = SILENT
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
                fd = os.open(self._path, flags, 0o600)
                try:
                    self._writer = Writer(map_file(fd))
                finally:
                    os.close(fd)
            except (OSError, ValueError):
                pass
        self._writer.report(run, report)

    def look(self) -> Report | None:
        """The newest report."""
        found: Report | None = None if self._writer is None else self._writer.look()
        return found

    def close(self) -> Report | None:
        """The call has ended: take the file away; the last report."""
        last = self.look()
        self._writer = SILENT
        if last is None:
            return None
        try:
            os.unlink(self._path)
        except OSError:  # Windows: it is mapped still; the folder that it is in is about to go
            pass
        return last


def read_file(path: str) -> tuple[int, Report] | None:
    """What the sheet with this path says; None as long as there is none of our own."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        return None
    with open(fd, "rb", buffering=0) as file:
        if hasattr(os, "getuid") and os.fstat(fd).st_uid != os.getuid():
            return None
        data = file.read(SHEET_BYTES)
    return read(data) if len(data) == SHEET_BYTES else None
