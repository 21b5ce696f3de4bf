"""A lens plan as tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from ddfd_training.lens_advice import Choice
from ddfd_training.lens_plan import Plan


def _metres(value: float | None) -> str:
    return "infinity" if value is None or math.isinf(value) else f"{value:.2f} m"


def _span(span: tuple[float, float] | None) -> str:
    return "none" if span is None else f"{span[0]:.2f} to {span[1]:.2f} m"


def describe(plan: Plan) -> str:
    """The lens in a line."""
    lens = plan.lens
    return (
        f"{1000 * lens.focal_length_m:g} mm f/{lens.f_number:g}, focus "
        f"{_metres(lens.focus_distance_m)}, pixels of {1e6 * lens.pixel_pitch_m:.2f} um: "
        f"{lens.px_per_dioptre:.2f} px per dioptre"
    )


def distance_table(plan: Plan, rows: int) -> Table:
    """Blur, depth error, and what cannot be told, over distance."""
    table = Table(
        caption="blur < 0: before the focus; error: of depth, when blur is read to "
        f"{plan.blur_error_px:g} px",
        caption_justify="left",
    )
    for head in ("distance [m]", "blur [px]", "error [m]", "error [%]", "same at [m]", ""):
        table.add_column(head, justify="right")
    for row in plan.rows(rows):
        twin = "" if row["twin_m"] is None else f"{row['twin_m']:.2f}"
        table.add_row(
            f"{row['depth_m']:g}",
            f"{row['signed_blur_px']:.2f}",
            f"{row['step_m']:.3f}",
            f"{row['step_percent']:.1f}",
            twin,
            "dead zone" if row["dead_zone"] else "",
        )
    return table


def focus_table(found: Sequence[Choice]) -> Table:
    """The ways to focus side by side."""
    table = Table(title="ways to focus", title_justify="left")
    heads = ("focus", "at", "blur near [px]", "blur far [px]", "dead zone", "two distances")
    for head in (*heads, "usable [%]"):
        table.add_column(head, justify="left" if head == "focus" else "right")
    for choice in found:
        plan = choice.plan
        table.add_row(
            choice.name,
            _metres(plan.lens.focus_distance_m),
            f"{plan.lens.coc_px(plan.near_m):.1f}",
            f"{plan.lens.coc_px(plan.far_m):.1f}",
            _span(plan.dead_zone_m),
            _span(plan.ambiguous_m),
            f"{100 * choice.usable:.0f}",
        )
    return table


def suggestion_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Common lenses, most exact first; rows of ``lens_advice.suggest``."""
    table = Table()
    for head in (
        "lens", "view [deg]", "focus", "px/dioptre", "blur near [px]", "error near [m]",
        "error far [m]", "10 % up to [m]",
    ):  # fmt: skip
        table.add_column(head, justify="right")
    for row in found:
        table.add_row(
            f"{row['focal_length_mm']:g} mm f/{row['f_number']:g}",
            f"{row['view_deg']:.0f}",
            _metres(row["focus_distance_m"]),
            f"{row['px_per_dioptre']:.1f}",
            f"{row['blur_near_px']:.1f}",
            f"{row['step_near_m']:.3f}",
            f"{row['step_far_m']:.2f}",
            f"{row['reach_10_percent_m']:.2f}",
        )
    return table
