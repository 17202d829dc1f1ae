"""Drawings: every name is harmless, every edge is there, and a file is written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woflo import Graph, Node, UsageError
from woflo.diagram import render, to_dot, to_mermaid, to_text

GRAPH = Graph(
    [
        Node("a", None, ["x"]),
        Node("b", None, ["a"]),
        Node("c", None, ["a"], after=["b", "a"]),
        Node(["d", "second"], None, ["b", "c", "b"]),
        Node("end", None, ["second", "a"]),
        Node("alone"),
    ]
)
STATUS = {"a": "succeeded", "b": "failed", "c": "running", "d": "skipped", "end": "stopped", "alone": "waiting"}
NASTY = [
    'say "hi"',
    "it's",
    "back\\slash\\N",
    "back\\",
    "two\nlines\r\n",
    "<b>bold</b>",
    "a &amp; b &lt;",
    "]]; x --> y",
    "end",
    "graph",
    "subgraph",
    "%% no comment",
    "`code`",
    "#35;",
    "1. first",
    "- item",
    "+ item",
    "naïve 数据 🎉",
    "\x1b[31mred\x00",
    "\u202ereversed",
    "\ud800",
    "",
    " ",
    "; rm -rf /",
    "n1",
    "//x",
    "a:::failed",
    "x" * 100_000,
    ("tuple", 1),
    None,
]

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")


def by_graphviz(drawing):
    """What `dot` has understood: its objects and edges."""
    done = subprocess.run(["dot", "-Tjson0"], input=drawing.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout)


def test_dot():
    """A box per node and per missing target, an edge per need, dashed where only the order counts."""
    assert to_dot(GRAPH, {"a": "succeeded"}).splitlines() == [
        "digraph {",
        '  node [shape=box, style="rounded,filled", fillcolor="#ffffff"];',
        '  n0 [label="a", fillcolor="#c8e6c9"];',
        '  n1 [label="b"];',
        '  n2 [label="c"];',
        '  n3 [label="d"];',
        '  n4 [label="end"];',
        '  n5 [label="alone"];',
        '  n6 [label="x", style=dashed];',
        "  n6 -> n0;",
        "  n0 -> n1;",
        "  n0 -> n2;",
        "  n1 -> n2 [style=dashed];",
        "  n1 -> n3;",
        "  n2 -> n3;",
        "  n3 -> n4;",
        "  n0 -> n4;",
        "}",
    ]


def test_mermaid():
    """The same as a flowchart: dotted arrows for order, a class per status that occurs."""
    assert to_mermaid(GRAPH, {"a": "succeeded", "b": "failed"}).splitlines() == [
        "flowchart TD",
        '  n0["a"]:::succeeded',
        '  n1["b"]:::failed',
        '  n2["c"]',
        '  n3["d"]',
        '  n4["end"]',
        '  n5["alone"]',
        '  n6("x")',
        "  n6 --> n0",
        "  n0 --> n1",
        "  n0 --> n2",
        "  n1 -.-> n2",
        "  n1 --> n3",
        "  n2 --> n3",
        "  n3 --> n4",
        "  n0 --> n4",
        "  classDef succeeded fill:#c8e6c9,stroke:#333333,color:#000000",
        "  classDef failed fill:#ffcdd2,stroke:#333333,color:#000000",
    ]


def test_text():
    """A tree of what needs what; what is shared is drawn once and referred to."""
    assert to_text(GRAPH, STATUS).splitlines() == [
        "■ end",
        "├─ ⊘ d",
        "│  ├─ ✗ b",
        "│  │  └─ ✓ a",
        "│  │     └─ x ?",
        "│  └─ ▶ c",
        "│     ├─ ✓ a ↑",
        "│     └┄ ✗ b ↑",
        "└─ ✓ a ↑",
        "○ alone",
    ]


def test_without_status():
    """Nobody has to say how things are."""
    assert to_text(Graph([Node("a"), Node("b", None, ["a"], label="B")])) == "B\n└─ a\n"
    assert "fillcolor" not in to_dot(GRAPH).split("\n", 2)[2]
    assert "classDef" not in to_mermaid(GRAPH)


@pytest.mark.parametrize("draw", [to_dot, to_mermaid, to_text])
def test_status_by_mapping_or_function(draw):
    """A mapping and a callable say the same; a word that no drawing knows, or none, colours nothing."""
    assert draw(GRAPH, STATUS) == draw(GRAPH, STATUS.__getitem__) != draw(GRAPH)
    assert draw(GRAPH, {"a": "on holiday"}) == draw(GRAPH, lambda _: None) == draw(GRAPH)


@pytest.mark.parametrize("draw", [to_dot, to_mermaid, to_text])
def test_an_engines_status(draw):
    """What an engine says of its targets can be drawn, before and after."""
    from woflo.engine import Engine

    engine = Engine([Node("a", lambda: 1), Node("b", lambda _: 1 / 0, ["a"]), Node("c", None, ["b"])])
    before = draw(engine.graph, engine.status)
    engine.orchestrate()
    assert draw(engine.graph, engine.status) == draw(engine.graph, {"a": "succeeded", "b": "failed", "c": "skipped"})
    assert before == draw(engine.graph, dict.fromkeys("abc", "idle"))


def test_nothing():
    """An empty graph is an empty drawing."""
    assert to_text(Graph()) == ""
    assert to_mermaid(Graph()) == "flowchart TD\n"
    assert to_dot(Graph()).endswith("}\n")


def test_circles():
    """A graph that can't be carried out can be looked at."""
    ring = Graph([Node("a", None, ["c"]), Node("b", None, ["a"]), Node("c", None, ["b"]), Node("d", None, ["d"])])
    assert to_text(ring).splitlines() == ["a", "└─ c", "   └─ b", "      └─ a ↑", "d", "└─ d ↑"]


