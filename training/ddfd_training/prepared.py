"""A data set's samples at the size and in the number that a recipe asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import ReadSequence
from ddfd_training.datasets.sample import RgbdSample


class Prepared(ReadSequence[RgbdSample]):
    """Samples brought to a size and cut to their middle; all that they know follows.

    Args:
        dataset: The samples.
        size: Height and width in pixels, or empty to leave them. A lens by which they are to be
            rendered must be given for the images of this size.
        centre_crop: Height and width to keep of that, or empty.
        limit: Only so many, evenly spaced; 0 takes all.
        sharp: Keep the sharp companions.
        defocus_in_px: Whether the samples' defocus counts pixels.

    Attributes:
        frames: Numbers of the samples in ``dataset``.

    Raises:
        DatasetError: ``size`` or ``centre_crop`` are not two numbers.
    """

    def __init__(
        self,
        dataset: Sequence[RgbdSample],
        size: Sequence[int] = (),
        centre_crop: Sequence[int] = (),
        limit: int = 0,
        *,
        sharp: bool = True,
        defocus_in_px: bool = False,
    ) -> None:
        for name, sides in (("size", size), ("centre_crop", centre_crop)):
            if len(sides) not in (0, 2) or min(sides, default=1) < 1:
                raise DatasetError(
                    f"{name}: expected [height, width], each from 1, or nothing, got {sides}"
                )
        self._dataset, self._size, self._crop = dataset, tuple(size), tuple(centre_crop)
        self._sharp, self._defocus_in_px = sharp, defocus_in_px
        every = len(dataset)
        count = min(limit, every) if limit else every
        self.frames: list[int] = np.linspace(0, every - 1, count).round().astype(int).tolist()

    @property
    def changes(self) -> str:
        """What is done to the samples, for the name of a cache; empty if nothing is."""
        sides = "x".join(str(side) for side in (*self._size, *self._crop))
        # Without e: resized by an older version, whose maps lay half a pixel beside the image.
        return f"{sides}{'e' if self._size else ''}{'c' if self._crop else ''}"

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.frames)

    def read(self, index: int) -> RgbdSample:
        """Sample ``index``, prepared.

        Raises:
            DatasetError: The image is smaller than the part to keep.
        """
        sample = self._dataset[self.frames[index]]
        if not self._sharp:
            sample = replace(sample, sharp_rgb=None, sharp_known=None)
        if self._size:
            sample = sample.resized(*self._size, defocus_in_px=self._defocus_in_px)
        if not self._crop:
            return sample
        shape = sample.depth_m.shape
        top, left = ((a - b) // 2 for a, b in zip(shape, self._crop, strict=True))
        if top < 0 or left < 0:
            raise DatasetError(
                f"centre_crop: expected at most the images' {shape}, got {self._crop}"
            )
        return sample.crop(top, left, *self._crop)
