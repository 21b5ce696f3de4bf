"""Offline part: optics, losses, metrics, data sets, trainer and evaluation. Import its modules."""
