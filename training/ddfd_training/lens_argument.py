"""A lens on the command line: a preset's name, a calibration file, or its four numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddfd_ros.core.lens_calibration import LensCalibration, LensCalibrationError
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_training.calibration.files import CALIBRATION_SUFFIXES, read_calibration

HELP = (
    f"preset ({', '.join(LENS_PRESETS)}), the .yaml of ddfd-calibrate, or four numbers in SI "
    "units, focal length,f-number,focus distance,pixel pitch: 0.015,2.8,8,5.6e-6"
)


def parse_lens(text: str) -> LensConfig | LensCalibration:
    """Read a lens from ``text``, a calibration with the size it is for; see ``lens_at``.

    Raises:
        argparse.ArgumentTypeError: Neither a preset, a calibration nor four numbers of a
            possible lens.
    """
    if text in LENS_PRESETS:
        return LENS_PRESETS[text]
    if Path(text).suffix in CALIBRATION_SUFFIXES:
        return _calibration(text)
    try:
        focal_length_m, f_number, focus_distance_m, pixel_pitch_m = (
            float(part) for part in text.split(",")
        )
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a {HELP}; got {text!r}") from None
    try:
        return LensConfig(focal_length_m, f_number, focus_distance_m, pixel_pitch_m)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def lens_at(lens: LensConfig | LensCalibration, width: int, height: int) -> LensConfig:
    """The lens for images of this size; a preset, or four numbers, is for any.

    Raises:
        LensCalibrationError: The calibration is of images of another shape.
    """
    return lens.lens_for(width, height) if isinstance(lens, LensCalibration) else lens


def parse_sharpness(text: str) -> float | LensCalibration:
    """Read a width in pixels, or the calibration that tells how sharp its camera is.

    Raises:
        argparse.ArgumentTypeError: Neither.
    """
    if Path(text).suffix in CALIBRATION_SUFFIXES:
        return _calibration(text)
    try:
        width_px = float(text)
    except ValueError:
        width_px = -1.0
    if not 0 <= width_px < 100:
        raise argparse.ArgumentTypeError(
            f"expected pixels from 0 to 100, or the .yaml of ddfd-calibrate; got {text!r}"
        )
    return width_px


def _calibration(text: str) -> LensCalibration:
    try:
        return read_calibration(Path(text))
    except LensCalibrationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_count(text: str) -> int:
    """A number of frames, from 0, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"expected a number of frames, or 0 for all, got {text!r}"
        )
    return int(text)
