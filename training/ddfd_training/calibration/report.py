"""What a calibration says: YAML for node and trainer, tables, and the plot."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_training.calibration.intervals import LEVEL
from ddfd_training.calibration.solve import Result

_HEADER = """\
# A camera's lens, measured by ddfd-calibrate.
# Node: lens_calibration:=THIS_FILE.  Recipe of a training: lens: THIS_FILE.
# px_per_dioptre (in details) is the lens's strength A: blur diameter in pixels = A |1/d - 1/d_f|.
"""
_SOURCES = {
    "shape": "A from the shape of blurred edges, so k follows",
    "nominal": "A from the nominal focal length, f-number and pitch; k from the blur measured",
    "given": "k as given; A = (k A) / k",
    "assumed": "k assumed: edges are Gaussian, and only the product k A is measured. Give "
    "--focal, --f-number and --pitch, or --sigma-ratio",
}


def details(result: Result) -> dict[str, Any]:
    """Everything for people, as plain values."""
    data = result.measurement
    fit = result.fit
    ka = fit.spread.sigma_per_diameter * fit.px_per_dioptre
    low, high = result.intervals.of("log_a", exponential=True)
    ratio = fit.spread.sigma_per_diameter
    return {
        "px_per_dioptre": _interval(*result.strength),
        "focus_dioptre": _interval(*result.focus_dioptre),
        "k_px_per_dioptre": _interval(ka, low * ratio, high * ratio),
        "sigma_0_px": _interval(
            fit.sigma_0_px, *result.intervals.of("log_sigma_0", exponential=True)
        ),
        "where_a_comes_from": _SOURCES[result.calibration.source],
        "to_the_corners": _corners(result),
        "residual_by_shape": {name: float(f"{c**0.5:.4g}") for name, c in result.costs.items()},
        "pictures": len(fit.pictures),
        "edges": len(data.profiles),
        "distances_m": [round(min(data.distances_m), 3), round(max(data.distances_m), 3)],
        "response": data.response,
        "focal_length_px": round(data.camera.focal_px, 2),
        "level": LEVEL,
    }


def _interval(value: float, low: float, high: float) -> list[float]:
    return [float(f"{number:.5g}") for number in (value, low, high)]


def _corners(result: Result) -> dict[str, list[float]]:
    """How much changes from the middle to the corners, with intervals."""
    names = {
        "focus_dioptre": "field_focus",
        "log_px_per_dioptre": "field_a",
        "log_sigma_0": "field_sigma_0",
    }
    return {
        label: _interval(result.field.value(name), *result.field_intervals.of(name))
        for label, name in names.items()
    }


def write_yaml(result: Result, path: Path) -> Path:
    """Write the file that node and trainer read."""
    return write_record(replace(result.calibration, details=details(result)), path)


def write_record(record: LensCalibration, path: Path) -> Path:
    """Write a calibration as the file that node and trainer read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(record.to_dict(), sort_keys=False, default_flow_style=None)
    # A node reads it anew when it changes, and must not find a half.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(_HEADER + text, encoding="utf-8")
    partial.replace(path)
    return path


def show(result: Result, console: Console) -> None:
    """Print the result for people."""
    table = Table(title=f"{len(result.fit.pictures)} pictures, {100 * LEVEL:g} % intervals")
    for heading in ("", "value", "from", "to"):
        table.add_column(heading, justify="left" if not heading else "right")
    facts = details(result)
    focus, near, far = result.focus_dioptre
    rows = {
        "A (px of blur per dioptre)": facts["px_per_dioptre"],
        "focus (dioptre)": facts["focus_dioptre"],
        "focus (m)": [1 / max(v, 1e-6) for v in (focus, far, near)],
        "k A (px of sigma per dioptre)": facts["k_px_per_dioptre"],
        "sigma_0 (px, in focus)": facts["sigma_0_px"],
        "corners: focus (dioptre)": facts["to_the_corners"]["focus_dioptre"],
        "corners: A (%)": [
            100 * np.expm1(v) for v in facts["to_the_corners"]["log_px_per_dioptre"]
        ],
        "corners: sigma_0 (%)": [
            100 * np.expm1(v) for v in facts["to_the_corners"]["log_sigma_0"]
        ],
    }
    for name, numbers in rows.items():
        shown = ("inf" if abs(number) > 1e5 else f"{number:.4g}" for number in numbers)
        table.add_row(name, *shown)
    console.print(table)
    record = result.calibration
    console.print(
        f"point-spread function: {record.shape}, k = sigma / diameter = "
        f"{record.sigma_per_diameter:.3g}; {_SOURCES[record.source]}",
        highlight=False,
    )
    if skipped := result.measurement.skipped:
        console.print(
            f"left out of {len(result.fit.pictures) + len(skipped)} pictures:", highlight=False
        )
        for name, why in list(skipped.items())[:8]:
            console.print(f"  {name}: {why}", highlight=False)


def plot(result: Result, path: Path) -> Path:
    """Blur against inverse distance: each circle, the fit, and its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    fit, found = result.fit, result.measurement.profiles
    dioptre = np.array([p.dioptre for p in found])
    wide = np.array([p.blur_share == 1.0 for p in found])
    colours = np.array([p.place for p in found])
    k = fit.spread.sigma_per_diameter
    dots = axes.scatter(dioptre[wide], result.own_px[wide], 8, colours[wide], cmap="viridis")
    figure.colorbar(dots, label="squared distance from the middle (1: corners)")
    if (~wide).any():
        axes.plot(dioptre[~wide], result.own_px[~wide], ".", color="0.6", label="small aperture")
    line = np.linspace(0, dioptre.max() * 1.1, 300)
    draws = result.intervals.centre + result.intervals.draws
    names = result.intervals.names
    strength = np.exp(draws[:, names.index("log_a")])[:, None]
    focus = draws[:, names.index("focus")][:, None]
    base = np.exp(draws[:, names.index("log_sigma_0")])[:, None]
    spread = np.sqrt(base**2 + (k * strength * (line - focus)) ** 2)
    low, high = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    axes.fill_between(line, low, high, color="tab:red", alpha=0.25)
    best = np.sqrt(fit.sigma_0_px**2 + (k * fit.px_per_dioptre * (line - fit.focus_dioptre)) ** 2)
    axes.plot(line, best, color="tab:red", label="fit")
    axes.set(
        xlabel="inverse distance (1/m)",
        ylabel="spread, as a Gaussian's sigma (px)",
        xlim=(0, line[-1]),
        ylim=(0, None),
        title=f"A = {result.strength[0]:.2f} px per dioptre, focus at "
        f"{result.focus_dioptre[0]:.3f} dioptres ({result.calibration.shape})",
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
