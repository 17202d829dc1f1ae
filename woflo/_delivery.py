"""The way of a group's items: drawn, sent as runs, dealt with when these end.

    iterable ─→ drawn ─→ a run per item, or per chunk of short ones ─→ ended: outcomes ─→ handed out
                  ▲                        │                                               │
                  └──── when there is room: runs that ended, items that were handed out ◀──┘

Rules. 1: items are numbered from 0 as they are drawn; one is in exactly one place: drawn and on its way (`_sending`), part of a
live run, to be sent again, to be told as failed, or among the outcomes. 2: one thread at a time draws and sends (`_turn`); tables
change under the outcomes' lock, which is never held while user's code runs, a run is started or a value rebuilt. 3: an iterable
without a length is drawn from only in threads that ask the group for something; one with a length goes on by itself, in whichever
thread learns that a run has ended. 4: an item that has begun is never sent again. 5: an item moves from place to place in
statements between which nothing is called, so Ctrl-C finds it in one of them; what it cuts short is done by whoever comes next.

Items are drawn in `_source`. How many go together is decided in `_sizing`; what run carries them, in `_dispatch`; what a worker
does with them, and what is known after its death, in `_chunk`.
"""

from __future__ import annotations

import os
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING

from woflo import _chunk, _dispatch, _exceptions, _notify
from woflo._outcomes import Outcomes, Segment
from woflo._sizing import LEAST_NS, TARGET_NS, Sizing
from woflo._source import Batch, Source
from woflo.errors import UsageError
from woflo.result import Ok, StoppedFailure, TaskFailure
from woflo.runners import _calm, _inputs, _process, _shipping

try:
    from _pickle import loads
