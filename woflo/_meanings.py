"""Which value is meant for which option of which task, and what is wrong with them: `check` makes an Invocation, or says all.

Here the predicates of options are asked. No task's code runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from woflo._bound_task import BoundTask
from woflo._invocation import Invocation
from woflo.errors import UsageError
from woflo.options import close, complaint, missing, not_a_value, shown
from woflo.runners._inputs import LAZY, find

if TYPE_CHECKING:
    from woflo._definition import Definition

    Tasks = Mapping[str, Definition[..., Any, Any]]

__all__ = ["check", "inside_of"]


def check(target: str, tasks: Tasks, values: Any, more: Mapping[str, Any]) -> Invocation[Any]:
    """An invocation of one of these tasks, with these values.

    Raises:
        UsageError: names everything that is wrong with them.
    """
    if values is not None and not isinstance(values, Mapping):
        raise UsageError(f"the values of options are given as a dict, by 'task.option', not as {type(values).__name__}")
    needed = _needed(target, tasks)
    meanings = _Meanings(target, needed, _spared(needed, tasks), tasks)
    given: dict[tuple[str, str], Any] = {}
    problems: list[str] = []
    for source in (values or {}, more):
        for key, value in source.items():
            try:
                meant = meanings.of(key, value)
            except UsageError as error:
                problems.append(str(error))
                continue
            task, name = meant
            wrong = inside_of(value) or meanings.options[task][name].type.problem(value)
            if meant in given:
                problems.append(f"{task}.{name} is given twice")
            elif wrong:
                problems.append(f"{task}.{name}: {wrong}")
            given[meant] = value
    calls = []
    for one in needed.values():
        options = {}
        for name, option in one.options.items():
            if not one._takes(name):
                continue
            if (one.name, name) in given:
                options[name] = given[one.name, name]
            elif option.is_required:
                problems.append(missing(f"{one.name}.{name}", option))
            else:
                options[name] = option.copy_default()
        calls.append(BoundTask(one, options, frozenset(name for name in options if (one.name, name) in given)))
    if problems:
        raise complaint(f"{target!r} can't be invoked", problems)
    return Invocation(target, calls)


def inside_of(value: Any) -> str:
    """What to say of a value that has none before something has run, or holds such; empty if there is nothing to say."""
    wrong = not_a_value(value)
    if not wrong:
        found = find((value,), {}) or find((value,), {}, LAZY)
        wrong = f"holds a run: {not_a_value(found[0])}" if found else ""
    return wrong


def _needed(target: str, tasks: Tasks) -> dict[str, Definition[..., Any, Any]]:
    """The task and all that it needs, each behind what it needs."""
    found: dict[str, Definition[..., Any, Any]] = {}
    todo = [target]
    opened: set[str] = set()
    while todo:
        name = todo[-1]
        one = tasks[name]
        if name in opened:
            todo.pop()
            found.setdefault(name, one)
        else:
            opened.add(name)
            todo.extend(need for need in reversed(one.requires) if need not in opened)
    return found


def _spared(needed: Tasks, tasks: Tasks) -> dict[str, Definition[..., Any, Any]]:
    """The tasks that would be needed as well, if nothing stood in the place of another: their options may be given still.

    So the code that is tested gives the values that it always gives, whatever the test has put in the place of which task.
    """
    found: dict[str, Definition[..., Any, Any]] = {}
    todo = [one.replaces for one in needed.values() if one.replaces is not None]
    while todo:
        one = todo.pop()
        for name in one.requires:
            if name not in needed and name not in found and name in tasks:
                found[name] = tasks[name]
                todo.append(tasks[name])
        if one.replaces is not None:
            todo.append(one.replaces)
    return found


class _Meanings:
    """Which option of which task a name means."""

    def __init__(
        self,
        target: str,
        needed: Tasks,
        spared: Tasks,
        tasks: Tasks,
    ) -> None:
        self.target = target
        self.needed = needed
        self.tasks = tasks
        self.here = {**needed, **spared}
        self.options = {name: one.options for name, one in self.here.items()}
        # of each option's name: first among the needed, then among the spared
        self.owners: list[dict[str, list[str]]] = []
        for some in (needed, spared):
            owners: dict[str, list[str]] = {}
            for task, one in some.items():
                for name in one.options:
                    owners.setdefault(name, []).append(task)
            self.owners.append(owners)

    def of(self, key: Any, value: Any) -> tuple[str, str]:
        """Task and option.

        Raises:
            UsageError: it means none, or several.
        """
        if not isinstance(key, str):
            raise UsageError(f"{shown(key)}: an option is named by a text, 'task.option' or 'option'")
        task, dot, name = key.partition(".")
        if dot:
            return self._of_task(key, task, name)
        for owners in self.owners:
            found = owners.get(key, [])
            if len(found) == 1:
                return found[0], key
            if found:
                raise UsageError(f"{key!r} may mean {' or '.join(f'{task}.{key}' for task in found)}: say which")
        if key in self.here:
            if isinstance(value, Mapping):
                raise UsageError(f"options are flat: {key!r} is a task; name each of its options, '{key}.…'")
            raise UsageError(_is_made(key))
        raise UsageError(f"{shown(key)}: there is no such option{close(key, [*self.owners[0], *self._all()])}")

    def _of_task(self, key: str, task: str, name: str) -> tuple[str, str]:
        if task in self.here:
            if name in self.options[task]:
                return task, name
            if name in self.here[task].requires:
                raise UsageError(f"{key!r}: {_is_made(name)}")
            raise UsageError(f"{shown(key)}: there is no such option{close(key, self._all(task))}")
        if task in self.tasks:
            raise UsageError(f"{key!r}: {self.target!r} does not need the task {task!r}")
        raise UsageError(f"{shown(key)}: there is no task {task!r}{close(key, self._all())}")

    def _all(self, task: str = "") -> list[str]:
        """The full names of a task's options, or of all."""
        return [f"{one}.{name}" for one in ([task] if task else self.needed) for name in self.options[one]]


def _is_made(task: str) -> str:
    return f"{task!r} is a task: its product is made, not given; env.override({task!r}, …) puts something in its place"
