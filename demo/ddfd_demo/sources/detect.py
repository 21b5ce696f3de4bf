"""Which kind of input a path is. Nothing is guessed in silence: what fits nothing is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ddfd_demo.errors import InputError
from ddfd_demo.sources.base import Source
from ddfd_demo.sources.files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    ImageSource,
    VideoSource,
    image_files,
)
from ddfd_ros.core.thin_lens import LENS_PRESETS

BAG_SUFFIXES = (".mcap", ".db3")
STILLS, STREAM = 40, 120
"""How many frames are played unless told otherwise: of photographs, of streams."""

_ACCEPTED = (
    "a picture, a folder of pictures, a video, a camera (/dev/video0 or 0), a ROS 2 bag, an RGB-D "
    "folder (rgb/ and depth/), or one of the folders nyuv2, dfd_dslr, dfd_outdoor, rgbd_video"
)


def detect_kind(text: str) -> str:
    """The kind of input that ``text`` names, as in ``SourceInfo.kind``.

    Raises:
        InputError: It names nothing that can be played; the message says what was found.
    """
    if text.isdigit() or re.fullmatch(r"/dev/video\d+", text):
        return "camera"
    path = Path(text).expanduser()
    if not path.exists():
        raise InputError(
            f"INPUT: expected {_ACCEPTED}; got {text}, which does not exist (seen from "
            f"{Path.cwd()}); check the path"
        )
    return _kind_of_folder(path) if path.is_dir() else _kind_of_file(path)


def open_source(
    text: str,
    *,
    max_frames: int | None = None,
    natural: bool = False,
    topic: str | None = None,
) -> Source:
    """Open an input, of whichever kind it is.

    Args:
        text: Path, device or number.
        max_frames: At most so many frames; by default ``STILLS`` photographs or ``STREAM`` frames.
        natural: Feed the pictures of an RGB-D folder as they are instead of blurring them.
        topic: Image topic of a bag; by default the likeliest.

    Raises:
        InputError: The input cannot be played.
        DatasetError: A data set lacks files.
    """
    kind = detect_kind(text)
    path = Path(text).expanduser()
    stills, stream = max_frames or STILLS, max_frames or STREAM
    if kind == "camera":
        from ddfd_demo.sources.camera import CameraSource

        return CameraSource(text, stream)
    if kind == "video":
        return VideoSource(path, stream)
    if kind == "bag":
        from ddfd_demo.sources.bag import BagSource

        return BagSource(path, stream, topic)
    if kind in ("rgbd", "nyuv2", "dfd_dslr"):
        return _open_truth(kind, path, stills, stream, natural)
    if kind == "dfd_outdoor":
        return _open_outdoor(path, stills)
    files = [path] if kind == "image" else image_files(path)
    plural = "" if len(files) == 1 else "s"
    return ImageSource(
        files,
        stills,
        kind=kind,
        title=f"{len(files)} photograph{plural} from {path.name}",
        notes=(
            "fed as they are: depth in metres holds only for pictures of the lens the model was "
            "trained for",
        ),
    )


def _kind_of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    for kind, suffixes in (
        ("image", IMAGE_SUFFIXES),
        ("video", VIDEO_SUFFIXES),
        ("bag", BAG_SUFFIXES),
    ):
        if suffix in suffixes:
            return kind
    raise InputError(
        f"INPUT: expected {_ACCEPTED}; got the file {path} with the ending {suffix or 'none'!r}; "
        f"pictures end in {', '.join(IMAGE_SUFFIXES)}, videos in {', '.join(VIDEO_SUFFIXES)}, "
        f"bags in {', '.join(BAG_SUFFIXES)}"
    )


def _kind_of_folder(path: Path) -> str:
    names = {child.name for child in path.iterdir()}
    folders = {child.name for child in path.iterdir() if child.is_dir()}
    bag_files = [name for name in names if Path(name).suffix.lower() in BAG_SUFFIXES]
    tests = (
        ("bag", "metadata.yaml" in names or len(bag_files) == 1),
        (
            "dfd_dslr",
            "dfd_dataset_indoor_N2_8" in folders or path.name.startswith("dfd_dataset_indoor_"),
        ),
        ("dfd_outdoor", "dfd_n28" in folders or path.name in ("dfd_n28", "dfd_n8")),
        ("nyuv2", {"rgb", "depth"} <= folders and "test.txt" in names),
        ("rgbd", {"rgb", "depth"} <= folders),
        ("folder", bool(image_files(path))),
    )
    for kind, fits in tests:
        if fits:
            return kind
    found = ", ".join(sorted(names)[:8]) + (" ..." if len(names) > 8 else "")
    raise InputError(
        f"INPUT: expected {_ACCEPTED}; got the folder {path} with {found or 'nothing in it'}; "
        "give the folder that holds the pictures itself"
    )


def _open_truth(kind: str, path: Path, stills: int, stream: int, natural: bool) -> Source:
    try:
        from ddfd_demo.sources import rgbd
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: inputs with known depth need the training packages, got no module "
            f"{error.name!r}; install requirements/training.txt, or give pictures alone"
        ) from error
    if kind == "dfd_dslr":
        return rgbd.open_dslr(path, stills)
    if kind == "nyuv2":
        return rgbd.open_nyuv2(path, stills)
    return rgbd.open_rgbd(path, stream, natural=natural)


def _open_outdoor(path: Path, limit: int) -> Source:
    """The DSLR outdoors: the same lens at 1290x864, twice as many pixels as indoors."""
    folder = path if path.name in ("dfd_n28", "dfd_n8") else path / "dfd_n28"
    files = image_files(folder)
    if not files:
        raise InputError(f"{folder}: expected photographs (.JPG), got none; copy the set again")
    lens = LENS_PRESETS["dslr"].scaled(2.0)
    if folder.name == "dfd_n8":
        lens = replace(lens, f_number=8.0)
    return ImageSource(
        files,
        limit,
        kind="dfd_outdoor",
        title=f"D3-Net's DSLR outdoors, {folder.name}, {len(files)} photographs, no truth",
        model="dslr",
        lens=lens,
        notes=("natural defocus in the wild; no depth was measured",),
    )
