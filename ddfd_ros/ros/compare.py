"""The node ``ddfd_compare``: our depth against a depth camera's, while both run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from ddfd_ros.core.camera_model import correct_camera
from ddfd_ros.core.depth_errors import ComparisonError, DepthErrors, RunningErrors, resample
from ddfd_ros.core.errors import DdfdError
from ddfd_ros.core.image_codec import decode_depth
from ddfd_ros.core.rays import Optics, rotation_rad
from ddfd_ros.core.stamp_matching import StampMatcher
from ddfd_ros.ros.compare_options import CompareOptions, declare_options
from ddfd_ros.ros.parameters import unknown_overrides
from ddfd_ros.ros.throttle import ThrottledLog

DEFAULT_NAME = "ddfd_compare"
_SIGMA_WAIT_S = 0.2
_SIGMAS_KEPT = 60
_PAUSE_S, _PAUSE_REPORTS = 3.0, 3
"""Without a comparison for longer than that, and than so many reports, something stands still."""
_MOST_TURNED_PX = 1.0
_K_IN_P = ((0, 0), (2, 2), (4, 5), (5, 6))
"""Where fx, cx, fy and cy are in K, and in P."""


class CompareNode(Node):
    """Compares two depth streams and publishes running errors.

    Subscribes ``depth/image_rect``, ``depth/camera_info``, ``uncertainty/image`` and the other
    camera's ``reference/image``, ``reference/camera_info``. Publishes ``comparison``
    (DiagnosticArray) and ``comparison/summary`` (String with JSON, latched).

    Args:
        name: The node's name.
        options: Further arguments of ``rclpy.node.Node``.

    Raises:
        DdfdError: A parameter's value is refused.
    """

    def __init__(self, name: str = DEFAULT_NAME, **options: Any) -> None:
        super().__init__(name, **options)
        self.options = declare_options(self)
        if unknown := unknown_overrides(self):
            known = ", ".join(item.name for item in fields(CompareOptions))
            self.get_logger().warning(
                f"parameters: expected some of {known}, got also {', '.join(unknown)}, which "
                "nothing reads; check the spelling"
            )
        self.errors = RunningErrors(self.options.distance_bins_m, self.options.window_frames)
        self.problem = ""
        self._matcher = StampMatcher(self.options.max_time_difference_s)
        self._log = ThrottledLog()
        self._infos: dict[str, CameraInfo] = {}
        self._sigmas: dict[int, Image] = {}
        self._waiting: list[tuple[float, Image, Image]] = []
        self._differences_s: list[float] = []
        topic = self.resolve_topic_name("reference/image")
        self._reference_rectified = self.options.reference_rectified(topic)
        kind = "rectified (P)" if self._reference_rectified else "raw (K and D)"
        self.get_logger().info(f"{topic}: taken as {kind}; set reference_pixels if it is not")
        self._subscribe_all()
        self._comparison = self.create_publisher(DiagnosticArray, "comparison", 10)
        latched = QoSProfile(
            depth=1,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
            reliability=ReliabilityPolicy.RELIABLE,
        )
        self._summary = self.create_publisher(String, "comparison/summary", latched)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._compared_s = self._now_s()
        self.create_timer(0.05, self._compare_waiting, clock=self._steady)
        self.create_timer(self.options.report_period_s, self.report, clock=self._steady)

    def _subscribe_all(self) -> None:
        sensor = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)

        def keep_info(name: str) -> Any:
            return lambda message: self._infos.__setitem__(name, message)

        for kind, topic, callback in (
            (CameraInfo, "depth/camera_info", keep_info("ours")),
            (CameraInfo, "reference/camera_info", keep_info("reference")),
            (Image, "uncertainty/image", self._on_sigma),
            (Image, "depth/image_rect", self._on_depth),
            (Image, "reference/image", self._on_reference),
        ):
            self.create_subscription(kind, topic, callback, sensor)

    def _on_sigma(self, message: Image) -> None:
        self._sigmas[_stamp_ns(message)] = message
        while len(self._sigmas) > _SIGMAS_KEPT:
            del self._sigmas[next(iter(self._sigmas))]

    def _on_depth(self, message: Image) -> None:
        self._take(self._matcher.add_ours(_stamp_ns(message), message))

    def _on_reference(self, message: Image) -> None:
        self._take(self._matcher.add_reference(_stamp_ns(message), message))

    def _take(self, pairs: list[tuple[Image, Image, float]]) -> None:
        """Keep pairs for a moment: their sigma is published after their depth."""
        now = self._now_s()
        for ours, reference, difference_s in pairs:
            self._waiting.append((now + _SIGMA_WAIT_S, ours, reference))
            self._differences_s = [*self._differences_s[-99:], difference_s]

    def _compare_waiting(self) -> None:
        now = self._now_s()
        while self._waiting and self._waiting[0][0] <= now:
            _, ours, reference = self._waiting.pop(0)
            try:
                self.compare(ours, reference, self._sigmas.get(_stamp_ns(ours)))
                self.problem = ""
            except DdfdError as error:
                self.problem = str(error)
                self._log(self.get_logger().warning, self.problem)

    def compare(self, ours: Image, reference: Image, sigma: Image | None) -> None:
        """Add one pair to the errors.

        Raises:
            DdfdError: The two cannot be compared.
        """
        if (
            ours.header.frame_id != reference.header.frame_id
            and not self.options.assume_registered
        ):
            raise ComparisonError(
                f"frames: expected both images in one frame, got {ours.header.frame_id!r} (ours) "
                f"and {reference.header.frame_id!r}; register the reference to our camera with "
                "their extrinsics first (depth_image_proc's register node), or set "
                "assume_registered where both see through one lens"
            )
        ours_m, reference_m = decode_depth(ours), decode_depth(reference)
        stride = self.options.stride
        sigma_m = None if sigma is None else decode_depth(sigma)
        if sigma_m is not None and sigma_m.shape != ours_m.shape:
            sigma_m = None
        at_ours = self._at_our_pixels(reference_m, ours_m.shape)
        self.errors.add(
            ours_m[::stride, ::stride],
            at_ours,
            None if sigma_m is None else sigma_m[::stride, ::stride],
        )
        self._compared_s = self._now_s()

    def _at_our_pixels(self, reference_m: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The reference's depth at every ``stride``-th of our pixels."""
        stride = self.options.stride
        ours = _optics(self._infos.get("ours"), shape, False)  # our node tells K and D of them
        rectified = self._reference_rectified
        reference = _optics(self._infos.get("reference"), reference_m.shape, rectified)
        if ours is None or reference is None:
            if reference_m.shape == shape:
                return reference_m[::stride, ::stride]
            raise ComparisonError(
                f"sizes: expected a calibrated camera_info of both for images of different size "
                f"({shape[1]}x{shape[0]} and {reference_m.shape[1]}x{reference_m.shape[0]}), got "
                f"{'none of ours' if ours is None else 'none of the reference'}; remap "
                "reference/camera_info"
            )
        _refuse_rotation(self._infos["ours"], self._infos["reference"], reference)
        if _same(ours, reference):
            return reference_m[::stride, ::stride]
        return resample(reference_m, reference, ours, stride)

    def report(self) -> None:
        """Publish the running errors and the summary, and write the summary's file."""
        array = DiagnosticArray(status=[self._status("running", self.errors.recent())])
        array.status.append(self._status("total", self.errors.total()))
        for low_m, high_m, errors in self.errors.by_distance():
            if errors.pixels:
                array.status.append(self._status(f"{low_m:g} to {high_m:g} m", errors))
        array.header.stamp = self.get_clock().now().to_msg()
        self._comparison.publish(array)
        text = json.dumps(self.summary(), indent=2)
        self._summary.publish(String(data=text))
        if self.options.summary_file:
            path = Path(self.options.summary_file).expanduser()
            try:
                temporary = path.with_name(path.name + ".new")
                temporary.write_text(text + "\n", encoding="utf-8")
                temporary.replace(path)
            except OSError as error:
                self._log(self.get_logger().error, f"summary_file: cannot be written: {error}")

    def summary(self) -> dict[str, Any]:
        """Everything so far, JSON; NaN becomes null."""
        bins = [
            {"from_m": low_m, "to_m": high_m, **_plain(errors)}
            for low_m, high_m, errors in self.errors.by_distance()
        ]
        return {
            "frames": self.errors.frames,
            "unmatched": self._matcher.unmatched,
            "problem": self.problem,
            "total": _plain(self.errors.total()),
            "bins": bins,
        }

    def _status(self, name: str, errors: DepthErrors) -> DiagnosticStatus:
        said = self.problem or self._pause()
        level = DiagnosticStatus.WARN if said else DiagnosticStatus.OK
        message = said or f"{self.errors.frames} frames"
        values = asdict(errors) | {"unmatched": self._matcher.unmatched}
        if self._differences_s:
            values["median_time_difference_s"] = float(np.median(self._differences_s))
        full_name = self.get_fully_qualified_name().lstrip("/")
        status = DiagnosticStatus(level=level, name=f"{full_name}: {name}", message=message)
        status.values = [KeyValue(key=key, value=f"{value:.6g}") for key, value in values.items()]
        return status

    def _pause(self) -> str:
        """Why nothing is compared, in words; empty while something is."""
        pause_s = self._now_s() - self._compared_s
        limit_s = max(_PAUSE_S, _PAUSE_REPORTS * self.options.report_period_s)
        if self.errors.frames and pause_s <= limit_s:
            return ""
        when = f"for {pause_s:.0f} s" if self.errors.frames else "yet"
        return (
            f"nothing compared {when}: expected images on depth/image_rect and reference/image "
            f"with stamps at most {self.options.max_time_difference_s} s apart, "
            f"{self._matcher.unmatched} of ours found no partner"
        )

    def _now_s(self) -> float:
        return float(self._steady.now().nanoseconds) / 1e9


