"""WorkflowConfig: what a workflow is told, and which of that decides what its products are.

Rule 1: a field counts by its type and content; a path by the content of its files, however they were touched.
Rule 2: what has no digest can't count, and is named.
"""

from __future__ import annotations

import inspect
import stat
import time
from collections.abc import Iterable
from copy import deepcopy
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from woflo._code import code_of
from woflo._fingerprint import Undigestible, cache_key, digest
from woflo._origin import PROJECT, origin
from woflo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["WorkflowConfig", "fields_of", "identity_of", "methods_of", "parts_of"]

_LONGEST = 60  # characters of a field that are shown; of a longer one, its digest
_SETTLED = 2 * 10**9  # ns since a file's last change after which another one changes its times, on every file system
_MOST_FILES = 1000  # whose digests are remembered

_files: dict[Path, tuple[tuple[int, ...], bytes]] = {}  # what they looked like when they had this digest


class WorkflowConfig:
    """The configuration of a workflow: fields, and which of them decide what its products are.

    Subclasses declare their fields with defaults, and name in `_identity_fields` those that count; a dataclass serves as
    well. Fields that don't count (where to write, how much to log) may change without anything being made anew.

    >>> class Fit(WorkflowConfig):
    ...     _identity_fields = ("degree",)
    ...     degree: int = 2
    ...     verbose: bool = False
    >>> Fit(degree=3).cache_key() == Fit(degree=3, verbose=True).cache_key() != Fit().cache_key()
    True
    """

    __module__ = "woflo.workflow"  # where its users find it

    _identity_fields: Sequence[str] | None = None

    def __init__(self, **fields: Any) -> None:
        """Make a configuration of these fields; the others have their defaults.

        Raises:
            UsageError: the class declares no such field, or one without a default is not given. (WorkflowConfig itself takes
                any field.)
        """
        declared = _declared(type(self))
        for name in fields:
            if declared and name not in declared and name != "_identity_fields":
                close = get_close_matches(name, list(declared), 1)
                hint = f" (did you mean {close[0]!r}?)" if close else f"; it has {', '.join(declared)}"
                raise UsageError(f"{type(self).__name__} has no field {name!r}{hint}")
        missing = [name for name in declared if name not in fields and not hasattr(type(self), name)]
        if missing:
            raise UsageError(f"{type(self).__name__} needs {', '.join(missing)}: there is no default")
        for name in declared:
            if name not in fields:
                setattr(self, name, deepcopy(getattr(type(self), name)))
        for name, value in fields.items():
            setattr(self, name, value)

    def cache_key(self, requires: Mapping[str, str | None] | None = None) -> str | None:
        """The key of what is made with this configuration from these inputs; None if no `_identity_fields` are declared.

        A field that is a `pathlib.Path` counts with the content of its file.

        Args:
            requires: what the product is made from: name → digest.

        Raises:
            UsageError: there is no such field, or its value has no digest.
        """
        parts = parts_of(identity_of(self)[0], requires or {})
        return None if parts is None else cache_key(*parts)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({fields})"


def identity_of(config: Any) -> tuple[str | None, dict[str, str]]:
    """A digest of the fields that a configuration says to count (None if it says of none), and what they are, for people.

    What is long or has no short text is shown by its digest.

    Raises:
        UsageError: there is no such field, or its value has no digest.
    """
    fields = fields_of(config)
    if fields is None:
        return None, {}
    parts: list[bytes | str] = ["workflow configuration"]
    shown = {}
    for name, value in fields.items():
        try:
            mark = _digest(value, name)
        except Undigestible as error:
            raise UsageError(
                f"{type(config).__name__}: {error}, so it can't be part of a cache key: leave it out of _identity_fields"
            ) from None
        parts += [name, mark]
        text = repr(value) if value is None or isinstance(value, (bool, int, float, str)) else ""
        shown[name] = text if 0 < len(text) <= _LONGEST else mark.hex()
    return cache_key(*parts), shown


def methods_of(config: Any) -> dict[str, str]:
    """The code of a configuration's methods and properties, of the project's classes: as people call it → digest.

    What a class says that is no code (defaults, fields that don't count) isn't looked at.
    """
    found: dict[str, str] = {}
    for cls in type(config).__mro__:
        if cls is object or origin(cls.__module__) is not PROJECT:
            continue
        for name, value in vars(cls).items():
            for one in (value, *(getattr(value, part, None) for part in ("__func__", "fget", "func"))):
                if isinstance(one, FunctionType) and one.__module__ == cls.__module__:
                    found.setdefault(f"{name}() of {type(config).__name__}", code_of(one).digest)
    return found


def fields_of(config: Any) -> dict[str, Any] | None:
    """The fields that a configuration says to count, with their values; None if it says of none."""
    names = getattr(config, "_identity_fields", None)
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise UsageError(f"{type(config).__name__}._identity_fields is a list of names: write [{names!r}]")
    found = {}
    for name in sorted(names):
        try:
            found[name] = getattr(config, name)
        except AttributeError:
            raise UsageError(f"{type(config).__name__} has no {name!r}, which its _identity_fields name") from None
    return found


def _digest(value: Any, name: str) -> bytes:
    """The digest of a field; a large file's is computed again only if the file was touched."""
    if not isinstance(value, Path):
        return digest(value, name)
    try:
        found = value.stat()
    except OSError:
        return digest(value, name)
    state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    known = _files.get(value)
    if known is not None and known[0] == state:
        return known[1]
    mark = digest(value, name)
    # What is written within the clock's resolution of its last change looks untouched.
    if stat.S_ISREG(found.st_mode) and time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED:
        if len(_files) >= _MOST_FILES:
            _files.clear()
        _files[value] = state, mark
    return mark


def parts_of(identity: str | None, requires: Mapping[str, str | None]) -> list[str] | None:
    """What is made with a configuration of this identity from these inputs depends on; None if nothing is known of that."""
    if identity is None:
        return None
    parts = [identity]
    for name in sorted(requires):
        parts += (name, requires[name] or "")
    return parts


def _declared(cls: type) -> dict[str, None]:
    """The fields that a class and its bases below WorkflowConfig declare, the bases' first."""
    found: dict[str, None] = {}
    for one in reversed(cls.__mro__):
        if one in {object, WorkflowConfig}:
            continue
        annotated = _annotations(one)
        found |= {name: None for name in annotated if "ClassVar" not in str(annotated[name]) and name[0] != "_"}
        plain = (name for name in vars(one) if name not in annotated and name[0] != "_")
        found |= {
            name: None for name in plain if not hasattr(vars(one)[name], "__get__")
        }  # neither method nor property
    return found


def _annotations(cls: type) -> dict[str, Any]:
    try:
        return inspect.get_annotations(cls)
    except NameError:  # Python 3.14 evaluates them only now, and what is imported for type checkers has no value
        library = import_module("annotationlib")
        found: dict[str, Any] = library.get_annotations(cls, format=library.Format.STRING)
        return found
