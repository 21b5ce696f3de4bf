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
    """256 colours from near to far, uint8 ``[256, 3]`` RGB; none of them is black."""
    places = np.linspace(0.0, 1.0, 256)
    anchors = np.array([place for place, _ in _ANCHORS])
    colours = np.array([colour for _, colour in _ANCHORS], np.float64)
    channels = [np.interp(places, anchors, colours[:, i]) for i in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def colour_depth(depth_m: np.ndarray, near_m: float, far_m: float) -> np.ndarray:
    """The preview of a depth image, uint8 ``[H, W, 3]`` RGB.

    Args:
        depth_m: float32 ``[H, W]`` in metres; NaN is black, -Inf counts as near, +Inf as far.
        near_m: Distance with the first colour, nearer ones have it too; more than 0.
        far_m: Distance with the last colour, likewise; more than ``near_m``.

    Colours go by inverse depth, in which a lens's blur is even.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        place = (1.0 / near_m - 1.0 / np.maximum(depth_m, np.float32(near_m))) * np.float32(
            1.0 / (1.0 / near_m - 1.0 / far_m)
        )
        known = ~np.isnan(depth_m)
        index = np.where(known, np.clip(place, 0.0, 1.0) * 255.0, 0.0).astype(np.uint8)
    colours = palette()[index]
    colours[~known] = 0
    return colours
