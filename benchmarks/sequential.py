"""Row 12: start a run in place and take its result: `f(1).get_result()`. Microseconds each, loop included.

"slots" is the limit: an object with slots that calls the function and keeps what it returned.
"""

import time
from importlib import import_module

from benchmarks._peer import ours, peer, upstream


def identity(value):
    return value


class Slots:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def get_result(self):
        return self.value


def each(contestant: str, count: int) -> float:
    call = CONTESTANTS[contestant]()
    call(1000)
    begin = time.perf_counter()
    call(count)
    return (time.perf_counter() - begin) / count * 1e6


def slots():
    def calls(count):
        for _ in range(count):
            Slots(identity(1)).get_result()

    return calls


def future():
    future_type = import_module("concurrent.futures").Future

    def calls(count):
        for _ in range(count):
            done = future_type()
            done.set_result(identity(1))
            done.result()

    return calls


def woflo():
    run = ours().task(identity, runner=peer("woflo.runners").SequentialTaskRun)
    return lambda count: collect(run, count)


def woflo_upstream():
    run = upstream().task(identity, runner=peer("woflo.runners.sequential").SequentialTaskRun)
    return lambda count: collect(run, count)


def woflo_upstream_logging():
    """Upstream as it comes: each run writes two lines to stderr (here a file)."""
    call = woflo_upstream()
    import_module("logging").getLogger("woflo").setLevel("INFO")
    return call


def tenacity():
    retrying = peer("tenacity").Retrying

    def calls(count):
        for _ in range(count):
            retrying()(identity, 1)

    return calls


def collect(run, count):
    for _ in range(count):
        run(1).get_result()


CONTESTANTS = {
    "slots": slots,
    "Future": future,
    "woflo": woflo,
    "woflo 0.8": woflo_upstream,
    "woflo 0.8 logging": woflo_upstream_logging,
    "tenacity": tenacity,
}
