"""Say in one line what machine the figures belong to."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PEERS = ("multiprocess", "tenacity", "pebble", "loky", "joblib", "mpire", "anyio", "brei", "asynciojobs", "dask")


def describe() -> dict[str, str]:
    """Return cores, processor, memory, kernel, Python and the peers' versions."""
    versions = []
    for name in PEERS:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return {
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "processor": processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "peers": ", ".join(versions),
    }


def line() -> str:
    """Return the same as a line of text."""
    facts = describe()
    machine = f"{facts['cores']} cores ({facts['processor']}), {facts['memory']}, {facts['kernel']}, {facts['python']}"
    return f"{machine}; {facts['peers'] or 'no peers'}"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n")
    except OSError:
        return platform.processor() or platform.machine()
    found = [text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")]
    return found[0] if found else platform.machine()
