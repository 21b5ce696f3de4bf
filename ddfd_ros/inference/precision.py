"""How far an engine of reduced precision may be from the model it was built from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """Bounds for a precision.

    Attributes:
        scale: Factor on the tolerances in single precision (``golden.GOLDEN_TOLERANCE``,
            ``parity.TOLERANCES``).
        allowed: Fraction of values that may be beyond the scaled tolerance: an edge may move.
        rms_change: Share by which the depth error against truth may grow.
    """

    scale: float
    allowed: float
    rms_change: float


SINGLE = Tolerance(1.0, 0.0, 0.001)
HALF = Tolerance(4.0, 1e-3, 0.005)
INT8 = Tolerance(100.0, 5e-2, 0.03)


def tolerance_of(precision: str, calibrated: bool = False) -> Tolerance:
    """Bounds for an engine of ``precision`` (``engine_manifest.PRECISIONS``).

    Measured on photographs with graphs of these types on a CPU: half precision moves the depth of
    ddfd-lite by 1.5 mm on average and of single pixels by up to 0.2 m (docs/tensorrt.md), int8 by
    0.1 to 0.3 m and up to 4 m. So int8 is checked for gross errors only; whether its accuracy will
    do, the depth error against truth must tell.

    Args:
        precision: Its name.
        calibrated: Whether int8 was allowed for ``best``, which it is with calibration images.
    """
    if precision == "fp32":
        return SINGLE
    return INT8 if precision == "int8" or (precision == "best" and calibrated) else HALF
