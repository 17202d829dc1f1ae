"""Which nodes go to a warm worker together: a node joins those that it needs if it needs nothing else that is unfinished.

    ready ─→ heads, shared out to the workers ─→ + nodes that need only these (`Scheduler.board`) ─→ one message each

So a chain of a thousand short calls is a few messages, and values flow from call to call inside of the worker (and come back).
What goes along is a node of its own in every other respect: it has a run, it ends by itself, and if the worker comes to no good
or to a stop before it, it is handed back and starts when its turn comes, as if nothing had been tried.

Only short calls without time-out, retries and keeper, with nobody who observes, go together; which ones those are the runner
knows (`BaseTaskRun._together`). This file knows neither processes nor bytes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from woflo._drive import Drive

_NOTHING: Any = object()
_PARALLEL_NS = 100_000  # what it takes, about, to have another worker begin with something
_CHEAP_NS = 5_000  # a call that takes less takes more here than there: a second worker would wait for this process …
_MANY = 32  # … and of so many nodes, parted, fewer children would find all that they need in one place


class Batches:
    """What a drive sends together. Used inside a step only."""

    __slots__ = ("_calls", "_drive", "_usable")

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._calls: dict[int, Any] = {}  # by a call's id: the runner that can take several of them, or None
        self._usable: dict[int, Any] = {}  # by a call's id, in this step: what its runner keeps of it, or None

    def begin(self, numbers: list[int]) -> list[int]:
        """Begin those of the nodes that are worth it, with what goes along; returns the others."""
        drive, usable = self._drive, self._usable
        nodes = drive.nodes
        usable.clear()
        others: list[int] = []
        carriers: dict[Any, list[int]] = {}
        alone = drive.special()
        for number in numbers:
            key = id(nodes[number].call)
            function = usable.get(key, _NOTHING)
            if function is _NOTHING:
                function = self._look_up(nodes[number].call)
            if function is None or number in alone:
                others.append(number)
            else:
                carriers.setdefault(function.pool, []).append(number)
        for carrier, heads in carriers.items():
            idle = max(carrier.idle(), 1)
            share = -(-len(heads) // idle)
            if (
                len(heads) >= _MANY
                and max(usable[id(nodes[number].call)].mean_ns for number in heads[:_MANY]) < _CHEAP_NS
            ):
                share = len(heads)
            for at in range(0, len(heads), share):
                others += self._send(carrier, heads[at : at + share], _PARALLEL_NS if len(heads) < idle else 0)
        return others

    def _look_up(self, call: Any) -> Any:
        """What a call's runner keeps of it, if it may go with others now."""
        key = id(call)
        runner = self._calls.get(key, _NOTHING)
        if runner is _NOTHING:
            where = getattr(type(call), "_where", None)
            runner = None if where is None else where(call, self._drive.settings.runner)
            if runner is not None and not runner._batches(call):
                runner = None
            self._calls[key] = runner
        found = self._usable[key] = None if runner is None else runner._together(call)
        return found

    def _send(self, carrier: Any, heads: list[int], parallel_ns: int) -> list[int]:
        """Begin some nodes, and what goes along; returns those that have to begin by themselves.

        Args:
            carrier: the pool.
            heads: the nodes.
            parallel_ns: while others are idle: how much may go along that they could do at the same time; 0: they aren't.
        """
        drive, usable = self._drive, self._usable
        nodes, numbers, values = drive.nodes, drive.numbers, drive.values
        crew = carrier.crew(drive)
        alone: list[int] = []
        own: list[int] = []
        for number in heads:
            node = nodes[number]
            args = tuple([values[numbers[target]] for target in node.requires])
            (own if crew.add(usable[id(node.call)], node, number, args) else alone).append(number)
        if not own:
            return alone
        special = drive.special()
        take = crew.taker(numbers, values)
        ends: dict[Any, int] = {}  # by target, how long the longest way to its end takes, ns
        longest = total = 0

        def admits(number: int) -> bool:
            nonlocal longest, total
            node = nodes[number]
            call = node.call
            function = usable.get(id(call), _NOTHING)
            if function is _NOTHING:
                function = self._look_up(call)
            if function is None or function.pool is not carrier or number in special:
                return False
            if parallel_ns:
                mean, requires = function.mean_ns, node.requires
                if len(requires) == 1 and not node.after:
                    end = mean + ends.get(requires[0], 0)
                else:
                    end = mean + max([ends.get(need, 0) for need in (node.needs if node.after else requires)])
                total += mean
                if end > longest:  # noqa: PLR1730 - a call of max() takes longer than all of this
                    longest = end
                if total - longest > parallel_ns:
                    return False
                for target in node.produces if node.others else (node.target,):
                    ends[target] = end
            return take(function, node, number)  # type: ignore[no-any-return]

        room = crew.room if drive.window is None else drive.room() or 0
        drive.scheduler.board(own, min(room, crew.room), admits)
        drive.adopt_all(crew)
        crew.launch()
        if drive.stopping:  # it came while these were being sent
            drive.stop_runs()
        return alone
