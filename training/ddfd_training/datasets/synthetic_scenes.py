"""Pictures of rendered rooms as a dataset: exact depth, textures no other set has, no files."""

from __future__ import annotations

from ddfd_training.datasets.base import RgbdDataset, RgbdSample
from ddfd_training.synthetic import SyntheticScene

FIRST_SEED = 1000
"""Rooms for training begin here: those of the demonstration and the tests have small seeds."""
VIEWS = 2
"""Pictures of each room."""
BETWEEN_VIEWS_S = 5.0


class SyntheticScenes(RgbdDataset):
    """``count`` sharp pictures of rendered rooms, the same ones each time.

    Args:
        count: How many.
        height: Rows; by default NYUv2's after its crop.
        width: Columns.
    """

    name = "synthetic"
    blur = "rendered"

    def __init__(self, count: int, height: int = 426, width: int = 560) -> None:
        """Remember the numbers; a picture is rendered when asked for."""
        self.frame_names = [f"room-{index:04d}" for index in range(count)]
        self._size = (height, width)

    def settings(self) -> tuple[str, ...]:
        """The size."""
        return (str(self._size),)

    def read(self, index: int) -> RgbdSample:
        """Render picture ``index``: uint8 ``[H, W, 3]`` with float32 depth ``[H, W]``."""
        scene = SyntheticScene(FIRST_SEED + index // VIEWS)
        rgb, depth_m = scene.render(BETWEEN_VIEWS_S * (index % VIEWS), *self._size)
        return RgbdSample(name=self.frame_names[index], depth_m=depth_m, sharp_rgb=rgb)
