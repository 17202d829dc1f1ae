"""A warm worker's side: take a message, run its calls, publish each result, and again.

    queue ─→ message ─→ unit? ─→ call ─→ bytes into the region, then its end ─→ … ─→ DONE, bell ─→ state put back

Rules. 1: a call begins only with a unit in hand, and the next unit is taken only when the result before is public.
2: it never waits for its parent: the queue is the only thing that it sleeps on. 3: its channel is its lifeline, as in
`_worker`: the parent never writes to it, and what is sent on it (descriptors of large results) never fills it. 4: a
task that was asked to stop costs the worker as well: what was torn out of the middle leaves a state that nobody knows.
"""

from __future__ import annotations

import _signal
import os
import select
import sys
from contextvars import copy_context
from marshal import dumps as dumps_plain
from marshal import loads as loads_plain
from time import monotonic_ns, sleep

from woflo import _exceptions, _notify
from woflo.errors import TaskStopped
from woflo.result import Ok, StoppedFailure, TaskFailure, WorkerFailure
from woflo.runners import _arena, _attempt, _process, _progress, _ring, _shipping, _worker, base
from woflo.runners._arena import BACK, Arena, split
from woflo.runners._crew import ENDED
from woflo.runners._restore import State
from woflo.runners._ring import (
    CLEAN,
    DIRTY,
    DONE,
    LEAVE,
    LEAVING,
    NOTICE,
    READY,
    ROOM,
    SAID,
    SERIAL,
    SINCE,
    TAKEN,
    TOOK,
    WIRED,
    call_number,
)

try:
    from _pickle import dumps, loads
except ImportError:
    from pickle import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

    from woflo.runners._ring import Ring

_UNREAD_BYTES = 65_536  # of what it has sent on its channel: more is not sent before the parent has read
GLANCE_NS = 50_000  # so long it is worth to look without sleeping, here and in the pool's process
MOST_VAIN = 63  # calls without a look after so many looks in vain
_UNCHECKED_NS = 1_000_000  # so long calls of functions that were clean so far may follow each other unlooked at
_FEW_ARENAS = 2  # mapped at once
_FEW_FUNCTIONS = 2_000  # kept at hand; then all are read anew
_NEARLY_FULL = _ring.REGION_BYTES - 4_096  # of the region: a message ends early rather than use a memfd for each result
NOT_READY = 72  # exit code: the initializer raised
_dontwait = 0x40  # Linux: MSG_DONTWAIT
_cloexec = 0x40000000  # Linux: MSG_CMSG_CLOEXEC

_pid = 0
_signals = 0  # how many SIGTERMs have come
_armed = False  # whether SIGTERM raises TaskStopped: only while a task runs
_call = 0  # the number of the call that runs
_run: Any = None
_asked = False  # whether a call was asked to stop: this worker takes no further one
_cut = False  # whether the message ends with the call that runs: it was asked to stop, or reports progress
_slot = 0  # of the message
_places: tuple[_exceptions.Place, ...] = ()
_words: Any = None
_row = 0
_forked = False  # in a process that a task has forked


