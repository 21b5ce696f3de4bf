"""Malformed messages by the thousand, through the real node in this process.

Hypothesis makes the messages; an independent reading of the message's fields, written below, says
which of them must be answered and with which depth, and which must not. ``DDFD_FUZZ_CASES`` sets
how many there are.
"""

from __future__ import annotations

import array
import itertools
import math
import os
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

pytest.importorskip("hypothesis")

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, given, settings

CASES = int(os.environ.get("DDFD_FUZZ_CASES", "10000"))
BATCH = 20
MIN_SIDE = 32
SPECIAL = [0.0, -0.0, -1.0, 1e-30, 1e300, math.nan, math.inf, -math.inf]
HUGE = [2**16, 2**31 - 1, 2**31, 2**32 - 1]

# Bytes per value, bytes per pixel, and where in a pixel the red value begins (-1: not looked at).
LAYOUTS = {
    "rgb8": (1, 3, 0),
    "bgr8": (1, 3, 2),
    "rgba8": (1, 4, 0),
    "bgra8": (1, 4, 2),
    "mono8": (1, 1, 0),
    "rgb16": (2, 6, 0),
    "bgr16": (2, 6, 4),
    "mono16": (2, 2, 0),
    "bayer_rggb8": (1, 1, -1),
    "uyvy": (1, 2, -1),
}
NOT_ENCODINGS = ["", "rgb9", "RGB8", "rgb8 ", "bayer_", "mono", "depth", "\x01", "é8", "r" * 300]


@dataclass(frozen=True)
class Case:
    """An image message's fields, the number its data is made from, and a camera_info or None."""

    encoding: str
    height: int
    width: int
    extra_step: int
    extra_data: int
    is_bigendian: int
    sec: int
    nanosec: int
    frame_id: str
    seed: int
    info: dict | None


UINT32 = st.one_of(st.integers(0, 100), st.sampled_from(HUGE))
SIDES = st.one_of(st.integers(0, 40), st.sampled_from(HUGE))
NUMBERS = st.one_of(st.sampled_from(SPECIAL), st.floats(1, 1000))
INFOS = st.fixed_dictionaries(
    {
        "size": st.tuples(UINT32, UINT32),
        "binning": UINT32,
        "roi": st.tuples(UINT32, UINT32, UINT32, UINT32),
        "numbers": st.lists(NUMBERS, min_size=1, max_size=5),
    }
)
# What a C string can hold: DDS ends a string at its first zero byte.
FRAME_ID_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
FAULTS = {
    "encoding": st.sampled_from(NOT_ENCODINGS),
    "height": SIDES,
    "width": SIDES,
    "extra_step": st.one_of(st.integers(-70, 70), st.sampled_from(HUGE)),
    "extra_data": st.one_of(st.integers(-200, 200), st.integers(-20000, 0)),
    "is_bigendian": st.integers(0, 255),
    "sec": st.integers(-(2**31), 2**31 - 1),
    "nanosec": st.integers(0, 2**32 - 1),
    "frame_id": st.text(FRAME_ID_CHARACTERS, max_size=30),
    "info": INFOS,
}
FAULT = st.one_of(*(st.tuples(st.just(name), values) for name, values in FAULTS.items()))


def _case(seed, faults):
    """A good message, made from a number, with up to three of its fields spoilt."""
    number = np.random.default_rng(seed)
    good = {
        "encoding": list(LAYOUTS)[number.integers(len(LAYOUTS))],
        "height": int(number.integers(30, 72)),
        "width": int(number.integers(30, 72)),
        "extra_step": int(number.choice([0, 0, 4, 13])),
        "extra_data": 0,
        "is_bigendian": int(number.integers(2)),
        "sec": int(number.integers(2**31)),
        "nanosec": int(number.integers(10**9)),
        "frame_id": "camera",
        "info": None,
    }
    return Case(seed=seed, **(good | dict(faults)))


CASE = st.builds(_case, st.integers(0, 2**32 - 1), st.lists(FAULT, max_size=3))


