"""Evaluation: known errors come out as they went in, on simulated, natural and missing truth."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.ndimage

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.evaluate import ConstantDepth, evaluate
from ddfd_training.evaluate_data import DataOptions, mean_training_depth_m, open_evaluation_set
from ddfd_training.evaluate_items import Item, Natural
from ddfd_training.synthetic import SyntheticScene

HEIGHT, WIDTH = 64, 96


@lru_cache
def rendered(seed: int, height: int, width: int):
    """A room's picture and depth, furnished once for all tests that ask for the same."""
    return SyntheticScene(seed).render(0.0, height, width)


class Truthful:
    """Answers with the truth plus a known error, looked up by the image's bytes."""

    def __init__(self, items: list[Item], error_m: float = 0.0, sigma_m: float = 0.1) -> None:
        self._items = {item.image_rgb.tobytes(): item for item in items}
        self._error_m, self._sigma_m = error_m, sigma_m

    def infer(self, image, heads=None):
        item = self._items[image.tobytes()]
        depth = np.nan_to_num(item.depth_m, nan=3.0) + np.float32(self._error_m)
        answer = {"depth_m": depth, "sigma_m": np.full_like(depth, self._sigma_m)}
        if item.sharp_rgb is not None:
            answer["sharp_rgb"] = item.sharp_rgb
        return answer


@pytest.fixture(scope="module")
def items() -> list[Item]:
    rng = np.random.default_rng(0)
    result = []
    for seed in range(3):
        rgb, depth_m = rendered(seed, HEIGHT, WIDTH)
        blurred, depth_m = cv2.GaussianBlur(rgb, (0, 0), 1.5), depth_m.copy()
        depth_m[rng.uniform(size=depth_m.shape) < 0.1] = np.nan
        result.append(Item(f"{seed}", blurred, depth_m, rgb))
    return result


def test_known_errors_are_reported(items: list[Item]):
    result = evaluate(Truthful(items, error_m=0.2, sigma_m=0.2), items, sensor_range_m=3.5)
    assert result["images"] == 3
    assert result["depth"]["pixels"] == sum(np.isfinite(i.depth_m).sum() for i in items)
    for part in (result["depth"], result["depth_within_sensor_range"]):
        for average in ("mean_over_images", "over_pixels"):
            assert part[average]["rmse"] == pytest.approx(0.2, rel=1e-4)
    near = [i.depth_m[i.depth_m <= 3.5] for i in items]
    assert result["depth_within_sensor_range"]["pixels"] == sum(n.size for n in near)
    relative = np.concatenate([0.2 / n for n in near]).mean()
    over = result["depth_within_sensor_range"]["over_pixels"]
    assert over["abs_rel"] == pytest.approx(relative, rel=1e-4)
    # |error| = sigma lies inside the 95 % interval of a Laplace distribution and the 68 % one
    # reaches -ln(0.32) / sqrt(2) = 0.81 sigma only
    assert result["sigma"]["over_pixels"] == {"coverage_68": 0.0, "coverage_95": 1.0}
    assert result["depth"]["edge_kld"] < 1e-6
    assert result["infer_ms"]["p50"] <= result["infer_ms"]["p95"]


def test_bins_match_a_selection_by_hand(items: list[Item]):
    result = evaluate(ConstantDepth(2.0), items)
    depth = np.concatenate([i.depth_m[np.isfinite(i.depth_m)] for i in items]).astype(float)
    assert sum(row["pixels"] for row in result["depth_bins"]) == depth.size
    for row in result["depth_bins"]:
        inside = depth[(depth >= row["from_m"]) & (depth < row["to_m"])]
        error = 2.0 - inside
        assert row["pixels"] == inside.size
        assert row["bias_m"] == pytest.approx(error.mean(), abs=1e-5)
        assert row["rmse"] == pytest.approx(math.sqrt((error**2).mean()), rel=1e-4)
        assert row["delta1"] == pytest.approx(np.mean(np.maximum(2 / inside, inside / 2) < 1.25))
    assert "sigma" not in result
    assert "all_in_focus" not in result


def test_gain_over_the_input(items: list[Item]):
    class Better(Truthful):
        def infer(self, image, heads=None):
            answer = super().infer(image)
            half = (answer["sharp_rgb"].astype(int) + image) // 2
            return answer | {"sharp_rgb": half.astype(np.uint8)}

    gain = evaluate(Better(items), items, edges=False)["all_in_focus"]["gain"]
    # half the error is 6.02 dB
    assert gain["psnr"] == pytest.approx(6.02, abs=0.3)
    assert gain["ssim"] > 0
    unchanged = evaluate(Truthful([]), [], edges=False)
    assert unchanged == {"images": 0}


