"""The world around the program: stdin, terminals, locks, limits, clocks, interpreters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from .harness import ROOT, extra_path
from .rows import HERE, PROCESSES, RUNNERS, covers

PATHS = [str(ROOT), *extra_path()]


@covers("stdin")
@pytest.mark.parametrize("stdin", ["eof", "closed", "all closed", "pipe"])
def test_stdin(run_case, runner, stdin):
    """Runs work whatever stdin is, and a task that reads it on a process finds it empty."""
    options: dict = {}
    if stdin == "closed":
        options["command"] = ["/bin/sh", "-c", f"exec {sys.executable} case.py <&-"]
    elif stdin == "all closed":
        options["command"] = ["/bin/sh", "-c", f"exec {sys.executable} case.py <&- >&- 2>&-"]
    elif stdin == "pipe":
        read, write = os.pipe()
        options["stdin"] = read
    try:
        outcome = run_case(
            """
            @job
            def read():
                return sys.stdin.read(1) if sys.stdin is not None else None

            @job
            def fail():
                raise ValueError("x")

            works()
            if IS_PROCESS:
                answer = read.options(timeout=5)().get_result(timeout=LIMIT, raise_exceptions=False)
                assert answer in ("", None) or isinstance(answer, (ValueError, OSError, RuntimeError)), repr(answer)
            error_of(fail(), ValueError)
            write("done")
            """,
            runner=runner,
            **options,
        )
    finally:
        if stdin == "pipe":
            os.close(read)
            os.close(write)
    assert outcome.count("done") == 1


NO_SCRIPT = """
import os, sys
from woflo import task
from woflo.runners.multiprocess import ForkProcess, MultiprocessTaskRun, SpawnProcess
if os.environ["FAULTS_RUNNER"] == "pool":
    from woflo.runners import PoolTaskRun as runner
else:
    kind = {"fork": ForkProcess, "spawn": SpawnProcess}[os.environ["FAULTS_RUNNER"]]
    runner = MultiprocessTaskRun.using(process_type=kind)
FACTOR = 2

def twice(x):
    return FACTOR * x

@task(runner=runner)
def double(x):
    return twice(x)

