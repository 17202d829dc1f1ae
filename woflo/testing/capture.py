"""capture_events: the events of a block, in a list."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from woflo.events import Event, observe

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["capture_events"]


@contextlib.contextmanager
def capture_events(*kinds: type[Event]) -> Iterator[list[Any]]:
    """A list of the events that are told within a `with` block, in their order.

    It holds those of runs and engines that began inside of the block; all of this process's, whichever thread learnt them.

    >>> import woflo
    >>> with capture_events(woflo.events.RunEnded) as events:
    ...     run = woflo.task(len, runner=woflo.SequentialTaskRun)("abc")
    >>> [(event.task, event.failure) for event in events]
    [('len', None)]

    Args:
        kinds: the classes of events that are wanted; none: all.
    """
    wanted = kinds or (Event,)
    events: list[Any] = []

    def note(event: Event) -> None:
        if isinstance(event, wanted):
            events.append(event)

    with observe(note):
        yield events
