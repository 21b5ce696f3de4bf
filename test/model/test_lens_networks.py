"""Networks that read blur: what they answer follows the optics of a fixed or a given lens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.model import build_network
from ddfd_ros.model.blur_space import evidence_of, lens_tensor, metres_from_evidence
from ddfd_ros.model.checkpoint import count_parameters

FORMS = {"ddfd-lite": {}, "2hded": {"answer": "blur"}}
OWN, OTHER = LENS_PRESETS["nyu-4m"], LENS_PRESETS["dslr"]
RANGE_M = (0.6, 7.0)


def build(name, **options):
    return build_network(name, **FORMS[name], lens=OWN, depth_range_m=RANGE_M, **options)


def image(height, width, batch=1, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=list(FORMS))
def network(request):
    """For any lens, with batch norms that saw data and conditions that are not the identity."""
    torch.manual_seed(4)
    made = build(request.param, lens_input=True)
    with torch.no_grad():
        for condition in made.conditions:
            condition.outer.weight.normal_(0.0, 0.3)
        for seed in range(2):
            made(image(64, 64, batch=2, seed=seed))
    made.name = request.param
    return made.eval()


def answer(network, rgb, *lens):
    with torch.no_grad():
        return network(rgb, *lens)


def raw_answer(network, rgb, *lens):
    """The answer, and what the depth decoder's last layer said."""
    seen = []
    hook = network.depth_decoder.register_forward_hook(lambda _, __, raw: seen.append(raw))
    got = answer(network, rgb, *lens)
    hook.remove()
    return got, seen[0].double().numpy()


def posterior(raw, lens):
    """Mean and deviation of the signed blur, by weighing every value that it may have."""
    blur = np.log1p(np.exp(4.0 * raw[:, 0] + 3.0))[..., None]
    blur_sigma = 0.5 * np.exp(raw[:, 1])[..., None]
    prior = lens.signed_coc_px(1.0 / (0.4 + 0.25 * raw[:, 2]))[..., None]
    prior_sigma = lens.px_per_dioptre * 0.25 * np.exp(raw[:, 3])[..., None]
    signed = np.linspace(-30, 30, 3001)

    def normal(mean, sigma):
        return np.exp(-0.5 * ((signed - mean) / sigma) ** 2)

    weight = (normal(blur, blur_sigma) + normal(-blur, blur_sigma)) * normal(prior, prior_sigma)
    weight /= weight.sum(axis=-1, keepdims=True)
    mean = (weight * signed).sum(axis=-1)
    variance = (weight * (signed - mean[..., None]) ** 2).sum(axis=-1)
    return mean[:, None], np.sqrt(variance)[:, None]


def test_the_side_of_the_focus_comes_from_context_and_the_width_from_blur():
    lens = torch.tensor([[10.0, 0.5]])  # blur 4 px at 10 m (far side) and at 1.1 m (near side)

    def say(blur_px, dioptre, sigma_dioptre, training=False):
        raw = torch.tensor(
            [
                (np.log(np.expm1(blur_px)) - 3.0) / 4.0,
                np.log(0.1 / 0.5),
                (dioptre - 0.4) / 0.25,
                np.log(sigma_dioptre / 0.25),
            ]
        ).reshape(1, 4, 1, 1)
        out = metres_from_evidence(evidence_of(raw.float(), lens), (0.5, 50.0), training)
        return {key: value.item() for key, value in out.items()}

    far, near = say(3.0, 0.3, 0.1), say(3.0, 0.7, 0.1)
    assert far["defocus_px"] == pytest.approx(3.0, abs=0.02)
    assert far["depth_m"] == pytest.approx(1 / (0.5 - 0.3), rel=0.02)
    assert near["defocus_px"] == pytest.approx(-3.0, abs=0.02)
    assert near["depth_m"] == pytest.approx(1 / (0.5 + 0.3), rel=0.02)
    # Context that does not know the side leaves both open, and says so.
    unsure = say(3.0, 0.5, 0.5)
    assert abs(unsure["defocus_px"]) < 0.01
    assert unsure["sigma_m"] == pytest.approx(2.0**2 / 10.0 * 3.0, rel=0.02)
    # Context that is surer than the blur decides the distance, too.
    assert say(3.0, 0.3, 0.02)["defocus_px"] == pytest.approx(2.8, abs=0.01)


