"""Exposure and blur: textures blurred by known kernels, and photographs where they are at hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ddfd_ros.core.image_quality import DETAIL_LIMIT, SMEAR_LIMIT, measure


def texture(height=240, width=320, seed=0):
    """Grey texture whose amplitude falls with frequency, as natural images' does, 8 bit RGB."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    frequency = np.hypot(x, y)
    frequency[0, 0] = 1.0
    noise = np.fft.fft2(rng.normal(size=(height, width)))
    values = np.real(np.fft.ifft2(noise / frequency))
    values = 128 + 40 * (values - values.mean()) / values.std()
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def disk(diameter_px):
    side = int(diameter_px) // 2 * 2 + 5
    y, x = np.mgrid[:side, :side] - side // 2
    weight = np.clip(diameter_px / 2 - np.hypot(x, y) + 0.5, 0, 1)
    return (weight / weight.sum()).astype(np.float32)


def line(length_px, angle):
    """A motion's kernel: a straight line, drawn by adding up points between pixels."""
    kernel = np.zeros((2 * length_px + 1,) * 2)
    for t in np.linspace(-(length_px - 1) / 2, (length_px - 1) / 2, 8 * length_px):
        x, y = length_px + t * np.cos(angle), length_px + t * np.sin(angle)
        left, top = int(x), int(y)
        for row, column in np.ndindex(2, 2):
            share = (1 - abs(y - top - row)) * (1 - abs(x - left - column))
            kernel[top + row, left + column] += share
    return (kernel / kernel.sum()).astype(np.float32)


def blurred(image, kernel):
    return cv2.filter2D(image, -1, kernel)


@pytest.mark.parametrize("angle", np.pi / 4 * np.arange(4))
def test_motion_is_told_from_defocus(angle):
    image = texture()
    assert measure(blurred(image, line(9, angle))).smear > SMEAR_LIMIT
    for diameter_px in (2, 4, 8):
        assert measure(blurred(image, disk(diameter_px))).smear < SMEAR_LIMIT / 2


def test_detail_falls_with_the_blur():
    image = texture()
    details = [measure(blurred(image, disk(d))).detail for d in (1, 2, 4, 8, 16)]
    assert details == sorted(details, reverse=True)
    assert details[0] > 4 * DETAIL_LIMIT
    assert details[-1] < DETAIL_LIMIT


def test_brightness_and_contrast_do_not_matter():
    image = texture()
    faint = (image // 4 + 90).astype(np.uint8)
    assert measure(faint).detail == pytest.approx(measure(image).detail, rel=0.1)


def test_shares_of_dark_and_clipped_pixels():
    image = np.full((480, 640, 3), 100, np.uint8)
    image[:120] = (3, 8, 0)
    image[360:, :320] = (20, 255, 20)
    quality = measure(image)
    assert quality.dark_fraction == pytest.approx(0.25)
    assert quality.clipped_fraction == pytest.approx(0.125)


@pytest.mark.parametrize("shape", [(480, 640), (1, 1), (2, 700), (700, 2), (119, 161), (20, 20)])
def test_an_image_without_texture_says_nothing(shape):
    quality = measure(np.full((*shape, 3), 77, np.uint8))
    assert np.isnan(quality.detail)
    assert np.isnan(quality.smear)


def test_large_images_are_read_in_part():
    small, large = texture(480, 640), np.tile(texture(480, 640), (3, 3, 1))
    assert measure(large).detail == pytest.approx(measure(small).detail, rel=0.2)


@pytest.mark.data
def test_photographs(data_root, capsys):
    """The limits' false alarms and misses; run with -s to see the figures."""
    folder = data_root / "dfd_dslr" / "dfd_dataset_indoor_N2_8" / "rgb"
    paths = sorted([*folder.glob("test/*.JPG"), *(data_root / "rgbd_video/rgb").glob("*0.jpg")])[
        ::2
    ]
    if len(paths) < 15:
        pytest.skip(f"needs photographs in {data_root}")
    images = [cv2.imread(str(path))[..., ::-1] for path in paths]
    still = [measure(image) for image in images]
    evenly = [measure(blurred(image, disk(6))) for image in images]
    alarms = np.mean([q.smear > SMEAR_LIMIT for q in still + evenly])
    moved = [
        np.mean(
            [
                measure(blurred(image, line(length, index % 4 * np.pi / 4))).smear > SMEAR_LIMIT
                for index, image in enumerate(images)
            ]
        )
        for length in (7, 16)
    ]
    lowest = min(q.detail for q in still)
    with capsys.disabled():
        print(
            f"\n{len(images)} photographs: {alarms:.1%} false alarms of motion; found of motion "
            f"by 7 and 16 px: {', '.join(f'{share:.0%}' for share in moved)}; least detail "
            f"{lowest:.3g}"
        )
    assert alarms <= 0.02
    assert moved[0] <= moved[1]
    assert moved[1] >= 0.4
    assert lowest > 2 * DETAIL_LIMIT
