"""What observers see, and what the log says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from loguru import logger

import woflo
from woflo import events, task
from woflo.events import ObserverFailed, RunEnded, RunPending, RunStarted
from woflo.runners import AsyncTaskRun, MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun
from woflo.runners.multiprocess import ForkProcess, SpawnProcess
from woflo.testing import PATIENCE, Flag, Ledger

RUNNERS = {
    "sequential": SequentialTaskRun,
    "thread": ThreadTaskRun,
    "async": AsyncTaskRun,
    "fork": MultiprocessTaskRun.using(process_type=ForkProcess),
    "spawn": MultiprocessTaskRun.using(process_type=SpawnProcess),
}
every_runner = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS.keys())
apart = pytest.mark.parametrize("runner", list(RUNNERS.values())[1:], ids=list(RUNNERS)[1:])


def give(value=None):
    return value


def broken(message="broken"):
    raise ValueError(message)


def flaky():
    if woflo.current_run().attempt < 3:
        raise ConnectionError("down")
    return "up"


def hold(release):
    release.wait()


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def seen():
    """The events of this test, in order."""
    found = []
    with woflo.observe(found.append):
        yield found


@pytest.fixture
def log():
    """The records that loguru gets, as (level, message)."""
    found = []
    sink = logger.add(lambda message: found.append((message.record["level"].name, message.record["message"])), level=0)
    yield found
    logger.remove(sink)


def script(code, **environment):
    """Run a script as its own program; it tells on stdout and, as users see it, on stderr."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WOFLO", "LOGURU"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def kinds(found):
    return [type(event).__name__ for event in found]


# Events.


@every_runner
def test_a_success(seen, runner):
    """A run that succeeds starts and ends, on every runner."""
    run = task(give, name="gift", runner=runner)(5)
    assert run.get_result(timeout=PATIENCE) == 5
    until(lambda: len(seen) == 2)
    started, ended = seen
    assert isinstance(started, RunStarted)
    assert isinstance(ended, RunEnded)
    assert ended.failure is None
    assert ended.seconds >= 0
    for event in seen:
        assert (event.run, event.task, event.attempt) == (run.name, "gift", 1)
        assert event.runner == runner.__name__
    assert started.at <= ended.at <= time.monotonic()


@every_runner
def test_a_failure(seen, runner):
    """A run that fails ends with its failure in the event."""
    run = task(broken, runner=runner)()
    outcome = run.outcome()
    until(lambda: len(seen) == 2)
    assert kinds(seen) == ["RunStarted", "RunEnded"]
    assert isinstance(seen[1].failure, woflo.TaskFailure)
    assert str(seen[1].failure) == str(outcome)


@every_runner
def test_retries(seen, runner):
    """Each attempt starts, each failed one but the last tells its failure and its pause."""
    run = task(flaky, retries=5, retry_sleep_time=0.001, runner=runner)()
    assert run.get_result(timeout=PATIENCE) == "up"
    until(lambda: len(seen) == 6)
    assert kinds(seen) == ["RunStarted", "RunRetrying", "RunStarted", "RunRetrying", "RunStarted", "RunEnded"]
    assert [event.attempt for event in seen] == [1, 1, 2, 2, 3, 3]
    for event in seen[1:4:2]:
        assert event.delay == 0.001
        assert isinstance(event.failure.__cause__, ConnectionError)


@apart
def test_pending(seen, runner, tmp_path):
    """A run that has to wait for an input is pending before it starts."""
    release = Flag(tmp_path / "release")
    first = task(hold, name="first", runner=runner)(release)
    second = task(give, name="second", runner=runner)(first)
    until(lambda: any(isinstance(event, RunPending) for event in seen))
    release.set()
    assert second.wait(timeout=PATIENCE)
    until(lambda: sum(isinstance(event, RunEnded) for event in seen) == 2)
    assert kinds(event for event in seen if event.task == "second") == ["RunPending", "RunStarted", "RunEnded"]


def test_what_never_ran_never_started(seen):
    """After a failed input a run ends without having started."""
    bad = task(broken, name="bad", runner=SequentialTaskRun)()
    child = task(give, name="child", runner=SequentialTaskRun)(bad)
    assert isinstance(child.outcome(), woflo.DependencyFailure)
    until(lambda: any(isinstance(event, RunEnded) and event.task == "child" for event in seen))
    assert "RunStarted" not in kinds(event for event in seen if event.task == "child")


