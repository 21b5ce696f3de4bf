"""The recorded bag: its camera, and its messages in the order in which they were recorded."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.highlevel.anyreader import AnyReaderError
from rosbags.typesys import Stores, get_typestore

from ddfd_ros.bag.errors import BagError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
_NOT_COLOUR = ("depth", "disparity", "mask", "sigma", "uncertainty", "confidence", "defocus")


@dataclass(frozen=True)
class Camera:
    """The topics of one camera; ``info`` is empty where nothing was recorded."""

    image: str
    info: str
    frames: int


class CameraInfos:
    """All camera_info messages of a topic, found by stamp; equal ones are kept once."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._infos: list[Any] = []

    def add(self, stamp_ns: int, info: Any) -> None:
        """Remember one; in the order of recording."""
        place = bisect.bisect_right(self._stamps, stamp_ns)
        self._stamps.insert(place, stamp_ns)
        self._infos.insert(place, info)

    def at(self, stamp_ns: int, exact: bool) -> Any | None:
        """The info of this stamp; unless ``exact``, the last before it or else the first."""
        if not self._stamps:
            return None
        place = bisect.bisect_right(self._stamps, stamp_ns) - 1
        if exact and (place < 0 or self._stamps[place] != stamp_ns):
            return None
        return self._infos[max(place, 0)]


class BagSource:
    """An open bag, mcap or sqlite3.

    Args:
        path: Folder with ``metadata.yaml``, or one ``.mcap`` or ``.db3`` file.

    Raises:
        BagError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
            self._reader.open()
        except (AnyReaderError, OSError, ValueError, KeyError) as error:
            raise BagError(
                f"{path}: expected a ROS 2 bag (a folder with metadata.yaml, or one .mcap or .db3 "
                f"file), got one that cannot be read: {error}; try `ros2 bag reindex` on it"
            ) from error
        if not self._reader.is2:
            self._reader.close()
            raise BagError(
                f"{path}: expected a ROS 2 bag, got one of ROS 1; convert it: rosbags-convert"
            )
        self.connections = sorted(self._reader.connections, key=lambda one: (one.topic, one.id))
        # A bag knows its own types only; the answers have others.
        self.typestore = get_typestore(Stores.ROS2_JAZZY)

    def __enter__(self) -> BagSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def camera(self, image: str, info: str) -> Camera:
        """The topics to answer.

        Args:
            image: The image topic; empty: the one with most images that is not depth by its name.
            info: The camera_info topic; empty: the sibling of the image topic, if recorded.

        Raises:
            BagError: There is no such topic.
        """
        images: dict[str, int] = {}
        for one in self.connections:
            if one.msgtype in IMAGE_TYPES and one.msgcount:
                images[one.topic] = images.get(one.topic, 0) + one.msgcount
        infos = {one.topic for one in self.connections if one.msgtype == INFO_TYPE}
        if (image and image not in images) or not images:
            listed = sorted({f"{one.topic} ({one.msgtype})" for one in self.connections})
            raise BagError(
                f"{self.path}: expected images on {image or 'some topic'}, got the topics "
                f"{', '.join(listed) or 'none'}; name one with Image or CompressedImage messages"
            )
        if info and info not in infos:
            raise BagError(
                f"{self.path}: expected CameraInfo on {info}, got it on "
                f"{', '.join(sorted(infos)) or 'no topic'}"
            )
        image = image or min(images, key=lambda name: (_not_colour(name), -images[name], name))
        sibling = image.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
        return Camera(image, info or (sibling if sibling in infos else ""), images[image])

    def camera_infos(self, topic: str) -> CameraInfos:
        """Every camera_info of ``topic``."""
        result = CameraInfos()
        known: dict[bytes, Any] = {}
        wanted = [one for one in self.connections if topic and one.topic == topic]
        if not wanted:  # no connections would mean all of them
            return result
        for connection, _, raw in self._reader.messages(connections=wanted):
            stamp_ns = _stamp_ns(bytes(raw[:12]))
            content = bytes(raw[12:])
            if content not in known:
                known[content] = self._reader.deserialize(raw, connection.msgtype)
            result.add(stamp_ns, known[content])
        return result

    def messages(self, topics: set[str]) -> Iterator[tuple[Any, int, bytes]]:
        """Connection, time of recording and bytes of each message on ``topics``, in order."""
        wanted = [one for one in self.connections if one.topic in topics]
        yield from self._reader.messages(connections=wanted)

    def deserialize(self, raw: bytes, msgtype: str) -> Any:
        """The message in ``raw``."""
        return self._reader.deserialize(raw, msgtype)


def _stamp_ns(raw: bytes) -> int:
    """The stamp of a message that begins with a header, without deserializing it.

    CDR: four bytes of encapsulation, whose second tells the byte order; then seconds (int32) and
    nanoseconds (uint32).
    """
    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return int(seconds) * 10**9 + int(nanoseconds)


def _not_colour(topic: str) -> bool:
    return any(word in topic.lower() for word in _NOT_COLOUR)
