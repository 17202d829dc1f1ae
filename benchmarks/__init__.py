"""What a run costs, side by side with the limit and the peers: `python -m benchmarks [row ...]`.

Each repetition runs every contestant once, in turn, each in a fresh interpreter; what counts are the medians of the
ratios formed *inside* one repetition. The absolute figures belong to the machine they were made on.

`_rows` says which rows there are, who competes and what is to be reached; `_harness` runs them, `_report` writes them
down. The other modules hold the contestants, one module per subject; `contestant` is the program a fresh interpreter
runs.
"""
