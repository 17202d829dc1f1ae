"""Which descriptors are readable, which processes have ended: one thread at a time asks, and a bell wakes it.

Linux: epoll and pidfds. macOS and the BSDs: kqueue. Elsewhere (Windows) there are no process runs that
are watched by descriptor: see `_portable`. Other threads may add and remove while one is asleep in `wait`.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Bell", "Poller", "watch_process"]

_MOST = 64  # events taken at once; the rest come with the next step


class _EpollPoller:
    """epoll: processes are watched by their pidfd, like any other descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def add(self, fd: int) -> None:
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except FileExistsError:  # it was added before Ctrl-C came
            return

    def remove(self, fd: int) -> None:
        try:
            self._epoll.unregister(fd)
        except FileNotFoundError:  # Ctrl-C came before it was added
            return

    add_process = add
    remove_process = remove

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        """Pairs that begin with a key (descriptor) that is ready; at most `seconds` of sleep, None: no limit."""
        return self._epoll.poll(seconds, _MOST)

    def close(self) -> None:
        self._epoll.close()


class _KqueuePoller:
    """kqueue: a process is watched by its number; its key is the negative number, so that it is no descriptor's."""

    def __init__(self) -> None:
        self._kqueue: Any = select.kqueue()  # type: ignore[attr-defined,unused-ignore]
        self._ended: list[tuple[int, int]] = []

    def fileno(self) -> int:
        return int(self._kqueue.fileno())

    def _change(self, ident: int, kind: int, flags: int, notes: int = 0) -> None:
        event = select.kevent(ident, kind, flags, notes)  # type: ignore[attr-defined,unused-ignore]
        self._kqueue.control([event], 0, 0)

    def add(self, fd: int) -> None:
        self._change(fd, select.KQ_FILTER_READ, select.KQ_EV_ADD)  # type: ignore[attr-defined,unused-ignore]

    def remove(self, fd: int) -> None:
        try:
            self._change(fd, select.KQ_FILTER_READ, select.KQ_EV_DELETE)  # type: ignore[attr-defined,unused-ignore]
        except FileNotFoundError:  # Ctrl-C came before it was added
            return

    def add_process(self, key: int) -> None:
        flags = select.KQ_EV_ADD | select.KQ_EV_ONESHOT  # type: ignore[attr-defined,unused-ignore]
        try:
            self._change(-key, select.KQ_FILTER_PROC, flags, select.KQ_NOTE_EXIT)  # type: ignore[attr-defined,unused-ignore]
        except ProcessLookupError:  # it has ended already
            self._ended.append((key, 0))

    def remove_process(self, key: int) -> None:
        """Nothing to do: it was watched for one event."""

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        """Pairs that begin with a key that is ready; at most `seconds` of sleep, None: no limit."""
        process = select.KQ_FILTER_PROC  # type: ignore[attr-defined,unused-ignore]
        if self._ended:
            ended, self._ended = self._ended, []
            return ended
        events = self._kqueue.control(None, _MOST, seconds)
        return [(-event.ident if event.filter == process else event.ident, 0) for event in events]

    def close(self) -> None:
        self._kqueue.close()


class _SelectPoller:
    """select: where there is neither epoll nor kqueue; timers and wake-ups only."""

    def __init__(self) -> None:
        self._fds: set[int] = set()

    def fileno(self) -> int:
        return -1

    def add(self, fd: int) -> None:
        self._fds.add(fd)

    def remove(self, fd: int) -> None:
        self._fds.discard(fd)

    add_process = add
    remove_process = remove

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        """Pairs that begin with a key that is ready; at most `seconds` of sleep, None: no limit."""
        return [(fd, 0) for fd in select.select(list(self._fds), [], [], seconds)[0]]

    def close(self) -> None:
        self._fds.clear()


if hasattr(select, "epoll") and hasattr(os, "pidfd_open"):
    Poller: Any = _EpollPoller
elif hasattr(select, "kqueue"):
    Poller = _KqueuePoller
else:
    Poller = _SelectPoller


by_pidfd: bool = Poller is _EpollPoller


def watch_process(pid: int) -> int:
    """A key by which a `Poller` watches a process: a new pidfd, or the negative number."""
    return os.pidfd_open(pid) if by_pidfd else -pid


class Bell:
    """Wakes a thread out of the poller: a pipe; on Windows, which selects sockets only, two of those."""

    def __init__(self) -> None:
        if os.name == "posix":
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._reader, False)
            os.set_blocking(self._writer, False)
        else:
            import socket

            self._sockets = socket.socketpair()
            for end in self._sockets:
                end.setblocking(False)

    def fileno(self) -> int:
        """What the poller watches."""
        return self._reader if os.name == "posix" else self._sockets[0].fileno()

    def ring(self) -> None:
        """Make it readable."""
        try:
            os.write(self._writer, b"!") if os.name == "posix" else self._sockets[1].send(b"!")
        except BlockingIOError:  # it is, many times over
            pass

    def hush(self) -> None:
        """Make it unreadable again."""
        try:
            os.read(self._reader, 4096) if os.name == "posix" else self._sockets[0].recv(4096)
        except BlockingIOError:  # another thread has
            pass

    def close(self) -> None:
        """Close both ends."""
        if os.name == "posix":
            os.close(self._reader)
            os.close(self._writer)
        else:
            for end in self._sockets:
                end.close()
