"""Rendered sets are kept, found again, and never mistaken for another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training import defocus_cache
from ddfd_training.datasets.base import ReadSequence, RgbdSample
from ddfd_training.defocus_cache import RenderSettings, load_or_render, render_sample
from ddfd_training.evaluate_items import Rendered
from ddfd_training.optics import render_defocus
from ddfd_training.sensor import Sensor

SETTINGS = RenderSettings(LENS_PRESETS["nyu-8m"])


class Pair(ReadSequence[RgbdSample]):
    """Two random scenes; ``key`` tells it from another pair."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __len__(self) -> int:
        return 2

    def read(self, index: int) -> RgbdSample:
        rng = np.random.default_rng([index, *self.key.encode()])
        depth_m = np.full((20, 24), 1.2 + index, np.float32)
        depth_m[3, 4] = np.nan
        rgb = rng.integers(0, 256, (20, 24, 3), np.uint8)
        return RgbdSample(name=f"{self.key}{index}", depth_m=depth_m, sharp_rgb=rgb)


class Deep(Pair):
    """The same scenes with 16 bits."""

    def read(self, index: int) -> RgbdSample:
        sample = super().read(index)
        assert sample.sharp_rgb is not None
        return replace(sample, sharp_rgb=sample.sharp_rgb.astype(np.uint16) * 257)


def test_rendered_once_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read back is what the renderer makes; the depth keeps its gap."""
    first = load_or_render(Pair("a"), SETTINGS, tmp_path, tag="t", workers=1)
    assert len(first) == 2
    assert np.isnan(first.depth_m[:, 3, 4]).all()
    sample = Pair("a")[1]
    rgb = torch.from_numpy(sample.sharp_rgb).permute(2, 0, 1)[None].float()
    wall_m = torch.full((1, 1, 20, 24), 2.2)
    expected = render_defocus(rgb, wall_m, SETTINGS.lens)[0].permute(1, 2, 0).numpy()
    assert np.abs(first.defocused_rgb[1] - expected).max() <= 0.501
    assert [path.name for path in tmp_path.iterdir()] == [
        f"t-{defocus_cache._fingerprint(Pair('a'), SETTINGS, '')}"
    ]
    monkeypatch.setattr(defocus_cache, "_render_all", None)
    again = load_or_render(Pair("a"), SETTINGS, tmp_path, tag="t")
    assert np.array_equal(again.defocused_rgb, first.defocused_rgb)


def test_a_stopped_render_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a folder that looks like a result."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(defocus_cache, "_render_into", stop)
    with pytest.raises(KeyboardInterrupt):
        load_or_render(Pair("a"), SETTINGS, tmp_path, tag="t")
    assert list(tmp_path.iterdir()) == []


def test_every_setting_and_every_set_has_a_cache_of_its_own() -> None:
    """Another lens, kernel, preset, noise or other frames are other pictures."""
    changes = {
        "lens": LENS_PRESETS["nyu-2m"],
        "kernel": "blend",
        "layer_step_m": 0.1,
        "sigma_per_diameter": 0.4,
        "gaussian_share": 0.2,
        "preset": "syndof",
        "sensor": Sensor(jpeg_quality=90),
    }
    settings = [SETTINGS, *(replace(SETTINGS, **{k: v}) for k, v in changes.items())]
    marks = {defocus_cache._fingerprint(Pair("a"), each, "") for each in settings}
    marks |= {defocus_cache._fingerprint(Pair("b"), SETTINGS, "")}
    marks |= {defocus_cache._fingerprint(Pair("a"), SETTINGS, "other")}
    assert len(marks) == len(changes) + 3


def test_pictures_by_gaussians_that_spread_too_little_are_not_taken_for_new_ones() -> None:
    """Disks and the published codes' Gaussians did not change, and keep their cache."""

    def mark(settings: RenderSettings) -> str:
        return defocus_cache._fingerprint(Pair("a"), settings, "")

    before = {  # names that the version before gave
        "disk": "c457b9c2f0c8",
        "gaussian": "8e6c22b7d114",
        "blend": "8d0d8f73b9f6",
    }
    presets = {
        "d3net-code": "d3c9eecf794c",
        "syndof": "26e829f76acb",
        "soft-gaussian": "198f73572e35",
    }
    same = {k for k, name in before.items() if mark(replace(SETTINGS, kernel=k)) == name}
    same |= {k for k, name in presets.items() if mark(replace(SETTINGS, preset=k)) == name}
    assert same == {"disk", "d3net-code", "syndof"}


def test_16_bit_pictures_are_kept_as_the_8_bit_ones_they_are_shown_as(tmp_path: Path) -> None:
    """Not white: 65535 is full there, and 8 bits are what a network sees."""
    kept = [
        load_or_render(pair, SETTINGS, tmp_path, tag=tag, workers=1)
        for tag, pair in (("8", Pair("a")), ("16", Deep("a")))
    ]
    assert np.array_equal(kept[1].defocused_rgb, kept[0].defocused_rgb)
    assert np.array_equal(kept[1].sharp_rgb, kept[0].sharp_rgb)
    items = Rendered(Deep("a"), SETTINGS, str(tmp_path), "16", None, fill=False)
    assert items[0].sharp_rgb is not None
    assert np.array_equal(items[0].sharp_rgb, kept[0].sharp_rgb[0])


def test_noise_belongs_to_the_frame() -> None:
    """The same whenever it is rendered, another in another frame."""
    noisy = replace(SETTINGS, sensor=Sensor(read_noise=5.0))
    clean = [render_sample(Pair("a")[i], SETTINGS).astype(int) for i in range(2)]
    noise = [render_sample(Pair("a")[i], noisy) - clean[i] for i in range(2)]
    assert np.array_equal(noise[0], render_sample(Pair("a")[0], noisy) - clean[0])
    assert not np.array_equal(noise[0], noise[1])
    assert noise[0].std() == pytest.approx(5.0, rel=0.1)
