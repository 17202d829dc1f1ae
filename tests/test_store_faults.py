"""What breaks under a store: damaged records, forged ones, full disks, errors and kills at every call, many processes at once.

After each of them the store is readable: entries are whole or absent, old ones are still there, nothing wrong is given back.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import woflo
from woflo import StoreError, UsageError, _codec, _record, directory, events
from woflo.directory import Directory
from woflo.store import Store, Trace
from woflo.testing import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

KEY, OLD_KEY = "01" * 32, "fe" * 32
SEED = 20261120
MASKS = (0x01, 0x80, 0xFF)


def trace(**fields: Any) -> Trace:
    given: dict[str, Any] = {
        "task": "clean", "code": KEY, "parts": {"clean() itself": "ab"}, "options": {}, "inputs": {"rows": KEY}, "outputs": {},
        "kept": True, "seconds": 0.5, "versions": {}, "when": "2026-01-02T03:04:05Z", "small": {"clean": ["json", "42"]},
    }  # fmt: skip
    return Trace(**{**given, **fields})


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the program doesn't need the disk; what does is told by the order of the calls (test_directory)."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the store says, instead of in the log."""
    said: list[str] = []
    monkeypatch.setattr(events, "warn", said.append)
    return said


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def file_of(root: Path | str, name: str) -> Path:
    kind, digits = name.split("/")
    return Path(root, kind, digits[:2], digits[2:])


def forked(work: Callable[[], object]) -> int:
    """Carry something out in a child; its exit status, or minus the signal that ended it."""
    return waited(start(work))


