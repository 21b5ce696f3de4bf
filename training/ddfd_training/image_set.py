"""Images from which crops are cut: held in arrays, or read one by one when asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.model.blur_space import lens_vector
from ddfd_training.datasets.sample import RgbdSample

Item = dict[str, np.ndarray]


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, ready to be cut: arrays (possibly memory-mapped) and frame numbers.

    Attributes:
        defocused_rgb: uint8 ``[N, H, W, 3]``, the network's input.
        sharp_rgb: uint8 ``[N, H, W, 3]``, its sharp original.
        depth_m: float32 ``[N, H, W]``, NaN where unknown.
        sharp_known: bool ``[N, H, W]``, where ``sharp_rgb`` can be believed.
        frames: Which of the ``N`` to use.
        weight: How often the set is drawn, relative to others.
        scenes: Name of the scene that each of the ``N`` shows, the same in every set that shows it
            too; or empty: each its own.
        lenses: float32 ``[N, 2]``, ``lens_vector`` of the lens that took each picture; empty where
            it is not known.
    """

    defocused_rgb: np.ndarray
    sharp_rgb: np.ndarray
    depth_m: np.ndarray
    sharp_known: np.ndarray
    frames: tuple[int, ...]
    weight: float = 1.0
    scenes: tuple[str, ...] = ()
    lenses: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))

    def view_of(self, frame: int) -> int:
        """Which of the ``N`` sharp pictures a frame shows; here its own."""
        return frame

    def scene_of(self, frame: int) -> str:
        """Which scene a frame shows."""
        view = self.view_of(frame)
        return self.scenes[view] if self.scenes else str(view)

    @property
    def truths(self) -> tuple[str, ...]:
        """Keys of its items besides the four of every set."""
        return ()

    def size(self, frame: int) -> tuple[int, int]:
        """Height and width of a frame."""
        del frame
        height, width = self.depth_m.shape[1:]
        return height, width

    def some_depth(self, frame: int, rows: slice, columns: slice) -> np.ndarray:
        """Depth in metres of every eighth pixel of a part, enough to know how far away it is."""
        part = (slice(rows.start, rows.stop, 8), slice(columns.start, columns.stop, 8))
        depth_m: np.ndarray = self.depth_m[(self.view_of(frame), *part)]
        return depth_m

    def item(self, where: Any, flip: int = 1) -> Item:
        """What ``where`` (frame, rows, columns) holds, mirrored if ``flip`` is -1.

        Returns:
            ``image`` and ``sharp_rgb`` as uint8 ``[h, w, 3]``, ``depth_m`` and ``sharp_known``
            as ``[h, w]``; and ``lens``, float32 ``[2]``, where it is known.
        """
        item = {
            "image": self.defocused_rgb[where][:, ::flip],
            "sharp_rgb": self.sharp_rgb[where][:, ::flip],
            "depth_m": self.depth_m[where][:, ::flip],
            "sharp_known": self.sharp_known[where][:, ::flip],
        }
        if len(self.lenses):
            item["lens"] = np.array(self.lenses[where[0] if isinstance(where, tuple) else where])
        return item


class _Latest:
    """The sample read last: its size is asked for first, and then its pixels."""

    def __init__(self) -> None:
        self._index: int | None = None
        self._sample: RgbdSample | None = None

    def get(self, samples: Sequence[RgbdSample], index: int) -> RgbdSample:
        """Sample ``index``, read unless it was the last one."""
        if self._sample is None or self._index != index:
            self._index, self._sample = index, samples[index]
        return self._sample


_TRUTHS = {
    "defocus": ("defocus",),
    "blurred": ("blurred",),
    "order": ("points_yx", "relation"),
    "dual": ("left_rgb", "right_rgb"),
}


@dataclass(frozen=True)
class LazySet:
    """Images of any size, read when asked for: for sets that do not fit into memory.

    Attributes:
        samples: Where they come from; what is seen is the defocused image, or the sharp one where
            there is no other.
        frames: Which of them to use.
        weight: How often the set is drawn, relative to others.
        knows: What else its samples know, as in ``RgbdDataset.truths``.
        scenes: As of :class:`ImageSet`.
    """

    samples: Sequence[RgbdSample]
    frames: tuple[int, ...]
    weight: float = 1.0
    knows: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    _latest: _Latest = field(default_factory=_Latest, repr=False, compare=False)

    def view_of(self, frame: int) -> int:
        """Which sample a frame shows."""
        return frame

    def scene_of(self, frame: int) -> str:
        """Which scene a frame shows."""
        return self.scenes[frame] if self.scenes else str(frame)

    @property
    def truths(self) -> tuple[str, ...]:
        """Keys of its items besides the four of every set."""
        return tuple(key for truth in self.knows for key in _TRUTHS[truth])

    def size(self, frame: int) -> tuple[int, int]:
        """Height and width of a frame."""
        height, width = self._latest.get(self.samples, frame).depth_m.shape
        return height, width

    def some_depth(self, frame: int, rows: slice, columns: slice) -> np.ndarray:
        """As of :class:`ImageSet`."""
        depth_m: np.ndarray = self._latest.get(self.samples, frame).depth_m[rows, columns]
        return depth_m[::8, ::8]

    def item(self, where: Any, flip: int = 1) -> Item:
        """What ``where`` (a frame, or frame, rows and columns) holds, mirrored if ``flip`` is -1.

        Returns:
            The keys of :func:`to_item`; images uint8 or uint16.
        """
        frame, *part = where if isinstance(where, tuple) else (where,)
        sample = self._latest.get(self.samples, frame)
        if part:
            rows, columns = (
                range(*piece.indices(n))
                for piece, n in zip(part, sample.depth_m.shape, strict=True)
            )
            sample = sample.crop(rows.start, columns.start, len(rows), len(columns))
        return to_item(sample.mirrored() if flip == -1 else sample, self.truths)


