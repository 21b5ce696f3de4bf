"""Frames and answers on disk: how the demonstration's processes hand images to each other.

One folder holds ``000012.image.npy`` and, where known, ``.truth.npy`` (metres) and ``.sharp.npy``;
``frames.jsonl`` lists the frames, ``sent.jsonl`` what the player sent and ``received.jsonl`` what
the recorder got, one JSON object a line. Answers lie beside them, named by stamp.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ddfd_demo.sources.base import DemoFrame, Intrinsics

FOLDER = "demo-frames"
"""Name of a run's spool, in its folder of results."""
DEFAULT_BYTES = 2 << 30
"""A spool takes no more than this; an input that needs more is cut, and that is said."""
_ANSWER_BYTES_PER_PX = 4 + 4 + 3
"""depth_m, sigma_m and sharp_rgb of one pixel."""
_OWN = re.compile(r"\d+\.(image|truth|sharp|depth|sigma)\.npy|(frames|sent|received)\.jsonl")


@dataclass(frozen=True)
class SpooledFrame:
    """One line of ``frames.jsonl``; the images are read when asked for."""

    folder: Path
    index: int
    name: str
    time_s: float | None
    intrinsics: Intrinsics

    def image_rgb(self) -> np.ndarray:
        """uint8 ``[H, W, 3]``, what the player sends."""
        return np.load(self._path("image"))

    def depth_m(self) -> np.ndarray | None:
        """float32 ``[H, W]`` true depth, or None."""
        return self._optional("truth")

    def sharp_rgb(self) -> np.ndarray | None:
        """uint8 ``[H, W, 3]`` reference without defocus, or None."""
        return self._optional("sharp")

    def has_truth(self) -> bool:
        """Whether the true depth is known."""
        return self._path("truth").is_file()

    def _path(self, what: str) -> Path:
        return self.folder / f"{self.index:06d}.{what}.npy"

    def _optional(self, what: str) -> np.ndarray | None:
        path = self._path(what)
        return np.load(path) if path.is_file() else None


class Spool:
    """The folder that player, recorder and reporter share."""

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._bytes = 0
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, frame: DemoFrame) -> bool:
        """Store a frame; False (and nothing stored) when the spool would grow too large."""
        image = frame.image_rgb
        if image is None:
            raise ValueError(f"{frame.name}: expected a picture, got none; render it first")
        height, width = image.shape[:2]
        size = image.nbytes + height * width * _ANSWER_BYTES_PER_PX
        size += sum(a.nbytes for a in (frame.depth_m, frame.sharp_rgb) if a is not None)
        if self._count and self._bytes + size > self.max_bytes:
            return False
        stem = self.folder / f"{self._count:06d}"
        np.save(f"{stem}.image.npy", image)
        if frame.depth_m is not None:
            np.save(f"{stem}.truth.npy", frame.depth_m.astype(np.float32))
        if frame.sharp_rgb is not None:
            np.save(f"{stem}.sharp.npy", frame.sharp_rgb)
        intrinsics = frame.intrinsics or Intrinsics.assumed(height, width)
        line = {
            "index": self._count,
            "name": frame.name,
            "time_s": frame.time_s,
            "intrinsics": asdict(intrinsics),
        }
        with JsonLines(self.folder / "frames.jsonl") as lines:
            lines.write(line)
        self._bytes += size
        self._count += 1
        return True

    def __len__(self) -> int:
        return len(self.frames())

    def frames(self) -> list[SpooledFrame]:
        """Every stored frame, in order."""
        return [
            SpooledFrame(
                self.folder,
                line["index"],
                line["name"],
                line["time_s"],
                Intrinsics(**line["intrinsics"]),
            )
            for line in read_lines(self.folder / "frames.jsonl")[0]
        ]


class JsonLines:
    """Appends JSON objects to a file, each at once, so that another process can follow."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, values: dict[str, Any]) -> None:
        """Append one object as one line."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def foreign_names(folder: Path) -> list[str]:
    """What lies in ``folder`` without being a spool's own file; nothing where there is none."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not _OWN.fullmatch(path.name))


def remove_spool(folder: Path) -> None:
    """Delete a spool's own files and, when nothing else is in it, the folder."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _OWN.fullmatch(path.name):
            path.unlink()
    with suppress(OSError):  # somebody else's files are in it
        folder.rmdir()


def read_lines(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The complete lines from byte ``offset`` on, and where they end.

    Another process may still be writing the file; a line without its end is left for next time.
    """
    if not path.is_file():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        complete, newline, _ = file.read().rpartition(b"\n")
    lines = [json.loads(line) for line in complete.splitlines() if line.strip()]
    return lines, offset + len(complete) + len(newline)
