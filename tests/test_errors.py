"""The exceptions and failures themselves: they survive pickling and say what happened."""

from __future__ import annotations

import copy
import pickle

import pytest

import woflo
from woflo import (
    DependencyFailure,
    ExceptionStandIn,
    Failure,
    InternalError,
    MissingFailure,
    StoppedFailure,
    StoreError,
    TaskFailure,
    TaskStopped,
    TimeoutFailure,
    UsageError,
    WaitTimeout,
    WorkerFailure,
    errors,
    result,
)

NAMES = {"task": "fetch", "run": "fetch-3", "attempt": 2, "attempts": 3, "pid": 812}


def caused():
    """A failure with a cause that has a note and a cause of its own."""
    failure = TaskFailure("it broke", traceback="Traceback: pipeline.py:18", **NAMES)
    cause = KeyError("price")
    cause.add_note("row 7")
    cause.__cause__ = OSError(2, "no such file")
    failure.__cause__ = cause
    return failure


EXCEPTIONS = {
    "UsageError": UsageError("retries must be 0 or more, not -1"),
    "CyclicWorkflowError": errors.CyclicWorkflowError(["a", "b"]),
    "InternalError": InternalError("a slot was given back twice"),
    "StoreError": StoreError("Directory('/data') can't keep blob/ab", "No space left on device"),
    "WaitTimeout": WaitTimeout("fetch-3", 2.5),
    "TaskStopped": TaskStopped("asked to stop"),
    "ExceptionStandIn": ExceptionStandIn("shop.PriceError", "no price"),
    "Failure": Failure("something", **NAMES),
    "TaskFailure": TaskFailure("it broke", **NAMES),
    "TaskFailure raised by a task": TaskFailure("no data today"),
    "TaskFailure without anything": TaskFailure(),
    "TaskFailure with a cause": caused(),
    "TimeoutFailure": TimeoutFailure(limit=10.0, elapsed=10.2, where="shop.py:7 in price", **NAMES),
    "WorkerFailure by signal": WorkerFailure("killed by SIGKILL: often out of memory", signal="SIGKILL", **NAMES),
    "WorkerFailure by exit": WorkerFailure("left with exit code 3", exit_code=3, **NAMES),
    "WorkerFailure at start": WorkerFailure("could not be started", errno="EAGAIN", **NAMES),
    "StoppedFailure": StoppedFailure("stop() was called", **NAMES),
    "MissingFailure": MissingFailure("tempreture"),
    "DependencyFailure": DependencyFailure(
        {"clean-1": caused(), "load-2": StoppedFailure("stop() was called")}, **NAMES
    ),
}


def fields(error):
    return {key: value for key, value in vars(error).items() if key != "dependencies"}


WAYS = {"pickle": lambda error: pickle.loads(pickle.dumps(error)), "copy": copy.copy, "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("error", EXCEPTIONS.values(), ids=EXCEPTIONS.keys())
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_survives_pickling(error, way):
    """Every exception and failure comes back from pickle and copy with its type, fields, text and cause."""
    twin = way(error)
    assert twin is not error
    assert type(twin) is type(error)
    assert twin.args == error.args
    assert str(twin) == str(error)
    assert fields(twin).keys() == fields(error).keys()
    for key, value in fields(error).items():
        assert getattr(twin, key) == value
    if isinstance(error, Failure):
        assert bool(twin) is False
        assert twin.traceback == error.traceback
        assert repr(twin.__cause__) == repr(error.__cause__)
        if error.__cause__ is not None:
            assert twin.__cause__.__notes__ == error.__cause__.__notes__
            assert repr(twin.__cause__.__cause__) == repr(error.__cause__.__cause__)


def test_the_table_above_is_complete():
    """A new exception can't be forgotten here."""
    tried = {type(error).__name__ for error in EXCEPTIONS.values()}
    public = {
        name
        for module in (errors, result)
        for name in module.__all__
        if isinstance(getattr(module, name), type) and issubclass(getattr(module, name), BaseException)
    }
    assert public <= tried


@pytest.mark.parametrize("error", EXCEPTIONS.values(), ids=EXCEPTIONS.keys())
def test_is_public(error):
    """Whatever a user can catch can be imported from woflo."""
    assert getattr(woflo, type(error).__name__) is type(error)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("UsageError", ["retries must be 0 or more, not -1"]),
        ("WaitTimeout", ["fetch-3", "2.5 s"]),
        ("ExceptionStandIn", ["shop.PriceError", "no price"]),
        ("TaskFailure", ["fetch-3", "it broke", "attempt 2 of 3", "pid 812"]),
        ("TaskFailure raised by a task", ["no data today"]),
        ("TimeoutFailure", ["fetch-3", "10 s", "shop.py:7 in price"]),
        ("WorkerFailure by signal", ["SIGKILL", "memory", "fetch-3"]),
        ("WorkerFailure by exit", ["exit code 3"]),
        ("StoppedFailure", ["fetch-3", "stop() was called"]),
        ("MissingFailure", ["tempreture"]),
        ("DependencyFailure", ["fetch-3", "clean-1", "load-2", "it broke"]),
    ],
)
def test_says_what_happened(name, said):
    """The text names what, which and why."""
    text = str(EXCEPTIONS[name])
    assert [part for part in said if part not in text] == []


@pytest.mark.parametrize(
    ("child", "parents"),
    [
        (UsageError, (ValueError,)),
        (InternalError, (RuntimeError,)),
        (StoreError, (Exception,)),
        (WaitTimeout, (TimeoutError,)),
        (TimeoutFailure, (Failure, TimeoutError)),
        (TaskFailure, (Failure,)),
        (WorkerFailure, (Failure,)),
        (StoppedFailure, (Failure,)),
        (MissingFailure, (Failure,)),
        (DependencyFailure, (Failure,)),
        (Failure, (Exception,)),
        (ExceptionStandIn, (Exception,)),
    ],
)
def test_families(child, parents):
    """Each exception can be caught by the names that a user would try."""
    assert issubclass(child, parents[0])
    assert all(issubclass(child, parent) for parent in parents)


def test_what_is_not_family():
    """A wait that ran out is no failure of a run, and a stop passes `except Exception`."""
    assert not issubclass(WaitTimeout, Failure)
    assert not issubclass(TaskStopped, Exception)
    assert not issubclass(UsageError, Failure)


def test_a_stand_in_keeps_names():
    """The stand-in tells the type name and the message of what it stands for."""
    error = ExceptionStandIn("shop.PriceError", "no price")
    assert (error.type_name, error.message) == ("shop.PriceError", "no price")
