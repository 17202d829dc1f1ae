"""The pool's side of warm workers: which call is sent when, whose result is whose, what a death has cost.

    submit ─→ staged ─→ message of one call or many ─→ queue ─→ a worker ─→ results in shared memory
                 ▲                                       │            │
                 └── units taken back: not begun yet ◀───┴── DONE ◀───┘── bell ─→ collect ─→ told

Who holds what. The pool's process: the sender (its end-of-file ends the workers), the queue's other end (to fork further
workers), the memory, the bell's eventfd, the memfd of functions, and per worker a channel and a pidfd; bell and pidfds are
watched by the supervisor's poller, and every table here changes under the supervisor's lock. A worker: the queue, memory,
bell, functions, and its end of its channel, which is its lifeline. Nothing has a name.

Rules. 1: a call belongs to exactly one of: staged, the calls of a message that is out, collected, ended. 2: it leaves a
message backwards only with its unit in hand: then no worker runs it. 3: a slot is used again only when nobody can come
with an old message of it: the worker that took it says DONE, or died; a message that nobody had taken when its units were
taken back is waited for (`_stale`). 4: results are decoded and runs ended with no lock held (`tell`). 5: a call goes
together with others only if its function was measured to be short; what is predicted wrong is taken back after a
millisecond (`_tick`).

What a death costs. The worker had taken a message, more units are gone than results are public: that one call was running, and
is lost. Everything else it held is staged again, and so are messages that nobody has taken, since it may have died with
one in hand.

Speed, from a measured design: submission stages a pickle and sends batches of at most a millisecond of work; a lone
call goes out at once and needs neither thread nor timer here.
"""

from __future__ import annotations

import _signal
import errno
import os
import sys
from _thread import _count as thread_count
from collections import deque
from itertools import islice
from marshal import dumps as dumps_plain
from time import monotonic_ns
from weakref import ref

