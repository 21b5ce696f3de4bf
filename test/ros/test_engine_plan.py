"""What serves a model: the decisions, without a node."""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace

import pytest

from ddfd_ros.core.errors import DdfdError, ModelLoadError
from ddfd_ros.inference.base import DeviceError
from ddfd_ros.inference.engine_manifest import (
    EngineManifest,
    GpuMachine,
    ShapeRange,
    file_sha256,
    manifest_path,
    write_manifest,
)
from ddfd_ros.inference.engine_store import engine_name
from ddfd_ros.inference.onnx_file import load_onnx
from ddfd_ros.ros import engine_build, engine_keeper, engine_parts, engine_plan
from ddfd_ros.ros.engine_keeper import EngineKeeper
from ddfd_ros.ros.engine_plan import check_calibration, plan_engine, sized
from ddfd_ros.ros.parameters import NodeParameters

MACHINE = GpuMachine("Board", "8.7", "12.6", "10.3.0")
PARAMETERS = NodeParameters(warm_up_height=60, warm_up_width=90)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with a GPU; call it to change what it has."""
    monkeypatch.setenv("DDFD_ENGINES", str(tmp_path / "engines"))

    def change(answer=MACHINE, installed=True):
        def probe():
            if isinstance(answer, DdfdError):
                raise answer
            return answer

        monkeypatch.setattr(engine_plan, "probe_gpu", probe)
        monkeypatch.setattr(engine_plan, "tensorrt_installed", lambda: installed)

    change()
    return change


@pytest.fixture
def model(tools, tmp_path):
    return tools.write_model(tmp_path / "tiny.onnx")


def put_engine(model, folder, size=(64, 96), data=b"engine", **changes):
    _, contract = load_onnx(model)
    shapes = ShapeRange.fixed(*size)
    folder.mkdir(exist_ok=True)
    path = folder / engine_name(model, shapes, "fp16", contract.outputs, len(contract.outputs))
    path.write_bytes(data)
    values = {
        "engine_sha256": file_sha256(path), "engine_bytes": len(data), "onnx_file": model.name,
        "onnx_sha256": file_sha256(model), "contract": contract, "precision": "fp16",
        "shapes": shapes, "machine": MACHINE,
    }  # fmt: skip
    write_manifest(manifest_path(path), EngineManifest(**(values | changes)))
    return path


def test_no_engine_yet_is_built_for_the_padded_size(machine, model, tmp_path):
    plan = plan_engine(model, PARAMETERS)
    assert (plan.wish.height, plan.wish.width) == (64, 96)
    assert plan.build
    assert "no engine has been built yet" in plan.reason
    assert plan.folders == (tmp_path, tmp_path / "engines")
    assert sized(plan.wish, (100, 100), load_onnx(model)[1]).width == 128


def test_the_engine_of_a_model_with_a_strange_name_is_found(machine, model, tmp_path):
    strange = model.rename(tmp_path / "tiny [2]*.onnx")
    assert plan_engine(strange, PARAMETERS).engine_path is None
    path = put_engine(strange, tmp_path)
    assert plan_engine(strange, PARAMETERS).engine_path == path


def test_an_engine_beside_the_model_or_in_the_folder_is_taken(machine, model, tmp_path):
    for folder in (tmp_path, tmp_path / "engines"):
        path = put_engine(model, folder)
        plan = plan_engine(model, PARAMETERS)
        assert (plan.engine_path, plan.reason) == (path, "")
        path.unlink()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"machine": dataclasses.replace(MACHINE, gpu_name="Other")}, "GPU Other"),
        ({"machine": dataclasses.replace(MACHINE, tensorrt_version="8.6.1")}, "TensorRT 8.6.1"),
        ({"onnx_sha256": "0" * 64}, "ONNX 000000"),
        ({"engine_bytes": 7}, "expected 7 bytes, got 6"),
        ({"engine_sha256": "0" * 64}, "altered"),
    ],
)
def test_an_engine_that_does_not_fit_is_built_anew(machine, model, tmp_path, changes, word):
    put_engine(model, tmp_path, **changes)
    plan = plan_engine(model, PARAMETERS)
    assert plan.engine_path is None
    assert word in plan.reason
    assert plan.build


def test_other_sizes_and_precisions_are_passed_over(machine, model, tmp_path):
    put_engine(model, tmp_path, size=(32, 32))
    assert plan_engine(model, PARAMETERS).reason == "no engine has been built yet"
    put_engine(model, tmp_path)
    other = dataclasses.replace(PARAMETERS, engine_precision="fp32")
    assert plan_engine(model, other).engine_path is None


@pytest.mark.parametrize("values", [{"runtime": "onnxruntime"}, {"device": "cpu"},
                                    {"device": "cuda"}])  # fmt: skip
def test_who_wants_no_engine_gets_none(machine, model, tmp_path, values):
    machine(DeviceError("must not be asked"))
    parameters, engine = dataclasses.replace(PARAMETERS, **values), put_engine(model, tmp_path)
    for path in (model, engine):
        plan = plan_engine(path, parameters)
        assert (plan.model_path, plan.runtime) == (model, parameters.runtime)
        assert (plan.wish, plan.engine_path, plan.reason) == (None, None, "")
    model.unlink()
    with pytest.raises(ModelLoadError, match=r"expected runtime tensorrt.*model tiny.onnx is not"):
        plan_engine(engine, parameters)


def test_machines_without_a_gpu(machine, model):
    machine(installed=False)
    assert plan_engine(model, PARAMETERS).reason == ""
    machine(DeviceError("no CUDA-capable device"))
    plan = plan_engine(model, PARAMETERS)
    assert plan.wish is None
    assert "TensorRT is installed, but: no CUDA" in plan.reason
    with pytest.raises(DeviceError):
        plan_engine(model, dataclasses.replace(PARAMETERS, runtime="tensorrt"))


def test_the_lean_runtime_and_engine_build_false_say_why_nothing_is_built(machine, model):
    machine(dataclasses.replace(MACHINE, can_build=False))
    assert "only the lean runtime" in plan_engine(model, PARAMETERS).reason
    machine()
    plan = plan_engine(model, dataclasses.replace(PARAMETERS, engine_build=False))
    assert not plan.build
    assert "engine_build is false" in plan.reason


def test_an_engine_file_as_the_model(machine, model, tmp_path):
    path = put_engine(model, tmp_path, size=(96, 128))
    plan = plan_engine(path, PARAMETERS)
    assert (plan.model_path, plan.engine_path, plan.wish.width) == (model, path, 128)
    machine(dataclasses.replace(MACHINE, gpu_name="New"))
    plan = plan_engine(path, PARAMETERS)
    assert plan.engine_path is None
    assert "built for GPU Board, this is New" in plan.reason
    machine(DeviceError("gone"))
    assert plan_engine(path, PARAMETERS).model_path == model
    model.unlink()
    plan = plan_engine(path, PARAMETERS)
    assert (plan.model_path, plan.runtime) == (path, "tensorrt")


def test_int8_wants_pictures(machine, model):
    int8 = dataclasses.replace(PARAMETERS, engine_precision="int8")
    with pytest.raises(ModelLoadError, match="engine_calibration"):
        check_calibration(plan_engine(model, int8))
    check_calibration(plan_engine(model, dataclasses.replace(int8, engine_calibration="x")))


@pytest.mark.parametrize(
    ("heads", "part"),
    [
        ((), None),
        (("depth_m",), ("depth_m", "sigma_m")),
        (("depth_m", "sigma_m"), ("depth_m", "sigma_m")),
        (("sharp_rgb",), ("sharp_rgb",)),
        (("depth_m", "sharp_rgb"), None),
    ],
)
def test_only_whole_decoders_are_left_out(heads, part):
    outputs = ("depth_m", "sigma_m", "sharp_rgb")
    assert engine_parts._part(outputs, heads) == part
    assert engine_parts._part(("depth_m",), heads) is None


def test_an_engine_that_must_not_serve_does_not_hide_a_good_one(machine, model, tmp_path):
    """Else a new one is built after every failure of the GPU, for minutes."""
    bad = put_engine(model, tmp_path)
    good = put_engine(model, tmp_path / "engines", data=b"another")
    plan = plan_engine(model, PARAMETERS)
    nothing = SimpleNamespace(engine=None, unfit_size=None, standby=SimpleNamespace(runtime="cpu"))
    keeper = EngineKeeper(plan, nothing, lambda _: None, lambda *_: None)
    assert keeper._find(plan.wish) == (bad, [])
    keeper._bad.add(file_sha256(bad))
    assert keeper._find(plan.wish) == (good, [])
    keeper._bad.add(file_sha256(good))
    assert keeper._find(plan.wish) == (None, [])


class Backend:
    """As much of a ``SwitchingBackend`` as the keeper looks at."""

    runtime, failure, unfit_size = "cpu", "", None
    last_size, last_heads = (64, 96), ()

    def __init__(self, model):
        self.contract = load_onnx(model)[1]
        self.standby = SimpleNamespace(runtime="cpu")
        self.engine = self.new = SimpleNamespace(
            contract=self.contract, device="gpu", self_test=lambda: {}, warm_up=lambda *_: 1.0
        )

    def stage(self, engine):
        return engine

    def install(self, engine):
        self.engine = engine

    def unstage(self):
        pass

    def fail(self):
        self.engine, self.failure = None, "CUDA: launch failed"


@pytest.fixture
def kept(machine, model, tmp_path):
    """A keeper whose engine serves, its backend, and what it said; it looks when told to."""
    put_engine(model, tmp_path)
    plan = plan_engine(model, PARAMETERS)
    backend, said = Backend(model), []
    keeper = EngineKeeper(
        plan, backend, lambda function: function(None), lambda _, text: said.append(text)
    )
    return keeper, backend, said


def test_images_that_fit_the_engine_again_end_what_was_said(kept, model, tmp_path, monkeypatch):
    keeper, backend, _ = kept
    in_force = keeper.status
    assert in_force.sha256
    assert not in_force.degraded

    def fail(*_):
        raise DeviceError("CUDA: out of memory")

    monkeypatch.setattr(engine_keeper, "open_backend", fail)
    put_engine(model, tmp_path, (96, 128), b"for the larger ones")
    backend.unfit_size = (96, 128)
    keeper._look()
    assert "out of memory" in keeper.status.degraded
    assert not keeper.status.sha256
    backend.unfit_size = None
    keeper._look()
    assert keeper.status == in_force


def test_an_engine_that_loads_and_fails_on_frames_is_tried_less_and_less(kept, monkeypatch):
    keeper, backend, said = kept
    monkeypatch.setattr(engine_keeper, "open_backend", lambda *_: backend.new)

    def fail():
        said.clear()
        backend.fail()
        keeper._look()
        keeper._next_try = 0.0
        keeper._look()
        assert "serves from now on" in said[-1]
        return said[0].partition("next try in ")[2].partition(" s")[0]

    assert [fail() for _ in range(4)] == ["10", "20", "40", "80"]
    keeper._served_since -= engine_keeper._LONGEST_RETRY_S  # it has served for long since
    assert [fail() for _ in range(2)] == ["10", "20"]


def test_a_build_that_prints_what_is_no_text_ends(machine, model, tmp_path, monkeypatch):
    script = tmp_path / "build"
    script.write_text(
        "#!/bin/sh\nprintf 'caf\\351\\n' >&2\nhead -c 200000 /dev/zero >&2\n"
        "printf '\\nerror: no room\\n' >&2\nexit 1\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(engine_build, "_politely", lambda: [str(script)])
    plan, end = plan_engine(model, PARAMETERS), time.monotonic() + 10.0
    with pytest.raises(ModelLoadError, match="ended with 1: no room"):
        engine_build.build_engine(
            plan.wish, tmp_path, None, lambda: time.monotonic() > end, lambda _: None
        )
