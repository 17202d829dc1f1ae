"""Rows 4 to 9 and 18: warm workers.

Every contestant has two workers, started by fork where it can choose; the clock starts after a few warm-up calls. Figures that
are differences of times inside a worker and here rely on CLOCK_MONOTONIC being one for all processes.

`noops` submits no-op calls one by one, then collects all; `guard` puts ten calls of 100 ms before 990 no-ops and times the lot,
ms; `lone` is how long after a lone call its task begins although nobody waits for it (95th of 100 calls; the caller sleeps
meanwhile), µs; `short` runs tasks that compute for 50 µs, µs per task; `latency` is the median of submit → result on an idle
pool, µs; `start` is a pool's first result, ms, and in the note what its processes hold then, MB of proportional set size;
`idle` is the CPU that a pool uses in ten seconds in which nothing is asked of it, ms (ours: with a fork server beside it);
`stop` ends a busy worker, ms until it is gone, and in the note until the next result; `arrays` sends a big array to a worker
that doubles it in place and sends it back, s in the steady state, the note tells the peak of all processes in arrays.
"""

import os
import time
from importlib import import_module
from statistics import median

from benchmarks._peer import Skip, ours, peer

WORKERS = 2


def noop(value=None):
    return value


def sleep(seconds):
    time.sleep(seconds)


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def clock():
    return time.monotonic()


def double(array):
    array *= 2
    return array


def noops(contestant: str, count: int) -> float:
    submit, collect, close = CONTESTANTS[contestant]()
    for handle in [submit(noop) for _ in range(200)]:
        collect(handle)
    begin = time.perf_counter()
    for handle in [submit(noop) for _ in range(count)]:
        collect(handle)
    took = time.perf_counter() - begin
    close()
    return took / count * 1e6


def guard(contestant: str, count: int) -> float:
    submit, collect, close = CONTESTANTS[contestant]()
    for handle in [submit(noop) for _ in range(200)]:
        collect(handle)
    begin = time.perf_counter()
    handles = [submit(sleep, 0.1) for _ in range(10)] + [submit(noop) for _ in range(count)]
    for handle in handles:
        collect(handle)
    took = time.perf_counter() - begin
    close()
    return took * 1e3


def lone(contestant: str, count: int) -> float:
    submit, collect, close = CONTESTANTS[contestant]()
    for handle in [submit(noop) for _ in range(20)]:
        collect(handle)
    late = []
    for _ in range(count):
        time.sleep(0.002)
        begin = time.monotonic()
        handle = submit(clock)
        time.sleep(0.005)
        late.append(collect(handle) - begin)
    close()
    return sorted(late)[int(count * 0.95)] * 1e6


def short(contestant: str, count: int) -> float:
    submit, collect, close = CONTESTANTS[contestant]()
    for handle in [submit(spin, 50e-6) for _ in range(200)]:
        collect(handle)
    begin = time.perf_counter()
    for handle in [submit(spin, 50e-6) for _ in range(count)]:
        collect(handle)
    took = time.perf_counter() - begin
    close()
    return took / count * 1e6


def latency(contestant: str, count: int) -> float:
    submit, collect, close = CONTESTANTS[contestant]()
    for _ in range(50):
        collect(submit(noop))
    took = []
    for _ in range(count):
        begin = time.perf_counter()
        collect(submit(noop))
        took.append(time.perf_counter() - begin)
    close()
    return median(took) * 1e6


def start(contestant: str, _count: int) -> tuple[float, str]:
    prepare = CONTESTANTS[contestant]
    if contestant == "woflo":
        peer("woflo.runners.pool")
    begin = time.perf_counter()
    submit, collect, close = prepare()
    collect(submit(noop))
    took = time.perf_counter() - begin
    for handle in [submit(sleep, 0.05) for _ in range(WORKERS)]:
        collect(handle)
    note = f"{memory() / 1e6:.0f} MB"
    close()
    return took * 1e3, note


