"""Workflows: which steps run and why, what lasts, what is said, and what happens when something goes wrong.

What the seed itself says is in `tests/seeds/test_004.py`; WorkflowConfig and WorkflowProducts are in `test_products.py`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import types
import weakref
from pathlib import Path
from unittest.mock import ANY, Mock

import pytest
from loguru import logger

import woflo
from woflo import CyclicWorkflowError, TimeoutFailure, UsageError
from woflo.errors import StoreError
from woflo.runners import MultiprocessTaskRun, SpawnProcess, ThreadTaskRun
from woflo.workflow import (
    StepError,
    UnknownProductError,
    WorkflowConfig,
    WorkflowProducts,
    WorkflowRunner,
    workflow_step,
)

ROOT = Path(__file__).parent.parent


class Settings(WorkflowConfig):
    _identity_fields = ("depth",)
    depth: int = 3
    colour: str = "blue"


@pytest.fixture
def log():
    """What is logged, as lines."""
    found = []
    sink = logger.add(lambda message: found.append(message.record["message"]), level=0)
    yield found
    logger.remove(sink)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "products"


SOURCE = """
from woflo.workflow import workflow_step

RATE = 2

def helper(x):
    return x * RATE

@workflow_step(produces=["table"])
def clean(config):
    return [config.depth, 1]

@workflow_step(produces=["model", "quality"], requires=["table"])
def fit(table):
    return {"model": helper(sum(table)), "quality": 1.0}

@workflow_step(produces=["plot"])
def draw(model):
    return f"plot of {model}"

@workflow_step(produces=["count"])
def count(table):
    return len(table)
"""


def noted(runner):
    """The list to which the first product of each step is added that runs."""
    ran = []
    firsts = {step.produces[0] for step in runner._workflow.steps if step.produces}
    runner.observe(lambda event, name: ran.append(name) if event == "building" and name in firsts else None)
    return ran


class Project:
    """A workflow module whose source can be edited, and whose sessions share one folder of products."""

    def __init__(self, place, source=SOURCE):
        self.place, self.source = place, source

    def edit(self, old, new):
        assert self.source.count(old) == 1
        self.source = self.source.replace(old, new)

    def session(self, config=None, products=None, **options):
        """A runner as a new program would make it; `ran` notes what it makes."""
        module = types.ModuleType("analysis_under_test")
        module.__file__ = "analysis_under_test.py"
        sys.modules[module.__name__] = module
        exec(compile(self.source, module.__file__, "exec"), vars(module))
        products = products or WorkflowProducts(self.place)
        runner = WorkflowRunner(module, Settings() if config is None else config, products, **options)
        self.ran = noted(runner)
        return runner

    def build(self, **options):
        """Make everything in a new session; what was made."""
        self.session(**options).build_all()
        return sorted(self.ran)


@pytest.fixture
def project(place):
    yield Project(place)
    sys.modules.pop("analysis_under_test", None)


EVERYTHING = ["count", "model", "plot", "table"]

# ------------------------------------------------------------------ what runs, and why


def test_nothing_runs_twice(project):
    """A second session runs nothing."""
    assert project.build() == EVERYTHING
    assert project.build() == []


@pytest.mark.parametrize(
    ("old", "new", "ran", "why"),
    [
        ("RATE = 2", "RATE = 3", ["model", "plot"], "code changed: global RATE in analysis_under_test.py"),
        ("x * RATE", "x * RATE + 1", ["model", "plot"], "code changed: helper helper() in analysis_under_test.py"),
        ('f"plot of', 'f"Plot of', ["plot"], "code changed: draw() itself"),
        ("x * RATE", "x * RATE  # doubled", [], "up to date"),
        ("x * RATE", "RATE * x", ["model"], "code changed: helper helper() in analysis_under_test.py"),
        ("RATE = 2", "RATE = 2\n\ndef other():\n    return 1", [], "up to date"),
    ],
)
def test_an_edit_runs_what_depends_on_it(project, old, new, ran, why):
    """Only the steps that an edit reaches run again; where the product comes out as before, its users don't."""
    project.build()
    project.edit(old, new)
    changed = "plot" if "plot of" in old else "model"
    assert project.session().why(changed) == why
    assert project.build() == ran
    assert project.build() == []


def test_the_configuration_counts(project):
    """A field of the identity makes everything anew, another field nothing; what is said is the field and both values."""
    project.build()
    assert project.build(config=Settings(colour="red")) == []
    assert project.session(Settings(depth=4)).why("table") == "option changed: depth (3 → 4)"
    assert project.build(config=Settings(depth=4)) == EVERYTHING


def test_why_names_the_input(project):
    """A changed input is named with both digests, once it is known."""
    project.build()
    project.edit("[config.depth, 1]", "[config.depth, 2]")
    project.session().get("table")
    why = project.session().why("count")
    before, now = (products_digest for products_digest in why.partition("(")[2].rstrip(")").split(" → "))
    assert why.startswith("input changed: table (")
    assert before != now
    assert project.session().products.manifest()["table"]["digest"].startswith(now)


def test_why_says_what_comes_before(project):
    """Where it depends on steps that have to run first, these are named with their reasons."""
    session = project.session()
    assert session.why("plot") == "first run"
    session.build_all()
    assert session.why("plot") == "it is in this session's cache"
    project.edit("[config.depth, 1]", "[config.depth, 2]")
    assert project.session().why("plot") == "it depends on what comes of clean (code changed: clean() itself)"


def test_plan(project):
    """What would run, why, and how long it took; nothing runs, nothing is loaded."""
    session = project.session()
    assert [repr(one) for one in session.plan()] == [f"{name}: first run" for name in ("clean", "count", "fit", "draw")]
    session.build_all()
    assert project.session().plan() == []
    project.edit("RATE = 2", "RATE = 3")
    session = project.session()
    told = []
    session.observe(lambda *event: told.append(event))
    fit, draw = session.plan()
    assert (fit.step, fit.produces, draw.step, draw.why) == (
        "fit",
        ("model", "quality"),
        "draw",
        "depends on its inputs",
    )
    assert fit.why == "code changed: global RATE in analysis_under_test.py"
    assert fit.seconds > 0
    assert draw.seconds > 0
    assert session.plan("count") == []
    assert (told, project.ran) == ([], [])


