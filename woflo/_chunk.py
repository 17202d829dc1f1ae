"""Several items of a `map` in one run: what its worker does, and the ledger that outlives it.

    group: items, ledger ─→ a run of `Chunk` ─→ worker: item, result into memory, item, … results into the file ─→ group

Rules. 1: an item's result is in the ledger's memory before the next one begins, and in its file when a millisecond has
passed or the memory is full: so after a death it is known which item ran, and only that one is lost. 2: until it is known
how far the worker got, nothing is sent again: no item is run twice. 3: a value is kept as it was when its item ended: what
can change is pickled at once. 4: a chunk that takes longer than predicted ends early: what it has not begun is the group's
again. 5: items of a chunk run in one process, one after the other; what one of them leaves changed (as in `_restore`) is put
back, and the chunk ends.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from itertools import islice
from mmap import mmap
from time import monotonic_ns, process_time_ns
from typing import TYPE_CHECKING

from woflo import _exceptions
from woflo.errors import TaskStopped
from woflo.result import TaskFailure
from woflo.runners import _attempt, _restore, _shipping

try:
    from _pickle import dumps, loads
except ImportError:
    from pickle import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from woflo.result import Failure
    from woflo.task import Task

__all__ = ["CONSTANT", "Chunk", "Ledger"]

CONSTANT: frozenset[type] = frozenset({int, str, float, bool, bytes, type(None), complex, range})
"""Types whose values nobody can change: they may wait to be pickled, many at once."""

OK, FAILED = 0, 1  # what the bytes of a result are that is not constant
STRIDE, BYTES, NOTES, BASE, _WORDS = 0, 1, 2, 3, 4  # words of a ledger, see there
_SLOTS = 4_096  # results that are in memory only, at most: 0.4 ms of the quickest items
_NOTES_BYTES = 32_768  # of memory for results that are no small ints
_FIRST_SLOT = 64  # bytes from the beginning: behind the words
_FIRST_NOTE = _FIRST_SLOT + 8 * _SLOTS
_MAPPED = 69_632  # bytes in memory; the file's results begin behind them
_EMPTY = -(1 << 63)  # what a slot holds: no result yet
_NONE, _NOTED = _EMPTY + 1, _EMPTY + 2  # … None, or a result that is in a note; anything above is a result itself
_EMPTIES = memoryview(_EMPTY.to_bytes(8, "little", signed=True) * _SLOTS).cast("q")
_SLOTTED, _CONSTANT, _MIXED = 0, 1, 2  # kinds of what is written to the file
_STRIDE_NS = 250_000  # of work between two looks at the clock
_PUBLISH_NS = 1_000_000  # results go to the file after this long


class Ledger:
    """What a chunk's worker writes and its group reads when it has ended, however: some memory and a file behind it.

    Words: all items of the strides begun so far (STRIDE), of which the one behind the last with a result is the one that runs;
    where the file's results end (BYTES); of those results that are in memory only, where the notes end (NOTES) and which item
    the first slot is of (BASE).
    """

    __slots__ = ("_memory", "_whole", "fd", "inherited", "pid", "slots", "words")

    def __init__(self, fd: int) -> None:
        """Map the beginning of a file.

        Raises:
            OSError: no memory is to be had.
        """
        self.fd = fd
        self.pid = os.getpid()
        self.inherited = True
        self._memory = mmap(fd, _MAPPED)
        self._whole = memoryview(self._memory)
        self.words: Any = self._whole[:_FIRST_SLOT].cast("Q")
        self.slots: Any = self._whole[_FIRST_SLOT:_FIRST_NOTE].cast("q")

    def prepare(self) -> None:
        """Before anything is written."""
        self.slots[:] = _EMPTIES

    @classmethod
    def make(cls) -> Ledger:
        """A new one.

        Raises:
            OSError: no descriptor or memory is to be had.
        """
        fd = _shipping._memory_file()
        try:
            os.ftruncate(fd, _MAPPED)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def clear(self) -> None:
        """Make it as new, for the next chunk."""
        for word in range(_WORDS):
            self.words[word] = 0
        os.ftruncate(self.fd, _MAPPED)

    def close(self) -> None:
        """Give memory and descriptor back."""
        for view in (self.words, self.slots, self._whole):
            view.release()
        self._memory.close()
        os.close(self.fd)

    def note(self, index: int, result: object) -> bool:
        """Write down an item's result; False if there is no room."""
        data = dumps((index, result), 5)
        at = self.words[NOTES]
        if at + 8 + len(data) > _NOTES_BYTES:
            return False
        begin = _FIRST_NOTE + at
        self._whole[begin : begin + 8] = len(data).to_bytes(8, "little")
        self._whole[begin + 8 : begin + 8 + len(data)] = data
        self.words[NOTES] = at + 8 + len(data)
        return True

    def write(self, number: int, others: dict[int, Any], *, small: bool) -> None:
        """Put so many results into the file: those in the slots, which are free then.

        The first bytes say how long it is and of which kind: as the slots are, or a pickled list of constants, or of others too.

        Args:
            number: how many.
            others: those that are not in their slots, by their places.
            small: whether all are small ints.
        """
        words = self.words
        if small:
            kind, data = _SLOTTED, bytes(self.slots[:number])
        else:
            results = [None if slot == _NONE else slot for slot in self.slots[:number].tolist()]
            for place, result in others.items():
                results[place] = result
            kind = _CONSTANT if set(map(type, results)) <= CONSTANT else _MIXED
            data = dumps(results, 5)
        at = words[BYTES]
        _write_at(self.fd, (len(data) << 2 | kind).to_bytes(8, "little"), _MAPPED + at)
        _write_at(self.fd, data, _MAPPED + at + 8)
        words[BYTES] = at + 8 + len(data)
        self.slots[:number] = _EMPTIES[:number]
        words[NOTES] = 0
        words[BASE] += number

    def read(self) -> Iterator[tuple[bool, list[Any]]]:
        """What was written: whether all are constant, and the results; what is in memory only comes last."""
        words, number = self.words, 0
        at, end = _MAPPED, _MAPPED + words[BYTES]
        while at < end:
            head = int.from_bytes(os.pread(self.fd, 8, at), "little")
            data = _read_at(self.fd, head >> 2, at + 8)
            at += 8 + (head >> 2)
            results = memoryview(data).cast("q").tolist() if head & 3 == _SLOTTED else loads(data)
            number += len(results)
            yield head & 3 != _MIXED, results
        base, notes = words[BASE], dict(self._notes())
        rest: list[Any] = []
        for slot in self.slots[number - base : self.ended() - base] if words[STRIDE] else ():
            noted = slot == _NOTED
            rest.append(notes[number + len(rest)] if noted else None if slot == _NONE else slot)
        if rest:
            yield False, rest

    def ended(self) -> int:
        """How many items have their results in the slots, or had before these were cleared."""
        low, high = 0, _SLOTS  # they are filled from the first on
        while low < high:
            middle = (low + high) // 2
            if self.slots[middle] == _EMPTY:
                high = middle
            else:
                low = middle + 1
        return int(self.words[BASE]) + low

    def begun(self, ended: int) -> int:
        """How many items have begun, if so many have ended."""
        return min(ended + 1, int(self.words[STRIDE]))

    def _notes(self) -> Iterator[tuple[int, Any]]:
        at, end = _FIRST_NOTE, _FIRST_NOTE + self.words[NOTES]
        while at < end:
            size = int.from_bytes(self._whole[at : at + 8], "little")
            yield loads(self._whole[at + 8 : at + 8 + size])
            at += 8 + size

    def __reduce__(self) -> Any:
        return _open, (self.pid, self.fd)


