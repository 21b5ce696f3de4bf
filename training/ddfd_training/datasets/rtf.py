"""RTF: 22 light-field images with natural blur, its measured map and sharp truth.

The test set of D'Andres et al. 2016 (regression tree fields). Two layouts are about: the authors'
``image/{0,1.6}/NAME`` (the numbers are the strength of added noise) with ``GT/NAME`` sharp images,
and that of the defocus-map literature, ``test/RTF/{image,gt}`` with ``gt/NAME.mat`` whose
``blurMap`` is the blur on the authors' own scale (the size of their calibrated kernel, not the
standard deviation of a Gaussian). Both are read as they are; ``gt`` may hold either.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import (
    IMAGE_SUFFIXES,
    RgbdDataset,
    RgbdSample,
    by_stem,
    files_in,
    first_folder,
    read_color,
    same_size,
    unknown_depth,
)

_LAYOUT = "image/ (or image/0/) and GT/ or gt/"
_TRUTH_FOLDERS = ("GT", "gt")


class Rtf(RgbdDataset):
    """Natural blur with a sharp image, a defocus map, or both.

    Args:
        root: The folder with ``image``, or one that holds ``RTF``, ``RTFDataset`` or ``test/RTF``.
        split: ``test``, all there is.
        noise: Which of the authors' noise folders: ``0`` or ``1.6``.

    Raises:
        DatasetError: The layout is another one, or an image has no truth.
    """

    name = "rtf"
    splits = ("test",)
    has_depth = False
    truths = ("defocus",)
    defocus_unit = "scale of the authors' kernels"

    def __init__(self, root: str | Path, split: str = "test", *, noise: str = "0") -> None:
        """List and pair the files; images are read when asked for."""
        self.check_split(split)
        self._noise = noise
        tops = [Path(root) / part for part in ("", "RTF", "RTFDataset", "test/RTF")]
        images = first_folder((top / "image" for top in tops), self.name, f"images: {_LAYOUT}")
        top = images.parent
        if (images / noise).is_dir():
            images = images / noise
        self.images = by_stem(files_in(images, self.name))
        self.sharp, self.maps = _truths(top, noise)
        self.frame_names = [
            stem for stem in self.images if stem in self.sharp or stem in self.maps
        ]
        if not self.frame_names:
            raise DatasetError(
                f"{self.name}: expected sharp images or blurMap files of the images' names in "
                f"{top}/GT or {top}/gt, got {len(self.sharp)} and {len(self.maps)} files without "
                f"a common name, images such as {next(iter(self.images))}"
            )

    def settings(self) -> tuple[str, ...]:
        """The noise."""
        return (self._noise,)

    def read(self, index: int) -> RgbdSample:
        """Read image ``index`` ``[H, W, 3]`` with what is known of it."""
        name = self.frame_names[index]
        image = read_color(self.images[name])
        sharp = read_color(self.sharp[name]) if name in self.sharp else None
        defocus = _blur_map(self.maps[name]) if name in self.maps else None
        if defocus is not None:  # the maps lack some rows and columns at the far edges
            defocus = _grown(defocus, image.shape[:2])
        same_size(f"{self.name} {name}", image=image, sharp=sharp)
        return RgbdSample(
            name=name,
            depth_m=unknown_depth(image),
            sharp_rgb=sharp,
            defocused_rgb=image,
            defocus=defocus,
        )


def _truths(top: Path, noise: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Sharp images and blur maps by name, from whichever folders there are."""
    folders = [top / name / part for name in _TRUTH_FOLDERS for part in ("", noise)]
    files = sorted({path for folder in folders if folder.is_dir() for path in folder.iterdir()})
    sharp = {path.stem: path for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    return sharp, {path.stem: path for path in files if path.suffix.lower() == ".mat"}


def _blur_map(path: Path) -> np.ndarray:
    """The map of a MATLAB file, float32 ``[h, w]``."""
    from scipy.io import loadmat

    try:
        values = np.asarray(loadmat(path, variable_names=["blurMap"])["blurMap"])
    except (OSError, KeyError, ValueError, NotImplementedError):
        raise DatasetError(f"rtf: expected {path} with blurMap, got none") from None
    if values.ndim != 2:
        raise DatasetError(f"{path}: expected blurMap [H, W], got {values.shape}")
    return values.astype(np.float32)


def _grown(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The map cut or filled up with NaN at the lower and right edge to ``shape``."""
    result = np.full(shape, np.nan, dtype=np.float32)
    rows, columns = (min(a, b) for a, b in zip(shape, values.shape, strict=True))
    result[:rows, :columns] = values[:rows, :columns]
    return result
