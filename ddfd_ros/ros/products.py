"""The messages that one frame's answer becomes: images, their camera, cloud, preview, file."""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from ddfd_ros.core.colour_map import colour_depth
from ddfd_ros.core.compressed import encode_compressed, encoded_format
from ddfd_ros.core.compressed_depth import compressed_depth_format, encode_compressed_depth
from ddfd_ros.core.image_codec import encode_mono
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.point_cloud import Optics, Rays, make_points
from ddfd_ros.core.types import Estimate
from ddfd_ros.ros.camera import PublishedCamera
from ddfd_ros.ros.cloud import cloud_message
from ddfd_ros.ros.lens import cloud_options
from ddfd_ros.ros.messages import ImageEncoder
from ddfd_ros.ros.outputs import (
    CLOUD,
    COLOUR,
    COMPRESSED,
    COMPRESSED_DEPTH,
    TOPICS,
    ZONES,
    Demand,
    Messages,
)
from ddfd_ros.ros.parameters import NodeParameters


@dataclass(frozen=True)
class FrameResult:
    """One answered frame.

    Attributes:
        estimate: What the network says, at the published size.
        image_rgb: uint8 ``[H, W, 3]``, the camera's image, at the published size where a cloud
            takes its colours from it.
        camera: Of the published pixels.
        header: Of the camera's message; goes to every output.
        scales: Pixels of the network per published pixel, along x and y.
    """

    estimate: Estimate
    image_rgb: np.ndarray
    camera: PublishedCamera
    header: Any
    scales: tuple[float, float] = (1.0, 1.0)


class Products:
    """Makes messages; keeps their memory, so send them before asking for the next ones."""

    def __init__(self) -> None:
        self._encoders = {topic: ImageEncoder() for topic, _ in TOPICS.values()}
        self._encoders[COLOUR] = ImageEncoder()
        self._rays = Rays()

    @staticmethod
    def infos(demand: Demand, camera: PublishedCamera, header: Any) -> Messages:
        """The camera_info for every topic of it that somebody listens to."""
        topics = [info for _, info in TOPICS.values() if info in demand]
        if not topics:
            return {}
        message = camera.message()
        message.header = header
        return dict.fromkeys(topics, message)

    def images(
        self,
        demand: Demand,
        result: FrameResult,
        contract: ModelContract,
        parameters: NodeParameters,
    ) -> Messages:
        """Everything else that somebody listens to, all with the input's header."""
        messages: Messages = {}
        for head, (topic, _) in TOPICS.items():
            values = getattr(result.estimate, head)
            if topic in demand and values is not None:
                encoding = {"depth_m": parameters.depth_encoding, "sharp_rgb": "rgb8"}
                messages[topic] = self._encoders[topic].encode(
                    values, result.header, encoding.get(head, "32FC1")
                )
        if CLOUD in demand:
            cloud = self._cloud(result, parameters)
            if cloud is not None:
                messages[CLOUD] = cloud
        if COLOUR in demand and result.estimate.depth_m is not None:
            near_m = parameters.preview_near_m or contract.depth_min_m
            far_m = max(parameters.preview_far_m or contract.depth_max_m, near_m * 1.001)
            colours = colour_depth(result.estimate.depth_m, near_m, far_m)
            messages[COLOUR] = self._encoders[COLOUR].encode(colours, result.header, "rgb8")
        if ZONES in demand and result.estimate.zones is not None:
            messages[ZONES] = encode_mono(result.estimate.zones, result.header, Image)
        if COMPRESSED in demand and result.estimate.sharp_rgb is not None:
            kind = parameters.compressed_format
            content = encode_compressed(result.estimate.sharp_rgb, kind, parameters.jpeg_quality)
            messages[COMPRESSED] = _file(content, encoded_format(kind), result.header)
        if COMPRESSED_DEPTH in demand and result.estimate.depth_m is not None:
            content = encode_compressed_depth(
                result.estimate.depth_m,
                parameters.depth_encoding,
                contract.depth_min_m,
                contract.depth_max_m,
            )
            kind = compressed_depth_format(parameters.depth_encoding)
            messages[COMPRESSED_DEPTH] = _file(content, kind, result.header)
        return messages

    def _cloud(self, result: FrameResult, parameters: NodeParameters) -> PointCloud2 | None:
        """The cloud; None when the camera is not calibrated, or there is no depth."""
        estimate, published = result.estimate, result.camera
        info = published.source
        if info is None or published.camera is None or estimate.depth_m is None:
            return None
        optics = Optics(
            published.camera,
            parameters.input_rectified,
            info.distortion_model,
            tuple(info.d),
        )
        colours = {"image": result.image_rgb, "all_in_focus": estimate.sharp_rgb}
        points = make_points(
            estimate.depth_m,
            optics,
            cloud_options(parameters),
            sigma_m=estimate.sigma_m,
            rgb=colours.get(parameters.cloud_color),
            rays=self._rays,
            scales=result.scales,
        )
        return cloud_message(points, result.header)


def _file(content: bytes, kind: str, header: Any) -> CompressedImage:
    """A file as a message; ``kind`` in the terms of image_transport."""
    message = CompressedImage(header=header, format=kind)
    data = array.array("B")
    data.frombytes(content)
    message.data = data
    return message