FACTOR = 3
FACTOR = 2
assert double(21).get_result(timeout=20) == 42
print("it works")
"""


@covers("no-script")
@pytest.mark.parametrize("how", ["-c", "stdin", "zipapp", "-m", "-I -S", "-O", "-W error"])
def test_program_that_is_no_script(run_case, tmp_path, runner, how):
    """A program given by -c, on stdin, in a zip file, by -m or isolated runs its functions elsewhere too."""
    options: dict = {}
    python = sys.executable
    if how == "-c":
        options["command"] = [python, "-c", NO_SCRIPT]
    elif how == "stdin":
        script = tmp_path / "stdin.py"
        script.write_text(NO_SCRIPT)
        options["command"] = [python, "-"]
        options["stdin"] = script.open("rb")
    elif how == "zipapp":
        archive = tmp_path / "app.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("__main__.py", NO_SCRIPT)
        options["command"] = [python, str(archive)]
    elif how == "-m":
        (tmp_path / "program.py").write_text(NO_SCRIPT)
        options["command"] = [python, "-m", "program"]
        options["env"] = {"PYTHONPATH": os.pathsep.join([*PATHS, str(tmp_path)])}
    elif how == "-I -S":
        prefix = f"import sys; sys.path[:0] = {PATHS!r}\n"
        options["command"] = [python, "-I", "-S", "-c", prefix + NO_SCRIPT]
    elif how == "-O":
        options["command"] = [python, "-OO", "-c", NO_SCRIPT.replace("assert ", "")]
    else:
        options["command"] = [python, "-W", "error", "-c", NO_SCRIPT]
    expect = (0, 1) if (how, runner) == ("-I -S", "spawn") else 0
    outcome = run_case(NO_SCRIPT, runner=runner, plain=True, expect=expect, **options)
    if "stdin" in options:
        options["stdin"].close()
    if outcome.returncode == 0:
        assert outcome.stdout == "it works\n", outcome
    else:  # the worker's interpreter finds no packages: said clearly, at once
        assert "WorkerFailure" in outcome.stderr, outcome.stderr


@covers("no-script")
def test_interactive_interpreter(tmp_path, runner):
    """Functions typed into the interactive interpreter run elsewhere, and Ctrl-C stops what a call waited for."""
    pexpect = pytest.importorskip("pexpect")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(PATHS),
        "FAULTS_RUNNER": runner,
        "PYTHON_BASIC_REPL": "1",
        "PYTHONSTARTUP": "",
        "TERM": "dumb",
    }
    shell = pexpect.spawn(sys.executable, ["-q"], env=environment, cwd=str(tmp_path), timeout=20, encoding="utf-8")
    try:

        def say(line, answer=None):
            shell.expect_exact(">>> ")
            shell.sendline(line)
            if answer is not None:
                shell.expect_exact(answer)

        say("import os, time; from woflo import task; from woflo.runners.multiprocess import *")
        if runner == "pool":
            say("from woflo.runners import PoolTaskRun as runner")
        else:
            say("kind = {'fork': ForkProcess, 'spawn': SpawnProcess}[os.environ['FAULTS_RUNNER']]")
            say("runner = MultiprocessTaskRun.using(process_type=kind)")
        say("double = task(lambda x: x * 2, name='double', runner=runner)")
        say("double(21).get_result(timeout=15)", "42")
        say("nap = task(time.sleep, name='nap', runner=runner)(60)")
        say("print('wai' + 'ting'); nap.get_result()", "waiting")
        time.sleep(0.3)  # no event tells that the call waits
        shell.sendintr()
        shell.expect_exact("KeyboardInterrupt")
        say("nap.wait(timeout=10), nap.state", "(True, 'stopped')")
        say("double(4).get_result(timeout=15)", "8")
        shell.expect_exact(">>> ")
        shell.sendeof()
        shell.expect(pexpect.EOF)
        shell.wait()
        assert shell.exitstatus == 0, (shell.exitstatus, shell.signalstatus)
    finally:
        shell.close(force=True)


@covers("terminal")
def test_task_reads_the_terminal(start_case, runner):
    """A task that reads the terminal gets end-of-file or an error at once; it's never halted."""
    import pty

    master, slave = pty.openpty()
    try:
        case = start_case(
            """
            import fcntl, termios
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the session's controlling terminal

            @job
            def ask(how):
                write("in", os.getpid())
                if how == "input":
                    return input("name? ")
                if how == "stdin":
                    return sys.stdin.readline()
                if how == "terminal":
                    with open("/dev/tty", "rb", buffering=0) as terminal:
                        return terminal.read(1)
                if how == "print":
                    with open("/dev/tty", "wb", buffering=0) as terminal:
                        terminal.write(b"hello")
                    return "printed"
                if how == "mode":
                    import pty, tty
                    with open("/dev/tty", "rb", buffering=0) as terminal:
                        tty.setraw(terminal.fileno())
                    return "raw"
                import pdb
                pdb.set_trace()
                return "pdb"

            for how in ("input", "stdin", "terminal", "print", "mode", "pdb"):
                run = ask.options(timeout=8)(how)
                answer = run.get_result(timeout=LIMIT, raise_exceptions=False)
                assert not isinstance(answer, TimeoutFailure), f"{how} was halted"
                write(how, type(answer).__name__)
                if how in ("input", "terminal"):
                    assert isinstance(answer, (EOFError, OSError)) or answer == b"", (how, answer)
            works()
            """,
            runner=runner,
            stdin=slave,
        )
        case.wait()
    finally:
        os.close(master)
        os.close(slave)


HELD = {
    "user lock": "held = threading.Lock()",
    "logging handler": "import logging; logging.basicConfig(); held = logging.root.handlers[0].lock",
    "import lock": """
Path(DIRECTORY, "slow.py").write_text("from tests.faults.inside import *; write('held'); hold('lock')")
class Importing:
    def __enter__(self):
        import slow
    def __exit__(self, *_):
        pass
held = Importing()
""",
}


