"""Ctrl-C at every point where CPython may raise it: `python -m tests.ctrl_c SCENARIO RUNNER [--every N]`.

CPython looks for signals when a function begins, when a call of C code has returned, and when a loop turns; so these are all the
points there are. A scenario is carried out again and again, struck at the first of woflo's points in the main thread, then at the
second, and so on. After each strike the program goes on: what it holds must end, with its value or saying that Ctrl-C came; a
further call works; and nothing is left unfinished.
"""

from __future__ import annotations

import argparse
import asyncio
import dis
import functools
import os
import signal
import sys
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import woflo
from woflo.action import Action, Engine
from woflo.lazy import Lazy, LazyDB
from woflo.runners import MultiprocessTaskRun, _process
from woflo.store import Store
from woflo.testing import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Self

ROOT = os.path.dirname(woflo.__file__)
CALLS = {code for name, code in dis.opmap.items() if name.startswith("CALL") and "INTRINSIC" not in name}
JUMPS = {code for name, code in dis.opmap.items() if "JUMP_BACKWARD" in name and "NO_INTERRUPT" not in name}


class Strike:
    """Ctrl-C at the n-th point within the block: `where` it was, None if there were not so many."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0
        self.where: str | None = None
        self.before: dict[FrameType, int] = {}  # the instruction that a frame has carried out last
        self.calling: set[FrameType] = set()  # what it calls is Python's: no point when that returns

    def __enter__(self) -> Self:
        sys.settrace(self.begin)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        self.before.clear()
        self.calling.clear()

    def begin(self, frame: FrameType, event: str, _: object) -> Any:
        if event != "call":
            return None
        if frame.f_back is not None:
            self.calling.add(frame.f_back)
        if not frame.f_code.co_filename.startswith(ROOT):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.point(frame)
        return self.step

    def step(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "opcode":
            before = self.before.get(frame, -1)
            done = None if before < 0 else frame.f_code.co_code[before]
            turned = done in JUMPS and frame.f_lasti < before
            if turned or (done in CALLS and frame not in self.calling):
                self.point(frame)
            self.calling.discard(frame)
            self.before[frame] = frame.f_lasti
        elif event == "return":
            self.before.pop(frame, None)
        return self.step

    def point(self, frame: FrameType) -> None:
        self.seen += 1
        if self.seen != self.at:
            return
        stack: list[str] = []
        at: FrameType | None = frame
        while at is not None:
            stack.append(f"{os.path.basename(at.f_code.co_filename)}:{at.f_lineno} {at.f_code.co_name}")
            if at.f_code.co_name == "__del__":  # Python prints what is raised there
                self.at += 1
                return
            at = at.f_back
        self.where = " < ".join(stack[:8])
        signal.raise_signal(signal.SIGINT)


@woflo.task
def same(x: int) -> int:
    return x


@woflo.task
def much(x: int) -> bytes:
    return bytes(300_000 + x)


kept_values: dict[str, bytes] = {}


@woflo.task(cache=Store(kept_values), version="1")
def remembered(x: int) -> int:
    return 10 * x


@woflo.task
def add(x: int, y: int) -> int:
    return x + y


async def soon(x: int) -> int:
    await asyncio.sleep(0)
    return x


def call(kept: list[Any]) -> None:
    kept.append(same(3))
    kept[0].get_result()


def gather(kept: list[Any]) -> None:
    kept.extend(same(x) for x in range(3))
    woflo.gather(*kept)


def as_completed(kept: list[Any]) -> None:
    kept.extend(same(x) for x in range(3))
    for run in woflo.as_completed(kept):
        run.outcome()


def chain(kept: list[Any]) -> None:
    kept.append(same(1))
    kept.append(add(kept[0], 2))
    kept.append(add(kept[0], kept[1]))
    kept[2].get_result()


@functools.cache
def narrow() -> Any:
    """The chosen runner, with one worker."""
    return {
        "sequential": lambda: woflo.runners.SequentialTaskRun,
        "thread": lambda: woflo.runners.ThreadTaskRun.using(max_running=1),
        "fork": lambda: MultiprocessTaskRun.using(max_running=1),
        "pool": lambda: woflo.runners.PoolTaskRun.using(workers=1),
    }[os.environ["WOFLO_RUNNER"]]()


class Called:
    """A callback, and whether it was called once its run had ended."""

    def __init__(self, run: Any) -> None:
        self.run, self.times = run, 0
        run.add_done_callback(self)

    def __call__(self, _: object) -> None:
        self.times += 1


def callback(kept: list[Any]) -> None:
    kept.append(same(3))
    kept.append(Called(kept[0]))
    kept[0].get_result()


def large(kept: list[Any]) -> None:
    kept.extend(much(x) for x in range(2))
    for run in kept:
        run.wait()


def cached(kept: list[Any]) -> None:
    """One that is made, two that wait for it or find it, and one more of another key."""
    kept_values.clear()
    kept.extend(remembered(x) for x in (1, 1, 1, 2))
    woflo.gather(*kept)
    kept.append(remembered(1))


def stop(kept: list[Any]) -> None:
    kept.append(same(3))
    kept[0].stop()


def items(kept: list[Any]) -> None:
    kept.append(same.map(range(4)))
    for run in kept[0].as_completed():
        run.outcome()


def many(kept: list[Any]) -> None:
    """More than may be under way at once, in chunks where the runner has them: they are sent while results are asked for."""
    kept.append(same.options(runner=narrow()).map(list(range(12)), chunksize=2))
    kept[0].get_results()


def drawn(kept: list[Any]) -> None:
    kept.append(same.map(iter(range(4))))
    for run in kept[0]:
        kept.append(run)  # noqa: PERF402 - what was handed out by then


def actions(kept: list[Any]) -> None:
    first, second = Action(functools.partial(same.fn, 1)), Action(functools.partial(same.fn, 2))
    kept.append(Engine(first, second.requires(first) or second, Action(soon(3))))
    kept[0].orchestrate()


def nested(kept: list[Any]) -> None:
    worker = Action(functools.partial(same.fn, 1), runner=MultiprocessTaskRun)
    kept.append(Engine(Engine(Action(soon(1))), worker))
    kept[0].orchestrate()


def lazies(_: list[Any]) -> None:
    one = Lazy.of(same, 1)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(LazyDB().run(Lazy.of(add, one, Lazy.of(add, one, one))))
    finally:
        loop.close()


SCENARIOS: dict[str, Callable[[list[Any]], None]] = {
    one.__name__: one
    for one in (
        call,
        gather,
        as_completed,
        chain,
        callback,
        large,
        cached,
        stop,
        items,
        many,
        drawn,
        actions,
        nested,
        lazies,
    )
}


def check(kept: list[Any], stopped: bool) -> None:
    """After a strike.

    Raises:
        AssertionError: something is not as it should be.
        WaitTimeout: something never ended.
    """
    for one in kept:
        if isinstance(one, Engine):
            assert not any(action.is_running() for action in one.actions), one.actions
            continue
        found: list[Any]
        if isinstance(one, Called):
            until(lambda one=one: one.times > 0)
            assert one.times == 1, one.times
            continue
        if not isinstance(one, woflo.RunGroup):
            found = [one.outcome(timeout=PATIENCE)]
        elif one._outcomes.forgets:
            found = drawn_rest(one, 4 - len(kept[1:]))
        else:
            found = one.outcomes(timeout=PATIENCE)
            assert len(found) == len(one) in {4, 12}, found
            assert sum(outcome != woflo.Ok(x) for x, outcome in enumerate(found)) <= 2, found
        for outcome in found:
            assert outcome or stopped or "Ctrl-C" in str(outcome) or "stopped" in str(outcome), outcome
    assert same(7).get_result(timeout=PATIENCE) == 7
    until(lambda: not [run._wait(0.1) for run in list(_process.live)])
    assert not _process.live, _process.live


def until(happened: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE
    while not happened() and monotonic() < deadline:
        same(8).get_result()


def drawn_rest(group: woflo.RunGroup[int], missing: int) -> list[Any]:
    found = []
    try:
        found.extend(run.outcome() for run in group)
    except woflo.StoppedFailure as error:
        if "those that would have followed are missing" not in str(error):
            raise  # else the strike looked as if it had come out of the iterable
        return found
    assert len(found) == missing, found
    return found


@contextmanager
def uninterrupted(problems: list[str], strike: Strike) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if strike.where is None:
            raise
    except Exception as error:
        problems.append(f"raised {error!r}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("tests.ctrl_c", description=__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("runner", choices=["sequential", "thread", "fork", "pool"])
    parser.add_argument("--every", type=int, default=1, help="every n-th point only")
    parser.add_argument("--first", type=int, default=1, help="begin with this point")
    chosen = parser.parse_args(arguments)
    os.environ["WOFLO_RUNNER"] = chosen.runner
    signal.signal(signal.SIGINT, signal.default_int_handler)
    scenario = SCENARIOS[chosen.scenario]
    scenario([])
    number, bad = chosen.first, 0
    while True:
        strike, kept, problems = Strike(number), [], []
        with uninterrupted(problems, strike), strike:
            scenario(kept)
        if strike.where is None and not problems:
            break
        with uninterrupted(problems, strike):
            check(kept, scenario is stop)
        for problem in problems:
            print(f"at point {number}: {strike.where}\n    {problem}", flush=True)
        bad += bool(problems)
        if strike.where is None:
            break
        number += chosen.every
    print(f"{strike.seen} points, {(number - chosen.first) // chosen.every} strikes, {bad} of them did harm")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
