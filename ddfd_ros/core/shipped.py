"""Where the files lie that come with the package: models, parameters, Fast DDS profiles.

Standard library only and no ROS, so that launch files, offline tools and tests can use it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ddfd_ros.core.errors import ModelLoadError

PACKAGE = "ddfd_ros"
_MODEL_SUFFIXES = (".onnx", ".engine", ".plan", ".pt", ".ckpt")


def share_folders() -> Iterator[Path]:
    """Folders that may hold ``config`` and ``models``: the checkout, then installations."""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "package.xml").is_file():
        yield checkout
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    for prefix in (*prefixes, sys.prefix):
        folder = Path(prefix) / "share" / PACKAGE
        if folder.is_dir():
            yield folder


def find_shipped(relative: str) -> Path | None:
    """The first existing file ``relative`` to a share folder; None when there is none."""
    for folder in share_folders():
        if (path := folder / relative).is_file():
            return path
    return None


def shipped_models(*suffixes: str) -> dict[str, Path]:
    """Models that come with the package, by name without suffix; of these kinds of file only."""
    result: dict[str, Path] = {}
    for folder in share_folders():
        for path in sorted((folder / "models").rglob("*")):
            if path.suffix in (suffixes or _MODEL_SUFFIXES):
                result.setdefault(path.stem, path)
    return result


def resolve_model(model: str, *suffixes: str, parameter: str = "model_path") -> Path:
    """A model's file from a parameter or an argument: a path, or the name of a shipped model.

    Args:
        model: Path or name.
        suffixes: Kinds of file that a name may stand for, such as ``.onnx``; none: all.
        parameter: What the error calls it.

    Raises:
        ModelLoadError: Neither; the message lists what there is.
    """
    unreadable = ""
    try:
        path = Path(model).expanduser()
        if model and path.is_file():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # a folder that is closed to us, no home
        unreadable = f" ({error})"
    shipped = shipped_models(*suffixes)
    if model in shipped:
        return shipped[model]
    raise ModelLoadError(
        f"{parameter}: expected a model file or one of the shipped models {sorted(shipped)}, got "
        f"{model!r}{unreadable}; check {parameter} (absolute paths are safest)"
    )
