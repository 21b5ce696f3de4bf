"""The DSLR set: pairing by time, units, and what it says about a wrong folder."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from ddfd_ros.core.errors import DatasetError
from ddfd_training.datasets import DfdDslr
from ddfd_training.datasets.dfd_dslr import pair_by_time

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
    dataset = DfdDslr(tmp_path, "test")
    assert len(dataset) == 2
    first, second = dataset[0], dataset[1]
    assert first.depth_m[1, 1] == pytest.approx(1.0)
    assert second.depth_m[1, 1] == pytest.approx(3.0)
    assert np.isnan(first.depth_m[0, 0])
    assert abs(int(second.defocused_rgb[0, 0, 0]) - 110) <= 2
    assert abs(int(second.sharp_rgb[0, 0, 0]) - 160) <= 2
    assert first.lens.focus_distance_m == 1.7
    assert DfdDslr(tmp_path, "test", sharp=False)[0].sharp_rgb is None
    assert [s.name for s in dataset[0:2]] == [first.name, second.name]


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
    write_set(tmp_path)
    with pytest.raises(DatasetError, match="val"):
        DfdDslr(tmp_path, "val")
    folder = tmp_path / "dfd_dataset_indoor_N2_8" / "rgb" / "test"
    next(folder.iterdir()).rename(folder / "IMG_0001.JPG")
    with pytest.raises(DatasetError, match="named by its time"):
        DfdDslr(tmp_path)


@needs_data
@pytest.mark.data
def test_the_real_set_has_28_test_and_81_training_pairs():
    test = DfdDslr(DATA, "test")
    assert len(test) == 28
    assert len(DfdDslr(DATA, "train")) == 81
    names = {path.stem for path, _ in test.pairs}
    depths = {path.stem for _, path in test.pairs}
    assert "2018-04-26T17:42:51.901386" not in names
    assert "2018-04-26T17:29:05.557451" not in depths
    sample = test[3]
    assert sample.defocused_rgb.shape == sample.sharp_rgb.shape == (432, 645, 3)
    assert 0.2 < np.nanmin(sample.depth_m) < np.nanmax(sample.depth_m) < 10
    # The stopped-down view has more fine detail.
    detail = [cv2.Laplacian(i, cv2.CV_64F).var() for i in (sample.defocused_rgb, sample.sharp_rgb)]
    assert detail[1] > detail[0]
