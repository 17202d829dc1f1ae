"""Ok and the kinds of Failure as values."""

from __future__ import annotations

import pickle

import pytest

from woflo import (
    DependencyFailure,
    Failure,
    MissingFailure,
    Ok,
    StoppedFailure,
    TaskFailure,
    TimeoutFailure,
    WorkerFailure,
)


@pytest.mark.parametrize("value", [0, None, "", [], False, Failure("returned")])
def test_ok_is_true(value):
    """Ok is true whatever it holds, even a failure that a task returned."""
    assert Ok(value)
    assert Ok(value).value is value


@pytest.mark.parametrize(
    "kind", [Failure, TaskFailure, TimeoutFailure, WorkerFailure, StoppedFailure, MissingFailure, DependencyFailure]
)
def test_a_failure_is_false(kind):
    """Every failure is false and an exception."""
    failure = kind()
    assert not failure
    with pytest.raises(kind):
        raise failure


def test_match():
    """A match statement tells Ok and the kinds apart and takes out what they hold."""

    def told(result):
        match result:
            case Ok([first, *_]):
                return f"list from {first}"
            case Ok(value):
                return f"value {value}"
            case TimeoutFailure(limit=limit):
                return f"limit {limit}"
            case DependencyFailure(dependencies):
                return f"inputs {sorted(dependencies)}"
            case Failure(message):
                return f"failure {message}"

    assert told(Ok([1, 2])) == "list from 1"
    assert told(Ok(None)) == "value None"
    assert told(TimeoutFailure(limit=3.0)) == "limit 3.0"
    assert told(DependencyFailure({"a-1": TaskFailure("x")})) == "inputs ['a-1']"
    assert told(StoppedFailure("stopped")) == "failure stopped"


def test_ok_compares_by_value():
    """Two Ok are equal when their values are, and never equal the bare value."""
    assert Ok([1]) == Ok([1])
    assert Ok(1) != Ok(2)
    assert Ok(1) != 1
    assert hash(Ok("a")) == hash(Ok("a"))
    assert repr(Ok("a")) == "Ok('a')"


def test_ok_survives_pickling():
    """Ok crosses every boundary."""
    assert pickle.loads(pickle.dumps(Ok({"a": 1}))) == Ok({"a": 1})


def test_ok_is_generic():
    """Ok[int] can be written in annotations that are evaluated."""
    assert Ok[int] is not None


def test_failures_compare_by_identity():
    """Two failures with the same text are two failures."""
    assert TaskFailure("x") != TaskFailure("x")


def test_root_causes():
    """The failures at the bottom come once each, in the order of the inputs, at any depth."""
    a, b = TaskFailure("a"), StoppedFailure("b")
    left = DependencyFailure({"a": a})
    right = DependencyFailure({"b": b, "a": a})
    top = DependencyFailure({"left": left, "right": right, "b": b})
    assert top.root_causes() == [a, b]
    assert a.__cause__ is None


def test_root_causes_of_a_deep_chain():
    """A chain of a hundred thousand dependencies has its root cause without recursion."""
    root = TaskFailure("root")
    failure = root
    for depth in range(100_000):
        failure = DependencyFailure({f"step-{depth}": failure})
    assert failure.root_causes() == [root]
    assert "root" in str(failure)
    while isinstance(failure, DependencyFailure):  # taken down from the top, or freeing it would recurse
        (failure,) = failure.dependencies.values()


def test_the_traceback_shows_the_cause_of_the_cause():
    """The traceback text names the task's exception and what caused it."""

    def parse():
        try:
            int("x")
        except ValueError as error:
            raise RuntimeError("bad row") from error

    failure = TaskFailure("it broke")
    try:
        parse()
    except RuntimeError as error:
        failure.__cause__ = error
    assert "in parse" in failure.traceback
    assert "RuntimeError: bad row" in failure.traceback
    assert "ValueError: invalid literal" in failure.traceback


def test_a_failure_without_a_cause_has_no_traceback():
    """Where no Python code failed there is nothing to show."""
    assert StoppedFailure("stopped").traceback == ""
