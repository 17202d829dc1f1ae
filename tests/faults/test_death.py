"""A worker dies, at every phase and in every way: one run is lost, nobody else notices."""

from __future__ import annotations

import signal
import textwrap

import pytest

from .rows import covers

FIRST_ACT = """
    # kills the next worker while it starts, before anything of the task's
    import os, signal
    flag = os.environ.get("FAULTS_DIRECTORY", "") + "/die-at-start"
    try:
        os.rename(flag, flag + "-done")
    except OSError:
        pass
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@covers("kill-before-body")
def test_killed_before_the_body(run_case, tmp_path, runner):
    """A worker killed before the task's body began is lost or restarted; the body never runs twice."""
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(FIRST_ACT))
    outcome = run_case(
        f"""
        sys.path.insert(0, {str(tmp_path)!r})
        os.environ["PYTHONPATH"] += os.pathsep + {str(tmp_path)!r}
        if RUNNER_NAME == "fork":
            os.register_at_fork(after_in_child=lambda: exec({textwrap.dedent(FIRST_ACT)!r}, {{}}))

        @job
        def body(name):
            write("ran", name)
            return name

        neighbour = body("neighbour")
        await_ledger("ran neighbour")
        Path(DIRECTORY, "die-at-start").touch()
        victim = body("victim")
        error = victim.get_result(timeout=LIMIT, raise_exceptions=False)
        if error != "victim":
            lost(victim, signal="SIGKILL")
        same(len(lines("ran victim")), int(error == "victim"))
        same(value_of(neighbour), "neighbour")

        Path(DIRECTORY, "die-at-start-done").unlink()
        Path(DIRECTORY, "die-at-start").touch()
        retried = body.options(retries=1)("retried")
        same(value_of(retried), "retried")
        same(len(lines("ran retried")), 1)
        """,
        runner=runner,
    )
    assert outcome.count("ran neighbour") == 1


@covers("kill-mid-run", "memory-hint")
def test_killed_mid_run(run_case, runner):
    """A killed worker's run is lost at once and says SIGKILL and maybe memory; neighbours go on."""
    run_case(
        """
        @job
        def body(name):
            write("in", name, os.getpid())
            hold(name)
            return name

        neighbour, victim = body("neighbour"), body("victim")
        pid = int(await_ledger("in victim")[0].split()[2])
        await_ledger("in neighbour")
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        failure = lost(victim, signal="SIGKILL")
        assert time.monotonic() - began < 1, "not at once"  # promised: 0.1 s
        assert "memory" in str(failure), str(failure)
        same(failure.attempt, 1)
        assert neighbour.is_running()
        release("neighbour")
        same(value_of(neighbour), "neighbour")
        works()
        """,
        runner=runner,
    )


@covers("kill-retry")
def test_killed_with_attempts_left(run_case, runner):
    """A killed attempt is tried again as `retries` says, in a fresh process, and named in the end."""
    run_case(
        """
        @job(retries=2)
        def body(deaths):
            write("attempt", current_run().attempt, os.getpid())
            if len(lines("attempt")) <= deaths:
                os.kill(os.getpid(), signal.SIGKILL)
            return "survived"

        run = body(2)
        same(value_of(run), "survived")
        entries = [line.split() for line in lines("attempt")]
        same([entry[1] for entry in entries], ["1", "2", "3"])
        same(len({entry[2] for entry in entries}), 3)
        os.unlink(DIRECTORY + "/ledger")
        failure = lost(body(99), signal="SIGKILL")
        same(failure.attempt, 3)
        same(len(lines("attempt")), 3)
        """,
        runner=runner,
    )


@covers("kill-while-pickling")
def test_killed_while_pickling_the_result(run_case, runner):
    """A worker killed while it pickles its result is lost, however much it has written."""
    run_case(
        """
        class Slow:
            def __reduce__(self):
                write("pickling", os.getpid())
                time.sleep(LIMIT)
                return Slow, ()

        @job
        def body(size):
            return [b"x" * size, Slow()]

        for size in (10, 70_000, 3_000_000):
            run = body(size)
            pid = int(await_ledger("pickling")[0].split()[1])
            os.kill(pid, signal.SIGKILL)
            lost(run, signal="SIGKILL")
            os.unlink(DIRECTORY + "/ledger")
        works()
        """,
        runner=runner,
    )


