"""``ddfd-engine``: build a TensorRT engine from an ONNX model, on the machine that will run it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import Progress, TaskID

from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.core.sidecar import read_sidecar
from ddfd_ros.core.types import HEADS
from ddfd_ros.inference.engine_manifest import PRECISIONS, EngineManifest, ShapeRange
from ddfd_ros.inference.engine_store import engine_name
from ddfd_ros.inference.onnx_file import load_onnx
from ddfd_trt.build_engine import BuildCancelled, Watch
from ddfd_trt.engine_options import EngineOptions, fitting_heads, fitting_shapes
from ddfd_trt.make_engine import EngineJob, make_engine

EXIT_OK, EXIT_ERROR, EXIT_STOPPED = 0, 2, 130
OWN_KERNELS_VARIABLE = "DDFD_OWN_KERNELS_ONLY"
_SAY_EVERY_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """``ddfd-engine``. Returns 0, 2 after an error message, 130 when it was stopped."""
    arguments = _parser().parse_args(argv)
    cancel = threading.Event()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        if cancel.is_set():  # asked twice: at once, whatever is done
            os._exit(EXIT_STOPPED)
        cancel.set()
        print("stopping; the engine that was there stays", file=sys.stderr, flush=True)

    for number in previous:
        signal.signal(number, stop)
    if arguments.stop_on_eof:
        _stop_on_eof(cancel)
    try:
        return _run(arguments, cancel)
    except BuildCancelled as stopped:
        print(f"error: {stopped}", file=sys.stderr)
        return EXIT_STOPPED
    except (DdfdError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ddfd-engine",
        description="Build a TensorRT engine from an ONNX model, compare it with the model, and "
        "write it with a manifest. Run it on the machine that will use the engine: engines "
        "belong to one GPU model and one TensorRT version.",
    )
    parser.add_argument("model", help="model of ddfd-export (.onnx), or name of a shipped one")
    parser.add_argument(
        "output",
        type=Path,
        nargs="?",
        help="engine to write (default: beside the model, named after size and precision)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp16",
        help="default: fp16; int8 needs --calibrate",
    )
    parser.add_argument(
        "--size",
        type=_size,
        metavar="WIDTHxHEIGHT",
        help="size of the camera's images (a model of any size needs it)",
    )
    parser.add_argument(
        "--min-size",
        type=_size,
        metavar="WIDTHxHEIGHT",
        help="with --max-size: take a range, fastest at --size",
    )
    parser.add_argument("--max-size", type=_size, metavar="WIDTHxHEIGHT")
    parser.add_argument(
        "--heads",
        nargs="+",
        choices=HEADS,
        metavar="HEAD",
        help="outputs to compute (default: all); engines with fewer heads are "
        "used beside the whole one when nobody listens to the rest",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FOLDER",
        help="pictures of the camera that find the ranges of int8",
    )
    parser.add_argument("--calibrate-limit", type=int, default=200, metavar="N")
    parser.add_argument(
        "--images",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="image or folder to compare on besides the golden input",
    )
    parser.add_argument("--workspace-mb", type=int, default=1024, metavar="MIB")
    parser.add_argument("--optimization-level", type=int, metavar="0-5")
    parser.add_argument(
        "--version-compatible",
        action="store_true",
        help="let later TensorRT versions and the lean runtime take it",
    )
    parser.add_argument(
        "--own-kernels-only",
        action="store_true",
        default=bool(os.environ.get(OWN_KERNELS_VARIABLE)),
        help="do without cuBLAS and cuDNN where they are not installed (in a bundle always)",
    )
    parser.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="keeps kernel timings (default: timing.cache beside the engine)",
    )
    parser.add_argument(
        "--keep-refused",
        action="store_true",
        help="keep an engine whose answers are not the model's in the folder refused/ beside the "
        "output, where no node takes it",
    )
    parser.add_argument("--stop-on-eof", action="store_true", help=argparse.SUPPRESS)
    return parser


def _stop_on_eof(cancel: threading.Event) -> None:
    """Stop when whoever started this closes our input, which its end does too."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # not buffered: its lock would outlive the end
            pass
        cancel.set()

    threading.Thread(target=wait, name="ddfd-eof", daemon=True).start()


def _size(text: str) -> tuple[int, int]:
    """``640x480`` as (height, width)."""
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 640x480, got {text!r}")
    return int(height), int(width)


def _shapes(arguments: argparse.Namespace) -> ShapeRange | None:
    low, best, high = arguments.min_size, arguments.size, arguments.max_size
    if low is None and high is None:
        return None if best is None else ShapeRange.fixed(*best)
    chosen = best or high or low
    return ShapeRange(low or chosen, chosen, high or chosen)


def _run(arguments: argparse.Namespace, cancel: threading.Event) -> int:
    model = resolve_model(arguments.model, ".onnx", parameter="model")
    read_sidecar(model)  # says first what is wrong with the file
    options = EngineOptions(
        precision=arguments.precision,
        shapes=_shapes(arguments),
        heads=tuple(arguments.heads) if arguments.heads else None,
        workspace_mb=arguments.workspace_mb,
        optimization_level=arguments.optimization_level,
        version_compatible=arguments.version_compatible,
        own_kernels_only=arguments.own_kernels_only,
        calibration_images=arguments.calibrate,
        calibration_limit=arguments.calibrate_limit,
    )
    output = arguments.output or model.with_name(_default_name(model, options))
    with _Teller() as teller:
        manifest = make_engine(
            EngineJob(
                model,
                output,
                options,
                images=tuple(arguments.images),
                timing_cache=arguments.timing_cache,
                keep_refused=arguments.keep_refused,
                watch=Watch(teller.phase, teller.progress, cancel),
            )
        )
    _print_result(output, manifest)
    return EXIT_OK


def _default_name(model: Path, options: EngineOptions) -> str:
    _, contract = load_onnx(model)
    shapes = fitting_shapes(contract, options.shapes)
    heads = fitting_heads(contract, options.heads)
    return engine_name(model, shapes, options.precision, heads, len(contract.outputs))


class _Teller:
    """Says how far a build is: bars on a terminal, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._start = self._said = time.monotonic()
        self._bars = Progress(console=Console(stderr=True), transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._live = sys.stderr.isatty()

    def __enter__(self) -> _Teller:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def phase(self, text: str) -> None:
        if self._live:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def progress(self, phase: str, step: int, steps: int) -> None:
        if self._live:
            if phase not in self._tasks:
                self._tasks[phase] = self._bars.add_task(phase, total=steps)
            self._bars.update(self._tasks[phase], completed=step, total=steps)
            return
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY_S:
            self._said = now
            line = f"{phase}: {step} of {steps}, {now - self._start:.0f} s"
            print(line, file=sys.stderr, flush=True)


def _print_result(output: Path, manifest: EngineManifest) -> None:
    print(
        f"{output}: {manifest.contract.network}, {manifest.precision}, {manifest.shapes}, "
        f"outputs {', '.join(manifest.contract.outputs)}, {manifest.engine_bytes / 1e6:.1f} MB, "
        f"built in {manifest.build_seconds:.0f} s with TensorRT "
        f"{manifest.machine.tensorrt_version} for {manifest.machine.gpu_name}"
    )
    for head, figures in manifest.parity["heads"].items():
        print(
            f"  {head}: mean {figures['mean']:.3g}, p99 {figures['p99']:.3g}, max "
            f"{figures['maximum']:.3g} {figures['unit']} from the model"
        )


if __name__ == "__main__":
    sys.exit(main())
