"""The seed of workflows, sentence by sentence: `WorkflowRunner` behaves as its docstrings and its code say.

The configuration and the products are written to the seed's interface alone, as somebody else's would be. What differs on
purpose says "Difference", and stands in ARCHITECTURE.md.
"""

from __future__ import annotations

import inspect
import sys
import types

import pytest

from woflo import UsageError
from woflo.workflow import WorkflowRunner, workflow_step


class Config:
    """Some program's configuration, whose fields decide."""

    _identity_fields = ("resolution",)

    def __init__(self, resolution=8):
        self.resolution = resolution

    def cache_key(self, requires=None):
        return f"resolution {self.resolution}, from {sorted((requires or {}).items())}"


class Products:
    """Some program's products: what it calls persistable are texts and numbers."""

    def __init__(self):
        self.files, self.keys, self.inputs, self.loads = {}, {}, {}, []

    def save(self, name, obj, cache_key=None, inputs=None):
        if not isinstance(obj, (int, str)):
            raise TypeError(f"can't save a {type(obj).__name__}")
        self.files[name], self.keys[name], self.inputs[name] = obj, cache_key, inputs

    def load(self, name):
        self.loads.append(name)
        return self.files[name]

    def exists(self, name):
        return name in self.files

    def fresh(self, name, cache_key):
        return self.keys.get(name) == cache_key

    def remove(self, name):
        del self.files[name]
        self.keys.pop(name, None)


class Solver:
    """A live object: it isn't persistable."""


def convection(ran):
    """A workflow module: its functions note that they run."""
    module = types.ModuleType("convection")

    @workflow_step(produces=["mesh"])
    def make_mesh(config):
        ran.append("make_mesh")
        return f"mesh of {config.resolution}"

    @workflow_step(produces=["solver"], requires=["mesh"])
    def make_solver(config, mesh):
        ran.append("make_solver")
        solver = Solver()
        solver.mesh, solver.config = mesh, config
        return solver

    @workflow_step(produces=["temperature", "velocity"], requires=["solver"])
    def solve(solver):
        ran.append("solve")
        return {"temperature": f"temperature on {solver.mesh}", "velocity": f"velocity on {solver.mesh}"}

    @workflow_step(produces=["evolution_log"], requires=["temperature", "velocity"])
    def evolve(temperature, velocity, steps=10):
        ran.append("evolve")
        return f"{steps} steps of {temperature} and {velocity}"

    @workflow_step(requires=["evolution_log"])
    def show(evolution_log):
        ran.append("show")

    def helper():
        """No step."""

    for fn in (make_mesh, make_solver, solve, evolve, show, helper):
        setattr(module, fn.__name__, fn)
    module.constant = 3
    return module


LOG = "10 steps of temperature on mesh of 8 and velocity on mesh of 8"


@pytest.fixture
def ran():
    return []


@pytest.fixture
def module(ran):
    return convection(ran)


@pytest.fixture
def runner(module):
    return WorkflowRunner(module, Config(), Products())


@pytest.fixture
def events(runner):
    found = []
    runner.observe(lambda event, name: found.append((event, name)))
    return found


# ------------------------------------------------------------------ the module's docstring


def test_a_cached_object_is_returned(runner, ran):
    """(a) What was built earlier in this session is the very same object."""
    solver = runner.get("solver")
    assert runner.get("solver") is solver
    assert ran == ["make_mesh", "make_solver"]


def test_a_persisted_product_is_loaded(module, ran, runner):
    """(b) What was saved is loaded in another session, and nothing runs."""
    runner.get("evolution_log")
    ran.clear()
    again = WorkflowRunner(module, Config(), runner.products)
    assert again.get("evolution_log") == LOG
    assert ran == []
    assert again.products.loads == ["evolution_log"]


def test_the_step_that_produces_it_is_run(runner, ran):
    """(c) Else its step runs, and each of its requires is resolved through the same chain."""
    assert runner.get("evolution_log") == LOG
    assert ran == ["make_mesh", "make_solver", "solve", "evolve"]


def test_live_objects_live_in_memory_only(runner):
    """A product that can't be saved is in the cache, and what can be is on disk too."""
    runner.get("evolution_log")
    assert isinstance(runner.cache["solver"], Solver)
    assert sorted(runner.products.files) == ["evolution_log", "mesh", "temperature", "velocity"]


def test_parameters_are_matched_by_name(runner):
    """Each parameter is the config, or a name in `requires`."""
    solver = runner.get("solver")
    assert solver.config is runner.config
    assert solver.mesh == "mesh of 8"


