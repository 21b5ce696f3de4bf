"""Everything that is made of an answer, over DDS: cloud, preview, file, defocus, sizes, lens."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from ddfd_ros.core.compressed_depth import decode_compressed_depth
from ddfd_ros.core.thin_lens import LensConfig

cv2 = pytest.importorskip("cv2")

HEIGHT, WIDTH = 96, 128
LENS = LensConfig(2e-3, 2.8, 8.0, 20e-6)  # 100 px of focal length
K = [100.0, 0.0, 62.0, 0.0, 102.0, 47.0, 0.0, 0.0, 1.0]


@pytest.fixture(scope="module")
def rich(tmp_path_factory, tools, make):
    """A node with a model of all heads and a known lens, active, and a calibrated camera."""
    with make(tmp_path_factory.mktemp("rich")) as stage:
        model = tools.write_model(
            stage.folder / "rich.onnx",
            heads=("depth_m", "sigma_m", "sharp_rgb", "defocus_px"),
            lens=LENS,
            golden=None,
        )
        stage.start(model_path=model, compressed_output=True, cloud_max_edge=0.0)
        stage.peer.wait_for_camera()
        stage.peer.wait_for_match(stage.peer.info)
        yield stage


@pytest.fixture
def peer(rich):
    """The peer; what a test listened to and set is undone after it."""
    peer = rich.peer
    changed = {}
    plain_set = peer.set

    def set_and_note(**values):
        changed.update(values)
        return plain_set(**values)

    peer.set = set_and_note
    peer.info.publish(camera_info())
    peer.spin_for(0.2)
    yield peer
    del peer.set
    restore = {name: DEFAULTS.get(name) for name in changed}
    assert peer.set(**restore) == [""] * len(restore)
    peer.leave(*list(peer._subscriptions))
    peer.received.clear()


DEFAULTS = {
    "camera_f_number": 0.0,
    "camera_focus_distance_m": 0.0,
    "camera_info_match": "latest",
    "camera_pixel_pitch_um": 0.0,
    "cloud_color": "none",
    "cloud_decimation": 4,
    "cloud_max_depth_m": 0.0,
    "cloud_max_sigma_m": 0.0,
    "cloud_organized": False,
    "compressed_format": "jpeg",
    "depth_encoding": "32FC1",
    "max_depth_m": 0.0,
    "input_rectified": False,
    "lens_guard": "warn",
    "network_height": 0,
    "network_width": 0,
    "output_size": "input",
    "preview_far_m": 0.0,
}


def camera_info(stamp_ns=0, **changes):
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k, info.p = K, [*K[:3], 0.0, *K[3:6], 0.0, *K[6:], 0.0]
    info.header.stamp.sec, info.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def plane(message, dtype=np.float32, channels=1):
    values = np.frombuffer(message.data, dtype).reshape(message.height, message.width, channels)
    return values[..., 0] if channels == 1 else values


def points_of(message):
    """The points as ``[N, fields]`` float32, read by the message's own fields."""
    raw = np.frombuffer(message.data, np.uint8).reshape(-1, message.point_step)
    columns = [raw[:, f.offset : f.offset + 4].copy().view("<f4")[:, 0] for f in message.fields]
    return np.stack(columns, axis=1)


def test_the_cloud_re_projected_gives_the_depth_back_to_a_millimetre(peer, tools):
    peer.listen("depth", "points", "depth_info")
    assert peer.set(cloud_decimation=1) == [""]
    rgb = tools.picture(HEIGHT, WIDTH, seed=1)
    stamp = peer.send(tools.image_message(rgb))
    depth_m, cloud = plane(peer.answer("depth", stamp)), peer.answer("points", stamp)
    k = np.array(peer.answer("depth_info", stamp).k).reshape(3, 3)
    assert cloud.header.frame_id == "camera_optical"
    xyz = points_of(cloud).astype(np.float64)
    assert len(xyz) == HEIGHT * WIDTH
    pixels = (xyz @ k.T) / xyz[:, 2:]
    nearest = np.rint(pixels).astype(int)
    assert np.abs(pixels - nearest).max() < 0.01
    again = np.full(depth_m.shape, np.nan)
    again[nearest[:, 1], nearest[:, 0]] = xyz[:, 2]
    assert np.abs(again - depth_m).max() <= 1e-3

    assert peer.set(cloud_decimation=4, cloud_max_depth_m=4.0) == ["", ""]
    stamp = peer.send(tools.image_message(rgb))
    sampled = depth_m[2::4, 2::4]
    z = points_of(peer.answer("points", stamp))[:, 2]
    np.testing.assert_array_equal(z, sampled[sampled <= 4.0])


