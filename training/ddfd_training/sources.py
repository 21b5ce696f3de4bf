"""Opens what a training is fed with: each source of a recipe as a set to cut crops from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.model.blur_space import lens_vector
from ddfd_training.any_lens import photograph_all
from ddfd_training.config import SourceConfig
from ddfd_training.datasets.base import RgbdDataset
from ddfd_training.datasets.registry import dataset_class, open_dataset, option_names
from ddfd_training.defocus_cache import RenderSettings, load_or_render
from ddfd_training.image_set import Images, ImageSet, LazySet
from ddfd_training.lay_over import LaidOver, stack_pairs
from ddfd_training.prepared import Prepared

INPUTS = ("auto", "sharp", "rendered")
PINHOLE_F_NUMBER = 1e6
"""A lens stopped down this far blurs nothing: how sharp images go the way of rendered ones."""


_SAME_SIZE = 0.01  # relative; no calibration is as exact


def open_source(
    source: SourceConfig,
    lens: LensConfig,
    cache: str | Path,
    *,
    lens_px: Sequence[int] = (),
    told: bool = False,
) -> Images:
    """Load one source, rendered through ``lens`` where its images are sharp.

    Args:
        source: The source.
        lens: The recipe's lens.
        cache: Folder where rendered images are kept.
        lens_px: Width and height of the images that ``lens`` was calibrated for; empty: any.
        told: Whether the network is told each photograph's own lens, where its set names it.

    Returns:
        An :class:`ImageSet` of what was rendered or fits into memory, else a :class:`LazySet`.

    Raises:
        DatasetError: Unknown dataset, option or kind of input, its folder is not as expected, or
            its photographs are not of the size that the lens was calibrated for.
    """
    if source.input not in INPUTS:
        raise DatasetError(f"input: expected one of {', '.join(INPUTS)}, got {source.input!r}")
    dataset = open_dataset(source.dataset, source.root, split_of(source), **_options(source))
    natural = source.input == "auto" and dataset.blur == "natural"
    _refuse_unused(source, natural=natural)
    if not natural:
        return _photographed(dataset, lens, cache, source)
    if lens_px:
        _check_size(dataset, source, lens_px, told=told)
    aligned = dataset.registered or not source.sharp
    samples = Prepared(
        dataset if aligned else LaidOver(dataset, cache),
        source.size,
        source.centre_crop,
        source.limit,
        sharp=source.sharp,
        defocus_in_px=dataset.defocus_unit.endswith("_px"),
    )
    scenes = _scenes(dataset, samples, source)
    if dataset.in_memory:
        return replace(stack_pairs(samples, source.weight), scenes=scenes)
    return LazySet(samples, tuple(range(len(samples))), source.weight, dataset.truths, scenes)


def _refuse_unused(source: SourceConfig, *, natural: bool) -> None:
    """DatasetError for a way to blur that pictures are given which nothing blurs."""
    for name, given in (("lenses", source.lenses.draws), ("preset", source.preset)):
        if given and natural:
            raise DatasetError(
                f"data.sources.{name}: expected with sharp images, which are blurred, got it with "
                f"the photographs of {source.dataset} {source.root}; leave it out"
            )
    if source.lenses.draws and source.input == "sharp":
        raise DatasetError(
            "data.sources.lenses: expected none with input: sharp, which blurs nothing, got "
            f"{source.lenses.draws} draws; leave either out"
        )


def check_augment(source: SourceConfig, augment: str) -> None:
    """Refuse to scale pictures whose blur tells their distance: the blur would tell another one.

    Args:
        source: The source.
        augment: What is done to its crops (``DataConfig.augment``).

    Raises:
        DatasetError: ``eigen``, and the source's pictures are neither sharp nor the nearly sharp
            photographs of a small aperture.
    """
    small = source.input == "auto" and _options(source).get("aperture") == "N8"
    if augment == "eigen" and source.input != "sharp" and not small:
        raise DatasetError(
            "augment: eigen scales pictures, and their blur with them; expected sources with "
            f"input: sharp or aperture: N8, got {source.dataset} with input: {source.input}; use "
            "colour or none"
        )


def _check_size(
    dataset: RgbdDataset, source: SourceConfig, lens_px: Sequence[int], *, told: bool
) -> None:
    """Refuse photographs whose pixels are not those that the recipe's lens was calibrated for.

    Blur is counted in pixels: at half the size, that of the lens would be twice too wide.

    Raises:
        DatasetError: They have another size or shape, cut ones before the cut.
    """
    sample = dataset[0]
    if told and sample.lens is not None:
        return
    (wide, high), (rows, columns) = lens_px, dataset.frame_size()
    own_rows, own_columns = sample.depth_m.shape
    scale = source.size[1] / own_columns if source.size else 1.0
    down = source.size[0] / own_rows if source.size else 1.0
    ratio = wide / columns
    same_shape = abs(high / rows / ratio - 1) <= 2 * _SAME_SIZE
    same_scale = abs(scale / ratio - 1) <= _SAME_SIZE and abs(down / ratio - 1) <= 2 * _SAME_SIZE
    if same_shape and same_scale:
        return
    remedy = f"give the source size: [{round(ratio * own_rows)}, {round(ratio * own_columns)}]"
    if not same_shape:
        remedy = "calibrate with images as they are used"
    raise DatasetError(
        f"lens: expected photographs of {source.dataset} {source.root} of the size that the lens "
        f"was calibrated for, {wide}x{high}, got {round(scale * columns)}x{round(down * rows)}; "
        f"{remedy}"
    )


def _scenes(dataset: RgbdDataset, samples: Prepared, source: SourceConfig) -> tuple[str, ...]:
    """The scene of each sample, by a name that every source which reads this set gives it."""
    files = "" if dataset.name == "synthetic" else str(Path(source.root).resolve())
    return tuple(f"{dataset.name} {files} {dataset.scene_of(i)}" for i in samples.frames)


def split_of(source: SourceConfig) -> str:
    """The split asked for; a set that has none is taken whole.

    Raises:
        DatasetError: No such data set, or a folder of one's own lists only what is not to be
            trained on.
    """
    splits = getattr(dataset_class(source.dataset), "splits", ("all",))
    root = Path(source.root)  # of a folder of one's own, which may hold lists
    if splits != ("all",) or source.split != "train" or (root / "train.txt").is_file():
        return source.split
    for other in ("test.txt", "val.txt"):
        if (root / other).is_file():
            raise DatasetError(
                f"{root}: split: expected train.txt beside {other}, got none, so that what "
                f"{other} lists would be trained on; write it, or give the split all"
            )
    return "all"


def _options(source: SourceConfig) -> dict[str, Any]:
    """What the source's class is told besides root and split."""
    options = dict(source.options)
    known = option_names(source.dataset)
    if "count" in known:
        options.setdefault("count", source.count)
    if "aperture" in known:
        # What the simulated lens is to blur, or nothing is, are the nearly sharp photographs.
        options.setdefault("aperture", source.aperture if source.input == "auto" else "N8")
    return options


