"""``python -m ddfd_training.deblurring_report``: what two pages say was measured.

Reads what ``claims_run --plan training/claims_deblurring.yaml`` left and writes the tables of
docs/self-supervised.md and docs/deblurring.md between their markers. A row without a result says
so, and so does a verdict without an interval over images.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_ros.core.errors import DatasetError, DdfdError
from ddfd_ros.core.machine import machine_info
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.claims_check import FAILS, HOLDS, OPEN, PSNR, Results, compare
from ddfd_training.datasets.nyuv2 import Nyuv2
from ddfd_training.evaluate_data import DataOptions, mean_training_depth_m
from ddfd_training.metrics import DepthTable
from ddfd_training.metrics_defocus import DefocusTable

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
MEAN = "mean-depth"
CLIP_M = (0.5, 10.0)
RMS_BAR = 0.7
"""The map's depth must have at most this share of the mean depth's rms."""

PAPER = {
    "unet": "24.77 / .766",
    "rcab": "25.26 / .775",
    "gru": "25.52 / .784",
    "branches-2": "25.61 / .789",
    "branches-3": "25.65 / .785",
    "conv": "25.23 / .782",
    "input": "25.41 / .780",
}
"""Zhai 2024, tables 3 and 4: PSNR and SSIM on DPDD."""

ROWS = {
    "unet": "plain U-Net",
    "rcab": "channel attention",
    "gru-no-depth": "and GRU, told nothing",
    "gru": "and GRU, told our depth",
    "conv": "convolution instead of the GRU",
    "input": "depth as a fourth channel",
    "gru-depth-state": "GRU, depth as the state",
    "branches-2": "GRU, two branches",
    "branches-3": "GRU, three branches",
}

COMPARISONS = (
    ("rcab", "unet", "attention over the plain U-Net"),
    ("gru", "conv", "GRU over convolution"),
    ("gru", "input", "GRU over a fourth channel"),
    ("gru", "gru-no-depth", "depth over none, the same network"),
    ("branches-2", "gru", "two branches over one"),
    ("dslr-gru", "dslr-no-depth", "depth over none, natural blur (DSLR)"),
)

Result = dict[str, Any]


def read_results(folder: Path) -> dict[str, list[Result]]:
    """Result files by arm, one for each seed."""
    found: dict[str, list[Result]] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(result["arm"], []).append(result)
    return found


def measure_mean(data_root: Path) -> Result:
    """The errors of always answering the training set's mean depth, on all of NYUv2's test.

    Raises:
        DatasetError: The data set is not there.
    """
    lens, options = LENS_PRESETS["nyu-8m"], DataOptions("nyuv2", str(data_root / "nyuv2"))
    mean_m = mean_training_depth_m(options)
    depth, defocus = DepthTable(), DefocusTable()
    frames = Nyuv2(str(data_root / "nyuv2"), "test")
    for index in range(len(frames)):
        truth_m = np.clip(frames[index].depth_m, *CLIP_M)
        depth.add(np.full(truth_m.shape, mean_m, np.float32), truth_m)
        defocus.add(np.full(truth_m.shape, lens.coc_px(mean_m)), truth_m, lens)
    tests = {"nyu-8m": {"depth": depth.result(), "defocus": defocus.result()}}
    return {
        "arm": MEAN, "seed": 0, "machine": machine_info(), "depth_m": mean_m,
        "lens": asdict(lens), "tests": tests,
    }  # fmt: skip


def value(results: Sequence[Result], *path: str) -> list[float]:
    """One number of each seed's only test; those without it are left out."""
    numbers = []
    for result in results:
        item: Any = next(iter(result["tests"].values()))
        for key in path:
            item = item.get(key) if isinstance(item, dict) else None
        if item is not None:
            numbers.append(float(item))
    return numbers


def cell(numbers: Sequence[float], digits: int) -> str:
    """Mean over seeds, with the seeds' half range where there are several."""
    if not numbers:
        return "-"
    text = f"{np.mean(numbers):.{digits}f}"
    return text if len(numbers) < 2 else f"{text} ± {np.ptp(numbers) / 2:.{digits}f}"


def map_table(results: dict[str, list[Result]]) -> list[str]:
    """The measures of thesis table 5.1, and of the depth that follows from the map."""
    rows = [
        "| | learnt from | map: MAE (px) | MSE (px²) | depth: rms (m) | δ < 1.25 | PSNR | SSIM |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, name, source in (
        ("map-selfsup", "`2hded-selfsup`, small", "two photographs a view"),
        ("map-supervised", "`ddfd-lite`, the same size", "depth"),
        ("zhuo-sim", "Zhuo and Sim 2011", "- (calibrated on 40 frames with depth)"),
        (MEAN, "always the mean depth", "depth"),
    ):
        found = results.get(arm, [])
        numbers = [
            cell(value(found, "defocus", "mean_over_images", "mae_px"), 2),
            cell(value(found, "defocus", "mean_over_images", "mse_px2"), 2),
            cell(value(found, "depth", "mean_over_images", "rmse"), 3),
            cell(value(found, "depth", "mean_over_images", "delta1"), 3),
            cell(value(found, "all_in_focus", "output", "psnr"), 2),
            cell(value(found, "all_in_focus", "output", "ssim"), 4),
        ]
        rows.append(f"| {name} | {source} | {' | '.join(numbers)} |")
    return rows


