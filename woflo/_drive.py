"""One drive of a graph: start what may start, record what it ended in, drop what nobody needs. `_scheduler` decides.

    want → [ step: what has ended → what is blocked → what may start ] → runs, or calls for the driver to make
              ↑                                                            │
              └────────────── news: numbers of nodes that have ended ──────┘

Nodes go by the numbers that the scheduler knows them by. A step doesn't block and calls no user's code.

Rule 1: one thread at a time is inside a step; whoever comes meanwhile leaves its news, and the one inside looks again.
Rule 2: calls in place are made by the driver (the thread or the loop that `engine` drives with), outside of a step.
Rule 3: a node starts at most once and ends in exactly one Result; a failure is a value.
Rule 4: on an event loop all steps are taken by the loop's thread. Where `forget` changes numbers, it alone uses them.
"""

from __future__ import annotations

from _thread import allocate_lock, get_ident
from collections import deque
from contextvars import copy_context
from itertools import count
from time import monotonic
from types import CoroutineType, FunctionType
from weakref import WeakKeyDictionary

from woflo import _exceptions, _notify, _unseen
from woflo._batches import Batches
from woflo._collector import paused
from woflo._cycles import find_cycle
from woflo._retry import Policy
from woflo._scheduler import Cyclic, Scheduler
from woflo.errors import CyclicWorkflowError, UsageError
from woflo.graph import Graph, unknown_target
from woflo.result import DependencyFailure, Failure, Ok, StoppedFailure, TaskFailure
from woflo.runners import _process, _progress
from woflo.runners._attempt import GRACE, current
from woflo.runners._inputs import is_run
from woflo.runners._slots import default_size
from woflo.runners._waiters import RECHECK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Container, Hashable, Iterable, Sequence
    from typing import Any, Protocol

    from woflo.events import Event
    from woflo.graph import Node
    from woflo.result import Result
    from woflo.runners.base import BaseTaskRun

    class Finder(Protocol):
        """Where nodes are looked up by target; a Graph is one.

        Any other may answer differently at each want, as long as the last of a node's targets is its own for good.
        """

        def get(self, target: Hashable, /) -> Node | None: ...

    class Memo(Protocol):
        """What nodes ended in before; a dict is one."""

        def get(self, node: Any, /) -> Result[Any] | None: ...


ALL_ENDED = "all others have ended"  # why those that run forever are stopped
GONE: Any = object()  # in the place of a value that is not there yet, or not any more
_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE
_MOST_INSIDE = 1.0  # seconds that no step takes
_RERANKS = 8  # times that durations learnt on the way change the order: each costs a walk over the graph
_HISTORY, _TIMES = 1000, 4  # nodes beyond so many times those that are needed: then the others are forgotten
_seconds: WeakKeyDictionary[Any, float] = WeakKeyDictionary()  # how long a task's last run took, in this process


class Settings:
    """How an engine drives: what its Drives have in common."""

    __slots__ = ("ended", "follow", "observers", "runner", "silent", "stop_on_failure", "window")

    def __init__(
        self,
        runner: type[BaseTaskRun[Any]] | None,
        window: int | None,
        stop_on_failure: bool,
        observers: list[Callable[[Event], object]],
    ) -> None:
        self.runner = runner
        self.window = window
        self.stop_on_failure = stop_on_failure
        self.observers = observers
        self.silent = False  # only the own observers are told
        self.follow: Callable[[Node, Any], Hashable] | None = None  # the target that a node's value stands for, or None
        self.ended: Callable[[Node, Result[Any]], None] | None = None  # told each result, inside of the step


