"""``demo.png``: some frames side by side with what the node answered, on scales in metres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ddfd_demo.colours import Scale, depth_scale, error_scale, sigma_scale
from ddfd_demo.results import Answer
from ddfd_demo.sources.base import spread

ROWS = 4
DETAIL_PX = 96
_CELL_IN = 3.1
_BAR_IN = 0.62
_TOP_IN = 0.95
_INK = "#1c1e24"
_FAINT = "#5c6370"


@dataclass(frozen=True)
class Scales:
    """The scales of one run: every picture and the video share them."""

    depth: Scale
    sigma: Scale
    error: Scale


def choose_scales(answers: Sequence[Answer]) -> Scales:
    """Scales that fit what came back and the truth, from at most twelve frames."""
    chosen = [answers[i] for i in spread(len(answers), 12)] if answers else []
    depths = [m for a in chosen if (m := a.depth_m()) is not None]
    truths = [m for a in chosen if (m := a.frame.depth_m()) is not None]
    errors = [m for a in chosen if (m := signed_error_m(a)) is not None]
    sigmas = [m for a in chosen if (m := a.sigma_m()) is not None]
    return Scales(depth_scale(depths + truths), sigma_scale(sigmas), error_scale(errors))


def signed_error_m(answer: Answer) -> np.ndarray | None:
    """Depth minus truth, float32 ``[H, W]``; None where either is missing."""
    depth_m, truth_m = answer.depth_m(), answer.frame.depth_m()
    if depth_m is None or truth_m is None or depth_m.shape != truth_m.shape:
        return None
    return depth_m - truth_m


def write_png(path: Path, answers: Sequence[Answer], title: str, subtitle: str) -> None:
    """Write the picture of up to ``ROWS`` answered frames, spread over the run.

    Columns whose content no frame has (truth, error, a head the model lacks) are left out.

    Raises:
        ValueError: No frame was answered.
    """
    answered = [a for a in answers if a.answered]
    if not answered:
        raise ValueError("expected at least one answered frame, got none; nothing to show")
    scales = choose_scales(answered)
    rows = [_row(answered[i], scales) for i in _choose_rows(answered)]
    columns = [name for name in _COLUMNS if any(row.get(name) is not None for row in rows)]
    aspects = [row["input"].shape[0] / row["input"].shape[1] for row in rows]
    figure = _draw(rows, columns, aspects, scales, [title, subtitle])
    FigureCanvasAgg(figure).print_png(str(path))


_COLUMNS = {
    "input": "camera image",
    "depth": "depth",
    "truth": "true depth",
    "error": "error",
    "sharp": "all-in-focus",
    "detail": "detail: camera | all-in-focus",
    "sigma": "depth's standard deviation",
}
_BARS = {"depth": "depth", "truth": "depth", "error": "error", "sigma": "sigma"}


def _choose_rows(answered: Sequence[Answer]) -> list[int]:
    """Frames spread over the run, those with truth preferred when only some have it."""
    with_truth = [i for i, a in enumerate(answered) if a.frame.has_truth()]
    if not with_truth or len(with_truth) == len(answered):
        return spread(len(answered), ROWS)
    others = [i for i in range(len(answered)) if i not in set(with_truth)]
    picked = [with_truth[i] for i in spread(len(with_truth), ROWS - 1)]
    picked += [others[i] for i in spread(len(others), ROWS - len(picked))]
    return sorted(picked)


def _row(answer: Answer, scales: Scales) -> dict[str, np.ndarray]:
    """The pictures of one frame by column; what does not exist is left out."""
    image, sharp = answer.frame.image_rgb(), answer.sharp_rgb()
    row: dict[str, np.ndarray] = {"input": image}
    for name, values, scale in (
        ("depth", answer.depth_m(), scales.depth),
        ("truth", answer.frame.depth_m(), scales.depth),
        ("error", signed_error_m(answer), scales.error),
        ("sigma", answer.sigma_m(), scales.sigma),
    ):
        if values is not None:
            row[name] = scale.paint(values)
    if sharp is not None:
        row["sharp"] = sharp
        if sharp.shape == image.shape:
            row["detail"] = _detail(image, sharp)
    return row


def _detail(image: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Twice the same square, camera left and all-in-focus right, where they differ most."""
    top, left = detail_corner(image, sharp)
    size = min(DETAIL_PX, *image.shape[:2])
    crops = [part[top : top + size, left : left + size // 2 * 2] for part in (image, sharp)]
    # Two upright halves make one picture of the row's shape.
    half = round(size * image.shape[1] / image.shape[0] / 2)
    centre = size // 2
    low = max(0, centre - half // 2)
    halves = [crop[:, low : low + half] for crop in crops]
    gap = np.full((size, 2, 3), 255, np.uint8)
    joined = np.concatenate([halves[0], gap, halves[1]], axis=1)
    return cv2.resize(joined, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)


def detail_corner(image: np.ndarray, sharp: np.ndarray) -> tuple[int, int]:
    """Top left corner of the square of ``DETAIL_PX`` where most fine detail was brought out.

    Fine detail is the energy of the Laplacian; what counts is its rise where the camera's image
    has contrast too, so that noise on a plain wall does not win.
    """
    grey = [cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32) for part in (image, sharp)]
    gain = cv2.Laplacian(grey[1], cv2.CV_32F) ** 2 - cv2.Laplacian(grey[0], cv2.CV_32F) ** 2
    size = min(DETAIL_PX, *gain.shape)

    def mean(values: np.ndarray) -> np.ndarray:
        """Over each square that lies inside the picture, by its top left corner."""
        box = cv2.blur(values, (size, size), anchor=(0, 0))
        return box[: gain.shape[0] - size + 1, : gain.shape[1] - size + 1]

    spread_of_grey = np.sqrt(np.maximum(mean(grey[0] ** 2) - mean(grey[0]) ** 2, 0))
    worth = mean(np.minimum(gain, np.percentile(gain, 99.5))) * spread_of_grey
    row, column = np.unravel_index(int(np.argmax(worth)), worth.shape)
    return int(row), int(column)


def _draw(
    rows: list[dict[str, np.ndarray]],
    columns: list[str],
    aspects: list[float],
    scales: Scales,
    titles: list[str],
) -> Figure:
    """The grid of pictures, with a scale bar under every coloured column."""
    heights = [_CELL_IN * aspect for aspect in aspects]
    width_in = _CELL_IN * len(columns)
    height_in = _TOP_IN + sum(heights) + _BAR_IN
    with mpl.rc_context({"font.family": "DejaVu Sans", "text.color": _INK}):
        figure = Figure(figsize=(width_in, height_in), dpi=110, facecolor="white")
        grid = figure.add_gridspec(
            len(rows),
            len(columns),
            height_ratios=heights,
            left=0.004,
            right=0.996,
            top=1 - _TOP_IN / height_in,
            bottom=_BAR_IN / height_in,
            wspace=0.02,
            hspace=0.03,
        )
        figure.text(0.006, 1 - 0.16 / height_in, titles[0], fontsize=15, weight="bold", va="top")
        figure.text(0.006, 1 - 0.46 / height_in, titles[1], fontsize=10.5, color=_FAINT, va="top")
        for i, row in enumerate(rows):
            for j, name in enumerate(columns):
                axes = figure.add_subplot(grid[i, j])
                _show(axes, row.get(name))
                if i == 0:
                    axes.set_title(_COLUMNS[name], fontsize=11, pad=5)
                if i == len(rows) - 1 and name in _BARS:
                    _bar(figure, axes, getattr(scales, _BARS[name]), height_in)
    return figure


def _show(axes: Axes, picture: np.ndarray | None) -> None:
    axes.set_axis_off()
    if picture is None:
        axes.text(0.5, 0.5, "not known", ha="center", va="center", color=_FAINT, fontsize=10)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        return
    axes.imshow(picture, interpolation="antialiased", aspect="auto")


def _bar(figure: Figure, above: Axes, scale: Scale, height_in: float) -> None:
    """A horizontal scale bar in metres under a column."""
    box = above.get_position()
    axes = figure.add_axes(
        (box.x0 + 0.04 * box.width, 0.36 / height_in, 0.92 * box.width, 0.14 / height_in)
    )
    axes.imshow(
        scale.table()[None], aspect="auto", extent=(scale.low, scale.high, 0, 1), origin="lower"
    )
    axes.set_yticks([])
    axes.set_xticks(scale.ticks())
    axes.tick_params(labelsize=8.5, length=2.5, pad=1.5, colors=_INK)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
    axes.set_xlabel(scale.label, fontsize=9, labelpad=1, color=_INK)
