"""Row 9: stop a busy worker. Milliseconds; the median of several stops in one interpreter.

`gone` ends when the worker's process has exited and, where the contestant's own call does that, is reaped;
`replaced` goes on until a no-op started after the stop has given its result. The worker is busy in a Python loop
and has been for twenty milliseconds.

SIGKILL is the limit: a forked child killed and waited for; then a raw fork, pipe and wait. woflo's default `stop()`
sends SIGTERM first, so that `finally` runs in the task, and kills after the grace; "woflo grace 0" kills at once.
"""

import os
import select
import signal
import tempfile
import time
from importlib import import_module
from statistics import median

from benchmarks._peer import Skip, ours, peer, upstream

WARM = 0.02  # seconds of busy loop before the stop


def gone(contestant: str, count: int) -> float:
    return measure(contestant, count, with_next=False)


def replaced(contestant: str, count: int) -> float:
    return measure(contestant, count, with_next=True)


def measure(contestant, count, *, with_next):
    start, stop, following, close = CONTESTANTS[contestant]()
    took = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count + 1):
            path = os.path.join(folder, f"pid-{number}")
            handle = start(path)
            watch = os.pidfd_open(appeared(path)) if hasattr(os, "pidfd_open") else None
            time.sleep(WARM)
            begin = time.perf_counter()
            stop(handle)
            if with_next:
                following()
            elif watch is not None:
                exited(watch)
            took.append(time.perf_counter() - begin)
            if watch is not None:
                exited(watch)
                os.close(watch)
    close()
    return median(took[1:]) * 1e3


def busy(path):
    """Write this process's number to `path`, then compute for ever."""
    with open(path + "~", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + "~", path)
    while True:
        pass


def noop():
    return None


def appeared(path):
    """Return the number that a busy worker wrote."""
    deadline = time.monotonic() + 20
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise Skip("its worker didn't start within 20 s")
        time.sleep(0.001)
    with open(path) as file:
        return int(file.read())


def exited(watch):
    """Return when the process behind the pidfd has exited."""
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    if not poll.poll(20_000):
        raise Skip("its worker was still alive after 20 s")


def sigkill():
    def start(path):
        pid = os.fork()
        if pid == 0:
            busy(path)
        return pid

    def stop(pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def following():
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"x" * 20)
            os._exit(0)
        os.close(writer)
        os.read(reader, 100)
        os.waitpid(pid, 0)
        os.close(reader)

    return start, stop, following, noop


def woflo():
    run_noop = ours().task(noop)
    return ours().task(busy), lambda run: run.stop(), lambda: run_noop().get_result(), noop


def woflo_kill():
    run_noop = ours().task(noop)
    return ours().task(busy), lambda run: run.stop(grace=0), lambda: run_noop().get_result(), noop


def woflo_upstream():
    task = upstream().task
    run_noop = task(noop)
    return task(busy), lambda run: run.stop(), lambda: run_noop().get_result(), noop


def stdlib_process():
    context = import_module("multiprocessing").get_context("fork")

    def start(path):
        process = context.Process(target=busy, args=(path,))
        process.start()
        return process

    def stop(process):
        process.terminate()
        process.join()

    def following():
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=sender.send, args=(None,))
        process.start()
        sender.close()
        receiver.recv()
        process.join()
        receiver.close()

    return start, stop, following, noop


def pebble():
    pool = peer("pebble").ProcessPool(max_workers=1)

    def close():
        pool.stop()
        pool.join()

    return (
        lambda path: pool.schedule(busy, args=(path,)),
        lambda future: future.cancel(),
        lambda: pool.schedule(noop).result(),
        close,
    )


def loky():
    library = peer("loky")

    def executor():
        return library.get_reusable_executor(max_workers=1)

    return (
        lambda path: executor().submit(busy, path),
        lambda _future: executor().shutdown(kill_workers=True),
        lambda: executor().submit(noop).result(),
        lambda: executor().shutdown(kill_workers=True),
    )


CONTESTANTS = {
    "SIGKILL": sigkill,
    "woflo": woflo,
    "woflo grace 0": woflo_kill,
    "woflo 0.8": woflo_upstream,
    "Process": stdlib_process,
    "pebble": pebble,
    "loky": loky,
}
