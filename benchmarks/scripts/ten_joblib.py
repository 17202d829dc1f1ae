"""Ten no-ops in joblib's default backend with two workers."""

from joblib import Parallel, delayed


def noop():
    return None


Parallel(n_jobs=2)(delayed(noop)() for _ in range(10))
