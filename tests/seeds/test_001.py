"""Seed 001, sentence by sentence: each that states a rule has a test here, whose docstring says the rule in its own words.

What is not so, or comes later, stands in `woflo/ARCHITECTURE.md` under "Deliberate differences from the seeds", with its reason.
The seed has no code; its one example, a PCA of something that is downloaded, is the one here.
"""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

import woflo
from woflo import DependencyFailure, Graph, TaskFailure, UsageError, task
from woflo.env import Definition, Env, Option, Type
from woflo.lazy import Lazy
from woflo.runners import MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun
from woflo.testing import PATIENCE

HERE = SequentialTaskRun
PAGES = {"north": "1,2,3\n2,4,6.1\n3,6,8.9\n4,8,12", "south": "1,1,1\n2,2,2"}


def is_list_of_text(value):
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def is_positive(value):
    return value > 0


class Ledger(list):
    """Names of the tasks whose code ran; for tasks of this process, to whose code it does not belong."""

    def __woflo_digest__(self):
        return "ledger"


@pytest.fixture
def ran():
    """The names of the tasks whose code ran, in their order."""
    return Ledger()


@pytest.fixture
def env(ran):
    """download(urls) → table → pca(n), and what they are made of."""
    env = Env()
    urls = env.type("urls", is_list_of_text)
    whole = env.type("whole number", is_whole)
    count = env.type("count", is_positive, whole)
    table = env.type("table", lambda value: isinstance(value, np.ndarray) and value.ndim == 2)
    vectors = env.type("vectors", lambda value: set(value) == {"components", "explained"})

    @env.task(options={"urls": urls}, product=urls)
    def download(urls):
        ran.append("download")
        return [PAGES[url] for url in urls]

    @env.task(requires=["download"], product=table)
    def rows(download):
        ran.append("rows")
        return np.array([[float(cell) for cell in line.split(",")] for page in download for line in page.splitlines()])

    @env.task(requires=["rows"], options={"n": Option(count, default=1)}, product=vectors)
    def pca(rows, n):
        ran.append("pca")
        _, scales, components = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
        return {"components": components[:n].tolist(), "explained": (scales**2 / (scales**2).sum())[:n].tolist()}

    return env


URLS = {"download.urls": ["north"]}


# ---------------------------------------------------------------------- phases of execution


def test_phases(env, ran):
    """A task is defined, then its options are given values, then it is executed: each phase does nothing of the next."""
    assert ran == []
    invocation = env.invoke("pca", URLS)
    assert ran == []
    product = invocation.run(runner=HERE)
    assert ran == ["download", "rows", "pca"]
    assert product["explained"][0] == pytest.approx(1, abs=0.01)


def test_where_to_run_and_what_to_write_is_decided_at_execution(env):
    """Definitions and invocations can't say either; run() can, for all tasks or for one."""
    for decided_later in ("runner", "store"):
        with pytest.raises(UsageError, match=f"{decided_later}= is decided when a task is carried out"):
            env.task(product=env.types["urls"], **{decided_later: None})
        assert decided_later not in inspect.signature(env.invoke).parameters
        assert decided_later in inspect.signature(env.invoke("pca", URLS).run).parameters
    with pytest.raises(UsageError, match="where a task runs and what is kept is decided when it is carried out"):
        env.task(product=env.types["urls"])(task(runner=HERE)(sorted))
    invocation = env.invoke("pca", URLS, n=2)
    products = [invocation.run(runner=one) for one in (HERE, ThreadTaskRun, {"pca": MultiprocessTaskRun})]
    assert products[0] == products[1] == products[2]


def test_the_scheduler_sees_to_the_order(env, ran):
    """Whatever the order in which things were said, each task runs once, after what it needs."""

    @env.task(requires=["pca", "rows", "download"], product=env.types["urls"])
    def report(download, pca, rows):
        ran.append("report")
        return [*download, f"{rows.shape} {sorted(pca)}"]

    env.invoke(report, URLS).run(runner=HERE)
    assert ran == ["download", "rows", "pca", "report"]


