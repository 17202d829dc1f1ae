"""Import a contestant's library when it is its turn, or say why the contestant is skipped.

A fresh interpreter must not pay for the imports of the others, so no contestant module imports a peer at its top.
"""

from importlib import import_module

TYPE_CHECKING = False  # `typing` costs a bare interpreter milliseconds and pages
if TYPE_CHECKING:
    from typing import Any


class Skip(Exception):  # noqa: N818 - it is no error: the row goes on without this contestant
    """This contestant can't run here; the text is the reason, printed in the table."""


def peer(name: str) -> "Any":
    """Return the module `name`; raise Skip when it isn't installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Skip(f"not installed: {error.name or name}") from None


def ours() -> "Any":
    """Return this repository's woflo; raise Skip for a namesake."""
    woflo = peer("woflo")
    if not hasattr(woflo, "TaskRun"):
        raise Skip("the woflo on the path isn't this one")
    return woflo


def upstream() -> "Any":
    """Return woflo 0.8 from PyPI, which has the same import name; the harness sets the path.

    Its two log lines per run are switched off, in its favour: they cost more than the run.
    """
    woflo = peer("woflo")
    if hasattr(woflo, "TaskRun"):
        raise Skip("woflo 0.8 isn't on the path")
    import_module("logging").getLogger("woflo").setLevel("WARNING")
    return woflo
