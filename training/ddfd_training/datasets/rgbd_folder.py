"""Any RGB-D recording as folders: ``rgb/``, ``depth/`` and, if there is one, ``sharp/``."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.datasets.base import (
    IMAGE_SUFFIXES,
    RgbdDataset,
    RgbdSample,
    by_stem,
    counted,
    part_of_recording,
    read_color,
    read_raw,
    require_folder,
    same_size,
    shown_files,
    unknown_depth,
)
from ddfd_training.optics_options import RenderOptions

DEPTH_SUFFIXES = (".npy", ".png", ".tif", ".tiff")
INTRINSICS_FILES = ("camera-intrinsics.txt", "intrinsics.txt")
LENS_FILE = "lens.json"
REGISTRATION_FILE = "registration.json"
FRAME_FOLDERS = ("rgb", "sharp", "depth")
MAX_MILLIMETRES = 65535
LEAST_MEDIAN_M = 0.02
"""No camera sees most of a picture nearer than this: such steps are not those asked for."""
MOST_NEAREST_M = 200.0
"""Defocus tells nothing of a scene that begins beyond: such numbers are millimetres."""


def read_depth_m(path: Path, unit_m: float = 1e-3) -> np.ndarray:
    """Read a depth map as float32 ``[H, W]`` in metres, NaN where unknown (0, NaN or infinite).

    Args:
        path: ``.npy`` or floating-point ``.tif`` in metres, or a 16-bit image.
        unit_m: Metres per step of a 16-bit image.

    Raises:
        DatasetError: The file is broken, 8 bit, or not one channel; or its numbers can only be of
            another unit.
    """
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
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
    _check_unit(path, depth_m, unit_m if values.dtype == np.uint16 else None)
    return depth_m


def _check_unit(path: Path, depth_m: np.ndarray, unit_m: float | None) -> None:
    """Refuse metres taken for steps of ``unit_m``, and millimetres taken for metres (``None``)."""
    known_m = depth_m[np.isfinite(depth_m)]
    if not known_m.size:
        return
    if unit_m is None:
        if (nearest := float(known_m.min())) > MOST_NEAREST_M:
            raise DatasetError(
                f"{path}: expected metres in a floating-point file, got {nearest:g} and more, as "
                "of millimetres; divide by 1000, or write 16-bit millimetres"
            )
    elif (median_m := float(np.median(known_m))) < LEAST_MEDIAN_M:
        raise DatasetError(
            f"{path}: expected depth in steps of {unit_m:g} m, got half of it nearer than "
            f"{median_m:.2g} m; give metres per step (depth_unit_m, --depth-unit): 1 for metres"
        )


def depth_steps(depth_m: np.ndarray) -> tuple[np.ndarray, int]:
    """Depth in metres as it is written: uint16 millimetres of the same shape, 0 where unknown.

    Returns:
        The steps, and how many pixels are too far for 16 bits: they count as unknown.
    """
    millimetres = np.rint(np.nan_to_num(depth_m, nan=0.0) * 1000)
    too_far = millimetres > MAX_MILLIMETRES
    return np.where(too_far, 0, millimetres).astype(np.uint16), int(np.count_nonzero(too_far))


def too_far_note(count: int) -> str:
    """What to say of the pixels that :func:`depth_steps` counted."""
    return f"{count} pixels are farther than {MAX_MILLIMETRES / 1000} m: written as unknown"


def require_own_frames(out: Path, kinds: Collection[str], names: Collection[str]) -> None:
    """Check that nobody else's frames are in a folder that a run writes ``KIND/NAME.png`` to.

    They would be read as this run's, or be lost. The frames of the same run may be there: its
    ``registration.json``, written before any frame, tells them from a recording.

    Raises:
        DatasetError: There are others.
    """
    suffixes = (*IMAGE_SUFFIXES, *DEPTH_SUFFIXES)
    folders = [out / kind for kind in FRAME_FOLDERS if (out / kind).is_dir()]
    found = [p for each in folders for p in shown_files(each, suffixes)]
    own: set[Path] = set()
    if (out / REGISTRATION_FILE).is_file():
        own = {out / kind / f"{name}.png" for kind in kinds for name in names}
    if others := sorted(set(found) - own):
        raise DatasetError(
            f"--out {out}: expected a new folder, or only the frames that this run writes, got "
            f"{len(others)} more, such as {others[0].relative_to(out)}; give another folder, or "
            "remove them if nobody needs them"
        )


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


def read_lens(root: Path) -> LensConfig | None:
    """The lens noted in ``lens.json``, as ``ddfd-defocus`` and ``ddfd-prepare`` write it, if any.

    Pictures tell second moments: of rendered ones it is the lens whose disks spread as the
    point-spread function did by which they were rendered.

    Raises:
        DatasetError: The file holds something else.
    """
    path = root / LENS_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        fields = values["lens"]
        if fields is None:
            return None
        if fields["focus_distance_m"] is None:  # JSON knows no infinity
            fields["focus_distance_m"] = math.inf
        lens, render = LensConfig(**fields), values.get("render")
        if not render:
            return lens
        shape = {name: render[name] for name in ("kernel", "sigma_per_diameter", "gaussian_share")}
        return lens.spread_as(RenderOptions(**shape).spread_per_diameter)
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f'{path}: expected {{"lens": {{"focal_length_m": ..., "f_number": ..., '
            f'"focus_distance_m": ..., "pixel_pitch_m": ...}}}}, got something else: {error}'
        ) from None


def given_lens(lens: object, where: str) -> LensConfig | None:
    """The option ``lens`` of a set: a lens, its four fields as a recipe has them, or none.

    Raises:
        DatasetError: It is something else.
    """
    if lens is None or isinstance(lens, LensConfig):
        return lens
    reason = ""
    if isinstance(lens, Mapping):
        try:
            return LensConfig(**{str(name): float(value) for name, value in lens.items()})
        except (TypeError, ValueError) as error:
            reason = f" ({error})"
    raise DatasetError(
        f"{where}: lens: expected {{focal_length_m: ..., f_number: ..., focus_distance_m: ..., "
        f"pixel_pitch_m: ...}}, got {lens!r}{reason}"
    )


def is_registered(root: Path) -> bool:
    """Whether ``ddfd-prepare`` has registered the folder's images, or ``ddfd-defocus`` made them.

    Raises:
        DatasetError: ``registration.json`` is not its report.
    """
    return _registration(root)[0]


def _registration(root: Path) -> tuple[bool, tuple[int, int] | None]:
    """Of ``registration.json``: whether registered, and the size of the frames before the cut."""
    path = root / REGISTRATION_FILE
    if not path.is_file():
        return False, None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        size = report.get("frame_px")
        return bool(report["registered"]), size and (int(size[0]), int(size[1]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DatasetError(f"{path}: expected the report of ddfd-prepare, got {error}") from None


def frame_size_of(image: Path) -> tuple[int, int]:
    """Height and width of the whole frame that a picture shows, in its pixels.

    A picture in ``rgb/`` or ``sharp/`` of a folder that ``ddfd-prepare`` wrote is a part of it.

    Raises:
        DatasetError: No such picture, or ``registration.json`` is not ddfd-prepare's report.
    """
    height, width = read_color(image).shape[:2]
    folder = image.absolute().parent
    size = _registration(folder.parent)[1] if folder.name in FRAME_FOLDERS else None
    return size or (height, width)


def _files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of the folder by name without suffix, in order; none if there is no folder."""
    if not folder.is_dir():
        return {}
    return by_stem(shown_files(folder, suffixes))


