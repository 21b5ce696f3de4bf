"""Crops, mirror images and sizes keep image, depth and every truth together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ddfd_ros.core.errors import DatasetError
from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.config import DataConfig, SourceConfig
from ddfd_training.crops import CropDataset
from ddfd_training.datasets.sample import DepthOrder, RgbdSample
from ddfd_training.image_set import LazySet, to_item, to_tensors
from ddfd_training.prepared import Prepared
from ddfd_training.sources import open_source

HEIGHT, WIDTH = 40, 56


def coded(height: int = HEIGHT, width: int = WIDTH, kind: type = np.uint16) -> RgbdSample:
    """Every pixel says in every image which row and column it was."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([y, x, y * 0], -1).astype(kind)
    code = (1 + y * width + x).astype(np.float32)
    return RgbdSample(
        name="coded",
        depth_m=code,
        sharp_rgb=rgb + kind(1),
        defocused_rgb=rgb,
        defocus=code * 2,
        blurred=(x + y) % 2 == 0,
        dual_rgb=(rgb + kind(2), rgb + kind(3)),
        order=DepthOrder((12, 20), (15, 31), 1),
        sharp_known=(x % 3) != 0,
        lens=LENS_PRESETS["dslr"],
    )


def check(item: dict[str, torch.Tensor], width: int = WIDTH) -> None:
    """All that a crop holds belongs to the pixels that its image shows."""
    image = (item["image"] * 65535).round().long()
    y, x = image[0], image[1]
    code = 1 + y * width + x
    torch.testing.assert_close(item["depth_m"][0], code.float())
    torch.testing.assert_close(item["defocus"][0], 2.0 * code)
    assert torch.equal((item["sharp_rgb"] * 65535).round().long(), image + 1)
    assert torch.equal(item["sharp_known"][0], x % 3 != 0)
    assert torch.equal(item["blurred"][0] == 1, (x + y) % 2 == 0)
    mirrored = bool(x[0, 0] > x[0, -1])
    views = [(item[key] * 65535).round().long() for key in ("left_rgb", "right_rgb")]
    left, right = (view - image for view in views)
    assert (left == (3 if mirrored else 2)).all()
    assert (right == (2 if mirrored else 3)).all()
    if torch.isfinite(item["relation"]).all():
        for point, truth in zip(item["points_yx"][0].tolist(), ((12, 20), (15, 31)), strict=True):
            assert (int(y[tuple(point)]), int(x[tuple(point)])) == truth


def test_random_crops_of_a_coded_image():
    samples = [coded()]
    images = LazySet(samples, (0,), knows=("defocus", "blurred", "order", "dual"))
    crops = CropDataset([images], DataConfig(crop_px=24), seed=3, start=0, length=60)
    seen: set[tuple[bool, bool]] = set()
    for index in range(len(crops)):
        item = crops[index]
        check(item)
        assert item["image"].shape == (3, 24, 24)
        mirrored = bool(item["image"][1, 0, 0] > item["image"][1, 0, -1])
        seen.add((mirrored, bool(torch.isfinite(item["relation"]).all())))
    # mirrored and not, with both points inside and not: all four came up
    assert len(seen) == 4
    batch = torch.utils.data.default_collate([crops[0], crops[1]])
    assert batch["points_yx"].shape == (2, 1, 2, 2)
    assert batch["relation"].shape == (2, 1)


def test_sources_that_know_different_things_share_a_batch():
    plain = RgbdSample("plain", coded().depth_m, defocused_rgb=coded().defocused_rgb)
    sets = [
        LazySet([coded()], (0,), knows=("defocus", "order")),
        LazySet([plain], (0,), knows=("blurred",)),
    ]
    crops = CropDataset(sets, DataConfig(crop_px=32), seed=0, start=0, length=12)
    items = [crops[index] for index in range(12)]
    keys = {frozenset(item) for item in items}
    assert len(keys) == 1
    torch.utils.data.default_collate(items)
    known = [bool(torch.isfinite(item["defocus"]).all()) for item in items]
    assert set(known) == {True, False}
    for item, with_sharp in zip(items, known, strict=True):
        assert torch.isnan(item["blurred"]).all()
        assert bool(item["sharp_known"].any()) == with_sharp
    views = CropDataset(
        [LazySet([coded()], (0,), knows=("dual",)), LazySet([plain], (0,))],
        DataConfig(crop_px=32), seed=0, start=0, length=12,
    )  # fmt: skip
    with pytest.raises(DatasetError, match="dual-pixel views in every image"):
        [views[index] for index in range(12)]


