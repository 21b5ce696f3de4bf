"""D3-Net's own set: naturally defocused photographs with depth (Carvalho et al. 2018, section 4).

A Nikon D200 took every view twice, wide open (``N2_8``) and stopped down (``N8``, nearly sharp);
an Asus Xtion gave the depth. Files are named by their time, and most images and depth maps differ
by a fraction of a second.

Images and depth maps pair in the order of their times. In the test split that is not the pairing
by nearest time, which gives eight images the depth of the next view, and leaves one image and one
depth map over: from view 1 to 9 of 0 to 28, images and depth maps bear times of neighbouring
views. The pictures tell: in order, blur and depth lie on the lens's line, and edges fall together;
``test/training/test_dfd_dslr.py`` measures it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.datasets.base import (
    RgbdDataset,
    RgbdSample,
    read_raw,
    read_rgb,
    require_folder,
)
from ddfd_training.datasets.pairing import pair_nearest

APERTURES = {"N2_8": 2.8, "N8": 8.0}
SENSOR_RANGE_M = 3.5
"""The depth sensor's reach; what is farther was filled in. Report errors below it separately."""
MAX_TIME_GAP_S = 2.0
PAIRINGS = ("order", "time")
_STAMP = re.compile(r"(\d{4}-\d{2}-\d{2})[T_ ](\d{2})[:_-](\d{2})[:_-](\d{2})(\.\d+)?$")


def stamp_s(path: Path) -> float:
    """Seconds since the epoch that the file's name stands for (no time zone).

    Raises:
        DatasetError: The name is not a time stamp.
    """
    match = _STAMP.match(path.stem)
    if match is None:
        raise DatasetError(
            f"dfd_dslr: expected a file named by its time, like 2018-04-26T17:26:34.505212.JPG, "
            f"got {path.name}; use the files under their original names"
        )
    day, hour, minute, second, fraction = match.groups()
    moment = datetime.fromisoformat(f"{day}T{hour}:{minute}:{second}+00:00")
    return moment.timestamp() + float(fraction or 0.0)


def pair_by_time(
    first: Sequence[Path], second: Sequence[Path], max_gap_s: float = MAX_TIME_GAP_S
) -> list[tuple[Path, Path]]:
    """Pairs of files nearest in time, at most ``max_gap_s`` apart, each file used once.

    Returns:
        Pairs in the order of ``first``; files without a partner are left out.
    """
    times = [[stamp_s(path) for path in files] for files in (first, second)]
    return [(first[i], second[j]) for i, j in pair_nearest(times[0], times[1], max_gap_s)]


def pair_in_order(
    first: Sequence[Path], second: Sequence[Path], max_gap_s: float = MAX_TIME_GAP_S
) -> list[tuple[Path, Path]]:
    """Pairs of the files in the order of their times.

    Args:
        first: Files named by their time, in order.
        second: As many.
        max_gap_s: Within which most pairs lie; else one of the lists has lost files.

    Raises:
        DatasetError: The lists do not have the same length, or most times do not match.
    """
    remedy = "restore the missing files, or pair the ones that are there with pair: time"
    if len(first) != len(second):
        raise DatasetError(
            f"dfd_dslr: expected as many depth maps as images, got {len(second)} and "
            f"{len(first)}; {remedy}"
        )
    near = sum(
        abs(stamp_s(a) - stamp_s(b)) <= max_gap_s for a, b in zip(first, second, strict=True)
    )
    if 2 * near < len(first):
        raise DatasetError(
            f"dfd_dslr: expected most images and depth maps within {max_gap_s:g} s of each other, "
            f"got {near} of {len(first)}; {remedy}"
        )
    return list(zip(first, second, strict=True))