# ---------------------------------------------------------------------- task definitions


def test_a_definition_is_a_description_in_code(env):
    """It describes work, apart from any values that it acts on."""
    pca = env.tasks["pca"]
    assert isinstance(pca, Definition)
    assert (pca.name, pca.requires, list(pca.options), pca.product.name) == ("pca", ("rows",), ["n"], "vectors")
    first, second = env.invoke(pca, URLS, n=1), env.invoke(pca, {"download.urls": ["south"]}, n=2)
    assert first.values == {"download.urls": ["north"], "pca.n": 1}
    assert second.values == {"download.urls": ["south"], "pca.n": 2}


def test_registrations_are_stored_in_an_env(env):
    """So one can play with it: look, copy, change the copy."""
    other = env.replace("download", lambda: ["1,2\n3,5"])
    assert other.invoke("pca").run(runner=HERE) != env.invoke("pca", URLS).run(runner=HERE)
    assert other.tasks["rows"] is env.tasks["rows"]
    assert not Env().tasks


def test_a_name_is_unique_in_its_env(env):
    """A second task of one name is refused, and both places are named; another env may have one."""
    with pytest.raises(
        UsageError, match=r"test_001.py:\d+.: there is one of this name already, defined at .*test_001.py"
    ):
        env.task(name="pca", product=env.types["urls"])(lambda: ["a"])
    other = Env()
    other.task(name="pca", product=other.type("any", lambda _: True))(lambda: 3)
    assert other.invoke("pca").run(runner=HERE) == 3


def test_a_task_may_have_no_dependencies(env):
    """To download is a task without any, and with a required option that holds the URLs."""
    download = env.tasks["download"]
    assert (download.requires, download.options["urls"].is_required) == ((), True)
    assert env.invoke("download", URLS).run(runner=HERE) == [PAGES["north"]]


def test_a_dependency_is_only_a_task(env):
    """A task by name or as it was defined; it can't be told options, in no way."""
    whole, urls = env.types["whole number"], env.types["urls"]
    for requires in (
        [("download", {"urls": ["north"]})],
        {"download": {"urls": ["north"]}},
        [env.invoke("download", URLS)],
    ):
        with pytest.raises(UsageError, match="can't set the options of those that it requires"):
            env.task(name="one", requires=requires, product=urls)(lambda download: download)
    with pytest.raises(UsageError, match="can't set the options of those that it requires"):
        env.task(name="one", requires=["pca"], options={"pca.n": Option(whole, default=3)}, product=urls)(
            lambda pca: pca
        )
    with pytest.raises(UsageError, match="which is no task"):
        env.task(name="one", requires=[task(len)], product=urls)(lambda len: len)  # noqa: A006
    env.task(name="one", requires=[env.tasks["download"]], product=urls)(lambda download: download)


def test_only_the_product_of_a_dependency_can_be_used(env):
    """A task is given products and its own options; an option of what it depends on is no parameter of its."""
    with pytest.raises(
        UsageError, match=r"its parameter 'urls' is neither a task that it requires nor an option of it"
    ):
        env.task(name="one", requires=["download"], product=env.types["urls"])(lambda download, urls: download + urls)
    env.task(name="two", requires=["download"], product=env.types["whole number"])(lambda download: len([*download]))
    assert env.invoke("two", {"urls": ["north", "south"]}).run(runner=HERE) == 2


def test_each_dependency_is_defined_already(env):
    """What is not is an error at once, with close matches; so there can be no cycle."""
    with pytest.raises(UsageError, match=r"it requires 'dowload', which is not defined yet; did you mean 'download'"):
        env.task(name="one", requires=["dowload"], product=env.types["urls"])(lambda dowload: dowload)
    with pytest.raises(UsageError, match=r"it requires 'one', which is not defined yet"):
        env.task(name="one", requires=["one"], product=env.types["urls"])(lambda one: one)
    list(env.graph.topological())


