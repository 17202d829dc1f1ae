"""`stop()` and time-outs: how a run is ended that doesn't want to end, and what is said of it.

The promise for processes is "gone within the grace + 0.2 s"; asserted is five times that.
"""

from __future__ import annotations

import textwrap

import pytest

from .rows import CONCURRENT, HERE, PROCESSES, covers

STOPPING = """
def stopped(run, grace, bound=None):
    began = time.monotonic()
    run.stop(grace=grace)
    took = time.monotonic() - began
    assert took <= (bound or grace + 1.0), f"stop took {took:.2f} s"  # promised: grace + 0.2 s
    return error_of(run, StoppedFailure)
"""


def with_stopping(source: str) -> str:
    """The case's source with `stopped(run, grace)` before it."""
    return STOPPING + textwrap.dedent(source)


@covers("stop-plain", "upstream-stop-visible")
def test_stop_lets_finally_run(run_case, runner):
    """`stop()` raises TaskStopped in the task, `finally` runs, the run ends as StoppedFailure."""
    source = """
        @job
        def body(name):
            try:
                assert not stop_requested()
                write("in", os.getpid())
                hold("never")
            except Exception:
                write("caught by except Exception")
            finally:
                write("finally", sys.exc_info()[0].__name__, stop_requested())
        """
    if runner == "async":
        source = """
        @job
        async def body(name):
            try:
                write("in", os.getpid())
                await hold_async("never")
            except Exception:
                write("caught by except Exception")
            finally:
                write("finally", "TaskStopped", True)
        """
    outcome = run_case(
        with_stopping(source)
        + with_stopping("""
        run = body("x")
        await_ledger("in")
        failure = stopped(run, grace=5.0, bound=4.0)
        same(run.state, "stopped")
        same(type(failure), StoppedFailure)
        await_ledger("finally")
        same(run.get_result(raise_exceptions=False), failure)
        works()
        """),
        runner=runner,
    )
    assert outcome.count("finally TaskStopped True") == 1
    assert outcome.count("caught by except Exception") == 0


@covers("stop-swallowed")
def test_task_that_goes_on_after_the_stop(run_case, runner):
    """What a task returns after it was asked to stop counts; what it raises then doesn't."""
    source = """
        @job
        def body(then):
            try:
                write("in")
                hold("never")
            except TaskStopped:
                if then == "return":
                    return "tidy"
                raise ValueError("untidy") from None
        """
    if runner == "async":
        source = """
        @job
        async def body(then):
            try:
                write("in")
                await hold_async("never")
            except BaseException:
                if then == "return":
                    return "tidy"
                raise ValueError("untidy") from None
        """
    run_case(
        with_stopping(source)
        + with_stopping("""
        tidy = body("return")
        await_ledger("in")
        tidy.stop(grace=5.0)
        same(value_of(tidy), "tidy")
        untidy = body("raise")
        await_ledger("in", 2)
        stopped(untidy, grace=5.0)
        """),
        runner=runner,
    )


@covers("sigterm-defied")
def test_task_that_defies_sigterm(run_case, runner):
    """A task that ignores, blocks or traps SIGTERM is gone within the grace, by SIGKILL."""
    run_case(
        with_stopping("""
        @job
        def defy(how):
            if how == "ignore":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            elif how == "block":
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            elif how == "trap":
                signal.signal(signal.SIGTERM, lambda *_: write("trapped"))
            write("in", how, os.getpid())
            while True:
                try:
                    time.sleep(LIMIT)
                except BaseException:
                    write("swallowed", how)

        hows = ("ignore", "block", "trap", "swallow")
        runs = {how: defy(how) for how in hows}
        await_ledger("in", len(hows))
        for how, run in runs.items():
            stopped(run, grace=0.1)
            pid = await_ledger("in " + how)[0].split()[2]
            assert not is_alive(int(pid)), "stop(wait=True) returned before the end"
        works()
        """),
        runner=runner,
    )


@covers("stop-ended", runners=PROCESSES)
def test_stop_without_waiting(run_case, runner):
    """`stop(wait=False)` returns at once; the kill after the grace happens with nobody waiting."""
    run_case(
        """
        @job
        def defy():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            write("in", os.getpid())
            time.sleep(LIMIT)

        run = defy()
        pid = int(await_ledger("in")[0].split()[1])
        began = time.monotonic()
        run.stop(grace=0.2, wait=False)
        assert time.monotonic() - began < 0.2, "it waited"
        while is_alive(pid):
            assert time.monotonic() - began < 5, "no kill followed"
        error_of(run, StoppedFailure)
        """,
        runner=runner,
    )


