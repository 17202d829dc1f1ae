"""Ten no-ops in a multiprocessing pool of two."""

from multiprocessing import get_context


def noop():
    return None


with get_context("fork").Pool(2) as pool:
    for result in [pool.apply_async(noop) for _ in range(10)]:
        result.get()
