"""Type, Option: what the options and the products of tasks have to be. Predicates, not a type system.

A Type is a name and a predicate; if it has a parent, the parent's predicate is asked first. An Option is a Type and maybe a
default, which is a value. Options and products share their types: what tells the two apart is when their values are
known, an option's before anything runs.

Values in, complaints out: nothing here runs a task, or knows where types and tasks are kept.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from reprlib import Repr
from typing import TYPE_CHECKING, Any

from woflo._exceptions import safe_str, type_name
from woflo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["Option", "Type", "validate"]

_LONGEST = 100  # characters of a value that a message shows: enough to recognise it, too few to bury the message
_HINTED = 10_000  # names that are compared with an unknown one: some hundredths of a second
_ASYNC_OR_GENERATOR = 0x80 | 0x20 | 0x200  # inspect.CO_COROUTINE, CO_GENERATOR, CO_ASYNC_GENERATOR


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Type:
    """A name and a predicate that the values of this type satisfy.

    >>> integer = Type("integer", lambda value: isinstance(value, int))
    >>> count = Type("count", lambda value: value >= 0, integer)
    >>> count.fits(3), count.fits(-3), count.fits("3")
    (True, False, False)

    Attributes:
        name: what people call it.
        predicate: called with a value; true if the value is of this type. It is asked only if the parent's says yes.
        parent: the type that its values have to be of before.
    """

    name: str
    predicate: Callable[[Any], object]
    parent: Type | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or not self.name.isprintable():
            raise UsageError(f"a type's name is a text of one line that is not empty, not {shown(self.name)}")
        if self.parent is not None and not isinstance(self.parent, Type):
            raise UsageError(f"the parent of the type {self.name!r} is a Type, or None, not {shown(self.parent)}")
        wrong = _not_a_predicate(self.predicate)
        if wrong:
            raise UsageError(f"the type {self.name!r} {wrong}")

    def fits(self, value: object) -> bool:
        """Whether a value is of this type; False also where a predicate raises."""
        return not self.problem(value)

    def problem(self, value: object, what: str | None = None) -> str:
        """Why a value is not of this type, in one line; empty if it is.

        Args:
            value: what the predicates are asked about.
            what: what the line calls the value, instead of showing it.
        """
        for one in self._lineage():
            try:
                answer = one.predicate(value)
                if answer:
                    continue
            except Exception as error:  # a user's code: that is an answer too
                told = f"raised {type_name(type(error))}" + (
                    f": {_one_line(text)}" if (text := safe_str(error)) else ""
                )
            else:
                told = "returned None: does it say `return`?" if answer is None else f"returned {shown(answer)}"
            whose = "" if one is self else f" of its parent {one.name!r}"
            return (
                f"{shown(value) if what is None else what} is no {self.name!r}: {_named(one.predicate)}{whose} {told}"
            )
        return ""

    def _lineage(self) -> Iterator[Type]:
        """Its oldest parent first, itself last."""
        line = [self]
        while line[-1].parent is not None:
            line.append(line[-1].parent)
        return reversed(line)

    def __woflo_digest__(self) -> tuple[Any, ...]:
        """What it is to code that names it."""
        return self.name, self.predicate, self.parent

    def __repr__(self) -> str:
        parent = "" if self.parent is None else f" of {self.parent.name}"
        return f"<Type {self.name}{parent}>"


class _Required:
    """In the place of a default where there is none."""

    def __repr__(self) -> str:
        return "required"

    def __reduce__(self) -> str:
        return "REQUIRED"

    def __deepcopy__(self, memo: object) -> _Required:
        return self


REQUIRED: Any = _Required()


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Option:
    """What a task can be told: a type, and maybe a default.

    The default is copied when the Option is made, and again each time it is used: nobody else can change it.

    >>> Option(Type("text", lambda value: isinstance(value, str)), default="csv")
    <Option text = 'csv'>

    Attributes:
        type: the Type of its values.
        default: the value if none is given. A value, no function that makes one.
    """

    type: Type
    default: Any = REQUIRED

    def __post_init__(self) -> None:
        kind, default = self.type, self.default
        if not isinstance(kind, Type):
            raise UsageError(f"an option has a Type, not {shown(kind)}")
        if default is REQUIRED:
            return
        if isinstance(default, Option):
            raise UsageError("options are flat: the default of an option is a value, not another option")
        wrong = not_a_value(default)
        if wrong:
            raise UsageError(f"a default is a value: {wrong}")
        if callable(default):
            raise UsageError(f"a default is a value, not something to call: {shown(default)}")
        wrong = kind.problem(default)
        if wrong:
            raise UsageError(f"a default has to be of its option's type: {wrong}")
        try:
            object.__setattr__(self, "default", deepcopy(default))
        except Exception as error:  # a user's code
            raise UsageError(
                f"a default is copied each time it is used, and {shown(default)} can't be: {_one_line(safe_str(error))}"
            ) from error

    @property
    def is_required(self) -> bool:
        """Whether a value has to be given: there is no default."""
        return self.default is REQUIRED

    def copy_default(self) -> Any:
        """A copy of the default, for one use.

        Raises:
            UsageError: there is none.
        """
        if self.default is REQUIRED:
            raise UsageError("there is no default")
        return deepcopy(self.default)

    def __repr__(self) -> str:
        return f"<Option {self.type.name}{'' if self.is_required else f' = {shown(self.default)}'}>"


def validate(options: Mapping[str, Option], values: Mapping[str, Any], *, of: str = "") -> dict[str, Any]:
    """The value of each option: the given one, or a copy of the default.

    Args:
        options: option by name.
        values: the given ones, by name.
        of: whose options they are, for the message.

    Raises:
        UsageError: names everything that is wrong: options that are missing or unknown, values that are not of their type.
    """
    found: dict[str, Any] = {}
    problems = [f"{name!r}: there is no such option{close(name, options)}" for name in values if name not in options]
    for name, option in options.items():
        if name not in values:
            if option.is_required:
                problems.append(missing(name, option))
            else:
                found[name] = option.copy_default()
        elif wrong := not_a_value(values[name]) or option.type.problem(values[name]):
            problems.append(f"{name}: {wrong}")
        else:
            found[name] = values[name]
    if problems:
        raise complaint(f"the options of {of}" if of else "the options", problems)
    return found


# ---------------------------------------------------------------------- what messages are made of


def complaint(about: str, problems: Sequence[str]) -> UsageError:
    """One error that names everything that is wrong."""
    if len(problems) == 1:
        return UsageError(f"{about}: {problems[0]}")
    return UsageError("\n  ".join([f"{about}: {len(problems)} things are wrong", *problems]))


def missing(name: str, option: Option) -> str:
    """What to say of an option that has no value."""
    return f"{name} is missing; it is a {option.type.name!r} and has no default"


def not_a_value(value: object) -> str:
    """What to say of something that has no value before something has run; empty if it has one."""
    kind = type(value)
    for mark, name in (("_is_task_run", "a TaskRun"), ("_is_lazy", "a Lazy"), ("_is_product", "a product")):
        if hasattr(kind, mark):
            return f"{shown(value)} is {name}: the values of options are known before anything runs"
    return f"{shown(value)} is an Option, not a value of one" if isinstance(value, Option) else ""


def close(name: object, known: Iterable[str]) -> str:
    """The names that an unknown one may have been meant for; else some that there are."""
    from difflib import get_close_matches
    from itertools import islice

    some = list(islice(known, _HINTED))
    found = get_close_matches(str(name), some, n=3)
    if found:
        return f"; did you mean {' or '.join(map(repr, found))}?"
    return f"; there is {', '.join(map(repr, some[:5]))}{', …' if len(some) > 5 else ''}" if some else "; there is none"


class _Short(Repr):
    """`repr` that takes no longer for a large value than for a small one."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = 80


