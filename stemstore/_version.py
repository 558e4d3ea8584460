"""The version of the package, importable by every floor."""

__version__ = "0.1.0"
