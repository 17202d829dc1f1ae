"""The examples of seed 002 as they stand there.

Changed are only the seed's own slips (the colon after `if duration < 10`, the missing `import time` and
`from woflo import task` of some blocks), and the clock: `time.sleep` is shortened to a hundredth, so
that "5 s" is 0.05 s, wherever the program runs. The pauses of five seconds between attempts are left to
`retry_sleep_time` with the seed's own numbers in a second, shortened version.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from woflo.testing import PATIENCE

# Runs before each example: a script's `time.sleep` is a hundredth of what it says, also in its workers.
QUICK = """
import time
_sleep = time.sleep
time.sleep = lambda seconds: _sleep(seconds / 100)
"""


def script(tmp_path, code, *, quick=True):
    """Run an example as a user would, from a file; what it prints is the answer."""
    path = tmp_path / "example.py"
    path.write_text((QUICK if quick else "") + textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, str(path)],
        env={key: value for key, value in os.environ.items() if not key.startswith(("WOFLO", "PYTHONUNBUFFERED"))},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


SLEEPY = """
import time
from woflo import task


@task
def sleepy_worker():
    time.sleep(5)
    print('I am done')


for _ in range(10):
    sleepy_task_run = sleepy_worker()
"""


def test_ten_sleepy_workers(tmp_path):
    """Ten workers run in parallel without blocking the main thread, and all are carried out."""
    done = script(tmp_path, SLEEPY)
    assert done.stdout == "I am done\n" * 10
    assert done.stderr == ""


def test_the_main_thread_is_not_blocked(tmp_path):
    """The loop is through before the first worker has slept: it doesn't wait for any of them."""
    done = script(tmp_path, SLEEPY + "\nprint('main is through', flush=True)\n")
    assert done.stdout.splitlines()[0] == "main is through"
    assert done.stdout.count("I am done") == 10


UNSTABLE = """
from woflo import task


@task(retries=2, retry_sleep_time=5)
def fetch_data_from_unstable_api():
    ...
"""


def test_retries(tmp_path):
    """The example as it stands; then three attempts in total, with a shorter pause between them."""
    script(tmp_path, UNSTABLE + "\nassert fetch_data_from_unstable_api().get_result() is None\n")
    body = """
    attempts = woflo.current_run().attempt
    print('attempt', attempts, flush=True)
    raise ConnectionError('unstable')
"""
    code = "import woflo\n" + UNSTABLE.replace("    ...\n", body.lstrip("\n"))
    code = code.replace("retry_sleep_time=5", "retry_sleep_time=0.05")
    done = script(tmp_path, code + "\nassert isinstance(fetch_data_from_unstable_api().exception(), ConnectionError)\n")
    assert done.stdout == "attempt 1\nattempt 2\nattempt 3\n"
    assert done.stderr.count("WARNING") == 2


SEQUENTIAL = """
import time
from woflo import task
from woflo.runners import SequentialTaskRun


@task(runner=SequentialTaskRun)
def sequential_sleepy_worker():
    time.sleep(5)
    print('I am done')


for _ in range(10):
    sleepy_task_run = sequential_sleepy_worker()
"""


def test_sequential(tmp_path):
    """Sequential workers run one after the other, each within its call."""
    done = script(tmp_path, SEQUENTIAL + "\nprint('main is through')\n")
    assert done.stdout == "I am done\n" * 10 + "main is through\n"


NAP = """
import time
from woflo import task

@task
def quick_nap(duration):
    time.sleep(duration)
    if duration < 10:
        raise Exception("Ouch oof")
    else:
        return 'Well rested'

napping = quick_nap(10)

assert napping.is_running()

napping.wait()
assert napping.get_result() == "Well rested"
"""


def test_quick_nap(tmp_path):
    """A run can be asked whether it is running, waited for, and asked for its result."""
    script(tmp_path, NAP)


def test_quick_nap_that_is_too_short(tmp_path):
    """The task's own exception is what get_result raises."""
    done = script(
        tmp_path,
        NAP
        + """
try:
    quick_nap(5).get_result()
except Exception as error:
    print(type(error).__name__, error)
quick_nap(1000).stop()
""",
    )
    assert done.stdout == "Exception Ouch oof\n"


SPAWN = """
import time
from woflo import task
from woflo.runners.multiprocess import SpawnProcess, MultiprocessTaskRun

MultiprocessTaskRun.process_type = SpawnProcess

@task(runner=MultiprocessTaskRun)
def sleepy_worker():
    time.sleep(5)
    print('I am done')
"""


def test_spawn(tmp_path):
    """Setting process_type makes the workers spawned ones; no `if __name__` guard is needed."""
    code = SPAWN.replace("time.sleep(5)", "time.sleep(0.05)") + "\nsleepy_worker().get_result()\n"
    done = script(tmp_path, code, quick=False)
    assert done.stdout == "I am done\n"
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="fork needs POSIX")
def test_fork_inherits_all_state(tmp_path):
    """ForkProcess inherits all of the main process's state, SpawnProcess the globals that the task names."""
    code = """
    from woflo import task
    from woflo.runners.multiprocess import ForkProcess, SpawnProcess, MultiprocessTaskRun

    state = []
    state.append("set at run time")

    @task
    def look():
        return state

    for MultiprocessTaskRun.process_type in (ForkProcess, SpawnProcess):
        assert look().get_result() == ["set at run time"]
    """
    script(tmp_path, code)


KNOWN_ISSUE = """
from multiprocess import get_context
from multiprocess.sharedctypes import Value
from woflo import task
from woflo.runners.multiprocess import SpawnProcess, MultiprocessTaskRun

MultiprocessTaskRun.process_type = SpawnProcess
counter = Value('i', 0, ctx=get_context('spawn'))

@task
def count(shared):
    with shared.get_lock():
        shared.value += 1

for run in [count(counter) for _ in range(3)]:
    run.wait()
print(counter.value)
"""


def test_the_known_issue(tmp_path):
    """A multiprocess.sharedctypes.Value can be an argument of a spawned task (uqfoundation/multiprocess#115)."""
    done = script(tmp_path, KNOWN_ISSUE)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_the_runs_methods():
    """Each TaskRun has the methods that the seed names, whatever its runner."""
    from woflo import BaseTaskRun
    from woflo.runners import MultiprocessTaskRun, SequentialTaskRun

    for runner in (BaseTaskRun, SequentialTaskRun, MultiprocessTaskRun):
        for name in ("get_result", "wait", "stop", "is_running"):
            assert callable(getattr(runner, name))
