"""Opens what a training is fed with: each source of a recipe as an :class:`ImageSet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.config import SourceConfig
from ddfd_training.crops import ImageSet, stack_pairs
from ddfd_training.datasets.base import ReadSequence, RgbdSample
from ddfd_training.datasets.dfd_dslr import DfdDslr
from ddfd_training.datasets.nyuv2 import Nyuv2
from ddfd_training.datasets.synthetic_scenes import SyntheticScenes
from ddfd_training.defocus_cache import RenderSettings, load_or_render
from ddfd_training.depth_fill import fill_depth

INPUTS = ("auto", "sharp", "rendered")
PINHOLE_F_NUMBER = 1e6
"""A lens stopped down this far blurs nothing: how sharp images go the way of rendered ones."""


def open_source(source: SourceConfig, lens: LensConfig, cache: str | Path) -> ImageSet:
    """Load one source, rendered through ``lens`` where its images are sharp.

    Raises:
        DatasetError: Unknown dataset or kind of input, or its folder is not as expected.
    """
    if source.input not in INPUTS:
        raise DatasetError(f"input: expected one of {', '.join(INPUTS)}, got {source.input!r}")
    dataset, natural = _open_dataset(source)
    dataset = Prepared(
        dataset,
        source.size,
        source.centre_crop,
        source.limit,
        fill=not natural,
        sharp=source.sharp or not natural,
    )
    if natural:
        return stack_pairs(dataset, source.weight)
    if source.input == "sharp":
        lens = replace(lens, f_number=PINHOLE_F_NUMBER)
    return _photographed(dataset, lens, cache, source)


def _open_dataset(source: SourceConfig) -> tuple[Sequence[RgbdSample], bool]:
    """The source's samples, and whether their own defocused images are the input."""
    natural = source.input == "auto"
    if source.dataset == "nyuv2":
        return Nyuv2(source.root, source.split), False
    if source.dataset == "synthetic":
        return SyntheticScenes(source.count), False
    if source.dataset == "dfd_dslr":
        # What the simulated lens is to blur, or nothing is, are the nearly sharp photographs.
        aperture = source.aperture if natural else "N8"
        return DfdDslr(source.root, source.split, aperture=aperture), natural
    raise DatasetError(f"dataset: expected nyuv2, synthetic or dfd_dslr, got {source.dataset!r}")


def _photographed(
    dataset: Sequence[RgbdSample], lens: LensConfig, cache: str | Path, source: SourceConfig
) -> ImageSet:
    """Sharp pictures through the simulated lens, from the cache or rendered into it."""
    tag = source.dataset if source.dataset == "synthetic" else f"{source.dataset}-{source.split}"
    if source.size or source.centre_crop:
        sides = "x".join(str(side) for side in (*source.size, *source.centre_crop))
        tag += f"-{sides}{'c' if source.centre_crop else ''}"
    images = load_or_render(dataset, RenderSettings(lens, source.kernel), cache, tag=tag)
    return ImageSet(
        images.defocused_rgb,
        images.sharp_rgb,
        images.depth_m,
        # True everywhere, in one byte of memory.
        np.broadcast_to(np.True_, images.depth_m.shape),
        tuple(range(len(images))),
        source.weight,
    )


class Prepared(ReadSequence[RgbdSample]):
    """Samples brought to a size, cut to their middle, with gaps in the depth filled.

    Depth is resized by nearest neighbour: a mean over an edge would be a depth that nothing has.

    Args:
        dataset: The samples.
        size: Height and width in pixels, or empty to leave them. The lens must be given for the
            images of this size.
        centre_crop: Height and width to keep of that, or empty.
        limit: Only so many, evenly spaced; 0 takes all.
        fill: Give unknown depth the value of the nearest known pixel.
        sharp: Keep the sharp companions.
    """

    def __init__(
        self,
        dataset: Sequence[RgbdSample],
        size: Sequence[int] = (),
        centre_crop: Sequence[int] = (),
        limit: int = 0,
        *,
        fill: bool = False,
        sharp: bool = True,
    ) -> None:
        for name, sides in (("size", size), ("centre_crop", centre_crop)):
            if len(sides) not in (0, 2):
                raise DatasetError(f"{name}: expected [height, width] or nothing, got {sides}")
        self._dataset, self._size, self._crop = dataset, tuple(size), tuple(centre_crop)
        self._fill, self._sharp = fill, sharp
        every = len(dataset)
        count = min(limit, every) if limit else every
        self._frames = np.linspace(0, every - 1, count).round().astype(int).tolist()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._frames)

    def read(self, index: int) -> RgbdSample:
        """Sample ``index``, prepared."""
        sample = self._dataset[self._frames[index]]
        if not self._sharp:
            sample = replace(sample, sharp_rgb=None)
        depth_m = sample.depth_m
        if self._fill and not np.isfinite(depth_m).all():
            depth_m = fill_depth(depth_m)
        return replace(
            sample,
            depth_m=self._cut(depth_m, cv2.INTER_NEAREST),
            sharp_rgb=None if sample.sharp_rgb is None else self._cut(sample.sharp_rgb),
            defocused_rgb=(
                None if sample.defocused_rgb is None else self._cut(sample.defocused_rgb)
            ),
        )

    def _cut(self, image: np.ndarray, how: int = cv2.INTER_AREA) -> np.ndarray:
        """One image at the wanted size."""
        if self._size and image.shape[:2] != self._size:
            grows = self._size[0] > image.shape[0]
            how = cv2.INTER_CUBIC if grows and how == cv2.INTER_AREA else how
            image = cv2.resize(image, self._size[::-1], interpolation=how)
        if not self._crop:
            return image
        top, left = ((a - b) // 2 for a, b in zip(image.shape[:2], self._crop, strict=True))
        if top < 0 or left < 0:
            raise DatasetError(
                f"centre_crop: expected at most the images' {image.shape[:2]}, got {self._crop}"
            )
        return np.ascontiguousarray(image[top : top + self._crop[0], left : left + self._crop[1]])
