"""Ten no-ops in a loky executor of two."""

from loky import get_reusable_executor


def noop():
    return None


executor = get_reusable_executor(max_workers=2)
for future in [executor.submit(noop) for _ in range(10)]:
    future.result()
