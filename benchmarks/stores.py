"""Rows 19, 20 and 20p: what is remembered. Microseconds per call or per step, in a directory on this machine's disk.

hit     a call whose value is remembered, of three small arguments, in a process that has made such calls before; limit: a
        digest of the arguments and reading one small file. `woflo` is a whole call and its get_result.
replay  a finished graph of steps, each with three parents in the layer before, asked for in a new process: everything is
        up to date, the last layer's values are loaded. Starting the interpreter and imports aren't counted, reading and
        making the definitions is.
plan    the plan of a ladder of diamonds that was never made: which steps would run, and why.
"""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks._peer import Skip, ours, peer

KEYS = 500  # different calls


def value_of(number, _name, factor):
    return number * factor


def hit(contestant: str, count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="woflo-bench-") as folder:
        call = HITS[contestant](folder)
        for number in range(KEYS):
            call(number)  # fills
        time.sleep(2.2)  # what was written just now is read again each time, as it may change unseen
        for number in range(KEYS):
            call(number)
        begin = time.perf_counter()
        for number in range(count):
            call(number % KEYS)
        return (time.perf_counter() - begin) / count * 1e6


def limit(folder):
    blake3 = peer("blake3").blake3

    def call(number):
        path = f"{folder}/{blake3(repr((number, 'name', 1.5)).encode()).hexdigest()}"
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            Path(path).write_bytes(b"x" * 300)
            return b""
        try:
            return os.read(fd, 4096)
        finally:
            os.close(fd)

    return call


def woflo_hit(folder):
    woflo = ours()
    remembering = woflo.task(value_of, cache=folder, runner=woflo.runners.SequentialTaskRun)
    return lambda number: remembering(number, "name", 1.5).get_result()


def diskcache_hit(folder):
    cache = peer("diskcache").Cache(folder)

    def call(number):
        key = (number, "name", 1.5)
        found = cache.get(key)
        if found is None:
            found = cache[key] = value_of(*key)
        return found

    return call


def memoized_hit(folder):
    remembering = peer("diskcache").Cache(folder).memoize()(value_of)
    return lambda number: remembering(number, "name", 1.5)


def joblib_hit(folder):
    remembering = peer("joblib").Memory(folder, verbose=0).cache(value_of)
    return lambda number: remembering(number, "name", 1.5)


HITS = {
    "digest and file": limit,
    "woflo": woflo_hit,
    "diskcache get": diskcache_hit,
    "diskcache memoize": memoized_hit,
    "joblib.Memory": joblib_hit,
}


# ---------------------------------------------------------------- replay


def layered(count):
    from benchmarks.graphs import layered as shape

    return shape(count)


def add(*values):
    return sum(values) + 1


def replay(contestant: str, count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="woflo-bench-") as folder:
        command = [sys.executable, "-m", "benchmarks.stores", contestant, str(count), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Skip(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "its filling failed")
        run = REPLAYS[contestant]
        for name in MODULES[contestant]:
            peer(name)
        begin = time.perf_counter()
        ran = run(folder, count, [])
        seconds = time.perf_counter() - begin
        assert not ran, f"{ran} steps ran again"
        return seconds / count * 1e6


def woflo_build(folder, count, ran):
    from woflo._build import Build, Step
    from woflo._code import code_of
    from woflo._fingerprint import cache_key
    from woflo._rebuild import Recipe
    from woflo._shelf import StoreShelf
    from woflo.store import Store

    code = code_of(add)

    def recipe(name, inputs):
        return Recipe(cache_key(name, code.digest, *inputs.values()), code.digest, code.parts, {}, inputs)

    def run(values):
        ran.append(1)
        return add(*values.values())

    shape = layered(count)
    steps = [
        Step(
            f"s{place}",
            [f"s{place}"],
            [f"s{one}" for one in parents],
            run,
            lambda value: [value],
            partial(recipe, f"s{place}"),
        )
        for place, parents in shape
    ]
    Build(steps, StoreShelf(Store.of(folder), "replay")).make([f"s{place}" for place in range(count - 100, count)])
    return len(ran)


def joblib_replay(folder, count, _ran):
    memory = peer("joblib").Memory(folder, verbose=0)

    @memory.cache
    def step(*values):
        return add(*values)

    values = {}
    for place, parents in layered(count):
        values[place] = step(place, *[values[one] for one in parents])
    return 0


def diskcache_replay(folder, count, _ran):
    remembering = peer("diskcache").Cache(folder).memoize()(add)
    values = {}
    for place, parents in layered(count):
        values[place] = remembering(place, *[values[one] for one in parents])
    return 0


REPLAYS = {"woflo": woflo_build, "joblib.Memory": joblib_replay, "diskcache memoize": diskcache_replay}


MODULES = {
    "woflo": ["woflo._build", "woflo._code", "woflo._shelf", "woflo.directory"],
    "joblib.Memory": ["joblib"],
    "diskcache memoize": ["diskcache"],
}


# ---------------------------------------------------------------- plans


def plan(contestant: str, count: int) -> float:
    return PLANS[contestant](count)


def woflo_plan(count):
    from woflo.workflow import WorkflowConfig, WorkflowRunner, workflow_step

    class Config(WorkflowConfig):
        _identity_fields = ("seed",)
        seed = 1

    steps = []
    for place in range(count):
        before = place - 1 - (place - 1) % 3
        requires = [] if place == 0 else [f"p{before}"] if place % 3 else [f"p{place - 2}", f"p{place - 1}"]
        space = {}
        exec(f"def s{place}({', '.join(requires)}):\n    return 1", space)
        steps.append(workflow_step(produces=[f"p{place}"], requires=requires)(space[f"s{place}"]))
    runner = WorkflowRunner(steps, Config())
    begin = time.perf_counter()
    found = runner.plan(f"p{count - 1}")
    seconds = time.perf_counter() - begin
    assert len(found) > count // 2
    return seconds / count * 1e6


PLANS = {"woflo": woflo_plan}


if __name__ == "__main__":
    name, size, place = sys.argv[1:]
    REPLAYS[name](place, int(size), [])
