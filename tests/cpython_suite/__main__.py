"""Find an interpreter that has the suite, make an environment with woflo for it, run each case in a child, and report.

Each case has a process and a session of its own and 60 seconds, so a hang costs one case, and what it leaves behind is found. The
exit code is 0 if every applicable case passed; 2 if no interpreter has the suite.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.cpython_suite.cases import NOT_APPLICABLE, STRICT, WARM, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
LIMIT = 60.0  # seconds for a case; the slowest takes 8
PROBE = """
import importlib.util, json, platform, sys, sysconfig
try:
    import test.test_concurrent_futures.util
    suite = True
except ImportError:
    suite = False
missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
print(json.dumps([list(sys.version_info[:3]), suite, missing, sysconfig.get_path("purelib"), sys.executable]))
"""
# a line that is executed by every interpreter of the environment, those that a test starts with `-I` too
HOOK = (
    "import os; os.environ.get('WOFLO_CPYTHON_SUITE') and __import__('importlib').import_module('{}').install()".format(
        "tests.cpython_suite.facade"
    )
)


class Interpreter(NamedTuple):
    """A Python that has the suite."""

    path: str
    version: tuple[int, int, int]
    missing: list[str]  # of what woflo needs
    packages: str


class Case(NamedTuple):
    """What became of a case."""

    kind: str
    name: str
    outcome: str  # passed, failed, skipped, not applicable
    text: str
    strict: str = ""

    def __str__(self) -> str:
        return f"{self.kind:6} {self.name}"


def requirements() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]


def probe(python: str) -> Interpreter | None:
    """What an interpreter is like; None if it can't be used."""
    names = [re.split(r"[<>=!~ ]", one)[0] for one in requirements()]
    try:
        done = subprocess.run([python, "-c", PROBE, *names], capture_output=True, text=True, timeout=60, check=True)
        version, suite, missing, packages, path = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(path, tuple(version), missing, packages) if suite and version >= [3, 11] else None