def idle(contestant: str, seconds: int) -> float:
    """CPU of all processes while a pool that has worked has nothing to do, ms."""
    submit, collect, close = CONTESTANTS[contestant]()
    for handle in [submit(noop) for _ in range(1000)]:
        collect(handle)
    if contestant == "woflo":  # the fork server too
        runners = peer("woflo.runners")
        fresh = runners.MultiprocessTaskRun.using(process_type=runners.ForkServerProcess)
        ours().task(noop, runner=fresh)().get_result()
    time.sleep(0.5)
    begin = processor_seconds()
    time.sleep(seconds)
    took = processor_seconds() - begin
    close()
    return took * 1e3


def processor_seconds() -> float:
    """Seconds of CPU that this process and all that live below it have used."""
    pids, total = [os.getpid()], 0
    while pids:
        pid = pids.pop()
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="utf-8") as file:
                    total += int(file.read().split()[0])
                with open(f"/proc/{pid}/task/{thread}/children", encoding="utf-8") as file:
                    pids += map(int, file.read().split())
        except OSError:
            continue
    return total / 1e9


def stop(contestant: str, count: int) -> tuple[float, str]:
    gone, again = [], []
    for _ in range(count):
        one, other = STOPPERS[contestant]()
        gone.append(one)
        again.append(other)
    return median(gone) * 1e3, f"next result {median(again) * 1e3:.1f} ms"


def arrays(contestant: str, megabytes: int) -> tuple[float, str]:
    numpy = peer("numpy")
    submit, collect, close = CONTESTANTS[contestant]()
    array = numpy.ones(megabytes * 125_000)
    took = []
    for _ in range(6):
        begin = time.perf_counter()
        result = collect(submit(double, array))
        took.append(time.perf_counter() - begin)
        if result[-1] != 2:
            raise RuntimeError(f"wrong: {result[-1]}")
        held = memory()
        del result
    close()
    return median(took[2:]), f"{held / 1e6 / megabytes:.1f} × the array held"


def fresh_arrays(contestant: str, megabytes: int) -> float:
    numpy = peer("numpy")
    array = numpy.ones(megabytes * 125_000)
    took = []
    for _ in range(4):
        begin = time.perf_counter()
        result = FRESH[contestant](array)
        took.append(time.perf_counter() - begin)
        if result[-1] != 2:
            raise RuntimeError(f"wrong: {result[-1]}")
        del result
    return median(took[1:])


def memfd(array):
    """The limit: fork, compute, write into a memfd; map it."""
    numpy, mmap = peer("numpy"), import_module("mmap")
    fd = os.memfd_create("benchmark")
    pid = os.fork()
    if pid == 0:
        view = memoryview(array * 2).cast("B")
        while view:
            view = view[os.write(fd, view[: 1 << 30]) :]
        os._exit(0)
    os.waitpid(pid, 0)
    mapped = mmap.mmap(fd, array.nbytes)
    os.close(fd)
    return numpy.frombuffer(mapped)


def fresh_woflo(array):
    return ours().task(doubled)(array).get_result()


def fresh_pebble(array):
    return peer("pebble.concurrent").process(doubled)(array).result()


def fresh_executor(array):
    context = import_module("multiprocessing").get_context("fork")
    with import_module("concurrent.futures").ProcessPoolExecutor(1, context) as pool:
        return pool.submit(doubled, array).result()


def memory() -> int:
    """Bytes of proportional set size of this process and all below it."""
    pids, total = [os.getpid()], 0
    while pids:
        pid = pids.pop()
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as file:
                    pids += map(int, file.read().split())
        except OSError:
            continue
    return total


def nothing():
    """Some pools end with their interpreter."""


def woflo():
    runner = ours().PoolTaskRun.using(workers=WORKERS)
    tasks = {}

    def submit(fn, *args):
        task = tasks.get(fn)
        if task is None:
            task = tasks[fn] = ours().task(fn, runner=runner)
        return task(*args)

    return submit, lambda run: run.get_result(), nothing


def woflo_task():
    """The same as a user writes it: the task is made once."""
    run_noop = ours().task(noop, runner=ours().PoolTaskRun.using(workers=WORKERS))
    return lambda _fn: run_noop(), lambda run: run.get_result(), nothing


def stdlib_pool():
    pool = import_module("multiprocessing").get_context("fork").Pool(WORKERS)
    return lambda fn, *args: pool.apply_async(fn, args), lambda result: result.get(), pool.terminate


