"""What needs what: built, edited by copy, and asked; networkx is the oracle of the walks."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from woflo import CyclicWorkflowError, Graph, Node, UsageError
from woflo.testing import PATIENCE


def targets(nodes):
    """What these nodes produce, in their order."""
    return [node.target for node in nodes]


def graph_of(needs):
    """A graph of bare nodes, from target → what it needs."""
    return Graph(Node(target, None, needed) for target, needed in needs.items())


DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self):
        return "<unhashable>"


# ------------------------------------------------------------------ Node


def test_a_node_is_what_it_was_told():
    """Each argument is an attribute; targets come as tuples."""
    node = Node(
        ["a", "b"], max, ["c", "d"], after=iter(["e"]), seconds=2, volatile=True, forever=True, critical=True, label="A"
    )
    assert (node.target, node.others, node.produces) == ("a", ("b",), ("a", "b"))
    assert (node.requires, node.after, node.needs) == (("c", "d"), ("e",), ("c", "d", "e"))
    assert (node.call, node.seconds, node.volatile, node.forever, node.critical) == (max, 2, True, True, True)
    assert (node.name, str(node.label)) == ("A", "A")
    assert repr(node) == "<Node a, b requires c, d, e>"


def test_a_node_needs_nothing_but_a_target():
    """What isn't told is empty, and its name is its target."""
    node = Node(("year", 2020))
    assert (node.call, node.requires, node.after, node.others, node.seconds) == (None, (), (), (), None)
    assert (node.name, repr(node)) == ("('year', 2020)", "<Node ('year', 2020)>")


@pytest.mark.parametrize(
    ("arguments", "keywords", "complaint"),
    [
        (([],), {}, "at least one target"),
        (("a", None, "bc"), {}, r"write \['bc'\]"),
        (("a", None, b"bc"), {}, r"write \[b'bc'\]"),
        (("a", None, ()), {"after": "bc"}, r"after is a list of targets.*write \['bc'\]"),
        (("a", None, 7), {}, "a list of targets, not int"),
        (("a", None, {"b", "c"}), {}, "in the order of the call's arguments, not a set"),
        (("a", None, frozenset("bc")), {}, "not a frozenset"),
        (("a", None, {"x": "b"}), {}, "not a dict"),
        (("a", "print"), {}, "'a' needs something to call, not str"),
        (("a",), {"seconds": -1}, "seconds is a number from 0 up, or None, not -1"),
        (("a",), {"seconds": float("nan")}, "not nan"),
        (("a",), {"seconds": float("inf")}, "not inf"),
        (("a",), {"seconds": "5"}, "not '5'"),
    ],
)
def test_a_node_refuses_what_it_cannot_be(arguments, keywords, complaint):
    """A node that makes no sense is refused where it is made, with what to write instead."""
    with pytest.raises(UsageError, match=complaint):
        Node(*arguments, **keywords)


def test_the_order_of_after_is_nobodys_business():
    """`after` may be a set: nothing is passed."""
    assert sorted(Node("a", None, after={"b", "c"}).needs) == ["b", "c"]


# ------------------------------------------------------------------ invariant 1


@pytest.mark.parametrize(
    "nodes",
    [
        [Node("a"), Node("a")],
        [Node("a"), Node("b"), Node(["c", "a"])],
        [Node(["a", "b"]), Node("b")],
        [Node(["a", "b"]), Node(["c", "b"])],
        [Node(1), Node(True)],
    ],
)
def test_invariant_1_one_producer_per_target(nodes):
    """Two nodes that produce one target are refused, whether given at once or one by one; what to do is said."""
    with pytest.raises(UsageError, match=r"has a producer already.*`replace`"):
        Graph(nodes)
    graph = Graph(nodes[:-1])
    with pytest.raises(UsageError, match=r"has a producer already.*`replace`"):
        graph.add(nodes[-1])
    assert targets(graph) == targets(nodes[:-1])


@pytest.mark.parametrize("names", [["a", "a"], ["a", "b", "b"], ["a", "b", "a"]])
def test_a_node_names_a_target_once(names):
    """A target twice in one node is refused, however the graph is made."""
    node = Node(names)
    with pytest.raises(UsageError, match="twice: name it once"):
        Graph([node])
    with pytest.raises(UsageError, match="twice: name it once"):
        Graph().add(node)
    with pytest.raises(UsageError, match="twice: name it once"):
        Graph([Node("a"), Node("b")]).replace(node)


