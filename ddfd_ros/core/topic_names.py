"""What the image topics of a recording show, as far as their names tell."""

from __future__ import annotations

from collections.abc import Mapping

_NO_COLOUR = (
    "depth", "disparity", "mask", "sigma", "uncertainty", "confidence", "defocus", "infra",
)  # fmt: skip
_ANSWERS = (
    "depth/image_rect", "depth/color", "depth/zones", "all_in_focus/image", "uncertainty/image",
    "defocus/image",
)  # fmt: skip


def is_answer(topic: str) -> bool:
    """Whether a topic has the name of one of this project's answers.

    A field test records them beside the camera's images. They are neither a camera's picture, from
    which the blur is gone, nor a measured depth. Others use some of these names too, so this can
    only say which of several topics is the likelier one.
    """
    image = topic.removesuffix("/compressed").removesuffix("/compressedDepth")
    plain = f"/{image.lstrip('/')}"
    return plain.endswith(tuple(f"/{name}" for name in _ANSWERS))


def is_colour(topic: str) -> bool:
    """Whether a topic may well have a camera's colour images."""
    return not (is_answer(topic) or any(word in topic.lower() for word in _NO_COLOUR))


def likeliest_camera(messages: Mapping[str, int]) -> str:
    """The topic that most likely has a camera's colour images.

    Args:
        messages: How many each image topic has; at least one topic.
    """
    return min(messages, key=lambda topic: (not is_colour(topic), -messages[topic], topic))