def test_plan_in_memory():
    """Without products a plan knows what this session knows."""

    @workflow_step(produces=["a"])
    def first():
        return 1

    @workflow_step(produces=["b"])
    def second(a):
        return a + 1

    runner = WorkflowRunner([first, second])
    assert [one.step for one in runner.plan("b")] == ["first", "second"]
    runner.get("b")
    assert runner.plan("b") == []
    runner.invalidate("b")
    (one,) = runner.plan("b")
    assert one.step == "second"
    assert one.seconds is not None


@workflow_step(produces=["solver"])
def make_solver(config):
    return types.SimpleNamespace(lock=threading.Lock(), depth=config.depth)


@workflow_step(produces=["log"])
def solve(solver):
    return f"solved to {solver.depth}"


def test_a_live_object_is_made_only_for_who_has_to_run(place, log):
    """What can't be saved stays in memory, counts by its recipe, and is said once: not again in the next session."""

    def session(config):
        return WorkflowRunner([make_solver, solve], config, WorkflowProducts(place))

    runner = session(Settings())
    assert runner.get("log") == "solved to 3"
    assert isinstance(runner.cache["solver"], types.SimpleNamespace)
    runner.rebuild("solver")
    assert len(log) == 1
    assert "'solver' of step make_solver can't be saved and stays in memory" in log[0]
    again = session(Settings())
    ran = noted(again)
    assert again.get("log") == "solved to 3"
    assert ran == []
    assert again.why("solver") == "product missing: what it made was not kept, or was removed"
    again.get("solver")
    assert ran == ["solver"]
    other = session(Settings(depth=4))
    ran = noted(other)
    assert other.get("log") == "solved to 4"
    assert ran == ["solver", "log"]
    assert len(log) == 1


def test_a_change_of_the_configuration_reaches_the_cache():
    """What was made in this session with another configuration isn't handed out."""

    @workflow_step(produces=["double"])
    def double(config):
        return 2 * config.depth

    config = Settings()
    runner = WorkflowRunner([double], config)
    runner.cache["note"] = "mine"
    assert runner.get("double") == 6
    config.depth = 4
    assert runner.get("double") == 8
    runner.config = Settings(depth=5)
    assert runner.status("double") == "cached"
    assert runner.get("double") == 10
    assert runner.get("note") == "mine"


@pytest.mark.parametrize("own", [True, False])
def test_nothing_is_kept_that_another_configuration_made(own, tmp_path, log):
    """If a raw file changes while a step reads it, what it made is handed out and not kept."""
    raw = tmp_path / "raw.csv"
    raw.write_text("1")

    class Source(WorkflowConfig):
        _identity_fields = ("raw",)
        raw: Path

    @workflow_step(produces=["value"])
    def read(config):
        if config.raw.read_text() == "1":
            config.raw.write_text("2")
        return config.raw.read_text()

    @workflow_step(produces=["double"])
    def double(value):
        return 2 * value

    products = WorkflowProducts({}) if own else Shelf()
    runner = WorkflowRunner([read, double], Source(raw=raw), products)
    assert runner.get("double") == "22"
    assert not products.exists("value")
    assert not products.exists("double")
    assert [line for line in log if "while step read ran" in line]
    raw.write_text("3")
    assert runner.get("double") == "33"
    assert products.load("value") == "3"
    raw.write_text("1")
    assert "first run" not in WorkflowRunner([read, double], Source(raw=raw), products).why("value")


def test_what_the_user_puts_into_the_cache_counts(project):
    """It is used as it is, and what is made from it is known by its content."""
    project.build()
    session = project.session()
    session.cache["table"] = [10, 10]
    assert session.get("plot") == "plot of 40"
    assert project.ran == ["model", "plot"]
    session = project.session()
    session.cache["table"] = [10, 10]
    assert session.get("plot") == "plot of 40"
    assert project.ran == []
    session = project.session()
    session.cache["table"] = [3, 1]
    session.get("model")
    session.cache["table"] = [3, 2]
    session.get("count")
    assert project.ran == ["model", "count"]
    session = project.session()
    session.cache["table"] = [3, 2]
    session.get("count")
    assert project.ran == []


def test_what_is_taken_from_the_cache_is_freed():
    """A value that the user removes lives no longer than until the next question."""

    @workflow_step(produces=["big"])
    def big():
        return Table()

    @workflow_step(produces=["size"])
    def size(big):
        return len(big)

    runner = WorkflowRunner([big, size])
    assert runner.get("size") == 7
    value = weakref.ref(runner.cache["big"])
    del runner.cache["big"]
    runner.get("size")
    assert value() is None


def test_what_has_no_digest_is_never_up_to_date(project, log):
    """What was put into the cache and can't be digested makes its users run in each session, which is said once."""
    for _ in range(2):
        session = project.session()
        session.cache["table"] = table = Table()
        table.lock = threading.Lock()
        assert session.get("count") == 7
        assert session.get("count") == 7
        assert project.ran == ["count"]
    assert len([line for line in log if "'table'" in line and "no digest" in line]) == 2


class Table:
    def __len__(self):
        return 7


class Instrument:
    """A workflow with a method, over something that is open."""

    def __init__(self):
        self.lock = threading.Lock()

    @workflow_step(produces=["reading"])
    def read(self):
        return 20.5

    @property
    def steps(self):
        @workflow_step(produces=["rounded"])
        def rounded(reading):
            return int(reading)

        return [self.read, rounded]


