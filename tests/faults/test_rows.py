"""The registry itself."""

from __future__ import annotations

from .rows import ROWS, RUNNERS, TESTS, cells, load_tests


def test_no_cell_is_blank() -> None:
    """Every fault has, for every runner, a test or a reason why there is none."""
    load_tests()
    assert [(row.key, runner) for row, runner, answer in cells() if not answer] == []


def test_no_reason_beside_a_claim() -> None:
    """A runner to which a row applies has tests, not excuses."""
    load_tests()
    missing = [(row.key, runner) for row in ROWS.values() for runner in row.runners if (row.key, runner) not in TESTS]
    assert missing == []
    assert {runner for _, runner in TESTS} <= set(RUNNERS)
