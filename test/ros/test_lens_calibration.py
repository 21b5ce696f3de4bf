"""A calibration file in the node: read, refused by name, scaled, and the mask over DDS."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from sensor_msgs.msg import Image

from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.sharpness import sigma_at_scale
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.core.view import View
from ddfd_ros.ros.lens import camera_lens, judge_lens, view_options
from ddfd_ros.ros.parameters import NodeParameters, ParameterError

LENS = LensConfig(2e-3, 2.8, 2.0, 2e-6)
HEIGHT, WIDTH = 96, 128


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "lens.yaml"
    path.write_text(yaml.safe_dump(LensCalibration(LENS, 256, 192, True).to_dict()))
    return path


def test_the_file_stands_for_the_camera_at_any_size(file):
    parameters = NodeParameters(lens_calibration=str(file))
    half = camera_lens(parameters, size=(96, 128)).lens()
    assert half.px_per_dioptre == pytest.approx(LENS.px_per_dioptre / 2)
    options = view_options(parameters, (96, 128))
    assert options.pixel_pitch_m == pytest.approx(4e-6)
    assert options.px_per_dioptre == pytest.approx(LENS.px_per_dioptre / 2)
    moved = NodeParameters(lens_calibration=str(file), camera_focus_distance_m=1.0)
    assert camera_lens(moved).lens().focus_distance_m == 1.0


def test_how_sharp_the_camera_is_comes_from_the_file_or_the_parameter(file):
    sharp = LensCalibration(LENS, 256, 192, True, sigma_0_px=0.8)
    file.write_text(yaml.safe_dump(sharp.to_dict()))
    parameters = NodeParameters(lens_calibration=str(file))
    assert view_options(parameters).sigma_0_px == 0.8
    assert view_options(parameters, (96, 128)).sigma_0_px == sigma_at_scale(0.8, 0.5)
    told = NodeParameters(lens_calibration=str(file), camera_sigma_0_px=0.6)
    assert view_options(told, (96, 128)).sigma_0_px == 0.6
    assert view_options(NodeParameters()).sigma_0_px == 0.0


def test_what_cannot_be_read_or_is_said_twice_is_refused(file, tmp_path):
    for path in ("nowhere.yaml", str(tmp_path)):
        with pytest.raises(ParameterError, match="lens_calibration"):
            NodeParameters(lens_calibration=path)
    (tmp_path / "other.yaml").write_text("a: [1, 2")
    with pytest.raises(ParameterError, match="ddfd-calibrate"):
        NodeParameters(lens_calibration=str(tmp_path / "other.yaml"))
    with pytest.raises(ParameterError, match="camera_f_number"):
        NodeParameters(lens_calibration=str(file), camera_f_number=2.0)


def test_the_guard_compares_strength_where_the_pitch_is_not_known(file):
    unknown = LensCalibration(LENS, 256, 192, pitch_known=False)
    file.write_text(yaml.safe_dump(unknown.to_dict()))
    parameters = NodeParameters(lens_calibration=str(file))
    view = View(192, 256, 192, 256, 0, 0, 192, 256)
    # Another pitch and aperture of the same strength and focus.
    same = LensConfig(2e-3, 1.4, 2.0, 4e-6)
    # 2 mm: s differs by nothing, f / N doubles, the pitch doubles.
    assert same.px_per_dioptre == pytest.approx(LENS.px_per_dioptre)
    assert judge_lens(contract(same), parameters, 0.0, view).problem == ""
    weaker = LensConfig(2e-3, 2.0, 2.0, 4e-6)
    assert "strength" in judge_lens(contract(weaker), parameters, 0.0, view).problem


def contract(lens):
    return ModelContract(
        1, "table", {}, 1, None, None, 1, ("depth_m",), 0.5, 10.0, lens, {}, {}, ""
    )


def test_zones_come_with_the_depth(tmp_path_factory, tools, make):
    with make(tmp_path_factory.mktemp("zones")) as stage:
        model = tools.write_model(stage.folder / "m.onnx", lens=LENS, golden=None)
        stage.start(model_path=model, zones_output=True)
        stage.peer.wait_for_camera()
        got = []
        stage.peer.node.create_subscription(Image, "depth/zones", got.append, 1)
        stage.peer.listen("depth")
        for seed in range(40):
            stamp = stage.peer.send(tools.image_message(tools.picture(HEIGHT, WIDTH, seed=seed)))
            depth = stage.peer.answer("depth", stamp)
            stage.peer.spin_for(0.1)
            pairs = [m for m in got if m.header.stamp == depth.header.stamp]
            if pairs:
                break
        mask = np.frombuffer(pairs[0].data, np.uint8).reshape(HEIGHT, WIDTH)
        depth_m = np.frombuffer(depth.data, np.float32).reshape(HEIGHT, WIDTH)
        assert pairs[0].encoding == "mono8"
        known = np.isfinite(depth_m)
        dead = LENS.coc_px(depth_m[known]) < 1.0
        np.testing.assert_array_equal((mask[known] & 1) > 0, dead)
