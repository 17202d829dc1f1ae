"""What a fault costs, peer by peer: `python -m benchmarks.faults [contestant ...]` prints README's table.

Each case is a program of its own, in a session of its own, below a harness that is its child subreaper: whatever the case
leaves behind becomes the harness's child, is counted and ended. All pools have two workers, and a case has eight seconds.
A cell says what the caller got: the exception's name, `ok`, or **hang**. Linux only.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec

LIMIT = 8.0  # seconds
PR_SET_CHILD_SUBREAPER = 36

# ---------------------------------------------------------------------- the tasks


class Two(Exception):  # noqa: N818 - it is read in a table
    """An exception that pickles, but can't be rebuilt."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def nap(seconds):
    time.sleep(seconds)
    return "ok"


def two():
    raise Two(1, 2)


def unpicklable():
    return sys._getframe()


def leave():
    raise SystemExit(3)


def leave_at_once():
    os._exit(3)


def beat(path):
    """Write the time into a file for as long as it is let."""
    child = subprocess.Popen(["sleep", "60"])
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{child.pid}\n")
        file.flush()
        while True:
            file.write(".")
            file.flush()
            time.sleep(0.02)


# ---------------------------------------------------------------------- the contestants: submit, result, cancel


def _using(runner):
    import woflo

    def submit(fn, *args):
        return woflo.task(fn, runner=runner)(*args)

    return submit, lambda run: run.get_result(), lambda run: run.stop(grace=0.2)


def woflo_pool():
    from woflo.runners import PoolTaskRun

    return _using(PoolTaskRun.using(workers=2))


def woflo_fork():
    from woflo.runners import MultiprocessTaskRun

    return _using(MultiprocessTaskRun.using(max_running=2))


def stdlib_executor():
    context = import_module("multiprocessing").get_context("fork")
    pool = import_module("concurrent.futures").ProcessPoolExecutor(2, context)
    return pool.submit, lambda future: future.result(), lambda future: future.cancel()


def loky():
    pool = import_module("loky").ProcessPoolExecutor(2)
    return pool.submit, lambda future: future.result(), lambda future: future.cancel()


def pebble():
    pool = import_module("pebble").ProcessPool(max_workers=2)
    return (
        lambda fn, *args: pool.schedule(fn, args),
        lambda future: future.result(),
        lambda future: future.cancel(),
    )


def stdlib_pool():
    pool = import_module("multiprocessing").get_context("fork").Pool(2)
    return lambda fn, *args: pool.apply_async(fn, args), lambda result: result.get(), None


def dask():
    distributed = import_module("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    client = distributed.Client(cluster)
    return (
        lambda fn, *args: client.submit(fn, *args, pure=False),
        lambda future: future.result(),
        lambda future: future.cancel(),
    )


CONTESTANTS = {
    "woflo pool": ("woflo", woflo_pool),
    "woflo fork": ("woflo", woflo_fork),
    "stdlib executor (fork)": ("concurrent.futures", stdlib_executor),
    "loky": ("loky", loky),
    "pebble (fork)": ("pebble", pebble),
    "multiprocessing.Pool": ("multiprocessing", stdlib_pool),
    "dask LocalCluster": ("distributed", dask),
}

# ---------------------------------------------------------------------- the cases, in a process of their own


def say(**cells):
    os.write(1, json.dumps(cells).encode() + b"\n")


def told(result, handle):
    """What the caller gets, and when if it takes long."""
    begin = time.monotonic()
    try:
        answer = result(handle)
        text = answer if answer == "ok" else f"returned {answer!r}"
    except BaseException as error:
        text = type(error).__name__
    seconds = time.monotonic() - begin
    return f"{text} after {seconds:.1f} s" if seconds > 2 else text


def dies(submit, result, _cancel):
    """Three cells: the victim's, its neighbour's, the next call's."""
    say(ready=True)
    for handle in [submit(nap, 0.05) for _ in range(4)]:
        result(handle)
    neighbour = submit(nap, 1.0)
    victim = submit(kill)
    say(victim=told(result, victim))
    say(neighbour=told(result, neighbour))
    try:
        say(next=told(result, submit(nap, 0)))
    except Exception as error:
        say(next=f"refused: {type(error).__name__}")


def ends_badly(fn):
    def case(submit, result, _cancel):
        say(ready=True)
        say(victim=told(result, submit(fn)))
        try:
            say(next=told(result, submit(nap, 0)))
        except Exception as error:
            say(next=f"refused: {type(error).__name__}")

    return case


def is_cancelled(submit, _result, cancel):
    """Two cells: whether the task has ended a second after, and its grandchild after two."""
    say(ready=True)
    path = tempfile.mktemp()
    handle = submit(beat, path)
    while not os.path.exists(path) or os.path.getsize(path) < 12:
        time.sleep(0.01)
    with open(path, encoding="utf-8") as file:
        grandchild = int(file.readline())
    if cancel is None:
        say(cancel="can't")
    else:
        cancel(handle)
        time.sleep(1)
        size = os.path.getsize(path)
        time.sleep(0.2)
        say(cancel="ends it" if os.path.getsize(path) == size else "runs on")
        time.sleep(0.8)
    try:
        os.kill(grandchild, 0)
        say(grandchild="alive")
    except ProcessLookupError:
        say(grandchild="gone")
    os.unlink(path)
    os.kill(0, signal.SIGKILL)


def is_left(submit, result, _cancel):
    handles = [submit(nap, 4) for _ in range(2)]
    time.sleep(1)
    say(ready=True)
    for handle in handles:
        result(handle)


CASES = {
    "dies": dies,
    "two": ends_badly(two),
    "unpicklable": ends_badly(unpicklable),
    "leave": ends_badly(leave),
    "leave_at_once": ends_badly(leave_at_once),
    "cancelled": is_cancelled,
    "killed": is_left,
    "interrupted": is_left,
}

# ---------------------------------------------------------------------- the harness


def descendants():
    """Pids of all processes below this one: a subreaper gets those whose parents have ended."""
    found, todo = [], [os.getpid()]
    while todo:
        pid = todo.pop()
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", encoding="utf-8") as file:
                    todo.extend(children := list(map(int, file.read().split())))
                    found.extend(children)
        except OSError:
            continue
    return found


def alive():
    """The descendants that are no zombies, which only the harness would collect."""
    found = []
    for pid in descendants():
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                if file.read().rpartition(")")[2].split()[0] != "Z":
                    found.append(pid)
        except OSError:
            continue
    return found


def clear():
    """End and collect whatever is left of a case."""
    while pids := descendants():
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        time.sleep(0.01)


class Case:
    """A running case: what it says, with a limit."""

    def __init__(self, name, contestant):
        self.errors = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "benchmarks.faults", "--case", name, contestant]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, start_new_session=True)
        self.data = b""
        self.deadline = time.monotonic() + 60  # an import or a cluster may take long

    def next(self):
        """The next thing that it says; None if it ends or says nothing in time."""
        fd = self.process.stdout.fileno()
        while b"\n" not in self.data:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                return None
            data = os.read(fd, 4096)
            if not data:
                return None
            self.data += data
        line, _, self.data = self.data.partition(b"\n")
        self.deadline = time.monotonic() + LIMIT
        return json.loads(line)

    def close(self):
        self.process.kill()
        clear()
        self.process.returncode = self.process.returncode or 0
        self.process.stdout.close()
        self.errors.close()


