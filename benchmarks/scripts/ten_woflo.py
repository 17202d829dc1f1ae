"""Ten no-ops with woflo, this one or 0.8: all started, then collected."""

from woflo import task


@task
def noop():
    return None


for run in [noop() for _ in range(10)]:
    run.get_result()
