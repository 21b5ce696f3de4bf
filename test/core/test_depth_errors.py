"""Running depth errors against loops and known distributions; matching by stamps."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from ddfd_ros.core.depth_errors import ComparisonError, RunningErrors, resample
from ddfd_ros.core.preprocessing import Intrinsics
from ddfd_ros.core.rays import Optics
from ddfd_ros.core.stamp_matching import StampMatcher


def camera(width, height, fx, cx, cy):
    k = (fx, 0.0, cx, 0.0, fx, cy, 0.0, 0.0, 1.0)
    return Intrinsics(width, height, k, (*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0))


def test_errors_are_those_of_a_loop():
    rng = np.random.default_rng(1)
    frames = []
    running = RunningErrors([1.0, 2.0, 5.0], 10)
    for _ in range(3):
        reference = rng.uniform(0.5, 6.0, (13, 17)).astype(np.float32)
        ours = (reference * rng.uniform(0.7, 1.5, reference.shape)).astype(np.float32)
        sigma = rng.uniform(0.05, 0.5, reference.shape).astype(np.float32)
        ours[0, :4] = [np.nan, np.inf, -np.inf, 0.0]
        reference[1, :3] = [np.nan, np.inf, 0.0]
        sigma[2, 0] = np.nan
        running.add(ours, reference, sigma)
        frames.append((ours, reference, sigma))
    for low, high, errors in running.by_distance():
        squares, biases, relatives, ratios, ones = [], [], [], [], []
        for ours, reference, sigma in frames:
            for o, r, s in zip(ours.flat, reference.flat, sigma.flat, strict=True):
                o, r, s = float(o), float(r), float(s)
                if not (math.isfinite(o) and math.isfinite(r)) or o <= 0 or not low <= r < high:
                    continue
                squares.append((o - r) ** 2)
                biases.append(o - r)
                relatives.append(abs(o - r) / r)
                ratios.append(max(o / r, r / o) < 1.25)
                if not math.isnan(s):
                    ones.append(abs(o - r) <= s)
        assert errors.pixels == len(squares)
        assert errors.rms_m == pytest.approx(math.sqrt(sum(squares) / len(squares)))
        assert errors.bias_m == pytest.approx(sum(biases) / len(biases))
        assert errors.abs_rel == pytest.approx(sum(relatives) / len(relatives))
        assert errors.delta1 == pytest.approx(sum(ratios) / len(ratios))
        assert errors.within_1_sigma == pytest.approx(sum(ones) / len(ones))
    known = [
        np.isfinite(ours) & (ours > 0) & np.isfinite(ref) & (ref > 0) for ours, ref, _ in frames
    ]
    assert running.total().pixels == sum(int(one.sum()) for one in known)


def test_normal_errors_with_an_honest_sigma_are_covered_as_they_should():
    rng = np.random.default_rng(2)
    reference = np.full((400, 500), 3.0)
    sigma = rng.uniform(0.01, 0.2, reference.shape)
    running = RunningErrors([1, 5], 1)
    running.add(reference + sigma * rng.normal(size=reference.shape), reference, sigma)
    assert running.total().within_1_sigma == pytest.approx(0.6827, abs=0.005)
    assert running.total().within_2_sigma == pytest.approx(0.9545, abs=0.003)


def test_recent_errors_forget():
    running = RunningErrors([0.5, 5], 2)
    plane = np.full((4, 4), 2.0)
    for offset in (1.0, 0.1, 0.1):
        running.add(plane + offset, plane)
    assert running.recent().bias_m == pytest.approx(0.1)
    assert running.total().bias_m == pytest.approx(0.4)
    assert math.isnan(running.total().within_1_sigma)
    assert running.frames == 3


def test_nothing_in_common_is_not_zero():
    running = RunningErrors([0.5, 5], 2)
    running.add(np.full((4, 4), np.nan), np.full((4, 4), 2.0))
    assert running.total().pixels == 0
    assert math.isnan(running.total().rms_m)


def test_what_is_beyond_the_bins_counts_in_the_total():
    running = RunningErrors([0.5, 12.0], 2)
    reference = np.full((4, 4), 15.0)
    reference[0] = 0.25
    reference[1, 0] = 12.0  # a bin ends before its upper bound
    running.add(reference + 0.1, reference)
    assert [errors.pixels for *_, errors in running.by_distance()] == [0]
    for errors in (running.total(), running.recent()):
        assert errors.pixels == 16
        assert errors.rms_m == pytest.approx(0.1)


@pytest.mark.parametrize("edges", [(1.0,), (1.0, 1.0), (2.0, 1.0)])
def test_bounds_must_increase(edges):
    with pytest.raises(ComparisonError, match="increasing"):
        RunningErrors(edges, 5)


def looking(width, height, fx, cx, cy, **changes):
    return Optics(camera(width, height, fx, cx, cy), **changes)


def slanted(optics):
    """The depth that a camera sees of the plane z + 0.3 X - 0.2 Y = 2, by OpenCV's rays."""
    cam = optics.camera
    pixels = np.stack(np.meshgrid(np.arange(cam.width), np.arange(cam.height)), axis=-1)
    pixels = pixels.astype(np.float64).reshape(-1, 1, 2)
    matrix = cam.p if optics.rectified else cam.k
    k = np.array(matrix).reshape(3, -1)[:, :3]
    d = np.array(() if optics.rectified else optics.distortion, np.float64)
    if optics.model == "equidistant" and not optics.rectified:
        x, y = cv2.fisheye.undistortPoints(pixels, k, d).reshape(-1, 2).T
    else:
        x, y = cv2.undistortPoints(pixels, k, d).reshape(-1, 2).T
    return (2.0 / (1.0 + 0.3 * x - 0.2 * y)).reshape(cam.height, cam.width)


