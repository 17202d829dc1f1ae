"""The way of a group's items: drawn, sent as runs, dealt with when these end.

    iterable ─→ drawn ─→ a run per item, or per chunk of short ones ─→ ended: outcomes ─→ handed out
                  ▲                        │                                               │
                  └──── when there is room: runs that ended, items that were handed out ◀──┘

Rules. 1: items are numbered from 0 as they are drawn; one is in exactly one place: drawn and on its way, part of a live run,
to be sent again, or among the outcomes. 2: one thread at a time draws and sends (`_drawing`); tables change under the outcomes'
lock, which is never held while user's code runs, a run is started or a value rebuilt. 3: an iterable without a length is drawn
from only in threads that ask the group for something; one with a length goes on by itself, in whichever thread learns that a
run has ended. 4: an item that has begun is never sent again.

How many items go together is decided in `_sizing`; what a worker does with them, and what is known after its death, is in
`_chunk`.
"""

from __future__ import annotations

import os
from _thread import _local, allocate_lock
from collections import deque
from contextvars import copy_context
from itertools import chain, islice
from typing import TYPE_CHECKING

from woflo import _chunk, _exceptions, _notify
from woflo._outcomes import Outcomes, Segment
from woflo._sizing import LEAST_NS, TARGET_NS, Sizing
from woflo.errors import UsageError
from woflo.result import Ok, StoppedFailure, TaskFailure
from woflo.runners import _inputs, _process, _shipping

try:
    from _pickle import dumps, loads
except ImportError:
    from pickle import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from woflo._chunk import Ledger
    from woflo.result import Failure
    from woflo.runners.base import BaseTaskRun
    from woflo.task import Task

__all__ = ["Delivery"]

_WINDOW = 10_000  # items of an iterable without a length that are drawn and not handed out, at most
_KEPT = 5_000  # runs kept as they are; of a further one that ended only its outcome is, and a run is made of that when asked for
_OVER_NS = 5 * TARGET_NS  # a chunk that takes longer gives back what it has not begun


class _Sent:
    """What a live run carries: items from `start` on."""

    __slots__ = ("items", "ledger", "start", "taken")

    def __init__(self, start: int, items: Sequence[Any], ledger: Ledger | None) -> None:
        self.start = start
        self.items = items
        self.ledger = ledger  # None: a single item, by a run of its own
        self.taken = False  # somebody is dealing with its end


class _Ear:
    """What the runs know of their group: told when one has ended."""

    __slots__ = ("delivery",)

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery

    def signal(self, run: BaseTaskRun[Any]) -> None:
        self.delivery.ended(run)


