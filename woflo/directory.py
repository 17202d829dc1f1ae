"""A folder as the mapping under a Store: entries are whole or absent, also after a crash, with no lock and no server.

An entry is one file. It is written beside its place under a name that nobody else has, and renamed when it is complete: who
reads finds the old one, the new one, or none. Only files of woflo's own naming exist: `trace/<hex>` lies at `trace/ab/cd…`,
`blob/<hex>` likewise; no other name becomes a path. The folder is its owner's alone (0700, files 0600), and one that others
own or can write to is refused. What changes the folder goes down from its root by descriptors and follows no symbolic link.

Nothing here knows values. What is read is verified by the store.
"""

from __future__ import annotations

import mmap
import os
import re
import stat as modes
import sys
import time
from collections.abc import MutableMapping
from errno import ESTALE
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from woflo import _record
from woflo.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Directory", "Stats", "Swept", "default_place"]

_OWN_NAME = ".woflo"  # a folder of this name tells git to ignore it
_KINDS = ("trace", "blob")
_NAME = re.compile(r"(?:trace|blob)/[0-9a-f]{16,128}")
_FEWEST = 16  # digits of a name
_SHARD = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{14,126}")
_LEFTOVER = re.compile(r"[0-9a-f]{14,16}\.[0-9a-f]{16}(?:\.aside)?")

_AT = os.open in os.supports_dir_fd  # elsewhere (Windows), paths
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | _CLOEXEC | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0)  # a FIFO in an entry's place mustn't block
_NOATIME = getattr(os, "O_NOATIME", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC | _NOFOLLOW
_FOLDER = os.O_RDONLY | _CLOEXEC | getattr(os, "O_DIRECTORY", 0)

_SETTLED = 2 * 10**9  # ns after which a further change of a file changes its times, on every file system
_FIRST_READ = 8192  # bytes: most traces have fewer, so one read is enough
_LARGEST_TRACE = 1 << 26  # bytes: a thousand times what a large one has
# Entries from this size (bytes) on are mapped, smaller ones read. Before 3.13, Python keeps a descriptor for each mapping: a
# thousand values of 2 MiB in memory must not use them up.
_MAPPED = 1 << 20 if sys.version_info >= (3, 13) else 1 << 24
_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) and _AT else {}
_WRITE_MOST = 1 << 28  # bytes per write call: some systems refuse 2 GiB
_WRITE_PARTS = 64  # per write call: systems allow at least so many, mostly 1024
_LEFTOVER_AGE = 3600.0  # seconds since the last write after which an unfinished file has no writer any more
_ORPHAN_AGE = 86400.0  # seconds since its last use after which a blob that no trace names is nobody's
_USED_STEP = 86400.0  # seconds: how exactly the last use is known, as on most file systems


class Stats(NamedTuple):
    """What a Directory holds; `leftovers` are unfinished files, of writers that are at work or were killed."""

    traces: int
    blobs: int
    size_bytes: int
    leftovers: int


class Swept(NamedTuple):
    """What `Directory.gc` has removed."""

    traces: int
    blobs: int
    leftovers: int
    freed_bytes: int


