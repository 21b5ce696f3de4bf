"""One network for any lens against networks for one lens each, at the same budget.

Every network starts from the same weights and sees the same number of crops: one of pictures
through lenses of all kinds, the others each through one of the test lenses. All are asked about
test scenes photographed through these lenses, which the first one never saw.

    python -m benchmarks.any_lens --data ../shared/data/nyuv2

Trainings go on where they were stopped; what is trained is not trained again. Results are written
after each lens.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.record import write_results
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_training.cli import train_stages
from ddfd_training.config import SourceConfig, TrainConfig, load_stages
from ddfd_training.lens_draws import lens_of
from ddfd_training.lens_scores.run import LENSES, label
from ddfd_training.lens_scores.shots import OPTIONS
from ddfd_training.lens_scores_cli import main as evaluate
from ddfd_training.lens_scores_cli import strength_and_focus
from ddfd_trt.cli import export_main

NAME = "any_lens"
STAGES = 2
"""So many of the recipe's stages are compared."""
RECIPE = "training/configs/ddfd-lite-any.yaml"
MEASURES = ("abs_rel", "rmse", "delta1", "coverage_68", "coverage_95")


def recipe(
    data: Path, lens: tuple[float, float] | None = None, share: float = 1.0
) -> list[TrainConfig]:
    """The stages for any lens, or for one (A in px per dioptre, focus in m): all else is equal.

    The one lens has the point-spread function of the evaluation, the others have any; its network
    looks once, since it learns by heart what lies on which side. ``share`` of the recipe's steps
    are trained.
    """
    stages = load_stages(RECIPE)[:STAGES]
    told = None if lens is None else lens_of(*lens).spread_as(OPTIONS.spread_per_diameter)
    name = "any-lens" if lens is None else f"one-lens-{lens[0]:g}-{lens[1]:g}"
    name += "" if share == 1 else f"-{share:g}"
    found: list[TrainConfig] = []
    for number, config in enumerate(stages):
        sources = tuple(_source(source, data, told) for source in config.data.sources)
        config = replace(
            config,
            name=f"{name}-{number + 1}" if lens or share != 1 else config.name,
            steps=max(round(share * config.steps), 1),
            data=replace(config.data, sources=sources),
            init=f"@{found[-1].name}" if found else config.init,
        )
        found.append(config if told is None else _for_one(config, told))
    return found


def _for_one(config: TrainConfig, told: LensConfig) -> TrainConfig:
    options = {**config.network.options, "second_look": False}
    return replace(config, lens=told, network=replace(config.network, options=options))


def _source(source: SourceConfig, data: Path, told: LensConfig | None) -> SourceConfig:
    if source.dataset == "nyuv2":
        source = replace(source, root=str(data))
    if told is None:
        return source
    a, focus_m = told.px_per_dioptre, told.focus_distance_m
    k, share = OPTIONS.sigma_per_diameter, OPTIONS.gaussian_share
    narrowed = replace(
        source.lenses,
        draws=1,
        px_per_dioptre=(a, a),
        focus_distance_m=(focus_m, focus_m),
        sigma_per_diameter=(k, k),
        gaussian_share=(share, share),
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
    data: Path,
    runs: Path,
    scenes: int,
    lenses: Sequence[tuple[float, float]],
    share: float = 1.0,
) -> Iterator[dict[str, Any]]:
    """Train and test one network for any lens, then one for each; a row for each lens."""

    def trained(lens: tuple[float, float] | None) -> Path:
        stages = recipe(data, lens, share)
        path = runs / stages[-1].name / f"{stages[-1].name}.pt"
        if not path.is_file():
            train_stages(stages, runs, {"accelerator": "cpu", "devices": 1})
        return path

    for_any = scores(trained(None), data, lenses, scenes)
    for lens in lenses:
        alone = scores(trained(lens), data, (lens,), scenes)
        name = label(lens_of(*lens))
        both = {
            kind: {key: entry[name]["overall"][key] for key in MEASURES}
            for kind, entry in (("any", for_any), ("alone", alone))
        }
        ratio = both["any"]["abs_rel"] / both["alone"]["abs_rel"]
        yield {"lens": name, **both, "rel_ratio": ratio}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="any_lens", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of NYUv2")
    parser.add_argument("--scenes", type=int, default=50, help="test scenes, evenly spaced")
    parser.add_argument(
        "--lens",
        type=strength_and_focus,
        action="append",
        metavar="A,FOCUS",
        help="px per dioptre and focus in metres; repeatable; by default five lenses",
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the recipe's steps")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, help="default: benchmarks/results")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    stages = recipe(arguments.data, share=arguments.share)
    settings = {
        "stages": [[c.steps, c.data.batch_size, c.data.crop_px] for c in stages],
        "start": Path(stages[0].init).name,
        "scenes": arguments.scenes,
    }
    rows: list[dict[str, Any]] = []
    for row in measure(
        arguments.data, arguments.runs, arguments.scenes, arguments.lens or LENSES, arguments.share
    ):
        rows.append(row)
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
