"""Lattices of Bragg disks: basis, indexing, fits, strain."""
