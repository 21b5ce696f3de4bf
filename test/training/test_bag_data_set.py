"""Bags as a data set: pairing by stamps, encodings, registration of the two cameras."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.calibration.inputs import BagPictures
from ddfd_training.datasets import open_dataset

pytest.importorskip("rosbags")

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("DDFD_DATA", ROOT.parent / "shared" / "data")) / "rgbd_video"

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"
START_NS = 1_700_000_000_000_000_000


class BagMaker:
    """Writes messages at given times; the stamp in the header may differ from the recording's."""

    def __init__(self, path: Path, storage: str = "mcap") -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        self.store = get_typestore(Stores.ROS2_JAZZY)
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self.writer = Writer(path, version=9, storage_plugin=plugin)
        self.topics: dict[str, Any] = {}

    def __enter__(self) -> BagMaker:
        self.writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def header(self, taken_s: float | None) -> Any:
        nanoseconds = 0 if taken_s is None else START_NS + round(taken_s * 1e9)
        types = self.store.types
        time = types["builtin_interfaces/msg/Time"](nanoseconds // 10**9, nanoseconds % 10**9)
        return types["std_msgs/msg/Header"](time, "camera")

    def write(self, topic: str, kind: str, message: Any, recorded_s: float) -> None:
        if topic not in self.topics:
            self.topics[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        data = self.store.serialize_cdr(message, kind)
        self.writer.write(self.topics[topic], START_NS + round(recorded_s * 1e9), data)

    def image(
        self, topic: str, taken_s: float | None, array: np.ndarray, recorded_s: float
    ) -> None:
        encoding = {"uint8": "rgb8", "uint16": "16UC1", "float32": "32FC1"}[array.dtype.name]
        height, width = array.shape[:2]
        message = self.store.types[IMAGE](
            self.header(taken_s), height, width, encoding, 0, array.strides[0],
            np.ascontiguousarray(array).view(np.uint8).ravel(),
        )  # fmt: skip
        self.write(topic, IMAGE, message, recorded_s)

    def compressed(self, topic: str, taken_s: float, kind: str, data: bytes) -> None:
        message = self.store.types[COMPRESSED](
            self.header(taken_s), kind, np.frombuffer(data, np.uint8)
        )
        self.write(topic, COMPRESSED, message, taken_s)

    def info(self, topic: str, size: tuple[int, int], fx: float, cx: float) -> None:
        k = np.array([fx, 0, cx, 0, fx, 11.5, 0, 0, 1.0])
        types = self.store.types
        region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        message = types[INFO](
            self.header(0.0), *size, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(),
            np.zeros(12), 0, 0, region,
        )  # fmt: skip
        self.write(topic, INFO, message, 0.0)


def colour(number: int) -> np.ndarray:
    return np.full((24, 32, 3), 10 * number, np.uint8)


def depth(number: int) -> np.ndarray:
    plane = np.full((24, 32), 1000 + number, np.uint16)
    plane[0, 0] = 0
    return plane


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_pairs_by_the_stamps_in_the_headers(tmp_path: Path, storage: str):
    """Depth 3 is missing, and everything is recorded late and out of order."""
    with BagMaker(tmp_path / "bag", storage) as bag:
        for number in range(6):
            taken = number / 30
            bag.image("/camera/color/image_raw", taken, colour(number), taken + 0.5)
            if number != 3:
                bag.image("/camera/aligned_depth_to_color/image_raw", taken + 0.004,
                          depth(number), taken + 0.1)  # fmt: skip
            bag.image("/camera/depth/image_raw", taken, depth(50 + number), taken)
        bag.info("/camera/color/camera_info", (24, 32), 30.0, 15.5)
    dataset = open_dataset("bag", tmp_path / "bag")
    assert dataset.image_topic == "/camera/color/image_raw"
    assert dataset.depth_topic == "/camera/aligned_depth_to_color/image_raw"
    assert dataset.skipped == (1, 0)
    assert dataset.intrinsics == (30.0, 30.0, 15.5, 11.5)
    numbers = [0, 1, 2, 4, 5]
    for sample, number in zip(dataset, numbers, strict=True):
        assert sample.sharp_rgb[0, 0, 0] == 10 * number
        assert sample.depth_m[5, 5] == pytest.approx(1 + number / 1000)
        assert np.isnan(sample.depth_m[0, 0])
    assert dataset.frame_names[1] == str(START_NS + round(1e9 / 30))
    again = pickle.loads(pickle.dumps(dataset))
    assert again[4].sharp_rgb[0, 0, 0] == 50


def test_messages_in_a_write_ahead_log_are_not_passed_over(tmp_path: Path):
    with BagMaker(tmp_path / "bag", "sqlite3") as bag:
        bag.image("/camera/color/image_raw", 0.0, np.zeros((120, 160, 3), np.uint8), 0.0)
    file = next((tmp_path / "bag").glob("*.db3"))
    file.with_name(file.name + "-wal").write_bytes(b"messages")
    with pytest.raises(DatasetError, match="expected a recording that was closed"):
        open_dataset("bag", tmp_path / "bag")


def test_a_damaged_bag_is_explained(tmp_path: Path):
    with BagMaker(tmp_path / "bag", "sqlite3") as bag:
        for number in range(20):
            image, taken = np.full((120, 160, 3), number, np.uint8), number / 30
            bag.image("/camera/color/image_raw", taken, image, taken)
            bag.image("/camera/depth/image", taken, np.full((120, 160), 1000, np.uint16), taken)
    path = next((tmp_path / "bag").glob("*.db3"))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = b"\xff" * 20_000
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="expected whole messages on .*copy the bag again"):
        open_dataset("bag", tmp_path / "bag")


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)
def test_a_forked_process_opens_the_bag_for_itself(tmp_path: Path):
    """A DataLoader's workers are forks: in files shared with them, all read in wrong places."""
    with BagMaker(tmp_path / "bag") as bag:
        bag.image("/camera/color/image_raw", 0.0, colour(0), 0.0)
        bag.image("/camera/aligned_depth_to_color/image_raw", 0.0, depth(0), 0.0)
    reader = open_dataset("bag", tmp_path / "bag").reader
    opened = reader._open()
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    child = fork.Process(target=lambda: answers.put(reader._open() is opened))
    child.start()
    assert answers.get() is False
    child.join()
    assert reader._open() is opened


