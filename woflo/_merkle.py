"""Folding a value into bytes: a tree of labelled nodes, each standing in its parent by a digest of its own.

What a value consists of is the caller's (`expand`); this file knows order, sharing, cycles and depth:

1. Encodings delimit themselves, so nodes with different contents never have the same bytes.
2. What is shared counts as often as it is found, and is folded once.
3. A cycle is folded as a whole, its members numbered from where it was entered.
4. No call is nested in another: a value may be as deep as memory allows.
"""

from __future__ import annotations

import os
from marshal import dumps as _marshal
from operator import ne

from blake3 import blake3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import Any

    Reference = bytes | int  # what stands for a child: its encoding, or its number while it is open
    Buffer = bytes | bytearray | memoryview

__all__ = [
    "ATTRIBUTES",
    "ITEMS",
    "MEMBERS",
    "PAIRS",
    "PLAIN",
    "Leaf",
    "Node",
    "Undigestible",
    "buffer",
    "fold",
    "hasher",
    "mapping",
    "members",
    "pack",
    "plain",
    "sequence",
]

ITEMS, PAIRS, MEMBERS, ATTRIBUTES = range(1, 5)
"""What the children of a node are: a sequence; keys and then their values, whose order doesn't count; a set; pairs whose
keys are names of attributes."""

PLAIN = frozenset({bool, bytes, float, int, str, type(None)})  # what marshal writes in one way only
_FORMAT = 2  # of marshal: floats in binary, no references (they depend on who else holds an object)
_INLINE = 128  # bytes of an encoding that stands for itself; its length must fit into one byte
_FEW = 16  # items of a list or tuple that are looked at one by one: a loop is faster than setting up others
_MANY = 64  # texts that are joined before they are hashed: twice as fast for a column of them
_LARGE = 1 << 16  # bytes of a buffer that is hashed where it lies
_THREADED = 1 << 22  # bytes from which threads pay: starting and ending them takes 40 µs, hashing these 500
_MOST_THREADS = 8  # memory is the limit before that

_NAN = float("nan")
_TEXT = frozenset({str})
_SIZED = frozenset({bytes, str})
_ORDERED = frozenset({bool, bytes, float, int, str})


class Undigestible(Exception):  # noqa: N818 - it says what a value is
    """A value has no content that another process would find again.

    Args:
        path: which part of the value, for instance `rows[3].lock`.
        reason: why.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class Node:
    """What a value consists of.

    Attributes:
        label: what kind of value it is, without a zero byte; different kinds have different labels.
        children: values, nodes or leaves.
        kind: ITEMS, PAIRS, MEMBERS or ATTRIBUTES.
        names: of the children, for the path of an Undigestible; None: their numbers.
    """

    __slots__ = ("children", "kind", "label", "names")

    def __init__(
        self, label: bytes, children: Sequence[Any], kind: int = ITEMS, names: Sequence[str] | None = None
    ) -> None:
        self.label = label
        self.children = children
        self.kind = kind
        self.names = names


class Leaf:
    """A child whose encoding is known."""

    __slots__ = ("encoding",)

    def __init__(self, encoding: bytes) -> None:
        self.encoding = encoding


# ---- bytes


def hasher(size: int) -> blake3:
    """What digests this many bytes, with several threads if that is faster.

    Never with blake3's own pool (`AUTO`): its threads don't live on in a forked child, which would wait for them for ever.
    """
    if size < _THREADED:
        return blake3()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return blake3(max_threads=min(cores, _MOST_THREADS))


def _hashed(data: Buffer) -> bytes:
    size = len(data)
    return blake3(data).digest() if size < _THREADED else hasher(size).update(data).digest()


def buffer(data: Buffer) -> bytes:
    """The encoding of bytes that belong to a node; they aren't copied."""
    return b"B" + _hashed(data)


def pack(label: bytes, references: Sequence[bytes], kind: int = ITEMS) -> bytes:
    """The encoding of a node whose children are encoded."""
    return _short(b"\1%s\0%c%d\0%s" % (label, kind, len(references), b"".join(references)))


def _short(payload: bytes) -> bytes:
    if len(payload) <= _INLINE:
        return b"<%c%s" % (len(payload), payload)
    return b"#" + _hashed(payload)


def _marshalled(value: Any) -> bytes:
    data = _marshal(value, _FORMAT)
    return data if len(data) <= _INLINE else b"#" + _hashed(data)


# ---- plain values, and containers of nothing else: C loops


def plain(value: Any) -> bytes:
    """The encoding of a value of one of the PLAIN types."""
    if value != value:  # noqa: PLR0124 - a NaN; there is one only
        value = _NAN
    elif type(value) in _SIZED and len(value) > _LARGE:
        if type(value) is bytes:
            return pack(b"bytes", [buffer(value)])
        return pack(b"str", [buffer(value.encode("utf-8", "surrogatepass"))])
    return _marshalled(value)


