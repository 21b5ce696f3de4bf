"""Every other loss against a loop, on random and on degenerate input, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from ddfd_training import losses

NAN = float("nan")
Map = np.ndarray


def depth_scenes() -> dict[str, tuple[Map, Map]]:
    """Predictions and truths ``[N, 1, H, W]``."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 9.0, (2, 1, 5, 6))
    pred = np.maximum(true + rng.normal(0, 0.4, true.shape), 0.1)
    one_known = np.full_like(true, NAN)
    one_known[1, 0, 2, 3] = 2.0
    return {
        "random": (pred, np.where(rng.uniform(size=true.shape) < 0.3, NAN, true)),
        "all masked": (pred, np.full_like(true, NAN)),
        "infinite": (pred, np.where(rng.uniform(size=true.shape) < 0.3, math.inf, true)),
        "one pixel": (np.full((1, 1, 1, 1), 3.0), np.full((1, 1, 1, 1), 2.0)),
        "one known pixel": (pred, one_known),
        "constant": (np.full((2, 1, 4, 4), 3.0), np.full((2, 1, 4, 4), 2.0)),
        "perfect": (true, true),
    }


def over_known(pred: Map, true: Map, cost: Callable[[float, float], float]) -> float:
    values = [cost(p, t) for p, t in zip(pred.flat, true.flat, strict=True) if math.isfinite(t)]
    return float(np.mean(values)) if values else 0.0


def slow_gradient(pred: Map, true: Map) -> float:
    total, count = 0.0, 0
    for i, _, y, x in np.ndindex(*pred.shape):
        if not math.isfinite(true[i, 0, y, x]):
            continue
        count += 1
        for v, u in ((y, x + 1), (y + 1, x)):
            if v < pred.shape[2] and u < pred.shape[3] and math.isfinite(true[i, 0, v, u]):
                step = pred[i, 0, v, u] - true[i, 0, v, u] - pred[i, 0, y, x] + true[i, 0, y, x]
                total += abs(step)
    return total / count if count else 0.0


SIGMA = 0.3
DEPTH_LOSSES: dict[str, tuple[Callable, Callable[[Map, Map], float]]] = {
    "l1_depth": (losses.l1_depth, lambda p, t: over_known(p, t, lambda a, b: abs(a - b))),
    "log_l1_depth": (
        losses.log_l1_depth,
        lambda p, t: over_known(p, t, lambda a, b: abs(math.log(a) - math.log(b))),
    ),
    "depth_gradient": (losses.depth_gradient, slow_gradient),
    "laplace_nll": (
        lambda p, t: losses.laplace_nll(p, torch.full_like(p, SIGMA), t),
        lambda p, t: over_known(
            p,
            t,
            lambda a, b: math.log(2 * SIGMA / math.sqrt(2)) + abs(a - b) / (SIGMA / math.sqrt(2)),
        ),
    ),
}


@pytest.mark.parametrize("scene", sorted(depth_scenes()))
@pytest.mark.parametrize("name", sorted(DEPTH_LOSSES))
def test_depth_losses_equal_a_loop(name: str, scene: str):
    fast, slow = DEPTH_LOSSES[name]
    pred, true = depth_scenes()[scene]
    tensors = torch.tensor(pred).requires_grad_(), torch.tensor(true)
    loss = fast(*tensors)
    assert loss.item() == pytest.approx(slow(pred, true), rel=1e-5, abs=1e-9)
    loss.backward()
    assert torch.isfinite(tensors[0].grad).all()
    assert not tensors[0].grad[~tensors[1].isfinite()].any()


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_of_the_likelihood_are_numerical(detach: bool):
    pred, true = depth_scenes()["random"]
    sigma = torch.rand(pred.shape, dtype=torch.float64) + 0.2
    inputs = (torch.tensor(pred).requires_grad_(not detach), sigma.requires_grad_())
    truth = torch.tensor(true)
    assert torch.autograd.gradcheck(
        lambda p, s: losses.laplace_nll(p, s, truth, detach_residual=detach), inputs
    )


