"""What woflo promises of every runner, as tests that anybody's runner can run.

Subclass ``RunnerContract`` in one line and let pytest collect it::

    class TestMine(RunnerContract):
        runner = MyTaskRun

Rules: nothing here looks inside a runner; a promise is checked through the public
names only, from the side of a user. Nothing waits for an amount of time to pass: a task
tells where it is by a `Flag` (a directory, so that it works from any process), and every wait
ends after `PATIENCE` seconds at the latest. pytest isn't imported here; a promise that
doesn't concern a runner is skipped through ``unittest.SkipTest``, which pytest knows.
"""
# ruff: noqa: S101 - a contract is made of asserts, and expected values stand where they are compared
# ruff: noqa: ASYNC110 - a flag is a path that travels to workers, and is looked at

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import time
import traceback
import unittest
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import woflo
from woflo.events import RunEnded, RunProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from woflo import BaseTaskRun, Task

__all__ = ["PATIENCE", "Flag", "Ledger", "RunnerContract"]

PATIENCE = 30.0
"""Seconds after which anything awaited in a test counts as hung; a hundred times the normal."""

_STEP = 0.002  # seconds between two looks at a flag: short against a process, long against a look

_E = TypeVar("_E", bound=BaseException)


class Flag:
    """A flag that any process of this machine can set and wait for.

    It is a directory, so it reaches a worker by every way of starting one, can be pickled, and is set
    in one step: a task that is stopped in the middle of it leaves nothing open.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """``path`` names a directory that doesn't exist yet, in one that does."""
        self.path: str = os.fspath(path)

    def __repr__(self) -> str:
        """The flag's name and whether it is set."""
        return f"<Flag {os.path.basename(self.path)} {'set' if self.is_set() else 'not set'}>"

    def set(self) -> None:
        """Set the flag; a second time changes nothing."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path)

    def is_set(self) -> bool:
        """Whether somebody has set the flag."""
        return os.path.exists(self.path)

    def wait(self, timeout: float = PATIENCE) -> None:
        """Return as soon as the flag is set; ``TimeoutError`` after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not self.is_set():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody set the flag {self.path} within {timeout:g} s")
            time.sleep(_STEP)


class Ledger:
    """Lines that any process of this machine can add to, one write each, none lost or torn."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """``path`` names the file that keeps the lines; it may be missing."""
        self.path: str = os.fspath(path)

    def add(self, line: str) -> None:
        """Add one line."""
        file = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)

    def lines(self) -> list[str]:
        """All lines so far, in the order in which they were added."""
        try:
            with open(self.path, encoding="utf-8") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []


# The bodies of the tasks. They are functions of this module, so that a worker which
# receives a task by name finds them. Where a body waits, it has a coroutine twin for runners
# whose tasks live on an event loop and must not block it.


def _give(value: object = None) -> object:
    return value


async def _agive(value: object = None) -> object:
    await asyncio.sleep(0)
    return value


def _collect(*args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    return args, kwargs


def _fail(message: str) -> NoReturn:
    error = ValueError(message)
    error.add_note("see the manual")
    raise error


def _raise(kind: type[BaseException], *args: object) -> NoReturn:
    raise kind(*args)


def _lock() -> object:
    return threading.Lock()


class _AwkwardError(Exception):
    """Takes two arguments and tells its base class of one: plain pickle can't rebuild it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class _LockedError(Exception):
    """Carries an attribute that no pickler accepts."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class _RootError(BaseException):
    """Somebody's own BaseException."""


def _hold(started: Flag, release: Flag, ended: Flag | None = None) -> str:
    """Block, in Python code, until ``release`` is set; ``ended`` is set on the way out."""
    try:
        started.set()
        deadline = time.monotonic() + PATIENCE
        while not release.is_set():
            if time.monotonic() > deadline:
                raise AssertionError("nobody released this task")
            time.sleep(_STEP)
        return "released"
    finally:
        if ended is not None:
            ended.set()


async def _ahold(started: Flag, release: Flag, ended: Flag | None = None) -> str:
    try:
        started.set()
        deadline = time.monotonic() + PATIENCE
        while not release.is_set():
            if time.monotonic() > deadline:
                raise AssertionError("nobody released this task")
            await asyncio.sleep(_STEP)
        return "released"
    finally:
        if ended is not None:
            ended.set()


def _report(started: Flag, release: Flag) -> None:
    """Say how far it is before and after `release` is set."""
    woflo.progress(1, 2, "half of it")
    _hold(started, release)
    woflo.progress(2, 2, "all of it")


async def _areport(started: Flag, release: Flag) -> None:
    woflo.progress(1, 2, "half of it")
    await _ahold(started, release)
    woflo.progress(2, 2, "all of it")


def _stubborn(started: Flag, go: Flag) -> None:
    """Refuse to end when told to."""
    deadline = time.monotonic() + PATIENCE
    while not go.is_set() and time.monotonic() < deadline:
        try:
            started.set()
            time.sleep(_STEP)
        except woflo.TaskStopped:
            continue


def _block(started: threading.Event, release: threading.Event) -> None:
    """Wait inside C code of the interpreter, where no exception can be raised from outside."""
    started.set()
    release.wait(PATIENCE)


def _farewell(started: Flag, release: Flag) -> str:
    """Return a value in spite of being stopped."""
    try:
        return _hold(started, release)
    except woflo.TaskStopped:
        return "farewell"


async def _afarewell(started: Flag, release: Flag) -> str:
    try:
        return await _ahold(started, release)
    except (asyncio.CancelledError, woflo.TaskStopped):
        return "farewell"


