"""D3-Net's outdoor photographs: natural defocus without depth (Carvalho et al. 2018, section 5).

``dfd_n28`` was taken wide open, ``dfd_n8`` stopped down. The names of the two folders differ and
their numbers of images too: they are not pairs, but two walks through one place.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.datasets.base import (
    RgbdDataset,
    RgbdSample,
    files_in,
    read_rgb,
    require_folder,
    unknown_depth,
)

FOLDERS = {"N2_8": ("dfd_n28", 2.8), "N8": ("dfd_n8", 8.0)}
_PRESET_WIDTH = 645


class DfdOutdoor(RgbdDataset):
    """Photographs to look at the answers for; nothing is known of their depth.

    Args:
        root: Folder with ``dfd_n28`` and ``dfd_n8``.
        split: ``all``.
        aperture: ``N2_8`` or ``N8``.

    Raises:
        DatasetError: The layout is another one.
    """

    name = "dfd_outdoor"
    has_depth = False

    def __init__(self, root: str | Path, split: str = "all", *, aperture: str = "N2_8") -> None:
        """List the files; images are read when asked for."""
        self.check_split(split)
        if aperture not in FOLDERS:
            raise DatasetError(
                f"{self.name}: aperture: expected one of {', '.join(FOLDERS)}, got {aperture!r}"
            )
        folder, self._f_number = FOLDERS[aperture]
        top = require_folder(Path(root), self.name, "dfd_n28/ and dfd_n8/")
        self.files = files_in(
            require_folder(top / folder, self.name, "JPEG images"), self.name, (".jpg", ".jpeg")
        )
        self.frame_names = [path.stem for path in self.files]

    def settings(self) -> tuple[str, ...]:
        """The aperture."""
        return (str(self._f_number),)

    def read(self, index: int) -> RgbdSample:
        """Read image ``index``: uint8 ``[864, 1290, 3]``; depth is unknown everywhere."""
        image = read_rgb(self.files[index])
        preset = LENS_PRESETS["dslr"]  # given for images 645 pixels wide
        lens = replace(preset, pixel_pitch_m=preset.pixel_pitch_m * _PRESET_WIDTH / image.shape[1])
        if self._f_number == 8.0:
            lens = replace(lens, f_number=8.0)
        return RgbdSample(
            name=self.files[index].stem,
            depth_m=unknown_depth(image),
            defocused_rgb=image,
            lens=lens,
        )