def to_item(sample: RgbdSample, truths: Sequence[str] = ()) -> Item:
    """A sample as the arrays a network is trained with.

    Args:
        sample: With at least one image.
        truths: Further keys, of ``defocus``, ``blurred`` (1, 0 or NaN), ``points_yx`` with
            ``relation`` (see :func:`ddfd_training.losses_ranking.ranking`), ``left_rgb`` and
            ``right_rgb``.

    Returns:
        ``image``, ``sharp_rgb``, ``depth_m``, ``sharp_known``, what was asked for as far as it is
        known, and ``lens`` (``lens_vector``) where the sample names the one that took it.

    Raises:
        DatasetError: The sample has no image, or lacks one of the views asked for.
    """
    image = sample.defocused_rgb if sample.defocused_rgb is not None else sample.sharp_rgb
    if image is None:
        raise DatasetError(f"{sample.name}: expected an image, got none")
    shape = image.shape[:2]
    known = np.zeros(shape, dtype=bool)
    if sample.sharp_rgb is not None and sample.defocused_rgb is not None:
        known = sample.sharp_known if sample.sharp_known is not None else ~known
    item = {
        "image": image,
        "sharp_rgb": image if sample.sharp_rgb is None else sample.sharp_rgb,
        "depth_m": sample.depth_m,
        "sharp_known": known,
    }
    if "defocus" in truths and sample.defocus is not None:
        item["defocus"] = sample.defocus
    if "blurred" in truths and sample.blurred is not None:
        item["blurred"] = sample.blurred.astype(np.float32)
    if "relation" in truths and sample.order is not None:
        item["points_yx"] = sample.order.points_yx()
        item["relation"] = np.array([sample.order.farther], dtype=np.float32)
    if sample.lens is not None and sample.defocused_rgb is not None:
        item["lens"] = np.array(lens_vector(sample.lens), dtype=np.float32)
    if sample.dual_rgb is not None and "left_rgb" in truths:
        item["left_rgb"], item["right_rgb"] = sample.dual_rgb
    return complete(item, truths)


def complete(item: Item, truths: Sequence[str], lens: LensConfig | None = None) -> Item:
    """The item with a truth for each key, "unknown" where it has none, so that batches can form.

    Pictures that do not say which lens they were taken through were taken through ``lens``.

    Raises:
        DatasetError: It lacks a dual-pixel view: there is no such thing as an unknown image.
    """
    for key in truths:
        if key in item:
            continue
        if key == "points_yx":
            item[key] = np.zeros((1, 2, 2), dtype=np.int64)
        elif key == "lens" and lens is not None:
            item[key] = np.array(lens_vector(lens), dtype=np.float32)
        elif key == "relation":
            item[key] = np.full(1, np.nan, dtype=np.float32)
        elif key in ("defocus", "blurred"):
            item[key] = np.full(item["depth_m"].shape, np.nan, dtype=np.float32)
        else:
            raise DatasetError(
                f"{key}: expected both dual-pixel views in every image, got one without; train "
                "with sources that have them, or with none that has"
            )
    return item


Images = ImageSet | LazySet
"""What crops are cut from."""
AnySet = TypeVar("AnySet", bound="ImageSet | LazySet")


def hold_out(images: AnySet, count: int) -> tuple[AnySet, AnySet]:
    """Split off ``count`` pictures or a few more; returns what is left and what was taken.

    They are whole scenes, evenly spaced: another view of a scene, or the same one through another
    lens, is no unseen picture. Of scenes with many more pictures ``count`` are taken, evenly
    spaced, and the others left out.
    """
    views: dict[str, set[int]] = {}
    for frame in images.frames:
        views.setdefault(images.scene_of(frame), set()).add(images.view_of(frame))
    scenes, sizes = list(views), [len(each) for each in views.values()]
    taken: set[str] = set()
    for number in range(1, len(scenes) + 1):
        chosen = np.linspace(0, len(scenes) - 1, number).round().astype(int)
        taken = {scenes[i] for i in chosen}
        if sum(sizes[i] for i in chosen) >= count:
            break
    picked = [frame for frame in images.frames if images.scene_of(frame) in taken]
    shown = list(dict.fromkeys(images.view_of(frame) for frame in picked))
    if len(shown) > 2 * count:
        kept = {shown[i] for i in np.linspace(0, len(shown) - 1, count).round().astype(int)}
        picked = [frame for frame in picked if images.view_of(frame) in kept]
    return without(images, taken), replace(images, frames=tuple(picked))


def without(images: AnySet, scenes: Collection[str]) -> AnySet:
    """The set without the frames that show one of the scenes."""
    kept = [frame for frame in images.frames if images.scene_of(frame) not in scenes]
    return replace(images, frames=tuple(kept))


def to_tensors(item: Item) -> dict[str, torch.Tensor]:
    """Images to ``[3,h,w]`` in [0,1], maps to ``[1,h,w]``; pairs of points, lenses as they are."""
    result = {}
    for name, array in item.items():
        planes = array
        if name not in (*_TRUTHS["order"], "lens"):
            planes = array.transpose(2, 0, 1) if array.ndim == 3 else array[None]
        if array.dtype == np.uint16:  # photographs of more than 8 bits
            planes = planes.astype(np.float32) / 65535
        tensor = torch.from_numpy(np.ascontiguousarray(planes))
        result[name] = tensor.float() / 255 if array.dtype == np.uint8 else tensor
    return result