def _clumsy(ledger: Ledger, started: Flag, release: Flag) -> str:
    """Fail while leaving because of a stop."""
    ledger.add("attempt")
    try:
        return _hold(started, release)
    except woflo.TaskStopped:
        raise OSError("the clean-up failed") from None


async def _aclumsy(ledger: Ledger, started: Flag, release: Flag) -> str:
    ledger.add("attempt")
    try:
        return await _ahold(started, release)
    except (asyncio.CancelledError, woflo.TaskStopped):
        raise OSError("the clean-up failed") from None


def _polite(started: Flag, asked: Flag) -> None:
    """Leave when asked to, by whichever way the question comes."""
    deadline = time.monotonic() + PATIENCE
    try:
        started.set()
        while not woflo.stop_requested() and time.monotonic() < deadline:
            time.sleep(_STEP)
    finally:
        if woflo.stop_requested():
            asked.set()


async def _apolite(started: Flag, asked: Flag) -> None:
    deadline = time.monotonic() + PATIENCE
    try:
        started.set()
        while not woflo.stop_requested() and time.monotonic() < deadline:
            await asyncio.sleep(_STEP)
    finally:
        if woflo.stop_requested():
            asked.set()


def _flaky(ledger: Ledger, failures: int, kind: type[BaseException] = ConnectionError) -> int:
    """Fail ``failures`` times, then return the attempt's number; note number and clock of each."""
    run = woflo.current_run()
    assert run is not None
    ledger.add(f"{run.attempt} {time.monotonic()!r}")
    if run.attempt <= failures:
        raise kind(f"attempt {run.attempt}")
    return run.attempt


def _linger(ledger: Ledger, slow_attempts: int, seconds: float) -> str:
    """Take too long in the first attempts; leaves at once when asked to."""
    run = woflo.current_run()
    assert run is not None
    ledger.add(str(run.attempt))
    if run.attempt <= slow_attempts:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not woflo.stop_requested():
            time.sleep(_STEP)
    return f"attempt {run.attempt}"


async def _alinger(ledger: Ledger, slow_attempts: int, seconds: float) -> str:
    run = woflo.current_run()
    assert run is not None
    ledger.add(str(run.attempt))
    if run.attempt <= slow_attempts:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not woflo.stop_requested():
            await asyncio.sleep(_STEP)
    return f"attempt {run.attempt}"


def _identify() -> tuple[str, str, int, int]:
    run = woflo.current_run()
    assert run is not None
    return run.name, run.task.name, run.attempt, os.getpid()


def _mark(flag: Flag, *_inputs: object) -> None:
    flag.set()


def _note(ledger: Ledger, line: str, *_inputs: object) -> str:
    ledger.add(line)
    return line


def _nested(runner: type[BaseTaskRun[Any]] | None, number: int) -> int:
    """Start a run for each smaller number and wait for all of them."""
    inner: Task[..., Any] = woflo.task(runner=runner)(_give)
    runs = [inner(n) for n in range(number)]
    return sum(run.get_result() for run in runs)


async def _anested(runner: type[BaseTaskRun[Any]] | None, number: int) -> int:
    inner: Task[..., Any] = woflo.task(runner=runner)(_agive)
    runs = [inner(n) for n in range(number)]
    return sum([await run for run in runs])


_variable: contextvars.ContextVar[str] = contextvars.ContextVar("_variable", default="unset")


def _read_variable() -> str:
    seen = _variable.get()
    _variable.set("changed by the task")
    return seen


async def _aread_variable() -> str:
    return _read_variable()


class _Account:
    def __init__(self, balance: int) -> None:
        self.balance = balance

    def plus(self, amount: int) -> int:
        return self.balance + amount

    def __call__(self, amount: int) -> int:
        return self.balance - amount


@dataclass
class _Order:
    item: object
    extras: list[object] = field(default_factory=list)


def _unpack(order: _Order) -> tuple[object, list[object]]:
    return order.item, order.extras


