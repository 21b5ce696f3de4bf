"""Fit the thin lens to profiles: sigma^2 = sigma_0^2 + (k A)^2 (1/d - 1/d_f)^2, and the shape.

First each profile gets a spread of its own, and a straight line through these says where to start.
Then all profiles are explained at once by A, 1/d_f, sigma_0 and the point-spread function's shape.
Second moments tell k A only; what tells A from k is the shape of the edges, which a disk gives
another one than a Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares, nnls

from ddfd_training.calibration.edge_spread import Profile
from ddfd_training.calibration.errors import CalibrationError
from ddfd_training.calibration.forward import Matrices, Spread

_SPREADS_PX = np.concatenate([np.arange(0.25, 2, 0.125), np.geomspace(2, 32, 24)])
_FOCI = 81
_STEP = 1e-4
OUTLIER_SCALE = 3.0
"""Residuals beyond so many times the usual one count less."""

GLOBAL = ("log_a", "focus", "log_sigma_0")
FIELD = ("field_focus", "field_a", "field_sigma_0")
SHAPE = ("share", "gaussian_sigma")


@dataclass(frozen=True)
class LensFit:
    """A fitted lens.

    Attributes:
        shape: ``disk``, ``gaussian`` or ``blend``. For a Gaussian alone ``a`` is that of a disk of
            the same second moment, since A and k cannot be told apart then.
        names: What was fitted, in the order of ``values``.
        values: The parameters: log A, 1/d_f, log sigma_0; then those of the shape and changes to
            the corners (focus in dioptres; A and sigma_0 as logarithms).
        cost: Mean squared residual, in units of contrast.
        jacobians: For each picture the normal matrix of its profiles.
        gradients: And their gradient at the solution.
        pictures: Numbers of the pictures.
    """

    shape: str
    names: tuple[str, ...]
    values: np.ndarray
    cost: float
    jacobians: np.ndarray
    gradients: np.ndarray
    pictures: tuple[int, ...]

    def value(self, name: str, default: float = 0.0) -> float:
        """A parameter by its name."""
        return float(self.values[self.names.index(name)]) if name in self.names else default

    @property
    def spread(self) -> Spread:
        """The point-spread function."""
        return _spread(self.shape, dict(zip(self.names, self.values, strict=True)))

    @property
    def px_per_dioptre(self) -> float:
        """A."""
        return float(np.exp(self.value("log_a")))

    @property
    def focus_dioptre(self) -> float:
        """1/d_f."""
        return self.value("focus")

    @property
    def sigma_0_px(self) -> float:
        """Spread in focus."""
        return float(np.exp(self.value("log_sigma_0")))


def own_spreads(matrices: Matrices) -> np.ndarray:
    """Each profile's own standard deviation in pixels, taken as Gaussian; coarse."""
    spread = Spread(1.0, 0.25)
    count = len(matrices.profiles)
    nothing = np.zeros(count)
    costs = np.array(
        [
            [float(np.sum(r**2)) for r in matrices.residuals(nothing, nothing + sigma, spread)]
            for sigma in _SPREADS_PX
        ]
    )
    best = np.clip(costs.argmin(axis=0), 1, len(_SPREADS_PX) - 2)
    each = np.arange(count)
    low, mid, high = (costs[best + i, each] for i in (-1, 0, 1))
    bend = low - 2 * mid + high
    shift = np.where(bend > 0, (low - high) / np.where(bend > 0, 2 * bend, 1), 0)
    logs = np.log(_SPREADS_PX)
    step = np.where(shift > 0, logs[best + 1] - logs[best], logs[best] - logs[best - 1])
    result: np.ndarray = np.exp(logs[best] + np.clip(shift, -1, 1) * step)
    return result


def straight_line(
    dioptre: np.ndarray, sigma_px: np.ndarray, share: np.ndarray
) -> tuple[float, float, float]:
    """K = k A, 1/d_f and sigma_0 from spreads, by their squares; for a start.

    Args:
        dioptre: Inverse distances.
        sigma_px: Standard deviations.
        share: ``Profile.blur_share`` of each.
    """
    span = max(float(np.ptp(dioptre)), 1e-3)
    weight = 1 / (sigma_px**2 + 0.1)
    best = (np.inf, 0.0, 0.0, 0.0)
    for focus in np.linspace(max(dioptre.min() - span, 0.0), dioptre.max() + span, _FOCI):
        away = (share * (dioptre - focus)) ** 2
        matrix = np.stack([np.ones_like(away), away], axis=-1) * weight[:, None]
        (base, slope), cost = nnls(matrix, sigma_px**2 * weight)
        if cost < best[0]:
            best = (cost, slope**0.5, focus, base**0.5)
    return best[1], best[2], best[3]


