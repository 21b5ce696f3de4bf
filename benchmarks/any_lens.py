"""One network for any lens against networks for one lens each, at the same budget.

Every network starts from the same weights and sees the same number of crops: one of pictures
through lenses of all kinds, the others each through one of the test lenses. All are asked about
test scenes photographed through these lenses, which the first one never saw.

    python -m benchmarks.any_lens --data ../shared/data/nyuv2 --steps 3000

Trainings go on where they were stopped; what is trained is not trained again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.record import write_results
from ddfd_training.cli import train
from ddfd_training.config import SourceConfig, TrainConfig, load_stages
from ddfd_training.lens_draws import lens_of
from ddfd_training.lens_scores.run import LENSES, label
from ddfd_training.lens_scores_cli import main as evaluate
from ddfd_trt.cli import export_main

NAME = "any_lens"
RECIPE = "training/configs/ddfd-lite-any.yaml"
MEASURES = ("abs_rel", "rmse", "delta1", "coverage_68", "coverage_95")


def recipe(steps: int, data: Path, lens: tuple[float, float] | None = None) -> TrainConfig:
    """The training for any lens, or for one (A in px per dioptre, focus in m): all else is equal.

    A network for one lens is trained without the all-in-focus head, which depth does not need.
    """
    config = load_stages(RECIPE)[0]
    sources = tuple(_source(source, data, lens) for source in config.data.sources)
    config = replace(config, steps=steps, data=replace(config.data, sources=sources))
    if lens is None:
        return replace(config, name=f"any-lens-{steps}")
    options = {**config.network.options, "heads": "depth"}
    return replace(
        config,
        name=f"one-lens-{lens[0]:g}-{lens[1]:g}-{steps}",
        lens=lens_of(*lens),
        network=replace(config.network, options=options),
    )


def _source(source: SourceConfig, data: Path, lens: tuple[float, float] | None) -> SourceConfig:
    if source.dataset == "nyuv2":
        source = replace(source, root=str(data))
    if lens is None:
        return source
    a, focus_m = lens
    narrowed = replace(
        source.lenses, draws=1, px_per_dioptre=(a, a), focus_distance_m=(focus_m, focus_m)
    )
    return replace(source, lenses=narrowed)


def scores(weights: Path, data: Path, lenses: Sequence[tuple[float, float]], scenes: int) -> Any:
    """Export the weights and measure them; the entry ``lenses`` of the report.

    Raises:
        RuntimeError: Export or evaluation failed; it has said why.
    """
    model, report = weights.with_suffix(".onnx"), weights.with_suffix(".lenses.json")
    words = [str(model), "--data", "nyuv2", "--root", str(data), "--split", "test"]
    words += ["--limit", str(scenes), "--part", "lenses", "--runtime", "onnxruntime"]
    words += ["--threads", "1", "--json", str(report)]
    for a, focus_m in lenses:
        words += ["--lens", f"{a},{focus_m}"]
    if export_main([str(weights), str(model)]) or evaluate(words):
        raise RuntimeError(f"{weights}: expected export and evaluation to succeed; see above")
    return json.loads(report.read_text(encoding="utf-8"))["lenses"]


def measure(
    steps: int, data: Path, runs: Path, scenes: int, lenses: Sequence[tuple[float, float]]
) -> list[dict[str, Any]]:
    """Train and test one network for any lens and one for each; a row for each lens."""
    jobs = {None: recipe(steps, data), **{lens: recipe(steps, data, lens) for lens in lenses}}
    found: dict[Any, Any] = {}
    for lens, config in jobs.items():
        weights = runs / config.name / f"{config.name}.pt"
        if not weights.is_file():
            train(config, runs, {"accelerator": "cpu", "devices": 1})
        found[lens] = scores(weights, data, lenses if lens is None else (lens,), scenes)
    rows = []
    for lens in lenses:
        name = label(lens_of(*lens))
        any_lens, alone = (
            {key: entry[name]["overall"][key] for key in MEASURES}
            for entry in (found[None], found[lens])
        )
        ratio = any_lens["abs_rel"] / alone["abs_rel"]
        rows.append({"lens": name, "any": any_lens, "alone": alone, "rel_ratio": ratio})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="any_lens", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of NYUv2")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--scenes", type=int, default=50, help="test scenes, evenly spaced")
    parser.add_argument("--first", type=int, default=len(LENSES), help="so many of the lenses")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, help="default: benchmarks/results")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    lenses = LENSES[: arguments.first]
    rows = measure(arguments.steps, arguments.data, arguments.runs, arguments.scenes, lenses)
    base = recipe(arguments.steps, arguments.data)
    settings = {
        "steps": arguments.steps,
        "batch_size": base.data.batch_size,
        "crop_px": base.data.crop_px,
        "start": Path(base.init).name,
        "scenes": arguments.scenes,
    }
    path = write_results(NAME, {"settings": settings, "lenses": rows}, arguments.out)
    table = Table(title="rel: one network for any lens, and one for each lens")
    for heading in ("lens", "any", "alone", "any / alone", "any: 68 %", "any: 95 %"):
        table.add_column(heading)
    for row in rows:
        own = row["any"]
        table.add_row(
            row["lens"], f"{own['abs_rel']:.3f}", f"{row['alone']['abs_rel']:.3f}",
            f"{row['rel_ratio']:.2f}", f"{own['coverage_68']:.1%}", f"{own['coverage_95']:.1%}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(f"written: {path}", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
