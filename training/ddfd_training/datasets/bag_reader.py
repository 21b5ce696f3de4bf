"""Random access to the images of a ROS 2 bag, without a ROS installation (through ``rosbags``)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddfd_ros.core.compressed_depth import decode_compressed_depth
from ddfd_ros.core.errors import DatasetError, ImageFormatError
from ddfd_ros.core.image_codec import decode, decode_depth
from ddfd_ros.core.recordings import unread_log

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"


@dataclass(frozen=True)
class Stamp:
    """Where a message lies in the bag, and when it was taken.

    Attributes:
        recorded_ns: Time of recording, by which the bag is searched.
        taken_ns: Stamp in the message's header; 0 if the driver set none.
    """

    recorded_ns: int
    taken_ns: int


class BagReader:
    """A bag, opened when first needed, and again in each process that reads it.

    Args:
        path: A bag's folder (with ``metadata.yaml``), or one ``.mcap`` or ``.db3`` file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: Any = None
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files, which belong to one process."""
        return {"path": self.path, "_reader": None, "_process": self._process}

    def _open(self) -> Any:
        # A forked process shares the place in the files: each would read where the other is.
        if self._reader is None or self._process != os.getpid():
            from rosbags.highlevel import AnyReader
            from rosbags.highlevel.anyreader import AnyReaderError
            from rosbags.typesys import Stores, get_typestore

            if problem := unread_log(self.path):
                raise DatasetError(problem)
            try:
                reader = AnyReader([self.path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
                reader.open()
            except (AnyReaderError, OSError, ValueError, KeyError) as error:
                raise DatasetError(
                    f"{self.path}: expected a ROS 2 bag (a folder with metadata.yaml, or one "
                    f".mcap or .db3 file), got one that cannot be read: {error}; try "
                    "`ros2 bag reindex` on it"
                ) from error
            self._reader, self._process = reader, os.getpid()
        return self._reader

    def close(self) -> None:
        """Close the files; they are opened again when needed."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def topics(self, *types: str) -> dict[str, int]:
        """Topics of these message types with their numbers of messages; all without types."""
        counts: dict[str, int] = {}
        for connection in self._open().connections:
            if not types or connection.msgtype in types:
                counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
        return {topic: count for topic, count in counts.items() if count}

    def _messages(self, topic: str, **window: int) -> Iterator[tuple[Any, int, bytes]]:
        """Connection, time of recording and content of a topic's messages.

        Raises:
            DatasetError: The bag is damaged there.
        """
        reader = self._open()
        wanted = [c for c in reader.connections if c.topic == topic]
        try:
            yield from reader.messages(connections=wanted, **window)
        except Exception as error:  # of SQLite, of MCAP, of decompression: they share no class
            raise DatasetError(
                f"{self.path}: expected whole messages on {topic}, got {error}; copy the bag "
                "again, or record it again"
            ) from error

    def stamps(self, topic: str) -> list[Stamp]:
        """Times of all messages of a topic. Only the first bytes of each are looked at."""
        stamps = []
        for _, recorded_ns, raw in self._messages(topic):
            # CDR: four bytes that name the byte order, then the header with its stamp.
            order = "<" if raw[1] & 1 else ">"
            seconds, nanoseconds = struct.unpack_from(f"{order}iI", raw, 4)
            stamps.append(Stamp(recorded_ns, seconds * 1_000_000_000 + nanoseconds))
        return stamps

    def message(self, topic: str, stamp: Stamp | None = None) -> Any:
        """The topic's message of that time, or its first one.

        Raises:
            DatasetError: There is none, or the bag is damaged.
        """
        window = (
            {} if stamp is None else {"start": stamp.recorded_ns, "stop": stamp.recorded_ns + 1}
        )
        for connection, _, raw in self._messages(topic, **window):
            message = self._open().deserialize(raw, connection.msgtype)
            if stamp is None or _taken_ns(message) == stamp.taken_ns:
                return message
        raise DatasetError(f"{self.path}: expected a message on {topic}, found none; is it whole?")

    def image(self, topic: str, stamp: Stamp) -> np.ndarray:
        """A colour image, uint8 ``[H, W, 3]`` RGB."""
        try:
            return np.array(decode(self.message(topic, stamp)))
        except ImageFormatError as error:
            raise DatasetError(f"{self.path}, topic {topic}: {error}") from error

    def depth_m(self, topic: str, stamp: Stamp) -> np.ndarray:
        """A depth map, float32 ``[H, W]`` in metres, NaN where unknown."""
        message = self.message(topic, stamp)
        try:
            compressed = not hasattr(message, "encoding")
            depth_m = decode_compressed_depth(message) if compressed else decode_depth(message)
        except ImageFormatError as error:
            raise DatasetError(f"{self.path}, topic {topic}: {error}") from error
        depth_m = np.array(depth_m, dtype=np.float32)
        depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
        return depth_m


def _taken_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