@pytest.mark.parametrize("result", [{"two": 2, "one": 1}, (1, 2), [1, 2]])
def test_several_products(result):
    """A step that produces several returns a dict by product, or a tuple (or list) in their order."""

    @workflow_step(produces=["one", "two"])
    def both():
        return result

    runner = WorkflowRunner([both], Config())
    assert (runner.get("two"), runner.get("one")) == (2, 1)


@pytest.mark.parametrize("result", [{"one": 1}, (1, 2), None])
def test_a_single_product_is_bare(result):
    """A step that produces one product returns it bare, whatever it is."""

    @workflow_step(produces=["only"])
    def one():
        return result

    assert WorkflowRunner([one], Config()).get("only") is result


# ------------------------------------------------------------------ collecting


def test_other_decorators_serve():
    """Steps are known by three attributes, whoever has set them."""

    def half(config):
        return config.resolution / 2

    half._is_workflow_step, half.workflow_produces, half.workflow_requires = True, ["half"], []

    def quarter(half):
        return half / 2

    quarter._is_workflow_step, quarter.workflow_produces, quarter.workflow_requires = True, ["quarter"], ["half"]
    assert WorkflowRunner([half, quarter], Config()).get("quarter") == 2


def test_the_decorator_sets_the_attributes_and_leaves_the_function():
    """`@workflow_step` marks a function, which stays callable as it was."""

    def double(x):
        return 2 * x

    marked = workflow_step(produces=["a", "b"], requires=["x"])(double)
    assert marked is double
    assert (double._is_workflow_step, double.workflow_produces, double.workflow_requires) == (True, ["a", "b"], ["x"])
    assert double(4) == 8


def test_two_producers_are_a_value_error(module):
    """Two steps that produce one product are named."""

    @workflow_step(produces=["mesh"])
    def other_mesh():
        return ""

    module.other_mesh = other_mesh
    with pytest.raises(ValueError, match=r"'mesh'.*make_mesh.*other_mesh"):
        WorkflowRunner(module, Config())


def test_public_attributes(module):
    """`module`, `config`, `products`, and `cache`, which begins empty; products may be left out."""
    config = Config()
    runner = WorkflowRunner(module, config)
    assert (runner.module, runner.config, runner.products, runner.cache) == (module, config, None, {})


def test_without_products_they_live_in_memory(module, ran):
    """Without a persistence layer a second session builds everything again."""
    WorkflowRunner(module, Config()).get("mesh")
    WorkflowRunner(module, Config()).get("mesh")
    assert ran == ["make_mesh", "make_mesh"]


# ------------------------------------------------------------------ freshness


def test_a_mismatch_rebuilds(module, ran, runner):
    """A product is only loaded if its recorded key is what the config expects now."""
    runner.get("mesh")
    again = WorkflowRunner(module, Config(16), runner.products)
    assert again.get("mesh") == "mesh of 16"
    assert ran == ["make_mesh", "make_mesh"]


def test_upstream_invalidation_reaches_downstream(module, ran, runner):
    """The key of a product holds those of all that it requires, live objects included."""
    runner.get("evolution_log")
    ran.clear()
    again = WorkflowRunner(module, Config(16), runner.products)
    assert again.get("evolution_log") == LOG.replace("8", "16")
    assert ran == ["make_mesh", "make_solver", "solve", "evolve"]


def test_no_identity_falls_back_to_existence(module, ran):
    """Configs without identity use whatever exists; `save` then gets neither key nor inputs."""

    class Plain:
        resolution = 8

    class Undeclared(Config):
        def cache_key(self, requires=None):  # noqa: ARG002
            return None

    for config in (Plain(), Undeclared()):
        products = Products()
        WorkflowRunner(module, config, products).get("mesh")
        assert (products.keys, products.inputs) == ({"mesh": None}, {"mesh": None})
        products.files["mesh"] = "a mesh of yore"
        assert WorkflowRunner(module, config, products).get("mesh") == "a mesh of yore"
    assert ran == ["make_mesh", "make_mesh"]


def test_existence_is_not_enough_with_an_identity(module, runner):
    """What was saved without a key is rebuilt when the config has an identity."""
    runner.products.save("mesh", "a mesh of yore")
    assert runner.get("mesh") == "mesh of 8"


def test_a_load_that_fails_falls_through_to_a_rebuild(module, ran, runner):
    """What can't be loaded is built."""
    runner.get("evolution_log")
    ran.clear()
    again = WorkflowRunner(module, Config(), runner.products)

    def load(name):
        raise OSError("the mesh argument is missing")

    again.products.load = load
    assert again.get("evolution_log") == LOG
    assert ran[-1] == "evolve"


