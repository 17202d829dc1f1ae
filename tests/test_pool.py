"""PoolTaskRun: a warm worker, leased for one run at a time."""

from __future__ import annotations

import contextvars
import functools
import gc
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback

import pytest

import woflo
from woflo.testing import PATIENCE, Flag, Ledger, RunnerContract

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a pool needs Linux")

if sys.platform == "linux":
    from woflo.runners import _pool, _supervisor
    from woflo.runners.pool import PoolTaskRun


class TestPool(RunnerContract):
    runner = PoolTaskRun
    in_process = False
    can_kill = True


class TestOneWorker(RunnerContract):
    """Some promises need two tasks that run at once."""

    runner = PoolTaskRun.using(workers=2, max_runs_per_worker=1)
    in_process = False
    can_kill = True


class TestNoSemaphores(RunnerContract):
    """A system without /dev/shm: descriptors count the rights to run a call."""

    runner = PoolTaskRun.using(workers=2)
    in_process = False
    can_kill = True

    @pytest.fixture(autouse=True)
    def no_semaphores(self, monkeypatch):
        import _multiprocessing

        def refuse(*_):
            raise FileNotFoundError

        monkeypatch.setattr(_multiprocessing, "SemLock", refuse)

    def test_each_call_of_a_long_queue_runs_once(self, tmp_path):
        """Batches, and what is taken back from them, are counted by descriptors as by semaphores."""
        ledger = Ledger(tmp_path / "ledger")
        call = woflo.task(note, runner=self.runner)
        assert [run.get_result() for run in [call(ledger, str(number)) for number in range(500)]]
        assert sorted(map(int, ledger.lines())) == list(range(500))
        assert len(call.runner._pool._ring.counters) >= 3 * 2 + 2
        counter = call.runner._pool._ring.units[0]
        counter.release()
        assert [counter.acquire(False), counter.acquire(False)] == [True, False]


# Bodies; functions of this module, which workers find by name.


def give(value=None):
    return value


def pid(_number=0):
    return os.getpid()


def hold(started, release):
    started.set()
    release.wait()
    return os.getpid()


def prepared():
    return len(_prepared), os.getpid()


def note(ledger, line):
    ledger.add(line)
    return line


def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)


def slow_at(number, slow, started, release):
    if number == slow:
        started.set()
        release.wait()
    return number


def make(fn, runner=None, **options):
    return woflo.task(fn, runner=runner or PoolTaskRun, **options)


def values(runs):
    return [run.get_result(timeout=PATIENCE) for run in runs]


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it didn't come true"
        existing = _supervisor.existing()
        if existing is not None:
            existing.nudge()
        time.sleep(0.002)


# Warm workers.


@pytest.fixture
def warm(monkeypatch):
    """Workers stay for the whole test; they are waited for at its end."""
    monkeypatch.setattr(_pool, "_IDLE_SECONDS", 0.3)


@pytest.mark.usefixtures("warm")
def test_a_worker_serves_many_runs():
    """Runs share a worker's process instead of having one each."""
    runner = PoolTaskRun.using(workers=1)
    run_pid = make(pid, runner)
    assert len({run_pid().get_result(timeout=PATIENCE) for _ in range(20)}) == 1


def test_many_small_calls_arrive_each_with_its_own_value():
    """Thousands of calls that were sent together all come back, none twice, none mixed up."""
    give_it = make(give)
    assert values([give_it(n) for n in range(5000)]) == list(range(5000))
    mixed = [give_it(n) if n % 3 else make(str)(n) for n in range(1000)]
    assert values(mixed) == [n if n % 3 else str(n) for n in range(1000)]


@pytest.mark.usefixtures("warm")
def test_a_worker_is_replaced_after_so_many_runs():
    """max_runs_per_worker counts runs, also of calls that were sent together."""
    run_pid = make(pid, PoolTaskRun.using(workers=1, max_runs_per_worker=3))
    pids = values([run_pid(n) for n in range(30)])
    assert max(pids.count(one) for one in set(pids)) <= 3
    assert len(set(pids)) >= 10


