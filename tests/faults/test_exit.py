"""The interpreter's end: with runs in every state, in every way it can end, by every signal.

In all of them: nothing is left two seconds later (checked by the harness, a subreaper).
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .harness import process_table
from .rows import CONCURRENT, PROCESSES, RUNNERS, covers

INTERRUPTED = (-signal.SIGINT, 130)

RUNS_IN_EVERY_STATE = """
@job
def body(name, seconds=0.3):
    write("start", name)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    write("end", name)
    return name

@job
def fail():
    raise ValueError("nobody looks")

@job
def after(value):
    write("after", value)

running = [body(f"running{number}") for number in range(3)]
ended = double(1)
ended.wait()
failed = fail()
pending = after(running[0])
if RUNNER_NAME != "sequential":
    stopped = body("stopped", LIMIT)
    if IS_PROCESS:
        await_ledger("start stopped")
    stopped.stop(grace=1.0, wait=False)
if IS_PROCESS:
    narrow = limited(1)
    queued = [body.options(runner=narrow)(f"queued{number}", 0.05) for number in range(3)]
"""


def all_carried_out(outcome, runner):
    """Decided by the ledger: each run that should run to its end did, once."""
    names = [f"running{number}" for number in range(3)]
    if runner in PROCESSES:
        names += [f"queued{number}" for number in range(3)]
    for name in names:
        assert (outcome.count(f"start {name}"), outcome.count(f"end {name}")) == (1, 1), (name, outcome)
    assert outcome.count("after running0") == 1, outcome
    assert outcome.count("end stopped") == 0
    assert "Traceback" not in outcome.stderr.replace("Traceback (most recent call last):\n", "", 1), outcome.stderr


@covers("exit-normal")
def test_normal_end(run_case, runner):
    """At a script's end every run is carried out, pending ones too; failures nobody saw are counted."""
    outcome = run_case(RUNS_IN_EVERY_STATE, runner=runner, unfinished=True)
    all_carried_out(outcome, runner)
    assert "nobody looked at" in outcome.stderr, outcome.stderr
    assert "fail-1" in outcome.stderr


@covers("exit-normal")
def test_silent_end(run_case, runner):
    """A script whose runs succeed ends without a word."""
    outcome = run_case(
        "runs = [double(number) for number in range(5)]\n[run.wait() for run in runs[:3]]",
        runner=runner,
        unfinished=True,
    )
    assert (outcome.stdout, outcome.stderr) == ("", "")


@covers("exit-sys-exit")
def test_sys_exit(run_case, runner):
    """`sys.exit` keeps its code, and every run is carried out first."""
    outcome = run_case(RUNS_IN_EVERY_STATE + "\nsys.exit(5)", runner=runner, unfinished=True, expect=5)
    all_carried_out(outcome, runner)


@covers("exit-exception", "exit-os-exit")
@pytest.mark.parametrize("how", ["exception", "os._exit"])
def test_abrupt_end(run_case, runner, how):
    """After an unhandled exception all runs are stopped within the grace; os._exit takes them along."""
    last = "raise RuntimeError('mine')" if how == "exception" else "os._exit(1)"
    outcome = run_case(
        f"""
        @job
        {"async " if runner == "async" else ""}def body(name):
            write("in", name)
            try:
                {"await hold_async" if runner == "async" else "hold"}("never")
            finally:
                write("finally", name)

        @job
        def after(value):
            write("after")

        runs = [body("1"), body("2")]
        pending = after(runs[0])
        await_ledger("in", 2)
        write("leaves")
        {last}
        """,
        runner=runner,
        unfinished=True,
        expect=1,
        limit=12,
    )
    assert outcome.count("after") == 0
    if how == "exception":
        assert outcome.stderr.count("RuntimeError: mine") == 1
        assert outcome.stderr.count("Traceback") == 1, outcome.stderr
        assert sum(line.startswith("finally") for line in outcome.ledger) == 2