def test_a_stop(seen, tmp_path):
    """A stopped run ends once, with a StoppedFailure."""
    run = task(hold, runner=ThreadTaskRun)(Flag(tmp_path / "never"))
    until(lambda: run.state == "running")
    run.stop()
    until(lambda: "RunEnded" in kinds(seen))
    assert kinds(seen) == ["RunStarted", "RunEnded"]
    assert isinstance(seen[1].failure, woflo.StoppedFailure)


@apart
def test_events_come_with_nobody_waiting(runner):
    """An observer learns of the end of a run that nobody waits for or even keeps."""
    ended = threading.Event()
    with woflo.observe(lambda event: isinstance(event, RunEnded) and ended.set()):
        task(give, runner=runner)()
        assert ended.wait(PATIENCE)


def test_events_are_frozen(seen):
    """A fact can't be changed."""
    task(give, runner=SequentialTaskRun)()
    with pytest.raises(AttributeError):
        seen[0].run = "other"


def test_an_observation_ends():
    """close() or the end of the with block ends it; closing twice is fine."""
    found = []
    observation = woflo.observe(found.append)
    task(give, runner=SequentialTaskRun)()
    assert len(found) == 2
    observation.close()
    observation.close()
    task(give, runner=SequentialTaskRun)()
    assert len(found) == 2


def test_two_observations_of_one_callback():
    """Ending one observation doesn't end another one of the same callback."""
    found = []
    first = woflo.observe(found.append)
    with woflo.observe(found.append):
        first.close()
        first.close()
        task(give, runner=SequentialTaskRun)()
    assert len(found) == 2


def test_an_observer_that_raises(log):
    """An observer that raises is named once and dropped; the run and the others don't notice."""
    found, calls = [], []

    def bad_observer(event):
        calls.append(event)
        raise RuntimeError("a bad observer")

    with woflo.observe(bad_observer), woflo.observe(found.append):
        give_one = task(give, runner=SequentialTaskRun)
        assert give_one(1).get_result() == 1
        assert give_one(2).get_result() == 2
    assert len(calls) == 1
    (told,) = (event for event in found if isinstance(event, ObserverFailed))
    assert "bad_observer" in told.name
    assert isinstance(told.error, RuntimeError)
    assert kinds(event for event in found if event is not told) == ["RunStarted", "RunEnded"] * 2
    (record,) = log
    assert record[0] == "ERROR"
    assert "bad_observer" in record[1]
    assert "a bad observer" in record[1]


def test_a_callback_that_raises_is_named(log):
    """A done-callback that raises is named in the log."""

    def bad_callback(_run):
        raise RuntimeError("a bad callback")

    run = task(give, runner=SequentialTaskRun)(1)
    run.add_done_callback(bad_callback)
    until(lambda: bool(log))
    (record,) = log
    assert record[0] == "ERROR"
    assert "bad_callback" in record[1]


def test_an_observer_may_use_woflo():
    """An observer may start runs and wait for them."""
    results = []

    def observer(event):
        if isinstance(event, RunEnded) and event.task == "outer":
            results.append(task(give, name="inner", runner=MultiprocessTaskRun)("inner").get_result(timeout=PATIENCE))

    with woflo.observe(observer):
        task(give, name="outer", runner=MultiprocessTaskRun)().wait(timeout=PATIENCE)
        until(lambda: results == ["inner"])


def test_observers_stay_in_their_process(tmp_path):
    """A worker is nobody's observer: runs inside it aren't told to the parent's callbacks there."""
    ledger = Ledger(tmp_path / "ledger")

    def outer():
        return task(give, name="inner", runner=SequentialTaskRun)(1).get_result()

    with woflo.observe(lambda event: ledger.add(f"{os.getpid()} {event.task}")):
        assert task(outer, runner=MultiprocessTaskRun)().get_result(timeout=PATIENCE) == 1
        until(lambda: len(ledger.lines()) == 2)
    assert ledger.lines() == [f"{os.getpid()} outer"] * 2


@every_runner
def test_success_tells_nobody_when_nobody_listens(monkeypatch, runner):
    """Without an observer no event is made of a run that succeeds."""
    made = []
    monkeypatch.setattr(events, "emit", made.append)
    assert task(give, runner=runner)(1).get_result(timeout=PATIENCE) == 1
    assert made == []


# The log.


@every_runner
def test_retries_are_logged_once(log, runner):
    """Each retry is one WARNING with the run, the attempt, the delay and the exception."""
    run = task(flaky, retries=5, retry_sleep_time=0.01, runner=runner)()
    assert run.get_result(timeout=PATIENCE) == "up"
    assert [level for level, _ in log] == ["WARNING", "WARNING"]
    for number, (_, message) in enumerate(log, start=1):
        assert run.name in message
        assert f"attempt {number} of 6" in message
        assert "0.01 s" in message
        assert "ConnectionError: down" in message


