"""Pictures of the target through a simulated lens, whose truth is known: for tests and trials."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.calibration.detection import Camera
from ddfd_training.calibration.target import Target
from ddfd_training.optics import render_defocus
from ddfd_training.optics_options import Layering, RenderOptions
from ddfd_training.sensor import Sensor

_FINE = 3
_LAYER_PX = 0.15
_WALL = 150
_FINER = 2
"""Blur is rendered on finer pixels and averaged, since a kernel on the pixels themselves is a
somewhat smaller disk and the pixel's square, and edges show it."""


@dataclass(frozen=True)
class View:
    """From where a picture is taken.

    Attributes:
        distance_m: Of the sheet's centre along the optical axis.
        tilt_deg: Turn about the horizontal and the vertical axis.
        roll_deg: Turn in the image plane.
        offset: Of the centre from the middle, as shares of the picture's height.
    """

    distance_m: float
    tilt_deg: tuple[float, float] = (0.0, 0.0)
    roll_deg: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)


def pinhole(focal_px: float, height: int, width: int) -> Camera:
    """A camera without distortion that looks through the picture's middle."""
    matrix = np.array(
        [[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]]
    )
    return Camera(matrix, np.zeros(5))


def pose_of(
    view: View, target: Target, camera: Camera, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation (m) of the sheet's top left corner."""
    x, y = (np.deg2rad(angle) for angle in view.tilt_deg)
    turn = cv2.Rodrigues(np.array([x, y, 0.0]))[0]
    turn = turn @ cv2.Rodrigues(np.array([0, 0, np.deg2rad(view.roll_deg)]))[0]
    aside = np.array(view.offset) * height / camera.focal_px * view.distance_m
    middle_m = np.array([*(np.array(target.page_mm) / 2000), 0.0])
    return turn, np.array([*aside, view.distance_m]) - turn @ middle_m


def photograph_target(
    view: View,
    target: Target,
    camera: Camera,
    size: tuple[int, int],
    lens: LensConfig,
    options: RenderOptions,
    sensor: Sensor,
    random: np.random.Generator,
) -> np.ndarray:
    """The target on a grey wall in its own plane, uint8 ``[H, W, 3]``.

    Args:
        view: From where.
        target: The target.
        camera: Intrinsics without distortion.
        size: Height and width of the picture.
        lens: The lens, its pitch that of these pixels.
        options: Point-spread function; layers are made thinner than usual.
        sensor: Noise and compression.
        random: Source of the noise.
    """
    height, width = (side * _FINER for side in size)
    turn, shift_m = pose_of(view, target, camera, size[0])
    matrix = _shift(-0.5) @ np.diag([_FINER, _FINER, 1.0]) @ _shift(0.5) @ camera.matrix
    sharp = _sharp(turn, shift_m, target, matrix, (height, width))
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    rays = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ np.linalg.inv(matrix).T
    depth_m = (turn[:, 2] @ shift_m) / (rays @ turn[:, 2])
    layering = Layering("blur", _LAYER_PX * _FINER)
    with torch.no_grad():
        image = render_defocus(
            torch.from_numpy(sharp)[None, None].float(),
            torch.from_numpy(depth_m)[None, None].float(),
            lens.scaled(_FINER),
            options=replace(options, layering=layering),
        )
    grey = cv2.resize((image[0, 0] * 255).numpy(), size[::-1], interpolation=cv2.INTER_AREA)
    return sensor.apply(np.repeat(grey[..., None], 3, axis=-1), random)


def _sharp(
    turn: np.ndarray,
    shift_m: np.ndarray,
    target: Target,
    matrix: np.ndarray,
    size: tuple[int, int],
) -> np.ndarray:
    """The sheet without blur, float ``[H, W]`` in 0 to 1, dark grey on light grey."""
    height, width = size
    px_per_mm = 1.5 * _FINE * matrix[0, 0] / shift_m[2] / 1000
    sheet = target.draw(px_per_mm)
    sheet_from_px = np.diag([1 / px_per_mm, 1 / px_per_mm, 1.0]) @ _shift(0.5)
    to_camera = np.column_stack([turn[:, 0] / 1000, turn[:, 1] / 1000, shift_m])
    fine = _shift(-0.5) @ np.diag([_FINE, _FINE, 1.0]) @ _shift(0.5)
    big = cv2.warpPerspective(
        sheet,
        fine @ matrix @ to_camera @ sheet_from_px,
        (width * _FINE, height * _FINE),
        flags=cv2.INTER_LINEAR,
        borderValue=_WALL,
    )
    small = cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA).astype(float)
    result: np.ndarray = 0.12 + 0.8 * small / 255
    return result


def _shift(by: float) -> np.ndarray:
    """Move pixel coordinates: between their centres and their corners."""
    return np.array([[1, 0, by], [0, 1, by], [0, 0, 1.0]])
