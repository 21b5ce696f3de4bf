"""The synthetic scenes: depth against an independent ray marcher, motion, filtering."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from ddfd_training.datasets.synthetic_scenes import TEST_SEED, SyntheticScenes
from ddfd_training.synthetic import SyntheticScene
from ddfd_training.synthetic_shapes import Box, Sphere
from ddfd_training.synthetic_textures import FLOORS, THINGS, WALLS, TextureAtlas

HEIGHT, WIDTH, FX = 96, 128, 104.0


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return SyntheticScene(seed=2)


def distance_to_surfaces(scene: SyntheticScene, points: np.ndarray) -> np.ndarray:
    """Signed distance from points [n, 3] to the nearest surface, from each shape's definition."""
    low, high = np.array(scene.room.low), np.array(scene.room.high)
    nearest = np.minimum(points - low, high - points).min(axis=1)
    for item in scene.furniture:
        offset = points - np.array(item.shape.centre)
        if isinstance(item.shape, Sphere):
            away = np.linalg.norm(offset, axis=1) - item.shape.radius_m
        else:
            assert isinstance(item.shape, Box)
            yaw = item.shape.yaw
            turn = np.array(
                [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
            )
            beyond = np.abs(offset @ turn) - np.array(item.shape.half)
            outside = np.linalg.norm(np.maximum(beyond, 0), axis=1)
            away = outside + np.minimum(beyond.max(axis=1), 0)
        nearest = np.minimum(nearest, away)
    return nearest


def test_depth_agrees_with_marching_along_the_rays(scene: SyntheticScene):
    _, depth_m = scene.render(1.7, HEIGHT, WIDTH, FX)
    pose = scene.pose(1.7)
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, HEIGHT, 600), rng.integers(0, WIDTH, 600)
    rays = np.stack(
        [(columns - (WIDTH - 1) / 2) / FX, (rows - (HEIGHT - 1) / 2) / FX, np.ones(600)], axis=1
    )
    length = np.linalg.norm(rays, axis=1)
    world = rays @ pose[:3, :3].T
    marched = np.zeros(600)
    for _ in range(400):
        points = pose[:3, 3] + marched[:, None] * world
        marched += np.maximum(distance_to_surfaces(scene, points), 0) / length
    found = depth_m[rows, columns]
    # A ray that grazes an edge may be told apart differently in single precision.
    assert np.mean(np.abs(found - marched) < 1e-3) > 0.99
    assert np.median(np.abs(found - marched)) < 1e-5


def test_pictures_are_textured_and_the_range_is_that_of_a_room():
    for seed in range(3):
        scene = SyntheticScene(seed)
        for t in (0.0, 7.0, 23.0):
            rgb, depth_m = scene.render(t, HEIGHT, WIDTH, FX)
            assert rgb.shape == (HEIGHT, WIDTH, 3)
            assert (rgb.dtype, depth_m.dtype) == (np.uint8, np.float32)
            assert 0.45 < depth_m.min() < 2.5
            assert 4.0 < depth_m.max() < 10.0
            gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(float)
            assert 50 < gray.mean() < 200
            patches = gray.reshape(HEIGHT // 16, 16, WIDTH // 16, 16).std(axis=(1, 3))
            assert np.mean(patches > 2.0) > 0.8


def test_one_seed_is_one_scene(scene: SyntheticScene):
    first, _ = scene.render(3.0, 48, 64)
    assert np.array_equal(first, SyntheticScene(2).render(3.0, 48, 64)[0])
    assert not np.array_equal(first, SyntheticScene(3).render(3.0, 48, 64)[0])


def test_the_camera_moves_smoothly_and_is_a_rigid_body(scene: SyntheticScene):
    poses = [scene.pose(k / 15) for k in range(200)]
    steps = [np.linalg.norm(b[:3, 3] - a[:3, 3]) for a, b in zip(poses, poses[1:], strict=False)]
    assert 0 < np.mean(steps) < 0.02
    assert max(steps) < 0.03
    for pose in poses[::50]:
        assert pose[:3, :3] @ pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)