def test_external_products(ran):
    """A product that no step produces and that was saved by hand is loaded, and counts as it is."""
    products = Products()
    products.save("observations", "rain")

    @workflow_step(produces=["forecast"], requires=["observations"])
    def forecast(observations):
        ran.append("forecast")
        return f"more {observations}"

    runner = WorkflowRunner([forecast], Config(), products)
    assert runner.get("observations") == "rain"
    assert runner.get("forecast") == "more rain"
    assert WorkflowRunner([forecast], Config(), products).get("forecast") == "more rain"
    assert ran == ["forecast"]


def test_the_manifest_can_be_audited(runner):
    """`save` is told the config's identity fields, and what each required product's digest is; live objects have one too."""
    runner.get("velocity")
    inputs = runner.products.inputs
    assert inputs["mesh"] == {"config": {"resolution": 8}, "requires": {}}
    assert list(inputs["temperature"]["requires"]) == ["solver"]
    assert inputs["temperature"]["requires"]["solver"]
    assert inputs["temperature"]["config"] == {"resolution": 8}


# ------------------------------------------------------------------ building


def test_build_is_a_synonym_of_get():
    """Handy in notebooks."""
    assert WorkflowRunner.build is WorkflowRunner.get


def test_build_all(runner, ran):
    """Every leaf is built, and the sorted list of their names returned."""

    @workflow_step(produces=["area"], requires=["mesh"])
    def area(mesh):
        ran.append("area")
        return len(mesh)

    runner.module.area = area
    runner = WorkflowRunner(runner.module, Config())
    assert runner.build_all() == ["area", "evolution_log"]
    assert set(runner.cache) == {"mesh", "solver", "temperature", "velocity", "evolution_log", "area"}
    assert sorted(ran) == ["area", "evolve", "make_mesh", "make_solver", "solve"]


def test_difference_a_step_without_products_makes_no_leaf_less(runner):
    """Difference: what only a step without products requires was no leaf, and `build_all` never built it."""
    assert runner.build_all() == ["evolution_log"]


def test_an_unknown_product_is_a_key_error(runner):
    """What is available is said."""
    with pytest.raises(KeyError, match=r"pressure.*evolution_log") as caught:
        runner.get("pressure")
    assert isinstance(caught.value, UsageError)


def test_defaults_are_the_functions_own(runner):
    """A parameter that is neither config nor product keeps its default."""
    assert runner.get("evolution_log").startswith("10 steps")


def test_difference_an_unbound_parameter_is_known_before():
    """Difference: Python's TypeError came when the step was called; ours names step and parameter at once."""

    @workflow_step(produces=["a"])
    def step(config, tempreture):
        return 0

    with pytest.raises(TypeError, match=r"step.*'tempreture'"):
        WorkflowRunner([step], Config())


def test_difference_a_parameter_named_like_a_product_counts_as_required(ran):
    """Difference: it had the product's value only if that happened to be in the cache; now always."""

    @workflow_step(produces=["mesh"])
    def make_mesh():
        return "mesh"

    @workflow_step(produces=["area"])
    def area(mesh):
        return f"area of {mesh}"

    @workflow_step(produces=["volume"])
    def volume(mesh=None):
        return f"volume of {mesh}"

    runner = WorkflowRunner([make_mesh, area, volume], Config())
    assert runner.get("area") == "area of mesh"
    assert WorkflowRunner([make_mesh, volume], Config()).get("volume") == "volume of mesh"
    assert runner.what_invalidates("mesh") == {"area", "volume"}


def test_as_many_values_as_products():
    """Else it is a ValueError that names the step and both numbers."""

    @workflow_step(produces=["a", "b"])
    def both():
        return 1, 2, 3

    with pytest.raises(ValueError, match=r"both.*2 products.*3 values"):
        WorkflowRunner([both], Config()).get("a")


def test_neither_dict_nor_tuple_for_several():
    """A TypeError that names the step, its products and what came."""

    @workflow_step(produces=["a", "b"])
    def both():
        return "ab"

    with pytest.raises(TypeError, match=r"both.*'a', 'b'.*str"):
        WorkflowRunner([both], Config()).get("a")


# ------------------------------------------------------------------ invalidating


def test_invalidate_drops_it_everywhere(runner):
    """From the cache, and on disk if it is there."""
    runner.get("mesh")
    runner.invalidate("mesh")
    assert runner.status("mesh") == "missing"
    assert not runner.products.exists("mesh")
    runner.invalidate("mesh")


def test_invalidate_leaves_what_is_downstream(runner, ran):
    """What depends on it is the caller's business."""
    log = runner.get("evolution_log")
    runner.invalidate("mesh")
    ran.clear()
    assert runner.get("evolution_log") is log
    assert ran == []


