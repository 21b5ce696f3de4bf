"""What a blurred circle's profile must look like: the model that is fitted.

A disk of radius R has the Fourier transform R J1(2 pi R q) / q (over spatial frequency q). Blur
multiplies it by the point-spread function's transform H(q), which is round, and the mean over a
ring at radius r of what results is its inverse Hankel transform:

    P(r) = 2 pi R  int J1(2 pi R q) J0(2 pi r q) [1 + sum_n J0(2 pi D_n q)] H(q) dq

The sum adds the circles around it at distances D_n, since the mean of J0 over a ring's directions
splits into a product (Graf's addition theorem). So blur may reach across the gaps.

H(q) = exp(-2 pi^2 s0^2 q^2) [(1 - w) jinc(c q) + w exp(-2 pi^2 (k c q)^2)]: the spread in focus,
and a disk of diameter c (the thin lens) beside a Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import j0, j1

from ddfd_training.calibration.edge_spread import Profile

_HIGHEST = 1.25  # cycles per pixel: the spread of the pixels themselves leaves little beyond
_PER_PERIOD = 1.3
_FREQUENCIES = (96, 1024)
"""Fewest and most; as many as a target needs that fills pictures of measure.LARGEST_SIDE_PX."""


@dataclass(frozen=True)
class Spread:
    """The point-spread function relative to its blur.

    Attributes:
        gaussian_share: w.
        gaussian_sigma: k of the Gaussian, over the blur's diameter.
    """

    gaussian_share: float = 0.0
    gaussian_sigma: float = 0.25

    @property
    def sigma_per_diameter(self) -> float:
        """Standard deviation along one axis of the whole, over the diameter."""
        share = self.gaussian_share
        return float(np.sqrt((1 - share) / 16 + share * self.gaussian_sigma**2))


def transfer(
    frequency: np.ndarray, blur_px: np.ndarray, sigma_0_px: np.ndarray, spread: Spread
) -> np.ndarray:
    """H(q) for arrays that broadcast against each other."""
    z = np.pi * np.abs(blur_px) * frequency
    small = z < 1e-6
    disk = (
        np.where(small, 1.0, 2 * j1(z) / np.where(small, 1.0, z))
        if spread.gaussian_share < 1
        else 0.0
    )
    gauss = np.exp(-2 * (spread.gaussian_sigma * z) ** 2)
    whole = (1 - spread.gaussian_share) * disk + spread.gaussian_share * gauss
    result: np.ndarray = whole * np.exp(-2 * (np.pi * sigma_0_px * frequency) ** 2)
    return result


class Matrices:
    """The Hankel transforms of many profiles, computed once and used for every trial of the fit.

    Attributes:
        profiles: Those it was made for.
    """

    def __init__(self, profiles: Sequence[Profile]) -> None:
        """Prepare; takes about a tenth of a millisecond for each ring."""
        self.profiles = tuple(profiles)
        groups: dict[int, list[int]] = {}
        for number, profile in enumerate(profiles):
            groups.setdefault(_frequencies(profile), []).append(number)
        self._groups = [
            _Group(np.array(numbers), [profiles[i] for i in numbers], count)
            for count, numbers in groups.items()
        ]

    def residuals(
        self, blur_px: np.ndarray, sigma_0_px: np.ndarray, spread: Spread
    ) -> list[np.ndarray]:
        """What the model leaves unexplained of each profile, weighted by the rings' pixels.

        Black, white and a shift of the edge are free in each profile and solved for. The contrast
        seen is the unit.

        Args:
            blur_px: ``[N]``, diameter of the blur of each profile.
            sigma_0_px: ``[N]``, spread in focus.
            spread: The point-spread function.

        Returns:
            For each profile an array ``[B]``.
        """
        found: list[np.ndarray] = [np.zeros(0)] * len(self.profiles)
        for group in self._groups:
            own = group.residuals(blur_px[group.numbers], sigma_0_px[group.numbers], spread)
            for i, number in enumerate(group.numbers):
                found[number] = own[i][group.valid[i]]
        return found


def _frequencies(profile: Profile) -> int:
    """How many frequencies resolve the oscillations; few different numbers, for grouping."""
    reach = profile.radius_px + profile.edge_px.max() + profile.radius_px
    reach += profile.neighbours_px.max(initial=0.0)
    wanted = _PER_PERIOD * reach * _HIGHEST
    low, high = _FREQUENCIES
    return int(np.clip(np.ceil(wanted / 32) * 32, low, high))


class _Group:
    """Profiles with one number of frequencies, padded to one number of rings."""

    def __init__(self, numbers: np.ndarray, profiles: Sequence[Profile], count: int) -> None:
        self.numbers = numbers
        rings = max(len(p.edge_px) for p in profiles)
        self.frequency = (np.arange(count) + 0.5) * (_HIGHEST / count)
        step = _HIGHEST / count
        shape = (len(profiles), rings)
        self.valid = np.zeros(shape, bool)
        self._weight, self._light = np.zeros(shape), np.zeros(shape)
        self._disk = np.zeros((*shape, count), np.float32)
        self._shift = np.zeros((*shape, count), np.float32)
        for i, p in enumerate(profiles):
            n, radius = len(p.edge_px), p.radius_px
            self.valid[i, :n] = True
            self._weight[i, :n] = np.sqrt(p.pixels / p.pixels.mean())
            # As seen: a fitted contrast would grow without end for too much blur.
            contrast = max(float(np.ptp(p.brightness)), 1e-3)
            self._light[i, :n] = p.brightness / contrast
            q = 2 * np.pi * self.frequency
            around = 1 + j0(np.outer(p.neighbours_px, q)).sum(axis=0)
            # Rings of width b average over it; what they hold is at its mean radius.
            width = float(np.median(np.diff(p.edge_px))) if n > 1 else 0.0
            around = around * np.sinc(width * self.frequency) * step
            waves = j0(np.outer(radius + p.edge_px, q)) * around
            self._disk[i, :n] = waves * (2 * np.pi * radius * j1(radius * q))
            self._shift[i, :n] = waves * (2 * np.pi * radius * q * j0(radius * q))

    def residuals(self, blur_px: np.ndarray, sigma_0_px: np.ndarray, spread: Spread) -> np.ndarray:
        """Residuals ``[N, B]``, 0 where a profile has no more rings."""
        h = transfer(self.frequency, blur_px[:, None], sigma_0_px[:, None], spread)
        h = h.astype(np.float32)[..., None]
        disk, shift = (self._disk @ h)[..., 0], (self._shift @ h)[..., 0]
        weight = self._weight
        columns = np.stack([weight, weight * disk, weight * shift], axis=-1)
        values = weight * self._light
        normal = np.einsum("nbi,nbj->nij", columns, columns)
        normal += np.eye(3) * 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None]
        solved = np.linalg.solve(normal, np.einsum("nbi,nb->ni", columns, values)[..., None])
        left = values - (columns @ solved)[..., 0]
        result: np.ndarray = left
        return result
