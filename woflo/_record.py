"""Records: what a store keeps under one name, so that every change to it is noticed before anything of it is decoded.

A record is one line of text and its payload:

    woflo 1 <codec> <length of the payload, bytes> <seal>

The seal is a digest (keyed, if the store has a secret) that covers the record's name, so it holds for this name only. A trace's
covers its payload and its name. A blob's name is the digest of its codec and payload, so its seal covers the line, with the
name in the place of the seal, and not the payload again; the line is padded so that the payload lies aligned in a mapped
file. The rest of the line is made anew when it is checked. A trace's payload is two lines of JSON: what a hit needs, and what
only explains; the second is parsed when somebody asks.
"""

from __future__ import annotations

import hmac
import re
from json import JSONDecoder, JSONEncoder
from typing import TYPE_CHECKING, Any

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "BLOB_LINE",
    "Damaged",
    "Trace",
    "blob_line",
    "digest_of",
    "faults",
    "open_blob",
    "open_trace",
    "outputs_of",
    "seal_key",
    "trace_record",
]

BLOB_LINE = 128  # bytes of a blob's first line, with its padding: a codec's name has up to 33, a length up to 19
_HIT = ("task", "when", "seconds", "kept", "outputs", "small")
_REST = ("code", "parts", "options", "inputs", "versions")


class Damaged(Exception):
    """A record that isn't what was written under its name; says why."""


class Trace:  # noqa: PLW1641 - it holds dicts
    """What is known of one time that a step was carried out.

    Attributes:
        task: its name.
        code: the digest of its code.
        parts: what the code consists of, as labels for people, with their digests.
        options: the digests of its options.
        inputs: the digests of its inputs.
        outputs: the digests of its results, by name.
        kept: whether the results were written.
        seconds: how long it took.
        versions: of what it depends on and the code's digest doesn't tell.
        when: it ended, ISO 8601, UTC.
        small: results that are small enough to be written here (`Store.keep`), by name.
    """

    __slots__ = ("_hit", "_rest")

    def __init__(
        self,
        *,
        task: str,
        code: str,
        parts: dict[str, str],
        options: dict[str, str],
        inputs: dict[str, str],
        outputs: dict[str, str],
        kept: bool,
        seconds: float,
        versions: dict[str, str],
        when: str,
        small: dict[str, Any] | None = None,
    ) -> None:
        self._hit: dict[str, Any] = dict(zip(_HIT, (task, when, seconds, kept, outputs, small), strict=True))
        self._rest: dict[str, Any] | str = dict(zip(_REST, (code, parts, options, inputs, versions), strict=True))

    @property
    def task(self) -> str:
        return self._hit["task"]  # type: ignore[no-any-return]

    @property
    def when(self) -> str:
        return self._hit["when"]  # type: ignore[no-any-return]

    @property
    def seconds(self) -> float:
        return self._hit["seconds"]  # type: ignore[no-any-return]

    @property
    def kept(self) -> bool:
        return self._hit["kept"]  # type: ignore[no-any-return]

    @property
    def outputs(self) -> dict[str, str]:
        return self._hit["outputs"]  # type: ignore[no-any-return]

    @property
    def small(self) -> dict[str, Any] | None:
        return self._hit["small"]  # type: ignore[no-any-return]

    @property
    def code(self) -> str:
        return self._explanation["code"]  # type: ignore[no-any-return]

    @property
    def parts(self) -> dict[str, str]:
        return self._explanation["parts"]  # type: ignore[no-any-return]

    @property
    def options(self) -> dict[str, str]:
        return self._explanation["options"]  # type: ignore[no-any-return]

    @property
    def inputs(self) -> dict[str, str]:
        return self._explanation["inputs"]  # type: ignore[no-any-return]

    @property
    def versions(self) -> dict[str, str]:
        return self._explanation["versions"]  # type: ignore[no-any-return]

    @property
    def _explanation(self) -> dict[str, Any]:
        rest = self._rest
        if type(rest) is str:
            rest = self._rest = _parse(rest)
        return rest  # type: ignore[return-value]

    def as_dict(self) -> dict[str, Any]:
        """Its fields, ready for JSON; `Trace(**fields)` is the way back."""
        return {**self._hit, **self._explanation}

    def __eq__(self, other: object) -> bool:
        return self.as_dict() == other.as_dict() if isinstance(other, Trace) else NotImplemented

    def __repr__(self) -> str:
        return f"Trace({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.as_dict(),)


def _again(fields: dict[str, Any]) -> Trace:
    return Trace(**fields)


_written = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_parse = JSONDecoder().decode
_new = object.__new__
_scan: Callable[[str, int], tuple[Any, int]] = JSONDecoder().scan_once  # type: ignore[attr-defined] # it is there  # without what `decode` does around it: a hit reads one trace


def seal_key(secret: bytes) -> bytes:
    """The key of the seals of a store that has this secret."""
    return blake3(secret, derive_key_context="woflo 2026 the seals of a store's records").digest()


