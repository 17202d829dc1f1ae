"""Types and options: predicates that are asked in their order, defaults that are values, complaints that name everything."""

from __future__ import annotations

import doctest
import fnmatch
import functools
import operator
import pickle
from unittest.mock import Mock

import numpy as np
import pytest

import woflo.options
from woflo import UsageError, task
from woflo.lazy import Lazy
from woflo.options import REQUIRED, Option, Type, shown, validate
from woflo.runners import SequentialTaskRun


def is_integer(value):
    return isinstance(value, int)


def is_positive(value):
    return value > 0


INTEGER = Type("integer", is_integer)
COUNT = Type("count", is_positive, INTEGER)
ANYTHING = Type("anything", lambda _: True)


class Loud:
    """Its repr, its copy and its truth all raise."""

    def __repr__(self):
        raise RuntimeError("no repr")

    def __deepcopy__(self, memo):
        raise RuntimeError("no copy")

    def __bool__(self):
        raise RuntimeError("no truth")


# ---------------------------------------------------------------------- Type


def test_a_type_is_its_name_its_predicate_and_its_parent():
    """Each argument is an attribute, and none can be changed."""
    assert (COUNT.name, COUNT.predicate, COUNT.parent, INTEGER.parent) == ("count", is_positive, INTEGER, None)
    assert (repr(COUNT), repr(INTEGER)) == ("<Type count of integer>", "<Type integer>")
    with pytest.raises(AttributeError):
        COUNT.name = "other"


def test_the_parents_predicate_comes_first():
    """The oldest is asked first, and the next one only about what it lets through."""
    asked = []

    def note(name, answer=True):
        return lambda value: asked.append((name, value)) or answer

    oldest = Type("oldest", note("oldest"))
    middle = Type("middle", note("middle", answer=False), oldest)
    youngest = Type("youngest", note("youngest"), middle)
    assert not youngest.fits(7)
    assert asked == [("oldest", 7), ("middle", 7)]
    asked.clear()
    assert Type("other", note("other"), oldest).fits(8)
    assert asked == [("oldest", 8), ("other", 8)]


def is_silent(value):
    """Forgets its `return`."""


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (COUNT, 3, ""),
        (COUNT, -3, "-3 is no 'count': is_positive() returned False"),
        (COUNT, "x", "'x' is no 'count': is_integer() of its parent 'integer' returned False"),
        (Type("t", lambda text: len(text) < 3), 5, "5 is no 't': <lambda> (*test_options.py:*) raised TypeError: *"),
        (Type("t", is_silent), 5, "5 is no 't': is_silent() returned None: does it say `return`?"),
        (Type("t", functools.partial(operator.gt, 9)), 10, "10 is no 't': gt() returned False"),
        (Type("t", {1: 2}.get), 5, "5 is no 't': dict.get() returned None: does it say `return`?"),
        (Type("t", lambda value: value > 1), np.arange(2), "array(*) is no 't': <lambda> (*) raised ValueError: *"),
        (Type("t", lambda value: value), Loud(), "<Loud *> is no 't': <lambda> (*) raised RuntimeError: no truth"),
        (Type("t", lambda value: np.bool_(value == 0)), 1, "1 is no 't': <lambda> (*) returned *False*"),
    ],
)
def test_a_problem_names_value_type_and_predicate(kind, value, problem):
    """Where a predicate stands counts as the name of one that has none."""
    said = kind.problem(value)
    assert fnmatch.fnmatchcase(said, problem)
    assert kind.fits(value) is (said == "")


def test_a_problem_can_be_told_without_the_value():
    """What is not to be shown is called something."""
    assert COUNT.problem(-3, "its product") == "its product is no 'count': is_positive() returned False"


def test_ctrl_c_in_a_predicate_goes_on():
    """Only exceptions are answers."""

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Type("never", interrupted).problem(1)


async def is_later(value):
    return value


def is_generated(value):
    yield value


class IsLater:
    async def __call__(self, value):
        return value


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("", is_integer), "a type's name is a text of one line that is not empty, not ''"),
        ((" ", is_integer), "a type's name"),
        (("a\nb", is_integer), "a type's name"),
        ((int, is_integer), "a type's name"),
        ((b"count", is_integer), "a type's name"),
        (("count", int), "the class int: lambda value: isinstance\\(value, int\\)"),
        (("count", 3), "has a predicate, a function of one value that says whether the value fits, not 3"),
        (("count", None), "not None"),
        (("count", lambda: True), "can't be called with one value"),
        (("count", lambda a, b: True), "can't be called with one value"),  # noqa: ARG005
        (("count", lambda *, value: True), "can't be called with one value"),  # noqa: ARG005
        (("count", is_later), "always true"),
        (("count", is_generated), "always true"),
        (("count", IsLater()), "always true"),
        (("count", is_integer, "integer"), "the parent of the type 'count' is a Type, or None, not 'integer'"),
        (("count", is_integer, is_integer), "the parent of the type"),
    ],
)
def test_what_is_no_type_is_refused(arguments, complaint):
    """A predicate that could only be wrong is found when it is declared."""
    with pytest.raises(UsageError, match=complaint):
        Type(*arguments)


@pytest.mark.parametrize("predicate", [callable, str.isidentifier, Mock(), is_integer, "abc".__contains__, [].count])
def test_whatever_can_be_called_with_one_value_is_a_predicate(predicate):
    """Built-in functions, methods and mocks too."""
    assert Type("some", predicate).predicate is predicate


# ---------------------------------------------------------------------- Option


