"""Losses against slow loops, scikit-image, scipy and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from skimage.metrics import structural_similarity

from ddfd_training import losses

NAN = float("nan")


def depth_pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction that wants a gradient and a target with holes, both [2, 1, 6, 7]."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.5, 9.0, (2, 1, 6, 7))
    pred = target + rng.normal(0, 0.4, target.shape)
    pred = np.maximum(pred, 0.1)
    target[rng.uniform(size=target.shape) < 0.3] = NAN
    return torch.tensor(pred, requires_grad=True), torch.tensor(target)


def known_pixels(target: torch.Tensor) -> list[tuple[int, int, int]]:
    n, _, h, w = target.shape
    return [
        (i, y, x)
        for i in range(n)
        for y in range(h)
        for x in range(w)
        if not math.isnan(target[i, 0, y, x])
    ]


def test_l1_and_log_l1_match_a_loop_over_known_pixels():
    pred, target = depth_pair()
    pixels = known_pixels(target)
    l1 = [abs(float(pred[i, 0, y, x] - target[i, 0, y, x])) for i, y, x in pixels]
    log = [abs(math.log(pred[i, 0, y, x]) - math.log(target[i, 0, y, x])) for i, y, x in pixels]
    assert losses.l1_depth(pred, target).item() == pytest.approx(np.mean(l1))
    assert losses.log_l1_depth(pred, target).item() == pytest.approx(np.mean(log))


def test_depth_gradient_matches_a_loop():
    pred, target = depth_pair(1)
    pixels = known_pixels(target)
    known = set(pixels)
    total = 0.0
    for i, y, x in pixels:
        residual = float(pred[i, 0, y, x] - target[i, 0, y, x])
        for other in ((i, y, x + 1), (i, y + 1, x)):
            if other in known:
                j, v, u = other
                total += abs(float(pred[j, 0, v, u] - target[j, 0, v, u]) - residual)
    expected = total / len(pixels)
    assert losses.depth_gradient(pred, target).item() == pytest.approx(expected)


def test_depth_gradient_ignores_a_constant_offset():
    _, target = depth_pair()
    pred = torch.nan_to_num(target, nan=3.0) + 1.7
    assert losses.depth_gradient(pred, target).item() == pytest.approx(0.0, abs=1e-12)


def test_mask_removes_pixels():
    target = torch.full((1, 1, 2, 2), 1.0)
    pred = torch.tensor([[[[1.0, 2.0], [5.0, 1.0]]]])
    mask = torch.tensor([[[[True, True], [False, True]]]])
    assert losses.l1_depth(pred, target, mask).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["l1_depth", "log_l1_depth", "depth_gradient", "laplace_nll"])
def test_without_any_truth_the_loss_is_zero_and_its_gradient_too(name: str):
    pred = torch.rand(2, 1, 5, 5, requires_grad=True)
    target = torch.full((2, 1, 5, 5), NAN)
    function = getattr(losses, name)
    if name == "laplace_nll":
        loss = function(pred, torch.ones_like(pred), target)
    else:
        loss = function(pred, target)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(pred.grad, torch.zeros_like(pred))


@pytest.mark.parametrize("name", ["l1_depth", "log_l1_depth", "depth_gradient"])
def test_gradients_are_correct_with_holes_in_the_truth(name: str):
    pred, target = depth_pair(2)
    function = getattr(losses, name)
    assert torch.autograd.gradcheck(lambda p: function(p, target), (pred,))
    function(pred, target).backward()
    assert torch.equal(pred.grad[torch.isnan(target)], torch.zeros(int(target.isnan().sum())))


def test_negative_predictions_have_a_finite_log_loss():
    pred = torch.tensor([[[[-1.0, 2.0]]]], requires_grad=True)
    loss = losses.log_l1_depth(pred, torch.tensor([[[[1.0, 2.0]]]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(pred.grad).all()


def test_charbonnier_is_eps_at_zero_and_l1_far_away():
    image = torch.rand(1, 3, 8, 8)
    assert losses.charbonnier(image, image).item() == pytest.approx(1e-3, rel=1e-4)
    assert losses.charbonnier(image, image + 0.5).item() == pytest.approx(0.5, rel=1e-4)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4, :] = True
    other = image.clone()
    other[..., 4:, :] += 0.5
    assert losses.charbonnier(image, other, mask).item() == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 32, 40), (1, 1, 11, 11)])
def test_ssim_matches_scikit_image(shape: tuple[int, ...]):
    rng = np.random.default_rng(4)
    a = rng.uniform(size=shape)
    b = np.clip(a + rng.normal(0, 0.1, shape), 0, 1)
    expected = np.mean(
        [
            structural_similarity(
                x, y, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )
            for x, y in zip(a, b, strict=True)
        ]
    )  # fmt: skip
    assert 1 - losses.ssim(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(expected)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match="at least 11 px"):
        losses.ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))


def test_ssim_mask_leaves_out_what_lies_outside():
    image = torch.rand(1, 3, 40, 40)
    other = image.clone()
    other[..., 30:] = 0
    mask = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
    mask[..., :25] = True
    assert losses.ssim(image, other, mask).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.ssim(image, other).item() > 0.1


def test_laplace_nll_matches_scipy():
    pred, target = depth_pair(3)
    sigma = torch.rand_like(pred) + 0.1
    nll = [
        -scipy.stats.laplace.logpdf(
            float(target[i, 0, y, x]),
            loc=float(pred[i, 0, y, x]),
            scale=float(sigma[i, 0, y, x]) / math.sqrt(2),
        )
        for i, y, x in known_pixels(target)
    ]
    assert losses.laplace_nll(pred, sigma, target).item() == pytest.approx(np.mean(nll))


def test_best_sigma_is_the_standard_deviation_of_the_errors():
    rng = np.random.default_rng(5)
    target = torch.tensor(rng.laplace(3.0, 0.2, (1, 1, 200, 200)))
    pred = torch.full_like(target, 3.0)
    grid = np.linspace(0.15, 0.45, 61)
    values = [losses.laplace_nll(pred, torch.full_like(pred, s), target).item() for s in grid]
    assert grid[int(np.argmin(values))] == pytest.approx(0.2 * math.sqrt(2), abs=0.01)


def test_detached_residual_trains_sigma_only():
    pred, target = depth_pair()
    sigma = torch.full_like(pred, 0.3).detach().requires_grad_()
    losses.laplace_nll(pred, sigma, target, detach_residual=True).backward()
    assert pred.grad is None or not pred.grad.any()
    assert sigma.grad.abs().sum() > 0


def test_reblur_follows_its_equation():
    a, b = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    similarity = structural_similarity(
        a[0].numpy(), b[0].numpy(), data_range=1.0, channel_axis=0, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    expected = 0.425 * (1 - similarity) + 0.15 * np.abs(a.numpy() - b.numpy()).mean()
    assert losses.reblur(a, b).item() == pytest.approx(expected, rel=1e-4)


def test_smoothness_costs_less_where_the_image_has_an_edge_and_not_by_its_sign():
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1.0
    flat = torch.full((1, 3, 8, 8), 0.5)
    rising = step.expand(1, 3, 8, 8)
    cost_flat = losses.edge_aware_smoothness(step, flat).item()
    assert cost_flat == pytest.approx(8 / 64)
    for image in (rising, 1 - rising):
        cost = losses.edge_aware_smoothness(step, image).item()
        assert cost == pytest.approx(cost_flat * math.exp(-2.5))


def outputs_and_targets() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    outputs = {"depth_m": 1 + torch.rand(1, 1, 16, 16), "sharp_rgb": torch.rand(1, 3, 16, 16)}
    targets = {"depth_m": 1 + torch.rand(1, 1, 16, 16), "sharp_rgb": torch.rand(1, 3, 16, 16)}
    return outputs, targets


def test_paper_combinations_have_the_papers_weights():
    outputs, targets = outputs_and_targets()
    l1 = (outputs["depth_m"] - targets["depth_m"]).abs().mean().item()
    terms = losses.NAMED_LOSSES["thesis2023"](outputs, targets)
    deblur = terms["charbonnier"] + 4 * terms["ssim"]
    expected = l1 + 0.001 * terms["depth_gradient"] + 0.1 * deblur
    assert terms["total"].item() == pytest.approx(expected.item())
    terms = losses.NAMED_LOSSES["icip2022"](outputs, targets)
    assert terms["total"].item() == pytest.approx(l1 + 0.1 * terms["charbonnier"].item())
    assert losses.NAMED_LOSSES["d3net"](outputs, targets)["total"].item() == pytest.approx(l1)


def test_a_missing_head_leaves_its_terms_out():
    outputs, targets = outputs_and_targets()
    del outputs["depth_m"]
    assert set(losses.NAMED_LOSSES["thesis2023"](outputs, targets)) == {
        "charbonnier",
        "ssim",
        "total",
    }
    with pytest.raises(ValueError, match="no term applies"):
        losses.NAMED_LOSSES["icip2022"]({}, targets)


def test_self_supervised_combination():
    outputs, targets = outputs_and_targets()
    outputs["defocus_px"] = torch.rand(1, 1, 16, 16)
    targets["image"] = torch.rand(1, 3, 16, 16)
    terms = losses.NAMED_LOSSES["thesis2023-selfsup"](outputs, targets)
    expected = 2 * terms["reblur"] + 0.5 * terms["smoothness"] + 0.01 * terms["charbonnier"]
    assert terms["total"].item() == pytest.approx(expected.item())
