"""The folder under a store: what is on the disk, who may own it, what is tidied up, and where it lies by default."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import woflo
from woflo import StoreError, UsageError, directory
from woflo.directory import Directory, default_place
from woflo.store import Store, Trace

if TYPE_CHECKING:
    from collections.abc import Callable

posix = pytest.mark.skipif(os.name == "nt", reason="owners and modes are POSIX's")
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files to somebody else"
)

KEYS = [f"{number:02x}" * 32 for number in range(10)]
BLOB, TRACE = f"blob/{KEYS[1]}", f"trace/{KEYS[2]}"
HOUR, DAY = 3600.0, 86400.0


def trace(*digests: str, **fields: Any) -> Trace:
    given: dict[str, Any] = {
        "task": "clean",
        "code": "",
        "parts": {},
        "options": {},
        "inputs": {},
        "outputs": {str(place): digest for place, digest in enumerate(digests)},
        "kept": True,
        "seconds": 0.5,
        "versions": {},
        "when": "2026-01-02T03:04:05Z",
    }
    return Trace(**{**given, **fields})


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in time for a power failure is told by the order of the calls."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def folder(root: Path) -> Directory:
    return Directory(root)


@pytest.fixture
def store(folder: Directory) -> Store:
    return Store(folder)


def file_of(folder: Directory, name: str) -> Path:
    kind, digits = name.split("/")
    return Path(folder.path, kind, digits[:2], digits[2:])


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def aged(path: Path, seconds: float) -> None:
    """Make a file look as if nobody had used it for so long."""
    then = time.time() - seconds
    os.utime(path, (then, then))


# ------------------------------------------------------------------ a mapping


def test_a_mapping(folder: Directory) -> None:
    """Entries are set, found, listed, replaced and removed as in a dict."""
    folder[BLOB] = b"one"
    folder[TRACE] = b"two" * 5000
    assert folder[BLOB] == b"one"
    assert folder[TRACE] == b"two" * 5000
    assert sorted(folder) == [BLOB, TRACE]
    assert len(folder) == 2
    assert BLOB in folder
    folder[BLOB] = b"three"
    assert folder.get(BLOB) == b"three"
    del folder[BLOB]
    assert BLOB not in folder
    with pytest.raises(KeyError):
        folder[BLOB]
    with pytest.raises(KeyError):
        del folder[BLOB]


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 1 << 20, (1 << 20) + 1])
def test_any_size(folder: Directory, size: int) -> None:
    """No length is special."""
    data = os.urandom(size)
    folder[BLOB] = data
    assert folder[BLOB] == data
    assert bytes(folder.view(BLOB)) == data


def test_parts_are_not_joined(folder: Directory) -> None:
    """Many of any size and shape come out as one entry."""
    parts = [b"", b"a", memoryview(np.arange(100.0)).cast("B"), b"", *(bytes([n]) * n for n in range(256))]
    folder.write(BLOB, parts)
    assert folder[BLOB] == b"".join(parts)


def test_short_writes_go_on(folder: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write call may take less than it was given, at any place."""
    real = os.writev

    def short(fd: int, parts: list[memoryview]) -> int:
        return real(fd, [parts[0][:3]]) if len(parts[0]) > 3 else real(fd, parts[:2])

    monkeypatch.setattr(os, "writev", short)
    parts = [b"", b"ab", b"cdefghijkl", b"m", b"nopqrstuvw", b""]
    folder.write(BLOB, parts)
    assert folder[BLOB] == b"".join(parts)


BAD = [
    "",
    "x",
    "blob",
    "blob/",
    "/",
    "blob/" + "a" * 15,
    "blob/" + "A" * 64,
    "other/" + "a" * 64,
    "blob/../" + "a" * 64,
]
BAD += [
    "../" * 9 + "etc/passwd",
    "blob/" + "a" * 63 + "\n",
    "blob/" + "a" * 30 + "\0" * 34,
    "blob/" + "a" * 129,
    "/etc/passwd",
]
BAD += ["blob/" + "a" * 30 + "/" + "a" * 33, "trace/" + "é" * 64, "blob/ab/" + "a" * 62, "blob/.." + "a" * 62]


