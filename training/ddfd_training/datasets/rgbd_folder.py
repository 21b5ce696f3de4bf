"""Any RGB-D recording as folders: ``rgb/``, ``depth/`` and, if there is one, ``sharp/``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.datasets.base import (
    ReadSequence,
    RgbdSample,
    read_raw,
    read_rgb,
    require_folder,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DEPTH_SUFFIXES = (".npy", ".png", ".tif", ".tiff")
INTRINSICS_FILES = ("camera-intrinsics.txt", "intrinsics.txt")


def read_depth_m(path: Path, unit_m: float = 1e-3) -> np.ndarray:
    """Read a depth map as float32 ``[H, W]`` in metres, NaN where unknown (0, NaN or infinite).

    Args:
        path: ``.npy`` or floating-point ``.tif`` in metres, or a 16-bit image.
        unit_m: Metres per step of a 16-bit image.

    Raises:
        DatasetError: The file is broken, 8 bit, or not one channel.
    """
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"expected an array of depths in metres at {path}: {error}"
            ) from None
    else:
        values = read_raw(path)
    values = np.squeeze(values)
    if values.ndim != 2 or not (values.dtype == np.uint16 or values.dtype.kind == "f"):
        raise DatasetError(
            f"{path}: expected depth [H, W] as 16-bit integers (steps of {unit_m} m) or as "
            f"floating-point metres, got {values.dtype} {values.shape}"
        )
    scale = unit_m if values.dtype == np.uint16 else 1.0
    depth_m = values.astype(np.float32) * np.float32(scale)
    depth_m[~np.isfinite(depth_m) | (depth_m <= 0)] = np.nan
    return depth_m


def read_intrinsics(root: Path) -> tuple[float, float, float, float] | None:
    """Read fx, fy, cx, cy in pixels from a 3x3 matrix or four numbers in a text file, if any.

    Raises:
        DatasetError: The file holds something else.
    """
    path = next((root / name for name in INTRINSICS_FILES if (root / name).is_file()), None)
    if path is None:
        return None
    try:
        numbers = [float(word) for word in path.read_text(encoding="utf-8").split()]
    except ValueError:
        numbers = []
    if len(numbers) == 9:
        numbers = [numbers[0], numbers[4], numbers[2], numbers[5]]
    if len(numbers) != 4:
        raise DatasetError(
            f"{path}: expected a 3x3 camera matrix or the four numbers fx fy cx cy in pixels, got "
            f"{len(numbers)} numbers"
        )
    return (numbers[0], numbers[1], numbers[2], numbers[3])


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files of the folder by name without suffix, in order."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    return {path.stem: path for path in files}


class RgbdFolder(ReadSequence[RgbdSample]):
    """RGB-D frames in folders, files of one frame having one name.

    ``rgb/NAME.{jpg,png,...}`` and ``depth/NAME.{png,npy,tif}`` (16-bit millimetres or metres), and
    optionally ``sharp/NAME.*``, the all-in-focus images of the same views.

    Args:
        root: Folder that holds them; may hold ``camera-intrinsics.txt``.
        rgb_is: What ``rgb/`` shows: ``defocused``, ``sharp``, or ``auto``: defocused where there
            is a ``sharp/`` folder, else sharp (blur it with the optics simulator).
        lens: The lens that took the defocused images, if known.
        depth_unit_m: Metres per step of a 16-bit depth image.

    Attributes:
        intrinsics: fx, fy, cx, cy in pixels, or ``None``.
        skipped: Names of images without depth (or depth without image), which are left out.

    Raises:
        DatasetError: The layout is another one, or no names agree.
    """

    name = "folder"

    def __init__(
        self,
        root: str | Path,
        *,
        rgb_is: str = "auto",
        lens: LensConfig | None = None,
        depth_unit_m: float = 1e-3,
    ) -> None:
        """List the files; images are read when asked for."""
        if rgb_is not in ("auto", "sharp", "defocused"):
            raise DatasetError(f"rgb_is: expected auto, sharp or defocused, got {rgb_is!r}")
        self.root = require_folder(Path(root), "RGB-D folder", "rgb/, depth/ and maybe sharp/")
        self._depth_unit_m = depth_unit_m
        self.lens = lens
        self._rgb = _by_stem(
            require_folder(self.root / "rgb", "RGB-D folder", "colour images"), IMAGE_SUFFIXES
        )
        self._depth = _by_stem(
            require_folder(self.root / "depth", "RGB-D folder", "16-bit PNG or .npy depth"),
            DEPTH_SUFFIXES,
        )
        sharp = self.root / "sharp"
        self._sharp = _by_stem(sharp, IMAGE_SUFFIXES) if sharp.is_dir() else {}
        self.rgb_is = rgb_is
        if rgb_is == "auto":
            self.rgb_is = "defocused" if self._sharp else "sharp"
        self.frames = [stem for stem in self._rgb if stem in self._depth]
        self.skipped = sorted(set(self._rgb) ^ set(self._depth))
        self.intrinsics = read_intrinsics(self.root)
        if not self.frames:
            raise DatasetError(
                f"{self.root}: expected files of one name in rgb/ and depth/ (rgb/0001.jpg, "
                f"depth/0001.png), got {len(self._rgb)} images and {len(self._depth)} depth maps "
                f"and no common name; for example {self.skipped[:4]}"
            )

    def __len__(self) -> int:
        """Number of frames with image and depth."""
        return len(self.frames)

    def read(self, index: int) -> RgbdSample:
        """Read frame ``index``: images uint8 ``[H, W, 3]``, depth float32 ``[H, W]``."""
        stem = self.frames[index]
        rgb = read_rgb(self._rgb[stem])
        depth_m = read_depth_m(self._depth[stem], self._depth_unit_m)
        sharp = read_rgb(self._sharp[stem]) if stem in self._sharp else None
        for what, image in (("depth map", depth_m), ("sharp image", sharp)):
            if image is not None and image.shape[:2] != rgb.shape[:2]:
                raise DatasetError(
                    f"{self.root} frame {stem}: expected image and {what} of one size, got "
                    f"{rgb.shape[:2]} and {image.shape[:2]}; register them to the image first"
                )
        is_sharp = self.rgb_is == "sharp"
        return RgbdSample(
            name=stem,
            depth_m=depth_m,
            sharp_rgb=rgb if is_sharp else sharp,
            defocused_rgb=None if is_sharp else rgb,
            lens=self.lens,
        )
