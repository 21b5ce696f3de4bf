"""Which way a camera's pixels look, and at which pixel it sees what lies that way.

A direction is (x/z, y/z) in the optical frame (REP 103: x right, y down, z forward). Of rectified
images it follows from P, else from K and the distortion, as ``sensor_msgs/CameraInfo`` has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddfd_ros.core.camera_model import FISHEYE_MODELS
from ddfd_ros.core.encodings import load_opencv
from ddfd_ros.core.preprocessing import Intrinsics

_MOST_OFF_PX = 1.0
"""A direction that does not lead back to its pixel by this much is none."""


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

    @property
    def lens(self) -> tuple[str, tuple[float, ...]]:
        """Model and coefficients in force: ``pinhole``, ``fisheye`` or ``plumb_bob``.

        A fisheye without coefficients is no pinhole. Any other model that distorts is read as
        OpenCV reads so many coefficients.
        """
        fisheye = self.model in FISHEYE_MODELS
        if self.rectified or not (fisheye or any(self.distortion)):
            return "pinhole", ()
        return ("fisheye" if fisheye else "plumb_bob"), self.distortion


def slopes(optics: Optics, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which way pixels look.

    Args:
        optics: Of the image.
        rows: ``[R]`` in pixels.
        columns: ``[C]`` in pixels.

    Returns:
        x/z and y/z, float32 ``[R, C]``; NaN where no direction is known.

    Raises:
        ImageFormatError: The lens distorts, and OpenCV is not installed.
    """
    lens, _ = optics.lens
    if lens == "fisheye":
        return _fisheye(optics, rows, columns)
    if lens == "plumb_bob":
        return _undistorted(optics, rows, columns)
    fx, cx, fy, cy = _pinhole(optics)
    shape = (len(rows), len(columns))
    slope_x = np.broadcast_to(((columns - cx) / fx).astype(np.float32), shape)
    slope_y = np.broadcast_to(((rows - cy) / fy).astype(np.float32)[:, None], shape)
    return np.ascontiguousarray(slope_x), np.ascontiguousarray(slope_y)


def project(
    slope_x: np.ndarray, slope_y: np.ndarray, optics: Optics
) -> tuple[np.ndarray, np.ndarray]:
    """Where a camera sees what lies in these directions: the inverse of ``slopes``.

    Args:
        slope_x: x/z, ``[R, C]``.
        slope_y: y/z, likewise.
        optics: Of the image.

    Returns:
        Columns and rows in pixels, float64 ``[R, C]``, also beyond the image's border; NaN where
        the lens does not look, or is not known to.

    Raises:
        ImageFormatError: The lens distorts, and OpenCV is not installed.
    """
    fx, cx, fy, cy = _pinhole(optics)
    x, y = slope_x.astype(np.float64), slope_y.astype(np.float64)
    lens, _ = optics.lens
    if lens == "plumb_bob":
        return _distorted(x, y, optics)
    if lens == "fisheye":
        angles, radii = _fisheye_radii(optics)
        tangent = np.hypot(x, y)
        radius = np.interp(np.arctan(tangent), angles, radii, right=np.nan)
        factor = np.divide(radius, tangent, out=np.ones_like(x), where=tangent != 0)
        x, y = x * factor, y * factor
    return x * fx + cx, y * fy + cy


def rotation_rad(r: Sequence[float]) -> float:
    """By how much a rotation turns.

    Args:
        r: Nine values by rows, such as R of a ``CameraInfo``, the rotation of a raw camera's
            directions into those of its rectified image.

    Returns:
        The angle in radians; 0 where it is no rotation (drivers that leave R at zero).
    """
    matrix = np.reshape(np.asarray(r, np.float64), (3, 3))
    if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3):
        return 0.0
    # By the sine, since a cosine near 1 tells no small angle.
    x, y, z = (matrix - matrix.T)[(2, 0, 1), (1, 2, 0)]
    return math.atan2(math.hypot(x, y, z), float(np.trace(matrix)) - 1)


