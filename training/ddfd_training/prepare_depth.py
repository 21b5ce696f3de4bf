"""Cleaning a measured depth map: isolated wrong values, and gaps.

Depth sensors leave gaps beside edges, on black and on shiny things, and single wrong values around
them. Both steps are optional, and neither invents what is far from anything measured.
"""

from __future__ import annotations

import cv2
import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.depth_fill import fill_depth

INPAINTINGS = ("none", "nearest", "smooth")
OUTLIER_SHARE = 0.05
_STEP_M = 1e-3


def denoise_depth(depth_m: np.ndarray, window: int = 5) -> np.ndarray:
    """Remove values that none of their neighbours have; calm the rest by a median of 3x3.

    A value that differs by more than 5 % from the median of its known neighbours is unknown
    afterwards. Edges stay where they are: a median moves none.

    Args:
        depth_m: float32 ``[H, W]``, NaN where unknown.
        window: Side of the neighbourhood in pixels, 3 or 5.

    Raises:
        ValueError: Another window.
    """
    if window not in (3, 5):
        raise ValueError(f"window: expected 3 or 5, got {window}")
    known = np.isfinite(depth_m)
    if not known.any():
        return depth_m
    whole = fill_depth(depth_m)
    around = cv2.medianBlur(whole.astype(np.float32), window)
    outlier = np.abs(whole - around) > OUTLIER_SHARE * around
    calm = cv2.medianBlur(whole.astype(np.float32), 3)
    result = np.where(known & ~outlier, calm, np.float32(np.nan))
    return result.astype(np.float32)


def inpaint_depth(
    depth_m: np.ndarray, how: str = "smooth", reach_px: int = 20
) -> tuple[np.ndarray, float]:
    """Close gaps, but no farther than ``reach_px`` from a measured value.

    Args:
        depth_m: float32 ``[H, W]``, NaN where unknown.
        how: ``nearest`` (the nearest known value), ``smooth`` (Telea 2004, marching inwards along
            the gap's border) or ``none``.
        reach_px: Largest distance in pixels from a known value.

    Returns:
        The map, and the share of its pixels that was filled.

    Raises:
        DatasetError: No such method.
    """
    if how not in INPAINTINGS:
        raise DatasetError(f"inpaint: expected one of {', '.join(INPAINTINGS)}, got {how!r}")
    unknown = ~np.isfinite(depth_m)
    if how == "none" or not unknown.any() or unknown.all():
        return depth_m, 0.0
    away = cv2.distanceTransform(unknown.astype(np.uint8), cv2.DIST_L2, 5)
    near = unknown & (away <= reach_px)
    filled = fill_depth(depth_m).astype(np.float32)
    if how == "smooth":
        steps = np.clip(np.rint(filled / _STEP_M), 0, 65535).astype(np.uint16)
        # All gaps, also beyond reach: what is not measured must not count as a known neighbour.
        smooth = cv2.inpaint(steps, unknown.astype(np.uint8), 5, cv2.INPAINT_TELEA)
        filled = np.where(smooth > 0, smooth * np.float32(_STEP_M), filled)
    result = np.where(near, filled, depth_m).astype(np.float32)
    return result, float(near.mean())
