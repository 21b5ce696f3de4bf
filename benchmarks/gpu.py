"""TensorRT on this machine's GPU: ``make bench-gpu`` runs this.

    python -m benchmarks.gpu [--models ddfd-lite-nyu-8m 2hded] [--size 640x480] [--limit-s 480]

For each model and precision: an engine is built and verified, then measured in a process of its
own: start-up, latency with copies (p50, p95, p99), throughput, memory, growth over 10,000 frames;
the same for engines with one head; against torch (eager, compiled) and ONNX Runtime on the same
GPU, and against the floor that operations and bytes over this GPU's measured rates give. ``2hded``
and other networks that are not shipped have random weights: speed does not depend on them.

What matters most comes first, and everything is written as soon as it is known.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_count import count_work
from benchmarks.gpu_engine import WARM_UP_S
from benchmarks.record import RESULTS, write_results
from ddfd_ros.core.errors import DdfdError, ModelLoadError
from ddfd_ros.inference.engine_manifest import GpuMachine, file_sha256, read_manifest
from ddfd_ros.inference.gpu_probe import probe_gpu
from ddfd_ros.ros.environment import shipped_models
from ddfd_trt.benchmark import parse_size
from ddfd_trt.make_engine import refused_path

_HEAD_SETS = {"both": None, "depth": ("depth_m",), "sharp": ("sharp_rgb",)}


@dataclass(frozen=True)
class Step:
    """One engine to build and measure, or (no precision) the other runtimes of a model."""

    model: str
    precision: str = ""
    head_set: str = ""

    def __str__(self) -> str:
        return (
            f"{self.model} {f'{self.precision} {self.head_set}' if self.precision else 'others'}"
        )


def ordered_steps(
    models: Sequence[str], precisions: Sequence[str], head_sets: Sequence[str]
) -> list[Step]:
    """All that is to be done, the most telling first: the first engine of every model."""
    engines = [
        Step(model, precision, head_set)
        for precision in precisions
        for head_set in head_sets
        for model in models
    ]
    first = len(models)
    return [*engines[:first], *(Step(model) for model in models), *engines[first:]]


def model_files(name: str, folder: Path) -> tuple[Path, Path | None]:
    """ONNX file and checkpoint of a shipped model, or of a network with random weights."""
    shipped = shipped_models()
    if name in shipped:
        path = Path(shipped[name])
        checkpoint = path.with_suffix(".pt")
        return path, checkpoint if checkpoint.is_file() else None
    path = folder / f"{name}.onnx"
    return (path, path.with_suffix(".pt")) if path.is_file() else random_model(name, folder)


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


def run_json(
    module: str, *arguments: str, timeout_s: float | None = None, python: Path | None = None
) -> dict[str, Any]:
    """Run a program that prints lines of JSON; all of them, and its error where it failed.

    Args:
        module: The program.
        *arguments: Its arguments.
        timeout_s: How long it may take.
        python: Another Python than this one; it gets the project's code and nothing else of this
            one's surroundings.
    """
    command = [str(python or sys.executable), "-m", module, *arguments]
    environ = None if python is None else outside_environment()
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout_s, env=environ
        )
        lines, said, failed = run.stdout, run.stderr, run.returncode != 0
    except subprocess.TimeoutExpired as error:
        lines = (error.stdout or b"").decode()  # bytes, whatever was asked for
        said, failed = f"not done within {timeout_s:.0f} s", True
    values: dict[str, Any] = {}
    for line in lines.splitlines():
        if line.startswith("{"):
            values |= json.loads(line)
    if failed or not values:
        values["error"] = " ".join(said.split()[-40:]) or "it printed nothing"
    return values


def run_build(command: Sequence[str], timeout_s: float | None = None) -> dict[str, str]:
    """Run ``ddfd-engine``; empty when it went well, else its ``error``."""
    try:
        build = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:  # the builder ends with who started it
        return {"error": f"build: not done within {timeout_s:.0f} s"}
    return {"error": reason(build.stderr)} if build.returncode else {}


def outside_environment() -> dict[str, str]:
    """The environment for another Python: of a bundle's, only where the project's code lies."""
    root = Path(__file__).resolve().parents[1]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    libraries = environ.get("DDFD_OUTSIDE_LIBRARIES")
    if libraries is not None:
        environ["LD_LIBRARY_PATH"] = libraries
    return environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "trt")])}


def reason(said: str) -> str:
    """Why ``ddfd-engine`` ended, out of its standard error: whole, or the end of a crash's."""
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    whole = lines[-1].removeprefix("error: ") if lines else " ".join(said.split()[-60:])
    return whole or "it printed nothing"


