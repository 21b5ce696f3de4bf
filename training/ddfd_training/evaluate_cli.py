"""``ddfd-evaluate``: how good a model is on a data set, as tables and JSON.

Depth errors are metric: nothing is scaled or shifted to the truth. Every number says whether it is
a mean over images or over all pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from ddfd_ros.core.blur_zones import takes_any_lens
from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.json_values import clean
from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.machine import machine_info
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.sharpness import missing_px
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.inference import open_backend
from ddfd_ros.inference.base import Backend, BackendOptions
from ddfd_training.evaluate import ConstantDepth, evaluate
from ddfd_training.evaluate_arguments import (
    build_parser,
    check_data_arguments,
    data_options,
    fill_from_recipe,
    open_data,
)
from ddfd_training.evaluate_data import (
    DataOptions,
    EvaluationSet,
    mean_training_depth_m,
    open_evaluation_set,
    refuse_unused_lens,
    told_lens,
)
from ddfd_training.evaluate_deblur import with_deblurring
from ddfd_training.evaluate_items import Item
from ddfd_training.evaluate_report import print_report
from ddfd_training.given_options import given_options
from ddfd_training.metrics import Lpips, plot_depth_bins
from ddfd_training.paper_table import (
    DEFAULT_FOLDERS,
    our_rows,
    paper_rows,
    print_tables,
    row_of_report,
)
from ddfd_training.resized_model import Resized, Softened


def _model_info(path: Path, backend: Backend) -> dict[str, Any]:
    """What is evaluated, so that the report can be matched with the file."""
    contract = backend.contract
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "weights_sha256": contract.weights_sha256,
        "network": contract.network,
        "parameters": contract.parameter_count,
        "training": dict(contract.training),
        "heads": list(contract.outputs),
        "runtime": backend.runtime,
        "device": backend.device,
    }


def _model_file(arguments: argparse.Namespace) -> Path:
    """The model that is asked for by file, or by the name of a shipped one."""
    if arguments.checkpoint:
        return resolve_model(arguments.checkpoint, ".pt", parameter="--checkpoint")
    if arguments.onnx:
        return resolve_model(arguments.onnx, ".onnx", parameter="--onnx")
    return resolve_model(arguments.engine, ".engine", ".plan", parameter="--engine")


def _baseline(options: DataOptions, items: EvaluationSet, console: Console) -> dict[str, Any]:
    """The errors of always answering the training set's mean depth."""
    with console.status("mean depth of the training set"):
        model = ConstantDepth(mean_training_depth_m(options))
    bar = track(items, description="baseline", total=len(items), console=console)
    result = evaluate(model, bar, items.sensor_range_m, edges=False)
    keys = ("depth", "depth_within_sensor_range")
    return {"depth_m": model.value_m} | {key: result[key] for key in keys if key in result}


def _network_scale(arguments: argparse.Namespace, items: EvaluationSet) -> float:
    """Size of the images as the network sees them over their own, which ``--size`` changes."""
    if not arguments.size:
        return 1.0
    return float(arguments.size[1] / items.image_width())


def _missing_sharpness(
    camera: float | LensCalibration,
    contract: ModelContract,
    items: EvaluationSet,
    scale: float,
) -> float:
    """Standard deviation of the Gaussian that images are softened by, at the network's size.

    Args:
        camera: The deviation itself, or what the camera's sharpness was measured as.
        contract: Says how sharp the model's training pictures were.
        items: The set.
        scale: Width of the images as the network sees them over that of the set's own.

    Raises:
        DdfdError: The camera's sharpness was measured in images of another shape.
    """
    if not isinstance(camera, LensCalibration):
        return camera
    height, width = (round(scale * side) for side in items.dataset.frame_size())
    return missing_px(contract.sigma_0_px, camera.sigma_0_for(width, height))


def _say_if_not_softened(
    camera: float | LensCalibration, soften_px: float, console: Console
) -> None:
    """Tell who gave a calibration that nothing came of it."""
    if isinstance(camera, LensCalibration) and not soften_px:
        console.print(
            "note: images are not softened: the camera is no sharper in focus than the model's "
            "training pictures, or one of both is not known (sigma_0_px: 0)",
            style="yellow",
        )


def _say_if_lens_differs(
    options: DataOptions,
    items: EvaluationSet,
    trained: LensConfig | None,
    scale: float,
    console: Console,
) -> None:
    """Tell of blur that is rendered by another lens than the model was trained for.

    ``scale`` is the width of the images as the network sees them over that of the set's own.
    """
    if trained is None or not items.rendered:
        return
    seen = options.lens.scaled(scale)
    if seen != trained:
        console.print(
            f"note: the model sees blur of {seen}, but was trained for {trained}; its depths "
            "cannot be right",
            style="yellow",
        )