@pytest.mark.parametrize("name", BAD)
def test_other_names_become_no_paths(root: Path, name: str) -> None:
    """Nothing is read, written or made for a name that isn't of an entry's form."""
    folder = Directory(root)
    folder[BLOB] = b"x"
    before = files(root.parent)
    assert name not in folder
    for use in (folder.__getitem__, folder.view):
        with pytest.raises((UsageError, KeyError)):
            use(name)
    for change in (lambda: folder.__setitem__(name, b""), lambda: folder.__delitem__(name)):
        with pytest.raises(UsageError):
            change()
    assert files(root.parent) == before


def test_directories_are_equal_by_their_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by what they hold; they travel to other processes, whatever folder is the current one there."""
    monkeypatch.chdir(root.parent)
    folder = Directory("store")
    assert folder == Directory(root) != Directory(root, trust=True)
    assert len({folder, Directory(root)}) == 1
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(folder)).path == str(root)
    assert repr(folder) == f"Directory({str(root)!r})"


@pytest.mark.parametrize("path", ["", "a\0b", b"bytes", 3])
def test_what_is_no_path(path: Any) -> None:
    """Is said at once."""
    with pytest.raises((UsageError, TypeError)):
        Directory(path)


# ------------------------------------------------------------------ on the disk


def test_nothing_is_made_before_something_is_kept(root: Path) -> None:
    """Looking for something makes no folder."""
    store = Store(Directory(root))
    assert store.trace(KEYS[0]) is None
    assert not store.has(KEYS[0])
    assert store.mapping.stats() == (0, 0, 0, 0)
    assert store.mapping.gc(max_bytes=0, older_than=0) == (0, 0, 0, 0)
    assert store.verify() == {}
    assert not root.exists()


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(root: Path, umask: int) -> None:
    """Folders are 0700, files 0600."""
    before = os.umask(umask)
    try:
        Directory(root / "deep" if umask != 0o777 else root)[BLOB] = b"x"
    finally:
        os.umask(before)
    for path in [root, *root.rglob("*")]:
        if path.name != "deep" and path == root and umask != 0o777:
            continue  # made by makedirs, as any folder on the way
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_called_woflo_is_ignored_by_git(tmp_path: Path) -> None:
    """It brings its own `.gitignore`, and leaves one that is there."""
    Directory(tmp_path / ".woflo")[BLOB] = b"x"
    ignore = tmp_path / ".woflo" / ".gitignore"
    assert ignore.read_text() == "*\n"
    Directory(tmp_path / "other")[BLOB] = b"x"
    assert not (tmp_path / "other" / ".gitignore").exists()


def test_durable_writes_are_on_the_disk_before_they_have_a_name(
    folder: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced after its last byte and before it is renamed, the folder after that.

    So a power failure leaves the old one, the new one, or none.
    """
    log: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            kind = ("folder" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else "file") if name == "fsync" else ""
            log.append(f"{name} {kind}".strip())
            return real(*args, **options)

        return call

    for name in ("writev", "fsync", "replace", "mkdir"):
        monkeypatch.setattr(os, name, noted(name))
    folder[BLOB] = b"x"
    assert log == ["mkdir", "fsync folder"] * 3 + ["writev", "fsync file", "replace", "fsync folder"]
    log.clear()
    folder.write(BLOB, [b"y"], durable=False)
    assert log == ["writev", "replace"]


