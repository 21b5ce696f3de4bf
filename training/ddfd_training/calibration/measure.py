"""From pictures of the target to profiles: find it, know the camera, know the distances."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ddfd_training.calibration.detection import (
    Camera,
    Pose,
    estimate_camera,
    find_circles,
    find_pose,
)
from ddfd_training.calibration.edge_spread import Profile, linear_light, profiles
from ddfd_training.calibration.errors import CalibrationError
from ddfd_training.calibration.target import Target

FEWEST_PICTURES = 4
MOST_PROFILES = 500
LARGEST_SIDE_PX = 1280
"""Larger pictures are scaled down to this before they are measured: blur that spans many pixels
tells nothing more in finer ones, and the time and memory of the fit grow with them."""
_POSE_ERROR_PX = 2.0
_MOST_SATURATED = 0.2
"""Of the sheet: clipped white narrows the blur that is seen, and looks like another lens."""


@dataclass(frozen=True)
class Picture:
    """A picture of the target.

    Attributes:
        name: For messages.
        image: uint8 ``[H, W, 3]`` or ``[H, W]``.
        sharp: The same view through a small aperture, if there is one: the target is found in it,
            and it shows the spread in focus.
    """

    name: str
    image: np.ndarray
    sharp: np.ndarray | None = None


@dataclass(frozen=True)
class Found:
    """A picture in which the target was found."""

    picture: Picture
    circles_px: np.ndarray


@dataclass(frozen=True)
class Measurement:
    """What the pictures say.

    Attributes:
        profiles: Of all circles.
        names: Of the pictures, by number.
        distances_m: Of the target's middle, by number.
        camera: Intrinsics that were used.
        size: Height and width of the pictures as measured, which all pixels here are of.
        skipped: Names of pictures that were left out, with the reason.
        response: ``srgb`` or ``linear``.
        scale: Of the pictures as measured to those given, 1 or less.
    """

    profiles: list[Profile]
    names: list[str]
    distances_m: list[float]
    camera: Camera
    size: tuple[int, int]
    skipped: dict[str, str]
    response: str
    scale: float = 1.0


def measured_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width at which pictures of ``size`` are measured."""
    scale = min(1.0, LARGEST_SIDE_PX / max(size))
    return round(size[0] * scale), round(size[1] * scale)


def _as_measured(image: np.ndarray) -> np.ndarray:
    height, width = measured_size((image.shape[0], image.shape[1]))
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def find_target(
    pictures: Iterable[Picture], target: Target
) -> tuple[list[Found], dict[str, str], tuple[int, int]]:
    """Pictures that show the whole target, why the others do not serve, and the size given.

    They come back as they are measured, see ``LARGEST_SIDE_PX``.
    """
    found: list[Found] = []
    skipped: dict[str, str] = {}
    given = (0, 0)
    for picture in pictures:
        size = (picture.image.shape[0], picture.image.shape[1])
        if found and size != given:
            skipped[picture.name] = f"another size, {size}"
            continue
        sharp = None if picture.sharp is None else _as_measured(picture.sharp)
        smaller = Picture(picture.name, _as_measured(picture.image), sharp)
        circles = find_circles(smaller.image if sharp is None else sharp, target)
        if circles is None:
            skipped[picture.name] = "target not found"
        else:
            found.append(Found(smaller, circles))
            given = size
    return found, skipped, given


def measure(
    pictures: Iterable[Picture],
    target: Target,
    camera: Camera | None,
    *,
    response: str = "srgb",
    sharp_share: float = 0.0,
    say: Callable[[str], None] = lambda text: None,
) -> Measurement:
    """Find the target in each picture and measure its edges.

    Args:
        pictures: Of one size.
        target: The target.
        camera: Intrinsics of the pictures, or of scaled ones where it knows its size; None:
            estimated from the pictures.
        response: See ``linear_light``.
        sharp_share: Blur of sharp companions over that of the pictures: the ratio of f-numbers.
        say: Told what is being done.

    Raises:
        CalibrationError: Too few pictures show the target, the camera is not determined, or its
            intrinsics are of images of another shape.
    """
    found, skipped, given = find_target(pictures, target)
    if len(found) < FEWEST_PICTURES:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:4])
        raise CalibrationError(
            f"pictures: expected at least {FEWEST_PICTURES} that show the whole target of "
            f"{target.per_row}x{target.rows} circles, got {len(found)} ({reasons}); keep all of "
            "it in the picture, evenly lit, and say how it was printed (--circles)"
        )
    size = measured_size(given)
    if size != given:
        say(
            f"pictures of {given[1]}x{given[0]} are measured at {size[1]}x{size[0]}: all pixels "
            "are of that size"
        )
    if camera is None:
        say("estimating the camera's intrinsics")
        camera = estimate_camera([f.circles_px for f in found], target, size)
    camera = camera.for_size(given if camera.size is None else camera.size).for_size(size)
    collected: list[Profile] = []
    names: list[str] = []
    distances_m: list[float] = []
    for item in found:
        pose = find_pose(item.circles_px, target, camera)
        if not pose.error_px < _POSE_ERROR_PX or pose.translation_m[2] <= 0:
            skipped[item.picture.name] = f"the target's pose is off by {pose.error_px:.1f} px"
            continue
        saturated = max(
            _saturated(image, item.circles_px)
            for image in (item.picture.image, item.picture.sharp)
            if image is not None
        )
        if saturated > _MOST_SATURATED:
            skipped[item.picture.name] = (
                f"over-exposed: {100 * saturated:.0f} % of the sheet is saturated"
            )
            continue
        own = _of_picture(len(names), item.picture, target, camera, pose, response, sharp_share)
        if not own:
            skipped[item.picture.name] = "circles too small, or cut off"
            continue
        collected += own
        names.append(item.picture.name)
        distances_m.append(float(np.mean(pose.in_camera_m(target.centres_mm())[:, 2])))
    if len(names) < FEWEST_PICTURES:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:4])
        raise CalibrationError(
            f"pictures: expected at least {FEWEST_PICTURES} that can be measured, got "
            f"{len(names)} ({reasons})"
        )
    collected = _thinned(collected)
    return Measurement(
        collected, names, distances_m, camera, size, skipped, response, size[1] / given[1]
    )


def _of_picture(
    number: int,
    picture: Picture,
    target: Target,
    camera: Camera,
    pose: Pose,
    response: str,
    sharp_share: float,
) -> list[Profile]:
    own = profiles(number, linear_light(picture.image, response), target, camera, pose)
    if own and picture.sharp is not None:
        light = linear_light(picture.sharp, response)
        own += profiles(number, light, target, camera, pose, sharp_share)
    return own


def _saturated(image: np.ndarray, circles_px: np.ndarray) -> float:
    """Share of the pixels among the circles that are at the limit in any channel."""
    among = np.zeros(image.shape[:2], np.uint8)
    cv2.fillConvexPoly(among, cv2.convexHull(np.rint(circles_px).astype(np.int32)), 1)
    pixels = image[among > 0]
    limit = np.iinfo(image.dtype).max
    return float(np.mean((pixels.reshape(len(pixels), -1) == limit).any(axis=-1)))


def _thinned(found: list[Profile]) -> list[Profile]:
    """At most ``MOST_PROFILES``, evenly over pictures and circles."""
    if len(found) <= MOST_PROFILES:
        return found
    kept = np.linspace(0, len(found) - 1, MOST_PROFILES).round().astype(int)
    return [replace(found[i]) for i in kept]
