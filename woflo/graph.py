"""Node and Graph: what needs what. Values only: nothing here runs, knows time, or knows runs.

A target is any hashable value; a node produces one or more of them and requires others. A Graph maps each target to the one
node that produces it. Graphs are never changed: `add` and `replace` return another graph, which shares its
structure with the first, so that building one node by node takes linear time.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque

from woflo._cycles import find_cycle
from woflo.errors import CyclicWorkflowError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator
    from typing import Any

    import networkx as nx  # type: ignore[import-untyped, unused-ignore]

__all__ = ["Graph", "Node"]

_growing = allocate_lock()  # held while a graph is being lengthened in place


class Node:
    """A unit of scheduling: the targets it produces and requires, and a call.

    Attributes:
        target: the (first) target it produces.
        others: further names of the same value; usually empty.
        call: what makes the value, called with one positional argument per required target, in their order: a Task
            (its runner carries it out) or any callable; None if the node only stands for others.
        requires: the targets whose values it is given.
        after: targets that must have succeeded before it starts; their values aren't passed.
        seconds: how long it is expected to take; None: unknown.
        volatile: never reuse its value, make it anew each time it is needed.
        forever: does not end by itself; it is stopped when all others have ended.
        critical: when it fails, everything else is stopped.
        label: what people call it; the target if empty.
    """

    __slots__ = ("after", "call", "critical", "forever", "label", "others", "requires", "seconds", "target", "volatile")

    target: Hashable
    others: tuple[Hashable, ...]
    call: Callable[..., Any] | None
    requires: tuple[Hashable, ...]
    after: tuple[Hashable, ...]
    seconds: float | None
    volatile: bool
    forever: bool
    critical: bool
    label: str

    def __init__(
        self,
        produces: Hashable | list[Hashable],
        call: Callable[..., Any] | None = None,
        requires: Iterable[Hashable] = (),
        *,
        after: Iterable[Hashable] = (),
        seconds: float | None = None,
        volatile: bool = False,
        forever: bool = False,
        critical: bool = False,
        label: str = "",
    ) -> None:
        """Describe a node.

        Args:
            produces: the target; a list of targets, if its value has several names.
            call: a Task or any callable, called with the values of `requires`.
            requires: the targets whose values `call` is given.
            after: targets that must have succeeded before, without their values.
            seconds: expected duration; where durations are known, the longest remaining path goes first.
            volatile: never reuse its value.
            forever: does not end by itself; stopped when all others have ended.
            critical: when it fails, everything else is stopped.
            label: what people call it.

        Raises:
            UsageError: no target, one that can't be hashed, a `requires` that is a string, a call that can't be called.
        """
        if isinstance(produces, list):
            if not produces:
                raise UsageError("a node produces at least one target")
            self.target = produces[0]
            self.others = tuple(produces[1:])
        else:
            self.target = produces
            self.others = ()
        if requires.__class__ is not tuple:
            requires = _targets("requires", requires)
        if after.__class__ is not tuple:
            after = _targets("after", after)
        if call is not None and not callable(call):
            raise UsageError(f"{self.target!r} needs something to call, not {type(call).__name__}")
        self.call = call
        self.requires = requires
        self.after = after
        self.seconds = seconds
        self.volatile = volatile
        self.forever = forever
        self.critical = critical
        self.label = label

    @property
    def produces(self) -> tuple[Hashable, ...]:
        """All targets that it produces: names of one value."""
        return (self.target, *self.others)

    @property
    def needs(self) -> tuple[Hashable, ...]:
        """All targets that must come before it: `requires`, then `after`."""
        return self.requires + self.after if self.after else self.requires

    @property
    def name(self) -> str:
        """Its label, or its target as text."""
        return self.label or str(self.target)

    def __repr__(self) -> str:
        needs = f" requires {', '.join(map(str, self.needs))}" if self.needs else ""
        return f"<Node {', '.join(map(str, self.produces))}{needs}>"


def _targets(what: str, given: Any) -> tuple[Hashable, ...]:
    if isinstance(given, (str, bytes)):
        raise UsageError(f"{what} is a list of targets, not the single {given!r}: write [{given!r}]")
    try:
        return tuple(given)
    except TypeError:
        raise UsageError(f"{what} is a list of targets, not {type(given).__name__}") from None


class Graph:
    """Targets and the nodes that produce them; a value, edited by copy.

    >>> graph = Graph([Node("a", lambda: 2), Node("b", lambda a: a + 1, ["a"])])
    >>> [node.target for node in graph.topological()]
    ['a', 'b']
    >>> "c" in graph, "c" in graph.add(Node("c", None, ["b"]))
    (False, True)
    """

    __slots__ = ("_count", "_index", "_nodes", "_ordered", "_replaced")

    _index: dict[
        Hashable, int
    ]  # target -> the place of its node; may hold later versions' targets, at places >= _count
    _nodes: list[Node]  # by place; may be longer than _count: then it was lengthened by a later version
    _count: int
    _ordered: bool  # every node stands behind those that it needs: no cycle, and the order is a topological one
    _replaced: dict[int, Node]

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        """Make a graph of nodes, which may come in any order.

        Raises:
            UsageError: two of them produce the same target, or a target can't be hashed.
        """
        index: dict[Hashable, int] = {}
        kept: list[Node] = []
        self._index = index
        self._nodes = kept
        self._replaced = {}
        ordered = True
        for node in nodes:
            place = len(kept)
            try:
                for target in node.requires:
                    if target not in index:
                        ordered = False
                for target in node.after:
                    if target not in index:
                        ordered = False
                if index.setdefault(node.target, place) != place:
                    raise _second_producer(node.target)
                for target in node.others:
                    if index.setdefault(target, place) != place or target == node.target:
                        raise _second_producer(target)
            except TypeError:
                raise _unhashable(node) from None
            except AttributeError:
                raise UsageError(f"a graph is made of Nodes, not of {type(node).__name__}") from None
            kept.append(node)
        self._ordered = ordered
        self._count = len(kept)

    # ------------------------------------------------------------------ editing

    def add(self, node: Node) -> Graph:
        """This graph with one node more.

        Raises:
            UsageError: one of its targets has a producer; `replace` puts a node in another's place.
        """
        try:
            for target in node.produces:
                if target in self:
                    raise _second_producer(target)
            known = all(target in self for target in node.needs)
        except TypeError:
            raise _unhashable(node) from None
        if len(set(node.produces)) != len(node.produces):
            raise _second_producer(next(one for one in node.produces if node.produces.count(one) > 1))
        with _growing:
            index, nodes = self._index, self._nodes
            if len(nodes) != self._count:  # lengthened by another graph: this one goes its own way
                nodes = nodes[: self._count]
                index = {target: place for target, place in index.items() if place < self._count}
            other = Graph.__new__(Graph)
            other._index, other._nodes, other._replaced = index, nodes, self._replaced
            for target in node.produces:
                index[target] = self._count
            nodes.append(node)
            other._count = self._count + 1
            other._ordered = self._ordered and known
        return other

    def replace(self, node: Node) -> Graph:
        """This graph with `node` in the place of the nodes that produce its targets.

        Raises:
            UsageError: nothing produces any of its targets, or it would leave a target without a producer.
        """
        places = {self._index[target] for target in node.produces if target in self}
        if not places:
            raise unknown_target(node.target, self)
        lost = [
            target for place in sorted(places) for target in self._at(place).produces if target not in node.produces
        ]
        if lost:
            raise UsageError(f"{node!r} would take the place of a node that also produces {_listed(lost)}")
        if len(places) > 1 or any(target not in self for target in node.produces):
            first = min(places)
            kept = [
                node if place == first else self._at(place)
                for place in range(self._count)
                if place == first or place not in places
            ]
            return Graph(kept)
        (place,) = places
        other = Graph.__new__(Graph)
        other._index, other._nodes, other._count = self._index, self._nodes, self._count
        other._replaced = {**self._replaced, place: node}
        other._ordered = self._ordered and all(target in self and self._index[target] < place for target in node.needs)
        return other

    # ------------------------------------------------------------------ asking

    def _at(self, place: int) -> Node:
        return self._replaced.get(place) or self._nodes[place]

    def __getitem__(self, target: Hashable) -> Node:
        """The node that produces a target.

        Raises:
            UsageError: nothing does; close matches are named.
        """
        place = self._index.get(target)
        if place is None or place >= self._count:
            raise unknown_target(target, self)
        return self._at(place)

    def get(self, target: Hashable) -> Node | None:
        """The node that produces a target; None if nothing does."""
        place = self._index.get(target)
        return None if place is None or place >= self._count else self._at(place)

    def __contains__(self, target: object) -> bool:
        place = self._index.get(target)
        return place is not None and place < self._count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Node]:
        """The nodes, in the order in which they were added."""
        if not self._replaced:
            return iter(self._nodes if len(self._nodes) == self._count else self._nodes[: self._count])
        return map(self._at, range(self._count))

    def __repr__(self) -> str:
        return f"<Graph of {self._count} node{'s' * (self._count != 1)}>"

    @property
    def targets(self) -> list[Hashable]:
        """Everything that is produced."""
        return [target for node in self for target in node.produces]

    def missing(self) -> dict[Hashable, list[Node]]:
        """Targets that are needed and that nothing produces, with the nodes that need them."""
        found: dict[Hashable, list[Node]] = {}
        for node in self:
            for target in node.needs:
                if target not in self:
                    found.setdefault(target, []).append(node)
        return found

    def ancestors(self, *targets: Hashable) -> list[Node]:
        """The nodes that these targets need, directly or not, without their own; in the order they were added.

        Raises:
            UsageError: nothing produces one of the targets.
        """
        own = {self._place(target) for target in targets}
        found: set[int] = set()
        todo = list(own)
        while todo:
            for need in self._at(todo.pop()).needs:
                if need in self and (place := self._index[need]) not in found:
                    found.add(place)
                    todo.append(place)
        return [self._at(place) for place in sorted(found - own)]

    def descendants(self, *targets: Hashable) -> list[Node]:
        """The nodes that need these targets, directly or not, without their own; in the order they were added.

        Raises:
            UsageError: nothing produces one of the targets.
        """
        own = {self._place(target) for target in targets}
        users = self._users()
        found: set[int] = set()
        todo = list(own)
        while todo:
            for place in users[todo.pop()]:
                if place not in found:
                    found.add(place)
                    todo.append(place)
        return [self._at(place) for place in sorted(found - own)]

    def roots(self) -> list[Node]:
        """The nodes that need nothing of this graph: where it begins."""
        return [node for node in self if not any(target in self for target in node.needs)]

    def leaves(self) -> list[Node]:
        """The nodes that nothing in this graph needs: where it ends."""
        needed = {self._index[target] for node in self for target in node.needs if target in self}
        return [self._at(place) for place in range(self._count) if place not in needed]

    def subgraph(self, *targets: Hashable) -> Graph:
        """The graph of these targets' nodes and all that they need."""
        places = {self._place(target) for target in targets}
        places.update(self._place(node.target) for node in self.ancestors(*targets))
        return Graph(self._at(place) for place in sorted(places))

    def topological(self) -> Iterator[Node]:
        """The nodes, each after all that it needs; among those that could come next, in the order they were added.

        Raises:
            CyclicWorkflowError: there is no such order; it holds the shortest cycle.
        """
        if self._ordered:
            return iter(self)
        users = self._users()
        waiting = [sum(target in self for target in node.needs) for node in self]
        ready = deque(place for place, count in enumerate(waiting) if not count)
        order: list[Node] = []
        while ready:
            place = ready.popleft()
            order.append(self._at(place))
            for user in users[place]:
                waiting[user] -= 1
                if not waiting[user]:
                    ready.append(user)
        if len(order) < self._count:
            self._raise_cycle([place for place, count in enumerate(waiting) if count])
        return iter(order)

    def _raise_cycle(self, places: Iterable[int]) -> None:
        cycle = find_cycle(
            {place: [self._index[target] for target in self._at(place).needs if target in self] for place in places}
        )
        raise CyclicWorkflowError([self._at(place).target for place in cycle])

    def to_networkx(self) -> nx.DiGraph:
        """A `networkx.DiGraph`: targets as nodes (each with its `node`), edges from what is needed to what needs it.

        Raises:
            ImportError: networkx is not installed (`pip install networkx`).
        """
        import networkx as nx

        graph = nx.DiGraph()
        for node in self:
            graph.add_node(node.target, node=node)
        for node in self:
            for kind, targets in (("value", node.requires), ("after", node.after)):
                for target in targets:
                    producer = self.get(target)
                    graph.add_edge(target if producer is None else producer.target, node.target, kind=kind)
        return graph

    def place(self, node: Node) -> int:
        """The place of one of its nodes in the order in which they were added."""
        return self._index[node.target]

    def _place(self, target: Hashable) -> int:
        if target not in self:
            raise unknown_target(target, self)
        return self._index[target]

    def _users(self) -> list[list[int]]:
        users: list[list[int]] = [[] for _ in range(self._count)]
        for place, node in enumerate(self):
            for target in node.needs:
                if target in self:
                    users[self._index[target]].append(place)
        return users


def unknown_target(target: Hashable, known: Iterable[Any]) -> UsageError:
    """What to say of a target that nothing produces, with close matches."""
    from difflib import get_close_matches

    names = [str(one) for one in (known.targets if isinstance(known, Graph) else known)]
    close = get_close_matches(str(target), names[:10_000], n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return UsageError(f"no node produces {target!r}.{hint}")


def _second_producer(target: Hashable) -> UsageError:
    return UsageError(f"{target!r} has a producer already: a target has one; `replace` puts a node in another's place")


def _unhashable(node: Node) -> UsageError:
    for target in (*node.produces, *node.needs):
        try:
            hash(target)
        except TypeError:
            return UsageError(f"a target has to be hashable, and {target!r} is not")
    return UsageError(f"{node!r} has a target that can't be compared")


def _listed(targets: Iterable[Hashable]) -> str:
    return ", ".join(map(repr, targets))