C_LOOP = "__import__('re').match(r'(a+)+$', 'a' * 40 + 'b')"


@covers("c-loop", runners=PROCESSES)
def test_task_in_a_c_loop(run_case, runner):
    """A task that never comes back from C code is killed after the grace, and by its time-out."""
    run_case(
        with_stopping(f"""
        @job
        def loop():
            write("in")
            {C_LOOP}

        run = loop()
        await_ledger("in")
        stopped(run, grace=0.1)
        failure = error_of(loop.options(timeout=0.3)(), TimeoutFailure)
        same(failure.limit, 0.3)
        works()
        """),
        runner=runner,
        warm=True,
    )


@covers("c-loop", runners=["thread"])
def test_thread_that_cannot_be_stopped(run_case, runner):
    """A thread that can't be ended is abandoned, and the failure says so in as many words."""
    run_case(
        with_stopping("""
        blocker = threading.Lock()
        blocker.acquire()

        @job
        def deaf():
            write("in")
            blocker.acquire()  # C code: no exception reaches it
            return "too late"

        run = deaf()
        await_ledger("in")
        failure = stopped(run, grace=0.1)
        text = str(failure)
        assert "abandon" in text or "still run" in text or "goes on" in text, text
        late = deaf.options(timeout=0.2)()
        failure = error_of(late, TimeoutFailure)
        assert not isinstance(late.outcome(), Ok)
        works()
        for _ in range(2):
            blocker.release()
            until(blocker.locked, "one of the two to wake")
        same(run.outcome().__class__, StoppedFailure)  # the late return changes nothing
        works()
        """),
        runner=runner,
    )


KINDS = {
    "subprocess": 'write("pid", then, subprocess.Popen(["sleep", str(LIMIT)]).pid)',
    "double fork": """
if os.fork() == 0:
    if os.fork() == 0:
        write("pid", then, os.getpid())
        time.sleep(LIMIT)
    os._exit(0)
os.wait()
""",
}
"""A subprocess has none of the worker's descriptors, a fork has all of them: each is ended in its own way."""


@covers("grandchildren")
@pytest.mark.parametrize("kind", KINDS)
def test_grandchildren_are_ended(run_case, runner, kind):
    """Subprocesses and double forks of a stopped, dead, late or finished task end with it."""
    run_case(
        with_stopping(f"""
        import subprocess

        @job
        def start_grandchildren(then):
            {textwrap.indent(KINDS[kind], " " * 12).strip()}
            await_ledger("pid " + then)
            write("in", then)
            if then == "return":
                return "done"
            if then == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if then == "raise":
                raise ValueError("no")
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(LIMIT)

        def end(then):
            gone(await_ledger("pid " + then)[0].split()[2], limit=5)

        run = start_grandchildren("stop")
        await_ledger("in stop")
        stopped(run, grace=0.1)
        end("stop")
        error_of(start_grandchildren.options(timeout=0.5)("late"), TimeoutFailure)
        end("late")
        same(value_of(start_grandchildren("return")), "done")
        end("return")
        lost(start_grandchildren("die"), signal="SIGKILL")
        end("die")
        error_of(start_grandchildren("raise"), ValueError)
        end("raise")
        """),
        runner=runner,
    )


@covers("interrupt-wait", runners=PROCESSES)
def test_interrupt_sent_to_a_worker(run_case, runner):
    """A worker that Ctrl-C reaches itself goes on: the parent decides."""
    run_case(
        """
        @job
        def body():
            write("in", os.getpid())
            hold("go")
            return "done"

        run = body()
        pid = int(await_ledger("in")[0].split()[1])
        for _ in range(3):
            os.kill(pid, signal.SIGINT)
        release("go")
        same(value_of(run), "done")
        """,
        runner=runner,
    )


@covers("grandchildren")
def test_grandchild_that_left_the_group(run_case, runner):
    """A grandchild in a session of its own is ended with its run, or named by its pid: never silent."""
    outcome = run_case(
        with_stopping("""
        import subprocess

        @job
        def leave_group():
            daemon = subprocess.Popen(["sleep", "3.5"], start_new_session=True)
            write("pid", daemon.pid)
            time.sleep(LIMIT)

        run = leave_group()
        pid = int(await_ledger("pid")[0].split()[1])
        failure = stopped(run, grace=0.3)
        write("ended or said", not is_alive(pid) or str(pid) in str(failure))
        """),
        runner=runner,
        orphans_limit=5,
    )
    pid = outcome.ledger[0].split()[1]
    assert outcome.count("ended or said True") or pid in outcome.stderr


