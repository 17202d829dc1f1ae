"""Runs and event loops: where coroutines run, what blocks whom, what a cancelled await does."""

# ruff: noqa: ASYNC110 - a flag that another thread or process sets has to be looked at

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time

import pytest

import woflo
from woflo import StoppedFailure, UsageError, task
from woflo.runners import AsyncTaskRun, MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun
from woflo.runners.multiprocess import SpawnProcess
from woflo.testing import PATIENCE, Flag, Ledger

SPAWN = MultiprocessTaskRun.using(process_type=SpawnProcess)


def get(run):
    return run.get_result(timeout=PATIENCE)


def in_loop(main):
    """Run a coroutine function on a fresh loop, within the test's patience."""

    async def limited():
        return await asyncio.wait_for(main(), PATIENCE)

    return asyncio.run(limited())


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@task
async def where():
    """The thread and the loop that this task runs on."""
    await asyncio.sleep(0)
    return threading.get_ident(), id(asyncio.get_running_loop())


@task
async def hold(started, release):
    started.set()
    while not release.is_set():
        await asyncio.sleep(0.002)
    return "released"


@task
async def forever(started=None, ended=None):
    try:
        if started is not None:
            started.set()
        await asyncio.Event().wait()
    finally:
        if ended is not None:
            ended.set()


def give(value=None):
    return value


def blocked(started, release):
    started.set()
    release.wait()
    return "released"


# Which loop.


def test_on_the_running_loop():
    """Within a running loop a coroutine task runs on that loop, in its thread."""

    async def main():
        run = where()
        assert isinstance(run, AsyncTaskRun)
        return await run, (threading.get_ident(), id(asyncio.get_running_loop()))

    there, here = in_loop(main)
    assert there == here


def test_on_a_loop_of_our_own():
    """Without a running loop it runs on one of woflo's, in a thread of its own; runs share it."""
    one, two = get(where()), get(where())
    assert one[0] != threading.get_ident()
    started, release = threading.Event(), threading.Event()
    held = hold(started, release)
    assert started.wait(PATIENCE)
    assert get(where())[1] == get(where())[1]
    release.set()
    assert get(held) == "released"
    assert two[0] != threading.get_ident()


def test_many_at_once_on_our_own_loop():
    """Coroutines interleave: a hundred that wait for each other all end."""
    arrived = []
    together = threading.Event()

    @task
    async def meet():
        arrived.append(1)
        while not together.is_set():
            await asyncio.sleep(0.002)

    runs = [meet() for _ in range(100)]
    until(lambda: len(arrived) == 100)
    together.set()
    assert woflo.wait(runs, timeout=PATIENCE)


def test_our_loop_ends_when_idle():
    """The thread of our own loop is gone when there is nothing to do, and comes back when there is."""
    before = set(threading.enumerate())
    for _ in range(2):
        assert get(where())[0] != threading.get_ident()
        until(lambda: set(threading.enumerate()) <= before)


def test_our_loop_does_not_keep_the_program():
    """The thread is a daemon."""
    started, release = threading.Event(), threading.Event()
    run = hold(started, release)
    assert started.wait(PATIENCE)
    assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    release.set()
    assert get(run) == "released"


def test_the_task_starts_without_an_await():
    """A run on the running loop makes progress whenever the loop does, awaited or not."""

    async def main():
        started, release = asyncio.Event(), asyncio.Event()
        run = hold(started, release)
        await started.wait()
        assert run.is_running()
        release.set()
        return await run

    assert in_loop(main) == "released"


def test_runs_begin_in_the_order_of_the_calls():
    """Runs, asyncio tasks and callbacks of a loop take their first steps in the order in which they were made."""
    order = []

    @task
    async def note(number):
        order.append(number)

    async def plain(number):
        order.append(number)

    async def main():
        loop = asyncio.get_running_loop()
        kept = [note(0), note(1), note(2), loop.create_task(plain(3)), note(4), note(5)]
        loop.call_soon(order.append, 6)
        kept += [note(7), note(8)]
        assert order == [], "nothing begins within the call"
        await asyncio.sleep(0)
        assert order == list(range(9))
        return [run.state for run in kept if isinstance(run, AsyncTaskRun)]

    assert in_loop(main) == ["succeeded"] * 7


