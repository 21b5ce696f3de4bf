"""What every dataset hands out, whatever its layout on disk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

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


T_co = TypeVar("T_co", covariant=True)


class ReadSequence(Sequence[T_co]):
    """A sequence whose items are made when asked for: subclasses say how many, and make one."""

    @abstractmethod
    def read(self, index: int) -> T_co:
        """Make item ``index``, counted from 0; only called with numbers that exist."""

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        """Item ``index``, counted from the end if negative; or a list of items."""
        if isinstance(index, slice):
            return [self.read(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index}")
        return self.read(index % len(self))


RgbdDataset = ReadSequence[RgbdSample]
"""What a dataset of this package is."""


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
