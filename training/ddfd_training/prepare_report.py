"""The registration errors of a prepared recording: per view and overall, as JSON and a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ddfd_training.datasets.rgbd_folder import too_far_note
from ddfd_training.prepare import PrepareOptions, ViewReport

SHOWN = 40


def summarise(reports: Sequence[ViewReport], options: PrepareOptions) -> dict[str, Any]:
    """Numbers of views, and median, 95th percentile and maximum of the errors in pixels."""
    refused = {one.name: one.problem for one in reports if one.problem}
    summary: dict[str, Any] = {"views": len(reports), "beyond_limits": len(refused)}
    limits = (options.max_error_px, options.max_depth_error_px)
    for key, limit in zip(("sharp_error_px", "depth_error_px"), limits, strict=True):
        values = [getattr(one, key) for one in reports if getattr(one, key) is not None]
        finite = [value for value in values if math.isfinite(value)]
        if values:
            summary[key] = {
                "measured": len(finite),
                "median": float(np.median(finite)) if finite else None,
                "p95": float(np.percentile(finite, 95)) if finite else None,
                "max": max(finite, default=None),
                "limit": limit,
            }
    return summary | {"refused": refused}


def plain(value: Any) -> Any:
    """JSON knows no NaN: it becomes null."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that any JSON reader takes."""
    text = json.dumps(plain(content), indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def print_report(report: dict[str, Any], out: Path, console: Console) -> None:
    """Errors per view and overall, as a table."""
    table = Table("view", "photographs (px)", "depth (px)", "90 %", "depth known", "remark")
    for one in report["views"][:SHOWN]:
        known = one["depth_known"]
        table.add_row(
            one["name"],
            _number(one["sharp_error_px"]),
            _number(one["depth_error_px"]),
            _number(one["depth_error_p90_px"]),
            "" if known is None else f"{100 * known:.0f} %",
            one["problem"],
        )
    summary = report["summary"]
    for key in ("median", "p95", "max", "limit"):
        errors = [summary.get(f"{kind}_error_px", {}) for kind in ("sharp", "depth")]
        row = [_number(error.get(key)) for error in errors]
        table.add_row(key, row[0], row[1], "", "", "", style="bold")
    console.print(table)
    if len(report["views"]) > SHOWN:
        console.print(f"the first {SHOWN} of {len(report['views'])} views", highlight=False)
    console.print(
        f"{summary['written']} of {summary['views']} views written to {out}, "
        f"{summary['beyond_limits']} beyond the limits, "
        f"{len(summary['without_partner'])} without partner",
        highlight=False,
    )
    if summary["depth_too_far_px"]:
        console.print(too_far_note(summary["depth_too_far_px"]), highlight=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
