"""``ddfd-bag``: the command line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ddfd_ros.bag.errors import BagError
from ddfd_ros.bag.run import COPIES, BagJob, BagResult, convert
from ddfd_ros.bag.writing import STORAGES
from ddfd_ros.core.arguments import at_least_one
from ddfd_ros.core.errors import DdfdError
from ddfd_ros.ros.parameters import NodeParameters

_REASONS = 8  # as many are printed
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EVERY_NODES = ("use_sim_time", "qos_overrides", "start_type_description_service")
_HEADS = {"depth": "depth_m", "sharp": "sharp_rgb", "sigma": "sigma_m", "defocus": "defocus_px"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0: every frame was answered; 1: some were not, the reasons are printed; 2: nothing could
        be done; 130: interrupted, the same command goes on where it was.
    """
    options = _parser().parse_intermixed_args(argv)
    console = Console(stderr=True)

    def warn(text: str) -> None:
        console.print(f"ddfd-bag: {text}", style="yellow", markup=False, highlight=False)

    try:
        parameters = read_parameters(options.model, options.params, options.parameters, warn)
        job = BagJob(
            source=options.input,
            target=options.output,
            image_topic=options.image_topic,
            info_topic=options.camera_info_topic,
            heads=tuple(_HEADS[name] for name in options.heads),
            points=options.points,
            namespace=options.namespace,
            copy=options.copy,
            storage=options.storage,
            part_frames=options.part_frames,
            overwrite=options.overwrite,
        )
        result = _with_progress(job, parameters, console)
    except (DdfdError, OSError) as error:
        console.print(f"ddfd-bag: {error}", style="red", markup=False, highlight=False)
        return 2
    except KeyboardInterrupt:
        console.print("ddfd-bag: interrupted; the same command goes on where it was")
        return 130
    _print(result, job)
    return 1 if result.totals.failed else 0


def read_parameters(
    model: str,
    file: Path | None,
    settings: Sequence[str],
    warn: Callable[[str], None] = lambda text: None,
) -> NodeParameters:
    """The node's parameters from its YAML file and from ``key=value`` settings, which win.

    Precision is float32 unless said otherwise: the answers then depend less on the processor.

    Args:
        model: Model file or name; empty: what the others say.
        file: The node's YAML file; None: none.
        settings: Texts ``key=value``.
        warn: Told of names in the file that are none of the node's.

    Raises:
        DdfdError: An unknown key or a value that is refused.
    """
    values: dict[str, Any] = {"precision": "float32"}
    if file is not None:
        values |= _from_file(file, warn)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise BagError(f"parameter: expected key=value, got {setting!r}")
        values[key] = _yaml(text, f"parameter {key}")
    if model:
        values["model_path"] = model
    known = {item.name: item for item in fields(NodeParameters)}
    if unknown := sorted(set(values) - set(known)):
        raise BagError(
            f"parameters: expected names of the node's, got {', '.join(unknown)}; see "
            "config/ddfd.yaml"
        )
    for name, value in values.items():
        if isinstance(known[name].default, float):
            values[name] = _float_meant(value)
    return NodeParameters(**values)


