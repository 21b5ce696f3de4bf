"""SYNDOF: images with simulated defocus and its map (Lee et al. 2019; the generator's readme).

``train/SYNDOF/{image,blur_map}``, names equal. A blur map is a colour PNG whose green channel is
ten times the blur, rounded, so that 8 bits hold it: value / 10 is the standard deviation of the
Gaussian in pixels, from 0 to 7, which stands for a circle of confusion of 4 sigma + 1 pixels.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import (
    RgbdDataset,
    RgbdSample,
    first_folder,
    pair_by_stem,
    read_color,
    same_size,
    unknown_depth,
)

STEPS_PER_PX = 10.0


class Syndof(RgbdDataset):
    """Defocused images with their defocus maps; no sharp images, no depth.

    Args:
        root: The folder with ``image`` and ``blur_map``, or one that holds ``SYNDOF`` or
            ``train/SYNDOF`` and ``test/SYNDOF``.
        split: ``train`` or ``test`` where the set lies in folders of these names, ``all`` where
            it does not.

    Raises:
        DatasetError: The layout is another one.
    """

    name = "syndof"
    splits = ("train", "test", "all")
    has_depth = False
    truths = ("defocus",)
    defocus_unit = "sigma_px"

    def __init__(self, root: str | Path, split: str = "train") -> None:
        """List and pair the files; images are read when asked for."""
        base = Path(root)
        self.check_split(split)
        places = (base / "SYNDOF", base) if split == "all" else (base / split / "SYNDOF",)
        # A set without folders has one split: else training and testing would be the same images.
        content = "images, beside blur_map/ (without folders train/ and test/, take the split all)"
        images = first_folder((place / "image" for place in places), self.name, content)
        maps = first_folder((images.with_name("blur_map"),), self.name, "the defocus maps")
        self.files = pair_by_stem(images, maps, self.name)
        self.frame_names = list(self.files)

    def read(self, index: int) -> RgbdSample:
        """Read image ``index`` uint8 ``[H, W, 3]`` with its defocus map float32 ``[H, W]``."""
        name = self.frame_names[index]
        image_path, map_path = self.files[name]
        image = read_color(image_path)
        defocus = read_blur_map(map_path)
        same_size(f"{self.name} {name}", image=image, blur_map=defocus)
        return RgbdSample(
            name=name, depth_m=unknown_depth(image), defocused_rgb=image, defocus=defocus
        )


def read_blur_map(path: Path) -> np.ndarray:
    """Standard deviation of the blur in pixels, float32 ``[H, W]``."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise DatasetError(f"syndof: expected a readable blur map at {path}, got none")
    green = values if values.ndim == 2 else values[:, :, 1]
    return green.astype(np.float32) / np.float32(STEPS_PER_PX)
