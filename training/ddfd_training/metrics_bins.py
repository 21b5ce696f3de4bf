"""Errors per depth: how far away a prediction can be trusted (D3-Net, figure 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_training.metrics_depth import DELTA, MIN_DEPTH_M, valid_pair

DEPTH_EDGES_M = tuple(float(edge) for edge in range(11))
"""Borders of D3-Net's bins: 0 to 10 m in metres."""
_SUMS = ("pixels", "error", "square", "absolute", "relative", "within")


class DepthBins:
    """Errors by true depth, over a set of images.

    Bin i holds the pixels whose true depth lies in [edge i, edge i + 1) metres; the last one takes
    its upper edge too, and what lies outside all bins is counted apart.

    Args:
        edges_m: Rising borders of the bins in metres.

    Raises:
        ValueError: Fewer than two edges, or they do not rise.

    Example:
        >>> bins = DepthBins((0.0, 1.0, 2.0))
        >>> bins.add(np.array([1.0, 2.0]), np.array([0.5, 1.5]))
        >>> [row["rmse"] for row in bins.result()["bins"]]
        [0.5, 0.5]
    """

    def __init__(self, edges_m: Sequence[float] = DEPTH_EDGES_M) -> None:
        self.edges_m = np.asarray(edges_m, dtype=np.float64)
        if self.edges_m.size < 2 or not (np.diff(self.edges_m) > 0).all():
            raise ValueError(f"depth bins: expected two or more rising edges, got {edges_m}")
        self._images: list[np.ndarray] = []
        self._outside = 0

    def add(self, pred_m: Any, target_m: Any, mask: Any = None) -> None:
        """Count one image; arguments and errors as ``depth_metrics``."""
        pred, target = valid_pair(pred_m, target_m, mask)
        place = np.searchsorted(self.edges_m, target, side="right") - 1
        count = len(self.edges_m) - 1
        place[target == self.edges_m[-1]] = count - 1
        inside = (place >= 0) & (place < count)
        self._outside += int(target.size - np.count_nonzero(inside))
        place, target = place[inside], target[inside].astype(np.float64)
        pred = pred[inside].astype(np.float64)
        error = pred - target
        columns: list[np.ndarray] = [np.ones_like(error), error, error**2]
        columns += [np.abs(error), np.abs(error) / target]
        columns.append(np.maximum(pred / target, target / np.maximum(pred, MIN_DEPTH_M)) < DELTA)
        self._images.append(
            np.stack([np.bincount(place, values, minlength=count) for values in columns])
        )

    def result(self) -> dict[str, Any]:
        """The table.

        Returns:
            ``bins``: for each, ``from_m``, ``to_m``, ``pixels``, ``share`` of all pixels, and over
            its pixels ``rmse``, ``mae_m``, ``bias_m`` (mean of prediction minus truth) in metres,
            ``abs_rel`` and ``delta1``; ``rmse_mean_over_images`` is the mean of its images' rms.
            NaN where a bin is empty. Further ``images``, ``pixels``, ``pixels_outside`` and
            ``growth`` (:func:`growth`).
        """
        shape = (len(_SUMS), len(self.edges_m) - 1)
        sums = np.sum(self._images, axis=0) if self._images else np.zeros(shape)
        pixels = sums[0]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums[1:] / pixels
            per_image = [np.sqrt(image[2] / image[0]) for image in self._images]
        rows = []
        for i, (low, high) in enumerate(zip(self.edges_m[:-1], self.edges_m[1:], strict=True)):
            each = [rms[i] for rms in per_image if np.isfinite(rms[i])]
            rows.append(
                {
                    "from_m": float(low),
                    "to_m": float(high),
                    "pixels": int(pixels[i]),
                    "share": float(pixels[i] / max(pixels.sum(), 1)),
                    "rmse": float(np.sqrt(means[1, i])),
                    "mae_m": float(means[2, i]),
                    "bias_m": float(means[0, i]),
                    "abs_rel": float(means[3, i]),
                    "delta1": float(means[4, i]),
                    "rmse_mean_over_images": float(np.mean(each)) if each else float("nan"),
                }
            )
        return {
            "images": len(self._images),
            "pixels": int(pixels.sum()),
            "pixels_outside": self._outside,
            "averaged": "over_pixels, but rmse_mean_over_images",
            "bins": rows,
            "growth": growth(rows),
        }