def _message(case):
    """The case as a message, and its data."""
    value_bytes, pixel_bytes, _ = LAYOUTS.get(case.encoding, (1, 3, 0))
    step = min(max(case.width * pixel_bytes + case.extra_step, 0), 2**32 - 1)
    size = min(max(step * case.height + case.extra_data, 0), 100_000)
    data = np.random.default_rng(case.seed).integers(0, 256, size, np.uint8)
    message = Image(height=case.height, width=case.width, encoding=case.encoding, step=step)
    message.is_bigendian = case.is_bigendian
    message.header.stamp.sec, message.header.stamp.nanosec = case.sec, case.nanosec
    message.header.frame_id = case.frame_id
    message.data = array.array("B", data.tobytes())
    return message, data


def _camera_info(values):
    width, height = values["size"]
    info = CameraInfo(width=width, height=height)
    numbers = values["numbers"]
    fill = itertools.cycle(numbers)
    info.k, info.p = list(itertools.islice(fill, 9)), list(itertools.islice(fill, 12))
    info.d = numbers
    info.binning_x = info.binning_y = values["binning"]
    roi = info.roi
    roi.x_offset, roi.y_offset, roi.width, roi.height = values["roi"]
    return info


def _readable(case, message):
    """Whether the fields hold together: True, False, or None where both answers are right."""
    if case.encoding not in LAYOUTS or not case.height or not case.width:
        return False
    value_bytes, pixel_bytes, _ = LAYOUTS[case.encoding]
    if message.step < case.width * pixel_bytes or message.step % value_bytes:
        return False
    if len(message.data) < message.step * (case.height - 1) + case.width * pixel_bytes:
        return False
    if case.encoding == "uyvy" and case.width % 2:
        return False
    return True if min(case.height, case.width) >= MIN_SIDE else None


def _check_depth(case, message, data, depth):
    """Some pixels of the answer against the bytes they come from, one at a time."""
    value_bytes, pixel_bytes, red = LAYOUTS[case.encoding]
    if red < 0:
        return
    for row in (0, case.height // 2, case.height - 1):
        for column in (0, case.width // 3, case.width - 1):
            at = row * message.step + column * pixel_bytes + red
            high = value_bytes == 2 and not case.is_bigendian
            expected = 0.5 + int(data[at + high]) / 32
            assert depth[row, column] == pytest.approx(expected), (case, row, column)


class Bench:
    """The node in this process, a subscriber beside it, and the node's books."""

    def __init__(self, model):
        from ddfd_ros.ros.node import DdfdNode

        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=int(os.environ["ROS_DOMAIN_ID"]))
        values = {
            "model_path": str(model),
            "runtime": "onnxruntime",
            "threads": 1,
            "warm_up_height": 64,
            "warm_up_width": 96,
            "autostart": False,
            "max_age_s": 0.0,
            "diagnostics_period_s": 60.0,
        }
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.node = DdfdNode(context=self.context, parameter_overrides=overrides)
        self.node.trigger_configure()
        self.node.trigger_activate()
        assert self.node.state == "active"
        self.peer = rclpy.create_node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.peer)
        self.depths, self.infos = [], []
        qos = QoSProfile(depth=2 * BATCH)
        self.peer.create_subscription(Image, "depth/image_rect", self.depths.append, qos)
        self.peer.create_subscription(CameraInfo, "depth/camera_info", self.infos.append, qos)
        self._wait(lambda: self.peer.count_publishers("depth/camera_info") > 0)
        self.executor.spin_once(0.5)

    def close(self):
        self.executor.shutdown()
        assert self.node.close()
        self.peer.destroy_node()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def listen_to_cloud(self):
        """Subscribe to the point cloud as well; what comes is kept."""
        clouds = []
        subscription = self.peer.create_subscription(PointCloud2, "points", clouds.append, 50)
        self._wait(lambda: self.peer.count_publishers("points") > 0)
        self.executor.spin_once(0.5)
        return clouds, lambda: self.peer.destroy_subscription(subscription)

    def _wait(self, condition):
        for _ in range(2000):
            if condition():
                return
            self.executor.spin_once(0.01)
        raise AssertionError("nothing came within 20 s")

    def offer(self, message, info=None):
        """Hand a message to the node as its subscription does; whether it was answered."""
        runner = self.node._runner
        before = runner._worker.counts
        if info is not None:
            runner.take_camera_info(info)
        runner.submit(message)
        assert runner._worker.wait_idle(20)
        now = runner._worker.counts
        answered, failed = now.answered - before.answered, now.failed - before.failed
        assert (now.offered - before.offered, answered + failed) == (1, 1)
        return bool(answered)

    def books_balance(self):
        """Whether every message is counted as answered or failed, and none was dropped."""
        found = self.node._runner.snapshot()
        settled = found.answered + sum(found.failed.values())
        return found.received == settled and not found.dropped

    def collect(self, number):
        """The next ``number`` depths, in the order in which they were sent."""
        self._wait(lambda: len(self.depths) >= number)
        self.executor.spin_once(0)
        depths, infos = list(self.depths), list(self.infos)
        self.depths.clear()
        self.infos.clear()
        return depths, infos


