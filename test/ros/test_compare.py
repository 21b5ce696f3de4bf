"""``ddfd_compare`` in a process of its own, between two cameras that this process plays."""

from __future__ import annotations

import array
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from ddfd_ros.core.depth_errors import ComparisonError
from ddfd_ros.core.image_codec import encode_depth
from ddfd_ros.core.preprocessing import Intrinsics
from ddfd_ros.core.rays import Optics
from ddfd_ros.ros.compare import _refuse_rotation

SIZE = (48, 64)


class Cameras:
    """Ours and the reference, and whoever reads the comparison."""

    def __init__(self, domain_id):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node("cameras", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publishers = {
            topic: self.node.create_publisher(kind, topic, 10)
            for topic, kind in (
                ("depth/image_rect", Image),
                ("depth/camera_info", CameraInfo),
                ("uncertainty/image", Image),
                ("reference/camera_info", CameraInfo),
            )
        }
        self.arrays, self.summaries = [], []
        self.node.create_subscription(DiagnosticArray, "comparison", self.arrays.append, 10)
        self._stamp_ns = 10**18

    def advertise_reference(self, topic):
        self.publishers["reference/image"] = self.node.create_publisher(Image, topic, 10)

    def listen_late(self):
        """Ask for the summary after it was published: it is latched."""
        qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(String, "comparison/summary", self.summaries.append, qos)

    def spin_until(self, condition, timeout_s=40.0):
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                return False
            self.executor.spin_once(timeout_sec=0.02)
        return True

    def ready(self):
        assert self.spin_until(
            lambda: all(p.get_subscription_count() for p in self.publishers.values())
        )
        assert self.spin_until(lambda: self.arrays)
        self.spin_until(lambda: False, 0.5)

    def send(self, topic, values=None, fx=60.0, size=SIZE, delay_s=0.0, frame="camera", **fields):
        kind = CameraInfo if values is None else Image
        if values is None:
            height, width = size
            k = [fx, 0.0, (width - 1) / 2, 0.0, fx, (height - 1) / 2, 0.0, 0.0, 1.0]
            message = CameraInfo(height=height, width=width, k=k, **fields)
        else:
            plain = encode_depth(values.astype(np.float32), None)
            message = kind(height=plain.height, width=plain.width, encoding="32FC1")
            message.step = plain.step
            message.data = array.array("B", plain.data)
        stamp_ns = self._stamp_ns + round(delay_s * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        message.header.frame_id = frame
        self.publishers[topic].publish(message)

    def next_frame(self):
        self._stamp_ns += 100_000_000
        self.spin_until(lambda: False, 0.05)

    def status(self, name):
        found = [one for one in self.arrays[-1].status if one.name.endswith(name)]
        return found[0], {item.key: float(item.value) for item in found[0].values}

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def start(tmp_path, ros_domain, tools):
    cameras = Cameras(ros_domain)
    processes = []

    def run(log=None, reference="reference/image", **parameters):
        command = [sys.executable, "-m", "ddfd_ros.ros.compare_main", "--ros-args"]
        command += ["-r", f"reference/image:={reference}"]
        cameras.advertise_reference(reference)
        values = {"report_period_s": 0.2, "summary_file": tmp_path / "summary.json"} | parameters
        for name, value in values.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        environ = os.environ | {"ROS_DOMAIN_ID": str(ros_domain)}
        processes.append(subprocess.Popen(command, env=environ, stderr=log))
        return cameras, processes[-1]

    yield run
    for process in processes:
        tools.kill(process)
    cameras.close()


def test_running_errors_and_the_summary(start, tmp_path):
    cameras, process = start(stride=1, max_time_difference_s=0.02)
    cameras.ready()
    assert "nothing compared yet" in cameras.status("total")[0].message
    plane = np.full(SIZE, 2.5)
    plane[:24] = 5.0
    for _ in range(5):
        cameras.send("depth/camera_info")
        cameras.send("reference/camera_info", fx=120.0, size=(96, 128))
        cameras.send("depth/image_rect", plane + 0.25)
        cameras.send("uncertainty/image", np.where(plane > 3, 0.3, 0.1))
        cameras.send("reference/image", np.kron(plane, np.ones((2, 2))), delay_s=0.01)
        cameras.next_frame()
    cameras.send("depth/image_rect", plane)  # without a partner: too far in time
    cameras.send("reference/image", np.kron(plane, np.ones((2, 2))), delay_s=0.05)
    assert cameras.spin_until(lambda: cameras.status("total")[0].message == "5 frames")
    status, values = cameras.status("total")
    assert ord(status.level) == 0
    assert values["bias_m"] == pytest.approx(0.25, abs=0.01)
    assert values["abs_rel"] == pytest.approx(0.075, abs=0.003)
    assert values["delta1"] == 1.0
    assert values["within_1_sigma"] == pytest.approx(0.5, abs=0.03)  # only the far half
    assert values["median_time_difference_s"] == pytest.approx(0.01)
    assert values["unmatched"] == 1
    _, near = cameras.status("2 to 3 m")
    assert near["pixels"] == pytest.approx(5 * 24 * 64, rel=0.05)
    cameras.listen_late()
    assert cameras.spin_until(lambda: cameras.summaries)
    assert json.loads(cameras.summaries[0].data)["frames"] == 5
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames"] == 5
    assert summary["total"]["rms_m"] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("topic", "pixels", "rectified"),
    [
        ("depth_registered/image_rect", "auto", True),
        ("depth/image_raw", "auto", False),
        ("depth/image_raw", "rectified", True),
    ],
)
def test_a_rectified_reference_is_read_by_p_a_raw_one_by_k_and_d(start, topic, pixels, rectified):
    """One camera_info for raw and rectified images of one camera, as image_pipeline has it."""
    k, d, p_focal = 60.0, [-0.3, 0.1, 0.0, 0.0, 0.0], 45.0
    v, u = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    centre = ((SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2)
    matrix = np.array([[k, 0, centre[0]], [0, k, centre[1]], [0, 0, 1.0]])
    rays = cv2.undistortPoints(np.stack([u, v], axis=-1).reshape(-1, 1, 2), matrix, np.array(d))
    rays = rays.reshape(*SIZE, 2)

    def slanted(x, y):
        return 2.0 / (1 + 0.6 * x - 0.4 * y)

    raw = slanted(rays[..., 0], rays[..., 1])
    flat = slanted((u - centre[0]) / p_focal, (v - centre[1]) / p_focal)
    p = [p_focal, 0.0, centre[0], 0.0, 0.0, p_focal, centre[1], 0.0, 0.0, 0.0, 1.0, 0.0]
    fields = {"d": d, "p": p, "distortion_model": "plumb_bob"}
    cameras, _ = start(reference=topic, reference_pixels=pixels, stride=1)
    cameras.ready()
    for name in ("depth/camera_info", "reference/camera_info"):
        cameras.send(name, **fields)
    cameras.next_frame()
    cameras.send("depth/image_rect", raw)  # our node does not rectify
    cameras.send("reference/image", flat if rectified else raw)
    assert cameras.spin_until(lambda: cameras.status("total")[0].message == "1 frames")
    _, values = cameras.status("total")
    assert values["pixels"] > 0.9 * raw.size
    slope_m = np.abs(np.gradient(flat)).max()  # per pixel: the nearest one is taken
    assert values["rms_m"] < 0.5 * slope_m


def test_a_reference_that_rectifying_turned_is_not_laid_over_raw_pixels():
    """As of a stereo pair, whose R is no identity."""
    turned = cv2.Rodrigues(np.array([0.0, 0.02, 0.0]))[0].ravel().tolist()
    k = [600.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]
    p = [600.0, 0.0, 320.0, 0.0, 0.0, 600.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    reference = CameraInfo(height=480, width=640, k=k, p=p, r=turned)
    rectified = CameraInfo(height=480, width=640, k=k, p=p, r=np.eye(3).ravel().tolist())
    optics = Optics(Intrinsics(640, 480, tuple(k), tuple(p)), rectified=True)
    raw = replace(optics, rectified=False)
    _refuse_rotation(rectified, reference, optics)  # both rectified: our node says R = 1
    _refuse_rotation(reference, reference, raw)  # both raw
    _refuse_rotation(reference, rectified, optics)
    _refuse_rotation(CameraInfo(k=k), CameraInfo(k=k), optics)  # a driver that fills K alone
    with pytest.raises(ComparisonError, match=r"turns by 1\.1 degrees.*input_rectified"):
        _refuse_rotation(reference, reference, optics)


def test_another_frame_needs_extrinsics(start):
    cameras, _ = start()
    cameras.ready()
    for _ in range(3):
        cameras.send("depth/image_rect", np.full(SIZE, 2.0))
        cameras.send("reference/image", np.full(SIZE, 2.0), frame="other_camera")
        cameras.next_frame()
    assert cameras.spin_until(lambda: "extrinsics" in cameras.status("total")[0].message)
    assert ord(cameras.status("total")[0].level) == 1


def test_other_sizes_need_both_camera_infos(start):
    cameras, _ = start(assume_registered=True)
    cameras.ready()
    cameras.send("depth/camera_info")
    for _ in range(3):
        cameras.send("depth/image_rect", np.full(SIZE, 2.0))
        cameras.send("reference/image", np.full((96, 128), 2.0), frame="other_camera")
        cameras.next_frame()
    assert cameras.spin_until(
        lambda: "remap reference/camera_info" in cameras.status("total")[0].message
    )


def test_a_stream_that_stops_is_told(start):
    cameras, _ = start()
    cameras.ready()
    for _ in range(3):
        cameras.send("depth/image_rect", np.full(SIZE, 2.0))
        cameras.send("reference/image", np.full(SIZE, 2.0))
        cameras.next_frame()
    assert cameras.spin_until(lambda: cameras.status("total")[0].message == "3 frames")
    assert cameras.spin_until(lambda: "nothing compared for" in cameras.status("total")[0].message)
    status, values = cameras.status("total")
    assert ord(status.level) == 1
    assert values["pixels"] > 0  # what was compared stays
    cameras.send("depth/image_rect", np.full(SIZE, 2.0))
    cameras.send("reference/image", np.full(SIZE, 2.0))
    assert cameras.spin_until(lambda: cameras.status("total")[0].message == "4 frames")
    assert ord(cameras.status("total")[0].level) == 0


def test_misspelt_parameters_are_told(start, tmp_path):
    with (tmp_path / "log").open("wb") as log:
        cameras, _ = start(log=log, max_time_diff_s=0.1)
        cameras.ready()
    said = (tmp_path / "log").read_text()
    assert "got also max_time_diff_s, which nothing reads" in said
    assert "max_time_difference_s" in said


@pytest.mark.parametrize(
    "wrong", ["stride:=0", "reference_pixels:=bent", "report_period_s:=.inf", "no value"]
)
def test_a_wrong_parameter_is_named(wrong):
    command = [sys.executable, "-m", "ddfd_ros.ros.compare_main", "--ros-args"]
    result = subprocess.run(
        [*command, "-p", wrong], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert wrong.partition(":")[0] in result.stderr + result.stdout
