"""What woflo promises of every store, as tests that anybody's mapping can run.

Subclass ``StoreContract`` and let pytest collect it::

    class TestMine(StoreContract):
        def make_mapping(self, folder):
            return MyMapping(folder)

Rules: a promise is checked through the public names only, and over whatever mapping is given. pytest isn't imported here.
"""
# ruff: noqa: S101 - a contract is made of asserts, and expected values stand where they are compared

from __future__ import annotations

import contextlib
import math
import pickle
import struct
import threading
import unittest
from typing import TYPE_CHECKING, Any, ClassVar

from woflo.errors import UsageError
from woflo.store import Store, Trace, Unencodable

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

__all__ = ["StoreContract"]

_KEY, _OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
_THREADS = 8
_LARGE = 5_000_000  # bytes: more than any buffer on the way

_VALUES: list[Any] = [
    None, True, False, 0, -1, 10**30, 0.0, -0.0, 0.1, math.inf, -math.inf,
    "", "text", "Grüße ☃", "a\0b", "\ud800\udc00", b"", b"\0\xff", bytearray(b"xy"),
    [], {}, [1, [2, {"three": [None, True, 0.5]}]], {"b": 1, "a": 2}, (), (1, 2), [(1, 2)], {1: 2}, {"a", "b"}, frozenset({1}),
    1j, range(3), 2**20000,
]  # fmt: skip


def _raising(kind: type[BaseException]) -> Any:
    @contextlib.contextmanager
    def expect() -> Iterator[list[Any]]:
        errors: list[Any] = []
        try:
            yield errors
        except kind as error:
            errors.append(error)
            return
        raise AssertionError(f"{kind.__name__} was expected")

    return expect()


def _trace(**others: Any) -> Trace:
    fields: dict[str, Any] = {
        "task": "clean", "code": _KEY, "parts": {"clean() itself": "ab", "global LIMIT in pipeline.py": "cd"},
        "options": {"depth": _OTHER}, "inputs": {"rows": _KEY}, "outputs": {"clean": _OTHER}, "kept": True, "seconds": 0.25,
        "versions": {"numpy": "2.0"}, "when": "2026-01-02T03:04:05Z", "small": None,
    }  # fmt: skip
    return Trace(**{**fields, **others})


