"""The calibration's record: only what a lens can have is taken, and the reason names the field."""

from __future__ import annotations

import pytest

from ddfd_ros.core.lens_calibration import LensCalibration, LensCalibrationError
from ddfd_ros.core.thin_lens import LensConfig

MEASURED = LensCalibration(LensConfig(15e-3, 2.8, 2.0, 5.6e-6), 640, 480)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sigma_per_diameter", 0.0),
        ("sigma_per_diameter", -0.3),
        ("sigma_per_diameter", 1e-320),  # its aperture number would be infinite
        ("sigma_per_diameter", True),
        ("sigma_0_px", -1.0),
        ("sigma_0_px", float("nan")),
        ("gaussian_share", 1.5),
        ("pitch_known", "no"),
        ("pitch_known", 1),
        ("width", True),
        ("width", 640.0),
        ("height", 10**400),
        ("details", []),
        ("shape", "disc"),
        ("lens", "nyu-8m"),
        ("lens", {"focal_length_m": 10**400}),
    ],
)
def test_what_no_lens_has_is_refused(field, value):
    with pytest.raises(LensCalibrationError, match="lens.yaml"):
        LensCalibration.from_dict(MEASURED.to_dict() | {field: value}, "lens.yaml")


def test_unknown_keys_of_any_kind_are_named():
    with pytest.raises(LensCalibrationError, match=r"unknown \['1', 'colour'\]"):
        LensCalibration.from_dict(MEASURED.to_dict() | {1: "x", "colour": "y"})


@pytest.mark.parametrize("key", MEASURED.to_dict())
def test_half_a_file_is_no_calibration(key):
    values = MEASURED.to_dict()
    del values[key]
    with pytest.raises(LensCalibrationError, match=key):
        LensCalibration.from_dict(values)


def test_the_reason_names_the_field():
    with pytest.raises(LensCalibrationError, match=r"sigma_0_px: expected .*got -1"):
        LensCalibration.from_dict(MEASURED.to_dict() | {"sigma_0_px": -1})
