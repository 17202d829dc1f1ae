"""Measure, print and keep: `python -m benchmarks [row ...] [--repeat N] [--quick] [--json PATH]`.

Without rows, all of them; `1` means 1, 1m and 1p, `m` the rows of memory. Ends with status 1 if a contestant failed (a
peer that isn't installed is skipped), never because a goal was missed.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from string import ascii_lowercase, digits

from benchmarks import _harness, _machine, _report
from benchmarks._rows import ROWS, Row

RESULTS = Path(__file__).parent / "results" / "latest.json"


def main() -> int:
    """Run what the command line asks for."""
    asked = arguments()
    rows = chosen(asked.rows)
    repeat = asked.repeat or (3 if asked.quick else 5)
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    print(f"{command}: {repeat} repetitions; medians\n{_machine.line()}\n")
    begin = time.monotonic()
    outcomes = []
    for row in rows:
        outcomes.append(_harness.run(row, repeat, quick=asked.quick, progress=progress))
        progress("")
        print(_report.details(outcomes[-1]), flush=True)
    print(f"## Summary\n\n{_report.summary(outcomes)}\n{time.monotonic() - begin:.0f} s")
    path = asked.json or (None if asked.quick or asked.rows else RESULTS)
    if path:
        kept = {"command": command, "repetitions": repeat, "machine": _machine.describe()}
        kept["rows"] = _report.as_json(outcomes)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"kept in {path}")
    broken = [
        (outcome.row.key, name, figures.skipped)
        for outcome in outcomes
        for name, figures in outcome.figures.items()
        if figures.skipped.startswith(("failed", "no result"))
    ]
    for key, name, reason in broken:
        print(f"row {key}: {name} {reason}", file=sys.stderr)
    return 1 if broken else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="row", help="rows to run: " + ", ".join(row.key for row in ROWS))
    parser.add_argument("--repeat", type=int, default=0, help="repetitions (5; with --quick 3)")
    parser.add_argument("--quick", action="store_true", help="small sizes: do the scripts still run?")
    parser.add_argument("--json", type=Path, help="keep all figures here (all rows: results/latest.json)")
    return parser.parse_args()


def chosen(asked: list[str]) -> list[Row]:
    """Return the rows that are asked for by their key, by its number (1: 1, 1m, 1p) or by its letter (m: m1, m2, ...)."""
    if not asked:
        return list(ROWS)
    found = [row for row in ROWS if {row.key, row.key.rstrip(ascii_lowercase), row.key.rstrip(digits)} & set(asked)]
    if not found:
        raise SystemExit(f"no row {', '.join(asked)}; there are {', '.join(row.key for row in ROWS)}")
    return found


def progress(text: str) -> None:
    """Say on a terminal what runs just now."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


sys.exit(main())
