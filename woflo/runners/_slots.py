"""Slots: how many worker processes live at once in a tree of processes.

The tokens are bytes in a pipe that the whole tree inherits (GNU make's jobserver): whoever starts a worker takes one out and
puts it back when the worker has ended; a process that waits for a run lends its own until it goes on. Every process may
always run one child without a token, so nothing starves and nesting doesn't multiply. A process that goes on takes a
token if there is one and goes on without it otherwise: it must not wait for strangers.
"""

from __future__ import annotations

import os

__all__ = ["Slots"]


def default_size() -> int:
    """At most so many at once unless the user says otherwise: 32, on large machines four a core."""
    return max(32, 4 * (os.cpu_count() or 1))


class Slots:
    """This process's end of a tree's tokens. Guarded by the supervisor's lock."""

    def __init__(self, size: int, fds: tuple[int, int] | None = None) -> None:
        self.size = size
        self.users: int = 0  # attempts of this process that are pending or under way
        self.inherited: bool = fds is not None
        self._free_one = True  # the one child that needs no token
        if fds is None:
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            os.write(writer, b"+" * min(size - 1, 60_000))  # a pipe holds 64 KiB: more than anybody's processes
            fds = reader, writer
        self.reader: int = fds[0]
        self.writer: int = fds[1]

    def take(self) -> bytes | None:
        """A token (empty: the free one), or None if there is none now."""
        if self._free_one:
            self._free_one = False
            return b""
        try:
            return os.read(self.reader, 1) or None
        except BlockingIOError:
            return None

    def give(self, token: bytes) -> None:
        """Put a token back."""
        if token:
            os.write(self.writer, token)
        else:
            self._free_one = True

    def lend(self) -> None:
        """This worker blocks on a run of its own: somebody else may use its slot."""
        os.write(self.writer, b"+")

    def reclaim(self) -> bool:
        """This worker goes on; True if it has a token again, False if it goes on without."""
        try:
            return bool(os.read(self.reader, 1))
        except BlockingIOError:
            return False

    def after_fork(self) -> None:
        """In a worker: its own free child is not the parent's, and the tokens are the tree's."""
        self._free_one = True
        self.users = 0
        self.inherited = True

    def close(self) -> None:
        """Close this process's ends; the tree's other processes keep theirs."""
        os.close(self.reader)
        os.close(self.writer)
