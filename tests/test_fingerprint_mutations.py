"""Are keys right? A small project is edited in every way that a walk over its syntax finds, one edit at a time.

An edit that can change what `pipeline.train` returns has to change its code digest; any other edit should not. What can change
it is decided without the code under test: by running the function, and by where the edit is. `tests/mutants` marks what the
function doesn't depend on by names that begin with `_spare`.

`python -m tests.test_fingerprint_mutations` prints the score.
"""

from __future__ import annotations

import ast
import contextlib
import io
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from woflo._code import code_of

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent / "mutants"
MODULES = ("settings", "wrappers", "cleaning", "models", "records", "pipeline")  # in the order of their imports
SOURCES = {name: (FOLDER / f"{name}.py").read_text(encoding="utf-8") for name in MODULES}

ROWS = ["a,1.5,good", "b,2.25,good", "c?,9,good", "# no", "d,7,fair", "e,-30,good", "f,n/a,good", "g,8.5,bad", "h,5"]
CALLS: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    ((ROWS,), {}),
    (([],), {}),
    ((ROWS[:5], 1), {"kind": "line", "scale": 2}),
    ((["x,70,good", "y,80,good", "z,-90,fair", "q,3,fair", "r,41.5,good", "s,9,good"], 3), {"scale": 0}),
    ((["x,1x,good", "y,2,good"],), {}),
)


# ---- loading and running


class Project:
    """The modules of one version of the project, importable inside the `with` block."""

    def __init__(self, changed: dict[str, CodeType]) -> None:
        self.codes = {**ORIGINAL, **changed}

    def __enter__(self) -> ModuleType:
        self.before = {name: sys.modules.pop(name, None) for name in MODULES}
        try:
            for name, code in self.codes.items():
                module = sys.modules[name] = ModuleType(name)
                module.__file__ = str(FOLDER / f"{name}.py")
                exec(code, module.__dict__)
        except BaseException:
            self.__exit__()
            raise
        return sys.modules["pipeline"]

    def __exit__(self, *_: object) -> None:
        for name, module in self.before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def compiled(name: str, source: str | ast.Module) -> CodeType:
    tree = ast.fix_missing_locations(source) if isinstance(source, ast.Module) else source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what looks like a mistake: it is one
        return compile(tree, str(FOLDER / f"{name}.py"), "exec", dont_inherit=True)


ORIGINAL = {name: compiled(name, source) for name, source in SOURCES.items()}


@dataclass
class Outcome:
    """What one version of the project comes to."""

    key: str = ""
    results: list[str] = field(default_factory=list)


def outcome(changed: dict[str, CodeType]) -> Outcome | None:
    """The key and the results of one version; None if it can't be loaded."""
    project = Project(changed)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # `_spare_main` may run
            pipeline = project.__enter__()
    except Exception:
        return None
    found = Outcome()
    try:
        found.key = code_of(pipeline.train).digest
        for args, kwargs in CALLS:
            try:
                found.results.append(repr(pipeline.train(*args, **kwargs)))
            except Exception as error:
                found.results.append(f"{type(error).__name__}: {error}")
    finally:
        project.__exit__()
    return found


# ---- edits


@dataclass
class Edit:
    """A change of one module; `neutral`: it is where nothing depends on it."""

    module: str
    line: int
    what: str
    code: CodeType | None  # None: it doesn't compile
    neutral: bool

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line} {self.what}"


class Slot:
    """A place in a tree in which something else can be put for a while."""

    def __init__(self, owner: Any, key: Any) -> None:
        self.owner, self.key = owner, key

    def get(self) -> Any:
        return self.owner[self.key] if isinstance(self.owner, list) else getattr(self.owner, self.key)

    def put(self, value: Any) -> None:
        if isinstance(self.owner, list):
            self.owner[self.key] = value
        else:
            setattr(self.owner, self.key, value)


def slots(tree: ast.AST) -> Iterator[tuple[ast.AST, Slot, Any]]:
    """Every child of every node, with its parent and its place."""
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if isinstance(value, list):
                for index, item in enumerate(value):
                    yield parent, Slot(value, index), item
            else:
                yield parent, Slot(parent, name), value


