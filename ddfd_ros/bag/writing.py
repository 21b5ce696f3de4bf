"""The bag that is written: in parts, so that a killed run can go on where it was.

Each part is a complete file with the answers to the same number of frames. It is written under
another name and gets its own when it is whole; so whatever carries its own name is whole. The
parts are what rosbag2 calls a split bag: one ``metadata.yaml`` names them all.
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

from ddfd_ros.bag.errors import BagError

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
_SUFFIXES = {"mcap": ".mcap", "sqlite3": ".db3"}
_VERSION: Final = 8
"""Of metadata.yaml: read by every ROS 2 since Humble."""
_RUN, _METADATA, _INFO = "run.json", "metadata.yaml", "rosbag2_bagfile_information"
_NEW: Final = ".new"
_BAG_FILES: Final = ("metadata.yaml*", "*.mcap*", "*.db3*", "run.json*", "[0-9]*.json*", "part")
"""What lies in a bag, finished or not; a folder with anything else is not deleted."""

Put = Callable[[str, int, bytes], None]
"""Takes topic, time in nanoseconds and bytes of a message."""


@dataclass(frozen=True)
class Topic:
    """A topic of the bag: its type, the type's definition (empty: the type store's), its QoS."""

    name: str
    msgtype: str
    msgdef: str = ""
    digest: str = ""
    qos: tuple[Any, ...] = ()


@dataclass
class Totals:
    """What became of the frames of one part, or of all."""

    frames: int = 0
    answered: int = 0
    failed: dict[str, int] = field(default_factory=dict)

    def add(self, other: Totals) -> None:
        """Add another part's."""
        self.frames += other.frames
        self.answered += other.answered
        for reason, number in other.failed.items():
            self.failed[reason] = self.failed.get(reason, 0) + number


