"""Many runs: memory, descriptors and threads stay flat, nesting and many readers work."""

from __future__ import annotations

from .rows import PROCESSES, RUNNERS, covers

COUNTS = {"sequential": 100_000, "thread": 100_000, "async": 20_000, "fork": 2_000, "spawn": 40, "pool": 50_000}


@covers("volume-dropped")
def test_many_runs_dropped(run_case, runner):
    """However many runs are made and dropped, memory, descriptors and threads stay flat."""
    if runner == "async":
        body = """
        @job
        async def body(x):
            return x

        async def some(count):
            for number in range(count):
                same(await body(number), number)
        def go(count):
            asyncio.run(some(count))
        """
    else:
        body = """
        @job
        def body(x):
            return x

        def go(count):
            window = []
            for number in range(count):
                window.append(body(number))
                if len(window) > 20:
                    window.pop(0).wait()
            same([run.get_result(timeout=LIMIT) for run in window][-1], count - 1)
        """
    run_case(
        body
        + f"""
        count = {COUNTS[runner]}
        go(count // 20)
        nothing_left(BEFORE, 3.0)
        first, handles = memory(), len(descriptors())
        go(count)
        collect()
        grown = memory() - first
        assert grown < 5 << 20, f"grew by {{grown >> 10}} KB"
        assert len(descriptors()) <= handles + 25, descriptors()
        nothing_left(BEFORE, 3.0)
        assert len(descriptors()) <= handles, descriptors()
        """,
        runner=runner,
        limit=60,
    )


@covers("volume-kept")
def test_many_runs_kept(run_case, runner):
    """A finished run that is kept costs at most 1 KB and no descriptor."""
    if runner == "async":
        body = """
        @job
        async def body(x):
            return x

        async def some(count):
            runs = []
            for number in range(count):
                runs.append(body(number))
                if number % 20 == 0:
                    await runs[-1]
            for run in runs:
                await run
            return runs
        def go(count):
            return asyncio.run(some(count))
        """
    else:
        body = """
        @job
        def body(x):
            return x

        def go(count):
            runs = []
            for number in range(count):
                runs.append(body(number))
                if len(runs) > 20:
                    runs[-20].wait()
            for run in runs:
                run.wait()
            return runs
        """
    run_case(
        body
        + f"""
        count = {COUNTS[runner]}
        go(count // 20)
        nothing_left(BEFORE, 3.0)
        first, handles = memory(), len(descriptors())
        runs = go(count)
        collect()
        each = (memory() - first) / count
        assert each <= 1024 + (5 << 20) / count, f"{{each:.0f}} bytes per kept run"
        same([run.get_result() for run in runs], list(range(count)))
        nothing_left(BEFORE, 3.0)
        assert len(descriptors()) <= handles, descriptors()
        """,
        runner=runner,
        limit=60,
    )


@covers("volume-dropped", runners=["fork"])
def test_many_pending_runs(run_case, runner):
    """Ten thousand pending runs cost at most 20 MB, no process each, and end at a stop."""
    run_case(
        """
        @job
        def gate():
            hold("gate")
            return 1

        @job
        def body(value):
            return value

        narrow = limited(2)
        waiting = job(runner=narrow)(lambda: hold("gate"))
        first = gate()
        blockers = [waiting() for _ in range(2)]
        before, handles = memory(), len(descriptors())
        runs = [body.options(runner=narrow)(number) for number in range(5_000)]
        runs += [body(first) for _ in range(5_000)]
        used = memory() - before
        assert used < 20 << 20, f"{used >> 20} MB"
        assert len(descriptors()) <= handles + 6
        assert len(children()) <= len(BEFORE["children"]) + 3
        for run in runs:
            run.stop(grace=0, wait=False)
        assert all(isinstance(run.outcome(), StoppedFailure) for run in runs)
        release("gate")
        same(value_of(first), 1)
        """,
        runner=runner,
    )


