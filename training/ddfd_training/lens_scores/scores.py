"""Numbers from a model's answers: by distance, by blur, for another lens, for a wrong one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.lens_scores.shots import Pixels
from ddfd_training.metrics import DepthTable
from ddfd_training.metrics_sigma import laplace_half_width_m, sigma_metrics

BIN_M = 0.5
LIMIT_PX = 0.5
"""Blur error that stands for the physical limit: depth error = d^2 * 0.5 / A."""
BLUR_EDGES_PX = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, np.inf)
TEXTURED = 8.0
"""Local standard deviation in grey levels from which a place counts as textured."""
_FEWEST = 50


def overall(pixels: Pixels) -> dict[str, float]:
    """Depth errors and, where there is a sigma, its quality; over all pixels."""
    table = DepthTable()
    table.add(pixels.depth_m, pixels.truth_m)
    result = dict(table.result()["over_pixels"])
    return result | _sigma(pixels)


def _sigma(pixels: Pixels) -> dict[str, float]:
    if not np.isfinite(pixels.sigma_m).any():
        return {}
    return sigma_metrics(pixels.depth_m, pixels.sigma_m, pixels.truth_m)


def by_distance(pixels: Pixels, lens: LensConfig) -> list[dict[str, float]]:
    """Errors in bins of 0.5 m, beside what half a pixel of blur error means there."""
    rows = []
    number = np.floor(pixels.truth_m / BIN_M).astype(int)
    for k in np.unique(number):
        here = number == k
        if here.sum() < _FEWEST:
            continue
        part = Pixels(*(getattr(pixels, n)[here] for n in Pixels.__annotations__))
        error = part.depth_m - part.truth_m
        row = {
            "from_m": float(k * BIN_M),
            "to_m": float((k + 1) * BIN_M),
            "rmse_m": float(np.sqrt(np.mean(error**2))),
            "median_abs_m": float(np.median(np.abs(error))),
            "bias_m": float(np.mean(error)),
            "limit_m": float(np.mean(part.truth_m**2) * LIMIT_PX / lens.px_per_dioptre),
            "share": float(np.mean(here)),
        }
        rows.append(row | _sigma(part))
    return rows


def by_blur(pixels: Pixels, lens: LensConfig) -> list[dict[str, float]]:
    """How often the right side of the focus is answered, by the true blur."""
    truth_px = lens.signed_coc_px(pixels.truth_m)
    right = np.sign(lens.signed_coc_px(pixels.depth_m)) == np.sign(truth_px)
    rows = []
    for low, high in zip(BLUR_EDGES_PX[:-1], BLUR_EDGES_PX[1:], strict=True):
        here = (np.abs(truth_px) >= low) & (np.abs(truth_px) < high)
        if here.sum() >= _FEWEST:
            rows.append(
                {
                    "from_px": low,
                    "to_px": high,
                    "sign_right": float(np.mean(right[here])),
                    "share": float(np.mean(here)),
                }
            )
    return rows


def swapped(
    own: Pixels,
    other: Pixels,
    lens: LensConfig,
    taken_by: LensConfig,
    depth_range_m: tuple[float, float],
) -> dict[str, float]:
    """Does depth follow the optics? The same scenes, photographed through another lens.

    The model is told ``lens`` all the time. A picture taken by another lens is blurred otherwise,
    so a model that reads blur must answer the depth d' whose blur through ``lens`` is what the
    other lens made: 1/d' = 1/d_f - c'/A. One that reads the picture's content answers as before.

    Args:
        own: Answers to the pictures through ``lens``.
        other: Answers to the same pixels, photographed through ``taken_by``.
        lens: The lens the model is told.
        taken_by: The other one.
        depth_range_m: What the model can answer.

    Returns:
        Median depths in metres on textured places: ``before_m``, ``after_m``, ``predicted_m`` (by
        the optics), and ``followed``: the share of the predicted change that was made.
    """
    c_px = taken_by.signed_coc_px(own.truth_m)
    dioptre = lens.focus_dioptre - c_px / lens.px_per_dioptre
    near_m, far_m = depth_range_m
    good = (own.texture >= TEXTURED) & (dioptre > 1 / far_m) & (dioptre < 1 / near_m)
    if good.sum() < _FEWEST:
        return {}
    before, after = (float(np.median(p.depth_m[good])) for p in (own, other))
    predicted = float(np.median(1 / dioptre[good]))
    truth = float(np.median(own.truth_m[good]))
    change = predicted - truth
    return {
        "before_m": before,
        "after_m": after,
        "truth_m": truth,
        "predicted_m": predicted,
        "off_by": after / predicted - 1,
        "followed": (after - before) / change if abs(change) > 0.02 else float("nan"),
        "share": float(np.mean(good)),
    }


def believed(pixels: Pixels) -> dict[str, Any]:
    """Errors and the share of the truth inside the 95 % interval, for the stress set."""
    result = {key: overall(pixels)[key] for key in ("abs_rel", "rmse")}
    if np.isfinite(pixels.sigma_m).any():
        error = np.abs(pixels.depth_m - pixels.truth_m)
        inside = error <= laplace_half_width_m(pixels.sigma_m, 0.95)
        result["inside_95"] = float(np.mean(inside))
        result["median_sigma_m"] = float(np.median(pixels.sigma_m))
    return result
