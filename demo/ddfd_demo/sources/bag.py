"""ROS 2 bags (mcap or sqlite3), read without a ROS installation through ``rosbags``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_demo.errors import InputError
from ddfd_demo.sources.base import DemoFrame, Intrinsics, Source, SourceInfo
from ddfd_ros.core import image_codec
from ddfd_ros.core.camera_model import correct_camera
from ddfd_ros.core.recordings import unread_log
from ddfd_ros.core.topic_names import likeliest_camera

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
_ASSUMED = "intrinsics of a 60 degree camera assumed"


@dataclass(frozen=True)
class _Topics:
    image: str
    info: str | None
    count: int
    others: tuple[str, ...]


class BagSource(Source):
    """The colour images of one topic of a bag, at the recorded times."""

    def __init__(self, path: Path, limit: int, topic: str | None = None) -> None:
        self._path = path
        with _open(path) as reader:
            self._topics = _choose(path, reader, topic)
            rate_hz = _rate_hz(path, reader, self._topics.image, limit)
        count = self._topics.count
        notes = []
        if self._topics.others:
            notes.append(f"other image topics in the bag: {', '.join(self._topics.others)}")
        if self._topics.info is None:
            notes.append(f"the bag has no camera_info of this topic: {_ASSUMED}")
        self._count = min(count, limit)
        self._read = 0
        self._undecodable: list[str] = []
        self._said_of_camera = ""
        cut = f"the first {limit} of {count}" if count > limit else f"{count}"
        super().__init__(
            SourceInfo(
                "bag",
                f"bag {path.name}, topic {self._topics.image}, {cut} images, "
                f"{rate_hz:.3g} frames/s",
                "stream",
                rate_hz=rate_hz,
                notes=tuple(notes),
            )
        )

    def __len__(self) -> int:
        return self._count

    def frames(self) -> Iterator[DemoFrame]:
        """The images in RGB with their camera; those that cannot be decoded are left out.

        Raises:
            InputError: The recording cannot be read, or none of its images be decoded.
        """
        self._read, self._undecodable = 0, []
        start_ns: int | None = None
        with _open(self._path) as reader:
            info = self._camera_info(reader)
            messages = _messages(self._path, reader, self._topics.image)
            for connection, time_ns, raw in islice(messages, self._count):
                self._read += 1
                try:
                    image = image_codec.decode(reader.deserialize(raw, connection.msgtype))
                except OSError:  # this machine's fault, not the message's
                    raise
                except Exception as error:  # whatever a damaged message makes the decoders raise
                    self._undecodable.append(f"{type(error).__name__}: {error}")
                    continue
                start_ns = time_ns if start_ns is None else start_ns
                yield DemoFrame(
                    f"{self._topics.image} {self._read - 1}",
                    image,
                    self._intrinsics(info, image),
                    time_s=(time_ns - start_ns) / 1e9,
                )
        if self._undecodable and start_ns is None:
            raise InputError(
                f"{self._path}: expected images on topic {self._topics.image}, got {self._read} "
                f"of which none can be decoded: {self._undecodable[0]}; choose another with "
                "--topic, or record again"
            )

    def remarks(self) -> tuple[str, ...]:
        """Images that could not be decoded, and a camera_info that does not fit them."""
        found = [self._said_of_camera] if self._said_of_camera else []
        if self._undecodable:
            found.append(
                f"{len(self._undecodable)} of {self._read} images could not be decoded: "
                f"{self._undecodable[0]}"
            )
        return tuple(found)

    def _camera_info(self, reader: Any) -> Any | None:
        """The first camera_info with a calibration, else any; None where none can be read."""
        found = None
        if self._topics.info is None:
            return found
        for connection, _, raw in _messages(self._path, reader, self._topics.info):
            try:
                found = reader.deserialize(raw, connection.msgtype)
            except Exception:  # a damaged message may raise anything
                continue
            if found.k[0] > 0 and found.k[4] > 0:
                break
        return found

    def _intrinsics(self, info: Any | None, image: np.ndarray) -> Intrinsics | None:
        """Of this image; None where the camera_info does not tell them."""
        if self._topics.info is None:
            return None
        camera, problem = correct_camera(info, *image.shape[:2])
        if camera is None:
            # What the node does then, behind the semicolon, is not what is done here.
            self._said_of_camera = f"{problem.partition(';')[0]}: {_ASSUMED}"
            return None
        self._said_of_camera = self._said_of_camera or problem
        k = camera.k
        return Intrinsics(float(k[0]), float(k[4]), float(k[2]), float(k[5]))


def _open(path: Path) -> Any:
    """An open rosbags reader, as a context manager, with types of Jazzy for bags without any."""
    from rosbags.highlevel import AnyReader
    from rosbags.highlevel.anyreader import AnyReaderError
    from rosbags.typesys import Stores, get_typestore

    if problem := unread_log(path):
        raise InputError(problem)
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        reader.open()
    except (AnyReaderError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: expected a ROS 2 bag (a folder with metadata.yaml, or one .mcap or .db3 "
            f"file), got one that cannot be read: {error}; try `ros2 bag reindex` on it, or "
            "`mcap recover` on the last file of a recording that was cut short"
        ) from error
    return _Closing(reader)


class _Closing:
    """Closes a reader that is already open."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __enter__(self) -> Any:
        return self._reader

    def __exit__(self, *_: object) -> None:
        self._reader.close()