def _photographed(
    dataset: RgbdDataset, lens: LensConfig, cache: str | Path, source: SourceConfig
) -> ImageSet:
    """Sharp pictures through the simulated lens, from the cache or rendered into it."""
    if not dataset.has_depth:
        raise DatasetError(
            f"{dataset.name}: expected depth, by which to render defocus, got a set without; "
            "leave input at auto to use its images as they are"
        )
    if source.input == "sharp":
        lens = replace(lens, f_number=PINHOLE_F_NUMBER)
    samples = Prepared(dataset, source.size, source.centre_crop, source.limit)
    parts = [dataset.name, source.split, samples.changes]
    if dataset.name == "synthetic":
        parts.remove(source.split)
    tag = "-".join(part for part in parts if part)
    scenes = _scenes(dataset, samples, source)
    if source.lenses.draws:
        photographed = photograph_all(
            samples, source.lenses, cache, tag=tag, key=dataset.key, weight=source.weight
        )
        return replace(photographed, scenes=scenes)
    settings = RenderSettings(lens, source.kernel, preset=source.preset)
    images = load_or_render(samples, settings, cache, tag=tag, key=dataset.key)
    lenses = np.zeros((0, 2), np.float32)
    if source.input != "sharp":  # as evaluation tells it: pictures show how far it spreads
        told = lens_vector(lens.spread_as(settings.options.spread_per_diameter))
        lenses = np.tile(np.array(told, np.float32), (len(images), 1))
    return ImageSet(
        images.defocused_rgb,
        images.sharp_rgb,
        images.depth_m,
        # True everywhere, in one byte of memory.
        np.broadcast_to(np.True_, images.depth_m.shape),
        tuple(range(len(images))),
        source.weight,
        scenes,
        lenses,
    )