class DfdDslr(RgbdDataset):
    """Naturally defocused indoor images with depth, 645x432.

    A sample's ``defocused_rgb`` is the view at the chosen aperture, ``sharp_rgb`` the same view at
    N 8 (not registered: it is shifted by up to 5 px, see :mod:`ddfd_training.registration`), and
    ``lens`` the camera as its authors simulate it.

    Args:
        root: Folder with ``dfd_dataset_indoor_N2_8`` and ``dfd_dataset_indoor_N8``.
        split: ``train`` (81 pairs) or ``test`` (29).
        aperture: ``N2_8`` or ``N8``.
        pair: How images and depth maps find each other: ``order``, which is right for the whole
            set (see the module), or ``time``, the nearest within 2 s, for a part of it.
        sharp: Also read the N 8 companion; needs that folder.

    Raises:
        DatasetError: The layout is not the authors', or a file is broken.
    """

    name = "dfd_dslr"
    splits = ("train", "test")
    registered = False
    in_memory = True
    sensor_range_m = SENSOR_RANGE_M

    def __init__(
        self,
        root: str | Path,
        split: str = "test",
        aperture: str = "N2_8",
        pair: str = "order",
        *,
        sharp: bool = True,
    ) -> None:
        """List and pair the files; images are read when asked for."""
        if aperture not in APERTURES:
            raise DatasetError(
                f"{self.name}: aperture: expected one of {', '.join(APERTURES)}, got {aperture!r}"
            )
        if pair not in PAIRINGS:
            raise DatasetError(
                f"{self.name}: pair: expected one of {', '.join(PAIRINGS)}, got {pair!r}"
            )
        self.root = require_folder(
            Path(root), self.name, "dfd_dataset_indoor_N2_8/ and dfd_dataset_indoor_N8/"
        )
        self.split = split
        self.aperture = aperture
        self.pairing = pair
        self.lens = LENS_PRESETS["dslr"]
        if aperture != "N2_8":
            self.lens = replace(self.lens, f_number=APERTURES[aperture])
        images = self._files(aperture, "rgb", ".jpg")
        depths = self._files(aperture, "depth", ".png")
        self.pairs = (pair_in_order if pair == "order" else pair_by_time)(images, depths)
        if not self.pairs:
            raise DatasetError(
                f"{self.name} {split}: expected images and depth maps taken within "
                f"{MAX_TIME_GAP_S} s of each other, got no such pair among {len(images)} images "
                f"and {len(depths)} depth maps"
            )
        self.frame_names = [image.stem for image, _ in self.pairs]
        self._sharp: dict[Path, Path] = {}
        if sharp and aperture != "N8":
            self._sharp = dict(pair_by_time(images, self._files("N8", "rgb", ".jpg")))

    def _files(self, aperture: str, kind: str, suffix: str) -> list[Path]:
        """The files of one kind, in the order of their times."""
        folder = self.root / f"dfd_dataset_indoor_{aperture}" / kind / self.split
        content = f"{suffix} files; its layout is dfd_dataset_indoor_{{N2_8,N8}}/{{rgb,depth}}/"
        require_folder(folder, f"{self.name} {self.split}", content + "{train,test}")
        files = [path for path in folder.iterdir() if path.suffix.lower() == suffix]
        if not files:
            raise DatasetError(f"{self.name}: expected {suffix} files in {folder}, got none")
        return sorted(files, key=stamp_s)

    def scene_of(self, index: int) -> str:
        """The view, by its depth map, which serves both apertures."""
        return self.pairs[index][1].stem

    def settings(self) -> tuple[str, ...]:
        """The aperture, and the pairing where it is not the usual one."""
        return (self.aperture, *(() if self.pairing == "order" else (self.pairing,)))

    def read(self, index: int) -> RgbdSample:
        """Read pair ``index``: images uint8 ``[432, 645, 3]``, depth float32 ``[432, 645]``."""
        image_path, depth_path = self.pairs[index]
        image = read_rgb(image_path)
        millimetres = read_raw(depth_path)
        if image.shape[:2] != millimetres.shape or millimetres.dtype != np.uint16:
            raise DatasetError(
                f"{self.name} {image_path.name}: expected a 16-bit depth map of the image's size "
                f"{image.shape[:2]}, got {millimetres.dtype} {millimetres.shape}"
            )
        depth_m = millimetres.astype(np.float32) / 1000
        depth_m[millimetres == 0] = np.nan
        sharp = self._sharp.get(image_path)
        return RgbdSample(
            name=image_path.stem,
            depth_m=depth_m,
            sharp_rgb=image if self.aperture == "N8" else read_rgb(sharp) if sharp else None,
            defocused_rgb=image,
            lens=self.lens,
        )
