"""Random crops of defocused images with their depth and sharp original.

Crop number ``i`` of a training is decided by the seed and ``i`` alone, so that a training that was
stopped goes on with exactly the crops it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.augment import AUGMENTATIONS, augment, move, recolour
from ddfd_training.config import DataConfig
from ddfd_training.image_set import ImageSet, LazySet, complete, hold_out, to_tensors
from ddfd_training.lay_over import stack_pairs

__all__ = ["CropDataset", "ImageSet", "LazySet", "hold_out", "stack_pairs", "to_tensors"]

Window = tuple[int, slice, slice]
"""Frame, rows and columns."""


class CropDataset(Dataset[dict[str, torch.Tensor]]):
    """``length`` random crops, numbered from ``start``.

    Args:
        sets: The images to cut from.
        config: Crop size and noise.
        seed: Seed of the whole training.
        start: Number of the first crop.
        length: How many.
        lens: Through which pictures were taken that do not say.
        depth_range_m: From which distances are drawn for ``near_and_far``.

    Raises:
        DatasetError: An image is smaller than the crop, a set has none, or ``eigen`` would lose
            what a set knows.
    """

    def __init__(
        self,
        sets: Sequence[ImageSet | LazySet],
        config: DataConfig,
        seed: int,
        start: int,
        length: int,
        lens: LensConfig | None = None,
        depth_range_m: tuple[float, float] = (0.5, 10.0),
    ) -> None:
        """Check that crops fit."""
        if config.augment not in AUGMENTATIONS:
            raise DatasetError(
                f"augment: expected one of {', '.join(AUGMENTATIONS)}, got {config.augment!r}"
            )
        for images in sets:
            if not images.frames:
                raise DatasetError(
                    "data.sources: expected pictures in every source, got one without"
                )
            if config.augment == "eigen" and images.truths:
                raise DatasetError(
                    "augment: eigen turns and scales image and depth; expected pictures that know "
                    f"no more, got some with {', '.join(images.truths)}; use colour or none"
                )
            _check_fits(images.size(images.frames[0]), config.crop_px)
        told = () if lens is None else ("lens",)  # some pictures may say it, so all have to
        known = (key for images in sets for key in images.truths)
        self._truths = tuple(dict.fromkeys([*known, *told]))
        self._sets = list(sets)
        weights = np.array([images.weight for images in sets])
        self._shares = weights / weights.sum()
        self._config = config
        self._seed = seed
        self._start = start
        self._length = length
        self._lens = lens
        self._depth_range_m = depth_range_m

    def __len__(self) -> int:
        """Number of crops."""
        return self._length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Crop ``index``.

        Returns:
            ``image`` and ``sharp_rgb`` ``[3,h,w]`` in [0,1], ``depth_m`` ``[1,h,w]`` in metres and
            ``sharp_known`` ``[1,h,w]``, where the sharp original can be believed; and what else
            any of the sources knows (:func:`ddfd_training.image_set.to_item`).
        """
        if not 0 <= index < self._length:
            raise IndexError(index)
        random = np.random.default_rng([self._seed, self._start + index])
        images = self._sets[random.choice(len(self._sets), p=self._shares)]
        where = self._window(images, random)
        flip = -1 if random.random() < self._config.flip else 1
        item = images.item(where, flip)
        if self._config.augment == "eigen":
            item = augment(item, random)
        else:
            item = complete(item, self._truths, self._lens)
            if "lens" not in self._truths:
                item.pop("lens", None)
        if self._config.augment == "colour":
            item = recolour(item, random)
        if self._config.moved_share > 0 and random.random() < self._config.moved_share:
            item = move(item, self._config.moved_px, random)
        item["image"] = _add_noise(item["image"], self._config.noise_std, random)
        return to_tensors(item)

    def _window(self, images: ImageSet | LazySet, random: np.random.Generator) -> Window:
        """A random window, or of several the one nearest to a random distance."""
        if self._config.near_and_far <= 1:
            return self._any_window(images, random)
        near_m, far_m = self._depth_range_m
        wanted = math.log(near_m) + random.random() * math.log(far_m / near_m)
        windows = [self._any_window(images, random) for _ in range(self._config.near_and_far)]
        return min(windows, key=lambda where: abs(_log_depth(images, where) - wanted))

    def _any_window(self, images: ImageSet | LazySet, random: np.random.Generator) -> Window:
        frame = images.frames[random.integers(len(images.frames))]
        size = self._config.crop_px
        height, width = images.size(frame)
        _check_fits((height, width), size)
        top = int(random.integers(height - size + 1))
        left = int(random.integers(width - size + 1))
        return frame, slice(top, top + size), slice(left, left + size)


def _log_depth(images: ImageSet | LazySet, where: Window) -> float:
    """Logarithm of the median depth of a window; infinite where none is known."""
    depth_m = images.some_depth(*where)
    known = depth_m[depth_m > 0]
    return float(np.log(np.median(known))) if known.size else math.inf


def _check_fits(size: tuple[int, int], crop_px: int) -> None:
    """Refuse an image that no crop fits into."""
    if min(size) < crop_px:
        raise DatasetError(f"crop_px: expected at most the images' {size}, got {crop_px}")


def _add_noise(image: np.ndarray, std: float, random: np.random.Generator) -> np.ndarray:
    """Sensor noise of a random strength up to ``std`` of 255 grey levels, rounded as stored."""
    if std == 0:
        return image
    most = np.iinfo(image.dtype).max
    noise = random.standard_normal(image.shape, dtype=np.float32)
    noise *= std * random.random() * (most / 255)
    return np.clip(np.rint(image + noise), 0, most).astype(image.dtype)
