"""Random changes of a crop beside cutting and mirroring, for small sets of images.

``eigen`` is for sharp images (Eigen et al. 2014, section 3.4): scale, rotation, colour. Not for
defocused ones: scaling changes the blur without changing the distance it tells. Scaling an image
by s is as if everything were s times nearer, so depth is divided by s.

``colour`` is for both: a linear mix of the channels commutes with blur, so the cue stays as it is,
and a few photographs cannot be told by their colours any more.
"""

from __future__ import annotations

import cv2
import numpy as np

AUGMENTATIONS = ("none", "colour", "eigen")
LARGEST_SCALE = 1.5
LARGEST_ROTATION_DEG = 5.0
COLOUR_RANGE = (0.8, 1.2)
GAIN_RANGE = (0.6, 1.1)
LARGEST_TINT = 0.25


def augment(item: dict[str, np.ndarray], random: np.random.Generator) -> dict[str, np.ndarray]:
    """One random change of a crop; image and truth stay aligned.

    Args:
        item: ``image`` and ``sharp_rgb``, uint8 or uint16 ``[h, w, 3]``; ``depth_m`` and
            ``sharp_known``, ``[h, w]``.
        random: Decides the change.

    Returns:
        The same keys, shapes and types; depth is NaN and ``sharp_known`` false where the rotation
        has brought in what lies outside the crop.
    """
    height, width = item["depth_m"].shape
    scale = random.uniform(1.0, LARGEST_SCALE)
    angle = random.uniform(-LARGEST_ROTATION_DEG, LARGEST_ROTATION_DEG)
    colour = random.uniform(*COLOUR_RANGE, size=3)
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)

    def warp(image: np.ndarray, how: int, outside: float = 0.0) -> np.ndarray:
        return cv2.warpAffine(
            np.ascontiguousarray(image), turn, (width, height), flags=how,
            borderMode=cv2.BORDER_CONSTANT, borderValue=(outside,) * 4,
        )  # fmt: skip

    result = {}
    for key in ("image", "sharp_rgb"):
        kind = item[key].dtype
        turned = warp(item[key], cv2.INTER_LINEAR) * colour
        result[key] = np.clip(np.rint(turned), 0, np.iinfo(kind).max).astype(kind)
    depth_m = warp(item["depth_m"].astype(np.float32), cv2.INTER_NEAREST, float("nan"))
    result["depth_m"] = (depth_m / scale).astype(np.float32)
    known = warp(item["sharp_known"].astype(np.uint8), cv2.INTER_NEAREST)
    result["sharp_known"] = known.astype(bool)
    return result


def recolour(item: dict[str, np.ndarray], random: np.random.Generator) -> dict[str, np.ndarray]:
    """Brightness, tint and saturation changed alike in the image and its sharp original.

    Each new channel is a weighted sum of the old ones: some way towards a grey of random weights,
    times a gain. Few pixels are cut off at white, since gains are mostly below one.

    Args:
        item: With ``image`` and ``sharp_rgb``, uint8 or uint16 ``[h, w, 3]``.
        random: Decides the change.

    Returns:
        The same keys, shapes and types.
    """
    grey = random.dirichlet(np.ones(3))
    towards = random.random() ** 2  # mostly colourful
    gain = random.uniform(*GAIN_RANGE) * random.uniform(1 - LARGEST_TINT, 1 + LARGEST_TINT, size=3)
    mix = gain[:, None] * ((1 - towards) * np.eye(3) + towards * grey[None])
    result = dict(item)
    for key in ("image", "sharp_rgb"):
        most = np.iinfo(item[key].dtype).max
        mixed = cv2.transform(np.ascontiguousarray(item[key], dtype=np.float32), mix)
        result[key] = np.clip(np.rint(mixed), 0, most).astype(item[key].dtype)
    return result


def move(
    item: dict[str, np.ndarray], longest_px: float, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """The image as a camera takes it that moves in a straight line while the shutter is open.

    Args:
        item: With ``image`` uint8 or uint16 ``[h, w, 3]``, and ``sharp_known`` ``[h, w]``.
        longest_px: The longest movement, in pixels.
        random: Decides length and direction.

    Returns:
        The same keys, shapes and types; no sharp pixel is known any more.
    """
    length, angle = random.uniform(2.0, max(longest_px, 2.0)), random.uniform(0.0, np.pi)
    side = 2 * int(np.ceil(length / 2)) + 3
    ends = np.array([np.cos(angle), np.sin(angle)]) * (length / 2)
    middle, bits = side // 2, 8
    first, last = (np.rint((middle + s * ends) * 2**bits).astype(int).tolist() for s in (-1, 1))
    line = np.zeros((side, side), np.uint8)
    cv2.line(line, first, last, 255, 1, cv2.LINE_AA, bits)
    kernel = line.astype(np.float32)
    moved = cv2.filter2D(
        item["image"].astype(np.float32), -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT
    )
    image = np.rint(moved).astype(item["image"].dtype)
    return {**item, "image": image, "sharp_known": np.zeros_like(item["sharp_known"])}