def test_the_nodes_answers_in_a_field_test_are_neither_photographs_nor_truth(tmp_path: Path):
    """Though recorded more often than the camera, and first by name."""
    with BagMaker(tmp_path / "bag") as bag:
        for number in range(5):
            taken = number / 30
            bag.image("/all_in_focus/image", taken, colour(20), taken)
            bag.image("/depth/image_rect", taken, depth(50), taken)
            if number < 4:
                bag.image("/front/image_raw", taken, colour(number), taken)
                bag.image("/sensor/depth/image_raw", taken, depth(number), taken)
    dataset = open_dataset("bag", tmp_path / "bag")
    assert dataset.image_topic == "/front/image_raw"
    assert dataset.depth_topic == "/sensor/depth/image_raw"
    assert BagPictures(tmp_path / "bag").topic == "/front/image_raw"
    # A depth camera's topic may have the same name.
    named = open_dataset("bag", tmp_path / "bag", depth_topic="/depth/image_rect")
    assert named.depth_topic == "/depth/image_rect"


def test_the_lens_of_a_recipe_is_that_of_its_photographs(tmp_path: Path):
    """Its four fields, as YAML has them; what is no lens is refused before the training."""
    with BagMaker(tmp_path / "bag") as bag:
        for topic, image in (("color", colour(1)), ("depth", depth(1))):
            bag.image(f"/camera/{topic}/image_raw", 0.0, image, 0.0)
    lens = LENS_PRESETS["dslr"]
    options = {"rgb_is": "defocused", "lens": asdict(lens)}
    assert open_dataset("bag", tmp_path / "bag", **options)[0].lens == lens
    for wrong in ("lens.yaml", {"focal_length_m": 0.015}, {**asdict(lens), "f_number": "wide"}):
        with pytest.raises(DatasetError, match="lens: expected {focal_length_m: "):
            open_dataset("bag", tmp_path / "bag", lens=wrong)


def test_a_twentieth_of_the_recording_is_a_scene(tmp_path: Path):
    with BagMaker(tmp_path / "bag") as bag:
        for number in range(40):
            bag.image("/image_raw", number / 30, colour(number % 20), number / 30)
            bag.image("/depth", number / 30, depth(number), number / 30)
    dataset = open_dataset("bag", tmp_path / "bag")
    assert [dataset.scene_of(i) for i in range(5)] == ["part 0"] * 2 + ["part 1"] * 2 + ["part 2"]
    assert len({dataset.scene_of(i) for i in range(40)}) == 20


