"""What an executor's worker calls in place of the function itself: initializer first, several items, arguments from a pickle.

These travel to the worker with the call. Nothing here knows the executor or its futures.
"""

from __future__ import annotations

import os
import sys
from _thread import _local

from woflo import _exceptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "Chunk",
    "CoroutineChunk",
    "Initializer",
    "Pickled",
    "PickledCoroutine",
    "Prepared",
    "PreparedCoroutine",
    "UnpicklableCallError",
    "WorkerBrokenError",
]


class WorkerBrokenError(Exception):
    """A worker could not be made ready for a call: its initializer failed, or the call could not be unpickled."""


class UnpicklableCallError(Exception):
    """A call can't be pickled; the reason is the cause."""


class _Here(_local):
    """Per thread: the executors that this worker is ready for, and the process in which that was so."""

    def __init__(self) -> None:
        self.ready: dict[str, int] = {}


_here = _Here()


class Initializer:
    """An executor's initializer: carried out once per worker, that is once per thread of a process.

    Args:
        token: the executor's own.
        fn: the user's function.
        args: its arguments.
        strict: whether a failure is logged here as the standard library does it; in a process of the worker's own it is told
            when that is written (multiprocessing's queues have threads that write).
    """

    __slots__ = ("args", "fn", "home", "strict", "token")

    def __init__(self, token: str, fn: Callable[..., object], args: tuple[Any, ...], *, strict: bool) -> None:
        self.token: str = token
        self.fn: Callable[..., object] = fn
        self.args: tuple[Any, ...] = args
        self.strict: bool = strict
        self.home: int = os.getpid()

    def __call__(self) -> None:
        pid = os.getpid()
        if _here.ready.get(self.token) == pid:  # a forked worker inherits the table, but is not ready by that
            return
        try:
            self.fn(*self.args)
        except BaseException as error:
            if self.strict:
                self._log(pid)
            kind = _exceptions.type_name(type(error))
            raise WorkerBrokenError(f"the initializer failed: {kind}: {_exceptions.safe_str(error)}") from error
        _here.ready[self.token] = pid

    def _log(self, pid: int) -> None:
        from concurrent.futures._base import LOGGER

        LOGGER.critical("An executor's initializer failed", exc_info=True)
        if pid != self.home:
            for name in ("multiprocessing.util", "multiprocess.util"):
                if name in sys.modules:
                    sys.modules[name]._exit_function()


class Prepared:
    """A function, called when its worker has been initialized."""

    __slots__ = ("fn", "initializer")

    def __init__(self, fn: Callable[..., Any], initializer: Initializer) -> None:
        self.fn: Callable[..., Any] = fn
        self.initializer: Initializer = initializer

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self.initializer()
        return self.fn(*args, **kwargs)


class PreparedCoroutine(Prepared):
    """The same for a coroutine function."""

    __slots__ = ()

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        self.initializer()
        return await self.fn(*args, **kwargs)


class Chunk:
    """A function, called for several items in turn; returns the list of its values."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn: Callable[..., Any] = fn

    def __call__(self, items: list[tuple[Any, ...]]) -> Any:
        return [self.fn(*item) for item in items]


class CoroutineChunk(Chunk):
    """The same for a coroutine function."""

    __slots__ = ()

    async def __call__(self, items: list[tuple[Any, ...]]) -> Any:
        return [await self.fn(*item) for item in items]


class Pickled:
    """A call that was pickled where it was submitted, as the standard library's process pool does under every start method.

    Raises:
        UnpicklableCallError: the function or an argument can't be.
    """

    __slots__ = ("data",)

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        from multiprocessing.reduction import ForkingPickler

        try:
            self.data: bytes = bytes(ForkingPickler.dumps((fn, args, kwargs), 5))
        except Exception as error:
            raise UnpicklableCallError from error

    def __call__(self) -> Any:
        fn, args, kwargs = self._load()
        return fn(*args, **kwargs)

    def _load(self) -> Any:
        from pickle import loads

        try:
            return loads(self.data)
        except BaseException as error:
            kind = _exceptions.type_name(type(error))
            raise WorkerBrokenError(f"the call can't be unpickled: {kind}: {_exceptions.safe_str(error)}") from error


class PickledCoroutine(Pickled):
    """The same for a coroutine function."""

    __slots__ = ()

    async def __call__(self) -> Any:
        fn, args, kwargs = self._load()
        return await fn(*args, **kwargs)
