"""Malformed messages over the wire: bytes that no well-behaved middleware would have sent.

The bytes of good messages are damaged after serialisation (cut, lengthened, flipped, overwritten
with lengths of gigabytes and with text that is not UTF-8) and published as they are.
"""

from __future__ import annotations

import os
import struct

import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo

pytest.importorskip("hypothesis")

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, given, settings

CASES = int(os.environ.get("DDFD_FUZZ_DDS_CASES", "300"))
BATCH = 20
STAMP_END = 12  # encapsulation, sec, nanosec

DAMAGE = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("add"), st.integers(1, 300)),
    st.tuples(st.just("flip"), st.integers(0, 120), st.integers(0, 7)),
    st.tuples(st.just("flip"), st.integers(0, 9000), st.integers(0, 7)),
    st.tuples(
        st.just("length"),
        st.integers(3, 16).map(lambda n: 4 * n),
        st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1]),
    ),
    st.tuples(st.just("text"), st.integers(STAMP_END, 60), st.binary(min_size=1, max_size=12)),
)
CASE = st.tuples(st.sampled_from(["image", "image", "info"]), st.lists(DAMAGE, max_size=3))


def _damage(data, damages):
    """The bytes, damaged behind the stamp or (a flip) in the encapsulation."""
    data = bytearray(data)
    for kind, *how in damages:
        if kind == "cut":
            del data[max(4, int(how[0] * len(data))) :]
        elif kind == "add":
            data += bytes(range(256))[: how[0]]
        elif kind == "flip":
            at = how[0] % len(data)
            if not 4 <= at < STAMP_END:
                data[at] ^= 1 << how[1]
        elif kind == "length":
            data[how[0] : how[0] + 4] = struct.pack("<I", how[1])
        elif kind == "text":
            data[how[0] : how[0] + len(how[1])] = how[1]
    return bytes(data)


def _stamp(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def _readings(data):
    """The stamp in these bytes, read in both byte orders."""
    data = data[4:STAMP_END].ljust(8, b"\0")
    return {struct.unpack("<iI", data), struct.unpack(">iI", data)}


def test_damaged_bytes_neither_end_the_node_nor_get_a_wrong_stamp(stage, tools):
    node = stage.start(max_age_s=0.0)
    peer = stage.peer
    peer.wait_for_camera()
    peer.wait_for_match(peer.info)
    peer.listen("depth", "depth_info")
    good = tools.image_message(tools.picture())
    info = CameraInfo(width=64, height=48, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0]
    number, answered = 0, 0

    @settings(
        max_examples=max(1, CASES // BATCH),
        deadline=None,
        derandomize="DDFD_FUZZ_DDS_CASES" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.lists(CASE, min_size=BATCH, max_size=BATCH))
    def check(cases):
        nonlocal number, answered
        allowed = set()
        for kind, damages in cases:
            number += 1
            message = good if kind == "image" else info
            message.header.stamp.sec, message.header.stamp.nanosec = number, 7
            data = _damage(serialize_message(message), damages)
            (peer.camera if kind == "image" else peer.info).publish(data)
            allowed |= _readings(data) if kind == "image" else set()
            peer.spin_for(0.005)
        stamp = peer.send(good)
        allowed.add(divmod(stamp, 10**9))
        assert peer.answer("depth", stamp) is not None, node.log[-3000:]
        assert node.process.poll() is None
        stamps = [_stamp(m) for m in peer.received["depth"]]
        assert set(stamps) <= allowed
        assert len(stamps) == len(set(stamps))
        answered += len(stamps) - 1
        peer.received["depth"].clear()

    check()
    assert CASES / 20 < answered < CASES  # damage behind the last pixel, and none, is answered
    assert node.process.poll() is None
    assert "Traceback" not in node.log
    peer.info.publish(info)
    peer.spin_for(0.2)
    stamp = peer.send(good)
    assert peer.answer("depth", stamp) is not None
    assert peer.answer("depth_info", stamp).k[0] == 50.0
    assert node.stop()[0] == 0
