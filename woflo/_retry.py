"""Again or stop, and after how long: the decider of retries.

Pure: a policy, an attempt's number and its failure go in, a pause or None comes out. It reads no clock
and sleeps nowhere; whoever asks carries the answer out. tenacity does the arithmetic of
its own strategies and is imported only when one of them is asked.
"""

from __future__ import annotations

from woflo.result import DependencyFailure, Failure, MissingFailure, StoppedFailure, TaskFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    RetryOn = type[BaseException] | tuple[type[BaseException], ...]
    Wait = float | Callable[[Any], float]

_FINAL = (StoppedFailure, DependencyFailure, MissingFailure)


class Policy:
    """How often, on what and how long apart a task is tried.

    Args:
        retries: attempts after the first one, at most.
        retry_on: the exceptions of the task that deserve another attempt; a time-out and a
            dead worker always do.
        wait: the pause before each further attempt: seconds, or a tenacity wait strategy.
    """

    __slots__ = ("retries", "retry_on", "wait")

    def __init__(self, retries: int, retry_on: RetryOn, wait: Wait) -> None:
        self.retries: int = retries
        self.retry_on: RetryOn = retry_on
        self.wait: Wait = wait


def pause(policy: Policy, attempt: int, failure: Failure) -> float | None:
    """Seconds to pause before the next attempt, or None when there is none.

    Args:
        policy: the task's policy.
        attempt: the number of the attempt that failed, from 1.
        failure: what it ended in.
    """
    if attempt > policy.retries or isinstance(failure, _FINAL):
        return None
    error = failure if failure.__cause__ is None else failure.__cause__  # not `or`: an exception may be falsy
    if isinstance(failure, TaskFailure) and not isinstance(error, policy.retry_on):
        return None
    wait = policy.wait
    return max(0.0, float(wait(_state(attempt, error)) if callable(wait) else wait))


def _state(attempt: int, error: BaseException) -> Any:
    """What a tenacity strategy wants to know."""
    from tenacity import RetryCallState, Retrying

    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    state.set_exception((type(error), error, error.__traceback__))
    return state