@pytest.fixture(scope="module")
def bench(tools, tmp_path_factory):
    made = Bench(tools.write_model(tmp_path_factory.mktemp("fuzz") / "tiny.onnx"))
    yield made
    made.close()


def _settings(cases):
    return settings(
        max_examples=max(1, cases // BATCH),
        deadline=None,
        derandomize="DDFD_FUZZ_CASES" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # shrinking a whole batch takes minutes, and the case is printed
    )


def _header(message):
    stamp = message.header.stamp
    return stamp.sec, stamp.nanosec, message.header.frame_id


def test_no_message_ends_the_node_or_gets_the_stamp_of_another(bench):
    seen = {True: 0, False: 0}

    @_settings(CASES)
    @given(st.lists(CASE, min_size=BATCH, max_size=BATCH))
    def check(cases):
        answered = []
        for case in cases:
            message, data = _message(case)
            info = None if case.info is None else _camera_info(case.info)
            was_answered = bench.offer(message, info)
            expected = _readable(case, message)
            assert expected is None or was_answered == expected, case
            seen[was_answered] += 1
            if was_answered:
                answered.append((case, message, data))
        depths, infos = bench.collect(len(answered))
        assert list(map(_header, depths)) == [_header(message) for _, message, _ in answered]
        for (case, message, data), out in zip(answered, depths, strict=True):
            assert (out.height, out.width) == (case.height, case.width)
            values = np.frombuffer(out.data, np.float32).reshape(out.height, out.width)
            _check_depth(case, message, data, values)
        assert bench.books_balance()
        for info in infos:
            assert np.isfinite([*info.k, *info.p, *info.d]).all()
            assert 0 < min(info.width, info.height) <= max(info.width, info.height) < 2**15

    check()
    assert min(seen.values()) > CASES / 10, seen  # neither kind is rare


POSSIBLE = st.floats(0.5, 500)
NEARLY_RIGHT = st.fixed_dictionaries(
    {
        "k": st.lists(st.one_of(POSSIBLE, POSSIBLE, NUMBERS), min_size=9, max_size=9),
        "p": st.lists(st.one_of(POSSIBLE, POSSIBLE, NUMBERS), min_size=12, max_size=12),
        "d": st.lists(st.one_of(st.floats(-1, 1), st.just(0.0), NUMBERS), max_size=15),
        "distortion_model": st.sampled_from(
            ["plumb_bob", "rational_polynomial", "equidistant", "fisheye", "", "nonsense"]
        ),
        "scale": st.sampled_from([1, 1, 1, 2, 3, 1000]),
        "binning": st.sampled_from([0, 0, 1, 2, 2**32 - 1]),
        "roi": st.sampled_from([(0, 0, 0, 0), (0, 0, 64, 48), (9, 9, 64, 48), (2**31, 1, 64, 48)]),
    }
)


def _nearly_right(values):
    """A camera_info of a 64x48 camera, or of one that is a multiple of it."""
    scale = values["scale"] * min(max(1, values["binning"]), 2)
    info = CameraInfo(width=64 * scale, height=48 * scale)
    info.k, info.p, info.d = values["k"], values["p"], values["d"]
    info.k[8], info.p[10] = 1.0, 1.0
    info.distortion_model = values["distortion_model"]
    info.binning_x = info.binning_y = values["binning"]
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = values["roi"]
    return info


def test_no_camera_info_takes_the_depth_away(bench, tools):
    """Whatever the camera says about itself: the depth comes, and no cloud that is not a cloud."""
    clouds, leave = bench.listen_to_cloud()
    message = tools.image_message(tools.picture(48, 64, seed=3))
    made = 0

    @_settings(CASES // 10)
    @given(st.lists(NEARLY_RIGHT, min_size=BATCH, max_size=BATCH))
    def check(cases):
        nonlocal made
        for index, values in enumerate(cases):
            message.header.stamp.sec = index
            answered = bench.offer(message, _nearly_right(values))
            assert answered, (values, bench.node._runner.last_failure)
        depths, infos = bench.collect(BATCH)
        assert [m.header.stamp.sec for m in depths] == list(range(BATCH))
        for info in infos:
            assert (info.width, info.height) == (64, 48)
            assert np.isfinite([*info.k, *info.p, *info.d]).all()
        bench.executor.spin_once(0.01)
        made += len(clouds)
        for cloud in clouds:
            assert len(cloud.data) == cloud.row_step * cloud.height
            points = np.frombuffer(cloud.data, np.float32).reshape(-1, 3)
            assert np.isfinite(points).all()
        clouds.clear()

    try:
        check()
    finally:
        leave()
    assert made > CASES / 200  # some of them were calibrations


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "double", "zero"]), st.floats(0, 1), st.integers(0, 7)
    ),
    max_size=4,
)


