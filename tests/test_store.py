"""The store over each kind of mapping: StoreContract, and what only some of them can show."""

from __future__ import annotations

import json
import os
import pathlib
import pickle
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from woflo import UsageError, _record, events
from woflo.directory import Directory, default_place
from woflo.store import Store, Trace
from woflo.testing import StoreContract
from woflo.workflow import WorkflowProducts

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The promises are about what is kept, not about when."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class TestDict(StoreContract):
    def make_mapping(self, folder: Path) -> MutableMapping[str, bytes]:
        del folder
        return {}


class TestDirectory(StoreContract):
    def make_mapping(self, folder: Path) -> MutableMapping[str, bytes]:
        return Directory(folder / "store")


class TestFsspecMemory(StoreContract):
    @pytest.fixture(autouse=True)
    def empty(self) -> None:
        fsspec.filesystem("memory").store.clear()

    def make_mapping(self, folder: Path) -> MutableMapping[str, bytes]:
        return fsspec.get_mapper(f"memory://{folder}")


class TestFsspecLocal(StoreContract):
    atomic = False

    def make_mapping(self, folder: Path) -> MutableMapping[str, bytes]:
        return fsspec.get_mapper(f"file://{folder}/files")


def trace(**fields: Any) -> Trace:
    given: dict[str, Any] = {
        "task": "clean", "code": "c0de", "parts": {"clean() itself": "ab"}, "options": {"depth": "0d"}, "inputs": {"rows": "1e"},
        "outputs": {"clean": "5e"}, "kept": True, "seconds": 0.5, "versions": {"numpy": "2.0"}, "when": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    return Trace(**{**given, **fields})


class TestOf:
    def test_what_names_a_store(self, tmp_path: Path) -> None:
        """A store is itself; a mapping, a folder's path and True name one."""
        store = Store({})
        assert Store.of(store) is store
        mapping: dict[str, bytes] = {}
        assert Store.of(mapping).mapping is mapping
        assert Store.of(tmp_path / "store").mapping == Directory(tmp_path / "store")
        assert Store.of(str(tmp_path / "store")).mapping == Directory(tmp_path / "store")
        assert Store.of(True).mapping == Directory(default_place())
        assert not os.path.exists(tmp_path / "store")

    def test_a_folder_in_the_users_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`~` is the user's folder, as in a shell, not a folder of that name."""
        monkeypatch.chdir(tmp_path)
        for variable in ("HOME", "USERPROFILE"):
            monkeypatch.setenv(variable, str(tmp_path / "home"))
        for place in ("~/kept", pathlib.Path("~/kept")):
            Store.of(place).put("text")
            WorkflowProducts(place).save("a", 1)
        assert os.listdir(tmp_path) == ["home"]
        assert sorted(os.listdir(tmp_path / "home" / "kept")) == ["blob", "manifest.json", "trace"]

    @pytest.mark.parametrize("given", [None, False, 3, [], b"bytes", "s3://bucket/folder", "", {1, 2}])
    def test_what_names_none(self, given: Any) -> None:
        """Is said, also an address, which would become the name of a folder."""
        with pytest.raises(UsageError):
            Store.of(given)

    @pytest.mark.parametrize("given", [None, "path", Store({}), ()])
    def test_a_store_wants_a_mapping(self, given: Any) -> None:
        """And says so."""
        with pytest.raises(UsageError):
            Store(given)

    def test_it_says_what_it_is(self, tmp_path: Path) -> None:
        """Where it is, whether it is safe, and that it has a secret."""
        assert repr(Store({})) == "<Store over a dict>"
        store = Store(Directory(tmp_path), safe=True, secret=b"s" * 32)
        assert repr(store) == f"<Store over Directory({str(tmp_path)!r}), safe, with a secret>"

    def test_it_travels(self, tmp_path: Path) -> None:
        """To another process, with what it may do."""
        again = pickle.loads(pickle.dumps(Store(Directory(tmp_path), safe=True)))
        assert (again.mapping, again.safe) == (Directory(tmp_path), True)


class TestTrace:
    def test_its_fields(self) -> None:
        """Are what was given, before and after it was kept, and as a dict."""
        store = Store({})
        store.record("01" * 32, trace(small={"clean": ["json", "1"]}))
        for one in (trace(small={"clean": ["json", "1"]}), store.trace("01" * 32)):
            assert one is not None
            assert (one.task, one.code, one.kept, one.seconds, one.when) == (
                "clean",
                "c0de",
                True,
                0.5,
                "2026-01-02T03:04:05Z",
            )
            assert (one.parts, one.options, one.inputs) == ({"clean() itself": "ab"}, {"depth": "0d"}, {"rows": "1e"})
            assert (one.outputs, one.versions, one.small) == (
                {"clean": "5e"},
                {"numpy": "2.0"},
                {"clean": ["json", "1"]},
            )
            assert Trace(**json.loads(json.dumps(one.as_dict()))) == one
            assert eval(repr(one)) == one
            assert pickle.loads(pickle.dumps(one)) == one

    def test_it_is_frozen(self) -> None:
        """A record of the past."""
        with pytest.raises(AttributeError):
            trace().task = "other"  # type: ignore[misc]
        with pytest.raises(AttributeError):
            trace().more = 1  # type: ignore[attr-defined]
        assert trace() != trace(task="other")
        assert trace() != 3

    def test_it_is_readable(self, tmp_path: Path) -> None:
        """The file is text: a line about itself, and two of JSON."""
        Store(Directory(tmp_path / "store")).record("01" * 32, trace(task="größer"))
        line, hit, rest = (tmp_path / "store" / "trace" / "01" / ("01" * 31)).read_text(encoding="utf-8").splitlines()
        assert line.startswith("woflo 1 trace ")
        assert json.loads(hit)["task"] == "größer"
        assert json.loads(rest)["parts"] == {"clean() itself": "ab"}

    def test_what_is_not_json(self) -> None:
        """Is the caller's mistake."""
        for bad in ({"task": object()}, {"parts": {"a": {1}}}):
            with pytest.raises(UsageError, match="JSON"):
                Store({}).record("01" * 32, trace(**bad))

    def test_sealed_nonsense(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What somebody has sealed although it is no trace is damaged too."""
        said: list[str] = []
        monkeypatch.setattr(events, "warn", said.append)
        name = "trace/" + "01" * 32
        for payload in (b"", b"[]\n", b"{", b"\xff", b"1"):
            seal = _record._digest(payload + name.encode(), None)
            store = Store({name: f"woflo 1 trace {len(payload)} {seal}\n".encode() + payload})
            assert store.trace("01" * 32) is None
        assert len(said) == 5


@pytest.mark.parametrize("small", [["pickle", "no base64!"], ["pickle", "AAAA"], ["json", "{"], ["parquet", "AAAA"]])
def test_a_small_value_that_cannot_be_rebuilt(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a miss, which is said."""
    said: list[str] = []
    monkeypatch.setattr(events, "warn", said.append)
    with pytest.raises(KeyError):
        Store({}).value_of(small)
    assert len(said) == 1


class Odd:
    """Can be written, and be read while the environment says so."""

    def __init__(self) -> None:
        self.text = "x" * 3000

    def __getstate__(self) -> dict[str, str]:
        return {"text": self.text}

    def __setstate__(self, state: dict[str, str]) -> None:
        if "READABLE" not in os.environ:
            raise ValueError("gone")
        self.text = state["text"]


def test_what_cannot_be_rebuilt_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is kept again; it counts as missing until it can be rebuilt."""
    said: list[str] = []
    monkeypatch.setattr(events, "warn", said.append)
    store = Store({})
    digest = store.put(Odd())
    for _ in range(3):
        with pytest.raises(KeyError):
            store.get(digest)
        assert not store.has(digest)
        assert store.damaged(digest)
        assert store.put(Odd()) == digest
        assert not store.has(digest)
    assert len(said) == 1
    monkeypatch.setenv("READABLE", "1")
    assert store.put(Odd()) == digest
    assert store.has(digest)
    assert store.get(digest).text == Odd().text
    monkeypatch.delenv("READABLE")
    with pytest.raises(KeyError):
        store.get(digest)
    assert store.delete(digest)
    assert not store.damaged(digest)


def test_what_cannot_be_rebuilt_may_be_damaged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is written again."""
    monkeypatch.setattr(events, "warn", lambda _: None)
    store = Store({})
    digest = store.put(Odd())
    whole = store.mapping[f"blob/{digest}"]
    with pytest.raises(KeyError):
        store.get(digest)
    store.mapping[f"blob/{digest}"] = whole[:-1]
    with pytest.raises(KeyError):
        store.get(digest)
    store.put(Odd())
    assert store.mapping[f"blob/{digest}"] == whole


def test_the_line_of_a_blob_has_room() -> None:
    """For the longest name of a codec, and for any length."""
    name = "blob/" + "01" * 32
    line = _record.blob_line(name, "x" * 16 + "~" + "0" * 16, 2**62, None)
    assert len(line) == _record.BLOB_LINE
    assert line.endswith(b"\n")


def test_a_trace_is_read_again_when_its_file_changes(tmp_path, monkeypatch):
    """A trace that was read is known as long as its file is the same; a new, a damaged or a removed one is noticed."""
    from woflo import directory

    monkeypatch.setattr(directory, "_SETTLED", -(10**18))
    folder = Directory(tmp_path / "store")
    store = Store(folder)
    key = "ab" * 16
    facts = {
        "code": "",
        "parts": {},
        "options": {},
        "inputs": {},
        "outputs": {},
        "kept": False,
        "versions": {},
        "when": "",
    }
    store.record(key, Trace(task="one", seconds=1.0, **facts))
    first = store.trace(key)
    assert store.trace(key) is first
    Store(folder).record(key, Trace(task="two", seconds=2.0, **facts))
    assert store.trace(key).task == "two"
    folder["trace/" + key] = b"damaged"
    assert store.trace(key) is None
    Store(folder).record(key, Trace(task="two", seconds=2.0, **facts))
    assert store.trace(key).task == "two"
    Store(folder).forget(key)
    assert store.trace(key) is None