TORN = """
import woflo.runners._shipping as shipping

class Torn:
    # a channel that passes on the first `count` bytes of what is sent, then kills its worker
    def __init__(self, channel, count):
        self.channel, self.count = channel, count

    def send(self, data):
        self.sendmsg([data])
    sendall = send

    def sendmsg(self, parts, ancillary=()):
        data = b"".join(parts)
        data = data[: self.count if self.count >= 0 else len(data) + self.count]
        if data:
            self.channel.sendmsg([data], ancillary)
        write("torn", len(data))
        os.kill(os.getpid(), signal.SIGKILL)

def tear(count):
    real = shipping.send_result
    shipping.send_result = lambda channel, *more: real(Torn(channel, count), *more)
"""


@covers("kill-mid-send")
@pytest.mark.parametrize("size", [0, 4_000, 300_000])
def test_killed_while_sending(run_case, runner, size):
    """A worker killed after k bytes of its frame is lost: a torn frame is never unpickled."""
    counts = [0, 1, 8, 9, 10, 2_000, -2, -1] if size == 4_000 else [0, 1, 8, -1]
    if runner == "spawn":
        counts = counts[1::2]
    run_case(
        TORN
        + f"""
@job
def body(count):
    tear(count)
    return b"y" * {size}

runs = [body(count) for count in {counts}]
for run in runs:
    lost(run, signal="SIGKILL")
works()
same(len(lines("torn")), {len(counts)})
""",
        runner=runner,
    )


@covers("kill-mid-send")
def test_killed_while_blocked_in_sending(run_case, runner):
    """A worker killed while its send is blocked, with a part of the frame delivered, is lost."""
    run_case(
        """
        import socket

        @job
        def body():
            # the one socket of a worker is its channel
            found = [number for number, what in descriptors().items() if what.startswith("socket:")]
            same(len(found), 1)
            end = socket.socket(fileno=os.dup(found[0]))
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            end.close()
            write("sends", os.getpid())
            return os.urandom(60_000)

        run = body()
        pid = int(await_ledger("sends")[0].split()[1])
        # nobody waits: it is either blocked in its send or has found another way out
        deadline = time.monotonic() + 0.3
        while is_alive(pid) and time.monotonic() < deadline:
            pass
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        answer = run.get_result(timeout=LIMIT, raise_exceptions=False)
        if isinstance(answer, bytes):
            same(len(answer), 60_000)
        else:
            lost(run, signal="SIGKILL")
        works()
        """,
        runner=runner,
    )


@covers("kill-after-send")
def test_killed_after_sending(run_case, runner):
    """A result whose last byte was sent counts, whatever killed the worker afterwards."""
    run_case(
        """
        @job
        def body(size):
            write("in", os.getpid())
            return b"z" * size

        for size in (0, 100, 65_000, 66_000, 2_000_000):
            run = body(size)
            pid = int(await_ledger("in")[0].split()[1])
            gone(pid)
            same(len(value_of(run)), size)
            os.unlink(DIRECTORY + "/ledger")

        # killed by somebody else, at any moment around its end: the value or a loss
        ends = []
        for delay in range(20):
            run = body(1000)
            pid = int(await_ledger("in")[0].split()[1])
            for _ in range(delay * 500):
                pass
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            answer = run.get_result(timeout=LIMIT, raise_exceptions=False)
            assert isinstance(answer, WorkerFailure) or answer == b"z" * 1000, answer
            os.unlink(DIRECTORY + "/ledger")
        """,
        runner=runner,
    )