# ------------------------------------------------------------------ odd input

ODD = {
    "target": (Node(Unhashable()), "<unhashable> is not"),
    "other name": (Node(["a", Unhashable()]), "<unhashable> is not"),
    "required": (Node("a", None, ["b", Unhashable()]), "<unhashable> is not"),
    "after": (Node("a", None, after=["b", Unhashable()]), "<unhashable> is not"),
    "a list inside": (Node("a", None, [["b"]]), r"has to be hashable \(a string.*\['b'\] is not"),
    "a set of names": (Node({"a"}), "several targets are given as a list"),
    "a string": ("a", "made of Nodes, not of str: Node"),
    "nothing": (None, "made of Nodes, not of NoneType"),
    "a function": (print, "made of Nodes, not of builtin_function"),
}


@pytest.mark.parametrize(("odd", "complaint"), ODD.values(), ids=ODD)
def test_odd_nodes(odd, complaint):
    """What can't be part of a graph is refused with what and why, by each way in."""
    for make in (lambda: Graph([odd]), lambda: Graph().add(odd), lambda: Graph([Node("a")]).replace(odd)):
        with pytest.raises(UsageError, match=complaint):
            make()


@pytest.mark.parametrize("odd", [Node("a"), 5, None])
def test_odd_graphs(odd):
    """A graph is made of several nodes: one alone, or none at all, is a mistake that is named."""
    with pytest.raises(UsageError, match="made of a list of Nodes, not of"):
        Graph(odd)


def test_what_a_users_own_generator_raises_is_his():
    """An error of the iterable that gives the nodes isn't mistaken for one of a node."""

    def nodes():
        yield Node("a")
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        Graph(nodes())


class Moody:
    """A target that compares as it likes."""

    def __hash__(self):
        return 1

    def __eq__(self, other):
        raise TypeError("moody")


def test_a_target_that_refuses_to_be_compared():
    """The target's own error comes out, not one of ours."""
    with pytest.raises(TypeError, match="moody"):
        Graph([Node(Moody()), Node(Moody())])


def test_an_unknown_target_and_its_close_matches():
    """Who asks for a target that nothing produces learns what is like it, as it has to be written."""
    graph = Graph([Node("temperature"), Node("pressure"), Node(12), Node(("year", 2020))])
    with pytest.raises(UsageError, match=r"^no node produces 'tempreture'\. Did you mean 'temperature'.*\?$"):
        graph["tempreture"]
    with pytest.raises(UsageError, match=r"Did you mean 12\?"):
        graph["12"]
    with pytest.raises(UsageError, match=r"Did you mean \('year', 2020\)\?"):
        graph["year", 2021]
    with pytest.raises(UsageError, match=r"no node produces 'x'\. What is produced: 'temperature', 'pressure', 12,"):
        graph["x"]
    with pytest.raises(UsageError, match=r"^no node produces 'x'\.$"):
        Graph()["x"]
    with pytest.raises(UsageError, match=r"What is produced: 0, 1, 2, 3, 4, …\."):
        graph_of({n: [] for n in range(9)})["abc"]


@pytest.mark.parametrize("ask", ["ancestors", "descendants", "subgraph", "__getitem__"])
def test_asking_for_what_is_not_there(ask):
    """Each question about a target names it if it is unknown, and says how several are asked for."""
    graph = graph_of(DIAMOND)
    with pytest.raises(UsageError, match="no node produces 'e'"):
        getattr(graph, ask)("e")
    with pytest.raises(UsageError, match=r"\['a', 'b'\] is not; several targets are several arguments"):
        getattr(graph, ask)(["a", "b"])


# ------------------------------------------------------------------ asking


def test_a_graph_is_looked_up_by_any_name():
    """Each of a node's targets leads to it."""
    node = Node(["a", "b"])
    graph = Graph([node, Node("c", None, ["b"])])
    assert graph["a"] is graph["b"] is graph.get("b") is node
    assert graph.get("x") is None
    assert ("a" in graph, "b" in graph, "x" in graph, len(graph)) == (True, True, False, 2)
    assert graph.targets == ["a", "b", "c"]
    assert [graph.place(one) for one in graph] == [0, 1]
    assert (repr(graph), repr(Graph([node]))) == ("<Graph of 2 nodes>", "<Graph of 1 node>")
    assert targets(graph.descendants("a")) == targets(graph.descendants("b")) == ["c"]
    assert targets(graph.ancestors("c")) == ["a"]


