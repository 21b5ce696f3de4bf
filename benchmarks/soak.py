"""The node for as long as a field test takes: every frame accounted for, nothing grows.

Two processes: this one is the camera (640x480 at 30 Hz by default) and the consumer of every
topic, the other is the node. Afterwards the node is ended twice in mid-stream, by SIGINT and, a
second one, by SIGTERM. Exit code 0 when everything held, 1 when not; the figures are written in
either case.

    python -m benchmarks.soak                      # ten minutes
    python -m benchmarks.soak --seconds 60 --out /tmp/soak

On a machine that does something else besides, ages say little: ``others_cpu_share`` in the result
tells how much of the processors others used.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.node_process import NodeProcess, machine_busy_s, process_cpu_s
from benchmarks.node_throughput import camera_frames
from benchmarks.record import RESULTS, write_results
from benchmarks.soak_figures import MemorySample, checks, figures, plot
from benchmarks.stream import Network, Stream, play, wait_until
from ddfd_demo.models import choose_model
from ddfd_demo.processes import ros_environment

NAME = "soak"
_START_S = 180.0
_WARM_FRAMES = 60
_SIGNAL_STREAM_S = 2.0


class SoakError(RuntimeError):
    """The run could not be done; the message says why."""


def connect(stream: Stream, node: NodeProcess, timeout_s: float = _START_S) -> None:
    """Wait until node and stream have found each other, and the first answer has come.

    Raises:
        SoakError: That did not happen.
    """

    def ready() -> bool:
        if not node.running:
            raise SoakError(f"the node ended by itself:\n{node.tail()}")
        return stream.connected() and bool(stream.published_topics())

    def answered() -> bool:
        stream.send()
        return stream.answered() > 0

    if not (wait_until(ready, timeout_s) and wait_until(answered, 60.0)):
        raise SoakError(
            f"the node: expected an answer within {timeout_s:g} s, got none:\n{node.tail()}"
        )


def offered_topics(stream: Stream, network: Network) -> list[str]:
    """Those of the topics that ``stream`` listens to that somebody publishes.

    A model without a head has no topic for it: nothing is to be expected there.
    """
    return [topic for topic in stream.record.answers if network.node.count_publishers(f"/{topic}")]


def measure(
    stream: Stream, network: Network, node: NodeProcess, options: argparse.Namespace
) -> dict[str, Any]:
    """Stream for the time asked for, and keep the books."""
    play([stream], options.rate, _WARM_FRAMES / options.rate, lambda now: node.running)
    before = stream.settled()
    first = len(stream.record.sent)
    memory: list[MemorySample] = []
    load, start_s = [os.getloadavg()[0]], time.monotonic()
    cpu = {"node": node.cpu_s(), "camera and consumer": process_cpu_s(os.getpid())}
    busy_s = machine_busy_s()
    columns = ("[progress.description]{task.description}", BarColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[said]}"), console=options.console) as bar:
        task = bar.add_task("soak", total=options.seconds, said="")

        def tick(now_s: float) -> bool:
            if now_s >= len(memory):
                memory.append(MemorySample(now_s, *asdict(node.memory()).values()))
                load.append(os.getloadavg()[0])
                said = f"{len(stream.record.sent) - first} sent, {stream.answered()} answered"
                bar.update(task, completed=now_s, said=f"{said}, {memory[-1].total:.0f} MB")
            return node.running

        play([stream], options.rate, options.seconds, tick)
    wall_s = time.monotonic() - start_s
    if not node.running:
        raise SoakError(f"the node ended by itself:\n{node.tail()}")
    used = {"node": node.cpu_s() - cpu["node"]}
    used["camera and consumer"] = process_cpu_s(os.getpid()) - cpu["camera and consumer"]
    others_s = max(0.0, machine_busy_s() - busy_s - sum(used.values()))
    after = stream.settled()
    offered = offered_topics(stream, network)
    return {
        **figures(stream.record, first, before, after, memory, options.rate, offered),
        "seconds": wall_s,
        "cpu_share": {name: value / wall_s for name, value in used.items()},
        "others_cpu_share": others_s / wall_s,
        "load_1min": {"begin": load[0], "mean": sum(load) / len(load), "end": load[-1]},
    }


def end(
    stream: Stream, node: NodeProcess, number: signal.Signals, rate_hz: float
) -> dict[str, Any]:
    """Send a signal in mid-stream; how and how fast the node ended."""
    play([stream], rate_hz, _SIGNAL_STREAM_S, lambda now: node.running)
    status, duration_s = node.stop(number)
    return {
        "exit_status": status,
        "seconds": duration_s,
        "traceback": "Traceback" in node.tail(200),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement.

    Raises:
        SoakError: The node does not start, or ends by itself.
    """
    model = choose_model(options.model, "")
    parameters = {
        "model_path": str(model.resolve()),
        "runtime": options.runtime,
        "threads": str(options.threads),
        "warm_up_height": str(options.height),
        "warm_up_width": str(options.width),
        "diagnostics_period_s": "0.5",
        "compressed_output": str(options.everything).lower(),
    }
    pictures = [np.asarray(f.image_rgb) for f in camera_frames(options.height, options.width)]
    ends: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, ros_environment(Path(folder)) as environment:
        os.environ.update(environment)
        result: dict[str, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            network = Network()
            stream = Stream(network, "", pictures, options.everything)
            network.start()
            log = Path(folder) / f"{number.name}.log"
            options.console.print(
                f"starting the node ({model.stem}), to be ended by {number.name}"
            )
            try:
                with NodeProcess(log, "", parameters) as node:
                    connect(stream, node)
                    if not result:
                        result = measure(stream, network, node, options)
                    ends[number.name] = end(stream, node, number, options.rate)
            finally:
                network.close()
    result |= {
        "model": model.name,
        "width": options.width,
        "height": options.height,
        "everything": options.everything,
        "ends": ends,
    }
    return result | {"checks": checks(result, options.rate)}


def show(result: dict[str, Any], console: Console) -> None:
    """Print what held and what did not."""
    frames, age, memory = result["frames"], result["age_ms"], result["memory"]
    console.print(
        f"{frames['offered']} frames offered at {result['offered_hz']:.1f} Hz, "
        f"{frames['answered']} answered ({result['answered_hz']:.1f} Hz); "
        f"age p50 {age['p50']:.1f} ms, p95 {age['p95']:.1f} ms; "
        f"inference p95 {result['infer_ms']['p95']:.1f} ms; "
        f"memory {memory['slope_mb_per_min']:+.2f} MB/min; "
        f"others used {100 * result['others_cpu_share']:.0f} % of a core"
    )
    table = Table("what has to hold", "bar", "got", "", title="soak", title_justify="left")
    for item in result["checks"]:
        verdict = "[green]holds[/]" if item["holds"] else "[bold red]does not[/]"
        table.add_row(item["what"], item["bar"], item["got"], verdict)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, write the figures; 0 when all checks hold."""
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seconds", type=float, default=600.0, help="of the stream; default ten minutes")
    add("--model", default="ddfd-lite-nyu-8m", help="a file or the name of a shipped model")
    add("--runtime", default="auto")
    add("--threads", type=int, default=0, help="of the runtime; 0: its own choice")
    add("--rate", type=float, default=30.0, help="frames per second offered")
    add("--width", type=int, default=640)
    add("--height", type=int, default=480)
    add("--everything", action="store_true", help="listen to cloud, preview and JPEG, too")
    add("--out", type=Path, default=RESULTS, help="folder for JSON and plot")
    options = parser.parse_args(arguments)
    options.console = Console()
    try:
        result = run(options)
    except SoakError as error:
        options.console.print(f"[bold red]soak:[/] {error}")
        return 2
    path = write_results(NAME, result, options.out)
    plot(result, path.with_suffix(".png"))
    show(result, options.console)
    options.console.print(f"written: {path}")
    return 0 if all(item["holds"] for item in result["checks"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
