"""``ddfd-evaluate-lenses``: how a model that takes the lens does on lenses it never saw.

    ddfd-evaluate-lenses any.onnx --data nyuv2 --root data/nyuv2 --limit 50 --json any.lenses.json

Sharp pictures with depth are photographed through each lens by the simulator. Shown are errors per
half metre beside the physical limit of half a pixel of blur, how often the right side of the focus
is found, whether depth follows the optics when the picture was taken by another lens, what a wrong
calibration costs, and whether the stated deviation holds when the pictures are bad.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ddfd_ros.core.blur_zones import takes_any_lens
from ddfd_ros.core.errors import ContractError, DdfdError
from ddfd_ros.core.json_values import clean
from ddfd_ros.core.machine import machine_info
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.inference import open_backend
from ddfd_training.datasets.registry import DATASETS, open_dataset
from ddfd_training.datasets.synthetic_scenes import TEST_SEED
from ddfd_training.lens_argument import parse_count
from ddfd_training.lens_scores.run import LENSES, PARTS, Plan, evaluate_lenses


def strength_and_focus(text: str) -> tuple[float, float]:
    """``A,FOCUS`` of a command line as two numbers.

    Raises:
        argparse.ArgumentTypeError: It is something else.
    """
    try:
        a, focus_m = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected A in px per dioptre and focus in m, like 14,2; got {text!r}"
        ) from None
    if not (a > 0 and focus_m > 0.1):
        raise argparse.ArgumentTypeError(
            f"expected A above 0 and a focus from 0.1 m; got {text!r}"
        )
    return a, focus_m


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddfd-evaluate-lenses",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", help="exported model with the lens as an input, or name of a shipped one"
    )
    parser.add_argument(
        "--data", choices=tuple(DATASETS), default="synthetic", help="synthetic: rooms for testing"
    )
    parser.add_argument("--root", default="", help="the data set's folder")
    parser.add_argument("--split", default=None)
    parser.add_argument(
        "--limit", type=parse_count, default=20, help="scenes, evenly spaced; 0: all"
    )
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="resize scenes first"
    )
    parser.add_argument(
        "--lens",
        type=strength_and_focus,
        action="append",
        metavar="A,FOCUS",
        help="a lens: px per dioptre, focus in m; may be repeated; default: "
        + " ".join(f"{a:g},{f:g}" for a, f in LENSES),
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report here")
    return parser


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluate as the command line says; returns the report.

    Raises:
        DdfdError: Model or data cannot be used.
    """
    path = resolve_model(arguments.model, ".onnx", parameter="model")
    options = {}
    if arguments.data == "synthetic":
        options = {"count": arguments.limit or 20, "first_seed": TEST_SEED}
    dataset = open_dataset(arguments.data, arguments.root, arguments.split, **options)
    count = min(arguments.limit or len(dataset), len(dataset))
    indices = [round(i * (len(dataset) - 1) / max(count - 1, 1)) for i in range(count)]
    size = tuple(arguments.size) if arguments.size else None
    samples = (
        dataset[i] if size is None else dataset[i].resized(*size)
        for i in track(indices, description="photographing and asking", console=console)
    )
    plan = Plan(tuple(arguments.lens or LENSES), tuple(arguments.part or PARTS))
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with open_backend(path, arguments.runtime, threads=arguments.threads) as backend:
        if not takes_any_lens(backend.contract):
            raise ContractError(
                f"{path}: expected a model that takes the lens beside the image, got "
                f"the inputs {list(backend.contract.inputs)}; train one with lens_input: true"
            )
        report = evaluate_lenses(backend, samples, plan)
        facts = {
            "file": path.name,
            "weights_sha256": backend.contract.weights_sha256,
            "lens_range": dict(backend.contract.lens_range),
            "runtime": backend.runtime,
        }
    data = {"name": arguments.data, "split": arguments.split, "scenes": count, "size": size}
    if "first_seed" in options:
        data["first_seed"] = options["first_seed"]
    return {"model": facts, "data": data, "machine": machine_info(), **report}


def _print(report: dict[str, Any], console: Console) -> None:
    _table(
        console,
        "lenses never trained on, over pixels",
        {name: entry["overall"] for name, entry in report["lenses"].items()},
        ("abs_rel", "rmse", "delta1", "coverage_68", "coverage_95", "ence", "aurg_fraction"),
    )
    for name, entry in report["lenses"].items():
        rows = {f"{r['from_m']:g} to {r['to_m']:g} m": r for r in entry["by_distance"]}
        names: tuple[str, ...] = (
            "rmse_m",
            "median_abs_m",
            "limit_m",
            "bias_m",
            "coverage_95",
            "share",
        )
        _table(console, f"{name}: by distance; limit: half a pixel of blur", rows, names)
        rows = {f"{r['from_px']:g} to {r['to_px']:g} px": r for r in entry["by_blur"]}
        _table(console, f"{name}: right side of the focus", rows, ("sign_right", "share"))
    if "swap" in report:
        columns: tuple[str, ...] = ("before_m", "after_m", "predicted_m", "off_by", "followed")
        _table(console, "photographed by another lens, textured places", report["swap"], columns)
    for name, entry in report.get("wrong", {}).items():
        _table(console, f"told {name}", entry, ("abs_rel", "rmse", "inside_95"))
    if "stress" in report:
        columns = ("abs_rel", "rmse", "inside_95", "median_sigma_m")
        _table(console, "bad pictures", report["stress"], columns)


def _table(
    console: Console, title: str, rows: dict[str, dict[str, float]], names: Sequence[str]
) -> None:
    table = Table(title=title)
    table.add_column("")
    shown = [name for name in names if any(name in row for row in rows.values())]
    for name in shown:
        table.add_column(name, justify="right")
    for key, row in rows.items():
        table.add_row(key, *(f"{row[name]:.3g}" if name in row else "-" for name in shown))
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console()
    try:
        report = run(arguments, console)
        _print(report, console)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(clean(report), indent=2, allow_nan=False)
            arguments.json.write_text(text + "\n", encoding="utf-8")
            console.print(f"written: {arguments.json}", highlight=False)
    except (DdfdError, ValueError, OSError) as error:
        print(f"ddfd-evaluate-lenses: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
