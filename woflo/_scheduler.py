"""Which node may start: a decider. Numbers in, numbers out; no clock, no I/O, no locks, no knowledge of what a node is.

Nodes are numbers, counted from 0 in the order in which they are told. Every walk is a loop: a graph may be as deep as
memory allows. The words are graphlib's where it has them; unlike graphlib's this scheduler can be extended while it is at
work. Whoever uses it from several threads brings the lock.

    extend → waiting → ready ── ready() ──→ running ── done() ──→ succeeded or failed
                     ↘ blocked (something it needed has failed) ── blocked(), done() ──→ failed
    board: waiting → running, before what it needs has ended: it goes along with that, and is carried out behind it
    hand_back: running → waiting, ready or blocked: it has not gone along after all
    splice: running → waiting for one other node, whose value will be its own → ready
    drop: anything unfinished → dropped
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from woflo.errors import InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Cyclic", "Scheduler"]

WAITING, READY, BLOCKED, RUNNING, SUCCEEDED, FAILED, DROPPED = range(7)
_FINAL = SUCCEEDED  # from here on
_WORDS = ("waiting", "waiting", "waiting", "running", "succeeded", "failed", "dropped")


class Cyclic(Exception):  # noqa: N818 - it becomes a CyclicWorkflowError where the targets are known
    """Nodes that need each other: nothing was added.

    Args:
        needs: those that can't be ordered, each with what it needs.
    """

    def __init__(self, needs: dict[int, Sequence[int]]) -> None:
        super().__init__(needs)
        self.needs = needs


class Scheduler:
    """Counts down what each node waits for."""

    __slots__ = (
        "_bad",
        "_blocked",
        "_ordered",
        "_queue",
        "_ranks",
        "_state",
        "_waiting",
        "children",
        "left",
        "running",
    )

    children: list[list[int] | None]  # who counts on a node; None: nobody, or they have been told
    left: int  # how many have not ended
    running: int  # how many are handed out

    def __init__(self) -> None:
        self._state = bytearray()
        self._bad = bytearray()  # 1: something that it needs has failed
        self._waiting: list[int] = []  # how many of those it needs have not ended
        self.children = []
        self._queue: deque[int] | list[tuple[float, int]] = deque()  # those that are ready; a heap once ranks are known
        self._blocked: list[int] = []
        self._ranks: list[float] = []  # seconds from a node's start to the end of the longest path that follows
        self._ordered = True  # whether every node needs earlier ones only
        self.left = 0
        self.running = 0

    def __len__(self) -> int:
        return len(self._state)

    # ------------------------------------------------------------------ telling

    def extend(self, needs: Iterable[Sequence[int]], *, ordered: bool = False) -> None:
        """Add nodes, each given by the numbers of what it needs; those may come later in `needs`, unless it is `ordered`.

        Raises:
            Cyclic: some of them need each other; nothing was added.
            IndexError: a number that no node has; nothing was added, unless it was called `ordered`.
        """
        waiting, children, state, bad = self._waiting, self.children, self._state, self._bad
        first = number = len(state)
        if not ordered:
            needs = rows = list(needs)
            _check(rows, first)
            self._ordered = self._ordered and all(need < first + at for at, row in enumerate(rows) for need in row)
            children.extend([None] * len(rows))
            state.extend(bytes(len(rows)))
            bad.extend(bytes(len(rows)))
        ready: list[int] = []
        for row in needs:
            if ordered:
                children.append(None)
                state.append(WAITING)
                bad.append(0)
            count = 0
            for need in row:
                if state[need] < _FINAL:
                    known = children[need]
                    if known is None:
                        children[need] = [number]
                    else:
                        known.append(number)
                    count += 1
                elif state[need] != SUCCEEDED:
                    bad[number] = 1
            waiting.append(count)
            if not count:
                ready.append(number)
            number += 1
        self.left += number - first
        if isinstance(self._queue, list):
            self._ranks.extend([0.0] * (number - first))
        for one in ready:
            self._freed(one)

    def rank(self, seconds: Sequence[float]) -> None:
        """From now on hand out first what heads the longest path, given how long each node takes (all of them, by number).

        Nodes that are added later count as 0 s until the next call.
        """
        order: Iterable[int] = range(len(self._state) - 1, -1, -1) if self._ordered else reversed(self._topological())
        ranks = list(seconds)
        children, state = self.children, self._state
        for number in order:
            after = children[number]
            if after:
                ranks[number] += max([ranks[child] for child in after if state[child] < _FINAL], default=0.0)
        self._ranks = ranks
        queue = [one if isinstance(one, int) else one[1] for one in self._queue]
        self._queue = [(-ranks[number], number) for number in queue]
        heapify(self._queue)

    def done(self, number: int, *, failed: bool = False) -> None:
        """A node that was handed out has ended, or one that still waits was ended by somebody.

        Nothing happens if it was dropped meanwhile.

        Raises:
            InternalError: it was neither handed out nor waits, or has ended before.
        """
        state = self._state
        if state[number] == RUNNING:
            self.running -= 1
        elif state[number] == DROPPED:
            return
        elif state[number] != WAITING:
            raise InternalError(f"node {number} ended in state {state[number]}")
        state[number] = FAILED if failed else SUCCEEDED
        self.left -= 1
        children = self.children[number]
        if children is None:
            return
        self.children[number] = None
        waiting, bad, queue = self._waiting, self._bad, self._queue
        if failed or self._ranks:
            for child in children:
                if failed:
                    bad[child] = 1
                waiting[child] -= 1
                if not waiting[child]:
                    self._freed(child)
            return
        for child in children:
            left = waiting[child] - 1
            waiting[child] = left
            if not left:
                if bad[child] or state[child]:
                    self._freed(child)
                else:
                    state[child] = READY
                    queue.append(child)  # type: ignore[arg-type]

    def board(self, heads: Sequence[int], most: int, admits: Callable[[int], bool]) -> list[int]:
        """Hand out waiting nodes that need nothing unfinished but these (handed out already) and each other.

        So whoever carries them out in this order has all that they need, whatever becomes of the rest.

        Args:
            heads: where they begin.
            most: at most so many.
            admits: whether a node goes along; asked once about each that could, in the order in which they are carried out.
        """
        children, waiting, state, bad = self.children, self._waiting, self._state, self._bad
        open_needs: dict[int, int] = {}
        found: list[int] = []
        for row in (heads, found):  # the second grows
            for number in row:
                for child in children[number] or ():
                    left = open_needs.get(child) or waiting[child]
                    if left > 1:
                        open_needs[child] = left - 1
                    elif state[child] == WAITING and not bad[child] and len(found) < most and admits(child):
                        state[child] = RUNNING
                        found.append(child)
                if len(found) >= most:
                    break
        self.running += len(found)
        return found

    def hand_back(self, number: int) -> None:
        """A node that was to go along with what it needs does not; nothing happens if it has ended or was dropped."""
        if self._state[number] == RUNNING:
            self.running -= 1
            self._state[number] = WAITING
            if not self._waiting[number]:
                self._freed(number)

    def splice(self, number: int, need: int) -> None:
        """A node that was handed out turns out to stand for another one: it is ready again when that one has ended.

        Nothing happens if it was dropped meanwhile.

        Raises:
            Cyclic: that one needs this one; its `needs` are a shortest way round, and nothing was changed.
            InternalError: it was not handed out.
        """
        if self._state[number] == DROPPED:
            return
        if self._state[number] != RUNNING:
            raise InternalError(f"node {number} can't be spliced in state {self._state[number]}")
        way = [] if self._state[need] >= _FINAL else self._way(need, number)
        if way:
            raise Cyclic({one: [other] for one, other in zip([number, *way[:-1]], way, strict=True)})
        self.running -= 1
        self._state[number] = WAITING
        self._ordered = False
        if self._state[need] >= _FINAL:
            self._bad[number] = self._state[need] != SUCCEEDED
            self._freed(number)
            return
        self._waiting[number] = 1
        known = self.children[need]
        if known is None:
            self.children[need] = [number]
        else:
            known.append(number)

    def drop(self, numbers: Iterable[int]) -> list[int]:
        """Nobody wants these any more, nor anything that needs them; returns those that are running.

        Raises:
            InternalError: something unfinished, and not dropped with them, needs one of them; nothing was changed.
        """
        numbers = list(numbers)
        gone = set(numbers)
        for number in numbers:
            for child in self.children[number] or ():
                if child not in gone and self._state[child] < _FINAL:
                    raise InternalError(f"node {number} is dropped, and node {child} needs it")
        running = []
        for number in numbers:
            state = self._state[number]
            if state < _FINAL:
                if state == RUNNING:
                    self.running -= 1
                    running.append(number)
                self._state[number] = DROPPED
                self.left -= 1
        return running

    def _freed(self, number: int) -> None:
        """Nothing is left that a node waits for."""
        if self._state[number] != WAITING:  # dropped
            return
        if self._bad[number]:
            self._state[number] = BLOCKED
            self._blocked.append(number)
            return
        self._state[number] = READY
        if isinstance(self._queue, deque):
            self._queue.append(number)
        else:
            heappush(self._queue, (-self._ranks[number], number))

    # ------------------------------------------------------------------ asking

    def ready(self, limit: int | None = None) -> list[int]:
        """Hand out nodes that may start, at most `limit`: in the order in which they became ready, or by rank."""
        state, queue = self._state, self._queue
        if limit is None and isinstance(queue, deque):
            taken = [number for number in queue if state[number] == READY]
            queue.clear()
        else:
            taken = []
            while queue and (limit is None or len(taken) < limit):
                number = queue.popleft() if isinstance(queue, deque) else heappop(queue)[1]
                if state[number] == READY:
                    taken.append(number)
        for number in taken:
            state[number] = RUNNING
        self.running += len(taken)
        return taken

    def blocked(self) -> list[int]:
        """Hand out nodes that can't start, because something they need has failed; each is to be told `done(failed=True)`."""
        taken = [number for number in self._blocked if self._state[number] == BLOCKED]
        self._blocked = []
        for number in taken:
            self._state[number] = RUNNING
        self.running += len(taken)
        return taken

    def is_active(self) -> bool:
        """Whether any node has not ended."""
        return self.left > 0

    def release(self) -> list[int]:
        """Hand out everything that still waits, to be ended without having been carried out."""
        taken = [number for number, state in enumerate(self._state) if state == WAITING]
        for number in taken:
            self._state[number] = RUNNING
            self._bad[number] = 1  # so that `validate` knows
        self.running += len(taken)
        return taken

    def seize(self) -> list[int]:
        """Hand out all that has not ended, whatever a step that Ctrl-C cut short has left; returns what was handed out before.

        Nothing is ready or blocked afterwards: everything is to be ended by whoever seizes it.
        """
        before = self.handed_out()
        self._queue, self._ranks, self._blocked = deque(), [], []
        unfinished = self.unfinished()
        for number in unfinished:
            self._state[number] = RUNNING
            self._bad[number] = 1  # so that `validate` knows
        self.left = self.running = len(unfinished)
        return before

    def has_ended(self, number: int) -> bool:
        """Whether a node is done, or dropped."""
        return self._state[number] >= _FINAL

    def is_dropped(self, number: int) -> bool:
        """Whether nobody wants a node any more."""
        return self._state[number] == DROPPED

    def compact(self, keep: Iterable[int] = ()) -> list[int]:
        """Forget the nodes that have ended, but for those to keep; returns the old numbers of the others, by their new ones."""
        kept = set(keep)
        old = [number for number, state in enumerate(self._state) if state < _FINAL or number in kept]
        new = {number: at for at, number in enumerate(old)}
        self.children = [
            None if (after := self.children[number]) is None else [new[child] for child in after if child in new]
            for number in old
        ]
        self._state = bytearray(self._state[number] for number in old)
        self._bad = bytearray(self._bad[number] for number in old)
        self._waiting = [self._waiting[number] for number in old]
        self._blocked = [new[number] for number in self._blocked if number in new]
        if isinstance(self._queue, deque):
            self._queue = deque(new[number] for number in self._queue if number in new)
        else:
            self._queue = [(rank, new[number]) for rank, number in self._queue if number in new]
            heapify(self._queue)
            self._ranks = [self._ranks[number] for number in old]
        return old

    @property
    def has_blocked(self) -> bool:
        """Whether `blocked` has something to hand out."""
        return bool(self._blocked)

    def status(self, number: int) -> str:
        """A node's state in a word: waiting, running, succeeded, failed or dropped."""
        state = self._state[number]
        return _WORDS[WAITING if state == RUNNING and self._waiting[number] and not self._bad[number] else state]

    @property
    def waits(self) -> bool:
        """Whether a node is ready and not handed out: there is a choice to be made."""
        return bool(self._queue)

    def handed_out(self) -> list[int]:
        """The nodes that are handed out and have not ended."""
        return [number for number, state in enumerate(self._state) if state == RUNNING]

    def unfinished(self) -> list[int]:
        """The nodes that have not ended."""
        return [number for number, state in enumerate(self._state) if state < _FINAL]

    def _way(self, number: int, other: int) -> list[int]:
        """A shortest way from `number` to `other`, both included, along what each needs; [] if there is none."""
        came = {other: other}
        reached = [other]
        for one in reached:  # it grows
            if number in came:
                break
            for child in self.children[one] or ():
                if child not in came:
                    came[child] = one
                    reached.append(child)
        if number not in came:
            return []
        way = [number]
        while way[-1] != other:
            way.append(came[way[-1]])
        return way

    def _topological(self) -> list[int]:
        """The unfinished nodes, each behind all that it needs."""
        waiting = list(self._waiting)
        order = [number for number in self.unfinished() if not waiting[number]]
        for number in order:  # it grows
            for child in self.children[number] or ():
                waiting[child] -= 1
                if not waiting[child]:
                    order.append(child)
        return order

    def validate(self) -> None:
        """Check every invariant; for tests, after each step.

        Raises:
            InternalError: one doesn't hold.
        """
        state, total = self._state, len(self._state)
        counted, alone = self._open_needs()
        queue = [one if isinstance(one, int) else one[1] for one in self._queue]
        queued = set(queue)
        for number in range(total):
            if state[number] < _FINAL and self._waiting[number] != counted[number]:
                raise InternalError(f"node {number} waits for {self._waiting[number]}, should be {counted[number]}")
            if state[number] == WAITING and not counted[number]:
                raise InternalError(f"node {number} waits for nothing")
            too_early = counted[number] and not self._bad[number] and (state[number] != RUNNING or number in alone)
            if state[number] in {READY, RUNNING, BLOCKED} and too_early:
                raise InternalError(f"node {number} was freed too early")
            if (state[number] == READY) != (number in queued):
                if number in queued and state[number] == DROPPED:
                    continue
                raise InternalError(f"node {number} in state {state[number]} and the queue disagree")
        if len(queued) != len(queue):
            raise InternalError("a node is in the queue twice")
        if self.left != sum(one < _FINAL for one in state) or self.running != state.count(RUNNING):
            raise InternalError("the counts are wrong")
        if any(self._bad[number] for number in range(total) if state[number] == READY):
            raise InternalError("a node is ready although something that it needs has failed")
        if set(self.unfinished()) & set(self._blocked) != {one for one in range(total) if state[one] == BLOCKED}:
            raise InternalError("what is blocked is not told")
        if self.left and not any(one in {READY, BLOCKED, RUNNING} for one in state):
            raise InternalError("nodes are left, and nothing can go on")

    def _open_needs(self) -> tuple[list[int], set[int]]:
        """By number, how many of those that it needs have not ended; and all that can't go along with what they need."""
        counted, alone = [0] * len(self._state), set()
        for number, children in enumerate(self.children):
            if children and _FINAL <= self._state[number] < DROPPED:
                raise InternalError(f"node {number} has ended and its children were not told")
            for child in children or ():
                if self._state[number] < _FINAL:
                    counted[child] += 1
                    if self._state[number] != RUNNING:
                        alone.add(child)
        return counted, alone


def _check(rows: list[Sequence[int]], first: int) -> None:
    """Raise Cyclic if rows (nodes `first`, `first + 1`, …) need each other; IndexError for an unknown number."""
    total = first + len(rows)
    waiting = []
    children: list[list[int]] = [[] for _ in rows]
    for at, row in enumerate(rows):
        count = 0
        for need in row:
            if not 0 <= need < total:
                raise IndexError(f"node {first + at} needs {need}, which is no node")
            if need >= first:
                children[need - first].append(at)
                count += 1
        waiting.append(count)
    free = [at for at, count in enumerate(waiting) if not count]
    for at in free:  # it grows
        for child in children[at]:
            waiting[child] -= 1
            if not waiting[child]:
                free.append(child)
    if len(free) < len(rows):
        raise Cyclic({first + at: rows[at] for at, count in enumerate(waiting) if count})
