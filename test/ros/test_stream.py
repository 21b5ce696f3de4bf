"""Good frames through the node over DDS: values, stamps, cameras, and who pays for what."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo


def _array(message, dtype, channels=1):
    values = np.frombuffer(message.data, dtype).reshape(message.height, message.width, channels)
    return values[..., 0] if channels == 1 else values


def test_every_output_has_the_values_stamp_and_frame_of_its_input(shared_stage, tools):
    peer = shared_stage.peer
    rgb = tools.picture(seed=1)
    stamp = peer.send(tools.image_message(rgb, frame_id="left/optical"))
    expected = tools.reference(rgb)
    depth, sigma = peer.answer("depth", stamp), peer.answer("sigma", stamp)
    sharp = peer.answer("sharp", stamp)
    assert (depth.encoding, sigma.encoding, sharp.encoding) == ("32FC1", "32FC1", "rgb8")
    np.testing.assert_allclose(_array(depth, np.float32), expected["depth_m"], rtol=1e-6)
    np.testing.assert_allclose(_array(sigma, np.float32), expected["sigma_m"], rtol=1e-6)
    np.testing.assert_array_equal(_array(sharp, np.uint8, 3), expected["sharp_rgb"])
    for name in ("depth", "sigma", "sharp", "depth_info", "sigma_info", "sharp_info"):
        message = peer.answer(name, stamp)
        assert message is not None, name
        assert message.header.frame_id == "left/optical"
        assert (message.height, message.width) == (48, 64)


def test_a_size_that_needs_padding_comes_back_unpadded(shared_stage, tools):
    peer = shared_stage.peer
    rgb = tools.picture(45, 75, seed=2)
    stamp = peer.send(tools.image_message(rgb))
    depth = peer.answer("depth", stamp)
    assert (depth.height, depth.width, depth.step) == (45, 75, 300)
    np.testing.assert_allclose(
        _array(depth, np.float32), tools.reference(rgb)["depth_m"], rtol=1e-6
    )


def test_camera_info_is_that_of_the_published_image(shared_stage, tools):
    peer = shared_stage.peer
    info = CameraInfo(width=128, height=96, distortion_model="plumb_bob", d=[0.1, 0.0, 0.0, 0, 0])
    info.k = [100.0, 0.0, 63.5, 0.0, 110.0, 47.5, 0.0, 0.0, 1.0]
    info.p = [90.0, 0.0, 60.5, -9.0, 0.0, 95.0, 40.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.binning_x = info.binning_y = 2
    peer.wait_for_match(peer.info)
    peer.info.publish(info)
    peer.spin_for(0.3)
    stamp = peer.send(tools.image_message(tools.picture()))
    out = peer.answer("depth_info", stamp)
    assert (out.width, out.height, out.binning_x, out.roi.width) == (64, 48, 0, 0)
    # Pixel centres lie at whole numbers: column u of two binned ones is centred at 2u + 0.5.
    np.testing.assert_allclose(out.k, [50, 0, 31.5, 0, 55, 23.5, 0, 0, 1])
    np.testing.assert_allclose(out.p, [45, 0, 30, -4.5, 0, 47.5, 20, 0, 0, 0, 1, 0])
    assert list(out.d) == list(info.d)


def test_latency_is_split_by_stage(shared_stage, tools):
    peer = shared_stage.peer
    stamp = peer.send(tools.image_message(tools.picture()))
    status = peer.answer("latency", stamp).status[0]
    values = {item.key: float(item.value) for item in status.values}
    stages = ["queue", "decode", "pad", "infer", "postprocess", "encode", "publish"]
    assert list(values) == [*stages, "total"]
    assert values["infer"] > 0
    assert sum(values[name] for name in stages) <= values["total"] * 1.05 + 0.05
    assert values["total"] < 1000


def test_diagnostics_say_what_runs_and_how_well(shared_stage, tools):
    peer = shared_stage.peer
    for _ in range(5):
        stamp = peer.send(tools.image_message(tools.picture()))
        assert peer.answer("depth", stamp) is not None
    values = peer.report(in_flight="0", state="active")
    assert values["runtime"] == "onnxruntime"
    assert values["model"].endswith("tiny.onnx")
    assert values["model_sha256"] == "ab" * 32
    assert values["fast_dds_profile"].endswith(".xml")
    assert int(values["received"]) == int(values["answered"]) >= 5
    assert float(values["valid_fraction"]) == 1.0
    sigma = tools.reference(tools.picture())["sigma_m"]
    assert float(values["median_sigma_m"]) == pytest.approx(np.median(sigma), abs=0.2)
    assert 0 < float(values["infer_p50_ms"]) <= float(values["total_p95_ms"])
    assert 0 < float(values["age_p50_ms"]) <= float(values["age_p95_ms"]) < 1000


def test_live_parameters_hold_from_the_next_frame_on(shared_stage, tools):
    peer = shared_stage.peer
    rgb = tools.picture(seed=3)
    expected = tools.reference(rgb)
    try:
        assert peer.set(max_sigma_m=0.4, max_depth_m=6.0) == ["", ""]
        stamp = peer.send(tools.image_message(rgb))
        depth = _array(peer.answer("depth", stamp), np.float32)
        invalid = (expected["sigma_m"] > 0.4) | (expected["depth_m"] > 6.0)
        np.testing.assert_array_equal(np.isnan(depth), invalid)

        assert peer.set(max_sigma_m=0.0, min_depth_m=1.0, out_of_range="rep117") == [""] * 3
        stamp = peer.send(tools.image_message(rgb))
        depth = _array(peer.answer("depth", stamp), np.float32)
        np.testing.assert_array_equal(np.isposinf(depth), expected["depth_m"] > 6.0)
        np.testing.assert_array_equal(np.isneginf(depth), expected["depth_m"] < 1.0)

        assert peer.set(depth_encoding="16UC1", max_depth_m=0.0, min_depth_m=0.0) == [""] * 3
        stamp = peer.send(tools.image_message(rgb))
        message = peer.answer("depth", stamp)
        assert message.encoding == "16UC1"
        assert np.abs(_array(message, "<u2") - expected["depth_m"] * 1000).max() <= 0.51
    finally:
        peer.set(
            max_sigma_m=0.0,
            min_depth_m=0.0,
            max_depth_m=0.0,
            out_of_range="invalid",
            depth_encoding="32FC1",
        )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_sigma_m": -1.0}, "max_sigma_m"),
        ({"max_sigma_m": float("nan")}, "max_sigma_m"),
        ({"depth_encoding": "64FC1"}, "one of"),
        ({"min_depth_m": 3.0, "max_depth_m": 0.0}, ""),
        ({"max_depth_m": 5.0, "min_depth_m": 6.0}, "min < max"),
        ({"model_path": "/elsewhere.onnx"}, "clean up"),
        ({"threads": 3}, "clean up"),
        ({"autostart": False}, "read-only"),
        ({"max_age_s": "long"}, "type"),
    ],
)
def test_bad_parameter_values_are_refused_with_the_reason(shared_stage, values, said):
    peer = shared_stage.peer
    reasons = peer.set(**values)
    peer.set(min_depth_m=0.0, max_depth_m=0.0)
    if said:
        assert said in reasons[-1]
    else:
        assert reasons == [""] * len(values)


def test_stale_frames_are_dropped_and_counted(shared_stage, tools):
    peer = shared_stage.peer
    message = tools.image_message(tools.picture())
    stamp = peer.send(message, age_s=5.0)
    assert peer.answer("depth", stamp, timeout_s=0.5) is None
    assert int(peer.report(in_flight="0")["dropped_stale"]) >= 1
    assert "max_age_s" in shared_stage.nodes[0].log
    message.header.stamp.sec = message.header.stamp.nanosec = 0
    peer.camera.publish(message)
    assert peer.spin_until(lambda: "got no stamp" in shared_stage.nodes[0].log)
    peer.set(max_age_s=0.0)
    stamp = peer.send(message, age_s=5.0)
    assert peer.answer("depth", stamp) is not None
    peer.set(max_age_s=1.0)


def test_what_nobody_listens_to_is_neither_computed_nor_sent(stage, tools):
    stage.start()
    peer = stage.peer
    peer.wait_for_camera()
    message = tools.image_message(tools.picture())
    for _ in range(3):
        peer.send(message)
        peer.spin_for(0.1)
    values = peer.report(dropped_idle=lambda text: text.isdigit() and int(text) > 0, in_flight="0")
    assert values["dropped_idle"] == values["received"]
    idle = int(values["dropped_idle"])
    assert values["answered"] == "0"
    assert "infer_p50_ms" not in values

    peer.listen("sharp")
    stamp = peer.send(message)
    assert peer.answer("sharp", stamp) is not None
    values = peer.report(answered="1")
    assert values["valid_fraction"] == "nan"  # depth was not computed

    peer.leave("sharp")
    peer.listen("depth_info")  # a camera_info costs nothing and comes without an image
    stamp = peer.send(message)
    assert peer.answer("depth_info", stamp) is not None
    assert peer.report(dropped_idle=str(idle + 1))["answered"] == "1"


def test_the_newest_frame_wins_and_every_frame_is_accounted_for(stage, tools):
    stage.start(model_path=tools.write_model(stage.folder / "slow.onnx", slow=True))
    peer = stage.peer
    peer.wait_for_camera()
    peer.listen("depth")
    message = tools.image_message(tools.picture(240, 320))
    stamps = []
    for _ in range(100):  # far faster than the model, which takes some 20 ms
        stamps.append(peer.send(message))
        time.sleep(0.005)
    assert peer.answer("depth", stamps[-1]) is not None
    values = peer.report(in_flight="0", received=lambda text: int(text) >= 20)
    answered, replaced = int(values["answered"]), int(values["dropped_replaced"])
    assert answered + replaced == int(values["received"]) <= 100
    assert replaced > 0
    assert answered > 1
    # A queue would let the age grow with every frame: here it is bounded by two inferences.
    assert float(values["age_p95_ms"]) < 4 * float(values["infer_p95_ms"]) + 100


def test_compressed_input(stage, tools):
    cv2 = pytest.importorskip("cv2")
    from sensor_msgs.msg import CompressedImage

    stage.start(image_transport="compressed")
    peer = stage.peer
    peer.wait_for_match(peer.compressed)
    said = peer.report(message=lambda text: "no frames arrive" in text)["message"]
    assert said.startswith("no frames arrive on /image_raw/compressed")
    peer.listen("depth")
    rgb = tools.picture(seed=5)
    message = CompressedImage(format="rgb8; png compressed bgr8")
    message.data.frombytes(cv2.imencode(".png", rgb[..., ::-1])[1].tobytes())
    stamp = peer.send(message, publisher=peer.compressed)
    depth = _array(peer.answer("depth", stamp), np.float32)
    np.testing.assert_allclose(depth, tools.reference(rgb)["depth_m"], rtol=1e-6)


def test_an_incompatible_quality_of_service_is_reported(stage, tools):
    node = stage.start(**{"qos_overrides./image_raw.subscription.reliability": "reliable"})
    peer = stage.peer
    peer.wait_for_camera()  # the reliable camera fits
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    peer.node.create_publisher(Image, "image_raw", best_effort)
    values = peer.report(qos_incompatible="1")
    assert "qos_overrides" in values["message"]
    time.sleep(0.1)
    assert "compatible quality of service" in node.log
