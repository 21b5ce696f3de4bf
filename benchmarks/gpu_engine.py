"""One engine, measured in a process of its own: start-up, latency with copies, memory, growth.

    python -m benchmarks.gpu_engine ENGINE --size 640x480 [--heads depth_m] [--growth-frames 10000]

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_STARTED = time.perf_counter()  # before the runtime is imported


def resident_bytes() -> int:
    """Memory of this process that is in main memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99, mean and largest."""
    p50, p95, p99 = (float(np.percentile(times_ms, share)) for share in (50, 95, 99))
    return {
        "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
        "mean_ms": float(np.mean(times_ms)), "max_ms": float(max(times_ms)),
    }  # fmt: skip


def measure(
    path: str,
    size: tuple[int, int],
    heads: Sequence[str] | None,
    repeats: int,
    growth_frames: int,
) -> dict[str, Any]:
    """Measure one engine file.

    Args:
        path: Engine file.
        size: Height and width in pixels of the images.
        heads: Outputs asked for; None: all.
        repeats: Frames timed.
        growth_frames: Frames between the two readings of memory; 0: none.
    """
    from ddfd_ros.core.metadata import golden_image
    from ddfd_ros.inference import open_backend

    start = time.perf_counter()
    backend: Any = open_backend(path, "tensorrt")
    open_s = time.perf_counter() - start
    with backend:
        self_test = backend.self_test()
        image = golden_image(*size, seed=1)
        backend.infer(image, heads)
        first_answer_s = time.perf_counter() - _STARTED
        backend.warm_up(*size, heads)
        times_ms = []
        begin = time.perf_counter()
        for _ in range(repeats):
            start = time.perf_counter()
            backend.infer(image, heads)
            times_ms.append((time.perf_counter() - start) * 1e3)
        total_s = time.perf_counter() - begin
        free, total = backend.free_memory_bytes()
        result = {
            "device": backend.device,
            "heads": list(heads or backend.contract.outputs),
            "cuda_graph": backend.graph_problem or "captured",
            "open_s": open_s,
            "start_to_first_answer_s": first_answer_s,
            **percentiles(times_ms),
            "frames_per_s": repeats / total_s,
            "activation_bytes": backend.device_memory_bytes,
            "gpu_used_bytes": total - free,
            "self_test": self_test["mismatch"],
        }
        if growth_frames:
            result["growth"] = _growth(backend, image, heads, growth_frames)
    return result


def _growth(backend: Any, image: np.ndarray, heads: Any, frames: int) -> dict[str, int]:
    """Memory before and after so many frames."""
    before = (backend.free_memory_bytes()[0], resident_bytes())
    for _ in range(frames):
        backend.infer(image, heads)
    after = (backend.free_memory_bytes()[0], resident_bytes())
    return {
        "frames": frames,
        "gpu_bytes": before[0] - after[0],
        "resident_bytes": after[1] - before[1],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    from ddfd_trt.benchmark import parse_size

    parser = argparse.ArgumentParser(prog="gpu_engine", description=__doc__)
    parser.add_argument("engine")
    parser.add_argument("--size", type=parse_size, default=(640, 480), metavar="WIDTHxHEIGHT")
    parser.add_argument("--heads", nargs="+")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--growth-frames", type=int, default=0)
    got = parser.parse_args(arguments)
    width, height = got.size
    print(
        json.dumps(measure(got.engine, (height, width), got.heads, got.repeats, got.growth_frames))
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
