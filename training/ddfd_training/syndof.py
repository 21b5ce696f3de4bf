"""The random lens of the SYNDOF generator, which 2HDED:NET's synthetic data come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig

FOCAL_LENGTHS_M = (0.050, 0.070, 0.085)
FOCAL_WEIGHTS = (0.1, 0.4, 0.4)
SENSOR_WIDTH_M = 0.036
LARGEST_BLUR_PX = 29.0
NEAREST_FOCAL_LENGTHS = 5.0


@dataclass(frozen=True)
class SyndofRule:
    """How a lens is drawn for a scene.

    Attributes:
        largest_blur_px: The f-number is solved so that the scene's largest blur is this.
        focus: ``near`` prefers near points as the public generator does (a half normal over the
            sorted depths); ``uniform`` draws any depth that occurs in the scene.
    """

    largest_blur_px: float = LARGEST_BLUR_PX
    focus: str = "near"

    def draw(self, depth_m: np.ndarray, random: np.random.Generator) -> LensConfig:
        """A lens for a scene: focal length, focus at one of its depths, aperture solved.

        Args:
            depth_m: ``[H, W]`` in metres; NaN where unknown.
            random: Source of the choice.

        Raises:
            DatasetError: The scene has one depth only, or none beyond five focal lengths.
            ValueError: Unknown ``focus``.
        """
        if self.focus not in ("near", "uniform"):
            raise ValueError(f"focus: expected near or uniform, got {self.focus!r}")
        weights = np.array(FOCAL_WEIGHTS) / sum(FOCAL_WEIGHTS)
        focal_m = float(random.choice(FOCAL_LENGTHS_M, p=weights))
        depths = np.unique(depth_m[np.isfinite(depth_m)])[::-1].astype(np.float64)
        candidates = depths[depths >= NEAREST_FOCAL_LENGTHS * focal_m]
        if candidates.size == 0 or depths[0] == depths[-1]:
            raise DatasetError(
                "SYNDOF lens: expected a scene of several depths, some beyond "
                f"{NEAREST_FOCAL_LENGTHS * focal_m:.2f} m, got {depths.size} depths"
                + (f" up to {depths[0]:.2f} m" if depths.size else "")
            )
        # Far to near, as the generator sorts them; the nearest has the peak of the normal.
        place = (np.arange(candidates.size) - candidates.size + 1) / max(candidates.size / 2, 1)
        chance = np.exp(-0.5 * place**2) if self.focus == "near" else np.ones(candidates.size)
        focus_m = float(random.choice(candidates, p=chance / chance.sum()))
        pitch_m = SENSOR_WIDTH_M / depth_m.shape[1]
        wide_open = LensConfig(focal_m, 1.0, focus_m, pitch_m)
        largest_px = max(wide_open.coc_px(depths[0]), wide_open.coc_px(depths[-1]))
        return LensConfig(focal_m, float(largest_px / self.largest_blur_px), focus_m, pitch_m)
