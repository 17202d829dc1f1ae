"""Ten no-ops in a pebble pool of two."""

from pebble import ProcessPool


def noop():
    return None


with ProcessPool(max_workers=2) as pool:
    for future in [pool.schedule(noop) for _ in range(10)]:
        future.result()
