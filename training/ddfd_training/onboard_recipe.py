"""The recipe that fits a model to one calibrated lens."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import DISK_SIGMA_PER_DIAMETER, LensConfig
from ddfd_training.config import SourceConfig
from ddfd_training.sources import split_of

FARTHEST_FOCUS_M = 100.0
_AROUND_A, _AROUND_FOCUS_DIOPTRE = 0.05, 0.02
"""How far drawn lenses lie from the calibrated one: about what a calibration may be off."""


class OnboardError(DdfdError):
    """The arguments do not lead to a model."""


@dataclass(frozen=True)
class Recording:
    """Sizes of a folder's pictures of the calibrated camera, each height and width in pixels.

    Attributes:
        image_px: Of the pictures as they are.
        frame_px: Of the whole frames that they were cut from (``ddfd-prepare``), at their scale.
    """

    image_px: tuple[int, int]
    frame_px: tuple[int, int]


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        name: Of the run and the model.
        data: ``synthetic``, or a data set with sharp images and depth.
        root: Its folder.
        split: Its split for training.
        scenes: Number of scenes of ``synthetic``.
        pairs: Folder with rgb/ and sharp/ for training without depth; empty: with truth.
        sharp_ratio: Blur in the ``sharp/`` of ``pairs`` over that in its ``rgb/``, the ratio of
            f-numbers; 0: they have none.
        natural: Folder with rgb/, sharp/ and depth/ of this very camera, trained on beside; or
            empty.
        recording: Sizes of the pictures in ``pairs`` or ``natural``; None: the calibration's.
        width: Width in pixels of the images that the robot will use; 0: the calibration's.
        init: Weights to start from, or empty.
        sigma_0_px: How far a point in focus is spread in the pictures of their training; or 0.
        steps: Of training.
        depth_range_m: What the model answers.
    """

    name: str = "mine"
    data: str = "synthetic"
    root: str = ""
    split: str = "train"
    scenes: int = 200
    pairs: str = ""
    sharp_ratio: float = 0.0
    natural: str = ""
    recording: Recording | None = None
    width: int = 0
    init: str = ""
    sigma_0_px: float = 0.0
    steps: int = 1500
    depth_range_m: tuple[float, float] = (0.5, 10.0)


def working_lens(calibration: LensCalibration, width: int) -> LensConfig:
    """The lens at the width that is worked with (its height follows), see ``lens_for``."""
    width = width or calibration.width
    return calibration.lens_for(width, round(calibration.height * width / calibration.width))


def _folder(root: str, job: Job, calibration: LensCalibration) -> dict[str, Any]:
    """A recording of the calibrated camera as a source, at the width that is worked with.

    What its lists keep for testing stays apart.

    Raises:
        LensCalibrationError: Its frames have another shape than those that were calibrated with.
        DatasetError: It has a list of what to test on and none of what to train on.
    """
    whole = calibration.height, calibration.width
    recording = job.recording or Recording(whole, whole)
    frame_height, frame_width = recording.frame_px
    width = job.width or calibration.width
    source: dict[str, Any] = {
        "dataset": "folder",
        "root": root,
        "split": split_of(SourceConfig("folder", root)),
        # What was measured, whatever the folder's own lens.json says.
        "options": {"lens": asdict(calibration.lens_for(frame_width, frame_height))},
    }
    if abs(width - frame_width) > 1:  # less is rounding, for which no blur is resampled
        # Pictures that were cut stay parts of the frame.
        source["size"] = [round(width / frame_width * side) for side in recording.image_px]
    return source


def around(lens: LensConfig, calibration: LensCalibration) -> dict[str, Any]:
    """Ranges of lenses to draw: the calibrated one, give or take what it may be off."""
    a = lens.px_per_dioptre
    focus = max(lens.focus_dioptre, 1 / FARTHEST_FOCUS_M)
    near_m = 1 / (focus + _AROUND_FOCUS_DIOPTRE)
    far_m = 1 / max(focus - _AROUND_FOCUS_DIOPTRE, 1 / FARTHEST_FOCUS_M)
    share = calibration.gaussian_share if calibration.shape == "blend" else 0.0
    share = 1.0 if calibration.shape == "gaussian" else share
    k = calibration.gaussian_sigma_per_diameter
    return {
        "draws": 2,
        "px_per_dioptre": [a * (1 - _AROUND_A), a * (1 + _AROUND_A)],
        "focus_distance_m": [near_m, far_m],
        "sigma_per_diameter": [0.95 * k, 1.05 * k],
        "gaussian_share": [max(share - 0.1, 0.0), min(share + 0.1, 1.0)],
    }