def test_large_values_are_mapped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy on write: the array may be written to, the file stays as it is, also when it is removed meanwhile."""
    monkeypatch.setattr(directory, "_MAPPED", 1 << 16)
    array = np.arange(100_000.0)
    digest = store.put(array)
    path = file_of(store.mapping, f"blob/{digest}")
    before = path.read_bytes()
    one, two = store.get(digest), store.get(digest)
    if sys.platform == "linux":
        assert str(path) in Path("/proc/self/maps").read_text()
    one[:] = -1.0
    assert two.tolist() == array.tolist()
    assert path.read_bytes() == before
    store.delete(digest)
    assert two.tolist() == array.tolist()
    one, nested = None, store.get(store.put({"a": array, "b": [array]}))
    nested["a"][0] = 7.0
    assert nested["b"][0][0] in (0.0, 7.0)
    del two, nested
    gc.collect()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="before 3.13, Python keeps a descriptor for each mapping")
def test_a_mapping_takes_no_descriptor(store: Store) -> None:
    """A thousand large values in memory leave the program its descriptors."""
    digest = store.put(np.arange(1 << 18))
    before = len(os.listdir("/dev/fd"))
    values = [store.get(digest) for _ in range(50)]
    assert len(os.listdir("/dev/fd")) == before
    assert all(value[-1] == (1 << 18) - 1 for value in values)


# ------------------------------------------------------------------ who may own it


@posix
class TestTrust:
    @pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o500, 0o1755])
    def test_modes_that_keep_others_from_writing(self, root: Path, mode: int) -> None:
        """Are fine."""
        root.mkdir()
        root.chmod(mode)
        Directory(root)
        root.chmod(0o700)

    @pytest.mark.parametrize("mode", [0o770, 0o720, 0o707, 0o702, 0o777, 0o1777, 0o2775, 0o666])
    def test_modes_that_let_others_write(self, root: Path, mode: int) -> None:
        """Are refused, with what to do; unless told to trust."""
        root.mkdir()
        root.chmod(mode)
        with pytest.raises(StoreError, match=r"chmod go-w.*trust=True"):
            Directory(root)
        trusting = Directory(root, trust=True)
        trusting[BLOB] = b"x"
        assert trusting[BLOB] == b"x"

    @as_root
    def test_a_folder_of_somebody_else(self, root: Path) -> None:
        """Is refused: what is read from it may run code."""
        root.mkdir(mode=0o700)
        os.chown(root, 12345, -1)
        with pytest.raises(StoreError, match="12345"):
            Directory(root)
        Directory(root, trust=True)

    @as_root
    def test_an_entry_of_somebody_else(self, store: Store) -> None:
        """Isn't read."""
        digest = store.put((1, 2))
        assert store.get(digest) == (1, 2)
        os.chown(file_of(store.mapping, f"blob/{digest}"), 12345, -1)
        with pytest.raises(KeyError):
            store.get(digest)

    def test_a_symbolic_link(self, tmp_path: Path, root: Path) -> None:
        """Isn't followed for the folder itself, only on the way to it."""
        root.mkdir(mode=0o700)
        (tmp_path / "link").symlink_to(root)
        with pytest.raises(StoreError, match="symbolic link"):
            Directory(tmp_path / "link")
        Directory(tmp_path / "link", trust=True)[BLOB] = b"x"
        (tmp_path / "way").symlink_to(tmp_path)
        assert Directory(tmp_path / "way" / "store")[BLOB] == b"x"

    @pytest.mark.parametrize("below", ["", "below"])
    def test_no_folder(self, root: Path, below: str) -> None:
        """A file in its place, or on the way to it, is refused."""
        root.write_text("")
        with pytest.raises(StoreError):
            Directory(root / below)

    def test_it_is_looked_at_when_it_appears(self, root: Path) -> None:
        """A folder that somebody makes after the Directory is judged before anything of it is read."""
        folder = Directory(root)
        root.mkdir()
        root.chmod(0o777)
        with pytest.raises(StoreError):
            folder[BLOB]
        with pytest.raises(StoreError):
            folder[BLOB] = b"x"

    @pytest.mark.parametrize("swap", ["writable", "link", "file"])
    def test_it_is_looked_at_before_each_change(self, tmp_path: Path, root: Path, swap: str) -> None:
        """What takes the folder's place later is refused."""
        folder = Directory(root)
        folder[BLOB] = b"x"
        shutil.rmtree(root)
        other = tmp_path / "other"
        other.mkdir(mode=0o700)
        if swap == "writable":
            root.mkdir()
            root.chmod(0o777)
        elif swap == "link":
            root.symlink_to(other)
        else:
            root.write_text("")
        for change in (lambda: folder.__setitem__(BLOB, b"y"), lambda: folder.__delitem__(BLOB)):
            with pytest.raises(StoreError):
                change()
        assert files(other) == []

    @pytest.mark.parametrize("part", ["blob", "blob/01"])
    def test_links_inside_lead_nowhere(self, tmp_path: Path, folder: Directory, part: str) -> None:
        """Nothing outside is written or removed through them."""
        folder[BLOB] = b"x"
        other = tmp_path / "other"
        shutil.move(Path(folder.path, part), other)
        Path(folder.path, part).symlink_to(other)
        before = files(other)
        for change in (lambda: folder.__setitem__(BLOB, b"y"), lambda: folder.__delitem__(BLOB)):
            with pytest.raises(StoreError):
                change()
        folder.gc(max_bytes=0, older_than=0)
        assert files(other) == before


