"""Spawned workers: what reaches them, by name or by value, from which kind of program."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import multiprocessing.resource_tracker
import multiprocessing.sharedctypes
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import multiprocess
import multiprocess.context
import multiprocess.resource_tracker
import multiprocess.sharedctypes
import pytest

import woflo
from woflo import UsageError, task
from woflo.runners.multiprocess import ForkProcess, MultiprocessTaskRun, SpawnProcess
from woflo.testing import PATIENCE, Flag, Ledger

SPAWN = MultiprocessTaskRun.using(process_type=SpawnProcess)
FORK = MultiprocessTaskRun.using(process_type=ForkProcess)
posix = pytest.mark.skipif(sys.platform == "win32", reason="fork needs POSIX")

# What a worker knows of its parent: a forked one has inherited its modules.
INHERITED = "'pytest' in __import__('sys').modules"


def get(run):
    return run.get_result(timeout=PATIENCE)


def on_spawn(fn, *args, **kwargs):
    return get(task(fn, runner=SPAWN)(*args, **kwargs))


@task(runner=SPAWN)
def by_name(n):
    return os.getpid(), n


def give(value):
    return value


@dataclass
class Point:
    x: int


class OwnError(Exception):
    def __init__(self, code, why):
        super().__init__(code, why)


def own_error():
    raise OwnError(3, "why")


# By name or by value.


@pytest.mark.parametrize("how", ["use", "options"])
def test_a_task_of_a_module_goes_by_name(tmp_path, monkeypatch, how):
    """The worker imports the module of a task and takes the function from there."""
    ledger = Ledger(tmp_path / "ledger")
    (tmp_path / "imported_shop.py").write_text(
        "import os, woflo\n"
        "from woflo.testing import Ledger\n"
        f"Ledger({str(tmp_path / 'ledger')!r}).add(str(os.getpid()))\n"
        "@woflo.task\n"
        "def double(x):\n"
        "    return os.getpid(), 2 * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shop = importlib.import_module("imported_shop")
    try:
        with woflo.use(SPAWN):
            pid, doubled = get(shop.double(4) if how == "use" else shop.double.options(timeout=PATIENCE)(4))
    finally:
        del sys.modules["imported_shop"]
    assert doubled == 8
    assert ledger.lines() == [str(os.getpid()), str(pid)]


def test_a_decorated_function_of_this_module():
    """A decorated function is found in its module and unwrapped."""
    pid, n = get(by_name(5))
    assert (pid != os.getpid(), n) == (True, 5)


def test_lambdas():
    """A lambda travels by value."""
    assert on_spawn(lambda x: x + 1, 1) == 2


def test_closures():
    """A closure travels with what it holds, as it is at the call."""
    factor = 3

    def scale(x):
        return factor * x

    first = task(scale, runner=SPAWN)(1)
    factor = 5
    second = task(scale, runner=SPAWN)(1)
    assert (get(first), get(second)) == (3, 5)


def test_local_functions_classes_and_partials():
    """Functions, methods and partials that exist inside a function only travel too."""

    class Local:
        def __init__(self, n):
            self.n = n

        def plus(self, m):
            return self.n + m

        def __call__(self, m):
            return self.n - m

    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert on_spawn(Local(2).plus, 3) == 5
    assert get(task(Local(2), name="minus", runner=SPAWN)(3)) == -1
    assert on_spawn(fib, 10) == 55
    assert on_spawn(functools.partial(lambda a, b: a - b, 10), 4) == 6


def test_arguments_and_results_by_value():
    """Lambdas and local classes can be arguments and results."""

    class Local:
        def __init__(self, n):
            self.n = n

    assert on_spawn(lambda f, x: f(x), lambda x: 2 * x, 4) == 8
    assert on_spawn(lambda n: lambda: n + 1, 4)() == 5
    result = on_spawn(lambda: Local(3))
    assert isinstance(result, Local)
    assert result.n == 3


def test_coroutine_functions():
    """A coroutine function runs to its end in the worker."""

    async def arrive(x):
        return os.getpid(), x

    pid, x = on_spawn(arrive, 4)
    assert (pid != os.getpid(), x) == (True, 4)


def test_classes_come_back_as_themselves():
    """Objects and exceptions of importable classes are instances of the caller's classes."""
    assert on_spawn(give, Point(3)) == Point(3)
    with pytest.raises(OwnError) as caught:
        on_spawn(own_error)
    assert caught.value.args == (3, "why")