class Drive:
    """The state of one drive, and the step that changes it."""

    def __init__(
        self,
        graph: Finder,
        memo: Memo,
        settings: Settings,
        wake: Callable[[], None],
        loop: AbstractEventLoop | None,
    ) -> None:
        self.graph = graph
        self.memo = memo
        self.settings = settings
        self.window = settings.window
        self.wake = wake  # has the driver look again
        self.loop = loop
        self.thread = get_ident()
        self.scheduler = Scheduler()
        self.numbers: dict[Hashable, int] = {}
        self.nodes: list[Node] = []
        self.values: list[Any] = []
        self.failures: dict[int, Failure] = {}
        self.here: deque[int] = deque()  # nodes whose calls the driver is to make
        self.stopping = ""  # why
        self.detach: Callable[[], None] | None = None  # ends the loop's watch on the supervisor
        self._users: list[int] = []  # how many still need the value
        self._known: dict[int, Result[Any]] = {}  # not to be run: what the memo says that they ended in
        self._settled = isinstance(graph, Graph)  # a target means the same node for as long as this drive
        self._rows: dict[int, list[int]] = {}  # if not: what each node needs
        self._aliases: dict[int, int] = {}  # nodes that turned out to stand for others
        self._kept = 0  # what was left when history was forgotten: nodes, and how often others name them
        self._forgotten = 0
        self._runs: dict[BaseTaskRun[Any], int] = {}
        self._told: deque[BaseTaskRun[Any]] = deque()  # those of them that have ended, if numbers change
        self._pumped: set[BaseTaskRun[Any]] = set()  # those of them that end only if somebody drives the supervisor
        self._crewed = False  # whether runs of some nodes have been told of together
        self._plain: set[int] = set()  # calls beside the loop: what they return may be a coroutine or a run
        self._calling = False  # the driver makes calls in place: it doesn't drive the supervisor meanwhile
        self._forever: set[int] = set()  # unfinished nodes that run forever
        self._only_forever = False
        # nodes may go to a worker together, and as many ended ones be told of at once
        self._batches = Batches(self) if self._settled and settings.follow is None and settings.ended is None else None
        self._back: deque[int] = deque()  # nodes that were to go along with others, and have not
        self._news: deque[int] = deque()  # nodes that have ended; their values or failures are recorded already
        self._wants: dict[int, list[Want]] = {}
        self._inner: dict[int, list[Want]] = {}  # what running nodes wait for in their own code
        self._released = False  # somebody waits no more: there may be nodes that nobody waits for
        self._timed = False  # nodes say how long they take
        self._reranks = 0
        self._learnt = False  # how long a task takes: the order may be another now
        self._context = copy_context()  # the caller's: entered by whoever is inside a step
        self._lock = allocate_lock()  # held inside a step
        self._looked = monotonic()  # when `look` did
        self._again = False  # something else than news came while somebody was inside
        self._observed = bool(settings.observers) or (_notify.listening and not settings.silent)
        self._follows = bool(settings.observers) and not settings.silent  # the own observers are told how far runs are
        self._began: dict[int, float] = {}  # when, of those that run; only if somebody observes
        self._untold: deque[Event] = deque()
        self._telling = allocate_lock()  # held while events are told, so that they come in their order

    # ------------------------------------------------------------------ what is wanted

    def want_all(self) -> None:
        """Take every node of the graph, and nothing later; the values of those that no other needs are kept.

        Raises:
            CyclicWorkflowError: some need themselves; nothing was taken.
            UsageError: nothing produces what one needs.
        """
        graph = self.graph
        assert isinstance(graph, Graph)  # noqa: S101 - only a Graph can be asked for everything
        if not graph._ordered or self.memo:
            if self.memo:
                graph.topological()  # a cycle may be no leaf's concern
            self.want([node.target for node in (graph.leaves() if self.memo else graph)], keep=False)
            return
        self.numbers = numbers = graph._index  # a whole graph, in order: it knows the numbers (later graphs' too)
        self.nodes = nodes = list(graph)
        self._check_endless(nodes)
        after = any(node.after for node in nodes)
        rows = ([numbers[need] for need in (node.needs if after else node.requires)] for node in nodes)
        with paused():
            self.scheduler.extend(rows, ordered=True)
            self._prepare(0)

    def want(self, targets: Iterable[Hashable], *, keep: bool = True) -> None:
        """Take these targets' nodes and all that they need; `keep`: and keep their values.

        Raises:
            CyclicWorkflowError: they need themselves; nothing was taken.
            UsageError: nothing produces one of them.
        """
        targets = list(targets)
        found, known, others = self._find(targets)
        self._check_endless(found)
        first = len(self.nodes)  # now: a Finder of somebody's own may have done anything meanwhile
        numbers = self.numbers
        before = {target: numbers[target] for node in found for target in node.produces if target in numbers}
        for number, node in enumerate(found, first):
            numbers.update(dict.fromkeys(node.produces, number))
        for target, same in others.items():
            numbers[target] = numbers[same]
        rows = [[] if node in known else [numbers[need] for need in node.needs] for node in found]
        try:
            self.scheduler.extend(rows)
        except Cyclic as error:
            for node in found:
                for target in node.produces:
                    numbers.pop(target, None)
            numbers.update(before)
            cycle = find_cycle(error.needs)
            raise CyclicWorkflowError([found[number - first].target for number in cycle]) from None
        self.nodes.extend(found)
        if known:
            self._known.update((number, known[node]) for number, node in enumerate(found, first) if node in known)
        if not self._settled:
            self._rows.update(enumerate(rows, first))
        self._prepare(first)
        if first:
            for row in rows:
                for need in row:
                    if need < first:
                        self._users[need] += 1
        if keep:
            for target in targets:
                self._users[numbers[target]] += 1

    def _find(
        self, targets: Sequence[Hashable]
    ) -> tuple[list[Node], dict[Node, Result[Any]], dict[Hashable, Hashable]]:
        """The nodes of targets and of all that they need, each behind what it needs, but for those that are here already.

        Also what the memo knows of some of them, and targets that are other names of nodes that are here or found.
        """
        graph, memo, is_here = self.graph, self.memo, self._is_here
        found: list[Node] = []
        known: dict[Node, Result[Any]] = {}
        others: dict[Hashable, Hashable] = {}
        opened: dict[Hashable, Node | None] = {}  # None: it stands in `found` already
        todo = list(reversed(targets))
        while todo:
            target = todo[-1]
            if target in opened:
                todo.pop()
                node = opened[target]
                if node is not None:
                    found.append(node)
                    opened.update(dict.fromkeys(node.produces))
            elif self._settled and is_here(target):
                todo.pop()
            else:
                node = graph.get(target)
                if node is None:
                    raise _missing(graph, target)
                if not self._settled and ((own := node.produces[-1]) in opened or is_here(own)):
                    others[target] = own
                    opened[target] = None
                    continue
                opened.update(dict.fromkeys(node.produces))
                opened[target] = node
                result = memo.get(node)
                if result is None:
                    todo.extend(need for need in reversed(node.needs) if need not in opened)
                else:
                    known[node] = result
        if isinstance(graph, Graph) and graph._ordered:
            found.sort(key=graph.place)
        return found, known, others

    def _check_endless(self, nodes: Sequence[Node]) -> None:
        """Raise UsageError if nodes that are about to be taken need one that runs forever, or it would run in their place."""
        if not self._forever and not any(node.forever for node in nodes):
            return
        for node in nodes:
            for need in node.needs:
                needed = self.graph.get(need)
                if needed is not None and needed.forever:
                    raise UsageError(f"{node.name} needs {needed.name}, which runs forever")
            where = getattr(type(node.call), "_where", None)
            if node.forever and where is not None and where(node.call, self.settings.runner)._in_place:
                raise UsageError(
                    f"{node.name} runs forever, and its runner in the place of all others: give it another runner"
                )

    def _is_here(self, target: Hashable) -> bool:
        """Whether a target's node is here, and need not be looked up and made again."""
        number = self.numbers.get(target)
        if number is None:
            return False
        if not self.scheduler.has_ended(number):
            return True
        return self._settled and (number in self.failures or self.values[number] is not GONE)

    def _needs(self, number: int) -> list[int]:
        """The numbers of what a node needs."""
        if self._settled:
            return [self.numbers[need] for need in self.nodes[number].needs]
        return self._rows[number]

    def _prepare(self, first: int) -> None:
        """What is kept about the nodes from `first` on."""
        nodes = self.nodes
        new = len(nodes) - first
        children = self.scheduler.children
        self._users.extend([len(one) if one else 0 for one in (children[first:] if first else children)])
        self.values.extend([GONE] * new)
        forever = {number for number in range(first, len(nodes)) if nodes[number].forever}
        self._forever |= forever
        self._only_forever = bool(forever) and len(self._forever) == len(nodes) + self._forgotten
        self._timed = self._timed or any(nodes[number].seconds is not None for number in range(first, len(nodes)))
        self.rank()

    @property
    def runs_forever(self) -> bool:
        """Whether there is nothing here that ends by itself."""
        return self._only_forever

    def number(self, target: Hashable) -> int | None:
        """The number of a target's node; None if it is not here."""
        number = self.numbers.get(target)  # may be the graph's own index, which later graphs may share
        return None if number is None or number >= len(self.nodes) else number

    def outcome(self, target: Hashable) -> Result[Any]:
        """What a target, which is here, ended in.

        Raises:
            UsageError: it has not ended, or its value was dropped.
        """
        return self.result(self.numbers[target], target)

    def result(self, number: int, target: Hashable) -> Result[Any]:
        """What a node, known by a target, ended in; raises as `outcome`."""
        failure = self.failures.get(number)
        if failure is not None:
            return failure
        value = self.values[number]
        if value is not GONE:
            return Ok(value)
        status = self.scheduler.status(number)
        if status == "succeeded":
            raise UsageError(
                f"the value of {target!r} was dropped when nothing needed it any more: orchestrate({target!r}) keeps it"
            )
        raise UsageError(f"{target!r} has not ended: it is {status}")

    # ------------------------------------------------------------------ the step

    def is_active(self) -> bool:
        """Whether any node has not ended."""
        return self.scheduler.left > 0

    def advance(self) -> None:
        """Take a step, unless another thread is inside one: then it will look again."""
        while True:
            if not self._lock.acquire(blocking=False):
                return
            try:
                self._again = False
                self._context.run(self._step)
            finally:
                self._lock.release()
            if self._untold:
                if self.loop is None and get_ident() != self.thread and (self.here or not self.scheduler.left):
                    self.wake()  # an observer that takes its time must not hold up the driver
                self._tell()
            if (
                not self._news and not self._told and not self._back and not self._again
            ):  # none came between the last look and the release
                return

    def _step(self) -> None:
        scheduler, news = self.scheduler, self._news
        while True:
            while self._told:
                self._take_told(self._told.popleft())
            while self._back:
                self._hand_back(self._back.popleft())
            if news and self._batches is not None:
                self._end_plainly()
            while news:
                number = news.popleft()
                if self.loop is None or not scheduler.is_dropped(number):  # dropped when its end was not yet seen
                    self._end(number)
            if scheduler.has_blocked:
                for number in scheduler.blocked():
                    self.failures[number] = self._not_run(number)
                    news.append(number)
                continue
            if self._forever and scheduler.left == len(self._forever) and not self.stopping and not self._only_forever:
                self.stopping = ALL_ENDED
                self.stop_runs()
            if self.stopping:
                self._end_unstarted()
                if not news:
                    return
                continue
            if self._learnt:
                self._rerank()
            ready = scheduler.ready(self.room())
            if self._batches is not None and ready and not self._observed:
                ready = self._batches.begin(ready)
            for number in ready:
                self._start(number)
            if not news and not scheduler.has_blocked and not (self._forever and scheduler.waits and self.room()):
                return

    def room(self) -> int | None:
        """How many nodes may be started now, None for all: those that run forever don't count."""
        if self.window is None:
            return None
        endless = sum(self.scheduler.status(number) == "running" for number in self._forever)
        return max(0, self.window + endless - self.scheduler.running)

    def _start(self, number: int) -> None:
        """Begin a node, or leave it to the driver."""
        node = self.nodes[number]
        call: Any = node.call
        # not in place, where what runs forever would keep the driver
        beside = self.loop is not None or (self._forever and number in self._forever)
        if call.__class__ is FunctionType and not beside and not self._known and not self._aliases:
            self.here.append(number)
        elif number in self._known:
            self._record(number, self._known[number])
            self._news.append(number)
        elif number in self._aliases:
            other = self._aliases[number]
            self._record(number, self.failures.get(other) or Ok(self.values[other]))
            self._news.append(number)
        elif call is None:
            self.values[number] = None
            self._news.append(number)
        elif (where := getattr(type(call), "_where", None)) is None:  # no Task; a Mock would have one
            if not beside:
                self.here.append(number)
            else:
                step = _Step(node)
                if not step.is_async:
                    self._plain.add(number)
                self._submit(number, step, None)
        elif (runner := where(call, self.settings.runner))._in_place:
            self.here.append(number)
        else:
            self._submit(number, call, runner)

    def _submit(self, number: int, task: Any, runner: type[BaseTaskRun[Any]] | None) -> None:
        if self._observed:
            self._note_start(number)
        try:
            run = task._submit(self._arguments(number), runner)
        except BaseException as error:
            self._fail(number, error)
            self._news.append(number)
        else:
            self._adopt(number, run)

    def _arguments(self, number: int) -> tuple[Any, ...]:
        values, numbers, requires = self.values, self.numbers, self.nodes[number].requires
        if self._settled:
            return tuple([values[numbers[target]] for target in requires])
        return tuple([values[need] for need in self._rows[number][: len(requires)]])

    def _adopt(self, number: int, run: BaseTaskRun[Any]) -> None:
        """A node is being carried out by a run."""
        if self._follows:
            _progress.follow(run, self._tell_progress)
        if run._result is None:
            self._runs[run] = number
            if run._pumped:
                self._have_driven(run)
            if run._enlist(self):
                if self.stopping:  # it came while this one was being started
                    _stop_quietly(run)
                return
            self._pumped.discard(run)
            if self._runs.pop(run, None) is None:  # it has been told
                return
        self._take(number, run)
        self._news.append(number)

    def special(self) -> Container[int]:
        """Nodes that are not simply run: those that run forever, and those that the memo knows."""
        return {*self._known, *self._forever} if self._known and self._forever else self._known or self._forever

    def adopt_all(self, crew: Any) -> None:
        """Nodes are about to be carried out by runs that are told of together."""
        driven, self._crewed = self.pumps(), True
        self._runs.update(zip(crew.runs, crew.numbers, strict=True))
        if self.loop is not None:
            self._have_driven(crew.runs[0])
        elif self._calling or self.here:
            for run in crew.runs:
                run._attend()
        elif not driven and get_ident() != self.thread:
            self.wake()

    def _have_driven(self, run: BaseTaskRun[Any]) -> None:
        """See to it that somebody drives the supervisor, which this run needs."""
        if self.loop is not None:
            if self.detach is None:
                self.detach = run._attach(self.loop)
            return
        first = not self._pumped
        self._pumped.add(run)  # first the entry, then the look: `call_here` does it the other way round
        if self._calling or self.here:
            run._attend()
        elif first and get_ident() != self.thread:  # the driver may be asleep where no supervisor is driven
            self.wake()

    def signal(self, run: BaseTaskRun[Any] | None) -> None:
        """A run has ended; called by the thread that learnt it, which goes on with what became ready."""
        if self.loop is not None and not self._settled:  # its number may be another in the next moment
            self._told.append(run)  # type: ignore[arg-type]
        else:
            number = self._runs.pop(run, None)  # type: ignore[arg-type]
            self._pumped.discard(run)
            if number is None or self.scheduler.is_dropped(number):
                return
            self._take(number, run)  # type: ignore[arg-type]
            self._news.append(number)
        self._go_on()

    def _go_on(self) -> None:
        """Something has ended: take a step, or have the loop take it."""
        if self.loop is not None and get_ident() != self.thread:
            self.wake()
            return
        self.advance()
        if self.here or not self.scheduler.left:
            self.wake()

    def signal_all(self, runs: list[BaseTaskRun[Any]], seconds: float) -> None:
        """Runs have ended, each behind those that it needed, after so many seconds each; called as `signal` is."""
        pop, append, values = self._runs.pop, self._news.append, self.values
        for run in runs:
            number = pop(run, None)
            if number is None or (self.loop is not None and self.scheduler.is_dropped(number)):
                continue
            result: Any = run._result
            if result.__class__ is Ok:
                values[number] = result.value
                if self.window is not None:
                    self._learn(run.task, seconds)
            elif result.__class__ is DependencyFailure:  # of one that it needed, in the same message
                self.failures[number] = self._not_run(number)
            else:
                self._record(number, result)
            append(number)
        self._go_on()

    def left_behind(self, runs: list[BaseTaskRun[Any]]) -> None:
        """Runs that were to go along with others have not, and never will; called as `signal` is."""
        for run in runs:
            number = self._runs.pop(run, None)
            if number is not None:
                self._back.append(number)
        self._go_on()

    def _hand_back(self, number: int) -> None:
        """A node starts when its turn comes."""
        if number in self.failures:
            return
        if self.stopping and not self.scheduler.is_dropped(number):
            self.failures[number] = self._stopped_failure(self.nodes[number])
            self._news.append(number)
        else:
            self.scheduler.hand_back(number)

    def _take_told(self, run: BaseTaskRun[Any]) -> None:
        """A run has ended whose number only a step may look up."""
        number = self._runs.pop(run, None)
        if number is not None and not self.scheduler.is_dropped(number):
            self._take(number, run)
            self._news.append(number)

    def _take(self, number: int, run: BaseTaskRun[Any]) -> None:
        """Record what a run ended in."""
        if self._follows and run._progress is not None:
            run._progress.end(run)  # where a run's end is told to nobody, its last report isn't either
        self._record(number, run._result)
        task: Any = run.task
        if task.__class__ is _Step:
            task.close()
        if self.window is not None and run._started:
            self._learn(run.task, run.seconds)

    def _record(self, number: int, result: Any) -> None:
        if result.__class__ is Ok:
            self.values[number] = result.value
        else:
            _unseen.seen(result)  # the engine reports it
            self.failures[number] = result

    def _end_plainly(self) -> None:
        """`_end` for nodes of which nobody but their children wants to know; leaves others in the news."""
        if (
            self.loop is not None
            or self._known
            or self._plain
            or self._observed
            or self._forever
            or self._wants
            or self.stopping
        ):
            return
        news, failures, nodes, numbers = self._news, self.failures, self.nodes, self.numbers
        users, values, done = self._users, self.values, self.scheduler.done
        while news and not failures:  # first it is noted that one has failed, then that it has ended
            number = news.popleft()
            node = nodes[number]
            for target in node.needs if node.after else node.requires:
                need = numbers[target]
                left = users[need] = users[need] - 1
                if not left:
                    values[need] = GONE
            done(number)

    def _end(self, number: int) -> None:
        """A node has ended: tell the scheduler, drop what nobody needs any more."""
        node = self.nodes[number]
        failed = bool(self.failures) and number in self.failures
        if self._plain and number in self._plain:
            self._plain.discard(number)
            if not failed and self._goes_on(number, self.values[number]):
                return
        settings = self.settings
        if settings.follow is not None and not failed and number not in self._aliases:
            target = settings.follow(node, self.values[number])
            if target is not None:
                if self._splice(number, target):
                    if settings.ended is not None:  # its own work is done, whatever becomes of the other
                        settings.ended(node, Ok(self.values[number]))
                    return
                failed = True
        users, values, numbers = self._users, self.values, self.numbers
        if number not in self._known:
            needs = (
                [numbers[target] for target in (node.needs if node.after else node.requires)]
                if self._settled
                else self._rows.pop(number)
            )
            for need in needs:
                left = users[need] = users[need] - 1
                if not left and not self.stopping:  # what was stopped will want them when it is made after all
                    values[need] = GONE
        self.scheduler.done(number, failed=failed)
        if settings.ended is not None:
            settings.ended(node, self.failures[number] if failed else Ok(values[number]))
        if self._observed:
            self._note_end(number)
        if self._forever:
            self._forever.discard(number)
        if number in self._wants:
            for want in self._wants.pop(number):
                self._one_ended(want)
        if failed and (settings.stop_on_failure or node.critical) and not self.stopping:
            self._stop(f"{node.name} failed: {_exceptions.safe_str(self.failures[number])}")

    def _splice(self, number: int, target: Hashable) -> bool:
        """A node's value is that of another target, which may be new; False if that can't be: then the node has failed."""
        try:
            self.want([target])
        except BaseException as error:  # a Finder of somebody's own may raise anything
            self._fail(number, error)
            return False
        other = self.numbers[target]
        way = self._way([other], number)
        if way:
            self._fail(number, CyclicWorkflowError([self.nodes[one].target for one in (number, *way[:-1])]))
            self._released = bool(self._wants)  # what came with the other one may be of no use to anybody
            return False
        self.scheduler.splice(number, other)
        self._aliases[number] = other
        self._known.pop(number, None)
        return True

    def _way(self, starts: Iterable[int], end: int) -> list[int]:
        """The shortest way from one of these nodes to `end`, each waiting for the next; [] if they don't wait for it."""
        came: dict[int, int] = dict.fromkeys(starts, -1)
        todo = deque(came)
        while todo and end not in came:
            number = todo.popleft()
            if self.scheduler.has_ended(number):
                continue
            for need in self._waits_for(number):
                if need not in came:
                    came[need] = number
                    todo.append(need)
        if end not in came:
            return []
        way = [end]
        while came[way[-1]] >= 0:
            way.append(came[way[-1]])
        return way[::-1]

    def _waits_for(self, number: int) -> list[int]:
        """What an unfinished node waits for: what it needs, what it stands for, what its own code waits for."""
        waits = [] if number in self._known else list(self._needs(number))
        if number in self._aliases:
            waits.append(self._aliases[number])
        for want in self._inner.get(number, ()):
            waits.extend(want.numbers)
        return waits

    def _not_run(self, number: int) -> DependencyFailure:
        node = self.nodes[number]
        if number in self._aliases:
            return self.failures[self._aliases[number]]  # type: ignore[return-value]
        causes: dict[Hashable, Failure] = {}
        for target, need in zip(node.needs, self._needs(number), strict=True):
            if need in self.failures:
                label = self.nodes[need].label
                causes[label if label and label not in causes else target] = self.failures[need]
        return DependencyFailure(causes, task=node.name, run=node.name)

    def _fail(self, number: int, error: BaseException) -> None:
        """What a node's own code raised becomes its failure; Ctrl-C goes on to the caller."""
        if _exceptions.is_interrupt(error):
            raise error
        error = error.with_traceback(_exceptions.skip_ours(error.__traceback__))
        if isinstance(error, Failure):
            failure = error
        else:
            text = _exceptions.safe_str(error)
            kind = _exceptions.type_name(type(error))
            failure = TaskFailure(f"{kind}: {text}" if text else kind)
            failure.__cause__ = error
        if not failure.run:
            failure.task = failure.run = self.nodes[number].name
        self.failures[number] = failure

    # ------------------------------------------------------------------ the driver's part

    def call_here(self, deadline: float | None) -> None:
        """Make calls that are the driver's, in place; none is begun after the deadline (monotonic)."""
        calling, self._calling = self._calling, True
        try:
            if self.pumps():
                for run in list(self._runs if self._crewed else self._pumped):  # nobody waits while the driver is busy
                    if run._pumped and not run._attended:
                        run._attend()
            self._call_here(deadline)
        finally:
            self._calling = calling

    def _call_here(self, deadline: float | None) -> None:
        here, news, nodes, values, numbers = self.here, self._news, self.nodes, self.values, self.numbers
        observed = self._observed
        while here:
            if deadline is not None and monotonic() >= deadline:
                return
            number = here.popleft()
            node = nodes[number]
            if self.stopping:
                self.failures[number] = self._stopped_failure(node)
                news.append(number)
                continue
            if observed:
                self._note_start(number)
                self._tell()
            call: Any = node.call
            try:
                if call.__class__ is FunctionType or (where := getattr(type(call), "_where", None)) is None:
                    value = call(*[values[numbers[target]] for target in node.requires])
                else:
                    value = self._submit_here(number, call, where(call, self.settings.runner))
            except BaseException as error:
                try:
                    self._fail(number, error)
                finally:
                    if number not in self.failures:
                        self.failures[number] = self._stopped_failure(node, "interrupted by Ctrl-C")
                    news.append(number)
                if observed or node.critical or self.settings.stop_on_failure:
                    return  # nothing else is begun before a step has told of it, or has stopped the rest
                continue
            kind = value.__class__
            if kind is CoroutineType or is_run(kind):
                self._goes_on(number, value)
                continue
            values[number] = value
            news.append(number)
            if observed:
                return

    def _submit_here(self, number: int, task: Any, runner: Any) -> Any:
        """Have a Task run in place."""
        if not self._follows:
            return task._submit(self._arguments(number), runner)
        token = _progress.here.set((task, self._tell_progress))
        try:
            return task._submit(self._arguments(number), runner)
        finally:
            _progress.here.reset(token)

    def _goes_on(self, number: int, value: Any) -> bool:
        """Whether what a call returned is a coroutine or a run, which is then carried out or waited for in its place."""
        kind = value.__class__
        if kind is CoroutineType:
            self._adopt(number, _Step(self.nodes[number], value)._submit((), None))
        elif is_run(kind):
            self._adopt(number, value)
        else:
            return False
        return True

    def pumps(self) -> bool:
        """Whether whoever waits for this has to drive the supervisor."""
        return bool(self._pumped or (self._crewed and self._runs))

    def look(self) -> None:
        """A wake-up may have been lost (to Ctrl-C): look whether a run has ended, now and then."""
        now = monotonic()
        if now - self._looked < RECHECK / 2:  # whoever drives the supervisor comes by after each of its steps
            return
        self._looked = now
        for run in list(self._runs):
            run._look()
            if run._result is not None and run._crew is None:  # of those in a crew the pool tells again
                self.signal(run)

    # ------------------------------------------------------------------ stopping

    def repair(self) -> None:
        """Ctrl-C may have cut a step short: everything that has not ended is taken up, to be ended.

        A run that was begun and not yet noted is known by its task, and by being the newest: it has to be stopped too.
        """
        if not self._lock.acquire(timeout=_MOST_INSIDE):  # it was taken by the very instruction that Ctrl-C followed
            self._lock = allocate_lock()
            self._lock.acquire()
        try:
            self._take_up()
        finally:
            self._lock.release()

    def _take_up(self) -> None:
        started = set(self.scheduler.seize())
        noted = {*self._runs.values(), *self._news}
        self.here.clear()
        self._back.clear()
        for number in self.scheduler.unfinished():
            if number in noted:
                continue
            node = self.nodes[number]
            if self.values[number] is GONE and number not in self.failures:
                begun = [
                    run
                    for run in list(_process.live)
                    if run not in self._runs and (run.task is node.call or getattr(run.task, "node", None) is node)
                ]
                if number in started and begun:
                    self._adopt(number, max(begun, key=lambda run: run._number))
                    continue
                self.failures[number] = self._stopped_failure(node, "interrupted by Ctrl-C")
            self._news.append(number)

    def halt(self, why: str) -> None:
        """Stop everything; from outside of a step."""
        if not self.stopping:
            self._stop(why)
            self._again = True
            if self.loop is None or get_ident() == self.thread:
                self.advance()
            self.wake()

    def _stop(self, why: str) -> None:
        """Nothing more is started; what runs is asked to end, and the unstarted ends in the next step."""
        self.stopping = why
        self.stop_runs()

    def stop_runs(self) -> None:
        for run in list(self._runs):
            _stop_quietly(run)

    def _end_unstarted(self) -> None:
        """Whatever has not started never will."""
        scheduler = self.scheduler
        for number in scheduler.ready() + scheduler.blocked() + scheduler.release():
            self.failures[number] = self._stopped_failure(self.nodes[number])
            self._end(number)

    def _stopped_failure(self, node: Node, why: str = "") -> StoppedFailure:
        return StoppedFailure(why or f"stopped before it was started: {self.stopping}", task=node.name, run=node.name)

    # ------------------------------------------------------------------ several who wait

    def wait_for(self, targets: Iterable[Hashable], future: Any) -> Want:
        """Have an asyncio future set when these targets, which are taken already, have ended.

        Raises:
            CyclicWorkflowError: a node of this drive asks for what needs the node itself: that would never end.
        """
        numbers = [self.numbers[target] for target in targets]
        run = current.get()
        asking = None if run is None or run._result is not None else self._runs.get(run)
        if asking is not None:
            way = self._way(numbers, asking)
            if way:
                self._released = True
                raise CyclicWorkflowError([self.nodes[one].target for one in (asking, *way[:-1])])
        want = Want(numbers, asking, future)
        for number in {number for number in numbers if not self.scheduler.has_ended(number)}:
            want.left += 1
            self._wants.setdefault(number, []).append(want)
        if not want.left:
            want.asking = None
            self._fulfil(want)
        elif asking is not None:
            self._inner.setdefault(asking, []).append(want)
        return want

    def _one_ended(self, want: Want) -> None:
        """One of those that somebody waits for has ended."""
        want.left -= 1
        if not want.left:
            self._fulfil(want)

    def _fulfil(self, want: Want) -> None:
        """All have ended: take what they ended in at once, it may be forgotten before the waiter's turn comes."""
        failures, values = self.failures, self.values
        want.results = [failures[one] if one in failures else Ok(values[one]) for one in want.numbers]
        if not want.future.done():
            try:
                want.future.set_result(None)
            except RuntimeError:  # its loop is closed: nobody waits there any more
                return

    def release(self, want: Want) -> None:
        """Somebody waits no more, or has what it waited for."""
        if want.asking in self._inner:
            self._inner[want.asking].remove(want)
        if want.left:
            for number in set(want.numbers):
                waiting = self._wants.get(number)
                if waiting is not None and want in waiting:
                    waiting.remove(want)
                    if not waiting:
                        del self._wants[number]
            self._released = True

    def drop(self) -> None:
        """Stop what nobody waits for any more; on the loop, outside of a step."""
        if not self._released or self.stopping:
            return
        self._released = False
        needed: set[int] = set()
        todo = list(self._wants)
        while todo:
            number = todo.pop()
            if number not in needed and not self.scheduler.has_ended(number):
                needed.add(number)
                todo.extend(self._waits_for(number))
        gone = {number for number in self.scheduler.unfinished() if number not in needed}
        self.scheduler.drop(gone)
        numbers = self.numbers
        for number in gone:  # whoever wants one of them again begins anew
            for target in self.nodes[number].produces:
                if numbers.get(target) == number:
                    del numbers[target]
        for run, number in list(self._runs.items()):
            if number in gone:
                _stop_quietly(run)

    # ------------------------------------------------------------------ history

    @property
    def is_history(self) -> bool:
        """Whether most of what is here has ended, and is needed no more."""
        return not self._settled and len(self.nodes) > _HISTORY + _TIMES * max(self.scheduler.left, self._kept)

    def forget(self) -> None:
        """Forget what has ended, but for what somebody unfinished needs, if that is most; on the loop, outside of a step.

        Who wants it again has it looked up anew. The others get new numbers, so none is in anybody's hands meanwhile.
        """
        if not self.is_history or self.stopping or self._calling or not self._lock.acquire(blocking=False):
            return
        try:
            self._forget()
        finally:
            self._lock.release()

    def _forget(self) -> None:
        unfinished = set(self.scheduler.unfinished())
        rows = {number: row for number, row in self._rows.items() if number in unfinished}
        aliases = {number: other for number, other in self._aliases.items() if number in unfinished}
        wants = {want for waiting in self._wants.values() for want in waiting}
        keep = [*aliases.values()]
        for needed in (*rows.values(), *(want.numbers for want in wants)):
            keep.extend(needed)
        total = len(self.nodes)
        old = self.scheduler.compact(keep)
        new = {number: at for at, number in enumerate(old)}
        self._kept = len(old) + len(keep)
        self._forgotten += total - len(old)

        self.nodes = [self.nodes[number] for number in old]
        self.values = [self.values[number] for number in old]
        self._users = [self._users[number] for number in old]
        self._rows = {new[number]: [new[need] for need in row] for number, row in rows.items()}
        self._aliases = {new[number]: new[other] for number, other in aliases.items()}
        self.numbers = {target: new[number] for target, number in self.numbers.items() if number in new}
        self._runs = {run: new[number] for run, number in self._runs.items() if number in new}
        self.failures = {new[number]: failure for number, failure in self.failures.items() if number in new}
        self._known = {new[number]: result for number, result in self._known.items() if number in unfinished}
        self._began = {new[number]: began for number, began in self._began.items() if number in new}
        self._plain = {new[number] for number in self._plain if number in new}
        self._forever = {new[number] for number in self._forever if number in new}
        self._news = deque([new[number] for number in self._news if number in new])
        self.here = deque([new[number] for number in self.here if number in new])
        self._wants = {new[number]: waiting for number, waiting in self._wants.items()}
        for want in wants:
            want.numbers = [new[number] for number in want.numbers]
        inner, self._inner = self._inner, {}
        for asking, waiting in inner.items():
            for want in waiting:
                if want.left and asking in unfinished:
                    want.asking = new[asking]
                    self._inner.setdefault(new[asking], []).append(want)
                else:
                    want.asking = None

    # ------------------------------------------------------------------ order

    def rank(self) -> None:
        """Longest remaining path first, as far as durations are known."""
        nodes = self.nodes
        if not self._timed and not (self.window is not None and _seconds):
            return
        durations = [_known_seconds(node.call) if node.seconds is None else float(node.seconds) for node in nodes]
        if any(durations):
            if self.window is None:  # all at once would leave nothing to choose
                self.window = default_size()
            self.scheduler.rank(durations)

    def _learn(self, task: Any, seconds: float) -> None:
        """Remember how long a task's run took; any thread: the order is the next step's business."""
        if task not in _seconds:
            self._learnt = True
        _seconds[task] = seconds

    def _rerank(self) -> None:
        """The first run of a task may change the order of what waits."""
        self._learnt = False
        if self.scheduler.waits and self._reranks < _RERANKS:
            self._reranks += 1
            self.rank()

    # ------------------------------------------------------------------ telling

    def _note_start(self, number: int) -> None:
        from woflo import events

        self._began[number] = monotonic()
        node = self.nodes[number]
        self._untold.append(events.NodeStarted(node.target, node.name))

    def _note_end(self, number: int) -> None:
        from woflo import events

        node = self.nodes[number]
        began = self._began.pop(number, None)
        seconds = 0.0 if began is None else monotonic() - began
        self._untold.append(events.NodeEnded(node.target, node.name, self.failures.get(number), seconds))

    def wait_until_told(self) -> None:
        """Have everything told, by whichever thread is at it; after the grace of a stop that one is left alone with it."""
        if self._observed:
            if self._lock.acquire(timeout=_MOST_INSIDE):  # the last step may not be over
                self._lock.release()
            if self._telling.acquire(timeout=GRACE):
                self._telling.release()
            self._tell()

    def _tell_progress(self, run: BaseTaskRun[Any], report: Any) -> None:
        """A node's run has said how far it is; whoever observes all runs is told elsewhere."""
        from woflo import events

        self._untold.append(events.RunProgress(*events.names(run), *report))
        if not self._lock.locked():  # else whoever is inside of a step tells after it
            self._tell()

    def _tell(self) -> None:
        """Tell what has happened, in its order, outside of a step."""
        from woflo import events

        observers = self.settings.observers
        while self._untold and self._telling.acquire(blocking=False):
            try:
                while self._untold:
                    event = self._untold.popleft()
                    if not self.settings.silent and event.__class__ is not events.RunProgress:
                        events.emit(event)
                    for observer in tuple(observers):
                        events.call(observer, event, lambda observer=observer: observers.remove(observer))  # type: ignore[misc]
            finally:
                self._telling.release()


