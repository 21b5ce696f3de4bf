"""How sure a network is: Monte-Carlo dropout, and whether a stated deviation can be believed.

Dropout left on at test time samples networks from an approximate posterior (Gal and Ghahramani
2016; Carvalho 2018, section 3.4 with 50 samples): the mean of the answers is the prediction, their
variance the model's uncertainty. Beside it stands the deviation that a network states itself in
one pass (``sigma_m``), which is about the data's noise instead; by the law of total variance the
two add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import nn

from ddfd_ros.core.errors import DdfdError
from ddfd_training.metrics_sigma import (
    laplace_half_width_m,
    least_uncertain_first,
    remaining_rmse,
    sigma_metrics,
)

SAMPLES = 50
LEVELS = (0.68, 0.95)
PLOT_POINTS = 21


class NoDropoutError(DdfdError, ValueError):
    """The network has no dropout to leave on."""


@dataclass(frozen=True)
class Sampled:
    """What Monte-Carlo dropout says of one image, arrays float32 ``[H, W]``.

    Attributes:
        mean_m: Mean prediction, metres.
        variance_m2: Variance of the predictions (of the sample, n - 1), square metres.
        sigma_m: Mean of the stated deviation over the samples (root of the mean square), or
            ``None`` if the network states none.
    """

    mean_m: np.ndarray
    variance_m2: np.ndarray
    sigma_m: np.ndarray | None

    @property
    def std_m(self) -> np.ndarray:
        """Standard deviation of the predictions, metres."""
        return np.sqrt(self.variance_m2)

    @property
    def total_m(self) -> np.ndarray | None:
        """Model's and data's deviation together, metres."""
        if self.sigma_m is None:
            return None
        return np.sqrt(self.variance_m2 + self.sigma_m**2)


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """The layers that drop anything."""
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
    return [item for item in network.modules() if isinstance(item, kinds) and item.p > 0]


def check_dropout(network: nn.Module) -> list[nn.Module]:
    """The layers to leave on.

    Raises:
        NoDropoutError: There are none, so every sample would be the same.
    """
    layers = dropout_layers(network)
    if not layers:
        raise NoDropoutError(
            f"Monte-Carlo dropout: expected a network with dropout, got {type(network).__name__} "
            "without; train d3net, or ddfd-lite with the option dropout"
        )
    return layers


def monte_carlo(
    network: nn.Module,
    image: torch.Tensor,
    samples: int = SAMPLES,
    *,
    seed: int = 0,
    batch: int = 10,
    lens: torch.Tensor | None = None,
) -> Sampled:
    """Sample the network's answers with dropout on, batch norms off.

    Args:
        network: With a head ``depth_m``. Its mode is put back afterwards.
        image: RGB ``[1, 3, H, W]`` in [0, 1].
        samples: How many; the paper's 50.
        seed: Of the dropout; the state of torch's generator is put back.
        batch: Samples computed together.
        lens: ``[1, 2]``, for a network that takes it beside the image.

    Raises:
        NoDropoutError: The network has no dropout, so every sample would be the same.
        ValueError: Less than two samples, or not one image.
    """
    layers = check_dropout(network)
    if samples < 2 or image.shape[0] != 1:
        raise ValueError(
            f"expected at least 2 samples of one image, got {samples} of {image.shape[0]}"
        )
    was_training = network.training
    network.eval()
    beside = {} if lens is None else {"lens": lens}
    total = square = stated = None
    first = None
    # Only the CPU's generator is put back; a GPU's is seeded too, for the same answers there.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for layer in layers:
            layer.train()
        try:
            for start in range(0, samples, batch):
                count = min(batch, samples - start)
                answer = network(image.expand(count, -1, -1, -1), **beside)
                depth = answer["depth_m"].double()[:, 0]
                first = depth[0] if first is None else first  # shifted sums lose no digits
                total = (depth - first).sum(0) + (0 if total is None else total)
                square = (depth - first).square().sum(0) + (0 if square is None else square)
                if "sigma_m" in answer:
                    said = answer["sigma_m"].double()[:, 0].square().sum(0)
                    stated = said + (0 if stated is None else stated)
        finally:
            network.train(was_training)
    assert total is not None
    assert square is not None
    assert first is not None
    mean = total / samples
    variance = (square - samples * mean.square()).clamp(min=0) / (samples - 1)
    return Sampled(
        mean_m=(first + mean).float().cpu().numpy(),
        variance_m2=variance.float().cpu().numpy(),
        sigma_m=None if stated is None else (stated / samples).sqrt().float().cpu().numpy(),
    )


def half_width_m(sigma_m: np.ndarray, probability: float, family: str) -> np.ndarray:
    """Half width of the central interval of a ``laplace`` or ``normal`` distribution, metres."""
    if family == "laplace":
        return laplace_half_width_m(sigma_m, probability)
    return sigma_m * NormalDist().inv_cdf(0.5 + probability / 2)


@dataclass
class Calibration:
    """Gathers errors with a deviation stated for each, and judges the deviation.

    Args:
        family: Distribution of the intervals: ``laplace`` for what the likelihood trained,
            ``normal`` for the spread of samples.
        floor_m: Smallest deviation believed, so that a map of zeros does not divide by zero.
        keep: Pixels of each image kept for the pooled measures and plots, evenly spaced.
    """

    family: str = "laplace"
    floor_m: float = 1e-3
    keep: int = 4000
    rows: list[dict[str, float]] = field(default_factory=list)
    errors_m: list[np.ndarray] = field(default_factory=list)
    sigmas_m: list[np.ndarray] = field(default_factory=list)

    def add(self, pred_m: np.ndarray, sigma_m: np.ndarray, target_m: np.ndarray) -> None:
        """Count one image ``[H, W]``; unknown truth is NaN."""
        known = np.isfinite(target_m)
        if not known.any():
            return
        sigma_m = np.maximum(sigma_m, self.floor_m)
        row = sigma_metrics(pred_m, sigma_m, target_m)
        error_m = np.abs(pred_m[known] - target_m[known]).astype(np.float64)
        said_m = sigma_m[known].astype(np.float64)
        for level in LEVELS:
            inside = error_m <= half_width_m(said_m, level, self.family)
            row[f"coverage_{round(100 * level)}"] = float(inside.mean())
        row["rmse"] = float(np.sqrt((error_m**2).mean()))
        self.rows.append(row)
        step = max(error_m.size // self.keep, 1)
        self.errors_m.append(error_m[::step])
        self.sigmas_m.append(said_m[::step])

    def result(self) -> dict[str, Any]:
        """Means over images, measures over the kept pixels, and the curves of the plots."""
        if not self.rows:
            return {}
        error_m, sigma_m = np.concatenate(self.errors_m), np.concatenate(self.sigmas_m)
        means = {key: float(np.nanmean([row[key] for row in self.rows])) for key in self.rows[0]}
        pooled = sigma_metrics(error_m, sigma_m, np.full_like(error_m, 1e-9))
        for level in LEVELS:
            inside = error_m <= half_width_m(sigma_m, level, self.family)
            pooled[f"coverage_{round(100 * level)}"] = float(inside.mean())
        return {
            "family": self.family,
            "images": len(self.rows),
            "mean_over_images": means,
            "over_pixels": pooled,
            "curves": self._curves(error_m, sigma_m),
        }

    def _curves(self, error_m: np.ndarray, sigma_m: np.ndarray) -> dict[str, list[float]]:
        """Coverage over nominal probability, binned rms error over deviation, sparsification."""
        levels = np.linspace(0.05, 0.95, PLOT_POINTS - 2)
        inside = [
            float((error_m <= half_width_m(sigma_m, float(p), self.family)).mean()) for p in levels
        ]
        parts = np.array_split(np.argsort(sigma_m, kind="stable"), 20)
        said = [math.sqrt(float((sigma_m[part] ** 2).mean())) for part in parts if part.size]
        was = [math.sqrt(float((error_m[part] ** 2).mean())) for part in parts if part.size]
        removed = np.linspace(0.0, 0.95, PLOT_POINTS - 1)
        keep = np.maximum(((1 - removed) * error_m.size).astype(int), 1)
        square = error_m**2
        return {
            "nominal": levels.tolist(),
            "covered": inside,
            "bin_sigma_m": said,
            "bin_rmse_m": was,
            "removed": removed.tolist(),
            "remaining_rmse_m": remaining_rmse(
                least_uncertain_first(square, sigma_m), keep
            ).tolist(),
            "best_rmse_m": remaining_rmse(np.sort(square), keep).tolist(),
        }
