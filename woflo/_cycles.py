"""The shortest cycle of a graph, for the error that names it. Values only."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BUDGET = 5_000_000  # edges looked at in search of a shorter cycle, a few seconds; then the shortest so far is told


class _Knot:
    """What is left of a graph when all that lies on no cycle has been taken away."""

    def __init__(self, needs: Mapping[int, Sequence[int]]) -> None:
        self.needs = needs
        self.users: dict[int, list[int]] = {one: [] for one in needs}
        self.left_needs = dict.fromkeys(needs, 0)
        self.left_users = dict.fromkeys(needs, 0)
        for one, others in needs.items():
            for other in others:
                if other in self.users:
                    self.users[other].append(one)
                    self.left_needs[one] += 1
                    self.left_users[other] += 1
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
                if need in self.left_users:
                    self.left_users[need] -= 1
                    if not self.left_users[need]:
                        todo.append(need)

    def any_cycle(self) -> list[int]:
        """Some cycle, wherever a walk from the first of what is left ends up; [] if nothing is left."""
        at: dict[int, int] = {}
        one = next((one for one in self.needs if one in self.alive), None)
        while one is not None and one not in at:
            at[one] = len(at)
            one = next(need for need in self.needs[one] if need in self.alive)  # there is one, or `take` had taken it
        return [] if one is None else list(at)[at[one] :]

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


def find_cycle(needs: Mapping[int, Sequence[int]]) -> list[int]:
    """The shortest cycle among numbers and what they need, each needing the next; [] if there is none.

    Breadth first from each number, those of the first cycle that is met before all others; one that is done with is taken
    away, and with it whatever then lies on no cycle any more. After `_BUDGET` edges the shortest cycle so far is the answer.

    >>> find_cycle({1: [2], 2: [3], 3: [1, 2]})
    [2, 3]
    """
    knot = _Knot(needs)
    best = knot.any_cycle()
    budget = _BUDGET
    for start in (*best, *needs):
        if len(best) < 2 or budget < 0:
            break
        if start in knot.alive:
            found, looked = knot.shortest_from(start, len(best))
            best = found or best
            budget -= looked
            knot.take([start])
    return best
