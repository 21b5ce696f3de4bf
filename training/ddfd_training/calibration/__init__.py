"""Calibration of a camera's blur: target, detection, edge spread, fit, report."""