def sequence(value: list[Any] | tuple[Any, ...]) -> bytes | None:
    """The encoding of a list or tuple; None if not all of it is plain."""
    if len(value) <= _FEW:
        for one in value:
            kind = type(one)
            if kind not in PLAIN:
                return None
            if one != one or (kind in _SIZED and len(one) > _INLINE):  # noqa: PLR0124
                break
        else:
            return _marshalled(value)
    kinds = set(map(type, value))
    if kinds == _TEXT and len(value) >= _MANY:
        joined = "\0".join(value)
        if joined.count("\0") == len(value) - 1:  # no text has one of its own
            label = b"texts" if type(value) is list else b"tuple of texts"
            return pack(label, [buffer(joined.encode("utf-8", "surrogatepass"))])
    if not kinds <= PLAIN or not _fits(kinds, value):
        return None
    if float in kinds and any(map(ne, value, value)):
        value = type(value)(_NAN if one != one else one for one in value)  # noqa: PLR0124
    return _marshalled(value)


def mapping(value: dict[Any, Any]) -> bytes | None:
    """The encoding of a dict; None if its keys are not of one type that has an order, or a value isn't plain."""
    kinds = set(map(type, value))
    if not _has_order(kinds, value):
        return None
    parts: list[Any] = []
    for key in sorted(value):
        one = value[key]
        kind = type(one)
        if kind not in PLAIN or (kind in _SIZED and len(one) > _LARGE):
            return None
        parts.append(key)
        parts.append(_NAN if one != one else one)  # noqa: PLR0124
    return _short(b"\2d" + _marshal(parts, _FORMAT))


def members(value: set[Any] | frozenset[Any]) -> bytes | None:
    """The encoding of a set or frozenset; None if its members are not of one type that has an order."""
    if not _has_order(set(map(type, value)), value):
        return None
    return _short((b"\2s" if type(value) is set else b"\2f") + _marshal(sorted(value), _FORMAT))


def _has_order(kinds: set[type], values: Collection[Any]) -> bool:
    """Whether the values are small, and have one order whatever happens."""
    if len(kinds) > 1 or not kinds <= _ORDERED or not _fits(kinds, values):
        return False
    return float not in kinds or not any(one != one for one in values)  # noqa: PLR0124


def _fits(kinds: set[type], values: Collection[Any]) -> bool:
    """Whether none of the values is so large that it should not be copied."""
    if not kinds & _SIZED:
        return True
    if len(kinds) > 1:
        values = [one for one in values if type(one) in _SIZED]
    return max(map(len, values), default=0) <= _LARGE


# ---- the fold


class _Frame:
    """A node whose children are being folded."""

    __slots__ = ("children", "cyclic", "key", "low", "node", "number", "places", "references")

    def __init__(self, node: Node, number: int, key: int) -> None:
        self.node = node
        self.number = number  # in the order in which nodes are entered
        self.low = number  # the first open node that is reached from here (Tarjan, doi 10.1137/0201010)
        self.key = key  # the value's id
        self.cyclic = False  # one of the references is a number
        self.references: list[Reference] = []
        self.places: list[int] = []  # of pairs: in which order the values come
        self.children: Iterator[Any] = iter(node.children)


def fold(value: object, expand: Callable[[Any], bytes | Node], name: str = "") -> bytes:
    """The encoding of a value.

    Args:
        value: what is folded.
        expand: says what a value that isn't plain consists of, or its encoding; may raise Undigestible without a path.
        name: what the value is called in the path of an Undigestible.

    Raises:
        Undigestible: of `expand`, with the path; or because nothing tells members of a set apart.
    """
    if type(value) in PLAIN:
        return plain(value)
    try:
        found = expand(value)
    except Undigestible as error:
        raise Undigestible(name + error.path, error.reason) from error.__cause__
    return _Fold(expand, name).run(value, found) if isinstance(found, Node) else found


