"""A function's code counts with all that it leads to in the project, and with nothing else."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import woflo
from woflo import _code, _origin
from woflo._code import Code, changed, code_of
from woflo._fingerprint import Undigestible, digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def space(source: str, name: str = "pipeline", **given: object) -> Any:
    """The namespace of a module made of `source`."""
    module = types.ModuleType(name)
    vars(module).update(given)
    exec(compile(textwrap.dedent(source), f"{name}.py", "exec", dont_inherit=True), vars(module))
    return types.SimpleNamespace(module=module, names=vars(module), **{
        key: value for key, value in vars(module).items() if not key.startswith("__")
    })  # fmt: skip


def code(source: str, **given: object) -> Code:
    """The Code of `f` in a module made of `source`."""
    return code_of(space(source, **given).names["f"])


def differ(first: str, second: str) -> str:
    """What changed for `f` between two modules, in words; "" if nothing did."""
    old, new = code(first), code(second)
    return "" if old.digest == new.digest else changed(old.parts, new.parts)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Write modules into a folder on the path: `modules(name=source, …)`; what they load is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file that is edited twice within a second looks the same
    before = set(sys.modules)

    def write(**sources: str) -> Path:
        for name, source in sources.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


# ---- what counts


FIELD = """
from dataclasses import dataclass, field
@dataclass
class A:
    n: int = field(default=1, metadata={})