class PartedBag:
    """A bag that grows part by part in ``<path>.partial`` and is moved to ``path`` when complete.

    To be used as a context manager; meanwhile no other process can write the same bag.

    Args:
        path: The bag's folder, which must not exist.
        topics: All topics, the same in every part.
        typestore: Of ``rosbags``, for topics without a definition of their own.
        storage: ``mcap`` or ``sqlite3``.
        run: What the content depends on, JSON; a partial bag of another run is not continued.
        overwrite: Whether to delete a partial bag of another run, and, when the new one is
            complete, the bag that is there.

    Raises:
        BagError: Something is in the way.
    """

    def __init__(
        self,
        path: Path,
        topics: list[Topic],
        typestore: Any,
        storage: str,
        run: Mapping[str, Any],
        overwrite: bool,
    ) -> None:
        self.path = Path(os.path.abspath(path))  # "." has no name
        self._topics, self._typestore, self._storage = topics, typestore, storage
        self._folder = _unfinished(path)
        self._overwrite = overwrite
        if overwrite:
            _check_bag(self.path)
        elif os.path.lexists(self.path):
            raise BagError(
                f"{path}: expected no such file or folder, got one; choose another name, or "
                "--overwrite"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._folder)
        try:
            self._begin(json.dumps(run, indent=2, sort_keys=True))
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> PartedBag:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def _begin(self, run: str) -> None:
        """Go on with the partial bag if it is this run's; else make it so."""
        there = {one.name for one in self._folder.iterdir()}
        if _RUN in there and (self._folder / _RUN).read_text(encoding="utf-8") == run:
            return
        if there <= {_RUN + _NEW}:  # also a run that was stopped right here
            _write(self._folder / _RUN, run)
            return
        if not self._overwrite:
            raise BagError(
                f"{self._folder}: expected the beginning of this very run, got that of "
                "another input, model or parameters; --overwrite begins anew"
                if _RUN in there
                else f"{self._folder}: expected nothing or an unfinished bag; remove it"
            )
        _check_bag(self._folder)
        # The folder stays, the lock is on it; run.json goes last, it says whose the rest is.
        for one in sorted(self._folder.iterdir(), key=lambda path: path.name == _RUN):
            _remove(one)
        _write(self._folder / _RUN, run)

    @property
    def done(self) -> int:
        """Number of parts that are complete."""
        count = 0
        while self._file(count).is_file() and self._record(count).is_file():
            count += 1
        return count

    def write(self, number: int, fill: Callable[[Put], Totals]) -> None:
        """Write one part.

        Args:
            number: Its number, from 0.
            fill: Called with a function that takes every message of the part; returns what became
                of the frames.
        """
        temporary = self._folder / "part"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            totals = self._write_part(temporary, fill)
            metadata = yaml.safe_load((temporary / _METADATA).read_text(encoding="utf-8"))
            (written,) = metadata[_INFO]["relative_file_paths"]
            _sync(temporary / written)
            (temporary / written).replace(self._file(number))
            record = {"totals": vars(totals), "metadata": metadata}
            _write(self._record(number), json.dumps(record))
        except (WriterError, OSError, sqlite3.Error) as error:
            raise BagError(
                f"{self._folder}: expected to write part {number}, got: {error}; free the disk "
                "and run again, complete parts are kept"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _write_part(self, folder: Path, fill: Callable[[Put], Totals]) -> Totals:
        with Writer(folder, version=_VERSION, storage_plugin=STORAGES[self._storage]) as writer:
            connections = {
                topic.name: writer.add_connection(
                    topic.name,
                    topic.msgtype,
                    typestore=self._typestore,
                    msgdef=topic.msgdef or None,
                    rihs01=topic.digest or None,
                    offered_qos_profiles=topic.qos,
                )
                for topic in self._topics
            }
            return fill(lambda topic, time_ns, raw: writer.write(connections[topic], time_ns, raw))

    def finish(self) -> Totals:
        """Write ``metadata.yaml`` over the complete parts and give the bag its name.

        Raises:
            BagError: There is no part.
        """
        parts = self.done
        if not parts:
            shutil.rmtree(self._folder)
            raise BagError(
                f"{self.path}: expected messages to write, got none; the recording's "
                "metadata.yaml is not that of its files: `ros2 bag reindex`, or name the file"
            )
        records = [
            json.loads(self._record(number).read_text(encoding="utf-8")) for number in range(parts)
        ]
        totals = Totals()
        for record in records:
            totals.add(Totals(**record["totals"]))
        files = [self._file(number).name for number in range(parts)]
        merged = _merge([record["metadata"][_INFO] for record in records], files)
        text = yaml.safe_dump({_INFO: merged}, sort_keys=False, default_flow_style=False)
        _write(self._folder / _METADATA, text)
        if self._overwrite:
            _remove(self.path)
        self._folder.replace(self.path)
        # Last, so that a run that is stopped here loses nothing.
        for name in (_RUN, *(self._record(number).name for number in range(parts))):
            (self.path / name).unlink()
        return totals

    def _file(self, number: int) -> Path:
        return self._folder / f"{self.path.name}_{number}{_SUFFIXES[self._storage]}"

    def _record(self, number: int) -> Path:
        return self._folder / f"{number}.json"


def _merge(parts: list[dict[str, Any]], files: list[str]) -> dict[str, Any]:
    """One description of all parts; those without messages count for no time."""
    merged = dict(parts[0])
    filled = [part for part in parts if part["message_count"]] or parts
    starts = [part["starting_time"]["nanoseconds_since_epoch"] for part in filled]
    ends = [
        start + part["duration"]["nanoseconds"] for start, part in zip(starts, filled, strict=True)
    ]
    merged["relative_file_paths"] = files
    merged["starting_time"] = {"nanoseconds_since_epoch": min(starts)}
    merged["duration"] = {"nanoseconds": max(ends) - min(starts)}
    merged["message_count"] = sum(part["message_count"] for part in parts)
    for index, topic in enumerate(merged["topics_with_message_count"]):
        counts = [part["topics_with_message_count"][index]["message_count"] for part in parts]
        topic["message_count"] = sum(counts)
    merged["files"] = [
        {**part["files"][0], "path": name} for part, name in zip(parts, files, strict=True)
    ]
    return merged


def check_apart(source: Path, target: Path) -> None:
    """Refuse to write where the recording lies, by whatever name.

    Args:
        source: The recorded bag, a folder or a file.
        target: The folder of the bag to write.

    Raises:
        BagError: The target, or its unfinished form, is the recording, holds it or lies in it.
    """
    recorded = [source, *(source.iterdir() if source.is_dir() else ())]  # files may be links
    for folder in (target, _unfinished(target)):
        place = _place(folder)
        for path in recorded:
            other = _place(path)
            if (place[0] and place[0] in other) or (other[0] and other[0] in place):
                raise BagError(
                    f"{target}: expected a folder apart from the recording {source}, got one that "
                    "is, holds or lies in it; choose another"
                )


def _place(path: Path) -> list[tuple[int, int] | None]:
    """Device and inode of a path and of each folder above it; None where there is nothing.

    Unlike names, they are the same through links and where upper and lower case are one.
    """
    real = Path(os.path.realpath(path))
    found = [one.stat() if one.exists() else None for one in (real, *real.parents)]
    return [one and (one.st_dev, one.st_ino) for one in found]


def _unfinished(target: Path) -> Path:
    target = Path(os.path.abspath(target))
    return target.parent / (target.name + ".partial")


def _locked(folder: Path) -> int:
    """The open folder, locked; the lock ends with the process, however that ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise BagError(
            f"{folder}: expected no other run to write it, got one that does; wait for its end"
        ) from error
    except OSError:
        pass  # a file system without locks
    return descriptor


def _check_bag(folder: Path) -> None:
    """Refuse what is no bag, or holds something else besides."""
    if not os.path.lexists(folder):
        return
    names = [one.name for one in folder.iterdir()] if folder.is_dir() else []
    other = [name for name in names if not any(fnmatch.fnmatch(name, one) for one in _BAG_FILES)]
    if other or folder.is_symlink() or not {_RUN, _METADATA} & set(names):
        raise BagError(
            f"{folder}: expected a bag to overwrite, got something else"
            f"{': ' + ', '.join(sorted(other)[:3]) if other else ''}; remove it"
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + _NEW)
    temporary.write_text(text, encoding="utf-8")
    _sync(temporary)
    temporary.replace(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
