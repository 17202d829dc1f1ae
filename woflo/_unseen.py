"""Failures that nobody asked about: exactly how many, and the first of them by name.

Looked at means: somebody asked the run for its outcome, or one that did not run because of it. The mark is on the failure
itself, so that a program that never asks keeps a hundred names and two numbers, however long it lives.
"""

from __future__ import annotations

from _thread import RLock

from woflo.result import DependencyFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from woflo.result import Failure

_KEPT = 100  # names of each kind; the line at exit shows ten

count = 0  # of both kinds together: what the hot path reads
_lock = RLock()  # held for a few instructions; re-entrant because a signal handler may ask


class _Kind:
    """Of the failed runs, or of those that did not run because of others: how many, and the first names."""

    def __init__(self) -> None:
        self.count = 0
        self.names: dict[str, None] = {}

    def told(self) -> str:
        names = list(self.names)[:10]
        more = self.count - len(names)
        return ", ".join(names) + (f", … ({more} more)" if more else "")


_failed, _not_run = _Kind(), _Kind()


def _kind(failure: Failure) -> _Kind:
    return _not_run if isinstance(failure, DependencyFailure) else _failed


def add(failure: Failure, name: str) -> None:
    """A run of that name has failed; call it before anybody can see the failure."""
    global count
    kind = _kind(failure)
    with _lock:
        vars(failure)["_unseen"] = name
        count += 1
        kind.count += 1
        if len(kind.names) < _KEPT:
            kind.names[name] = None


def seen(failure: Failure | None) -> None:
    """Somebody has looked at it, and with it at the failures that it comes from; a second look does nothing."""
    global count
    todo = [] if failure is None else [failure]
    while todo:
        one = todo.pop()
        kind = _kind(one)
        with _lock:
            name = vars(one).pop("_unseen", None)
            if name is None:  # and so have those that it comes from, or they are counted no more
                continue
            count -= 1
            kind.count -= 1
            kind.names.pop(name, None)
        if isinstance(one, DependencyFailure):
            todo.extend(one.dependencies.values())


def forget() -> None:
    """In a forked child, or when they have been reported: start anew."""
    global count, _lock, _failed, _not_run
    _lock = RLock()  # another thread of the parent may have held it
    count, _failed, _not_run = 0, _Kind(), _Kind()


def report() -> str:
    """What there is to say at the end, in one line: root causes and dependents apart; empty if there is nothing."""
    failed, rest = _failed, _not_run
    parts = []
    if failed.count:
        parts.append(f"{failed.count} failed run{'s' * (failed.count != 1)} that nobody looked at: {failed.told()}")
    if rest.count:
        what = "more" if failed.count else f"run{'s' * (rest.count != 1)} that nobody looked at"
        parts.append(f"{rest.count} {what} did not run because an input failed: {rest.told()}")
    return "; ".join(parts)
