"""The camera of an image's own pixels, from the ``CameraInfo`` that came with it.

Messages are duck-typed: any object with the fields of ``sensor_msgs/CameraInfo`` will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddfd_ros.core.preprocessing import Intrinsics, crop_intrinsics, scale_intrinsics

FISHEYE_MODELS = ("equidistant", "fisheye")
"""ROS and OpenCV name the same model differently."""

_PINHOLE_MODELS = ("", "plumb_bob", "rational_polynomial")

_SAME_ASPECT = 0.01
_PINHOLE_LENGTHS, _FISHEYE_LENGTHS = (4, 5, 8, 12, 14), (4,)


def correct_camera(
    info: Any | None, height: int, width: int, rectified: bool = False
) -> tuple[Intrinsics | None, str]:
    """The camera of a ``height`` x ``width`` image without region of interest and binning.

    Args:
        info: The camera's ``CameraInfo``; None when none has arrived.
        height: Rows of the image in pixels.
        width: Columns of the image in pixels.
        rectified: Whether it is the rectified image, which shares its ``CameraInfo`` with the raw
            one: K, which is the raw image's there, becomes that of P, and D does not count.

    Returns:
        The camera, None where it cannot be told honestly (publish an uncalibrated info then); and
        what is wrong in words (empty: nothing).
    """
    if info is None:
        return None, (
            "camera_info: expected one message per camera, got none yet; depth is published with "
            "an uncalibrated camera_info: remap camera_info to the camera's topic"
        )
    camera = Intrinsics(info.width, info.height, tuple(info.k), tuple(info.p))
    if not camera.calibrated or not all(map(math.isfinite, (*info.d, *info.r))):
        return None, (
            f"camera_info: expected a calibration, got K[0] = {info.k[0]}, K[4] = {info.k[4]} or "
            "values that are not finite; depth is published with an uncalibrated camera_info, no "
            "point cloud can be made of it: calibrate the camera"
        )
    problem = _region_problem(info) or ("" if rectified else _distortion_problem(info))
    if problem:
        return None, problem
    if not all(map(math.isfinite, camera.p)) or camera.p[0] <= 0 or camera.p[5] <= 0:
        k = camera.k  # a driver that fills K alone: the image is its own rectified one
        p = (*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0)
        camera = Intrinsics(camera.width, camera.height, k, p)
    if rectified:
        p = camera.p
        camera = Intrinsics(camera.width, camera.height, (*p[0:3], *p[4:7], *p[8:11]), p)
    camera = _readout(camera, info)
    if not all(map(math.isfinite, (*camera.k, *camera.p))):
        return None, (
            "camera_info: expected numbers that stay finite with region of interest and binning, "
            f"got K[0] = {info.k[0]}; depth is published with an uncalibrated camera_info: "
            "calibrate the camera"
        )
    if (camera.height, camera.width) == (height, width):
        return camera, ""
    said = f"camera_info: expected the image's size {width}x{height}, got {camera.width}x"
    said += f"{camera.height} (after region of interest and binning)"
    if min(camera.height, camera.width) > 0:
        scale_x, scale_y = width / camera.width, height / camera.height
        if abs(scale_x / scale_y - 1) <= _SAME_ASPECT:
            return scale_intrinsics(camera, scale_x, scale_y), (
                f"{said}; taken as the same view resized by {scale_x:.4g}: let the driver publish "
                "the camera_info of this resolution"
            )
    return None, (
        f"{said}; another aspect, so the image was cropped in an unknown way: published as "
        "uncalibrated; let the driver publish the camera_info of this resolution"
    )


def published_lens(info: Any, rectified: bool) -> tuple[str, Sequence[float], Sequence[float]]:
    """``distortion_model``, ``d`` and ``r`` of a published ``CameraInfo``.

    Args:
        info: The camera's own.
        rectified: Whether the image is rectified. Nothing is distorted then, which is said, so
            that who pairs the image with K and D finds the right directions, too.
    """
    if rectified:
        return "plumb_bob", (0.0,) * 5, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    return info.distortion_model, info.d, info.r


def unknown_distortion(info: Any | None) -> str:
    """In words, that points of a raw image are made with another model than D is of.

    Args:
        info: The camera's ``CameraInfo``; None when none has arrived.

    Returns:
        Empty where the model is known, or nothing is distorted.
    """
    known = (*_PINHOLE_MODELS, *FISHEYE_MODELS)
    if info is None or info.distortion_model in known or not any(info.d):
        return ""
    return (
        "points: expected the distortion model plumb_bob, rational_polynomial or equidistant, got "
        f"{info.distortion_model!r}; D is read as plumb_bob's, and the points are wrong if it is "
        "not: rectify the image and set input_rectified, or calibrate with one of these models"
    )


def rectified_by_name(topic: str, info: Any | None) -> str:
    """In words, that images are taken for raw ones, though their topic says otherwise.

    Args:
        topic: Where the images come from.
        info: The camera's ``CameraInfo``; None when none has arrived.

    Returns:
        Empty where the name says nothing, or it makes no difference.
    """
    if info is None or "image_rect" not in topic:
        return ""
    k, p = np.reshape(info.k, (3, 3)), np.reshape(info.p, (3, 4))
    alike = not p[0, 0] > 0 or np.allclose(k, p[:, :3], rtol=1e-3, atol=0.1)
    if alike and not any(info.d):
        return ""
    return (
        f"{topic}: expected raw images (input_rectified is false), got rectified ones by that "
        "name, for which P of camera_info holds, not K and D: set input_rectified"
    )


def raw_image_doubts(info: Any | None, topic: str, cloud: bool) -> list[str]:
    """What may be wrong with a calibrated camera whose images are taken for raw ones, in words.

    Args:
        info: The camera's ``CameraInfo``; None when none has arrived.
        topic: Where the images come from.
        cloud: Whether points are made of them.
    """
    doubts = [rectified_by_name(topic, info), unknown_distortion(info) if cloud else ""]
    return [text for text in doubts if text]


def _distortion_problem(info: Any) -> str:
    """What is wrong with D: as many numbers as one of OpenCV's models has, but for zeros."""
    fisheye = info.distortion_model in FISHEYE_MODELS
    lengths = _FISHEYE_LENGTHS if fisheye else _PINHOLE_LENGTHS
    if len(info.d) in lengths or not any(info.d):
        return ""
    if fisheye and len(info.d) > 4 and not any(info.d[4:]):
        return ""  # of drivers that fill an array meant for another model
    return (
        f"camera_info: expected {', '.join(map(str, lengths))} coefficients of distortion "
        f"({info.distortion_model or 'plumb_bob'}), got {len(info.d)}; depth is published with an "
        "uncalibrated camera_info: calibrate the camera"
    )


def _region_problem(info: Any) -> str:
    """What is wrong with the region of interest: it is given in pixels of the full image."""
    roi = info.roi
    right, bottom = roi.x_offset + roi.width, roi.y_offset + roi.height
    if not (roi.width and roi.height) or (right <= info.width and bottom <= info.height):
        return ""
    return (
        f"camera_info: expected a region of interest within its {info.width}x{info.height}, got "
        f"one that ends at {right}, {bottom}; depth is published with an uncalibrated "
        "camera_info: let the driver publish the calibration of the full image"
    )


def _readout(camera: Intrinsics, info: Any) -> Intrinsics:
    """The camera of the pixels that the driver reads out: region of interest, then binning."""
    roi = info.roi
    if roi.width and roi.height:
        camera = crop_intrinsics(camera, roi.x_offset, roi.y_offset, roi.width, roi.height)
    bin_x, bin_y = max(1, info.binning_x), max(1, info.binning_y)
    if (bin_x, bin_y) != (1, 1):
        size = camera.width // bin_x, camera.height // bin_y
        camera = scale_intrinsics(camera, 1 / bin_x, 1 / bin_y)
        camera = crop_intrinsics(camera, 0, 0, *size)  # an incomplete last bin is not read out
    return camera