except ImportError:
    from pickle import loads

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
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

    __slots__ = ("items", "ledger", "resent", "start", "taken")

    def __init__(self, start: int, items: Sequence[Any], ledger: Ledger | None) -> None:
        self.start = start
        self.items = items
        self.ledger = ledger  # None: a single item, by a run of its own
        self.taken = False  # somebody is dealing with its end
        self.resent = False  # what it had not begun is to be sent again


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
        source: what items are drawn from.
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
        self.item_task, self._chunk_task = _dispatch.variants(task)
        self.number: int = next(task.numbers)
        self.name = f"{task.name}-{self.number}"
        self.source = Source(items, size, many=many)
        self.greedy = 0
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
        self._lock = self.outcomes.lock
        # who draws and sends, if anybody: a lock would be lost if Ctrl-C came when it had just been taken
        self._turn: dict[str, object] = {}
        self._wanted = False  # somebody wants to draw and could not
        self._sending: Batch | None = None
        self._unheard: BaseTaskRun[Any] | None = None  # live, and not asked yet to tell of its end
        self._again: dict[int, Batch] = {}  # to be sent again, by where they start
        # to be told as failed, by where they start; without a failure they were never drawn: stopped before
        self._failing: dict[int, tuple[Sequence[Any], Failure | None]] = {}
        self._kept = 0
        self._ear = _Ear(self)
        self._spare: list[Ledger] = []
        self._owner = _process.mark

    def finished(self) -> bool:
        """Whether all items have their outcomes."""
        with self._lock:
            return self.source.size is not None and self.outcomes.done >= self.source.size

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
        me, turn = object(), self._turn
        try:
            while self._wanted and turn.setdefault("", me) is me:
                self._wanted = False
                while self._send_some():
                    pass
                del turn[""]
        except BaseException:  # Ctrl-C
            with _calm.Held():
                if turn.get("") is me:
                    del turn[""]
                self.wake()  # whoever sleeps goes on with it
            raise
        if self.standing is not None and self.standing._result is None:  # Ctrl-C may have come when all had just ended
            self._rest_if_finished()

    def _send_some(self) -> bool:
        """Send one run's worth of items; False if there is no room or nothing left. Only in the thread that draws."""
        if self._unheard is not None:  # Ctrl-C came meanwhile
            self._hear(self._unheard)
        if self._sending is not None:
            self._send(self._sending)
            return True
        if self._failing:
            self._tell_failing()
            return True
        if self.stopped:
            self._stop_rest()
            return False
        flight, workers = self.flight()
        if len(self.live) >= flight:
            return False
        with self._lock:
            start = next(iter(self._again), None)
            if start is not None:
                again = self._again[start]
                self._sending = again
                del self._again[start]
        if start is None:
            number = self._room(flight, workers)
            if number <= 0:
                return False
            batch = self.source.draw(number)
            with self._lock:
                self._sending = self.source.take(batch, number)
            if self.source.ended:
                self._rest_if_finished()
                self.wake()
        if self._sending is None:
            return False
        self._send(self._sending)
        return True

    def _room(self, flight: int, workers: int) -> int:
        """How many items are to be drawn now, for one run."""
        source = self.source
        if source.ended:
            return 0
        number = self._sizing.size(None if source.size is None else source.size - source.drawn, workers)
        if not self.outcomes.forgets:
            return number
        if self._sizing.fixed is None:
            number = min(number, max(1, _WINDOW // (2 * flight)))
        if self.greedy:
            return number
        room = min(_WINDOW, 2 * flight * number) - (source.drawn - self.outcomes.handed)
        if room < number and self.live:  # else each item that is handed out would make a run of its own
            return 0
        return min(number, room)

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

    def _send(self, batch: Batch) -> None:
        """Start a run of a batch, or one of each item. Only in the thread that draws; Ctrl-C, and the next one goes on."""
        if self.standing is not None:  # the program's end waits for a group that goes on by itself
            _process.live.add(self.standing)
        if batch.begun:
            self._recover(batch)
        if not batch.place and not batch.alone and self._go_together(batch):
            self._send_chunk(batch)
        while batch.place < len(batch.items):
            if self.stopped:
                rest = batch.items[batch.place :], StoppedFailure("stopped before it was started")
                self._failing[batch.start + batch.place] = rest
                break
            self._send_one(batch)
        self._sending = None

    def _go_together(self, batch: Batch) -> bool:
        items, sizing = batch.items, self._sizing
        if not sizing.together or not (len(items) > 1 or sizing.probes(batch.start)):
            return False
        return _dispatch.is_constant(items, many=self._many) or not _dispatch.has_runs(items, many=self._many)

    def _send_one(self, batch: Batch) -> None:
        index, item = batch.start + batch.place, batch.items[batch.place]
        args = item if self._many else (item,)
        label = f"{self.number}[{index}]"
        context = self._context.copy()
        batch.begun = True
        try:
            context.run(_dispatch.start, batch, label, self.item_task, self._runner, args, self._kwargs)
        except Exception as error:
            failure = TaskFailure(_exceptions.safe_str(error))
            failure.__cause__ = error
            place = batch.place + 1
            self._failing[index] = [item], failure
            batch.begun, batch.place = False, place
            self._tell_failing()
            if not isinstance(error, UsageError):  # not woflo's: it may be out of a signal's handler
                raise
            return
        self._go_live(batch, 1)

    def _send_chunk(self, batch: Batch) -> None:
        """Start a run of the whole batch; if that can't be, its items are left to go alone."""
        start, items = batch.start, batch.items
        packed, how = items, "arguments" if self._many else "value"
        if not self._forks and not _dispatch.is_constant(items, many=self._many):
            try:
                how, packed = "pickled", _dispatch.pack(self.name, start, items, many=self._many)
            except UsageError:  # at least one can't travel: each for itself
                batch.alone = True
                return
        try:
            if not self._spare:
                self._spare.append(_chunk.Ledger.make())
        except OSError:  # no descriptor is left
            batch.alone = True
            return
        ledger = self._spare[0]
        label = f"{self.number}[{start}:{start + len(items)}]"
        budget = _OVER_NS if self._sizing.fixed is None else 0
        args = (str(self.number), start, packed, how, self._kwargs, ledger, budget)
        context = self._context.copy()
        del self._spare[0]  # nothing is called until it is the batch's
        batch.ledger, batch.begun = ledger, True
        try:
            context.run(_dispatch.start_chunk, batch, label, self._chunk_task, self._runner, args)
        except UsageError:
            self._spare.append(ledger)
            batch.ledger, batch.begun, batch.alone = None, False, True
            return
        self._go_live(batch, len(items))

    def _go_live(self, batch: Batch, number: int) -> None:
        """The run that was started carries so many items of its batch; hear of its end."""
        run: Any = batch.run
        place = batch.place + number
        sent = _Sent(batch.start + batch.place, batch.items[batch.place : place], batch.ledger)
        with self._lock:
            self.live[run] = sent
            self._unheard = run
            batch.begun, batch.place, batch.run, batch.ledger = False, place, None, None
        self._hear(run)

    def _hear(self, run: BaseTaskRun[Any]) -> None:
        """Be told of a live run's end."""
        if run._result is None and run._enlist(self._ear):
            sent = self.live.get(run)
            alone = sent is None or sent.ledger is None
            if run._pumped and self.standing is not None and not (alone and self.source.ended):
                run._attend()  # what follows must not need somebody who waits
        else:
            self.arrived.append(run)
            self.collect()
        self._unheard = None

    def _recover(self, batch: Batch) -> None:
        """Ctrl-C came while a run was being started: it goes on if it is known, else what it was to carry has failed."""
        number = 1 if batch.ledger is None else len(batch.items)
        if batch.run is not None:
            self._go_live(batch, number)
            return
        place, index = batch.place + number, batch.start + batch.place
        items = batch.items[batch.place : place]
        failure = StoppedFailure("Ctrl-C came while it was being started")
        ledger = batch.ledger
        with self._lock:
            self._failing[index] = items, failure
            batch.begun, batch.place, batch.ledger = False, place, None
        if ledger is not None:
            ledger.close()
        self._tell_failing()

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
        elif not self._turn:  # else there would be room again, and drawing would go on
            _process.step_aside()
            self.collect()  # nobody may ask this group again, and failures are to be told

    def leave(self, waiter: Any) -> None:
        """Somebody doesn't sleep any more; what it was woken for is done now, since it may not come back."""
        if waiter in self.asleep:  # else Ctrl-C came before it was
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
            sent = None
            try:
                with self._lock:
                    if not arrived:  # another thread was quicker
                        return
                    run = arrived[0]
                    known = live.get(run)
                    if known is None or known.taken:
                        del arrived[0]
                        if known is None:  # or Ctrl-C came when its outcomes had just been known
                            self._rest_if_finished()
                        continue
                    sent = known
                    sent.taken = True
                    del arrived[0]
                if sent.ledger is None:
                    self._take_one(run, sent)
                else:
                    self._take_chunk(run, sent, sent.ledger)
            except BaseException:  # Ctrl-C: once more, then
                if sent is not None:
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
        elif rest and not sent.resent:
            again = self._to_be_sent_again(sent.start + begun, rest)
            with self._lock:
                self._again |= again
                sent.resent = True
        self._add(segments, run)
        ledger.clear()
        self._spare.append(ledger)
        if self._rests():
            self._close_ledgers()

    def _to_be_sent_again(self, start: int, items: Sequence[Any]) -> dict[int, Batch]:
        """Items that were in a chunk and have not begun."""
        alone = not self._sizing.together
        if not alone and not self._sizing.apart:
            return {start: Batch(start, items)}
        return {
            start + place: Batch(start + place, items[place : place + 1], alone=alone) for place in range(len(items))
        }

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

    def _tell_failing(self) -> None:
        """Items that no run was started for. Only in the thread that draws."""
        failing = self._failing
        while failing:
            start = next(iter(failing))
            items, failure = failing[start]
            segment = Segment(start, [None] * len(items))
            if failure is None:
                segment.stopped = True
            else:
                for place, item in enumerate(items):
                    segment.failed[place] = self._failed(start + place, item, _like(failure), None)
            with self._lock:
                self.outcomes.add([segment], failing, start)
            self._rest_if_finished()
            self.wake()

    def _add(self, segments: list[Segment], run: BaseTaskRun[Any]) -> None:
        """Outcomes are known; `run`, which brought them, isn't live any more."""
        with self._lock:
            self.outcomes.add(segments, self.live, run)
        self._rest_if_finished()

    # ------------------------------------------------------------------ the end

    def _stop_rest(self) -> None:
        """Nothing more is sent: what is left ends as stopped. Only in the thread that draws."""
        stopped = StoppedFailure("stopped before it was started")
        with self._lock:
            again: Any = {start: (batch.items, stopped) for start, batch in self._again.items()}
            self._failing |= again
            self._again = {}
            self._failing |= self.source.close()
        self._tell_failing()
        self._rest_if_finished()
        self.wake()

    def _rests(self) -> bool:
        """Whether no chunk is live and none will be."""
        with self._lock:
            idle = self.source.ended and not self._again and self._sending is None
            return idle and not any(sent.ledger for sent in self.live.values())

    def _rest_if_finished(self) -> None:
        """All have their outcomes: give back what is not needed any more."""
        if not self.finished():
            return
        if self.standing is not None:
            _process.live.discard(self.standing)
            self.standing._result = True
        self._close_ledgers()
        if self.source.ended:  # else there are more than its length says
            self._kwargs = {}

    def stranded(self) -> bool:
        """Whether nothing is on its way although not all is done: something was cut short, and is lost."""
        with self._lock:
            idle = not (self.live or self.arrived or self._again or self._sending or self._failing or self._turn)
            return idle and self.source.ended and not self.finished()

    def _close_ledgers(self) -> None:
        while self._spare:
            self._spare.pop().close()

    def __del__(self) -> None:
        # else Ctrl-C came before it was whole, or it is another process's
        if getattr(self, "_owner", None) is _process.mark:
            if self.arrived:
                self.collect()
            self._close_ledgers()


def _like(failure: Failure) -> Failure:
    """Another failure that says the same."""
    other = type(failure).__new__(type(failure))
    vars(other).update(
        {name: value for name, value in vars(failure).items() if name not in {"_unseen", "_raised_from"}}
    )
    other.args = failure.args
    other.__cause__ = failure.__cause__
    return other
