"""Building products of steps: what runs, what doesn't, in which order, and what is held in memory."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import sys
import weakref
from types import ModuleType

import pytest

import woflo
from woflo._build import Build, Found, Product, Step
from woflo._rebuild import Decision, Facts, Recipe, traces
from woflo.events import NodeEnded, NodeReused, NodeStarted
from woflo.runners import ThreadTaskRun
from woflo.testing import capture_events


class Big:
    """A value that can be referred to weakly, and is equal to others of its name."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"Big({self.name})"


class MemoryShelf:
    """Traces and values in dicts; some names can't be kept."""

    def __init__(self, unkept=()):
        self.traces, self.last, self.values, self.unkept = {}, {}, {}, set(unkept)
        self.loaded, self.restored = [], []

    def load(self, digest):
        self.loaded.append(digest)
        return self.values[digest]

    def restore(self, step, name):
        self.restored.append((step.name, name))
        return True

    def find(self, step, recipe):
        known = self.traces.get(recipe.key)
        if known is None:
            return Found(traces(recipe, Facts(None, self.last.get(step.name))))
        _, digests = known
        products = [Product(one, load=self.load if one in self.values else None) for one in digests]
        facts = Facts(recipe, there=all(one.kept for one in products))
        return Found(traces(recipe, facts), products, 1.0)

    def keep(self, step, recipe, values, _seconds):
        products = []
        for name, value in zip(step.produces, values, strict=True):
            if name in self.unkept or not step.keep:
                products.append(Product(f"{recipe.key}/{name}", value))
            else:
                digest = f"={value!r}"
                self.values[digest] = value
                products.append(Product(digest, value, self.load))
        self.traces[recipe.key] = recipe, [one.digest for one in products]
        self.last[step.name] = recipe
        return products


class World:
    """A small world of steps whose code and options can be changed; it notes what runs."""

    def __init__(self, edges, unkept=(), **options):
        self.edges, self.unkept, self.ran = edges, unkept, []
        self.code = dict.fromkeys(edges, 1)
        self.shelf = MemoryShelf(unkept)
        self.volatile = options.pop("volatile", ())
        self.functions = options.pop("functions", {})
        self.told = []

    def step(self, name):
        def run(values):
            self.ran.append(name)
            if name in self.functions:
                return self.functions[name](**values)
            return f"{name}{self.code[name]}({','.join(map(str, values.values()))})"

        def recipe(inputs):
            code = str(self.code[name])
            return Recipe(f"{name}:{code}:{inputs}", code, {name: code}, {}, inputs)

        return Step(name, [name], self.edges[name], run, lambda value: [value], recipe, volatile=name in self.volatile)

    def build(self, shelf="own", **options):
        tell = lambda what, step, detail: self.told.append((what, step.name, detail))  # noqa: E731
        own = self.shelf if shelf == "own" else shelf
        return Build(map(self.step, self.edges), own, tell=tell, **options)

    def make(self, *targets, **options):
        self.ran.clear()
        self.told.clear()
        return {name: product.value for name, product in self.build(**options).make(targets).items()}


DIAMOND = {"raw": [], "left": ["raw"], "right": ["raw"], "top": ["left", "right"]}


def test_everything_runs_once_and_then_never_again():
    """A diamond's steps run once each, after what they need; a second build runs nothing."""
    world = World(DIAMOND)
    assert world.make("top") == {"top": "top1(left1(raw1()),right1(raw1()))"}
    assert sorted(world.ran) == sorted(DIAMOND)
    assert world.ran[0] == "raw"
    assert world.ran[-1] == "top"
    assert world.make("top") == {"top": "top1(left1(raw1()),right1(raw1()))"}
    assert world.ran == []


def test_a_finished_target_loads_itself_and_nothing_else():
    """What is up to date is loaded only if it is wanted."""
    world = World(DIAMOND)
    world.make("top")
    world.shelf.loaded.clear()
    world.make("top")
    assert len(world.shelf.loaded) == 1


def test_changed_code_runs_what_depends_on_it():
    """A step whose code changed runs, with all that its new product reaches, and nothing else."""
    world = World(DIAMOND)
    world.make("top")
    world.code["left"] = 2
    assert world.make("top") == {"top": "top1(left2(raw1()),right1(raw1()))"}
    assert world.ran == ["left", "top"]


def test_early_cutoff():
    """A step that runs again and makes the same as before doesn't make its users run."""
    world = World(DIAMOND, functions={"left": lambda **_: "always the same"})
    world.make("top")
    world.code["left"] = 2
    world.make("top")
    assert world.ran == ["left"]
    assert ("reused", "top") in [one[:2] for one in world.told]


