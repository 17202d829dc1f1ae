"""What the end of a worker's process means for the run that it carried out."""

from __future__ import annotations

import _signal
import os
from time import monotonic

from woflo.result import Failure, StoppedFailure, WorkerFailure
from woflo.runners import _attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHANNEL_LOST = 71  # exit code: the task closed its worker's channel; ours if the worker has left its group as well


def failure(run: Any, status: int | None, *, timed_out: bool, left_group: bool) -> Failure:
    """The failure of an attempt whose process ended without a result.

    Args:
        run: the run.
        status: exit code, negative for a signal, None if somebody else has collected it.
        timed_out: whether the attempt's time was up.
        left_group: whether the process had left its group when it ended.
    """
    if timed_out:
        return _attempt.late(run, monotonic() - run._started)
    found: Failure = run._named(_of(run, status, left_group=left_group))
    return found


def _of(run: Any, status: int | None, *, left_group: bool) -> Failure:
    if run._stop_asked:
        return StoppedFailure("stopped by SIGKILL, after it did not end when asked" if status == -9 else "stopped")
    if status is None:
        text = "the worker died; exit status unknown (the application collected it: SIGCHLD ignored, or waitpid(-1))"
        return WorkerFailure(text)
    if status < 0:
        name = signal_name(-status)
        hint = " (often: out of memory)" if name == "SIGKILL" else ""
        return WorkerFailure(f"the worker was killed by {name}{hint}", signal=name)
    if status == CHANNEL_LOST and left_group:
        text = f"the worker left with exit code {status}: the task closed the channel on which its result is sent"
    else:
        text = f"the worker left with exit code {status} before it had a result"
    return WorkerFailure(text, exit_code=status)


def name_strays(run: Any, pids: set[int], result: Any) -> None:
    """Say which processes that the task started have left the group and live on."""
    alive = sorted(pid for pid in pids if is_alive(pid))
    if not alive:
        return
    from woflo import events

    numbers = ", ".join(map(str, alive))
    events.warn(f"{run.name}: processes that its task started left the group (setsid) and live on: pid {numbers}")
    if isinstance(result, Failure):
        result.message += f"; processes that left its group live on: pid {numbers}"


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it has changed its user: alive
        return True
    return True


def signal_name(number: int) -> str:
    """A signal's name, for instance SIGKILL."""
    for name in dir(_signal):
        if name.startswith("SIG") and not name.startswith("SIG_") and getattr(_signal, name) == number:
            return name
    return f"signal {number}"
