"""Random crops of defocused images with their depth and sharp original.

Crop number ``i`` of a training is decided by the seed and ``i`` alone, so that a training that was
stopped goes on with exactly the crops it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.config import DataConfig, SourceConfig
from ddfd_training.datasets.base import RgbdSample
from ddfd_training.datasets.nyuv2 import Nyuv2
from ddfd_training.defocus_cache import RenderSettings, load_or_render


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, ready to be cut: arrays (possibly memory-mapped) and frame numbers.

    Attributes:
        defocused_rgb: uint8 ``[N, H, W, 3]``, the network's input.
        sharp_rgb: uint8 ``[N, H, W, 3]``, or ``None`` where no sharp original fits it.
        depth_m: float32 ``[N, H, W]``, NaN where unknown.
        frames: Which of the ``N`` to use.
        weight: How often the set is drawn, relative to others.
    """

    defocused_rgb: np.ndarray
    sharp_rgb: np.ndarray | None
    depth_m: np.ndarray
    frames: tuple[int, ...]
    weight: float = 1.0


def open_source(source: SourceConfig, lens: LensConfig, cache: str | Path) -> ImageSet:
    """Load one source, rendered through ``lens`` where its images are sharp.

    Raises:
        DatasetError: Unknown dataset, or its folder is not as expected.
    """
    if source.dataset == "nyuv2":
        dataset = Nyuv2(source.root, source.split)
        tag = f"nyuv2-{source.split}"
        images = load_or_render(dataset, RenderSettings(lens), cache, tag=tag)
        return ImageSet(
            images.defocused_rgb,
            images.sharp_rgb,
            images.depth_m,
            tuple(range(len(images))),
            source.weight,
        )
    if source.dataset == "dfd_dslr":
        from ddfd_training.datasets.dfd_dslr import DfdDslr

        return _stack(DfdDslr(source.root, source.split, aperture="N2_8"), source.weight)
    raise DatasetError(f"dataset: expected nyuv2 or dfd_dslr, got {source.dataset!r}")


def _stack(samples: Sequence[RgbdSample], weight: float) -> ImageSet:
    """Natural photographs, held in memory. Their sharp companions do not fit to the pixel."""
    loaded = [samples[i] for i in range(len(samples))]
    images = [sample.defocused_rgb for sample in loaded if sample.defocused_rgb is not None]
    if len(images) != len(loaded):
        raise DatasetError("expected a defocused image for each depth map, got some without")
    return ImageSet(
        np.stack(images),
        None,
        np.stack([sample.depth_m for sample in loaded]),
        tuple(range(len(loaded))),
        weight,
    )


def hold_out(images: ImageSet, count: int) -> tuple[ImageSet, ImageSet]:
    """Split off ``count`` frames, evenly spaced; returns what is left and what was taken."""
    taken = np.linspace(0, len(images.frames) - 1, count).round().astype(int).tolist()
    kept = [frame for i, frame in enumerate(images.frames) if i not in set(taken)]
    picked = [images.frames[i] for i in taken]
    arrays = (images.defocused_rgb, images.sharp_rgb, images.depth_m)
    return (
        ImageSet(*arrays, tuple(kept), images.weight),
        ImageSet(*arrays, tuple(picked), images.weight),
    )


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
        """Crop ``index``: image and sharp ``[3,h,w]`` in [0,1], depth ``[1,h,w]`` m.

        ``sharp_known`` ``[1,1,1]`` says whether there is a sharp original.
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
        flip = -1 if random.random() < 0.5 else 1
        where = (frame, slice(top, top + size), slice(left, left + size))
        image = images.defocused_rgb[where][:, ::flip]
        known = images.sharp_rgb is not None
        sharp = images.sharp_rgb[where][:, ::flip] if images.sharp_rgb is not None else image
        depth_m = np.ascontiguousarray(images.depth_m[where][:, ::flip])
        noisy = _add_noise(image, self._config.noise_std, random)
        return {
            "image": _to_tensor(noisy),
            "sharp_rgb": _to_tensor(sharp),
            "sharp_known": torch.full((1, 1, 1), known),
            "depth_m": torch.from_numpy(depth_m)[None],
        }


def _add_noise(image: np.ndarray, std: float, random: np.random.Generator) -> np.ndarray:
    """Sensor noise of a random strength up to ``std`` grey levels, rounded to bytes."""
    if std == 0:
        return image
    noise = random.standard_normal(image.shape, dtype=np.float32) * (std * random.random())
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    return torch.from_numpy(planes).float() / 255