def f(x): return A()
"""

EDITS: list[tuple[str, str, str | None]] = [
    ("def f(x): return x + 1", "def f(x): return x + 2", "f() itself"),
    ("def f(x): return x + 1", "def f(x): return x + 1.0", "f() itself"),
    ("def f(x): return x + 1", "def f(x): return x + True", "f() itself"),
    ("def f(x): return 0.0", "def f(x): return -0.0", "f() itself"),
    ("def f(x): return 'a'", "def f(x): return b'a'", "f() itself"),
    ("def f(x): return x in {1, 2}", "def f(x): return x in (1, 2)", "f() itself"),
    ("def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}", "f() itself"),
    ("def f(x): return x.a", "def f(x): return x.b", "f() itself"),
    ("def f(x): return x.a()", "def f(x): return x.b()", "f() itself"),
    ("def f(x, y): return x", "def f(y, x): return x", "f() itself"),
    ("def f(x, y): return x", "def f(x, *, y): return x", "f() itself"),
    ("def f(x): return x", "def f(x, /): return x", "f() itself"),
    ("def f(x): return [x]", "def f(x): yield x", "f() itself"),
    ("def f(x): return x(a=1)", "def f(x): return x(b=1)", "f() itself"),
    ("def f(x): return len(x)", "def f(x): return sum(x)", "f() itself"),
    ("def f(x): return missing", "def f(x): return absent", "f() itself"),
    ("def f(x):\n a = 1\n b = 2\n return a", "def f(x):\n a = 1\n b = 2\n return b", "f() itself"),
    (
        "def f(x):\n try: return x.a\n except KeyError: pass",
        "def f(x):\n try: return x.a\n except OSError: pass",
        "f() itself",
    ),
    ("def f(x):\n try: x()\n finally: x.a\n x.b", "def f(x):\n try:\n  x()\n finally:\n  x.a; x.b", "f() itself"),
    ("def f(x): return [y for y in x if y]", "def f(x): return [y for y in x if not y]", "f() itself"),
    ("def f(x): return (lambda y: y)(x)", "def f(x): return (lambda y: -y)(x)", "f() itself"),
    ("def f(x): return locals()", "def f(x):\n y = 1\n return locals()", "f() itself"),
    ("def f(x):\n y = 1\n return locals()", "def f(x):\n z = 1\n return locals()", "f() itself"),
    (
        "from woflo import task\n@task\ndef g(): return 1\ndef f(x): return g.local()",
        "from woflo import task\ndef g(): return 1\ndef f(x): return g.local()",
        None,
    ),
    ("def f(x): return f'{x:.2f}'", "def f(x): return f'{x:.3f}'", "f() itself"),
    ("async def f(x): return await x", "def f(x): return x", "f() itself"),
    ("def f(x, depth=2): return x", "def f(x, depth=3): return x", "default of 'depth'"),
    ("def f(x, depth=2): return x", "def f(x, depth=2.0): return x", "default of 'depth'"),
    ("def f(x, *, depth=2): return x", "def f(x, *, depth=3): return x", "default of 'depth'"),
    ("def f(x, depth=[1]): return x", "def f(x, depth=[2]): return x", "default of 'depth'"),
    ("N = 1\ndef f(x): return N", "N = 2\ndef f(x): return N", "global N in pipeline"),
    ("N = {'a': [1]}\ndef f(x): return N", "N = {'a': [2]}\ndef f(x): return N", "global N in pipeline"),
    ("N = 1\ndef f(x): return lambda: N", "N = 2\ndef f(x): return lambda: N", "global N in pipeline"),
    ("N = 1\ndef f(x): return [N for _ in x]", "N = 2\ndef f(x): return [N for _ in x]", "global N in pipeline"),
    ("def f(x): return N", "N = 2\ndef f(x): return N", "global N in pipeline"),
    ("def f(x): return len(x)", "len = 3\ndef f(x): return len(x)", "global len in pipeline"),
    (
        "def g(x): return 1\ndef f(x): return g(x)",
        "def g(x): return 2\ndef f(x): return g(x)",
        "helper g() in pipeline",
    ),
    (
        "def h(): return 1\ndef g(): return h()\ndef f(x): return g()",
        "def h(): return 2\ndef g(): return h()\ndef f(x): return g()",
        "helper h() in pipeline",
    ),
    (
        "def g(a=1): return a\ndef f(x): return g()",
        "def g(a=2): return a\ndef f(x): return g()",
        "default of 'a' of g()",
    ),
    ("g = lambda: 1\ndef f(x): return g()", "g = lambda: 2\ndef f(x): return g()", "helper <lambda>() in pipeline"),
    (
        "def a(): return 1\ndef b(): return 2\ng, h = a, b\ndef f(x): return g() - h()",
        "def a(): return 1\ndef b(): return 2\ng, h = b, a\ndef f(x): return g() - h()",
        "global g in pipeline, and 1 more",
    ),
    (
        "T = {'a': lambda: 1}\ndef f(x): return T['a']()",
        "T = {'a': lambda: 2}\ndef f(x): return T['a']()",
        "helper <lambda>() in pipeline, and 1 more",
    ),
    (
        "T = [lambda: 1, lambda: 2]\ndef f(x): return T[0]()",
        "T = [lambda: 2, lambda: 1]\ndef f(x): return T[0]()",
        "global T in pipeline",
    ),
    (
        "class A:\n def m(self): return 1\ndef f(x): return A().m()",
        "class A:\n def m(self): return 2\ndef f(x): return A().m()",
        "method m() of class A in pipeline",
    ),
    (
        "class A:\n n = 1\ndef f(x): return A.n",
        "class A:\n n = 2\ndef f(x): return A.n",
        "attribute n of class A in pipeline",
    ),
    (
        "class A: pass\nclass B(A): pass\ndef f(x): return B()",
        "class A: pass\nclass B: pass\ndef f(x): return B()",
        "class B in pipeline",
    ),
    (
        "class A:\n n = 1\nclass B(A): pass\ndef f(x): return B()",
        "class A:\n n = 2\nclass B(A): pass\ndef f(x): return B()",
        "attribute n of class A in pipeline",
    ),
    (
        "class A:\n @property\n def p(self): return 1\ndef f(x): return A().p",
        "class A:\n @property\n def p(self): return 2\ndef f(x): return A().p",
        "method p() of class A in pipeline",
    ),
    (
        "class A:\n def p(self): return 1\ndef f(x): return A()",
        "class A:\n @staticmethod\n def p(self): return 1\ndef f(x): return A()",
        None,
    ),
    (
        "class M(type): n = 1\nclass A(metaclass=M): pass\ndef f(x): return A.n",
        "class M(type): n = 2\nclass A(metaclass=M): pass\ndef f(x): return A.n",
        "attribute n of class M in pipeline",
    ),
    (
        "class A:\n def __init__(self, n): self.n = n\na = A(1)\ndef f(x): return a.n",
        "class A:\n def __init__(self, n): self.n = n\na = A(2)\ndef f(x): return a.n",
        "global a in pipeline",
    ),
    (
        "class A:\n def m(self): return 1\na = A()\ndef f(x): return a.m()",
        "class A:\n def m(self): return 2\na = A()\ndef f(x): return a.m()",
        "method m() of class A in pipeline",
    ),
    (
        "def g(): pass\ng.n = 1\ndef f(x): return g.n",
        "def g(): pass\ng.n = 2\ndef f(x): return g.n",
        "attribute n of g()",
    ),
    (
        "def d(n):\n def w(fn): return lambda x: fn(x) + n\n return w\n@d(1)\ndef f(x): return x",
        "def d(n):\n def w(fn): return lambda x: fn(x) + n\n return w\n@d(2)\ndef f(x): return x",
        "closure variable n",
    ),
    (
        "def d(fn): return lambda x: fn(x)\n@d\ndef f(x): return 1",
        "def d(fn): return lambda x: fn(x)\n@d\ndef f(x): return 2",
        "helper f() in pipeline",
    ),
    ("import math\ndef f(x): return math.sin(x)", "import math\ndef f(x): return math.cos(x)", "f() itself"),
    (
        "from math import sin as g\ndef f(x): return g(x)",
        "from math import cos as g\ndef f(x): return g(x)",
        "global g in pipeline",
    ),
    (
        "from dataclasses import dataclass, field\n@dataclass\nclass A:\n n: int = 1\ndef f(x): return A()",
        "from dataclasses import dataclass, field\n@dataclass\nclass A:\n n: int = 2\ndef f(x): return A()",
        None,
    ),
    (
        FIELD.replace("{}", "{'a': 1}"),
        FIELD.replace("{}", "{'a': 2}"),
        "field n of class A in pipeline",
    ),
    (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n n: int\n m: int\ndef f(x): return A(1, 2)",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n m: int\n n: int\ndef f(x): return A(1, 2)",
        None,
    ),
    (
        "import enum\nclass E(enum.Enum): A = 1\ndef f(x): return E.A",
        "import enum\nclass E(enum.Enum): A = 2\ndef f(x): return E.A",
        None,
    ),
    (
        "from functools import lru_cache\n@lru_cache\ndef g(): return 1\ndef f(x): return g()",
        "from functools import lru_cache\n@lru_cache\ndef g(): return 2\ndef f(x): return g()",
        "helper g() in pipeline, and 1 more",
    ),
    (
        "from functools import partial\ndef g(a): return a\nh = partial(g, 1)\ndef f(x): return h()",
        "from functools import partial\ndef g(a): return a\nh = partial(g, 2)\ndef f(x): return h()",
        "global h in pipeline",
    ),
    (
        "import re\nP = re.compile('a')\ndef f(x): return P.match(x)",
        "import re\nP = re.compile('b')\ndef f(x): return P.match(x)",
        "global P in pipeline",
    ),
]


@pytest.mark.parametrize(("first", "second", "what"), EDITS)
def test_an_edit_is_noticed_and_named(first: str, second: str, what: str | None) -> None:
    """What can change the result changes the digest, and is named as people call it."""
    found = differ(first, second)
    assert found
    assert what is None or found == what


NO_EDITS = [
    ("def f(x):\n if x: pass\n return x", "def f(x):\n if x:\n  pass\n return x"),
    (
        "def f(x, y): return list(z for z in x if z not in y)",
        "def f(x, y):\n return list(\n  z\n  for z in x\n  if z not in y\n )",
    ),
    (
        "def f(x):\n while x and x.a:\n  if x.b: continue\n  x = x.c\n return x",
        "def f(x):\n while (x and\n   x.a):\n  if x.b:\n   continue\n  x = x.c\n return x",
    ),
    ("def f(x): return x + 1", "\n\n# why\ndef f(x):\n    # because\n    return (\n        x\n        + 1\n    )"),
    ("def f(x): return x + 1", "def f(x):\n    'What it does.'\n    return x + 1"),
    ("def f(x): return x + 1", "def f(x: int) -> int: return x + 1"),
    ("def f(x):\n y = x\n return y", "def f(x):\n z = x\n return z"),
    ("def f(x):\n if x and x > 1: return x", "def f(x):\n if (x\n   and x > 1):\n  pass\n  return x"),
    ("def f(x): return 1 + 2", "def f(x): return 3"),
    ("def f(x): return 'ab'", "def f(x): return 'a' 'b'"),
    (
        "def f(x):\n def g(y): return y\n return g",
        "def f(x):\n def g(y: 'int') -> list[int]:\n  'Doc.'\n  return y\n return g",
    ),
    (
        "class A:\n def m(self): return 1\ndef f(x): return A()",
        "class A:\n 'Doc.'\n def m(self) -> int:\n  'Doc.'\n  return 1\ndef f(x): return A()",
    ),
    ("def f(x):\n class A: n = 1\n return A", "\n\ndef f(x):\n class A:\n  'Doc.'\n  n = 1\n return A"),
    ("def f(x): return 1", "N = 2\ndef g(): return N\nclass A: pass\ndef f(x): return 1"),
    ("def g(): return 1\ndef f(x): return g()", "def f(x): return g()\ndef h(): return f\ndef g(): return 1"),
    ("import math\ndef f(x): return math.pi", "import math, json\ndef f(x): return math.pi"),
    ("class A:\n n = 1\n m = 2\ndef f(x): return A", "class A:\n m = 2\n n = 1\ndef f(x): return A"),
    ("T = {'a': 1, 'b': 2}\ndef f(x): return T", "T = {'b': 2, 'a': 1}\ndef f(x): return T"),
    ("N = 1000\ndef f(x): return N", "N = 10**3\ndef f(x): return N"),
    (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n n: int = 1\ndef f(x): return A()",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n 'Doc.'\n n: float = 1\ndef f(x): return A()",
    ),
]


@pytest.mark.parametrize(("first", "second"), NO_EDITS)
def test_what_changes_no_result_does_not_count(first: str, second: str) -> None:
    """Comments, layout, docstrings, annotations, names of locals, order without meaning and strangers change nothing."""
    assert differ(first, second) == ""


def test_file_names_do_not_count() -> None:
    """The same code in another file, at another line, under another module's name."""
    source = "N = 1\ndef g(): return N\ndef f(x): return g()"
    first = space(source, "here").f
    second = space("\n\n\n" + source, "there").f
    assert code_of(first).digest == code_of(second).digest


