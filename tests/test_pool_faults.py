"""Campaigns against a pool: random deaths, stops and Ctrl-C under load, decided by a ledger that only the tasks write."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from collections import Counter, deque

import pytest

import woflo
from woflo.testing import PATIENCE, Ledger

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a pool needs Linux")

SEED = int(os.environ.get("WOFLO_SEED", "0")) or random.randrange(1 << 30)


def work(path, number, seconds):
    """Note the begin and the end; sleep for some of them."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.write(file, b"begin %d\n" % number)
    if seconds:
        time.sleep(seconds)
    os.write(file, b"end %d\n" % number)
    os.close(file)
    return number


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def idle(pool):
    """Wait until the pool's workers have left."""
    from woflo.runners import _supervisor

    deadline = time.monotonic() + PATIENCE
    while True:
        _supervisor.existing().nudge()
        with pool.supervisor.lock:  # another thread may be about to close the last descriptors
            if pool._ring is None:
                return
        assert time.monotonic() < deadline, "the workers don't leave"
        time.sleep(0.01)


def check(ledger, runs, outcomes):
    """None lost, none twice, and what is said about each is what happened."""
    noted = Counter(ledger.lines())
    assert not [line for line, count in noted.items() if count > 1], "a call ran twice"
    for number, outcome in enumerate(outcomes):
        if outcome:
            assert outcome.value == number
            assert noted[f"end {number}"] == 1, f"{runs[number].name} succeeded without having run"


def kill(kills, tmp_path):
    """Kill so many workers at random moments while calls come and go; the outcomes."""
    from woflo.runners import PoolTaskRun

    chance = random.Random(SEED)
    print(f"seed {SEED}")
    runner = PoolTaskRun.using(workers=3)
    ledger = Ledger(tmp_path / "ledger")
    call = woflo.task(work, runner=runner)
    before = open_descriptors()
    runs, waiting, killed, told = [], deque(), 0, 0.0
    victims = {}
    while killed < kills:
        for _ in range(chance.choice([1, 3, 30, 200])):
            runs.append(call(ledger.path, len(runs), chance.choice([0] * 8 + [0.001])))
            waiting.append(runs[-1])
        if chance.random() < 0.6:
            time.sleep(chance.random() * 0.003)
        hands = list(runner._pool._hands.values())
        if hands:
            victim = chance.choice(hands)
            try:
                os.kill(victim.pid, 9)
            except ProcessLookupError:
                continue
            victims[victim.pid] = time.monotonic()
            killed += 1
        for _ in range(chance.choice([0, 1, len(waiting)])):
            if waiting:
                outcome = waiting.popleft().outcome(timeout=PATIENCE)
                if not outcome and outcome.pid in victims:
                    told = max(told, time.monotonic() - victims.pop(outcome.pid))
    outcomes = [run.outcome(timeout=PATIENCE) for run in runs]
    check(ledger, runs, outcomes)
    lost = [outcome for outcome in outcomes if not outcome]
    assert all(isinstance(outcome, woflo.WorkerFailure) and outcome.signal == "SIGKILL" for outcome in lost)
    assert len(lost) <= killed, "a death cost more than one run"
    idle(runner._pool)
    assert open_descriptors() <= before
    return len(runs), len(lost)


def test_random_deaths_under_load(tmp_path):
    """Sixty random kill -9: no call is lost but the one that was hit, none runs twice, nothing stays open."""
    kill(60, tmp_path)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_thousand_random_deaths_under_load(tmp_path):
    """A thousand of them."""
    kill(1000, tmp_path)


@pytest.mark.faults
def test_the_victim_is_told_at_once(tmp_path):
    """Whoever waits for a run whose worker is killed learns it within a second, also behind many others."""
    from woflo.runners import PoolTaskRun

    runner = PoolTaskRun.using(workers=2)
    ledger = Ledger(tmp_path / "ledger")
    call = woflo.task(work, runner=runner)
    for number in range(20):
        run = call(ledger.path, number, 30)
        deadline = time.monotonic() + PATIENCE
        while f"begin {number}" not in ledger.lines():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert run.state == "running"
        begin = time.monotonic()
        os.kill(run.pid, 9)
        assert isinstance(run.outcome(timeout=PATIENCE), woflo.WorkerFailure)
        assert time.monotonic() - begin < 1.0  # the promise itself
    idle(runner._pool)