@pytest.mark.parametrize("lens", [None, OWN, OTHER])
def test_metres_follow_from_blur_by_the_thin_lens(network, lens):
    rgb = image(32, 64)
    beside = () if lens is None else (lens_tensor(lens, rgb),)
    got, raw = raw_answer(network, rgb, *beside)
    lens = lens or OWN
    blur_px, sigma_px = posterior(raw, lens)
    blur_px = blur_px.clip(lens.signed_coc_px(RANGE_M[0]), lens.signed_coc_px(RANGE_M[1]))
    depth_m = lens.depth_m(blur_px)
    sigma_m = sigma_px * depth_m**2 / lens.px_per_dioptre
    assert set(got) == {"depth_m", "sigma_m", "defocus_px", "sharp_rgb"}
    np.testing.assert_allclose(got["defocus_px"], blur_px, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["depth_m"], depth_m, rtol=1e-4)
    np.testing.assert_allclose(got["sigma_m"], sigma_m.clip(max=6.4), rtol=1e-3)


def test_a_fixed_lens_is_the_same_optics(network):
    fixed = build(network.name)
    last = ("depth_decoder.out.", "depth_decoder.last.")  # answers two maps
    own = fixed.state_dict().keys()
    state = {k: v for k, v in network.state_dict().items() if k in own}
    fixed.load_state_dict(
        {k: v[: len(v) // 2] if k.startswith(last) else v for k, v in state.items()}
    )
    assert fixed.side_inputs == ()
    got, raw = raw_answer(fixed.eval(), image(64, 64))
    blur_px = 4.0 * raw[:, :1] + OWN.signed_coc_px(2.5)
    expected = OWN.depth_m(blur_px).clip(*RANGE_M)
    inside = (expected > RANGE_M[0]) & (expected < RANGE_M[1])
    assert inside.mean() > 0.1
    np.testing.assert_allclose(got["depth_m"].numpy()[inside], expected[inside], rtol=1e-4)
    with pytest.raises(ValueError, match=r"lens: expected none, .* got one; build .* lens_input"):
        fixed(image(64, 64), lens_tensor(OWN, image(64, 64)))


def test_images_of_a_batch_have_their_own_lenses(network):
    rgb = image(40, 70, batch=2)  # padded to 64 x 96 and cropped
    together = answer(network, rgb, lens_tensor([OWN, OTHER], rgb))
    for number, lens in enumerate((OWN, OTHER)):
        alone = answer(network, rgb[number : number + 1], lens_tensor(lens, rgb))
        for head, value in alone.items():
            assert value.shape[-2:] == (40, 70)
            torch.testing.assert_close(together[head][number], value[0], rtol=1e-3, atol=1e-4)
    assert (together["depth_m"][0] - together["depth_m"][1]).abs().max() > 0.01


def test_only_the_coarse_scales_are_told_the_lens(network):
    rgb = image(64, 64) * 2 - 1
    with torch.no_grad():
        first, second = (
            network.encoder(rgb, network.conditions, lens_tensor(lens, rgb))
            for lens in (OWN, OTHER)
        )
    same = [torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    assert same == [True, True, False, False, False]  # 1/2, 1/4, then 1/8 to 1/32


@pytest.mark.parametrize("heads", ["depth", "sharp"])
def test_a_removed_head_leaves_the_other_bit_equal(network, heads):
    one = build(network.name, lens_input=True, heads=heads).eval()
    wanted = one.state_dict().keys()
    one.load_state_dict({k: v for k, v in network.state_dict().items() if k in wanted})
    rgb = image(64, 64)
    lens = lens_tensor(OTHER, rgb)
    both, got = answer(network, rgb, lens), answer(one, rgb, lens)
    assert set(got) == ({"sharp_rgb"} if heads == "sharp" else set(both) - {"sharp_rgb"})
    assert all(torch.equal(got[head], both[head]) for head in got)
    assert count_parameters(one) < count_parameters(network)


def test_lenses_and_options_that_do_not_fit_are_refused(network):
    rgb = image(32, 32, batch=2)
    for shape in ((2,), (3, 2), (2, 3)):
        with pytest.raises(ValueError, match=r"lens: expected \[2, 2\] or \[1, 2\], got"):
            network(rgb, torch.ones(shape))
    with pytest.raises(ValueError, match=r"expected \[N, 3, H, W\], got \[2, 1, 32, 32\]"):
        network(rgb[:, :1], torch.ones(2, 2))
    with pytest.raises(ContractError, match=r"depth_range_m: expected 0 < near < far"):
        build_network(network.name, depth_range_m=(3.0, 1.0))


def test_learnt_metres_belong_to_one_lens():
    with pytest.raises(ContractError, match=r"lens_input: expected answer 'blur' with it, got 'm"):
        build_network("2hded", lens_input=True)
    with pytest.raises(ContractError, match=r"answer: expected one of 'metres', 'blur', got 'px'"):
        build_network("2hded", answer="px")
    with pytest.raises(ValueError, match=r"this network takes no lens beside the image"):
        build_network("2hded")(image(32, 32), torch.ones(1, 2))
