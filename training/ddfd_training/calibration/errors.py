"""The error of calibration."""

from __future__ import annotations

from ddfd_ros.core.errors import DdfdError


class CalibrationError(DdfdError):
    """Pictures do not say enough about the lens; the message says what is missing."""
