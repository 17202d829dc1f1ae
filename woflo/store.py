"""A store: values by the digest of their bytes, and traces of what was made from what, over any mapping of names to bytes.

Everything is verified before anything of it is decoded. What is damaged, can't be read, or can't be decoded here counts
as missing, and is said once; what can't be written raises StoreError, and leaves what was there before.

Rules: a name is `trace/<key>` or `blob/<digest>`, and nothing else; a store keeps no value in memory, and holds no lock, so
threads, processes and machines may share a mapping that can be shared.
"""

from __future__ import annotations

import binascii
import os
import re
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from woflo import _codec, _record, events
from woflo._codec import Unencodable, register
from woflo._record import Trace
from woflo.directory import Directory, default_place
from woflo.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Store", "Trace", "Unencodable", "register"]

_HEX = re.compile(r"[0-9a-f]{16,128}")
_SHORTEST_SECRET = 16  # bytes: a shorter one can be guessed
_TEXTS = frozenset({"json", "path", "text"})  # what these codecs give is text already
_SEEN = 2000  # traces of a folder that are not read again as long as their files don't change, some 1 KB each
_WARNED = 1000  # names remembered as damaged


class Store:
    """Keeps values and traces in a mapping of names to bytes: a dict, a `Directory`, `fsspec.get_mapper(…)`.

    Args:
        mapping: where the bytes are.
        safe: never write or read a pickle, which can run code: only bytes, text, JSON, arrays, and what is registered.
        secret: at least 16 bytes that lie elsewhere: records that weren't written by a store with the same secret count as
            damaged. Without, damage is noticed, but not that somebody has forged a whole record.

    Raises:
        UsageError: it is no such mapping, or the secret is too short.
    """

    __slots__ = ("__weakref__", "_damaged", "_folder", "_key", "_odd", "_seen", "mapping", "safe")

    def __init__(self, mapping: MutableMapping[str, bytes], *, safe: bool = False, secret: bytes | None = None) -> None:
        if isinstance(mapping, Store) or not isinstance(mapping, MutableMapping):
            raise UsageError(f"a store is made over a mapping of names to bytes, not over a {type(mapping).__name__}")
        if secret is not None and (not isinstance(secret, bytes) or len(secret) < _SHORTEST_SECRET):
            raise UsageError(
                f"a store's secret has at least {_SHORTEST_SECRET} bytes: secrets.token_bytes(32) makes one"
            )
        self.mapping: MutableMapping[str, bytes] = mapping
        self.safe: bool = safe
        self._key = None if secret is None else _record.seal_key(secret)
        self._folder = mapping if isinstance(mapping, Directory) else None
        self._seen: dict[str, tuple[Any, Trace]] = {}  # verified, and what the files looked like
        self._damaged: set[str] = set()  # names, and what was said of small values
        self._odd: set[str] = set()  # those among them whose bytes are whole, but make no value here

    @classmethod
    def of(cls, store: Store | MutableMapping[str, bytes] | str | os.PathLike[str] | bool) -> Store:
        """A store of whatever names one: itself, a mapping, the path of a folder, or True for the default place.

        Raises:
            StoreError: the folder isn't to be trusted.
            UsageError: it names none.
        """
        if isinstance(store, Store):
            return store
        if store is True:
            return cls(Directory(default_place()))
        if isinstance(store, (str, os.PathLike)):
            if "://" in os.fspath(store):
                raise UsageError(f"{store!r} is an address, not a folder: give fsspec.get_mapper({store!r})")
            return cls(Directory(store))
        if isinstance(store, MutableMapping):
            return cls(store)
        raise UsageError(
            f"a store is a Store, a mapping of names to bytes, the path of a folder or True, not {store!r}"
        )

    def __repr__(self) -> str:
        where = repr(self._folder) if self._folder is not None else f"a {type(self.mapping).__name__}"
        return f"<Store over {where}{', safe' * self.safe}{', with a secret' * (self._key is not None)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._key is not None:
            raise UsageError(
                f"{self!r} can't be pickled: its secret must not lie in the pickle; make it where it is needed"
            )
        return _again, (self.mapping, self.safe)

    # ------------------------------------------------------------------ values

    def put(self, value: Any, *, durable: bool = True) -> str:
        """Keep a value, and return the digest of its bytes, by which it is found; equal bytes are kept once.

        Of a path (of pathlib), the digest of what lies there is kept with it, not the content: it counts as missing when
        something else lies there. Inside other values that holds for paths of files; subclasses' paths are names.

        Args:
            value: what to keep.
            durable: return when it would survive a power failure; see `Directory.write`.

        Raises:
            Unencodable: no codec can take it.
            StoreError: it can't be written.
        """
        return self.keep(value, inline_bytes=-1, durable=durable)[0]

    def keep(self, value: Any, *, inline_bytes: int = 1024, durable: bool = True) -> tuple[str, list[str] | None]:
        """Like `put`, but a small value isn't written: it comes back as texts to put into a trace (`small`), for `value_of`.

        Args:
            value: what to keep.
            inline_bytes: up to this size it is small, bytes; -1: nothing is.
            durable: see `put`.

        Returns:
            The digest; and codec and text, or None for a value that was written.
        """
        codec, parts = _codec.encode(value, safe=self.safe)
        size = sum(map(len, parts))
        digest = _record.digest_of(codec, parts)
        if size <= inline_bytes:
            data = b"".join(parts)
            text = (
                str(data, "utf-8", "surrogatepass")
                if codec in _TEXTS
                else binascii.b2a_base64(data, newline=False).decode()
            )
            return digest, [codec, text]
        name = f"blob/{digest}"
        odd = name in self._odd
        if (name in self._damaged and not odd) or not self._there(name, size + _record.BLOB_LINE):
            self._write(name, [_record.blob_line(name, codec, size, self._key), *parts], durable)
        if odd and self._makes_a_value(codec, b"".join(parts)):
            self._mended(name)
        return digest, None

    def value_of(self, small: list[str]) -> Any:
        """The value that `keep` has made texts of.

        Raises:
            KeyError: it can't be rebuilt here, which is said once.
        """
        codec, text = small
        try:
            data = text.encode("utf-8", "surrogatepass") if codec in _TEXTS else binascii.a2b_base64(text)
            return _codec.decode(codec, data, safe=self.safe)
        except (_codec.Undecodable, binascii.Error) as error:
            self._warn(f"a small result ({codec})", str(error), key=f"{codec} {error}")
            raise KeyError(codec) from error

    def get(self, digest: str) -> Any:
        """The value that has this digest, made anew: it is the caller's own. Large arrays are mapped, copy on write.

        Raises:
            KeyError: it isn't here, or is damaged, or can't be rebuilt in this process; the latter two are said once.
            UsageError: this is no digest.
        """
        name = _blob(digest)
        data = self._read(name, self.mapping.__getitem__ if self._folder is None else self._folder.view)
        try:
            codec, payload = _record.open_blob(name, data, self._key)
            value = _codec.decode(codec, payload, safe=self.safe)
        except _codec.Undecodable as error:
            self._warn(name, str(error))
            self._odd.add(name)
            raise KeyError(digest) from error
        except _record.Damaged as error:
            self._odd.discard(name)
            self._warn(name, str(error))
            raise KeyError(digest) from error
        except (TypeError, ValueError) as error:  # what the mapping gave are no bytes
            self._warn(name, f"it isn't bytes: {error}")
            raise KeyError(digest) from error
        self._mended(name)  # by somebody
        return value

    def has(self, digest: str) -> bool:
        """Whether there is a value of this digest, as far as can be told without reading it."""
        name = _blob(digest)
        if name in self._damaged:
            return False
        try:
            return name in self.mapping
        except (OSError, StoreError) as error:
            self._warn(name, str(error))
            return False

    def delete(self, digest: str) -> bool:
        """Remove a value; whether there was one.

        Raises:
            StoreError: it can't be removed.
        """
        return self._remove(_blob(digest))

    # ------------------------------------------------------------------ traces

    def record(self, key: str, trace: Trace, *, durable: bool = True) -> None:
        """Keep a trace under a key, in the place of an older one.

        Raises:
            StoreError: it can't be written.
            UsageError: the key isn't 16 to 128 hexadecimal digits, or the trace holds what JSON doesn't.
        """
        if not _HEX.fullmatch(key):
            raise _bad_key(key)
        name = f"trace/{key}"
        try:
            data = _record.trace_record(name, trace, self._key)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"a trace of {trace.task!r} holds what JSON doesn't: {error}") from error
        self._write(name, [data], durable)

    def trace(self, key: str) -> Trace | None:
        """The trace under a key; None if there is none, or it is damaged, which is said once.

        Raises:
            UsageError: no key has such characters.
        """
        if not key.isalnum():  # so that it leads nowhere else; whether it is hexadecimal is of no importance here
            raise _bad_key(key)
        name = "trace/" + key
        stamp = None if self._folder is None else self._folder.stamp(name)
        if stamp is not None:
            seen = self._seen.get(name)
            if seen is not None and seen[0] == stamp:
                return seen[1]
        try:
            data = self.mapping[name]
            trace = _record.open_trace(name, data, self._key)
        except KeyError:
            return None
        except _record.Damaged as error:
            self._warn(name, str(error))
            return None
        except Exception as error:  # whatever the mapping raises
            if isinstance(error, UsageError):
                raise
            self._warn(name, f"it can't be read: {_told(error)}")
            return None
        if self._damaged:
            self._damaged.discard(name)  # somebody has mended it
        if stamp is not None:
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen[name] = stamp, trace
        return trace

    def forget(self, key: str) -> bool:
        """Remove the trace under a key; whether there was one. Its values stay until the store is tidied up.

        Raises:
            StoreError: it can't be removed.
        """
        if not _HEX.fullmatch(key):
            raise _bad_key(key)
        return self._remove(f"trace/{key}")

    def damaged(self, name: str) -> bool:
        """Whether what this store has found under a key or digest was damaged, or couldn't be rebuilt."""
        return f"trace/{name}" in self._damaged or f"blob/{name}" in self._damaged

    def verify(self) -> dict[str, str]:
        """Read every record, and say of each damaged one, by name, what is wrong with it; nothing is decoded or removed."""
        read = self.mapping.__getitem__ if self._folder is None else self._folder._peek
        return _record.faults(self.mapping, read, self._key)

    # ------------------------------------------------------------------ the mapping

    def _read(self, name: str, read: Callable[[str], Any]) -> Any:
        try:
            return read(name)
        except KeyError:
            raise KeyError(name) from None
        except Exception as error:  # whatever the mapping raises
            self._warn(name, f"it can't be read: {_told(error)}")
            raise KeyError(name) from error

    def _there(self, name: str, size_bytes: int) -> bool:
        """Whether a record is there already, as far as can be told without reading it."""
        if self._folder is not None:
            return self._folder.touch(name, size_bytes)
        try:
            return name in self.mapping
        except Exception:  # whatever the mapping raises: writing will tell
            return False

    def _write(self, name: str, parts: list[bytes | memoryview], durable: bool) -> None:
        if self._folder is not None:
            self._folder.write(name, parts, durable=durable)
        else:
            try:
                self.mapping[name] = b"".join(parts)
            except Exception as error:  # whatever the mapping raises
                raise StoreError(f"{self!r} can't keep {name}", _told(error)) from error
        if name not in self._odd:  # the same bytes again make no value either
            self._damaged.discard(name)

    def _remove(self, name: str) -> bool:
        try:
            del self.mapping[name]
        except KeyError:
            return False
        except StoreError:
            raise
        except Exception as error:  # whatever the mapping raises
            raise StoreError(f"{self!r} can't remove {name}", _told(error)) from error
        finally:
            self._mended(name)
        return True

    def _makes_a_value(self, codec: str, data: bytes) -> bool:
        try:
            _codec.decode(codec, data, safe=self.safe)
        except _codec.Undecodable:
            return False
        return True

    def _mended(self, name: str) -> None:
        self._damaged.discard(name)
        self._odd.discard(name)

    def _warn(self, name: str, why: str, key: str = "") -> None:
        """Say what is wrong, once for each name, or key."""
        key = key or name
        if key not in self._damaged:
            if len(self._damaged) >= _WARNED:
                self._damaged.clear()
                self._odd.clear()
            self._damaged.add(key)
            events.warn(f"{self!r}: {name} counts as missing: {why}")


def _again(mapping: MutableMapping[str, bytes], safe: bool) -> Store:
    return Store(mapping, safe=safe)


def _told(error: Exception) -> str:
    text = str(error)
    return text if isinstance(error, StoreError) else f"{type(error).__name__}: {text}"


def _blob(digest: str) -> str:
    if not _HEX.fullmatch(digest):
        raise UsageError(f"{digest!r} can't be a digest: 16 to 128 of the digits 0-9, a-f")
    return f"blob/{digest}"


def _bad_key(key: str) -> UsageError:
    return UsageError(f"{key!r} can't be a key: 16 to 128 of the digits 0-9, a-f")
