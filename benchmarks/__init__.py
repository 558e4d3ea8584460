"""Benchmarks: one command each, ratios against a named baseline in the same run."""
