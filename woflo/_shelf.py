"""StoreShelf: products of steps in a store: a trace for each making, a blob for each value.

Beside the trace of each recipe there is one of each step's last making, by scope and name: it explains the next one and
says how long it took. It is written last, and nothing but explanations depends on it.
"""

from __future__ import annotations

import sys
import time
from functools import partial

from woflo import events
from woflo._build import Found, Product
from woflo._fingerprint import cache_key
from woflo._rebuild import Decision, Facts, traces
from woflo.errors import StoreError
from woflo.store import Trace, Unencodable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from woflo._build import Step
    from woflo._code import Code
    from woflo._rebuild import Recipe
    from woflo.store import Store

__all__ = ["StoreShelf", "trace_of", "warn_of_change", "warn_of_loose"]

_VERSIONS = {"python": ".".join(map(str, sys.version_info[:3])), "platform": sys.platform}


class StoreShelf:
    """A shelf (see `_build`) over a store."""

    def __init__(self, store: Store, scope: str, told: set[str] | None = None) -> None:
        """Keep products in a store.

        Args:
            store: where.
            scope: what tells steps of the same name apart: last makings are remembered by scope and name.
            told: steps of which was said that they can't be kept; it grows. None: said once by each shelf.
        """
        self._store = store
        self._scope = scope
        self._told: set[str] = set() if told is None else told

    def find(self, step: Step, recipe: Recipe) -> Found:
        store = self._store
        trace = store.trace(recipe.key)
        if trace is None:
            last = store.trace(self._last(step))
            facts = Facts(None, last, corrupt=store.damaged(recipe.key))
            return Found(traces(recipe, facts), None, None if last is None else last.seconds)
        outputs = trace.outputs
        if any(name not in outputs for name in step.produces):
            return Found(Decision(False, "product missing", "it did not produce all of these"), None, trace.seconds)
        small = trace.small or {}
        products = [
            Product(digest, load=partial(self._unpack, small[name]))
            if name in small
            else Product(digest, load=store.get if store.has(digest) else None)
            for name in step.produces
            for digest in (outputs[name],)
        ]
        corrupt = any(store.damaged(one.digest) for one in products)
        facts = Facts(trace, there=all(one.kept for one in products), corrupt=corrupt)
        return Found(traces(recipe, facts), products, trace.seconds)

    def seconds(self, step: Step) -> float | None:
        """How long the step's last making took, whatever it was made of; None: unknown."""
        last = self._store.trace(self._last(step))
        return None if last is None else last.seconds

    def restore(self, step: Step, name: str) -> bool:
        """Say that a step changed what it was given; it is loaded again for whoever comes next, if it was kept."""
        warn_of_change(step.name, name)
        return True

    def _unpack(self, small: Any, _digest: str) -> Any:
        return self._store.value_of(small)

    def keep(self, step: Step, recipe: Recipe, values: Sequence[Any], seconds: float) -> list[Product]:
        products: list[Product] = []
        small: dict[str, Any] = {}
        kept = step.keep
        for name, value in zip(step.produces, values, strict=True):
            if step.keep:
                try:
                    digest, texts = self._store.keep(value)
                except (Unencodable, StoreError) as error:
                    self._warn(step, name, error)
                    kept = False
                else:
                    if texts is not None:
                        small[name] = texts
                    load = self._store.get if texts is None else partial(self._unpack, texts)
                    products.append(Product(digest, value, load))
                    continue
            products.append(Product(cache_key(recipe.key, name), value))
        outputs = {name: product.digest for name, product in zip(step.produces, products, strict=True)}
        trace = trace_of(step.name, recipe, outputs, kept=kept, seconds=seconds, small=small or None)
        try:
            self._store.record(recipe.key, trace)
            self._store.record(self._last(step), trace, durable=False)
        except StoreError as error:
            self._warn(step, "record", error)
        return products

    def _last(self, step: Step) -> str:
        return cache_key("last", self._scope, step.name)

    def _warn(self, step: Step, what: str, error: BaseException) -> None:
        """Say once for each step that what it makes isn't kept, and why."""
        if step.name not in self._told:
            self._told.add(step.name)
            events.warn(f"{step.name}: {what!r} is not kept, and will be made again when it is wanted: {error}")


# What a program holds in its globals and no result follows from.
_HARMLESS = ("(logging.", "(loguru.", "(_thread.", "(threading.")
_warned: set[str] = set()  # of code, in this process


def warn_of_loose(name: str, code: Code) -> None:
    """Say once of what a task or step refers to that it can't be digested, and that a change of it isn't noticed."""
    for part in code.loose:
        if part not in _warned and not any(kind in part for kind in _HARMLESS):
            _warned.add(part)
            events.warn(
                f"{name}: {part} has no digest and counts by its type only: another one is not noticed; an argument would be"
            )


def warn_of_change(step: str, name: str) -> None:
    """Say that what a step was given was changed in place while it ran."""
    events.warn(
        f"{step}: {name!r}, which it was given, was changed in place while it ran; others get it as it was made, "
        "where it was kept: let the step work on a copy"
    )


def trace_of(
    name: str,
    recipe: Recipe,
    outputs: Mapping[str, str],
    *,
    kept: bool,
    seconds: float,
    small: dict[str, Any] | None = None,
) -> Trace:
    """The record of a making that has just ended."""
    return Trace(
        task=name,
        code=recipe.code,
        parts=dict(recipe.parts),
        options=dict(recipe.options),
        inputs=dict(recipe.inputs),
        outputs=dict(outputs),
        kept=kept,
        seconds=seconds,
        versions=_VERSIONS,
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        small=small,
    )
