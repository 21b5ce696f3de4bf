"""The recorder: a process that subscribes to all topics of the node and writes down what comes.

Run as ``python -m ddfd_demo.recorder --spool FOLDER``. Every message is one line of
``received.jsonl``; images also go to ``STAMP.depth.npy``, ``STAMP.sigma.npy`` and
``STAMP.sharp.npy``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image

from ddfd_demo.spool import JsonLines
from ddfd_ros.core import image_codec
from ddfd_ros.core.errors import ImageFormatError

TOPICS = {
    "depth": ("depth/image_rect", "depth/camera_info"),
    "sharp": ("all_in_focus/image", "all_in_focus/camera_info"),
    "sigma": ("uncertainty/image", "uncertainty/camera_info"),
}
"""Image topic and its camera_info, by the name they have here. A node without a head has none."""
_QUEUE = 10


class Recorder(Node):
    """Writes down every message of the node with its stamp and its time of arrival."""

    def __init__(
        self, folder: Path, lines: JsonLines, names: Sequence[str], keep_images: bool
    ) -> None:
        super().__init__("ddfd_recorder")
        self._folder = folder
        self._lines = lines
        self._keep_images = keep_images
        topics = [self._subscribe(DiagnosticArray, "latency", self._on_latency)]
        for name in names:
            image, info = TOPICS[name]
            topics.append(self._subscribe(Image, image, self._image_handler(name)))
            topics.append(self._subscribe(CameraInfo, info, self._info_handler(f"{name}_info")))
        self._subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics)
        self._awaited = topics

    def missing(self) -> list[str]:
        """Topics of the node that nobody publishes yet."""
        return [topic for topic in self._awaited if self.count_publishers(topic) == 0]

    def _subscribe(self, kind: Any, topic: str, handler: Callable[[Any], None]) -> str:
        return self.create_subscription(kind, topic, handler, _QUEUE).topic_name

    def _image_handler(self, name: str) -> Callable[[Image], None]:
        def handle(message: Image) -> None:
            line = _arrival(name, message)
            try:
                if name == "sharp":
                    image: np.ndarray = image_codec.decode(message)
                else:
                    image = image_codec.decode_depth(message)
            except ImageFormatError as error:
                self._lines.write({**line, "error": str(error)})
                return
            if self._keep_images:
                np.save(self._folder / f"{line['stamp_ns']}.{name}.npy", image)
            self._lines.write(line)

        return handle

    def _info_handler(self, name: str) -> Callable[[CameraInfo], None]:
        def handle(message: CameraInfo) -> None:
            line = _arrival(name, message)
            self._lines.write(
                {**line, "size": [message.width, message.height], "fx": message.k[0]}
            )

        return handle

    def _on_latency(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: float(pair.value) for pair in status.values}
            self._lines.write({**_arrival("latency", message), "stages_ms": values})

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._lines.write(
                {
                    **_arrival("diagnostics", message),
                    "name": status.name,
                    "level": _level(status.level),
                    "message": status.message,
                    "values": {pair.key: pair.value for pair in status.values},
                }
            )


def _arrival(topic: str, message: Any) -> dict[str, Any]:
    stamp = message.header.stamp
    return {
        "topic": topic,
        "stamp_ns": stamp.sec * 10**9 + stamp.nanosec,
        "received_ns": time.time_ns(),
    }


def _level(level: Any) -> int:
    """DiagnosticStatus.level is a ``byte``, which rclpy shows as bytes."""
    return int.from_bytes(level, "little") if isinstance(level, bytes) else int(level)


def main() -> None:
    """Record until told to stop."""
    parser = argparse.ArgumentParser(prog="ddfd_demo.recorder", description=__doc__)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--topics", nargs="+", choices=tuple(TOPICS), default=list(TOPICS))
    parser.add_argument("--light", action="store_true", help="decode images but keep none")
    options = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init()
    try:
        with JsonLines(options.spool / "received.jsonl") as lines:
            recorder = Recorder(options.spool, lines, options.topics, not options.light)
            while recorder.missing():
                rclpy.spin_once(recorder, timeout_sec=0.05)
            lines.write({"event": "ready"})
            rclpy.spin(recorder)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
