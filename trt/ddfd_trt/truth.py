"""What a runtime's differences do to the depth error against truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import DatasetError

_SUFFIXES = (".png", ".tif", ".tiff")


@dataclass(frozen=True)
class TruthError:
    """Root mean square depth error of two runtimes over all pixels with known depth.

    Attributes:
        images: Number of images with truth.
        reference_m: Error of the reference in metres.
        candidate_m: Error of the runtime under test in metres.
        allowed: By how much, as a share of the reference's error, it may be worse.
    """

    images: int
    reference_m: float
    candidate_m: float
    allowed: float

    @property
    def change(self) -> float:
        """How much worse the candidate is, as a share; negative when it is better."""
        return self.candidate_m / self.reference_m - 1.0

    @property
    def passed(self) -> bool:
        """Whether it is not worse than allowed (an error that is no number is)."""
        return self.change <= self.allowed


class TruthFolder:
    """Depth maps by the names of their images.

    Args:
        folder: Holds a depth map for each image, of the same name but for the suffix; 8 or 16 bit.
        unit_m: Metres per unit; a value of 0 is unknown.

    Raises:
        DatasetError: There is no depth map.
    """

    def __init__(self, folder: Path, unit_m: float = 1e-3) -> None:
        self._unit_m = unit_m
        files: Iterable[Path] = folder.rglob("*") if folder.is_dir() else ()
        self._paths = {item.stem: item for item in files if item.suffix.lower() in _SUFFIXES}
        if not self._paths:
            raise DatasetError(
                f"{folder}: expected a folder with depth maps ({', '.join(_SUFFIXES)}), got none; "
                "check the path"
            )

    def depth_m(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """Depth in metres, NaN where unknown, of an image called ``name``; None without one.

        Raises:
            DatasetError: It is unreadable or not of the image's size.
        """
        import cv2

        path = self._paths.get(Path(name).stem)
        if path is None:
            return None
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if raw is None or raw.shape != shape:
            found = "a file OpenCV does not read" if raw is None else f"{raw.shape}"
            raise DatasetError(f"{path}: expected depth of shape {shape}, got {found}")
        depth_m: np.ndarray = raw.astype(np.float64) * self._unit_m
        depth_m[raw == 0] = np.nan
        return depth_m


class TruthCollector:
    """Sums squared errors over images."""

    def __init__(self, folder: TruthFolder, allowed: float) -> None:
        self._folder, self._allowed = folder, allowed
        self._sums = np.zeros(2)
        self._pixels = self._images = 0

    def add(self, name: str, reference_m: np.ndarray, candidate_m: np.ndarray) -> None:
        """Add one image's two answers, ``[H, W]`` in metres."""
        truth_m = self._folder.depth_m(name, reference_m.shape)
        if truth_m is None:
            return
        known = np.isfinite(truth_m)
        answers = (reference_m, candidate_m)
        self._sums += [float(((answer - truth_m)[known] ** 2).sum()) for answer in answers]
        self._pixels += int(known.sum())
        self._images += 1

    def result(self) -> TruthError:
        """The errors; DatasetError when no image had truth."""
        if not self._pixels:
            raise DatasetError(
                "truth: expected depth maps named like the images, got none that fits; check both "
                "folders"
            )
        reference_m, candidate_m = np.sqrt(self._sums / self._pixels)
        return TruthError(self._images, float(reference_m), float(candidate_m), self._allowed)
