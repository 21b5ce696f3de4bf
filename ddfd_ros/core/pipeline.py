"""One frame in, one estimate out: the backend's answer with untrustworthy depth taken away."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.types import Estimate, Frame


class SupportsInfer(Protocol):
    """What the pipeline needs of a backend; see ``ddfd_ros.inference.base.Backend``."""

    contract: ModelContract

    def infer(
        self,
        image: np.ndarray,
        heads: Collection[str] | None = None,
        timings_ms: MutableMapping[str, float] | None = None,
    ) -> dict[str, np.ndarray]:
        """Answer one image."""


@dataclass(frozen=True)
class Thresholds:
    """Which depth is believed; everything else becomes NaN.

    Attributes:
        max_sigma_m: Largest standard deviation in metres; ``inf`` believes everything.
        min_depth_m: Nearest depth in metres.
        max_depth_m: Farthest depth in metres.
    """

    max_sigma_m: float = math.inf
    min_depth_m: float = 0.0
    max_depth_m: float = math.inf

    def __post_init__(self) -> None:
        """Refuse thresholds that would blank every frame by mistake."""
        if not self.max_sigma_m > 0:
            raise ContractError(
                f"max_sigma_m: expected more than 0 m, got {self.max_sigma_m}; inf means no limit"
            )
        if not 0 <= self.min_depth_m < self.max_depth_m:
            raise ContractError(
                "min_depth_m, max_depth_m: expected 0 <= min < max in metres, got "
                f"{self.min_depth_m} and {self.max_depth_m}"
            )


class Pipeline:
    """A backend and its thresholds.

    ``process`` belongs to the backend's thread; ``thresholds`` may be replaced by any thread at
    any time and hold from the next frame on.
    """

    def __init__(self, backend: SupportsInfer, thresholds: Thresholds | None = None) -> None:
        self.backend = backend
        self.thresholds = thresholds or Thresholds()

    @property
    def thresholds(self) -> Thresholds:
        """What is believed now."""
        return self._thresholds

    @thresholds.setter
    def thresholds(self, value: Thresholds) -> None:
        has_sigma = "sigma_m" in self.backend.contract.outputs
        if math.isfinite(value.max_sigma_m) and not has_sigma:
            raise ContractError(
                f"max_sigma_m: expected inf, got {value.max_sigma_m}: this model estimates no "
                f"sigma_m (it has {list(self.backend.contract.outputs)}); use another model"
            )
        self._thresholds = value  # one reference, replaced at once: no lock needed

    def process(self, frame: Frame, heads: Collection[str] | None = None) -> Estimate:
        """Answer one frame.

        Args:
            frame: The image and its stamps.
            heads: Outputs wanted, None for all. Where the thresholds need ``sigma_m`` it is
                computed too, and left out of the estimate when nobody asked for it.

        Returns:
            The estimate, with the durations ``pad``, ``infer`` and ``postprocess``.

        Raises:
            DdfdError: What the backend raises.
        """
        thresholds = self._thresholds
        available = self.backend.contract.outputs
        wanted = set(available if heads is None else heads)
        needed = set(wanted)
        if "depth_m" in wanted and math.isfinite(thresholds.max_sigma_m):
            needed.add("sigma_m")
        timings_ms: dict[str, float] = {}
        outputs: dict[str, Any] = self.backend.infer(frame.image_rgb, needed, timings_ms)
        start = time.perf_counter()
        if "depth_m" in outputs:
            outputs["depth_m"] = _believe(outputs["depth_m"], outputs.get("sigma_m"), thresholds)
        kept = {name: value for name, value in outputs.items() if name in wanted}
        timings_ms["postprocess"] = (time.perf_counter() - start) * 1e3
        return Estimate(**kept, timings_ms=timings_ms)


def _believe(
    depth_m: np.ndarray, sigma_m: np.ndarray | None, thresholds: Thresholds
) -> np.ndarray:
    """NaN where the depth is not to be believed (or not finite); ``depth_m`` is not changed."""
    good = (depth_m >= thresholds.min_depth_m) & (depth_m <= thresholds.max_depth_m)
    good &= np.isfinite(depth_m)
    if sigma_m is not None and math.isfinite(thresholds.max_sigma_m):
        good &= sigma_m <= thresholds.max_sigma_m  # a NaN sigma compares false: not believed
    if good.all():
        return depth_m
    return np.where(good, depth_m, np.float32(np.nan))
