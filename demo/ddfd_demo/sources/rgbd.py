"""Inputs with known depth: RGB-D folders, NYUv2, and the naturally defocused DSLR set.

The files are read by the data sets of ``ddfd_training``; here they become frames of a camera.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ddfd_demo.errors import InputError
from ddfd_demo.sources.base import DemoFrame, Intrinsics, Pacing, Source, SourceInfo, spread
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.datasets.base import RgbdSample


class RgbdSource(Source):
    """Some samples of an RGB-D data set, with their truth."""

    def __init__(
        self,
        info: SourceInfo,
        samples: Sequence[RgbdSample],
        indices: Sequence[int],
        intrinsics: Intrinsics | None,
        rate_hz: float | None = None,
    ) -> None:
        super().__init__(info)
        self._samples = samples
        self._indices = indices
        self._intrinsics = intrinsics
        self._rate_hz = rate_hz

    def __len__(self) -> int:
        return len(self._indices)

    def frames(self) -> Iterator[DemoFrame]:
        """The chosen samples; a picture without defocus waits for the optics simulator."""
        for position, index in enumerate(self._indices):
            sample = self._samples[index]
            yield DemoFrame(
                sample.name,
                sample.defocused_rgb,
                self._intrinsics,
                depth_m=sample.depth_m,
                sharp_rgb=sample.sharp_rgb,
                time_s=None if self._rate_hz is None else position / self._rate_hz,
            )


def open_dslr(root: Path, limit: int) -> RgbdSource:
    """The test pairs of D3-Net's DSLR set: N2.8 is played, N8 is the reference for sharpness."""
    from ddfd_training.datasets.dfd_dslr import DfdDslr

    if root.name.startswith("dfd_dataset_indoor_"):
        root = root.parent
    samples = DfdDslr(root, "test", aperture="N2_8")
    indices = spread(len(samples), limit)
    lens = LENS_PRESETS["dslr"]
    focal_px = lens.focal_length_m / lens.pixel_pitch_m
    height, width = samples[0].depth_m.shape
    info = SourceInfo(
        "dfd_dslr",
        f"D3-Net's DSLR set, {len(indices)} of {len(samples)} test photographs at f/2.8",
        "wait",
        model="dslr",
        lens=lens,
        natural_pairs=True,
        depth_limit_m=3.5,
        notes=(
            "natural defocus, fed as photographed; the depth sensor reaches about 3.5 m, farther "
            "truth is filled in",
            "PSNR and SSIM against the f/8 photograph of the same view, registered first",
        ),
    )
    intrinsics = Intrinsics(focal_px, focal_px, (width - 1) / 2, (height - 1) / 2)
    return RgbdSource(info, samples, indices, intrinsics)


def open_nyuv2(root: Path, limit: int) -> RgbdSource:
    """Frames of NYUv2's test list, to be blurred with the model's lens."""
    from ddfd_training.datasets.nyuv2 import CROP, INTRINSICS_640X480, Nyuv2

    samples = Nyuv2(root, "test")
    indices = spread(len(samples), limit)
    fx, fy, cx, cy = INTRINSICS_640X480
    rows, columns = CROP
    intrinsics = Intrinsics(fx, fy, cx - columns.start, cy - rows.start)
    info = SourceInfo(
        "nyuv2",
        f"NYUv2, {len(indices)} of {len(samples)} test frames",
        "wait",
        notes=("sharp pictures, blurred by the optics simulator with the model's lens",),
    )
    return RgbdSource(info, samples, indices, intrinsics)


def open_rgbd(root: Path, limit: int, *, natural: bool) -> Source:
    """Any folder with ``rgb/`` and ``depth/``; a video where the frames are numbered in a row."""
    from ddfd_training.datasets.rgbd_folder import RgbdFolder

    samples = RgbdFolder(root)
    if len(samples) == 0:
        raise InputError(
            f"{root}: expected pictures in rgb/ with depth maps of the same name in depth/, got "
            "no pair; are the file stems equal?"
        )
    video = (root / "pose").is_dir() or (root / "camera-intrinsics.txt").is_file()
    rate_hz = 15.0 if video else None
    indices = list(range(min(len(samples), limit))) if video else spread(len(samples), limit)
    pacing: Pacing = "stream" if video else "wait"
    how = (
        "fed as they are (--natural)"
        if natural
        else "sharp pictures, blurred by the optics simulator with the model's lens "
        "(--natural feeds them as they are)"
    )
    info = SourceInfo(
        "rgbd",
        f"RGB-D folder {root.name}, {len(indices)} of {len(samples)} frames",
        pacing,
        rate_hz=rate_hz or 10.0,
        notes=(how,),
    )
    source = RgbdSource(info, samples, indices, _read_intrinsics(root), rate_hz)
    return source if not natural else _Natural(source)


class _Natural(Source):
    """An RGB-D folder whose pictures already carry the camera's defocus."""

    def __init__(self, source: RgbdSource) -> None:
        super().__init__(source.info)
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def frames(self) -> Iterator[DemoFrame]:
        for frame in self._source.frames():
            image = frame.image_rgb if frame.image_rgb is not None else frame.sharp_rgb
            yield DemoFrame(
                frame.name, image, frame.intrinsics, depth_m=frame.depth_m, time_s=frame.time_s
            )


def _read_intrinsics(root: Path) -> Intrinsics | None:
    """``camera-intrinsics.txt``: a 3x3 matrix in pixels of the pictures."""
    path = root / "camera-intrinsics.txt"
    if not path.is_file():
        return None
    try:
        matrix = np.loadtxt(path).reshape(3, 3)
    except ValueError as error:
        raise InputError(
            f"{path}: expected a 3x3 camera matrix as text, got {error}; correct or remove it"
        ) from error
    return Intrinsics(
        *(float(v) for v in (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]))
    )
