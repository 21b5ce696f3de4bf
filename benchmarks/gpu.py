"""TensorRT on this machine's GPU: ``make bench-gpu`` runs this.

    python -m benchmarks.gpu [--models ddfd-lite-nyu-8m 2hded] [--size 640x480]

For each model and precision: an engine is built and verified, then measured in a process of its
own: start-up, latency with copies (p50, p95, p99), throughput, memory, growth over 10,000 frames;
the same for engines with one head; against torch (eager, compiled) and ONNX Runtime on the same
GPU, and against the floor that operations and bytes over this GPU's measured rates give. ``2hded``
and other networks that are not shipped have random weights: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_count import count_work
from benchmarks.record import RESULTS, write_results
from ddfd_ros.core.errors import DdfdError, ModelLoadError
from ddfd_ros.inference.gpu_probe import probe_gpu
from ddfd_ros.ros.environment import shipped_models
from ddfd_trt.benchmark import parse_size

_HEAD_SETS = {"both": None, "depth": ("depth_m",), "sharp": ("sharp_rgb",)}


def model_files(name: str, folder: Path) -> tuple[Path, Path | None]:
    """ONNX file and checkpoint of a shipped model, or of a network with random weights."""
    shipped = shipped_models()
    if name in shipped:
        path = Path(shipped[name])
        checkpoint = path.with_suffix(".pt")
        return path, checkpoint if checkpoint.is_file() else None
    return random_model(name, folder)


def random_model(name: str, folder: Path) -> tuple[Path, Path]:
    """A network with random weights, as checkpoint and ONNX in ``folder``."""
    try:
        import torch
    except ImportError as error:
        raise ModelLoadError(
            f"{name}: expected a shipped model, or torch to make one of random weights, got "
            f"{error}; make it elsewhere with --only-models and put it into models/"
        ) from error
    from ddfd_ros.core.metadata import FORMAT_VERSION, ModelContract
    from ddfd_ros.model import build_network
    from ddfd_ros.model.byte_graph import ByteGraph
    from ddfd_ros.model.checkpoint import save_checkpoint
    from ddfd_trt.export_onnx import export_onnx

    torch.manual_seed(0)
    network = build_network(name)
    contract = ModelContract(
        format_version=FORMAT_VERSION, network=name, network_options={}, parameter_count=0,
        input_height=None, input_width=None, size_multiple=int(getattr(network, "size_multiple",
        32)), outputs=ByteGraph(network).outputs, depth_min_m=0.1, depth_max_m=10.0, lens=None,
        training={}, metrics={}, weights_sha256="",
    )  # fmt: skip
    checkpoint, path = folder / f"{name}.pt", folder / f"{name}.onnx"
    save_checkpoint(checkpoint, network, name, {}, contract)
    export_onnx(checkpoint, path)
    return path, checkpoint


def run_json(module: str, *arguments: str) -> dict[str, Any]:
    """Run a program that prints one line of JSON; its error in its place when it fails."""
    command = [sys.executable, "-m", module, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = run.stdout.strip().splitlines()
    if run.returncode or not lines:
        return {"error": " ".join(run.stderr.split()[-40:])}
    values: dict[str, Any] = json.loads(lines[-1])
    return values


def bench_model(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures of one model."""
    path, checkpoint = model_files(name, folder)
    width, height = options.size
    size = f"{width}x{height}"
    work = count_work(onnx.load(path), height, width)
    others = ["--onnx", str(path), "--size", size, "--repeats", str(options.repeats)]
    others += ["--checkpoint", str(checkpoint)] if checkpoint else []
    result: dict[str, Any] = {
        "operations": work.operations,
        "others": run_json("benchmarks.gpu_others", *others),
        "engines": {},
    }
    rates = [result["others"].get(key) for key in ("matrix_operations_per_s", "bytes_per_s")]
    if all(rates):
        result["floor_ms"] = work.floor_ms(*rates)
    for precision in options.precisions:
        for label, heads in _HEAD_SETS.items():
            figures = bench_engine(path, precision, heads, options, folder / f"{name}-{label}")
            result["engines"][f"{precision} {label}"] = figures
    return result


