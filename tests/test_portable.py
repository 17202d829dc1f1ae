"""The workers of systems without pidfds and Unix sockets, carried out here."""

import pytest

from woflo.runners.multiprocess import MultiprocessTaskRun, SpawnProcess
from woflo.testing import RunnerContract


class PortableTaskRun(MultiprocessTaskRun):
    """What MultiprocessTaskRun is on Windows."""

    _portable = True
    _pumped = False
    process_type = SpawnProcess


@pytest.mark.slow  # a fresh interpreter for each of some 150 runs
class TestPortable(RunnerContract):
    """A thread that waits for a process keeps every promise of a runner."""

    runner = PortableTaskRun
    in_process = False
    can_kill = True
    interrupts = False  # there is no signal that Python code in the worker could see
    start_seconds = 10.0
    many = 10
    test_a_task_can_ask_whether_to_stop = None  # for the same reason
