"""The command line of ``ddfd-evaluate``, and what a recipe fills in of it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_training.config import TrainConfig, load_config, root_of
from ddfd_training.datasets.base import RgbdDataset
from ddfd_training.datasets.registry import DATASETS, option_names
from ddfd_training.evaluate_data import DATA_SETS, EXPOSURES, DataOptions, open_test_data
from ddfd_training.lens_argument import HELP as LENS_HELP
from ddfd_training.lens_argument import lens_at, parse_count, parse_lens, parse_sharpness
from ddfd_training.metrics_lpips import BACKBONES
from ddfd_training.paper_table import DEFAULT_FOLDERS
from ddfd_training.records import read_yaml
from ddfd_training.sources import PINHOLE_F_NUMBER

DEFAULTS = DataOptions(data="nyuv2", root="")
_OF_THE_RECIPE = ("data", "split", "lens", "kernel", "preset", "size", "input", "aperture")
"""What the recipe of ``--config`` decides."""
_WITH_DEFAULT = ("split", "kernel", "preset", "aperture", "exposure", "rgb_is")
"""Fields of :class:`DataOptions` that stay as they are there where no argument is given."""
RUNS = "runs"
RESULTS = "benchmarks/results/tables"
"""Where the reports of recipes go, and where the table looks for them."""


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of ``ddfd-evaluate``."""
    parser = argparse.ArgumentParser(prog="ddfd-evaluate", description=description)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="weights (.pt), or name of a shipped model, run by torch",
    )
    model.add_argument(
        "--onnx", metavar="FILE", help="exported model (.onnx), or name of a shipped one"
    )
    model.add_argument("--engine", metavar="FILE", help="TensorRT engine (.engine, .plan)")
    model.add_argument(
        "--config",
        metavar="FILE",
        help="recipe (YAML): its weights in --runs, on its own test, beside the papers' rows",
    )
    model.add_argument(
        "--table",
        nargs="*",
        metavar="FOLDER",
        help="our rows beside the papers', from result files: "
        f"{', '.join(DEFAULT_FOLDERS)} unless other folders are given",
    )
    parser.add_argument("--runs", help=f"--config: folder of runs; default: {RUNS}")
    parser.add_argument(
        "--runtime", default="auto", help="auto, onnxruntime, openvino, torch, ..."
    )
    parser.add_argument("--threads", type=int, default=0, help="of the runtime; 0: its choice")
    parser.add_argument("--precision", choices=("float32", "auto"), default="float32",
                        help="auto: what the node uses, fewer bits where faster")  # fmt: skip
    parser.add_argument(
        "--deblur",
        default="",
        metavar="FILE",
        help="second model (.onnx, or name) that makes the sharp image, told the depth",
    )
    parser.add_argument("--deblur-depth", default="model", choices=("model", "data", "none"),
                        help="whose depth it is told; data: the set's own")  # fmt: skip
    add_data_arguments(parser)
    _add_view_arguments(parser)
    parser.add_argument("--baseline", action="store_true", help="also the training set's mean")
    parser.add_argument("--no-edges", action="store_true", help="leave the edge divergence out")
    parser.add_argument("--json", metavar="FILE", help="write the report there")
    parser.add_argument(
        "--lpips",
        choices=tuple(BACKBONES),
        help="perceptual distance by this network; needs torchvision's ImageNet weights of it",
    )
    parser.add_argument(
        "--lpips-weights",
        metavar="FILE",
        help="those weights, or download; default: where torch.hub keeps its downloads",
    )
    parser.add_argument("--plot", metavar="PNG", help="draw the error per depth there")
    return parser


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that :func:`data_options` understands."""
    parser.add_argument("--data", choices=DATA_SETS, help="which set to test on")
    parser.add_argument("--root", help="the set's folder; default: $DDFD_DATA/<data>")
    parser.add_argument("--split", help=f"train or test; default: {DEFAULTS.split}")
    parser.add_argument(
        "--limit", type=parse_count, default=0, help="only the first so many images"
    )
    parser.add_argument(
        "--lens",
        type=parse_lens,
        help=f"blurs sharp images, and is told to a model for any lens: {LENS_HELP}. Default: "
        "the lens in the model's contract",
    )
    parser.add_argument("--kernel", help=f"disk or gaussian; default: {DEFAULTS.kernel}")
    parser.add_argument("--preset", help="way to render: d3net, syndof, ...")
    parser.add_argument("--cache", default=DEFAULTS.cache, help="folder of rendered images")
    parser.add_argument(
        "--aperture",
        help=f"dfd_dslr, dfd_outdoor: N2_8 or N8; default: {DEFAULTS.aperture}",
    )
    parser.add_argument(
        "--exposure",
        choices=EXPOSURES,
        help="natural pairs: match the sharp truth's brightness (gain and offset) or not; auto, "
        "the default: where the pair has to be registered",
    )
    parser.add_argument(
        "--rgb-is",
        choices=("auto", "sharp", "defocused"),
        help=f"folder, bag: what the colour images show; default: {DEFAULTS.rgb_is}",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="further option of the data set, such as depth=raw (see docs/datasets.md)",
    )
    parser.add_argument(
        "--input",
        choices=("auto", "sharp"),
        help="sharp: show the network the sharp images, not rendered ones; default: auto",
    )


def _add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """What is done to the images on their way to the network."""
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="the network sees images of this size, and its answers are scaled back to the "
        "truth's; --lens is that of the images before. Without --lens, sharp images are brought "
        "to this size first and rendered through the network's own lens",
    )
    parser.add_argument(
        "--soften",
        type=parse_sharpness,
        default=0.0,
        metavar="PX|FILE",
        help="for a camera that is sharper in focus than the pictures the model was trained on: "
        "its calibration, to soften images as the node does, or the standard deviation of the "
        "Gaussian in pixels",
    )


def data_options(
    arguments: argparse.Namespace, model_lens: LensConfig | None, size: Sequence[int] = ()
) -> DataOptions:
    """The options of the data set; a lens is the one asked for, or the model's own.

    ``size`` is that of ``DataOptions``.
    """
    if arguments.data is None:
        raise DdfdError(f"--data: expected one of {', '.join(DATA_SETS)}, got none")
    root = arguments.root
    if root is None:
        base = os.environ.get("DDFD_DATA")
        if base is None or arguments.data in ("folder", "bag"):
            raise DdfdError(
                "root: expected --root FOLDER, or the environment variable DDFD_DATA with the "
                "folder that holds the data sets, got neither"
            )
        root = str(Path(base) / DATASETS[arguments.data].folder)
    lens = arguments.lens or model_lens or LENS_PRESETS["nyu-8m"]
    if isinstance(lens, LensCalibration):
        lens = lens.spread_lens
    if arguments.input == "sharp":
        lens = replace(lens, f_number=PINHOLE_F_NUMBER)
    values = vars(arguments)
    return DataOptions(
        data=arguments.data,
        root=root,
        lens=lens,
        size=tuple(size),
        cache=arguments.cache,
        limit=arguments.limit,
        options=dict(_option(text) for text in arguments.option),
        **{name: values[name] for name in _WITH_DEFAULT if values[name] is not None},
    )


def open_data(arguments: argparse.Namespace) -> RgbdDataset:
    """The data set asked for; a lens given as a calibration becomes what it is at its size.

    Raises:
        DdfdError: The set cannot be opened, an argument would be ignored with it, or its images
            have another shape than those that the lens was calibrated with.
    """
    dataset = open_test_data(data_options(arguments, None))
    _refuse_what_the_images_need_not(arguments, dataset)
    if isinstance(arguments.lens, LensCalibration):
        height, width = dataset.frame_size()
        arguments.lens = lens_at(arguments.lens, width, height)
    return dataset


def check_data_arguments(arguments: argparse.Namespace) -> None:
    """Refuse, before anything is read, what the data set named would ignore.

    Raises:
        DdfdError: It names the argument.
    """
    if arguments.kernel and arguments.preset:
        raise DdfdError(
            f"--kernel: expected none beside --preset, which has its own, got "
            f"{arguments.kernel}; leave either out"
        )
    for name in ("aperture", "rgb_is"):
        value = getattr(arguments, name)
        if value is None or arguments.data is None or name in option_names(arguments.data):
            continue
        those = ", ".join(data for data in DATA_SETS if name in option_names(data))
        raise DdfdError(
            f"--{name.replace('_', '-')}: expected with {those} only, got {value} with "
            f"{arguments.data}, which has no such choice; leave it out"
        )


def _refuse_what_the_images_need_not(arguments: argparse.Namespace, dataset: RgbdDataset) -> None:
    """DdfdError for what is done to the other kind of images: rendered ones, or photographs."""
    if dataset.blur == "rendered":
        if arguments.exposure is not None:
            raise DdfdError(
                f"--exposure: expected with photographs and their sharp companions, got "
                f"{arguments.exposure} with {arguments.data}, whose sharp images are rendered and "
                "are their own truth; leave it out"
            )
        return
    for name in ("kernel", "preset"):
        if value := getattr(arguments, name):
            raise DdfdError(
                f"--{name}: expected with sharp images, which are rendered, got {value} with "
                f"{arguments.data}, whose photographs are shown as they are; leave it out"
            )


def _option(text: str) -> tuple[str, Any]:
    """Name and value of ``NAME=VALUE``, the value as YAML reads it."""
    name, separator, value = text.partition("=")
    if not separator:
        raise DdfdError(f"--option: expected NAME=VALUE, got {text!r}")
    return name, read_yaml(value)


def fill_from_recipe(arguments: argparse.Namespace) -> TrainConfig:
    """Set model, data and report as the recipe of ``--config`` says; returns the recipe.

    Raises:
        DdfdError: An argument beside it names another test, the recipe names none, or its weights
            are not in the folder of runs.
    """
    values = vars(arguments)
    given = [f"--{name}" for name in _OF_THE_RECIPE if values[name] is not None]
    if given:
        raise DdfdError(
            f"--config: expected the test of the recipe alone, got also {', '.join(given)}; "
            "change evaluate (or lens) in a copy of the recipe, or give its weights as "
            "--checkpoint in place of --config"
        )
    config = load_config(arguments.config)
    wanted = config.evaluate
    if not wanted.data:
        raise DdfdError(
            f"{arguments.config}: expected a part evaluate with data, got none; name the test "
            "there, or use --checkpoint and --data"
        )
    runs = arguments.runs or RUNS
    weights = Path(runs) / config.name / f"{config.name}.pt"
    if not weights.is_file():
        raise DdfdError(
            f"expected the weights {weights}, got none; train them first: "
            f"ddfd-train --config {arguments.config} --out {runs}"
        )
    arguments.checkpoint = str(weights)
    arguments.data, arguments.split = wanted.data, wanted.split
    arguments.root = arguments.root or root_of(wanted.data, wanted.root) or None
    arguments.input, arguments.preset = wanted.input, wanted.preset
    if "aperture" in option_names(wanted.data):
        arguments.aperture = wanted.aperture
    arguments.size = list(wanted.size) or None
    arguments.lens = arguments.lens or config.lens
    arguments.limit = arguments.limit or wanted.limit
    arguments.json = arguments.json or f"{RESULTS}/{config.name}.json"
    return config