def test_an_older_making_is_found_again():
    """Going back to earlier code reuses what it made then."""
    world = World(DIAMOND)
    first = world.make("top")
    world.code["left"] = 2
    world.make("top")
    world.code["left"] = 1
    assert world.make("top") == first
    assert world.ran == []


def test_a_live_object_is_made_only_where_it_is_needed():
    """A product that can't be kept runs again when something that runs wants it, and not else."""
    world = World({"solver": [], "log": ["solver"], "plot": ["log"]}, unkept=["solver"])
    world.make("plot")
    world.make("plot")
    assert world.ran == []
    world.code["plot"] = 2
    world.make("plot")
    assert world.ran == ["plot"]
    world.code["log"] = 2
    world.make("plot")
    assert world.ran == ["solver", "log", "plot"]
    world.make("solver")
    assert world.ran == ["solver"]


def test_a_live_object_that_turns_out_to_be_needed():
    """Whether a step runs may be known only when its inputs were made; then what it wants is made as well."""
    edges = {"seed": [], "solver": [], "log": ["seed", "solver"], "top": ["log"]}
    world = World(edges, unkept=["solver"])
    world.make("top")
    world.code["seed"] = 2  # "log" depends on a step that runs: what it will want isn't known yet
    assert world.make("top") == {"top": "top1(log1(seed2(),solver1()))"}
    assert sorted(world.ran) == ["log", "seed", "solver", "top"]
    world.functions["seed"] = lambda: "seed2()"  # other code, the same product: nothing wants the solver
    world.code["seed"] = 3
    world.make("top")
    assert world.ran == ["seed"]


def test_a_lost_value_is_made_again():
    """A value that is recorded and can't be loaded is made again, and only that."""
    world = World(DIAMOND)
    world.make("top")
    world.shelf.values.pop("='raw1()'")
    world.make("top")
    assert world.ran == []
    world.code["left"] = 2
    world.make("top")
    assert world.ran == ["raw", "left", "top"]


def test_a_value_that_fails_to_load():
    """A value that seemed to be there, and is not when it is read, is made again."""
    world = World(DIAMOND)
    first = world.make("top")

    class Torn(dict):
        def __getitem__(self, key):
            if key == "='top1(left1(raw1()),right1(raw1()))'" and not world.ran:
                raise KeyError(key)
            return super().__getitem__(key)

    world.shelf.values = Torn(world.shelf.values)
    assert world.make("top") == first
    assert world.ran == ["top"]


def test_forced_and_volatile():
    """A forced step runs, and so does a volatile one; what they make as before changes nothing further."""
    world = World(DIAMOND, volatile=["right"])
    world.make("top")
    world.make("top")
    assert world.ran == ["right"]
    world.make("top", force=["left"])
    assert sorted(world.ran) == ["left", "right"]
    assert ("reused", "top", Decision(True, "up to date")) in world.told


def test_given_products_hide_their_steps():
    """What is given isn't made, and what it is made of isn't looked at."""
    world = World(DIAMOND)
    assert world.make("top", given={"left": Product("x", "mine"), "right": Product("y", "own")}) == {
        "top": "top1(mine,own)"
    }
    assert world.ran == ["top"]
    assert world.make("left", given={"left": Product("x", "mine")}) == {"left": "mine"}


def test_without_a_shelf():
    """Without a shelf everything runs and no recipe is asked for."""
    world = World(DIAMOND)
    world.make("top", shelf=None)
    world.make("top", shelf=None)
    assert sorted(world.ran) == sorted(DIAMOND)
    step = Step("a", ["a"], [], lambda _values: 1, lambda value: [value], lambda _inputs: pytest.fail("asked"))
    assert Build([step]).make(["a"])["a"].value == 1


def test_an_input_that_is_named_twice():
    """A step may name an input twice; it gets it once."""
    world = World({"a": [], "b": ["a", "a"]})
    assert world.make("b") == {"b": "b1(a1())"}


def test_the_plan_starts_nothing():
    """The plan says what would run and why, in order, loads nothing and starts nothing."""
    world = World(DIAMOND)
    world.make("top")
    world.code["left"] = 2
    world.ran.clear()
    world.shelf.loaded.clear()
    plan = {one.step.name: one for one in world.build().plan(["top"])}
    assert list(plan) == ["raw", "left", "right", "top"]
    assert plan["left"].decision == Decision(False, "code changed", "left")
    assert plan["right"].decision == Decision(True, "up to date")
    assert plan["top"].decision is None
    assert [name for name, one in plan.items() if one.runs] == ["left", "top"]
    assert not plan["raw"].needed or plan["raw"].decision.reuse
    assert world.ran == world.shelf.loaded == []


