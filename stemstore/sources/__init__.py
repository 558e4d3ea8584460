"""Readers, sources and how one is found for a file; knows no store."""
