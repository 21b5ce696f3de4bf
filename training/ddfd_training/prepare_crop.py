"""The part of a picture that every image of it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

COARSE_PX = 240


@dataclass(frozen=True)
class Box:
    """A part of an image in pixels: first row and column, and how many."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )

    def shaped(self, height: int, width: int) -> Box:
        """The largest part in its middle with the shape of ``height`` to ``width``."""
        scale = min(self.height / height, self.width / width)
        rows, columns = round(scale * height), round(scale * width)
        return Box(
            self.top + (self.height - rows) // 2,
            self.left + (self.width - columns) // 2,
            rows,
            columns,
        )


def common(boxes: Sequence[Box]) -> Box:
    """The part that all boxes have; may have no rows or columns."""
    top, left = max(box.top for box in boxes), max(box.left for box in boxes)
    bottom = min(box.top + box.height for box in boxes)
    right = min(box.left + box.width for box in boxes)
    return Box(top, left, max(bottom - top, 0), max(right - left, 0))


def largest_box(valid: np.ndarray) -> Box:
    """The largest rectangle without an invalid pixel.

    The search is made on a grid of some pixels, so that the result may be smaller than the best
    by up to that.

    Args:
        valid: bool ``[H, W]``.

    Returns:
        The box; with no rows if nothing is valid.
    """
    height, width = valid.shape
    step = max(1, -(-max(height, width) // COARSE_PX))
    rows, columns = height // step, width // step
    # A cell counts if all its pixels do.
    cells = valid[: rows * step, : columns * step].reshape(rows, step, columns, step)
    best = _largest(np.asarray(cells.all(axis=(1, 3))))
    return Box(best.top * step, best.left * step, best.height * step, best.width * step)


def _largest(cells: np.ndarray) -> Box:
    """The largest rectangle of true cells: per row, over the heights of the columns above it."""
    best, area = Box(0, 0, 0, 0), 0
    heights = np.zeros(cells.shape[1] + 1, dtype=int)  # a last one of 0 closes all
    for row in range(cells.shape[0]):
        heights[:-1] = np.where(cells[row], heights[:-1] + 1, 0)
        open_at: list[tuple[int, int]] = []  # column where it begins, height; heights rise
        for column, tall in enumerate(heights.tolist()):
            begin = column
            while open_at and open_at[-1][1] >= tall:
                begin, high = open_at.pop()
                if high * (column - begin) > area:
                    area = high * (column - begin)
                    best = Box(row - high + 1, begin, high, column - begin)
            open_at.append((begin, tall))
    return best


def cut(image: np.ndarray, box: Box, size: tuple[int, int] | None) -> np.ndarray:
    """The box's part of an image, brought to ``size`` (height, width) if given."""
    part = image[box.slices]
    if size is None or part.shape[:2] == size:
        return np.ascontiguousarray(part)
    how = cv2.INTER_AREA if part.shape[0] > size[0] else cv2.INTER_CUBIC
    if part.ndim == 2:  # depth: a mean over an edge is a depth that nothing has
        how = cv2.INTER_NEAREST_EXACT
    return cv2.resize(np.ascontiguousarray(part), size[::-1], interpolation=how)
