"""TaskExecutor: an executor as the standard library knows it, over woflo's runners; and what it does better."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import importlib.util
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import BrokenExecutor, CancelledError, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from concurrent.futures.thread import BrokenThreadPool
from typing import ClassVar

import pytest

import woflo
from woflo import _unseen, task
from woflo.futures import TaskExecutor, TaskFuture, WorkerLost
from woflo.runners import (
    AsyncTaskRun,
    BaseTaskRun,
    MultiprocessTaskRun,
    SequentialTaskRun,
    SpawnProcess,
    ThreadTaskRun,
    _supervisor,
)
from woflo.testing import PATIENCE, FakeClock, Flag, Ledger, ScriptedTaskRun

posix = pytest.mark.skipif(sys.platform == "win32", reason="fork needs POSIX")
SPAWN = MultiprocessTaskRun.using(process_type=SpawnProcess)
RUNNERS = {"process": MultiprocessTaskRun, "thread": ThreadTaskRun}


@pytest.fixture(params=RUNNERS)
def runner(request):
    return RUNNERS[request.param]


@pytest.fixture
def executor(runner):
    with TaskExecutor(4, runner=runner) as executor:
        yield executor


def give(value=None):
    return value


def add(*numbers, **more):
    return sum(numbers) + sum(more.values())


def collect(*args, **kwargs):
    return args, kwargs


def fail(kind=ValueError, *args):
    raise kind(*args)


def hold(started, release, ended=None):
    """Be inside until released; `ended` is set on the way out."""
    try:
        started.set()
        release.wait()
        return "released"
    finally:
        if ended is not None:
            ended.set()


def note(ledger, line):
    ledger.add(line)
    return line


def die(go=None):
    if go is not None:
        go.wait()
    os.kill(os.getpid(), signal.SIGKILL)


async def come(flag):
    while not flag.is_set():  # noqa: ASYNC110 - a flag is a path, and is looked at
        await asyncio.sleep(0.002)


async def agive(value):
    await asyncio.sleep(0)
    return value


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it didn't come true"
        time.sleep(0.002)


def held(executor, folder, **more):
    """A call that is inside, and what releases it."""
    folder.mkdir(exist_ok=True)
    started, release = Flag(folder / "started"), Flag(folder / "release")
    future = executor.submit(hold, started, release, **more)
    started.wait()
    return future, release


# ---------------------------------------------------------------------- as the standard library has it


def test_submit(executor):
    """A call's value is its future's result, whatever its arguments are called."""
    assert executor.submit(add, 2, b=3).result(PATIENCE) == 5
    kwargs = {"self": 1, "fn": 2, "task": 3, "runner": 4, "timeout": 5}
    assert executor.submit(collect, 0, **kwargs).result(PATIENCE) == ((0,), kwargs)
    future = executor.submit(give, "it")
    assert isinstance(future, TaskFuture)
    assert isinstance(future, concurrent.futures.Future)
    assert (future.exception(PATIENCE), future.result(), future.done(), future.running()) == (None, "it", True, False)


def test_map(executor):
    """`map` gives the values in the order of the items, in chunks or not, and stops at the shortest iterable."""
    expected = [pow(n, 2) for n in range(20)]
    for chunksize in (1, 3, 20, 50):
        assert list(executor.map(pow, range(20), itertools.repeat(2), chunksize=chunksize)) == expected
    assert list(executor.map(give, [])) == []
    values = executor.map(divmod, [1, 1, 1], [1, 0, 1])
    assert next(values) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(values)


def test_map_takes_no_more_than_it_may(executor):
    """With a buffersize an endless iterable is taken from as the values are."""
    taken = []

    def endless():
        for n in itertools.count():
            taken.append(n)
            yield n

    values = executor.map(give, endless(), buffersize=3)
    assert len(taken) == 3
    for n in range(5):
        assert next(values) == n
        assert len(taken) == n + 4
    values.close()
    taken.clear()
    chunked = executor.map(give, endless(), buffersize=2, chunksize=5)
    assert len(taken) == 10
    assert list(itertools.islice(chunked, 7)) == list(range(7))
    assert len(taken) == 20


def test_map_that_is_given_up_ends_its_calls(tmp_path):
    """When its time is over, what `map` has under way is ended and the rest never begins."""
    started, release, ledger = Flag(tmp_path / "started"), Flag(tmp_path / "release"), Ledger(tmp_path / "ledger")
    ended = Flag(tmp_path / "ended")

    def each(n):
        ledger.add(str(n))
        return hold(started, release, ended) if n == 1 else n

    with TaskExecutor(1) as executor:
        values = executor.map(each, range(4), timeout=PATIENCE)
        assert next(values) == 0
        started.wait()
        values.close()
    assert ended.is_set()
    assert ledger.lines() == ["0", "1"]


def test_map_in_time():
    """`map(timeout=)` raises TimeoutError when the time is over, measured from the call."""
    with FakeClock() as clock:
        runner = ScriptedTaskRun.using()
        executor = TaskExecutor(runner=runner)
        values = executor.map(give, range(2), timeout=10)
        clock.call_later(4, lambda: runner.started[0].succeed("first"))
        assert next(values) == "first"
        with pytest.raises(TimeoutError):
            next(values)
        assert clock.time == 10
        executor.shutdown()


@pytest.mark.parametrize("wrong", [{"chunksize": 0}, {"chunksize": 1.5}, {"buffersize": 0}])
def test_map_refuses_what_is_no_number_of_items(wrong):
    """Chunks and buffers are whole numbers from 1 up."""
    with TaskExecutor(1) as executor, pytest.raises(ValueError, match="whole number from 1 up"):
        executor.map(give, [1], **wrong)


def test_wait_and_as_completed(executor, tmp_path):
    """The module's own functions work on the futures, with others among them."""
    slow, release = held(executor, tmp_path)
    quick, broken = executor.submit(give, 1), executor.submit(fail)
    assert next(as_completed([slow, quick], PATIENCE)) is quick
    done, left = wait([slow, broken], PATIENCE, return_when="FIRST_EXCEPTION")
    assert (done, left) == ({broken}, {slow})
    foreign = concurrent.futures.Future()
    foreign.set_result(2)
    release.set()
    done, left = wait([slow, quick, broken, foreign], PATIENCE)
    assert (len(done), len(left)) == (4, 0)
    assert isinstance(broken.exception(), ValueError)


