"""Frames on their way to the camera stream: resized with their lens, blurred, stored."""

from __future__ import annotations

import numpy as np
import pytest

from ddfd_demo.errors import InputError
from ddfd_demo.prepare import blur, prepare, scale_to_model
from ddfd_demo.sources.base import DemoFrame, Intrinsics, Source, SourceInfo
from ddfd_demo.sources.builtin import motorcycle_depth_m
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
