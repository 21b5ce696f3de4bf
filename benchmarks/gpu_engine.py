"""One engine, measured in a process of its own: start-up, latency with copies, memory, growth.

    python -m benchmarks.gpu_engine ENGINE --size 640x480 [--heads depth_m] [--growth-frames 10000]

Prints lines of JSON, each when it is known. ``engine_gpu_bytes`` is what the device's free memory
lost between an empty CUDA context and the end of the timing: weights, activations, buffers and
loaded kernels, without the context itself. On a Jetson, and wherever other processes allocate
meanwhile, theirs is in it too; the same holds for ``growth``, the difference between two readings
some frames apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_STARTED = time.perf_counter()  # before the runtime is imported
WARM_UP_S = 2.0
"""Clocks rise under load, and take their time."""
_SMI_LIMIT_S = 15.0


def resident_bytes() -> int:
    """Memory of this process that is in main memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")  # 64 KiB on some ARM systems


def percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99, mean and largest."""
    p50, p95, p99 = (float(np.percentile(times_ms, share)) for share in (50, 95, 99))
    return {
        "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
        "mean_ms": float(np.mean(times_ms)), "max_ms": float(max(times_ms)),
    }  # fmt: skip


def warm_up(work: Callable[[], Any], seconds: float) -> None:
    """Do the work again and again for so long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        work()


def timed(work: Callable[[], Any], repeats: int) -> list[float]:
    """Milliseconds that each of so many repetitions takes."""
    times_ms = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times_ms.append((time.perf_counter() - start) * 1e3)
    return times_ms


def clocks_under(work: Callable[[], Any]) -> str:
    """Clocks and power that nvidia-smi reads while the work goes on; empty where it fails."""
    command = [
        "nvidia-smi", "--format=csv,noheader",
        "--query-gpu=name,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu",
    ]  # fmt: skip
    try:
        query = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return ""
    end = time.perf_counter() + _SMI_LIMIT_S
    while query.poll() is None:
        work()
        if time.perf_counter() > end:
            query.kill()
    return query.communicate()[0].strip()


def measure(
    path: str,
    size: tuple[int, int],
    heads: Sequence[str] | None,
    repeats: int,
    growth_frames: int,
    warm_up_s: float = WARM_UP_S,
) -> Iterator[dict[str, Any]]:
    """Measure one engine file: its figures, then those of the growth.

    Args:
        path: Engine file.
        size: Height and width in pixels of the images.
        heads: Outputs asked for; None: all.
        repeats: Frames timed.
        growth_frames: Frames between the two readings of memory; 0: none.
        warm_up_s: How long frames run before the clock starts.
    """
    from ddfd_ros.core.metadata import golden_image
    from ddfd_ros.inference import open_backend
    from ddfd_ros.inference.base import ParityError
    from ddfd_ros.inference.cuda_session import CudaSession

    start = time.perf_counter()
    session = CudaSession()  # what is free now is free of this engine
    try:
        free_before = session.free_memory_bytes()[0]
        backend: Any = open_backend(path, "tensorrt")
        open_s = time.perf_counter() - start
        with backend:
            try:
                tested = {"self_test": backend.self_test()["mismatch"]}
            except ParityError as error:  # how fast it is, is known all the same
                tested = {"error": str(error)}
            image = golden_image(*size, seed=1)

            def work() -> None:
                backend.infer(image, heads)

            work()
            first_answer_s = time.perf_counter() - _STARTED
            backend.warm_up(*size, heads)
            warm_up(work, warm_up_s)
            begin = time.perf_counter()
            times_ms = timed(work, repeats)
            total_s = time.perf_counter() - begin
            clocks = clocks_under(work)
            yield {
                "device": backend.device,
                "heads": list(heads or backend.contract.outputs),
                "cuda_graph": backend.graph_problem or "captured",
                "open_s": open_s,
                "start_to_first_answer_s": first_answer_s,
                **percentiles(times_ms),
                "frames_per_s": repeats / total_s,
                "clocks_under_load": clocks,
                "activation_bytes": backend.device_memory_bytes,
                "engine_gpu_bytes": free_before - session.free_memory_bytes()[0],
                **tested,
            }
            if growth_frames:
                yield {"growth": _growth(backend, work, growth_frames)}
    finally:
        session.close()


def _growth(backend: Any, work: Callable[[], Any], frames: int) -> dict[str, int]:
    """Memory lost over so many frames."""
    before = (backend.free_memory_bytes()[0], resident_bytes())
    for _ in range(frames):
        work()
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
    parser.add_argument("--warm-up-s", type=float, default=WARM_UP_S)
    got = parser.parse_args(arguments)
    size = (got.size[1], got.size[0])
    for figures in measure(
        got.engine, size, got.heads, got.repeats, got.growth_frames, got.warm_up_s
    ):
        print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
