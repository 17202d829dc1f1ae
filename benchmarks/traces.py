"""Replay recorded scientific workflows: `python -m benchmarks.traces [--scale S] [--runner thread|fork] [--kill 0.05]`.

A workflow is a WfCommons file (`benchmarks/traces/`): its tasks sleep as long as they took then, scaled. Each of them
writes its starts and ends to a ledger, by one appending write each, past woflo; the promises are decided from the ledger:

    each task ends once, its attempts come one after the other, and there is a second one only after the first was killed
    no task starts before all its parents have ended, and it is given their values
    the makespan lies between the critical path and Graham's bound for m workers (R. L. Graham, "Bounds on
    Multiprocessing Timing Anomalies", 1969): (1 - 1/m) x critical path + total/m, each task longer by an allowance

With `--kill`, that part of the workers (seeded) kills itself with SIGKILL in the middle of its first attempt, and the tasks
have two retries. A thread can't be killed: there such an attempt raises.

Ends with status 1 if a task ran twice, not at all, or too early; a makespan above the bound is printed and is no error.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks import _machine
from woflo import current_run, task
from woflo.engine import Engine
from woflo.graph import Graph, Node
from woflo.runners import MultiprocessTaskRun, ThreadTaskRun
from woflo.runners.multiprocess import ForkProcess

FOLDER = Path(__file__).with_name("traces")
RUNNERS = {"thread": ThreadTaskRun, "fork": MultiprocessTaskRun.using(process_type=ForkProcess)}
ALLOWANCE = {
    "thread": 0.002,
    "fork": 0.008,
}  # seconds per task beyond its sleep: start, two records, end; on a busy machine
RETRIES = 2
PATIENCE = 120.0  # seconds after which a replay counts as hung


@dataclass(frozen=True, slots=True)
class Workflow:
    """What is replayed: per task its parents and how long it took, in seconds; parents first."""

    name: str
    parents: dict[str, tuple[str, ...]]
    seconds: dict[str, float]

    def scaled(self, scale: float) -> "Workflow":
        return Workflow(self.name, self.parents, {one: seconds * scale for one, seconds in self.seconds.items()})

    def with_critical_path(self, seconds: float) -> "Workflow":
        return self.scaled(seconds / critical_path(self.parents, self.seconds))


def read(path: Path) -> Workflow:
    workflow = json.loads(path.read_text(encoding="utf-8"))["workflow"]
    parents = {one["id"]: tuple(one["parents"]) for one in workflow["specification"]["tasks"]}
    seconds = {one["id"]: float(one["runtimeInSeconds"]) for one in workflow["execution"]["tasks"]}
    graph = Graph(Node(one, None, needs) for one, needs in parents.items())
    ordered = {node.target: node.requires for node in graph.topological()}
    return Workflow(path.stem, ordered, {one: seconds[one] for one in ordered})


def recorded() -> list[Path]:
    """Return the files that come along, the smallest workflow first."""
    return sorted(FOLDER.glob("*.json"), key=lambda path: path.stat().st_size)


def critical_path(parents: dict[str, tuple[str, ...]], seconds: dict[str, float]) -> float:
    """Return the length of the longest path; `parents` has the parents first."""
    ends: dict[str, float] = {}
    for one, needs in parents.items():
        ends[one] = seconds[one] + max((ends[need] for need in needs), default=0.0)
    return max(ends.values())


def graham(parents: dict[str, tuple[str, ...]], seconds: dict[str, float], workers: int) -> float:
    """Return what no list schedule on so many workers exceeds."""
    return (1 - 1 / workers) * critical_path(parents, seconds) + sum(seconds.values()) / workers


# ---------------------------------------------------------------------- carrying out


def carry_out(
    name: str, seconds: float, parents: tuple[str, ...], ledger: str, doomed: str, given: tuple[str, ...]
) -> str:
    """Do what a recorded task does here: say so, sleep, say so. In a worker, or in a thread."""
    run = current_run()
    attempt = run.attempt if run is not None else 0
    note(ledger, "start", name, attempt)
    if given != parents:
        note(ledger, "wrong", name, attempt)
    if doomed and attempt == 1:
        time.sleep(seconds / 2)
        note(ledger, "kill", name, attempt)
        if doomed == "raise":
            raise InterruptedError("what a death is to a process")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)
    note(ledger, "end", name, attempt)
    return name


def note(ledger: str, what: str, name: str, attempt: int) -> None:
    """Append a record. A parent's end is in the file before woflo can know of it, so the order of the lines decides."""
    file = os.open(ledger, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{what} {attempt} {time.monotonic()!r} {name}\n".encode())
    finally:
        os.close(file)


def doomed(workflow: Workflow, part: float, seed: int) -> set[str]:
    """Choose the tasks whose first attempt is killed: one at least, if any."""
    if not part:
        return set()
    names = list(workflow.parents)
    return set(random.Random(seed).sample(names, max(1, round(part * len(names)))))


def replay(workflow: Workflow, runner: str, ledger: Path, *, workers: int, killed: set[str]) -> Engine:
    """Run a workflow once; what happened is in the ledger."""
    death = "raise" if runner == "thread" else "kill"

    def node(name: str) -> Node:
        parents, seconds = workflow.parents[name], workflow.seconds[name]
        fate = death if name in killed else ""

        def work(*given: str) -> str:
            return carry_out(name, seconds, parents, str(ledger), fate, given)

        call = task(work, name=name, runner=RUNNERS[runner], retries=RETRIES if killed else 0)
        return Node(name, call, parents, seconds=seconds)

    engine = Engine(Graph(map(node, workflow.parents)), window=workers)
    engine.orchestrate(timeout=PATIENCE)
    return engine


# ---------------------------------------------------------------------- deciding


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a ledger tells. `broken` holds the promises that were not kept, in words."""

    broken: list[str]
    makespan: float  # seconds from the first start to the last end
    path: float  # the critical path, as it had to be slept
    bound: float  # Graham's, with the allowance
    deaths: int


def decide(workflow: Workflow, ledger: Path, *, workers: int, killed: set[str], allowance: float) -> Verdict:
    """Read a ledger against the workflow that it is of."""
    broken: list[str] = []
    records: dict[str, list[tuple[str, int]]] = {name: [] for name in workflow.parents}
    ended: set[str] = set()
    times: list[float] = []
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else []
    for line in lines:
        what, attempt, moment, name = line.split(" ", 3)
        if name not in records:
            broken.append(f"{name} is no task of {workflow.name}")
            continue
        times.append(float(moment))
        records[name].append((what, int(attempt)))
        if what == "start":
            early = [need for need in workflow.parents[name] if need not in ended]
            if early:
                broken.append(f"{name} started before {', '.join(early)} had ended")
        elif what == "end":
            ended.add(name)
        elif what == "wrong":
            broken.append(f"{name} was not given the values of its parents")
    for name, all_told in records.items():
        told = [record for record in all_told if record[0] != "wrong"]
        once = [("start", 1), ("end", 1)]
        again = [("start", 1), ("kill", 1), ("start", 2), ("end", 2)]
        if told != (again if name in killed else once):
            broken.append(f"{name} did not run once: {told}")
    slept = {name: seconds * (1.5 if name in killed else 1) for name, seconds in workflow.seconds.items()}
    longer = {name: seconds + allowance * (2 if name in killed else 1) for name, seconds in slept.items()}
    makespan = max(times) - min(times) if times else 0.0
    path = critical_path(workflow.parents, slept)
    if times and makespan < path:
        broken.append(f"{makespan:.6f} s is less than the critical path, {path:.6f} s")
    deaths = Counter(line.split(" ", 1)[0] for line in lines)["kill"]
    return Verdict(broken, makespan, path, graham(workflow.parents, longer, workers), deaths)


# ---------------------------------------------------------------------- the table


def main() -> int:
    asked = arguments()
    import_module("loguru")  # which the first retry's warning would load: 40 ms in one of the makespans
    print(f"{_machine.line()}\n{asked.workers} workers; seconds\n")
    print("| workflow | tasks | runner | killed | critical path | makespan | Graham | orchestrate | verdict |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---|")
    wrong = 0
    for path in asked.files or recorded():
        workflow = read(path)
        workflow = workflow.scaled(asked.scale) if asked.scale else workflow.with_critical_path(1.0)
        for runner in [asked.runner] if asked.runner else list(RUNNERS):
            killed = doomed(workflow, asked.kill, asked.seed)
            allowance = ALLOWANCE[runner] if asked.allowance is None else asked.allowance
            with tempfile.TemporaryDirectory() as folder:
                ledger = Path(folder, "ledger")
                begin = time.monotonic()
                engine = replay(workflow, runner, ledger, workers=asked.workers, killed=killed)
                took = time.monotonic() - begin
                verdict = decide(workflow, ledger, workers=asked.workers, killed=killed, allowance=allowance)
            broken = list(verdict.broken)
            if engine.failures:
                broken.append(engine.why())
            wrong += bool(broken)
            words = "; ".join(broken) or ("ok" if verdict.makespan <= verdict.bound else "above the bound")
            print(
                f"| {workflow.name} | {len(workflow.parents)} | {runner} | {verdict.deaths} | {verdict.path:.3f} "
                f"| {verdict.makespan:.3f} | {verdict.bound:.3f} | {took:.3f} | {words} |",
                flush=True,
            )
    return 1 if wrong else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.traces", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="WfFormat files (benchmarks/traces/*.json)")
    parser.add_argument("--scale", type=float, help="seconds per recorded second (so that the critical path takes 1 s)")
    parser.add_argument("--runner", choices=RUNNERS, help="where the tasks run (each in turn)")
    parser.add_argument("--kill", type=float, default=0.0, help="part of the workers that kill themselves (0)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (1)")
    parser.add_argument("--workers", type=int, default=4, help="nodes at once, Graham's m (4)")
    parser.add_argument("--allowance", type=float, help=f"seconds per task beyond its sleep ({ALLOWANCE})")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
