"""Plain RGB-D folders: units, roles of the images, and clear refusals."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ddfd_ros.core.errors import DatasetError
from ddfd_training.config import SourceConfig
from ddfd_training.datasets import RgbdFolder
from ddfd_training.datasets.base import read_rgb
from ddfd_training.sources import split_of

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("DDFD_DATA", ROOT.parent / "shared" / "data")) / "rgbd_video"


def write_image(path: Path, level: int = 90) -> None:
    path.parent.mkdir(exist_ok=True)
    image = np.zeros((6, 9, 3), np.uint8)
    image[..., 0] = level  # blue, in OpenCV's order
    assert cv2.imwrite(str(path), image)


def write_depth(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        assert cv2.imwrite(str(path), values)


def test_millimetres_and_metres_agree(tmp_path: Path):
    depth = np.full((6, 9), 1234, np.uint16)
    depth[0, 0] = 0
    write_image(tmp_path / "rgb" / "a.png")
    write_image(tmp_path / "rgb" / "b.png")
    write_image(tmp_path / "rgb" / "c.png")
    write_depth(tmp_path / "depth" / "a.png", depth)
    metres = depth / 1000.0
    metres[0, 0] = np.inf
    write_depth(tmp_path / "depth" / "b.npy", metres)
    dataset = RgbdFolder(tmp_path)
    assert dataset.frames == ["a", "b"]
    assert dataset.skipped == ["c"]
    assert dataset.intrinsics is None
    for sample in dataset:
        assert sample.depth_m.dtype == np.float32
        assert np.isnan(sample.depth_m[0, 0])
        assert sample.depth_m[3, 3] == pytest.approx(1.234)
        assert sample.sharp_rgb[2, 2].tolist() == [0, 0, 90]
        assert sample.defocused_rgb is None
    assert RgbdFolder(tmp_path, depth_unit_m=2e-4)[0].depth_m[3, 3] == pytest.approx(0.2468)


def test_a_part_of_the_recording_is_a_scene_whatever_the_split(tmp_path: Path):
    for frame in range(44):
        write_image(tmp_path / "rgb" / f"{frame:02d}.png")
        write_depth(tmp_path / "depth" / f"{frame:02d}.png", np.full((6, 9), 1000, np.uint16))
    (tmp_path / "test.txt").write_text("43\n01\n00\n")
    whole = RgbdFolder(tmp_path)
    parts = [whole.scene_of(i) for i in range(44)]
    assert parts[:4] == ["part 0"] * 3 + ["part 1"]
    assert len(set(parts)) == 20
    listed = RgbdFolder(tmp_path, "test")
    assert [listed.scene_of(i) for i in range(3)] == [parts[43], parts[1], parts[0]]


def test_numbers_without_leading_zeros_are_in_order(tmp_path: Path):
    """Frame 9 is taken before frame 10, so they are of one part or of neighbours."""
    for frame in range(1, 121):
        write_image(tmp_path / "rgb" / f"{frame}.png")
        write_depth(tmp_path / "depth" / f"{frame}.png", np.full((6, 9), 1000, np.uint16))
    whole = RgbdFolder(tmp_path)
    parts = {name: whole.scene_of(i) for i, name in enumerate(whole.frame_names)}
    assert [parts[str(frame)] for frame in range(1, 121)] == [
        f"part {frame // 6}" for frame in range(120)
    ]


def test_a_list_takes_names_with_spaces_and_a_byte_order_mark(tmp_path: Path):
    for name in ("kitchen 1", "küche 2", "3"):
        write_image(tmp_path / "rgb" / f"{name}.png")
        write_depth(tmp_path / "depth" / f"{name}.png", np.full((6, 9), 1000, np.uint16))
    (tmp_path / "train.txt").write_bytes("\ufeffküche 2\r\nkitchen 1 \r\n\r\n".encode())
    assert RgbdFolder(tmp_path, "train").frames == ["küche 2", "kitchen 1"]


def test_hidden_files_are_no_frames(tmp_path: Path):
    """A copy made by macOS leaves ._a.png beside a.png where it copies to other file systems."""
    for kind in ("rgb", "depth"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "._a.png").write_bytes(b"\0\5\x16\7")
    write_image(tmp_path / "rgb" / "a.png")
    write_depth(tmp_path / "depth" / "a.png", np.full((6, 9), 1000, np.uint16))
    assert RgbdFolder(tmp_path).frames == ["a"]


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    write_image(tmp_path / "rgb" / "a.png")
    write_depth(tmp_path / "depth" / "a.png", np.full((6, 9), 10000, np.uint16))
    write_depth(tmp_path / "depth" / "a.npy", np.full((6, 9), 1.0))
    with pytest.raises(DatasetError, match=r"one file of each name, got a\.npy and a\.png"):
        RgbdFolder(tmp_path)


def test_what_a_list_keeps_for_testing_is_not_trained_on(tmp_path: Path):
    source = SourceConfig("folder", str(tmp_path))
    assert split_of(source) == "all"
    (tmp_path / "test.txt").write_text("a")
    with pytest.raises(DatasetError, match=r"expected train\.txt beside test\.txt"):
        split_of(source)
    (tmp_path / "train.txt").write_text("b")
    assert split_of(source) == "train"


@pytest.mark.parametrize("thumbnail", [b"", b"\xff\xe1\x00\x08\xff\xd8\xff\xd9.."])
def test_half_a_photograph_is_refused(tmp_path: Path, thumbnail: bytes):
    """OpenCV paints the missing half grey; the end of an EXIF thumbnail is not the image's."""
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    data = cv2.imencode(".jpg", image)[1].tobytes()
    data = data[:2] + thumbnail + data[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(data + b"trailer")
    assert read_rgb(path).shape == (60, 80, 3)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match="a broken one"):
        read_rgb(path)