BINARY = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
SWAPS: dict[type, type] = {**BINARY, **COMPARISONS, ast.And: ast.Or, ast.Or: ast.And}


SHARED = (ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.expr_context)  # the parser makes each of them once


def other_constant(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return value + "x" if isinstance(value, str) else 0


def replacements(parent: ast.AST, node: Any, names: dict[type, list[str]]) -> Iterator[tuple[str, Any]]:
    """What can stand in the place of a node, one token or one statement from it."""
    if isinstance(node, ast.Constant):
        yield f"{node.value!r}", ast.Constant(other_constant(node.value))
    elif type(node) in SWAPS:
        yield type(node).__name__, SWAPS[type(node)]()
    elif isinstance(node, ast.UnaryOp):
        yield type(node.op).__name__, node.operand
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id, ast.Name(after(node.id, names[ast.Name]), node.ctx)
    elif isinstance(node, ast.Attribute):
        yield f".{node.attr}", ast.Attribute(node.value, after(node.attr, names[ast.Attribute]), node.ctx)
    if isinstance(node, ast.Call):
        if len(node.args) > 1:
            yield "arguments swapped", ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
        if node.keywords:
            yield "keyword dropped", ast.Call(node.func, node.args, node.keywords[:-1])
    if (
        isinstance(node, (ast.List, ast.Tuple, ast.Set))
        and len(node.elts) > 1
        and isinstance(parent, ast.expr | ast.Assign)
    ):
        yield "element dropped", type(node)(node.elts[:-1], *([node.ctx] if hasattr(node, "ctx") else []))
    if isinstance(node, ast.Dict) and len(node.keys) > 1:
        yield "item dropped", ast.Dict(node.keys[:-1], node.values[:-1])
    if isinstance(node, ast.stmt) and not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Pass)):
        yield f"{type(node).__name__} removed", ast.Pass()


def after(name: str, known: list[str]) -> str:
    return known[(known.index(name) + 1) % len(known)]


def attributes(node: ast.AST) -> Iterator[tuple[str, str, Any]]:
    """What can be put into a field of a node as a whole."""
    if isinstance(node, (ast.If, ast.IfExp)):
        yield "test negated", "test", ast.UnaryOp(ast.Not(), node.test)
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        for index in range(len(node.decorator_list)):
            yield "decorator removed", "decorator_list", node.decorator_list[:index] + node.decorator_list[index + 1 :]
    if isinstance(node, ast.ClassDef) and node.bases:
        yield "bases removed", "bases", []
    if isinstance(node, ast.arguments) and node.defaults:
        yield "default removed", "defaults", node.defaults[1:]
    if isinstance(node, ast.comprehension) and node.ifs:
        yield "condition removed", "ifs", []
    if isinstance(node, ast.ExceptHandler):
        yield "exception changed", "type", ast.Name("KeyError", ast.Load())


def neutral_nodes(tree: ast.Module) -> set[int]:
    """The ids of nodes that `train` doesn't depend on: what is spare, docstrings, annotations."""
    found: set[int] = set()
    for statement in tree.body:
        if is_spare(statement):
            found.update(id(node) for node in ast.walk(statement))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and has_docstring(node):
            found.update((id(node.body[0]), id(node.body[0].value)))  # type: ignore[attr-defined]
        for name in ("annotation", "returns"):
            if isinstance(inside := getattr(node, name, None), ast.AST):
                found.update(id(one) for one in ast.walk(inside))
    return found


def is_spare(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):  # the module is a program, too
        return True
    if isinstance(statement, ast.Assign):
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
    else:
        names = [getattr(statement, "name", "")]
    return all(name.lower().startswith("_spare") for name in names)


def has_docstring(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def tokens_changed() -> Iterator[Edit]:
    """One token, argument, decorator, condition or statement at a time, wherever the walk leads."""
    for module, source in SOURCES.items():
        tree = ast.parse(source)
        neutral = neutral_nodes(tree)
        names = {
            ast.Name: sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}),
            ast.Attribute: sorted({node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}),
        }
        for parent, slot, node in list(slots(tree)):
            if not isinstance(node, ast.AST) or isinstance(parent, ast.ImportFrom) or is_future(node):
                continue
            line = getattr(node, "lineno", getattr(parent, "lineno", 0))
            aside = id(parent if isinstance(node, SHARED) else node) in neutral
            for what, new in replacements(parent, node, names):
                yield edited(module, line, what, aside, tree, slot, new)
            for what, name, new in attributes(node):
                yield edited(module, line, what, aside, tree, Slot(node, name), new)


