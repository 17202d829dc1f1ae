"""What this process knows of its runs as a whole: which are unfinished, whether it is ending, whether it was forked.

Nothing is registered at import. The first run that leaves its caller registers the fork and exit hooks (`prepare`). In a
forked child everything starts anew: the parent's runs aren't the child's, and the parent's locks may be held by threads
that don't exist here.
"""

from __future__ import annotations

import os
from _thread import RLock
from collections import deque
from contextvars import ContextVar

from woflo import _notify, _unseen
from woflo.runners import _calm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from woflo.runners._supervisor import Supervisor
    from woflo.runners.base import BaseTaskRun

live: set[BaseTaskRun[Any]] = set()  # unfinished runs that were put somewhere; what the exit waits for
chosen: ContextVar[type[BaseTaskRun[Any]] | None] = ContextVar("woflo.runner", default=None)  # by `use(runner)`
waiting_hooks: list[Callable[[bool], None]] = []  # told True before this thread blocks on a run, False after
supervisor: Supervisor | None = None  # once something has needed it (set from there)
mark = object()  # stands for this process: a run with another mark is another process's
# held for a few instructions around each change of a run's outcome, waiters or callbacks; a signal handler may stop a run
state = RLock()
news: deque[Callable[[], None]] = deque()  # to be told as soon as no lock is held
forking = False  # a worker is being forked: the supervisor's lock is held already
prepared = False  # the fork and exit hooks are registered
exiting = False  # the interpreter is ending: its exit hook is at work
closed = False  # the exit hook has done its work: nobody would wait for a further run

_null = -1
_on_fork: list[Callable[[], None]] = []
_kept: list[Any] = []  # the parent's, in a forked child: nothing of it may be destroyed there


def prepare() -> None:
    """Register the fork and exit hooks."""
    global prepared
    prepared = True
    from woflo.runners import _exit

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_start_anew)
    _exit.register()
    _notify.at_first_log.append(_exit.hook_threads)


def ready() -> bool:
    """Whether a run may be started the straight way: the hooks are registered and the program isn't over."""
    return prepared and not closed


def start_thread(work: Callable[..., object], *args: object, name: str) -> None:
    """Start a daemon thread.

    Raises:
        RuntimeError: none is to be had, or the interpreter is ending.
    """
    import threading  # not before somebody wants threads: its fork hooks cost every fork 5 %

    from woflo.runners import _exit

    _exit.hook_threads()
    threading.Thread(target=work, args=args, name=name, daemon=True).start()


def null() -> int:
    """A descriptor of /dev/null, for the stdin of workers."""
    global _null
    if _null < 0:
        _null = os.open(os.devnull, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    return _null


def on_fork(forget: Callable[[], None]) -> None:
    """Have `forget()` called in a forked child, once however often it is registered."""
    if forget not in _on_fork:
        _on_fork.append(forget)


def timers() -> Supervisor:
    """The supervisor, which keeps the time for all runners; made if there is none."""
    if supervisor is not None:
        return supervisor
    from woflo.runners import _supervisor

    return _supervisor.get()


def step_aside() -> None:
    """The user's code is about to run in this thread: if others rely on it, another thread takes its place."""
    if supervisor is not None:
        supervisor.step_aside()


def _start_anew() -> None:
    global live, mark, state
    _calm.forget()
    state = RLock()
    news.clear()
    mark = object()
    _kept.append(live)
    live = set()
    waiting_hooks.clear()
    _unseen.forget()
    _notify.untold.clear()
    _notify.forking = None
    for forget in _on_fork:
        forget()