def _optics(info: CameraInfo | None, shape: tuple[int, ...], rectified: bool) -> Optics | None:
    """How an image of this height and width sees; None where that is not known."""
    camera, _ = correct_camera(info, shape[0], shape[1], rectified)
    if info is None or camera is None:
        return None
    distortion = () if rectified else tuple(map(float, info.d))
    return Optics(camera, rectified, info.distortion_model, distortion)


def _same(ours: Optics, reference: Optics) -> bool:
    """Whether both cameras see the same, to a quarter of a pixel at the border."""
    a, b = ours.camera, reference.camera
    if (a.width, a.height) != (b.width, b.height) or ours.lens != reference.lens:
        return False
    focal = max(abs(a.k[i] / b.k[i] - 1) * a.width / 2 for i in (0, 4))
    centre = max(abs(a.k[i] - b.k[i]) for i in (2, 5))
    return focal + centre < 0.25


def _refuse_rotation(ours: CameraInfo, reference: CameraInfo, optics: Optics) -> None:
    """Refuse a reference whose rectification turned its pixels away from ours.

    Pixels of raw images look along the camera, those of rectified ones are turned by R of the
    camera_info (``sensor_msgs/CameraInfo``), as those of a stereo pair are. Our node says R = 1 of
    rectified images, so of theirs nothing tells by how much they are turned; it is taken to be as
    much as the reference.

    Args:
        ours: The info that the node publishes.
        reference: That of the reference.
        optics: What the reference's pixels were read as.

    Raises:
        ComparisonError: One is turned by more than a pixel, the other is raw.
    """
    turned_px = rotation_rad(reference.r) * optics.camera.k[0]
    if not optics.rectified or turned_px <= _MOST_TURNED_PX:
        return
    flat = not any(ours.d) and all(math.isclose(ours.k[i], ours.p[j]) for i, j in _K_IN_P)
    if flat and rotation_rad(ours.r) * optics.camera.k[0] <= _MOST_TURNED_PX:
        return
    raise ComparisonError(
        f"rotation: expected both images raw or both rectified, got a rectified reference that R "
        f"of its camera_info turns by {math.degrees(rotation_rad(reference.r)):.2g} degrees and "
        "raw pixels of ours; give our node the rectified image and say so (input_rectified), or "
        "set reference_pixels to raw if the reference is"
    )


def _plain(errors: DepthErrors) -> dict[str, float | None]:
    return {
        name: None if math.isnan(value) else round(value, 6)
        for name, value in asdict(errors).items()
    }


def _stamp_ns(message: Image) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