def test_a_wait_that_runs_out(executor, tmp_path):
    """`result(timeout)` raises TimeoutError, leaves the call alone, and a second one gets the value."""
    future, release = held(executor, tmp_path)
    for seconds in (0, 0.01, -1):
        with pytest.raises(TimeoutError):
            future.result(seconds)
        with pytest.raises(TimeoutError):
            future.exception(seconds)
    assert future.running()
    release.set()
    assert future.result(PATIENCE) == "released"


def test_callbacks_come_with_nobody_waiting(executor, tmp_path):
    """A done-callback is called once with its future, whether or not anybody waits; one that raises hurts nobody."""
    future, release = held(executor, tmp_path)
    seen = []
    future.add_done_callback(lambda one: seen.append((one, one.result())))
    release.set()
    until(lambda: seen)
    future.add_done_callback(seen.append)
    assert seen == [(future, "released"), future]


def test_the_call_s_own_exception(executor):
    """A future raises what the call raised: exits, interrupts and flow control too."""
    for kind in (ValueError, SystemExit, KeyboardInterrupt, StopIteration, asyncio.CancelledError):
        future = executor.submit(fail, kind, 3)
        error = future.exception(PATIENCE)
        assert type(error) is kind
        assert error.args == (3,)
        with pytest.raises(kind):
            future.result()
    assert executor.submit(give, 5).result(PATIENCE) == 5


def test_an_exception_that_is_false(executor):
    """An exception whose truth value is false is raised all the same."""
    with pytest.raises(FalseError):
        executor.submit(fail, FalseError).result(PATIENCE)


class FalseError(Exception):
    def __bool__(self):
        return False


def test_bad_settings():
    """What an executor can't be made with is refused at once, with the reason."""
    for number in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            TaskExecutor(number)
    with pytest.raises(ValueError, match="max_tasks_per_child"):
        TaskExecutor(max_tasks_per_child=0)
    with pytest.raises(TypeError, match="initializer"):
        TaskExecutor(initializer=3)
    with pytest.raises(TypeError, match="mp_context"):
        TaskExecutor(mp_context="fork")
    with pytest.raises(woflo.UsageError, match="runner must be"):
        TaskExecutor(runner=threading.Thread)
    with pytest.raises(woflo.UsageError, match="AsyncTaskRun has no limit"):
        TaskExecutor(4, runner=AsyncTaskRun)
    with pytest.raises(woflo.UsageError, match="ThreadTaskRun has no setting 'process_type'"):
        TaskExecutor(runner=ThreadTaskRun, mp_context=multiprocessing.get_context("spawn"))
    with pytest.raises(woflo.UsageError, match="has no processes"):
        TaskExecutor(runner=ThreadTaskRun, max_tasks_per_child=3)
    with pytest.raises(woflo.UsageError, match="names no threads"):
        TaskExecutor(thread_name_prefix="mine")


