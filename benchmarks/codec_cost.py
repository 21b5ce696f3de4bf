"""What images cost as ROS messages: decoding, encoding, publishing; beside cv_bridge's way.

The first table times this project's codec and the message classes in one process, per size. The
second publishes depth, all-in-focus and standard deviation of 640x480 over DDS to another process,
frame by frame the node's way and cv_bridge's in turn (see ``message_cost``).

    python -m benchmarks.codec_cost
"""

from __future__ import annotations

import argparse
import array
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from benchmarks import message_cost
from benchmarks.record import RESULTS, write_results
from ddfd_ros.core import image_codec
from ddfd_ros.core.colour_map import colour_depth
from ddfd_ros.core.compressed import encode_compressed
from ddfd_ros.core.point_cloud import CloudOptions, Optics, Rays, make_points
from ddfd_ros.core.preprocessing import Intrinsics
from ddfd_ros.ros.cloud import cloud_message

NAME = "codec_cost"
SIZES = ((640, 480), (1280, 720), (1920, 1080))
PIXEL_BYTES = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "mono8": 1,
    "mono16": 2,
    "bayer_rggb8": 1,
    "uyvy": 2,
    "rgb16": 6,
}
"""Encodings decoded, with their bytes per pixel."""
_SHORTEST_S = 0.2


def median_ms(work: Callable[[], Any], shortest_s: float) -> float:
    """Median duration of ``work`` in milliseconds, over at least 5 calls and ``shortest_s``."""
    work()
    times: list[float] = []
    end = time.perf_counter() + shortest_s
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def camera_message(encoding: str, width: int, height: int) -> Image:
    """An ``Image`` as a driver would send it, filled with noise."""
    step = width * PIXEL_BYTES[encoding]
    message = Image(height=height, width=width, encoding=encoding, step=step)
    noise = np.random.default_rng(0).integers(0, 256, height * step, np.uint8)
    message.data = array.array("B", noise.tobytes())
    return message


def jobs(width: int, height: int) -> dict[str, Callable[[], Any]]:
    """Everything timed at one size, by name."""
    rng = np.random.default_rng(1)
    depth_m = rng.uniform(0.5, 10, (height, width)).astype(np.float32)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    header = Header(frame_id="camera")
    result: dict[str, Callable[[], Any]] = {}
    for encoding in PIXEL_BYTES:
        message = camera_message(encoding, width, height)
        result[f"decode {encoding}"] = partial(image_codec.decode, message)
    for encoding in ("32FC1", "16UC1"):
        result[f"encode depth {encoding}"] = partial(
            image_codec.encode_depth, depth_m, header, encoding, Image
        )
    result["encode rgb8"] = partial(image_codec.encode_rgb, rgb, header, "rgb8", Image)
    result |= products(depth_m, rgb, header)
    for encoding in ("rgb8", "bgr8"):
        message = camera_message(encoding, width, height)
        result[f"cv_bridge: decode {encoding}"] = partial(message_cost.cv_bridge_rgb, message)
    result["cv_bridge: encode depth 32FC1"] = partial(
        message_cost.cv_bridge_message, depth_m, header, "32FC1", ""
    )
    result["cv_bridge: encode rgb8"] = partial(
        message_cost.cv_bridge_message, rgb, header, "rgb8", ""
    )
    return result


def products(depth_m: np.ndarray, rgb: np.ndarray, header: Header) -> dict[str, Callable[[], Any]]:
    """What is made of an answer for those who ask: clouds of a slope, preview, file."""
    height, width = depth_m.shape
    slope_m = np.linspace(1, 5, height * width, dtype=np.float32).reshape(height, width)
    k = (0.8 * width, 0.0, width / 2, 0.0, 0.8 * width, height / 2, 0.0, 0.0, 1.0)
    optics, rays = Optics(Intrinsics(width, height, k, ())), (Rays(), Rays())

    def cloud(decimation: int, colour: np.ndarray | None, kept: Rays) -> Any:
        options = CloudOptions(decimation)
        return cloud_message(make_points(slope_m, optics, options, rgb=colour, rays=kept), header)

    return {
        "cloud xyz, every 4th row and column": partial(cloud, 4, None, rays[0]),
        "cloud xyzrgb, every pixel": partial(cloud, 1, rgb, rays[1]),
        "preview of depth": partial(colour_depth, depth_m, 0.5, 10.0),
        "all-in-focus as jpeg": partial(encode_compressed, rgb),
    }


def publishing(number: int) -> dict[str, dict[str, dict[str, float]]]:
    """Way -> part -> ``p50``, ``p95`` and ``min`` in milliseconds, of a frame's three images."""
    return {
        way: {
            part: {
                "p50": round(float(np.percentile(values, 50)), 3),
                "p95": round(float(np.percentile(values, 95)), 3),
                "min": round(min(values), 3),
            }
            for part, values in parts.items()
        }
        for way, parts in message_cost.measure(number).items()
    }


def show_publishing(figures: dict[str, dict[str, dict[str, float]]], console: Console) -> None:
    """Print the second table."""
    table = Table(
        title="depth + all-in-focus + sigma, 640x480, over DDS (ms)", title_justify="left"
    )
    table.add_column("p50 / p95")
    for way in figures:
        table.add_column(way, justify="right")
    for part in ("make", "publish", "total", "cpu"):
        cells = (parts[part] for parts in figures.values())
        table.add_row(part, *(f"{cell['p50']:.2f} / {cell['p95']:.2f}" for cell in cells))
    console.print(table)


def plot(figures: dict[str, dict[str, float]], path: Path) -> None:
    """Bars by job, one colour per size."""
    names = list(next(iter(figures.values())))
    figure = Figure(figsize=(8, 0.8 + 0.27 * len(names)), dpi=110, layout="constrained")
    axes = figure.subplots()
    rows, height = np.arange(len(names)), 0.8 / len(figures)
    colours = ("#9bd1ff", "#4c9be8", "#1d4e89")
    for i, (size, values) in enumerate(figures.items()):
        axes.barh(
            rows + (i - 1) * height, list(values.values()), height, label=size, color=colours[i]
        )
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set_xlabel("median (ms)")
    axes.legend(frameon=False)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(str(path))


def main(arguments: Sequence[str] | None = None) -> int:
    """Time everything, write JSON and plot, print a table."""
    parser = argparse.ArgumentParser(prog="codec_cost", description=__doc__)
    parser.add_argument("--shortest", type=float, default=_SHORTEST_S, help="seconds per job")
    parser.add_argument("--frames", type=int, default=300, help="published each way; 0: none")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for JSON and plot")
    options = parser.parse_args(arguments)
    console = Console()
    figures: dict[str, dict[str, float]] = {}
    for width, height in SIZES:
        size = f"{width}x{height}"
        work = jobs(width, height)
        figures[size] = {
            name: round(median_ms(job, options.shortest), 4)
            for name, job in track(work.items(), size, console=console)
        }
    results: dict[str, Any] = {"median_ms": figures}
    if options.frames:
        with console.status(f"publishing {options.frames} frames each way"):
            results["publishing_ms"] = publishing(options.frames)
        results["load_average"] = list(os.getloadavg())
    path = write_results(NAME, results, options.out)
    plot(figures, path.with_suffix(".png"))
    table = Table(title="image codec, median (ms)")
    table.add_column("")
    for size in figures:
        table.add_column(size, justify="right")
    for name in next(iter(figures.values())):
        table.add_row(name, *(f"{values[name]:.2f}" for values in figures.values()))
    console.print(table)
    if options.frames:
        show_publishing(results["publishing_ms"], console)
    console.print(f"written: {path}, {path.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
