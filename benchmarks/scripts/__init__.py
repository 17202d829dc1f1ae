"""Whole programs whose run time `startup` takes; each is a file of its own, run as a user would run it."""
