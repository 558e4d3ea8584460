"""Chunked array storage and lazy labelled datasets for 4D-STEM."""
