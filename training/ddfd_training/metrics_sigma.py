"""How far a predicted standard deviation can be trusted: coverage, calibration, sparsification."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ddfd_training.metrics_depth import to_numpy, valid_pair

COVERAGE_LEVELS = (0.68, 0.95)
SPARSIFICATION_STEPS = 100
ENCE_BINS = 20


def laplace_half_width_m(sigma_m: np.ndarray, probability: float) -> np.ndarray:
    """Half width of the central interval that holds ``probability`` of a Laplace distribution.

    With scale b = sigma / sqrt(2): P(|x| < w) = 1 - exp(-w / b), so w = -b ln(1 - p).
    """
    return sigma_m * (-math.log1p(-probability) / math.sqrt(2.0))


def interval_coverage(abs_error_m: np.ndarray, sigma_m: np.ndarray, probability: float) -> float:
    """Fraction of errors inside the interval that should hold ``probability``; NaN of none."""
    if abs_error_m.size == 0:
        return math.nan
    return float(np.mean(abs_error_m <= laplace_half_width_m(sigma_m, probability)))


def remaining_rmse(square_error: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Rms error of the first ``k`` pixels, for each ``k`` in ``keep``."""
    return np.sqrt(np.cumsum(square_error, dtype=np.float64)[keep - 1] / keep)


def least_uncertain_first(square_error: np.ndarray, sigma_m: np.ndarray) -> np.ndarray:
    """Square errors ``[n]`` in order of sigma; equal sigmas share the mean of theirs.

    Sigma says nothing about the order of pixels for which it is the same, and where they lie in
    the image must not: their mean is what a random order among them expects.
    """
    _, place, count = np.unique(sigma_m, return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(place.ravel(), square_error) / count, count)


def sparsification(abs_error_m: np.ndarray, sigma_m: np.ndarray) -> dict[str, float]:
    """Does removing the pixels of largest sigma remove the largest errors? (Ilg et al. 2018).

    The most uncertain pixels are removed in 100 equal steps; the rmse of what remains is compared
    with that of the best possible order (by true error) and of a random one (constant).

    Args:
        abs_error_m: ``[n]``, metres.
        sigma_m: ``[n]``, any measure that grows with uncertainty; the same everywhere is useless.

    Returns:
        ``ause_m``: area between the curve and the best one, metres, 0 is perfect. ``aurg_m``: area
        between the random curve and ours, metres, larger is better, negative is worse than
        chance. ``aurg_fraction`` = AURG / (AUSE + AURG): 1 perfect, 0 useless, free of scale.
    """
    count = abs_error_m.size
    if count == 0:
        return {"ause_m": math.nan, "aurg_m": math.nan, "aurg_fraction": math.nan}
    square = np.square(abs_error_m, dtype=np.float64)
    kept = 1.0 - np.arange(SPARSIFICATION_STEPS) / SPARSIFICATION_STEPS
    keep = np.maximum(np.rint(kept * count).astype(np.int64), 1)
    ours = remaining_rmse(least_uncertain_first(square, sigma_m), keep)
    best = remaining_rmse(np.sort(square), keep)
    random = math.sqrt(square.mean())
    ause, aurg = float(np.mean(ours - best)), float(np.mean(random - ours))
    possible = ause + aurg
    return {
        "ause_m": ause,
        "aurg_m": aurg,
        "aurg_fraction": aurg / possible if possible > 0 else math.nan,
    }


def _calibration_error(abs_error_m: np.ndarray, sigma_m: np.ndarray) -> float:
    """ENCE (Levi et al. 2019): mean |sigma - rmse| / sigma over equally full bins of sigma."""
    order = np.argsort(sigma_m, kind="stable")
    values = []
    for part in np.array_split(order, ENCE_BINS):
        if part.size:
            said = math.sqrt(np.mean(np.square(sigma_m[part], dtype=np.float64)))
            was = math.sqrt(np.mean(np.square(abs_error_m[part], dtype=np.float64)))
            values.append(abs(said - was) / max(said, 1e-9))
    return float(np.mean(values)) if values else math.nan


def sigma_metrics(pred_m: Any, sigma_m: Any, target_m: Any, mask: Any = None) -> dict[str, float]:
    """Quality of a predicted standard deviation on one image.

    Args:
        pred_m: Array or tensor, metres.
        sigma_m: Same shape, metres.
        target_m: Same shape, metres; NaN where unknown.
        mask: Boolean, broadcastable; only true pixels count.

    Returns:
        ``coverage_68`` and ``coverage_95``: fraction of pixels inside the 68 and 95 % intervals of
        a Laplace distribution; ``ence``: calibration error, 0 is perfect; ``mean_sigma_m``; and
        the keys of :func:`sparsification`.
    """
    pred, target = valid_pair(pred_m, target_m, mask)
    sigma, _ = valid_pair(sigma_m, target_m, mask)
    error_m = np.abs(to_numpy(pred) - target)
    result = {
        f"coverage_{round(100 * level)}": interval_coverage(error_m, sigma, level)
        for level in COVERAGE_LEVELS
    }
    result["ence"] = _calibration_error(error_m, sigma)
    result["mean_sigma_m"] = float(np.mean(sigma, dtype=np.float64)) if sigma.size else math.nan
    return result | sparsification(error_m, sigma)