def test_how_many_at_once(tmp_path, runner):
    """At most `max_workers` calls are inside at once; the others begin as those end."""
    with TaskExecutor(2, runner=runner) as executor:
        one, release_one = held(executor, tmp_path / "one")
        two, release_two = held(executor, tmp_path / "two")
        ledger = Ledger(tmp_path / "ledger")
        third = executor.submit(note, ledger, "third")
        assert (one.running(), two.running(), third.running(), third.done()) == (True, True, False, False)
        assert ledger.lines() == []
        release_one.set()
        assert third.result(PATIENCE) == "third"
        release_two.set()


def test_a_limit_of_the_runner_s_own_stays():
    """Without max_workers, a runner that has a limit keeps it, and the class itself is used."""
    runner = ThreadTaskRun.using(max_running=3, thread_name_prefix="mine")
    with TaskExecutor(runner=runner) as executor:
        assert executor._max_workers == 3
        assert executor.submit(lambda: threading.current_thread().name).result(PATIENCE) == "mine_0"


def test_settings_go_to_a_runner_that_knows_them():
    """A runner with warm workers gets the size and the number of calls per worker in its own words."""

    class WarmTaskRun(ScriptedTaskRun):
        workers: ClassVar[int | None] = None
        max_runs_per_worker: ClassVar[int | None] = None
        _settings: ClassVar[tuple[str, ...]] = ("workers", "max_runs_per_worker")

    executor = TaskExecutor(3, runner=WarmTaskRun, max_tasks_per_child=5)
    assert (executor.runner.workers, executor.runner.max_runs_per_worker) == (3, 5)
    assert TaskExecutor(runner=WarmTaskRun).runner.workers is None


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_mp_context(method):
    """The start method of a context is the workers'."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    with TaskExecutor(1, multiprocessing.get_context(method)) as executor:
        assert executor.runner.process_type._start_method == method
        assert executor.submit(add, 1, 2).result(PATIENCE) == 3


def test_names_of_threads():
    """Threads are named by the prefix and the lowest free number, and are gone after the shutdown."""
    executor = TaskExecutor(3, runner=ThreadTaskRun, thread_name_prefix="mine")
    names = {future.result(PATIENCE) for future in [executor.submit(name_of_thread) for _ in range(30)]}
    assert names <= {"mine_0", "mine_1", "mine_2"}
    executor.shutdown()
    assert not [one for one in threading.enumerate() if one.name.startswith("mine")]
    with TaskExecutor(1, runner=ThreadTaskRun) as executor:
        assert executor.submit(name_of_thread).result(PATIENCE).startswith("TaskExecutor-")


def name_of_thread():
    return threading.current_thread().name


# ---------------------------------------------------------------------- the end of a call, and of the executor


def test_cancel_ends_a_running_call(executor, tmp_path):
    """A running call is ended, its future is cancelled at once, and whoever waits for it knows."""
    ended = Flag(tmp_path / "ended")
    future, _ = held(executor, tmp_path, ended=ended)
    seen = []
    future.add_done_callback(seen.append)
    assert future.cancel() is True
    assert (future.cancelled(), future.done(), future.running(), seen) == (True, True, False, [future])
    assert wait([future], 0).done == {future}
    assert list(as_completed([future], 0)) == [future]
    with pytest.raises(CancelledError):
        future.result()
    assert future.cancel() is True
    executor.shutdown()
    assert ended.is_set()


def test_cancel_wakes_who_waits(executor, tmp_path):
    """A thread that is inside `result()` gets CancelledError when another one cancels."""
    future, _ = held(executor, tmp_path)
    answers, there = [], threading.Event()

    def ask():
        there.set()
        try:
            future.result(PATIENCE)
        except CancelledError as error:
            answers.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    there.wait(PATIENCE)
    future.cancel()
    asking.join(PATIENCE)
    assert len(answers) == 1


def test_cancel_keeps_a_queued_call_from_beginning(tmp_path, runner):
    """A call that has not begun never begins."""
    with TaskExecutor(1, runner=runner) as executor:
        _, release = held(executor, tmp_path)
        ledger = Ledger(tmp_path / "ledger")
        queued = executor.submit(note, ledger, "queued")
        assert queued.cancel() is True
        assert queued.cancelled()
        release.set()
    assert ledger.lines() == []


def test_cancel_after_the_end(executor):
    """What has an outcome can't be cancelled any more."""
    good, bad = executor.submit(give, 1), executor.submit(fail)
    wait([good, bad], PATIENCE)
    assert (good.cancel(), bad.cancel()) == (False, False)
    assert good.result() == 1
    assert isinstance(bad.exception(), ValueError)


