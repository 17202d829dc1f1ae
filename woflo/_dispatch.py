"""The runs that items of a group travel in: of which task, with which number, and with the items as they travel."""

from __future__ import annotations

from _thread import _local
from itertools import chain
from typing import TYPE_CHECKING

from woflo import _chunk
from woflo.errors import UsageError
from woflo.runners import _inputs, _shipping

try:
    from _pickle import dumps
except ImportError:
    from pickle import dumps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from woflo._source import Batch
    from woflo.runners.base import BaseTaskRun
    from woflo.task import Task

__all__ = ["has_runs", "is_constant", "pack", "start", "start_chunk", "variants"]


def is_constant(items: Sequence[Any], *, many: bool) -> bool:
    """Whether items may travel as they are: nobody can change them."""
    return not many and (type(items) is range or set(map(type, items)) <= _chunk.CONSTANT)


def has_runs(items: Sequence[Any], *, many: bool) -> bool:
    """Whether a run is among the arguments: such an item waits for it, and the others must not."""
    kinds = set(map(type, chain.from_iterable(items) if many else items))
    return not kinds <= _inputs.PLAIN and bool(_inputs.find(tuple(items), {}))


def pack(name: str, start: int, items: Sequence[Any], *, many: bool) -> list[bytes]:
    """Items as they travel, each pickled for itself: they share no argument.

    Args:
        name: of their group.
        start: the number of the first.
        items: a value for each call, or its arguments.
        many: which of both.

    Raises:
        UsageError: one of them can't be pickled.
    """
    packed = []
    for place, item in enumerate(items):
        args = item if many else (item,)
        try:
            blob = dumps(args, 5)
        except Exception:
            blob = b"__main__"
        if b"__main__" in blob:  # the worker's own __main__ may be older than what is named
            try:
                blob = _shipping._by_value(args)
            except Exception as error:
                raise UsageError(f"{name}: item {start + place} can't be pickled") from error
        packed.append(blob)
    return packed


class _Label(_local):
    """The number of the run that this thread is about to start, if it is one of a group."""

    next: str = ""


_label = _Label()


class _Numbers:
    """The numbers of runs of a group; of others (an item asks its run for its task, and calls that) the task's own."""

    def __init__(self, others: Iterator[int]) -> None:
        self.others = others

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        label, _label.next = _label.next, ""
        return label or next(self.others)


def variants(task: Task[..., Any, Any]) -> tuple[Task[..., Any, Any], Task[..., Any, Any]]:
    """The task whose runs are items of a group, and the one whose runs are chunks of them.

    Made once per task, since a pool keeps what it knows of a task by its identity.
    """
    found: Any = vars(task).get("_mapped")
    if found is None or found[0].fn is not task.fn:  # else it is of the function that this method was bound from
        numbers = _Numbers(task.numbers)
        if task.cache is not None:
            task._memory("map")  # shared with the variant
        item, chunk = (type(task).__new__(type(task)) for _ in range(2))
        vars(item).update(vars(task), numbers=numbers)
        vars(chunk).update(vars(task), numbers=numbers, fn=_chunk.Chunk(task), is_async=False, simple=True, _apart=True)
        found = vars(task)["_mapped"] = item, chunk
    return found  # type: ignore[no-any-return]


def start(
    batch: Batch,
    label: str,
    task: Task[..., Any, Any],
    runner: type[BaseTaskRun[Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Start an item's run: `batch.run`, as soon as there is one."""
    inputs = _inputs.find(args, kwargs)
    _label.next = label
    try:
        if task.cache is not None:
            batch.run = task._memory("").call(task, runner, args, dict(kwargs), inputs)
        else:
            kwargs = dict(kwargs)
            batch.run = runner.submit(task, args, kwargs, inputs)
    finally:
        _label.next = ""


def start_chunk(
    batch: Batch, label: str, task: Task[..., Any, Any], runner: type[BaseTaskRun[Any]], args: tuple[Any, ...]
) -> None:
    """Start a run of a whole batch: `batch.run`, as soon as there is one."""
    _label.next = label
    try:
        batch.run = runner.submit(task, args, {}, [])
    finally:
        _label.next = ""