_prepared = []


@pytest.mark.usefixtures("warm")
def test_the_initializer_is_called_once_in_each_worker(tmp_path):
    """An initializer runs in each worker before its first run, with initargs that need not be pickled."""
    ledger = Ledger(tmp_path / "ledger")
    runner = PoolTaskRun.using(
        workers=2, initializer=lambda *args: (_prepared.append(args), ledger.add("made")), initargs=(threading.Lock(),)
    )
    look = make(prepared, runner)
    seen = values([look() for _ in range(50)])
    assert {number for number, _ in seen} == {1}
    assert len(ledger.lines()) >= len({one for _, one in seen})


def test_an_initializer_that_raises_fails_the_runs_and_says_so():
    """No worker can be had: each run that waits for one fails with the initializer's exception; nothing hangs."""

    def broken():
        raise LookupError("no licence")

    give_it = make(give, PoolTaskRun.using(workers=2, initializer=broken))
    for _ in range(2):
        for run in [give_it(n) for n in range(5)]:
            outcome = run.outcome(timeout=PATIENCE)
            assert isinstance(outcome, woflo.WorkerFailure)
            assert "no licence" in str(outcome)
            assert isinstance(outcome.__cause__, LookupError)


def test_settings_are_checked():
    """A setting that can't be is refused when it is made."""
    for wrong in ({"workers": 0}, {"workers": 2.5}, {"max_runs_per_worker": 0}, {"initializer": 3}, {"initargs": [1]}):
        with pytest.raises(woflo.UsageError, match=next(iter(wrong))):
            PoolTaskRun.using(**wrong)
    with pytest.raises(woflo.UsageError, match="max_running"):
        PoolTaskRun.using(max_running=3)


@pytest.mark.usefixtures("warm")
def test_a_changed_setting_counts_from_the_next_call():
    """The class attribute is read at each call; runs under way are finished by the workers that they have."""

    class Mine(PoolTaskRun):
        workers = 1

    run_pid = make(pid, Mine)
    run_pid().get_result(timeout=PATIENCE)
    first = run_pid()
    Mine.workers = 2
    second = run_pid()
    assert first.get_result(timeout=PATIENCE) != second.get_result(timeout=PATIENCE)


# What travels.


def test_arguments_are_those_of_the_call():
    """What happens to an argument after the call doesn't reach the task, and two calls share none."""
    shared = [1]
    extend = make(lambda items: items.append(len(items)) or items)
    runs = []
    for _ in range(20):
        runs.append(extend(shared))
        shared.append(0)
    assert [len(value) for value in values(runs)] == list(range(2, 22))


def test_an_argument_that_cannot_travel_is_refused_at_the_call():
    """Nothing is started, and the way to the culprit is named; the calls around it are none the worse."""
    give_it = make(give)
    runs = []
    for n in range(10):
        runs.append(give_it(n))
        with pytest.raises(woflo.UsageError, match=r"args\[0\]\['a'\] \(a .*lock"):
            give_it({"a": threading.Lock()})
    assert values(runs) == list(range(10))


class _Counting:
    """A function that notes how often it is pickled."""

    pickled = 0

    def __reduce__(self):
        _Counting.pickled += 1
        return _Counting, ()

    def __call__(self, value):
        return value


def test_a_function_travels_once_per_pool():
    """After its second call a function isn't pickled again, however many workers call it."""
    counting = make(_Counting(), name="counting")
    assert values([counting(1), counting(2)]) == [1, 2]
    _Counting.pickled = 0
    assert values([counting(n) for n in range(200)]) == list(range(200))
    assert _Counting.pickled == 0


