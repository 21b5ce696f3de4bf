"""Points in space from a depth image: decimated, filtered, and laid out as ``PointCloud2`` has it.

A pixel (u, v) of depth z is the point z * ((u - cx) / fx, (v - cy) / fy, 1) in the optical frame
(REP 103: x right, y down, z forward). For images that are not rectified, the direction comes from
K and the distortion instead of P.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.rays import Optics, slopes
from ddfd_ros.core.trust import edges

__all__ = ["XYZ", "XYZRGB", "CloudOptions", "Optics", "Rays", "make_points", "pack_rgb"]

XYZ = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
"""A point without colour, 12 bytes."""

XYZRGB = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4")])
"""A point with colour, 16 bytes; ``rgb`` holds the bits 0x00RRGGBB, as PCL and RViz read it."""


@dataclass(frozen=True)
class CloudOptions:
    """Which pixels become points.

    Attributes:
        decimation: Every so many rows and columns there is one, in the middle of its block.
        organized: Whether the points keep the image's rows and columns, NaN where there is none.
        max_edge: Largest jump of depth to a neighbouring pixel of the network, as a share of the
            nearer depth.
        min_depth_m: Nearest depth in metres.
        max_depth_m: Farthest depth in metres.
        max_sigma_m: Largest standard deviation in metres.
    """

    decimation: int = 4
    organized: bool = False
    max_edge: float = 0.05
    min_depth_m: float = 0.0
    max_depth_m: float = math.inf
    max_sigma_m: float = math.inf

    def check_heads(self, outputs: Sequence[str]) -> None:
        """Refuse what a model with these heads cannot fulfil.

        Raises:
            ContractError: A largest deviation is set, and the model estimates none.
        """
        if math.isfinite(self.max_sigma_m) and "sigma_m" not in outputs:
            raise ContractError(
                f"cloud_max_sigma_m: expected no limit, got {self.max_sigma_m}: this model "
                f"estimates no sigma_m (it has {list(outputs)}); use another model"
            )


class Rays:
    """The directions of the sampled pixels; kept as long as the camera stays the same."""

    def __init__(self) -> None:
        self._key: tuple[Optics, int] | None = None
        self._slopes: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))

    def of(self, optics: Optics, decimation: int) -> tuple[np.ndarray, np.ndarray]:
        """x/z and y/z of the samples, float32 ``[rows, columns]``; NaN: no direction known."""
        if self._key != (optics, decimation):
            camera = optics.camera
            rows = np.arange(camera.height)[_samples(camera.height, decimation)]
            columns = np.arange(camera.width)[_samples(camera.width, decimation)]
            self._slopes = slopes(optics, rows, columns)
            self._key = (optics, decimation)
        return self._slopes


def make_points(
    depth_m: np.ndarray,
    optics: Optics,
    options: CloudOptions,
    *,
    sigma_m: np.ndarray | None = None,
    rgb: np.ndarray | None = None,
    rays: Rays | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """The points of a depth image in metres, in its optical frame.

    Args:
        depth_m: float32 ``[H, W]`` in metres; what is not finite or not positive is no point.
        optics: Of this image, calibrated.
        options: Which pixels become points.
        sigma_m: float32 ``[H, W]`` in metres; needed for ``max_sigma_m``.
        rgb: uint8 ``[H, W, 3]``: colours; None: points without.
        rays: Kept from frame to frame, to save what only depends on the camera.
        scales: Pixels of the network per pixel of this image, along x and y (``View.scales``);
            below 1 the network's values were repeated.

    Returns:
        ``XYZ`` or ``XYZRGB``, contiguous: ``[N]``, or ``[rows, columns]`` when organized.

    Raises:
        ContractError: The depth's size is not the camera's, or ``sigma_m`` is needed and missing.
    """
    camera = optics.camera
    if depth_m.shape != (camera.height, camera.width):
        raise ContractError(
            f"point cloud: expected depth of the camera's size {camera.width}x{camera.height}, "
            f"got {depth_m.shape[1]}x{depth_m.shape[0]}; use the camera_info of this image"
        )
    if sigma_m is None:
        options.check_heads(("depth_m",))
    slope_x, slope_y = (rays or Rays()).of(optics, options.decimation)
    grid = (
        _samples(camera.height, options.decimation),
        _samples(camera.width, options.decimation),
    )
    z = depth_m[grid]
    with np.errstate(invalid="ignore"):
        good = (z > 0) & (z < np.inf)
        good &= (z >= options.min_depth_m) & (z <= options.max_depth_m)
        if math.isfinite(options.max_edge):
            good &= ~_jumps(depth_m, z, grid, options.max_edge, scales)
    good &= np.isfinite(slope_x)
    if sigma_m is not None and math.isfinite(options.max_sigma_m):
        good &= sigma_m[grid] <= options.max_sigma_m
    colours = None if rgb is None else pack_rgb(rgb[grid])
    if options.organized:
        z = np.where(good, z, np.float32(np.nan))
    else:
        z, slope_x, slope_y = z[good], slope_x[good], slope_y[good]
        colours = None if colours is None else colours[good]
    points = np.empty(z.shape, XYZ if colours is None else XYZRGB)
    points["x"], points["y"], points["z"] = slope_x * z, slope_y * z, z
    if colours is not None:
        points["rgb"] = colours
    return points


def pack_rgb(rgb: np.ndarray) -> np.ndarray:
    """Colours uint8 ``[..., 3]`` as the bits 0x00RRGGBB of a float32 ``[...]``."""
    red, green, blue = (rgb[..., i].astype("<u4") for i in range(3))
    bits: np.ndarray = (red << 16) | (green << 8) | blue
    return bits.view("<f4")


def _samples(side: int, decimation: int) -> slice:
    """The sampled rows (or columns): the middle of each block."""
    return slice(min(decimation // 2, side - 1), side, decimation)


def _jumps(
    depth_m: np.ndarray,
    z: np.ndarray,
    grid: tuple[slice, slice],
    limit: float,
    scales: tuple[float, float],
) -> np.ndarray:
    """Where depth jumps from a sample to one of its four neighbours as the network saw them."""
    (rows, columns), (scale_x, scale_y) = grid, scales
    if rows.step == 1 and min(scales) >= 1:  # the quicker way
        return edges(depth_m, limit)
    height, width = depth_m.shape
    jumps = np.zeros(z.shape, bool)
    for step in (-1, 1):
        above = _beside(height, rows, scale_y, step)
        left = _beside(width, columns, scale_x, step)
        for beside in (depth_m[above, columns], depth_m[rows, left]):
            jumps |= np.abs(beside - z) > np.float32(limit) * np.minimum(beside, z)
    return jumps


def _beside(side: int, samples: slice, scale: float, step: int) -> np.ndarray:
    """The rows (or columns) a pixel of the network before or after the samples; at the rim they.

    Where the network's pixels were repeated, the next pixel mostly holds the same value.
    """
    scale = min(scale, 1.0)
    count = max(1, round(side * scale))
    seen = ((np.arange(side)[samples] + 0.5) * scale).astype(int).clip(max=count - 1)
    beside = (seen + step).clip(0, count - 1)
    pixels: np.ndarray = ((beside + 0.5) / scale).astype(int).clip(max=side - 1)
    return pixels
