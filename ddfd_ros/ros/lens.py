"""The lens and view parameters as the core takes them, and the guard that watches the lens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ddfd_ros.core.blur_zones import UNKNOWN, takes_any_lens
from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.lens_guard import (
    INFINITY_M,
    CameraLens,
    LensVerdict,
    check_range,
    compare_lens,
    compare_strength,
)
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.point_cloud import CloudOptions
from ddfd_ros.core.trust import Thresholds
from ddfd_ros.core.types import Estimate
from ddfd_ros.core.view import View, ViewOptions
from ddfd_ros.ros.lens_file import lens_in_force
from ddfd_ros.ros.parameters import NodeParameters


def view_options(
    parameters: NodeParameters,
    size: tuple[int, int] | None = None,
    focal_length_px: float = 0.0,
) -> ViewOptions:
    """What the network is to see of the camera's image.

    Args:
        parameters: The node's parameters.
        size: Height and width of the camera's image, to which a calibration is scaled; None: that
            of the calibration.
        focal_length_px: See ``camera_lens``.

    Raises:
        LensCalibrationError: The calibration is of images with another shape.
    """
    camera = camera_lens(parameters, focal_length_px, size)
    lens = camera.lens()
    measured = _calibration(parameters)
    known = measured is None or measured.pitch_known
    sigma_0_px = parameters.camera_sigma_0_px
    if measured is not None and not sigma_0_px:
        height, width = size or (measured.height, measured.width)
        sigma_0_px = measured.sigma_0_for(width, height)
    return ViewOptions(
        pixel_pitch_m=camera.pixel_pitch_m if known else 0.0,
        px_per_dioptre=0.0 if lens is None else lens.px_per_dioptre,
        sigma_0_px=sigma_0_px,
        height=parameters.network_height,
        width=parameters.network_width,
        oversize=parameters.oversize,
        network_size=parameters.output_size == "network",
    )


def thresholds(parameters: NodeParameters) -> Thresholds:
    """The pipeline's thresholds; a parameter of 0 means no limit."""
    return Thresholds(
        max_sigma_m=parameters.max_sigma_m or math.inf,
        min_depth_m=parameters.min_depth_m,
        max_depth_m=parameters.max_depth_m or math.inf,
        max_edge=parameters.max_edge or math.inf,
        mark_range=parameters.out_of_range == "rep117",
        dead_zone_px=parameters.dead_zone_px,
    )


def cloud_options(parameters: NodeParameters) -> CloudOptions:
    """Which pixels become points; a parameter of 0 means no limit."""
    return CloudOptions(
        decimation=parameters.cloud_decimation,
        organized=parameters.cloud_organized,
        max_edge=parameters.cloud_max_edge or math.inf,
        min_depth_m=parameters.cloud_min_depth_m,
        max_depth_m=parameters.cloud_max_depth_m or math.inf,
        max_sigma_m=parameters.cloud_max_sigma_m or math.inf,
    )


def _calibration(parameters: NodeParameters) -> LensCalibration | None:
    return lens_in_force(parameters.lens_calibration)[0] if parameters.lens_calibration else None


def calibration_problem(parameters: NodeParameters) -> str:
    """Why the calibration in force is not what its file says now; empty when it is."""
    return lens_in_force(parameters.lens_calibration)[1] if parameters.lens_calibration else ""


def needs_camera_info(contract: ModelContract, parameters: NodeParameters) -> bool:
    """Whether the lens that the model is told depends on K."""
    return (
        takes_any_lens(contract)
        and not parameters.lens_calibration
        and not parameters.camera_focal_length_mm
        and parameters.camera_pixel_pitch_um > 0
    )


def camera_lens(
    parameters: NodeParameters,
    focal_length_px: float = 0.0,
    size: tuple[int, int] | None = None,
) -> CameraLens:
    """What is known of the lens at the size of the camera's image.

    Args:
        parameters: The node's parameters.
        focal_length_px: K[0] of that image (P[0] where it is rectified); 0: not calibrated.
        size: Its height and width; see ``view_options``.

    Raises:
        LensCalibrationError: The calibration is of images with another shape.
    """
    measured = _calibration(parameters)
    if measured is not None:
        height, width = size or (measured.height, measured.width)
        lens = measured.lens_for(width, height)
        return CameraLens(
            lens.focal_length_m,
            lens.f_number,
            parameters.camera_focus_distance_m or min(lens.focus_distance_m, INFINITY_M),
            lens.pixel_pitch_m,
        )
    pitch_m = parameters.camera_pixel_pitch_um * 1e-6
    given = CameraLens(
        focal_length_m=parameters.camera_focal_length_mm * 1e-3,
        f_number=parameters.camera_f_number,
        focus_distance_m=parameters.camera_focus_distance_m,
        pixel_pitch_m=pitch_m,
    )
    return given.with_camera(focal_length_px, pitch_m)


def judge_lens(
    contract: ModelContract,
    parameters: NodeParameters,
    focal_length_px: float,
    view: View,
) -> LensVerdict:
    """Compare the camera, as the network sees it, with the lenses the model was trained for.

    With the guard switched off there still is a verdict where the model cannot answer at all.
    """
    any_lens = takes_any_lens(contract)
    if parameters.lens_guard == "ignore" and not any_lens:
        return LensVerdict()
    camera = camera_lens(parameters, focal_length_px, (view.input_height, view.input_width))
    seen = replace(camera, pixel_pitch_m=camera.pixel_pitch_m / view.scale)
    if any_lens:
        verdict = check_range(contract.lens_range, seen)
        return verdict if verdict.beyond or parameters.lens_guard != "ignore" else LensVerdict()
    if parameters.lens_calibration:
        # Measured is how strongly the lens blurs, not what is engraved on it.
        return compare_strength(contract.lens, seen, parameters.lens_tolerance)
    return compare_lens(contract.lens, seen, parameters.lens_tolerance)


def guarded(estimate: Estimate, verdict: LensVerdict, parameters: NodeParameters) -> Estimate:
    """What of an estimate may go out: without depth, if that is asked for where the lens differs.

    A lens beyond what the model knows leaves nothing that was measured, whatever is asked for.
    """
    if verdict.beyond:
        return _blank(estimate, "depth_m", "sigma_m", "defocus_px")
    if verdict.problem and parameters.lens_guard == "blank":
        return _blank(estimate, "depth_m")
    return estimate


def _blank(estimate: Estimate, *heads: str) -> Estimate:
    """The estimate with these heads unknown everywhere; so are the zones, which go with depth."""
    blank = {
        head: np.full_like(values, np.nan)
        for head in heads
        if (values := getattr(estimate, head)) is not None
    }
    if estimate.zones is not None:
        blank["zones"] = np.full_like(estimate.zones, UNKNOWN)
    return replace(estimate, **blank)
