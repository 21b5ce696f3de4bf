"""From pictures of the target to profiles: find it, know the camera, know the distances."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

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
_POSE_ERROR_PX = 2.0


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
        size: Height and width of the pictures.
        skipped: Names of pictures that were left out, with the reason.
        response: ``srgb`` or ``linear``.
    """

    profiles: list[Profile]
    names: list[str]
    distances_m: list[float]
    camera: Camera
    size: tuple[int, int]
    skipped: dict[str, str]
    response: str


def find_target(pictures: Iterable[Picture], target: Target) -> tuple[list[Found], dict[str, str]]:
    """Pictures that show the whole target, and why the others do not serve."""
    found: list[Found] = []
    skipped: dict[str, str] = {}
    for picture in pictures:
        if found and picture.image.shape[:2] != found[0].picture.image.shape[:2]:
            skipped[picture.name] = f"another size, {picture.image.shape[:2]}"
            continue
        best = picture.image if picture.sharp is None else picture.sharp
        circles = find_circles(best, target)
        if circles is None:
            skipped[picture.name] = "target not found"
        else:
            found.append(Found(picture, circles))
    return found, skipped


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
        camera: Intrinsics; None: estimated from the pictures.
        response: See ``linear_light``.
        sharp_share: Blur of sharp companions over that of the pictures: the ratio of f-numbers.
        say: Told what is being done.

    Raises:
        CalibrationError: Too few pictures show the target, or the camera is not determined.
    """
    found, skipped = find_target(pictures, target)
    if len(found) < FEWEST_PICTURES:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:4])
        raise CalibrationError(
            f"pictures: expected at least {FEWEST_PICTURES} that show the whole target of "
            f"{target.per_row}x{target.rows} circles, got {len(found)} ({reasons}); keep all of "
            "it in the picture, evenly lit, and say how it was printed (--circles)"
        )
    height, width = found[0].picture.image.shape[:2]
    if camera is None:
        say("estimating the camera's intrinsics")
        camera = estimate_camera([f.circles_px for f in found], target, (height, width))
    collected: list[Profile] = []
    names: list[str] = []
    distances_m: list[float] = []
    for item in found:
        pose = find_pose(item.circles_px, target, camera)
        if not pose.error_px < _POSE_ERROR_PX or pose.translation_m[2] <= 0:
            skipped[item.picture.name] = f"the target's pose is off by {pose.error_px:.1f} px"
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
    return Measurement(collected, names, distances_m, camera, (height, width), skipped, response)


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


def _thinned(found: list[Profile]) -> list[Profile]:
    """At most ``MOST_PROFILES``, evenly over pictures and circles."""
    if len(found) <= MOST_PROFILES:
        return found
    kept = np.linspace(0, len(found) - 1, MOST_PROFILES).round().astype(int)
    return [replace(found[i]) for i in kept]
