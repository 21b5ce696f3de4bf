"""2HDED:NET and D3-Net: counts of the papers, the decoders' wiring, removable heads."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ddfd_ros.core.errors import ContractError
from ddfd_ros.model import build_network

WIDTHS = ((1024, 512), (1024, 256), (512, 128), (256, 64), (128, 64))  # FACTS, in -> out


def count(network):
    return sum(item.numel() for item in network.parameters())


def image(height, width, batch=1, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def two_headed():
    """2HDED:NET whose batch norms have seen some data."""
    torch.manual_seed(5)
    network = build_network("2hded")
    with torch.no_grad():
        for seed in range(2):
            network(image(64, 64, batch=2, seed=seed))
    return network.eval()


def single_headed(network, heads):
    """The same weights in a network with one head."""
    single = build_network("2hded", heads=heads)
    wanted = single.state_dict().keys()
    single.load_state_dict({k: v for k, v in network.state_dict().items() if k in wanted})
    return single.eval()


ANY_LENS = {"answer": "blur", "lens_input": True}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("2hded", {}, 41_414_400),
        ("2hded", {"stem": 7}, 41_422_080),
        # One more 3x3 kernel over 64 channels.
        ("2hded", {"answer": "blur"}, 41_414_400 + 64 * 9),
        # Two more, and three conditions of 4-32-2C, C = 128, 256, 512.
        ("2hded", ANY_LENS, 41_414_976 + 2 * 64 * 9 + 3 * 160 + 896 * 66),
        ("d3net", {}, 24_212_544),
        ("d3net", {"dropout": 0.0}, 24_212_544),
    ],
)
def test_parameter_counts_are_the_papers(name, options, expected):
    assert count(build_network(name, **options)) == expected


def test_all_channels_go_with_the_width():
    network = build_network("2hded", width=0.5).eval()
    full = build_network("2hded").state_dict()
    for name, value in network.state_dict().items():
        ends = [3, 1]  # of images and depth; all others are halved, as long as eights remain
        for mine, paper in zip(value.shape[:2], full[name].shape[:2], strict=True):
            assert mine == paper or mine * 2 == paper, name
            assert mine != paper or mine in ends or value.ndim == 0, name
    assert count(network) == 10_378_112
    answer = network(image(64, 96))
    assert answer["depth_m"].shape == (1, 1, 64, 96)
    assert answer["sharp_rgb"].shape == (1, 3, 64, 96)


@pytest.mark.parametrize("width", [0.0, -1.0, 1.5])
def test_a_width_beyond_the_papers_is_refused(width):
    with pytest.raises(ContractError, match=r"width: expected above 0 and at most 1"):
        build_network("2hded", width=width)


def reference_decoder(decoder, levels):
    """The decoder in functional form, with the skip's channels first."""
    x = levels[4]
    for number, block in enumerate(decoder.blocks):
        if number:
            x = torch.cat([levels[4 - number], x], 1)
        assert (x.shape[1], block.up.out_channels) == WIDTHS[number]
        x = F.conv_transpose2d(x, block.up.weight, block.up.bias, stride=2, padding=1)
        for norm, kernel in ((block.norm1, block.conv.weight), (block.norm2, None)):
            x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
            x = x.clamp(min=0)
            x = x if kernel is None else F.conv2d(x, kernel, padding=1)
    return F.conv2d(x, decoder.last.weight, padding=1)


def test_answers_follow_from_the_parts(two_headed):
    rgb = image(64, 96)
    with torch.no_grad():
        answer = two_headed(rgb)
        levels = two_headed.encoder(rgb * 2 - 1)
        depth_m = reference_decoder(two_headed.depth_decoder, levels)
        joined = rgb * 2 - 1 + reference_decoder(two_headed.sharp_decoder, levels)
    assert set(answer) == {"depth_m", "sharp_rgb"}
    torch.testing.assert_close(answer["depth_m"], depth_m, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer["sharp_rgb"], (joined + 1) / 2, rtol=1e-4, atol=1e-5)


def test_a_silent_deblurring_decoder_returns_the_input():
    network = build_network("2hded", heads="sharp").eval()
    torch.nn.init.zeros_(network.sharp_decoder.last.weight)
    rgb = image(32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(rgb)["sharp_rgb"], rgb, rtol=0, atol=1e-6)


def test_the_tanh_variant_bends_the_same_sum(two_headed):
    bent = build_network("2hded", input_join="tanh")
    bent.load_state_dict(two_headed.state_dict())
    rgb = image(64, 64)
    with torch.no_grad():
        plain, answer = two_headed(rgb), bent.eval()(rgb)
    expected = (np.tanh(plain["sharp_rgb"].numpy() * 2 - 1) + 1) / 2
    np.testing.assert_allclose(answer["sharp_rgb"].numpy(), expected, atol=1e-6)
    assert torch.equal(plain["depth_m"], answer["depth_m"])


@pytest.mark.parametrize(("heads", "output"), [("depth", "depth_m"), ("sharp", "sharp_rgb")])
def test_a_removed_head_leaves_the_other_bit_equal(two_headed, heads, output):
    rgb = image(70, 90)
    with torch.no_grad():
        both, one = two_headed(rgb), single_headed(two_headed, heads)(rgb)
    assert set(one) == {output}
    assert torch.equal(one[output], both[output])


