"""NYUv2's layout and numbers, on a folder written here and on the real one where it is."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets.nyuv2 import Nyuv2, scenes_by_run

REAL = Path(os.environ.get("DDFD_DATA", Path(__file__).parents[2] / "../shared/data")) / "nyuv2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two frames in the true layout."""
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    rgb = np.zeros((480, 640, 3), dtype=np.uint8)
    rgb[45:471, 41:601] = (10, 20, 200)  # blue, green, red: inside the toolbox's crop
    levels = np.full((480, 640), 51, dtype=np.uint8)
    for frame in ("0007", "0012"):
        # Quality 100 and a flat picture: JPEG keeps the colours to a grey level or two.
        cv2.imwrite(str(tmp_path / "rgb" / f"{frame}.jpg"), rgb, [cv2.IMWRITE_JPEG_QUALITY, 100])
        cv2.imwrite(str(tmp_path / "depth" / f"{frame}.png"), levels)
    (tmp_path / "train.txt").write_text("0007\n0012\n", encoding="ascii")
    return tmp_path


def test_reads_crop_colour_order_and_metres(folder: Path) -> None:
    """426x560, RGB, and depth in the middle of its level: (51 + 0.5) * 9.99547 / 255 m."""
    dataset = Nyuv2(folder, "train")
    assert len(dataset) == 2
    sample = dataset[1]
    assert sample.name == "0012"
    assert sample.sharp_rgb is not None
    assert sample.sharp_rgb.shape == (426, 560, 3)
    np.testing.assert_allclose(sample.sharp_rgb[200, 200], (200, 20, 10), atol=3)
    assert sample.depth_m.shape == (426, 560)
    assert sample.depth_m.dtype == np.float32
    np.testing.assert_allclose(sample.depth_m, 2.01869, atol=1e-4)
    assert len(dataset[0:2]) == 2


def test_frames_without_a_gap_between_them_are_one_scene(folder: Path) -> None:
    """The official split keeps scenes whole, so a gap is where another one begins."""
    assert scenes_by_run([9, 2, 3, 4, 7, 8]) == {2: 2, 3: 2, 4: 2, 7: 7, 8: 7, 9: 7}
    assert set(scenes_by_run(range(100)).values()) == {0, 40, 80}  # no official split at all
    dataset = Nyuv2(folder, "train")
    assert [dataset.scene_of(i) for i in range(2)] == ["7", "12"]


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no NYUv2 at {REAL}; set DDFD_DATA")
def test_the_official_training_frames_lie_in_123_runs() -> None:
    """None is so long that it had to be cut."""
    dataset = Nyuv2(REAL, "train")
    scenes = [dataset.scene_of(i) for i in range(len(dataset))]
    sizes = {scene: scenes.count(scene) for scene in scenes}
    assert (len(sizes), max(sizes.values())) == (123, 34)


def test_whole_frame_on_request(folder: Path) -> None:
    """Without the crop the white frame stays."""
    whole = Nyuv2(folder, "train", crop=False)
    assert whole[0].depth_m.shape == (480, 640) == whole.frame_size()
    assert Nyuv2(folder, "train").frame_size() == (480, 640)


def test_errors_name_what_is_missing(folder: Path) -> None:
    """Wrong folder, wrong split, missing or mismatched image: each says so."""
    with pytest.raises(DatasetError, match="expected a folder"):
        Nyuv2(folder / "nowhere")
    with pytest.raises(DatasetError, match="splits here: train"):
        Nyuv2(folder, "validation")
    (folder / "rgb" / "0007.jpg").unlink()
    with pytest.raises(DatasetError, match=r"0007\.jpg"):
        Nyuv2(folder)[0]
    cv2.imwrite(str(folder / "depth" / "0012.png"), np.zeros((4, 4), dtype=np.uint8))
    with pytest.raises(DatasetError, match="of one size"):
        Nyuv2(folder)[1]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs NYUv2 at {REAL} (set DDFD_DATA)")
def test_real_splits() -> None:
    """The official splits do not share frames; depth lies in the sensor's range."""
    train, test = Nyuv2(REAL, "train"), Nyuv2(REAL, "test")
    assert (len(train), len(test)) == (795, 323)
    assert not set(train.frames) & set(test.frames)
    depth_m = test[0].depth_m
    assert 0.5 < depth_m.min() < depth_m.max() < 10.1