def start(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def waited(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ------------------------------------------------------------------ damage

VALUES: dict[str, Any] = {
    "bytes": b"some bytes",
    "text": "Grüße",
    "json": {"rows": [1, 2.5, None]},
    "npy": np.arange(3),
    "npy-scalar": np.float64(2.5),
    "pickle": (1, 2),
    "pickle-5": [np.zeros(520)],
}


def record_of(kind: str, *, secret: bytes | None = None) -> tuple[str, bytes, Callable[[Store], object]]:
    """The name and bytes of a record of this kind, and how to read it."""
    store = Store({}, secret=secret)
    if kind == "trace":
        store.record(KEY, trace())
        return f"trace/{KEY}", store.mapping[f"trace/{KEY}"], lambda store: store.trace(KEY)
    digest = store.put(VALUES[kind])
    return f"blob/{digest}", store.mapping[f"blob/{digest}"], lambda store: store.get(digest)


def misses(store: Store, read: Callable[[Store], object]) -> bool:
    try:
        return read(store) is None
    except KeyError:
        return True


def no_decoding(*_: object, **__: object) -> Any:
    pytest.fail("bytes were decoded that aren't what was written")


def changed_bytes(data: bytes) -> Iterator[bytes]:
    """Each byte changed in three ways."""
    for at, mask in itertools.product(range(len(data)), MASKS):
        yield data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def changed_lengths(data: bytes) -> Iterator[bytes]:
    yield from (data[:length] for length in range(len(data)))
    yield from (data[start:] for start in range(1, len(data)))
    yield from (data + more for more in (b"\0", b"\n", data))
    yield bytes(len(data))  # what a power failure may leave of a file that wasn't synced


@pytest.mark.parametrize("change", [changed_bytes, changed_lengths])
@pytest.mark.parametrize("secret", [None, b"s" * 32], ids=["open", "secret"])
@pytest.mark.parametrize("kind", ["trace", *VALUES])
def test_every_change_is_noticed(
    kind: str,
    secret: bytes | None,
    change: Callable[[bytes], Iterator[bytes]],
    warnings: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A miss and one warning, and no decoder sees a byte of it."""
    name, data, read = record_of(kind, secret=secret)
    assert not misses(Store({name: data}, secret=secret), read)
    monkeypatch.setattr(_codec, "decode", no_decoding)
    monkeypatch.setattr(_record, "_scan", no_decoding)
    tried = 0
    for bad in change(data):
        tried += 1
        warnings.clear()
        store = Store({name: bad}, secret=secret)
        assert misses(store, read)
        assert misses(store, read)
        assert len(warnings) == 1
        assert name in warnings[0]
        assert store.damaged(name.partition("/")[2])
    assert tried > len(data)


@pytest.mark.parametrize("kind", ["trace", "json", "pickle"])
def test_every_changed_byte_of_a_file_is_noticed(kind: str, root: Path, warnings: list[str]) -> None:
    """The same with the bytes in files; and `verify` tells."""
    name, data, read = record_of(kind)
    store = Store(Directory(root))
    store.mapping[name] = data
    path = file_of(root, name)
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        fresh = Store(store.mapping)
        assert misses(fresh, read)
        assert list(fresh.verify()) == [name]
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert misses(Store(store.mapping), read)
    assert len(warnings) == 2 * len(data)


def test_changes_of_a_large_file_are_noticed(root: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that is mapped, too."""
    monkeypatch.setattr(directory, "_MAPPED", 1 << 16)
    store = Store(Directory(root))
    array = np.arange(200_000.0)
    digest = store.put(array)
    path = file_of(root, f"blob/{digest}")
    size = path.stat().st_size
    chance = random.Random(SEED)
    for at in [0, 127, 128, size - 1, *(chance.randrange(size) for _ in range(40))]:
        with path.open("r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ chance.choice(MASKS)]))
        with pytest.raises(KeyError):
            Store(store.mapping).get(digest)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte]))
    assert store.get(digest).tolist() == array.tolist()
    for length in (0, 1, 128, 4096, size - 1):
        os.truncate(path, length)
        with pytest.raises(KeyError):
            Store(store.mapping).get(digest)
    assert len(warnings) == 49


def test_a_record_of_another_kind(warnings: list[str]) -> None:
    """A blob isn't a trace, nor the other way round, whatever its seal."""
    key = _record.digest_of("json", [b"1"])
    mapping = {f"trace/{key}": b"".join([_record.blob_line(f"trace/{key}", "json", 1, None), b"1"])}
    assert Store(mapping).trace(key) is None
    mapping = {f"blob/{key}": _record.trace_record(f"blob/{key}", trace(), None)}
    with pytest.raises(KeyError):
        Store(mapping).get(key)
    assert len(warnings) == 2


@pytest.mark.parametrize("strange", [None, 3, "text", [1], memoryview(np.arange(4.0)), bytearray(b"x")])
def test_a_mapping_that_gives_no_bytes(strange: Any, warnings: list[str]) -> None:
    """Is as good as damaged."""
    store = Store({f"trace/{KEY}": strange, f"blob/{KEY}": strange})
    assert store.trace(KEY) is None
    with pytest.raises(KeyError):
        store.get(KEY)
    assert len(warnings) == 2
    assert len(store.verify()) == 2


@pytest.mark.parametrize("name", ["../" * 20 + "etc/passwd", "", "a/b", "a\\b", "a" * 63 + "\n", ".."])
def test_no_mapping_is_asked_for_other_names(name: str) -> None:
    """It might make paths of them."""
    asked = []

    class Spy(dict[str, bytes]):
        def __getitem__(self, name: str) -> bytes:
            asked.append(name)
            return b""

        __contains__ = __delitem__ = __getitem__

    store = Store(Spy())
    for use in (store.trace, store.get, store.has, store.forget, store.delete):
        with pytest.raises(UsageError):
            use(name)
    assert asked == []


class Moody(dict[str, bytes]):
    """A mapping whose every method raises."""

    def fail(self, *_: object) -> Any:
        raise ConnectionError("the network is down")

    __getitem__ = __setitem__ = __delitem__ = __contains__ = __iter__ = fail


def test_a_mapping_that_raises(warnings: list[str]) -> None:
    """Reading is a miss, said once; writing and removing is a StoreError."""
    store = Store(Moody())
    for _ in range(2):
        assert store.trace(KEY) is None
        assert not store.has(KEY)
        with pytest.raises(KeyError):
            store.get(KEY)
    assert len(warnings) == 2
    for change in (
        lambda: store.put(1),
        lambda: store.record(KEY, trace()),
        lambda: store.delete(KEY),
        lambda: store.forget(KEY),
    ):
        with pytest.raises(StoreError, match="network is down"):
            change()


def test_one_warning_per_record(warnings: list[str]) -> None:
    """However often it is read; another one when it was mended and damaged again."""
    name, data, _ = record_of("json")
    digest = name[5:]
    store = Store({name: data[:-1]})
    for _ in range(5):
        with pytest.raises(KeyError):
            store.get(digest)
    assert len(warnings) == 1
    assert store.put(VALUES["json"]) == digest
    assert not store.damaged(digest)
    store.mapping[name] = data[:-1]
    with pytest.raises(KeyError):
        store.get(digest)
    assert len(warnings) == 2
    store.mapping[name] = data
    assert store.get(digest) == VALUES["json"]
    assert not store.damaged(digest)


def test_a_value_whose_class_is_gone(warnings: list[str]) -> None:
    """Its record is whole, but a miss here; it isn't removed."""
    store = Store({})
    digest = store.put(time.struct_time(range(9)))
    data = store.mapping[f"blob/{digest}"]
    payload = data[128:].replace(b"struct_time", b"struct_tame")
    broken = _record.digest_of("pickle", [payload])
    name = f"blob/{broken}"
    store.mapping[name] = _record.blob_line(name, "pickle", len(payload), None) + payload
    with pytest.raises(KeyError):
        store.get(broken)
    assert "struct_tame" in warnings[0]
    assert name in store.mapping
    assert store.verify() == {}


# ------------------------------------------------------------------ forged records


class Trap:
    """What somebody hides in a pickle: unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("codec", ["pickle", "pickle-5"])
def test_a_pickle_without_a_valid_seal_is_never_loaded(codec: str, tmp_path: Path, warnings: list[str]) -> None:
    """Whatever is right about it: its digest, its length, the seal of another name, or one without the secret."""
    sprung = tmp_path / "sprung"
    pickled = pickle.dumps(Trap(sprung))
    payload = pickled if codec == "pickle" else struct.pack("<Q", 0).ljust(64, b"\0") + pickled
    digest = _record.digest_of(codec, [payload])
    name = f"blob/{digest}"
    line = _record.blob_line(name, codec, len(payload), None)
    plain = [payload, b"woflo 1 " + payload, line.replace(line[-70:-60], b"0" * 10) + payload, b" " * 128 + payload]
    plain += [
        _record.blob_line(f"blob/{KEY}", codec, len(payload), None) + payload,
        line.replace(b" 1 ", b" 2 ") + payload,
    ]
    for forged in plain:
        with pytest.raises(KeyError):
            Store({name: forged}).get(digest)
    with pytest.raises(KeyError):
        Store({f"blob/{KEY}": line + payload}).get(KEY)
    for key in (None, _record.seal_key(b"guess" * 8)):
        forged = _record.blob_line(name, codec, len(payload), key) + payload
        with pytest.raises(KeyError):
            Store({name: forged}, secret=b"s" * 32).get(digest)
    with pytest.raises(KeyError):
        Store({name: line + payload}, safe=True).get(digest)
    assert not sprung.exists()
    assert len(warnings) == len(plain) + 4
    with contextlib.suppress(KeyError):
        Store({name: line + payload}).get(digest)
    assert sprung.exists()  # the trap would have worked


def test_lengths_are_not_believed(warnings: list[str], root: Path) -> None:
    """A record that announces 2 ** 63 bytes gets no memory for them."""
    mapping: Any = Directory(root)
    for length in (2**31, 2**63, 2**64, 10**30):
        line = f"woflo 1 pickle {length} {KEY}".ljust(127).encode() + b"\n"
        mapping[f"blob/{KEY}"] = line + b"x"
        mapping[f"trace/{KEY}"] = f"woflo 1 trace {length} {KEY}\n{{}}\n".encode()
        tracemalloc.start()
        store = Store(mapping)
        with pytest.raises(KeyError):
            store.get(KEY)
        assert store.trace(KEY) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
    assert len(warnings) == 8


@linux
def test_a_huge_file_is_not_read(warnings: list[str], root: Path) -> None:
    """A terabyte of nothing in the place of an entry is a miss at once."""
    store = prepared(root)
    for name in (f"blob/{old_digest()}", f"trace/{OLD_KEY}"):
        os.truncate(file_of(root, name), 1 << 40)
    assert store.trace(OLD_KEY) is None
    with pytest.raises(KeyError):
        store.get(old_digest())
    assert len(warnings) == 2


class TestSecret:
    def test_it_is_nowhere(self, root: Path) -> None:
        """Not in a record, not in the text of the store, and not in a pickle of it."""
        secret = b"canary-" * 5
        store = Store(Directory(root), secret=secret)
        store.put("x" * 1000)
        store.record(KEY, trace())
        everything = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
        for hidden in (
            secret,
            secret.hex().encode(),
            _record.seal_key(secret),
            _record.seal_key(secret).hex().encode(),
        ):
            assert hidden not in everything
            assert hidden not in repr(store).encode()
        with pytest.raises(UsageError, match="secret"):
            pickle.dumps(store)
        assert pickle.loads(pickle.dumps(Store(Directory(root)))).mapping == store.mapping

    @pytest.mark.parametrize("secret", [b"", b"short", "a text of thirty characters...", 3])
    def test_it_can_be_no_word(self, secret: Any) -> None:
        """At least 16 bytes."""
        with pytest.raises(UsageError, match="secret"):
            Store({}, secret=secret)

    def test_seals_are_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that nobody can find one by the clock."""
        compared = []
        real = _record.hmac.compare_digest
        monkeypatch.setattr(_record.hmac, "compare_digest", lambda one, two: compared.append(1) or real(one, two))
        store = Store({}, secret=b"s" * 32)
        digest = store.put("x")
        store.record(KEY, trace())
        store.get(digest)
        store.trace(KEY)
        assert len(compared) == 2


# ------------------------------------------------------------------ errors and crashes at every call

CALLS = (
    "open",
    "close",
    "read",
    "readv",
    "write",
    "writev",
    "fsync",
    "fchmod",
    "stat",
    "fstat",
    "utime",
    "replace",
    "unlink",
)
CALLS += ("mkdir", "chmod", "rmdir", "scandir", "makedirs", "urandom")


class FaultyOs:
    """`os` for one module, whose n-th call fails, or ends the process."""

    def __init__(self, at: int, fault: int | str) -> None:
        self.at = at
        self.fault = fault
        self.count = 0
        self.failed = ""

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count != self.at:
                return real(*args, **options)
            self.failed = name
            if self.fault == "crash before":
                os._exit(9)
            if self.fault == "crash after":
                real(*args, **options)
                os._exit(9)
            if name == "close":  # Linux closes it all the same
                real(*args)
            if self.fault == "interrupt":
                raise KeyboardInterrupt
            raise OSError(self.fault, os.strerror(int(self.fault)), args[0] if args else None)

        return call


def slow(value: object) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


NEW, OLD = "new " * 500, "old " * 500
LARGE = [np.arange(5000.0), np.arange(3000)]


def prepared(root: Path) -> Store:
    """A store with something old in it."""
    store = Store(Directory(root))
    digest = store.put(OLD, durable=False)
    store.record(OLD_KEY, trace(outputs={"old": digest}), durable=False)
    return store


def old_digest() -> str:
    return Store({}).put(OLD)


def read_all(store: Store) -> None:
    with contextlib.suppress(KeyError):
        assert store.get(old_digest()) == OLD
    assert store.trace(OLD_KEY) in (None, trace(outputs={"old": old_digest()}))


OPERATIONS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put(NEW),
    "put many parts": lambda store: store.put(LARGE),
    "put again": lambda store: store.put(OLD),
    "record": lambda store: store.record(KEY, trace()),
    "record again": lambda store: store.record(OLD_KEY, trace(outputs={"old": old_digest()})),
    "read": read_all,
    "has": lambda store: store.has(old_digest()),
    "gc": lambda store: store.mapping.gc(keep=[OLD_KEY]),
    "gc all": lambda store: store.mapping.gc(max_bytes=0),
    "verify": lambda store: store.verify(),
    "forget": lambda store: store.forget(OLD_KEY),
    "delete": lambda store: store.delete(old_digest()),
}
REMOVING = {"gc all", "forget", "delete"}