def test_a_diamond():
    """The questions, on the smallest graph that has something to say."""
    graph = graph_of(DIAMOND)
    assert targets(graph.ancestors("d")) == ["a", "b", "c"]
    assert targets(graph.descendants("a")) == ["b", "c", "d"]
    assert targets(graph.ancestors("b", "c")) == ["a"]
    assert targets(graph.ancestors("d", "a")) == ["b", "c"]
    assert graph.ancestors() == graph.descendants() == []
    assert (targets(graph.roots()), targets(graph.leaves())) == (["a"], ["d"])
    assert targets(graph.subgraph("b")) == ["a", "b"]
    assert targets(graph.subgraph("c", "b")) == ["a", "b", "c"]
    assert len(graph.subgraph()) == 0
    assert graph.missing() == {}


def test_an_empty_graph():
    """Nothing has no roots, no leaves and no order, and says so without complaint."""
    graph = Graph()
    assert list(graph) == list(graph.topological()) == graph.roots() == graph.leaves() == graph.targets == []
    assert (len(graph), graph.missing()) == (0, {})


def test_missing():
    """What nothing produces is listed with those that need it, each once; the rest of the graph can be asked."""
    graph = graph_of({"b": ["a", "x", "a"], "c": ["b", "x"]})
    assert {target: targets(nodes) for target, nodes in graph.missing().items()} == {"a": ["b"], "x": ["b", "c"]}
    assert targets(graph.roots()) == ["b"]
    assert targets(graph.topological()) == ["b", "c"]
    assert targets(graph.ancestors("c")) == ["b"]
    assert graph.add(Node("a")).missing().keys() == {"x"}


def test_order_only_edges_count():
    """`after` orders and connects as a value does."""
    graph = Graph([Node("b", None, after=["a"]), Node("a")])
    assert targets(graph.topological()) == ["a", "b"]
    assert targets(graph.ancestors("b")) == ["a"]
    assert (targets(graph.roots()), targets(graph.leaves())) == (["a"], ["b"])


def test_topological_prefers_the_order_of_adding():
    """Among the nodes that could come next, the one that was added first does."""
    graph = graph_of({0: [2], 1: [], 2: [], 3: []})
    assert targets(graph.topological()) == [1, 2, 0, 3]


def test_a_cycle_is_named():
    """Asked for an order that there isn't, a graph names the shortest way round."""
    graph = graph_of({"a": ["d"], "b": ["a"], "c": ["b", "d"], "d": ["c"], "e": ["a"]})
    with pytest.raises(CyclicWorkflowError, match="there is a cycle: ") as caught:
        graph.topological()
    assert sorted(caught.value.cycle) == ["c", "d"]
    assert targets(graph.ancestors("a")) == ["b", "c", "d"]
    assert targets(graph.descendants("c")) == ["a", "b", "d", "e"]
    with pytest.raises(CyclicWorkflowError, match="a -> a"):
        graph_of({"a": ["a"]}).topological()


def test_a_cycle_through_a_second_name():
    """A node that needs one of its own names needs itself."""
    with pytest.raises(CyclicWorkflowError):
        Graph([Node(["a", "b"], None, ["c"]), Node("c", None, ["b"])]).topological()
    with pytest.raises(CyclicWorkflowError):
        Graph().add(Node(["a", "b"], None, ["b"])).topological()


def test_to_networkx():
    """Targets are nodes, edges run from what is needed, and each says whether a value travels on it."""
    node = Node(["b", "second"], None, ["a"], after=["x", "a"])
    graph = Graph([Node("a"), node, Node("c", None, ["second", "second"], after=["x"])]).to_networkx()
    assert dict(graph.edges) == {
        ("a", "b"): {"kind": "value"},
        ("x", "b"): {"kind": "after"},
        ("b", "c"): {"kind": "value"},
        ("x", "c"): {"kind": "after"},
    }
    assert graph.nodes["b"] == {"node": node}
    assert graph.nodes["x"] == {}


@st.composite
def needs(draw, *, acyclic):
    """Target → what it needs, in any order of adding; also targets that nothing produces."""
    count = draw(st.integers(1, 9))
    names = draw(st.permutations(range(count)))
    found = {}
    for name in names:
        most = name - 1 if acyclic else count + 1
        found[name] = draw(st.lists(st.integers(0, most), max_size=4)) if most >= 0 else []
    return found