def decoder_flops(channels_out, height, width):
    """Multiplications and additions of one decoder, counted from the table of widths."""
    total = 0
    for number, (before, after) in enumerate(WIDTHS):
        pixels = (height * width) >> (2 * (4 - number))  # of the block's output
        # Each input pixel of the transposed convolution meets 16 taps: 4 per output pixel.
        total += 2 * pixels * (4 * before * after + 9 * after * after)
    return total + 2 * height * width * 9 * 64 * channels_out


def flops(network, rgb):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(rgb)
    return counter.get_total_flops()


def test_a_removed_head_costs_nothing(two_headed):
    rgb = image(64, 96)
    both = flops(two_headed, rgb)
    depth_only, sharp_only = (
        flops(single_headed(two_headed, heads), rgb) for heads in ("depth", "sharp")
    )
    assert both - depth_only == decoder_flops(3, 64, 96)
    assert both - sharp_only == decoder_flops(1, 64, 96)
    assert depth_only < 0.65 * both


def test_a_removed_head_saves_time(two_headed):
    rgb = image(96, 96)
    one = single_headed(two_headed, "depth")
    seconds = {"both": [], "one": []}
    with torch.no_grad():
        for _ in range(6):  # the best of interleaved runs: other load hits both alike
            for name, network in (("both", two_headed), ("one", one)):
                start = time.perf_counter()
                network(rgb)
                seconds[name].append(time.perf_counter() - start)
    assert min(seconds["one"]) < 0.9 * min(seconds["both"])


def test_each_loss_reaches_the_encoder_and_its_own_decoder_alone():
    network = build_network("2hded")
    answer = network(image(64, 64, batch=2))
    for output, own, other in (
        ("depth_m", network.depth_decoder, network.sharp_decoder),
        ("sharp_rgb", network.sharp_decoder, network.depth_decoder),
    ):
        network.zero_grad()
        answer[output].square().mean().backward(retain_graph=True)
        reached = [*network.encoder.parameters(), *own.parameters()]
        assert all(item.grad is not None and item.grad.isfinite().all() for item in reached)
        # A bias before a batch norm is cancelled by it; everything else must move.
        biases = {id(block.up.bias) for block in own.blocks}
        assert all(item.grad.abs().max() > 0 for item in reached if id(item) not in biases)
        assert all(item.grad is None for item in other.parameters())


@pytest.mark.parametrize("size", [(64, 64), (70, 90), (33, 95), (40, 31), (17, 32)])
def test_any_size_is_padded_by_reflection_and_cropped(two_headed, size):
    rgb = image(*size)
    height, width = size
    planes = rgb[0].numpy()
    for axis, side in ((1, height), (2, width)):
        missing = -side % 32
        amounts = [(0, 0)] * 3
        amounts[axis] = (0, missing)
        mode = "reflect" if missing < side else "edge"
        planes = np.pad(planes, amounts, mode=mode)
    with torch.no_grad():
        answer = two_headed(rgb)
        expected = two_headed.forward_aligned(torch.from_numpy(planes)[None])
    assert answer["depth_m"].shape == (1, 1, height, width)
    assert answer["sharp_rgb"].shape == (1, 3, height, width)
    for name, value in answer.items():
        assert torch.equal(value, expected[name][..., :height, :width])


def test_wrong_shapes_are_refused(two_headed):
    with pytest.raises(ValueError, match=r"expected \[N, 3, H, W\], got \[3, 32, 32\]"):
        two_headed(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"got \[1, 1, 32, 32\]"):
        two_headed(torch.zeros(1, 1, 32, 32))


def test_decoders_start_small_and_dropout_follows_four_convolutions():
    network = build_network("d3net")
    kernels = [item.detach() for item in network.depth_decoder.parameters() if item.ndim == 4]
    for kernel in kernels:
        assert abs(float(kernel.std()) - 0.02) < 0.002
        assert abs(float(kernel.mean())) < 0.003
    dropouts = [isinstance(b.dropout, torch.nn.Dropout) for b in network.depth_decoder.blocks]
    assert dropouts == [True, True, False, False, False]
    # Each of these two blocks applies it after both of its convolutions.
    calls = []
    for block in network.depth_decoder.blocks[:2]:
        block.dropout.register_forward_hook(lambda module, _, __: calls.append(module.p))
    network(image(32, 64, batch=2))
    assert calls == [0.5] * 4


def test_dropout_is_silent_in_evaluation():
    network = build_network("d3net").eval()
    rgb = image(32, 32)
    with torch.no_grad():
        assert torch.equal(network(rgb)["depth_m"], network(rgb)["depth_m"])
    network.train()
    with torch.no_grad():
        assert not torch.equal(
            network(image(32, 64))["depth_m"], network(image(32, 64))["depth_m"]
        )


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("d3net", {}, "depth_m"),
        ("2hded-selfsup", {"backbone": "ddfd-lite"}, "defocus_px"),
        ("ddfd-lite", {"heads": "depth"}, "defocus_px"),
    ],
)
def test_maps_do_not_come_in_steps_of_half_precision(name, options, key):
    """Under autocast all but the last layer is rounded; a map in bfloat16 has few values."""
    torch.manual_seed(0)
    network = build_network(name, **options).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        answer = network(image(64, 64))[key]
    assert answer.dtype == torch.float32
    # The 4096 pixels of a map in bfloat16 share some hundred values.
    assert answer.unique().numel() > 3000
