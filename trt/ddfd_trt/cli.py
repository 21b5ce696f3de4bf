"""The commands ``ddfd-export`` and ``ddfd-verify``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ddfd_ros.core.arguments import at_least_one
from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.shipped import resolve_model
from ddfd_ros.core.types import HEADS
from ddfd_ros.inference.engine_manifest import PRECISIONS
from ddfd_ros.inference.precision import Tolerance, tolerance_of

if TYPE_CHECKING:
    from ddfd_ros.inference.base import Backend
    from ddfd_trt.verify import NamedImage, VerifyReport

EXIT_OK, EXIT_DIFFERENT, EXIT_ERROR = 0, 1, 2


def export_main(argv: Sequence[str] | None = None) -> int:
    """``ddfd-export``: checkpoint to ONNX. Returns 0, or 2 after an error message."""
    parser = argparse.ArgumentParser(
        prog="ddfd-export",
        description="Write a trained checkpoint as an ONNX model with its contract inside and "
        "beside it, after checking that ONNX Runtime answers as PyTorch does.",
    )
    parser.add_argument("checkpoint", type=Path, help="checkpoint of ddfd-train (.pt)")
    parser.add_argument("output", type=Path, nargs="?", help="model to write (default: the "
                        "checkpoint's path ending in .onnx)")  # fmt: skip
    parser.add_argument("--height", type=int, help="fix the input's height (default: any)")
    parser.add_argument("--width", type=int, help="fix the input's width (default: any)")
    parser.add_argument("--heads", nargs="+", choices=HEADS, metavar="HEAD",
                        help="outputs to keep (default: those of the contract)")  # fmt: skip
    parser.add_argument("--metrics", type=Path, action="append", default=[], metavar="FILE",
                        help="report of ddfd-evaluate --json about these weights, for the "
                        "contract; repeatable")  # fmt: skip
    parser.add_argument("--opset", type=int, default=17, help="ONNX operator set (default: 17)")
    return _guarded(_export, parser.parse_args(argv))


def verify_main(argv: Sequence[str] | None = None) -> int:
    """``ddfd-verify``: parity of two runtimes. Returns 0, 1 when beyond tolerance, 2 on error."""
    parser = argparse.ArgumentParser(
        prog="ddfd-verify",
        description="Run the same images through two runtimes and compare every head: mean, "
        "99th percentile and largest difference, and with --truth what that does to the depth "
        "error. The tolerances follow from the candidate's precision. Exit status: 0 alike, 1 "
        "beyond the tolerance, 2 error.",
    )
    parser.add_argument(
        "reference", help="model that counts as right (.pt, .onnx), or name of a shipped one"
    )
    parser.add_argument("candidate", help="model under test (or .engine); may be the same")
    parser.add_argument("--reference-runtime", default="auto", metavar="RUNTIME")
    parser.add_argument("--runtime", default="auto", metavar="RUNTIME",
                        help="runtime of the candidate (default: auto)")  # fmt: skip
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"),
                        help="device of the candidate")  # fmt: skip
    parser.add_argument("--images", type=Path, action="append", default=[], metavar="PATH",
                        help="image or folder, besides the golden input; repeatable")  # fmt: skip
    parser.add_argument("--limit", type=at_least_one, help="at most so many images of the folders")
    parser.add_argument("--truth", type=Path, metavar="FOLDER",
                        help="depth maps (8 or 16 bit) named like the images")  # fmt: skip
    parser.add_argument("--truth-unit", type=_positive, default=1e-3, metavar="METRES",
                        help="metres per unit of the depth maps (default: 0.001)")  # fmt: skip
    parser.add_argument("--precision", choices=PRECISIONS,
                        help="whose tolerances hold (default: the engine's or fp32)")  # fmt: skip
    parser.add_argument("--tolerance-scale", type=_positive,
                        help="factor on the tolerances instead of the precision's")  # fmt: skip
    parser.add_argument("--allowed", type=_fraction, metavar="FRACTION",
                        help="fraction of values that may be beyond it instead")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report here")
    return _guarded(_verify, parser.parse_args(argv))


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction from 0 to 1, got {text}")
    return value


def _guarded(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; problems with files and models become one line on standard error."""
    try:
        return command(arguments)
    except (DdfdError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR


def _export(arguments: argparse.Namespace) -> int:
    # Late, so that --help and mistyped options need not wait for torch.
    from ddfd_trt.export_onnx import export_onnx

    output = arguments.output or arguments.checkpoint.with_suffix(".onnx")
    contract = export_onnx(
        arguments.checkpoint,
        output,
        height=arguments.height,
        width=arguments.width,
        heads=arguments.heads,
        opset=arguments.opset,
        reports=arguments.metrics,
    )
    sides = (contract.input_width, contract.input_height)
    size = f"any multiple of {contract.size_multiple}" if None in sides else "{}x{}".format(*sides)
    print(
        f"{output}: {contract.network}, {contract.parameter_count:,} parameters, size {size}, "
        f"outputs {', '.join(contract.outputs)}, {output.stat().st_size / 1e6:.1f} MB; ONNX "
        "Runtime agrees with PyTorch"
    )
    return EXIT_OK


def _verify(arguments: argparse.Namespace) -> int:
    from ddfd_ros.inference import open_backend

    right = resolve_model(arguments.reference, parameter="reference")
    tested = resolve_model(arguments.candidate, parameter="candidate")
    with (
        open_backend(right, arguments.reference_runtime) as reference,
        open_backend(tested, arguments.runtime, device=arguments.device) as candidate,
    ):
        report = _compare(reference, candidate, arguments)
    _print_report(report)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return EXIT_OK if report.passed else EXIT_DIFFERENT


def _compare(
    reference: Backend, candidate: Backend, arguments: argparse.Namespace
) -> VerifyReport:
    from rich.progress import Progress

    from ddfd_trt.truth import TruthCollector, TruthFolder
    from ddfd_trt.verify import find_images, golden_images, load_images, verify

    paths = [path for item in arguments.images for path in find_images(item)][: arguments.limit]
    tolerance = _tolerance(candidate, arguments)
    truth = None
    if arguments.truth is not None:
        truth = TruthCollector(
            TruthFolder(arguments.truth, arguments.truth_unit), tolerance.rms_change
        )
    source = candidate if candidate.contract.golden is not None else reference
    images: Iterable[NamedImage] = chain(golden_images(source), load_images(paths))
    with Progress(transient=True) as progress:
        task = progress.add_task("images", total=len(paths) + 1)
        return verify(
            reference,
            candidate,
            images,
            tolerance_scale=tolerance.scale,
            allowed=tolerance.allowed,
            truth=truth,
            on_image=lambda name: progress.update(task, advance=1, description=name),
        )


def _tolerance(candidate: Backend, arguments: argparse.Namespace) -> Tolerance:
    """Of the precision that was named, or of the engine; single values as asked for."""
    manifest = getattr(candidate, "manifest", None)
    precision = arguments.precision or getattr(manifest, "precision", "fp32")
    tolerance = tolerance_of(precision, getattr(manifest, "calibrated", True))
    chosen = {"scale": arguments.tolerance_scale, "allowed": arguments.allowed}
    return replace(tolerance, **{k: v for k, v in chosen.items() if v is not None})


def _print_report(report: VerifyReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("head", "mean", "p99", "max", "tolerance", "beyond", "verdict")
    for item in report.heads:
        absolute, relative = item.tolerance
        table.add_row(
            f"{item.head} ({item.unit})",
            f"{item.mean:.3g}",
            f"{item.p99:.3g}",
            f"{item.maximum:.3g}",
            f"{absolute:g}" + (f" + {relative:g} rel." if relative else ""),
            f"{item.beyond:.4%}",
            "alike" if item.passed else "DIFFERENT",
        )
    console = Console(markup=False)
    console.width = max(console.width, 110)  # a report in a file or log is not to be cut
    console.print(f"reference  {report.reference}\ncandidate  {report.candidate}", highlight=False)
    console.print(f"images     {report.images}", highlight=False)
    console.print(table)
    if (truth := report.truth) is not None:
        console.print(
            f"depth error against truth ({truth.images} images): reference "
            f"{truth.reference_m:.4f} m, candidate {truth.candidate_m:.4f} m, {truth.change:+.3%} "
            f"(at most {truth.allowed:+.1%}): {'alike' if truth.passed else 'WORSE'}",
            highlight=False,
        )