def _caught(kind: type[_E], call: Callable[..., object], *args: object, **kwargs: object) -> _E:
    """The exception of type ``kind`` that the call raises; without one the test fails."""
    try:
        value = call(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised; the call returned {value!r}")


def _functions(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} didn't come true within {PATIENCE:g} s")
        time.sleep(_STEP)


def _in_loop(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def limited() -> object:
        return await asyncio.wait_for(main(), PATIENCE)

    return asyncio.run(limited())


def _reports_of(run: BaseTaskRun[Any], events: list[Any]) -> list[tuple[float, float | None, str]]:
    return [
        (event.done, event.total, event.message)
        for event in events
        if isinstance(event, RunProgress) and event.run == run.name
    ]


def _is_end_of(run: BaseTaskRun[Any], event: object) -> bool:
    return isinstance(event, RunEnded) and event.run == run.name


class RunnerContract:
    """The promises of a runner; subclass it, name the runner, and pytest runs them all.

    The other class attributes say what the runner can't do or does differently. A promise that
    they rule out is skipped; no attribute switches off a promise that every runner can keep.
    """

    runner: ClassVar[type[BaseTaskRun[Any]]]
    """The runner under test."""

    in_process: ClassVar[bool] = True
    """The task runs in the caller's process: it shares its objects and its context."""

    runs_apart: ClassVar[bool] = True
    """The call returns before the task has ended. False only for a runner that runs it in place."""

    interrupts: ClassVar[bool] = True
    """``stop()`` raises something in a running task. If False, a task learns of it by asking."""

    can_kill: ClassVar[bool] = False
    """``stop()`` ends a task that refuses to end."""

    coroutines: ClassVar[bool] = False
    """Tasks live on an event loop: the bodies that wait are coroutine functions."""

    reports: ClassVar[bool] = True
    """What a task says by ``woflo.progress`` reaches its run. False if it runs where only its result comes back from."""

    many: ClassVar[int] = 100
    """How many runs at once are many; fewer where starting one takes long."""

    start_seconds: ClassVar[float] = 0.5
    """Longer than a quick task takes from its start to its end, also on a busy machine."""

    # What the promises are written with.

    def make(self, fn: Callable[..., Any], **options: Any) -> Task[..., Any]:
        """``fn`` as a task on the runner under test."""
        return woflo.task(runner=self.runner, **options)(fn)

    def either(self, plain: Callable[..., Any], coroutine: Callable[..., Any]) -> Callable[..., Any]:
        """The twin that fits the runner under test."""
        return coroutine if self.coroutines else plain

    def needs(self, able: bool, reason: str) -> None:
        """Skip the promise unless the runner is able to keep it."""
        if not able:
            raise unittest.SkipTest(f"{self.runner.__name__} {reason}")

    def held(self, directory: Path, **options: Any) -> tuple[BaseTaskRun[Any], Flag]:
        """A run that is inside its task, and the flag that lets it go on."""
        self.needs(self.runs_apart, "returns when the task has ended")
        started, release = Flag(directory / "started"), Flag(directory / "release")
        run = self.make(self.either(_hold, _ahold), **options)(started, release)
        started.wait()
        return run, release

    # Values.

    def test_a_value_arrives(self) -> None:
        """What the task returns is what get_result, outcome, exception and state tell of."""
        run = self.make(_give)({"rows": [1, 2]})
        assert run.get_result(timeout=PATIENCE) == {"rows": [1, 2]}
        assert run.outcome() == woflo.Ok({"rows": [1, 2]})
        assert run.exception() is None
        assert run.state == "succeeded"
        assert not run.is_running()

    def test_none_is_a_value(self) -> None:
        """A task that returns None succeeded: the outcome is Ok(None)."""
        run = self.make(_give)(None)
        assert run.get_result(timeout=PATIENCE) is None
        assert run.outcome() == woflo.Ok(None)
        assert run.state == "succeeded"

    def test_falsy_values_are_successes(self) -> None:
        """A result that is false is still a success, and a success is true."""
        give = self.make(_give)
        falsy: tuple[object, ...] = (0, "", [], False, 0.0, {})
        for value in falsy:
            run = give(value)
            assert run.get_result(timeout=PATIENCE) == value
            assert run.outcome(), f"Ok({value!r}) must be true"

    def test_all_kinds_of_arguments(self) -> None:
        """Any arguments reach the task, also keywords that are named like woflo's own."""
        kwargs = {"self": 1, "fn": 2, "name": 3, "runner": 4, "timeout": 5, "args": 6, "call": 7}
        run = self.make(_collect)(1, "two", **kwargs)
        assert run.get_result(timeout=PATIENCE) == ((1, "two"), kwargs)

    def test_methods_and_callable_objects(self) -> None:
        """A bound method and an object with __call__ can be tasks."""
        account = _Account(5)
        assert self.make(account.plus)(2).get_result(timeout=PATIENCE) == 7
        assert self.make(account, name="minus")(2).get_result(timeout=PATIENCE) == 3

    def test_a_coroutine_function(self) -> None:
        """A coroutine function's value is what it returns, not a coroutine."""
        assert self.make(_agive)(8).get_result(timeout=PATIENCE) == 8

    def test_large_values(self) -> None:
        """A result larger than any pipe's buffer arrives whole."""
        give = self.make(_give)
        for size in (66_000, 5_000_000):
            assert give(b"x" * size).get_result(timeout=PATIENCE) == b"x" * size

    def test_ask_twice_same_answer(self) -> None:
        """The result is kept: asking again gives the same object, not a copy and not None."""
        run = self.make(_give)([1, 2])
        first = run.get_result(timeout=PATIENCE)
        assert run.get_result() is first
        assert run.outcome() is run.outcome()

    def test_a_value_that_cannot_travel(self) -> None:
        """A result that can't be pickled arrives as itself, or the run fails and says its type."""
        run = self.make(_lock)()
        outcome = run.outcome()
        if self.in_process:
            assert isinstance(run.get_result(), type(threading.Lock()))
        else:
            assert isinstance(outcome, woflo.Failure)
            assert "lock" in str(outcome)
            assert run.state == "failed"

    def test_a_returned_exception_is_a_value(self) -> None:
        """An exception that was returned is a success, one that was raised isn't."""
        returned, raised = self.make(_give)(ValueError("same")), self.make(_raise)(ValueError, "same")
        assert isinstance(returned.get_result(timeout=PATIENCE), ValueError)
        assert isinstance(returned.outcome(), woflo.Ok)
        assert returned.exception() is None
        assert isinstance(raised.get_result(timeout=PATIENCE, raise_exceptions=False), ValueError)
        assert isinstance(raised.outcome(), woflo.TaskFailure)

    # Errors.

    def test_an_exception_arrives(self) -> None:
        """get_result raises the user's exception with its frames, its notes and one from woflo."""
        run = self.make(_fail, name="breaks")("broken")
        error = _caught(ValueError, run.get_result, timeout=PATIENCE)
        assert error.args == ("broken",)
        assert _functions(error)[-1] == "_fail"
        notes = error.__notes__
        assert "see the manual" in notes
        (ours,) = (note for note in notes if note.startswith("woflo:"))
        assert "task 'breaks'" in ours
        assert run.name in ours
        assert run.state == "failed"

    def test_a_failure_is_a_value(self) -> None:
        """outcome, exception and raise_exceptions=False tell of a failure without raising it."""
        run = self.make(_fail, name="breaks")("broken")
        outcome = run.outcome()
        assert isinstance(outcome, woflo.TaskFailure)
        assert not outcome
        assert outcome.task == "breaks"
        assert outcome.run == run.name
        assert outcome.attempt == 1
        assert "broken" in str(outcome)
        assert "_fail" in outcome.traceback
        assert isinstance(outcome.__cause__, ValueError)
        assert isinstance(run.exception(), ValueError)
        assert isinstance(run.get_result(raise_exceptions=False), ValueError)

    def test_asking_for_a_failure_leaves_no_marks(self) -> None:
        """However often it is raised, an exception gains neither frames nor notes."""
        run = self.make(_fail)("broken")
        seen = []
        for _ in range(3):
            error = _caught(ValueError, run.get_result, timeout=PATIENCE)
            seen.append((_functions(error), list(error.__notes__)))
        assert seen[0] == seen[1] == seen[2]

    def test_a_task_may_fail_on_purpose(self) -> None:
        """A TaskFailure that the task raises is the run's failure, message and all."""
        outcome = self.make(_raise)(woflo.TaskFailure, "no data today").outcome()
        assert isinstance(outcome, woflo.TaskFailure)
        assert "no data today" in str(outcome)

    def test_an_awkward_exception_arrives(self) -> None:
        """An exception that plain pickle can't rebuild arrives with its type's name and message."""
        error = self.make(_raise)(_AwkwardError, 7, "too late").exception()
        assert error is not None
        assert "_AwkwardError" in f"{type(error).__name__} {error!r} {error}"
        assert "7: too late" in str(error)

    def test_an_exception_that_cannot_travel(self) -> None:
        """An exception with an attribute that can't be pickled still arrives, named."""
        error = self.make(_raise)(_LockedError, "stuck").exception()
        assert error is not None
        assert "_LockedError" in f"{type(error).__name__} {error!r} {error}"
        assert "stuck" in str(error)

    def test_exits_do_not_leave_the_task(self) -> None:
        """SystemExit and its like fail the run and stop there; they are not raised at the caller."""
        kinds = [SystemExit, GeneratorExit, StopIteration, asyncio.CancelledError, _RootError]
        if self.runs_apart:  # in place, an interrupt is the user's own
            kinds.append(KeyboardInterrupt)
        run_kind = self.make(_raise)
        for kind in kinds:
            run = run_kind(kind, 3)
            error = _caught(woflo.TaskFailure, run.get_result, timeout=PATIENCE)
            assert isinstance(error.__cause__, kind), f"{kind.__name__} became {error.__cause__!r}"
        assert self.make(_give)("next").get_result(timeout=PATIENCE) == "next"

    # Waiting.

    def test_wait_gives_up_and_leaves_the_run_alone(self, tmp_path: Path) -> None:
        """wait(timeout) answers False while the run goes on, and True once it has ended."""
        run, release = self.held(tmp_path)
        assert run.wait(timeout=0.02) is False
        assert run.wait(timeout=0) is False
        assert run.is_running()
        release.set()
        assert run.wait(timeout=PATIENCE) is True
        assert run.wait() is True
        assert run.get_result() == "released"

    def test_a_wait_that_runs_out_is_no_failure(self, tmp_path: Path) -> None:
        """get_result(timeout) raises WaitTimeout, a TimeoutError; the run can still succeed."""
        run, release = self.held(tmp_path)
        error = _caught(woflo.WaitTimeout, run.get_result, timeout=0.02)
        assert isinstance(error, TimeoutError)
        assert not isinstance(error, woflo.Failure)
        assert run.name in str(error)
        release.set()
        assert run.get_result(timeout=PATIENCE) == "released"

    def test_running_until_the_outcome_exists(self, tmp_path: Path) -> None:
        """is_running and state change when the outcome exists, not before."""
        run, release = self.held(tmp_path)
        assert (run.is_running(), run.state) == (True, "running")
        release.set()
        _until(lambda: not run.is_running(), "the end of the run")
        assert run.state == "succeeded"
        assert run.wait(timeout=0) is True

    def test_the_repr_tells_where_it_is(self, tmp_path: Path) -> None:
        """The repr names the run, its state, and which attempt of how many it is in."""
        run, release = self.held(tmp_path, retries=2)
        text = repr(run)
        assert text.startswith("<")
        assert run.name in text
        assert "running" in text
        assert "attempt 1 of 3" in text
        release.set()
        run.wait(timeout=PATIENCE)
        assert "succeeded" in repr(run)

    def test_many_threads_may_ask_one_run(self, tmp_path: Path) -> None:
        """Any number of threads may wait for one run; each gets the answer."""
        run, release = self.held(tmp_path)
        answers: list[object] = []
        threads = [threading.Thread(target=lambda: answers.append(run.get_result(timeout=PATIENCE))) for _ in range(4)]
        for thread in threads:
            thread.start()
        release.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == ["released"] * 4

    def test_callbacks(self, tmp_path: Path) -> None:
        """A callback is called once with the ended run, whether added before or after the end."""
        run, release = self.held(tmp_path)
        seen: list[tuple[str, object, bool]] = []
        run.add_done_callback(lambda r: seen.append(("early", r, r.is_running())))
        assert seen == []
        release.set()
        _until(lambda: bool(seen), "the callback")  # nobody waits for the run
        assert run.wait(timeout=PATIENCE)
        run.add_done_callback(lambda r: seen.append(("late", r, r.is_running())))
        _until(lambda: len(seen) > 1, "the late callback")
        assert seen == [("early", run, False), ("late", run, False)]

    def test_a_callback_on_an_ended_run(self) -> None:
        """A callback that is added to an ended run is called too."""
        run = self.make(_give)(5)
        assert run.wait(timeout=PATIENCE)
        seen: list[object] = []
        run.add_done_callback(lambda r: seen.append(r.get_result()))
        _until(lambda: bool(seen), "the callback")
        assert seen == [5]

    def test_a_callback_that_raises_hurts_nobody(self, tmp_path: Path) -> None:
        """What a callback raises reaches neither the run nor the other callbacks."""
        run, release = self.held(tmp_path)
        seen: list[object] = []

        def bad(_run: object) -> None:
            raise RuntimeError("a bad callback")

        run.add_done_callback(bad)
        run.add_done_callback(seen.append)
        release.set()
        assert run.get_result(timeout=PATIENCE) == "released"
        _until(lambda: bool(seen), "the second callback")
        run.add_done_callback(bad)
        assert run.get_result() == "released"

    def test_await(self) -> None:
        """Awaiting a run gives its value or raises its exception, made in or outside the loop."""
        before = self.make(_give)(1)

        async def main() -> list[object]:
            inside, broken = self.make(_agive)(2), self.make(_fail)("broken")
            values = [await before, await inside, await before]
            try:
                await broken
            except ValueError as error:
                values.append(error.args)
            return values

        assert _in_loop(main) == [1, 2, 1, ("broken",)]

    def test_many_awaiters(self, tmp_path: Path) -> None:
        """Many coroutines may await one run."""
        run, release = self.held(tmp_path)

        async def main() -> list[object]:
            async def ask() -> object:
                return await run

            asking = [asyncio.ensure_future(ask()) for _ in range(10)]
            await asyncio.sleep(0)
            release.set()
            return await asyncio.gather(*asking)

        assert _in_loop(main) == ["released"] * 10

    def test_a_cancelled_waiter_leaves_the_run_alone(self, tmp_path: Path) -> None:
        """Cancelling what awaits a run doesn't end the run."""
        run, release = self.held(tmp_path)

        async def main() -> object:
            async def ask() -> object:
                return await run

            asking = asyncio.ensure_future(ask())
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            assert run.is_running()
            release.set()
            return await run

        assert _in_loop(main) == "released"

    def test_gather(self) -> None:
        """`gather` gives the values in the order of the runs, or raises the first failure."""
        give, fail = self.make(_give), self.make(_fail)
        assert woflo.gather(*(give(n) for n in range(5)), timeout=PATIENCE) == [0, 1, 2, 3, 4]
        assert woflo.gather() == []
        assert _caught(ValueError, woflo.gather, give(1), fail("broken")).args == ("broken",)
        one, error = woflo.gather(give(1), fail("broken"), raise_exceptions=False)
        assert one == 1
        assert isinstance(error, ValueError)

    def test_as_completed(self, tmp_path: Path) -> None:
        """as_completed gives the runs in the order in which they end."""
        slow, release = self.held(tmp_path)
        quick = self.make(_give)(1)
        ended: Iterator[BaseTaskRun[Any]] = woflo.as_completed([slow, quick], timeout=PATIENCE)
        assert next(ended) is quick
        release.set()
        assert next(ended) is slow
        assert list(ended) == []

    def test_as_completed_of_ended_runs(self) -> None:
        """Runs that have ended already are given too, and a run that is named twice comes once."""
        give = self.make(_give)
        one, two = give(1), give(2)
        assert woflo.wait([one, two], timeout=PATIENCE)
        ended: Iterator[BaseTaskRun[Any]] = woflo.as_completed([one, two, one], timeout=PATIENCE)
        assert [run.get_result() for run in ended] == [1, 2]
        assert list(woflo.as_completed([])) == []

    def test_wait_for_several(self, tmp_path: Path) -> None:
        """woflo.wait answers whether all have ended, and its time limit leaves them alone."""
        slow, release = self.held(tmp_path)
        quick = self.make(_give)(1)
        assert woflo.wait([slow, quick], timeout=0.02) is False
        _caught(woflo.WaitTimeout, woflo.gather, slow, quick, timeout=0.02)
        ended = woflo.as_completed([slow], timeout=0.02)
        _caught(woflo.WaitTimeout, next, ended)
        assert slow.is_running()
        release.set()
        assert woflo.wait([slow, quick], timeout=PATIENCE) is True

    # Retries and time-outs.

    def test_retries(self, tmp_path: Path) -> None:
        """With retries=2 there are three attempts, and each knows its number."""
        ledger = Ledger(tmp_path / "ledger")
        run = self.make(_flaky, retries=2)(ledger, 2)
        assert run.get_result(timeout=PATIENCE) == 3
        assert [line.split()[0] for line in ledger.lines()] == ["1", "2", "3"]

    def test_retries_run_out(self, tmp_path: Path) -> None:
        """After the last attempt the last exception is the run's, and no further attempt is made."""
        ledger = Ledger(tmp_path / "ledger")
        run = self.make(_flaky, retries=2)(ledger, 99)
        error = _caught(ConnectionError, run.get_result, timeout=PATIENCE)
        assert error.args == ("attempt 3",)
        assert any("attempt 3 of 3" in note for note in error.__notes__)
        outcome = run.outcome()
        assert isinstance(outcome, woflo.TaskFailure)
        assert outcome.attempt == 3
        assert len(ledger.lines()) == 3

    def test_no_retry_without_being_asked(self, tmp_path: Path) -> None:
        """A task is attempted once unless it says otherwise."""
        ledger = Ledger(tmp_path / "ledger")
        _caught(ConnectionError, self.make(_flaky)(ledger, 1).get_result, timeout=PATIENCE)
        assert len(ledger.lines()) == 1

    def test_retry_on(self, tmp_path: Path) -> None:
        """Only the named exceptions are tried again."""
        for retry_on, attempts in ((OSError, 3), ((KeyError, OSError), 3), (KeyError, 1)):
            ledger = Ledger(tmp_path / f"ledger of {retry_on}")
            run = self.make(_flaky, retries=2, retry_on=retry_on)(ledger, 99)
            _caught(ConnectionError, run.get_result, timeout=PATIENCE)
            assert len(ledger.lines()) == attempts, f"retry_on={retry_on}"

    def test_exits_are_not_retried(self, tmp_path: Path) -> None:
        """SystemExit isn't an Exception: by default it isn't tried again."""
        ledger = Ledger(tmp_path / "ledger")
        outcome = self.make(_flaky, retries=2)(ledger, 99, SystemExit).outcome()
        assert isinstance(outcome, woflo.TaskFailure)
        assert isinstance(outcome.__cause__, SystemExit)
        assert len(ledger.lines()) == 1

    def test_the_pause_is_kept(self, tmp_path: Path) -> None:
        """No attempt starts before retry_sleep_time has passed since the last one failed."""
        ledger = Ledger(tmp_path / "ledger")
        run = self.make(_flaky, retries=2, retry_sleep_time=0.05)(ledger, 2)
        assert run.get_result(timeout=PATIENCE) == 3
        times = [float(line.split()[1]) for line in ledger.lines()]
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert min(pauses) >= 0.05 * 0.98, pauses  # clocks may tick in steps

    def test_stop_during_the_pause(self, tmp_path: Path) -> None:
        """A run that pauses between two attempts says so, and stop() ends it there."""
        self.needs(self.runs_apart, "returns when the task has ended")
        ledger = Ledger(tmp_path / "ledger")
        run = self.make(_flaky, retries=2, retry_sleep_time=10 * PATIENCE)(ledger, 99)
        _until(lambda: run.state == "retrying", "state 'retrying'")
        assert run.is_running()
        run.stop()
        assert isinstance(run.outcome(), woflo.StoppedFailure)
        assert len(ledger.lines()) == 1

    def test_a_time_out(self, tmp_path: Path) -> None:
        """An attempt longer than timeout ends as TimeoutFailure, which is a TimeoutError too."""
        run = self.make(self.either(_linger, _alinger), timeout=0.1)(
            Ledger(tmp_path / "ledger"), 1, 0.5 if not self.runs_apart else PATIENCE
        )
        error = _caught(woflo.TimeoutFailure, run.get_result, timeout=PATIENCE)
        assert isinstance(error, TimeoutError)
        assert not isinstance(error, woflo.WaitTimeout)
        assert error.limit == 0.1
        assert error.elapsed >= 0.1
        assert run.state == "failed"

    def test_a_time_out_is_retried(self, tmp_path: Path) -> None:
        """An attempt that took too long counts as failed: the next one may succeed."""
        ledger = Ledger(tmp_path / "ledger")
        task = self.make(self.either(_linger, _alinger), timeout=self.start_seconds, retries=1)
        run = task(ledger, 1, 1.5 * self.start_seconds if not self.runs_apart else PATIENCE)
        assert run.get_result(timeout=PATIENCE) == "attempt 2"
        assert ledger.lines() == ["1", "2"]

    def test_a_time_out_that_is_not_reached(self) -> None:
        """A task that is quick enough doesn't notice its limit."""
        assert self.make(_give, timeout=PATIENCE)(4).get_result(timeout=PATIENCE) == 4

    # Stopping.

    def test_stop_ends_a_running_task(self, tmp_path: Path) -> None:
        """stop() ends the run as StoppedFailure; get_result raises it, and stays with it."""
        run, release = self.held(tmp_path)
        run.stop(grace=0.5)
        release.set()  # for a task that can only be abandoned
        for _ in range(2):
            error = _caught(woflo.StoppedFailure, run.get_result, timeout=PATIENCE)
            assert error.run == run.name
        assert run.state == "stopped"
        assert not run.is_running()

    def test_stop_runs_finally_blocks(self, tmp_path: Path) -> None:
        """A task that is stopped leaves through its finally blocks."""
        self.needs(self.runs_apart, "returns when the task has ended")
        self.needs(self.interrupts, "can't raise anything in a running task")
        started, release, ended = (Flag(tmp_path / name) for name in ("started", "release", "ended"))
        run = self.make(self.either(_hold, _ahold))(started, release, ended)
        started.wait()
        run.stop(grace=PATIENCE)
        assert ended.is_set()
        assert isinstance(run.outcome(), woflo.StoppedFailure)

    def test_a_task_can_ask_whether_to_stop(self, tmp_path: Path) -> None:
        """stop_requested() turns true inside a task that is being stopped."""
        self.needs(self.runs_apart, "returns when the task has ended")
        started, asked = Flag(tmp_path / "started"), Flag(tmp_path / "asked")
        run = self.make(self.either(_polite, _apolite))(started, asked)
        started.wait()
        run.stop(grace=PATIENCE)
        asked.wait()
        assert run.wait(timeout=PATIENCE)
        assert woflo.stop_requested() is False, "it is about the task that asks"

    def test_a_stopped_task_may_still_return(self, tmp_path: Path) -> None:
        """What a task returns after it was asked to stop counts as its value."""
        self.needs(self.runs_apart, "returns when the task has ended")
        self.needs(self.interrupts, "can't raise anything in a running task")
        started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
        run = self.make(self.either(_farewell, _afarewell))(started, release)
        started.wait()
        run.stop(grace=PATIENCE)
        assert run.get_result(timeout=PATIENCE) == "farewell"

    def test_a_stopped_task_that_raises_is_stopped(self, tmp_path: Path) -> None:
        """Whatever a task raises when it was asked to stop, its run was stopped, and isn't tried again."""
        self.needs(self.runs_apart, "returns when the task has ended")
        self.needs(self.interrupts, "can't raise anything in a running task")
        ledger = Ledger(tmp_path / "ledger")
        started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
        run = self.make(self.either(_clumsy, _aclumsy), retries=2)(ledger, started, release)
        started.wait()
        run.stop(grace=PATIENCE)
        assert isinstance(run.outcome(), woflo.StoppedFailure)
        assert ledger.lines() == ["attempt"]

    def test_stop_ends_a_task_that_refuses(self, tmp_path: Path) -> None:
        """After the grace a task that won't end is ended."""
        self.needs(self.can_kill, "can't end a task that refuses")
        started, go = Flag(tmp_path / "started"), Flag(tmp_path / "go")
        run = self.make(_stubborn)(started, go)
        started.wait()
        run.stop(grace=0.05)
        assert isinstance(run.outcome(), woflo.StoppedFailure)

    def test_stop_is_honest_about_what_it_cannot_end(self) -> None:
        """A task out of reach is abandoned after the grace: its run ends, and says so."""
        self.needs(self.runs_apart, "returns when the task has ended")
        self.needs(self.in_process and not self.coroutines, "can end it")
        started, release = threading.Event(), threading.Event()
        run = self.make(_block)(started, release)
        try:
            assert started.wait(PATIENCE)
            run.stop(grace=0.05)
            outcome = run.outcome()
            assert isinstance(outcome, woflo.StoppedFailure)
            assert "abandon" in str(outcome)
        finally:
            release.set()

    def test_stop_without_waiting(self, tmp_path: Path) -> None:
        """stop(wait=False) returns at once; the run ends soon after."""
        run, release = self.held(tmp_path)
        run.stop(grace=0.5, wait=False)
        assert isinstance(run.outcome(), woflo.StoppedFailure)
        release.set()

    def test_stopping_what_has_ended_changes_nothing(self) -> None:
        """stop() on an ended run does nothing, however often."""
        run = self.make(_give)(6)
        assert run.wait(timeout=PATIENCE)
        run.stop()
        run.stop(wait=False)
        assert run.get_result() == 6
        assert run.state == "succeeded"

    def test_stopping_twice(self, tmp_path: Path) -> None:
        """A second stop() is as good as one."""
        run, release = self.held(tmp_path)
        run.stop(grace=0.2, wait=False)
        run.stop(grace=0.2)
        run.stop()
        release.set()
        assert isinstance(run.outcome(), woflo.StoppedFailure)

    def test_stop_before_the_start(self, tmp_path: Path) -> None:
        """A run that is stopped while it waits for its inputs ends without running."""
        first, release = self.held(tmp_path)
        ledger = Ledger(tmp_path / "ledger")
        second = self.make(_note)(ledger, "ran", first)
        assert (second.is_running(), second.state) == (True, "pending")
        second.stop()
        assert isinstance(second.outcome(), woflo.StoppedFailure)
        assert second.state == "stopped"
        release.set()
        assert first.get_result(timeout=PATIENCE) == "released"
        assert ledger.lines() == []

    def test_stop_hits_one_run(self, tmp_path: Path) -> None:
        """Stopping one run leaves its neighbours and the next one alone."""
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        one, release_one = self.held(tmp_path / "one")
        two, release_two = self.held(tmp_path / "two")
        one.stop(grace=0.5)
        release_one.set()
        assert two.is_running()
        release_two.set()
        assert two.get_result(timeout=PATIENCE) == "released"
        assert self.make(_give)("next").get_result(timeout=PATIENCE) == "next"
        assert isinstance(one.outcome(), woflo.StoppedFailure)

    # Runs as inputs.

    def test_runs_as_inputs(self) -> None:
        """A run among the arguments, however nested, is replaced by its value."""
        give = self.make(_give)
        a, b, c = give(1), give("two"), give((3,))
        run = self.make(_collect)(a, [b, {"k": (c, a)}], kw={"deep": [[a]]}, plain=9)
        assert run.get_result(timeout=PATIENCE) == (
            (1, ["two", {"k": ((3,), 1)}]),
            {"kw": {"deep": [[1]]}, "plain": 9},
        )

    def test_a_run_in_a_dataclass(self) -> None:
        """A run in a field of a dataclass is replaced in a copy; the caller's object keeps it."""
        give = self.make(_give)
        order = _Order(give("tea"), [give("milk"), "sugar"])
        run = self.make(_unpack)(order)
        assert run.get_result(timeout=PATIENCE) == ("tea", ["milk", "sugar"])
        assert isinstance(order.item, woflo.BaseTaskRun)

    def test_the_same_run_twice(self, tmp_path: Path) -> None:
        """One run may be an input in several places and of several runs; it runs once."""
        ledger = Ledger(tmp_path / "ledger")
        shared = self.make(_note)(ledger, "once")
        one, two = self.make(_collect)(shared, shared), self.make(_collect)(shared)
        assert one.get_result(timeout=PATIENCE) == (("once", "once"), {})
        assert two.get_result(timeout=PATIENCE) == (("once",), {})
        assert ledger.lines() == ["once"]

    def test_many_inputs(self) -> None:
        """A run may have many inputs."""
        give = self.make(_give)
        run = self.make(_give)([give(n) for n in range(self.many // 2)])
        assert run.get_result(timeout=PATIENCE) == list(range(self.many // 2))

    def test_a_failed_input(self, tmp_path: Path) -> None:
        """After a failed input a run ends as DependencyFailure without running, and so on down."""
        ledger = Ledger(tmp_path / "ledger")
        bad = self.make(_fail, name="bad")("broken")
        child = self.make(_note)(ledger, "child", bad)
        grandchild = self.make(_note)(ledger, "grandchild", [child])
        error = _caught(woflo.DependencyFailure, grandchild.get_result, timeout=PATIENCE)
        (root,) = error.root_causes()
        assert root.run == bad.name
        assert isinstance(root.__cause__, ValueError)
        assert "broken" in str(root)
        assert isinstance(child.outcome(), woflo.DependencyFailure)
        assert grandchild.state == "failed"
        assert ledger.lines() == []

    def test_a_pending_run_starts_unattended(self, tmp_path: Path) -> None:
        """A run that waits for its inputs starts when they end, though nobody waits for it."""
        first, release = self.held(tmp_path)
        ran = Flag(tmp_path / "ran")
        second = self.make(_mark)(ran, first)
        assert second.state == "pending"
        assert not ran.is_set()
        release.set()
        ran.wait()
        assert second.wait(timeout=PATIENCE)

    # What a task knows, and the rest.

    def test_current_run(self) -> None:
        """Inside a task current_run() is its run; outside there is none."""
        run = self.make(_identify, name="who")()
        name, task_name, attempt, pid = run.get_result(timeout=PATIENCE)
        assert (name, task_name, attempt) == (run.name, "who", 1)
        assert (pid == os.getpid()) is self.in_process
        assert woflo.current_run() is None

    def test_progress_arrives(self, tmp_path: Path) -> None:
        """What a task says of how far it is can be read while it runs and after, and observers get it before the end."""
        self.needs(self.reports, "brings back results only")
        started, release = Flag(tmp_path / "started"), Flag(tmp_path / "release")
        events: list[Any] = []
        task = self.make(self.either(_report, _areport))
        with woflo.observe(events.append):
            if not self.runs_apart:
                release.set()
            run = task(started, release)
            if self.runs_apart:
                started.wait()
                _until(lambda: tuple(run.progress or ()) == (1, 2, "half of it"), "the first report")
                _until(lambda: _reports_of(run, events) == [(1, 2, "half of it")], "the event of the first report")
                release.set()
            assert run.wait(timeout=PATIENCE)
            _until(lambda: any(_is_end_of(run, event) for event in events), "the event of the end")
        assert tuple(run.progress or ()) == (2, 2, "all of it")
        assert _reports_of(run, events)[-1] == (2, 2, "all of it")
        mine = [event for event in events if event.run == run.name]
        assert isinstance(mine[-2], RunProgress)
        assert _is_end_of(run, mine[-1])

    def test_names_are_numbered(self) -> None:
        """Each run's name is its task's name and a number that grows with each call."""
        give = self.make(_give, name="numbered")
        runs = [give(n) for n in range(3)]
        parts = [run.name.rpartition("-") for run in runs]
        assert [head for head, _, _ in parts] == ["numbered"] * 3
        numbers = [int(number) for _, _, number in parts]
        assert numbers == sorted(set(numbers))
        assert woflo.wait(runs, timeout=PATIENCE)

    def test_context_variables(self) -> None:
        """A task sees the context variables as they were at the call and can't change its caller's."""
        self.needs(self.in_process, "runs in another process")
        token = _variable.set("at the call")
        try:
            run = self.make(self.either(_read_variable, _aread_variable))()
            _variable.set("after the call")
            assert run.get_result(timeout=PATIENCE) == "at the call"
            if self.runs_apart:
                assert _variable.get() == "after the call"
        finally:
            _variable.reset(token)

    def test_nested_runs(self) -> None:
        """A task may start runs and wait for them."""
        inner = self.runner if self.in_process else None
        run = self.make(self.either(_nested, _anested))(inner, 4)
        assert run.get_result(timeout=PATIENCE) == 6

    def test_many_at_once(self) -> None:
        """A hundred runs at once all end, each with its own value."""
        give = self.make(_give)
        runs = [give(n) for n in range(self.many)]
        assert [run.get_result(timeout=PATIENCE) for run in runs] == list(range(self.many))

    def test_fire_and_forget(self, tmp_path: Path) -> None:
        """A run that nobody keeps is carried out all the same."""
        done = Flag(tmp_path / "done")
        self.make(_mark)(done)
        done.wait()

    def test_chosen_by_use(self) -> None:
        """Tasks that name no runner run on the one of `with use(runner)` inside its block."""
        give = woflo.task(_give)
        with woflo.use(self.runner):
            run = give(1)
        assert isinstance(run, self.runner)
        assert run.get_result(timeout=PATIENCE) == 1
