"""Pictures of the same scenes through many lenses, for a network that takes the lens as an input.

Every frame of a set with sharp images and depth is photographed several times, each time through
a lens of its own (:mod:`ddfd_training.lens_draws`). Frame, number of the draw and series decide
the lens, so that a set is the same whenever it is rendered.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.progress import track

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.model.blur_space import lens_vector
from ddfd_training.datasets.sample import RgbdSample, eight_bit
from ddfd_training.depth_fill import fill_depth
from ddfd_training.image_set import ImageSet, Item
from ddfd_training.lens_draws import DrawnCamera, LensRanges, curved, draw_camera
from ddfd_training.optics import render_defocus, to_planes

_VERSION = 4  # raise when the pictures change
_FLAT_VERSION = 5  # that of pictures of which some lose their texture
_FLAT = 1  # tells the choice of these from a draw, whose seed has a 0 in this place


def photograph(sample: RgbdSample, camera: DrawnCamera, random: np.random.Generator) -> np.ndarray:
    """The sample's sharp image through a drawn camera, uint8 ``[H, W, 3]``.

    Raises:
        DatasetError: The sample has no sharp image.
    """
    if sample.sharp_rgb is None:
        raise DatasetError(f"{sample.name}: expected an all-in-focus image to blur, got none")
    depth_m = curved(fill_depth(sample.depth_m, sample.name), camera.curvature_dioptre)
    rgb = to_planes(sample.sharp_rgb)
    with torch.no_grad():
        image = render_defocus(
            rgb, torch.from_numpy(depth_m)[None, None], camera.lens, options=camera.options
        )
    return camera.sensor.apply((image[0].permute(1, 2, 0) * 255).numpy(), random)


@dataclass(frozen=True)
class ManyLensSet(ImageSet):
    """An image set whose frames were each photographed through ``draws`` lenses.

    ``defocused_rgb`` and ``lenses`` hold ``draws`` entries for a view, one after the other. They
    are the frames; frame ``i`` shows view ``i // draws`` of the other arrays.

    Attributes:
        lenses: float32 ``[N * draws, 2]``: what a network is told of each picture's lens
            (``DrawnCamera.told``), pixels per dioptre and focus in dioptres.
        draws: Pictures of each view.
    """

    lenses: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    draws: int = 1

    @property
    def truths(self) -> tuple[str, ...]:
        """Every item also says its lens."""
        return ("lens",)

    def view_of(self, frame: int) -> int:
        """Which sharp picture a frame shows."""
        return frame // self.draws

    def item(self, where: Any, flip: int = 1) -> Item:
        """As :meth:`ImageSet.item`, with ``lens``, float32 ``[2]``."""
        frame, *part = where if isinstance(where, tuple) else (where,)
        view = (self.view_of(frame), *part)
        return {
            "image": self.defocused_rgb[where][:, ::flip],
            "sharp_rgb": self.sharp_rgb[view][:, ::flip],
            "depth_m": self.depth_m[view][:, ::flip],
            "sharp_known": self.sharp_known[view][:, ::flip],
            "lens": np.array(self.lenses[frame]),
        }


def photograph_all(
    dataset: Sequence[RgbdSample],
    ranges: LensRanges,
    folder: str | Path,
    *,
    tag: str,
    key: str,
    weight: float = 1.0,
    workers: int | None = None,
) -> ManyLensSet:
    """Open a set's pictures through many lenses from ``folder``; take and keep them first if new.

    Args:
        dataset: Samples of one size with sharp images.
        ranges: What lenses are drawn from.
        folder: Where the arrays are kept.
        tag: Name of the dataset and split, for the file name and the progress bar.
        key: What tells the dataset from another one of that size.
        weight: How often the set is drawn from in training.
        workers: Processes that render; the number of CPU cores by default.
    """
    version = _FLAT_VERSION if ranges.flat_share else _VERSION
    facts = json.dumps([version, len(dataset), asdict(ranges), key], sort_keys=True)
    target = Path(folder) / f"{tag}-lenses-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as place:
            unfinished = Path(place) / "images"
            unfinished.mkdir()
            _photograph_into(dataset, ranges, unfinished, tag, workers or os.cpu_count() or 1)
            if not target.exists():
                unfinished.rename(target)
    arrays = {name: np.load(target / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    count = len(arrays["defocused_rgb"])
    return ManyLensSet(
        **arrays,
        sharp_known=np.broadcast_to(np.True_, arrays["depth_m"].shape),
        frames=tuple(range(count)),
        weight=weight,
        draws=ranges.draws,
    )


_ARRAYS = ("defocused_rgb", "sharp_rgb", "depth_m", "lenses")


def _photograph_into(
    dataset: Sequence[RgbdSample], ranges: LensRanges, target: Path, tag: str, workers: int
) -> None:
    height, width = dataset[0].depth_m.shape
    scenes, pictures = len(dataset), len(dataset) * ranges.draws
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "defocused_rgb": (np.uint8, (pictures, height, width, 3)),
        "sharp_rgb": (np.uint8, (scenes, height, width, 3)),
        "depth_m": (np.float32, (scenes, height, width)),
        "lenses": (np.float32, (pictures, 2)),
    }
    arrays = {
        name: np.lib.format.open_memmap(target / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
        for name, (kind, shape) in shapes.items()
    }
    jobs = ((dataset, index, ranges) for index in range(scenes))
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results = pool.map(_scene_job, jobs, chunksize=2)
        bar = track(results, description=f"photographing {tag}", total=scenes)
        for index, (images, lenses, sharp, depth_m) in enumerate(bar):
            if depth_m.shape != (height, width):
                raise DatasetError(
                    f"{tag}: expected images of one size {(height, width)}, "
                    f"got {depth_m.shape} of {dataset[index].name}; give the source a size"
                )
            pictures_of_it = slice(index * ranges.draws, (index + 1) * ranges.draws)
            arrays["defocused_rgb"][pictures_of_it] = images
            arrays["lenses"][pictures_of_it] = lenses
            arrays["sharp_rgb"][index] = sharp
            arrays["depth_m"][index] = depth_m
    for array in arrays.values():
        array.flush()


def _scene_job(
    job: tuple[Sequence[RgbdSample], int, LensRanges],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All pictures of one scene, their lenses, and the scene."""
    dataset, index, ranges = job
    sample = _prepared(dataset[index], ranges, np.random.default_rng([index, 0, 0, _FLAT]))
    images, lenses = [], []
    for draw in range(ranges.draws):
        random = np.random.default_rng([index, draw, ranges.series])
        camera = draw_camera(ranges, random)
        images.append(photograph(sample, camera, random))
        lenses.append(lens_vector(camera.told))
    assert sample.sharp_rgb is not None  # photograph has refused it otherwise
    return np.stack(images), np.array(lenses, np.float32), sample.sharp_rgb, sample.depth_m


def _prepared(sample: RgbdSample, ranges: LensRanges, random: np.random.Generator) -> RgbdSample:
    """The scene with its fine texture taken away or softened, as ``ranges`` say."""
    if sample.sharp_rgb is None:
        return sample
    sharp = eight_bit(sample.sharp_rgb)
    if random.random() < ranges.flat_share:
        sharp = without_texture(sharp, random)
    if ranges.soften_px > 0:
        sharp = cv2.GaussianBlur(sharp, (0, 0), ranges.soften_px)
    return replace(sample, sharp_rgb=sharp)


def without_texture(sharp: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Fine texture smoothed away, edges kept: a bilateral filter, often with a median before it.

    Args:
        sharp: uint8 ``[H, W, 3]``.
        random: Decides how much is taken away.
    """
    flat = np.ascontiguousarray(sharp)
    if random.random() < 0.7:
        flat = cv2.medianBlur(flat, int(random.choice([3, 5, 7, 9, 11])))
    width = int(random.integers(5, 12))
    result: np.ndarray = cv2.bilateralFilter(flat, width, random.uniform(20, 60), width)
    return result
