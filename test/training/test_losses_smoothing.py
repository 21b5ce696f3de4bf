"""Smoothing and ranking terms against slow loops, on random and on degenerate input."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from ddfd_training import losses

Loss = Callable[..., torch.Tensor]
NAN = float("nan")
Map = np.ndarray


def forward(e: Map, y: int, x: int) -> tuple[float, float] | None:
    """Forward differences along x and y, or None where a pixel is missing or unknown."""
    if y + 1 >= e.shape[0] or x + 1 >= e.shape[1]:
        return None
    along_x, along_y = e[y, x + 1] - e[y, x], e[y + 1, x] - e[y, x]
    return None if math.isnan(along_x + along_y) else (along_x, along_y)


def sobel(e: Map, y: int, x: int) -> tuple[float, float] | None:
    """The Sobel operator by scipy on one neighbourhood."""
    if not (0 < y < e.shape[0] - 1 and 0 < x < e.shape[1] - 1):
        return None
    window = e[y - 1 : y + 2, x - 1 : x + 2]
    if np.isnan(window).any():
        return None
    kernel = np.outer([1, 2, 1], [-1, 0, 1]).astype(float)
    return correlate(window, kernel)[1, 1], correlate(window, kernel.T)[1, 1]


def slow_hu(pred: Map, true: Map, derive: Callable = forward) -> float:
    values = []
    for i in range(len(pred)):
        known = np.where(np.isnan(true[i]), NAN, pred[i])
        for y, x in np.ndindex(*pred.shape[1:]):
            p, t = derive(known, y, x), derive(true[i], y, x)
            if p is None or t is None:
                continue
            a, b = np.array([-p[0], -p[1], 1]), np.array([-t[0], -t[1], 1])
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            logs = sum(math.log(abs(q - s) + 0.5) for q, s in zip(p, t, strict=True))
            values.append(logs + 1 - cosine)
    return float(np.mean(values)) if values else 0.0


def slow_pairs(value: Map, known: Map, cost: Callable[[int, int, int, int, int], float]) -> float:
    """Sum of ``cost`` over neighbouring known pixels, over the number of known pixels."""
    total, count = 0.0, int(known.sum())
    for i, y, x in np.argwhere(known):
        for v, u in ((y, x + 1), (y + 1, x)):
            if v < value.shape[1] and u < value.shape[2] and known[i, v, u]:
                total += cost(i, y, x, v, u)
    return total / count if count else 0.0


def slow_eigen(pred: Map, true: Map) -> float:
    error = np.log(np.maximum(pred, 1e-3)) - np.log(np.maximum(true, 1e-3))
    return slow_pairs(
        pred, ~np.isnan(true), lambda i, y, x, v, u: (error[i, v, u] - error[i, y, x]) ** 2
    )


def slow_ummenhofer(pred: Map, true: Map) -> float:
    total = 0.0
    for h in (1, 2, 4, 8, 16):
        lengths = []
        for i, y, x in np.ndindex(*pred.shape):
            if y + h >= pred.shape[1] or x + h >= pred.shape[2]:
                continue
            places = [(y, x), (y, x + h), (y + h, x)]
            if any(math.isnan(true[i, v, u]) for v, u in places):
                continue
            g = [
                [
                    (m[i, v, u] - m[i, y, x]) / (abs(m[i, v, u]) + abs(m[i, y, x]))
                    for v, u in places[1:]
                ]
                for m in (pred, true)
            ]
            lengths.append(math.hypot(g[0][0] - g[1][0], g[0][1] - g[1][1]))
        total += float(np.mean(lengths)) if lengths else 0.0
    return total


def slow_xian(pred: Map, true: Map, scales: int = 4) -> float:
    total = 0.0
    for k in range(scales):
        p, t = pred[:, :: 2**k, :: 2**k], true[:, :: 2**k, :: 2**k]
        r = p - t
        total += slow_pairs(
            p, ~np.isnan(t), lambda i, y, x, v, u, r=r: abs(r[i, v, u] - r[i, y, x])
        )
    return total


def slow_godard(pred: Map, true: Map) -> float:
    known = ~np.isnan(true)
    d, g = np.zeros_like(pred), np.zeros_like(pred)
    for i in range(len(pred)):
        if known[i].any():
            d[i] = pred[i] / pred[i][known[i]].mean()
            g[i] = true[i] / true[i][known[i]].mean()

    def cost(i: int, y: int, x: int, v: int, u: int) -> float:
        return abs(d[i, v, u] - d[i, y, x]) * math.exp(-abs(g[i, v, u] - g[i, y, x]))

    return slow_pairs(pred, known, cost)


def slow_scale_invariant(pred: Map, true: Map) -> float:
    values = []
    for p, t in zip(pred, true, strict=True):
        known = ~np.isnan(t)
        if known.any():
            d = np.log(np.maximum(p[known], 1e-3)) - np.log(t[known])
            values.append(np.mean(d**2) - 0.5 * np.mean(d) ** 2)
    return float(np.mean(values)) if values else 0.0


TERMS: dict[str, tuple[Loss, Callable[[Map, Map], float]]] = {
    "hu": (losses.smoothing_hu, slow_hu),
    "hu-sobel": (
        partial(losses.smoothing_hu, operator="sobel"),
        partial(slow_hu, derive=sobel),
    ),
    "eigen": (losses.smoothing_eigen, slow_eigen),
    "ummenhofer": (losses.smoothing_ummenhofer, slow_ummenhofer),
    "xian": (losses.smoothing_xian, slow_xian),
    "godard": (losses.smoothing_godard, slow_godard),
    "none": (losses.smoothing_none, lambda pred, true: 0.0),
    "scale-invariant": (losses.scale_invariant_log, slow_scale_invariant),
}


def scenes() -> dict[str, tuple[Map, Map]]:
    """Predictions and truths ``[N, H, W]``: random with holes, and the degenerate ones."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 9.0, (2, 11, 20))
    pred = np.maximum(true + rng.normal(0, 0.4, true.shape), 0.1)
    holes = np.where(rng.uniform(size=true.shape) < 0.15, NAN, true)
    one_known = np.full((1, 4, 5), NAN)
    one_known[0, 2, 2] = 2.0
    half = holes.copy()
    half[1] = NAN  # one map without any truth
    return {
        "random": (pred, holes),
        "half": (pred, half),
        "all masked": (pred, np.full_like(true, NAN)),
        "one pixel": (np.full((1, 1, 1), 3.0), np.full((1, 1, 1), 2.0)),
        "one known pixel": (np.full((1, 4, 5), 3.0), one_known),
        "constant": (np.full((2, 9, 9), 3.0), np.full((2, 9, 9), 2.0)),
        "perfect": (true, true),
    }


