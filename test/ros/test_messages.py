"""Messages that are written into again and again must hold what a fresh one would."""

from __future__ import annotations

import numpy as np
import pytest
from std_msgs.msg import Header

from ddfd_ros.core.errors import ImageFormatError
from ddfd_ros.core.image_codec import decode, decode_depth
from ddfd_ros.ros.messages import ImageEncoder

RNG = np.random.default_rng(7)


def test_depth_and_pictures_over_changing_sizes_and_encodings():
    depth_encoder, picture_encoder = ImageEncoder(), ImageEncoder()
    for number, (height, width) in enumerate([(4, 6), (4, 6), (8, 3), (4, 6), (4, 6)]):
        header = Header(frame_id=str(number))
        depth_m = RNG.uniform(0.5, 10, (height + 2, width + 5)).astype(np.float32)
        depth_m = depth_m[:height, :width]  # a crop, as the backend returns it
        for encoding, tolerance in (("32FC1", 0), ("16UC1", 0.0005001), ("32FC1", 0)):
            message = depth_encoder.encode(depth_m, header, encoding)
            assert (message.height, message.width) == (height, width)
            assert (message.encoding, message.header.frame_id) == (encoding, str(number))
            assert message.step * height == len(message.data)
            assert np.abs(decode_depth(message) - depth_m).max() <= tolerance
        rgb = RNG.integers(0, 256, (height, width + 5, 3), np.uint8)[:, :width]
        message = picture_encoder.encode(rgb, header, "rgb8")
        assert message.header.frame_id == str(number)
        np.testing.assert_array_equal(decode(message), rgb)


def test_the_memory_is_kept_while_the_size_stays():
    encoder = ImageEncoder()
    depth_m = np.ones((4, 5), np.float32)
    first = encoder.encode(depth_m, Header(), "32FC1")
    assert encoder.encode(2 * depth_m, Header(), "32FC1") is first
    assert (decode_depth(first) == 2).all()
    assert encoder.encode(np.ones((4, 6), np.float32), Header(), "32FC1") is not first


def test_what_no_message_can_hold_is_refused():
    encoder = ImageEncoder()
    encoder.encode(np.ones((4, 5, 3), np.uint8), Header(), "rgb8")
    with pytest.raises(ImageFormatError, match="expected a uint8 array"):
        encoder.encode(np.ones((4, 5, 3), np.float32), Header(), "rgb8")
    with pytest.raises(ImageFormatError, match="expected one of"):
        encoder.encode(np.ones((4, 5), np.float32), Header(), "64FC1")