@pytest.mark.parametrize("own", [True, False])
def test_a_step_without_a_digest(own, log):
    """It runs once in each session, which is said; what it makes counts by content if that is known, else by session."""
    shelf = WorkflowProducts({}) if own else Shelf()
    for again in (False, True):
        runner = WorkflowRunner(Instrument().steps, Settings(), shelf)
        ran = noted(runner)
        assert runner.why("reading") == "volatile: its code has no digest"
        assert runner.get("rounded") == 20
        runner.get("reading")
        assert runner.get("rounded") == 20
        assert ran == (["reading"] if own and again else ["reading", "rounded"])
    assert len(log) == 2
    assert "step read runs anew in each session" in log[0]


def test_what_steps_do_to_globals_is_no_edit(project):
    """A step that counts its calls in a global is up to date in the next session, whatever ran before it in this one."""
    project.edit("RATE = 2", "RATE = 2\ncalls = []")
    project.edit("return [config.depth, 1]", "calls.append(1)\n    return [config.depth, 1]")
    project.edit("return len(table)", "calls.append(2)\n    return len(table)")
    assert project.build() == EVERYTHING
    assert project.build() == []


def test_nor_in_the_same_process():
    """A list to which steps append is the same in the next session, also of this process; one that the user changes isn't."""
    calls, options = [], {"scale": 2}

    @workflow_step(produces=["a"])
    def a():
        calls.append("a")
        return options["scale"]

    @workflow_step(produces=["b"])
    def b(a):
        calls.append("b")
        return a

    products = WorkflowProducts({})
    for _ in range(3):
        assert WorkflowRunner([a, b], Settings(), products).get("b") == 2
    assert calls == ["a", "b"]
    options["scale"] = 3
    assert WorkflowRunner([a, b], Settings(), products).why("a").endswith("closure variable options")
    assert WorkflowRunner([a, b], Settings(), products).get("b") == 3
    assert calls == ["a", "b", "a", "b"]


def test_not_even_if_a_step_asks_for_more(project):
    """A step that asks the runner in the middle of a build doesn't make it look at the code again."""
    project.edit("RATE = 2", "RATE = 2\ncalls = []\nasked = []")
    project.edit("return [config.depth, 1]", "calls.append(1)\n    config.more()\n    return [config.depth, 1]")
    project.edit("return len(table)", "calls.append(2)\n    return len(table)")
    settings = Settings()
    session = project.session(settings)
    session.cache["other"] = 3
    settings.more = lambda: session.get("other")
    session.get("count")
    assert project.ran == ["table", "count"]
    assert project.session().why("count") == "up to date"


PATHS = """
from pathlib import Path
from woflo.workflow import workflow_step

SCALE = 1

@workflow_step(produces=["raw"])
def make(config):
    path = Path(config.place)
    path.write_text(str(SCALE))
    return path

@workflow_step(produces=["total"])
def total(raw):
    return int(raw.read_text()) + 1
"""


@pytest.mark.parametrize("returned", ["path", "[path]", "{'where': (path,)}"])
def test_a_file_that_a_step_makes_counts_by_its_content(returned, place, tmp_path, log):
    """Who uses a path is made anew when the file has changed; a changed or lost file is made again."""
    project = Project(place, PATHS.replace("return path", f"return {returned}"))
    taken = {"path": "raw", "[path]": "raw[0]"}.get(returned, "raw['where'][0]")
    project.edit("raw.read_text()", f"{taken}.read_text()")
    settings = Settings()
    settings.place = str(tmp_path / "raw.txt")

    def total():
        found = project.session(settings).get("total")
        return found, project.ran

    assert total() == (2, ["raw", "total"])
    assert total() == (2, [])
    project.edit("SCALE = 1", "SCALE = 5")
    assert total() == (6, ["raw", "total"])
    project.edit("SCALE = 5", "SCALE = 1")
    assert total() == (2, ["raw", "total"])
    Path(settings.place).write_text("7")
    assert project.session(settings).get("raw")
    assert project.ran == ["raw"]
    assert Path(settings.place).read_text() == "1"


def test_products_of_a_step_stand_alone(project):
    """One product of several may be invalidated: its step runs again, and only it."""
    session = project.session()
    session.build_all()
    project.ran.clear()
    session.invalidate("quality")
    assert (session.status("quality"), session.status("model")) == ("missing", "cached")
    assert session.get("quality") == 1.0
    assert project.ran == ["model"]


def test_another_process_may_have_made_it(project):
    """What somebody else has saved meanwhile under the same key is loaded."""
    one, ran = project.session(), project.ran
    other = project.session()
    other.build_all()
    assert one.get("plot") == "plot of 8"
    assert ran == []


def test_external_products(place):
    """A product that no step makes is loaded, marked, and makes its users run when its content changes."""

    @workflow_step(produces=["mean"], requires=["samples"])
    def mean(samples):
        return sum(samples) / len(samples)

    products = WorkflowProducts(place)
    products.save("samples", [1, 3])

    def session():
        return WorkflowRunner([mean], Settings(), WorkflowProducts(place))

    assert session().get("mean") == 2
    assert session().get("samples") == [1, 3]
    assert session().why("samples") == "no step makes it; it is among the products"
    products.save("samples", [1, 3])
    assert session().why("mean") == "up to date"
    products.save("samples", [2, 4])
    assert session().why("mean").startswith("input changed: samples (")
    assert session().get("mean") == 3
    assert [line for line in session().diagram().splitlines() if "samples" in line and "dashed" in line]


