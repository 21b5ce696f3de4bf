"""Brightness across each circle's edge: what blur is measured from.

Around every circle the pixels' brightness is averaged over rings of equal distance to the printed
edge, which the pose says. Hundreds of pixels at all fractions of a pixel make one profile, much
finer than the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ddfd_training.calibration.detection import Camera, Pose
from ddfd_training.calibration.target import Target

BIN_PX = 0.5
_MARGIN_PX = 2
_MOST_BINS = 48
_FEWEST_BINS = 8
_FEWEST_PIXELS = 60
_SMALLEST_RADIUS_PX = 3.0
_NEIGHBOUR_STEPS = 3.0


@dataclass(frozen=True)
class Profile:
    """Brightness across the edge of one circle.

    Attributes:
        picture: Number of the picture it is from.
        dioptre: Inverse distance of the circle along the optical axis, in 1/m.
        place: Squared distance from the image's centre, 1 in the corners.
        radius_px: Radius of the circle in the picture.
        neighbours_px: float ``[M]``, distances to the centres of the circles around it.
        edge_px: float ``[B]``, mean distance of each ring's pixels from the edge, positive
            outside, in pixels across the edge.
        brightness: float ``[B]``, mean of each ring.
        pixels: ``[B]``, number of pixels of each ring.
        blur_share: Blur of this picture relative to that at the aperture in question: 1; for a
            sharp companion what its smaller aperture leaves.
    """

    picture: int
    dioptre: float
    place: float
    radius_px: float
    neighbours_px: np.ndarray
    edge_px: np.ndarray
    brightness: np.ndarray
    pixels: np.ndarray
    blur_share: float = 1.0


def linear_light(image: np.ndarray, response: str) -> np.ndarray:
    """Brightness of a picture as float32 ``[H, W]`` in 0 to 1.

    Lenses blur light, not pixel values.

    Args:
        image: uint8 or uint16 ``[H, W]`` or ``[H, W, 3]``.
        response: ``srgb`` undoes the curve of ordinary pictures; ``linear`` leaves the values.
    """
    values = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    if response == "srgb":
        low = values / 12.92
        values = np.where(values <= 0.04045, low, ((values + 0.055) / 1.055) ** 2.4)
    return values if values.ndim == 2 else values @ np.array([0.25, 0.5, 0.25], np.float32)


def profiles(
    picture: int,
    brightness: np.ndarray,
    target: Target,
    camera: Camera,
    pose: Pose,
    blur_share: float = 1.0,
) -> list[Profile]:
    """One profile for each circle that lies well inside the picture.

    Args:
        picture: Its number.
        brightness: float ``[H, W]``, see ``linear_light``.
        target: The target.
        camera: Intrinsics.
        pose: Of the target in this picture.
        blur_share: See ``Profile``.
    """
    centres_mm = target.centres_mm()
    in_camera_m = pose.in_camera_m(centres_mm)
    turn = cv2.Rodrigues(pose.rotation)[0]
    found = []
    for i, (centre_mm, point_m) in enumerate(zip(centres_mm, in_camera_m, strict=True)):
        neighbours_mm = np.linalg.norm(centres_mm - centre_mm, axis=-1)
        near = neighbours_mm[
            (neighbours_mm > 0) & (neighbours_mm < _NEIGHBOUR_STEPS * target.step_mm)
        ]
        sheet_m = np.array([[*centre_mm, 0.0]]) / 1000
        seen, _ = cv2.projectPoints(
            sheet_m, turn, pose.translation_m, camera.matrix, camera.distortion
        )
        window = _window(seen.ravel(), camera, target, point_m[2], brightness.shape)
        if window is None:
            continue
        rows, columns = window
        away_mm = _away_mm(rows, columns, centre_mm, pose, camera)
        profile = _profile(brightness[rows, columns], away_mm, target.diameter_mm / 2, near)
        if profile is None:
            continue
        height, width = brightness.shape
        offset = seen.ravel() - np.array([width - 1, height - 1]) / 2
        place = float(np.sum(offset**2) / ((width**2 + height**2) / 4))
        found.append(Profile(picture, float(1 / point_m[2]), place, *profile, blur_share))
        assert i < len(centres_mm)
    return found


def _window(
    centre_px: np.ndarray,
    camera: Camera,
    target: Target,
    distance_m: float,
    shape: Sequence[int],
) -> tuple[slice, slice] | None:
    """Rows and columns around a circle; None where they leave the picture."""
    reach_mm = target.diameter_mm / 2 + 0.6 * (2**0.5 * target.step_mm - target.diameter_mm)
    reach_px = int(np.ceil(reach_mm / 1000 / distance_m * camera.focal_px)) + _MARGIN_PX
    column, row = np.rint(centre_px).astype(int)
    if min(row, column) < reach_px or row + reach_px >= shape[0] or column + reach_px >= shape[1]:
        return None
    return (
        slice(row - reach_px, row + reach_px + 1),
        slice(column - reach_px, column + reach_px + 1),
    )


def _away_mm(
    rows: slice, columns: slice, centre_mm: np.ndarray, pose: Pose, camera: Camera
) -> np.ndarray:
    """Distance on the sheet of every pixel of a window from a circle's centre, in mm."""
    y, x = np.mgrid[rows, columns].astype(np.float64)
    points = np.stack([x.ravel(), y.ravel()], axis=-1)[:, None]
    rays = cv2.undistortPoints(points, camera.matrix, camera.distortion).reshape(-1, 2)
    # A ray (u, v, 1) times its depth lies on the plane spanned by the sheet's first two axes.
    to_sheet = np.linalg.inv(
        np.column_stack([pose.rotation[:, 0], pose.rotation[:, 1], pose.translation_m])
    )
    hits = np.column_stack([rays, np.ones(len(rays))]) @ to_sheet.T
    sheet_mm = 1000 * hits[:, :2] / hits[:, 2:]
    away: np.ndarray = np.linalg.norm(sheet_mm - centre_mm, axis=-1).reshape(y.shape)
    return away


def _profile(
    window: np.ndarray, away_mm: np.ndarray, radius_mm: float, neighbours_mm: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Radius, neighbours, edge distances, brightness and pixel counts of one circle."""
    across, along = np.gradient(away_mm)
    mm_per_px = np.hypot(across, along)
    ring = np.abs(away_mm - radius_mm) < 0.3 * radius_mm
    if ring.sum() < _FEWEST_PIXELS:
        return None
    scale = float(np.mean(mm_per_px[ring]))
    radius_px = radius_mm / scale
    if radius_px < _SMALLEST_RADIUS_PX:
        return None
    # To first order exact at the edge, in whatever direction the sheet is tilted.
    edge_px = (away_mm - radius_mm) / np.where(ring, mm_per_px, scale)
    inside_px = 0.9 * radius_px
    outside_px = min(float(edge_px[0].min()), float(edge_px[:, 0].min())) - 0.5
    step = max(BIN_PX, (inside_px + outside_px) / _MOST_BINS)
    number = np.floor((edge_px + inside_px) / step).astype(int)
    count = int((inside_px + outside_px) / step)
    used = (number >= 0) & (number < count)
    if count < _FEWEST_BINS:
        return None
    pixels = np.bincount(number[used], minlength=count)
    kept = pixels > 2
    total = np.bincount(number[used], edge_px[used], count)
    light = np.bincount(number[used], window[used], count)
    return (
        radius_px,
        neighbours_mm / scale,
        total[kept] / pixels[kept],
        light[kept] / pixels[kept],
        pixels[kept],
    )
