"""Rows 1 and 2: one process per no-op task. Microseconds per task, from the call to its result in the parent.

`together` starts all tasks and then collects all; `each` collects one before it starts the next. A contestant is a
triple: `start()` returns a handle, `collect(handle)` returns when the result is in the parent and the process is gone
(or, for woflo and the pools, when its result is there; woflo reaps with its next step), `close()` ends a pool. The clock
starts after three warm-up tasks and stops after the last `collect`.

A fork copies the parent's page tables, runs what its modules have registered for the child (`threading` and `random`
alone triple the pages that a child touches) and both sides then fault on every page they touch: its price is the
parent's as much as the launcher's. So all contestants do it in an interpreter that has imported what a script
usually has (ORDINARY); `minimal_together` and `minimal_each` in one that holds as little as the contestant lets it.

raw       the limit: pipe, fork, twenty bytes, `_exit`; read, waitpid, close. At most 32 processes live at once, as
          with woflo (a 33rd start collects the oldest first), in an interpreter that has imported what a woflo run
          imports.
raw all   the same with no bound on the living.
raw bare  raw in an interpreter that has not imported woflo.

The note counts what doesn't depend on what else the machine does: page faults and processor time per task, of parent
and child.
"""

import os
import resource
import time
from collections import deque
from importlib import import_module

from benchmarks._peer import ours, peer, upstream

LIVE = 32  # processes; woflo's default `max_running` on a machine of up to eight cores


ORDINARY = ("argparse", "json", "logging", "random", "subprocess", "threading")


def together(contestant: str, count: int) -> tuple[float, str]:
    for name in ORDINARY:
        import_module(name)
    return minimal_together(contestant, count)


def each(contestant: str, count: int) -> tuple[float, str]:
    for name in ORDINARY:
        import_module(name)
    return minimal_each(contestant, count)


def minimal_together(contestant: str, count: int) -> tuple[float, str]:
    start, collect, close = CONTESTANTS[contestant]()
    for handle in [start() for _ in range(3)]:
        collect(handle)
    before = used()
    begin = time.perf_counter()
    for handle in [start() for _ in range(count)]:
        collect(handle)
    took = time.perf_counter() - begin
    note = spent(before, count) if contestant in COUNTED else ""
    close()
    return took / count * 1e6, note


def minimal_each(contestant: str, count: int) -> tuple[float, str]:
    start, collect, close = CONTESTANTS[contestant]()
    for _ in range(3):
        collect(start())
    before = used()
    begin = time.perf_counter()
    for _ in range(count):
        collect(start())
    took = time.perf_counter() - begin
    note = spent(before, count) if contestant in COUNTED else ""
    close()
    return took / count * 1e6, note


def used():
    """Return page faults and processor seconds so far: of this process, and of its children that were reaped."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return [(usage.ru_minflt, usage.ru_utime + usage.ru_stime) for usage in usages]


def spent(before, count):
    """Say what a task has cost since."""
    parts = []
    for who, (faults, seconds), (had_faults, had_seconds) in zip(("parent", "child"), used(), before, strict=True):
        each_seconds = (seconds - had_seconds) / count
        parts.append(f"{who} {(faults - had_faults) / count:.0f} faults {each_seconds * 1e6:.0f} µs")
    return ", ".join(parts)


def noop():
    return None


def no_close():
    """Most contestants hold nothing open."""


def raw():
    import_what_a_run_imports()
    return forks(LIVE)


def raw_all():
    import_what_a_run_imports()
    return forks(10**9)


def raw_bare():
    return forks(LIVE)


def import_what_a_run_imports():
    """Import the modules of a woflo run, without a run: none of woflo's fork hooks is registered."""
    ours()
    for name in ("multiprocess", "_supervisor", "_worker"):
        peer(f"woflo.runners.{name}")


def forks(live):
    alive = deque()

    def start():
        if len(alive) >= live:
            finish(alive[0])
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"x" * 20)
            os._exit(0)
        os.close(writer)
        handle = [pid, reader, None]
        alive.append(handle)
        return handle

    def finish(handle):
        pid, reader, _ = handle
        handle[2] = os.read(reader, 100)
        os.waitpid(pid, 0)
        os.close(reader)
        alive.popleft()

    def collect(handle):
        if handle[2] is None:
            finish(handle)

    return start, collect, no_close


def woflo():
    run_noop = ours().task(noop)
    return run_noop, lambda run: run.get_result(), no_close


def woflo_upstream():
    return upstream().task(noop), lambda run: run.get_result(), no_close


def process_and_pipe(context):
    def start():
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=sender.send, args=(None,))
        process.start()
        sender.close()
        return process, receiver

    def collect(handle):
        process, receiver = handle
        receiver.recv()
        process.join()
        process.close()
        receiver.close()

    return start, collect, no_close


def stdlib_process():
    return process_and_pipe(import_module("multiprocessing").get_context("fork"))


def multiprocess():
    return process_and_pipe(peer("multiprocess").get_context("fork"))


def stdlib_pool():
    pool = import_module("multiprocessing").get_context("fork").Pool(2, maxtasksperchild=1)
    return lambda: pool.apply_async(noop), lambda result: result.get(), pool.terminate


def pebble():
    run_noop = peer("pebble.concurrent").process(noop)
    return run_noop, lambda future: future.result(), no_close


def pebble_pool():
    pool = peer("pebble").ProcessPool(max_workers=2, max_tasks=1)

    def close():
        pool.stop()
        pool.join()

    return lambda: pool.schedule(noop), lambda future: future.result(), close


def stdlib_spawn():
    return process_and_pipe(import_module("multiprocessing").get_context("spawn"))


def woflo_spawn():
    runners = (ours(), peer("woflo.runners.multiprocess"))[1]
    spawned = runners.MultiprocessTaskRun.using(process_type=runners.SpawnProcess)
    return ours().task(noop, runner=spawned), lambda run: run.get_result(), no_close


def woflo_zygote():
    runners = (ours(), peer("woflo.runners.multiprocess"))[1]
    small = runners.MultiprocessTaskRun.using(process_type=runners.ForkServerProcess)
    return ours().task(noop, runner=small), lambda run: run.get_result(), no_close


def stdlib_forkserver():
    return process_and_pipe(import_module("multiprocessing").get_context("forkserver"))


def large(contestant: str, count: int) -> tuple[float, str]:
    """`together` in a process that holds a gigabyte of ordinary memory."""
    held = bytearray(1 << 30)
    for at in range(0, len(held), 4096):
        held[at] = 1
    return together(contestant, count)


CONTESTANTS = {
    "raw": raw,
    "raw all": raw_all,
    "raw bare": raw_bare,
    "woflo": woflo,
    "woflo 0.8": woflo_upstream,
    "Process": stdlib_process,
    "multiprocess": multiprocess,
    "mp.Pool": stdlib_pool,
    "pebble": pebble,
    "pebble pool": pebble_pool,
    "Process spawn": stdlib_spawn,
    "woflo spawn": woflo_spawn,
    "woflo zygote": woflo_zygote,
    "Process forkserver": stdlib_forkserver,
}
COUNTED = frozenset({"raw", "raw all", "raw bare", "woflo", "woflo 0.8", "Process", "multiprocess"})  # reap as they go
