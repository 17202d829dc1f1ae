"""This process in its tree of processes: the slots that its workers take, and what it is itself if it is a worker.

Two kinds of slots: those of the whole tree, inherited from process to process, and those of runner classes with a
`max_running` of their own. A worker that waits for a run lends its token and says so by a frame.
"""

from __future__ import annotations

from woflo.runners import _process, _shipping, base
from woflo.runners._slots import Slots, default_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any

_MOST_UNREAD = 32_768  # bytes of the channel's buffer (208 KiB): a parent that doesn't look must not block its worker

_slots: dict[type, Slots] = {}
_own_channel: socket | None = None  # in a worker: its end of its channel
_own_slots: Slots | None = None  # in a worker: the slots that its token came from
_own_token = False  # in a worker: whether it has a slot's token at the moment
_blocked = 0  # in a worker: how many of its threads wait for runs


def slots_of(runner: type) -> Slots:
    """The slots that a runner's workers take: the tree's, or those of a class with a `max_running` of its own."""
    if runner.max_running is None:  # type: ignore[attr-defined] # nobody on the way up says a number
        owner: Any = base.BaseTaskRun
        found = _slots.get(owner)
        return _slots.setdefault(owner, Slots(default_size())) if found is None else found
    owner = runner._limit_owner()  # type: ignore[attr-defined]
    found = _slots.get(owner)
    if found is None or found.size != owner.max_running:
        found = _slots[owner] = Slots(owner.max_running)  # of a changed size: runs that are under way keep the old ones
    return found


def leave_slots(slots: Slots) -> None:
    """An attempt no longer needs its slots: those of a class of its own are closed with their last user."""
    slots.users -= 1
    if slots.users == 0 and not slots.inherited and _slots.get(base.BaseTaskRun) is not slots:
        for owner in [owner for owner, one in _slots.items() if one is slots]:
            del _slots[owner]
        if _process.supervisor is not None:
            _process.supervisor.unwatch(slots)
        slots.close()


def become_worker(channel: socket, slots: Slots, *, held: bool) -> None:
    """In a worker: know the own channel and token, so that waiting for a run of its own lends the token."""
    global _own_channel, _own_slots, _own_token
    _own_channel, _own_slots, _own_token = channel, slots, held
    if held:
        _process.waiting_hooks.append(_lend_or_reclaim)


def token_is_back() -> None:
    """In a worker whose result is sent: its parent has put the token back."""
    global _own_token
    _own_token = False


def tree_slots() -> Slots:
    """The tokens of the whole tree of processes."""
    return slots_of(base.BaseTaskRun)


def inherit_slots(size: int, reader: int, writer: int) -> Slots:
    """In a spawned worker: the tokens of the tree that it belongs to."""
    found = _slots[base.BaseTaskRun] = Slots(size, (reader, writer))
    return found


def _lend_or_reclaim(blocks: bool) -> None:
    """Somebody else may use this worker's slot while all that it does is wait."""
    global _blocked, _own_token
    _blocked += 1 if blocks else -1
    slots = _own_slots
    if slots is None or _own_channel is None:
        return
    if blocks and _own_token and _shipping.unread(_own_channel) < _MOST_UNREAD:
        _own_token = False
        _own_channel.send(_shipping.frame(_shipping.LENT))
        slots.lend()
    elif not blocks and _blocked == 0 and not _own_token and slots.reclaim():
        _own_token = True
        _own_channel.send(_shipping.frame(_shipping.HELD))


def after_fork() -> None:
    """In a forked child: it is no worker (yet), and the tokens are the tree's."""
    global _own_channel, _own_token, _blocked
    _own_channel, _own_token, _blocked = None, False, 0
    for slots in _slots.values():
        slots.after_fork()
