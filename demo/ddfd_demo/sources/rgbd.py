"""Inputs with known depth: RGB-D folders, NYUv2, and the naturally defocused DSLR set.

The files are read by the data sets of ``ddfd_training``; here they become frames of a camera.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ddfd_demo.sources.base import DemoFrame, Intrinsics, Source, SourceInfo, spread
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.datasets.base import RgbdSample

RECORDING_HZ = 15.0
"""Rate at which a recording without time stamps is played: every second frame of a Kinect's."""


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
    """Any folder with ``rgb/`` and ``depth/``; played as a video when it says it is a recording.

    A recording has ``pose/`` or a camera's intrinsics beside its frames. Pictures without a
    ``sharp/`` companion are taken for sharp and blurred, unless ``natural``.
    """
    from ddfd_training.datasets.rgbd_folder import RgbdFolder

    samples = RgbdFolder(root, rgb_is="defocused" if natural else "auto")
    recording = (root / "pose").is_dir() or samples.intrinsics is not None
    count = len(samples)
    indices = list(range(min(count, limit))) if recording else spread(count, limit)
    notes = [
        "sharp pictures, blurred by the optics simulator with the model's lens (--natural feeds "
        "them as they are)"
        if samples.rgb_is == "sharp"
        else "pictures with their own defocus, fed as they are"
    ]
    if samples.skipped:
        notes.append(f"{len(samples.skipped)} files without a partner left out")
    info = SourceInfo(
        "rgbd",
        f"RGB-D folder {root.name}, {len(indices)} of {count} frames",
        "stream" if recording else "wait",
        rate_hz=RECORDING_HZ,
        notes=tuple(notes),
    )
    intrinsics = None if samples.intrinsics is None else Intrinsics(*samples.intrinsics)
    return RgbdSource(info, samples, indices, intrinsics, RECORDING_HZ if recording else None)