def test_parts_are_what_people_call_them(modules: Any) -> None:
    """Every part has a label; the function itself comes first, packages and Python come last."""
    modules(
        cleaning="LIMIT = 3\ndef clean(x): return [y for y in x if y < LIMIT]",
        pipeline="""
            import numpy as np
            import cleaning
            FACTOR = 2
            class Model:
                rate = 1
                def fit(self, x): return np.asarray(x) * self.rate
            def scaled(scale):
                def train(x, depth=1):
                    return Model().fit(cleaning.clean(x)) * FACTOR * scale * depth
                return train
            train = scaled(3)
        """,
    )
    import pipeline  # type: ignore[import-not-found]

    parts = code_of(pipeline.train).parts
    assert list(parts) == [
        "train() itself",
        "default of 'depth'",
        "global FACTOR in pipeline.py",
        "closure variable scale",
        "class Model in pipeline.py",
        "attribute rate of class Model in pipeline.py",
        "helper clean() in cleaning.py",
        "global LIMIT in cleaning.py",
        "method fit() of class Model in pipeline.py",
        "Python",
        "package numpy",
    ]
    assert parts["package numpy"] == np.__version__
    assert parts["Python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert all(len(value) == 16 for label, value in parts.items() if label not in {"Python", "package numpy"})
    assert repr(code_of(pipeline.train)).startswith("<Code ")


# ---- across modules


SEVERAL = {
    "helpers": "N = 1\ndef clean(x): return x + N\ndef other(): return 2",
    "pkg/__init__": "from pkg.inner import deep",
    "pkg/inner": "from . import sibling\nfrom .sibling import shallow as g\ndef deep(): return sibling.shallow() + g()",
    "pkg/sibling": "def shallow(): return 1\ndef stranger(): return 2",
}


@pytest.mark.parametrize(
    "source",
    [
        "import helpers\ndef f(x): return helpers.clean(x)",
        "import helpers as h\ndef f(x): return h.clean(x)",
        "from helpers import clean\ndef f(x): return clean(x)",
        "from helpers import *\ndef f(x): return clean(x)",
        "def f(x):\n import helpers\n return helpers.clean(x)",
        "def f(x):\n import helpers as h\n return h.clean(x)",
        "def f(x):\n from helpers import clean\n return clean(x)",
        "def f(x):\n from helpers import clean as c\n return c(x)",
        "import helpers\ndef f(x):\n h = helpers\n return h.clean(x)",
        "import helpers\ndef f(x): return getattr(helpers, 'cle' + 'an')(x)",
        "import helpers\nT = [helpers]\ndef f(x): return T[0].clean(x)",
        "def f(x):\n import helpers\n def g(): return helpers.clean(x)\n return g()",
        "def f(x):\n try:\n  import helpers\n except ImportError:\n  helpers = None\n return helpers.clean(x)",
    ],
)
@pytest.mark.parametrize("edited", ["clean", "N", "other"])
def test_imported_modules_are_followed(modules: Any, source: str, edited: str) -> None:
    """However a helper is imported, its edits count; those of its neighbours don't, unless the whole module is handed on."""
    modules(**SEVERAL, main=source)
    import main  # type: ignore[import-not-found]

    before = code_of(main.f)
    edit = {"clean": ("x + N", "x - N"), "N": ("N = 1", "N = 2"), "other": ("return 2", "return 3")}[edited]
    modules(helpers=SEVERAL["helpers"].replace(*edit))
    for name in ("main", "helpers"):
        sys.modules.pop(name)
    import main

    after = code_of(main.f)
    whole = (
        "h = helpers" in source or "getattr" in source or "[helpers]" in source or "def g" in source or "try" in source
    )
    assert (after.digest != before.digest) == (whole or edited != "other")
    if edited == "clean":
        assert changed(before.parts, after.parts) == "helper clean() in helpers.py"


@pytest.mark.parametrize(
    "source",
    [
        "import pkg\ndef f(x): return pkg.deep()",
        "import pkg.inner\ndef f(x): return pkg.inner.deep()",
        "def f(x):\n import pkg.inner\n return pkg.inner.deep()",
        "def f(x):\n import pkg.inner as i\n return i.deep()",
        "def f(x):\n from pkg import inner\n return inner.deep()",
        "from pkg import *\nfrom pkg.inner import deep\ndef f(x): return deep()",
    ],
)
def test_packages_are_followed(modules: Any, source: str) -> None:
    """Submodules and relative imports lead on; labels name the file within the package."""
    modules(**SEVERAL, main=source)
    import main  # type: ignore[import-not-found]

    before = code_of(main.f)
    modules(**{"pkg/sibling": SEVERAL["pkg/sibling"].replace("return 1", "return 3")})
    for name in [name for name in sys.modules if name == "main" or name.partition(".")[0] == "pkg"]:
        sys.modules.pop(name)
    import main

    assert changed(before.parts, code_of(main.f).parts) == "helper shallow() in pkg/sibling.py"


def test_a_module_that_is_imported_later_counts_before(modules: Any) -> None:
    """A function that imports a helper when it runs has the same key before and after its first call."""
    modules(late="def clean(x): return x", main="def f(x):\n import late\n return late.clean(x)")
    import main  # type: ignore[import-not-found]

    before = code_of(main.f).digest
    main.f(1)
    assert code_of(main.f).digest == before


def test_a_module_that_can_not_be_imported_counts_by_its_name(modules: Any) -> None:
    """An optional dependency that isn't there is no error; when it comes, that is a change."""
    modules(main="def f(x):\n try:\n  import not_yet\n except ImportError:\n  return 0\n return not_yet.g(x)")
    import main  # type: ignore[import-not-found]

    before = code_of(main.f).digest
    assert code_of(main.f).digest == before
    modules(not_yet="def g(x): return x")
    import importlib

    importlib.invalidate_caches()
    importlib.import_module("not_yet")
    assert code_of(main.f).digest != before


# ---- packages and Python


def test_installed_packages_count_by_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is used of a package: its version counts, its code doesn't."""
    source = "import numpy as np\nfrom numpy.linalg import norm\ndef f(x): return np.mean(x) + norm(x) + np.array(x)"
    before = code(source)
    monkeypatch.setitem(_origin._versions, "numpy", "99.0")
    after = code(source)
    assert changed(before.parts, after.parts) == f"package numpy ({np.__version__} → 99.0)"


@pytest.mark.parametrize(
    "source",
    [
        "from numpy import mean\ndef f(x): return mean(x)",
        "from numpy import ndarray\ndef f(x): return isinstance(x, ndarray)",
        "from numpy import sin\ndef f(x): return sin(x)",
        "import numpy\nA = numpy.ones(3)\ndef f(x): return A",
        "import numpy\nclass A(numpy.ndarray): pass\ndef f(x): return A",
        "import numpy\nT = {'a': numpy.mean}\ndef f(x): return T",
        "def f(x):\n import numpy\n return numpy.ones(x)",
        "def f(x):\n from numpy import ones\n return ones(x)",
        "import numpy\ndef f(x, a=numpy.float64(1)): return a",
    ],
)
def test_every_use_of_a_package_is_seen(source: str) -> None:
    """Its functions, classes, objects and arrays lead to it."""
    assert code(source).parts["package numpy"] == np.__version__


def test_a_new_python_changes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte code belongs to one minor version; that is what is named."""
    before = code("def f(x): return x")
    monkeypatch.setattr("woflo._survey.python_version", lambda: "3.99")
    after = code("def f(x): return x")
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert changed(before.parts, after.parts) == f"Python ({mine} → 3.99)"


def test_whose_code_a_module_is(modules: Any) -> None:
    """The project is what is neither installed nor Python's own; woflo itself is a package."""
    modules(mine="")
    for module, whose in {
        "numpy": "package", "numpy.linalg": "package", "woflo.task": "package", "json": "Python", "json.decoder": "Python",
        "math": "Python", "sys": "Python", "builtins": "Python", "mine": "project", "__main__": "project", "no_such": "project",
        "tests.test_code": "project", "xml.dom": "Python", "": "project",
    }.items():  # fmt: skip
        assert _origin.origin(module) == whose, module
    assert _origin.version_of("dateutil") == _origin.version_of("dateutil.parser") != "unknown"  # python-dateutil
    assert _origin.version_of("no_such_package") == "unknown"


def test_a_wrapper_of_a_package_leads_to_what_it_wraps() -> None:
    """A decorator from elsewhere counts by its version, the function inside by its code."""
    source = "from contextlib import contextmanager\n@contextmanager\ndef g():\n yield {}\ndef f(x):\n with g() as y: return y"
    assert differ(source.format(1), source.format(2)) == "helper g() in pipeline"


# ---- rebound names, redefined helpers


CHANGES: dict[str, tuple[str, str]] = {
    "global": ("N = 1\ndef f(x): return N", "N = 2"),
    "global of a helper": ("N = 1\ndef g(): return N\ndef f(x): return g()", "N = 2"),
    "list in place": ("N = [1]\ndef f(x): return N", "N.append(2)"),
    "dict in place, deep": ("N = {'a': [1]}\ndef f(x): return N", "N['a'].append(2)"),
    "array in place": ("import numpy\nN = numpy.zeros(3)\ndef f(x): return N", "N[0] = 1"),
    "object in place": ("class A: pass\nN = A()\ndef f(x): return N", "N.a = 1"),
    "helper redefined": ("def g(): return 1\ndef f(x): return g()", "def g(): return 2"),
    "helper's code": ("def g(): return 1\ndef h(): return 2\ndef f(x): return g()", "g.__code__ = h.__code__"),
    "own code": ("def h(x): return 2\ndef f(x): return 1", "f.__code__ = h.__code__"),
    "default": ("def f(x, a=1): return a", "f.__defaults__ = (2,)"),
    "default in place": ("def f(x, a=[]): return a", "f.__defaults__[0].append(1)"),
    "keyword default": ("def f(x, *, a=1): return a", "f.__kwdefaults__ = {'a': 2}"),
    "keyword default in place": ("def f(x, *, a=1): return a", "f.__kwdefaults__['a'] = 2"),
    "keyword default gone": ("def f(x, *, a=1): return a", "f.__kwdefaults__ = None"),
    "default of a helper": ("def g(a=1): return a\ndef f(x): return g()", "g.__defaults__ = (2,)"),
    "closure": (
        "def m():\n n = 1\n def f(x): return n\n def s():\n  nonlocal n\n  n = 2\n return f, s\nf, s = m()",
        "s()",
    ),
    "closure in place": ("def m():\n n = []\n def f(x): return n\n return f, n\nf, n = m()", "n.append(1)"),
    "method": ("class A:\n def m(self): return 1\ndef f(x): return A().m()", "A.m = lambda self: 2"),
    "method, the old one is kept": (
        "class A:\n def m(self): return 1\nkept = A.m\ndef f(x): return A().m()",
        "A.m = lambda self: 2",
    ),
    "new attribute": ("class A: pass\ndef f(x): return A()", "A.n = 1"),
    "attribute": ("class A: n = 1\ndef f(x): return A()", "A.n = 2"),
    "attribute in place": ("class A: n = []\ndef f(x): return A()", "A.n.append(1)"),
    "attribute gone": ("class A: n = 1\ndef f(x): return A()", "del A.n"),
    "property": (
        "class A:\n @property\n def p(self): return 1\ndef f(x): return A().p",
        "A.p = property(lambda self: 2)",
    ),
    "static method": (
        "class A:\n @staticmethod\n def p(): return 1\ndef f(x): return A.p()",
        "A.p = staticmethod(lambda: 2)",
    ),
    "bases": (
        "class A: pass\nclass B(A): pass\nclass C:\n n = 1\nclass D(C): pass\ndef f(x): return D()",
        "D.__bases__ = (B,)",
    ),
    "class redefined": ("class A: n = 1\ndef f(x): return A()", "class A: n = 2"),
    "class of an object": ("class A: n = 1\na = A()\ndef f(x): return a.n", "class A: n = 2\na = A()"),
    "name appears": ("def f(x): return N", "N = 1"),
    "name goes": ("N = 1\ndef f(x): return N", "del N"),
    "builtin hidden": ("def f(x): return len(x)", "def len(x): return 3"),
    "module's name": ("import types\nh = types.ModuleType('h')\nh.n = 1\ndef f(x): return h.n", "h.n = 2"),
    "module's name appears": ("import types\nh = types.ModuleType('h')\ndef f(x): return h.n", "h.n = 2"),
    "another module": (
        "import types\nh = types.ModuleType('h')\nh.n = 1\ndef f(x): return h.n",
        "h = types.ModuleType('h')\nh.n = 2",
    ),
    "whole module": ("import types\nh = types.ModuleType('h')\nh.n = 1\ndef f(x): return vars(h)", "h.m = 2"),
    "function in a dict": (
        "def g(): return 1\nT = {'g': g}\ndef f(x): return T['g']()",
        "def g(): return 2\nT['g'] = g",
    ),
    "global of a function in a dict": ("N = 1\ndef g(): return N\nT = {'g': g}\ndef f(x): return T['g']()", "N = 2"),
    "attribute of a function": ("def g(): pass\ng.n = 1\ndef f(x): return g.n", "g.n = 2"),
    "partial": (
        "from functools import partial\ndef g(a): return a\nh = partial(g, [])\ndef f(x): return h()",
        "h.args[0].append(1)",
    ),
    "task": (
        "from woflo import task\n@task\ndef g(): return 1\ndef f(x): return g.local()",
        "@task\ndef g(): return 2",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed_at_the_next_look(name: str) -> None:
    """The second call is cheap, and sees all that has been rebound, redefined or changed in place since."""
    source, change = CHANGES[name]
    module = space(source)
    fn = module.names["f"]
    before = code_of(fn)
    assert code_of(fn) is before or code_of(fn).digest == before.digest
    exec(change, module.names)
    assert code_of(fn).digest != before.digest


@pytest.mark.parametrize("name", CHANGES)
def test_nothing_is_surveyed_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as nothing changes, the second look takes no survey."""
    fn = space(CHANGES[name][0]).names["f"]
    first = code_of(fn)
    monkeypatch.setattr(_code, "Survey", None)
    assert code_of(fn) is first


def test_what_is_rebound_to_the_same_code_has_the_same_digest() -> None:
    """A notebook's cell that is run again unchanged changes nothing."""
    source = "N = [1]\ndef g(): return N\nclass A:\n def m(self): return g()\ndef f(x): return A().m()"
    module = space(source)
    before = code_of(module.names["f"]).digest
    old = module.names["f"]
    exec(source, module.names)
    assert code_of(module.names["f"]).digest == before
    assert code_of(old).digest == before


def test_specialised_byte_code_is_the_same_code() -> None:
    """The interpreter rewrites a function that runs often; that is no change."""
    module = space("def g(x): return x + 1\ndef f(x):\n for y in range(50): x = g(x)\n return x")
    before = code_of(module.names["f"]).digest
    for _ in range(100):
        module.names["f"](1)
    _code._known.clear()
    again = types.FunctionType(module.names["f"].__code__, module.names)
    assert code_of(again).digest == before


def test_tracing_is_no_change() -> None:
    """Nor do coverage, a debugger or a profiler change the code."""
    program = """
        import sys
        from woflo._code import code_of
        def f(x):
            y = x + 1
            return y
        def trace(*_):
            return trace
        if len(sys.argv) > 1:
            sys.settrace(trace)
        f(1)
        print(code_of(f).digest)
    """
    found = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), *traced], capture_output=True, text=True, check=True
        ).stdout
        for traced in ([], ["traced"])
    ]
    assert found[0] == found[1] != ""


