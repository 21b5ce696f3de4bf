"""What the network sees of the camera's image: scaled with its lens, cropped, and put back.

A network reads blur in pixels, so it belongs to a pixel pitch. Scaling an image by ``s`` divides
its pitch by ``s``: the image of a camera with another pitch is scaled until both agree, and never
for any other reason unless that is asked for (letter-boxing), with the pitch that results known.
What is larger than the network's size is cropped around its centre; what is smaller is padded at
the bottom and the right by the backend.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ddfd_ros.core.blur_zones import UNKNOWN, takes_any_lens
from ddfd_ros.core.encodings import load_opencv
from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.preprocessing import Intrinsics, crop_intrinsics, scale_intrinsics
from ddfd_ros.core.types import Estimate

SAME_SCALE = 0.02
"""Pitches closer than this share are taken as equal: resampling would cost more than it mends."""

MIN_SCALE, MAX_SCALE = 1 / 16, 8.0
"""Scales beyond these are a mistake in the pixel pitch rather than a camera."""


@dataclass(frozen=True)
class ViewOptions:
    """How the camera's image is brought to the network, and its answers back.

    Attributes:
        pixel_pitch_m: Distance of neighbouring pixels of the camera's image in metres; 0: unknown,
            nothing is scaled.
        height: Most rows given to the network; 0: the model's fixed height, or no limit.
        width: Most columns given to the network, likewise.
        oversize: ``crop`` or ``letterbox``.
        network_size: Whether the answers stay at the network's size.
        px_per_dioptre: Strength of the camera's lens in pixels of its image; 0: unknown. For a
            model that takes any lens: an image blurred more than it knows is scaled down.
        sigma_0_px: How far the camera spreads a point in focus, standard deviation in pixels of
            its image; 0: unknown. A sharper image than the model's training pictures is softened.
    """

    pixel_pitch_m: float = 0.0
    height: int = 0
    width: int = 0
    oversize: str = "crop"
    network_size: bool = False
    px_per_dioptre: float = 0.0
    sigma_0_px: float = 0.0


@dataclass(frozen=True)
class View:
    """Where the network's pixels lie in the camera's image. All numbers are pixels.

    Attributes:
        input_height: Rows of the camera's image.
        input_width: Its columns.
        scaled_height: Rows after scaling.
        scaled_width: Columns after scaling.
        top: First row of the scaled image that the network sees.
        left: First column.
        height: Rows that the network sees.
        width: Columns that the network sees.
    """

    input_height: int
    input_width: int
    scaled_height: int
    scaled_width: int
    top: int
    left: int
    height: int
    width: int

    @property
    def scales(self) -> tuple[float, float]:
        """Factors from the camera's image to the network's, along x and y."""
        return self.scaled_width / self.input_width, self.scaled_height / self.input_height

    @property
    def scale(self) -> float:
        """The factor on lengths: the geometric mean of both, which rounding makes differ."""
        scale_x, scale_y = self.scales
        return (scale_x * scale_y) ** 0.5

    @property
    def identity(self) -> bool:
        """Whether the network sees the camera's image as it is."""
        size = (self.input_height, self.input_width)
        return size == (self.scaled_height, self.scaled_width) == (self.height, self.width)

    def to_network(self, image: np.ndarray) -> np.ndarray:
        """The part of ``image``, ``[H, W, 3]`` uint8, that the network sees, at its scale."""
        if (self.scaled_height, self.scaled_width) != image.shape[:2]:
            image = _resize_image(image, self.scaled_height, self.scaled_width)
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def to_input(self, estimate: Estimate) -> Estimate:
        """The answers at the size of the camera's image.

        Depth, its deviation and defocus are repeated, never interpolated: no distance appears that
        the network did not say, and no NaN spreads. Defocus is brought to the camera's pixels.
        Where the network did not look, they are NaN and the picture is black.
        """
        if self.identity:
            return estimate
        defocus_px = estimate.defocus_px
        if defocus_px is not None:
            defocus_px = defocus_px / np.float32(self.scale)
        return replace(
            estimate,
            depth_m=self._plane_back(estimate.depth_m),
            sigma_m=self._plane_back(estimate.sigma_m),
            defocus_px=self._plane_back(defocus_px),
            zones=self._plane_back(estimate.zones, UNKNOWN),
            sharp_rgb=self._picture_back(estimate.sharp_rgb),
        )

    def network_camera(self, camera: Intrinsics) -> Intrinsics:
        """The camera of the network's pixels, from that of the whole image."""
        scaled = scale_intrinsics(camera, *self.scales)
        return crop_intrinsics(scaled, self.left, self.top, self.width, self.height)

    def _plane_back(self, plane: np.ndarray | None, empty: float = np.nan) -> np.ndarray | None:
        if plane is None:
            return None
        return _repeat(self._uncrop(plane, empty), self.input_height, self.input_width)

    def _picture_back(self, picture: np.ndarray | None) -> np.ndarray | None:
        if picture is None:
            return None
        return _resize_image(self._uncrop(picture, 0), self.input_height, self.input_width)

    def _uncrop(self, values: np.ndarray, empty: float) -> np.ndarray:
        if (self.height, self.width) == (self.scaled_height, self.scaled_width):
            return values
        shape = (self.scaled_height, self.scaled_width, *values.shape[2:])
        whole = np.full(shape, empty, values.dtype)
        whole[self.top : self.top + self.height, self.left : self.left + self.width] = values
        return whole


