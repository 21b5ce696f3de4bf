"""How far an estimated defocus map is from the lens's own blur (the measures of thesis table 5.1).

Blur is compared as a diameter in pixels. The thesis's maps have no stated unit, so its figures
cannot be set beside these.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ddfd_ros.core.thin_lens import LensConfig


def defocus_metrics(pred_px: np.ndarray, target_px: np.ndarray) -> dict[str, float]:
    """Errors of a defocus map.

    Args:
        pred_px: ``[H, W]`` blur diameter in pixels; its sign does not matter.
        target_px: Same shape; NaN where unknown.

    Returns:
        ``mae_px`` and ``mse_px2`` of the diameters without sign, ``bias_px`` their mean
        difference; all NaN where nothing is known.

    Raises:
        ValueError: The shapes differ.
    """
    if pred_px.shape != target_px.shape:
        raise ValueError(
            f"defocus maps: expected one shape, got {pred_px.shape} and {target_px.shape}"
        )
    known = np.isfinite(target_px)
    if not known.any():
        return {"mae_px": float("nan"), "mse_px2": float("nan"), "bias_px": float("nan")}
    error = np.abs(pred_px[known]).astype(np.float64) - np.abs(target_px[known])
    return {
        "mae_px": float(np.abs(error).mean()),
        "mse_px2": float((error**2).mean()),
        "bias_px": float(error.mean()),
    }


class DefocusTable:
    """Errors of the defocus maps of many images."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []
        self._sums = np.zeros(3)
        self._pixels = 0

    def add(self, pred_px: np.ndarray, depth_m: np.ndarray, lens: LensConfig) -> None:
        """Count one image: ``[H, W]`` blur in pixels, true depth in metres (NaN: unknown)."""
        row = defocus_metrics(pred_px, np.asarray(lens.coc_px(depth_m.astype(np.float64))))
        known = int(np.isfinite(depth_m).sum())
        if not known:
            return
        self._rows.append(row)
        self._sums += known * np.array(list(row.values()))
        self._pixels += known

    def result(self) -> dict[str, Any] | None:
        """Means over images and over pixels; ``None`` without any."""
        if not self._rows:
            return None
        names = list(self._rows[0])
        return {
            "images": len(self._rows),
            "mean_over_images": {n: float(np.mean([r[n] for r in self._rows])) for n in names},
            "over_pixels": dict(zip(names, (self._sums / self._pixels).tolist(), strict=True)),
        }