def test_several_products():
    """A step with several products makes them all in one run; each goes to who wants it."""
    runs = []

    def both(_values):
        runs.append("both")
        return "ab"

    def key(name):
        return lambda inputs: Recipe(f"{name}{inputs}", "", {}, {}, inputs)

    shelf = MemoryShelf(unkept=["b"])
    steps = [
        Step("both", ["a", "b"], [], both, list, key("both")),
        Step("use", ["c"], ["a"], lambda values: values["a"] * 2, lambda value: [value], key("use")),
    ]
    assert Build(steps, shelf).make(["c"])["c"].value == "aa"
    products = Build(steps, shelf).make(["a", "c"])
    assert [products[name].value for name in ("a", "c")] == ["a", "aa"]
    assert runs == ["both"], "the product that is not kept isn't wanted"
    assert Build(steps, shelf).make(["b"])["b"].value == "b"
    assert runs == ["both", "both"]


def test_steps_may_run_elsewhere():
    """A step may return a run, or a coroutine: it is carried out in its place; independent ones at once."""

    async def later():
        await asyncio.sleep(0)
        return "later"

    double = woflo.task(lambda one: one * 2, name="double", runner=ThreadTaskRun)
    edges = {"one": [], "two": ["one"], "three": ["two"]}
    functions = {"one": later, "two": double, "three": lambda two: two + "!"}
    world = World(edges, functions=functions)
    assert world.make("three") == {"three": "laterlater!"}
    assert world.make("three") == {"three": "laterlater!"}
    assert world.ran == []


def test_under_a_running_loop():
    """A build may block a running loop's thread, as in a notebook; its steps are called in that very thread."""
    import threading

    async def later():
        return "later"

    seen = []
    world = World(
        {"one": [], "two": ["one"]},
        functions={"one": later, "two": lambda one: seen.append(threading.get_ident()) or one},
    )

    async def main():
        made = world.make("two")
        assert asyncio.get_running_loop() is not None
        await asyncio.sleep(0)
        return made

    assert asyncio.run(main()) == {"two": "later"}
    assert seen == [threading.get_ident()]


def test_a_failure_is_the_steps_own():
    """What a step raised reaches the caller, with a note that names the step; what came before it is kept."""
    world = World({"a": [], "b": ["a"], "c": ["b"]}, functions={"b": lambda **_: 1 / 0})
    with pytest.raises(ZeroDivisionError) as caught:
        world.make("c")
    assert caught.value.__notes__ == ["woflo: step 'b'"]
    assert [one[:2] for one in world.told] == [("started", "a"), ("made", "a"), ("started", "b"), ("failed", "b")]
    del world.functions["b"]
    world.make("c")
    assert world.ran == ["b", "c"]


def test_a_failing_run():
    """What a run elsewhere failed with reaches the caller."""
    fail = woflo.task(lambda: 1 / 0, name="fail", runner=ThreadTaskRun)
    world = World({"a": [], "b": ["a"]}, functions={"a": fail})
    with pytest.raises(ZeroDivisionError):
        world.make("b")
    assert ("failed", "a") in [one[:2] for one in world.told]


def test_keep_going():
    """With `keep_going` what doesn't depend on a failure is made all the same."""
    edges = {"bad": [], "good": [], "better": ["good"], "best": ["better"]}
    for keep_going in (False, True):
        world = World(edges, functions={"bad": lambda: 1 / 0})
        with pytest.raises(ZeroDivisionError):
            world.make("bad", "best", keep_going=keep_going)
        assert ("best" in world.ran) == keep_going


def test_ctrl_c_reaches_the_caller():
    """Ctrl-C in a step goes to the caller; what was made before is kept."""

    def interrupt(a):
        signal.raise_signal(signal.SIGINT)
        return a

    world = World({"a": [], "b": ["a"]}, functions={"b": interrupt})
    with pytest.raises(KeyboardInterrupt):
        world.make("b")
    del world.functions["b"]
    world.make("b")
    assert world.ran == ["b"]


def test_cycles_and_unknown_names():
    """Cycles and names that nothing produces are refused before anything runs, with close matches."""
    world = World({"a": ["c"], "b": ["a"], "c": ["b"], "d": ["d"]})
    with pytest.raises(woflo.CyclicWorkflowError):
        world.make("a")
    with pytest.raises(woflo.CyclicWorkflowError, match="d -> d"):
        World({"d": ["d"]}).make("d")
    with pytest.raises(woflo.UsageError, match="'temperature'"):
        World({"temperature": []}).make("tempreture")
    with pytest.raises(woflo.UsageError, match="report needs 'tabel'"):
        World({"table": [], "report": ["tabel"]}).make("report")
    assert world.ran == []