# ---- what can't be digested


def test_live_objects_count_by_type_and_name() -> None:
    """A lock or a client among the globals is no reason not to keep results; the Code says which it left out."""
    source = "import threading, socket\nLOCK = threading.Lock()\nCFG = {'n': 1, 'lock': LOCK}\ndef f(x):\n with LOCK: return CFG"
    first = code(source)
    assert first.loose == ("global LOCK in pipeline (_thread.lock)", "global CFG in pipeline (_thread.lock)")
    assert code(source).digest == first.digest
    assert differ(source, source.replace("'n': 1", "'n': 2")) == "global CFG in pipeline"
    assert (
        differ(source, source.replace("threading.Lock()", "threading.RLock()")) == "global LOCK in pipeline, and 1 more"
    )
    assert code("def f(x): return x").loose == ()


def test_the_class_of_a_live_object_counts() -> None:
    """What a client of the project does is code like any other."""
    source = """
        import threading
        class Client:
            def __init__(self): self.lock = threading.Lock()
            def get(self): return 1
        c = Client()
        def f(x): return c.get()
    """
    assert code(source).loose == ("global c in pipeline (_thread.lock)",)
    assert differ(source, source.replace("return 1", "return 2")) == "method get() of class Client in pipeline"


def test_state_of_other_peoples_objects_is_all_or_nothing() -> None:
    """What is left of a thread without its locks (its name, its number) says nothing about results."""
    source = "import threading\nT = threading.Thread(name={!r})\ndef f(x): return T"
    assert differ(source.format("a"), source.format("b")) == ""