@covers("fork-held-locks")
@pytest.mark.parametrize("held", HELD)
def test_fork_while_a_lock_is_held(run_case, runner, held):
    """A fork while another thread holds a lock blocks nothing of ours; who needs that lock ends by its time-out."""
    outcome = run_case(
        f"""
        import warnings
        warnings.simplefilter("ignore")
        exec({HELD[held]!r})

        def keep():
            with held:
                write("held")
                hold("lock")

        thread = threading.Thread(target=keep)
        thread.start()
        await_ledger("held")

        for number in range(3):
            same(value_of(double(number)), 2 * number)
        error_of(job(lambda: 1 / 0)(), ZeroDivisionError)
        lost(job(retries=1)(lambda: os._exit(3))(), exit_code=3)

        @job(timeout=0.5)
        def needs_it():
            with held:
                return "had it"

        answer = needs_it().get_result(timeout=LIMIT, raise_exceptions=False)
        if {held!r} == "user lock":
            assert isinstance(answer, TimeoutFailure), answer
        else:
            assert answer == "had it" or isinstance(answer, TimeoutFailure), answer
        release("lock")
        thread.join()
        works()
        """,
        runner=runner,
    )
    assert outcome.stderr.count("SpawnProcess") == 1, outcome.stderr  # the risk and its cure are said once


THREADS = {
    "an idle pool": (0, "pool.submit(int).result()"),
    "a library at work": (0, "pool.submit(threading.Event().wait, 1)"),
    "idle threads of ours": (0, "task(int, runner=runner_class('thread'))().wait()"),
    "a child watcher": (0, "process = subprocess.Popen(['sleep', '1']); pool.submit(process.wait)"),
    "code of the program's": (1, "pool.submit(hold, 'program')"),
    "a task in a thread of ours": (1, "task(hold, runner=runner_class('thread'))('program')"),
}


@covers("fork-held-locks", runners=["fork"])
@pytest.mark.parametrize("threads", THREADS)
def test_whose_locks_are_a_risk(run_case, runner, threads):
    """The risk of a fork with threads is named only if one is inside code that no library looks after."""
    said, start = THREADS[threads]
    outcome = run_case(
        f"""
        import subprocess, warnings
        from concurrent.futures import ThreadPoolExecutor
        warnings.simplefilter("ignore")
        pool = ThreadPoolExecutor(1)
        {start}
        time.sleep(0.05)  # until it is where it will stay
        for number in range(3):
            same(value_of(double(number)), 2 * number)
        release("program")
        pool.shutdown()
        until(lambda: threading.active_count() == 1)
        """,
        runner=runner,
    )
    assert outcome.stderr.count("other threads are at work") == said, outcome.stderr


GUARDED = {
    "logging module": "import logging; held = logging._lock",
    "loguru handler": "import loguru; held = [*loguru.logger._core.handlers.values()][0]._lock",
    "loguru core": "import loguru; held = loguru.logger._core.lock",
}


@covers("fork-held-locks")
@pytest.mark.parametrize("held", GUARDED)
def test_fork_while_a_guarded_lock_is_held(run_case, runner, held):
    """A lock that its library guards around fork makes a start wait for its holder, and is usable in the worker."""
    run_case(
        f"""
        import warnings
        warnings.simplefilter("ignore")
        {GUARDED[held]}

        def keep():
            with held:
                write("held")
                time.sleep(0.3)  # the library itself lets a fork wait for this
            write("released")

        thread = threading.Thread(target=keep)
        thread.start()
        await_ledger("held")

        @job(timeout=10)
        def needs_it():
            with held:
                return "had it"

        same(value_of(double(4)), 8)
        same(value_of(needs_it()), "had it")
        error_of(job(lambda: 1 / 0)(), ZeroDivisionError)
        thread.join()
        """,
        runner=runner,
    )


