"""The public names and signatures, compared with tests/public_names.txt: a removed keyword is a decision.

After a decision: `python -m tests.test_public_names > tests/public_names.txt`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import woflo

SNAPSHOT = Path(__file__).with_name("public_names.txt")


def public_modules() -> list[str]:
    names = [found.name for found in pkgutil.walk_packages(woflo.__path__, "woflo.")]
    return ["woflo", *sorted(name for name in names if not any(part.startswith("_") for part in name.split(".")))]


def signature(thing: object) -> str:
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):  # built-in constructors have none
        return "(...)"
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def member(name: str, found: object) -> str:
    if isinstance(found, staticmethod | classmethod):
        return f"{type(found).__name__} {name}{signature(found.__func__)}"
    if inspect.isfunction(found):
        return f"{name}{signature(found)}"
    if isinstance(found, property):
        return f"property {name}"
    return f"attribute {name}"  # slots, class attributes, descriptors


def lines_of_class(thing: type) -> list[str]:
    own = {name: found for name, found in vars(thing).items() if not name.startswith("_")}
    # A field of a slotted or dataclass class is public too when it is only annotated.
    fields = inspect.get_annotations(thing)
    own = {name: None for name in fields if not name.startswith("_")} | own
    # A new test of the contract is no change of an interface.
    return [f"    {member(name, own[name])}" for name in sorted(own) if not name.startswith("test_")]


def lines_of(module: ModuleType, name: str) -> list[str]:
    thing = getattr(module, name)
    home = getattr(thing, "__module__", module.__name__)
    if isinstance(thing, ModuleType):
        return [f"  module {name}"]
    if home != module.__name__ and home.startswith("woflo."):
        return [f"  {name}  from {home}"]
    if inspect.isclass(thing):
        # typing's Generic or what stands in for it: nobody's business
        bases = ", ".join(base.__name__ for base in thing.__bases__ if base.__name__ != "Generic")
        return [f"  class {name}({bases}){signature(thing)}", *lines_of_class(thing)]
    if callable(thing):
        return [f"  {name}{signature(thing)}"]
    return [f"  {name}"]


def snapshot() -> list[str]:
    lines: list[str] = []
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        lines.append(module_name)
        for name in sorted(getattr(module, "__all__", ())):
            lines += lines_of(module, name)
    return lines


def test_public_names_and_signatures_are_the_decided_ones() -> None:
    """Nobody loses a name or a keyword by accident."""
    decided = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    difference = difflib.unified_diff(decided, snapshot(), "decided", "now", lineterm="", n=1)
    text = "\n".join(difference)
    assert not text, f"if this was decided: {__doc__}\n{text}"


@pytest.mark.parametrize("name", public_modules())
def test_all_can_be_had(name: str) -> None:
    """`from woflo import *` and `dir(woflo)` show each public name, once, and each can be had."""
    module = importlib.import_module(name)
    names = list(module.__all__)
    assert len(names) == len(set(names))
    assert all(hasattr(module, each) for each in names)
    assert set(names) <= set(dir(module))


@pytest.mark.parametrize("name", woflo.__all__)
def test_public_things_are_documented(name: str) -> None:
    """Each public name says in one line of at most 80 characters what it is."""
    thing = getattr(woflo, name)
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        pytest.skip("a value or an alias")
    first = (inspect.getdoc(thing) or "").split("\n", 1)[0]
    assert 0 < len(first) <= 80, first


if __name__ == "__main__":
    print("\n".join(snapshot()))
