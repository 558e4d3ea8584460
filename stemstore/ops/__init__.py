"""Labelled lazy operations on scans."""
