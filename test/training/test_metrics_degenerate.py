"""Metrics on degenerate input, and the edge measure against a pyramid written another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from skimage.metrics import structural_similarity

from ddfd_ros.core.errors import DatasetError
from ddfd_training import metrics

NAN = float("nan")


def test_one_pixel_has_the_errors_of_that_pixel():
    target = np.full((4, 5), NAN)
    target[2, 3] = 2.0
    result = metrics.depth_metrics(np.full((4, 5), 3.0), target)
    log = math.log(1.5)
    expected = [1.0, log, 0.5, 0.5, log / math.log(10), 0, 1, 1]
    assert [result[k] for k in metrics.DEPTH_METRICS] == pytest.approx(expected, rel=1e-5)
    single = metrics.depth_metrics(np.array([[3.0]]), np.array([[2.0]]))
    assert single == pytest.approx(result)


def test_constant_maps():
    result = metrics.depth_metrics(np.full((6, 7), 1.2), np.full((6, 7), 1.0))
    log = math.log(1.2)
    expected = [0.2, log, 0.2, 0.04, log / math.log(10), 1, 1, 1]
    assert [result[k] for k in metrics.DEPTH_METRICS] == pytest.approx(expected, rel=1e-5)


def test_all_masked_is_nan_everywhere():
    pred, target = np.ones((3, 3)), np.ones((3, 3))
    nothing = metrics.depth_metrics(pred, target, np.zeros((3, 3), bool))
    assert all(math.isnan(value) for value in nothing.values())
    table = metrics.DepthTable()
    table.add(pred, target, np.zeros((3, 3), bool))
    assert table.result()["images"] == 0
    with pytest.raises(DatasetError, match="at least one known"):
        metrics.edge_kld(pred, np.full((3, 3), NAN))


def test_sigma_of_one_pixel_and_of_none():
    pred, sigma = np.full((3, 3), 1.0), np.full((3, 3), 0.2)
    one = np.full((3, 3), NAN)
    one[1, 1] = 1.25
    result = metrics.sigma_metrics(pred, sigma, one)
    # The 68 % interval of a Laplace distribution is 0.161 wide each way here, that of 95 % 0.424.
    assert (result["coverage_68"], result["coverage_95"]) == (0.0, 1.0)
    assert result["ence"] == pytest.approx(0.05 / 0.2)
    assert (result["ause_m"], result["aurg_m"]) == (0.0, 0.0)
    nothing = metrics.sigma_metrics(pred, sigma, np.full((3, 3), NAN))
    assert all(math.isnan(value) for value in nothing.values())


def test_constant_images():
    grey = np.full((16, 18, 3), 0.4)
    assert metrics.image_metrics(grey, grey) == {"psnr": math.inf, "ssim": 1.0, "mae": 0.0}
    other = np.full_like(grey, 0.6)
    result = metrics.image_metrics(grey, other)
    assert result["psnr"] == pytest.approx(-20 * math.log10(0.2), rel=1e-5)
    expected = structural_similarity(
        grey, other, data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert result["ssim"] == pytest.approx(expected, abs=1e-5)
    assert result["mae"] == pytest.approx(0.2, rel=1e-5)


def filter_of(x: float, y: float, scale: int, index: int) -> complex:
    """Response of one steerable band at one frequency, by its definition, in words of radians.

    Portilla and Simoncelli 2000, appendix: a low-pass at each scale, a high-pass, an angle.
    """

    def low(radius: float, cutoff: float) -> float:
        if radius <= cutoff / 2:
            return 1.0
        return 0.0 if radius >= cutoff else math.cos(math.pi / 2 * math.log2(2 * radius / cutoff))

    radius, angle = math.hypot(x, y), math.atan2(y, x)
    response = low(radius, math.pi)
    for level in range(scale + 1):
        cutoff = math.pi / 2 / 2**level
        passed = low(radius, cutoff)
        response *= math.sqrt(1 - passed**2) if level == scale else passed
    gain = 2**3 * math.factorial(3) / math.sqrt(4 * math.factorial(6))
    return response * gain * (1j * math.cos(angle - math.pi * index / 4)) ** 3


def slow_bands(image: np.ndarray) -> list[np.ndarray]:
    """All eight bands, filtered at full size and then subsampled in space."""
    height, width = image.shape
    rows, columns = np.fft.fftfreq(height, 1 / height), np.fft.fftfreq(width, 1 / width)
    spectrum = np.fft.fft2(image)
    bands = []
    for scale in range(2):
        for index in range(4):
            response = np.array(
                [
                    [
                        filter_of(2 * math.pi * u / width, 2 * math.pi * v / height, scale, index)
                        for u in columns
                    ]
                    for v in rows
                ]
            )
            band = np.fft.ifft2(spectrum * response).real
            bands.append(band[:: 2**scale, :: 2**scale])
    return bands


def test_pyramid_equals_one_filtered_at_full_size():
    image = np.random.default_rng(0).normal(size=(32, 44))
    _, scales, _ = metrics.steerable_bands(image)
    ours = [band for bands in scales for band in bands]
    for number, (fast, slow) in enumerate(zip(ours, slow_bands(image), strict=True)):
        np.testing.assert_allclose(fast, slow * 2 ** (number // 4), atol=1e-9)


def slow_kld(pred: np.ndarray, target: np.ndarray) -> float:
    """Thesis eqs 2.1 and 2.2 step by step; maps without gaps."""
    total = 0.0
    bands = []
    for image in (target, pred):
        height, width = (side - side % 4 for side in image.shape)
        padded = np.pad(image[:height, :width], 16, mode="symmetric")
        bands.append(
            [b[m:-m, m:-m] for b, m in zip(slow_bands(padded), [16] * 4 + [8] * 4, strict=True)]
        )
    for true, guess in zip(*bands, strict=True):
        limit = np.abs(true).max() or 1.0
        heights = []
        for band in (true, guess):
            place = np.floor((np.clip(band, -limit, limit) + limit) / (2 * limit) * 128)
            counts = np.bincount(place.astype(int).clip(0, 127).ravel(), minlength=128) + 0.5
            heights.append(counts / counts.sum())
        total += abs(scipy.stats.entropy(*heights))
    return math.log2(1 + total / 10)


def test_edge_measure_equals_the_equations_written_out():
    rng = np.random.default_rng(3)
    target = 3 + rng.normal(0, 0.2, (21, 30))
    target[5:14, 8:20] -= 1.3
    pred = target + rng.normal(0, 0.15, target.shape)
    assert metrics.edge_kld(pred, target) == pytest.approx(slow_kld(pred, target), abs=1e-5)


def test_edge_measure_of_degenerate_maps():
    constant = np.full((12, 12), 2.0)
    assert metrics.edge_kld(constant, constant) == 0
    assert metrics.edge_kld(constant + 1, constant) == 0
    step = np.repeat([1.0, 2.0], 6) * np.ones((12, 1))
    assert metrics.edge_kld(step, constant) > 0.1  # edges where there are none
    one = np.full((12, 12), NAN)
    one[4, 4] = 2.0
    assert metrics.edge_kld(constant, one) == 0
