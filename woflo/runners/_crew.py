"""Calls of a graph that go to a worker in one message, some with the results of others in it.

A call that needs results of its message is a *rider*: `(function, number, arguments, places)`, where a byte of `places` says for
each node that it needs which call of the message that is (or ENDED), then the call with the arguments that are known, if any.
The worker keeps each result until the message ends, as it was sent, so that whoever uses it has a copy of its own
(`_pool_worker`). What of a message isn't carried out the pool sends again, except for riders: only their drive can, when the
values are there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from woflo.runners import _arena, _inputs, _process, _shipping
from woflo.runners._ring import CALLS

try:
    from _pickle import dumps
except ImportError:
    from pickle import dumps

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from woflo.runners._message import Function
    from woflo.runners._pool import Pool

ENDED = CALLS - 1  # stands for what has ended before: no call needs the last one of its message
BUDGET_NS = 1_000_000  # predicted run time of a message: what a short call may have to wait behind
MESSAGE_BYTES = 32_768  # of calls in a message; more in one call: a memfd
# Flags of a run: it is told with its crew; it needs results of its message; of those who are bound together by that it is
# the first, or another one.
MEMBER, RIDER, FIRST, GLUED = 16, 32, 64, 128
_RIDER_BYTES = 24  # of a rider's call, about
_PLAIN = _inputs.PLAIN
_NONE: dict[str, Any] = {}
_new = object.__new__


class Crew(list):  # type: ignore[type-arg]
    """Runs that are sent and told of together; in the place of each one's list of waiters, with the drive in it."""

    __slots__ = ("_bytes", "_left_ns", "_places", "_pool", "_runner", "numbers", "runs", "size", "watched")

    def __init__(self, drive: Any, pool: Pool) -> None:
        super().__init__((drive,))
        self.runs: list[Any] = []
        self.numbers: list[int] = []  # of the runs' nodes
        self.watched = drive.loop is None  # by a thread that pumps until all have ended
        self.size = 0  # how many were sent together
        self._pool = pool
        self._runner = pool.runner
        self._places: dict[Any, int] = {}  # by target: its node's place in the message
        self._left_ns = BUDGET_NS
        self._bytes = 0

    def add(self, function: Function, node: Any, number: int, args: tuple[Any, ...]) -> bool:
        """Take a node that has all its values; False if its call can't go with others."""
        task, runs = node.call, self.runs
        order = next(task.numbers)
        blob = _packed(function.number, order, args)
        if blob is None or len(blob) > MESSAGE_BYTES:
            return False
        run = _new(self._runner)
        run._number = order
        run._blob = blob
        run.task = task
        run._owner = _process.mark
        run._function = function
        run._attended = run._stop_asked = False
        run._flags = MEMBER
        run._result = None
        run._waiters = run._crew = self
        self._places[node.target] = len(runs)
        if node.others:
            self._places.update(dict.fromkeys(node.others, len(runs)))
        runs.append(run)
        self.numbers.append(number)
        self._bytes += len(blob)
        self._left_ns -= function.mean_ns
        return True

    def taker(self, numbers: dict[Any, int], values: list[Any]) -> Callable[[Function, Any, int], bool]:
        """What takes a node (what the pool keeps of its call, the node, its number) that needs others of this message.

        It returns False if that can't be.

        Args:
            numbers: of all nodes, by target.
            values: of all nodes that have ended, by number.
        """
        places, runs, runner, owner, size, left = (
            self._places,
            self.runs,
            self._runner,
            _process.mark,
            self._bytes,
            self._left_ns,
        )
        append, note, flags, crew = runs.append, self.numbers.append, MEMBER | RIDER | GLUED, self

        def take(function: Function, node: Any, number: int) -> bool:
            nonlocal left, size
            if left < function.mean_ns or size > MESSAGE_BYTES:
                return False
            call, requires, here = node.call, node.requires, len(runs)
            order = next(call.numbers)
            needs = node.needs if node.after else requires
            where = bytes([places.get(target, ENDED) for target in needs])
            blob: Any = (function.number, order, len(requires), where)
            if ENDED in where:
                args = [None if target in places else values[numbers[target]] for target in requires]
                known = _packed(function.number, order, tuple(args))
                if known is None or len(known) > MESSAGE_BYTES:
                    return False
                blob = (*blob, known)
                size += len(known)
            size += _RIDER_BYTES
            left -= function.mean_ns
            run = _new(runner)
            run._number = order
            run._blob = blob
            run.task = call
            run._owner = owner
            run._function = function
            run._attended = run._stop_asked = False
            run._flags = flags
            run._result = None
            run._waiters = run._crew = crew
            places[node.target] = here
            if node.others:
                places.update(dict.fromkeys(node.others, here))
            append(run)
            note(number)
            return True

        return take

    @property
    def room(self) -> int:
        """For how many more nodes there are entries in a message."""
        return CALLS - len(self.runs)

    def launch(self) -> None:
        """Send all, in one message if some need others."""
        runs = self.runs
        _process.live.update(runs)
        if runs[-1]._flags & RIDER:
            for run in runs:
                if run._flags & RIDER:
                    break
                run._flags = MEMBER | GLUED
            runs[0]._flags = MEMBER | FIRST
        self.size = len(runs)
        self.runs, self.numbers = [], []  # they hold this crew, so it must not hold them
        self._pool.staged.extend(runs)  # in one piece: no other thread's call gets in between
        self._pool.advance()


def _packed(function: int, order: int, args: tuple[Any, ...]) -> bytes | None:
    """A call as bytes; None if it has to go by itself."""
    call = (function, order, args, _NONE)
    for one in args:
        if one.__class__ not in _PLAIN:
            break
    else:
        return dumps(call, 5)
    try:
        blob, buffers = _arena.split(call)
        if b"__main__" in blob:
            blob, buffers = _arena.split(call, _shipping._by_value)
    except Exception:  # it will be said when it is sent by itself
        return None
    return None if buffers else blob
