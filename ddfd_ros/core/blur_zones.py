"""Where blur says little: next to the focus, and where two distances are blurred alike."""

from __future__ import annotations

import numpy as np

from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.thin_lens import LensConfig

DEAD_ZONE, TWO_SIDES, UNKNOWN = 1, 2, 255
"""Values of the mask: 1 and 2 may add up to 3; 0 where neither holds; 255: depth unknown."""

DEAD_ZONE_PX = 1.0
"""Where no other is asked for: below a pixel of blur hardly anything is known."""


def takes_any_lens(contract: ModelContract) -> bool:
    """Whether a model takes the camera's lens beside the image, within a range."""
    return "lens" in contract.inputs and bool(contract.lens_range)


def in_dead_zone(depth_m: np.ndarray, lens: LensConfig, dead_zone_px: float) -> np.ndarray:
    """Where the blur at ``depth_m`` stays below ``dead_zone_px`` pixels, bool ``[H, W]``.

    Blurred that little, everything looks sharp, and distance is a guess around the focus.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        blur_px = lens.coc_px(depth_m)
    result: np.ndarray = blur_px < dead_zone_px  # NaN compares false
    return result


def zones(
    depth_m: np.ndarray,
    lens: LensConfig,
    dead_zone_px: float,
    depth_range_m: tuple[float, float],
) -> np.ndarray:
    """The mask of an estimate.

    Args:
        depth_m: float32 ``[H, W]``, NaN where unknown.
        lens: The lens at the size of these pixels.
        dead_zone_px: Blur below this says nothing about distance.
        depth_range_m: Nearest and farthest depth of the model: blur that only one side of the
            focus can have within it belongs to one distance.

    Returns:
        uint8 ``[H, W]``.
    """
    near_m, far_m = depth_range_m
    with np.errstate(divide="ignore", invalid="ignore"):
        blur_px = lens.coc_px(depth_m)
    mask = (blur_px < dead_zone_px) * np.uint8(DEAD_ZONE)  # NaN compares false
    most_px = min(-lens.signed_coc_px(near_m), lens.signed_coc_px(far_m))
    if most_px > 0:
        mask |= (blur_px < most_px) * np.uint8(TWO_SIDES)
    mask[~np.isfinite(depth_m)] = UNKNOWN
    return mask
