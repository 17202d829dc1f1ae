"""Row 6: a map of many ints over warm processes. Microseconds per item.

Two workers each; the clock starts after a map of a hundred items has started the workers. joblib is given batches of its own
choice.
"""

import time
from importlib import import_module

from benchmarks._peer import ours, peer


def same(x):
    return x


def together(contestant: str, count: int) -> float:
    """All items in one call, values in order."""
    call, close = CONTESTANTS[contestant]()
    call(100)
    begin = time.perf_counter()
    values = call(count)
    took = time.perf_counter() - begin
    close()
    assert values == list(range(count))
    return took / count * 1e6


def woflo():
    task = ours().task(same, runner=peer("woflo.runners.pool").PoolTaskRun.using(workers=2))
    return lambda count: task.map(range(count)).get_results(), lambda: None


def woflo_list():
    """The same items in a list, which tells nothing of them ahead."""
    task = ours().task(same, runner=peer("woflo.runners.pool").PoolTaskRun.using(workers=2))
    return lambda count: task.map(list(range(count))).get_results(), lambda: None


def mp_pool():
    pool = import_module("multiprocessing").get_context("fork").Pool(2)

    def close():
        pool.terminate()
        pool.join()

    return lambda count: pool.map(same, range(count)), close


def executor():
    futures, context = import_module("concurrent.futures"), import_module("multiprocessing").get_context("fork")
    pool = futures.ProcessPoolExecutor(2, mp_context=context)
    return lambda count: list(pool.map(same, range(count), chunksize=max(1, count // 8))), pool.shutdown


def joblib():
    module = peer("joblib")

    def call(count):
        return module.Parallel(n_jobs=2)(module.delayed(same)(x) for x in range(count))

    return call, lambda: None


CONTESTANTS = {
    "woflo": woflo,
    "woflo, list": woflo_list,
    "mp.Pool.map": mp_pool,
    "PPE.map chunked": executor,
    "joblib": joblib,
}
