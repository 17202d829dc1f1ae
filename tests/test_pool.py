"""PoolTaskRun: a warm worker, leased for one run at a time."""

from __future__ import annotations

import os
import sys

import pytest

import woflo
from woflo.testing import PATIENCE, Flag, Ledger, RunnerContract

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a pool needs Linux")

if sys.platform == "linux":
    from woflo.runners import _pool
    from woflo.runners.pool import PoolTaskRun


@pytest.fixture(autouse=True)
def idle_workers_leave(monkeypatch):
    """Workers end at once when they are idle, so that each test counts what it has left."""
    monkeypatch.setattr(_pool, "_IDLE_SECONDS", 0.05)


class TestPool(RunnerContract):
    runner = PoolTaskRun
    in_process = False
    can_kill = True