def digest_of(codec: str, parts: Iterable[bytes | memoryview]) -> str:
    """The digest of a codec and what it has encoded, hex: a blob's name."""
    digest = blake3(f"woflo 1 {codec}\n".encode())
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _digest(data: bytes, key: bytes | None) -> str:
    return (blake3(data) if key is None else blake3(data, key=key)).hexdigest()


def _same(one: bytes, other: bytes, key: bytes | None) -> bool:
    return one == other if key is None else hmac.compare_digest(one, other)


def faults(names: Iterable[str], read: Callable[[str], Any], key: bytes | None) -> dict[str, str]:
    """The records among these that are damaged, each with what is wrong; `read` gives their bytes, or KeyError."""
    found = {}
    for name in [name for name in names if name.startswith(("trace/", "blob/"))]:
        try:
            if name.startswith("trace/"):
                open_trace(name, bytes(read(name)), key)
            else:
                open_blob(name, read(name), key)
        except KeyError:  # removed meanwhile
            continue
        except Damaged as damage:
            found[name] = str(damage)
        except Exception as error:  # whatever the mapping raises
            found[name] = f"it can't be read: {type(error).__name__}: {error}"
    return found


# ------------------------------------------------------------------ blobs


def blob_line(name: str, codec: str, length: int, key: bytes | None) -> bytes:
    """The first line of the blob that is called `blob/<digest>`."""
    start = f"woflo 1 {codec} {length} "
    seal = _digest(f"{start}{name}\n".encode(), key)
    return f"{start}{seal}".encode().ljust(BLOB_LINE - 1) + b"\n"


def open_blob(name: str, data: Any, key: bytes | None) -> tuple[str, memoryview]:
    """The codec and the payload of a blob, verified.

    Raises:
        Damaged: it isn't what was written under this name.
    """
    view = memoryview(data).cast("B")
    words = bytes(view[:BLOB_LINE]).split()
    codec = _codec_of(words)
    payload = view[BLOB_LINE:]
    if not _same(bytes(view[:BLOB_LINE]), blob_line(name, codec, len(payload), key), key):
        raise Damaged(_why(words, len(payload)))
    if digest_of(codec, (payload,)) != name.removeprefix("blob/"):
        raise Damaged("its content isn't what its name says")
    return codec, payload


def _codec_of(words: list[bytes]) -> str:
    if len(words) != 5 or words[0] != b"woflo" or not words[2].isascii():
        raise Damaged("it doesn't begin as a record does")
    if words[1] != b"1":
        raise Damaged("another version of woflo has written it")
    return words[2].decode()


def _why(words: list[bytes], length: int) -> str:
    if words[3].isdigit() and len(words[3]) < 20 and int(words[3]) != length:
        return f"it has {length} bytes where {int(words[3])} were written"
    return "its seal doesn't fit: it was changed, belongs to another name, or has another secret"


# ------------------------------------------------------------------ traces


def trace_record(name: str, trace: Trace, key: bytes | None) -> bytes:
    """The record of the trace that is called `trace/<key>`.

    Raises:
        TypeError: what it holds isn't for JSON.
        ValueError: the same.
    """
    payload = f"{_written(trace._hit)}\n{_written(trace._explanation)}\n".encode("utf-8", "surrogatepass")
    return f"woflo 1 trace {len(payload)} {_digest(payload + name.encode(), key)}\n".encode() + payload


def open_trace(name: str, data: bytes, key: bytes | None) -> Trace:
    """The trace that a record holds, verified.

    Raises:
        Damaged: it isn't what was written under this name.
    """
    at = data.find(b"\n") + 1
    payload = data[at:]
    sealed = payload + name.encode()
    seal = (blake3(sealed) if key is None else blake3(sealed, key=key)).hexdigest()
    line = b"woflo 1 trace %d %s\n" % (len(payload), seal.encode())
    if not (data.startswith(line) if key is None else hmac.compare_digest(data[:at], line)):
        words = data[:at].split()
        _codec_of(words)
        raise Damaged(_why(words, len(payload)))
    try:
        text = payload.decode("utf-8", "surrogatepass")
        hit, end = _scan(text, 0)
    except (ValueError, StopIteration):
        hit = end = None
    if type(hit) is not dict:
        raise Damaged("it isn't the JSON of a trace")
    trace = _new(Trace)
    trace._hit = hit
    trace._rest = text[end:]
    return trace


def outputs_of(data: bytes) -> set[str]:
    """The digests of the outputs that a trace names, without verifying it.

    Of one that can't be read (damaged, or of another version): every digest in it, for what it names must stay.
    """
    try:
        hit, _ = _scan(data[data.index(b"\n") + 1 :].decode("utf-8", "surrogatepass"), 0)
        return set(hit["outputs"].values())
    except (ValueError, StopIteration, LookupError, AttributeError, TypeError):
        return {found.decode() for found in re.findall(rb"[0-9a-f]{64}", data)}
