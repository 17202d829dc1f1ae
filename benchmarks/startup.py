"""Row 22: what a program pays before and around its runs. Milliseconds from spawn to exit, the median of several.

`imports`: `python -c "import x"` beside `python -c pass`. `scripts`: a script that starts ten no-op runs, collects
them and ends, beside one that does it with raw forks; the scripts stand in `scripts/`. One launch before the clock
starts fills the byte-code and page caches.
"""

import os
import sys
import time
from statistics import median

from benchmarks._peer import Skip, ours, peer, upstream

SCRIPTS = os.path.join(os.path.dirname(__file__), "scripts")
LIGHT = 150  # µs; an imported module below this isn't worth a word in the table


def imports(contestant: str, count: int) -> tuple[float, str]:
    need(contestant)
    code = f"import {MODULES[contestant]}" if contestant != "bare" else "pass"
    took = launches(["-P", "-c", code], count)
    return took, slowest("woflo") if contestant == "woflo" else ""


def scripts(contestant: str, count: int) -> float:
    need(contestant)
    return launches([os.path.join(SCRIPTS, FILES[contestant])], count)


def need(contestant):
    """Raise Skip unless the contestant's library is there."""
    if contestant == "woflo":
        ours()
    elif contestant == "woflo 0.8":
        upstream()
    elif contestant not in ("bare", "raw"):
        peer(MODULES[contestant])


def launches(arguments, count):
    """Return the median of `count` launches, in milliseconds."""
    launch(arguments)
    return median(launch(arguments) for _ in range(count)) * 1e3


def launch(arguments):
    null = os.open(os.devnull, os.O_RDWR)
    quiet = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    begin = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=quiet)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - begin
    os.close(null)
    if status:
        raise Skip(f"{' '.join(arguments[-1:])} ended with status {os.waitstatus_to_exitcode(status)}")
    return took


def slowest(name):
    """Say which modules cost the import of `name` most, by their own time."""
    subprocess = peer("subprocess")
    command = [sys.executable, "-P", "-X", "importtime", "-c", f"import {name}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    rows = [line.removeprefix("import time:").split("|") for line in lines[1:]]
    site = max(number for number, row in enumerate(rows) if row[2].strip() == "site")
    own = {row[2].strip(): int(row[0]) for row in rows[site + 1 :]}
    heavy = sorted((took, module) for module, took in own.items() if took >= LIGHT)[::-1]
    listed = ", ".join(f"{module} {took / 1000:.1f}" for took, module in heavy[:6])
    return f"{len(own)} modules, {sum(own.values()) / 1000:.1f} ms by -X importtime: {listed}"


MODULES = {
    "woflo": "woflo",
    "woflo 0.8": "woflo",
    "mp.Pool": "multiprocessing.pool",
    "Process": "multiprocessing",
    "loky": "loky",
    "joblib": "joblib",
    "pebble": "pebble",
}
FILES = {
    "raw": "ten_raw.py",
    "woflo": "ten_woflo.py",
    "woflo 0.8": "ten_woflo.py",
    "mp.Pool": "ten_pool.py",
    "Process": "ten_processes.py",
    "loky": "ten_loky.py",
    "joblib": "ten_joblib.py",
    "pebble": "ten_pebble.py",
}
