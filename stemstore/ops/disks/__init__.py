"""Bragg disks: templates, detection, lists and what is computed from them."""
