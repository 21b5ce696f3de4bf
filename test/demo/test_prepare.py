"""Frames on their way to the camera stream: resized with their lens, blurred, stored."""

from __future__ import annotations

import numpy as np
import pytest

from ddfd_demo.errors import InputError
from ddfd_demo.prepare import blur, prepare, scale_to_model
from ddfd_demo.sources.base import DemoFrame, Intrinsics, Source, SourceInfo
from ddfd_demo.sources.builtin import BuiltinSource, motorcycle_depth_m
from ddfd_demo.spool import Spool
from ddfd_ros.core.thin_lens import LENS_PRESETS, LensConfig

LENS = LensConfig(15e-3, 2.8, 2.0, 5.6e-6)


class Listed(Source):
    def __init__(self, info, frames):
        super().__init__(info)
        self._frames = frames

    def __len__(self):
        return len(self._frames)

    def frames(self):
        yield from self._frames


def test_known_lens_is_brought_to_the_models_pixel_pitch():
    """The DSLR outdoors has twice the pixels; the same blur must have the same size in pixels."""
    indoor = LENS_PRESETS["dslr"]
    outdoor = indoor.scaled(2.0)
    scale, why = scale_to_model(1290, 864, outdoor, indoor)
    assert scale == pytest.approx(0.5)
    assert "1290x864" in why
    assert outdoor.scaled(scale).coc_px(4.0) == pytest.approx(indoor.coc_px(4.0))


@pytest.mark.parametrize(
    ("width", "height", "lens", "expected"),
    [
        (640, 480, None, 1.0),
        (1000, 700, None, 1.0),
        (4000, 3000, None, 0.16),
        (645, 432, LENS, 1.0),
    ],
)
def test_unknown_lenses_are_left_alone_unless_huge(width, height, lens, expected):
    scale, why = scale_to_model(width, height, lens, LENS)
    assert scale == pytest.approx(expected)
    assert (why is None) == (expected == 1.0)


def test_resizing_keeps_rays():
    """A pixel centre sees in the same direction before and after (centres on integers)."""
    before = Intrinsics(500.0, 510.0, 319.5, 239.5)
    after = before.scaled(0.5)
    # Pixel 10 of the small image covers pixels 20 and 21 of the large one: its centre is 20.5.
    assert (10 - after.cx) / after.fx == pytest.approx((20.5 - before.cx) / before.fx)
    assert (7 - after.cy) / after.fy == pytest.approx((14.5 - before.cy) / before.fy)


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.7, 2.3])
def test_resized_depth_stays_at_its_pixels(scale):
    """Depth that is its own column tells from where each pixel was taken."""
    columns = np.tile(np.arange(960, dtype=np.float32), (32, 1))
    picture = np.zeros((32, 960, 3), np.uint8)
    depth_m = DemoFrame("x", picture, None, columns).resized(scale).depth_m
    width = depth_m.shape[1]
    wanted = (np.arange(width) + 0.5) * 960 / width - 0.5
    assert abs(np.mean(depth_m[0] - wanted)) * width / 960 < 0.15
    assert np.abs(depth_m[0] - wanted).max() <= 0.5 + 1e-3


def test_blur_is_none_at_focus_and_grows_away_from_it():
    rng = np.random.default_rng(1)
    sharp = rng.integers(0, 256, (64, 64, 3), np.uint8)

    def contrast(distance_m):
        depth_m = np.full((64, 64), distance_m, np.float32)
        return float(blur(DemoFrame("x", None, None, depth_m, sharp), LENS).image_rgb.std())

    in_focus = blur(DemoFrame("x", None, None, np.full((64, 64), 2.0, np.float32), sharp), LENS)
    np.testing.assert_allclose(in_focus.image_rgb, sharp, atol=1)
    assert contrast(2.0) > 1.5 * contrast(3.0) > 1.5 * contrast(6.0)


def test_blur_needs_a_lens():
    frame = DemoFrame("x", None, None, np.ones((32, 32)), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="contract names the lens"):
        blur(frame, None)