def said(name, contestant, keys):
    case = Case(name, contestant)
    if case.next() is None:
        case.errors.seek(0)
        raise SystemExit(f"{contestant}, {name}: it did not begin\n{case.errors.read().decode()}")
    cells = {}
    while len(cells) < len(keys) and (words := case.next()) is not None:
        cells.update(words)
    case.close()
    missing = iter(("**hang**", *["not reached"] * len(keys)))
    return [cells.get(key) or next(missing) for key in keys]


def left_after_kill(contestant):
    case = Case("killed", contestant)
    case.next()
    os.kill(case.process.pid, signal.SIGKILL)
    begin = time.monotonic()
    before = len(alive())
    while alive() and time.monotonic() - begin < LIMIT:
        time.sleep(0.05)
    seconds, left = time.monotonic() - begin, len(alive())
    case.close()
    return f"**{left} of {before}**" if left else f"nothing after {seconds:.1f} s"


def traces_after_interrupt(contestant):
    case = Case("interrupted", contestant)
    case.next()
    os.killpg(case.process.pid, signal.SIGINT)
    begin = time.monotonic()
    try:
        status = case.process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        status = None
    seconds = time.monotonic() - begin
    case.errors.seek(0)
    traces = case.errors.read().count(b"Traceback (most recent call last)")
    case.close()
    if status is None:
        return "**hang**"
    return f"{traces} trace{'s' * (traces != 1)}, status {status}, {seconds:.1f} s"


def column(contestant):
    """All cells of a contestant."""
    cells = {}
    names = "a task kills its worker (-9): the victim", "… an innocent neighbour", "… the next call"
    cells.update(zip(names, said("dies", contestant, ["victim", "neighbour", "next"]), strict=True))
    for name, case in (
        ("an exception that can't be rebuilt", "two"),
        ("a result that can't be pickled", "unpicklable"),
        ("`SystemExit(3)` in a task", "leave"),
        ("`os._exit(3)` in a task", "leave_at_once"),
    ):
        victim, following = said(case, contestant, ["victim", "next"])
        cells[name] = victim if following == "ok" else f"{victim}; next: {following}"
    cells["cancelling a running task"], cells["… its own child process, 2 s later"] = said(
        "cancelled", contestant, ["cancel", "grandchild"]
    )
    cells["kill -9 of the program, tasks of 4 s: what lives 8 s later"] = left_after_kill(contestant)
    cells["Ctrl-C, tasks of 4 s"] = traces_after_interrupt(contestant)
    return cells


def main(arguments):
    if arguments[:1] == ["--case"]:
        _, case, contestant = arguments
        CASES[case](*CONTESTANTS[contestant][1]())
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    columns = {}
    for name, (module, _) in CONTESTANTS.items():
        if find_spec(module) is None:
            print(f"{name}: not installed", file=sys.stderr)
        elif not arguments or name in arguments:
            columns[name] = column(name)
    rows = list(next(iter(columns.values())))
    print("| fault | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for row in rows:
        print(f"| {row} | " + " | ".join(cells[row] for cells in columns.values()) + " |")


if __name__ == "__main__":
    # under its own name, by which workers find what is pickled
    import_module("benchmarks.faults").main(sys.argv[1:])
