"""``ddfd-onboard``: from a calibration to a model that runs on your camera, in one command.

    ddfd-onboard lens/lens.yaml --init ddfd-lite-any --data nyuv2 --root data/nyuv2

renders the data through your lens, fine-tunes, exports, checks the export, measures, and leaves in
--out: the model (.onnx), its report, and the node's parameters. Interrupted, it goes on where it
was when run again. Without depth, but with pairs of a wide and a small aperture (rgb/ and sharp/
with the same names): --pairs FOLDER, and --sharp-ratio with the quotient of both f-numbers where
the small aperture blurs too: f/2.8 beside f/8 is 0.35.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.core.thin_lens import DISK_SIGMA_PER_DIAMETER
from ddfd_ros.model.checkpoint import load_checkpoint
from ddfd_training.calibration.files import read_calibration
from ddfd_training.config import DataConfig, SourceConfig, stages_of
from ddfd_training.datasets.registry import open_dataset
from ddfd_training.lens_argument import parse_count
from ddfd_training.lens_scores.shots import OPTIONS
from ddfd_training.onboard_recipe import (
    Job,
    OnboardError,
    Recording,
    model_paths,
    recipe,
    working_lens,
)
from ddfd_training.records import check_range
from ddfd_training.sources import split_of

_FEWEST_SCENES = 4
"""Pictures of rendered rooms, two of each: one room to train on, one to validate on."""
_RUN = "import sys; from importlib import import_module as i; sys.exit(i(sys.argv.pop(1)).{}())"
_TRAIN = ("ddfd_training.cli", "main")
_EXPORT = ("ddfd_trt.cli", "export_main")
_VERIFY = ("ddfd_trt.cli", "verify_main")
_SCORES = ("ddfd_training.lens_scores_cli", "main")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddfd-onboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Job()
    parser.add_argument("calibration", type=Path, help="lens.yaml of ddfd-calibrate")
    parser.add_argument("--name", default=usual.name, help="of the model; default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("onboard"), help="folder; default: %(default)s"
    )
    parser.add_argument(
        "--data",
        default=usual.data,
        help="set of sharp images with depth to render (docs/datasets.md); default: %(default)s, "
        "rooms made here",
    )
    parser.add_argument("--root", default="", help="the data's folder")
    parser.add_argument(
        "--split", default=usual.split, help="of the data, for training; default: %(default)s"
    )
    parser.add_argument(
        "--scenes",
        type=int,
        default=usual.scenes,
        help="pictures of synthetic rooms, two of each; default: %(default)s",
    )
    parser.add_argument(
        "--natural", default="", help="folder with rgb/, sharp/, depth/ of yours, trained on, too"
    )
    parser.add_argument(
        "--pairs", default="", help="folder with rgb/ and sharp/: learn without depth"
    )
    parser.add_argument(
        "--sharp-ratio",
        type=float,
        default=usual.sharp_ratio,
        metavar="R",
        help="of --pairs: blur in sharp/ over that in rgb/; 0: they have none",
    )
    parser.add_argument(
        "--init", default="", help="weights to start from (.pt), or name of a shipped model"
    )
    parser.add_argument(
        "--steps", type=int, default=usual.steps, help="of training; default: %(default)s"
    )
    parser.add_argument(
        "--width",
        type=int,
        default=0,
        help="in pixels of the images the robot will use; default: as calibrated",
    )
    parser.add_argument(
        "--range",
        type=float,
        nargs=2,
        default=list(usual.depth_range_m),
        metavar=("NEAR", "FAR"),
        help="of depth, in metres; default: 0.5 10",
    )
    parser.add_argument(
        "--test-split", default="test", help="of the data, for the report; default: %(default)s"
    )
    parser.add_argument(
        "--test-scenes",
        type=parse_count,
        default=20,
        help="so many pictures for the report; default: %(default)s",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the recipe, such as data.batch_size=4 (docs/training.md); repeatable",
    )
    return parser


def _sigma_0_px(init: str, pairs: str) -> float:
    """Of the weights to start from; ``--pairs`` takes none, which the recipe refuses."""
    return 0.0 if pairs or not init else load_checkpoint(init)[1].sigma_0_px


def _job(arguments: argparse.Namespace) -> Job:
    near_m, far_m = arguments.range
    init = arguments.init
    if init:
        init = str(resolve_model(init, ".pt", parameter="--init"))
    return Job(
        name=arguments.name,
        data=arguments.data,
        root=arguments.root,
        split=arguments.split,
        scenes=arguments.scenes,
        pairs=arguments.pairs,
        sharp_ratio=arguments.sharp_ratio,
        natural=arguments.natural,
        width=arguments.width,
        init=init,
        sigma_0_px=_sigma_0_px(init, arguments.pairs),
        steps=arguments.steps,
        depth_range_m=(near_m, far_m),
    )


def _recording(folder: str) -> Recording:
    """The sizes of a folder's pictures, by its first one.

    Raises:
        DatasetError: The folder cannot be read.
    """
    dataset = open_dataset("folder", folder, "all")
    height, width = dataset[0].depth_m.shape
    return Recording((height, width), dataset.frame_size())


def _check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what would be ignored, and numbers that no training has, before anything is read.

    Raises:
        OnboardError: It would be ignored, or is no range; the message names the argument.
        ValueError: A number is too small; likewise.
    """
    for name, least in (("steps", 1), ("scenes", _FEWEST_SCENES), ("width", 0)):
        check_range(f"--{name}", getattr(arguments, name), least)
    unused: tuple[str, ...] = ("scenes",)
    beside = f"--data {arguments.data}"
    if arguments.pairs:
        unused = ("data", "root", "split", "scenes", "test_split", "test_scenes")
        beside = "--pairs, which is all that is learnt from"
    elif arguments.data == "synthetic":
        unused, beside = ("root", "split", "test_split"), "rendered rooms (--data synthetic)"
    usual = _parser()
    for name in unused:
        if getattr(arguments, name) != usual.get_default(name):
            raise OnboardError(
                f"--{name.replace('_', '-')}: expected none with {beside}, got "
                f"{getattr(arguments, name)}; leave it out"
            )
    near_m, far_m = arguments.range
    if not 0 < near_m < far_m < math.inf:
        raise OnboardError(
            f"--range: expected metres, the nearest above 0 and below the farthest, got {near_m:g}"
            f" and {far_m:g}; give them as --range 0.5 10"
        )


