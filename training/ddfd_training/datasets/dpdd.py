"""DPDD: dual-pixel photographs, defocused and sharp (Abuolaim and Brown 2020).

``dd_dp_dataset_canon/{train,val,test}_{c,l,r}/{source,target}``, 16-bit PNG of 1680x1120. ``c`` is
the photograph as the camera shows it, ``l`` and ``r`` what the left and the right half of each
pixel saw; ``source`` is defocused, ``target`` sharp. Source and target have different names (the
shots have numbers of their own): they pair in sorted order, and a missing file would shift all
that follow, so that the counts are compared first.
"""

from __future__ import annotations

from pathlib import Path

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import (
    RgbdDataset,
    RgbdSample,
    files_in,
    first_folder,
    read_color,
    same_size,
    unknown_depth,
)

_LAYOUT = "{train,val,test}_{c,l,r}/{source,target}"
_CANON, _PNG = "dd_dp_dataset_canon", "dd_dp_dataset_png"
_UNPACKED = ("", _CANON, _PNG, f"{_CANON}/{_PNG}")


class Dpdd(RgbdDataset):
    """Natural pairs without depth, 16 bit.

    Args:
        root: The folder with ``train_c`` and so on, or the one that holds it.
        split: ``train`` (350 pairs), ``val`` (74) or ``test`` (76).
        views: Also read the left and the right dual-pixel view.

    Raises:
        DatasetError: The layout is another one, or the folders' numbers of images differ.
    """

    name = "dpdd"
    splits = ("train", "val", "test")
    has_depth = False

    def __init__(self, root: str | Path, split: str = "train", *, views: bool = False) -> None:
        """List and pair the files; images are read when asked for."""
        self.check_split(split)
        self.views = views
        self.truths = ("dual",) if views else ()
        folders = [Path(root) / part / f"{split}_c" for part in _UNPACKED]
        centre = first_folder(folders, self.name, f"source/ and target/; its layout is {_LAYOUT}")
        kinds = [centre / "source", centre / "target"]
        if views:
            kinds += [centre.with_name(f"{split}_{side}") / "source" for side in "lr"]
        lists = [
            files_in(first_folder((kind,), self.name, _LAYOUT), self.name, (".png", ".tif"))
            for kind in kinds
        ]
        if len({len(files) for files in lists}) > 1:
            counts = ", ".join(
                f"{len(files)} in {kind}" for kind, files in zip(kinds, lists, strict=True)
            )
            raise DatasetError(
                f"{self.name}: expected as many images in each folder, because they pair in "
                f"sorted order, got {counts}; fetch the set again"
            )
        self.groups = list(zip(*lists, strict=True))
        self.frame_names = [group[0].stem for group in self.groups]

    def settings(self) -> tuple[str, ...]:
        """Whether with views."""
        return (str(self.views),)

    def read(self, index: int) -> RgbdSample:
        """Read pair ``index``: images uint16 ``[1120, 1680, 3]`` (uint8 if stored so)."""
        source, target, *sides = (read_color(path) for path in self.groups[index])
        name = self.frame_names[index]
        views = dict(zip(("left", "right"), sides, strict=False))
        same_size(f"{self.name} {name}", source=source, target=target, **views)
        if source.dtype != target.dtype:
            raise DatasetError(
                f"{self.name} {name}: expected source and target of one bit depth, got "
                f"{source.dtype} and {target.dtype}"
            )
        return RgbdSample(
            name=name,
            depth_m=unknown_depth(source),
            sharp_rgb=target,
            defocused_rgb=source,
            dual_rgb=(sides[0], sides[1]) if sides else None,
        )