class StoreContract:
    """The promises. A subclass makes the mapping; each test makes a new one."""

    atomic: ClassVar[bool] = True
    """Whether a reader of the mapping finds what was there before a write or after it, nothing in between."""

    def make_mapping(self, folder: Path) -> MutableMapping[str, bytes]:
        """An empty mapping of names to bytes; ``folder`` is an empty folder that it may use."""
        raise NotImplementedError

    def make(self, folder: Path, **options: Any) -> Store:
        """A store over a new mapping."""
        return Store(self.make_mapping(folder), **options)

    # values

    def test_values_come_back(self, tmp_path: Path) -> None:
        """What was put in is what comes out: equal, of the same type, with its order and its bits."""
        store = self.make(tmp_path)
        for value in _VALUES:
            again = store.get(store.put(value))
            assert type(again) is type(value)
            assert again == value
            if not isinstance(value, (set, frozenset)):
                assert pickle.dumps(again) == pickle.dumps(value)

    def test_a_nan_comes_back_with_its_bits(self, tmp_path: Path) -> None:
        """Not a number, whichever."""
        store = self.make(tmp_path)
        for bits in ("7ff8000000000000", "fff8000000000000", "7ff8000000000abc"):
            (nan,) = struct.unpack(">d", bytes.fromhex(bits))
            assert struct.pack(">d", store.get(store.put(nan))).hex() == bits
            assert struct.pack(">d", store.get(store.put([nan]))[0]).hex() == bits

    def test_a_large_value_comes_back(self, tmp_path: Path) -> None:
        """Of more bytes than one read or write takes."""
        store = self.make(tmp_path)
        value = bytes(range(256)) * (_LARGE // 256)
        assert store.get(store.put(value)) == value
        assert store.get(store.put([value, value[1:]])) == [value, value[1:]]

    def test_a_value_is_the_callers_own(self, tmp_path: Path) -> None:
        """Changing what a store gave changes nothing in it."""
        store = self.make(tmp_path)
        digest = store.put({"rows": [1, 2]})
        store.get(digest)["rows"].append(3)
        assert store.get(digest) == {"rows": [1, 2]}

    def test_a_digest_is_of_the_bytes(self, tmp_path: Path) -> None:
        """Equal values of a type have one digest, others differ; a store can be asked for it."""
        store = self.make(tmp_path)
        digests = [store.put(value) for value in (1, 1.0, True, "1", b"1", [1], {"1": 1}, None, "None")]
        assert len(set(digests)) == len(digests)
        assert store.put([1]) == store.put([1])
        assert all(store.has(digest) for digest in digests)
        assert all(len(digest) == 64 for digest in digests)

    def test_what_was_never_kept_is_missing(self, tmp_path: Path) -> None:
        """`KeyError` for a value, None for a trace."""
        store = self.make(tmp_path)
        with _raising(KeyError):
            store.get(_KEY)
        assert store.trace(_KEY) is None
        assert not store.has(_KEY)

    def test_what_was_removed_is_missing(self, tmp_path: Path) -> None:
        """`delete` and `forget` say whether there was something."""
        store = self.make(tmp_path)
        digest = store.put("x" * 2000)
        store.record(_KEY, _trace())
        assert store.delete(digest)
        assert store.forget(_KEY)
        assert not store.delete(digest)
        assert not store.forget(_KEY)
        assert not store.has(digest)
        assert store.trace(_KEY) is None

    def test_an_unencodable_value_leaves_nothing(self, tmp_path: Path) -> None:
        """`Unencodable` names the way to the part that can't be kept."""
        store = self.make(tmp_path)
        with _raising(Unencodable) as errors:
            store.put({"rows": [1, threading.Lock()]})
        assert errors[0].path == "['rows'][1]"
        assert not list(store.mapping)

    def test_small_values_need_no_record(self, tmp_path: Path) -> None:
        """`keep` gives small ones back as texts, which make the value again."""
        store, other = self.make(tmp_path / "one"), self.make(tmp_path / "two")
        for value in _VALUES[:-1]:
            digest, small = store.keep(value)
            assert small is not None
            assert store.value_of(small) == value
            assert digest == other.put(value)
        assert not list(store.mapping)
        digest, small = store.keep("x" * 2000)
        assert small is None
        assert store.has(digest)

    # traces

    def test_a_trace_comes_back(self, tmp_path: Path) -> None:
        """With all its fields, whatever text they hold; a second one takes the place of the first."""
        store = self.make(tmp_path)
        small = {"clean": store.keep([1, "\n\ud800☃"])[1]}
        for trace in (_trace(), _trace(small=small, kept=False, task="größer\n\ud800")):
            store.record(_KEY, trace)
            again = store.trace(_KEY)
            assert again == trace
            assert again is not None
            assert Trace(**again.as_dict()) == trace
        assert store.value_of(small["clean"] or []) == [1, "\n\ud800☃"]
        assert store.trace(_OTHER) is None

    # damage

    def test_swapped_records_are_noticed(self, tmp_path: Path) -> None:
        """A record holds for its own name only."""
        store = self.make(tmp_path)
        one, two = store.put("one" * 1000), store.put("two" * 1000)
        store.record(_KEY, _trace())
        store.record(_OTHER, _trace(task="another"))
        mapping = store.mapping
        for first, second in ((f"blob/{one}", f"blob/{two}"), (f"trace/{_KEY}", f"trace/{_OTHER}")):
            mapping[first], mapping[second] = mapping[second], mapping[first]
        fresh = Store(mapping)
        assert set(fresh.verify()) == {f"blob/{one}", f"blob/{two}", f"trace/{_KEY}", f"trace/{_OTHER}"}
        for digest in (one, two):
            with _raising(KeyError):
                fresh.get(digest)
        assert fresh.trace(_KEY) is None
        assert fresh.damaged(_KEY)

    def test_a_damaged_record_is_mended_by_writing_it_again(self, tmp_path: Path) -> None:
        """Damage is a miss; what is made anew takes its place."""
        store = self.make(tmp_path)
        value = "value" * 1000
        digest = store.put(value)
        name = f"blob/{digest}"
        data = bytes(store.mapping[name])
        for bad in (b"", data[:-1], data[:-1] + b"?", b"w" + data, data.replace(b"5000", b"9" * 18, 1)):
            store.mapping[name] = bad
            with _raising(KeyError):
                store.get(digest)
            assert not store.has(digest)
            assert store.put(value) == digest
            assert store.get(digest) == value
        assert not store.verify()

    def test_a_secret_is_needed_to_write_what_is_believed(self, tmp_path: Path) -> None:
        """What a store without it, or with another one, has written counts as damaged."""
        ours = self.make(tmp_path, secret=b"s" * 32)
        digest = ours.put("ours" * 1000)
        ours.record(_KEY, _trace())
        for other in (Store(ours.mapping), Store(ours.mapping, secret=b"t" * 32)):
            with _raising(KeyError):
                other.get(digest)
            assert other.trace(_KEY) is None
            other.record(_OTHER, _trace())
        assert ours.trace(_OTHER) is None
        assert ours.trace(_KEY) == _trace()
        assert ours.get(digest) == "ours" * 1000

    def test_a_safe_store_has_no_pickles(self, tmp_path: Path) -> None:
        """It writes none and reads none, and keeps what needs none."""
        safe = self.make(tmp_path, safe=True)
        values: list[Any] = [None, 1, 0.5, math.inf, "text", b"bytes", [1, {"a": [0.5, None]}], [[]] * 2]
        for value in values:
            assert safe.get(safe.put(value)) == value
        with _raising(Unencodable):
            safe.put([1, (2, 3)])
        digest = Store(safe.mapping).put((1, 2))
        with _raising(KeyError):
            safe.get(digest)

    def test_names_lead_nowhere(self, tmp_path: Path) -> None:
        """Only hexadecimal digits are keys and digests; anything else is a `UsageError` before the mapping is asked."""
        store = self.make(tmp_path)
        for name in (
            "",
            "..",
            "../" * 8 + "etc/passwd",
            "a" * 15,
            "A" * 64,
            "g" * 64,
            "/" + "a" * 63,
            "a" * 63 + "\n",
            "a\0" * 32,
        ):
            for use in (store.get, store.has, store.delete, store.forget):
                with _raising(UsageError):
                    use(name)
            with _raising(UsageError):
                store.record(name, _trace())
            with contextlib.suppress(UsageError):
                assert store.trace(name) is None
        assert not list(store.mapping)

    # others

    def test_many_threads_at_once(self, tmp_path: Path) -> None:
        """Writers of one value and of one key agree; readers see it whole or not at all."""
        store = self.make(tmp_path)
        if not self.atomic:
            raise unittest.SkipTest("a reader may find what is half written, which it notices")
        value: dict[str, list[int]] = {"rows": list(range(500))}
        wrong: list[object] = []

        def work(number: int) -> None:
            for turn in range(5):
                try:
                    digest = store.put(value)
                    store.record(_KEY, _trace(task=f"{number} {turn}"))
                    trace = store.trace(_KEY)
                    if store.get(digest) != value or trace is None or trace.code != _KEY:
                        wrong.append((number, turn))
                except BaseException as error:
                    wrong.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert not store.verify()
        assert len(list(store.mapping)) == 2
