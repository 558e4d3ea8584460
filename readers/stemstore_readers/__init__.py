"""Readers of raw and vendor formats, one format per file; stemstore finds them through entry points."""
