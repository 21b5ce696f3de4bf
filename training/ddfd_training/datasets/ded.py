"""DED: light-field photographs with sharp truth and defocus map (Ma et al. 2021, DID-ANet).

``image/image_N.jpg`` is defocused, ``sharp/PREFIX_N.jpg`` its sharp truth, and
``filtered/defocus_filterd_N.png`` (so spelt) a grey map of the defocus, on a scale of its own from
0 to 255. N ties the three together; the prefixes differ.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import (
    IMAGE_SUFFIXES,
    RgbdDataset,
    RgbdSample,
    files_in,
    first_folder,
    read_color,
    read_raw,
    same_size,
    unknown_depth,
)

FOLDERS = ("image", "sharp", "filtered")
TRAIN_SHARE = 0.87
"""What the authors' code trains on, at random; here it is the first so many by number."""


def number_of(path: Path) -> int:
    """The number that ends a file's name."""
    found = re.search(r"(\d+)$", path.stem)
    if found is None:
        raise DatasetError(f"ded: expected a name with a number, like image_12.jpg, got {path}")
    return int(found.group(1))


class Ded(RgbdDataset):
    """Natural pairs with a relative defocus map; no depth.

    Args:
        root: The folder with ``image``, ``sharp`` and ``filtered``.
        split: ``train`` (the first 87 %), ``test`` (the rest) or ``all``.

    Raises:
        DatasetError: The layout is another one, or no numbers agree.
    """

    name = "ded"
    splits = ("train", "test", "all")
    has_depth = False
    truths = ("defocus",)
    defocus_unit = "relative, 0 to 1"

    def __init__(self, root: str | Path, split: str = "train") -> None:
        """List and pair the files; images are read when asked for."""
        self.split = self.check_split(split)
        layout = "image/image_N.jpg, sharp/*_N.jpg, filtered/defocus_filterd_N.png"
        lists = []
        for folder in FOLDERS:
            place = first_folder((Path(root) / folder,), self.name, f"images: {layout}")
            files = files_in(place, self.name, IMAGE_SUFFIXES)
            lists.append({number_of(path): path for path in files})
        common = sorted(set.intersection(*(set(files) for files in lists)))
        if not common:
            raise DatasetError(f"{self.name}: expected files of one number in {layout}, got none")
        cut = round(TRAIN_SHARE * len(common))
        chosen = {"train": common[:cut], "test": common[cut:], "all": common}[split]
        self.triples = [[files[n] for files in lists] for n in chosen]
        self.frame_names = [str(number) for number in chosen]

    def read(self, index: int) -> RgbdSample:
        """Read triple ``index``: images uint8 ``[H, W, 3]``, defocus float32 ``[H, W]``."""
        image_path, sharp_path, map_path = self.triples[index]
        number = self.frame_names[index]
        image, sharp, levels = read_color(image_path), read_color(sharp_path), read_raw(map_path)
        same_size(f"{self.name} {number}", image=image, sharp=sharp, defocus=levels)
        most = np.float32(np.iinfo(levels.dtype).max)
        return RgbdSample(
            name=number,
            depth_m=unknown_depth(image),
            sharp_rgb=sharp,
            defocused_rgb=image,
            defocus=levels.astype(np.float32) / most,
        )