def test_natural_pairs_are_registered_and_matched_in_exposure():
    sharp, depth_m = rendered(1, 200, 280)
    moved = scipy.ndimage.shift(sharp.astype(float), (1.4, -3.3, 0), order=3, mode="nearest")
    blurred = cv2.GaussianBlur(np.clip(0.9 * moved + 8, 0, 255).astype(np.uint8), (0, 0), 1.0)

    class Pair:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            from ddfd_training.datasets.base import RgbdSample

            return RgbdSample("a", depth_m, sharp_rgb=sharp, defocused_rgb=blurred)

    item = Natural(Pair(), "global", registered=False)[0]
    assert item.notes["registered"] == 1.0
    assert item.notes["residual_px"] < 0.3
    assert item.notes["exposure_gain"] == pytest.approx(0.9, abs=0.03)
    inner = np.s_[20:-20, 20:-20]
    truth = np.clip(0.9 * moved + 8, 0, 255)[inner]
    assert np.abs(item.sharp_rgb[inner] - truth).mean() < 3.0
    assert np.abs(sharp[inner] - truth).mean() > 6.0
    assert item.box[1].start >= 3
    plain = Natural(Pair(), "none", registered=False)[0]
    assert "exposure_gain" not in plain.notes


def write_nyuv2(root: Path, count: int = 2) -> None:
    for folder in ("rgb", "depth"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        rgb, depth_m = rendered(index, 480, 640)
        assert cv2.imwrite(str(root / "rgb" / f"{index:04d}.jpg"), rgb[..., ::-1])
        levels = (depth_m * 255 / 9.99547).astype(np.uint8)
        assert cv2.imwrite(str(root / "depth" / f"{index:04d}.png"), levels)
    for split in ("train", "test"):
        names = "\n".join(f"{index:04d}" for index in range(count))
        (root / f"{split}.txt").write_text(names)


def test_nyuv2_is_rendered_cropped_clipped_and_cached(tmp_path: Path, monkeypatch):
    write_nyuv2(tmp_path / "nyuv2")
    options = DataOptions(
        data="nyuv2",
        root=str(tmp_path / "nyuv2"),
        lens=LENS_PRESETS["nyu-8m"],
        cache=str(tmp_path / "cache"),
        limit=1,
    )
    data = open_evaluation_set(options)
    assert len(data) == 1
    item = next(iter(data))
    assert item.image_rgb.shape == item.sharp_rgb.shape == (426, 560, 3)
    assert item.depth_m.min() >= 0.5
    # near things are blurred, the focus at 8 m is not reached: less detail than the sharp image
    detail = [cv2.Laplacian(i, cv2.CV_64F).var() for i in (item.image_rgb, item.sharp_rgb)]
    assert detail[0] < 0.7 * detail[1]
    assert data.description["lens"]["focus_distance_m"] == 8.0
    assert data.description["depth_clip_m"] == (0.5, 10.0)
    monkeypatch.setattr("ddfd_training.defocus_cache._render_all", None)
    again = next(iter(open_evaluation_set(options)))
    assert np.array_equal(again.image_rgb, item.image_rgb)
    levels = np.stack(
        [cv2.imread(str(p), -1) for p in sorted((tmp_path / "nyuv2" / "depth").iterdir())]
    )[:, 45:471, 41:601]
    expected = np.clip((levels + 0.5) * 9.99547 / 255, 0.5, 10).mean()
    assert mean_training_depth_m(options) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({}, "disk kernel"),
        ({"kernel": "gaussian"}, "gaussian kernel, sigma 0.3 of the diameter"),
        (
            {"preset": "syndof"},
            "sampled-gaussian kernel, sigma 0.25 of the diameter, sharp below 1 px, "
            "layers of 0.1 px of blur",
        ),
        (
            {"preset": "d3net"},
            "disk kernel, layers of 0.0392 m of depth, from 0.5 m before the nearest point",
        ),
    ],
)
def test_the_report_says_how_images_were_really_rendered(tmp_path: Path, chosen, words):
    write_nyuv2(tmp_path / "nyuv2", 1)
    options = DataOptions("nyuv2", str(tmp_path / "nyuv2"), size=(48, 64),
                          cache=str(tmp_path), options={"crop": False}, **chosen)  # fmt: skip
    description = open_evaluation_set(options).description
    assert description["blur"] == f"simulated, {words}, rounded to 8 bits"
    assert description.get("preset") == chosen.get("preset")
    assert description["options"] == {"crop": False}


def test_wrong_options_are_refused(tmp_path: Path):
    options = DataOptions(data="nyuv2", root=str(tmp_path))
    with pytest.raises(DatasetError, match="expected one of nyuv2"):
        open_evaluation_set(replace(options, data="kitti"))
    with pytest.raises(DatasetError, match="auto, global, none"):
        open_evaluation_set(replace(options, exposure="local"))
    with pytest.raises(DatasetError, match="training split"):
        mean_training_depth_m(replace(options, data="folder"))
