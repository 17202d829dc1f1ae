"""WorkflowConfig: which fields count, and how. WorkflowProducts: what lasts, and what can be read of it."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from loguru import logger

from woflo import UsageError
from woflo._fingerprint import digest
from woflo.errors import StoreError
from woflo.store import Store
from woflo.workflow import WorkflowConfig, WorkflowProducts

ROOT = Path(__file__).parent.parent


class Fit(WorkflowConfig):
    _identity_fields = ("degree", "raw")
    degree: int = 2
    raw: Path = Path("nowhere.csv")
    names: list = ["a"]  # noqa: RUF012 - it is copied
    verbose = False

    def describe(self):
        return f"degree {self.degree}"

    @property
    def double(self):
        return 2 * self.degree


@pytest.fixture
def log():
    """What is logged, as lines."""
    found = []
    sink = logger.add(lambda message: found.append(message.record["message"]), level=0)
    yield found
    logger.remove(sink)


# ------------------------------------------------------------------ WorkflowConfig


def test_fields_have_defaults_and_can_be_given():
    """What isn't given is the class's; methods, properties and private names are no fields."""
    fit = Fit(degree=5)
    assert (fit.degree, fit.verbose, fit.double, fit.describe()) == (5, False, 10, "degree 5")
    assert repr(fit) == "Fit(raw=PosixPath('nowhere.csv'), names=['a'], verbose=False, degree=5)"


def test_defaults_are_not_shared():
    """A mutable default is copied for each configuration."""
    one, other = Fit(), Fit()
    one.names.append("b")
    assert (other.names, Fit.names) == (["a"], ["a"])


@pytest.mark.parametrize("name", ["degre", "double", "describe", "_private"])
def test_unknown_fields(name):
    """A field that isn't declared is named, with a close match or all that there are."""
    with pytest.raises(UsageError, match=f"Fit has no field '{name}'.*degree"):
        Fit(**{name: 3})


def test_fields_without_a_default():
    """They have to be given."""

    class Run(WorkflowConfig):
        station: str
        days: int = 7

    with pytest.raises(UsageError, match="Run needs station"):
        Run(days=3)
    assert Run(station="north").days == 7


def test_subclasses_add_fields():
    """Fields of a base class belong to the subclass too."""

    class Wide(Fit):
        width: float = 1.0

    wide = Wide(width=2.0, degree=4)
    assert (wide.width, wide.degree, wide.verbose) == (2.0, 4, False)


def test_a_plain_configuration_takes_any_field():
    """WorkflowConfig itself declares nothing."""
    assert WorkflowConfig(a=1, b=2).b == 2


def test_a_dataclass_serves():
    """Fields, `__init__` and `repr` are then the dataclass's."""

    @dataclasses.dataclass
    class Run(WorkflowConfig):
        station: str
        days: int = 7
        _identity_fields = ("station",)

    assert Run("north").cache_key() == Run("north", 8).cache_key() != Run("south").cache_key()


def test_only_identity_fields_count():
    """Other fields may change; types count: 2 isn't 2.0."""
    assert Fit().cache_key() == Fit(verbose=True).cache_key()
    assert len({Fit(degree=degree).cache_key() for degree in (2, 2.0, "2", None, [2], (2,))}) == 6


def test_without_identity_there_is_no_key():
    """None: then existence counts."""
    assert WorkflowConfig(a=1).cache_key() is None
    assert WorkflowConfig(a=1).cache_key(requires={"x": "1"}) is None
    assert WorkflowConfig(a=1, _identity_fields=["a"]).cache_key() is not None


def test_what_is_required_counts():
    """By name and digest; the order doesn't matter."""
    fit = Fit()
    assert fit.cache_key({"a": "1", "b": "2"}) == fit.cache_key(requires={"b": "2", "a": "1"})
    different = [{}, {"a": "1"}, {"a": "1", "b": "2"}, {"a": "2", "b": "1"}, {"a": "1b", "": "2"}, {"a": None}]
    assert len({fit.cache_key(requires) for requires in different}) == len(different)


