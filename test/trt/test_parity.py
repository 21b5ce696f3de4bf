"""The yardstick itself: differences, tolerances, and what is no number."""

from __future__ import annotations

import numpy as np
import pytest

from ddfd_ros.core.errors import InferenceError
from ddfd_trt.parity import ErrorCollector, compare_outputs


def plane(value=2.0):
    return np.full((10, 20), value, np.float32)


def test_equal_answers_pass_with_zero_error():
    (error,) = compare_outputs({"depth_m": plane()}, {"depth_m": plane()})
    assert (error.mean, error.p99, error.maximum, error.beyond) == (0, 0, 0, 0)
    assert error.passed
    assert error.unit == "m"


def test_statistics_are_those_of_the_absolute_difference():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1e-3, (10, 20)).astype(np.float32)
    (error,) = compare_outputs({"depth_m": plane()}, {"depth_m": plane() + noise})
    difference = np.abs((plane() + noise).astype(np.float64) - 2.0)
    assert error.mean == pytest.approx(difference.mean(), rel=1e-4)
    assert error.maximum == pytest.approx(difference.max(), rel=1e-4)
    assert np.sort(difference.ravel())[-3] <= error.p99 * 1.0001 <= difference.max() * 1.001
    assert error.beyond == pytest.approx((difference > 1e-3 + 1e-3 * 2.0).mean())


@pytest.mark.parametrize(("offset", "passed"), [(2.9e-3, True), (3.1e-3, False)])
def test_the_tolerance_is_absolute_plus_relative(offset, passed):
    (error,) = compare_outputs({"depth_m": plane()}, {"depth_m": plane() + np.float32(offset)})
    assert error.passed is passed
    assert error.beyond == (0.0 if passed else 1.0)
    (wider,) = compare_outputs({"depth_m": plane()}, {"depth_m": plane() + np.float32(offset)}, 2)
    assert wider.passed


def test_bytes_do_not_wrap_around():
    dark, light = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    for expected, got in ((dark, light), (light, dark)):
        (error,) = compare_outputs({"sharp_rgb": expected}, {"sharp_rgb": got})
        assert error.maximum == 255
    (neighbour,) = compare_outputs({"sharp_rgb": light}, {"sharp_rgb": light - 1})
    assert neighbour.passed
    (two,) = compare_outputs({"sharp_rgb": light}, {"sharp_rgb": light - 2})
    assert not two.passed


def test_a_fraction_may_be_allowed():
    got = plane()
    got[0, :2] += 1  # 2 of 200 values
    wanted = {"depth_m": plane()}
    assert not compare_outputs(wanted, {"depth_m": got}, allowed=0.009)[0].passed
    assert compare_outputs(wanted, {"depth_m": got}, allowed=0.01)[0].passed


@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_one_sided_non_numbers_fail_and_shared_ones_agree(strange):
    odd = plane()
    odd[3, 3] = strange
    for expected, got in ((plane(), odd), (odd, plane())):
        (error,) = compare_outputs({"depth_m": expected}, {"depth_m": got})
        assert not error.passed
        assert error.maximum == np.inf
        assert error.beyond == pytest.approx(1 / 200)
    assert compare_outputs({"depth_m": odd}, {"depth_m": odd.copy()})[0].passed


def test_images_of_several_sizes_are_gathered():
    collector = ErrorCollector()
    collector.add({"sigma_m": plane()}, {"sigma_m": plane()})
    collector.add({"sigma_m": plane()[:5]}, {"sigma_m": plane(4.0)[:5]})
    (error,) = collector.results()
    assert error.beyond == pytest.approx(100 / 300)
    assert error.mean == pytest.approx(2 / 3)


def test_missing_heads_and_other_shapes_are_refused():
    with pytest.raises(InferenceError, match="depth_m: expected an answer of shape .* nothing"):
        compare_outputs({"depth_m": plane()}, {})
    with pytest.raises(InferenceError, match=r"got \(9, 20\)"):
        compare_outputs({"depth_m": plane()}, {"depth_m": plane()[:9]})
