"""The end of the program: what becomes of the runs that are still under way.

At a script's end all runs are carried out, pending ones too, before the interpreter starts to finalise. After an
unhandled exception or Ctrl-C they are stopped within the grace. Ctrl-C during the wait does the same, and then the process dies
by SIGINT, as the shell expects; a second one ends at once. Failures that nobody looked at are counted in one line.
"""

from __future__ import annotations

import _signal
import atexit
import os
import sys
from _thread import get_ident
from time import monotonic, sleep

from woflo import _loading, _notify, _unseen
from woflo.result import StoppedFailure
from woflo.runners import _attempt, _process, _waiters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from woflo.runners.base import BaseTaskRun

_TELLING = 5.0  # seconds at most: loading the log takes 0.1 s, on a busy machine 2 s
_MARGIN = 0.5  # seconds after the grace for what was killed to be collected


_interrupted = False  # Ctrl-C came while we waited
_hooked = False  # the earlier of the two hooks is registered


def register() -> None:
    """Have the interpreter call us at its exit, and before it waits for threads if there can be any.

    The earlier hook needs `threading`, whose fork hooks cost every later fork 5 %: it is registered when somebody has
    imported that. Without threads nothing happens between the two.
    """
    atexit.register(_at_exit)
    hook_threads()


def hook_threads() -> None:
    """Register the earlier hook if `threading` is there; a second call does nothing."""
    global _hooked
    threading = _loading.loaded("threading")
    if _hooked or threading is None:
        return
    _hooked = True
    try:
        threading._register_atexit(_before_threads_end)  # as concurrent.futures does
    except (AttributeError, RuntimeError):  # another Python, or the end has begun: the atexit function alone
        return


def _before_threads_end() -> None:
    _process.exiting = True
    _finish()
    _report()  # here, because loguru takes its sinks down in an exit function of its own


def _at_exit() -> None:
    """Runs that were started since, by threads or by other exit functions."""
    _process.exiting = True
    _finish()
    _process.closed = True
    _report()
    if _interrupted or isinstance(getattr(sys, "last_value", None), KeyboardInterrupt):
        # Python would die by SIGINT itself, if nothing had been evaluated or executed since: our work at exit has
        _die_by_interrupt()


def _report() -> None:
    if _unseen.count:
        from woflo import events

        events.report_unseen()


def _finish() -> None:
    global _interrupted
    try:
        finish(stop=_died_of_exception())
    except KeyboardInterrupt:
        _interrupted = True
        try:
            finish(stop=True)
        except KeyboardInterrupt:  # once more: no more patience
            supervisor = _process.timers()
            supervisor.kill_all()
            supervisor.settle(monotonic() + _attempt.GRACE)


def _died_of_exception() -> bool:
    """Whether an exception that nobody handled is what ends the program."""
    return getattr(sys, "last_value", None) is not None and not _waiters.interactive() and not sys.flags.interactive


def _die_by_interrupt() -> None:
    """Run what else is registered for the exit, then die by SIGINT: the shell sees 130 and stops its script."""
    if _waiters.interactive() or sys.flags.interactive:
        return
    atexit.unregister(_at_exit)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):  # its reader is gone
                continue
    if os.name == "nt":
        os._exit(0xC000013A - (1 << 32))  # STATUS_CONTROL_C_EXIT
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    os.kill(os.getpid(), _signal.SIGINT)


def finish(*, stop: bool) -> None:
    """Carry out all runs of this process, or stop them; then collect every worker.

    Raises:
        KeyboardInterrupt: Ctrl-C while waiting.
    """
    if stop:
        _stop_all()
    else:
        lost: set[Any] = set()
        while _process.live:
            for run in list(_process.live):
                run._look()
                if run._result is None and (why := run._stranded()):
                    run._settle(run._named(StoppedFailure(why)))
                elif run._result is None and run._is_nowhere():
                    if run in lost:  # already a moment ago: it isn't on its way from one place to another
                        run._settle(run._named(StoppedFailure("Ctrl-C came twice while it was being started")))
                    lost.add(run)
            for run in list(_process.live):
                run._wait(_waiters.RECHECK)  # then look again whether something is stranded
    supervisor = _process.supervisor
    if supervisor is not None:
        supervisor.settle(monotonic() + _attempt.GRACE + _MARGIN if stop else None)
    _wait_for_the_telling()


def _wait_for_the_telling() -> None:
    """Another thread may be writing to the log, or be inside an observer: daemon threads end with the interpreter."""
    deadline = monotonic() + _TELLING
    while any(thread != get_ident() for thread in list(_notify.untold.values())) and monotonic() < deadline:
        sleep(0.002)


def _stop_all() -> None:
    """Ask all runs to end; those that don't within the grace are ended or abandoned."""
    deadline = monotonic() + _attempt.GRACE + _MARGIN
    runs = _dependents_first(list(_process.live))
    for run in runs:
        run.stop(_attempt.GRACE, wait=False)
    for run in runs:
        if not run._stranded():
            run._wait(max(0.0, deadline - monotonic()))
    supervisor = _process.supervisor
    if supervisor is not None and not supervisor.settle(deadline):
        supervisor.kill_all()


def _dependents_first(runs: list[BaseTaskRun[Any]]) -> list[BaseTaskRun[Any]]:
    """The order in which each is stopped; in another, one whose input ended a moment before would fail because of it."""
    order: list[BaseTaskRun[Any]] = []
    seen: set[int] = set()
    for first in runs:
        todo = [(first, False)]
        while todo:
            run, inputs_are_in = todo.pop()
            if inputs_are_in:
                order.append(run)
            elif id(run) not in seen:
                seen.add(id(run))
                todo.append((run, True))
                todo.extend((one, False) for one in run._wanted)
    return order[::-1]
