"""ForkServerProcess: fresh workers made by a small helper process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import woflo
from woflo.runners import MultiprocessTaskRun
from woflo.runners.multiprocess import ForkServerProcess
from woflo.testing import PATIENCE, Ledger, RunnerContract

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a ForkServerProcess is a SpawnProcess")

RUNNER = MultiprocessTaskRun.using(process_type=ForkServerProcess)


@pytest.fixture(autouse=True, scope="module")
def standing_zygote():
    """One helper for all tests: it is there before anything is counted, and ends with the last."""
    from woflo.runners import _zygote

    woflo.task(int, runner=RUNNER)().wait()
    yield
    if _zygote._zygote is not None:
        _zygote._zygote.close()


def zygote():
    from woflo.runners import _zygote

    return _zygote._zygote


class TestForkServer(RunnerContract):
    runner = RUNNER
    in_process = False
    can_kill = True
    start_seconds = 3.0


def look():
    return {
        "folder": os.getcwd(),
        "environment": os.environ.get("ZYGOTE_TEST"),
        "path": "/zygote/test" in sys.path,
        "threads": threading.active_count(),
        "parent": os.getppid(),
        "group": os.getpgrp() == os.getpid(),
        "argv": sys.argv,
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "pid": os.getpid(),
    }


def test_each_run_has_a_fresh_process_that_is_a_child_of_ours():
    """No process serves two runs; each is this process's own child, in a group of its own."""
    runs = [woflo.task(look, runner=RUNNER)() for _ in range(10)]
    seen = [run.get_result(timeout=PATIENCE) for run in runs]
    assert len({one["pid"] for one in seen}) == 10
    assert {one["parent"] for one in seen} == {os.getpid()}
    assert all(one["group"] for one in seen)
    assert {one["threads"] for one in seen} == {1}
    assert len({len(one["descriptors"]) for one in seen}) == 1


def test_a_worker_sees_the_process_as_it_is_at_the_start(tmp_path, monkeypatch):
    """Working directory, environment, sys.path and arguments are those of the caller, not those of the helper's beginning."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZYGOTE_TEST", "now")
    monkeypatch.syspath_prepend("/zygote/test")
    seen = woflo.task(look, runner=RUNNER)().get_result(timeout=PATIENCE)
    assert seen["folder"] == str(tmp_path)
    assert seen["environment"] == "now"
    assert seen["path"]
    assert seen["argv"] == sys.argv


def test_how_a_worker_ended_is_known():
    """A signal and an exit code are told as for any worker."""
    assert woflo.task(os.abort, runner=RUNNER)().outcome(timeout=PATIENCE).signal == "SIGABRT"
    assert woflo.task(os._exit, runner=RUNNER)(3).outcome(timeout=PATIENCE).exit_code == 3


def script(source, *arguments):
    """Run a script that may leave processes of the standard library's behind until its end; what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(woflo.__file__))}
    command = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert not done.stderr, done.stderr
    return done.stdout


def test_a_killed_helper_is_replaced(tmp_path):
    """The runs under way go on without it, and the next call has a new one."""
    source = """
        import os, sys, woflo
        from woflo.runners import MultiprocessTaskRun, ForkServerProcess, _zygote
        from woflo.testing import Flag

        started, release = Flag(sys.argv[1] + "/started"), Flag(sys.argv[1] + "/release")

        def hold():
            started.set()
            release.wait()
            return "released"

        runner = MultiprocessTaskRun.using(process_type=ForkServerProcess)
        run = woflo.task(hold, runner=runner)()
        started.wait()
        old = _zygote._zygote.pid
        os.kill(old, 9)
        print(woflo.task(abs, runner=runner)(-3).get_result(timeout=20))
        release.set()
        print(run.get_result(timeout=20), _zygote._zygote.pid != old)
    """
    assert script(source, tmp_path) == "3\nreleased True\n"


def test_what_multiprocess_passes_on():
    """Locks and connections of multiprocess arrive, by descriptors of the same numbers."""
    source = """
        import multiprocess, woflo
        from woflo.runners import MultiprocessTaskRun, ForkServerProcess

        context = multiprocess.get_context("spawn")
        lock, (receiver, sender) = context.Lock(), context.Pipe(duplex=False)

        def send(lock, sender):
            with lock:
                sender.send("sent")

        runner = MultiprocessTaskRun.using(process_type=ForkServerProcess)
        woflo.task(send, runner=runner)(lock, sender).get_result(timeout=20)
        print(receiver.recv())
    """
    assert script(source) == "sent\n"


SCRIPT = """
    import os, sys, time, woflo
    from woflo.runners import MultiprocessTaskRun, ForkServerProcess
    from woflo.testing import Ledger

    def work(path):
        Ledger(path).add(str(os.getpid()))
        time.sleep(1000)

    run = woflo.task(work, runner=MultiprocessTaskRun.using(process_type=ForkServerProcess))(sys.argv[1])
    from woflo.runners import _zygote
    Ledger(sys.argv[1]).add(str(_zygote._zygote.pid))
    run.wait()
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_all_of_it_ends_with_the_parent(tmp_path):
    """A killed parent leaves neither helper nor worker."""
    ledger = Ledger(tmp_path / "ledger")
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(woflo.__file__))}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), ledger.path]
    parent = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + PATIENCE
    while len(ledger.lines()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(PATIENCE)
    while any(alive(int(pid)) for pid in ledger.lines()):
        assert time.monotonic() < deadline, "something lives on"
        time.sleep(0.005)


def test_a_script_ends_with_its_helper():
    """At the end of a script the helper ends too, and what the workers printed is there."""
    source = """
        import woflo
        from woflo.runners import MultiprocessTaskRun, ForkServerProcess, _zygote

        @woflo.task(runner=MultiprocessTaskRun.using(process_type=ForkServerProcess))
        def say(n):
            print(f"said {n}\\n", end="")

        runs = [say(n) for n in range(5)]
        print(f"zygote {_zygote._zygote.pid}")
    """
    lines = sorted(script(source).splitlines())
    assert lines[:5] == [f"said {n}" for n in range(5)]
    assert not alive(int(lines[5].split()[1]))


def test_it_ends_when_it_is_idle():
    """A helper that nobody asks anything ends by itself; the next call starts another."""
    source = """
        import time, woflo
        from woflo.runners import MultiprocessTaskRun, ForkServerProcess, _zygote, _supervisor
        _zygote._IDLE_SECONDS = 0.1
        call = woflo.task(abs, runner=MultiprocessTaskRun.using(process_type=ForkServerProcess))
        for n in (1, 2):
            assert call(-n).get_result(timeout=20) == n
            end = time.monotonic() + 20
            while _zygote._zygote is not None:
                assert time.monotonic() < end
                _supervisor.existing().nudge()
                time.sleep(0.005)
        print("ended twice")
    """
    assert script(source) == "ended twice\n"


def test_an_expensive_fork_is_named_once(monkeypatch):
    """A fork that takes long because this process is large is named, once, with the cure; a small process's is not."""
    from woflo import events
    from woflo.runners import _launch

    said = []
    monkeypatch.setattr(events, "warn", said.append)
    monkeypatch.setattr(_launch, "_price_named", False)
    monkeypatch.setattr(_launch, "_SLOW_FORK_SECONDS", 0.0)
    plain = woflo.task(abs, runner=MultiprocessTaskRun)
    plain(1).get_result(timeout=PATIENCE)
    assert not said
    monkeypatch.setattr(_launch, "_LARGE_BYTES", 1)
    for _ in range(3):
        plain(1).get_result(timeout=PATIENCE)
    (text,) = said
    assert "ForkServerProcess" in text
