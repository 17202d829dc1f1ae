"""A task's results, remembered between sessions: `@task(cache=True)`.

    call ──→ Keeper: key of (code, arguments) ──→ a trace is there: a finished run, nothing starts
                         │ none
                         ↓
             lease of the key: mine → the run starts; at its end the value is kept, then the run ends
                               another run's → this one is pending until it has ended, then looks again
                               another process's → the same, looking from time to time

A value that can't be digested or kept, or a store that fails, never fails a run: it is said once, and the task runs.
Rule: nothing is kept before the run has succeeded, and no run has its outcome before the value is kept.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from time import sleep
from types import FunctionType, MethodType

from blake3 import blake3

from woflo import _exceptions, _lease, _notify, events
from woflo._code import code_of
from woflo._fingerprint import Undigestible, cache_key, digest
from woflo._rebuild import Decision, Facts, Recipe, traces
from woflo._shelf import trace_of, warn_of_loose
from woflo.directory import Directory
from woflo.errors import StoreError, UsageError
from woflo.result import Ok
from woflo.runners import _calm, _pending, _process
from woflo.runners._attempt import current
from woflo.store import Store, Unencodable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from woflo._code import Code
    from woflo.result import Result
    from woflo.runners.base import BaseTaskRun
    from woflo.store import Trace
    from woflo.task import Task

__all__ = ["Memory"]

_FIRST_LOOK, _LAST_LOOK = 0.01, 0.2  # seconds between two looks whether another process is ready
_GONE: Any = object()


class Memory:
    """How a task's results are remembered: what its decorator says.

    Attributes:
        where: True (the default place), a path, a mapping or a Store.
        version: stands for the code, if given.
        ignore: parameters that don't count.
        force: run, whatever is kept, and keep the new value.
    """

    def __init__(
        self, where: Any, version: str | int | None, ignore: Iterable[str], force: bool, fn: Callable[..., Any]
    ) -> None:
        self.where = where
        self.version = None if version is None else str(version)
        self.ignore = tuple(ignore)
        self.force = force
        self._names, self._defaults = _parameters(fn)
        self._prefix: tuple[Code, bytes] | None = None  # of keys, and the code that it stands for
        self._store: Store | None = None
        self._warned: set[str] = set()

    @property
    def store(self) -> Store:
        """The store, opened when the first call needs it.

        Raises:
            StoreError: it can't be used.
            UsageError: that is no store.
        """
        store = self._store
        if store is None:
            store = self._store = Store.of(self.where)
        return store

    # ------------------------------------------------------------------ calling

    def call(
        self,
        task: Task[..., Any, Any],
        runner: type[BaseTaskRun[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: list[BaseTaskRun[Any]],
    ) -> BaseTaskRun[Any]:
        """A run of a call: a finished one if its value is remembered."""
        keeper = Keeper(self, task)
        if not inputs:
            value = keeper.look(args, kwargs)
            if value is not _GONE:
                return _finished(task, runner, value)
            if keeper.key is None:
                return runner.submit(task, args, kwargs, inputs)
        return runner.submit(_variant(task, keeper), args, kwargs, inputs)

    def why(self, task: Task[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Decision:
        """Whether a call would be answered from the store, and why not."""
        keeper = Keeper(self, task)
        if not keeper.identify(args, kwargs):
            return Decision(False, "volatile", keeper.obstacle)
        trace = keeper.trace()
        if trace is not None and self.force:
            return Decision(False, "forced")
        store, key = self.store, keeper.key or ""
        recipe = keeper.recipe()
        if trace is not None:
            there = keeper.value() is not _GONE if trace.small else store.has(trace.outputs["value"])
            return traces(recipe, Facts(trace, there=there, corrupt=store.damaged(trace.outputs["value"])))
        corrupt = store.damaged(key)
        before = store.trace(keeper.same_inputs()) or store.trace(keeper.any_inputs())
        return traces(recipe, Facts(None, before, corrupt=corrupt))

    def forget(self, task: Task[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Remove what is remembered of a call; whether there was anything."""
        keeper = Keeper(self, task)
        if not keeper.identify(args, kwargs):
            return False
        known = keeper.trace() is not None
        if known:
            self.store.forget(keeper.key or "")
        return known

    # ------------------------------------------------------------------ the call's identity

    def bind(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Parameter → argument, defaults included, without those that are ignored; a method's object is one of them.

        Raises:
            TypeError: the function can't be called so.
        """
        if isinstance(fn, MethodType):
            args = (fn.__self__, *args)
            fn = fn.__func__
        names, defaults = self._names, self._defaults
        if names is not None and not kwargs and len(args) + len(defaults) >= len(names) >= len(args):
            missing = len(names) - len(args)
            values = (*args, *defaults[len(defaults) - missing :]) if missing else args
            bound = dict(zip(names, values, strict=True))
        else:
            import inspect

            arguments = inspect.signature(fn).bind(*args, **kwargs)
            arguments.apply_defaults()
            bound = dict(arguments.arguments)
        for name in self.ignore:
            bound.pop(name, None)
        return bound

    def prefix(self, name: str, code: Code, parameters: Iterable[str]) -> bytes:
        """What the keys of a task's calls have in common: its code, and which parameters count."""
        known = self._prefix  # read once: other threads call too
        if known is None or known[0] is not code:
            known = self._prefix = code, bytes.fromhex(cache_key("task", name, code.digest, *parameters))
        return known[1]

    def warn(self, kind: str, text: str) -> None:
        """Say once what keeps results from being remembered."""
        if kind not in self._warned:
            self._warned.add(kind)
            events.warn(text)


def _parameters(fn: Callable[..., Any]) -> tuple[tuple[str, ...] | None, tuple[Any, ...]]:
    """The names of a plain function's parameters and the last ones' defaults; None if they are not so simple."""
    if isinstance(fn, MethodType):
        fn = fn.__func__
    if type(fn) is not FunctionType or fn.__kwdefaults__ or hasattr(fn, "__wrapped__"):
        return None, ()
    code = fn.__code__
    if code.co_flags & 0x0C or code.co_kwonlyargcount:  # *args, **kwargs: inspect.CO_VARARGS, CO_VARKEYWORDS
        return None, ()
    return code.co_varnames[: code.co_argcount], fn.__defaults__ or ()


class Keeper:
    """One call of a task that remembers: knows its key, and keeps its value."""

    __slots__ = ("_bound", "_code", "_lease", "_looks", "_outer", "_taken", "key", "memory", "obstacle", "task")

    def __init__(self, memory: Memory, task: Task[..., Any, Any]) -> None:
        self.memory = memory
        self.task = task
        self.key: str | None = None  # None: not known yet, or it can't be told
        self.obstacle = ""  # why it can't be told
        self._bound: dict[str, Any] = {}
        self._code: Code | None = None
        self._lease: _lease.Lease | None = None
        self._looks = 0  # in vain
        self._taken = False  # whether the run's end has been dealt with
        inside = current.get()  # known in a forked worker too
        self._outer: Keeper | None = None if inside is None else inside.task.keeper  # of the call around this one

    def identify(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Find the key; False, with the obstacle said once, if there can be none."""
        memory, task = self.memory, self.task
        try:
            self._bound = bound = memory.bind(task.fn, args, kwargs)
            values = digest(tuple(bound.values()))
            self._code = code = self._code_now()
            if code.loose:
                warn_of_loose(task.name, code)
        except Undigestible as error:
            self.obstacle = f"{error}"
            memory.warn("argument", f"{task.name} is not remembered for such a call, and runs: {error}")
            return False
        except TypeError as error:  # the call itself is wrong: the run will say so, with its traceback
            self.obstacle = _exceptions.safe_str(error)
            return False
        self.key = blake3(memory.prefix(task.name, code, bound) + values).hexdigest()
        return True

    def _code_now(self) -> Code:
        fn: Any = self.task.fn
        return code_of(fn.__func__ if isinstance(fn, MethodType) else fn, version=self.memory.version)

    def look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value, if it is remembered, else `_GONE`."""
        if not self.identify(args, kwargs) or self.memory.force:
            return _GONE
        return self.value()

    def trace(self) -> Trace | None:
        return self.memory.store.trace(self.key or "")

    def value(self) -> Any:
        """What the store has under this key, or `_GONE`."""
        trace = self.trace()
        if trace is None:
            return _GONE
        store, small = self.memory.store, trace.small
        try:
            if small is not None:
                return store.value_of(small["value"])
            return store.get(trace.outputs["value"])
        except KeyError:  # removed, damaged, or it can't be rebuilt here: the store has said so
            return _GONE

    def recipe(self) -> Recipe:
        code = self._code
        assert code is not None  # noqa: S101 - it is asked for where there is a key
        inputs = {name: digest(value).hex() for name, value in self._bound.items()}
        return Recipe(self.key or "", code.digest, code.parts, {}, inputs)

    def same_inputs(self) -> str:
        """Where the last making with these arguments is remembered: it tells that the code has changed."""
        return cache_key("last", self.task.name, digest(tuple(self._bound.values())))

    def any_inputs(self) -> str:
        """Where the task's last making is remembered: it tells which argument is another one."""
        return cache_key("last", self.task.name)

    # ------------------------------------------------------------------ the run

    def admit(self, run: BaseTaskRun[Any]) -> bool:
        """Before the run's first attempt: whether it is to begin. If not it has ended, or will begin later.

        Whatever is raised here, the caller gives back (`give`) what was taken.

        Raises:
            UsageError: it would wait for itself.
        """
        if self.key is None and not self.identify(run.args, run.kwargs):
            return True
        while True:
            try:
                place, mapping = self._place(), self.memory.store.mapping
                with _calm.Held():  # one that nobody knows would be held for ever
                    lease = _lease.take(place, mapping, self.key or "", run)
                    if lease is not None and lease.run is run:
                        self._lease = lease
            except (OSError, StoreError) as error:
                self._warn_store(error)
                return True
            if lease is not None and lease.run is run:
                return self._begin(run)
            if self._is_inside(lease, run):
                raise UsageError(f"{self.task.name} calls itself with the same arguments, and would wait for itself")
            if not run._in_place:
                self._begin_later(run, lease)
                return False
            if lease is None or lease.run._result is not None:  # if it has a result it is about to give the lease back
                sleep(self._pause())
            else:
                lease.run.wait(self._pause())

    def _begin(self, run: BaseTaskRun[Any]) -> bool:
        """With the lease: somebody may have been ready just before."""
        value = _GONE if self.memory.force else self.value()
        if value is _GONE:
            return True
        self._taken = True
        self.give()
        run._settle(Ok(value))
        return False

    def _begin_later(self, run: BaseTaskRun[Any], lease: _lease.Lease | None) -> None:
        """Another one is computing the value: look again when it has ended, or after a moment if it isn't ours to see."""
        if not self._looks:
            run._prepare_pending()
            run._mark_pending()
        if lease is not None and lease.run._result is None:
            self._looks += 1
            lease.run._before(_pending.Start(run))
        else:
            _process.timers().call_later(self._pause(), _pending.Start(run))
            run._attend()

    def _pause(self) -> float:
        """Seconds until the next look: longer each time."""
        self._looks += 1
        return float(min(_FIRST_LOOK * 1.5 ** (self._looks - 1), _LAST_LOOK)) if self._looks < 10 else _LAST_LOOK

    def _is_inside(self, lease: _lease.Lease | None, run: BaseTaskRun[Any]) -> bool:
        """Whether the value is being computed by a call that this one is made in: here, or in a process above."""
        outer = self._outer
        while outer is not None:
            if not outer._taken and outer.key == self.key and outer._place_or_mapping() == self._place_or_mapping():
                return True
            outer = outer._outer
        if lease is None or lease.run._result is not None:
            return False
        return run._in_place and lease.run._in_place and lease.thread == get_ident()

    def _place_or_mapping(self) -> Any:
        mapping = self.memory.store.mapping
        return mapping.path if isinstance(mapping, Directory) else id(mapping)

    def _place(self) -> str | None:
        where = self.memory.store.mapping
        return where.lock_path() if isinstance(where, Directory) else None

    def holds(self, run: BaseTaskRun[Any], result: Result[Any]) -> bool:
        """At the run's end, before its outcome can be seen: keep the value; True if that ends the run later, elsewhere.

        On an event loop's thread another thread writes.
        """
        if self._taken:
            return False
        try:
            self._taken = True
            return self._holds(run, result)
        except BaseException:  # Ctrl-C: it is not kept
            self.give()
            raise

    def _holds(self, run: BaseTaskRun[Any], result: Result[Any]) -> bool:
        if not result:
            self.give()
            return False
        asyncio = sys.modules.get("asyncio")
        running = getattr(asyncio, "_get_running_loop", None)  # none yet while another thread imports it
        if running is None or running() is None or run._in_place:
            self._keep(run, result)
            return False

        def keep() -> None:
            self._keep(run, result)
            run._settle(result)

        try:
            _process.start_thread(keep, name="woflo-keep")
        except (RuntimeError, OSError):  # no thread is to be had: here, then
            self._keep(run, result)
            return False
        return True

    def _keep(self, run: BaseTaskRun[Any], result: Result[Any]) -> None:
        """Write the value, then give the lease back; nothing that goes wrong reaches the run."""
        _process.step_aside()
        try:
            self._write(run, result)
        except Exception as error:
            self._warn_store(error)
        finally:
            self.give()

    def _write(self, run: BaseTaskRun[Any], result: Any) -> None:
        value, store, code = result.value, self.memory.store, self._code
        # It may have begun long after its call, or read a global while another thread changed it.
        if code is None or self._code_now().digest != code.digest:
            self.memory.warn(
                "code",
                f"a result of {self.task.name} is not remembered: its code, or a global of it, changed meanwhile",
            )
            return
        try:
            content, small = store.keep(value)
        except Unencodable as error:
            self.memory.warn("value", f"{self.task.name} is not remembered, and runs each time: {error}")
            return
        trace = trace_of(
            self.task.name,
            self.recipe(),
            {"value": content},
            kept=True,
            seconds=run.seconds,
            small=None if small is None else {"value": small},
        )
        store.record(self.key or "", trace)
        store.record(self.same_inputs(), trace, durable=False)
        store.record(self.any_inputs(), trace, durable=False)

    def _warn_store(self, error: BaseException) -> None:
        kind = _exceptions.type_name(type(error))
        self.memory.warn("store", f"{self.task.name} is not remembered: {kind}: {_exceptions.safe_str(error)}")

    def give(self) -> None:
        """Nobody has to wait for this call any more."""
        with _calm.Held():
            lease, self._lease = self._lease, None
            self._bound, self._outer = {}, None  # a kept run must not keep what it was called with
            if lease is not None:
                lease.give()


def _finished(task: Task[..., Any, Any], runner: type[BaseTaskRun[Any]], value: Any) -> BaseTaskRun[Any]:
    """A run that has ended already, and belongs to nobody."""
    run = runner(task, None, None, next(task.numbers), None)  # type: ignore[arg-type]
    run._result = Ok(value)
    if _notify.listening:
        _notify.reused(run, "up to date")
    return run


def _variant(task: Task[..., Any, Any], keeper: Keeper) -> Task[..., Any, Any]:
    """The task for this one call, on whose end the keeper waits."""
    other = type(task).__new__(type(task))
    vars(other).update(vars(task))
    vars(other).update(keeper=keeper, simple=False)
    return other