from woflo.runners import (
    _calm,
    _launch,
    _poller,
    _pool_worker,
    _process,
    _progress,
    _ring,
    _shipping,
    _supervisor,
    _telling,
    _waiters,
)
from woflo.runners._crew import BUDGET_NS, FIRST, GLUED, MEMBER, MESSAGE_BYTES, RIDER, Crew
from woflo.runners._message import (
    ARENA,
    CUT_SHORT,
    DIED,
    DROPPED,
    FAILED,
    GONE,
    LEFT,
    NOTICE,
    SPECIAL,
    Bundle,
    Function,
    Hand,
    Message,
    call_file,
    dump,
    send_with,
    write_at,
)
from woflo.runners._ring import (
    ASKED,
    CALLS,
    DIRTY,
    DONE,
    LEAVE,
    LEAVING,
    READY,
    SAID,
    SERIAL,
    SINCE,
    STOP,
    TAKEN,
    TOOK,
    Ring,
    call_number,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from typing import Any

    from woflo.result import WorkerFailure

GLANCE_NS = _pool_worker.GLANCE_NS
_MOST_VAIN = _pool_worker.MOST_VAIN
_TICK_SECONDS = 0.001  # between two looks at messages that may have got stuck
_IDLE_SECONDS = 10.0  # a worker without work ends after this; starting one costs a millisecond
_ZEROS = memoryview(bytes(4 * CALLS)).cast("I")
_FUNCTIONS = 4_000  # known at once; what is called beyond that carries its function with it


class _Errand:
    """What the background thread is kept for while calls are staged: it looks like a run to the supervisor."""

    _result: Any = None
    _attended = False


class Pool:
    """The warm workers of one runner class, and the calls that are theirs."""

    def __init__(self, workers: int, max_runs: int | None, initializer: Any, initargs: tuple[Any, ...]) -> None:
        self.supervisor: Any = _supervisor.get()
        self.workers = workers
        self.want = 1  # calls staged at which a submission looks whether something can be sent
        self.staged: deque[Any] = deque()
        self.functions: dict[int, Function] = {}  # by the task's id, as long as it lives
        self.forking = False
        self.setting: Any = None  # the class's settings that it was made for
        self.runner: Any = None  # the class
        self._settings = max_runs, initializer, initargs
        self._pickles = bytearray()  # of the functions, as they lie in the memfd
        self._ring: Any = None  # while there are workers
        self._out: dict[int, Message] = {}  # by serial, oldest first
        self._stale: list[tuple[Message, int]] = []  # empty messages that may still be in somebody's hand
        self._recent: deque[tuple[int, Any]] = deque(maxlen=2 * workers + 2)  # functions of the last messages
        self._free: list[int] = []
        self._hands: dict[int, Hand] = {}  # by row
        self._serial = 0
        self._bundles: deque[Bundle] = deque()  # a bundle leaves it when all of it is told
        self._busy = False
        self._closing = False
        self._timer: Any = None
        self._errand: Any = _Errand()
        self._arenas: list[Any] = []  # for large buffers; lent and free ones
        self._vain = self._patience = 0  # for how many calls `glance` is left out, now and at the last failure
        self._quick = False  # whether what was sent last may go together with others

    def __reduce__(self) -> Any:  # a class that has a pool may travel by value: without it
        return type(None), ()

    # ------------------------------------------------------------------ calls come in

    def function(self, task: Any, run: Any, *, keep: bool = False) -> Function:
        """What is known of a task; its pickle is kept from its second call on, or from now on.

        Raises:
            UsageError: it can't be pickled.
        """
        found: Function | None = self.functions.get(id(task))
        if found is None:
            key, functions = id(task), self.functions
            found = functions[key] = Function(self, -1, ref(task, lambda _: functions.pop(key, None)))
            if keep:
                self._keep(found, task, run)
        elif found.number < 0 and len(self.functions) < _FUNCTIONS:
            self._keep(found, task, run)
        return found

    def _keep(self, function: Function, task: Any, run: Any) -> None:
        if _shipping._dynamic(getattr(task.fn, "__module__", None)) is not None:
            return  # a module made at run time: everything of it travels by value, each time
        data = dump(task, run._number, (), {})
        record = len(data).to_bytes(8, "little") + data
        with self.supervisor.lock:
            if function.number < 0:
                number = len(self._pickles)
                self._pickles += record
                if self._ring is not None:
                    write_at(self._ring.functions, record, number)
                function.number = number
                function.straight = not function.bulky

    def arena(self, size: int) -> Any:
        """An arena with room for so many bytes, lent: one that is free, or a new one."""
        from woflo.runners import _arena

        with self.supervisor.lock:
            free = sorted((one for one in self._arenas if one.state == _arena.FREE), key=lambda one: int(one.size))
            for one in free:
                if one.size >= size:
                    one.state = _arena.LENT
                    return one
            for one in free:  # too small for what is wanted now
                self.drop(one)
            made = _arena.new(size)
            made.state = _arena.LENT
            self._arenas.append(made)
            return made

    def spare(self, size: int) -> Any:
        """A free arena for a result of this size, if there is one."""
        with self.supervisor.lock:
            for one in self._arenas:
                if one.state == 0 and one.size >= size:
                    one.state = 1
                    return one
        return None

    def adopt(self, fd: int) -> Any:
        """An arena that a worker has made."""
        from woflo.runners._arena import Arena

        made = Arena(fd)
        with self.supervisor.lock:
            self._arenas.append(made)
        return made

    def drop(self, arena: Any) -> None:
        """Don't use an arena again."""
        with self.supervisor.lock:
            if arena in self._arenas:
                self._arenas.remove(arena)
        arena.close()

    def glance(self, run: Any) -> bool:
        """Look for a lone short call's end where it is published; True if it has come.

        Waking up costs ten times as much as such a call. If looking was in vain it is left out for a while.
        """
        if self._vain:
            self._vain -= 1
            return False
        with self.supervisor.lock:
            ring, message = self._ring, next(reversed(self._out.values()), None)
        if ring is None or message is None or message.runs != [run]:
            return False
        words, done, serial = ring.words, ring.head(message.slot) + DONE, message.serial
        end = monotonic_ns() + GLANCE_NS
        while words[done] != serial:
            if monotonic_ns() > end:
                self._patience = self._vain = min(2 * self._patience + 1, _MOST_VAIN)
                return False
        self._patience = 0
        self.advance()
        return True

    def advance(self) -> None:
        """Collect what there is and send what may go; called by whoever submits, in any thread."""
        self._calmly(self._step)
        if self._bundles:
            self.tell()

    def _calmly(self, change: Callable[[], None]) -> None:
        """Change the tables under the lock, with Ctrl-C put off until they are consistent again."""
        supervisor = self.supervisor
        try:
            with supervisor.lock:
                outermost = supervisor._calm is None
                if outermost:
                    supervisor._calm = _calm.quiet(forking=False)
                try:
                    change()
                finally:
                    if outermost:
                        supervisor._let_signals_in()
        except KeyboardInterrupt:  # of a program's own handler of some signal: it may have cut something short
            supervisor._torn = True
            raise

    def _step(self) -> None:
        """Collect and send. Needs the lock."""
        if self._busy:  # a signal handler has called a task in the middle of it
            return
        self._busy = True
        try:
            if self._out or self._stale:
                self._collect()
            if self.staged and not self._closing:
                self._flush()
            elif self.want > 1 and len(self._out) < self.workers:
                self.want = 1
            if self.staged or self._out or self._errand._attended:
                self._arrange()
        finally:
            self._busy = False

    def _flush(self) -> None:
        """Send batches while there is room. Needs the lock."""
        staged, out = self.staged, self._out
        most = 2 * self.workers
        while staged and len(out) < most:
            if staged[0]._flags & GONE:  # it was stopped
                staged.popleft()
                continue
            number = self._batch(self.workers - len(out))
            if not number:
                break
            if self._ring is None:
                try:
                    self._open()
                except OSError as error:
                    self._fail_staged(_supervisor.could_not_start(error))
                    return
            if not self._free or not self._send([staged.popleft() for _ in range(number)]):
                break
        self._staff()
        if len(out) >= most:
            self.want = len(staged) + CALLS
        elif self._quick and len(out) >= self.workers:
            self.want = max(len(staged) + 1, CALLS)
        else:
            self.want = 1

    def _batch(self, idle: int) -> int:
        """How many of the staged calls go together now; 0 if it is not worth a message yet.

        As long as workers are idle they share what there is; beyond that only full messages are sent ahead.
        """
        staged = self.staged
        first = staged[0]
        function = first._function
        self._quick = function.short() and not first._flags & SPECIAL
        if first._flags & FIRST:
            return int(first._crew.size)
        if not self._quick:
            return 1
        limit = min(CALLS, 1 + (len(staged) - 1) // idle) if idle > 0 else CALLS
        flags = first._flags
        drive = first._crew[0] if flags else None
        number = spent = size = 0
        mean = function.mean_ns
        for run in islice(staged, limit):
            if run._function is not function:
                function = run._function
                mean = function.mean_ns
                if not function.short():
                    break
            spent += mean
            size += len(run._blob)
            if (
                spent > BUDGET_NS
                or size > MESSAGE_BYTES
                or run._flags != flags
                or (flags and run._crew[0] is not drive)
            ):
                break
            number += 1
        if idle <= 0 and number == len(staged) < CALLS and spent < BUDGET_NS // 2:
            return 0
        return max(number, 1)

    def _send(self, runs: list[Any]) -> bool:
        """Send a message; False, and all is as before, if the queue has no room. Needs the lock."""
        ring = self._ring
        slot = self._free.pop()
        self._serial += 1
        message = Message(slot, self._serial, runs)
        number = len(runs)
        ring.ends[slot][:number] = _ZEROS[:number]
        words, head = ring.words, ring.head(slot)
        for word in (TAKEN, DONE, TOOK):
            words[head + word] = 0
        release = ring.units[slot].release
        self._out[message.serial] = message
        blobs: list[Any] = [run._blob for run in runs]
        first = runs[0]
        message.shown = not first._flags & NOTICE
        parcel = fd = -1
        try:
            for _ in runs:
                release()
            if len(blobs[0]) > MESSAGE_BYTES:
                parcel, blobs = call_file(blobs[0]), []
            elif first._flags & ARENA:
                fd = first._arena.fd
                blobs = [blob for blob in blobs if blob]
            attempt = first.attempt if first._flags & SPECIAL else 1
            flags = (0 if message.shown else _ring.NOTICE) | (_ring.CLEAN if self._quick else 0)
            flags |= _ring.ROOM if fd >= 0 else _ring.WIRED if first._flags & FIRST else 0
            packet = dumps_plain((slot, message.serial, flags, attempt, blobs))
            if parcel < 0 and fd < 0:
                ring.sender.send(packet)
            else:
                send_with(ring.sender, packet, max(parcel, fd))
            words[ring.sent] += 1
        except OSError as error:
            self._give_back(message)
            del self._out[message.serial]
            self._free.append(slot)
            if error.errno != errno.EAGAIN:
                self._fail_staged(_supervisor.could_not_start(error))
            return False
        finally:
            if parcel >= 0:
                os.close(parcel)
        return True

    def _give_back(self, message: Message) -> int:
        """Take back what units a message has left: those calls are staged again, before all others. Needs the lock."""
        taken: int = self._ring.take_back(message.slot)
        if taken:
            at = len(message.runs) - taken
            back = message.runs[at:]
            del message.runs[at:]
            if at and back[0]._flags & GLUED:  # else all of them stay together
                back = self._dissolve(back)
            self.staged.extendleft(reversed(back))
        return taken

    def _dissolve(self, runs: list[Any]) -> list[Any]:
        """Part what was bound together; returns those that can go by themselves. Needs the lock."""
        left = [run for run in runs if run._flags & RIDER]
        if left:
            bundle = Bundle(left, [LEFT] * len(left), b"")
            bundle.crew = left[0]._crew
            self._bundles.append(bundle)
        runs = [run for run in runs if not run._flags & RIDER]
        for run in runs:
            run._flags &= ~(FIRST | GLUED)
        return runs

    def idle(self) -> int:
        """How many workers have nothing to do, or would if they were there."""
        return self.workers - len(self._out)

    def crew(self, drive: Any) -> Crew:
        """An empty crew."""
        return Crew(drive, self)

    # ------------------------------------------------------------------ results come back

    def ready(self, key: int) -> None:
        """A descriptor of ours is ready; called by the supervisor's step, with its lock held."""
        if self._ring is None:
            return
        said = 0
        if key == self._ring.bell:
            try:
                os.eventfd_read(key)
            except BlockingIOError:
                pass
            words, news = self._ring.words, self._ring.news
            if said := words[news]:
                words[news] = 0
        else:
            for hand in list(self._hands.values()):
                if hand.process_key == key:
                    self._bury(hand)
        self._step()
        if said:
            for message in self._out.values():
                self._look_for_reports(message)
        if self._bundles:
            _process.news.append(self.tell)

    def _collect(self) -> None:
        """Look at all messages that are out. Needs the lock."""
        words, head = self._ring.words, self._ring.head
        for message in list(self._out.values()):
            at = head(message.slot)
            if words[at + DONE] == message.serial:
                self._done(message, at)
            elif not message.shown and words[at + TAKEN]:
                self._show(message, at)
            elif words[at + TAKEN] and message.runs and message.runs[-1]._flags & GLUED:
                self._harvest(message)
        if self._stale:
            self._look_at_stale()

    def _done(self, message: Message, at: int) -> None:
        """The worker that took the message has done with it."""
        words = self._ring.words
        if not message.shown:
            self._show(message, at)
        self._harvest(message)
        if message.seen < len(message.runs):  # it had a reason to leave, or the region is full
            self._give_back(message)
        del self._out[message.serial]
        self._free.append(message.slot)
        runs = message.runs
        if len(runs) == 1:
            function = runs[0]._function
            self._recent.append((message.serial, (function,)))
            function.measured(words[at + TOOK])
        elif message.seen:
            functions = {run._function for run in runs}
            self._recent.append((message.serial, functions))
            self._measure(runs, functions, words[at + TOOK] // message.seen)
        row = self._ring.row(words[at + TAKEN] - 1)
        if dirty := words[row + DIRTY]:
            words[row + DIRTY] = 0
            for serial, functions in self._recent:
                if serial == dirty:
                    for function in functions:
                        function.alone = True

    def _measure(self, runs: list[Any], functions: set[Function], nanoseconds: int) -> None:
        """These calls took so long each, on average."""
        if len(functions) == 1:
            next(iter(functions)).measured(nanoseconds)
            return
        predicted = sum(run._function.mean_ns for run in runs)
        for function in functions:
            function.measured(function.mean_ns * nanoseconds * len(runs) // max(predicted, 1))

    def _harvest(self, message: Message) -> None:
        """Take what results of a message are public. Needs the lock."""
        ring, slot, seen = self._ring, message.slot, message.seen
        ends = ring.ends[slot][seen : len(message.runs)].tolist()
        number = self._public(message, ends)
        if ring.words[ring.head(slot) + SAID] > message.serial * 512:
            self._look_for_reports(message, seen + number)
        if not number:
            return
        begin = ring.ends[slot][seen - 1] >> 4 if seen else 0
        del ends[number:]
        bundle = Bundle(message.runs[seen : seen + number], ends, bytes(ring.regions[slot][begin : ends[-1] >> 4]))
        bundle.begin = begin
        if bundle.runs[0]._flags & MEMBER:
            bundle.message, bundle.crew = message, bundle.runs[0]._crew
        words, at = ring.words, ring.head(slot)
        hand = self._hands.get(words[at + TAKEN] - 1)
        bundle.hand = hand
        bundle.since = words[at + SINCE] / 1e9
        bundle.until = bundle.since + (words[at + TOOK] or monotonic_ns() - words[at + SINCE]) / 1e9 / (seen + number)
        if hand is not None and _ring.LARGE in {end & 15 for end in ends}:
            for run, end in zip(bundle.runs, ends, strict=True):
                if end & 15 == _ring.LARGE and (end >> 4) + _ring.HANDED_ON_BYTES <= _ring.REGION_BYTES:
                    run._function.large = True
            bundle.large = {
                index - seen: what for index, what in hand.parcels(message.serial, seen, seen + number).items()
            }
        message.seen += number
        self._bundles.append(bundle)

    def _look_for_reports(self, message: Message, ended: int = 0) -> None:
        """A call of a message may have reported: its run is to know. The first `ended` calls have ended. Needs the lock."""
        ring, slot = self._ring, message.slot
        call = ring.words[ring.head(slot) + SAID]
        index = call - call_number(message.serial, 0)
        if not 0 <= index < len(message.runs):  # an earlier message's
            return
        run = message.runs[index]
        run._function.alone = True  # its message ends with it: never together with others
        reports = _progress.of(run)
        if reports.source is None:
            sheet = ring.sheets[slot]
            reports.source = lambda: _progress.read(sheet, call)
            _process.news.append(lambda: reports.arrange(run))
        reports.look()
        if index < ended:  # the sheet may soon be another call's, and the run may end without a word
            reports.source = None

    def _public(self, message: Message, ends: list[int]) -> int:
        """How many results beyond those seen are public."""
        counted = self._ring.results[message.slot]
        if counted is None:
            try:
                return ends.index(0)
            except ValueError:
                return len(ends)
        while counted.acquire(False):
            message.counted += 1
        return message.counted - message.seen

    def _show(self, message: Message, at: int) -> None:
        """A message's first call has begun: its run wants to know."""
        message.shown = True
        hand = self._hands.get(self._ring.words[at + TAKEN] - 1)
        run = message.runs[0] if message.runs else None
        if run is not None and hand is not None:
            run._begun(hand.pid, self._ring.words[at + SINCE] / 1e9)

    def tell(self) -> None:
        """End the runs whose results were collected. No lock is held."""
        here = sys._getframe()
        try:
            while (bundle := self._take_bundle(here)) is not None:
                _telling.tell(bundle)
                with self.supervisor.lock:
                    self._bundles.remove(bundle)
                    bundle.teller = None
        except KeyboardInterrupt:  # whoever comes next goes on with it
            _process.news.append(self.tell)
            raise
        finally:
            del here  # a frame that holds itself would keep what it has told
        whom = self.supervisor.driving
        if whom is not None and getattr(whom, "_result", None) is not None:  # asleep for a run that ended here
            self.supervisor.wake()

    def _take_bundle(self, teller: Any) -> Bundle | None:
        """The next bundle to be told: one that nobody tells, or whose telling Ctrl-C has ended."""
        with self.supervisor.lock:
            begun: set[Any] = set()  # messages that another thread tells the earlier results of
            for bundle in self._bundles:
                if bundle.teller is not None and _telling.is_executed(bundle.teller):
                    begun.add(bundle.message)
                elif bundle.message is None or bundle.message not in begun:
                    bundle.teller = teller
                    return bundle
        return None

    # ------------------------------------------------------------------ what got stuck

    def _arrange(self) -> None:
        """Have somebody look soon if anything can fall due with nobody waiting. Needs the lock."""
        out = self._out
        if self.staged or (out and (len(out) > self._staying() or any(len(m.runs) > 1 for m in out.values()))):
            if self._timer is None:
                self._timer = self.supervisor.call_later(_TICK_SECONDS, self._tick)
            if not self._errand._attended and not self._is_watched():
                self.supervisor.attend(self._errand)
        elif self._errand._attended and self._timer is None:
            self._errand._attended = False
            self.supervisor.dismiss(self._errand)

    def _is_watched(self) -> bool:
        """Whether all there is belongs to drives whose threads wait for it, and see to it while they do something else.

        Two threads that take turns at driving cost a switch for each message.
        """
        staged = self.staged
        runs = [staged[0], staged[-1]] if staged else []
        runs += [message.runs[0] for message in self._out.values() if message.runs]
        return all(run._flags & MEMBER and run._crew.watched for run in runs)

    def _tick(self) -> None:
        """Take back what waits behind a call that turned out long; then as ever."""
        self._calmly(self._unstick)
        self.tell()

    def _unstick(self) -> None:
        self._timer = None
        if self._ring is not None:
            self._take_back_what_waits()
        self._step()

    def _take_back_what_waits(self) -> None:
        words, now = self._ring.words, monotonic_ns()
        for message in reversed(list(self._out.values())):
            if len(message.runs) - message.seen < 2:
                continue
            at = self._ring.head(message.slot)
            if not words[at + TAKEN] or words[at + DONE] == message.serial:
                continue
            ends = self._ring.ends[message.slot][message.seen : len(message.runs)].tolist()
            public = message.seen + (ends.index(0) if 0 in ends else len(ends))
            if not message.since:
                message.since = words[at + SINCE]
            elif public > message.looked:
                message.since = now
            message.looked = public
            if now - message.since > BUDGET_NS and public < len(message.runs):
                message.runs[public]._function.measured(now - message.since)
                self._harvest(message)
                self._give_back(message)

    def _look_at_stale(self, drained: Container[int] = ()) -> None:
        """Free the slots of empty messages that can't be in anybody's hand any more. Needs the lock.

        A worker that has taken a later message doesn't hold an earlier one.
        """
        words, ring = self._ring.words, self._ring
        earliest = min((words[ring.row(row) + SERIAL] for row in self._hands), default=sys.maxsize)
        kept = []
        for message, since in self._stale:
            done = words[ring.head(message.slot) + DONE] == message.serial
            if done or message.serial in drained or earliest > since:
                self._free.append(message.slot)
            else:
                kept.append((message, since))
        self._stale = kept

    # ------------------------------------------------------------------ workers

    def _open(self) -> None:
        """Make what the workers will share. Needs the lock."""
        slots = 3 * self.workers + 2
        ring = Ring(slots, self.workers, _IDLE_SECONDS, _progress.SHEET_BYTES)
        write_at(ring.functions, bytes(self._pickles), 0)
        self._free = list(range(slots - 1, -1, -1))
        self.supervisor.guests[ring.bell] = self
        self.supervisor._poller.add(ring.bell)
        self._ring = ring

    def _staff(self) -> None:
        """As many workers as there are messages, at most as many as are wanted. Needs the lock."""
        ring = self._ring
        if ring is None or len(self._out) == 0:
            return
        while True:
            if self._staying() >= min(self.workers, len(self._out)) or len(self._hands) >= self.workers:
                return
            try:
                self._fork()
            except (OSError, RuntimeError) as error:
                if not self._hands:
                    failure = OSError(errno.EAGAIN, str(error)) if isinstance(error, RuntimeError) else error
                    self._recall()
                    self._fail_staged(_supervisor.could_not_start(failure))
                return
            if self._ring is None:
                return

    def _staying(self) -> int:
        """How many workers are not about to leave. Needs the lock."""
        ring = self._ring
        return sum(1 for row in self._hands if not ring.words[ring.row(row) + LEAVING])

    def _fork(self) -> None:
        """Start a worker. Needs the lock."""
        supervisor, ring = self.supervisor, self._ring
        row = next(number for number in range(self.workers) if number not in self._hands)
        ring.clear_row(row)
        calm = _calm.quiet()
        try:
            outer = None if supervisor._calm is None else supervisor._calm[0]
            mask: Any = calm[0] if outer is None else outer
            hand = self._fork_quietly(row, mask, calm[1])
            self._hands[row] = hand
            if hand.process_key == -1:
                self._bury(hand)
                _process.news.append(self.tell)
            else:
                supervisor.guests[hand.process_key] = self
                supervisor._poller.add_process(hand.process_key)
        finally:
            _calm.loud(calm)

    def _fork_quietly(self, row: int, mask: set[Any], signals: list[int]) -> Hand:
        import _socket

        threads = thread_count()
        if threads:
            _launch._name_the_risk()
        else:
            _launch._flush()
        if len(sys.modules) != _launch._modules:
            _launch._look_at_modules()
        parent, pid = os.getpid(), -1
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
        try:
            ours.setblocking(False)
            _process.forking = self.forking = True
            try:
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    libraries = _launch._libraries
                    _pool_worker.serve(
                        self._ring, row, theirs, parent, threads > 0, mask, signals, libraries, self._settings
                    )
            finally:
                _process.forking = self.forking = False
        except BaseException:
            _launch._undo(pid, ours)
            raise
        finally:
            theirs.close()
        hand = Hand(row, pid, ours)
        try:
            hand.process_key = _poller.watch_process(pid)
        except ProcessLookupError:  # it has died of its first call, and the application has reaped it
            return hand
        except OSError:
            _launch._undo(pid, ours)
            raise
        return hand

    def _bury(self, hand: Hand) -> None:
        """A worker has ended: what it had begun is lost, all else it held is staged again. Needs the lock."""
        ring, lost = self._ring, []
        words = ring.words
        unready = not words[ring.row(hand.row) + READY]
        for message in reversed(list(self._out.values())):
            at = ring.head(message.slot)
            if words[at + TAKEN] == hand.row + 1:
                if not message.shown:
                    self._show(message, at)
                self._harvest(message)
                self._give_back(message)
                lost += [(message, run) for run in message.runs[message.seen :]]
                del self._out[message.serial]
                self._free.append(message.slot)
        for arena in [one for one in self._arenas if one.holder is hand]:
            self.drop(arena)
        del self._hands[hand.row]
        self._recall()
        hand.look_at_group()
        status = hand.reap()
        for message, run in lost:
            bundle = Bundle([run], [DIED], b"")
            bundle.message = message
            bundle.death, bundle.hand = (hand, status), hand
            self._bundles.append(bundle)
        if unready and status == _pool_worker.NOT_READY:
            self._initializer_failed(hand)
        if hand.process_key != -1:
            self.supervisor.guests.pop(hand.process_key, None)
            self.supervisor._poller.remove_process(hand.process_key)
        hand.close()
        if not self._hands and not self._out and (not self.staged or self._closing):
            if self._closing or words[ring.row(hand.row) + LEAVING]:
                self._dispose()
            else:  # it was ended: the next call finds all but a worker
                self.supervisor.call_later(_IDLE_SECONDS, self._dispose_if_idle)

    def _dispose_if_idle(self) -> None:
        with self.supervisor.lock:
            if self._ring is not None and not (self._hands or self._out or self.staged):
                self._dispose()

    def _recall(self) -> None:
        """Stage all messages again that nobody has taken: one may have been in a dead worker's hand. Needs the lock.

        What is still in the queue is taken out of it, so that what is left is in somebody's hand: a living worker's,
        that will take it in a moment and find no unit, or the dead one's.
        """
        ring = self._ring
        for message in reversed(list(self._out.values())):
            if not ring.words[ring.head(message.slot) + TAKEN]:
                self._give_back(message)
                if not message.runs:
                    del self._out[message.serial]
                    self._stale.append((message, self._serial))
        drained = ring.drain()
        if drained or self._stale:
            self._look_at_stale(drained)

    def _initializer_failed(self, hand: Hand) -> None:
        """No worker can be had: what waits for one fails with the reason. Needs the lock."""
        for _, fd in hand.parcels(0).values():
            with open(fd, "rb") as file:
                file.seek(0)
                data = file.read()
            waiting, self.staged = list(self.staged), deque()
            for run in waiting:
                if run._result is None:
                    bundle = Bundle([run], [len(data) << 4 | _ring.FAILURE], data)
                    bundle.hand = hand
                    self._bundles.append(bundle)

    def _fail_staged(self, failure: WorkerFailure) -> None:
        """Nothing can be started. Needs the lock."""
        waiting = list(self.staged)
        self.staged.clear()
        for run in waiting:
            bundle = Bundle([run], [FAILED], b"")
            bundle.death = failure
            self._bundles.append(bundle)
        if self._bundles:
            _process.news.append(self.tell)

    def _dispose(self) -> None:
        """The last worker has gone: keep nothing open. Needs the lock."""
        ring, self._ring = self._ring, None
        self._stale.clear()
        self._recent.clear()
        self._closing = False
        self.supervisor.guests.pop(ring.bell, None)
        self.supervisor._poller.remove(ring.bell)
        ring.close()
        for arena in list(self._arenas):
            self.drop(arena)

    # ------------------------------------------------------------------ stopping

    def end(self, run: Any, grace: float) -> None:
        """End a run: one that has not begun is taken out, one that runs is signalled, and killed after the grace."""
        self._calmly(lambda: self._end(run, grace))
        self.tell()

    def _end(self, run: Any, grace: float) -> None:
        if self._ring is not None:
            self._collect()
        found = self._find(run)
        if found is None:
            if run._result is None and not self._is_collected(run):
                self._drop(run)
        else:
            message, index = found
            self._harvest(message)
            self._give_back(message)
            if index >= len(message.runs):
                self._drop(run)
            elif index >= message.seen:
                self._stop(message, index, grace)
        self._step()

    def withdraw(self, run: Any) -> bool:
        """Take out a run that has not begun; False, and it is left alone, if it has."""
        taken = False

        def take_out() -> None:
            nonlocal taken
            if self._ring is not None:
                self._collect()
            found = self._find(run)
            if found is None:
                taken = run._result is None and not self._is_collected(run)
            else:
                message, index = found
                self._harvest(message)
                self._give_back(message)
                taken = index >= len(message.runs)
            if taken:
                self._drop(run)
            self._step()

        self._calmly(take_out)
        self.tell()
        return taken

    def _is_collected(self, run: Any) -> bool:
        """Whether what became of a run is known, and about to be told."""
        return any(run in bundle.runs for bundle in self._bundles)

    def _drop(self, run: Any) -> None:
        """A staged run was stopped: `_flush` passes over it. Needs the lock."""
        if run._flags & (FIRST | GLUED) and run in self.staged:
            self._part_from(run)
        run._flags |= GONE
        self._bundles.append(Bundle([run], [DROPPED], b""))

    def _part_from(self, run: Any) -> None:
        """Dissolve the staged ones that a run is bound to. Needs the lock."""
        staged = self.staged
        runs = list(staged)
        first = end = runs.index(run)
        while runs[first]._flags & GLUED:
            first -= 1
        end += 1
        while end < len(runs) and runs[end]._flags & GLUED:
            end += 1
        runs[first:end] = self._dissolve(runs[first:end])
        staged.clear()
        staged.extend(runs)

    def _find(self, run: Any) -> tuple[Message, int] | None:
        for message in self._out.values():
            if run in message.runs:
                return message, message.runs.index(run)
        return None

    def _stop(self, message: Message, index: int, grace: float) -> None:
        """Signal the worker that runs a call. Needs the lock."""
        words = self._ring.words
        hand = self._hands.get(words[self._ring.head(message.slot) + TAKEN] - 1)
        if hand is None:
            return
        run = hand.stopping = message.runs[index]
        if hand.killer is not None:
            hand.killer.cancel()
        hand.strays.update(_launch.strays(hand.pid))
        if grace > 0:
            row = self._ring.row(hand.row)
            words[row + STOP] = call_number(message.serial, index)
            words[row + ASKED] += 1
            hand.signal(_signal.SIGTERM)
            hand.signal(_signal.SIGCONT)
            hand.killer = self.supervisor.call_later(grace, lambda: self._kill(hand, run))
        else:
            self._kill(hand, run)

    def _kill(self, hand: Hand, run: Any) -> None:
        """The grace is over: end the worker, if it is still at this run."""
        with self.supervisor.lock:
            if hand.gone or self._hands.get(hand.row) is not hand:
                return
            row = self._ring.row(hand.row)
            if self._ring.words[row + LEAVING]:  # it has nothing any more, but can't leave: a flush that blocks…
                hand.signal(_signal.SIGKILL)
                return
            found = None if run._result is not None else self._find(run)
            if found is None:
                return
            self._ring.words[row + LEAVE] = 1  # from now on it begins no other call
            self._harvest(found[0])
            if found[1] >= found[0].seen:
                hand.strays.update(_launch.strays(hand.pid))
                hand.signal(_signal.SIGKILL)

    def hand_of(self, run: Any) -> Hand | None:
        """The worker that was asked to stop for this run, as long as it is there."""
        for hand in list(self._hands.values()):
            if hand.stopping is run:
                return hand
        return None

    def look_at(self, run: Any) -> None:
        """Tell a run that has begun where and since when it runs."""
        with self.supervisor.lock:
            found = None if self._ring is None else self._find(run)
            if found is None:
                return
            message, index = found
            at = self._ring.head(message.slot)
            hand = self._hands.get(self._ring.words[at + TAKEN] - 1)
            if hand is not None and (index == 0 or self._ring.ends[message.slot][index - 1]):
                run.pid = hand.pid
                run._started = run._started or self._ring.words[at + SINCE] / 1e9

    def mend(self) -> None:
        """Ctrl-C has cut something short: a run that is nowhere now, and a moment later, is said to be lost. Needs the lock."""
        suspects = self._lost()
        if not suspects:
            return

        def look_again() -> None:
            with self.supervisor.lock:
                for run in self._lost() & suspects:
                    self._bundles.append(Bundle([run], [CUT_SHORT], b""))
            self.tell()

        self.supervisor.call_later(_waiters.RECHECK, look_again)
        for run in suspects:
            self.supervisor.attend(run)

    def _lost(self) -> set[Any]:
        known = {run for message in self._out.values() for run in message.runs}
        known.update(self.staged)
        return {
            run
            for run in list(_process.live)
            if getattr(getattr(run, "_function", None), "pool", None) is self
            and run._phase == "running"
            and run not in known
            and not self._is_collected(run)
        }

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Have the workers leave: the program ends. Needs the lock."""
        if self._ring is not None and not self._closing:
            self._closing = True
            self._ring.close_sender()
            if not self._hands:
                self._dispose()

    def kill_all(self) -> None:
        """SIGKILL to the group of every worker. Needs the lock."""
        for hand in self._hands.values():
            hand.signal(_signal.SIGKILL)

    def abandon(self, *, to_worker: bool) -> None:
        """In a forked child: nothing of this is its own, except what a worker of this very pool serves with."""
        ring = self._ring
        channels = [hand.channel for hand in self._hands.values()]
        keys = [hand.process_key for hand in self._hands.values()]
        if ring is None:
            return
        if not self.forking:
            channels.append(ring.queue)
            keys += [ring.bell, ring.functions, *ring.counters]
        keys += [arena.fd for arena in self._arenas if arena.fd >= 0]
        channels.append(ring.sender)
        for key in keys:
            os.close(key)
        for channel in channels:
            if not to_worker:
                channel.close()
            elif channel.fileno() >= 0:
                os.close(channel.fileno())
        if not self.forking:
            ring.bell = ring.functions = -1
