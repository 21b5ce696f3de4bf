"""Depth in the Wild: a person said which of two points is farther (Chen et al. 2016).

``DIW_{train,val,test}.csv`` hold two lines for each image: its path, then
``yA,xA,yB,xB,relation,width,height``, numbers from 1. Relation ``>`` means that A is farther than
B (depth of A > depth of B), ``<`` that it is nearer. Row before column is what the annotations'
readme says, but some readers take them the other way round, and some hand-outs are rewritten: with
``order="auto"`` the whole file is checked against the images' sizes that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.base import (
    DepthOrder,
    RgbdDataset,
    RgbdSample,
    read_rgb,
    require_folder,
    unknown_depth,
)

_FARTHER = {">": 1, "<": -1, "=": 0}
_RECORD = "two lines: a path, then yA,xA,yB,xB,relation,width,height"


class _Record(NamedTuple):
    path: str
    first: tuple[int, int]
    second: tuple[int, int]
    farther: int
    width: int
    height: int


class Diw(RgbdDataset):
    """Photographs with one pair of ordered points each.

    Args:
        root: The folder with the ``.csv`` files (or ``DIW_Annotations`` with them) and the images.
        split: ``train``, ``val`` or ``test``.
        order: How a point is written: ``yx``, ``xy``, or ``auto``.

    Attributes:
        order: ``yx`` or ``xy``, as given or found.
        skipped: How many images of the list are not there; the set is often fetched in part.

    Raises:
        DatasetError: A file is missing, or its lines are not of the kind above.
    """

    name = "diw"
    splits = ("train", "val", "test")
    has_depth = False
    truths = ("order",)

    def __init__(self, root: str | Path, split: str = "train", *, order: str = "auto") -> None:
        """Read the list; images are read when asked for."""
        self.root = require_folder(Path(root), self.name, "DIW_train.csv and the images")
        listing = f"DIW_{self.check_split(split)}.csv"
        places = [self.root / listing, self.root / "DIW_Annotations" / listing]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise DatasetError(
                f"{self.name}: expected the list {places[0]}, found none; take it from the set's "
                "annotations archive"
            )
        if order not in ("auto", "yx", "xy"):
            raise DatasetError(f"{self.name}: order: expected auto, yx or xy, got {order!r}")
        records = _parse(path)
        self.order = _find_order(records, path) if order == "auto" else order
        found = [(record, self._image(record.path, split)) for record in records]
        self.records = [(record, image) for record, image in found if image is not None]
        self.skipped = len(found) - len(self.records)
        if not self.records:
            raise DatasetError(
                f"{self.name}: expected the images that {path.name} lists below {self.root}, such "
                f"as {records[0].path}, found none of {len(records)}"
            )
        self.frame_names = [image.stem for _, image in self.records]

    def _image(self, listed: str, split: str) -> Path | None:
        """Where an image lies: below the root as listed, or in the split's own folder."""
        inner = listed.removeprefix("./").lstrip("/")
        folder = "DIW_test" if split == "test" else "DIW_train_val"
        places = (self.root / inner, self.root / folder / Path(inner).name, Path(listed))
        return next((place for place in places if place.is_file()), None)

    def settings(self) -> tuple[str, ...]:
        """The order."""
        return (self.order,)

    def read(self, index: int) -> RgbdSample:
        """Read image ``index``: uint8 ``[H, W, 3]`` with its pair of points.

        Raises:
            DatasetError: A point lies outside the image.
        """
        record, path = self.records[index]
        image = read_rgb(path)
        height, width = image.shape[:2]
        # A hand-out may be scaled: the points belong to the size in the list.
        down, right = height / record.height, width / record.width
        a, b = (
            (round((y - 0.5) * down - 0.5), round((x - 0.5) * right - 0.5))
            for y, x in (self._rowfirst(record.first), self._rowfirst(record.second))
        )
        for point in (a, b):
            if not (0 <= point[0] < height and 0 <= point[1] < width):
                raise DatasetError(
                    f"{self.name} {path.name}: expected points inside {(height, width)}, got "
                    f"{point}; try the other order of coordinates"
                )
        return RgbdSample(
            name=path.stem,
            depth_m=unknown_depth(image),
            defocused_rgb=image,
            order=DepthOrder(a, b, record.farther),
        )

    def _rowfirst(self, point: tuple[int, int]) -> tuple[int, int]:
        return point if self.order == "yx" else (point[1], point[0])


def _parse(path: Path) -> list[_Record]:
    """The records of a list."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line]
    records = []
    for number in range(0, len(lines) - 1, 2):
        fields = [field.strip() for field in lines[number + 1].split(",")]
        try:
            ya, xa, yb, xb = (int(float(field)) for field in fields[:4])
            farther = _FARTHER[fields[4]]
            width, height = (int(float(field)) for field in fields[5:7])
        except (ValueError, KeyError, IndexError):
            raise DatasetError(
                f"{path}, line {number + 2}: expected {_RECORD}, got {lines[number + 1]!r}"
            ) from None
        records.append(_Record(lines[number], (ya, xa), (yb, xb), farther, width, height))
    if not records or len(lines) % 2:
        raise DatasetError(f"{path}: expected {_RECORD}, for each image; got {len(lines)} lines")
    return records


def _find_order(records: Sequence[_Record], path: Path) -> str:
    """The order in which all points lie inside their images; the documented one if both do."""
    outside = {"yx": 0, "xy": 0}
    for record in records:
        for y, x in (record.first, record.second):
            outside["yx"] += not (1 <= y <= record.height and 1 <= x <= record.width)
            outside["xy"] += not (1 <= x <= record.height and 1 <= y <= record.width)
    if min(outside.values()) > 0:
        raise DatasetError(
            f"{path}: expected all points inside their images, got {outside['yx']} outside if "
            f"rows come first and {outside['xy']} if columns do, of {2 * len(records)}; the "
            "list is damaged, or give the order"
        )
    return "yx" if outside["yx"] == 0 else "xy"
