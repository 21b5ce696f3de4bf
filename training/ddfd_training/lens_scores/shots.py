"""Pictures for the evaluation over lenses, and a model's answers to them, pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
import torch

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.datasets.sample import RgbdSample, eight_bit
from ddfd_training.depth_fill import fill_depth
from ddfd_training.optics import render_defocus, to_planes
from ddfd_training.optics_options import Layering, RenderOptions
from ddfd_training.sensor import Sensor

MOST_PIXELS = 20000
"""Of each picture that are kept, drawn at random."""
OPTIONS = RenderOptions("blend", 0.37, 0.5, layering=Layering("blur", 0.25))
"""Between disk and Gaussian."""
SENSOR = Sensor(1.0, 2.0)
_TEXTURE_PX = 2.0
_SMOOTH_PX = 9


class LensModel(Protocol):
    """A backend that takes the lens; see ``ddfd_ros.inference.base.Backend``."""

    contract: ModelContract

    def set_lens(self, lens: LensConfig | None) -> None:
        """Answer for this lens from now on."""

    def infer(
        self, image: np.ndarray, heads: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Answer one image."""


@dataclass(frozen=True)
class Pixels:
    """What a model said, and what was true, of some pixels.

    Attributes:
        depth_m: float32 ``[n]``.
        sigma_m: float32 ``[n]``, or NaN where the model has none.
        truth_m: float32 ``[n]``.
        texture: float32 ``[n]``, local standard deviation of the sharp picture in
            grey levels of 255.
    """

    depth_m: np.ndarray
    sigma_m: np.ndarray
    truth_m: np.ndarray
    texture: np.ndarray


def joined(parts: list[Pixels]) -> Pixels:
    """All pixels of several pictures."""
    names = ("depth_m", "sigma_m", "truth_m", "texture")
    return Pixels(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


def photograph(sample: RgbdSample, lens: LensConfig, seed: int) -> np.ndarray:
    """The sample's sharp picture through a lens, with noise; uint8 ``[H, W, 3]``.

    Raises:
        DatasetError: The sample has no sharp picture.
    """
    return SENSOR.apply(blurred(sample, lens), np.random.default_rng(seed))


def blurred(sample: RgbdSample, lens: LensConfig) -> np.ndarray:
    """As :func:`photograph`, without noise: floats in 0 to 255."""
    if sample.sharp_rgb is None:
        raise DatasetError(f"{sample.name}: expected a sharp picture to blur, got none")
    rgb = to_planes(sample.sharp_rgb)
    depth_m = torch.from_numpy(fill_depth(sample.depth_m, sample.name))[None, None]
    with torch.no_grad():
        image = render_defocus(rgb, depth_m, lens, options=OPTIONS)
    return (image[0].permute(1, 2, 0) * 255).numpy()


def answered(
    model: LensModel, image: np.ndarray, told: LensConfig, sample: RgbdSample, seed: int
) -> Pixels:
    """The model's answer to a picture, told that it was taken through ``told``.

    As a calibration would, it tells the model how far ``told`` spreads a point with the
    point-spread function of ``OPTIONS``.

    Only pixels whose true depth the model can answer are kept.
    """
    model.set_lens(told.spread_as(OPTIONS.spread_per_diameter))
    has_sigma = "sigma_m" in model.contract.outputs
    answer = model.infer(image, ["depth_m", "sigma_m"] if has_sigma else ["depth_m"])
    truth_m = sample.depth_m
    contract = model.contract
    good = np.isfinite(truth_m) & np.isfinite(answer["depth_m"])
    good &= (truth_m >= contract.depth_min_m) & (truth_m <= contract.depth_max_m)
    places = np.flatnonzero(good)
    if len(places) > MOST_PIXELS:
        places = np.random.default_rng(seed).choice(places, MOST_PIXELS, replace=False)
    unknown = np.full(truth_m.shape, np.nan, np.float32)
    maps = (answer["depth_m"], answer.get("sigma_m", unknown), truth_m, texture(sample))
    return Pixels(*(plane.ravel()[places].astype(np.float32) for plane in maps))


def texture(sample: RgbdSample) -> np.ndarray:
    """Local standard deviation of the sharp picture, float32 ``[H, W]``, grey levels of 255."""
    assert sample.sharp_rgb is not None  # photograph has refused it otherwise
    grey = cv2.cvtColor(eight_bit(sample.sharp_rgb), cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean = cv2.GaussianBlur(grey, (0, 0), _TEXTURE_PX)
    square = cv2.GaussianBlur(grey**2, (0, 0), _TEXTURE_PX)
    result: np.ndarray = np.sqrt(np.maximum(square - mean**2, 0))
    return result


Spoil = Callable[[RgbdSample, LensConfig, int], np.ndarray]


def _noisy(sample: RgbdSample, lens: LensConfig, seed: int) -> np.ndarray:
    return Sensor(8.0, 8.0).apply(blurred(sample, lens), np.random.default_rng(seed))


def _moved(sample: RgbdSample, lens: LensConfig, seed: int) -> np.ndarray:
    line = np.full((1, 9), 1 / 9, np.float32)
    image = cv2.filter2D(blurred(sample, lens), -1, line, borderType=cv2.BORDER_REFLECT)
    return SENSOR.apply(image, np.random.default_rng(seed))


def _saturated(sample: RgbdSample, lens: LensConfig, seed: int) -> np.ndarray:
    return SENSOR.apply(2.0 * blurred(sample, lens), np.random.default_rng(seed))


def _untextured(sample: RgbdSample, lens: LensConfig, seed: int) -> np.ndarray:
    assert sample.sharp_rgb is not None
    flat = cv2.medianBlur(np.ascontiguousarray(eight_bit(sample.sharp_rgb)), _SMOOTH_PX)
    flat = cv2.bilateralFilter(flat, _SMOOTH_PX, 40, _SMOOTH_PX)
    return photograph(replace(sample, sharp_rgb=flat), lens, seed)


STRESS: dict[str, Spoil] = {
    "none": photograph,
    "noise": _noisy,
    "motion blur": _moved,
    "saturation": _saturated,
    "no texture": _untextured,
}
"""Pictures with something wrong: noise of 8 grey levels, motion of 9 px, twice the exposure, fine
texture taken away."""
