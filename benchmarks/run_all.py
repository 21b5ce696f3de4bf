"""Every benchmark, briefly: ``make bench`` runs this.

    python -m benchmarks.run_all [--seconds 10] [--out benchmarks/results]

Each runs in a process of its own, so that none finds caches or threads another left behind.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.record import RESULTS
from ddfd_ros.ros.environment import prepare_environment, shipped_models


@dataclass(frozen=True)
class Benchmark:
    """One program of this folder.

    Attributes:
        module: Its name.
        arguments: What it is called with, besides ``--out``.
        gpu: Whether it needs a GPU.
    """

    module: str
    arguments: tuple[str, ...] = ()
    gpu: bool = False


def benchmarks(seconds: float, models: Sequence[str]) -> list[Benchmark]:
    """The list, sized so that everything takes a few minutes."""
    found = [Benchmark("codec_cost", ("--shortest", str(min(0.2, seconds / 50))))]
    found.append(Benchmark("rendering_share"))
    found.append(Benchmark("reblur_cost", ("--no-network", "--repeats", "1")))
    found.append(Benchmark("reblur_cost", ("--device", "cuda"), gpu=True))
    if models:
        runtimes = ("onnxruntime", "openvino") if _has_openvino() else ("onnxruntime",)
        arguments = ("--model", models[0], "--runtime", *runtimes, "--seconds", str(seconds))
        found.append(Benchmark("node_throughput", arguments))
    found.append(Benchmark("gpu", gpu=True))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them one after another; the exit code is 1 when one failed."""
    parser = argparse.ArgumentParser(prog="run_all", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="measured per stream")
    parser.add_argument("--gpu", action="store_true", help="those that need a GPU")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    console = Console()
    prepare_environment()
    models = sorted(name for name in shipped_models() if "nyu" in name) or sorted(shipped_models())
    if not models:
        console.print("no shipped model: the node's benchmarks are left out")
    chosen = [b for b in benchmarks(options.seconds, models) if b.gpu == options.gpu]
    if not chosen:
        console.print(f"no benchmark here needs {'a GPU' if options.gpu else 'only a CPU'}")
        return 0
    failed = []
    for benchmark in chosen:
        console.rule(benchmark.module)
        start = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{benchmark.module}", *benchmark.arguments]
        run = subprocess.run([*command, "--out", str(options.out)], check=False)
        if run.returncode:
            failed.append(benchmark.module)
        console.print(f"{benchmark.module}: {time.monotonic() - start:.0f} s")
    if failed:
        console.print(f"[bold red]failed:[/] {', '.join(failed)}")
    return 1 if failed else 0


def _has_openvino() -> bool:
    from importlib.util import find_spec

    return find_spec("openvino") is not None


if __name__ == "__main__":
    raise SystemExit(main())
