"""One case = one child interpreter in a session of its own, counted before and after.

Contract: the code under test never runs in pytest's process. While a case is open,
pytest's process is a *child subreaper*: every process that the case orphans, however
it hid itself (double fork, setsid), becomes our child and is counted. After the
case's interpreter has ended, its descendants must be gone within ``ORPHANS_LIMIT``.

Rules: stdout and stderr are files, so that a grandchild which keeps them open can't
block us. A hang dumps all stacks (SIGUSR2 in the case's interpreter, SIGABRT in its
descendants) and fails. "Lost" and "twice" are decided by the ledger, a file that only
the case's own code writes (inside.py), never by woflo's own state.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
LINUX = sys.platform == "linux"

HANG_LIMIT = 30.0
"""Seconds until a case counts as hung; ten times what the slowest ordinary case takes."""

ORPHANS_LIMIT = 2.0
"""Seconds after its end in which a case's descendants must be gone (the promise itself)."""

POLL = 0.005
"""Seconds between two looks at the ledger or at /proc: far below every bound asserted."""

PRELUDE = "from tests.faults.inside import *\n"
EPILOGUE = "\nfinish_case()\n"

_PR_SET_CHILD_SUBREAPER = 36


def _subreaper(*, on: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def process_table() -> dict[int, tuple[int, str, str]]:
    """Every process: pid -> (parent's pid, state letter, command line)."""
    table = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
            command = Path("/proc", entry, "cmdline").read_bytes()
        except OSError:  # it ended between listdir and read
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        name = command.replace(b"\0", b" ").decode(errors="replace").strip()
        table[int(entry)] = (int(parent), state, name or stat.split()[1])
    return table


def descendants(root: int, table: Mapping[int, tuple[int, str, str]] | None = None) -> list[int]:
    """Pids of all living or zombie processes below `root`, nearest first."""
    table = process_table() if table is None else table
    below: dict[int, list[int]] = {}
    for pid, (parent, _, _) in table.items():
        below.setdefault(parent, []).append(pid)
    found, queue = [], list(below.get(root, ()))
    while queue:
        pid = queue.pop(0)
        found.append(pid)
        queue += below.get(pid, ())
    return found


def is_gone(pid: int) -> bool:
    """Whether the process has ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


@dataclass(frozen=True)
class Outcome:
    """How a case's interpreter ended."""

    returncode: int
    stdout: str
    stderr: str
    ledger: list[str]
    seconds: float

    def count(self, line: str) -> int:
        """How often `line` is in the ledger."""
        return self.ledger.count(line)


class Case:
    """A running case; made by the `start_case` fixture."""

    def __init__(
        self,
        source: str,
        directory: Path,
        *,
        runner: str = "fork",
        python: Sequence[str] = (sys.executable,),
        command: Sequence[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        plain: bool = False,
        unfinished: bool = False,
        warm: bool = True,
        **popen: Any,
    ) -> None:
        """Start it.

        Args:
            source: What the interpreter runs; dedented, names of inside.py are there.
            directory: The case's own working directory; the ledger is in it.
            runner: Which runner `RUNNER` and `job` mean inside the case.
            python: The interpreter and its options.
            command: Replaces the whole command line; `source` is then only written.
            env: Changes to the environment; None removes a name.
            plain: Without the names of inside.py and without its counting.
            unfinished: Without the counting at the end (the script ends in its own way).
            warm: Whether a first run has already been made when `source` begins, so
                that what woflo keeps for good isn't counted as left behind.
            popen: Passed on to `subprocess.Popen`.
        """
        self.directory = directory
        self.ledger_path = directory / "ledger"
        script = directory / "case.py"
        temporary = directory / "tmp"
        temporary.mkdir()
        body = textwrap.dedent(source)
        if not plain:
            body = PRELUDE + body + ("" if unfinished else EPILOGUE)
        script.write_text(body)
        environment = dict(os.environ)
        environment.pop("WOFLO_RUNNER", None)
        environment.pop("WOFLO_LOG", None)
        environment.update(
            PYTHONPATH=os.pathsep.join([str(ROOT), *extra_path()]),
            PYTHONDONTWRITEBYTECODE="1",
            FAULTS_RUNNER=runner,
            FAULTS_WARM="1" if warm else "0",
            FAULTS_DIRECTORY=str(directory),
            TMPDIR=str(temporary),
        )
        for name, value in (env or {}).items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        self.before = set(descendants(os.getpid()))
        self._stdout = (directory / "stdout").open("w+b")
        self._stderr = (directory / "stderr").open("w+b")
        popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stdout", self._stdout)
        popen.setdefault("stderr", self._stderr)
        popen.setdefault("start_new_session", True)
        _subreaper(on=True)
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            list(command or [*python, str(script)]), cwd=directory, env=environment, **popen
        )
        self.pid = self.process.pid

    def ledger(self) -> list[str]:
        """The lines written so far."""
        try:
            return self.ledger_path.read_text().splitlines()
        except FileNotFoundError:
            return []

    def await_ledger(self, line: str, count: int = 1, limit: float = HANG_LIMIT) -> list[str]:
        """Wait until a line that starts with `line` is there `count` times; these lines."""

        def found() -> list[str] | None:
            lines = [entry for entry in self.ledger() if entry.startswith(line)]
            return lines if len(lines) >= count else None

        return self.until(found, f"{count} times {line!r} in the ledger", limit)

    def until(self, predicate: Callable[[], Any], what: str, limit: float = HANG_LIMIT) -> Any:
        """Poll until `predicate()` is true and answer it; a hang is a failure."""
        deadline = time.monotonic() + limit
        while True:
            answer = predicate()
            if answer:
                return answer
            if time.monotonic() > deadline:
                self.hang(f"waited {limit} s for {what}")
            if self.process.poll() is not None:
                answer = predicate()
                if answer:
                    return answer
                pytest.fail(f"the case ended before {what}\n{self.report()}")
            time.sleep(POLL)

    def until_asleep(self, looks: int = 10) -> None:
        """Wait until the main thread sleeps and uses no time: it waits for something, however busy the machine is."""
        since: list[str] = []

        def asleep() -> bool:
            fields = Path(f"/proc/{self.pid}/task/{self.pid}/stat").read_text().rpartition(")")[2].split()
            state, *used = fields[0], *fields[11:13]
            if state != "S" or (since and since[0] != str(used)):
                since.clear()
            else:
                since.append(str(used))
            return len(since) >= looks

        self.until(asleep, "its sleep")

    def release(self, name: str) -> None:
        """Let a `hold(name)` inside the case go on."""
        (self.directory / f"gate-{name}").touch()

    def signal(self, number: int) -> None:
        """Send a signal to the interpreter only."""
        os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the interpreter's process group, as a terminal does."""
        os.killpg(self.pid, number)

    def orphans(self) -> list[int]:
        """Everything below us that this case brought, the case itself excepted."""
        table = process_table()
        found = []
        for pid in descendants(os.getpid(), table):
            if pid in self.before or pid == self.pid:
                continue
            parent, state, _ = table[pid]
            if state == "Z" and parent == os.getpid():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
                continue
            found.append(pid)
        return found

    def wait(
        self,
        expect: int | Sequence[int] | None = 0,
        limit: float = HANG_LIMIT,
        orphans_limit: float = ORPHANS_LIMIT,
    ) -> Outcome:
        """Wait for the end; check the exit code and that nothing is left behind."""
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.hang(f"still running after {limit} s")
        seconds = time.monotonic() - self.began
        deadline = time.monotonic() + orphans_limit
        while self.orphans():
            if time.monotonic() > deadline:
                table = process_table()
                left = [f"{pid} {table.get(pid)}" for pid in self.orphans()]
                pytest.fail(f"left {orphans_limit} s after the end: {left}\n{self.report()}")
            time.sleep(POLL)
        outcome = Outcome(self.process.returncode, *self._output(), ledger=self.ledger(), seconds=seconds)
        allowed = [expect] if isinstance(expect, int) else expect
        if allowed is not None and outcome.returncode not in allowed:
            pytest.fail(f"exit code {outcome.returncode}, not {allowed}\n{self.report()}")
        return outcome

    def _output(self) -> tuple[str, str]:
        return (
            (self.directory / "stdout").read_text(errors="replace"),
            (self.directory / "stderr").read_text(errors="replace"),
        )

    def report(self) -> str:
        """What a reader needs to understand a failure."""
        stdout, stderr = self._output()
        ledger = "\n".join(self.ledger()[-40:])
        return f"--- stdout\n{stdout[-4000:]}\n--- stderr\n{stderr[-8000:]}\n--- ledger\n{ledger}"

    def hang(self, what: str) -> None:
        """Dump all stacks of the case and of its descendants, then fail."""
        workers = [pid for pid in descendants(os.getpid()) if pid not in self.before | {self.pid}]
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGUSR2)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGABRT)
        time.sleep(0.5)  # for the dumps; we have failed already
        report = self.report()
        self.close()
        pytest.fail(f"hang: {what}; below it lived {len(workers)} processes\n{report}")

    def close(self) -> None:
        """End whatever is left of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        deadline = time.monotonic() + 5
        while (left := self.orphans()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL)
        _subreaper(on=False)
        self._stdout.close()
        self._stderr.close()


def extra_path() -> list[str]:
    """Where the run-time dependencies are, for interpreters that have none of their own."""
    import cloudpickle

    return [str(Path(cloudpickle.__file__).resolve().parents[1])]


def open_cases(directory: Path) -> Iterator[Callable[..., Case]]:
    """Body of the `start_case` fixture: a factory; every case is closed at the end."""
    cases: list[Case] = []

    def start_case(source: str, **options: Any) -> Case:
        place = directory / f"case-{len(cases)}"
        place.mkdir()
        case = Case(source, place, **options)
        cases.append(case)
        return case

    yield start_case
    for case in reversed(cases):
        case.close()
