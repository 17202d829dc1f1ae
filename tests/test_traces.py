"""Recorded scientific workflows, replayed small: `benchmarks.traces` carries them out, and judges by the ledger."""

from __future__ import annotations

import sys

import pytest

from benchmarks import traces

RECORDED = {path.stem: traces.read(path) for path in traces.recorded()}
CRITICAL_PATH = 0.02  # seconds: all replays together take two seconds
WORKERS = 4

runners = pytest.mark.parametrize(
    "runner",
    ["thread", pytest.param("fork", marks=pytest.mark.skipif(sys.platform == "win32", reason="fork needs POSIX"))],
)
workflows = pytest.mark.parametrize("workflow", RECORDED.values(), ids=RECORDED)
alone = traces.Workflow("alone", {"a": (), "b": ("a",)}, {"a": 1.0, "b": 2.0})


def test_the_files_came_along():
    """The recorded workflows are where a fresh clone finds them, whole."""
    assert sorted(len(workflow.parents) for workflow in RECORDED.values()) == [5, 10, 22, 58]


@runners
@workflows
@pytest.mark.parametrize("part", [0.0, 0.05], ids=["", "killed"])
def test_replay(workflow, runner, part, tmp_path):
    """Each task ends once and after its parents, also when workers are killed and their tasks tried again."""
    workflow = workflow.with_critical_path(CRITICAL_PATH)
    killed = traces.doomed(workflow, part, seed=7)
    ledger = tmp_path / "ledger"
    engine = traces.replay(workflow, runner, ledger, workers=WORKERS, killed=killed)
    verdict = traces.decide(workflow, ledger, workers=WORKERS, killed=killed, allowance=0.0)
    assert not verdict.broken
    assert verdict.deaths == len(killed)
    assert not engine.failures, engine.why()
    assert verdict.makespan >= verdict.path > 0


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["start 1 0 a", "end 1 1 a"], "b did not run once"),
        (["start 1 0 a", "start 1 0.5 b", "end 1 1 a", "end 1 3 b"], "b started before a had ended"),
        (["start 1 0 a", "start 1 0 a", "end 1 1 a", "end 1 1 a", "start 1 1 b", "end 1 3 b"], "a did not run once"),
        (["start 1 0 a", "end 1 1 a", "start 2 1 a", "end 2 2 a", "start 1 2 b", "end 1 4 b"], "a did not run once"),
        (["start 1 0 a", "end 1 1 a", "start 1 1 b", "wrong 1 1 b", "end 1 3 b"], "b was not given the values"),
        (["start 1 0 a", "end 1 1 a", "start 1 1 b", "end 1 2 b"], "less than the critical path"),
        (["start 1 0 a", "end 1 1 a", "start 1 1 b", "end 1 3 b", "start 1 3 c"], "c is no task"),
        ([], "a did not run once"),
    ],
)
def test_the_judge_can_say_no(lines, complaint, tmp_path):
    """A ledger that tells of a broken promise is found out."""
    ledger = tmp_path / "ledger"
    ledger.write_text("".join(line + "\n" for line in lines))
    verdict = traces.decide(alone, ledger, workers=1, killed=set(), allowance=0.0)
    assert any(complaint in one for one in verdict.broken), verdict.broken


def test_the_bounds():
    """Critical path and Graham's bound of a small case, computed by hand."""
    fork = traces.Workflow("fork", {"a": (), "b": ("a",), "c": ("a",)}, {"a": 1.0, "b": 2.0, "c": 4.0})
    assert traces.critical_path(fork.parents, fork.seconds) == 5.0
    assert traces.graham(fork.parents, fork.seconds, 2) == 0.5 * 5.0 + 7.0 / 2
    assert fork.scaled(2).seconds["c"] == 8.0
