"""Tests of woflo; `tests.faults` is run as a program too."""
