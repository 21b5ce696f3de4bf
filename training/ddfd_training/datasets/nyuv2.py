"""NYU Depth v2, the labelled set, as folders of images (Silberman et al. 2012)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import (
    RgbdDataset,
    RgbdSample,
    read_raw,
    read_rgb,
    require_folder,
)

CROP = (slice(45, 471), slice(41, 601))
"""Rows and columns inside the white frame of the 640x480 images: the toolbox's crop, 426x560."""
DEPTH_STEP_M = 9.99547 / 255
"""Depth per grey level of the 8-bit depth images; level v covers [v, v + 1) steps."""
CLIP_M = (0.5, 10.0)
"""Depths that errors are counted on; the sensor reaches no farther."""
INTRINSICS_640X480 = (518.86, 519.47, 325.58, 253.74)
"""fx, fy, cx, cy of the colour camera in pixels, before the crop."""
_LONGEST_RUN = 40


def scenes_by_run(frames: Iterable[int]) -> dict[int, int]:
    """For each frame the first one of its run of consecutive numbers, which stands for the scene.

    The official order keeps a scene's frames together, and the official split keeps scenes whole:
    where the numbers of a split jump, another scene begins. A run holds one scene or several, and
    no scene lies in two. Runs longer than any of the official splits' (34) are those of a list of
    one's own; they are cut, and there a scene may lie on both sides.
    """
    first: dict[int, int] = {}
    for frame in sorted(frames):
        start = first.get(frame - 1, frame)
        first[frame] = start if frame - start < _LONGEST_RUN else frame
    return first


class Nyuv2(RgbdDataset):
    """Sharp indoor images with depth.

    The layout is ``rgb/NNNN.jpg`` (640x480), ``depth/NNNN.png`` (8 bit) and ``<split>.txt`` with
    one frame number a line.

    Args:
        root: The folder that holds ``rgb``, ``depth`` and the split files.
        split: ``train`` (795 frames of the official split) or ``test``.
        crop: Cut away the white frame (426x560 remain).

    Raises:
        DatasetError: The layout is not the one above, or a listed file is missing.
    """

    name = "nyuv2"
    splits = ("train", "test")
    blur = "rendered"
    clip_m = CLIP_M

    def __init__(self, root: str | Path, split: str = "train", *, crop: bool = True) -> None:
        """Read the list of frames; images are read when asked for."""
        self.root = require_folder(Path(root), self.name, "rgb/, depth/, train.txt, test.txt")
        for folder in ("rgb", "depth"):
            require_folder(self.root / folder, self.name, "images named by frame number")
        listing = self.root / f"{split}.txt"
        if not listing.is_file():
            known = sorted(path.stem for path in self.root.glob("*.txt"))
            raise DatasetError(
                f"{self.name}: expected the list of frames {listing}, found none; "
                f"splits here: {', '.join(known) or 'none'}"
            )
        self.split = split
        self.frame_names = self.frames = listing.read_text(encoding="ascii").split()
        self._crop = crop

    def settings(self) -> tuple[str, ...]:
        """Whether cropped."""
        return (str(self._crop),)

    def frame_size(self) -> tuple[int, int]:
        """Height and width before the crop."""
        height, width = read_rgb(self.root / "rgb" / f"{self.frames[0]}.jpg").shape[:2]
        return height, width

    def scene_of(self, index: int) -> str:
        """The run of frames that ``index`` is in, see :func:`scenes_by_run`."""
        frame = self.frames[index]
        return str(self._scenes[int(frame)]) if frame.isdecimal() else frame

    @cached_property
    def _scenes(self) -> dict[int, int]:
        return scenes_by_run(int(frame) for frame in self.frames if frame.isdecimal())

    def read(self, index: int) -> RgbdSample:
        """Read frame ``index``: sharp image uint8 ``[H, W, 3]``, depth float32 ``[H, W]``."""
        frame = self.frames[index]
        rgb = read_rgb(self.root / "rgb" / f"{frame}.jpg")
        levels = read_raw(self.root / "depth" / f"{frame}.png")
        if rgb.shape[:2] != levels.shape:
            raise DatasetError(
                f"{self.name} frame {frame}: expected image and depth of one size, "
                f"got {rgb.shape[:2]} and {levels.shape}"
            )
        # The middle of the level's interval: the depth was rounded down when it was stored.
        depth_m = ((levels.astype(np.float32) + 0.5) * np.float32(DEPTH_STEP_M)).astype(np.float32)
        if self._crop:
            rgb, depth_m = rgb[CROP], depth_m[CROP]
        return RgbdSample(name=frame, depth_m=depth_m, sharp_rgb=np.ascontiguousarray(rgb))