@covers("fork-held-locks")
@pytest.mark.parametrize("stream", ["stdout", "replaced"])
def test_fork_while_stdout_is_held(run_case, runner, stream):
    """A fork while another thread is blocked in a write to stdout doesn't block on the buffer's lock."""
    setup = "os.dup2(write_end, 1)" if stream == "stdout" else "sys.stdout = open(write_end, 'w', closefd=False)"
    run_case(
        f"""
        import select, warnings
        warnings.simplefilter("ignore")
        read, write_end = os.pipe()
        kept, real = os.dup(1), sys.stdout
        {setup}

        def fill():
            write("fills")
            sys.stdout.write("x" * 300_000)
            sys.stdout.flush()

        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        await_ledger("fills")
        # until the pipe is full the thread doesn't block; then it holds the buffer's lock
        until(lambda: not select.select([], [write_end], [], 0)[1], "a full pipe")
        same(double(4).get_result(timeout=5), 8)
        same(double(5).get_result(timeout=5), 10)
        error_of(job(lambda: 1 / 0)(), ZeroDivisionError)
        drained = 0
        while drained < 300_000:
            drained += len(os.read(read, 65536))
        thread.join(LIMIT)
        sys.stdout = real
        os.dup2(kept, 1)
        for handle in (read, write_end, kept):
            os.close(handle)
        """,
        runner=runner,
        limit=12,
    )


@covers("fork-held-locks")
def test_many_threads_start_runs_at_once(run_case, runner):
    """Sixteen threads that start and collect runs at once don't disturb each other."""
    run_case(
        """
        import warnings
        warnings.simplefilter("ignore")
        failures = []

        def work(first):
            try:
                for number in range(first, first + 12):
                    same(double(number).get_result(timeout=LIMIT), 2 * number)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        same(failures, [])
        """,
        runner=runner,
    )


@covers("user-fork")
def test_user_forks_after_woflo_was_used(run_case, runner):
    """In the user's own forked child woflo works, and the parent's runs are left alone."""
    prefix, hold = ("async ", "await hold_async") if runner == "async" else ("", "hold")
    source = f"""
        import warnings
        warnings.simplefilter("ignore")

        @job
        {prefix}def body(name):
            write("in", name)
            {hold}(name)
            return name

        """ + (
        """
        run = body("mine")
        await_ledger("in mine")
        """
        if runner != "sequential"
        else "run = double(3)\n"
    )
    outcome = run_case(
        textwrap.dedent(source)
        + textwrap.dedent("""
        pid = os.fork()
        if pid == 0:
            try:
                same(value_of(double(4)), 8)
                same([other.get_result(timeout=LIMIT) for other in [double(n) for n in range(4)]], [0, 2, 4, 6])
                if IS_PROCESS:
                    try:
                        run.get_result(timeout=2)
                    except UsageError:
                        write("child was told")
                    else:
                        write("child got the parent's result")
                write("child done")
            except BaseException as error:
                write("child failed", repr(error))
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        same(os.waitstatus_to_exitcode(status), 0)
        same(lines("child failed"), [])
        same(len(lines("child done")), 1)
        works()
        release("mine")
        same(value_of(run), 6 if RUNNER_NAME == "sequential" else "mine")
        """),
        runner=runner,
    )
    assert outcome.count("child got the parent's result") == 0


@covers("user-fork", runners=PROCESSES)
def test_user_fork_that_leaves_by_sys_exit(run_case, runner):
    """The user's child that ends normally doesn't wait for, stop or report the parent's runs."""
    outcome = run_case(
        """
        @job
        def body():
            write("in")
            hold("go")
            write("end")
            return 5

        run = body()
        await_ledger("in")
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        os.waitpid(pid, 0)
        assert run.is_running()
        release("go")
        same(value_of(run), 5)
        """,
        runner=runner,
    )
    assert outcome.count("end") == 1
    assert "nobody" not in outcome.stderr


