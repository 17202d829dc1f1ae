"""Fixtures of the fault tests: `start_case` (steer it) and `run_case` (to its end)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .harness import HANG_LIMIT, ORPHANS_LIMIT, Case, Outcome, open_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start_case(tmp_path: Path) -> Iterator[Callable[..., Case]]:
    """Start a case and steer it: `start_case(source, runner=…) -> Case`."""
    yield from open_cases(tmp_path)


@pytest.fixture
def run_case(start_case: Callable[..., Case]) -> Callable[..., Outcome]:
    """Run a case to its end: `run_case(source, runner=…, expect=0) -> Outcome`."""

    def run(
        source: str,
        *,
        expect: Any = 0,
        limit: float = HANG_LIMIT,
        orphans_limit: float = ORPHANS_LIMIT,
        **options: Any,
    ) -> Outcome:
        return start_case(source, **options).wait(expect, limit, orphans_limit)

    return run