def test_a_call_that_was_cancelled_gives_nothing(executor, tmp_path):
    """What a call returns after it was cancelled is dropped, and its failure is nobody's business."""
    started, asked = Flag(tmp_path / "started"), Flag(tmp_path / "asked")

    def stubborn():
        try:
            hold(started, Flag(tmp_path / "never"))
        except woflo.TaskStopped:
            asked.set()
            return "all the same"

    future = executor.submit(stubborn)
    started.wait()
    future.cancel()
    executor.shutdown()
    assert asked.is_set()
    assert future.cancelled()


def test_a_call_that_answers_its_cancellation_gives_nothing():
    """Also where a call returns before `cancel` does, its future is cancelled."""

    class Answering(ScriptedTaskRun):
        def stop(self, grace=1.0):  # noqa: ARG002 - a runner's own part of it
            self.finish(woflo.Ok("all the same"))

    executor = TaskExecutor(runner=Answering)
    future = executor.submit(give)
    seen = []
    future.add_done_callback(seen.append)
    assert future.running()
    assert future.cancel()
    assert seen == [future]
    assert future.cancelled()
    assert not executor.shutdown()


def test_shutdown_waits(tmp_path, runner):
    """`shutdown()` returns when all calls have ended, the queued ones too, and nothing of theirs is left."""
    executor = TaskExecutor(1, runner=runner)
    ledger = Ledger(tmp_path / "ledger")
    futures = [executor.submit(note, ledger, str(n)) for n in range(5)]
    executor.shutdown()
    assert ledger.lines() == ["0", "1", "2", "3", "4"]
    assert all(future.done() for future in futures)
    assert not executor._active
    executor.shutdown()
    for wait_for_it in (True, False):
        executor.shutdown(wait_for_it, cancel_futures=True)
    with pytest.raises(RuntimeError, match="cannot schedule new futures"):
        executor.submit(give)
    with pytest.raises(RuntimeError, match="cannot schedule new futures"):
        executor.map(give, [1])


def test_shutdown_without_waiting(tmp_path, executor):
    """`shutdown(wait=False)` returns at once; what was submitted is carried out."""
    future, release = held(executor, tmp_path)
    executor.shutdown(wait=False)
    assert not future.done()
    release.set()
    assert future.result(PATIENCE) == "released"


def test_shutdown_that_cancels(tmp_path, runner):
    """`cancel_futures` cancels what has not begun and leaves alone what has."""
    with TaskExecutor(1, runner=runner) as executor:
        running, release = held(executor, tmp_path)
        ledger = Ledger(tmp_path / "ledger")
        queued = [executor.submit(note, ledger, str(n)) for n in range(10)]
        executor.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in queued)
        release.set()
        assert running.result(PATIENCE) == "released"
    assert ledger.lines() == []


@pytest.mark.parametrize("round_", range(20))
def test_a_call_is_cancelled_or_carried_out(round_):
    """However the shutdown meets the beginning of calls, each is either cancelled and never begun, or carried out."""
    ran = set()

    def run(n):
        ran.add(n)
        return n

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        executor = TaskExecutor(3, runner=ThreadTaskRun)
        futures = [executor.submit(run, n) for n in range(100)]
        for future in futures[:round_]:
            future.result(PATIENCE)
        executor.shutdown(cancel_futures=True)
    finally:
        sys.setswitchinterval(old)
    assert all(future.done() for future in futures)
    assert ran == {future.result() for future in futures if not future.cancelled()}


def test_shutdown_from_inside():
    """A call that waits for the end of its own executor would wait for itself: it is told so."""
    with (
        TaskExecutor(1, runner=ThreadTaskRun) as executor,
        pytest.raises(RuntimeError, match="can't wait for the shutdown"),
    ):
        executor.submit(executor.shutdown).result(PATIENCE)


def test_ctrl_c_in_the_block_ends_the_calls(tmp_path, runner):
    """KeyboardInterrupt in the `with` block cancels what runs and what is queued; another exception waits for them."""
    ended = Flag(tmp_path / "ended")
    futures = []

    def leave(error):
        with TaskExecutor(1, runner=runner) as executor:
            futures[:] = [held(executor, tmp_path, ended=ended)[0], executor.submit(give)]
            if isinstance(error, ValueError):
                release.set()
            raise error

    release = Flag(tmp_path / "release")
    with pytest.raises(KeyboardInterrupt):
        leave(KeyboardInterrupt())
    assert [future.cancelled() for future in futures] == [True, True]
    assert ended.is_set()
    with pytest.raises(ValueError, match="mine"):
        leave(ValueError("mine"))
    assert [future.result() for future in futures] == ["released", None]


def test_nothing_is_kept(executor):
    """Neither the function, nor the arguments, nor the result outlive the call, though the future does."""
    one, other = Thing(), Thing()
    future = executor.submit(one.method, other)
    future.result(PATIENCE)
    until(lambda: not executor._active)
    gone = [weakref.ref(one), weakref.ref(other)]
    del one, other
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    for thing in executor.map(make, [Thing] * 3):
        kept = weakref.ref(thing)
        del thing
        gc.collect()
        assert kept() is None


