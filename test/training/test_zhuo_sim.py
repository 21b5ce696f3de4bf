"""Zhuo and Sim's defocus map: known blur at edges, the Laplacian's definition, the whole map."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ddfd_ros.core.thin_lens import LENS_PRESETS
from ddfd_training.zhuo_sim import (
    BlurToDepth,
    ZhuoSim,
    ZhuoSimOptions,
    calibrate,
    defocus_map_px,
    edge_blur_px,
    joint_bilateral,
    matting_laplacian,
    propagate,
)


def step_edge(sigma_px: float, height: int = 60, width: int = 120) -> np.ndarray:
    """A vertical step of 180 grey levels, blurred by a Gaussian."""
    image = np.full((height, width), 30.0, np.float32)
    image[:, width // 2 :] = 210.0
    blurred = cv2.GaussianBlur(image, (0, 0), sigma_px)
    return np.repeat(np.rint(blurred).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("sigma_px", [1.5, 2.5, 4.0])
def test_blur_at_an_edge_is_what_it_was_blurred_by(sigma_px: float) -> None:
    """Within 12 %: differences over two pixels and rounding to bytes widen it a little."""
    found, known = edge_blur_px(step_edge(sigma_px))
    assert known.sum() >= 40
    assert np.median(found[known]) == pytest.approx(sigma_px, rel=0.12)
    assert not found[~known].any()


def slow_laplacian(image: np.ndarray, epsilon: float) -> np.ndarray:
    """Levin's definition, window by window and pair by pair."""
    height, width = image.shape[:2]
    result = np.zeros((height * width, height * width))
    for row in range(height - 2):
        for column in range(width - 2):
            where = [(row + i) * width + column + j for i in range(3) for j in range(3)]
            colours = image.reshape(-1, 3)[where].astype(float) / 255
            mean = colours.mean(0)
            inverse = np.linalg.inv(np.cov(colours.T, bias=True) + epsilon / 9 * np.eye(3))
            for a, i in enumerate(where):
                for b, j in enumerate(where):
                    affinity = (1 + (colours[a] - mean) @ inverse @ (colours[b] - mean)) / 9
                    result[i, j] += float(i == j) - affinity
    return result


def test_matting_laplacian_is_levins() -> None:
    image = np.random.default_rng(0).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    found = matting_laplacian(image, 1e-3).toarray()
    np.testing.assert_allclose(found, slow_laplacian(image, 1e-3), atol=1e-9)
    np.testing.assert_allclose(found @ np.ones(30), 0, atol=1e-9)
    assert np.linalg.eigvalsh(found).min() > -1e-9


def test_propagation_solves_its_equation_and_stays_on_its_side() -> None:
    """The answer is that of a dense solver; each side of a colour edge keeps its own value."""
    image = np.zeros((14, 16, 3), np.uint8)
    image[:, 8:] = 220
    image += np.random.default_rng(1).integers(0, 6, image.shape, dtype=np.uint8)
    sparse, known = np.zeros((14, 16), np.float32), np.zeros((14, 16), bool)
    known[3, 2], known[10, 13] = True, True
    sparse[3, 2], sparse[10, 13] = 1.0, 3.0
    options = ZhuoSimOptions(epsilon=1e-4, iterations=5000)
    found = propagate(sparse, known, image, options)
    marks = np.diag(known.ravel() * options.fidelity)
    dense = np.linalg.solve(
        slow_laplacian(image, options.epsilon) + marks, marks @ sparse.ravel().astype(float)
    ).reshape(14, 16)
    np.testing.assert_allclose(found, np.clip(dense, 1, 3), atol=0.05)
    assert found[:, 10:].mean() - found[:, :6].mean() > 1.0


def test_the_filter_takes_out_an_outlier() -> None:
    """One wrong value among equals of the same colour moves most of the way to them."""
    image = np.full((30, 30, 3), 100, np.uint8)
    known = np.zeros((30, 30), bool)
    known[15, ::2] = True
    sparse = np.where(known, 2.0, 0.0).astype(np.float32)
    sparse[15, 14] = 6.0
    found = joint_bilateral(sparse, known, image, ZhuoSimOptions())
    assert found[15, 14] < 3.0
    assert not found[~known].any()


def test_map_of_two_blurs() -> None:
    """Stripes, the upper half blurred by 1.2 px and the lower by 3: the map tells them apart."""
    stripes = np.full((64, 96), 60.0, np.float32)
    for left in range(0, 96, 32):
        stripes[:, left : left + 16] = 200.0
    upper, lower = (cv2.GaussianBlur(stripes, (0, 0), s) for s in (1.2, 3.0))
    both = np.where(np.arange(64)[:, None] < 32, upper, lower)
    rgb = np.repeat(np.rint(both).astype(np.uint8)[..., None], 3, axis=2)
    # The image shows no border between the halves, so the edges' own estimates must count.
    found = defocus_map_px(rgb, ZhuoSimOptions(fidelity=50.0))
    assert np.median(found[4:24, 15::16]) == pytest.approx(1.43, abs=0.1)
    assert np.median(found[40:60, 15::16]) == pytest.approx(3.2, abs=0.4)
    assert found[4:24].mean() < found[40:60].mean() - 0.5


def test_an_image_without_edges_is_all_blur() -> None:
    found = defocus_map_px(np.full((20, 20, 3), 90, np.uint8))
    np.testing.assert_array_equal(found, ZhuoSimOptions().largest_px)


def test_calibration_finds_the_lens_again() -> None:
    """Blur made by a known ratio and rest comes back as depth; the model gives both heads."""
    lens = LENS_PRESETS["nyu-8m"]
    depth = np.random.default_rng(2).uniform(0.8, 6.0, 3000)
    sigma = np.sqrt((0.35 * lens.coc_px(depth)) ** 2 + 0.5**2)
    found = calibrate(sigma, depth, lens)
    assert found.ratio == pytest.approx(0.35, abs=0.02)
    assert found.rest_px == pytest.approx(0.5, abs=0.11)
    np.testing.assert_allclose(found.depth_m(sigma), depth, rtol=0.12)
    answer = ZhuoSim(BlurToDepth(lens, 0.3, 0.0)).infer(step_edge(2.0))
    expected = lens.depth_m(-np.abs(answer["defocus_px"].astype(float)))
    np.testing.assert_allclose(answer["depth_m"], np.clip(expected, 0.5, 10.0), rtol=1e-4)