@covers("stop-back-off")
def test_stop_in_the_pause(run_case, runner):
    """`stop()` ends a run that pauses between two attempts in 100 ms."""
    run_case(
        with_stopping("""
        @job(retries=5, retry_sleep_time=60)
        def fail():
            write("attempt")
            raise ValueError("again")

        run = fail()
        until(lambda: run.state == "retrying", "the pause")
        failure = stopped(run, grace=5.0, bound=0.5)  # promised: 0.1 s
        same(len(lines("attempt")), 1)
        assert not run.is_running()
        """),
        runner=runner,
    )


@covers("stop-pending")
def test_stop_a_pending_run(run_case, runner):
    """A run that is stopped while it waits for its input or for a slot never runs."""
    hold = "await hold_async" if runner == "async" else "hold"
    run_case(
        with_stopping(f"""
        @job
        {"async " if runner == "async" else ""}def first():
            {hold}("first")
            return 1

        @job
        def second(value):
            write("second ran")

        @job
        def third(value):
            write("third ran")

        source = first()
        pending = second(source)
        after = third(pending)
        same(pending.state, "pending")
        failure = stopped(pending, grace=5.0, bound=0.5)
        failure = error_of(after, DependencyFailure)
        assert isinstance(failure.root_causes()[0], StoppedFailure)
        release("first")
        same(value_of(source), 1)
        same(lines(), [])
        """),
        runner=runner,
    )


@covers("stop-pending", runners=PROCESSES)
def test_stop_a_run_without_slot(run_case, runner):
    """A run that is stopped while it waits for a slot never runs, and the others do."""
    run_case(
        with_stopping("""
        narrow = limited(1)

        @job(runner=narrow)
        def body(name):
            write("ran", name)
            hold(name)
            return name

        first, second, third = body("first"), body("second"), body("third")
        await_ledger("ran first")
        same(second.state, "pending")
        stopped(second, grace=5.0, bound=0.5)
        release("first")
        release("third")
        same(value_of(third), "third")
        same(lines("ran second"), [])
        """),
        runner=runner,
    )


@covers("stop-ended")
def test_stop_changes_nothing_afterwards(run_case, runner):
    """Stopping an ended run, or stopping twice, has no effect."""
    run_case(
        """
        run = double(4)
        same(value_of(run), 8)
        run.stop()
        run.stop(grace=0)
        run.stop(wait=False)
        same(value_of(run), 8)
        same(run.state, "succeeded")
        failed = job(lambda: 1 / 0)()
        error = error_of(failed, ZeroDivisionError)
        failed.stop()
        assert error_of(failed) is error
        same(failed.state, "failed")
        """,
        runner=runner,
    )


@covers("stop-ended", runners=["thread", "fork", "spawn"])
def test_stop_from_many_threads(run_case, runner):
    """Ten threads stopping one run at once all return, and the run ends once."""
    run_case(
        """
        @job
        def body():
            write("in")
            hold("never")

        ended = []
        run = body()
        run.add_done_callback(lambda run: ended.append(run))
        await_ledger("in")
        threads = [threading.Thread(target=run.stop, kwargs={"grace": 2.0}) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        error_of(run, StoppedFailure)
        until(lambda: ended, "the callback")
        same(len(ended), 1)
        """,
        runner=runner,
    )


@covers("timeout")
def test_timeout(run_case, runner):
    """A task that takes too long fails as TimeoutFailure with limit, elapsed time and place."""
    body = "await asyncio.sleep(1.5)" if runner == "async" else "linger()"
    run_case(
        f"""
        def linger():
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                time.sleep(0.01)

        @job(timeout=0.3)
        {"async " if runner == "async" else ""}def slow():
            try:
                {body}
            finally:
                write("finally")
            write("to the end")

        run = slow()
        failure = error_of(run, TimeoutFailure)
        assert isinstance(failure, TimeoutError)
        same(failure.limit, 0.3)
        assert 0.3 <= failure.elapsed < 5, failure.elapsed
        assert "0.3" in str(failure), str(failure)
        await_ledger("finally")
        same(run.state, "failed")
        if RUNNER_NAME not in ("sequential", "async"):
            assert failure.where == "" or "case.py" in failure.where, failure.where
            same(lines("to the end"), [])
        works()
        """,
        runner=runner,
    )


