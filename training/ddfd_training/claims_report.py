"""``python -m ddfd_training.claims_report``: docs/claims.md and its plots, from result files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddfd_ros.core.errors import DdfdError
from ddfd_training.claims_check import (
    CONSTANT,
    FAILS,
    HOLDS,
    MISSING,
    OPEN,
    Finding,
    Results,
    growth,
    test_of,
)
from ddfd_training.claims_d3net import GROWTH_RANGE_M
from ddfd_training.claims_findings import all_findings, summary
from ddfd_training.claims_tables import LEAST_SHARE, ONE_DEPTH
from ddfd_training.uncertainty_plots import draw_calibration

LABELS = {"focus-sharp": "sharp", "focus-2m": "focus 2 m", "focus-4m": "focus 4 m",
          "focus-8m": "focus 8 m"}  # fmt: skip
MEAN_MISSING = (
    " Always answering the mean depth was not measured: no verdict below asks for more than that "
    "(`python -m ddfd_training.claims_run --only constant`)."
)
VERBS = {
    HOLDS: ("holds", "hold"),
    FAILS: ("fails", "fail"),
    OPEN: ("is undecided", "are undecided"),
    MISSING: ("was not run", "were not run"),
}
KINDS = {"monte_carlo": "Monte-Carlo dropout", "stated": "sigma_m, one pass"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ddfd_training.claims_report", description=__doc__
    )
    parser.add_argument("--results", default="benchmarks/results/claims", help="result files")
    parser.add_argument("--page", default="docs/claims.md", help="the page to write")
    arguments = parser.parse_args(argv)
    try:
        results = Results(arguments.results)
        if not results.all:
            raise FileNotFoundError(
                f"expected result files in {arguments.results}, got none; "
                "run python -m ddfd_training.claims_run first"
            )
        page = Path(arguments.page)
        plots = page.parent / "images"
        plots.mkdir(parents=True, exist_ok=True)
        figures = draw(results, plots)
        page.write_text(write_page(results, figures), encoding="utf-8")
    except (DdfdError, OSError) as error:
        print(f"claims_report: {error}", file=sys.stderr)
        return 2
    print(f"written: {page}")
    return 0


def write_page(results: Results, figures: dict[str, str]) -> str:
    """The page as markdown; ``figures`` maps a plot's name to its path from the page."""
    findings = all_findings(results)
    counts = ", ".join(
        f"{n} {VERBS[verdict][n > 1]}" for verdict, n in summary(findings).items() if n
    )
    parts = [
        "# The papers' claims, checked",
        "",
        "Made by `python -m ddfd_training.claims_report` from the files of "
        "`benchmarks/results/claims`, which `python -m ddfd_training.claims_run` leaves, one for "
        "each training. Do not edit: run the commands. The claims about depth without depth truth "
        "and about deblurring are checked in the same way on "
        "[self-supervised.md](self-supervised.md) and [deblurring.md](deblurring.md).",
        "",
        *_conditions(results),
        "",
        f'Of {len(findings)} claims: {counts}. "Holds" and "fails" mean that every pair of '
        "trainings with the same seed and the 95 % interval over test images agree; where there "
        "is no interval, the table says so, and at least two pairs of trainings agree. Else it "
        'is "undecided", and also where neither side beats always answering the mean depth of '
        "the training, in every training and in the interval. A claim that fails here fails "
        "under these conditions: small networks, short trainings, half-size images.",
        "",
        "| claim | verdict | judged by |",
        "|---|---|---|",
        *(f"| {f.title} | **{f.verdict}** | {f.basis} |" for f in findings),
        "",
    ]
    for number, finding in enumerate(findings, 1):
        parts += _section(number, finding)
    parts += ["## Plots", ""]
    for title, path in figures.items():
        parts += [f"![{title}]({path})", "", f"*{title}*", ""]
    return "\n".join(parts).rstrip() + "\n"