def test_prepare_keeps_order_and_says_what_it_did(tmp_path):
    images = [np.full((60, 80, 3), i, np.uint8) for i in range(7)]
    frames = [DemoFrame(str(i), image) for i, image in enumerate(images)]
    info = SourceInfo("folder", "seven", "wait")
    done = []
    spool = Spool(tmp_path)
    prepared = prepare(
        Listed(info, frames), spool, LENS, scale=0.5, progress=lambda n, name: done.append(name)
    )
    assert (prepared.count, done) == (7, [str(i) for i in range(7)])
    assert prepared.notes == ("80x60 pictures scaled by 0.5 (--scale)",)
    assert [int(f.image_rgb()[0, 0, 0]) for f in spool.frames()] == list(range(7))
    assert spool.frames()[0].image_rgb().shape == (32, 40, 3)  # never below 32 pixels


def test_prepare_cuts_what_does_not_fit_and_says_so(tmp_path):
    frames = [DemoFrame(str(i), np.zeros((64, 64, 3), np.uint8)) for i in range(5)]
    spool = Spool(tmp_path, max_bytes=150_000)
    prepared = prepare(Listed(SourceInfo("folder", "five", "wait"), frames), spool, LENS)
    assert prepared.count == 2
    assert "cut after 2 of 5" in prepared.notes[0]


@pytest.mark.parametrize(
    ("any_lens", "scale", "width", "pitch_m"),
    [
        (False, None, 160, 36e-6),  # brought to the model's pitch
        (True, None, 80, 72e-6),  # such a model takes the pictures as they are, with their lens
        (True, 0.5, 40, 144e-6),
    ],
)
def test_prepare_says_which_lens_took_the_pictures(tmp_path, any_lens, scale, width, pitch_m):
    model_lens = LENS_PRESETS["dslr"]
    info = SourceInfo("folder", "one", "wait", lens=model_lens.scaled(0.5))
    source = Listed(info, [DemoFrame("x", np.zeros((80, 80, 3), np.uint8))])
    spool = Spool(tmp_path)
    prepared = prepare(source, spool, model_lens, any_lens=any_lens, scale=scale)
    assert spool.frames()[0].image_rgb().shape == (width, width, 3)
    assert prepared.lens.pixel_pitch_m == pytest.approx(pitch_m)
    assert prepared.lens.f_number == model_lens.f_number


def test_prepare_knows_the_lens_it_simulated_and_no_other(tmp_path):
    sharp = np.zeros((32, 32, 3), np.uint8)
    rendered = DemoFrame("a", None, depth_m=np.ones((32, 32), np.float32), sharp_rgb=sharp)
    plain = DemoFrame("b", sharp)
    info = SourceInfo("builtin", "both", "stream")
    assert prepare(Listed(info, [plain, rendered]), Spool(tmp_path / "a"), LENS).lens == LENS
    assert prepare(Listed(info, [plain]), Spool(tmp_path / "b"), LENS).lens is None


@pytest.mark.parametrize(("limit", "rendered"), [(1, 1), (3, 1), (6, 1), (8, 3)])
def test_builtin_gives_no_more_frames_than_asked_for(limit, rendered):
    source = BuiltinSource(limit)
    names = [frame.name for frame in source.frames()]
    assert len(names) == len(source) == limit
    assert sum(name.startswith("rendered") for name in names) == rendered


def test_prepare_refuses_an_empty_input(tmp_path):
    with pytest.raises(InputError, match="at least one frame"):
        prepare(Listed(SourceInfo("video", "nothing", "stream"), []), Spool(tmp_path), LENS)


def test_motorcycle_distances_are_those_of_the_calibration():
    """Middlebury's documentation gives f, baseline and doffs; scikit-image's the scaled values."""
    disparity = np.array([[7.19, 62.0, np.inf]], np.float32)
    depth_m = motorcycle_depth_m(disparity)
    assert depth_m[0, 0] == pytest.approx(994.978 * 193.001 / (7.19 + 31.086) / 1000, rel=1e-6)
    assert 2.0 < depth_m[0, 1] < 2.1
    assert np.isnan(depth_m[0, 2])
