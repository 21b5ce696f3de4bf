"""The throughput benchmark's plot and table, with and without a second model's stage."""

from __future__ import annotations

import io

import cv2
import pytest
from rich.console import Console

from benchmarks.node_throughput import plot, show
from ddfd_demo.results import OPTIONAL_STAGES, STAGES


def run_of(name, stages):
    rows = [*stages, "messages", "stamp_to_recorder"]
    return {
        "model": f"{name}.onnx",
        "runtime": "onnxruntime",
        "width": 64,
        "height": 48,
        "sent_hz": 30.0,
        "answered_hz": 20.0,
        "latency_ms": {row: {"p50": 7.5, "p95": 9.5} for row in rows},
        "cpu_share": {"node": 1.0, "player": 0.1, "recorder": 0.1},
        "totals_ms": [40.0, 41.0, 45.0],
    }


ONE = run_of("one", [stage for stage in STAGES if stage not in OPTIONAL_STAGES])
TWO = run_of("two", STAGES)


@pytest.mark.parametrize(
    ("runs", "row"),
    [([ONE], None), ([TWO], ["7.5 / 9.5"]), ([ONE, TWO], ["-", "7.5 / 9.5"])],
)
def test_a_stage_is_shown_where_a_run_has_it(tmp_path, runs, row):
    plot(runs, tmp_path / "plot.png")
    assert cv2.imread(str(tmp_path / "plot.png")) is not None
    console = Console(width=120, record=True, file=io.StringIO())
    show(runs, console)
    lines = console.export_text().splitlines()
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in lines if "│" in line]
    found = {first: rest for first, *rest in cells}
    assert found.get("deblur") == row
    assert found["infer"] == ["7.5 / 9.5"] * len(runs)