@needs_dot
def test_dot_understands_any_name():
    """Names with quotes, escapes, markup or keywords arrive as they are, on one line and not too long."""
    graph = Graph([Node(name, None, [("missing", name)]) for name in NASTY])
    found = by_graphviz(to_dot(graph, dict.fromkeys(NASTY, "failed")))
    labels = [one["label"] for one in found["objects"]][: len(NASTY)]
    for name, label in zip(NASTY, labels, strict=True):
        shown = label.replace("\\\\", "\\").replace("&amp;", "&")
        wanted = str(name)[:59] + "…" if len(str(name)) > 60 else str(name)
        assert shown == "".join(one if one.isprintable() else " " for one in wanted)
    assert (len(found["objects"]), len(found["edges"])) == (2 * len(NASTY), len(NASTY))


@pytest.mark.parametrize("name", NASTY, ids=lambda name: repr(name)[:20])
def test_mermaid_cannot_be_broken_out_of(name):
    """Whatever a name is, its line is one box: nothing in it is markup, and entities bring it back."""
    line = to_mermaid(Graph([Node(name)])).splitlines()[1]
    found = re.fullmatch(r"""  n0\["((?:[\w ,:=/()'.+-]|\#\d+;)*)"\]""", line)
    assert found
    shown = re.sub(r"#(\d+);", lambda code: chr(int(code[1])), found[1])
    wanted = str(name)[:59] + "…" if len(str(name)) > 60 else str(name)
    assert shown == "".join(one if one.isprintable() else " " for one in wanted)
    assert not re.match(r" *(\d+[.)]|[-+*])", found[1])


@given(st.lists(st.text(max_size=5), min_size=1, max_size=6, unique=True))
def test_a_line_per_node(names):
    """No name makes a drawing longer, or unfit for a file."""
    graph = Graph([Node(name) for name in names])
    assert len(to_text(graph).split("\n")) == len(names) + 1
    assert len(to_mermaid(graph).split("\n")) == len(names) + 2
    assert len(to_dot(graph).split("\n")) == len(names) + 4
    (to_text(graph) + to_mermaid(graph) + to_dot(graph)).encode()


class Rude:
    def __str__(self):
        raise ValueError("no name for you")


def test_a_target_without_a_name():
    """A target whose str() raises is drawn as what it is."""
    assert "Rude whose str() raised ValueError" in to_text(Graph([Node(Rude())]))


@given(st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 14), max_size=4), max_size=12))
def test_text_draws_each_once(needs):
    """Each node's needs are drawn exactly once, on any graph, circles included."""
    graph = Graph(Node(one, None, row) for one, row in needs.items())
    lines = to_text(graph).splitlines()
    edges = sum(len(set(row)) for row in needs.values())
    names = [re.sub(r"^[ │├└─┄]*", "", line) for line in lines]
    tops = sum(not re.match(r"[ │├└]", line) for line in lines)
    assert len(lines) == edges + tops
    full = [name for name in names if name.isdigit() and needs[int(name)]]
    assert sorted(map(int, full)) == sorted(one for one, row in needs.items() if row)