@pytest.mark.parametrize("scene", sorted(scenes()))
@pytest.mark.parametrize("name", sorted(TERMS))
def test_equals_a_slow_loop_on_random_and_degenerate_maps(name: str, scene: str):
    fast, slow = TERMS[name]
    pred, true = scenes()[scene]
    tensors = torch.tensor(pred)[:, None].requires_grad_(), torch.tensor(true)[:, None]
    loss = fast(*tensors)
    assert loss.item() == pytest.approx(slow(pred, true), rel=1e-5, abs=1e-9)
    loss.backward()
    assert torch.isfinite(tensors[0].grad).all()
    assert not tensors[0].grad[tensors[1].isnan()].any()


@pytest.mark.parametrize("name", sorted(set(TERMS) - {"none"}))
def test_gradient_is_the_numerical_one(name: str):
    pred, true = scenes()["random"]
    tensor = torch.tensor(pred[:, None, :6, :7]).requires_grad_()
    truth = torch.tensor(true[:, None, :6, :7])
    assert torch.autograd.gradcheck(lambda p: TERMS[name][0](p, truth), (tensor,))


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_mask_counts_as_unknown_truth(name: str):
    pred, true = (torch.tensor(x)[:, None] for x in scenes()["random"])
    mask = torch.rand(true.shape, generator=torch.Generator().manual_seed(1)) > 0.1
    expected = TERMS[name][0](pred, torch.where(mask, true, NAN))
    assert TERMS[name][0](pred, true, mask).item() == pytest.approx(expected.item())


