"""Photographs, folders of photographs and video files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ddfd_demo.errors import InputError
from ddfd_demo.sources.base import DemoFrame, Source, SourceInfo, spread
from ddfd_ros.core.thin_lens import LensConfig

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


def image_files(folder: Path) -> list[Path]:
    """The picture files directly in ``folder``, by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )


def read_image_rgb(path: Path) -> np.ndarray:
    """uint8 ``[H, W, 3]`` RGB of a picture file, upright as its EXIF orientation says.

    Raises:
        InputError: The file cannot be read, is no picture that OpenCV can decode, or smaller than
            32 pixels.
    """
    # imdecode instead of imread: it takes any file name, and does not print to stderr.
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(
            f"{path}: expected a picture, got a file that cannot be read: "
            f"{error.strerror or error}; check the path and who may read it"
        ) from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise InputError(
            f"{path}: expected a picture ({', '.join(IMAGE_SUFFIXES)}), got {data.size} bytes "
            "that OpenCV cannot decode; is the file complete?"
        )
    if min(image.shape[:2]) < 32:
        raise InputError(
            f"{path}: expected at least 32x32 pixels, got {image.shape[1]}x{image.shape[0]}; "
            "use a larger picture"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class ImageSource(Source):
    """One or more photographs whose lens is unknown unless given."""

    def __init__(
        self,
        paths: Sequence[Path],
        limit: int,
        *,
        kind: str,
        title: str,
        model: str = "nyu-8m",
        lens: LensConfig | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._paths = [paths[i] for i in spread(len(paths), limit)]
        if len(self._paths) < len(paths):
            notes += (f"{len(self._paths)} of {len(paths)} pictures, spread evenly",)
        super().__init__(SourceInfo(kind, title, "wait", model=model, lens=lens, notes=notes))

    def __len__(self) -> int:
        return len(self._paths)

    def frames(self) -> Iterator[DemoFrame]:
        """Each picture as it is."""
        for path in self._paths:
            yield DemoFrame(path.name, read_image_rgb(path))


class VideoSource(Source):
    """The first frames of a video file, at its own rate."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        capture = self._open()
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        rate_hz = rate_hz if 0.1 <= rate_hz <= 240 else 25.0
        self._count = min(count, limit) if count > 0 else limit
        cut = f"; the first {self._count} of {count} frames" if count > self._count else ""
        super().__init__(
            SourceInfo(
                "video",
                f"video {path.name}, {rate_hz:.4g} frames/s{cut}",
                "stream",
                rate_hz=rate_hz,
            )
        )

    def __len__(self) -> int:
        return self._count

    def frames(self) -> Iterator[DemoFrame]:
        """The frames in order; stops early where the file ends early."""
        capture = self._open()
        try:
            for index in range(self._count):
                good, image = capture.read()
                if not good:
                    break
                yield DemoFrame(
                    f"frame {index}",
                    cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
                    time_s=index / self.info.rate_hz,
                )
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        good = capture.isOpened() and capture.read()[0]
        capture.release()
        if not good:
            raise InputError(
                f"{self._path}: expected a video with at least one frame, got a file that OpenCV "
                "cannot read; convert it with `ffmpeg -i FILE -c:v libx264 out.mp4`"
            )
        return cv2.VideoCapture(str(self._path))
