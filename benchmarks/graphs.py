"""Rows 11g, 13 to 16: graphs of no-ops through the engine. Microseconds per node, making the graph and running it.

Shapes, parents before children; what the shape itself costs is not counted:

layered      layers of a hundred nodes, each with three random parents in the layer before
chain        each node needs the one before it
tree         each node needs one, each is needed by two
independent  no node needs another

in_process   plain functions, called by the thread that drives; limit: Kahn's algorithm, written for the case
threads      tasks on threads; graphlib hands out, a ThreadPoolExecutor(32) carries out, a queue brings back
processes    tasks on two warm processes, which stay from the graph that warms up; graphlib hands out, a
             ProcessPoolExecutor(2) carries out, a queue brings back
coroutines   inside one `asyncio.run`; limit: a task per node, created in order, that awaits its parents' tasks
allocated    bytes per node at the peak, by tracemalloc; resident: the same by resident set size, after the run
             with everything kept

Each node gets the values of its parents, but for brei and asynciojobs, which pass none. Peers run at the sizes that they
survive; the name says the size where it isn't the row's. Run one by hand:
`python -m benchmarks.contestant graphs threads "woflo chain" 1000000`.
"""

import asyncio
import gc
import random
import time
import tracemalloc
from functools import cache, partial
from importlib import import_module

from benchmarks._peer import ours, peer
from benchmarks.memory import resident as resident_bytes

WIDTH = 100  # nodes of a layer
WARM = 100  # nodes that run before the clock starts


def noop(*_values):
    return 1


async def async_noop(*_values):
    return 1