class Thing:
    def method(self, _other):
        return None


def make(kind):
    return kind()


def test_calls_that_nobody_asks_about_do_not_pile_up(executor):
    """An executor forgets what has ended, though nobody has the futures any more."""
    things = [Thing() for _ in range(20)]
    gone = [weakref.ref(thing) for thing in things]
    for thing in things:
        executor.submit(thing.method, thing)
    del thing, things
    until(lambda: not executor._active)
    gc.collect()
    assert not any(one() for one in gone)


@posix
def test_a_future_may_be_dropped_anywhere(tmp_path):
    """To drop a future waits for no other thread: the collector may do it inside of anybody's code."""
    with TaskExecutor(1) as executor:
        future, release = held(executor, tmp_path)
        inside, dropped = threading.Event(), threading.Event()

        def be_inside():
            with _supervisor.get().lock:
                inside.set()
                assert dropped.wait(PATIENCE)

        other = threading.Thread(target=be_inside)
        other.start()
        inside.wait(PATIENCE)
        del future
        dropped.set()
        other.join(PATIENCE)
        release.set()
        until(lambda: not executor._active)


def test_a_future_looks_by_itself(executor):
    """`done`, `cancelled` and the repr know of the end with nobody having waited or wanted to be told."""
    one, two, three = executor.submit(give), executor.submit(give), executor.submit(give)
    until(one.done)
    until(lambda: "returned NoneType" in repr(two))
    while three.running():
        assert not three.cancelled()
    until(three.done)
    assert not three.cancelled()


def test_an_executor_that_is_dropped_ends_nothing(tmp_path, runner):
    """What was submitted to an executor that nobody holds any more is carried out."""
    done = Flag(tmp_path / "done")
    TaskExecutor(1, runner=runner).submit(done.set)
    done.wait()


# ---------------------------------------------------------------------- faults


@posix
def test_a_lost_worker_costs_its_own_call(tmp_path):
    """A worker's death is the victim's alone, as the standard library calls it; neighbours and executor go on."""
    with TaskExecutor(2) as executor:
        neighbour, release = held(executor, tmp_path)
        victim = executor.submit(die)
        error = victim.exception(PATIENCE)
        for kind in (WorkerLost, BrokenProcessPool, BrokenThreadPool, BrokenExecutor, woflo.WorkerFailure):
            assert isinstance(error, kind)
        assert (error.signal, error.task) == ("SIGKILL", "die")
        assert executor.submit(give, 1).result(PATIENCE) == 1
        release.set()
        assert neighbour.result(PATIENCE) == "released"


@posix
@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_result_that_goes_off(kind):
    """A result whose unpickling raises or exits costs its own call, as a BrokenProcessPool that says why."""
    with TaskExecutor(1) as executor:
        error = executor.submit(bomb, kind).exception(PATIENCE)
        assert isinstance(error, BrokenProcessPool)
        assert type(error.__cause__) is kind
        assert "can't be rebuilt" in str(error)
        assert executor.submit(give, 1).result(PATIENCE) == 1


class Bomb:
    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return fail, (self.kind,)


def bomb(kind):
    return Bomb(kind)


def test_an_argument_that_cannot_travel():
    """Under spawn an argument that can't be pickled is an exception of the future, named; nothing else is hurt."""
    with TaskExecutor(1, runner=SPAWN) as executor:
        error = executor.submit(give, threading.Lock()).exception(PATIENCE)
        assert isinstance(error, TypeError)
        assert any("args[0] (a _thread.lock)" in line for line in error.__notes__)
        assert executor.submit(give, 1).result(PATIENCE) == 1


def test_failures_are_true_exceptions():
    """What a future raises is true, as an exception is (others ask `if future.exception()`), and can be pickled."""
    with TaskExecutor(1, runner=ThreadTaskRun) as executor:
        slow = executor.submit(task(time.sleep, timeout=0.01), 0.05)
        purpose = executor.submit(fail, NoData, "nothing today")
        needs = executor.submit(give, task(fail, runner=SequentialTaskRun)())
        for future, kind in ((slow, woflo.TimeoutFailure), (purpose, NoData), (needs, woflo.DependencyFailure)):
            error = future.exception(PATIENCE)
            assert isinstance(error, kind)
            assert error
            again = pickle.loads(pickle.dumps(error))
            assert isinstance(again, kind)
            assert again
            assert str(again) == str(error)
            assert "state=finished raised" in repr(future)
    lost = pickle.loads(pickle.dumps(WorkerLost("gone", signal="SIGKILL", task="fetch")))
    assert (type(lost), lost.signal, lost.task, bool(lost)) == (WorkerLost, "SIGKILL", "fetch", True)


