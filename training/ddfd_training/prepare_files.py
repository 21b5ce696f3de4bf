"""Which files of a recording belong to one view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import IMAGE_SUFFIXES, by_stem, counted, files_in
from ddfd_training.datasets.dfd_dslr import stamp_s
from ddfd_training.datasets.pairing import pair_nearest
from ddfd_training.datasets.rgbd_folder import DEPTH_SUFFIXES

PAIRINGS = ("name", "time", "order")
MAX_GAP_S = 2.0


@dataclass(frozen=True)
class ViewFiles:
    """The files of one view; what was not recorded is ``None``.

    Attributes:
        name: Name of the defocused image without suffix.
        defocused: Photograph at the wide aperture.
        sharp: Photograph at the small aperture.
        depth: Depth map.
        color: The depth camera's own colour picture, in whose geometry the depth map is.
    """

    name: str
    defocused: Path
    sharp: Path | None = None
    depth: Path | None = None
    color: Path | None = None


def find_views(
    defocused: Path,
    sharp: Path | None = None,
    depth: Path | None = None,
    color: Path | None = None,
    *,
    pair: str = "name",
    max_gap_s: float = MAX_GAP_S,
) -> tuple[list[ViewFiles], list[str]]:
    """Find the views of a recording: each argument is a file, or a folder of files.

    Args:
        defocused: Photographs at the wide aperture.
        sharp: Photographs at the small aperture, if any.
        depth: Depth maps, if any.
        color: The depth camera's colour pictures, if any.
        pair: By what files belong together: ``name`` (without suffix), ``time`` (names are time
            stamps like 2018-04-26T17:26:34.5), or ``order`` (of the numbers in their names; counts
            must agree).
        max_gap_s: With ``time``, the largest difference.

    Returns:
        The views, and the names of defocused images that lack something and are left out.

    Raises:
        DatasetError: Nothing there, nothing to prepare, files that do not pair, or two photographs
            of one name.
    """
    if pair not in PAIRINGS:
        raise DatasetError(f"pair: expected one of {', '.join(PAIRINGS)}, got {pair!r}")
    if sharp is None and depth is None:
        raise DatasetError(
            "expected sharp images or depth maps to go with the defocused images, got neither"
        )
    if color is not None and depth is None:
        raise DatasetError("expected depth maps to go with the depth camera's colour, got none")
    images = _list(defocused, IMAGE_SUFFIXES, "defocused")
    by_stem(images)  # what is written has the photograph's name
    partners: dict[str, dict[Path, Path]] = {}
    for kind, place in (("sharp", sharp), ("depth", depth), ("color", color)):
        if place is not None:
            suffixes = DEPTH_SUFFIXES if kind == "depth" else IMAGE_SUFFIXES
            files = _list(place, suffixes, kind)
            partners[kind] = _pair(images, files, pair, max_gap_s, kind)
    views = [
        ViewFiles(image.stem, image, **{kind: found[image] for kind, found in partners.items()})
        for image in images
        if all(image in found for found in partners.values())
    ]
    if not views:
        counts = ", ".join(f"{len(found)} with {kind}" for kind, found in partners.items())
        raise DatasetError(
            f"expected files that belong together by {pair}, got {len(images)} defocused images, "
            f"{counts}, none with all; give another --pair"
        )
    whole = {view.defocused for view in views}
    return views, [image.stem for image in images if image not in whole]


def _list(place: Path, suffixes: Sequence[str], kind: str) -> list[Path]:
    """A file, or a folder's files in order."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DatasetError(f"{kind}: expected a file or folder {place}, found none")
    return files_in(place, kind, suffixes)


def _pair(
    images: list[Path], others: list[Path], pair: str, max_gap_s: float, kind: str
) -> dict[Path, Path]:
    """The other file that belongs to each image."""
    if len(images) == len(others) == 1:
        return {images[0]: others[0]}
    if pair == "order":
        if len(images) != len(others):
            raise DatasetError(
                f"{kind}: expected as many files as defocused images to pair them in order, got "
                f"{len(others)} and {len(images)}; pair by name or time"
            )
        first, second = (sorted(files, key=_count) for files in (images, others))
        return dict(zip(first, second, strict=True))
    if pair == "time":
        times = [[stamp_s(path) for path in files] for files in (images, others)]
        return {images[i]: others[j] for i, j in pair_nearest(times[0], times[1], max_gap_s)}
    by_name = {stem.lower(): path for stem, path in by_stem(others).items()}
    return {p: by_name[p.stem.lower()] for p in images if p.stem.lower() in by_name}


def _count(path: Path) -> tuple[str | int, ...]:
    return counted(path.stem)
