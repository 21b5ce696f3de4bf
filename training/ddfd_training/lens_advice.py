"""Where to focus, and which lens to take: the choices side by side, and one in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.lens_plan import LARGEST_BLUR_PX, Plan

FOCAL_LENGTHS_MM = (4.0, 6.0, 8.0, 12.0, 16.0, 25.0, 35.0, 50.0)
F_NUMBERS = (1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
_ROUNDS = 8


def focus_beyond(plan: Plan) -> float:
    """Focus distance behind the whole range whose dead zone begins where the range ends.

    1/d_f = 1/far - dead zone / A; ``inf`` where even infinity is too near for that.
    """
    return _one_sided(plan, 1 / plan.far_m, -1)


def focus_before(plan: Plan) -> float:
    """Focus distance before the whole range whose dead zone ends where the range begins."""
    return _one_sided(plan, 1 / plan.near_m, 1)


def _one_sided(plan: Plan, end_dioptre: float, sign: int) -> float:
    """Solve for the focus; A depends on it a little, hence the rounds."""
    focus_m = math.inf
    for _ in range(_ROUNDS):
        strength = plan.focused(focus_m).lens.px_per_dioptre
        dioptre = end_dioptre + sign * plan.dead_zone_px / strength
        if dioptre <= 0:
            return math.inf
        focus_m = max(1 / dioptre, 1.01 * plan.lens.focal_length_m)
    return focus_m


@dataclass(frozen=True)
class Choice:
    """One way to focus.

    Attributes:
        name: ``beyond``, ``infinity``, ``before``, or ``as asked`` or ``advised``.
        plan: The lens so focused.
    """

    name: str
    plan: Plan

    @property
    def one_sided(self) -> bool:
        """Whether each blur has one distance."""
        return self.plan.ambiguous_m is None

    @property
    def usable(self) -> float:
        """Share of the range, in metres, that is neither in the dead zone nor ambiguous."""
        spans = [s for s in (self.plan.dead_zone_m, self.plan.ambiguous_m) if s is not None]
        whole = self.plan.far_m - self.plan.near_m
        if not spans:
            return 1.0
        # Both lie around the focus, so they overlap.
        lost = max(high for _, high in spans) - min(low for low, _ in spans)
        return max(0.0, 1 - lost / whole)


def choices(plan: Plan, name: str = "as asked") -> list[Choice]:
    """The plan's own focus, called ``name``, and the one-sided ones that differ from it."""
    others = {
        "beyond": focus_beyond(plan),
        "infinity": math.inf,
        "before": focus_before(plan),
    }
    result = [Choice(name, plan)]
    for other, focus_m in others.items():
        seen = [choice.plan.lens.focus_distance_m for choice in result]
        if not any(math.isclose(focus_m, known, rel_tol=1e-3) for known in seen):
            result.append(Choice(other, plan.focused(focus_m)))
    return result


def best_focus(plan: Plan) -> Choice:
    """The focus to take: one-sided, behind the range.

    Behind, not before: near things are the largest in the picture and bear blur best, many lenses
    do not focus nearer than the range, and one picture of a far thing sets it.
    """
    beyond_m = focus_beyond(plan)
    name = "beyond" if math.isfinite(beyond_m) else "infinity"
    return Choice(name, plan.focused(beyond_m))


def advice(plan: Plan, largest_blur_px: float = LARGEST_BLUR_PX) -> list[str]:
    """What a team should know about the lens as focused, in sentences."""
    lines = []
    best = best_focus(plan)
    if (both := plan.ambiguous_m) is not None:
        lines.append(
            f"The focus lies inside the range: between {both[0]:.2f} and {both[1]:.2f} m each "
            "blur belongs to two distances, and a network must guess the side from the scene. "
            f"Focus instead {_say(best.plan.lens)}."
        )
    else:
        lines.append("Each blur has one distance: the focus lies outside the range.")
    if (dead := plan.dead_zone_m) is not None:
        lines.append(
            f"Between {dead[0]:.2f} and {dead[1]:.2f} m things are blurred by less than "
            f"{plan.dead_zone_px:g} px: sharp, and their distance is only guessed from the scene."
        )
    reach_m = plan.reach_m(0.1)
    if reach_m < plan.far_m:
        lines.append(
            f"Blur read to {plan.blur_error_px:g} px gives depth to 10 % up to {reach_m:.2f} m; "
            f"at {plan.far_m:g} m it is {100 * plan.step_m(plan.far_m) / plan.far_m:.0f} %. More "
            "reach: a longer or faster lens, or a wider image."
        )
    else:
        lines.append(f"Blur read to {plan.blur_error_px:g} px gives depth to 10 % everywhere.")
    if plan.largest_blur_px > largest_blur_px:
        lines.append(
            f"The largest blur is {plan.largest_blur_px:.0f} px; above {largest_blur_px:g} px "
            "little texture is left to measure it by. Stop down, scale the image, or keep things "
            f"{_within(plan, largest_blur_px)}."
        )
    return lines


def _say(lens: LensConfig) -> str:
    """A focus in words."""
    distance = lens.focus_distance_m
    return "at infinity" if math.isinf(distance) else f"at {distance:.2f} m, behind everything"


def _within(plan: Plan, blur_px: float) -> str:
    """Where blur stays within this, in words, at the ends of the range where it does not."""
    lens, parts = plan.lens, []
    if lens.signed_coc_px(plan.near_m) < -blur_px:
        parts.append(f"farther than {lens.near_limit_m(blur_px):.2f} m")
    if lens.signed_coc_px(plan.far_m) > blur_px:
        parts.append(f"nearer than {lens.far_limit_m(blur_px):.2f} m")
    return " and ".join(parts)


def suggest(
    sensor_mm: tuple[float, float],
    width_px: int,
    near_m: float,
    far_m: float,
    *,
    largest_blur_px: float = LARGEST_BLUR_PX,
    focal_lengths_mm: Sequence[float] = FOCAL_LENGTHS_MM,
    f_numbers: Sequence[float] = F_NUMBERS,
    **limits: float,
) -> list[dict[str, Any]]:
    """Common lenses for a sensor and a range, each at its best focus.

    The strongest lens tells depth best until things near by are blurred beyond recognition; and a
    longer lens sees less.

    Args:
        sensor_mm: Width and height of the sensor.
        width_px: Width of the image as processed.
        near_m: Nearest distance.
        far_m: Farthest distance.
        largest_blur_px: Blur that shall not be exceeded in the range.
        focal_lengths_mm: Focal lengths on offer.
        f_numbers: Apertures on offer.
        limits: ``blur_error_px`` and ``dead_zone_px`` of :class:`Plan`.

    Returns:
        The lenses whose blur stays within the limit, most exact first: ``focal_length_mm``,
        ``f_number``, ``view_deg`` (horizontal field of view) and :meth:`Plan.summary`. For each
        focal length only the fastest aperture that fits.
    """
    rows = []
    for focal_mm in focal_lengths_mm:
        for f_number in sorted(f_numbers):
            lens = LensConfig(focal_mm / 1000, f_number, math.inf, sensor_mm[0] / 1000 / width_px)
            if near_m <= 2 * lens.focal_length_m:
                continue
            best = best_focus(Plan(lens, near_m, far_m, **limits)).plan
            if best.largest_blur_px <= largest_blur_px:
                view = 2 * math.degrees(math.atan(sensor_mm[0] / 2 / focal_mm))
                row = {"focal_length_mm": focal_mm, "f_number": f_number, "view_deg": view}
                rows.append(row | best.summary())
                break
    return sorted(rows, key=lambda row: row["step_far_m"])
