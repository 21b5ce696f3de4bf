"""``ddfd-bag`` and the node answer the same image with the same messages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from ddfd_ros.bag.cli import main

PARAMETERS = {
    "model_path": "ddfd-lite-nyu-8m",
    "runtime": "onnxruntime",
    "precision": "float32",
    "threads": 1,
    "max_age_s": 0.0,
    "max_sigma_m": 1.0,
    "min_depth_m": 1.0,
    "network_width": 96,
    "network_height": 64,
    "output_size": "network",
    "camera_info_match": "stamp",
    "cloud_color": "image",
    "cloud_decimation": 2,
    "zones_output": True,
    "compressed_output": True,
}
TOPICS = {
    "/depth/image_rect": Image,
    "/depth/camera_info": CameraInfo,
    "/all_in_focus/image": Image,
    "/uncertainty/image": Image,
    "/points": PointCloud2,
    "/depth/zones": Image,
    "/all_in_focus/image/compressed": CompressedImage,
    "/depth/image_rect/compressedDepth": CompressedImage,
}


def recorded():
    """An image larger than what the network is given, and its camera, as ROS messages."""
    rng = np.random.default_rng(3)
    pixels = np.kron(rng.integers(0, 256, (10, 15, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    height, width = pixels.shape[:2]
    image = Image(height=height, width=width, encoding="bgr8", step=3 * width)
    image.data = pixels.tobytes()
    info = CameraInfo(height=height, width=width, distortion_model="plumb_bob")
    info.k = [90.0, 0.0, 59.5, 0.0, 90.0, 39.5, 0.0, 0.0, 1.0]
    info.d = [0.01, 0.0, 0.0, 0.0, 0.0]
    info.r = np.eye(3).ravel().tolist()
    info.p = [80.0, 0.0, 58.5, 0.0, 0.0, 80.0, 40.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    for message in (image, info):
        message.header.frame_id = "camera"
        message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000, 42
    return image, info


def by_node(image, info, domain_id, parameters):
    """The node's answers, over DDS."""
    command = [sys.executable, "-m", "ddfd_ros.ros.main", "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    process = subprocess.Popen(command, env=os.environ | {"ROS_DOMAIN_ID": str(domain_id)})
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node("peer", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    answers = {}
    try:
        for topic, kind in TOPICS.items():
            node.create_subscription(
                kind,
                topic,
                lambda message, topic=topic: answers.__setitem__(topic, message),
                QoSProfile(depth=10),
            )
        cameras = [
            node.create_publisher(type(one), topic, 10)
            for topic, one in (("camera_info", info), ("image_raw", image))
        ]
        end = time.monotonic() + 60
        while len(answers) < len(TOPICS) and time.monotonic() < end:
            if all(camera.get_subscription_count() for camera in cameras):
                for camera, message in zip(cameras, (info, image), strict=True):
                    camera.publish(message)
            executor.spin_once(timeout_sec=0.2)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    return answers


def by_bag(folder, image, info, parameters):
    """The same from a bag."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(folder / "ride", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, message in (("/cam/camera_info", info), ("/cam/image_raw", image)):
            kind = f"sensor_msgs/msg/{type(message).__name__}"
            connection = writer.add_connection(topic, kind, typestore=store)
            writer.write(connection, 1_700_000_000_000_000_042, serialize_message(message))
    settings = [f"{name}={value}" for name, value in parameters.items()]
    assert main([str(folder / "ride"), str(folder / "answered"), "--points", *settings]) == 0
    with AnyReader([folder / "answered"]) as reader:
        return {
            connection.topic: deserialize_message(bytes(raw), TOPICS[connection.topic])
            for connection, _, raw in reader.messages()
            if connection.topic in TOPICS
        }


@pytest.mark.parametrize("rectified", [False, True])
def test_both_answer_alike(tmp_path, ros_domain, rectified):
    image, info = recorded()
    parameters = PARAMETERS | {"input_rectified": rectified}
    bag = by_bag(tmp_path, image, info, parameters)
    node = by_node(image, info, ros_domain, parameters)
    assert set(node) == set(TOPICS)
    for topic in TOPICS:
        assert bag[topic] == node[topic], topic
    depth_m = np.frombuffer(bag["/depth/image_rect"].data, np.float32)
    assert 0.0 < np.isfinite(depth_m).mean() < 1.0  # the limits did something
    assert (bag["/depth/image_rect"].width, bag["/depth/image_rect"].height) == (96, 64)