REFUSED = """
@job
def body(name):
    write("in", name)
    hold(name)
    return name

alone = body("alone")
failure = error_of(alone, WorkerFailure)  # nothing of ours will ever make room
same(failure.errno, "EAGAIN")
assert "EAGAIN" in str(failure) and "start" in str(failure), str(failure)
error_of(body.options(retries=1, retry_sleep_time=0.01)("again"), WorkerFailure)
allow()
running = body("running")
await_ledger("in running")
refuse()
waiting = body("waiting")
assert isinstance(waiting.outcome(timeout=0.1), WorkerFailure) if not waiting.is_running() else True
retried = body.options(retries=3, retry_sleep_time=0.3)("retried")
release("retried"), release("waiting"), release("running")
allow()
same(value_of(running), "running")
same(value_of(retried), "retried")
answer = waiting.get_result(timeout=LIMIT, raise_exceptions=False)
assert answer == "waiting" or isinstance(answer, WorkerFailure), answer
works()
same(lines("in alone") + lines("in again"), [])
"""


@covers("fork-refused")
def test_process_start_refused(run_case, runner):
    """When no process can be started a run fails and says so, or waits for those that run; the next one works."""
    run_case(
        """
import errno, _posixsubprocess
real = os.fork, _posixsubprocess.fork_exec

def fail(*_):
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

def refuse():
    os.fork = _posixsubprocess.fork_exec = fail

def allow():
    os.fork, _posixsubprocess.fork_exec = real

refuse()
"""
        + REFUSED,
        runner=runner,
    )


@covers("fork-refused", runners=["fork"])
def test_process_limit_reached(run_case, runner):
    """The same with the kernel's own limit, which binds everybody but root."""
    if os.getuid() != 0:
        pytest.skip("needs root, to have a user id of its own for the limit")
    run_case(
        """
import resource
import concurrent.futures, logging, loguru, traceback  # what can't be read any more as somebody else
for place in (Path(DIRECTORY), *list(Path(DIRECTORY).parents)[:3]):
    place.chmod(0o777)
write("dropped")
os.chmod(DIRECTORY + "/ledger", 0o666)
until(lambda: collect() or not children(), "the end of the first worker")
own = 4_000_000 + os.getpid() % 100_000  # a user id that nobody else has: the limit counts all its processes
os.setresuid(own, own, own)
soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)

def refuse():
    count = len(children()) + len(os.listdir("/proc/self/task"))
    resource.setrlimit(resource.RLIMIT_NPROC, (count, hard))

def allow():
    resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))

refuse()
"""
        + REFUSED,
        runner=runner,
    )


@covers("no-descriptors")
def test_few_descriptors(run_case, runner):
    """With 64 descriptors 500 runs go through; when none is left a run fails with EMFILE and the next works."""
    count = {"fork": 500, "spawn": 30}.get(runner, 500)
    run_case(
        f"""
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        kept = [double(number) for number in range({count})]
        for number, run in enumerate(kept):
            same(run.get_result(timeout=LIMIT), 2 * number)

        handles = []
        try:
            while True:
                handles.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        if IS_PROCESS:
            for spare in (0, 1, 2):
                answer = double(1).get_result(timeout=LIMIT, raise_exceptions=False)
                if isinstance(answer, BaseException):
                    assert isinstance(answer, WorkerFailure), repr(answer)
                    assert "EMFILE" in str(answer.errno) + str(answer), answer
                else:
                    same(answer, 2)
                os.close(handles.pop())
        else:
            answer = double(1).get_result(timeout=LIMIT, raise_exceptions=False)
            assert answer == 2 or isinstance(answer, (OSError, Failure)), answer
        for handle in handles:
            os.close(handle)
        works()
        """,
        runner=runner,
        limit=60,
    )


STEPS = {
    "socketpair": "EMFILE",
    "pipe2": "EMFILE",
    "pidfd_open": "EMFILE",
    "epoll_create1": "EMFILE",
    "epoll_ctl": "ENOSPC",
    "epoll_wait": "EINTR",
    "memfd_create": "EMFILE",
    "fcntl": "EMFILE",
    "clone": "EAGAIN",
    "clone3": "EAGAIN",
    "sendmsg": "ENOBUFS",
    "recvmsg": "EINTR",
    "poll": "EINTR",
    "kill": "ESRCH",
    "wait4": "EINTR",
    "waitid": "EINTR",
}
"""System call -> the error that it may really give."""


