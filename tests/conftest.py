"""On every test: nothing is left behind, no child, no thread, no descriptor.

What woflo keeps for good (its selector, the slots' pipe) is opened before the first
count. A worker that has ended is collected by the next step of anybody; the fixture
takes such a step, which starts nothing.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTLE_SECONDS = 10.0
"""How long what ends by itself may take, on a busy machine; a test that leaves something waits this long, then fails."""

PROC = os.path.isdir("/proc/self/fd")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lane", metavar="I/N", help="every N-th test, from the I-th one on; see `python -m tests`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if lane := config.getoption("--lane"):
        first, lanes = map(int, lane.split("/"))
        config.hook.pytest_deselected(items=[item for at, item in enumerate(items) if at % lanes != first - 1])
        items[:] = items[first - 1 :: lanes]


def _children() -> set[int]:
    found: set[int] = set()
    if not PROC:
        return found
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:
            found.update(map(int, file.read().split()))
    return found


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd") if PROC else ():
        with contextlib.suppress(OSError):  # the descriptor of this listing itself
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


def _inventory() -> tuple[set[int], set[threading.Thread], dict[int, str]]:
    return _children(), set(threading.enumerate()), _descriptors()


def _collect() -> None:
    """Woflo's own collecting step, if a test has used the supervisor."""
    module: Any = sys.modules.get("woflo.runners._supervisor")
    supervisor = module.existing() if module is not None else None
    if supervisor is not None:
        supervisor.nudge()


@pytest.fixture(scope="session", autouse=True)
def standing_descriptors() -> None:
    """Let woflo open what it keeps for good before anything is counted; idle threads leave at once."""
    import woflo
    from woflo.runners import MultiprocessTaskRun, asynchronous, thread

    if sys.platform != "win32":
        woflo.task(int, runner=MultiprocessTaskRun)().wait()
    # They end by themselves after a second without work; a thousand tests need not wait for it.
    asynchronous._IDLE_SECONDS = thread._IDLE_SECONDS = 0.05
    if sys.platform == "linux":
        from woflo.runners import _pool

        _pool._IDLE_SECONDS = 0.05


@pytest.fixture(autouse=True)
def nothing_left_behind(standing_descriptors: None) -> Iterator[None]:
    """Children, threads and descriptors are as many after a test as before it."""
    del standing_descriptors
    children, threads, descriptors = _inventory()
    yield
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        _collect()
        now = _inventory()
        left: dict[str, Any] = {}
        if now[0] - children:
            left["children"] = sorted(now[0] - children)
        if now[1] - threads:
            left["threads"] = sorted(thread.name for thread in now[1] - threads)
        if len(now[2]) > len(descriptors):
            left["descriptors"] = sorted(set(now[2].items()) - set(descriptors.items()))
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind {SETTLE_SECONDS} s after the test: {left}")
        gc.collect()  # a run that only a cycle keeps
        time.sleep(0.01)
