"""What the re-blur layer costs: time and memory, forward and backward, beside a network's step.

Every pixel has a point-spread function of its own; the kernel is 25 px wide. For comparison, the
same batch through 2HDED:NET, forward and backward.

    python -m benchmarks.reblur_cost [--device cuda] [--no-network]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.record import RESULTS, write_results
from ddfd_ros.model import build_network
from ddfd_training.reblur import SPREADS, reblur_with_map

NAME = "reblur_cost"
BATCH, SIDE, WINDOW_PX = 4, 256, 25


def measure(
    work: Callable[[], torch.Tensor], device: torch.device, repeats: int
) -> dict[str, float]:
    """Medians of forward and backward in seconds, and the memory both add, in MiB."""
    work().sum().backward()  # tables and allocators
    forward, backward = [], []
    before = _memory_mib(device)
    for _ in range(repeats):
        start = _now(device)
        out = work()
        middle = _now(device)
        out.sum().backward()
        end = _now(device)
        forward.append(middle - start)
        backward.append(end - middle)
    return {
        "forward_s": sorted(forward)[repeats // 2],
        "backward_s": sorted(backward)[repeats // 2],
        "peak_memory_mib": _memory_mib(device),
        "memory_before_mib": before,
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _memory_mib(device: torch.device) -> float:
    """The most memory so far: of the GPU's tensors, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def layer_rows(device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """One row for each way to spread and largest blur."""
    torch.manual_seed(0)
    image = torch.rand(BATCH, 3, SIDE, SIDE, device=device)
    rows = []
    for largest_px in (7.0, float(WINDOW_PX)):
        ramp = torch.linspace(0.5, largest_px, SIDE, device=device).view(1, 1, 1, SIDE)
        blur = ramp.repeat(BATCH, 1, SIDE, 1).requires_grad_()
        for spread in SPREADS:

            def work(spread: str = spread, blur: torch.Tensor = blur) -> torch.Tensor:
                return reblur_with_map(image, blur, spread=spread, window_px=WINDOW_PX)

            found = measure(work, device, repeats)
            rows.append({"layer": spread, "largest_blur_px": largest_px, **found})
    return rows


def network_row(device: torch.device, repeats: int) -> dict[str, Any]:
    """The network whose map the layer blurs with."""
    network = build_network("2hded-selfsup").to(device)
    image = torch.rand(BATCH, 3, SIDE, SIDE, device=device)

    def work() -> torch.Tensor:
        outputs = network(image)
        return outputs["defocus_px"].mean() + outputs["sharp_rgb"].mean()

    return {"layer": "2hded-selfsup", "largest_blur_px": None, **measure(work, device, repeats)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")
    parser.add_argument("--no-network", action="store_true", help="only the layer")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    rows = layer_rows(device, options.repeats)
    if not options.no_network:
        rows.append(network_row(device, options.repeats))
    figures = {
        "batch": BATCH, "side_px": SIDE, "window_px": WINDOW_PX, "threads": options.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "rows": rows,
    }  # fmt: skip
    # Kernels multiplied out: for each of three channels k * k values, before any gradient.
    multiplied = BATCH * 3 * WINDOW_PX**2 * SIDE**2 * 4 / 2**20
    table = Table(title=f"batch {BATCH}, {SIDE}x{SIDE}, kernel {WINDOW_PX} px")
    for head in ("layer", "largest blur", "forward [s]", "backward [s]", "memory so far [MiB]"):
        table.add_column(head, justify="right")
    for row in rows:
        blur = "-" if row["largest_blur_px"] is None else f"{row['largest_blur_px']:.0f} px"
        times = (f"{row[key]:.3f}" for key in ("forward_s", "backward_s"))
        table.add_row(row["layer"], blur, *times, f"{row['peak_memory_mib']:.0f}")
    console = Console()
    console.print(table)
    console.print(f"kernels multiplied out would take {multiplied:.0f} MiB, forward alone")
    figures["multiplied_out_mib"] = multiplied
    name = NAME if device.type == "cpu" else f"{NAME}_gpu"
    console.print(f"written: {write_results(name, figures, options.out)}", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
