"""The command line of the demonstration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ddfd_ros.core.arguments import at_least_one
from ddfd_ros.ros.parameters import NodeParameters

_PARAMETERS = {item.name for item in fields(NodeParameters)}


@dataclass(frozen=True)
class DemoOptions:
    """What to play, through which model, and where the results go.

    Attributes:
        input: Whatever can be played; None: the rendered sequence and the package's photographs.
        out: Folder for the results.
        model: Model file or name of a shipped one; None: what fits the input.
        runtime: As the node's parameter.
        rate_hz: Play a stream at this rate instead of its own.
        pacing: ``auto``, ``wait`` or ``stream``.
        max_frames: At most so many frames; None: 40 photographs, 120 frames of a stream.
        scale: Resize by this instead of what fits the model.
        natural: Feed the pictures of an RGB-D folder as they are.
        topic: Image topic of a bag.
        keep_frames: Keep the frames and answers as arrays in ``out/demo-frames``.
        params: Further parameters of the node, each ``NAME=VALUE``.
    """

    input: str | None = None
    out: Path = Path("out")
    model: str | None = None
    runtime: str = "auto"
    rate_hz: float | None = None
    pacing: str = "auto"
    max_frames: int | None = None
    scale: float | None = None
    natural: bool = False
    topic: str | None = None
    keep_frames: bool = False
    params: tuple[str, ...] = ()


def parse(arguments: Sequence[str] | None = None) -> DemoOptions:
    """Read the command line; each default is that of :class:`DemoOptions`."""
    default = DemoOptions()
    parser = argparse.ArgumentParser(
        prog="ddfd_demo",
        description="Play images through the node over DDS; write demo.png, demo.mp4, demo.json.",
    )
    add = parser.add_argument
    add("--input", default=default.input, help="picture, folder, video, camera, bag or RGB-D set")
    add("--out", type=Path, default=default.out, help="folder for the results")
    add("--model", default=default.model, help="model file, or name of a shipped one")
    add("--runtime", default=default.runtime, help="auto, onnxruntime, openvino, torch, tensorrt")
    add(
        "--rate",
        dest="rate_hz",
        type=_positive,
        default=default.rate_hz,
        help="frames/s of a stream",
    )
    add("--pacing", choices=("auto", "wait", "stream"), default=default.pacing)
    add("--max-frames", type=at_least_one, default=default.max_frames)
    add("--scale", type=_positive, default=default.scale, help="resize the pictures by this")
    add("--natural", action="store_true", help="RGB-D pictures carry their own defocus")
    add("--topic", default=default.topic, help="image topic of a bag")
    add("--keep-frames", action="store_true", help="keep frames and answers in OUT/demo-frames")
    add(
        "--param",
        dest="params",
        action="append",
        type=_assignment,
        default=[],
        metavar="NAME=VALUE",
        help="parameter of the node, see config/ddfd.yaml; repeatable",
    )
    values = vars(parser.parse_args(arguments))
    return DemoOptions(**{**values, "params": tuple(values["params"])})


def _assignment(text: str) -> str:
    name, separator, _ = text.partition("=")
    if not (name and separator):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text}")
    # The node takes a name that it does not know, and warns of it in its own log only.
    if name not in _PARAMETERS and "." not in name:  # qos_overrides./TOPIC...
        raise argparse.ArgumentTypeError(
            f"expected a parameter of config/ddfd.yaml, got {name}; check the spelling"
        )
    return text


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above zero, got {text}")
    return value