@covers("step-errors")
@pytest.mark.parametrize("call", STEPS)
def test_each_step_fails_in_turn(run_case, tmp_path, runner, call):
    """Whichever system call of a start fails, its run alone fails, nothing hangs or is left."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    source = """
        write("begins")
        answers = []
        for number in range(4):
            answers.append(double(number).get_result(timeout=LIMIT, raise_exceptions=False))
        wrong = [answer for number, answer in enumerate(answers) if answer != 2 * number]
        assert len(wrong) <= 1, wrong
        for answer in wrong:
            assert isinstance(answer, WorkerFailure), repr(answer)
        until(lambda: collect() or not children(), "the end of all workers")
        """
    clean = 0
    for number in range(1, 40):
        log = tmp_path / f"log-{number}"
        outcome = run_case(
            source,
            runner=runner,
            command=[
                strace,
                "-o",
                str(log),
                "-e",
                f"trace={call}",
                "-e",
                f"inject={call}:error={STEPS[call]}:when={number}",
                sys.executable,
                "case.py",
            ],
            unfinished=True,
            warm=False,
            expect=None,
        )
        injected = [line for line in log.read_text().splitlines() if "INJECTED" in line]
        if not injected:
            clean = number
            break
        if "EPOLL_CTL_DEL" in injected[0]:
            continue  # this error can't befall a removal
        if "begins" not in outcome.ledger:
            continue  # it hit the interpreter itself, before any of ours
        assert outcome.returncode == 0, f"{call} number {number}: {outcome.stderr}"
    assert clean, f"{call}: no clean run"


@covers("no-threads")
def test_threads_cannot_be_started(run_case, runner):
    """When no thread can be started a run works without one or fails clearly; nothing hangs."""
    run_case(
        """
        import _thread

        def refuse(*_, **__):
            raise RuntimeError("can't start new thread")

        # where a thread can be started, by name: _thread's functions and threading's names for them
        doors = [
            (module, name, getattr(module, name))
            for module in (_thread, threading)
            for name in ("start_new_thread", "start_joinable_thread", "_start_new_thread", "_start_joinable_thread")
            if hasattr(module, name)
        ]
        assert len(doors) >= 2, doors

        for module, name, _ in doors:
            setattr(module, name, refuse)
        for make in (lambda: double(4), lambda: double.options(timeout=5)(4), lambda: double.options(retries=1)(4)):
            try:
                answer = make().get_result(timeout=LIMIT, raise_exceptions=False)
            except (Failure, RuntimeError) as error:
                answer = error
            assert answer == 8 or isinstance(answer, (Failure, RuntimeError)), repr(answer)
            if RUNNER_NAME in ("sequential", "fork"):
                same(answer, 8)
        called = []
        try:
            run = double(4)
            run.add_done_callback(called.append)
            run.wait(timeout=LIMIT)
        except (Failure, RuntimeError):
            pass
        for module, name, function in doors:
            setattr(module, name, function)
        works()
        """,
        runner=runner,
    )


@covers("clock")
def test_clock_jumps(run_case, runner):
    """The wall clock may jump by a day in either direction: no time-out, pause or order changes."""
    body = "await asyncio.sleep(0.2)" if runner == "async" else "time.sleep(0.2)"
    run_case(
        f"""
        real, offset = time.time, [0.0]
        time.time = lambda: real() + offset[0]

        @job(timeout=10, retries=1, retry_sleep_time=0.1)
        {"async " if runner == "async" else ""}def body():
            write("attempt")
            {body}
            if current_run().attempt == 1:
                raise ValueError("again")
            return "done"

        for jump in (86400 * 365, -86400):
            offset[0] = 0
            began = time.monotonic()
            run = body()
            offset[0] = jump
            assert not run.wait(timeout=0.05) or RUNNER_NAME == "sequential"
            same(value_of(run), "done")
            assert 0.4 < time.monotonic() - began < 8
        """,
        runner=runner,
    )


@covers("clock")
def test_deadlines_use_the_monotonic_clock():
    """No module of woflo reads the wall clock for a deadline; the age of files is told by no other."""
    for module in (ROOT / "woflo").rglob("*.py"):
        if module.name in {"__main__.py", "directory.py", "_identity.py"}:
            continue
        text = module.read_text()
        assert "time.time(" not in text, module
        assert "datetime.now" not in text, module


SNAPSHOT = """
import os, signal, sys, threading
def read(path):
    with open(path) as file:
        return file.read()

