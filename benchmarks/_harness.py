"""Run rows: each repetition runs every contestant once, in turn, each in a fresh interpreter.

The order rotates from one repetition to the next, so that nobody always follows the same neighbour. A contestant that
can't run is skipped with its reason; one that fails or hangs is, too, and says so.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import _upstream
from benchmarks._rows import Contestant, Goal, Row

ROOT = Path(__file__).parent.parent
HANG = 180  # seconds for one contestant; the slowest takes about ten


@dataclass(slots=True)
class Figures:
    """What a contestant achieved: one figure per repetition, NaN-free and aligned with the others of its row."""

    values: list[float] = field(default_factory=list)
    note: str = ""
    skipped: str = ""  # why; then there are no values


@dataclass(slots=True)
class Outcome:
    """A row with the figures of its contestants, by name."""

    row: Row
    figures: dict[str, Figures]

    def versus(self, who: str, other: str, how: str = "times") -> list[float]:
        """Return ratio (or difference) of two contestants within each repetition; empty if one of them is missing."""
        pairs = zip(self.figures[who].values, self.figures[other].values, strict=False)
        if how == "more":
            return [mine - its for mine, its in pairs]
        return [mine / its for mine, its in pairs if its]

    def attained(self, goal: Goal) -> float | None:
        """Return the figure that the goal limits, or None if a contestant is missing."""
        mine = self.figures[goal.who].values
        values = mine if goal.how == "absolute" else self.versus(goal.who, goal.of, goal.how)
        return median(values) if values else None


def run(row: Row, repeat: int, *, quick: bool, progress: Callable[[str], object]) -> Outcome:
    """Carry out one row and return its figures."""
    outcome = Outcome(row, {contestant.name: Figures() for contestant in row.contestants})
    for number in range(min(repeat, row.repeat or repeat)):
        turn = number % len(row.contestants)
        order = row.contestants[turn:] + row.contestants[:turn]
        if row.one_interpreter:
            progress(f"row {row.key}, repetition {number + 1}")
            together(outcome, quick=quick)
            continue
        for contestant in order:
            figures = outcome.figures[contestant.name]
            if figures.skipped:
                continue
            progress(f"row {row.key}, repetition {number + 1}: {contestant.name}")
            answer = launch(row, contestant, quick=quick)
            if "skip" in answer:
                figures.skipped = answer["skip"]
                figures.values.clear()
            else:
                figures.values.append(answer["value"])
                figures.note = answer["note"]
    return outcome


def together(outcome: Outcome, *, quick: bool) -> None:
    """One repetition of a row whose contestants share an interpreter."""
    answer = launch(outcome.row, Contestant("all"), quick=quick)
    for name, figures in outcome.figures.items():
        if "skip" in answer:
            figures.skipped = answer["skip"]
            figures.values.clear()
        elif not figures.skipped:
            figures.values.append(answer["value"][name])


def launch(row: Row, contestant: Contestant, *, quick: bool) -> dict[str, Any]:
    """Run one contestant in a fresh interpreter; return its answer: `value` and `note`, or `skip`."""
    path = [str(ROOT)]
    if contestant.upstream:
        folder, reason = _upstream.folder()
        if folder is None:
            return {"skip": f"woflo 0.8 can't be had: {reason}"}
        path.insert(0, str(folder))
    size = (contestant.quick or row.quick) if quick else (contestant.size or row.size)
    measure = contestant.measure or row.measure
    command = [sys.executable, "-P", "-m", "benchmarks.contestant", row.module, measure]
    command += [contestant.entry or contestant.name, str(size)]
    try:
        done = subprocess.run(
            command, env=environment(path), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANG,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"skip": f"no result within {HANG} s"}
    lines = done.stdout.split("\n")
    answers = [line for line in lines if line.startswith(('{"value"', '{"skip"'))]
    if not answers:
        last = done.stderr.strip().split("\n")[-1][:200]
        return {"skip": f"failed with status {done.returncode}: {last}"}
    answer: dict[str, Any] = json.loads(answers[-1])
    return answer


def environment(path: list[str]) -> dict[str, str]:
    """Return the environment of a contestant: nobody's switches, byte code on, our path only."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "WOFLO_"))}
    return kept | {"PYTHONPATH": os.pathsep.join(path)}
