"""Metric depth errors: of one image, as a mean over images, and over all pixels of a set.

The two ways of averaging differ: the rms of a set is the mean of its images' rms (Eigen's
convention in some papers) or the root of the mean square over all pixels. Both are reported, by
name. Nothing here is normalised or scaled to the truth: the errors are metric.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

DEPTH_METRICS = (
    "rmse",
    "rmse_log",
    "abs_rel",
    "sq_rel",
    "log10",
    "delta1",
    "delta2",
    "delta3",
)
"""Keys of :func:`depth_metrics`: metres, natural log, fraction, metres, log10, three fractions."""

MIN_DEPTH_M = 1e-3
DELTA = 1.25
LN10 = float(np.log(10.0))


def to_numpy(values: Any) -> np.ndarray:
    """An array or a torch tensor (on any device) as an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


@dataclass(frozen=True)
class DepthSums:
    """Sums over pixels from which every depth metric follows; add them to pool images."""

    pixels: int = 0
    square_error: float = 0.0
    square_log_error: float = 0.0
    relative_error: float = 0.0
    square_relative: float = 0.0
    log_error: float = 0.0
    within1: float = 0.0
    within2: float = 0.0
    within3: float = 0.0

    def __add__(self, other: DepthSums) -> DepthSums:
        """The sums over both sets of pixels."""
        return DepthSums(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def metrics(self) -> dict[str, float]:
        """The metrics of :data:`DEPTH_METRICS`; NaN where no pixel was known."""
        if self.pixels == 0:
            return dict.fromkeys(DEPTH_METRICS, float("nan"))
        n = self.pixels
        return {
            "rmse": (self.square_error / n) ** 0.5,
            "rmse_log": (self.square_log_error / n) ** 0.5,
            "abs_rel": self.relative_error / n,
            "sq_rel": self.square_relative / n,
            "log10": self.log_error / n / LN10,
            "delta1": self.within1 / n,
            "delta2": self.within2 / n,
            "delta3": self.within3 / n,
        }


def valid_pair(pred_m: Any, target_m: Any, mask: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth, flat, where the truth is a positive number and ``mask`` is true.

    Raises:
        ValueError: The shapes differ, or the prediction is NaN or infinite where it counts.
    """
    pred, target = to_numpy(pred_m), to_numpy(target_m)
    if pred.shape != target.shape:
        raise ValueError(
            f"depth metrics: expected prediction and truth of one shape, got {pred.shape} and "
            f"{target.shape}; crop or resize (nearest) the truth first"
        )
    valid = np.isfinite(target) & (target > 0)
    if mask is not None:
        valid &= np.broadcast_to(to_numpy(mask).astype(bool), valid.shape)
    pred, target = pred[valid], target[valid]
    bad = int(pred.size - np.isfinite(pred).sum())
    if bad:
        raise ValueError(
            f"depth metrics: expected finite predictions, got {bad} of {pred.size} NaN or "
            "infinite; evaluate the unthresholded depth, or leave those pixels out by the mask "
            "and report how many there were"
        )
    return pred, target


def depth_sums(pred_m: Any, target_m: Any, mask: Any = None) -> DepthSums:
    """Error sums of one image or batch; arguments and errors as in :func:`depth_metrics`."""
    pred, target = valid_pair(pred_m, target_m, mask)
    error = np.subtract(pred, target, dtype=np.float32)
    square = error * error
    # A ratio or a logarithm needs a positive depth; a linear output may be negative.
    log_error = np.abs(np.log(np.maximum(pred, MIN_DEPTH_M)) - np.log(target))
    steps = np.log(DELTA) * np.arange(1, 4)
    within = [float(np.count_nonzero(log_error < step)) for step in steps]

    def total(values: np.ndarray) -> float:
        return float(np.sum(values, dtype=np.float64))

    return DepthSums(
        pixels=int(pred.size),
        square_error=total(square),
        square_log_error=total(log_error * log_error),
        relative_error=total(np.abs(error) / target),
        square_relative=total(square / target),
        log_error=total(log_error),
        within1=within[0],
        within2=within[1],
        within3=within[2],
    )


def depth_metrics(pred_m: Any, target_m: Any, mask: Any = None) -> dict[str, float]:
    """Depth errors over all known pixels (definitions of Eigen et al. 2014, section 4.3).

    Args:
        pred_m: Array or tensor of any shape, metres. Below 1 mm it counts as 1 mm in the
            logarithms and ratios.
        target_m: Same shape, metres; NaN, infinite or not positive where unknown.
        mask: Boolean, broadcastable; only true pixels count.

    Returns:
        ``rmse`` (m), ``rmse_log`` (natural log), ``abs_rel``, ``sq_rel`` (m), ``log10``, and
        ``delta1..3``, the fraction of pixels with max(p/t, t/p) < 1.25, 1.25^2, 1.25^3. NaN if no
        pixel is known.

    Raises:
        ValueError: Shapes differ, or the prediction is not finite where the truth is known.
    """
    return depth_sums(pred_m, target_m, mask).metrics()


class DepthTable:
    """Depth errors of a set, averaged both ways.

    Example:
        >>> table = DepthTable()
        >>> table.add(np.full((2, 2), 2.0), np.full((2, 2), 1.0))["rmse"]
        1.0
        >>> table.result()["over_pixels"]["rmse"]
        1.0
    """

    def __init__(self) -> None:
        self._images: list[DepthSums] = []

    def add(self, pred_m: Any, target_m: Any, mask: Any = None) -> dict[str, float]:
        """Count one image; returns its own metrics. An image without truth is left out."""
        sums = depth_sums(pred_m, target_m, mask)
        if sums.pixels:
            self._images.append(sums)
        return sums.metrics()

    def result(self) -> dict[str, Any]:
        """``images``, ``pixels``, and the metrics as ``mean_over_images`` and ``over_pixels``."""
        pooled = sum(self._images, DepthSums())
        rows = [sums.metrics() for sums in self._images] or [DepthSums().metrics()]
        return {
            "images": len(self._images),
            "pixels": pooled.pixels,
            "mean_over_images": {
                key: float(np.mean([row[key] for row in rows])) for key in DEPTH_METRICS
            },
            "over_pixels": pooled.metrics(),
        }
