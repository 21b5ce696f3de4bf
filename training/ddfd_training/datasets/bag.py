"""A ROS 2 bag with a colour and a depth topic: what a robot recorded, as it recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.core.topic_names import is_answer, is_colour, likeliest_camera
from ddfd_training.datasets.bag_reader import COMPRESSED, IMAGE, INFO, BagReader, Stamp
from ddfd_training.datasets.base import RgbdDataset, RgbdSample, part_of_recording
from ddfd_training.datasets.pairing import pair_nearest
from ddfd_training.datasets.rgbd_folder import given_lens

MAX_GAP_S = 0.02
"""Colour and depth further apart than this are not one moment (two thirds of a frame at 30 Hz)."""
MAX_INTRINSICS_DIFFERENCE = 0.02
INTRINSICS = tuple[float, float, float, float]


class Bag(RgbdDataset):
    """Frames of a bag that have both a colour image and a depth image.

    Images pair by the stamps in their headers (by the times of recording if the driver set none),
    nearest first, each used once. Depth must be registered to the colour camera, as
    ``aligned_depth_to_color`` or ``depth_registered`` are: the two ``camera_info`` are compared.

    Args:
        root: The bag's folder, or one ``.mcap`` or ``.db3`` file.
        split: ``all``.
        image_topic: Colour images (``Image`` or ``CompressedImage``); by default the most frequent
            topic whose name does not speak of depth.
        depth_topic: Depth (32FC1, 16UC1, or compressedDepth); by default the one whose name does.
        rgb_is: What the colour camera shows: ``sharp`` (blurred by the simulated lens) or
            ``defocused`` (used as it is).
        lens: The lens that took defocused images, or its four fields, if known.
        max_gap_s: Largest difference of the stamps of one pair.
        check_registration: Refuse depth that does not belong to the colour camera's view.

    Attributes:
        intrinsics: fx, fy, cx, cy in pixels of the colour camera, or ``None``.
        skipped: Numbers of colour and depth images without a partner.

    Raises:
        DatasetError: No bag, no such topics, no pairs, or depth of another camera's view.
    """

    name = "bag"

    def __init__(
        self,
        root: str | Path,
        split: str = "all",
        *,
        image_topic: str = "",
        depth_topic: str = "",
        rgb_is: str = "sharp",
        lens: LensConfig | Mapping[str, float] | None = None,
        max_gap_s: float = MAX_GAP_S,
        check_registration: bool = True,
    ) -> None:
        """Find the topics and pair their messages; images are read when asked for."""
        self.check_split(split)
        if rgb_is not in ("sharp", "defocused"):
            raise DatasetError(f"{self.name}: rgb_is: expected sharp or defocused, got {rgb_is!r}")
        self.rgb_is = rgb_is
        self.lens = given_lens(lens, self.name)
        self.blur = "rendered" if rgb_is == "sharp" else "natural"
        path = Path(root)
        if not path.exists():
            raise DatasetError(f"{self.name}: expected a bag at {path}, found none")
        self.reader = BagReader(path)
        self.image_topic, self.depth_topic = self._topics(image_topic, depth_topic)
        self.pairs, self.skipped = self._pair(max_gap_s)
        # Times of the colour images in nanoseconds.
        self.frame_names = [str(image.taken_ns or image.recorded_ns) for image, _ in self.pairs]
        self.intrinsics = self._info(self.image_topic)[0]
        if check_registration:
            self._check_registration()

    def scene_of(self, index: int) -> str:
        """A part of the recording, see :func:`part_of_recording`."""
        return part_of_recording(index, len(self))

    def _topics(self, image: str, depth: str) -> tuple[str, str]:
        """The colour and the depth topic: those asked for, or the likeliest."""
        counts = self.reader.topics(IMAGE, COMPRESSED)
        listed = ", ".join(sorted(self.reader.topics())) or "none"
        for wanted in (image, depth):
            if wanted and wanted not in counts:
                raise DatasetError(
                    f"{self.reader.path}: expected images on {wanted}, got the topics {listed}"
                )
        colours = [t for t in counts if is_colour(t)]
        depths = [t for t in counts if "depth" in t.lower() and t != image]
        registered = [t for t in depths if "aligned" in t or "registered" in t]
        for what, chosen, candidates in (("colour", image, colours), ("depth", depth, depths)):
            if not chosen and not candidates:
                raise DatasetError(
                    f"{self.reader.path}: expected a topic with {what} images, got {listed}; give "
                    f"{'image' if what == 'colour' else 'depth'}_topic"
                )
        return (
            image or likeliest_camera(counts),
            depth or min(registered or depths, key=lambda t: (is_answer(t), -counts[t], t)),
        )

    def _pair(self, max_gap_s: float) -> tuple[list[tuple[Stamp, Stamp]], tuple[int, int]]:
        """Pairs of stamps, and how many images of either topic have no partner."""
        images = self.reader.stamps(self.image_topic)
        depths = self.reader.stamps(self.depth_topic)
        stamped = all(stamp.taken_ns for stamp in (*images, *depths))
        start = min((s.taken_ns if stamped else s.recorded_ns) for s in (*images, *depths))
        times = [
            [((s.taken_ns if stamped else s.recorded_ns) - start) * 1e-9 for s in stamps]
            for stamps in (images, depths)
        ]
        found = pair_nearest(times[0], times[1], max_gap_s)
        if not found:
            raise DatasetError(
                f"{self.reader.path}: expected images of {self.image_topic} and "
                f"{self.depth_topic} at most {max_gap_s} s apart, got none among "
                f"{len(images)} and {len(depths)}; were both cameras' clocks set?"
            )
        pairs = [(images[i], depths[j]) for i, j in found]
        return pairs, (len(images) - len(found), len(depths) - len(found))

    def _info(self, topic: str) -> tuple[INTRINSICS | None, tuple[int, int]]:
        """Intrinsics and size (height, width) from the topic's camera_info, if it has one."""
        parts = topic.removesuffix("/compressed").removesuffix("/compressedDepth").split("/")
        sibling = "/".join([*parts[:-1], "camera_info"])
        if sibling not in self.reader.topics(INFO):
            return None, (0, 0)
        message = self.reader.message(sibling)
        k = np.asarray(message.k, dtype=float)
        if k[0] <= 0:  # how a driver says that the camera is not calibrated
            return None, (0, 0)
        return (k[0], k[4], k[2], k[5]), (int(message.height), int(message.width))

    def _check_registration(self) -> None:
        """Refuse a depth camera with another view than the colour camera."""
        colour, colour_size = self._info(self.image_topic)
        depth, depth_size = self._info(self.depth_topic)
        if colour is None or depth is None or not all((*colour_size, *depth_size)):
            return
        scale = depth_size[1] / colour_size[1]
        off = np.abs(np.array(depth) / scale - np.array(colour)) / colour_size[1]
        if off.max() > MAX_INTRINSICS_DIFFERENCE:
            raise DatasetError(
                f"{self.reader.path}: expected depth in the colour camera's view, got intrinsics "
                f"{np.round(depth, 1).tolist()} at {depth_size} against "
                f"{np.round(colour, 1).tolist()} at {colour_size}; record the registered depth "
                "(aligned_depth_to_color, depth_registered), or say check_registration: false"
            )

    def settings(self) -> tuple[str, ...]:
        """The bag and its topics."""
        return (self.reader.path.name, self.image_topic, self.depth_topic)

    def read(self, index: int) -> RgbdSample:
        """Read pair ``index``: uint8 ``[H, W, 3]``, depth float32 ``[H, W]``."""
        image_stamp, depth_stamp = self.pairs[index]
        rgb = self.reader.image(self.image_topic, image_stamp)
        depth_m = self.reader.depth_m(self.depth_topic, depth_stamp)
        if depth_m.shape != rgb.shape[:2]:
            depth_m = self._resized(depth_m, rgb.shape[:2])
        images: dict[str, Any] = (
            {"sharp_rgb": rgb} if self.rgb_is == "sharp" else {"defocused_rgb": rgb}
        )
        return RgbdSample(self.frame_names[index], depth_m, lens=self.lens, **images)

    def _resized(self, depth_m: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Registered depth of another size, by nearest neighbour."""
        ratio = [a / b for a, b in zip(shape, depth_m.shape, strict=True)]
        if abs(ratio[0] / ratio[1] - 1) > 0.01:
            raise DatasetError(
                f"{self.reader.path}: expected colour and depth images of one shape, got {shape} "
                f"and {depth_m.shape}; record the registered depth"
            )
        return cv2.resize(depth_m, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST_EXACT)
