"""The player: a process that publishes spooled frames, or a camera's, like a camera driver.

Run as ``python -m ddfd_demo.player --spool FOLDER ...``. Each image goes out with its camera_info,
both stamped with the time of sending, on ``image_raw`` and ``camera_info`` (relative names).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from ddfd_demo.recorder import TOPICS
from ddfd_demo.sources.base import DemoFrame, Intrinsics
from ddfd_demo.spool import JsonLines, Spool
from ddfd_ros.core import image_codec

FRAME_ID = "camera_optical_frame"


class Player(Node):
    """Publishes frames and, when asked to, waits for the answer to each."""

    def __init__(self, awaited: str | None) -> None:
        """A player that waits for what the recorder calls ``awaited``; None: it does not wait."""
        super().__init__("ddfd_player")
        self._images = self.create_publisher(Image, "image_raw", qos_profile_sensor_data)
        self._infos = self.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        self._answered_ns = -1
        if awaited is not None:
            # The small sibling of the image: it carries the same stamp.
            self.create_subscription(CameraInfo, TOPICS[awaited][1], self._on_answer, 10)

    def _on_answer(self, message: CameraInfo) -> None:
        stamp = message.header.stamp
        self._answered_ns = stamp.sec * 10**9 + stamp.nanosec

    def has_listener(self) -> bool:
        """Whether somebody subscribes to the images."""
        return self._images.get_subscription_count() > 0

    def send(self, image_rgb: np.ndarray, intrinsics: Intrinsics) -> int:
        """Publish one frame, stamped now; returns the stamp in nanoseconds."""
        height, width = image_rgb.shape[:2]
        now = self.get_clock().now()
        header = Header(stamp=now.to_msg(), frame_id=FRAME_ID)
        message = image_codec.encode_rgb(image_rgb, header, message_type=Image)
        self._infos.publish(camera_info(header, height, width, intrinsics))
        self._images.publish(message)
        return int(now.nanoseconds)

    def wait_answer(self, stamp_ns: int, timeout_s: float) -> bool:
        """Spin until the frame of ``stamp_ns`` is answered, or ``timeout_s`` have passed."""
        deadline = time.monotonic() + timeout_s
        while self._answered_ns < stamp_ns and time.monotonic() < deadline:
            rclpy.spin_once(self, timeout_sec=0.02)
        return self._answered_ns >= stamp_ns


def camera_info(header: Any, height: int, width: int, k: Intrinsics) -> CameraInfo:
    """A rectified pinhole camera without distortion."""
    message = CameraInfo()
    message.header = header
    message.height, message.width = height, width
    message.distortion_model = "plumb_bob"
    message.d = [0.0] * 5
    message.k = [k.fx, 0.0, k.cx, 0.0, k.fy, k.cy, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [k.fx, 0.0, k.cx, 0.0, 0.0, k.fy, k.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def main() -> None:
    """Play, then stay until told to stop: a sender that leaves takes unread images along."""
    options = _parse()
    rclpy.init()
    player = Player(options.awaited if options.pacing == "wait" else None)
    spool = Spool(options.spool)
    try:
        with JsonLines(options.spool / "sent.jsonl") as lines:
            while not player.has_listener():
                rclpy.spin_once(player, timeout_sec=0.05)
            lines.write({"event": "start"})
            if options.camera is not None:
                _play_camera(player, spool, options, lines)
            elif options.pacing == "wait":
                _play_waiting(player, spool, options, lines)
            else:
                _play_stream(player, spool, options, lines)
            lines.write({"event": "done"})
        rclpy.spin(player)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


def _play_waiting(
    player: Player, spool: Spool, options: argparse.Namespace, lines: JsonLines
) -> None:
    for frame in spool.frames():
        stamp_ns = player.send(frame.image_rgb(), frame.intrinsics)
        lines.write({"index": frame.index, "stamp_ns": stamp_ns})
        player.wait_answer(stamp_ns, options.answer_timeout)


def _play_stream(
    player: Player, spool: Spool, options: argparse.Namespace, lines: JsonLines
) -> None:
    """In real time: a frame that is due goes out, whether the last one was answered or not."""
    start = time.monotonic()
    for due_s, index, image_rgb, intrinsics in _schedule(spool, options):
        time.sleep(max(0.0, start + due_s - time.monotonic()))
        stamp_ns = player.send(image_rgb, intrinsics)
        lines.write({"index": index, "stamp_ns": stamp_ns})


def _schedule(
    spool: Spool, options: argparse.Namespace
) -> Iterator[tuple[float, int, np.ndarray, Intrinsics]]:
    """Due time, frame number, image and camera; the frames again and again for ``--total``."""
    frames = spool.frames()
    total = options.total or len(frames)
    period_s = 1.0 / options.rate
    for sent in range(total):
        frame = frames[sent % len(frames)]
        due_s = sent * period_s
        if not options.constant_rate and frame.time_s is not None and not options.total:
            due_s = frame.time_s
        yield due_s, frame.index, frame.image_rgb(), frame.intrinsics


def _play_camera(
    player: Player, spool: Spool, options: argparse.Namespace, lines: JsonLines
) -> None:
    from ddfd_demo.sources.camera import CameraSource

    for index, frame in enumerate(CameraSource(options.camera, options.total).frames()):
        scaled = frame.resized(options.scale)
        image_rgb = scaled.image_rgb
        if image_rgb is None:
            raise RuntimeError("camera frame without a picture")
        k = Intrinsics.assumed(*image_rgb.shape[:2])
        stored = DemoFrame(frame.name, image_rgb, k, time_s=frame.time_s)
        if not spool.add(stored):  # before it is sent: the node must not count what the books lack
            lines.write({"event": "spool full"})
            return
        lines.write({"index": index, "stamp_ns": player.send(image_rgb, k)})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ddfd_demo.player", description=__doc__)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--pacing", choices=("wait", "stream"), default="stream")
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second")
    parser.add_argument("--constant-rate", action="store_true", help="ignore recorded times")
    parser.add_argument("--total", type=int, default=0, help="frames to send in all, repeating")
    parser.add_argument("--awaited", choices=tuple(TOPICS), default="depth", help="with wait")
    parser.add_argument("--answer-timeout", type=float, default=15.0, help="seconds")
    parser.add_argument("--camera", default=None, help="device to play instead of the spool")
    parser.add_argument("--scale", type=float, default=1.0, help="resize a camera's frames")
    return parser.parse_args(remove_ros_args(sys.argv)[1:])


if __name__ == "__main__":
    main()
