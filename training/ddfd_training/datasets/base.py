"""What every dataset is, whatever its layout on disk, and how its files are listed and read."""

from __future__ import annotations

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar, overload

import cv2
import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.sample import DepthOrder, RgbdSample, unknown_depth

__all__ = [
    "DepthOrder",
    "ReadSequence",
    "RgbdDataset",
    "RgbdSample",
    "files_in",
    "pair_by_stem",
    "read_color",
    "read_raw",
    "read_rgb",
    "require_folder",
    "unknown_depth",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

T_co = TypeVar("T_co", covariant=True)


class ReadSequence(Sequence[T_co]):
    """A sequence whose items are made when asked for: subclasses say how many, and make one."""

    @abstractmethod
    def read(self, index: int) -> T_co:
        """Make item ``index``, counted from 0; only called with numbers that exist."""

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        """Item ``index``, counted from the end if negative; or a list of items."""
        if isinstance(index, slice):
            return [self.read(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index}")
        return self.read(index % len(self))


PARTS_OF_RECORDING = 20


class RgbdDataset(ReadSequence[RgbdSample]):
    """A data set: views of scenes, read when asked for.

    Attributes:
        name: The name by which recipes and command lines call it.
        splits: The splits it has; the first is the one meant if none is named.
        blur: ``rendered`` if its images are sharp and have depth, so that defocus is simulated;
            ``natural`` if its images are to be used as they are.
        registered: Whether the sharp and the defocused image show each thing at the same pixel.
        in_memory: Whether all its images have one size and fit into memory together.
        has_depth: Whether it has metric depth.
        truths: What else it knows: some of ``defocus``, ``blurred``, ``dual``, ``order``.
        defocus_unit: What the numbers of ``RgbdSample.defocus`` are.
        clip_m: Range that depths are clipped to before errors are counted, or ``None``.
        frame_names: The names of all its samples in order, known without reading them.
        sensor_range_m: The reach of the depth sensor: errors up to it are reported apart.
    """

    name: ClassVar[str] = "dataset"
    splits: ClassVar[tuple[str, ...]] = ("all",)
    blur: str = "natural"
    registered: bool = True
    in_memory: ClassVar[bool] = False
    has_depth: ClassVar[bool] = True
    truths: tuple[str, ...] = ()
    defocus_unit: ClassVar[str] = ""
    clip_m: ClassVar[tuple[float, float] | None] = None
    sensor_range_m: ClassVar[float | None] = None
    frame_names: Sequence[str]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.frame_names)

    @property
    def key(self) -> str:
        """Digest of what is in the set, so that caches tell sets of one size apart."""
        content = [self.name, *self.settings(), *self.frame_names]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def settings(self) -> tuple[str, ...]:
        """What besides the names of the frames decides what is read, for the key."""
        return ()

    def frame_size(self) -> tuple[int, int]:
        """Height and width of the camera's whole frames; a set that cuts its images knows them.

        A calibration is for a size of those: what is cut away leaves pixels as they are.

        Raises:
            DatasetError: The first sample cannot be read.
        """
        sample = self[0]
        image = sample.sharp_rgb if sample.defocused_rgb is None else sample.defocused_rgb
        height, width = (sample.depth_m if image is None else image).shape[:2]
        return height, width

    def scene_of(self, index: int) -> str:
        """Name of the scene that sample ``index`` shows, by default a scene of its own.

        Samples of one scene look alike, so a validation needs scenes that training has not seen.
        """
        return self.frame_names[index]

    def check_split(self, split: str) -> str:
        """Return ``split`` if the set has it.

        Raises:
            DatasetError: It has others.
        """
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise DatasetError(f"{self.name}: split: expected one of {known}, got {split!r}")
        return split


def part_of_recording(index: int, count: int) -> str:
    """Which twentieth of a recording frame ``index`` of ``count`` is in.

    Frames that follow each other look alike, and where one scene ends nobody has noted: a
    validation on whole parts sees little that training has seen, at their borders only.
    """
    return f"part {index * PARTS_OF_RECORDING // max(count, PARTS_OF_RECORDING)}"


def require_folder(path: Path, dataset: str, content: str) -> Path:
    """Return ``path`` if it is a folder, else say what ``dataset`` keeps there.

    Raises:
        DatasetError: The folder is missing.
    """
    if not path.is_dir():
        raise DatasetError(
            f"{dataset}: expected a folder {path} with {content}, found none; "
            f"give the dataset's top folder as root"
        )
    return path


def first_folder(candidates: Iterable[Path], dataset: str, content: str) -> Path:
    """The first of ``candidates`` that is a folder: sets are unpacked in more ways than one.

    Raises:
        DatasetError: None is.
    """
    tried = list(candidates)
    found = next((path for path in tried if path.is_dir()), None)
    if found is None:
        places = " or ".join(str(path) for path in tried)
        raise DatasetError(
            f"{dataset}: expected a folder {places} with {content}, found none; "
            "give the dataset's top folder as root"
        )
    return found


def files_in(
    folder: Path, dataset: str, suffixes: Sequence[str] = IMAGE_SUFFIXES, pattern: str = "*"
) -> list[Path]:
    """Files of a folder with one of the suffixes in any case, sorted by name; no hidden ones.

    Raises:
        DatasetError: There is none.
    """
    files = shown_files(folder, suffixes, pattern)
    if not files:
        raise DatasetError(
            f"{dataset}: expected files {pattern} of type {', '.join(suffixes)} in {folder}, "
            "got none"
        )
    return files


def shown_files(folder: Path, suffixes: Sequence[str], pattern: str = "*") -> list[Path]:
    """As :func:`files_in`, perhaps none: macOS leaves a ``._NAME.jpg`` beside what it copies."""
    found = (p for p in folder.glob(pattern) if not p.name.startswith("."))
    return sorted(p for p in found if p.suffix.lower() in suffixes)


def counted(name: str) -> tuple[str | int, ...]:
    """By what names are sorted in the order of their numbers: ``frame9`` before ``frame10``."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts))


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by name without suffix.

    Raises:
        DatasetError: Two files have one name.
    """
    found: dict[str, Path] = {}
    for path in files:
        if other := found.get(path.stem):
            raise DatasetError(
                f"{path.parent}: expected one file of each name, got {other.name} and "
                f"{path.name}; take the one that is not meant out of the folder"
            )
        found[path.stem] = path
    return found


def pair_by_stem(first: Path, second: Path, dataset: str) -> dict[str, tuple[Path, Path]]:
    """Images of two folders that have one name (but maybe another suffix), in order.

    Raises:
        DatasetError: A folder is empty, or no names agree.
    """
    left, right = (by_stem(files_in(folder, dataset)) for folder in (first, second))
    common = {stem: (path, right[stem]) for stem, path in left.items() if stem in right}
    if not common:
        raise DatasetError(
            f"{dataset}: expected files of one name in {first} and {second}, got {len(left)} and "
            f"{len(right)} files without a common name, such as {next(iter(left))} and "
            f"{next(iter(right))}"
        )
    return common


def same_size(name: str, **images: np.ndarray | None) -> None:
    """Check that images and maps of one sample have one height and width.

    Raises:
        DatasetError: They differ.
    """
    sizes = {what: image.shape[:2] for what, image in images.items() if image is not None}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{what} {size}" for what, size in sizes.items())
        raise DatasetError(f"{name}: expected images and maps of one size, got {listed}")


def read_color(path: Path) -> np.ndarray:
    """Read a colour image as RGB ``[H, W, 3]``, uint8 or uint16 as it is stored.

    Raises:
        DatasetError: The file is missing or no such image.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None or image.dtype not in (np.uint8, np.uint16) or not is_whole(path):
        raise DatasetError(f"expected a readable colour image at {path}, got none or a broken one")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_rgb(path: Path) -> np.ndarray:
    """Read a colour image as uint8 ``[H, W, 3]`` RGB.

    Raises:
        DatasetError: The file is missing or no image.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None or not is_whole(path):
        raise DatasetError(f"expected a readable colour image at {path}, got none or a broken one")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def is_whole(path: Path) -> bool:
    """Whether a JPEG has its end; OpenCV paints what is missing grey. Others count as whole.

    ISO/IEC 10918-1, annex B: segments with their lengths (an EXIF segment may hold another JPEG,
    with an end of its own), the scan, in which FF D9 cannot occur, and FF D9.
    """
    data = path.read_bytes() if path.suffix.lower() in (".jpg", ".jpeg") else b""
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda":
        padded = data[place + 1 : place + 2] == b"\xff"
        place += 1 if padded else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data[:2] != b"\xff\xd8" or data.find(b"\xff\xd9", place) >= 0


def read_raw(path: Path) -> np.ndarray:
    """Read a one-channel image of any depth, unchanged, as ``[H, W]``.

    Raises:
        DatasetError: The file is missing, no image, or has several channels.
    """
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DatasetError(f"expected a readable depth image at {path}, got none or a broken one")
    if image.ndim != 2:
        raise DatasetError(
            f"expected one channel of depth in {path}, got shape {image.shape}; "
            f"a colour-coded picture of depth cannot be used"
        )
    return image