@every_runner
def test_failures_are_logged_once(log, runner):
    """A failure is one ERROR with the run and the user's traceback, however often it is asked for."""
    run = task(broken, runner=runner)("no price")
    for _ in range(2):
        assert isinstance(run.exception(), ValueError)
    until(lambda: bool(log))
    ((level, message),) = log
    assert level == "ERROR"
    assert run.name in message
    assert "in broken" in message
    assert "test_events.py" in message
    assert "ValueError: no price" in message
    assert f"{os.sep}woflo{os.sep}runners" not in message, "woflo's own frames don't help"


def test_success_and_stops_are_not_logged(log, tmp_path):
    """The log is quiet while nothing goes wrong, also when the user stops a run."""
    assert task(give)(1).get_result(timeout=PATIENCE) == 1
    run = task(hold, runner=ThreadTaskRun)(Flag(tmp_path / "never"))
    run.stop()
    assert run.state == "stopped"
    assert log == []


def test_a_log_record_names_its_run():
    """The record carries run, task and attempt for sinks that filter by them."""
    extras = []
    sink = logger.add(lambda message: extras.append(message.record["extra"]), level=0)
    try:
        run = task(broken, name="bad", runner=SequentialTaskRun)()
        assert run.exception() is not None
    finally:
        logger.remove(sink)
    assert extras == [{"run": run.name, "task": "bad", "attempt": 1}]


def test_braces_and_markup_are_text(log):
    """A message with braces, tags or control characters is logged as text."""
    run = task(broken, runner=SequentialTaskRun)("{oops} {0} <red>x</red> \x1b[31m\r")
    assert run.exception() is not None
    ((_, message),) = log
    assert "{oops} {0} <red>x</red>" in message
    assert "\x1b" not in message
    assert "\r" not in message


def test_loguru_is_never_reconfigured():
    """Sinks, levels and patchers of the application stay as they are."""
    before = dict(logger._core.handlers), dict(logger._core.levels), logger._core.patcher, logger._core.extra.copy()
    task(give)().wait(timeout=PATIENCE)
    assert isinstance(task(broken, retries=1)().exception(), ValueError)
    after = dict(logger._core.handlers), dict(logger._core.levels), logger._core.patcher, logger._core.extra.copy()
    assert after == before


DEBUG = """
import woflo
from woflo.runners import MultiprocessTaskRun, ThreadTaskRun

@woflo.task
def double(x):
    return 2 * x

assert double(2).get_result() == 4
assert double.options(runner=ThreadTaskRun)(3).get_result() == 6
"""


def test_starts_and_ends_are_logged_on_request():
    """WOFLO_LOG=debug logs starts and ends; without it a program that works says nothing."""
    loud, quiet = script(DEBUG, WOFLO_LOG="debug"), script(DEBUG)
    assert (loud.returncode, quiet.returncode) == (0, 0), loud.stderr + quiet.stderr
    assert quiet.stderr == ""
    lines = loud.stderr.splitlines()
    for name in ("double-1", "double-2"):
        about = [line for line in lines if name in line]
        assert len(about) == 2, loud.stderr
        assert "started" in about[0]
        assert "ended" in about[1]
        assert all("DEBUG" in line for line in about)


SECRET = """
import os, sys
from loguru import logger
import woflo
from woflo.runners import SequentialTaskRun, ThreadTaskRun, MultiprocessTaskRun

logger.remove()
logger.add(sys.stderr, level=0, diagnose=True, backtrace=True, format="{message} {extra}")
events = []

def charge(card, *, pin):
    number = card + pin
    raise ValueError("declined")

with woflo.observe(events.append):
    for runner in (SequentialTaskRun, ThreadTaskRun, MultiprocessTaskRun):
        run = woflo.task(charge, retries=1, runner=runner)("can" + "ary", pin="can" + "ary")
        assert isinstance(run.exception(), ValueError)
        print(repr(run), str(run.outcome()), repr(run.outcome()))
        charge_slowly = woflo.task(lambda card: None, name="slow", runner=runner)("can" + "ary")
        charge_slowly.wait()
print(repr(events))
"""


def test_argument_values_are_never_logged():
    """No log line, event, repr or failure tells the value of an argument."""
    done = script(SECRET, WOFLO_LOG="debug")
    assert done.returncode == 0, done.stderr
    assert "declined" in done.stderr
    assert done.stderr.count("started") == 9
    text = (done.stdout + done.stderr).replace('"can" + "ary"', "")
    assert "canary" not in text


# What nobody looked at.

