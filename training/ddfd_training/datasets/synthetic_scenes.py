"""Pictures of rendered rooms as a dataset: exact depth, textures no other set has, no files."""

from __future__ import annotations

from functools import lru_cache

from ddfd_training.datasets.base import RgbdDataset, RgbdSample
from ddfd_training.synthetic import SyntheticScene

FIRST_SEED = 1000
"""Rooms for training begin here: those of the demonstration and the tests have small seeds."""
TEST_SEED = 500_000
"""Rooms for measuring a model begin here: no training comes as far."""
VIEWS = 2
"""Pictures of each room."""
BETWEEN_VIEWS_S = 5.0


@lru_cache(maxsize=1)
def _room(seed: int) -> SyntheticScene:
    """The room of a seed, furnished once for the views that are read one after the other."""
    return SyntheticScene(seed)


class SyntheticScenes(RgbdDataset):
    """``count`` sharp pictures of rendered rooms, the same ones each time.

    Args:
        count: How many.
        height: Rows; by default NYUv2's after its crop.
        width: Columns.
        first_seed: Seed of the first room; from ``TEST_SEED`` for rooms that no model has seen.
    """

    name = "synthetic"
    blur = "rendered"

    def __init__(
        self, count: int, height: int = 426, width: int = 560, first_seed: int = FIRST_SEED
    ) -> None:
        """Remember the numbers; a picture is rendered when asked for."""
        self.frame_names = [f"room-{index:04d}" for index in range(count)]
        self._size, self._first_seed = (height, width), first_seed

    def settings(self) -> tuple[str, ...]:
        """The size, and the first seed where it is not the usual one."""
        usual = self._first_seed == FIRST_SEED
        return (str(self._size), *(() if usual else (str(self._first_seed),)))

    def scene_of(self, index: int) -> str:
        """The room's seed."""
        return str(self._seed(index))

    def _seed(self, index: int) -> int:
        return self._first_seed + index // VIEWS

    def read(self, index: int) -> RgbdSample:
        """Render picture ``index``: uint8 ``[H, W, 3]`` with float32 depth ``[H, W]``."""
        scene = _room(self._seed(index))
        rgb, depth_m = scene.render(BETWEEN_VIEWS_S * (index % VIEWS), *self._size)
        return RgbdSample(name=self.frame_names[index], depth_m=depth_m, sharp_rgb=rgb)
