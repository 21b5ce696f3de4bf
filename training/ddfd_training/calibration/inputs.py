"""Pictures and intrinsics for the calibration, from folders, files and bags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.topic_names import is_colour, likeliest_camera
from ddfd_training.calibration.detection import Camera
from ddfd_training.calibration.errors import CalibrationError
from ddfd_training.calibration.measure import Picture
from ddfd_training.datasets.bag_reader import COMPRESSED, IMAGE, INFO, BagReader
from ddfd_training.datasets.base import IMAGE_SUFFIXES, by_stem, read_rgb, shown_files
from ddfd_training.datasets.rgbd_folder import read_intrinsics

MOST_FRAMES = 40
_BAG_SUFFIXES = (".mcap", ".db3")
_CAMERA_FILES = ("camera.yaml", "camera_info.yaml", "ost.yaml")


def is_bag(path: Path) -> bool:
    """Whether ``path`` is a ROS 2 bag."""
    return path.suffix in _BAG_SUFFIXES or (path / "metadata.yaml").is_file()


def evenly(count: int, most: int) -> list[int]:
    """At most so many of ``count`` frames by number, evenly spaced from first to last."""
    places = np.linspace(0, count - 1, min(most, count)).round()
    return [int(place) for place in places]


def is_rgbd(path: Path) -> bool:
    """Whether ``path`` is an RGB-D folder."""
    return (path / "rgb").is_dir() and (path / "depth").is_dir()


def folder_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, by name.

    Raises:
        CalibrationError: There is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise CalibrationError(f"expected a folder of pictures or a bag, found none at {folder}")
    found = shown_files(folder, IMAGE_SUFFIXES)
    if not found:
        raise CalibrationError(f"{folder}: expected pictures of the target, found none")
    return found


def read_folder(folder: Path, sharp: Path | None) -> Iterator[Picture]:
    """Pictures one after the other, with those of the same name in ``sharp``, if they have any.

    Args:
        folder: Of the pictures.
        sharp: Of companions through a small aperture; None: ``folder/sharp`` if there is one.

    Raises:
        CalibrationError: There are no pictures, or no companion has a picture's name or its size.
    """
    paths = folder_pictures(folder)
    companions = sharp or folder / "sharp"
    by_name: dict[str, Path] = {}
    if companions.is_dir():
        by_name = by_stem(folder_pictures(companions))
        if by_name.keys().isdisjoint(path.stem for path in paths):
            raise CalibrationError(
                f"{companions}: expected companions named as the pictures, {paths[0].name} ..., "
                f"got {next(iter(by_name.values())).name} ...; rename them, or move that folder"
            )
    elif sharp is not None:
        raise CalibrationError(f"--sharp: expected a folder of pictures, found none at {sharp}")
    for path in paths:
        partner = by_name.get(path.stem)
        image = read_rgb(path)
        companion = None if partner is None else read_rgb(partner)
        if companion is not None and companion.shape != image.shape:
            raise CalibrationError(
                f"{partner}: expected the size of {path.name}, {image.shape[:2]}, got "
                f"{companion.shape[:2]}"
            )
        yield Picture(path.name, image, companion)


class BagPictures:
    """Frames of a bag, evenly spaced.

    Args:
        path: The bag.
        topic: Of the images; empty: the only, or the most frequent one.
        most: How many frames are looked at.

    Raises:
        CalibrationError: No images in the bag.
    """

    def __init__(self, path: Path, topic: str = "", most: int = MOST_FRAMES) -> None:
        self.reader = BagReader(path)
        counts = self.reader.topics(IMAGE, COMPRESSED)
        known = topic in counts if topic else any(map(is_colour, counts))
        if not known:
            raise CalibrationError(
                f"{path}: expected images on {topic or 'some topic'}, got "
                f"{', '.join(sorted(self.reader.topics())) or 'no topics'}"
            )
        self.topic = topic or likeliest_camera(counts)
        stamps = self.reader.stamps(self.topic)
        self.stamps = [stamps[i] for i in evenly(len(stamps), most)]

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self.stamps)

    def __iter__(self) -> Iterator[Picture]:
        """Decode one frame after the other."""
        for stamp in self.stamps:
            name = f"{(stamp.taken_ns or stamp.recorded_ns) / 1e9:.3f} s"
            yield Picture(name, self.reader.image(self.topic, stamp))

    def camera(self) -> Camera | None:
        """Intrinsics from the camera_info beside the images; None: not there or uncalibrated.

        Of rectified images, by their topic's name, they are P's, and nothing is distorted.

        Raises:
            CalibrationError: The distortion model is another than OpenCV's.
        """
        parts = self.topic.removesuffix("/compressed").split("/")
        sibling = "/".join([*parts[:-1], "camera_info"])
        if sibling not in self.reader.topics(INFO):
            return None
        message = self.reader.message(sibling)
        matrix = np.asarray(message.k, dtype=float).reshape(3, 3)
        if matrix[0, 0] <= 0:
            return None
        rectified = "image_rect" in self.topic
        if not rectified and message.distortion_model not in (
            "",
            "plumb_bob",
            "rational_polynomial",
        ):
            raise CalibrationError(
                f"{sibling}: expected plumb_bob or rational_polynomial, got the distortion model "
                f"{message.distortion_model!r}; record rectified images, or give --camera"
            )
        projection = np.asarray(message.p, dtype=float).reshape(3, 4)[:, :3]
        if rectified and projection[0, 0] > 0:
            matrix = projection
        size = (int(message.height), int(message.width))
        camera = Camera(
            matrix,
            np.zeros(5) if rectified else np.asarray(message.d, dtype=float),
            size=size if min(size) > 0 else None,
        )
        roi = message.roi
        return _region(camera, roi.x_offset, roi.y_offset, roi.width, roi.height)


def _region(camera: Camera, x: int, y: int, width: int, height: int) -> Camera:
    """The camera of a region of interest, in pixels of the full image; without a size: of all."""
    if not (width and height):
        return camera
    matrix = camera.matrix.copy()
    matrix[:2, 2] -= x, y
    return replace(camera, matrix=matrix, size=(int(height), int(width)))


def read_camera(path: Path) -> Camera:
    """Intrinsics from a file of ROS's camera_calibration, or plain numbers in a text file.

    Raises:
        CalibrationError: It holds something else.
    """
    if not path.is_file():
        raise CalibrationError(f"--camera: expected a file, found none at {path}")
    if path.suffix.lower() == ".txt":
        return _from_text(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, Mapping):
            raise ValueError(f"no keys but {type(values).__name__}")
        matrix = np.array(_numbers(values, "camera_matrix", "k", "K"), dtype=float).reshape(3, 3)
        distortion = np.array(_numbers(values, "distortion_coefficients", "d", "D"), dtype=float)
        model = values.get("distortion_model", "plumb_bob")
        size = _size(values)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise CalibrationError(
            f"{path}: expected the YAML of a camera_info (camera_matrix and "
            f"distortion_coefficients, or k and d), got something else: {error}; give --camera "
            "with such a file, or fx fy cx cy in a .txt"
        ) from error
    if model not in ("plumb_bob", "rational_polynomial") or not matrix[0, 0] > 0:
        raise CalibrationError(
            f"{path}: expected a calibrated camera with the distortion model plumb_bob or "
            f"rational_polynomial, got {model!r} and K[0] = {matrix[0, 0]:g}"
        )
    return Camera(matrix, distortion.ravel(), size=size)


def _numbers(values: Mapping[str, object], *names: str) -> Sequence[float]:
    """The list under the first of ``names`` that there is; ValueError: none, or no list."""
    found = next((values[name] for name in names if name in values), None)
    if isinstance(found, Mapping):
        found = found.get("data")
    if not isinstance(found, (list, tuple)):
        raise ValueError(f"expected a list under {' or '.join(names)}, got {found!r}")
    return found


def _size(values: Mapping[str, object]) -> tuple[int, int] | None:
    """Height and width that the file names, if it does."""
    height, width = (values.get(f"image_{side}", values.get(side)) for side in ("height", "width"))
    if height is None or width is None:
        return None
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise ValueError(f"expected the image's size in whole pixels, got {width!r}x{height!r}")
    return height, width


def _from_text(path: Path) -> Camera:
    try:
        numbers = [float(word) for word in path.read_text(encoding="utf-8").split()]
    except ValueError:
        numbers = []
    if len(numbers) == 9:
        numbers = [numbers[0], numbers[4], numbers[2], numbers[5]]
    if len(numbers) != 4:
        raise CalibrationError(
            f"{path}: expected a 3x3 camera matrix or fx fy cx cy in pixels, got {len(numbers)} "
            "numbers"
        )
    fx, fy, cx, cy = numbers
    return Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), np.zeros(5))


def folder_camera(folder: Path) -> Camera | None:
    """Intrinsics lying beside the pictures, if any."""
    for name in _CAMERA_FILES:
        if (folder / name).is_file():
            return read_camera(folder / name)
    try:
        numbers = read_intrinsics(folder)
    except DatasetError as error:
        raise CalibrationError(str(error)) from error
    if numbers is None:
        return None
    fx, fy, cx, cy = numbers
    return Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), np.zeros(5))
