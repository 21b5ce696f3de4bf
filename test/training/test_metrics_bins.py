"""Errors per depth against loops, and the averages of image quality."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ddfd_training import metrics

NAN = float("nan")


def maps(seed: int, shape: tuple[int, int] = (9, 11)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.uniform(-0.5, 11.5, shape)
    true[rng.uniform(size=shape) < 0.2] = NAN
    pred = np.abs(np.nan_to_num(true, nan=3.0)) + rng.normal(0, 0.5, shape)
    true.flat[:3] = 2.0, 10.0, 0.0  # on borders
    return pred, true


def loop(pairs: list[tuple[np.ndarray, np.ndarray]], low: float, high: float) -> dict[str, float]:
    errors, ratios, close, per_image = [], [], [], []
    for pred, true in pairs:
        here = []
        for p, t in zip(pred.flat, true.flat, strict=True):
            if not (t > 0 and low <= t and (t < high or t == high == 10.0)):
                continue
            here.append(p - t)
            ratios.append(abs(p - t) / t)
            close.append(max(p / t, t / max(p, 1e-3)) < 1.25)
        errors += here
        if here:
            per_image.append(math.sqrt(np.mean(np.square(here))))
    return {
        "pixels": len(errors),
        "rmse": math.sqrt(np.mean(np.square(errors))),
        "mae_m": float(np.mean(np.abs(errors))),
        "bias_m": float(np.mean(errors)),
        "abs_rel": float(np.mean(ratios)),
        "delta1": float(np.mean(close)),
        "rmse_mean_over_images": float(np.mean(per_image)),
    }


def test_bins_match_a_loop():
    pairs = [maps(seed) for seed in range(3)]
    table = metrics.DepthBins()
    for pair in pairs:
        table.add(*pair)
    result = table.result()
    assert result["images"] == 3
    for row in result["bins"]:
        expected = loop(pairs, row["from_m"], row["to_m"])
        assert {k: row[k] for k in expected} == pytest.approx(expected, rel=1e-5)
    assert sum(row["share"] for row in result["bins"]) == pytest.approx(1)
    known = sum(int((true > 0).sum()) for _, true in pairs)
    assert result["pixels"] + result["pixels_outside"] == known


def test_empty_bins_and_sets_are_nan_not_zero():
    table = metrics.DepthBins((0.0, 1.0, 2.0))
    assert all(math.isnan(row["rmse"]) for row in table.result()["bins"])
    table.add(np.full((3, 3), 1.0), np.full((3, 3), NAN))
    table.add(np.array([1.5]), np.array([1.25]))
    rows = table.result()["bins"]
    assert math.isnan(rows[0]["rmse"])
    assert rows[1]["rmse"] == pytest.approx(0.25)
    assert math.isnan(table.result()["growth"]["exponent"])


def test_masked_pixels_do_not_count():
    pred, true = maps(5)
    mask = np.random.default_rng(0).uniform(size=true.shape) < 0.5
    both = [metrics.DepthBins(), metrics.DepthBins()]
    both[0].add(pred, true, mask)
    both[1].add(pred, np.where(mask, true, NAN))
    rows = [table.result()["bins"] for table in both]
    for left, right in zip(*rows, strict=True):
        assert left == pytest.approx(right, nan_ok=True)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_growth_finds_the_power_of_the_error(power: float):
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 10, (300, 300))
    pred = true + 0.03 * true**power * rng.normal(size=true.shape)
    table = metrics.DepthBins(np.arange(0.5, 10.5, 0.5))
    table.add(pred, true)
    found = table.result()["growth"]
    assert found["exponent"] == pytest.approx(power, abs=0.05)
    best = "r2_linear" if power == 1 else "r2_quadratic"
    other = "r2_quadratic" if power == 1 else "r2_linear"
    assert found[best] > 0.99
    assert found[best] > found[other]


def test_the_plot_shows_each_result_and_refuses_mixed_bins(tmp_path: Path):
    tables = [metrics.DepthBins(), metrics.DepthBins((0.0, 5.0, 10.0))]
    for table in tables:
        table.add(*maps(1))
    first, other = (table.result() for table in tables)
    path = metrics.plot_depth_bins({"focus 2 m": first}, tmp_path / "a" / "bins.png", title="t")
    picture = cv2.imread(str(path))
    assert picture.shape[1] > 600
    assert picture.std() > 10
    with pytest.raises(ValueError, match="bins of the others"):
        metrics.plot_depth_bins({"a": first, "b": other}, path)
    with pytest.raises(ValueError, match="at least one"):
        metrics.plot_depth_bins({}, path)


def test_edges_must_rise():
    for edges in ((1.0,), (0.0, 2.0, 2.0)):
        with pytest.raises(ValueError, match="rising edges"):
            metrics.DepthBins(edges)


def test_image_quality_is_averaged_both_ways():
    rng = np.random.default_rng(1)
    table, rows, squares = metrics.ImageTable(), [], []
    similar, windows = [], []
    for size, noise in (((20, 30), 0.02), ((40, 25), 0.2)):
        a = rng.uniform(size=(*size, 3))
        b = np.clip(a + rng.normal(0, noise, a.shape), 0, 1)
        assert table.add(a, b) == pytest.approx(metrics.image_metrics(a, b))
        ssim = structural_similarity(
            a, b, data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        rows.append((peak_signal_noise_ratio(a, b, data_range=1.0), ssim, np.abs(a - b).mean()))
        squares += ((a - b) ** 2).ravel().tolist()
        similar.append(ssim)
        windows.append((size[0] - 10) * (size[1] - 10))
    result = table.result()
    mean = dict(zip(metrics.IMAGE_METRICS, np.mean(rows, axis=0), strict=True))
    assert result["mean_over_images"] == pytest.approx(mean, rel=1e-5)
    assert result["over_pixels"]["psnr"] == pytest.approx(-10 * math.log10(np.mean(squares)))
    assert result["over_pixels"]["ssim"] == pytest.approx(np.average(similar, weights=windows))
    assert math.isnan(metrics.ImageTable().result()["over_pixels"]["psnr"])
