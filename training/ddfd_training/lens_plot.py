"""A lens plan as a picture: blur and depth error over distance, one line for each focus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ddfd_training.lens_advice import Choice

_POINTS = 400


def plot_plan(choices: Sequence[Choice], path: str | Path, title: str) -> Path:
    """Draw blur (left) and depth error (right) over the range.

    The first choice has its dead zone shaded grey and its ambiguous part red.

    Args:
        choices: Ways to focus; the first is the one in question.
        path: PNG to write.
        title: Above both.

    Returns:
        ``path``.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    asked = choices[0].plan
    depth_m = np.geomspace(asked.near_m, asked.far_m, _POINTS)
    for i, choice in enumerate(choices):
        style = "-" if i == 0 else "--"
        label = f"{choice.name}: {_focus(choice)}"
        left.plot(depth_m, choice.plan.lens.coc_px(depth_m), style, label=label)
    _shade(left, choices[0])
    left.axhline(asked.dead_zone_px, color="0.5", linewidth=0.8)
    left.set(xlabel="distance (m)", ylabel="blur diameter (px)", ylim=(0, None))
    left.legend(title="focus", fontsize="small")
    step_m = asked.step_m(depth_m)
    right.plot(depth_m, step_m, label=f"error of {asked.blur_error_px:g} px of blur")
    for share in (0.05, 0.1, 0.2):
        right.plot(depth_m, share * depth_m, ":", color="0.4", linewidth=0.8)
        right.annotate(
            f"{100 * share:.0f} %", (asked.far_m, share * asked.far_m), fontsize="small"
        )
    _shade(right, choices[0])
    right.set(xlabel="distance (m)", ylabel="depth error (m)", yscale="log")
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.set_xlim(asked.near_m, asked.far_m)
        axes.grid(visible=True, alpha=0.3)
    figure.suptitle(title)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _focus(choice: Choice) -> str:
    distance = choice.plan.lens.focus_distance_m
    return "infinity" if math.isinf(distance) else f"{distance:.2f} m"


def _shade(axes: Axes, choice: Choice) -> None:
    """Shade what cannot be told apart."""
    if choice.plan.ambiguous_m is not None:
        axes.axvspan(*choice.plan.ambiguous_m, color="tab:red", alpha=0.10, label="two distances")
    if choice.plan.dead_zone_m is not None:
        axes.axvspan(*choice.plan.dead_zone_m, color="0.5", alpha=0.25, label="dead zone")
