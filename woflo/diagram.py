"""Drawings of a Graph: DOT, Mermaid and text; and, by Graphviz, whatever `dot` can make of them.

A drawing is text made of a graph and, if it is told, of how each target is doing; nothing here runs a node or knows an engine.

Rule 1: a name is data. It is escaped for its format, never becomes an identifier, a file name or a part of a command.
Rule 2: every drawing takes time and room in proportion to nodes and edges, and no recursion.
Rule 3: a file is written whole or not at all.
"""

from __future__ import annotations

import os
import re

from woflo._exceptions import safe_str
from woflo.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from woflo.graph import Graph, Node

    Status = Mapping[Hashable, str] | Callable[[Hashable], str | None] | None

__all__ = ["render", "to_dot", "to_mermaid", "to_text"]

_LONGEST = 60  # characters of a name that are drawn; longer ones make boxes that nobody can read
_DEEPEST = 30  # levels of a text tree; what lies deeper becomes a tree of its own: indenting it would take the square
_LOOKS = {  # status -> its sign in a text, and the colour of its box
    "waiting": ("○", "#ffffff"),
    "running": ("▶", "#fff3b0"),
    "succeeded": ("✓", "#c8e6c9"),
    "failed": ("✗", "#ffcdd2"),
    "skipped": ("⊘", "#e0e0e0"),
    "stopped": ("■", "#ffe0b2"),
    "idle": ("·", "#ffffff"),
    "cached": ("✓", "#c8e6c9"),
    "on_disk": ("●", "#bbdefb"),
    "missing": ("○", "#ffffff"),
}
_DIRECTIONS = ("LR", "RL", "TB", "BT")
_BY_GRAPHVIZ = (".svg", ".png", ".pdf")
_AS_TEXT = (".dot", ".gv", ".mmd", ".md", ".txt")


def to_dot(graph: Graph, status: Status = None, *, rankdir: str = "TB") -> str:
    """The graph in Graphviz' language, coloured by status.

    Edges run from what is needed to what needs it, dashed where only the order counts. A dashed box is a target
    that nothing produces.

    Args:
        graph: what is drawn.
        status: target → waiting, running, succeeded, failed, skipped, stopped or idle (`Engine.status` is one); or cached,
            on_disk, missing.
        rankdir: which way it grows: TB (from top to bottom), BT, LR or RL.

    Raises:
        UsageError: another rankdir.
    """
    if rankdir not in _DIRECTIONS:
        raise UsageError(f"rankdir is one of {', '.join(_DIRECTIONS)}, not {rankdir!r}")
    drawing = _Drawing(graph, status)
    lines = ["digraph {", '  node [shape=box, style="rounded,filled", fillcolor="#ffffff"];']
    if rankdir != "TB":
        lines.insert(1, f"  rankdir={rankdir};")
    for number, node in enumerate(drawing.nodes):
        look = _LOOKS.get(drawing.word(node))
        colour = f', fillcolor="{look[1]}"' if look else ""
        lines.append(f'  n{number} [label="{_for_dot(_name(node))}"{colour}];')
    for target, number in drawing.missing.items():
        lines.append(f'  n{number} [label="{_for_dot(_clean(target))}", style=dashed];')
    for number in range(len(drawing.nodes)):
        for need, by_value in drawing.needs(number):
            lines.append(f"  n{need} -> n{number}{'' if by_value else ' [style=dashed]'};")
    return "\n".join([*lines, "}", ""])


def to_mermaid(graph: Graph, status: Status = None) -> str:
    """The graph as a Mermaid flowchart, coloured by status.

    Arrows run from what is needed to what needs it, dotted where only the order counts. A rounded box is a target that
    nothing produces. (Mermaid's own limits are 500 edges and 50,000 characters, unless its configuration says more.)

    Args:
        graph: what is drawn.
        status: target → waiting, running, succeeded, failed, skipped, stopped or idle; `Engine.status` is one.
    """
    drawing = _Drawing(graph, status)
    lines = ["flowchart TD"]
    used = dict.fromkeys(word for node in drawing.nodes if (word := drawing.word(node)) in _LOOKS)
    for number, node in enumerate(drawing.nodes):
        word = drawing.word(node)
        lines.append(f'  n{number}["{_for_mermaid(_name(node))}"]{f":::{word}" if word in used else ""}')
    for target, number in drawing.missing.items():
        lines.append(f'  n{number}("{_for_mermaid(_clean(target))}")')
    for number in range(len(drawing.nodes)):
        for need, by_value in drawing.needs(number):
            lines.append(f"  n{need} {'-->' if by_value else '-.->'} n{number}")
    lines += [f"  classDef {word} fill:{_LOOKS[word][1]},stroke:#333333,color:#000000" for word in used]
    return "\n".join([*lines, ""])


