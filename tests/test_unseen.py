"""Failures nobody asked about: an exact count, the first names, and no growth."""

from __future__ import annotations

import pytest

from woflo import DependencyFailure, TaskFailure, _unseen


@pytest.fixture(autouse=True)
def _own_count():
    _unseen.forget()
    yield
    _unseen.forget()


def failed(number):
    failure = TaskFailure("x", run=f"bad-{number}")
    _unseen.add(failure, failure.run)
    return failure


def test_the_count_is_exact_and_the_names_are_few():
    """Ten thousand failures leave a hundred names; each look counts once, whether its name was kept or not."""
    failures = [failed(number) for number in range(10_000)]
    assert len(_unseen._failed.names) == 100
    assert _unseen.report().startswith("10000 failed runs that nobody looked at: bad-0, bad-1,")
    for failure in [*failures[5:], *failures[5:]]:
        _unseen.seen(failure)
    assert _unseen.count == 5
    assert _unseen.report() == "5 failed runs that nobody looked at: bad-0, bad-1, bad-2, bad-3, bad-4"
    for failure in failures:
        _unseen.seen(failure)
    assert (_unseen.count, _unseen.report()) == (0, "")


def test_a_look_at_a_dependent_is_one_at_what_it_comes_from():
    """Whoever asks a run that did not run has been told of its inputs; not the other way round."""
    failure = first = failed(1)
    chain = []
    for number in range(10_000):
        failure = DependencyFailure({failure.run: failure}, run=f"after-{number}")
        _unseen.add(failure, failure.run)
        chain.append(failure)
    assert _unseen.report().startswith(
        "1 failed run that nobody looked at: bad-1; 10000 more did not run because an input"
    )
    _unseen.seen(first)
    assert _unseen.report().startswith("10000 runs that nobody looked at did not run because an input failed: after-0,")
    _unseen.seen(chain[4999])
    assert _unseen.count == 5000
    _unseen.seen(chain[-1])
    assert _unseen.report() == ""
    while chain:  # from the top: freeing it by recursion would be deep
        chain.pop().dependencies.clear()


def test_a_failure_that_travels_leaves_its_mark_behind():
    """What is counted here is not counted in another process."""
    import pickle

    assert "_unseen" not in vars(pickle.loads(pickle.dumps(failed(1))))
