"""The examples of seed 000 as they stand there: its hypothesis test verbatim but for the import, and its classes in use.

The seed's code lies in `brei`; here it is imported from `woflo.lazy`. What its class code says that a user can see is
asserted below, each sentence by a test; its locks and recursion have no counterpart.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, builds, integers, text

from woflo.lazy import (
    CyclicWorkflowError,
    DependencyFailure,
    Failure,
    Lazy,
    LazyDB,
    MissingDependency,
    MissingFailure,
    Ok,
    Phony,
    TaskFailure,
)

results = builds(lambda b, t, i: Ok(i) if b else TaskFailure(t), booleans(), text(min_size=1), integers())


@given(results)
def test_result(r):
    """The seed's own: a result is true and has a value, or is false and a Failure."""
    assert (r and hasattr(r, "value")) or (not r and isinstance(r, Failure))


@dataclass
class Letter(Lazy[str, str]):
    """A task of the seed's kind: a dataclass with fields of its own and an asynchronous `run`."""

    text: str = ""
    runs: int = 0

    async def run(self, *, db):
        self.runs += 1
        if self.text == "fail":
            raise TaskFailure("on purpose")
        return self.text + "".join([db.index[target].result for target in self.real_requirements])


def letters(*rows):
    db = LazyDB()
    for name, requires in rows:
        db.add(Letter([name], requires, name))
    return db


def run(db, target):
    return asyncio.run(db.run(target, db=db))


def test_failures_in_words():
    """The texts and fields of the seed's failures."""
    missing = MissingFailure("x")
    assert (missing.target, str(missing)) == ("x", "Missing dependency: x")
    assert TaskFailure("no data").message == "no data"
    assert isinstance(TaskFailure("no data"), Exception)
    assert DependencyFailure({"x": missing}).dependencies == {"x": missing}
    assert Ok(3).value == 3
    assert Ok(None)
    assert not any([missing, TaskFailure("no data"), DependencyFailure({})])


def test_phony():
    """A phony target is written with a `#`, is equal by name, and can be a key."""
    phony = Phony.from_str("#all")
    assert phony == Phony("all")
    assert str(phony) == "#all"
    assert {phony: 1}[Phony("all")] == 1
    assert hash(phony) == hash("#all")
    for wrong in ("all", ""):
        with pytest.raises(ValueError, match="should start with a `#` character"):
            Phony.from_str(wrong)


def test_tasks_run_in_the_order_of_their_dependencies():
    """All dependencies are realised before a task runs; each runs once."""
    db = letters(("a", ["b", "c"]), ("b", ["d"]), ("c", ["d"]), ("d", []))
    assert run(db, "a") == Ok("abdcd")
    assert [one.runs for one in db.tasks] == [1, 1, 1, 1]
    assert run(db, "a") == Ok("abdcd")
    assert db.tasks[0].runs == 1


def test_result_raises_before_and_after_a_failure():
    """`result` is the value once the task was run; else it raises ValueError."""
    good, bad = Letter(["a"], [], "a"), Letter(["b"], [], "fail")
    db = LazyDB()
    db.add(good)
    db.add(bad)
    with pytest.raises(ValueError, match=r"Task has not run yet\."):
        _ = good.result
    assert not good
    assert run(db, "a")
    assert run(db, "b") == db.tasks[1]._result
    assert good
    assert good.result == "a"
    assert not bad
    with pytest.raises(ValueError, match=r"Task has failed\."):
        _ = bad.result


def test_reset():
    """`reset` forgets the result, of one task or of all of the database's."""
    db = letters(("a", ["b"]), ("b", []))
    assert run(db, "a")
    db.tasks[0].reset()
    assert not db.tasks[0]
    assert db.tasks[1]
    assert run(db, "a")
    db.reset()
    assert not any(db.tasks)
    assert run(db, "a")
    assert [one.runs for one in db.tasks] == [3, 2]


def test_fields():
    """`fields()` has the dataclass's fields by name, without those that begin with an underscore."""
    assert Letter(["a"], ["b"], "x").fields() == {"creates": ["a"], "requires": ["b"], "text": "x", "runs": 0}


def test_real_requirements():
    """`real_requirements` leaves out phony targets; they are dependencies all the same."""
    db = LazyDB()
    db.add(Letter(["b"], [], "b"))
    db.add(Letter([Phony("all")], ["b"], "phony"))
    db.add(Letter(["a"], [Phony("all"), "b"], "a"))
    assert db.tasks[2].real_requirements == ["b"]
    assert run(db, "a") == Ok("ab")
    assert db.tasks[1].runs == 1


def test_add_index_clean():
    """`add` lists a task and indexes its targets; `clean` forgets them."""
    db = LazyDB()
    task = Letter(["a", "b"], [], "x")
    db.add(task)
    assert db.tasks == [task]
    assert db.index == {"a": task, "b": task}
    db.clean()
    assert (db.tasks, db.index) == ([], {})


def test_a_task_failure_is_the_result():
    """A TaskFailure that the task raises is what `db.run` returns, and what its dependants fail by."""
    db = LazyDB()
    db.add(Letter(["a"], ["b"], "a"))
    db.add(Letter(["b"], [], "fail"))
    failure = run(db, "b")
    assert type(failure) is TaskFailure
    assert failure.message == "on purpose"
    dependant = run(db, "a")
    assert isinstance(dependant, DependencyFailure)
    assert dependant.dependencies == {"b": failure}
    assert db.tasks[0].runs == 0


def test_a_missing_dependency():
    """A target that nothing makes is a MissingFailure, and its dependants fail by it."""
    db = letters(("a", ["b"]))
    missing = run(db, "b")
    assert isinstance(missing, MissingFailure)
    assert missing.target == "b"
    dependant = run(db, "a")
    assert isinstance(dependant, DependencyFailure)
    assert isinstance(dependant.dependencies["b"], MissingFailure)


def test_on_missing():
    """A subclass may make a task for a missing target, or raise MissingDependency."""

    class Files(LazyDB[str, Letter]):
        def on_missing(self, t):
            if t.endswith(".c"):
                return Letter([t], [], t)
            raise MissingDependency

    db = Files()
    db.add(Letter(["a.o"], ["a.h"], "o"))
    assert run(db, "a.c") == Ok("a.c")
    assert isinstance(run(db, "a.h"), MissingFailure)
    assert isinstance(run(db, "a.o"), DependencyFailure)


def test_a_task_that_returns_a_task_is_followed():
    """A Lazy in the place of a value is run, and its value counts."""

    @dataclass
    class Template(Lazy[str, str]):
        async def run(self, **_):
            return Letter(["whatever"], ["b"], "made")

    db = letters(("b", []))
    db.add(Template(["a"], []))

    async def main():
        return await db.run("a", db=Reader(db))

    class Reader:
        def __init__(self, db):
            self.index = db.index

    assert asyncio.run(main()) == Ok("madeb")
    assert db.index["a"].result == "madeb"
    assert db.index["b"]


def test_cycles():
    """A workflow that needs itself is a CyclicWorkflowError."""
    db = letters(("a", ["b"]), ("b", ["c"]), ("c", ["b"]))
    with pytest.raises(CyclicWorkflowError, match=r"b -> c -> b|c -> b -> c"):
        run(db, "a")
    assert [one.runs for one in db.tasks] == [0, 0, 0]


def test_run_is_abstract():
    """The base class's `run` is not implemented."""
    db = LazyDB()
    db.add(Lazy(["a"], []))
    failure = run(db, "a")
    assert isinstance(failure, TaskFailure)
    assert isinstance(failure.__cause__, NotImplementedError)
