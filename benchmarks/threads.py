"""Row 10: no-op runs on threads. Microseconds per run.

`together` starts all and then collects all results, `each` collects one before it starts the next. The pools start
with the size that they choose themselves; the clock starts after fifty warm-up runs.

SimpleQueue is the limit: one thread takes calls from a queue and stores their results; nobody learns about a single
one, only that the last is done.
"""

import time
from importlib import import_module

from benchmarks._peer import ours, peer


def noop():
    return None


def together(contestant: str, count: int) -> float:
    start, collect, close = CONTESTANTS[contestant]()
    for handle in [start() for _ in range(50)]:
        collect(handle)
    begin = time.perf_counter()
    for handle in [start() for _ in range(count)]:
        collect(handle)
    took = time.perf_counter() - begin
    close()
    return took / count * 1e6


def each(contestant: str, count: int) -> float:
    start, collect, close = CONTESTANTS[contestant]()
    for _ in range(50):
        collect(start())
    begin = time.perf_counter()
    for _ in range(count):
        collect(start())
    took = time.perf_counter() - begin
    close()
    return took / count * 1e6


def limit(_contestant: str, count: int) -> float:
    """A call through a SimpleQueue to one thread, and its result into a list."""
    queue, threading = import_module("queue").SimpleQueue(), import_module("threading")
    results, done = [], threading.Lock()
    done.acquire()

    def work():
        get, keep = queue.get, results.append
        while (call := get()) is not None:
            keep(call())
        done.release()

    threading.Thread(target=work, daemon=True).start()
    begin = time.perf_counter()
    put = queue.put
    for _ in range(count):
        put(noop)
    put(None)
    done.acquire()
    return (time.perf_counter() - begin) / count * 1e6


def woflo():
    run_noop = ours().task(noop, runner=peer("woflo.runners").ThreadTaskRun)
    return run_noop, lambda run: run.get_result(), noop


def executor():
    pool = import_module("concurrent.futures").ThreadPoolExecutor()
    return lambda: pool.submit(noop), lambda future: future.result(), pool.shutdown


def executor_32():
    pool = import_module("concurrent.futures").ThreadPoolExecutor(32)
    return lambda: pool.submit(noop), lambda future: future.result(), pool.shutdown


def pebble():
    pool = peer("pebble").ThreadPool()

    def close():
        pool.close()
        pool.join()

    return lambda: pool.schedule(noop), lambda future: future.result(), close


def mpire():
    pool = peer("mpire").WorkerPool(n_jobs=2, start_method="threading")
    return lambda: pool.apply_async(noop), lambda result: result.get(), pool.stop_and_join


def mpire_map(_contestant: str, count: int) -> float:
    """mpire's own way: one call for all."""
    with peer("mpire").WorkerPool(n_jobs=2, start_method="threading") as pool:
        pool.map(abs, range(50))
        begin = time.perf_counter()
        pool.map(abs, range(count))
        return (time.perf_counter() - begin) / count * 1e6


CONTESTANTS = {
    "woflo": woflo,
    "ThreadPoolExecutor": executor,
    "ThreadPoolExecutor(32)": executor_32,
    "pebble": pebble,
    "mpire": mpire,
}