def _mutate(data, mutations):
    data = bytearray(data)
    for kind, where, bit in mutations:
        at = int(where * (len(data) - 1)) if data else 0
        if kind == "flip" and data:
            data[at] ^= 1 << bit
        elif kind == "cut":
            del data[at : at + 2**bit]
        elif kind == "double":
            data[at:at] = data[at : at + 2**bit]
        elif kind == "zero":
            data[at : at + 2**bit] = bytes(len(data[at : at + 2**bit]))
    return bytes(data)


def test_no_damaged_jpeg_or_png_ends_the_node(bench, tools):
    cv2 = pytest.importorskip("cv2")
    picture = tools.picture(40, 56, seed=9)
    files = [cv2.imencode(suffix, picture)[1].tobytes() for suffix in (".png", ".jpg")]
    files += [b"", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\nIEND"]
    formats = ["jpeg", "png", "", "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth", "h264"]

    @_settings(CASES // 10)
    @given(
        st.lists(
            st.tuples(st.sampled_from(files), MUTATIONS, st.sampled_from(formats)),
            min_size=BATCH,
            max_size=BATCH,
        )
    )
    def check(cases):
        stamps = []
        for index, (file, mutations, kind) in enumerate(cases):
            message = CompressedImage(format=kind)
            message.header.stamp.sec = index
            message.data = array.array("B", _mutate(file, mutations))
            answered = bench.offer(message)
            if answered:
                stamps.append(index)
            if file in files[:2] and not mutations and kind in formats[:2]:
                assert answered
        depths, _ = bench.collect(len(stamps))
        assert [m.header.stamp.sec for m in depths] == stamps

    check()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_header_that_promises_gigabytes_is_refused(bench, tools, suffix):
    """A damaged size must not make the node ask for more memory than the machine has."""
    cv2 = pytest.importorskip("cv2")
    data = bytearray(cv2.imencode(suffix, tools.picture(40, 56))[1].tobytes())
    if suffix == ".png":
        data[16:24] = struct.pack(">II", 30000, 30000)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 30000, 30000)
    message = CompressedImage(format="jpeg", data=array.array("B", bytes(data)))
    assert not bench.offer(message)
    assert "30000x30000" in bench.node._runner.last_failure
