"""The calibration file that the parameter ``lens_calibration`` names."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ddfd_ros.core.lens_calibration import LensCalibration, LensCalibrationError

_EXPECTED = "lens_calibration: expected the YAML file of ddfd-calibrate, got"

_LAST_GOOD: dict[str, LensCalibration] = {}
"""By path as it was given; an operator names only so many files in a node's life."""


def read_lens_file(path: str) -> LensCalibration:
    """Read the file of ``ddfd-calibrate``; again only when it has changed.

    Raises:
        LensCalibrationError: No such file, or it holds something else.
    """
    try:
        file = Path(path).expanduser()
        status = file.stat()
        found = _read(file, status.st_mtime_ns, status.st_size)
    except (OSError, RuntimeError, ValueError) as error:  # also a home or a path that cannot be
        raise LensCalibrationError(f"{_EXPECTED} {error}; give an absolute path") from error
    if isinstance(found, str):
        raise LensCalibrationError(found)
    _LAST_GOOD[path] = found
    return found


def lens_in_force(path: str) -> tuple[LensCalibration, str]:
    """What the file holds; while it cannot be read, what it held last, and what is wrong with it.

    A robot goes on when somebody moves or spoils a file under it.

    Raises:
        LensCalibrationError: It could never be read.
    """
    try:
        return read_lens_file(path), ""
    except LensCalibrationError as error:
        if path not in _LAST_GOOD:
            raise
        return _LAST_GOOD[path], f"{error} (what it held before stays in force)"


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int, size: int) -> LensCalibration | str:
    """The calibration, or what is wrong: a bad file is not to be read anew for every frame."""
    import yaml  # a node without a calibration file does without

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return LensCalibration.from_dict(values, "lens_calibration")
    except LensCalibrationError as error:
        return str(error)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        return f"{_EXPECTED} {error}"