def test_loggers_do_not_count_by_where_they_write() -> None:
    """A sink that is added to a log, here or in a worker, changes no result."""
    from loguru import logger

    fn = space(
        "from loguru import logger\nimport logging\nlog = logging.getLogger('a')\ndef f(x):\n logger.info(x)\n log.info(x)"
    ).names["f"]
    before = code_of(fn)
    sink = logger.add(lambda _: None)
    try:
        assert code_of(fn).digest == before.digest
    finally:
        logger.remove(sink)
    assert before.loose == ()


def test_paths_among_globals_count_by_their_text(tmp_path: Path) -> None:
    """A global folder isn't read at each call; a file that is a default is an input."""
    path = tmp_path / "data.csv"
    path.write_text("1")
    by_name = space("def f(x): return P", P=path).names["f"]
    given = space("def f(x, p=P): return p", P=path).names["f"]
    before = code_of(by_name).digest, code_of(given).digest
    path.write_text("2")
    assert code_of(by_name).digest == before[0]
    assert code_of(given).digest != before[1]


def test_a_cycle_of_values_and_functions() -> None:
    """Functions that call each other, registries that hold them, objects that know each other."""
    source = """
        REGISTRY = {}
        def register(fn):
            REGISTRY[fn.__name__] = fn
            return fn
        class Node:
            def __init__(self): self.me = self
            def walk(self): return even(1), NODE
        NODE = Node()
        @register
        def even(n): return n == 0 or odd(n - 1)
        @register
        def odd(n): return n != 0 and REGISTRY["even"](n - 1)
        @register
        def f(x): return even(x), REGISTRY, NODE.walk(), f
    """
    assert code(source).digest == code(source).digest
    assert differ(source, source.replace("n != 0", "n > 0")) == "helper odd() in pipeline, and 1 more"


