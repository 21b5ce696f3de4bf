"""Reading the file that ``ddfd-calibrate`` writes."""

from __future__ import annotations

from pathlib import Path

import yaml

from ddfd_ros.core.lens_calibration import LensCalibration, LensCalibrationError

CALIBRATION_SUFFIXES = (".yaml", ".yml")


def read_calibration(path: Path) -> LensCalibration:
    """Read a calibration.

    Raises:
        LensCalibrationError: No such file, or it holds something else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise LensCalibrationError(
            f"{path}: expected the YAML file of ddfd-calibrate, got {error}"
        ) from error
    return LensCalibration.from_dict(values, str(path))