@given(needs(acyclic=False), st.sets(st.integers(0, 8), max_size=3))
def test_walks_agree_with_networkx(needs, wanted):
    """Ancestors and descendants are networkx's, on any graph, and come in the order of adding."""
    graph = graph_of(needs)
    wanted = [target for target in wanted if target in graph]
    oracle = graph.to_networkx()
    up = set().union(*(nx.ancestors(oracle, one) for one in wanted)) - set(wanted)
    down = set().union(*(nx.descendants(oracle, one) for one in wanted)) - set(wanted)
    assert targets(graph.ancestors(*wanted)) == [target for target in needs if target in up]
    assert targets(graph.descendants(*wanted)) == [target for target in needs if target in down]
    assert targets(graph.subgraph(*wanted)) == [target for target in needs if target in up or target in wanted]
    produced = oracle.subgraph(needs)
    assert targets(graph.roots()) == [target for target in needs if not produced.in_degree(target)]
    assert targets(graph.leaves()) == [target for target in needs if not produced.out_degree(target)]
    assert set(graph.missing()) == set(oracle) - set(needs)


@given(needs(acyclic=True))
def test_topological_agrees_with_networkx(needs):
    """The order is the lexicographic topological one, by the order of adding."""
    place = {target: at for at, target in enumerate(needs)}
    oracle = nx.lexicographical_topological_sort(graph_of(needs).to_networkx(), key=place.get)
    assert targets(graph_of(needs).topological()) == list(oracle)


@given(needs(acyclic=False))
def test_a_cycle_is_found_exactly_when_there_is_one(needs):
    """There is an order, or there is a cycle whose each target needs the next."""
    graph = graph_of(needs)
    if nx.is_directed_acyclic_graph(graph.to_networkx()):
        order = targets(graph.topological())
        assert all(order.index(need) < order.index(one) for one in needs for need in needs[one] if need in needs)
        return
    with pytest.raises(CyclicWorkflowError) as caught:
        graph.topological()
    cycle = caught.value.cycle
    assert all(after in needs[one] for one, after in pairwise([*cycle, cycle[0]]))


@given(needs(acyclic=False))
def test_one_by_one_is_the_same_as_at_once(needs):
    """A graph built by `add` is the graph made of the same nodes."""
    grown = Graph()
    for target, needed in needs.items():
        grown = grown.add(Node(target, None, needed))
    made = graph_of(needs)
    assert (targets(grown), grown.targets, grown._ordered) == (targets(made), made.targets, made._ordered)


# ------------------------------------------------------------------ add


def test_add_leaves_the_graph_as_it_was():
    """A graph is a value: what is added is in the new one only, though they share what they have."""
    old = graph_of({"a": []})
    new = old.add(Node("b", None, ["a"]))
    assert (targets(old), targets(new)) == (["a"], ["a", "b"])
    assert "b" not in old
    assert old.get("b") is None
    assert (old.targets, len(old), old.leaves(), old.descendants("a")) == (["a"], 1, [old["a"]], [])
    with pytest.raises(UsageError, match="no node produces 'b'"):
        old["b"]
    assert new["a"] is old["a"]
    assert new._nodes is old._nodes


def test_add_to_an_old_version():
    """Each version can be gone on with, also with a target that another one has by now."""
    first = graph_of({"a": []})
    b, other = Node("b", None, ["a"]), Node("b")
    second, third = first.add(b), first.add(other)
    fourth = third.add(Node("c", None, ["b"]))
    assert second["b"] is b
    assert third["b"] is fourth["b"] is other
    assert ("c" in second, "c" in third, len(first)) == (False, False, 1)
    assert targets(second.add(Node("c"))) == targets(fourth) == ["a", "b", "c"]


def test_adding_while_walking():
    """Who walks over a graph meanwhile sees that graph, however it is added to."""
    graph = grown = graph_of({"a": [], "b": ["a"]})
    for node in graph:
        grown = grown.add(Node(node.target + "'", None, [node.target]))
    assert targets(grown) == ["a", "b", "a'", "b'"]


def test_adding_shares_structure():
    """100,000 nodes one by one share one list and one index; a copy per node would take hours."""
    graph = Graph()
    versions = []
    for number in range(100_000):
        graph = graph.add(Node(number, None, (number - 1,) if number else ()))
        if not number % 10_000:
            versions.append(graph)
    assert len({id(one._nodes) for one in versions}) == len({id(one._index) for one in versions}) == 1
    assert [len(one) for one in versions] == [number * 10_000 + 1 for number in range(10)]
    assert targets(graph.topological()) == list(range(100_000))


