"""The map is true, and importing woflo starts nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import woflo

PACKAGE = Path(woflo.__file__).parent
MAP = PACKAGE / "ARCHITECTURE.md"

# Each costs milliseconds that a script with one task must not pay; whoever needs one imports it at first use.
HEAVY = ["asyncio", "cloudpickle", "concurrent", "dataclasses", "dill", "inspect", "logging", "loguru", "multiprocess"]
HEAVY += ["multiprocessing", "socket", "subprocess", "tenacity", "traceback", "typing"]

LOOK_AROUND = r"""
import json, os, signal, sys, threading

def look():
    numbered = [n for n in signal.valid_signals() if n not in (signal.SIGKILL, signal.SIGSTOP)]
    return {
        "threads": threading.active_count(),
        "tasks": sorted(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else [],
        "descriptors": sorted(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else [],
        "signal handlers": {int(n): str(signal.getsignal(n)) for n in numbered},
        "wakeup": signal.set_wakeup_fd(-1),
        "excepthook": [sys.excepthook is sys.__excepthook__, threading.excepthook is threading.__excepthook__],
        "files here": sorted(os.listdir(".")),
        "files in HOME": sorted(os.listdir(os.environ["HOME"])),
        "files in TMPDIR": sorted(os.listdir(os.environ["TMPDIR"])),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "trace": [sys.gettrace() is None, sys.getprofile() is None],
    }

before = look()
import woflo
after = look()
loaded = sorted({name.partition(".")[0] for name in sys.modules})
import logging
handlers = [str(h) for h in logging.getLogger().handlers], logging.getLogger().level
import loguru
sinks = len(loguru.logger._core.handlers)
print(json.dumps({"before": before, "after": after, "loaded": loaded, "logging": handlers, "sinks": sinks}))
"""


@pytest.fixture(scope="module")
def around_import(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a fresh interpreter looks like before and after `import woflo`."""
    folder = tmp_path_factory.mktemp("import")
    home, temporary, here = (folder / name for name in ("home", "tmp", "here"))
    for each in (home, temporary, here):
        each.mkdir()
    environment = {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(PACKAGE.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOOK_AROUND], capture_output=True, text=True, check=True, cwd=here, env=environment
    )
    return json.loads(done.stdout)


def test_import_starts_nothing(around_import: dict) -> None:
    """Invariant 15: no thread, descriptor, signal handler, hook, file or environment variable."""
    assert around_import["before"] == around_import["after"]


def test_import_leaves_logging_alone(around_import: dict) -> None:
    """No handler, no level, and loguru keeps the one sink it comes with."""
    assert around_import["logging"] == [[], 30]
    assert around_import["sinks"] == 1


def test_import_is_light(around_import: dict) -> None:
    """Nothing slow is loaded before somebody needs it."""
    assert not set(HEAVY) & set(around_import["loaded"])


def modules() -> set[str]:
    """Every module, as the map names it: `task.py`, `runners/base.py`."""
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    return {name for name in files if not name.endswith("/__init__.py")}


def where_is() -> str:
    """The part of the map under its heading "Where is X"."""
    text = MAP.read_text(encoding="utf-8")
    found = re.search(r"^#+ *where is.*?$(.*?)(?=^# |^## |\Z)", text, flags=re.IGNORECASE | re.MULTILINE | re.DOTALL)
    assert found, "ARCHITECTURE.md has no section 'Where is X'"
    return found.group(1)


def test_every_module_is_on_the_map() -> None:
    """A newcomer finds each file in "Where is X"."""
    text = where_is()
    assert not {name for name in modules() if f"`{name}`" not in text}


def test_the_map_names_no_file_that_is_gone() -> None:
    """Each `….py` of the whole page exists."""
    named = set(re.findall(r"`([\w/]+\.py)`", MAP.read_text(encoding="utf-8")))
    inside = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    outside = {path.relative_to(PACKAGE.parent).as_posix() for path in (PACKAGE.parent / "tests").rglob("*.py")}
    assert not named - inside - outside


def test_files_begin_with_their_contract() -> None:
    """Each module says at its top what it decides or does."""
    silent = [name for name in sorted(modules()) if not (PACKAGE / name).read_text(encoding="utf-8").startswith('"""')]
    assert not silent
