"""A function's code counts with all that it leads to in the project, and with nothing else."""

from __future__ import annotations

import types

from woflo._code import changed, code_of


def made(source: str) -> dict[str, object]:
    """The names of a module made of `source`."""
    module = types.ModuleType("pipeline")
    exec(compile(source, "pipeline.py", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


BEFORE = """
LIMIT = 3
def clean(x):
    return [y for y in x if y > LIMIT]
def train(x, depth=2):
    return clean(x), depth
"""


def difference(after: str) -> str:
    """What changed for `train`, in words; "" if nothing did."""
    old, new = code_of(made(BEFORE)["train"]), code_of(made(after)["train"])
    return "" if old.digest == new.digest else changed(old.parts, new.parts)


def test_what_the_function_leads_to_counts() -> None:
    """An edit of a helper, of a global or of a default is noticed and named."""
    assert difference(BEFORE.replace("y > LIMIT", "y >= LIMIT")) == "helper clean() in pipeline"
    assert difference(BEFORE.replace("LIMIT = 3", "LIMIT = 4")) == "global LIMIT in pipeline"
    assert difference(BEFORE.replace("depth=2", "depth=3")) == "default of 'depth'"
    assert difference(BEFORE.replace("clean(x), depth", "depth, clean(x)")) == "train() itself"


def test_what_does_not_change_results_does_not_count() -> None:
    """Comments, line numbers, docstrings and strangers change nothing."""
    assert difference(BEFORE.replace("return clean", "# why\n\n    return clean")) == ""
    assert difference(BEFORE.replace("def clean(x):", 'def clean(x):\n    "Clean."')) == ""
    assert difference(BEFORE + "def other():\n    return train\n") == ""


def test_a_rebound_name_is_noticed() -> None:
    """The second look at the same function sees what its names mean now."""
    space = made(BEFORE)
    before = code_of(space["train"]).digest
    assert code_of(space["train"]).digest == before
    space["LIMIT"] = 4
    assert code_of(space["train"]).digest != before