def _check_data(arguments: argparse.Namespace) -> int:
    """Open what is needed first and last, so that a wrong folder is not found after training.

    Returns:
        Number of pictures of what is trained on, without those of ``--natural``.

    Raises:
        DatasetError: A data set cannot be read.
    """
    if arguments.natural:
        open_dataset("folder", arguments.natural, "all")
    if arguments.pairs:
        folder = SourceConfig("folder", arguments.pairs)
        pairs = open_dataset("folder", arguments.pairs, split_of(folder))
        if pairs.blur == "rendered":
            raise OnboardError(
                f"--pairs: expected rgb/ and sharp/ in {arguments.pairs}, got no sharp/; put the "
                "photographs of the small aperture there, under the names of those in rgb/"
            )
        return len(pairs)
    if arguments.data == "synthetic":
        scenes: int = arguments.scenes
        return scenes
    source = SourceConfig(arguments.data, arguments.root, arguments.split)
    trained = open_dataset(arguments.data, arguments.root, split_of(source))
    open_dataset(arguments.data, arguments.root, arguments.test_split)
    return len(trained)


def _call(command: tuple[str, str], *words: str) -> None:
    """Run a command of the project in a process of its own, its progress shown as usual.

    Raises:
        OnboardError: It failed; it has said why.
    """
    module, function = command
    run = subprocess.run(
        [sys.executable, "-c", _RUN.format(function), module, *words], check=False
    )
    if run.returncode:
        raise OnboardError(
            f"{module}: expected it to succeed, got exit status {run.returncode}; see above"
        )


