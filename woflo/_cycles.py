"""The shortest cycle of a graph, for the error that names it. Values only."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BUDGET = 5_000_000  # edges looked at in search of a shorter cycle, a few seconds; then the shortest so far is told


class _Knot:
    """What is left of a graph when all that lies on no cycle has been taken away."""

    def __init__(self, needs: Mapping[int, Sequence[int]]) -> None:
        part = _components(needs)
        # An edge from one component into another lies on no cycle: a maze between two cycles is not searched.
        self.needs = {one: [other for other in row if part.get(other) == part[one]] for one, row in needs.items()}
        self.users = _turned(self.needs)
        self.left_needs = {one: len(row) for one, row in self.needs.items()}
        self.left_users = {one: len(row) for one, row in self.users.items()}
        self.alive = set(needs)
        self.take([one for one in needs if not self.left_needs[one] or not self.left_users[one]])

    def take(self, todo: list[int]) -> None:
        """Take these away, and whatever then needs nothing or is needed by nothing."""
        while todo:
            gone = todo.pop()
            if gone not in self.alive:
                continue
            self.alive.discard(gone)
            for user in self.users[gone]:
                self.left_needs[user] -= 1
                if not self.left_needs[user]:
                    todo.append(user)
            for need in self.needs[gone]:
                self.left_users[need] -= 1
                if not self.left_users[need]:
                    todo.append(need)

    def shortest_from(self, start: int, below: int) -> tuple[list[int], int]:
        """The shortest cycle through `start`, if it has fewer than `below` numbers, and how many edges were looked at."""
        came: dict[int, int] = {}
        edge, length, looked = [start], 0, 0
        while edge and length + 1 < below and start not in came:
            length += 1
            further: list[int] = []
            for one in edge:
                for need in self.needs[one]:
                    looked += 1
                    if need in self.alive and need not in came:
                        came[need] = one
                        further.append(need)
            edge = further
        if start not in came:
            return [], looked
        way = [came[start]]
        while way[-1] != start:
            way.append(came[way[-1]])
        return way[::-1], looked


def _components(needs: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Number → a number that stands for all those that it needs and that need it, directly or not.

    Source: Kosaraju's algorithm (M. Sharir, 1981): the walk back along the edges, from whatever a walk along them left last.
    """
    left: list[int] = []
    seen: set[int] = set()
    for root in needs:
        if root in seen:
            continue
        seen.add(root)
        way = [(root, iter(needs[root]))]
        while way:
            one, rest = way[-1]
            for other in rest:
                if other in needs and other not in seen:
                    seen.add(other)
                    way.append((other, iter(needs[other])))
                    break
            else:
                way.pop()
                left.append(one)
    users = _turned(needs)
    found: dict[int, int] = {}
    for root in reversed(left):
        todo = [root]
        while todo:
            one = todo.pop()
            if one not in found:
                found[one] = root
                todo.extend(users[one])
    return found


def _turned(needs: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
    """Who needs each."""
    users: dict[int, list[int]] = {one: [] for one in needs}
    for one, others in needs.items():
        for other in others:
            if other in users:
                users[other].append(one)
    return users


def find_cycle(needs: Mapping[int, Sequence[int]]) -> list[int]:
    """A shortest cycle among numbers and what they need, each needing the next; [] if there is none.

    Breadth first from each number; one that is done with is taken away, and with it whatever then lies on no cycle
    any more. After `_BUDGET` edges the shortest cycle so far is the answer.

    >>> find_cycle({1: [2], 2: [3], 3: [1, 2]})
    [2, 3]
    """
    knot = _Knot(needs)
    best: list[int] = []
    budget = _BUDGET
    for start in needs:
        if start in knot.alive:
            found, looked = knot.shortest_from(start, len(best) if best else len(needs) + 1)
            best = found or best
            budget -= looked
            if len(best) == 1 or budget < 0:
                break
            knot.take([start])
    return best
