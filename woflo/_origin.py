"""Whose code a module is: the project's, an installed package's, or Python's own.

The project is whatever else there is: `__main__`, notebooks, functions made by exec, folders on the path, editable installs.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

__all__ = [
    "PACKAGE",
    "PROJECT",
    "PYTHON",
    "compiled_file",
    "file_of",
    "module_of",
    "origin",
    "python_version",
    "version_of",
]

PROJECT, PACKAGE, PYTHON = "project", "package", "Python"

_SITES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_HOME = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep

_origins: dict[str, str] = {}
_versions: dict[str, str] = {}


def origin(module: str) -> str:
    """Whose code the module of this name is: PROJECT, PACKAGE or PYTHON."""
    known = _origins.get(module)
    if known is None:
        known = _origin(module)
        if known is not PROJECT:  # a name of the project may be loaded later, or again from elsewhere
            _origins[module] = known
    return known


def module_of(code: object) -> str:
    """The name of the module of a class or function; where it can't be told, as of some classes of C code, `builtins`."""
    try:
        module = code.__module__
    except Exception:  # of a proxy whose object isn't there, too
        return "builtins"
    return module if type(module) is str else "builtins"


def _origin(module: str) -> str:
    if module in {"__main__", "__mp_main__"}:
        return PROJECT
    root = module.partition(".")[0]
    if root == "woflo" or root.startswith("_cython_"):  # the module of what Cython's functions are made of
        return PACKAGE
    found = sys.modules.get(module) or sys.modules.get(root)
    path = _path(found) if found is not None else _path_on_disk(root)
    if path is None:
        return PYTHON if root in sys.stdlib_module_names or root in sys.builtin_module_names else PROJECT
    if any(site in path for site in _SITES):
        return PACKAGE
    is_python = path.startswith(_LIBRARY) or (root in sys.stdlib_module_names and path.startswith(sys.base_prefix))
    return PYTHON if is_python else PROJECT


def _path(module: ModuleType) -> str | None:
    """Where the module lies; None for one that is built in, or was made by the program."""
    path = getattr(module, "__file__", None)
    if isinstance(path, str):
        return os.path.abspath(path)
    return next((_folder(folder) for folder in getattr(module, "__path__", ())), None)  # of a namespace package


def _path_on_disk(root: str) -> str | None:
    """Where a module lies that isn't loaded."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec(root)
    if spec is None:
        return None
    if spec.has_location and spec.origin:
        return os.path.abspath(spec.origin)
    return next((_folder(folder) for folder in spec.submodule_search_locations or ()), None)


def _folder(path: str) -> str:
    return os.path.abspath(path) + os.sep


def python_version() -> str:
    """Python's version as far as byte code and the standard library depend on it, for instance `3.12`."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return version if sys.implementation.name == "cpython" else f"{sys.implementation.name} {version}"


def version_of(module: str) -> str:
    """The version of the installed package that a module belongs to; of several in one namespace, all of them."""
    root = module.partition(".")[0]
    known = _versions.get(root)
    if known is None:
        known = _versions[root] = _version(root)
    return known


def _version(root: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(root)
    except metadata.PackageNotFoundError:
        names = sorted(set(metadata.packages_distributions().get(root, ())))
    if names:
        return " ".join(metadata.version(name) for name in names)
    return str(getattr(sys.modules.get(root), "__version__", "unknown"))


def compiled_file(module: str) -> Path | None:
    """Where a module lies that is loaded and compiled; else None."""
    path = getattr(sys.modules.get(module), "__file__", None)
    if not isinstance(path, str) or path.endswith((".py", ".pyc", ".ipynb")):
        return None
    from importlib.machinery import EXTENSION_SUFFIXES
    from pathlib import Path

    return Path(path) if path.endswith(tuple(EXTENSION_SUFFIXES)) else None


def file_of(module: str) -> str:
    """What people call the file of a project's module: `pipeline.py`, `pkg/helpers.py`, or the module's name."""
    found = sys.modules.get(module)
    path = getattr(found, "__file__", None)
    if not isinstance(path, str):
        return module
    name = os.path.basename(path)
    depth = module.count(".") + (name == "__init__.py")
    return "/".join([*path.replace(os.sep, "/").split("/")[-depth - 1 : -1], name]) if depth else name