def test_two_threads_add_to_the_same_version():
    """Both get what they asked for, and nothing of each other's."""
    threads, rounds = 4, 300
    barrier = threading.Barrier(threads, timeout=PATIENCE)
    graphs = [graph_of({number: []}) for number in range(rounds)]
    got = [[None] * rounds for _ in range(threads)]

    def work(me):
        for at, graph in enumerate(graphs):
            barrier.wait()
            grown = graph.add(Node("x", None, label=str(me)))
            got[me][at] = grown.add(Node(("y", me)))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work, args=(me,)) for me in range(threads)]
        for one in workers:
            one.start()
        for one in workers:
            one.join()
    finally:
        sys.setswitchinterval(interval)
    for at, graph in enumerate(graphs):
        assert targets(graph) == [at]
        for me in range(threads):
            assert targets(got[me][at]) == [at, "x", ("y", me)]
            assert got[me][at]["x"].label == str(me)
            assert got[me][at].get(("y", (me + 1) % threads)) is None


def test_whoever_comes_second_goes_its_own_way():
    """Between the look at the shared list and the append another thread may have been there: nothing of its is touched."""
    graph = graph_of({"a": []})
    theirs = []

    class Slow(list):
        def append(self, node):
            if not theirs:
                theirs.append(None)
                theirs[0] = graph.add(Node("theirs"))
            super().append(node)

    graph._nodes = Slow(graph._nodes)
    ours = graph.add(Node("ours"))
    assert (targets(ours), targets(theirs[0]), targets(graph)) == (["a", "ours"], ["a", "theirs"], ["a"])
    assert ("theirs" in ours, "ours" in theirs[0]) == (False, False)
    assert targets(theirs[0].add(Node("b"))) == ["a", "theirs", "b"]


# ------------------------------------------------------------------ replace


def test_replace():
    """A node takes the place of the one with its target; the old graph keeps the old one."""
    old = graph_of(DIAMOND)
    node = Node("b", max, [])
    new = old.replace(node)
    assert new["b"] is node
    assert old["b"] is not node
    assert targets(new) == targets(old) == ["a", "b", "c", "d"]
    assert list(new)[1] is node
    assert (targets(new.descendants("a")), targets(old.descendants("a"))) == (["c", "d"], ["b", "c", "d"])
    assert targets(new.add(Node("e")).replace(Node("e"))) == ["a", "b", "c", "d", "e"]
    assert ("e" in new, "e" in old) == (False, False)


def test_replaced_versions_go_their_own_ways():
    """What is added to a graph and to its replaced twin doesn't mix."""
    old = graph_of({"a": [], "b": ["a"]})
    node = Node("a", None, label="new")
    new = old.replace(node)
    here, there = old.add(Node("c")), new.add(Node("d"))
    assert (targets(here), targets(there)) == (["a", "b", "c"], ["a", "b", "d"])
    assert (there["a"], here["a"], "c" in there) == (node, old["a"], False)


def test_replace_several():
    """A node that produces what several did takes the first one's place."""
    new = graph_of(DIAMOND).replace(Node(["c", "b"], None, ["a"]))
    assert targets(new) == ["a", "c", "d"]
    assert new["b"] is new["c"]
    assert targets(new.ancestors("d")) == ["a", "c"]
    assert targets(new.topological()) == ["a", "c", "d"]


def test_replace_and_produce_more():
    """The new node may produce more than the old one; not what another node produces."""
    graph = graph_of(DIAMOND)
    assert graph.replace(Node(["b", "x"])).targets == ["a", "b", "x", "c", "d"]
    assert len(graph) == 4
    assert "x" not in graph


def test_replace_would_lose_a_target():
    """A target that would be left without a producer is named, and what to do."""
    graph = Graph([Node(["a", "b"]), Node("c", None, ["b"])])
    with pytest.raises(UsageError, match=r"also produces 'b': let it produce that too"):
        graph.replace(Node("a"))
    assert graph.replace(Node(["b", "a"])).targets == ["b", "a", "c"]


def test_replace_nothing():
    """There has to be something to replace; else `add` is named."""
    with pytest.raises(UsageError, match=r"nothing to replace: no node produces 'e'.*`add`"):
        graph_of(DIAMOND).replace(Node("e"))