def _messages(path: Path, reader: Any, topic: str) -> Iterator[tuple[Any, int, bytes]]:
    """Connection, time of recording and bytes of each message on ``topic``, in order.

    Raises:
        InputError: The recording cannot be read any further.
    """
    try:
        yield from reader.messages([c for c in reader.connections if c.topic == topic])
    except Exception as error:  # of the reader alone; it may raise anything
        raise InputError(
            f"{path}: expected messages on {topic}, got a damaged recording: {error}; try "
            "`mcap recover`, or `ros2 bag convert` into a new bag"
        ) from error


def _rate_hz(path: Path, reader: Any, topic: str, limit: int) -> float:
    """Images per second of the first ``limit`` on ``topic``, by their times of recording."""
    messages = islice(_messages(path, reader, topic), max(limit, 2))
    times_ns = [time_ns for _, time_ns, _ in messages]
    span_s = (times_ns[-1] - times_ns[0]) / 1e9 if times_ns else 0.0
    return (len(times_ns) - 1) / span_s if span_s > 0 else 10.0


def _choose(path: Path, reader: Any, topic: str | None) -> _Topics:
    """The image topic asked for, else the likeliest colour topic, and its sibling camera_info."""
    images: dict[str, int] = {}
    infos: set[str] = set()
    for connection in reader.connections:
        if connection.msgtype in IMAGE_TYPES and connection.msgcount:
            images[connection.topic] = images.get(connection.topic, 0) + connection.msgcount
        elif connection.msgtype == INFO_TYPE and connection.msgcount:
            infos.add(connection.topic)
    listed = ", ".join(sorted({f"{c.topic} ({c.msgtype})" for c in reader.connections})) or "none"
    if topic is not None and topic not in images:
        raise InputError(
            f"{path}: expected images on topic {topic}, got the topics {listed}; give one that "
            "has Image or CompressedImage messages with --topic"
        )
    if not images:
        raise InputError(
            f"{path}: expected a topic with sensor_msgs Image or CompressedImage messages, got "
            f"{listed}; record the camera's image topic too"
        )
    if topic is None:
        topic = likeliest_camera(images)
    # Another camera's camera_info would be worse than none.
    sibling = topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
    info = sibling if sibling in infos else None
    return _Topics(topic, info, images[topic], tuple(sorted(set(images) - {topic})))
