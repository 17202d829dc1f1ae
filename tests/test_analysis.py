"""An analysis as a scientist would write it: raw CSV files, a cleaned table, a model, a plot. It is the README's.

Each session is a program of its own, started on the file as it is then; the file and the raw data are edited in between.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

for package in ("numpy", "matplotlib"):
    pytest.importorskip(package, reason=f"{package} isn't installed")

pytestmark = pytest.mark.timeout(300)  # dozens of programs that load numpy and matplotlib

ROOT = Path(__file__).parent.parent
SESSION = """
import seasons
from woflo.workflow import WorkflowProducts, WorkflowRunner
runner = WorkflowRunner(seasons, seasons.Config(), WorkflowProducts("products"))
print(runner.why("plot"))
runner.observe(lambda event, name: print(event, name))
open("seasons.png", "wb").write(runner.get("plot"))
"""
ALL = ["table", "model", "residuals", "plot"]


class Analysis:
    """The README's `seasons.py` in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.file = folder, folder / "seasons.py"
        blocks = re.findall(
            r"^```python\n(# seasons\.py\n.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
        )
        assert len(blocks) == 1
        self.file.write_text(blocks[0], "utf-8")
        self.python("import seasons; seasons.measure()")

    def python(self, code):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    def run(self):
        """A session: why the plot isn't up to date, what was made, and what was loaded."""
        why, *events = self.python(SESSION)
        pairs = [event.split() for event in events]
        return (
            why,
            [name for event, name in pairs if event == "built"],
            [name for event, name in pairs if event == "loaded"],
        )

    def edit(self, old, new):
        text = self.file.read_text("utf-8")
        assert text.count(old) == 1
        self.file.write_text(text.replace(old, new), "utf-8")


@pytest.fixture
def analysis(tmp_path):
    return Analysis(tmp_path)


def test_it_makes_a_plot_of_what_was_measured(analysis):
    """The picture is a PNG, the table has no gaps and no broken sensors, the fit finds the season that is in the data."""
    assert analysis.run() == ("first run", ALL, [])
    assert (analysis.folder / "seasons.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    code = """
from woflo.workflow import WorkflowProducts
products = WorkflowProducts("products")
table, (mean, cosine, sine) = products.load("table"), products.load("model")
print(len(table), table[:, 1].max() < 60, round(mean), round((cosine**2 + sine**2) ** 0.5))
"""
    assert analysis.python(code) == ["528 True 8 9"]


def test_nothing_runs_if_nothing_changed(analysis):
    """A second session loads the plot; touching a raw file, comments and formatting change nothing."""
    analysis.run()
    assert analysis.run() == ("up to date", [], ["plot"])
    os.utime(analysis.folder / "raw" / "hill.csv", (1, 1))
    (analysis.folder / "raw" / "coast.csv").touch()
    analysis.edit("    return -60 < celsius < 60", "    # what a thermometer can show\n\n    return -60 < celsius < 60")
    assert analysis.run() == ("up to date", [], ["plot"])


def test_an_edited_helper_remakes_what_depends_on_it(analysis):
    """And no more: what comes out as before goes no further."""
    analysis.run()
    analysis.edit("-60 < celsius < 60", "-70 < celsius < 70")
    assert analysis.run() == (
        "it depends on what comes of clean (code changed: helper plausible() in seasons.py)",
        ["table"],
        ["plot"],
    )
    analysis.edit("-70 < celsius < 70", "1 < celsius < 60")
    assert analysis.run()[1] == ALL
    analysis.edit("/ 365.25", "/ 365")
    why, made, loaded = analysis.run()
    assert why == "it depends on what comes of fit (code changed: helper waves() in seasons.py)"
    assert (made, loaded) == (["model", "residuals", "plot"], ["table"])
    analysis.edit('color="C3"', 'color="C0"')
    assert analysis.run() == ("code changed: draw() itself", ["plot"], ["table", "model", "residuals"])


def test_new_measurements_remake_it(analysis):
    """A changed file, and a new one in the folder."""
    analysis.run()
    with (analysis.folder / "raw" / "hill.csv").open("a") as file:
        file.write("365,3.5\n")
    why, made, _ = analysis.run()
    assert why.startswith("it depends on what comes of clean (option changed: raw (")
    assert made == ALL
    (analysis.folder / "raw" / "island.csv").write_text("day,celsius\n100,12.5\n")
    assert analysis.run()[1] == ALL


def test_a_field_of_the_configuration_remakes_it(analysis):
    """It is named with both values."""
    analysis.run()
    analysis.edit("harmonics: int = 1", "harmonics: int = 2")
    why, made, _ = analysis.run()
    assert why == "it depends on what comes of clean (option changed: harmonics (1 → 2))"
    assert "plot" in made