class _Run(base.BaseTaskRun):  # type: ignore[type-arg]
    """A worker's copy of a run: it has the names, but can't be waited for."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(_blank, name)


_blank: Any = base.BaseTaskRun(None, (), {}, 0, None)  # type: ignore[arg-type]


def serve(
    ring: Ring,
    row: int,
    channel: Any,
    parent: int,
    streams: bool,
    mask: set[Any],
    signals: list[int],
    libraries: list[str],
    settings: tuple[int | None, Any, tuple[Any, ...]],
) -> NoReturn:
    """In a forked child: a worker's whole life.

    Args:
        ring: what it shares with the pool; the pool's end of the queue is closed here already (by the fork hook).
        row: its number among the workers.
        channel: its end of its channel.
        parent: the parent's process number.
        streams: whether stdout and stderr must be made anew (the parent had threads).
        mask: the parent's signal mask.
        signals: those with a Python handler in the parent.
        libraries: those loaded that want to be told of a fork.
        settings: max_runs_per_worker, initializer, initargs.
    """
    global _armed, _asked, _call, _cut, _forked, _pid, _row, _run, _signals, _words
    code = 0
    try:
        _armed = _asked = _cut = _forked = False  # this process may be the fork of a worker
        _call = _signals = 0
        _run = None
        _pid, _words, _row = os.getpid(), ring.words, ring.row(row)
        _blank._progress = _Opener(ring)
        os.setpgid(0, 0)
        _worker.hang_on(channel, parent)
        _worker.reset_signals(signals)
        _signal.signal(_signal.SIGTERM, _on_term)
        # a thread that was started while Ctrl-C was blocked, and forks this worker, has it blocked for good; here it is ignored
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask - {_signal.SIGINT})
        os.dup2(_process.null(), 0)
        if sys.stdin is not None:
            sys.stdin = _worker._empty_stdin
        if streams:
            _worker.renew_streams()
        if libraries:
            _worker._settle_libraries(libraries)
        os.register_at_fork(after_in_child=_leave_to_the_task)
        if _notify.observers:
            _notify.forget_observers()
        _process.chosen.set(None)
        code = _Worker(ring, row, channel).live(*settings)
    except BaseException as error:
        _worker._say(f"woflo: a pool's worker could not go on: {_exceptions.type_name(type(error))}: {error}")
        os._exit(70)
    if _process.live:
        _worker.finish_own_runs(StoppedFailure("stopped") if _asked else Ok(None))
    if code:
        os._exit(code)
    _worker.leave()


def _leave_to_the_task() -> None:
    """In a process that a task has forked: it is no worker, and SIGTERM ends it."""
    global _forked
    _forked = True
    _blank._progress = _progress.SILENT
    if _run is not None:
        _run._progress = _progress.SILENT
    if _signal.getsignal(_signal.SIGTERM) is _on_term:
        try:
            _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        except ValueError:  # forked by a thread of the task
            pass


def _on_term(_number: int, frame: FrameType | None) -> None:
    """SIGTERM: the call that the pool names is asked to stop; one that has ended meanwhile is not there any more.

    More signals than the pool has sent: somebody else means whatever runs; an idle worker leaves.
    """
    global _armed, _asked, _cut, _places, _signals
    if os.getpid() != _pid:
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        os.kill(os.getpid(), _signal.SIGTERM)
        return
    _signals += 1
    if _signals <= _words[_row + _ring.ASKED] and _words[_row + _ring.STOP] != _call:
        return
    _asked = _cut = True
    if _run is None:  # idle: a message that it holds is given to others
        os.killpg(0, 9)
    _run._stop_asked = True
    if _armed:
        _armed = False
        _places = _exceptions.stack(frame)
        raise TaskStopped


class _Opener(_progress.Silent):
    """Takes the first report of each call, and lets the pool know."""

    __slots__ = ("_ring",)

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def report(self, run: Any, report: _progress.Report) -> None:
        """Write it on the sheet of the message's slot, which is this call's from now on: the message ends with it."""
        global _cut
        call, slot, ring = _call, _slot, self._ring
        if run is not _run:  # a thread that a call has left behind
            return
        _cut = True
        writer = run._progress = _Writer(ring.sheets[slot], call)
        writer.report(run, report)
        ring.words[ring.head(slot) + SAID] = call
        ring.words[ring.news] = 1
        try:
            os.eventfd_write(ring.bell, 1)
        except BlockingIOError:  # it has been rung 2**64 times
            pass


class _Writer(_progress.Writer):
    """Writes the reports of one call."""

    __slots__ = ()

    def report(self, run: Any, report: _progress.Report) -> None:
        """Write it, unless the call has ended: the sheet may be another's."""
        if self._key == _call:
            super().report(run, report)


