"""All parts of the evaluation over lenses, scene by scene."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.datasets.sample import RgbdSample
from ddfd_training.lens_draws import lens_of
from ddfd_training.lens_scores.scores import believed, by_blur, by_distance, overall, swapped
from ddfd_training.lens_scores.shots import (
    STRESS,
    LensModel,
    Pixels,
    answered,
    joined,
    photograph,
)

LENSES = ((5.0, 3.0), (7.5, 1.2), (10.0, 6.0), (14.0, 2.0), (20.0, 4.0))
"""A in pixels per dioptre and focus in metres: a factor of four, focused near and far."""
WRONG = (0.02, 0.05, 0.10)
PARTS = ("lenses", "swap", "wrong", "stress")


def label(lens: LensConfig) -> str:
    """A lens in a few characters."""
    return f"A {lens.px_per_dioptre:.3g}, {lens.focus_distance_m:.3g} m"


@dataclass(frozen=True)
class Plan:
    """What is evaluated.

    Attributes:
        lenses: A in pixels per dioptre and focus in metres of each.
        parts: Some of ``PARTS``.
    """

    lenses: tuple[tuple[float, float], ...] = LENSES
    parts: tuple[str, ...] = PARTS

    def built(self) -> list[LensConfig]:
        """The lenses."""
        return [lens_of(a, focus_m) for a, focus_m in self.lenses]


class Collected:
    """Answers so far, by part and case."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, ...], list[Pixels]] = {}

    def add(self, pixels: Pixels, *case: str) -> None:
        """Keep the answers of one picture."""
        self._parts.setdefault(case, []).append(pixels)

    def of(self, *case: str) -> Pixels:
        """All answers of a case."""
        return joined(self._parts[case])


def evaluate_lenses(
    model: LensModel, scenes: Iterable[RgbdSample], plan: Plan = Plan()
) -> dict[str, Any]:
    """Photograph each scene through each lens, ask the model, and count.

    Args:
        model: Takes the lens, see ``Backend.set_lens``.
        scenes: With sharp pictures and depth.
        plan: What is evaluated.

    Returns:
        JSON values: ``lenses`` (per lens ``overall``, ``by_distance``, ``by_blur``), ``swap``,
        ``wrong`` and ``stress``, as far as asked for.

    Raises:
        DdfdError: The model refuses a lens, or a scene has no sharp picture.
    """
    lenses = plan.built()
    collected = Collected()
    for number, sample in enumerate(scenes):
        for lens in lenses:
            image = photograph(sample, lens, number)
            collected.add(answered(model, image, lens, sample, number), "lenses", label(lens))
            if "wrong" in plan.parts:
                for name, told in _wrong(lens).items():
                    pixels = answered(model, image, told, sample, number)
                    collected.add(pixels, "wrong", name, label(lens))
        if "swap" in plan.parts:
            for lens, other in _swaps(lenses):
                image = photograph(sample, other, number)
                pixels = answered(model, image, lens, sample, number)
                collected.add(pixels, "swap", label(lens), label(other))
        if "stress" in plan.parts:
            lens = lenses[len(lenses) // 2]
            for name, spoil in STRESS.items():
                image = spoil(sample, lens, number)
                collected.add(answered(model, image, lens, sample, number), "stress", name)
    return _report(model, lenses, collected, plan)


def _wrong(lens: LensConfig) -> dict[str, LensConfig]:
    """Calibrations that are wrong by so much: strength, and the focus in dioptres."""
    found = {}
    for share in WRONG:
        weaker = replace(lens, f_number=lens.f_number * (1 + share))
        moved = lens_of(lens.px_per_dioptre, lens.focus_distance_m * (1 + share))
        found[f"A {100 * share:g} % too small"] = weaker
        found[f"focus {100 * share:g} % too far"] = moved
    return found


def _swaps(lenses: Sequence[LensConfig]) -> list[tuple[LensConfig, LensConfig]]:
    """Each lens with one of another strength, at the same focus."""
    return [
        (lens, replace(lens, f_number=lens.f_number * factor))
        for lens in lenses
        for factor in (1.25,)
    ]


def _report(
    model: LensModel, lenses: Sequence[LensConfig], collected: Collected, plan: Plan
) -> dict[str, Any]:
    own = {label(lens): collected.of("lenses", label(lens)) for lens in lenses}
    report: dict[str, Any] = {
        "lenses": {
            label(lens): {
                "px_per_dioptre": lens.px_per_dioptre,
                "focus_distance_m": lens.focus_distance_m,
                "overall": overall(own[label(lens)]),
                "by_distance": by_distance(own[label(lens)], lens),
                "by_blur": by_blur(own[label(lens)], lens),
            }
            for lens in lenses
        }
    }
    contract = model.contract
    span_m = (contract.depth_min_m, contract.depth_max_m)
    if "swap" in plan.parts:
        report["swap"] = {
            f"{label(lens)}, photographed with {label(other)}": swapped(
                own[label(lens)],
                collected.of("swap", label(lens), label(other)),
                lens,
                other,
                span_m,
            )
            for lens, other in _swaps(lenses)
        }
    if "wrong" in plan.parts:
        report["wrong"] = {
            name: {
                label(lens): believed(collected.of("wrong", name, label(lens))) for lens in lenses
            }
            for name in _wrong(lenses[0])
        }
    if "stress" in plan.parts:
        report["stress"] = {name: believed(collected.of("stress", name)) for name in STRESS}
    return report
