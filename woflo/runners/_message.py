"""What goes through a pool: functions, messages of calls, bundles of results, and the handles on warm workers.

Plain records; who changes them, and under which lock, is said in `_pool`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from woflo.runners import _launch, _shipping
from woflo.runners._crew import BUDGET_NS
from woflo.runners._ring import CALLS

if TYPE_CHECKING:
    from typing import Any

    from woflo.runners._pool import Pool

LEFT = 11  # what a bundle may tell of a run: it was to go along with others, and has not
CUT_SHORT, DIED, DROPPED, FAILED = 12, 13, 14, 15  # what else a bundle may tell of a run, beside the kinds of `_ring`
# Flags of a run: it has a message of its own; wants to know when it begins; was stopped; an arena goes with it.
ALONE, NOTICE, GONE, ARENA = 1, 2, 4, 8
SPECIAL = ALONE | NOTICE | GONE | ARENA

_CLOEXEC = 0x40000000  # Linux: MSG_CMSG_CLOEXEC
_MEASURED = 4  # calls of a function that go alone before any goes with others


class Function:
    """A task as the pool knows it: where its pickle lies, and how long its calls take."""

    __slots__ = ("alone", "bulky", "calls", "large", "mean_ns", "number", "pool", "straight", "task")

    def __init__(self, pool: Pool, number: int, task: Any) -> None:
        self.pool = pool
        self.number = number  # where its pickle begins; negative: it is not kept yet
        self.task = task  # a weak reference
        self.calls = 0  # measured
        self.mean_ns = 0
        self.straight = False  # its calls need nothing but to be staged
        self.bulky = 0  # how large its last large result was, bytes
        self.large = False  # its results may be too large to be handed on in the worker
        self.alone = False  # it leaves its worker's state changed: never together with others

    def short(self) -> bool:
        """Whether its calls may go together with others."""
        return self.calls >= _MEASURED and self.mean_ns <= BUDGET_NS // 2 and not self.alone

    def measured(self, nanoseconds: int) -> None:
        """One more call took so long; a single slow one counts for a quarter."""
        if self.calls == 0:
            self.mean_ns = nanoseconds
        elif nanoseconds < self.mean_ns:
            self.mean_ns = (self.mean_ns + nanoseconds) // 2
        else:
            self.mean_ns += (nanoseconds - self.mean_ns) // 4
        self.calls += 1


class Message:
    """A message that is out: its calls, as long as it is theirs to run."""

    __slots__ = ("counted", "looked", "runs", "seen", "serial", "shown", "since", "slot")

    def __init__(self, slot: int, serial: int, runs: list[Any]) -> None:
        self.slot = slot
        self.serial = serial
        self.runs = runs
        self.seen = 0  # results collected
        self.counted = 0  # results public, where a semaphore counts them
        self.looked = 0  # results public at the last look
        self.since = 0  # of that look
        self.shown = False  # its run was told that it has begun


class Bundle:
    """Results that were collected and are to be told."""

    __slots__ = (
        "begin",
        "crew",
        "data",
        "death",
        "ends",
        "hand",
        "large",
        "message",
        "next",
        "runs",
        "since",
        "teller",
        "told",
        "until",
    )

    def __init__(self, runs: list[Any], ends: list[int], data: Any) -> None:
        self.runs = runs
        self.ends = ends  # as in the ring, or how else the run ended
        self.data = data  # the results' bytes
        self.begin = 0  # where they begin in the region
        self.next = 0  # the first that has not been told
        self.teller: Any = None  # the frame that tells them
        self.since = 0.0  # when the message was taken (monotonic, seconds)
        self.until = 0.0  # as if each call had had its share of the time
        self.hand: Hand | None = None  # of the worker that had them
        self.large: dict[int, tuple[int, int]] = {}  # kind and descriptor of what lies in memfds
        self.death: Any = None  # the hand and its exit status, or a failure
        self.message: Message | None = None  # whose results are told in their order
        self.crew: Any = None  # who is to be told of `told`
        self.told: list[Any] = []  # runs that have ended


class Hand(_launch.Worker):
    """The handle on a warm worker."""

    __slots__ = ("_sent", "row", "stopping")

    def __init__(self, row: int, pid: int, channel: Any) -> None:
        super().__init__(None, pid, channel, None, None)
        self.row = row
        self.stopping: Any = None  # the run that it is to be stopped for
        self._sent: dict[tuple[int, int], tuple[int, int]] = {}  # memfds that have come and were not asked for yet

    def parcels(self, serial: int, begin: int = 0, end: int = CALLS) -> dict[int, tuple[int, int]]:
        """The memfds that it has sent for these calls of a message: by index, their kinds and descriptors."""
        while True:
            try:
                data, ancillary, _, _ = self.channel.recvmsg(24, 64, _CLOEXEC)
            except OSError:
                break
            if len(data) < 24 or not ancillary:
                break
            number, index, kind = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8, 16))
            fd = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
            self._sent[number, index] = kind, fd  # also of calls that come after these
        wanted = [key for key in self._sent if key[0] == serial and begin <= key[1] < end]
        return {key[1]: self._sent.pop(key) for key in wanted}

    def close(self) -> None:
        """Close what the pool holds of it."""
        super().close()
        while self._sent:
            os.close(self._sent.popitem()[1][1])


def dump(task: Any, number: int | str, args: Any, kwargs: Any) -> bytes:
    """A task and its arguments, as bytes.

    A runner class that can't be found by its name stays here, with what it holds: the task gets the class that it is made of.

    Raises:
        UsageError: something of it can't be pickled.
    """
    shell = _shipping.shell()
    runner = task.runner
    if runner is not None and getattr(sys.modules.get(runner.__module__), runner.__qualname__, None) is not runner:
        while "_settings" not in vars(runner):
            runner = runner.__mro__[1]
        task = task.options(runner=runner)
    shell.task, shell._number, shell.args, shell.kwargs = task, number, args, kwargs
    return _shipping.dump_call(shell)


def write_at(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def call_file(blob: Any) -> int:
    """A memfd with a call that is too large for a message."""
    fd = os.memfd_create("woflo-call", os.MFD_CLOEXEC)
    try:
        write_at(fd, blob, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def send_with(sender: Any, packet: bytes, fd: int) -> None:
    from array import array

    sender.sendmsg([packet], [(1, 1, array("i", [fd]))])
