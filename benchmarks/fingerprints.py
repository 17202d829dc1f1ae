"""Digests of values, of a function's arguments and of its code.

`large`: milliseconds per gigabyte, of an array of `size` bytes; `table`: the same of a table of `size` rows (floats, integers,
times, truth values, categories, texts), whose bytes are what pandas says it holds, its texts included. `arguments` and `code`:
microseconds per call. The best of a few: a digest takes no luck, but other programs do.
"""

import time
from importlib import import_module
from timeit import repeat

from benchmarks._peer import ours, peer

ARGUMENTS = (3, "abc", 4.5)


def hasher(contestant: str):
    """What makes a digest of a value: an array for the plain hash functions, anything for the others."""
    if contestant == "woflo":
        ours()
        return import_module("woflo._fingerprint").digest
    if contestant == "joblib.hash":
        return peer("joblib").hash
    if contestant == "blake3":
        blake3 = peer("blake3").blake3
        return lambda array: blake3(memoryview(array).cast("B")).digest()
    sha256 = import_module("hashlib").sha256
    return lambda array: sha256(array).digest()


def seconds(digest, value, times: int) -> float:
    took = []
    for _ in range(times):
        begin = time.perf_counter()
        digest(value)
        took.append(time.perf_counter() - begin)
    return min(took)


def large(contestant: str, size: int) -> float:
    numpy = peer("numpy")
    array = numpy.random.default_rng(0).random(size // 8)
    return seconds(hasher(contestant), array, 7) * 1e3 / (array.nbytes / 1e9)


def table(contestant: str, rows: int) -> float:
    numpy, pandas = peer("numpy"), peer("pandas")
    random = numpy.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "height": random.random(rows),
            "width": random.random(rows),
            "number": random.integers(0, 1000, rows),
            "when": pandas.date_range("2020", periods=rows, freq="s"),
            "good": random.random(rows) < 0.5,
            "kind": pandas.Categorical.from_codes(random.integers(0, 3, rows), ["x", "y", "z"]),
            "name": [f"station {number % 5000}" for number in range(rows)],
        }
    )
    held = int(frame.memory_usage(deep=True).sum())
    return seconds(hasher(contestant), frame, 3) * 1e3 / (held / 1e9)


def arguments(contestant: str, calls: int) -> float:
    digest = hasher(contestant)
    return min(repeat(lambda: digest(ARGUMENTS), number=calls, repeat=5)) / calls * 1e6


LIMIT = 3


def clean(values):
    return [value for value in values if value < LIMIT]


def train(values, depth=2):
    return clean(values) * depth


def code(contestant: str, calls: int) -> float:
    """The second look at a function with a helper and a global, or the first one."""
    ours()
    module = import_module("woflo._code")
    if contestant == "second look":
        module.code_of(train)
        return min(repeat(lambda: module.code_of(train), number=calls, repeat=5)) / calls * 1e6
    took = []
    for _ in range(5):
        module._known.clear()
        import_module("woflo._bytecode")._readings.clear()
        begin = time.perf_counter()
        module.code_of(train)
        took.append(time.perf_counter() - begin)
    return min(took) * 1e6
