"""DIODE: laser-scanned rooms and streets (Vasiljevic et al. 2019; layout of its development kit).

``{train,val}/{indoors,outdoor}/scene_NNNNN/scan_NNNNN/*.png`` (1024x768) with ``*_depth.npy``
(float32 metres, ``[768, 1024, 1]``) and ``*_depth_mask.npy`` (1 where the scanner got an answer).
Depth without its mask contains numbers that mean nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import (
    RgbdDataset,
    RgbdSample,
    first_folder,
    read_rgb,
    same_size,
)

PLACES = ("indoors", "outdoor")
_LAYOUT = "{indoors,outdoor}/scene_*/scan_*/*.png with *_depth.npy and *_depth_mask.npy"


class Diode(RgbdDataset):
    """Sharp images with depth from 0.6 to 350 m.

    Args:
        root: The folder that holds ``train`` and ``val``.
        split: ``train`` (25 458 images) or ``val`` (771); ``test`` is not public.
        place: ``indoors``, ``outdoor`` or ``both``.

    Raises:
        DatasetError: The layout is another one.
    """

    name = "diode"
    splits = ("train", "val")
    blur = "rendered"

    def __init__(self, root: str | Path, split: str = "train", *, place: str = "indoors") -> None:
        """List the images; they are read when asked for."""
        if place not in (*PLACES, "both"):
            raise DatasetError(
                f"{self.name}: place: expected one of {', '.join(PLACES)}, both, got {place!r}"
            )
        base = Path(root)
        self.root = first_folder((base / self.check_split(split),), self.name, _LAYOUT)
        places = PLACES if place == "both" else (place,)
        pattern = "scene_*/scan_*/*.png"
        self.files = sorted(path for kind in places for path in (self.root / kind).glob(pattern))
        if not self.files:
            raise DatasetError(
                f"{self.name}: expected images {{{','.join(places)}}}/{pattern} in {self.root}, "
                "got none"
            )
        # Names alone do not say scene and scan.
        self.frame_names = [
            path.relative_to(self.root).with_suffix("").as_posix() for path in self.files
        ]

    def scene_of(self, index: int) -> str:
        """Indoors or outdoor, and the folder of the scene."""
        return "/".join(self.frame_names[index].split("/")[:2])

    def read(self, index: int) -> RgbdSample:
        """Read image ``index``: uint8 ``[768, 1024, 3]``, depth float32 ``[768, 1024]``."""
        path = self.files[index]
        rgb = read_rgb(path)
        depth_m = _array(path, "_depth").astype(np.float32)
        mask = _array(path, "_depth_mask")
        same_size(f"{self.name} {path.stem}", image=rgb, depth=depth_m, mask=mask)
        depth_m[~(np.isfinite(depth_m) & (mask > 0) & (depth_m > 0))] = np.nan
        return RgbdSample(name=self.frame_names[index], depth_m=depth_m, sharp_rgb=rgb)


def _array(image: Path, ending: str) -> np.ndarray:
    """The array beside an image, ``[H, W]``."""
    path = image.with_name(f"{image.stem}{ending}.npy")
    try:
        values = np.squeeze(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DatasetError(f"diode: expected an array {path} beside the image: {error}") from None
    if values.ndim != 2:
        raise DatasetError(f"{path}: expected an array [H, W] or [H, W, 1], got {values.shape}")
    return values