@covers("exit-os-exit", runners=["sequential"])
def test_os_exit_after_a_sequential_run(run_case, runner):
    """os._exit after sequential runs is what it always is."""
    run_case("double(1); os._exit(7)", runner=runner, unfinished=True, expect=7)


@covers("exit-exception", runners=CONCURRENT)
def test_unhandled_exception_with_deaf_runs(run_case, runner):
    """After an unhandled exception even runs that won't stop don't hold the exit longer than the grace."""
    run_case(
        """
        @job
        def deaf():
            if RUNNER_NAME in ("fork", "spawn"):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            write("in")
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    time.sleep(0.05)
                except BaseException:
                    pass

        deaf()
        await_ledger("in")
        raise RuntimeError("mine")
        """,
        runner=runner,
        unfinished=True,
        expect=1,
        limit=10,
    )


@covers("exit-atexit")
def test_runs_started_from_atexit(run_case, runner):
    """A run started while the interpreter leaves is carried out or fails clearly; no hang, no orphan."""
    outcome = run_case(
        """
        import atexit

        def leave():
            try:
                same(double(21).get_result(timeout=10), 42)
                write("carried out")
            except Exception as error:
                write("refused", type(error).__name__)

        atexit.register(leave)
        write("leaves")
        """,
        runner=runner,
        unfinished=True,
    )
    last = outcome.ledger[-1].split()[0]
    assert last in ("carried", "refused"), outcome
    if last == "refused":
        assert outcome.ledger[-1].split()[1] in ("WorkerFailure", "StoppedFailure", "UsageError"), outcome
    elif sys.version_info < (3, 12):
        assert last == "carried"


@covers("exit-atexit")
def test_runs_started_by_a_thread_after_the_main_thread(run_case, runner):
    """A thread that outlives the main thread may still start and collect runs, or is told so clearly."""
    outcome = run_case(
        """
        def late():
            threading.main_thread().join(LIMIT)
            try:
                write("value", double(4).get_result(timeout=10))
            except Exception as error:
                write("refused", type(error).__name__)

        threading.Thread(target=late).start()
        """,
        runner=runner,
        unfinished=True,
    )
    assert outcome.ledger[-1].startswith(
        ("value 8", "refused WorkerFailure", "refused StoppedFailure", "refused UsageError")
    ), outcome


@covers("exit-nested")
def test_runs_of_a_worker_at_its_end(run_case, runner):
    """What a task started without waiting for it is carried out before its worker ends, or ends with it."""
    outcome = run_case(
        """
        @job
        def inner():
            write("inner starts")
            time.sleep(0.3)
            write("inner ends")

        @job
        def outer():
            inner()
            return "outer"

        same(value_of(outer()), "outer")
        """,
        runner=runner,
    )
    assert outcome.count("inner starts") == outcome.count("inner ends") or outcome.count("inner starts") == 1


def refusing_interpreter() -> str | None:
    """A CPython 3.12.0 or 3.12.1, where nothing may be forked or threaded during exit."""
    homes = sorted(Path.home().glob(".pyenv/versions/3.12.[01]/bin/python"))
    for python in [shutil.which("python3.12"), *map(str, homes)]:
        if python is None:
            continue
        shown = subprocess.run(
            [python, "-c", "import sys; print(sys.version_info[:3])"], capture_output=True, text=True, check=False
        )
        if shown.stdout.strip() in ("(3, 12, 0)", "(3, 12, 1)"):
            return python
    return None


