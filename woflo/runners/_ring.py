"""What a pool and its workers share: a queue of messages, the right to run each call, and the results.

One message carries one call or several; any worker may take it. The right to run a message's next call is a *unit* of its
slot's semaphore: a worker takes one before each call, the pool may take back what is left. So nothing is ever in hand but
the call that runs, and who runs a call is decided by one atomic step, whoever dies around it. A result is public (its bytes
are in the slot's region, its end in `ends`) before the next unit is taken.

All of it is made before the first worker is forked and has no name: the memory is an anonymous mapping, the semaphores
are unlinked when they are made. This file knows neither runs nor processes; Linux only (`supported`).
"""

from __future__ import annotations

import os
import sys
from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CALLS = 256  # in one message at most: an entry of `ends` each
REGION_BYTES = 65_536  # of a slot's results; larger ones travel in a memfd
HANDED_ON_BYTES = 16_384  # of a result that later calls of its message get from the worker; it keeps up to 256
WORD_BYTES = 8
MESSAGE_BYTES = 131_072  # a message is at most so large

# Words of a worker's row. Written by the worker:
SERIAL = 0  # of the message that it took last
LEAVING = 1  # it takes no further message; an idle one looks at the queue for the last time
READY = 2  # its initializer has returned
DIRTY = 6  # the serial of a message whose calls have left its state changed
# … and by the pool:
STOP = 3  # the call that is to be stopped (`call_number`)
ASKED = 4  # how many SIGTERMs have been sent to it
LEAVE = 5  # take no further call

# Words of a slot's head. Written by the worker that takes the message; the pool clears them before it is sent.
TAKEN = 0  # the worker's row + 1
DONE = 1  # the message's serial: no more of its calls are run by this worker
SINCE = 2  # when it was taken, CLOCK_MONOTONIC in ns
TOOK = 3  # how long all of its calls took, ns
SAID = 4  # the call (`call_number`) of a message of this slot that was the last to report progress

# Flags of a message.
NOTICE = 1  # the pool wants to be told when it is taken
ROOM = 4  # an arena comes with it: the call lies in it, or it is room for a large result
WIRED = 8  # calls in it need results of earlier ones
CLEAN = 2  # its functions have left nothing changed so far, and are short

_ROW = 8  # words of a row, and of a head

# What an entry of `ends` says: the end of the result in the region, times 16, plus one of these. 0: no result yet.
NONE, OK, FAILURE, STOPPED, LARGE = 1, 2, 3, 4, 5
BACK, ARENA = 6, 7  # in the arena that came with the call; in one that the worker has made and sent
SKIPPED = 8  # not run: an earlier call of the message that it needs has failed

ordered: bool = os.uname().machine in {"x86_64", "i686", "AMD64"} if hasattr(os, "uname") else False
"""Whether other processors see stores in the order in which they are made; else a semaphore counts the results."""

supported: bool = sys.platform == "linux" and hasattr(os, "eventfd")
_names = count(1)


def call_number(serial: int, index: int) -> int:
    """One number for a call of a message."""
    return serial * 512 + index + 1


class Ring:
    """The shared things of one pool."""

    def __init__(self, slots: int, rows: int, idle_seconds: float, sheet_bytes: int) -> None:
        """Make all of it.

        Args:
            slots: how many messages can be out at once.
            rows: how many workers there can be.
            idle_seconds: how long a worker waits for a message.
            sheet_bytes: what a slot has for the progress that its call reports.

        Raises:
            OSError: no descriptor, memory or semaphore is to be had.
        """
        import _socket
        from mmap import mmap

        self.slots = slots
        self.rows = rows
        self._open: list[Any] = []
        words = (rows + slots + 1) * _ROW * WORD_BYTES
        self.sent = (rows + slots) * _ROW  # the word that counts the messages sent
        self.news = self.sent + 1  # the word that is not 0 if a call has begun to report progress
        ends = slots * CALLS * 4
        sheets = words + ends + slots * REGION_BYTES
        self.memory = mmap(-1, sheets + slots * sheet_bytes)
        whole = memoryview(self.memory)
        self.words = whole[:words].cast("q")
        self.ends = [whole[at : at + CALLS * 4].cast("I") for at in range(words, words + ends, CALLS * 4)]
        first = words + ends
        self.regions = [
            whole[at : at + REGION_BYTES] for at in range(first, first + slots * REGION_BYTES, REGION_BYTES)
        ]
        self.sheets = [whole[at : at + sheet_bytes] for at in range(sheets, sheets + slots * sheet_bytes, sheet_bytes)]
        self.bell = self.functions = -1
        self.counters: list[int] = []  # descriptors
        self.units: list[Any] = []
        self.results: list[Any] = []
        try:
            for _ in range(slots):
                self.units.append(self._semaphore())
                self.results.append(None if ordered else self._semaphore())
            self.sender, self.queue = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
            self._open += [self.sender, self.queue]
            self.sender.setblocking(False)
            whole_seconds = int(idle_seconds)
            timeval = [whole_seconds, int((idle_seconds - whole_seconds) * 1e6)]
            packed = b"".join(part.to_bytes(8, sys.byteorder) for part in timeval)
            self.queue.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, packed)
            self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.functions = os.memfd_create("woflo-functions", os.MFD_CLOEXEC)
        except BaseException:
            self.close()
            raise

    def _semaphore(self) -> Any:
        made = _semaphore()
        if made.__class__ is _Counter:
            self._open.append(made)
            self.counters.append(made.fd)
        return made

    def row(self, number: int) -> int:
        """Where a worker's words begin."""
        return number * _ROW

    def head(self, slot: int) -> int:
        """Where a slot's words begin."""
        return (self.rows + slot) * _ROW

    def clear_row(self, number: int) -> None:
        """A new worker is to have the row."""
        at = number * _ROW
        for word in range(at, at + _ROW):
            self.words[word] = 0

    def take_back(self, slot: int) -> int:
        """Take what units are left: so many calls at the end of the slot's message will not be run."""
        acquire = self.units[slot].acquire
        taken = 0
        while acquire(False):
            taken += 1
        return taken

    def drain(self) -> set[int]:
        """Take all messages out of the queue; their serials."""
        from marshal import loads

        serials: set[int] = set()
        while True:
            try:
                data = self.queue.recv(MESSAGE_BYTES, 0x40)  # MSG_DONTWAIT; descriptors that came with it are closed
            except BlockingIOError:
                return serials
            if not data:  # the sender is closed
                return serials
            serials.add(loads(data)[1])  # noqa: S302 - our own

    def close_sender(self) -> None:
        """Close the pool's end: a worker that has done all there is in the queue comes to its end."""
        self.sender.close()

    def close(self) -> None:
        """Close the descriptors; the memory goes with the last process and the last look at it."""
        for end in self._open:
            end.close()
        for name in ("bell", "functions"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)


class _Counter:
    """A semaphore where the system has none (no /dev/shm): an eventfd. Ten times slower; a descriptor for each."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)

    def release(self) -> None:
        os.eventfd_write(self.fd, 1)

    def acquire(self, _block: bool) -> bool:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _semaphore() -> Any:
    try:
        from _multiprocessing import SemLock

        while True:
            try:
                return SemLock(1, 0, 2**30, f"/woflo-{os.getpid()}-{next(_names)}", True)  # unlinked at once
            except FileExistsError:  # left by a process of this number that was killed in between
                continue
    except (ImportError, OSError):
        return _Counter()