class RgbdFolder(RgbdDataset):
    """Frames in folders, files of one frame having one name.

    ``rgb/NAME.{jpg,png,...}`` with ``depth/NAME.{png,npy,tif}`` (16-bit millimetres or metres),
    ``sharp/NAME.*`` (the all-in-focus image of the same view), or both. Without ``depth/``, the
    pairs of defocused and sharp images serve deblurring and self-supervised training. A file
    ``train.txt`` or ``test.txt`` with one name a line makes a split; ``lens.json`` names the lens.

    Args:
        root: Folder that holds them; may hold ``camera-intrinsics.txt``.
        split: ``all``, or the name of a list of frames in the folder.
        rgb_is: What ``rgb/`` shows: ``defocused``, ``sharp``, or ``auto``: defocused where there
            is a ``sharp/`` folder, else sharp (blur it with the optics simulator).
        lens: The lens that took the defocused images, or its four fields, if known; else that of
            ``lens.json``.
        depth_unit_m: Metres per step of a 16-bit depth image.
        registered: Whether ``rgb/`` and ``sharp/`` show each thing at the same pixel, as after
            ``ddfd-prepare``; by default what its ``registration.json`` says, and no without one.
            If not, they are registered when used.

    Attributes:
        intrinsics: fx, fy, cx, cy in pixels, or ``None``.
        skipped: Names of images without partner, which are left out.

    Raises:
        DatasetError: The layout is another one, no names agree, or two files of a folder have one
            name.
    """

    name = "folder"

    def __init__(
        self,
        root: str | Path,
        split: str = "all",
        *,
        rgb_is: str = "auto",
        lens: LensConfig | Mapping[str, float] | None = None,
        depth_unit_m: float = 1e-3,
        registered: bool | None = None,
    ) -> None:
        """List the files; images are read when asked for."""
        if rgb_is not in ("auto", "sharp", "defocused"):
            raise DatasetError(f"rgb_is: expected auto, sharp or defocused, got {rgb_is!r}")
        self.root = require_folder(Path(root), "RGB-D folder", "rgb/, depth/ and maybe sharp/")
        self._depth_unit_m = depth_unit_m
        self.registered = is_registered(self.root) if registered is None else registered
        self.lens = given_lens(lens, "RGB-D folder") or read_lens(self.root)
        colours = require_folder(self.root / "rgb", "RGB-D folder", "colour images")
        self._rgb = _files(colours, IMAGE_SUFFIXES)
        self._sharp = _files(self.root / "sharp", IMAGE_SUFFIXES)
        if not self._sharp:
            require_folder(self.root / "depth", "RGB-D folder", "16-bit PNG or .npy depth")
        self._depth = _files(self.root / "depth", DEPTH_SUFFIXES)
        self.rgb_is = rgb_is
        if rgb_is == "auto":
            self.rgb_is = "defocused" if self._sharp else "sharp"
        self.blur = "rendered" if self.rgb_is == "sharp" else "natural"
        self.frames, self.skipped = self._pair()
        # In the order they were taken in, for names without leading zeros, too.
        recorded = sorted(self.frames, key=counted)
        self._places = {name: place for place, name in enumerate(recorded)}
        self.frame_names = self.frames = self._chosen(split)
        self.intrinsics = read_intrinsics(self.root)

    def frame_size(self) -> tuple[int, int]:
        """Height and width of the camera's frames, before ``ddfd-prepare`` cut them."""
        return _registration(self.root)[1] or super().frame_size()

    def scene_of(self, index: int) -> str:
        """A part of the recording, see :func:`part_of_recording`; whatever split it is in."""
        return part_of_recording(self._places[self.frames[index]], len(self._places))

    def _pair(self) -> tuple[list[str], list[str]]:
        """Frames that have all there is, and names of files without partner."""
        partner = self._depth or self._sharp
        frames = [stem for stem in self._rgb if stem in partner]
        skipped = sorted(set(self._rgb) ^ set(partner))
        if not frames:
            kind, what = ("depth", "depth maps") if self._depth else ("sharp", "sharp images")
            raise DatasetError(
                f"{self.root}: expected files of one name in rgb/ and {kind}/ (rgb/0001.jpg, "
                f"{kind}/0001.png), got {len(self._rgb)} images and {len(partner)} {what} and no "
                f"common name; for example {skipped[:4]}"
            )
        return frames, skipped

    def _chosen(self, split: str) -> list[str]:
        """The frames of a split, in the order of its list."""
        if split == "all":
            return self.frames
        listing = self.root / f"{split}.txt"
        if not listing.is_file():
            raise DatasetError(
                f"{self.root}: split: expected all, or a list of frames {listing.name} there, got "
                f"{split!r} without one"
            )
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
        wanted = [line.strip() for line in lines if line.strip()]
        if missing := sorted(set(wanted) - set(self.frames)):
            raise DatasetError(f"{listing}: expected names of frames, got {missing[:4]} without")
        if not wanted:
            raise DatasetError(f"{listing}: expected names of frames, got none")
        return wanted

    def settings(self) -> tuple[str, ...]:
        """The folder (names of frames are often just numbers), unit, role and state of the images.

        A file that was replaced has another size or time, and is another picture.
        """
        kinds = (self._rgb, self._sharp, self._depth)
        states = [kind[stem].stat() for stem in self.frames for kind in kinds if stem in kind]
        changes = [f"{state.st_size} {state.st_mtime_ns}" for state in states]
        return (str(self.root.resolve()), str(self._depth_unit_m), self.rgb_is, *changes)

    def read(self, index: int) -> RgbdSample:
        """Read frame ``index``: images ``[H, W, 3]`` as stored, depth float32 ``[H, W]``."""
        stem = self.frames[index]
        rgb = read_color(self._rgb[stem])
        depth_m = unknown_depth(rgb)
        if stem in self._depth:
            depth_m = read_depth_m(self._depth[stem], self._depth_unit_m)
        sharp = read_color(self._sharp[stem]) if stem in self._sharp else None
        try:
            same_size(f"{self.root} frame {stem}", image=rgb, depth=depth_m, sharp=sharp)
        except DatasetError as error:
            raise DatasetError(f"{error}; register them to the image first") from None
        is_sharp = self.rgb_is == "sharp"
        return RgbdSample(
            name=stem,
            depth_m=depth_m,
            sharp_rgb=rgb if is_sharp else sharp,
            defocused_rgb=None if is_sharp else rgb,
            lens=self.lens,
        )