@covers("exit-exec", vary=("moment", {"beginning": PROCESSES, "running": PROCESSES}))
def test_exec_of_another_program(start_case, runner, moment):
    """When the program becomes another one its workers end, those too that have hardly begun, and no task starts then."""
    case = start_case(
        f"""
        @job
        def body():
            write("in")
            time.sleep(60)

        for _ in range(4):
            body()
        if {moment == "running"}:
            await_ledger("in", 4)
        write("exec")
        os.execvp("sleep", ["sleep", "60"])
        """,
        runner=runner,
        unfinished=True,
    )
    case.await_ledger("exec")

    def alive():
        return [pid for pid, entry in process_table().items() if entry[0] == case.pid and entry[1] != "Z"]

    case.until(lambda: process_table()[case.pid][2] == "sleep 60", "the other program")
    case.until(lambda: not alive(), "the end of the workers", limit=2)
    case.signal(signal.SIGKILL)
    outcome = case.wait(-signal.SIGKILL)
    if moment == "beginning" and runner == "spawn":
        assert outcome.count("in") == 0


@covers("exit-3.12.1")
def test_end_where_fork_is_refused(run_case, runner):
    """Where Python refuses fork and threads during exit, pending runs run by exec or are reported."""
    python = refusing_interpreter()
    if python is None:
        pytest.skip("needs CPython 3.12.0 or 3.12.1")
    outcome = run_case(RUNS_IN_EVERY_STATE, runner=runner, unfinished=True, python=[python])
    for name in ("running0", "running1", "running2"):
        assert outcome.count(f"start {name}") == 1, outcome
        assert outcome.count(f"end {name}") == 1, outcome
    pending = ["after running0"]
    if runner in PROCESSES:
        pending += [f"end queued{number}" for number in range(3)]
    for line in pending:
        name = line.split()[-1].rstrip("0123456789")
        assert outcome.count(line) == 1 or "nobody looked at" in outcome.stderr, (line, name, outcome)
    assert "Traceback" not in outcome.stderr.replace("Traceback (most recent call last):\n", "", 1), outcome.stderr


def interrupted(case, *, expect=INTERRUPTED, limit=10.0, traces=1):
    """End a case by one Ctrl-C; no traces but the caller's own KeyboardInterrupt."""
    began = time.monotonic()
    case.signal_group(signal.SIGINT)
    outcome = case.wait(expect, limit=limit)
    assert time.monotonic() - began < 6, "promised: 1 s"
    assert outcome.stderr.count("Traceback") <= traces, outcome.stderr
    assert outcome.stderr.count("\nKeyboardInterrupt") <= 1, outcome.stderr
    assert "Exception ignored" not in outcome.stderr, outcome.stderr
    assert "ERROR" not in outcome.stderr, outcome.stderr
    return outcome


WAITS = {
    "get_result": "runs[0].get_result()",
    "wait": "runs[0].wait()",
    "woflo.wait": "woflo.wait(runs)",
    "gather": "gather(*runs)",
    "as_completed": "list(as_completed(runs))",
    "join": "[run.outcome() for run in runs]",
    "compute": "while True: pass",
    "sleep": "time.sleep(60)",
    "asyncio": "asyncio.run(everything())",
}


WAITING_RUNNERS = {wait: CONCURRENT if wait in ("get_result", "compute") else CONCURRENT[:3] for wait in WAITS}
"""A wait is the same for a spawned worker as for a forked one."""


@covers("interrupt-wait", vary=("wait", WAITING_RUNNERS))
def test_interrupt_while_waiting(start_case, runner, wait):
    """One Ctrl-C: one KeyboardInterrupt in the caller, all runs stopped, exit by SIGINT."""
    case = start_case(
        f"""
        @job
        {"async " if runner == "async" else ""}def body(name):
            write("in", name)
            try:
                {"await hold_async" if runner == "async" else "hold"}("never", 60)
            finally:
                write("finally")

        async def everything():
            for run in runs:
                await run

        runs = [body(str(number)) for number in range(3)]
        await_ledger("in", 3)
        write("waits")
        {WAITS[wait]}
        """,
        runner=runner,
        unfinished=True,
    )
    case.await_ledger("waits")
    time.sleep(0.05)  # no event tells that a wait has begun; at any moment it must hold anyway
    # asyncio.run shows the cancellation beside the interrupt
    outcome = interrupted(case, traces=2 if wait == "asyncio" else 1)
    assert outcome.stderr.count("\nKeyboardInterrupt") == 1, outcome.stderr
    assert outcome.count("finally") == 3


