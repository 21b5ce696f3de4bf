"""A torch network as something that answers images, without export or runtime."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class NetworkModel:
    """A network as something that answers images."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval()

    def infer(self, image: np.ndarray, heads: object = None) -> dict[str, np.ndarray]:
        """Answer a uint8 image ``[H, W, 3]`` with the heads, images as uint8."""
        del heads
        with torch.no_grad():
            answer = self._network(to_batch(image))
        result = {}
        for key, value in answer.items():
            planes = value[0].float().numpy()
            if key == "sharp_rgb":
                pixels = np.rint(planes.transpose(1, 2, 0) * 255)
                result[key] = np.clip(pixels, 0, 255).astype(np.uint8)
            else:
                result[key] = planes[0]
        return result


def to_batch(image: np.ndarray) -> torch.Tensor:
    """uint8 ``[H, W, 3]`` as ``[1, 3, H, W]`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 255