class _Worker:
    """The loop, and what it needs at hand."""

    def __init__(self, ring: Ring, row: int, channel: Any) -> None:
        self.ring = ring
        self.row = row
        self.channel = channel
        self.functions: dict[int, Any] = {}  # tasks by their places in the memfd
        self.straight: dict[int, Any] = {}  # those of them that need nothing but to be called
        self.runs = 0
        self.quick = False  # what it did last was short: more may come at once
        self.vain = self.patience = 0  # for how many messages `glance` is left out, now and at the last failure
        self.arenas: dict[int, Arena] = {}  # by inode, the last used at the end
        self.arena: Arena | None = None  # that came with the message
        self.kept: Any = None  # the last result, until it is public

    def live(self, max_runs: int | None, initializer: Any, initargs: tuple[Any, ...]) -> int:
        """Take messages until there is a reason to leave; an exit code, 0 for a quiet end."""
        if initializer is not None:
            try:
                initializer(*initargs)
            except BaseException as error:
                self.send_descriptor(0, 0, _shipping_bytes(_initializer_failed(error)))
                _worker.flush()
                return NOT_READY
        words, row = self.ring.words, self.ring.row(self.row)
        words[row + READY] = 1
        self.state = State()
        self.context = copy_context()
        self.max_runs = max_runs or sys.maxsize
        queue, buffer = self.ring.queue, bytearray(_ring.MESSAGE_BYTES)
        view = memoryview(buffer)
        receive = queue.recvmsg_into
        waiting = select.poll()
        waiting.register(queue.fileno(), select.POLLIN)
        unchecked = 0  # since when its state has not been looked at, ns; 0: it is as it should be
        while True:
            if self.quick:
                self.glance(waiting)
            if unchecked and (monotonic_ns() - unchecked > _UNCHECKED_NS or not waiting.poll(1)):
                if not self.restore():
                    return 0
                unchecked = 0
            try:
                size, ancillary, _, _ = receive([buffer], 64, _cloexec)
            except BlockingIOError:  # nothing for long: look once more after saying so (`_pool` looks after sending)
                if _process.live:
                    self.look_after_own()
                    continue
                words[row + LEAVING] = 1
                try:
                    size, ancillary, _, _ = receive([buffer], 64, _cloexec | _dontwait)
                except BlockingIOError:
                    return 0
                words[row + LEAVING] = 0
            if not size:  # the pool is closed, or its process gone
                return 0
            slot, serial, flags, attempt, blobs = loads_plain(view[:size])  # noqa: S302 - from our own parent
            blobs = self.unpack(flags, ancillary, blobs)
            self.carry_out(slot, serial, flags, attempt, blobs)
            if words[row + LEAVE] or _asked or self.runs >= self.max_runs:
                return 0
            unchecked = unchecked or monotonic_ns()
            if not flags & CLEAN:
                if not self.restore():
                    return 0
                unchecked = 0
            if _process.supervisor is not None:
                self.look_after_own()

    def glance(self, waiting: Any) -> None:
        """Look for a further message for a little while without sleeping: waking up costs as much as ten short calls.

        If looking was in vain it is left out for a while.
        """
        if self.vain:
            self.vain -= 1
            return
        words, sent = self.ring.words, self.ring.sent
        before, end = words[sent], monotonic_ns() + GLANCE_NS
        if waiting.poll(0):
            return
        while words[sent] == before:
            if monotonic_ns() > end:
                self.patience = self.vain = min(2 * self.patience + 1, MOST_VAIN)
                return
        self.patience = 0

    def restore(self) -> bool:
        """Have the next call find all as it was; False if that can't be: this worker is replaced."""
        words, row = self.ring.words, self.ring.row(self.row)
        try:
            if self.state.restore():
                words[row + DIRTY] = words[row + SERIAL]
        except Exception:
            words[row + LEAVING] = 1
            return False
        return True

    def unpack(self, flags: int, ancillary: Any, blobs: list[Any]) -> list[Any]:
        """A message's calls, where one of them came by a descriptor."""
        self.arena = None
        if not ancillary:
            return blobs
        fd = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
        if not flags & ROOM:
            return [_read(fd)]
        self.arena = self.hold(fd)
        return blobs or [self.arena]

    def look_after_own(self) -> None:
        """Runs that tasks have started here and not waited for."""
        if _process.supervisor is not None:
            _process.supervisor.nudge()

    def hold(self, fd: int) -> Arena:
        """The arena behind a descriptor; the last few are kept, with the pages that they have here."""
        key = os.fstat(fd).st_ino
        arena = self.arenas.pop(key, None)
        if arena is None:
            arena = Arena(fd)
            while len(self.arenas) >= _FEW_ARENAS:
                self.arenas.pop(next(iter(self.arenas))).close()
        else:
            os.close(fd)
        self.arenas[key] = arena
        return arena

    def carry_out(  # noqa: C901, PLR0912, PLR0915 - in one piece: a call of a function costs a tenth of a call of a task
        self, slot: int, serial: int, flags: int, attempt: int, blobs: list[Any]
    ) -> None:
        """Run a message's calls, as far as there are units; all that is said about them is said before DONE.

        The units of a message that holds a call which is to be stopped are taken back before the signal is sent.
        """
        global _run, _call, _armed, _cut, _slot
        ring = self.ring
        _slot = slot
        words, row, head = ring.words, ring.row(self.row), ring.head(slot)
        begin = monotonic_ns()
        words[head + SINCE] = begin
        words[row + SERIAL] = serial
        words[head + TAKEN] = self.row + 1
        if flags & NOTICE:
            os.eventfd_write(ring.bell, 1)
        if words[row + LEAVE]:
            blobs = []
        elif len(blobs) > self.max_runs - self.runs:
            blobs = blobs[: self.max_runs - self.runs]
        ends, region, results = ring.ends[slot], ring.regions[slot], ring.results[slot]
        acquire, glance = ring.units[slot].acquire, self.state.at_a_glance
        straight = (self.straight if self.arena is None else _none_of_them).get
        fresh = self.context.copy
        at = 0
        made: list[Any] = []  # what the calls ended in, if others need it
        index, last = -1, len(blobs) - 1
        flat = True  # all of them are values that nobody can change
        _call = call_number(serial, -1)
        for packed in blobs:
            if not acquire(False):
                break
            index += 1
            _call += 1
            blob = packed
            if blob.__class__ is tuple:
                if flat and len(blob) == _RIDES_ONLY:
                    number, order, required, places = blob
                    given = [made[place] for place in places]
                    if len(given) > required:
                        del given[required:]
                    blob = (number, order, given, _NOTHING)
                else:
                    blob = _wired(blob, made)
                if blob is _LATER:
                    ring.units[slot].release()
                    index -= 1
                    break
            try:
                number, order, args, kwargs = loads(blob) if blob.__class__ is bytes else blob
                task = straight(number)
            except BaseException:
                task = None
            if blob is _FAILED:
                kind, data, run = _ring.SKIPPED, b"", None
            elif task is None:
                kind, data = self.one(blob, attempt)
                run = _run
            else:  # as `one` does it, without what such a task doesn't need
                _run = run = _new(_Run)
                run.task = task
                run._number = order
                run.args = args
                run.kwargs = kwargs
                run.attempt = attempt
                run._stop_asked = False
                run._timed_out = 0
                try:
                    _armed = True
                    value = fresh().run(_enter, run, task.fn, args, kwargs)
                    _armed = False
                except BaseException as error:
                    _armed = False
                    kind, data = self.end_of(_attempt.failure_from(run, error))
                else:
                    if value.__class__ not in _FLAT or _forked:
                        kind, data = self.end_of(Ok(value))
                    else:
                        kind, data = (_ring.NONE, b"") if value is None else (_ring.OK, dumps(value, 5))
            if flags & WIRED:
                if task is not None and kind <= _ring.OK and value.__class__ in _FLAT and len(data) <= _HANDED_ON:
                    made.append(value)
                else:
                    made.append(_to_hand_on(kind, data))
                    flat = False
            size = len(data) if kind != _ring.ARENA else 0
            if kind == _ring.ARENA or at + size > _ring.REGION_BYTES:
                data = self.send_descriptor(serial, index, data, kind)
                kind, size = _ring.LARGE, 0
            if size:
                region[at : at + size] = data
                at += size
            if index == last:  # what was printed is written out while the call can still be stopped
                _worker.flush()
            ends[index] = at << 4 | kind
            if results is not None:
                results.release()
            if _cut or at > _NEARLY_FULL or not glance():
                break
            if index == _HALF and flags & WIRED:  # so that the pool has half of the results behind it at the end
                os.eventfd_write(ring.bell, 1)
        _run, _call, _cut = None, 0, _asked
        self.runs += index + 1
        if _asked or self.runs >= self.max_runs:
            words[row + LEAVING] = 1
        if index < last:
            _worker.flush()
        words[head + TOOK] = took = monotonic_ns() - begin
        self.quick = took < GLANCE_NS
        words[head + DONE] = serial
        try:
            os.eventfd_write(ring.bell, 1)
        except BlockingIOError:  # it has been rung 2**64 times
            pass
        self.kept = None  # what destructors do, with this and on return, comes after the results

    def one(self, blob: Any, attempt: int) -> tuple[int, Any]:
        """One call of any kind: its result's kind and bytes."""
        global _armed, _run
        run: Any = _new(_Run)
        run._stop_asked = False
        run._timed_out = 0
        run.attempt = attempt
        result: Any = None
        try:
            if blob.__class__ is not tuple:
                blob = blob.load(private=False) if blob.__class__ is Arena else loads(blob)
            number, run._number, run.args, run.kwargs = blob
            del blob
            if number < 0:
                run.task, run.args, run.kwargs, _, _ = loads(run.args)
            else:
                run.task = self.functions.get(number) or self.learn(number)
        except BaseException as error:
            run.task, run._number = _unknown, 0
            result = _shipping.broken_call(error)
        else:
            _run = run
            try:
                _armed = True
                result = self.context.copy().run(_attempt.attempt, run)
                _armed = False
            except TaskStopped:  # between the task's last instruction and this one's
                _armed = False
        if result is None:
            result = StoppedFailure("stopped")
        if self.arena is not None and result.__class__ is Ok and not _forked:
            run.args, run.kwargs, self.kept, result = (), {}, result.value, None
            return self.into_arena(self.arena)
        self.kept = result
        if self.arena is not None:
            run.args, run.kwargs = (), {}
            self.arena.release()
        return self.end_of(result)

    def into_arena(self, arena: Arena) -> tuple[int, Any]:
        """The result, perhaps in the arena that came with its call; what of it lies there already isn't copied.

        Nobody else may hold the value here: what looks at the arena is to die before it goes back.
        """
        value, self.kept = self.kept, None
        try:
            data, buffers = split(value)
        except BaseException:  # plain pickle can't
            buffers = []
        if not buffers:
            kind, data = self.end_of(Ok(value))
            value = None
            arena.release()
            return kind, data
        spans = arena.spans_of(buffers)
        value = None
        if spans is not None:
            buffers = []
            if not arena.watched and arena.name(data, spans):
                arena.state = BACK
                return _ring.BACK, b""
            buffers = arena.parts(spans)
        elif not arena.watched and arena.fill(data, buffers):
            arena.state = BACK
            return _ring.BACK, b""
        made = _in_new_arena(data, buffers)
        arena.release()
        return made

    def end_of(self, result: Any) -> tuple[int, Any]:
        """A result's kind and bytes."""
        if _forked:  # this process was forked by the task and has come to its end: only the worker has results
            _worker._end_as_a_fork(result)
        if result.__class__ is Ok and result.value is None:
            return _ring.NONE, b""
        return encode(result)

    def learn(self, number: int) -> Any:
        """The task whose pickle begins at this place of the memfd."""
        functions = self.ring.functions
        size = int.from_bytes(os.pread(functions, 8, number), "little")
        parts, at = [], number + 8
        while size:
            part = os.pread(functions, min(size, 1 << 30), at)
            parts.append(part)
            at += len(part)
            size -= len(part)
        if len(self.functions) >= _FEW_FUNCTIONS:
            self.functions.clear()
            self.straight.clear()
        task = self.functions[number] = loads(b"".join(parts))[0]
        if task.timeout is None and not task.is_async:
            self.straight[number] = task
        return task

    def send_descriptor(self, serial: int, index: int, data: Any, kind: int = _ring.FAILURE) -> Any:
        """Put a result into a memfd and send its descriptor; the parent looks for it when it sees the entry."""
        from array import array

        while _shipping.unread(self.channel) > _UNREAD_BYTES:  # never fill it: see `_worker`
            sleep(0.001)
        fd = data.fd if kind == _ring.ARENA else os.memfd_create("woflo-result", os.MFD_CLOEXEC)
        try:
            view = memoryview(data if kind != _ring.ARENA else b"")
            while view:
                view = view[os.write(fd, view[: 1 << 30]) :]
            header = b"".join(part.to_bytes(8, "little") for part in (serial, index, kind))
            self.channel.sendmsg([header], [(1, 1, array("i", [fd]))])
        finally:
            if kind == _ring.ARENA:
                data.close()
            else:
                os.close(fd)
        return b""


