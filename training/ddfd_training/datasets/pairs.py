"""Sets that are nothing but defocused images with sharp ones of the same name."""

from __future__ import annotations

from pathlib import Path

from ddfd_training.datasets.base import (
    RgbdDataset,
    RgbdSample,
    pair_by_stem,
    read_color,
    same_size,
    unknown_depth,
)


class NamedPairs(RgbdDataset):
    """Natural pairs without depth, by name; subclasses say which folders."""

    has_depth = False

    def __init__(self, defocused: Path, sharp: Path) -> None:
        """List and pair the files; images are read when asked for."""
        self.files = pair_by_stem(defocused, sharp, self.name)
        self.frame_names = list(self.files)

    def read(self, index: int) -> RgbdSample:
        """Read pair ``index``: images ``[H, W, 3]``, uint8 or uint16 as stored."""
        name = self.frame_names[index]
        defocused, sharp = (read_color(path) for path in self.files[name])
        same_size(f"{self.name} {name}", defocused=defocused, sharp=sharp)
        return RgbdSample(
            name=name,
            depth_m=unknown_depth(defocused),
            sharp_rgb=sharp,
            defocused_rgb=defocused,
        )