CRASHES = {
    "SIGSEGV": "import faulthandler; faulthandler._sigsegv()",
    "SIGABRT": "os.abort()",
    "SIGFPE": "import faulthandler; faulthandler._sigfpe()",
    "SIGBUS": (
        "import mmap, tempfile; file = tempfile.TemporaryFile(); file.truncate(8192);"
        " view = mmap.mmap(file.fileno(), 8192); file.truncate(0); view[5000]"
    ),
    "SIGILL": "os.kill(os.getpid(), signal.SIGILL)",
    "SIGTRAP": "os.kill(os.getpid(), signal.SIGTRAP)",
    "SIGUSR1": "os.kill(os.getpid(), signal.SIGUSR1)",
    "SIGHUP": "signal.signal(signal.SIGHUP, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGHUP)",
}


@covers("crash")
def test_crashes(run_case, runner):
    """A run whose worker crashes is lost and names the signal; the other runs don't notice."""
    run_case(
        f"""
        import ctypes
        crashes = {CRASHES!r}

        @job
        def crash(code):
            # the dump of the harness' own faulthandler would only litter
            faulthandler.disable()
            exec(code, {{"os": os, "signal": signal}})
            write("survived", code)

        runs = {{name: crash(code) for name, code in crashes.items()}}
        for name, run in runs.items():
            lost(run, signal=name)
        same(lines("survived"), [])
        if hasattr(faulthandler, "_stack_overflow"):
            lost(crash("import faulthandler; faulthandler._stack_overflow()"), signal="SIGSEGV")
        works()
        """,
        runner=runner,
    )


@covers("exit-codes")
def test_exit_codes(run_case, runner):
    """A task that leaves its process by os._exit or exec is lost, with the code."""
    run_case(
        """
        @job
        def leave(code):
            os._exit(code)

        @job
        def become(*command):
            os.execv(command[0], command)

        @job
        def close():
            os.closerange(3, 64)

        for code in (0, 1, 3, 70, 71, 255):  # woflo's own are 70 and 71
            failure = lost(leave(code), exit_code=code)
            assert "before it had a result" in str(failure), failure
        assert "the task closed the channel" in str(lost(close(), exit_code=71))
        lost(become(sys.executable, "-c", "import os; os._exit(7)"), exit_code=7)
        lost(become("/bin/sh", "-c", "exit 0"), exit_code=0)
        lost(become("/bin/sh", "-c", "kill -9 $$"), signal="SIGKILL")
        works()
        """,
        runner=runner,
    )


@covers("exit-codes", runners=["fork"])
def test_a_defect_in_the_worker(run_case, runner):
    """Where woflo's own part of a worker fails, the failure says how."""
    run_case(
        """
        from woflo.runners import _worker

        def broken(signals):
            raise RuntimeError("ours")

        whole, _worker.reset_signals = _worker.reset_signals, broken
        assert "the worker could not go on: RuntimeError: ours" in str(lost(double(1)))
        _worker.reset_signals = whole
        works()
        """,
        runner=runner,
    )


@covers("memory-limit")
def test_memory_limit(run_case, runner):
    """Out of memory is a MemoryError if Python can raise it, else a lost run; never a hang."""
    run_case(
        """
        import resource

        def limit_memory(more):
            size = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
            resource.setrlimit(resource.RLIMIT_AS, (size + more, size + more))

        @job
        def at_once():
            limit_memory(100 << 20)
            return len(bytearray(1 << 30))

        @job
        def by_and_by():
            limit_memory(64 << 20)
            hog = []
            while True:
                hog.append(bytearray(100_000))

        @job
        def to_the_last_byte():
            limit_memory(1 << 20)
            hog = []
            while True:
                hog = [hog, [hog]]

        error = error_of(at_once())
        assert isinstance(original(error), MemoryError), repr(error)
        for body in (by_and_by, to_the_last_byte):
            error = error_of(body())
            assert isinstance(original(error), MemoryError) or isinstance(error, WorkerFailure), repr(error)
        works()
        """,
        runner=runner,
    )


THEFTS = {
    "ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "thief": """
def steal():
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.0005)
threading.Thread(target=steal, daemon=True).start()
BEFORE["threads"] += 1
""",
    "handler": """