def _wired(rider: tuple[Any, ...], made: list[Any]) -> Any:
    """A call that needs results of earlier ones, with them, each a copy of its own.

    Or _FAILED, if one of them has; or _LATER, if one of them isn't at hand: the pool sends the call again, with the value.
    """
    number, order, required, places = rider[:4]
    given: list[Any] = [None if place == ENDED else made[place] for place in places]
    for at, result in enumerate(given):
        if result.__class__ not in _FLAT:
            if _FAILED in given:
                return _FAILED
            try:
                given[at] = loads(result[0])
            except BaseException:  # it isn't here, or will be found to be broken by the pool as well
                return _LATER
    if len(rider) > _RIDES_ONLY:
        for at, value in enumerate(loads(rider[4])[2]):
            if places[at] == ENDED:
                given[at] = value
    return number, order, given[:required] if len(given) > required else given, _NOTHING


def _to_hand_on(kind: int, data: Any) -> Any:
    """What a call leaves for later ones of its message."""
    if kind == _ring.NONE:
        return None
    if kind == _ring.OK:
        return (data,) if len(data) <= _HANDED_ON else _LATER
    return _LATER if kind in {_ring.ARENA, _ring.BACK} else _FAILED


def _enter(run: Any, fn: Any, args: Any, kwargs: Any) -> Any:
    _attempt.current.set(run)
    return fn(*args, **kwargs)


