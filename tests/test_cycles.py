"""A cycle is found exactly when there is one, it is a shortest one, and it is told before anything runs.

A digraph of four nodes is a number of 16 bits: bit 4·a + b stands for "a needs b". All 65,536 are tried. The oracle is the list
of the 24 cycles that four nodes can have, as such numbers, the shortest first.
"""

from __future__ import annotations

from itertools import combinations, pairwise, permutations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from woflo import CyclicWorkflowError, Graph, Node, _cycles
from woflo._cycles import find_cycle
from woflo.engine import Engine

NODES = range(4)
DIGRAPHS = range(1 << 16)


def bit(one, other):
    return 1 << (4 * one + other)


def edges(way):
    """The bits of a cycle: each needs the next, the last one the first."""
    return sum(bit(one, other) for one, other in pairwise([*way, way[0]]))


CYCLES = [
    ((first, *rest), edges((first, *rest)))
    for length in (1, 2, 3, 4)
    for first in NODES
    for members in combinations(range(first + 1, 4), length - 1)
    for rest in permutations(members)
]
CYCLES.sort(key=lambda cycle: len(cycle[0]))
ROWS = [[need for need in NODES if row >> need & 1] for row in range(16)]


def needs_of(digraph):
    return [ROWS[digraph >> 4 * node & 15] for node in NODES]


def closure(digraph, wanted):
    """The wanted nodes and all that they need, as four bits."""
    while True:
        more = wanted
        for node in NODES:
            if wanted >> node & 1:
                more |= digraph >> 4 * node & 15
        if more == wanted:
            return wanted
        wanted = more


def shortest(digraph):
    """The length of a shortest cycle; 0 if there is none."""
    return next((len(way) for way, mask in CYCLES if digraph & mask == mask), 0)


def only(digraph, nodes):
    """The digraph without what the nodes outside of these need."""
    return sum(digraph & (15 << 4 * node) for node in NODES if nodes >> node & 1)


def is_cycle(needs, way):
    return len(set(way)) == len(way) and all(after in needs[one] for one, after in pairwise([*way, way[0]]))


def test_the_oracle():
    """Four nodes have 4 + 6 + 8 + 6 cycles."""
    assert [sum(len(way) == length for way, _ in CYCLES) for length in (1, 2, 3, 4)] == [4, 6, 8, 6]
    assert len({mask for _, mask in CYCLES}) == 24


def test_every_digraph_of_four_nodes():
    """`find_cycle` gives a shortest cycle of each, in order, or [] where there is none."""
    for digraph in DIGRAPHS:
        needs = needs_of(digraph)
        found = find_cycle(dict(enumerate(needs)))
        assert len(found) == shortest(digraph), (digraph, needs, found)
        assert not found or is_cycle(needs, found), (digraph, needs, found)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)], ids=str)
def test_every_graph_of_four_nodes(order):
    """`topological` raises a shortest cycle of each, or gives an order of all, whatever the order of adding."""
    for digraph in DIGRAPHS[:: 1 if order == (0, 1, 2, 3) else 7]:
        needs = needs_of(digraph)
        graph = Graph([Node(node, None, needs[node]) for node in order])
        length = shortest(digraph)
        try:
            found = [node.target for node in graph.topological()]
        except CyclicWorkflowError as error:
            assert length == len(error.cycle), (digraph, error)  # noqa: PT017 - a context manager for each would be slow
            assert is_cycle(needs, error.cycle), (digraph, error)  # noqa: PT017 - the same
        else:
            assert not length, digraph
            assert sorted(found) == [*NODES]
            assert all(need in found[:at] for at, node in enumerate(found) for need in needs[node]), (digraph, found)


def check_engine(digraph, wanted):
    """The engine's answer to these wanted nodes (four bits) is the oracle's."""
    needs = needs_of(digraph)
    ran = []

    def call(node):
        return lambda *values: ran.append(node) or (node, *values)

    engine = Engine(Graph([Node(node, call(node), needs[node]) for node in NODES]))
    targets = [node for node in NODES if wanted >> node & 1]
    part = closure(digraph, wanted)
    length = shortest(only(digraph, part))
    try:
        assert engine.orchestrate(*targets), engine.why()
    except CyclicWorkflowError as error:
        assert not ran, (digraph, targets, ran)
        assert length == len(error.cycle), (digraph, targets, error)  # noqa: PT017 - the same
        assert is_cycle(needs, error.cycle), (digraph, targets, error)  # noqa: PT017 - the same
    else:
        assert not length, (digraph, targets)
        assert sorted(ran) == [node for node in NODES if part >> node & 1], (digraph, targets, ran)
        assert all(need in ran[:at] for at, node in enumerate(ran) for need in needs[node]), (digraph, targets, ran)
        for node in targets:
            assert engine.value(node) == (node, *(value_of(needs, need) for need in needs[node]))


def value_of(needs, node):
    return (node, *(value_of(needs, need) for need in needs[node]))