def _conditions(results: Results) -> list[str]:
    """How the networks were trained, read from the files."""
    trained = [result for result in results.all if "steps" in result]
    if not trained:
        return []
    steps = sorted({result["steps"] for result in trained})
    crop = sorted({result["crop_px"] for result in trained})
    crops = sorted({result["crops"] for result in trained})
    sizes = sorted({result["parameters"] for result in trained})
    minutes = sum(result["training_seconds"] for result in trained) / 60
    machines = sorted({str(result["machine"].get("cpu", "unknown")) for result in trained})
    return [
        f"{len(trained)} trainings of `{trained[0]['network']}` made narrow "
        f"({sizes[0]:,} to {sizes[-1]:,} parameters), each {_span(steps)} steps, "
        f"{_span(crops)} crops of {_span(crop)} px from half-size images, on one thread of "
        f"{', '.join(machines)}; {minutes:.0f} minutes of wall clock in all, beside other work. "
        "Both sides of a claim have the same network, steps and crops, and start from random "
        "weights. Depth errors are means over test images, in metres, nothing scaled to the "
        "truth, truth clipped to 0.5-10 m. NYUv2 is rendered with as many pixels of blur as "
        "D3-Net's camera gives at the full size. The recipes are in `training/claims.yaml`.",
        "",
        "Mean answers: the least and the largest mean answer among half-metre bins of true depth "
        f"with {100 * LEAST_SHARE:.0f} % of the pixels or more (middle plus bias, so good to some "
        f"0.1 m). Where they span less than {100 * ONE_DEPTH:.0f} % of these depths, the network "
        "answers (nearly) one depth everywhere." + ("" if results.of(CONSTANT) else MEAN_MISSING),
    ]


def _span(values: Sequence[int]) -> str:
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"


def _section(number: int, finding: Finding) -> list[str]:
    lines = [f"## {number}. {finding.title}: {finding.verdict}", "", f"Source: {finding.source}."]
    if finding.verdict != MISSING:
        lines[-1] += f" Judged by: {finding.basis}."
    lines += ["", finding.text, ""]
    if finding.rows:
        lines += ["| " + " | ".join(finding.head) + " |", "|" + "---|" * len(finding.head)]
        lines += ["| " + " | ".join(row) + " |" for row in finding.rows]
        lines.append("")
    return lines


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Draw what there are results for; title -> path from the page."""
    import matplotlib as mpl

    mpl.use("Agg")
    figures = {}
    for name, title, make in (
        ("claims_depth.png", "Rms error over depth, and the pixels of the test set", _draw_depth),
        (
            "claims_uncertainty.png",
            "Both deviations on the same frames: coverage, calibration, sparsification",
            _draw_uncertainty,
        ),
    ):
        if make(results, folder / name):
            figures[title] = f"{folder.name}/{name}"
    return figures


def _draw_depth(results: Results, path: Path) -> bool:
    """Figure 7 of D3-Net with our figures."""
    from matplotlib import pyplot as plt

    arms = [arm for arm in LABELS if results.of(arm)]
    if not arms:
        return False
    figure, axis = plt.subplots(figsize=(7, 4))
    for arm in arms:
        found = growth(results.of(arm), 0.5, 9.5)
        axis.plot(found.depths_m, found.rmse_m, marker=".", label=LABELS[arm])
    if "focus-8m" in arms:
        fit = growth(results.of("focus-8m"), *GROWTH_RANGE_M)
        depths = np.array(fit.depths_m)
        scale = float(np.sum(np.array(fit.rmse_m) * depths**2) / np.sum(depths**4))
        axis.plot(depths, scale * depths**2, "k:", label="proportional to depth squared")
    bins = test_of(results.of(arms[0])[0])["depth_bins"]
    shares = axis.twinx()
    total = sum(row["pixels"] for row in bins)
    shares.bar(
        [row["from_m"] + 0.25 for row in bins], [100 * row["pixels"] / total for row in bins],
        width=0.45, alpha=0.15, color="black",
    )  # fmt: skip
    shares.set_ylabel("test pixels [%]")
    axis.set_xlabel("true depth [m]")
    axis.set_ylabel("rms error [m]")
    axis.set_ylim(bottom=0)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _draw_uncertainty(results: Results, path: Path) -> bool:
    """Coverage, calibration and sparsification of the first seed of each arm in the study."""
    curves = {}
    for arm in ("focus-sharp", "focus-2m", "focus-8m"):
        found = results.of(arm)
        study = test_of(found[0]).get("uncertainty", {}) if found else {}
        for kind, label in KINDS.items():
            if study.get(kind):
                curves[f"{LABELS[arm]}, {label}"] = study[kind]["curves"]
    if not curves:
        return False
    draw_calibration(curves, path)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
