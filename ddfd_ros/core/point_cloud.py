"""Points in space from a depth image: decimated, filtered, and laid out as ``PointCloud2`` has it.

A pixel (u, v) of depth z is the point z * ((u - cx) / fx, (v - cy) / fy, 1) in the optical frame
(REP 103: x right, y down, z forward). For images that are not rectified, the direction comes from
K and the distortion instead of P.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ddfd_ros.core.encodings import load_opencv
from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.preprocessing import Intrinsics
from ddfd_ros.core.trust import edges

XYZ = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
"""A point without colour, 12 bytes."""

XYZRGB = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4")])
"""A point with colour, 16 bytes; ``rgb`` holds the bits 0x00RRGGBB, as PCL and RViz read it."""

_FISHEYE = ("equidistant", "fisheye")


@dataclass(frozen=True)
class CloudOptions:
    """Which pixels become points.

    Attributes:
        decimation: Every so many rows and columns there is one, in the middle of its block.
        organized: Whether the points keep the image's rows and columns, NaN where there is none.
        max_edge: Largest jump of depth to a neighbouring pixel, as a share of the nearer depth.
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


@dataclass(frozen=True)
class Optics:
    """How the published image sees: its camera, and how its lens distorts.

    Attributes:
        camera: Intrinsics of the published image.
        rectified: Whether its pixels are rectified: P holds, and nothing is distorted.
        model: ROS name of the distortion model.
        distortion: Its coefficients (``CameraInfo.d``).
    """

    camera: Intrinsics
    rectified: bool = False
    model: str = "plumb_bob"
    distortion: tuple[float, ...] = ()


class Rays:
    """The directions of the sampled pixels; kept as long as the camera stays the same."""

    def __init__(self) -> None:
        self._key: tuple[Optics, int] | None = None
        self._slopes: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))

    def of(self, optics: Optics, decimation: int) -> tuple[np.ndarray, np.ndarray]:
        """x/z and y/z of the samples, float32 ``[rows, columns]``."""
        if self._key != (optics, decimation):
            camera = optics.camera
            rows = np.arange(camera.height)[_samples(camera.height, decimation)]
            columns = np.arange(camera.width)[_samples(camera.width, decimation)]
            self._slopes = _slopes(optics, rows, columns)
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
) -> np.ndarray:
    """The points of a depth image in metres, in its optical frame.

    Args:
        depth_m: float32 ``[H, W]`` in metres; what is not finite or not positive is no point.
        optics: Of this image, calibrated.
        options: Which pixels become points.
        sigma_m: float32 ``[H, W]`` in metres; without it ``max_sigma_m`` filters nothing.
        rgb: uint8 ``[H, W, 3]``: colours; None: points without.
        rays: Kept from frame to frame, to save what only depends on the camera.

    Returns:
        ``XYZ`` or ``XYZRGB``, contiguous: ``[N]``, or ``[rows, columns]`` when organized.

    Raises:
        ContractError: The depth's size is not the camera's.
    """
    camera = optics.camera
    if depth_m.shape != (camera.height, camera.width):
        raise ContractError(
            f"point cloud: expected depth of the camera's size {camera.width}x{camera.height}, "
            f"got {depth_m.shape[1]}x{depth_m.shape[0]}; use the camera_info of this image"
        )
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
            good &= ~_jumps(depth_m, z, grid, options.max_edge)
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
    depth_m: np.ndarray, z: np.ndarray, grid: tuple[slice, slice], limit: float
) -> np.ndarray:
    """Where depth jumps from a sample to one of its four neighbours in the full image."""
    rows, columns = grid
    if not rows.start or not columns.start:  # some samples have no neighbour above or to the left
        return edges(depth_m, limit)[grid]
    jumps = np.zeros(z.shape, bool)
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        beside = depth_m[rows.start + down :: rows.step, columns.start + right :: columns.step]
        beside = beside[: z.shape[0], : z.shape[1]]
        part = (slice(beside.shape[0]), slice(beside.shape[1]))  # the last may have none either
        jumps[part] |= np.abs(beside - z[part]) > np.float32(limit) * np.minimum(beside, z[part])
    return jumps


def _slopes(
    optics: Optics, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    camera, k = optics.camera, optics.camera.k
    if optics.rectified:
        p = camera.p
        fx, cx, fy, cy = p[0], p[2], p[5], p[6]
    else:
        fx, cx, fy, cy = k[0], k[2], k[4], k[5]
        if any(optics.distortion):
            return _undistorted(optics, rows, columns)
    shape = (len(rows), len(columns))
    slope_x = np.broadcast_to(((columns - cx) / fx).astype(np.float32), shape)
    slope_y = np.broadcast_to(((rows - cy) / fy).astype(np.float32)[:, None], shape)
    return np.ascontiguousarray(slope_x), np.ascontiguousarray(slope_y)


def _undistorted(
    optics: Optics, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of distorted pixels; OpenCV inverts the distortion iteratively, once per camera."""
    cv2 = load_opencv("clouds of images with lens distortion")
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).astype(np.float64).reshape(-1, 1, 2)
    k = np.array(optics.camera.k).reshape(3, 3)
    d = np.array(optics.distortion)
    if optics.model in _FISHEYE:
        slopes = cv2.fisheye.undistortPoints(grid, k, d[:4])
    else:
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-9)
        slopes = cv2.undistortPointsIter(grid, k, d, None, None, criteria)
    slopes = slopes.reshape(len(rows), len(columns), 2).astype(np.float32)
    return np.ascontiguousarray(slopes[..., 0]), np.ascontiguousarray(slopes[..., 1])
