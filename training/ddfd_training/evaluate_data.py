"""What an evaluation is run on: each data set as images with their truth, ready to compare."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_training.datasets.base import RgbdSample
from ddfd_training.datasets.dfd_dslr import SENSOR_RANGE_M, DfdDslr
from ddfd_training.datasets.nyuv2 import Nyuv2
from ddfd_training.datasets.rgbd_folder import RgbdFolder
from ddfd_training.defocus_cache import RenderSettings
from ddfd_training.evaluate_items import First, Item, Natural, Rendered

DATA_SETS = ("nyuv2", "dfd_dslr", "folder")
NYUV2_CLIP_M = (0.5, 10.0)


@dataclass(frozen=True)
class DataOptions:
    """Which images, and how they are prepared.

    Attributes:
        data: ``nyuv2``, ``dfd_dslr`` or ``folder``.
        root: Its folder.
        split: ``test`` or ``train``; a plain folder has none.
        lens: Lens by which sharp images are blurred; not used for natural ones.
        kernel: Point-spread function of the renderer.
        cache: Folder where rendered images are kept.
        limit: Take only the first so many images; 0: all.
        aperture: Of the DSLR set: ``N2_8`` or ``N8``.
        exposure: ``global`` brings the sharp truth of a natural pair to the defocused
            image's brightness (gain and offset) before PSNR and SSIM; ``none`` does not.
        rgb_is: Of a plain folder: what ``rgb/`` shows, see :class:`RgbdFolder`.
    """

    data: str
    root: str
    split: str = "test"
    lens: LensConfig = LENS_PRESETS["nyu-8m"]
    kernel: str = "disk"
    cache: str = ".cache/defocus"
    limit: int = 0
    aperture: str = "N2_8"
    exposure: str = "global"
    rgb_is: str = "auto"


class EvaluationSet:
    """Items one after the other, and a description of how they came about.

    Attributes:
        description: For the report: data set, lens, clip, preparation.
        sensor_range_m: Errors up to this depth are reported separately, or ``None``.
    """

    def __init__(
        self,
        items: Sequence[Item],
        description: dict[str, Any],
        sensor_range_m: float | None = None,
    ) -> None:
        self._items = items
        self.description = description
        self.sensor_range_m = sensor_range_m

    def __len__(self) -> int:
        """Number of items."""
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        """The items, prepared when asked for."""
        return (self._items[index] for index in range(len(self._items)))


def open_evaluation_set(options: DataOptions) -> EvaluationSet:
    """Prepare the images that ``options`` name; rendering shows its own progress bar.

    Raises:
        DatasetError: Unknown data set or options, or a folder that is not as expected.
    """
    if options.exposure not in ("global", "none"):
        raise DatasetError(f"exposure: expected global or none, got {options.exposure!r}")
    if options.data == "nyuv2":
        samples = First(Nyuv2(options.root, options.split), options.limit)
        return _rendered(samples, options, f"nyuv2-{options.split}", NYUV2_CLIP_M, fill=False)
    if options.data == "dfd_dslr":
        dataset = DfdDslr(options.root, options.split, options.aperture)
        samples = First(dataset, options.limit)
        # At N 8 the input is its own companion.
        items = Natural(samples, options.exposure, registered=options.aperture == "N8")
        return EvaluationSet(items, _describe(options, natural=True), SENSOR_RANGE_M)
    if options.data == "folder":
        folder = RgbdFolder(options.root, rgb_is=options.rgb_is)
        samples = First(folder, options.limit)
        if folder.rgb_is == "defocused":
            items = Natural(samples, options.exposure, registered=False)
            return EvaluationSet(items, _describe(options, natural=True))
        names = "\n".join([str(folder.root.resolve()), *folder.frames])
        tag = f"{folder.root.resolve().name}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"
        return _rendered(samples, options, tag, None, fill=True)
    raise DatasetError(f"data: expected one of {', '.join(DATA_SETS)}, got {options.data!r}")


def _rendered(
    samples: Sequence[RgbdSample],
    options: DataOptions,
    tag: str,
    clip_m: tuple[float, float] | None,
    *,
    fill: bool,
) -> EvaluationSet:
    settings = RenderSettings(options.lens, kernel=options.kernel)
    items = Rendered(samples, settings, options.cache, tag, clip_m, fill=fill)
    description = _describe(options, natural=False)
    description["depth_clip_m"] = clip_m
    return EvaluationSet(items, description)


def _describe(options: DataOptions, *, natural: bool) -> dict[str, Any]:
    """What the report says about the images."""
    description: dict[str, Any] = {"name": options.data, "root": Path(options.root).name}
    if options.data != "folder":
        description["split"] = options.split
    if natural:
        description["blur"] = "natural"
        description["exposure_match"] = options.exposure
        if options.data == "dfd_dslr":
            description["aperture"] = options.aperture
    else:
        description["blur"] = f"simulated, {options.kernel} kernel, rounded to 8 bits"
        description["lens"] = asdict(options.lens)
    return description


def mean_training_depth_m(options: DataOptions) -> float:
    """Mean of all known depths of the training split: what one predicts without looking.

    Raises:
        DatasetError: The data set has no training split.
    """
    dataset: Sequence[RgbdSample]
    if options.data == "nyuv2":
        dataset, clip_m = Nyuv2(options.root, "train"), NYUV2_CLIP_M
    elif options.data == "dfd_dslr":
        dataset = DfdDslr(options.root, "train", options.aperture, sharp=False)
        clip_m = (0.0, np.inf)
    else:
        raise DatasetError("baseline: expected a data set with a training split, got a folder")
    total, count = 0.0, 0
    for index in range(len(dataset)):
        known = dataset[index].depth_m
        known = np.clip(known[np.isfinite(known)], *clip_m)
        total += float(known.sum(dtype=np.float64))
        count += known.size
    return total / max(count, 1)