def is_future(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def edited(module: str, line: int, what: str, neutral: bool, tree: ast.Module, slot: Slot, new: Any) -> Edit:
    before = slot.get()
    slot.put(new)
    try:
        code = compiled(module, tree)
    except (SyntaxError, ValueError, TypeError):
        code = None
    finally:
        slot.put(before)
    return Edit(module, line, what, code, neutral)


# ---- edits that change nothing


def neutral_edits() -> Iterator[Edit]:
    """Comments, blank lines, another layout, docstrings, annotations, new names for locals, strangers, another order."""
    for module, source in SOURCES.items():
        for what, line, changed in (
            *commented(source), *documented(source), *annotated(source), *renamed(source), *joined_by_strangers(source),
            *reordered(source), ("laid out anew", 1, ast.unparse(ast.parse(source))),
            ("spread over lines", 1, source.replace(", ", ",\n    ").replace("(\n", "(")),
        ):  # fmt: skip
            try:
                yield Edit(module, line, what, compiled(module, changed), neutral=True)
            except SyntaxError:  # a line can't be broken everywhere
                continue


def commented(source: str) -> Iterator[tuple[str, int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            lines = source.splitlines()
            place = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))]) - 1
            lines[place:place] = ["", " " * node.col_offset + "# why"]
            yield "comment", node.lineno, "\n".join(lines)


def documented(source: str) -> Iterator[tuple[str, int, ast.Module]]:
    for place, node in enumerate(ast.walk(ast.parse(source))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
            tree = ast.parse(source)
            here: Any = list(ast.walk(tree))[place]
            if not has_docstring(here):
                here.body.insert(0, ast.Expr(ast.Constant("What it is.")))
            elif len(here.body) > 1:
                del here.body[0]
            yield "docstring", getattr(node, "lineno", 1), tree


def annotated(source: str) -> Iterator[tuple[str, int, ast.Module]]:
    for place, node in enumerate(ast.walk(ast.parse(source))):
        if isinstance(node, (ast.arg, ast.FunctionDef)):
            tree = ast.parse(source)
            here: Any = list(ast.walk(tree))[place]
            name = "annotation" if isinstance(here, ast.arg) else "returns"
            setattr(here, name, None if getattr(here, name) else ast.Name("object", ast.Load()))
            yield "annotation", node.lineno, tree


def renamed(source: str) -> Iterator[tuple[str, int, ast.Module]]:
    for place, node in enumerate(ast.walk(ast.parse(source))):
        inside = list(ast.walk(node))
        if not isinstance(node, ast.FunctionDef) or any(
            isinstance(one, ast.FunctionDef | ast.Lambda) for one in inside[1:]
        ):
            continue
        kept = {one.arg for one in inside if isinstance(one, ast.arg)}
        kept |= {one.name for one in inside if isinstance(one, ast.ExceptHandler) and one.name}
        local = {one.id for one in inside if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)} - kept
        for name in sorted(local):
            tree = ast.parse(source)
            for one in ast.walk(list(ast.walk(tree))[place]):
                if isinstance(one, ast.Name) and one.id == name:
                    one.id = f"{name}_too"
            yield f"local {name} renamed", node.lineno, tree


def joined_by_strangers(source: str) -> Iterator[tuple[str, int, ast.Module]]:
    for place in range(2, len(ast.parse(source).body) + 1):
        tree = ast.parse(source)
        strangers = ast.parse("import json\nstranger = [1]\ndef passer_by(x=stranger):\n    return json.dumps(x)\n")
        tree.body[place:place] = strangers.body
        yield "strangers", tree.body[place - 1].lineno, tree


