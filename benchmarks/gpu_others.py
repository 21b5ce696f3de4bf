"""The same network on other runtimes of the GPU, and the machine's rates: what to compare with.

    python -m benchmarks.gpu_others --onnx M.onnx [--checkpoint M.pt] --size 640x480

Torch has the network of the checkpoint; without one, that of the model's contract with random
weights, on which speed does not depend: a bundle has no checkpoints.

Prints lines of JSON, each when it is known. What is not installed is named with the reason instead
of a figure. Torch and ONNX Runtime are measured in true single precision and in TF32, which both
take for convolutions unless told otherwise, and which keeps ten bits of the mantissa.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_engine import WARM_UP_S, percentiles, timed, warm_up

_MATRIX_SIDE = 8192


def torch_runs(
    checkpoint: str | None, onnx: str | None, size: tuple[int, int], repeats: int, warm_up_s: float
) -> Iterator[tuple[str, Any]]:
    """Torch, eager and compiled, with the copies to and from the device: names and figures."""
    try:
        import torch
    except ImportError as error:
        yield "torch", str(error)
        return
    from ddfd_ros.model.byte_graph import ByteGraph

    if not torch.cuda.is_available():
        yield "torch", f"torch {torch.__version__} sees no CUDA device"
        return
    cudnn = torch.backends.cudnn.version()
    yield "torch_version", f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}"
    network, outputs = torch_network(checkpoint, onnx)
    graph = ByteGraph(network.to("cuda"), outputs).to("cuda")
    with torch.inference_mode():
        # Compiling last: it can take minutes, and fail.
        for name, tf32, compiled in (
            ("torch eager fp32", False, False),
            ("torch eager tf32", True, False),
            ("torch compiled tf32", True, True),
        ):
            allow_tf32(torch, tf32)
            try:
                run = TorchRun(torch, torch.compile(graph) if compiled else graph, size)
                yield name, _timed(run, repeats, warm_up_s)
            except RuntimeError as error:
                yield name, str(error).splitlines()[0]
            if name == "torch eager tf32":
                yield "matrix_operations_per_s", _matrix_rate(torch)
                yield "bytes_per_s", _bandwidth(torch)


def torch_network(checkpoint: str | None, onnx: str | None) -> tuple[Any, tuple[str, ...]]:
    """A network and its heads: the checkpoint's, or by the contract of an ONNX model.

    Raises:
        DdfdError: The file cannot be read.
    """
    if checkpoint is not None:
        from ddfd_ros.model.checkpoint import load_checkpoint

        network, contract = load_checkpoint(checkpoint)
        return network, contract.outputs
    from ddfd_ros.inference.onnx_file import load_onnx
    from ddfd_ros.model import build_network

    contract = load_onnx(Path(onnx or ""))[1]
    return build_network(contract.network, **contract.network_options), contract.outputs


def allow_tf32(torch: Any, allowed: bool) -> None:
    """Let convolutions and products of matrices round their inputs to TF32, or not."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


class TorchRun:
    """A network whose image and answers go through page-locked memory, as an engine's do.

    Args:
        torch: The module.
        graph: A ``ByteGraph`` on the device.
        size: Height and width in pixels.
        device: Where it runs.
    """

    def __init__(
        self, torch: Any, graph: Any, size: tuple[int, int], device: str = "cuda"
    ) -> None:
        self._graph, self._device = graph, device
        self._synchronize = torch.cuda.synchronize
        self._inputs = [value.pin_memory() for value in graph.examples(*size)]
        self._answers = [
            torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for value in self._run()
        ]

    def _run(self) -> Any:
        return self._graph(*(v.to(self._device, non_blocking=True) for v in self._inputs))

    def __call__(self) -> list[np.ndarray]:
        """One frame's answers, each an array of its own."""
        for answer, value in zip(self._answers, self._run(), strict=True):
            answer.copy_(value, non_blocking=True)
        self._synchronize()
        return [answer.numpy().copy() for answer in self._answers]


def _matrix_rate(torch: Any) -> float:
    """Operations per second of large products in half precision."""
    side = _MATRIX_SIDE
    a = torch.randn(side, side, device="cuda", dtype=torch.float16)
    seconds = _device_seconds(torch, lambda: a @ a)
    return float(2 * side**3 / seconds)


def _bandwidth(torch: Any) -> float:
    """Bytes read and written per second by a copy within the device."""
    source = torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return float(2 * source.numel() / _device_seconds(torch, lambda: target.copy_(source)))


def _device_seconds(torch: Any, work: Callable[[], Any], repeats: int = 20) -> float:
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def onnx_runs(
    path: str, size: tuple[int, int], repeats: int, warm_up_s: float
) -> Iterator[tuple[str, Any]]:
    """ONNX Runtime's CUDA provider, where it is installed: names and figures."""
    from ddfd_ros.core.errors import DdfdError
    from ddfd_ros.core.metadata import golden_image
    from ddfd_ros.inference import open_backend

    image = golden_image(*size, seed=1)
    for name, precision in (
        ("onnxruntime cuda fp32", "float32"),
        ("onnxruntime cuda tf32", "auto"),
    ):
        try:
            with open_backend(path, "onnxruntime", device="cuda", precision=precision) as backend:
                figures = _timed(partial(backend.infer, image), repeats, warm_up_s)
                yield name, {"device": backend.device, **figures}
        except DdfdError as error:
            yield name, str(error)


def _timed(work: Callable[[], Any], repeats: int, warm_up_s: float) -> dict[str, float]:
    for _ in range(3):  # compiles, and chooses kernels
        work()
    warm_up(work, warm_up_s)
    return percentiles(timed(work, repeats))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    from ddfd_trt.benchmark import parse_size

    parser = argparse.ArgumentParser(prog="gpu_others", description=__doc__)
    parser.add_argument("--checkpoint", help="for torch")
    parser.add_argument("--onnx", help="for ONNX Runtime, and for torch without --checkpoint")
    parser.add_argument("--size", type=parse_size, default=(640, 480), metavar="WIDTHxHEIGHT")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--warm-up-s", type=float, default=WARM_UP_S)
    got = parser.parse_args(arguments)
    size = (got.size[1], got.size[0])
    if got.checkpoint or got.onnx:
        for name, figures in torch_runs(
            got.checkpoint, got.onnx, size, got.repeats, got.warm_up_s
        ):
            print(json.dumps({name: figures}), flush=True)
    if got.onnx:
        for name, figures in onnx_runs(got.onnx, size, got.repeats, got.warm_up_s):
            print(json.dumps({name: figures}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