class NoData(woflo.TaskFailure):
    pass


def test_failures_that_nobody_asked_about(executor):
    """A failed call counts as looked at when somebody has asked its future, and not before."""
    before = _unseen.count
    future = executor.submit(fail)
    wait([future], PATIENCE)
    assert _unseen.count == before + 1
    assert future.exception()
    assert _unseen.count == before


def test_the_initializer_comes_first(runner):
    """The initializer is carried out in each worker before its first call, once."""
    with TaskExecutor(2, initializer=prepare, initargs=("ready",), runner=runner) as executor:
        for _ in range(3):
            state, times = executor.submit(look).result(PATIENCE)
            assert (state, times) == ("ready", 1)
        assert executor.submit(alook).result(PATIENCE) == ("ready", 1)
        assert list(executor.map(look, *[[]])) == []
        assert list(executor.map(lambda _: look(), range(4), chunksize=2)) == [("ready", 1)] * 4


_prepared = threading.local()


def prepare(state):
    _prepared.state = state
    _prepared.times = getattr(_prepared, "times", 0) + 1


def look():
    return _prepared.state, _prepared.times


async def alook():
    return look()


def test_a_failed_initializer_costs_its_own_call(tmp_path, runner):
    """A call whose worker could not be made ready fails with the reason; the next worker is tried anew."""
    ready = Flag(tmp_path / "ready")

    def once():
        if not ready.is_set():
            ready.set()
            raise OSError("no licence")

    with TaskExecutor(1, initializer=once, runner=runner) as executor:
        error = executor.submit(give, 1).exception(PATIENCE)
        assert isinstance(error, BrokenExecutor)
        assert "the initializer failed: OSError: no licence" in str(error)
        assert isinstance(error.__cause__, OSError)
        assert executor.submit(give, 2).result(PATIENCE) == 2


# ---------------------------------------------------------------------- strict_compat


@posix
def test_strict_a_lost_worker_breaks_the_executor(tmp_path):
    """With strict_compat a lost worker fails all that has no outcome, and nothing can be submitted any more."""
    with TaskExecutor(2, strict_compat=True) as executor:
        running, _ = held(executor, tmp_path / "one")
        go = Flag(tmp_path / "go")
        victim = executor.submit(die, go)
        queued = executor.submit(hold, Flag(tmp_path / "started"), Flag(tmp_path / "never"))
        go.set()
        for future in (victim, running, queued):
            assert isinstance(future.exception(PATIENCE), BrokenProcessPool)
        with pytest.raises(BrokenProcessPool, match="is broken: die-"):
            executor.submit(give, 1)


def test_strict_a_running_call_is_left_alone(tmp_path, runner):
    """With strict_compat a running call can't be cancelled, a queued one can."""
    with TaskExecutor(1, runner=runner, strict_compat=True) as executor:
        running, release = held(executor, tmp_path)
        queued = executor.submit(give, 1)
        assert (running.cancel(), queued.cancel(), queued.cancelled()) == (False, True, True)
        release.set()
        assert running.result(PATIENCE) == "released"


@posix
def test_strict_calls_are_pickled():
    """With strict_compat a call is pickled when it is submitted: it is as it was then, and a lambda can't go."""
    with TaskExecutor(1, strict_compat=True, initializer=prepare, initargs=("ready",)) as executor:
        assert isinstance(executor.submit(lambda: 1).exception(PATIENCE), Exception)
        rows = [1, 2]
        future = executor.submit(add, *rows)
        rows.clear()
        assert future.result(PATIENCE) == 3
        assert executor.submit(agive, 4).result(PATIENCE) == 4
        assert executor.submit(task(flaky, retries=2)).result(PATIENCE) == 3


@posix
def test_strict_max_tasks_per_child():
    """With strict_compat max_tasks_per_child means spawned workers, as in the standard library."""
    with pytest.raises(ValueError, match="other than fork"):
        TaskExecutor(1, multiprocessing.get_context("fork"), max_tasks_per_child=2, strict_compat=True)
    assert TaskExecutor(1, max_tasks_per_child=2, strict_compat=True).runner.process_type._start_method == "spawn"
    assert TaskExecutor(1, max_tasks_per_child=2).runner.process_type._start_method == "fork"


# ---------------------------------------------------------------------- what woflo adds


def flaky():
    attempt = woflo.current_run().attempt
    if attempt < 3:
        raise ConnectionError
    return attempt