@lru_cache(maxsize=8)
def _plan(
    size: tuple[int, int],
    pitch_ratio: float,
    limits: tuple[int | None, int | None],
    letterbox: bool,
) -> View:
    height, width = size
    scale = pitch_ratio
    scaled = _scaled(size, scale)
    over = [limit / side for limit, side in zip(limits, scaled, strict=True) if limit]
    if letterbox and over and min(over) < 1:
        scale *= min(over)
        scaled = _scaled(size, scale)
    if not MIN_SCALE <= scale <= MAX_SCALE:
        raise ContractError(
            f"image of {width}x{height}: expected a scale of {MIN_SCALE:g} to {MAX_SCALE:g} to "
            f"the model's pixels, got {scale:.3g}; correct the camera's pixel pitch"
        )
    rows, columns = (
        min(side, limit) if limit else side for side, limit in zip(scaled, limits, strict=True)
    )
    top, left = (scaled[0] - rows) // 2, (scaled[1] - columns) // 2
    return View(height, width, *scaled, top, left, rows, columns)


def plan_view(height: int, width: int, contract: ModelContract, options: ViewOptions) -> View:
    """What a network sees of an image of ``height`` x ``width`` pixels.

    Args:
        height: Rows of the camera's image.
        width: Its columns.
        contract: Of the model: its lens, and its size where that is fixed.
        options: The camera's pitch, the size wanted, and what is done with larger images.

    Raises:
        ContractError: The scale is absurd, or letter-boxing would scale the image although the
            pitch of model or camera is unknown.
    """
    ratio = 1.0
    any_lens = takes_any_lens(contract)
    if any_lens:  # the lens goes with the pixels, whatever their size
        largest = contract.lens_range["px_per_dioptre"][1]
        if options.px_per_dioptre > largest:
            ratio = largest / options.px_per_dioptre * (1 - SAME_SCALE)
    elif options.pixel_pitch_m > 0 and contract.lens is not None:
        ratio = options.pixel_pitch_m / contract.lens.pixel_pitch_m
        if abs(ratio - 1.0) <= SAME_SCALE:
            ratio = 1.0
    limits = (
        _limit(options.height, contract.input_height),
        _limit(options.width, contract.input_width),
    )
    letterbox = options.oversize == "letterbox"
    view = _plan((height, width), ratio, limits, letterbox)
    blind = contract.lens is None or not options.pixel_pitch_m > 0
    blind = blind and not (any_lens and options.px_per_dioptre > 0)
    if blind and (view.scaled_height, view.scaled_width) != (height, width):
        raise ContractError(
            "letterbox: expected the pixel pitch of the camera and of the model's lens, got "
            f"{options.pixel_pitch_m:g} m and {contract.lens}; scaling changes the blur that "
            "depth is read from: set the camera's pixel pitch, or crop"
        )
    return view


def _limit(wanted: int, fixed: int | None) -> int | None:
    sides = [side for side in (wanted, fixed) if side]
    return min(sides) if sides else None


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture at another size; means of areas where it shrinks, so that nothing aliases."""
    if image.shape[:2] == (height, width):
        return image
    cv2 = load_opencv("scaling images")
    shrinks = height * width < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: np.ndarray = cv2.resize(np.ascontiguousarray(image), (width, height), None, 0, 0, how)
    return resized


def _repeat(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """The nearest value for every pixel, by pixel centres."""
    if plane.shape == (height, width):
        return plane
    cv2 = load_opencv("scaling images")
    nearest = cv2.INTER_NEAREST_EXACT
    resized: np.ndarray = cv2.resize(
        np.ascontiguousarray(plane), (width, height), None, 0, 0, nearest
    )
    return resized
