"""Losses without depth: what the truth scores, what the empty answer scores, and learning."""

from __future__ import annotations

import pytest
import torch

from ddfd_ros.model import build_network
from ddfd_training.losses import NAMED_LOSSES
from ddfd_training.reblur import reblur_with_map

LOSS = NAMED_LOSSES["thesis2023-selfsup"]


def scene():
    """A textured image, a map in steps, and photographs through two apertures."""
    torch.manual_seed(0)
    sharp = torch.rand(1, 3, 48, 48)
    blur = torch.full((1, 1, 48, 48), 2.0)
    blur[..., 24:] = 5.0
    wide = reblur_with_map(sharp, blur)
    narrow = reblur_with_map(sharp, blur * 0.4)
    return sharp, blur, wide, narrow


def test_the_true_map_scores_best():
    sharp, blur, wide, _ = scene()
    targets = {"image": wide, "sharp_rgb": sharp}
    truth = LOSS({"defocus_px": -blur, "sharp_rgb": sharp}, targets)
    assert truth["reblur"] < 1e-6
    assert truth["charbonnier"] == pytest.approx(1e-3, rel=1e-3)
    for wrong in (blur * 0, blur * 0.7, blur.flip(-1)):
        assert LOSS({"defocus_px": wrong, "sharp_rgb": sharp}, targets)["reblur"] > 0.01


def test_weights_are_those_of_the_thesis():
    sharp, blur, wide, _ = scene()
    terms = LOSS(
        {"defocus_px": blur.flip(-1), "sharp_rgb": wide}, {"image": wide, "sharp_rgb": sharp}
    )
    expected = 2 * terms["reblur"] + 0.5 * terms["smoothness"] + 0.01 * terms["charbonnier"]
    assert terms["total"].item() == pytest.approx(expected.item())
    assert set(terms) == {"reblur", "smoothness", "charbonnier", "total"}


def test_two_photographs_suffice_where_nothing_is_sharp():
    sharp, blur, wide, narrow = scene()
    targets = {"image": wide, "sharp_rgb": narrow}
    options = {"sharp": "network", "narrow_ratio": 0.4}
    truth = LOSS({"defocus_px": blur, "sharp_rgb": sharp}, targets, **options)
    assert truth["reblur"] < 1e-6
    assert truth["reblur_narrow"] < 1e-6
    # The empty answer (no blur) explains one photograph, not both.
    for image in (wide, narrow):
        empty = LOSS({"defocus_px": blur * 0, "sharp_rgb": image}, targets, **options)
        assert empty["reblur"] + empty["reblur_narrow"] > 0.01


def test_what_the_second_photograph_does_not_cover_does_not_count():
    sharp, blur, wide, _ = scene()
    known = torch.ones(1, 1, 48, 48, dtype=torch.bool)
    known[..., :12] = False
    covered = sharp.clone()
    covered[..., :2] = 0  # farther from what counts than blur and the window of SSIM reach
    targets = {"image": wide, "sharp_rgb": covered, "sharp_known": known}
    assert LOSS({"defocus_px": blur, "sharp_rgb": sharp}, targets)["reblur"] < 1e-6
    del targets["sharp_known"]
    assert LOSS({"defocus_px": blur, "sharp_rgb": sharp}, targets)["reblur"] > 1e-3


def test_gradients_reach_the_map_and_the_sharp_image():
    sharp, blur, wide, narrow = scene()
    outputs = {
        "defocus_px": (blur * 0.5).requires_grad_(),
        "sharp_rgb": sharp.clone().requires_grad_(),
    }
    options = {"sharp": "network", "narrow_ratio": 0.4}
    LOSS(outputs, {"image": wide, "sharp_rgb": narrow}, **options)["total"].backward()
    assert (outputs["defocus_px"].grad < 0).float().mean() > 0.8  # more blur is needed
    assert outputs["sharp_rgb"].grad.abs().max() > 0


def test_a_small_network_finds_the_blur_without_depth():
    torch.manual_seed(0)
    network = build_network("2hded-selfsup", backbone="ddfd-lite", start_px=2.0)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    sharp = torch.rand(2, 3, 48, 48)
    blur = torch.tensor([1.0, 6.0]).view(2, 1, 1, 1).expand(2, 1, 48, 48).contiguous()
    batch = {"image": reblur_with_map(sharp, blur), "sharp_rgb": sharp}
    for _ in range(40):
        optimizer.zero_grad()
        outputs = network(batch["image"])
        LOSS(outputs, batch, spread="gather", window_px=9)["total"].backward()
        optimizer.step()
    found = outputs["defocus_px"].detach().abs().mean((1, 2, 3))
    assert found[0] < 2.5
    assert found[1] > 4.0


def test_missing_heads_and_unknown_options_are_refused():
    sharp, blur, wide, _ = scene()
    targets = {"image": wide, "sharp_rgb": sharp}
    with pytest.raises(ValueError, match="sharp: expected one of truth, network"):
        LOSS({"defocus_px": blur}, targets, sharp="none")
    with pytest.raises(ValueError, match=r"got no \['sharp_rgb'\]"):
        LOSS({"defocus_px": blur}, targets, sharp="network")
