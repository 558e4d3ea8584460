"""Conformance tests and synthetic scans with known truth, for stemstore and for plug-ins."""