HUGE = """
import sys
from woflo import Graph, Node
from woflo.diagram import to_dot, to_mermaid, to_text
sys.setrecursionlimit(120)
count = 100_000
chain = Graph(Node(n, None, (n - 1,) if n else ()) for n in range(count))
fan = Graph([*(Node(n) for n in range(count)), Node("end", None, range(count))])
wide = Graph([Node(0), *(Node(n, None, (0,)) for n in range(1, count))])
ladder = Graph(Node(n, None, (max(n - 1, 0), max(n - 2, 0)) if n else ()) for n in range(count))
for graph in (chain, fan, wide, ladder):
    for draw in (to_dot, to_mermaid, to_text):
        drawing = draw(graph, lambda target: "running")
        assert count < drawing.count("\\n") < 5 * count and len(drawing) < 250 * count, (draw, len(drawing))
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no ulimit")
def test_huge_graphs():
    """Chains, fans and ladders of 100,000 nodes are drawn in linear room, with half a megabyte of stack."""
    command = ["sh", "-c", 'ulimit -s 512 && exec "$0" -c "$1"', sys.executable, HUGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")


# ------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("suffix", "draw"), [(".dot", to_dot), (".gv", to_dot), (".mmd", to_mermaid), (".txt", to_text), (".TXT", to_text)]
)
def test_render_by_suffix(suffix, draw, tmp_path):
    """The suffix says what is written, in UTF-8."""
    path = tmp_path / f"drawing{suffix}"
    render(GRAPH, path, STATUS)
    assert path.read_bytes().decode() == draw(GRAPH, STATUS)
    assert os.listdir(tmp_path) == [path.name]


def test_render_markdown(tmp_path):
    """A page shows its flowchart: it is fenced."""
    render(GRAPH, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text("utf-8") == f"```mermaid\n{to_mermaid(GRAPH)}```\n"


@needs_dot
@pytest.mark.parametrize(("suffix", "magic"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_render_by_graphviz(suffix, magic, tmp_path):
    """Graphviz makes the pictures, of any names."""
    render(Graph([*GRAPH, *(Node(("nasty", name)) for name in NASTY)]), tmp_path / f"drawing{suffix}", STATUS)
    assert (tmp_path / f"drawing{suffix}").read_bytes().startswith(magic)


@needs_dot
@pytest.mark.parametrize(
    "name", ["a;touch broken;.svg", "-Tpng -o.svg", "$(touch broken).svg", "two words\n.svg", "'.svg"]
)
def test_file_names_are_harmless(name, tmp_path, monkeypatch):
    """A file's name is a name: to no shell and to no program is it anything else."""
    monkeypatch.chdir(tmp_path)
    render(GRAPH, name)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["drawing", "drawing.jpeg", ".svg", "a.svg.b"])
def test_an_unknown_suffix(name, tmp_path):
    """A suffix that nobody knows is refused, with those that are known."""
    with pytest.raises(UsageError, match=r"suffixes \.dot, \.gv, \.mmd, \.md, \.txt, \.svg, \.png, \.pdf"):
        render(GRAPH, tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_without_graphviz(tmp_path, monkeypatch):
    """Where `dot` isn't installed it is said what to do; the others need no program."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"not installed: install the package graphviz, or write one of \.dot"):
        render(GRAPH, tmp_path / "drawing.svg")
    render(GRAPH, tmp_path / "drawing.mmd")
    assert os.listdir(tmp_path) == ["drawing.mmd"]


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands for dot")
def test_graphviz_fails(tmp_path, monkeypatch):
    """When `dot` fails its words are told, and the old file is left alone."""
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\nexec 1>&-\necho out of paper >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "drawing.svg").write_text("old")
    with pytest.raises(RuntimeError, match="dot ended with 3: out of paper"):
        render(GRAPH, tmp_path / "drawing.svg")
    assert (tmp_path / "drawing.svg").read_text() == "old"


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    """When the last step fails the old file is as it was, and nothing lies beside it."""
    path = tmp_path / "drawing.txt"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space"):
            render(GRAPH, path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(OSError, match="No such file"):
        render(GRAPH, tmp_path / "nowhere" / "drawing.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="links and modes of POSIX")
def test_links_and_modes(tmp_path):
    """A link stays a link, and a new file may be read by whom the umask lets."""
    (tmp_path / "link.txt").symlink_to("real.txt")
    render(GRAPH, tmp_path / "link.txt")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text("utf-8") == to_text(GRAPH)
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("real.txt", "plain")]
    assert modes[0] == modes[1]