@covers("volume-dropped", runners=["fork"])
def test_many_configured_classes(run_case, runner):
    """A configured runner class that is used once leaves nothing open when it is dropped."""
    run_case(
        """
        for number in range(100):
            narrow = RUNNER.using(max_running=2)
            same(value_of(double.options(runner=narrow)(number)), 2 * number)
        del narrow
        """,
        runner=runner,
    )


@covers("nested")
def test_nested_three_deep(run_case, runner):
    """Runs that start runs that start runs work on every runner, with one slot too."""
    options = "RUNNER" if runner not in PROCESSES else "limited(1)"
    call = "await {}" if runner == "async" else "{}.get_result(timeout=LIMIT)"
    prefix = "async " if runner == "async" else ""
    run_case(
        f"""
        narrow = {options}

        @job(runner=narrow)
        {prefix}def leaf(x):
            return x + 1

        @job(runner=narrow)
        {prefix}def branch(x):
            runs = [leaf(x), leaf(x + 1)]
            return sum([{call.format("run")} for run in runs])

        @job(runner=narrow)
        {prefix}def trunk(x):
            runs = [branch(x), branch(x + 10)]
            return sum([{call.format("run")} for run in runs])

        runs = [trunk(number) for number in range(3)]
        for number, run in enumerate(runs):
            same(value_of(run), 4 * number + 26)
        """,
        runner=runner,
        limit=60,
    )


@covers("nested", runners=["fork"])
def test_nested_on_mixed_runners(run_case, runner):
    """Runs may be nested over different runners."""
    run_case(
        """
        import warnings
        warnings.simplefilter("ignore")
        kinds = ("sequential", "thread", "fork", "spawn")
        tasks = {}
        for kind in kinds:
            tasks[kind] = task(lambda x: x + 1, runner=runner_class(kind), name=kind)

        def outer(kind):
            return tasks[kind](1).get_result(timeout=LIMIT)

        runs = {
            (one, other): task(outer, runner=runner_class(one))(other)
            for one in kinds for other in kinds if one != "spawn"
        }
        for pair, run in runs.items():
            same((pair, value_of(run)), (pair, 2))
        """,
        runner=runner,
        limit=60,
    )


@covers("two-readers", "asked-twice")
def test_many_readers(run_case, runner):
    """Twenty threads that get one run's result all have it, asked twice the same object."""
    run_case(
        f"""
        @job
        {"async " if runner == "async" else ""}def body():
            {"await hold_async" if runner == "async" else "hold"}("go")
            return [b"x" * 300_000]

        if RUNNER_NAME == "sequential":
            release("go")
        run = body()
        answers, errors = [], []

        def read():
            try:
                answers.append(run.get_result(timeout=LIMIT))
                answers.append(run.get_result(timeout=LIMIT))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(20)]
        for thread in threads:
            thread.start()
        release("go")
        for thread in threads:
            thread.join(LIMIT)
        same(errors, [])
        same(len(answers), 40)
        assert all(answer is answers[0] for answer in answers)
        same(len(answers[0][0]), 300_000)
        """,
        runner=runner,
    )


@covers("two-readers", runners=["thread", "fork", "spawn"])
def test_drivers_hand_over(run_case, runner):
    """When the thread that watches for all gives up its wait, another takes over."""
    run_case(
        """
        @job
        def body(name):
            hold(name)
            return name

        runs = {name: body(name) for name in ("a", "b", "c")}
        seen = {}

        def read(name, timeout):
            try:
                seen[name] = runs[name].get_result(timeout=timeout)
            except WaitTimeout:
                seen[name + " gave up"] = True

        reads = (("a", 0.2), ("b", LIMIT), ("c", LIMIT), ("a", LIMIT))
        threads = [threading.Thread(target=read, args=read_args) for read_args in reads]
        for thread in threads:
            thread.start()
        until(lambda: "a gave up" in seen, "the first to give up")
        for name in ("c", "b", "a"):
            release(name)
            until(lambda: seen.get(name) == name, name, 5)
        for thread in threads:
            thread.join(LIMIT)
        """,
        runner=runner,
    )