QUICK = ("sequential", "thread", "fork")


@covers("interrupt-wait", vary=("moment", {0: QUICK, 1: RUNNERS, 3: QUICK, 7: RUNNERS, 20: QUICK}))
def test_interrupt_at_any_time(start_case, runner, moment):
    """Ctrl-C at any moment of starting and collecting runs: exit by SIGINT, nothing left, no traces."""
    case = start_case(
        """
        def forever():
            number = 0
            while True:
                runs = [double(number + step) for step in range(4)]
                for step, run in enumerate(runs):
                    assert run.get_result() == 2 * (number + step)
                number += 4
                write("collected", number)

        write("collected", 0)
        forever()
        """,
        runner=runner,
        unfinished=True,
    )
    case.await_ledger("collected", moment + 1)
    outcome = interrupted(case)
    assert "AssertionError" not in outcome.stderr


@covers("interrupt-wait", runners=["fork"])
def test_interrupt_at_every_point_of_a_step(run_case, runner):
    """Ctrl-C wherever the interpreter can raise it in our part of the parent: no run hangs, no slot is lost, nothing is left.

    That is at the beginning of a function and after a call into C; the N-th of these raises, N = 1, 2, … until none does.
    """
    outcome = run_case(
        """
        import loguru
        from woflo.runners import _poller, _process, _supervisor, _timers, _tree, base, multiprocess

        loguru.logger.remove()
        files = {module.__file__ for module in (_poller, _supervisor, _timers, _tree, base, multiprocess)}
        narrow = limited(2)

        @task(runner=narrow)
        def give(value):
            return value

        @task(runner=narrow, retries=1, retry_sleep_time=0.001)
        def die():
            os._exit(3)

        @task(runner=narrow, timeout=30)
        def long():
            return b"x" * 100_000

        calls = (functools.partial(give, 1), die, long, functools.partial(give, 2))

        def interrupted_at(number):
            passed = 0

            def count(frame, event, argument):
                nonlocal passed
                if event not in ("call", "c_return") or frame.f_code.co_filename not in files:
                    return
                if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                    return
                passed += 1
                if passed == number:
                    sys.setprofile(None)
                    signal.raise_signal(signal.SIGINT)

            runs = []
            sys.setprofile(count)
            try:
                for call in calls:
                    runs.append(call())
                for run in runs:
                    run.wait(LIMIT)
            except KeyboardInterrupt:
                pass
            finally:
                sys.setprofile(None)
            for run in {*runs, *_process.live}:
                assert run.wait(LIMIT), (number, run)
            return passed >= number

        number = 1
        while interrupted_at(number):
            same([run.get_result(timeout=LIMIT) for run in (give(3), give(4), give(5))], [3, 4, 5])
            number += 1
        until(lambda: (collect(), _supervisor.existing().workers)[1] == {})
        slots = _tree.slots_of(narrow)
        same((slots.users, slots.take(), slots.take(), slots.take()), (0, b"", b"+", None))
        slots.give(b"")
        slots.give(b"+")
        write("points", number)
        """,
        runner=runner,
        limit=120,
    )
    (points,) = (int(line.split()[1]) for line in outcome.ledger if line.startswith("points"))
    assert points > 50


@covers("interrupt-exit")
def test_interrupt_in_the_final_wait(start_case, runner):
    """Ctrl-C while the interpreter waits for its last runs: one press, dies by SIGINT, no traces."""
    case = start_case(
        f"""
        @job
        {"async " if runner == "async" else ""}def body(name):
            write("in", name)
            {"await hold_async" if runner == "async" else "hold"}("never", 60)

        @job
        def after(value):
            write("after")

        runs = [body(str(number)) for number in range(3)]
        pending = after(runs[0])
        await_ledger("in", 3)
        threading._register_atexit(write, "ends")  # called right before ours, which was registered earlier
        """,
        runner=runner,
        unfinished=True,
    )
    case.await_ledger("ends")
    case.until_asleep()
    outcome = interrupted(case, expect=-signal.SIGINT)
    assert outcome.count("after") == 0
    assert "Traceback" not in outcome.stderr, outcome.stderr