def test_a_task_may_have_no_options(env):
    """An operation without knobs is possible."""
    assert not env.tasks["rows"].options
    assert env.invoke("rows", URLS).run(runner=HERE).shape == (4, 3)


def test_a_product_may_be_a_list_of_vectors_with_metadata(env):
    """As that of a PCA."""
    product = env.invoke("pca", URLS, n=2).run(runner=HERE)
    assert (len(product["components"]), len(product["explained"])) == (2, 2)


# ---------------------------------------------------------------------- types


def test_types_are_declared_in_the_env_and_not_inline(env):
    """A predicate, a class or a Type that the env doesn't know is refused where one of its types belongs."""
    for inline in (lambda value: True, int, Type("count", is_positive), Env().type("count", is_positive), "int"):  # noqa: ARG005
        with pytest.raises(UsageError, match=r"declared|is a Type, not"):
            env.task(name="one", product=inline)(lambda: 3)
        with pytest.raises(UsageError, match=r"declared|is a Type, not"):
            env.task(name="one", options={"n": inline}, product=env.types["count"])(lambda n: n)
    assert list(env.types) == ["urls", "whole number", "count", "table", "vectors"]
    env.task(name="one", product=env.types["count"])(lambda: 3)


def test_types_have_no_default(env):
    """Options do."""
    assert "default" not in inspect.signature(Type).parameters
    with pytest.raises(UsageError, match="types have no defaults"):
        env.task(name="one", product=Option(env.types["count"], default=3))(lambda: 3)
    assert env.tasks["pca"].options["n"].default == 1


def test_options_and_products_share_their_types(env):
    """One type serves both."""
    urls = env.types["urls"]
    assert env.tasks["download"].options["urls"].type is urls is env.tasks["download"].product


def test_options_are_known_before_execution_and_products_are_not(env):
    """That is the difference: a run, a Lazy or another task's product is no value of an option."""
    assert env.invoke("pca", URLS).values == {"download.urls": ["north"], "pca.n": 1}
    size = task(len, runner=HERE)
    for product in (size("a"), Lazy.of(size, "a"), env.tasks["download"], env.invoke("download", URLS)):
        with pytest.raises(UsageError, match="the values of options are known before anything runs"):
            env.invoke("pca", URLS, n=product)
    with pytest.raises(UsageError, match="'rows' is a task: its product is made, not given"):
        env.invoke("pca", {**URLS, "pca.rows": np.ones((2, 2))})


def test_a_predicate_that_fails_ends_it_in_the_invocation_phase(env, ran):
    """Before any task's code has run; the predicate and the value are named."""
    with pytest.raises(UsageError, match=r"pca.n: -3 is no 'count': is_positive\(\) returned False"):
        env.invoke("pca", URLS, n=-3)
    with pytest.raises(UsageError, match=r"download.urls: 3 is no 'urls': is_list_of_text\(\) returned False"):
        env.invoke("pca", urls=3)
    assert ran == []


def test_the_parents_predicate_is_applied_first(env):
    """Then its own: no more of a type system than that."""
    with pytest.raises(
        UsageError, match=r"'3' is no 'count': is_whole\(\) of its parent 'whole number' returned False"
    ):
        env.invoke("pca", URLS, n="3")  # is_positive alone would raise TypeError


# ---------------------------------------------------------------------- options


def test_an_option_has_a_name_a_type_and_maybe_a_default(env):
    """The name is its own among the task's options."""
    number = env.types["whole number"]

    @env.task(options={"low": Option(number, default=0), "high": number}, product=env.types["whole number"])
    def width(low, high):
        return high - low

    low, high = width.options.values()
    assert (low.type, low.default, low.is_required, high.is_required) == (number, 0, False, True)
    assert env.invoke(width, high=5).run(runner=HERE) == 5


