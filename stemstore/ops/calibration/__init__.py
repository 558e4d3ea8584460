"""Measuring a calibration: optic axis, ellipse, lengths and angles."""