def test_inverse_depth_gives_the_same_scale_invariant_gradient():
    pred, true = (torch.tensor(x)[:, None] for x in scenes()["random"])
    inverse = losses.smoothing_ummenhofer(1 / pred, 1 / true)
    assert losses.smoothing_ummenhofer(pred, true).item() == pytest.approx(inverse.item())


def test_one_scale_of_xian_is_the_thesis_gradient():
    pred, true = (torch.tensor(x)[:, None] for x in scenes()["random"])
    assert losses.smoothing_xian(pred, true, scales=1).item() == pytest.approx(
        losses.depth_gradient(pred, true).item()
    )


def test_godard_guided_by_the_image_is_the_self_supervised_term():
    rng = np.random.default_rng(3)
    pred, image = rng.uniform(1, 4, (1, 1, 5, 6)), rng.uniform(size=(1, 3, 5, 6))
    d, total = 1 / pred[0, 0] / (1 / pred).mean(), 0.0  # inverse depth, as in the paper
    for y, x in np.ndindex(5, 6):
        for v, u in ((y, x + 1), (y + 1, x)):
            if v < 5 and u < 6:
                edge = np.abs(image[0, :, v, u] - image[0, :, y, x]).mean()
                total += abs(d[v, u] - d[y, x]) * math.exp(-edge)
    nothing = torch.full((1, 1, 5, 6), NAN)
    ours = losses.smoothing_godard(
        torch.tensor(pred), nothing, guide="image", image=torch.tensor(image)
    )
    assert ours.item() == pytest.approx(total / 30)


def test_godard_guided_by_the_image_does_not_see_what_is_masked():
    rng = np.random.default_rng(4)
    pred, image = rng.uniform(1, 4, (1, 1, 8, 9)), rng.uniform(size=(1, 3, 8, 9))
    mask = torch.tensor(rng.uniform(size=pred.shape) > 0.3)
    values = []
    for _ in range(2):
        tensor = torch.tensor(pred).requires_grad_()
        loss = losses.smoothing_godard(
            tensor, torch.tensor(pred), mask, guide="image", image=torch.tensor(image)
        )
        loss.backward()
        assert not tensor.grad[~mask].any()
        values.append(loss.item())
        pred = np.where(mask.numpy(), pred, rng.uniform(1, 4, pred.shape))
    assert values[0] == pytest.approx(values[1])
    assert values[0] > 0


@pytest.mark.parametrize("term", ["hu", "xian"])
def test_default_weight_leaves_the_lead_to_l1(term: str):
    """At 1, these terms pull harder than L1 does, and networks answer one depth everywhere."""
    pred, true = (torch.tensor(x)[:, None] for x in scenes()["perfect"])
    near = pred + 1e-3 * torch.rand(pred.shape, generator=torch.Generator().manual_seed(0))
    near.requires_grad_()
    pulls = []
    for loss in (losses.SMOOTHING[term].term(near, true), losses.l1_depth(near, true)):
        (gradient,) = torch.autograd.grad(loss, near)
        pulls.append(gradient.abs().sum().item())
    assert losses.SMOOTHING[term].weight * pulls[0] < 0.1 * pulls[1] < 0.1 * pulls[0]


def test_weight_of_xian_is_the_thesis_mu():
    assert losses.SMOOTHING["xian"].weight == 1e-3  # eq 3.3


@pytest.mark.parametrize(
    "call",
    [
        lambda a: losses.smoothing_hu(a, a, operator="prewitt"),
        lambda a: losses.smoothing_godard(a, a, guide="image"),
        lambda a: losses.NAMED_LOSSES["smoothing-hu"]({"depth_m": a}, {"depth_m": a}, term="box"),
        lambda a: losses.ranking(a, torch.zeros(1, 2, 2, 2).long(), torch.zeros(1, 3)),
        lambda a: losses.ranking(a, torch.full((1, 1, 2, 2), 4), torch.ones(1, 1)),
    ],
)
def test_impossible_arguments_are_refused(call: Callable[[torch.Tensor], object]):
    with pytest.raises(ValueError, match="expected"):
        call(torch.ones(1, 1, 4, 4))