def test_a_default_is_a_value_and_not_a_closure(env):
    """What can be called is refused; a mutable default is nobody's to change; one that fails its predicate is refused."""
    urls, count = env.types["urls"], env.types["count"]
    with pytest.raises(UsageError, match="a default is a value, not something to call"):
        Option(urls, default=lambda: ["north"])
    with pytest.raises(UsageError, match="-1 is no 'count'"):
        Option(count, default=-1)
    mine = ["north"]
    grow = env.task(name="grow", options={"urls": Option(urls, default=mine)}, product=urls)(
        lambda urls: urls.append("south") or urls
    )
    mine.clear()
    assert env.invoke(grow).run(runner=HERE) == env.invoke(grow).run(runner=HERE) == ["north", "south"]


def test_options_are_not_nested(env):
    """One level, name by name: in a definition as in an invocation."""
    number = env.types["whole number"]
    with pytest.raises(UsageError, match="options are flat"):
        env.task(name="one", options={"solver": {"steps": Option(number, default=3)}}, product=number)(
            lambda solver: solver
        )
    with pytest.raises(UsageError, match="options are flat"):
        Option(number, default=Option(number, default=3))
    with pytest.raises(UsageError, match="options are flat: 'pca' is a task"):
        env.invoke("pca", {**URLS, "pca": {"n": 3}})


def test_a_variation_is_another_task_or_an_option(env):
    """The same function may be two tasks, each with options of its own."""
    rows, count, vectors = (env.types[name] for name in ("table", "count", "vectors"))
    assert rows is env.tasks["rows"].product
    env.task(name="sparse", requires=["rows"], options={"n": Option(count, default=2)}, product=vectors)(
        env.tasks["pca"]
    )
    assert len(env.invoke("sparse", URLS).run(runner=HERE)["components"]) == 2
    assert len(env.invoke("pca", URLS).run(runner=HERE)["components"]) == 1


def test_a_product_is_always_of_the_same_type(env):
    """Whatever the options and the dependencies are; what isn't fails that task, and not those that need it."""

    @env.task(requires=["rows"], options={"n": env.types["whole number"]}, product=env.types["count"])
    def size(rows, n):
        return rows.size if n else None

    @env.task(requires=["size"], product=env.types["count"])
    def half(size):
        return size // 2

    assert env.invoke(half, URLS, **{"size.n": 1}).run(runner=HERE) == 6
    outcomes = env.invoke(half, URLS, **{"size.n": 0}).outcomes("size", "half", runner=HERE)
    assert isinstance(outcomes["size"], TaskFailure)
    assert "its product (NoneType) is no 'count': is_whole()" in outcomes["size"].message
    assert isinstance(outcomes["half"], DependencyFailure)
    with pytest.raises(UsageError, match="its product is a 'count', and not the 'vectors' of this Env"):
        env.replace("pca", env.tasks["size"])


# ---------------------------------------------------------------------- invocation


def test_required_options_are_asked_for(env, ran):
    """What is missing anywhere in what the target needs is an error, before anything runs."""
    with pytest.raises(UsageError, match=r"download.urls is missing; it is a .urls. and has no default"):
        env.invoke("pca", n=3)
    assert ran == []


def test_all_values_are_checked(env):
    """Every option of every task that is needed; all that is wrong is told at once."""
    with pytest.raises(UsageError) as caught:
        env.invoke("pca", {"download.urls": [3], "n": 0, "m": 1})
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "download.urls: [3] is no 'urls': is_list_of_text() returned False",
        "pca.n: 0 is no 'count': is_positive() returned False",
        "'m': there is no such option; there is 'urls', 'n', 'download.urls', 'pca.n'",
    ]


# ---------------------------------------------------------------------- execution


def test_independent_tasks_run_at_once():
    """As far as what they need allows."""
    env = Env()
    whole = env.type("whole number", is_whole)
    barrier = threading.Barrier(3)  # each waits for the others: one after the other would never end
    for name in "abc":
        env.task(name=name, product=whole)(lambda: barrier.wait(PATIENCE) * 0)
    env.task(name="all", requires=list("abc"), product=whole)(lambda a, b, c: a + b + c)
    assert env.invoke("all").run(runner=ThreadTaskRun) == 0