def test_keys_are_the_same_in_every_process():
    """Whatever the hash seed."""
    code = """
from woflo.workflow import WorkflowConfig
class Fit(WorkflowConfig):
    _identity_fields = ["names", "degree"]
    degree: int = 2
    names = {"a", "b", "c"}
print(Fit().cache_key({"x": "1"}))
"""
    keys = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        keys.add(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
    assert len(keys) == 1


def test_a_path_counts_with_its_content(tmp_path):
    """Touching a file changes nothing, changing it does; also within the clock's resolution."""
    raw = tmp_path / "raw.csv"
    raw.write_text("1,2")
    before = Fit(raw=raw).cache_key()
    os.utime(raw, (1, 1))
    assert Fit(raw=raw).cache_key() == before
    os.utime(raw)
    assert Fit(raw=raw).cache_key() == before
    raw.write_text("1,3")
    assert Fit(raw=raw).cache_key() != before
    raw.write_text("1,2")
    assert Fit(raw=raw).cache_key() == before
    raw.unlink()
    assert Fit(raw=raw).cache_key() != before


def test_a_large_file_is_read_once(tmp_path, monkeypatch):
    """Its digest is remembered as long as it isn't touched."""
    raw = tmp_path / "raw.csv"
    raw.write_text("1,2")
    os.utime(raw, (1, 1))
    monkeypatch.setattr("time.time_ns", lambda: 2**62)
    before = Fit(raw=raw).cache_key()
    asked = []
    monkeypatch.setattr("woflo._identity.digest", lambda value, name: asked.append(value) or digest(value, name))
    Fit(raw=raw).cache_key()
    assert raw not in asked
    os.utime(raw, (2, 2))
    Fit(raw=raw).cache_key()
    assert raw in asked
    assert Fit(raw=raw).cache_key() == before


def test_a_file_that_was_just_written_is_not_trusted(tmp_path, monkeypatch):
    """It may be written again within the resolution of the clock: then nothing but its content tells."""
    raw = tmp_path / "raw.csv"
    raw.write_text("1,2")
    state = raw.stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: state)
    before = Fit(raw=raw).cache_key()
    raw.write_text("1,3")
    assert Fit(raw=raw).cache_key() != before


def test_a_folder_counts_with_its_files(tmp_path):
    """A path of a folder of raw files: each of them counts."""
    (tmp_path / "a.csv").write_text("1")
    before = Fit(raw=tmp_path).cache_key()
    assert Fit(raw=tmp_path).cache_key() == before
    (tmp_path / "b.csv").write_text("1")
    assert Fit(raw=tmp_path).cache_key() != before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"_identity_fields": ["a", "b"], "a": 1}, "WorkflowConfig has no 'b', which its _identity_fields name"),
        ({"_identity_fields": "a", "a": 1}, r"is a list of names: write \['a'\]"),
        ({"_identity_fields": ["a"], "a": threading.Lock()}, "leave it out of _identity_fields"),
    ],
)
def test_an_identity_that_can_not_be(fields, said):
    """It is a UsageError that names the field."""
    with pytest.raises(UsageError, match=said):
        WorkflowConfig(**fields).cache_key()


# ------------------------------------------------------------------ WorkflowProducts


@pytest.fixture(params=["folder", "dict"])
def products(request, tmp_path):
    return WorkflowProducts(tmp_path / "products" if request.param == "folder" else {})


def test_save_and_load(products):
    """What was saved is loaded, by the same object and by another one over the same place."""
    products.save("table", {"x": [1, 2.5], "y": None})
    products.save("big", b"0" * 100_000)
    again = WorkflowProducts(products._store)
    assert (again.load("table"), again.load("big")) == ({"x": [1, 2.5], "y": None}, b"0" * 100_000)
    assert again.exists("table")
    assert not again.exists("tables")
    assert again.names() == ["big", "table"]


def test_fresh_means_saved_under_this_key(products):
    """Without a key, or under another one, a product is not fresh."""
    products.save("a", 1, cache_key="k1")
    products.save("b", 1)
    assert products.fresh("a", "k1")
    assert not products.fresh("a", "k2")
    assert not products.fresh("a", "")
    assert not products.fresh("b", "k1")
    assert not products.fresh("c", "k1")


def test_saving_again_takes_its_place(products):
    """The later one counts, and the bytes of the earlier one go with it, unless another product has the same."""
    one, other = "1" * 5000, "2" * 5000
    first = products.save("a", one)
    products.save("b", one)
    products.save("a", other)
    assert (products.load("a"), products.load("b")) == (other, one)
    assert products._store.has(first)
    products.save("b", other)
    assert not products._store.has(first)
    products.remove("a")
    assert products.load("b") == other
    products.remove("b")
    assert list(products._store.mapping) == []


def test_bytes_that_others_use_stay(products):
    """Somebody else's traces in the same store keep what they speak of."""
    from woflo.store import Trace

    value = "1" * 5000
    mark = products.save("a", value)
    trace = Trace(
        task="other", code="", parts={}, options={}, inputs={}, outputs={"result": mark}, kept=True, seconds=0.0,
        versions={}, when="", small=None,
    )  # fmt: skip
    products._store.record("0" * 64, trace)
    products.remove("a")
    assert products._store.get(mark) == value
    assert products.names() == []


def test_removing_what_is_not_there(products):
    """A KeyError, as for any mapping; so is loading it."""
    with pytest.raises(KeyError):
        products.remove("a")
    with pytest.raises(KeyError):
        products.load("a")


def test_what_can_not_be_saved(products):
    """It raises and is recorded, so that it is known next time; nothing stays of what was there before."""
    products.save("solver", "1" * 5000, cache_key="k1")
    with pytest.raises(Exception, match="can't be kept"):
        products.save("solver", threading.Lock(), cache_key="k2", inputs={"step": "make"})
    assert not products.exists("solver")
    assert not products.fresh("solver", "k2")
    assert products.manifest()["solver"]["saved"] is False
    assert products.manifest()["solver"]["cache key"] == "k2"
    with pytest.raises(KeyError):
        products.load("solver")


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/passwd", "a/b", "..", "nul\0", "trace/00", "ü", "x" * 5000, "config\n"]
)
def test_names_never_become_paths(name, tmp_path):
    """Any text is a name, and nothing is written outside of the folder."""
    products = WorkflowProducts(tmp_path / "here" / "products")
    products.save(name, "1" * 5000)
    assert products.load(name) == "1" * 5000
    assert products.names() == [name]
    assert os.listdir(tmp_path) == ["here"]
    assert os.listdir(tmp_path / "here") == ["products"]
    assert set(os.listdir(tmp_path / "here" / "products")) <= {"trace", "blob", "manifest.json"}


