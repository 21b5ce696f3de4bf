"""Two backends as one: the standby answers whenever the engine cannot."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ddfd_ros.core.errors import ContractError
from ddfd_ros.core.metadata import golden_image
from ddfd_ros.inference import open_backend
from ddfd_ros.inference.base import DeviceError
from ddfd_ros.inference.deblur_stage import TwoStageBackend
from ddfd_ros.inference.onnx_backend import OnnxBackend
from ddfd_ros.inference.switching import SwitchingBackend


class Engine(OnnxBackend):
    """A real backend that takes one size and fails on demand."""

    runtime = "tensorrt"
    broken = False

    def takes(self, height, width):
        return (height, width) == (64, 96)

    def _infer(self, image, heads):
        if self.broken:
            raise DeviceError("CUDA: launch failed")
        return super()._infer(image, heads)


@pytest.fixture
def pair(make, tmp_path):
    path = make.write_model(tmp_path / "tiny.onnx")
    from ddfd_ros.inference.base import BackendOptions

    options = BackendOptions(threads=1)
    backend = SwitchingBackend(open_backend(path, "onnxruntime", threads=1))
    engine = Engine.from_file(path, options)
    with backend:
        yield backend, engine


def check(make, backend, height=64, width=96, seed=1):
    image = golden_image(height, width, seed)
    answer = backend.infer(image, ["depth_m"])
    np.testing.assert_allclose(answer["depth_m"], make.reference(image)["depth_m"], rtol=1e-4)


def test_the_failing_frame_itself_is_answered(pair, make):
    backend, engine = pair
    check(make, backend)
    assert backend.runtime == "onnxruntime"
    backend.install(engine)
    check(make, backend)
    assert backend.runtime == "tensorrt"
    engine.broken = True
    check(make, backend)
    assert backend.runtime == "onnxruntime"
    assert "launch failed" in backend.failure
    assert backend.changed.is_set()
    assert backend.engine is None
    assert engine._closed


def test_odd_sizes_pass_to_the_standby_and_are_noted_when_they_stay(pair, make):
    backend, engine = pair
    backend.install(engine)
    for seed in range(3):  # now and then another size: no reason for another engine
        check(make, backend, 96, 96, seed)
        check(make, backend)
    assert backend.unfit_size is None
    for seed in range(5):
        check(make, backend, 96, 96, seed)
    assert backend.unfit_size == (96, 96)
    assert backend.changed.is_set()
    check(make, backend)
    assert backend.unfit_size is None


def test_a_failure_while_warming_up_leaves_the_standby(pair):
    backend, engine = pair
    backend.install(engine)
    engine.broken = True
    assert backend.warm_up(64, 96) > 0
    assert backend.engine is None


def test_another_model_is_refused(pair, make, tmp_path):
    backend, _ = pair
    other = make.write_model(tmp_path / "other.onnx", weights_sha256="1" * 64)
    with open_backend(other, "onnxruntime", threads=1) as engine:
        with pytest.raises(ContractError, match="expected the model 000000"):
            backend.install(engine)
        assert backend.engine is None


def test_a_new_engine_closes_the_old_one(pair, make, tmp_path):
    backend, engine = pair
    backend.install(engine)
    again = open_backend(tmp_path / "tiny.onnx", "onnxruntime", threads=1)
    backend.install(again)
    assert engine._closed
    backend.close()
    assert again._closed


def test_a_staged_engine_answers_nothing_and_ends_with_the_backend(pair, make):
    backend, engine = pair
    assert backend.stage(engine) is engine
    check(make, backend)
    assert backend.runtime == "onnxruntime"
    assert backend.engine is None
    backend.close()
    assert engine._closed


def test_a_staged_engine_is_closed_by_the_next_or_when_it_is_not_to_serve(pair, make, tmp_path):
    backend, engine = pair
    backend.stage(engine)
    again = open_backend(tmp_path / "tiny.onnx", "onnxruntime", threads=1)
    backend.stage(again)
    assert engine._closed
    backend.unstage()
    backend.unstage()
    assert again._closed


def test_an_installed_engine_is_staged_no_more(pair, make):
    backend, engine = pair
    backend.install(backend.stage(engine))
    backend.unstage()
    check(make, backend)
    assert backend.runtime == "tensorrt"


def test_everything_is_closed_whatever_one_of_them_raises(pair, make, tmp_path):
    backend, engine = pair
    backend.install(engine)
    again = open_backend(tmp_path / "tiny.onnx", "onnxruntime", threads=1)
    backend.stage(again)

    def fail():
        raise DeviceError("CUDA: lost")

    engine._close = again._close = fail
    with pytest.raises(DeviceError, match="lost"):
        backend.close()
    assert engine._closed
    assert again._closed
    assert backend.standby._closed


def test_what_runs_in_front_of_a_second_model_is_told_as_it_changes(pair, make):
    backend, engine = pair
    engine.device = "a GPU"
    stage = SimpleNamespace(runtime="openvino", sharpen=lambda image, depth_m: image)
    both = TwoStageBackend(backend, stage)
    assert (both.runtime, both.device) == (
        "onnxruntime",
        f"{backend.standby.device}; deblurring openvino",
    )
    backend.install(engine)
    asked, infer = [], backend.standby.infer

    def noted(image, heads, *further):
        asked.append(set(heads))
        return infer(image, heads, *further)

    backend.standby.infer = noted
    both.warm_up(64, 96, ("sigma_m", "sharp_rgb"))
    assert {"depth_m", "sigma_m"} in asked  # what answers when the GPU fails is warm, too
    check(make, both)
    assert (both.runtime, both.device) == ("tensorrt", "a GPU; deblurring openvino")
    engine.broken = True
    check(make, both)
    assert both.runtime == "onnxruntime"
    assert both.device.startswith(backend.standby.device)
