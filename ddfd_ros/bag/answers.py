"""One recorded image in, the node's messages for it out, as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ddfd_ros.bag.source import CameraInfos
from ddfd_ros.bag.writing import Topic
from ddfd_ros.core.blur_zones import DEAD_ZONE_PX
from ddfd_ros.core.camera_model import correct_camera, published_lens, raw_image_doubts
from ddfd_ros.core.compressed import encode_compressed, encoded_format
from ddfd_ros.core.compressed_depth import compressed_depth_format, encode_compressed_depth
from ddfd_ros.core.image_codec import ImageData, decode, encode_depth, encode_mono, encode_rgb
from ddfd_ros.core.pipeline import Pipeline
from ddfd_ros.core.point_cloud import Optics, Rays, make_points
from ddfd_ros.core.preprocessing import Intrinsics
from ddfd_ros.core.types import Estimate, Frame
from ddfd_ros.inference import Backend
from ddfd_ros.ros.lens import (
    calibration_problem,
    camera_lens,
    cloud_options,
    guarded,
    judge_lens,
    thresholds,
    view_options,
)
from ddfd_ros.ros.parameters import NodeParameters

TOPICS = {
    "depth_m": ("depth/image_rect", "depth/camera_info"),
    "sharp_rgb": ("all_in_focus/image", "all_in_focus/camera_info"),
    "sigma_m": ("uncertainty/image", "uncertainty/camera_info"),
    "defocus_px": ("defocus/image", "defocus/camera_info"),
}
"""Head -> its image topic and the camera_info beside it, as the node names them."""
CLOUD, ZONES = "points", "depth/zones"
COMPRESSED, COMPRESSED_DEPTH = "all_in_focus/image/compressed", "depth/image_rect/compressedDepth"
MADE = {
    ZONES: ("zones_output", "depth_m"),
    COMPRESSED: ("compressed_output", "sharp_rgb"),
    COMPRESSED_DEPTH: ("compressed_output", "depth_m"),
}
"""What is made of a head where a parameter says so: topic -> the parameter and the head."""

_IMAGE, _INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
_CLOUD, _FIELD = "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/PointField"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"
_FLOAT32 = 7  # PointField.FLOAT32


class FrameAnswers:
    """Answers frames as the node does, one after the other.

    Args:
        backend: The open model.
        parameters: The node's.
        heads: Those to answer; all must be the model's.
        points: Whether to make a point cloud.
        namespace: In front of the topics, without a slash at its end.
        infos: What the camera said about itself.
        typestore: Of ``rosbags``.
        image_topic: Where the images come from.
    """

    def __init__(
        self,
        backend: Backend,
        parameters: NodeParameters,
        heads: tuple[str, ...],
        points: bool,
        namespace: str,
        infos: CameraInfos,
        typestore: Any,
        image_topic: str = "",
    ) -> None:
        self._pipeline = Pipeline(backend, thresholds(parameters), view_options(parameters))
        if points:
            cloud_options(parameters).check_heads(backend.contract.outputs)
        self._parameters, self._heads, self._points = parameters, heads, points
        self._namespace, self._infos, self._store = namespace, infos, typestore
        self._types, self._image_topic = typestore.types, image_topic
        self._rays = Rays()
        self.problems: dict[str, int] = {}
        self._made: list[str] = []
        for topic, (asked, head) in MADE.items():
            if getattr(parameters, asked) and head in backend.contract.outputs:
                self._made.append(topic)
            elif getattr(parameters, asked):
                self._note(f"{asked}: {topic} is not written, the model has no {head}")

    def topics(self) -> list[Topic]:
        """The topics that will be written."""
        result = []
        for head in self._heads:
            image, info = TOPICS[head]
            result += [Topic(self._name(info), _INFO), Topic(self._name(image), _IMAGE)]
        if self._points:
            result.append(Topic(self._name(CLOUD), _CLOUD))
        kinds = {ZONES: _IMAGE, COMPRESSED: _COMPRESSED, COMPRESSED_DEPTH: _COMPRESSED}
        return result + [Topic(self._name(topic), kinds[topic]) for topic in self._made]

    def answer(self, message: Any) -> Iterator[tuple[str, bytes]]:
        """Topic and bytes of every message that answers ``message``.

        Raises:
            DdfdError: The frame cannot be answered.
        """
        header, parameters = message.header, self._parameters
        stamp_ns = header.stamp.sec * 10**9 + header.stamp.nanosec
        image = decode(message)
        size = image.shape[0], image.shape[1]
        info = self._infos.at(stamp_ns, parameters.camera_info_match == "stamp")
        camera, problem = correct_camera(info, *size, parameters.input_rectified)
        self._note(problem if info is not None else self._no_camera_info())
        if camera is not None and not parameters.input_rectified:
            for doubt in raw_image_doubts(info, self._image_topic, self._points):
                self._note(doubt)
        focal_px = 0.0 if camera is None else camera.k[0]
        self._pipeline.view_options = view_options(parameters, size, focal_px)
        contract = self._pipeline.backend.contract
        seen = self._pipeline.view(*size)
        verdict = judge_lens(contract, parameters, focal_px, seen)
        self._note(verdict.problem)
        self._note(calibration_problem(parameters))
        lens = None if verdict.beyond else camera_lens(parameters, focal_px, size).lens()
        frame = Frame(image, stamp_ns, header.frame_id, lens=lens)
        below_px = (parameters.dead_zone_px or DEAD_ZONE_PX) if ZONES in self._made else 0.0
        estimate = self._pipeline.process(frame, self._computed(), zones_below_px=below_px)
        estimate = guarded(estimate, verdict, parameters)
        view = self._pipeline.published_view(*size)
        if view is not None:
            camera = None if camera is None else view.network_camera(camera)
            size = view.height, view.width
        info_bytes = self._camera_info(header, info, camera, size)
        for head in self._heads:
            image_topic, info_topic = TOPICS[head]
            yield self._name(info_topic), info_bytes
            yield self._name(image_topic), self._image(header, head, getattr(estimate, head))
        if self._points and camera is not None and estimate.depth_m is not None:
            colours = image if view is None else view.to_network(image)
            scales = seen.scales if view is None else (1.0, 1.0)
            cloud = self._cloud(header, info, camera, estimate, estimate.depth_m, colours, scales)
            yield self._name(CLOUD), cloud
        if ZONES in self._made and estimate.zones is not None:
            zones = encode_mono(estimate.zones, self._header(header))
            yield self._name(ZONES), self._serialized(zones)
        if COMPRESSED in self._made and estimate.sharp_rgb is not None:
            kind = parameters.compressed_format
            file = encode_compressed(estimate.sharp_rgb, kind, parameters.jpeg_quality)
            yield self._name(COMPRESSED), self._file(header, file, encoded_format(kind))
        if COMPRESSED_DEPTH in self._made and estimate.depth_m is not None:
            kind = parameters.depth_encoding
            span_m = contract.depth_min_m, contract.depth_max_m
            file = encode_compressed_depth(estimate.depth_m, kind, *span_m)
            name = self._name(COMPRESSED_DEPTH)
            yield name, self._file(header, file, compressed_depth_format(kind))

    def _no_camera_info(self) -> str:
        """What to do about it here, where nothing can be remapped."""
        cloud = ", no cloud is made" if self._points else ""
        effect = f"the answers have an uncalibrated camera_info{cloud}"
        if self._infos.count:
            return (
                f"camera_info: expected one with the image's stamp (camera_info_match), got none; "
                f"{effect}: try camera_info_match=latest"
            )
        others = self._infos.elsewhere
        found = f"only on {', '.join(others)}" if others else "none in the bag"
        advice = "name the camera's with --camera-info-topic" if others else "record it, too"
        return (
            f"camera_info: expected some beside {self._image_topic or 'the images'}, got "
            f"{found}; {effect}: {advice}"
        )

    def _computed(self) -> set[str]:
        heads = {*self._heads, *(MADE[topic][1] for topic in self._made)}
        if self._points:
            heads.add("depth_m")
            if self._parameters.cloud_max_sigma_m > 0:
                heads.add("sigma_m")
            if self._parameters.cloud_color == "all_in_focus":
                heads.add("sharp_rgb")
        return heads.intersection(self._pipeline.backend.contract.outputs)

    def _note(self, problem: str) -> None:
        if problem:
            self.problems[problem] = self.problems.get(problem, 0) + 1

    def _name(self, topic: str) -> str:
        return f"{self._namespace}/{topic}"

    def _header(self, header: Any) -> Any:
        """The header in the types of the output."""
        stamp = self._types["builtin_interfaces/msg/Time"](
            sec=header.stamp.sec, nanosec=header.stamp.nanosec
        )
        return self._types["std_msgs/msg/Header"](stamp=stamp, frame_id=header.frame_id)

    def _image(self, header: Any, head: str, values: np.ndarray) -> bytes:
        if head == "sharp_rgb":
            encoded = encode_rgb(values, self._header(header))
        else:
            encoding = self._parameters.depth_encoding if head == "depth_m" else "32FC1"
            encoded = encode_depth(values, self._header(header), encoding)
        return self._serialized(encoded)

    def _file(self, header: Any, content: bytes, kind: str) -> bytes:
        """A file as a message; ``kind`` in the terms of image_transport."""
        message = self._types[_COMPRESSED](
            header=self._header(header), format=kind, data=np.frombuffer(content, np.uint8)
        )
        return bytes(self._store.serialize_cdr(message, _COMPRESSED))

    def _serialized(self, image: ImageData) -> bytes:
        fields = vars(image) | {"data": np.frombuffer(image.data, np.uint8)}
        return bytes(self._store.serialize_cdr(self._types[_IMAGE](**fields), _IMAGE))

    def _camera_info(
        self, header: Any, info: Any | None, camera: Intrinsics | None, size: tuple[int, int]
    ) -> bytes:
        """The camera of the published pixels; all zero where it is not calibrated."""
        region = self._types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        message = self._types[_INFO](
            header=self._header(header),
            height=size[0],
            width=size[1],
            distortion_model="",
            d=np.zeros(0),
            k=np.zeros(9),
            r=np.zeros(9),
            p=np.zeros(12),
            binning_x=0,
            binning_y=0,
            roi=region,
        )
        if info is not None and camera is not None:
            model, d, r = published_lens(info, self._parameters.input_rectified)
            message.distortion_model = model
            message.d, message.r = np.array(d, np.float64), np.array(r, np.float64)
            message.k, message.p = np.array(camera.k), np.array(camera.p)
        return bytes(self._store.serialize_cdr(message, _INFO))

    def _cloud(
        self,
        header: Any,
        info: Any,
        camera: Intrinsics,
        estimate: Estimate,
        depth_m: np.ndarray,
        seen: np.ndarray,
        scales: tuple[float, float],
    ) -> bytes:
        parameters = self._parameters
        optics = Optics(
            camera, parameters.input_rectified, info.distortion_model, tuple(map(float, info.d))
        )
        colours = {"image": seen, "all_in_focus": estimate.sharp_rgb}
        points = make_points(
            depth_m,
            optics,
            cloud_options(parameters),
            sigma_m=estimate.sigma_m,
            rgb=colours.get(parameters.cloud_color),
            rays=self._rays,
            scales=scales,
        )
        height, width = points.shape if points.ndim == 2 else (1, points.shape[0])
        step = points.dtype.itemsize
        fields = [
            self._types[_FIELD](name=name, offset=4 * i, datatype=_FLOAT32, count=1)
            for i, name in enumerate(points.dtype.names or ())
        ]
        message = self._types[_CLOUD](
            header=self._header(header),
            height=height,
            width=width,
            fields=fields,
            is_bigendian=False,
            point_step=step,
            row_step=step * width,
            data=np.frombuffer(points.tobytes(), np.uint8),
            is_dense=points.ndim == 1,
        )
        return bytes(self._store.serialize_cdr(message, _CLOUD))