def map_verdicts(results: dict[str, list[Result]]) -> list[str]:
    """What was to be shown about the map, and whether it is."""
    lines = []
    path = ("defocus", "mean_over_images", "mae_px")
    ours, theirs = (value(results.get(a, []), *path) for a in ("map-selfsup", "zhuo-sim"))
    if ours and theirs:
        better = np.mean(ours) < np.mean(theirs)
        lines.append(
            f"- The map's error is {'below' if better else '**not below**'} Zhuo and Sim's: "
            f"{np.mean(ours):.2f} px against {np.mean(theirs):.2f} px ({_trainings(ours)})."
        )
    path = ("depth", "mean_over_images", "rmse")
    ours, mean = (value(results.get(a, []), *path) for a in ("map-selfsup", MEAN))
    if ours and mean:
        less = 1 - np.mean(ours) / np.mean(mean)
        reached = np.mean(ours) <= RMS_BAR * np.mean(mean)
        lines.append(
            f"- Its depth through the lens has {abs(less):.0%} {'less' if less > 0 else 'more'} "
            f"rms error than the mean depth ({np.mean(ours):.3f} m against {np.mean(mean):.3f} "
            f"m); the aim was 30 % less: {'reached' if reached else '**not reached**'} "
            f"({_trainings(ours)})."
        )
    return lines


def _trainings(numbers: Sequence[float]) -> str:
    """How many trainings a comparison of means rests on."""
    count = "one training" if len(numbers) == 1 else f"mean of {len(numbers)} trainings"
    return f"{count}, no interval"


def deblurring_table(results: dict[str, list[Result]]) -> list[str]:
    """Zhai's tables 3 and 4 at this size, beside the paper's own figures."""
    rows = [
        "| | trained parameters | PSNR (dB) | over the input | SSIM | MAE | the paper, DPDD |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, name in ROWS.items():
        found = results.get(arm, [])
        trained = f"{found[0]['trained_parameters']:,}" if found else "-"
        numbers = [
            cell(value(found, "all_in_focus", "output", "psnr"), 2),
            cell(value(found, "all_in_focus", "gain", "psnr"), 2),
            cell(value(found, "all_in_focus", "output", "ssim"), 4),
            cell(value(found, "all_in_focus", "output", "mae"), 4),
        ]
        rows.append(f"| {name} | {trained} | {' | '.join(numbers)} | {PAPER.get(arm, '-')} |")
    return rows


def deblurring_verdicts(results: Results) -> list[str]:
    """Each comparison of the paper, in decibels, seed by seed, and what it is judged by."""
    verdicts = {HOLDS: "holds", FAILS: "**does not hold**", OPEN: "undecided"}
    lines = []
    for better, worse, words in COMPARISONS:
        found = compare(results, better, worse, PSNR, sign=1)
        if found is None:
            continue
        text = ", ".join(f"{gain:+.2f}" for gain in found.by_seed) + " dB"
        if found.has_interval:
            text += f", 95 % interval over images {found.low:+.2f} to {found.high:+.2f}"
        lines.append(f"- {words}: {text}; {verdicts[found.verdict]} ({found.basis}).")
    return lines


def budget(results: Sequence[Result]) -> str:
    """Steps, crops and machine of a group of trainings, in one sentence."""
    if not results:
        return "Not run yet."
    first = results[0]
    machine = first["machine"].get("cpu") or first["machine"].get("processor") or "one CPU"
    return (
        f"{first['steps']:,} steps of {first['crops'] // first['steps']} crops of "
        f"{first['crop_px']} px, one thread of {machine}, other programs beside it; seeds "
        f"{sorted({r['seed'] for r in results})}."
    )


def fill(page: Path, lines: Sequence[str]) -> None:
    """Put lines between a page's markers.

    Raises:
        DatasetError: The page has no markers.
    """
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise DatasetError(f"{page}: expected the markers {BEGIN} and {END}, got none; add them")
    head, rest = text.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    page.write_text("\n".join([head + BEGIN, *lines, END + tail]), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Write both pages; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ddfd_training.deblurring_report", description=__doc__
    )
    parser.add_argument("--results", type=Path, default="benchmarks/results/claims_deblurring")
    parser.add_argument("--docs", type=Path, default="docs", help="folder of the two pages")
    parser.add_argument("--data", type=Path, default=os.environ.get("DDFD_DATA", "../shared/data"))
    arguments = parser.parse_args(argv)
    try:
        write_pages(arguments.results, arguments.docs, arguments.data)
    except (DdfdError, OSError) as error:
        print(f"deblurring_report: {error}", file=sys.stderr)
        return 2
    return 0


def write_pages(folder: Path, docs: Path, data_root: Path) -> None:
    """Read the results, add the mean depth's if it is missing, and fill the pages."""
    mean_file = folder / f"{MEAN}.json"
    if not mean_file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        mean_file.write_text(json.dumps(measure_mean(data_root), indent=1) + "\n", "utf-8")
    results = read_results(folder)
    maps = ["", budget(results.get("map-selfsup", [])), "", *map_table(results), ""]
    fill(docs / "self-supervised.md", [*maps, *map_verdicts(results), ""])
    rows = ["", budget(results.get("gru", [])), "", *deblurring_table(results), ""]
    fill(docs / "deblurring.md", [*rows, *deblurring_verdicts(Results(folder)), ""])


if __name__ == "__main__":
    raise SystemExit(main())
