"""``python -m ddfd_training.claims_run``: trains and tests the networks behind docs/claims.md.

Each training leaves one result file. What has one is not done again, and a training that was
stopped goes on from its last checkpoint, so the command may be stopped and started at will. Seeds
come in turns: after the first turn every claim has one training a side.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.json_values import clean
from ddfd_ros.core.machine import machine_info
from ddfd_ros.model.checkpoint import count_parameters, load_checkpoint
from ddfd_training.claims_check import CONSTANT
from ddfd_training.claims_measure import (
    measure,
    measure_baseline,
    measure_constant,
    measure_uncertainty,
    open_items,
)
from ddfd_training.claims_plan import Plan, load_plan
from ddfd_training.cli import train
from ddfd_training.network_model import NetworkModel

BASELINE = "zhuo-sim"
UNTRAINED = (BASELINE, CONSTANT)
DEFAULT_PLAN = "training/claims.yaml"
DEFAULT_RESULTS = "benchmarks/results/claims"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ddfd_training.claims_run", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--plan", default=DEFAULT_PLAN, help="the experiments (YAML)")
    parser.add_argument("--results", default=DEFAULT_RESULTS, help="folder of result files")
    parser.add_argument("--runs", default="runs/claims", help="folder of checkpoints and weights")
    parser.add_argument("--cache", default=".cache/defocus", help="folder of rendered images")
    parser.add_argument(
        "--data",
        default=os.environ.get("DDFD_DATA", "../shared/data"),
        help="folder of the data sets; default: $DDFD_DATA, else ../shared/data",
    )
    parser.add_argument("--only", default="*", help="arms to do, a pattern like focus-*")
    parser.add_argument("--seed", type=int, default=0, help="only this seed; 0: all")
    parser.add_argument(
        "--steps-factor",
        type=float,
        default=1.0,
        help="train this many times as long, on every side; keep results of one factor apart",
    )
    parser.add_argument("--accelerator", default="cpu", help="Lightning's: cpu, gpu, ...")
    parser.add_argument("--list", action="store_true", help="say what is done and what is not")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console()
    try:
        plan = load_plan(arguments.plan)
        jobs = [
            (arm, seed)
            for arm, seed in all_jobs(plan)
            if fnmatch(arm, arguments.only) and (arm in UNTRAINED or arguments.seed in (0, seed))
        ]
        for number, (arm, seed) in enumerate(jobs, 1):
            target = Path(arguments.results) / f"{job_name(arm, seed)}.json"
            done = target.is_file()
            console.print(
                f"[{number}/{len(jobs)}] {target.stem}: {'done' if done else 'to do'}",
                highlight=False, markup=False,
            )  # fmt: skip
            if not done and not arguments.list:
                write_result(target, run_job(plan, arm, seed, arguments))
    except (DdfdError, ValueError, OSError) as error:
        print(f"claims_run: {error}", file=sys.stderr)
        return 2
    return 0


def all_jobs(plan: Plan) -> list[tuple[str, int]]:
    """Arms with their seeds, seed by seed; what is not trained comes after the first turn."""
    turns = [
        [(name, seed) for name, arm in plan.arms.items() if not arm.seeds or turn < arm.seeds]
        for turn, seed in enumerate(plan.seeds)
    ]
    untrained = {BASELINE: plan.baseline is not None, CONSTANT: bool(plan.constant)}
    once = [(name, 0) for name, wanted in untrained.items() if wanted]
    return [*turns[0], *once, *(job for turn in turns[1:] for job in turn)]


def job_name(arm: str, seed: int) -> str:
    """Name of the result file."""
    return arm if arm in UNTRAINED else f"{arm}-seed{seed}"


def run_job(plan: Plan, arm: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and test one arm with one seed, or test what is not trained."""
    start = time.perf_counter()
    data_root = Path(arguments.data)
    head = {"arm": arm, "seed": seed, "machine": machine_info()}
    torch.set_num_threads(1)
    if arm == BASELINE and plan.baseline is not None:
        name = plan.baseline.test
        found = measure_baseline(plan.baseline, plan.tests[name], data_root, arguments.cache)
        return {**head, "tests": {name: found}, "seconds": time.perf_counter() - start}
    if arm == CONSTANT:
        tests = measure_constant(plan, data_root, arguments.cache)
        head["network"] = "always the mean training depth"
        return {**head, "tests": tests, "seconds": time.perf_counter() - start}
    config = plan.recipe(arm, seed, data_root, arguments.steps_factor)
    weights = train(
        config, Path(arguments.runs), {"accelerator": arguments.accelerator, "devices": 1}
    )
    assert weights is not None  # no early stop was asked for
    trained_s = time.perf_counter() - start
    network, _ = load_checkpoint(weights)
    wanted = plan.arms[arm]
    tests = {}
    for name in wanted.tests:
        items = open_items(plan.tests[name], data_root, arguments.cache)
        tests[name] = measure(NetworkModel(network), items, edges=wanted.edges)
        if wanted.uncertainty_frames:
            tests[name]["uncertainty"] = measure_uncertainty(
                network, items, wanted.uncertainty_frames, seed
            )
    return {
        **head,
        "network": config.network.name,
        "parameters": count_parameters(network),
        "trained_parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "loss": config.loss.name,
        "lens": asdict(config.lens),
        "steps": config.steps,
        "crops": config.steps * config.data.batch_size,
        "crop_px": config.data.crop_px,
        "training_images": [
            f"{source.dataset}/{source.split}, input {source.input}, aperture {source.aperture}, "
            f"{source.limit or 'all'} frames"
            for source in config.data.sources
        ],
        "tests": tests,
        "training_seconds": trained_s,
        "seconds": time.perf_counter() - start,
    }


def write_result(target: Path, result: dict[str, Any]) -> None:
    """Write the file whole or not at all, with five digits, more than any of it is worth."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(
        json.dumps(clean(result, digits=5), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    partial.replace(target)


if __name__ == "__main__":
    raise SystemExit(main())
