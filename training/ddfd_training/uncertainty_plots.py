"""Plots of the study of uncertainty: calibration and sparsification, and maps of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ddfd_training.evaluate_items import Item

Curves = Mapping[str, list[float]]


def draw_calibration(curves: Mapping[str, Curves], path: Path) -> None:
    """Coverage over probability, error over deviation, and sparsification of each deviation.

    Args:
        curves: ``curves`` of a :class:`~ddfd_training.uncertainty.Calibration`, by label.
        path: PNG to write.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    covered, binned, sparse = figure.subplots(1, 3)
    for colour, (label, part) in enumerate(curves.items()):
        look = {"color": f"C{colour % 10}"}
        covered.plot(part["nominal"], part["covered"], label=label, **look)
        binned.plot(part["bin_sigma_m"], part["bin_rmse_m"], marker=".", **look)
        sparse.plot(part["removed"], part["remaining_rmse_m"], **look)
        sparse.plot(part["removed"], part["best_rmse_m"], linestyle=":", **look)
    covered.plot([0, 1], [0, 1], "k", linewidth=0.5)
    covered.set(xlabel="probability of the interval", ylabel="errors inside it")
    high = max((max(part["bin_sigma_m"]) for part in curves.values()), default=1.0)
    binned.plot([0, high], [0, high], "k", linewidth=0.5)
    binned.set(xlabel="deviation [m]", ylabel="rms error [m]")
    sparse.set(xlabel="most uncertain pixels removed", ylabel="rms error of the rest [m]")
    sparse.set_title("dotted: best possible order", fontsize=8)
    covered.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_maps(item: Item, found: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """A frame's image, truth, and for each deviation prediction, error and the deviation itself.

    Args:
        item: The frame with its truth.
        found: Prediction and deviation ``[H, W]`` in metres by label.
        path: PNG to write.
    """
    figure = Figure(figsize=(11, 2.6 * (1 + len(found))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(found), 3, squeeze=False)
    low, high = np.nanpercentile(item.depth_m, (1, 99))
    axes[0, 0].imshow(item.image_rgb)
    axes[0, 0].set_title("image", fontsize=9)
    truth = axes[0, 1].imshow(item.depth_m, vmin=low, vmax=high, cmap="turbo_r")
    axes[0, 1].set_title("true depth [m]", fontsize=9)
    figure.colorbar(truth, ax=axes[0, 1])
    spread = max(float(np.percentile(sigma, 98)) for _, sigma in found.values())
    for row, (label, (pred_m, sigma_m)) in enumerate(found.items(), start=1):
        error_m = np.abs(pred_m - item.depth_m)
        for column, (title, values, top) in enumerate(
            (
                (f"{label}: depth [m]", pred_m, high),
                ("error [m]", error_m, spread * 2),
                ("deviation [m]", sigma_m, spread),
            )
        ):
            is_depth = column == 0
            drawn = axes[row, column].imshow(
                values, vmin=low if is_depth else 0, vmax=top,
                cmap="turbo_r" if is_depth else "magma",
            )  # fmt: skip
            axes[row, column].set_title(title, fontsize=9)
            figure.colorbar(drawn, ax=axes[row, column])
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(path, dpi=100)
