"""For the tests of those who use woflo, or write a runner for it.

`RunnerContract`, with `Flag`, `Ledger` and `PATIENCE`: what woflo promises of every runner, as tests. `ScriptedTaskRun`,
`InlineTaskRun`: runners that do what the test says. `FakeClock`: time that passes when the test says. `capture_events`: what
was told. `StoreContract`: what woflo promises of a store over any mapping. Nothing here needs pytest.
"""

from __future__ import annotations

from woflo.testing.capture import capture_events
from woflo.testing.clock import FakeClock
from woflo.testing.contract import PATIENCE, Flag, Ledger, RunnerContract
from woflo.testing.scripted import InlineTaskRun, ScriptedTaskRun
from woflo.testing.stores import StoreContract

__all__ = [
    "PATIENCE",
    "FakeClock",
    "Flag",
    "InlineTaskRun",
    "Ledger",
    "RunnerContract",
    "ScriptedTaskRun",
    "StoreContract",
    "capture_events",
]