UNSEEN = """
import sys
import woflo
from woflo.runners import SequentialTaskRun, ThreadTaskRun

@woflo.task
def bad(how=None):
    raise ValueError("x")

{body}
"""


def last_line(body):
    done = script(UNSEEN.format(body=body))
    lines = [line for line in done.stderr.splitlines() if "nobody looked at" in line]
    assert len(lines) <= 1, done.stderr
    return lines[0] if lines else ""


def test_failures_nobody_looked_at_are_counted_at_exit():
    """At exit one line counts the failures that nobody asked about, with the runs' names."""
    line = last_line(
        "bad()\nbad.options(name='worse', runner=ThreadTaskRun)()\nbad.options(runner=SequentialTaskRun)().outcome()"
    )
    assert "ERROR" in line
    assert "2 failed runs that nobody looked at" in line
    assert "bad-1" in line
    assert "worse-1" in line


def test_one_failure_is_one_run():
    """The line speaks proper English."""
    assert "1 failed run that nobody looked at: bad-1" in last_line("bad()")


@pytest.mark.parametrize(
    "look",
    [
        "bad().outcome()",
        "bad().exception()",
        "bad().get_result(raise_exceptions=False)",
        "try: bad().get_result()\nexcept ValueError: pass",
        "woflo.gather(bad(), bad(), raise_exceptions=False)",
        "try: woflo.gather(bad())\nexcept ValueError: pass",
        "import asyncio\nasync def main():\n    try: await bad()\n    except ValueError: pass\nasyncio.run(main())",
        "bad(bad()).outcome()",
        "run = bad(); run.stop(); run.outcome()",
    ],
)
def test_a_failure_that_was_looked_at_is_not_counted(look):
    """Whoever asked in any way, or was told by a run that depends on it, has looked."""
    assert last_line(look) == ""


def test_root_causes_and_dependents_are_counted_apart():
    """One failed input with a thousand dependents is one error in the log, and one line at exit that tells both numbers."""
    done = script(
        UNSEEN.format(body="@woflo.task\ndef child(value): pass\nfirst = bad()\nfor _ in range(1000): child(first)")
    )
    errors = [line for line in done.stderr.splitlines() if "| ERROR" in line]
    assert len(errors) == 2, done.stderr
    assert "bad-1 (" in errors[0]
    assert (
        "1 failed run that nobody looked at: bad-1; 1000 more did not run because an input failed: child-" in errors[1]
    )
    assert "(990 more)" in errors[1]


def test_dependents_are_logged_on_request():
    """WOFLO_LOG=debug tells of each run that did not run, and why."""
    code = UNSEEN.format(body="@woflo.task\ndef child(value): pass\nchild(bad())")
    line = next(line for line in script(code, WOFLO_LOG="debug").stderr.splitlines() if "not run, because" in line)
    assert "DEBUG" in line
    assert "child-1" in line


def test_a_dependent_of_a_stopped_run_is_logged():
    """A stop is not logged, so what did not run because of it is."""
    body = "@woflo.task\ndef child(value): pass\nimport time\nrun = woflo.task(time.sleep)(9)\nchild(run)\nrun.stop()"
    assert "child-1: not run, because its input failed: sleep-1" in script(UNSEEN.format(body=body)).stderr


def test_a_success_nobody_looked_at_is_fine():
    """Only failures are counted: fire and forget is no offence."""
    assert script("import woflo\nwoflo.task(len)('abc')\n").stderr == ""


def test_a_log_that_raises_is_not_the_runs_answer(monkeypatch, capsys):
    """A warning that the log can't take is written to standard error, and nobody gets the log's own exception."""
    import loguru

    def broken(*_):
        raise RuntimeError("release unlocked lock")

    monkeypatch.setattr(loguru.logger, "log", broken)
    events.warn("mind the threads")
    assert capsys.readouterr().err == "mind the threads (RuntimeError: release unlocked lock while logging it)\n"


def test_the_exit_waits_for_what_is_being_told(tmp_path):
    """A failure that another thread is still writing to the log when the program ends is written."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, threading, time\n"
        "import woflo\n"
        "from woflo import task\n"
        "from woflo.runners import ThreadTaskRun\n"
        "@task(runner=ThreadTaskRun)\n"
        "def broken():\n"
        "    raise ValueError('no')\n"
        "def slow(event):\n"
        "    if type(event).__name__ == 'RunEnded':\n"
        "        time.sleep(0.5)\n"
        "        print('told', flush=True)\n"
        "woflo.observe(slow)\n"
        "run = broken()\n"
        "while run._result is None:\n"
        "    time.sleep(0.001)\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout == "told\n", done.stderr