def _blurred_by(items: Iterable[Item], lens: LensConfig) -> Iterator[Item]:
    """The items, the true blur of the rendered ones in the diameters of ``lens``."""
    for item in items:
        yield item if item.lens is None else replace(item, lens=lens)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse, before anything is measured, what would be ignored or could not be written.

    Raises:
        DdfdError: It names the argument.
        OSError: A folder to write to cannot be made.
    """
    if arguments.runs and not arguments.config:
        raise DdfdError(
            f"--runs: expected --config beside it, whose weights it names, got {arguments.runs} "
            "without; leave it out"
        )
    if arguments.lpips_weights and not arguments.lpips:
        raise DdfdError("--lpips-weights: expected --lpips beside it, got none; give both")
    if arguments.deblur_depth != "model" and not arguments.deblur:
        raise DdfdError("--deblur-depth: expected --deblur beside it, got none; give both")
    check_data_arguments(arguments)
    for name in ("json", "plot"):
        target = Path(getattr(arguments, name) or "report")
        if target.is_dir():
            raise DdfdError(f"--{name}: expected a file to write, got the folder {target}")
        target.parent.mkdir(parents=True, exist_ok=True)


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluate as the command line says; returns the report that is printed and written.

    Raises:
        DdfdError: The model or the data cannot be used; the message says why.
    """
    _check(arguments)
    given = arguments.lens is not None
    recipe = fill_from_recipe(arguments) if arguments.config else None
    fetch = arguments.lpips_weights == "download"
    weights = None if fetch else arguments.lpips_weights
    lpips = Lpips(arguments.lpips, weights, download=fetch) if arguments.lpips else None
    path = _model_file(arguments)
    if arguments.deblur:
        arguments.deblur = str(resolve_model(arguments.deblur, ".onnx", parameter="--deblur"))
    runtime = (
        "torch" if arguments.checkpoint and arguments.runtime == "auto" else arguments.runtime
    )
    with open_backend(
        path, runtime, threads=arguments.threads, precision=arguments.precision
    ) as backend:
        lens = backend.contract.lens
        dataset = open_data(arguments)
        # The lens of a recipe or a model is that of what the network sees, not of larger images.
        options = data_options(arguments, lens, () if given else arguments.size or ())
        items = open_evaluation_set(options, dataset)
        asked: Iterable[Item] = items
        network_scale = _network_scale(arguments, items)
        told = takes_any_lens(backend.contract)
        if told:
            blurred_by = told_lens(options, items, given=arguments.lens is not None)
            asked = _blurred_by(items, blurred_by)
            seen_lens = blurred_by.scaled(network_scale) if given else blurred_by
            backend.set_lens(seen_lens)
        elif given and not items.rendered:
            refuse_unused_lens(options)
        elif arguments.input != "sharp":
            _say_if_lens_differs(options, items, lens, network_scale, console)
        report: dict[str, Any] = {
            "model": _model_info(path, backend),
            "data": items.description,
            "machine": machine_info(),
        }
        if told:
            report["model"]["told_lens"] = asdict(seen_lens)
        # With further options of the data set, it is no longer the test that the recipe names.
        if recipe is not None and recipe.evaluate.paper and not options.options:
            report["test"] = paper_rows(recipe.evaluate.paper)[0].test
        bar = track(
            asked, description=f"evaluating {path.name}", total=len(items), console=console
        )
        answering, asked = with_deblurring(
            backend,
            arguments.deblur,
            arguments.deblur_depth,
            bar,
            BackendOptions(threads=arguments.threads, precision=arguments.precision),
        )
        # Sharp images may have been brought to the network's size before they were rendered.
        seen_scale = network_scale * items.scale
        soften_px = _missing_sharpness(arguments.soften, backend.contract, items, seen_scale)
        _say_if_not_softened(arguments.soften, soften_px, console)
        model = Softened(answering, soften_px) if soften_px else answering
        if arguments.size:
            model = Resized(model, tuple(arguments.size))
            report["network_size"] = list(arguments.size)
        report |= {"softened_px": soften_px} if soften_px else {}
        if arguments.deblur:
            report["deblurring"] = {
                "file": Path(arguments.deblur).name, "depth": arguments.deblur_depth
            }  # fmt: skip
        report["result"] = evaluate(
            model, asked, items.sensor_range_m, edges=not arguments.no_edges, lpips=lpips
        )
    if arguments.baseline:
        report["baseline"] = _baseline(options, items, console)
    return report


def _print_beside_papers(report: dict[str, Any], path: Path, console: Console) -> None:
    """The table of the report's test, with its own row, where a paper has that test."""
    row = row_of_report(report, path)
    if row is not None:
        print_tables([*paper_rows(), row], console)


def _print_table(folders: Sequence[str], console: Console) -> int:
    """Our rows of these folders beside the papers'; returns the exit code."""
    rows = our_rows(folders)
    if not rows:
        print(
            "ddfd-evaluate: --table: expected reports of a paper's test (*.json of --json or "
            f"--config) in {', '.join(map(str, folders))}, got none; run it in the checkout, or "
            "name the folders",
            file=sys.stderr,
        )
        return 2
    print_tables([*paper_rows(), *rows], console)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser(__doc__)
    arguments = parser.parse_args(argv)
    console = Console()
    if arguments.table is not None:
        others = [name for name in vars(arguments) if name != "table"]
        if given := given_options(arguments, others, parser):
            print(
                f"ddfd-evaluate: --table: expected no other option, got also {', '.join(given)}; "
                "it prints reports that are there, and measures nothing: leave either out",
                file=sys.stderr,
            )
            return 2
        return _print_table(arguments.table or DEFAULT_FOLDERS, console)
    try:
        report = run(arguments, console)
        print_report(report, console)
        if arguments.config:
            _print_beside_papers(report, Path(arguments.checkpoint), console)
        _write(report, arguments, console)
    except (DdfdError, ValueError, OSError) as error:
        print(f"ddfd-evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def _write(report: dict[str, Any], arguments: argparse.Namespace, console: Console) -> None:
    """Write the report, then draw what can be drawn of it, as asked for."""
    if arguments.json:
        target = Path(arguments.json)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(clean(report), indent=2, allow_nan=False)
        target.write_text(text + "\n", encoding="utf-8")
        console.print(f"written: {target}", highlight=False)
    if arguments.plot and "depth_bins" in report["result"]:
        bins = {"bins": report["result"]["depth_bins"]}
        drawn = plot_depth_bins({report["model"]["file"]: bins}, arguments.plot)
        console.print(f"written: {drawn}", highlight=False)


if __name__ == "__main__":
    raise SystemExit(main())
