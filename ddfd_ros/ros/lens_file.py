"""The calibration file that the parameter ``lens_calibration`` names."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ddfd_ros.core.lens_calibration import LensCalibration, LensCalibrationError


def read_lens_file(path: str) -> LensCalibration:
    """Read the file of ``ddfd-calibrate``; again only when it has changed.

    Raises:
        LensCalibrationError: No such file, or it holds something else.
    """
    file = Path(path).expanduser()
    try:
        return _read(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise LensCalibrationError(
            f"lens_calibration: expected the YAML file of ddfd-calibrate, got {error}; give an "
            "absolute path"
        ) from error


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int) -> LensCalibration:
    import yaml  # a node without a calibration file does without

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LensCalibrationError(
            f"lens_calibration: expected the YAML file of ddfd-calibrate, got {error}"
        ) from error
    return LensCalibration.from_dict(values, "lens_calibration")