def snapshot():
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "children": read(f"/proc/self/task/{os.getpid()}/children"),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "handlers": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        "wakeup": signal.set_wakeup_fd(-1),
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "hooks": [str(sys.excepthook), str(threading.excepthook), str(sys.unraisablehook)],
        "files": sorted(os.listdir(".")),
        "environment": dict(os.environ),
        "timers": signal.getitimer(signal.ITIMER_REAL),
        "recursion": sys.getrecursionlimit(),
        "switch": sys.getswitchinterval(),
    }
"""


@covers("import-only")
def test_import_starts_nothing(run_case, runner):
    """Importing woflo and a runner starts no thread and no process, opens nothing, sets no handler."""
    outcome = run_case(
        SNAPSHOT
        + f"""
import logging, warnings
warnings.simplefilter("error")
before, handlers, level = snapshot(), list(logging.root.handlers), logging.root.level
import loguru
sinks = dict(loguru.logger._core.handlers)
import woflo
from woflo import runners
names = {{"sequential": "SequentialTaskRun", "thread": "ThreadTaskRun", "async": "AsyncTaskRun"}}
runner = names.get({runner!r}, "MultiprocessTaskRun")
getattr(runners, runner)
task = woflo.task(lambda: None, runner=getattr(runners, runner))
after = snapshot()
assert after == before, [(k, before[k], after[k]) for k in before if before[k] != after[k]]
assert (list(logging.root.handlers), logging.root.level) == (handlers, level)
assert dict(loguru.logger._core.handlers) == sinks
""",
        runner=runner,
        plain=True,
    )
    assert (outcome.stdout, outcome.stderr) == ("", "")


@covers("import-only")
def test_ten_sleepers_start_no_thread(run_case, runner):
    """Ten plain runs on processes start no thread in the parent; none anywhere sets a handler."""
    run_case(
        SNAPSHOT
        + """
before = snapshot()
runs = [double(number) for number in range(10)]
now = snapshot()
if IS_PROCESS:
    same(now["threads"], before["threads"])
for kind in ("handlers", "wakeup", "mask", "hooks", "environment", "timers", "recursion", "switch"):
    same(now[kind], before[kind])
same([run.get_result(timeout=LIMIT) for run in runs], [2 * number for number in range(10)])
""",
        runner=runner,
    )


@covers("upstream-log-level")
def test_logging_of_the_application_is_left_alone(run_case, runner):
    """Woflo adds no sink, handler or level, and shares the application's loguru as it is."""
    outcome = run_case(
        """
        import logging, loguru
        loguru.logger.remove()
        said = []
        loguru.logger.add(said.append, level="ERROR", format="{message}")
        sinks = dict(loguru.logger._core.handlers)
        levels = dict(loguru.logger._core.levels)

        @job(retries=1)
        def fail():
            raise ValueError("the user's message")

        run = fail()
        error_of(run, ValueError)
        until(lambda: said, "the log line")
        same(dict(loguru.logger._core.handlers), sinks)
        same(dict(loguru.logger._core.levels), levels)
        same(logging.root.handlers, [])
        assert any("the user's message" in line for line in said), said
        assert any("fail-1" in line for line in said), said
        """,
        runner=runner,
    )
    assert outcome.stderr == ""


