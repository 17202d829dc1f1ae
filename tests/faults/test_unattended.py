"""Nobody waits: the main thread computes and the run object is dropped; everything happens in time.

"Computes" is a loop in Python code that never calls woflo; it looks at the ledger now and then.
"""

from __future__ import annotations

import textwrap

import pytest

from .rows import CONCURRENT, PROCESSES, covers

COMPUTING = """
def compute_until(start, count=1, limit=LIMIT):
    deadline, number = time.monotonic() + limit, 0
    while len(lines(start)) < count:
        assert time.monotonic() < deadline, f"{start} didn't happen: {lines()}"
        for _ in range(20_000):
            number += 1

def compute_until_gone(pid, limit=LIMIT):
    deadline, number = time.monotonic() + limit, 0
    while is_alive(int(pid)):
        assert time.monotonic() < deadline, f"{pid} lives"
        for _ in range(20_000):
            number += 1
"""


def computing(source: str) -> str:
    """The case's source with `compute_until(line)` before it."""
    return COMPUTING + textwrap.dedent(source)


@covers("unattended-timeout")
@pytest.mark.parametrize("kept", [True, False])
def test_timeout_unattended(run_case, runner, kept):
    """A time-out ends its run in time though nobody waits for it."""
    prefix, hold = ("async ", "await hold_async") if runner == "async" else ("", "hold")
    outcome = run_case(
        computing(f"""
        @job(timeout=0.3)
        {prefix}def body():
            write("in", os.getpid())
            try:
                {hold}("never")
            finally:
                write("finally")
            write("to the end")

        {"run = " if kept else ""}body()
        compute_until("in")
        if IS_PROCESS:
            compute_until_gone(lines("in")[0].split()[1])
        compute_until("finally")
        {"error_of(run, TimeoutFailure)" if kept else ""}
        """),
        runner=runner,
    )
    assert outcome.count("to the end") == 0


@covers("unattended-timeout", runners=PROCESSES)
def test_timeout_of_a_deaf_task_unattended(run_case, runner):
    """A time-out kills a task that ignores SIGTERM though nobody waits for it."""
    run_case(
        computing("""
        @job(timeout=0.3)
        def body():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            write("in", os.getpid())
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass

        body()
        compute_until("in")
        compute_until_gone(lines("in")[0].split()[1])
        """),
        runner=runner,
    )


@covers("unattended-retry", vary=("fault", {"exception": CONCURRENT, "kill": PROCESSES, "timeout": CONCURRENT}))
def test_retry_unattended(run_case, runner, fault):
    """Attempts follow one another, with their pauses, though nobody waits."""
    act = {
        "exception": "raise ValueError('again')",
        "kill": "os.kill(os.getpid(), signal.SIGKILL)",
        "timeout": "await asyncio.sleep(20)" if runner == "async" else "[time.sleep(0.01) for _ in range(2000)]",
    }[fault]
    outcome = run_case(
        computing(f"""
        @job(retries=2, retry_sleep_time=0.1, timeout={0.4 if fault == "timeout" else 10.0})
        {"async " if runner == "async" else ""}def body():
            write("attempt", current_run().attempt)
            if current_run().attempt < 3:
                {act}
            write("done")

        body()
        compute_until("done")
        """),
        runner=runner,
    )
    assert [line for line in outcome.ledger if line.startswith("attempt")] == ["attempt 1", "attempt 2", "attempt 3"]


@covers("unattended-megabyte")
def test_megabyte_unattended(run_case, runner):
    """A worker leaves as soon as its task has ended, whatever the size of a result nobody has asked for."""
    run_case(
        computing("""
        @job
        def body(size):
            write("in", os.getpid())
            return b"x" * size

        for size in (66_000, 1_000_000):
            run = body(size)
            compute_until("in")
            if IS_PROCESS:
                compute_until_gone(lines("in")[-1].split()[1])
            same(len(value_of(run)), size)
            body(size)  # dropped at once
            compute_until("in", 2)
            if IS_PROCESS:
                compute_until_gone(lines("in")[-1].split()[1])
            os.unlink(DIRECTORY + "/ledger")
        """),
        runner=runner,
    )


@covers("unattended-33rd")
def test_more_runs_than_slots_unattended(run_case, runner):
    """More runs than there are slots all take their turn though nobody waits."""
    count = {"spawn": 7}.get(runner, 70)
    run_case(
        computing(f"""
        runner = limited(3) if RUNNER_NAME == "spawn" else RUNNER

        @job(runner=runner)
        def body(number):
            write("ran", number)

        for number in range({count}):
            body(number)
        compute_until("ran", {count})
        same(sorted(int(line.split()[1]) for line in lines("ran")), list(range({count})))
        """),
        runner=runner,
    )


@covers("unattended-33rd", runners=PROCESSES)
def test_never_more_than_max_running(run_case, runner):
    """At most `max_running` processes of a runner live at once, and a call returns at once all the same."""
    outcome = run_case(
        """
        narrow = limited(2)

        @job(runner=narrow)
        def body(number):
            write("+")
            time.sleep(0.1)
            write("-")

        began = time.monotonic()
        runs = [body(number) for number in range(6)]
        assert time.monotonic() - began < 2
        for run in runs:
            run.outcome()
        """,
        runner=runner,
    )
    level = highest = 0
    for line in outcome.ledger:
        level += 1 if line == "+" else -1
        highest = max(highest, level)
    assert (level, outcome.count("+")) == (0, 6)
    assert highest <= 2