def test_depth_and_motion_explain_the_next_picture(scene: SyntheticScene):
    """Each pixel, moved by its depth and the two poses, shows the same colour again."""
    height, width, fx = 180, 240, 200.0
    (first, depth_m), (second, _) = (scene.render(t, height, width, fx) for t in (2.0, 2.3))
    relative = np.linalg.inv(scene.pose(2.3)) @ scene.pose(2.0)
    v, u = np.mgrid[:height, :width]
    points = np.stack([(u - (width - 1) / 2) / fx, (v - (height - 1) / 2) / fx, np.ones(u.shape)])
    moved = (
        np.einsum("ij,jhw->ihw", relative[:3, :3], points * depth_m) + relative[:3, 3, None, None]
    )
    x = (moved[0] / moved[2] * fx + (width - 1) / 2).astype(np.float32)
    y = (moved[1] / moved[2] * fx + (height - 1) / 2).astype(np.float32)
    again = cv2.remap(second, x, y, cv2.INTER_LINEAR)
    inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    predicted = np.abs(again.astype(float) - first).mean(axis=2)[inside]
    still = np.abs(second.astype(float) - first).mean(axis=2)[inside]
    assert np.median(predicted) < 3.0
    assert predicted.mean() < 0.5 * still.mean()


def test_a_small_picture_is_a_large_one_averaged(scene: SyntheticScene):
    """Textures and outlines are filtered: compare with a picture of 16 times the pixels."""
    small, depth_m = scene.render(5.0, HEIGHT, WIDTH, FX)
    large, large_m = scene.render(5.0, 4 * HEIGHT, 4 * WIDTH, 4 * FX)
    averaged = cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - averaged).mean() < 4.0
    picked = large[2::4, 2::4].astype(float)
    assert np.abs(small - averaged).mean() < 0.7 * np.abs(picked - averaged).mean()
    centre_m = large_m.reshape(HEIGHT, 4, WIDTH, 4)[:, 1:3, :, 1:3].mean(axis=(1, 3))
    assert np.median(np.abs(depth_m - centre_m)) < 1e-3


def test_a_sequence_is_the_scene_at_the_frames_times(scene: SyntheticScene):
    frames = list(scene.frames(3, rate_hz=10.0, height=48, width=64))
    assert len(frames) == 3
    assert np.array_equal(frames[2][0], scene.render(0.2, 48, 64)[0])


@pytest.mark.parametrize("texture", sorted({*FLOORS, *WALLS, *THINGS}, key=lambda f: f.__name__))
def test_textures_repeat_without_a_seam(texture):
    tile = cv2.GaussianBlur(np.tile(texture(np.random.default_rng(0)), (2, 2, 1)), (0, 0), 2)
    across = np.abs(np.diff(tile, axis=1)).mean(axis=(0, 2))
    # Joints between boards, bricks and stripes are steps too: compare with the largest of them.
    assert across[505:518].max() <= 1.2 * np.concatenate([across[20:480], across[540:1000]]).max()


def test_texture_lookup_interpolates_and_averages():
    ramp = np.zeros((512, 512, 3), np.float32)
    ramp[:, 256:] = 200.0
    atlas = TextureAtlas([np.full((512, 512, 3), 7.0, np.float32), ramp])
    u = np.array([0.25, 0.75, 0.5, 0.25], np.float32)
    level = np.array([0, 0, 0, 9], np.float32)
    values = atlas.sample(np.ones(4, np.int64), u, np.full(4, 0.3, np.float32), level)[:, 0]
    assert values == pytest.approx([0.0, 200.0, 100.0, 100.0], abs=0.5)
    assert atlas.sample(np.zeros(1, np.int64), u[:1], u[:1], level[:1])[0] == pytest.approx(7.0)


@pytest.mark.parametrize("number", [163, 177, 183])
def test_rays_along_a_wall_meet_something(number: int):
    """In these rooms a ray is exactly parallel to a face; every pixel still has a depth."""
    depth_m = SyntheticScenes(200)[number].depth_m
    assert np.isfinite(depth_m).all()
    assert depth_m.min() > 0.1


def test_rooms_for_testing_are_none_of_those_for_training():
    train, test = SyntheticScenes(200), SyntheticScenes(20, first_seed=TEST_SEED)
    assert train.key == "2a3a5696c7be8a33"  # what pictures are kept by
    assert test.key != SyntheticScenes(20).key
    rooms = [{each.scene_of(i) for i in range(len(each))} for each in (train, test)]
    assert [len(each) for each in rooms] == [100, 10]
    assert not rooms[0] & rooms[1]
    seen, unseen = (SyntheticScenes(1, 24, 32, seed)[0] for seed in (1000, TEST_SEED))
    assert not np.array_equal(seen.sharp_rgb, unseen.sharp_rgb)
