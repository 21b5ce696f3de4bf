"""Calibration from RGB-D frames with sharp companions, on rendered rooms whose lens is known.

Each trial draws a lens (A, focus) and photographs rooms through it with sensor noise, with a
point-spread function of each shape in turn. Written down is the error of k A as calibrated, with
the shape that the windows told, and beside it what each assumed shape would have given.

    python -m benchmarks.rgbd_calibration_trials --trials 4     # ten minutes on one core
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch.nn.functional import avg_pool2d

from benchmarks.record import write_results
from ddfd_ros.core.thin_lens import DISK_SIGMA_PER_DIAMETER, LensConfig
from ddfd_training.calibration.rgbd import robust_line, spreads_of
from ddfd_training.calibration.windows import SHAPES, Windows, windows
from ddfd_training.datasets.sample import RgbdSample
from ddfd_training.datasets.synthetic_scenes import TEST_SEED
from ddfd_training.lens_draws import lens_of
from ddfd_training.optics import render_defocus
from ddfd_training.optics_options import Layering, RenderOptions
from ddfd_training.synthetic import SyntheticScene

NAME = "rgbd_calibration_trials"
SIZE = (200, 280)
NOISE_LEVELS = 1.5
STEP_PX = 0.25
"""Of the layers that are blurred alike: narrow, or rounding to them is the largest error."""
FINER = 3
"""Rooms are photographed at so many times the size and averaged, as a sensor's pixels do: kernels
on the grid of the pixels are no truth for narrow blur."""


def photograph(seed: int, lens: LensConfig, shape: str, random: np.random.Generator) -> RgbdSample:
    """A room, sharp and through the lens, with its depth."""
    rgb, depth_m = SyntheticScene(seed).render(0.0, FINER * SIZE[0], FINER * SIZE[1])
    options = RenderOptions(
        shape, DISK_SIGMA_PER_DIAMETER, 0.5, layering=Layering("blur", FINER * STEP_PX)
    )
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
    depth = torch.from_numpy(depth_m)[None, None]
    photo = render_defocus(image, depth, lens.scaled(FINER), options=options)
    sharp, levels = (avg_pool2d(each, FINER)[0].permute(1, 2, 0) for each in (image, photo))
    noisy = levels.numpy() + random.normal(0.0, NOISE_LEVELS, levels.shape)
    return RgbdSample(
        f"{seed}",
        depth_m[FINER // 2 :: FINER, FINER // 2 :: FINER],
        sharp_rgb=sharp.numpy().round().astype(np.uint8),
        defocused_rgb=np.clip(np.rint(noisy), 0, 255).astype(np.uint8),
    )


def trial(seed: int, shape: str, rooms: int) -> dict[str, Any]:
    """One calibration: which shape was told, and the error of k A for each assumed one."""
    random = np.random.default_rng([11, seed])
    a = float(np.exp(random.uniform(np.log(12), np.log(25))))
    focus_m = float(random.uniform(2.0, 8.0))
    lens = lens_of(a, focus_m)
    first = TEST_SEED + rooms * seed
    seen = Windows.join(
        [windows(photograph(first + i, lens, shape, random), i, "linear") for i in range(rooms)]
    )
    lines = {assumed: robust_line(spreads_of(seen, assumed)) for assumed in SHAPES}
    left = seen.left_by_shape()
    return {
        "seed": seed,
        "shape": shape,
        "px_per_dioptre": a,
        "focus_m": focus_m,
        "told": min(left, key=left.__getitem__) if left else None,
        "left_by_shape": left,
        "k_a_error": {
            assumed: line[0] / (DISK_SIGMA_PER_DIAMETER * a) - 1 for assumed, line in lines.items()
        },
        "focus_error_dioptre": {assumed: line[1] - 1 / focus_m for assumed, line in lines.items()},
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By true shape: how often it was told, and the mean error of k A by assumed shape."""
    found = {}
    for shape in SHAPES:
        own = [row for row in rows if row["shape"] == shape]
        told = [row["k_a_error"][row["told"]] for row in own if row["told"]]
        found[shape] = {
            "trials": len(own),
            "told_right": sum(row["told"] == shape for row in own),
            "k_a_error_mean_as_told": float(np.mean(told)) if told else float("nan"),
            "k_a_error_largest_as_told": float(np.max(np.abs(told))) if told else float("nan"),
            "k_a_error_mean_if_assumed": {
                assumed: float(np.mean([row["k_a_error"][assumed] for row in own]))
                for assumed in SHAPES
            },
        }
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=4, help="of each shape")
    parser.add_argument("--rooms", type=int, default=8, help="photographs of a trial")
    parser.add_argument("--no-save", action="store_true", help="write no result file")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    jobs = [(seed, shape) for seed in range(arguments.trials) for shape in SHAPES]
    rows = [
        trial(seed, shape, arguments.rooms) for seed, shape in track(jobs, description="trials")
    ]
    found = summary(rows)
    console = Console()
    for shape, values in found.items():
        assumed = ", ".join(
            f"{name} {100 * error:+.1f} %"
            for name, error in values["k_a_error_mean_if_assumed"].items()
        )
        console.print(
            f"{shape:9} told {values['told_right']} of {values['trials']} times; "
            f"k A off by {100 * values['k_a_error_mean_as_told']:+.1f} % "
            f"(at most {100 * values['k_a_error_largest_as_told']:.1f} %); assumed: {assumed}",
            highlight=False,
        )
    if not arguments.no_save:
        settings = vars(arguments) | {"size": list(SIZE), "noise_levels": NOISE_LEVELS}
        settings |= {"step_px": STEP_PX, "finer": FINER}
        path = write_results(NAME, {"settings": settings, "summary": found, "trials": rows})
        console.print(f"written to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
