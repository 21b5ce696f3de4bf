"""The DSLR set: pairing, units, and what it says about a wrong folder."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ddfd_ros.core.errors import DatasetError
from ddfd_training.calibration.windows import SHAPES, windows
from ddfd_training.datasets import DfdDslr
from ddfd_training.datasets.dfd_dslr import pair_by_time, pair_in_order
from ddfd_training.datasets.sample import RgbdSample
from ddfd_training.registration import register

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("DDFD_DATA", ROOT.parent / "shared" / "data")) / "dfd_dslr"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data set at {DATA}")


def write_set(root: Path, separator: str = ":") -> None:
    """Three images; the second depth map is an orphan and so is the last image."""
    images = ["10:00:00.500000", "10:01:00.500000", "10:02:00.500000"]
    depths = ["10:00:00.400000", "10:00:30.000000", "10:01:00.100000"]
    for aperture, level in (("N2_8", 100), ("N8", 150)):
        for kind, stamps in (("rgb", images), ("depth", depths)):
            folder = root / f"dfd_dataset_indoor_{aperture}" / kind / "test"
            folder.mkdir(parents=True)
            for number, stamp in enumerate(stamps):
                path = folder / f"2018-04-26T{stamp}".replace(":", separator)
                if kind == "rgb":
                    ok, data = cv2.imencode(
                        ".jpg", np.full((8, 10, 3), level + 10 * number, np.uint8)
                    )
                else:
                    values = np.full((8, 10), 1000 * (number + 1), np.uint16)
                    values[0, 0] = 0
                    ok, data = cv2.imencode(".png", values)
                assert ok
                Path(f"{path}.JPG" if kind == "rgb" else f"{path}.png").write_bytes(data)


@pytest.mark.parametrize("separator", [":", "_"])
def test_pairs_by_nearest_time_and_reads_metres(tmp_path: Path, separator: str):
    write_set(tmp_path, separator)
    dataset = DfdDslr(tmp_path, "test", pair="time")
    assert len(dataset) == 2
    first, second = dataset[0], dataset[1]
    assert first.depth_m[1, 1] == pytest.approx(1.0)
    assert second.depth_m[1, 1] == pytest.approx(3.0)
    assert np.isnan(first.depth_m[0, 0])
    assert abs(int(second.defocused_rgb[0, 0, 0]) - 110) <= 2
    assert abs(int(second.sharp_rgb[0, 0, 0]) - 160) <= 2
    assert first.lens.focus_distance_m == 1.7
    assert DfdDslr(tmp_path, "test", pair="time", sharp=False)[0].sharp_rgb is None
    assert [s.name for s in dataset[0:2]] == [first.name, second.name]


def test_pairs_in_order_whatever_the_times_say(tmp_path: Path):
    write_set(tmp_path)
    last = tmp_path / "dfd_dataset_indoor_N2_8/depth/test/2018-04-26T10:01:00.100000.png"
    last.rename(last.with_name("2018-04-26T10:02:00.400000.png"))
    assert [sample.depth_m[1, 1] for sample in DfdDslr(tmp_path, "test")] == [1.0, 2.0, 3.0]


def test_order_needs_whole_lists_of_about_the_same_times():
    images = [Path(f"2018-04-26T10:0{minute}:00.0.JPG") for minute in range(4)]
    depths = [image.with_suffix(".png") for image in images]
    assert pair_in_order(images, depths) == list(zip(images, depths, strict=True))
    with pytest.raises(DatasetError, match="as many depth maps as images, got 3 and 4.*pair: tim"):
        pair_in_order(images, depths[1:])
    with pytest.raises(DatasetError, match=r"within 2 s .* got 0 of 3.*pair: time"):
        pair_in_order(images[:-1], depths[1:])


def test_no_file_is_used_twice():
    first = [Path("2018-04-26T10:00:00.0.JPG"), Path("2018-04-26T10:00:01.0.JPG")]
    second = [Path("2018-04-26T10:00:00.9.png")]
    assert pair_by_time(first, second) == [(first[1], second[0])]


def test_wrong_folders_and_names_are_explained(tmp_path: Path):
    with pytest.raises(DatasetError, match="dfd_dataset_indoor_N2_8"):
        DfdDslr(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="layout is dfd_dataset_indoor_"):
        DfdDslr(tmp_path)
    with pytest.raises(DatasetError, match="expected one of N2_8, N8"):
        DfdDslr(tmp_path, aperture="N4")
    with pytest.raises(DatasetError, match="expected one of order, time"):
        DfdDslr(tmp_path, pair="name")
    write_set(tmp_path)
    with pytest.raises(DatasetError, match="val"):
        DfdDslr(tmp_path, "val")
    folder = tmp_path / "dfd_dataset_indoor_N2_8" / "rgb" / "test"
    next(folder.iterdir()).rename(folder / "IMG_0001.JPG")
    with pytest.raises(DatasetError, match="named by its time"):
        DfdDslr(tmp_path)


@needs_data
@pytest.mark.data
def test_the_real_set_has_29_test_and_81_training_pairs():
    test = DfdDslr(DATA, "test")
    assert len(test) == 29
    assert len(DfdDslr(DATA, "test", pair="time")) == 28
    train = DfdDslr(DATA, "train")
    assert len(train) == 81
    assert train.pairs == DfdDslr(DATA, "train", pair="time").pairs
    sample = test[3]
    assert sample.defocused_rgb.shape == sample.sharp_rgb.shape == (432, 645, 3)
    assert 0.2 < np.nanmin(sample.depth_m) < np.nanmax(sample.depth_m) < 10
    # The stopped-down view has more fine detail.
    detail = [cv2.Laplacian(i, cv2.CV_64F).var() for i in (sample.defocused_rgb, sample.sharp_rgb)]
    assert detail[1] > detail[0]


def blur_off_the_lens_line_px(photo: np.ndarray, sharp: np.ndarray, depth_m: np.ndarray) -> float:
    """Median distance, in pixels of spread, of measured blur from what the lens says at a depth.

    Blur is measured by blurring the f/8 photograph until it looks like the f/2.8 one, in windows
    of one distance; the lens: a spread of 3.3 px per dioptre away from the focus at 0.62 dioptre,
    and 0.35 px in focus, as the training pairs show it.
    """
    aligned = register(sharp, photo).warp(sharp)
    found = windows(RgbdSample("", depth_m, aligned, photo), 0, "srgb")
    sigma_px = found.sigma_px[:, SHAPES.index("gaussian")]  # the shape that the line is of
    line_px = np.hypot(0.35, 3.3 * (found.dioptre - 0.62))
    return float(np.nanmedian(np.abs(sigma_px - line_px)))


@needs_data
@pytest.mark.data
def test_blur_says_that_order_is_right_where_times_disagree():
    torch.set_num_threads(1)
    in_order, by_time = DfdDslr(DATA, "test"), DfdDslr(DATA, "test", pair="time")
    times = {image: depth for image, depth in by_time.pairs}
    disputed = [i for i, (image, depth) in enumerate(in_order.pairs) if times.get(image) != depth]
    assert disputed == list(range(1, 10))
    right = in_order[3]
    other = by_time[[image.stem for image, _ in by_time.pairs].index(right.name)]
    photo, sharp = right.defocused_rgb, right.sharp_rgb
    off = [blur_off_the_lens_line_px(photo, sharp, s.depth_m) for s in (right, other)]
    assert off[0] < 0.13 < 0.2 < off[1]
