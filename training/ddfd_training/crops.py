"""Random crops of defocused images with their depth and sharp original.

Crop number ``i`` of a training is decided by the seed and ``i`` alone, so that a training that was
stopped goes on with exactly the crops it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ddfd_ros.core.errors import DatasetError
from ddfd_training.augment import AUGMENTATIONS, augment
from ddfd_training.config import DataConfig
from ddfd_training.datasets.base import RgbdSample
from ddfd_training.registration import match_exposure, register

Item = dict[str, np.ndarray]


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, ready to be cut: arrays (possibly memory-mapped) and frame numbers.

    Attributes:
        defocused_rgb: uint8 ``[N, H, W, 3]``, the network's input.
        sharp_rgb: uint8 ``[N, H, W, 3]``, its sharp original.
        depth_m: float32 ``[N, H, W]``, NaN where unknown.
        sharp_known: bool ``[N, H, W]``, where ``sharp_rgb`` can be believed.
        frames: Which of the ``N`` to use.
        weight: How often the set is drawn, relative to others.
    """

    defocused_rgb: np.ndarray
    sharp_rgb: np.ndarray
    depth_m: np.ndarray
    sharp_known: np.ndarray
    frames: tuple[int, ...]
    weight: float = 1.0

    def item(self, where: Any, flip: int = 1) -> Item:
        """What ``where`` (frame, rows, columns) holds, mirrored if ``flip`` is -1.

        Returns:
            ``image`` and ``sharp_rgb`` as uint8 ``[h, w, 3]``, ``depth_m`` and ``sharp_known``
            as ``[h, w]``.
        """
        return {
            "image": self.defocused_rgb[where][:, ::flip],
            "sharp_rgb": self.sharp_rgb[where][:, ::flip],
            "depth_m": self.depth_m[where][:, ::flip],
            "sharp_known": self.sharp_known[where][:, ::flip],
        }


def stack_pairs(samples: Sequence[RgbdSample], weight: float) -> ImageSet:
    """Natural photographs, held in memory, with their sharp companions laid over them."""
    loaded = [samples[i] for i in range(len(samples))]
    images = [sample.defocused_rgb for sample in loaded if sample.defocused_rgb is not None]
    if len(images) != len(loaded):
        raise DatasetError("expected a defocused image for each depth map, got some without")
    pairs = [
        _lay_over(sample.sharp_rgb, image) for sample, image in zip(loaded, images, strict=True)
    ]
    return ImageSet(
        np.stack(images),
        np.stack([sharp for sharp, _ in pairs]),
        np.stack([sample.depth_m for sample in loaded]),
        np.stack([known for _, known in pairs]),
        tuple(range(len(loaded))),
        weight,
    )


def _lay_over(sharp: np.ndarray | None, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sharp companion in the image's geometry and exposure, and where it is known."""
    known = np.zeros(image.shape[:2], dtype=bool)
    if sharp is None:
        return image, known
    found = register(sharp, image)
    if not found.trusted:  # a companion that lies off teaches the wrong thing
        return image, known
    warped = found.warp(sharp)
    known[found.overlap(*image.shape[:2])] = True
    return match_exposure(warped, image).apply(warped), known


def hold_out(images: ImageSet, count: int) -> tuple[ImageSet, ImageSet]:
    """Split off ``count`` frames, evenly spaced; returns what is left and what was taken."""
    taken = np.linspace(0, len(images.frames) - 1, count).round().astype(int).tolist()
    kept = [frame for i, frame in enumerate(images.frames) if i not in set(taken)]
    picked = [images.frames[i] for i in taken]
    return replace(images, frames=tuple(kept)), replace(images, frames=tuple(picked))


class CropDataset(Dataset[dict[str, torch.Tensor]]):
    """``length`` random crops, numbered from ``start``.

    Args:
        sets: The images to cut from.
        config: Crop size and noise.
        seed: Seed of the whole training.
        start: Number of the first crop.
        length: How many.

    Raises:
        DatasetError: An image is smaller than the crop.
    """

    def __init__(
        self, sets: Sequence[ImageSet], config: DataConfig, seed: int, start: int, length: int
    ) -> None:
        """Check that crops fit."""
        if config.augment not in AUGMENTATIONS:
            raise DatasetError(
                f"augment: expected one of {', '.join(AUGMENTATIONS)}, got {config.augment!r}"
            )
        for images in sets:
            if min(images.depth_m.shape[1:]) < config.crop_px:
                raise DatasetError(
                    f"crop_px: expected at most the images' {images.depth_m.shape[1:]}, "
                    f"got {config.crop_px}"
                )
        self._sets = list(sets)
        weights = np.array([images.weight for images in sets])
        self._shares = weights / weights.sum()
        self._config = config
        self._seed = seed
        self._start = start
        self._length = length

    def __len__(self) -> int:
        """Number of crops."""
        return self._length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Crop ``index``.

        Returns:
            ``image`` and ``sharp_rgb`` ``[3,h,w]`` in [0,1], ``depth_m`` ``[1,h,w]`` in metres and
            ``sharp_known`` ``[1,h,w]``, where the sharp original can be believed.
        """
        if not 0 <= index < self._length:
            raise IndexError(index)
        random = np.random.default_rng([self._seed, self._start + index])
        images = self._sets[random.choice(len(self._sets), p=self._shares)]
        frame = images.frames[random.integers(len(images.frames))]
        size = self._config.crop_px
        height, width = images.depth_m.shape[1:]
        top = int(random.integers(height - size + 1))
        left = int(random.integers(width - size + 1))
        flip = -1 if random.random() < self._config.flip else 1
        where = (frame, slice(top, top + size), slice(left, left + size))
        item = images.item(where, flip)
        if self._config.augment == "eigen":
            item = augment(item, random)
        item["image"] = _add_noise(item["image"], self._config.noise_std, random)
        return to_tensors(item)


def to_tensors(item: Item) -> dict[str, torch.Tensor]:
    """Images to ``[3,h,w]`` in [0,1], maps to ``[1,h,w]``."""
    result = {}
    for name, array in item.items():
        planes = array.transpose(2, 0, 1) if array.ndim == 3 else array[None]
        if array.dtype == np.uint16:  # photographs of more than 8 bits
            planes = planes.astype(np.float32) / 65535
        tensor = torch.from_numpy(np.ascontiguousarray(planes))
        result[name] = tensor.float() / 255 if array.dtype == np.uint8 else tensor
    return result


def _add_noise(image: np.ndarray, std: float, random: np.random.Generator) -> np.ndarray:
    """Sensor noise of a random strength up to ``std`` grey levels, rounded to bytes."""
    if std == 0:
        return image
    noise = random.standard_normal(image.shape, dtype=np.float32) * (std * random.random())
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