_short = _Short()


def shown(value: object) -> str:
    """A value for a message: its repr in one line, not longer than some words."""
    try:
        text = _short.repr(value)
    except Exception as error:  # a user's code
        text = f"<{type_name(type(value))} whose repr raised {type_name(type(error))}>"
    text = _one_line(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _one_line(text: str) -> str:
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in " ".join(text.split()))


def _not_a_predicate(given: Any) -> str:
    """What to say of something that can't be a predicate; empty if it can."""
    if isinstance(given, type):
        return f"has a predicate, not the class {given.__name__}: lambda value: isinstance(value, {given.__name__})"
    if not callable(given):
        return f"has a predicate, a function of one value that says whether the value fits, not {shown(given)}"
    inner = getattr(given, "__func__", given)
    code = getattr(inner, "__code__", None) or getattr(vars(type(inner)).get("__call__"), "__code__", None)
    if code is not None and code.co_flags & _ASYNC_OR_GENERATOR:
        return f"has a predicate that returns a coroutine or a generator, which is always true: {shown(given)}"
    from inspect import signature

    try:
        signature(given).bind(None)
    except TypeError as error:
        return f"has a predicate that can't be called with one value: {_named(given)}: {error}"
    except ValueError:  # some built-in functions don't tell
        return ""
    return ""


def _named(predicate: Any) -> str:
    """What to call a predicate: its name; where it stands, if it has none."""
    inner = getattr(predicate, "func", predicate)  # of a partial
    name = getattr(inner, "__qualname__", type(inner).__name__).rpartition("<locals>.")[2]
    if name != "<lambda>":
        return f"{name}()"
    code = inner.__code__
    return f"<lambda> ({code.co_filename}:{code.co_firstlineno})"
