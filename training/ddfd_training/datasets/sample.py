"""One view with everything a data set knows of it; cutting and mirroring all of it together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from ddfd_ros.core.thin_lens import LensConfig

_IMAGES = ("depth_m", "sharp_rgb", "defocused_rgb", "defocus", "blurred", "sharp_known")


@dataclass(frozen=True)
class DepthOrder:
    """Which of two points is farther away: the truth of sets without metric depth.

    Attributes:
        a: Row and column of point A, counted from 0.
        b: Row and column of point B.
        farther: +1 if A is farther than B, -1 if B is, 0 if neither.
    """

    a: tuple[int, int]
    b: tuple[int, int]
    farther: int

    def points_yx(self) -> np.ndarray:
        """Rows and columns as int64 ``[1, 2, 2]``: one pair, A then B."""
        return np.array([[self.a, self.b]], dtype=np.int64)


@dataclass(frozen=True)
class RgbdSample:
    """One view with its depth and whatever images and truths of it exist.

    Images are uint8, or uint16 where the set has 16 bits (kept to the end). All maps have the
    images' height and width.

    Attributes:
        name: Name unique in its dataset, for reports and caches.
        depth_m: float32 ``[H, W]``, metres along the optical axis, NaN where unknown (everywhere,
            in a set without depth).
        sharp_rgb: ``[H, W, 3]`` all-in-focus image, or ``None``.
        defocused_rgb: ``[H, W, 3]`` image through the lens, or ``None`` (render it).
        lens: The lens that took ``defocused_rgb``, or ``None``.
        defocus: float32 ``[H, W]``, how strongly each pixel is blurred, in the unit that the
            data set names; NaN where unknown.
        blurred: bool ``[H, W]``, true where a person saw blur.
        dual_rgb: Left and right view of a dual-pixel sensor, each ``[H, W, 3]``.
        order: Which of two points is farther.
        sharp_known: bool ``[H, W]``, where ``sharp_rgb`` shows the same as ``defocused_rgb``;
            ``None`` says nothing about it.
    """

    name: str
    depth_m: np.ndarray
    sharp_rgb: np.ndarray | None = None
    defocused_rgb: np.ndarray | None = None
    lens: LensConfig | None = None
    defocus: np.ndarray | None = None
    blurred: np.ndarray | None = None
    dual_rgb: tuple[np.ndarray, np.ndarray] | None = None
    order: DepthOrder | None = None
    sharp_known: np.ndarray | None = None

    @property
    def has_depth(self) -> bool:
        """Whether any depth is known."""
        return bool(np.isfinite(self.depth_m).any())

    def crop(self, top: int, left: int, height: int, width: int) -> RgbdSample:
        """The sample's part of ``height`` times ``width`` pixels; an order may get lost.

        Raises:
            ValueError: The part is not inside the image.
        """
        rows, columns = self.depth_m.shape
        if min(top, left) < 0 or top + height > rows or left + width > columns:
            raise ValueError(
                f"{self.name}: expected a crop inside {(rows, columns)}, got {(height, width)} "
                f"at {(top, left)}"
            )
        part = np.s_[top : top + height, left : left + width]
        changes = self._each(lambda image: image[part])
        if self.order is not None:
            a, b = ((y - top, x - left) for y, x in (self.order.a, self.order.b))
            inside = all(0 <= y < height and 0 <= x < width for y, x in (a, b))
            changes["order"] = replace(self.order, a=a, b=b) if inside else None
        return replace(self, **changes)

    def resized(self, height: int, width: int, *, defocus_in_px: bool = False) -> RgbdSample:
        """The sample at another size; the lens gets the pixel pitch of that size.

        Images are averaged; maps take the nearest value, for a mean over an edge would be a depth
        that nothing has: the value at each new pixel's centre, so that maps lie as the image does.

        Args:
            height: Rows.
            width: Columns.
            defocus_in_px: Whether ``defocus`` counts pixels, which are other ones then.
        """
        rows, columns = self.depth_m.shape
        if (rows, columns) == (height, width):
            return self
        down, right = height / rows, width / columns

        def resize(image: np.ndarray) -> np.ndarray:
            how = cv2.INTER_CUBIC if down > 1 else cv2.INTER_AREA
            if image.ndim == 2:
                how = cv2.INTER_NEAREST_EXACT
            flat = image.astype(np.uint8) if image.dtype == bool else np.ascontiguousarray(image)
            return cv2.resize(flat, (width, height), interpolation=how).astype(image.dtype)

        changes = self._each(resize)
        if self.defocus is not None and defocus_in_px:
            changes["defocus"] = changes["defocus"] * np.float32(right)
        if self.lens is not None:
            changes["lens"] = replace(self.lens, pixel_pitch_m=self.lens.pixel_pitch_m / right)
        if self.order is not None:
            a, b = (
                (int((y + 0.5) * down), int((x + 0.5) * right))
                for y, x in (self.order.a, self.order.b)
            )
            changes["order"] = replace(self.order, a=a, b=b)
        return replace(self, **changes)

    def mirrored(self) -> RgbdSample:
        """The sample as a mirror shows it, left and right exchanged.

        The views of a dual-pixel sensor change places too: in the mirror, the light of the left
        half of the lens comes from the right.
        """
        changes = self._each(lambda image: image[:, ::-1])
        if self.dual_rgb is not None:
            changes["dual_rgb"] = changes["dual_rgb"][::-1]
        if self.order is not None:
            last = self.depth_m.shape[1] - 1
            a, b = ((y, last - x) for y, x in (self.order.a, self.order.b))
            changes["order"] = replace(self.order, a=a, b=b)
        return replace(self, **changes)

    def _each(self, change: Any) -> dict[str, Any]:
        """Every image of the sample, changed."""
        present = {name: getattr(self, name) for name in _IMAGES}
        changes = {name: change(image) for name, image in present.items() if image is not None}
        if self.dual_rgb is not None:
            changes["dual_rgb"] = (change(self.dual_rgb[0]), change(self.dual_rgb[1]))
        return changes


def eight_bit(image: np.ndarray) -> np.ndarray:
    """The image with 8 bits, rounded."""
    return image if image.dtype == np.uint8 else np.rint(image / 257.0).astype(np.uint8)


def unknown_depth(image: np.ndarray) -> np.ndarray:
    """The depth map of an image without depth: float32 ``[H, W]``, NaN everywhere."""
    return np.full(image.shape[:2], np.nan, dtype=np.float32)
