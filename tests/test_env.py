"""Env: what is defined, how it is replaced, what an invocation refuses, and how it is carried out.

What seed 001 says itself is in `tests/seeds/test_001.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import doctest
import functools
import gc
import importlib
import inspect
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path
from unittest.mock import Mock

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import woflo.env
import woflo.events
from woflo import (
    CyclicWorkflowError,
    DependencyFailure,
    Graph,
    Ok,
    TaskFailure,
    TimeoutFailure,
    UsageError,
    current_run,
    task,
    use,
)
from woflo.engine import Engine
from woflo.env import Definition, Env, Option, Type
from woflo.lazy import Lazy
from woflo.runners import AsyncTaskRun, MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun
from woflo.testing import PATIENCE

HERE = SequentialTaskRun
FILE = re.escape(__file__)
ZEROS = np.zeros(2)


def is_number(value):
    return isinstance(value, int)


def is_rows(value):
    return isinstance(value, list)


class Ledger(list):
    """Names of the tasks whose code ran; for tasks of this process, to whose code it does not belong."""

    def __woflo_digest__(self):
        return "ledger"


def new_env():
    """An Env with two types."""
    env = Env()
    env.type("number", is_number)
    env.type("rows", is_rows)
    return env


def analysis(ran=None):
    """download(urls) → clean(strict) → pca(n): what runs is noted, if a list is given."""
    env, ran = new_env(), Ledger() if ran is None else ran
    number, rows = env.types["number"], env.types["rows"]

    @env.task(options={"urls": rows}, product=rows)
    def download(urls):
        ran.append("download")
        return [len(url) for url in urls]

    @env.task(requires=[download], options={"strict": Option(number, default=0)}, product=rows)
    def clean(download, strict):
        ran.append("clean")
        return [one for one in download if one > strict]

    @env.task(requires=["clean"], options={"n": Option(number, default=2)}, product=rows)
    def pca(clean, n):
        ran.append("pca")
        return [n * one for one in clean]

    return env


URLS = {"download.urls": ["a", "bb"]}


def lines(call, *args, **kwargs):
    """What the UsageError says."""
    with pytest.raises(UsageError) as caught:
        call(*args, **kwargs)
    return str(caught.value).splitlines()


# ---------------------------------------------------------------------- definitions


def test_an_empty_env():
    """Nothing is in it, and it says so."""
    env = Env()
    assert (len(env.graph), dict(env.tasks), dict(env.types)) == (0, {}, {})
    assert repr(env) == "<Env of 0 tasks and 0 types>"
    assert lines(env.invoke, "pca") == ["there is no task 'pca'; there is none"]
    assert lines(env.override, "pca", print) == ["there is no task 'pca'; there is none"]


def test_a_definition_is_what_it_was_told():
    """Its attributes, its place, its repr; it can't be changed."""
    env = analysis()
    pca = env.tasks["pca"]
    line = inspect.getsourcelines(pca.fn)[1]
    assert (pca.name, pca.requires, list(pca.options), pca.product) == ("pca", ("clean",), ["n"], env.types["rows"])
    assert (pca.place, pca.replaces) == (f"{__file__}:{line}", None)
    assert repr(pca) == "<Definition pca(clean, n) -> rows>"
    with pytest.raises(AttributeError, match=r"env.replace\('pca', …\) makes another Env"):
        pca.name = "other"
    with pytest.raises(AttributeError, match="keeps its name"):
        del pca.name
    with pytest.raises(TypeError):
        pca.options["n"] = 3
    with pytest.raises(TypeError):
        env.tasks["other"] = pca
    with pytest.raises(TypeError):
        env.types["other"] = env.types["rows"]


def test_a_decorated_function_can_still_be_called():
    """Plainly, as it was written; editors see its signature and its documentation."""
    env = new_env()

    @env.task(options={"n": env.types["number"]}, product=env.types["number"])
    def double(n: int) -> int:
        """Twice as much."""
        return 2 * n

    assert (double(4), double.fn(n=5), double("ab")) == (8, 10, "abab")
    assert (double.__name__, double.__doc__, str(inspect.signature(double))) == (
        "double",
        "Twice as much.",
        "(n: 'int') -> 'int'",
    )


def test_a_decorated_task_keeps_its_policy_and_starts_runs():
    """Retries and time-outs are the function's own; a call starts a run, as before."""
    env = new_env()
    attempts = []

    @env.task(product=env.types["number"])
    @task(retries=2, name="measure")
    def _measure():
        attempts.append(current_run().attempt)
        if len(attempts) < 3:
            raise OSError("not yet")
        return 7

    assert env.invoke("measure").run(runner=HERE) == 7
    assert attempts == [1, 2, 3]
    with use(ThreadTaskRun):
        assert _measure().get_result() == 7


