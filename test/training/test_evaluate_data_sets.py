"""ddfd-evaluate on sets without metric depth: 16-bit pairs, orders of points, masks of blur."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.datasets.sample import DepthOrder
from ddfd_training.evaluate import evaluate
from ddfd_training.evaluate_data import (
    DATA_SETS,
    DataOptions,
    mean_training_depth_m,
    open_evaluation_set,
    split_of,
)
from ddfd_training.evaluate_truths import is_ordered_wrongly, rank_correlation, separation
from ddfd_training.sources import PINHOLE_F_NUMBER


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


class Answer:
    """Answers every image with the same maps."""

    def __init__(self, **outputs: np.ndarray) -> None:
        self.outputs = outputs
        self.seen: list[np.ndarray] = []

    def infer(self, image: np.ndarray, heads: object = None) -> dict[str, np.ndarray]:
        self.seen.append(image)
        return self.outputs


def test_a_registered_truth_of_16_bits_stays_between_black_and_white(tmp_path: Path):
    """Interpolation overshoots at edges: the truth was 266 of 255 there, and refused."""
    rng = np.random.default_rng(0)
    sharp = np.repeat(rng.integers(0, 2, (60, 80, 1), np.uint16) * 65535, 3, axis=2)
    sharp = cv2.resize(sharp, (320, 240), interpolation=cv2.INTER_NEAREST)
    moved = np.array([[1, 0, 2.4], [0, 1, 1.3]])
    second = cv2.warpAffine(sharp, moved, (320, 240), flags=cv2.INTER_NEAREST, borderMode=2)
    write(tmp_path / "rgb" / "a.png", cv2.GaussianBlur(sharp, (0, 0), 1.5))
    write(tmp_path / "sharp" / "a.png", second)
    data = open_evaluation_set(DataOptions("folder", str(tmp_path), exposure="none"))
    (item,) = data
    assert item.notes["registered"] == 1.0
    assert (item.sharp_rgb.min(), item.sharp_rgb.max()) == (0.0, 255.0)


def test_dpdd_truth_keeps_its_16_bits_and_its_exposure(tmp_path: Path):
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 65535, (2, 24, 32, 3)).astype(np.uint16)
    for view, folder, image in (("c", "source", source), ("c", "target", target)):
        write(tmp_path / f"test_{view}" / folder / f"{folder}.png", image)
    data = open_evaluation_set(DataOptions("dpdd", str(tmp_path)))
    assert data.description["exposure_match"] == "none"
    sharp = rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)
    model = Answer(sharp_rgb=sharp)
    result = evaluate(model, data)
    np.testing.assert_array_equal(model.seen[0], np.rint(source / 257.0).astype(np.uint8))
    mean_square = np.mean((sharp / 255.0 - target / 65535.0) ** 2)
    assert result["all_in_focus"]["output"]["psnr"] == pytest.approx(
        -10 * np.log10(mean_square), abs=1e-4
    )
    assert "depth" not in result


def test_diw_counts_pairs_in_the_wrong_order(tmp_path: Path):
    lines = []
    for number, relation in enumerate(">><"):
        write(tmp_path / "DIW_test" / f"{number}.png", np.full((20, 30, 3), 9, np.uint8))
        lines += [f"DIW_test/{number}.png", f"1,1,20,30,{relation},30,20"]
    (tmp_path / "DIW_test.csv").write_text("\n".join(lines))
    deeper_up = np.tile(np.linspace(5, 1, 20)[:, None], (1, 30)).astype(np.float32)
    data = open_evaluation_set(DataOptions("diw", str(tmp_path)))
    truths = evaluate(Answer(depth_m=deeper_up), data)["other_truths"]
    assert truths == {"whdr": pytest.approx(1 / 3), "whdr_images": 3}


def test_order_equal_is_contradicted_by_any_difference():
    depth = np.array([[1.0, 2.0], [1.0, 3.0]])
    assert not is_ordered_wrongly(depth, DepthOrder((0, 0), (1, 0), 0))
    assert is_ordered_wrongly(depth, DepthOrder((0, 0), (0, 1), 0))
    assert is_ordered_wrongly(depth, DepthOrder((0, 0), (0, 1), 1))


def test_blur_masks_and_maps(tmp_path: Path):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
    for number in range(2):
        write(tmp_path / "cuhk" / "image" / f"out_of_focus{number}.jpg", image)
        mask = np.zeros((40, 40), np.uint8)
        mask[:20] = 255
        write(tmp_path / "cuhk" / "gt" / f"out_of_focus{number}.png", mask)
        write(tmp_path / "syndof" / "image" / f"{number}.png", image)
        blur = np.zeros((40, 40, 3), np.uint8)
        blur[..., 1] = np.arange(40)[:, None]  # sigma 0 to 3.9 px
        write(tmp_path / "syndof" / "blur_map" / f"{number}.png", blur)
    rows = np.tile(np.arange(40.0)[:, None], (1, 40))
    options = {"options": {"white_is": "blurred"}, "split": "all"}
    cuhk = open_evaluation_set(DataOptions("cuhk", str(tmp_path / "cuhk"), **options))
    auc = evaluate(Answer(defocus_px=rows - 40), cuhk)["other_truths"]["blur_mask_auc"]
    assert auc == 1.0  # blur without sign falls with the rows
    syndof = open_evaluation_set(DataOptions("syndof", str(tmp_path / "syndof"), "all"))
    truths = evaluate(Answer(defocus_px=0.4 * rows + 1.5), syndof)["other_truths"]
    assert truths["defocus_mae_px"] == pytest.approx(0.5, abs=1e-5)
    assert truths["defocus_rank_correlation"] == pytest.approx(1.0)


def test_photographs_are_not_shown_as_sharp_images(tmp_path: Path):
    """They were shown as they are, and the errors filed as those of sharp images."""
    image = np.full((8, 8, 3), 90, np.uint8)
    for name in ("rgb", "sharp"):
        write(tmp_path / name / "a.png", image)
    pinhole = replace(LENS_PRESETS["nyu-8m"], f_number=PINHOLE_F_NUMBER)
    with pytest.raises(DatasetError, match="--input: expected auto with folder, whose photo"):
        open_evaluation_set(DataOptions("folder", str(tmp_path), lens=pinhole))


def test_separation_is_the_area_under_the_roc_curve():
    rng = np.random.default_rng(2)
    score = rng.integers(0, 6, (9, 7)).astype(float)  # with ties
    mask = rng.random((9, 7)) < 0.4
    pairs = score[mask][:, None] - score[~mask][None]
    assert separation(score, mask) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert np.isnan(separation(score, np.ones_like(mask)))
    assert separation(np.zeros((9, 7)), mask) == 0.5
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4)))
    assert rank_correlation(np.array([1, 5, 100]), np.array([-3, 0, 0.1])) == pytest.approx(1)


def test_splits_in_place_of_test(tmp_path: Path):
    wanted = {"diode": "val", "bag": "all", "dfd_outdoor": "all", "realdof": "test"}
    for name, split in wanted.items():
        assert split_of(DataOptions(name, str(tmp_path))) == split
    (tmp_path / "test.txt").write_text("a")
    assert split_of(DataOptions("folder", str(tmp_path))) == "test"
    assert split_of(DataOptions("folder", "elsewhere")) == "all"
    (tmp_path / "test.txt").unlink()
    (tmp_path / "train.txt").touch()
    with pytest.raises(DatasetError, match=r"expected test\.txt beside train\.txt"):
        split_of(DataOptions("folder", str(tmp_path)))
    assert {"nyuv2", "dpdd", "diw", "cuhk", "bag"} <= set(DATA_SETS)
    with pytest.raises(DatasetError, match="training split"):
        mean_training_depth_m(DataOptions("realdof", str(tmp_path)))
