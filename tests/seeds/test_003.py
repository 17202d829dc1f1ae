"""The notebook of seed 003, as it stands there: every cell is executed, and prints what it printed.

Changed are only the two import lines. `asyncio.sleep` keeps a clock of its own, so that nothing takes time and the
order in which coroutines wake is that of the notebook's seconds however busy the machine is.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import heapq
import io
import json
import re
from itertools import count
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent / "data" / "003_actions.json"
IMPORTS = {
    "from action import Action": "from woflo.action import Action",
    "from engine import Engine": "from woflo.action import Engine",
}
ASLEEP = [3, 2, 1, 2, 2, 1]  # how many sleep in the notebook whenever the next one wakes: cell 5, then cell 7


class Clock:
    """`asyncio.sleep` without waiting: when as many sleep as `asleep` says, the one that is due first wakes."""

    def __init__(self, asleep):
        self.asleep = list(asleep)
        self.now = 0.0
        self.queue = []
        self.numbers = count()

    async def sleep(self, seconds):
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self.queue, (self.now + seconds, next(self.numbers), future))
        while self.asleep and len(self.queue) == self.asleep[0]:
            del self.asleep[0]
            self.now, _, first = heapq.heappop(self.queue)
            first.get_loop().call_soon(first.set_result, None)
        await future


def cells():
    """The code cells and what each of them printed."""
    found = []
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            outputs = [
                "".join(output.get("text") or [*output["data"]["text/plain"], "\n"]) for output in cell["outputs"]
            ]
            code = "".join(cell["source"])
            for line, instead in IMPORTS.items():
                code = code.replace(line, instead)
            found.append((code, "".join(outputs)))
    return found


def execute(code, names):
    """Execute a cell as a notebook does: the value of a last expression is shown if it isn't None."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            if value is not None:
                print(value)
    return shown.getvalue()


def timeless(text):
    """What was printed, without the minutes and seconds at which it was."""
    return re.sub(r"\d\d-\d\d", "MM-SS", text)


def run_notebook():
    names: dict = {}
    for number, (code, expected) in enumerate(cells(), 1):
        assert timeless(execute(code, names)) == timeless(expected), f"cell {number}"
    return names


def test_the_copy_is_whole():
    """It has the seed's ten code cells, and prints in five of them."""
    assert len(cells()) == 10
    assert [number for number, (_, output) in enumerate(cells(), 1) if output] == [5, 7, 8, 9, 10]


@pytest.mark.parametrize("where", ["script", "notebook"])
def test_the_notebook(where, monkeypatch):
    """Every cell prints what it printed then, in a script, and under the running loop that today's notebooks have."""
    monkeypatch.setattr(asyncio, "sleep", Clock(ASLEEP).sleep)
    if where == "script":
        run_notebook()
        return

    async def kernel():
        run_notebook()

    asyncio.run(kernel())


def test_the_todo_of_the_notebook(monkeypatch):
    """What it leaves to be done works on its own engine: time-outs, what never ends, shutdown, exceptions, a monitor."""
    monkeypatch.setattr(asyncio, "sleep", Clock(ASLEEP).sleep)
    names = run_notebook()
    Action, Engine = names["Action"], names["Engine"]  # noqa: N806 - the notebook's names
    seen, closed = [], []

    class Connected(Action):
        async def coshutdown(self):
            closed.append(self.label)

    async def monitor():
        await asyncio.Event().wait()

    async def broken():
        raise ValueError("no link")

    async def work():
        return 1

    watch = Connected(monitor(), label="watch", forever=True)
    probe, then = Connected(broken(), label="probe"), Connected(work(), label="then")
    then.requires(probe)
    engine = Engine(watch, probe, then, observers=[seen.append])
    assert engine.orchestrate(timeout=60) is False
    assert str(watch) == "<Action `watch' stopped>".replace("Action", "Connected")
    assert re.fullmatch(r"2 of 3 failed \(probe\): probe-\d+: ValueError: no link", engine.why())
    assert isinstance(probe.exception(), ValueError)
    assert {event.target for event in seen} == {watch, probe, then}
    assert engine.shutdown() is True
    assert sorted(closed) == ["probe", "then", "watch"]
    assert closed[-1] == "then"  # it never started: those that did come first
    endless = Engine(Action(monitor()))
    assert endless.orchestrate(timeout=0.01) is False