def test_a_time_out_of_a_decorated_task_counts():
    """It ends the run of this task."""
    env = new_env()

    @env.task(product=env.types["number"])
    @task(timeout=0.05)
    async def hang():
        await asyncio.Event().wait()

    with pytest.raises(TimeoutFailure):
        env.invoke(hang).run()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda: task(runner=ThreadTaskRun)(len), "take runner= out of @task of 'len'"),
        (lambda: task(cache=True)(len), "take cache= out of @task of 'len', and give store= to the invocation's run"),
        (lambda: 3, "@task needs a function, not int"),
        (lambda: dict, "can't be known"),
        (lambda: (one for one in ()), "needs a function"),
        (lambda: classmethod(len), "can't be known"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_task(wrong, complaint):
    """Something that can't be called, or says where it runs."""
    env = new_env()
    with pytest.raises(UsageError, match=complaint):
        env.task(product=env.types["rows"], name="one")(wrong())


def test_a_generator_function_is_no_task():
    """A task returns one value."""
    env = new_env()
    with pytest.raises(UsageError, match="a task returns one value"):

        @env.task(product=env.types["rows"])
        def rows():
            yield 1


@pytest.mark.parametrize("name", ["", "a b", "a.b", "1a", "class", "lambda", b"a", 3])
def test_a_name_is_a_name_of_pythons(name):
    """Tasks and options are parameters, so their names have to be such."""
    env = new_env()
    number = env.types["number"]
    with pytest.raises(UsageError, match="its name has to be a name of Python's, not "):
        env.task(name=name, product=number)(lambda: 3)
    with pytest.raises(UsageError, match="an option's name has to be a name of Python's, not "):
        env.task(name="one", options={name: number}, product=number)(lambda: 3)
    assert not env.tasks


def test_everything_that_is_wrong_is_told_at_once():
    """With the place of the function, and close matches."""
    env = analysis()

    def biplot(pcb, self, n=4, *rest, colour, **more):
        pass

    define = env.task(
        requires=["pcb", "clean", "clean"],
        options={
            "n": Option(env.types["number"], default=5),
            "color": Option(Type("text", is_rows), default=[]),
            "size": lambda value: value,
            "clean": env.types["rows"],
            "clean.strict": 3,
        },
        product="row",
    )
    place = f"{__file__}:{biplot.__code__.co_firstlineno}"
    said = lines(define, biplot)
    assert [re.sub(r"<function .*>", "<function>", line) for line in said] == [
        f"task 'biplot' ({place}): 13 things are wrong",
        "  it requires 'pcb', which is not defined yet; did you mean 'pca'?",
        "  it requires 'clean' twice",
        "  the type of its option 'color' is <Type text>, which isn't declared in this Env: env.type(it) declares it here",
        "  the type of its option 'size' is <function>: types are declared in the Env, env.type(name, predicate), not in place",
        "  'clean' is required and an option: its parameter would be both",
        "  'clean.strict' is an option of 'clean': a task can't set the options of those that it requires",
        "  its product is a Type, not 'row'; did you mean 'rows'?",
        "  its parameter 'self' is neither a task that it requires nor an option of it: define a task of a bound method instead",
        "  the option 'n' has two defaults: 5, and 4 of the parameter",
        "  parameters are matched by name: write them out instead of *rest",
        "  its parameter 'colour' is neither a task that it requires nor an option of it; did you mean 'color'?",
        "  parameters are matched by name: write them out instead of **more",
        "  it requires 'clean' and has no parameter of that name",
    ]
    assert "biplot" not in env.tasks


@pytest.mark.parametrize(
    ("keywords", "complaint"),
    [
        ({"requires": "clean"}, r"requires is a list of tasks, not the single 'clean': write \['clean'\]"),
        ({"requires": {"clean": {"strict": 3}}}, "requires is a list of tasks, .*can't set the options"),
        ({"requires": 3}, "requires is a list of tasks, not 3"),
        ({"requires": [("clean", {"strict": 3})]}, "it requires .*, which is no task; a task can't set the options"),
        ({"requires": [None]}, "it requires None, which is no task"),
        ({"options": ["n"]}, r"options are given as a dict, Option by name, not as \['n'\]"),
        ({"options": {"solver": {"tol": 3}}}, "options are flat: 'solver' is one Option, not several"),
        ({"options": {"n": 3}}, "the type of its option 'n' is 3: types are declared in the Env"),
        ({"options": {"n": int}}, "the type of its option 'n' is <class 'int'>: types are declared in the Env"),
        ({"options": {"n": "number"}}, r"the type of its option 'n' is a Type, not its name: env.types\['number'\]"),
        ({"product": int}, "its product is <class 'int'>: types are declared in the Env"),
        ({"product": "rows"}, r"its product is a Type, not its name: env.types\['rows'\]"),
        ({"product": Type("rows", is_rows)}, "its product is <Type rows>, which isn't declared in this Env"),
        ({"product": "option"}, "its product is a Type, not 'option'"),
    ],
)
def test_what_a_definition_refuses(keywords, complaint):
    """Each in words of its own."""
    env = analysis()
    with pytest.raises(UsageError, match=complaint):
        env.task(name="one", **{"product": env.types["rows"], **keywords})(lambda: 3)
    with pytest.raises(UsageError, match="types have no defaults"):
        env.task(name="one", product=Option(env.types["rows"]))(lambda: 3)
    with pytest.raises(UsageError, match="the single <Definition clean"):
        env.task(name="one", requires=env.tasks["clean"], product=env.types["rows"])(lambda clean: clean)


def test_a_task_of_another_env_is_not_defined_here():
    """The same name is not enough."""
    env, other = analysis(), analysis()
    with pytest.raises(UsageError, match=f"it requires the 'clean' of another Env .{FILE}"):
        env.task(name="one", requires=[other.tasks["clean"]], product=env.types["rows"])(lambda clean: clean)
    with pytest.raises(UsageError, match=r"is no task of this Env"):
        env.invoke(other.tasks["clean"])
    with pytest.raises(UsageError, match=r"by a text, or by what env.task returned, not by 3"):
        env.invoke(3)


class CopiesToARun:
    """A default whose copy is a list with a run in it."""

    def __deepcopy__(self, memo):
        return [task(len, runner=HERE)("a")]


def test_a_default_that_holds_a_run():
    """Runs are found in lists and dicts too."""
    env = Env()
    anything = env.type("anything", lambda _: True)
    for default in ([task(len, runner=HERE)("a")], CopiesToARun()):
        with pytest.raises(UsageError, match=r"can't be: |the default of its option 'n' holds a run: <TaskRun len"):
            env.task(name="one", options={"n": Option(anything, default=default)}, product=anything)(lambda n: n)


def test_the_decorator_is_called():
    """`@env.task` alone would have no product's type."""
    env = new_env()
    with pytest.raises(TypeError, match="product"):
        env.task(len)
    with pytest.raises(UsageError, match=r"env.task.…. makes a decorator"):
        env.task(len, product=env.types["number"])
    with pytest.raises(UsageError, match=r"env.task has no produces=; did you mean 'product'"):
        env.task(product=env.types["number"], produces=env.types["number"])


# ---------------------------------------------------------------------- parameters


def test_every_kind_of_parameter_is_filled_by_name():
    """Positional-only and keyword-only ones too, in any order."""
    env = analysis()

    options = {"a": env.types["number"], "b": Option(env.types["number"], default=9)}

    @env.task(requires=["pca", "clean"], options=options, product=env.types["rows"])
    def plot(b, pca, /, clean, *, a):
        return [b, pca, clean, a]

    assert env.invoke(plot, URLS, a=1).run(runner=HERE) == [9, [2, 4], [1, 2], 1]


def test_a_parameters_own_default():
    """It may say the same as the option's; for what is required it never counts."""
    env = new_env()
    number = env.types["number"]
    env.task(name="one", options={"n": Option(number, default=3)}, product=number)(lambda n=3: n)
    env.task(name="two", requires=["one"], product=number)(lambda one=None: one)
    assert env.invoke("two").run(runner=HERE) == 3
    with pytest.raises(UsageError, match="its parameter 'n' has a default and the option 'n' has none"):
        env.task(name="three", options={"n": number}, product=number)(lambda n=3: n)
    with pytest.raises(UsageError, match="its parameter 'm' is neither"):
        env.task(name="three", product=number)(lambda m=3: m)


def test_a_default_that_cannot_be_compared():
    """It is nobody's mistake that arrays have no truth."""
    env = new_env()
    array = env.type("array", lambda value: isinstance(value, np.ndarray))
    env.task(name="one", options={"a": Option(array, default=np.ones(2))}, product=array)(lambda a=ZEROS: a)
    assert env.invoke("one").run(runner=HERE).tolist() == [1, 1]


class Model:
    def __init__(self, scale):
        self.scale = scale

    def fit(self, clean, n):
        return [self.scale * n * one for one in clean]

    @staticmethod
    def total(fit):
        return [sum(fit)]

    def __call__(self, fit):
        return [self.scale + one for one in fit]


def test_methods_partials_and_callable_objects():
    """Whatever says which parameters it has; what a partial has filled is no parameter any more."""
    env = analysis()
    number, rows = env.types["number"], env.types["rows"]
    model = Model(10)
    env.task(requires=["clean"], options={"n": number}, product=rows)(model.fit)
    env.task(requires=["fit"], product=rows)(Model.total)
    env.task(requires=["fit"], product=rows, name="called")(model)
    part = functools.partial(lambda fit, scale, n: [scale * n * fit[0]], scale=2)
    env.task(requires=["fit"], options={"n": number}, product=rows, name="part")(part)
    assert env.invoke("total", URLS, n=1).run(runner=HERE) == [30]
    assert env.invoke("called", URLS, n=1).run(runner=HERE) == [20, 30]
    assert env.invoke("part", {**URLS, "fit.n": 1, "part.n": 3}).run(runner=HERE) == [60]
    with pytest.raises(UsageError, match="define a task of a bound method instead"):
        env.task(requires=["clean"], options={"n": number}, product=rows, name="two")(Model.fit)


def test_one_function_under_two_names():
    """Two tasks with options of their own; also by decorating twice."""
    env = new_env()
    number = env.types["number"]

    @env.task(name="second", options={"n": number}, product=number)
    @env.task(name="first", options={"n": number}, product=number)
    def double(n):
        return 2 * n

    env.task(name="sum", requires=["first", "second"], product=number)(lambda first, second: first + second)
    assert env.invoke("sum", {"first.n": 1, "second.n": 10}).run(runner=HERE) == 22
    assert double.name == "second"
    assert env.tasks["first"].fn is double.fn
    assert lines(env.invoke, "sum", n=3)[1] == "  'n' may mean first.n or second.n: say which"


def test_coroutine_functions():
    """They run on an event loop, and their product is checked as any other."""
    env = new_env()
    number = env.types["number"]

    @env.task(options={"n": number}, product=number)
    async def one(n):
        await asyncio.sleep(0)
        return n

    @env.task(requires=["one"], product=env.types["rows"])
    async def two(one):
        return one + 1

    assert env.invoke(one, n=3).run() == 3
    assert env.invoke(one, n=3).run(runner=AsyncTaskRun) == 3
    with pytest.raises(TaskFailure, match=r"two-.*its product .int. is no 'rows'"):
        env.invoke(two, n=3).run()


# ---------------------------------------------------------------------- types


def test_types_are_declared_in_an_env():
    """As a function with a predicate, and as a decorator on one."""
    env = Env()
    number = env.type("number", is_number)

    @env.type("count", parent=number)
    def count(value):
        return value > 0

    assert isinstance(count, Type)
    assert (count.name, count.parent, count.fits(3), count.fits("3")) == ("count", number, True, False)
    assert dict(env.types) == {"number": number, "count": count}
    assert repr(env) == "<Env of 0 tasks and 2 types>"


def test_a_type_can_be_shared_by_envs():
    """It is declared in both; declaring it twice changes nothing."""
    env, other = analysis(), Env()
    rows = other.type(env.types["rows"])
    assert other.type(rows) is rows is env.types["rows"]
    other.task(name="one", product=rows)(lambda: [0])
    with pytest.raises(UsageError, match=r"the parent of the type 'few' .* is <Type number>, which isn't declared"):
        other.type("few", is_number, env.types["number"])
    with pytest.raises(UsageError, match="the parent of the type 'few'"):
        other.type("few", is_number, "number")


def test_a_second_type_of_a_name_is_refused():
    """Both places are named."""
    env = new_env()
    with pytest.raises(UsageError, match=rf"^the type 'rows' .{FILE}:\d+.: .* defined at {FILE}:\d+$"):
        env.type("rows", is_rows)
    with pytest.raises(UsageError, match="there is one of this name already"):
        env.type(Type("rows", is_rows))


# ---------------------------------------------------------------------- second definitions


def test_a_second_task_of_a_name_is_refused():
    """Both places are named, and the first one stays."""
    env = analysis()
    first = env.tasks["clean"]
    with pytest.raises(UsageError, match=rf"^task 'clean' .{FILE}:\d+.: .* defined at {re.escape(first.place)}$"):
        env.task(name="clean", product=env.types["rows"])(lambda: [0])
    assert env.tasks["clean"] is first


def test_a_loop_that_names_all_alike_is_refused():
    """The same line twice is not the same definition twice."""
    env = new_env()

    def define():
        env.type("text", lambda value: isinstance(value, str))
        env.task(name="one", product=env.types["number"])(lambda: 1)

    define()
    with pytest.raises(UsageError, match=r"the type 'text' .* there is one of this name already"):
        define()
    with pytest.raises(UsageError, match=r"task 'two' .* there is one of this name already"):
        [env.task(name="two", product=env.types["number"])(functools.partial(abs, n)) for n in range(2)]


CELL = """
number = env.type("number", lambda value: isinstance(value, int))

@env.task(options={"n": Option(number, default=DEFAULT)}, product=number)
def one(n):
    return n
"""


def executed(code, file, **names):
    exec(compile(textwrap.dedent(code), file, "exec"), names)


def test_a_notebook_cell_may_be_run_again():
    """Edited or not: in an interactive session the latest definition counts, and what requires it sees it."""
    env = Env()
    names = {"__name__": "__main__", "env": env, "Option": Option}
    executed(CELL.replace("DEFAULT", "1"), "<cell 1>", **names)
    executed(
        "env.task(requires=['one'], product=env.types['number'], name='two')(lambda one: one + 1)", "<cell 2>", **names
    )
    executed(CELL.replace("DEFAULT", "1"), "<cell 1>", **names)
    executed("\n\n" + CELL.replace("DEFAULT", "5"), "<cell 3>", **names)
    assert env.tasks["one"].place == "<cell 3>:6"
    assert env.invoke("two").run(runner=HERE) == 6
    executed("number = env.types['number']\nenv.task(product=number, name='two')(lambda: 2)", "<cell 4>", **names)
    assert [node.target for node in env.invoke("two").graph] == ["two"]


def test_a_cell_of_types_may_be_run_again():
    """Later definitions have the later type, and may stand in the place of earlier ones."""
    env = Env()
    names = {"__name__": "__main__", "env": env, "Option": Option}
    executed(CELL.replace("DEFAULT", "1"), "<cell 1>", **names)
    first = env.types["number"]
    executed("env.type('number', lambda value: value is not None)", "<cell 2>", **names)
    executed("env.task(product=env.types['number'], name='text')(lambda: 'a')", "<cell 3>", **names)
    assert env.types["number"] is not first
    assert env.replace("one", env.tasks["text"]).invoke("one").run(runner=HERE) == "a"


def test_a_cell_that_would_make_a_cycle_is_refused():
    """What was required may not require what requires it."""
    env = Env()
    names = {"__name__": "__main__", "env": env, "Option": Option}
    executed(CELL.replace("DEFAULT", "1"), "<cell 1>", **names)
    executed(
        "env.task(requires=['one'], product=env.types['number'], name='two')(lambda one: one)", "<cell 2>", **names
    )
    with pytest.raises(CyclicWorkflowError, match="there is a cycle: "):
        executed("env.task(requires=['two'], product=env.types['number'], name='one')(lambda two: two)", "<c>", **names)
    assert env.invoke("two").run(runner=HERE) == 1


def test_a_module_may_be_loaded_again():
    """The same lines, executed again; lines elsewhere in a module are another definition."""
    env = Env()
    names = {"__name__": "pipeline", "__file__": "pipeline.py", "env": env, "Option": Option}
    executed(CELL.replace("DEFAULT", "1"), "pipeline.py", **names)
    executed(CELL.replace("DEFAULT", "2"), "pipeline.py", **names)
    assert env.invoke("one").values == {"one.n": 2}
    with pytest.raises(UsageError, match=r"the type 'number' .pipeline.py:3.: .* defined at pipeline.py:2"):
        executed("\n" + CELL.replace("DEFAULT", "3"), "pipeline.py", **names)
    script = {**names, "__name__": "__main__"}
    with pytest.raises(UsageError, match=r"defined at pipeline.py:2"):  # a script is no notebook
        executed("\n" + CELL.replace("DEFAULT", "3"), "pipeline.py", **script)


def test_only_an_interactive_session_defines_things_twice():
    """What a module has defined is not to be replaced by a cell, nor by other lines of a script."""
    define = "env.task(name='{}', product=env.types['number'])(lambda: 1)"
    cell = {"__name__": "__main__", "env": new_env()}
    script = {**cell, "__file__": "script.py"}
    executed(define.format("one"), "script.py", **script)
    with pytest.raises(UsageError, match=r"there is one of this name already, defined at script.py:1$"):
        executed(define.format("one"), "<cell 1>", **cell)
    with pytest.raises(UsageError, match=r"there is one of this name already, defined at script.py:1$"):
        executed("\n" + define.format("one"), "script.py", **script)
    executed(define.format("two"), "<cell 2>", **cell)
    with pytest.raises(UsageError, match=r"there is one of this name already, defined at <cell 2>:1$"):
        executed(define.format("two"), "script.py", **script)


def test_of_two_threads_one_defines_a_name(monkeypatch):
    """The other one is told, also if it came between its look and its entry."""
    env = new_env()
    real = woflo.env.make

    def overtaken(*args, **kwargs):
        monkeypatch.setattr(woflo.env, "make", real)
        env.task(name="one", product=env.types["number"])(lambda: 1)
        return real(*args, **kwargs)

    monkeypatch.setattr(woflo.env, "make", overtaken)
    with pytest.raises(UsageError, match=r"^task 'one' .*: there is one of this name already, defined at "):
        env.task(name="one", product=env.types["number"])(lambda: 2)
    assert env.invoke("one").run(runner=HERE) == 1


# ---------------------------------------------------------------------- the graph


def test_the_graph_can_be_asked():
    """A woflo Graph of names; each node's call is the definition."""
    env = analysis()
    graph = env.graph
    assert isinstance(graph, Graph)
    assert [node.target for node in graph.topological()] == ["download", "clean", "pca"]
    assert [node.target for node in graph.ancestors("pca")] == ["download", "clean"]
    assert [node.target for node in graph.descendants("download")] == ["clean", "pca"]
    assert graph["pca"].call is env.tasks["pca"]
    assert list(graph["pca"].call.options) == ["n"]
    env.task(name="later", requires=["pca"], product=env.types["rows"])(lambda pca: pca)
    assert ("later" in graph, "later" in env.graph) == (False, True)


# ---------------------------------------------------------------------- replacing


def test_a_stand_in_gets_what_it_has_parameters_for():
    """Products and options of what it replaces; with fewer it requires less, and what nobody requires doesn't run."""
    ran = Ledger()
    env = analysis(ran)
    assert env.replace("pca", lambda n, clean: [n, clean]).invoke("pca", URLS).run(runner=HERE) == [2, [1, 2]]
    ran.clear()
    assert env.replace("pca", lambda n: [n]).invoke("pca").run(runner=HERE) == [2]
    assert env.replace("clean", lambda: [7]).invoke("pca").run(runner=HERE) == [14]
    assert ran == ["pca"]


def test_a_stand_in_may_require_other_tasks():
    """A parameter that is named like a task is its product."""
    env = analysis()
    other = env.replace("pca", lambda download, clean: [download, clean])
    assert other.tasks["pca"].requires == ("download", "clean")
    assert other.invoke("pca", URLS).run(runner=HERE) == [[1, 2], [1, 2]]


def test_a_stand_in_with_keywords_takes_all():
    """So a Mock is told everything that the task would have been."""
    env = analysis()
    stub = Mock(return_value=[1])
    with env.override("pca", stub):
        assert env.invoke("pca", URLS, n=3).run(runner=HERE) == [1]
    stub.assert_called_once_with(clean=[1, 2], n=3)
    env.replace("pca", lambda clean, /, *rest, **more: [clean, rest, more]).invoke("pca", URLS).run(runner=HERE)


def test_a_stand_ins_defaults_are_its_own():
    """A parameter with a default that the task doesn't know stays as it is, also if a task is called so."""
    env = analysis()
    made = env.replace("pca", lambda n, rows=(1, 2), download=3: [n, *rows, download])
    assert made.tasks["pca"].requires == ()
    assert made.invoke("pca").run(runner=HERE) == [2, 1, 2, 3]


def test_what_a_stand_in_is_refused_for():
    """Unknown parameters, an unknown task, nothing at all, something that can't be called."""
    env = analysis()
    assert lines(env.replace, "pca", lambda m: m)[0].endswith(
        "its parameter 'm' is neither an option of 'pca' nor a task; there is 'n', 'download', 'clean', 'pca'"
    )
    with pytest.raises(UsageError, match="did you mean 'clean'"):
        env.override("pca", lambda cleen: cleen)
    with pytest.raises(UsageError, match="there is no task 'pcb'; did you mean 'pca'"):
        env.replace("pcb", print)
    with pytest.raises(UsageError, match="what is to stand in the place of 'pca'"):
        env.replace("pca")
    with pytest.raises(UsageError, match="needs a function, not list"):
        env.replace("pca", [[1]])
    with pytest.raises(UsageError, match="take runner= out"):
        env.replace("pca", task(len, runner=HERE))


def test_a_stand_in_may_not_make_a_cycle():
    """What requires it can't be what it requires."""
    env = analysis()
    with pytest.raises(CyclicWorkflowError, match="there is a cycle"):
        env.replace("download", lambda pca: pca)
    with pytest.raises(CyclicWorkflowError, match="clean -> clean"):
        env.override("clean", lambda clean: clean)
    with env.override("clean", lambda: [1]):
        env.replace("download", lambda clean: clean)


def test_a_definition_in_the_place_of_another():
    """It brings its own options and requirements; its product's type has to be the same."""
    env = analysis()
    other = env.copy()

    @other.task(requires=["download"], options={"k": Option(env.types["number"], default=3)}, product=env.types["rows"])
    def kmeans(download, k):
        return [k, *download]

    other = other.replace("pca", kmeans)
    pca = other.tasks["pca"]
    assert (pca.name, pca.requires, list(pca.options), pca.replaces) == ("pca", ("download",), ["k"], env.tasks["pca"])
    assert other.invoke("pca", URLS, k=5).run(runner=HERE) == [5, 1, 2]
    (said,) = lines(other.invoke, "pca", URLS, n=3)
    assert said.endswith("'n': there is no such option; there is 'urls', 'k', 'download.urls', 'pca.k'")
    assert "kmeans" not in env.tasks

    @other.task(product=env.types["number"])
    def size():
        return 3

    assert lines(other.replace, "pca", size)[0].endswith("its product is a 'number', and not the 'rows' of this Env")
    stranger = analysis()
    stranger.task(name="extra", product=stranger.types["rows"])(lambda: [0])
    stranger.task(
        name="last", requires=["extra"], options={"n": stranger.types["number"]}, product=stranger.types["rows"]
    )(lambda extra, n: [extra, n])
    said = lines(env.replace, "pca", stranger.tasks["last"])
    assert said[1:] == [
        "  it requires 'extra', which is not defined here; there is 'download', 'clean', 'pca'",
        "  the type of its option 'n' is <Type number>, which isn't declared in this Env: env.type(it) declares it here",
        "  its product is a 'rows', and not the 'rows' of this Env",
    ]


def test_several_are_replaced_at_once():
    """They may require each other, and are looked at together."""
    env = analysis()
    other = env.replace({"download": lambda: [5], "pca": lambda download: [sum(download)]})
    assert other.invoke("pca").run(runner=HERE) == [5]
    assert env.tasks["download"].replaces is None
    with env.override({env.tasks["clean"]: lambda: [9], "pca": lambda clean, n: [n, *clean]}):
        assert env.invoke("pca", n=1).run(runner=HERE) == [1, 9]


def test_replacing_makes_another_env():
    """Neither sees what happens in the other; their types are the same."""
    env = analysis()
    other = env.replace("clean", lambda: [9])
    other.task(name="extra", product=env.types["rows"])(lambda: [0])
    env.task(name="mine", product=env.types["rows"])(lambda: [0])
    other.type("few", is_rows)
    env.type("most", is_rows)
    assert (list(env.types), list(other.types)) == (["number", "rows", "most"], ["number", "rows", "few"])
    assert list(env.tasks) == ["download", "clean", "pca", "mine"]
    assert list(other.tasks) == ["download", "clean", "pca", "extra"]
    assert other.invoke("pca").run(runner=HERE) == [18]
    assert env.invoke("pca", URLS).run(runner=HERE) == [2, 4]
    original = env.tasks["clean"]
    assert other.tasks["clean"].replaces is original
    assert other.invoke(original).run(runner=HERE) == [9]  # what it was is still a name for it
    assert [node.target for node in other.graph] == ["download", "clean", "pca", "extra"]


def test_an_override_lasts_as_long_as_its_block():
    """Also if the block raises; blocks may be nested, and the same one entered again."""
    env = analysis()
    original = env.tasks["clean"]

    def run():
        return env.invoke("pca", URLS).run(runner=HERE)

    stub = env.override("clean", lambda: [9])
    assert repr(stub) == "<override of clean>"
    with stub as inner:
        assert inner is stub
        assert run() == [18]
        with env.override("pca", lambda clean: clean), env.override("clean", lambda download: download):
            assert run() == [1, 2]
        assert run() == [18]
        with stub, stub:
            assert run() == [18]
        assert env.graph["clean"].call.replaces is original
    assert env.tasks["clean"] is original
    with pytest.raises(ZeroDivisionError), stub:
        raise ZeroDivisionError
    assert run() == [2, 4]


def test_envs_do_not_see_each_others_overrides():
    """Not even a copy made before; one made within the block has what was in effect."""
    env, other = analysis(), analysis()
    copied = env.copy()
    with env.override("clean", lambda: [9]), other.override("clean", lambda: [8]):
        assert env.invoke("pca", URLS).run(runner=HERE) == [18]
        assert other.invoke("pca", URLS).run(runner=HERE) == [16]
        assert copied.invoke("pca", URLS).run(runner=HERE) == [2, 4]
        within = env.copy()
    assert within.invoke("pca").run(runner=HERE) == [18]


def test_threads_do_not_see_an_override():
    """It is the block's; a context that was copied within it has it."""
    env = analysis()
    seen = {}

    def look(name):
        seen[name] = env.tasks["clean"].replaces is not None

    with env.override("clean", lambda: [9]):
        context = contextvars.copy_context()
        threads = [
            threading.Thread(target=contextvars.Context().run, args=(look, "plain")),
            threading.Thread(target=context.run, args=(look, "copied")),
        ]
        for thread in threads:
            thread.start()
            thread.join()
    assert seen == {"plain": False, "copied": True}


def test_asyncio_tasks_have_overrides_of_their_own():
    """Two that override the same task at once don't see each other's."""
    env = analysis()

    async def one(value, mine, others):
        with env.override("clean", lambda: [value]):
            mine.set()
            await others.wait()
            return env.invoke("clean").run(runner=ThreadTaskRun)

    async def main():
        events = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(one(1, *events), one(2, *reversed(events)))

    assert asyncio.run(main()) == [[1], [2]]
    assert env.tasks["clean"].replaces is None


def test_a_block_may_end_in_another_context():
    """As in an asynchronous fixture: nothing is raised, and nothing of it is left there."""
    env = analysis()
    stub = env.override("clean", lambda: [9])
    contextvars.copy_context().run(stub.__enter__)
    contextvars.copy_context().run(stub.__exit__, None, None, None)
    assert env.tasks["clean"].replaces is None


def test_an_invocation_keeps_what_it_was_made_of():
    """Whatever is overridden or defined later."""
    env = analysis()
    with env.override("clean", lambda: [9]):
        invocation = env.invoke("pca")
    assert invocation.run(runner=HERE) == [18]
    before = env.invoke("pca", URLS)
    with env.override("clean", lambda: [9]):
        assert before.run(runner=HERE) == [2, 4]


def test_what_is_not_needed_any_more_may_still_be_told():
    """So the code under test gives what it always gives; names and types are checked all the same."""
    env = analysis()
    given = {"download.urls": ["a"], "strict": 1, "pca.n": 3}
    with env.override("clean", lambda: [9]):
        invocation = env.invoke("pca", given)
        assert invocation.values == {"pca.n": 3}
        assert invocation.run(runner=HERE) == [27]
        assert env.invoke("pca", {"urls": ["a"]}).run(runner=HERE) == [18]
        assert lines(env.invoke, "pca", {"download.url": [], "urls": 3, "clean.strict": "no"})[1:] == [
            "  'download.url': there is no such option; did you mean 'download.urls'?",
            "  download.urls: 3 is no 'rows': is_rows() returned False",
            "  clean.strict: 'no' is no 'number': is_number() returned False",
        ]
        with env.override("pca", lambda: [0]):
            assert env.invoke("pca", given).values == {}


# ---------------------------------------------------------------------- invocations


def test_an_invocation_has_the_values_of_all_options():
    """Those of the target and of everything that it needs; given by full name, by bare name, as keywords."""
    env = analysis()
    invocation = env.invoke("pca", {"download.urls": ["a"], "strict": 1}, n=5)
    assert invocation.values == {"download.urls": ["a"], "clean.strict": 1, "pca.n": 5}
    assert invocation.target == "pca"
    assert repr(invocation) == "<Invocation of pca: 3 tasks>"
    assert [node.target for node in invocation.graph.topological()] == ["download", "clean", "pca"]
    assert repr(env.invoke("download", **{"download.urls": []})) == "<Invocation of download: 1 task>"
    with pytest.raises(TypeError):
        invocation.values["pca.n"] = 3


def test_nothing_runs_before_it_is_run():
    """Defining, asking, invoking: no task's code."""
    ran = Ledger()
    env = analysis(ran)
    invocation = env.invoke("pca", URLS)
    _ = env.graph, invocation.graph, invocation.values, repr(invocation), env.copy(), env.replace("clean", lambda: [0])
    assert ran == []
    assert invocation.run(runner=HERE) == invocation.run(runner=HERE) == [2, 4]
    assert ran == ["download", "clean", "pca"] * 2


def test_only_what_is_needed_runs():
    """The target, and what it needs."""
    ran = Ledger()
    assert analysis(ran).invoke("clean", URLS).run(runner=HERE) == [1, 2]
    assert ran == ["download", "clean"]


def test_all_that_is_wrong_with_an_invocation_is_told_at_once():
    """Missing, unknown, ambiguous, wrong: one error, one line each."""
    env = analysis()

    @env.task(requires=["pca"], options={"n": Option(env.types["number"], default=1)}, product=env.types["rows"])
    def plot(pca, n):
        return [n, *pca]

    given = {
        "n": 3,
        "plot.n": "three",
        "clean.strickt": 3,
        "cleen.strict": 3,
        "strict": 1,
        "clean.strict": 1,
        "plot.pca": [1],
        "pca": {"n": 3},
        "clean": [1],
        "nn": 1,
        3: 4,
    }
    assert lines(env.invoke, "plot", given) == [
        "'plot' can't be invoked: 11 things are wrong",
        "  'n' may mean pca.n or plot.n: say which",
        "  plot.n: 'three' is no 'number': is_number() returned False",
        "  'clean.strickt': there is no such option; did you mean 'clean.strict'?",
        "  'cleen.strict': there is no task 'cleen'; did you mean 'clean.strict'?",
        "  clean.strict is given twice",
        "  'plot.pca': 'pca' is a task: its product is made, not given; env.override('pca', …) puts something in its place",
        "  options are flat: 'pca' is a task; name each of its options, 'pca.…'",
        "  'clean' is a task: its product is made, not given; env.override('clean', …) puts something in its place",
        "  'nn': there is no such option; did you mean 'n'?",
        "  3: an option is named by a text, 'task.option' or 'option'",
        "  download.urls is missing; it is a 'rows' and has no default",
    ]
    env.task(name="aside", options={"k": env.types["number"]}, product=env.types["rows"])(lambda k: [k])
    assert lines(env.invoke, "plot", URLS, **{"aside.k": 3}) == [
        "'plot' can't be invoked: 'aside.k': 'plot' does not need the task 'aside'"
    ]
    assert lines(env.invoke, "plott") == ["there is no task 'plott'; did you mean 'plot'?"]
    assert lines(env.invoke, "pca", [("n", 3)]) == [
        "the values of options are given as a dict, by 'task.option', not as list"
    ]


def test_a_predicate_that_raises_is_a_problem_of_its_option():
    """The others are looked at all the same."""
    env = new_env()
    few = env.type("few", lambda value: len(value) < 3)
    env.task(name="one", options={"a": few, "b": few}, product=few)(lambda a, b: a + b)
    said = lines(env.invoke, "one", a=3, b="abc")
    assert re.match(
        r"  one.a: 3 is no 'few': <lambda> \(.*test_env.py:\d+\) raised TypeError: object of type 'int'", said[1]
    )
    assert said[2].startswith("  one.b: 'abc' is no 'few'")


def test_long_and_odd_values_are_shown_in_one_line():
    """An error is read, not scrolled."""
    env = new_env()
    env.task(name="one", options={"n": env.types["number"]}, product=env.types["number"])(lambda n: n)
    for value in ("x" * 10_000, {"a\n": "b"}, list(range(10_000))):
        (said,) = lines(env.invoke, "one", n=value)
        assert len(said) < 300


def test_what_has_no_value_yet_is_no_value():
    """Runs, Lazies, definitions and invocations; in containers too."""
    env = analysis()
    size = task(len, runner=HERE)
    lazy = Lazy.of(size, "abc")
    said = lines(env.invoke, "pca", {"urls": [size("a")], "strict": lazy, "n": env.tasks["clean"]})[1:]
    known = ": the values of options are known before anything runs"
    assert re.sub("len-[0-9]+", "len-1", said[0]) == (
        f"  download.urls: holds a run: <TaskRun len-1 succeeded> is a TaskRun{known}"
    )
    assert said[1:] == [
        f"  clean.strict: <Lazy len> is a Lazy{known}",
        f"  pca.n: <Definition clean(download, strict) -> rows> is a product{known}",
    ]
    (said,) = lines(env.invoke, "pca", URLS, n=env.invoke("clean", URLS))
    assert "<Invocation of clean: 2 tasks> is a product" in said


def test_each_invocation_and_each_run_has_its_own_copy_of_a_default():
    """A task that changes what it is given changes nothing for others."""
    env = new_env()
    rows = env.types["rows"]

    @env.task(options={"seen": Option(rows, default=[])}, product=rows)
    def grow(seen):
        seen.append(1)
        return seen

    first, second = env.invoke(grow), env.invoke(grow)
    assert first.run(runner=HERE) == first.run(runner=HERE) == second.run(runner=HERE) == [1]
    assert first.values == {"grow.seen": []}
    assert first.values["grow.seen"] is not second.values["grow.seen"]


@pytest.mark.parametrize("runner", [HERE, ThreadTaskRun, AsyncTaskRun])
def test_a_value_is_each_tasks_own(runner):
    """Nor does one that changes a value that was given, also to another task: what is kept was made of the value as it was."""
    env = new_env()
    rows = env.types["rows"]

    @env.task(options={"seen": rows}, product=rows)
    def grow(seen):
        seen.append(1)
        return seen

    @env.task(requires=["grow"], options={"others": rows}, product=rows)
    def after(grow, others):
        return [*grow, *others]

    shared, store = [], {}
    invocation = env.invoke("after", seen=shared, others=shared)
    for _ in range(2):
        assert invocation.run(runner=runner, store=store) == invocation.run(runner=runner) == [1]
    assert shared == []


def test_a_live_value_is_given_as_it_is():
    """What can't be copied is the task's to use."""
    env = new_env()
    anything = env.type("anything", lambda _: True)
    env.task(name="use", options={"lock": anything}, product=anything)(lambda lock: lock)
    lock = threading.Lock()
    assert env.invoke("use", lock=lock).run(runner=HERE) is lock


def test_names_of_options_that_look_like_arguments():
    """An option may be called as invoke's own parameters are."""
    env = new_env()
    number = env.types["number"]
    options = dict.fromkeys(["self", "target", "values", "more"], number)
    env.task(name="one", options=options, product=number)(
        lambda self, target, values, more: self + target + values + more
    )
    assert env.invoke("one", target=1, values=2, more=3, **{"one.self": 4}).run(runner=HERE) == 10


# ---------------------------------------------------------------------- carrying out


@pytest.mark.parametrize("runner", [None, HERE, ThreadTaskRun, MultiprocessTaskRun, AsyncTaskRun])
def test_every_runner_carries_it_out(runner):
    """Where it runs is decided now, for all tasks at once."""
    assert analysis().invoke("pca", URLS, n=3).run(runner=runner) == [3, 6]


def test_a_runner_per_task():
    """The others run where a task would; names are checked."""
    env = new_env()
    where = env.type("where", lambda value: isinstance(value, tuple))

    def name_of_runner():
        return type(current_run()).__name__, threading.current_thread() is threading.main_thread()

    for name in ("one", "two"):
        env.task(name=name, product=where)(name_of_runner)
    env.task(name="both", requires=["one", "two"], product=where)(lambda one, two: (*one, *two, *name_of_runner()))
    with use(ThreadTaskRun):
        assert env.invoke("both").run(runner={"one": HERE, "both": HERE}) == (
            *("SequentialTaskRun", True),
            *("ThreadTaskRun", False),
            *("SequentialTaskRun", True),
        )
    invocation = env.invoke("both")
    assert lines(invocation.run, runner={"on": HERE}) == [
        "runner: 'on' is not part of this invocation; did you mean 'one'?"
    ]
    assert "runner is a class of TaskRun, or a dict of them by task, not 'thread'" in lines(
        invocation.run, runner="thread"
    )
    with pytest.raises(UsageError, match="runner is a class of TaskRun, or a dict of them by task, not 3"):
        invocation.run(runner={"one": 3})


def test_what_needs_nothing_of_each_other_runs_at_once():
    """Each waits for the other: one after the other would never end."""
    env = new_env()
    number = env.types["number"]
    barrier = threading.Barrier(2)
    for name in ("one", "two"):
        env.task(name=name, product=number)(lambda: barrier.wait(PATIENCE) * 0)
    env.task(name="both", requires=["one", "two"], product=number)(lambda one, two: one + two)
    assert env.invoke("both").run(runner=ThreadTaskRun) == 0


def test_a_task_that_fails():
    """run() raises its own exception; outcomes() tells of all: what needs it doesn't run, the others do."""
    env = analysis()
    number = env.types["number"]
    env.task(name="broken", requires=["clean"], product=number)(lambda clean: clean["a"])
    env.task(name="after", requires=["broken", "pca"], product=number)(lambda broken, pca: broken + pca)
    env.task(name="last", requires=["after"], product=number)(lambda after: after)
    invocation = env.invoke("last", URLS)
    with pytest.raises(TypeError, match="list indices") as caught:
        invocation.run(runner=HERE)
    assert any("broken" in note for note in caught.value.__notes__)
    outcomes = invocation.outcomes(runner=HERE)
    assert list(outcomes) == ["download", "clean", "broken", "pca", "after", "last"]
    assert (outcomes["clean"], outcomes["pca"]) == (Ok([1, 2]), Ok([2, 4]))
    assert isinstance(outcomes["broken"], TaskFailure)
    assert outcomes["after"].dependencies == {"broken": outcomes["broken"]}
    assert isinstance(outcomes["last"], DependencyFailure)
    assert outcomes["last"].root_causes() == [outcomes["broken"]]
    assert outcomes["last"].task == "last"


def test_outcomes_of_some():
    """They and what they need are run."""
    ran = Ledger()
    invocation = analysis(ran).invoke("pca", URLS)
    assert invocation.outcomes("clean", runner=HERE) == {"clean": Ok([1, 2])}
    assert ran == ["download", "clean"]
    assert lines(invocation.outcomes, "clear") == ["'clear' is not part of this invocation; did you mean 'clean'?"]


def test_a_false_product_is_a_product():
    """None, 0 and an empty list too."""
    env = Env()
    anything = env.type("anything", lambda _: True)
    for name, value in (("none", None), ("zero", 0), ("empty", [])):
        env.task(name=name, product=anything)(functools.partial(lambda value: value, value=value))
        assert env.invoke(name).run(runner=HERE) == value
        assert env.invoke(name).outcomes(runner=HERE) == {name: Ok(value)}


@pytest.mark.parametrize("runner", [HERE, ThreadTaskRun, MultiprocessTaskRun])
def test_a_product_that_is_not_of_its_type_fails_its_task(runner):
    """Type and predicate are named, the value is not: it would be logged. What needs it doesn't run."""
    ran = Ledger()
    env = new_env()

    @env.task(product=env.types["number"])
    def wrong():
        return "secret"

    @env.task(requires=["wrong"], product=env.types["number"])
    def after(wrong):
        ran.append("after")
        return wrong

    outcomes = env.invoke("after").outcomes(runner=runner)
    assert outcomes["wrong"].message == "its product (str) is no 'number': is_number() returned False"
    assert isinstance(outcomes["wrong"], TaskFailure)
    assert isinstance(outcomes["after"], DependencyFailure)
    with pytest.raises(TaskFailure, match=r"wrong-.*its product .str. is no 'number'"):
        env.invoke("after").run(runner=runner)
    assert not ran


class Big(list):
    """Can be referred to weakly."""


@pytest.mark.parametrize("runner", [HERE, ThreadTaskRun])
def test_a_product_is_freed_when_its_last_consumer_has_it(runner):
    """What was loaded is gone when the plot is made, although nobody asked for that; the target's product stays."""
    env = new_env()
    rows = env.types["rows"]
    made = {}

    def alive():
        gc.collect()
        return sorted(name for name, ref in made.items() if ref() is not None)

    def make(name, value=()):
        big = Big(value)
        made[name] = weakref.ref(big)
        return big

    env.task(name="load", product=rows)(lambda: make("load"))
    env.task(name="clean", requires=["load"], product=rows)(lambda load: make("clean", load))
    env.task(name="size", requires=["load"], product=rows)(lambda load: [len(load)])
    env.task(name="model", requires=["clean", "size"], product=rows)(
        lambda clean, size: make("model", [*clean, *size, alive()])
    )
    env.task(name="plot", requires=["model"], product=rows)(lambda model: [*model, alive()])
    plot = env.invoke("plot").run(runner=runner)
    assert plot == [0, ["clean"], ["model"]]


def test_a_long_line_of_tasks():
    """Ten thousand, each needing the one before: defined, invoked, overridden and run without recursion."""
    env = new_env()
    number = env.types["number"]
    namespace = {}
    env.task(name="t0", product=number)(lambda: 0)
    for n in range(1, 10_000):
        exec(f"def t{n}(t{n - 1}, k): return t{n - 1} + k", namespace)
        env.task(requires=[f"t{n - 1}"], options={"k": Option(number, default=1)}, product=number)(namespace[f"t{n}"])
    invocation = env.invoke("t9999", {"t9999.k": 100})
    assert len(invocation.values) == 9_999
    assert invocation.run(runner=HERE) == 10_098
    with env.override("t9000", lambda: 0):
        shorter = env.invoke("t9999", {"t1.k": 1})
    assert len(shorter.graph) == 1000
    assert shorter.run(runner=HERE) == 999
    assert len(env.graph) == 10_000


def test_a_ladder_of_diamonds():
    """A task that many need, by many ways, is made once."""
    ran = Ledger()
    env = new_env()
    number = env.types["number"]
    env.task(name="a0", product=number)(lambda: 0)
    env.task(name="b0", product=number)(lambda: 0)
    namespace = {"ran": ran}
    for n in range(1, 200):
        for side in "ab":
            exec(f"def {side}{n}(a{n - 1}, b{n - 1}): ran.append('{side}{n}'); return {n}", namespace)
            env.task(requires=[f"a{n - 1}", f"b{n - 1}"], product=number)(namespace[f"{side}{n}"])
    assert env.invoke("a199").run(runner=HERE) == 199
    assert len(ran) == len(set(ran)) == 397


def test_an_engine_can_drive_an_invocations_graph():
    """It is a Graph like any other: nodes, calls, targets."""
    invocation = analysis().invoke("pca", URLS, n=3)
    engine = Engine(invocation.graph, runner=HERE)
    assert (engine.orchestrate("pca"), engine.value("pca")) == (True, [3, 6])
    assert repr(invocation.graph["pca"].call) == "<pca with its options>"
    with use(HERE):
        assert invocation.graph["download"].call().get_result() == [1, 2]


def test_within_a_running_event_loop():
    """As in a notebook: run() blocks, whoever is running there."""
    env = new_env()

    @env.task(product=env.types["number"])
    async def one():
        await asyncio.sleep(0)
        return 1

    async def main():
        return env.invoke(one).run()

    assert asyncio.run(main()) == 1


def test_an_invocation_may_be_run_by_many_threads_at_once():
    """It holds no state of a run."""
    invocation = analysis().invoke("pca", URLS, n=3)
    found = []
    threads = [threading.Thread(target=lambda: found.append(invocation.run(runner=HERE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[3, 6]] * 8


# ---------------------------------------------------------------------- what is kept


def test_what_is_kept_is_found_again():
    """A second run runs nothing; another Env of the same code finds it too; the value is the same."""
    store, ran = {}, Ledger()
    assert analysis(ran).invoke("pca", URLS).run(runner=HERE, store=store) == [2, 4]
    assert analysis(ran).invoke("pca", URLS).run(runner=HERE, store=store) == [2, 4]
    assert ran == ["download", "clean", "pca"]


def test_a_plan_says_what_would_run_and_why():
    """And how long it took; nothing runs, nothing is written."""
    store, ran = {}, Ledger()
    env = analysis(ran)
    invocation = env.invoke("pca", URLS)
    assert repr(invocation.plan()) == "[download: first run, clean: first run, pca: first run]"
    first = invocation.plan(store)
    assert [one.task for one in first] == ["download", "clean", "pca"]
    assert (first[0].why, first[1].why) == ("first run", "that depends on what its inputs turn out to be")
    assert (store, ran) == ({}, [])
    invocation.run(runner=HERE, store=store)
    assert invocation.plan(store) == []
    (pca,) = env.invoke("pca", URLS, n=3).plan(store)
    assert re.match(r"pca: option changed: n \(\w{12} → \w{12}\) \(took [0-9.e-]+ s\)$", repr(pca))
    assert pca.seconds >= 0
    (clean, later) = env.invoke("pca", URLS, strict=1).plan(store)
    assert (clean.task, clean.why.partition(":")[0], later.task) == ("clean", "option changed", "pca")
    assert later.seconds >= 0  # how long it took last time is known, although not whether it has to run
    (forced, *_) = invocation.plan(store, force=True)
    assert (forced.why, forced.seconds >= 0) == ("forced", True)


def test_one_function_under_two_names_is_kept_twice():
    """Neither takes the other's place."""
    store, ran = {}, Ledger()
    env = new_env()
    for name in ("one", "two"):
        env.task(name=name, product=env.types["number"])(lambda: ran.append("ran") or 1)
    env.task(name="sum", requires=["one", "two"], product=env.types["number"])(lambda one, two: one + two)
    for _ in range(2):
        assert [env.invoke(name).run(runner=HERE, store=store) for name in ("one", "two", "sum")] == [1, 1, 2]
    assert len(ran) == 2


def test_a_product_that_comes_out_as_before_stops_it():
    """What needs it is up to date, although what led to it has changed."""
    store, ran = {}, Ledger()
    env = analysis(ran)
    env.invoke("pca", URLS).run(runner=HERE, store=store)
    ran.clear()
    assert env.invoke("pca", URLS, strict=-5).run(runner=HERE, store=store) == [2, 4]
    assert ran == ["clean"]


def test_tasks_can_be_forced_to_run():
    """Some by name, or all; names are checked."""
    store, ran = {}, Ledger()
    invocation = analysis(ran).invoke("pca", URLS)
    invocation.run(runner=HERE, store=store)
    ran.clear()
    invocation.run(runner=HERE, store=store, force=["clean"])
    assert ran == ["clean"]  # it came out as before
    assert invocation.plan(store, force=["pca"])[0].why == "forced"
    invocation.run(runner=HERE, store=store, force=True)
    assert ran[1:] == ["download", "clean", "pca"]
    assert lines(invocation.run, force=["pcb"]) == ["force: 'pcb' is not part of this invocation; did you mean 'pca'?"]
    assert lines(invocation.run, force="pca") == ["force is a list of tasks, or True, not 'pca'"]


def test_a_store_per_task():
    """Only what has one is kept; what is not kept isn't made either, unless something that runs needs it."""
    kept, ran = {}, Ledger()
    env = analysis(ran)
    places = {"clean": kept, "download": None}
    assert env.invoke("pca", URLS).run(runner=HERE, store=places) == [2, 4]
    assert ran == ["download", "clean", "pca"]
    ran.clear()
    assert [one.task for one in env.invoke("pca", URLS).plan(places)] == ["pca"]
    assert env.invoke("pca", URLS, n=3).run(runner=HERE, store=places) == [3, 6]
    assert ran == ["pca"]
    ran.clear()
    assert env.invoke("pca", URLS, strict=1).run(runner=HERE, store=places) == [4]
    assert ran == ["download", "clean", "pca"]
    invocation = env.invoke("pca", URLS)
    assert lines(invocation.run, store={"clear": kept})[0].startswith("store: 'clear' is not part of this invocation")
    assert lines(invocation.run, store=3)[0].startswith("a store is ")


def test_what_was_kept_is_there_although_what_led_to_it_fails_now():
    """A product that is not kept is made again only for whoever asks for it; who doesn't need it doesn't notice."""
    kept, broken = {}, Ledger()
    env = new_env()
    number = env.types["number"]

    @env.task(product=number)
    def one():
        return 1 // (not broken)

    env.task(name="two", requires=["one"], product=number)(lambda one: one + 1)
    env.task(name="three", requires=["one"], product=number)(lambda one: one + 2)
    invocation = env.invoke("two")
    assert invocation.run(runner=HERE, store={"two": kept}) == 2
    broken.append("now")
    outcomes = invocation.outcomes(runner=HERE, store={"two": kept})
    assert isinstance(outcomes["one"].__cause__, ZeroDivisionError)
    assert outcomes["two"] == Ok(2)
    assert invocation.run(runner=HERE, store={"two": kept}) == 2
    with pytest.raises(ZeroDivisionError):
        env.invoke("three").run(runner=HERE, store={"three": kept})


def test_an_empty_dict_is_a_store():
    """A dict whose keys are tasks says where each is kept; any other is where all are."""
    store = {}
    analysis().invoke("pca", URLS).run(runner=HERE, store=store)
    assert store
    assert all("/" in name for name in store)


def test_a_folder_is_a_store(tmp_path):
    """Made when something is kept; what was kept is found by the next process."""
    ran = Ledger()
    for _ in range(2):
        assert analysis(ran).invoke("pca", URLS).run(runner=HERE, store=tmp_path / "kept") == [2, 4]
    assert ran == ["download", "clean", "pca"]


def test_changed_code_runs_again_and_is_named():
    """The task's own, and the predicate of its product's type: what was kept is not known to be of that type."""
    store = {}

    def define(factor, most):
        env = new_env()
        few = env.type("few", lambda value: len(value) < most, env.types["rows"])
        env.task(name="rows", product=few)(lambda: [factor])
        return env.invoke("rows")

    assert define(2, 9).run(runner=HERE, store=store) == [2]
    assert define(2, 9).plan(store) == []
    (changed,) = define(3, 9).plan(store)
    assert changed.why.startswith("code changed: ")
    (asked,) = define(2, 1).plan(store)
    assert asked.why == "code changed: type 'few'"
    with pytest.raises(TaskFailure, match="is no 'few'"):
        define(2, 1).run(runner=HERE, store=store)


def test_what_cannot_be_kept_is_told_once(monkeypatch):
    """Not at each run, nor for each invocation of the task."""
    told = []
    monkeypatch.setattr(woflo.events, "warn", told.append)
    env = Env()
    anything = env.type("anything", lambda _: True)
    env.task(name="connect", options={"n": anything}, product=anything)(lambda n: [n, threading.Lock()])
    store = {}
    for n in (1, 2, 2, threading.Lock(), threading.Lock()):
        env.invoke("connect", n=n).run(runner=HERE, store=store)
    assert len(told) == 1
    assert told[0].startswith("connect: 'connect' is not kept")


def test_what_cannot_be_digested_runs_each_time(monkeypatch):
    """That is said once, with the option and the part of it; the others are kept all the same."""
    told = []
    monkeypatch.setattr(woflo.events, "warn", told.append)
    store, ran = {}, Ledger()
    env = analysis(ran)
    anything = env.type("anything", lambda _: True)

    @env.task(requires=["clean"], options={"model": anything}, product=env.types["rows"])
    def fit(clean, model):
        ran.append("fit")
        return [*clean, len(model)]

    env.task(name="plot", requires=["fit"], product=env.types["rows"])(lambda fit: fit)
    invocation = env.invoke("plot", URLS, model=[1, threading.Lock()])
    for _ in range(2):
        assert invocation.run(runner=HERE, store=store) == [1, 2, 2]
    assert ran == ["download", "clean", "fit", "fit"]
    assert len(told) == 1
    assert re.match(r"fit runs each time, and what it makes is not kept: fit.model\[1\]: ", told[0])
    with pytest.raises(UsageError, match=r"has no fingerprint: .*fit.model\[1\]"):
        invocation.fingerprint()


def test_code_that_is_called_by_another_name_counts():
    """A task that calls what another definition was made of depends on that code; definitions may name each other."""
    store = {}

    def define(helper):
        env = new_env()
        other = env.task(name="other", product=env.types["number"])(helper)

        @env.task(product=env.types["number"])
        def one():
            assert one.name == "one"
            return other.fn() + env.types["number"].fits(3)

        return env.invoke(one)

    assert define(lambda: 1).run(runner=HERE, store=store) == 2
    assert define(lambda: 1).plan(store) == []
    (planned,) = define(lambda: 2).plan(store)
    assert planned.why.startswith("code changed: ")


def test_a_failure_is_not_kept():
    """What was made before it is; with the mistake mended, only the rest runs."""
    store, ran = {}, Ledger()
    env = analysis(ran)
    with env.override("pca", lambda clean: clean["a"]), pytest.raises(TypeError):
        env.invoke("pca", URLS).run(runner=HERE, store=store)
    outcomes = env.invoke("pca", URLS).outcomes(runner=HERE, store=store)
    assert outcomes["pca"] == Ok([2, 4])
    assert ran == ["download", "clean", "pca"]
    wrong = env.replace("clean", lambda download: f"{download}")
    assert [bool(one) for one in wrong.invoke("pca", URLS).outcomes(runner=HERE, store=store).values()] == [
        True,
        False,
        False,
    ]


def test_without_a_store_nothing_of_stores_is_loaded():
    """Nor is anything digested or written: a program that keeps nothing pays nothing."""
    code = """
import sys
from woflo.env import Env
from woflo.runners import SequentialTaskRun
env = Env()
env.task(name="one", product=env.type("any", lambda _: True))(lambda: 1)
assert env.invoke("one").run(runner=SequentialTaskRun) == 1
assert env.invoke("one").outcomes(runner=SequentialTaskRun)["one"].value == 1
print([name for name in ("_fingerprint", "_code", "_codec", "_shelf", "store", "directory") if "woflo." + name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def weighted_sum(**values):
    return sum(value * (number + 2) for number, value in enumerate(values.values())) % 1000


class Weighted:
    """A task's function with as many parameters as its task needs."""

    def __init__(self, names):
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        )
        self.names = names

    def __call__(self, **values):
        return weighted_sum(**{name: values[name] for name in self.names})


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_is_kept_is_what_would_be_made(data):
    """Any graph, any options, changed one by one: with a store comes out what comes out without, and what plain code says."""
    env = new_env()
    number = env.types["number"]
    needs = {}
    for n in range(data.draw(st.integers(1, 8))):
        needs[f"t{n}"] = data.draw(st.lists(st.sampled_from([*needs]), unique=True)) if needs else []
        one = Weighted([*needs[f"t{n}"], "k"])
        env.task(name=f"t{n}", requires=needs[f"t{n}"], options={"k": Option(number, default=n)}, product=number)(one)
    store = {}
    values = {f"{name}.k": n for n, name in enumerate(needs)}
    for _ in range(3):
        target = data.draw(st.sampled_from([*needs]))
        values[f"{data.draw(st.sampled_from([*needs]))}.k"] = data.draw(st.integers(0, 3))
        made = {}
        for name, required in needs.items():
            made[name] = weighted_sum(**{need: made[need] for need in required}, k=values[f"{name}.k"])
        needed = {node.target for node in env.graph.subgraph(target)}
        invocation = env.invoke(
            target, {key: value for key, value in values.items() if key.partition(".")[0] in needed}
        )
        assert invocation.run(runner=HERE, store=store) == invocation.run(runner=HERE) == made[target]
        assert invocation.plan(store) == []


# ---------------------------------------------------------------------- fingerprints


def test_a_fingerprint_says_what_the_product_follows_from():
    """Values, code, which task; not where it runs, nor what else the Env holds."""
    env = analysis()
    one = env.invoke("pca", URLS).fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", one)
    env.task(name="aside", product=env.types["rows"])(lambda: [0])
    assert env.invoke("pca", {"urls": ["a", "bb"], "pca.n": 2}).fingerprint() == one
    assert analysis().invoke("pca", URLS).fingerprint() == one
    with env.override("clean", lambda download: download):
        stubbed = env.invoke("pca", URLS).fingerprint()
    prints = [one, stubbed, env.invoke("clean", URLS).fingerprint(), env.invoke("pca", URLS, n=3).fingerprint()]
    prints.append(env.invoke("pca", {"urls": ["a", "bb"], "strict": 2}).fingerprint())
    prints.append(env.invoke("pca", {"urls": [], "strict": 0}).fingerprint())
    assert len(set(prints)) == len(prints)


def test_a_fingerprint_is_the_same_in_every_process(project):
    """Whatever the seed of its hashes, and under whichever name the Env is reached."""
    code = """
from pipeline import env
print(env.invoke("two", n=7).fingerprint())
"""
    found = {script(project, code, PYTHONHASHSEED=seed) for seed in ("0", "1", "2")}
    assert len(found) == 1
    changed = PIPELINE.replace("return one + 1", "return one + 2")
    (project / "pipeline.py").write_text(changed)
    found.add(script(project, code))
    assert len(found) == 2


# ---------------------------------------------------------------------- other processes

PIPELINE = """
import threading
from woflo import task
from woflo.env import Env, Option

lock = threading.Lock()  # can't be pickled: what is found by name doesn't have to be
env = Env()

@env.type("number")
def number(value):
    return isinstance(value, int)

@env.task(options={"n": Option(number, default=2)}, product=number)
def one(n):
    with lock:
        return n

@env.task(requires=[one], product=number)
@task(retries=1)
def two(one):
    return one + 1

@env.task(requires=["two"], product=number)
def wrong(two):
    return str(two)
"""
SCRIPT = """
from pipeline import env, one, two
from woflo import TaskFailure
from woflo.runners import MultiprocessTaskRun, SpawnProcess

spawn = MultiprocessTaskRun.using(process_type=SpawnProcess)
number = env.types["number"]

def helper(two):
    return 10 * two

@env.task(requires=["two"], options={"k": number}, product=number)
def three(two, k):
    assert three.name == "three"
    return helper(two) + k

print(env.invoke(three, k=1).run(runner=spawn))
with env.override("two", lambda n=5: n):
    print(env.invoke(three, k=1).run(runner=spawn))
try:
    env.invoke("wrong").run(runner=spawn)
except TaskFailure as error:
    print(error.message)
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    return tmp_path


def script(folder, code, **environment):
    """Run a script as a user would, in a folder; what it prints."""
    (folder / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={"PYTHONPATH": str(Path(woflo.__file__).parent.parent), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_spawned_workers(project):
    """Definitions of a module travel by name, those of a script by value; nobody imports the script again."""
    assert script(project, SCRIPT).splitlines() == [
        "31",
        "51",
        "its product (str) is no 'number': number() returned False",
    ]


def test_a_definition_travels_by_name_or_by_value(project, monkeypatch):
    """By name where another process can import it; else with all that it needs."""
    monkeypatch.syspath_prepend(str(project))
    pipeline = importlib.import_module("pipeline")
    monkeypatch.delitem(sys.modules, "pipeline")
    monkeypatch.setitem(sys.modules, "pipeline", pipeline)
    assert pickle.loads(pickle.dumps(pipeline.one)) is pipeline.one
    assert pickle.loads(pickle.dumps(pipeline.two)) is pipeline.two
    env = analysis()
    copied = cloudpickle.loads(cloudpickle.dumps(env))
    assert copied.invoke("pca", URLS, n=3).run(runner=HERE) == [3, 6]
    assert copied.tasks["pca"].place == env.tasks["pca"].place
    with pytest.raises(UsageError, match="there is one of this name already"):
        copied.task(name="pca", product=copied.types["rows"])(lambda: [0])
    invocation = cloudpickle.loads(cloudpickle.dumps(env.invoke("pca", URLS, n=4)))
    assert (invocation.values, invocation.run(runner=HERE)) == ({**URLS, "clean.strict": 0, "pca.n": 4}, [4, 8])


def test_a_task_may_use_an_env_itself():
    """A run that invokes: an Env is a value like others."""
    env = analysis()

    @env.task(product=env.types["rows"])
    def outer():
        return env.invoke("pca", URLS).run(runner=HERE)

    assert env.invoke(outer).run(runner=MultiprocessTaskRun) == [2, 4]


# ---------------------------------------------------------------------- the rest


def test_examples():
    """What the docstrings show is so."""
    assert doctest.testmod(woflo.env).failed == 0


def test_public_names_are_documented():
    """Each says in one line of at most 80 characters what it is."""
    for name in woflo.env.__all__:
        first = getattr(woflo.env, name).__doc__.split("\n", 1)[0]
        assert 0 < len(first) <= 80, name
    assert Definition.__module__ == "woflo.env"
