"""ROS 2 bags (mcap or sqlite3), read without a ROS installation through ``rosbags``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddfd_demo.errors import InputError
from ddfd_demo.sources.base import DemoFrame, Intrinsics, Source, SourceInfo
from ddfd_ros.core import compressed, image_codec

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
_DEPTH_HINTS = ("depth", "disparity", "mask", "sigma", "uncertainty", "confidence")


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
            duration_s = max(reader.duration / 1e9, 1e-3)
        count = self._topics.count
        rate_hz = min(max((count - 1) / duration_s, 0.5), 120.0) if count > 1 else 10.0
        notes = []
        if self._topics.others:
            notes.append(f"other image topics in the bag: {', '.join(self._topics.others)}")
        if self._topics.info is None:
            notes.append("the bag has no camera_info: intrinsics of a 60 degree camera assumed")
        self._count = min(count, limit)
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
        """Each image decoded to RGB with the latest camera_info before or after it."""
        intrinsics = self._first_intrinsics()
        start_ns: int | None = None
        sent = 0
        with _open(self._path) as reader:
            wanted = [c for c in reader.connections if c.topic == self._topics.image]
            for connection, time_ns, raw in reader.messages(connections=wanted):
                if sent == self._count:
                    return
                message = reader.deserialize(raw, connection.msgtype)
                start_ns = time_ns if start_ns is None else start_ns
                if connection.msgtype == IMAGE_TYPES[1]:
                    image = compressed.decode_compressed(message)
                else:
                    image = image_codec.decode(message)
                yield DemoFrame(
                    f"{self._topics.image} {sent}",
                    image,
                    intrinsics,
                    time_s=(time_ns - start_ns) / 1e9,
                )
                sent += 1

    def _first_intrinsics(self) -> Intrinsics | None:
        if self._topics.info is None:
            return None
        with _open(self._path) as reader:
            wanted = [c for c in reader.connections if c.topic == self._topics.info]
            for connection, _, raw in reader.messages(connections=wanted):
                k = reader.deserialize(raw, connection.msgtype).k
                if k[0] > 0 and k[4] > 0:
                    return Intrinsics(float(k[0]), float(k[4]), float(k[2]), float(k[5]))
        return None


def _open(path: Path) -> Any:
    """An open rosbags reader, as a context manager, with types of Jazzy for bags without any."""
    from rosbags.highlevel import AnyReader
    from rosbags.highlevel.anyreader import AnyReaderError
    from rosbags.typesys import Stores, get_typestore

    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        reader.open()
    except (AnyReaderError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: expected a ROS 2 bag (a folder with metadata.yaml, or one .mcap or .db3 "
            f"file), got one that cannot be read: {error}; try `ros2 bag reindex` on it"
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


def _choose(path: Path, reader: Any, topic: str | None) -> _Topics:
    """The image topic asked for, else the likeliest colour topic, and its sibling camera_info."""
    images: dict[str, int] = {}
    infos: set[str] = set()
    for connection in reader.connections:
        if connection.msgtype in IMAGE_TYPES and connection.msgcount:
            images[connection.topic] = images.get(connection.topic, 0) + connection.msgcount
        elif connection.msgtype == INFO_TYPE:
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
        topic = min(images, key=lambda name: (_looks_like_depth(name), -images[name], name))
    base = topic.removesuffix("/compressed").rsplit("/", 1)[0]
    sibling = f"{base}/camera_info"
    info = sibling if sibling in infos else min(infos, default=None)
    return _Topics(topic, info, images[topic], tuple(sorted(set(images) - {topic})))


def _looks_like_depth(topic: str) -> bool:
    return any(hint in topic.lower() for hint in _DEPTH_HINTS)