class Table(list):
    """A product that can be referred to weakly."""


def test_big_products_are_freed_after_use():
    """When the last task that needs one has it."""
    env = Env()
    anything = env.type("anything", lambda _: True)
    made = []

    @env.task(product=anything)
    def big():
        table = Table([1, 2, 3])
        made.append(weakref.ref(table))
        return table

    env.task(name="size", requires=[big], product=anything)(lambda big: big.count(1) + 2)
    env.task(name="is_gone", requires=["size"], product=anything)(
        lambda size: (size, gc.collect() * 0, made[0]() is None)
    )
    assert env.invoke("is_gone").run(runner=HERE) == (3, 0, True)


def test_what_is_kept_need_not_run(env, ran):
    """Which tasks run depends on the cache: a second time none does, with another option what needs it does."""
    store = {}
    first = env.invoke("pca", URLS).run(runner=HERE, store=store)
    assert env.invoke("pca", URLS).run(runner=HERE, store=store) == first
    assert ran == ["download", "rows", "pca"]
    assert env.invoke("pca", URLS).plan(store) == []
    env.invoke("pca", URLS, n=2).run(runner=HERE, store=store)
    assert ran[3:] == ["pca"]
    assert [(one.task, one.why.partition(":")[0]) for one in env.invoke("pca", URLS, n=3).plan(store)] == [
        ("pca", "option changed")
    ]


def test_caching_goes_by_option_values_and_product_values(env, ran):
    """A product that comes out as before doesn't make what needs it run, whatever led to it."""
    PAGES["copy of north"] = PAGES["north"]
    store = {}
    env.invoke("pca", URLS).run(runner=HERE, store=store)
    ran.clear()
    env.invoke("pca", {"download.urls": ["copy of north"]}).run(runner=HERE, store=store)
    assert ran == ["download"]
    ran.clear()
    env.invoke("pca", {"download.urls": ["south"]}).run(runner=HERE, store=store)
    assert ran == ["download", "rows", "pca"]


def test_an_invocation_has_a_fingerprint(env):
    """Of the values of all options, and of the code; options are flat, so that they are easy to fingerprint."""
    one = env.invoke("pca", URLS).fingerprint()
    assert one == env.invoke("pca", URLS, n=1).fingerprint() == env.copy().invoke("pca", URLS).fingerprint()
    others = [
        env.invoke("pca", URLS, n=2),
        env.invoke("pca", {"download.urls": ["south"]}),
        env.invoke("rows", URLS),
        env.replace("rows", lambda download: np.ones((len(download), 3))).invoke("pca", URLS),
    ]
    assert len({one, *(other.fingerprint() for other in others)}) == 5


def test_nothing_is_written_unless_it_is_asked_for(env, ran, tmp_path, monkeypatch):
    """No store, no file; a store for one task keeps that task's products only."""
    monkeypatch.chdir(tmp_path)
    env.invoke("pca", URLS).run(runner=HERE)
    assert list(tmp_path.iterdir()) == []
    store = {}
    env.invoke("pca", URLS).run(runner=HERE, store={"rows": store})
    ran.clear()
    env.invoke("pca", URLS).run(runner=HERE, store={"rows": store})
    assert ran == ["pca"]  # what was downloaded is not needed to know that the rows are the same


def test_not_every_product_can_be_written(env, ran):
    """Such a one stays in memory; the others are written, and what needs it is found again by what it follows from."""
    anything = env.type("anything", lambda _: True)

    @env.task(requires=["rows"], product=anything)
    def solver(rows):
        ran.append("solver")
        return threading.Lock(), rows.sum()

    env.task(name="total", requires=["solver"], product=anything)(lambda solver: float(solver[1]))
    store = {}
    assert env.invoke("total", URLS).run(runner=HERE, store=store) == 60
    ran.clear()
    assert env.invoke("total", URLS).run(runner=HERE, store=store) == 60
    assert ran == []
    assert env.invoke(solver, URLS).run(runner=HERE, store=store)[1] == 60
    assert ran == ["solver"]


