"""The recorded bag: its camera, and its messages in the order in which they were recorded."""

from __future__ import annotations

import bisect
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from ddfd_ros.bag.errors import BagError
from ddfd_ros.core.recordings import unread_log
from ddfd_ros.core.topic_names import likeliest_camera

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
_STORED = (".mcap", ".db3", ".zstd")
_SAMPLES, _SAMPLE_BYTES = 256, 1 << 16


@dataclass(frozen=True)
class Camera:
    """The topics of one camera; ``info`` is empty where nothing was recorded beside the images."""

    image: str
    info: str
    frames: int


class CameraInfos:
    """All camera_info messages of a topic, found by stamp; equal ones are kept once.

    ``damaged``: how many could not be read; ``elsewhere``: other topics that have some.
    """

    def __init__(self, elsewhere: tuple[str, ...] = ()) -> None:
        self.elsewhere = elsewhere
        self._stamps: list[int] = []
        self._infos: list[Any] = []
        self.damaged = 0

    def add(self, stamp_ns: int, info: Any) -> None:
        """Remember one; in the order of recording."""
        place = bisect.bisect_right(self._stamps, stamp_ns)
        self._stamps.insert(place, stamp_ns)
        self._infos.insert(place, info)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._infos)

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
        path: Folder, or one ``.mcap`` or ``.db3`` file. Without ``metadata.yaml``, as after a
            power cut, a folder's files are taken together.

    Raises:
        BagError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise BagError(
                f"{path}: expected a ROS 2 bag (a folder with metadata.yaml, or one .mcap or .db3 "
                f"file), got nothing there (seen from {Path.cwd()}); check the path"
            )
        self._files = _stored(path)
        if problem := unread_log(path):
            raise BagError(problem)
        try:
            # A folder that is named .bag is taken for a bag of ROS 1.
            indexed = (path / "metadata.yaml").is_file() and path.suffix != ".bag"
            opened = [path] if indexed or not self._files else self._files
            self._reader = AnyReader(opened, default_typestore=get_typestore(Stores.ROS2_JAZZY))
            self._reader.open()
        except Exception as error:  # a damaged file may raise anything
            raise BagError(
                f"{path}: expected a ROS 2 bag (a folder with metadata.yaml, or one .mcap or .db3 "
                f"file), got one that cannot be read: {error}; try `ros2 bag reindex` on it, or "
                "`mcap recover` on the last file of a recording that was cut short"
            ) from error
        if not self._reader.is2:
            self._reader.close()
            raise BagError(
                f"{path}: expected a ROS 2 bag, got one of ROS 1; convert it: rosbags-convert"
            )
        self.connections: list[Any] = sorted(
            self._reader.connections, key=lambda one: (one.topic, one.id)
        )
        # A bag knows its own types only; the answers have others.
        self.typestore = get_typestore(Stores.ROS2_JAZZY)

    def __enter__(self) -> BagSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def camera(self, image: str, info: str) -> Camera:
        """The topics to answer.

        Args:
            image: The image topic; empty: the one with most images that by its name is neither
                depth nor an answer of this project, which a field test records beside its input.
            info: The camera_info topic; empty: the sibling of the image topic, if recorded.

        Raises:
            BagError: There is no such topic.
        """
        images: dict[str, int] = {}
        for one in self.connections:
            if one.msgtype in IMAGE_TYPES and one.msgcount:
                images[one.topic] = images.get(one.topic, 0) + one.msgcount
        infos = self._info_topics()
        if (image and image not in images) or not images:
            listed = sorted(
                {f"{one.topic} ({one.msgcount} {one.msgtype})" for one in self.connections}
            )
            raise BagError(
                f"{self.path}: expected images on {image or 'some topic'}, got the topics "
                f"{', '.join(listed) or 'none'}; name one with Image or CompressedImage messages"
            )
        if info and info not in infos:
            raise BagError(
                f"{self.path}: expected CameraInfo on {info}, got it on "
                f"{', '.join(sorted(infos)) or 'no topic'}"
            )
        image = image or likeliest_camera(images)
        sibling = image.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
        return Camera(image, info or (sibling if sibling in infos else ""), images[image])

    def camera_infos(self, topic: str) -> CameraInfos:
        """Every camera_info of ``topic``."""
        result = CameraInfos(tuple(sorted(self._info_topics() - {topic})))
        known: dict[bytes, Any] = {}
        for connection, _, raw in self.messages({topic}):
            try:
                stamp_ns = _stamp_ns(bytes(raw[:12]))
                content = bytes(raw[12:])
                if content not in known:
                    known[content] = self.deserialize(raw, connection.msgtype)
            except Exception:  # a damaged message may raise anything
                result.damaged += 1
            else:
                result.add(stamp_ns, known[content])
        return result

    def _info_topics(self) -> set[str]:
        return {one.topic for one in self.connections if one.msgtype == INFO_TYPE}

    def messages(self, topics: set[str]) -> Iterator[tuple[Any, int, bytes]]:
        """Connection, time of recording and bytes of each message on ``topics``, in order.

        Raises:
            BagError: The recording cannot be read any further.
        """
        wanted = [one for one in self.connections if one.topic in topics]
        if not wanted:  # no connections would mean all of them
            return
        try:
            yield from self._reader.messages(connections=wanted)
        except Exception as error:  # of the reader alone; it may raise anything
            raise BagError(
                f"{self.path}: expected messages, got a damaged recording: {error}; try "
                "`mcap recover`, or `ros2 bag convert` into a new bag"
            ) from error

    def deserialize(self, raw: bytes, msgtype: str) -> Any:
        """The message in ``raw``; whatever is raised, it is damaged."""
        if msgtype in self._reader.typestore.fielddefs:
            return self._reader.deserialize(raw, msgtype)
        return self.typestore.deserialize_cdr(raw, msgtype)

    def definition(self, connection: Any) -> tuple[str, str] | None:
        """A type's definition and hash, empty for one that is everywhere the same; None: unknown.

        Recordings before ROS 2 Iron, and single mcap files, bring no hashes.
        """
        text, digest = connection.msgdef.data, connection.digest
        if text:
            return text, digest or str(self._reader.typestore.hash_rihs01(connection.msgtype))
        return ("", "") if connection.msgtype in self.typestore.fielddefs else None

    def digest(self) -> str:
        """SHA-256 of the files' sizes and of samples of them; a small file's of all of it.

        A recording may be too large to be read twice.
        """
        result = hashlib.sha256()
        for path in self._files:
            size = path.stat().st_size
            result.update(size.to_bytes(8, "big"))
            with path.open("rb") as file:
                for number in range(_SAMPLES):
                    file.seek(size * number // _SAMPLES)
                    result.update(file.read(_SAMPLE_BYTES))
        return result.hexdigest()


def _stored(path: Path) -> list[Path]:
    """The files of a bag that hold messages, in the order of their numbers."""
    if not path.is_dir():
        return [path]
    found = [one for one in path.iterdir() if one.suffix in _STORED]
    return sorted(found, key=lambda one: (len(one.name), one.name))


def _stamp_ns(raw: bytes) -> int:
    """The stamp of a message that begins with a header, without deserializing it.

    CDR: four bytes of encapsulation, whose second tells the byte order; then seconds (int32) and
    nanoseconds (uint32).
    """
    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return int(seconds) * 10**9 + int(nanoseconds)
