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

    A value that differs by more than 5 % from the median of its known neighbours, or has none, is
    unknown afterwards; the latter are kept where they are most, as in a laser's sparse map. Edges
    stay where they are: a median moves none.

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
    around = _beside_gaps(depth_m, known, around, window)
    outlier = np.abs(whole - around) > OUTLIER_SHARE * around
    lone = known & np.isnan(around)
    if 2 * np.count_nonzero(lone) < np.count_nonzero(known):
        outlier |= lone
    calm = cv2.medianBlur(whole.astype(np.float32), 3)
    result = np.where(known & ~outlier, calm, np.float32(np.nan))
    return result.astype(np.float32)


def _beside_gaps(
    depth_m: np.ndarray, known: np.ndarray, around: np.ndarray, window: int
) -> np.ndarray:
    """``around``, but beside gaps the median of the known neighbours; NaN where there are none.

    A gap that is filled from the nearest value would make a lone wrong value its own neighbour.
    """
    reach = window // 2
    gaps = cv2.dilate((~known).astype(np.uint8), np.ones((window, window), np.uint8)) > 0
    rows, columns = np.nonzero(gaps & known)
    padded = np.pad(depth_m, reach, constant_values=np.nan)
    neighbours = [
        padded[rows + down, columns + right]
        for down in range(window)
        for right in range(window)
        if (down, right) != (reach, reach)
    ]
    ordered = np.sort(np.stack(neighbours), axis=0)  # NaN last
    count = np.isfinite(ordered).sum(axis=0)
    middles = (np.maximum(count - 1, 0) // 2, count // 2)
    low, high = (ordered[middle, np.arange(rows.size)] for middle in middles)
    here = depth_m[rows, columns]
    result = around.copy()
    # Of two middle values, the nearer one: their mean may lie between two surfaces.
    result[rows, columns] = np.where(np.abs(low - here) <= np.abs(high - here), low, high)
    return result


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