def test_of_rectified_images_cloud_and_camera_info_are_those_of_p(peer, tools):
    peer.listen("depth", "points", "depth_info")
    p = [0.8 * K[0], 0.0, 30.0, 0.0, 0.0, 0.8 * K[4], 25.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    peer.info.publish(camera_info(p=p, d=[-0.3, 0.1, 0.0, 0.0, 0.0]))
    peer.spin_for(0.3)
    assert peer.set(cloud_decimation=1, input_rectified=True) == [""] * 2
    stamp = peer.send(tools.image_message(tools.picture(HEIGHT, WIDTH, seed=1)))
    xyz = points_of(peer.answer("points", stamp)).astype(np.float64)
    info = peer.answer("depth_info", stamp)
    k = [p[0], 0.0, p[2], 0.0, p[5], p[6], 0.0, 0.0, 1.0]
    assert (list(info.k), list(info.p), list(info.d)) == (k, p, [0.0] * 5)
    pixels = (xyz @ np.array(k).reshape(3, 3).T) / xyz[:, 2:]
    assert len(pixels) == HEIGHT * WIDTH
    assert np.abs(pixels - np.rint(pixels)).max() < 0.01
    peer.set(input_rectified=False)
    stamp = peer.send(tools.image_message(tools.picture(HEIGHT, WIDTH, seed=1)))
    info = peer.answer("depth_info", stamp)
    assert (list(info.k), list(info.p), info.d[0]) == (K, p, -0.3)


def test_the_cloud_in_colour_gated_by_sigma_and_organized(peer, tools):
    peer.listen("points")  # neither sigma nor picture is listened to: computed for the cloud
    rgb = tools.picture(HEIGHT, WIDTH, seed=2)
    expected = {name: values[2::4, 2::4] for name, values in tools.reference(rgb).items()}
    changes = {"cloud_color": "all_in_focus", "cloud_max_sigma_m": 0.5, "cloud_organized": True}
    assert peer.set(**changes) == [""] * 3
    cloud = peer.answer("points", peer.send(tools.image_message(rgb)))
    assert (cloud.height, cloud.width) == (HEIGHT // 4, WIDTH // 4)
    values = points_of(cloud).reshape(cloud.height, cloud.width, 4)
    np.testing.assert_array_equal(np.isnan(values[..., 2]), expected["sigma_m"] > 0.5)
    assert not (values[..., 2] == 0).any()
    for color, picture in (("all_in_focus", 255 - rgb), ("image", rgb)):
        peer.set(cloud_color=color)
        cloud = peer.answer("points", peer.send(tools.image_message(rgb)))
        bits = np.ascontiguousarray(points_of(cloud)[:, 3]).view("<u4")
        wanted = picture[2::4, 2::4].reshape(-1, 3).astype(np.uint32)
        np.testing.assert_array_equal(bits >> 16, wanted[:, 0])
        np.testing.assert_array_equal((bits >> 8) & 255, wanted[:, 1])
        np.testing.assert_array_equal(bits & 255, wanted[:, 2])


def test_an_uncalibrated_camera_gets_no_cloud_and_that_is_said(peer, tools):
    peer.info.publish(camera_info(k=[0.0] * 9))
    peer.spin_for(0.3)
    peer.listen("points", "depth")
    stamp = peer.send(tools.image_message(tools.picture(HEIGHT, WIDTH)))
    assert peer.answer("depth", stamp) is not None
    assert peer.answer("points", stamp, timeout_s=0.3) is None
    assert "no cloud is published" in peer.report(level="1")["message"]


def test_points_of_a_distortion_that_is_not_known_are_warned_of(peer, tools):
    peer.listen("points")
    for model, d, rectified, warned in (
        ("double_sphere", [0.1, 0.2, 0.0, 0.0], False, True),
        ("double_sphere", [0.1, 0.2, 0.0, 0.0], True, False),
        ("double_sphere", [0.0] * 4, False, False),
        ("plumb_bob", [0.1, 0.0, 0.0, 0.0, 0.0], False, False),
    ):
        peer.set(input_rectified=rectified)
        peer.info.publish(camera_info(distortion_model=model, d=d))
        peer.spin_for(0.3)
        stamp = peer.send(tools.image_message(tools.picture(HEIGHT, WIDTH)))
        assert peer.answer("points", stamp) is not None
        peer.report(message=lambda text, warned=warned: ("'double_sphere'" in text) is warned)


def test_defocus_preview_and_file(peer, tools):
    peer.listen("defocus", "defocus_info", "color", "file")
    assert peer.set(preview_far_m=6.0, compressed_format="png") == ["", ""]
    rgb = tools.picture(HEIGHT, WIDTH, seed=3)
    rgb[:8, :8] = 0  # nearest
    rgb[:8, 8:16] = 255  # beyond the preview
    stamp = peer.send(tools.image_message(rgb))
    defocus = peer.answer("defocus", stamp)
    np.testing.assert_allclose(plane(defocus), tools.reference_defocus(rgb), rtol=1e-6)
    assert list(peer.answer("defocus_info", stamp).k) == K
    colours = plane(peer.answer("color", stamp), np.uint8, 3)
    assert colours.shape == rgb.shape
    assert len(np.unique(colours[:8, :8].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(colours[:8, 8:16].reshape(-1, 3), axis=0)) == 1
    assert (colours[0, 0] != colours[0, 8]).any()
    file = peer.answer("file", stamp)
    assert file.format == "rgb8; png compressed bgr8"
    picture = cv2.imdecode(np.frombuffer(file.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(picture, 255 - rgb)

    peer.set(compressed_format="jpeg")
    smooth = cv2.GaussianBlur(rgb, (0, 0), 8)
    file = peer.answer("file", peer.send(tools.image_message(smooth)))
    assert file.format == "rgb8; jpeg compressed bgr8"
    picture = cv2.imdecode(np.frombuffer(file.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(picture.astype(int) - (255 - smooth)).mean() < 3


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_depth_as_a_file_is_the_depth_as_an_image(peer, tools, encoding):
    """Without anybody listening to the image."""
    assert peer.set(depth_encoding=encoding, max_depth_m=6.0) == ["", ""]
    peer.listen("depth_file")
    rgb = tools.picture(HEIGHT, WIDTH, seed=5)
    stamp = peer.send(tools.image_message(rgb))
    file = peer.answer("depth_file", stamp)
    assert file.format == f"{encoding}; compressedDepth png"
    wanted = tools.reference(rgb)["depth_m"]
    wanted = np.where(wanted <= 6.0, wanted, np.nan)
    assert 0 < np.isnan(wanted).sum() < wanted.size
    step_m = 0.001 if encoding == "16UC1" else 0.01  # 0.1 % of 10 m
    np.testing.assert_allclose(decode_compressed_depth(file), wanted, rtol=0, atol=0.51 * step_m)


def test_the_image_is_scaled_to_the_models_pitch_and_the_outputs_follow(peer, tools):
    """Half the model's pitch: the network sees half the size, K shrinks with it."""
    peer.listen("depth", "depth_info", "points")
    assert peer.set(camera_pixel_pitch_um=10.0, output_size="network") == ["", ""]
    rgb = cv2.resize(tools.picture(12, 16, seed=4), (WIDTH, HEIGHT), None, 0, 0, 0)
    small = rgb[::2, ::2]  # blocks of equal pixels: means of areas are the pixels themselves
    stamp = peer.send(tools.image_message(rgb))
    depth, info = peer.answer("depth", stamp), peer.answer("depth_info", stamp)
    assert (depth.height, depth.width) == (info.height, info.width) == (HEIGHT // 2, WIDTH // 2)
    np.testing.assert_allclose(plane(depth), tools.reference(small)["depth_m"], rtol=1e-6)
    np.testing.assert_allclose(info.k, [50, 0, 30.75, 0, 51, 23.25, 0, 0, 1])
    xyz = points_of(peer.answer("points", stamp)).astype(np.float64)
    pixels = (xyz @ np.array(info.k).reshape(3, 3).T) / xyz[:, 2:]
    np.testing.assert_allclose(pixels % 4, np.broadcast_to((2, 2, 1), pixels.shape), atol=0.01)

    assert peer.set(output_size="input", network_width=32, network_height=32) == [""] * 3
    stamp = peer.send(tools.image_message(rgb))
    depth, info = peer.answer("depth", stamp), peer.answer("depth_info", stamp)
    assert (depth.height, depth.width) == (HEIGHT, WIDTH)
    assert list(info.k) == K
    values = plane(depth)
    inside = np.zeros(values.shape, bool)
    inside[16:80, 32:96] = True  # the middle 32x32 of 48x64, in the camera's pixels
    np.testing.assert_array_equal(np.isfinite(values), inside)
    expected = tools.reference(rgb)["depth_m"]
    np.testing.assert_allclose(values[inside], expected[inside], rtol=1e-6)


def test_the_lens_guard_warns_and_blanks(peer, tools):
    peer.listen("depth", "sigma")
    message = tools.image_message(tools.picture(HEIGHT, WIDTH))
    changes = {"camera_pixel_pitch_um": 20.0, "camera_f_number": 2.8}
    assert peer.set(**changes, camera_focus_distance_m=8.0) == [""] * 3
    assert np.isfinite(plane(peer.answer("depth", peer.send(message)))).all()
    assert "lens" not in peer.report(in_flight="0")["message"]

    assert peer.set(camera_f_number=5.6) == [""]
    assert np.isfinite(plane(peer.answer("depth", peer.send(message)))).all()
    report = peer.report(level="1")
    assert "expected f-number 2.8, got 5.6" in report["message"]
    assert peer.set(lens_guard="blank") == [""]
    stamp = peer.send(message)
    assert np.isnan(plane(peer.answer("depth", stamp))).all()
    assert np.isfinite(plane(peer.answer("sigma", stamp))).all()

    assert peer.set(camera_f_number=2.8) == [""]
    assert np.isfinite(plane(peer.answer("depth", peer.send(message)))).all()
    assert "lens" not in peer.report(in_flight="0")["message"]
    # A zoom: K says 150 px of 20 um, that is 3 mm instead of 2.
    peer.info.publish(camera_info(k=[150.0, *K[1:]]))
    peer.spin_for(0.3)
    assert np.isnan(plane(peer.answer("depth", peer.send(message)))).all()
    assert "expected focal length 2 mm, got 3 mm" in peer.report(level="1")["message"]


def test_camera_info_by_stamp(peer, tools):
    peer.listen("depth_info")
    assert peer.set(camera_info_match="stamp") == [""]
    message = tools.image_message(tools.picture(HEIGHT, WIDTH))
    now_ns = peer.node.get_clock().now().nanoseconds
    for i in range(5):
        peer.info.publish(camera_info(now_ns + i, k=[100.0 + i, *K[1:]]))
    peer.spin_for(0.2)
    for i in (3, 0, 4):
        age_s = (peer.node.get_clock().now().nanoseconds - now_ns - i) / 1e9
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns + i, 10**9)
        assert age_s < 1.0
        peer.camera.publish(message)
        assert peer.answer("depth_info", now_ns + i).k[0] == 100.0 + i
    peer.spin_for(1.0)
    stamp = peer.send(message)  # of which there is no camera_info
    assert peer.answer("depth_info", stamp).k[0] == 0.0
    assert "camera_info_match" in peer.report(level="1")["message"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"oversize": "letterbox"}, "camera_pixel_pitch_um"),
        ({"cloud_decimation": 0}, "cloud_decimation"),
        ({"cloud_color": "blue"}, "one of"),
        ({"compressed_output": False}, "clean up"),
        ({"lens_tolerance": -0.1}, "lens_tolerance"),
        ({"jpeg_quality": 101}, "jpeg_quality"),
    ],
)
def test_bad_values_are_refused_with_the_reason(rich, values, said):
    assert said in rich.peer.set(**values)[0]