class Want:
    """Somebody on the loop who waits for a few of a drive's nodes."""

    __slots__ = ("asking", "future", "left", "numbers", "results")

    def __init__(self, numbers: list[int], asking: int | None, future: Any) -> None:
        self.numbers = numbers  # one per target
        self.asking = asking  # the node in whose code it waits
        self.future = future
        self.left = 0  # how many have not ended
        self.results: list[Result[Any]] = []  # when none is left: what each target ended in


class _Step:
    """A node's callable that is no Task, in the place of one: for the event loop's runner."""

    policy = Policy(0, Exception, 0.0)
    timeout = None
    runner = None
    keeper = None
    simple = True
    _apart = False
    numbers = count(1)

    def __init__(self, node: Node, coroutine: Any = None) -> None:
        self.name = node.name
        self.node = node
        self.coroutine = coroutine
        call: Any = node.call
        if coroutine is None:
            self.fn = call
            code = getattr(getattr(call, "__func__", call), "__code__", None)
            self.is_async = code is not None and bool(code.co_flags & _CO_COROUTINE)
        else:
            self.fn = lambda: coroutine
            self.is_async = True

    def close(self) -> None:
        """Its run has ended: a coroutine that has not begun never will, and is closed, so that Python doesn't warn."""
        coroutine = self.coroutine
        if coroutine is not None and not coroutine.cr_running and not coroutine.cr_suspended:
            coroutine.close()

    def _submit(self, args: tuple[Any, ...], runner: Any) -> BaseTaskRun[Any]:  # noqa: ARG002 - as Task's
        from woflo.runners.asynchronous import AsyncTaskRun

        return AsyncTaskRun.submit(self, args, {}, [])  # type: ignore[arg-type]


def _stop_quietly(run: BaseTaskRun[Any]) -> None:
    try:
        run.stop(wait=False)
    except Exception as error:  # a runner of somebody's own
        _notify.broken(f"stop() of {run.name}", error)


def _known_seconds(call: Any) -> float:
    try:
        return _seconds.get(call, 0.0)
    except TypeError:  # a callable that can't be referred to weakly, or hashed
        return 0.0


def _missing(graph: Any, target: Hashable) -> UsageError:
    known: Iterable[Any] = graph if isinstance(graph, Graph) else ()
    error = unknown_target(target, known)
    users = graph.missing().get(target) if isinstance(graph, Graph) else None
    return UsageError(f"{users[0].name} needs {target!r}, but {error}") if users else error