class _Folder:
    """A folder that is being changed: a descriptor of it, or (where there are no such calls) its path."""

    __slots__ = ("fd", "prefix")

    def __init__(self, fd: int | None, prefix: str) -> None:
        self.fd: int | None = fd
        self.prefix: str = prefix

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:  # Ctrl-C may come before the `with` that it was opened for
        self.close()

    def close(self) -> None:
        fd = self.fd
        if fd is None or fd < 0:
            return
        self.fd = -1
        try:
            os.close(fd)
        except OSError:  # nothing was written through it
            return

    def inner(self, name: str) -> _Folder:
        """A folder in this one; a symbolic link isn't followed."""
        if self.fd is None:
            path = self.prefix + name + os.sep
            os.stat(path)
            return _Folder(None, path)
        return _Folder(os.open(name, _FOLDER | _NOFOLLOW, dir_fd=self.fd), "")

    def make(self, name: str) -> None:
        """Make a folder in this one, unless somebody was quicker."""
        try:
            os.mkdir(self.prefix + name, 0o700, dir_fd=self.fd)
        except FileExistsError:
            return
        if os.stat(self.prefix + name, dir_fd=self.fd).st_mode & 0o700 != 0o700:  # the umask took our own rights
            os.chmod(self.prefix + name, 0o700, dir_fd=self.fd)

    def create(self, name: str) -> int:
        return os.open(self.prefix + name, _CREATE, 0o600, dir_fd=self.fd)

    def stat(self, name: str) -> os.stat_result:
        return os.stat(self.prefix + name, dir_fd=self.fd, follow_symlinks=False)

    def rename(self, old: str, new: str) -> None:
        os.replace(self.prefix + old, self.prefix + new, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        os.unlink(self.prefix + name, dir_fd=self.fd)

    def rmdir(self, name: str) -> None:
        os.rmdir(self.prefix + name, dir_fd=self.fd)

    def sync(self) -> None:
        """Have what was made and renamed here survive a power failure."""
        if self.fd is not None:
            os.fsync(self.fd)


class Directory(MutableMapping[str, bytes]):
    """Entries as files of one folder, for `Store`.

    Any number of threads and processes may use it at once. It is made when something is first kept. A name is `trace/` or
    `blob/` and 16 to 128 hexadecimal digits.

    Args:
        path: the folder; it needn't exist. `~` is the user's own.
        trust: use it even if it belongs to somebody else, others may write to it, or it is a symbolic link. What is read from
            it may run code (a pickle does): trust a folder only if you trust everybody who can write to it.

    Raises:
        StoreError: the folder isn't to be trusted, or is no folder.
    """

    def __init__(self, path: str | os.PathLike[str], *, trust: bool = False) -> None:
        path = os.fspath(path)
        if not isinstance(path, str) or not path or "\0" in path:
            raise UsageError(f"{path!r} can't be the path of a folder")
        self.path: str = os.path.abspath(os.path.expanduser(path))
        self.trust: bool = trust
        self._root = self.path.rstrip(os.sep) + os.sep
        self._checked = False
        self._check()

    def __repr__(self) -> str:
        return f"Directory({self.path!r}{', trust=True' * self.trust})"

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (self.path, self.trust)

    def __eq__(self, other: object) -> bool:  # not by all that they hold, as other mappings
        return (self.path, self.trust) == (other.path, other.trust) if isinstance(other, Directory) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.path)

    # ------------------------------------------------------------------ reading

    def __getitem__(self, name: str) -> bytes:
        try:
            return self._bytes(name)
        except OSError as error:
            if error.errno != ESTALE:
                raise
        return self._bytes(name)  # on a network, another machine had just replaced it

    def _bytes(self, name: str) -> bytes:
        fd = self._open(name)  # the quickest way to a trace: a hit waits for nothing else
        try:
            data = os.read(fd, _FIRST_READ)
            if len(data) == _FIRST_READ:
                size = self._plain(fd, name).st_size
                if size > _LARGEST_TRACE and name.startswith("trace/"):
                    raise StoreError(f"{name} in {self!r}", f"it has {size} bytes, as no trace has")
                data += self._read(fd, size - len(data))
            return data
        finally:
            os.close(fd)

    def view(self, name: str) -> memoryview:
        """An entry as memory that is the caller's alone.

        A large one is mapped, copy on write: nothing is read before it is used, and writing to it doesn't change the entry.

        Raises:
            KeyError: there is none.
            OSError: it can't be read.
            StoreError: it is no plain file, or somebody else's.
        """
        try:
            return self._view(name)
        except OSError as error:
            if error.errno != ESTALE:
                raise
        return self._view(name)

    def _view(self, name: str) -> memoryview:
        fd = self._open(name)
        try:
            stat = self._plain(fd, name)
            if _AT and time.time() - _used(stat) > _USED_STEP:
                self._use(fd, stat)
            if stat.st_size < _MAPPED:
                return memoryview(self._read(fd, stat.st_size))
            return memoryview(mmap.mmap(fd, stat.st_size, access=mmap.ACCESS_COPY, **_UNTRACKED))
        finally:
            os.close(fd)

    def _open(self, name: str, flags: int = 0) -> int:
        if not (self._checked or self._check()):
            raise KeyError(name)
        kind, _, digits = name.partition("/")
        if kind not in _KINDS or len(digits) < _FEWEST or not (digits.isalnum() and digits.isascii()):
            raise _bad_name(name)  # it might lead out of the folder
        try:
            return os.open(f"{self._root}{kind}/{digits[:2]}/{digits[2:]}", _READ | flags)
        except FileNotFoundError:
            raise KeyError(name) from None

    def _plain(self, fd: int, name: str) -> os.stat_result:
        stat = os.fstat(fd)
        if not modes.S_ISREG(stat.st_mode):
            raise StoreError(f"{name} in {self!r}", "it isn't a plain file")
        if not self.trust and _AT and stat.st_uid not in (os.geteuid(), 0):
            raise StoreError(f"{name} in {self!r}", "it belongs to somebody else")
        return stat

    @staticmethod
    def _read(fd: int, size: int) -> bytearray:
        """The next `size` bytes of a file; fewer, if it has ended."""
        data = bytearray(max(0, size))
        at = 0
        with memoryview(data) as view:
            while at < size:
                count = os.readv(fd, [view[at:]]) if _AT else _read_into(fd, view[at:])
                if not count:
                    break
                at += count
        del data[at:]
        return data

    @staticmethod
    def _use(fd: int, stat: os.stat_result) -> None:
        """Note that an entry is used, where the file system doesn't."""
        try:
            os.utime(fd, ns=(time.time_ns(), stat.st_mtime_ns))
        except OSError:  # it isn't ours to change
            return

    def _peek(self, name: str) -> memoryview:
        """An entry, read without counting as a use."""
        try:
            fd = self._open(name, _NOATIME)
        except PermissionError:  # it isn't ours
            fd = self._open(name)
        try:
            stat = self._plain(fd, name)
            if stat.st_size < _MAPPED:
                return memoryview(self._read(fd, stat.st_size))
            return memoryview(mmap.mmap(fd, stat.st_size, access=mmap.ACCESS_READ, **_UNTRACKED))
        finally:
            os.close(fd)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._stat(name) is not None

    def _stat(self, name: str) -> os.stat_result | None:
        if not _NAME.fullmatch(name) or not (self._checked or self._check()):
            return None
        at = name.find("/") + 3
        try:
            stat = os.stat(f"{self._root}{name[:at]}/{name[at:]}", follow_symlinks=False)
        except OSError:
            return None
        return stat if modes.S_ISREG(stat.st_mode) else None

    def stamp(self, name: str) -> tuple[int, int, int] | None:
        """What changes when an entry is written anew; None if there is none, or it was written just now."""
        at = name.find("/") + 3
        try:
            stat = os.stat(f"{self._root}{name[:at]}/{name[at:]}", follow_symlinks=False)
        except OSError:
            return None
        if time.time_ns() - stat.st_mtime_ns < _SETTLED:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def touch(self, name: str, size_bytes: int) -> bool:
        """Whether there is an entry of this size; if so, it counts as used now."""
        stat = self._stat(name)
        if stat is None or stat.st_size != size_bytes:
            return False
        at = name.find("/") + 3
        try:
            os.utime(f"{self._root}{name[:at]}/{name[at:]}")
        except FileNotFoundError:
            return False
        except OSError:  # a folder that can't be written to
            return True
        return True

    def __iter__(self) -> Iterator[str]:
        """The names of the entries; what is added or removed meanwhile may be among them or not."""
        for kind in _KINDS:
            for name, _ in self._scan(kind):
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _scan(self, kind: str, *, leftovers: bool = False) -> Iterator[tuple[str, os.stat_result]]:
        """The entries of a kind, or what writers have left unfinished: `kind/ab/name`."""
        if not (self._checked or self._check()) or os.path.islink(self._root + kind):
            return
        for shard in _listed(self._root + kind):
            if not _SHARD.fullmatch(shard.name) or not shard.is_dir(follow_symlinks=False):
                continue
            for file in _listed(shard.path):
                if not (_LEFTOVER if leftovers else _REST).fullmatch(file.name):
                    continue
                try:
                    stat = file.stat(follow_symlinks=False)
                except FileNotFoundError:  # it was removed meanwhile
                    continue
                except OSError as error:
                    raise StoreError(f"{file.path!r} can't be looked at", _reason(error)) from error
                yield f"{kind}/{shard.name}{'/' * leftovers}{file.name}", stat

    # ------------------------------------------------------------------ writing

    def __setitem__(self, name: str, data: bytes) -> None:
        self.write(name, [data])

    def write(self, name: str, parts: Iterable[bytes | memoryview], *, durable: bool = True) -> None:
        """Keep an entry whose bytes come in parts, which aren't joined; it takes the place of an older one at once.

        Args:
            name: of the entry.
            parts: what it consists of.
            durable: return when it would survive a power failure. Without, a crash of the machine soon after may lose or damage
                it, which is noticed; a crash of the program never does.

        Raises:
            StoreError: it can't be written; nothing half-written is left.
            UsageError: no entry can have this name.
        """
        if not _NAME.fullmatch(name):
            raise _bad_name(name)
        views = [memoryview(part).cast("B") for part in parts]
        for again in (True, True, False):
            try:
                self._write(name, views, durable)
            except FileNotFoundError as error:  # somebody is removing the folder
                if not again:
                    raise StoreError(f"{self!r} can't keep {name}", _reason(error)) from error
            except OSError as error:
                raise StoreError(f"{self!r} can't keep {name}", _reason(error)) from error
            else:
                return

    def _write(self, name: str, parts: list[memoryview], durable: bool) -> None:
        kind, digits = name.split("/")
        place = digits[2:]
        beside = f"{place[:16]}.{os.urandom(8).hex()}"
        with self._folder(kind, digits[:2], make=True, durable=durable) as folder:
            try:
                fd = folder.create(beside)
                try:
                    if _AT:
                        os.fchmod(fd, 0o600)  # whatever the umask
                    _write_all(fd, parts)
                    if durable:
                        os.fsync(fd)
                finally:
                    os.close(fd)
                try:
                    folder.rename(beside, place)
                except IsADirectoryError:  # somebody has put a folder in its place
                    folder.rename(place, f"{beside}.aside")
                    folder.rename(beside, place)
            except BaseException:
                try:
                    folder.unlink(beside)
                except OSError:
                    pass
                raise
            if durable:
                folder.sync()

    def __delitem__(self, name: str) -> None:
        """Remove an entry; whoever has it open or mapped isn't disturbed."""
        if not _NAME.fullmatch(name):
            raise _bad_name(name)
        kind, digits = name.split("/")
        try:
            with self._folder(kind, digits[:2]) as folder:
                folder.unlink(digits[2:])
        except FileNotFoundError:
            raise KeyError(name) from None
        except OSError as error:
            raise StoreError(f"{self!r} can't remove {name}", _reason(error)) from error

    def _folder(self, kind: str, shard: str, *, make: bool = False, durable: bool = False) -> _Folder:
        """One of the folders that hold entries, reached from the root down."""
        try:
            folder = self._open_root()
        except FileNotFoundError:
            if not make:
                raise
            self._make_root(durable)
            folder = self._open_root()
        for name in (kind, shard):
            with folder:
                try:
                    inner = folder.inner(name)
                except FileNotFoundError:
                    if not make:
                        raise
                    folder.make(name)
                    if durable:
                        folder.sync()
                    inner = folder.inner(name)
            folder = inner
        return folder

    # ------------------------------------------------------------------ the root

    def _check(self) -> bool:
        """Whether the folder exists; from then on it has been looked at."""
        try:
            self._judge(os.stat(self.path, follow_symlinks=self.trust))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"{self.path!r} can't be a store", _reason(error)) from error
        self._checked = True
        return True

    def _judge(self, stat: os.stat_result) -> None:
        why = ""
        if modes.S_ISLNK(stat.st_mode):
            why = "it is a symbolic link; name the folder itself"
        elif not modes.S_ISDIR(stat.st_mode):
            why = "it isn't a folder"
        elif self.trust or not _AT:
            pass
        elif stat.st_uid != os.geteuid():
            why = f"it belongs to the user with the number {stat.st_uid}, not to you; trust=True uses it all the same"
        elif stat.st_mode & 0o022:
            why = "others may write to it; `chmod go-w` it, or trust=True uses it all the same"
        if why:
            raise StoreError(f"{self.path!r} can't be a store", why)

    def _open_root(self) -> _Folder:
        if not _AT:
            self._judge(os.stat(self.path))
            return _Folder(None, self._root)
        try:
            fd = os.open(self.path, _FOLDER | (0 if self.trust else _NOFOLLOW))
        except FileNotFoundError:
            raise
        except OSError:
            self._judge(os.stat(self.path, follow_symlinks=self.trust))  # says it better
            raise
        try:
            self._judge(os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return _Folder(fd, "")

    def _make_root(self, durable: bool) -> None:
        parent, name = os.path.split(self.path)
        if not os.path.isdir(parent):
            os.makedirs(parent, exist_ok=True)
        with _Folder(os.open(parent, _FOLDER) if _AT else None, "" if _AT else parent + os.sep) as folder:
            folder.make(name)
            if durable:
                folder.sync()
        if name == _OWN_NAME:
            try:
                fd = os.open(self._root + ".gitignore", _CREATE, 0o600)
            except OSError:  # it has one, or does without
                return
            try:
                os.write(fd, b"*\n")
            finally:
                os.close(fd)

    def lock_path(self) -> str:
        """The path of a file, empty or not there yet, on which processes that share this folder may agree by locks.

        Makes the folder, if it isn't there.

        Raises:
            StoreError: it can't be made.
        """
        try:
            if not self._checked and not self._check():
                self._make_root(durable=False)
        except OSError as error:
            raise StoreError(f"{self!r} can't be made", _reason(error)) from error
        return self._root + "locks"

    # ------------------------------------------------------------------ looking after it

    def stats(self) -> Stats:
        """How many entries there are, and how large they are together."""
        sizes = {kind: [stat.st_size for _, stat in self._scan(kind)] for kind in _KINDS}
        leftovers = sum(1 for kind in _KINDS for _ in self._scan(kind, leftovers=True))
        return Stats(len(sizes["trace"]), len(sizes["blob"]), sum(map(sum, sizes.values())), leftovers)

    def verify(self, *, secret: bytes | None = None) -> dict[str, str]:
        """Read every entry, and say of each damaged one, by name, what is wrong with it; nothing is decoded or removed.

        Args:
            secret: that of the store; see `Store`.
        """
        return _record.faults(self, self._peek, None if secret is None else _record.seal_key(secret))

    def gc(self, *, max_bytes: float | None = None, older_than: float | None = None, keep: Iterable[str] = ()) -> Swept:
        """Remove what is nobody's, what wasn't used for long, and what is least recently used beyond a size.

        Readers and writers may be at work: whoever misses what was removed makes it anew. A trace goes with the blobs that
        no other trace names as its outputs. An entry was used when it was written or read, which file systems know to the day.
        Without arguments, what goes is what killed writers have left an hour ago, and blobs that no trace names and nobody
        has used for a day.

        Args:
            max_bytes: remove the least recently used until no more than this is left, bytes.
            older_than: remove what wasn't used for so long, seconds.
            keep: keys of traces that stay, with their blobs, whatever the limits; digests of blobs that stay.

        Raises:
            StoreError: something can't be read or removed.
        """
        from collections import Counter

        now = time.time()
        kept = set(keep)
        blobs = {name[5:]: stat for name, stat in self._scan("blob")}
        traces: dict[str, tuple[os.stat_result, set[str], float]] = {}
        for name, stat in self._scan("trace"):
            outputs = self._outputs(name, stat)
            if outputs is None:
                continue
            outputs &= blobs.keys()
            traces[name[6:]] = stat, outputs, max([_used(stat), *(_used(blobs[one]) for one in outputs)])
        named = Counter(digest for _, outputs, _ in traces.values() for digest in outputs)
        removed = [0, 0]
        freed = 0
        total = sum(stat.st_size for stat in blobs.values()) + sum(stat.st_size for stat, _, _ in traces.values())

        def drop(kind: str, name: str, stat: os.stat_result) -> None:
            nonlocal freed, total
            if self._remove(kind, name, stat):
                removed[_KINDS.index(kind)] += 1
                freed += stat.st_size
                total -= stat.st_size

        def drop_trace(key: str) -> None:
            stat, outputs, _ = traces.pop(key)
            drop("trace", key, stat)  # before its blobs: a crash in between must not leave it without them
            for digest in outputs:
                named[digest] -= 1
                if not named[digest] and digest not in kept:
                    drop("blob", digest, blobs.pop(digest))

        if older_than is not None:
            for key in [key for key, (_, _, used) in traces.items() if used < now - older_than and key not in kept]:
                drop_trace(key)
        nobodys = now - min(_ORPHAN_AGE, _ORPHAN_AGE if older_than is None else older_than)
        for digest in [
            one for one, stat in blobs.items() if not named[one] and one not in kept and _used(stat) < nobodys
        ]:
            drop("blob", digest, blobs.pop(digest))
        if max_bytes is not None and total > max_bytes:
            idle = [(used, "trace", key) for key, (_, _, used) in traces.items() if key not in kept]
            idle += [(_used(stat), "blob", one) for one, stat in blobs.items() if not named[one] and one not in kept]
            for _, kind, name in sorted(idle):
                if total <= max_bytes:
                    break
                if kind == "trace":
                    drop_trace(name)
                else:
                    drop("blob", name, blobs.pop(name))
        return Swept(removed[0], removed[1], self._remove_leftovers(now - _LEFTOVER_AGE), freed)

    def _outputs(self, name: str, stat: os.stat_result) -> set[str] | None:
        """The blobs that a trace names; None if it was removed meanwhile."""
        if not modes.S_ISREG(stat.st_mode):
            return set()
        try:
            return _record.outputs_of(bytes(self._peek(name)))
        except KeyError:
            return None
        except OSError as error:  # what it names would look like nobody's
            raise StoreError(f"{self!r} can't read {name}", _reason(error)) from error

    def _remove(self, kind: str, digits: str, stat: os.stat_result) -> bool:
        """Remove an entry, unless it was written or used again since it was looked at."""
        try:
            with self._folder(kind, digits[:2]) as folder:
                now = folder.stat(digits[2:])
                if (now.st_ino, now.st_mtime_ns) != (stat.st_ino, stat.st_mtime_ns):
                    return False
                folder.unlink(digits[2:])
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"{self!r} can't remove {kind}/{digits}", _reason(error)) from error
        return True

    def _remove_leftovers(self, before: float) -> int:
        count = 0
        for kind in _KINDS:
            for name, stat in list(self._scan(kind, leftovers=True)):
                if stat.st_mtime >= before:
                    continue
                _, shard, file = name.split("/")
                try:
                    with self._folder(kind, shard) as folder:
                        (folder.rmdir if modes.S_ISDIR(stat.st_mode) else folder.unlink)(file)
                except OSError:  # it is gone, or a folder of somebody's that isn't empty
                    continue
                count += 1
        return count