class Bench:
    """The figures of all models, written whenever one is added.

    Args:
        options: The command line's.
        machine: GPU and TensorRT, for the record.
        folder: Where models and engines go.
    """

    def __init__(self, options: argparse.Namespace, machine: GpuMachine, folder: Path) -> None:
        self.results: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []
        self._options, self._machine, self._folder = options, machine, folder
        self._size = "{}x{}".format(*options.size)
        self._end = time.monotonic() + (options.limit_s or float("inf"))

    @property
    def failures(self) -> list[str]:
        """What went wrong, in words; what is not installed is no failure."""
        parts = [
            (f"{name} {what}", part)
            for name, result in self.results.items()
            for what, part in {"": result, "others": result["others"], **result["engines"]}.items()
        ]
        return [f"{name.strip()}: {part['error']}" for name, part in parts if "error" in part]

    def run(self, steps: Sequence[Step], console: Console) -> None:
        """Do the steps, none of them begun after the time limit."""
        begun = time.monotonic()
        for step in steps:
            now = time.monotonic()
            if now >= self._end:
                self.left_out.append(str(step))
                continue
            console.print(f"{now - begun:5.0f} s  {step}", highlight=False)
            result = self.results.setdefault(step.model, {"others": {}, "engines": {}})
            if "error" in result:
                continue
            try:
                self._do(step, result)
            except (DdfdError, OSError, ValueError) as error:
                result["error"] = str(error)
                console.print(result["error"], style="red", markup=False, highlight=False)
            self.write()
        if self.left_out:
            console.print(f"left out for the time limit: {', '.join(self.left_out)}")
            self.write()

    def write(self) -> None:
        """Write ``gpu.json``, whole at any time."""
        out: Path = self._options.out
        figures = {
            "gpu": self._machine.__dict__,
            "size": self._size,
            "repeats": self._options.repeats,
            "warm_up_s": self._options.warm_up_s,
            "engine_options": self._options.engine_options,
            "models": self.results,
        }
        partial = write_results("gpu", figures | {"left_out": self.left_out}, out / ".partial")
        partial.replace(out / partial.name)
        partial.parent.rmdir()

    def _do(self, step: Step, result: dict[str, Any]) -> None:
        path, checkpoint = model_files(step.model, self._folder)
        if step.precision:
            heads = _HEAD_SETS[step.head_set]
            folder = self._folder / "-".join([step.model, step.head_set, *self._options_tag()])
            figures = self._engine(path, step.precision, heads, folder)
            result["engines"][f"{step.precision} {step.head_set}"] = figures
            return
        arguments = ["--onnx", str(path), *self._common()]
        arguments += ["--checkpoint", str(checkpoint)] if checkpoint else []
        left_s = self._end - time.monotonic() if self._options.limit_s else None
        others = run_json(
            "benchmarks.gpu_others", *arguments, timeout_s=left_s,
            python=self._options.others_python,
        )  # fmt: skip
        result["others"] = others
        width, height = self._options.size
        work = count_work(onnx.load(path), height, width)
        result["operations"] = work.operations
        result["moved_bytes"] = work.moved_bytes
        rates = [others.get(key) for key in ("matrix_operations_per_s", "bytes_per_s")]
        if all(rates):
            result["floor_ms"] = work.floor_ms(*rates)

    def _options_tag(self) -> list[str]:
        """Tells engines of other options apart; nothing where there are none."""
        options = self._options.engine_options
        return [hashlib.sha256("\0".join(options).encode()).hexdigest()[:8]] if options else []

    def _common(self) -> list[str]:
        options = self._options
        return ["--size", self._size, "--repeats", str(options.repeats),
                "--warm-up-s", str(options.warm_up_s)]  # fmt: skip

    def _engine(
        self, path: Path, precision: str, heads: Sequence[str] | None, folder: Path
    ) -> dict[str, Any]:
        """Build one engine, unless it is there, and measure it."""
        folder.mkdir(parents=True, exist_ok=True)
        engine = folder / f"{precision}-{self._size}.engine"
        limit_s = self._options.step_limit_s
        failed: dict[str, Any] = {}
        if not is_built(engine, path, self._machine):
            command = [sys.executable, "-m", "ddfd_trt.engine_cli", str(path), str(engine)]
            command += ["--size", self._size, "--precision", precision]
            command += ["--timing-cache", str(self._folder / "timing.cache")]
            command += ["--heads", *heads] if heads is not None else []
            command += ["--keep-refused", *self._options.engine_options]
            refused = refused_path(engine)
            refused.unlink(missing_ok=True)
            failed = run_build(command, limit_s)
            if failed:
                if not refused.is_file():
                    return failed
                engine = refused  # how fast it is and how far off is worth knowing
        manifest = read_manifest(engine, verify=False)
        growth = self._options.growth_frames if heads is None and precision == "fp16" else 0
        figures = run_json(
            "benchmarks.gpu_engine", str(engine), *self._common(), "--growth-frames", str(growth),
            timeout_s=limit_s,
        )  # fmt: skip
        return figures | {
            "build_s": manifest.build_seconds,
            "engine_bytes": manifest.engine_bytes,
            "parity": manifest.parity["heads"],
            **failed,
        }