class _Fold:
    """One fold: what is known already, and the way down to where it is now."""

    def __init__(self, expand: Callable[[Any], bytes | Node], name: str) -> None:
        self._expand = expand
        self._name = name
        self._seen: dict[int, Reference] = {}  # by the value's id
        self._kept: list[object] = []  # so that no other value gets an id that is in `_seen`
        self._open: list[_Frame] = []  # left, but part of a cycle that isn't complete
        self._cycles = False  # whether any was closed
        self._stack: list[_Frame] = []

    def run(self, value: object, consists_of: Node) -> bytes:
        seen, kept, stack = self._seen, self._kept, self._stack
        outermost = _Frame(Node(b"", (), names=(self._name,)), 0, 0)
        stack.append(outermost)
        seen[id(value)] = number = 1
        frame = self._entered(consists_of, 1, id(value))
        while True:
            references = frame.references
            for child in frame.children:
                kind = type(child)
                if kind in PLAIN:
                    references.append(plain(child))
                    continue
                if kind is Leaf:
                    references.append(child.encoding)
                    continue
                key = id(child)
                known = seen.get(key)
                if known is None:
                    found = child if kind is Node else self._expanded(child)
                    kept.append(child)
                    if isinstance(found, Node):
                        number += 1
                        seen[key] = number
                        frame = self._entered(found, number, key)
                        break
                    known = seen[key] = found
                elif type(known) is int:
                    frame.cyclic = True
                    frame.low = min(frame.low, known)
                references.append(known)
            else:
                if frame is outermost:
                    return references[0]  # type: ignore[return-value]
                stack.pop()
                self._leave(frame, stack[-1])
                frame = stack[-1]

    def _expanded(self, child: object) -> bytes | Node:
        try:
            return self._expand(child)
        except Undigestible as error:
            raise Undigestible(self._path() + error.path, error.reason) from error.__cause__

    def _entered(self, node: Node, number: int, key: int) -> _Frame:
        frame = _Frame(node, number, key)
        if node.kind in {PAIRS, ATTRIBUTES}:
            frame.children = self._keys_first(frame)
        self._stack.append(frame)
        return frame

    def _keys_first(self, frame: _Frame) -> Iterator[Any]:
        """The children of pairs: the keys, then the values in the order of the keys' encodings."""
        children, references = frame.node.children, frame.references
        count = len(children) // 2
        keys = children[:count]
        yield from keys
        self._settle(frame, keys, "a key of a dict")
        order = sorted(range(count), key=references.__getitem__)
        references.sort(key=_bytes)
        frame.places = [place + count for place in order]
        for place in frame.places:
            yield children[place]

    def _settle(self, frame: _Frame, parts: Sequence[Any], what: str) -> None:
        """See to it that the encodings of members and keys don't depend on the order in which they were found."""
        references = frame.references
        if frame.cyclic and int in set(map(type, references)):
            raise Undigestible(self._path(), f"{what} leads back to it: no order of them is the same in all processes")
        if self._cycles:  # how a cycle is encoded depends on where it was entered
            references[:] = [fold(part, self._expand) for part in parts]

    def _leave(self, frame: _Frame, parent: _Frame) -> None:
        node, references = frame.node, frame.references
        if node.kind == MEMBERS:
            self._settle(frame, node.children, "a member of a set")
            references.sort(key=_bytes)
        if frame.low < frame.number:
            self._open.append(frame)
            parent.low = min(parent.low, frame.low)
            parent.cyclic = True
            parent.references.append(frame.number)
            return
        if frame.cyclic:
            self._close(frame)
        else:
            self._seen[frame.key] = pack(node.label, references, node.kind)  # type: ignore[arg-type]
        parent.references.append(self._seen[frame.key])

    def _close(self, first: _Frame) -> None:
        """Fold a whole cycle, or several that hang together: all that was left open since `first` was entered."""
        self._cycles = True
        frames = {first.number: first}
        while self._open and self._open[-1].number > first.number:
            frame = self._open.pop()
            frames[frame.number] = frame
        places: dict[int, int] = {first.number: 0}
        order = [first]
        parts = []
        for frame in order:  # it grows: in the order in which they are found from the first
            node = frame.node
            parts.append(b"%s\0%c%d\0" % (node.label, node.kind, len(frame.references)))
            for reference in frame.references:
                if type(reference) is bytes:
                    parts.append(reference)
                    continue
                place = places.setdefault(reference, len(places))  # type: ignore[arg-type]
                if place == len(order):
                    order.append(frames[reference])  # type: ignore[index]
                parts.append(b"^%d\0" % place)
        whole = _hashed(b"\3" + b"".join(parts))
        for place, frame in enumerate(order):
            self._seen[frame.key] = b"@%s%d\0" % (whole, place)

    def _path(self) -> str:
        return "".join(_piece(frame) for frame in self._stack)


def _bytes(reference: Reference) -> Any:
    return reference


def _piece(frame: _Frame) -> str:
    """How the child that is being folded is reached from its node."""
    node, index = frame.node, len(frame.references)
    if node.names is not None:
        return node.names[index]
    if node.kind == MEMBERS:
        return "{…}"
    if node.kind == ITEMS:
        return f"[{index}]"
    count = len(node.children) // 2
    if index < count:
        return f"[key {_shown(node.children[index])}]"
    key = node.children[frame.places[index - count] - count]
    return f".{key}" if node.kind == ATTRIBUTES else f"[{_shown(key)}]"


def _shown(key: object) -> str:
    try:
        return f"{key!r:.40}"
    except Exception as error:
        return f"<{type(key).__name__} whose repr() raised {type(error).__name__}>"
