"""A calibration file in the node: read, refused by name, scaled, and the mask over DDS."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from sensor_msgs.msg import Image

from ddfd_ros.core.lens_calibration import LensCalibration
from ddfd_ros.core.lens_guard import LensVerdict
from ddfd_ros.core.metadata import ModelContract
from ddfd_ros.core.sharpness import sigma_at_scale
from ddfd_ros.core.thin_lens import LensConfig
from ddfd_ros.core.types import Estimate
from ddfd_ros.core.view import View
from ddfd_ros.ros.lens import (
    calibration_problem,
    camera_lens,
    guarded,
    judge_lens,
    view_options,
)
from ddfd_ros.ros.node import DdfdNode
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


@pytest.mark.parametrize(
    "content",
    ["details: {made: 2025-13-01}", "1: x\nfoo: y", "? [a, b]\n: c", "[" * 5000, "\x00"],
    ids=["no date", "keys of two kinds", "a list as a key", "deep", "no text"],
)
def test_whatever_a_file_holds_it_is_refused_as_a_parameter(file, content):
    file.write_text(file.read_text().replace("details: {}", content))
    with pytest.raises(ParameterError, match="lens_calibration"):
        NodeParameters(lens_calibration=str(file))


@pytest.mark.parametrize("path", ["~nosuchuser/lens.yaml", "a\0b"])
def test_a_path_that_cannot_be_is_refused_as_a_parameter(path):
    with pytest.raises(ParameterError, match="absolute path"):
        NodeParameters(lens_calibration=path)


def test_no_error_of_a_parameter_gets_out_of_the_node():
    def changed(values, loaded):
        raise KeyError("a surprise")

    node = SimpleNamespace(_settings=SimpleNamespace(changed=changed), _runner=None)
    result = DdfdNode._on_parameters(node, [SimpleNamespace(name="threads", value=1)])
    assert not result.successful
    assert "KeyError: 'a surprise'" in result.reason


@pytest.mark.parametrize("spoil", [lambda f: f.unlink(), lambda f: f.write_text("a: [1, 2")])
def test_a_file_that_vanishes_leaves_its_calibration_in_force(file, spoil):
    before = NodeParameters(lens_calibration=str(file))
    options = view_options(before, (96, 128))
    text = file.read_text()
    assert calibration_problem(before) == ""
    spoil(file)
    assert view_options(before, (96, 128)) == options
    assert "what it held before stays in force" in calibration_problem(before)
    after = before.changed({"max_sigma_m": 0.5}, True)  # which has nothing to do with it
    assert after.max_sigma_m == 0.5
    with pytest.raises(ParameterError, match="ddfd-calibrate"):  # asked for now, it is refused
        after.changed({"lens_calibration": str(file)}, True)
    file.write_text(text)
    assert calibration_problem(after) == ""


def test_blank_depth_is_unknown_in_the_zones_too():
    blank = NodeParameters(lens_guard="blank")
    values = np.ones((2, 3), np.float32)
    estimate = Estimate(values, np.ones((2, 3, 3), np.uint8), values, values, np.zeros((2, 3)))
    differs, beyond = LensVerdict((), ("f/4",)), LensVerdict((), ("9 m",), beyond=True)
    assert guarded(estimate, LensVerdict(), blank) is estimate
    assert guarded(estimate, differs, NodeParameters()) is estimate
    got = guarded(estimate, differs, blank)
    assert np.isnan(got.depth_m).all()
    assert (got.zones == 255).all()
    assert got.sigma_m is got.defocus_px is values
    for guard in ("ignore", "warn", "blank"):
        got = guarded(estimate, beyond, NodeParameters(lens_guard=guard))
        assert np.isnan([got.depth_m, got.sigma_m, got.defocus_px]).all()
        assert (got.zones == 255).all()
        assert got.sharp_rgb is estimate.sharp_rgb
    assert guarded(Estimate(), beyond, blank) == Estimate()


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


def test_a_node_outlives_a_path_without_a_home(stage):
    node = stage.start()
    stage.peer.wait_for_camera()
    assert "lens_calibration" in stage.peer.set(lens_calibration="~nosuchuser/lens.yaml")[0]
    assert stage.peer.state() == "active"
    assert node.process.poll() is None