def test_invariant_14_a_cycle_is_told_before_anything_runs():
    """The engine refuses exactly when what is wanted needs itself, and then no call was made; else each is made once.

    All digraphs of three nodes with each choice of targets, and all of four nodes with one choice.
    """
    for three in range(1 << 9):
        digraph = sum((three >> 3 * node & 7) << 4 * node for node in range(3))
        for wanted in range(1, 8):
            check_engine(digraph, wanted)
    for digraph in DIGRAPHS:
        check_engine(digraph, digraph % 15 + 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_invariant_14_for_every_choice_of_targets():
    """All digraphs of four nodes with each of the 15 choices of targets."""
    for digraph in DIGRAPHS:
        for wanted in range(1, 16):
            check_engine(digraph, wanted)


def test_a_cycle_that_nobody_wants():
    """A cycle elsewhere in the graph is nobody's concern; asked for everything, it is everybody's."""
    graph = Graph([Node("a", lambda: 1), Node("b", None, ["c"]), Node("c", None, ["b"]), Node("d", None, ["b", "a"])])
    engine = Engine(graph)
    assert engine.orchestrate("a")
    for ask in ((), ("d",), ("a", "c")):
        with pytest.raises(CyclicWorkflowError) as caught:
            engine.orchestrate(*ask)
        assert sorted(caught.value.cycle) == ["b", "c"]
    assert engine.orchestrate("a")


def test_a_cycle_through_order_and_second_names():
    """An `after` and a second name close a cycle as well as a value."""
    graph = Graph([Node(["a", "A"], list, after=["c"]), Node("b", list, ["A"]), Node("c", list, ["b"])])
    for ask in ("a", "A", "b", "c"):
        with pytest.raises(CyclicWorkflowError) as caught:
            Engine(graph).orchestrate(ask)
        assert sorted(caught.value.cycle) == ["a", "b", "c"]


@st.composite
def digraphs(draw):
    """Numbers → what it needs; numbers that are no keys too, and some twice."""
    count = draw(st.integers(1, 25))
    most = draw(st.integers(1, 4))
    return {
        node: draw(st.lists(st.integers(0, count + 2), max_size=most)) for node in draw(st.permutations(range(count)))
    }


@given(digraphs())
def test_random_digraphs(needs):
    """No way from a number back to itself is shorter, says networkx; what isn't a key lies on no cycle."""
    oracle = nx.DiGraph((one, other) for one, row in needs.items() for other in row if other in needs)
    found = find_cycle(needs)
    assert len(found) == girth(oracle)
    assert not found or is_cycle(needs, found)


def girth(graph):
    """The length of a shortest directed cycle: an edge, and the shortest way back."""
    ways = [
        1 + nx.shortest_path_length(graph, other, one) for one, other in graph.edges if nx.has_path(graph, other, one)
    ]
    return min(ways, default=0)


def ring(numbers):
    return {one: [other] for one, other in pairwise([*numbers, numbers[0]])}


def test_a_large_ring():
    """The only cycle of 100,000 numbers is found, and a chord that shortens it."""
    needs = ring(range(100_000))
    assert sorted(find_cycle(needs)) == [*range(100_000)]
    needs[60_000].append(50_000)
    assert sorted(find_cycle(needs)) == [*range(50_000, 60_001)]


def test_a_dense_graph():
    """Among a thousand numbers that all need each other a pair is found; nothing is searched twice that can't be shorter."""
    needs = {one: [other for other in range(1000) if other != one] for one in range(1000)}
    assert len(find_cycle(needs)) == 2


def test_a_dense_graph_whose_cycles_are_long():
    """Layers that all need the next one, the last one the first: the shortest cycle has one number of each."""
    layers, width = 20, 50
    needs = {
        layer * width + at: [(layer + 1) % layers * width + other for other in range(width)]
        for layer in range(layers)
        for at in range(width)
    }
    assert len(find_cycle(needs)) == layers


def test_a_maze_between_two_cycles():
    """What lies between two cycles, on neither, costs no search: the shorter one is found although the maze is huge."""
    width, layers = 100, 500
    maze = {
        layer * width + at: [(layer + 1) * width + (at + step) % width for step in (0, 1, 7)]
        for layer in range(layers)
        for at in range(width)
    }
    end = width * layers
    needs = maze | {end + at: [end + width] for at in range(width)} | ring(range(end + width, end + width + 9))
    needs |= {-1: [-2, *range(width)], -2: [-3], -3: [-1]}
    assert sorted(find_cycle(needs)) == [-3, -2, -1]


def test_out_of_patience(monkeypatch):
    """When the search has taken too long, a cycle that is not the shortest is told: better than none."""
    needs = ring(range(5)) | ring(range(5, 8))
    assert len(find_cycle(needs)) == 3
    monkeypatch.setattr(_cycles, "_BUDGET", 3)
    assert find_cycle(needs) == [0, 1, 2, 3, 4]