@covers("interrupt-exit")
def test_interrupt_stops_dependents_with_their_inputs(start_case, runner):
    """A chain of pending runs is stopped as a whole: none of them fails because another one was stopped first."""
    case = start_case(
        f"""
        @job
        {"async " if runner == "async" else ""}def body(value):
            write("in")
            {"await hold_async" if runner == "async" else "hold"}("never", 60)

        chains = []
        for _ in range(3):
            run = body(0)
            for _ in range(10):
                run = body(run)
            chains.append(run)
        await_ledger("in", 3)
        write("waits")
        chains[0].wait()
        """,
        runner=runner,
        unfinished=True,
    )
    case.await_ledger("waits")
    outcome = interrupted(case)
    assert outcome.count("in") == 3


@covers("interrupt-twice")
@pytest.mark.parametrize("where", ["wait", "exit"])
def test_second_interrupt(start_case, runner, where):
    """A second Ctrl-C during the clean-up ends the program at once, and nothing is left."""
    case = start_case(
        f"""
        @job
        def deaf():
            if IS_PROCESS:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            write("in")
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    time.sleep(0.05)
                except BaseException:
                    pass

        run = deaf()
        await_ledger("in")
        write("leaves")
        {"run.get_result()" if where == "wait" else "pass"}
        """,
        runner=runner,
        unfinished=True,
    )
    case.await_ledger("leaves")
    time.sleep(0.1)
    case.signal_group(signal.SIGINT)
    time.sleep(0.01)
    began = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        case.signal_group(signal.SIGINT)
    case.wait((-signal.SIGINT, 130, 1), limit=10)
    assert time.monotonic() - began < 5


@covers("interrupt-wait", runners=CONCURRENT)
def test_interrupt_that_is_caught(run_case, runner):
    """A program that catches its KeyboardInterrupt goes on, and woflo with it."""
    run_case(
        f"""
        @job
        {"async " if runner == "async" else ""}def body():
            write("in")
            {"await hold_async" if runner == "async" else "hold"}("go")
            return "done"

        run = body()
        await_ledger("in")
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            run.get_result(timeout=LIMIT)
        except KeyboardInterrupt:
            write("caught")
        else:
            raise AssertionError("no interrupt")
        release("go")
        # a script: the wait is over, the run isn't
        answer = run.get_result(timeout=LIMIT, raise_exceptions=False)
        assert answer == "done" or isinstance(answer, StoppedFailure), answer
        works()
        """,
        runner=runner,
    )


@covers("parent-killed")
def test_parent_killed(start_case, runner):
    """When the parent is killed all its runs end, with the grandchildren of their groups."""
    case = start_case(
        """
        import subprocess

        @job
        def plain(name):
            write("in", os.getpid())
            time.sleep(60)

        @job
        def deaf():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGIO, signal.SIGPIPE):
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
            write("in", os.getpid())
            while True:
                time.sleep(60)

        @job
        def c_loop():
            write("in", os.getpid())
            __import__("re").match(r"(a+)+$", "a" * 40 + "b")

        @job
        def grandchildren():
            subprocess.Popen(["sleep", "60"])
            if os.fork() == 0:
                if os.fork() == 0:
                    write("in", os.getpid())
                    time.sleep(60)
                os._exit(0)
            os.wait()
            write("in", os.getpid())
            time.sleep(60)

        @job
        def nested():
            write("in", os.getpid())
            plain("inner").get_result()

        runs = [plain("x"), deaf(), c_loop(), grandchildren(), nested()]
        if RUNNER_NAME == "fork":
            @job
            def threads():
                threading.Thread(target=time.sleep, args=(60,)).start()
                write("in", os.getpid())
                time.sleep(60)
            runs.append(threads())
        else:
            runs.append(plain("y"))
        time.sleep(60)
        """,
        runner=runner,
        unfinished=True,
    )
    case.await_ledger("in", 8)
    case.signal(signal.SIGKILL)
    case.wait(-signal.SIGKILL)


