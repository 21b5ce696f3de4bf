"""Encodings beyond the codec's own go to cv_bridge, where there is one."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from ddfd_ros.core.errors import ImageFormatError
from ddfd_ros.ros import decoding

RGB = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)


@pytest.fixture
def bridge(monkeypatch):
    """A ``cv_bridge`` that answers what the test puts into ``answer``."""
    module = ModuleType("cv_bridge")
    module.asked = []

    class CvBridge:
        def imgmsg_to_cv2(self, message, encoding):
            module.asked.append((message.encoding, encoding))
            if isinstance(module.answer, Exception):
                raise module.answer
            return module.answer

    module.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, "cv_bridge", module)
    decoding._bridge.cache_clear()
    yield module
    decoding._bridge.cache_clear()


def test_what_the_codec_does_not_know_goes_to_the_bridge(bridge, tools):
    message = tools.image_message(RGB)
    message.encoding = "nv21"
    bridge.answer = RGB
    np.testing.assert_array_equal(decoding.decode_message(message), RGB)
    assert bridge.asked == [("nv21", "rgb8")]


def test_what_the_codec_knows_does_not(bridge, tools):
    np.testing.assert_array_equal(decoding.decode_message(tools.image_message(RGB)), RGB)
    message = tools.image_message(RGB)
    message.encoding = "32FC1"
    with pytest.raises(ImageFormatError, match="it is depth"):
        decoding.decode_message(message)
    assert bridge.asked == []


@pytest.mark.parametrize(
    "answer", [TypeError("no such conversion"), RGB[..., 0], RGB.astype(np.uint16)]
)
def test_what_the_bridge_cannot_convert_is_named(bridge, tools, answer):
    message = tools.image_message(RGB)
    message.encoding = "8UC7"
    bridge.answer = answer
    with pytest.raises(ImageFormatError, match="8UC7"):
        decoding.decode_message(message)


@pytest.mark.parametrize("error", [ImportError("absent"), AttributeError("_ARRAY_API not found")])
def test_a_bridge_that_is_absent_or_broken_changes_nothing(monkeypatch, tools, error):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise error

    monkeypatch.setitem(sys.modules, "cv_bridge", Broken("cv_bridge"))
    decoding._bridge.cache_clear()
    message = tools.image_message(RGB)
    message.encoding = "nv21"
    with pytest.raises(ImageFormatError, match="expected one of .*got 'nv21'"):
        decoding.decode_message(message)
    decoding._bridge.cache_clear()
