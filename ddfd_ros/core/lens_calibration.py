"""The record of a lens calibration: what ``ddfd-calibrate`` measured, and node and trainer read.

A thin lens at a fixed focus is two numbers, A (pixels of blur diameter per dioptre) and 1/d_f; the
four numbers of ``LensConfig`` are one way to write them. What second moments of blur tell is the
product k A with k = sigma / diameter of the point-spread function; A itself only its shape, or the
nominal focal length and f-number. So the record says where A comes from, and node and trainer
calculate with a lens of disks that has the measured product (``spread_lens``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.sharpness import sigma_at_scale
from ddfd_ros.core.thin_lens import LensConfig

FORMAT = 1
"""Version of the file's format, under the key ``ddfd_lens_calibration``."""
KEY = "ddfd_lens_calibration"


class LensCalibrationError(DdfdError):
    """A calibration file does not hold what it should."""


@dataclass(frozen=True)
class LensCalibration:
    """A measured lens, for images of one size.

    Attributes:
        lens: The thin lens, its pixel pitch that of the calibration's images.
        width: Width in pixels of these images.
        height: Height in pixels.
        pitch_known: Whether the pixel pitch is the sensor's; otherwise only A and the focus
            distance of ``lens`` mean something.
        shape: Point-spread function: ``disk``, ``gaussian`` or ``blend``.
        sigma_per_diameter: k, the standard deviation of the whole point-spread function along one
            axis over its diameter; 0.25 for a disk.
        gaussian_share: Of the Gaussian in a ``blend``, from 0 to 1.
        gaussian_sigma_per_diameter: Of that Gaussian alone.
        sigma_0_px: Spread in focus: lens, pixels and print together, standard deviation in pixels.
        source: Where A comes from: ``shape``, ``nominal``, ``given`` or ``assumed``.
        details: Intervals, variation over the image, data; for people.
    """

    lens: LensConfig
    width: int
    height: int
    pitch_known: bool = False
    shape: str = "disk"
    sigma_per_diameter: float = 0.25
    gaussian_share: float = 0.0
    gaussian_sigma_per_diameter: float = 0.25
    sigma_0_px: float = 0.0
    source: str = "shape"
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def spread_lens(self) -> LensConfig:
        """The lens to calculate with: its disks spread as the measured point-spread function does.

        What second moments tell is k A; this lens has that product, wherever A and k come from.
        """
        return self.lens.spread_as(self.sigma_per_diameter)

    def lens_for(self, width: int, height: int) -> LensConfig:
        """``spread_lens`` for the same camera's images at another size.

        Raises:
            LensCalibrationError: That size has another shape, so it is not a scaled image.
        """
        scale = self._scale(width, height)
        return self.spread_lens if scale == 1 else self.spread_lens.scaled(scale)

    def sigma_0_for(self, width: int, height: int) -> float:
        """``sigma_0_px`` for the same camera's images at another size; 0: not measured.

        Raises:
            LensCalibrationError: As for ``lens_for``.
        """
        scale = self._scale(width, height)
        return sigma_at_scale(self.sigma_0_px, scale) if self.sigma_0_px > 0 else 0.0

    def _scale(self, width: int, height: int) -> float:
        scale_x, scale_y = width / self.width, height / self.height
        if abs(scale_x / scale_y - 1) > 0.02:
            raise LensCalibrationError(
                f"lens calibration: expected images of the shape {self.width}x{self.height}, got "
                f"{width}x{height}; calibrate with images as they are used"
            )
        return scale_x

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["lens"] = {item.name: getattr(self.lens, item.name) for item in fields(LensConfig)}
        return {KEY: FORMAT, **values}

    @classmethod
    def from_dict(cls, values: Any, where: str = "lens calibration") -> LensCalibration:
        """Read plain values; unknown keys are refused by name.

        Raises:
            LensCalibrationError: Something else than a calibration.
        """
        if not isinstance(values, Mapping) or KEY not in values:
            raise LensCalibrationError(
                f"{where}: expected the YAML file of ddfd-calibrate (with the key {KEY}), got "
                "something else"
            )
        if values[KEY] != FORMAT:
            raise LensCalibrationError(
                f"{where}: expected format {FORMAT}, got {values[KEY]!r}; calibrate again with "
                "this version"
            )
        known = {item.name for item in fields(cls)}
        arguments = {name: value for name, value in values.items() if name != KEY}
        unknown = sorted(str(name) for name in set(arguments) - known)
        # All are always written: without one it is half a file, whose defaults would be wrong.
        missing = sorted(known - set(arguments))
        if unknown or missing:
            raise LensCalibrationError(
                f"{where}: expected the keys {sorted(known)}, got unknown {unknown} and missing "
                f"{missing}; copy the file again, or calibrate again"
            )
        try:
            lens = LensConfig(**{name: float(v) for name, v in dict(arguments["lens"]).items()})
            result = cls(**{**arguments, "lens": lens})
            result._check(where)
            _ = result.spread_lens  # what node and trainer calculate with has to exist
        except (TypeError, ValueError, OverflowError) as error:
            raise LensCalibrationError(f"{where}: {error}") from error
        return result

    def _check(self, where: str) -> None:
        sides = {name: getattr(self, name) for name in ("width", "height")}
        checks = {
            **{n: (type(v) is int and _number(v) > 0, "whole pixels") for n, v in sides.items()},
            "shape": (self.shape in ("disk", "gaussian", "blend"), "disk, gaussian or blend"),
            "pitch_known": (isinstance(self.pitch_known, bool), "true or false"),
            "sigma_per_diameter": (_number(self.sigma_per_diameter) > 0, "a number above 0"),
            "gaussian_share": (0 <= _number(self.gaussian_share) <= 1, "a share from 0 to 1"),
            "gaussian_sigma_per_diameter": (
                _number(self.gaussian_sigma_per_diameter) >= 0,
                "a number from 0 on",
            ),
            "sigma_0_px": (_number(self.sigma_0_px) >= 0, "pixels from 0 on (0: not measured)"),
            "details": (isinstance(self.details, dict), "names with values"),
        }
        for name, (fits, wanted) in checks.items():
            if not fits:
                raise LensCalibrationError(
                    f"{where} {name}: expected {wanted}, got {getattr(self, name)!r}; calibrate "
                    "again"
                )


def _number(value: Any) -> float:
    """The value; NaN, for which no comparison holds, where it is no finite number."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else math.nan
