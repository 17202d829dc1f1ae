"""The program of a fresh interpreter: one function of one module, once; the figure goes to stdout as JSON.

`python -m benchmarks.contestant processes together raw 200` calls `benchmarks.processes.together("raw", 200)`. The
function returns a figure in the row's unit, or the figure and a note for the table.
"""

import sys
from importlib import import_module

from benchmarks._peer import Skip


def main() -> None:
    subject, measure, contestant, size = sys.argv[1:]
    module = import_module(f"benchmarks.{subject}")
    try:
        answer = getattr(module, measure)(contestant, int(size))
    except Skip as reason:
        answer = {"skip": str(reason)}
    else:
        value, note = answer if isinstance(answer, tuple) else (answer, "")
        answer = {"value": value, "note": note}
    json = import_module("json")  # after the measurement: a bare interpreter holds no json module
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":  # a spawned worker of a peer imports this module again
    main()