def test_an_option_is_a_type_and_maybe_a_default():
    """Without one a value is required."""
    assert (Option(COUNT).is_required, Option(COUNT).default) == (True, REQUIRED)
    assert (Option(COUNT, default=3).is_required, Option(COUNT, 3).default) == (False, 3)
    assert (repr(Option(COUNT)), repr(Option(COUNT, default=3))) == ("<Option count>", "<Option count = 3>")
    with pytest.raises(AttributeError):
        Option(COUNT).default = 3
    with pytest.raises(UsageError, match="no default"):
        Option(COUNT).copy_default()


def test_none_is_a_default():
    """None is a value like any other, if the type takes it."""
    assert Option(ANYTHING, default=None).copy_default() is None
    with pytest.raises(UsageError, match="None is no 'integer'"):
        Option(INTEGER, default=None)


def test_a_default_is_copied_when_it_is_made_and_each_time_it_is_used():
    """Neither who gave it nor who was given it can change it."""
    mine = {"rows": [1]}
    option = Option(ANYTHING, default=mine)
    mine["rows"].append(2)
    first = option.copy_default()
    first["rows"].append(3)
    assert option.copy_default() == option.default == {"rows": [1]}


@pytest.mark.parametrize("default", [list, dict, lambda: 3, print, COUNT.fits, Mock(), task(print)])
def test_a_default_is_a_value_and_no_closure(default):
    """Whatever can be called is refused."""
    with pytest.raises(UsageError, match="a default is a value, not something to call"):
        Option(ANYTHING, default=default)


def test_a_default_is_of_its_type():
    """It is checked where it is declared."""
    with pytest.raises(UsageError, match=r"-1 is no 'count': is_positive\(\) returned False"):
        Option(COUNT, default=-1)


def test_what_has_no_value_yet_is_no_default():
    """A run, a Lazy and another option have none."""
    add = task(operator.add, runner=SequentialTaskRun)
    with pytest.raises(UsageError, match="is a TaskRun: the values of options are known before anything runs"):
        Option(ANYTHING, default=add(1, 2))
    with pytest.raises(UsageError, match="a default is a value: <Lazy add> is a Lazy"):
        Option(ANYTHING, default=Lazy.of(add, 1, 2))
    with pytest.raises(UsageError, match="options are flat"):
        Option(ANYTHING, default=Option(COUNT, default=3))


def test_a_default_that_cannot_be_copied_is_refused():
    """It would be shared, and could be changed."""
    with pytest.raises(UsageError, match=r"is copied each time it is used, and .*Loud.* can't be: no copy"):
        Option(ANYTHING, default=Loud())
    with pytest.raises(UsageError, match="can't be"):
        Option(ANYTHING, default=(letter for letter in "ab"))


@pytest.mark.parametrize("kind", [int, "count", is_integer, None, 3])
def test_an_option_has_a_type(kind):
    """A class, a predicate and a name are none."""
    with pytest.raises(UsageError, match="an option has a Type, not"):
        Option(kind)


# ---------------------------------------------------------------------- validate


OPTIONS = {"n": Option(COUNT, default=2), "name": Option(Type("text", lambda value: isinstance(value, str)))}


def test_validate_fills_in_defaults():
    """What is given counts, the rest comes from the defaults, in the order of the options."""
    assert list(validate(OPTIONS, {"name": "a"}).items()) == [("n", 2), ("name", "a")]
    assert validate(OPTIONS, {"name": "a", "n": 5}) == {"n": 5, "name": "a"}
    assert validate({}, {}) == {}


def test_validate_names_everything_at_once():
    """Unknown, missing and wrong: one error."""
    with pytest.raises(UsageError) as caught:
        validate(OPTIONS, {"nam": "a", "n": -3}, of="pca")
    assert str(caught.value).splitlines() == [
        "the options of pca: 3 things are wrong",
        "  'nam': there is no such option; did you mean 'name'?",
        "  n: -3 is no 'count': is_positive() returned False",
        "  name is missing; it is a 'text' and has no default",
    ]


def test_one_problem_is_one_line():
    """A list of one would be noise."""
    with pytest.raises(UsageError, match=r"^the options: name is missing; it is a 'text' and has no default$"):
        validate(OPTIONS, {})


def test_values_are_known_before_anything_runs():
    """A run is no value, whatever its type would say."""
    with pytest.raises(UsageError, match="is a TaskRun"):
        validate({"any": Option(ANYTHING)}, {"any": task(print, runner=SequentialTaskRun)()})
    with pytest.raises(UsageError, match="is an Option, not a value of one"):
        validate({"any": Option(ANYTHING)}, {"any": Option(COUNT)})


# ---------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    "value",
    ["x" * 10**7, list(range(10**6)), {i: i for i in range(10**5)}, 10**4000, np.zeros(10**6), [[[[[[1]]]]]], "a\nb\x1b[31m"],
    ids=["text", "list", "dict", "number", "array", "nested", "control"],
)  # fmt: skip
def test_a_value_is_shown_in_one_short_line(value):
    """However large it is, and whatever it would do to a terminal."""
    text = shown(value)
    assert 0 < len(text) <= 100
    assert text.isprintable()


def test_types_and_options_travel():
    """To another process and back: the same type, the same default; no default stays none."""
    kind, given, required = pickle.loads(pickle.dumps((COUNT, Option(COUNT, default=3), Option(COUNT))))
    assert (kind.name, kind.problem(-1), kind.parent.name) == ("count", COUNT.problem(-1), "integer")
    assert given.type is kind
    assert (given.default, required.is_required) == (3, True)


def test_examples():
    """What the docstrings show is so."""
    assert doctest.testmod(woflo.options).failed == 0


def test_public_names_are_documented():
    """Each says in one line of at most 80 characters what it is."""
    for name in woflo.options.__all__:
        first = getattr(woflo.options, name).__doc__.split("\n", 1)[0]
        assert 0 < len(first) <= 80, name
