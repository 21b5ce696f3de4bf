"""Deviations of a network for any lens, corrected by pictures that it was not trained on.

A network learns its deviations from pictures that it has seen many times, and the thin lens turns
them into metres to first order only. Both make them wrong by a factor that depends on the lens and
on the deviation itself. The factor is measured: a line through the errors' logarithm such that
68 % of the errors lie below what a Laplace distribution of the corrected deviation says (quantile
regression, Koenker and Bassett 1978).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, eye, hstack
from torch import nn

from ddfd_ros.model.blur_space import LensNetwork, sigma_terms
from ddfd_training.metrics_sigma import laplace_half_width_m

PROBABILITY = 0.68
_PIXELS = 150
"""Of each picture that are looked at, drawn at random."""
_LEAST_ERROR_M = 1e-4


@dataclass(frozen=True)
class SigmaFit:
    """What was fitted and on how much.

    Attributes:
        correction: Weights of ``sigma_terms``.
        pictures: Pictures looked at.
        before: Share of their errors within the 68 % interval without the correction.
        after: With it.
    """

    correction: tuple[float, ...]
    pictures: int
    before: float
    after: float

    def __str__(self) -> str:
        """In words."""
        return (
            f"{self.before:.1%} of the errors were within the 68 % interval on "
            f"{self.pictures} held-out pictures, now {self.after:.1%}"
        )


def fit_sigma(network: nn.Module, pictures: Iterable[dict[str, torch.Tensor]]) -> SigmaFit:
    """Measure and set a network's ``sigma_correction``.

    Args:
        network: In evaluation mode, with ``lens_input`` and a depth head.
        pictures: ``image [3, H, W]``, ``depth_m [1, H, W]`` and ``lens [2]`` of each.

    Raises:
        ValueError: The network has no correction, or no picture has known depth.
    """
    if not (isinstance(network, LensNetwork) and network.lens_input):
        raise ValueError(
            "fit_sigma: expected a network with lens_input, got one for a fixed lens; leave "
            "fit_sigma out of the recipe"
        )
    network.sigma_correction.zero_()
    errors, terms = [], []
    count = 0
    random = np.random.default_rng(0)
    for picture in pictures:
        found = _looked_at(network, picture, random)
        if found is not None:
            errors.append(found[0])
            terms.append(found[1])
            count += 1
    if not count:
        raise ValueError(
            "fit_sigma: expected held-out pictures with known depth, got none; set held_out"
        )
    ratio, rows = np.concatenate(errors), np.concatenate(terms)
    weights = quantile_line(rows, ratio, PROBABILITY)
    network.sigma_correction.copy_(torch.from_numpy(weights))
    return SigmaFit(
        tuple(float(weight) for weight in weights),
        count,
        float(np.mean(ratio <= 0)),
        float(np.mean(ratio <= rows @ weights)),
    )


def _looked_at(
    network: LensNetwork, picture: dict[str, torch.Tensor], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Logarithm of error over the interval's half width, and ``sigma_terms``, of some pixels."""
    lens = picture["lens"][None]
    with torch.no_grad():
        answer = network(picture["image"][None], lens=lens)
    near_m, far_m = network.depth_range_m
    truth_m = picture["depth_m"].numpy().ravel()
    places = np.flatnonzero((truth_m >= near_m) & (truth_m <= far_m))
    if not len(places):
        return None
    places = random.choice(places, min(_PIXELS, len(places)), replace=False)
    depth_m, sigma_m = (
        answer[key].float().numpy().ravel()[places].astype(np.float64)
        for key in ("depth_m", "sigma_m")
    )
    half_width_m = laplace_half_width_m(sigma_m, PROBABILITY)
    error_m = np.maximum(np.abs(depth_m - truth_m[places]), _LEAST_ERROR_M)
    strength, focus = (torch.full((len(places),), float(value)) for value in lens[0])
    terms = sigma_terms(
        torch.from_numpy(sigma_m), torch.from_numpy(depth_m), strength.double(), focus.double()
    )
    return np.log(error_m / half_width_m), torch.stack(terms, dim=1).numpy()


def quantile_line(rows: np.ndarray, values: np.ndarray, probability: float) -> np.ndarray:
    """The linear function of the rows below which a share ``probability`` of the values lies.

    Minimises the pinball loss, as a linear programme.

    Args:
        rows: ``[n, k]``.
        values: ``[n]``.
        probability: Between 0 and 1.

    Returns:
        Weights ``[k]``.
    """
    count, terms = rows.shape
    cost = np.concatenate(
        [np.zeros(terms), np.full(count, probability), np.full(count, 1 - probability)]
    )
    equations = hstack([csr_matrix(rows), eye(count), -eye(count)], format="csr")
    bounds = [(None, None)] * terms + [(0, None)] * (2 * count)
    found = linprog(cost, A_eq=equations, b_eq=values, bounds=bounds, method="highs")
    if not found.success:
        raise ValueError(f"quantile regression: expected a solution, got {found.message}")
    weights: np.ndarray = found.x[:terms]
    return weights
