"""The second look at both sides of the focus: what it is shown, and what its answer does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.model import build_network
from ddfd_ros.model.blur_space import (
    Evidence,
    evidence_of,
    lens_tensor,
    metres_from_evidence,
    seen_again,
)
from ddfd_ros.model.second_look import SecondLook, two_distances
from ddfd_training.losses import side_nll

LENS = LENS_PRESETS["nyu-4m"]
RANGE_M = (0.5, 50.0)


def plane(value):
    return torch.full((1, 1, 8, 8), float(value))


def evidence(blur=4.0, blur_sigma=0.1, dioptre=0.5, dioptre_sigma=0.5, side=None):
    lens = torch.tensor([[10.0, 0.5]]).reshape(2, 1, 1, 1, 1)
    maps = (plane(value) for value in (blur, blur_sigma, dioptre, dioptre_sigma))
    return Evidence(*maps, *lens, side=None if side is None else plane(side))


def test_it_is_shown_the_two_distances_that_have_this_blur():
    shown = two_distances(
        plane(4.0), plane(0.5), plane(0.3), plane(0.2), *torch.tensor([[[[[10.0]]]], [[[[0.5]]]]])
    )
    near, far, context, *rest = (float(value[0, 0]) for value in shown[0])
    # |c| = A |1/d_f - 1/d|: 4 px at both ends.
    assert 10 * abs(0.5 - near) == pytest.approx(4.0)
    assert 10 * abs(0.5 - far) == pytest.approx(4.0)
    assert near == pytest.approx(0.9)
    assert context == pytest.approx(0.3)
    assert rest == pytest.approx([np.log(0.05), np.log(0.2), np.log(0.4), 0.5], rel=1e-5)


@pytest.mark.parametrize("side", [-0.7, 0.0, 1.5])
def test_the_side_it_suggests_is_as_likely_as_it_says(side):
    # Context at the focus itself says nothing; blur is certain: both distances, weighed.
    out = metres_from_evidence(evidence(blur_sigma=1e-3, side=side), RANGE_M, training=False)
    far = 1 / (1 + np.exp(-2 * side))
    assert float(out["defocus_px"][0, 0, 0, 0]) == pytest.approx(4 * (2 * far - 1), abs=1e-3)
    spread_px = 4 * np.sqrt(4 * far * (1 - far))
    sigma_m = float(out["depth_m"][0, 0, 0, 0]) ** 2 / 10 * spread_px
    assert float(out["sigma_m"][0, 0, 0, 0]) == pytest.approx(sigma_m, rel=1e-2)


def test_context_and_side_are_mended_and_what_was_read_stays():
    first = evidence()
    look = torch.tensor([0.3, -0.4, 0.5]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)
    second = seen_again(first, look)
    assert second.blur is first.blur
    assert second.blur_sigma is first.blur_sigma
    assert float(second.side[0, 0, 0, 0]) == pytest.approx(0.3)
    assert float(second.dioptre[0, 0, 0, 0]) == pytest.approx(0.5 - 0.4 * 0.25)
    assert float(second.dioptre_sigma[0, 0, 0, 0]) == pytest.approx(0.5 * np.exp(0.5))


def test_squares_stay_within_half_precision():
    look = torch.tensor([50.0, 50.0, 50.0]).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)
    surest = seen_again(evidence(dioptre_sigma=0.25 * np.exp(-3.0)), -look).dioptre_sigma
    widest = seen_again(evidence(dioptre_sigma=0.25 * np.exp(3.0)), look).dioptre_sigma
    strongest = 28.0  # px per dioptre that networks are trained with
    assert float((strongest * widest).square().max()) < 65504 / 2
    assert float((strongest * surest).square().min()) > 1e-2


def test_untrained_it_changes_nothing():
    torch.manual_seed(0)
    network = build_network("ddfd-lite", lens_input=True, heads="depth").eval()
    image = torch.rand(1, 3, 64, 96)
    lens = lens_tensor(LENS, image)
    raw = []
    network.depth_decoder.register_forward_hook(lambda _, __, out: raw.append(out))
    with torch.no_grad():
        answer = network(image, lens=lens)
    alone = metres_from_evidence(evidence_of(raw[0], lens), network.depth_range_m, False)
    torch.testing.assert_close(answer["depth_m"], alone["depth_m"])
    torch.testing.assert_close(answer["sigma_m"], alone["sigma_m"])


def test_only_networks_that_answer_depth_for_any_lens_look_twice():
    assert build_network("ddfd-lite", lens_input=False).second_look is None
    assert build_network("ddfd-lite", lens_input=True, heads="sharp").second_look is None
    assert build_network("ddfd-lite", lens_input=True, second_look=False).second_look is None
    assert isinstance(build_network("ddfd-lite", lens_input=True).second_look, SecondLook)


def test_what_is_read_first_learns_from_its_own_truth_only():
    network = build_network("ddfd-lite", lens_input=True, heads="depth").train()
    image = torch.rand(2, 3, 64, 64)
    looked = network.second_look.out
    with torch.no_grad():
        looked.weight.normal_(0.0, 0.1)
    said = []
    network.second_look.register_forward_hook(lambda _, __, out: said.append(out))
    answer = network(image, lens=lens_tensor(LENS, image))
    said[0].sum().backward()
    assert looked.weight.grad.abs().max() > 0
    assert network.encoder.stem[0][0].weight.grad.abs().max() > 0
    assert network.depth_decoder.out.weight.grad is None
    assert {"blur", "blur_sigma", "dioptre", "dioptre_sigma", "side"} <= set(answer)


def test_floors_seen_through_one_lens_tell_the_side_through_another():
    # Blur alone is alike on both sides; a plane tells them apart, in dioptres through any lens.
    torch.manual_seed(0)
    look = SecondLook(skips=(4, 4, 4), widths=(8, 12, 16, 16))
    optimizer = torch.optim.Adam(look.parameters(), 5e-3)
    features = [torch.zeros(4, 4, 64 // s, 64 // s) for s in (8, 16, 32)]

    def floors(seed, strengths, focuses):
        random = np.random.default_rng(seed)
        rows = torch.linspace(0, 1, 64).reshape(1, 1, -1, 1)
        top = torch.from_numpy(random.uniform(0.1, 0.4, (4, 1, 1, 1))).float()
        bottom = torch.from_numpy(random.uniform(0.7, 1.2, (4, 1, 1, 1))).float()
        truth = (top + (bottom - top) * rows).expand(4, 1, 64, 64)
        strength = torch.from_numpy(random.uniform(*strengths, (4, 1, 1, 1))).float()
        focus = torch.from_numpy(random.uniform(*focuses, (4, 1, 1, 1))).float()
        signed = strength * (focus - truth)
        unsure = torch.full_like(truth, 0.5)
        shown = two_distances(
            signed.abs(), torch.full_like(truth, 0.1), unsure, unsure, strength, focus
        )
        return shown, signed

    for step in range(60):
        shown, signed = floors(step, (5.0, 10.0), (0.4, 0.7))
        loss = side_nll(look(shown, features)[:, :1], signed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    look.eval()
    with torch.no_grad():
        shown, signed = floors(1000, (18.0, 22.0), (0.45, 0.6))
        said = look(shown, features)[:, :1]
    blurred = signed.abs() > 1.0
    assert float((said.sign() == signed.sign())[blurred].float().mean()) > 0.9


def test_the_loss_counts_only_pixels_that_are_blurred_and_known():
    true_px = torch.tensor([[2.0, -2.0, 0.1, float("nan")]])
    leaning = torch.tensor([[1.0, 1.0, 9.0, 9.0]])
    right = 1 / (1 + np.exp(-2.0))
    expected = -np.mean([np.log(0.98 * p + 0.02) for p in (right, 1 - right)])
    assert float(side_nll(leaning, true_px)) == pytest.approx(expected, rel=1e-5)
    assert float(side_nll(leaning, torch.full_like(true_px, float("nan")))) == 0.0
    # What is surely wrong counts no more than a doubt does, and pulls no more than others.
    sure = torch.full_like(true_px, -1000.0, requires_grad=True)
    worst = side_nll(sure, torch.full_like(true_px, 2.0))
    worst.backward()
    assert float(worst.detach()) == pytest.approx(-np.log(0.02))
    assert float(sure.grad.abs().max()) < 1e-3