def steal(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, steal)
""",
}


@covers("sigchld-ignored", "waitpid-thief")
@pytest.mark.parametrize("theft", THEFTS)
def test_exit_status_stolen(run_case, runner, theft):
    """An application that takes our children's exit status away gets its results all the same."""
    run_case(
        f"""
        exec({THEFTS[theft]!r})
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside the thief's thread

        @job
        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        @job
        def leave():
            os._exit(3)

        runs = [double(number) for number in range(5 if RUNNER_NAME == "spawn" else 40)]
        for number, run in enumerate(runs):
            same(value_of(run), 2 * number)
        for run in (die(), leave(), die.options(retries=1)()):
            failure = error_of(run, WorkerFailure)
            if failure.signal is None and failure.exit_code is None:
                assert "unknown" in str(failure), str(failure)
            else:
                assert (failure.signal, failure.exit_code) in (("SIGKILL", None), (None, 3)), str(failure)
        sleeper = job(time.sleep)(LIMIT)
        sleeper.stop(grace=1.0)
        error_of(sleeper, StoppedFailure)
        works()
        """,
        runner=runner,
    )


@covers("outlived")
def test_child_outlives_the_task(run_case, runner):
    """A run ends with its task, though a child of the task still holds the channel open."""
    run_case(
        """
        @job
        def leaves_a_child(own_group):
            if os.fork() == 0:
                if own_group:
                    os.setpgid(0, 0)
                write("child", os.getpid())
                time.sleep(LIMIT)
                os._exit(0)
            await_ledger("child")
            return "done"

        @job
        def leaves_a_child_and_dies():
            if os.fork() == 0:
                write("child", os.getpid())
                time.sleep(LIMIT)
                os._exit(0)
            await_ledger("child")
            os.kill(os.getpid(), signal.SIGKILL)

        began = time.monotonic()
        same(value_of(leaves_a_child(False)), "done")
        gone(lines("child")[0].split()[1])  # the group ends with its run
        os.unlink(DIRECTORY + "/ledger")
        same(value_of(leaves_a_child(True)), "done")
        os.kill(int(lines("child")[0].split()[1]), signal.SIGKILL)
        os.unlink(DIRECTORY + "/ledger")
        lost(leaves_a_child_and_dies(), signal="SIGKILL")
        gone(lines("child")[0].split()[1])
        assert time.monotonic() - began < LIMIT / 2
        """,
        runner=runner,
    )


@covers("closed-descriptors")
def test_all_descriptors_closed(run_case, runner):
    """A task that closes every descriptor ends its run, and only its run."""
    run_case(
        """
        @job
        def close_all(then):
            os.closerange(0, 1024)
            if then == "return":
                return "said into nothing"
            if then == "raise":
                raise ValueError("said into nothing")
            if then == "reopen":
                # whatever is opened next gets the channel's number
                handles = [os.open("/dev/null", os.O_RDWR) for _ in range(50)]
                return len(handles)
            time.sleep(LIMIT)

        for then in ("return", "raise", "reopen"):
            error = error_of(close_all(then), WorkerFailure)
        sleeper = close_all.options(timeout=0.3)("sleep")
        error_of(sleeper, Failure)
        works()
        """,
        runner=runner,
    )


@covers("stdio-replaced")
def test_stdio_replaced(run_case, runner):
    """A task may put anything in the place of its stdio; the parent's output stays whole."""
    outcome = run_case(
        """
        @job
        def replace(number):
            null = os.open("/dev/null", os.O_RDWR)
            for stdio in (0, 1, 2):
                os.dup2(null, stdio)
            print("to nobody", flush=True)
            return number

        @job
        def close_stdio():
            for stdio in (0, 1, 2):
                os.close(stdio)
            return "closed"

        @job
        def close_objects():
            sys.stdout.close()
            sys.stderr.close()
            return "closed"

        @job
        def full_pipe():
            read, write_end = os.pipe()
            os.set_blocking(write_end, False)
            try:
                while True:
                    os.write(write_end, b"x" * 65536)
            except BlockingIOError:
                pass
            os.set_blocking(write_end, True)
            os.dup2(write_end, 1)
            sys.stdout.write("the flush of this blocks")
            return "full"

        print("first", flush=True)
        same(value_of(replace(1)), 1)
        same(value_of(close_stdio()), "closed")
        same(value_of(close_objects()), "closed")
        # nobody ever reads that pipe: the result counts, or the time-out ends it
        answer = full_pipe.options(timeout=1)().get_result(timeout=LIMIT, raise_exceptions=False)
        assert answer == "full" or isinstance(answer, TimeoutFailure), answer
        print("last", flush=True)
        """,
        runner=runner,
    )
    assert outcome.stdout.splitlines() == ["first", "last"]


