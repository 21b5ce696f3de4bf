"""``ddfd-evaluate``: how good a model is on a data set, as tables and JSON.

Depth errors are metric: nothing is scaled or shifted to the truth. Every number says whether it is
a mean over images or over all pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import track

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.machine import machine_info
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.inference import open_backend
from ddfd_ros.inference.base import Backend
from ddfd_training.datasets.registry import DATASETS
from ddfd_training.evaluate import ConstantDepth, evaluate
from ddfd_training.evaluate_data import (
    DATA_SETS,
    EXPOSURES,
    DataOptions,
    EvaluationSet,
    mean_training_depth_m,
    open_evaluation_set,
)
from ddfd_training.evaluate_report import print_report
from ddfd_training.lens_argument import HELP as LENS_HELP
from ddfd_training.lens_argument import parse_lens

DEFAULTS = DataOptions(data="nyuv2", root="")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ddfd-evaluate", description=__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", metavar="FILE", help="weights (.pt), run by torch")
    model.add_argument("--onnx", metavar="FILE", help="exported model (.onnx)")
    model.add_argument("--engine", metavar="FILE", help="TensorRT engine (.engine, .plan)")
    parser.add_argument(
        "--runtime", default="auto", help="auto, onnxruntime, openvino, torch, ..."
    )
    parser.add_argument("--threads", type=int, default=0, help="of the runtime; 0: its choice")
    parser.add_argument("--precision", choices=("float32", "auto"), default="float32",
                        help="auto: what the node uses, fewer bits where faster")  # fmt: skip
    parser.add_argument("--data", choices=DATA_SETS, required=True)
    parser.add_argument("--root", help="the set's folder; default: $DDFD_DATA/<data>")
    parser.add_argument("--split", default=DEFAULTS.split, help="train or test")
    parser.add_argument("--limit", type=int, default=0, help="only the first so many images")
    parser.add_argument(
        "--lens",
        type=parse_lens,
        help=f"blurs sharp images: {LENS_HELP}. Default: the lens in the model's contract",
    )
    parser.add_argument("--kernel", default=DEFAULTS.kernel, help="disk or gaussian")
    parser.add_argument("--cache", default=DEFAULTS.cache, help="folder of rendered images")
    parser.add_argument("--aperture", default=DEFAULTS.aperture, help="dfd_dslr: N2_8 or N8")
    parser.add_argument(
        "--exposure",
        default=DEFAULTS.exposure,
        choices=EXPOSURES,
        help="natural pairs: match the sharp truth's brightness (gain and offset) or not; auto: "
        "where the pair has to be registered",
    )
    parser.add_argument(
        "--rgb-is",
        default=DEFAULTS.rgb_is,
        choices=("auto", "sharp", "defocused"),
        help="folder, bag: what the colour images show",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="further option of the data set, such as depth=raw (see docs/datasets.md)",
    )
    parser.add_argument("--baseline", action="store_true", help="also the training set's mean")
    parser.add_argument("--no-edges", action="store_true", help="leave the edge divergence out")
    parser.add_argument("--json", metavar="FILE", help="write the report there")
    return parser


def _data_options(arguments: argparse.Namespace, model_lens: LensConfig | None) -> DataOptions:
    """The options of the data set; a lens is the one asked for, or the model's own."""
    root = arguments.root
    if root is None:
        base = os.environ.get("DDFD_DATA")
        if base is None or arguments.data in ("folder", "bag"):
            raise DdfdError(
                "root: expected --root FOLDER, or the environment variable DDFD_DATA with the "
                "folder that holds the data sets, got neither"
            )
        root = str(Path(base) / DATASETS[arguments.data].folder)
    return DataOptions(
        data=arguments.data,
        root=root,
        split=arguments.split,
        lens=arguments.lens or model_lens or LENS_PRESETS["nyu-8m"],
        kernel=arguments.kernel,
        cache=arguments.cache,
        limit=arguments.limit,
        aperture=arguments.aperture,
        exposure=arguments.exposure,
        rgb_is=arguments.rgb_is,
        options=dict(_option(text) for text in arguments.option),
    )


def _option(text: str) -> tuple[str, Any]:
    """Name and value of ``NAME=VALUE``, the value as YAML reads it."""
    name, separator, value = text.partition("=")
    if not separator:
        raise DdfdError(f"--option: expected NAME=VALUE, got {text!r}")
    return name, yaml.safe_load(value)


def _model_info(path: Path, backend: Backend) -> dict[str, Any]:
    """What is evaluated, so that the report can be matched with the file."""
    contract = backend.contract
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "weights_sha256": contract.weights_sha256,
        "network": contract.network,
        "parameters": contract.parameter_count,
        "heads": list(contract.outputs),
        "runtime": backend.runtime,
        "device": backend.device,
    }


def _baseline(options: DataOptions, items: EvaluationSet, console: Console) -> dict[str, Any]:
    """The errors of always answering the training set's mean depth."""
    with console.status("mean depth of the training set"):
        model = ConstantDepth(mean_training_depth_m(options))
    bar = track(items, description="baseline", total=len(items), console=console)
    result = evaluate(model, bar, items.sensor_range_m, edges=False)
    keys = ("depth", "depth_within_sensor_range")
    return {"depth_m": model.value_m} | {key: result[key] for key in keys if key in result}


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluate as the command line says; returns the report that is printed and written.

    Raises:
        DdfdError: The model or the data cannot be used; the message says why.
    """
    path = Path(arguments.checkpoint or arguments.onnx or arguments.engine)
    runtime = (
        "torch" if arguments.checkpoint and arguments.runtime == "auto" else arguments.runtime
    )
    with open_backend(
        path, runtime, threads=arguments.threads, precision=arguments.precision
    ) as backend:
        lens = backend.contract.lens
        options = _data_options(arguments, lens)
        items = open_evaluation_set(options)
        if lens is not None and "lens" in items.description and options.lens != lens:
            console.print(
                f"note: the images are blurred by {options.lens}, but the model was trained for "
                f"{lens}; its depths cannot be right",
                style="yellow",
            )
        report: dict[str, Any] = {
            "model": _model_info(path, backend),
            "data": items.description,
            "machine": machine_info(),
        }
        bar = track(
            items, description=f"evaluating {path.name}", total=len(items), console=console
        )
        report["result"] = evaluate(
            backend, bar, items.sensor_range_m, edges=not arguments.no_edges
        )
    if arguments.baseline:
        report["baseline"] = _baseline(options, items, console)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console()
    try:
        report = run(arguments, console)
    except (DdfdError, OSError) as error:
        print(f"ddfd-evaluate: {error}", file=sys.stderr)
        return 2
    print_report(report, console)
    if arguments.json:
        target = Path(arguments.json)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_finite(report), indent=2, allow_nan=False)
        target.write_text(text + "\n", encoding="utf-8")
        console.print(f"written: {target}", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