def test_a_task_keeps_its_policy(executor):
    """A Task's retries and time-out count; its runner is the executor's."""
    assert executor.submit(task(flaky, retries=2, runner=SequentialTaskRun)).result(PATIENCE) == 3
    assert list(executor.map(task(flaky, retries=2), *[], chunksize=1)) == []
    named = task(name_of_run, name="mine")
    assert executor.submit(named).result(PATIENCE).startswith("mine-")
    assert executor.submit(name_of_run).result(PATIENCE).startswith("name_of_run-")
    with pytest.raises(woflo.TimeoutFailure):
        executor.submit(task(linger, timeout=0.05)).result(PATIENCE)


def name_of_run():
    return woflo.current_run().name


def linger():
    deadline = time.monotonic() + PATIENCE
    while not woflo.stop_requested() and time.monotonic() < deadline:
        time.sleep(0.002)


def test_a_task_that_remembers(tmp_path, runner):
    """A Task that remembers its results answers from the store, item by item in `map` too, and says where it can't."""
    ledger, store = Ledger(tmp_path / "ledger"), {}
    remembering = task(note, cache=store, ignore=["ledger"])
    for _ in range(2):
        with TaskExecutor(2, runner=runner) as executor:
            assert executor.submit(remembering, ledger, "once").result(PATIENCE) == "once"
            assert list(executor.map(remembering, [ledger] * 3, "abc", chunksize=2)) == ["a", "b", "c"]
    assert sorted(ledger.lines()) == ["a", "b", "c", "once"]
    with (
        TaskExecutor(2, runner=runner, initializer=give) as executor,
        pytest.raises(woflo.UsageError, match="cache=None"),
    ):
        executor.submit(remembering, ledger, "never")


def test_a_coroutine_function(executor):
    """A coroutine function is carried out; its future has its value."""
    assert executor.submit(agive, 3).result(PATIENCE) == 3
    assert list(executor.map(agive, range(4), chunksize=2)) == [0, 1, 2, 3]


def test_on_the_loop():
    """Over AsyncTaskRun coroutines share one loop; blocking on that loop is refused instead of hanging."""
    with TaskExecutor(runner=AsyncTaskRun) as executor:
        assert executor.submit(agive, 3).result(PATIENCE) == 3

        async def main():
            future = executor.submit(agive, 4)
            with pytest.raises(woflo.UsageError, match="await it"):
                future.result()
            with pytest.raises(woflo.UsageError, match="await it"):
                executor.shutdown()
            return await asyncio.wrap_future(future)

        assert asyncio.run(main()) == 4


def test_in_place():
    """Over SequentialTaskRun a call has been carried out when `submit` returns, here."""
    with TaskExecutor(runner=SequentialTaskRun) as executor:
        future = executor.submit(threading.get_ident)
        assert future.done()
        assert future.result() == threading.get_ident()
        assert isinstance(executor.submit(fail).exception(), ValueError)


def test_a_run_as_an_argument(executor):
    """A run among the arguments is replaced by its value."""
    run = task(give, runner=ThreadTaskRun)(20)
    assert executor.submit(add, run, more=task(give, runner=ThreadTaskRun)(22)).result(PATIENCE) == 42


def test_nesting_does_not_lock_up(runner):
    """A call that waits for a future of its own executor gives its place to it, be there a single one."""

    def outer(depth):
        if depth == 0:
            return 0
        return 1 + executor.submit(outer, depth - 1).result(PATIENCE)

    with TaskExecutor(1, runner=runner) as executor:
        assert executor.submit(outer, 3).result(PATIENCE) == 3


def test_context_variables_of_threads():
    """A call in a thread sees the context variables as they were when it was submitted."""
    variable = contextvars.ContextVar("variable", default="unset")
    with TaskExecutor(1, runner=ThreadTaskRun) as executor:
        token = variable.set("set")
        future = executor.submit(variable.get)
        variable.reset(token)
        assert future.result(PATIENCE) == "set"


@posix
def test_in_a_forked_process(tmp_path):
    """A forked process may use an executor that it has inherited; what its parent submitted stays the parent's."""
    with TaskExecutor(1) as executor:
        future, release = held(executor, tmp_path)

        ledger = Ledger(tmp_path / "ledger")

        @task
        def inside():
            with pytest.raises(woflo.UsageError, match="another process"):
                future.result(PATIENCE)
            own = executor.submit(note, ledger, "inside")
            executor.shutdown()
            return own.done(), ledger.lines()

        assert inside().get_result(timeout=PATIENCE) == (True, ["inside"])
        release.set()
        assert future.result(PATIENCE) == "released"


def test_run_in_executor(executor, tmp_path):
    """An event loop can have calls carried out; cancelling the waiter ends the call."""
    started, ended = Flag(tmp_path / "started"), Flag(tmp_path / "ended")

    async def main():
        loop = asyncio.get_running_loop()
        assert await asyncio.gather(*(loop.run_in_executor(executor, give, n) for n in range(5))) == [0, 1, 2, 3, 4]
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(executor, divmod, 1, 0)
        waiter = loop.run_in_executor(executor, hold, started, Flag(tmp_path / "never"), ended)
        await come(started)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    executor.shutdown()
    assert ended.is_set()


