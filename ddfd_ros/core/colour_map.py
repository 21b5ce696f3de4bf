"""A depth image as a picture for people: near is warm, far is cold, unknown is black."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_ANCHORS = (
    (0.00, (122, 4, 3)),
    (0.15, (219, 58, 7)),
    (0.30, (254, 155, 45)),
    (0.45, (225, 221, 55)),
    (0.60, (97, 252, 108)),
    (0.75, (26, 188, 207)),
    (0.90, (70, 107, 227)),
    (1.00, (48, 18, 90)),
)
"""Place between nearest and farthest, and its colour: monotonous in hue, dark at the far end."""


@lru_cache(maxsize=1)
def palette() -> np.ndarray:
    """256 colours, uint8 ``[256, 3]`` RGB: black for unknown, then 255 from near to far."""
    places = np.linspace(0.0, 1.0, 255)
    anchors = np.array([place for place, _ in _ANCHORS])
    colours = np.array([(0, 0, 0), *(colour for _, colour in _ANCHORS)], np.float64)
    channels = [np.interp(places, anchors, colours[1:, i]) for i in range(3)]
    return np.rint(np.vstack([colours[:1], np.stack(channels, axis=1)])).astype(np.uint8)


def colour_depth(depth_m: np.ndarray, near_m: float, far_m: float) -> np.ndarray:
    """The preview of a depth image, uint8 ``[H, W, 3]`` RGB.

    Args:
        depth_m: float32 ``[H, W]`` in metres; NaN is black, -Inf counts as near, +Inf as far.
        near_m: Distance with the first colour, nearer ones have it too; more than 0.
        far_m: Distance with the last colour, likewise; more than ``near_m``.

    Colours go by inverse depth, in which a lens's blur is even.
    """
    steps = 254.0 / (1.0 / near_m - 1.0 / far_m)
    place = np.maximum(depth_m, np.float32(near_m))  # keeps NaN
    np.divide(np.float32(-steps), place, out=place)
    place += np.float32(1.5 + steps / near_m)  # 1 to 255, rounded by the cast
    np.fmin(place, np.float32(255.0), out=place)  # NaN becomes 255
    index = place.astype(np.uint8)
    index *= depth_m == depth_m  # only NaN differs from itself
    return np.take(palette(), index, axis=0)