PLUMB = {"model": "plumb_bob", "distortion": (-0.2, 0.05, 1e-3, -2e-3, 0.0)}
RATIONAL = {
    "model": "rational_polynomial",
    "distortion": (0.1, 0.02, 1e-3, 0.0, 0.0, 0.2, 0.03, 0.0),
}
FISHEYE = {"model": "equidistant", "distortion": (0.05, -0.01, 0.002, 0.0)}


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("of_ours", [{}, PLUMB, FISHEYE])
@pytest.mark.parametrize("of_other", [{}, PLUMB, RATIONAL, FISHEYE, PLUMB | {"rectified": True}])
def test_resampling_a_slanted_plane(stride, of_ours, of_other):
    """Two cameras at one place look at a plane; each sees the depth that geometry says."""
    ours = looking(64, 48, 60.0, 31.5, 23.5, **of_ours)
    other = looking(160, 120, 155.0, 82.0, 57.0, **of_other)
    got = resample(slanted(other), other, ours, stride)
    wanted = slanted(ours)[::stride, ::stride]
    assert got.shape == wanted.shape
    seen = np.isfinite(got)
    assert seen.mean() > 0.75
    np.testing.assert_allclose(got[seen], wanted[seen], rtol=3e-3)  # half a pixel's slope


def test_what_the_reference_does_not_see_is_unknown():
    wide, other = looking(64, 48, 20.0, 31.5, 23.5), looking(160, 120, 155.0, 82.0, 57.0)
    got = resample(slanted(other), other, wide)
    half_angle = 82.0 / 155.0
    assert np.isnan(got[24, : int(31.5 - 20 * half_angle) - 1]).all()
    assert np.isfinite(got[24, 31])


def test_a_distortion_that_turns_back_shows_nothing_twice():
    """The radius r (1 - 0.3 r^2) is greatest at r = 1.05; what lies beyond would fold back."""
    wide = looking(400, 300, 60.0, 199.5, 149.5)
    bent = looking(
        160, 120, 155.0, 82.0, 57.0, model="plumb_bob", distortion=(-0.3, 0.0, 0.0, 0.0)
    )
    got = resample(np.full((120, 160), 2.0), bent, wide)
    v, u = np.mgrid[:300, :400]
    beyond = np.hypot((u - 199.5) / 60.0, (v - 149.5) / 60.0) > 1.06
    assert np.isnan(got[beyond]).all()
    assert np.isfinite(got[150, 200])


def test_the_nearest_stamp_is_taken_once_it_is_known():
    matcher = StampMatcher(0.03)
    assert matcher.add_reference(0, "r0") == []
    assert matcher.add_ours(20_000_000, "a") == []  # r1 may be nearer
    assert matcher.add_reference(33_000_000, "r1") == [("a", "r1", pytest.approx(0.013))]
    assert matcher.add_ours(30_000_000, "b") == [("b", "r1", pytest.approx(0.003))]
    assert matcher.add_ours(100_000_000, "c") == []
    assert matcher.add_reference(200_000_000, "r2") == []  # 67 and 100 ms away
    assert matcher.unmatched == 1


def test_exact_stamps_match_at_once_and_time_may_begin_anew():
    matcher = StampMatcher(0.0)
    second = 10**9
    matcher.add_reference(50 * second, "r")
    assert matcher.add_ours(50 * second, "a") == [("a", "r", 0.0)]
    assert matcher.add_ours(51 * second, "old") == []
    assert matcher.add_ours(1 * second, "b") == []
    assert matcher.add_reference(1 * second, "r1") == [("b", "r1", 0.0)]


def test_a_missing_reference_does_not_pile_up():
    matcher = StampMatcher(0.01)
    for number in range(1000):
        matcher.add_ours(number * 33_000_000, number)
    assert 900 < matcher.unmatched < 1000


def test_answers_that_lag_behind_a_fast_reference_find_it():
    """90 images a second, ours every fifth of a second and 0.8 s late: 72 lie in between."""
    matcher = StampMatcher(0.02)
    events = [(t / 90, "reference", t / 90) for t in range(900)]
    events += [(t / 5 + 0.8, "ours", t / 5) for t in range(45)]
    pairs = []
    for _, stream, stamp_s in sorted(events):
        add = matcher.add_ours if stream == "ours" else matcher.add_reference
        pairs += add(round(stamp_s * 1e9), stamp_s)
    assert len(pairs) == 45
    assert matcher.unmatched == 0
    assert all(ours == pytest.approx(reference) for ours, reference, _ in pairs)


class _Image:
    """A message of 16 MiB."""

    data = bytes(1 << 24)


def test_what_is_kept_of_the_reference_has_an_end():
    many, large = StampMatcher(0.02), StampMatcher(0.02)
    for number in range(1000):
        many.add_reference(number * 10**7, "r")
        large.add_reference(number * 10**7, _Image)
    assert len(many._reference) == 501  # 5 s of 10 ms
    assert len(large._reference) == 16  # 256 MiB
    many.add_ours(9_900_000_000, "a")
    assert len(many._reference) == 110  # a second before ours


def test_what_is_kept_of_ours_while_the_reference_is_silent_has_an_end():
    many, large = StampMatcher(0.02), StampMatcher(0.02)
    for number in range(100):
        many.add_ours(number * 10**8, "o")
        large.add_ours(number * 10**8, _Image)
    assert len(many._ours) == 60
    assert len(large._ours) == 16  # 256 MiB
    assert large.unmatched == 84
    assert len(large.add_reference(99 * 10**8, "r")) == 1