def test_one_producer_per_product():
    """Two steps of one name, or of one product, are refused."""
    one = Step("a", ["x"], [], lambda _: 1, lambda value: [value], lambda _: Recipe("", "", {}, {}, {}))
    other = Step("b", ["x"], [], lambda _: 1, lambda value: [value], lambda _: Recipe("", "", {}, {}, {}))
    with pytest.raises(woflo.UsageError, match="'x' is produced by a and by b"):
        Build([one, other])
    with pytest.raises(woflo.UsageError, match="called 'a'"):
        Build([one, one])


def test_values_are_let_go():
    """A product's value is let go when the last step that wants it has it, also one that can't be kept."""
    alive = []

    def make_big(name):
        def function(**_inputs):
            gc.collect()
            alive.append(sum(one() is not None for one in seen))
            big = Big(name)
            seen.append(weakref.ref(big))
            return big

        return function

    for unkept in ((), tuple("abcdef")):
        seen = []
        alive.clear()
        names = "abcdef"
        edges = {name: [names[n - 1]] if n else [] for n, name in enumerate(names)}
        world = World(edges, functions={name: make_big(name) for name in names})
        world.shelf.values = weakref.WeakValueDictionary()  # as a store would: it holds bytes, no objects
        world.shelf.unkept = set(unkept)
        world.make("f")
        assert max(alive) <= 2, (unkept, alive)


def test_while_another_thread_imports_asyncio(monkeypatch):
    """A module that is half imported by another thread is no event loop."""
    step = Step("one", ["one"], [], lambda _: 1, lambda value: [value], lambda _: Recipe("1", "", {}, {}, {}))
    monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))
    assert Build([step]).make(["one"])["one"].value == 1


def test_empty():
    """Nothing wanted is made at once."""
    assert World({}).make() == {}
    assert World(DIAMOND).build().plan([]) == []


def test_events():
    """Steps are told to observers as nodes that started, ended or were reused, each once."""
    world = World(DIAMOND)
    with capture_events(NodeStarted, NodeEnded, NodeReused) as events:
        world.make("top")
        world.code["top"] = 2
        world.make("top")
    seen = [(type(event).__name__, event.name) for event in events]
    assert len(seen) == len(set(seen)) + 2  # top started and ended twice
    assert seen.count(("NodeStarted", "top")) == seen.count(("NodeEnded", "top")) == 2
    assert ("NodeReused", "left") in seen


@pytest.mark.parametrize("seed", range(40))
def test_a_build_is_a_recomputation(seed):
    """However a random graph is edited, a build gives what a recomputation from nothing gives."""
    chance = random.Random(seed)
    names = [f"s{n}" for n in range(12)]
    edges = {name: chance.sample(names[:n], min(n, chance.randrange(4))) for n, name in enumerate(names)}
    world = World(edges, unkept=chance.sample(names, 4), volatile=chance.sample(names, 1))

    def shortened(name):
        return lambda **inputs: f"{name}{world.code[name] // 2}({len(inputs)})"  # so that some come out as before

    world.functions = {name: shortened(name) for name in chance.sample(names, 4)}
    for _ in range(12):
        for name in chance.sample(names, chance.randrange(3)):
            world.code[name] += 1
        if chance.random() < 0.3 and world.shelf.values:
            world.shelf.values.pop(chance.choice(sorted(world.shelf.values)))
        wanted = chance.sample(names, 3)
        made = world.make(*wanted)
        assert len(world.ran) == len(set(world.ran)), "a step runs at most once in a build"
        assert made == world.make(*wanted, shelf=None)


def test_a_ladder_is_planned_in_linear_time():
    """Planning looks at each step of a ladder of diamonds once."""
    depth = 3000
    edges = {"s0": []}
    for n in range(1, depth):
        edges[f"a{n}"] = [f"s{n - 1}"]
        edges[f"b{n}"] = [f"s{n - 1}"]
        edges[f"s{n}"] = [f"a{n}", f"b{n}"]
    looked = []
    steps = [
        Step(
            name,
            [name],
            needs,
            lambda _v: 0,
            lambda value: [value],
            lambda i, n=name: looked.append(n) or Recipe(n, "", {}, {}, i),
        )
        for name, needs in edges.items()
    ]

    class Full:
        def find(self, step, _recipe):
            return Found(Decision(True, "up to date"), [Product(step.name)], None)

    assert len(Build(steps, Full()).plan([f"s{depth - 1}"])) == len(edges)
    assert sorted(looked) == sorted(edges)