def test_rebuild(runner, ran):
    """Invalidate, and build that single product."""
    runner.get("evolution_log")
    ran.clear()
    assert runner.rebuild("temperature") == "temperature on mesh of 8"
    assert ran == ["solve"]
    assert runner.status("evolution_log") == "cached"


def test_status(module, runner):
    """One of cached, on_disk and missing."""
    assert runner.status("mesh") == "missing"
    runner.get("mesh")
    assert runner.status("mesh") == "cached"
    assert WorkflowRunner(module, Config(), runner.products).status("mesh") == "on_disk"
    assert runner.status("no such thing") == "missing"


# ------------------------------------------------------------------ observing


def test_events(module, runner, events):
    """`cached`, `loaded`, `building` and `built` are told with the product's name."""
    runner.get("mesh")
    runner.get("mesh")
    assert events == [("building", "mesh"), ("built", "mesh"), ("cached", "mesh")]
    again = WorkflowRunner(module, Config(), runner.products)
    again.observe(lambda event, name: events.append((event, name)))
    events.clear()
    again.get("mesh")
    assert events == [("loaded", "mesh")]


def test_an_input_that_was_there_is_told_as_cached(runner, events):
    """A step's input that comes from the cache is told, as `get` tells it."""
    runner.get("mesh")
    events.clear()
    runner.get("solver")
    assert events == [("cached", "mesh"), ("building", "solver"), ("built", "solver")]


def test_built_means_cached_and_saved(runner):
    """When `built` is told, the product is in the cache, and saved if it can be."""
    seen = []
    runner.observe(
        lambda event, name: (
            seen.append((name, name in runner.cache, runner.products.exists(name))) if event == "built" else None
        )
    )
    runner.get("solver")
    assert seen == [("mesh", True, True), ("solver", True, False)]


def test_difference_building_is_told_when_the_inputs_are_there(runner, events):
    """Difference: it was told before the inputs were built."""
    runner.get("solver")
    assert events == [("building", "mesh"), ("built", "mesh"), ("building", "solver"), ("built", "solver")]


def test_difference_each_product_of_a_step_is_told(runner, events):
    """Difference: only the one that was asked for was told."""
    runner.get("solver")
    events.clear()
    runner.get("velocity")
    assert [one for one in events if one[0] == "built"] == [("built", "temperature"), ("built", "velocity")]


def test_a_raising_callback_does_not_break_the_runner(runner, events):
    """It stays registered, and so do the others."""
    calls = []

    def broken(event, name):
        calls.append(event)
        raise RuntimeError("a widget is gone")

    runner.observe(broken)
    assert runner.get("mesh") == "mesh of 8"
    assert calls == ["building", "built"]


# ------------------------------------------------------------------ looking


def test_diagram(runner):
    """DOT source, nodes coloured by status, in the given direction (LR if none is)."""
    before = runner.diagram()
    runner.get("mesh")
    after = runner.diagram(rankdir="TB")
    assert before.startswith("digraph")
    assert "rankdir=LR" in before
    assert "rankdir=LR" not in after
    assert [line for line in before.splitlines() if '"mesh"' in line] != [
        line for line in after.splitlines() if '"mesh"' in line
    ]
    assert inspect.signature(runner.diagram).parameters["rankdir"].kind is inspect.Parameter.KEYWORD_ONLY


def test_what_invalidates(runner):
    """Every product that needs it, directly or not, and not itself."""
    assert runner.what_invalidates("temperature") == {"evolution_log"}
    assert runner.what_invalidates("mesh") == {"solver", "temperature", "velocity", "evolution_log"}
    assert runner.what_invalidates("evolution_log") == set()


def test_dag_as_text(runner, capsys, monkeypatch):
    """Steps, what they produce and require, and status; a step without a product says so."""
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    runner.get("mesh")
    runner.dag()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["convection", "—", "runner", "status"]
    assert lines[1] == ["Step", "Produces", "Requires", "Status"]
    assert ["make_mesh", "mesh", "—", "cached"] in lines
    assert ["solve", "velocity", "solver", "missing"] in lines
    assert ["evolve", "evolution_log", "temperature,", "velocity", "missing"] in lines
    assert ["show", "—", "evolution_log", "(no", "product)"] in lines
    assert [line[0] for line in lines[3:]] == sorted(line[0] for line in lines[3:])


def test_dag_in_a_notebook(runner, capsys, monkeypatch):
    """In Jupyter it is displayed as an HTML table."""
    shown = []
    display = types.ModuleType("IPython.display")
    display.HTML, display.display = (lambda html: html), shown.append
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = object
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    runner.dag()
    (html,) = shown
    assert "<table" in html
    assert "convection — runner status" in html
    assert all(name in html for name in ("make_mesh", "evolution_log", "missing", "(no product)"))
    assert capsys.readouterr().out == ""
