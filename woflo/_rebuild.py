"""Reuse or run, and why: a decider. Values in, a Decision out; no store, no clock, no files.

A *recipe* is everything that a step's products follow from: its code, its options and the digests of its inputs; its key is a
digest of all of it. A *trace* is the record of one making: a recipe, and the digests of what came out. The default,
`traces`, reuses exactly what was made by the same recipe (constructive traces: Mokhov, Mitchell and Peyton Jones, "Build
Systems à la Carte", 2018), so an input that was made anew with the same content doesn't make its users run.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    class Record(Protocol):
        """What is asked of a trace."""

        @property
        def code(self) -> str: ...
        @property
        def parts(self) -> Mapping[str, str]: ...
        @property
        def options(self) -> Mapping[str, str]: ...
        @property
        def inputs(self) -> Mapping[str, str]: ...


__all__ = ["REASONS", "Decision", "Facts", "Recipe", "always", "exists", "once", "traces"]

REASONS = (
    "first run",
    "code changed",
    "option changed",
    "input changed",
    "product missing",  # it was recorded, but never kept, or somebody has removed it
    "entry corrupt",
    "forced",
    "volatile",
    "up to date",
)
_SHOWN = 12  # hex digits of a digest that people are shown


class Decision:
    """Whether what a step made before is used again, and why.

    Attributes:
        reuse: True: nothing runs.
        reason: one of `REASONS`.
        detail: what exactly, for people: which helper, which input and both of its digests; may be empty.
    """

    __slots__ = ("detail", "reason", "reuse")
    reuse: bool
    reason: str
    detail: str

    def __init__(self, reuse: bool, reason: str, detail: str = "") -> None:
        self.reuse = reuse
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason

    def __repr__(self) -> str:
        return f"<Decision {'reuse' if self.reuse else 'run'}: {self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decision) and (self.reuse, self.reason, self.detail) == (
            other.reuse,
            other.reason,
            other.detail,
        )

    def __hash__(self) -> int:
        return hash((self.reuse, self.reason, self.detail))

    def __reduce__(self) -> tuple[Any, ...]:
        return Decision, (self.reuse, self.reason, self.detail)


class Recipe:
    """What a step's products follow from.

    Attributes:
        key: the digest of all that follows, hex: the name of the trace.
        code: the digest of the code, hex.
        parts: what the code is made of, as people call it → its digest or version.
        options: option → digest.
        inputs: input → digest.
    """

    __slots__ = ("code", "inputs", "key", "options", "parts")
    key: str
    code: str
    parts: Mapping[str, str]
    options: Mapping[str, str]
    inputs: Mapping[str, str]

    def __init__(
        self,
        key: str,
        code: str,
        parts: Mapping[str, str],
        options: Mapping[str, str],
        inputs: Mapping[str, str],
    ) -> None:
        self.key = key
        self.code = code
        self.parts = parts
        self.options = options
        self.inputs = inputs

    def __repr__(self) -> str:
        return f"<Recipe {self.key[:_SHOWN]}>"


class Facts:
    """What is known of earlier makings, as the store tells it.

    Attributes:
        same: the trace of exactly this recipe; None: there is none that can be read.
        last: the trace of the step's last making, whatever its recipe; None if it is not known.
        corrupt: whether there is a trace of this recipe, or a product of it, that can't be read.
        there: whether the products that `same` (for `exists`: any trace, or none) speaks of can be had.
    """

    __slots__ = ("corrupt", "last", "same", "there")

    def __init__(
        self, same: Record | None = None, last: Record | None = None, *, corrupt: bool = False, there: bool = False
    ) -> None:
        self.same = same
        self.last = last
        self.corrupt = corrupt
        self.there = there


def traces(recipe: Recipe, facts: Facts) -> Decision:
    """Reuse what the same recipe made; else say what differs from the last making."""
    if facts.same is not None:
        if facts.there:
            return Decision(True, "up to date")
        if facts.corrupt:
            return Decision(False, "entry corrupt", "a product that was kept can't be read")
        return Decision(False, "product missing", "what it made was not kept, or was removed")
    if facts.corrupt:
        return Decision(False, "entry corrupt", "its record can't be read")
    return _difference(recipe, facts.last)


def once(recipe: Recipe, facts: Facts) -> Decision:  # noqa: ARG001 - all rebuilders are called alike
    """Reuse what was made last, whatever has changed since."""
    if facts.last is None and facts.same is None:
        return Decision(False, "entry corrupt" if facts.corrupt else "first run")
    return Decision(True, "up to date") if facts.there else Decision(False, "product missing")


def exists(recipe: Recipe, facts: Facts) -> Decision:  # noqa: ARG001
    """Reuse whatever is there, even if nothing is known of how it was made."""
    if facts.there:
        return Decision(True, "up to date", "it exists; nothing says how it was made")
    return Decision(False, "entry corrupt" if facts.corrupt else "first run")


def always(recipe: Recipe, facts: Facts) -> Decision:  # noqa: ARG001
    """Run."""
    return Decision(False, "volatile")


def _difference(recipe: Recipe, last: Record | None) -> Decision:
    """Why there is no trace of this recipe: what is different from the last making."""
    if last is None:
        return Decision(False, "first run")
    if last.code != recipe.code:
        return Decision(False, "code changed", changed_parts(last.parts, recipe.parts))
    for reason, before, now in (
        ("option changed", last.options, recipe.options),
        ("input changed", last.inputs, recipe.inputs),
    ):
        if dict(before) != dict(now):
            return Decision(False, reason, _listed(before, now))
    return Decision(False, "product missing", "its record was removed")


def changed_parts(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What of some code changed, in one line, the task itself first."""
    words = [name for name in now if name in before and before[name] != now[name]]
    words += [f"{name} (new)" for name in now if name not in before]
    words += [f"{name} (no longer used)" for name in before if name not in now]
    shown = ", ".join(words[:3])
    return f"{shown}, and {len(words) - 3} more" if len(words) > 3 else shown


def _listed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    words = [
        f"{name} ({before[name][:_SHOWN]} → {digest[:_SHOWN]})"
        for name, digest in now.items()
        if name in before and before[name] != digest
    ]
    words += [f"{name} (new, {digest[:_SHOWN]})" for name, digest in now.items() if name not in before]
    words += [f"{name} (no longer given)" for name in before if name not in now]
    return ", ".join(words)
