"""`python -m woflo`: four things woflo does, on real work, in a few seconds.

Reads like a user's script on purpose: it imports public names only, and its tasks live in `__main__`.
"""

from __future__ import annotations

import keyword
import re
import sysconfig
import tempfile
import time
from collections import Counter
from pathlib import Path

import woflo
from woflo import Ok, task

CHUNK_FILES = 50  # files per run: a run should last much longer than the millisecond that starting it costs
ALL = "all words"


def count(files: list[Path]) -> Counter[str]:
    """Count the words in the files; of all words, say how often each keyword of Python occurs."""
    words: Counter[str] = Counter()
    for file in files:
        words.update(re.findall(r"\w+", file.read_text(encoding="utf-8", errors="replace")))
    return Counter({ALL: words.total(), **{word: words[word] for word in keyword.kwlist}})


# 1. Many runs at once. Each call starts a process and returns a TaskRun at once.


@task
def count_words(files: list[Path]) -> Counter[str]:
    """Run `count` somewhere else."""
    return count(files)


@task
def add_up(counts: list[Counter[str]]) -> Counter[str]:
    """Add the counts. It is given runs, gets their values, and starts when the last of them has ended."""
    return sum(counts, Counter())


# 2. Retries: each attempt is a fresh process, so what an attempt learns has to be kept outside it.


@task(retries=3, retry_sleep_time=0.1)
def fetch(visits: Path) -> str:
    """Fail twice, then succeed, as a busy server would."""
    with visits.open("a") as log:
        log.write("visit\n")
    visit = len(visits.read_text().splitlines())
    if visit <= 2:
        raise ConnectionError(f"server busy (visit {visit})")
    return f"served on visit {visit}"


# 3. Time-outs: the process is ended, whatever it was doing.


@task(timeout=0.5)
def hang() -> None:
    """Never return."""
    while True:
        time.sleep(60)


# 4. A pipeline: hand runs to tasks as if they were values.


@task
def load(n: int) -> list[int]:
    """Make some rows."""
    return list(range(n))


@task
def clean(rows: list[int]) -> list[int]:
    """Keep the even ones."""
    return [row for row in rows if row % 2 == 0]


@task
def report(parts: list[list[int]]) -> str:
    """Say what there is."""
    return f"{len(parts)} parts, {sum(map(len, parts))} rows, sum {sum(map(sum, parts))}"


def main() -> None:
    """Run the demo."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [file for file in sorted(library.rglob("*.py")) if "site-packages" not in file.parts]
    chunks = [files[i : i + CHUNK_FILES] for i in range(0, len(files), CHUNK_FILES)]

    print(f"1. Count the words of the standard library: {len(files)} files")
    began = time.perf_counter()
    here = count(files)
    print(f"   in this process            {time.perf_counter() - began:5.2f} s")
    began = time.perf_counter()
    words = add_up([woflo.ref(count_words(chunk)) for chunk in chunks]).get_result()
    print(f"   in {len(chunks) + 1:3} processes           {time.perf_counter() - began:5.2f} s")
    common = ", ".join(f"{word} {times:,}" for word, times in words.most_common(4)[1:])
    print(f"   {words[ALL]:,} words; the same answer: {words == here}; commonest keywords: {common}")

    print("\n2. A task that fails twice, with retries=3")
    with tempfile.TemporaryDirectory() as folder:
        print(f"   {fetch(Path(folder) / 'visits').get_result()}")

    print("\n3. A task that hangs, with timeout=0.5")
    began = time.perf_counter()
    outcome = hang().outcome()
    print(f"   ended after {time.perf_counter() - began:.2f} s: {type(outcome).__name__}: {outcome}")

    print("\n4. A pipeline: load -> clean -> report")
    cleaned = [clean(woflo.ref(load(n))) for n in (10, 100, 1000)]
    match report([woflo.ref(run) for run in cleaned]).outcome():
        case Ok(text):
            print(f"   {text}")
        case failure:
            print(f"   {type(failure).__name__}: {failure}")


if __name__ == "__main__":
    main()