_new = object.__new__
_FAILED: Any = object()
_LATER: Any = object()
_NOTHING: dict[str, Any] = {}
_RIDES_ONLY = 4  # parts of a call that has all its arguments from others: see `_crew`
_HALF = _ring.CALLS // 2
_HANDED_ON = _ring.HANDED_ON_BYTES
_FLAT = frozenset({int, float, str, bool, bytes, complex, type(None)})  # nobody can change them: needs no copy
_none_of_them: dict[int, Any] = {}
_unknown: Any = None  # what a call's task is if the call can't be read


def encode(result: Any) -> tuple[int, Any]:
    """A result's kind and bytes."""
    if result.__class__ is Ok:
        try:
            data, buffers = split(result.value, _dumps)
            if buffers:
                return _in_new_arena(data, buffers)
            return _ring.OK, data  # noqa: TRY300 - the except is about this
        except BaseException as error:
            result = _shipping._unpicklable(result.value, error)
    if type(result) is StoppedFailure:
        return _ring.STOPPED, dumps_plain(_places)
    return _ring.FAILURE, _shipping_bytes(result)


def _shipping_bytes(failure: Any) -> bytes:
    try:
        return _dumps(failure)
    except BaseException:
        plain = TaskFailure(_exceptions.safe_str(failure))
        plain.__cause__ = failure.__cause__
        return _dumps(plain)


def _in_new_arena(data: bytes, buffers: list[Any]) -> tuple[int, Any]:
    """A result in an arena that is made for it."""
    arena = _arena.new(_arena.room_for(data, buffers))
    arena.fill(data, buffers)
    arena.state = BACK
    return _ring.ARENA, arena


def _read(fd: int) -> bytes:
    """A call that is too large for a message."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()


def _dumps(value: object, protocol: int = 5, buffer_callback: Any = None) -> bytes:
    try:
        return dumps(value, protocol, buffer_callback=buffer_callback)
    except BaseException as first:
        try:
            import cloudpickle

            return bytes(cloudpickle.dumps(value, protocol, buffer_callback=buffer_callback))
        except BaseException as second:
            raise first from (None if type(first) is type(second) else second)


def _initializer_failed(error: BaseException) -> WorkerFailure:
    text = f"the pool's initializer raised {_exceptions.type_name(type(error))}: {_exceptions.safe_str(error)}"
    failure = WorkerFailure(text)
    failure.__cause__ = error.with_traceback(_exceptions.skip_ours(error.__traceback__))
    return failure
