"""Closing the gaps of a measured depth map, for what cannot do without: rendering and filters."""

from __future__ import annotations

import cv2
import numpy as np

from ddfd_ros.core.errors import DatasetError


def fill_depth(depth_m: np.ndarray, name: str = "depth map") -> np.ndarray:
    """Give each unknown pixel the depth of the nearest known one.

    Args:
        depth_m: ``[H, W]`` in metres, NaN or infinite where unknown.
        name: What the error calls it: of thousands, which one it is.

    Returns:
        A map of the same shape and type, finite everywhere; ``depth_m`` itself if it has no gap.

    Raises:
        DatasetError: No depth is known at all.
    """
    unknown = ~np.isfinite(depth_m)
    if not unknown.any():
        return depth_m
    if unknown.all():
        raise DatasetError(
            f"{name}: expected at least one known (finite) depth, got none; leave it out"
        )
    _, labels = cv2.distanceTransformWithLabels(
        unknown.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.zeros(int(labels.max()) + 1, dtype=depth_m.dtype)
    values[labels[~unknown]] = depth_m[~unknown]
    filled: np.ndarray = values[labels]
    return filled
