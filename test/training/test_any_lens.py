"""Pictures through many lenses: what each looks like, what is kept, and training on them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_ros.model import build_network
from ddfd_ros.model.blur_space import lens_tensor, lens_vector
from ddfd_ros.model.checkpoint import load_checkpoint
from ddfd_training.any_lens import (
    ManyLensSet,
    _prepared,
    photograph,
    photograph_all,
    without_texture,
)
from ddfd_training.cli import _take_over, train
from ddfd_training.config import DataConfig, LossConfig, NetworkConfig, SourceConfig, TrainConfig
from ddfd_training.crops import CropDataset
from ddfd_training.datasets.sample import RgbdSample
from ddfd_training.image_set import LazySet
from ddfd_training.lay_over import stack_pairs
from ddfd_training.lens_draws import DrawnCamera, LensRanges, curved, draw_camera, lens_of
from ddfd_training.losses import NAMED_LOSSES
from ddfd_training.optics import render_defocus
from ddfd_training.optics_options import RenderOptions
from ddfd_training.psf import render_kernel
from ddfd_training.sensor import Sensor
from ddfd_training.sources import open_source
from ddfd_training.steps import plain_step
from ddfd_training.trainer import WholeImages, network_options


@pytest.mark.parametrize(("strength", "focus_m"), [(4.0, 0.7), (14.4, 8.0), (28.0, 1.7)])
def test_a_lens_has_the_strength_and_focus_asked_for(strength, focus_m):
    lens = lens_of(strength, focus_m)
    assert lens.px_per_dioptre == pytest.approx(strength)
    assert lens.focus_distance_m == focus_m
    # c = A |1/d_f - 1/d|, by hand for 1 m.
    assert lens.coc_px(1.0) == pytest.approx(strength * abs(1 / focus_m - 1.0))


def test_draws_fill_their_ranges_and_repeat():
    ranges = LensRanges(draws=1)
    cameras = [draw_camera(ranges, np.random.default_rng(i)) for i in range(400)]
    strengths = np.array([camera.told.px_per_dioptre for camera in cameras])
    focus_m = np.array([camera.lens.focus_distance_m for camera in cameras])
    assert 4.0 <= strengths.min() < 4.3
    assert 26.5 < strengths.max() <= 28.0
    # Even in the logarithm: half of them below the geometric mean.
    assert np.mean(strengths < np.sqrt(4 * 28)) == pytest.approx(0.5, abs=0.08)
    assert np.mean(focus_m < np.sqrt(0.7 * 8)) == pytest.approx(0.5, abs=0.08)
    assert np.mean([bool(camera.sensor.jpeg_quality) for camera in cameras]) == pytest.approx(
        0.5, abs=0.08
    )
    assert draw_camera(ranges, np.random.default_rng(3)) == cameras[3]


def test_a_network_is_told_how_far_a_lens_spreads_a_point_whatever_the_shape():
    """4 sigma of the kernel, measured on it, is the blur of the lens that is told."""
    ranges = LensRanges(draws=1, px_per_dioptre=(20.0, 20.0), focus_distance_m=(2.0, 2.0))
    strengths, shares = set(), set()
    for seed in range(20):
        camera = draw_camera(ranges, np.random.default_rng(seed))
        options = camera.options
        diameter_px = camera.lens.coc_px(1.0)
        kernel = render_kernel(
            diameter_px, options.kernel, options.sigma_per_diameter, options.gaussian_share
        ).double()
        offset = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
        sigma_px = float((kernel.sum(dim=0) * offset**2).sum().sqrt())
        assert 4 * sigma_px == pytest.approx(camera.told.coc_px(1.0), rel=0.01)
        assert camera.told.px_per_dioptre == pytest.approx(20.0)
        strengths.add(round(camera.lens.px_per_dioptre, 3))
        shares.add(options.gaussian_share)
    assert len(strengths) == len(shares) == 20
    assert min(strengths) < 14
    assert max(strengths) > 18


def test_field_curvature_is_a_shift_of_the_focus():
    depth_m = np.full((9, 13), 2.0, np.float32)
    flat_equivalent = curved(depth_m, 0.1)
    assert flat_equivalent[4, 6] == pytest.approx(2.0)
    # Half way to the right edge r^2 is 1/8 (corners: 1).
    lens = LENS_PRESETS["nyu-2m"]
    r2 = (3 / (13 / 2)) ** 2 / 2
    shifted = lens.px_per_dioptre * (lens.focus_dioptre + 0.1 * r2 - 1 / 2.0)
    assert lens.signed_coc_px(float(flat_equivalent[4, 9])) == pytest.approx(shifted, abs=1e-5)


def _sample(seed=0, size=(64, 80), depth_m=3.0):
    random = np.random.default_rng(seed)
    rgb = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    return RgbdSample(
        name=f"scene{seed}", sharp_rgb=rgb, depth_m=np.full(size, depth_m, np.float32)
    )


def test_a_photograph_is_the_renderers_picture_of_that_lens():
    lens = lens_of(20.0, 1.0)
    options = RenderOptions("gaussian", 0.4)
    sample = _sample()
    got = photograph(sample, DrawnCamera(lens, options, 0.0, Sensor()), np.random.default_rng(0))
    rgb = torch.from_numpy(sample.sharp_rgb).permute(2, 0, 1)[None].float() / 255
    depth = torch.from_numpy(sample.depth_m)[None, None]
    expected = render_defocus(rgb, depth, lens, options=options)[0].permute(1, 2, 0) * 255
    assert np.abs(got - expected.numpy()).max() <= 0.5 + 1e-3


def test_the_set_says_each_pictures_lens_and_is_rendered_once(tmp_path):
    scenes = [_sample(i) for i in range(3)]
    ranges = LensRanges(draws=2)
    images = photograph_all(scenes, ranges, tmp_path, tag="t", key="k", workers=1)
    assert isinstance(images, ManyLensSet)
    assert images.frames == tuple(range(6))
    for frame in range(6):
        item = images.item(frame)
        random = np.random.default_rng([frame // 2, frame % 2])
        camera = draw_camera(ranges, random)
        np.testing.assert_allclose(item["lens"], lens_vector(camera.told), rtol=1e-6)
        np.testing.assert_array_equal(item["sharp_rgb"], scenes[frame // 2].sharp_rgb)
        np.testing.assert_array_equal(
            item["image"], photograph(scenes[frame // 2], camera, random)
        )
    stamp = next(tmp_path.iterdir()).stat().st_mtime_ns
    photograph_all(scenes, ranges, tmp_path, tag="t", key="k", workers=1)
    assert next(tmp_path.iterdir()).stat().st_mtime_ns == stamp
    photograph_all(scenes, replace(ranges, draws=1), tmp_path, tag="t", key="k", workers=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_another_series_has_other_lenses_for_the_same_frames(tmp_path):
    def told(series: int) -> list[float]:
        ranges = LensRanges(draws=2, series=series)
        images = photograph_all([_sample()], ranges, tmp_path, tag="t", key="", workers=1)
        return [float(images.item(frame)["lens"][0]) for frame in range(2)]

    assert told(0) == told(0)
    assert len({*told(0), *told(1), *told(2)}) == 6


def test_whether_texture_is_lost_says_nothing_about_the_lens(tmp_path):
    """The choice and the first draw of a frame have numbers of their own."""
    size, count = (16, 16), 60
    scenes = [_sample(i, size) for i in range(count)]
    ranges = LensRanges(draws=1, flat_share=0.3)
    images = photograph_all(scenes, ranges, tmp_path, tag="t", key="", workers=1)
    flat = np.array(
        [(images.sharp_rgb[i] != scenes[i].sharp_rgb).any() for i in range(count)], dtype=bool
    )
    assert 8 < flat.sum() < 30
    assert images.lenses[flat, 0].max() > np.median(images.lenses[~flat, 0])
    # Without such scenes, lenses are what they were.
    camera = draw_camera(LensRanges(draws=1), np.random.default_rng([7, 0]))
    assert camera.told.px_per_dioptre == pytest.approx(13.4998, abs=1e-3)
    kept = {path.name.rpartition("-")[2] for path in tmp_path.iterdir()}
    photograph_all([_sample()], LensRanges(draws=1), tmp_path, tag="t", key="k", workers=1)
    (name,) = {path.name.rpartition("-")[2] for path in tmp_path.iterdir()} - kept
    assert name == "e704b868997b"  # 722984f37879: by Gaussians that spread too little


def test_16_bit_scenes_are_photographed_as_8_bit_ones(tmp_path):
    deep = replace(_sample(), sharp_rgb=_sample().sharp_rgb.astype(np.uint16) * 257)
    ranges = LensRanges(draws=1, flat_share=1.0, soften_px=0.5)
    pictures = [
        photograph_all([each], ranges, tmp_path, tag="t", key=key, workers=1).item(0)
        for key, each in (("8", _sample()), ("16", deep))
    ]
    for key in ("image", "sharp_rgb"):
        np.testing.assert_array_equal(pictures[1][key], pictures[0][key])
    camera = draw_camera(LensRanges(), np.random.default_rng(0))
    images = [photograph(each, camera, np.random.default_rng(0)) for each in (_sample(), deep)]
    np.testing.assert_array_equal(images[1], images[0])


def test_scenes_are_softened_before_the_lens_and_so_is_their_truth(tmp_path):
    ranges = LensRanges(draws=1, soften_px=1.0)
    images = photograph_all([_sample()], ranges, tmp_path, tag="t", key="", workers=1)
    softened = replace(_sample(), sharp_rgb=cv2.GaussianBlur(_sample().sharp_rgb, (0, 0), 1.0))
    random = np.random.default_rng([0, 0])
    camera = draw_camera(ranges, random)
    item = images.item(0)
    np.testing.assert_array_equal(item["sharp_rgb"], softened.sharp_rgb)
    np.testing.assert_array_equal(item["image"], photograph(softened, camera, random))


def test_scenes_lose_their_fine_texture_and_keep_their_edges():
    random = np.random.default_rng(1)
    step = np.where(np.arange(64) < 32, 60, 180)[None, :, None]
    textured = (step + random.normal(0, 4, (64, 64, 3))).clip(0, 255).astype(np.uint8)
    for seed in range(5):
        flat = without_texture(textured, np.random.default_rng(seed)).astype(float)
        assert flat[:, 8:24].std() < 0.5 * textured[:, 8:24].std()
        assert (flat[:, 33] - flat[:, 30]).mean() > 100
    one = LensRanges(draws=1, flat_share=1.0)
    assert not np.array_equal(
        _prepared(_sample(), one, np.random.default_rng(0)).sharp_rgb, _sample().sharp_rgb
    )


def test_crops_of_pictures_without_a_lens_have_the_recipes(tmp_path):
    drawn = photograph_all([_sample()], LensRanges(draws=1), tmp_path, tag="t", key="", workers=1)
    plain = replace_lenses(drawn)
    lens = LENS_PRESETS["dslr"]
    crops = CropDataset([drawn, plain], DataConfig(crop_px=32), 1, 0, 40, lens)
    seen = {tuple(np.round(crops[i]["lens"].numpy(), 4)) for i in range(40)}
    assert seen == {
        tuple(np.round(np.float32(lens_vector(lens)), 4)),
        tuple(np.round(drawn.lenses[0], 4)),
    }


def test_a_photograph_that_names_its_lens_is_told_it(tmp_path):
    drawn = photograph_all([_sample()], LensRanges(draws=1), tmp_path, tag="t", key="", workers=1)
    own = lens_of(30.0, 1.0)
    pixels = _sample().sharp_rgb
    named = replace(_sample(), defocused_rgb=pixels, lens=own)
    photographs = LazySet([named, replace(named, lens=None)], (0, 1), weight=2.0)
    lens = LENS_PRESETS["dslr"]
    crops = CropDataset([drawn, photographs], DataConfig(crop_px=32), 1, 0, 40, lens)
    seen = {tuple(np.round(crops[i]["lens"].numpy(), 4)) for i in range(40)}
    expected = [lens_vector(lens), lens_vector(own), drawn.lenses[0]]
    assert seen == {tuple(np.round(np.float32(each), 4)) for each in expected}
    # Nobody has said a lens for the others: then none is told.
    assert "lens" not in CropDataset([photographs], DataConfig(crop_px=32), 1, 0, 1)[0]
    with pytest.raises(DatasetError, match="eigen .*got some with lens; use colour or none"):
        CropDataset([drawn], DataConfig(crop_px=32, augment="eigen"), 1, 0, 1)


def test_photographs_in_memory_that_name_their_lens_are_told_it():
    own = [lens_of(30.0, 1.0), lens_of(7.0, 4.0)]
    pixels = _sample().sharp_rgb
    samples = [replace(_sample(), sharp_rgb=None, defocused_rgb=pixels, lens=each) for each in own]
    config, lens = DataConfig(crop_px=32), LENS_PRESETS["dslr"]

    def told(samples):
        images = stack_pairs(samples, weight=1.0)
        crops = CropDataset([images], config, 1, 0, 20, lens)
        return {tuple(np.round(crops[i]["lens"].numpy(), 4)) for i in range(20)}, images

    seen, images = told(samples)
    assert seen == {tuple(np.round(np.float32(lens_vector(each)), 4)) for each in own}
    whole = WholeImages(images, lens)[1]["lens"]
    np.testing.assert_allclose(whole, lens_vector(own[1]), rtol=1e-6)
    # Where one does not say it, the recipe's is meant for all.
    seen, _ = told([samples[0], replace(samples[1], lens=None)])
    assert seen == {tuple(np.round(np.float32(lens_vector(lens)), 4))}


@pytest.mark.parametrize(
    ("changes", "spread"),
    [({}, 0.25), ({"kernel": "gaussian"}, 0.3), ({"preset": "soft-gaussian"}, 0.5)],
)
def test_a_picture_through_the_recipes_lens_is_told_how_far_it_spreads(tmp_path, changes, spread):
    """As evaluation tells it, whatever the point-spread function."""
    lens = LENS_PRESETS["nyu-2m"]
    source = SourceConfig("synthetic", "", count=1, size=(64, 96), **changes)
    images = open_source(source, lens, tmp_path)
    seen = CropDataset([images], DataConfig(crop_px=32), 1, 0, 1, lens)[0]["lens"]
    expected = (lens.px_per_dioptre * spread / 0.25, lens.focus_dioptre)
    np.testing.assert_allclose(seen.numpy(), expected, rtol=1e-5)


def replace_lenses(images):
    """The same pictures as a set that does not know its lens."""
    from ddfd_training.image_set import ImageSet

    return ImageSet(
        images.defocused_rgb, images.sharp_rgb, images.depth_m, images.sharp_known, images.frames
    )


FORMS = {
    "ddfd-lite": {"lens_input": True, "widths": [8, 8, 16, 16, 16]},
    "2hded": {"lens_input": True, "answer": "blur", "width": 0.25},
}


@pytest.mark.parametrize("name", list(FORMS))
def test_a_network_for_any_lens_trains_and_says_so_in_its_contract(tmp_path, name):
    config = TrainConfig(
        name="any",
        network=NetworkConfig(name, FORMS[name]),
        data=DataConfig(
            sources=(
                SourceConfig("synthetic", "", count=4, size=(96, 128), lenses=LensRanges(draws=2)),
            ),
            cache=str(tmp_path / "cache"),
            crop_px=64,
            batch_size=2,
            held_out=1,
        ),
        loss=LossConfig("ddfd"),
        steps=2,
        validate_every=2,
        save_every=1000,  # none but the last weights
        precision="32-true",
        threads=1,
    )
    path = train(config, tmp_path)
    network, contract = load_checkpoint(path)
    assert contract.network == name
    assert contract.inputs == ("image", "lens")
    assert {"depth_m", "sigma_m", "sharp_rgb"} <= set(contract.outputs)
    assert contract.lens_range == {
        "px_per_dioptre": (4.0, 28.0), "focus_distance_m": (0.7, 8.0)
    }  # fmt: skip
    assert ModelContract.from_json(contract.to_json()) == contract
    # The lens beside the image is what blur goes through.
    image = torch.rand(1, 3, 64, 64)
    other = lens_of(7.0, 1.0)
    with torch.no_grad():
        answer = network(image, lens=lens_tensor(other, image))
    expected = other.depth_m(answer["defocus_px"]).clamp(0.5, 10.0)
    torch.testing.assert_close(answer["depth_m"], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"lens: expected \[1, 2\]"):
        network(image, lens=torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"px_per_dioptre": (9.0, 4.0)}, "px_per_dioptre: expected 0 < low"),
        ({"gaussian_share": (0.5, 1.5)}, "gaussian_share: expected 0 <= low"),
        ({"draws": -1}, "expected draws"),
        ({"series": -1}, "and series from 0"),
        ({"soften_px": -0.5}, "expected draws, curvature_dioptre, soften_px and series"),
        ({"flat_share": 1.5}, "flat_share: expected a share"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LensRanges(**changes)


@pytest.mark.parametrize("name", list(FORMS))
def test_the_loss_falls_on_pictures_through_many_lenses(tmp_path, name):
    scenes = [_sample(i, depth_m=1.0 + i) for i in range(4)]
    images = photograph_all(scenes, LensRanges(draws=1), tmp_path, tag="t", key="", workers=1)
    crops = CropDataset(
        [images], DataConfig(crop_px=32, flip=0.0), 1, 0, 4, LENS_PRESETS["nyu-4m"]
    )
    items = [crops[i] for i in range(4)]
    batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    assert len(set(batch["lens"][:, 0].tolist())) > 1
    torch.manual_seed(2)
    config = TrainConfig(network=NetworkConfig(name, FORMS[name]))
    network = build_network(name, **network_options(config))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3 if name == "2hded" else 3e-3)
    totals = []
    for _ in range(12):
        terms = NAMED_LOSSES["ddfd"](*plain_step(network, batch, config))
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        totals.append(float(terms["total"].detach()))
    assert {"laplace_nll", "blur_nll", "dioptre_nll", "side_nll", "charbonnier"} <= set(terms)
    heads = (network.depth_decoder, network.sharp_decoder)
    told = [condition.outer for condition in network.conditions]  # of the lens
    for layer in (*(head.last if name == "2hded" else head.out for head in heads), *told):
        assert layer.weight.grad.abs().max() > 0
    assert np.mean(totals[-3:]) < 0.8 * totals[0]


@pytest.mark.parametrize(("name", "form"), [("ddfd-lite", {}), ("2hded", {"answer": "blur"})])
def test_a_network_for_one_lens_is_a_start_for_any(name, form):
    torch.manual_seed(0)
    one, any_lens = build_network(name, **form), build_network(name, **form, lens_input=True)
    _take_over(any_lens, one.state_dict(), "one.pt")
    image = torch.rand(1, 3, 64, 64)
    one.eval(), any_lens.eval()
    # The last layer answers other maps and starts anew; what it is given is the same.
    seen = {}
    for network in (one, any_lens):
        last = network.depth_decoder.last if name == "2hded" else network.depth_decoder.out
        last.register_forward_hook(lambda _, given, __, n=network: seen.update({n: given[0]}))
        with torch.no_grad():
            sharp = network(image)["sharp_rgb"]
        seen[network] = (seen[network], sharp)
    for ours, theirs in zip(seen[any_lens], seen[one], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.isfinite(any_lens(image)["depth_m"]).all()
    with pytest.raises(ValueError, match=r"init: expected weights .* \d+ tensors missing"):
        _take_over(any_lens, {}, "none.pt")


def test_weights_that_answer_metres_are_no_start_for_blur():
    blur = build_network("2hded", answer="blur")
    words = r"init: expected depth_decoder.last.weight to be \[2, 64, 3, 3\] in m.pt, got \[1, "
    with pytest.raises(ValueError, match=words):
        _take_over(blur, build_network("2hded").state_dict(), "m.pt")


def test_plain_2hded_is_trained_and_saved_as_ever():
    assert network_options(TrainConfig(network=NetworkConfig("2hded", {"stem": 7}))) == {"stem": 7}
    config = TrainConfig(network=NetworkConfig("2hded", {"answer": "blur"}))
    assert network_options(config) == {
        "answer": "blur", "lens": config.lens, "depth_range_m": config.depth_range_m
    }  # fmt: skip