@covers("upstream-no-wait")
def test_wait_that_runs_out(run_case, runner):
    """A wait that runs out raises WaitTimeout and leaves the run alone."""
    run_case(
        f"""
        @job
        {"async " if runner == "async" else ""}def body():
            {"await hold_async" if runner == "async" else "hold"}("go")
            return 5

        run = body()
        for ask in (
            lambda: run.get_result(timeout=0.05),
            lambda: run.get_result(timeout=0, raise_exceptions=False),
            lambda: gather(run, timeout=0.05),
            lambda: list(as_completed([run], timeout=0.05)),
        ):
            began = time.monotonic()
            try:
                answer = ask()
            except WaitTimeout as error:
                assert isinstance(error, TimeoutError)
            else:
                raise AssertionError(answer)
            assert time.monotonic() - began < 2
        same(run.wait(timeout=0.05), False)
        same(woflo.wait([run], timeout=0.05), False)
        assert run.is_running()
        release("go")
        same(value_of(run), 5)
        """,
        runner=runner,
    )


@covers("waiter-cancelled")
def test_cancelled_waiter(run_case, runner):
    """Cancelling one `await run` leaves the run alone; the other waiters have its result."""
    run_case(
        f"""
        @job
        {"async " if runner == "async" else ""}def body():
            write("in")
            {"await hold_async" if runner == "async" else "hold"}("go")
            write("end")
            return 5

        if RUNNER_NAME == "sequential":
            release("go")

        async def read(run):
            return await run

        async def main():
            run = body()
            waiters = [asyncio.ensure_future(read(run)) for _ in range(3)]
            await asyncio.sleep(0.05)
            waiters[0].cancel()
            try:
                await waiters[0]
            except asyncio.CancelledError:
                pass
            try:
                await asyncio.wait_for(read(run), 0.05)
            except (TimeoutError, asyncio.TimeoutError):
                pass
            release("go")
            same(await waiters[1], 5)
            same(await waiters[2], 5)
            same(await run, 5)

        asyncio.run(main())
        same(lines(), ["in", "end"])
        """,
        runner=runner,
    )


@covers("deep-chain")
def test_chain_of_runs(run_case, runner):
    """A long chain of runs, each the next one's input, works and recurses nowhere."""
    depth = {"fork": 300, "async": 3_000}.get(runner, 10_000)
    run_case(
        f"""
        @job
        def link(value):
            return value + 1

        run = link(0)
        for _ in range({depth} - 1):
            run = link(run)
        same(value_of(run), {depth})

        @job
        def fail(value):
            raise ValueError("root")

        run = fail(0)
        for _ in range(min({depth}, 3_000)):
            run = link(run)
        failure = error_of(run, DependencyFailure)
        assert isinstance(original(failure.root_causes()[0]), ValueError)
        str(failure), repr(failure)
        """,
        runner=runner,
        limit=60,
    )


@covers("asked-twice", runners=RUNNERS)
def test_same_answer_in_every_way_of_asking(run_case, runner):
    """get_result, outcome, exception, wait, await and the callback agree, before and after."""
    run_case(
        """
        good, bad = double(4), job(lambda: 1 / 0)()
        seen = []
        for run in (good, bad):
            run.add_done_callback(lambda run: seen.append(type(run.outcome())))
            same(run.wait(timeout=LIMIT), True)
            run.add_done_callback(lambda run: seen.append(type(run.outcome())))
        until(lambda: len(seen) == 4, "four callbacks")

        async def ask(run):
            try:
                return await run
            except Exception as error:
                return error

        same(asyncio.run(ask(good)), 8)
        same(good.exception(), None)
        error = error_of(bad, ZeroDivisionError)
        assert asyncio.run(ask(bad)) is error
        assert bad.exception() is error
        assert bad.outcome() is bad.outcome()
        same(sorted(kind.__name__ for kind in seen), ["Ok", "Ok", "TaskFailure", "TaskFailure"])
        same(gather(good, bad, raise_exceptions=False), [8, error])
        same(woflo.wait([good, bad]), True)
        same(len(list(as_completed([good, bad]))), 2)
        """,
        runner=runner,
    )


def test_counts_cover_every_runner():
    """No runner is left out of the volume tests."""
    assert set(COUNTS) == set(RUNNERS)