def onboard(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All steps; returns the report.

    Raises:
        DdfdError: An argument is refused, or a step failed.
        ValueError: A number is too small, or ``--set`` names no setting of a recipe, or a value
            that it cannot have.
    """
    _check_arguments(arguments)
    calibration = read_calibration(arguments.calibration)
    job, out = _job(arguments), arguments.out
    lens = working_lens(calibration, job.width)
    pictures = _check_data(arguments)
    if recorded := job.pairs or job.natural:
        job = replace(job, recording=_recording(recorded))
    values = recipe(job, calibration)
    usual = DataConfig.held_out
    if pictures < 2 * usual:  # something has to be left to train on
        values["data"]["held_out"] = max(1, pictures // 2)
    if job.natural and open_dataset("folder", job.natural, "all").blur == "rendered":
        # Without sharp/ a folder counts as sharp; photographs would be blurred a second time.
        values["data"]["sources"][-1]["options"]["rgb_is"] = "defocused"
    trained = stages_of(values, arguments.set)[-1]  # refuses what the training would
    if job.pairs and trained.network.options.get("side") == "unknown":
        near_m, far_m = job.depth_range_m
        console.print(
            f"note: the lens is focused at {lens.focus_distance_m:.3g} m, within --range "
            f"{near_m:g} {far_m:g}, and pairs do not tell the side of the focus: the model will "
            "answer blur without its sign, and no depth; focus beyond the range or before it, or "
            "narrow the range",
            style="yellow",
        )
    out.mkdir(parents=True, exist_ok=True)
    config = out / f"{job.name}.yaml"
    config.write_text(yaml.safe_dump(values, sort_keys=False))
    checkpoint, model = model_paths(out, job.name)
    console.rule(f"1 of 4: training, {job.steps} steps, A = {lens.px_per_dioptre:.3g}")
    _call(_TRAIN, "--config", str(config), "--out", str(out), *arguments.set)
    console.rule("2 of 4: export")
    _call(_EXPORT, str(checkpoint), str(model))
    console.rule("3 of 4: does the export answer as the training's weights?")
    parity = out / f"{job.name}.parity.json"
    _call(_VERIFY, str(checkpoint), str(model), "--runtime", "onnxruntime", "--json", str(parity))
    report: dict[str, Any] = {"parity": json.loads(parity.read_text())}
    console.rule("4 of 4: how good is it?")
    if job.pairs:
        console.print("trained without depth: measure it with ddfd-evaluate where you have truth")
    else:
        report["scores"] = _scores(arguments, model, out, calibration)
    report["node"] = str(_node_parameters(arguments, calibration, model))
    target = out / f"{job.name}.onboard.json"
    target.write_text(json.dumps(report, indent=2) + "\n")
    console.print(
        f"done: {model}; start the node with --ros-args --params-file {report['node']}",
        highlight=False,
        soft_wrap=True,
    )
    return report


def _scores(
    arguments: argparse.Namespace, model: Path, out: Path, calibration: LensCalibration
) -> dict[str, Any]:
    """Errors on scenes that were not trained on, photographed through this lens."""
    lens = working_lens(calibration, arguments.width)
    focus_m = min(lens.focus_distance_m, 50.0)
    # The diameter that spreads as much with the point-spread function of the evaluation.
    strength = lens.px_per_dioptre * DISK_SIGMA_PER_DIAMETER / OPTIONS.spread_per_diameter
    path = out / f"{arguments.name}.lenses.json"
    where = ["--data", arguments.data, "--root", arguments.root]
    where += [] if arguments.data == "synthetic" else ["--split", arguments.test_split]
    _call(
        _SCORES, str(model), *where, "--limit", str(arguments.test_scenes),
        "--lens", f"{strength},{focus_m}", "--part", "swap", "--part", "stress",
        "--runtime", "onnxruntime", "--json", str(path),
    )  # fmt: skip
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _node_parameters(
    arguments: argparse.Namespace, calibration: LensCalibration, model: Path
) -> Path:
    """A parameter file for the node: model and calibration."""
    parameters: dict[str, Any] = {
        "model_path": str(model.resolve()),
        "lens_calibration": str(arguments.calibration.resolve()),
        "warm_up_width": arguments.width or calibration.width,
    }
    parameters["warm_up_height"] = round(
        calibration.height * parameters["warm_up_width"] / calibration.width
    )
    path = arguments.out / f"{arguments.name}.params.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}, sort_keys=False))
    resolved: Path = path.resolve()
    return resolved


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        onboard(arguments, Console())
    except (DdfdError, ValueError, OSError) as error:
        print(f"ddfd-onboard: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
