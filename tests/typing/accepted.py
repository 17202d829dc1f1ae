"""What mypy and pyright must accept, with exactly these types. Checked by tests/test_typing.py, never run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, assert_type

import woflo
from woflo import BaseTaskRun, Failure, Graph, Node, Ok, Result, TaskFailure, TaskRun, action, ref, task
from woflo.action import Action
from woflo.engine import Engine
from woflo.env import Definition, Env, Invocation, Option, PlannedTask, Type
from woflo.futures import TaskExecutor, TaskFuture
from woflo.lazy import Lazy, LazyDB
from woflo.runners import AsyncTaskRun, ExecutorTaskRun, MultiprocessTaskRun, SequentialTaskRun, ThreadTaskRun
from woflo.runners.multiprocess import ForkProcess, SpawnProcess


@task
def load(n: int, *, scale: float = 1.0) -> list[float]:
    return [scale * i for i in range(n)]


@task(name="sum", retries=2, retry_sleep_time=0.5, retry_on=(OSError, ValueError), timeout=10)
def total(rows: list[float]) -> float:
    return sum(rows)


@task
async def page(url: str) -> bytes:
    return url.encode()


@task(runner=ThreadTaskRun)
async def page_in_thread(url: str) -> bytes:
    return url.encode()


class Model:
    def __init__(self, depth: int) -> None:
        self.depth = depth

    @task
    def fit(self, rows: list[float]) -> int:
        return self.depth * len(rows)


def volume(x: int, y: int, z: int) -> int:
    return x * y * z


# The run has the function's return type, the call its parameters.
run = load(3, scale=2.0)
assert_type(run, TaskRun[list[float]])
assert_type(load(n=3).get_result(), list[float])
assert_type(total(ref(run)), TaskRun[float])
assert_type(total(ref(load(3))).get_result(), float)

# The plain function is still there, with its signature.
assert_type(load.fn(3, scale=2.0), list[float])
assert_type(load.local(3, scale=2.0), list[float])

# Options change the policy and never the signature.
assert_type(load.options(retries=3, timeout=1.5)(3, scale=1.0), TaskRun[list[float]])
assert_type(load.options(runner=SequentialTaskRun).local(3), list[float])

# A coroutine function's run has the type that awaiting it gives.
assert_type(page("a"), TaskRun[bytes])
assert_type(page("a").get_result(), bytes)
assert_type(page_in_thread("a").get_result(), bytes)


async def awaits() -> None:
    assert_type(await page("a"), bytes)
    assert_type(await load(3), list[float])


# A method is called without its self.
assert_type(Model(2).fit([1.0]), TaskRun[int])
assert_type(Model(2).fit([1.0]).get_result(), int)

# functools.partial can be decorated; a lambda too.
assert_type(task(functools.partial(volume, 2, 3))(4).get_result(), int)
square: Callable[[int], int] = lambda x: x * x  # noqa: E731
assert_type(task(square)(3).get_result(), int)

# ref is the identity.
assert_type(ref(load(3)), list[float])

# Results can be matched.
match run.outcome():
    case Ok(value):
        assert_type(value, list[float])
    case TaskFailure() as failed:
        assert_type(failed.attempt, int)
    case failure:
        assert_type(failure.task, str)
if outcome := run.outcome():
    assert_type(outcome.value, list[float])
else:
    assert_type(outcome, Failure)

# Asking and waiting.
assert_type(run.wait(timeout=1), bool)
assert_type(run.is_running(), bool)
assert_type(run.exception(), BaseException | None)
assert_type(woflo.wait([run], timeout=1), bool)
assert_type(woflo.gather(load(1), load(2), timeout=5), list[list[float]])
for ended in woflo.as_completed([load(1), load(2)]):
    assert_type(ended, TaskRun[list[float]])
run.add_done_callback(lambda done: print(done.get_result()))
run.stop(grace=0.5)

# Runners are classes; a configured one is a class too.
task(runner=MultiprocessTaskRun.using(process_type=SpawnProcess, max_running=8))(volume)(1, 2, 3).wait()
task(runner=AsyncTaskRun)(volume)(1, 2, 3).wait()
MultiprocessTaskRun.process_type = ForkProcess
with woflo.use(SequentialTaskRun):
    volume(1, 2, 3)
with woflo.observe(print):
    pass


class MyTaskRun(BaseTaskRun[object]):
    def start(self) -> None:
        self.finish(self.call())

    def stop(self, grace: float = 1.0, wait: bool = True) -> None:
        pass


assert_type(load.options(runner=MyTaskRun)(3), TaskRun[list[float]])


# ---------------------------------------------------------------------- graphs and their faces

names: list[str] = ["rows", "lines"]


class Built(Lazy[Path, int]):
    async def run(self, *, db: LazyDB[Path, Built]) -> int:
        return len(db.tasks)


class Plain(Lazy[str, int]):
    async def run(self) -> int:
        return 1


def watch(event: object) -> None: ...


async def graphs(db: LazyDB[str, Plain]) -> None:
    graph = Graph([Node(names, load), Node("total", total, names, after=set(names), seconds=0.5)])
    assert_type([node.target for node in graph.add(Node("page", page)).topological()], list[Hashable])
    engine = Engine(graph, runner=ThreadTaskRun, window=2, volatile=names, observers=[watch])
    assert_type(engine.orchestrate("total", timeout=10), bool)
    assert_type(await engine.co_orchestrate(), bool)
    assert_type(Lazy.of(total, Lazy.of(load, 3)).compute(), float)
    assert_type(await Lazy.of(page, "url"), bytes)
    assert_type(db.index["x"].result, int)
    if result := await db.run("x"):
        result.value  # noqa: B018
    first, last = Action(graphs(db)), Action(functools.partial(load, 3), runner=ThreadTaskRun)
    last.requires(first)
    assert_type(action.Engine(first, last, observers=[watch]).orchestrate(timeout=1.0), bool)


# ---------------------------------------------------------------------- typed definitions

env = Env()
integer = env.type("integer", lambda value: isinstance(value, int))
assert_type(env.type("count", lambda value: bool(value > 0), integer), Type)
assert_type(env.type(integer), Type)


@env.type("rows", parent=integer)
def rows(value: object) -> bool:
    return isinstance(value, list)


assert_type(rows, Type)


@env.task(options={"n": Option(integer, default=3), "scale": integer}, product=rows)
def defined(n: int, scale: float) -> list[float]:
    return [scale] * n


@env.task(requires=[defined, "other"], product=rows)
async def later(defined: list[float]) -> float:
    return sum(defined)


assert_type(defined(3, 1.0), list[float])
assert_type(defined.fn(n=3, scale=1.0), list[float])
assert_type(env.task(product=rows)(volume)(1, 2, 3), int)
assert_type(env.task(product=rows)(load)(3), TaskRun[list[float]])
assert_type(env.invoke(defined, {"defined.n": 3}, scale=2), Invocation[list[float]])
assert_type(env.invoke(later).run(), float)
of_a_task = env.task(product=rows)(load)
assert_type(env.invoke(of_a_task).run(runner=ThreadTaskRun, store=True), list[float])
invocation = env.invoke("defined", n=3)
assert_type(invocation.run(runner={"defined": AsyncTaskRun}, store={"defined": Path("kept")}, force=["defined"]), Any)
assert_type(invocation.outcomes("defined", store={}), dict[str, Result[Any]])
assert_type(invocation.plan("kept"), list[PlannedTask])
assert_type(invocation.fingerprint(), str)
with env.override("defined", lambda n: [n]), env.override({"later": lambda: 3, defined: load}):
    assert_type(env.replace({"defined": defined}).replace(later, lambda defined: [defined]), Env)
a_definition: Definition[..., list[float], Any] = defined
assert_type(env.graph["defined"].requires, tuple[Hashable, ...])
# ---------------------------------------------------------------------- executors

with TaskExecutor(2, runner=ThreadTaskRun) as executor:
    assert_type(executor.submit(load, 3), TaskFuture[list[float]])
    assert_type(executor.submit(load, 3).result(timeout=1.0), list[float])
    executor.submit(page, "url").result()  # bytes for pyright; mypy sees an overload too many, and says Any
    assert_type(executor.submit(pow, 2, 3).exception(), BaseException | None)
    assert_type(executor.submit(str.upper, "a"), TaskFuture[str])
    assert_type(executor.map(load, [1, 2], chunksize=2), Iterator[list[float]])
    assert_type(executor.map(str.upper, ["a"]), Iterator[str])
    standard: Executor = executor
    over_it = load.options(runner=ExecutorTaskRun.using(standard))
    assert_type(over_it(3), TaskRun[list[float]])
