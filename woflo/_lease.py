"""Leases: who is computing a value, so that nobody else on this machine does it at the same time.

Within a process: a table of keys. Between processes: a lock on one byte of one file, at a place that the key names; the
kernel gives it back however the holder ends. Where there is no such lock (another machine, a store that is no directory,
a system without open-file locks) two may compute the same value: both get it right, and one of them was idle work.
"""

from __future__ import annotations

import os
from _thread import get_ident
from errno import EACCES, EAGAIN, ENOLCK, ENOTSUP

from woflo.runners import _process

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from woflo.runners.base import BaseTaskRun

__all__ = ["Lease", "take"]

_SET_LOCK = getattr(
    fcntl, "F_OFD_SETLK", None
)  # POSIX locks proper belong to the process: a second thread would share them
_PLACES = 1 << 62  # offsets in the file: two keys at one place would only wait for each other


class Lease:
    """The right to compute the value of a key.

    Attributes:
        run: the run that does it.
        thread: which called for it.
    """

    __slots__ = ("_fd", "_key", "run", "thread")

    def __init__(self, key: Any, run: BaseTaskRun[Any]) -> None:
        self._key = key
        self._fd = -1
        self.run = run
        self.thread = get_ident()

    def give(self) -> None:
        """The value is there, or will not come from here."""
        if _held.get(self._key) is self:
            del _held[self._key]
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


_held: dict[Any, Lease] = {}  # in this process, by place (or mapping) and key


def take(place: str | None, mapping: object, key: str, run: BaseTaskRun[Any]) -> Lease | None:
    """Take the lease of a key for a run: its own, or the one of another run of this process; None: another process has it.

    Args:
        place: the file to lock; None: only this process is asked.
        mapping: under the store: what tells the same key in two stores apart, if there is no such file.
        key: hex.
        run: that wants it.

    Raises:
        OSError: the file can't be opened.
    """
    lease = Lease((place or id(mapping), key), run)
    other = _held.setdefault(lease._key, lease)
    if other is not lease:
        return other
    if place is None or _SET_LOCK is None:
        return lease
    try:
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if _lock(fd, int(key[:16], 16) % _PLACES):
                lease._fd = fd
                return lease
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    except BaseException:
        lease.give()
        raise
    lease.give()
    return None


def _lock(fd: int, place: int) -> bool:
    import struct

    # struct flock of 64-bit Linux: type, whence, start, length, pid (0 for open-file locks)
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
    try:
        fcntl.fcntl(fd, int(_SET_LOCK or 0), wanted)
    except OSError as error:
        if error.errno in {EAGAIN, EACCES}:
            return False
        if error.errno in {ENOLCK, ENOTSUP}:  # a file system without locks
            return True
        raise
    return True


def _forget() -> None:
    """In a forked child: these are the parent's, which keeps its locks when the copies are closed."""
    for lease in list(_held.values()):
        if lease._fd >= 0:
            os.close(lease._fd)
            lease._fd = -1
    _held.clear()


_process.on_fork(_forget)