def check(root: Path, operation: str, *, leftovers: int = 0, whole: bool = True) -> None:
    """The store is readable; what was there is there."""
    store = Store(Directory(root))
    assert store.verify() == {}
    assert store.mapping.stats().leftovers <= leftovers
    if operation not in REMOVING:
        assert store.get(old_digest()) == OLD
        assert store.trace(OLD_KEY) == trace(outputs={"old": old_digest()})
    for value in (NEW, LARGE):
        digest = Store({}).put(value)
        if store.has(digest):
            assert repr(store.get(digest)) == repr(value)
    known = store.trace(OLD_KEY)
    if known is not None and operation == "gc all" and whole:
        assert store.has(known.outputs["old"])  # a trace goes before its blobs
    for value in (NEW, LARGE):
        assert repr(store.get(store.put(value, durable=False))) == repr(value)


@pytest.mark.parametrize(
    "fault",
    [errno.EIO, errno.ENOENT, "interrupt", *map(slow, (errno.ENOSPC, errno.EMFILE, errno.EACCES, errno.EEXIST))],
)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fresh", [False, slow(True)], ids=["in use", "fresh"])
def test_an_error_at_every_call(
    tmp_path: Path, operation: str, fault: int | str, fresh: bool, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading is a miss, writing a StoreError or done; nothing half-written is left, and no descriptor open.

    So it is when Ctrl-C comes at that place.
    """
    del warnings
    for turn in itertools.count(1):
        root = tmp_path / str(turn)
        store = prepared(root)
        if fresh:
            shutil.rmtree(root / "blob")
            shutil.rmtree(root / "trace")
        faulty = FaultyOs(turn, fault)
        with monkeypatch.context() as patch:
            patch.setattr(directory, "os", faulty)
            with contextlib.suppress(StoreError, KeyboardInterrupt):
                OPERATIONS[operation](store)
        if fresh:
            assert Store(Directory(root)).verify() == {}
            assert Directory(root).stats().leftovers == (faulty.failed == "unlink")
        else:
            check(root, operation, leftovers=faulty.failed == "unlink", whole=fault != errno.ENOENT)
        shutil.rmtree(root)
        if not faulty.failed:
            break
    assert turn > 1


@pytest.mark.parametrize("fault", ["crash before", slow("crash after")])
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in ("read", "has", "verify")])
def test_a_crash_at_every_call(tmp_path: Path, operation: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are whole or absent; what the writer left unfinished is tidied up an hour later."""
    for turn in itertools.count(1):
        root = tmp_path / str(turn)
        store = prepared(root)
        monkeypatch.setattr(directory, "os", FaultyOs(turn, fault))
        status = forked(functools.partial(OPERATIONS[operation], store))
        monkeypatch.setattr(directory, "os", os)
        assert status in (0, 9)
        check(root, operation, leftovers=1)
        for path in [path for path in root.rglob("*.*") if path.is_file()]:
            os.utime(path, (0, 0))
        Directory(root).gc(keep=[OLD_KEY, old_digest()])
        check(root, operation)
        shutil.rmtree(root)
        if status == 0:
            break
    assert turn > 1


SYSCALLS = (
    "openat",
    "read",
    "readv",
    "write",
    "writev",
    "fsync",
    "fchmod",
    "rename",
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdir",
)
SYSCALLS += ("mkdirat", "newfstatat", "fstat", "utimensat", "close", "getdents64", "getrandom")


def traced(root: Path, operation: str, call: str, fault: str, turn: int) -> tuple[int, bool]:
    """Carry an operation out with the n-th system call of a name failing: its exit status, and whether it came to that."""
    log = root.with_name(root.name + ".log")
    store = prepared(root)
    (told, tell), (wait, go) = os.pipe(), os.pipe()

    def work() -> None:
        os.write(tell, b"ready")
        os.read(wait, 1)
        with contextlib.suppress(StoreError):
            OPERATIONS[operation](store)

    child = start(work)
    os.read(told, 5)
    inject = f"inject={call}:{fault}:when={turn}"
    command = ["strace", "-o", str(log), "-e", f"trace={call}", "-e", inject, "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        os.write(go, b".")
        status = waited(child)
        tracer.wait(PATIENCE)
    for fd in (told, tell, wait, go):
        os.close(fd)
    if "attached" not in said:
        pytest.skip(f"strace can't attach here: {said}")
    injected = "(INJECTED)" in log.read_text() or status == -signal.SIGKILL
    log.unlink()
    return status, injected


@linux
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace isn't installed")
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fault", ["error=EIO", "error=ENOSPC", "signal=KILL"])
@pytest.mark.parametrize("operation", ["put", "put many parts", "record again", "read", "gc all", "delete"])
def test_every_system_call(tmp_path: Path, operation: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel fails, or kills, at each call in turn: the same promise, without our own stand-in for `os`."""
    monkeypatch.undo()
    points = 0
    for call in SYSCALLS:
        for turn in itertools.count(1):
            root = tmp_path / f"{call}-{turn}"
            status, injected = traced(root, operation, call, fault, turn)
            assert status in (0, -signal.SIGKILL) or not fault.startswith("signal")
            leftovers = 1 if fault == "signal=KILL" or call in ("unlinkat", "close") else 0
            check(root, operation, leftovers=leftovers)
            shutil.rmtree(root)
            if not injected:
                break
            points += 1
    assert points > 5


# ------------------------------------------------------------------ full disks and other limits


def test_a_limit_on_the_size_of_files(root: Path) -> None:
    """What doesn't fit is a StoreError, leaves nothing, and doesn't hurt what fits."""

    def work() -> None:
        store = prepared(root)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        for value in ("x" * (1 << 20), np.zeros(1 << 20), [np.zeros(1 << 20)]):
            with pytest.raises(StoreError, match="large"):
                store.put(value)
        store.put(NEW)

    assert forked(work) == 0
    check(root, "put")


FULL = """
import sys
from tests.test_store_faults import *
root = Path(sys.argv[1]) / "store"
store = prepared(root)
kept = 0
try:
    for number in range(1000):
        store.put(f"{number} " * 2000)
        kept += 1
except StoreError as error:
    assert "space" in str(error), error
else:
    raise AssertionError("the disk isn't full")
assert Directory(root).stats().leftovers == 0
assert store.verify() == {}
assert store.get(old_digest()) == OLD
for number in range(kept):
    assert store.get(Store({}).put(f"{number} " * 2000)) == f"{number} " * 2000
store.mapping.gc(max_bytes=0, keep=[OLD_KEY])
store.put(NEW)
check(root, "put")
print("held")
"""


@linux
def test_a_full_disk(tmp_path: Path) -> None:
    """A tiny file system of its own: a StoreError, nothing half-written, and all well after tidying up."""
    script = tmp_path / "full.py"
    script.write_text(FULL)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=256k,mode=0700 none {disk} 2>/dev/null || exit 77"
    command = f"{mount}; exec {sys.executable} {script} {disk}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if shutil.which("unshare") is None:
        pytest.skip("unshare isn't installed")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert (done.stdout, done.returncode) == ("held\n", 0), done.stderr


def as_nobody(work: Callable[[Path], None]) -> None:
    """Carry something out in a folder of a user without rights; as oneself, if one is no root."""
    folder = Path(tempfile.mkdtemp(prefix="woflo-test-"))
    try:
        root = os.geteuid() == 0
        if root:
            os.chown(folder, 65534, 65534)

        def child() -> None:
            if root:
                os.setgid(65534)
                os.setuid(65534)
            work(folder)

        assert forked(child) == 0
    finally:
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_to() -> None:
    """Everything in it can be read; writing and removing is a StoreError that says why."""

    def work(folder: Path) -> None:
        root = folder / "store"
        prepared(root)
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o500)
        fresh = Store(Directory(root))
        assert fresh.get(old_digest()) == OLD
        assert fresh.trace(OLD_KEY) is not None
        assert fresh.put(OLD) == old_digest()
        for change in (
            lambda: fresh.put(NEW),
            lambda: fresh.delete(old_digest()),
            lambda: fresh.mapping.gc(max_bytes=0),
        ):
            with pytest.raises(StoreError, match="denied"):
                change()
        with pytest.raises(StoreError, match="denied"):
            Store(Directory(root / "blob" / "inner")).put(NEW)
        for path in folders:
            path.chmod(0o700)
        check(root, "put")

    as_nobody(work)


def test_a_folder_that_cannot_be_entered(warnings: list[str]) -> None:
    """Is a StoreError when it is named, and a miss if it becomes so later."""
    del warnings

    def work(folder: Path) -> None:
        root = folder / "store"
        store = prepared(root)
        root.chmod(0)
        with pytest.raises(StoreError, match="denied"):
            Directory(root / "inner")
        assert store.trace(OLD_KEY) is None
        with pytest.raises(KeyError):
            store.get(old_digest())
        with pytest.raises(StoreError):
            store.put(NEW)
        root.chmod(0o700)
        assert store.get(old_digest()) == OLD

    as_nobody(work)


@pytest.mark.parametrize("call", ["read", "readv", "fstat"])
def test_an_entry_that_is_replaced_on_another_machine(root: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale handle of a network file system is no damage: the new entry is read."""
    store = prepared(root)
    real = getattr(os, call)

    def stale_once(*_: Any) -> Any:
        monkeypatch.setattr(os, call, real)
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, call, stale_once)
    assert store.trace(OLD_KEY) is not None
    assert store.get(old_digest()) == OLD
    assert getattr(os, call) is real


def test_no_descriptors_left(root: Path, warnings: list[str]) -> None:
    """Reading is a miss, writing a StoreError; all is well when there are some again."""

    def work() -> None:
        store = prepared(root)
        before = len(os.listdir("/dev/fd"))
        held: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(KeyError):
            store.get(old_digest())
        assert store.trace(OLD_KEY) is None
        with pytest.raises(StoreError, match="open files"):
            store.put(NEW)
        for _ in range(6):  # with one, two … descriptors each way ends somewhere else
            os.close(held.pop())
            with contextlib.suppress(StoreError):
                store.put(LARGE)
            with contextlib.suppress(KeyError):
                store.get(old_digest())
        for fd in held:
            os.close(fd)
        assert len(os.listdir("/dev/fd")) == before
        assert store.get(old_digest()) == OLD
        assert len(warnings) == 2

    assert forked(work) == 0
    check(root, "put")


def test_not_enough_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isn't taken for damage: somebody else may have enough."""
    store = prepared(root)

    def hungry(*_: object) -> Any:
        raise MemoryError

    monkeypatch.setitem(_codec._READERS, "text", hungry)
    with pytest.raises(MemoryError):
        store.get(old_digest())
    assert not store.damaged(old_digest())


# ------------------------------------------------------------------ many at once


def race(workers: list[Callable[[], object]]) -> list[int]:
    """Processes that begin together; how each ended."""
    ready, go = os.pipe(), os.pipe()

    def begin(work: Callable[[], object]) -> None:
        os.close(go[1])
        os.write(ready[1], b".")
        os.read(go[0], 1)
        work()

    pids = [start(lambda work=work: begin(work)) for work in workers]
    for _ in pids:
        os.read(ready[0], 1)
    for fd in (*go, *ready):
        os.close(fd)
    return [waited(pid) for pid in pids]


def strict() -> None:
    """In a child: any warning is a failure."""

    def fail(text: str) -> None:
        raise AssertionError(text)

    events.warn = fail


@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_processes_that_write_one_key(root: Path, rounds: int) -> None:
    """Eight of them, each reading too: all get the same value, there is one entry, and nobody sees anything half."""

    def work() -> None:
        strict()
        store = Store(Directory(root))
        for _ in range(rounds):
            digest = store.put(LARGE, durable=False)
            store.record(KEY, trace(outputs={"0": digest}), durable=False)
            assert store.trace(KEY) == trace(outputs={"0": digest})
            assert repr(store.get(digest)) == repr(LARGE)

    assert race([work] * 8) == [0] * 8
    assert Directory(root).stats()[:2] == (1, 1)
    assert Directory(root).stats().leftovers == 0
    assert Store(Directory(root)).verify() == {}


@pytest.mark.parametrize("rounds", [100, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_tidying_up_beside_readers_and_writers(root: Path, rounds: int) -> None:
    """What one removes, another misses and makes again; nobody sees damage, an error, or half an entry."""

    def sweep() -> None:
        strict()
        folder = Directory(root)
        for number in range(rounds):
            folder.gc(max_bytes=0 if number % 2 else 5000)
            assert folder.verify() == {}

    def work() -> None:
        strict()
        store = Store(Directory(root))
        for number in range(rounds):
            value = f"{number % 3}" * 3000
            digest = store.put(value, durable=False)
            store.record(KEY, trace(outputs={"0": digest}), durable=False)
            known = store.trace(KEY)
            for wanted in [digest, *(known.outputs.values() if known is not None else ())]:
                with contextlib.suppress(KeyError):
                    found = store.get(wanted)
                    assert found == found[0] * 3000

    assert race([sweep, sweep, work, work, work]) == [0] * 5
    assert Store(Directory(root)).verify() == {}


def test_writers_that_are_killed(root: Path) -> None:
    """Whenever the SIGKILL comes: every entry is whole, and at most one file per victim is left to tidy up."""
    chance = random.Random(SEED)
    victims = 25
    for _ in range(victims):
        told, tell = os.pipe()

        def work(told: int = told, tell: int = tell) -> None:
            os.close(told)
            store = Store(Directory(root))
            for number in itertools.count():
                digest = store.put(f"{number % 50} " * chance.randrange(1000, 20_000), durable=False)
                store.record(f"{number % 10:02}" * 32, trace(outputs={"0": digest}), durable=False)
                os.write(tell, b".")

        pid = start(work)
        os.close(tell)
        for _ in range(chance.randrange(1, 40)):
            os.read(told, 1)
        os.kill(pid, signal.SIGKILL)
        os.close(told)
        assert waited(pid) == -signal.SIGKILL
    store = Store(Directory(root))
    assert store.verify() == {}
    assert store.mapping.stats().leftovers <= victims
    assert store.get(store.put(NEW)) == NEW


def test_forks_beside_threads_that_write(root: Path) -> None:
    """A store holds no lock, so a child that was forked in the middle of a write can write."""
    store = Store(Directory(root))
    done = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for number in itertools.count():
                store.put(f"{number}" * 1000, durable=False)
                store.record(KEY, trace(), durable=False)
                if done.is_set():
                    return
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        import warnings as python_warnings

        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: that is the point
            for _ in range(20):
                assert forked(lambda: store.get(store.put(NEW, durable=False))) == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert store.verify() == {}


def test_the_clock_does_not_matter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found is decided by content: a clock that jumps, or files from the future, change nothing."""
    store = prepared(root)
    for path in root.rglob("*"):
        os.utime(path, (time.time() + 1e6, time.time() + 1e6))
    for jump in (-1e6, 1e6):
        monkeypatch.setattr(directory.time, "time", lambda jump=jump, real=time.time: real() + jump)
        assert store.get(old_digest()) == OLD
        assert store.trace(OLD_KEY) is not None
        store.put(NEW)
        check(root, "put")
        monkeypatch.undo()


def test_woflo_is_what_is_tested() -> None:
    """The children of this file run this tree."""
    assert Path(woflo.__file__).parents[1] == Path(__file__).parents[1]
