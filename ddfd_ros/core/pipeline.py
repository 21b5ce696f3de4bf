"""One frame in, one estimate out.

In order: the part of the image that the network is to see (``view``), no sharper than it knows
(``sharpness``), the backend's answer, depth that is not to be believed taken away (``trust``), and
the answer put back on the camera's image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, MutableMapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ddfd_ros.core.blur_zones import in_dead_zone, takes_any_lens, zones
from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.sharpness import missing_px, sigma_at_scale, soften, with_detail
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.core.trust import Thresholds, believe
from ddfd_ros.core.types import Estimate, Frame
from ddfd_ros.core.view import View, ViewOptions, plan_view

__all__ = ["Pipeline", "SupportsInfer", "Thresholds"]


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

    def set_lens(self, lens: LensConfig | None) -> None:
        """Answer for this lens from now on; only called for models that take one."""


class Pipeline:
    """A backend, its thresholds, and what it is given of an image.

    ``process`` belongs to the backend's thread; ``thresholds`` and ``view_options`` may be
    replaced by any thread at any time and hold from the next frame on.
    """

    def __init__(
        self,
        backend: SupportsInfer,
        thresholds: Thresholds | None = None,
        view_options: ViewOptions | None = None,
    ) -> None:
        self.backend = backend
        self.thresholds = thresholds or Thresholds()
        self.view_options = view_options or ViewOptions()

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

    def view(self, height: int, width: int) -> View:
        """What the network sees of an image of this size.

        Raises:
            ContractError: See ``plan_view``.
        """
        return plan_view(height, width, self.backend.contract, self.view_options)

    def published_view(self, height: int, width: int) -> View | None:
        """The view that estimates have; None: that of the camera's image itself."""
        return self.view(height, width) if self.view_options.network_size else None

    def process(
        self,
        frame: Frame,
        heads: Collection[str] | None = None,
        view_options: ViewOptions | None = None,
        zones_below_px: float = 0.0,
    ) -> Estimate:
        """Answer one frame.

        Args:
            frame: The image and its stamps.
            heads: Outputs wanted, None for all. Where the thresholds need ``sigma_m`` it is
                computed too, and left out of the estimate when nobody asked for it.
            view_options: For this frame; None: those in force now.
            zones_below_px: If positive, also say where blur tells little (``Estimate.zones``),
                with blur below so many pixels as the dead zone. Needs a known lens.

        Returns:
            The estimate, of the size of the frame's image or of its ``view``, with the durations
            ``pad``, ``infer`` and ``postprocess``.

        Raises:
            DdfdError: What the backend or ``view`` raises.
        """
        thresholds, options = self._thresholds, view_options or self.view_options
        available = self.backend.contract.outputs
        wanted = set(available if heads is None else heads)
        needed = set(wanted)
        if "depth_m" in wanted and math.isfinite(thresholds.max_sigma_m):
            needed.add("sigma_m")
        timings_ms: dict[str, float] = {}
        start = time.perf_counter()
        height, width = frame.image_rgb.shape[:2]
        view = plan_view(height, width, self.backend.contract, options)
        seen = _seen(frame, view)
        soft = self._softened(seen.image_rgb, view, options)
        seeing_ms = (time.perf_counter() - start) * 1e3
        if takes_any_lens(self.backend.contract):
            self.backend.set_lens(seen.lens)
        outputs: dict[str, Any] = self.backend.infer(soft, needed, timings_ms)
        timings_ms["pad"] = timings_ms.get("pad", 0.0) + seeing_ms
        start = time.perf_counter()
        if "sharp_rgb" in outputs and soft is not seen.image_rgb:
            outputs["sharp_rgb"] = with_detail(outputs["sharp_rgb"], seen.image_rgb, soft)
        if "depth_m" in outputs:
            depth_m = believe(outputs["depth_m"], outputs.get("sigma_m"), thresholds)
            lens = self._lens_of(seen)
            if lens is not None and zones_below_px > 0:
                contract = self.backend.contract
                span_m = contract.depth_min_m, contract.depth_max_m
                outputs["zones"] = zones(depth_m, lens, zones_below_px, span_m)
                wanted.add("zones")
            if lens is not None and thresholds.dead_zone_px > 0:
                # By the depth itself: of what is out of range only the side is left (REP 117).
                dead = in_dead_zone(outputs["depth_m"], lens, thresholds.dead_zone_px)
                depth_m = np.where(dead, np.float32(np.nan), depth_m)
            outputs["depth_m"] = depth_m
        estimate = Estimate(**{name: value for name, value in outputs.items() if name in wanted})
        if not options.network_size:
            estimate = view.to_input(estimate)
        timings_ms["postprocess"] = (time.perf_counter() - start) * 1e3
        return replace(estimate, timings_ms=timings_ms)

    def _softened(self, image: np.ndarray, view: View, options: ViewOptions) -> np.ndarray:
        """The image, softened if the camera is sharper in focus than the model's pictures were."""
        if options.sigma_0_px <= 0:
            return image
        camera_px = sigma_at_scale(options.sigma_0_px, view.scale)
        missing = missing_px(self.backend.contract.sigma_0_px, camera_px)
        return soften(image, missing) if missing else image

    def _lens_of(self, seen: Frame) -> LensConfig | None:
        """The lens that the answer holds for: the camera's where the model takes any."""
        contract = self.backend.contract
        camera = seen.lens if takes_any_lens(contract) else None
        return contract.lens if camera is None else camera


def _seen(frame: Frame, view: View) -> Frame:
    """The frame as the network sees it: its pixels, and the lens at their size."""
    if view.identity:
        return frame
    lens = None if frame.lens is None else frame.lens.scaled(view.scale)
    return replace(frame, image_rgb=view.to_network(frame.image_rgb), lens=lens)
