"""Engine: drives a graph, and remembers what it ended in.

    orchestrate()      the calling thread makes the calls that are to be made in place, else it sleeps; a thread that ends
                       a run takes the step itself and starts what became ready: a chain on threads doesn't travel to and fro
    co_orchestrate()   the event loop takes all steps
    co_outcomes()      the same, for several who want different things at different times

What a step does is `_drive`'s; this file knows who takes one, when, and how long anybody waits.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from contextvars import copy_context
from time import monotonic

from woflo import _exceptions
from woflo._drive import ALL_ENDED, GONE, Drive, Settings
from woflo.errors import UsageError
from woflo.graph import Graph, unknown_target
from woflo.result import DependencyFailure, Failure, Ok, StoppedFailure
from woflo.runners import _process, _waiters
from woflo.runners._attempt import GRACE
from woflo.runners.base import BaseTaskRun

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from typing import Any

    from woflo._drive import Memo
    from woflo.events import Event
    from woflo.graph import Node
    from woflo.result import Result

__all__ = ["Engine"]

_GLANCE = 0.1  # seconds after which somebody who has pressed Ctrl-C notices that nothing happens


class Engine:
    """Drives a graph of nodes: each that is wanted, and all that it needs, runs once.

    A node whose call is a Task runs where its runner says. Any other callable is called by the thread that
    drives: in place under `orchestrate()`, in a thread beside the loop under `co_orchestrate()` and if it runs forever; coroutine
    functions run on the driving event loop (under `orchestrate()`: on one of woflo's own, in a thread).

    What has ended is kept: a second `orchestrate()` runs only what has not, and what is volatile; `reset()` forgets.

    Attributes:
        graph: what is driven.
    """

    def __init__(
        self,
        graph: Graph | Iterable[Node],
        *,
        runner: type[BaseTaskRun[Any]] | None = None,
        window: int | None = None,
        stop_on_failure: bool = False,
        volatile: Iterable[Hashable] = (),
        observers: Iterable[Callable[[Event], object]] = (),
    ) -> None:
        """Prepare to drive a graph; nothing starts yet.

        Args:
            graph: a Graph, or the nodes of one.
            runner: where Tasks run that don't say it themselves.
            window: how many nodes may run at once (those that run forever don't count); None: as many as the runners take.
            stop_on_failure: when a node fails, stop all others; else those that don't need it go on.
            volatile: targets to be made anew by each `orchestrate()`, with all that depends on them.
            observers: called with every event of this engine's nodes, and with the RunProgress of their runs.

        Raises:
            UsageError: `window` is no positive whole number, `runner` no class of TaskRun, `volatile` or `observers` no list,
                nothing produces a volatile target, or two nodes produce the same target.
        """
        if runner is not None and not (isinstance(runner, type) and issubclass(runner, BaseTaskRun)):
            raise UsageError(f"runner must be a class of TaskRun, or None, not {runner!r}")
        if window is not None and (type(window) is not int or window < 1):
            raise UsageError(f"window must be a whole number from 1 up, or None, not {window!r}")
        self.graph: Any = graph if isinstance(graph, Graph) else Graph(graph)
        self._settings = Settings(runner, window, stop_on_failure, _listed("observers", observers))
        self._volatile = frozenset(self.graph[target].target for target in _listed("volatile", volatile))
        self._memo: Memo = {}  # what earlier drives ended in
        self._drive: Drive | None = None  # the one that is under way, or the last one
        self._claims: dict[object, object] = {}  # by process: whose the engine is while it is at work there
        self._driver: _LoopDriver | None = None  # of co_outcomes
        self._waiters = 0  # in co_outcomes
        self._complaint = ""  # why the last drive wasn't all well

    # ------------------------------------------------------------------ driving

    def orchestrate(self, *targets: Hashable, timeout: float | None = None) -> bool:
        """Run the targets and all that they need; block until they have ended. True if all have succeeded.

        Args:
            targets: what is wanted; nothing: every node, and the values of those that no other needs are kept.
            timeout: seconds; then everything is stopped.

        Raises:
            CyclicWorkflowError: what is wanted needs itself; nothing was started.
            UsageError: an unknown target, a target that needs one that runs forever, the engine is at work already, or this
                is woflo's own event loop, on which coroutines are to run.
        """
        deadline = _waiters.deadline(timeout)
        if _on_a_loop():
            refuse_own_loop("orchestrate()", "co_orchestrate()")
            return self._from_a_thread(targets, timeout)
        waiter = _waiters.Waiter()
        claim = object()
        try:
            drive = self._begin(claim, targets, lambda: waiter.signal(None), None, timeout)
            _pump(drive, waiter, deadline, f"it took longer than {timeout} s")
            drive.wait_until_told()
        except BaseException:
            self._break_off(claim, waiter)
            raise
        finally:
            self._leave(claim)
        return not self._complaint

    def _break_off(self, claim: object, waiter: _waiters.Waiter) -> None:
        """Ctrl-C: end everything, no longer than a stop takes."""
        drive = self._drive
        if self._claims.get(_process.mark) is claim and drive is not None:
            drive.repair()
            drive.halt("interrupted")
            _pump(drive, waiter, monotonic() + GRACE + _waiters.RECHECK, "")

    def _from_a_thread(self, targets: Sequence[Hashable], timeout: float | None) -> bool:
        """Block an event loop's thread (a notebook's): the nodes are driven by another one meanwhile."""
        import asyncio

        self._check_idle()
        ended: list[Any] = []
        waiter = _LoopsWaiter()
        tasks = asyncio.all_tasks()
        cancels = sum(one.cancelling() for one in tasks)

        def look() -> None:
            """At Ctrl-C asyncio.run cancels its task and nothing else, and blocked as it is that would have no effect."""
            if sum(one.cancelling() for one in tasks) > cancels:
                raise asyncio.CancelledError

        def work() -> None:
            try:
                ended.append(self.orchestrate(*targets, timeout=timeout))
            except BaseException as error:
                ended.append(error)
            waiter.signal(None)

        try:
            _process.start_thread(copy_context().run, work, name="woflo-engine")
            _waiters.block(waiter, None, False, look)
        except RuntimeError:  # no thread is to be had
            raise
        except BaseException:
            self.stop()  # and again: Ctrl-C may have come before the thread had begun
            _waiters.block(waiter, monotonic() + GRACE + 2 * _waiters.RECHECK, False, self.stop)
            raise
        if isinstance(ended[0], BaseException):
            raise ended[0]
        return bool(ended[0])

    async def co_orchestrate(self, *targets: Hashable, timeout: float | None = None) -> bool:
        """`orchestrate` for an event loop. Cancelling it stops everything, within the grace of a stop.

        Raises:
            CyclicWorkflowError: what is wanted needs itself; nothing was started.
            UsageError: an unknown target, a target that needs one that runs forever, or the engine is at work already.
        """
        import asyncio

        _waiters.deadline(timeout)
        loop = asyncio.get_running_loop()
        driver = _LoopDriver(loop)
        clock = None
        try:
            drive = driver.drive = self._begin(driver, targets, driver.wake, loop, timeout)
            if timeout is not None:
                clock = loop.call_later(float(timeout), drive.halt, f"it took longer than {float(timeout):g} s")
            driver.look()
            try:
                await driver.ended
            except asyncio.CancelledError:
                await driver.end("cancelled")
                raise
        finally:
            if clock is not None:
                clock.cancel()
            self._leave(driver)
        return not self._complaint

    async def co_outcomes(self, *targets: Hashable) -> list[Result[Any]]:
        """Wait for these targets, and return what each ended in; may be called again while it is under way, on the same loop.

        A target that several want is made once. When the last who wants it is cancelled, it is stopped.

        Raises:
            CyclicWorkflowError: what is wanted needs itself; nothing was started.
            UsageError: no target or an unknown one, or the engine is at work in another way or on another loop.
        """
        import asyncio

        if not targets:
            raise UsageError("co_outcomes() is told which targets are wanted; co_orchestrate() carries out all")
        for target in targets:
            _check_target(target)
        loop = asyncio.get_running_loop()
        driver = self._driver
        if driver is not None and driver.drive.loop is loop and not driver.drive.stopping:
            drive = driver.drive
            drive.want(targets)
        else:
            driver = _LoopDriver(loop)
            try:
                drive = driver.drive = self._begin(driver, targets, driver.wake, loop, None)
            except BaseException:
                self._leave(driver)
                raise
            self._driver = driver
            self._waiters = 0
        try:
            want = drive.wait_for(targets, loop.create_future())
        except BaseException:
            driver.wake()  # what was taken in vain is dropped
            raise
        self._waiters += 1
        driver.look()
        try:
            await want.future
        except asyncio.CancelledError:
            drive.release(want)
            if self._one_waits_less(driver):
                await driver.end("nobody waits for it any more")
            else:
                driver.wake()  # once for all that are cancelled together: then it drops what nobody waits for
            raise
        drive.release(want)
        if not self._one_waits_less(driver) and drive.is_history:
            driver.wake()
        return want.results

    def _one_waits_less(self, driver: _LoopDriver) -> bool:
        """Whether that was the last: then the engine is free for another drive, even if this one has still to be ended."""
        self._waiters -= 1
        if not self._waiters:
            self._driver = None
            self._leave(driver)
        return not self._waiters

    def stop(self) -> None:
        """Stop everything that has not ended; from any thread. `orchestrate` then returns False."""
        drive = self._drive
        if self._working and drive is not None:
            drive.halt("stop() was called")

    def _check_idle(self) -> None:
        if self._is_at_work():
            raise UsageError("this engine is at work: wait until its orchestrate has returned, or make another engine")

    def _is_at_work(self) -> bool:
        """Whether somebody drives it; if whoever did is gone with a loop that was closed it is free from now on."""
        claim = self._claims.get(_process.mark)
        if isinstance(claim, _LoopDriver) and claim.is_lost:
            self._driver = None  # whoever waited is gone with the loop
            self._leave(claim)
        return self._working

    @property
    def _working(self) -> bool:
        return _process.mark in self._claims

    def _begin(
        self,
        claim: object,
        targets: Sequence[Hashable],
        wake: Callable[[], None],
        loop: AbstractEventLoop | None,
        timeout: float | None,
    ) -> Drive:
        for target in targets:
            _check_target(target)
        self._check_idle()
        # In one instruction: two threads, or Ctrl-C, may come here. Whoever was first may have gone by the second look.
        while self._claims.setdefault(_process.mark, claim) is not claim:
            self._check_idle()
        if not _process.prepared:
            _process.prepare()
        self._remember()
        self._complaint = ""
        drive = Drive(self.graph, self._memo, self._settings, wake, loop)
        if targets:
            drive.want(targets)
        else:
            drive.want_all()
        _check_end(drive, timeout)
        self._drive = drive
        return drive

    def _leave(self, claim: object) -> None:
        """The work is done, or broken off; if it was this claim's."""
        if self._claims.get(_process.mark) is not claim:
            return
        drive = self._drive
        try:
            if drive is not None:
                if drive.detach is not None:
                    drive.detach()
                    drive.detach = None
                self._complaint = _complaint(drive)
        finally:
            del self._claims[_process.mark]

    def _remember(self) -> None:
        """Keep what the last drive ended in, but for what is to be made anew."""
        memo, drive, self._drive = self._memo, self._drive, None
        if not isinstance(memo, dict):  # somebody else's: it was told at once
            return
        if drive is not None:
            for number, node in enumerate(drive.nodes):
                failure = drive.failures.get(number)
                if failure is not None:
                    if not was_stopped(failure):
                        memo[node] = failure
                elif drive.values[number] is not GONE:
                    memo[node] = Ok(drive.values[number])
        if memo:
            graph = self.graph
            anew = [node for node in graph if node.volatile or node.target in self._volatile]
            if anew:
                for node in (*anew, *graph.descendants(*[node.target for node in anew])):
                    memo.pop(node, None)

    # ------------------------------------------------------------------ asking

    def outcome(self, target: Hashable) -> Result[Any]:
        """What a target ended in: `Ok(value)` or a Failure.

        Raises:
            UsageError: it has not ended, was not wanted, or its value was dropped when nobody needed it any more.
        """
        _check_target(target)
        drive = self._drive
        if drive is not None and drive.number(target) is not None:
            return drive.outcome(target)
        node = self.graph.get(target)
        if node is None:
            raise unknown_target(target, self.graph)
        known = self._memo.get(node)
        if known is None:
            raise UsageError(f"{target!r} was not run: orchestrate({target!r}) runs it")
        return known

    def value(self, target: Hashable) -> Any:
        """The value of a target that has succeeded.

        Raises:
            Failure: it has failed.
            UsageError: it has not ended, was not wanted, or its value was dropped.
        """
        result = self.outcome(target)
        if isinstance(result, Failure):
            raise result
        return result.value

    @property
    def failures(self) -> dict[Hashable, Failure]:
        """The failures of the last drive, by target; those of nodes that were not run because of others too."""
        drive = self._drive
        if drive is None:
            return {}
        return {drive.nodes[number].target: failure for number, failure in sorted(drive.failures.items())}

    def status(self, target: Hashable) -> str:
        """waiting, running, succeeded, failed, skipped (something it needs failed), stopped; idle if it was not wanted.

        Raises:
            UsageError: nothing produces the target.
        """
        self._check_known(target)
        drive = self._drive
        number = None if drive is None else drive.number(target)
        if drive is not None and number is not None:
            failure = drive.failures.get(number)
            if failure is None:
                return drive.scheduler.status(number)
        else:
            known = self._memo.get(self.graph.get(target))
            if known is None or isinstance(known, Ok):
                return "idle" if known is None else "succeeded"
            failure = known
        if isinstance(failure, DependencyFailure):
            return "skipped"
        return "stopped" if isinstance(failure, StoppedFailure) else "failed"

    def _check_known(self, target: Hashable) -> None:
        _check_target(target)
        if self.graph.get(target) is None:
            raise unknown_target(target, self.graph)

    def why(self) -> str:
        """Why the last drive was not all well, in one line; "all is well" if it was."""
        return self._complaint or "all is well"

    def reset(self, *targets: Hashable) -> None:
        """Forget what these targets (nothing: all) ended in, so that they run again when they are wanted.

        With a target that was not run, the failures that kept it from running are forgotten.

        Raises:
            UsageError: the engine is at work, or nothing produces one of the targets.
        """
        self._check_idle()
        for target in targets:
            self._check_known(target)
        self._remember()
        memo: Any = self._memo
        if not targets:
            memo.clear()
        todo = list(targets)
        while todo:
            known = memo.pop(self.graph.get(todo.pop()), None)
            if isinstance(known, DependencyFailure):  # it would end the same way as long as these stand
                todo.extend(known.dependencies)


class _LoopDriver:
    """Drives on an event loop: all steps are taken in the loop's thread."""

    drive: Drive

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = get_ident()
        self._coming = False
        self.ended: Future[None] = loop.create_future()

    @property
    def is_lost(self) -> bool:
        """Whether the loop was closed in the middle of it."""
        return self._loop.is_closed()

    def wake(self) -> None:
        """From any thread: have the loop look."""
        if not self._coming:
            self._coming = True
            try:
                self._loop.call_soon_threadsafe(self.look)
            except RuntimeError:  # the loop is closed: nobody drives any more
                return

    def look(self) -> None:
        """On the loop: take steps, and say when everything has ended."""
        self._coming = False
        drive = self.drive
        drive.drop()
        drive.forget()
        drive.advance()
        while drive.here:
            drive.call_here(None)
            drive.advance()
        if not drive.is_active() and not self.ended.done():
            self.ended.set_result(None)

    async def end(self, why: str) -> None:
        """Stop everything, and wait until it has ended, no longer than a stop takes."""
        import asyncio

        self.ended = self._loop.create_future()
        self.drive.halt(why)
        self.look()
        await asyncio.wait([self.ended], timeout=GRACE + _waiters.RECHECK)


class _LoopsWaiter(_waiters.Waiter):
    """An event loop's thread, which looks more often whether it is interrupted."""

    __slots__ = ()

    def sleep(self, seconds: float | None) -> None:
        super().sleep(_GLANCE if seconds is None else min(seconds, _GLANCE))


def _pump(drive: Drive, waiter: _waiters.Waiter, deadline: float | None, why: str) -> None:
    """Take steps, make the calls that are to be made here, sleep; until everything has ended.

    When the deadline (monotonic) has passed everything is stopped; a drive that is being stopped is left then.
    """
    while True:
        waiter.done = False
        late = deadline is not None and monotonic() >= deadline
        if not late or drive.stopping:  # else what became ready meanwhile must not start
            drive.advance()
        if drive.here and (not late or drive.stopping):
            drive.call_here(deadline if not drive.stopping else None)
        elif not drive.is_active():
            return
        elif late:
            if drive.stopping and not why:
                return
            drive.halt(why)
            deadline = None
        else:
            _waiters.block(waiter, deadline, drive.pumps(), drive.look)


def _complaint(drive: Drive) -> str:
    """Why a drive is not all well; empty if it is."""
    failed = {
        number: failure
        for number, failure in drive.failures.items()
        if not (drive.nodes[number].forever and isinstance(failure, StoppedFailure))
    }
    if failed:
        own = [number for number in failed if not isinstance(failed[number], DependencyFailure)] or [*failed]
        names = ", ".join(drive.nodes[number].name for number in own[:3]) + (", …" if len(own) > 3 else "")
        text = f"{len(failed)} of {len(drive.nodes)} failed ({names})"
        why = "" if drive.stopping == ALL_ENDED else drive.stopping
        return why or f"{text}: {_exceptions.safe_str(failed[own[0]])}"
    return ""


def _check_target(target: Hashable) -> None:
    try:
        hash(target)
    except TypeError:
        raise UsageError(f"a target has to be hashable, and {target!r} is not; several are several arguments") from None


def _listed(what: str, given: Iterable[Any]) -> list[Any]:
    if isinstance(given, (str, bytes)) or not hasattr(given, "__iter__"):
        raise UsageError(f"{what} is a list, not {given!r}: write [{given!r}]")
    return list(given)


def _check_end(drive: Drive, timeout: float | None) -> None:
    if drive.runs_forever and timeout is None:
        raise UsageError("everything here runs forever: give a timeout, or something that ends")


def was_stopped(failure: Failure) -> bool:
    """Whether it was stopped, or not run because something else was: that is no answer to be kept."""
    if isinstance(failure, DependencyFailure):
        return any(isinstance(root, StoppedFailure) for root in failure.root_causes())
    return isinstance(failure, StoppedFailure)


def _on_a_loop() -> bool:
    """Whether the calling thread is inside of a running event loop."""
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)  # none yet while another thread imports it
    return running is not None and running() is not None


def refuse_own_loop(blocking: str, instead: str) -> None:
    """Raise UsageError in the thread of woflo's own loop: what is waited for may have to run there."""
    asynchronous = sys.modules.get("woflo.runners.asynchronous")
    if asynchronous is not None and asynchronous.on_own_loop():
        raise UsageError(f"{blocking} would block the loop on which the coroutines are to run: await {instead}")
