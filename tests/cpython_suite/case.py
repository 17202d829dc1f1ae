"""In the interpreter that has the suite: list its cases, or run one of them and write down what became of it.

python -m tests.cpython_suite.case list OUT
python -m tests.cpython_suite.case run NAME OUT
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import unittest
from pathlib import Path

from tests.cpython_suite import facade

PACKAGE = "test.test_concurrent_futures"


def load() -> dict[str, type]:
    """The mixins that a case takes its executor from, by kind; every test module is loaded with ours in them."""
    facade.install()
    util = importlib.import_module(f"{PACKAGE}.util")
    mixins = {
        "thread": util.ThreadPoolMixin,
        "fork": util.ProcessPoolForkMixin,
        "spawn": util.ProcessPoolSpawnMixin,
        "forkserver": util.ProcessPoolForkserverMixin,
    }
    for kind, mixin in mixins.items():
        mixin.executor_type = facade.ThreadPoolExecutor if kind == "thread" else facade.ProcessPoolExecutor
    return mixins


def cases() -> list[tuple[str, str]]:
    """Kind and name of each case that takes an executor from a mixin."""
    mixins = load()
    found = []
    package = importlib.import_module(PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("test_"):
            continue
        loaded = importlib.import_module(f"{PACKAGE}.{module.name}")
        for one in vars(loaded).values():
            if isinstance(one, type) and issubclass(one, unittest.TestCase) and one.__module__ == loaded.__name__:
                for kind, mixin in mixins.items():
                    if issubclass(one, mixin):
                        names = unittest.defaultTestLoader.getTestCaseNames(one)
                        found += [(kind, f"{module.name}.{one.__name__}.{name}") for name in names]
    return sorted(set(found))


def run(name: str) -> dict[str, str]:
    """What became of a case: passed, failed (and how), or skipped (and why)."""
    load()
    suite = unittest.defaultTestLoader.loadTestsFromName(f"{PACKAGE}.{name}")
    result = unittest.TestResult()
    suite.run(result)
    from test import support

    troubles = [text for _, text in result.failures + result.errors]
    if troubles:
        return {"outcome": "failed", "text": "\n".join(troubles)}
    if result.skipped:
        return {"outcome": "skipped", "text": result.skipped[0][1]}
    if support.environment_altered:
        return {"outcome": "failed", "text": "it left threads or processes behind"}
    return {"outcome": "passed", "text": ""}


if __name__ == "__main__":
    what = cases() if sys.argv[1] == "list" else run(sys.argv[2])
    Path(sys.argv[-1]).write_text(json.dumps(what), encoding="utf-8")
