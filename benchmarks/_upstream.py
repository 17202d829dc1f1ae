"""Fetch woflo 0.8 from PyPI into the user's cache: it has our import name, so it can't be installed beside us."""

import os
import subprocess
import sys
from pathlib import Path

VERSION = "0.8.2"  # the last release before this code


def folder() -> tuple[Path | None, str]:
    """Return the folder to put on PYTHONPATH, and "", or None and the reason why it can't be had.

    The first call needs a package index; later ones find the folder in the cache.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    target = cache / "woflo-benchmarks" / f"upstream-{VERSION}-{tag}"
    if (target / "woflo").is_dir() and (target / "multiprocess").is_dir():
        return target, ""
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(target), f"woflo=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"pip: {error}"
    if done.returncode:
        return None, "pip can't install it here"
    return target, ""
