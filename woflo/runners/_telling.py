"""Telling the runs of a pool how they ended: a bundle at a time, with no lock held.

What Ctrl-C cuts short is done again by whoever comes next, from where it was; a run that was told already is told once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from woflo import _collector, _exceptions, _notify
from woflo.result import DependencyFailure, Ok, StoppedFailure
from woflo.runners import _process, _ring
from woflo.runners._message import LEFT, SPECIAL

try:
    from _pickle import loads
except ImportError:
    from pickle import loads

if TYPE_CHECKING:
    from typing import Any

    from woflo.runners._message import Bundle

__all__ = ["is_executed", "tell"]

_NONE_OK: Any = Ok(None)
_NOT_RUN = frozenset({_ring.SKIPPED, LEFT})
_SKIPPED: Any = DependencyFailure({})  # its drive knows why
_LEFT: Any = StoppedFailure("it was not carried out with what it needs")
_new = object.__new__


def tell(bundle: Bundle) -> None:
    """End a bundle's runs."""
    (_tell_runs if bundle.crew is None else _tell_members)(bundle)


def is_executed(frame: Any) -> bool:
    """Whether a frame is on the stack of some thread."""
    for top in _collector.frames().values():
        at: Any = top
        while at is not None:
            if at is frame:
                return True
            at = at.f_back
    return False


def _tell_runs(bundle: Bundle) -> None:
    """End a bundle's runs; cut short by Ctrl-C it can be done again from where it was."""
    runs, ends, data = bundle.runs, bundle.ends, bundle.data
    start = (ends[bundle.next - 1] >> 4) - bundle.begin if bundle.next else 0
    started, ended, listening = bundle.since, bundle.until, _notify.listening
    live = _process.live
    for index in range(bundle.next, len(runs)):
        run, end = runs[index], ends[index]
        stop = (end >> 4) - bundle.begin
        kind = end & 15
        if run._result is not None:  # it was stopped; or Ctrl-C came when this had just been set
            run._tell_again()
        elif kind > _ring.OK or run._stop_asked or run._timed_out or listening or run._flags & SPECIAL:
            run._take(bundle, index, kind, data[start:stop] if stop > start else b"")
        else:
            if kind == _ring.NONE:
                ok = _NONE_OK
            else:
                try:
                    value = loads(data[start:stop])
                except BaseException as error:
                    if _exceptions.is_interrupt(error):  # Ctrl-C; it will be done again
                        raise
                    run._broken(error)
                    bundle.next, start = index + 1, stop
                    continue
                ok = _new(Ok)
                ok.value = value
            run._started = started
            run._ended = ended
            run._result = ok
            run.args = run.kwargs = run._blob = None
            live.discard(run)
            if run._attended:
                run._forget()
            if run._waiters is not None:
                run._tell_waiters()
            if run._dependents is not None:
                run._tell_dependents()
            if run._callbacks is not None:
                run._tell_callbacks()
        start = max(start, stop)
        bundle.next = index + 1


def _tell_members(bundle: Bundle) -> None:
    """End the runs of a drive, which is told of many at once; as `_tell_runs`, without what they don't have."""
    runs, ends, data, told = bundle.runs, bundle.ends, bundle.data, bundle.told
    start = (ends[bundle.next - 1] >> 4) - bundle.begin if bundle.next else 0
    listening, begin = _notify.listening, bundle.begin
    for index in range(bundle.next, len(runs)):
        run, end = runs[index], ends[index]
        stop = (end >> 4) - begin
        kind = end & 15
        if run._result is not None:
            pass
        elif kind in _NOT_RUN:
            run._result = _LEFT if kind == LEFT else _SKIPPED
        elif kind > _ring.OK or run._stop_asked or listening or run._flags & SPECIAL:
            _report(bundle)  # it may need them
            run._take(bundle, index, kind, data[start:stop] if stop > start else b"")
        elif kind == _ring.NONE:
            run._result = _NONE_OK
        else:
            try:
                value = loads(data[start:stop])
            except BaseException as error:
                if _exceptions.is_interrupt(error):  # Ctrl-C; it will be done again
                    raise
                _report(bundle)
                run._broken(error)
            else:
                ok = _new(Ok)
                ok.value = value
                run._result = ok
        told.append(run)
        start = stop
        bundle.next = index + 1
    _report(bundle)


def _report(bundle: Bundle) -> None:
    """Tell the drive which of its runs have ended; again does no harm."""
    runs = bundle.told
    if runs:
        _process.live.difference_update(runs)
        for run in runs:
            if run._attended:
                run._forget()
        if bundle.ends[0] == LEFT:
            bundle.crew[0].left_behind(runs)
        else:
            bundle.crew[0].signal_all(runs, bundle.until - bundle.since)
        runs.clear()
