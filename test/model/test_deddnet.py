"""DEDDNet: the papers' parameter counts, its parts against their formulas, its depth sources."""

from __future__ import annotations

import pytest
import torch

from ddfd_ros.core.errors import ContractError
from ddfd_ros.model import build_network
from ddfd_ros.model.deddnet import SCALES, _shrunk
from ddfd_ros.model.deddnet_blocks import AttentionBlock, ConvGru

SMALL = {"channels": 8, "depth_channels": 4, "branches": [1]}


def count(**options):
    return sum(p.numel() for p in build_network("deddnet", **options).parameters())


def test_parameters_are_those_of_the_paper():
    assert count() == 2_646_308
    assert count(branches=[1, 3]) == 4_090_948
    # Table 3: the GRU costs what the depth encoder and four units have.
    conv = 9 * (64 + 16) * 64 + 64
    encoder = (9 * 16 + 16) + (4 * (9 * 16 * 16 + 16) - (9 * 16 * 16 + 16)) + (16 + 1) + (16 + 16)
    assert count() - count(fusion="none") == 4 * 3 * conv + encoder
    assert count(fusion="conv") - count(fusion="none") == 4 * conv + encoder
    assert count(fusion="input") - count(fusion="none") == 9 * 64
    assert count(depth="none") == count()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fusion": "conv"},
        {"fusion": "input"},
        {"fusion": "none"},
        {"state": "depth"},
        {"blocks": "plain"},
        {"branches": [1, 2, 1]},
        {"output": "residual"},
    ],
)
def test_any_size_and_every_variant_answer(options):
    network = build_network("deddnet", **{**SMALL, **options}).eval()
    with torch.no_grad():
        answer = network(torch.rand(2, 3, 50, 37), torch.rand(2, 1, 50, 37) + 1)
    assert set(answer) == {"sharp_rgb"}
    assert answer["sharp_rgb"].shape == (2, 3, 50, 37)


@pytest.mark.parametrize("fusion", ["gru", "conv", "input"])
def test_depth_matters_where_it_is_given_and_only_there(fusion):
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 32, 32)
    near, far = torch.full((1, 1, 32, 32), 0.7), torch.full((1, 1, 32, 32), 5.0)
    for depth, differs in (("given", True), ("none", False)):
        network = build_network("deddnet", **SMALL, fusion=fusion, depth=depth).eval()
        assert network.needs_depth is differs
        with torch.no_grad():
            answers = [network(rgb, told)["sharp_rgb"] for told in (near, far)]
        assert torch.equal(*answers) is not differs


def test_unknown_depth_counts_as_infinitely_far():
    network = build_network("deddnet", **SMALL).eval()
    rgb = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = network(rgb)["sharp_rgb"]
        for value in (float("nan"), float("inf"), 0.0, -1.0):
            told = torch.full((1, 1, 32, 32), value)
            torch.testing.assert_close(network(rgb, told)["sharp_rgb"], expected)


def test_own_depth_network_answers_too_and_is_not_trained():
    torch.manual_seed(0)
    network = build_network("deddnet", **SMALL, depth="own", output="residual").train()
    assert not network.guide.training
    rgb = torch.rand(1, 3, 64, 64)
    outputs = network(rgb)
    assert {"depth_m", "sigma_m", "sharp_rgb"} <= set(outputs)
    torch.testing.assert_close(outputs["sharp_rgb"], rgb)  # untrained, the image itself
    outputs["sharp_rgb"].sum().backward()
    assert all(p.grad is None for p in network.guide.parameters())
    assert network.tail.weight.grad is not None
    with torch.no_grad():
        alone = network.guide(rgb)["depth_m"]
    torch.testing.assert_close(outputs["depth_m"], alone)


def test_heads_that_are_left_out_are_not_there():
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 64, 64)
    parts = {
        heads: set(build_network("deddnet", **SMALL, depth="own", heads=heads).eval()(rgb))
        for heads in ("sharp", "depth")
    }
    assert parts == {"sharp": {"sharp_rgb"}, "depth": {"depth_m", "sigma_m", "defocus_px"}}
    with pytest.raises(ContractError, match="heads: expected both or sharp"):
        build_network("deddnet", heads="depth")
    with pytest.raises(ContractError, match="branches: expected one to three"):
        build_network("deddnet", branches=[1, 1, 1, 1])
    with pytest.raises(ContractError, match="guide: expected a depth network"):
        build_network("deddnet", depth="own", guide="deddnet")


def test_gru_is_torchs_at_every_pixel():
    torch.manual_seed(0)
    ours, theirs = ConvGru(4, 3), torch.nn.GRUCell(3, 4)
    # A 1x1 kernel in the middle of the 3x3 ones makes every pixel a recurrent cell.
    with torch.no_grad():
        for conv in (ours.update, ours.reset, ours.candidate):
            conv.weight.zero_()
            conv.bias.zero_()
        reset, update, new = theirs.weight_ih.split(4)
        reset_h, update_h, new_h = theirs.weight_hh.split(4)
        theirs.bias_ih.zero_()
        theirs.bias_hh.zero_()
        ours.reset.weight[:, :, 1, 1] = torch.cat((reset_h, reset), dim=1)
        # torch keeps the state with z, where this one replaces it.
        ours.update.weight[:, :, 1, 1] = -torch.cat((update_h, update), dim=1)
        new_h.zero_()  # torch applies the reset after the product, the original before
        ours.candidate.weight[:, 4:, 1, 1] = new
        state, incoming = torch.rand(1, 4, 3, 2), torch.rand(1, 3, 3, 2)
        got = ours(state, incoming)
        for y in range(3):
            for x in range(2):
                expected = theirs(incoming[:, :, y, x], state[:, :, y, x])
                torch.testing.assert_close(got[:, :, y, x], expected)


def test_attention_block_is_its_formula():
    torch.manual_seed(0)
    block = AttentionBlock(16)
    x = torch.rand(2, 16, 5, 5)
    with torch.no_grad():
        new = block.second(block.first(x).clamp(min=0))
        mean = new.mean((2, 3))
        inner = mean @ block.attention.squeeze.weight[:, :, 0, 0].T + block.attention.squeeze.bias
        outer = block.attention.excite(inner.clamp(min=0)[:, :, None, None])
        torch.testing.assert_close(block(x), x + new / (1 + torch.exp(-outer)))


def test_depth_pyramid_keeps_a_plane():
    plane = torch.linspace(0, 1, 32).view(1, 1, 1, 32).expand(1, 1, 16, 32)
    for scale in SCALES:
        small = _shrunk(plane, scale)
        assert small.shape[-1] == 32 // scale
        centres = (torch.arange(32 // scale) + 0.5) * scale - 0.5
        torch.testing.assert_close(small[0, 0, 0], centres / 31)