def _open(pid: int, fd: int) -> Ledger:
    """A parent's ledger, in a worker that did not inherit it (Linux)."""
    ledger = Ledger(os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
    ledger.inherited = False
    return ledger


def _write_at(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view[: 1 << 30], at)
        view, at = view[written:], at + written


def _read_at(fd: int, size: int, at: int) -> bytes:
    parts = []
    while size:
        part = os.pread(fd, min(size, 1 << 30), at)
        parts.append(part)
        size, at = size - len(part), at + len(part)
    return b"".join(parts)


class Chunk:
    """The function of a chunk's run: carries out items of a task, one after the other.

    It carries nothing but the task, so that one of it does for all groups of a task.
    """

    def __init__(self, task: Task[..., Any, Any]) -> None:
        self.task = task

    def __reduce__(self) -> Any:
        """Without the runner, which may hold what can't travel: where it runs is decided."""
        return Chunk, (self.task.options(runner=None) if self.task.runner is not None else self.task,)

    def __call__(
        self, name: str, first: int, items: list[Any], how: str, kwargs: dict[str, Any], ledger: Ledger, budget: int
    ) -> tuple[int, int, bool]:
        """In the worker: carry them out.

        Args:
            name: of the group.
            first: the number of the first item.
            items: values, or pickled tuples of arguments.
            how: `value`, `arguments` or `pickled`: what each item is.
            kwargs: for every item.
            ledger: where begun items and results are noted.
            budget: ns after which no further item is begun; 0: none.

        Returns:
            How long it took and how long it computed, ns; whether an item left the process's state changed.
        """
        work = _Work(self.task, name, first, how, kwargs, ledger)
        try:
            return work.carry_out(items, budget)
        except _LeftAsFork:
            return 0, 0, False
        finally:
            work.leave()


class _Work:
    """One chunk under way in this process."""

    def __init__(
        self, task: Task[..., Any, Any], name: str, first: int, how: str, kwargs: dict[str, Any], ledger: Ledger
    ) -> None:
        global _here
        if not _hooked:
            _hook()
        run: Any = _attempt.current.get()
        self.run = run
        self.name = name
        self.first = first
        self.ledger = ledger
        self.words = ledger.words
        self.call = _caller(task, how, kwargs, self.run)
        self.state = _restore.State()
        self.watched = sys.gettrace(), sys.getprofile()  # of a debugger or profiler that the worker was forked with
        self.forked = False
        self.place = 0  # of the next result among those that are in memory only
        self.others: dict[int, Any] = {}  # those of them that are not in their slots
        self.small = True  # all of them are
        ledger.prepare()
        run._number = self  # its name tells which item runs
        _here = self

    def __str__(self) -> str:
        """The number that a run's name ends with."""
        try:
            return f"{self.name}[{self.first + self.ledger.ended()}]"
        except ValueError:  # released: this is a process that an item has forked
            return self.name

    def leave(self) -> None:
        global _here
        _here = None
        if not self.ledger.inherited and not self.forked:
            self.ledger.close()

    def carry_out(self, items: list[Any], budget: int) -> tuple[int, int, bool]:
        """All items, or as many as can be begun in the time; results go to the ledger."""
        taken, size, dirty = iter(items), 1, False
        computed = process_time_ns()
        begin = now = published = monotonic_ns()
        try:
            while stride := list(islice(taken, min(size, _SLOTS - self.place))):
                self.some(stride)
                if self.forked:
                    raise _LeftAsFork
                before, now = now, monotonic_ns()
                took = now - before
                if self.run._stop_asked:
                    raise TaskStopped
                if took < _STRIDE_NS:
                    size *= 2
                elif took > 2 * _STRIDE_NS:
                    size = max(1, size * _STRIDE_NS // took)
                if published == begin or now - published > _PUBLISH_NS or self.place == _SLOTS:
                    self.publish()
                    published = now
                    dirty = self.put_back()
                    now = monotonic_ns()
                if dirty or (budget and now - begin > budget):
                    break
        finally:
            if not self.forked:
                self.publish()
        dirty = self.put_back() or dirty
        return monotonic_ns() - begin, process_time_ns() - computed, dirty

    def some(self, stride: list[Any]) -> None:
        """A few items, with nothing between them but what it costs to note the result."""
        slots, call, lowest, highest, place = self.ledger.slots, self.call, _NOTED, -_EMPTY, self.place
        self.words[STRIDE] = self.words[BASE] + place + len(stride)
        rest = iter(stride)
        while True:
            try:
                for item in rest:
                    value = call(item)
                    if value.__class__ is int and lowest < value < highest:
                        slots[place] = value
                        place += 1
                    elif value is None:
                        slots[place] = _NONE
                        place += 1
                        self.small = False
                    else:
                        place = self.note(place, value if value.__class__ in CONSTANT else self.packed(value))
            except BaseException as error:
                self.place = place
                if self.forked and error.__traceback__.tb_next is None:  # type: ignore[union-attr]
                    raise _LeftAsFork from None  # the slot could not be written: its item has ended
                if self.forked or (isinstance(error, TaskStopped) and self.run._stop_asked):
                    raise
                place = self.note(place, self.failed(_attempt.failure_from(self.run, error)))
            else:
                self.place = place
                return

    def note(self, place: int, result: Any) -> int:
        """Note a result that doesn't fit into its slot; where there is no room all go to the file.

        Returns the next one's place.
        """
        if self.forked:
            raise _LeftAsFork
        self.small = False
        self.others[place] = result
        if self.ledger.note(self.words[BASE] + place, result):
            self.ledger.slots[place] = _NOTED
            return place + 1
        self.place = place + 1
        self.publish()
        return 0

    def packed(self, value: object) -> tuple[int, bytes]:
        """A value as it is now."""
        if self.forked:
            raise _LeftAsFork  # what it returns is nobody's
        try:
            return OK, _dumps(value)
        except Exception as error:
            return self.failed(_shipping._unpicklable(value, error))

    def failed(self, failure: Failure) -> tuple[int, bytes]:
        if isinstance(failure.__cause__, _Broken):
            failure = failure.__cause__.args[0]
        try:
            return FAILED, _dumps(failure)
        except Exception:
            plain = TaskFailure(_exceptions.safe_str(failure))
            plain.__cause__ = failure.__cause__
            return FAILED, _dumps(plain)

    def publish(self) -> None:
        """Put the results that are in memory only into the ledger's file."""
        if self.place:
            self.ledger.write(self.place, self.others, small=self.small)
            self.place, self.small = 0, True
            self.others.clear()

    def put_back(self) -> bool:
        """Put back what items have left changed; whether there was anything."""
        watched = self.watched != (None, None) and self.watched == (sys.gettrace(), sys.getprofile())
        if watched:  # nothing that an item has done
            sys.settrace(None)
            sys.setprofile(None)
        try:
            return self.state.restore()
        except Exception:  # it can't be put back: this process takes no further item
            return True
        finally:
            if watched:
                sys.settrace(self.watched[0])
                sys.setprofile(self.watched[1])


class _LeftAsFork(BaseException):
    """This is a process that an item has forked, and its item has ended."""


class _Broken(Exception):  # noqa: N818 - it carries a failure
    """An item that can't be rebuilt here."""


def _caller(task: Task[..., Any, Any], how: str, kwargs: dict[str, Any], run: Any) -> Callable[[Any], Any]:
    """A function of one item."""
    fn: Any = partial(task.fn, **kwargs) if kwargs else task.fn
    if task.is_async:
        plain = fn

        def fn(*args: Any) -> Any:
            return _attempt._run_coroutine(run, plain(*args))

    if how == "arguments":
        return lambda args: fn(*args)
    if how == "value":
        return fn  # type: ignore[no-any-return]

    def call(blob: bytes) -> Any:
        try:
            args = loads(blob)
        except Exception as error:
            raise _Broken(_shipping.broken_call(error)) from None
        return fn(*args)

    return call


def _dumps(value: object) -> bytes:
    try:
        return dumps(value, 5)
    except Exception as first:
        try:
            import cloudpickle

            return bytes(cloudpickle.dumps(value, 5))
        except Exception as second:
            raise first from (None if type(first) is type(second) else second)


_here: _Work | None = None  # the chunk at work in this process
_hooked = False


def _hook() -> None:
    global _hooked
    _hooked = True
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    """In a process that an item has forked: it may end its item, and must not go on to the next.

    Nothing is asked after each item: its result can't be noted.
    """
    if _here is not None:
        _here.forked = True
        _here.words.release()
        _here.ledger.slots.release()
