"""The input scan: what a call pays per element of its arguments. Nanoseconds per element.

A call looks for runs among its arguments while some run is unfinished or unread. Measured on the sequential runner
while a thread run waits for an event; "skipped" is the same call when every run has ended and been read. An element
is an object in a container: a list of pairs counts its pairs and what is in them, a dict its keys and its values.
"""

import time
from importlib import import_module
from statistics import median

from benchmarks._peer import ours, peer


def scan(contestant: str, count: int) -> float:
    runners = peer("woflo.runners")
    call = ours().task(lambda _value: None, runner=runners.SequentialTaskRun)
    event = import_module("threading").Event()
    value, elements = VALUES[contestant](count)
    waiting = ours().task(event.wait, runner=runners.ThreadTaskRun)()
    if contestant == "skipped":
        event.set()
        waiting.get_result()
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        run = call(value)
        took.append(time.perf_counter() - begin)
        run.get_result()
    event.set()
    waiting.get_result()
    return median(took) / elements * 1e9


def bare_loop(_contestant: str, count: int) -> float:
    """Compare one class per item, the least any scan written in Python does."""
    value, took = list(range(count)), []
    for _ in range(5):
        begin = time.perf_counter()
        for item in value:
            if item.__class__ is list:
                break
        took.append(time.perf_counter() - begin)
    return median(took) / count * 1e9


VALUES = {
    "ints": lambda count: (list(range(count)), count),
    "skipped": lambda count: (list(range(count)), count),
    "floats": lambda count: ([float(number) for number in range(count)], count),
    "strings": lambda count: ([str(number) for number in range(count)], count),
    "pairs": lambda count: ([(number, number) for number in range(count // 3)], count // 3 * 3),
    "lists": lambda count: ([[number, number] for number in range(count // 3)], count // 3 * 3),
    "dict": lambda count: (dict.fromkeys(range(count // 2), 1), count // 2 * 2),
    "set": lambda count: (set(range(count)), count),
}
