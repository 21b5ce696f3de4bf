"""iDFD: naturally defocused rooms with all-in-focus companions and depth (Nazir's thesis, ch. 4).

A Nikon DSLR took each scene at f/2.8 and at f/10, an Azure Kinect its depth; 764 scenes. The
layout is that of the data set's own description::

    Data/{Raw,Processed}/{inpainting,without_inpainting}/{All_In_Focus,Out_Of_Focus,Depth}/NAME.*

Raw images have about 1050 pixels a side, processed ones 640x480. The same scene may be ``.JPG`` in
one folder, ``.jpg`` in another and ``.png`` in the third. Depth is 16-bit millimetres. There is no
official split: names begin with the place (``Apartment1_0``), and a split must not share places.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.datasets.base import (
    IMAGE_SUFFIXES,
    RgbdDataset,
    RgbdSample,
    files_in,
    first_folder,
    read_rgb,
    same_size,
)
from ddfd_training.datasets.rgbd_folder import read_depth_m

FOLDERS = ("Out_Of_Focus", "All_In_Focus", "Depth")
PROCESSED_WIDTH = 640
TEST_SHARE = 0.2
_LAYOUT = "Data/{Raw,Processed}/{inpainting,without_inpainting}/{All_In_Focus,Out_Of_Focus,Depth}"


def place_of(name: str) -> str:
    """The place that a file name begins with: ``Apartment1`` of ``Apartment1_0``."""
    return re.sub(r"[_\- ]*\d+$", "", name) or name


def is_test_place(place: str) -> bool:
    """Whether a place belongs to the test split: about a fifth of them, always the same ones."""
    digest = hashlib.sha256(place.lower().encode()).digest()
    return digest[0] < 256 * TEST_SHARE


class Idfd(RgbdDataset):
    """Natural triples: defocused, all in focus, depth.

    Args:
        root: The folder ``Data``, or the one that holds it.
        split: ``all``; or ``train`` and ``test``, by place (about a fifth of the places is for
            testing, chosen by a digest of their names; the authors name no split).
        depth: ``inpainted`` or ``raw`` depth.
        size: ``processed`` (640x480) or ``raw`` (about 1050x1050) images.

    Raises:
        DatasetError: The layout is another one.
    """

    name = "idfd"
    splits = ("train", "test", "all")
    registered = False
    sensor_range_m = 3.8

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        depth: str = "inpainted",
        size: str = "processed",
    ) -> None:
        """List the files; images are read when asked for."""
        self.split = self.check_split(split)
        kinds = {"inpainted": "inpainting", "raw": "without_inpainting"}
        if depth not in kinds:
            raise DatasetError(f"{self.name}: depth: expected inpainted or raw, got {depth!r}")
        if size not in ("processed", "raw"):
            raise DatasetError(f"{self.name}: size: expected processed or raw, got {size!r}")
        self._settings = (split, depth, size)
        base, part = Path(root), Path(size.capitalize()) / kinds[depth]
        self.root = first_folder((base / part, base / "Data" / part), self.name, _LAYOUT)
        lists = [
            {p.stem.lower(): p for p in files_in(self._folder(kind), self.name, IMAGE_SUFFIXES)}
            for kind in FOLDERS
        ]
        common = sorted(set.intersection(*(set(files) for files in lists)))
        if not common:
            raise DatasetError(
                f"{self.name}: expected files of one name in {', '.join(FOLDERS)} of {self.root}, "
                f"got {' and '.join(str(len(files)) for files in lists)} files without a common "
                "name"
            )
        self.skipped = sorted(set.union(*(set(files) for files in lists)) - set(common))
        self.triples = [
            (files[0], files[1], files[2])
            for files in ([each[stem] for each in lists] for stem in common)
            if split == "all" or is_test_place(place_of(files[0].stem)) == (split == "test")
        ]
        if not self.triples:
            raise DatasetError(
                f"{self.name}: expected places for the split {split}, got none among the "
                f"{len(common)} scenes; take the split all"
            )
        self.frame_names = [blurred.stem for blurred, _, _ in self.triples]

    def _folder(self, kind: str) -> Path:
        return first_folder((self.root / kind,), self.name, f"images; its layout is {_LAYOUT}")

    def scene_of(self, index: int) -> str:
        """The place."""
        return place_of(self.frame_names[index])

    def settings(self) -> tuple[str, ...]:
        """Split, kind of depth and size."""
        return self._settings

    def read(self, index: int) -> RgbdSample:
        """Read triple ``index``: images uint8 ``[H, W, 3]``, depth float32 ``[H, W]``."""
        blurred_path, sharp_path, depth_path = self.triples[index]
        blurred, sharp = read_rgb(blurred_path), read_rgb(sharp_path)
        depth_m = read_depth_m(depth_path)
        same_size(f"{self.name} {blurred_path.stem}", image=blurred, sharp=sharp, depth=depth_m)
        lens = LENS_PRESETS["idfd"]  # given for images 640 pixels wide
        return RgbdSample(
            name=blurred_path.stem,
            depth_m=depth_m,
            sharp_rgb=sharp,
            defocused_rgb=blurred,
            lens=replace(
                lens, pixel_pitch_m=lens.pixel_pitch_m * PROCESSED_WIDTH / blurred.shape[1]
            ),
        )
