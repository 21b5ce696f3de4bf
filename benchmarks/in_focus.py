"""How sharp in focus a model for any lens expects its images: where it reads blur without bias.

Rendered rooms, scaled down until a point in focus is spread by little more than a pixel's area,
are softened by Gaussians of several widths and photographed through known lenses. Too sharp ones
are read as too little blurred. Where the error changes its sign, the images are as sharp in focus
as the model's training pictures were; its contract should say so (``sigma_0_px``).

    python -m benchmarks.in_focus models/ddfd-lite-any.onnx
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.record import write_results
from ddfd_ros.core.sharpness import sigma_at_scale, soften
from ddfd_ros.inference import open_backend
from ddfd_training.datasets.sample import RgbdSample
from ddfd_training.lens_draws import lens_of
from ddfd_training.lens_scores.shots import OPTIONS, LensModel, answered, photograph
from ddfd_training.synthetic import SyntheticScene

NAME = "in_focus"
SIZE = (426, 560)
FINER = 4
"""Rooms are rendered that many times larger and scaled down."""
WIDTHS_PX = (0.0, 0.3, 0.45, 0.6, 0.75, 0.9)
LENSES = ((10.0, 4.0), (14.0, 2.0), (20.0, 1.2))
LEAST_BLUR_PX, LEAST_TEXTURE = 2.0, 5.0


def rooms(count: int) -> list[RgbdSample]:
    """Sharp pictures of rooms that no training has: theirs have large seeds."""
    height, width = SIZE
    found = []
    for seed in range(count):
        rgb, depth_m = SyntheticScene(seed).render(0.0, FINER * height, FINER * width)
        found.append(RgbdSample(str(seed), depth_m, sharp_rgb=rgb).resized(height, width))
    return found


def bias_px(
    model: LensModel, scenes: Sequence[RgbdSample], lens: tuple[float, float], width_px: float
) -> float:
    """Median of read less true blur, in pixels, where there are texture and blur to read."""
    drawn = lens_of(*lens)
    told = drawn.spread_as(OPTIONS.spread_per_diameter)
    errors = []
    for seed, scene in enumerate(scenes):
        assert scene.sharp_rgb is not None
        sharp = soften(scene.sharp_rgb, width_px) if width_px else scene.sharp_rgb
        image = photograph(replace(scene, sharp_rgb=sharp), drawn, seed)
        got = answered(model, image, drawn, scene, seed)
        read_px, true_px = told.coc_px(got.depth_m), told.coc_px(got.truth_m)
        counts = (true_px > LEAST_BLUR_PX) & (got.texture > LEAST_TEXTURE)
        errors.append((read_px - true_px)[counts])
    return float(np.median(np.concatenate(errors)))


def without_bias_px(widths_px: Sequence[float], biases_px: Sequence[float]) -> float:
    """The width at which the bias is zero, on straight lines between the measured ones.

    Raises:
        ValueError: The bias has one sign throughout.
    """
    points = list(zip(widths_px, biases_px, strict=True))
    for (w0, b0), (w1, b1) in zip(points[:-1], points[1:], strict=True):
        if b0 <= 0 < b1:
            return w0 + (w1 - w0) * -b0 / (b1 - b0)
    raise ValueError(f"bias: expected a change of sign from minus to plus, got {points}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="in_focus", description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path, help="exported, for any lens")
    parser.add_argument("--rooms", type=int, default=8)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results")
    arguments = parser.parse_args(argv)
    scenes = rooms(arguments.rooms)
    own_px = sigma_at_scale(0.0, 1 / FINER)
    rows: list[dict[str, Any]] = []
    with open_backend(arguments.model, "onnxruntime") as model:
        promised_px = model.contract.sigma_0_px
        for lens in LENSES:
            biases_px = [bias_px(model, scenes, lens, width) for width in WIDTHS_PX]
            try:
                found = math.hypot(without_bias_px(WIDTHS_PX, biases_px), own_px)
            except ValueError:
                found = math.nan
            rows.append({"lens": lens, "bias_px": biases_px, "sigma_0_px": found})
    path = write_results(
        NAME,
        {
            "model": arguments.model.name,
            "rooms": arguments.rooms,
            "softened_px": WIDTHS_PX,
            "contract_sigma_0_px": promised_px,
            "lenses": rows,
        },
        arguments.out,
    )
    table = Table(title="read less true blur (px), by the Gaussian that images are softened by")
    for heading in ("A, focus", *(f"{width:g} px" for width in WIDTHS_PX), "no bias: sigma_0"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            "{:g}, {:g} m".format(*row["lens"]),
            *(f"{bias:+.2f}" for bias in row["bias_px"]),
            f"{row['sigma_0_px']:.2f}",
        )
    console = Console()
    console.print(table)
    console.print(f"contract: {promised_px:g} px; written: {path}", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
