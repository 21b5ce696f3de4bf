"""One image with its truth, and how the data sets' samples become such items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.datasets.base import ReadSequence, RgbdSample
from ddfd_training.datasets.sample import eight_bit
from ddfd_training.defocus_cache import RenderSettings, load_or_render
from ddfd_training.depth_fill import fill_depth
from ddfd_training.registration import match_exposure, register

WHOLE = (slice(None), slice(None))


@dataclass(frozen=True)
class Item:
    """One image to be answered, with the truth.

    Attributes:
        name: The frame's name.
        image_rgb: uint8 ``[H, W, 3]``, the network's input.
        depth_m: float32 ``[H, W]``, NaN where unknown.
        sharp_rgb: uint8 ``[H, W, 3]``, laid over the input, or ``None``.
        box: Rows and columns in which ``sharp_rgb`` is to be compared.
        notes: Numbers about the preparation, averaged for the report.
        lens: What took the image, so that its blur is known; ``None`` if that is not known.
        sample: What it was made of, with truths of other kinds, or ``None``.
        defocus_unit: What the sample's defocus map counts.
    """

    name: str
    image_rgb: np.ndarray
    depth_m: np.ndarray
    sharp_rgb: np.ndarray | None = None
    box: tuple[slice, slice] = WHOLE
    notes: dict[str, float] = field(default_factory=dict)
    lens: LensConfig | None = None
    sample: RgbdSample | None = None
    defocus_unit: str = ""


class First(ReadSequence[RgbdSample]):
    """The first samples of a data set with the gaps in their depth filled, read when asked for."""

    def __init__(self, dataset: Sequence[RgbdSample], limit: int, *, fill: bool = False) -> None:
        self._dataset = dataset
        self._count = min(limit, len(dataset)) if limit > 0 else len(dataset)
        self._fill = fill

    def __len__(self) -> int:
        """Number of samples."""
        return self._count

    def read(self, index: int) -> RgbdSample:
        """Sample ``index``."""
        sample = self._dataset[index]
        if not self._fill:
            return sample
        return replace(sample, depth_m=fill_depth(sample.depth_m, sample.name))


class Rendered(ReadSequence[Item]):
    """Sharp images photographed through a lens; the truth keeps its gaps."""

    def __init__(
        self,
        samples: Sequence[RgbdSample],
        settings: RenderSettings,
        cache: str,
        tag: str,
        clip_m: tuple[float, float] | None,
        *,
        fill: bool,
    ) -> None:
        source = First(samples, 0, fill=True) if fill else samples
        self._samples, self._lens = samples, settings.lens
        self._images = load_or_render(source, settings, cache, tag=tag)
        self._clip_m = clip_m

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> Item:
        """Image ``index`` as the lens sees it."""
        sample = self._samples[index]
        depth_m = sample.depth_m
        if self._clip_m is not None:
            depth_m = np.clip(depth_m, *self._clip_m)
        return Item(
            name=sample.name,
            image_rgb=np.array(self._images.defocused_rgb[index]),
            depth_m=depth_m,
            sharp_rgb=None if sample.sharp_rgb is None else eight_bit(sample.sharp_rgb),
            lens=self._lens,
        )


class Natural(ReadSequence[Item]):
    """Photographs that the lens itself blurred, their sharp companions laid over them."""

    def __init__(
        self,
        samples: Sequence[RgbdSample],
        exposure: str,
        *,
        registered: bool,
        defocus_unit: str = "",
    ) -> None:
        self._samples, self._defocus_unit = samples, defocus_unit
        self._exposure = exposure
        self._registered = registered

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> Item:
        """Photograph ``index`` and its companion, registered."""
        sample = self._samples[index]
        image = sample.defocused_rgb
        if image is None:
            raise DatasetError(f"{sample.name}: expected a defocused image, got none")
        item = Item(
            name=sample.name,
            image_rgb=image,
            depth_m=sample.depth_m,
            sample=sample,
            defocus_unit=self._defocus_unit,
        )
        if sample.sharp_rgb is None:
            return item
        sharp, box, notes = sample.sharp_rgb, WHOLE, {}
        if not self._registered:
            found = register(sharp, image)
            notes = {"registered": float(found.converged), "residual_px": found.residual_px}
            if not found.trusted:
                return replace(item, notes=notes)
            # Cubic: beside an edge, what has fractions (16-bit truth) goes beyond black and white.
            sharp = np.clip(found.warp(sharp), 0, 255)
            box = found.overlap(*image.shape[:2])
        if self._exposure == "global":
            match = match_exposure(sharp[box], image[box])
            notes |= {"exposure_gain": match.gain, "exposure_offset": match.offset}
            sharp = match.apply(sharp)
        return replace(item, sharp_rgb=sharp, box=box, notes=notes)
