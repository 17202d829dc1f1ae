"""The rows: who competes in which discipline, against whom the ratio counts, what is to be reached.

Numbers and goals are those of the speed plan; a row with a letter belongs to the row of its number.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Contestant:
    """One line of a row: `name` is what the table says and, without `entry`, what the module calls it."""

    name: str
    entry: str = ""
    measure: str = ""  # function of the row's module, if it isn't the row's
    size: int = 0  # tasks, launches, ...: if it isn't the row's
    quick: int = 0  # the same with --quick
    upstream: bool = False  # wants woflo 0.8 on its path


@dataclass(frozen=True, slots=True)
class Goal:
    """`who` is at most `limit` times `of`, at most `limit` more than `of`, or at most `limit` in the row's unit."""

    who: str
    limit: float
    how: Literal["times", "more", "absolute"] = "times"
    of: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One discipline: `module.measure(contestant, size)` gives a figure in `unit`."""

    key: str
    title: str
    unit: str
    module: str
    measure: str
    contestants: tuple[Contestant, ...]
    goals: tuple[Goal, ...] = ()
    reference: str = ""  # its ratio column is 1; "" where ratios say nothing
    size: int = 1
    quick: int = 1
    repeat: int = 0  # at most this many repetitions; 0: as many as asked for
    one_interpreter: bool = False  # all contestants in one interpreter, in turn; each line says what it adds


def names(*listed: str) -> tuple[Contestant, ...]:
    return tuple(Contestant(name, upstream=name.startswith("woflo 0.8")) for name in listed)


def shaped(shape: str, *listed: str, size: int = 0, label: str = "") -> tuple[Contestant, ...]:
    """Contestants of `graphs`, which are told the shape of the graph too; `label` follows the name in the table."""
    return tuple(Contestant(name + label, f"{name} {shape}", size=size) for name in listed)


def sized(shape: str) -> tuple[Contestant, ...]:
    """Woflo and what it is compared with, at a hundredth and at a tenth of the row's size."""
    return (
        *shaped(shape, "graphlib", "woflo", size=1_000, label=", 1 k"),
        *shaped(shape, "graphlib", "woflo", size=10_000, label=", 10 k"),
    )


PROCESS_PEERS = (
    *names("raw", "woflo", "raw bare", "raw all", "Process", "multiprocess", "mp.Pool", "pebble"),
    Contestant("pebble pool", size=40, quick=20),  # 50 ms a task
    *names("woflo 0.8"),
)
MINIMAL = names("raw bare", "woflo", "raw", "Process", "woflo 0.8")
STEPS = names(
    "raw", "socketpair", "pickled frame", "process group", "lifeline", "signals", "stdin", "flush", "pidfd",
    "group kill", "woflo",
)  # fmt: skip
STOP_PEERS = names("SIGKILL", "woflo", "woflo grace 0", "Process", "pebble", "loky", "woflo 0.8")
RUNNERS = names("fork", "thread", "async", "sequential")
SPAWN = Contestant("spawn", size=30, quick=10)
SHAPES = ("layered", "chain", "tree", "independent")
SIZED = (Goal("woflo, 1 k", 1.5, of="graphlib, 1 k"), Goal("woflo, 10 k", 1.5, of="graphlib, 10 k"))