def executor():
    context = import_module("multiprocessing").get_context("fork")
    pool = import_module("concurrent.futures").ProcessPoolExecutor(WORKERS, context)
    return pool.submit, lambda future: future.result(), pool.shutdown


def loky():
    pool = peer("loky").ProcessPoolExecutor(WORKERS)
    return pool.submit, lambda future: future.result(), pool.shutdown


def pebble():
    pool = peer("pebble").ProcessPool(max_workers=WORKERS)

    def close():
        pool.stop()
        pool.join()

    return lambda fn, *args: pool.schedule(fn, args), lambda future: future.result(), close


def mpire():
    pool = peer("mpire").WorkerPool(n_jobs=WORKERS)
    return lambda fn, *args: pool.apply_async(fn, args), lambda result: result.get(), pool.terminate


def ray():
    library = peer("ray")
    library.init(num_cpus=WORKERS, log_to_driver=False, include_dashboard=False)
    remote = {fn: library.remote(fn) for fn in (noop, sleep, spin, clock, doubled)}

    def submit(fn, *args):
        return remote[doubled if fn is double else fn].remote(*args)

    return submit, library.get, library.shutdown


def doubled(array):
    """Arrays are read-only in Ray."""
    return array * 2


def raw():
    """The limit: one process per pipe pair, one byte there and back."""
    pipes, free = [], []
    for _ in range(WORKERS):
        (there_out, there_in), (back_out, back_in) = os.pipe(), os.pipe()
        if os.fork() == 0:
            os.close(there_in)
            for _, (other_in, _) in pipes:
                os.close(other_in)
            while os.read(there_out, 1):
                os.write(back_in, b"x")
            os._exit(0)
        pipes.append((back_out, (there_in, there_out)))
        free.append(pipes[-1])

    def submit(_fn, *_args):
        back_out, (there_in, _) = pipes[0]
        os.write(there_in, b"x")
        return back_out

    def close():
        for _, (there_in, _) in pipes:
            os.close(there_in)
        for _ in pipes:
            os.wait()

    return submit, lambda end: os.read(end, 1), close


def ideal():
    """What two processes that need nothing but their share of the work would take."""

    def collect(handle):
        return handle

    def submit(fn, *args):
        if fn is spin:
            spin(args[0] / WORKERS)

    return submit, collect, nothing


def write_to_pipe(pipe):
    os.write(pipe, b"x")
    time.sleep(1000)


def stop_raw():
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        write_to_pipe(writer)
    os.read(reader, 1)
    begin = time.perf_counter()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    gone = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"y")
        os._exit(0)
    os.read(reader, 1)
    again = time.perf_counter()
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    return gone - begin, again - begin


def stop_woflo():
    reader, writer = os.pipe()
    runner = ours().PoolTaskRun.using(workers=1)
    busy, quick = ours().task(write_to_pipe, runner=runner), ours().task(noop, runner=runner)
    quick().get_result()
    run = busy(writer)
    os.read(reader, 1)
    begin = time.perf_counter()
    run.stop(grace=0)
    gone = time.perf_counter()
    quick().get_result()
    again = time.perf_counter()
    os.close(reader)
    os.close(writer)
    return gone - begin, again - begin


def stop_pebble():
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    with peer("pebble").ProcessPool(max_workers=1) as pool:
        future = pool.schedule(write_to_pipe, (writer,))
        os.read(reader, 1)
        begin = time.perf_counter()
        future.cancel()
        pool.schedule(noop).result()
        again = time.perf_counter()
        pool.stop()
    os.close(reader)
    os.close(writer)
    return again - begin, again - begin


CONTESTANTS = {
    "raw": raw,
    "ideal": ideal,
    "woflo": woflo,
    "woflo task": woflo_task,
    "mp.Pool": stdlib_pool,
    "PPE": executor,
    "loky": loky,
    "pebble": pebble,
    "mpire": mpire,
    "ray": ray,
}
FRESH = {"memfd": memfd, "woflo": fresh_woflo, "pebble": fresh_pebble, "PPE": fresh_executor}
STOPPERS = {"raw": stop_raw, "woflo": stop_woflo, "pebble": stop_pebble}
__all__ = ["Skip", "arrays", "fresh_arrays", "guard", "idle", "latency", "lone", "noops", "short", "start", "stop"]
