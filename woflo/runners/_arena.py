"""Large buffers out of band: memory that a process fills and another maps, used again and again.

An arena is a memfd: one page of head (a word that says whose it is, what lies where) and the data. Its descriptor
travels; it has no name. The first touch of pages is what costs, so an arena is kept, and lent again when nobody looks at
it any more.

    pool: arguments in ─→ LENT ─→ worker: arrays are views of it ─→ result in the same arena: BACK ─→ pool: arrays are views
      ▲                                    └── no result for it: FREE as soon as its views have died ──┐        │
      └──────────────────────────────── FREE as soon as the result's views have died ────────────────┴────────┘

The word changes hands: the pool writes it while it is FREE or BACK, the worker while it is LENT. A worker may make an arena for a
result that none is at hand for; it is the pool's from then on. One whose worker died is not used again.
"""

from __future__ import annotations

import os
from marshal import dumps as dumps_plain
from marshal import loads as loads_plain
from mmap import MAP_PRIVATE, mmap

try:
    from _pickle import dumps, loads
except ImportError:
    from pickle import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LARGE_BYTES = 65_536  # a buffer from here on goes out of band
FREE, LENT, BACK = 0, 1, 2
_HEAD_BYTES = 4_096
_HEAD_WORDS = 24  # where in the head the names begin
_ALIGN = 64  # what the widest vector instructions want


