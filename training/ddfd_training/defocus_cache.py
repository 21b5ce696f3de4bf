"""Photograph a whole dataset through a lens once, and keep the pictures.

For one lens, rendering the 795 training images takes minutes and reading them back takes none;
rendering every crop anew would cost more than the training step itself on a CPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.datasets.base import RgbdSample
from ddfd_training.datasets.sample import eight_bit
from ddfd_training.depth_fill import fill_depth
from ddfd_training.optics import render_defocus, to_planes
from ddfd_training.optics_options import LAYER_STEP_M, Layering, RenderOptions, render_options
from ddfd_training.sensor import Sensor

_VERSION = 2  # raise when the renderer's output changes
_GAUSSIAN_VERSION = 3  # that of pictures by Gaussians that keep their second moment
_ARRAYS = ("defocused_rgb", "sharp_rgb", "depth_m")


@dataclass(frozen=True)
class RenderSettings:
    """What, besides the scene, decides how a rendered image looks.

    Attributes:
        lens: The lens, its pixel pitch that of the images.
        kernel: As in ``RenderOptions``, like the next three.
        layer_step_m: Thickness of a layer in metres.
        sigma_per_diameter: Standard deviation of a Gaussian over blur diameter.
        gaussian_share: Part of the Gaussian in a blend.
        preset: A name of ``RENDER_PRESETS``, which replaces the four above; empty for none.
        sensor: Noise and compression after the lens.
    """

    lens: LensConfig
    kernel: str = "disk"
    layer_step_m: float = LAYER_STEP_M
    sigma_per_diameter: float = 0.3
    gaussian_share: float = 0.5
    preset: str = ""
    sensor: Sensor = Sensor()

    @property
    def options(self) -> RenderOptions:
        """How to render.

        Raises:
            ValueError: No preset of that name, or a value out of its range.
        """
        if self.preset:
            return render_options(self.preset)
        layering = Layering("depth", self.layer_step_m)
        return RenderOptions(
            self.kernel, self.sigma_per_diameter, self.gaussian_share, layering=layering
        )


@dataclass(frozen=True)
class DefocusedSet:
    """A rendered dataset, memory-mapped: ``N`` images of one size.

    Attributes:
        defocused_rgb: uint8 ``[N, H, W, 3]``, what the lens sees.
        sharp_rgb: uint8 ``[N, H, W, 3]``.
        depth_m: float32 ``[N, H, W]``, NaN where unknown.
    """

    defocused_rgb: np.ndarray
    sharp_rgb: np.ndarray
    depth_m: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.depth_m)


def render_sample(sample: RgbdSample, settings: RenderSettings) -> np.ndarray:
    """The sample's sharp image through the lens, rounded to bytes; uint8 ``[H, W, 3]``.

    Gaps in the depth are closed for the rendering only.

    Raises:
        DatasetError: The sample has no sharp image, or no depth at all.
    """
    if sample.sharp_rgb is None:
        raise DatasetError(f"{sample.name}: expected an all-in-focus image to blur, got none")
    rgb = to_planes(sample.sharp_rgb)
    depth = torch.from_numpy(fill_depth(sample.depth_m, sample.name))[None, None]
    with torch.no_grad():
        image = render_defocus(rgb, depth, settings.lens, options=settings.options)
    # The noise of a picture is its own, and the same whenever it is rendered.
    random = np.random.default_rng(zlib.crc32(sample.name.encode()))
    return settings.sensor.apply((image[0].permute(1, 2, 0) * 255).numpy(), random)


def load_or_render(
    dataset: Sequence[RgbdSample],
    settings: RenderSettings,
    folder: str | Path,
    *,
    tag: str,
    key: str = "",
    workers: int | None = None,
) -> DefocusedSet:
    """Open the rendered ``dataset`` from ``folder``; render and keep it first if it is new.

    Args:
        dataset: Samples of one size with sharp images.
        settings: Lens and renderer settings; part of the cache's name.
        folder: Where the arrays are kept.
        tag: Name of the dataset and split, for the file name and the progress bar.
        key: What tells the dataset from another one of that size; by default its own ``key``.
        workers: Processes that render; the number of CPU cores by default.
    """
    target = Path(folder) / f"{tag}-{_fingerprint(dataset, settings, key)}"
    if not (target / "done").is_file():
        _render_all(dataset, settings, target, tag, workers or os.cpu_count() or 1)
    return DefocusedSet(*(np.load(target / f"{name}.npy", mmap_mode="r") for name in _ARRAYS))


def _fingerprint(dataset: Sequence[RgbdSample], settings: RenderSettings, key: str) -> str:
    # Fields that came later count only where they were set: pictures kept before stay good.
    later = {"gaussian_share": 0.5, "preset": "", "sensor": asdict(Sensor())}
    fields = {k: v for k, v in asdict(settings).items() if k not in later or v != later[k]}
    key = key or str(getattr(dataset, "key", ""))
    version = _GAUSSIAN_VERSION if settings.options.kernel in ("gaussian", "blend") else _VERSION
    facts = [version, len(dataset), fields, *([key] if key else [])]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _render_all(
    dataset: Sequence[RgbdSample],
    settings: RenderSettings,
    target: Path,
    tag: str,
    workers: int,
) -> None:
    """Render into a folder beside ``target`` that takes its name when it is whole.

    So a render that was stopped leaves nothing behind, and of two that ran at once one stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        unfinished = Path(folder) / "images"
        unfinished.mkdir()
        _render_into(dataset, settings, unfinished, tag, workers)
        if target.exists() and not (target / "done").is_file():
            shutil.rmtree(target)  # left by an older version that was stopped
        if not target.exists():
            unfinished.rename(target)


def _render_into(
    dataset: Sequence[RgbdSample],
    settings: RenderSettings,
    target: Path,
    tag: str,
    workers: int,
) -> None:
    height, width = dataset[0].depth_m.shape
    shapes = {
        "defocused_rgb": (np.uint8, (len(dataset), height, width, 3)),
        "sharp_rgb": (np.uint8, (len(dataset), height, width, 3)),
        "depth_m": (np.float32, (len(dataset), height, width)),
    }
    arrays = {
        name: np.lib.format.open_memmap(target / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
        for name, (kind, shape) in shapes.items()
    }
    jobs = ((dataset, index, settings) for index in range(len(dataset)))
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results = pool.map(_render_job, jobs, chunksize=4)
        bar = track(results, description=f"rendering {tag}", total=len(dataset))
        for index, (defocused, sharp, depth_m) in enumerate(bar):
            if depth_m.shape != (height, width):
                raise DatasetError(
                    f"{tag}: expected images of one size {(height, width)}, "
                    f"got {depth_m.shape} of {dataset[index].name}; give the source a size"
                )
            arrays["defocused_rgb"][index] = defocused
            arrays["sharp_rgb"][index] = sharp
            arrays["depth_m"][index] = depth_m
    for array in arrays.values():
        array.flush()
    (target / "done").touch()


def _render_job(
    job: tuple[Sequence[RgbdSample], int, RenderSettings],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dataset, index, settings = job
    sample = dataset[index]
    defocused = render_sample(sample, settings)
    assert sample.sharp_rgb is not None  # render_sample has refused it otherwise
    return defocused, eight_bit(sample.sharp_rgb), sample.depth_m
