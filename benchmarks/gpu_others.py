"""The same network on other runtimes of the GPU, and the machine's rates: what to compare with.

    python -m benchmarks.gpu_others --checkpoint M.pt --onnx M.onnx --size 640x480

Prints one line of JSON. What is not installed is named with the reason instead of a figure.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.gpu_engine import percentiles

_MATRIX_SIDE = 8192


def torch_runs(checkpoint: str, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Torch in single precision, eager and compiled, with the copies to and from the device."""
    try:
        import torch
    except ImportError as error:
        return {"torch": str(error)}
    from ddfd_ros.model.byte_graph import ByteGraph
    from ddfd_ros.model.checkpoint import load_checkpoint

    if not torch.cuda.is_available():
        return {"torch": f"torch {torch.__version__} sees no CUDA device"}
    network, contract = load_checkpoint(checkpoint)
    graph = ByteGraph(network.to("cuda"), contract.outputs).to("cuda")
    image = torch.from_numpy(np.zeros((*size, 3), np.uint8)).pin_memory()
    results: dict[str, Any] = {}
    with torch.inference_mode():
        for name, run in (("torch eager fp32", graph), ("torch compiled fp32", None)):
            try:
                called = run or torch.compile(graph)
                results[name] = _timed(lambda c=called: _answer(c, image), repeats)
            except RuntimeError as error:
                results[name] = str(error).splitlines()[0]
        results["matrix_operations_per_s"] = _matrix_rate(torch)
        results["bytes_per_s"] = _bandwidth(torch)
    return results


def _answer(graph: Any, image: Any) -> list[np.ndarray]:
    return [value.cpu().numpy() for value in graph(image.to("cuda", non_blocking=True))]


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


def onnx_runtime(path: str, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """ONNX Runtime's CUDA provider, where it is installed."""
    from ddfd_ros.core.errors import DdfdError
    from ddfd_ros.core.metadata import golden_image
    from ddfd_ros.inference import open_backend

    image = golden_image(*size, seed=1)
    try:
        with open_backend(path, "onnxruntime", device="cuda") as backend:
            return {"onnxruntime cuda": _timed(lambda: backend.infer(image), repeats)}
    except DdfdError as error:
        return {"onnxruntime cuda": str(error)}


def _timed(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    for _ in range(10):
        work()
    times_ms = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times_ms.append((time.perf_counter() - start) * 1e3)
    return percentiles(times_ms)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    from ddfd_trt.benchmark import parse_size

    parser = argparse.ArgumentParser(prog="gpu_others", description=__doc__)
    parser.add_argument("--checkpoint", help="for torch")
    parser.add_argument("--onnx", help="for ONNX Runtime")
    parser.add_argument("--size", type=parse_size, default=(640, 480), metavar="WIDTHxHEIGHT")
    parser.add_argument("--repeats", type=int, default=200)
    got = parser.parse_args(arguments)
    size = (got.size[1], got.size[0])
    results: dict[str, Any] = {}
    if got.checkpoint:
        results |= torch_runs(got.checkpoint, size, got.repeats)
    if got.onnx:
        results |= onnx_runtime(got.onnx, size, got.repeats)
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