# ---------------------------------------------------------------------- graphs


def test_tasks_form_a_graph_that_can_be_asked(env):
    """A directed graph without cycles: what a task needs, what needs it, where it begins and ends."""
    graph = env.graph
    assert isinstance(graph, Graph)
    assert [node.target for node in graph.ancestors("pca")] == ["download", "rows"]
    assert [node.target for node in graph.descendants("download")] == ["rows", "pca"]
    assert [node.target for node in graph.roots()] == ["download"]
    assert graph["pca"].call.product is env.types["vectors"]


def test_an_invocation_forms_a_graph_of_its_own(env):
    """Of the target and what it needs, with values; what is defined later is no part of it, nor of its edges."""
    env.task(name="aside", product=env.types["urls"])(lambda: ["a"])
    invocation = env.invoke("rows", URLS)
    edges = [(node.target, node.requires) for node in invocation.graph.topological()]
    assert edges == [("download", ()), ("rows", ("download",))]
    env.task(name="later", requires=["rows"], product=env.types["table"])(lambda rows: rows)
    assert [(node.target, node.requires) for node in invocation.graph.topological()] == edges


def test_a_test_may_put_something_in_a_tasks_place(env, ran):
    """Very important, so it takes one line: a function with the parameters that it wants, while a block lasts."""
    with env.override("download", lambda: ["1,2\n2,4"]):
        assert env.invoke("rows").run(runner=HERE).tolist() == [[1, 2], [2, 4]]
    assert ran == ["rows"]
    assert env.invoke("rows", URLS).run(runner=HERE).shape == (4, 3)


def test_the_code_that_is_tested_need_not_know(env):
    """It invokes as it always does, with the values that it always gives."""

    def analyse():
        return env.invoke("pca", {"download.urls": ["north"]}, n=1).run(runner=HERE)

    with env.override("rows", lambda: np.eye(3)):
        assert len(analyse()["components"]) == 1


def test_a_whole_subgraph_may_be_replaced(env, ran):
    """In another env, by one function for its end or by several for its parts; the first env stays as it was."""
    by_one = env.replace("rows", lambda: np.eye(3))
    assert [node.target for node in by_one.invoke("pca").graph] == ["rows", "pca"]
    by_parts = env.replace(
        {"download": lambda urls: [f"{len(urls)},1\n2,2"], "rows": lambda download: np.eye(len(download))}
    )
    assert by_parts.invoke("rows", URLS).run(runner=HERE).shape == (1, 1)
    assert ran == []
    assert by_one.tasks["rows"].replaces is env.tasks["rows"]


# ---------------------------------------------------------------------- parallel execution


WITHOUT = """
import sys
from woflo import Node, task
from woflo.engine import Engine
from woflo.runners import SequentialTaskRun

engine = Engine([Node("a", task(lambda: 2)), Node("b", lambda a: a + 1, ["a"])], runner=SequentialTaskRun)
assert engine.orchestrate("b") and engine.value("b") == 3
above = {"env", "options", "store", "directory", "_build", "_shelf", "_fingerprint", "_code", "_codec", "_invocation"}
print(sorted(above & {name.removeprefix("woflo.") for name in sys.modules}))
"""


def test_the_engine_is_a_library_of_its_own():
    """It carries out a graph without env, options and store: none is loaded (import-linter holds that it imports none)."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_what_is_different_is_listed():
    """Each rule of the seed that is not kept, or comes later, stands in the living plan with its reason."""
    plan = (Path(woflo.__file__).parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    differences = plan.partition("## Deliberate differences from the seeds")[2].partition("\n## ")[0]
    for word in ("R data type", "container types", "already be defined", "Streaming", "in motion"):
        assert word in differences
