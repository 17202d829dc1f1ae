"""Runners for tests: one whose runs end when and how the test says, and one without processes, threads and pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from woflo.errors import UsageError
from woflo.result import Failure, Ok, StoppedFailure
from woflo.runners._attempt import attempt, failure_from
from woflo.runners.base import BaseTaskRun
from woflo.runners.sequential import SequentialTaskRun

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["InlineTaskRun", "ScriptedTaskRun"]


class ScriptedTaskRun(BaseTaskRun[Any]):
    """A run that ends when and how the test says; the task's function is not called.

    `using()` makes a runner with a list of its own, so that tests don't see each other's runs::

        runner = ScriptedTaskRun.using()
        run = task(runner=runner, retries=1)(fetch)("a.csv")
        run.fail(ConnectionError())  # tried again, after the task's pause
        runner.started[-1].succeed(7)
        assert run.get_result() == 7

    Retries, time-outs, stops and inputs are as on every runner: time-outs and pauses fall due by the clock, for which a test
    takes a `FakeClock`. All methods may be called from any thread; what comes after an attempt's end is dropped.

    Attributes:
        started: of the class: the runs in the order in which they were started; one that is tried again stands there again.
        on_start: of the class, a setting: called with each run when it is started; may make an appointment for its end.
        obeys: of the class, a setting: whether an attempt that is asked to end does so at once, or is abandoned after the grace.
        given: the positional arguments, with the values of runs and nodes in their places; kept when the run has ended.
        asked: how many times the run was asked to end, by `stop()` or a time-out.
    """

    started: ClassVar[list[Any]] = []
    on_start: ClassVar[Callable[[Any], object] | None] = None
    obeys: ClassVar[bool] = True
    _settings: ClassVar[tuple[str, ...]] = ("obeys", "on_start")

    given: tuple[Any, ...] = ()
    asked: int = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.started = []

    def start(self) -> None:
        """Note that an attempt was started."""
        self.given = self.args
        self.started.append(self)
        tell = type(self).on_start  # of the class: a function doesn't become a method
        if tell is not None:
            tell(self)

    def stop(self, grace: float = 1.0) -> None:  # type: ignore[override] # noqa: ARG002 - a runner's own part of it
        """End as stopped, if it obeys."""
        self.asked += 1
        if self.obeys:
            self.finish(self._named(StoppedFailure("stopped")))

    def succeed(self, value: object = None) -> None:
        """Have the current attempt return a value."""
        self._end_with(Ok(value))

    def fail(self, error: BaseException) -> None:
        """Have the current attempt raise an exception; a Failure stands for itself: `WorkerFailure("was killed")`."""
        self._end_with(self._named(error) if isinstance(error, Failure) else failure_from(self, error))

    def carry_out(self) -> None:
        """Have the current attempt do what the task says, here and now."""
        self._end_with(self.call())

    def _end_with(self, result: Any) -> None:
        if self._phase == "pending":
            raise UsageError(f"{self.name} has not been started: it is pending")
        self.finish(result)

    def _stranded(self) -> str:
        return "the script has ended"

    @classmethod
    def running(cls) -> list[Self]:
        """The runs that were started and have not ended, in the order of their starts."""
        found = dict.fromkeys(cls.started)
        return [run for run in found if run.is_running()]

    @classmethod
    def of(cls, task: str) -> Self:
        """The run of a task (by its name) that was started last.

        Raises:
            UsageError: none was.
        """
        for run in reversed(cls.started):
            if run.task.name == task:
                found: Self = run
                return found
        names = ", ".join(run.task.name for run in cls.started)
        raise UsageError(f"no run of {task!r} was started; there were {names or 'none at all'}")


class InlineTaskRun(SequentialTaskRun[Any]):
    """A run in the caller, finished when the call returns, without pauses between attempts.

    For tests of what tasks do together: no process, no thread, always the same order, the debugger and coverage see all::

        with woflo.use(InlineTaskRun):  # for tasks that don't name a runner
            assert pipeline() == 7
    """

    __slots__ = ()

    def _start_attempt(self) -> None:
        self._mark_started()
        while self._conclude_here(attempt(self)) is not None:
            self._next_attempt()
            self._mark_started()
