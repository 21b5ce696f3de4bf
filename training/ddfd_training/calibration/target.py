"""The calibration target: an asymmetric grid of black circles on white paper.

OpenCV's asymmetric circle grid: row i holds circles at columns 2 j + (i mod 2), in steps of
``step_mm`` both ways. Circles rather than squares: their centres stay where they are when blurred,
and each is an edge in every direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ddfd_training.calibration.errors import CalibrationError

PAPERS_MM = {"a4": (297.0, 210.0), "a3": (420.0, 297.0), "a2": (594.0, 420.0)}
PAPERS_MM |= {"letter": (279.4, 215.9)}
_MM_PER_INCH = 25.4
_SUPERSAMPLING = 4
_SQRT2 = 2.0**0.5
_DIAMETER, _MARGIN = 0.7, 0.43
"""Of a circle, and white beside it so that its blur meets nothing else; in steps."""


@dataclass(frozen=True)
class Target:
    """An asymmetric circle grid and the sheet it is printed on.

    Attributes:
        per_row: Circles in a row.
        rows: Rows; odd, so that the grid has one orientation only.
        step_mm: Half the distance of neighbours in a row, which is the distance between rows.
        diameter_mm: Of the circles.
        page_mm: Width and height of the sheet.

    Raises:
        CalibrationError: Circles touch each other.
    """

    per_row: int = 3
    rows: int = 9
    step_mm: float = 31.0
    diameter_mm: float = 21.7
    page_mm: tuple[float, float] = PAPERS_MM["a4"]

    def __post_init__(self) -> None:
        """Refuse what cannot be printed or detected."""
        if self.per_row < 2 or self.rows < 3 or self.rows % 2 == 0:
            raise CalibrationError(
                f"target: expected at least 2 circles in a row and an odd number of rows from 3, "
                f"got {self.per_row} and {self.rows}"
            )
        if not 0 < self.diameter_mm < 0.8 * _SQRT2 * self.step_mm:
            raise CalibrationError(
                f"target: expected circles of less than {0.8 * _SQRT2 * self.step_mm:.1f} mm, so "
                f"that blurred ones stay apart, got {self.diameter_mm:g} mm"
            )

    @classmethod
    def on_paper(
        cls, paper: str, per_row: int, rows: int, step_mm: float = 0.0, diameter_mm: float = 0.0
    ) -> Target:
        """A grid that fills a sheet, unless its sizes are given; rows run along the long side."""
        if paper not in PAPERS_MM:
            raise CalibrationError(f"paper: expected one of {', '.join(PAPERS_MM)}, got {paper!r}")
        width, height = PAPERS_MM[paper]
        around = _DIAMETER + 2 * _MARGIN
        room = min(width / (rows - 1 + around), height / (2 * per_row - 1 + around))
        step_mm = step_mm or float(np.floor(room * 2) / 2)
        diameter_mm = diameter_mm or round(_DIAMETER * step_mm, 1)
        return cls(per_row, rows, step_mm, diameter_mm, (width, height))

    def margins_mm(self) -> tuple[float, float]:
        """White beside the outermost circles, along both sides of the sheet."""
        size = ((self.rows - 1) * self.step_mm, (2 * self.per_row - 1) * self.step_mm)
        across, along = (
            (page - extent - self.diameter_mm) / 2
            for page, extent in zip(self.page_mm, size, strict=True)
        )
        return across, along

    def centres_mm(self) -> np.ndarray:
        """Centres on the sheet from its top left, float64 ``[rows * per_row, 2]``, x and y.

        In OpenCV's order: along a row first. Rows run across the sheet's long side.
        """
        rows, columns = np.mgrid[: self.rows, : self.per_row]
        # Turned by 90 degrees, not mirrored: OpenCV counts with x along a row and y across them.
        x = (self.rows - 1 - rows.ravel()) * self.step_mm
        y = (2 * columns + rows % 2).ravel() * self.step_mm
        start = np.array(self.margins_mm()) + self.diameter_mm / 2
        return np.stack([x, y], axis=-1) + start

    def draw(self, px_per_mm: float) -> np.ndarray:
        """The sheet as an image, uint8 ``[H, W]``, circles with smooth edges."""
        fine = px_per_mm * _SUPERSAMPLING
        width, height = (round(side * px_per_mm) * _SUPERSAMPLING for side in self.page_mm)
        sheet = np.full((height, width), 255, np.uint8)
        shift = 8
        for x, y in self.centres_mm():
            centre = [round((value * fine - 0.5) * 2**shift) for value in (x, y)]
            radius = round(self.diameter_mm / 2 * fine * 2**shift)
            cv2.circle(sheet, centre, radius, 0, -1, cv2.LINE_8, shift)
        size = (width // _SUPERSAMPLING, height // _SUPERSAMPLING)
        return cv2.resize(sheet, size, interpolation=cv2.INTER_AREA)


def print_target(target: Target, path: Path, dpi: int = 300) -> Path:
    """Write the sheet as ``.pdf`` (in its true size) or ``.png`` (with its resolution noted).

    Raises:
        CalibrationError: The circles do not fit on the sheet, or another suffix.
    """
    _check_margin(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png":
        from matplotlib.image import imsave

        imsave(path, target.draw(dpi / _MM_PER_INCH), cmap="gray", vmin=0, vmax=255, dpi=dpi)
    elif path.suffix.lower() == ".pdf":
        _print_pdf(target, path)
    else:
        raise CalibrationError(f"target: expected a .pdf or .png file, got {path.name}")
    return path


def _check_margin(target: Target) -> None:
    """Only of what is printed: a print that came out a little too large is measured as it is."""
    margin_mm = _MARGIN * target.step_mm
    if min(target.margins_mm()) < margin_mm:
        raise CalibrationError(
            f"target: expected a white margin of at least {margin_mm:.1f} mm on "
            f"a sheet of {target.page_mm} mm, got {min(target.margins_mm()):.1f} mm; take larger "
            "paper, fewer circles or a smaller --step"
        )


def _print_pdf(target: Target, path: Path) -> None:
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    width, height = target.page_mm
    figure = Figure(figsize=(width / _MM_PER_INCH, height / _MM_PER_INCH))
    FigureCanvasPdf(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for x, y in target.centres_mm():
        axes.add_patch(Circle((x, y), target.diameter_mm / 2, color="black", linewidth=0))
    text = (
        f"ddfd-calibrate  {target.per_row}x{target.rows}  centres {2 * target.step_mm:g} mm apart "
        f"in a row  circles {target.diameter_mm:g} mm  print at 100 %, measure, pass --step if "
        "it differs"
    )
    axes.text(width / 2, height - 2, text, fontsize=5, color="0.6", ha="center", va="bottom")
    figure.savefig(path)
