"""A lens on the command line: a preset's name, or its four numbers."""

from __future__ import annotations

import argparse

from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig

HELP = (
    f"preset ({', '.join(LENS_PRESETS)}) or four numbers in SI units, "
    "focal length,f-number,focus distance,pixel pitch: 0.015,2.8,8,5.6e-6"
)


def parse_lens(text: str) -> LensConfig:
    """Read a lens from ``text``.

    Raises:
        argparse.ArgumentTypeError: Neither a preset nor four numbers of a possible lens.
    """
    if text in LENS_PRESETS:
        return LENS_PRESETS[text]
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