@covers("upstream-log-level")
def test_arguments_are_never_logged(run_case, runner):
    """A secret in arguments or environment appears in no log line."""
    outcome = run_case(
        """
        os.environ["SECRET"] = "canary-environment"

        @job(retries=1, timeout=5)
        def fail(password, *, token):
            raise ValueError("public")

        run = fail("canary-argument", token="canary-keyword")
        error = error_of(run, ValueError)
        shown = " ".join([repr(run), str(run), str(error), str(run.outcome()), run.outcome().traceback])
        assert "canary" not in shown, shown
        """,
        runner=runner,
        env={"WOFLO_LOG": "debug"},
    )
    assert "canary" not in outcome.stdout + outcome.stderr
    assert "public" in outcome.stderr


@covers("upstream-process-type")
def test_process_type_of_one_class(run_case, runner):
    """Setting process_type changes the tasks of that class at their next call, never a `using` class."""
    run_case(
        """
        from woflo.runners.multiprocess import ForkProcess, MultiprocessTaskRun, SpawnProcess
        mark = [1]  # a fork has what was changed after the start; a spawned module has it by value

        @task(runner=MultiprocessTaskRun)
        def how():
            return os.path.basename(Path("/proc/self/cmdline").read_bytes().split(b"\\0")[1].decode())

        @job
        def fixed():
            return how.fn()

        forked = value_of(how())
        expected = value_of(fixed())
        MultiprocessTaskRun.process_type = SpawnProcess
        spawned = value_of(how())
        same(value_of(fixed()), expected)
        MultiprocessTaskRun.process_type = ForkProcess
        same(value_of(how()), forked)
        assert forked != spawned, (forked, spawned)
        same(expected, spawned if RUNNER_NAME == "spawn" else forked)
        """,
        runner=runner,
    )


@covers("upstream-dependencies")
def test_runtime_dependencies_suffice(run_case, runner):
    """Woflo needs nothing but the standard library and its four declared dependencies."""
    allowed = [
        "woflo",
        "multiprocess",
        "_multiprocess",
        "dill",
        "tenacity",
        "loguru",
        "cloudpickle",
        "numpy",
        "_distutils_hack",
    ]
    run_case(
        f"""
        works()
        names = {{name.partition(".")[0] for name in sys.modules}}
        foreign = {{
            name for name in names
            if (file := getattr(sys.modules.get(name), "__file__", None)) and "site-packages" in file
        }}
        assert foreign <= set({allowed!r}), foreign
        """,
        runner=runner,
    )


@covers("upstream-async-retries", "timeout-retry", runners=["async"])
def test_retries_on_asyncio(run_case, runner):
    """Retries, exceptions and logging work on asyncio as elsewhere, on a running loop and on our own."""
    run_case(
        """
        @task(retries=2)
        async def flaky():
            write("attempt")
            if len(lines("attempt")) < 3:
                raise ValueError("again")
            return "done"

        @task
        async def fail():
            raise ValueError("mine")

        same(value_of(flaky()), "done")
        assert isinstance(fail().get_result(raise_exceptions=False, timeout=LIMIT), ValueError)
        os.unlink(DIRECTORY + "/ledger")

        async def main():
            same(await flaky(), "done")
            run = fail()
            try:
                await run
            except ValueError as error:
                same(str(error), "mine")
            else:
                raise AssertionError("no error")
            blocked = fail()
            try:
                blocked.get_result()
            except UsageError as error:
                assert "await" in str(error), error
            else:
                raise AssertionError("it would have blocked its own loop")
            try:
                await blocked
            except ValueError:
                pass

            @task
            async def endless():
                await asyncio.sleep(60)
            return endless()

        left = asyncio.run(main())
        error_of(left, StoppedFailure)  # its loop has closed
        """,
        runner=runner,
    )


def test_case_uses_this_repository():
    """The interpreter of a case imports the package that is tested, from this repository."""
    shown = subprocess.run(
        [sys.executable, "-c", "import tests.faults as t; print(t.__file__)"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(shown.stdout.strip()).parent == Path(__file__).parent
    assert set(HERE) | set(PROCESSES) == set(RUNNERS)