def test_a_set_that_leads_back_is_left_out() -> None:
    """What has no order in which it could be digested counts by type."""
    source = "class A: pass\na = A()\na.near = {a}\ndef f(x): return a"
    assert code(source).loose == ("global a in pipeline (A)",) or code(source).loose == (
        "global a in pipeline (pipeline.A)",
    )


class Proxy:
    """Stands for something that isn't there, as a web framework's request does between requests."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("nothing here")


class Liar:
    """Says that it is a function."""

    __class__ = types.FunctionType  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Proxy, Liar])
def test_objects_that_lie_or_refuse_to_answer(kind: type) -> None:
    """A proxy without its object, a mock with a specification: neither stops a survey nor a digest."""
    value = kind()
    fn = space("def f(x): return P, P.a", P=value).names["f"]
    assert code_of(fn).digest == code_of(fn).digest
    with contextlib.suppress(Undigestible):
        assert digest([value]) == digest([value])


def test_a_module_as_a_whole_does_not_count_by_its_place(
    modules: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A module that is handed on counts by what it defines; not by its file, nor by notes that Python keeps in it."""
    source = {"helpers": "N: int = 1\ndef clean(x): return x", "main": "import helpers\ndef f(x): return vars(helpers)"}
    modules(**source)
    import main  # type: ignore[import-not-found]

    before = code_of(main.f)
    sys.modules["helpers"].__warningregistry__ = {"version": 1}  # type: ignore[attr-defined]
    assert code_of(main.f).digest == before.digest
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name, text in source.items():
        (elsewhere / f"{name}.py").write_text(text)
        del sys.modules[name]
    sys.path.insert(0, str(elsewhere))
    import main

    assert main.__file__ == str(elsewhere / "main.py")
    assert code_of(main.f).digest == before.digest