def slow_ranking(pred: Map, points: Map, relation: Map) -> float:
    values = []
    for i, k in np.ndindex(*relation.shape):
        if math.isnan(relation[i, k]):
            continue
        (ya, xa), (yb, xb) = points[i, k]
        step = pred[i, ya, xa] - pred[i, yb, xb]
        r = relation[i, k]
        values.append(step**2 if r == 0 else math.log(1 + math.exp(-r * step)))
    return float(np.mean(values)) if values else 0.0


@pytest.mark.parametrize("kind", ["random", "no pairs", "one pixel", "constant"])
def test_ranking_equals_a_loop(kind: str):
    rng = np.random.default_rng(5)
    height, width = (1, 1) if kind == "one pixel" else (6, 8)
    pred = rng.uniform(0.5, 5, (2, height, width))
    if kind == "constant":
        pred[:] = 2.0
    points = np.stack(
        [rng.integers(0, height, (2, 7, 2)), rng.integers(0, width, (2, 7, 2))], axis=-1
    )
    relation = rng.choice([-1.0, 0.0, 1.0, NAN], (2, 7))
    if kind == "no pairs":
        relation[:] = NAN
    tensor = torch.tensor(pred)[:, None].requires_grad_()
    arguments = torch.tensor(points), torch.tensor(relation)
    loss = losses.ranking(tensor, *arguments)
    assert loss.item() == pytest.approx(slow_ranking(pred, points, relation), rel=1e-6)
    assert torch.autograd.gradcheck(lambda p: losses.ranking(p, *arguments), (tensor,))
    terms = losses.NAMED_LOSSES["diw"](
        {"depth_m": tensor}, {"points_yx": arguments[0], "relation": arguments[1]}
    )
    assert terms["total"].item() == pytest.approx(loss.item())


def test_ranking_pushes_the_farther_point_away():
    pred = torch.tensor([[[[2.0, 2.0]]]], requires_grad=True)
    pair = torch.tensor([[[[0, 0], [0, 1]]]])
    losses.ranking(pred, pair, torch.tensor([[1.0]])).backward()
    assert pred.grad[0, 0, 0, 0] < 0 < pred.grad[0, 0, 0, 1]  # descent: first deeper


@pytest.mark.parametrize("term", sorted(losses.SMOOTHING))
def test_named_smoothing_losses_add_the_term_to_l1(term: str):
    pred, true = (torch.tensor(x)[:, None] for x in scenes()["random"])
    name = f"smoothing-{term}"
    terms = losses.NAMED_LOSSES[name]({"depth_m": pred}, {"depth_m": true}, smooth_weight=0.25)
    expected = losses.l1_depth(pred, true) + 0.25 * losses.SMOOTHING[term].term(pred, true)
    assert terms["total"].item() == pytest.approx(expected.item())
    own = losses.NAMED_LOSSES[name]({"depth_m": pred}, {"depth_m": true})["total"].item()
    weighted = losses.SMOOTHING[term].weight * terms["smoothing"].item()
    assert own == pytest.approx(terms["l1_depth"].item() + weighted)


@pytest.mark.parametrize("operator", ["difference", "sobel"])
def test_derivatives_are_not_rounded_to_half_precision(operator: str):
    """In a training with ``bf16-mixed`` losses are computed under autocast, too."""
    slope = torch.arange(32.0)
    true = (3 + 0.004 * slope)[None, None, None].expand(1, 1, 32, 32)
    pred = (true + 0.05 * torch.sin(slope / 9)).requires_grad_()
    results = []
    for rounded in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            value = losses.smoothing_hu(pred, true, operator=operator)
        results.append((value, *torch.autograd.grad(value, pred)))
    torch.testing.assert_close(results[1], results[0])
