"""Engine: drives a graph. It starts what may start, records what it ended in, and tells it; `_scheduler` decides.

One step (`_step`) doesn't block; everything else is who takes it and when:

    orchestrate()       the calling thread sleeps until the last node has ended; a thread that ends a run takes the
                        step itself and starts what became ready, so a chain on threads doesn't travel to and fro
    co_orchestrate()    the event loop takes all steps

Rule 1: one thread at a time is inside a step; whoever comes meanwhile leaves its news, and the one inside looks again.
Rule 2: the user's code is never called inside a step: calls in place are made by the driver, after it.
Rule 3: a node starts at most once, each wanted node ends in exactly one Result, and a failure is a value.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock, get_ident
from collections import deque
from contextvars import copy_context
from itertools import count
from time import monotonic
from types import CoroutineType, FunctionType
from weakref import WeakKeyDictionary

from woflo import _exceptions, _notify
from woflo._cycles import find_cycle
from woflo._retry import Policy
from woflo._scheduler import Cyclic, Scheduler
from woflo.errors import CyclicWorkflowError, UsageError
from woflo.graph import Graph, unknown_target
from woflo.result import DependencyFailure, Failure, Ok, StoppedFailure, TaskFailure
from woflo.runners import _process, _waiters
from woflo.runners._attempt import GRACE
from woflo.runners._inputs import is_run
from woflo.runners._slots import default_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from contextvars import Context
    from typing import Any

    from woflo.events import Event
    from woflo.graph import Node
    from woflo.result import Result
    from woflo.runners.base import BaseTaskRun

__all__ = ["Engine"]

_GONE: Any = object()  # in the place of a value that is not there yet, or not any more
_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE
_RERANKS = 8  # times that durations learnt on the way change the order: each costs a walk over the graph
_seconds: WeakKeyDictionary[Any, float] = WeakKeyDictionary()  # how long a task's last run took, in this process


class Engine:
    """Drives a graph of nodes: each that is wanted, and all that it needs, runs once.

    A node whose call is a Task runs where its runner says. Any other callable is called by the thread that
    drives: in place under `orchestrate()`, in a thread beside the loop under `co_orchestrate()`; coroutine functions run on the
    driving event loop (under `orchestrate()`: on one of woflo's own, in a thread).

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
            observers: called with every event of this engine's nodes.

        Raises:
            UsageError: `window` is no positive whole number.
        """
        if window is not None and (type(window) is not int or window < 1):
            raise UsageError(f"window must be a whole number from 1 up, or None, not {window!r}")
        self.graph: Any = graph if hasattr(graph, "get") else Graph(graph)
        self._runner = runner
        self._window = window
        self._stop_on_failure = stop_on_failure
        self._volatile = tuple(volatile)
        self._observers = list(observers)
        self._telling = allocate_lock()  # held while events are told, so that they come in order
        self._lock = allocate_lock()  # held inside a step
        self._ended: Future[None]
        self._driver: int | None = None  # the thread that is inside of orchestrate
        self._loop: AbstractEventLoop | None = None
        self._memo: dict[Node, Result[Any]] = {}  # what earlier calls of orchestrate ended in
        self._clear()

    def _clear(self) -> None:
        self._scheduler = Scheduler()
        self._numbers: dict[Hashable, int] = {}
        self._nodes: list[Node] = []
        self._values: list[Any] = []
        self._users: list[int] = []  # who still needs the value; a wanted one is one of them
        self._failures: dict[int, Failure] = {}
        self._known: dict[int, Result[Any]] = {}  # not to be run: this is what they end in
        self._runs: dict[BaseTaskRun[Any], int] = {}
        self._forever: set[int] = set()  # unfinished nodes that run forever
        self._news: deque[int] = deque()  # nodes that have ended; their values or failures are recorded already
        self._here: deque[int] = deque()  # nodes that the driver is to call in place
        self._stopping = ""  # why
        self._complaint = ""  # why the last orchestrate returned False
        self._reranks = 0
        self._began: dict[int, float] = {}  # when, of those that run; only if somebody observes
        self._untold: deque[Event] = deque()
        self._begun = False

    # ------------------------------------------------------------------ what a user asks

    def orchestrate(self, *targets: Hashable, timeout: float | None = None) -> bool:
        """Run the targets and all that they need; block until they have ended. True if all have succeeded.

        Args:
            targets: what is wanted; nothing: every node, and the values of those that no other needs are kept.
            timeout: seconds; then everything is stopped.

        Raises:
            CyclicWorkflowError: what is wanted needs itself; nothing was started.
            UsageError: an unknown target, a target that needs one that runs forever, or the engine is at work already.
        """
        deadline = _deadline(timeout)
        if _on_a_loop():
            return self._from_a_thread(targets, timeout)
        self._begin(targets, None, timeout)
        try:
            self._pump(deadline)
        except BaseException:
            self._halt("interrupted")
            self._pump(monotonic() + GRACE + _waiters.RECHECK, last=True)
            raise
        finally:
            self._leave()
        return not self._complaint

    def _from_a_thread(self, targets: Sequence[Hashable], timeout: float | None) -> bool:
        """Block an event loop's thread (a notebook's): the nodes are driven by another one meanwhile."""
        ended: list[Any] = []
        waiter = _waiters.Waiter()

        def work() -> None:
            try:
                ended.append(self.orchestrate(*targets, timeout=timeout))
            except BaseException as error:
                ended.append(error)
            waiter.signal(None)

        self._check_idle()
        _process.start_thread(copy_context().run, work, name="woflo-engine")
        try:
            _waiters.block(waiter, None, False, _nothing)
        except BaseException:
            self.stop()
            _waiters.block(waiter, monotonic() + GRACE + _waiters.RECHECK, False, _nothing)
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

        _deadline(timeout)
        loop = asyncio.get_running_loop()
        self._begin(targets, loop, timeout)
        clock = None
        try:
            if timeout is not None:
                clock = loop.call_later(timeout, self._time_is_up, timeout)
            self._on_loop()
            try:
                await self._ended
            except asyncio.CancelledError:
                self._halt("cancelled")
                self._ended = loop.create_future()
                self._on_loop()
                await asyncio.wait([self._ended], timeout=GRACE + _waiters.RECHECK)
                raise
        finally:
            if clock is not None:
                clock.cancel()
            self._leave()
        return not self._complaint

    def stop(self) -> None:
        """Stop everything that has not ended; from any thread. `orchestrate` then returns False."""
        if self._driver is not None:
            self._halt("stop() was called")
            self._wake()

    def outcome(self, target: Hashable) -> Result[Any]:
        """What a target ended in: `Ok(value)` or a Failure.

        Raises:
            UsageError: it has not ended, was not wanted, or its value was dropped when nobody needed it any more.
        """
        number = self._number(target)
        if number is None:
            node = self.graph.get(target)
            if node is None:
                raise unknown_target(target, self.graph)
            if node in self._memo:
                return self._memo[node]
            raise UsageError(f"{target!r} was not run: orchestrate({target!r}) runs it")
        if number in self._failures:
            return self._failures[number]
        value = self._values[number]
        if value is _GONE:
            if self.status(target) == "succeeded":
                raise UsageError(
                    f"the value of {target!r} was dropped when nothing needed it any more: orchestrate({target!r}) keeps it"
                )
            raise UsageError(f"{target!r} has not ended: it is {self.status(target)}")
        return Ok(value)

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
        """The failures of the last `orchestrate`, by target; those of nodes that were not run because of others too."""
        return {self._nodes[number].target: failure for number, failure in sorted(self._failures.items())}

    def status(self, target: Hashable) -> str:
        """waiting, running, succeeded, failed, skipped (something it needs failed), stopped; idle if it was not wanted."""
        number = self._number(target)
        if number is None:
            known = self._memo.get(self.graph.get(target))
            return "idle" if known is None else "succeeded" if known else "failed"
        failure = self._failures.get(number)
        if failure is not None:
            if isinstance(failure, DependencyFailure):
                return "skipped"
            return "stopped" if isinstance(failure, StoppedFailure) else "failed"
        return self._scheduler.status(number)

    def why(self) -> str:
        """Why the last `orchestrate` returned False, in one line; "all is well" if it returned True."""
        return self._complaint or "all is well"

    def reset(self, *targets: Hashable) -> None:
        """Forget what these targets (nothing: all) ended in, so that they run again when they are wanted.

        Raises:
            UsageError: the engine is at work.
        """
        self._check_idle()
        self._remember()
        if targets:
            for target in targets:
                self._memo.pop(self.graph.get(target), None)
        else:
            self._memo.clear()

    def _number(self, target: Hashable) -> int | None:
        number = self._numbers.get(target)  # may be the graph's own index, which later graphs may share
        return None if number is None or number >= len(self._nodes) else number

    # ------------------------------------------------------------------ beginning and end

    def _check_idle(self) -> None:
        if self._driver is not None:
            raise UsageError("this engine is at work: wait until its orchestrate has returned, or make another engine")

    def _begin(self, targets: Sequence[Hashable], loop: AbstractEventLoop | None, timeout: float | None) -> None:
        self._check_idle()
        self._driver = get_ident()
        self._loop = loop
        try:
            if not _process.prepared:
                _process.prepare()
            self._remember()
            self._want(targets, timeout)
        except BaseException:
            self._clear()
            self._driver = self._loop = None
            raise
        self._context: Context = copy_context()
        self._observed = bool(self._observers) or _notify.listening
        self._waiter = _waiters.Waiter()
        self._scheduled = False
        self._detach: Callable[[], None] | None = None
        if loop is not None:
            self._ended = loop.create_future()
        self._rank()

    def _leave(self) -> None:
        if self._detach is not None:
            self._detach()
            self._detach = None
        self._driver = self._loop = None
        failed = [
            number
            for number, failure in self._failures.items()
            if not (self._nodes[number].forever and isinstance(failure, StoppedFailure))
        ]
        if not self._complaint and failed:
            own = [number for number in failed if not isinstance(self._failures[number], DependencyFailure)] or failed
            first = self._failures[own[0]]
            names = ", ".join(self._nodes[number].name for number in own[:3]) + (", …" if len(own) > 3 else "")
            self._complaint = f"{len(failed)} of {len(self._nodes)} failed ({names}): {_exceptions.safe_str(first)}"

    def _remember(self) -> None:
        """Keep what the last orchestrate ended in, but for what is to be made anew, and make room for the next."""
        if self._begun:
            for number, node in enumerate(self._nodes):
                failure = self._failures.get(number)
                if failure is not None:
                    if not isinstance(failure, StoppedFailure) and not _stopped(failure):
                        self._memo[node] = failure
                elif self._values[number] is not _GONE:
                    self._memo[node] = Ok(self._values[number])
        if self._memo and isinstance(self.graph, Graph):
            anew = [node for node in self.graph if node.volatile or any(one in self._volatile for one in node.produces)]
            if anew:
                for node in (*anew, *self.graph.descendants(*[node.target for node in anew])):
                    self._memo.pop(node, None)
        self._clear()

    def _want(self, targets: Sequence[Hashable], timeout: float | None) -> None:
        """Take the targets' nodes and all that they need into the scheduler."""
        graph = self.graph
        if not targets and not self._memo and isinstance(graph, Graph) and graph._ordered:
            self._numbers = numbers = graph._index  # a whole graph, in order: it knows the numbers
            self._nodes = nodes = list(graph)
            after = any(node.after for node in nodes)
            rows: Iterable[Sequence[int]] = (
                [numbers[need] for need in (node.needs if after else node.requires)] for node in nodes
            )
            self._scheduler.extend(rows, ordered=True)
        else:
            everything = graph.targets if not self._memo else [node.target for node in graph.leaves()]
            self._extend(targets or everything)
            nodes, numbers = self._nodes, self._numbers
        self._begun = True
        children = self._scheduler.children
        self._users = [len(one) if one else 0 for one in children]
        for target in targets:
            self._users[numbers[target]] += 1
        self._values = [_GONE] * len(nodes)
        self._forever = {number for number, node in enumerate(nodes) if node.forever}
        self._only_forever = len(self._forever) == len(nodes)
        if self._forever and self._only_forever and timeout is None:
            raise UsageError("everything here runs forever: give a timeout, or something that ends")
        for number in self._forever:
            after_it = children[number]
            if after_it:
                raise UsageError(f"{nodes[after_it[0]].name} needs {nodes[number].name}, which runs forever")

    def _extend(self, targets: Iterable[Hashable]) -> None:
        """Add the nodes of targets, and all that they need, that are not in the scheduler yet."""
        numbers, graph = self._numbers, self.graph
        first = len(self._nodes)
        found: list[Node] = []
        todo = deque(targets)
        seen: set[Hashable] = set()
        while todo:
            target = todo.popleft()
            if target in numbers or target in seen:
                continue
            node = graph.get(target)
            if node is None:
                raise _missing(graph, target)
            seen.update(node.produces)
            found.append(node)
            if node not in self._memo:
                todo.extend(node.needs)
        found.reverse()  # what was found last is needed first
        if isinstance(graph, Graph):
            found.sort(key=graph.place)
        for number, node in enumerate(found, first):
            for target in node.produces:
                numbers[target] = number
        rows = [[] if node in self._memo else [numbers[need] for need in node.needs] for node in found]
        try:
            self._scheduler.extend(rows)
        except Cyclic as error:
            for node in found:
                for target in node.produces:
                    del numbers[target]
            cycle = find_cycle(error.needs)
            raise CyclicWorkflowError([found[number - first].target for number in cycle]) from None
        self._nodes.extend(found)
        for number, node in enumerate(found, first):
            if node in self._memo:
                self._known[number] = self._memo[node]

    # ------------------------------------------------------------------ the step

    def _advance(self) -> None:
        """Take a step, unless another thread is inside one: then it will look again."""
        while True:
            if not self._lock.acquire(blocking=False):
                return
            try:
                self._context.run(self._step)
            finally:
                self._lock.release()
            if self._untold:
                self._tell()
            if not self._news:  # none came between the last look and the release
                return

    def _step(self) -> None:
        """Record what has ended, and start what may start. Doesn't block."""
        scheduler, news = self._scheduler, self._news
        while True:
            while news:
                self._end(news.popleft())
            blocked = scheduler.blocked()
            if blocked:
                for number in blocked:
                    self._failures[number] = self._not_run(number)
                news.extend(blocked)
                continue
            if self._forever and scheduler.left == len(self._forever) and not self._stopping and not self._only_forever:
                self._end_forever()
            if self._stopping:
                self._end_unstarted()
                if not news:
                    return
                continue
            window = self._window
            limit = None if window is None else window + len(self._forever) - scheduler.running
            if limit is None or limit > 0:
                for number in scheduler.ready(limit):
                    self._start(number)
            if not news and not scheduler.has_blocked:
                return

    def _start(self, number: int) -> None:
        """Begin a node, or leave it to the driver."""
        node = self._nodes[number]
        if self._known and number in self._known:
            result = self._known[number]
            if result:
                self._values[number] = result.value
            else:
                self._failures[number] = result
            self._news.append(number)
            return
        call: Any = node.call
        if call.__class__ is FunctionType and self._loop is None:
            self._here.append(number)
            return
        if call is None:
            self._values[number] = None
            self._news.append(number)
            return
        where = getattr(call, "_where", None)
        if where is None:
            if self._loop is None:
                self._here.append(number)
                return
            call = _Step(node)
            runner = None
        else:
            runner = where(self._runner)
            if runner._in_place:
                self._here.append(number)
                return
        if self._observed:
            self._tell_started(number)
        try:
            run = call._submit(self._arguments(node), runner)
        except BaseException as error:
            self._fail(number, error)
            self._news.append(number)
            return
        self._adopt(number, run)

    def _arguments(self, node: Node) -> tuple[Any, ...]:
        values, numbers = self._values, self._numbers
        return tuple([values[numbers[target]] for target in node.requires])

    def _adopt(self, number: int, run: BaseTaskRun[Any]) -> None:
        """A node is being carried out by a run."""
        if run._result is None:
            self._runs[run] = number
            if self._loop is not None and run._pumped and self._detach is None:
                self._detach = run._attach(self._loop)
            elif self._here and run._pumped:  # the driver is going to be busy: somebody has to look after it
                run._attend()
            if run._enlist(self):
                return
            if self._runs.pop(run, None) is None:  # it has been told
                return
        self._record(number, run)
        self._news.append(number)

    def signal(self, run: BaseTaskRun[Any] | None) -> None:
        """A run has ended; called by the thread that learnt it, which goes on with what became ready."""
        number = self._runs.pop(run, None)  # type: ignore[arg-type]
        if number is None:
            return
        self._record(number, run)  # type: ignore[arg-type]
        self._news.append(number)
        if self._loop is not None and get_ident() != self._driver:
            self._wake()
            return
        self._advance()
        if self._here or not self._scheduler.is_active():
            self._wake()

    def _record(self, number: int, run: BaseTaskRun[Any]) -> None:
        result = run._result
        if result.__class__ is Ok:
            self._values[number] = result.value
        else:
            run._seen()  # it is reported by the engine
            self._failures[number] = result  # type: ignore[assignment]
        if self._window is not None and run._started:
            self._learn(run.task, run.seconds)

    def _end(self, number: int) -> None:
        """A node has ended: tell the scheduler, drop what nobody needs any more."""
        failed = bool(self._failures) and number in self._failures
        node = self._nodes[number]
        users, values, numbers = self._users, self._values, self._numbers
        if not self._known or number not in self._known:
            for target in node.needs if node.after else node.requires:
                need = numbers[target]
                left = users[need] = users[need] - 1
                if not left:
                    values[need] = _GONE
        self._scheduler.done(number, failed=failed)
        if self._observed:
            self._tell_ended(number)
        if self._forever:
            self._forever.discard(number)
        if failed and (self._stop_on_failure or node.critical) and not self._stopping:
            failure = self._failures[number]
            if not node.forever or not isinstance(failure, StoppedFailure):
                self._stop_all(f"{node.name} failed: {_exceptions.safe_str(failure)}")

    def _not_run(self, number: int) -> DependencyFailure:
        node = self._nodes[number]
        causes = {
            target: self._failures[need] for target in node.needs if (need := self._numbers[target]) in self._failures
        }
        return DependencyFailure(causes, task=node.name, run=node.name)

    def _fail(self, number: int, error: BaseException) -> None:
        """What a node's own code raised becomes its failure; Ctrl-C goes on to the caller."""
        if _exceptions.is_interrupt(error):
            raise error
        error = error.with_traceback(_exceptions.skip_ours(error.__traceback__))
        name = self._nodes[number].name
        if isinstance(error, Failure):
            failure = error
        else:
            text = _exceptions.safe_str(error)
            kind = _exceptions.type_name(type(error))
            failure = TaskFailure(f"{kind}: {text}" if text else kind)
            failure.__cause__ = error
        if not failure.run:
            failure.task = failure.run = name
        self._failures[number] = failure

    # ------------------------------------------------------------------ the driver, blocking

    def _pump(self, deadline: float | None, *, last: bool = False) -> None:
        """Take steps, make the calls that are to be made here, sleep; until everything has ended."""
        waiter = self._waiter
        while True:
            waiter.done = False
            self._advance()
            if self._here:
                self._call_here(deadline)
                continue
            if not self._scheduler.is_active():
                return
            if deadline is not None and monotonic() >= deadline:
                if last:
                    return
                self._halt("time is up")
                deadline = None
                continue
            pump = any(run._pumped for run in list(self._runs)[:100]) or _process.supervisor is not None
            _waiters.block(waiter, deadline, pump, self._look)

    def _call_here(self, deadline: float | None) -> None:
        """Make the calls that are this thread's, in place."""
        here, news, nodes, values, numbers = self._here, self._news, self._nodes, self._values, self._numbers
        observed = self._observed
        while here:
            if deadline is not None and monotonic() >= deadline:
                self._halt("time is up")
            try:
                number = here.popleft()
            except IndexError:
                return
            node = nodes[number]
            if self._stopping:
                self._failures[number] = self._stopped_failure(node)
                news.append(number)
                continue
            if observed:
                self._tell_started(number)
            call = node.call
            try:
                if call.__class__ is FunctionType or (where := getattr(call, "_where", None)) is None:
                    value = call(*[values[numbers[target]] for target in node.requires])  # type: ignore[misc]
                else:
                    value = call._submit(self._arguments(node), where(self._runner))  # type: ignore[union-attr]
            except BaseException as error:
                try:
                    self._fail(number, error)
                finally:
                    if number not in self._failures:
                        self._failures[number] = self._stopped_failure(node, "interrupted by Ctrl-C")
                    news.append(number)
                continue
            kind = value.__class__
            if kind is CoroutineType or is_run(kind):
                self._adopt(number, value if is_run(kind) else _Step(node, value)._submit((), None))
                continue
            values[number] = value
            news.append(number)

    def _look(self) -> None:
        """Somebody may have missed the end of a run (a wake-up was lost to Ctrl-C): look at all of them."""
        for run in list(self._runs):
            run._look()
            if run._result is not None:
                self.signal(run)
        if not self._scheduler.is_active():
            self._waiter.done = True

    def _wake(self) -> None:
        """Have the driver look again."""
        loop = self._loop
        if loop is None:
            self._waiter.signal(None)
        elif not self._scheduled:
            self._scheduled = True
            try:
                loop.call_soon_threadsafe(self._on_loop)
            except RuntimeError:  # the loop is closed: nobody drives any more
                return

    def _on_loop(self) -> None:
        """On the loop's thread: take a step, and say when everything has ended."""
        self._scheduled = False
        self._advance()
        while self._here:
            self._call_here(None)
            self._advance()
        if not self._scheduler.is_active() and not self._ended.done():
            self._ended.set_result(None)

    # ------------------------------------------------------------------ stopping

    def _time_is_up(self, seconds: float) -> None:
        if self._scheduler.is_active():
            self._halt(f"it took longer than {seconds:g} s")
            self._on_loop()

    def _halt(self, why: str) -> None:
        """Stop everything; from outside of a step."""
        if not self._stopping:
            self._stop_all(why)
            self._advance()

    def _stop_all(self, why: str) -> None:
        """Nothing more is started; what runs is asked to end, and the unstarted end in the next step."""
        self._stopping = self._complaint = why
        if self._forever and self._scheduler.left == len(self._forever):
            self._complaint = ""  # all that ends by itself has
        self._stop_runs()

    def _stop_runs(self) -> None:
        for run in list(self._runs):
            try:
                run.stop(wait=False)
            except Exception as error:  # a runner of somebody's own
                _notify.broken(f"stop() of {run.name}", error)

    def _end_forever(self) -> None:
        """All others have ended: so do those that run forever."""
        self._stopping = "all others have ended"
        self._stop_runs()

    def _end_unstarted(self) -> None:
        """Whatever has not started never will."""
        scheduler = self._scheduler
        while True:
            unstarted = scheduler.ready() + scheduler.blocked() + scheduler.release()
            if not unstarted:
                return
            for number in unstarted:
                self._failures[number] = self._stopped_failure(self._nodes[number])
                self._end(number)

    def _stopped_failure(self, node: Node, why: str = "") -> StoppedFailure:
        return StoppedFailure(why or f"stopped before it was started: {self._stopping}", task=node.name, run=node.name)

    # ------------------------------------------------------------------ order

    def _rank(self) -> None:
        """Longest remaining path first, as far as durations are known."""
        known = [node.seconds for node in self._nodes] if any(node.seconds is not None for node in self._nodes) else []
        if not known and not (self._window is not None and _seconds):
            return
        told = known or [None] * len(self._nodes)
        durations = [
            _known_seconds(node.call) if seconds is None else float(seconds)
            for node, seconds in zip(self._nodes, told, strict=True)
        ]
        if any(durations):
            if self._window is None:  # all at once would leave nothing to choose
                self._window = default_size()
            self._scheduler.rank(durations)

    def _learn(self, task: Any, seconds: float) -> None:
        """Remember how long a task's run took; the first of its kind may change the order of what waits."""
        new = task not in _seconds
        _seconds[task] = seconds
        if new and self._scheduler.waits and self._reranks < _RERANKS:
            self._reranks += 1
            self._rank()

    # ------------------------------------------------------------------ telling

    def _tell_started(self, number: int) -> None:
        from woflo import events

        self._began[number] = monotonic()
        node = self._nodes[number]
        self._untold.append(events.NodeStarted(node.target, node.name))

    def _tell_ended(self, number: int) -> None:
        from woflo import events

        node = self._nodes[number]
        began = self._began.pop(number, None)
        seconds = 0.0 if began is None else monotonic() - began
        self._untold.append(events.NodeEnded(node.target, node.name, self._failures.get(number), seconds))

    def _tell(self) -> None:
        """Tell what has happened, in its order, with no lock held that anybody waits for."""
        from woflo import events

        while self._untold and self._telling.acquire(blocking=False):
            try:
                while self._untold:
                    event = self._untold.popleft()
                    events.emit(event)
                    for observer in tuple(self._observers):
                        events.call(observer, event, lambda observer=observer: self._observers.remove(observer))  # type: ignore[misc]
            finally:
                self._telling.release()