def to_text(graph: Graph, status: Status = None) -> str:
    """The graph as trees of lines: below each target what it needs, those that nobody needs on top.

    What several need is drawn once; elsewhere an arrow says that its needs are drawn above (↑) or below (↓). A dotted
    branch is one where only the order counts, and a question mark a target that nothing produces.

    Args:
        graph: what is drawn.
        status: target → waiting, running, succeeded, failed, skipped, stopped or idle; `Engine.status` is one.
    """
    drawing = _Drawing(graph, status)
    lines: list[str] = []
    drawn: set[int] = set()  # whose needs have been drawn, or are about to be
    tops = [graph.place(node) for node in graph.leaves()]
    at = 0
    everything = iter(range(len(drawing.nodes)))
    while True:
        if at < len(tops):
            top, at = tops[at], at + 1
        else:  # only circles are left, if anything
            top = next((number for number in everything if number not in drawn), -1)
            if top < 0:
                return "\n".join([*lines, ""]) if lines else ""
        if top in drawn:
            continue
        todo = [(top, "", "")]  # the last one is next: number, what stands before it, before its needs
        while todo:
            number, before, indent = todo.pop()
            text = drawing.line(number)
            needs = [] if number >= len(drawing.nodes) else list(drawing.needs(number))
            if not needs:
                lines.append(before + text)
                drawn.add(number)
                continue
            if number in drawn:
                lines.append(f"{before}{text} ↑")
                continue
            if len(indent) >= 3 * _DEEPEST:
                lines.append(f"{before}{text} ↓")  # as a tree of its own, unless it is met before on a higher level
                tops.append(number)
                continue
            lines.append(before + text)
            drawn.add(number)
            for place in range(len(needs) - 1, -1, -1):
                need, by_value = needs[place]
                last = place == len(needs) - 1
                branch = ("└" if last else "├") + ("─ " if by_value else "┄ ")
                todo.append((need, indent + branch, indent + ("   " if last else "│  ")))


def render(graph: Graph, path: str | os.PathLike[str], status: Status = None) -> None:
    """Draw a graph into a file; its suffix says how.

    `.dot` and `.gv`, `.mmd` and `.md` (Mermaid, for a page fenced), `.txt`; `.svg`, `.png` and `.pdf` are made by
    Graphviz' `dot`. The file is written whole or not at all.

    Args:
        graph: what is drawn.
        path: the file; one that is there is replaced.
        status: target → waiting, running, succeeded, failed, skipped, stopped or idle; `Engine.status` is one.

    Raises:
        UsageError: another suffix, or `dot` is not installed.
        RuntimeError: `dot` failed.
        OSError: the file can't be written.
    """
    path = os.fsdecode(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _BY_GRAPHVIZ:
        content = _by_graphviz(graph, suffix, status)
    elif suffix in {".dot", ".gv"}:
        content = to_dot(graph, status).encode()
    elif suffix == ".mmd":
        content = to_mermaid(graph, status).encode()
    elif suffix == ".md":
        content = f"```mermaid\n{to_mermaid(graph, status)}```\n".encode()
    elif suffix == ".txt":
        content = to_text(graph, status).encode()
    else:
        known = ", ".join((*_AS_TEXT, *_BY_GRAPHVIZ))
        raise UsageError(f"{path!r} doesn't say what to draw: give it one of the suffixes {known}")
    _write(path, content)


class _Drawing:
    """A graph's nodes by number, and, numbered behind them, the targets that nothing produces."""

    def __init__(self, graph: Graph, status: Status) -> None:
        self.graph = graph
        self.nodes = list(graph)
        self.missing = {target: number for number, target in enumerate(graph.missing(), len(self.nodes))}
        self._names = [_clean(target) for target in self.missing]
        self._ask = (lambda _: None) if status is None else status if callable(status) else status.get

    def word(self, node: Node) -> str:
        return self._ask(node.target) or ""

    def needs(self, number: int) -> Iterator[tuple[int, bool]]:
        """The numbers of what a node needs, each once, and whether its value is passed."""
        node, graph = self.nodes[number], self.graph
        found: dict[int, bool] = {}
        for targets, by_value in ((node.requires, True), (node.after, False)):
            for target in targets:
                producer = graph.get(target)
                found.setdefault(self.missing[target] if producer is None else graph.place(producer), by_value)
        return iter(found.items())

    def line(self, number: int) -> str:
        """A node's line in a text, without its branch."""
        if number >= len(self.nodes):
            return f"{self._names[number - len(self.nodes)]} ?"
        node = self.nodes[number]
        look = _LOOKS.get(self.word(node))
        return f"{look[0]} {_name(node)}" if look else _name(node)


def _name(node: Node) -> str:
    return _clean(node.label or node.target)


def _clean(given: object) -> str:
    """A name on one line, not too long, of characters that a file and a terminal can take."""
    text = safe_str(given)
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def _for_dot(text: str) -> str:
    # Backslashes are escapes in labels (\N is the node's name), and entities are replaced.
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


def _for_mermaid(text: str) -> str:
    # All that could be markup, a list's bullet included: "1. first" is taken for one.
    text = re.sub(r"""[^\w ,:=/()'.+-]""", lambda found: f"#{ord(found[0])};", text)
    return re.sub(r"^( *\d*)([.)+-])", lambda found: f"{found[1]}#{ord(found[2])};", text)


def _by_graphviz(graph: Graph, suffix: str, status: Status) -> bytes:
    import shutil
    import subprocess

    dot = shutil.which("dot")
    if dot is None:
        raise UsageError(
            f"a {suffix} file is drawn by Graphviz' `dot`, which is not installed: install the package graphviz, or write"
            f" one of {', '.join(_AS_TEXT)}"
        )
    # Nothing of ours is an argument: the drawing goes in and comes out by pipes.
    command = [dot, f"-T{suffix[1:]}"]
    done = subprocess.run(command, input=to_dot(graph, status).encode(), capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"dot ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _write(path: str, content: bytes) -> None:
    from secrets import token_hex

    path = os.path.realpath(path)  # a link stays one
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name[:40]}.{token_hex(8)}.tmp")
    with open(beside, "xb") as file:
        try:
            file.write(content)
            file.close()
            os.replace(beside, path)
        except BaseException:
            file.close()
            os.unlink(beside)
            raise
