"""The lens from what was measured, with intervals; or why it cannot be known."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.calibration.errors import CalibrationError
from ddfd_training.calibration.fit import (
    LensFit,
    choose_shape,
    fit_lens,
    own_spreads,
    straight_line,
    without_outliers,
)
from ddfd_training.calibration.forward import Matrices
from ddfd_training.calibration.intervals import Intervals, bootstrap
from ddfd_training.calibration.measure import FEWEST_PICTURES, Measurement

SMALLEST_BLUR_PX = 1.0
WIDEST_A, WIDEST_FOCUS_DIOPTRE = 0.10, 0.10
"""Half of an interval that is still of use: of A as a share, of the focus in dioptres."""
ASSUMED_SIGMA_PER_DIAMETER = 0.37
"""Measured on a real camera (1 / 2.7); taken where neither shape nor nominal values tell k."""
UNKNOWN_PITCH_M = 5e-6
_DISK = 0.25
_ROOM = 0.35


@dataclass(frozen=True)
class Nominal:
    """What is written on the lens; 0: not known."""

    focal_length_m: float = 0.0
    f_number: float = 0.0
    pixel_pitch_m: float = 0.0


@dataclass(frozen=True)
class Result:
    """A calibrated lens with everything that the report shows.

    Attributes:
        calibration: What node and trainer read.
        fit: The fit with one A, focus and spread all over the image.
        intervals: Of that.
        field: The fit whose numbers may change towards the corners.
        field_intervals: Of that.
        own_px: Each profile's own spread, as standard deviation in pixels.
        costs: Mean squared residual of each shape.
        measurement: What was fitted.
        strength: A with its interval.
        focus_dioptre: 1/d_f with its interval.
    """

    calibration: LensCalibration
    fit: LensFit
    intervals: Intervals
    field: LensFit
    field_intervals: Intervals
    own_px: np.ndarray
    costs: dict[str, float]
    measurement: Measurement
    strength: tuple[float, float, float]
    focus_dioptre: tuple[float, float, float]


def solve(
    measurement: Measurement,
    *,
    nominal: Nominal = Nominal(),
    scale_error: float = 0.0,
    sigma_per_diameter: float = 0.0,
    shape: str = "auto",
) -> Result:
    """Fit the lens and judge whether it is known.

    Args:
        measurement: Profiles of all pictures.
        nominal: Values written on lens and sensor, its pitch of the pictures as given.
        scale_error: Standard deviation of the print's size, as a share; that of the focal length
            is added.
        sigma_per_diameter: k, where the shape cannot tell; 0: nominal values, or an assumption.
        shape: ``disk``, ``gaussian``, ``blend``, or ``auto``.

    Raises:
        CalibrationError: Blur or the span of distances is too small, or pictures contradict.
    """
    nominal = replace(nominal, pixel_pitch_m=nominal.pixel_pitch_m / measurement.scale)
    matrices, own_px, measurement = _legible(measurement)
    found = measurement.profiles
    _check_blur(own_px, measurement)
    line = straight_line(
        np.array([p.dioptre for p in found]), own_px, np.array([p.blur_share for p in found])
    )
    start = (line[0] / _DISK, line[1], line[2])
    fit, costs = _fit(measurement, matrices, start, shape)
    kept = without_outliers(fit, found)
    if len(kept) < len(found):
        measurement = replace(measurement, profiles=kept)
        matrices, own_px, measurement = _legible(measurement)
        fit, costs = _fit(measurement, matrices, start, shape)
    _check_pictures(fit)
    common = math.hypot(scale_error, measurement.camera.focal_uncertainty)
    intervals = bootstrap(fit, scale_error=common)
    _check_known(fit, intervals, measurement)
    best = (fit.px_per_dioptre, fit.focus_dioptre, fit.sigma_0_px)
    field = fit_lens(measurement.profiles, fit.shape, best, matrices=matrices, field=True)
    calibration, strength = _calibration(fit, intervals, measurement, nominal, sigma_per_diameter)
    focus = (fit.focus_dioptre, *intervals.of("focus"))
    return Result(
        calibration,
        fit,
        intervals,
        field,
        bootstrap(field, scale_error=common),
        own_px,
        costs,
        measurement,
        strength,
        focus,
    )


def _legible(measurement: Measurement) -> tuple[Matrices, np.ndarray, Measurement]:
    """Leave out circles so blurred that they run into each other and the sheet's border."""
    matrices = Matrices(measurement.profiles)
    own_px = own_spreads(matrices)
    gap_px = np.array(
        [p.neighbours_px.min(initial=np.inf) - 2 * p.radius_px for p in measurement.profiles]
    )
    good = own_px < _ROOM * gap_px
    if good.all():
        return matrices, own_px, measurement
    kept = [p for p, fine in zip(measurement.profiles, good, strict=True) if fine]
    if len({p.picture for p in kept}) < FEWEST_PICTURES:
        raise CalibrationError(
            "blur: expected circles that stay apart, got most of them running into each other; "
            "print larger circles farther apart, or stay nearer to the focus"
        )
    return Matrices(kept), own_px[good], replace(measurement, profiles=kept)


def _fit(
    measurement: Measurement,
    matrices: Matrices,
    start: tuple[float, float, float],
    shape: str,
) -> tuple[LensFit, dict[str, float]]:
    if shape == "auto":
        return choose_shape(measurement.profiles, matrices, start)
    fit = fit_lens(measurement.profiles, shape, start, matrices=matrices)
    return fit, {shape: fit.cost}