def test_arguments_are_pickled_at_the_call(tmp_path):
    """A spawn run sees its arguments as they were at the call, though it starts later."""
    release = Flag(tmp_path / "release")
    runner = SPAWN.using(max_running=1)
    first = task(release.wait, name="first", runner=runner)()
    rows = [1]
    run = task(give, runner=runner)(rows)
    assert run.state == "pending"
    rows.append(2)
    release.set()
    assert get(run) == [1]
    assert first.wait(timeout=PATIENCE)


def test_the_worker_has_the_same_surroundings():
    """Directory, arguments, path and environment are the parent's."""
    os.environ["WOFLO_TEST_MARK"] = "set late"
    try:
        found = on_spawn(lambda: (str(Path.cwd()), sys.argv, sys.path, os.environ["WOFLO_TEST_MARK"]))
    finally:
        del os.environ["WOFLO_TEST_MARK"]
    assert found[:2] == (str(Path.cwd()), sys.argv)
    assert [p for p in sys.path if p and p not in found[2]] == []
    assert found[3] == "set late"


def test_what_cannot_be_pickled_is_said_at_the_call():
    """A call that can't be sent raises UsageError before any process is started."""
    with pytest.raises(UsageError) as caught:
        task(give, runner=SPAWN)([threading.Lock()])
    assert "lock" in str(caught.value)
    assert "give" in str(caught.value)


def test_nested_runs():
    """A task in a spawned worker can start runs and wait for them, forked and spawned."""

    def outer(runners):
        return [task(give, runner=runner)(7).get_result() for runner in runners]

    assert on_spawn(outer, [MultiprocessTaskRun, SPAWN]) == [7, 7]


# Which way of starting.


def test_process_types():
    """process_type may be ours, multiprocess' or multiprocessing's."""
    look = task(eval)
    types = [SpawnProcess, multiprocess.context.SpawnProcess, multiprocessing.context.SpawnProcess]
    for kind in types:
        assert get(look.options(runner=MultiprocessTaskRun.using(process_type=kind))(INHERITED)) is False, kind


@posix
def test_fork_process_types():
    """The same for fork."""
    look = task(eval)
    for kind in (ForkProcess, multiprocess.context.ForkProcess, multiprocessing.context.ForkProcess):
        assert get(look.options(runner=MultiprocessTaskRun.using(process_type=kind))(INHERITED)) is True, kind


@posix
def test_setting_the_class_attribute(monkeypatch):
    """Setting process_type is seen by each later call of tasks with that class, not by a using() class."""
    look, look_configured = task(eval, runner=MultiprocessTaskRun), task(eval, runner=FORK)
    assert get(look(INHERITED)) is True
    with monkeypatch.context() as patch:
        patch.setattr(MultiprocessTaskRun, "process_type", SpawnProcess)
        assert get(look(INHERITED)) is False
        assert get(task(eval)(INHERITED)) is False
        assert get(look_configured(INHERITED)) is True
    assert get(look(INHERITED)) is True


def test_a_bad_class_attribute(monkeypatch):
    """A process_type that is none is refused at the call."""
    monkeypatch.setattr(MultiprocessTaskRun, "process_type", int)
    with pytest.raises(UsageError, match="process_type"):
        task(give, runner=MultiprocessTaskRun)(1)


# Programs.