@posix
@pytest.mark.parametrize(
    "kind", ["folder", "full folder", "link", "dangling link", "link to itself", "fifo", "shard is a file"]
)
def test_what_is_no_plain_file_is_a_miss(store: Store, tmp_path: Path, kind: str) -> None:
    """Whatever stands in an entry's place: nothing blocks, one warning, and writing it again mends it."""
    value, key = "value" * 1000, KEYS[0]
    digest = store.put(value)
    store.record(key, trace(digest))
    outside = tmp_path / "outside"
    for name in (f"blob/{digest}", f"trace/{key}"):
        path = file_of(store.mapping, name)
        outside.write_bytes(path.read_bytes())
        path.unlink()
        if kind.endswith("folder"):
            path.mkdir()
            if kind == "full folder":
                (path / "note").write_text("somebody's")
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "shard is a file":
            path.parent.rmdir()
            path.parent.write_text("")
        else:
            path.symlink_to({"link": outside, "dangling link": tmp_path / "nothing", "link to itself": path}[kind])
    assert store.trace(key) is None
    with pytest.raises(KeyError):
        store.get(digest)
    assert not store.has(digest)
    if kind == "shard is a file":
        with pytest.raises(StoreError):
            store.put(value)
        return
    assert set(store.verify()) == {f"blob/{digest}", f"trace/{key}"}
    assert store.put(value) == digest
    store.record(key, trace(digest))
    assert store.get(digest) == value
    assert store.trace(key) == trace(digest)
    assert store.verify() == {}
    assert outside.exists()


def test_a_folder_that_is_deleted_meanwhile(store: Store, root: Path) -> None:
    """Is empty, and made again by the next write."""
    digest = store.put("x" * 2000)
    shutil.rmtree(root)
    assert not store.has(digest)
    with pytest.raises(KeyError):
        store.get(digest)
    assert store.put("x" * 2000) == digest
    assert store.get(digest) == "x" * 2000