def test_tasks_that_are_made_for_one_call_are_not_kept():
    """A thousand tasks that were called once leave nothing in the pool."""
    give_it = make(give)
    give_it().get_result(timeout=PATIENCE)
    pool = PoolTaskRun._pool
    known, kept = len(pool.functions), len(pool._pickles)
    for n in range(300):
        assert make(lambda n=n: n)().get_result(timeout=PATIENCE) == n
    gc.collect()
    assert len(pool.functions) <= known + 5
    assert len(pool._pickles) == kept


def test_large_arguments_and_results():
    """Any size goes both ways, also results that don't fit into shared memory together."""
    give_it = make(give)
    for size in (1_000, 40_000, 65_536, 100_000, 3_000_000):
        assert give_it(b"x" * size).get_result(timeout=PATIENCE) == b"x" * size
    runs = [give_it(bytes([n]) * 200_000) for n in range(40)]
    assert values(runs) == [bytes([n]) * 200_000 for n in range(40)]
    some = make(lambda n: bytes([n % 251]) * (100_000 if n % 7 == 0 else 10))
    assert [len(value) for value in values([some(n) for n in range(300)])] == [
        100_000 if n % 7 == 0 else 10 for n in range(300)
    ]
    many = make(lambda n: bytes([n % 251]) * 3000)
    assert values([many(n) for n in range(500)]) == [bytes([n % 251]) * 3000 for n in range(500)]


def test_kinds_of_functions():
    """Lambdas, closures, methods, partials and coroutine functions can be called many times."""
    factor = 3
    times = make(lambda x: factor * x)
    partial = make(functools.partial(divmod, 17))

    async def later(x):
        return x

    awaited = make(later)
    for n in range(1, 30):
        assert times(n).get_result(timeout=PATIENCE) == 3 * n
        assert partial(n).get_result(timeout=PATIENCE) == divmod(17, n)
        assert awaited(n).get_result(timeout=PATIENCE) == n


def test_keywords_and_anything_else():
    """Keyword arguments and arguments of any type take the same way."""
    collect = make(lambda *args, **kwargs: (args, kwargs))
    for n in range(10):
        run = collect(n, [n], {"n": n}, key=(n,), self=1)
        assert run.get_result(timeout=PATIENCE) == ((n, [n], {"n": n}), {"key": (n,), "self": 1})


# Who waits for whom.


def test_a_short_call_does_not_wait_behind_a_long_one(tmp_path):
    """A call that turns out long keeps its own worker: all others are carried out meanwhile by the other one."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    runner = PoolTaskRun.using(workers=2)
    work = make(slow_at, runner)
    assert values([work(n, -1, started, release) for n in range(500)]) == list(range(500))  # known to be short
    runs = [work(n, 100, started, release) for n in range(600)]
    for n, run in enumerate(runs):
        if n != 100:
            assert run.get_result(timeout=PATIENCE) == n
    assert runs[100].is_running()
    release.set()
    assert runs[100].get_result(timeout=PATIENCE) == 100


def test_what_is_staged_goes_on_with_nobody_waiting(tmp_path):
    """A burst of calls is carried out although nobody waits for any of them."""
    ledger = Ledger(tmp_path / "ledger")
    write = make(note)
    runs = [write(ledger, str(n)) for n in range(300)]
    deadline = time.monotonic() + PATIENCE
    while len(ledger.lines()) < 300:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert sorted(map(int, ledger.lines())) == list(range(300))
    assert all(values(runs))


def test_a_call_behind_others_is_pending(tmp_path):
    """A run is pending until a worker has it, then running; its time-out counts from then."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    runner = PoolTaskRun.using(workers=1)
    holding = make(hold, runner)(started, release)
    started.wait()
    behind = make(give, runner, timeout=0.5)("late")
    assert holding.state == "running"
    assert holding.pid is not None
    assert behind.state == "pending"
    assert not behind.wait(timeout=0.6)
    release.set()
    assert behind.get_result(timeout=PATIENCE) == "late"


