"""``ddfd-bench``: latency and throughput of a model on the runtimes of this machine."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ddfd_ros.core.errors import ContractError, DdfdError
from ddfd_ros.core.machine import machine_info
from ddfd_ros.core.metadata import golden_image
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.inference import RUNTIMES, Backend, open_backend


@dataclass(frozen=True)
class BenchConfig:
    """What to measure.

    Attributes:
        model: Model file, or name of a shipped model.
        runtimes: Names of runtimes, or ``auto``.
        height: Image height in pixels.
        width: Image width in pixels.
        heads: Outputs to ask for; None: all.
        threads: Threads inside one inference; 0: automatic.
        spin: Whether idle threads busy-wait.
        device: ``cpu`` or ``cuda``.
        precision: ``float32`` or ``auto``.
        warm_up: Inferences before the clock starts.
        repeats: Inferences measured.
    """

    model: str
    runtimes: tuple[str, ...] = ("auto",)
    height: int = 480
    width: int = 640
    heads: tuple[str, ...] | None = None
    threads: int = 0
    spin: bool = False
    device: str = "cpu"
    precision: str = "float32"
    warm_up: int = 10
    repeats: int = 100

    def __post_init__(self) -> None:
        """Refuse counts that measure nothing."""
        if self.repeats < 1 or self.warm_up < 0:
            raise ContractError(
                "repeats, warm_up: expected at least 1 and 0, got "
                f"{self.repeats} and {self.warm_up}"
            )
        if min(self.height, self.width) < 1:
            raise ContractError(
                f"size: expected a positive WIDTHxHEIGHT, got {self.width}x{self.height}"
            )


@dataclass(frozen=True)
class BenchResult:
    """Latency of one runtime, in milliseconds; ``fps`` is the rate of frames back to back."""

    runtime: str
    device: str
    heads: tuple[str, ...]
    load_ms: float
    first_ms: float
    median_ms: float
    mean_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    fps: float
    self_test: dict[str, Any]


def measure(config: BenchConfig, runtime: str, progress: Progress | None = None) -> BenchResult:
    """Open, check and time the model on one runtime.

    The image goes in as the camera's bytes and the answers come back as arrays in main memory, so
    padding, copies and cropping are in the figures.

    Raises:
        DdfdError: The model cannot be opened or does not answer.
    """
    path = resolve_model(config.model, parameter="model")
    start = time.perf_counter()
    backend = open_backend(
        path,
        runtime,
        threads=config.threads,
        spin=config.spin,
        device=config.device,
        precision=config.precision,
    )
    load_ms = (time.perf_counter() - start) * 1e3
    with backend:
        report = backend.self_test()
        image = golden_image(config.height, config.width, seed=1)
        start = time.perf_counter()
        backend.infer(image, config.heads)
        first_ms = (time.perf_counter() - start) * 1e3
        times_ms = _repeat(backend, image, config, progress)
    return BenchResult(
        runtime=backend.runtime,
        device=backend.device,
        heads=config.heads or backend.contract.outputs,
        load_ms=load_ms,
        first_ms=first_ms,
        median_ms=float(np.median(times_ms)),
        mean_ms=float(np.mean(times_ms)),
        p95_ms=float(np.percentile(times_ms, 95)),
        p99_ms=float(np.percentile(times_ms, 99)),
        min_ms=min(times_ms),
        max_ms=max(times_ms),
        fps=1e3 / float(np.mean(times_ms)),
        self_test=report,
    )


def _repeat(
    backend: Backend, image: np.ndarray, config: BenchConfig, progress: Progress | None
) -> list[float]:
    """Latencies in milliseconds; what the progress bar takes is in none of them."""
    progress = progress or Progress(disable=True)
    task = progress.add_task(backend.runtime, total=config.warm_up + config.repeats)
    for _ in range(config.warm_up):
        backend.infer(image, config.heads)
        progress.advance(task)
    times_ms: list[float] = []
    for _ in range(config.repeats):
        start = time.perf_counter()
        backend.infer(image, config.heads)
        times_ms.append((time.perf_counter() - start) * 1e3)
        progress.advance(task)
    return times_ms


def results_table(config: BenchConfig, results: Sequence[BenchResult]) -> Table:
    """The results for people."""
    heads = " ".join(results[0].heads)
    table = Table(
        title=f"{Path(config.model).name} {config.width}x{config.height}: {heads}",
        caption="\n".join(result.device for result in results),
    )
    table.add_column("runtime", no_wrap=True)
    for name in ("load ms", "first ms", "median ms", "p95 ms", "p99 ms", "frames/s", "self-test"):
        table.add_column(name, justify="right")
    for result in results:
        worst = max(result.self_test["mismatch"].values(), default=0.0)
        table.add_row(
            result.runtime,
            f"{result.load_ms:.0f}",
            f"{result.first_ms:.0f}",
            f"{result.median_ms:.2f}",
            f"{result.p95_ms:.2f}",
            f"{result.p99_ms:.2f}",
            f"{result.fps:.1f}",
            f"{worst:.2f} of 1" if result.self_test["checked"] else "no sample",
        )
    return table


def parse_size(text: str) -> tuple[int, int]:
    """``640x480`` as (width, height)."""
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 640x480, got {text!r}")
    return int(width), int(height)


def parse_arguments(arguments: Sequence[str] | None) -> tuple[BenchConfig, Path | None]:
    """Configuration and the JSON file to write, from the command line."""
    defaults = BenchConfig(model="")
    parser = argparse.ArgumentParser(prog="ddfd-bench", description=__doc__)
    parser.add_argument(
        "model", help="model file (.onnx, .engine, .pt), or name of a shipped model"
    )
    parser.add_argument(
        "--runtime",
        nargs="+",
        default=list(defaults.runtimes),
        choices=["auto", *RUNTIMES],
        help="one or more runtimes to compare (default: auto)",
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        default=(defaults.width, defaults.height),
        metavar="WIDTHxHEIGHT",
        help=f"image size (default {defaults.width}x{defaults.height})",
    )
    parser.add_argument("--heads", nargs="+", help="outputs to compute (default: all)")
    parser.add_argument("--threads", type=int, default=defaults.threads, help="0: automatic")
    parser.add_argument("--spin", action="store_true", help="let idle threads busy-wait")
    parser.add_argument("--device", default=defaults.device, choices=["cpu", "cuda"])
    parser.add_argument("--precision", default=defaults.precision, choices=["float32", "auto"])
    parser.add_argument("--warm-up", type=int, default=defaults.warm_up, help="untimed inferences")
    parser.add_argument("--repeats", type=int, default=defaults.repeats, help="timed inferences")
    parser.add_argument("--json", type=Path, help="write the results and the machine here")
    got = parser.parse_args(arguments)
    config = BenchConfig(
        model=got.model,
        runtimes=tuple(got.runtime),
        width=got.size[0],
        height=got.size[1],
        heads=tuple(got.heads) if got.heads else None,
        threads=got.threads,
        spin=got.spin,
        device=got.device,
        precision=got.precision,
        warm_up=got.warm_up,
        repeats=got.repeats,
    )
    return config, got.json


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``ddfd-bench``; 1 when a runtime failed, whatever the others did."""
    errors = Console(stderr=True)
    try:
        config, json_path = parse_arguments(arguments)
    except DdfdError as error:
        errors.print(f"[red]{error}", highlight=False)
        return 1
    results, failed = [], False
    with Progress(console=errors, transient=True) as progress:
        for runtime in config.runtimes:
            try:
                results.append(measure(config, runtime, progress))
            except DdfdError as error:
                failed = True
                errors.print(f"{runtime}: {error}", style="red", markup=False, highlight=False)
    if results:
        Console().print(results_table(config, results))
    if results and json_path is not None:
        record = {
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine_info(),
            "config": asdict(config),
            "results": [asdict(result) for result in results],
        }
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
