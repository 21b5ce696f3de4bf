"""NYU Depth v2, the labelled set, as its authors hand it out: one MATLAB file.

``nyu_depth_v2_labeled.mat`` is MATLAB 7.3, that is HDF5 (Silberman et al. 2012, the data set's
page). MATLAB stores the last index slowest and HDF5 the first, so every array comes out with its
axes reversed: ``images`` is ``[N, 3, W, H]``, ``depths`` and ``rawDepths`` are ``[N, W, H]``, and
a picture that is not transposed lies on its side, mirrored. Frame numbers in ``splits.mat`` begin
at 1.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import RgbdDataset, RgbdSample
from ddfd_training.datasets.nyuv2 import CLIP_M, CROP, scenes_by_run

MAT_FILE = "nyu_depth_v2_labeled.mat"
SPLITS_FILE = "splits.mat"
_SPLIT_KEYS = {"train": "trainNdxs", "test": "testNdxs"}
_DEPTHS = {"filled": "depths", "raw": "rawDepths"}


def find_mat(root: Path) -> Path | None:
    """The MATLAB file at ``root``, be it the file itself or a folder with it."""
    path = root if root.suffix.lower() == ".mat" else root / MAT_FILE
    return path if path.is_file() else None


class Nyuv2Mat(RgbdDataset):
    """Sharp indoor images with dense depth, read from the MATLAB file.

    Args:
        root: The file ``nyu_depth_v2_labeled.mat``, or the folder that holds it; ``splits.mat``
            must lie beside it.
        split: ``train`` (795 frames), ``test`` (654), or ``all`` (1449, needs no ``splits.mat``).
        depth: ``filled`` (in-painted by the authors) or ``raw`` (with gaps, NaN).
        crop: Cut away the white frame (426x560 remain).

    Raises:
        DatasetError: The file is missing, broken, or of another kind.
    """

    name = "nyuv2_mat"
    splits = ("train", "test", "all")
    blur = "rendered"
    clip_m = CLIP_M

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        depth: str = "filled",
        crop: bool = True,
    ) -> None:
        """Look into the file; frames are read when asked for."""
        path = find_mat(Path(root))
        if path is None:
            raise DatasetError(
                f"{self.name}: expected the file {MAT_FILE} at {root}, found none; give the file "
                f"or its folder as root"
            )
        if depth not in _DEPTHS:
            raise DatasetError(f"{self.name}: depth: expected filled or raw, got {depth!r}")
        self.path = path
        self.split = self.check_split(split)
        self._depth, self._crop = _DEPTHS[depth], crop
        self._file: Any = None
        count = self._count()
        self.frames = list(range(count)) if split == "all" else self._listed(split, count)
        self.frame_names = [f"{frame:04d}" for frame in self.frames]

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: it opens the file for itself."""
        return {**self.__dict__, "_file": None}

    def settings(self) -> tuple[str, ...]:
        """Kind of depth and crop."""
        return (self._depth, str(self._crop))

    def scene_of(self, index: int) -> str:
        """The run of frames that ``index`` is in, as in the folder form."""
        return str(self._scenes[self.frames[index]])

    @cached_property
    def _scenes(self) -> dict[int, int]:
        return scenes_by_run(self.frames)

    def _open(self) -> Any:
        """The HDF5 file, opened once in each process."""
        if self._file is None:
            import h5py

            try:
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                raise DatasetError(
                    f"{self.name}: expected {self.path} as MATLAB 7.3 (HDF5), got a file that "
                    f"cannot be read: {error}; fetch it again"
                ) from None
        return self._file

    def _count(self) -> int:
        """Number of frames in the file, after a look at its arrays' shapes."""
        file = self._open()
        missing = [key for key in ("images", self._depth) if key not in file]
        if missing:
            raise DatasetError(
                f"{self.name}: expected the arrays images and {self._depth} in {self.path}, got "
                f"{', '.join(file)}; this is not the labelled set"
            )
        images, depths = file["images"].shape, file[self._depth].shape
        if len(images) != 4 or images[1] != 3 or depths != (images[0], *images[2:]):
            raise DatasetError(
                f"{self.name}: expected images [N, 3, W, H] and depths [N, W, H], got {images} "
                f"and {depths}"
            )
        return int(images[0])

    def _listed(self, split: str, count: int) -> list[int]:
        """Frames of a split, counted from 0."""
        from scipy.io import loadmat

        path, key = self.path.with_name(SPLITS_FILE), _SPLIT_KEYS[split]
        try:
            numbers = np.ravel(loadmat(path, variable_names=[key])[key]).astype(int)
        except (OSError, KeyError, ValueError):
            raise DatasetError(
                f"{self.name}: expected {path} with {key}, the official split, found none; put it "
                f"beside {MAT_FILE}, or take the split all"
            ) from None
        if numbers.size and not (numbers.min() >= 1 and numbers.max() <= count):
            raise DatasetError(
                f"{path}: expected frame numbers from 1 to {count}, got {numbers.min()} to "
                f"{numbers.max()}"
            )
        return [int(number) - 1 for number in numbers]

    def frame_size(self) -> tuple[int, int]:
        """Height and width before the crop."""
        _, width, height = self._open()["images"][self.frames[0]].shape
        return height, width

    def read(self, index: int) -> RgbdSample:
        """Read frame ``index``: sharp image uint8 ``[H, W, 3]``, depth float32 ``[H, W]``."""
        file, frame = self._open(), self.frames[index]
        rgb = np.asarray(file["images"][frame]).transpose(2, 1, 0)
        depth_m = np.asarray(file[self._depth][frame], dtype=np.float32).T.copy()
        depth_m[~(depth_m > 0)] = np.nan
        if self._crop and rgb.shape[:2] == (480, 640):
            rgb, depth_m = rgb[CROP], depth_m[CROP]
        return RgbdSample(
            name=self.frame_names[index],
            depth_m=np.ascontiguousarray(depth_m),
            sharp_rgb=np.ascontiguousarray(rgb),
        )
