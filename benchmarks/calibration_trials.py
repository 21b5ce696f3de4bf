"""Calibration on rendered targets whose lens is known: errors, and whether intervals hold.

Each trial draws a lens (A, focus, aperture shape), takes pictures of the printed target at several
distances and slight tilts through it with sensor noise, and calibrates. Written down are the
errors of A and of the focus, and whether the 95 % intervals contain the truth.

    python -m benchmarks.calibration_trials --trials 50
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from benchmarks.record import write_results
from ddfd_training.calibration.errors import CalibrationError
from ddfd_training.calibration.measure import Picture, measure
from ddfd_training.calibration.rendered import View, photograph_target, pinhole
from ddfd_training.calibration.solve import solve
from ddfd_training.calibration.target import Target
from ddfd_training.lens_draws import lens_of
from ddfd_training.optics_options import RenderOptions
from ddfd_training.sensor import Sensor

NAME = "calibration_trials"
SIZE, FOCAL_PX = (320, 432), 450.0
TARGET = Target.on_paper("a3", 3, 9)


def trial(seed: int, shape: str, pictures: int) -> dict[str, Any]:
    """One calibration: truth, result, whether the intervals contain the truth."""
    random = np.random.default_rng([7, seed])
    a = float(np.exp(random.uniform(np.log(5), np.log(14))))
    focus_m = 1 / float(random.uniform(0.3, 1.3))
    lens = lens_of(a, focus_m)
    options = RenderOptions() if shape == "disk" else RenderOptions("blend", 0.37, 0.4)
    camera = pinhole(FOCAL_PX, *SIZE)
    taken = []
    for number, dioptre in enumerate(np.linspace(1 / 1.9, 1 / 0.58, pictures)):
        view = View(
            1 / float(dioptre + random.uniform(-0.03, 0.03)),
            (float(random.uniform(-12, 12)), float(random.uniform(-12, 12))),
            float(random.uniform(-8, 8)),
            (float(random.uniform(-0.06, 0.06)), float(random.uniform(-0.06, 0.06))),
        )
        image = photograph_target(
            view, TARGET, camera, SIZE, lens, options, Sensor(1.0, 2.0), random
        )
        taken.append(Picture(str(number), image))
    row: dict[str, Any] = {"seed": seed, "px_per_dioptre": a, "focus_dioptre": 1 / focus_m}
    start = time.perf_counter()
    try:
        result = solve(measure(taken, TARGET, camera, response="linear"))
    except CalibrationError as error:
        return row | {"refused": str(error)}
    strength, low, high = result.strength
    focus, near, far = result.focus_dioptre
    return row | {
        "shape": result.fit.shape,
        "a_error": strength / a - 1,
        "a_interval": [low, high],
        "a_contained": low <= a <= high,
        "focus_error_dioptre": focus - 1 / focus_m,
        "focus_interval": [near, far],
        "focus_contained": near <= 1 / focus_m <= far,
        "k_a_error": result.calibration.sigma_per_diameter
        * strength
        / (options.spread_per_diameter * a)
        - 1,
        "seconds": time.perf_counter() - start,
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Errors and shares over the trials that were not refused."""
    done = [row for row in rows if "refused" not in row]
    a = np.abs([row["a_error"] for row in done])
    focus = np.abs([row["focus_error_dioptre"] for row in done])
    return {
        "trials": len(rows),
        "refused": len(rows) - len(done),
        "a_error_median": float(np.median(a)),
        "a_error_p95": float(np.quantile(a, 0.95)),
        "a_error_max": float(a.max()),
        "a_bias": float(np.mean([row["a_error"] for row in done])),
        "a_within_2_percent": float(np.mean(a <= 0.02)),
        "a_contained": float(np.mean([row["a_contained"] for row in done])),
        "focus_error_median_dioptre": float(np.median(focus)),
        "focus_error_max_dioptre": float(focus.max()),
        "focus_within_0.02_dioptre": float(np.mean(focus <= 0.02)),
        "focus_contained": float(np.mean([row["focus_contained"] for row in done])),
        "k_a_error_max": float(np.max(np.abs([row["k_a_error"] for row in done]))),
        "seconds_median": float(np.median([row["seconds"] for row in done])),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--shape", choices=("disk", "blend"), default="disk")
    parser.add_argument("--no-save", action="store_true", help="write no result file")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = [
        trial(seed, arguments.shape, arguments.pictures)
        for seed in track(range(arguments.trials), description="calibrating")
    ]
    found = summary(rows)
    console = Console()
    for name, value in found.items():
        console.print(f"{name:28} {value:.4g}")
    if not arguments.no_save:
        name = NAME if arguments.shape == "disk" else f"{NAME}_{arguments.shape}"
        settings = vars(arguments) | {"size": list(SIZE), "focal_px": FOCAL_PX}
        path = write_results(name, {"settings": settings, "summary": found, "trials": rows})
        console.print(f"written to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
