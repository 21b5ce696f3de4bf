"""Self-supervised 2HDED:NET: its heads, its side of the focus, and depth through the lens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.model import build_network

LITE = {"backbone": "ddfd-lite"}
LENS = LENS_PRESETS["nyu-2m"]


def answer(**options):
    torch.manual_seed(0)
    network = build_network("2hded-selfsup", **options).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        return network(torch.rand(1, 3, 64, 96))


def test_backbones_are_those_of_the_two_networks():
    two_headed = build_network("2hded")
    dense = build_network("2hded-selfsup")
    count = [sum(p.numel() for p in network.parameters()) for network in (two_headed, dense)]
    assert count[0] == count[1] == 41_414_400
    halves = [build_network(name, width=0.5) for name in ("2hded", "2hded-selfsup")]
    count = [sum(p.numel() for p in network.parameters()) for network in halves]
    assert count[0] == count[1] < 41_414_400 / 3.9
    lite = build_network("2hded-selfsup", **LITE)
    # ddfd-lite without the deviation beside the map: four of eight outputs of its last layer.
    full = build_network("ddfd-lite")
    removed = 4 * (32 * 9 + 1)
    assert sum(p.numel() for p in full.parameters()) - removed == sum(
        p.numel() for p in lite.parameters()
    )


@pytest.mark.parametrize(("side", "sign"), [("near", -1), ("far", 1)])
def test_depth_is_what_the_lens_says_about_the_map(side, sign):
    outputs = answer(**LITE, side=side, lens=LENS, depth_range_m=(0.5, 10.0))
    blur_px, depth_m = outputs["defocus_px"].numpy(), outputs["depth_m"].numpy()
    assert (sign * blur_px >= 0).all()
    assert np.ptp(blur_px) > 0
    low, high = (0.5, 2.0) if side == "near" else (2.0, 10.0)
    expected = np.clip(LENS.depth_m(blur_px), low, high)
    np.testing.assert_allclose(depth_m, expected, rtol=1e-5)


def test_without_a_side_there_is_no_depth_and_no_sign():
    outputs = answer(**LITE, side="unknown")
    assert set(outputs) == {"defocus_px", "sharp_rgb"}
    assert (outputs["defocus_px"] >= 0).all()


def test_heads_can_be_left_out():
    assert set(answer(**LITE, heads="depth")) == {"defocus_px", "depth_m"}
    assert set(answer(**LITE, heads="sharp")) == {"sharp_rgb"}
    whole, part = answer(**LITE), answer(**LITE, heads="depth")
    assert torch.equal(whole["defocus_px"], part["defocus_px"])


def test_impossible_options_are_refused():
    with pytest.raises(ContractError, match="on the far side of the focus at 8.0 m, got none"):
        build_network("2hded-selfsup", **LITE, side="far", depth_range_m=(0.5, 5.0))
    with pytest.raises(ContractError, match="side: expected one of 'near', 'far', 'unknown'"):
        build_network("2hded-selfsup", side="left")
    with pytest.raises(ContractError, match="0 < least < start < max"):
        build_network("2hded-selfsup", start_px=30.0)
