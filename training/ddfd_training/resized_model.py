"""A model that sees images at a size of its own, or softer than they are."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np

from ddfd_ros.core.sharpness import soften, with_detail
from ddfd_training.evaluate import Model


class Resized:
    """Scales each image for the model and its answers back, where the truth is.

    Args:
        model: What answers.
        size: Height and width it is shown.
    """

    def __init__(self, model: Model, size: tuple[int, ...]) -> None:
        self._model, self._size = model, size

    def infer(
        self, image: np.ndarray, heads: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Answer a uint8 image ``[H, W, 3]`` with heads of its own size, blur in its pixels."""
        height, width = image.shape[:2]
        shown = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_AREA)
        answer = self._model.infer(shown, heads)
        result = {
            name: cv2.resize(value, (width, height), interpolation=cv2.INTER_LINEAR)
            for name, value in answer.items()
        }
        if "defocus_px" in result:
            result["defocus_px"] = result["defocus_px"] * np.float32(width / self._size[1])
        return result


class Softened:
    """Blurs each image a little for the model, as the node does (``ddfd_ros.core.sharpness``).

    Args:
        model: What answers.
        sigma_px: Standard deviation of the Gaussian, in pixels of the image.
    """

    def __init__(self, model: Model, sigma_px: float) -> None:
        self._model, self._sigma_px = model, sigma_px

    def infer(
        self, image: np.ndarray, heads: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Answer a uint8 image ``[H, W, 3]``; what was blurred away is in ``sharp_rgb`` again."""
        soft = soften(image, self._sigma_px)
        answer = self._model.infer(soft, heads)
        if "sharp_rgb" in answer:
            sharp = with_detail(answer["sharp_rgb"], image, soft)
            answer = {**answer, "sharp_rgb": sharp}
        return answer
