"""The lens and view parameters as the core takes them, and the guard that watches the lens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ddfd_ros.core.blur_zones import takes_any_lens
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
from ddfd_ros.ros.lens_file import read_lens_file
from ddfd_ros.ros.parameters import NodeParameters


def view_options(parameters: NodeParameters, size: tuple[int, int] | None = None) -> ViewOptions:
    """What the network is to see of the camera's image.

    Args:
        parameters: The node's parameters.
        size: Height and width of the camera's image, to which a calibration is scaled; None: that
            of the calibration.

    Raises:
        LensCalibrationError: The calibration is of images with another shape.
    """
    camera = camera_lens(parameters, size=size)
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
    return read_lens_file(parameters.lens_calibration) if parameters.lens_calibration else None


def camera_lens(
    parameters: NodeParameters,
    focal_length_px: float = 0.0,
    size: tuple[int, int] | None = None,
) -> CameraLens:
    """What is known of the lens at the size of the camera's image.

    Args:
        parameters: The node's parameters.
        focal_length_px: K[0] of that image; 0: not calibrated.
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
    """Compare the camera, as the network sees it, with the lenses the model was trained for."""
    if parameters.lens_guard == "off":
        return LensVerdict()
    camera = camera_lens(parameters, focal_length_px, (view.input_height, view.input_width))
    seen = replace(camera, pixel_pitch_m=camera.pixel_pitch_m / view.scale)
    if takes_any_lens(contract):
        return check_range(contract.lens_range, seen)
    if parameters.lens_calibration:
        # Measured is how strongly the lens blurs, not what is engraved on it.
        return compare_strength(contract.lens, seen, parameters.lens_tolerance)
    return compare_lens(contract.lens, seen, parameters.lens_tolerance)


def blank_depth(estimate: Estimate) -> Estimate:
    """The estimate with every depth unknown; what else it holds stays."""
    if estimate.depth_m is None:
        return estimate
    return replace(estimate, depth_m=np.full_like(estimate.depth_m, np.nan))
