"""The part of the image that the network sees, against a pattern projected by the camera."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.preprocessing import Intrinsics
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.core.types import Estimate
from ddfd_ros.core.view import View, ViewOptions, plan_view

pytest.importorskip("cv2")

LENS = LensConfig(15e-3, 2.8, 8.0, 6e-6)
HEIGHT, WIDTH = 240, 320
K = (400.0, 0.0, 163.0, 0.0, 410.0, 115.0, 0.0, 0.0, 1.0)
P = (390.0, 0.0, 161.0, 0.0, 0.0, 400.0, 117.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CAMERA = Intrinsics(WIDTH, HEIGHT, K, P)


def contract(lens=LENS, height=None, width=None):
    return ModelContract(
        1, "table", {}, 1, height, width, 1, ("depth_m",), 0.5, 10.0, lens, {}, {}, ""
    )


VIEWS = {
    "as it is": (contract(), ViewOptions()),
    "half": (contract(), ViewOptions(pixel_pitch_m=3e-6)),
    "odd scale": (contract(), ViewOptions(pixel_pitch_m=4.37e-6)),
    "enlarged": (contract(), ViewOptions(pixel_pitch_m=9.1e-6)),
    "cropped": (contract(height=160, width=224), ViewOptions()),
    "scaled and cropped": (contract(), ViewOptions(4.5e-6, height=128, width=160)),
    "letter-boxed": (contract(height=96, width=192), ViewOptions(6e-6, oversize="letterbox")),
}


def _dots(camera, points_m):
    """A picture of the points through the camera: a smooth dot at each pinhole projection."""
    fx, _, cx, _, fy, cy, *_ = camera.k
    rows, columns = np.mgrid[0 : camera.height, 0 : camera.width]
    picture = np.zeros((camera.height, camera.width))
    for x, y, z in points_m:
        u, v = fx * x / z + cx, fy * y / z + cy
        picture += np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 4.0**2))
    return np.repeat(np.rint(250 * picture).astype(np.uint8)[..., None], 3, axis=2)


def _centre(picture, u, v, radius):
    """Centre of mass of the dot near (u, v)."""
    rows, columns = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    near = (columns - u) ** 2 + (rows - v) ** 2 < radius**2
    weight = picture[..., 0] * near
    return (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()


@pytest.mark.parametrize("name", VIEWS)
def test_the_camera_of_the_view_sees_the_projected_pattern(name):
    """Dots projected by K, then scaled and cropped as pixels, lie where the view's K puts them."""
    points_m = [(x, y, 2.0) for x in (-0.3, 0.0, 0.3) for y in (-0.25, 0.05, 0.25)]
    view = plan_view(HEIGHT, WIDTH, *VIEWS[name])
    picture = view.to_network(_dots(CAMERA, points_m))
    camera = view.network_camera(CAMERA)
    assert picture.shape[:2] == (camera.height, camera.width) == (view.height, view.width)
    fx, _, cx, _, fy, cy, *_ = camera.k
    seen = 0
    for x, y, z in points_m:
        u, v = fx * x / z + cx, fy * y / z + cy
        radius = 14 * view.scale
        if radius < u < camera.width - radius and radius < v < camera.height - radius:
            seen += 1
            assert math.dist(_centre(picture, u, v, radius), (u, v)) < 0.05
    assert seen >= 4
    # P is another matrix that moves in the same way: both see a pixel's corner at the same place.
    for old, new in ((CAMERA.p[0], camera.p[0]), (CAMERA.k[0], camera.k[0])):
        assert new / old == pytest.approx(view.scales[0])
    assert camera.p[2] + 0.5 + view.left == pytest.approx((CAMERA.p[2] + 0.5) * view.scales[0])
    assert camera.p[6] + 0.5 + view.top == pytest.approx((CAMERA.p[6] + 0.5) * view.scales[1])