class Arena:
    """A process's hold on one."""

    def __init__(self, fd: int) -> None:
        """Map it; the descriptor is the arena's from now on."""
        self.fd = fd
        self.size: int = os.fstat(fd).st_size
        self.holder: object = None  # the worker that has it, if it has not given it back with its result
        self._memory = mmap(fd, self.size)
        self._word = memoryview(self._memory)[:8].cast("q")
        self._looks = 0  # how many things live here that look at its memory
        self._release_at_end = False

    @property
    def state(self) -> int:
        """FREE, LENT or BACK."""
        return self._word[0]

    @state.setter
    def state(self, value: int) -> None:
        self._word[0] = value

    @property
    def watched(self) -> bool:
        """Whether somebody in this process still looks at its memory."""
        return self._looks > 0

    def release(self) -> None:
        """Make it FREE as soon as nobody in this process looks at it."""
        self._release_at_end = True
        if not self._looks:
            self.state = FREE

    def fill(self, data: bytes, buffers: list[Any]) -> bool:
        """Write a pickle and its buffers; False if they don't fit."""
        spans, at = [], _HEAD_BYTES
        for part in buffers:
            spans.append((at, len(part)))
            at += len(part) + -len(part) % _ALIGN
        if at > self.size or not self.name(data, spans, at):
            return False
        for (begin, size), part in zip(spans, buffers, strict=True):
            self._memory[begin : begin + size] = part
        return True

    def name(self, data: bytes, spans: list[tuple[int, int]], end: int = 0) -> bool:
        """Write what lies where into the head, or at the end if it is much; False if there is no room for it."""
        words = dumps_plain((data, spans))
        at = _HEAD_WORDS
        if at + len(words) > _HEAD_BYTES:
            at = end or self.size
        if at + len(words) > self.size:
            return False
        self._memory[8:16] = at.to_bytes(8, "little")
        self._memory[16:24] = len(words).to_bytes(8, "little")
        self._memory[at : at + len(words)] = words
        return True

    def spans_of(self, buffers: list[Any]) -> list[tuple[int, int]] | None:
        """Where these buffers lie in the arena; None if one of them lies elsewhere."""
        from ctypes import addressof, c_char

        base = addressof(c_char.from_buffer(self._memory))
        spans = []
        for buffer in buffers:
            try:
                begin = addressof(c_char.from_buffer(buffer)) - base
            except TypeError:  # it can't be written to, so it isn't ours
                return None
            if begin < _HEAD_BYTES or begin + len(buffer) > self.size:
                return None
            spans.append((begin, len(buffer)))
        return spans

    def parts(self, spans: list[tuple[int, int]]) -> list[Any]:
        """What lies there, to be copied elsewhere."""
        return [memoryview(self._memory)[begin : begin + size] for begin, size in spans]

    def load(self, *, private: bool) -> Any:
        """What was filled in; its arrays are views, and keep the arena from being used again as long as they live.

        Args:
            private: what is written to the views stays in this process (and does not reach one that it forks, nor comes
                from there).
        """
        from weakref import finalize

        at, size = (int.from_bytes(self._memory[begin : begin + 8], "little") for begin in (8, 16))
        data, spans = loads_plain(self._memory[at : at + size])  # noqa: S302 - our own
        exporter: Any
        if private:
            exporter = mmap(self.fd, self.size, MAP_PRIVATE)
        else:
            from ctypes import c_char

            exporter = (c_char * self.size).from_buffer(self._memory)
        self._looks += 1
        self._release_at_end = False
        finalize(exporter, self._unwatch).atexit = False
        whole = memoryview(exporter).cast("B")
        return loads(data, buffers=[whole[begin : begin + size] for begin, size in spans])

    def _unwatch(self) -> None:
        self._looks -= 1
        if not self._looks and self._release_at_end:
            self.state = FREE

    def close(self) -> None:
        """Give it up; memory that somebody looks at stays as long as they do."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def new(size: int) -> Arena:
    """An arena with room for so many bytes of data."""
    fd = os.memfd_create("woflo-arena", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        return Arena(fd)
    except BaseException:
        os.close(fd)
        raise


def room_for(data: bytes, buffers: list[Any]) -> int:
    """How large an arena is that holds these."""
    names = len(data) + 32 * len(buffers) + 64
    return _HEAD_BYTES + names + sum(len(part) + -len(part) % _ALIGN for part in buffers)


def is_large(value: Any) -> bool:
    """Whether this is, by itself, an array that goes out of band."""
    size = getattr(value, "nbytes", 0)
    return isinstance(size, int) and size >= LARGE_BYTES


def write_file(data: bytes, buffers: list[Any]) -> int:
    """A memfd with a pickle and its buffers, for `load_file`; writing is cheaper than filling a mapping."""
    fd = os.memfd_create("woflo-result", os.MFD_CLOEXEC)
    try:
        spans, at = [], _HEAD_BYTES
        for part in buffers:
            spans.append((at, len(part)))
            _write(fd, part, at)
            at += len(part) + -len(part) % _ALIGN
        words = dumps_plain((data, spans))
        _write(fd, words, at)
        _write(fd, b"".join(number.to_bytes(8, "little") for number in (0, at, len(words))), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write(fd: int, data: Any, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view[: 1 << 30], at)
        view, at = view[written:], at + written


def load_file(fd: int) -> Any:
    """What `write_file` has written; its arrays are views of the file's memory, each process's own where it writes."""
    memory = mmap(fd, os.fstat(fd).st_size, MAP_PRIVATE)
    at, size = (int.from_bytes(memory[begin : begin + 8], "little") for begin in (8, 16))
    data, spans = loads_plain(memory[at : at + size])  # noqa: S302 - our own
    whole = memoryview(memory)
    return loads(data, buffers=[whole[begin : begin + length] for begin, length in spans])


def split(value: object, pickle: Any = dumps) -> tuple[bytes, list[Any]]:
    """A value's pickle, and its large buffers apart."""
    buffers: list[Any] = []
    return pickle(value, protocol=5, buffer_callback=apart(buffers)), buffers


def apart(buffers: list[Any]) -> Callable[[Any], bool]:
    """What a pickler asks about each buffer: it goes with the pickle if it is small, into this list if it is large."""

    def take(buffer: Any) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < LARGE_BYTES:
            return True
        buffers.append(raw)
        return False

    return take