def eager(loop, coroutine, **options):
    return asyncio.Task(coroutine, loop=loop, **options)


@pytest.mark.parametrize("kind", ["debug", "factory", "own queue"])
def test_on_loops_of_other_kinds(kind):
    """A loop in debug mode, with a task factory, or with a queue of its own carries runs as well."""

    class Loop(asyncio.SelectorEventLoop):
        def call_soon(self, callback, *args, context=None):
            return super().call_soon(callback, *args, context=context)

    async def main():
        runs = [where() for _ in range(5)]
        return {await run for run in runs}

    loop = Loop() if kind == "own queue" else asyncio.new_event_loop()
    loop.set_debug(kind == "debug")
    if kind == "factory":
        loop.set_task_factory(eager)
    try:
        assert loop.run_until_complete(main()) == {(threading.get_ident(), id(loop))}
    finally:
        loop.close()


def test_its_own_asyncio_task_and_context():
    """Each run has an asyncio task of its own from its first step on: time limits inside of it end it alone."""

    @task
    async def limited(limit):
        job = asyncio.current_task()
        assert woflo.current_run() is not None
        try:
            async with asyncio.timeout(limit):
                await asyncio.Event().wait()
        except TimeoutError:
            return job, asyncio.current_task()

    async def main():
        mine = asyncio.current_task()
        pairs = [await run for run in [limited(0) for _ in range(5)]]
        assert all(first is second for first, second in pairs)
        return len({first for first, _ in pairs} | {mine})

    assert in_loop(main) == 6


def test_stopped_before_its_first_step():
    """Runs that are stopped before their turn never run; those called before and after them do."""
    ran = []

    @task
    async def note(number):
        ran.append(number)

    async def main():
        runs = [note(number) for number in range(5)]
        for run in runs[:4:3]:
            run.stop(wait=False)
        for run in runs:
            await asyncio.wait([asyncio.ensure_future(run)])
        return [run.state for run in runs]

    states = in_loop(main)
    assert states == ["stopped", "succeeded", "succeeded", "stopped", "succeeded"]
    assert ran == [1, 2, 4]


def test_stopping_itself_in_its_first_step():
    """A run may stop itself: it ends at its next await."""

    @task
    async def give_up():
        woflo.current_run().stop(wait=False)
        await asyncio.sleep(PATIENCE)

    async def main():
        runs = [give_up() for _ in range(3)]
        for run in runs:
            with pytest.raises(StoppedFailure):
                await run

    in_loop(main)


def test_a_generator_exit_of_its_own():
    """A coroutine that raises GeneratorExit by itself has failed, at its first step as well as later."""

    @task
    async def odd(wait):
        if wait:
            await asyncio.sleep(0)
        raise GeneratorExit

    async def main():
        for run in [odd(False), odd(False), odd(True), odd(True)]:
            with pytest.raises(woflo.TaskFailure):
                await run

    in_loop(main)


def test_nobody_keeps_what_it_was_called_with():
    """A finished run that is kept holds neither its arguments nor its asyncio task."""
    gone = []

    class Argument:
        def __del__(self):
            gone.append(1)

    async def main():
        runs = [give_async(Argument()) for _ in range(3)]
        for run in runs:
            await run
        gc.collect()
        return runs, len(gone)

    @task
    async def give_async(_argument):
        return None

    assert in_loop(main)[1] == 3


def test_from_another_thread():
    """A run on somebody's loop can be waited for from other threads."""

    async def main():
        started, release = asyncio.Event(), asyncio.Event()
        run = hold(started, release)
        asking = asyncio.create_task(asyncio.to_thread(get, run))
        await started.wait()
        release.set()
        return await asking

    assert in_loop(main) == "released"


