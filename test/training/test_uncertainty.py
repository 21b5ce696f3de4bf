"""Monte-Carlo dropout against sampling by hand, and calibration against known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ddfd_ros.model import build_network
from ddfd_training.uncertainty import Calibration, NoDropoutError, half_width_m, monte_carlo


class Scaled(torch.nn.Module):
    """Depth 2 m times dropout of a constant: 0 or 2 / (1 - p), so the variance is known."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1)
        self.dropout = torch.nn.Dropout(probability)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        depth = self.dropout(torch.full_like(self.norm(image[:, :1]), 2.0))
        return {"depth_m": depth, "sigma_m": torch.full_like(depth, 0.5)}


def test_mean_and_variance_are_those_of_the_distribution() -> None:
    """With p = 0.25: values 0 and 8/3 m, mean 2, variance p / (1 - p) * 4 = 4/3."""
    network = Scaled(0.25).train()
    found = monte_carlo(network, torch.zeros(1, 3, 40, 50), samples=200)
    assert found.mean_m.mean() == pytest.approx(2.0, rel=0.01)
    assert found.variance_m2.mean() == pytest.approx(4 / 3, rel=0.02)
    assert found.sigma_m is not None
    assert found.sigma_m.mean() == pytest.approx(0.5, rel=1e-5)
    assert found.total_m is not None
    np.testing.assert_allclose(found.total_m**2, found.std_m**2 + 0.25, rtol=1e-5)
    assert network.training
    assert int(network.norm.num_batches_tracked) == 0  # batch norms stayed off


def test_batches_of_samples_do_not_matter_and_seeds_do() -> None:
    network = build_network("d3net").eval()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    state = torch.random.get_rng_state()
    one = monte_carlo(network, image, samples=4, seed=3, batch=4)
    again = monte_carlo(network, image, samples=4, seed=3, batch=4)
    other = monte_carlo(network, image, samples=4, seed=4, batch=4)
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(one.mean_m, again.mean_m)
    assert not np.array_equal(one.mean_m, other.mean_m)
    assert (one.variance_m2 > 0).any()
    assert not network.training


def test_sums_agree_with_numpy() -> None:
    """The running sums give numpy's mean and variance of the same samples."""
    network = Scaled(0.5).eval()
    image = torch.zeros(1, 3, 4, 4)
    found = monte_carlo(network, image, samples=12, seed=1, batch=5)
    torch.manual_seed(1)
    network.dropout.train()
    with torch.no_grad():
        parts = [network(image.expand(n, -1, -1, -1))["depth_m"] for n in (5, 5, 2)]
    samples = torch.cat(parts)[:, 0].double().numpy()
    np.testing.assert_allclose(found.mean_m, samples.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.variance_m2, samples.var(0, ddof=1), rtol=1e-6)


def test_a_network_without_dropout_is_refused() -> None:
    with pytest.raises(NoDropoutError, match="without"):
        monte_carlo(build_network("d3net", dropout=0.0), torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="at least 2 samples"):
        monte_carlo(Scaled(0.5), torch.zeros(1, 3, 32, 32), samples=1)


@pytest.mark.parametrize("family", ["normal", "laplace"])
def test_a_true_deviation_is_found_calibrated(family: str) -> None:
    """Errors drawn from the family with the stated deviation: 68 and 95 %, ENCE near 0."""
    random = np.random.default_rng(0)
    sigma = random.uniform(0.1, 1.0, (2, 200, 250))
    draw = random.standard_normal if family == "normal" else None
    noise = draw(sigma.shape) if draw else random.laplace(size=sigma.shape) / math.sqrt(2)
    calibration = Calibration(family)
    truth = np.full(sigma.shape[1:], 3.0)
    truth[:5] = np.nan
    for one, error in zip(sigma, noise, strict=True):
        calibration.add(3.0 + one * error, one, truth)
    result = calibration.result()
    mean = result["mean_over_images"]
    assert mean["coverage_68"] == pytest.approx(0.68, abs=0.01)
    assert mean["coverage_95"] == pytest.approx(0.95, abs=0.005)
    assert mean["ence"] < 0.05
    assert mean["aurg_fraction"] > 0.2
    assert result["images"] == 2
    curves = result["curves"]
    np.testing.assert_allclose(curves["covered"], curves["nominal"], atol=0.02)
    assert curves["remaining_rmse_m"][0] == pytest.approx(curves["best_rmse_m"][0])
    assert all(a >= b - 1e-9 for a, b in zip(
        curves["remaining_rmse_m"], curves["best_rmse_m"], strict=True))  # fmt: skip


def test_half_widths_of_the_normal_distribution() -> None:
    """1.96 and 0.9945 standard deviations."""
    widths = [float(half_width_m(np.float64(1.0), p, "normal")) for p in (0.95, 0.68)]
    assert widths == pytest.approx([1.95996, 0.99446], abs=1e-4)