def recipe(job: Job, calibration: LensCalibration) -> dict[str, Any]:
    """Plain values of the recipe.

    Raises:
        OnboardError: Settings of the job that do not go together.
        LensCalibrationError: A recording's frames have another shape than the calibration's.
        DatasetError: A recording lists what to test on, but not what to train on.
    """
    if job.sharp_ratio and not job.pairs:
        raise OnboardError(
            "--sharp-ratio: expected --pairs beside it, whose sharp/ has that share of the blur, "
            "got none; leave it out"
        )
    if not 0 <= job.sharp_ratio < 1:
        raise OnboardError(
            f"--sharp-ratio: expected 0 to below 1, got {job.sharp_ratio:g}; it is the f-number "
            "of the wide aperture over that of the small one"
        )
    lens = working_lens(calibration, job.width)
    common = {
        "name": job.name,
        "lens": asdict(lens),
        "depth_range_m": list(job.depth_range_m),
        "steps": job.steps,
        "save_every": max(1, min(250, job.steps)),
        "validate_every": max(1, min(1000, job.steps)),
        "seed": 1,
    }
    if job.pairs:
        return common | _without_depth(job, lens, calibration)
    source: dict[str, Any] = {
        "dataset": job.data,
        "root": job.root,
        "split": job.split,
        "count": job.scenes,
        "lenses": around(lens, calibration),
    }
    sources = [source]
    if job.natural:
        sources.append(_folder(job.natural, job, calibration))
    start: dict[str, Any] = {"init": job.init} if job.init else {}
    if job.sigma_0_px and not job.natural:
        # The same scenes as before; beside the camera's own pictures, none would be as sharp.
        start["sigma_0_px"] = job.sigma_0_px
    return (
        common
        | start
        | {
            "network": {"name": "ddfd-lite", "options": {"lens_input": True}},
            "fit_sigma": True,
            "data": {"sources": sources, "crop_px": 192, "batch_size": 8, "noise_std": 2.0},
            "optimizer": {"learning_rate": 1.0e-3 if job.init else 2.0e-3, "warmup_steps": 100},
        }
    )


def _without_depth(job: Job, lens: LensConfig, calibration: LensCalibration) -> dict[str, Any]:
    """Learning from pairs of a wide and a small aperture alone, by re-blurring."""
    near_m, far_m = job.depth_range_m
    side = "unknown"  # the focus lies inside the scene
    if lens.focus_distance_m >= far_m:
        side = "near"
    elif lens.focus_distance_m <= near_m:
        side = "far"
    if job.natural:
        raise OnboardError(
            f"--natural: expected none with --pairs, which learns without depth, got {job.natural}"
            "; leave either out"
        )
    if job.init:
        raise OnboardError(
            "--init: expected none with --pairs, whose network is built differently, got "
            f"{job.init}"
        )
    # The lens is that of disks which spread as much: sigma is a quarter of its diameter.
    options: dict[str, Any] = {
        "kernel": "gaussian" if calibration.shape == "gaussian" else "disk",
        "sigma_per_diameter": DISK_SIGMA_PER_DIAMETER,
    }
    if job.sharp_ratio:
        options |= {"sharp": "network", "narrow_ratio": job.sharp_ratio}
    return {
        "network": {"name": "2hded-selfsup", "options": {"backbone": "ddfd-lite", "side": side}},
        "data": {
            "sources": [_folder(job.pairs, job, calibration)],
            "crop_px": 128,
            "batch_size": 8,
        },
        "loss": {"name": "thesis2023-selfsup", "options": options},
        "optimizer": {"learning_rate": 2.0e-3, "warmup_steps": 100},
    }


def model_paths(out: Path, name: str) -> tuple[Path, Path]:
    """Where the checkpoint and the exported model lie."""
    return out / name / f"{name}.pt", out / f"{name}.onnx"
