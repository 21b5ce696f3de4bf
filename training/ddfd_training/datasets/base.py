"""What every dataset hands out, whatever its layout on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig


@dataclass(frozen=True)
class RgbdSample:
    """One view with its depth and whatever images of it exist.

    Attributes:
        name: Name unique in its dataset, for reports and caches.
        depth_m: float32 ``[H, W]``, metres along the optical axis, NaN where unknown.
        sharp_rgb: uint8 ``[H, W, 3]`` all-in-focus image, or ``None``.
        defocused_rgb: uint8 ``[H, W, 3]`` image through the lens, or ``None`` (render it).
        lens: The lens that took ``defocused_rgb``, or ``None``.
    """

    name: str
    depth_m: np.ndarray
    sharp_rgb: np.ndarray | None = None
    defocused_rgb: np.ndarray | None = None
    lens: LensConfig | None = None


RgbdDataset = Sequence[RgbdSample]
"""A dataset is a sequence of samples, read from disk when asked for."""


def require_folder(path: Path, dataset: str, content: str) -> Path:
    """Return ``path`` if it is a folder, else say what ``dataset`` keeps there.

    Raises:
        DatasetError: The folder is missing.
    """
    if not path.is_dir():
        raise DatasetError(
            f"{dataset}: expected a folder {path} with {content}, found none; "
            f"give the dataset's top folder as root"
        )
    return path


def read_rgb(path: Path) -> np.ndarray:
    """Read an 8-bit colour image as uint8 ``[H, W, 3]`` RGB.

    Raises:
        DatasetError: The file is missing or no image.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"expected a readable colour image at {path}, got none or a broken one")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_raw(path: Path) -> np.ndarray:
    """Read a one-channel image of any depth, unchanged, as ``[H, W]``.

    Raises:
        DatasetError: The file is missing, no image, or has several channels.
    """
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DatasetError(f"expected a readable depth image at {path}, got none or a broken one")
    if image.ndim != 2:
        raise DatasetError(
            f"expected one channel of depth in {path}, got shape {image.shape}; "
            f"a colour-coded picture of depth cannot be used"
        )
    return image
