"""Padding images to the sizes a network takes, and what padding and scaling do to a camera.

Padding goes to the bottom and the right only: the origin of the image stays where it is, so the
camera's intrinsics need no change and the answer is cropped back by a plain view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

Crop = tuple[slice, slice]
"""Rows and columns of the padded image that hold the original one."""


def padded_side(side: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``side``."""
    return -(-side // multiple) * multiple


def pad_to_size(image: np.ndarray, height: int, width: int) -> tuple[np.ndarray, Crop]:
    """Pad at the bottom and the right to exactly ``height`` x ``width``.

    Args:
        image: ``[H, W, ...]``, no side longer than asked for.
        height: Rows wanted.
        width: Columns wanted.

    Returns:
        The padded image (the very same array when nothing is to be added) and the crop that
        undoes it. A side is continued by reflection, which keeps the blur statistics of the
        border; where it is too short to be reflected, its last row or column is repeated.

    Raises:
        ValueError: The image is larger than asked for.
    """
    down, right = height - image.shape[0], width - image.shape[1]
    if down < 0 or right < 0:
        raise ValueError(
            f"expected an image of at most {width}x{height}, got {image.shape[1]}x"
            f"{image.shape[0]}; crop or scale it first"
        )
    crop = (slice(0, image.shape[0]), slice(0, image.shape[1]))
    for axis, amount in enumerate((down, right)):
        if amount:
            mode = "reflect" if amount < image.shape[axis] else "edge"
            image = _pad_end(image, axis, amount, mode)
    return image, crop


def _pad_end(image: np.ndarray, axis: int, amount: int, mode: str) -> np.ndarray:
    """``np.pad`` at the end of one axis, without its per-call overhead."""
    side = image.shape[axis]
    if mode == "reflect":
        index = np.arange(side - 2, side - 2 - amount, -1)
    else:
        index = np.full(amount, side - 1)
    return np.concatenate([image, np.take(image, index, axis=axis)], axis=axis)


def pad_to_multiple(image: np.ndarray, multiple: int) -> tuple[np.ndarray, Crop]:
    """Pad at the bottom and the right until both sides are multiples of ``multiple``.

    See ``pad_to_size``; ``image`` is ``[H, W, ...]`` of any type.
    """
    height, width = image.shape[:2]
    return pad_to_size(image, padded_side(height, multiple), padded_side(width, multiple))


def crop_outputs(outputs: Mapping[str, np.ndarray], crop: Crop) -> dict[str, np.ndarray]:
    """Cut every output ``[H, W, ...]`` back to the original image; views, no copies."""
    return {name: array[crop] for name, array in outputs.items()}


@dataclass(frozen=True)
class Intrinsics:
    """The parts of a ROS ``CameraInfo`` that change with the image, as plain numbers.

    Attributes:
        width: Width in pixels of the full image the calibration belongs to.
        height: Height in pixels.
        k: Nine numbers, row-major ``[3, 3]``: fx, 0, cx, 0, fy, cy, 0, 0, 1 in pixels.
        p: Twelve numbers, row-major ``[3, 4]``: the rectified projection, p[3] = -fx * baseline_m.
        roi: x_offset, y_offset, height, width in pixels of the full image, all 0 for "everything".
    """

    width: int
    height: int
    k: tuple[float, ...]
    p: tuple[float, ...]
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def calibrated(self) -> bool:
        """Whether there is a usable calibration: ROS marks "uncalibrated" by K[0] = 0."""
        return bool(np.isfinite(self.k).all() and self.k[0] > 0 and self.k[4] > 0)


def scale_intrinsics(camera: Intrinsics, scale_x: float, scale_y: float) -> Intrinsics:
    """The camera seen through an image resized by ``scale_x`` and ``scale_y``.

    Pixel centres lie at whole numbers, so the border of the image is at -0.5 and a point at
    ``u`` moves to ``(u + 0.5) * scale - 0.5`` (what ``cv2.resize`` does). Focal lengths and p[3],
    p[7] (pixels times metres) scale plainly.
    """
    k, p = list(camera.k), list(camera.p)
    for values, columns in ((k, 3), (p, 4)):
        for row, scale in ((0, scale_x), (1, scale_y)):
            start = row * columns
            third_row = values[2 * columns : 3 * columns]
            for column in range(columns):
                # x' = S x with S = [[s, 0, (s-1)/2], ...]: the shift multiplies the third row.
                shifted = 0.5 * (scale - 1.0) * third_row[column]
                values[start + column] = scale * values[start + column] + shifted
    x, y, roi_height, roi_width = camera.roi
    return replace(
        camera,
        width=round(camera.width * scale_x),
        height=round(camera.height * scale_y),
        k=tuple(k),
        p=tuple(p),
        roi=(
            round(x * scale_x),
            round(y * scale_y),
            round(roi_height * scale_y),
            round(roi_width * scale_x),
        ),
    )


def crop_intrinsics(camera: Intrinsics, x: int, y: int, width: int, height: int) -> Intrinsics:
    """The camera of the part of the image that begins at column ``x`` and row ``y``.

    The part becomes an image of its own: the principal point moves by (-x, -y), the size becomes
    ``width`` x ``height`` and the region of interest is cleared.
    """
    k, p = list(camera.k), list(camera.p)
    for values, columns in ((k, 3), (p, 4)):
        for row, offset in ((0, x), (1, y)):
            for column in range(columns):
                values[row * columns + column] -= offset * values[2 * columns + column]
    return replace(camera, width=width, height=height, k=tuple(k), p=tuple(p), roi=(0, 0, 0, 0))
