"""Row 11: no-op coroutines inside one `asyncio.run`: all started, then awaited one after the other. µs per run.

The clock starts after a hundred warm-up runs. "task" is the limit: `create_task` for each, then `await` each.
"""

import asyncio
import time

from benchmarks._peer import ours, peer


async def noop():
    return None


def together(contestant: str, count: int) -> float:
    return asyncio.run(CONTESTANTS[contestant](count))


async def tasks(count):
    create = asyncio.get_running_loop().create_task
    for task in [create(noop()) for _ in range(100)]:
        await task
    begin = time.perf_counter()
    for task in [create(noop()) for _ in range(count)]:
        await task
    return (time.perf_counter() - begin) / count * 1e6


async def gather(count):
    await asyncio.gather(*[noop() for _ in range(100)])
    begin = time.perf_counter()
    await asyncio.gather(*[noop() for _ in range(count)])
    return (time.perf_counter() - begin) / count * 1e6


async def woflo(count):
    run_noop = ours().task(noop)
    for run in [run_noop() for _ in range(100)]:
        await run
    begin = time.perf_counter()
    for run in [run_noop() for _ in range(count)]:
        await run
    return (time.perf_counter() - begin) / count * 1e6


async def woflo_gather(count):
    run_noop = ours().task(noop)
    await asyncio.gather(*[run_noop() for _ in range(100)])
    begin = time.perf_counter()
    await asyncio.gather(*[run_noop() for _ in range(count)])
    return (time.perf_counter() - begin) / count * 1e6


async def anyio(count):
    create_group = peer("anyio").create_task_group
    async with create_group() as group:
        for _ in range(100):
            group.start_soon(noop)
    begin = time.perf_counter()
    async with create_group() as group:
        for _ in range(count):
            group.start_soon(noop)
    return (time.perf_counter() - begin) / count * 1e6


async def brei(count):
    lazy = peer("brei.lazy")

    class Noop(lazy.Lazy):
        async def run(self, *, db):  # noqa: ARG002 - brei passes it by name
            return None

    begin = time.perf_counter()
    nodes = [Noop([number], []) for number in range(count)]
    database = lazy.LazyDB(nodes, dict(enumerate(nodes)))
    await asyncio.gather(*[database.run(number, db=database) for number in range(count)])
    return (time.perf_counter() - begin) / count * 1e6


async def asynciojobs(count):
    library = peer("asynciojobs")
    begin = time.perf_counter()
    scheduler = library.PureScheduler(*[library.Job(noop()) for _ in range(count)])
    await scheduler.co_run()
    return (time.perf_counter() - begin) / count * 1e6


CONTESTANTS = {
    "task": tasks,
    "gather": gather,
    "woflo": woflo,
    "woflo gather": woflo_gather,
    "anyio": anyio,
    "brei": brei,
    "asynciojobs": asynciojobs,
}
