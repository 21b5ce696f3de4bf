"""The bag that is written: in parts, so that a killed run can go on where it was.

Each part is a complete file with the answers to the same number of frames. It is written under
another name and gets its own when it is whole; so whatever carries its own name is whole. The
parts are what rosbag2 calls a split bag: one ``metadata.yaml`` names them all.
"""

from __future__ import annotations

import json
import os
import shutil
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


Put = Callable[[str, int, bytes], None]
"""Takes topic, time in nanoseconds and bytes of a message."""


@dataclass(frozen=True)
class Topic:
    """A topic of the bag: its type, and the type's definition (empty: the type store's)."""

    name: str
    msgtype: str
    msgdef: str = ""
    digest: str = ""


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

    Args:
        path: The bag's folder, which must not exist.
        topics: All topics, the same in every part.
        typestore: Of ``rosbags``, for topics without a definition of their own.
        storage: ``mcap`` or ``sqlite3``.
        run: What the content depends on, JSON; a partial bag of another run is not continued.
        overwrite: Whether to delete what is there.

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
        self.path = path
        self._topics, self._typestore, self._storage = topics, typestore, storage
        self._folder = path.with_name(path.name + ".partial")
        if overwrite:
            for folder in (path, self._folder):
                _remove_bag(folder)
        if path.exists():
            raise BagError(
                f"{path}: expected no such file or folder, got one; choose another name, or "
                "--overwrite"
            )
        text = json.dumps(run, indent=2, sort_keys=True)
        if (self._folder / _RUN).is_file():
            if (self._folder / _RUN).read_text(encoding="utf-8") != text:
                raise BagError(
                    f"{self._folder}: expected the beginning of this very run, got that of "
                    "another input, model or parameters; --overwrite begins anew"
                )
        else:
            if self._folder.exists():
                raise BagError(f"{self._folder}: expected nothing or an unfinished bag; remove it")
            self._folder.mkdir(parents=True)
            _write(self._folder / _RUN, text)

    @property
    def done(self) -> int:
        """Number of parts that are complete."""
        count = 0
        while self._file(count).is_file() and self._record(count).is_file():
            count += 1
        return count

    def write(
        self, number: int, fill: Callable[[Callable[[str, int, bytes], None]], Totals]
    ) -> None:
        """Write one part.

        Args:
            number: Its number, from 0.
            fill: Called with a function that takes every message of the part; returns what became
                of the frames.
        """
        temporary = self._folder / "part"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with Writer(
                temporary, version=_VERSION, storage_plugin=STORAGES[self._storage]
            ) as writer:
                connections = {
                    topic.name: writer.add_connection(
                        topic.name,
                        topic.msgtype,
                        typestore=self._typestore,
                        msgdef=topic.msgdef or None,
                        rihs01=topic.digest or None,
                    )
                    for topic in self._topics
                }
                totals = fill(
                    lambda topic, time_ns, raw: writer.write(connections[topic], time_ns, raw)
                )
        except (WriterError, OSError) as error:
            raise BagError(
                f"{self._folder}: expected to write part {number}, got: {error}; free the disk "
                "and run again, complete parts are kept"
            ) from error
        metadata = yaml.safe_load((temporary / _METADATA).read_text(encoding="utf-8"))
        (written,) = metadata[_INFO]["relative_file_paths"]
        record = {"totals": vars(totals), "metadata": metadata}
        _sync(temporary / written)
        (temporary / written).replace(self._file(number))
        _write(self._record(number), json.dumps(record))
        shutil.rmtree(temporary)

    def finish(self) -> Totals:
        """Write ``metadata.yaml`` over the complete parts and give the bag its name."""
        parts = self.done
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
        for number in range(parts):
            self._record(number).unlink()
        shutil.rmtree(self._folder / "part", ignore_errors=True)
        (self._folder / _RUN).unlink()
        self._folder.replace(self.path)
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


def _remove_bag(folder: Path) -> None:
    """Delete a bag, and nothing that is none."""
    if not folder.exists():
        return
    if not any((folder / name).is_file() for name in (_RUN, _METADATA)):
        raise BagError(f"{folder}: expected a bag to overwrite, got something else; remove it")
    shutil.rmtree(folder)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    _sync(temporary)
    temporary.replace(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