class _Step:
    """A node's callable that is no Task, in the place of one: for the event loop's runner."""

    policy = Policy(0, Exception, 0.0)
    timeout = None
    runner = None
    simple = True
    numbers = count(1)

    def __init__(self, node: Node, coroutine: Any = None) -> None:
        self.name = node.name
        call: Any = node.call
        if coroutine is None:
            self.fn = call
            flags = getattr(getattr(call, "__func__", call), "__code__", None)
            self.is_async = bool(flags is not None and flags.co_flags & _CO_COROUTINE)
        else:
            self.fn = lambda: coroutine
            self.is_async = True

    def _submit(self, args: tuple[Any, ...], runner: Any) -> BaseTaskRun[Any]:  # noqa: ARG002 - as Task's
        from woflo.runners.asynchronous import AsyncTaskRun

        return AsyncTaskRun.submit(self, args, {}, [])  # type: ignore[arg-type]


def _on_a_loop() -> bool:
    """Whether the calling thread is inside of a running event loop."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _nothing() -> None:
    """Nothing to be looked at."""


def _known_seconds(call: Any) -> float:
    try:
        return _seconds.get(call, 0.0)
    except TypeError:  # a callable that can't be referred to weakly, or hashed
        return 0.0


def _stopped(failure: Failure) -> bool:
    return isinstance(failure, DependencyFailure) and any(
        isinstance(root, StoppedFailure) for root in failure.root_causes()
    )


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise UsageError(f"timeout is a number of seconds, or None, not {timeout!r}")
    return monotonic() + timeout


def _missing(graph: Any, target: Hashable = None) -> UsageError:
    if isinstance(graph, Graph):
        for wanted, nodes in graph.missing().items():
            if target is None or wanted == target:
                error = unknown_target(wanted, graph)
                return UsageError(f"{nodes[0].name} needs {wanted!r}, but {error}")
    return unknown_target(target, graph if isinstance(graph, Graph) else ())
