"""One frame's way through the node: from its message to the messages that answer it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ddfd_ros.core.blur_zones import DEAD_ZONE_PX
from ddfd_ros.core.camera_model import raw_image_doubts
from ddfd_ros.core.types import Estimate, Frame
from ddfd_ros.core.view import View, plan_view
from ddfd_ros.ros.camera import CameraInfoCorrector, PublishedCamera
from ddfd_ros.ros.camera_infos import CameraInfos, stamp_ns
from ddfd_ros.ros.decoding import decode_message
from ddfd_ros.ros.lens import (
    calibration_problem,
    camera_lens,
    guarded,
    judge_lens,
    needs_camera_info,
    view_options,
)
from ddfd_ros.ros.model import LoadedModel
from ddfd_ros.ros.outputs import CLOUD, ZONES, Messages, Outputs
from ddfd_ros.ros.parameters import NodeParameters
from ddfd_ros.ros.products import FrameResult, Products
from ddfd_ros.ros.statistics import Statistics

_CAMERA_INFO_GRACE_S = 2.0
_NO_MATCH = (
    "camera_info: expected one with the stamp of the image (camera_info_match is 'stamp'), got "
    "none; depth is published with an uncalibrated camera_info: let the driver stamp both alike, "
    "or set camera_info_match to 'latest'"
)
_NO_CLOUD = "points: expected a calibrated camera, got none, so no cloud is published; "


@dataclass(frozen=True)
class Job:
    """An image message.

    Attributes:
        message: As it came.
        received_ns: Monotonic time of its arrival in nanoseconds.
        activation: Number of the node's activation that it came in.
    """

    message: Any
    received_ns: int
    activation: int = 0


@dataclass(frozen=True)
class Answer:
    """What goes out for one frame.

    Attributes:
        messages: By topic, in the order in which they are to be sent.
        estimate: What the network says; None when only camera_infos were asked for.
        stages_ms: Durations so far.
    """

    messages: Messages
    estimate: Estimate | None
    stages_ms: dict[str, float]


class Answers:
    """Answers frames in the worker's thread; lives from configure to cleanup.

    Attributes:
        camera_infos: What the camera says about itself; filled by the executor's thread.
        camera_problem: What is wrong with it, in words; empty when nothing is, or nobody listens.
        lens_problem: How the camera's lens differs from the model's, or what is wrong with its
            calibration; empty when nothing is, or nothing is computed.
    """

    def __init__(
        self, warn: Callable[[str], None], statistics: Statistics, image_topic: str = ""
    ) -> None:
        """An answerer that has answered nothing yet.

        Args:
            warn: Receives what is wrong, once for every new problem.
            statistics: Looks at the images' exposure and blur.
            image_topic: Full name of where they come from.
        """
        self._image_topic = image_topic
        self.camera_infos = CameraInfos()
        self.camera_problem = ""
        self.lens_problem = ""
        self._warn = warn
        self._statistics = statistics
        self._corrector = CameraInfoCorrector()
        # Of the whole image, whatever part is published: each remembers one answer.
        self._whole = CameraInfoCorrector()
        self._products = Products()
        self._since = time.monotonic()

    def activate(self) -> None:
        """Frames come from now on."""
        self.camera_problem = self.lens_problem = ""
        self._since = time.monotonic()

    def answer(
        self, job: Job, model: LoadedModel, parameters: NodeParameters, outputs: Outputs
    ) -> Answer | None:
        """Answer one frame; None when nobody listens.

        Raises:
            DdfdError: The frame cannot be answered.
        """
        start_ns = time.monotonic_ns()
        header = job.message.header
        demand = outputs.demand()
        if not demand:  # what was wrong may have been put right, and nobody looks any more
            self.camera_problem = self.lens_problem = ""
            return None
        image = decode_message(job.message)
        self._statistics.look_at(image)
        decoded_ns = time.monotonic_ns()
        height, width = image.shape[:2]
        size = (height, width)
        # Of these parameters, not of the pipeline's: they may change while the frame is computed.
        told = needs_camera_info(model.contract, parameters)
        info = self._info(header, parameters) if told else None
        rectified = parameters.input_rectified
        whole = self._whole.published(info, *size, None, rectified) if told else None
        focal_px = 0.0 if whole is None else whole.focal_length_px
        options = view_options(parameters, size, focal_px)
        seen = plan_view(height, width, model.contract, options)
        view = seen if options.network_size else None
        wants_cloud = CLOUD in demand
        if wants_cloud and not self._calibrated(size, view, rectified):
            demand = demand.without(CLOUD)
        heads = demand.heads(outputs.heads, parameters)
        if not heads:
            self.lens_problem = ""
            info = info if told else self._info(header, parameters)
            camera = self._camera(info, size, view, wants_cloud, rectified)
            return Answer(self._products.infos(demand, camera, header), None, {})
        verdict = judge_lens(model.contract, parameters, focal_px, seen)
        # Beyond what the model knows it answers for its own lens: the picture is still of use.
        lens = None if verdict.beyond else camera_lens(parameters, focal_px, size).lens()
        frame = Frame(image, stamp_ns(header.stamp), header.frame_id, job.received_ns, lens)
        below_px = (parameters.dead_zone_px or DEAD_ZONE_PX) if ZONES in demand else 0.0
        estimate = model.pipeline.process(frame, heads, options, below_px)
        computed_ns = time.monotonic_ns()
        # After the model, if it needs none: by now the camera_info of this very image has come.
        info = info if told else self._info(header, parameters)
        camera = self._camera(info, size, view, wants_cloud, rectified)
        if not verdict.beyond:
            verdict = judge_lens(model.contract, parameters, camera.focal_length_px, seen)
        self._say_lens(verdict.problem, calibration_problem(parameters))
        estimate = guarded(estimate, verdict, parameters)
        if CLOUD in demand and parameters.cloud_color == "image" and view is not None:
            image = view.to_network(image)
        scales = seen.scales if view is None else (1.0, 1.0)
        result = FrameResult(estimate, image, camera, header, scales)
        # camera_info first: a consumer that pairs by stamp has it when the image arrives.
        messages = self._products.infos(demand, camera, header) | self._products.images(
            demand, result, model.contract, parameters
        )
        stages_ms = {
            "queue": (start_ns - job.received_ns) / 1e6,
            "decode": (decoded_ns - start_ns) / 1e6,
            **estimate.timings_ms,
            "encode": (time.monotonic_ns() - computed_ns) / 1e6,
        }
        return Answer(messages, estimate, stages_ms)

    def _calibrated(self, size: tuple[int, int], view: View | None, rectified: bool) -> bool:
        """Whether the newest camera_info is a calibration of such images."""
        newest = self.camera_infos.latest
        return self._corrector.published(newest, *size, view, rectified).camera is not None

    def _info(self, header: Any, parameters: NodeParameters) -> Any | None:
        """The camera_info of an image; None when none has come."""
        if parameters.camera_info_match == "stamp":
            return self.camera_infos.at(stamp_ns(header.stamp))
        return self.camera_infos.latest

    def _camera(
        self,
        info: Any | None,
        size: tuple[int, int],
        view: View | None,
        wants_cloud: bool,
        rectified: bool,
    ) -> PublishedCamera:
        """The camera of the published pixels; says once what is wrong with it."""
        published = self._corrector.published(info, *size, view, rectified)
        early = time.monotonic() - self._since < _CAMERA_INFO_GRACE_S
        if info is None and early:
            return published  # the driver may just not have sent it yet
        problem = published.problem
        if info is None and self.camera_infos.latest is not None:
            problem = _NO_MATCH
        if problem and published.camera is None and wants_cloud:
            problem = _NO_CLOUD + problem
        elif not rectified and published.camera is not None:
            doubts = raw_image_doubts(info, self._image_topic, wants_cloud)
            problem = "; ".join(filter(None, (problem, *doubts)))
        if problem and problem != self.camera_problem:
            self._warn(problem)
        self.camera_problem = problem
        return published

    def _say_lens(self, *problems: str) -> None:
        """Say once what is wrong with the lens."""
        problem = "; ".join(filter(None, problems))
        if problem and problem != self.lens_problem:
            self._warn(problem)
        self.lens_problem = problem