@pytest.mark.parametrize("name", VIEWS)
def test_answers_come_back_to_the_pixels_they_belong_to(name):
    view = plan_view(HEIGHT, WIDTH, *VIEWS[name])
    numbers = np.arange(view.height * view.width, dtype=np.float32)
    plane = 1 + numbers.reshape(view.height, view.width)
    colour = np.full((view.height, view.width, 3), 200, np.uint8)
    estimate = view.to_input(Estimate(plane, colour, plane / 2, plane / 4))
    assert estimate.depth_m.shape == (HEIGHT, WIDTH)
    assert estimate.sharp_rgb.shape == (HEIGHT, WIDTH, 3)
    scale_x, scale_y = view.scales
    for row in range(0, HEIGHT, 7):
        for column in range(0, WIDTH, 5):
            # The network's pixel in which this pixel's centre lies.
            y = (row + 0.5) * scale_y - view.top
            x = (column + 0.5) * scale_x - view.left
            got = estimate.depth_m[row, column]
            if 0 <= y < view.height and 0 <= x < view.width:
                if min(y % 1, x % 1, 1 - y % 1, 1 - x % 1) < 1e-6:
                    continue  # on the border of two
                assert got == plane[int(y), int(x)]
                assert estimate.sigma_m[row, column] == got / 2
                assert estimate.defocus_px[row, column] * view.scale == pytest.approx(got / 4)
            elif not (-1 < y < view.height + 1 and -1 < x < view.width + 1):
                assert np.isnan(got)
                assert estimate.sharp_rgb[row, column].max() == 0


def test_scaling_makes_the_blur_the_models_own():
    """A camera of half the pitch sees twice the blur in pixels; scaled, it is the model's."""
    camera = LensConfig(15e-3, 2.8, 8.0, 3e-6)
    view = plan_view(HEIGHT, WIDTH, contract(), ViewOptions(pixel_pitch_m=3e-6))
    assert (view.height, view.width) == (HEIGHT // 2, WIDTH // 2)
    for depth_m in (0.7, 2.0, 6.0):
        assert camera.coc_px(depth_m) * view.scale == pytest.approx(LENS.coc_px(depth_m))
    scaled = camera.scaled(view.scale)
    assert scaled.pixel_pitch_m == pytest.approx(LENS.pixel_pitch_m)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (contract(), ViewOptions()),
        (contract(), ViewOptions(pixel_pitch_m=6.1e-6)),  # closer than resampling is worth
        (contract(lens=None), ViewOptions(pixel_pitch_m=3e-6)),  # no lens to scale to
        (contract(height=480, width=640), ViewOptions()),  # smaller: the backend pads
    ],
)
def test_nothing_is_scaled_without_need(model, options):
    view = plan_view(HEIGHT, WIDTH, model, options)
    assert view == View(HEIGHT, WIDTH, HEIGHT, WIDTH, 0, 0, HEIGHT, WIDTH)
    assert view.identity
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert np.shares_memory(view.to_network(image), image)


def test_a_crop_is_in_the_middle():
    view = plan_view(HEIGHT, WIDTH, contract(height=160, width=224), ViewOptions())
    assert (view.top, view.left) == ((HEIGHT - 160) // 2, (WIDTH - 224) // 2)


@pytest.mark.parametrize(
    ("model", "pitch_m"), [(contract(height=96, width=96), 0.0), (contract(None, 96, 96), 6e-6)]
)
def test_letter_boxing_without_the_lens_is_refused(model, pitch_m):
    with pytest.raises(ContractError, match="expected the pixel pitch"):
        plan_view(HEIGHT, WIDTH, model, ViewOptions(pitch_m, oversize="letterbox"))


@pytest.mark.parametrize("pitch_m", [6e-9, 6e-3])
def test_a_pitch_in_the_wrong_unit_is_refused(pitch_m):
    with pytest.raises(ContractError, match="correct the camera's pixel pitch"):
        plan_view(HEIGHT, WIDTH, contract(), ViewOptions(pixel_pitch_m=pitch_m))