def test_random_stops_and_time_outs(tmp_path):
    """Stops and time-outs at random moments hit the runs that they are meant for: no other ends badly, none runs twice."""
    from woflo.runners import PoolTaskRun

    chance = random.Random(SEED)
    print(f"seed {SEED}")
    runner = PoolTaskRun.using(workers=2)
    ledger = Ledger(tmp_path / "ledger")
    call = woflo.task(work, runner=runner)
    limited = call.options(timeout=0.02)
    runs, stopped, timed = [], set(), set()
    for number in range(1500):
        fn = chance.choice([call] * 30 + [limited])
        runs.append(fn(ledger.path, number, chance.choice([0] * 20 + [0.001, 0.05])))
        if fn is limited:
            timed.add(runs[-1])
        if chance.random() < 0.03:
            victim = chance.choice(runs[-40:])
            stopped.add(victim)
            victim.stop(grace=chance.choice([0, 0.001, 1]), wait=chance.random() < 0.5)
        if chance.random() < 0.01:
            chance.choice(runs).wait(PATIENCE)
    outcomes = [run.outcome(timeout=PATIENCE) for run in runs]
    check(ledger, runs, outcomes)
    begun = set(ledger.lines())
    for number, (run, outcome) in enumerate(zip(runs, outcomes, strict=True)):
        if isinstance(outcome, woflo.StoppedFailure):
            assert run in stopped
            if "before it was started" in str(outcome):
                assert f"begin {number}" not in begun
        elif not outcome:
            assert isinstance(outcome, woflo.TimeoutFailure)
            assert run in timed
    idle(runner._pool)


def test_ctrl_c_at_any_moment():
    """However often Ctrl-C comes while calls are made and waited for, each run ends, all but the few that it hit with a value."""
    source = """
        import os, random, signal, sys, time, woflo
        from woflo.runners import PoolTaskRun

        def interrupt(number, frame):
            # Once for each time that the loop has armed it: a second one would strike outside its `try`.
            global armed
            if armed:
                armed = False
                signal.default_int_handler(number, frame)

        chance, armed = random.Random(int(sys.argv[1])), False
        call = woflo.task(abs, runner=PoolTaskRun)
        [call(1).get_result() for _ in range(5)]
        parent = os.getpid()
        signal.signal(signal.SIGINT, interrupt)
        if os.fork() == 0:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                time.sleep(chance.random() * 0.01)
                os.kill(parent, signal.SIGINT)
            os._exit(0)
        runs, struck, end = [], 0, time.monotonic() + 3.3
        while True:
            try:
                armed = time.monotonic() < end
                if not armed:
                    break
                for _ in range(chance.choice([1, 50, 500])):
                    runs.append((len(runs), call(len(runs))))
                for _, run in runs[-chance.choice([1, 100]):]:
                    run.wait(20)
                armed = False
            except KeyboardInterrupt:
                struck += 1
        assert struck > 10, struck
        for number, run in runs:
            outcome = run.outcome(timeout=20)
            assert outcome == woflo.Ok(number) or isinstance(outcome, woflo.StoppedFailure), outcome
        print("all ended")
    """
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(woflo.__file__))}
    command = [sys.executable, "-c", textwrap.dedent(source), str(SEED)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "all ended\n", done.stderr[-3000:]


def test_a_worker_that_is_gone_before_it_is_known():
    """SIGCHLD ignored: a worker that dies of its first call may be reaped before its parent looks. It costs that call only."""
    source = """
        import os, signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        import woflo
        from woflo.runners import PoolTaskRun, _poller

        def late(pid):
            for _ in range(20_000):
                try:
                    os.kill(pid, 0)
                except ProcessLookupError:
                    break
                signal.sigtimedwait([], 0.001)
            return watch(pid)

        @woflo.task(runner=PoolTaskRun, retries=1, retry_sleep_time=0)
        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        @woflo.task(runner=PoolTaskRun)
        def same(x):
            return x

        watch, _poller.watch_process = _poller.watch_process, late
        run = die()
        print(type(run.outcome(timeout=20)).__name__, run.attempt)
        _poller.watch_process = watch
        print(same(3).get_result(timeout=20))
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["WorkerFailure", "2", "3"]), done.stderr