def test_events_tell_what_happens(tmp_path):
    """An observer sees each run start, in its worker's process, and end."""
    del tmp_path
    events = []
    with woflo.observe(events.append):
        run = make(pid)()
        worker = run.get_result(timeout=PATIENCE)
        until(lambda: any(type(event).__name__ == "RunEnded" for event in events))
    kinds = [type(event).__name__ for event in events if getattr(event, "run", "") == run.name]
    assert kinds == ["RunPending", "RunStarted", "RunEnded"]
    assert events[-1].pid == worker


def test_many_threads_may_submit_and_wait():
    """Threads that call and wait at the same time each get their own values."""
    give_it = make(give)
    give_it().get_result(timeout=PATIENCE)
    wrong = []

    def work(base):
        for _ in range(5):
            expected = list(range(base, base + 200))
            if values([give_it(n) for n in expected]) != expected:
                wrong.append(base)

    threads = [threading.Thread(target=work, args=(base,)) for base in range(0, 4000, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong


def test_nested_pools():
    """A task on a pool may call tasks on the same pool and wait for them."""
    inner = make(give)

    def outer(n):
        return sum(run.get_result() for run in [inner(i) for i in range(n)])

    assert values([make(outer)(n) for n in range(6)]) == [0, 0, 1, 3, 6, 10]


# Stopping.


def test_stopping_one_call_of_many_costs_no_other(tmp_path):
    """A run that is stopped before its turn never runs; one that runs ends alone; its mates run once."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    ledger = Ledger(tmp_path / "ledger")
    runner = PoolTaskRun.using(workers=1)
    write = make(note, runner)
    values([write(ledger, "before") for _ in range(20)])
    holding = make(hold, runner)(started, release)
    runs = [write(ledger, str(n)) for n in range(50)]
    started.wait()
    runs[7].stop()
    assert runs[7].state == "stopped"
    assert "before it was started" in str(runs[7].outcome())
    holding.stop()
    assert holding.state == "stopped"
    assert values(runs[:7] + runs[8:]) == [str(n) for n in range(50) if n != 7]
    assert sorted(map(int, ledger.lines()[20:])) == [n for n in range(50) if n != 7]


def test_a_stopped_worker_is_gone_and_replaced(tmp_path):
    """stop() returns when the worker has ended; what the task had started ends with it; the next call gets another."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    ledger = Ledger(tmp_path / "ledger")

    def with_child():
        child = subprocess.Popen(["sleep", "1000"])
        ledger.add(f"{os.getpid()} {child.pid}")
        hold(started, release)

    runner = PoolTaskRun.using(workers=1)
    run = make(with_child, runner)()
    started.wait()
    run.stop(grace=0.2)
    worker, child = map(int, ledger.lines()[0].split())
    assert not os.path.exists(f"/proc/{worker}")
    until(lambda: _state(child) == "Z")
    assert make(pid, runner)().get_result(timeout=PATIENCE) != worker


def test_sigterm_from_outside_costs_the_run_that_was_hit(tmp_path):
    """Somebody else's SIGTERM is a worker's failure, not a stop."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    runner = PoolTaskRun.using(workers=1)
    run = make(hold, runner)(started, release)
    started.wait()
    assert run.is_running()
    until(lambda: run.state == "running")
    os.kill(run.pid, signal.SIGTERM)
    outcome = run.outcome(timeout=PATIENCE)
    assert isinstance(outcome, woflo.WorkerFailure)
    assert outcome.signal == "SIGTERM"
    assert make(give, runner)(1).get_result(timeout=PATIENCE) == 1


# Deaths.


def test_a_death_costs_one_run():
    """A worker that dies in the middle of many calls costs the one that it was at; the others run once."""
    give_it = make(slow_at)
    values([give_it(n, -1, None, None) for n in range(100)])
    kill = make(die)
    runs = [kill() if n in {50, 120} else give_it(n, -1, None, None) for n in range(200)]
    for n, run in enumerate(runs):
        outcome = run.outcome(timeout=PATIENCE)
        if n in {50, 120}:
            assert isinstance(outcome, woflo.WorkerFailure)
            assert outcome.signal == "SIGKILL"
            assert outcome.pid is not None
        else:
            assert outcome == woflo.Ok(n)


def test_exits_of_a_task():
    """os._exit costs the run and the worker; sys.exit the run only."""
    outcome = make(os._exit)(3).outcome(timeout=PATIENCE)
    assert isinstance(outcome, woflo.WorkerFailure)
    assert outcome.exit_code == 3
    runner = PoolTaskRun.using(workers=1)
    leave = make(lambda: sys.exit(4), runner).options(name="leave")
    assert isinstance(leave().outcome(timeout=PATIENCE).__cause__, SystemExit)
    assert make(give, runner)(5).get_result(timeout=PATIENCE) == 5


def test_a_death_is_retried_if_there_are_attempts_left(tmp_path):
    """Retries count deaths; a further attempt gets another worker."""
    ledger = Ledger(tmp_path / "ledger")

    def mortal():
        ledger.add(str(os.getpid()))
        if len(ledger.lines()) < 3:
            die()
        return "alive"

    assert make(mortal, retries=2)().get_result(timeout=PATIENCE) == "alive"
    assert len(set(ledger.lines())) == 3


def test_a_task_that_forks():
    """A process that a task forks and that comes to the task's end isn't a second worker."""

    def fork():
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return "from the child"

    fork_it = make(fork)
    assert values([fork_it() for _ in range(8)]) == [0] * 8


def test_a_task_closes_what_is_not_its_own():
    """A task that closes all descriptors costs its run at most; the next call has a worker."""
    runner = PoolTaskRun.using(workers=1)
    outcome = make(os.closerange, runner)(3, 256).outcome(timeout=PATIENCE)
    assert isinstance(outcome, (woflo.Ok, woflo.WorkerFailure))
    assert make(give, runner)(1).get_result(timeout=PATIENCE) == 1


# What tasks leave changed.


def fingerprint():
    import locale
    import random

    umask = os.umask(0o022)
    os.umask(umask)
    return {
        "folder": os.getcwd(),
        "umask": umask,
        "handlers": [str(signal.getsignal(number)) for number in range(1, 32) if number not in {9, 19}],
        "recursion": sys.getrecursionlimit(),
        "streams": [type(stream).__name__ for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "environment": os.environ.get("LEFT_BY_A_TASK"),
        "path": "/left/by/a/task" in sys.path,
        "locale": locale.setlocale(locale.LC_ALL),
        "timer": signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0),
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "traced": sys.gettrace() is not None,
        "interpreter": (sys.getswitchinterval(), gc.isenabled(), threading.stack_size()),
        "nice": os.nice(0),
        "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
        "descriptors": [os.fstat(fd).st_ino for fd in (0, 1, 2)],
        "draw": random.random(),
    }


_left = contextvars.ContextVar("_left", default="unset")


def change_variable():
    seen = _left.get()
    _left.set("changed")
    return seen


def leave(what):
    import io
    import locale
    import random

    random.seed(1)
    {
        "folder": lambda: os.chdir("/"),
        "umask": lambda: os.umask(0o077),
        "handlers": lambda: signal.signal(signal.SIGUSR1, lambda *_: None),
        "term": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        "recursion": lambda: sys.setrecursionlimit(500),
        "stdout": lambda: setattr(sys, "stdout", io.StringIO()),
        "stderr": lambda: setattr(sys, "stderr", None),
        "environment": lambda: os.environ.update(LEFT_BY_A_TASK="1"),
        "path": lambda: sys.path.append("/left/by/a/task"),
        "locale": lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"),
        "timer": lambda: signal.setitimer(signal.ITIMER_REAL, 1000),
        "mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
        "traced": lambda: sys.settrace(lambda *_: None),
        "random": lambda: None,
        "interval": lambda: sys.setswitchinterval(0.5),
        "collector": gc.disable,
        "stack": lambda: threading.stack_size(1 << 20),
        "nice": lambda: os.nice(1),
        "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)),
        "descriptors": lambda: os.dup2(os.open("/", os.O_RDONLY), 1),
        "closed": sys.stdout.close,
    }[what]()


LEFT = [
    "folder", "umask", "handlers", "term", "recursion", "stdout", "stderr", "environment", "path", "locale", "timer", "mask",
    "traced", "random", "interval", "collector", "stack", "nice", "limit", "descriptors", "closed",
]  # fmt: skip


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("what", LEFT)
def test_the_next_task_finds_nothing_changed(what):
    """Whatever a task leaves changed, the next one in that worker sees it as it was, or gets another worker."""
    runner = PoolTaskRun.using(workers=1)
    look, change = make(fingerprint, runner), make(leave, runner)
    look().get_result(timeout=PATIENCE)
    before = look().get_result(timeout=PATIENCE)
    change(what).get_result(timeout=PATIENCE)
    first = look().get_result(timeout=PATIENCE)
    change(what).get_result(timeout=PATIENCE)
    second = look().get_result(timeout=PATIENCE)
    assert first.pop("draw") != second.pop("draw"), "both drew the number that the seed gives"
    del before["draw"]
    assert before == first == second


def test_looking_in_vain_is_given_up():
    """A short function that turns out slow is not looked for again and again; then calls are still told at once."""
    runner = PoolTaskRun.using(workers=1)
    give_it = make(sometimes_slow, runner)
    values([give_it(0) for _ in range(10)])
    pool = runner._pool
    vain = []
    for _ in range(8):
        assert give_it(0).get_result(timeout=None) == 0
        function = pool.functions[id(give_it)]
        function.mean_ns, pool._vain = 1000, 0  # as if all had been short, and it is time for another look
        assert give_it(0.005).get_result() == 0.005
        vain.append(pool._vain)
    assert vain[-1] > vain[0] >= 0
    assert max(vain) <= 63


def sometimes_slow(seconds):
    if seconds:
        time.sleep(seconds)
    return seconds


def test_context_variables_are_not_left_behind():
    """What a task sets in a context variable the next one doesn't see."""
    run = make(change_variable, PoolTaskRun.using(workers=1))
    assert set(values([run() for _ in range(50)])) == {"unset"}


def test_one_that_leaves_something_changed_goes_alone():
    """A function that was seen to change its worker's state is never sent together with other calls again."""
    runner = PoolTaskRun.using(workers=1)
    give_it, change = make(give, runner), make(leave, runner)
    values([give_it(n) for n in range(50)])
    for _ in range(10):
        change("recursion").get_result(timeout=PATIENCE)
        give_it(1).get_result(timeout=PATIENCE)
    function = runner._pool.functions[id(change)]
    until(lambda: function.alone or give_it(1).get_result(timeout=PATIENCE) is None)
    assert not runner._pool.functions[id(give_it)].alone


# What is left, and where.


def test_idle_workers_end_and_nothing_stays_open():
    """After a while without work processes, descriptors and memory are given back; the next call starts anew."""
    runner = PoolTaskRun.using(workers=2)
    give_it = make(give, runner)
    values([give_it(n) for n in range(100)])
    until(lambda: runner._pool._ring is None)
    assert not _supervisor.existing().guests.keys() & set(runner._pool._hands)
    assert values([give_it(n) for n in range(100)]) == list(range(100))


def test_nothing_has_a_name():
    """No file, semaphore or segment can be found by others, or stays when all are killed."""
    before = set(os.listdir("/dev/shm"))
    give_it = make(give)
    values([give_it(n) for n in range(100)])
    assert not {name for name in set(os.listdir("/dev/shm")) - before if "woflo" in name}


def test_the_users_own_fork():
    """A forked child has no part of the pool: it can't ask for the parent's runs, makes a pool of its own, and harms none."""
    give_it = make(give)
    run = give_it(1)
    child = os.fork()
    if child == 0:
        try:
            assert PoolTaskRun._pool is None
            with pytest.raises(woflo.UsageError):
                run.wait() if run._result is None else run._check_owner()
            assert give_it(2).get_result(timeout=PATIENCE) == 2
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run.get_result(timeout=PATIENCE) == 1
    assert values([give_it(n) for n in range(100)]) == list(range(100))


def script(source, *arguments, **options):
    path = [os.path.dirname(os.path.dirname(woflo.__file__)), os.path.dirname(os.path.dirname(__file__))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_workers_end_with_their_parent(tmp_path):
    """Killed or not, no worker outlives the parent, nor does what its task has started; also one that computes in C."""
    ledger = Ledger(tmp_path / "ledger")
    parent = script(
        """
        import os, subprocess, sys, time, woflo
        from woflo.runners import PoolTaskRun
        from woflo.testing import Ledger

        @woflo.task(runner=PoolTaskRun)
        def work(kind, path):
            Ledger(path).add(f"{os.getpid()} {subprocess.Popen(['sleep', '1000']).pid}")
            if kind == "c":
                9 ** 9 ** 9
            time.sleep(1000)

        runs = [work(kind, sys.argv[1]) for kind in ("c", "python")]
        runs[0].wait()
        """,
        ledger.path,
    )
    until(lambda: len(ledger.lines()) == 2)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=PATIENCE)
    pids = [int(one) for line in ledger.lines() for one in line.split()]
    until(lambda: not any(os.path.exists(f"/proc/{one}") and _state(one) != "Z" for one in pids))


def _state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_script_ends_by_itself():
    """At the end of a script all runs are carried out, the idle workers end, and what they printed is there."""
    process = script(
        """
        import os, woflo
        from woflo.runners import PoolTaskRun

        @woflo.task(runner=PoolTaskRun)
        def say(n):
            print(f"n = {n}\\n", end="")

        def later():
            "Defined after the first workers were forked."
            return Local(5)

        runs = [say(n) for n in range(200)]

        class Local:
            def __init__(self, value):
                self.value = value

        late = woflo.task(later, runner=PoolTaskRun)
        print([late().get_result().value, late().get_result().value, woflo.task(str, runner=PoolTaskRun)(3).get_result()])
        """
    )
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert not err
    lines = out.splitlines()
    assert sorted(int(line[4:]) for line in lines if line.startswith("n =")) == list(range(200))
    assert "[5, 5, '3']" in lines


def test_chosen_by_the_environment():
    """WOFLO_RUNNER=pool makes warm workers the place of tasks that name none."""
    environment = {**os.environ, "WOFLO_RUNNER": "pool"}
    code = "import woflo; run = woflo.task(len)('abc'); print(type(run).__name__, run.get_result())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "PoolTaskRun 3\n", done.stderr


# Large buffers.

numpy = pytest.importorskip("numpy")


def add_one(array):
    return array + 1


def double_in_place(array):
    array *= 2
    return array


def ends(array):
    return float(array[0]), float(array[-1]), array.flags.writeable


_stashed = []


def stash(array):
    _stashed.append(array)
    return array


def stashed():
    return [float(array[0]) for array in _stashed]


def fill(size, value):
    return numpy.full(size, value)


def two(array):
    return {"same": array, "other": numpy.arange(50_000.0), "text": "x" * 5000, "list": [array[:1].copy()] * 3}


@pytest.mark.parametrize("size", [100, 8_192, 100_000, 3_000_001])
def test_arrays_go_both_ways(size):
    """An array of any size arrives as it is, can be written to there and here, and the caller's isn't touched."""
    array = numpy.arange(float(size))
    for fn, expected in ((add_one, array + 1), (double_in_place, array * 2)):
        call = make(fn)
        for _ in range(4):
            result = call(array).get_result(timeout=PATIENCE)
            assert (result == expected).all()
            result[:] = -1
    assert make(ends)(array).get_result(timeout=PATIENCE) == (0.0, size - 1.0, True)
    assert (array == numpy.arange(float(size))).all()


@pytest.mark.usefixtures("warm")
def test_results_that_are_kept_stay_as_they_are():
    """A result's memory isn't used again while anything looks at it, a slice too; afterwards it is."""
    call = make(fill, PoolTaskRun.using(workers=2))
    kept = [call(50_000, value).get_result(timeout=PATIENCE) for value in range(10)]
    slices = [array[10:20] for array in kept]
    assert [int(array[-1]) for array in kept] == list(range(10))
    del kept
    more = [call(50_000, 99).get_result(timeout=PATIENCE) for _ in range(10)]
    assert [int(part[0]) for part in slices] == list(range(10))
    del more, slices
    pool = call.runner._pool
    arenas = len(pool._arenas)
    for value in range(50):
        assert call(50_000, value).get_result(timeout=PATIENCE)[0] == value
    assert len(pool._arenas) == arenas


@pytest.mark.usefixtures("warm")
def test_what_a_task_keeps_of_its_arguments_is_its_own():
    """An argument that a task puts aside isn't overwritten by the next call's, nor by what the caller does to the result."""
    runner = PoolTaskRun.using(workers=1)
    keep, look, pass_on = make(stash, runner), make(stashed, runner), make(add_one, runner)
    for value in range(4):
        result = keep(numpy.full(20_000, float(value))).get_result(timeout=PATIENCE)
        result[:] = -5
        pass_on(numpy.full(20_000, 77.0)).get_result(timeout=PATIENCE)
    assert look().get_result(timeout=PATIENCE) == [0.0, 1.0, 2.0, 3.0]


def test_large_buffers_beside_other_things():
    """Several buffers, some from the argument itself, among small things."""
    call = make(two)
    for value in range(5):
        result = call(numpy.full(30_000, float(value))).get_result(timeout=PATIENCE)
        assert result["same"][-1] == value
        assert result["other"][-1] == 49_999
        assert result["text"] == "x" * 5000
        assert [float(one[0]) for one in result["list"]] == [value] * 3


def test_an_attempt_gets_the_arguments_as_they_were(tmp_path):
    """A further attempt sees nothing of what the one before did to its array."""
    ledger = Ledger(tmp_path / "ledger")

    def spoil(array):
        ledger.add(str(float(array[0])))
        array[:] = 9
        if len(ledger.lines()) < 3:
            raise ValueError
        return float(array[0])

    assert make(spoil, retries=2)(numpy.zeros(50_000)).get_result(timeout=PATIENCE) == 9
    assert ledger.lines() == ["0.0"] * 3


def test_a_process_that_is_forked_has_its_own_copy_of_a_result():
    """What a forked process writes to a result doesn't reach its parent."""
    array = make(fill)(50_000, 3.0).get_result(timeout=PATIENCE)
    child = os.fork()
    if child == 0:
        array[:] = 8
        os._exit(int(array[0]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
    assert array[0] == 3.0


def test_a_death_with_an_array(tmp_path):
    """A worker that dies with an array in hand costs that run; its memory isn't used again."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")

    def holding(array):
        hold(started, release)
        return array

    call = make(holding)
    run = call(numpy.zeros(100_000))
    started.wait()
    until(lambda: run.state == "running")
    os.kill(run.pid, signal.SIGKILL)
    assert isinstance(run.outcome(timeout=PATIENCE), woflo.WorkerFailure)
    release.set()
    assert call(numpy.ones(100_000)).get_result(timeout=PATIENCE)[5] == 1
