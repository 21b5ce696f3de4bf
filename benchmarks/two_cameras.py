"""Two cameras, two nodes, one machine: whether they share the processors fairly.

Each camera sends 640x480 at 30 Hz to a node of its own in its own namespace; this process is both
cameras and the consumer of everything. First one node alone, then both. Jain's index of the two
rates is 1 when they are equal and 0.5 when one takes everything (Jain, Chiu, Hawe 1984).

    python -m benchmarks.two_cameras                       # a minute each
    python -m benchmarks.two_cameras --seconds 15 --out /tmp/two
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.node_process import NodeProcess, machine_busy_s, process_cpu_s
from benchmarks.node_throughput import camera_frames
from benchmarks.record import RESULTS, write_results
from benchmarks.soak import SoakError, connect
from benchmarks.soak_figures import figures
from benchmarks.stream import Network, Stream, play
from ddfd_demo.models import choose_model
from ddfd_demo.processes import ros_environment

NAME = "two_cameras"
CAMERAS = ("left", "right")
FAIR = 0.95
"""From this index on it is called fair: the slower one has at least 0.63 of the other's rate."""
_WARM_S = 3.0


def jain(rates: Sequence[float]) -> float:
    """Jain's fairness index of positive rates: (sum x)^2 / (n sum x^2)."""
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else float("nan")


def measure(names: Sequence[str], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one node per name, all at once; the figures of each.

    Raises:
        SoakError: A node does not start, or ends by itself.
    """
    pictures = [np.asarray(f.image_rgb) for f in camera_frames(options.height, options.width)]
    parameters = {
        "model_path": str(choose_model(options.model, "").resolve()),
        "runtime": options.runtime,
        "threads": str(options.threads),
        "warm_up_height": str(options.height),
        "warm_up_width": str(options.width),
    }
    network = Network()
    streams = [Stream(network, name, pictures) for name in names]
    network.start()
    with contextlib.ExitStack() as stack:
        stack.callback(network.close)
        nodes = []
        for name, stream in zip(names, streams, strict=True):
            log = folder / f"{name}_of_{len(names)}.log"
            nodes.append(stack.enter_context(NodeProcess(log, name, parameters)))
            connect(stream, nodes[-1])
        return _stream(names, streams, nodes, options)


def _stream(
    names: Sequence[str],
    streams: list[Stream],
    nodes: list[NodeProcess],
    options: argparse.Namespace,
) -> dict[str, Any]:
    def running() -> bool:
        return all(node.running for node in nodes)

    play(streams, options.rate, _WARM_S, lambda now_s: running())
    before = [stream.settled() for stream in streams]
    first = [len(stream.record.sent) for stream in streams]
    cpu_s = [node.cpu_s() for node in nodes]
    own_s, busy_s, start = process_cpu_s(os.getpid()), machine_busy_s(), time.monotonic()
    columns = ("[progress.description]{task.description}", BarColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[said]}"), console=options.console) as bar:
        task = bar.add_task(" and ".join(names), total=options.seconds, said="")

        def tick(now_s: float) -> bool:
            said = ", ".join(str(stream.answered()) for stream in streams)
            bar.update(task, completed=now_s, said=f"{said} answered")
            return running()

        play(streams, options.rate, options.seconds, tick)
    wall_s = time.monotonic() - start
    if not running():
        raise SoakError("a node ended by itself:\n" + "\n".join(node.tail() for node in nodes))
    used = [node.cpu_s() - before_s for node, before_s in zip(nodes, cpu_s, strict=True)]
    own_used = process_cpu_s(os.getpid()) - own_s
    others_s = max(0.0, machine_busy_s() - busy_s - sum(used) - own_used)
    found = {}
    for index, name in enumerate(names):
        after = streams[index].settled()
        all_of_it = figures(
            streams[index].record, first[index], before[index], after, [], options.rate
        )
        found[name] = {
            key: all_of_it[key]
            for key in ("offered_hz", "answered_hz", "frames", "age_ms", "infer_ms", "device")
        }
        found[name]["cpu_share"] = used[index] / wall_s
    return {
        "cameras": found,
        "camera_and_consumer_cpu_share": own_used / wall_s,
        "others_cpu_share": others_s / wall_s,
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Print the cameras side by side."""
    columns = {"alone": result["alone"]["cameras"][CAMERAS[0]]}
    columns |= result["together"]["cameras"]
    table = Table("", *columns, title="two cameras", title_justify="left")
    rows = {
        "offered per second": lambda c: f"{c['offered_hz']:.1f}",
        "answered per second": lambda c: f"{c['answered_hz']:.1f}",
        "age p50 / p95 (ms)": lambda c: f"{c['age_ms']['p50']:.0f} / {c['age_ms']['p95']:.0f}",
        "inference p50 (ms)": lambda c: f"{c['infer_ms']['p50']:.0f}",
        "CPU (100 %: one core)": lambda c: f"{100 * c['cpu_share']:.0f} %",
    }
    for title, cell in rows.items():
        table.add_row(title, *(cell(column) for column in columns.values()))
    console.print(table)
    console.print(
        f"Jain's index of the rates {result['jain_rates']:.4f}, of the processor time "
        f"{result['jain_cpu']:.4f} (fair: {FAIR} and more); together {result['sum_of_alone']:.0%} "
        f"of one alone; others used {100 * result['together']['others_cpu_share']:.0f} % of a core"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; 0 when the sharing is fair."""
    parser = argparse.ArgumentParser(
        prog="two_cameras",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=float, default=60.0, help="measured, for one node and for two")
    add("--model", default="ddfd-lite-nyu-8m", help="a file or the name of a shipped model")
    add("--runtime", default="auto")
    add("--threads", type=int, default=0, help="of each node's runtime; 0: its own choice")
    add("--rate", type=float, default=30.0, help="frames per second offered by each camera")
    add("--width", type=int, default=640)
    add("--height", type=int, default=480)
    add("--out", type=Path, default=RESULTS, help="folder for the JSON")
    options = parser.parse_args(arguments)
    options.console = Console()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            ros_environment(Path(folder)) as environment,
        ):
            os.environ.update(environment)
            alone = measure(CAMERAS[:1], options, Path(folder))
            together = measure(CAMERAS, options, Path(folder))
    except SoakError as error:
        options.console.print(f"[bold red]two_cameras:[/] {error}")
        return 2
    shared = together["cameras"].values()
    rates = [camera["answered_hz"] for camera in shared]
    result = {
        "model": Path(options.model).name,
        "width": options.width,
        "height": options.height,
        "seconds": options.seconds,
        "threads": options.threads,
        "alone": alone,
        "together": together,
        "jain_rates": jain(rates),
        "jain_cpu": jain([camera["cpu_share"] for camera in shared]),
        "sum_of_alone": float(np.sum(rates)) / alone["cameras"][CAMERAS[0]]["answered_hz"],
    }
    path = write_results(NAME, result, options.out)
    show(result, options.console)
    options.console.print(f"written: {path}")
    return 0 if result["jain_rates"] >= FAIR else 1


if __name__ == "__main__":
    raise SystemExit(main())
