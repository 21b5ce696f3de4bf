"""What the demonstration's tests share: pictures, bags and an ONNX model with a known answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest


def pattern(height=48, width=64, shift=0):
    """uint8 ``[H, W, 3]`` RGB; red rises to the right, green downwards, blue is ``shift``."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack(
        [columns * 255 // (width - 1), rows * 255 // (height - 1), np.full_like(rows, shift)], -1
    ).astype(np.uint8)


def write_image(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def write_bag(
    path: Path,
    images,
    *,
    storage="mcap",
    compressed=False,
    info=True,
    rate_hz=20.0,
    info_topic="/camera/camera_info",
    info_size=None,
    damaged=(),
    lasts_s=0.0,
    beside="/camera/depth/image_raw",
):
    """A ROS 2 bag with colour images, depth beside them, and their camera_info.

    ``info_size``: (height, width) of the camera_info; ``damaged``: numbers of images that cannot
    be decoded; ``lasts_s``: seconds after which a last depth image comes; ``beside``: its topic.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    image_type = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
    topic = "/camera/image_raw" + ("/compressed" if compressed else "")
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        colour = writer.add_connection(topic, image_type, typestore=store)
        depth = writer.add_connection(beside, "sensor_msgs/msg/Image", typestore=store)
        calibration = None
        if info:
            calibration = writer.add_connection(
                info_topic, "sensor_msgs/msg/CameraInfo", typestore=store
            )
        for index, rgb in enumerate(images):
            stamp = round(index * 1e9 / rate_hz) + 10**18
            time = types["builtin_interfaces/msg/Time"](stamp // 10**9, stamp % 10**9)
            header = types["std_msgs/msg/Header"](time, "camera")
            height, width = rgb.shape[:2]
            if compressed:
                data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].ravel()
                message = types[image_type](header, "png", data)
            else:
                data = np.ascontiguousarray(rgb[..., ::-1]).ravel()
                message = types[image_type](header, height, width, "bgr8", 0, 3 * width, data)
            if index in damaged:
                message.data = message.data[:5]
            writer.write(colour, stamp, store.serialize_cdr(message, image_type))
            plane = types["sensor_msgs/msg/Image"](
                header, height, width, "mono8", 0, width, np.zeros(height * width, np.uint8)
            )
            raw_plane = store.serialize_cdr(plane, "sensor_msgs/msg/Image")
            writer.write(depth, stamp, raw_plane)
            if calibration is not None:
                message = _camera_info(types, header, *(info_size or (height, width)))
                writer.write(
                    calibration,
                    stamp,
                    store.serialize_cdr(message, "sensor_msgs/msg/CameraInfo"),
                )
        if lasts_s:
            writer.write(depth, round(lasts_s * 1e9) + 10**18, raw_plane)


def _camera_info(types, header, height, width):
    k = np.array([70.0, 0, 31.5, 0, 71.0, 23.5, 0, 0, 1])
    p = np.array([70.0, 0, 31.5, 0, 0, 71.0, 23.5, 0, 0, 0, 1, 0])
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return types["sensor_msgs/msg/CameraInfo"](
        header, height, width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, region
    )


def write_rgbd(root: Path, count=3, *, recording=True):
    """An RGB-D folder: a slope from 1 to 3 m with a hole of unknown depth."""
    for index in range(count):
        write_image(root / f"rgb/{index:06d}.png", pattern(shift=index * 40))
        depth = np.tile(np.linspace(1000, 3000, 64), (48, 1)).astype(np.uint16)
        depth[10:14, 10:14] = 0
        (root / "depth").mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"depth/{index:06d}.png"), depth)
    if recording:
        np.savetxt(root / "camera-intrinsics.txt", [[60, 0, 31.5], [0, 61, 23.5], [0, 0, 1]])


def write_video(path: Path, count=6, rate_hz=12.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate_hz, (64, 48))
    for index in range(count):
        writer.write(cv2.cvtColor(pattern(shift=index * 40), cv2.COLOR_RGB2BGR))
    writer.release()


@pytest.fixture
def make():
    return SimpleNamespace(
        pattern=pattern,
        image=write_image,
        bag=write_bag,
        rgbd=write_rgbd,
        video=write_video,
        model=write_model,
    )


DEPTH_PER_GREEN_M = 0.01


def write_model(path: Path, *, heads=("depth_m", "sigma_m", "sharp_rgb")):
    """An ONNX model with an answer that tests can compute: depth is 1 m + green / 100."""
    import onnx
    from onnx import TensorProto, helper

    from ddfd_ros.core.metadata import CONTRACT_KEY, ModelContract
    from ddfd_ros.core.sidecar import write_sidecar
    from ddfd_ros.core.thin_lens import LENS_PRESETS

    def constant(name, kind, shape, values):
        return helper.make_tensor(name, kind, shape, values)

    nodes = [
        helper.make_node("Gather", ["image", "green_index"], ["green"], axis=2),
        helper.make_node("Cast", ["green"], ["green_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["green_float", "per_green"], ["above"]),
        helper.make_node("Add", ["above", "nearest"], ["depth_m"]),
        helper.make_node("Mul", ["depth_m", "share"], ["sigma_m"]),
        helper.make_node("Identity", ["image"], ["sharp_rgb"]),
    ]
    constants = [
        constant("green_index", TensorProto.INT64, [], [1]),
        constant("per_green", TensorProto.FLOAT, [], [DEPTH_PER_GREEN_M]),
        constant("nearest", TensorProto.FLOAT, [], [1.0]),
        constant("share", TensorProto.FLOAT, [], [0.05]),
    ]
    plane = ["height", "width"]
    kinds = {
        "depth_m": (TensorProto.FLOAT, plane),
        "sigma_m": (TensorProto.FLOAT, plane),
        "sharp_rgb": (TensorProto.UINT8, [*plane, 3]),
    }
    graph = helper.make_graph(
        nodes,
        "known",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [*plane, 3])],
        [helper.make_tensor_value_info(name, *kinds[name]) for name in heads],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    contract = ModelContract(
        format_version=1,
        network="known",
        network_options={},
        parameter_count=4,
        input_height=None,
        input_width=None,
        size_multiple=32,
        outputs=tuple(heads),
        depth_min_m=0.5,
        depth_max_m=10.0,
        lens=LENS_PRESETS["nyu-2m"],
        training={},
        metrics={},
        weights_sha256="00" * 32,
    )
    helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    onnx.save(model, str(path))
    write_sidecar(path, contract)
    return path


@pytest.fixture(scope="session")
def known_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "known.onnx")
