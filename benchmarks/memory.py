"""Memory and descriptors that runs hold, per runner. The no-op returns None, so a result costs nothing.

kept         bytes per finished run that the program keeps, by tracemalloc: what woflo allocated for it
kept_rss     the same by resident set size: what the system lost, allocator included
descriptors  open descriptors per finished kept run
pending      megabytes of resident set per 10,000 runs that can't start yet: no slot, or an unfinished input
dropped      kilobytes by which the resident set grew over the last nine tenths of many runs that were collected and
             dropped; the note says how many descriptors were left over
"""

import asyncio
import gc
import os
import time
import tracemalloc

from benchmarks._peer import Skip, ours, peer

PAGE = os.sysconf("SC_PAGE_SIZE")
WARM = 100  # runs before anything is measured: imports, threads, first buffers
BATCH = 200  # dropped runs are started and collected this many at a time


def kept(contestant: str, count: int) -> float:
    runs = [None] * count
    batch = BATCHES[contestant]
    batch([None] * warm(contestant))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    batch(runs)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / count


def kept_rss(contestant: str, count: int) -> float:
    runs = [None] * count
    batch = BATCHES[contestant]
    batch([None] * warm(contestant))
    gc.collect()
    before = resident()
    batch(runs)
    gc.collect()
    return (resident() - before) / count


def descriptors(contestant: str, count: int) -> float:
    """Compare two moments at which one worker at most is left to be reaped: starting a run collects the others."""
    batch = BATCHES[contestant]
    batch([None] * warm(contestant))
    before = settled(batch)
    runs = [None] * count
    batch(runs)
    return (settled(batch) - before) / count


def settled(batch):
    for _ in range(3):
        time.sleep(0.05)  # all workers have exited
        batch([None])
    time.sleep(0.05)
    return opened()


def dropped(contestant: str, count: int) -> tuple[float, str]:
    batch = BATCHES[contestant]
    size = min(BATCH, count // 10)
    for _ in range(count // 10 // size):
        batch([None] * size)
    gc.collect()
    before, files = resident(), opened()
    for _ in range(count * 9 // 10 // size):
        batch([None] * size)
    gc.collect()
    return (resident() - before) / 1024, f"{count:,} runs, descriptors {opened() - files:+d}"


def pending(contestant: str, count: int) -> tuple[float, str]:
    """Start `count` runs behind a sleeper, weigh them, stop them."""
    sleeper, call = PENDING[contestant]()
    gc.collect()
    before = resident()
    begin = time.perf_counter()
    runs = [call(number) for number in range(count)]
    took = time.perf_counter() - begin
    grown = resident() - before
    if any(run.state != "pending" for run in (runs[0], runs[-1])):
        raise Skip(f"its runs aren't pending but {runs[0].state}, {runs[-1].state}")
    for run in reversed(runs):
        run.stop(grace=0, wait=False)
    for run in sleeper:
        run.stop(grace=0)
    return grown / 1e6 / count * 10_000, f"{took / count * 1e6:.1f} µs a call"


def warm(contestant):
    return 3 if contestant == "spawn" else WARM


def resident():
    """Return the bytes of this process that are in memory."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return peer("psutil").Process().memory_info().rss


def opened():
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder))
        except OSError:
            continue
    raise Skip("no folder lists the open descriptors here")


def noop(_value=None):
    return None


async def async_noop(_value=None):
    return None


def runner(contestant):
    runners = ours() and peer("woflo.runners")
    if contestant == "spawn":
        processes = peer("woflo.runners.multiprocess")
        return runners.MultiprocessTaskRun.using(process_type=processes.SpawnProcess)
    names = {"fork": "MultiprocessTaskRun", "thread": "ThreadTaskRun", "sequential": "SequentialTaskRun"}
    return getattr(runners, names[contestant])


def blocking(contestant):
    """Return a function that fills its list with runs and collects them."""
    cached = []

    def batch(runs):
        if not cached:
            cached.append(ours().task(noop, runner=runner(contestant)))
        run_noop = cached[0]
        for number in range(len(runs)):
            runs[number] = run_noop()
        for run in runs:
            run.get_result()

    return batch


def awaiting(runs):
    run_noop = ours().task(async_noop)

    async def main():
        for number in range(len(runs)):
            runs[number] = run_noop()
        for run in runs:
            await run

    asyncio.run(main())


def behind_slots():
    narrow = runner("fork").using(max_running=2)
    sleep = ours().task(time.sleep, runner=narrow)
    return [sleep(600), sleep(600)], ours().task(noop, runner=narrow)


def behind_input(contestant):
    def make():
        sleeper = ours().task(time.sleep, runner=runner("fork"))(600)
        call = ours().task(noop, runner=runner(contestant))
        return [sleeper], lambda _number: call(sleeper)

    return make


BATCHES = {
    "fork": blocking("fork"),
    "spawn": blocking("spawn"),
    "thread": blocking("thread"),
    "async": awaiting,
    "sequential": blocking("sequential"),
}
PENDING = {
    "fork, no slot": behind_slots,
    "fork, input": behind_input("fork"),
    "spawn, input": behind_input("spawn"),
    "thread, input": behind_input("thread"),
    "sequential, input": behind_input("sequential"),
}
