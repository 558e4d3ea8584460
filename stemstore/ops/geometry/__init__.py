"""Geometry of the detector plane: units, shapes, virtual detectors, the optic axis."""
