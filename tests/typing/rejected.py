"""What mypy and pyright must reject: each line that ends in a `reject` comment, and no other. Never run."""

from __future__ import annotations

from woflo import ref, task
from woflo.env import Env, Option
from woflo.futures import TaskExecutor


@task
def name() -> str:
    return "woflo"


@task
def load(n: int, *, scale: float = 1.0) -> list[float]:
    return [scale * i for i in range(n)]


@task(retries=2)
def total(rows: list[float]) -> float:
    return sum(rows)


@task
async def page(url: str) -> bytes:
    return url.encode()


class Model:
    @task
    def fit(self, rows: list[float]) -> int:
        return len(rows)


# The decorated signature is checked.
load()  # reject
load("3")  # reject
load(3, 1.0)  # reject
load(3, factor=2)  # reject
page(1)  # reject
Model().fit("rows")  # reject
load.fn("3")  # reject
load.local()  # reject
load.options(retries=1)("3")  # reject

# A run is not its value: ref() says that woflo will pass the value on.
total(load(3))  # reject
total(ref(name()))  # reject
wrong: str = load(3).get_result()  # reject
ref(3)  # reject

# A task has the options that it has.
load.options(retry=3)  # reject
load.options(retries="3")  # reject
task(name=3)(len)  # reject
task(retry_on=3)(len)  # reject
task(runner=3)(len)  # reject
task(3)  # reject

# Runs and tasks are not what they are not.
load(3).result()  # reject
load(3).wait("soon")  # reject

# A definition keeps its function's signature, and says neither where it runs nor what is kept.
env = Env()
rows = env.type("rows", callable)


@env.task(options={"n": Option(rows)}, product=rows)
def defined(n: int) -> list[int]:
    return [n]


defined("3")  # reject
env.task()(total)  # reject
env.task(product=int)(total)  # reject
env.task(product=rows, options={"n": int})(total)  # reject
env.task(product=rows, requires=3)(total)  # reject
env.task(product=rows, runner=None)(total)  # reject
env.task(product=rows, store=True)(total)  # reject
env.type("rows", int, "integer")  # reject
count: int = env.invoke(defined, n=3).run()  # reject
env.invoke(3)  # reject
env.invoke(defined).run(runner="thread")  # reject
env.invoke(defined).run(store=3)  # reject
env.override("defined", 3)  # reject
# An executor's calls have the arguments of the function, or of the task.
executor = TaskExecutor(2)
executor.submit(load, "3")  # reject
executor.submit(str.upper)  # reject
executor.submit(load, 3).result().upper()  # reject
TaskExecutor("2")  # reject
