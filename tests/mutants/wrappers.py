"""Decorators."""

import functools


def bounded(low, high):
    """Keep a function's value between two others."""

    def decorate(fn):
        @functools.wraps(fn)
        def wrapper(*args, **kwargs):
            value = fn(*args, **kwargs)
            if value is None:
                return None
            return max(low, min(high, value))

        return wrapper

    return decorate


def counted(fn):
    """Add the number of positional arguments."""

    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs), len(args)

    return wrapper


def _spare_timed(fn):
    """Nobody is timed."""

    def wrapper(*args):
        return 3, fn(*args)

    return wrapper
