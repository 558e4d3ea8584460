"""Counting electrons in frames: corrections, thresholds and what they rest on, the counting, and an eye on it."""