PROGRAM = """
import os, sys
from dataclasses import dataclass
from pathlib import Path
import woflo
from woflo.runners import MultiprocessTaskRun
from woflo.runners.multiprocess import SpawnProcess

MultiprocessTaskRun.process_type = SpawnProcess
print("main runs")
factor = 2
table = {"a": 1}

@dataclass
class Point:
    x: int
    def moved(self):
        return Point(self.x + factor)

class OwnError(Exception):
    def __init__(self, code, why):
        super().__init__(code)
        self.why = why

def helper(x):
    return factor * x

@woflo.task
def scale(x):
    return helper(x), table, os.getpid() != parent

@woflo.task
def move(point):
    return point.moved()

@woflo.task
def fail():
    raise OwnError(3, "because")

@woflo.task
def fib(n):
    return n if n < 2 else sum(run.get_result() for run in [fib(n - 1), fib(n - 2)])

parent = os.getpid()
first = scale(1)
factor = 10
table["b"] = 2
second = scale(1)
print(first.get_result())
print(second.get_result())
moved = move(Point(1)).get_result()
print(moved, isinstance(moved, Point))
try:
    fail().get_result()
except OwnError as error:
    print("caught", error.args, error.why)
print(fib(3).get_result())
print((lambda f: f(2).get_result())(woflo.task(lambda x: x * factor)))
"""

TOLD = [
    "main runs",
    "(2, {'a': 1}, True)",
    "(10, {'a': 1, 'b': 2}, True)",
    "Point(x=11) True",
    "caught (3,) because",
    "2",
    "20",
]


def program(arguments, tmp_path, stdin=""):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WOFLO")}
    return subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        env=clean,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("kind", ["script", "script without .py", "stdin", "-c", "-m"])
def test_main_travels_by_value(kind, tmp_path):
    """Functions, classes and globals of __main__ travel as they are at the call; main never runs twice.

    No kind of program needs an `if __name__` guard.
    """
    stdin = PROGRAM if kind == "stdin" else ""
    path = tmp_path / ("program" if kind == "script without .py" else "a_program.py")
    path.write_text(PROGRAM)
    arguments = {"stdin": ["-"], "-c": ["-c", PROGRAM], "-m": ["-m", "a_program"]}.get(kind, [str(path)])
    done = program(arguments, tmp_path, stdin)
    assert (done.stdout.splitlines(), done.returncode) == (TOLD, 0), done.stderr
    assert "could not begin" not in done.stderr


def test_an_imported_main_is_a_module(tmp_path):
    """A program that imports its own tasks from a module sends them by name."""
    (tmp_path / "jobs.py").write_text("import woflo\n@woflo.task\ndef double(x):\n    return 2 * x\n")
    code = "import jobs\nprint(jobs.double(4).get_result())"
    clean = program(["-c", f"import os\nos.environ['WOFLO_RUNNER'] = 'spawn'\n{code}"], tmp_path)
    assert (clean.stdout, clean.stderr) == ("8\n", "")


def test_modules_that_cannot_be_imported():
    """A function of a module that was made at run time travels by value."""
    import types

    module = types.ModuleType("made_at_run_time")
    exec("factor = 4\ndef scale(x):\n    return factor * x\n", module.__dict__)
    sys.modules["made_at_run_time"] = module
    try:
        assert on_spawn(module.scale, 2) == 8
    finally:
        del sys.modules["made_at_run_time"]


# What multiprocess and multiprocessing share between processes.


@pytest.fixture(scope="module", autouse=True)
def standing_things_of_multiprocessing():
    """Let both packages start their resource tracker and map their first shared memory before anything is counted."""
    kept = []
    for package in PACKAGES.values():
        kept.append(package.get_context("spawn").Value("i", 0))
        package.resource_tracker.ensure_running()
    yield
    kept.clear()


def bump(value):
    with value.get_lock():
        value.value += 1
    return value.value


def set_raw(value):
    value.value = 42


def try_lock(things):
    return things["lock"][0].acquire(block=False)


def put(queue, count):
    for n in range(count):
        queue.put(n)


def send(connection):
    connection.send({"pid": os.getpid(), "got": connection.recv()})
    connection.close()


