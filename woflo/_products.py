"""WorkflowProducts: where a workflow's products last, by name, over a Store.

Rule 1: a record is written after the bytes that it speaks of, so a crash leaves a product whole, as it was, or absent.
Rule 2: the records in the store are the truth; `manifest.json` is made from them, for people, and never read.
Rule 3: names never become parts of paths.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import contextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from woflo import _exceptions, events
from woflo._codec import Unencodable
from woflo._fingerprint import cache_key
from woflo.errors import StoreError, UsageError
from woflo.store import Store, Trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

__all__ = ["WorkflowProducts"]

MANIFEST = "manifest.json"
_KEY = ""  # the output of a record that is no product: the key that it was made under


class WorkflowProducts:
    """Products that last: saved under their names, with what they were made from.

    Built over a Store: a folder of the user's own, or any mapping of bytes. What it holds can be read in `manifest.json`.

    >>> products = WorkflowProducts({})
    >>> _ = products.save("mean", 4.5, cache_key="a1")
    >>> products.load("mean"), products.fresh("mean", "a1"), products.fresh("mean", "b2")
    (4.5, True, False)
    """

    __module__ = "woflo.workflow"  # where its users find it

    def __init__(self, path: str | os.PathLike[str] | MutableMapping[str, bytes] | Store) -> None:
        """Use a place; it is made when something is first saved.

        Args:
            path: a folder, a Store, or a mapping of bytes.
        """
        self._store = Store.of(path)
        self._folder = os.path.abspath(os.path.expanduser(path)) if isinstance(path, (str, os.PathLike)) else None
        self._places: dict[str, str] = {}  # under which key the record of a product lies
        self._replaced: set[str] = set()  # digests of what was saved or removed over, whose bytes may be nobody's now
        self._changed = False
        self._waiting = 0  # blocks of `together` that are open

    def save(
        self, name: str, obj: Any, *, cache_key: str | None = None, inputs: Mapping[str, Any] | None = None
    ) -> str:
        """Save a product, in the place of an earlier one of its name; return the digest of its content, hex.

        Args:
            name: any text.
            obj: its value.
            cache_key: what it follows from: `fresh` compares it. None: it is never fresh.
            inputs: what it was made from, for people: `config` (field → value), `requires` (name → digest); of a runner also
                `step`, `code` (digest), `parts` (of the code) and `seconds`.

        Raises:
            UsageError: the name is no text.
            Unencodable: the value can't be written as bytes; that is recorded under the key.
            StoreError: it can't be written now.
        """
        if not isinstance(name, str) or not name:
            raise UsageError(f"a product's name is a text, not {name!r}")
        before = self._trace(name)
        try:
            mark, small = self._store.keep(obj)
        except Unencodable:
            self._record(name, "", None, cache_key, inputs or {})
            self._changed_from(before)
            raise
        self._record(name, mark, small, cache_key, inputs or {})
        self._changed_from(before)
        return mark

    def _record(self, name: str, mark: str, small: list[str] | None, key: str | None, facts: Mapping[str, Any]) -> None:
        config = facts.get("config") or {}
        trace = Trace(
            task=facts.get("step", ""),
            code=facts.get("code", ""),
            parts=facts.get("parts", {}),
            options={field: value if isinstance(value, str) else repr(value) for field, value in config.items()},
            inputs={required: str(one) for required, one in (facts.get("requires") or {}).items()},
            outputs={name: mark, _KEY: key or ""},
            kept=bool(mark),
            seconds=facts.get("seconds", 0.0),
            versions={"python": platform.python_version()},
            when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            small=None if small is None else {name: small},
        )
        self._store.record(_place(name), trace)

    def load(self, name: str) -> Any:
        """The value of a product.

        Raises:
            KeyError: there is none, or it is damaged.
        """
        trace = self._trace(name)
        if trace is None or not trace.kept:
            raise KeyError(name)
        if trace.small:
            return self._store.value_of(trace.small[name])
        return self._store.get(trace.outputs[name])

    def exists(self, name: str) -> bool:
        """Whether there is a product of this name, whatever it was made from."""
        trace = self._trace(name)
        return trace is not None and self._holds(trace, name)

    def fresh(self, name: str, cache_key: str) -> bool:
        """Whether there is a product of this name that was saved under this key."""
        trace = self._trace(name)
        return trace is not None and self._key(trace) == cache_key and self._holds(trace, name)

    def remove(self, name: str) -> None:
        """Remove a product.

        Raises:
            KeyError: there is none.
        """
        trace = self._trace(name)
        if trace is None:
            raise KeyError(name)
        self._store.forget(_place(name))
        self._changed_from(trace)

    def names(self) -> list[str]:
        """The names of all products, sorted; also of those that could not be saved."""
        return list(self._all())

    def manifest(self) -> dict[str, dict[str, Any]]:
        """What is known of each product, by name: as in `manifest.json`."""
        return _manifest(self._all())

    def _trace(self, name: str) -> Trace | None:
        """What is recorded of a product; None if nothing is."""
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = _place(name)
        return self._store.trace(place)

    @staticmethod
    def _key(trace: Trace) -> str:
        """The key that a product was saved under; empty if there was none."""
        return trace.outputs.get(_KEY, "")

    def _holds(self, trace: Trace, name: str) -> bool:
        """Whether the value that a record speaks of is there."""
        return trace.kept and (bool(trace.small) or self._store.has(trace.outputs[name]))

    def _damaged(self, name: str) -> bool:
        """Whether what is recorded of a product can't be read."""
        return self._store.damaged(_place(name))

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block of many changes, after which the manifest is written once."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            self._settle()

    def _changed_from(self, before: Trace | None) -> None:
        """Something was saved or removed, and this was there before."""
        self._changed = True
        if before is not None:
            self._replaced.update(_digests(before))
        self._settle()

    def _settle(self) -> None:
        """Remove the bytes that no record speaks of any more, and write the manifest."""
        if self._waiting or not self._changed:
            return
        self._changed = False
        try:
            used: set[str] = set()
            named = self._all(used)
            for mark in self._replaced - used:
                self._store.delete(mark)
            self._replaced.clear()
            if self._folder is not None:
                _write(os.path.join(self._folder, MANIFEST), _manifest(named))
        except (OSError, StoreError) as error:  # what was saved is safe
            events.warn(f"the manifest of {self!r} can't be written: {_exceptions.safe_str(error)}")

    def _all(self, used: set[str] | None = None) -> dict[str, Trace]:
        """The record of every product, by name; `used` gets the digests that any record in the store speaks of."""
        found = {}
        for place in list(self._store.mapping):
            kind, _, key = place.partition("/")
            trace = self._store.trace(key) if kind == "trace" else None
            if trace is None:
                continue
            if used is not None:
                used.update(_digests(trace))
            for name in trace.outputs:
                if name and _KEY in trace.outputs and _place(name) == key:
                    found[name] = trace
        return dict(sorted(found.items()))

    def __repr__(self) -> str:
        return f"<WorkflowProducts in {self._folder or type(self._store.mapping).__name__}>"


def _place(name: str) -> str:
    """Under which key the record of a product lies: names never become parts of paths."""
    return cache_key("workflow product", name)


def _digests(trace: Trace) -> set[str]:
    """The digests of the values that a record speaks of."""
    return {mark for name, mark in trace.outputs.items() if name != _KEY and mark}


def _manifest(traces: Mapping[str, Trace]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "saved": trace.kept,
            "digest": trace.outputs[name],
            "cache key": trace.outputs[_KEY],
            "step": trace.task,
            "when": trace.when,
            "seconds": round(trace.seconds, 6),
            "config": dict(trace.options),
            "requires": dict(trace.inputs),
            "code": dict(trace.parts),
        }
        for name, trace in traces.items()
    }


def _write(path: str, content: Any) -> None:
    """Write a file for people, whole or not at all."""
    beside = f"{path}.{token_hex(8)}.tmp"
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(file, "w", encoding="utf-8") as text:
            json.dump(content, text, ensure_ascii=False, indent=1)
            text.write("\n")
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
