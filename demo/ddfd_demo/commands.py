"""How a run is played, and the command lines of its three processes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ddfd_demo.sources.base import Pacing
from ddfd_ros.core.lens_guard import INFINITY_M
from ddfd_ros.core.thin_lens import LensConfig

NAMESPACE = f"/ddfd_demo_{os.getpid()}"
"""Of all nodes of this process's runs: even in one ROS domain two runs never meet."""
HEAD_TOPICS = {"depth_m": "depth", "sharp_rgb": "sharp", "sigma_m": "sigma"}
"""What the recorder calls the topics of a model's heads."""


@dataclass(frozen=True)
class ChainOptions:
    """How the frames of a spool are played through the node.

    Attributes:
        model: Model file.
        heads: Its outputs: their topics are awaited and recorded.
        runtime: As the node's parameter.
        pacing: ``wait`` (next frame when the last is answered) or ``stream`` (real time).
        rate_hz: Frames per second of a stream without recorded times.
        constant_rate: Play at ``rate_hz`` even where times were recorded.
        total: Frames to send in all, repeating the spool; 0: each once.
        keep_images: Keep the images that come back (the recorder decodes them in any case).
        camera: Play this device instead of the spool; ``total`` frames, resized by ``scale``.
        scale: See ``camera``.
        parameters: Further parameters of the node.
        start_timeout_s: Longest start of the node, loading and checking the model included.
        silence_s: With nothing answered for so long while frames are sent, the chain is broken;
            a pause of the stream does not count.
        drain_s: Longest wait for the last answers.
    """

    model: Path
    heads: tuple[str, ...] = tuple(HEAD_TOPICS)
    runtime: str = "auto"
    pacing: Pacing = "stream"
    rate_hz: float = 10.0
    constant_rate: bool = False
    total: int = 0
    keep_images: bool = True
    camera: str | None = None
    scale: float = 1.0
    parameters: dict[str, str] = field(default_factory=dict)
    start_timeout_s: float = 120.0
    silence_s: float = 30.0
    drain_s: float = 10.0


def lens_parameters(lens: LensConfig | None) -> dict[str, str]:
    """The node's parameters for the lens that took the pictures, at their size as sent."""
    if lens is None:
        return {}
    values = {
        "camera_focal_length_mm": lens.focal_length_m * 1e3,
        "camera_f_number": lens.f_number,
        "camera_focus_distance_m": min(lens.focus_distance_m, INFINITY_M),
        "camera_pixel_pitch_um": lens.pixel_pitch_m * 1e6,
    }
    # With their point: ROS takes 15 for a whole number, and refuses it.
    return {name: repr(round(float(value), 9)) for name, value in values.items()}


def node_command(options: ChainOptions) -> list[str]:
    """The node itself, as `ros2 run ddfd_ros ddfd_node` starts it."""
    parameters = {
        "model_path": str(options.model.resolve()),
        "runtime": options.runtime,
        **options.parameters,
    }
    command = [sys.executable, "-m", "ddfd_ros.ros.main", *_names()]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    return command


def recorder_command(spool: Path, options: ChainOptions) -> list[str]:
    """The recorder of what the model's heads publish."""
    topics = [HEAD_TOPICS[head] for head in options.heads if head in HEAD_TOPICS]
    command = [sys.executable, "-m", "ddfd_demo.recorder", "--spool", str(spool)]
    command += ["--topics", *topics]
    return [*command, *([] if options.keep_images else ["--light"]), *_names()]


def player_command(spool: Path, options: ChainOptions) -> list[str]:
    """The player of the spool's frames, or of a camera."""
    command = [sys.executable, "-m", "ddfd_demo.player", "--spool", str(spool)]
    command += ["--pacing", options.pacing, "--rate", str(options.rate_hz)]
    command += ["--total", str(options.total), "--scale", str(options.scale)]
    awaited = [name for head, name in HEAD_TOPICS.items() if head in options.heads]
    command += ["--awaited", *awaited[:1]] if awaited else []
    if options.constant_rate:
        command.append("--constant-rate")
    if options.camera is not None:
        command += ["--camera", options.camera]
    return [*command, *_names()]


def _names() -> list[str]:
    """Every name, that of the diagnostics too, lies below this run's namespace."""
    diagnostics = f"/diagnostics:={NAMESPACE}/diagnostics"
    return ["--ros-args", "-r", f"__ns:={NAMESPACE}", "-r", diagnostics]