@pytest.mark.timeout(30)
def test_a_long_chain_of_helpers() -> None:
    """Thousands of functions, each calling the next: no recursion."""
    source = (
        "\n".join(f"def g{n}(): return g{n + 1}()" for n in range(2_000))
        + "\ndef g2000(): return {}\ndef f(x): return g0()"
    )
    assert differ(source.replace("{}", "1"), source.replace("{}", "2")) == "helper g2000() in pipeline"


# ---- what is called


def test_methods_count_with_their_object() -> None:
    """Bound, a method brings the state of its object; plain, it is a function."""
    module = space("class A:\n def __init__(self, n): self.n = n\n def m(self, x): return self.n + x")
    one, two = module.A(1), module.A(2)
    assert code_of(one.m).digest == code_of(module.A(1).m).digest != code_of(two.m).digest
    assert changed(code_of(one.m).parts, code_of(two.m).parts) == "the object it is bound to"
    assert next(iter(code_of(module.A.m).parts)) == "m() itself"
    live = module.A(threading.Lock())
    with pytest.raises(Undigestible, match=r"the object it is bound to\.n"):
        code_of(live.m)


def test_partials_count_with_their_arguments() -> None:
    """Each argument is a part."""
    g = space("def g(a, b=1): return a").g
    first, second, third = functools.partial(g, 1), functools.partial(g, 2), functools.partial(g, 1, b=[2])
    assert len({code_of(one).digest for one in (g, first, second, third)}) == 4
    assert changed(code_of(first).parts, code_of(second).parts) == "argument 1 of the partial"
    assert "argument 'b' of the partial" in code_of(third).parts
    with pytest.raises(Undigestible, match="argument 1 of the partial"):
        code_of(functools.partial(g, threading.Lock()))


def test_callable_objects_count_with_their_state_and_class() -> None:
    """What `__call__` does, and what the object holds."""
    source = "class A:\n def __init__(self, n): self.n = n\n def __call__(self, x): return x + {}"
    one, other = space(source.format(1)), space(source.format(2))
    assert len({code_of(call).digest for call in (one.A(1), one.A(2), other.A(1))}) == 3
    assert code_of(one.A(1)).digest == code_of(one.A(1)).digest
    assert "method __call__() of class A in pipeline" in code_of(one.A(1)).parts


def test_classes_and_c_functions_can_be_called_too() -> None:
    """A class counts with its methods, a C function by its name and its package."""
    source = "class A:\n def __init__(self, x): self.x = x + {}"
    assert code_of(space(source.format(1)).A).digest != code_of(space(source.format(2)).A).digest
    assert code_of(len).digest == code_of(len).digest != code_of(sum).digest
    assert "Python" in code_of(len).parts
    assert code_of(np.sin).parts["package numpy"] == np.__version__
    assert code_of(functools.lru_cache(lambda x: x)).digest != code_of(functools.lru_cache(lambda x: -x)).digest


