"""Opens what a training is fed with: each source of a recipe as a set to cut crops from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
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


def open_source(source: SourceConfig, lens: LensConfig, cache: str | Path) -> Images:
    """Load one source, rendered through ``lens`` where its images are sharp.

    Returns:
        An :class:`ImageSet` of what was rendered or fits into memory, else a :class:`LazySet`.

    Raises:
        DatasetError: Unknown dataset, option or kind of input, or its folder is not as expected.
    """
    if source.input not in INPUTS:
        raise DatasetError(f"input: expected one of {', '.join(INPUTS)}, got {source.input!r}")
    dataset = open_dataset(source.dataset, source.root, split_of(source), **_options(source))
    natural = source.input == "auto" and dataset.blur == "natural"
    if not natural:
        return _photographed(dataset, lens, cache, source)
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


def _scenes(dataset: RgbdDataset, samples: Prepared, source: SourceConfig) -> tuple[str, ...]:
    """The scene of each sample, by a name that every source which reads this set gives it."""
    files = "" if dataset.name == "synthetic" else str(Path(source.root).resolve())
    return tuple(f"{dataset.name} {files} {dataset.scene_of(i)}" for i in samples.frames)


def split_of(source: SourceConfig) -> str:
    """The split asked for; a set that has none is taken whole."""
    splits = getattr(dataset_class(source.dataset), "splits", ("all",))
    listed = (Path(source.root) / f"{source.split}.txt").is_file()  # in a folder of one's own
    return "all" if splits == ("all",) and source.split == "train" and not listed else source.split


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
    images = load_or_render(
        samples,
        RenderSettings(lens, source.kernel, preset=source.preset),
        cache,
        tag=tag,
        key=dataset.key,
    )
    return ImageSet(
        images.defocused_rgb,
        images.sharp_rgb,
        images.depth_m,
        # True everywhere, in one byte of memory.
        np.broadcast_to(np.True_, images.depth_m.shape),
        tuple(range(len(images))),
        source.weight,
        scenes,
    )