@pytest.mark.skipif(importlib.util.find_spec("dask") is None, reason="dask is not installed")
def test_dask(executor):
    """Dask computes on it."""
    import dask

    parts = [dask.delayed(add)(n, 1) for n in range(10)]
    total = dask.delayed(sum)(parts)
    assert dask.compute(total, scheduler=executor) == (55,)
    with pytest.raises(ZeroDivisionError):
        dask.compute(dask.delayed(divmod)(1, 0), scheduler=executor)


# ---------------------------------------------------------------------- the end of the program


def script(code, tmp_path):
    """What a script prints, and its exit code."""
    path = tmp_path / "script.py"
    path.write_text(code)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=PATIENCE * 2, check=False)
    return done.stdout, done.stderr, done.returncode


@pytest.mark.parametrize("name", ["MultiprocessTaskRun", "ThreadTaskRun"])
def test_the_end_of_the_program_waits(tmp_path, name):
    """Calls that nobody waits for are carried out before the program ends, the queued ones too."""
    code = f"""
import time
from woflo.futures import TaskExecutor
from woflo.runners import {name}

def say(n):
    time.sleep(0.05)
    print(n, flush=True)

executor = TaskExecutor(1, runner={name})
for n in range(3):
    executor.submit(say, n)
executor.shutdown(wait=False)
"""
    assert script(code, tmp_path) == ("0\n1\n2\n", "", 0)


@pytest.mark.parametrize("name", ["MultiprocessTaskRun", "ThreadTaskRun"])
def test_nothing_is_taken_at_the_end_of_the_program(tmp_path, name):
    """When the interpreter is ending, `submit` raises RuntimeError instead of hanging, whenever its caller was registered."""
    code = f"""
import atexit

def late():
    try:
        executor.submit(print, "too late")
    except RuntimeError as error:
        print(error)

atexit.register(late)
from woflo.futures import TaskExecutor
from woflo.runners import {name}
executor = TaskExecutor(1, runner={name})
executor.submit(print, "in time", flush=True).result()
atexit.register(late)
"""
    refused = "cannot schedule new futures: the interpreter is ending\n"
    assert script(code, tmp_path) == ("in time\n" + 2 * refused, "", 0)


def test_a_call_at_the_end_of_the_program_may_have_an_executor(tmp_path):
    """A queued call that is carried out while the program ends can make an executor of its own."""
    code = """
import time
from woflo.futures import TaskExecutor

def inner():
    with TaskExecutor(1) as executor:
        print(executor.submit(pow, 2, 5).result(), flush=True)

executor = TaskExecutor(1)
executor.submit(time.sleep, 0.1)
executor.submit(inner)
"""
    assert script(code, tmp_path) == ("32\n", "", 0)


def test_loading_it_is_cheap():
    """`woflo.futures` loads neither multiprocessing nor asyncio, and woflo doesn't load it."""
    code = (
        "import sys, woflo; assert 'woflo.futures' not in sys.modules; import woflo.futures; "
        "print([name for name in ('multiprocessing', 'asyncio', 'concurrent.futures.process') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_executor_of_any_runner():
    """Anybody's runner serves: the executor asks of it what every runner has."""

    class Mine(BaseTaskRun):
        def start(self):
            threading.Thread(target=lambda: self.finish(self.call())).start()

        def stop(self, grace=1.0):
            pass

    with TaskExecutor(runner=Mine) as executor:
        assert list(executor.map(add, range(5), range(5))) == [0, 2, 4, 6, 8]


# ---------------------------------------------------------------------- CPython's own suite


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cpython_s_own_suite():
    """Every applicable case of CPython's executor tests passes, on threads and forked processes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cpython_suite"], capture_output=True, text=True, timeout=850, check=False
    )
    if done.returncode == 2:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_suite_s_tables_name_their_reasons():
    """Each case that is left out or run strictly is in one table only, with a reason."""
    from tests.cpython_suite.cases import NOT_APPLICABLE, STRICT, reason

    assert not set(NOT_APPLICABLE) & set(STRICT)
    assert all(NOT_APPLICABLE.values())
    assert all(STRICT.values())
    name = "test_process_pool.ProcessPoolForkProcessPoolExecutorTest.test_traceback"
    assert "_RemoteTraceback" in reason(NOT_APPLICABLE, "fork", name)
    assert reason(NOT_APPLICABLE, "fork", "test_wait.ProcessPoolForkWaitTest.test_timeout") == ""
