"""What stands for `typing` at run time: importing that costs 5 ms, and subscription is all that is wanted of it.

Type checkers never see this file; they read the `TYPE_CHECKING` branches of the modules that import it.
"""

from __future__ import annotations

__all__ = ["Generic", "P", "R", "V", "overload"]

P = R = V = None


class Generic:
    """A base whose subscription is the class itself: `Generic[R]`, `Ok[int]`."""

    __slots__ = ()

    def __class_getitem__(cls, _item: object) -> type[Generic]:
        return cls


def overload(fn: object) -> object:
    """`typing.overload`: its signatures are for type checkers."""
    return fn
