"""Point cloud messages: their bytes, read by other means; the same with sensor_msgs_py."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, PointField
from std_msgs.msg import Header

from ddfd_ros.core.point_cloud import XYZ, XYZRGB, pack_rgb
from ddfd_ros.core.preprocessing import Intrinsics
from ddfd_ros.core.types import Estimate
from ddfd_ros.ros import cloud as module
from ddfd_ros.ros.camera import PublishedCamera
from ddfd_ros.ros.cloud import cloud_message
from ddfd_ros.ros.outputs import CLOUD, Demand
from ddfd_ros.ros.parameters import NodeParameters
from ddfd_ros.ros.products import FrameResult, Products

RNG = np.random.default_rng(2)


def _points(kind, shape):
    points = np.empty(shape, kind)
    for name in "xyz":
        points[name] = RNG.normal(size=shape)
    if kind is XYZRGB:
        points["rgb"] = pack_rgb(RNG.integers(0, 256, (*points.shape, 3), np.uint8))
    return points


CASES = [(kind, shape) for kind in (XYZ, XYZRGB) for shape in ((7,), (4, 6), (0,), (1, 5))]


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_fields_and_layout(kind, shape):
    points, header = _points(kind, shape), Header(frame_id="camera")
    message = cloud_message(points, header)
    rows, columns = shape if len(shape) == 2 else (1, shape[0])
    assert (message.height, message.width) == (rows, columns)
    assert message.point_step == 4 * len(message.fields)
    assert message.row_step == message.point_step * columns
    assert len(message.data) == message.row_step * rows
    assert message.is_dense is (len(shape) == 1)
    assert not message.is_bigendian
    assert message.header.frame_id == "camera"
    assert [f.name for f in message.fields] == list(kind.names)
    assert all(f.datatype == PointField.FLOAT32 and f.count == 1 for f in message.fields)
    for v in range(rows):
        for u in range(columns):
            start = v * message.row_step + u * message.point_step
            point = points[v, u] if len(shape) == 2 else points[u]
            for f in message.fields:
                (value,) = struct.unpack_from("<f", message.data, start + f.offset)
                if f.name == "rgb":  # bits, which may happen to be a NaN
                    raw = message.data[start + f.offset : start + f.offset + 4].tobytes()
                    assert raw == point["rgb"].tobytes()
                else:
                    assert value == point[f.name]


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_the_bytes_are_those_of_sensor_msgs_py(kind, shape, monkeypatch):
    reference = pytest.importorskip("sensor_msgs_py.point_cloud2")
    points, header = _points(kind, shape), Header(frame_id="camera")
    monkeypatch.setattr(module, "create_cloud", None)
    plain = cloud_message(points, header)
    monkeypatch.setattr(module, "create_cloud", reference.create_cloud)
    assert cloud_message(points, header) == plain
    read = reference.read_points(plain)
    for name in "xyz":
        np.testing.assert_array_equal(read[name], points.reshape(-1)[name])


def test_a_repeated_depth_has_no_points_between_two_objects():
    """At a quarter of the scale a sample lies in the middle of a pixel of the network."""
    seen_m = np.full((12, 16), 1.0, np.float32)
    seen_m[:, 8], seen_m[:, 9:] = 2.0, 4.0
    depth_m = seen_m.repeat(4, axis=0).repeat(4, axis=1)
    k = (60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0)
    info = CameraInfo(width=64, height=48, distortion_model="plumb_bob", d=[0.0] * 5, k=k)
    published = PublishedCamera(Intrinsics(64, 48, k, (*info.p,)), "", info, (48, 64))
    result = FrameResult(
        Estimate(depth_m=depth_m),
        np.zeros((48, 64, 3), np.uint8),
        published,
        Header(),
        scales=(0.25, 0.25),
    )
    messages = Products().images(Demand(frozenset({CLOUD})), result, None, NodeParameters())
    z = np.frombuffer(messages[CLOUD].data, np.float32).reshape(-1, 3)[:, 2]
    assert np.unique(z).tolist() == [1.0, 4.0]
    assert len(z) == 12 * (16 - 3)  # of the three columns with a jump there is no point


def test_a_limit_of_the_cloud_that_the_model_cannot_apply_is_refused(stage, tools):
    model = tools.write_model(stage.folder / "no_sigma.onnx", heads=("depth_m",), golden=None)
    stage.start(model_path=model, autostart=False, self_test=False)
    peer = stage.peer
    assert peer.transition("configure")
    assert "cloud_max_sigma_m: expected no limit, got 0.5" in peer.set(cloud_max_sigma_m=0.5)[0]
    assert peer.transition("cleanup")
    assert peer.set(cloud_max_sigma_m=0.5) == [""]
    assert not peer.transition("configure")
    assert "cloud_max_sigma_m" in peer.report(level="2")["message"]