ROWS = (
    Row(
        "1", "process per no-op task, all started then collected", "µs", "processes", "together", PROCESS_PEERS,
        (Goal("woflo", 1.10, of="raw"),), "raw", size=200, quick=64,
    ),
    Row(
        "1m", "… in a minimal interpreter", "µs", "processes", "minimal_together", MINIMAL,
        (Goal("woflo", 1.10, of="raw bare"),), "raw bare", size=200, quick=64,
    ),
    Row(
        "1p", "… the price of each promise, 25 in flight", "µs", "promises", "together", STEPS,
        (Goal("woflo", 1.25, of="raw"),), "raw", size=8, quick=3, one_interpreter=True,
    ),
    Row(
        "2", "process per no-op task, one by one", "µs", "processes", "each", PROCESS_PEERS,
        (Goal("woflo", 1.10, of="raw"),), "raw", size=200, quick=64,
    ),
    Row(
        "2m", "… in a minimal interpreter", "µs", "processes", "minimal_each", MINIMAL,
        (Goal("woflo", 1.10, of="raw bare"),), "raw bare", size=200, quick=64,
    ),
    Row(
        "2p", "… the price of each promise, one by one", "µs", "promises", "each", STEPS,
        (Goal("woflo", 1.25, of="raw"),), "raw", size=8, quick=3, one_interpreter=True,
    ),
    Row(
        "2s", "spawned process per no-op task, all started then collected", "µs", "processes", "together",
        names("Process spawn", "woflo spawn"), (), "Process spawn", size=10, quick=5, repeat=3,
    ),
    Row(
        "9", "stop a busy worker, until it is gone", "ms", "stopping", "gone", STOP_PEERS,
        (Goal("woflo", 1.5, of="SIGKILL"),), "SIGKILL", size=7, quick=3,
    ),
    Row(
        "9n", "… until the next result", "ms", "stopping", "replaced", STOP_PEERS,
        (Goal("woflo", 1.5, of="SIGKILL"),), "SIGKILL", size=7, quick=3,
    ),
    Row(
        "10", "threads, no-op, all started then collected", "µs", "threads", "together",
        (
            Contestant("SimpleQueue", measure="limit"),
            *names("woflo", "ThreadPoolExecutor", "ThreadPoolExecutor(32)", "pebble", "mpire"),
            Contestant("mpire map", measure="mpire_map"),
        ),
        (Goal("woflo", 0.25, of="ThreadPoolExecutor"),), "ThreadPoolExecutor", size=10_000, quick=2_000,
    ),
    Row(
        "10e", "threads, no-op, one by one", "µs", "threads", "each",
        names("woflo", "ThreadPoolExecutor", "pebble", "mpire"),
        (), "ThreadPoolExecutor", size=3_000, quick=1_000,
    ),
    Row(
        "11", "asyncio, no-op coroutine, all started then awaited", "µs", "coroutines", "together",
        names("task", "woflo", "woflo gather", "gather", "anyio", "brei", "asynciojobs"),
        (Goal("woflo", 1.25, of="task"),), "task", size=10_000, quick=2_000,
    ),
    Row(
        "11g", "… in a graph, layered: build + run, per node", "µs", "graphs", "coroutines",
        (*shaped("layered", "tasks", "woflo", "asynciojobs"), *shaped("layered", "brei", size=1_000, label=", 1 k")),
        (), "tasks", size=10_000, quick=1_000,
    ),
    Row(
        "11i", "… in a graph, independent", "µs", "graphs", "coroutines",
        shaped("independent", "tasks", "woflo", "asynciojobs", "brei"), (), "tasks", size=10_000, quick=1_000,
    ),
    Row(
        "12", "sequential run and its result", "µs", "sequential", "each",
        (
            *names("slots", "woflo", "Future", "woflo 0.8"),
            Contestant("woflo 0.8 logging", size=20_000, quick=5_000, upstream=True),
            *names("tenacity"),
        ),
        (Goal("woflo", 0.8, "absolute"), Goal("woflo", 0.25, of="woflo 0.8")),
        "woflo 0.8", size=100_000, quick=20_000,
    ),
    Row(
        "13", "graph in process, layered: build + run, per node", "µs", "graphs", "in_process",
        (
            *shaped("layered", "graphlib", "woflo", "by hand"),
            *sized("layered"),
            *shaped("layered", "asynciojobs", "dask.get", "brei", size=10_000, label=", 10 k"),
        ),
        (Goal("woflo", 1.5, of="graphlib"), *SIZED), "graphlib", size=100_000, quick=1_000,
    ),
    *(
        Row(
            key, f"… {shape}", "µs", "graphs", "in_process",
            (
                *shaped(shape, "graphlib", "woflo", "by hand"),
                *sized(shape),
                *shaped(shape, "asynciojobs", "dask.get", "brei", size=1_000, label=", 1 k"),
            ),
            (Goal("woflo", 1.5, of="graphlib"),), "graphlib", size=100_000, quick=1_000, repeat=3,
        )
        for key, shape in (("13c", "chain"), ("13t", "tree"), ("13i", "independent"))
    ),
    Row(
        "13n", "… of a million nodes", "µs", "graphs", "in_process",
        (
            *shaped("layered", "graphlib"),
            *(
                contestant
                for shape in SHAPES
                for contestant in (
                    *shaped(shape, "woflo", label=f" {shape}"),
                    *shaped(shape, "woflo", size=10_000, label=f" {shape}, 10 k"),
                )
            ),
        ),
        (
            Goal("woflo layered", 1.5, of="graphlib"),
            *(Goal(f"woflo {shape}", 1.5, of=f"woflo {shape}, 10 k") for shape in SHAPES),
        ),
        size=1_000_000, quick=5_000, repeat=2,
    ),
    Row(
        "13b", "… memory at the peak, allocated, per node", "bytes", "graphs", "allocated",
        (
            *(contestant for shape in SHAPES for contestant in shaped(shape, "woflo", label=f" {shape}")),
            *(
                Contestant(f"woflo {shape}, resident", f"woflo {shape}", measure="resident") for shape in SHAPES
            ),
            *shaped("layered", "graphlib"),
        ),
        tuple(Goal(f"woflo {shape}", 500, "absolute") for shape in SHAPES), size=100_000, quick=1_000, repeat=1,
    ),
    *(
        Row(
            key, title, "µs", "graphs", "processes",
            shaped(shape, "ProcessPoolExecutor", "woflo"),
            (Goal("woflo", limit, of="ProcessPoolExecutor"),), "ProcessPoolExecutor", size=10_000, quick=1_000,
        )
        for key, title, shape, limit in (
            ("14", "graph on two warm processes, layered: build + run, per node", "layered", 0.12),
            ("15", "… chain", "chain", 0.05),
        )
    ),
    Row(
        "16", "graph on threads, layered: build + run, per node", "µs", "graphs", "threads",
        (
            *shaped("layered", "ThreadPoolExecutor", "woflo", "dask.threaded"),
            *shaped("layered", "ThreadPoolExecutor", "woflo", size=1_000, label=", 1 k"),
            *shaped("layered", "ThreadPoolExecutor", "woflo", size=100_000, label=", 100 k"),
        ),
        (Goal("woflo", 0.5, of="ThreadPoolExecutor"),), "ThreadPoolExecutor", size=10_000, quick=1_000,
    ),
    *(
        Row(
            key, f"… {shape}", "µs", "graphs", "threads",
            shaped(shape, "ThreadPoolExecutor", "woflo", "dask.threaded"),
            (Goal("woflo", limit, of="ThreadPoolExecutor"),), "ThreadPoolExecutor", size=10_000, quick=1_000,
        )
        for key, shape, limit in (("16c", "chain", 0.1), ("16t", "tree", 0.5), ("16i", "independent", 0.5))
    ),
    Row(
        "19", "a call whose value is remembered, on disk", "µs", "stores", "hit",
        names("digest and file", "woflo", "diskcache get", "diskcache memoize", "joblib.Memory"),
        (Goal("woflo", 1.0, of="diskcache get"),), "diskcache get", size=20_000, quick=1_000,
    ),
    Row(
        "20", "replay of a finished graph in a new process, per step", "µs", "stores", "replay",
        names("woflo", "diskcache memoize", "joblib.Memory"),
        (Goal("woflo", 10, "absolute"),), "woflo", size=2_000, quick=300, repeat=3,
    ),
    Row(
        "20p", "plan of a ladder of diamonds, per step", "µs", "stores", "plan", names("woflo"),
        (Goal("woflo", 10, "absolute"),), size=100_000, quick=3_000, repeat=3,
    ),
    Row(
        "3", "fresh process by way of a zygote", "µs", "processes", "together",
        names("Process forkserver", "woflo zygote", "Process spawn", "woflo"),
        (Goal("woflo zygote", 0.14, of="Process forkserver"),), "Process forkserver", size=50, quick=10, repeat=3,
    ),
    Row(
        "3g", "… in a process that holds 1 GB", "µs", "processes", "large",
        names("Process forkserver", "woflo zygote", "woflo"),
        (Goal("woflo zygote", 0.14, of="Process forkserver"),), "Process forkserver", size=50, quick=10, repeat=3,
    ),
    Row(
        "4", "warm pool, no-ops submitted one by one, then collected", "µs", "pools", "noops",
        names("woflo task", "mp.Pool", "PPE", "pebble", "loky", "mpire", "ray"),
        (Goal("woflo task", 0.10, of="mp.Pool"),), "mp.Pool", size=10_000, quick=1_000,
    ),
    Row(
        "4b", "… 10 tasks of 100 ms ahead of 990 no-ops", "ms", "pools", "guard", names("woflo", "mp.Pool", "PPE"),
        (Goal("woflo", 1.0, of="mp.Pool"),), "mp.Pool", size=990, quick=990, repeat=3,
    ),
    Row(
        "4c", "… a lone call begins, nobody waiting, 95th of 100", "µs", "pools", "lone", names("woflo", "mp.Pool", "PPE"),
        (Goal("woflo", 200, "absolute"),), "mp.Pool", size=100, quick=30,
    ),
    Row(
        "5", "warm pool, tasks of 50 µs", "µs", "pools", "short", names("ideal", "woflo", "mp.Pool", "PPE"),
        (Goal("woflo", 1.10, of="ideal"),), "ideal", size=10_000, quick=1_000,
    ),
    Row(
        "6", "map over warm processes", "µs", "maps", "together",
        (
            *names("woflo", "woflo, list", "mp.Pool.map", "PPE.map chunked"),
            Contestant("joblib", size=100_000, quick=2_000),
        ),
        (Goal("woflo", 1.5, of="mp.Pool.map"),), "mp.Pool.map", size=1_000_000, quick=20_000,
    ),
    Row(
        "7", "idle warm pool, submit to result", "µs", "pools", "latency",
        names("raw", "woflo", "mp.Pool", "pebble", "PPE", "loky", "ray"),
        (Goal("woflo", 0.22, of="mp.Pool"),), "mp.Pool", size=1_000, quick=100,
    ),
    Row(
        "8", "pool, start to first result (memory in the note)", "ms", "pools", "start",
        names("raw", "woflo", "PPE", "mp.Pool", "pebble", "loky"), (Goal("woflo", 1.0, of="PPE"),), "PPE",
    ),
    Row(
        "8i", "idle pool, CPU in 10 s", "ms", "pools", "idle", names("woflo", "mp.Pool", "PPE", "loky", "pebble", "mpire"),
        (Goal("woflo", 10, "absolute"),), "woflo", size=10, quick=1, repeat=3,
    ),
    Row(
        "9w", "stop a busy warm worker (next result in the note)", "ms", "pools", "stop", names("raw", "woflo", "pebble"),
        (Goal("woflo", 1.5, of="raw"),), "raw", size=20, quick=5,
    ),
    Row(
        "17", "an array of 250 MB to a fresh process, doubled, and back", "s", "pools", "fresh_arrays",
        names("memfd", "woflo", "pebble", "PPE"), (Goal("woflo", 1.3, of="memfd"),), "memfd", size=250, quick=10, repeat=3,
    ),
    Row(
        "17g", "… of 1 GB", "s", "pools", "fresh_arrays", names("memfd", "woflo"), (Goal("woflo", 1.3, of="memfd"),), "memfd",
        size=1000, quick=10, repeat=3,
    ),
    Row(
        "18", "an array of 250 MB to a warm worker, doubled, and back", "s", "pools", "arrays",
        names("woflo", "mp.Pool", "PPE", "loky", "ray"), (Goal("woflo", 0.5, of="ray"),), "woflo", size=250, quick=10, repeat=3,
    ),
    Row(
        "18g", "… of 1 GB", "s", "pools", "arrays", names("woflo", "ray"), (Goal("woflo", 0.5, of="ray"),), "ray",
        size=1000, quick=10, repeat=3,
    ),
    Row(
        "21", "fingerprint of a 100 MB array", "ms/GB", "fingerprints", "large",
        names("blake3", "woflo", "sha256", "joblib.hash"),
        (Goal("woflo", 167, "absolute"),), "joblib.hash", size=100_000_000, quick=8_000_000,
    ),
    Row(
        "21t", "… of a table of 2 M rows", "ms/GB", "fingerprints", "table", names("woflo", "joblib.hash"),
        (Goal("woflo", 667, "absolute"),), "joblib.hash", size=2_000_000, quick=50_000, repeat=3,
    ),
    Row(
        "21a", "… of three small arguments", "µs", "fingerprints", "arguments", names("woflo", "joblib.hash"),
        (Goal("woflo", 1.5, "absolute"),), "joblib.hash", size=20_000, quick=2_000,
    ),
    Row(
        "21c", "… of a function's code", "µs", "fingerprints", "code", names("first look", "second look"),
        (Goal("second look", 0.5, "absolute"),), size=20_000, quick=2_000,
    ),
    Row(
        "22", "import over bare Python", "ms", "startup", "imports",
        names("bare", "woflo", "woflo 0.8", "Process", "mp.Pool", "pebble", "loky", "joblib"),
        (Goal("woflo", 12, "more", of="bare"),), "bare", size=9, quick=3,
    ),
    Row(
        "22s", "script with ten no-op runs, start to exit", "ms", "startup", "scripts",
        names("raw", "woflo", "Process", "mp.Pool", "pebble", "woflo 0.8", "loky", "joblib"),
        (Goal("woflo", 1.5, of="raw"),), "raw", size=7, quick=3,
    ),
    Row(
        "m1", "a finished run that is kept, allocated", "bytes", "memory", "kept", (*RUNNERS, SPAWN),
        tuple(Goal(who, 1024, "absolute") for who in ("fork", "thread", "async", "sequential", "spawn")),
        size=2_000, quick=500, repeat=2,
    ),
    Row(
        "m2", "a finished run that is kept, resident set", "bytes", "memory", "kept_rss",
        (
            Contestant("fork"),
            *(Contestant(name, size=20_000, quick=5_000) for name in ("thread", "async", "sequential")),
        ),
        tuple(Goal(who, 1024, "absolute") for who in ("fork", "thread", "async", "sequential")),
        size=4_000, quick=1_000, repeat=2,
    ),
    Row(
        "m3", "descriptors per finished run that is kept", "open", "memory", "descriptors", (*RUNNERS, SPAWN),
        tuple(Goal(who, 0, "absolute") for who in ("fork", "thread", "async", "sequential", "spawn")),
        size=300, quick=100, repeat=1,
    ),
    Row(
        "m4", "10,000 pending runs", "MB", "memory", "pending",
        names("fork, no slot", "fork, input", "spawn, input", "thread, input", "sequential, input"),
        tuple(Goal(who, 20, "absolute") for who in ("fork, no slot", "fork, input", "spawn, input", "thread, input")),
        size=10_000, quick=2_000, repeat=2,
    ),
    Row(
        "m5", "100,000 runs dropped (fork 10,000): growth", "KB", "memory", "dropped",
        (
            Contestant("fork", size=10_000, quick=1_000),
            *names("thread", "async", "sequential"),
        ),
        tuple(Goal(who, 1024, "absolute") for who in ("fork", "thread", "async", "sequential")),
        size=100_000, quick=10_000, repeat=1,
    ),
    Row(
        "i", "input scan, per element of the arguments", "ns", "inputs", "scan",
        (
            *names("ints", "floats", "strings", "pairs", "lists", "dict", "set", "skipped"),
            Contestant("bare loop", measure="bare_loop"),
        ),
        tuple(Goal(who, 20, "absolute") for who in ("ints", "pairs", "dict")),
        size=1_000_000, quick=200_000, repeat=2,
    ),
)  # fmt: skip
