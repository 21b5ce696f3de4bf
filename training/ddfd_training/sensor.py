"""What the camera does to the picture after the lens: photon and read noise, and JPEG.

Noise is added to the pixel values as they are (gamma-encoded), like the blur.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Sensor:
    """Noise and compression; the default is a perfect camera.

    Attributes:
        read_noise: Standard deviation in grey levels of 255, everywhere alike.
        shot_noise: Standard deviation at full white, in grey levels; falls with the square root
            of brightness.
        jpeg_quality: 1 to 100; 0 leaves the picture uncompressed.

    Raises:
        ValueError: A value out of its range.
    """

    read_noise: float = 0.0
    shot_noise: float = 0.0
    jpeg_quality: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if min(self.read_noise, self.shot_noise) < 0 or not 0 <= self.jpeg_quality <= 100:
            raise ValueError(
                "sensor: expected noise from 0 up and jpeg_quality from 0 to 100, got "
                f"{self.read_noise}, {self.shot_noise} and {self.jpeg_quality}"
            )

    def apply(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The image as this camera stores it.

        Args:
            image: ``[H, W, 3]`` RGB, uint8, or floats in [0, 255] not yet rounded.
            random: Source of the noise.

        Returns:
            uint8 ``[H, W, 3]``.
        """
        values = np.asarray(image, dtype=np.float32)
        if self.read_noise or self.shot_noise:
            variance = self.read_noise**2 + self.shot_noise**2 * np.clip(values, 0, 255) / 255
            noise = random.standard_normal(values.shape, dtype=np.float32)
            values = values + noise * np.sqrt(variance, dtype=np.float32)
        stored = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return jpeg(stored, self.jpeg_quality) if self.jpeg_quality else stored


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """An RGB image uint8 ``[H, W, 3]`` after JPEG compression and back."""
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded above
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
