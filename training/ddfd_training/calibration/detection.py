"""Find the target in a picture, and from where it was photographed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ddfd_training.calibration.errors import CalibrationError
from ddfd_training.calibration.target import Target

_FLAGS = cv2.CALIB_CB_ASYMMETRIC_GRID
_SEARCH_SIDE_PX = 1000
_FOCAL_UNCERTAINTY = 0.02
_LEAST_TILT_DEG = 10.0
_SAME_SHAPE = 0.02  # relative difference of both sides' scales that rounding may leave


@dataclass(frozen=True)
class Camera:
    """Intrinsics of the pictures.

    Attributes:
        matrix: float64 ``[3, 3]``.
        distortion: OpenCV's coefficients; empty: none.
        focal_uncertainty: Standard deviation of the focal length, as a share of it.
        size: Height and width of the images that the matrix is for; None: not known.
    """

    matrix: np.ndarray
    distortion: np.ndarray
    focal_uncertainty: float = 0.0
    size: tuple[int, int] | None = None

    @property
    def focal_px(self) -> float:
        """Mean focal length in pixels."""
        return float((self.matrix[0, 0] + self.matrix[1, 1]) / 2)

    def for_size(self, size: tuple[int, int]) -> Camera:
        """The same camera for images scaled to ``size``, height and width.

        Without a size of its own it is taken as made for these.

        Raises:
            CalibrationError: They have another shape, so they are not scaled images of it.
        """
        own = self.size or size
        down, across = size[0] / own[0], size[1] / own[1]
        if abs(across / down - 1) > _SAME_SHAPE:
            raise CalibrationError(
                f"intrinsics: expected those of pictures of {size[1]}x{size[0]}, or of a scaled "
                f"one, got those of {own[1]}x{own[0]}; give the calibration of these pictures"
            )
        if own == size:
            return replace(self, size=size)
        # The middle of the first pixel is at 0, its corner at -1/2.
        shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
        matrix = np.linalg.inv(shift) @ np.diag([across, down, 1.0]) @ shift @ self.matrix
        return replace(self, matrix=matrix, size=size)


@dataclass(frozen=True)
class Pose:
    """Where the target was: camera coordinates = rotation @ sheet coordinates + translation_m."""

    rotation: np.ndarray
    translation_m: np.ndarray
    error_px: float

    def in_camera_m(self, sheet_mm: np.ndarray) -> np.ndarray:
        """Points of the sheet ``[N, 2]`` in mm as camera coordinates ``[N, 3]`` in metres."""
        points = np.column_stack([sheet_mm, np.zeros(len(sheet_mm))]) / 1000
        return points @ self.rotation.T + self.translation_m


def find_circles(image: np.ndarray, target: Target) -> np.ndarray | None:
    """Centres of the target's circles in its order, float64 ``[N, 2]`` in pixels; None: not there.

    Args:
        image: uint8 ``[H, W]`` or ``[H, W, 3]`` RGB.
        target: What to look for.
    """
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, _SEARCH_SIDE_PX / max(grey.shape))
    small = grey
    if scale < 1:
        small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    settings = cv2.SimpleBlobDetector.Params()
    settings.minArea, settings.maxArea = 30, small.size / 9
    if settings.maxArea < settings.minArea:  # OpenCV refuses to look; no target fits in there
        return None
    settings.minDistBetweenBlobs = 4
    settings.minThreshold, settings.maxThreshold, settings.thresholdStep = 10, 245, 10
    settings.minConvexity, settings.minInertiaRatio, settings.minCircularity = 0.85, 0.2, 0.6
    settings.filterByCircularity = True
    detector = cv2.SimpleBlobDetector.create(settings)
    size = (target.per_row, target.rows)
    found, centres = cv2.findCirclesGrid(small, size, flags=_FLAGS, blobDetector=detector)
    if not found:
        return None
    return (centres.reshape(-1, 2).astype(np.float64) + 0.5) / scale - 0.5


def find_pose(circles_px: np.ndarray, target: Target, camera: Camera) -> Pose:
    """The target's pose from its circles."""
    sheet_m = np.column_stack([target.centres_mm(), np.zeros(len(circles_px))]) / 1000
    _, turn, shift = cv2.solvePnP(sheet_m, circles_px, camera.matrix, camera.distortion)
    turn, shift = cv2.solvePnPRefineLM(
        sheet_m, circles_px, camera.matrix, camera.distortion, turn, shift
    )
    seen, _ = cv2.projectPoints(sheet_m, turn, shift, camera.matrix, camera.distortion)
    error = float(np.sqrt(np.mean(np.sum((seen.reshape(-1, 2) - circles_px) ** 2, axis=-1))))
    return Pose(cv2.Rodrigues(turn)[0], shift.ravel(), error)


def estimate_camera(
    circles_px: Sequence[np.ndarray], target: Target, size: tuple[int, int]
) -> Camera:
    """Intrinsics from pictures of the target; it has to be tilted in some of them.

    Args:
        circles_px: Of each picture, as ``find_circles`` gives them.
        target: The target.
        size: Height and width of the pictures.

    Raises:
        CalibrationError: The target is never tilted, or the pictures do not determine the focal
            length.
    """
    sheet_m = np.column_stack([target.centres_mm(), np.zeros(len(target.centres_mm()))]) / 1000
    objects = [sheet_m.astype(np.float32)] * len(circles_px)
    points = [c.astype(np.float32) for c in circles_px]
    flags = cv2.CALIB_FIX_ASPECT_RATIO | cv2.CALIB_ZERO_TANGENT_DIST | cv2.CALIB_FIX_K3
    start = cv2.initCameraMatrix2D(objects, points, size[::-1], 1.0)
    _, matrix, distortion, turns, _, deviations, _, _ = cv2.calibrateCameraExtended(
        objects, points, size[::-1], start, np.zeros(5), flags=flags
    )
    # Flat views look alike through any focal length, and the deviation may still come out small:
    # it is taken at the solution found, whose distortion and small tilts fit the noise.
    normals = [abs(float(cv2.Rodrigues(turn)[0][2, 2])) for turn in turns]
    tilt_deg = float(np.degrees(np.arccos(min(min(normals), 1.0))))
    if tilt_deg < _LEAST_TILT_DEG:
        raise CalibrationError(
            f"intrinsics: expected the target tilted by more than {_LEAST_TILT_DEG:g} degrees in "
            f"some pictures, got {tilt_deg:.1f} at most; tilt it by 20 to 40 degrees in some, or "
            "give --camera with a calibration"
        )
    # That of fy: fx follows from it by the fixed ratio, and 0 is reported as its deviation.
    share = float(deviations.ravel()[1] / matrix[1, 1])
    if not share <= _FOCAL_UNCERTAINTY:
        raise CalibrationError(
            f"intrinsics: expected the focal length known to {100 * _FOCAL_UNCERTAINTY:g} %, got "
            f"{100 * share:.1f} %; tilt the target by 20 to 40 degrees in some pictures, or give "
            "--camera with a calibration"
        )
    return Camera(matrix, distortion.ravel(), share, size)
