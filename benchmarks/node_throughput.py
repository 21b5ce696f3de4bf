"""Frames per second and latency of the node, measured from outside with real messages.

A player process sends a camera's stream over DDS, a recorder process subscribes to every topic of
the node. The split into stages is the node's own (topic ``latency``), from subscription to
publication; the share of the processors is the kernel's count for the process.

    python -m benchmarks.node_throughput --model models/ddfd-lite-nyu-8m.onnx --rate 30
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.record import RESULTS, write_results
from ddfd_demo.chain import ChainRecord, run_chain
from ddfd_demo.commands import ChainOptions
from ddfd_demo.models import choose_model, model_contract
from ddfd_demo.results import MESSAGE_STAGES, STAGES, join, keep_books, latency_table
from ddfd_demo.sources.base import DemoFrame, Intrinsics
from ddfd_demo.spool import Spool

NAME = "node_throughput"
WARM_S = 2.0
"""Answers to frames of the first seconds do not count."""
_FRAMES = 8
_ROWS = {stage: stage for stage in STAGES} | {
    "total": "subscription to publication",
    "messages": f"of it {' + '.join(MESSAGE_STAGES)}",
    "stamp_to_recorder": "camera stamp to last topic received",
}
_COLOURS = {
    "queue": "#b0b7c3",
    "decode": "#4c9be8",
    "pad": "#9bd1ff",
    "infer": "#f2a541",
    "deblur": "#e4572e",
    "postprocess": "#c77dff",
    "encode": "#3aa76d",
    "publish": "#8fd694",
}


def measure(
    model: Path, runtime: str, options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Play ``options.seconds`` of a stream through the node and return the figures."""
    contract = model_contract(model)
    parameters = {"threads": str(options.threads)} if options.threads else {}
    parameters |= {
        "warm_up_height": str(options.height),
        "warm_up_width": str(options.width),
    }
    chain = ChainOptions(
        model,
        contract.outputs,
        runtime,
        rate_hz=options.rate,
        constant_rate=True,
        total=max(2, round(options.rate * (options.seconds + WARM_S))),
        keep_images=False,
        parameters=parameters,
    )
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as bar:
        spool = Spool(Path(folder) / "frames")
        for frame in camera_frames(options.height, options.width):
            spool.add(frame)
        task = bar.add_task(f"{model.stem}, {runtime}", total=chain.total)
        record = run_chain(
            spool.folder,
            chain,
            Path(folder) / "logs",
            lambda sent, answered: bar.update(task, completed=sent),
        )
        return figures(record, spool, chain, options)


def figures(
    record: ChainRecord, spool: Spool, chain: ChainOptions, options: argparse.Namespace
) -> dict[str, Any]:
    """What a run showed, after the warm-up."""
    answers = join(record, spool.frames())
    first_ns = min(record.sent) + round(WARM_S * 1e9)
    late = [a for a in answers if a.stamp_ns >= first_ns]
    table = latency_table(late)
    answered = [a for a in late if a.answered]
    ends = sorted(
        max(line["received_ns"] for name, line in a.topics.items() if not name.endswith("_info"))
        for a in answered
    )
    span_s = (ends[-1] - ends[0]) / 1e9 if len(ends) > 1 else 0.0
    return {
        "model": chain.model.name,
        "runtime": record.counters.get("runtime", chain.runtime),
        "device": record.counters.get("device", ""),
        "width": options.width,
        "height": options.height,
        "sent_hz": options.rate,
        "answered_hz": (len(ends) - 1) / span_s if span_s else 0.0,
        "frames": asdict(keep_books(record, answers)),
        "latency_ms": {stage: {"p50": a, "p95": b} for stage, (a, b) in table.items()},
        "message_cost_ms": dict(zip(("p50", "p95"), table["messages"], strict=True)),
        "cpu_share": {name: used / record.wall_s for name, used in record.cpu_s.items()},
        "start_s": record.start_s,
        "totals_ms": [round(a.stages_ms.get("total", float("nan")), 2) for a in answered],
    }


