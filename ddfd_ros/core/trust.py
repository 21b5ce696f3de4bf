"""Which depth is believed: by its uncertainty, its distance, and its neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ddfd_ros.core.errors import ContractError


@dataclass(frozen=True)
class Thresholds:
    """Which depth is believed; everything else becomes NaN.

    Attributes:
        max_sigma_m: Largest standard deviation in metres; ``inf`` believes everything.
        min_depth_m: Nearest depth in metres.
        max_depth_m: Farthest depth in metres.
        max_edge: Largest jump to a neighbouring pixel, as a share of the nearer of the two depths.
        dead_zone_px: Depth at which the lens blurs by less than this many pixels of the network's
            image becomes NaN, where the lens is known; 0 keeps it.
        mark_range: Whether depth beyond the limits is marked as REP 117 has it (too close -Inf,
            too far +Inf) instead of becoming NaN.
    """

    max_sigma_m: float = math.inf
    min_depth_m: float = 0.0
    max_depth_m: float = math.inf
    max_edge: float = math.inf
    mark_range: bool = False
    dead_zone_px: float = 0.0

    def __post_init__(self) -> None:
        """Refuse thresholds that would blank every frame by mistake."""
        if not self.max_sigma_m > 0:
            raise ContractError(
                f"max_sigma_m: expected more than 0 m, got {self.max_sigma_m}; inf means no limit"
            )
        if not 0 <= self.min_depth_m < self.max_depth_m:
            raise ContractError(
                "min_depth_m, max_depth_m: expected 0 <= min < max in metres, got "
                f"{self.min_depth_m} and {self.max_depth_m}"
            )
        if not 0 <= self.dead_zone_px < math.inf:
            raise ContractError(
                f"dead_zone_px: expected 0 or a number of pixels, got {self.dead_zone_px}"
            )
        if not self.max_edge > 0:
            raise ContractError(
                f"max_edge: expected more than 0, got {self.max_edge}; inf means no limit"
            )


def believe(depth_m: np.ndarray, sigma_m: np.ndarray | None, thresholds: Thresholds) -> np.ndarray:
    """NaN where the depth is not to be believed; ``depth_m`` itself is not changed.

    A depth of 0 or less, which no camera sees, is never believed: consumers would make a point at
    the camera of it.

    Args:
        depth_m: float32 ``[H, W]`` in metres.
        sigma_m: float32 ``[H, W]``, its standard deviation in metres, where there is one.
        thresholds: What is believed.
    """
    good = depth_m > 0  # NaN compares false
    good &= depth_m < np.inf
    if sigma_m is not None and math.isfinite(thresholds.max_sigma_m):
        good &= sigma_m <= thresholds.max_sigma_m  # a NaN sigma compares false: not believed
    if math.isfinite(thresholds.max_edge):
        good &= ~edges(depth_m, thresholds.max_edge)
    near = depth_m < thresholds.min_depth_m if thresholds.min_depth_m > 0 else None
    far = depth_m > thresholds.max_depth_m if math.isfinite(thresholds.max_depth_m) else None
    outside = [side for side in (near, far) if side is not None]
    if not thresholds.mark_range:
        for side in outside:
            good &= ~side
    if good.all() and not (thresholds.mark_range and outside):
        return depth_m
    result = np.where(good, depth_m, np.float32(np.nan))
    if thresholds.mark_range:
        if near is not None:
            result[near & good] = -np.inf
        if far is not None:
            result[far & good] = np.inf
    return result


def edges(depth_m: np.ndarray, max_edge: float) -> np.ndarray:
    """Where depth jumps to one of the four neighbouring pixels, bool ``[H, W]``.

    A jump is a difference of more than ``max_edge`` times the nearer depth; both its pixels are
    marked. What is not a number has no edge.
    """
    marked = np.zeros(depth_m.shape, bool)
    for axis in (0, 1):
        ahead = [slice(None)] * 2
        behind = [slice(None)] * 2
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        a, b = depth_m[tuple(ahead)], depth_m[tuple(behind)]
        with np.errstate(invalid="ignore"):
            jump = np.abs(a - b) > np.float32(max_edge) * np.minimum(a, b)
        marked[tuple(ahead)] |= jump
        marked[tuple(behind)] |= jump
    return marked
