"""An evaluation as tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ddfd_training.metrics import DEPTH_METRICS

UNITS = {
    "rmse": "m",
    "sq_rel": "m",
    "edge_kld": "bit",
    "mean_sigma_m": "m",
    "ause_m": "m",
    "aurg_m": "m",
}


def _number(value: Any, digits: int = 4) -> str:
    """A number for a cell; a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def _table(title: str, names: Iterable[str], columns: dict[str, dict[str, Any]]) -> Table:
    """One row for each name, one column for each part, so that many parts fit on a terminal."""
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for head in columns:
        table.add_column(head, justify="right")
    for name in names:
        unit = f" [{UNITS[name]}]" if name in UNITS else ""
        cells = (_number(values.get(name)) for values in columns.values())
        table.add_row(escape(name + unit), *cells)
    return table


def _depth_table(title: str, result: dict[str, Any]) -> Table:
    """Both averages of each part of the depth result."""
    columns = {}
    for key in ("depth", "depth_within_sensor_range"):
        if part := result.get(key):
            suffix = f"\n<= {part['up_to_m']} m" if "up_to_m" in part else ""
            mean = dict(part["mean_over_images"])
            if "edge_kld" in part:
                mean["edge_kld"] = part["edge_kld"]
            columns[f"images{suffix}"] = mean
            columns[f"pixels{suffix}"] = part["over_pixels"]
    names = [name for name in (*DEPTH_METRICS, "edge_kld") if name in columns["images"]]
    return _table(title, names, columns)


def _bins_table(bins: list[dict[str, Any]]) -> Table:
    table = Table(title="Depth by distance, over pixels", title_justify="left")
    for name in ("true depth [m]", "pixels", "bias [m]", "rmse [m]", "abs_rel", "delta1"):
        table.add_column(escape(name), justify="right")
    for row in bins:
        table.add_row(
            f"{row['from_m']:.1f}-{row['to_m']:.1f}",
            _number(row["pixels"]),
            *(_number(row[key], 3) for key in ("bias_m", "rmse", "abs_rel", "delta1")),
        )
    return table


def _image_table(part: dict[str, Any]) -> Table:
    table = Table(
        title=f"All-in-focus image, {part['images']} images with a sharp truth",
        title_justify="left",
    )
    learned = [name for name in part["output"] if name.startswith("lpips_")]
    for name in ("", "PSNR, images [dB]", "PSNR, pixels [dB]", "SSIM", "MAE", *learned):
        table.add_column(escape(name), justify="right")
    for name in ("input", "output", "gain"):
        row = part[name]
        table.add_row(
            name,
            _number(row["psnr"], 2),
            _number(row["psnr_over_pixels"], 2),
            _number(row["ssim"]),
            _number(row.get("mae")),
            *(_number(row.get(key)) for key in learned),
        )
    return table


def _sigma_table(part: dict[str, Any]) -> Table:
    mean = part["mean_over_images"]
    columns = {"images": mean, "pixels": part["over_pixels"]}
    return _table("Depth's standard deviation (Laplace)", mean, columns)


def _defocus_table(part: dict[str, Any]) -> Table:
    mean = part["mean_over_images"]
    columns = {"images": mean, "pixels": part["over_pixels"]}
    return _table("Blur diameter, without sign, against the lens's own", mean, columns)


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print the tables of a report as :mod:`ddfd_training.evaluate_cli` writes it."""
    result, model = report["result"], report["model"]
    console.print(
        f"{model['file']} on {model['runtime']} ({model['device']}), "
        f"{result['images']} images of {report['data']['name']}",
        highlight=False,
    )
    if "depth" in result:
        console.print(_depth_table("Depth: means over images, and over all pixels", result))
    if baseline := report.get("baseline"):
        title = f"The same of always answering {baseline['depth_m']:.2f} m"
        console.print(_depth_table(title, baseline))
    if "depth_bins" in result:
        console.print(_bins_table(result["depth_bins"]))
    if "all_in_focus" in result:
        console.print(_image_table(result["all_in_focus"]))
    if "sigma" in result:
        console.print(_sigma_table(result["sigma"]))
    if "defocus" in result:
        console.print(_defocus_table(result["defocus"]))
    if "other_truths" in result:
        truths = result["other_truths"]
        console.print(_table("Other truths, means over images", truths, {"": truths}))
    time_ms = result["infer_ms"]
    console.print(
        f"inference: {time_ms['p50']:.1f} ms median, {time_ms['p95']:.1f} ms 95th percentile",
        highlight=False,
    )
