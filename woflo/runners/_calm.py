"""Ctrl-C put off: for as long as tables change that it must not tear, and while a worker is forked.

Python raises KeyboardInterrupt in the main thread, after whatever call comes next: inside of os.fork() that is somebody's fork
hook, where it would be printed and lost, with the hook's work half done. Blocking the signal isn't enough, since the kernel then
gives it to another thread of the process (also to one of a C library), and Python acts on it in the main thread all the same. So
the handler is replaced meanwhile by one that takes note; this costs half of what blocking does. Where a worker is forked, signals
are blocked besides: the child must not act on them before it has reset them.
"""

from __future__ import annotations

import _signal
import os
import sys
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Calm: TypeAlias = tuple[set[Any] | None, list[int], Any]
    """The signal mask as it was (None: nothing was blocked), the signals that have a Python handler, and that of Ctrl-C."""

_SIGINT = _signal.SIGINT
_CTRL_C = (_SIGINT,)
_ALL_SIGNALS = frozenset(range(1, getattr(_signal, "NSIG", 65))) - {32, 33}  # the two that glibc keeps to itself
_CATCHABLE = tuple(number for number in range(1, 32) if number not in {9, 19})  # SIGKILL and SIGSTOP can't be handled
_handlers: list[Any] = []  # of those, as they were when they were last looked at
_signals: list[int] = []  # that had a Python handler then
_main: int | None = None  # the main thread, once it was here
_held: Any = None  # its handler of Ctrl-C, while that is put off
_came = False  # Ctrl-C came meanwhile


def quiet(*, forking: bool = True) -> Calm:
    """Put off Ctrl-C (every signal, if the program has handlers and a worker may be forked) until `loud`.

    A spawned interpreter inherits the mask, so Ctrl-C doesn't reach it while it is importing.
    """
    global _handlers, _signals
    handler = _hold()
    if not forking:
        return None, [], handler
    if os.name == "nt":
        return set(), [], handler
    mask = None
    try:
        if "signal" in sys.modules:
            handlers = [_held if one is _note else one for one in map(_signal.getsignal, _CATCHABLE)]
            if handlers != _handlers:
                _signals = _handled(handlers)
                _handlers = handlers
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL_SIGNALS if _signals else _CTRL_C)
    except BaseException:  # out of another signal's handler
        loud((mask, [], handler))
        raise
    return mask, _signals, handler


def loud(calm: Calm) -> None:
    """Let the signals in again; Ctrl-C that came meanwhile is raised here."""
    global _came
    mask, _, handler = calm
    try:
        if mask is not None and os.name != "nt":
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    finally:  # another signal's handler may have raised
        if handler is not None:
            if _signal.getsignal(_SIGINT) is _note:
                _signal.signal(_SIGINT, handler)
            if _came:
                _came = False
                handler(_SIGINT, sys._getframe())


class Held:
    """A block that Ctrl-C doesn't come into; it is raised at its end."""

    __slots__ = ("_calm",)

    def __enter__(self) -> None:
        self._calm = quiet(forking=False)

    def __exit__(self, *_: object) -> None:
        loud(self._calm)


def forget() -> None:
    """In a forked child: another thread may be its main thread, and nobody puts Ctrl-C off any more."""
    global _came, _main
    if _signal.getsignal(_SIGINT) is _note:
        _signal.signal(_SIGINT, _held)
    _main = None
    _came = False


def _hold() -> Any:
    """Have Ctrl-C noted; its handler, None where there is nothing to be put off: it strikes the main thread only."""
    global _came, _held, _main
    here = get_ident()
    if here != _main and _main is not None:
        return None
    handler = _signal.getsignal(_SIGINT)
    # it has none; whoever called us puts it off; or it raises nothing (an event loop's, which reads of signals from a pipe)
    if not callable(handler) or handler is _note or getattr(handler, "__name__", "") == "_sighandler_noop":
        return None
    _held = handler
    _came = False
    try:
        _signal.signal(_SIGINT, _note)
    except ValueError:  # this isn't the main thread
        return None
    except BaseException:  # out of another signal's handler
        loud((None, [], handler))
        raise
    _main = here
    return handler


def _note(_number: int, _frame: object) -> None:
    global _came
    _came = True


def _handled(handlers: list[Any]) -> list[int]:
    """The signals that have a Python handler, besides Python's own for SIGINT."""
    found = [number for number, handler in zip(_CATCHABLE, handlers, strict=True) if callable(handler)]
    return [] if found == [_SIGINT] and handlers[_CATCHABLE.index(2)] is _signal.default_int_handler else found
