"""Node and Graph: what needs what. Values only: nothing here runs, knows time, or knows runs.

A target is any hashable value; a node produces one or more of them and requires others. A Graph maps each target to the one
node that produces it. Graphs are never changed: `add` and `replace` return another graph, which shares its
structure with the first, so that building one node by node takes linear time.

Several threads may ask and edit the same graph at once, without a lock (one could be held by another thread of a process that
forks): what versions share only ever grows, and a version looks no further than its own count.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import islice

from woflo._collector import paused
from woflo._cycles import find_cycle
from woflo._exceptions import safe_str
from woflo.errors import CyclicWorkflowError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
    from typing import Any

    import networkx as nx  # type: ignore[import-untyped, unused-ignore]

__all__ = ["Graph", "Node"]

_HINTED = 10_000  # targets that are compared with an unknown one: some hundredths of a second
_ENDLESS = float("inf")
_UNLIKE = 5  # targets that are named when none is like the unknown one


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
        produces: Hashable | list[Any],
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
            UsageError: no target, a `requires` that is a string or has no order, a call that can't be called, seconds that
                are none. (A Graph refuses targets that can't be hashed.)
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
            if isinstance(requires, (set, frozenset, dict)):
                raise UsageError(
                    f"requires is a list of targets, in the order of the call's arguments, not a {type(requires).__name__}"
                )
            requires = _targets("requires", requires)
        if after.__class__ is not tuple:
            after = _targets("after", after)
        if call is not None and not callable(call):
            raise UsageError(f"{self.target!r} needs something to call, not {type(call).__name__}")
        if seconds is not None and not (isinstance(seconds, (int, float)) and 0 <= seconds < _ENDLESS):
            raise UsageError(f"seconds is a number from 0 up, or None, not {seconds!r}")
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
        return self.label or safe_str(self.target)

    def __repr__(self) -> str:
        needs = f" requires {', '.join(map(safe_str, self.needs))}" if self.needs else ""
        return f"<Node {', '.join(map(safe_str, self.produces))}{needs}>"


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
        """Make a graph of nodes, which may come in any order; the garbage collector rests meanwhile.

        Raises:
            UsageError: two of them produce the same target, or a target can't be hashed.
        """
        index: dict[Hashable, int] = {}
        kept: list[Node] = []
        self._index = index
        self._nodes = kept
        self._replaced = {}
        ordered = True
        try:
            given = iter(nodes)
        except TypeError:
            raise UsageError(f"a graph is made of a list of Nodes, not of {_a(nodes)}") from None
        with paused():
            for node in given:
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
                    if node.others:
                        _check_names(node)
                        for target in node.others:
                            if index.setdefault(target, place) != place:
                                raise _second_producer(target)
                except (TypeError, AttributeError) as error:
                    raise _no_node(node) or _unhashable(node) or error from None
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
            _check_names(node)
            strange = [
                target for target in node.needs if target not in self
            ]  # all are looked at: each has to be hashable
        except (TypeError, AttributeError) as error:
            raise _no_node(node) or _unhashable(node) or error from None
        index, nodes, count = self._index, self._nodes, self._count
        # Lengthened in place, unless another version was: another thread may come between the look and the `append`, and
        # whoever finds its node at this place has won. What the loser appended is nobody's, and makes the winner's line copy.
        lengthened = len(nodes) == count
        if lengthened:
            nodes.append(node)
            lengthened = nodes[count] is node
        if not lengthened:
            index, nodes = self._own()
            nodes.append(node)
        for target in node.produces:
            index[target] = count
        other = Graph.__new__(Graph)
        other._index, other._nodes, other._replaced = index, nodes, self._replaced
        other._count = count + 1
        other._ordered = self._ordered and not strange
        return other

    def _own(self) -> tuple[dict[Hashable, int], list[Node]]:
        """What it shares with other versions, without them."""
        count = self._count
        # The copy of the index is made in one go: another thread may be lengthening it.
        return {target: place for target, place in self._index.copy().items() if place < count}, self._nodes[:count]

    def replace(self, node: Node) -> Graph:
        """This graph with `node` in the place of the nodes that produce its targets.

        Raises:
            UsageError: nothing produces any of its targets, or it would leave a target without a producer.
        """
        try:
            places = {self._index[target] for target in node.produces if target in self}
            _check_names(node)
            needs = [self._index[target] if target in self else self._count for target in node.needs]
        except (TypeError, AttributeError) as error:
            raise _no_node(node) or _unhashable(node) or error from None
        if not places:
            raise UsageError(f"there is nothing to replace: {unknown_target(node.target, self)} `add` adds a node")
        produced = set(node.produces)
        lost = [target for place in sorted(places) for target in self._at(place).produces if target not in produced]
        if lost:
            raise UsageError(
                f"{node!r} would take the place of a node that also produces {_listed(lost)}: let it produce that too"
            )
        if len(places) > 1 or any(target not in self for target in node.produces):
            first = min(places)
            return Graph(
                node if place == first else one
                for place, one in enumerate(self)
                if place == first or place not in places
            )
        (place,) = places
        other = Graph.__new__(Graph)
        other._index, other._nodes, other._count = self._index, self._nodes, self._count
        other._replaced = {**self._replaced, place: node}
        other._ordered = self._ordered and all(need < place for need in needs)
        if len(other._replaced) ** 2 > self._count:  # so that replacing all n nodes, one by one, takes n × √n, not n²
            other._index, _ = self._own()
            other._nodes, other._replaced = list(other), {}
        return other

    # ------------------------------------------------------------------ asking

    def _at(self, place: int) -> Node:
        return self._replaced.get(place) or self._nodes[place]

    def __getitem__(self, target: Hashable) -> Node:
        """The node that produces a target.

        Raises:
            UsageError: nothing does; close matches are named.
        """
        return self._at(self._place(target))

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
            return islice(self._nodes, self._count)  # bounded: the list may grow meanwhile
        return map(self._at, range(self._count))

    def __repr__(self) -> str:
        return f"<Graph of {self._count} node{'s' * (self._count != 1)}>"

    def __reduce__(self) -> tuple[type[Graph], tuple[list[Node]]]:
        return Graph, (list(self),)  # without what other versions have

    @property
    def targets(self) -> list[Hashable]:
        """Everything that is produced."""
        return [target for node in self for target in node.produces]

    def missing(self) -> dict[Hashable, list[Node]]:
        """Targets that are needed and that nothing produces, with the nodes that need them."""
        found: dict[Hashable, list[Node]] = {}
        for node in self:
            for target in dict.fromkeys(node.needs):
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
        ready = [place for place, count in enumerate(waiting) if not count]
        heapify(ready)
        order: list[Node] = []
        while ready:
            place = heappop(ready)
            order.append(self._at(place))
            for user in users[place]:
                waiting[user] -= 1
                if not waiting[user]:
                    heappush(ready, user)
        if len(order) < self._count:
            self._raise_cycle([place for place, count in enumerate(waiting) if count])
        return iter(order)

    def _raise_cycle(self, places: Iterable[int]) -> None:
        cycle = find_cycle(
            {place: [self._index[target] for target in self._at(place).needs if target in self] for place in places}
        )
        raise CyclicWorkflowError([self._at(place).target for place in cycle])

    def to_networkx(self) -> nx.DiGraph[Any]:
        """A `networkx.DiGraph`: targets as nodes (each with its `node`), edges from what is needed to what needs it.

        An edge's `kind` is "value" or, where only the order counts, "after". A target that nothing produces has no `node`.

        Raises:
            ImportError: networkx is not installed (`pip install networkx`).
        """
        import networkx as nx

        graph = nx.DiGraph()
        for node in self:
            graph.add_node(node.target, node=node)
        for node in self:
            for kind, targets in (("after", node.after), ("value", node.requires)):  # a value is an order too
                for target in targets:
                    producer = self.get(target)
                    graph.add_edge(target if producer is None else producer.target, node.target, kind=kind)
        return graph

    def place(self, node: Node) -> int:
        """The place of one of its nodes in the order in which they were added."""
        return self._index[node.target]

    def _place(self, target: Hashable) -> int:
        try:
            place = self._index.get(target)
        except TypeError:
            raise UsageError(f"{_not_hashable(target)}; several targets are several arguments") from None
        if place is None or place >= self._count:
            raise unknown_target(target, self)
        return place

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

    some = {str(one): one for one in islice(known.targets if isinstance(known, Graph) else known, _HINTED)}
    close = get_close_matches(str(target), list(some), n=3)
    if close:
        hint = f" Did you mean {' or '.join(repr(some[name]) for name in close)}?"
    else:
        hint = f" What is produced: {_listed([*some.values()])}." if some else ""
    return UsageError(f"no node produces {target!r}.{hint}")


def _check_names(node: Node) -> None:
    """Raise UsageError if it produces the same target twice."""
    if node.others:
        names = node.produces
        if len(set(names)) != len(names):
            twice = next(name for at, name in enumerate(names) if name in names[:at])
            raise UsageError(f"a node produces {twice!r} twice: name it once")


def _second_producer(target: Hashable) -> UsageError:
    return UsageError(f"{target!r} has a producer already: a target has one; `replace` puts a node in another's place")


def _no_node(given: Any) -> UsageError | None:
    return (
        None
        if isinstance(given, Node)
        else UsageError(f"a graph is made of Nodes, not of {_a(given)}: Node(target, call)")
    )


def _unhashable(node: Node) -> UsageError | None:
    target: Any
    for target in (*node.produces, *node.needs):
        try:
            hash(target)
        except TypeError:
            hint = "; several targets are given as a list" if isinstance(target, (set, dict)) else ""
            return UsageError(_not_hashable(target) + hint)
    return None


def _not_hashable(target: object) -> str:
    return f"a target has to be hashable (a string, a number, a tuple of them …), and {target!r} is not"


def _a(given: object) -> str:
    return f"a single {type(given).__name__}" if isinstance(given, Node) else type(given).__name__


def _listed(targets: Sequence[Hashable]) -> str:
    return ", ".join(map(repr, targets[:_UNLIKE])) + (", …" if len(targets) > _UNLIKE else "")