def _again(path: str, trust: bool) -> Directory:
    return Directory(path, trust=trust)


def _used(stat: os.stat_result) -> float:
    return max(stat.st_atime, stat.st_mtime)


def _listed(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"{path!r} can't be listed", _reason(error)) from error


def _write_all(fd: int, parts: list[memoryview]) -> None:
    todo = [part[at : at + _WRITE_MOST] for part in parts for at in range(0, len(part), _WRITE_MOST)]
    todo.reverse()
    while todo:
        some = todo[: -_WRITE_PARTS - 1 : -1]
        count = os.writev(fd, some) if _AT else os.write(fd, some[0])
        while todo and count >= len(todo[-1]):
            count -= len(todo.pop())
        if count:
            todo[-1] = todo[-1][count:]


def _read_into(fd: int, rest: memoryview) -> int:
    data = os.read(fd, min(len(rest), _WRITE_MOST))
    rest[: len(data)] = data
    return len(data)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _bad_name(name: object) -> UsageError:
    return UsageError(f"{name!r} can't name an entry: trace/ or blob/ and 16 to 128 of the digits 0-9, a-f")


# ------------------------------------------------------------------ the default place


def default_place(start: str | os.PathLike[str] | None = None) -> str:
    """Where a store lies if nobody says: `.woflo` beside the project's `pyproject.toml`, or beside the script.

    The project is searched upwards from the folder of the script, or the current one where there is no script (a notebook, a
    terminal, an installed command). Nothing is made.

    Args:
        start: search from this folder instead; without a project, it is the place itself.
    """
    start = os.path.abspath(_script_folder() if start is None else os.fspath(start))
    folder = start
    while not os.path.isfile(os.path.join(folder, "pyproject.toml")):
        above = os.path.dirname(folder)
        if above == folder:
            return os.path.join(start, _OWN_NAME)
        folder = above
    return os.path.join(folder, _OWN_NAME)


def _script_folder() -> str:
    """The folder of the script that runs; the current one if that is none of the user's."""
    script: str | None = getattr(sys.modules.get("__main__"), "__file__", None)
    if not script:  # in a spawned worker it isn't loaded, but named
        script = sys.argv[0] if sys.argv else None
        if not script or not os.path.isfile(script):
            return os.getcwd()
    import sysconfig

    folder = os.path.dirname(os.path.abspath(script))
    paths = sysconfig.get_paths()
    installed = [paths[name] + os.sep for name in ("scripts", "stdlib", "platstdlib", "purelib", "platlib")]
    return os.getcwd() if (folder + os.sep).startswith(tuple(installed)) else folder
