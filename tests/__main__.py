"""The suite, in several lanes at once: `python -m tests [--lanes N] [--share I/N] [arguments of pytest]`.

Most tests wait for something, a process to start or to end; so two lanes for each core keep it busy. Each lane is a pytest
of its own, in a process of its own, that runs every N-th test (`--lane` in conftest.py). Their lines are printed as they
come, headed by the lane's number. A share is the I-th of N parts of the suite.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def main(arguments: list[str]) -> int:
    lanes, share, shares = 2 * (os.cpu_count() or 1), 1, 1
    if arguments[:1] == ["--lanes"]:
        lanes, arguments = int(arguments[1]), arguments[2:]
    if arguments[:1] == ["--share"]:
        (share, shares), arguments = map(int, arguments[1].split("/")), arguments[2:]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    children = [
        subprocess.Popen([*command, f"--lane={lane}/{lanes * shares}", *arguments], stdout=subprocess.PIPE, text=True)
        for lane in range((share - 1) * lanes + 1, share * lanes + 1)
    ]

    def show(lane: int, child: subprocess.Popen[str]) -> None:
        for line in child.stdout or ():
            print(f"{lane}| {line}", end="", flush=True)

    threads = [threading.Thread(target=show, args=each) for each in enumerate(children, 1)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:  # the terminal has told the lanes too: they end by themselves
        for thread in threads:
            thread.join()
    statuses = {child.wait() for child in children}
    if statuses == {5}:  # no lane had a test
        return 5
    return next((status for status in sorted(statuses, reverse=True) if status not in {0, 5}), 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
