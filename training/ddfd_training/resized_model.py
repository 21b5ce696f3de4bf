"""A model that sees images at a size of its own."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np

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
        """Answer a uint8 image ``[H, W, 3]`` with heads of its own size."""
        height, width = image.shape[:2]
        shown = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_AREA)
        answer = self._model.infer(shown, heads)
        return {
            name: cv2.resize(value, (width, height), interpolation=cv2.INTER_LINEAR)
            for name, value in answer.items()
        }