class Delivery:
    """Of one group.

    Attributes:
        name: the group's.
        size: how many items there are; None: that is not known yet.
        drawn: how many items were drawn.
        error: what the iterable raised.
        live: the runs under way.
        arrived: those that have ended, and are to be dealt with.
        outcomes: what became of items.
        asleep: waiters, told whenever something has changed.
        greedy: how many ask for everything.
        stopped: nothing more is drawn or sent.
        standing: what stands for a group that goes on by itself among the live runs.
    """

    def __init__(
        self,
        task: Task[..., Any, Any],
        runner: type[BaseTaskRun[Any]],
        items: Iterable[Any],
        size: int | None,
        *,
        many: bool,
        kwargs: dict[str, Any],
        chunksize: int | None,
    ) -> None:
        self.item_task, self._chunk_task = _variants(task)
        self.number: int = next(task.numbers)
        self.name = f"{task.name}-{self.number}"
        self.size = size
        self.drawn = self.greedy = 0
        self.error: BaseException | None = None
        self.live: dict[BaseTaskRun[Any], _Sent] = {}
        self.arrived: deque[BaseTaskRun[Any]] = deque()
        self.outcomes = Outcomes(self.name, forgets=size is None)
        self.asleep: list[Any] = []
        self.stopped = False
        self.standing: Any = None
        self._runner = runner
        self._most = runner._at_once()
        self._many = many
        self._kwargs = kwargs
        together = runner._chunks() and task.simple and task.cache is None and chunksize != 1
        self._sizing = Sizing(chunksize, together=together and not (kwargs and _inputs.find((), kwargs)))
        self._forks = together and runner._inherits()
        self._context = copy_context()
        self._owner = _process.mark
        self._lock = self.outcomes.lock
        self._drawing = allocate_lock()
        self._wanted = False  # somebody wants to draw and could not
        self._source: Iterator[Any] | None = iter(items)
        self._range: Any = items if type(items) is range else None  # travels as what it is
        self._again: deque[tuple[int, Sequence[Any], bool]] = deque()  # to be sent again: from where, what, each alone
        self._kept = 0
        self._ear = _Ear(self)
        self._spare: list[Ledger] = []

    def finished(self) -> bool:
        """Whether all items have their outcomes."""
        with self._lock:
            return self.size is not None and self.outcomes.done >= self.size

    def run_of(self, segment: Segment, place: int) -> BaseTaskRun[Any]:
        """The ended run of an item."""
        run = segment.run or self.failed_at(segment, place)
        if run is None:
            run = self._shell(segment.start + place, segment.chunk, len(segment.values))
            run._result = Ok(segment.values[place])
        return run

    def failed_at(self, segment: Segment, place: int) -> BaseTaskRun[Any] | None:
        """The run of an item that has no value."""
        if not segment.stopped:
            return segment.failed.get(place)
        run = self._shell(segment.start + place, None)
        failure = run._named(StoppedFailure("stopped before it was started"))
        run._tell_item(failure)
        run._result = failure
        return run

    def _shell(self, index: int, chunk: BaseTaskRun[Any] | None, mates: int = 1) -> BaseTaskRun[Any]:
        """A run for an item that had none of its own; of nobody, and about to be ended.

        What it took is its share of what the chunk did; nothing more exact is known.
        """
        run = self._runner(self.item_task, (), {}, f"{self.number}[{index}]", None)
        if chunk is not None:
            run.pid = chunk.pid
            if chunk._started:
                run._started = chunk._started
                run._ended = chunk._started + (chunk._ended - chunk._started) / mates
        return run

    # ------------------------------------------------------------------ drawing and sending

    def fill(self) -> None:
        """Draw and send as long as there is room; one thread at a time."""
        self._wanted = True
        while self._wanted and self._drawing.acquire(False):
            try:
                self._wanted = False
                while self._send_some():
                    pass
            finally:
                self._drawing.release()

    def _send_some(self) -> bool:
        """Send one run's worth of items; False if there is no room or nothing left. Only in the thread that draws."""
        if self.stopped:
            self._stop_rest()
            return False
        flight, workers = self.flight()
        if len(self.live) >= flight:
            return False
        with self._lock:
            again = self._again.popleft() if self._again else None
        if again is not None:
            self._send(*again)
            return True
        if self._source is None:
            return False
        number = self._sizing.size(None if self.size is None else self.size - self.drawn, workers)
        if self.outcomes.forgets:
            if self._sizing.fixed is None:
                number = min(number, max(1, _WINDOW // (2 * flight)))
            if not self.greedy:
                room = min(_WINDOW, 2 * flight * number) - (self.drawn - self.outcomes.handed)
                if room < number and self.live:  # else each item that is handed out would make a run of its own
                    return False
                number = min(number, room)
        if number <= 0:
            return False
        start = self.drawn
        items = self._draw(number)
        if items:
            self._send(start, items, False)
        return bool(items)

    def flight(self) -> tuple[int, int]:
        """How many runs may be on their way, and how many of them make progress at once."""
        most = self._most
        sizing = self._sizing
        if not sizing.together:
            return most, most
        if not self._forks:
            return most, max(1, most // 2)
        if sizing.size(None, 1) > 1 and (sizing.busy or (self.outcomes.forgets and self._thin(most))):
            cores = os.cpu_count() or 1
            return min(most, 2 * cores), min(most, cores)
        return most, most

    def _thin(self, flight: int) -> bool:
        """Whether of so many chunks none would be worth its process, because only so many items may be on their way."""
        return _WINDOW // (2 * flight) * self._sizing.mean_ns < LEAST_NS

    def _draw(self, number: int) -> Sequence[Any]:
        """Items out of the iterable; fewer if it comes to its end."""
        items: list[Any] = []
        source = self._source
        assert source is not None  # noqa: S101 - the caller has looked
        error: Exception | None = None
        if self._range is not None:
            part: Sequence[Any] = self._range[self.drawn : self.drawn + number]
            self._take_drawn(part, at_end=len(part) < number)
            return part
        try:
            items.extend(islice(source, number))
        except Exception as raised:  # the iterable's own: told when everything before has been
            error = raised
        except BaseException:
            self._take_drawn(items, at_end=True)
            self._fail(self.drawn - len(items), items, StoppedFailure("Ctrl-C came while items were drawn"))
            raise
        if self._many and set(map(type, items)) != {tuple}:
            items, wrong = _tuples(items)
            error = wrong or error
        self._take_drawn(items, at_end=error is not None or len(items) < number)
        self.error = error
        return items

    def _take_drawn(self, items: Sequence[Any], *, at_end: bool) -> None:
        with self._lock:
            self.drawn += len(items)
            if at_end:
                self._source = None
                self.size = self.drawn
            elif self.size is not None and self.drawn > self.size:
                self.size = self.drawn
        if at_end:
            self._rest_if_finished()
            self.wake()

    def _send(self, start: int, items: Sequence[Any], alone: bool) -> None:
        """Start a run of these items, or one of each."""
        self._stand_up()
        sizing = self._sizing
        if not alone and sizing.together and (len(items) > 1 or sizing.probes(start)):
            constant = not self._many and (type(items) is range or set(map(type, items)) <= _chunk.CONSTANT)
            if constant or not self._has_runs(items):
                self._send_chunk(start, items, constant=constant)
                return
            alone = True
        for place, item in enumerate(items):
            try:
                self._send_one(start + place, item)
            except BaseException:  # Ctrl-C: the others are still to be sent
                if rest := items[place + 1 :]:
                    with self._lock:
                        self._again.appendleft((start + place + 1, rest, alone))
                raise

    def _has_runs(self, items: Sequence[Any]) -> bool:
        """Whether a run is among the arguments: such an item waits for it, and the others must not."""
        if self._many:
            plain = set(map(type, chain.from_iterable(items))) <= _inputs.PLAIN
        else:
            plain = set(map(type, items)) <= _inputs.PLAIN
        return not plain and bool(_inputs.find(tuple(items), {}))

    def _send_one(self, index: int, item: Any) -> None:
        args = item if self._many else (item,)
        label = f"{self.number}[{index}]"
        try:
            run = self._context.copy().run(_start, label, self.item_task, self._runner, args, self._kwargs)
        except UsageError as error:
            failure = TaskFailure(_exceptions.safe_str(error))
            failure.__cause__ = error
            self._fail(index, [item], failure)
            return
        except BaseException:
            self._fail(index, [item], StoppedFailure("Ctrl-C came while it was being started"))
            raise
        self._listen(run, _Sent(index, [item], None))

    def _send_chunk(self, start: int, items: Sequence[Any], *, constant: bool) -> None:
        how = "arguments" if self._many else "value"
        packed = items
        if not self._forks and not constant:
            try:
                how, packed = "pickled", self._pack(start, items)
            except UsageError:  # at least one can't travel: each for itself
                self._send(start, items, True)
                return
        try:
            ledger = self._spare.pop() if self._spare else _chunk.Ledger.make()
        except OSError:  # no descriptor is left
            self._send(start, items, True)
            return
        label = f"{self.number}[{start}:{start + len(items)}]"
        budget = _OVER_NS if self._sizing.fixed is None else 0
        args = (str(self.number), start, packed, how, self._kwargs, ledger, budget)
        try:
            run = self._context.copy().run(_start_chunk, label, self._chunk_task, self._runner, args)
        except UsageError:
            self._spare.append(ledger)
            self._send(start, items, True)
            return
        except BaseException:
            ledger.close()
            self._fail(start, items, StoppedFailure("Ctrl-C came while it was being started"))
            raise
        self._listen(run, _Sent(start, items, ledger))

    def _pack(self, start: int, items: Sequence[Any]) -> list[bytes]:
        """Items as they travel, each pickled for itself: they share no argument.

        Raises:
            UsageError: one of them can't be pickled.
        """
        packed = []
        for place, item in enumerate(items):
            args = item if self._many else (item,)
            try:
                blob = dumps(args, 5)
            except Exception:
                blob = b"__main__"
            if b"__main__" in blob:  # the worker's own __main__ may be older than what is named
                try:
                    blob = _shipping._by_value(args)
                except Exception as error:
                    raise UsageError(f"{self.name}: item {start + place} can't be pickled") from error
            packed.append(blob)
        return packed

    def _listen(self, run: BaseTaskRun[Any], sent: _Sent) -> None:
        """Hear of the run's end."""
        with self._lock:
            self.live[run] = sent
        if run._result is None and run._enlist(self._ear):
            if run._pumped and self.standing is not None and (self._source is not None or sent.ledger is not None):
                run._attend()  # what follows must not need somebody who waits
        else:
            self.arrived.append(run)
            self.collect()

    # ------------------------------------------------------------------ runs that end

    def ended(self, run: BaseTaskRun[Any]) -> None:
        """A run has ended; any thread, no lock is held, more than once."""
        self.arrived.append(run)
        if self.asleep:  # whoever that is goes on with it
            self.wake()
            return
        if self.standing is not None:
            _process.step_aside()
            self.collect()
            self.fill()
        elif not self._drawing.locked():  # else there would be room again, and drawing would go on
            _process.step_aside()
            self.collect()  # nobody may ask this group again, and failures are to be told

    def leave(self, waiter: Any) -> None:
        """Somebody doesn't sleep any more; what it was woken for is done now, since it may not come back."""
        self.asleep.remove(waiter)
        if self.arrived and self.standing is not None:
            self.collect()
            self.fill()

    def wake(self) -> None:
        for waiter in list(self.asleep):
            waiter.signal(None)

    def collect(self) -> None:
        """Deal with the runs that have ended, and tell whoever sleeps: it may have looked before we were done."""
        arrived, live = self.arrived, self.live
        while arrived:
            try:
                run = arrived.popleft()
            except IndexError:  # another thread was quicker
                return
            with self._lock:
                sent = live.get(run)
                if sent is None or sent.taken:
                    continue
                sent.taken = True
            try:
                if sent.ledger is None:
                    self._take_one(run, sent)
                else:
                    self._take_chunk(run, sent, sent.ledger)
            except BaseException:  # Ctrl-C: once more, then
                with self._lock:
                    sent.taken = False
                arrived.append(run)
                raise
            self.wake()

    def _take_one(self, run: BaseTaskRun[Any], sent: _Sent) -> None:
        result: Any = run._result
        if self._sizing.together and run.seconds:
            self._sizing.measured(1, int(run.seconds * 1e9))
        if result.__class__ is Ok:
            segment = Segment(sent.start, [result.value])
        else:
            segment = Segment(sent.start, [None])
            segment.failed[0] = run
            if run._loop is not None and isinstance(result, StoppedFailure) and not run._stop_asked:
                self.stopped = True  # its event loop is being closed, and would leave further ones pending
        if self._kept < _KEPT or self.outcomes.forgets:
            self._kept += 1
            segment.run = run
        self._add([segment], run)

    def _take_chunk(self, run: BaseTaskRun[Any], sent: _Sent, ledger: Ledger) -> None:
        """A chunk's run has ended: results out of the ledger; lost is what had begun, and sent again what had not."""
        values, failed = self._read(run, sent, ledger)
        end: Any = run._result
        begun = min(ledger.begun(len(values)), len(sent.items))
        segments = []
        if end.__class__ is Ok:
            took, computed, dirty = end.value
            self._sizing.measured(max(1, begun), took, computed)
            if dirty:
                self._sizing.apart = True
            begun = len(values)
        else:
            for place in range(len(values), begun):
                failed[place] = self._failed(sent.start + place, sent.items[place], _like(end), run, len(sent.items))
                values.append(None)
            if begun == 0 and not isinstance(end, StoppedFailure):
                self._sizing.together = False
        if values:
            segment = Segment(sent.start, values)
            segment.failed, segment.chunk = failed, run
            segments.append(segment)
        rest = sent.items[begun:]
        if rest and isinstance(end, StoppedFailure):
            segment = Segment(sent.start + begun, [None] * len(rest))
            for place in range(len(rest)):
                segment.failed[place] = self._failed(
                    segment.start + place, rest[place], StoppedFailure("stopped before it was started"), None
                )
            segments.append(segment)
        elif rest:
            self._send_again(sent.start + begun, rest)
        ledger.clear()
        sent.ledger = None
        self._add(segments, run)
        self._spare.append(ledger)
        if self._rests():
            self._close_ledgers()

    def _send_again(self, start: int, items: Sequence[Any]) -> None:
        """Items that were in a chunk and have not begun."""
        alone = not self._sizing.together
        with self._lock:
            if alone or self._sizing.apart:
                self._again.extend((start + place, items[place : place + 1], alone) for place in range(len(items)))
            else:
                self._again.append((start, items, False))

    def _read(
        self, run: BaseTaskRun[Any], sent: _Sent, ledger: Ledger
    ) -> tuple[list[Any], dict[int, BaseTaskRun[Any]]]:
        """What is in a ledger: the values (None where there is none), and the runs of those that failed."""
        values: list[Any] = []
        failed: dict[int, BaseTaskRun[Any]] = {}
        for constant, results in ledger.read():
            if constant:
                values += results
                continue
            for result in results:
                if result.__class__ is not tuple:
                    values.append(result)
                    continue
                kind, data = result
                place = len(values)
                try:
                    value = loads(data)
                except Exception as error:
                    kind, value = _chunk.FAILED, _shipping.broken_result(error)
                if kind == _chunk.FAILED:
                    failed[place] = self._failed(sent.start + place, sent.items[place], value, run, len(sent.items))
                    value = None
                values.append(value)
        if _notify.listening:
            for place in range(len(values)):
                if place not in failed:
                    shell = self._shell(sent.start + place, run, len(values))
                    _notify.started(shell)
                    shell._settle(Ok(values[place]))
        return values, failed

    def _failed(
        self, index: int, item: Any, failure: Failure, chunk: BaseTaskRun[Any] | None, mates: int = 1
    ) -> BaseTaskRun[Any]:
        """The ended run of an item that failed without one of its own."""
        run = self._shell(index, chunk, mates)
        if chunk is not None and _notify.listening:
            _notify.started(run)
        run.args = item if self._many else (item,)
        failure.run = ""  # named anew: by this run
        run._settle(run._judge(failure))
        return run

    def _fail(self, start: int, items: Sequence[Any], failure: Failure) -> None:
        """Items that no run was started for."""
        if items:
            segment = Segment(start, [None] * len(items))
            for place, item in enumerate(items):
                segment.failed[place] = self._failed(start + place, item, _like(failure), None)
            self._add([segment], None)
            self.wake()

    def _add(self, segments: list[Segment], run: BaseTaskRun[Any] | None) -> None:
        """Outcomes are known; `run`, which brought them, isn't live any more."""
        with self._lock:
            self.outcomes.add(segments)
            if run is not None:
                self.live.pop(run, None)
        self._rest_if_finished()

    # ------------------------------------------------------------------ the end

    def _stop_rest(self) -> None:
        """Nothing more is sent: what is left ends as stopped. Only in the thread that draws."""
        with self._lock:
            again, self._again = list(self._again), deque()
            self._source = None
            start, size = self.drawn, self.drawn if self.size is None else self.size
            self.drawn = self.size = size
        for first, items, _ in again:
            self._fail(first, items, StoppedFailure("stopped before it was started"))
        if size > start:
            segment = Segment(start, [None] * (size - start))
            segment.stopped = True
            self._add([segment], None)
        self._rest_if_finished()
        self.wake()

    def _stand_up(self) -> None:
        """Items are on their way: the program's end waits for a group that goes on by itself."""
        if self.standing is not None:
            _process.live.add(self.standing)

    def _rests(self) -> bool:
        """Whether no chunk is live and none will be."""
        with self._lock:
            return self._source is None and not self._again and not any(sent.ledger for sent in self.live.values())

    def _rest_if_finished(self) -> None:
        """All have their outcomes: give back what is not needed any more."""
        if not self.finished():
            return
        if self.standing is not None:
            _process.live.discard(self.standing)
            self.standing._result = True
        self._close_ledgers()
        self._kwargs = {}

    def stranded(self) -> bool:
        """Whether nothing is on its way although not all is done: something was cut short, and is lost."""
        with self._lock:
            idle = not (self.live or self.arrived or self._again or self._drawing.locked())
            return idle and self._source is None and not self.finished()

    def _close_ledgers(self) -> None:
        while self._spare:
            self._spare.pop().close()

    def __del__(self) -> None:
        if getattr(self, "_owner", None) is _process.mark:
            if self.arrived:
                self.collect()
            self._close_ledgers()


class _Label(_local):
    """The number of the run that this thread is about to start, if it is one of a group."""

    next: str = ""


_label = _Label()


class _Numbers:
    """The numbers of runs of a group; of others (an item asks its run for its task, and calls that) the task's own."""

    def __init__(self, others: Iterator[int]) -> None:
        self.others = others

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        label, _label.next = _label.next, ""
        return label or next(self.others)


def _variants(task: Task[..., Any, Any]) -> tuple[Task[..., Any, Any], Task[..., Any, Any]]:
    """The task whose runs are items of a group, and the one whose runs are chunks of them.

    Made once per task, since a pool keeps what it knows of a task by its identity.
    """
    found: Any = vars(task).get("_mapped")
    if found is None or found[0].fn is not task.fn:  # else it is of the function that this method was bound from
        numbers = _Numbers(task.numbers)
        if task.cache is not None:
            task._memory("map")  # shared with the variant
        item, chunk = (type(task).__new__(type(task)) for _ in range(2))
        vars(item).update(vars(task), numbers=numbers)
        vars(chunk).update(vars(task), numbers=numbers, fn=_chunk.Chunk(task), is_async=False, simple=True, _apart=True)
        found = vars(task)["_mapped"] = item, chunk
    return found  # type: ignore[no-any-return]


def _start(
    label: str, task: Task[..., Any, Any], runner: type[BaseTaskRun[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> BaseTaskRun[Any]:
    inputs = _inputs.find(args, kwargs)
    _label.next = label
    try:
        if task.cache is not None:
            run: BaseTaskRun[Any] = task._memory("").call(task, runner, args, dict(kwargs), inputs)
            return run
        return runner.submit(task, args, dict(kwargs), inputs)
    finally:
        _label.next = ""


def _start_chunk(
    label: str, task: Task[..., Any, Any], runner: type[BaseTaskRun[Any]], args: tuple[Any, ...]
) -> BaseTaskRun[Any]:
    _label.next = label
    try:
        return runner.submit(task, args, {}, [])
    finally:
        _label.next = ""


def _tuples(items: list[Any]) -> tuple[list[Any], Exception | None]:
    """Each item as a tuple of arguments, and what was wrong with the first that can't be one."""
    found: list[Any] = []
    for item in items:
        try:
            found.append(tuple(item))
        except Exception as error:
            return found, error
    return found, None


def _like(failure: Failure) -> Failure:
    """Another failure that says the same."""
    other = type(failure).__new__(type(failure))
    vars(other).update(
        {name: value for name, value in vars(failure).items() if name not in {"_unseen", "_raised_from"}}
    )
    other.args = failure.args
    other.__cause__ = failure.__cause__
    return other
