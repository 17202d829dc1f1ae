"""The parent's side: a result, or a death certificate, for every worker; and everything that falls due.

                     start(run)                     a worker's channel            its pidfd
    user's thread ──────────────▶ Supervisor ◀────── frame: the result ◀────── death, with what the channel
                                    │   ▲                                        still holds read first
                  pending, timers ──┘   └── step(): one thread at a time

Whoever waits, pumps: a thread that blocks on a run drives the steps; others sleep and one of them takes over when it leaves. An
event loop watches the poller's descriptor and takes steps that don't block; so do `start` and `is_running`. A
background thread exists exactly while something can fall due with nobody waiting (`attend`); before it runs the user's code
(a callback, a sequential run) it steps aside: another one takes its place.

Rules. 1: `lock` is held while the tables change and around fork, never while sleeping or while the user's code runs.
2: a result is decoded and a run is finished after the step, by the thread that took it, with no lock held.
3: a complete frame is the result, whatever became of the worker; a death counts only when the pidfd says so and
the channel is read to its end. 4: a group is signalled before its leader is reaped (its number is ours till then).
5: while the tables change Ctrl-C is put off (`_calm`); in between, and where another signal's handler raises, every part of a
step can be cut short and done again.
"""

from __future__ import annotations

import _signal
import errno
import os
from _thread import RLock, allocate_lock, get_ident
from collections import deque
from time import monotonic

from woflo import _notify
from woflo.result import StoppedFailure, WorkerFailure
from woflo.runners import _attempt, _calm, _launch, _process, _progress, _shipping, _tree, _waiters
from woflo.runners._poller import Bell, Poller
from woflo.runners._timers import Timers
from woflo.runners._tree import leave_slots, slots_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from typing import Any

    from woflo.result import Failure
    from woflo.runners._calm import Calm
    from woflo.runners._launch import Worker
    from woflo.runners._slots import Slots
    from woflo.runners._timers import Timer
    from woflo.runners._waiters import Waiter
    from woflo.runners.base import BaseTaskRun

_CLOEXEC = 0x40000000 if os.name == "posix" and hasattr(os, "pidfd_open") else 0  # Linux: MSG_CMSG_CLOEXEC
_BOOT_SECONDS = 60.0
_CUT_SHORT = "Ctrl-C came while its result was being collected"
_READ_BYTES = 4096  # nearly every frame fits; a larger one is read in its own size
_MOST_ASIDE = 8  # background threads inside the user's code at once; more callbacks than that delay what falls due
_TIRED = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # try again when a worker has ended


class _Background(_waiters.Waiter):
    """A background thread, as the others know it."""

    __slots__ = ("aside", "thread")

    def __init__(self) -> None:
        super().__init__()
        self.thread = 0
        self.aside = False  # whether it is inside the user's code, and nobody relies on it


