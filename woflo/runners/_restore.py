"""What a task may have left changed in a warm worker, and how the next task gets it as it was.

Looked at after each message, when its results are public: about 10 µs. What can't be put back raises, and the worker is
replaced. Generators of random numbers that a task has used or seeded are seeded anew from the system.
"""

from __future__ import annotations

import _signal
import _thread
import gc
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGNALS = tuple(number for number in range(1, 32) if number not in {9, 19})
_OFF = (0.0, 0.0)
_LIMITS = tuple(
    getattr(resource, name)
    for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_STACK")
)


class Spoilt(Exception):  # noqa: N818 - nobody but the worker's loop sees it
    """Something was changed that can't be put back."""


class State:
    """A worker's state as it is when this is made."""

    def __init__(self) -> None:
        self._folder = os.getcwd()
        self._environment = dict(_environment())
        self._handlers = list(map(_signal.getsignal, _SIGNALS))
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        self._recursion = sys.getrecursionlimit()
        self._streams = sys.stdin, sys.stdout, sys.stderr
        self._path = list(sys.path)
        self._interpreter = _interpreter()
        self._limits = list(map(resource.getrlimit, _LIMITS))
        self._nice = os.nice(0)
        self._stdio = _stdio()
        self._locale = _locale()
        self._random: Any = _random_state()
        self._numpy: Any = _numpy_state()

    def at_a_glance(self) -> bool:
        """Whether streams and recursion limit are as they were: what can be told after each call, 0.1 µs."""
        return (
            sys.stdout is self._streams[1]
            and sys.stderr is self._streams[2]
            and sys.stdin is self._streams[0]
            and sys.getrecursionlimit() == self._recursion
        )

    def restore(self) -> bool:  # noqa: C901, PLR0912 - a list of things, one after the other
        """Put back what was changed; True if anything was, random numbers aside.

        Raises:
            Exception: something can't be put back.
        """
        if any(stream is not None and stream.closed for stream in self._streams) or _stdio() != self._stdio:
            raise Spoilt
        if os.nice(0) != self._nice or list(map(resource.getrlimit, _LIMITS)) != self._limits:
            raise Spoilt
        changed = False
        if not self.at_a_glance():
            changed = True
            sys.stdin, sys.stdout, sys.stderr = self._streams
            sys.setrecursionlimit(self._recursion)
        try:
            moved = os.getcwd() != self._folder
        except OSError:  # the folder that the task went to is gone
            moved = True
        if moved:
            changed = True
            os.chdir(self._folder)
        if _environment() != self._environment:
            changed = True
            for name in set(os.environ) | {os.fsdecode(key) for key in self._environment}:
                old = self._environment.get(os.fsencode(name))
                if old is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = os.fsdecode(old)
        umask = os.umask(self._umask)
        handlers = list(map(_signal.getsignal, _SIGNALS))
        if handlers != self._handlers:
            changed = True
            for number, now, then in zip(_SIGNALS, handlers, self._handlers, strict=True):
                if now != then:
                    _signal.signal(number, then)
        if _signal.pthread_sigmask(_signal.SIG_BLOCK, ()) != self._mask:
            changed = True
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)
        if _signal.getitimer(_signal.ITIMER_REAL) != _OFF:
            changed = True
            _signal.setitimer(_signal.ITIMER_REAL, 0)
        if sys.path != self._path:
            changed = True
            sys.path[:] = self._path
        if _interpreter() != self._interpreter:
            changed = True
            interval, collects, stack = self._interpreter
            sys.setswitchinterval(interval)
            (gc.enable if collects else gc.disable)()
            _thread.stack_size(stack)
        if sys.gettrace() is not None or sys.getprofile() is not None:
            changed = True
            sys.settrace(None)
            sys.setprofile(None)
        return self._restore_locale() or changed or umask != self._umask

    def _restore_locale(self) -> bool:
        """Locale and random numbers, which have modules of their own; True if the locale was changed."""
        changed = False
        if "_locale" in sys.modules and (now := _locale()) != self._locale:
            if self._locale:
                changed = True
                sys.modules["_locale"].setlocale(sys.modules["_locale"].LC_ALL, self._locale)
            else:
                self._locale = now
        if "random" in sys.modules and _random_state() != self._random:
            sys.modules["random"].seed()
            self._random = _random_state()
        if "numpy.random" in sys.modules and _numpy_state() != self._numpy:
            sys.modules["numpy.random"].seed()
            self._numpy = _numpy_state()
        return changed


def _interpreter() -> tuple[float, bool, int]:
    return sys.getswitchinterval(), gc.isenabled(), _thread.stack_size()


def _stdio() -> list[tuple[int, int]]:
    """What the first three descriptors are."""
    found = []
    for fd in (0, 1, 2):
        try:
            status = os.fstat(fd)
        except OSError:
            found.append((0, 0))
        else:
            found.append((status.st_dev, status.st_ino))
    return found


def _environment() -> Any:
    return getattr(os.environ, "_data", os.environ)


def _locale() -> str:
    module = sys.modules.get("_locale")
    return "" if module is None else str(module.setlocale(module.LC_ALL, None))


def _random_state() -> Any:
    module = sys.modules.get("random")
    return None if module is None else module.getstate()


def _numpy_state() -> Any:
    module = sys.modules.get("numpy.random")
    if module is None:
        return None
    state = module.get_state()
    return state[1].tobytes(), state[2:]