def test_replace_breaks_the_order():
    """After a node that needs a later one, or itself, the order is found anew."""
    graph = graph_of(DIAMOND)
    assert targets(graph.replace(Node("b", None, ["c"])).topological()) == ["a", "c", "b", "d"]
    assert targets(graph.replace(Node("b", None, ["x"])).topological()) == ["a", "b", "c", "d"]
    with pytest.raises(CyclicWorkflowError):
        graph.replace(Node("a", None, ["d"])).topological()
    with pytest.raises(CyclicWorkflowError):
        graph.replace(Node("a", None, ["a"])).topological()
    assert targets(graph.topological()) == ["a", "b", "c", "d"]


def test_replacing_all_one_by_one():
    """Twenty thousand replacements in a row copy far less than the graph each, and old versions stay as they were."""
    count = 20_000
    graph = graph_of({number: [number - 1] if number else [] for number in range(count)})
    new = graph
    largest = 0
    for number in range(count):
        new = new.replace(Node(number, None, graph[number].requires, label="new"))
        largest = max(largest, len(new._replaced))
        if number == count // 2:
            half = new
    assert largest**2 <= count
    assert {node.label for node in new} == {"new"}
    assert {node.label for node in graph} == {""}
    assert [node.label for node in half] == ["new"] * (count // 2 + 1) + [""] * (count // 2 - 1)
    assert targets(new.topological()) == list(range(count))


@given(st.data())
def test_any_edits_on_any_versions(data):
    """However versions are added to and replaced in, each is what a plain dict says that it is."""
    versions = [(Graph(), {})]
    for step in range(data.draw(st.integers(1, 12))):
        graph, model = data.draw(st.sampled_from(versions))
        target = data.draw(st.integers(0, 6))
        node = Node(target, None, data.draw(st.lists(st.integers(0, 6), max_size=2)), label=str(step))
        if target in model:
            with pytest.raises(UsageError):
                graph.add(node)
            versions.append((graph.replace(node), {**model, target: node}))
        else:
            with pytest.raises(UsageError):
                graph.replace(node)
            versions.append((graph.add(node), {**model, target: node}))
    for graph, model in versions:
        assert list(graph) == list(model.values())
        assert all(graph.get(target) is model.get(target) for target in range(7))
        made = Graph(model.values())
        assert {target: targets(nodes) for target, nodes in graph.missing().items()} == {
            target: targets(nodes) for target, nodes in made.missing().items()
        }
        assert not graph._ordered or made._ordered


# ------------------------------------------------------------------ as a value


def test_a_graph_travels_without_later_versions():
    """Pickled or copied, a graph is what it was, and takes nothing of what others have added."""
    old = graph_of(DIAMOND).replace(Node("b", max, ["a"]))
    new = old.add(Node("e", lambda: None))  # which plain pickle can't carry
    for twin in (pickle.loads(pickle.dumps(old)), copy.deepcopy(old), copy.copy(old)):
        assert targets(twin) == ["a", "b", "c", "d"]
        assert twin["b"].call is max
        assert targets(twin.add(Node("e"))) == targets(new)


HUGE = """
import sys
from woflo import CyclicWorkflowError, Graph, Node
sys.setrecursionlimit(120)
count = 100_000

def check(graph, first, last):
    last_needs = graph.ancestors(last)
    assert len(last_needs) >= 1 and graph[first] in last_needs
    assert graph[last] in graph.descendants(first)
    assert len(graph.subgraph(last)) == len(last_needs) + 1
    assert len(list(graph.topological())) == len(graph)
    assert graph.roots() and graph.leaves() and not graph.missing()
    Graph(reversed(list(graph))).topological()
    repr(graph), graph.to_networkx()

chain = Graph(Node(n, None, (n - 1,) if n else ()) for n in range(count))
check(chain, 0, count - 1)
fan_in = Graph([*(Node(n) for n in range(count)), Node("end", None, range(count))])
check(fan_in, 0, "end")
fan_out = Graph([Node(0), *(Node(n, None, (0,)) for n in range(1, count))])
check(fan_out, 0, count - 1)
ring = chain.replace(Node(0, None, (count - 1,)))
try:
    ring.topological()
except CyclicWorkflowError as error:
    assert len(error.cycle) == count and len(str(error)) < 200
    print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no ulimit")
def test_depth_and_breadth_are_the_memorys_not_the_stacks():
    """Chains, fans and a ring of 100,000 are walked with half a megabyte of stack."""
    command = ["sh", "-c", 'ulimit -s 512 && exec "$0" -c "$1"', sys.executable, HUGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 6, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")
