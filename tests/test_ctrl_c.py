"""Ctrl-C at points all over woflo's code: what a program holds then still ends, and the program can go on."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.ctrl_c import SCENARIOS
from woflo.testing import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals need POSIX")

# these choose their runners themselves
ELSEWHERE = {"actions", "nested", "lazies"}
# a strike costs as much as the scenario
STRIDE = {"sequential": 1, "thread": 1, "pool": 5, "fork": 17}
# CPython 3.12.1 dies of SIGSEGV, collecting garbage, where opcodes of a coroutine were traced that Ctrl-C has cut short;
# thousands of real SIGINTs without tracing do it no harm
CRASHES = {"lazies"} if sys.version_info[:2] == (3, 12) else set()
CASES = [
    (scenario, runner)
    for scenario in SCENARIOS
    for runner in STRIDE
    if scenario not in CRASHES
    if scenario not in ELSEWHERE or runner == ("fork" if scenario == "lazies" else "thread")
]


def strike(scenario: str, runner: str, *more: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.ctrl_c", scenario, runner, *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 strikes" not in done.stdout


@pytest.mark.timeout(150)
@pytest.mark.parametrize(("scenario", "runner"), CASES)
def test_ctrl_c_at_many_points(scenario, runner):
    """Struck at points spread over all of them, nothing hangs, nothing is lost without a word, and calls still work."""
    stride = STRIDE[runner] if scenario not in ELSEWHERE else 13
    if scenario == "many":  # it has many points, too
        stride *= 3
    strike(scenario, runner, "--every", str(stride))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("scenario", "runner"), CASES)
def test_ctrl_c_at_every_point(scenario, runner):
    """The same at each and every point."""
    strike(scenario, runner)


def test_ctrl_c_twice_while_a_run_is_started():
    """A run that nobody has and nobody knows, because Ctrl-C came again while it was being ended, doesn't keep the program."""
    script = """
        import woflo
        from woflo.runners import MultiprocessTaskRun, _supervisor
        def strike(*_, **__):
            raise KeyboardInterrupt
        @woflo.task(runner=MultiprocessTaskRun)
        def same(x):
            return x
        assert same(1).get_result() == 1
        start, _supervisor.Supervisor.start = _supervisor.Supervisor.start, strike
        stop, MultiprocessTaskRun.stop = MultiprocessTaskRun.stop, strike
        try:
            same(2)
        except KeyboardInterrupt:
            print("struck")
        _supervisor.Supervisor.start, MultiprocessTaskRun.stop = start, stop
        print(same(3).get_result())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout.split()) == (0, ["struck", "3"]), done.stderr
