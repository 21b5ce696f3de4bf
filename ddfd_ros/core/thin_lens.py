"""The thin lens: how wide a point at a given distance is blurred on the sensor, and back.

A lens of focal length f and f-number N, focused at d_f, puts the sensor at s = 1/(1/f - 1/d_f)
behind itself. A point at distance d then spreads over a circle of confusion with diameter

    c = (f / N) * s * |1/d_f - 1/d|                        (Carvalho 2018, section 3.2)

on the sensor, which is c / pitch pixels. Written with A = (f / N) * s / pitch, the lens's strength
in pixels per dioptre, the blur is a straight line over inverse distance: c_px = A |1/d - 1/d_f|.
The signed blur is negative nearer than the focus: signed_c_px = A (1/d_f - 1/d).

Not every lens spreads a point evenly over a disk. What a picture shows of blur is first of all its
second moment, so the diameter that counts is 4 sigma, sigma the standard deviation of the
point-spread function along one axis (the width D4sigma of ISO 11146-1; of a disk, its diameter).
``LensConfig.spread_as`` gives the lens whose disks are that wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array", float, np.ndarray, Any)

DISK_SIGMA_PER_DIAMETER = 0.25
"""Standard deviation of a uniform disk along one axis, over its diameter."""


@dataclass(frozen=True)
class LensConfig:
    """A thin lens at a fixed focus, in SI units.

    Attributes:
        focal_length_m: Focal length f in metres.
        f_number: Aperture number N (focal length over aperture diameter).
        focus_distance_m: Distance d_f of the plane in focus, in metres; ``inf`` is allowed.
        pixel_pitch_m: Distance between neighbouring pixels in metres, of the image as processed:
            an image scaled by one half has twice the pitch.

    Raises:
        ValueError: A value is not positive, or the focus is not beyond the focal length.
    """

    focal_length_m: float
    f_number: float
    focus_distance_m: float
    pixel_pitch_m: float

    def __post_init__(self) -> None:
        """Refuse lenses that cannot exist, naming the field."""
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0 or (math.isinf(value) and item.name != "focus_distance_m"):
                raise ValueError(
                    f"{item.name}: expected a positive finite number in SI units, got {value!r}"
                )
        if self.focus_distance_m <= self.focal_length_m:
            raise ValueError(
                f"focus_distance_m: expected more than the focal length "
                f"({self.focal_length_m} m), got {self.focus_distance_m} m; give both in metres"
            )

    @property
    def image_distance_m(self) -> float:
        """Distance s from lens to sensor in metres, from 1/f = 1/s + 1/d_f."""
        return 1.0 / (1.0 / self.focal_length_m - 1.0 / self.focus_distance_m)

    @property
    def px_per_dioptre(self) -> float:
        """The lens's strength A: pixels of blur diameter per 1/m of inverse distance."""
        aperture_m = self.focal_length_m / self.f_number
        return aperture_m * self.image_distance_m / self.pixel_pitch_m

    @property
    def focus_dioptre(self) -> float:
        """Inverse focus distance 1/d_f in 1/m."""
        return 1.0 / self.focus_distance_m

    def signed_coc_px(self, depth_m: Array) -> Array:
        """Blur diameter in pixels at ``depth_m`` metres, negative nearer than the focus.

        Takes a number, an array or a tensor of any shape; returns the same kind and shape.
        """
        return self.px_per_dioptre * (self.focus_dioptre - 1.0 / depth_m)

    def coc_px(self, depth_m: Array) -> Array:
        """Unsigned blur diameter (circle of confusion) in pixels at ``depth_m`` metres."""
        return abs(self.signed_coc_px(depth_m))

    def depth_m(self, signed_coc_px: Array) -> Array:
        """Depth in metres whose signed blur is ``signed_coc_px`` pixels: the exact inverse.

        Blur of ``A / d_f`` pixels or more on the far side belongs to no finite distance: a number
        or an array gets ``inf`` there, a tensor what 1/x gives (clamp it first).
        """
        dioptre = self.focus_dioptre - signed_coc_px / self.px_per_dioptre
        if isinstance(dioptre, (int, float, np.floating)):
            return 1.0 / dioptre if dioptre > 0 else math.inf
        if isinstance(dioptre, np.ndarray):
            far = np.full_like(dioptre, np.inf)
            return np.divide(1.0, dioptre, out=far, where=dioptre > 0)
        return 1.0 / dioptre

    def near_limit_m(self, coc_px: float) -> float:
        """Nearest distance in metres whose blur stays within ``coc_px`` pixels."""
        return self.depth_m(-abs(coc_px))

    def far_limit_m(self, coc_px: float) -> float:
        """Farthest distance in metres whose blur stays within ``coc_px`` pixels, or ``inf``."""
        return self.depth_m(abs(coc_px))

    def hyperfocal_m(self, coc_px: float) -> float:
        """Focus distance in metres at which infinity is blurred by ``coc_px`` pixels.

        Focused at H, infinity is blurred by (f/N) s / H = (f/N) f / (H - f) on the sensor, hence
        H = f + f^2 / (N c).
        """
        coc_m = abs(coc_px) * self.pixel_pitch_m
        return self.focal_length_m + self.focal_length_m**2 / (self.f_number * coc_m)

    def scaled(self, image_scale: float) -> LensConfig:
        """The same lens seen through an image resized by ``image_scale`` (0.5: half the width)."""
        return replace(self, pixel_pitch_m=self.pixel_pitch_m / image_scale)

    def spread_as(self, sigma_per_diameter: float) -> LensConfig:
        """The lens whose disks have the second moment of this one's point-spread function.

        It has 4 k times the strength A, k = ``sigma_per_diameter``: with k = 0.25 it is this lens.

        Raises:
            ValueError: ``sigma_per_diameter`` is not positive.
        """
        if not sigma_per_diameter > 0:
            raise ValueError(
                f"sigma_per_diameter: expected a positive number (a disk has "
                f"{DISK_SIGMA_PER_DIAMETER}), got {sigma_per_diameter!r}"
            )
        return replace(self, f_number=self.f_number * DISK_SIGMA_PER_DIAMETER / sigma_per_diameter)


LENS_PRESETS: dict[str, LensConfig] = {
    # Carvalho 2018, section 3.2: the camera simulated on NYUv2 at three focus distances.
    "nyu-2m": LensConfig(15e-3, 2.8, 2.0, 5.6e-6),
    "nyu-4m": LensConfig(15e-3, 2.8, 4.0, 5.6e-6),
    "nyu-8m": LensConfig(15e-3, 2.8, 8.0, 5.6e-6),
    # The authors' simulation of their Nikon D200 at 645x432 (Carvalho 2018, section 4).
    "dslr": LensConfig(35e-3, 2.5, 1.7, 36e-6),
    # iDFD, out-of-focus shots at 640x480 (Nazir's thesis, chapter 4).
    "idfd": LensConfig(14e-3, 2.8, 1.6, 6e-6),
    # DEReD, the camera of the self-supervised literature, at the first of its focus distances.
    "dered": LensConfig(50e-3, 8.0, 1.0, 12e-6),
}
"""Cameras of the papers by name."""
