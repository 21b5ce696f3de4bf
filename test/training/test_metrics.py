"""Metrics against slow loops, scikit-image, torchmetrics and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
import torchmetrics.functional as tm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ddfd_training import metrics
from ddfd_training.evaluate import ImageTable as EvaluatedImages
from ddfd_training.evaluate_items import Item


def depth_pair(seed: int = 0, shape: tuple[int, ...] = (12, 15)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.5, 9.5, shape).astype(np.float32)
    pred = np.maximum(target * rng.lognormal(0, 0.3, shape), 0.1).astype(np.float32)
    target[rng.uniform(size=shape) < 0.25] = np.nan
    return pred, target


def loop_metrics(pred: np.ndarray, target: np.ndarray) -> dict[str, float]:
    rows = []
    for p, t in zip(pred.ravel().tolist(), target.ravel().tolist(), strict=True):
        if math.isnan(t):
            continue
        ratio = max(p / t, t / p)
        rows.append(
            (
                (p - t) ** 2,
                (math.log(p) - math.log(t)) ** 2,
                abs(p - t) / t,
                (p - t) ** 2 / t,
                abs(math.log10(p) - math.log10(t)),
                ratio < 1.25,
                ratio < 1.25**2,
                ratio < 1.25**3,
            )
        )
    means = np.mean(np.array(rows, dtype=float), axis=0)
    means[:2] = np.sqrt(means[:2])
    return dict(zip(metrics.DEPTH_METRICS, means.tolist(), strict=True))


def test_depth_metrics_match_a_loop():
    pred, target = depth_pair()
    assert metrics.depth_metrics(pred, target) == pytest.approx(
        loop_metrics(pred, target), rel=1e-5
    )


def test_depth_metrics_match_torchmetrics():
    pred, target = (torch.tensor(x) for x in depth_pair(1))
    ours = metrics.depth_metrics(pred, target)
    known = torch.isfinite(target)
    p, t = pred[known], target[known]
    assert ours["rmse"] == pytest.approx(tm.mean_squared_error(p, t, squared=False).item())
    assert ours["abs_rel"] == pytest.approx(tm.mean_absolute_percentage_error(p, t).item())
    log_rmse = tm.mean_squared_error(p.log(), t.log(), squared=False).item()
    assert ours["rmse_log"] == pytest.approx(log_rmse)


def test_arrays_tensors_masks_and_batches_agree():
    pred, target = depth_pair(2)
    mask = np.zeros_like(target, dtype=bool)
    mask[3:9, 2:11] = True
    cropped = metrics.depth_metrics(pred[3:9, 2:11], target[3:9, 2:11])
    assert metrics.depth_metrics(pred, target, mask) == pytest.approx(cropped)
    tensors = (torch.tensor(pred)[None, None], torch.tensor(target)[None, None])
    assert metrics.depth_metrics(*tensors, torch.tensor(mask)) == pytest.approx(cropped)


def test_a_perfect_prediction_and_no_truth():
    pred, _ = depth_pair()
    perfect = metrics.depth_metrics(pred, pred)
    assert [perfect[k] for k in metrics.DEPTH_METRICS] == [0, 0, 0, 0, 0, 1, 1, 1]
    nothing = metrics.depth_metrics(pred, np.full_like(pred, np.nan))
    assert all(math.isnan(value) for value in nothing.values())


def test_negative_predictions_are_clamped_in_logarithms_only():
    result = metrics.depth_metrics(np.array([-1.0]), np.array([1.0]))
    assert result["rmse"] == pytest.approx(2.0)
    assert result["log10"] == pytest.approx(3.0)
    assert result["delta3"] == 0.0


def test_bad_depth_input_is_refused():
    pred, target = depth_pair()
    with pytest.raises(ValueError, match="one shape"):
        metrics.depth_metrics(pred[1:], target)
    pred[np.isfinite(target).argmax(axis=0)[0], 0] = np.nan
    with pytest.raises(ValueError, match="1 of"):
        metrics.depth_metrics(pred, target)


def test_both_averages_over_a_set():
    small, large = depth_pair(3, (5, 5)), depth_pair(4, (40, 40))
    table = metrics.DepthTable()
    table.add(*small)
    table.add(*large)
    table.add(large[0], np.full_like(large[1], np.nan))
    result = table.result()
    assert result["images"] == 2
    each = [loop_metrics(*small), loop_metrics(*large)]
    assert result["mean_over_images"]["rmse"] == pytest.approx(
        (each[0]["rmse"] + each[1]["rmse"]) / 2, rel=1e-5
    )
    pairs = zip(small, large, strict=True)
    pooled = loop_metrics(*(np.concatenate([a.ravel(), b.ravel()]) for a, b in pairs))
    assert result["over_pixels"] == pytest.approx(pooled, rel=1e-5)


def image_pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    a = scipy.ndimage.gaussian_filter(rng.uniform(size=shape), 1.0)
    return a, np.clip(a + rng.normal(0, 0.05, shape), 0, 1)


def reference_ssim(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    return structural_similarity(
        a, b, data_range=data_range, channel_axis=-1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip


def test_image_metrics_match_scikit_image():
    a, b = image_pair((40, 50, 3))
    result = metrics.image_metrics(a, b)
    assert result["psnr"] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0), abs=1e-4)
    assert result["ssim"] == pytest.approx(reference_ssim(a, b, 1.0), abs=1e-6)
    assert result["mae"] == pytest.approx(np.abs(a - b).mean(), rel=1e-5)


def test_image_metrics_of_bytes_and_of_tensors():
    a, b = ((255 * x).astype(np.uint8) for x in image_pair((40, 50, 3)))
    result = metrics.image_metrics(a, b, data_range=255)
    assert result["ssim"] == pytest.approx(reference_ssim(a, b, 255), abs=1e-6)
    assert result["psnr"] == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-4)
    tensors = [torch.tensor(x).permute(2, 0, 1)[None] / 255 for x in (a, b)]
    assert metrics.image_metrics(*tensors) == pytest.approx(result, rel=1e-5)
    expected = tm.image.structural_similarity_index_measure(*tensors, data_range=1.0).item()
    # torchmetrics pads by reflection and crops the same five pixels
    assert result["ssim"] == pytest.approx(expected, abs=1e-3)


def test_8_bit_values_with_a_range_of_one_are_refused():
    a = np.full((20, 20, 3), 200, np.uint8)
    with pytest.raises(ValueError, match="data_range=255"):
        metrics.image_metrics(a, a)
    assert metrics.image_metrics(a, a, data_range=255)["psnr"] == math.inf


def test_an_image_that_equals_its_truth_does_not_hide_the_others():
    """In no table: the mean is that of the others, and infinite only where there are none."""
    a = np.full((1, 20, 20, 3), 0.5)
    equal, unequal = a, a + 0.1
    batch = metrics.image_metrics(np.concatenate([equal, unequal]), np.concatenate([a, a]))
    assert batch["psnr"] == pytest.approx(20)
    table, evaluated = metrics.ImageTable(), EvaluatedImages(None)
    for image in (equal[0], unequal[0]):
        table.add(image, a[0])
        pixels = (255 * image).astype(np.float32)
        item = Item("a", pixels, np.ones((20, 20)), sharp_rgb=(255 * a[0]).astype(np.float32))
        evaluated.add(item, pixels)
    assert table.result()["mean_over_images"]["psnr"] == pytest.approx(20)
    assert evaluated.result()["output"]["psnr"] == pytest.approx(20, abs=1e-4)
    alone = metrics.ImageTable()
    alone.add(a[0], a[0])
    assert alone.result()["mean_over_images"]["psnr"] == math.inf


@pytest.mark.parametrize("size", [(64, 96), (52, 44)])
def test_pyramid_is_a_tight_frame(size: tuple[int, int]):
    image = np.random.default_rng(0).normal(size=size)
    high, scales, low = metrics.steerable_bands(image)
    energy = (high**2).sum() + (low**2).sum() + sum((b**2).sum() for s in scales for b in s)
    assert energy == pytest.approx((image**2).sum(), rel=1e-10)
    assert [len(s) for s in scales] == [4, 4]
    assert scales[1][0].shape == (size[0] // 2, size[1] // 2)


def test_pyramid_separates_orientation_and_scale():
    y, x = np.mgrid[:128, :128]
    for k, direction in enumerate([(1, 0), (1, 1), (0, 1), (-1, 1)]):
        # |frequency| of pi/2 or so: between the cut-offs of the first scale
        step = 2 * np.pi / 128 * (32 if 0 in direction else 23)
        wave = np.cos(step * (direction[0] * x + direction[1] * y))
        energies = [(b**2).sum() for b in metrics.steerable_bands(wave)[1][0]]
        assert int(np.argmax(energies)) == k
        coarse = np.cos(0.5 * step * (direction[0] * x + direction[1] * y))
        _, scales, _ = metrics.steerable_bands(coarse)
        assert sum((b**2).sum() for b in scales[1]) > sum((b**2).sum() for b in scales[0])


def test_edge_kld_grows_with_blur_and_is_zero_for_the_truth():
    target = np.full((120, 163), 5.0)
    target[30:90, 40:100] = 2.0
    target[60:, 120:] = 3.0
    target += np.linspace(0, 1, 163)
    values = [
        metrics.edge_kld(scipy.ndimage.gaussian_filter(target, s), target) for s in (1, 2, 4)
    ]
    assert metrics.edge_kld(target, target) == 0.0
    assert 0 < values[0] < values[1] < values[2]
    holes = target.copy()
    holes[5:9, 5:9] = np.nan
    assert metrics.edge_kld(torch.tensor(target)[None, None], torch.tensor(holes)[None, None]) == 0


def test_histogram_divergence_matches_scipy_entropy():
    from ddfd_training.metrics_edges import histogram_divergence

    rng = np.random.default_rng(0)
    truth, estimate = rng.laplace(size=(50, 60)), 0.5 * rng.laplace(size=(50, 60))
    limit = np.abs(truth).max()
    edges = np.linspace(-limit, limit, 33)
    counts = []
    for band in (truth, estimate):
        bins = np.clip(np.digitize(band.ravel(), edges) - 1, 0, 31)
        counts.append([np.sum(bins == i) + 0.5 for i in range(32)])
    assert histogram_divergence(truth, estimate, 32) == pytest.approx(
        scipy.stats.entropy(counts[0], counts[1])
    )


def test_laplace_intervals_match_scipy_and_cover():
    sigma = np.array([0.3, 2.0])
    for p in (0.68, 0.95):
        expected = scipy.stats.laplace(scale=sigma / math.sqrt(2)).interval(p)[1]
        assert metrics.laplace_half_width_m(sigma, p) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.1, 1.0, 40000)
    target = np.full(sigma.shape, 10.0)
    pred = target + rng.laplace(0, sigma / math.sqrt(2))
    result = metrics.sigma_metrics(pred, sigma, target)
    assert result["coverage_68"] == pytest.approx(0.68, abs=0.01)
    assert result["coverage_95"] == pytest.approx(0.95, abs=0.01)
    assert result["ence"] < 0.05
    assert metrics.sigma_metrics(pred, 2 * sigma, target)["ence"] == pytest.approx(0.5, abs=0.05)


def slow_area(error: list[float], key: list[float], steps: int = 100) -> float:
    """Area under the curve of the rmse of what remains, by removing pixels one by one."""
    order = sorted(range(len(error)), key=lambda i: key[i])
    total = 0.0
    for step in range(steps):
        keep = max(round((1 - step / steps) * len(error)), 1)
        total += math.sqrt(sum(error[i] ** 2 for i in order[:keep]) / keep)
    return total / steps


def test_sparsification_matches_a_loop_and_its_limits():
    rng = np.random.default_rng(1)
    sigma = rng.uniform(0.1, 1.0, 500)
    error = np.abs(rng.laplace(0, sigma))
    result = metrics.sparsification(error, sigma)
    ours, best = slow_area(list(error), list(sigma)), slow_area(list(error), list(error))
    full = math.sqrt(float(np.mean(error**2)))
    assert result["ause_m"] == pytest.approx(ours - best)
    assert result["aurg_m"] == pytest.approx(full - ours)
    assert metrics.sparsification(error, error)["aurg_fraction"] == pytest.approx(1.0)
    assert metrics.sparsification(error, -error)["aurg_m"] < 0
    many = np.abs(rng.normal(size=100000))
    chance = metrics.sparsification(many, rng.uniform(size=many.size))
    assert chance["aurg_fraction"] == pytest.approx(0.0, abs=0.03)


def test_where_pixels_of_equal_sigma_lie_does_not_matter():
    rng = np.random.default_rng(2)
    error = np.sort(np.abs(rng.laplace(size=2000)))
    for values in (error, error[::-1]):
        useless = metrics.sparsification(values, np.full(values.size, 0.3))
        assert useless["aurg_m"] == pytest.approx(0.0, abs=1e-9)
        assert useless["aurg_fraction"] == pytest.approx(0.0, abs=1e-9)
    limited = np.minimum(error + rng.uniform(0.0, 0.5, error.size), 0.8)
    there = metrics.sparsification(error, limited)
    assert metrics.sparsification(error[::-1], limited[::-1]) == pytest.approx(there)