def _distances(measurement: Measurement) -> str:
    return f"{min(measurement.distances_m):.2f} to {max(measurement.distances_m):.2f} m"


def _check_blur(own_px: np.ndarray, measurement: Measurement) -> None:
    """Refuse pictures that are sharp, before anything is fitted to noise."""
    floor_px = float(np.quantile(own_px, 0.02))
    most_px = float(np.quantile(own_px, 0.98))
    blur_px = math.sqrt(max(most_px**2 - min(floor_px, 0.5) ** 2, 0.0)) / _DISK
    if blur_px < SMALLEST_BLUR_PX:
        raise CalibrationError(
            f"blur: expected at least {SMALLEST_BLUR_PX:g} px somewhere, got {blur_px:.2f} px at "
            f"most between {_distances(measurement)}; below one pixel the lens cannot be "
            "measured: open the aperture, go nearer, or focus elsewhere"
        )


def _check_pictures(fit: LensFit) -> None:
    if len(fit.pictures) < FEWEST_PICTURES:
        raise CalibrationError(
            f"pictures: expected at least {FEWEST_PICTURES} that agree with each other, got "
            f"{len(fit.pictures)}; hold camera and target still and keep the focus as it is"
        )


def _check_known(fit: LensFit, intervals: Intervals, measurement: Measurement) -> None:
    """Refuse a lens that the pictures do not determine."""
    wide = np.array([p.dioptre for p in measurement.profiles if p.blur_share == 1.0])
    strength = 4 * fit.spread.sigma_per_diameter * fit.px_per_dioptre
    largest_px = strength * float(np.abs(wide - fit.focus_dioptre).max())
    if largest_px < SMALLEST_BLUR_PX:
        raise CalibrationError(
            f"blur: expected at least {SMALLEST_BLUR_PX:g} px somewhere, got {largest_px:.2f} px "
            f"at most between {_distances(measurement)}; below one pixel the lens cannot be "
            "measured: open the aperture, go nearer, or focus elsewhere"
        )
    low, high = intervals.of("log_a")
    near, far = intervals.of("focus")
    if (high - low) / 2 > WIDEST_A or (far - near) / 2 > WIDEST_FOCUS_DIOPTRE:
        raise CalibrationError(
            f"distances: expected pictures that tell A to {100 * WIDEST_A:g} % and the focus to "
            f"{WIDEST_FOCUS_DIOPTRE:g} dioptres, got {100 * (high - low) / 2:.0f} % and "
            f"{(far - near) / 2:.2f}: {len(fit.pictures)} pictures from "
            f"{_distances(measurement)}, {np.ptp(wide):.2f} dioptres apart, do not span enough; "
            "take more, from near to far, best on both sides of the focus"
        )


def _calibration(
    fit: LensFit,
    intervals: Intervals,
    measurement: Measurement,
    nominal: Nominal,
    sigma_per_diameter: float,
) -> tuple[LensCalibration, tuple[float, float, float]]:
    """The record, and A with its interval, from wherever it can be known."""
    low, high = intervals.of("log_a", exponential=True)
    focus_m = 1 / fit.focus_dioptre if fit.focus_dioptre > 1e-3 else math.inf
    pitch_m = nominal.pixel_pitch_m or UNKNOWN_PITCH_M
    k, source, strength = fit.spread.sigma_per_diameter, "shape", (fit.px_per_dioptre, low, high)
    if fit.shape == "gaussian":
        # What was fitted is k A, written as a disk's A.
        ka = _DISK * fit.px_per_dioptre
        if sigma_per_diameter:
            k, source = sigma_per_diameter, "given"
        elif nominal.focal_length_m and nominal.f_number and nominal.pixel_pitch_m:
            k, source = ka / written_lens(nominal, focus_m).px_per_dioptre, "nominal"
        else:
            k, source = ASSUMED_SIGMA_PER_DIAMETER, "assumed"
        strength = (ka / k, _DISK * low / k, _DISK * high / k)
    height, width = measurement.size
    lens = _lens(strength[0], focus_m, measurement.camera.focal_px, pitch_m)
    spread = fit.spread
    record = LensCalibration(
        lens=lens,
        width=width,
        height=height,
        pitch_known=nominal.pixel_pitch_m > 0,
        shape=fit.shape,
        sigma_per_diameter=round(k, 5),
        gaussian_share=round(spread.gaussian_share, 5),
        gaussian_sigma_per_diameter=round(
            k if fit.shape == "gaussian" else spread.gaussian_sigma, 5
        ),
        sigma_0_px=round(fit.sigma_0_px, 5),
        source=source,
    )
    return record, strength


def written_lens(nominal: Nominal, focus_m: float) -> LensConfig:
    """The lens of its nominal values at the focus measured.

    Raises:
        CalibrationError: There is no such lens.
    """
    try:
        return LensConfig(nominal.focal_length_m, nominal.f_number, focus_m, nominal.pixel_pitch_m)
    except ValueError as error:
        raise CalibrationError(
            f"--focal, --f-number, --pitch: expected those of a lens that is focused at "
            f"{focus_m:.3g} m, as measured, got none: {error}; check their units (mm and um)"
        ) from error


def _lens(strength: float, focus_m: float, focal_px: float, pitch_m: float) -> LensConfig:
    """The thin lens of that A whose image distance is the focal length in pixels.

    From s = f_px pitch, 1/f = 1/s + 1/d_f and A = f s / (N pitch).
    """
    image_m = focal_px * pitch_m
    focal_m = 1 / (1 / image_m + 1 / focus_m)
    return LensConfig(focal_m, focal_m * image_m / (pitch_m * strength), focus_m, pitch_m)