def reordered(source: str) -> Iterator[tuple[str, int, ast.Module]]:
    body = ast.parse(source).body
    for place in range(len(body) - 1):
        if all(isinstance(one, ast.FunctionDef) and not one.decorator_list for one in body[place : place + 2]):
            tree = ast.parse(source)
            tree.body[place], tree.body[place + 1] = tree.body[place + 1], tree.body[place]
            yield "functions swapped", body[place].lineno, tree


# ---- the score


def same_code(one: CodeType, other: CodeType) -> bool:
    """Whether the compiler has made the same of both, but for line numbers."""
    names = (
        "co_code",
        "co_names",
        "co_varnames",
        "co_freevars",
        "co_cellvars",
        "co_exceptiontable",
        "co_flags",
        "co_name",
    )
    if any(getattr(one, name) != getattr(other, name) for name in names) or len(one.co_consts) != len(other.co_consts):
        return False
    return all(
        same_code(mine, its)
        if isinstance(mine, CodeType) and isinstance(its, CodeType)
        else (type(mine), repr(mine)) == (type(its), repr(its))
        for mine, its in zip(one.co_consts, other.co_consts, strict=True)
    )


@dataclass
class Score:
    """How many edits there were, and what became of them."""

    counts: Counter[str] = field(default_factory=Counter)
    survivors: list[str] = field(default_factory=list)  # edits that can change the result and still hit
    lost: list[str] = field(default_factory=list)  # edits that can't and miss
    contradictions: list[str] = field(
        default_factory=list
    )  # edits where nothing depends on them, yet the result differs

    def line(self) -> str:
        effective, missed, differing, neutral, hit = (
            self.counts[name] for name in ("effective", "effective, missed", "differing", "neutral", "neutral, hit")
        )
        return (
            f"{effective} edits that can change the result: {missed} miss the cache ({missed / effective:.1%}; "
            f"{differing} of them changed it when run). "
            f"{neutral} edits that can't: {hit} still hit ({hit / neutral:.1%})."
        )


def score() -> Score:
    base, found = outcome({}), Score()
    assert base is not None
    for edit in (*tokens_changed(), *neutral_edits()):
        if edit.code is None:
            found.counts["not compiled"] += 1
            continue
        now = outcome({edit.module: edit.code})
        if now is None:
            found.counts["not loaded"] += 1
            continue
        differs, missed = now.results != base.results, now.key != base.key
        found.counts["differing"] += differs
        neutral = edit.neutral or same_code(edit.code, ORIGINAL[edit.module])
        if neutral and differs:
            found.contradictions.append(str(edit))
        if neutral:
            found.counts["neutral"] += 1
            found.counts["neutral, hit"] += not missed
            if missed:
                found.lost.append(str(edit))
        else:
            found.counts["effective"] += 1
            found.counts["effective, missed"] += missed
            if not missed:
                found.survivors.append(f"{edit}{' (the result differs!)' if differs else ''}")
    return found


def test_the_same_project_loaded_again_has_the_same_key() -> None:
    """A key doesn't depend on when and how often modules are loaded."""
    first, second = outcome({}), outcome({})
    assert first is not None
    assert first == second


def test_running_does_not_change_the_key() -> None:
    """What Python remembers for itself (lru_cache, singledispatch) is no part of the code."""
    with Project({}) as pipeline:
        before = code_of(pipeline.train)
        for args, kwargs in CALLS:
            with contextlib.suppress(ValueError):  # of rows that can't be read
                pipeline.train(*args, **kwargs)
        after = code_of(pipeline.train)
    assert (after.digest, after.parts) == (before.digest, before.parts)


@pytest.mark.timeout(300)  # it computes for 20 s, on a core of its own
def test_keys_follow_what_can_change_the_result() -> None:
    """Every edit that can change the result misses the cache; of the others, at least 95 in 100 still hit."""
    found = score()
    print(found.line(), *found.lost, sep="\n")
    assert found.contradictions == []
    assert found.survivors == []
    assert found.counts["effective"] >= 300
    assert found.counts["neutral, hit"] >= 0.95 * found.counts["neutral"]


def main() -> None:
    found = score()
    print(found.line())
    for title, edits in (("hit, but can change it", found.survivors), ("missed, but can't", found.lost)):
        for edit in edits:
            print(f"  {title}: {edit}")
    print(dict(found.counts))


if __name__ == "__main__":
    main()
