"""What objects of some packages consist of, where pickle would keep more than their content.

That is: addresses, random numbers, what was compiled or looked up so far, where a log goes. The packages need not be installed.
"""

from __future__ import annotations

import sys
from types import FunctionType

from woflo._merkle import Node, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["FOREIGN"]


def _logger(_: Any) -> bytes:
    """A loguru logger: where a log goes changes no result."""
    return pack(b"loguru", [])


def _random_state(value: Any) -> bytes | None:
    """What numpy's own functions and scipy's distributions draw from by default; each process has another one."""
    numpy = sys.modules["numpy"]
    return pack(b"numpy.random", []) if value is numpy.random.mtrand._rand else None


def _compiled(value: Any) -> Node | None:
    """What numba compiles: the function and how it is compiled, not what was compiled so far."""
    inside = getattr(value, "__wrapped__", None)
    if not isinstance(inside, FunctionType):
        return None
    how = (getattr(value, "targetoptions", None), getattr(value, "locals", None))
    return Node(b"numba", (type(value), inside, *how), names=("", ".__wrapped__", ".targetoptions", ".locals"))


def _pydantic_decorator(value: Any) -> Node:
    """A validator or serializer of a pydantic model: which function and how, not at which address its class lies."""
    parts = (value.cls_var_name, value.func, value.info)
    return Node(b"pydantic", parts, names=("", ".func", ".info"))


def _dataset(value: Any) -> Node:
    """A Dataset of xarray: what it has noted for itself when it was asked isn't content, nor how it was stored."""
    parts = (type(value), dict(value.variables), set(value.coords), value.attrs)
    return Node(b"xarray.Dataset", parts, names=("", "", "", ".attrs"))


def _data_array(value: Any) -> Node:
    parts = (type(value), value.variable, dict(value.coords.variables), value.name)
    return Node(b"xarray.DataArray", parts, names=("", "", ".coords", ".name"))


def _variable(value: Any) -> Node:
    parts = (type(value), value.dims, value.data, value.attrs)
    return Node(b"xarray.Variable", parts, names=("", ".dims", ".data", ".attrs"))


FOREIGN: dict[tuple[str, str], Callable[[Any], bytes | Node | None]] = {
    ("loguru._logger", "Logger"): _logger,
    ("numba.core.serialize", "ReduceMixin"): _compiled,
    ("numpy.random.mtrand", "RandomState"): _random_state,
    ("pydantic._internal._decorators", "Decorator"): _pydantic_decorator,
    ("xarray.core.dataarray", "DataArray"): _data_array,
    ("xarray.core.dataset", "Dataset"): _dataset,
    ("xarray.core.variable", "Variable"): _variable,
}
"""By the module and name of a class; its subclasses too. None: as any other object."""