@covers("parent-killed", vary=("moment", {0: PROCESSES, 2: ["fork"], 5: ["fork"]}))
def test_parent_killed_while_starting(start_case, runner, moment):
    """When the parent is killed in the middle of starting runs, none outlives it."""
    case = start_case(
        """
        @job
        def body():
            time.sleep(60)

        runs = []
        write("starts", 0)
        while True:
            runs.append(body())
            write("starts", len(runs))
            if len(runs) > 40:
                time.sleep(60)
        """,
        runner=runner,
        unfinished=True,
    )
    case.await_ledger("starts", moment + 1)
    case.signal(signal.SIGKILL)
    case.wait(-signal.SIGKILL)


@covers("parent-thread-ended")
def test_run_started_by_a_thread_that_ended(start_case, runner):
    """A run outlives the thread that started it, and ends with the parent all the same."""
    case = start_case(
        """
        @job
        def body(name):
            write("in", name, os.getpid())
            hold(name, 60)
            return name

        runs = []
        def start():
            runs.append(body("lives"))
            runs.append(body("dies"))
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        await_ledger("in", 2)
        time.sleep(0.2)  # long enough for a signal sent at the thread's end
        release("lives")
        same(value_of(runs[0]), "lives")
        assert runs[1].is_running()
        write("kill me")
        time.sleep(60)
        """,
        runner=runner,
        unfinished=True,
    )
    case.await_ledger("kill me")
    case.signal(signal.SIGKILL)
    case.wait(-signal.SIGKILL)


@covers("parent-terminated")
def test_parent_terminated(start_case, runner):
    """SIGTERM to the parent ends it and its runs as it always would: woflo has no handler."""
    source = """
        {handler}
        @job
        def body():
            write("in")
            time.sleep(60)

        run = body()
        await_ledger("in")
        write("ready")
        time.sleep(60)
        """
    case = start_case(source.replace("{handler}", ""), runner=runner, unfinished=True)
    case.await_ledger("ready")
    case.signal(signal.SIGTERM)
    case.wait(-signal.SIGTERM)

    handler = "signal.signal(signal.SIGTERM, lambda *_: (write('handler'), os._exit(33)))"
    case = start_case(source.replace("{handler}", handler), runner=runner, unfinished=True)
    case.await_ledger("ready")
    case.signal(signal.SIGTERM)
    outcome = case.wait(33)
    assert outcome.count("handler") == 1


@covers("exit-normal", runners=RUNNERS)
def test_end_with_output_pending(run_case, runner):
    """What tasks print in the last moment appears, once."""
    outcome = run_case(
        """
        sys.stdout.write("a ")

        @job
        def say():
            time.sleep(0.1)
            sys.stdout.write("b ")

        run = say()
        sys.stdout.write("c ") if RUNNER_NAME == "fork" else None
        """,
        runner=runner,
        unfinished=True,
    )
    assert sorted(outcome.stdout.split()) == (["a", "b", "c"] if runner == "fork" else ["a", "b"])


@covers("exit-normal", runners=PROCESSES)
def test_end_after_stopping_everything(run_case, runner):
    """Runs stopped without waiting don't hold the exit beyond their grace."""
    began = time.monotonic()
    run_case(
        """
        @job
        def deaf():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            write("in")
            time.sleep(60)

        runs = [deaf() for _ in range(3)]
        await_ledger("in", 3)
        for run in runs:
            run.stop(grace=0.2, wait=False)
        """,
        runner=runner,
        unfinished=True,
    )
    assert time.monotonic() - began < 15