def test_crop_and_mirror_undo_themselves():
    sample = coded()
    twice = sample.mirrored().mirrored()
    np.testing.assert_array_equal(twice.depth_m, sample.depth_m)
    assert twice.order == sample.order
    np.testing.assert_array_equal(twice.dual_rgb[0], sample.dual_rgb[0])
    with pytest.raises(ValueError, match="expected a crop inside"):
        sample.crop(30, 0, 11, 5)


@pytest.mark.parametrize(("size", "off_px"), [(16, 0.5), (22, 0.75), (128, 0.5)])
def test_a_resized_map_is_not_shifted_against_its_image(size, off_px):
    columns = np.arange(64)
    image = np.tile((4 * columns).astype(np.uint8)[None, :, None], (64, 1, 3))
    sample = RgbdSample("ramp", np.tile(columns.astype(np.float32), (64, 1)), sharp_rgb=image)
    small = sample.resized(size, size)
    inner = np.s_[:, 2:-2]
    difference = small.sharp_rgb[inner][..., 0] / 4 - small.depth_m[inner]
    assert np.abs(difference).max() <= off_px
    assert abs(difference.mean()) <= (0.5 if size == 16 else 0.3)


def test_resized_truth_stays_on_its_pixels():
    big = coded(80, 112)
    half = big.resized(40, 56, defocus_in_px=True)
    y, x = np.mgrid[:40, :56]
    # nearest: each pixel is one of the four that it covers
    depth = half.depth_m.astype(int) - 1
    assert (np.abs(depth // 112 - (2 * y + 0.5)) <= 0.5).all()
    assert (np.abs(depth % 112 - (2 * x + 0.5)) <= 0.5).all()
    np.testing.assert_allclose(half.defocus, half.depth_m)  # twice the code, half the pixels
    np.testing.assert_allclose(half.defocused_rgb[..., 0], 2 * y + 0.5, atol=0.6)
    assert half.defocused_rgb.dtype == np.uint16
    assert half.order.a == (6, 10)
    assert half.order.b == (7, 15)
    assert half.lens.pixel_pitch_m == pytest.approx(2 * big.lens.pixel_pitch_m)
    assert half.blurred.dtype == half.sharp_known.dtype == bool
    cut = Prepared([big], (40, 56), (20, 30))[0]
    np.testing.assert_array_equal(cut.depth_m, half.depth_m[10:30, 13:43])


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def test_folder_without_depth_trains_self_supervised(tmp_path: Path):
    """Pairs come 16 bit, registered by request, and with their lens."""
    rng = np.random.default_rng(1)
    for name in "abc":
        rough = rng.integers(0, 65535, (15, 20, 3)).astype(np.uint16)
        sharp = cv2.resize(rough, (80, 60), interpolation=cv2.INTER_CUBIC)
        _write(tmp_path / "sharp" / f"{name}.png", sharp)
        _write(tmp_path / "rgb" / f"{name}.png", cv2.GaussianBlur(sharp, (0, 0), 1.0))
    (tmp_path / "lens.json").write_text(
        '{"lens": {"focal_length_m": 0.05, "f_number": 2, "focus_distance_m": 1.5, '
        '"pixel_pitch_m": 1e-5}}'
    )
    source = SourceConfig(
        dataset="folder", root=str(tmp_path), split="all", options={"registered": True}
    )
    images = open_source(source, LENS_PRESETS["dslr"], tmp_path / "cache")
    assert isinstance(images, LazySet)
    assert images.samples[0].lens.f_number == 2
    item = images.item((1, slice(4, 36), slice(8, 40)))
    assert item["image"].dtype == np.uint16
    assert item["sharp_known"].all()
    assert np.isnan(item["depth_m"]).all()
    truth = cv2.imread(str(tmp_path / "sharp" / "b.png"), cv2.IMREAD_UNCHANGED)[4:36, 8:40, ::-1]
    np.testing.assert_array_equal(item["sharp_rgb"], truth)
    tensors = to_tensors(item)
    assert tensors["image"].max() <= 1
    np.testing.assert_allclose(tensors["sharp_rgb"][0] * 65535, truth[..., 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "frame_px", "lens_px", "refusal"),
    [
        ((), (), (80, 60), ""),
        ((), (), (160, 120), r"for, 160x120, got 80x60; give the source size: \[120, 160\]"),
        ((120, 160), (), (160, 120), ""),
        ((), (), (80, 80), "for, 80x80, got 80x60; calibrate with images as they are used"),
        ((), (90, 120), (120, 90), ""),  # cut by ddfd-prepare
        ((), (90, 120), (80, 60), r"for, 80x60, got 120x90; give the source size: \[40, 53\]"),
        ((40, 53), (90, 120), (80, 60), ""),
    ],
)
def test_photographs_have_the_size_that_the_recipes_lens_was_calibrated_for(
    tmp_path: Path, size, frame_px, lens_px, refusal
):
    """At another size the lens would blur by more or less pixels than they show."""
    image = np.random.default_rng(1).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    for kind in ("rgb", "sharp"):
        _write(tmp_path / kind / "a.png", image)
    if frame_px:
        report = json.dumps({"registered": True, "frame_px": frame_px})
        (tmp_path / "registration.json").write_text(report)
    source = SourceConfig(dataset="folder", root=str(tmp_path), split="all", size=size)
    lens = LENS_PRESETS["dslr"]

    def open_it(source: SourceConfig, **told: bool):
        return open_source(source, lens, tmp_path / "cache", lens_px=lens_px, **told)

    if not refusal:
        assert len(open_it(source).frames) == 1
        return
    for told in (False, True):
        with pytest.raises(DatasetError, match=refusal):
            open_it(source, told=told)
    named = dataclasses.replace(source, options={"lens": dataclasses.asdict(lens)})
    assert len(open_it(named, told=True).frames) == 1  # the recipe's lens is not theirs
    with pytest.raises(DatasetError, match=refusal):
        open_it(named)


def test_unregistered_pairs_are_laid_over_once_and_remembered(tmp_path: Path, monkeypatch):
    rng = np.random.default_rng(2)
    rough = rng.integers(0, 255, (30, 40, 3)).astype(np.uint8)
    scene = cv2.resize(rough, (200, 150), interpolation=cv2.INTER_CUBIC)
    _write(tmp_path / "rgb" / "a.png", cv2.GaussianBlur(scene, (0, 0), 1.5)[10:-10, 10:-10])
    _write(tmp_path / "sharp" / "a.png", scene[13:-7, 8:-12])
    source = SourceConfig(dataset="folder", root=str(tmp_path), split="all")
    images = open_source(source, LENS_PRESETS["dslr"], tmp_path / "cache")
    item = images.item(0)
    inner = np.s_[15:-15, 15:-15]
    truth = scene[10:-10, 10:-10].astype(float)
    assert np.abs(item["sharp_rgb"].astype(float) - truth)[inner].mean() < 3
    assert np.abs(scene[13:-7, 8:-12].astype(float) - truth)[inner].mean() > 15
    assert item["sharp_known"][inner].all()
    assert not item["sharp_known"][0].any()

    def forbidden(*_: object) -> None:
        raise AssertionError("registered a second time")

    monkeypatch.setattr("ddfd_training.lay_over.register", forbidden)
    again = open_source(source, LENS_PRESETS["dslr"], tmp_path / "cache").item(0)
    np.testing.assert_array_equal(again["sharp_rgb"], item["sharp_rgb"])


def test_depth_keeps_its_gaps_when_images_are_rendered(tmp_path: Path):
    rng = np.random.default_rng(3)
    _write(tmp_path / "rgb" / "a.png", rng.integers(0, 255, (48, 64, 3)).astype(np.uint8))
    depth = np.full((48, 64), 2000, np.uint16)
    depth[:20, :20] = 0
    _write(tmp_path / "depth" / "a.png", depth)
    source = SourceConfig(dataset="folder", root=str(tmp_path), split="all")
    item = open_source(source, LENS_PRESETS["nyu-8m"], tmp_path / "cache").item(0)
    assert np.isnan(item["depth_m"][:20, :20]).all()
    assert (item["depth_m"][20:] == 2).all()
    assert item["image"].std() < item["sharp_rgb"].std()
    with pytest.raises(DatasetError, match="options among"):
        open_source(SourceConfig(dataset="folder", root=str(tmp_path), options={"view": 1}),
                    LENS_PRESETS["dslr"], tmp_path)  # fmt: skip


def test_an_image_without_sharp_truth_says_so():
    samples: Sequence[RgbdSample] = [RgbdSample("x", coded().depth_m, coded().sharp_rgb)]
    item = to_item(samples[0])
    assert not item["sharp_known"].any()
    assert item["image"] is samples[0].sharp_rgb
