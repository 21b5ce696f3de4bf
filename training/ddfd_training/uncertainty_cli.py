"""``ddfd-uncertainty``: how sure a network is of its depth, and whether it may be believed.

Monte-Carlo dropout (Carvalho 2018, section 3.4: 50 samples) and the deviation that the network
states itself in one pass, judged on the same frames: coverage of the 68 and 95 % intervals, ENCE,
and sparsification (AUSE, AURG). Writes a report, the calibration as a plot, and maps.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from torch import nn

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.json_values import clean
from ddfd_ros.core.machine import machine_info
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.model.blur_space import lens_tensor
from ddfd_ros.model.checkpoint import load_checkpoint
from ddfd_training.evaluate_arguments import (
    add_data_arguments,
    check_data_arguments,
    data_options,
    open_data,
)
from ddfd_training.evaluate_data import open_evaluation_set, refuse_unused_lens, told_lens
from ddfd_training.evaluate_items import Item
from ddfd_training.network_model import to_batch
from ddfd_training.records import check_range
from ddfd_training.uncertainty import (
    SAMPLES,
    Calibration,
    Sampled,
    check_dropout,
    dropout_layers,
    monte_carlo,
)
from ddfd_training.uncertainty_plots import draw_calibration, draw_maps

TABLE = {
    "coverage_68": "inside 68 %",
    "coverage_95": "inside 95 %",
    "ence": "ENCE",
    "ause_m": "AUSE [m]",
    "aurg_m": "AURG [m]",
    "aurg_fraction": "AURG/(AUSE+AURG)",
    "mean_sigma_m": "mean [m]",
    "rmse": "rms error [m]",
}
MONTE_CARLO, STATED, TOTAL = "Monte-Carlo dropout", "sigma_m, one pass", "both together"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ddfd-uncertainty", description=__doc__)
    parser.add_argument(
        "--checkpoint", required=True, metavar="FILE", help="weights (.pt) with dropout"
    )
    parser.add_argument(
        "--beside",
        metavar="FILE",
        help="another checkpoint, or name of a shipped model, whose sigma_m to judge beside it",
    )
    parser.add_argument("--samples", type=int, default=SAMPLES, help="passes with dropout on")
    parser.add_argument("--maps", type=int, default=4, help="draw maps of so many frames")
    parser.add_argument("--seed", type=int, default=0, help="of the dropout")
    parser.add_argument("--device", default="cpu", help="torch's: cpu, cuda, ...")
    parser.add_argument("--out", default="out/uncertainty", help="folder for report and plots")
    add_data_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console()
    try:
        report = run(arguments, console)
    except (DdfdError, ValueError, OSError) as error:
        print(f"ddfd-uncertainty: {error}", file=sys.stderr)
        return 2
    target = Path(arguments.out) / "report.json"
    target.write_text(json.dumps(clean(report, digits=5), indent=2) + "\n", encoding="utf-8")
    _print(report, console)
    console.print(f"written: {target.parent}", highlight=False)
    return 0


def _check_device(device: str) -> None:
    """Refuse a device that torch does not have here; DdfdError says so."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter without CUDA in torch
        raise DdfdError(
            f"--device: expected one that torch has here, such as cpu, got {device!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Judge every deviation there is; draws into the folder and returns the report.

    Raises:
        DdfdError: A model or the data cannot be used.
    """
    check_data_arguments(arguments)
    check_range("--samples", arguments.samples, 2)
    path = resolve_model(arguments.checkpoint, ".pt", parameter="--checkpoint")
    network, contract = load_checkpoint(path)
    _check_device(arguments.device)
    network.to(arguments.device)
    beside, other = None, None
    if arguments.beside:
        other = resolve_model(arguments.beside, ".pt", parameter="--beside")
        beside = load_checkpoint(other)[0].to(arguments.device)
    else:
        check_dropout(network)  # before anything is rendered
    dataset = open_data(arguments)
    options = data_options(arguments, contract.lens)
    items = open_evaluation_set(replace(options, limit=options.limit or 50), dataset)
    lens = None
    if any(_takes_lens(item) for item in (network, beside)):
        lens = told_lens(options, items, given=arguments.lens is not None)
    elif arguments.lens is not None and not items.rendered:
        refuse_unused_lens(options)
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    judged: dict[str, Calibration] = {}
    for number, item in enumerate(
        track(items, description="sampling", total=len(items), console=console)
    ):
        found = _answer(network, beside, item, arguments, lens)
        for name, (pred_m, sigma_m) in found.items():
            family = "laplace" if name == STATED else "normal"
            judged.setdefault(name, Calibration(family)).add(pred_m, sigma_m, item.depth_m)
        if number < arguments.maps:
            draw_maps(item, found, folder / f"maps_{number:02d}.png")
    results = {name: calibration.result() for name, calibration in judged.items()}
    draw_calibration({k: v["curves"] for k, v in results.items() if v}, folder / "calibration.png")
    return {
        "model": path.name,
        "beside": other.name if other else None,
        "data": items.description,
        "told_lens": None if lens is None else asdict(lens),
        "samples": arguments.samples,
        "machine": machine_info(),
        "result": results,
    }


def _takes_lens(network: nn.Module | None) -> bool:
    """Whether a network takes the lens beside the image."""
    return "lens" in getattr(network, "side_inputs", ())


def _answer(
    network: nn.Module,
    beside: nn.Module | None,
    item: Item,
    arguments: argparse.Namespace,
    lens: LensConfig | None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Prediction and deviation in metres for each way to state one.

    ``lens`` is told to those of the networks that take it.
    """
    image = to_batch(item.image_rgb).to(arguments.device)

    def told(network: nn.Module) -> torch.Tensor | None:
        return None if lens is None or not _takes_lens(network) else lens_tensor(lens, image)

    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    sampled: Sampled | None = None
    if dropout_layers(network) or beside is None:
        sampled = monte_carlo(
            network, image, arguments.samples, seed=arguments.seed, lens=told(network)
        )
        found[MONTE_CARLO] = (sampled.mean_m, sampled.std_m)
    stating = network if beside is None else beside
    with torch.no_grad():
        answer = stating(image, lens=told(stating)) if _takes_lens(stating) else stating(image)
    if "sigma_m" in answer:
        depth_m, sigma_m = (answer[key][0, 0].float().cpu().numpy()
                            for key in ("depth_m", "sigma_m"))  # fmt: skip
        found[STATED] = (depth_m, sigma_m)
    if sampled is not None and sampled.total_m is not None:
        found[TOTAL] = (sampled.mean_m, sampled.total_m)
    return found


def _print(report: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{report['model']}, means over images", title_justify="left")
    table.add_column("")
    for name in report["result"]:
        table.add_column(name, justify="right")
    means = [result.get("mean_over_images", {}) for result in report["result"].values()]
    for key, label in TABLE.items():
        percent = key.startswith("coverage")
        cells = [f"{m[key]:.1%}" if percent else f"{m[key]:.3f}" for m in means if key in m]
        table.add_row(escape(label), *cells)
    console.print(table)
    console.print(
        "Intervals: normal for samples and for both together, Laplace for sigma_m, whose "
        "likelihood trained it.",
        highlight=False,
    )


if __name__ == "__main__":
    raise SystemExit(main())
