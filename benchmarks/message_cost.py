"""What a frame's three images cost to publish: the node's way beside cv_bridge's.

Depth (32FC1), all-in-focus (rgb8) and standard deviation (32FC1) of 640x480 go over DDS to another
process that subscribes to them, frame by frame, each way in turn. Timed is what the node's worker
spends: making the messages, and ``publish``, which has serialised and handed them over on return.

cv_bridge's way, step by step as its Python ``cv2_to_imgmsg`` goes: a new message, the array's
bytes as a new object, copied into the message's array, ``step`` from its length.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ddfd_ros.ros.environment import prepare_environment

HEIGHT, WIDTH = 480, 640
TOPICS = {"depth": "32FC1", "all_in_focus": "rgb8", "sigma": "32FC1"}
RATE_HZ = 30.0
_DOMAIN = str(1 + os.getpid() % 101)
_READY_S = 30.0

Frame = dict[str, np.ndarray]
Make = Callable[[np.ndarray, Any, str, str], Any]


def frames(number: int) -> list[Frame]:
    """What a backend answers: the planes are crops of padded ones, as in the node."""
    rng = np.random.default_rng(0)
    result = []
    for _ in range(number):
        planes = rng.uniform(0.5, 10, (2, HEIGHT, WIDTH)).astype(np.float32)
        picture = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        result.append({"depth": planes[0], "all_in_focus": picture, "sigma": planes[1]})
    return result


def cv_bridge_message(values: np.ndarray, header: Any, encoding: str, topic: str) -> Any:
    """What ``CvBridge.cv2_to_imgmsg(values, encoding, header)`` makes, by its steps."""
    from sensor_msgs.msg import Image

    message = Image()
    message.height = values.shape[0]
    message.width = values.shape[1]
    message.header = header
    message.encoding = encoding
    if values.dtype.byteorder == ">":
        message.is_bigendian = True
    message.data.frombytes(values.tobytes())
    message.step = len(message.data) // message.height
    return message


def cv_bridge_rgb(message: Any) -> np.ndarray:
    """What ``CvBridge.imgmsg_to_cv2(message, "rgb8")`` returns for rgb8 and bgr8, by its steps."""
    import cv2

    shape = (message.height, message.step // 3, 3)
    pixels = np.ndarray(shape, np.dtype("uint8").newbyteorder("<"), buffer=message.data)
    pixels = np.ascontiguousarray(pixels[: message.height, : message.width, :])
    if message.encoding == "rgb8":
        return pixels.copy()  # cvtColor2 copies where nothing is to be converted
    rgb: np.ndarray = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return rgb


def node_messages() -> Make:
    """The node's way: its encoders, which keep their memory."""
    from ddfd_ros.ros.messages import ImageEncoder

    encoders = {topic: ImageEncoder() for topic in TOPICS}

    def make(values: np.ndarray, header: Any, encoding: str, topic: str) -> Any:
        return encoders[topic].encode(values, header, encoding)

    return make


def measure(number: int) -> dict[str, dict[str, list[float]]]:
    """Publish ``number`` frames each way, in turn.

    Returns:
        Per way the durations in milliseconds, by frame: ``make``, ``publish``, ``total``, and
        ``cpu``, the part of ``total`` in which this thread was running.

    Raises:
        RuntimeError: The subscriber did not come.
    """
    prepare_environment()
    os.environ["ROS_DOMAIN_ID"] = _DOMAIN
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    import rclpy
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    listener = subprocess.Popen([sys.executable, "-m", "benchmarks.message_cost", "--listen"])
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=int(_DOMAIN))
    node = rclpy.create_node("message_cost", context=context)
    try:
        publishers = {
            topic: node.create_publisher(Image, topic, QoSProfile(depth=1)) for topic in TOPICS
        }
        end = time.monotonic() + _READY_S
        while not all(p.get_subscription_count() for p in publishers.values()):
            if time.monotonic() > end:
                raise RuntimeError(f"expected a subscriber within {_READY_S} s, got none")
            time.sleep(0.05)
        time.sleep(0.5)
        return _alternate(node, publishers, number)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
        listener.terminate()
        listener.wait(10)


def _alternate(
    node: Any, publishers: dict[str, Any], number: int
) -> dict[str, dict[str, list[float]]]:
    from std_msgs.msg import Header

    ways: dict[str, Make] = {"node": node_messages(), "cv_bridge": cv_bridge_message}
    result: dict[str, dict[str, list[float]]] = {
        way: {"make": [], "publish": [], "total": [], "cpu": []} for way in ways
    }
    answers = frames(4)
    warm = 10
    for i in range(number + warm):
        # Whoever goes second finds the first one's traces in the caches: by turns.
        for way, make in sorted(ways.items(), reverse=bool(i % 2)):
            frame = answers[i % len(answers)]
            header = Header(frame_id="camera", stamp=node.get_clock().now().to_msg())
            start, start_cpu = time.perf_counter(), time.thread_time()
            messages = {t: make(frame[t], header, e, t) for t, e in TOPICS.items()}
            made = time.perf_counter()
            for topic, message in messages.items():
                publishers[topic].publish(message)
            sent, cpu = time.perf_counter(), time.thread_time() - start_cpu
            if i >= warm:
                durations = {
                    "make": made - start,
                    "publish": sent - made,
                    "total": sent - start,
                    "cpu": cpu,
                }
                for part, duration in durations.items():
                    result[way][part].append(1e3 * duration)
            time.sleep(max(0.0, 1 / RATE_HZ - (sent - start)))
    return result


def listen() -> int:
    """Subscribe to all topics until the process is ended."""
    prepare_environment()
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("message_cost_listener")
    for topic in TOPICS:
        node.create_subscription(Image, topic, lambda message: None, QoSProfile(depth=1))
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="message_cost", description="the subscribing process")
    parser.add_argument("--listen", action="store_true", required=True)
    parser.parse_args()
    raise SystemExit(listen())