@covers("timeout", runners=HERE)
def test_late_return(run_case, runner):
    """A call that returns too late is a TimeoutFailure, though it couldn't be interrupted."""
    run_case(
        """
        @job(timeout=0.1)
        def late():
            end = time.monotonic() + 0.4
            while time.monotonic() < end:
                try:
                    time.sleep(0.01)
                except TaskStopped:
                    pass
            return "late"

        failure = error_of(late(), TimeoutFailure)
        same(failure.limit, 0.1)
        works()
        """,
        runner=runner,
    )


@covers("timeout-retry")
def test_timeout_with_attempts_left(run_case, runner):
    """`timeout` is per attempt: a late attempt is followed by the next one, pauses don't count."""
    body = "await asyncio.sleep(0.8)" if runner == "async" else "[time.sleep(0.01) for _ in range(80)]"
    run_case(
        f"""
        @job(retries=2, timeout=0.3, retry_sleep_time=0.4)
        {"async " if runner == "async" else ""}def slow_once():
            write("attempt")
            if len(lines("attempt")) == 1:
                {body}
            return "in time"

        same(value_of(slow_once()), "in time")
        same(len(lines("attempt")), 2)
        """,
        runner=runner,
    )


@covers("sigstop")
def test_stopped_and_continued_worker(run_case, runner):
    """A worker that is halted and continued is just slower; its time-out and stop still act."""
    run_case(
        with_stopping("""
        @job
        def body(name):
            write("in", name, os.getpid())
            hold(name)
            return name

        run = body("slow")
        pid = int(await_ledger("in slow")[0].split()[2])
        os.kill(pid, signal.SIGSTOP)
        release("slow")
        assert not run.wait(timeout=0.3)
        assert run.is_running()
        os.kill(pid, signal.SIGCONT)
        same(value_of(run), "slow")

        late = body.options(timeout=0.5)("late")
        os.kill(int(await_ledger("in late")[0].split()[2]), signal.SIGSTOP)
        error_of(late, TimeoutFailure)

        halted = body("halted")
        os.kill(int(await_ledger("in halted")[0].split()[2]), signal.SIGSTOP)
        stopped(halted, grace=0.2)
        works()
        """),
        runner=runner,
    )


@covers("stop-foreign-handler")
def test_stop_in_a_program_with_a_handler(run_case, runner):
    """Stopping a run of an asyncio program leaves the program's own SIGTERM handler alone."""
    outcome = run_case(
        """
        async def main():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                loop.add_signal_handler(number, write, "handler called")

            @job
            def body():
                write("in", os.getpid())
                hold("never")

            for by in ("stop", "kill", "timeout"):
                run = body.options(timeout=0.5)() if by == "timeout" else body()
                await asyncio.to_thread(await_ledger, "in")
                pid = int(lines("in")[0].split()[1])
                if by == "stop":
                    run.stop(grace=2.0)
                elif by == "kill":
                    os.kill(pid, signal.SIGTERM)
                try:
                    await run
                except (StoppedFailure, TimeoutFailure, WorkerFailure) as failure:
                    write("ended", by, type(failure).__name__)
                if not lines("handler"):
                    os.unlink(DIRECTORY + "/ledger")
            await asyncio.sleep(0.1)  # a handler that was called by mistake is called by now

        asyncio.run(main())
        same(lines("handler"), [])
        """,
        runner=runner,
    )
    assert outcome.count("handler called") == 0


@covers("stop-plain", runners=CONCURRENT)
def test_neighbours_of_a_stopped_run(run_case, runner):
    """A stop hits one run: the others and the next one don't notice."""
    prefix, hold = ("async ", "await hold_async") if runner == "async" else ("", "hold")
    run_case(
        with_stopping(f"""
        @job
        {prefix}def body(name):
            write("in", name)
            {hold}(name)
            return name

        runs = [body(str(number)) for number in range(6)]
        await_ledger("in", 6)
        for run in runs[::2]:
            stopped(run, grace=3.0)
        for number in range(6):
            release(str(number))
        for number in (1, 3, 5):
            same(value_of(runs[number]), str(number))
        works()
        """),
        runner=runner,
    )