@pytest.mark.parametrize("name", ["", None, 3, ("a",)])
def test_what_is_no_name(products, name):
    """A UsageError."""
    with pytest.raises(UsageError, match="name is a text"):
        products.save(name, 1)


def test_the_manifest_can_be_read(tmp_path):
    """`manifest.json` says of each product what it is and what it was made from; it follows each change."""
    products = WorkflowProducts(tmp_path / "products")
    inputs = {
        "config": {"degree": 3, "raw": "data.csv"},
        "requires": {"table": "ab12"},
        "step": "fit",
        "seconds": 1.25,
        "code": "cd34",
        "parts": {"fit() itself": "ef56"},
    }
    mark = products.save("model", [1.5], cache_key="k1", inputs=inputs)
    manifest = json.loads((tmp_path / "products" / "manifest.json").read_text())
    when = manifest["model"].pop("when")
    assert when.endswith("Z")
    assert manifest["model"] == {
        "saved": True,
        "digest": mark,
        "cache key": "k1",
        "step": "fit",
        "seconds": 1.25,
        "config": {"degree": "3", "raw": "data.csv"},
        "requires": {"table": "ab12"},
        "code": {"fit() itself": "ef56"},
    }
    assert stat.S_IMODE((tmp_path / "products" / "manifest.json").stat().st_mode) == 0o600
    products.save("plot", b"")
    assert list(json.loads((tmp_path / "products" / "manifest.json").read_text())) == ["model", "plot"]
    products.remove("model")
    assert list(json.loads((tmp_path / "products" / "manifest.json").read_text())) == ["plot"]


def test_the_manifest_is_written_once_for_many(tmp_path, monkeypatch):
    """In a block, when it ends."""
    written = []
    monkeypatch.setattr("woflo._products._write", lambda _, content: written.append(list(content)))
    products = WorkflowProducts(tmp_path / "products")
    with products.together():
        for number in range(5):
            products.save(f"p{number}", number)
        with products.together():
            products.remove("p0")
    assert written == [["p1", "p2", "p3", "p4"]]


def test_a_manifest_that_can_not_be_written(tmp_path, log):
    """It is said, and what was saved is safe; no file is left half-written."""
    products = WorkflowProducts(tmp_path / "products")
    products.save("a", 1)
    (tmp_path / "products" / "manifest.json").unlink()
    (tmp_path / "products" / "manifest.json").mkdir()
    products.save("b", 2)
    assert len(log) == 1
    assert "manifest" in log[0]
    assert products.load("b") == 2
    assert [name for name in os.listdir(tmp_path / "products") if name.endswith(".tmp")] == []


def test_nothing_is_made_before_something_is_saved(tmp_path):
    """Asking leaves no folder."""
    products = WorkflowProducts(tmp_path / "products")
    assert not products.exists("a")
    assert products.names() == []
    assert products.manifest() == {}
    assert os.listdir(tmp_path) == []


def test_a_damaged_product_is_a_missing_one(tmp_path, log):
    """A record or value that was changed is said and counts as missing."""
    products = WorkflowProducts(tmp_path / "products")
    products.save("a", "1" * 5000, cache_key="k")
    (blob,) = (tmp_path / "products" / "blob").rglob("*/*")
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(KeyError):
        products.load("a")
    assert not products.exists("a")
    (trace,) = (tmp_path / "products" / "trace").rglob("*/*")
    trace.chmod(0o600)
    trace.write_bytes(trace.read_bytes().replace(b'"k"', b'"q"', 1))
    assert products._trace("a") is None
    assert products._damaged("a")
    assert len(log) == 2


def test_a_store_of_ones_own():
    """A Store serves, with what it was told: a safe one writes no pickle."""
    products = WorkflowProducts(Store({}, safe=True))
    products.save("a", [1, 2])
    with pytest.raises(Exception, match="pickle"):
        products.save("b", Fit())
    with pytest.raises((UsageError, StoreError)):
        WorkflowProducts(3)


def test_arrays_are_kept_as_they_are(tmp_path):
    """Type, shape and bytes, in C or Fortran order."""
    numpy = pytest.importorskip("numpy", reason="numpy isn't installed")
    products = WorkflowProducts(tmp_path / "products")
    values = numpy.asfortranarray(numpy.arange(6000, dtype="f4").reshape(60, 100))
    products.save("mesh", values)
    again = products.load("mesh")
    assert (again.dtype, again.shape) == (values.dtype, values.shape)
    assert (again == values).all()