def layered(count):
    choose = random.Random(1).randrange
    return [
        (i, tuple(choose((layer - 1) * WIDTH, layer * WIDTH) for _ in range(3)) if (layer := i // WIDTH) else ())
        for i in range(count)
    ]


def chain(count):
    return [(i, (i - 1,) if i else ()) for i in range(count)]


def tree(count):
    return [(i, ((i - 1) // 2,) if i else ()) for i in range(count)]


def independent(count):
    return [(i, ()) for i in range(count)]


SHAPES = {"layered": layered, "chain": chain, "tree": tree, "independent": independent}


def in_process(contestant: str, count: int) -> tuple[float, str]:
    return measured(IN_PROCESS, contestant, count)


def threads(contestant: str, count: int) -> tuple[float, str]:
    return measured(THREADS, contestant, count)


def measured(contestants, contestant, count):
    name, shape = contestant.rsplit(" ", 1)
    run = contestants[name]
    run(SHAPES[shape](WARM))
    nodes = SHAPES[shape](count)
    begin = time.perf_counter()
    run(nodes)
    return (time.perf_counter() - begin) / count * 1e6, f"{count:,} nodes"


def processes(contestant: str, count: int) -> tuple[float, str]:
    return measured(PROCESSES, contestant, count)


def coroutines(contestant: str, count: int) -> tuple[float, str]:
    name, shape = contestant.rsplit(" ", 1)

    async def main():
        await COROUTINES[name](SHAPES[shape](WARM))
        nodes = SHAPES[shape](count)
        begin = time.perf_counter()
        await COROUTINES[name](nodes)
        return (time.perf_counter() - begin) / count * 1e6

    return asyncio.run(main()), f"{count:,} nodes"


def allocated(contestant: str, count: int) -> tuple[float, str]:
    name, shape = contestant.rsplit(" ", 1)
    IN_PROCESS[name](SHAPES[shape](WARM))
    nodes = SHAPES[shape](count)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = IN_PROCESS[name](nodes)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return (peak - before) / count, f"{(after - before) / count:.0f} when it has ended"


def resident(contestant: str, count: int) -> float:
    name, shape = contestant.rsplit(" ", 1)
    IN_PROCESS[name](SHAPES[shape](WARM))
    nodes = SHAPES[shape](count)
    gc.collect()
    before = resident_bytes()
    kept = IN_PROCESS[name](nodes)
    after = resident_bytes()
    del kept
    return (after - before) / count


# ---------------------------------------------------------------------- in process


def engine(nodes, call=noop):
    graphs = ours() and import_module("woflo.graph")
    node = graphs.Node
    driven = import_module("woflo.engine").Engine(graphs.Graph(node(i, call, needs) for i, needs in nodes))
    if not driven.orchestrate():
        raise RuntimeError(driven.why())
    return driven


def by_hand(nodes):
    """Kahn's algorithm on numbers, and nothing else."""
    waiting = [len(needs) for _, needs in nodes]
    children = [[] for _ in nodes]
    for i, needs in nodes:
        for need in needs:
            children[need].append(i)
    ready = [i for i, needs in nodes if not needs]
    values = [None] * len(nodes)
    for i in ready:  # it grows
        values[i] = noop(*[values[need] for need in nodes[i][1]])
        for child in children[i]:
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return values, waiting, children, ready


def graphlib(nodes):
    sorter = import_module("graphlib").TopologicalSorter()
    for i, needs in nodes:
        sorter.add(i, *needs)
    sorter.prepare()
    parents, values = dict(nodes), {}
    while sorter.is_active():
        for i in sorter.get_ready():
            values[i] = noop(*[values[need] for need in parents[i]])
            sorter.done(i)
    return sorter, parents, values


def dask(nodes, scheduler="dask.local", get="get_sync"):
    needed = {need for _, needs in nodes for need in needs}
    graph = {i: (noop, *needs) for i, needs in nodes}
    return graph, getattr(peer(scheduler), get)(graph, [i for i in graph if i not in needed])


def in_a_loop(run, nodes):
    return asyncio.run(run(nodes))


# ---------------------------------------------------------------------- threads


def engine_on_threads(nodes):
    call = ours().task(noop, runner=peer("woflo.runners").ThreadTaskRun)
    return engine(nodes, call)


def executor(nodes):
    with import_module("concurrent.futures").ThreadPoolExecutor(32) as pool:
        return on_pool(pool, nodes)


def on_pool(pool, nodes):
    queue = import_module("queue").SimpleQueue()
    sorter = import_module("graphlib").TopologicalSorter()
    for i, needs in nodes:
        sorter.add(i, *needs)
    sorter.prepare()
    parents, values = dict(nodes), {}
    while sorter.is_active():
        for i in sorter.get_ready():
            future = pool.submit(noop, *[values[need] for need in parents[i]])
            future.node = i
            future.add_done_callback(queue.put)
        ended = queue.get()
        values[ended.node] = ended.result()
        sorter.done(ended.node)
    return values


# ---------------------------------------------------------------------- processes


@cache
def on_warm_workers():
    return ours().task(noop, runner=ours().PoolTaskRun.using(workers=2))


def engine_on_processes(nodes):
    return engine(nodes, on_warm_workers())


@cache
def process_pool():
    context = import_module("multiprocessing").get_context("fork")
    return import_module("concurrent.futures").ProcessPoolExecutor(2, context)


def executor_on_processes(nodes):
    return on_pool(process_pool(), nodes)


# ---------------------------------------------------------------------- coroutines


async def tasks(nodes):
    create = asyncio.get_running_loop().create_task
    started = []

    async def step(needs):
        return await async_noop(*[await started[need] for need in needs])

    for _, needs in nodes:
        started.append(create(step(needs)))
    for one in started:
        await one
    return started


async def engine_on_a_loop(nodes):
    graphs = ours() and import_module("woflo.graph")
    node = graphs.Node
    driven = import_module("woflo.engine").Engine(graphs.Graph(node(i, async_noop, needs) for i, needs in nodes))
    if not await driven.co_orchestrate():
        raise RuntimeError(driven.why())
    return driven


async def brei(nodes):
    lazy = peer("brei.lazy")

    class Noop(lazy.Lazy):
        async def run(self, *, db):  # noqa: ARG002 - brei passes it by name
            return 1

    made = [Noop([i], list(needs)) for i, needs in nodes]
    database = lazy.LazyDB(made, dict(enumerate(made)))
    needed = {need for _, needs in nodes for need in needs}
    results = await asyncio.gather(*[database.run(i, db=database) for i, _ in nodes if i not in needed])
    if not all(results):
        raise RuntimeError("a node failed")
    return database


async def asynciojobs(nodes):
    library = peer("asynciojobs")
    jobs = []
    for _, needs in nodes:
        jobs.append(library.Job(async_noop(), required=[jobs[need] for need in needs]))
    if not await library.PureScheduler(*jobs).co_run():
        raise RuntimeError("a node failed")
    return jobs


IN_PROCESS = {
    "by hand": by_hand,
    "graphlib": graphlib,
    "woflo": engine,
    "dask.get": dask,
    "brei": partial(in_a_loop, brei),
    "asynciojobs": partial(in_a_loop, asynciojobs),
}
THREADS = {
    "woflo": engine_on_threads,
    "ThreadPoolExecutor": executor,
    "dask.threaded": partial(dask, scheduler="dask.threaded", get="get"),
}
PROCESSES = {"woflo": engine_on_processes, "ProcessPoolExecutor": executor_on_processes}
COROUTINES = {"tasks": tasks, "woflo": engine_on_a_loop, "brei": brei, "asynciojobs": asynciojobs}