def bench_engine(
    path: Path,
    precision: str,
    heads: Sequence[str] | None,
    options: argparse.Namespace,
    folder: Path,
) -> dict[str, Any]:
    """Build one engine and measure it."""
    folder.mkdir(parents=True, exist_ok=True)
    engine, size = folder / f"{precision}.engine", "{}x{}".format(*options.size)
    command = [sys.executable, "-m", "ddfd_trt.engine_cli", str(path), str(engine)]
    command += ["--size", size, "--precision", precision, *options.engine_options]
    command += ["--timing-cache", str(folder.parent / "timing.cache")]
    if heads is not None:
        command += ["--heads", *heads]
    build = subprocess.run(command, capture_output=True, text=True, check=False)
    if build.returncode:
        return {"error": " ".join(build.stderr.split()[-60:])}
    manifest = json.loads(engine.with_name(engine.name + ".manifest.json").read_text())
    growth = options.growth_frames if heads is None and precision == "fp16" else 0
    figures = run_json(
        "benchmarks.gpu_engine", str(engine), "--size", size, "--repeats", str(options.repeats),
        "--growth-frames", str(growth),
    )  # fmt: skip
    return figures | {
        "build_s": manifest["build_seconds"],
        "engine_bytes": manifest["engine_bytes"],
        "parity": manifest["parity"]["heads"],
    }


def write_models(names: Sequence[str], folder: Path, console: Console) -> int:
    """Write the models that are not shipped, for a machine without torch."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name not in shipped_models():
            console.print(str(random_model(name, folder)[0]), highlight=False, soft_wrap=True)
    return 0


def table(results: dict[str, Any], size: str) -> Table:
    """The figures for people."""
    made = Table(title=f"latency with copies at {size}, ms")
    for column in ("model", "runtime", "p50", "p95", "p99", "frames/s", "GPU MB", "start s"):
        made.add_column(column, justify="left" if column in ("model", "runtime") else "right")
    for name, result in results.items():
        rows = {key: value for key, value in result["others"].items() if isinstance(value, dict)}
        rows |= {f"TensorRT {key}": value for key, value in result["engines"].items()}
        for runtime, values in rows.items():
            if "p50_ms" not in values:
                made.add_row(name, runtime, values.get("error", "-")[:60])
                continue
            latency = [f"{values[key]:.3f}" for key in ("p50_ms", "p95_ms", "p99_ms")]
            rate, used = values.get("frames_per_s"), values.get("gpu_used_bytes")
            begin = values.get("start_to_first_answer_s")
            made.add_row(
                name, runtime, *latency,
                f"{rate:.0f}" if rate else "", f"{used / 1e6:.0f}" if used else "",
                f"{begin:.1f}" if begin else "",
            )  # fmt: skip
        if "floor_ms" in result:
            made.add_row(name, "floor by work", f"{result['floor_ms']:.3f}")
    return made


def plot(results: dict[str, Any], path: Path) -> None:
    """Median latency of every model and runtime as bars, where matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = [
        (f"{name}: {runtime}", values["p50_ms"])
        for name, result in results.items()
        for runtime, values in [*result["others"].items(), *result["engines"].items()]
        if isinstance(values, dict) and "p50_ms" in values
    ]
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.3 * len(bars)), layout="constrained")
    axes.barh([label for label, _ in bars], [value for _, value in bars])
    axes.set_xscale("log")
    axes.set_xlabel("median latency with copies, ms")
    axes.invert_yaxis()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write ``gpu.json`` and ``gpu.png``; 1 without a GPU or when any failed."""
    parser = argparse.ArgumentParser(prog="gpu", description=__doc__)
    default = [*sorted(name for name in shipped_models() if "nyu" in name)[:1], "2hded"]
    parser.add_argument("--models", nargs="+", default=default)
    parser.add_argument("--size", type=parse_size, default=(640, 480), metavar="WIDTHxHEIGHT")
    parser.add_argument("--precisions", nargs="+", default=["fp16", "fp32"])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--growth-frames", type=int, default=10_000)
    parser.add_argument("--engine-options", nargs=argparse.REMAINDER, default=[],
                        help="further arguments of ddfd-engine, at the end")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only-models", type=Path, metavar="FOLDER",
                        help="only write the models there that are not shipped")  # fmt: skip
    options = parser.parse_args(arguments)
    console = Console()
    try:
        if options.only_models is not None:
            return write_models(options.models, options.only_models, console)
        machine = probe_gpu()
        results = {}
        with TemporaryDirectory() as folder:
            for name in options.models:
                console.print(f"{name} ...")
                results[name] = bench_model(name, options, Path(folder))
    except DdfdError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    size = "{}x{}".format(*options.size)
    console.print(table(results, size))
    figures = {"gpu": machine.__dict__, "clocks": clocks(), "size": size, "models": results}
    write_results("gpu", figures, options.out)
    plot(results, options.out / "gpu.png")
    engines = [item for result in results.values() for item in result["engines"].values()]
    return int(any("error" in item for item in engines))


def clocks() -> str:
    """What nvidia-smi says about clocks and power; empty where it does not exist (Jetson)."""
    command = [
        "nvidia-smi", "--format=csv,noheader",
        "--query-gpu=name,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu",
    ]  # fmt: skip
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return run.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