def test_where_folders_have_no_descriptors(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows there are only paths: the same entries, found in the same places."""
    folder = store.mapping
    monkeypatch.setattr(directory, "_AT", False)
    digest = store.put([np.arange(5000.0)])
    store.record(KEYS[1], trace(digest))
    store.record(KEYS[1], trace(digest))
    assert store.get(digest)[0].tolist() == list(range(5000))
    assert store.trace(KEYS[1]) == trace(digest)
    assert store.put([np.arange(5000.0)]) == digest
    monkeypatch.undo()
    assert store.verify() == {}
    assert folder.stats()[:2] == (1, 1)
    monkeypatch.setattr(directory, "_AT", False)
    assert folder.gc(max_bytes=0)[:2] == (1, 1)
    assert not store.delete(digest)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_folder_that_is_deleted_during_a_write(
    folder: Directory, root: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write begins anew; if somebody goes on deleting, it is a StoreError in the end."""
    left = [times]

    def late(*args: Any, real: Any = os.replace, **options: Any) -> None:
        if left[0]:
            left[0] -= 1
            shutil.rmtree(root)
        real(*args, **options)

    monkeypatch.setattr(os, "replace", late)
    if times == 3:
        with pytest.raises(StoreError):
            folder[BLOB] = b"x"
    else:
        folder[BLOB] = b"x"
        assert folder[BLOB] == b"x"


# ------------------------------------------------------------------ tidying up


class TestGc:
    def kept(self, store: Store, number: int, *, age: float = 0.0, size: int = 1000) -> tuple[str, str]:
        """A trace with a blob of its own, last used so long ago."""
        digest = store.put(f"{number}" * size)
        store.record(KEYS[number], trace(digest))
        for name in (f"blob/{digest}", f"trace/{KEYS[number]}"):
            aged(file_of(store.mapping, name), age)
        return KEYS[number], digest

    def left(self, store: Store) -> list[int]:
        """The numbers whose trace and blob are there; never one without the other."""
        found = []
        for number, key in enumerate(KEYS):
            known = store.trace(key)
            if known is not None:
                assert store.has(known.outputs["0"])
                found.append(number)
        assert store.mapping.stats().blobs == len(found)
        return found

    def test_without_arguments_nothing_in_use_goes(self, store: Store) -> None:
        """However old."""
        self.kept(store, 1, age=1000 * DAY)
        assert store.mapping.gc() == (0, 0, 0, 0)
        assert self.left(store) == [1]

    def test_older_than(self, store: Store) -> None:
        """What wasn't used for so long goes, with its blobs."""
        for number in range(4):
            self.kept(store, number, age=number * HOUR)
        swept = store.mapping.gc(older_than=1.5 * HOUR)
        assert (swept.traces, swept.blobs) == (2, 2)
        assert self.left(store) == [0, 1]

    def test_max_bytes(self, store: Store) -> None:
        """The least recently used go first, until the rest is small enough."""
        for number in (3, 1, 2, 0):
            self.kept(store, number, age=number * HOUR)
        before = store.mapping.stats().size_bytes
        swept = store.mapping.gc(max_bytes=before * 0.6)
        assert self.left(store) == [0, 1]
        assert swept.freed_bytes == before - store.mapping.stats().size_bytes
        assert store.mapping.gc(max_bytes=before * 0.6) == (0, 0, 0, 0)
        store.mapping.gc(max_bytes=0)
        assert len(store.mapping) == 0

    def test_keep(self, store: Store) -> None:
        """Named traces stay, with all that they refer to, and named blobs."""
        for number in range(4):
            self.kept(store, number, age=number * DAY)
        alone = store.put("alone" * 1000)
        store.mapping.gc(max_bytes=0, older_than=0, keep=[KEYS[3], alone])
        assert store.has(alone)
        store.delete(alone)
        assert self.left(store) == [3]

    def test_a_blob_of_two_traces(self, store: Store) -> None:
        """Stays while one of them does."""
        digest = store.put("shared" * 1000)
        for number in (1, 2):
            store.record(KEYS[number], trace(digest))
        store.mapping.gc(max_bytes=0, keep=[KEYS[2]])
        assert store.has(digest)
        assert store.trace(KEYS[1]) is None

    def test_blobs_that_no_trace_names(self, store: Store) -> None:
        """Go after a day: a writer may be about to record them."""
        young, old = store.put("young" * 1000), store.put("old" * 1000)
        aged(file_of(store.mapping, f"blob/{old}"), 1.1 * DAY)
        assert store.mapping.gc().blobs == 1
        assert store.has(young)
        assert not store.has(old)
        store.mapping.gc(max_bytes=0)
        assert not store.has(young)

    def test_reading_is_use(self, store: Store) -> None:
        """What was read stays longer than what was written later."""
        _, digest = self.kept(store, 1, age=3 * DAY)
        self.kept(store, 2, age=2 * DAY)
        store.get(digest)
        store.mapping.gc(older_than=1 * DAY)
        assert self.left(store) == [1]

    @pytest.mark.skipif(not directory._NOATIME, reason="only Linux can read without noting it")
    def test_reading_is_use_where_the_file_system_does_not_note_it(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Mounted with noatime, for instance; the time of the last write stays."""
        monkeypatch.setattr(directory, "_READ", directory._READ | directory._NOATIME)
        _, digest = self.kept(store, 1, age=3 * DAY)
        path = file_of(store.mapping, f"blob/{digest}")
        before = path.stat().st_mtime_ns
        store.get(digest)
        assert path.stat().st_mtime_ns == before
        store.mapping.gc(older_than=1 * DAY)
        assert self.left(store) == [1]

    def test_putting_again_is_use(self, store: Store) -> None:
        """A blob that is there isn't written again, but somebody is going to refer to it."""
        digest = store.put("x" * 1000)
        aged(file_of(store.mapping, f"blob/{digest}"), 3 * DAY)
        store.put("x" * 1000)
        store.mapping.gc()
        assert store.has(digest)

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux can read without noting it")
    def test_looking_after_a_store_is_no_use_of_it(self, store: Store) -> None:
        """Or everything would look used by the last gc."""
        self.kept(store, 1, age=3 * DAY)
        store.mapping.gc(older_than=10 * DAY)
        store.verify()
        store.mapping.verify()
        store.mapping.gc(older_than=2 * DAY)
        assert self.left(store) == []

    def test_what_killed_writers_left(self, store: Store) -> None:
        """Goes after an hour without a write; what isn't woflo's own stays."""
        self.kept(store, 1)
        shard = file_of(store.mapping, f"trace/{KEYS[1]}").parent
        old, young, strange = (
            shard / ("01" * 8 + "." + "ab" * 8),
            shard / ("01" * 8 + "." + "cd" * 8),
            shard / ".nfs0001",
        )
        for path in (old, young, strange):
            path.write_bytes(b"half")
        aged(old, 2 * HOUR)
        aged(strange, 2 * HOUR)
        assert store.mapping.stats().leftovers == 2
        assert KEYS[1] not in [name for name in store.mapping if "." in name]
        assert store.mapping.gc().leftovers == 1
        assert (old.exists(), young.exists(), strange.exists()) == (False, True, True)

    def test_what_was_written_meanwhile_stays(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """An entry that was made anew between the look and the removal isn't the one that was looked at."""
        key, digest = self.kept(store, 1, age=3 * DAY)
        real = Directory._remove

        def late(self: Directory, kind: str, digits: str, found: os.stat_result) -> bool:
            Store(Directory(self.path)).record(key, trace(digest))
            store.put("1" * 1000)
            return real(self, kind, digits, found)

        monkeypatch.setattr(Directory, "_remove", late)
        store.mapping.gc(older_than=DAY)
        assert self.left(store) == [1]

    def test_what_a_damaged_trace_names_stays(self, store: Store) -> None:
        """It may be one of another version of woflo."""
        key, digest = self.kept(store, 1, age=3 * DAY)
        path = file_of(store.mapping, f"trace/{key}")
        path.write_bytes(path.read_bytes().replace(b"woflo 1", b"woflo 2").replace(b'{"task"', b'["task"'))
        store.mapping.gc()
        assert store.has(digest)

    def test_a_folder_in_an_entrys_place(self, store: Store) -> None:
        """Is moved aside by the next write, and removed if it is empty."""
        key, _ = self.kept(store, 1)
        path = file_of(store.mapping, f"trace/{key}")
        path.unlink()
        path.mkdir()
        store.record(key, trace())
        assert store.mapping.stats().leftovers == 1


def test_verify_names_what_is_damaged(store: Store) -> None:
    """And nothing else; nothing is removed."""
    digest = store.put("x" * 1000)
    other = store.put("y" * 1000)
    store.record(KEYS[1], trace())
    store.record(KEYS[2], trace())
    assert store.mapping.verify() == {}
    file_of(store.mapping, f"blob/{digest}").write_bytes(b"")
    path = file_of(store.mapping, f"trace/{KEYS[1]}")
    path.write_bytes(path.read_bytes()[:-1])
    found = store.mapping.verify()
    assert set(found) == {f"blob/{digest}", f"trace/{KEYS[1]}"}
    assert "bytes" in found[f"trace/{KEYS[1]}"]
    assert store.verify() == found
    assert store.has(other)


def test_verify_takes_the_secret(root: Path) -> None:
    """Records of a store with a secret are fine with it, and damaged without."""
    store = Store(Directory(root), secret=b"s" * 32)
    store.put("x" * 1000)
    store.record(KEYS[1], trace())
    assert Directory(root).verify(secret=b"s" * 32) == {}
    assert len(Directory(root).verify()) == 2


def test_stats(store: Store) -> None:
    """How many, and how large."""
    digest = store.put("x" * 1000)
    store.record(KEYS[1], trace())
    paths = [file_of(store.mapping, f"blob/{digest}"), file_of(store.mapping, f"trace/{KEYS[1]}")]
    found = store.mapping.stats()
    assert (found.traces, found.blobs, found.leftovers) == (1, 1, 0)
    assert found.size_bytes == sum(path.stat().st_size for path in paths)


# ------------------------------------------------------------------ the default place


class TestDefaultPlace:
    def test_beside_the_project(self, tmp_path: Path) -> None:
        """The nearest pyproject.toml above."""
        (tmp_path / "pyproject.toml").write_text("")
        (tmp_path / "inner" / "deep").mkdir(parents=True)
        assert default_place(tmp_path / "inner" / "deep") == str(tmp_path / ".woflo")
        (tmp_path / "inner" / "pyproject.toml").write_text("")
        assert default_place(tmp_path / "inner" / "deep") == str(tmp_path / "inner" / ".woflo")

    def test_without_a_project(self, tmp_path: Path) -> None:
        """Where the search began."""
        assert default_place(tmp_path) == str(tmp_path / ".woflo")

    def run(self, tmp_path: Path, *command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(Path(woflo.__file__).parents[1])}
        here = tmp_path / "here"
        here.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=True, cwd=here, env=environment
        )
        return done.stdout.strip()

    SOURCE = "from woflo.store import Store\nprint(Store.of(True).mapping.path)\n"

    def test_of_a_script(self, tmp_path: Path) -> None:
        """Beside it, or its project, wherever it is started from; nothing is made."""
        (tmp_path / "code").mkdir()
        script = tmp_path / "code" / "script.py"
        script.write_text(self.SOURCE)
        assert self.run(tmp_path, str(script)) == str(tmp_path / "code" / ".woflo")
        (tmp_path / "pyproject.toml").write_text("")
        assert self.run(tmp_path, str(script)) == str(tmp_path / ".woflo")
        assert not (tmp_path / ".woflo").exists()

    def test_without_a_script(self, tmp_path: Path) -> None:
        """In the current folder: a notebook, a terminal, an installed command."""
        assert self.run(tmp_path, "-c", self.SOURCE) == str(tmp_path / "here" / ".woflo")

    def test_of_an_installed_command(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Its folder belongs to nobody's project."""
        import sysconfig

        monkeypatch.chdir(tmp_path)
        main = type(sys)("__main__")
        main.__file__ = os.path.join(sysconfig.get_paths()["scripts"], "tool")
        monkeypatch.setitem(sys.modules, "__main__", main)
        assert default_place() == str(tmp_path / ".woflo")

    def test_in_a_spawned_worker(self, tmp_path: Path) -> None:
        """The same as in the program that started it."""
        (tmp_path / "code").mkdir()
        script = tmp_path / "code" / "script.py"
        script.write_text(
            "import woflo\nfrom woflo.runners import MultiprocessTaskRun\nfrom woflo.runners.multiprocess import SpawnProcess\n"
            "from woflo.directory import default_place\n"
            "spawned = woflo.task(runner=MultiprocessTaskRun.using(process_type=SpawnProcess))(default_place)\n"
            "if __name__ == '__main__':\n    print(spawned().get_result())\n"
        )
        assert self.run(tmp_path, str(script)) == str(tmp_path / "code" / ".woflo")


def test_importing_woflo_loads_no_store() -> None:
    """Nor blake3: who keeps nothing pays nothing."""
    code = "import sys, woflo; print({'woflo.store', 'woflo.directory', 'woflo._codec', 'blake3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert woflo.Directory is Directory