def test_without_stamps_the_times_of_recording_pair(tmp_path: Path):
    with BagMaker(tmp_path / "bag") as bag:
        for number in range(3):
            bag.image("/rgb", None, colour(number), number / 10)
            bag.image("/depth", None, depth(number), number / 10 + 0.01)
    dataset = open_dataset("bag", tmp_path / "bag", rgb_is="defocused")
    assert [int(s.defocused_rgb[0, 0, 0]) for s in dataset] == [0, 10, 20]
    with pytest.raises(DatasetError, match=r"at most 0\.001 s apart"):
        open_dataset("bag", tmp_path / "bag", max_gap_s=0.001)


def test_compressed_images_and_depth(tmp_path: Path):
    """CompressedDepth keeps 16 bits as they are, and 32-bit depth as quantised inverse."""
    a, b = 4000.0, 10.0  # depth = a / (value - b)
    values = np.full((24, 32), 2010, np.uint16)
    values[0, 0] = 0
    with BagMaker(tmp_path / "bag") as bag:
        for name, kind, plane in (
            ("/d16/depth", "16UC1; compressedDepth png", depth(7)),
            ("/d32/depth", "32FC1; compressedDepth png", values),
        ):
            png = cv2.imencode(".png", plane)[1].tobytes()
            head = struct.pack("<iff", 0, a, b)
            bag.compressed(f"{name}/compressedDepth", 0.0, kind, head + png)
        jpeg = cv2.imencode(".png", colour(4))[1].tobytes()
        bag.compressed("/rgb/image/compressed", 0.0, "png", jpeg)
    topic = "/d16/depth/compressedDepth"
    sample = open_dataset("bag", tmp_path / "bag", depth_topic=topic)[0]
    assert sample.sharp_rgb[0, 0].tolist() == [40, 40, 40]
    assert sample.depth_m[5, 5] == pytest.approx(1.007)
    sample = open_dataset("bag", tmp_path / "bag", depth_topic="/d32/depth/compressedDepth")[0]
    assert sample.depth_m[5, 5] == pytest.approx(2.0)
    assert np.isnan(sample.depth_m[0, 0])


def test_depth_in_another_view_is_refused(tmp_path: Path):
    with BagMaker(tmp_path / "bag") as bag:
        bag.image("/rgb/image", 0.0, colour(1), 0.0)
        bag.image("/depth/image", 0.0, np.full((12, 16), 2.5, np.float32), 0.0)
        bag.info("/rgb/camera_info", (24, 32), 30.0, 15.5)
        bag.info("/depth/camera_info", (12, 16), 22.0, 7.75)
    with pytest.raises(DatasetError, match="aligned_depth_to_color"):
        open_dataset("bag", tmp_path / "bag")
    sample = open_dataset("bag", tmp_path / "bag", check_registration=False)[0]
    assert sample.depth_m.shape == (24, 32)
    assert sample.depth_m[9, 9] == 2.5


def test_wrong_topics_are_explained(tmp_path: Path):
    with BagMaker(tmp_path / "bag") as bag:
        bag.image("/rgb/image", 0.0, colour(1), 0.0)
    with pytest.raises(DatasetError, match=r"depth images, got /rgb/image; give depth_topic"):
        open_dataset("bag", tmp_path / "bag")
    with pytest.raises(DatasetError, match=r"expected images on /front"):
        open_dataset("bag", tmp_path / "bag", image_topic="/front")


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no recording at {DATA}")
def test_a_real_recording_is_the_same_from_a_bag_and_from_its_folder(tmp_path: Path):
    folder = open_dataset("folder", DATA)
    with BagMaker(tmp_path / "bag") as bag:
        for index in range(3):
            sample, taken = folder[index], index / 15
            bag.image("/camera/rgb/image_color", taken, sample.sharp_rgb, taken)
            bag.image("/camera/depth_registered/image", taken + 0.003, sample.depth_m, taken)
    dataset = open_dataset("bag", tmp_path / "bag")
    assert len(dataset) == 3
    for index, sample in enumerate(dataset):
        np.testing.assert_array_equal(sample.sharp_rgb, folder[index].sharp_rgb)
        np.testing.assert_array_equal(sample.depth_m, folder[index].depth_m)
