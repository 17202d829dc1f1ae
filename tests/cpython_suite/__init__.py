"""CPython's own executor tests (`test.test_concurrent_futures`), run against `woflo.futures.TaskExecutor`.

    python -m tests.cpython_suite              thread and fork
    python -m tests.cpython_suite --kind spawn
    python -m tests.cpython_suite -k cancel    cases whose names contain this

`facade` is what the cases see in place of the two standard executors, `cases` says which of them don't apply and
why, `case` lists them and runs one (in the interpreter that has the suite), `__main__` does the rest.
"""
