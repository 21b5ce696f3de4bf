"""What is played without INPUT: a rendered sequence with exact depth, and real photographs.

The photographs are those inside the scikit-image package, so nothing is downloaded. One of them
(``stereo_motorcycle``, of the Middlebury 2014 stereo set) comes with measured depth and is blurred
by the optics simulator like the rendered scene; the others are fed as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from ddfd_demo.sources.base import DemoFrame, Intrinsics, Source, SourceInfo
from ddfd_training.synthetic import FX_PER_WIDTH, SyntheticScene

_PLAIN = ("coffee", "chelsea", "rocket", "astronaut")
_HEIGHT, _WIDTH, _RATE_HZ = 480, 640, 10.0
BUILTIN_FRAMES = 65
"""Six seconds of the rendered scene and the photographs."""
_STILL_S = 0.5
"""How long each photograph is held in the stream, in seconds."""


class BuiltinSource(Source):
    """The synthetic sequence, then the photographs, as one stream."""

    def __init__(self, limit: int = BUILTIN_FRAMES, seed: int = 7) -> None:
        self._seed = seed
        self._sequence = max(1, limit - len(_PLAIN) - 1)
        self._stills = min(limit - self._sequence, len(_PLAIN) + 1)
        plain = ", ".join(_PLAIN[: max(0, self._stills - 1)])
        about = (
            f"the photographs {plain} are sharp, of unknown cameras and without truth: they show "
            "that the chain runs, their depth means little"
        )
        super().__init__(
            SourceInfo(
                "builtin",
                f"rendered sequence ({self._sequence} frames, {_WIDTH}x{_HEIGHT}) and "
                f"{self._stills} photographs of the scikit-image package",
                "stream",
                rate_hz=_RATE_HZ,
                notes=(
                    "the rendered frames and the photograph 'motorcycle' have exact depth and are "
                    "blurred by the optics simulator with the model's lens",
                    *([about] if plain else []),
                ),
            )
        )

    def __len__(self) -> int:
        return self._sequence + self._stills

    def frames(self) -> Iterator[DemoFrame]:
        """Rendered frames first, at ``rate_hz``; then one photograph each half second."""
        yield from self._rendered()
        time_s = self._sequence / _RATE_HZ
        for frame in islice(self._photographs(), self._stills):
            time_s += _STILL_S
            yield DemoFrame(
                frame.name,
                frame.image_rgb,
                frame.intrinsics,
                depth_m=frame.depth_m,
                sharp_rgb=frame.sharp_rgb,
                time_s=time_s,
            )

    def _rendered(self) -> Iterator[DemoFrame]:
        scene = SyntheticScene(self._seed)
        focal_px = FX_PER_WIDTH * _WIDTH
        intrinsics = Intrinsics(focal_px, focal_px, (_WIDTH - 1) / 2, (_HEIGHT - 1) / 2)
        pictures = scene.frames(self._sequence, _RATE_HZ, _HEIGHT, _WIDTH)
        for index, (sharp_rgb, depth_m) in enumerate(pictures):
            yield DemoFrame(
                f"rendered {index}",
                None,
                intrinsics,
                depth_m=depth_m,
                sharp_rgb=sharp_rgb,
                time_s=index / _RATE_HZ,
            )

    def _photographs(self) -> Iterator[DemoFrame]:
        from skimage import data

        left, _, disparity_px = data.stereo_motorcycle()
        yield DemoFrame(
            "motorcycle",
            None,
            Intrinsics(994.978, 994.978, 311.193, 254.877),
            depth_m=motorcycle_depth_m(disparity_px),
            sharp_rgb=np.ascontiguousarray(left),
        )
        for name in _PLAIN:
            image = np.ascontiguousarray(getattr(data, name)()[..., :3])
            yield DemoFrame(name, image, Intrinsics.assumed(*image.shape[:2]))


def motorcycle_depth_m(disparity_px: np.ndarray) -> np.ndarray:
    """float32 ``[H, W]`` depth in metres of ``stereo_motorcycle``; NaN where it was not measured.

    z = f b / (disparity + doffs), with the calibration in scikit-image's documentation:
    f 994.978 px, baseline b 0.193001 m, offset of the principal points 31.086 px.
    """
    depth_m = 994.978 * 0.193001 / (disparity_px.astype(np.float32) + 31.086)
    return np.where(np.isfinite(disparity_px), depth_m, np.nan).astype(np.float32)