def _pinhole(optics: Optics) -> tuple[float, float, float, float]:
    """fx, cx, fy, cy of the pixels, before distortion."""
    k, p = optics.camera.k, optics.camera.p
    return (p[0], p[2], p[5], p[6]) if optics.rectified else (k[0], k[2], k[4], k[5])


def _fisheye_radii(optics: Optics) -> tuple[np.ndarray, np.ndarray]:
    """Angles off the axis and their radii at focal length 1, of an equidistant lens.

    The radius is r = a (1 + k1 a^2 + k2 a^4 + ...) of the angle a, up to 90 degrees or, where the
    polynomial turns back before, up to there.
    """
    angle = np.linspace(0.0, math.pi / 2, 20_001)[:-1]
    k1, k2, k3, k4 = (*optics.distortion, 0.0, 0.0, 0.0, 0.0)[:4]
    radius = angle * np.polyval((k4, k3, k2, k1, 1.0), angle**2)
    falls = np.flatnonzero(np.diff(radius) <= 0)
    end = falls[0] + 1 if falls.size else len(angle)
    return angle[:end], radius[:end]


def _fisheye(
    optics: Optics, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of an equidistant lens; NaN from 90 degrees off the axis on."""
    k = optics.camera.k
    angles, radii = _fisheye_radii(optics)
    x, y = np.meshgrid((columns - k[2]) / k[0], (rows - k[5]) / k[4])
    r = np.hypot(x, y)
    tangent = np.tan(np.interp(r, radii, angles, right=np.nan))
    factor = np.divide(tangent, r, out=np.ones_like(r), where=r > 0)
    return (x * factor).astype(np.float32), (y * factor).astype(np.float32)


def _undistorted(
    optics: Optics, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of distorted pixels.

    Strong distortion has no inverse far from the axis, and the iteration ends anywhere: what does
    not lead back to its pixel is NaN.
    """
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).astype(np.float64).reshape(-1, 1, 2)
    found = _opencv_slopes(grid, optics)
    off_px = np.linalg.norm(_opencv_pixels(found, optics) - grid, axis=-1)
    found[~(off_px <= _MOST_OFF_PX)] = np.nan
    found = found.reshape(len(rows), len(columns), 2).astype(np.float32)
    return np.ascontiguousarray(found[..., 0]), np.ascontiguousarray(found[..., 1])


def _distorted(x: np.ndarray, y: np.ndarray, optics: Optics) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of directions through a lens that distorts.

    Far off the axis the polynomial may turn back into the image: what the pixel does not see is
    NaN.
    """
    wanted = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
    pixels = _opencv_pixels(wanted, optics)
    off = np.linalg.norm(_opencv_slopes(pixels, optics) - wanted, axis=-1)
    pixels[~(off * optics.camera.k[0] <= _MOST_OFF_PX)] = np.nan
    found = pixels.reshape(*x.shape, 2)
    return found[..., 0], found[..., 1]


def _opencv_slopes(pixels: np.ndarray, optics: Optics) -> np.ndarray:
    """Slopes of pixels ``[N, 1, 2]``; OpenCV inverts the distortion iteratively."""
    cv2 = load_opencv("images with lens distortion")
    k, d = np.array(optics.camera.k).reshape(3, 3), np.array(optics.distortion)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-9)
    found: np.ndarray = cv2.undistortPointsIter(pixels, k, d, None, None, criteria)
    return found


def _opencv_pixels(directions: np.ndarray, optics: Optics) -> np.ndarray:
    """Pixels of slopes ``[N, 1, 2]``."""
    cv2 = load_opencv("images with lens distortion")
    k, d = np.array(optics.camera.k).reshape(3, 3), np.array(optics.distortion)
    ahead = np.concatenate([directions, np.ones_like(directions[..., :1])], axis=-1)
    found: np.ndarray = cv2.projectPoints(ahead, np.zeros(3), np.zeros(3), k, d)[0]
    return found