def growth(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How the rms error grows with depth: is it quadratic, as defocus and stereo have it?

    Args:
        rows: The ``bins`` of :meth:`DepthBins.result`; empty ones are left out.

    Returns:
        ``exponent`` p of the best rms = c depth^p (least squares of logarithms, bins weighted by
        their pixels), and the share of variance explained, ``r2_linear`` and ``r2_quadratic``, of
        rms = a + b depth and rms = a + b depth^2. NaN with fewer than three bins.
    """
    full = [row for row in rows if row["pixels"] > 0 and row["rmse"] > 0]
    if len(full) < 3:
        return dict.fromkeys(("exponent", "r2_linear", "r2_quadratic"), float("nan"))
    depth = np.array([(row["from_m"] + row["to_m"]) / 2 for row in full])
    rms = np.array([row["rmse"] for row in full])
    weight = np.array([row["pixels"] for row in full], dtype=np.float64)
    # np.polyfit weighs the residual, not its square.
    exponent = np.polyfit(np.log(depth), np.log(rms), 1, w=np.sqrt(weight))[0]
    result = {"exponent": float(exponent)}
    spread = np.average((rms - np.average(rms, weights=weight)) ** 2, weights=weight)
    for name, power in (("r2_linear", 1), ("r2_quadratic", 2)):
        line = np.polyfit(depth**power, rms, 1, w=np.sqrt(weight))
        left = np.average((rms - np.polyval(line, depth**power)) ** 2, weights=weight)
        result[name] = float(1 - left / spread) if spread > 0 else float("nan")
    return result


def plot_depth_bins(
    results: Mapping[str, Mapping[str, Any]],
    path: str | Path,
    *,
    shares: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> Path:
    """Draw D3-Net's figure 7: rms error per depth as lines, shares of pixels as bars.

    Args:
        results: Results of :meth:`DepthBins.result` by label, all of the same bins.
        path: PNG to write.
        shares: Further distributions by label, for instance of the training set; by default that
            of the first result is drawn.
        title: Above the plot.

    Returns:
        ``path``.

    Raises:
        ValueError: No results, or their bins differ.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not results:
        raise ValueError("plot_depth_bins: expected at least one result, got none")
    first = next(iter(results.values()))["bins"]
    borders = [(row["from_m"], row["to_m"]) for row in first]
    for label, result in results.items():
        if [(row["from_m"], row["to_m"]) for row in result["bins"]] != borders:
            raise ValueError(f"plot_depth_bins: expected {label} to have the bins of the others")
    middle = np.array([(low + high) / 2 for low, high in borders])
    width = np.array([high - low for low, high in borders])
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    right = left.twinx()
    bars = shares or {"test pixels": [row["share"] for row in first]}
    for i, (label, heights) in enumerate(bars.items()):
        part = width * 0.9 / len(bars)
        offset = (i - (len(bars) - 1) / 2) * part
        values = 100 * np.asarray(heights, dtype=np.float64)
        right.bar(middle + offset, values, part, alpha=0.25, color=f"C{7 + i}", label=label)
    for i, (label, result) in enumerate(results.items()):
        rms = [row["rmse"] for row in result["bins"]]
        left.plot(middle, rms, marker="o", color=f"C{i}", label=label)
    left.set(xlabel="true depth (m)", ylabel="rms error (m)", title=title, ylim=(0, None))
    right.set(ylabel="share of pixels (%)")
    left.set_zorder(right.get_zorder() + 1)
    left.patch.set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    more_handles, more_labels = right.get_legend_handles_labels()
    left.legend(handles + more_handles, labels + more_labels, loc="upper left")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
