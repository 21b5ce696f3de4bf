"""Is the camera the one the model was trained for?

A network that reads blur answers for one lens: at another aperture, focus or pixel pitch the same
blur means another distance, and nothing in the picture tells. So what is known of the camera is
compared with the lens in the model's contract.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ddfd_ros.core.thin_lens import LensConfig

INFINITY_M = 1e6
"""A focus distance from here on is taken as infinity."""

SAME_BLUR_PX = 0.5
"""Focus distances that move the blur by less than this are the same to a network."""

FOCUS_NAME = "focus_distance_m"


@dataclass(frozen=True)
class CameraLens:
    """What is known of the camera's lens; 0: not known.

    Attributes:
        focal_length_m: Focal length in metres.
        f_number: Aperture number.
        focus_distance_m: Distance of the plane in focus in metres.
        pixel_pitch_m: Distance of the pixels given to the network in metres.
    """

    focal_length_m: float = 0.0
    f_number: float = 0.0
    focus_distance_m: float = 0.0
    pixel_pitch_m: float = 0.0

    def lens(self) -> LensConfig | None:
        """The lens when everything is known and makes sense, else None."""
        focus_m = math.inf if self.focus_distance_m >= INFINITY_M else self.focus_distance_m
        try:
            return LensConfig(self.focal_length_m, self.f_number, focus_m, self.pixel_pitch_m)
        except ValueError:
            return None

    def with_camera(self, focal_length_px: float, image_pitch_m: float) -> CameraLens:
        """This lens with the focal length that a calibration implies, where it is not given.

        What a calibration calls focal length is the distance s from lens to sensor, at which
        1/f = 1/s + 1/d_f; of a lens whose focus is not known, f is taken to be s.

        Args:
            focal_length_px: K[0] of the camera's image in pixels; 0: not calibrated.
            image_pitch_m: Distance of that image's pixels in metres; 0: not known.
        """
        focal_m, image_m = self.focal_length_m, focal_length_px * image_pitch_m
        if not focal_m and image_m > 0:
            near = 0 < self.focus_distance_m < INFINITY_M
            focal_m = 1 / (1 / image_m + (1 / self.focus_distance_m if near else 0.0))
        return CameraLens(focal_m, self.f_number, self.focus_distance_m, self.pixel_pitch_m)


@dataclass(frozen=True)
class LensVerdict:
    """What the comparison showed.

    Attributes:
        checked: Names of what was compared.
        differences: In words, what differs beyond the tolerance.
        beyond: Whether the model cannot answer for such a lens at all, so that nothing that it
            measures may go out.
    """

    checked: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    beyond: bool = False

    @property
    def problem(self) -> str:
        """One sentence with the remedy; empty when nothing differs."""
        if not self.differences:
            return ""
        follows = "no depth is given" if self.beyond else "depth is wrong"
        return (
            f"lens: {'; '.join(self.differences)}: {follows}; set the lens to what the model "
            "was trained for, or use a model trained for this lens"
        )


def compare_lens(model: LensConfig | None, camera: CameraLens, tolerance: float) -> LensVerdict:
    """Compare what is known of the camera with the lens a model was trained for.

    Args:
        model: The contract's lens; None: nothing can be compared.
        camera: The camera's, at the size of the image that the network is given.
        tolerance: Accepted difference as a share of the model's value. A focus distance also
            passes when it moves the blur by less than ``SAME_BLUR_PX``.
    """
    if model is None:
        return LensVerdict()
    pairs = (
        ("focal length", model.focal_length_m, camera.focal_length_m, 1e3, "mm"),
        ("f-number", model.f_number, camera.f_number, 1.0, ""),
        ("pixel pitch", model.pixel_pitch_m, camera.pixel_pitch_m, 1e6, "um"),
    )
    checked, differences = [], []
    for name, expected, got, factor, unit in pairs:
        if not got > 0:
            continue
        checked.append(name)
        if abs(got - expected) > tolerance * expected:
            differences.append(_said(name, expected * factor, got * factor, unit))
    if camera.focus_distance_m > 0:
        checked.append("focus distance")
        if not _same_focus(model, camera.focus_distance_m, tolerance):
            got = math.inf if camera.focus_distance_m >= INFINITY_M else camera.focus_distance_m
            differences.append(_said("focus distance", model.focus_distance_m, got, "m"))
    return LensVerdict(tuple(checked), tuple(differences))


def compare_strength(
    model: LensConfig | None, camera: CameraLens, tolerance: float
) -> LensVerdict:
    """Compare a lens of which only strength and focus are known; see ``compare_lens``."""
    lens = camera.lens()
    if model is None or lens is None:
        return LensVerdict()
    differences = []
    expected, got = model.px_per_dioptre, lens.px_per_dioptre
    if abs(got - expected) > tolerance * expected:
        differences.append(_said("strength", expected, got, "px per dioptre"))
    if not _same_focus(model, camera.focus_distance_m, tolerance):
        differences.append(
            _said("focus distance", model.focus_distance_m, lens.focus_distance_m, "m")
        )
    return LensVerdict(("strength", "focus distance"), tuple(differences))


def check_range(lens_range: Mapping[str, tuple[float, float]], camera: CameraLens) -> LensVerdict:
    """Whether a model that takes any lens within ``lens_range`` can answer for this camera.

    Args:
        lens_range: The contract's: ``px_per_dioptre`` and ``focus_distance_m``.
        camera: The camera's, at the size of the image that the network is given. A focus beyond
            the range also passes when it moves the blur by less than ``SAME_BLUR_PX``.
    """
    lens = camera.lens()
    if lens is None:
        unknown = (
            "expected the camera's lens (lens_calibration, or all camera_* parameters), got one "
            "that is not known; the model's own lens is assumed"
        )
        return LensVerdict((), (unknown,))
    differences = [
        f"expected {name} from {lens_range[name][0]:g} to {lens_range[name][1]:g}, got "
        f"{getattr(lens, name):.3g}"
        for name in out_of_range(lens_range, lens)
    ]
    return LensVerdict(tuple(lens_range), tuple(differences), beyond=bool(differences))


def out_of_range(
    lens_range: Mapping[str, tuple[float, float]], lens: LensConfig
) -> tuple[str, ...]:
    """Names of what in ``lens_range`` does not hold for ``lens``; see ``check_range``."""
    return tuple(
        name
        for name, (low, high) in lens_range.items()
        if not low <= getattr(lens, name) <= high
        and not (
            name == FOCUS_NAME
            and lens.px_per_dioptre * abs(lens.focus_dioptre - focus_within(lens_range, lens))
            < SAME_BLUR_PX
        )
    )


def focus_within(lens_range: Mapping[str, tuple[float, float]], lens: LensConfig) -> float:
    """The focus in dioptres, or what comes nearest to it in ``lens_range``."""
    near_m, far_m = lens_range.get(FOCUS_NAME, (lens.focus_distance_m,) * 2)
    return min(max(lens.focus_dioptre, 1.0 / far_m), 1.0 / near_m)


def _same_focus(model: LensConfig, focus_distance_m: float, tolerance: float) -> bool:
    dioptre = 0.0 if focus_distance_m >= INFINITY_M else 1.0 / focus_distance_m
    difference = abs(dioptre - model.focus_dioptre)
    same_blur = model.px_per_dioptre * difference < SAME_BLUR_PX
    return same_blur or difference <= tolerance * model.focus_dioptre


def _said(name: str, expected: float, got: float, unit: str) -> str:
    unit = f" {unit}" if unit else ""
    return f"expected {name} {expected:.3g}{unit}, got {got:.3g}{unit}"