def test_plain_functions_too():
    """AsyncTaskRun runs a plain function as well, on a running loop and without."""
    plain = task(give, runner=AsyncTaskRun)

    async def main():
        return await plain(2)

    assert get(plain(1)) == 1
    assert in_loop(main) == 2


# Blocking.


@pytest.mark.parametrize(
    "block",
    [
        lambda run: run.get_result(),
        lambda run: run.get_result(timeout=1),
        woflo.BaseTaskRun.wait,
        lambda run: run.outcome(),
        lambda run: run.exception(),
        lambda run: woflo.wait([run]),
        woflo.gather,
        lambda run: next(woflo.as_completed([run])),
    ],
    ids=["get_result", "get_result(timeout)", "wait", "outcome", "exception", "woflo.wait", "gather", "as_completed"],
)
def test_blocking_from_its_own_loop_is_refused(block):
    """Blocking on a run from the thread of its loop would wait for ever: it is a UsageError that says await."""

    async def main():
        release = asyncio.Event()
        run = hold(asyncio.Event(), release)
        with pytest.raises(UsageError, match="await"):
            block(run)
        release.set()
        assert await run == "released"
        return block(run)  # it has ended: nothing blocks

    in_loop(main)


def test_blocking_from_a_coroutine_on_our_own_loop_is_refused():
    """The same inside a task on woflo's own loop."""

    @task
    async def outer():
        return where().get_result()

    error = outer().exception()
    assert isinstance(error, UsageError)
    assert "await" in str(error)


def test_stop_from_its_own_loop():
    """A coroutine may stop a run of its own loop, and then await its end."""

    async def main():
        started, ended = asyncio.Event(), asyncio.Event()
        run = forever(started, ended)
        await started.wait()
        run.stop(wait=False)
        with pytest.raises(StoppedFailure):
            await run
        return ended.is_set(), run.state

    assert in_loop(main) == (True, "stopped")


def test_nested():
    """A coroutine task may start and await other runs, of any runner."""

    @task
    async def outer():
        return [
            await where() is not None,
            await task(give)(1),
            await task(give, runner=ThreadTaskRun)(2),
            await task(give, runner=SequentialTaskRun)(3),
            await asyncio.gather(*(task(give)(n) for n in range(3))),
        ]

    assert get(outer()) == [True, 1, 2, 3, [0, 1, 2]]


# The end of a loop.


def test_a_loop_that_closes_ends_its_runs():
    """When its loop closes a run ends as StoppedFailure, and its finally blocks run."""
    started, ended = threading.Event(), threading.Event()
    runs = []

    async def main():
        runs.append(forever(started, ended))
        await asyncio.sleep(0)
        while not started.is_set():
            await asyncio.sleep(0)

    in_loop(main)
    outcome = runs[0].outcome()
    assert isinstance(outcome, StoppedFailure)
    assert ended.is_set()
    assert runs[0].state == "stopped"


def test_a_loop_that_closes_before_the_start():
    """A run that never got to start on its loop ends as StoppedFailure too."""
    runs = []

    async def main():
        runs.append(forever())

    in_loop(main)
    assert isinstance(runs[0].outcome(), StoppedFailure)


def test_a_loop_that_is_closed_the_hard_way():
    """The same for a loop that is closed without cancelling what is on it."""
    loop = asyncio.new_event_loop()
    runs = []

    async def main():
        runs.append(forever())
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    leftover = asyncio.all_tasks(loop)
    loop.close()
    (run,) = runs
    assert run.wait(timeout=PATIENCE), "nobody will ever run it"
    assert isinstance(run.outcome(), StoppedFailure)
    for one in leftover:  # asyncio complains about tasks that are dropped while pending
        one._log_destroy_pending = False
    runs.clear()
    del run, leftover
    gc.collect()