def test_external_products_are_marked_in_the_table(place, capsys):
    """The table has a line for them."""

    @workflow_step(produces=["mean"])
    def mean(samples):
        return sum(samples)

    products = WorkflowProducts(place)
    products.save("samples", [1, 3])
    WorkflowRunner([mean], Settings(), products).dag()
    assert ["(external)", "samples", "—", "on_disk"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_an_external_product_that_is_gone_is_named(place):
    """What was there when the runner was made and can't be had any more is an error that names it."""

    @workflow_step(produces=["mean"])
    def mean(samples):
        return sum(samples)

    products = WorkflowProducts(place)
    products.save("samples", [1, 3])
    runner = WorkflowRunner([mean], Settings(), products)
    WorkflowProducts(place).remove("samples")
    for name in ("samples", "mean"):
        with pytest.raises(UsageError, match="samples"):
            runner.get(name)


# ------------------------------------------------------------------ somebody else's config and products


class Shelf:
    """Somebody else's products, to the letter of the interface."""

    def __init__(self):
        self.saved, self.refuse, self.lose = {}, (), ()

    def save(self, name, obj, cache_key=None, inputs=None):
        if name in self.refuse:
            raise ValueError("no format for it")
        self.saved[name] = obj, cache_key, inputs

    def load(self, name):
        if name in self.lose:
            raise OSError("needs an argument")
        return self.saved[name][0]

    def exists(self, name):
        return name in self.saved

    def fresh(self, name, cache_key):
        return self.saved[name][1] == cache_key

    def remove(self, name):
        del self.saved[name]


def test_somebody_elses_products(project):
    """Keys alone decide: an edit and a changed configuration run what depends on them."""
    shelf = Shelf()
    assert project.build(products=shelf) == EVERYTHING
    assert project.build(products=shelf) == []
    project.edit("RATE = 2", "RATE = 3")
    assert project.session(products=shelf).why("model") == "option changed: it was made under another key"
    assert project.build(products=shelf) == ["model", "plot"]
    assert project.build(products=shelf, config=Settings(depth=5)) == EVERYTHING


def test_a_load_that_fails_is_said_once(project, log):
    """What can't be loaded is made again, and said once."""
    shelf = Shelf()
    project.build(products=shelf)
    shelf.lose = ("model", "plot")
    session = project.session(products=shelf)
    assert session.get("plot") == "plot of 8"
    session.cache.clear()
    assert session.get("plot") == "plot of 8"
    assert [line for line in log if "'plot'" in line] == [
        "the product 'plot' can't be loaded and is made again: OSError: needs an argument"
    ]


def test_a_save_that_fails_is_said_once(project, log):
    """What can't be saved stays in memory."""
    shelf = Shelf()
    shelf.refuse = ("table",)
    session = project.session(products=shelf)
    assert session.get("plot") == "plot of 8"
    session.rebuild("table")
    assert log == ["the product 'table' of step clean can't be saved and stays in memory: ValueError: no format for it"]
    assert project.session(products=shelf).get("plot") == "plot of 8"
    assert project.ran == []


def test_a_configuration_with_attributes_only(project):
    """A config without `cache_key` that names its identity is taken at its word."""
    config = types.SimpleNamespace(depth=3, _identity_fields=["depth"])
    assert project.build(config=config) == EVERYTHING
    assert project.build(config=types.SimpleNamespace(depth=3, _identity_fields=["depth"], other=1)) == []
    config.depth = 4
    assert project.build(config=config) == EVERYTHING


def test_existence_counts_only_without_identity_and_is_said(project, log):
    """A config that declares no identity uses what exists; that is said once in a session."""
    config = types.SimpleNamespace(depth=3)
    assert project.build(config=config) == EVERYTHING
    assert log == []
    project.edit("RATE = 2", "RATE = 3")
    session = project.session(config)
    session.build_all()
    session.get("table")
    assert project.ran == []
    assert len(log) == 1
    assert "_identity_fields" in log[0]
    assert project.build() == EVERYTHING


def test_existence_asks_for_nothing_before_it(project, log):
    """Without identity, what exists is used although what it was made from is gone."""
    config = types.SimpleNamespace(depth=3)
    for products in (None, Shelf()):
        session = project.session(config, products)
        session.build_all()
        session.invalidate("table")
        assert project.build(config=config, products=products) == []
        assert project.session(config, products).why("table") == "first run"


def test_a_mock_is_a_configuration(project):
    """Whatever its `cache_key` returns is the key."""
    config = Mock()
    config.depth = 3
    config.cache_key.return_value = 77
    assert project.build(config=config, products=Shelf()) == EVERYTHING
    config.cache_key.assert_any_call(requires={"model": ANY})


def test_external_products_of_somebody_else(log):
    """What no step makes is digested as it is loaded."""

    @workflow_step(produces=["mean"])
    def mean(samples):
        return sum(samples) / len(samples)

    def session():
        return WorkflowRunner([mean], Settings(), shelf)

    shelf = Shelf()
    shelf.save("samples", [1, 3])
    assert session().get("mean") == 2
    assert session().why("mean") == "up to date"
    shelf.save("samples", [3, 5])
    assert session().plan()
    assert session().get("mean") == 4
    shelf.lose = ("samples",)
    with pytest.raises(OSError, match="needs an argument") as caught:
        session().get("mean")
    assert "samples" in caught.value.__notes__[0]
    assert log == []


def test_a_disk_that_is_full_costs_nothing_but_the_record(project, monkeypatch, log):
    """The values are handed out all the same, and what could not be saved is said, once each."""
    session = project.session()

    def keep(*_args, **_options):
        raise StoreError("it can't keep anything", "no space left on device")

    monkeypatch.setattr("woflo.store.Store.keep", keep)
    assert session.get("plot") == "plot of 8"
    assert len([line for line in log if "no space left" in line]) == 4
    monkeypatch.undo()
    assert project.build() == EVERYTHING


# ------------------------------------------------------------------ errors before anything runs


def made(**marks):
    """A step whose parameters are given as text."""

    def make(parameters="", name="step"):
        names = {}
        exec(f"def {name}({parameters}): return 0", names)
        return workflow_step(**marks)(names[name])

    return make


@pytest.mark.parametrize(
    ("steps", "error", "builtin", "said"),
    [
        ([made(produces=["a"])("tempreture")], StepError, TypeError, r"step step: its parameter 'tempreture'"),
        (
            [made(produces=["a"])(name="f"), made(produces=["a"])(name="g")],
            UsageError,
            ValueError,
            r"'a': f .*, g|'a': f .*and g",
        ),
        ([made(produces=["a"], requires=["b"])("b")], UnknownProductError, KeyError, r"step step requires 'b'"),
        (
            [made(produces=["table"])(name="f"), made(produces=["x"], requires=["tabel"])("tabel", "g")],
            UnknownProductError,
            KeyError,
            r"step g requires 'tabel'.*did you mean 'table'",
        ),
        ([made(produces=["a"])("a")], CyclicWorkflowError, ValueError, "a -> a"),
        ([made(produces=["a"])("b"), made(produces=["b"])("a", "g")], CyclicWorkflowError, ValueError, "->"),
        ([made(produces=["a"]), 3], UsageError, ValueError, "no workflow step"),
        ([lambda: 1], UsageError, ValueError, "no workflow step"),
    ],
    ids=["parameter", "producers", "missing", "close", "itself", "cycle", "unmarked", "lambda"],
)
def test_what_is_wrong_is_said_before_anything_runs(steps, error, builtin, said):
    """Each error is a UsageError and the builtin that it resembles, and names step and product."""
    with pytest.raises(error, match=said) as caught:
        WorkflowRunner(steps, Settings())
    assert isinstance(caught.value, UsageError)
    assert isinstance(caught.value, builtin)


@pytest.mark.parametrize("error", [StepError("step fit: …"), UnknownProductError("no step makes 'tabel'")])
def test_errors_survive_pickling(error):
    """With their type and their text, which is no repr."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) == error.args[0]


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ({"produces": "model"}, r"step step: produces is a list of names, not 'model': write \['model'\]"),
        ({"requires": "table"}, r"requires is a list"),
        ({"produces": 3}, r"produces is a list"),
        ({"produces": [3]}, r"3 is none"),
        ({"produces": ["a", "a"]}, r"names 'a' twice"),
        ({"produces": ["config"]}, r"'config' is the configuration"),
        ({"produces": ["a"], "runner": "fork"}, r"runner must be a class of TaskRun"),
    ],
)
def test_marks_are_checked_where_they_are_written(marks, said):
    """A decorator that can't be meant is an error at its line."""
    with pytest.raises(UsageError, match=said):
        made(**marks)()


@pytest.mark.parametrize("thing", [3, len, None.__class__], ids=["number", "builtin", "type"])
def test_only_functions_become_steps(thing):
    """What nothing can be said on is refused."""
    with pytest.raises(UsageError):
        workflow_step(produces=["a"])(thing)


@pytest.mark.parametrize("module", [None, "convection", [len]])
def test_what_is_no_workflow(module):
    """A name instead of the module is refused."""
    with pytest.raises(UsageError):
        WorkflowRunner(module, Settings())


def test_products_must_have_their_methods():
    """A path in the place of products is refused, and the way out is named."""
    with pytest.raises(UsageError, match=r"WorkflowProducts.*save, load, exists"):
        WorkflowRunner([], Settings(), "products")


def test_names_that_are_no_products(project):
    """Wherever a product is named, a wrong name is a KeyError with close matches; `status` says missing."""
    session = project.session()
    for ask in (session.get, session.rebuild, session.invalidate, session.why, session.plan, session.what_invalidates):
        with pytest.raises(UnknownProductError, match=r"no step makes 'modle' \(did you mean 'model'\?\)"):
            ask("modle")
    assert session.status("modle") == "missing"


def test_observers_must_be_callable(project):
    """Anything else is refused at once."""
    with pytest.raises(UsageError, match="observe"):
        project.session().observe("print")


# ------------------------------------------------------------------ errors of shape


@pytest.mark.parametrize(
    ("result", "builtin", "said"),
    [
        ({"one": 1}, KeyError, r"step both returned a dict without 'two'"),
        ({"one": 1, "two": 2, "three": 3}, ValueError, r"step both returned a dict with 'three'"),
        ((1,), ValueError, r"step both makes 2 products \('one', 'two'\) and returned 1 values"),
        (3, TypeError, r"step both makes 'one', 'two' and returned a int"),
        ("12", TypeError, "str"),
        (None, TypeError, "NoneType"),
    ],
)
@pytest.mark.parametrize("runner", [None, ThreadTaskRun])
def test_wrong_shapes(result, builtin, said, runner, place):
    """What doesn't fit is an error that names the step; nothing of it is kept."""

    @workflow_step(produces=["one", "two"], runner=runner)
    def both():
        return result

    session = WorkflowRunner([both], Settings(), WorkflowProducts(place))
    with pytest.raises(builtin, match=said) as caught:
        session.get("one")
    assert isinstance(caught.value, UsageError)
    assert session.cache == {}
    assert session.products.names() == []


def test_any_mapping_serves():
    """A read-only view is a dict here."""

    @workflow_step(produces=["one", "two"])
    def both():
        return types.MappingProxyType({"two": 2, "one": 1})

    assert WorkflowRunner([both]).get("two") == 2


# ------------------------------------------------------------------ what can be a step


def test_a_class_or_an_object_may_hold_the_steps():
    """Methods are steps too; `self` is no parameter of a bound one."""

    class Pipeline:
        factor = 3

        @workflow_step(produces=["base"])
        def base(self, config):
            return config.depth

        @workflow_step(produces=["scaled"])
        def scale(self, base):
            return self.factor * base

        @property
        def broken(self):
            raise RuntimeError("not now")

    assert WorkflowRunner(Pipeline(), Settings()).get("scaled") == 9


def test_a_dict_of_names_may_hold_the_steps():
    """In a notebook, `globals()`; what isn't marked is left out."""

    @workflow_step(produces=["a"])
    def step():
        return 1

    names = {"step": step, "same": step, "other": len, "mock": Mock(), "number": 3, "Class": Settings}
    assert WorkflowRunner(names).get("a") == 1


def test_steps_of_one_name():
    """Functions of the same name are told apart by their products."""
    steps = [made(produces=["a"])(), made(produces=["b"])()]
    runner = WorkflowRunner(steps)
    assert runner.build_all() == ["a", "b"]
    runner = WorkflowRunner(steps)
    assert [one.step for one in runner.plan()] == ["step (a)", "step (b)"]


def test_parameters_of_every_kind():
    """By place only, by name only, with defaults, and what takes whatever is required."""

    @workflow_step(produces=["a"])
    def a():
        return "a"

    @workflow_step(produces=["b"], requires=["a"])
    def b(a, config, unit="m", /, *, scale=1, **rest):
        return a, config.depth, unit, scale, rest

    @workflow_step(produces=["c"], requires=["a", "b"])
    def c(*args, **products):
        return args, sorted(products)

    @workflow_step(produces=["d"])
    def d(*, a):
        return a

    runner = WorkflowRunner([a, b, c, d], Settings())
    assert runner.get("b") == ("a", 3, "m", 1, {})
    assert runner.get("c") == ((), ["a", "b"])
    assert runner.get("d") == "a"


def test_required_without_a_parameter():
    """It is made before, and its value isn't passed."""
    order = []

    @workflow_step(produces=["files"])
    def write():
        order.append("write")

    @workflow_step(produces=["archive"], requires=["files"])
    def pack():
        order.append("pack")

    WorkflowRunner([pack, write]).get("archive")
    assert order == ["write", "pack"]


def test_decorated_and_partial_functions():
    """What wraps a step, and a partial one, are called as they are."""

    def traced(fn):
        @functools.wraps(fn)
        def inner(*args, **kwargs):
            return fn(*args, **kwargs) + 1

        return inner

    @traced
    @workflow_step(produces=["a"])
    def a(config):
        return config.depth

    def power(a, exponent):
        return a**exponent

    square = workflow_step(produces=["square"])(functools.partial(power, exponent=2))
    assert WorkflowRunner([a, square], Settings()).get("square") == 16


def test_an_own_earlier_product_is_no_input():
    """A step may have a parameter of its product's name if it has a default: there is none when it is first made."""

    @workflow_step(produces=["state"])
    def advance(state=None):
        return "first" if state is None else "next"

    assert WorkflowRunner([advance]).get("state") == "first"


def test_steps_without_products_are_listed_and_not_run(capsys):
    """A bare `@workflow_step` is one."""
    ran = []

    @workflow_step
    def report(config):
        ran.append(config)

    runner = WorkflowRunner([report], Settings())
    assert runner.build_all() == []
    runner.dag()
    assert "(no product)" in capsys.readouterr().out
    assert ran == []


# ------------------------------------------------------------------ where steps run


def where():
    return os.getpid(), threading.get_ident()


def test_a_step_runs_in_the_thread_that_asks():
    """Solvers live there; also under a running event loop, as in a notebook."""

    @workflow_step(produces=["first"])
    def first():
        return where()

    @workflow_step(produces=["second"])
    def second(first):
        return first, where()

    async def cell():
        return WorkflowRunner([first, second]).get("second")

    assert WorkflowRunner([first, second]).get("second") == (where(), where())
    assert asyncio.run(cell()) == (where(), where())


def test_a_runner_of_its_own():
    """A step may say where it runs."""

    @workflow_step(produces=["here"])
    def here():
        return where()

    @workflow_step(produces=["thread"], runner=ThreadTaskRun)
    def thread(here):
        return here, where()

    @workflow_step(produces=["process"], runner=MultiprocessTaskRun)
    def process(thread, *, config):
        return thread, where(), config.depth

    ((own, beside), elsewhere, depth) = WorkflowRunner([here, thread, process], Settings()).get("process")
    assert own == where()
    assert beside[0] == own[0]
    assert beside[1] != own[1]
    assert elsewhere[0] != own[0]
    assert depth == 3


@workflow_step(produces=["answer"], runner=MultiprocessTaskRun.using(process_type=SpawnProcess))
def spawned(config):
    return os.getpid(), config.depth


def test_a_spawned_step():
    """A step of an importable module travels to a fresh interpreter, and its product comes back."""
    pid, depth = WorkflowRunner([spawned], Settings()).get("answer")
    assert pid != os.getpid()
    assert depth == 3


def test_parallel_runs_independent_steps_at_once():
    """Two steps that wait for each other end only if they run at the same time."""
    barrier = threading.Barrier(2, timeout=30)

    @workflow_step(produces=["left"])
    def left():
        barrier.wait()
        return threading.get_ident()

    @workflow_step(produces=["right"])
    def right():
        barrier.wait()
        return threading.get_ident()

    @workflow_step(produces=["both"])
    def both(left, right):
        return left, right

    one, other = WorkflowRunner([left, right, both], parallel=True).get("both")
    assert len({one, other, threading.get_ident()}) == 3


def test_big_products_are_not_searched_for_runs():
    """What a step in a thread is given is passed as it is, runs inside included."""
    run = woflo.task(int, runner=ThreadTaskRun)(3)

    @workflow_step(produces=["kept"])
    def keep():
        return [run]

    @workflow_step(produces=["seen"], runner=ThreadTaskRun)
    def see(kept):
        return kept[0] is run

    assert WorkflowRunner([keep, see]).get("seen") is True


def test_a_task_is_a_step():
    """A Task may be a step, with its retries and time-out; in either order of the decorators."""
    tries, release = [], threading.Event()

    @workflow_step(produces=["a"])
    @woflo.task(runner=ThreadTaskRun, retries=1, retry_sleep_time=0)
    def flaky(config):
        tries.append(config.depth)
        if len(tries) == 1:
            raise OSError("not yet")
        return threading.get_ident()

    @woflo.task(runner=ThreadTaskRun, timeout=0.05)
    @workflow_step(produces=["b"])
    def slow(a):
        release.wait(30)

    runner = WorkflowRunner([flaky, slow], Settings())
    assert runner.get("a") != threading.get_ident()
    assert tries == [3, 3]
    with pytest.raises(TimeoutFailure):
        runner.get("b")
    release.set()


def test_a_coroutine_function_is_a_step():
    """It is carried out on a loop, in a script and in a notebook."""

    @workflow_step(produces=["a"])
    async def step(config):
        await asyncio.sleep(0)
        return config.depth

    async def cell():
        return WorkflowRunner([step], Settings()).get("a")

    assert WorkflowRunner([step], Settings()).get("a") == 3
    assert WorkflowRunner([step], Settings(), parallel=True).get("a") == 3
    assert asyncio.run(cell()) == 3


def test_a_step_that_asks_for_itself():
    """It ends with an error, and the runner goes on."""

    @workflow_step(produces=["a"])
    def a():
        return runner.get("a")

    @workflow_step(produces=["b"])
    def b():
        return 2

    runner = WorkflowRunner([a, b])
    with pytest.raises(RecursionError):
        runner.get("a")
    assert runner.get("b") == 2


def test_a_step_may_ask_for_more():
    """A step that holds the runner may ask it for a product that it doesn't declare."""

    @workflow_step(produces=["table"])
    def table():
        return [1, 2]

    @workflow_step(produces=["total"])
    def total():
        return sum(runner.get("table"))

    runner = WorkflowRunner([table, total])
    assert runner.get("total") == 3


# ------------------------------------------------------------------ failures


@pytest.mark.parametrize("runner", [None, ThreadTaskRun, MultiprocessTaskRun])
def test_exceptions_go_to_the_caller_as_themselves(runner):
    """With a note that names the step; what doesn't depend on it works, and so does a second try."""
    broken = [True]

    @workflow_step(produces=["a"], runner=runner)
    def first():
        if broken:
            raise LookupError("no such sensor")
        return 1

    @workflow_step(produces=["b"])
    def second(a):
        return a

    @workflow_step(produces=["other"])
    def other():
        return 2

    session = WorkflowRunner([first, second, other])
    for _ in range(2):
        with pytest.raises(LookupError, match="no such sensor") as caught:
            session.get("b")
        assert any("first" in note for note in caught.value.__notes__)
    assert session.get("other") == 2
    broken.clear()
    assert session.get("b") == 1


def test_what_was_made_before_a_failure_lasts(project):
    """Steps that ended before another failed aren't run again."""
    project.edit("return len(table)", "raise OSError('no table')")
    session = project.session()
    with pytest.raises(OSError, match="no table"):
        session.get("count")
    assert session.get("plot") == "plot of 8"
    assert project.ran == ["table", "count", "model", "plot"]
    project.edit("raise OSError('no table')", "return len(table)")
    assert project.build() == ["count"]


def test_ctrl_c_in_a_step_goes_to_the_caller(project):
    """The caller gets the KeyboardInterrupt; what was made before lasts, and a second try goes on."""
    interrupted = []

    @workflow_step(produces=["a"])
    def first():
        return 1

    @workflow_step(produces=["b"])
    def second(a):
        if not interrupted:
            interrupted.append(a)
            signal.raise_signal(signal.SIGINT)
        return a + 1

    session = WorkflowRunner([first, second])
    with pytest.raises(KeyboardInterrupt):
        session.get("b")
    assert session.cache == {"a": 1}
    assert session.get("b") == 2


def test_a_raising_observer_is_named_once(project, log):
    """In the log; it stays registered, and so do the others."""
    calls, others = [], []

    def broken(event, name):
        calls.append((event, name))
        raise RuntimeError("a widget is gone")

    session = project.session()
    session.observe(broken)
    session.observe(lambda *event: others.append(event))
    assert session.build_all() == ["count", "plot", "quality"]
    assert calls == others
    assert len(calls) > 10
    assert len(log) == 1
    assert "broken raised RuntimeError: a widget is gone" in log[0]


def test_ctrl_c_in_an_observer_goes_to_the_caller(project):
    """It isn't the observer's."""
    session = project.session()
    session.observe(lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        session.get("table")


def test_an_observer_may_ask():
    """It may ask for status, drawings and products that are there."""

    @workflow_step(produces=["a"])
    def a():
        return 1

    @workflow_step(produces=["b"])
    def b(a):
        return a + 1

    session = WorkflowRunner([a, b])
    seen = []

    def look(event, name):
        if (event, name) == ("built", "a"):
            seen.append((session.status("a"), session.get("a"), "digraph" in session.diagram()))

    session.observe(look)
    assert session.get("b") == 2
    assert seen == [("cached", 1, True)]


# ------------------------------------------------------------------ looking


def test_the_table_is_escaped(monkeypatch):
    """A name is text, in HTML too."""

    @workflow_step(produces=["<img src=x>"])
    def step():
        return 1

    step.__name__ = "<b>&"
    from woflo._status_table import Row, to_html

    runner = WorkflowRunner([step])
    html = []
    monkeypatch.setattr("woflo._status_table.show", lambda title, rows: html.append(to_html(title, rows)))
    runner.dag()
    assert "<img" not in html[0]
    assert "<b>" not in html[0]
    assert "&lt;img src=x&gt;" in html[0]
    assert "<script" not in to_html("<script>", [Row("<script>", "<script>", "<script>", "<script>")])


def test_a_terminal_shows_text(monkeypatch, capsys):
    """IPython in a terminal can't show HTML, and IPython that is only installed isn't imported."""

    class TerminalInteractiveShell:
        pass

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = TerminalInteractiveShell
    runner = WorkflowRunner([])
    for found in (ipython, types.ModuleType("IPython")):
        monkeypatch.setitem(sys.modules, "IPython", found)
        found.get_ipython = getattr(found, "get_ipython", lambda: None)
        runner.dag()
        assert capsys.readouterr().out.splitlines()[0] == "workflow — runner status"
    monkeypatch.delitem(sys.modules, "IPython")
    runner.dag()
    assert "IPython" not in sys.modules


def test_a_diagram_in_a_wrong_direction(project):
    """The four directions are named."""
    with pytest.raises(UsageError, match="LR"):
        project.session().diagram(rankdir='"; evil')


# ------------------------------------------------------------------ sizes


class Ran(list):
    """Which steps have run. It is no part of what they do: it doesn't count as their code."""

    def __woflo_digest__(self):
        return "ran"


def numbered(edges):
    """Steps `s0`, `s1`, …, each of which adds up what it requires, plus one."""
    ran = Ran()

    def make(number, requires):
        def step(**products):
            ran.append(number)
            return 1 + sum(products.values()) % 1000

        return workflow_step(produces=[f"s{number}"], requires=[f"s{one}" for one in requires])(step)

    return [make(number, requires) for number, requires in enumerate(edges)], ran


def ladder(rungs):
    """Diamonds one behind the other: the ways from one end to the other double with each."""
    edges = [[]]
    for at in range(0, 3 * rungs, 3):
        edges += [[at], [at], [at + 1, at + 2]]
    return edges


def test_a_ladder_of_diamonds_is_planned_in_linear_time():
    """Each step is looked at once, although there are 2^1000 ways through."""
    steps, ran = numbered(ladder(1000))
    runner = WorkflowRunner(steps)
    asked = []
    recipe = runner._shelf.recipe
    for step in runner._steps.values():
        step.recipe = lambda digests: asked.append(1) or recipe(None, digests)
    assert len(runner.plan()) == 3001
    assert len(asked) == 3001
    assert ran == []
    assert len(runner.what_invalidates("s0")) == 3000


def test_a_long_chain_is_built():
    """Ten thousand steps, one after the other, within Python's recursion limit; a second session loads one product."""
    steps, ran = numbered([[], *([at] for at in range(9_999))])
    products = WorkflowProducts({})
    expected = 0
    for _ in steps:
        expected = 1 + expected % 1000
    assert WorkflowRunner(steps, Settings(), products).get("s9999") == expected
    assert ran == list(range(10_000))
    again = WorkflowRunner(steps, Settings(), products)
    told = []
    again.observe(lambda *event: told.append(event))
    assert again.get("s9999") == expected
    assert told == [("loaded", "s9999")]


# ------------------------------------------------------------------ killed

DRIVER = """
import json, os, signal, sys, traceback
from woflo.workflow import WorkflowConfig, WorkflowProducts, WorkflowRunner, workflow_step

class Settings(WorkflowConfig):
    _identity_fields = ("size",)
    size: int = 5000  # bytes: more than what lies in a record itself

def note(text):
    file = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (text + "\\n").encode())
    os.close(file)

def step(number, requires):
    def make(config, **products):
        note(f"ran p{number}")
        return str(number) * config.size + str(sum(map(len, products.values())))
    return workflow_step(produces=[f"p{number}"], requires=[f"p{one}" for one in requires])(make)

STEPS = [step(0, []), step(1, [0]), step(2, [0]), step(3, [1, 2])]
operations = victim = 0

def count(event, arguments):
    "The process is killed just before its n-th operation on files of the products."
    global operations
    if event in {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"} and arguments[0] != "ledger":
        operations += 1
        if operations == victim:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)

def session(place):
    runner = WorkflowRunner(STEPS, Settings(), WorkflowProducts(place))
    runner.observe(lambda event, name: note(f"{event} {name}"))
    note(f"done {len(runner.get('p3'))}")

def child(place, killed_at):
    "A session in a process of its own; what it ended with, and its lines in the ledger."
    global operations, victim
    pid = os.fork()
    if not pid:
        try:
            operations, victim = 0, killed_at
            session(place)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    lines = open("ledger").read().splitlines()
    os.unlink("ledger")
    return code, lines

session("warm")  # whatever is imported late is there now
os.unlink("ledger")
at, code = 0, None
while code != 0:
    at += 1
    code, killed = child(f"place{at}", at)
    print(json.dumps([code, killed, *child(f"place{at}", 0), *child(f"place{at}", 0)]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed")
@pytest.mark.timeout(300)
def test_a_driver_killed_at_any_moment_goes_on_where_it_was(tmp_path):
    """Killed before each of its operations on files in turn: what was told as built isn't made again, and all comes out right."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    *killed, last = map(json.loads, done.stdout.splitlines())
    assert len(killed) > 20
    assert last[0] == 0
    result = last[1][-1]
    for at, (code, first, second_code, second, third_code, third) in enumerate(killed, 1):
        assert (code, second_code, third_code) == (-signal.SIGKILL, 0, 0)
        built = {line.split()[1] for line in first if line.startswith("built")}
        again = [line.split()[1] for line in second if line.startswith("ran")]
        assert not built & set(again), f"killed before operation {at}: what was built ran again"
        assert len(again) == len(set(again))
        assert second[-1] == result
        assert third == ["loaded p3", result]


def test_the_methods_of_the_configuration_are_code(place):
    """A step that is given the configuration is made anew when a method or property of its class was edited, and why says so."""

    def session(factor):
        class Tuned(Settings):
            verbose = bool(factor % 2)  # no code, and no field that counts

            @property
            def scale(self):
                return self.depth * 10

            def derived(self):
                return self.scale

        if factor > 1:

            def derived(self):
                return self.scale * 10

            Tuned.derived = derived
            derived.__qualname__ = "Tuned.derived"

        @workflow_step(produces=["product"])
        def make(config):
            return config.derived()

        @workflow_step(produces=["other"])
        def aside():
            return 1

        return WorkflowRunner([make, aside], Tuned(), WorkflowProducts(place))

    first = session(1)
    assert (first.get("product"), first.get("other")) == (30, 1)
    later = session(2)
    assert "derived() of Tuned" in str(later.why("product"))
    assert later.get("product") == 300
    assert "up to date" in later.why("other")


def test_a_step_that_changes_its_input_in_place(place, log):
    """A product that a step changes in place is handed out, and kept, as it was made; that is said once."""

    @workflow_step(produces=["numbers"])
    def make():
        return [1, 2, 3]

    @workflow_step(produces=["spoilt"])
    def spoil(numbers):
        numbers[2] = 300
        return sum(numbers)

    @workflow_step(produces=["total"])
    def add(numbers, spoilt):
        return sum(numbers)

    for _ in range(2):
        runner = WorkflowRunner([make, spoil, add], Settings(), WorkflowProducts(place))
        assert (runner.get("total"), runner.get("spoilt"), runner.get("numbers")) == (6, 303, [1, 2, 3])
    assert sum("changed in place" in line for line in log) == 1