def find() -> Interpreter | None:
    """This interpreter if it has the suite, else the newest that can be found on PATH or with pyenv."""
    if (own := probe(sys.executable)) is not None:
        return own
    folders = [Path(folder) for folder in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders += sorted(pyenv.glob("*/bin"))
    seen = {Path(sys.executable).resolve()}
    found = []
    for folder in folders:
        for python in sorted(folder.glob("python3*")):
            if re.fullmatch(r"python3(\.\d+)?", python.name) and python.resolve() not in seen:
                seen.add(python.resolve())
                if (one := probe(str(python))) is not None:
                    found.append(one)
    return max(found, key=lambda one: one.version, default=None)


def environment(interpreter: Interpreter, folder: Path) -> str:
    """A virtual environment in which every interpreter finds woflo, this package, and our executors; returns its Python."""
    pip = [] if interpreter.missing else ["--without-pip"]
    subprocess.run([interpreter.path, "-m", "venv", *pip, str(folder)], check=True, capture_output=True)
    python = str(folder / "bin" / "python")
    if interpreter.missing:
        subprocess.run([python, "-m", "pip", "install", "-qq", *requirements()], check=True, stdout=sys.stderr)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    lines = [str(ROOT), *([] if interpreter.missing else [interpreter.packages]), HOOK]
    Path(packages, "woflo_cpython_suite.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return python


def run_child(python: str, *args: str, runner: str = "process", strict: bool = False) -> Any:
    """What a child wrote down; a text if it wrote nothing: how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        settings = {name: os.environ[name] for name in ("HOME", "LANG", "PATH", "TMPDIR") if name in os.environ}
        settings |= {"WOFLO_CPYTHON_SUITE": "1", "WOFLO_CPYTHON_SUITE_RUNNER": runner, "PYTHONDONTWRITEBYTECODE": "1"}
        if strict:
            settings["WOFLO_CPYTHON_SUITE_STRICT"] = "1"
        command = [python, "-m", "tests.cpython_suite.case", *args, str(out)]
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = child.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            kill_session(child.pid)
            said, _ = child.communicate()
            return f"it hung for {LIMIT:g} s\n{said}"
        left = kill_session(child.pid, after=2.0)
        if not out.exists():
            return f"it ended with {child.returncode}\n{said}"
        found = json.loads(out.read_text(encoding="utf-8"))
        if left:
            return f"it left {left} processes behind\n{said}"
        return found


def kill_session(leader: int, after: float = 0.0) -> int:
    """Kill the processes of a session that don't end by themselves in time; how many those were."""
    deadline = time.monotonic() + after
    while (pids := members(leader)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def members(session: int) -> list[int]:
    """The processes of a session (Linux; elsewhere none are found), zombies left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, _, _, its_session, *_ = entry.read_text().rpartition(")")[2].split()
            if int(its_session) == session and state not in "ZX":
                found.append(int(entry.parent.name))
    return found


def run_case(python: str, runner: str, kind: str, name: str) -> Case:
    """Run a case, or say why it isn't."""
    if why := reason(NOT_APPLICABLE | WARM if runner == "pool" else NOT_APPLICABLE, kind, name):
        return Case(kind, name, "not applicable", why)
    strict = reason(STRICT, kind, name)
    found = run_child(python, "run", name, runner=runner, strict=bool(strict))
    if isinstance(found, str):
        return Case(kind, name, "failed", found, strict)
    if found["outcome"] == "skipped":
        return Case(kind, name, "not applicable", f"CPython skips it: {found['text']}", strict)
    return Case(kind, name, found["outcome"], found["text"], strict)


def run_all(python: str, runner: str, kinds: list[str], part: str, jobs: int) -> Iterator[Case]:
    """The cases as they end."""
    cases = run_child(python, "list")
    if isinstance(cases, str):
        raise SystemExit(f"the cases can't be listed: {cases}")
    wanted = [(kind, name) for kind, name in cases if kind in kinds and part in name]
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda case: run_case(python, runner, *case), wanted)


def report(version: str, cases: list[Case]) -> str:
    """What there is to say at the end."""
    by = {
        outcome: [case for case in cases if case.outcome == outcome]
        for outcome in ("passed", "failed", "not applicable")
    }
    lines = []
    if by["failed"]:
        lines += ["failed:", *(f"  {case}\n      {case.text.strip().splitlines()[-1]}" for case in by["failed"]), ""]
    if strict := [case for case in cases if case.strict and case.outcome == "passed"]:
        lines += ["passed with strict_compat=True (without it, different on purpose):"]
        lines += [*(f"  {case}: {case.strict}" for case in strict), ""]
    if by["not applicable"]:
        lines += ["not applicable:", *(f"  {case}: {case.text}" for case in by["not applicable"]), ""]
    applicable = len(by["passed"]) + len(by["failed"])
    lines.append(
        f"CPython {version} suite, facade woflo.futures.TaskExecutor: {applicable} applicable, {len(by['passed'])} passed, "
        f"{len(by['not applicable'])} not applicable"
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.cpython_suite", description=__doc__)
    parser.add_argument(
        "--kind", nargs="+", default=["thread", "fork"], choices=["thread", "fork", "spawn", "forkserver"]
    )
    parser.add_argument(
        "--runner", default="process", choices=["process", "pool"], help="what stands behind the fork cases"
    )
    parser.add_argument("-k", default="", metavar="PART", help="only cases whose names contain this")
    parser.add_argument("--python", help="the interpreter that has the suite")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time")
    parser.add_argument("-v", action="store_true", help="tell of each case as it ends, and all of what failed")
    wanted = parser.parse_args(arguments)
    interpreter = probe(wanted.python) if wanted.python else find()
    if interpreter is None:
        print(
            "no interpreter from 3.11 on has test.test_concurrent_futures (CPython installs it with 3.13 and later): "
            "install one, or name it with --python"
        )
        return 2
    cases = []
    with tempfile.TemporaryDirectory(prefix="woflo-cpython-suite-") as folder:
        python = environment(interpreter, Path(folder) / "venv")
        for case in run_all(python, wanted.runner, wanted.kind, wanted.k, wanted.jobs):
            cases.append(case)
            if wanted.v:
                print(f"{case.outcome:14} {case}", flush=True)
                if case.outcome == "failed":
                    print(case.text, flush=True)
    print(report(".".join(map(str, interpreter.version)), cases))
    return 0 if cases and all(case.outcome != "failed" for case in cases) else 1


if __name__ == "__main__":
    sys.exit(main())