def slow_ssim(a: Map, b: Map, mask: Map | None = None) -> float:
    """1 - SSIM averaged over windows whose centre counts, by scikit-image."""
    maps = []
    for x, y in zip(a, b, strict=True):
        _, full = structural_similarity(
            x, y, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        maps.append(full[:, 5:-5, 5:-5])
    values = 1 - np.stack(maps)
    if mask is None:
        return float(values.mean())
    counted = np.broadcast_to(mask[..., 5:-5, 5:-5], values.shape)
    return float(values[counted].mean()) if counted.any() else 0.0


def slow_pixelwise(cost: Callable[[float], float], a: Map, b: Map, mask: Map | None = None):
    counted = np.ones(a.shape, bool) if mask is None else np.broadcast_to(mask, a.shape)
    values = [cost(d) for d in (a - b)[counted].tolist()]
    return float(np.mean(values)) if values else 0.0


IMAGE_LOSSES: dict[str, tuple[Callable, Callable]] = {
    "charbonnier": (
        losses.charbonnier,
        partial(slow_pixelwise, lambda d: math.sqrt(d * d + 1e-6)),
    ),
    "l1_image": (losses.l1_image, partial(slow_pixelwise, abs)),
    "ssim": (losses.ssim, slow_ssim),
}


def image_scenes() -> dict[str, tuple[Map, Map, Map | None]]:
    """Two images ``[N, 3, H, W]`` and where they count."""
    rng = np.random.default_rng(1)
    a, b = rng.uniform(size=(2, 2, 3, 14, 13))
    some = rng.uniform(size=(2, 1, 14, 13)) < 0.5
    one = np.zeros_like(some)
    one[0, 0, 6, 6] = True
    return {
        "random": (a, b, None),
        "masked": (a, b, some),
        "one pixel counts": (a, b, one),
        "all masked": (a, b, np.zeros_like(some)),
        "constant": (np.full_like(a, 0.2), np.full_like(a, 0.7), None),
        "equal": (a, a, some),
        "smallest": (a[..., :11, :11], b[..., :11, :11], None),
    }


@pytest.mark.parametrize("scene", sorted(image_scenes()))
@pytest.mark.parametrize("name", sorted(IMAGE_LOSSES))
def test_image_losses_equal_a_loop_or_scikit_image(name: str, scene: str):
    fast, slow = IMAGE_LOSSES[name]
    a, b, mask = image_scenes()[scene]
    pred = torch.tensor(a).requires_grad_()
    loss = fast(pred, torch.tensor(b), None if mask is None else torch.tensor(mask))
    assert loss.item() == pytest.approx(slow(a, b, mask), rel=1e-5, abs=1e-9)
    loss.backward()
    assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("name", ["charbonnier", "l1_image"])
def test_pixelwise_image_losses_of_one_pixel(name: str):
    fast, slow = IMAGE_LOSSES[name]
    a, b = np.full((1, 3, 1, 1), 0.25), np.full((1, 3, 1, 1), 0.75)
    assert fast(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(slow(a, b))


@pytest.mark.parametrize("name", sorted(IMAGE_LOSSES))
def test_gradients_of_image_losses_are_numerical(name: str):
    a, b, mask = (x[:1, ..., :12, :12] for x in image_scenes()["masked"])
    pred = torch.tensor(a[:, :1]).requires_grad_()
    arguments = torch.tensor(b[:, :1]), torch.tensor(mask)
    assert torch.autograd.gradcheck(lambda p: IMAGE_LOSSES[name][0](p, *arguments), (pred,))


@pytest.mark.parametrize("kind", ["random", "constant", "equal"])
def test_reblur_is_its_equation(kind: str):
    a, b, _ = image_scenes()[kind]
    expected = 0.85 / 2 * slow_ssim(a, b) + 0.15 * np.abs(a - b).mean()
    assert losses.reblur(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(
        expected, rel=1e-5, abs=1e-9
    )
    small = torch.tensor(a[:1, :1, :12, :12]).requires_grad_()
    if kind == "random":
        other = torch.tensor(b[:1, :1, :12, :12])
        assert torch.autograd.gradcheck(lambda p: losses.reblur(p, other), (small,))


@pytest.mark.parametrize("kind", ["random", "constant", "one pixel"])
def test_edge_aware_smoothness_equals_a_loop(kind: str):
    rng = np.random.default_rng(2)
    shape = (1, 1) if kind == "one pixel" else (5, 6)
    m, image = rng.uniform(size=(2, 1, *shape)), rng.uniform(size=(2, 3, *shape))
    if kind == "constant":
        m[:] = 2.0
    total = 0.0
    for i, _, y, x in np.ndindex(*m.shape):
        for v, u in ((y, x + 1), (y + 1, x)):
            if v < shape[0] and u < shape[1]:
                edge = np.abs(image[i, :, v, u] - image[i, :, y, x]).mean()
                total += abs(m[i, 0, v, u] - m[i, 0, y, x]) * math.exp(-2.5 * edge)
    inputs = torch.tensor(m).requires_grad_(), torch.tensor(image).requires_grad_()
    loss = losses.edge_aware_smoothness(*inputs)
    assert loss.item() == pytest.approx(total / m.size, rel=1e-6, abs=1e-12)
    if kind == "random":
        assert torch.autograd.gradcheck(losses.edge_aware_smoothness, inputs)


def test_the_thesis_may_use_l1_for_the_image_and_unknown_sharp_pixels_do_not_count():
    torch.manual_seed(0)
    outputs = {"depth_m": 1 + torch.rand(1, 1, 16, 16), "sharp_rgb": torch.rand(1, 3, 16, 16)}
    known = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    known[..., :12] = True
    targets = {
        "depth_m": 1 + torch.rand(1, 1, 16, 16),
        "sharp_rgb": torch.rand(1, 3, 16, 16),
        "sharp_known": known,
    }
    terms = losses.NAMED_LOSSES["thesis2023"](outputs, targets, deblur="l1")
    l1 = (outputs["sharp_rgb"] - targets["sharp_rgb"])[..., :12].abs().mean()
    assert terms["l1"].item() == pytest.approx(l1.item())
    total = terms["l1_depth"] + 1e-3 * terms["depth_gradient"] + 0.1 * (l1 + 4 * terms["ssim"])
    assert terms["total"].item() == pytest.approx(total.item())
    icip = losses.NAMED_LOSSES["icip2022"](outputs, targets)["charbonnier"].item()
    inside = (outputs["sharp_rgb"] - targets["sharp_rgb"])[..., :12]
    assert icip == pytest.approx((inside**2 + 1e-6).sqrt().mean().item())
    with pytest.raises(ValueError, match="charbonnier or l1"):
        losses.NAMED_LOSSES["thesis2023"](outputs, targets, deblur="l2")


def test_every_named_loss_survives_a_batch_without_truth():
    outputs = {"depth_m": (1 + torch.rand(1, 1, 16, 16)).requires_grad_()}
    outputs["sigma_m"] = outputs["depth_m"] * 0.1
    targets = {
        "depth_m": torch.full((1, 1, 16, 16), NAN),
        "points_yx": torch.zeros(1, 2, 2, 2, dtype=torch.long),
        "relation": torch.full((1, 2), NAN),
    }
    names = [n for n in losses.NAMED_LOSSES if "depth_m" in _needs(n)]
    assert len(names) >= 11
    for name in names:
        outputs["depth_m"].grad = None
        total = losses.NAMED_LOSSES[name](outputs, targets)["total"]
        total.backward(retain_graph=True)
        assert total.item() == 0.0, name
        assert not outputs["depth_m"].grad.any(), name


def _needs(name: str) -> set[str]:
    """Losses that are about depth alone when the network has only that head."""
    supervised = ("ddfd", "d3net", "icip2022", "thesis2023", "eigen2014", "diw")
    return {"depth_m"} if name in supervised or name.startswith("smoothing-") else set()


@pytest.mark.parametrize("unknown", [NAN, math.inf, 0.0], ids=str)
def test_what_a_network_for_any_lens_reads_is_held_to_known_depth_only(unknown: float):
    torch.manual_seed(0)
    truth_m = 1 + torch.rand(1, 1, 8, 8)
    names = ("depth_m", "sigma_m", "blur", "blur_sigma", "dioptre", "dioptre_sigma", "side")
    outputs = {name: 1 + torch.rand(1, 1, 8, 8) for name in names}
    lens = torch.tensor([[14.0, 0.25]])

    def evidence(rows: int) -> list[float]:
        """The three terms with the truth known in so many rows, of the whole or of these only."""
        part = truth_m.clone()
        part[..., rows:, :] = unknown
        terms = losses.NAMED_LOSSES["ddfd"](outputs, {"depth_m": part, "lens": lens})
        return [terms[name].item() for name in ("blur_nll", "dioptre_nll", "side_nll")]

    cut = {name: value[..., :4, :] for name, value in outputs.items()}
    terms = losses.NAMED_LOSSES["ddfd"](cut, {"depth_m": truth_m[..., :4, :], "lens": lens})
    expected = [terms[name].item() for name in ("blur_nll", "dioptre_nll", "side_nll")]
    assert evidence(4) == pytest.approx(expected, rel=1e-5)
    assert evidence(0) == [0.0, 0.0, 0.0]