def set_event(event, answer):
    event.wait(PATIENCE)
    answer.set()


PACKAGES = {"multiprocess": multiprocess, "multiprocessing": multiprocessing}


def kinds():
    for package_name, package in PACKAGES.items():
        yield pytest.param(SPAWN, package.get_context("spawn"), id=f"spawn-{package_name}-spawn")
        for method in ("fork", "spawn"):
            yield pytest.param(FORK, package.get_context(method), id=f"fork-{package_name}-{method}", marks=posix)
        yield pytest.param(FORK, package, id=f"fork-{package_name}-default", marks=posix)


shared = pytest.mark.parametrize(("runner", "context"), list(kinds()))


@shared
def test_values(runner, context):
    """A Value is shared: what the runs add to it, the parent sees."""
    value = context.Value("i", 0)
    bump_it = task(bump, runner=runner)
    woflo.gather(*(bump_it(value) for _ in range(3)), timeout=PATIENCE)
    assert value.value == 3


@shared
def test_sharedctypes_values(runner, context):
    """A sharedctypes.Value, with a lock and without, is shared (uqfoundation/multiprocess#115)."""
    package = sys.modules[type(context.get_context()).__module__.partition(".")[0]]
    value = package.sharedctypes.Value("i", 0, ctx=context.get_context())
    raw = package.sharedctypes.RawValue("d", 0.0)
    assert get(task(bump, runner=runner)(value)) == 1
    get(task(set_raw, runner=runner)(raw))
    assert (value.value, raw.value) == (1, 42.0)


@shared
def test_locks(runner, context):
    """A Lock is one lock: a worker can't take it while the parent holds it. It may be nested in others."""
    lock = context.Lock()
    attempt = task(try_lock, runner=runner)
    with lock:
        assert get(attempt({"lock": [lock]})) is False
    assert get(attempt({"lock": [lock]})) is True


@shared
def test_queues(runner, context):
    """What a task puts into a Queue arrives, also when the task ends right after."""
    queue = context.Queue()
    get(task(put, runner=runner)(queue, 20))
    assert [queue.get(timeout=PATIENCE) for _ in range(20)] == list(range(20))
    queue.close()
    queue.join_thread()


@shared
def test_simple_queues(runner, context):
    """The same for a SimpleQueue."""
    queue = context.SimpleQueue()
    get(task(put, runner=runner)(queue, 5))
    assert [queue.get() for _ in range(5)] == list(range(5))
    queue.close()


@shared
def test_connections(runner, context):
    """A Connection reaches the task, both ways."""
    ours, theirs = context.Pipe()
    run = task(send, runner=runner)(theirs)
    ours.send("hello")
    assert ours.poll(PATIENCE)
    answer = ours.recv()
    assert answer["got"] == "hello"
    assert answer["pid"] != os.getpid()
    assert get(run) is None
    ours.close()
    theirs.close()


@shared
def test_events(runner, context):
    """An Event wakes a task that waits for it."""
    event, answer = context.Event(), context.Event()
    run = task(set_event, runner=runner)(event, answer)
    event.set()
    assert answer.wait(PATIENCE)
    get(run)


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES.keys())
def test_shared_things_wait_with_a_pending_run(package, tmp_path):
    """A shared thing can be an argument of a run that starts later."""
    context = package.get_context("spawn")
    value, release = context.Value("i", 0), Flag(tmp_path / "release")
    first = task(release.wait, name="first", runner=SPAWN)()
    run = task(lambda value, _after: bump(value), runner=SPAWN)(value, first)
    release.set()
    assert get(run) == 1
    assert value.value == 1


@posix
@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES.keys())
def test_a_lock_of_the_wrong_context_is_refused(package):
    """A lock that was made for fork can't be rebuilt in a spawned worker: it is said at the call."""
    with pytest.raises(UsageError) as caught:
        task(try_lock, runner=SPAWN)({"lock": [package.get_context("fork").Lock()]})
    assert "fork" in str(caught.value)
    assert "spawn" in str(caught.value)
