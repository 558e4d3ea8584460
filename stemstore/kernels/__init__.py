"""Compiled loops on plain arrays: NumPy in, NumPy out; no files, no labels, no graphs."""