def fit_lens(
    profiles: Sequence[Profile],
    shape: str,
    start: tuple[float, float, float],
    *,
    matrices: Matrices | None = None,
    field: bool = False,
) -> LensFit:
    """Fit one shape to all profiles.

    Args:
        profiles: Of all pictures.
        shape: ``disk``, ``gaussian`` or ``blend``.
        start: A, 1/d_f and sigma_0 to begin at.
        matrices: Of these profiles, if there are any yet.
        field: Fit also how focus, A and sigma_0 change towards the corners.
    """
    matrices = matrices or Matrices(profiles)
    names = GLOBAL + (SHAPE if shape == "blend" else ()) + (FIELD if field else ())
    begin = {
        "log_a": np.log(max(start[0], 0.05)),
        "focus": start[1],
        "log_sigma_0": np.log(np.clip(start[2], 0.2, 5)),
        "share": 0.5,
        "gaussian_sigma": 0.35,
    }
    limits = {
        "log_a": (np.log(0.01), np.log(1000.0)),
        "focus": (-0.2, 20.0),
        "log_sigma_0": (np.log(0.05), np.log(20.0)),
        "share": (0.0, 1.0),
        "gaussian_sigma": (0.15, 0.7),
    }
    model = _Model(profiles, matrices, shape, names)
    low, high = np.array([limits.get(name, (-2.0, 2.0)) for name in names]).T
    x0 = np.clip([begin.get(name, 0.0) for name in names], low + 1e-6, high - 1e-6)
    usual = float(np.median(np.abs(model(x0)))) * 1.5 + 1e-6
    for _ in range(2):  # the scale of outliers is known better after the first time
        solved = least_squares(
            model,
            x0,
            bounds=(low, high),
            loss="soft_l1",
            f_scale=OUTLIER_SCALE * usual,
            x_scale=np.full(len(x0), 0.1),
            diff_step=_STEP,
            max_nfev=25,
            xtol=1e-7,
            ftol=1e-7,
        )
        x0 = np.clip(solved.x, low + 1e-6, high - 1e-6)
        usual = float(np.median(np.abs(model(x0)))) * 1.5 + 1e-6
    return model.solution(x0, OUTLIER_SCALE * usual)


def choose_shape(
    profiles: Sequence[Profile], matrices: Matrices, start: tuple[float, float, float]
) -> tuple[LensFit, dict[str, float]]:
    """The simplest point-spread function that explains the profiles.

    Returns:
        The fit, and the mean squared residual of each shape.
    """
    fits = {
        shape: fit_lens(profiles, shape, start, matrices=matrices)
        for shape in ("disk", "gaussian")
    }
    simple = min(fits.values(), key=lambda fit: fit.cost)
    best = (simple.px_per_dioptre, simple.focus_dioptre, simple.sigma_0_px)
    blend = fit_lens(profiles, "blend", best, matrices=matrices)
    costs = {shape: fit.cost for shape, fit in fits.items()} | {"blend": blend.cost}
    # A blend has two numbers more: it must explain clearly better to be believed.
    if blend.cost < 0.94 * simple.cost and 0.05 < blend.value("share") < 0.95:
        return blend, costs
    return simple, costs


def _spread(shape: str, values: dict[str, float]) -> Spread:
    if shape == "disk":
        return Spread(0.0)
    if shape == "gaussian":
        return Spread(1.0, 0.25)
    return Spread(float(values["share"]), float(values["gaussian_sigma"]))


class _Model:
    """Residuals of all profiles as a function of the parameters."""

    def __init__(
        self, profiles: Sequence[Profile], matrices: Matrices, shape: str, names: tuple[str, ...]
    ) -> None:
        self.shape, self.names, self._matrices = shape, names, matrices
        self._dioptre = np.array([p.dioptre for p in profiles])
        self._place = np.array([p.place for p in profiles])
        self._share = np.array([p.blur_share for p in profiles])
        self._picture = np.array([p.picture for p in profiles])

    def parts(self, x: np.ndarray) -> list[np.ndarray]:
        """Residuals by profile."""
        values = dict(zip(self.names, x, strict=True))
        focus = values["focus"] + values.get("field_focus", 0.0) * self._place
        strength = np.exp(values["log_a"] + values.get("field_a", 0.0) * self._place)
        sigma_0 = np.exp(values["log_sigma_0"] + values.get("field_sigma_0", 0.0) * self._place)
        blur_px = self._share * strength * (self._dioptre - focus)
        return self._matrices.residuals(blur_px, sigma_0, _spread(self.shape, values))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.concatenate(self.parts(x))

    def solution(self, x: np.ndarray, scale: float) -> LensFit:
        """The fit with what intervals need: normal matrices and gradients by picture."""
        parts = self.parts(x)
        changed = []
        for i in range(len(x)):
            step = np.zeros(len(x))
            step[i] = _STEP
            up, down = self.parts(x + step), self.parts(x - step)
            changed.append([(a - b) / (2 * _STEP) for a, b in zip(up, down, strict=True)])
        pictures = tuple(sorted(set(self._picture.tolist())))
        normal = np.zeros((len(pictures), len(x), len(x)))
        gradient = np.zeros((len(pictures), len(x)))
        for number, residual in enumerate(parts):
            row = pictures.index(self._picture[number])
            slopes = np.stack([c[number] for c in changed], axis=-1)
            weight = 1 / np.sqrt(1 + (residual / scale) ** 2)  # of soft_l1
            normal[row] += (slopes * weight[:, None]).T @ slopes
            gradient[row] += slopes.T @ (weight * residual)
        whole = np.concatenate(parts)
        robust = float(np.mean(2 * scale**2 * (np.sqrt(1 + (whole / scale) ** 2) - 1)))
        return LensFit(self.shape, self.names, x, robust, normal, gradient, pictures)


def without_outliers(fit: LensFit, profiles: Sequence[Profile]) -> list[Profile]:
    """Profiles of pictures that fit the others: without those moved or wrongly detected."""
    norms = np.array(
        [
            float(g @ np.linalg.pinv(n) @ g)
            for n, g in zip(fit.jacobians, fit.gradients, strict=True)
        ]
    )
    usual = float(np.median(norms))
    bad = {p for p, norm in zip(fit.pictures, norms, strict=True) if norm > 50 * usual}
    kept = [profile for profile in profiles if profile.picture not in bad]
    if not kept:
        raise CalibrationError("pictures: expected some that agree with each other, got none")
    return [replace(p) for p in kept]
