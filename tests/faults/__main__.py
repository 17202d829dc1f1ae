"""`python -m tests.faults --list`: row by runner: the test, or why there is none."""

from __future__ import annotations

import argparse
import sys

from .rows import RUNNERS, cells, load_tests


def main() -> int:
    """Print the table; 1 when a cell is blank."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the table", required=True)
    parser.parse_args()
    load_tests()
    blank = 0
    width = max(map(len, RUNNERS))
    shown = None
    for row, runner, answer in cells():
        if row is not shown:
            print(f"\n{row.fault}  [{row.key}]\n  wanted: {row.wants}")
            shown = row
        blank += not answer
        print(f"    {runner:{width}}  {answer or 'MISSING'}")
    print(f"\n{blank} blank cells" if blank else "\nno blank cell")
    return 1 if blank else 0


if __name__ == "__main__":
    sys.exit(main())
