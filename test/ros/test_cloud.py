"""Point cloud messages: their bytes, read by other means; the same with sensor_msgs_py."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from sensor_msgs.msg import PointField
from std_msgs.msg import Header

from ddfd_ros.core.point_cloud import XYZ, XYZRGB, pack_rgb
from ddfd_ros.ros import cloud as module
from ddfd_ros.ros.cloud import cloud_message

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