def _from_file(file: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    try:
        content = _yaml(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError as error:
        raise BagError(
            f"--params: expected a YAML file as config/ddfd.yaml, got no file at {file}"
        ) from error
    except UnicodeDecodeError as error:
        raise BagError(f"{file}: expected YAML, got no text: {error}") from error
    found = [
        node["ros__parameters"]
        for node in (content.values() if isinstance(content, dict) else ())
        if isinstance(node, dict) and isinstance(node.get("ros__parameters"), dict)
    ]
    if len(found) != 1:
        raise BagError(
            f"{file}: expected one node with ros__parameters, got {len(found)}; see "
            "config/ddfd.yaml"
        )
    ours = {item.name for item in fields(NodeParameters)}
    # As the node does: a misspelt limit would be none, without a word.
    if unknown := sorted(str(name) for name in found[0] if not _is_known(str(name), ours)):
        warn(
            f"{file}: expected parameters of config/ddfd.yaml, got also {', '.join(unknown)}, "
            "which nothing reads; check the spelling"
        )
    return {name: value for name, value in found[0].items() if name in ours}


def _float_meant(value: Any) -> Any:
    """The float where one was meant: PyYAML reads 1 as a whole number, and 1e-1 as text.

    ROS 2 reads the latter as a number, so a file that serves the node serves here.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _is_known(name: str, ours: set[str]) -> bool:
    """Whether a parameter is the node's, or one that every ROS node has."""
    return name in ours or name.partition(".")[0] in _EVERY_NODES


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BagError(
            f"{what}: expected a value as in config/ddfd.yaml, got {text[:80]!r}: {error}"
        ) from error


def _with_progress(job: BagJob, parameters: NodeParameters, console: Console) -> BagResult:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("frames", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return convert(job, parameters, progress)


def _print(result: BagResult, job: BagJob) -> None:
    totals = result.totals
    table = Table(title=escape(str(job.target)), show_header=False)

    def row(name: str, text: str) -> None:
        table.add_row(name, escape(text))  # a name with brackets is no style

    row("image topic", result.camera.image)
    row("camera_info", result.camera.info or "none beside the images: answers are uncalibrated")
    row("frames", str(totals.frames))
    if result.resumed_frames:
        row("of them by an earlier run", str(result.resumed_frames))
    row("answered", str(totals.answered))
    failed = sorted(totals.failed.items(), key=lambda item: (-item[1], item[0]))
    for reason, number in failed[:_REASONS]:
        row("not answered", f"{number}: {reason}")
    if rest := sum(number for _, number in failed[_REASONS:]):
        row("not answered", f"{rest}: for {len(failed) - _REASONS} other reasons")
    for problem, number in sorted(result.problems.items()):
        row("note", f"{number} times: {problem}")
    row("topics", "\n".join(result.topics))
    Console().print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddfd-bag",
        description="Answer every image of a recorded ROS 2 bag as the node would, into a new "
        "bag. Needs no ROS installation. The same input gives the same bytes; a run that was "
        "killed goes on where it was when started again with the same arguments.",
        epilog="example: ddfd-bag field.mcap answered --model ddfd-lite-nyu-8m --copy all "
        "max_sigma_m=0.5",
    )
    parser.add_argument("input", type=Path, help="bag: a folder, a .mcap or a .db3 file")
    parser.add_argument("output", type=Path, help="folder of the new bag")
    parser.add_argument(
        "parameters", nargs="*", metavar="key=value", help="node parameters, see config/ddfd.yaml"
    )
    parser.add_argument("--model", default="", help="model file, or name of a shipped model")
    parser.add_argument("--params", type=Path, help="YAML file with the node's parameters")
    parser.add_argument("--image-topic", default="", help="default: the likeliest colour topic")
    parser.add_argument("--camera-info-topic", default="", help="default: beside the image topic")
    parser.add_argument(
        "--heads",
        nargs="+",
        default=[],
        choices=_HEADS,
        help="outputs; default: all there are; give key=value before it",
    )
    parser.add_argument("--points", action="store_true", help="a point cloud, too (see cloud_*)")
    parser.add_argument(
        "--namespace", type=_namespace, default="", help="put in front of the topics, e.g. /front"
    )
    parser.add_argument(
        "--copy", default="none", choices=COPIES, help="recorded topics to copy (default: none)"
    )
    parser.add_argument("--storage", default="mcap", choices=STORAGES, help="default: mcap")
    parser.add_argument(
        "--part-frames", type=at_least_one, default=100, help="frames per file (default: 100)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the output bag when the new one is whole"
    )
    return parser


def _namespace(text: str) -> str:
    name = text.strip("/")
    if name and not all(map(_NAME.fullmatch, name.split("/"))):
        raise argparse.ArgumentTypeError(
            "expected names of letters, digits and _, of which ROS 2 makes topics, as in "
            f"/front/left, got {text!r}"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
