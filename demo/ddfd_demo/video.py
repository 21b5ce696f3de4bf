"""``demo.mp4``: four panels (camera, depth, all-in-focus, sigma) with scale bars and a counter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddfd_demo.colours import Scale
from ddfd_demo.pictures import Scales
from ddfd_demo.results import Answer

PANEL_WIDTH = 560
STILL_S = 1.5
"""How long a photograph stays."""
_STILL_HZ = 10.0
_MARGIN, _TITLE, _BAR, _FOOT = 12, 30, 40, 34
_BACK = (22, 24, 29)
_INK = (235, 237, 240)
_FAINT = (150, 156, 166)
_WARN = (255, 176, 64)


@dataclass(frozen=True)
class _Panel:
    """Where a panel lies on the canvas, and its scale bar."""

    title: str
    left: int
    top: int
    scale: Scale | None


class MovieError(RuntimeError):
    """The video could not be written, or not be read back."""


def write_mp4(
    path: Path,
    answers: Sequence[Answer],
    scales: Scales,
    *,
    rate_hz: float | None,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Write the video and read it back; returns its number of pictures.

    Args:
        path: File to write; ``.mp4``.
        answers: Every frame sent, in order. A frame of a stream without an answer shows the answer
            before it and says so, as somebody watching the topics would see it.
        scales: Shared with the picture.
        rate_hz: Frames per second of a stream; None for photographs, each shown ``STILL_S``.
        progress: Called with the number of frames done.

    Raises:
        MovieError: OpenCV cannot write the file, or what it wrote does not play.
    """
    repeats = 1 if rate_hz is not None else round(STILL_S * _STILL_HZ)
    movie_hz = _STILL_HZ if rate_hz is None else movie_rate_hz(rate_hz)
    canvas = _Canvas(answers, scales)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), movie_hz, canvas.size)
    if not writer.isOpened():
        raise MovieError(
            f"{path}: expected OpenCV to write MPEG-4, got a refusal; install "
            "opencv-python-headless from PyPI, whose build can"
        )
    written = 0
    last: Answer | None = None
    for done, answer in enumerate(answers, start=1):
        if answer.answered or rate_hz is None:
            last = answer
        picture = canvas.draw(answer, last, done)
        for _ in range(repeats):
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            written += 1
        progress(done)
    writer.release()
    if (played := count_frames(path)) != written:
        raise MovieError(
            f"{path}: expected {written} pictures to play, got {played}; is the disk full?"
        )
    return written


def movie_rate_hz(rate_hz: float) -> float:
    """The nearest rate that MPEG-4 can say: as a fraction of numbers up to 65535."""
    return float(f"{min(max(rate_hz, 0.01), 1000.0):.4g}")


def count_frames(path: Path) -> int:
    """Number of pictures that a video really plays."""
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count


class _Canvas:
    """What stays the same in every picture is drawn once."""

    def __init__(self, answers: Sequence[Answer], scales: Scales) -> None:
        self._count = len(answers)
        self._scales = scales
        ratio = float(np.median([_aspect(a.frame.image_rgb()) for a in answers[:3]]))
        self._height = round(PANEL_WIDTH * min(max(ratio, 0.4), 1.2))
        column = PANEL_WIDTH + _MARGIN
        row = _TITLE + self._height + _BAR
        self._panels = {
            "input": _Panel("camera image", _MARGIN, _TITLE, None),
            "depth": _Panel("depth", _MARGIN + column, _TITLE, scales.depth),
            "sharp": _Panel("all-in-focus", _MARGIN, row + _TITLE, None),
            "sigma": _Panel("standard deviation", _MARGIN + column, row + _TITLE, scales.sigma),
        }
        # Video sides must be even.
        self.size = (_even(_MARGIN + 2 * column), _even(2 * row + _FOOT))
        self._fonts = {size: _font(size) for size in (13, 17)}
        self._base = self._chrome()

    def draw(self, answer: Answer, shown: Answer | None, number: int) -> np.ndarray:
        """uint8 ``[H, W, 3]``: the frame of ``answer`` with the images of ``shown``."""
        picture = self._base.copy()
        self._paste(picture, "input", answer.frame.image_rgb())
        if shown is not None:
            depth_m, sigma_m, sharp = shown.depth_m(), shown.sigma_m(), shown.sharp_rgb()
            if depth_m is not None:
                self._paste(picture, "depth", self._scales.depth.paint(depth_m))
            if sigma_m is not None:
                self._paste(picture, "sigma", self._scales.sigma.paint(sigma_m))
            if sharp is not None:
                self._paste(picture, "sharp", sharp)
        return self._foot(picture, answer, shown, number)

    def _chrome(self) -> np.ndarray:
        image = Image.new("RGB", self.size, _BACK)
        pen = ImageDraw.Draw(image)
        for panel in self._panels.values():
            pen.text((panel.left + 2, panel.top - 25), panel.title, _INK, self._fonts[17])
            if panel.scale is not None:
                self._bar(image, pen, panel, panel.scale)
        return np.asarray(image)

    def _bar(
        self, image: Image.Image, pen: ImageDraw.ImageDraw, panel: _Panel, scale: Scale
    ) -> None:
        """The colours, round values in metres under them, and the unit at the right."""
        top, left, width = panel.top + self._height + 6, panel.left + 10, PANEL_WIDTH - 20
        colours = np.repeat(scale.table()[None], 9, axis=0)
        bar = cv2.resize(colours, (width, 9), interpolation=cv2.INTER_LINEAR)
        image.paste(Image.fromarray(bar), (left, top))
        for tick in scale.ticks():
            x = left + round((tick - scale.low) / (scale.high - scale.low) * width)
            pen.line((x, top + 9, x, top + 12), _FAINT)
            inside = min(max(x, left + 12), left + width - 14)
            pen.text((inside, top + 13), f"{tick:g} m", _FAINT, self._fonts[13], anchor="ma")

    def _paste(self, picture: np.ndarray, name: str, content: np.ndarray) -> None:
        """Fit ``content`` into its panel without changing its shape."""
        panel = self._panels[name]
        scale = min(PANEL_WIDTH / content.shape[1], self._height / content.shape[0])
        size = (round(content.shape[1] * scale), round(content.shape[0] * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        fitted = cv2.resize(content, size, interpolation=method)
        top = panel.top + (self._height - size[1]) // 2
        left = panel.left + (PANEL_WIDTH - size[0]) // 2
        picture[top : top + size[1], left : left + size[0]] = fitted

    def _foot(
        self, picture: np.ndarray, answer: Answer, shown: Answer | None, number: int
    ) -> np.ndarray:
        image = Image.fromarray(picture)
        pen = ImageDraw.Draw(image)
        y = self.size[1] - _FOOT + 6
        text = f"frame {number} of {self._count}   {answer.frame.name}"
        pen.text((_MARGIN + 2, y), text, _INK, self._fonts[17])
        if answer.answered:
            total = answer.stages_ms.get("total")
            state = "" if total is None else f"answered in {total:.0f} ms"
            colour = _FAINT
        else:
            kept = shown is not None and shown is not answer
            state = "not answered: the last answer is shown" if kept else "not answered"
            colour = _WARN
        pen.text((self.size[0] - _MARGIN - 2, y), state, colour, self._fonts[17], anchor="ra")
        return np.asarray(image)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: the same letters on every machine."""
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def _aspect(image: np.ndarray) -> float:
    return float(image.shape[0] / image.shape[1])


def _even(side: int) -> int:
    return side + side % 2
