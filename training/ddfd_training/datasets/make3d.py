"""Make3D: outdoor photographs with coarse laser depth (Saxena et al. 2009, the set's own page).

``Train400Img/img-NAME.jpg`` with ``Train400Depth/depth_sph_corr-NAME.mat``, and ``Test134`` with
``Gridlaserdata`` for testing. The fourth plane of ``Position3DGrid`` is depth in metres, 55 rows
of 305 columns over the whole upright image (2272x1704): a cell is 41 pixels high and 6 wide.
Depths end at 81 m, which is also what the sky has; the usual measure, criterion C1, counts depths
up to 70 m only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import (
    RgbdDataset,
    RgbdSample,
    files_in,
    first_folder,
    read_rgb,
)

FOLDERS = {
    "train": (("Train400Img",), ("Train400Depth",)),
    "test": (("Test134", "Test134Img"), ("Gridlaserdata", "Test134Depth")),
}
C1_RANGE_M = 70.0
_LAYOUT = "Train400Img/, Train400Depth/, Test134/, Gridlaserdata/"


class Make3D(RgbdDataset):
    """Sharp outdoor images with coarse depth.

    Args:
        root: The folder with the four folders.
        split: ``train`` (400 images) or ``test`` (134).
        size: Height and width to bring the images to (460x345 in most of the literature), or
            empty for their own. Depth follows by nearest cell.
        max_depth_m: Depths beyond are unknown: criterion C1 is 70 m.

    Raises:
        DatasetError: The layout is another one, or images have no depth.
    """

    name = "make3d"
    splits = ("train", "test")
    blur = "rendered"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        size: Sequence[int] = (460, 345),
        max_depth_m: float = C1_RANGE_M,
    ) -> None:
        """List and pair the files; images are read when asked for."""
        if len(size) not in (0, 2):
            raise DatasetError(f"{self.name}: size: expected height and width, got {size}")
        self._size, self._max_m = tuple(size), max_depth_m
        images, depths = (
            first_folder((Path(root) / name for name in names), self.name, _LAYOUT)
            for names in FOLDERS[self.check_split(split)]
        )
        grids = {
            path.stem.removeprefix("depth_sph_corr-"): path
            for path in files_in(depths, self.name, (".mat",), "depth_sph_corr-*")
        }
        photos = {
            path.stem.removeprefix("img-"): path
            for path in files_in(images, self.name, (".jpg",), "img-*")
        }
        self.skipped = sorted(set(photos) ^ set(grids))
        self.pairs = [(photos[name], grids[name]) for name in sorted(set(photos) & set(grids))]
        if not self.pairs:
            raise DatasetError(
                f"{self.name}: expected img-NAME.jpg in {images} and depth_sph_corr-NAME.mat in "
                f"{depths} with one NAME, got none; for example {self.skipped[:2]}"
            )
        self.frame_names = [path.stem.removeprefix("img-") for path, _ in self.pairs]

    def settings(self) -> tuple[str, ...]:
        """Size and range."""
        return (str(self._size), str(self._max_m))

    def read(self, index: int) -> RgbdSample:
        """Read pair ``index``: uint8 ``[H, W, 3]``, depth float32 ``[H, W]``."""
        image_path, grid_path = self.pairs[index]
        image = read_rgb(image_path)
        if self._size:
            height, width = self._size
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        depth_m = _grid(grid_path)
        depth_m[~(np.isfinite(depth_m) & (depth_m > 0) & (depth_m <= self._max_m))] = np.nan
        depth_m = cv2.resize(depth_m, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        return RgbdSample(name=self.frame_names[index], depth_m=depth_m, sharp_rgb=image)


def _grid(path: Path) -> np.ndarray:
    """Depth in metres, float32 ``[55, 305]``."""
    from scipy.io import loadmat

    try:
        grid = np.asarray(loadmat(path, variable_names=["Position3DGrid"])["Position3DGrid"])
    except (OSError, KeyError, ValueError, NotImplementedError):
        raise DatasetError(f"make3d: expected {path} with Position3DGrid, got none") from None
    if grid.ndim != 3 or grid.shape[2] != 4:
        raise DatasetError(f"{path}: expected Position3DGrid [rows, columns, 4], got {grid.shape}")
    return np.ascontiguousarray(grid[:, :, 3], dtype=np.float32)
