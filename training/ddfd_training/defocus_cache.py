"""Photograph a whole dataset through a lens once, and keep the pictures.

For one lens, rendering the 795 training images takes minutes and reading them back takes none;
rendering every crop anew would cost more than the training step itself on a CPU.
"""

from __future__ import annotations

import hashlib
import json
import os
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
from ddfd_training.optics import LAYER_STEP_M, render_defocus

_VERSION = 2  # raise when the renderer's output changes
_ARRAYS = ("defocused_rgb", "sharp_rgb", "depth_m")


@dataclass(frozen=True)
class RenderSettings:
    """What, besides the scene, decides how a rendered image looks."""

    lens: LensConfig
    kernel: str = "disk"
    layer_step_m: float = LAYER_STEP_M
    sigma_per_diameter: float = 0.3


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

    Raises:
        DatasetError: The sample has no sharp image.
    """
    if sample.sharp_rgb is None:
        raise DatasetError(f"{sample.name}: expected an all-in-focus image to blur, got none")
    rgb = torch.from_numpy(sample.sharp_rgb).permute(2, 0, 1)[None].float() / 255
    depth = torch.from_numpy(sample.depth_m)[None, None]
    with torch.no_grad():
        image = render_defocus(
            rgb,
            depth,
            settings.lens,
            kernel=settings.kernel,
            layer_step_m=settings.layer_step_m,
            sigma_per_diameter=settings.sigma_per_diameter,
        )
    return (image[0].permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def load_or_render(
    dataset: Sequence[RgbdSample],
    settings: RenderSettings,
    folder: str | Path,
    *,
    tag: str,
    workers: int | None = None,
) -> DefocusedSet:
    """Open the rendered ``dataset`` from ``folder``; render and keep it first if it is new.

    Args:
        dataset: Samples of one size with sharp images.
        settings: Lens and renderer settings; part of the cache's name.
        folder: Where the arrays are kept.
        tag: Name of the dataset and split, for the file name and the progress bar.
        workers: Processes that render; the number of CPU cores by default.
    """
    target = Path(folder) / f"{tag}-{_fingerprint(dataset, settings)}"
    if not (target / "done").is_file():
        _render_all(dataset, settings, target, tag, workers or os.cpu_count() or 1)
    return DefocusedSet(*(np.load(target / f"{name}.npy", mmap_mode="r") for name in _ARRAYS))


def _fingerprint(dataset: Sequence[RgbdSample], settings: RenderSettings) -> str:
    key = json.dumps([_VERSION, len(dataset), asdict(settings)], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def _render_all(
    dataset: Sequence[RgbdSample],
    settings: RenderSettings,
    target: Path,
    tag: str,
    workers: int,
) -> None:
    target.mkdir(parents=True, exist_ok=True)
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
                    f"got {depth_m.shape} at number {index}"
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
    return defocused, sample.sharp_rgb, sample.depth_m