@covers("unattended-33rd", runners=["fork"])
def test_one_limit_for_all(run_case, runner):
    """The default limit is one for the whole program, whichever process types its tasks have."""
    run_case(
        """
        from woflo.runners.multiprocess import ForkProcess, MultiprocessTaskRun

        def body():
            write("in")
            hold("go")

        limit = max(32, 4 * os.cpu_count())
        kinds = (MultiprocessTaskRun, RUNNER, MultiprocessTaskRun.using(process_type=ForkProcess))
        tasks = [task(body, runner=kind) for kind in kinds]
        runs = [tasks[number % 3]() for number in range(limit + 12)]
        await_ledger("in", limit)
        time.sleep(0.2)  # no event tells that a run does not start
        same(len(lines("in")), limit)
        release("go")
        for run in runs:
            same(run.get_result(timeout=LIMIT), None)
        """,
        runner=runner,
    )


@covers("unattended-callback", vary=("fault", {"none": CONCURRENT, "exception": CONCURRENT, "kill": PROCESSES}))
def test_callback_unattended(run_case, runner, fault):
    """A callback is called once in time though nobody waits, also after a death."""
    act = {"none": "pass", "exception": "raise ValueError('x')", "kill": "os.kill(os.getpid(), signal.SIGKILL)"}[fault]
    outcome = run_case(
        computing(f"""
        @job
        def body():
            write("in")
            {act}

        def tell(run):
            write("called", run.state, run.is_running(), type(run.outcome()).__name__)
            double(4).add_done_callback(lambda run: write("second", run.get_result()))
            raise RuntimeError("a callback that raises harms nobody")

        body().add_done_callback(tell)
        compute_until("called")
        compute_until("second")
        works()
        """),
        runner=runner,
    )
    kind = {"none": "succeeded False Ok", "exception": "failed False TaskFailure", "kill": "failed False WorkerFailure"}
    assert outcome.count(f"called {kind[fault]}") == 1
    assert outcome.count("second 8") == 1


@covers("unattended-callback", vary=("how", {"callback": PROCESSES, "sequential": PROCESSES}))
def test_long_user_code_delays_nothing(run_case, runner, how):
    """While a callback or a sequential run takes its time in the background, time-outs, retries and callbacks come in time."""
    outcome = run_case(
        f"""
        from woflo.runners import SequentialTaskRun

        gate = threading.Event()

        @job
        def first(name):
            write("first")
            hold("first")

        @job(timeout=0.5, retries=1, retry_sleep_time=0.05)
        def late():
            write("attempt", current_run().attempt)
            hold("never")

        def block(value):
            write("blocks")
            if gate.wait(LIMIT):
                write("goes on")

        if {how == "sequential"}:
            for number in range(3):
                task(block, runner=SequentialTaskRun)(first(number))
        else:
            for number in range(3):
                first(number).add_done_callback(block)
        until(lambda: len(lines("first")) == 3)
        runs = [late() for _ in range(2)]
        for run in runs:
            run.add_done_callback(lambda run: write("ended", type(run.outcome()).__name__))
        release("first")
        until(lambda: len(lines("blocks")) == 3)
        until(lambda: len(lines("ended")) == 2)
        gate.set()
        until(lambda: len(lines("goes on")) == 3)
        works()
        """,
        runner=runner,
    )
    assert outcome.count("ended TimeoutFailure") == 2
    assert outcome.count("attempt 2") == 2


@covers("unattended-callback")
def test_observer_unattended(run_case, runner):
    """An observer hears of start and end though nobody waits; one that raises is dropped and named once."""
    outcome = run_case(
        computing("""
        def watch(event):
            write("event", type(event).__name__)

        def broken(event):
            write("broken called")
            raise RuntimeError("observer")

        with observe(watch), observe(broken):
            double(3)
            compute_until("event RunEnded")
        double(4).wait()
        """),
        runner=runner,
    )
    assert outcome.count("event RunStarted") == 1
    assert outcome.count("event RunEnded") == 1
    assert outcome.count("broken called") == 1


@covers("unattended-input")
def test_input_unattended(run_case, runner):
    """A run whose input ends starts by itself though nobody waits; one whose input died never runs."""
    prefix, hold = ("async ", "await hold_async") if runner == "async" else ("", "hold")
    outcome = run_case(
        computing(f"""
        @job
        {prefix}def first(name):
            write("in", name)
            {hold}(name)
            if name == "bad":
                raise ValueError("bad")
            return name

        @job
        def second(values):
            write("second", values[0])

        @job
        def third(value):
            write("third", value)

        for name in ("good", "bad"):
            third(second([first(name)]))
            compute_until("in " + name)
            release(name)
        compute_until("third None")
        """),
        runner=runner,
    )
    assert outcome.count("second good") == 1
    assert outcome.count("second bad") == 0
    assert outcome.count("third None") == 1
