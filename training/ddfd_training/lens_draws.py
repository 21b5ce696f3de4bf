"""Lenses drawn at random, for a network that is to serve any of them.

A lens's strength A is here that of its second moments (``LensConfig.spread_as``): from a picture
alone, a wide disk and a less wide Gaussian cannot be told apart, so a network that was told of
diameters only would have to guess between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ddfd_ros.core.thin_lens import DISK_SIGMA_PER_DIAMETER, LensConfig
from ddfd_training.optics_options import Layering, RenderOptions
from ddfd_training.sensor import Sensor

_FOCAL_LENGTH_M = 15e-3
_PIXEL_PITCH_M = 5.6e-6
_FARTHEST_DIOPTRE = 1e-3


@dataclass(frozen=True)
class LensRanges:
    """Between which values each lens is drawn.

    Attributes:
        draws: Lenses for each frame; 0 leaves the recipe's one lens for all.
        px_per_dioptre: Strength A of the disks that spread as the drawn point-spread function
            does, drawn evenly in its logarithm.
        focus_distance_m: Focus distance, drawn evenly in its logarithm.
        sigma_per_diameter: Of the Gaussian part of the point-spread function.
        gaussian_share: Of the Gaussian beside the disk.
        curvature_dioptre: Field curvature: how far the focus in the corners may lie from that in
            the centre, in dioptres, either way. It grows with the squared distance from there.
        jpeg_quality: Of half of the pictures; the others are not compressed.
        soften_px: Gaussian that the sharp pictures are softened by, standard deviation in pixels:
            pictures that are sharper than the other sources', so that blur means the same in all.
        flat_share: Of the sharp pictures that lose their fine texture first, since walls and
            floors without any are common.
        series: Number of the series of draws: another number, other lenses for the same frames.

    Raises:
        ValueError: A range that is not one.
    """

    draws: int = 0
    px_per_dioptre: tuple[float, float] = (4.0, 28.0)
    focus_distance_m: tuple[float, float] = (0.7, 8.0)
    sigma_per_diameter: tuple[float, float] = (0.25, 0.5)
    gaussian_share: tuple[float, float] = (0.0, 1.0)
    curvature_dioptre: float = 0.03
    jpeg_quality: tuple[float, float] = (70.0, 98.0)
    soften_px: float = 0.0
    flat_share: float = 0.0
    series: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense, naming the field."""
        for name in ("px_per_dioptre", "focus_distance_m", "sigma_per_diameter", "jpeg_quality"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"lenses.{name}: expected 0 < low <= high, got {(low, high)}")
        low, high = self.gaussian_share
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"lenses.gaussian_share: expected 0 <= low <= high <= 1, got {low, high}"
            )
        if min(self.draws, self.curvature_dioptre, self.soften_px, self.series) < 0:
            raise ValueError(
                "lenses: expected draws, curvature_dioptre, soften_px and series from 0, got "
                f"{self.draws}, {self.curvature_dioptre}, {self.soften_px} and {self.series}"
            )
        if not 0 <= self.flat_share <= 1:
            raise ValueError(
                f"lenses.flat_share: expected a share from 0 to 1, got {self.flat_share}"
            )


@dataclass(frozen=True)
class DrawnCamera:
    """One draw: lens, point-spread function, curvature in the corners, compression."""

    lens: LensConfig
    options: RenderOptions
    curvature_dioptre: float
    sensor: Sensor

    @property
    def told(self) -> LensConfig:
        """What a network is told of the lens: the one whose disks spread as much."""
        return self.lens.spread_as(self.options.spread_per_diameter)


def lens_of(px_per_dioptre: float, focus_distance_m: float) -> LensConfig:
    """A lens of that strength and focus; which focal length and aperture make it does not matter.

    Its pixel pitch is that of D3-Net's camera; the f-number follows from
    A = (f / N) s / pitch with s = 1 / (1/f - 1/d_f).
    """
    image_m = 1.0 / (1.0 / _FOCAL_LENGTH_M - 1.0 / focus_distance_m)
    f_number = _FOCAL_LENGTH_M * image_m / (_PIXEL_PITCH_M * px_per_dioptre)
    return LensConfig(_FOCAL_LENGTH_M, f_number, focus_distance_m, _PIXEL_PITCH_M)


def draw_camera(ranges: LensRanges, random: np.random.Generator) -> DrawnCamera:
    """Draw a camera."""

    def evenly(ends: tuple[float, float]) -> float:
        return float(random.uniform(*ends))

    def in_logarithm(ends: tuple[float, float]) -> float:
        return math.exp(random.uniform(math.log(ends[0]), math.log(ends[1])))

    strength, focus_m = in_logarithm(ranges.px_per_dioptre), in_logarithm(ranges.focus_distance_m)
    options = RenderOptions(
        "blend",
        evenly(ranges.sigma_per_diameter),
        evenly(ranges.gaussian_share),
        layering=Layering("blur", 0.25),
    )
    shrink = DISK_SIGMA_PER_DIAMETER / options.spread_per_diameter
    lens = lens_of(strength * shrink, focus_m)
    curvature = ranges.curvature_dioptre * evenly((-1.0, 1.0))
    quality = round(evenly(ranges.jpeg_quality)) if random.random() < 0.5 else 0
    return DrawnCamera(lens, options, curvature, Sensor(jpeg_quality=quality))


def curved(depth_m: np.ndarray, curvature_dioptre: float) -> np.ndarray:
    """The depth that blurs without field curvature as ``depth_m`` does with it.

    Blur is A (1/d_f(r) - 1/d) with 1/d_f(r) = 1/d_f + k r^2, r = 1 in the corners: the same as at
    1/d' = 1/d - k r^2 with a flat field.

    Args:
        depth_m: float32 ``[H, W]``.
        curvature_dioptre: k.
    """
    height, width = depth_m.shape
    rows = (np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2) / (height / 2)
    columns = (np.arange(width, dtype=np.float32)[None] - (width - 1) / 2) / (width / 2)
    away = (rows**2 + columns**2) / 2
    return 1.0 / np.maximum(1.0 / depth_m - curvature_dioptre * away, _FARTHEST_DIOPTRE)
