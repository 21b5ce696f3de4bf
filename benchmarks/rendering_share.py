"""What blurring the training pictures costs beside the optimisation step they are for.

A training either reads pictures that were rendered once (the cache) or renders each crop anew.
Both are timed as processor time on one thread, so that other work on the machine does not count,
and given as a share of loading plus step. On a GPU, time is that of the clock.

    python -m benchmarks.rendering_share [--network ddfd-lite] [--data ../shared/data/nyuv2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.record import RESULTS, write_results
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig
from ddfd_ros.model import build_network
from ddfd_ros.model.networks import default_options
from ddfd_training.config import DataConfig
from ddfd_training.crops import CropDataset
from ddfd_training.datasets.nyuv2 import Nyuv2
from ddfd_training.datasets.sample import RgbdSample
from ddfd_training.datasets.synthetic_scenes import SyntheticScenes
from ddfd_training.defocus_cache import RenderSettings, render_sample
from ddfd_training.image_set import ImageSet
from ddfd_training.losses import NAMED_LOSSES
from ddfd_training.optics import render_defocus

NAME = "rendering_share"
PRESETS = ("ddfd", "syndof", "quick", "soft")
LOSSES = {"ddfd-lite": "ddfd", "d3net": "d3net", "2hded": "icip2022"}
_MARGIN_PX = 16  # of scene around a crop, from which blur comes in

Batch = dict[str, torch.Tensor]


def seconds(work: Callable[[], Any], repeats: int, device: str) -> float:
    """Median time of ``work`` after one call that is not counted."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for _ in range(repeats + 1):
        start = clock()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return statistics.median(times[1:])


def scenes(root: Path, count: int) -> tuple[str, list[RgbdSample]]:
    """NYUv2 frames if they are there, else rooms that need no data; and which."""
    if (root / "train.txt").is_file():
        dataset = Nyuv2(root, "train")
        picked = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
        return "nyuv2", [dataset[i] for i in picked]
    rooms = SyntheticScenes(count)
    return "synthetic", [rooms[i] for i in range(count)]


def in_memory(samples: Sequence[RgbdSample], lens: LensConfig) -> tuple[ImageSet, float]:
    """The samples as the cache holds them, and the seconds that rendering one took."""
    start = time.process_time()
    blurred = [render_sample(sample, RenderSettings(lens)) for sample in samples]
    cost_s = (time.process_time() - start) / len(samples)
    depth_m = np.stack([sample.depth_m for sample in samples])
    sharp = [sample.sharp_rgb for sample in samples if sample.sharp_rgb is not None]
    images = ImageSet(
        np.stack(blurred),
        np.stack(sharp),
        depth_m,
        np.ones(depth_m.shape, dtype=bool),
        tuple(range(len(samples))),
    )
    return images, cost_s


def loader(images: ImageSet, config: DataConfig) -> Callable[[], Batch]:
    """A function that makes the next batch of cached crops."""
    crops = CropDataset([images], config, 0, 0, 10**6)
    state = {"next": 0}

    def load() -> Batch:
        first = state["next"]
        state["next"] += config.batch_size
        items = [crops[i] for i in range(first, first + config.batch_size)]
        return {key: torch.stack([item[key] for item in items]) for key in items[0]}

    return load


def optimisation(network: str, lens: LensConfig, batch: Batch, device: str) -> Callable[[], None]:
    """A function that makes one step of the network's own loss, as recipes do."""
    options: dict[str, Any] = {"lens": lens, "depth_range_m": (0.5, 10.0)}
    known = default_options(network)
    model = build_network(network, **{k: v for k, v in options.items() if k in known})
    model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loss = NAMED_LOSSES[LOSSES[network]]
    batch = {key: value.to(device) for key, value in batch.items()}
    image = batch["image"].contiguous(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            outputs = model(image)
        loss({k: v.float() for k, v in outputs.items()}, batch)["total"].backward()
        optimizer.step()

    return step


def rendering(batch: Batch, lens: LensConfig, preset: str, device: str) -> Callable[[], None]:
    """A function that blurs the batch's crops, with the margin that blur comes in from."""
    margin = (_MARGIN_PX,) * 4
    rgb = torch.nn.functional.pad(batch["sharp_rgb"], margin, mode="reflect").to(device)
    depth_m = torch.nn.functional.pad(batch["depth_m"], margin, mode="reflect").to(device)

    def render() -> None:
        with torch.no_grad():
            render_defocus(rgb, depth_m, lens, options=preset)

    return render


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures, as JSON values."""
    lens = LENS_PRESETS[options.lens]
    data, samples = scenes(options.data, options.scenes)
    images, image_s = in_memory(samples, lens)
    load = loader(images, DataConfig(crop_px=options.crop, batch_size=options.batch))
    batch = load()
    load_s = seconds(load, options.repeats, "cpu")
    step_s = seconds(
        optimisation(options.network, lens, batch, options.device), options.repeats, options.device
    )
    render_s = {
        preset: seconds(
            rendering(batch, lens, preset, options.device), options.repeats, options.device
        )
        for preset in PRESETS
    }
    return {
        "network": options.network,
        "lens": options.lens,
        "scenes": data,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "crop_px": options.crop,
        "batch_size": options.batch,
        "time": "processor" if options.device == "cpu" else "clock",
        "step_s": step_s,
        "cached_load_s": load_s,
        "cached_share": load_s / (load_s + step_s),
        "render_batch_s": render_s,
        "on_the_fly_share": {
            name: value / (value + load_s + step_s) for name, value in render_s.items()
        },
        "image_px": list(images.depth_m.shape[1:]),
        "render_image_s": image_s,
        "render_795_images_s": 795 * image_s,
        "share_of_16000_steps": 795 * image_s / (795 * image_s + 16000 * (load_s + step_s)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Time everything, write JSON, print a table."""
    parser = argparse.ArgumentParser(prog=NAME, description=__doc__)
    parser.add_argument("--network", choices=tuple(LOSSES), default="ddfd-lite")
    parser.add_argument("--lens", choices=tuple(LENS_PRESETS), default="nyu-8m")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/nyuv2"))
    parser.add_argument("--scenes", type=int, default=6, help="pictures the crops come from")
    parser.add_argument("--crop", type=int, default=192, help="side of the crops in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = measure(options)
    console = Console()
    table = Table(
        title=f"{options.network}, {options.batch} crops of {options.crop} px, "
        f"{options.device}, one thread: share of a training step",
        title_justify="left",
    )
    for head in ("pictures from", "seconds", "share [%]"):
        table.add_column(head, justify="left" if head == "pictures from" else "right")
    table.add_row("(the step itself)", f"{figures['step_s']:.3f}", "")
    load_s, share = figures["cached_load_s"], figures["cached_share"]
    table.add_row("the cache", f"{load_s:.4f}", f"{100 * share:.1f}")
    for name, value in figures["render_batch_s"].items():
        part = figures["on_the_fly_share"][name]
        table.add_row(f"the renderer, {name}", f"{value:.3f}", f"{100 * part:.1f}")
    console.print(table)
    console.print(
        f"filling the cache: {figures['render_image_s']:.2f} s an image, once; of a training of "
        f"16000 steps on 795 images {100 * figures['share_of_16000_steps']:.1f} %"
    )
    suffix = "" if options.device == "cpu" else f"_{options.device}"
    console.print(f"written: {write_results(NAME + suffix, figures, options.out)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