def test_a_task_is_its_function() -> None:
    """Its options don't count, a version does instead of the code."""
    fn = space("def f(x): return x").f
    task = woflo.task(fn)
    assert code_of(task).digest == code_of(fn).digest == code_of(task.options(retries=3, timeout=1)).digest
    assert code_of(task, version="3").digest == code_of(fn, version="3").digest


def test_a_version_stands_for_the_code() -> None:
    """With a version the code may change without a new key, and the name and the version count."""
    first, second = space("def f(x): return 1").f, space("def f(x): return 2").f
    assert (
        code_of(first, version="3").digest == code_of(second, version="3").digest != code_of(first, version="4").digest
    )
    assert code_of(first, version="3").parts == {"version": "3"}
    assert code_of(first, version="3").digest != code_of(space("def g(x): return 1").g, version="3").digest
    assert changed({"version": "3"}, {"version": "4"}) == "version (3 → 4)"


# ---- what changed, in words


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"f() itself": "1", "helper g() in x.py": "2"}, {"f() itself": "1", "helper g() in x.py": "3"}, "helper g() in x.py"),
        ({"f() itself": "1", "global N in x.py": "2"}, {"f() itself": "2", "global N in x.py": "3"}, "f() itself, and 1 more"),
        ({"f() itself": "1"}, {"f() itself": "2", "helper g() in x.py": "3"}, "f() itself"),
        ({"f() itself": "1", "global N in x.py": "2"}, {"f() itself": "1"}, "global N in x.py"),
        ({"f() itself": "1"}, {"f() itself": "1", "global N in x.py": "2"}, "global N in x.py"),
        ({"f() itself": "1", "package numpy": "2.0"}, {"f() itself": "1", "package numpy": "2.1"}, "package numpy (2.0 → 2.1)"),
        ({"package numpy": "2.0", "f() itself": "1"}, {"package numpy": "2.1", "f() itself": "2"}, "f() itself, and 1 more"),
        ({"f() itself": "1", "Python": "3.11"}, {"f() itself": "2", "Python": "3.12"}, "Python (3.11 → 3.12), and 1 more"),
        ({"f() itself": "1"}, {"f() itself": "1"}, "which of its parts goes by which name"),
        ({"f() itself": "1"}, {"version": "1"}, "version (none → 1)"),
    ],
)  # fmt: skip
def test_what_changed_is_said_in_one_line(old: dict[str, str], new: dict[str, str], said: str) -> None:
    """The first of what the user wrote comes first, with how many more; of versions both."""
    assert changed(old, new) == said


# ---- other processes, other threads


PROGRAM = """
    import sys, functools
    N = {"a", "b", "c", "d"}
    class Model:
        rates = {"x": 1.5, "y": frozenset("pqrst")}
        def fit(self, x): return [helper(y) for y in x if y in {"u", "v", "w"}]
    def helper(x, near=("k", "l")): return x in N, near, MODEL
    MODEL = Model()
    def scaled(scale): return lambda x: helper(x) and scale
    def f(x): return Model().fit(x), scaled(2)(x), functools.reduce(helper, x)
"""


def test_codes_are_the_same_in_every_process(tmp_path: Path) -> None:
    """As a program, imported, and whatever the hash seed."""
    (tmp_path / "program.py").write_text(
        textwrap.dedent(PROGRAM)
        + "if __name__ == '__main__':\n from woflo._code import code_of\n print(code_of(helper).digest)\n"
    )
    (tmp_path / "importing.py").write_text(
        "import program\nfrom woflo._code import code_of\nfrom woflo._fingerprint import digest\n"
        "print(code_of(program.f).digest, digest(program.MODEL).hex(), digest(program.scaled(3)).hex())"
    )
    found = set()
    for seed in ("0", "1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join([os.getcwd(), str(tmp_path)]),
        }
        done = subprocess.run(
            [sys.executable, str(tmp_path / "importing.py")],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        found.add(done.stdout)
    assert len(found) == 1


def outcome(program: Any) -> tuple[str, str]:
    """What a worker finds."""
    return code_of(program["f"]).digest, digest(program["MODEL"]).hex()


@pytest.mark.parametrize("process", ["ForkProcess", "SpawnProcess"])
def test_codes_are_the_same_in_workers(process: str) -> None:
    """Functions of a script travel by value; in the worker they have the digests that they had here."""
    from woflo import runners

    names = space(PROGRAM, "__main__").names
    runner = runners.MultiprocessTaskRun.using(process_type=getattr(runners, process))
    given = {"f": names["f"], "MODEL": names["MODEL"]}
    assert woflo.task(outcome, runner=runner)(given).get_result() == outcome(given)


def test_several_threads_may_ask_at_once() -> None:
    """All of them get the same digest."""
    names = space(PROGRAM).names
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(code_of(names["f"]).digest)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_what_was_surveyed_can_be_freed() -> None:
    """Functions, classes and modules that nobody holds any more go, with what was remembered of them."""
    gc.collect()
    known = len(_code._known)
    module = space(
        "class A:\n @property\n def p(self): return f\ndef g(): return A()\ndef f(x, y=[1]): return g(), f, y"
    )
    code_of(module.f)
    held = [weakref.ref(one) for one in (module.f, module.g, module.A, module.module)]
    assert len(_code._known) > known
    del module
    gc.collect()
    assert [one() for one in held] == [None] * 4
    assert len(_code._known) == known