def test_roles_of_the_images(tmp_path: Path):
    write_image(tmp_path / "rgb" / "a.png", 50)
    write_depth(tmp_path / "depth" / "a.png", np.full((6, 9), 1000, np.uint16))
    assert RgbdFolder(tmp_path, rgb_is="defocused")[0].sharp_rgb is None
    write_image(tmp_path / "sharp" / "a.jpg", 200)
    sample = RgbdFolder(tmp_path)[0]
    assert sample.defocused_rgb[0, 0, 2] == 50
    assert abs(int(sample.sharp_rgb[0, 0, 2]) - 200) < 4


def test_intrinsics_as_a_matrix_or_four_numbers(tmp_path: Path):
    write_image(tmp_path / "rgb" / "a.png")
    write_depth(tmp_path / "depth" / "a.png", np.full((6, 9), 1000, np.uint16))
    file = tmp_path / "camera-intrinsics.txt"
    file.write_text("585 0 320\n0 586 240\n0 0 1\n")
    assert RgbdFolder(tmp_path).intrinsics == (585, 586, 320, 240)
    file.write_text("1 2 3 4")
    assert RgbdFolder(tmp_path).intrinsics == (1, 2, 3, 4)
    file.write_text("one two")
    with pytest.raises(DatasetError, match="3x3 camera matrix"):
        RgbdFolder(tmp_path)


def test_wrong_folders_and_files_are_explained(tmp_path: Path):
    with pytest.raises(DatasetError, match="rgb/, depth/"):
        RgbdFolder(tmp_path / "nowhere")
    write_image(tmp_path / "rgb" / "a.png")
    with pytest.raises(DatasetError, match="16-bit PNG"):
        RgbdFolder(tmp_path)
    write_depth(tmp_path / "depth" / "b.png", np.full((6, 9), 1000, np.uint16))
    with pytest.raises(DatasetError, match="no common name"):
        RgbdFolder(tmp_path)
    with pytest.raises(DatasetError, match="rgb_is"):
        RgbdFolder(tmp_path, rgb_is="blurred")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((6, 9), 100, np.uint8), "16-bit integers"),
        (np.full((5, 9), 1000, np.uint16), "one size"),
        (np.full((6, 9, 3), 1000, np.uint16), "one channel"),
        (np.full((6, 9), 3, np.uint16), r"half of it nearer than 0\.003 m.*1 for metres"),
    ],
)
def test_wrong_depth_maps_are_refused(tmp_path: Path, values: np.ndarray, message: str):
    write_image(tmp_path / "rgb" / "a.png")
    write_depth(tmp_path / "depth" / "a.png", values)
    with pytest.raises(DatasetError, match=message):
        RgbdFolder(tmp_path)[0]


def test_a_broken_array_is_refused(tmp_path: Path):
    write_image(tmp_path / "rgb" / "a.png")
    (tmp_path / "depth").mkdir()
    for content in (b"not an array", b""):
        (tmp_path / "depth" / "a.npy").write_bytes(content)
        with pytest.raises(DatasetError, match="depths in metres"):
            RgbdFolder(tmp_path)[0]


def test_millimetres_in_a_floating_point_file_are_refused(tmp_path: Path):
    write_image(tmp_path / "rgb" / "a.png")
    write_depth(tmp_path / "depth" / "a.npy", np.linspace(700.0, 4000.0, 54).reshape(6, 9))
    with pytest.raises(DatasetError, match="got 700 and more, as of millimetres"):
        RgbdFolder(tmp_path)[0]


def test_a_file_replaced_in_place_is_another_set(tmp_path: Path):
    write_image(tmp_path / "rgb" / "a.png")
    write_depth(tmp_path / "depth" / "a.npy", np.full((6, 9), 1.0))
    before = RgbdFolder(tmp_path).key
    assert RgbdFolder(tmp_path).key == before
    write_depth(tmp_path / "depth" / "a.npy", np.full((6, 9), 2.0))
    os.utime(tmp_path / "depth" / "a.npy", ns=(1, 1))  # clocks are coarse
    assert RgbdFolder(tmp_path).key != before


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no recording at {DATA}")
def test_reads_a_kinect_recording():
    dataset = RgbdFolder(DATA)
    assert len(dataset) == 150
    assert dataset.intrinsics == (585, 585, 320, 240)
    sample = dataset[0]
    assert 0.05 < np.isnan(sample.depth_m).mean() < 0.2
    assert 0.4 < np.nanmin(sample.depth_m) < np.nanmax(sample.depth_m) < 10