def camera_frames(height: int, width: int) -> list[DemoFrame]:
    """Some frames of the rendered room, so that the stream's content changes."""
    from ddfd_training.synthetic import SyntheticScene

    scene = SyntheticScene(3)
    intrinsics = Intrinsics.assumed(height, width)
    pictures = (scene.render(0.2 * i, height, width)[0] for i in range(_FRAMES))
    return [DemoFrame(f"frame {i}", rgb, intrinsics) for i, rgb in enumerate(pictures)]


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Stages of the median frame as stacked bars, and the spread of the totals."""
    figure = Figure(figsize=(11, 1.6 + 0.75 * len(runs)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    labels = [f"{Path(r['model']).stem}\n{r['runtime']}" for r in runs]
    rows = np.arange(len(runs))
    start = np.zeros(len(runs))
    for stage in _present(STAGES[:-1], runs):
        latencies = [r["latency_ms"].get(stage, {"p50": 0.0}) for r in runs]
        values = np.array([latency["p50"] for latency in latencies], float)
        left.barh(rows, values, 0.55, left=start, label=stage, color=_COLOURS[stage])
        start += np.nan_to_num(values)
    for row, run in enumerate(runs):
        text = f" {run['answered_hz']:.1f} Hz of {run['sent_hz']:g}"
        left.text(start[row], row, text, va="center", fontsize=9)
    left.set_xlim(0, max(start.max() * 1.3, 1))
    left.set_yticks(rows, labels, fontsize=9)
    left.invert_yaxis()
    left.set_xlabel("median per stage, subscription to publication (ms)")
    left.legend(ncols=4, fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    right.boxplot([r["totals_ms"] for r in runs], orientation="horizontal", whis=(5, 95))
    right.set_yticks(rows + 1, [""] * len(runs))
    right.invert_yaxis()
    right.set_xlabel("total (ms): median, quartiles, 5 to 95 percent")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.3)
    FigureCanvasAgg(figure).print_png(str(path))


def show(runs: list[dict[str, Any]], console: Console) -> None:
    """Print the runs as a table, one column each."""
    first = runs[0]
    size = f"{first['width']}x{first['height']}"
    table = Table(title=f"node, {size}, sent at {first['sent_hz']:g} Hz", title_justify="left")
    table.add_column("p50 / p95 in ms")
    for run in runs:
        table.add_column(f"{Path(run['model']).stem}\n{run['runtime']}", justify="right")
    for stage in _present(_ROWS, runs):
        if stage == "total":
            table.add_section()
        cells = (run["latency_ms"].get(stage) for run in runs)
        shown = (f"{cell['p50']:.1f} / {cell['p95']:.1f}" if cell else "-" for cell in cells)
        table.add_row(_ROWS[stage], *shown)
    table.add_section()
    table.add_row("answered per second", *(f"{run['answered_hz']:.1f}" for run in runs))
    for name in ("node", "player", "recorder"):
        shares = (100 * run["cpu_share"][name] for run in runs)
        table.add_row(f"CPU of the {name} (100 %: one core)", *(f"{s:.0f} %" for s in shares))
    console.print(table)


def _present(stages: Iterable[str], runs: list[dict[str, Any]]) -> list[str]:
    """Those of ``stages`` that a run has: one that is optional may be in none of them."""
    return [stage for stage in stages if any(stage in run["latency_ms"] for run in runs)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every model with every runtime asked for."""
    parser = argparse.ArgumentParser(prog="node_throughput", description=__doc__)
    add = parser.add_argument
    add("--model", nargs="+", default=["ddfd-lite-nyu-8m"], help="files or names of shipped ones")
    add("--runtime", nargs="+", default=["auto"])
    add("--rate", type=float, default=30.0, help="frames per second sent")
    add("--seconds", type=float, default=15.0, help="measured, after the warm-up")
    add("--width", type=int, default=640)
    add("--height", type=int, default=480)
    add("--threads", type=int, default=0, help="of the runtime; 0: its own choice")
    add("--out", type=Path, default=RESULTS, help="folder for JSON and plot")
    options = parser.parse_args(arguments)
    console = Console()
    runs = [
        measure(choose_model(model, ""), runtime, options, console)
        for model in options.model
        for runtime in options.runtime
    ]
    path = write_results(NAME, {"runs": runs}, options.out)
    plot(runs, path.with_suffix(".png"))
    show(runs, console)
    console.print(f"written: {path}, {path.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
