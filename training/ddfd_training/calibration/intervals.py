"""How well a fit is known: a bootstrap over pictures.

What is wrong in a picture, its distance above all, is wrong for all of its circles. So whole
pictures are drawn, not circles. Solving the fit anew for each draw is not needed: near the
solution one Newton step from the pictures' own normal matrices and gradients is the same.
Draws from few pictures vary too little; the factor sqrt(n / (n - p)) for n pictures that determine
p numbers and the ratio of Student's quantile to the normal one mend that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from ddfd_training.calibration.fit import LensFit

DRAWS = 2000
LEVEL = 0.95
METHOD_A, METHOD_FOCUS_DIOPTRE = 0.005, 0.003
"""Standard deviations of what the method itself leaves: of A as a share, and of the focus. From
trials on rendered targets (benchmarks/calibration_trials.py)."""


@dataclass(frozen=True)
class Intervals:
    """Draws of the parameters around the solution.

    Attributes:
        names: Of the parameters.
        centre: The solution.
        draws: ``[DRAWS, P]``, deviations from it.
    """

    names: tuple[str, ...]
    centre: np.ndarray
    draws: np.ndarray

    def of(
        self, name: str, *, level: float = LEVEL, exponential: bool = False
    ) -> tuple[float, float]:
        """The interval of a parameter; of its exponential where it is a logarithm."""
        column = self.names.index(name)
        tail = (1 - level) / 2
        values = self.centre[column] + self.draws[:, column]
        low, high = np.quantile(values, [tail, 1 - tail])
        return (
            (float(np.exp(low)), float(np.exp(high))) if exponential else (float(low), float(high))
        )


def widening(count: int, determined: int) -> float:
    """Factor for draws from ``count`` pictures that determine so many numbers: see above."""
    freedom = max(count - determined, 1)
    return float(np.sqrt(count / freedom) * stdtrit(freedom, 0.975) / ndtri(0.975))


def bootstrap(
    fit: LensFit, *, scale_error: float = 0.0, seed: int = 0, draws: int = DRAWS
) -> Intervals:
    """Draw pictures with replacement and see how the solution moves.

    Args:
        fit: The solution.
        scale_error: Standard deviation of all distances in common, as a share: of the focal length
            in pixels and of the print's size. Blur stays, so A follows them and the focus in
            dioptres goes against them.
        seed: Of the draws.
        draws: How many.
    """
    random = np.random.default_rng(seed)
    pictures, unknowns = fit.gradients.shape
    weights = random.multinomial(pictures, np.full(pictures, 1 / pictures), size=draws)
    normal = np.einsum("bp,pij->bij", weights, fit.jacobians)
    tiny = 1e-9 * np.trace(fit.jacobians.sum(axis=0)) / unknowns
    normal += tiny * np.eye(unknowns)
    # Gradients at the solution add up to nothing, but for the limits of the search.
    centred = fit.gradients - fit.gradients.mean(axis=0)
    steps = -np.linalg.solve(normal, (weights @ centred)[..., None])[..., 0]
    moved = steps * widening(pictures, 3)
    common = random.standard_normal(draws) * scale_error
    a, focus = fit.names.index("log_a"), fit.names.index("focus")
    moved[:, a] += common + random.standard_normal(draws) * METHOD_A
    moved[:, focus] += -common * fit.focus_dioptre
    moved[:, focus] += random.standard_normal(draws) * METHOD_FOCUS_DIOPTRE
    return Intervals(fit.names, fit.values, moved)
