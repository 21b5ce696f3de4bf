"""What is told from the names of recorded topics."""

from __future__ import annotations

import pytest

from ddfd_ros.core.topic_names import is_answer, is_colour


@pytest.mark.parametrize(
    ("topic", "colour", "answer"),
    [
        ("/image_raw", True, False),
        ("/front/color/image_raw/compressed", True, False),
        ("/camera/aligned_depth_to_color/image_raw", False, False),
        ("/camera/infra1/image_rect_raw", False, False),
        ("/all_in_focus/image", False, True),
        ("/front/all_in_focus/image/compressed", False, True),
        ("/depth/image_rect", False, True),
        ("/front/depth/image_rect/compressedDepth", False, True),
        ("/camera/depth/image_raw/compressedDepth", False, False),
        ("/front/uncertainty/image", False, True),
        ("/defocus/image", False, True),
        ("all_in_focus/image", False, True),
        ("/not_all_in_focus/image", True, False),
    ],
)
def test_answers_and_depth_are_not_taken_for_a_cameras_pictures(topic, colour, answer):
    assert is_colour(topic) is colour
    assert is_answer(topic) is answer