def test_a_pending_run_of_a_closed_loop(tmp_path):
    """A run that waits for its input when its loop closes ends as StoppedFailure."""
    release = Flag(tmp_path / "release")
    first = task(release.wait, name="first", runner=ThreadTaskRun)()
    runs = []

    @task
    async def second(_after):
        return "ran"

    async def main():
        runs.append(second(first))

    in_loop(main)
    release.set()
    assert runs[0].wait(timeout=PATIENCE)
    assert isinstance(runs[0].outcome(), StoppedFailure)


# Awaiting runs of other runners.

OTHERS = pytest.mark.parametrize(
    "runner",
    [MultiprocessTaskRun, SPAWN, ThreadTaskRun, SequentialTaskRun],
    ids=["fork", "spawn", "thread", "sequential"],
)


@OTHERS
def test_await_any_run(runner):
    """Any run can be awaited."""

    async def main():
        return await task(give, runner=runner)(5)

    assert in_loop(main) == 5


@pytest.mark.parametrize("runner", [MultiprocessTaskRun, SPAWN, ThreadTaskRun], ids=["fork", "spawn", "thread"])
def test_await_never_blocks_the_loop(runner, tmp_path):
    """While a run is awaited the loop goes on: it is the loop that lets the run end."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")

    async def main():
        async def let_go():
            while not started.is_set():
                await asyncio.sleep(0.001)
            for _ in range(100):
                await asyncio.sleep(0)
            release.set()

        other = asyncio.create_task(let_go())
        value = await task(blocked, runner=runner)(started, release)
        await other
        return value

    assert in_loop(main) == "released"


@pytest.mark.parametrize("runner", [MultiprocessTaskRun, SPAWN, ThreadTaskRun], ids=["fork", "spawn", "thread"])
def test_cancelling_an_await_leaves_the_run_alone(runner, tmp_path):
    """A time limit around an await ends the waiting, not the run."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")

    async def main():
        run = task(blocked, runner=runner)(started, release)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0.02)
        assert run.is_running()
        release.set()
        return await run

    assert in_loop(main) == "released"


def test_cancelling_an_await_of_a_coroutine_run():
    """The same on the loop itself: the run is no child of whoever awaits it."""

    async def main():
        started, release = asyncio.Event(), asyncio.Event()
        run = hold(started, release)

        async def ask():
            return await run

        asking = asyncio.create_task(ask())
        await started.wait()
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert run.is_running()
        release.set()
        return await run

    assert in_loop(main) == "released"


@pytest.mark.parametrize("runner", [MultiprocessTaskRun, ThreadTaskRun, None], ids=["fork", "thread", "async"])
def test_many_awaiters(runner, tmp_path):
    """Fifty coroutines await one run, some of them are cancelled; the others get the value."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")

    async def main():
        run = hold(started, release) if runner is None else task(blocked, runner=runner)(started, release)

        async def ask():
            return await run

        asking = [asyncio.create_task(ask()) for _ in range(50)]
        await asyncio.sleep(0)
        for one in asking[::5]:
            one.cancel()
        release.set()
        return await asyncio.gather(*asking, return_exceptions=True)

    answers = in_loop(main)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [n % 5 == 0 for n in range(50)]
    assert {answer for n, answer in enumerate(answers) if n % 5} == {"released"}


def test_await_raises_what_the_task_raised():
    """Await raises the user's exception, or the Failure, just as get_result does."""

    def broken():
        raise KeyError("price")

    async def main():
        for runner in (MultiprocessTaskRun, ThreadTaskRun, AsyncTaskRun):
            run = task(broken, runner=runner)()
            with pytest.raises(KeyError, match="price"):
                await run
            with pytest.raises(KeyError, match="price"):
                await run
        stopped = forever()
        stopped.stop(wait=False)
        with pytest.raises(StoppedFailure):
            await stopped

    in_loop(main)