class Supervisor:
    """This process's workers, pending runs and timers."""

    def __init__(self) -> None:
        self.lock = _notify.forking = RLock()  # see rule 1; re-entered by the fork hook
        self.workers: dict[int, Worker] = {}  # by the descriptors (keys) that the poller reports
        self.guests: dict[int, Any] = {}  # pools, by keys of theirs that the poller reports: `ready(key)` is called
        self.pending: dict[Slots, deque[Any]] = {}  # runs that wait for a slot, by the slots they want
        self._starts = 0
        self._torn = False  # Ctrl-C cut a registration short
        self._calm: Calm | None = None  # while the tables change: how signals were handled before
        self._tired = False  # a worker could not be started for want of descriptors or processes
        self._poller = Poller()
        self._bell = Bell()
        self._poller.add(self._bell.fileno())
        self._watched_slots: set[int] = set()  # token pipes in the poller, while runs are pending
        self._timers = Timers()
        self._driver_thread = 0  # the one that holds it
        self._taking: set[Worker] = set()  # their results are being taken at the moment
        self._driver = allocate_lock()  # held by the thread that takes steps
        self.driving: object = None  # the waiter or the run that it is for, while it may be asleep in the poller
        self._sleepers: list[Waiter] = []  # threads that would drive if the driver left
        self._attended: set[BaseTaskRun[Any]] = set()
        self._background: _Background | None = None
        self._spare: _Background | None = None  # one that has come back from the user's code, for a moment
        self._aside = 0  # how many are inside the user's code
        self._finished: deque[tuple[Worker, bytes | None, Any]] = deque()  # collected, not yet told (rule 5)
        self._loops: dict[AbstractEventLoop, int] = {}

    # ------------------------------------------------------------------ starting

    def start(self, run: Any) -> None:
        """Start a run's attempt in a worker now, or leave it pending until there is a slot.

        Every eighth start takes a step that doesn't block, and so does one that finds no slot: what has ended is collected
        with nobody waiting.
        """
        self._starts += 1
        if self._starts & 7 == 0:
            self.nudge()
        try:
            with self.lock:
                outermost = self._calm is None
                if outermost:
                    self._calm = _calm.quiet()
                try:
                    slots = run._slots = slots_of(type(run))
                    slots.users += 1
                    if slots in self.pending or not (self._try(run, slots) or self._try_again(run, slots)):
                        run._mark_pending()
                        self.pending.setdefault(slots, deque()).append(run)
                        self._watch(slots)
                finally:
                    if outermost:
                        self._let_signals_in()
        except KeyboardInterrupt:
            self._torn = True
            raise
        if self._finished or _process.news:  # collected on the way
            self._tell()
        if run._unattended_until_started():
            self.attend(run)

    def _let_signals_in(self) -> None:
        """The tables are consistent again: Ctrl-C that came meanwhile is raised here. Needs the lock."""
        calm, self._calm = self._calm, None
        if calm is not None:
            _calm.loud(calm)

    def _try_again(self, run: Any, slots: Slots) -> bool:
        """Collect what has ended, then try once more. Needs the lock."""
        self._drive(0.0, None)
        return slots not in self.pending and self._try(run, slots)

    def _try(self, run: Any, slots: Slots) -> bool:
        """Start a worker if there is a slot; False if not now. Needs the lock, and quiet."""
        token = slots.take()
        if token is None:
            return False
        worker = None
        if not self._claim(run):
            slots.give(token)
            leave_slots(slots)
            return True
        try:
            worker = self._launch_worker(run, slots, token)
            if worker.gone:
                run._mark_started()
                self._bury(worker)
                return True
            key = worker.process_key
            self.workers[key] = self.workers[worker.fd] = worker
            self._poller.add_process(key)
            self._poller.add(worker.fd)
            run._worker = worker
        except OSError as error:
            self._drop(worker)
            slots.give(token)
            tired = error.errno in _TIRED and bool(self.workers)
            if tired:
                self._tired = True  # the next of ours that ends makes room
                with _process.state:
                    run._phase = "pending"
                if not run._stop_asked:
                    return False
            self._not_started(run, StoppedFailure("stopped before it was started") if tired else could_not_start(error))
            return True
        except Exception:
            self._drop(worker)
            slots.give(token)
            leave_slots(slots)
            raise
        except BaseException:  # out of a signal's handler: a worker that is not noted yet ends with its channel
            with _process.state:
                run._phase = "pending"
            raise
        run.pid = worker.pid
        run._mark_started()
        limit = run.task.timeout
        if limit is not None:
            # a spawned worker says when it begins; until then it has so much longer, to start and to import
            run._clock = self.call_later(limit + (_BOOT_SECONDS if run._spawns else 0.0), worker.overdue)
        return True

    def _launch_worker(self, run: Any, slots: Slots, token: bytes) -> Worker:
        calm = self._calm
        if calm is not None and calm[0] is not None:
            return _launch.launch(run, slots, token, calm)
        calm = _calm.quiet()  # a signal's handler calls a task, inside of a step that was not going to fork
        try:
            return _launch.launch(run, slots, token, calm)
        finally:
            _calm.loud(calm)

    @staticmethod
    def _claim(run: Any) -> bool:
        """Whether a run may be started: from here on a stop is for its worker, and waits for the lock that is held here."""
        with _process.state:
            if run._stop_asked and run._phase == "pending":
                return False
            run._phase = "running"
        return True

    def _drop(self, worker: Worker | None) -> None:
        """A worker that can't be watched must not live."""
        if worker is not None:
            self._deafen(worker)
            self._poller.remove_process(worker.process_key)
            self.workers.pop(worker.process_key, None)
            self.workers.pop(worker.fd, None)
            worker.signal(_signal.SIGKILL)
            worker.reap()
            worker.close()

    def _not_started(self, run: Any, failure: Failure) -> None:
        leave_slots(run._slots)
        self._finished.append((_launch.nobody(run), None, failure))
        self.wake()

    def _start_pending(self) -> None:
        """Start what there are slots for; among those that want the same ones first come, first served. Needs the lock."""
        for slots, queue in list(self.pending.items()):
            while queue:
                run = queue[0]
                if run._result is not None:  # it was stopped while it was pending
                    if len(queue) == 1:
                        self.unwatch(slots)
                    leave_slots(slots)
                else:
                    try:
                        if not self._try(run, slots):
                            break
                    except Exception as error:
                        self._finished.append((_launch.nobody(run), None, _attempt.failure_from(run, error)))
                if queue and queue[0] is run:
                    queue.popleft()
            if not queue:
                del self.pending[slots]
                self.unwatch(slots)
            else:
                self._watch(slots)

    def _watch(self, slots: Slots) -> None:
        """Another process of the tree may put a token back: the pipe tells, as long as somebody here wants one.

        Not while descriptors or processes are what is missing: the pipe would be readable all the time.
        """
        wanted = slots in self.pending and not self._tired
        fd = slots.reader
        if wanted and fd not in self._watched_slots:
            self._watched_slots.add(fd)
            self._poller.add(fd)
        elif not wanted and fd in self._watched_slots:
            self._watched_slots.discard(fd)
            self._poller.remove(fd)

    def unwatch(self, slots: Slots) -> None:
        """The slots are about to be closed."""
        if slots.reader in self._watched_slots:
            self._watched_slots.discard(slots.reader)
            self._poller.remove(slots.reader)

    # ------------------------------------------------------------------ steps

    def _step(self, seconds: float | None) -> None:
        """Sleep until something happens, at most `seconds`; take note of all of it. Only the driver calls this."""
        if self._torn:
            self._repair()
        heap = self._timers.heap
        if heap:
            left = max(0.0, heap[0][0] - monotonic())
            seconds = left if seconds is None else min(seconds, left)
        events = self._poller.wait(None if seconds is None else max(0.0, seconds))
        if not events and not self.pending:
            return
        with self.lock:
            outermost = self._calm is None
            if outermost:
                self._calm = _calm.quiet(forking=bool(self.pending))
            try:
                for key, _ in events:
                    worker = self.workers.get(key)
                    if worker is not None:
                        if key == worker.process_key:
                            self._bury(worker)
                        else:
                            self._receive(worker)
                    elif key in self.guests:
                        self.guests[key].ready(key)
                    elif key == self._bell.fileno():
                        self._bell.hush()
                if self.pending:
                    self._start_pending()
            finally:
                if outermost:
                    self._let_signals_in()

    def _repair(self) -> None:
        """Ctrl-C came inside of a step: what it may have cut short is done, or said to have failed."""
        with self.lock:
            self._torn = False
            for key, worker in list(self.workers.items()):
                if key == worker.process_key:
                    self._poller.add_process(key)
                elif worker.open:
                    self._poller.add(key)
            self._timers.restore()
            waiting = {worker for worker, _, _ in self._finished} | self._taking
            for run in list(_process.live):
                mine: Worker | None = getattr(run, "_worker", None)
                if mine is not None and mine.told and mine not in waiting and mine.run is run:
                    self._finished.append((mine, None, StoppedFailure(_CUT_SHORT)))
            for guest in set(self.guests.values()):
                guest.mend()

    def _receive(self, worker: Worker) -> None:
        """Read what the channel holds; note a frame as soon as it is complete. Needs the lock."""
        while worker.open:
            try:
                data, ancillary, _, _ = worker.channel.recvmsg(worker.wanted(_READ_BYTES), 64, _CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            for _, _, raw in ancillary:
                worker.adopt(raw)
            if data:
                worker.data += data
                self._read_frames(worker)
                if len(data) < _READ_BYTES and not ancillary:  # a read ends where a descriptor came: there may be more
                    return
                continue
            # the end of file says nothing about a death: the task may have closed its end, a grandchild may hold it
            self._deafen(worker)

    def _read_frames(self, worker: Worker) -> None:
        while (frame := worker.next_frame()) is not None:
            kind, body = frame
            if kind in {_shipping.LENT, _shipping.HELD}:
                worker.lent = kind == _shipping.LENT
                if worker.lent:
                    continue
            elif kind == _shipping.SHEET:
                self._keep_sheet(worker, _launch.Sheet(body))
            elif worker.told:
                continue
            elif kind == _shipping.BEGUN:
                self._begin_clock(worker)
            else:
                self._return_token(worker)
                worker.told = True
                self._finished.append((worker, kind, body))
                self._deafen(worker)

    def _begin_clock(self, worker: Worker) -> None:
        """A spawned worker has imported what it needs: the attempt's time starts now."""
        run = worker.run
        limit = None if run is None else run.task.timeout
        if limit is not None and not worker.timed_out:
            if run._clock is not None:
                run._clock.cancel()
            run._started = monotonic()
            run._clock = self.call_later(limit, worker.overdue)

    def _keep_sheet(self, worker: Worker, sheet: _launch.Sheet) -> None:
        """A worker's task has reported for the first time; what follows is read from the sheet. Needs the lock."""
        run, old = worker.run, worker.sheet
        worker.sheet = sheet
        if old is not None:
            old.close()
        if run is not None and not worker.told:
            reports = _progress.of(run)
            reports.source = sheet.read
            _process.news.append(lambda: reports.arrange(run))

    def _deafen(self, worker: Worker) -> None:
        if worker.open:
            worker.open = False
            self._poller.remove(worker.fd)

    def _return_token(self, worker: Worker) -> None:
        if worker.token is not None and worker.slots is not None:
            if not (worker.lent and worker.token):
                worker.slots.give(worker.token)
            worker.token = None
            leave_slots(worker.slots)

    def _bury(self, worker: Worker) -> None:
        """The process has ended: read its last words, end its group, reap it, close. Needs the lock."""
        self._receive(worker)
        self._deafen(worker)
        if not worker.told:
            worker.look_at_group()
        status = worker.reap()
        self._tired = False
        self._return_token(worker)
        if not worker.told:
            worker.told = True
            self._finished.append((worker, None, status))
        if worker.process_key != -1:  # else it was gone before it could be watched
            self._poller.remove_process(worker.process_key)
        self.workers.pop(worker.process_key, None)
        self.workers.pop(worker.fd, None)
        worker.close()

    def _tell(self) -> None:
        """Finish the runs whose workers have reported or died, and do what is due. No lock is held."""
        try:
            while _process.news:
                self._tell_news()
            while self._finished:
                self._take_finished()
            while (timer := self._due()) is not None:
                action = timer.action
                if action is not None:
                    action()
                    timer.action = None
        except KeyboardInterrupt:
            self._torn = True
            raise

    def _tell_news(self) -> None:
        """Tell the first of the news."""
        item = None
        try:
            with self.lock:  # another thread may take it; nothing is called in between, where Ctrl-C could come
                if _process.news:
                    item = _process.news[0]
                    del _process.news[0]
            if item is not None:
                item()
        except KeyboardInterrupt:
            if item is not None:
                with _calm.Held():
                    _process.news.appendleft(item)
            raise

    def _take_finished(self) -> None:
        """Hand the first result or death to its run."""
        worker: Any = None
        run: Any = None
        kind: bytes | None = None
        body: Any = None
        try:
            with self.lock:
                if self._finished:
                    worker, kind, body = self._finished[0]
                    run, attempt = worker.run, worker.run and worker.run.attempt
                    del self._finished[0]
                    self._taking.add(worker)
            if run is not None:  # else taken before: a repair that came in between had it for lost
                run._take(worker, kind, body)
        except KeyboardInterrupt:
            if run is not None:
                with _calm.Held():
                    left = [body] if _in_file(kind, body) else []
                    _process.news.append(lambda: _take_again(run, attempt, (worker, kind, body), left))
                    self.wake()
            raise
        finally:
            if worker is not None:
                worker.run = None  # a dead worker's handle must not keep its run
                self._taking.discard(worker)
        if _in_file(kind, body):
            os.close(body)

    def _due(self) -> Timer | None:
        if not self._timers.heap:
            return None
        with self.lock:
            return self._timers.pop()

    def _drive(self, seconds: float | None, whom: object) -> bool:
        """Take one step as the driver, on behalf of `whom`; False, at once, if another thread drives."""
        mine = False
        try:
            mine = self._driver.acquire(False)
            if not mine:
                return False
            self._driver_thread = get_ident()
            self.driving = whom
            # no sleep if there is work of a step that Ctrl-C cut short, or the end came before `driving` was set
            ended = whom is not None and (whom.done if isinstance(whom, _waiters.Waiter) else whom._result is not None)  # type: ignore[attr-defined]
            self._step(0.0 if self._finished or _process.news or ended else seconds)
        except KeyboardInterrupt:
            self._torn = True
            # between the acquisition and the line that notes it
            mine = mine or (self._driver_thread == 0 and self._driver.locked())
            raise
        finally:
            if mine:
                self.driving = None
                self._driver_thread = 0
                self._driver.release()
                if self._sleepers:
                    self._pass_on()
        return True

    def nudge(self) -> None:
        """Take one step that doesn't block, unless another thread is driving anyway."""
        if self._drive(0.0, None) and (self._finished or self._timers.heap or _process.news):
            self._tell()

    def wait_for(self, run: BaseTaskRun[Any], deadline: float | None) -> bool:
        """Drive until the run has ended or the deadline has passed; False, at once, if another thread drives.

        The straight way for one thread that waits for one run: it needs no waiter, since the one who ends the run is
        this thread, or looks at `driving`.
        """
        while run._result is None:
            left = _waiters.RECHECK
            if deadline is not None:
                left = min(left, deadline - monotonic())
                if left <= 0:
                    return True
            if not self._drive(left, run):
                return False
            self._tell()
            if run._wanted:
                run._look_around()
        return True

    def block(self, waiter: Waiter, deadline: float | None, look: Callable[[], object]) -> None:
        """Drive, or sleep while another thread drives, until the waiter is signalled or the deadline has passed."""
        while not waiter.done:
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                self.nudge()  # what has happened by now counts
                return
            self._drive_or_sleep(waiter, _waiters.RECHECK if left is None else min(left, _waiters.RECHECK))
            look()

    def _drive_or_sleep(self, waiter: Waiter, seconds: float | None) -> None:
        if self._drive(seconds, waiter):
            self._tell()
            return
        self._sleepers.append(waiter)
        if self._driver.locked():  # else the driver left before it could see us: look again at once
            waiter.sleep(seconds)
        try:
            self._sleepers.remove(waiter)
        except ValueError:  # the driver woke us
            pass

    def _pass_on(self) -> None:
        """The driver leaves: one of those asleep takes over; the background thread only if it is the only one."""
        try:
            self._sleepers.pop().wake()
        except IndexError:
            pass

    def needs_hands(self) -> bool:
        """Whether something can fall due and no background thread is there for it (none could be started)."""
        return bool(self._timers.heap) and self._background is None

    def wake(self) -> None:
        """Have the driver, if it is asleep in the poller, look again."""
        self._bell.ring()

    # ------------------------------------------------------------------ what falls due

    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Have `action()` called in `seconds`, by whoever takes the step then, with no lock held."""
        with self.lock:
            timer, first = self._timers.add(monotonic() + seconds, action)
        if first and self._driver.locked():
            self.wake()
        return timer

    def attend(self, run: BaseTaskRun[Any]) -> None:
        """Something can fall due for this run with nobody waiting: keep a background thread until it has ended."""
        with self.lock:
            run._attended = True
            self._attended.add(run)
            if run._result is not None:
                self._attended.discard(run)
                return
            if self._background is None:
                self._find_background()

    def _find_background(self) -> None:
        """Have a thread be the background: the spare one, or a new one. Needs the lock."""
        self._background, self._spare = self._spare, None
        if self._background is not None:
            self._background.wake()
            return
        with _calm.Held():
            self._background = waiter = _Background()
            try:
                _process.start_thread(self._run_background, waiter, name="woflo-background")
            except (RuntimeError, OSError):
                # no thread is to be had, nothing to load `threading` with, or the interpreter is ending: whoever waits
                # pumps, and the exit does
                self._background = None

    def step_aside(self) -> None:
        """The user's code is about to run in this thread, for as long as it likes: nothing that falls due may wait for it."""
        waiter = self._background
        if waiter is None or waiter.thread != get_ident() or self._aside >= _MOST_ASIDE:
            return
        with self.lock:
            waiter.aside = True
            self._aside += 1
            self._background = None
            if self._attended or self._finished:
                self._find_background()

    def dismiss(self, run: BaseTaskRun[Any]) -> None:
        """The run has ended."""
        self._attended.discard(run)
        if not self._attended:
            waiter = self._background
            if waiter is not None:
                waiter.done = True
                waiter.wake()
                if self.driving is waiter:
                    self.wake()
            if self._spare is not None:
                self._spare.wake()

    def _run_background(self, waiter: _Background) -> None:
        waiter.thread = get_ident()
        look_at = monotonic() + _waiters.RECHECK
        try:
            while waiter is self._background or self._stand_by(waiter):
                with self.lock:
                    if monotonic() >= look_at:  # for runs that ended while Ctrl-C kept them from saying so
                        look_at = monotonic() + _waiters.RECHECK
                        self._attended.difference_update(
                            [run for run in list(self._attended) if run._result is not None]
                        )
                    if not self._attended and not self._finished:
                        self._background = None
                        return
                    waiter.done = False
                try:
                    self._drive_or_sleep(waiter, _waiters.RECHECK)
                except BaseException as error:  # nothing may end the thread that others rely on
                    _notify.broken("woflo's background thread", error)
        finally:
            if self._background is waiter:
                self._background = None

    def _stand_by(self, waiter: _Background) -> bool:
        """A thread that has stepped aside is back: whether it is the background (again), at once or within a moment."""
        with self.lock:
            self._aside -= waiter.aside
            waiter.aside = False
            if self._background is None and (self._attended or self._finished):  # no other was to be had
                self._background = waiter
                return True
            if self._spare is not None or not self._attended:
                return False
            self._spare = waiter
        waiter.sleep(_waiters.RECHECK)
        with self.lock:
            if self._spare is waiter:
                self._spare = None
            return self._background is waiter

    def attach(self, loop: AbstractEventLoop) -> Callable[[], None]:
        """Let an event loop take the steps while somebody awaits there; returns what ends that."""
        if self._loops.get(loop, 0) == 0:
            loop.add_reader(self._poller.fileno(), self.nudge)
        self._loops[loop] = self._loops.get(loop, 0) + 1
        self.nudge()

        def detach() -> None:
            self._loops[loop] -= 1
            if self._loops[loop] == 0:
                del self._loops[loop]
                if not loop.is_closed():
                    loop.remove_reader(self._poller.fileno())

        return detach

    # ------------------------------------------------------------------ the end

    def settle(self, deadline: float | None, worker: Worker | None = None) -> bool:
        """Drive until every worker (or this one) has been collected; False if the deadline (monotonic) came first."""
        waiter = _waiters.Waiter()
        if worker is None:
            with self.lock:
                for guest in set(self.guests.values()):
                    guest.close()
        while self._finished or ((self.workers or self.guests) if worker is None else not worker.gone):
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return False
            self._drive_or_sleep(waiter, _waiters.RECHECK if left is None else min(left, _waiters.RECHECK))
        return True

    def kill_all(self) -> None:
        """SIGKILL to the group of every worker."""
        with self.lock:
            for worker in set(self.workers.values()):
                worker.signal(_signal.SIGKILL)
            for guest in set(self.guests.values()):
                guest.kill_all()

    def abandon(self, *, to_worker: bool) -> None:
        """In a forked child: these descriptors are copies; the parent's workers and runs are the parent's.

        A worker never destroys an object of the parent's, so it closes numbers and touches no objects; a fork of the
        user's own must leave no socket object behind that would close its number once more.
        """
        if to_worker:
            for key in self.workers:
                if key >= 0:
                    os.close(key)
        else:
            for key, worker in self.workers.items():
                if key != worker.process_key:
                    worker.channel.close()
                elif key >= 0:
                    os.close(key)
        for guest in set(self.guests.values()):
            guest.abandon(to_worker=to_worker)
        _launch.Sheet.abandon()
        for _, kind, body in self._finished:
            if _in_file(kind, body):
                os.close(body)
        self._poller.close()  # close, never unregister: an epoll set is shared with the parent
        self._bell.close()


# ---------------------------------------------------------------------- one per process

_supervisor: Supervisor | None = None
_making = allocate_lock()
_hooked = False
_kept: list[Any] = []


def _in_file(kind: bytes | None, body: Any) -> bool:
    """Whether a frame's body is the descriptor of a file; without a frame it would be a process's status."""
    return kind is not None and isinstance(body, int)


def _take_again(run: Any, attempt: int, taken: tuple[Any, ...], files: list[int]) -> None:
    """Ctrl-C came while a run was given its result: once more, then close the file that it is in."""
    run._mend(attempt, lambda: run._take(*taken))
    if files:
        file = files[0]
        del files[0]
        os.close(file)


def get() -> Supervisor:
    """This process's supervisor, made at first use."""
    global _supervisor
    found = _supervisor
    if found is None:
        with _making:
            if _supervisor is None:
                _hook()
                _launch.prepare()
                _supervisor = _process.supervisor = Supervisor()
            found = _supervisor
    return found


def existing() -> Supervisor | None:
    """This process's supervisor, if anything has needed one."""
    return _supervisor


def could_not_start(error: OSError) -> WorkerFailure:
    """The failure of an attempt for which there was no process, no descriptor or no memory."""
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return WorkerFailure(f"could not be started: {name}: {error.strerror}", errno=name)


def _hook() -> None:
    global _hooked
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked = True
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
        )


def _before_fork() -> None:
    """Whoever forks, the user's own `os.fork` too, waits until no other thread is inside a step."""
    if not _process.forking and _supervisor is not None:
        _supervisor.lock.acquire()


def _after_fork_in_parent() -> None:
    if not _process.forking and _supervisor is not None:
        _supervisor.lock.release()


def _after_fork_in_child() -> None:
    """Nothing of the parent's is this process's: its runs, its workers, its locks."""
    global _supervisor, _making
    old, _supervisor, _process.supervisor = _supervisor, None, None
    _making = allocate_lock()
    _tree.after_fork()
    if old is not None:
        _kept.append(old)  # nothing of it may be destroyed here
        old.abandon(to_worker=_process.forking)
    _process.forking = False