@covers("stdio-replaced")
def test_output_neither_lost_nor_doubled(run_case, runner):
    """What stands in stdout's buffer at the fork appears once; what a task prints appears."""
    outcome = run_case(
        """
        sys.stdout.write("before ")  # stays in the buffer: stdout is a file

        @job
        def say(word):
            sys.stdout.write(word)
            sys.stderr.write(word)

        for word in ("one ", "two "):
            say(word).wait()
        sys.stdout.write("after")
        """,
        runner=runner,
    )
    assert outcome.stdout == "before one two after"
    assert "one two" in outcome.stderr


@covers("leftover-threads")
def test_threads_left_running(run_case, runner):
    """A thread that the task leaves behind holds neither its result nor its process."""
    run_case(
        """
        @job
        def leave_thread(daemon):
            write("pid", os.getpid())
            threading.Thread(target=time.sleep, args=(LIMIT,), daemon=daemon).start()
            return "done"

        for daemon in (True, False):
            began = time.monotonic()
            same(value_of(leave_thread(daemon)), "done")
            gone(lines("pid")[-1].split()[1])
            assert time.monotonic() - began < LIMIT / 2
        """,
        runner=runner,
    )


@covers("changed-state")
def test_state_changed_by_a_task(run_case, runner):
    """What a task changes in its process, the next run and the parent don't see."""
    run_case(
        """
        import io, random

        def fingerprint():
            mask = os.umask(0)
            os.umask(mask)
            return [
                str(signal.getsignal(signal.SIGUSR1)),
                sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
                os.getcwd(),
                mask,
                os.environ.get("FAULTS_CHANGED"),
                type(sys.stdout).__name__,
                sys.getrecursionlimit(),
                sys.getswitchinterval(),
                random.getstate()[1][0] == 12345,
                gc.isenabled(),
                os.nice(0),
                threading.stack_size(),
            ]

        @job
        def look():
            return fingerprint()

        @job
        def change():
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
            os.chdir("/")
            os.umask(0o111)
            os.environ["FAULTS_CHANGED"] = "yes"
            sys.stdout = io.StringIO()
            sys.setrecursionlimit(777)
            sys.setswitchinterval(0.5)
            random.seed(1)
            gc.disable()
            os.nice(3)
            threading.stack_size(1 << 20)
            return fingerprint()

        mine, first = fingerprint(), value_of(look())
        assert value_of(change()) != first
        same(value_of(look()), first)
        same(fingerprint(), mine)
        """,
        runner=runner,
    )


@covers("kill-mid-run")
def test_storm_of_deaths(run_case, runner):
    """Among many runs killed from outside, each ends lost or with its value, decided by the ledger."""
    runs = 24 if runner == "fork" else 8
    outcome = run_case(
        f"""
        @job
        def body(number):
            write("start", number, os.getpid())
            if number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            write("end", number)
            return number

        runs = [body(number) for number in range({runs})]
        for number, run in enumerate(runs):
            if number % 2:
                lost(run, signal="SIGKILL")
            else:
                same(value_of(run), number)
        """,
        runner=runner,
    )
    starts = [line.split()[1] for line in outcome.ledger if line.startswith("start")]
    assert sorted(starts, key=int) == [str(number) for number in range(runs)]
    assert sum(line.startswith("end") for line in outcome.ledger) == runs // 2


def test_signal_names_are_known():
    """The table of crashes names signals that exist."""
    assert all(hasattr(signal, name) for name in CRASHES)