def is_built(engine: Path, model: Path, machine: GpuMachine) -> bool:
    """Whether a whole engine is there, of this model and for this machine."""
    try:
        return not read_manifest(engine).mismatches(machine, file_sha256(model))
    except DdfdError:
        return False


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
    else:
        with TemporaryDirectory() as folder:
            yield Path(folder)


def write_models(names: Sequence[str], folder: Path, console: Console) -> int:
    """Write the models that are not shipped, for a machine without torch."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name not in shipped_models():
            console.print(str(random_model(name, folder)[0]), highlight=False, soft_wrap=True)
    return 0


def table(results: dict[str, Any], size: str) -> Table:
    """The figures for people."""
    title = f"latency with copies at {size}, ms; x: times as fast as torch eager; (!): see below"
    made = Table(title=title)
    for column in ("model", "runtime", "p50", "p95", "p99", "frames/s", "GPU MB", "start s"):
        made.add_column(column, justify="left" if column in ("model", "runtime") else "right")
    for kind in ("fp32", "tf32"):
        made.add_column(f"x {kind}", justify="right")
    for name, result in results.items():
        rows = {key: value for key, value in result["others"].items() if isinstance(value, dict)}
        rows |= {f"TensorRT {key}": value for key, value in result["engines"].items()}
        for runtime, values in rows.items():
            if "p50_ms" not in values:
                made.add_row(name, runtime, "failed")
                continue
            runtime += " (!)" if "error" in values else ""
            latency = [f"{values[key]:.3f}" for key in ("p50_ms", "p95_ms", "p99_ms")]
            rate, used = values.get("frames_per_s"), values.get("engine_gpu_bytes")
            begin = values.get("start_to_first_answer_s")
            made.add_row(
                name, runtime, *latency,
                f"{rate:.0f}" if rate else "", f"{used / 1e6:.0f}" if used else "",
                f"{begin:.1f}" if begin else "", *factors(values, result["others"]),
            )  # fmt: skip
        if "floor_ms" in result:
            made.add_row(name, "floor by work", f"{result['floor_ms']:.3f}")
    return made


def factors(values: dict[str, Any], others: dict[str, Any]) -> list[str]:
    """How many times as fast as torch in true single precision, and in TF32; "" where unknown."""
    eager = [others.get(f"torch eager {kind}") for kind in ("fp32", "tf32")]
    return [
        f"{torch['p50_ms'] / values['p50_ms']:.1f}" if isinstance(torch, dict) else ""
        for torch in eager
    ]


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
    if not bars:
        return
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.3 * len(bars)), layout="constrained")
    axes.barh([label for label, _ in bars], [value for _, value in bars])
    axes.set_xscale("log")
    axes.set_xlabel("median latency with copies, ms")
    axes.invert_yaxis()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write ``gpu.json`` and ``gpu.png``; 1 without a GPU or when any failed."""
    options = _parser().parse_args(arguments)
    console = Console()
    console.width = max(console.width, 120)  # a table in a file or log is not to be cut
    try:
        if options.only_models is not None:
            return write_models(options.models, options.only_models, console)
        machine = probe_gpu()
    except DdfdError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    steps = ordered_steps(options.models, options.precisions, options.head_sets)
    if options.engines_only:
        steps = [step for step in steps if step.precision]
    with _folder(options.keep) as folder:
        bench = Bench(options, machine, folder)
        bench.run(steps, console)
    console.print(table(bench.results, "{}x{}".format(*options.size)))
    for text in bench.failures:
        console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    plot(bench.results, options.out / "gpu.png")
    return int(bool(bench.failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu", description=__doc__)
    default = [*sorted(name for name in shipped_models() if "nyu" in name)[:1], "2hded"]
    parser.add_argument("--models", nargs="+", default=default)
    parser.add_argument("--size", type=parse_size, default=(640, 480), metavar="WIDTHxHEIGHT")
    parser.add_argument("--precisions", nargs="+", default=["fp16", "fp32"])
    parser.add_argument("--head-sets", nargs="+", choices=_HEAD_SETS, default=list(_HEAD_SETS))
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--warm-up-s", type=float, default=WARM_UP_S)
    parser.add_argument("--growth-frames", type=int, default=10_000)
    parser.add_argument("--limit-s", type=float,
                        help="begin no further build or comparison after so long")  # fmt: skip
    parser.add_argument("--step-limit-s", type=float,
                        help="give up a build, or the measurement of an engine, that takes "
                        "longer")  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="FOLDER",
                        help="keep engines and kernel timings there; what is there is measured "
                        "without building it again")  # fmt: skip
    parser.add_argument("--engines-only", action="store_true",
                        help="compare with nothing: torch, ONNX Runtime, floor")  # fmt: skip
    parser.add_argument("--others-python", type=Path, metavar="PROGRAM",
                        help="a Python with torch to compare with, where this one has none (a "
                        "bundle's)")  # fmt: skip
    parser.add_argument("--engine-options", nargs=argparse.REMAINDER, default=[],
                        help="further arguments of ddfd-engine, at the end")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only-models", type=Path, metavar="FOLDER",
                        help="only write the models there that are not shipped")  # fmt: skip
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
