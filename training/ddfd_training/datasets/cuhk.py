"""CUHK blur detection: photographs in which a person marked what is blurred (Shi et al. 2014).

``image/out_of_focus0001.jpg`` (704 of them) and ``image/motion0001.jpg`` (296), masks of the same
name in ``gt/*.png``. Readers of the set disagree about whether white is the blurred part or the
sharp one, because some hand-outs of it are inverted. So the loader looks: fine contrast is lower
in the blurred part. It compares the two parts in a few images and takes the majority.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import (
    RgbdDataset,
    RgbdSample,
    first_folder,
    pair_by_stem,
    read_rgb,
    same_size,
    unknown_depth,
)

KINDS = {"defocus": "out_of_focus", "motion": "motion", "both": ""}
LOOK_AT = 9
TEST_COUNT = 100
_FINE_PX = 1.5


def _for_testing(names: Collection[str]) -> set[str]:
    """The last images of each kind, whichever kinds are asked for: no split holds another's."""
    test: set[str] = set()
    for kind in filter(None, KINDS.values()):
        own = [name for name in names if name.startswith(kind)]
        test |= set(own[-TEST_COUNT:] if len(own) > TEST_COUNT else [])
    return test


class Cuhk(RgbdDataset):
    """Photographs with masks of blur; no depth, no sharp truth.

    Args:
        root: The folder with ``image`` and ``gt``, or with ``train`` and ``test`` of that kind.
        split: ``train``, ``test`` or ``all``. Without folders of these names the last hundred
            images of each kind are for testing, as in most of the literature.
        kind: ``defocus``, ``motion`` or ``both``.
        white_is: What white in a mask means: ``blurred``, ``sharp``, or ``auto`` to find out.

    Attributes:
        white_is: ``blurred`` or ``sharp``, as given or found.

    Raises:
        DatasetError: The layout is another one.
    """

    name = "cuhk"
    splits = ("train", "test", "all")
    has_depth = False
    truths = ("blurred",)

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        kind: str = "defocus",
        white_is: str = "auto",
    ) -> None:
        """List and pair the files, and look at some masks if ``white_is`` is ``auto``."""
        self.split = self.check_split(split)
        if kind not in KINDS:
            raise DatasetError(f"{self.name}: kind: expected {', '.join(KINDS)}, got {kind!r}")
        if white_is not in ("auto", "blurred", "sharp"):
            raise DatasetError(
                f"{self.name}: white_is: expected auto, blurred or sharp, got {white_is!r}"
            )
        base = Path(root)
        images = first_folder((base / split / "image", base / "image"), self.name, "image/, gt/")
        masks = first_folder((images.with_name("gt"),), self.name, "the masks")
        pairs = pair_by_stem(images, masks, self.name)
        self.files = {name: pair for name, pair in pairs.items() if name.startswith(KINDS[kind])}
        if images.parent == base and split != "all":
            test = _for_testing(pairs)
            self.files = {n: p for n, p in self.files.items() if (n in test) == (split == "test")}
        if not self.files:
            raise DatasetError(
                f"{self.name}: expected images {KINDS[kind]}*.jpg for the split {split} in "
                f"{images}, got none of the {len(pairs)} there"
            )
        self.frame_names = list(self.files)
        self.white_is = self._look() if white_is == "auto" else white_is

    def settings(self) -> tuple[str, ...]:
        """What white means."""
        return (self.white_is,)

    def _read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 ``[H, W, 3]`` and where its mask is white, bool ``[H, W]``."""
        image_path, mask_path = self.files[name]
        image = read_rgb(image_path)
        white = read_rgb(mask_path)[..., 0] > 127
        same_size(f"{self.name} {name}", image=image, mask=white)
        return image, white

    def _look(self) -> str:
        """What white means, by majority of a few images: there is less fine contrast in blur."""
        votes = 0
        for name in self.frame_names[:: max(len(self.frame_names) // LOOK_AT, 1)][:LOOK_AT]:
            image, white = self._read(name)
            gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
            fine = np.abs(gray - cv2.GaussianBlur(gray, (0, 0), _FINE_PX))
            if 0 < white.mean() < 1:
                votes += 1 if fine[white].mean() < fine[~white].mean() else -1
        return "sharp" if votes < 0 else "blurred"

    def read(self, index: int) -> RgbdSample:
        """Read image ``index``: uint8 ``[H, W, 3]``, its mask bool ``[H, W]``, true in blur."""
        name = self.frame_names[index]
        image, white = self._read(name)
        return RgbdSample(
            name=name,
            depth_m=unknown_depth(image),
            defocused_rgb=image,
            blurred=white if self.white_is == "blurred" else ~white,
        )
