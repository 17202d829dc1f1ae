"""What breaks, and what a user then sees: one test per fault and runner.

``python -m tests.faults --list`` prints the table (rows.py); every test runs its
code in an interpreter of its own (harness.py) with the names of inside.py.
"""