def test_a_cancelled_error_of_the_task_is_not_the_awaiters():
    """A task that raises CancelledError failed; whoever awaits it isn't cancelled."""

    @task
    async def gives_up():
        raise asyncio.CancelledError

    async def main():
        with pytest.raises(woflo.TaskFailure) as caught:
            await gives_up()
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        return "went on"

    assert in_loop(main) == "went on"


def test_several_loops_one_after_the_other():
    """A run can be awaited on one loop and on a later one."""
    run = task(give)(3)

    async def main():
        return await run

    assert [in_loop(main), in_loop(main)] == [3, 3]


def test_several_loops_at_once(tmp_path):
    """Two loops in two threads may await the same run."""
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
    run = task(blocked)(started, release)
    answers = []

    async def main():
        return await run

    threads = [threading.Thread(target=lambda: answers.append(in_loop(main))) for _ in range(2)]
    for thread in threads:
        thread.start()
    started.wait()
    release.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == ["released"] * 2


def test_callbacks_and_pipelines_in_a_loop():
    """Runs as inputs work inside a loop: a pending run starts by itself."""

    @task
    async def add(a, b):
        return a + b

    async def main():
        return await add(add(1, 2), task(give)(4))

    assert in_loop(main) == 7


def test_retries_await():
    """Retries of a coroutine pause without blocking the loop."""
    attempts = []

    @task(retries=2, retry_sleep_time=0.01)
    async def flaky():
        attempts.append(woflo.current_run().attempt)
        if len(attempts) < 3:
            raise ConnectionError("down")
        return "up"

    async def main():
        ticks = 0
        run = flaky()
        while run.is_running():
            ticks += 1
            await asyncio.sleep(0)
        return await run, ticks

    value, ticks = in_loop(main)
    assert (value, attempts) == ("up", [1, 2, 3])
    assert ticks > 3


def test_a_time_out_of_a_coroutine():
    """A coroutine that takes too long is cancelled, its finally blocks run, and the failure says where."""
    ended = threading.Event()
    run = forever.options(timeout=0.05)(None, ended)
    with pytest.raises(woflo.TimeoutFailure) as caught:
        get(run)
    assert ended.wait(PATIENCE)
    assert "forever" in caught.value.where


def test_context_variables_are_copied():
    """Each coroutine run has its own copy of the context at the call."""
    from contextvars import ContextVar

    variable = ContextVar("variable", default="unset")

    @task
    async def exchange(new):
        old = variable.get()
        variable.set(new)
        await asyncio.sleep(0)
        return old, variable.get()

    async def main():
        variable.set("main")
        return [await exchange("a"), await exchange("b"), variable.get()]

    assert in_loop(main) == [("main", "a"), ("main", "b"), "main"]


def test_stop_of_processes_from_a_loop(tmp_path):
    """A coroutine may stop a process run and await its end."""
    ledger = Ledger(tmp_path / "ledger")
    started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")

    def body():
        ledger.add(str(os.getpid()))
        return blocked(started, release)

    async def main():
        run = task(body)()
        while not started.is_set():
            await asyncio.sleep(0.001)
        run.stop(wait=False)
        with pytest.raises(StoppedFailure):
            await run

    in_loop(main)
    assert len(ledger.lines()) == 1


def test_a_loop_that_was_closed_does_not_hit_other_runs():
    """Whoever waited there is gone; the run that ends then, and whoever learns that, don't notice."""

    @task
    def late():
        time.sleep(0.1)
        return 1

    async def begin():
        run = late()
        waiting = asyncio.ensure_future(until_ended(run))
        waiting._log_destroy_pending = False
        await asyncio.sleep(0.01)
        return run, waiting

    async def until_ended(run):
        return await run

    loop = asyncio.new_event_loop()
    run, waiting = loop.run_until_complete(begin())
    loop.close()
    told = []
    run.add_done_callback(told.append)

    async def other():
        return await late()

    assert asyncio.run(other()) == 1
    assert run.get_result(timeout=PATIENCE) == 1
    assert told == [run]
    del waiting
